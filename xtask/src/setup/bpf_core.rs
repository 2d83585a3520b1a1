//! Where `core` for the BPF target comes from: its source (`rust-src`), or Debian's compiler that has it prebuilt.
//!
//! No Rust release ships a `core` for BPF. The source is preferred because it belongs to the pinned compiler.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};

use super::packages;
use crate::process;
use crate::workspace::Workspace;

/// A way to compile for BPF that exists on this machine.
pub enum BpfCore {
    /// Compile `core` with the pinned compiler, from its source.
    RustSrc { sysroot: PathBuf },
    /// Compile with Debian's compiler, against its prebuilt `core`.
    Debian,
}

impl BpfCore {
    pub fn find(workspace: &Workspace) -> Result<Option<Self>> {
        let sysroot = sysroot(workspace)?;
        if sysroot
            .join("lib/rustlib/src/rust/library/core/src/lib.rs")
            .is_file()
        {
            return Ok(Some(Self::RustSrc { sysroot }));
        }
        let prebuilt = Path::new(DEBIAN_RUSTC).is_file() && Path::new(DEBIAN_CORE).is_dir();
        Ok(prebuilt.then_some(Self::Debian))
    }
}

impl fmt::Display for BpfCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RustSrc { .. } => write!(f, "rust-src of the pinned toolchain"),
            Self::Debian => write!(f, "prebuilt, with Debian's compiler {DEBIAN_RUSTC}"),
        }
    }
}

/// Adds `rust-src` with rustup; without rustup, or offline from it, takes Debian's packages.
pub fn install(workspace: &Workspace) -> Result<()> {
    let mut rustup = Command::new("rustup");
    rustup
        .args(["component", "add", "rust-src"])
        .current_dir(workspace.root());
    let log = workspace.log("rust-src");
    let refusal = match process::run_logged("rustup component add rust-src", &log, &mut rustup) {
        Ok(()) if BpfCore::find(workspace)?.is_some() => return Ok(()),
        Ok(()) => anyhow!("rustup says it is installed, and it is not"),
        Err(error) => error,
    };
    eprintln!(
        "  no rust-src ({refusal:#}); taking Debian's {}",
        DEBIAN_PACKAGES.join(" ")
    );
    packages::install(workspace, DEBIAN_PACKAGES).context(
        "`rustup component add rust-src` failed, and so did Debian's packages in its place",
    )
}

fn sysroot(workspace: &Workspace) -> Result<PathBuf> {
    let mut rustc = Command::new("rustc");
    rustc
        .args(["--print", "sysroot"])
        .current_dir(workspace.root());
    Ok(PathBuf::from(process::capture(&mut rustc)?.trim()))
}

pub const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none/lib";
const DEBIAN_PACKAGES: &[&str] = &["rustc-web", "libstd-rust-web-dev-bpf"];
