//! `cargo xtask bench pinglist`: how long a node takes to know whom to probe, and what one who comes or goes changes.
//!
//! The lists are made by a program beside the agent, from the agent's own engine: this crate does not link it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::{Args, value_parser};
use serde::{Deserialize, Serialize};

use super::json::JsonFile;
use super::machine::Machine;
use super::spread::Spread;
use crate::process;
use crate::setup::{self, Group};
use crate::workspace::Workspace;

/// Flags of `cargo xtask bench pinglist`.
#[derive(Args)]
pub struct Options {
    /// Numbers of nodes, in zones of 25 racks of 40
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1_000, 5_000, 10_000], value_parser = value_parser!(u32).range(100..=16_000))]
    nodes: Vec<u32>,

    /// How often each is timed, each time for another node
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = value_parser!(u32).range(1..=1_000))]
    rounds: u32,

    /// Also write the result to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    machine: String,
    rounds: u32,
    rows: Vec<Row>,
}

/// One number of nodes.
#[derive(Serialize)]
struct Row {
    nodes: u32,
    racks: u32,
    zones: u32,
    /// Milliseconds.
    whole_ms: Spread,
    join_ms: Spread,
    leave_ms: Spread,
    /// Peers of a node.
    length: Spread,
    /// Entries that one who leaves changes in a list.
    by_hash: Changes,
    by_rank: Changes,
}

/// Over the lists that were looked at.
#[derive(Clone, Copy, Serialize)]
struct Changes {
    mean: f64,
    most: u32,
}

/// What `dt-agent/examples/pinglist.rs` tells.
#[derive(Deserialize)]
struct Told {
    nodes: u32,
    racks: u32,
    zones: u32,
    whole_ns: Vec<u64>,
    join_ns: Vec<u64>,
    leave_ns: Vec<u64>,
    lengths: Vec<u32>,
    changed_by_hash: Vec<u32>,
    changed_by_rank: Vec<u32>,
}

/// Sets up, builds, times, and prints.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let json = JsonFile::create(options.json.as_deref())?;
    // What the agent is built with.
    setup::run(workspace, Group::Build)?;
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--release", "--locked"]);
    cargo.args(["--package", "dt-agent", "--example", "pinglist"]);
    process::run_shown(&mut cargo)?;
    let mut command = Command::new(workspace.target().join("release/examples/pinglist"));
    command.arg(options.rounds.to_string());
    command.args(options.nodes.iter().map(u32::to_string));
    let output = process::capture(&mut command)?;
    let rows = output.lines().map(|line| {
        let told: Told = serde_json::from_str(line).context("what the program wrote")?;
        Row::of(&told)
    });
    let report = Report {
        machine: Machine::look()?.host(),
        rounds: options.rounds,
        rows: rows.collect::<Result<_>>()?,
    };
    print!("{}", report.to_markdown());
    json.write(&report)
}

impl Row {
    fn of(told: &Told) -> Result<Self> {
        let ms = |ns: &[u64]| Spread::of(ns.iter().map(|ns| *ns as f64 / 1e6)).context("no rounds");
        Ok(Self {
            nodes: told.nodes,
            racks: told.racks,
            zones: told.zones,
            whole_ms: ms(&told.whole_ns)?,
            join_ms: ms(&told.join_ns)?,
            leave_ms: ms(&told.leave_ns)?,
            length: Spread::of(told.lengths.iter().map(|length| f64::from(*length)))
                .context("no lists")?,
            by_hash: Changes::of(&told.changed_by_hash),
            by_rank: Changes::of(&told.changed_by_rank),
        })
    }
}

impl Changes {
    fn of(counts: &[u32]) -> Self {
        let sum: f64 = counts.iter().map(|count| f64::from(*count)).sum();
        Self {
            mean: sum / counts.len().max(1) as f64,
            most: counts.iter().copied().max().unwrap_or(0),
        }
    }
}

impl Report {
    fn to_markdown(&self) -> String {
        use std::fmt::Write as _;
        let mut text = format!(
            "{}. Times in ms, {} rounds, each for another node: median (least to greatest). Changes: entries of a list that differ after \
             one server left, over 250 lists; mean, most.\n\n{HEAD}",
            self.machine, self.rounds
        );
        for row in &self.rows {
            let changes = |of: Changes| format!("{:.2}, {}", of.mean, of.most);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {} | {}, {} | {} | {} | {} | {} | {} | {} |",
                row.nodes,
                row.racks,
                row.zones,
                row.length,
                row.whole_ms,
                row.join_ms,
                row.leave_ms,
                changes(row.by_hash),
                changes(row.by_rank)
            );
        }
        if let Some(largest) = self.rows.iter().max_by_key(|row| row.nodes) {
            let change = largest.join_ms.median.max(largest.leave_ms.median);
            let kept = |is: bool| if is { "kept" } else { "NOT kept" };
            let _ = writeln!(
                text,
                "\nAt {} nodes a whole list takes {:.1} ms (promised: less than {WHOLE_MS}): {}; a change {change:.1} ms (promised: less than {CHANGE_MS}): {}.",
                largest.nodes,
                largest.whole_ms.median,
                kept(largest.whole_ms.median < WHOLE_MS),
                kept(change < CHANGE_MS)
            );
        }
        text
    }
}

const WHOLE_MS: f64 = 50.0;
const CHANGE_MS: f64 = 5.0;
const HEAD: &str = "\
| nodes | racks, zones | peers of a node | whole list | one joins | one leaves | changes by hashing | changes by rank |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
";
