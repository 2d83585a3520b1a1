//! `cargo xtask bench traffic`: what traffic that is not ours feels of the programs, and what a flood of strangers does to ours.

mod flood;
mod throughput;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, value_parser};
use serde::Serialize;

use super::json::JsonFile;
use super::machine::Machine;
use crate::workspace::Workspace;

/// Flags of `cargo xtask bench traffic`.
#[derive(Args)]
pub struct Options {
    /// Turns of each program under each kind of traffic
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// Length of a turn, in seconds
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = value_parser!(u32).range(1..=60))]
    seconds: u32,

    /// How long each flood lasts, in seconds
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = value_parser!(u32).range(5..=600))]
    flood_seconds: u32,

    /// Frames per second of the floods
    #[arg(long, value_name = "PPS", default_value_t = 1_000_000, value_parser = value_parser!(u32).range(1_000..=5_000_000))]
    flood_rate: u32,

    /// Also write the result to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    machine: String,
    rounds: u32,
    seconds: u32,
    throughput: Vec<throughput::Row>,
    floods: Vec<flood::Row>,
}

/// Sets up, builds, measures, and prints.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let json = JsonFile::create(options.json.as_deref())?;
    let (built, interrupt) = super::ready(workspace)?;
    let report = Report {
        machine: Machine::look()?.line(),
        rounds: options.rounds,
        seconds: options.seconds,
        throughput: throughput::rows(&built, options, &interrupt)?,
        floods: flood::rows(&built, options, &interrupt)?,
    };
    print!("{}", report.to_markdown());
    json.write(&report)
}

impl Report {
    fn to_markdown(&self) -> String {
        let mut text = format!(
            "{}\nThroughput by `iperf3`, {} turns of {} s each, programs in turn; median (least to greatest). Ours over empty: mean of the \
             rounds' ratios with its 95 % confidence interval.\n\n{}",
            self.machine,
            self.rounds,
            self.seconds,
            throughput::HEAD
        );
        text.extend(self.throughput.iter().map(throughput::Row::to_markdown));
        text.push_str("\nA flood on the probe port, beside an agent that probes the flooded host 1,000 times a second in mode `xdp`.\n\n");
        text.push_str(flood::HEAD);
        text.extend(self.floods.iter().map(flood::Row::to_markdown));
        text
    }
}
