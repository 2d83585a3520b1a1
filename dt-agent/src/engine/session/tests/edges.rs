//! Beginnings and ends: sending that fails, peers that leave, windows, memory.

use super::desk::{Desk, at};
use crate::engine::session::Outcome::{Departed, LostForward, LostUnknown, Received};
use crate::engine::session::SessionConfig;

#[test]
fn the_failed_end_of_a_batch_leaves_no_gap_in_the_numbers() {
    for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
        let mut desk = Desk::admitted();
        desk.send_many(1, 3);
        for seq in order {
            desk.session.handle_send_failed(seq, at(1));
        }
        assert_eq!(desk.session.next_seq(), 1, "{order:?}");
        let counters = desk.counters(1);
        assert_eq!(
            (counters.sent, counters.send_failed, counters.asked()),
            (1, 3, 4)
        );
        assert_eq!(desk.session.in_flight(), 0);
        desk.send(2);
        desk.exchange(1);
        assert_eq!(desk.outcomes(5000), [Received, Received]);
    }
}

#[test]
fn a_probe_that_failed_in_the_middle_of_a_batch_is_not_lost() {
    let mut desk = Desk::admitted();
    desk.send_many(1, 3);
    desk.session.handle_send_failed(2, at(1));
    desk.session.handle_send_failed(2, at(1));
    desk.exchange(1);
    desk.exchange(3);
    let counters = desk.counters(5000);
    assert_eq!(
        (
            counters.sent,
            counters.received,
            counters.outcomes(),
            counters.send_failed
        ),
        (3, 3, 3, 1)
    );
}

#[test]
fn a_failure_reported_after_the_window_is_not_loss_either() {
    let mut desk = Desk::admitted();
    desk.send(1);
    desk.session.take_window(at(1));
    desk.session.handle_send_failed(1, at(2));
    assert_eq!(desk.outcomes(5000), [Received, Departed]);
}

#[test]
fn skipped_probes_were_asked_for_but_not_sent() {
    let mut desk = Desk::admitted();
    desk.session.handle_skipped(7);
    let counters = desk.counters(1);
    assert_eq!(
        (counters.skipped, counters.sent, counters.asked()),
        (7, 1, 8)
    );
}

#[test]
fn what_is_on_its_way_when_a_peer_leaves_is_not_lost() {
    let mut desk = Desk::admitted();
    desk.send_many(1, 2);
    desk.exchange(2);
    desk.send(1_300);
    // Probe 1 is overdue and known to be lost, probe 3 is on its way.
    desk.session.handle_peer_gone(at(1_400));
    assert_eq!(
        desk.outcomes(1_400),
        [Received, LostForward, Received, Departed]
    );
    assert_eq!(desk.session.poll_timeout(), None);
}

#[test]
fn at_the_end_what_may_still_come_is_in_flight_and_what_is_overdue_is_lost() {
    let mut desk = Desk::admitted();
    desk.send(1);
    desk.send(1_000);
    let report = desk.session.finish(at(1_500));
    assert_eq!((report.in_flight, report.counters.lost_unknown), (1, 1));
    assert_eq!((report.counters.sent, report.counters.outcomes()), (3, 2));
    assert_eq!(desk.outcomes(0), [Received, LostUnknown]);
}

#[test]
fn the_books_of_each_window_balance() {
    let mut desk = Desk::admitted();
    desk.send_many(1, 3);
    desk.exchange(1);
    let first = desk.session.take_window(at(4));
    assert_eq!(
        (
            first.counters.sent,
            first.counters.outcomes(),
            first.in_flight
        ),
        (4, 2, 2)
    );
    desk.exchange(2);
    desk.exchange(3);
    let second = desk.session.take_window(at(5));
    assert_eq!(
        (
            second.counters.sent,
            second.counters.outcomes(),
            second.in_flight
        ),
        (0, 2, 0)
    );
    assert_eq!((second.start, second.end), (first.end, at(5)));
}

#[test]
fn beyond_its_memory_a_session_gives_up_the_oldest_probe() {
    let max_remembered = 10;
    let mut desk = Desk::new(SessionConfig {
        max_remembered,
        admission_grace_ns: 0,
        ..SessionConfig::default()
    });
    desk.send_many(0, 15);
    assert_eq!(desk.session.in_flight(), 10);
    desk.exchange(14);
    let counters = desk.counters(15);
    assert_eq!(
        (
            counters.crowded_out,
            counters.lost_unknown,
            counters.received
        ),
        (5, 5, 1)
    );
    // Decided probes are forgotten first, and that costs nothing.
    for seq in 5..14 {
        desk.exchange(seq);
    }
    desk.send_many(16, 10);
    assert_eq!(desk.counters(30).crowded_out, 0);
}

#[test]
fn records_that_nobody_fetches_are_dropped_and_counted() {
    let mut desk = Desk::new(SessionConfig::default());
    for ms in 0..1_005 {
        let seq = desk.send(ms);
        desk.exchange(seq);
    }
    assert_eq!(desk.counters(1_100).records_dropped, 5);
    assert_eq!(desk.session.poll_record().map(|record| record.seq), Some(5));
}

#[test]
fn an_idle_session_wants_nothing() {
    let mut desk = Desk::admitted();
    assert_eq!(desk.session.poll_timeout(), None);
    desk.session.handle_timeout(at(100_000));
    assert_eq!(desk.counters(100_000).outcomes(), 1);
}
