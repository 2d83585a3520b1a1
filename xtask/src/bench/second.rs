//! The benches that have a broker, by a second xtask that has a Kafka client.
//!
//! This one is compiled on machines that have nothing yet: librdkafka needs packages that set-up installs.

use std::env;

use anyhow::Result;
use clap::Args;

use crate::process;
use crate::setup::{self, Group};
use crate::workspace::Workspace;

/// Whatever was typed behind the name of the bench.
#[derive(Args)]
pub struct Arguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _all: Vec<String>,
}

/// Sets up and runs this very command again.
pub fn run(workspace: &Workspace) -> Result<()> {
    setup::run(workspace, Group::Bench)?;
    let mut cargo = workspace.cargo();
    cargo
        .args([
            "run",
            "--quiet",
            "--release",
            "--locked",
            "--package",
            "xtask",
        ])
        .args(["--features", "kafka", "--"])
        .args(env::args_os().skip(1));
    process::run_shown(&mut cargo)
}
