use std::collections::BTreeMap;

use dt_feed::Histogram;
use dt_feed::proto::{Batch, Counters};
use proptest::prelude::*;

use super::*;
use crate::nodes::Nodes;

const S: u64 = 1_000_000_000;
/// Some time today, on the border of a slot of any span used here.
const T0: u64 = 1_800_000_000 * S;

/// Nodes by name with zone and rack.
fn nodes(list: &[(&str, &str, &str)]) -> Vec<Node> {
    let mut nodes = Nodes::default();
    let ids: Vec<_> = list
        .iter()
        .map(|(name, zone, rack)| {
            let batch = Batch {
                source: (*name).to_owned(),
                source_zone: (*zone).to_owned(),
                source_rack: (*rack).to_owned(),
                ..Batch::default()
            };
            nodes.hear(&batch, 1).expect("there is room")
        })
        .collect();
    ids.into_iter()
        .filter_map(|id| nodes.get(id).cloned())
        .collect()
}

fn window(end_unix_ns: u64, rtts: &[u64]) -> Window {
    Window {
        start_unix_ns: end_unix_ns - S,
        end_unix_ns,
        counters: Some(Counters {
            received: rtts.len() as u64,
            ..Counters::default()
        }),
        rtt: Some((&rtts.iter().copied().collect::<Histogram>()).into()),
        ..Window::default()
    }
}

/// Adds a window that was written when it ended.
fn add(rollup: &mut Rollup, from: &Node, to: &Node, end_unix_ns: u64, rtts: &[u64]) {
    let window = window(end_unix_ns, rtts);
    let figures = Figures::of(&window).expect("it is sound");
    rollup.add(from, to, &window, &figures, end_unix_ns);
}

fn received(rollup: &Rollup, now_unix_ns: u64) -> BTreeMap<(String, String), u64> {
    let figures = rollup.figures(now_unix_ns);
    figures
        .map(|(from, to, figures)| {
            (
                (from.to_string(), to.to_string()),
                figures.counters.received,
            )
        })
        .collect()
}

fn pairs(list: &[(&str, &str, u64)]) -> BTreeMap<(String, String), u64> {
    let named = list
        .iter()
        .map(|(from, to, count)| (((*from).into(), (*to).into()), *count));
    named.collect()
}

#[test]
fn racks_and_zones_add_up_their_nodes() {
    let nodes = nodes(&[
        ("n1", "z1", "r1"),
        ("n2", "z1", "r1"),
        ("n3", "z2", "r1"),
        ("n4", "", ""),
    ]);
    let table = [
        (
            By::Node,
            pairs(&[
                ("n1", "n3", 2),
                ("n2", "n3", 3),
                ("n1", "n2", 1),
                ("n4", "n1", 4),
            ]),
        ),
        (
            By::Rack,
            pairs(&[
                ("z1/r1", "z2/r1", 5),
                ("z1/r1", "z1/r1", 1),
                ("-", "z1/r1", 4),
            ]),
        ),
        (
            By::Zone,
            pairs(&[("z1", "z2", 5), ("z1", "z1", 1), ("-", "z1", 4)]),
        ),
    ];
    for (by, expected) in table {
        let mut rollup = Rollup::new(by, Span::last_ns(60 * S), MAX_CELLS);
        for (from, to, count) in [(0, 2, 2), (1, 2, 3), (0, 1, 1), (3, 0, 4)] {
            add(
                &mut rollup,
                &nodes[from],
                &nodes[to],
                T0,
                &vec![5_000; count],
            );
        }
        assert_eq!(received(&rollup, T0), expected, "{by:?}");
    }
}

#[test]
fn figures_leave_the_span_after_it_and_not_before() {
    let nodes = nodes(&[("n1", "", ""), ("n2", "", "")]);
    let mut rollup = Rollup::new(By::Node, Span::last_ns(4 * S), MAX_CELLS);
    add(&mut rollup, &nodes[0], &nodes[1], T0 + S, &[5_000]);
    let expected = pairs(&[("n1", "n2", 1)]);
    assert_eq!(received(&rollup, T0 + S), expected);
    assert_eq!(received(&rollup, T0 + 5 * S - 1), expected);
    assert_eq!(received(&rollup, T0 + 5 * S), pairs(&[]));
    rollup.handle_time(T0 + 5 * S);
    assert!(rollup.cells.is_empty());
}

#[test]
fn a_window_out_of_a_spool_is_expired_and_one_from_the_future_counts_now() {
    let nodes = nodes(&[("n1", "", ""), ("n2", "", "")]);
    let mut rollup = Rollup::new(By::Node, Span::last_ns(4 * S), MAX_CELLS);
    for end_unix_ns in [T0 - 100 * S, u64::MAX] {
        let window = window(end_unix_ns, &[5_000]);
        let figures = Figures::of(&window).expect("it is sound");
        rollup.add(&nodes[0], &nodes[1], &window, &figures, T0);
    }
    let expected = Dropped {
        expired_windows: 1,
        misdated_windows: 1,
        crowded_windows: 0,
    };
    assert_eq!(rollup.dropped(), expected);
    assert_eq!(received(&rollup, T0), pairs(&[("n1", "n2", 1)]));
    assert_eq!(received(&rollup, T0 + 6 * S), pairs(&[]));
}

#[test]
fn without_a_span_nothing_expires() {
    let nodes = nodes(&[("n1", "", ""), ("n2", "", "")]);
    let mut rollup = Rollup::new(By::Node, Span::ALL, MAX_CELLS);
    for day in 0..10 {
        add(
            &mut rollup,
            &nodes[0],
            &nodes[1],
            T0 + day * 86_400 * S,
            &[5_000],
        );
    }
    rollup.handle_time(T0 + 1_000 * 86_400 * S);
    assert_eq!(received(&rollup, u64::MAX), pairs(&[("n1", "n2", 10)]));
    assert_eq!(Span::ALL.length_ns(), None);
}

#[test]
fn more_pairs_than_there_is_room_for_are_counted_and_the_others_go_on() {
    let nodes = nodes(&[("n1", "", ""), ("n2", "", ""), ("n3", "", "")]);
    let mut rollup = Rollup::new(By::Node, Span::last_ns(60 * S), 2);
    for to in [1, 2, 0, 1] {
        add(&mut rollup, &nodes[0], &nodes[to], T0, &[5_000]);
    }
    assert_eq!(rollup.dropped().crowded_windows, 1);
    assert_eq!(
        received(&rollup, T0),
        pairs(&[("n1", "n2", 2), ("n1", "n3", 1)])
    );
}

#[test]
fn groups_that_are_no_more_leave_nothing_behind() {
    let mut rollup = Rollup::new(By::Node, Span::last_ns(4 * S), MAX_CELLS);
    let stay = nodes(&[("stays", "", "")]);
    for hour in 0..2_000 {
        let passing = nodes(&[(&format!("n{hour}"), "", "")]);
        let now_ns = T0 + hour * 3_600 * S;
        add(&mut rollup, &stay[0], &passing[0], now_ns, &[5_000]);
        rollup.handle_time(now_ns);
        assert_eq!(
            received(&rollup, now_ns),
            pairs(&[("stays", &format!("n{hour}"), 1)])
        );
        assert!(rollup.groups.names.len() < SPARE_GROUPS + 5);
    }
}

proptest! {
    /// Whatever comes in whatever order within the span: each window is in the figures once.
    #[test]
    fn every_window_within_the_span_counts_once(
        windows in prop::collection::vec((0..3_usize, 0..3_usize, 1..41_u64, 1..5_usize), 0..60),
    ) {
        let nodes = nodes(&[("n1", "z1", "r1"), ("n2", "z1", "r2"), ("n3", "z2", "r3")]);
        for by in [By::Node, By::Rack, By::Zone] {
            let mut rollup = Rollup::new(by, Span::last_ns(40 * S), MAX_CELLS);
            let mut expected = BTreeMap::new();
            for (from, to, second, count) in &windows {
                let (from, to) = (&nodes[*from], &nodes[*to]);
                let window = window(T0 + second * S, &vec![1_000; *count]);
                let figures = Figures::of(&window).expect("it is sound");
                rollup.add(from, to, &window, &figures, T0 + 40 * S);
                let pair = (by.group(from).to_string(), by.group(to).to_string());
                *expected.entry(pair).or_insert(0) += *count as u64;
            }
            prop_assert_eq!(received(&rollup, T0 + 40 * S), expected);
            prop_assert_eq!(rollup.dropped(), Dropped::default());
        }
    }

    #[test]
    fn memory_stays_within_its_bounds_whatever_comes(
        windows in prop::collection::vec((0..50_u64, any::<u64>(), any::<u64>()), 0..200),
    ) {
        let mut rollup = Rollup::new(By::Node, Span::last_ns(4 * S), 8);
        for (name, end_unix_ns, log_unix_ns) in windows {
            let pair = nodes(&[(&format!("n{name}"), "", ""), ("n", "", "")]);
            let window = Window { end_unix_ns, ..Window::default() };
            rollup.add(&pair[0], &pair[1], &window, &Figures::default(), log_unix_ns);
            prop_assert!(rollup.cells.len() <= 8);
            prop_assert!(rollup.groups.names.len() <= 2 * 8 + 2 + SPARE_GROUPS);
            let slots = rollup.cells.values().map(Cell::len);
            prop_assert!(slots.max().unwrap_or(0) <= 5);
            rollup.handle_time(log_unix_ns);
        }
    }
}
