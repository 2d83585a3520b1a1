//! Control groups by the name of their owner: where containers are found when the engine that ran them was killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait;

/// Kills what runs in groups at the top whose name is `dead`, and removes them.
pub fn sweep(dead: impl Fn(&str) -> bool) -> Result<()> {
    // Version 2 has one hierarchy, version 1 one for each controller.
    let root = Path::new("/sys/fs/cgroup");
    let mut tops = vec![root.to_owned()];
    tops.extend(directories(root));
    let groups = tops.iter().flat_map(|top| directories(top));
    for group in groups {
        let name = group.file_name().unwrap_or_default().to_string_lossy();
        if dead(&name) {
            remove(&group)?;
        }
    }
    Ok(())
}

fn remove(group: &Path) -> Result<()> {
    for below in directories(group) {
        remove(&below)?;
    }
    wait::until("empty control group", LIMIT, || {
        let Ok(held) = fs::read_to_string(group.join("cgroup.procs")) else {
            return Ok(Some(()));
        };
        for pid in held.lines().filter_map(|line| line.parse().ok()) {
            // It may end by itself meanwhile.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        Ok(fs::remove_dir(group).is_ok().then_some(()))
    })
    .with_context(|| format!("cannot remove {}", group.display()))
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() && !path.is_symlink())
        .collect()
}

const LIMIT: Duration = Duration::from_secs(10);
