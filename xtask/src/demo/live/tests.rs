use super::*;
use crate::demo::fixture::{options, window};
use dt_feed::proto::{Counters, Mode};

fn tally() -> Tally {
    let mut tally = Tally::default();
    let mut lossy = window(0, 0, Mode::Tc, &[41_000; 9]);
    lossy.counters = Some(Counters {
        lost_return: 1,
        sent: 10,
        ..lossy.counters.unwrap_or_default()
    });
    tally
        .add("n1", "n2", &window(0, 0, Mode::Xdp, &[4_000; 10]))
        .expect("a sound window");
    tally.add("n2", "n1", &lossy).expect("a sound window");
    tally
}

fn scene(tally: &Tally) -> Vec<String> {
    let options = options(&["--nodes", "3"]);
    matrix(
        &Scene {
            options: &options,
            tally,
            phase: "3 s of 20".to_owned(),
        },
        false,
    )
}

#[test]
fn the_matrix_has_a_row_per_source_and_a_column_per_destination() {
    let lines = scene(&tally());
    assert_eq!(
        lines[1],
        "3 s of 20: 2 of 6 pairs answered (1 xdp, 1 tc), P50 4.0 P99 41 µs, 19 round trips, 1 lost"
    );
    assert_eq!(
        lines[3],
        "from\\to        n1                n2                n3        "
    );
    assert_eq!(
        lines[4],
        "n1             ·            4.0   4.0    0%        ·         "
    );
    assert_eq!(
        lines[5],
        "n2         41    41   10%        ·                 ·         "
    );
    assert_eq!(lines.len(), 7);
}

#[test]
fn four_hosts_fit_a_terminal_of_80_columns() {
    let options = options(&["--nodes", "4"]);
    let lines = matrix(
        &Scene {
            options: &options,
            tally: &tally(),
            phase: String::new(),
        },
        false,
    );
    assert!(
        lines[3..].iter().all(|line| line.chars().count() <= 80),
        "{lines:?}"
    );
}

#[test]
fn loss_is_red_and_slow_is_yellow() {
    let tally = tally();
    assert!(matches!(cell(tally.pair("n1", "n2")).1, Ink::Green));
    assert!(matches!(cell(tally.pair("n2", "n1")).1, Ink::Red));
    assert!(matches!(cell(None).1, Ink::Dim));
    let mut slow = Tally::default();
    slow.add("n1", "n2", &window(0, 0, Mode::Xdp, &[2_000_000]))
        .expect("a sound window");
    assert!(matches!(cell(slow.pair("n1", "n2")).1, Ink::Yellow));
}

#[test]
fn a_picture_is_drawn_over_the_one_before() {
    let mut screen = Screen {
        dark: false,
        terminal: true,
        colour: false,
        drawn_lines: 0,
        next_line_s: 0,
        watch: Stopwatch::start(),
    };
    let lines = ["a".to_owned(), "b".to_owned()];
    assert_eq!(
        screen.redrawn(&lines),
        "\x1b[?7l\x1b[2Ka\n\x1b[2Kb\n\x1b[?7h"
    );
    assert_eq!(
        screen.redrawn(&lines),
        "\x1b[?7l\x1b[2A\r\x1b[2Ka\n\x1b[2Kb\n\x1b[?7h"
    );
}
