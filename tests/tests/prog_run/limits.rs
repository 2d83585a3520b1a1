//! What is bounded: rates, rings, and the memory of foreigners.

use std::net::IpAddr;

use anyhow::Result;
use dt_common::map::names;
use dt_tests::datapath::{Hook, Verdict};
use dt_tests::frame::{self, Frame};
use dt_tests::skip_unless_equipped;

use crate::oracle;
use crate::packet;
use crate::rig::{
    self, HOOKS, IPV6, MEMBER, NEIGHBOUR, ROUTER, Rig, US, as_target, config, host, moved, plain,
    probe,
};

#[test]
fn a_source_gets_its_burst_and_the_rest_is_refused_and_told() -> Result<()> {
    skip_unless_equipped!();
    for hook in HOOKS {
        for from in [MEMBER, NEIGHBOUR] {
            let mut rig = Rig::new(hook)?;
            limit(&mut rig, (HOUR, 2 * HOUR), (0, 0))?;
            let verdicts = send(&mut rig, (0..6).map(|seq| request(from, probe(seq, 7))))?;
            assert_eq!(
                verdicts,
                [
                    REFLECTED,
                    REFLECTED,
                    REFLECTED,
                    SOURCE_RATE,
                    SOURCE_RATE,
                    SOURCE_RATE
                ]
            );
            limit(&mut rig, (0, 0), (0, 0))?;
            let reply = rig
                .datapath
                .ingress(hook, &request(from, probe(6, 7)).bytes())?
                .frame;
            let tlv = &reply[14 + 20 + 8 + 44..];
            let (received, refused) = (packet::be32(tlv, 16), packet::be32(tlv, 28));
            assert_eq!((received, refused), (4, 3));
        }
    }
    Ok(())
}

#[test]
fn one_source_does_not_use_up_anothers_rate() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = Rig::new(Hook::Xdp)?;
    limit(&mut rig, (HOUR, 0), (0, 0))?;
    let sources = [MEMBER, NEIGHBOUR, ROUTER, MEMBER, NEIGHBOUR, ROUTER];
    let verdicts = send(&mut rig, sources.map(|from| request(from, probe(1, 7))))?;
    assert_eq!(
        verdicts,
        [
            REFLECTED,
            REFLECTED,
            REFLECTED,
            SOURCE_RATE,
            SOURCE_RATE,
            SOURCE_RATE
        ]
    );
    Ok(())
}

#[test]
fn a_source_cannot_multiply_its_rate_by_sessions() -> Result<()> {
    skip_unless_equipped!();
    for from in [MEMBER, NEIGHBOUR] {
        let mut rig = Rig::new(Hook::Xdp)?;
        limit(&mut rig, (HOUR, 0), (0, 0))?;
        // Not an agent's, each with an SSID of its own.
        let guests = (0..4).map(|ssid| {
            let payload = [frame::request(1, 0, 1, ssid), frame::our_tlv(7, 0)].concat();
            request(from, payload)
        });
        assert_eq!(
            send(&mut rig, guests)?,
            [REFLECTED, SOURCE_RATE, SOURCE_RATE, SOURCE_RATE]
        );
    }
    Ok(())
}

#[test]
fn beginning_anew_does_not_refill_a_members_rate() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = Rig::new(Hook::Xdp)?;
    limit(&mut rig, (HOUR, 0), (0, 0))?;
    let restarts = (0..3).map(|epoch| request(MEMBER, probe(1, epoch)));
    assert_eq!(
        send(&mut rig, restarts)?,
        [REFLECTED, SOURCE_RATE, SOURCE_RATE]
    );
    Ok(())
}

#[test]
fn all_sources_together_have_a_rate() -> Result<()> {
    skip_unless_equipped!();
    for hook in HOOKS {
        let mut rig = Rig::new(hook)?;
        limit(&mut rig, (0, 0), (HOUR, HOUR))?;
        let sources = [MEMBER, NEIGHBOUR, ROUTER, MEMBER];
        let verdicts = send(&mut rig, sources.map(|from| request(from, plain(1))))?;
        assert_eq!(verdicts, [REFLECTED, REFLECTED, TOTAL_RATE, TOTAL_RATE]);
        rig.datapath.set_total_arrival(0)?;
        assert_eq!(send(&mut rig, [request(MEMBER, plain(1))])?, [REFLECTED]);
    }
    Ok(())
}

#[test]
fn a_full_ring_is_counted_as_such_and_touches_no_other_ring() -> Result<()> {
    skip_unless_equipped!();
    for (ssid, ring, other, at_least) in [
        (5, names::EVENTS, names::GUEST_EVENTS[0], 10_000),
        (0xf000, names::GUEST_EVENTS[0], names::EVENTS, 1_200),
        (
            0xf3ff,
            names::GUEST_EVENTS[3],
            names::GUEST_EVENTS[2],
            1_200,
        ),
    ] {
        let mut rig = Rig::new(Hook::Xdp)?;
        let target = oracle::Target {
            ssid,
            address: dt_tests::datapath::mapped(host(false, MEMBER)),
            port: 862,
            pass_every: 0,
        };
        rig.datapath.set_target(ssid, &as_target(&target))?;
        let reply = Frame::udp(
            (host(false, MEMBER), 862),
            (host(false, US), 61_000),
            frame::request(1, 0, 1, ssid),
        )
        .bytes();
        let sent = at_least + at_least / 4;
        let before = rig.datapath.counters()?;
        for _ in 0..sent {
            assert_eq!(
                rig.datapath.ingress(Hook::Xdp, &reply)?.verdict,
                Verdict::Drop
            );
        }
        let after = rig.datapath.counters()?;
        let overrun = u64::from(rig.datapath.target(ssid)?.overrun);
        let collected = rig.datapath.events(ring)?.len() as u64;
        assert!(
            collected >= at_least && overrun > 0,
            "{collected} collected, {overrun} overrun"
        );
        assert_eq!(collected + overrun, sent);
        assert_eq!(
            moved(&before, &after),
            [("collected", collected), ("ring_full", overrun)]
        );
        assert_eq!(rig.datapath.events(other)?, []);
        // There is room again.
        rig.datapath.ingress(Hook::Xdp, &reply)?;
        assert_eq!(rig.datapath.events(ring)?.len(), 1);
    }
    Ok(())
}

#[test]
fn a_flood_of_foreigners_makes_others_begin_anew_but_no_member() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = Rig::new(Hook::Xdp)?;
    rig.judge(&rig::request_from(false, MEMBER, probe(1, 7)).bytes())?;
    for index in 0..40_000_u32 {
        let [_, _, high, low] = index.to_be_bytes();
        let source = IpAddr::from([172, 20, high, low]);
        let payload = [frame::request(index, 0, 1, 7), frame::our_tlv(index, 0x08)].concat();
        let frame = Frame {
            source,
            ..rig::request_from(false, NEIGHBOUR, payload)
        };
        // The oracle accepts a session that begins again only as one that begins: counters from one, another epoch.
        rig.judge_quickly(&frame.bytes())?;
        if index % 1_000 == 999 {
            let old = IpAddr::from([172, 20, 0, 0]);
            let payload = [frame::request(index, 0, 1, 7), frame::our_tlv(0, 0x08)].concat();
            rig.judge_quickly(
                &Frame {
                    source: old,
                    ..rig::request_from(false, NEIGHBOUR, payload)
                }
                .bytes(),
            )?;
        }
    }
    let (verdict, _, reply) = rig.judge(&rig::request_from(false, MEMBER, probe(2, 7)).bytes())?;
    assert_eq!(
        (verdict, packet::be32(&reply, 14 + 20 + 8)),
        (Verdict::Send, 1)
    );
    Ok(())
}

#[test]
fn the_verifier_has_room_for_other_kernels_and_later_versions() -> Result<()> {
    skip_unless_equipped!();
    let rig = Rig::new(Hook::Xdp)?;
    for (program, limit) in [
        ("xdp_ingress", 400_000),
        ("tc_ingress", 400_000),
        // Sixty-four probes of one list are walked one by one.
        ("tc_egress", 400_000),
    ] {
        // A million is what the kernel allows.
        let walked = rig.datapath.verified_instructions(program)?;
        assert!(
            walked.is_none_or(|walked| walked < limit),
            "{program}: {walked:?}"
        );
        println!("{program}: {walked:?} instructions walked");
    }
    Ok(())
}

/// Interval and burst per source and for all together.
fn limit(rig: &mut Rig, source: (u64, u64), total: (u64, u64)) -> Result<()> {
    let mut limited = config(&rig.oracle.settings);
    (limited.source_interval_ns, limited.source_burst_ns) = source;
    (limited.total_interval_ns, limited.total_burst_ns) = total;
    rig.datapath.set_config(&limited)
}

/// Runs frames, each of which must move one counter by one, and returns these counters.
fn send(rig: &mut Rig, frames: impl IntoIterator<Item = Frame>) -> Result<Vec<&'static str>> {
    let mut reasons = Vec::new();
    for frame in frames {
        let before = rig.datapath.counters()?;
        rig.datapath.ingress(rig.hook, &frame.bytes())?;
        let moved = moved(&before, &rig.datapath.counters()?);
        assert!(matches!(moved[..], [(_, 1)]), "{moved:?}");
        reasons.push(moved[0].0);
    }
    Ok(reasons)
}

fn request(from: u8, payload: Vec<u8>) -> Frame {
    rig::request_from(IPV6[0], from, payload)
}

/// Long enough that no test sees the end of it.
const HOUR: u64 = 3_600_000_000_000;
const REFLECTED: &str = "reflected";
const SOURCE_RATE: &str = "source_rate";
const TOTAL_RATE: &str = "total_rate";
