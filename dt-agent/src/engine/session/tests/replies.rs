//! What a reply counts for, and what it measures.

use dt_common::event::{EventFlags, ReplyEvent};
use dt_common::time::{ErrorEstimate, MonoNanos};
use dt_common::wire::DtFlags;

use super::desk::{Desk, RTT, START, at, stamped};
use super::sim::{MS, SEC, US};
use crate::engine::session::Outcome::{LostForward, LostReturn, LostUnknown, Received};
use crate::engine::session::SessionConfig;
use crate::engine::window::StampSources;

#[test]
fn a_reply_in_time_is_measured_without_the_time_at_the_peer() {
    let mut desk = Desk::admitted();
    let report = desk.session.take_window(at(1));
    assert_eq!(report.counters.received, 1);
    assert_eq!(
        (report.rtt.min(), report.rtt.max(), report.rtt.count()),
        (Some(RTT), Some(RTT), 1)
    );
    assert_eq!(
        (report.residence.min_ns(), report.residence.sum_ns()),
        (Some(5 * US), 5 * US)
    );
    let one_way = report.min_one_way.unwrap();
    assert_eq!((one_way.forward_ns, one_way.return_ns), (100_000, 100_000));
    assert_eq!(
        (report.hops_forward.last, report.hops_return.last),
        (Some(3), Some(2))
    );
    assert!(
        report.stamps.contains(StampSources::T4_XDP)
            && report.stamps.contains(StampSources::PEER_XDP)
    );
    assert!(report.peer_error_bound_ns.unwrap() >= 1000);
    assert_eq!((report.start, report.end), (at(0), at(1)));
}

#[test]
fn a_ptp_peer_has_a_round_trip_time_but_no_one_way_delay() {
    let mut desk = Desk::admitted();
    desk.session.take_window(at(0));
    let seq = desk.send(1);
    let event = desk.answer(seq);
    let ptp = ReplyEvent {
        t2: (1 << 32) + 10,
        t3: (1 << 32) + 5_010,
        error_estimate: event.error_estimate | 0x4000,
        ..event
    };
    desk.deliver(&ptp);
    let report = desk.session.take_window(at(2));
    assert_eq!((report.rtt.min(), report.min_one_way), (Some(RTT), None));
}

#[test]
fn clocks_that_tick_differently_may_make_a_round_trip_a_little_negative_but_not_more() {
    for (excess_ns, rtt_ns, implausible) in [(900, Some(0), 0), (1_100, None, 1)] {
        let mut desk = Desk::admitted();
        desk.session.take_window(at(0));
        let seq = desk.send(1);
        let event = desk.answer(seq);
        let away = RTT + 5 * US;
        let sent = START + MS;
        let event = ReplyEvent {
            t3: stamped(event, sent, sent + away, 0).t3,
            ..stamped(event, sent, sent + away, 0)
        };
        let t3 = dt_common::time::NtpTime::from_nanos_1900(0);
        let later = dt_common::time::NtpTime::from_nanos_1900(away + excess_ns);
        desk.deliver(&ReplyEvent {
            t2: t3.0,
            t3: later.0,
            ..event
        });
        let report = desk.session.take_window(at(2));
        assert_eq!(report.rtt.min(), rtt_ns);
        assert_eq!(report.counters.implausible, implausible);
        assert_eq!(report.counters.received, 1, "it came back all the same");
    }
}

#[test]
fn a_residence_below_zero_and_a_round_trip_above_ten_seconds_are_implausible() {
    for (t2, t3) in [(5 << 32, 4 << 32), (20 << 32, 5 << 32)] {
        let mut desk = Desk::admitted();
        let seq = desk.send(1);
        let event = desk.answer(seq);
        desk.deliver(&ReplyEvent { t2, t3, ..event });
        let counters = desk.counters(2);
        assert_eq!((counters.implausible, counters.received), (1, 2));
    }
}

#[test]
fn a_sample_that_straddles_a_clock_step_is_received_but_not_measured() {
    // (generation at T1, at T4, at the peer)
    for (generations, straddled) in [
        ((2, 2, 4), false),
        ((2, 4, 4), true),
        ((3, 3, 4), true),
        ((2, 3, 4), true),
        ((2, 2, 5), true),
        ((0, 0, 0), false),
    ] {
        let mut desk = Desk::admitted();
        desk.session.take_window(at(0));
        let seq = desk.send(1);
        let (sender_generation, local_generation, reflector_generation) = generations;
        let event = desk.answer(seq);
        desk.deliver(&ReplyEvent {
            sender_generation,
            local_generation,
            reflector_generation,
            ..event
        });
        let report = desk.session.take_window(at(2));
        assert_eq!(
            report.counters.straddled,
            u32::from(straddled),
            "{generations:?}"
        );
        assert_eq!(report.rtt.count(), u64::from(!straddled), "{generations:?}");
        assert_eq!(report.counters.received, 1);
    }
}

#[test]
fn without_generations_a_reply_that_was_away_longer_than_waited_for_straddles() {
    let mut desk = foreign_desk();
    desk.send(1);
    let event = desk.answer(0);
    let sent = START + MS;
    let stepped = stamped(event, sent, sent + RTT + 5 * MS, 5 * US);
    desk.deliver(&ReplyEvent {
        received_ns: sent + RTT,
        ..stepped
    });
    let report = desk.session.take_window(at(2));
    assert_eq!(
        (
            report.counters.straddled,
            report.counters.received,
            report.rtt.count()
        ),
        (1, 1, 0)
    );
}

#[test]
fn timeliness_is_that_of_the_wire_not_of_the_reader() {
    let mut desk = Desk::admitted();
    let seq = desk.send(1);
    let event = desk.answer(seq);
    // The agent slept: the reply was noted in time and is read 1.1 s later.
    desk.session.handle_reply(&event, at(1_102));
    assert_eq!(desk.counters(1_103).received, 2);
}

#[test]
fn copies_are_counted_on_the_side_on_which_they_were_made() {
    let mut desk = Desk::admitted();
    let seq = desk.send(1);
    let first = desk.answer(seq);
    let second = desk.answer(seq);
    // The copy's answer overtakes, and both answers are copied on their way back.
    for event in [second, first, second, first] {
        desk.deliver(&event);
    }
    let counters = desk.counters(2);
    assert_eq!(
        (
            counters.received,
            counters.duplicate_forward,
            counters.duplicate_return
        ),
        (2, 1, 2)
    );
}

#[test]
fn a_copy_of_a_request_counts_even_if_its_answer_is_lost() {
    let mut desk = Desk::admitted();
    desk.send_many(1, 2);
    desk.exchange(1);
    desk.lose_reply(1);
    desk.exchange(2);
    let counters = desk.counters(2);
    assert_eq!(
        (
            counters.received,
            counters.duplicate_forward,
            counters.duplicate_return
        ),
        (3, 1, 0)
    );
}

#[test]
fn a_probe_whose_copy_alone_came_back_is_received() {
    let mut desk = Desk::admitted();
    let seq = desk.send(1);
    desk.lose_reply(seq);
    desk.exchange(seq);
    assert_eq!(desk.outcomes(3000), [Received, Received]);
}

#[test]
fn a_reply_behind_a_later_one_is_reordered_and_its_copy_is_not() {
    let mut desk = Desk::admitted();
    desk.send_many(1, 2);
    let first = desk.answer(1);
    desk.exchange(2);
    desk.deliver(&first);
    desk.deliver(&first);
    let counters = desk.counters(3);
    assert_eq!(
        (
            counters.reordered,
            counters.duplicate_return,
            counters.received
        ),
        (1, 1, 3)
    );
}

#[test]
fn a_path_that_is_slower_than_another_has_not_reordered_anything() {
    let mut desk = Desk::admitted();
    let ports = [0, 1, 0, 1, 0, 1].map(|path| 61_000 + path);
    let sent: Vec<_> = (1..)
        .zip(ports)
        .map(|(ms, port)| desk.send_from(port, ms))
        .collect();
    let answers: Vec<_> = sent.iter().map(|seq| desk.answer(*seq)).collect();
    // Each path in order, one after the other.
    for place in [1, 3, 5, 0, 2, 4] {
        desk.deliver(&answers[place]);
    }
    let counters = desk.counters(7);
    assert_eq!((counters.received, counters.reordered), (7, 0));

    let sent: Vec<_> = (8..)
        .zip(ports)
        .map(|(ms, port)| desk.send_from(port, ms))
        .collect();
    let answers: Vec<_> = sent.iter().map(|seq| desk.answer(*seq)).collect();
    // Of the first path one comes behind a later one, of the second path two.
    for place in [5, 2, 1, 0, 3, 4] {
        desk.deliver(&answers[place]);
    }
    let counters = desk.counters(14);
    assert_eq!((counters.received, counters.reordered), (6, 3));
}

#[test]
fn replies_that_belong_to_no_probe_are_counted_and_ignored() {
    let mut desk = Desk::admitted();
    desk.send_many(1, 2);
    let event = desk.answer(1);
    desk.deliver(&ReplyEvent {
        sender_epoch: 1,
        ..event
    });
    desk.deliver(&ReplyEvent { seq: 3, ..event });
    desk.deliver(&ReplyEvent {
        seq: u32::MAX,
        ..event
    });
    let counters = desk.counters(4);
    assert_eq!(
        (counters.stale, counters.implausible, counters.received),
        (2, 1, 1)
    );
    assert_eq!(desk.session.in_flight(), 2);
}

#[test]
fn a_reply_to_a_forgotten_probe_is_stale() {
    let mut desk = Desk::admitted();
    let event = desk.answer(0);
    desk.send(5_000);
    desk.send(5_001);
    desk.deliver(&event);
    assert_eq!(desk.counters(5_002).stale, 1);
}

#[test]
fn a_changed_path_is_noticed_across_windows() {
    let mut desk = Desk::admitted();
    desk.session.take_window(at(0));
    let seq = desk.send(1);
    let event = desk.answer(seq);
    desk.deliver(&ReplyEvent {
        reply_ttl: 250,
        ..event
    });
    let report = desk.session.take_window(at(2));
    assert_eq!(
        (report.hops_return.last, report.hops_return.changed),
        (Some(5), true)
    );
    assert_eq!(
        (report.hops_forward.last, report.hops_forward.changed),
        (Some(3), false)
    );
    let report = desk.session.take_window(at(3));
    assert_eq!(
        (report.hops_return.last, report.hops_return.changed),
        (Some(5), false)
    );
    assert!(report.stamps.is_empty());
}

#[test]
fn user_space_is_compared_on_the_same_probes_whoever_reports_first() {
    let mut desk = Desk::admitted();
    desk.session.take_window(at(0));
    desk.send_many(1, 2);
    desk.exchange(1);
    desk.session.handle_user_reply(1, 1_000, 301_000);
    desk.session.handle_user_reply(1, 1_000, 301_000);
    desk.session.handle_user_reply(2, 1_000, 401_000);
    desk.exchange(2);
    let report = desk.session.take_window(at(3));
    assert_eq!(report.user_rtt.count(), 2);
    assert_eq!(
        (report.user_rtt.min(), report.user_rtt.max()),
        (Some(295 * US), Some(395 * US))
    );
}

#[test]
fn user_space_is_not_compared_where_the_kernel_has_no_figure() {
    let mut desk = Desk::admitted();
    desk.session.take_window(at(0));
    desk.send_many(1, 3);
    let event = desk.answer(1);
    desk.session.handle_user_reply(1, 0, 1000);
    desk.deliver(&ReplyEvent {
        sender_generation: 1,
        ..event
    });
    desk.session.handle_user_reply(1, 0, 1000);
    desk.session.handle_user_reply(2, 2000, 1000);
    desk.session.handle_user_reply(99, 0, 1000);
    let late = desk.answer(3);
    desk.session.handle_user_reply(3, 0, 1000);
    desk.deliver_at(&late, 1_100);
    assert_eq!(desk.session.take_window(at(1_100)).user_rtt.count(), 0);
}

fn foreign_desk() -> Desk {
    let mut desk = Desk::new(SessionConfig::default());
    desk.reflector.foreign = true;
    // The desk's own numbering starts at its first `send`; START + 1 ms is probe 0.
    desk
}

#[test]
fn a_foreign_reflector_that_counts_tells_directions() {
    let mut desk = foreign_desk();
    desk.send_many(1, 6);
    desk.exchange(0);
    desk.lose_reply(1);
    // Probe 2 is lost.
    desk.exchange(3);
    desk.exchange(4);
    desk.exchange(5);
    let outcomes = desk.outcomes(4000);
    let mut missing = [outcomes[1], outcomes[2]];
    missing.sort_by_key(|outcome| *outcome as u8);
    assert_eq!(
        missing,
        [LostForward, LostReturn],
        "by count, not by identity"
    );
    assert_eq!(desk.session.in_flight(), 0);
}

#[test]
fn a_foreign_reflector_that_copies_our_numbers_tells_nothing() {
    let mut desk = foreign_desk();
    desk.send_many(1, 3);
    for seq in [0, 2] {
        let event = desk.answer(seq);
        desk.deliver(&ReplyEvent {
            reflector_seq: seq,
            ..event
        });
    }
    assert_eq!(desk.outcomes(4000), [Received, LostUnknown, Received]);
}

#[test]
fn a_foreign_reflector_that_counts_per_source_port_tells_nothing() {
    let mut desk = foreign_desk();
    desk.send_many(1, 3);
    for (seq, source_port) in [(0, 1000), (2, 2000)] {
        let event = desk.answer(seq);
        desk.deliver(&ReplyEvent {
            source_port,
            reflector_seq: 0,
            ..event
        });
    }
    assert_eq!(desk.outcomes(4000), [Received, LostUnknown, Received]);
}

#[test]
fn a_foreign_reflector_counts_copies_on_both_sides() {
    let mut desk = foreign_desk();
    desk.send(1);
    let first = desk.answer(0);
    let second = desk.answer(0);
    for event in [first, first, second] {
        desk.deliver(&event);
    }
    let counters = desk.counters(2);
    assert_eq!(
        (
            counters.duplicate_forward,
            counters.duplicate_return,
            counters.received
        ),
        (1, 1, 1)
    );
}

#[test]
fn stamp_sources_are_named() {
    let of = |flags, tlv_flags| {
        StampSources::of(&ReplyEvent {
            flags,
            tlv_flags,
            ..ReplyEvent::default()
        })
    };
    let tlv = EventFlags::TLV;
    for (flags, tlv_flags, t4, peer) in [
        (
            tlv | EventFlags::XDP,
            DtFlags::REFLECTOR_XDP,
            StampSources::T4_XDP,
            StampSources::PEER_XDP,
        ),
        (
            tlv,
            DtFlags::REFLECTOR_TC,
            StampSources::T4_TC,
            StampSources::PEER_TC,
        ),
        (
            tlv | EventFlags::SOCKET,
            DtFlags::REFLECTOR_SOCKET,
            StampSources::T4_SOCKET,
            StampSources::PEER_SOCKET,
        ),
        (
            tlv | EventFlags::SOCKET | EventFlags::T4_USER,
            DtFlags::REFLECTOR_SOCKET,
            StampSources::T4_USER,
            StampSources::PEER_SOCKET,
        ),
        (
            EventFlags::XDP,
            0,
            StampSources::T4_XDP,
            StampSources::PEER_FOREIGN,
        ),
    ] {
        let sources = of(flags, tlv_flags);
        assert!(
            sources.contains(t4) && sources.contains(peer),
            "{flags:x} {tlv_flags:x}"
        );
    }
}

#[test]
fn a_peer_without_an_error_bound_states_none() {
    let mut desk = foreign_desk();
    desk.send(1);
    let event = desk.answer(0);
    desk.deliver(&ReplyEvent {
        error_estimate: 0,
        ..event
    });
    assert_eq!(ErrorEstimate(0).bound_ns(), None);
    assert_eq!(
        desk.session
            .take_window(MonoNanos(START + SEC))
            .peer_error_bound_ns,
        None
    );
}

fn cutting_desk(max_cuts: u32) -> Desk {
    Desk::new(SessionConfig {
        max_cuts,
        ..SessionConfig::default()
    })
}

/// The reply as the socket datapath would have made it, with the kernel's stamps or with its own.
fn by_socket(event: ReplyEvent, stamped_by_user: bool) -> ReplyEvent {
    let user = EventFlags::T1_USER | EventFlags::T4_USER;
    let flags = event.flags & EventFlags::TLV | EventFlags::SOCKET;
    ReplyEvent {
        flags: if stamped_by_user { flags | user } else { flags },
        ..event
    }
}

#[test]
fn stamps_from_elsewhere_begin_a_new_window_and_every_window_adds_up() {
    let mut desk = cutting_desk(4);
    for (ms, by_user) in [(10, true), (20, false), (30, false), (40, true)] {
        let seq = desk.send(ms);
        let event = by_socket(desk.answer(seq), by_user);
        desk.deliver(&event);
    }
    desk.send(50);
    let mut windows: Vec<_> = std::iter::from_fn(|| desk.session.poll_window()).collect();
    windows.push(desk.session.take_window(at(60)));
    let of = |user| StampSources::of(&by_socket(desk_event(), user));
    assert_eq!(
        windows
            .iter()
            .map(|window| (window.stamps, window.counters.received))
            .collect::<Vec<_>>(),
        [(of(true), 1), (of(false), 2), (of(true), 1)]
    );
    let mut in_flight = 0;
    for window in &windows {
        assert!(window.start < window.end && !window.stamps.is_mixed());
        assert_eq!(
            u64::from(in_flight + window.counters.sent),
            window.counters.outcomes() + u64::from(window.in_flight)
        );
        in_flight = window.in_flight;
    }
    assert!(windows.windows(2).all(|two| two[0].end == two[1].start));
    let records = std::iter::from_fn(|| desk.session.poll_record());
    assert_eq!(
        records.map(|record| record.stamps).collect::<Vec<_>>(),
        [true, false, false, true].map(of)
    );
}

#[test]
fn sources_that_take_turns_end_no_more_windows_than_allowed_and_are_then_called_mixed() {
    let mut desk = cutting_desk(2);
    for ms in 1..=10 {
        let seq = desk.send(ms);
        let event = by_socket(desk.answer(seq), ms % 2 == 0);
        desk.deliver(&event);
    }
    let cut = std::iter::from_fn(|| desk.session.poll_window()).count();
    let last = desk.session.take_window(at(20));
    assert_eq!(cut, 2);
    assert!(last.stamps.is_mixed());
    assert_eq!(last.counters.received, 8);
}

#[test]
fn replies_of_one_wake_up_end_at_most_one_window() {
    let mut desk = cutting_desk(4);
    let events: Vec<_> = (1..=5)
        .map(|ms| {
            let seq = desk.send(ms);
            by_socket(desk.answer(seq), ms % 2 == 0)
        })
        .collect();
    for event in &events {
        desk.session.handle_reply(event, at(7));
    }
    let cut = std::iter::from_fn(|| desk.session.poll_window()).count();
    assert_eq!(cut, 1);
    assert!(desk.session.take_window(at(9)).stamps.is_mixed());
}

/// Any reply of an agent of ours.
fn desk_event() -> ReplyEvent {
    let mut desk = Desk::new(SessionConfig::default());
    let seq = desk.send(0);
    desk.answer(seq)
}
