//! `cargo xtask bench rtt`: what different probers say of one cable, on an idle and on a saturated machine.
//!
//! They take turns, each alone, in rounds, so that what disturbs the machine for a while disturbs them all. What can be
//! carried over to another machine are the ratios.

mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, value_parser};
use dt_feed::Histogram;
use dt_feed::proto::Mode;
use dt_tests::Interrupt;
use serde::Serialize;

use super::foreign;
use super::json::JsonFile;
use super::machine::Machine;
use super::pair::{Asked, Pair, hold, measured, saturate};
use crate::setup::STAMP_SUITE;
use crate::workspace::Workspace;

/// Flags of `cargo xtask bench rtt`.
#[derive(Args)]
pub struct Options {
    /// How long each prober probes, idle and again saturated, over all rounds, in seconds
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = value_parser!(u32).range(3..=86_400))]
    seconds: u32,

    /// Turns of each prober
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// Probes per second; `ping` manages 1,000
    #[arg(long, value_name = "PPS", default_value_t = 2_000, value_parser = value_parser!(u32).range(1..=10_000))]
    rate: u32,

    /// Probe by IPv6 instead of IPv4
    #[arg(long)]
    ipv6: bool,

    /// Also write the result to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Who says a round trip time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Prober {
    /// `dt-agent run`, stamps by the programs.
    Kernel,
    /// The same probes, as user space saw them.
    UserSpace,
    Ping,
    Fping,
    StampSuite,
    Irtt,
    Sockperf,
    Blackbox,
}

/// What else the machine has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Load {
    Idle,
    Saturated,
}

/// What one prober said in one turn.
struct Turn {
    load: Load,
    prober: Prober,
    rtt: Histogram,
}

/// Sets up, builds, lets the probers take turns, and prints.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let json = JsonFile::create(options.json.as_deref())?;
    let (built, interrupt) = super::ready(workspace)?;
    let mut bench = Bench {
        options,
        pair: Pair::raise(&built.agent, options.ipv6)?,
        stamp_suite: STAMP_SUITE
            .find(workspace)
            .context("no stamp-suite: type `cargo xtask setup --for bench`")?,
        blackbox: workspace.tools().join("bin/blackbox_exporter"),
        interrupt,
        turns: Vec::new(),
    };
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        bench.play(Load::Idle)?;
        let stress = saturate(bench.pair.probing(), &bench.pair.dir())?;
        hold(STRESS_START, &bench.interrupt)?;
        bench.play(Load::Saturated)?;
        drop(stress);
    }
    let report = report::Report::new(&Machine::look()?, options, &bench.turns);
    print!("{}", report.to_markdown());
    json.write(&report)
}

struct Bench<'a> {
    options: &'a Options,
    pair: Pair,
    stamp_suite: PathBuf,
    blackbox: PathBuf,
    interrupt: Interrupt,
    turns: Vec<Turn>,
}

impl Bench<'_> {
    /// A turn for each.
    fn play(&mut self, load: Load) -> Result<()> {
        let (rate, interrupt) = (self.options.rate, &self.interrupt);
        let length = self.turn_length(load);
        let pair = &mut self.pair;
        let asked = Asked {
            rate,
            compare_every: COMPARE_EVERY,
            sender: "auto",
        };
        let agents = pair.start_agents(asked, interrupt)?;
        hold(length, interrupt)?;
        let tally = agents.finish()?;
        let of_agent = measured(&tally).context("the agent measured nothing")?;
        let modes = &of_agent.modes;
        ensure!(
            modes.iter().all(|(mode, _)| *mode == Mode::Xdp),
            "not all probes were in mode xdp: {modes:?}"
        );
        let mut told = vec![
            (Prober::Kernel, of_agent.rtt.clone()),
            (Prober::UserSpace, of_agent.user_rtt.clone()),
            (
                Prober::StampSuite,
                foreign::stamp_suite(&self.stamp_suite, pair, rate, length, interrupt)?,
            ),
            (
                Prober::Fping,
                foreign::fping(pair, rate, length, interrupt)?,
            ),
            (Prober::Ping, foreign::ping(pair, rate, length, interrupt)?),
            (Prober::Irtt, foreign::irtt(pair, rate, length, interrupt)?),
            (
                Prober::Blackbox,
                foreign::blackbox(&self.blackbox, pair, rate, length, interrupt)?,
            ),
        ];
        if !self.options.ipv6 {
            let rtt = foreign::sockperf(pair, rate, length, interrupt)?;
            told.push((Prober::Sockperf, rtt));
        }
        for (prober, rtt) in told {
            eprintln!("  {load:?} {prober:?}: {} round trips", rtt.count());
            self.turns.push(Turn { load, prober, rtt });
        }
        Ok(())
    }

    /// Whole seconds. Saturated, long enough for [`SATURATED_SAMPLES`] whatever was asked.
    fn turn_length(&self, load: Load) -> Duration {
        let asked = u64::from(self.options.seconds.div_ceil(self.options.rounds));
        let per_round = SATURATED_SAMPLES.div_ceil(u64::from(self.options.rounds));
        let needed = per_round.div_ceil(u64::from(self.options.rate)) + 1;
        let seconds = match load {
            Load::Idle => asked,
            Load::Saturated => asked.max(needed),
        };
        Duration::from_secs(seconds)
    }
}

/// Of so many probes one is also timed in user space.
const COMPARE_EVERY: u32 = 4;
/// A quantile of 99.9 % wants a hundred samples beyond it.
const SATURATED_SAMPLES: u64 = 100_000;
const STRESS_START: Duration = Duration::from_secs(2);
