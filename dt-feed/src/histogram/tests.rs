use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// Values of every magnitude, as likely small as great.
fn value() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64_u32).prop_map(|(value, shift)| value >> shift)
}

fn values() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(value(), 0..200)
}

proptest! {
    #[test]
    fn merging_equals_recording_all(first in values(), second in values()) {
        let mut merged: Histogram = first.iter().copied().collect();
        merged.merge(&second.iter().copied().collect());
        let all: Histogram = first.into_iter().chain(second).collect();
        prop_assert_eq!(merged, all);
    }

    #[test]
    fn a_quantile_is_within_a_sixteenth_of_the_true_value(mut all in values(), q in 0.0..=1.0_f64) {
        let histogram: Histogram = all.iter().copied().collect();
        all.sort_unstable();
        let rank = ((q * all.len() as f64).ceil() as usize).max(1);
        let truth = all.get(rank - 1).copied();
        prop_assert_eq!(histogram.quantile(q).is_some(), truth.is_some());
        if let (Some(seen), Some(truth)) = (histogram.quantile(q), truth) {
            prop_assert!(seen.abs_diff(truth) <= truth / 16, "{} for {}", seen, truth);
            prop_assert!((all[0]..=all[all.len() - 1]).contains(&seen));
        }
    }

    #[test]
    fn the_message_says_everything(all in values()) {
        let histogram: Histogram = all.into_iter().collect();
        let message = proto::Histogram::from(&histogram);
        prop_assert_eq!(Histogram::try_from(&message), Ok(histogram));
    }

    #[test]
    fn a_value_falls_into_the_bucket_that_names_it(ns in value()) {
        let bucket = Bucket::of(ns);
        prop_assert!(bucket.values().contains(&ns));
        let (least, greatest) = bucket.values().into_inner();
        prop_assert!(greatest - least <= least / 16);
        let again = Bucket::numbered(bucket.number()).map(Bucket::values);
        prop_assert_eq!(again, Some(bucket.values()));
    }

    #[test]
    fn a_broken_message_is_refused_or_means_the_same(
        all in values(), at in any::<Index>(), field in 0..6, noise in any::<u64>(),
    ) {
        let mut message = proto::Histogram::from(&all.into_iter().collect::<Histogram>());
        match field {
            0 => message.count = noise,
            1 => message.min_ns = noise,
            2 => message.max_ns = noise,
            3 => message.sum_ns = noise,
            4 if !message.bucket_deltas.is_empty() => *at.get_mut(&mut message.bucket_deltas) = noise as u32,
            5 if !message.bucket_counts.is_empty() => *at.get_mut(&mut message.bucket_counts) = noise,
            _ => message.bucket_counts.push(noise),
        }
        if let Ok(histogram) = Histogram::try_from(&message) {
            prop_assert_eq!(proto::Histogram::from(&histogram), message);
        }
    }
}

#[test]
fn buckets_follow_one_another_without_gap_or_overlap() {
    let mut next = 0_u64;
    let buckets: Vec<Bucket> = (0..).map_while(Bucket::numbered).collect();
    for bucket in &buckets {
        assert_eq!(*bucket.values().start(), next, "bucket {}", bucket.number());
        next = bucket.values().end().wrapping_add(1);
    }
    assert_eq!(next, 0, "the last bucket ends at the greatest value");
    assert_eq!(buckets.len(), 976);
}

#[test]
fn recording_the_same_value_often_is_recording_it_n_times() {
    let mut at_once = Histogram::new();
    at_once.record_n(77_000, 5);
    at_once.record_n(1, 0);
    let one_by_one: Histogram = std::iter::repeat_n(77_000, 5).collect();
    assert_eq!(at_once, one_by_one);
}

#[test]
fn an_empty_histogram_has_no_figures() {
    let histogram = Histogram::new();
    assert_eq!(
        (histogram.min(), histogram.max(), histogram.quantile(0.5)),
        (None, None, None)
    );
    assert!(histogram.mean().is_none());
    assert!(histogram.is_empty());
}

#[test]
fn a_cleared_histogram_equals_a_new_one_and_keeps_its_memory() {
    let mut histogram: Histogram = [10, 20_000, 3_000_000_000].into_iter().collect();
    let capacity = histogram.rows.capacity();
    histogram.clear();
    assert_eq!(histogram, Histogram::new());
    assert_eq!(histogram.rows.capacity(), capacity);
}

#[test]
fn figures_of_known_values_are_exact() {
    let histogram: Histogram = [2, 4, 9].into_iter().collect();
    assert_eq!(
        (histogram.min(), histogram.max(), histogram.sum()),
        (Some(2), Some(9), 15)
    );
    assert_eq!(histogram.mean(), Some(5.0));
    assert_eq!(histogram.quantile(0.5), Some(4));
    assert_eq!(histogram.quantile(f64::NAN), None);
    assert_eq!(
        (histogram.quantile(-1.0), histogram.quantile(2.0)),
        (Some(2), Some(9))
    );
    assert_eq!(histogram.iter().map(|(_, count)| count).sum::<u64>(), 3);
}

#[test]
fn the_greatest_value_is_recorded_and_saturates_only_the_sum() {
    let histogram: Histogram = [u64::MAX, u64::MAX].into_iter().collect();
    assert_eq!((histogram.count(), histogram.sum()), (2, u64::MAX));
    assert_eq!(
        Histogram::try_from(&proto::Histogram::from(&histogram)),
        Ok(histogram)
    );
}

#[test]
fn an_idle_histogram_is_lean() {
    assert!(size_of::<Histogram>() <= 64, "10,000 peers hold three each");
}

#[test]
fn a_bucket_beyond_the_greatest_is_refused() {
    let message = proto::Histogram {
        count: 1,
        bucket_deltas: vec![976],
        bucket_counts: vec![1],
        ..proto::Histogram::default()
    };
    assert_eq!(
        Histogram::try_from(&message),
        Err(HistogramError::Bucket { position: 0 })
    );
}
