use super::{Counters, Spread, add};
use crate::engine::session::Outcome;

#[test]
fn each_outcome_has_a_counter_of_its_own() {
    let mut counters = Counters::default();
    for (times, outcome) in (1..).zip(Outcome::ALL) {
        for _ in 0..times {
            counters.count(outcome);
        }
    }
    for (times, outcome) in (1..).zip(Outcome::ALL) {
        assert_eq!(counters.of(outcome), times, "{outcome:?}");
    }
    assert_eq!(counters.outcomes(), 12 * 13 / 2);
    let lost: u32 = Outcome::ALL
        .iter()
        .filter(|outcome| outcome.is_lost())
        .map(|outcome| counters.of(*outcome))
        .sum();
    assert_eq!(counters.lost(), u64::from(lost));
}

#[test]
fn a_counter_that_a_peer_drives_stops_at_its_end() {
    let mut counter = u32::MAX - 1;
    add(&mut counter, 5);
    assert_eq!(counter, u32::MAX);
}

#[test]
fn a_spread_knows_its_extremes_and_its_mean() {
    let mut spread = Spread::default();
    assert_eq!(
        (spread.min_ns(), spread.max_ns(), spread.mean_ns()),
        (None, None, None)
    );
    for ns in [30, 10, 21] {
        spread.record(ns);
    }
    assert_eq!(
        (spread.min_ns(), spread.max_ns(), spread.mean_ns()),
        (Some(10), Some(30), Some(20))
    );
    assert_eq!((spread.count(), spread.sum_ns()), (3, 61));
}
