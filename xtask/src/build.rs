//! `cargo xtask build`: the BPF objects, then the agent with its object embedded, and the console.
//!
//! The BPF crate is compiled in a directory of its own: other flags, another target and `RUSTC_BOOTSTRAP` must not touch
//! what the host build has cached.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::setup::{BPF_LINKER, BpfCore, DEBIAN_RUSTC, LLVM_STRIP};
use crate::workspace::{self, Workspace};

/// What a build leaves, by absolute path.
pub struct Built {
    pub agent: PathBuf,
    pub console: PathBuf,
    pub datapath_object: PathBuf,
    pub lab_object: PathBuf,
}

/// Builds the agent once more, under the next ABI version's number, for tests of upgrades; returns its path.
///
/// To be followed by [`run`], because cargo knows only one place for either build.
pub fn run_next(workspace: &Workspace) -> Result<PathBuf> {
    compile_bpf(workspace, NEXT_ABI)?;
    let object = collect_object(workspace, "dt-datapath", "dt-datapath-next")?;
    compile_agent(workspace, &object, NEXT_ABI)?;
    collect(&workspace.agent(), workspace.next_agent())
}

/// Builds the agent and its programs with their log, for development; returns the agent's path.
///
/// To be followed by [`run`] where the plain agent is needed, for the same reason.
pub fn run_trace(workspace: &Workspace) -> Result<PathBuf> {
    compile_bpf(workspace, TRACE)?;
    let object = collect_object(workspace, "dt-datapath", "dt-datapath-trace")?;
    compile_agent(workspace, &object, TRACE)?;
    let agent = collect(&workspace.agent(), workspace.trace_agent())?;
    for file in [&object, &agent] {
        eprintln!("{}", describe(file)?);
    }
    Ok(agent)
}

/// Builds everything that runs outside of tests.
pub fn run(workspace: &Workspace) -> Result<Built> {
    compile_bpf(workspace, &[])?;
    let built = Built {
        agent: workspace.agent(),
        console: workspace.console(),
        datapath_object: collect_object(workspace, "dt-datapath", "dt-datapath")?,
        lab_object: collect_object(workspace, "dt-lab", "dt-lab")?,
    };
    compile_agent(workspace, &built.datapath_object, &[])?;
    compile_console(workspace)?;
    let files = [
        &built.datapath_object,
        &built.lab_object,
        &built.agent,
        &built.console,
    ];
    for file in files {
        eprintln!("{}", describe(file)?);
    }
    Ok(built)
}

fn compile_agent(workspace: &Workspace, object: &Path, options: &[&str]) -> Result<()> {
    process::run_shown(
        workspace
            .cargo()
            .args(["build", "--release", "--locked", "--package", "dt-agent"])
            .args(options)
            .env("DT_COMMIT", commit(workspace))
            .env("DT_BPF_OBJECT", object),
    )
}

fn compile_console(workspace: &Workspace) -> Result<()> {
    process::run_shown(
        workspace
            .cargo()
            .args(["build", "--release", "--locked", "--package", "dt-console"])
            .env("DT_COMMIT", commit(workspace)),
    )
}

/// What `--version` is to say: `DT_COMMIT` where an image is built of a context without the repository, else what git
/// says, with a `+` where files differ from it.
fn commit(workspace: &Workspace) -> String {
    if let Some(given) = std::env::var("DT_COMMIT")
        .ok()
        .filter(|text| !text.is_empty())
    {
        return given;
    }
    let words = [
        "describe",
        "--always",
        "--exclude=*",
        "--abbrev=12",
        "--dirty=+",
    ];
    workspace::git(workspace, &words).unwrap_or_else(|| "unknown".to_owned())
}

fn compile_bpf(workspace: &Workspace, options: &[&str]) -> Result<()> {
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
        .args(options)
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

/// Without the compiler's tables, which are four fifths of it and which the agent would carry about: BTF is all that the kernel and
/// its tools read.
fn collect_object(workspace: &Workspace, name: &str, as_name: &str) -> Result<PathBuf> {
    let stripped = bpf_dir(workspace).join(format!("{as_name}.stripped"));
    process::capture(
        Command::new(LLVM_STRIP)
            .arg("--strip-debug")
            .arg("-o")
            .arg(&stripped)
            .arg(compiled_object(workspace, name)),
    )?;
    collect(&stripped, workspace.bpf_object(as_name))
}

/// Where the BPF build leaves an object.
fn compiled_object(workspace: &Workspace, name: &str) -> PathBuf {
    bpf_dir(workspace)
        .join(BPF_TARGET)
        .join("release")
        .join(name)
}

/// Puts what was built where everybody looks for it, and leaves an equal one alone so that nothing is rebuilt for it.
fn collect(built: &Path, place: PathBuf) -> Result<PathBuf> {
    let bytes =
        fs::read(built).with_context(|| format!("the build left no {}", built.display()))?;
    if fs::read(&place).is_ok_and(|old| old == bytes) {
        return Ok(place);
    }
    let dir = place.parent().context("a file lies in a directory")?;
    fs::create_dir_all(dir)?;
    let part = place.with_extension("part");
    // A copy, because the permission to run an agent goes with it.
    fs::copy(built, &part)?;
    fs::rename(&part, &place)?;
    Ok(place)
}

/// Size, start of the hash and path, for people.
pub fn describe(file: &Path) -> Result<String> {
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

/// See the feature in dt-common.
const NEXT_ABI: &[&str] = &["--features", "next-abi"];
const TRACE: &[&str] = &["--features", "trace"];
const BPF_TARGET: &str = "bpfel-unknown-none";
