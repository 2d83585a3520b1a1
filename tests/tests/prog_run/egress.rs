//! The stamper: T1 into probes that carry our mark, and nothing else.

use anyhow::{Context, Result};
use dt_tests::datapath::{Hook, MARK, Outcome, Verdict};
use dt_tests::frame::{self, Checksum, Frame};
use dt_tests::skip_unless_equipped;

use crate::packet::{self, Headers};
use crate::rig::{IPV6, MEMBER, Rig, TAGS, US, host, moved};

#[test]
fn a_probe_with_our_mark_gets_t1_an_error_estimate_and_a_right_checksum() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = Rig::new(Hook::Tc)?;
    for ipv6 in IPV6 {
        for tags in TAGS {
            for payload in payloads() {
                let frame = Frame {
                    tags: tags.to_vec(),
                    ..probe(ipv6, payload)
                };
                let outcome = stamp(&mut rig, MARK, &frame.bytes(), Some("stamped"))?;
                check_stamped(&rig, &frame, &outcome)?;
                assert_summed(&outcome.frame, frame.payload.len());
            }
        }
    }
    Ok(())
}

#[test]
fn a_checksum_left_out_is_made_and_our_tlv_says_so() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = Rig::new(Hook::Tc)?;
    for ipv6 in IPV6 {
        for (tags, payload) in TAGS
            .iter()
            .flat_map(|tags| payloads().into_iter().map(move |one| (tags, one)))
        {
            let mut frame = Frame {
                tags: tags.to_vec(),
                checksum: Checksum::Zero,
                ..probe(ipv6, payload)
            };
            let outcome = stamp(&mut rig, MARK, &frame.bytes(), Some("stamped"))?;
            if packet::has_our_tlv(&frame.payload) {
                frame.payload[44 + 7] |= 0x40;
            }
            check_stamped(&rig, &frame, &outcome)?;
            assert_summed(&outcome.frame, frame.payload.len());
        }
    }
    Ok(())
}

/// Only its first fragment is a probe's: what is not there cannot be summed.
#[test]
fn a_fragment_without_a_checksum_keeps_none() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = Rig::new(Hook::Tc)?;
    for payload in payloads() {
        let frame = Frame {
            checksum: Checksum::Zero,
            fragment: 0x2000,
            ..probe(false, payload)
        };
        let outcome = stamp(&mut rig, MARK, &frame.bytes(), Some("stamped"))?;
        check_stamped(&rig, &frame, &outcome)?;
        assert_eq!(packet::be16(&outcome.frame, frame.udp_offset() + 6), 0);
    }
    Ok(())
}

#[test]
fn without_a_lease_a_checksum_left_out_is_made_all_the_same() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = Rig::new(Hook::Tc)?;
    rig.set(|settings| settings.lease = false)?;
    for ipv6 in IPV6 {
        for payload in payloads() {
            let frame = Frame {
                checksum: Checksum::Zero,
                ..probe(ipv6, payload)
            };
            let outcome = rig.datapath.egress(MARK, &frame.bytes())?;
            let t1 = frame.udp_offset() + 8 + 4;
            assert_eq!(
                outcome.frame[t1..t1 + 10],
                frame.bytes()[t1..t1 + 10],
                "T1 and its error estimate"
            );
            assert_summed(&outcome.frame, frame.payload.len());
        }
    }
    Ok(())
}

#[test]
fn a_computed_checksum_of_zero_is_sent_as_all_ones() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = Rig::new(Hook::Tc)?;
    // One bit in 65,536 stampings, and the time differs each time: what matters is that zero never appears.
    for seq in 0..20_000_u32 {
        let frame = Frame {
            checksum: if seq.is_multiple_of(2) {
                Checksum::Right
            } else {
                Checksum::Zero
            },
            ..probe(true, frame::request(seq, 0, 1, 9))
        };
        let outcome = rig.datapath.egress(MARK, &frame.bytes())?;
        assert_ne!(packet::be16(&outcome.frame, frame.udp_offset() + 6), 0);
    }
    Ok(())
}

#[test]
fn packets_without_our_mark_or_from_other_ports_are_left_alone() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = Rig::new(Hook::Tc)?;
    for ipv6 in IPV6 {
        let ours = probe(ipv6, frame::request(1, 0, 1, 9));
        for mark in [0, 1, MARK ^ 1, MARK << 16] {
            stamp(&mut rig, mark, &ours.bytes(), None)?;
        }
        let others = [
            Frame {
                source_port: 60_999,
                ..ours.clone()
            },
            Frame {
                source_port: 61_004,
                ..ours.clone()
            },
            Frame {
                payload: vec![0; 43],
                ..ours.clone()
            },
        ];
        for frame in others {
            stamp(&mut rig, MARK, &frame.bytes(), None)?;
        }
        // Not UDP: the protocol's field is changed, whatever that makes of the rest.
        let mut tcp = ours.bytes();
        let at = ours.ip_offset() + if ipv6 { 6 } else { 9 };
        tcp[at] = 6;
        stamp(&mut rig, MARK, &tcp, None)?;
    }
    Ok(())
}

#[test]
fn without_a_lease_a_probe_leaves_unstamped_and_untouched() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = Rig::new(Hook::Tc)?;
    rig.set(|settings| settings.lease = false)?;
    for ipv6 in IPV6 {
        for payload in payloads() {
            stamp(
                &mut rig,
                MARK,
                &probe(ipv6, payload).bytes(),
                Some("unstamped_lease"),
            )?;
        }
    }
    Ok(())
}

#[test]
fn a_probe_cut_at_any_byte_is_no_fault() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = Rig::new(Hook::Tc)?;
    for ipv6 in IPV6 {
        let frame = probe(ipv6, payloads().pop().context("there are some")?);
        // The kernel runs no skb without the IP header that its type announces.
        let (shortest, frame) = (frame.udp_offset(), frame.bytes());
        for len in shortest..frame.len() {
            let outcome = rig.datapath.egress(MARK, &frame[..len])?;
            assert_eq!((outcome.verdict, outcome.frame.len()), (Verdict::Pass, len));
        }
    }
    Ok(())
}

/// Runs a frame and demands that this counter moves and that without it nothing was changed.
fn stamp(rig: &mut Rig, mark: u32, bytes: &[u8], reason: Option<&'static str>) -> Result<Outcome> {
    let before = rig.datapath.counters()?;
    let outcome = rig.datapath.egress(mark, bytes)?;
    let moved = moved(&before, &rig.datapath.counters()?);
    let expected: Vec<_> = reason.iter().map(|reason| (*reason, 1)).collect();
    assert_eq!((outcome.verdict, moved), (Verdict::Pass, expected));
    if reason != Some("stamped") {
        assert_eq!(outcome.frame, bytes);
    }
    Ok(outcome)
}

fn assert_summed(bytes: &[u8], payload_len: usize) {
    let Headers::Udp(datagram) = packet::headers(bytes) else {
        panic!("{bytes:?} is no UDP")
    };
    let udp = &bytes[datagram.udp..datagram.end()];
    assert_ne!(packet::be16(bytes, datagram.udp + 6), 0);
    let sum = packet::sum(udp) + packet::pseudo_sum(bytes, &datagram);
    assert_eq!(sum % 0xffff, 0, "{payload_len} bytes");
}

fn check_stamped(rig: &Rig, frame: &Frame, outcome: &Outcome) -> Result<()> {
    let settings = &rig.oracle.settings;
    let at = frame.udp_offset() + 8;
    let mut wanted = frame.bytes();
    let t1 = packet::be64(&outcome.frame, at + 4);
    let offset = settings.clock_offset_ns;
    let span = (
        outcome.before_ns.wrapping_add(offset),
        outcome.after_ns.wrapping_add(offset),
    );
    packet::check_times(t1, t1, span.0, span.1).map_err(anyhow::Error::msg)?;
    wanted[at + 4..at + 12].copy_from_slice(&t1.to_be_bytes());
    wanted[at + 12..at + 14].copy_from_slice(&settings.error_estimate.to_be_bytes());
    if frame.payload.len() >= 96 && frame.payload[45] == 252 {
        wanted[at + 84..at + 86].copy_from_slice(&settings.clock_generation.to_be_bytes());
    }
    let checksum = frame.udp_offset() + 6;
    wanted[checksum..checksum + 2].copy_from_slice(&outcome.frame[checksum..checksum + 2]);
    assert_eq!(outcome.frame, wanted);
    Ok(())
}

fn probe(ipv6: bool, payload: Vec<u8>) -> Frame {
    Frame::udp((host(ipv6, US), 61_001), (host(ipv6, MEMBER), 862), payload)
}

/// Bare, with our TLV, odd and long, with somebody else's TLV.
fn payloads() -> Vec<Vec<u8>> {
    let base = frame::request(0x0102_0304, 0x1111_2222_3333_4444, 0x5555, 9);
    let ours = [&base[..], &frame::our_tlv(7, 0x08)].concat();
    vec![
        base.clone(),
        [&base[..], &frame::tlv(0x80, 1, &[9; 60])].concat(),
        [&ours[..], &frame::tlv(0x80, 1, &[0xff; 1001])].concat(),
        ours,
    ]
}
