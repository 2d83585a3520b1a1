//! The figures of all rounds, as a table for people and as JSON for programs.

use std::fmt::Write;

use serde::Serialize;

use super::{MAX_DRIFT, Options, Round, Turn};
use crate::bench::machine::Machine;
use crate::bench::spread::Spread;

#[derive(Serialize)]
pub struct Report {
    machine: String,
    asked_pps: u32,
    seconds: u32,
    /// The agent's cost as a share of fping's in the same round.
    ratio: Option<Spread>,
    rounds: Vec<Round>,
}

impl Report {
    pub fn new(machine: &Machine, options: &Options, rounds: Vec<Round>) -> Self {
        let ratio = |round: &Round| {
            round.agent.ns_per_round_trip() / round.fping.ns_per_round_trip().max(1.0)
        };
        Self {
            machine: machine.line(),
            asked_pps: options.rate,
            seconds: options.seconds,
            ratio: Spread::of(rounds.iter().map(ratio)),
            rounds,
        }
    }

    pub fn to_markdown(&self) -> String {
        let mut text = format!(
            "{}\nCPU per round trip, both ends and kernel included: {} rounds of {} s, {} per second asked for; median of the rounds (least to greatest).\n\n{HEAD}",
            self.machine,
            self.rounds.len(),
            self.seconds,
            self.asked_pps
        );
        let agent: fn(&Round) -> &Turn = |round| &round.agent;
        for (name, turn) in [
            ("`dt-agent run`, feed on", agent),
            ("`fping -q`", |round| &round.fping),
        ] {
            let spread = |of: fn(&Turn) -> f64| {
                let values = self.rounds.iter().map(|round| of(turn(round)));
                Spread::of(values).map_or_else(String::new, |spread| spread.to_string())
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {name} | {} | {} |",
                spread(Turn::reached_pps),
                spread(|turn| turn.ns_per_round_trip() / 1e3)
            );
        }
        text + &self.verdict()
    }

    fn verdict(&self) -> String {
        let accounted = self.rounds.iter();
        let accounted =
            Spread::of(accounted.map(|round| round.agent_accounted_ns_per_round_trip / 1e3));
        let (Some(ratio), Some(accounted)) = (self.ratio, accounted) else {
            return "\nThere is nothing to compare.\n".to_owned();
        };
        let drifts = self
            .rounds
            .iter()
            .map(|round| round.agent.drift.max(round.fping.drift));
        let disturbed = drifts.filter(|drift| *drift >= MAX_DRIFT).count();
        let mut text = format!(
            "\nThe agent's cost is {ratio} of fping's (promised: at most 0.25): {}. The scheduler charges the agents {accounted} µs of it.\n",
            if ratio.median <= 0.25 {
                "kept"
            } else {
                "NOT kept"
            }
        );
        if disturbed > 0 {
            let _ = writeln!(
                text,
                "Something else ran in {disturbed} rounds: their figures are not to be trusted. Repeat on a quiet machine."
            );
        }
        text
    }
}

const HEAD: &str = "\
| prober | round trips per second | µs of CPU per round trip |
| --- | ---: | ---: |
";
