//! What becomes of a probe that is missing.

use dt_common::event::{EventFlags, ReplyEvent};

use super::desk::{Desk, at};
use crate::engine::session::Outcome::{
    CorruptForward, CorruptReturn, Late, LostForward, LostReturn, LostUnknown, NotAdmitted,
    Overrun, PeerRestarted, Received, Refused,
};
use crate::engine::session::{Outcome, SessionConfig};

#[test]
fn a_missing_probe_that_a_later_reply_names_was_lost_on_its_way_back() {
    let mut desk = Desk::admitted();
    desk.send_many(1, 3);
    desk.lose_reply(1);
    desk.exchange(3);
    assert_eq!(
        desk.outcomes(3000),
        [Received, LostReturn, LostForward, Received]
    );
}

#[test]
fn a_name_in_a_later_reply_overrides_its_absence_before() {
    let mut desk = Desk::admitted();
    desk.send_many(1, 3);
    desk.exchange(2);
    desk.lose_reply(1);
    assert_eq!(desk.outcomes(1000), [Received, Received]);
    desk.exchange(3);
    assert_eq!(desk.outcomes(3000), [LostReturn, Received]);
}

#[test]
fn nothing_is_decided_before_the_deadline_and_the_time_to_settle() {
    let mut desk = Desk::admitted();
    desk.send_many(1, 2);
    desk.exchange(2);
    assert_eq!(desk.session.poll_timeout(), Some(at(1 + 1000 + 200)));
    desk.session.handle_timeout(at(1200));
    assert_eq!(desk.session.in_flight(), 1);
    desk.session.handle_timeout(at(1201));
    assert_eq!(desk.session.in_flight(), 0);
    assert_eq!(desk.session.poll_timeout(), None);
}

#[test]
fn at_one_probe_in_ten_seconds_the_next_reply_still_decides() {
    let mut desk = Desk::admitted();
    let seq = desk.send(10_000);
    desk.lose_reply(seq);
    desk.send(20_000);
    desk.wait(20_000);
    assert_eq!(desk.session.in_flight(), 2);
    desk.exchange(2);
    // The reply itself has to settle.
    desk.session.handle_timeout(at(20_100));
    assert_eq!(desk.session.in_flight(), 1);
    assert_eq!(desk.outcomes(20_500), [Received, LostReturn, Received]);
}

#[test]
fn without_a_later_reply_a_probe_is_given_up_after_three_pauses_or_a_second() {
    for (pause_ms, patience_ms) in [(10, 1000), (600, 1800), (10_000, 30_000)] {
        let mut desk = Desk::admitted();
        let seq = desk.send(pause_ms);
        let end = pause_ms + 1000 + patience_ms + 200;
        assert_eq!(
            desk.session.poll_timeout(),
            Some(at(end)),
            "pause {pause_ms}"
        );
        desk.session.handle_timeout(at(end - 1));
        assert_eq!(desk.session.in_flight(), 1, "probe {seq}");
        assert_eq!(desk.outcomes(end), [Received, LostUnknown]);
    }
}

#[test]
fn the_planned_pause_counts_before_one_was_seen() {
    let interval_ns = 5_000_000_000;
    let config = SessionConfig {
        interval_ns,
        admission_grace_ns: 0,
        ..SessionConfig::default()
    };
    let mut desk = Desk::new(config);
    desk.send(0);
    assert_eq!(desk.session.poll_timeout(), Some(at(1000 + 15_000 + 200)));
}

#[test]
fn what_the_reflector_threw_away_is_not_lost_on_the_way_there() {
    let mut desk = Desk::admitted();
    desk.send_many(1, 4);
    desk.reflector.refused += 1;
    desk.reflector.corrupt += 1;
    desk.exchange(4);
    assert_eq!(
        desk.outcomes(3000),
        [Received, Refused, CorruptForward, LostForward, Received]
    );
}

#[test]
fn what_the_reflector_threw_away_explains_only_what_was_sent_between_two_answers() {
    let mut desk = Desk::admitted();
    desk.send_many(1, 4);
    desk.reflector.corrupt += 1; // A copy of probe 1, which itself arrives.
    desk.exchange(1);
    desk.exchange(2);
    // Probe 3 is lost.
    desk.exchange(4);
    assert_eq!(
        desk.outcomes(3000),
        [Received, Received, Received, LostForward, Received]
    );
}

#[test]
fn where_requests_overtake_each_other_the_bounds_are_wider() {
    let mut desk = Desk::admitted();
    desk.send_many(1, 6);
    desk.exchange(2);
    desk.exchange(1); // Overtaken by one.
    desk.exchange(4);
    desk.reflector.corrupt += 1; // Probe 3, overtaken by probe 4.
    desk.exchange(5);
    desk.exchange(6);
    assert_eq!(
        desk.outcomes(3000),
        [
            Received,
            Received,
            Received,
            CorruptForward,
            Received,
            Received,
            Received
        ]
    );
}

#[test]
fn what_this_host_threw_away_is_not_lost_on_the_way_back() {
    let mut desk = Desk::admitted();
    desk.session.handle_local_counts(0, 0, at(0));
    desk.send_many(1, 4);
    for seq in 1..4 {
        desk.lose_reply(seq);
    }
    desk.exchange(4);
    desk.session.handle_local_counts(1, 1, at(100));
    assert_eq!(
        desk.outcomes(3000),
        [Received, Overrun, CorruptReturn, LostReturn, Received]
    );
}

#[test]
fn what_this_host_threw_away_explains_only_what_was_sent_shortly_before() {
    let mut desk = Desk::admitted();
    desk.send(100);
    desk.lose_reply(1);
    desk.session.handle_local_counts(0, 0, at(900));
    desk.session.handle_local_counts(7, 7, at(1000));
    desk.send(1100);
    desk.lose_reply(2);
    desk.session.handle_local_counts(7, 7, at(1200));
    desk.send(1200);
    desk.exchange(3);
    assert_eq!(
        desk.outcomes(4000),
        [Received, LostReturn, LostReturn, Received]
    );
}

#[test]
fn a_full_ring_explains_silence_too() {
    let mut desk = Desk::admitted();
    desk.send(10);
    desk.lose_reply(1);
    desk.session.handle_local_counts(0, 1, at(100));
    assert_eq!(desk.outcomes(4000), [Received, Overrun]);
}

#[test]
fn local_counters_begin_anywhere_and_wrap() {
    let mut desk = Desk::admitted();
    desk.session.handle_local_counts(u32::MAX, 5, at(0));
    desk.send_many(1, 2);
    desk.lose_reply(1);
    desk.exchange(2);
    desk.session.handle_local_counts(0, 5, at(50));
    assert_eq!(desk.outcomes(3000), [Received, CorruptReturn, Received]);
}

#[test]
fn a_gap_that_no_bitmap_covers_is_split_by_count() {
    let mut desk = Desk::admitted();
    desk.send_many(1, 200);
    for seq in (1..200).filter(|seq| seq % 4 == 0) {
        desk.lose_reply(seq);
    }
    desk.exchange(200);
    let outcomes = desk.outcomes(5000);
    let count = |wanted| {
        outcomes
            .iter()
            .filter(|outcome| **outcome == wanted)
            .count()
    };
    assert_eq!(
        (count(LostReturn), count(LostForward), count(LostUnknown)),
        (49, 150, 0)
    );
}

#[test]
fn what_was_given_up_blindly_makes_a_split_by_count_honest() {
    // 300 probes in silence; the first 100 are given up. Then the count says that 50 of all were seen: whose?
    let mut desk = Desk::admitted();
    desk.send_many(1, 100);
    desk.wait(2_310);
    assert_eq!(desk.session.in_flight(), 0);
    desk.send_many(2_400, 200);
    for seq in 101..151 {
        desk.lose_reply(seq);
    }
    desk.exchange(300);
    let outcomes = desk.outcomes(6000);
    let count = |wanted| {
        outcomes
            .iter()
            .filter(|outcome| **outcome == wanted)
            .count()
    };
    assert_eq!((count(LostUnknown), count(LostForward)), (100 + 136, 63));
}

#[test]
fn a_restarted_peer_takes_nothing_for_lost() {
    let mut desk = Desk::admitted();
    desk.send_many(1, 5);
    desk.lose_reply(1);
    desk.exchange(3);
    desk.lose_reply(4); // Nobody will ever say so.
    desk.reflector.restart(2);
    desk.send(6);
    desk.exchange(6);
    assert_eq!(
        desk.outcomes(4000),
        [
            Received,
            LostReturn,
            LostForward,
            Received,
            PeerRestarted,
            PeerRestarted,
            Received
        ]
    );
}

#[test]
fn after_a_restart_the_new_counters_decide() {
    let mut desk = Desk::admitted();
    desk.reflector.restart(2);
    desk.send_many(1, 5);
    desk.exchange(1);
    desk.lose_reply(3);
    desk.reflector.corrupt += 1;
    desk.exchange(5);
    assert_eq!(
        desk.outcomes(4000),
        [
            Received,
            Received,
            CorruptForward,
            LostReturn,
            LostForward,
            Received
        ]
    );
}

#[test]
fn a_straggler_from_before_a_restart_is_received_and_still_names_others() {
    let mut desk = Desk::admitted();
    desk.send_many(1, 4);
    desk.lose_reply(1);
    let straggler = desk.answer(2);
    desk.reflector.restart(2);
    desk.exchange(4);
    desk.deliver(&straggler);
    assert_eq!(
        desk.outcomes(4000),
        [Received, LostReturn, Received, PeerRestarted, Received]
    );
}

#[test]
fn the_old_counters_split_a_gap_before_they_are_forgotten() {
    let mut desk = Desk::admitted();
    desk.send_many(1, 200);
    for seq in 1..11 {
        desk.lose_reply(seq);
    }
    desk.exchange(200);
    desk.reflector.restart(2);
    desk.send(201);
    desk.exchange(201);
    let outcomes = desk.outcomes(5000);
    let count = |wanted| {
        outcomes
            .iter()
            .filter(|outcome| **outcome == wanted)
            .count()
    };
    assert_eq!(
        (count(LostReturn), count(LostForward), count(PeerRestarted)),
        (10, 189, 0)
    );
}

#[test]
fn before_the_peer_has_admitted_us_nothing_is_lost_on_the_way_there() {
    let mut desk = Desk::new(SessionConfig::default());
    desk.send_many(0, 100);
    desk.lose_reply(97); // Seen: its reply is really lost.
    desk.exchange(98);
    let outcomes = desk.outcomes(4000);
    let count = |wanted: Outcome| {
        outcomes
            .iter()
            .filter(|outcome| **outcome == wanted)
            .count()
    };
    assert_eq!(
        (
            count(NotAdmitted),
            count(LostReturn),
            count(Received),
            outcomes.len()
        ),
        (97, 1, 1, 100)
    );
    assert_eq!(outcomes[99], LostUnknown, "sent after the admitted one");
}

#[test]
fn a_peer_that_never_admits_us_is_lost_after_the_grace_time() {
    let mut desk = Desk::new(SessionConfig::default());
    for second in 0..20 {
        desk.send(second * 1000);
    }
    let outcomes = desk.outcomes(60_000);
    assert_eq!(outcomes[..10], [NotAdmitted; 10]);
    assert_eq!(outcomes[10..], [LostUnknown; 10]);
}

#[test]
fn without_a_grace_time_nobody_needs_admission() {
    let mut desk = Desk::new(SessionConfig {
        admission_grace_ns: 0,
        ..SessionConfig::default()
    });
    desk.reflector.admits = false;
    desk.send_many(0, 2);
    desk.exchange(1);
    assert_eq!(desk.outcomes(4000), [LostForward, Received]);
}

#[test]
fn a_reply_after_the_deadline_is_late_and_nothing_else() {
    let mut desk = Desk::admitted();
    desk.send_many(1, 2);
    let late = desk.answer(1);
    desk.exchange(2);
    desk.deliver_at(&late, 1150);
    let counters = desk.counters(5000);
    assert_eq!(
        (counters.late, counters.lost(), counters.late_after_loss),
        (1, 0, 0)
    );
    assert_eq!(desk.outcomes(5000), [Received, Late, Received]);
}

#[test]
fn a_reply_after_the_verdict_is_counted_beside_it() {
    let mut desk = Desk::admitted();
    desk.send_many(1, 2);
    let late = desk.answer(1);
    desk.exchange(2);
    assert_eq!(desk.counters(1500).lost_return, 1);
    desk.deliver_at(&late, 1600);
    desk.deliver_at(&late, 1601);
    let counters = desk.counters(1700);
    assert_eq!(
        (counters.late_after_loss, counters.late, counters.outcomes()),
        (1, 0, 0)
    );
    assert_eq!(counters.duplicate_return, 1);
}

#[test]
fn a_corrupt_answer_whose_copy_arrived_excuses_no_other_loss() {
    let mut desk = Desk::admitted();
    desk.send_many(1, 3);
    let first = desk.answer(1);
    let copy = desk.answer(1);
    desk.deliver(&corrupt(first));
    desk.deliver(&copy);
    desk.lose_reply(2);
    desk.exchange(3);
    desk.session.handle_local_counts(1, 0, at(100));
    assert_eq!(
        desk.outcomes(3000),
        [Received, Received, LostReturn, Received]
    );
}

#[test]
fn a_corrupt_reply_explains_the_probe_that_it_names_and_is_credited_once() {
    let mut desk = Desk::admitted();
    desk.send_many(1, 4);
    desk.lose_reply(1);
    let spoilt = desk.answer(2);
    desk.deliver(&corrupt(spoilt));
    desk.lose_reply(3);
    desk.exchange(4);
    desk.session.handle_local_counts(1, 0, at(100));
    assert_eq!(
        desk.outcomes(3000),
        [Received, LostReturn, CorruptReturn, LostReturn, Received]
    );
}

#[test]
fn corrupt_replies_that_name_no_probe_of_ours_are_credits_as_before() {
    let mut desk = Desk::admitted();
    desk.send_many(1, 2);
    let mut spoilt = corrupt(desk.answer(1));
    spoilt.seq = 70_000;
    desk.deliver(&spoilt);
    desk.exchange(2);
    desk.session.handle_local_counts(1, 0, at(100));
    assert_eq!(desk.outcomes(3000), [Received, CorruptReturn, Received]);
}

#[test]
fn a_corrupt_reply_read_before_its_count_and_one_counted_only_are_told_apart() {
    let mut desk = Desk::admitted();
    desk.send_many(1, 4);
    let named = desk.answer(1);
    desk.deliver(&corrupt(named));
    desk.session.handle_local_counts(0, 0, at(5));
    desk.lose_reply(2);
    desk.lose_reply(3);
    desk.exchange(4);
    desk.session.handle_local_counts(2, 0, at(100));
    assert_eq!(
        desk.outcomes(3000),
        [Received, CorruptReturn, CorruptReturn, LostReturn, Received]
    );
}

fn corrupt(event: ReplyEvent) -> ReplyEvent {
    ReplyEvent {
        flags: event.flags | EventFlags::CORRUPT,
        ..event
    }
}
