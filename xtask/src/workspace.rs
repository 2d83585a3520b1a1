//! Where things are: the repository, its `target` directory, and what set-up and build put there.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

use crate::process;

/// The paths of one clone of the repository, all absolute.
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
    cargo: PathBuf,
}

impl Workspace {
    /// Finds the clone from what `cargo run` tells its child.
    ///
    /// Read at run time and not with `env!`: a `target` directory may have come from another clone.
    pub fn find() -> Result<Self> {
        let manifest_dir = env::var_os("CARGO_MANIFEST_DIR").context(
            "start this program as `cargo xtask`, which tells it where the workspace is",
        )?;
        let root = Path::new(&manifest_dir)
            .parent()
            .context("the xtask crate has no directory above it")?
            .to_path_buf();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => std::path::absolute(dir)?,
            None => root.join("target"),
        };
        let cargo = env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
        Ok(Self {
            root,
            target,
            cargo,
        })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Programs that set-up installed; its `bin` has the executables.
    pub fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// The Python environment.
    pub fn venv(&self) -> PathBuf {
        self.target.join("venv")
    }

    /// Kafka, and what fetching it left.
    pub fn servers(&self) -> PathBuf {
        self.target.join("servers")
    }

    /// The log file of a long child named `name`.
    pub fn log(&self, name: &str) -> PathBuf {
        self.target.join("xtask-logs").join(format!("{name}.log"))
    }

    pub fn agent(&self) -> PathBuf {
        self.target.join("release/dt-agent")
    }

    pub fn console(&self) -> PathBuf {
        self.target.join("release/dt-console")
    }

    /// The agent under the next ABI version's number, as `test` leaves it.
    pub fn next_agent(&self) -> PathBuf {
        self.target.join("next-abi/dt-agent")
    }

    /// The agent whose programs log, as `build --trace` leaves it.
    pub fn trace_agent(&self) -> PathBuf {
        self.target.join("trace/dt-agent")
    }

    /// The BPF object with the stem `name`, as `build` leaves it.
    pub fn bpf_object(&self, name: &str) -> PathBuf {
        self.target.join("bpf-objects").join(format!("{name}.o"))
    }

    /// Cargo of the pinned toolchain, working on this clone.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        command
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target);
        command
    }

    /// The first executable `name` of `PATH`.
    pub fn program_in_path(name: &str) -> Option<PathBuf> {
        let path = env::var_os("PATH")?;
        env::split_paths(&path)
            .map(|dir| dir.join(name))
            .find(|file| file.is_file())
    }
}

/// What `cargo metadata` says of the tree on this platform, as far as `T` reads it.
pub fn metadata<T: DeserializeOwned>(workspace: &Workspace) -> Result<T> {
    let mut rustc = Command::new("rustc");
    let text = process::capture(rustc.arg("-vV").current_dir(workspace.root()))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    let mut cargo = workspace.cargo();
    cargo
        .args(["metadata", "--format-version=1", "--locked"])
        .args([
            "--filter-platform",
            host.context("rustc -vV names no host")?,
        ]);
    serde_json::from_str(&process::capture(&mut cargo)?)
        .context("cargo metadata speaks another dialect")
}

/// What git says of the clone; none where it is no repository, as in the context of an image.
pub fn git(workspace: &Workspace, words: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    git.current_dir(workspace.root()).args(words);
    Some(process::capture(&mut git).ok()?.trim().to_owned())
}

/// Refuses at once what needs root, with the line that gives it.
pub fn require_root(command: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    bail!(
        "`cargo xtask {command}` needs root (network namespaces and BPF): sudo -E env \"PATH=$PATH\" cargo xtask {command}"
    )
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
