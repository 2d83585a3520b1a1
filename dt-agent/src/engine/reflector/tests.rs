//! Every reason, every kind of session, and any bytes at all.

use dt_common::wire::{PROBE_LEN, TlvFlags};
use proptest::prelude::*;
use zerocopy::network_endian::{U16, U32};

use super::*;

const SECOND: u64 = 1_000_000_000;
const T1: u64 = 0x1234_5678_0000_004d;
const T2: NtpTime = NtpTime(0x1234_5678_9abc_def0);

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn policy() -> Policy {
    Policy {
        port: 8620,
        allow_all: false,
        allow_loopback: false,
        stateless: false,
        source_rate: Rate::default(),
        total_rate: Rate::default(),
    }
}

fn request(bytes: &[u8]) -> Request<'_> {
    Request {
        source: ip("10.0.0.1"),
        source_port: 50_000,
        destination: ip("10.0.0.9"),
        ttl: 250,
        bytes,
        received: T2,
        error_estimate: ErrorEstimate(0x8105),
        generation: 6,
    }
}

/// Answers members 10.0.0.1 and 10.0.0.2, the router 10.0.0.3 with low ports, and `fd00::/16`.
fn reflector_with(policy: Policy) -> Reflector {
    let mut allowed = AllowList::default();
    let list = [
        ("10.0.0.1", 0, 0),
        ("10.0.0.2", 1, 0),
        ("10.0.0.3", Allowed::NO_MEMBER, AllowedFlags::LOW_PORTS),
        ("10.0.0.4", Allowed::NO_MEMBER, 0),
        ("127.0.0.1", Allowed::NO_MEMBER, 0),
    ];
    for (source, member, flags) in list {
        allowed
            .allow(ip(source), Allowed { member, flags })
            .expect("room");
    }
    let anybody = Allowed {
        member: Allowed::NO_MEMBER,
        flags: 0,
    };
    allowed
        .allow_prefix("fd00::/16".parse().expect("a prefix"), anybody)
        .expect("room");
    let mut reflector = Reflector::new(policy, Random::new(1));
    reflector.set_allowed(allowed);
    reflector
}

fn reflector() -> Reflector {
    reflector_with(policy())
}

fn base(seq: u32) -> SenderPacket {
    SenderPacket {
        seq: U32::new(seq),
        timestamp: U64::new(T1),
        error_estimate: U16::new(0xc001),
        ssid: U16::new(5),
        mbz: [0xff; 28],
    }
}

fn probe(seq: u32, epoch: u32, flags: u8) -> Vec<u8> {
    [
        base(seq).as_bytes(),
        DtTlv::request(epoch, flags).as_bytes(),
    ]
    .concat()
}

/// Answers at once, or gives the reason.
fn ask(reflector: &mut Reflector, request: &Request<'_>) -> Result<Vec<u8>, Reason> {
    ask_at(reflector, request, SECOND)
}

fn ask_at(reflector: &mut Reflector, request: &Request<'_>, now: u64) -> Result<Vec<u8>, Reason> {
    let mut reply = vec![1, 2, 3];
    let result = reflector.handle_request(request, MonoNanos(now), &mut reply);
    assert!(result.is_ok() || reply.is_empty());
    result.map(|()| reply)
}

fn tlv_of(reply: &[u8]) -> DtTlv {
    *DtTlv::first_of(&reply[BASE_LEN..]).expect("our TLV")
}

/// Asserts that this request, and nothing but it, is counted under this reason.
fn assert_refused(request: &Request<'_>, reason: Reason) {
    let mut reflector = reflector();
    assert_eq!(ask(&mut reflector, request), Err(reason), "{request:?}");
    assert_eq!(reflector.count(reason), 1);
    assert_eq!(reflector.count(Reason::Reflected), 0);
}

#[test]
fn each_source_that_is_refused_has_its_reason() {
    let bytes = probe(0, 7, 0);
    for (source, source_port, reason) in [
        ("10.9.9.9", 50_000, Reason::NotAllowed),
        ("fe80::1", 50_000, Reason::NotAllowed),
        ("10.0.0.1", 53, Reason::SourcePort),
        ("10.0.0.1", 0, Reason::SourcePort),
        ("10.0.0.1", 8620, Reason::Loop),
        ("10.0.0.1", 862, Reason::Loop),
        ("224.0.0.1", 50_000, Reason::Multicast),
        ("ff02::1", 50_000, Reason::Multicast),
        ("255.255.255.255", 50_000, Reason::Multicast),
        ("127.0.0.1", 50_000, Reason::Loopback),
        ("0.0.0.0", 50_000, Reason::Loopback),
        ("::", 50_000, Reason::Loopback),
        ("::1", 50_000, Reason::Loopback),
        ("::ffff:10.0.0.1", 50_000, Reason::Loopback),
        ("10.0.0.9", 50_000, Reason::Reflexive),
    ] {
        let mut request = request(&bytes);
        request.source = ip(source);
        request.source_port = source_port;
        assert_refused(&request, reason);
    }
}

#[test]
fn a_request_to_a_group_or_too_short_for_any_protocol_is_refused() {
    let bytes = probe(0, 7, 0);
    let mut to_group = request(&bytes);
    to_group.destination = ip("ff02::1");
    assert_refused(&to_group, Reason::Multicast);
    assert_refused(&request(&bytes[..13]), Reason::Malformed);
    assert_refused(&request(&[]), Reason::Malformed);
}

#[test]
fn a_router_whose_packet_went_round_is_refused() {
    let bytes = probe(0, 7, 0);
    let mut router = request(&bytes);
    router.source = ip("10.0.0.3");
    router.source_port = 862;
    router.ttl = 223;
    assert_refused(&router, Reason::Loop);
}

#[test]
fn a_router_on_the_list_may_send_from_its_own_reflector_port() {
    let bytes = probe(0, 7, 0);
    let router = Request {
        source: ip("10.0.0.3"),
        source_port: 862,
        ttl: 254,
        ..request(&bytes)
    };
    assert!(ask(&mut reflector(), &router).is_ok());
}

#[test]
fn loopback_is_answered_where_it_was_allowed() {
    let bytes = probe(0, 7, 0);
    let local = Request {
        source: ip("127.0.0.1"),
        destination: ip("127.0.0.1"),
        ..request(&bytes)
    };
    assert_eq!(ask(&mut reflector(), &local), Err(Reason::Reflexive));
    let allowing = Policy {
        allow_loopback: true,
        ..policy()
    };
    assert!(ask(&mut reflector_with(allowing), &local).is_ok());
}

#[test]
fn the_base_packet_is_answered_as_the_rfc_says() {
    let reply = ask(&mut reflector(), &request(base(41).as_bytes())).expect("answered");
    let (packet, rest) = ReflectorPacket::parse(&reply).expect("whole");
    assert!(rest.is_empty());
    assert_eq!(
        (packet.seq.get(), packet.sender_seq.get()),
        (0, 41),
        "stateful: its own number"
    );
    assert_eq!((packet.ssid.get(), packet.sender_timestamp.get()), (5, T1));
    assert_eq!(packet.sender_error_estimate.get(), 0xc001, "PTP, echoed");
    assert_eq!(packet.error_estimate.get(), 0x8105, "ours, in NTP format");
    assert_eq!(
        (packet.receive_timestamp.get(), packet.sender_ttl),
        (T2.0, 250)
    );
    assert_eq!(
        (packet.mbz, packet.mbz_tail),
        ([0; 2], [0; 3]),
        "must be zero, whatever came"
    );
}

#[test]
fn the_send_time_is_written_last() {
    let mut reply = ask(&mut reflector(), &request(base(41).as_bytes())).expect("answered");
    let before = reply.clone();
    set_sent(&mut reply, NtpTime(0xabcd));
    assert_eq!(reply[4..12], 0xabcd_u64.to_be_bytes());
    assert_eq!((&reply[..4], &reply[12..]), (&before[..4], &before[12..]));
    set_sent(&mut [0; 3], NtpTime(1));
}

#[test]
fn short_requests_are_extended_for_listed_sources_only() {
    for length in [14, 41, 43] {
        let bytes = vec![0x11; length];
        let reply = ask(&mut reflector(), &request(&bytes)).expect("answered");
        assert_eq!(reply.len(), BASE_LEN);
        assert_eq!(reply[24..38], bytes[..14]);
        let open = Policy {
            allow_all: true,
            ..policy()
        };
        let stranger = Request {
            source: ip("10.9.9.9"),
            ..request(&bytes)
        };
        assert_eq!(
            ask(&mut reflector_with(open), &stranger),
            Err(Reason::Short)
        );
    }
}

#[test]
fn a_session_of_ours_is_one_whatever_the_source_port() {
    let mut reflector = reflector();
    let mut last = None;
    for seq in 0..5 {
        let bytes = probe(seq, 7, DtFlags::AGENT);
        let asked = Request {
            source_port: 50_000 + seq as u16,
            ..request(&bytes)
        };
        let reply = ask(&mut reflector, &asked).expect("answered");
        assert_eq!(reply[..4], seq.to_be_bytes());
        let tlv = tlv_of(&reply);
        assert_eq!(tlv.received.get(), seq + 1);
        assert!(
            last.replace(tlv.epoch.get())
                .is_none_or(|epoch| epoch == tlv.epoch.get())
        );
        let flags =
            DtFlags::AGENT | DtFlags::ADMITTED | DtFlags::STATEFUL | DtFlags::REFLECTOR_SOCKET;
        assert_eq!(tlv.flags, flags);
        assert_eq!((tlv.header.flags, tlv.reflector_generation.get()), (0, 6));
    }
}

#[test]
fn foreign_sessions_are_told_apart_by_all_four_of_the_tuple_and_the_ssid() {
    let mut reflector = reflector();
    let bytes = *base(0).as_bytes().first_chunk::<BASE_LEN>().expect("whole");
    let mut other_ssid = bytes;
    other_ssid[15] = 6;
    let plain = request(&bytes);
    let sessions = [
        plain,
        Request {
            source_port: 50_001,
            ..plain
        },
        Request {
            source: ip("10.0.0.2"),
            ..plain
        },
        Request {
            destination: ip("10.0.0.8"),
            ..plain
        },
        Request {
            bytes: &other_ssid,
            ..plain
        },
    ];
    for round in 0..3_u32 {
        for session in &sessions {
            let reply = ask(&mut reflector, session).expect("answered");
            assert_eq!(reply[..4], round.to_be_bytes());
        }
    }
}

#[test]
fn ping_beside_an_agent_has_a_session_of_its_own() {
    let mut reflector = reflector();
    let agent = probe(0, 7, DtFlags::AGENT);
    let ping = probe(0, 9, 0);
    let first = tlv_of(&ask(&mut reflector, &request(&agent)).expect("answered"));
    let other = tlv_of(&ask(&mut reflector, &request(&ping)).expect("answered"));
    assert_ne!(first.epoch, other.epoch);
    assert_eq!(other.flags & DtFlags::ADMITTED, DtFlags::ADMITTED);
    let agent = probe(1, 7, DtFlags::AGENT);
    let again = tlv_of(&ask(&mut reflector, &request(&agent)).expect("answered"));
    assert_eq!((again.epoch, again.received.get()), (first.epoch, 2));
}

#[test]
fn a_restarted_sender_begins_a_new_epoch() {
    let mut reflector = reflector();
    let before =
        tlv_of(&ask(&mut reflector, &request(&probe(0, 7, DtFlags::AGENT))).expect("answered"));
    let after =
        tlv_of(&ask(&mut reflector, &request(&probe(0, 8, DtFlags::AGENT))).expect("answered"));
    assert_ne!(before.epoch, after.epoch);
    assert_eq!(
        (after.received.get(), after.flags & DtFlags::DUPLICATE),
        (1, 0)
    );
}

#[test]
fn a_session_that_was_evicted_comes_back_with_another_epoch() {
    let mut reflector = reflector();
    let bytes = probe(0, 7, 0);
    let from = |number: u128| Request {
        source: IpAddr::from((0xfd00_u128 << 112 | number).to_be_bytes()),
        ..request(&bytes)
    };
    let before = tlv_of(&ask(&mut reflector, &from(0)).expect("answered"));
    for number in 1..=u128::from(MAX_FOREIGN) {
        ask(&mut reflector, &from(number)).expect("answered");
    }
    let after = tlv_of(&ask(&mut reflector, &from(0)).expect("answered"));
    assert_ne!(before.epoch, after.epoch);
    assert_eq!(after.received.get(), 1);
}

#[test]
fn duplicates_and_gaps_show_in_the_bitmap() {
    let mut reflector = reflector();
    let mut last = None;
    for seq in [0, 1, 3, 3] {
        last = Some(tlv_of(
            &ask(&mut reflector, &request(&probe(seq, 7, 0))).expect("answered"),
        ));
    }
    let tlv = last.expect("four replies");
    assert_eq!((tlv.received.get(), tlv.duplicates.get()), (4, 1));
    assert_eq!(tlv.seen.get() >> 60, 0b1011);
    assert_eq!(tlv.flags & DtFlags::DUPLICATE, DtFlags::DUPLICATE);
}

#[test]
fn stateless_means_copied_numbers_and_no_claims() {
    let mut reflector = reflector_with(Policy {
        stateless: true,
        ..policy()
    });
    let reply = ask(&mut reflector, &request(&probe(41, 7, 0))).expect("answered");
    assert_eq!(reply[..4], 41_u32.to_be_bytes());
    assert_eq!(tlv_of(&reply).flags & DtFlags::STATEFUL, 0);
}

#[test]
fn tlvs_of_others_are_marked_and_copied() {
    let bytes = [
        base(0).as_bytes(),
        &[0x80, 4, 0, 1, 9],
        &[0x80, 1, 0, 0],
        &[0x80, 1, 0, 99, 1],
    ]
    .concat();
    let reply = ask(&mut reflector(), &request(&bytes)).expect("answered");
    let malformed = TlvFlags::UNRECOGNISED | TlvFlags::MALFORMED;
    assert_eq!(
        reply[BASE_LEN..],
        [0x80, 4, 0, 1, 9, 0, 1, 0, 0, malformed, 1, 0, 99, 1]
    );
}

#[test]
fn a_source_beyond_its_rate_is_refused_and_told_so_later() {
    let source_rate = Rate {
        interval_ns: SECOND / 10,
        burst_ns: SECOND / 5,
    };
    let mut reflector = reflector_with(Policy {
        source_rate,
        ..policy()
    });
    let results: Vec<_> = (0..6)
        .map(|seq| ask(&mut reflector, &request(&probe(seq, 7, DtFlags::AGENT))))
        .collect();
    let answered = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(answered, 3, "the burst and one");
    assert_eq!(results[5], Err(Reason::SourceRate));
    let other = Request {
        source: ip("10.0.0.2"),
        ..request(&[0; BASE_LEN])
    };
    assert!(
        ask(&mut reflector, &other).is_ok(),
        "others are not touched"
    );
    let later = ask_at(
        &mut reflector,
        &request(&probe(6, 7, DtFlags::AGENT)),
        2 * SECOND,
    )
    .expect("answered");
    assert_eq!(tlv_of(&later).refused.get(), 3);
}

#[test]
fn a_new_epoch_does_not_refill_the_rate() {
    let source_rate = Rate {
        interval_ns: SECOND,
        burst_ns: 0,
    };
    let mut reflector = reflector_with(Policy {
        source_rate,
        ..policy()
    });
    assert!(ask(&mut reflector, &request(&probe(0, 1, DtFlags::AGENT))).is_ok());
    let restarted = probe(0, 2, DtFlags::AGENT);
    assert_eq!(
        ask(&mut reflector, &request(&restarted)),
        Err(Reason::SourceRate)
    );
}

#[test]
fn all_together_have_a_rate_too() {
    let total_rate = Rate {
        interval_ns: SECOND,
        burst_ns: 0,
    };
    let mut reflector = reflector_with(Policy {
        total_rate,
        ..policy()
    });
    let bytes = [0; BASE_LEN];
    assert!(ask(&mut reflector, &request(&bytes)).is_ok());
    let other = Request {
        source: ip("10.0.0.2"),
        ..request(&bytes)
    };
    assert_eq!(ask(&mut reflector, &other), Err(Reason::TotalRate));
}

fn any_source() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        Just(ip("10.0.0.1")),
        Just(ip("10.0.0.3")),
        Just(ip("fd00::1")),
        any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
        any::<u128>().prop_map(|bits| IpAddr::V6(bits.into())),
    ]
}

proptest! {
    #[test]
    fn no_bytes_do_harm_or_get_back_more_than_they_are(
        source in any_source(),
        source_port: u16,
        ttl: u8,
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            prop::collection::vec(any::<u8>(), 0..2_000),
            prop::collection::vec(any::<u8>(), 0..100).prop_map(|tail| [probe(0, 7, 0), tail].concat()),
        ],
        allow_all: bool,
        stateless: bool,
    ) {
        let mut reflector = reflector_with(Policy { allow_all, stateless, ..policy() });
        let request = Request { source, source_port, ttl, ..request(&bytes) };
        let mut reply = Vec::new();
        let result = reflector.handle_request(&request, MonoNanos(SECOND), &mut reply);
        prop_assert_eq!(result.is_ok(), reply.len() == bytes.len().max(BASE_LEN));
        prop_assert_eq!(result.is_err(), reply.is_empty());
        if result.is_ok() {
            prop_assert_eq!(&reply[24..38], &bytes[..14]);
            // What stands behind the base packet keeps its place; only flags and our own fields may change.
            let ours = DtTlv::first_of(bytes.get(BASE_LEN..).unwrap_or_default()).is_some();
            let values = if ours { PROBE_LEN } else { BASE_LEN };
            let changed = bytes.iter().zip(&reply).skip(values).filter(|(sent, got)| sent != got).count();
            prop_assert!(changed <= bytes.len() / 4);
        }
    }
}

#[test]
fn a_source_cannot_multiply_its_rate_by_sessions() {
    let source_rate = Rate {
        interval_ns: SECOND,
        burst_ns: 0,
    };
    for source in ["10.0.0.1", "10.0.0.4"] {
        let mut reflector = reflector_with(Policy {
            source_rate,
            ..policy()
        });
        let answers = (0..3).map(|ssid: u16| {
            let mut bytes = probe(0, 7, 0);
            bytes[14..16].copy_from_slice(&ssid.to_be_bytes());
            let request = Request {
                source: ip(source),
                ..request(&bytes)
            };
            ask(&mut reflector, &request).err()
        });
        let answers: Vec<_> = answers.collect();
        assert_eq!(
            answers,
            [None, Some(Reason::SourceRate), Some(Reason::SourceRate)]
        );
    }
}

#[test]
fn a_reply_is_not_answered_even_where_low_ports_are() {
    let mut reflector = reflector();
    let bytes = probe(1, 7, 0);
    let router = |bytes| Request {
        source: ip("10.0.0.3"),
        source_port: 8620,
        ttl: 255,
        ..request(bytes)
    };
    let mut reply = ask(&mut reflector, &router(&bytes)).expect("routers are answered");
    set_sent(&mut reply, T2);
    assert_eq!(ask(&mut reflector, &router(&reply)), Err(Reason::Loop));
}
