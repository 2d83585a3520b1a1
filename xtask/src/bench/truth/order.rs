//! Replies that overtake each other, one by one, against what the agent counted.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dt_tests::agent::{self, Launch};
use dt_tests::delay_line::{DelayLine, Holds};
use dt_tests::truth::{Stamps, overtaken};
use dt_tests::{Interrupt, Lab};
use nix::sys::signal::Signal;
use serde::Serialize;

use super::super::pair::hold;
use crate::build::Built;

/// What the agent said of the order, and how it was.
#[derive(Serialize)]
pub struct Order {
    sent: u64,
    answered: u64,
    /// Replies that came after that to a later probe, by the stamps before the agent's programs.
    overtaken: u64,
    /// The same by the agent.
    reordered: u64,
}

/// Probes of one source port in mode `tc` through a wire that holds each of them, and each reply, for a time of its own.
pub fn measure(built: &Built, counted: u32, interrupt: &Interrupt) -> Result<Order> {
    let lab = Lab::wire()?;
    let holds = Holds {
        there: 0..LONGEST_HOLD_NS,
        back: 0..LONGEST_HOLD_NS,
    };
    let line = DelayLine::join(&lab, holds.script(7)?)?;
    agent::write_peers(&lab, &agent::all_members(&lab))?;
    let launch =
        |host: &str, flags: &[&str]| Launch::of(&lab, host, built.agent.clone()).flags(flags);
    let mut reflector = launch("n2", &["--mode=tc", "--rate=0.001"]).start("n2")?;
    reflector.wait_for_mode("tc")?;
    // Almost never, until all stamps are in place: a probe that nobody saw arrive has no place in the order.
    let settings = lab.dir().join("n1.toml");
    fs::write(&settings, "rate = 0.001\n")?;
    let config = format!("--config={}", settings.display());
    let mut prober = launch("n1", &["--mode=tc", "--source-ports=61000-61000", &config])
        .setting("DT_RATE", "")
        .start("n1")?;
    prober.wait_for_mode("tc")?;
    let mut stamps = Stamps::load(&built.lab_object)?;
    stamps.attach_to_hosts(&lab)?;
    fs::write(&settings, format!("rate = {RATE}\n"))?;
    prober.signal(Signal::SIGHUP)?;
    let seconds = f64::from(counted) / f64::from(RATE);
    hold(Duration::from_secs_f64(seconds) + MARGIN, interrupt)?;
    ensure!(prober.stop()?.success(), "the agent ended with an error");
    line.cut()?;

    let mut feed = prober.feed();
    feed.read()?;
    let counters = feed.pair("n2").context("n2 was not probed")?.counters;
    let passages = stamps.passages(0..u32::try_from(counters.sent)?)?;
    let (answered, overtaken) = overtaken(&passages);
    Ok(Order {
        sent: counters.sent,
        answered,
        overtaken,
        reordered: counters.reordered,
    })
}

impl Order {
    pub fn to_markdown(&self) -> String {
        let off = self.overtaken.abs_diff(self.reordered);
        format!(
            "\nOf {} probes of one source port in mode `tc`, held for 0 to {} ms each way, {} came back, {} of them after the reply to a \
             later one; the agent says {}. Off: {off}; promised: 0: {}.\n",
            self.sent,
            LONGEST_HOLD_NS / 1_000_000,
            self.answered,
            self.overtaken,
            self.reordered,
            if off == 0 { "kept" } else { "NOT kept" }
        )
    }
}

/// A million probes and those before and after them are fewer than the stamps can tell apart.
const RATE: u32 = 5_000;
/// Some ten probes on their way, each way.
const LONGEST_HOLD_NS: u64 = 2_000_000;
const MARGIN: Duration = Duration::from_secs(3);
