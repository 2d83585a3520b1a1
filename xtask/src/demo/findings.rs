//! What a demo measured, and whether that is what it promises.

use std::time::Duration;

use dt_feed::Histogram;

use super::options::{Options, mode_name};
use super::tally::{Pair, Span, Tally};

/// Everything that the end of a demo is made from.
pub struct Findings {
    pub tally: Tally,
    /// From when on every pair was answered, for as long as was asked.
    pub measured: Span,
    /// From the start of the command to the end of set-up and build.
    pub built_after: Duration,
    /// From the start of the command to the first probes of the last pair.
    pub began_after: Option<Duration>,
    /// `ping` on the wire of [`PINGED`].
    pub ping_rtt: Histogram,
    /// CPU time of all agents while measuring, unless one ended before it could be read.
    pub cpu_ns: Option<u64>,
    pub feed_bytes: u64,
    /// What went wrong beside the probes, a line each.
    pub faults: Vec<String>,
}

impl Findings {
    /// All ordered pairs that were asked for, with what is known of them.
    pub fn pairs(&self, options: &Options) -> Vec<(String, String, Option<&Pair>)> {
        let mut pairs = Vec::new();
        for (source, destination) in asked_pairs(options) {
            let pair = self.tally.pair(&source, &destination);
            pairs.push((source, destination, pair));
        }
        pairs
    }

    /// CPU time of both ends for one round trip, ns: nothing without a round trip.
    pub fn cpu_ns_per_probe(&self) -> Option<f64> {
        let received = self.tally.received_in(self.measured);
        let cpu_ns = self.cpu_ns.filter(|_| received >= 1.0)?;
        Some(cpu_ns as f64 / received)
    }

    /// Bytes of the feed for one probe.
    pub fn feed_bytes_per_probe(&self) -> Option<f64> {
        let sent: u64 = self.tally.pairs().map(|pair| pair.counters.sent).sum();
        (sent > 0).then(|| self.feed_bytes as f64 / sent as f64)
    }

    /// A line for everything that is not as it should be.
    pub fn violations(&self, options: &Options) -> Vec<String> {
        let mut lines = self.faults.clone();
        for (source, destination, pair) in self.pairs(options) {
            let of_pair = match pair.filter(|pair| pair.is_answered()) {
                Some(pair) => self.judge(pair, options),
                None => vec!["not measured: no probe came back".to_owned()],
            };
            lines.extend(
                of_pair
                    .iter()
                    .map(|line| format!("{source} → {destination}: {line}")),
            );
        }
        if self.ping_rtt.is_empty() {
            lines.push("ping had no answer".to_owned());
        }
        lines
    }

    fn judge(&self, pair: &Pair, options: &Options) -> Vec<String> {
        let mut lines = Vec::new();
        let mode = pair.mode().unwrap_or_default();
        if !options.mode.accepts(mode) {
            lines.push(format!(
                "measured in mode {}, asked was {}",
                mode_name(mode),
                options.mode
            ));
        }
        let strange = pair.received_otherwise(self.measured, |mode| options.mode.accepts(mode));
        if strange > 0 && options.mode.accepts(mode) {
            lines.push(format!(
                "{strange} probes were in another mode than {}",
                options.mode
            ));
        }
        let reached = pair.sent_pps(self.measured);
        if (reached / f64::from(options.rate) - 1.0).abs() > RATE_TOLERANCE {
            lines.push(format!(
                "{reached:.1} probes per second instead of {}",
                options.rate
            ));
        }
        let counters = &pair.counters;
        let corrupt = counters.corrupt_forward + counters.corrupt_return;
        if counters.lost() + corrupt > 0 {
            let (sent, lost) = (counters.sent, counters.lost());
            lines.push(format!(
                "of {sent} probes {lost} were lost and {corrupt} corrupted"
            ));
        }
        lines
    }
}

/// The ordered pairs of hosts.
fn asked_pairs(options: &Options) -> impl Iterator<Item = (String, String)> {
    let nodes = 1..=options.nodes;
    let pairs = nodes
        .clone()
        .flat_map(move |from| nodes.clone().map(move |to| (from, to)));
    pairs
        .filter(|(from, to)| from != to)
        .map(|(from, to)| (format!("n{from}"), format!("n{to}")))
}

/// The pair that is also pinged.
pub const PINGED: (&str, &str) = ("n1", "n2");
/// How far a reached rate may be from the asked one.
const RATE_TOLERANCE: f64 = 0.02;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::fixture::{findings, options, window};
    use dt_feed::proto::{Counters, Mode, Window};

    fn violations_with(changed: &Window) -> Vec<String> {
        let mut findings = findings();
        findings.tally = Tally::default();
        let sound = window(0, 0, Mode::Xdp, &[4_000; 100]);
        findings
            .tally
            .add("n1", "n2", &sound)
            .expect("a sound window");
        findings
            .tally
            .add("n2", "n1", changed)
            .expect("a sound window");
        findings.violations(&options(&["--nodes", "2"]))
    }

    #[test]
    fn a_mesh_as_asked_for_has_no_violation() {
        assert_eq!(
            violations_with(&window(0, 0, Mode::Tc, &[9_000; 99])),
            Vec::<String>::new()
        );
    }

    #[test]
    fn each_broken_promise_has_its_line() {
        assert_eq!(
            violations_with(&window(0, 0, Mode::Socket, &[9_000; 100])),
            ["n2 → n1: measured in mode socket, asked was auto"]
        );
        assert_eq!(
            violations_with(&window(0, 0, Mode::Xdp, &[9_000; 97])),
            ["n2 → n1: 97.0 probes per second instead of 100"]
        );
        let counters = Counters {
            sent: 100,
            received: 97,
            lost_forward: 1,
            corrupt_return: 2,
            ..Counters::default()
        };
        let lossy = Window {
            counters: Some(counters),
            ..window(0, 0, Mode::Xdp, &[9_000; 97])
        };
        assert_eq!(
            violations_with(&lossy),
            ["n2 → n1: of 100 probes 1 were lost and 2 corrupted"]
        );
        let silent = Window {
            counters: None,
            rtt: None,
            ..window(0, 0, Mode::Xdp, &[])
        };
        assert_eq!(
            violations_with(&silent),
            ["n2 → n1: not measured: no probe came back"]
        );
    }

    #[test]
    fn what_went_wrong_beside_the_probes_counts_too() {
        let findings = Findings {
            faults: vec!["fault".to_owned()],
            ping_rtt: Histogram::new(),
            ..findings()
        };
        assert_eq!(
            findings.violations(&options(&["--nodes", "2"])),
            ["fault", "ping had no answer"]
        );
    }
}
