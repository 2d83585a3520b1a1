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
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1_000, 5_000, 10_000], value_parser = value_parser!(u32).range(1_000..=16_000))]
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
    machine: Machine,
    rounds: u32,
    rows: Vec<Row>,
}

/// One number of nodes.
#[derive(Serialize)]
struct Row {
    nodes: u32,
    racks: u32,
    zones: u32,
    /// Peers of a node, over all nodes.
    length: Spread,
    /// Milliseconds until a list is made from nothing.
    whole_ms: Spread,
    /// Milliseconds until it is made once more.
    leave_ms: Spread,
    join_ms: Spread,
    /// Milliseconds from what the service's nodes say to what changes for the agent's peers.
    agent_leave_ms: Spread,
    agent_join_ms: Spread,
    by_hash: Changes,
    by_rank: Changes,
    /// Entries that change by rank for each that changes by hashing.
    ratio: Spread,
}

/// What one who leaves changes, over several who do.
#[derive(Clone, Copy, Serialize)]
struct Changes {
    /// Entries in the lists of all nodes together.
    all: Spread,
    /// Entries in the list that changed most.
    most: u32,
    /// The same, of those who are not of its rack.
    most_elsewhere: u32,
}

/// What `dt-agent/examples/pinglist` tells.
#[derive(Deserialize)]
struct Told {
    nodes: u32,
    racks: u32,
    zones: u32,
    times: Times,
    changes: Counted,
}

#[derive(Deserialize)]
#[expect(clippy::struct_field_names, reason = "the unit stands in the name")]
struct Times {
    whole_ns: Vec<u64>,
    leave_ns: Vec<u64>,
    join_ns: Vec<u64>,
    agent_leave_ns: Vec<u64>,
    agent_join_ns: Vec<u64>,
}

#[derive(Deserialize)]
struct Counted {
    lengths: Vec<u32>,
    departures: Vec<Departure>,
}

#[derive(Deserialize)]
struct Departure {
    by_hash: Changed,
    by_rank: Changed,
}

#[derive(Deserialize)]
struct Changed {
    all: u32,
    most: u32,
    most_elsewhere: u32,
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
        machine: Machine::look()?,
        rounds: options.rounds,
        rows: rows.collect::<Result<_>>()?,
    };
    print!("{}", report.to_markdown());
    json.write(&report)
}

impl Row {
    fn of(told: &Told) -> Result<Self> {
        let ms = |ns: &[u64]| Spread::of(ns.iter().map(|ns| *ns as f64 / 1e6)).context("no rounds");
        let (times, departures) = (&told.times, &told.changes.departures);
        let lengths = told.changes.lengths.iter();
        let ratios = departures.iter().map(|one| one.by_rank.per(&one.by_hash));
        Ok(Self {
            nodes: told.nodes,
            racks: told.racks,
            zones: told.zones,
            length: Spread::of(lengths.map(|length| f64::from(*length))).context("no lists")?,
            whole_ms: ms(&times.whole_ns)?,
            leave_ms: ms(&times.leave_ns)?,
            join_ms: ms(&times.join_ns)?,
            agent_leave_ms: ms(&times.agent_leave_ns)?,
            agent_join_ms: ms(&times.agent_join_ns)?,
            by_hash: Changes::of(&departures.iter().map(|one| &one.by_hash))?,
            by_rank: Changes::of(&departures.iter().map(|one| &one.by_rank))?,
            ratio: Spread::of(ratios).context("nobody left")?,
        })
    }
}

impl Changes {
    fn of<'a>(changed: &(impl Iterator<Item = &'a Changed> + Clone)) -> Result<Self> {
        let all = changed.clone().map(|one| f64::from(one.all));
        let most = |of: fn(&Changed) -> u32| changed.clone().map(of).max().unwrap_or(0);
        Ok(Self {
            all: Spread::of(all).context("nobody left")?,
            most: most(|one| one.most),
            most_elsewhere: most(|one| one.most_elsewhere),
        })
    }
}

impl Changed {
    fn per(&self, other: &Self) -> f64 {
        f64::from(self.all) / f64::from(other.all.max(1))
    }
}

impl Report {
    fn to_markdown(&self) -> String {
        let mut lines = vec![
            format!(
                "{}. Zones of 25 racks of 40. Times in ms, {} rounds, each for another node: median (least to greatest).",
                self.machine.host(),
                self.rounds
            ),
            String::new(),
            "| nodes | racks, zones | peers of a node | whole list | list after one left | after one joined | with registry and peers, after one left | after one joined |".to_owned(),
            "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |".to_owned(),
        ];
        lines.extend(self.rows.iter().map(Row::times));
        lines.push(String::new());
        lines.push(
            "Entries that one who leaves or joins changes in the lists of all nodes, who stood first, last and in between in its rack; most: in one list, and in one of another rack.".to_owned(),
        );
        lines.push(String::new());
        lines.push(
            "| nodes | by hashing | most | by rank | most | times as many by rank |".to_owned(),
        );
        lines.push("| ---: | ---: | ---: | ---: | ---: | ---: |".to_owned());
        lines.extend(self.rows.iter().map(Row::changes));
        lines.push(String::new());
        let largest = self.rows.iter().max_by_key(|row| row.nodes);
        lines.extend(largest.map(Row::verdict));
        lines.join("\n") + "\n"
    }
}

impl Row {
    fn times(&self) -> String {
        format!(
            "| {} | {}, {} | {} | {} | {} | {} | {} | {} |",
            self.nodes,
            self.racks,
            self.zones,
            self.length,
            self.whole_ms,
            self.leave_ms,
            self.join_ms,
            self.agent_leave_ms,
            self.agent_join_ms
        )
    }

    fn changes(&self) -> String {
        let cells = |of: &Changes| format!("{} | {}, {}", of.all, of.most, of.most_elsewhere);
        format!(
            "| {} | {} | {} | {} |",
            self.nodes,
            cells(&self.by_hash),
            cells(&self.by_rank),
            self.ratio
        )
    }

    fn verdict(&self) -> String {
        let kept = |is: bool| if is { "kept" } else { "NOT kept" };
        let slower = |one: &Spread, other: &Spread| one.median.max(other.median);
        let list = slower(&self.leave_ms, &self.join_ms);
        let agent = slower(&self.agent_leave_ms, &self.agent_join_ms);
        format!(
            "At {} nodes a whole list takes {:.1} ms (promised: less than {WHOLE_MS}): {}; once more after a change {list:.1} ms (promised: \
             less than {CHANGE_MS}): {}. With registry and peers a change takes {agent:.1} ms, of which nothing is promised.",
            self.nodes,
            self.whole_ms.median,
            kept(self.whole_ms.median < WHOLE_MS),
            kept(list < CHANGE_MS)
        )
    }
}

const WHOLE_MS: f64 = 50.0;
const CHANGE_MS: f64 = 5.0;
