use std::collections::BTreeMap;

use super::*;
use crate::intake::Faults;
use crate::matrix::TotalFigures;
use crate::rollup::Dropped;

fn group(name: &str, states: &[(State, u64)]) -> Group {
    let nodes: BTreeMap<_, _> = states.iter().copied().collect();
    Group {
        name: name.to_owned(),
        state: nodes.keys().copied().max().unwrap_or(State::Alive),
        nodes,
    }
}

fn pair(from: &str, to: &str, p50_ns: u64, p99_ns: u64, lost: u64) -> PairFigures {
    PairFigures {
        from: from.to_owned(),
        to: to.to_owned(),
        state: State::Alive,
        figures: TotalFigures {
            received: 100 - lost,
            lost,
            loss: Some(lost as f64 / 100.0),
            p50_ns: Some(p50_ns),
            p99_ns: Some(p99_ns),
            ..TotalFigures::default()
        },
    }
}

fn picture(groups: Vec<Group>, cells: Vec<PairFigures>) -> Picture {
    Picture {
        by: By::Node,
        now_unix_ms: 1_800_000_000_000,
        span_s: Some(60.0),
        groups,
        cells,
        total: TotalFigures {
            received: 199,
            lost: 1,
            loss: Some(0.005),
            p50_ns: Some(4_000),
            p99_ns: Some(1_500_000),
            modes: vec!["xdp", "tc"],
            ..TotalFigures::default()
        },
        missing_batches: 0,
        lost_by_source: BTreeMap::new(),
        faults: Faults::default(),
        dropped: Dropped::default(),
    }
}

#[test]
fn the_matrix_has_a_row_per_source_and_a_column_per_destination() {
    let groups = vec![
        group("n1", &[(State::Alive, 1)]),
        group("n2", &[(State::Failed, 1)]),
    ];
    let cells = vec![
        pair("n1", "n2", 4_000, 1_500_000, 0),
        pair("n2", "n1", 41_000, 50_000, 1),
    ];
    let lines = whole(&picture(groups, cells), false);
    assert_eq!(
        lines,
        [
            "08:00:00 nodes 1 alive, 1 failed; 2 pairs xdp, tc: P50 4.0 P99 1.5ms µs, 199 round trips, 1 lost (0.50%)",
            "P50, P99 (µs) and loss of the last 60 s, from the left to the top, by node",
            "from\\to          n1            n2 failed     ",
            "n1               ·            4.0 1.5ms    0%",
            "n2 failed    41    50    1%        ·         ",
        ]
    );
}

#[test]
fn colours_say_how_bad_it_is() {
    let paint = |pair| cell(Some(&pair)).1.paint("x", true);
    assert_eq!(paint(pair("a", "b", 4_000, 5_000, 0)), "\x1b[32mx\x1b[0m");
    assert_eq!(
        paint(pair("a", "b", 4_000, 2_000_000, 0)),
        "\x1b[33mx\x1b[0m"
    );
    assert_eq!(paint(pair("a", "b", 4_000, 5_000, 3)), "\x1b[31mx\x1b[0m");
}

#[test]
fn a_rack_says_how_many_of_its_nodes_are_not_well() {
    let rack = group("z1/r1", &[(State::Alive, 39), (State::Silent, 1)]);
    assert_eq!(label(&rack), "z1/r1 1/40 silent");
    assert_eq!(shortened("a-name-of-many-letters"), "a-name-of-many-…");
}

#[test]
fn a_mesh_too_wide_for_a_terminal_becomes_a_list_of_its_worst_pairs() {
    let groups: Vec<_> = (10..40)
        .map(|number| group(&format!("n{number}"), &[(State::Alive, 1)]))
        .collect();
    let cells = vec![
        pair("n10", "n11", 4_000, 5_000, 0),
        pair("n10", "n12", 4_000, 9_000, 0),
        pair("n10", "n13", 4_000, 5_000, 2),
    ];
    let lines = drawing(&picture(groups, cells), false);
    assert_eq!(
        lines[2..],
        [
            "the worst of 3 pairs:",
            "   4.0   5.0    2%  n10 → n13",
            "   4.0   9.0    0%  n10 → n12",
            "   4.0   5.0    0%  n10 → n11",
        ]
    );
}

#[test]
fn more_pairs_than_can_be_kept_are_said_with_what_to_do() {
    let mut crowded = picture(Vec::new(), Vec::new());
    crowded.dropped.crowded_windows = 7;
    crowded.missing_batches = 2;
    let lines = warnings(&crowded);
    assert_eq!(lines.len(), 2);
    assert!(
        lines[0].contains("7 windows left out; use --by rack"),
        "{lines:?}"
    );
}

#[test]
fn a_picture_is_drawn_over_the_one_before() {
    let mut screen = Screen {
        output: Output::new(),
        terminal: true,
        colour: false,
        drawn_lines: 0,
        next_line: Deadline::after(Duration::ZERO),
    };
    let lines = |count| vec!["x".to_owned(); count];
    assert!(!screen.redrawn(&lines(3)).contains('A'));
    assert!(screen.redrawn(&lines(2)).contains("\x1b[3A"));
    assert!(screen.redrawn(&lines(2)).contains("\x1b[2A"));
}
