//! `cargo xtask demo`: a mesh of real hosts on this machine, and what their agents say of each other.
//!
//! Every figure of the mesh comes out of the agents' feed, as any reader would get it. Beside it stand `ping` on one of the
//! wires and the CPU time of the agents.

pub mod cpu;
pub mod feed;
mod findings;
#[cfg(test)]
mod fixture;
mod json;
mod live;
mod options;
mod ping;
mod services;
mod show;
pub mod stage;
mod stress;
mod table;
pub mod tally;

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use dt_console::units;
use dt_tests::Interrupt;

use crate::build;
use crate::clock::{self, Stopwatch};
use crate::setup::{self, Group};
use crate::workspace::Workspace;
use findings::Findings;
use show::{Show, Start};
use stage::Stage;

pub use options::Options;

/// Sets up, builds, shows, and ends with an error unless every pair was measured as asked and lost nothing.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let (unix_ns, watch) = (clock::now_unix_ns(), Stopwatch::start());
    let json = options.json.as_deref().map(create).transpose()?;
    let group = if options.full {
        Group::DemoFull
    } else {
        Group::Demo
    };
    setup::run(workspace, group)?;
    let built = build::run(workspace)?;
    eprintln!("{:<28} ready ({watch})", "set-up and build");
    let start = Start {
        unix_ns,
        built_after: watch.elapsed(),
    };
    // From here on Ctrl-C ends the show and not this program, which then clears away what it made.
    let interrupt = Interrupt::catch()?;
    dt_tests::sweep()?;
    let findings = Stage::raise(options, &built).and_then(|mut stage| {
        eprintln!(
            "{:<28} {} hosts as a {} ({watch})",
            "network namespaces", options.nodes, options.topology
        );
        if options.full {
            stage.start_services(workspace, &built.console)?;
        }
        stage.start_agents(options, &built.agent)?;
        Show::new(options, &mut stage, &interrupt, start).run()
    });
    // What Ctrl-C did to our children looks like failures of theirs.
    let findings = findings.map_err(|error| {
        if interrupt.arrived() {
            error.context("interrupted")
        } else {
            error
        }
    })?;
    conclude(options, &findings, json)
}

fn conclude(options: &Options, findings: &Findings, json: Option<File>) -> Result<()> {
    print!("{}", table::render(options, findings));
    if let Some(mut file) = json {
        writeln!(file, "{}", json::render(options, findings)?)
            .context("cannot write the result as JSON")?;
    }
    let violations = findings.violations(options);
    if violations.is_empty() {
        return Ok(());
    }
    for violation in &violations {
        eprintln!("violation: {violation}");
    }
    let count = violations.len();
    let plural = if count == 1 { "" } else { "s" };
    bail!("the demo is not what it should be: {count} violation{plural}")
}

/// Opened before anything else is done, so that a mistyped path costs nobody a minute.
fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}
