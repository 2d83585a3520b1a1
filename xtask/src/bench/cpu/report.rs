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
    /// The same by what the scheduler charged, which work of others cannot disturb.
    charged_ratio: Option<Spread>,
    /// Rounds during which something else ran.
    disturbed: usize,
    rounds: Vec<Round>,
}

impl Report {
    pub fn new(machine: &Machine, options: &Options, rounds: Vec<Round>) -> Self {
        let ratio = |of: fn(&Turn) -> f64| {
            Spread::of(
                rounds
                    .iter()
                    .map(|round| of(&round.agent) / of(&round.fping)),
            )
        };
        let disturbed = rounds.iter().filter(|round| round.drift() >= MAX_DRIFT);
        Self {
            machine: machine.line(),
            asked_pps: options.rate,
            seconds: options.seconds,
            ratio: ratio(Turn::ns_per_round_trip),
            charged_ratio: ratio(Turn::charged_ns_per_round_trip),
            disturbed: disturbed.count(),
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
                "| {name} | {} | {} | {} |",
                spread(Turn::reached_pps),
                spread(|turn| turn.ns_per_round_trip() / 1e3),
                spread(|turn| turn.charged_ns_per_round_trip() / 1e3)
            );
        }
        text + &self.verdict()
    }

    fn verdict(&self) -> String {
        let (Some(ratio), Some(charged)) = (self.ratio, self.charged_ratio) else {
            return "\nThere is nothing to compare.\n".to_owned();
        };
        let verdict = match (self.disturbed, ratio.median <= PROMISED) {
            (1.., _) => {
                "undecided, because something else ran meanwhile: repeat on a quiet machine"
            }
            (0, true) => "kept",
            (0, false) => "NOT kept",
        };
        format!(
            "\nThe agent's cost as a share of fping's: {ratio}; promised: at most {PROMISED}: {verdict}.\nBy what the scheduler charged to their processes, which work of others disturbs little: {charged}.\n"
        )
    }
}

const PROMISED: f64 = 0.25;
const HEAD: &str = "\
| prober | round trips per second | µs of the machine per round trip | µs charged to its processes |
| --- | ---: | ---: | ---: |
";
