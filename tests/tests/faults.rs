//! Losses are real: what the agent says of a wire is what programs on that wire did, packet by packet.

use anyhow::{Context, Result};
use dt_feed::proto::Counters;
use dt_tests::agent::{self, LIMIT, settle, wait_for_feed};
use dt_tests::delay_line::{Damage, DelayLine, Onward, Script};
use dt_tests::fault::{Faults, Outcomes};
use dt_tests::feed::Pair;
use dt_tests::truth::Stamps;
use dt_tests::{Agent, FaultyWire, Feed, Lab, Launch, WIRE, given, skip_unless_equipped, wait};
use nix::sys::signal::Signal;

#[test]
fn every_fault_on_the_wire_is_counted_as_what_it_is_in_xdp() -> Result<()> {
    skip_unless_equipped!();
    count_faults("xdp", "4")
}

#[test]
fn every_fault_on_the_wire_is_counted_as_what_it_is_in_tc() -> Result<()> {
    skip_unless_equipped!();
    count_faults("tc", "4")
}

#[test]
fn every_fault_on_the_wire_is_counted_as_what_it_is_by_ipv6_in_xdp() -> Result<()> {
    skip_unless_equipped!();
    count_faults("xdp", "6")
}

#[test]
fn every_fault_on_the_wire_is_counted_as_what_it_is_by_ipv6_in_tc() -> Result<()> {
    skip_unless_equipped!();
    count_faults("tc", "6")
}

#[test]
fn a_spoilt_packet_whose_checksum_is_the_pseudo_headers_is_not_taken_for_one_of_this_machine()
-> Result<()> {
    skip_unless_equipped!();
    for mode in ["xdp", "tc"] {
        for family in ["4", "6"] {
            accidents(mode, family).with_context(|| format!("{mode}, IPv{family}"))?;
        }
    }
    Ok(())
}

#[test]
fn replies_that_find_the_ring_full_are_overrun_and_not_lost() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::wire()?;
    let wire = FaultyWire::join(&lab, PORT, Faults::default(), Faults::default())?;
    // Probes that wait are remembered, at most 65,536 of them: the rate times the deadline stays below that.
    let flags = ["--mode=xdp", "--rate=4000", "--timeout=10s"];
    let (_reflector, mut prober) = start_pair(&lab, &flags)?;
    let mut feed = prober.feed();
    wait_for_feed("first answer", &mut feed, |feed| some(feed.received("n2")))?;

    // Replies pile up on the wire, and come all at once while nobody reads the ring.
    let middle = lab.host(WIRE);
    let tc = |words: &str| middle.run(&words.split(' ').collect::<Vec<_>>());
    tc("tc qdisc add dev to-n1 root handle 1: tbf rate 100kbit burst 10k limit 16m")?;
    wait::until("replies that wait on the wire", LIMIT, || {
        Ok((backlog(&lab)? > MORE_THAN_THE_RING_HOLDS).then_some(()))
    })?;
    prober.signal(Signal::SIGSTOP)?;
    tc("tc qdisc change dev to-n1 root handle 1: tbf rate 1gbit burst 1m limit 16m")?;
    wait::until("end of the replies that wait", LIMIT, || {
        Ok((backlog(&lab)? == 0).then_some(()))
    })?;
    prober.signal(Signal::SIGCONT)?;

    wait_for_feed("overrun", &mut feed, |feed| {
        some(feed.pair("n2")?.counters.overrun)
    })?;
    settle(&mut feed, "n2")?;
    assert!(prober.stop()?.success());
    let pair = last_word(&mut feed)?;
    let counters = pair.counters;
    eprintln!("{counters:?}");
    assert!(pair.adds_up(), "{counters:?}");
    assert!(counters.overrun > 500, "{counters:?}");
    assert_eq!(counters.lost() + counters.late, 0, "{counters:?}");
    assert_eq!(counters.corrupt_forward + counters.corrupt_return, 0);
    assert_eq!(
        counters.received + counters.overrun + counters.in_flight,
        counters.sent
    );
    drop(wire);
    Ok(())
}

/// Packets that are spoilt in each direction.
const ACCIDENTS: u64 = 100;

/// The drivers' ends here take the pseudo-header's sum for right, but for packets that were summed by who made them.
fn accidents(mode: &str, family: &str) -> Result<()> {
    let lab = Lab::wire()?;
    let script: Script = Box::new(|passing| {
        let every = if passing.is_there { 7 } else { 11 };
        let is_struck = passing.number.is_multiple_of(every) && passing.number <= every * ACCIDENTS;
        let damage = if is_struck {
            Damage::Accident
        } else {
            Damage::None
        };
        vec![Onward { hold_ns: 0, damage }]
    });
    let line = DelayLine::join(&lab, script)?;
    // Mode xdp wants programs on the other ends.
    let mut stamps = Stamps::load(&given::lab_object()?)?;
    stamps.attach_to_wire(&lab)?;
    let flags = [
        format!("--mode={mode}"),
        format!("--family={family}"),
        "--rate=500".to_owned(),
        "--sender=sockets".to_owned(),
    ];
    let (_reflector, mut prober) = start_pair(&lab, &flags.each_ref().map(String::as_str))?;
    let mut feed = prober.feed();
    // What was spoilt there is told by answers that come later.
    wait_for_feed("more answers than are spoilt", &mut feed, |feed| {
        (feed.received("n2") >= 12 * ACCIDENTS).then_some(())
    })?;
    settle(&mut feed, "n2")?;
    assert!(prober.stop()?.success());
    line.cut()?;
    let pair = last_word(&mut feed)?;
    let counters = pair.counters;
    assert!(pair.adds_up(), "{counters:?}");
    assert_eq!(counters.corrupt_forward, ACCIDENTS, "{counters:?}");
    assert_eq!(counters.corrupt_return, ACCIDENTS, "{counters:?}");
    assert_eq!(counters.lost() + counters.late, 0, "{counters:?}");
    Ok(())
}

/// Probes through a faulty wire, and compares what the feed says with what the wire did to each single packet.
fn count_faults(mode: &str, family: &str) -> Result<()> {
    let lab = Lab::wire()?;
    let mut wire = FaultyWire::join(&lab, PORT, Faults::default(), Faults::default())?;
    let flags = [
        format!("--mode={mode}"),
        format!("--family={family}"),
        "--rate=500".to_owned(),
    ];
    let (_reflector, mut prober) = start_pair(&lab, &flags.each_ref().map(String::as_str))?;
    let mut feed = prober.feed();
    wait_for_feed("first answer", &mut feed, |feed| some(feed.received("n2")))?;
    wire.inject(Faults::MIXED_THERE, Faults::MIXED_BACK)?;
    wait::until("probes through the faulty wire", LIMIT, || {
        Ok((wire.done_there()?.corrupted >= ENOUGH_CORRUPTED).then_some(()))
    })?;
    // What is decided needs later replies, and what is lost last would have none.
    wire.heal()?;
    settle(&mut feed, "n2")?;
    assert!(prober.stop()?.success());
    let pair = last_word(&mut feed)?;

    assert!(pair.adds_up(), "{:?}", pair.counters);
    assert!(pair.is_all(mode), "{:?}", pair.modes);
    let expected = wire.expected(pair.counters.sent)?;
    let said = Outcomes::said(&pair.counters);
    eprintln!(
        "{mode}, IPv{family}: {said:?} of {} sent",
        pair.counters.sent
    );
    assert_eq!(said, expected);
    check_against_totals(&mut wire, &pair.counters)
}

/// `n1` probes and `n2` answers.
fn start_pair(lab: &Lab, flags: &[&str]) -> Result<(Agent, Agent)> {
    agent::write_peers(lab, &agent::all_members(lab))?;
    // To the reflector the prober has another port, so that what it sends is not counted on the wire.
    let others = lab.dir().join("reflector.toml");
    let prober = agent::member(lab.host("n1")) + "port = 9\n";
    std::fs::write(&others, prober + &agent::member(lab.host("n2")))?;
    let mode = flags[0].trim_start_matches("--mode=");
    let mut reflector = Launch::on(lab, "n2")?
        .setting("DT_DISCOVERY", format!("file:{}", others.display()))
        .flags(&["--rate=0.001", flags[0]])
        .start("n2")?;
    reflector.wait_for_mode(mode)?;
    let prober = Launch::on(lab, "n1")?.flags(flags).start("n1")?;
    Ok((reflector, prober))
}

/// The same by the wire's totals, where these say it: a request that is dropped or spoilt has no second copy.
fn check_against_totals(wire: &mut FaultyWire, counters: &Counters) -> Result<()> {
    let (there, back) = (wire.done_there()?, wire.done_back()?);
    eprintln!("there {there:?}, back {back:?}");
    assert_eq!(there.seen, counters.sent);
    assert_eq!(there.dropped, counters.lost_forward);
    assert_eq!(there.corrupted, counters.corrupt_forward);
    assert_eq!(there.duplicated, counters.duplicate_forward);
    assert_eq!(
        back.seen,
        there.seen - there.dropped - there.corrupted + there.duplicated
    );
    assert_eq!(back.duplicated, counters.duplicate_return);
    // Of two answers to one probe either may be the one that is missing.
    assert!(back.dropped >= counters.lost_return && counters.lost_return > 0);
    assert!(back.corrupted >= counters.corrupt_return && counters.corrupt_return > 0);
    Ok(())
}

/// All that was said, after the agent ended.
fn last_word(feed: &mut Feed) -> Result<Pair> {
    feed.read()?;
    feed.pair("n2").cloned().context("n2 was probed")
}

/// Packets that wait before the wire's end at `n1`.
fn backlog(lab: &Lab) -> Result<u64> {
    let text = lab
        .host(WIRE)
        .run(&["tc", "-s", "-j", "qdisc", "show", "dev", "to-n1"])?;
    let queues: serde_json::Value = serde_json::from_str(&text)?;
    queues[0]["qlen"].as_u64().context("a queue has a length")
}

fn some(count: u64) -> Option<()> {
    (count > 0).then_some(())
}

const PORT: u16 = 862;
/// Of each 17 requests one is spoilt; then every combination of faults has come many times.
const ENOUGH_CORRUPTED: u64 = 300;
/// The ring has 1 MiB, an event with its header 104 bytes.
const MORE_THAN_THE_RING_HOLDS: u64 = 11_500;
