//! `cargo xtask bench scale`: what an agent with up to 10,000 peers takes, in memory and in CPU time.
//!
//! The peers are addresses behind one host, whose `xdp_ingress` answers for all of them. All sessions are real: each has its
//! counters there, its windows here, and all are on the feed.

mod report;
mod scene;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum, value_parser};
use dt_tests::Interrupt;
use serde::Serialize;

use self::report::Report;
use self::scene::Scene;
use super::json::JsonFile;
use super::machine::Machine;
use super::spinners::{Speed, Spinners};
use crate::workspace::Workspace;

/// Flags of `cargo xtask bench scale`.
#[derive(Args)]
pub struct Options {
    /// Numbers of peers
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [100, 1_000, 5_000, 10_000], value_parser = value_parser!(u32).range(1..=16_000))]
    peers: Vec<u32>,

    /// Probes per second to each peer
    #[arg(long, value_name = "PPS,…", value_delimiter = ',', default_values_t = [0.1, 1.0])]
    rates: Vec<f64>,

    /// How long each is measured, in seconds; at least three probes to each peer are
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = value_parser!(u32).range(5..=3_600))]
    seconds: u32,

    /// Who makes the packets, as the agent's flag has it
    #[arg(long, value_name = "SENDER", default_value = "auto")]
    sender: Sender,

    /// Also write the result to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Values of the agent's `--sender`.
#[derive(Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Sender {
    Auto,
    Sockets,
    Kernel,
}

impl Sender {
    const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Sockets => "sockets",
            Self::Kernel => "kernel",
        }
    }
}

/// One number of peers at one rate.
#[derive(Clone, Copy, Serialize)]
struct Row {
    peers: u32,
    rate: f64,
    /// Round trips that the feed has, of those that were to be.
    reached: f64,
    /// Share of them that the programs made.
    made: f64,
    /// Resident memory of the agent, bytes.
    rss: u64,
    /// Memory of its maps, bytes.
    maps: u64,
    /// Memory of the datagrams that its sockets hold, bytes.
    sockets: u64,
    /// CPU time charged to the agent, as a share of one CPU.
    agent_cpu: f64,
    /// CPU time of the whole machine, the answering host's part included, as a share of one CPU.
    machine_cpu: f64,
    /// How far the quiet before and after were apart, as a share of one CPU.
    drift: f64,
}

impl Row {
    fn probes_per_second(&self) -> f64 {
        f64::from(self.peers) * self.rate * self.reached
    }

    /// CPU time of the whole machine for each round trip.
    fn ns_per_round_trip(&self) -> f64 {
        self.machine_cpu * 1e9 / self.probes_per_second()
    }
}

/// Sets up, builds, measures row by row, and prints.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    ensure!(
        options
            .rates
            .iter()
            .all(|rate| (0.01..=20.0).contains(rate)),
        "--rates has one that is not from 0.01 to 20"
    );
    let json = JsonFile::create(options.json.as_deref())?;
    let (built, interrupt) = super::ready(workspace)?;
    let spinners = Spinners::start()?;
    let mut rows = Vec::new();
    let cases = options
        .rates
        .iter()
        .flat_map(|rate| options.peers.iter().map(|peers| (*peers, *rate)));
    for (peers, rate) in cases {
        eprintln!("  {peers} peers at {rate}/s");
        let scene = Scene::raise(&built, peers)?;
        let row = measure(scene, options, rate, &spinners, &interrupt)?;
        eprintln!("    {}", report::line(&row));
        rows.push(row);
    }
    let report = Report::new(&Machine::look()?, options, rows);
    print!("{}", report.to_markdown());
    json.write(&report)
}

/// Quiet, the agent at work, and quiet again.
fn measure(
    mut scene: Scene,
    options: &Options,
    rate: f64,
    spinners: &Spinners,
    interrupt: &Interrupt,
) -> Result<Row> {
    let quiet = |interrupt: &Interrupt| -> Result<Speed> {
        super::pair::hold(SETTLE, interrupt)?;
        let start = spinners.read();
        super::pair::hold(QUIET, interrupt)?;
        Ok(spinners.read().speed_since(&start))
    };
    let before = quiet(interrupt)?;
    scene.start_agent(rate, options.sender.name(), interrupt)?;
    // Two probes to each peer, so that all sessions and their memory are there.
    let warm_up = Duration::from_secs_f64(2.0 / rate).max(WINDOW);
    super::pair::hold(warm_up + SETTLE, interrupt)?;
    let length =
        Duration::from_secs(options.seconds.into()).max(Duration::from_secs_f64(3.0 / rate));
    let (start, from) = (scene.look()?, spinners.read());
    super::pair::hold(length, interrupt)?;
    let (end, to) = (scene.look()?, spinners.read());
    let memory = scene.memory()?;
    let reached = scene.finish(start.unix_ns, end.unix_ns, interrupt)?;
    let after = quiet(interrupt)?;

    let seconds = to.seconds_since(&from);
    let quiet = before.mean(&after);
    let asked = f64::from(scene.peers()) * rate * seconds;
    Ok(Row {
        peers: scene.peers(),
        rate,
        reached: reached / asked,
        made: (end.made - start.made) as f64 / (end.stamped - start.stamped).max(1) as f64,
        rss: memory.rss,
        maps: memory.maps,
        sockets: memory.sockets,
        agent_cpu: (end.charged_ns - start.charged_ns) as f64 / 1e9 / seconds,
        machine_cpu: to.taken_ns_since(&from, &quiet) / 1e9 / seconds,
        drift: (after.total() - before.total()).abs() / quiet.total() * before.cpus() as f64,
    })
}

/// For what was started or ended to come to rest.
const SETTLE: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_secs(5);
/// The agent's default.
const WINDOW: Duration = Duration::from_secs(10);
