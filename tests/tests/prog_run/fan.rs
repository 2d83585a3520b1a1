//! Lists of probes to make: what comes of one that lists a single probe can be seen whole, in its place.

use anyhow::Result;
use dt_common::fan::{FAN_MAGIC, FAN_PORT, FanHead, FanOrder, HOP_LIFE_NS, Hop};
use dt_tests::datapath::{Hook, IFINDEX, MARK, Outcome, Verdict, monotonic_ns};
use dt_tests::frame::{self, Checksum, Frame};
use dt_tests::skip_unless_equipped;
use zerocopy::IntoBytes;

use crate::packet::{self, Headers};
use crate::rig::{IPV6, MEMBER, Rig, STRANGER, US, host, moved};

#[test]
fn a_probe_that_is_made_is_the_one_that_a_socket_would_send() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = Rig::new(Hook::Tc)?;
    for ipv6 in IPV6 {
        learn(&mut rig, ipv6)?;
        let outcome = run(&mut rig, &list(ipv6, &[order(ipv6)])?)?;
        assert_eq!(outcome.verdict, Verdict::Send, "IPv6: {ipv6}");
        let Headers::Udp(datagram) = packet::headers(&outcome.frame) else {
            panic!("IPv6: {ipv6}: no UDP in {:?}", outcome.frame)
        };
        let udp = &outcome.frame[datagram.udp..datagram.end()];
        let sum = packet::sum(udp) + packet::pseudo_sum(&outcome.frame, &datagram);
        assert_eq!(sum % 0xffff, 0, "IPv6: {ipv6}");
        let mut expected = made(ipv6).bytes();
        let at = datagram.udp + 6;
        expected[at..at + 2].copy_from_slice(&outcome.frame[at..at + 2]);
        assert_eq!(outcome.frame, expected, "IPv6: {ipv6}");

        // And on its second way through the program it gets its T1, but teaches nobody the way that it was told.
        let hop = rig.datapath.hop(ssid(ipv6))?;
        let stamped = run(&mut rig, &outcome.frame)?;
        assert_eq!(stamped.verdict, Verdict::Pass);
        assert_ne!(packet::be64(&stamped.frame, datagram.udp + 12), 1);
        assert_eq!(rig.datapath.hop(ssid(ipv6))?, hop);
    }
    Ok(())
}

#[test]
fn the_way_is_learned_from_probes_that_leave_as_they_were_meant_to() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = Rig::new(Hook::Tc)?;
    for ipv6 in IPV6 {
        let probe = ordinary(ipv6);
        rig.datapath.set_hop(ssid(ipv6), &Hop::default())?;
        let changed = [
            // Of a second interface's program: stamped already.
            Frame {
                payload: frame::request(1, 7, 0, ssid(ipv6)),
                ..probe.clone()
            },
            Frame {
                destination: host(ipv6, STRANGER),
                ..probe.clone()
            },
            Frame {
                destination_port: 863,
                ..probe.clone()
            },
            Frame {
                tags: vec![(0x8100, 7)],
                ..probe.clone()
            },
            Frame {
                payload: frame::request(1, 0, 0, 77),
                ..probe.clone()
            },
        ];
        for frame in changed {
            run(&mut rig, &frame.bytes())?;
            assert_eq!(rig.datapath.hop(ssid(ipv6))?, Hop::default(), "{frame:?}");
            assert_eq!(rig.datapath.hop(77)?, Hop::default(), "{frame:?}");
        }
        let outcome = run(&mut rig, &probe.bytes())?;
        let hop = rig.datapath.hop(ssid(ipv6))?;
        assert_eq!(hop.ifindex, IFINDEX);
        assert_eq!(hop.ethernet.as_bytes(), &probe.bytes()[..12]);
        assert!((outcome.before_ns..=outcome.after_ns).contains(&hop.learned_ns));
    }
    Ok(())
}

#[test]
fn nothing_is_made_where_the_way_is_not_known_for_sure() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = Rig::new(Hook::Tc)?;
    for ipv6 in IPV6 {
        learn(&mut rig, ipv6)?;
        let hop = rig.datapath.hop(ssid(ipv6))?;
        let now = monotonic_ns()?;
        let others = [
            (
                "never learned",
                Hop {
                    learned_ns: 0,
                    ..hop
                },
            ),
            (
                "too old",
                Hop {
                    learned_ns: now - HOP_LIFE_NS,
                    ..hop
                },
            ),
            (
                "by another own address",
                Hop {
                    source: hop.source ^ 1,
                    ..hop
                },
            ),
            (
                "to the target that had the SSID before",
                Hop {
                    destination: hop.destination ^ 1,
                    ..hop
                },
            ),
        ];
        for (what, other) in others {
            rig.datapath.set_hop(ssid(ipv6), &other)?;
            assert_not_made(&mut rig, &list(ipv6, &[order(ipv6)])?, what)?;
        }
        rig.datapath.set_hop(ssid(ipv6), &hop)?;
        // The other IP version's target, a guest's SSID, one beyond the map's end.
        for (what, ssid) in [
            ("version", ssid(!ipv6)),
            ("guest", 0xf000),
            ("last", 0xffff),
        ] {
            let order = FanOrder {
                ssid,
                ..order(ipv6)
            };
            assert_not_made(&mut rig, &list(ipv6, &[order])?, what)?;
        }
        rig.set(|settings| settings.lease = false)?;
        assert_not_made(&mut rig, &list(ipv6, &[order(ipv6)])?, "no lease")?;
        rig.set(|settings| settings.lease = true)?;
        assert_eq!(
            run(&mut rig, &list(ipv6, &[order(ipv6)])?)?.verdict,
            Verdict::Send,
            "all that was wrong is right again"
        );
    }
    Ok(())
}

#[test]
fn a_list_is_worked_on_once_and_not_after_it_was_taken_back() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = Rig::new(Hook::Tc)?;
    learn(&mut rig, false)?;
    let first = list(false, &[order(false)])?;
    assert_eq!(run(&mut rig, &first)?.verdict, Verdict::Send);
    let report = rig.datapath.fan_report()?;
    assert_eq!(run(&mut rig, &first)?.verdict, Verdict::Drop);
    assert_eq!(rig.datapath.fan_report()?, report, "nothing is told of it");

    let second = list(false, &[order(false)])?;
    let serial = u64::from_ne_bytes(second[50..58].try_into()?);
    rig.datapath.revoke(serial)?;
    assert_eq!(run(&mut rig, &second)?.verdict, Verdict::Drop);
    let report = rig.datapath.fan_report()?;
    assert_eq!((report.made, report.done == serial), (0, false));

    let third = list(false, &[order(false)])?;
    assert_eq!(run(&mut rig, &third)?.verdict, Verdict::Send);
    Ok(())
}

#[test]
fn what_an_interface_does_not_take_is_not_made_and_nothing_overtakes_it() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = Rig::new(Hook::Tc)?;
    learn(&mut rig, false)?;
    let hop = rig.datapath.hop(ssid(false))?;
    rig.datapath.set_hop(
        ssid(false),
        &Hop {
            ifindex: u32::MAX,
            ..hop
        },
    )?;
    let orders = [1, 2, 3].map(|seq| FanOrder {
        seq,
        ..order(false)
    });
    let outcome = rig.datapath.egress(MARK, &list(false, &orders)?)?;
    assert_eq!(outcome.verdict, Verdict::Drop);
    let report = rig.datapath.fan_report()?;
    assert_eq!((report.made, report.congested), (0, 0));
    assert_eq!(rig.datapath.hop(ssid(false))?.learned_ns, 0, "unlearned");
    Ok(())
}

#[test]
fn what_only_looks_like_a_list_makes_nothing_and_harms_nothing() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = Rig::new(Hook::Tc)?;
    for ipv6 in IPV6 {
        learn(&mut rig, ipv6)?;
        for count in [0, 65, 80] {
            let list = list(ipv6, &vec![order(ipv6); count])?;
            assert_not_made(&mut rig, &list, &format!("{count} orders"))?;
        }
        let whole = list(ipv6, &[order(ipv6)])?;
        let payload = whole.len() - 32;
        for len in payload - 8..whole.len() {
            let outcome = run(&mut rig, &whole[..len])?;
            assert_ne!(outcome.verdict, Verdict::Send, "{len} bytes");
        }
        // Another mark, another port, another magic: no list at all.
        assert_eq!(
            rig.datapath.egress(MARK ^ 1, &whole)?.verdict,
            Verdict::Pass
        );
        for at in [payload - 5, payload] {
            let mut other = whole.clone();
            other[at] ^= 1;
            assert_eq!(run(&mut rig, &other)?.verdict, Verdict::Pass, "byte {at}");
        }
    }
    Ok(())
}

/// A list of which nothing comes: dropped, and told so.
fn assert_not_made(rig: &mut Rig, list: &[u8], what: &str) -> Result<()> {
    let outcome = run(rig, list)?;
    let report = rig.datapath.fan_report()?;
    assert_eq!(outcome.verdict, Verdict::Drop, "{what}");
    assert_eq!((report.made, report.congested), (0, 0), "{what}");
    assert_eq!(report.done, report.serial, "{what}");
    Ok(())
}

/// Runs a frame with our mark; a probe that is made is counted, and nothing else is.
fn run(rig: &mut Rig, bytes: &[u8]) -> Result<Outcome> {
    let before = rig.datapath.counters()?;
    let outcome = rig.datapath.egress(MARK, bytes)?;
    let moved = moved(&before, &rig.datapath.counters()?);
    let made = moved.iter().any(|(reason, _)| *reason == "made");
    assert_eq!(made, outcome.verdict == Verdict::Send, "{moved:?}");
    Ok(outcome)
}

/// Sends an ordinary probe.
fn learn(rig: &mut Rig, ipv6: bool) -> Result<()> {
    let outcome = run(rig, &ordinary(ipv6).bytes())?;
    assert_eq!(outcome.verdict, Verdict::Pass);
    Ok(())
}

/// As a socket sends it: T1 is left to the program.
fn ordinary(ipv6: bool) -> Frame {
    let payload = [
        frame::request(1, 0, 0, ssid(ipv6)),
        frame::our_tlv(0x0a0b_0c0d, 0x08),
    ];
    Frame::udp(
        (host(ipv6, US), 61_001),
        (host(ipv6, MEMBER), 862),
        payload.concat(),
    )
}

/// What [`order`] asks for, before it is stamped.
fn made(ipv6: bool) -> Frame {
    let order = order(ipv6);
    let payload = [
        frame::request(order.seq, 1, 0, ssid(ipv6)),
        frame::our_tlv(order.sender_epoch, order.flags | 0x40),
    ];
    Frame {
        source_port: order.source_port,
        payload: payload.concat(),
        ttl: 255,
        ..ordinary(ipv6)
    }
}

fn order(ipv6: bool) -> FanOrder {
    FanOrder {
        seq: 0x0102_0304,
        sender_epoch: 0x0a0b_0c0d,
        ssid: ssid(ipv6),
        source_port: 61_002,
        flags: 0x08,
        pad: [0; 3],
    }
}

/// The member's, see `rig::settings`.
const fn ssid(ipv6: bool) -> u16 {
    5 + ipv6 as u16
}

/// A packet that lists these, with a serial of its own.
fn list(ipv6: bool, orders: &[FanOrder]) -> Result<Vec<u8>> {
    let head = FanHead {
        magic: FAN_MAGIC,
        serial: monotonic_ns()?,
    };
    let frame = Frame {
        ttl: 1,
        checksum: Checksum::Zero,
        ..Frame::udp(
            (host(ipv6, US), 40_000),
            (host(ipv6, MEMBER), FAN_PORT),
            [head.as_bytes(), orders.as_bytes()].concat(),
        )
    };
    Ok(frame.bytes())
}
