//! scapy in a Python environment of its own: the foreign opinion on the bytes of a STAMP packet.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process;
use crate::workspace::Workspace;

pub fn find(workspace: &Workspace) -> Option<String> {
    let python = workspace.venv().join("bin/python");
    let mut command = Command::new(&python);
    command.args([
        "-c",
        "import importlib.metadata as m; print(m.version('scapy'))",
    ]);
    let version = process::capture(&mut command).ok()?;
    (version.trim() == VERSION).then(|| format!("{VERSION} in {}", workspace.venv().display()))
}

pub fn install(workspace: &Workspace) -> Result<()> {
    let log = workspace.log("scapy");
    // Debian's own Python, because `python3-venv` belongs to that one and not to whatever is first in PATH.
    let python = ["/usr/bin/python3", "python3"]
        .into_iter()
        .find(|path| Path::new(path).is_file())
        .unwrap_or("python3");
    let mut venv = Command::new(python);
    venv.args(["-m", "venv", "--clear"]).arg(workspace.venv());
    process::run_logged("python environment", &log, &mut venv)?;
    let mut pip = Command::new(workspace.venv().join("bin/python"));
    pip.args([
        "-m",
        "pip",
        "install",
        "--no-input",
        &format!("scapy=={VERSION}"),
    ]);
    process::run_logged("pip install scapy", &log, &mut pip)
}

const VERSION: &str = "2.8.0";
