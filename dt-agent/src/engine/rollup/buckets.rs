//! From our histogram to those that Prometheus knows.
//!
//! Ours is log-linear with buckets of at most 6.25 %; each of them goes whole into the bucket that holds its middle. So counts
//! and sums are exact, and a value may sit one bucket of Prometheus' too low or too high if it is within 3.2 % of a border.

use std::collections::BTreeMap;

use dt_feed::Histogram;

/// Upper bounds of the classic buckets, in seconds; the last one, +Inf, is not among them.
pub const CLASSIC_BOUNDS: [f64; 18] = [
    1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1,
    5e-1, 1.0,
];

/// Schema of the native buckets: 2^3 of them per power of two, each 9 % wide.
///
/// Source: Prometheus, "Native Histograms", section "Schema".
pub const NATIVE_SCHEMA: i32 = 3;

/// Values per classic bucket, +Inf last: upper bound in seconds, and how many are above the bound before and not above this.
#[must_use]
pub fn classic(histogram: &Histogram) -> Vec<(f64, u64)> {
    let bounds = CLASSIC_BOUNDS.into_iter().chain([f64::INFINITY]);
    let mut buckets: Vec<_> = bounds.map(|bound| (bound, 0)).collect();
    for (seconds, count) in middles(histogram) {
        if let Some(bucket) = buckets.iter_mut().find(|(bound, _)| seconds <= *bound) {
            bucket.1 += count;
        }
    }
    buckets
}

/// The sparse buckets of a native histogram of values from 0 on.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Native {
    /// Values that are 0.
    pub zeros: u64,
    /// Runs of buckets: how many are left out before it (of the first: its number), and how many it has.
    pub spans: Vec<(i32, u32)>,
    /// Values in each bucket, as the difference from the bucket before.
    pub deltas: Vec<i64>,
}

impl Native {
    /// The native form of a histogram of ns, in seconds.
    #[must_use]
    pub fn of(histogram: &Histogram) -> Self {
        let mut native = Self::default();
        let mut buckets: BTreeMap<i32, u64> = BTreeMap::new();
        for (seconds, count) in middles(histogram) {
            if seconds > 0.0 {
                *buckets.entry(bucket_of(seconds)).or_default() += count;
            } else {
                native.zeros += count;
            }
        }
        let mut before = 0_i64;
        let mut next = 0;
        for (bucket, count) in buckets {
            match native.spans.last_mut() {
                Some((_, length)) if bucket == next => *length += 1,
                _ => native.spans.push((bucket - next, 1)),
            }
            next = bucket + 1;
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            native.deltas.push(count.saturating_sub(before));
            before = count;
        }
        native
    }
}

/// Number of the bucket: the one whose upper bound, 2^(number / 8), is the least that is not below the value.
fn bucket_of(seconds: f64) -> i32 {
    (seconds.log2() * f64::from(1 << NATIVE_SCHEMA)).ceil() as i32
}

/// The middle of each bucket in seconds, and the number of values in it.
fn middles(histogram: &Histogram) -> impl Iterator<Item = (f64, u64)> {
    histogram.iter().map(|(values, count)| {
        let (first, last) = values.into_inner();
        (f64::midpoint(first as f64, last as f64) / 1e9, count)
    })
}
