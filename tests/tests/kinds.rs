//! Probes of several sizes, code points and source ports: on the wire as they were asked for, and each kind by itself on the
//! feed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use dt_feed::probes::Outcome;
use dt_tests::agent::{self, settle, wait_for_feed};
use dt_tests::delay_line::{DelayLine, Onward, Script};
use dt_tests::feed::{Kind, excused, unexplained};
use dt_tests::truth::{Stamps, records};
use dt_tests::{Agent, Lab, Launch, given, skip_unless_equipped};

/// How many of each kind went there and came back, and the ports that they had.
#[derive(Default)]
struct Seen {
    there: BTreeMap<Kind, u64>,
    back: BTreeMap<Kind, u64>,
    ports: BTreeSet<u16>,
}

/// IPv4 and UDP headers.
const HEADERS: usize = 28;
/// What the wire takes away there: longer packets than these.
const BLACK_HOLE: usize = 500;

/// A wire on which nothing longer than [`BLACK_HOLE`] gets there, and every 7th answer of code point 46 is lost.
fn wire(seen: &Arc<Mutex<Seen>>) -> Script {
    let seen = Arc::clone(seen);
    Box::new(move |passing| {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let length = passing.payload_bytes + HEADERS;
        let kind = (passing.dscp.into(), length as u32);
        let count = if passing.is_there {
            seen.there.entry(kind).or_default()
        } else {
            seen.back.entry(kind).or_default()
        };
        *count += 1;
        let lost = if passing.is_there {
            length > BLACK_HOLE
        } else {
            passing.dscp == 46 && (*count).is_multiple_of(7)
        };
        if passing.is_there {
            seen.ports.insert(passing.source.port());
        }
        if lost { vec![] } else { vec![Onward::held(0)] }
    })
}

fn start_pair(lab: &Lab, flags: &[&str]) -> Result<(Agent, Agent)> {
    agent::write_peers(lab, &agent::all_members(lab))?;
    let mode = flags[0];
    let name = mode.trim_start_matches("--mode=");
    let mut reflector = Launch::on(lab, "n2")?
        .flags(&[mode, "--rate=0.001"])
        .start("n2")?;
    let ready = |agent: &mut Agent| {
        if name == "socket" {
            // There is no ladder to climb.
            agent.wait_until_said("Started.")
        } else {
            agent.wait_for_mode(name)
        }
    };
    ready(&mut reflector)?;
    let mut prober = Launch::on(lab, "n1")?.flags(flags).start("n1")?;
    ready(&mut prober)?;
    Ok((reflector, prober))
}

#[test]
fn what_a_wire_does_to_one_kind_of_probes_is_said_of_that_kind() -> Result<()> {
    skip_unless_equipped!();
    for mode in ["--mode=xdp", "--mode=tc", "--mode=socket"] {
        black_hole(mode).with_context(|| mode.to_owned())?;
    }
    Ok(())
}

fn black_hole(mode: &str) -> Result<()> {
    let lab = Lab::wire()?;
    let seen = Arc::<Mutex<Seen>>::default();
    let line = DelayLine::join(&lab, wire(&seen))?;
    // Mode xdp wants programs on the other ends, and these let everything pass.
    let mut stamps = Stamps::load(&given::lab_object()?)?;
    stamps.attach_to_wire(&lab)?;
    let flags = [
        mode,
        "--rate=200",
        "--size=96:2,1000",
        "--dscp=0,46",
        "--detail=probes",
    ];
    let (_reflector, mut prober) = start_pair(&lab, &flags)?;
    let mut feed = prober.feed();
    wait_for_feed("a thousand answers", &mut feed, |feed| {
        (feed.received("n2") >= 1_000).then_some(())
    })?;
    assert!(prober.stop()?.success());
    feed.read()?;
    line.cut()?;

    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let pair = feed.pair("n2").context("it was measured")?;
    assert!(pair.adds_up(), "{pair:?}");
    let kinds: Vec<_> = pair.kinds.keys().copied().collect();
    assert_eq!(kinds, [(0, 124), (0, 1_028), (46, 124), (46, 1_028)]);
    for (kind, counters) in &pair.kinds {
        let count = |counts: &BTreeMap<Kind, u64>| counts.get(kind).copied().unwrap_or(0);
        let (there, back) = (count(&seen.there), count(&seen.back));
        assert_eq!(counters.sent, there, "{kind:?}: {counters:?}");
        // Behind the last one there may be no answer to tell by.
        assert!(counters.lost_unknown <= 2, "{kind:?}: {counters:?}");
        let undecided = counters.in_flight + counters.lost_unknown;
        let (lost_forward, lost_return) = match kind {
            (_, 1_028) => (there - undecided, 0),
            (46, _) => (0, back / 7 - undecided),
            _ => (0, 0),
        };
        let said = (counters.lost_forward, counters.lost_return);
        assert_eq!(said, (lost_forward, lost_return), "{kind:?}: {counters:?}");
        let others = counters.corrupt_forward + counters.corrupt_return;
        assert_eq!(
            (others, excused(counters)),
            (0, 0),
            "{kind:?}: {counters:?}"
        );
        assert_eq!(counters.reordered, 0, "{kind:?}: {counters:?}");
    }
    let sent = pair.counters.sent as f64;
    let share = |kind| pair.kinds[&kind].sent as f64 / sent;
    for (kind, expected) in kinds
        .iter()
        .zip([1.0 / 3.0, 1.0 / 6.0, 1.0 / 3.0, 1.0 / 6.0])
    {
        let share = share(*kind);
        assert!((share - expected).abs() < 0.01, "{kind:?} is {share}");
    }
    for record in records(prober.feed_dir())? {
        let is_long = record.class.packet_bytes == 1_028;
        let came_back = matches!(record.outcome, Outcome::Received { .. });
        assert!(!(is_long && came_back), "{record:?}");
        assert!(
            is_long || record.outcome != Outcome::LostForward,
            "{record:?}"
        );
    }
    println!(
        "{mode}: {} probes of four kinds, each as it was sent and lost",
        pair.counters.sent
    );
    Ok(())
}

#[test]
fn one_source_port_goes_through_many_and_no_probe_is_lost_by_it() -> Result<()> {
    skip_unless_equipped!();
    for flags in [
        &["--mode=xdp", "--sender=sockets"][..],
        &["--mode=xdp", "--sender=kernel"],
        &["--mode=tc", "--compare-every=4"],
        &["--mode=socket"],
    ] {
        rotate(flags).with_context(|| flags.join(" "))?;
    }
    Ok(())
}

fn rotate(flags: &[&str]) -> Result<()> {
    let lab = Lab::wire()?;
    let seen = Arc::<Mutex<Seen>>::default();
    let line = DelayLine::join(&lab, wire(&seen))?;
    // Mode xdp wants programs on the other ends, and these let everything pass.
    let mut stamps = Stamps::load(&given::lab_object()?)?;
    stamps.attach_to_wire(&lab)?;
    let ports = [
        "--rate=200",
        "--source-ports=61000-61001",
        "--rotating-ports=6",
        "--rotate-every=1s",
        "--detail=probes",
    ];
    let (_reflector, mut prober) = start_pair(&lab, &[flags, &ports].concat())?;
    let mut feed = prober.feed();
    wait_for_feed("all ports in use", &mut feed, |_| {
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        (seen.ports.len() == 8).then_some(())
    })?;
    settle(&mut feed, "n2")?;
    assert!(prober.stop()?.success());
    feed.read()?;
    line.cut()?;

    let counters = feed.total("n2");
    assert_eq!(
        unexplained(&counters) + excused(&counters),
        0,
        "{counters:?}"
    );
    assert_eq!(
        (counters.send_failed, counters.reordered),
        (0, 0),
        "{counters:?}"
    );
    let mut by_port = BTreeMap::<u16, u64>::new();
    for record in records(prober.feed_dir())? {
        *by_port.entry(record.source_port).or_default() += 1;
    }
    let named: Vec<_> = by_port.keys().copied().collect();
    assert_eq!(named, (61_000..61_008).collect::<Vec<_>>());
    let changing: u64 = (61_002..61_008).map(|port| by_port[&port]).sum();
    let staying = by_port[&61_000];
    assert!(staying.abs_diff(changing) < staying / 10, "{by_port:?}");
    println!(
        "{}: {} probes, 8 ports, 0 lost",
        flags.join(" "),
        counters.sent
    );
    Ok(())
}
