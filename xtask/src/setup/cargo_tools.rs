//! Programs from the crate registry, in exactly one version, installed below `target/tools`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::packages;
use crate::process;
use crate::workspace::Workspace;

/// A program, its version, and how it is built.
pub struct CargoTool {
    pub name: &'static str,
    pub version: &'static str,
    options: &'static [&'static str],
    env: &'static [(&'static str, &'static str)],
    pub packages: &'static [&'static str],
}

impl CargoTool {
    /// The executable in the right version: ours, or one that the developer already has in `PATH`.
    pub fn find(&self, workspace: &Workspace) -> Option<PathBuf> {
        let ours = workspace.tools().join("bin").join(self.name);
        [Some(ours), Workspace::program_in_path(self.name)]
            .into_iter()
            .flatten()
            .find(|path| self.is_right_version(path))
    }

    pub fn describe(&self, path: &Path) -> String {
        format!("{} as {}", self.version, path.display())
    }

    pub fn install(&self, workspace: &Workspace) -> Result<()> {
        packages::install(workspace, self.packages)?;
        let mut cargo = workspace.cargo();
        cargo
            .args(["install", self.name, "--version", self.version, "--locked"])
            .args(self.options)
            .arg("--root")
            .arg(workspace.tools())
            // Not the workspace's own target directory: its lock would be held for a minute.
            .arg("--target-dir")
            .arg(workspace.target().join("tools-build"))
            .envs(self.env.iter().copied());
        let label = format!("cargo install {} {}", self.name, self.version);
        process::run_logged(&label, &workspace.log(self.name), &mut cargo)
    }

    fn is_right_version(&self, path: &Path) -> bool {
        let printed = process::capture(Command::new(path).arg("--version"));
        printed.is_ok_and(|text| text.split_whitespace().any(|word| word == self.version))
    }
}

/// Needs the LLVM of the pinned compiler or a later one; Debian has 22.
pub const BPF_LINKER: CargoTool = CargoTool {
    name: "bpf-linker",
    version: "0.13.0",
    options: &["--no-default-features", "--features", "llvm-22"],
    env: &[("LLVM_PREFIX", "/usr/lib/llvm-22")],
    packages: &[
        "llvm-22-dev",
        "libpolly-22-dev",
        "zlib1g-dev",
        "libzstd-dev",
    ],
};

/// Comes with the LLVM that the linker needs.
pub const LLVM_STRIP: &str = "/usr/lib/llvm-22/bin/llvm-strip";

/// The foreign STAMP sender and reflector that ours are tried against.
pub const STAMP_SUITE: CargoTool = CargoTool {
    name: "stamp-suite",
    version: "1.0.0",
    options: &[],
    env: &[],
    packages: &[],
};
