//! `cargo xtask bench truth`: how far what the agent says of a probe is from what happened to it.
//!
//! Between the hosts stands a wire that holds each probe and each reply for a time of its own. Stamps of other programs, on the
//! hosts outside of the product's and on the wire, say how long each round trip really took. In mode `tc` that is the whole
//! of it; in mode `xdp` the product takes what would come to tc, so there only the wire's own time is known to others.

mod counts;
mod order;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, value_parser};
use dt_tests::agent::{self, Launch};
use dt_tests::delay_line::{DelayLine, Holds};
use dt_tests::truth::{self, Passage, Stamps};
use dt_tests::{Interrupt, Lab};
use serde::Serialize;

use super::json::JsonFile;
use super::machine::Machine;
use super::pair::{hold, saturate};
use crate::build::Built;
use crate::workspace::Workspace;

/// Flags of `cargo xtask bench truth`.
#[derive(Args)]
pub struct Options {
    /// Probes under each load in each mode
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = value_parser!(u32).range(1_000..=1_000_000))]
    probes: u32,

    /// Probes per second
    #[arg(long, value_name = "PPS", default_value_t = 2_000, value_parser = value_parser!(u32).range(10..=10_000))]
    rate: u32,

    /// Longest time for which a probe or a reply is held, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 25, value_parser = value_parser!(u64).range(1..=200))]
    hold: u64,

    /// Probes whose faults are counted on a wire that drops, doubles and spoils, and on one where they overtake each other
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = value_parser!(u32).range(1_000..=1_000_000))]
    counted: u32,

    /// Also write the result to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    machine: String,
    probes: u32,
    rate: u32,
    hold_ms: u64,
    rows: Vec<Row>,
    counts: counts::Counts,
    order: order::Order,
}

/// One mode under one load.
#[derive(Serialize)]
struct Row {
    mode: &'static str,
    saturated: bool,
    compared: usize,
    /// Least and greatest round trip of those compared, ns.
    from_ns: u64,
    to_ns: u64,
    /// By how much the agent's figure is off, ns: half of all, 99 of 100, the worst. In mode `xdp` above the wire's own time.
    p50_ns: u64,
    p99_ns: u64,
    max_ns: u64,
}

/// Sets up, builds, measures, and prints.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let json = JsonFile::create(options.json.as_deref())?;
    let (built, interrupt) = super::ready(workspace)?;
    let mut rows = Vec::new();
    for mode in ["tc", "xdp"] {
        for saturated in [false, true] {
            let row = measure(&built, options, mode, saturated, &interrupt)
                .with_context(|| format!("mode {mode}, saturated: {saturated}"))?;
            eprint!("  {}", row.to_markdown());
            rows.push(row);
        }
    }
    let report = Report {
        machine: Machine::look()?.line(),
        probes: options.probes,
        rate: options.rate,
        hold_ms: options.hold,
        rows,
        counts: counts::measure(&built, options.counted, &interrupt)?,
        order: order::measure(&built, options.counted, &interrupt)?,
    };
    print!("{}", report.to_markdown());
    json.write(&report)
}

fn measure(
    built: &Built,
    options: &Options,
    mode: &'static str,
    saturated: bool,
    interrupt: &Interrupt,
) -> Result<Row> {
    let lab = Lab::wire()?;
    let range = 0..options.hold * 1_000_000;
    let holds = Holds {
        there: range.clone(),
        back: range,
    };
    let line = DelayLine::join(&lab, holds.script(1)?)?;
    agent::write_peers(&lab, &agent::all_members(&lab))?;
    let launch = |host: &str, flags: &[String]| {
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        Launch::of(&lab, host, built.agent.clone())
            .flags(&flags)
            .start(host)
    };
    let asked = format!("--mode={mode}");
    // Before the agents: in mode xdp they want programs on the other ends.
    let mut stamps = Stamps::load(&built.lab_object)?;
    stamps.attach_to_wire(&lab)?;
    let mut reflector = launch("n2", &[asked.clone(), "--rate=0.001".to_owned()])?;
    reflector.wait_for_mode(mode)?;
    let mut prober = launch(
        "n1",
        &[
            asked,
            "--detail=probes".to_owned(),
            format!("--rate={}", options.rate),
        ],
    )?;
    prober.wait_for_mode(mode)?;
    stamps.attach_to_hosts(&lab)?;
    let stress = saturated
        .then(|| saturate(lab.host("n1"), &lab.dir()))
        .transpose()?;
    let seconds = f64::from(options.probes) / f64::from(options.rate);
    hold(Duration::from_secs_f64(seconds) + MARGIN, interrupt)?;
    drop(stress);
    ensure!(prober.stop()?.success(), "the agent ended with an error");

    let said = truth::reported(prober.feed_dir())?;
    let last = *said.keys().next_back().context("no probe was answered")?;
    let passages = stamps.passages(0..last + 1)?;
    line.cut()?;
    let pairs = said.into_iter().filter_map(|(sequence, rtt_ns)| {
        let passage: &Passage = passages.get(sequence as usize)?;
        let other_ns = if mode == "tc" {
            passage.rtt_ns()?
        } else {
            passage.line_ns()?
        };
        Some((rtt_ns, rtt_ns.abs_diff(other_ns)))
    });
    Row::of(mode, saturated, &pairs.collect::<Vec<_>>())
}

impl Row {
    fn of(mode: &'static str, saturated: bool, pairs: &[(u64, u64)]) -> Result<Self> {
        let mut off: Vec<_> = pairs.iter().map(|(_, off_ns)| *off_ns).collect();
        off.sort_unstable();
        let rank = |share: f64| off[((off.len() - 1) as f64 * share) as usize];
        ensure!(!off.is_empty(), "no probe can be compared");
        Ok(Self {
            mode,
            saturated,
            compared: off.len(),
            from_ns: pairs.iter().map(|pair| pair.0).min().unwrap_or(0),
            to_ns: pairs.iter().map(|pair| pair.0).max().unwrap_or(0),
            p50_ns: rank(0.5),
            p99_ns: rank(0.99),
            max_ns: rank(1.0),
        })
    }

    fn to_markdown(&self) -> String {
        let us = |ns: u64| format!("{:.2}", ns as f64 / 1e3);
        format!(
            "| `{}` | {} | {} | {} to {} | {} | {} | {} |\n",
            self.mode,
            if self.saturated { "saturated" } else { "idle" },
            self.compared,
            us(self.from_ns),
            us(self.to_ns),
            us(self.p50_ns),
            us(self.p99_ns),
            us(self.max_ns)
        )
    }
}

impl Report {
    fn to_markdown(&self) -> String {
        let mut text = format!(
            "{}\nAt least {} probes a row, {} per second; probes and replies held for 0 to {} ms each. Times in µs. In mode `tc`: by how \
             much the agent's figure is off the truth. In mode `xdp`: above the wire's own time, which leaves out the way between the \
             wire and the hosts.\n\n{HEAD}",
            self.machine, self.probes, self.rate, self.hold_ms
        );
        text.extend(self.rows.iter().map(Row::to_markdown));
        let is_kept =
            |row: &Row| row.p50_ns <= P50_NS && row.p99_ns <= P99_NS && row.compared >= SAMPLES;
        let of_tc = self.rows.iter().filter(|row| row.mode == "tc");
        let kept = of_tc.into_iter().all(is_kept);
        text + &format!(
            "\nOff by at most 1 µs at P50 and 5 µs at P99, idle and saturated, over at least {SAMPLES} probes: {}.\n",
            if kept { "kept" } else { "NOT kept" }
        ) + &self.counts.to_markdown()
            + &self.order.to_markdown()
    }
}

const P50_NS: u64 = 1_000;
const P99_NS: u64 = 5_000;
const SAMPLES: usize = 100_000;
/// For the first probes, which nobody looked at, and the last, whose window is open.
const MARGIN: Duration = Duration::from_secs(4);
const HEAD: &str = "\
| mode | load | probes compared | round trips | P50 | P99 | worst |
| --- | --- | ---: | ---: | ---: | ---: | ---: |
";
