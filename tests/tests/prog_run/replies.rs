//! What a reply says, over several requests of one session and for every length.

use anyhow::{Result, ensure};
use dt_tests::datapath::{Hook, Verdict};
use dt_tests::frame::{self, Checksum, Frame};
use dt_tests::skip_unless_equipped;

use crate::packet::{self, XDP_LINEAR};
use crate::rig::{
    HOOKS, IPV6, MEMBER, MEMBER_NUMBER, NEIGHBOUR, ROUTER, Rig, plain, probe, request_from,
};

/// The reflector's part of our TLV in a reply to an untagged request.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    seq: u32,
    flags: u8,
    epoch: u32,
    received: u32,
    duplicates: u32,
    corrupt: u32,
    seen: u64,
}

#[test]
fn duplicates_and_reordering_show_in_counters_and_bitmap() -> Result<()> {
    skip_unless_equipped!();
    for (hook, ipv6) in places() {
        let mut rig = Rig::new(hook)?;
        // Sequence number, requests so far, duplicates among them, and the 64 numbers up to this one.
        let steps: [(u32, u32, u32, u64); 7] = [
            (10, 1, 0, 1 << 63),
            (11, 2, 0, 0b11 << 62),
            (13, 3, 0, 0b1011 << 60),
            (12, 4, 0, 0b111 << 61),
            (13, 5, 1, 0b1111 << 60),
            (13, 6, 2, 0b1111 << 60),
            (76, 7, 2, (1 << 63) | 1),
        ];
        for (seq, received, duplicates, seen) in steps {
            let told = ask(&mut rig, &request_from(ipv6, MEMBER, probe(seq, 7)))?;
            // At tc nobody summed what nobody had summed before.
            let place = if hook == Hook::Xdp { 0x50 } else { 0x20 };
            // Agent and admitted as asked, stateful, and where it was stamped and summed.
            let flags = 0x08
                | 0x01
                | 0x02
                | place
                | if told.seq == 4 || told.seq == 5 {
                    0x04
                } else {
                    0
                };
            let expected = Told {
                seq: received - 1,
                flags,
                epoch: told.epoch,
                received,
                duplicates,
                corrupt: 0,
                seen,
            };
            assert_eq!(told, expected);
        }
    }
    Ok(())
}

#[test]
fn any_order_of_sequence_numbers_is_remembered_as_a_set_would() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = Rig::new(Hook::Xdp)?;
    let mut seq = 0xffff_ff80_u32;
    for step in 0..3_000_u32 {
        // Ahead by up to 3, back by up to 110, and now and then a leap; the numbers wrap on the way.
        let scattered = step.wrapping_mul(2_654_435_761) >> 8;
        seq = match scattered % 16 {
            0..10 => seq.wrapping_add(scattered % 4),
            10..15 => seq.wrapping_sub(scattered % 111),
            _ => seq.wrapping_add(150),
        };
        rig.judge_quickly(&request_from(false, MEMBER, probe(seq, 7)).bytes())?;
    }
    Ok(())
}

#[test]
fn another_sender_epoch_begins_a_session_anew_and_the_same_one_does_not() -> Result<()> {
    skip_unless_equipped!();
    for from in [MEMBER, NEIGHBOUR] {
        let mut rig = Rig::new(Hook::Xdp)?;
        let first = ask(&mut rig, &request_from(false, from, probe(1, 7)))?;
        let second = ask(&mut rig, &request_from(false, from, probe(2, 7)))?;
        assert_eq!((second.epoch, second.received), (first.epoch, 2));
        let restarted = ask(&mut rig, &request_from(false, from, probe(1, 8)))?;
        assert_eq!(
            (restarted.received, restarted.duplicates, restarted.seq),
            (1, 0, 0)
        );
        assert_ne!(restarted.epoch, first.epoch);
    }
    Ok(())
}

#[test]
fn members_have_fixed_places_and_only_members_are_admitted() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = Rig::new(Hook::Xdp)?;
    for seq in 0..3 {
        let told = ask(&mut rig, &request_from(true, MEMBER, probe(seq, 7)))?;
        assert_eq!(told.flags & 1, 1);
    }
    let session = rig.datapath.member(MEMBER_NUMBER)?;
    assert_eq!(
        (
            session.received,
            session.sender_epoch,
            rig.datapath.foreign_sessions()?
        ),
        (3, 7, 0)
    );
    let told = ask(&mut rig, &request_from(true, NEIGHBOUR, probe(0, 7)))?;
    assert_eq!((told.flags & 1, rig.datapath.foreign_sessions()?), (0, 1));
    // The member's `ping` beside its agent: admitted, but with a session of its own.
    let mut payload = plain(0);
    payload.extend(frame::our_tlv(99, 0));
    let told = ask(&mut rig, &request_from(true, MEMBER, payload))?;
    assert_eq!((told.flags & 1, told.received), (1, 1));
    assert_eq!(rig.datapath.member(MEMBER_NUMBER)?.received, 3);
    Ok(())
}

#[test]
fn source_ports_divide_sessions_only_where_our_tlv_is_missing() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = Rig::new(Hook::Xdp)?;
    for (index, port) in [50_000, 50_001].into_iter().enumerate() {
        let probe = Frame {
            source_port: port,
            ..request_from(false, NEIGHBOUR, probe(index as u32, 7))
        };
        assert_eq!(ask(&mut rig, &probe)?.received as usize, index + 1);
        let bare = Frame {
            source_port: port,
            ..request_from(false, NEIGHBOUR, plain(40))
        };
        let (_, _, reply) = rig.judge(&bare.bytes())?;
        assert_eq!(packet::be32(&reply, 42), 0, "the first of its session");
    }
    assert_eq!(rig.datapath.foreign_sessions()?, 3);
    Ok(())
}

#[test]
fn corrupt_requests_are_told_with_the_next_reply() -> Result<()> {
    skip_unless_equipped!();
    for (hook, ipv6) in places() {
        for from in [MEMBER, NEIGHBOUR] {
            let mut rig = Rig::new(hook)?;
            assert_eq!(
                ask(&mut rig, &request_from(ipv6, from, probe(1, 7)))?.corrupt,
                0
            );
            for bit in [0, 3] {
                let mut bytes = request_from(ipv6, from, probe(2, 7)).bytes();
                let last = bytes.len() - 1;
                bytes[last] ^= 1 << bit;
                let (verdict, reason, _) = rig.judge(&bytes)?;
                assert_eq!((verdict, reason), (Verdict::Drop, Some("corrupt_request")));
            }
            let told = ask(&mut rig, &request_from(ipv6, from, probe(3, 7)))?;
            assert_eq!((told.corrupt, told.received), (2, 2));
        }
    }
    Ok(())
}

#[test]
fn every_length_is_answered_with_the_same_length_and_a_right_checksum() -> Result<()> {
    skip_unless_equipped!();
    for (hook, ipv6) in places() {
        let mut rig = Rig::new(hook)?;
        let lengths = (44..700)
            .chain((700..3_400).step_by(13))
            .chain(3_400..3_440);
        for len in lengths {
            for ours in [false, true] {
                let Some(payload) = padded(len, ours) else {
                    continue;
                };
                let (outcome, reason) =
                    rig.judge_quickly(&request_from(ipv6, MEMBER, payload).bytes())?;
                ensure!(outcome.verdict == Verdict::Send, "{len} bytes: {reason:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn what_lies_in_fragments_of_a_buffer_is_left_to_the_stack() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = Rig::new(Hook::Xdp)?;
    let headers = 14 + 20 + 8;
    for len in [
        XDP_LINEAR - headers - 1,
        XDP_LINEAR - headers,
        XDP_LINEAR - headers + 1,
        4_000,
        8_972,
        9_000,
    ] {
        let payload = padded(len, true).expect("it has room for our TLV");
        let (verdict, reason, _) = rig.judge(&request_from(false, MEMBER, payload).bytes())?;
        let linear = headers + len <= XDP_LINEAR;
        let expected = if linear {
            (Verdict::Send, "reflected")
        } else {
            (Verdict::Pass, "non_linear")
        };
        assert_eq!(
            (verdict, reason),
            (expected.0, Some(expected.1)),
            "{len} bytes"
        );
    }
    Ok(())
}

#[test]
fn tlv_flags_are_set_as_rfc_8972_says_whatever_the_sender_set() -> Result<()> {
    skip_unless_equipped!();
    for (hook, ipv6) in places() {
        let mut rig = Rig::new(hook)?;
        for sent in [0x00, 0x80, 0xc0, 0xff] {
            let mut payload = probe(1, 7);
            payload.extend(frame::tlv(sent, 1, &[7; 5]));
            payload.extend(frame::tlv(sent, 4, &[7; 4]));
            payload.extend(frame::tlv(sent, 252, b"another's private one"));
            payload.extend([sent, 1, 0, 1]);
            let (_, _, reply) = rig.judge(&request_from(ipv6, MEMBER, payload.clone()).bytes())?;
            let reply = &reply[reply.len() - payload.len()..];
            // Known, unknown, not ours though of our type, and one that claims more than there is.
            let flags = [96, 96 + 9, 96 + 9 + 8, 96 + 9 + 8 + 25].map(|at| reply[at]);
            assert_eq!(
                flags,
                [0x00, 0x80, 0x80, sent & 0x80 | 0x40],
                "sent with {sent:#x}"
            );
            assert_eq!(reply[44], 0, "ours is known");
        }
    }
    Ok(())
}

#[test]
fn tlvs_that_lie_or_end_early_are_answered_byte_for_byte() -> Result<()> {
    skip_unless_equipped!();
    for (hook, ipv6) in places() {
        let mut rig = Rig::new(hook)?;
        for start in [plain(1), probe(1, 7)] {
            let tails: [&[u8]; 8] = [
                &[0],
                &[0x80, 1],
                &[0x80, 1, 0],
                &[0x80, 1, 0, 0],
                &[0x80, 1, 0xff, 0xff, 9],
                &[0x80, 7, 0, 2, 9],
                &[0x80, 9, 0, 1, 9, 0x80, 9, 0, 1],
                &[0x80, 252, 0, 48, 0x64, 0x74],
            ];
            for tail in tails {
                let payload = [&start[..], tail].concat();
                let (verdict, ..) = rig.judge(&request_from(ipv6, MEMBER, payload).bytes())?;
                assert_eq!(verdict, Verdict::Send, "{tail:x?}");
            }
        }
    }
    Ok(())
}

#[test]
fn our_tlv_with_any_byte_of_its_head_changed_is_somebody_elses() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = Rig::new(Hook::Xdp)?;
    for at in 44..52 {
        for value in [0, 1, 0x31, 0xff] {
            let mut payload = probe(1, 7);
            payload[at] = value;
            rig.judge(&request_from(false, MEMBER, payload).bytes())?;
        }
    }
    Ok(())
}

#[test]
fn two_reflectors_that_trust_each_other_do_not_answer_each_other_for_ever() -> Result<()> {
    skip_unless_equipped!();
    for hook in HOOKS {
        let mut rig = Rig::new(hook)?;
        let spoofed = Frame {
            source_port: 862,
            ..request_from(false, ROUTER, probe(1, 7))
        };
        let (verdict, _, reply) = rig.judge(&spoofed.bytes())?;
        assert_eq!(verdict, Verdict::Send);
        // The router's reflector would answer from its 862 to ours: the reply with its ends exchanged.
        let mut back = reply;
        let datagram = match packet::headers(&back) {
            packet::Headers::Udp(datagram) => datagram,
            packet::Headers::Other => unreachable!("it was a request"),
        };
        packet::turn_around(&mut back, &datagram);
        let (verdict, reason, _) = rig.judge(&back)?;
        assert_eq!((verdict, reason), (Verdict::Drop, Some("loop")));
    }
    Ok(())
}

#[test]
fn a_zero_checksum_stays_zero_and_a_partial_one_is_completed() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = Rig::new(Hook::Xdp)?;
    rig.set(|settings| settings.partial_checksums = true)?;
    for len in [44, 45, 96, 97, 1_000] {
        let Some(payload) = padded(len, len >= 96) else {
            continue;
        };
        for (checksum, ipv6) in [
            (Checksum::Zero, false),
            (Checksum::Partial, false),
            (Checksum::Partial, true),
        ] {
            let frame = Frame {
                checksum,
                ..request_from(ipv6, MEMBER, payload.clone())
            };
            let (verdict, ..) = rig.judge(&frame.bytes())?;
            assert_eq!(verdict, Verdict::Send, "{checksum:?}");
        }
    }
    Ok(())
}

/// A payload of this length: base packet, ours if it fits, padding.
fn padded(len: usize, ours: bool) -> Option<Vec<u8>> {
    let mut payload = if ours {
        probe(len as u32, 7)
    } else {
        plain(len as u32)
    };
    let rest = len.checked_sub(payload.len())?;
    match rest.checked_sub(4) {
        Some(value) => payload.extend(frame::tlv(0x80, 1, &vec![0xa5; value])),
        None => payload.extend(vec![0x5a; rest]),
    }
    Some(payload)
}

/// Sends an untagged probe of ours and reads what its reply says.
fn ask(rig: &mut Rig, frame: &Frame) -> Result<Told> {
    let (verdict, reason, reply) = rig.judge(&frame.bytes())?;
    ensure!(verdict == Verdict::Send, "{verdict:?} {reason:?}");
    let payload = &reply[frame.udp_offset() + 8..];
    let tlv = &payload[44..];
    Ok(Told {
        seq: packet::be32(payload, 0),
        flags: tlv[7],
        epoch: packet::be32(tlv, 12),
        received: packet::be32(tlv, 16),
        duplicates: packet::be32(tlv, 20),
        corrupt: packet::be32(tlv, 24),
        seen: packet::be64(tlv, 32),
    })
}

fn places() -> [(Hook, bool); 4] {
    [
        (Hook::Xdp, IPV6[0]),
        (Hook::Xdp, IPV6[1]),
        (Hook::Tc, IPV6[0]),
        (Hook::Tc, IPV6[1]),
    ]
}
