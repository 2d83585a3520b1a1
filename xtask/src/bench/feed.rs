//! `cargo xtask bench feed`: what a probe costs on the feed, in bytes, in time, and of a broker.
//!
//! A short demo is recorded with every probe. Its round trips and paths are then drawn from, with seeded jitter, ports and
//! losses on top, to fill meshes that do not fit this machine, and go through the encoder and the decoder that agents and
//! readers use.

mod broker;
mod codec;
mod recording;
mod report;
mod shape;

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, value_parser};

use super::json::JsonFile;
use super::machine::Machine;
use crate::process;
use crate::setup;
use crate::workspace::Workspace;
use codec::Costs;
use recording::Recording;
use report::Report;
use shape::SHAPES;

/// Flags of `cargo xtask bench feed`.
#[derive(Args)]
pub struct Options {
    /// How long the demo is recorded from which round trips and paths are drawn, in seconds
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = value_parser!(u32).range(2..=3_600))]
    seconds: u32,

    /// Turns of encoding and decoding a minute of each mesh
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = value_parser!(u32).range(1..=1_000))]
    rounds: u32,

    /// How long producer, broker and consumer work in each of three turns for each mesh, in seconds; 0: not at all
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = value_parser!(u64).range(0..=3_600))]
    broker_seconds: u64,

    /// What jitter, ports and losses are drawn from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Also write the result to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Sets up, builds, records, encodes, and prints.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if cfg!(debug_assertions) {
        return run_optimised(workspace);
    }
    let json = JsonFile::create(options.json.as_deref())?;
    let (built, interrupt) = super::ready(workspace)?;
    let machine = Machine::look()?;
    let recording = Recording::take(&built, options.seconds, &interrupt)?;
    let minutes = SHAPES.map(|shape| (shape, shape.minute(&recording, options.seed)));
    let mut costs = Vec::new();
    for (shape, minute) in &minutes {
        costs.push(Costs::measure(*shape, minute, options.rounds)?);
    }
    let mut throughputs = Vec::new();
    if options.broker_seconds > 0 {
        let length = Duration::from_secs(options.broker_seconds);
        let mut bench = broker::Bench::start(&setup::kafka_libs(workspace))?;
        for (shape, minute) in minutes.iter().filter(|(shape, _)| shape.is_judged()) {
            let messages = codec::encode(minute.flushes.clone(), &minute.dictionary)?;
            throughputs.push(bench.measure(*shape, &messages, TURNS, length, &interrupt)?);
        }
    }
    let report = Report::new(&machine, options, &recording, costs, throughputs);
    print!("{}", report.to_markdown());
    json.write(&report)
}

/// This command once more, built as agents and readers are: what is timed is in this program.
fn run_optimised(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo
        .args([
            "run",
            "--quiet",
            "--release",
            "--package",
            "xtask",
            "--features",
            "kafka",
            "--",
        ])
        .args(env::args_os().skip(1));
    process::run_shown(&mut cargo)
}

const TURNS: u32 = 3;
