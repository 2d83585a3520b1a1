//! The figures of all turns, as tables for people and as JSON for programs.

use std::fmt::Write;

use dt_feed::Histogram;
use serde::Serialize;

use super::{Load, Options, Prober, SATURATED_SAMPLES, Turn};
use crate::bench::machine::Machine;
use crate::bench::spread::Spread;

#[derive(Serialize)]
pub struct Report {
    machine: String,
    asked_pps: u32,
    rounds: u32,
    ipv6: bool,
    rows: Vec<Row>,
}

/// What one prober said under one load, all rounds together.
#[derive(Serialize)]
struct Row {
    load: Load,
    prober: Prober,
    samples: u64,
    p50_ns: u64,
    p99_ns: u64,
    p999_ns: u64,
    max_ns: u64,
    /// How many times the kernel's of the same round.
    p50_times: Option<Spread>,
    p999_times: Option<Spread>,
}

impl Report {
    pub fn new(machine: &Machine, options: &Options, turns: &[Turn]) -> Self {
        let rows = [Load::Idle, Load::Saturated].into_iter().flat_map(|load| {
            let probers = PROBERS.iter().map(|(prober, _)| *prober);
            probers.filter_map(move |prober| Row::of(load, prober, turns))
        });
        Self {
            machine: machine.line(),
            asked_pps: options.rate,
            rounds: options.rounds,
            ipv6: options.ipv6,
            rows: rows.collect(),
        }
    }

    pub fn to_markdown(&self) -> String {
        let mut text = format!(
            "{}\n{} probes per second asked for, IPv{}, {} rounds; times in µs, ratios as the median of the rounds (least to greatest).\n",
            self.machine,
            self.asked_pps,
            if self.ipv6 { 6 } else { 4 },
            self.rounds
        );
        for (load, title) in [
            (Load::Idle, "Idle"),
            (Load::Saturated, "Saturated by `stress-ng --cpu 6`"),
        ] {
            let rows = self.rows.iter().filter(|row| row.load == load);
            // Writing to a string cannot fail.
            let _ = write!(text, "\n{title}\n\n{HEAD}");
            rows.for_each(|row| text.push_str(&row.to_markdown()));
        }
        text + &self.verdict()
    }

    /// The promises that this command checks, in words.
    fn verdict(&self) -> String {
        let find = |load, prober| {
            let row = |row: &&Row| row.load == load && row.prober == prober;
            self.rows.iter().find(row)
        };
        let (Some(kernel), Some(idle)) = (
            find(Load::Saturated, Prober::Kernel),
            find(Load::Idle, Prober::Kernel),
        ) else {
            return "\nThere is nothing to compare.\n".to_owned();
        };
        let kept = |is: bool| if is { "kept" } else { "NOT kept" };
        let enough = kernel.samples >= SATURATED_SAMPLES;
        let mut text = format!(
            "\nSaturated, over {} samples (at least {SATURATED_SAMPLES} are wanted):\n\n",
            kernel.samples
        );
        let growth = kernel.p999_ns as f64 / idle.p999_ns.max(1) as f64;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "- the kernel's P99.9 is {growth:.1} times the idle one (promised: at most {MOST_GROWTH}): {}",
            kept(growth <= MOST_GROWTH && enough)
        );
        for (prober, name) in PROBERS {
            let row = find(Load::Saturated, *prober).filter(|_| IN_USER_SPACE.contains(prober));
            let Some(row) = row else { continue };
            let times = row.p999_ns as f64 / kernel.p999_ns.max(1) as f64;
            let _ = writeln!(
                text,
                "- it is 1/{times:.0} of that of {name} (promised: at most 1/{LEAST_TIMES}): {}",
                kept(times >= LEAST_TIMES && enough)
            );
        }
        text
    }
}

impl Row {
    fn of(load: Load, prober: Prober, turns: &[Turn]) -> Option<Self> {
        let told = |who: Prober| {
            let own = move |turn: &&Turn| turn.load == load && turn.prober == who;
            turns.iter().filter(own).map(|turn| &turn.rtt)
        };
        let mut all = Histogram::new();
        told(prober).for_each(|rtt| all.merge(rtt));
        let times = |q: f64| {
            let rounds = told(prober).zip(told(Prober::Kernel));
            let ratio = |(own, kernel): (&Histogram, &Histogram)| {
                Some(own.quantile(q)? as f64 / kernel.quantile(q)?.max(1) as f64)
            };
            let ratios: Vec<_> = rounds.filter_map(ratio).collect();
            Spread::of(ratios).filter(|_| prober != Prober::Kernel)
        };
        Some(Self {
            load,
            prober,
            samples: all.count(),
            p50_ns: all.quantile(0.5)?,
            p99_ns: all.quantile(0.99)?,
            p999_ns: all.quantile(0.999)?,
            max_ns: all.max()?,
            p50_times: times(0.5),
            p999_times: times(0.999),
        })
    }

    fn to_markdown(&self) -> String {
        let name = PROBERS.iter().find(|(prober, _)| *prober == self.prober);
        let us = |ns: u64| format!("{:.1}", ns as f64 / 1e3);
        let times = |spread: &Option<Spread>| {
            spread.map_or_else(|| "1".to_owned(), |spread| spread.to_string())
        };
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |\n",
            name.map_or("", |(_, name)| name),
            self.samples,
            us(self.p50_ns),
            us(self.p99_ns),
            us(self.p999_ns),
            us(self.max_ns),
            times(&self.p50_times),
            times(&self.p999_times)
        )
    }
}

/// Those whose stamps are of user space at both ends.
const IN_USER_SPACE: [Prober; 3] = [Prober::StampSuite, Prober::Irtt, Prober::Sockperf];
/// How much saturation may cost the kernel's stamps.
const MOST_GROWTH: f64 = 5.0;
/// How much worse those in user space are at the least.
const LEAST_TIMES: f64 = 50.0;
/// In the order of the table.
const PROBERS: &[(Prober, &str)] = &[
    (Prober::Kernel, "`dt-agent run`, stamped in the kernel"),
    (Prober::UserSpace, "the same probes, seen from user space"),
    (Prober::StampSuite, "`stamp-suite`, sender and reflector"),
    (Prober::Irtt, "`irtt`, client and server"),
    (Prober::Sockperf, "`sockperf ping-pong`, client and server"),
    (Prober::Fping, "`fping`"),
    (Prober::Ping, "`ping`"),
    (Prober::Blackbox, "`blackbox_exporter`, a request a probe"),
];
const HEAD: &str = "\
| prober | samples | P50 | P99 | P99.9 | max | P50, times the kernel's | P99.9, times the kernel's |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
";

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(prober: Prober, ns: u64) -> Turn {
        Turn {
            load: Load::Saturated,
            prober,
            rtt: std::iter::repeat_n(ns, 60_000).collect(),
        }
    }

    #[test]
    fn a_ratio_is_between_turns_of_one_round() {
        let turns = [
            turn(Prober::Kernel, 4_000),
            turn(Prober::StampSuite, 80_000),
            turn(Prober::Kernel, 8_000),
            turn(Prober::StampSuite, 320_000),
        ];
        let row = Row::of(Load::Saturated, Prober::StampSuite, &turns).expect("it said something");
        let times = row.p50_times.expect("there are two rounds");
        assert!((times.min - 20.0).abs() < 1.5 && (times.max - 40.0).abs() < 3.0);
        assert!(Row::of(Load::Idle, Prober::StampSuite, &turns).is_none());
        let kernel = Row::of(Load::Saturated, Prober::Kernel, &turns).expect("it said something");
        assert_eq!((kernel.samples, kernel.p50_times), (120_000, None));
    }
}
