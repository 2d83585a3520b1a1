//! The arithmetic of one peer's moments, and of what all peers together may send at once.

use dt_common::time::{MonoNanos, NANOS_PER_SEC};

use crate::engine::random::Random;

/// Moments one interval apart, in fixed point of 2^-32 ns: a year of any rate is off by less than a probe, and the
/// steps do not grow as those of a floating-point clock do. Four words instead of two `u128`, for the cache's sake.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    place_ns: u64,
    interval_ns: u64,
    place_fraction: u32,
    interval_fraction: u32,
}

impl Grid {
    /// A grid of so many places per second, its first one a random part of an interval after `now`.
    pub fn new(rate: f64, now: MonoNanos, random: &mut Random) -> Self {
        let interval = (NANOS_PER_SEC as f64 / rate * FRACTIONS_PER_NANO) as u128;
        let interval_ns = (interval >> u32::BITS) as u64;
        let place_ns = now.plus(random.below(interval_ns)).0;
        Self {
            place_ns,
            interval_ns,
            place_fraction: 0,
            interval_fraction: interval as u32,
        }
    }

    /// When to send the next probe: at most a tenth of an interval before or after its place.
    pub fn next(&self, random: &mut Random) -> MonoNanos {
        let reach = self.interval_ns / 10;
        let offset = random.below(2 * reach + 1);
        MonoNanos(self.place_ns.saturating_sub(reach).saturating_add(offset))
    }

    /// Takes the next place and those behind it that have passed; how many these are, at least 1.
    pub fn take_due(&mut self, now: MonoNanos) -> u64 {
        let late_ns = now.since(MonoNanos(self.place_ns));
        let count = if late_ns < self.interval_ns {
            1
        } else {
            1 + self.passed(now)
        };
        let step = u128::from(count) * fixed(self.interval_ns, self.interval_fraction);
        let place = fixed(self.place_ns, self.place_fraction) + step;
        self.place_ns = (place >> u32::BITS) as u64;
        self.place_fraction = place as u32;
        count
    }

    /// How many places there are in a time, ns.
    pub fn count_in(&self, span_ns: u64) -> u32 {
        let count = fixed(span_ns, 0) / fixed(self.interval_ns, self.interval_fraction);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Places behind the next one that have passed.
    fn passed(&self, now: MonoNanos) -> u64 {
        let late = fixed(now.0, 0).saturating_sub(fixed(self.place_ns, self.place_fraction));
        (late / fixed(self.interval_ns, self.interval_fraction)) as u64
    }
}

/// A bucket of probes that all peers share.
///
/// It is so large that it is never felt while wake-ups come in time. After a stall, of this host or of the machine
/// below it, it lets the peers go at twice their usual rate instead of all at once. And whatever is asked for, it gives no
/// more than [`Schedule::MAX_TOTAL_RATE`](super::Schedule::MAX_TOTAL_RATE).
#[derive(Debug)]
pub(super) struct Burst {
    /// What a late wake-up may make up, ns of the sum of all rates.
    catch_up_ns: u64,
    /// Sum of all rates, in probes per [`RATE_SPAN_NS`].
    rate: u64,
    /// What may be sent now, in probes divided by [`RATE_SPAN_NS`]; below zero what one peer took too much.
    tokens: i64,
    refilled: MonoNanos,
}

impl Burst {
    /// A bucket for nobody yet.
    pub fn new(catch_up_ns: u64) -> Self {
        Self {
            catch_up_ns,
            rate: 0,
            tokens: 0,
            refilled: MonoNanos(0),
        }
    }

    /// Makes room for one more peer.
    pub fn add(&mut self, grid: Grid) {
        self.rate += u64::from(grid.count_in(RATE_SPAN_NS));
    }

    /// Takes back the room of a peer.
    pub fn remove(&mut self, grid: Grid) {
        self.rate -= u64::from(grid.count_in(RATE_SPAN_NS));
    }

    /// Lets time pass.
    pub fn refill(&mut self, now: MonoNanos) {
        let earned = self
            .rate
            .saturating_mul(2)
            .min(MAX_RATE)
            .saturating_mul(now.since(self.refilled));
        let room = self
            .rate
            .min(MAX_RATE)
            .saturating_mul(self.catch_up_ns)
            .max(LEAST_BURST * RATE_SPAN_NS);
        self.tokens = self
            .tokens
            .saturating_add_unsigned(earned)
            .min(room.cast_signed());
        self.refilled = now;
    }

    /// Whether another probe may be sent now.
    pub fn has_room(&self) -> bool {
        self.tokens >= RATE_SPAN_NS.cast_signed()
    }

    /// Takes what was sent; the last peer of a wake-up may take more than there is, and the next ones wait for that.
    pub fn spend(&mut self, probes: u32) {
        self.tokens = self
            .tokens
            .saturating_sub_unsigned(u64::from(probes) * RATE_SPAN_NS);
    }
}

/// How long to rest after probes were sent, ns, so that others leave together with the next: a wake-up costs more than a probe.
///
/// A fiftieth of the interval, by which no peer's probes get out of step; no more than leaves a burst for the receiving
/// end's ring; and never so long that orders wait. At high rates nothing is left of it.
#[must_use]
pub fn rest_ns(interval_ns: u64, peers: usize) -> u64 {
    let burst = u128::from(interval_ns) * u128::from(LEAST_BURST) / (peers.max(1) as u128);
    let burst = u64::try_from(burst).unwrap_or(u64::MAX);
    (interval_ns / 50).min(burst).min(LONGEST_REST_NS)
}

const fn fixed(ns: u64, fraction: u32) -> u128 {
    ((ns as u128) << u32::BITS) | fraction as u128
}

/// 2^32.
const FRACTIONS_PER_NANO: f64 = 4_294_967_296.0;
/// A thousand seconds: the slowest rate is a whole number of probes in it, so a sum of rates loses nothing.
const RATE_SPAN_NS: u64 = 1_000 * NANOS_PER_SEC;
/// [`Schedule::MAX_TOTAL_RATE`](super::Schedule::MAX_TOTAL_RATE) in that unit.
const MAX_RATE: u64 = super::Schedule::MAX_TOTAL_RATE * (RATE_SPAN_NS / NANOS_PER_SEC);
/// A small mesh may always send to all of its peers at once.
const LEAST_BURST: u64 = 64;
/// The longest sleep of the thread that probes, too.
const LONGEST_REST_NS: u64 = 100_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = NANOS_PER_SEC;

    fn grid(rate: f64) -> Grid {
        Grid::new(rate, MonoNanos(0), &mut Random::new(1))
    }

    #[test]
    fn a_rest_gathers_a_burst_and_no_more() {
        for (rate, peers, ms) in [
            (0.1, 100, 100.0),
            (0.1, 5_000, 100.0),
            (0.1, 10_000, 64.0),
            (1.0, 100, 20.0),
            (1.0, 10_000, 6.4),
            (10.0, 10, 2.0),
            (100.0, 5, 0.2),
            (10_000.0, 1, 0.002),
        ] {
            let rest = rest_ns((1e9 / rate) as u64, peers);
            assert_eq!(rest, (ms * 1e6) as u64, "{peers} at {rate}/s");
        }
    }

    #[test]
    fn a_third_of_a_second_does_not_drift_in_a_year() {
        let mut grid = grid(3.0);
        let start = grid.place_ns;
        let year = 365 * 24 * 3_600;
        let count = grid.take_due(MonoNanos(start + year * SECOND));
        assert!(count.abs_diff(3 * year) <= 1, "{count}");
        assert!(grid.place_ns.abs_diff(start + count * SECOND / 3) < 100_000);
    }

    #[test]
    fn one_step_of_many_is_the_same_as_many_of_one() {
        let (mut one, mut many) = (grid(7_777.7), grid(7_777.7));
        let end = MonoNanos(one.place_ns + SECOND);
        let count = one.take_due(end);
        let mut steps = 0;
        while many.place_ns <= end.0 {
            steps += many.take_due(MonoNanos(many.place_ns));
        }
        assert_eq!(
            (count, one.place_ns, one.place_fraction),
            (steps, many.place_ns, many.place_fraction)
        );
    }

    #[test]
    fn a_bucket_is_full_again_after_its_rate_went_and_came() {
        let mut burst = Burst::new(20_000_000);
        burst.add(grid(1.0));
        burst.refill(MonoNanos(100 * SECOND));
        burst.spend(65);
        assert!(!burst.has_room());
        burst.refill(MonoNanos(100 * SECOND + SECOND / 2));
        assert!(!burst.has_room(), "one too much is owed");
        burst.refill(MonoNanos(102 * SECOND));
        assert!(burst.has_room(), "twice the rate is earned");
        burst.remove(grid(1.0));
        assert_eq!(burst.rate, 0);
    }
}
