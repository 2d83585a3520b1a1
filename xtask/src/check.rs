//! `cargo xtask check`: what a change must pass besides the tests. Every check runs, whatever failed before it.

mod dependencies;
mod engine;
mod spdx;
mod tracked;

use anyhow::{Result, bail};

use crate::clock::Stopwatch;
use crate::process;
use crate::schema;
use crate::setup::{self, Group};
use crate::workspace::Workspace;

/// Runs all checks; one line each, and the output of those that failed.
pub fn run(workspace: &Workspace) -> Result<()> {
    // What librdkafka is built with, for clippy and docs.
    setup::run(workspace, Group::Build)?;
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        let watch = Stopwatch::start();
        let verdict = check(workspace);
        let word = if verdict.is_ok() { "ok" } else { "FAILED" };
        println!("{name:<14} {word:<6} {watch}");
        if let Err(error) = verdict {
            println!("{error:#}\n");
            failed.push(*name);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!(
        "{} of {} checks failed: {}",
        failed.len(),
        CHECKS.len(),
        failed.join(", ")
    )
}

type Check = fn(&Workspace) -> Result<()>;

/// Cheap ones first, so that a slip is seen in a second.
const CHECKS: &[(&str, Check)] = &[
    ("format", format),
    ("tracked files", tracked::check),
    ("schema", schema::check),
    ("licences", dependencies::licences),
    ("duplicates", dependencies::duplicates),
    ("reasons", dependencies::reasons),
    ("engine names", engine::names),
    ("engine builds", engine::builds_alone),
    ("console library", console_library),
    ("clippy", clippy),
    ("docs", docs),
];

fn format(workspace: &Workspace) -> Result<()> {
    cargo(
        workspace,
        "format",
        &["fmt", "--all", "--check", "--", "--color=never"],
        &[],
    )
}

/// The console's library must not come to need what only its sources and commands have.
fn console_library(workspace: &Workspace) -> Result<()> {
    let args = [
        "check",
        "--package",
        "dt-console",
        "--no-default-features",
        "--lib",
        "--locked",
    ];
    cargo(workspace, "console-library", &args, &[])
}

fn clippy(workspace: &Workspace) -> Result<()> {
    let args = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--features",
        "xtask/kafka,dt-tests/kafka",
        "--locked",
        "--",
        "-D",
        "warnings",
    ];
    cargo(workspace, "clippy", &args, &[])
}

fn docs(workspace: &Workspace) -> Result<()> {
    let args = ["doc", "--workspace", "--no-deps", "--locked"];
    cargo(workspace, "docs", &args, &[("RUSTDOCFLAGS", "-D warnings")])
}

fn cargo(workspace: &Workspace, name: &str, args: &[&str], env: &[(&str, &str)]) -> Result<()> {
    let mut command = workspace.cargo();
    command
        .args(args)
        .env("CARGO_TERM_COLOR", "never")
        .envs(env.iter().copied());
    process::run_judged(name, &workspace.log(&format!("check-{name}")), &mut command)
}
