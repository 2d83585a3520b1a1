//! `cargo xtask build`: the BPF objects, then the agent with its object embedded.
//!
//! The BPF crate is compiled in a directory of its own: other flags, another target and `RUSTC_BOOTSTRAP` must not touch
//! what the host build has cached.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::setup::{BPF_LINKER, BpfCore, DEBIAN_RUSTC};
use crate::workspace::Workspace;

/// What a build leaves, by absolute path.
pub struct Built {
    pub agent: PathBuf,
    pub datapath_object: PathBuf,
    pub lab_object: PathBuf,
}

/// Builds everything that runs outside of tests.
pub fn run(workspace: &Workspace) -> Result<Built> {
    compile_bpf(workspace)?;
    let built = Built {
        agent: workspace.agent(),
        datapath_object: collect_object(workspace, "dt-datapath")?,
        lab_object: collect_object(workspace, "dt-lab")?,
    };
    process::run_shown(
        workspace
            .cargo()
            .args(["build", "--release", "--locked", "--package", "dt-agent"])
            .env("DT_BPF_OBJECT", &built.datapath_object),
    )?;
    for file in [&built.datapath_object, &built.lab_object, &built.agent] {
        eprintln!("{}", describe(file)?);
    }
    Ok(built)
}

fn compile_bpf(workspace: &Workspace) -> Result<()> {
    let linker = BPF_LINKER.find(workspace).with_context(|| {
        format!(
            "no {}: type `cargo xtask setup --for build`",
            BPF_LINKER.name
        )
    })?;
    let core = BpfCore::find(workspace)?
        .context("no core for the BPF target: type `cargo xtask setup --for build`")?;
    let mut cargo = workspace.cargo();
    cargo
        .args(["build", "--release", "--locked", "--package", "dt-ebpf"])
        .args(["--target", BPF_TARGET, "--target-dir"])
        .arg(bpf_dir(workspace))
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            bpf_flags(workspace, &linker, &core).join("\x1f"),
        )
        // aya-ebpf uses an unstable inline-assembly feature; this one call may, nothing else does.
        .env("RUSTC_BOOTSTRAP", "1");
    match core {
        BpfCore::RustSrc { .. } => cargo.args(["-Z", "build-std=core"]),
        BpfCore::Debian => cargo.env("RUSTC", DEBIAN_RUSTC),
    };
    process::run_shown(&mut cargo)
}

fn bpf_flags(workspace: &Workspace, linker: &Path, core: &BpfCore) -> Vec<String> {
    let mut flags = vec![
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".to_owned(),
        "-Ctarget-cpu=v3".to_owned(),
        "-Cdebuginfo=2".to_owned(),
    ];
    // File names end up in the BTF line information: without the machine's paths, every clone builds the same object.
    let mut remap = |path: &Path, name: &str| {
        flags.push(format!("--remap-path-prefix={}={name}", path.display()));
    };
    if let Some(home) = cargo_home() {
        remap(&home, "cargo");
    }
    if let BpfCore::RustSrc { sysroot } = core {
        remap(sysroot, "rust");
    }
    remap(workspace.root(), "dt");
    flags
}

fn cargo_home() -> Option<PathBuf> {
    let named = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))
}

/// Puts the object where everybody looks for it, and leaves an equal one alone so that nothing is rebuilt for it.
fn collect_object(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    let compiled = bpf_dir(workspace)
        .join(BPF_TARGET)
        .join("release")
        .join(name);
    let object = workspace.bpf_object(name);
    let bytes = fs::read(&compiled)
        .with_context(|| format!("the BPF build left no {}", compiled.display()))?;
    if fs::read(&object).is_ok_and(|old| old == bytes) {
        return Ok(object);
    }
    let dir = object.parent().context("an object lies in a directory")?;
    fs::create_dir_all(dir)?;
    let part = dir.join(format!("{name}.part"));
    fs::write(&part, bytes)?;
    fs::rename(&part, &object)?;
    Ok(object)
}

fn describe(file: &Path) -> Result<String> {
    let bytes = fs::metadata(file)?.len();
    let sum = process::capture(Command::new("sha256sum").arg(file))?;
    let hash = sum.get(..16).context("sha256sum printed no hash")?;
    Ok(format!(
        "{bytes:>10} bytes  sha256 {hash}…  {}",
        file.display()
    ))
}

fn bpf_dir(workspace: &Workspace) -> PathBuf {
    workspace.target().join("bpf")
}

const BPF_TARGET: &str = "bpfel-unknown-none";
