use std::collections::BTreeSet;
use std::fmt::Write as _;

use dt_feed::probes::{Outcome, ProbeRecord};
use dt_feed::proto::{self, Counters, PeerState, ProbeClass, Window};

use super::*;

fn origin() -> Origin {
    Origin {
        source: "n1".into(),
        labels: Labels::default(),
        start_id: 0xAB,
        sequence: 4,
        agent_version: "0.1.0".into(),
    }
}

fn value<R>(columns: &'static [Column<R>], row: &R, name: &str) -> String {
    let column = columns.iter().find(|column| column.name == name);
    format!("{:?}", column.map(|column| (column.value)(row)))
}

#[test]
fn a_residence_of_extremes_only_is_sound_and_has_no_quantiles() {
    let window = Window {
        residence: Some(proto::Histogram {
            count: 3,
            min_ns: 700,
            max_ns: 900,
            sum_ns: 2_400,
            ..proto::Histogram::default()
        }),
        ..Window::default()
    };
    let row = WindowRow::new(origin(), Peer::new(9, None), &window).expect("it is sound");
    for (name, expected) in [
        ("residence_count", "Some(Number(3))"),
        ("residence_sum_ns", "Some(Number(2400))"),
        ("residence_min_ns", "Some(Number(700))"),
        ("residence_max_ns", "Some(Number(900))"),
        ("residence_p50_ns", "Some(Absent)"),
        ("residence_bucket_count", "Some(List([]))"),
    ] {
        assert_eq!(value(WINDOW_COLUMNS, &row, name), expected, "{name}");
    }
}

#[test]
fn a_window_has_its_values_in_the_columns_of_their_names() {
    let rtt = Histogram::from_iter([5, 40, 40, 1_000]);
    let window = Window {
        start_unix_ns: 1,
        end_unix_ns: u64::MAX,
        peer_state: PeerState::Failed.into(),
        counters: Some(Counters {
            lost_return: 3,
            ..Counters::default()
        }),
        rtt: Some((&rtt).into()),
        ..Window::default()
    };
    let row = WindowRow::new(origin(), Peer::new(9, None), &window).expect("it is sound");
    for (name, expected) in [
        ("source", r#"Some(Text("n1"))"#),
        ("source_zone", "Some(Absent)"),
        ("start_id", r#"Some(Text("00000000000000ab"))"#),
        ("peer", "Some(Absent)"),
        ("peer_index", "Some(Number(9))"),
        ("peer_state", r#"Some(Text("failed"))"#),
        ("end_unix_ns", "Some(Number(9223372036854775807))"),
        ("lost_return", "Some(Number(3))"),
        ("lost_forward", "Some(Number(0))"),
        ("rtt_count", "Some(Number(4))"),
        ("rtt_min_ns", "Some(Number(5))"),
        ("rtt_bucket_first_ns", "Some(List([5, 40, 992]))"),
        ("rtt_bucket_last_ns", "Some(List([5, 41, 1023]))"),
        ("rtt_bucket_count", "Some(List([1, 2, 1]))"),
        ("user_rtt_min_ns", "Some(Absent)"),
        ("user_rtt_bucket_count", "Some(List([]))"),
        ("host_suspect", "Some(Flag(false))"),
    ] {
        assert_eq!(value(WINDOW_COLUMNS, &row, name), expected, "{name}");
    }
}

#[test]
fn a_window_with_a_broken_histogram_is_no_row() {
    let window = Window {
        user_rtt: Some(proto::Histogram {
            count: 1,
            ..proto::Histogram::default()
        }),
        ..Window::default()
    };
    assert!(WindowRow::new(origin(), Peer::new(9, None), &window).is_err());
}

#[test]
fn a_probe_has_its_values_in_the_columns_of_their_names() {
    let record = ProbeRecord {
        peer: 9,
        sent_unix_us: 77,
        sequence: 5,
        outcome: Outcome::Late { rtt_ns: 8 },
        source_port: 50_000,
        hops_forward: None,
        hops_return: Some(0),
        method: Method::default(),
        suspect_reasons: 0,
        class: ProbeClass {
            dscp: Some(46),
            packet_bytes: 1_500,
        },
    };
    let row = ProbeRow {
        origin: origin(),
        peer: Peer::new(9, None),
        record,
    };
    for (name, expected) in [
        ("sent_unix_us", "Some(Number(77))"),
        ("outcome", r#"Some(Text("late"))"#),
        ("rtt_ns", "Some(Number(8))"),
        ("hops_forward", "Some(Absent)"),
        ("hops_return", "Some(Number(0))"),
        ("mode", "Some(Absent)"),
        ("dscp", "Some(Number(46))"),
        ("packet_bytes", "Some(Number(1500))"),
    ] {
        assert_eq!(value(PROBE_COLUMNS, &row, name), expected, "{name}");
    }
}

/// Readers write these names into their queries.
#[test]
fn the_documentation_lists_the_columns_in_their_order_with_their_types() {
    let text = include_str!("../../../docs/console.md");
    assert_eq!(documented(text, "### Windows"), listed(WINDOW_COLUMNS));
    assert_eq!(documented(text, "### Probes"), listed(PROBE_COLUMNS));
}

#[test]
fn no_name_stands_for_two_columns() {
    let names: BTreeSet<_> = WINDOW_COLUMNS.iter().map(|column| column.name).collect();
    assert_eq!(names.len(), WINDOW_COLUMNS.len());
    let names: BTreeSet<_> = PROBE_COLUMNS.iter().map(|column| column.name).collect();
    assert_eq!(names.len(), PROBE_COLUMNS.len());
}

fn listed<R>(columns: &[Column<R>]) -> String {
    columns.iter().fold(String::new(), |mut lines, column| {
        let _ = writeln!(lines, "{} {:?}", column.name, column.kind);
        lines
    })
}

/// Rows of the table below a heading: the names in code marks of the first cell, each with the type of the second.
fn documented(text: &str, heading: &str) -> String {
    let below = text.lines().skip_while(|line| *line != heading).skip(1);
    let section = below.take_while(|line| !line.starts_with('#'));
    let mut lines = String::new();
    for row in section.filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').collect();
        let kind = match cells[2].trim() {
            "text" => "Text",
            "number" => "Number",
            "flag" => "Flag",
            "list" => "List",
            other => other,
        };
        for name in cells[1].split('`').skip(1).step_by(2) {
            let _ = writeln!(lines, "{name} {kind}");
        }
    }
    lines
}
