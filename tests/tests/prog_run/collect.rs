//! What the collector hands to user space about a reply.

use anyhow::{Context, Result};
use dt_common::event::{EventFlags, ReplyEvent};
use dt_common::map::{TargetFlags, names};
use dt_tests::datapath::{Hook, Verdict};
use dt_tests::frame::{Checksum, Frame};
use dt_tests::skip_unless_equipped;

use crate::packet;
use crate::rig::{HOOKS, IPV6, MEMBER, Rig, US, as_target, host};

#[test]
fn an_event_has_every_field_of_the_reply_and_both_readings_of_the_clock() -> Result<()> {
    skip_unless_equipped!();
    for hook in HOOKS {
        for ipv6 in IPV6 {
            let mut rig = Rig::new(hook)?;
            let reply = Frame {
                ttl: 250,
                ..reply(ipv6, true)
            };
            let outcome = rig.datapath.ingress(hook, &reply.bytes())?;
            assert_eq!(outcome.verdict, Verdict::Drop);
            let event = the_event(&mut rig)?;
            let now = (event.received_ns, event.t4);
            assert!((outcome.before_ns..=outcome.after_ns).contains(&now.0));
            let offset = rig.oracle.settings.clock_offset_ns;
            packet::check_times(
                now.1,
                now.1,
                now.0.wrapping_add(offset),
                now.0.wrapping_add(offset),
            )
            .map_err(anyhow::Error::msg)?;
            let place = if hook == Hook::Xdp {
                EventFlags::XDP
            } else {
                0
            };
            assert_eq!(
                event,
                ReplyEvent {
                    flags: EventFlags::TLV | place,
                    ..wanted(ipv6, now)
                }
            );
        }
    }
    Ok(())
}

#[test]
fn a_reply_without_our_tlv_leaves_its_fields_zero() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = Rig::new(Hook::Tc)?;
    rig.datapath
        .ingress(Hook::Tc, &reply(false, false).bytes())?;
    let event = the_event(&mut rig)?;
    let expected = ReplyEvent {
        flags: 0,
        seen: 0,
        sender_epoch: 0,
        epoch: 0,
        received: 0,
        duplicates: 0,
        corrupt: 0,
        refused: 0,
        sender_generation: 8,
        reflector_generation: 0,
        tlv_flags: 0,
        reply_ttl: 255,
        ..wanted(false, (event.received_ns, event.t4))
    };
    assert_eq!(event, expected);
    Ok(())
}

#[test]
fn every_so_many_replies_are_passed_up_as_well() -> Result<()> {
    skip_unless_equipped!();
    for hook in HOOKS {
        let mut rig = Rig::new(hook)?;
        let mut target = as_target(&rig.oracle.settings.targets[0]);
        target.pass_every = 3;
        target.flags |= TargetFlags::WAKE;
        rig.datapath.set_target(5, &target)?;
        for seq in 0..7_u32 {
            let mut frame = reply(false, true);
            frame.payload[24..28].copy_from_slice(&seq.to_be_bytes());
            let outcome = rig.datapath.ingress(hook, &frame.bytes())?;
            let passed = seq % 3 == 0;
            assert_eq!(
                outcome.verdict,
                if passed { Verdict::Pass } else { Verdict::Drop }
            );
            assert_eq!(outcome.frame, frame.bytes());
            let event = the_event(&mut rig)?;
            assert_eq!(
                (event.seq, event.flags & EventFlags::PASSED_UP != 0),
                (seq, passed)
            );
        }
    }
    Ok(())
}

#[test]
fn a_corrupt_reply_is_counted_with_its_target_and_marked_as_such() -> Result<()> {
    skip_unless_equipped!();
    for hook in HOOKS {
        for ipv6 in IPV6 {
            let mut rig = Rig::new(hook)?;
            let bytes = reply(ipv6, true).bytes();
            // Each bit of the last byte, which only the checksum can know.
            for bit in 0..8 {
                let mut corrupt = bytes.clone();
                *corrupt.last_mut().context("it has bytes")? ^= 1 << bit;
                let (verdict, reason, _) = rig.judge(&corrupt)?;
                assert_eq!((verdict, reason), (Verdict::Drop, Some("corrupt_reply")));
            }
            let partial = Frame {
                checksum: Checksum::Partial,
                ..reply(ipv6, true)
            };
            assert_eq!(rig.judge(&partial.bytes())?.1, Some("corrupt_reply"));
            assert_eq!(rig.datapath.target(5 + u16::from(ipv6))?.corrupt, 9);
            let events = rig.datapath.events(names::EVENTS)?;
            assert_eq!(events.len(), 9);
            assert!(
                events
                    .iter()
                    .all(|event| event.flags & EventFlags::CORRUPT != 0)
            );
            rig.set(|settings| settings.partial_checksums = true)?;
            assert_eq!(rig.judge(&partial.bytes())?.1, Some("collected"));
            for checksum in [Checksum::Partial, Checksum::Zero, Checksum::Right] {
                let mut summed = Frame {
                    checksum,
                    ..reply(ipv6, true)
                };
                summed.payload[44 + 7] |= 0x40;
                let reason = match checksum {
                    Checksum::Right => "collected",
                    _ => "corrupt_reply",
                };
                let bytes = summed.bytes();
                assert_eq!(rig.judge(&bytes)?.1, Some(reason), "{checksum:?}");
                // Reflectors of others return our TLV as it came: then that flag is the request's.
                summed.payload[44 + 7] &= !0x30;
                let is_sound = checksum != Checksum::Zero || !ipv6;
                let (_, reason, _) = rig.judge(&summed.bytes())?;
                assert_eq!(reason == Some("collected"), is_sound, "{checksum:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn replies_of_every_length_are_verified() -> Result<()> {
    skip_unless_equipped!();
    for hook in HOOKS {
        let mut rig = Rig::new(hook)?;
        for len in (44..400).chain((401..3_400).step_by(37)) {
            let mut frame = reply(false, true);
            frame.payload.resize(len, 0xc3);
            assert_eq!(
                rig.judge(&frame.bytes())?.1,
                Some("collected"),
                "{len} bytes"
            );
            let mut corrupt = frame.bytes();
            *corrupt.last_mut().context("it has bytes")? ^= 0x10;
            assert_eq!(rig.judge(&corrupt)?.1, Some("corrupt_reply"), "{len} bytes");
            rig.datapath.events(names::EVENTS)?;
        }
    }
    Ok(())
}

fn the_event(rig: &mut Rig) -> Result<ReplyEvent> {
    let mut events = rig.datapath.events(names::EVENTS)?;
    assert_eq!(events.len(), 1);
    events.pop().context("there is one")
}

/// A reply whose every byte tells where it stood.
fn reply(ipv6: bool, tlv: bool) -> Frame {
    let mut payload: Vec<u8> = (0..44).collect();
    payload[14..16].copy_from_slice(&(5 + u16::from(ipv6)).to_be_bytes());
    if tlv {
        payload.extend([0, 252, 0, 48, 0x64, 0x74, 1, 0x1b]);
        payload.extend(108..152);
    }
    Frame::udp((host(ipv6, MEMBER), 862), (host(ipv6, US), 61_002), payload)
}

/// What the event of [`reply`] must say. Numbers are the bytes at the RFC's offsets.
fn wanted(ipv6: bool, (received_ns, t4): (u64, u64)) -> ReplyEvent {
    ReplyEvent {
        received_ns,
        t1: 0x1c1d_1e1f_2021_2223,
        t2: 0x1011_1213_1415_1617,
        t3: 0x0405_0607_0809_0a0b,
        t4,
        seen: 0x8485_8687_8889_8a8b,
        seq: 0x1819_1a1b,
        reflector_seq: 0x0001_0203,
        sender_epoch: 0x6c6d_6e6f,
        epoch: 0x7071_7273,
        received: 0x7475_7677,
        duplicates: 0x7879_7a7b,
        corrupt: 0x7c7d_7e7f,
        refused: 0x8081_8283,
        ssid: 5 + u16::from(ipv6),
        source_port: 61_002,
        error_estimate: 0x0c0d,
        sender_generation: 0x8c8d,
        local_generation: 8,
        reflector_generation: 0x8e8f,
        reply_ttl: 250,
        request_ttl: 40,
        flags: 0,
        tlv_flags: 0x1b,
    }
}
