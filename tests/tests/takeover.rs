//! Agents end, crash, are replaced and upgraded; what their peers measure through it all.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use dt_tests::agent::{self, settle, wait_for_feed};
use dt_tests::fault::Faults;
use dt_tests::feed::{Pair, excused, unexplained};
use dt_tests::wait::unix_now_ns;
use dt_tests::{Agent, FaultyWire, Feed, Lab, Launch, given, skip_unless_equipped};

#[test]
fn a_killed_agent_is_answered_for_until_its_lease_ends_and_then_no_more() -> Result<()> {
    skip_unless_equipped!();
    let stage = Stage::raise(&["--lease=5s"])?;
    let Stage {
        mut subject,
        mut feed,
        ..
    } = stage;
    subject.kill()?;
    let killed = unix_now_ns()?;
    wait_for_feed("end of the answers", &mut feed, |feed| {
        let after = feed.pair("n2")?.received_after(killed);
        // Two windows, so that none is meant in which only nothing was sent.
        matches!(after.as_slice(), [.., 0, 0]).then_some(())
    })?;
    let after = pair(&feed)?.received_after(killed);
    assert!(after[0] > 0, "answers per window after the kill: {after:?}");
    let stopped = after.iter().position(|received| *received == 0);
    let stopped = stopped.context("they stopped")?;
    assert!(
        after[stopped..].iter().all(|received| *received == 0),
        "{after:?}"
    );

    let again = Launch::on(&stage.lab, "n2")?
        .flags(&["--mode=xdp"])
        .start("n2-again")?;
    let started = unix_now_ns()?;
    wait_for_feed("answers by the next agent", &mut feed, |feed| {
        feed.pair("n2")?
            .received_after(started)
            .last()
            .filter(|received| **received > 0)
            .map(drop)
    })?;
    drop(again);
    Ok(())
}

#[test]
fn an_agent_started_within_the_lease_takes_over_and_its_peers_lose_nothing() -> Result<()> {
    skip_unless_equipped!();
    let mut stage = Stage::raise(&[])?;
    stage.subject.kill()?;
    stage.replace("n2-again", &given::agent()?)?;
    let pair = stage.verdict()?;
    assert_eq!(pair.counters.peer_restarted, 0, "{:?}", pair.counters);
    assert_eq!(excused(&pair.counters), 0, "{:?}", pair.counters);
    Ok(())
}

#[test]
fn a_stopped_agent_hands_over_for_longer_than_its_lease() -> Result<()> {
    skip_unless_equipped!();
    let mut stage = Stage::raise(&["--lease=3s", "--handover=60s"])?;
    assert!(stage.subject.stop()?.success());
    let lease_is_over = unix_now_ns()? + 5_000_000_000;
    wait_for_feed("answers after the lease", &mut stage.feed, |feed| {
        let after = feed.pair("n2")?.received_after(lease_is_over);
        (after.len() > 1 && after.iter().all(|received| *received > 0)).then_some(())
    })?;
    stage.replace("n2-again", &given::agent()?)?;
    let pair = stage.verdict()?;
    assert_eq!(excused(&pair.counters), 0, "{:?}", pair.counters);
    Ok(())
}

#[test]
fn an_upgrade_to_another_abi_version_and_back_loses_nothing() -> Result<()> {
    skip_unless_equipped!();
    let mut stage = Stage::raise(&[])?;
    let ours = dt_common::ABI_VERSION;
    assert_eq!(stage.abi_directories()?, [format!("abi-{ours}")]);
    stage.subject.kill()?;
    stage.replace("n2-next", &given::next_agent()?)?;
    // The maps of the version before went when all links had been updated.
    assert_eq!(stage.abi_directories()?, [format!("abi-{}", ours + 1)]);
    assert!(stage.subject.stop()?.success());
    stage.replace("n2-back", &given::agent()?)?;
    assert_eq!(stage.abi_directories()?, [format!("abi-{ours}")]);
    let pair = stage.verdict()?;
    // Counters of another version's maps begin anew; the peer must not take that for loss.
    assert_eq!(
        excused(&pair.counters),
        pair.counters.peer_restarted,
        "{:?}",
        pair.counters
    );
    Ok(())
}

#[test]
fn an_interface_that_vanished_and_came_back_is_probed_again() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::mesh(2)?;
    agent::write_peers(&lab, &agent::all_members(&lab))?;
    let mut agents = Vec::new();
    for host in ["n1", "n2"] {
        agents.push(Launch::on(&lab, host)?.start(host)?);
    }
    let mut feeds: Vec<_> = agents.iter().map(Agent::feed).collect();
    for (feed, peer) in feeds.iter_mut().zip(["n2", "n1"]) {
        wait_for_feed("answers by xdp", feed, |feed| {
            feed.pair(peer)?.modes.get("xdp").map(drop)
        })?;
    }
    lab.unplug("n1", "n2")?;
    for agent in &mut agents {
        agent.wait_for_mode("none")?;
    }
    lab.plug("n1", "n2")?;
    let plugged = unix_now_ns()?;
    for (feed, peer) in feeds.iter_mut().zip(["n2", "n1"]) {
        wait_for_feed("answers by xdp on the new interface", feed, |feed| {
            let pair = feed.pair(peer)?;
            let received = pair.received_after(plugged);
            let last = pair.history.last()?;
            (received.last() > Some(&0) && last.mode == "xdp").then_some(())
        })?;
    }
    Ok(())
}

/// `n1` watches `n2`, whose agent goes and comes.
struct Stage {
    // In the order of removal.
    subject: Agent,
    _observer: Agent,
    feed: Feed,
    _wire: FaultyWire,
    lab: Lab,
}

impl Stage {
    /// Both agents at work, and the observer's first answers read.
    fn raise(flags: &[&str]) -> Result<Self> {
        let lab = Lab::wire()?;
        let wire = FaultyWire::join(&lab, PORT, Faults::default(), Faults::default())?;
        agent::write_peers(&lab, &agent::all_members(&lab))?;
        let mut subject = Launch::on(&lab, "n2")?
            .flags(&["--mode=xdp"])
            .flags(flags)
            .start("n2")?;
        subject.wait_for_mode("xdp")?;
        let observer = Launch::on(&lab, "n1")?.flags(&["--mode=xdp"]).start("n1")?;
        let mut feed = observer.feed();
        wait_for_feed("answers", &mut feed, |feed| {
            (feed.received("n2") >= 100).then_some(())
        })?;
        Ok(Self {
            subject,
            _observer: observer,
            feed,
            _wire: wire,
            lab,
        })
    }

    /// Starts another agent in the subject's place and waits until it has found its rung.
    fn replace(&mut self, log: &str, binary: &Path) -> Result<()> {
        self.subject = Launch::on(&self.lab, "n2")?
            .flags(&["--mode=xdp"])
            .binary(binary.to_path_buf())
            .start(log)?;
        self.subject.wait_for_mode("xdp")?;
        let mut feed = self.subject.feed();
        // A whole window that the new agent itself measured.
        let now = unix_now_ns()?;
        wait_for_feed("answers to the new agent", &mut feed, |feed| {
            (feed.pair("n1")?.received_after(now).len() > 1).then_some(())
        })?;
        let counters = feed.pair("n1").context("it was measured")?.counters;
        assert_eq!(unexplained(&counters), 0, "{counters:?}");
        Ok(())
    }

    /// What the observer says in the end, after whatever is missing has been decided: nothing was lost.
    fn verdict(&mut self) -> Result<Pair> {
        settle(&mut self.feed, "n2")?;
        let pair = pair(&self.feed)?;
        eprintln!("{:?}", pair.counters);
        assert!(pair.adds_up(), "{:?}", pair.counters);
        assert_eq!(unexplained(&pair.counters), 0, "{:?}", pair.counters);
        assert!(pair.is_all("xdp"), "{:?}", pair.modes);
        Ok(pair)
    }

    fn abi_directories(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(self.lab.pin_dir().join("n2"))?;
        let names: Vec<_> = entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        Ok(names
            .into_iter()
            .filter(|name| name.starts_with("abi-"))
            .collect())
    }
}

fn pair(feed: &Feed) -> Result<Pair> {
    feed.pair("n2").cloned().context("n2 was probed")
}

const PORT: u16 = 862;
