//! Steps against noise, and the machine's own clocks.

use std::sync::mpsc;
use std::time::Duration;

use super::*;

const OFFSET: u64 = 3_900_000_000 * NANOS_PER_SEC;

fn reading(offset_ns: u64) -> Reading {
    Reading {
        offset_ns,
        uncertainty_ns: 50,
        bound_ns: 1_500_000,
        synchronised: true,
    }
}

fn published(tracker: &mut ClockTracker) -> Vec<(u32, u64)> {
    std::iter::from_fn(|| tracker.poll_state())
        .map(|state| (state.generation, state.offset_ns - OFFSET))
        .collect()
}

fn settled() -> ClockTracker {
    let mut tracker = ClockTracker::new(&reading(OFFSET));
    assert_eq!(published(&mut tracker), [(2, 0)]);
    tracker
}

#[test]
fn noise_of_measuring_changes_nothing() {
    let mut tracker = settled();
    for noise in [0, 40, 900, 1_050] {
        tracker.handle_reading(&reading(OFFSET + noise));
        tracker.handle_reading(&reading(OFFSET - noise));
    }
    assert_eq!(published(&mut tracker), []);
    assert_eq!(tracker.state().offset_ns, OFFSET);
}

#[test]
fn a_step_is_announced_before_it_happens_and_closed_after() {
    let mut tracker = settled();
    tracker.handle_reading(&reading(OFFSET + 5_000));
    assert_eq!(published(&mut tracker), [(3, 0), (3, 5_000), (4, 5_000)]);
    tracker.handle_reading(&reading(OFFSET));
    assert_eq!(published(&mut tracker), [(5, 5_000), (5, 0), (6, 0)]);
}

#[test]
fn a_growing_error_bound_is_no_step() {
    let mut tracker = settled();
    tracker.handle_reading(&Reading {
        bound_ns: 9_000_000,
        ..reading(OFFSET)
    });
    assert_eq!(published(&mut tracker), [(2, 0)]);
    assert!(tracker.state().error_estimate.bound_ns() >= Some(9_000_000));
}

#[test]
fn a_poor_reading_is_not_taken_for_a_step() {
    let mut tracker = settled();
    tracker.handle_reading(&Reading {
        uncertainty_ns: 2_000_000,
        ..reading(OFFSET + 1_900_000)
    });
    assert_eq!(published(&mut tracker), []);
}

#[test]
fn a_new_agent_goes_on_with_the_generation_it_finds() {
    let before = ClockState {
        generation: 8,
        ..settled().state()
    };
    let mut same = ClockTracker::resume(before, &reading(OFFSET + 30));
    assert_eq!(published(&mut same), []);
    assert_eq!(same.state(), before);
    let mut stepped = ClockTracker::resume(before, &reading(OFFSET + 90_000));
    assert_eq!(published(&mut stepped), [(9, 0), (9, 90_000), (10, 90_000)]);
}

#[test]
fn a_step_that_an_earlier_agent_left_unfinished_is_finished() {
    let torn = ClockState {
        generation: 9,
        ..settled().state()
    };
    let mut tracker = ClockTracker::resume(torn, &reading(OFFSET));
    assert_eq!(published(&mut tracker), [(9, 0), (9, 0), (10, 0)]);
}

#[test]
fn the_wall_clock_of_this_machine_is_its_monotonic_clock_and_the_offset() {
    let state = ClockTracker::new(&read()).state();
    let (mono, unix) = (now(), unix_now_ns());
    let apart = state.wall(mono).since(NtpTime::from_unix_nanos(unix));
    assert!(apart.abs() < 5_000_000, "{apart} ns");
    assert!(state.mono_of_unix(unix).since(mono) < 5_000_000);
}

#[test]
fn the_kernel_says_how_wrong_its_clock_may_be() {
    let kernel = kernel_clock().expect("adjtimex needs no privilege to read");
    assert!(kernel.bound_ns <= 17_000_000_000, "{kernel:?}");
}

#[test]
fn the_first_state_is_published_before_the_watch_begins() {
    let (sender, states) = mpsc::channel();
    let watch = ClockWatch::start(None, move |state| _ = sender.send(state)).expect("a timer");
    let first = states.try_recv().expect("published already");
    assert_eq!(first.offset_ns, watch.clock().state().offset_ns);
    drop(watch);
    // The thread drops its end of the channel when it ends.
    while states.recv_timeout(Duration::from_secs(5)) != Err(mpsc::RecvTimeoutError::Disconnected) {
    }
}
