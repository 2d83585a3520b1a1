//! What a running agent notices: routes that appear, interfaces that need sockets, settings that were written anew.

use std::fs;

use anyhow::{Context, Result};
use dt_tests::agent::{self, LIMIT, wait_for_feed};
use dt_tests::{Agent, Lab, Launch, skip_unless_equipped, wait};
use nix::sys::signal::Signal;

#[test]
fn a_peer_without_a_route_is_probed_by_the_programs_once_there_is_one() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::mesh(2)?;
    agent::write_peers(&lab, &agent::all_members(&lab))?;
    let (n1, to_n2) = (lab.host("n1"), lab.host("n2").ipv4().to_string());
    n1.run(&["ip", "route", "delete", &to_n2])?;
    let start = |host| Launch::on(&lab, host)?.flags(&["--mode=tc"]).start(host);
    let mut agents = [start("n1")?, start("n2")?];
    agents[0].wait_until_said("No way to this peer yet")?;
    agents[0].wait_until_said("Started")?;
    let from = n1.ipv4().to_string();
    n1.run(&["ip", "route", "add", &to_n2, "dev", "to-n2", "src", &from])?;
    wait_for_feed("answers in mode tc", &mut agents[0].feed(), |feed| {
        (*feed.pair("n2")?.modes.get("tc")? > 0).then_some(())
    })
}

#[test]
fn sockets_ask_for_stamps_only_while_an_interface_needs_them() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::mesh(2)?;
    agent::write_peers(&lab, &agent::all_members(&lab))?;
    let start = |host| Launch::on(&lab, host)?.start(host);
    let agents = [start("n1")?, start("n2")?];
    let mut feed = agents[0].feed();
    let in_xdp = |feed: &dt_tests::Feed| {
        let last = feed.pair("n2")?.history.last()?;
        (last.mode == "xdp" && last.received > 0).then_some(last.start_unix_ns)
    };
    wait_for_feed("answers in mode xdp", &mut feed, in_xdp)?;
    // What was open while the interfaces were proved is closed when its replies would have come.
    wait_for_stamps(&agents[0], "no socket", |count| count == 0)?;
    lab.unplug("n1", "n2")?;
    // Those of probes and that of the reflector.
    wait_for_stamps(&agents[0], "sockets", |count| count > 1)?;
    let unplugged = wait::unix_now_ns()?;
    lab.plug("n1", "n2")?;
    wait_for_feed("answers in mode xdp again", &mut feed, |feed| {
        (in_xdp(feed)? > unplugged).then_some(())
    })?;
    wait_for_stamps(&agents[0], "no socket again", |count| count == 0)
}

fn wait_for_stamps(agent: &Agent, what: &str, fits: impl Fn(usize) -> bool) -> Result<()> {
    wait::until(&format!("{what} with receive stamps"), LIMIT, || {
        let count = agent.process.stamping_sockets()?;
        Ok(fits(count).then_some(()))
    })
}

#[test]
fn on_sighup_settings_are_taken_or_named_and_broken_ones_change_nothing() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::mesh(2)?;
    agent::write_peers(&lab, &agent::all_members(&lab))?;
    let file = lab.dir().join("agent.toml");
    fs::write(&file, "rate = 50\n")?;
    let mut agent = Launch::on(&lab, "n1")?
        .flags(&["--mode=socket", "--config", &file.display().to_string()])
        .setting("DT_RATE", "")
        .start("n1")?;
    let mut feed = agent.feed();
    wait_for_feed("a whole window", &mut feed, |feed| {
        let sent = feed.pair("n2")?.history.last()?.sent;
        (40..=60).contains(&sent).then_some(())
    })?;

    fs::write(&file, "rate = 200\ndscp = 7\nlog = \"debug\"\n")?;
    agent.signal(Signal::SIGHUP)?;
    let taken = agent.wait_until_said("are in use now")?;
    assert!(taken.contains("keys=rate, log"), "{taken}");
    let waiting = agent.wait_until_said("need a restart")?;
    assert!(waiting.contains("keys=dscp"), "{waiting}");
    wait_for_feed("a window at the new rate", &mut feed, |feed| {
        let sent = feed.pair("n2")?.history.last()?.sent;
        (180..=220).contains(&sent).then_some(())
    })?;

    fs::write(&file, "rte = 1\n")?;
    agent.signal(Signal::SIGHUP)?;
    agent.wait_until_said("The settings stay as they are")?;
    let batches = feed.batches();
    wait_for_feed("windows after that", &mut feed, |feed| {
        (feed.batches() > batches + 2).then_some(())
    })?;
    let pair = feed.pair("n2").context("it is probed")?;
    let sent = pair.history.last().map(|last| last.sent);
    assert!(sent.is_some_and(|sent| sent >= 180), "{sent:?}");
    Ok(())
}
