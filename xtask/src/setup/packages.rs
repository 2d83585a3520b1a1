//! Debian packages: the only part of set-up that needs root, and only when one is missing.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process;
use crate::workspace::{Workspace, is_root};

/// The names joined, when all of them are installed.
pub fn find(names: &[&str]) -> Result<Option<String>> {
    Ok(missing(names)?.is_empty().then(|| names.join(" ")))
}

/// Installs those of `names` that are missing.
pub fn install(workspace: &Workspace, names: &[&str]) -> Result<()> {
    let missing = missing(names)?;
    if missing.is_empty() {
        return Ok(());
    }
    ensure!(
        is_root(),
        "type: sudo apt-get update && sudo apt-get install -y --no-install-recommends {}",
        missing.join(" ")
    );
    if apt_install(workspace, &missing).is_ok() {
        return Ok(());
    }
    // Fresh machines and images come without package lists, old ones with stale lists.
    process::run_logged(
        "apt-get update",
        &workspace.log("apt-update"),
        apt().arg("update"),
    )?;
    apt_install(workspace, &missing)
}

fn missing<'a>(names: &[&'a str]) -> Result<Vec<&'a str>> {
    // Status 1 only says that some name is unknown to dpkg; what it knows is printed all the same.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status} ${Package}\n"])
        .args(names)
        .output()
        .with_context(|| {
            let names = names.join(" ");
            format!("this is not a Debian system; install by other means what Debian calls {names}")
        })?;
    let installed = String::from_utf8_lossy(&output.stdout).into_owned();
    let is_installed = |name: &str| {
        installed
            .lines()
            .any(|line| line == format!("installed {name}"))
    };
    Ok(names
        .iter()
        .copied()
        .filter(|name| !is_installed(name))
        .collect())
}

fn apt_install(workspace: &Workspace, names: &[&str]) -> Result<()> {
    let mut command = apt();
    command
        .args(["install", "-y", "--no-install-recommends"])
        .args(names);
    let label = format!("apt-get install {}", names.join(" "));
    process::run_logged(&label, &workspace.log("apt-install"), &mut command)
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command
        .args(["-o", "DPkg::Lock::Timeout=120"])
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}
