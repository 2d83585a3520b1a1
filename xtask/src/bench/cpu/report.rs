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
    made: Share,
    sockets: Share,
    /// Rounds during which something else ran.
    disturbed: usize,
    rounds: Vec<Round>,
}

/// One way of sending against `fping`.
#[derive(Serialize)]
struct Share {
    /// Of the whole machine's time.
    machine: Option<Spread>,
    /// Of what the scheduler charged, which work of others cannot disturb.
    charged: Option<Spread>,
}

impl Share {
    fn of(rounds: &[Round], turn: fn(&Round) -> &Turn) -> Self {
        let ratio = |of: fn(&Turn) -> f64| {
            Spread::of(
                rounds
                    .iter()
                    .map(|round| of(turn(round)) / of(&round.fping)),
            )
        };
        Self {
            machine: ratio(Turn::ns_per_round_trip),
            charged: ratio(Turn::charged_ns_per_round_trip),
        }
    }
}

impl Report {
    pub fn new(machine: &Machine, options: &Options, rounds: Vec<Round>) -> Self {
        let disturbed = rounds.iter().filter(|round| round.drift() >= MAX_DRIFT);
        Self {
            machine: machine.line(),
            asked_pps: options.rate,
            seconds: options.seconds,
            made: Share::of(&rounds, |round| &round.made),
            sockets: Share::of(&rounds, |round| &round.sockets),
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
        let names = self
            .rounds
            .first()
            .map(|round| round.turns().map(|(name, _)| name));
        for (place, name) in names.into_iter().flatten().enumerate() {
            let spread = |of: fn(&Turn) -> f64| {
                let values = self.rounds.iter().map(|round| of(round.turns()[place].1));
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
        text + &self.verdict("made in the kernel", &self.made, MADE_PROMISED)
            + &self.verdict("sent through sockets", &self.sockets, SOCKETS_PROMISED)
    }

    fn verdict(&self, way: &str, share: &Share, promised: f64) -> String {
        let (Some(machine), Some(charged)) = (share.machine, share.charged) else {
            return "\nThere is nothing to compare.\n".to_owned();
        };
        let verdict = match (self.disturbed, machine.median <= promised) {
            (1.., _) => {
                "undecided, because something else ran meanwhile: repeat on a quiet machine"
            }
            (0, true) => "kept",
            (0, false) => "NOT kept",
        };
        format!(
            "\nProbes {way}: the agent's cost as a share of fping's: {machine}; promised: at most {promised}: {verdict}.\nBy what the scheduler charged to their processes, which work of others disturbs little: {charged}.\n"
        )
    }
}

const MADE_PROMISED: f64 = 0.1;
const SOCKETS_PROMISED: f64 = 0.25;
const HEAD: &str = "\
| prober | round trips per second | µs of the machine per round trip | µs charged to its processes |
| --- | ---: | ---: | ---: |
";
