use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn batch(source: &str, start_id: u64, sequence: u64) -> Batch {
    Batch {
        source: source.to_owned(),
        start_id,
        sequence,
        ..Batch::default()
    }
}

#[test]
fn a_batch_is_new_once() {
    let mut repeats = Repeats::new();
    assert!(repeats.is_new(&batch("n1", 7, 0), 1));
    assert!(!repeats.is_new(&batch("n1", 7, 0), 2));
}

#[test]
fn source_start_and_sequence_together_make_a_batch() {
    let mut repeats = Repeats::new();
    for other in [
        batch("n1", 7, 0),
        batch("n2", 7, 0),
        batch("n1", 8, 0),
        batch("n1", 7, 1),
        batch("n1", 7, u64::MAX),
        batch("", 7, 0),
    ] {
        assert!(repeats.is_new(&other, 1), "{other:?}");
    }
}

#[test]
fn a_repeat_is_known_for_the_whole_window() {
    // Wherever in a window it is met: near its ends and in its middle.
    for met_ms in [1, WINDOW_MS - 1, WINDOW_MS, 3 * WINDOW_MS / 2] {
        let mut repeats = Repeats::new();
        repeats.is_new(&batch("other", 1, 0), 0);
        assert!(repeats.is_new(&batch("n1", 7, 0), met_ms));
        // Others move the windows on meanwhile.
        for step in 1..10 {
            repeats.is_new(&batch("other", 1, step), met_ms + step * WINDOW_MS / 10);
        }
        let last_ms = met_ms + WINDOW_MS - 1;
        assert!(
            !repeats.is_new(&batch("n1", 7, 0), last_ms),
            "met at {met_ms}"
        );
    }
}

#[test]
fn what_is_older_than_two_windows_is_forgotten() {
    let mut repeats = Repeats::new();
    let begin_ms = 1_800_000_000_000;
    repeats.is_new(&batch("n1", 7, 0), begin_ms);
    for step in 1..=4 {
        repeats.is_new(&batch("n2", 1, step), begin_ms + step * WINDOW_MS / 2);
    }
    assert_eq!(repeats.starts(), 1);
    assert_eq!(repeats.forgotten(), 0);
    assert!(repeats.is_new(&batch("n1", 7, 0), begin_ms + 2 * WINDOW_MS));
}

#[test]
fn one_message_dated_far_ahead_makes_nothing_forgotten() {
    let mut repeats = Repeats::new();
    let begin_ms = 1_800_000_000_000;
    repeats.is_new(&batch("n1", 7, 0), begin_ms);
    repeats.is_new(&batch("n2", 1, 0), u64::MAX);
    assert!(!repeats.is_new(&batch("n1", 7, 0), begin_ms + 1));
    repeats.is_new(&batch("n2", 1, 1), u64::MAX);
    assert!(!repeats.is_new(&batch("n1", 7, 0), begin_ms + 2));
}

#[test]
fn a_source_without_gaps_is_one_run_however_much_it_sends() {
    let mut repeats = Repeats::new();
    for sequence in 0..10_000 {
        assert!(repeats.is_new(&batch("n1", 7, sequence), sequence));
    }
    assert_eq!(
        repeats.young.values().next().map(|runs| runs.0.len()),
        Some(1)
    );
}

#[test]
fn more_gaps_than_there_is_room_for_cost_the_oldest_runs_only() {
    let mut repeats = Repeats::new();
    let sequences = |count: usize| (0..count as u64).map(|number| number * 2);
    for sequence in sequences(MAX_RUNS + 3) {
        repeats.is_new(&batch("n1", 7, sequence), sequence);
    }
    assert_eq!(repeats.forgotten(), 3);
    let now_ms = 2 * MAX_RUNS as u64 + 10;
    for sequence in sequences(MAX_RUNS + 3).skip(3) {
        assert!(!repeats.is_new(&batch("n1", 7, sequence), now_ms));
    }
    assert!(repeats.is_new(&batch("n1", 7, 0), now_ms));
}

#[test]
fn more_starts_than_there_is_room_for_are_forgotten_and_counted() {
    let mut repeats = Repeats::with_bounds(WINDOW_MS, 4);
    for start_id in 0..1_000 {
        assert!(repeats.is_new(&batch("n1", start_id, 0), 1));
        assert!(repeats.starts() <= 8);
    }
    assert!(repeats.forgotten() > 900);
    assert!(!repeats.is_new(&batch("n1", 999, 0), 1));
    assert!(repeats.is_new(&batch("n1", 0, 0), 1));
}

#[test]
fn a_start_that_is_met_again_survives_the_want_of_room() {
    let mut repeats = Repeats::with_bounds(WINDOW_MS, 4);
    repeats.is_new(&batch("steady", 1, 0), 1);
    for start_id in 0..1_000 {
        repeats.is_new(&batch("flood", start_id, 0), 1);
        assert!(
            !repeats.is_new(&batch("steady", 1, 0), 1),
            "after {start_id}"
        );
    }
}

proptest! {
    /// Against a memory without bounds, while gaps are few and time stays within the window.
    #[test]
    fn within_the_window_it_agrees_with_a_memory_of_everything(
        events in prop::collection::vec((0..4_u64, 0..40_u64, 0..1_000_u64), 0..400),
    ) {
        let mut repeats = Repeats::new();
        let mut all = HashSet::new();
        let mut log_ms = 1_800_000_000_000;
        for (start_id, sequence, pause_ms) in events {
            log_ms += pause_ms;
            let is_new = repeats.is_new(&batch("n1", start_id, sequence), log_ms);
            prop_assert_eq!(is_new, all.insert((start_id, sequence)));
        }
        prop_assert_eq!(repeats.forgotten(), 0);
    }

    #[test]
    fn runs_stay_apart_and_in_order(
        sequences in prop::collection::vec(prop_oneof![0..200_u64, u64::MAX - 5..=u64::MAX], 0..300),
    ) {
        let mut runs = Runs::default();
        let mut all = HashSet::new();
        for sequence in sequences {
            prop_assert_eq!(runs.add(sequence, 0), all.insert(sequence));
            for pair in runs.0.windows(2) {
                prop_assert!(pair[0].last < u64::MAX && pair[0].last + 1 < pair[1].first);
            }
        }
        let held: u64 = runs.0.iter().map(|run| run.last - run.first + 1).sum();
        prop_assert_eq!(held, all.len() as u64);
    }

    #[test]
    fn memory_stays_within_its_bounds_whatever_comes(
        events in prop::collection::vec((any::<u8>(), any::<u16>(), any::<u32>()), 0..600),
    ) {
        let mut repeats = Repeats::with_bounds(1_000, 8);
        for (start_id, sequence, log_ms) in events {
            repeats.is_new(&batch("n1", start_id.into(), sequence.into()), log_ms.into());
            prop_assert!(repeats.starts() <= 16);
            let runs = repeats.young.values().chain(repeats.old.values());
            prop_assert!(runs.into_iter().all(|runs| runs.0.len() <= MAX_RUNS));
        }
    }
}
