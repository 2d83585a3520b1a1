use proptest::prelude::*;

use super::*;

fn report(sent: u32, lost: u32, rtts_ns: &[u64]) -> WindowReport {
    let mut report = WindowReport::default();
    report.counters.sent = sent;
    report.counters.received = rtts_ns.len() as u32;
    report.counters.lost_forward = lost;
    for ns in rtts_ns {
        report.rtt.record(*ns);
    }
    report
}

fn place(zone: &str, rack: &str) -> Place {
    Place {
        zone: zone.to_owned(),
        rack: rack.to_owned(),
    }
}

#[test]
fn windows_are_added_up_by_zone_and_by_rack() {
    let mut rollup = Rollup::default();
    rollup.add(&place("z1", "r1"), &report(3, 1, &[1_000, 2_000]), false);
    rollup.add(&place("z1", "r2"), &report(1, 0, &[3_000]), true);
    rollup.add(&place("z2", "r1"), &report(5, 5, &[]), false);

    let zones: Vec<_> = rollup
        .zones()
        .map(|(zone, totals)| (zone, totals.sent, totals.lost(), totals.rtt.sum()))
        .collect();
    assert_eq!(zones, [("z1", 4, 1, 6_000), ("z2", 5, 5, 0)]);
    let racks: Vec<_> = rollup
        .racks()
        .map(|(place, totals)| (place.zone.as_str(), place.rack.as_str(), totals.sent))
        .collect();
    assert_eq!(racks, [("z1", "r1", 3), ("z1", "r2", 1), ("z2", "r1", 5)]);
    assert_eq!((rollup.windows, rollup.windows_suspect), (3, 1));
}

#[test]
fn labels_without_end_do_not_fill_the_memory_and_lose_no_count() {
    let mut rollup = Rollup::default();
    for n in 0..5_000 {
        let place = place(&format!("zone-{n}"), &format!("rack-{n}"));
        rollup.add(&place, &report(1, 0, &[]), false);
    }
    assert_eq!(rollup.zones().count(), Rollup::MAX_ZONES + 1);
    assert_eq!(rollup.racks().count(), Rollup::MAX_RACKS + 1);
    let sent: u64 = rollup.zones().map(|(_, totals)| totals.sent).sum();
    assert_eq!(sent, 5_000);
    let others = rollup.zones().find(|(zone, _)| *zone == OTHER);
    assert_eq!(
        others.map(|(_, totals)| totals.sent),
        Some(5_000 - Rollup::MAX_ZONES as u64)
    );
}

#[test]
fn who_left_makes_room() {
    let mut rollup = Rollup::default();
    for n in 0..Rollup::MAX_ZONES {
        rollup.add(&place(&n.to_string(), "r"), &report(1, 0, &[]), false);
    }
    rollup.keep(&BTreeSet::from([place("3", "r")]));
    rollup.add(&place("new", "r"), &report(1, 0, &[]), false);
    let zones: Vec<_> = rollup.zones().map(|(zone, _)| zone).collect();
    assert_eq!(zones, ["3", "new"]);
}

#[test]
fn classic_buckets_hold_what_is_not_above_their_bound() {
    let mut histogram = Histogram::new();
    for ns in [400, 1_500, 1_500, 900_000, 3_000_000_000] {
        histogram.record(ns);
    }
    let filled: Vec<_> = classic(&histogram)
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .collect();
    assert_eq!(
        filled,
        [(1e-6, 1), (2e-6, 2), (1e-3, 1), (f64::INFINITY, 1)]
    );
}

#[test]
fn native_buckets_are_those_of_prometheus() {
    let mut histogram = Histogram::new();
    histogram.record(0);
    // 2^-20 s is 953.67 ns: just above that begins bucket -159.
    histogram.record_n(980, 2);
    histogram.record_n(1_060, 3);
    histogram.record(1_000_000);
    let native = Native::of(&histogram);
    assert_eq!(native.zeros, 1);
    assert_eq!(native.spans, [(-159, 2), (78, 1)]);
    assert_eq!(native.deltas, [2, 1, -2]);
}

/// Counts per bucket of a native histogram, with the bucket's bounds in seconds.
fn unfolded(native: &Native) -> Vec<(f64, f64, u64)> {
    let (mut bucket, mut count) = (0, 0_i64);
    let mut deltas = native.deltas.iter();
    let mut buckets = Vec::new();
    for (gap, length) in &native.spans {
        bucket += gap;
        for _ in 0..*length {
            count += deltas.next().copied().unwrap_or_default();
            let bound = |number: i32| (f64::from(number) / 8.0).exp2();
            buckets.push((bound(bucket - 1), bound(bucket), count as u64));
            bucket += 1;
        }
    }
    buckets
}

proptest! {
    #[test]
    fn no_value_is_lost_or_further_off_than_a_bucket_is_wide(values in prop::collection::vec(0_u64..20_000_000_000, 1..200)) {
        let mut histogram = Histogram::new();
        for ns in &values {
            histogram.record(*ns);
        }
        let classic: u64 = classic(&histogram).iter().map(|(_, count)| count).sum();
        prop_assert_eq!(classic, values.len() as u64);

        let native = Native::of(&histogram);
        let buckets = unfolded(&native);
        let counted: u64 = buckets.iter().map(|(_, _, count)| count).sum();
        prop_assert_eq!(counted + native.zeros, values.len() as u64);
        let mut sorted: Vec<_> = values.iter().copied().filter(|ns| *ns > 0).collect();
        sorted.sort_unstable();
        let mut sorted = sorted.into_iter();
        for (lower, upper, count) in buckets {
            for ns in sorted.by_ref().take(count as usize) {
                let seconds = ns as f64 / 1e9;
                prop_assert!(lower * 0.96 <= seconds && seconds <= upper * 1.04, "{seconds} in {lower} to {upper}");
            }
        }
    }
}
