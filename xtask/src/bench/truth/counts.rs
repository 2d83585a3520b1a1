//! Faults of a wire, packet by packet, against what the agent counted.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dt_tests::agent::{self, Launch};
use dt_tests::fault::{Faults, Outcomes};
use dt_tests::wait::Deadline;
use dt_tests::{FaultyWire, Interrupt, Lab};
use serde::Serialize;

use super::super::pair::hold;
use crate::build::Built;

/// What the agent said, and by how much that is off.
#[derive(Serialize)]
pub struct Counts {
    sent: u64,
    received: u64,
    lost_forward: u64,
    lost_return: u64,
    corrupt_forward: u64,
    corrupt_return: u64,
    duplicate_forward: u64,
    duplicate_return: u64,
    /// Sum of all differences from what the wire did.
    off: u64,
}

/// Probes in mode `xdp` through a wire that drops, doubles and spoils by count, both ways.
pub fn measure(built: &Built, counted: u32, interrupt: &Interrupt) -> Result<Counts> {
    let lab = Lab::wire()?;
    let none = Faults::default();
    let mut wire = FaultyWire::join_with(&built.lab_object, &lab, PORT, none, none)?;
    agent::write_peers(&lab, &agent::all_members(&lab))?;
    // To the reflector the prober has another port, so that what it sends is not counted on the wire.
    let others = lab.dir().join("reflector.toml");
    let prober = agent::member(lab.host("n1")) + "port = 9\n";
    fs::write(&others, prober + &agent::member(lab.host("n2")))?;
    let launch =
        |host: &str, flags: &[&str]| Launch::of(&lab, host, built.agent.clone()).flags(flags);
    let mut reflector = launch("n2", &["--mode=xdp", "--rate=0.001"])
        .setting("DT_DISCOVERY", format!("file:{}", others.display()))
        .start("n2")?;
    reflector.wait_for_mode("xdp")?;
    let rate = format!("--rate={RATE}");
    let mut prober = launch("n1", &["--mode=xdp", &rate]).start("n1")?;
    prober.wait_for_mode("xdp")?;
    hold(SETTLE, interrupt)?;
    wire.inject(Faults::MIXED_THERE, Faults::MIXED_BACK)?;
    let deadline = Deadline::after(Duration::from_secs(u64::from(2 * counted / RATE)) + SETTLE);
    while wire.done_there()?.seen < u64::from(counted) {
        ensure!(!deadline.has_passed(), "the probes do not reach the wire");
        hold(LOOK_EVERY, interrupt)?;
    }
    // What is decided needs later replies, and what is lost last would have none.
    wire.heal()?;
    hold(2 * SETTLE, interrupt)?;
    ensure!(prober.stop()?.success(), "the agent ended with an error");
    let mut feed = prober.feed();
    feed.read()?;
    let counters = feed.pair("n2").context("n2 was not probed")?.counters;
    let said = Outcomes::said(&counters);
    let expected = wire.expected(counters.sent)?;
    if said != expected {
        eprintln!("  said:     {said:?}\n  expected: {expected:?}");
    }
    Ok(Counts {
        sent: counters.sent,
        received: said.received,
        lost_forward: said.lost_forward,
        lost_return: said.lost_return,
        corrupt_forward: said.corrupt_forward,
        corrupt_return: said.corrupt_return,
        duplicate_forward: said.duplicate_forward,
        duplicate_return: said.duplicate_return,
        off: said.off(&expected),
    })
}

impl Counts {
    pub fn to_markdown(&self) -> String {
        format!(
            "\nOf {} probes through a wire that drops every 7th and 11th, doubles every 13th and spoils every 17th packet there and back, the \
             agent says: {} received, {} lost there and {} back, {} spoilt there and {} back, {} doubled there and {} back. Off from what the \
             wire did, in all: {}; promised: 0: {}.\n",
            self.sent,
            self.received,
            self.lost_forward,
            self.lost_return,
            self.corrupt_forward,
            self.corrupt_return,
            self.duplicate_forward,
            self.duplicate_return,
            self.off,
            if self.off == 0 { "kept" } else { "NOT kept" }
        )
    }
}

const PORT: u16 = 862;
/// A million probes and those before and after them are fewer than the wire can tell apart.
const RATE: u32 = 5_000;
const SETTLE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(200);
