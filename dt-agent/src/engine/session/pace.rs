//! How fast probes go out and come back: what to expect of the next ones.

/// How fast probes go out and come back.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The longest pause between probes, forgotten slowly, ns.
    pause_ns: u64,
    /// The longest that a probe was away, forgotten slowly, ns; 0 before the first reply.
    away_ns: u64,
}

impl Pace {
    /// Takes the time between two probes, ns.
    pub fn handle_pause(&mut self, pause_ns: u64) {
        self.pause_ns = pause_ns.max(self.pause_ns - self.pause_ns / 8);
    }

    /// Takes how long a probe was away, ns.
    pub fn handle_away(&mut self, away_ns: u64) {
        self.away_ns = away_ns.max(self.away_ns - self.away_ns / 1024);
    }

    /// How long a missing probe may wait for a later reply that tells its direction.
    pub fn patience_ns(&self, planned_ns: u64) -> u64 {
        planned_ns
            .max(self.pause_ns)
            .saturating_mul(3)
            .max(MIN_PATIENCE_NS)
    }

    /// How long before a reading of the local counters the probe was sent whose reply they counted, at most.
    pub fn reach_ns(&self, deadline_ns: u64) -> u64 {
        if self.away_ns == 0 {
            return deadline_ns;
        }
        self.away_ns
            .saturating_mul(4)
            .saturating_add(REACH_SLACK_NS)
            .min(deadline_ns)
    }
}

const MIN_PATIENCE_NS: u64 = 1_000_000_000;
/// Allows for probes that waited on this host before they were stamped.
const REACH_SLACK_NS: u64 = 20_000_000;
