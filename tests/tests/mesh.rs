//! A mesh of three hosts: every pair measured, none lost, and the ways in which an operator changes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use dt_feed::proto::StampSource;
use dt_tests::agent::{self, LIMIT, settle, wait_for_feed};
use dt_tests::feed::{Feed, excused, unexplained};
use dt_tests::wait::{self, unix_now_ns};
use dt_tests::{Lab, LabObject, Launch, given, skip_unless_equipped};
use nix::sys::signal::Signal;

#[test]
fn every_pair_is_measured_and_nothing_is_lost_in_each_mode_by_ipv4() -> Result<()> {
    skip_unless_equipped!();
    ["xdp", "tc", "socket"]
        .iter()
        .try_for_each(|mode| measure(&Lab::mesh(3)?, mode, "4"))
}

#[test]
fn every_pair_is_measured_and_nothing_is_lost_in_each_mode_by_ipv6() -> Result<()> {
    skip_unless_equipped!();
    ["xdp", "tc", "socket"]
        .iter()
        .try_for_each(|mode| measure(&Lab::mesh(3)?, mode, "6"))
}

#[test]
fn every_pair_is_measured_across_a_bridge_in_xdp() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::bridge(3)?;
    let mut switch = LabObject::load()?;
    switch.open_switch(&lab)?;
    measure(&lab, "xdp", "4")
}

#[test]
fn the_stop_key_stops_the_probing_of_the_whole_mesh_and_its_end_starts_it_again() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::mesh(2)?;
    let members = agent::all_members(&lab);
    let mut agents = agent::start_all(&lab, &["--mode=tc"])?;
    let mut feed = agents[0].feed();
    wait_for_feed("answers", &mut feed, |feed| {
        (feed.received("n2") > 0).then_some(())
    })?;

    agent::write_peers(&lab, &format!("stop = true\n{members}"))?;
    for agent in &mut agents {
        agent.wait_until_said("told to stop")?;
    }
    // The last window of a session is the shorter one in which it ended; batches go on without any.
    pass_batches(&mut feed)?;
    let sent = feed.pair("n2").context("it was probed")?.counters.sent;
    pass_batches(&mut feed)?;
    assert_eq!(feed.pair("n2").map(|pair| pair.counters.sent), Some(sent));

    agent::write_peers(&lab, &members)?;
    for agent in &mut agents {
        agent.signal(Signal::SIGHUP)?;
    }
    wait_for_feed("answers again", &mut feed, |feed| {
        (feed.pair("n2")?.counters.sent > sent).then_some(())
    })?;
    let counters = feed.pair("n2").context("it was probed")?.counters;
    assert_eq!(unexplained(&counters), 0, "{counters:?}");
    Ok(())
}

/// Waits for three more batches: what was under way before is in the feed then.
fn pass_batches(feed: &mut Feed) -> Result<()> {
    let batches = feed.batches();
    wait_for_feed("more batches", feed, |feed| {
        (feed.batches() > batches + 2).then_some(())
    })
}

#[test]
fn a_member_that_is_added_is_probed_and_one_that_is_removed_departs() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::mesh(3)?;
    let two: String = ["n1", "n2"]
        .map(|name| agent::member(lab.host(name)))
        .concat();
    agent::write_peers(&lab, &two)?;
    let mut agents = vec![];
    for host in ["n1", "n2"] {
        agents.push(Launch::on(&lab, host)?.flags(&["--mode=tc"]).start(host)?);
    }
    let mut feed = agents[0].feed();
    wait_for_feed("answers of n2", &mut feed, |feed| {
        (feed.received("n2") > 0).then_some(())
    })?;
    assert!(feed.pair("n3").is_none());

    agent::write_peers(&lab, &agent::all_members(&lab))?;
    agents.push(Launch::on(&lab, "n3")?.flags(&["--mode=tc"]).start("n3")?);
    wait_for_feed("answers of n3", &mut feed, |feed| {
        (feed.received("n3") > 0).then_some(())
    })?;

    agent::write_peers(&lab, &(two.clone() + "\n"))?;
    let removed = unix_now_ns()?;
    wait_for_feed("windows without n3", &mut feed, |feed| {
        let others = feed.pair("n2")?.received_after(removed).len();
        (others > 3 && feed.pair("n3")?.counters.in_flight == 0).then_some(())
    })?;
    let gone = feed.pair("n3").context("it was probed")?;
    assert!(gone.adds_up(), "{:?}", gone.counters);
    let kept = feed.pair("n2").context("it was probed")?.counters;
    assert_eq!(unexplained(&kept), 0, "{kept:?}");
    Ok(())
}

#[test]
fn beyond_the_peer_limit_racks_and_zones_are_probed_and_everybody_answers() -> Result<()> {
    skip_unless_equipped!();
    // Two racks in one zone, and a third one in another.
    let lab = Lab::mesh(6)?;
    let labels = ["z1 r1", "z1 r1", "z1 r2", "z1 r2", "z2 r1", "z2 r1"];
    let places = labels.map(|text| text.split_once(' ').expect("zone and rack"));
    let members = lab
        .hosts()
        .into_iter()
        .zip(places)
        .map(|(host, (zone, rack))| {
            agent::member(host) + &format!("zone = \"{zone}\"\nrack = \"{rack}\"\n")
        });
    agent::write_peers(&lab, &members.collect::<String>())?;
    let mut peers = Vec::new();
    let launch = |host: &dt_tests::Host| {
        let flags = ["--mode=tc", "--peer-limit=4"];
        Launch::on(&lab, host.name())?
            .flags(&flags)
            .start(host.name())
    };
    let mut agents = (lab.hosts().into_iter().map(launch)).collect::<Result<Vec<_>>>()?;
    for agent in &mut agents {
        let line = agent.wait_until_said("There are more members than the peer limit")?;
        assert!(
            line.contains("others=5") && line.contains("1 of the own rack"),
            "{line}"
        );
        let mut feed = agent.feed();
        let probed = wait_for_feed("answers of all that are probed", &mut feed, |feed| {
            let probed: Vec<_> = feed.peers().into_iter().map(str::to_owned).collect();
            let answered = probed.iter().all(|peer| feed.received(peer) > 0);
            (probed.len() >= 3 && answered).then_some(probed)
        })?;
        assert!(probed.len() <= 4, "{probed:?}");
        peers.push(probed);
    }
    let hosts = lab.hosts().into_iter().map(dt_tests::Host::name);
    let place_of: BTreeMap<_, _> = hosts.zip(places).collect();
    for from in places {
        let probed: BTreeSet<_> = (places.iter().zip(&peers))
            .filter(|(place, _)| **place == from)
            .flat_map(|(_, probed)| probed.iter().map(|peer| place_of[peer.as_str()]))
            .collect();
        let covers = |to: &(&str, &str)| probed.contains(to) || from.0 != to.0;
        assert!(places.iter().all(covers), "{from:?} probes {probed:?} only");
        let zones: BTreeSet<_> = probed.iter().map(|(zone, _)| *zone).collect();
        assert_eq!(zones.len(), 2, "{from:?} probes {probed:?} only");
    }
    Ok(())
}

#[test]
fn sigterm_flushes_the_feed_and_ends_the_agent_well_within_two_seconds() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::mesh(2)?;
    let mut agents = agent::start_all(&lab, &["--mode=tc", "--window=60s"])?;
    agents[0].wait_for_mode("tc")?;
    // The windows are long: what arrives in the feed before their end was flushed.
    wait::until("probes of n1", LIMIT, || {
        let text = lab
            .host("n1")
            .run(&["ip", "-j", "-s", "link", "show", "dev", "to-n2"])?;
        let links: serde_json::Value = serde_json::from_str(&text)?;
        let packets = links[0]["stats64"]["rx"]["packets"].as_u64();
        Ok((packets > Some(100)).then_some(()))
    })?;
    let status = agents[0]
        .process
        .terminate(std::time::Duration::from_secs(2))?;
    assert!(status.success());
    let mut feed = agents[0].feed();
    feed.read()?;
    let pair = feed.pair("n2").context("the last window was flushed")?;
    assert!(pair.counters.received > 0 && pair.adds_up(), "{pair:?}");
    Ok(())
}

#[test]
fn protoc_reads_a_segment_that_an_agent_wrote() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::mesh(2)?;
    let mut agents = agent::start_all(&lab, &["--mode=tc", "--detail=probes"])?;
    let mut feed = agents[0].feed();
    wait_for_feed("answers", &mut feed, |feed| {
        (feed.received("n2") > 0).then_some(())
    })?;
    assert!(agents[0].stop()?.success());
    let entry = fs::read_dir(agents[0].feed_dir())?
        .next()
        .context("a segment")??;
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/../api/proto/v1");
    let output = Command::new("protoc")
        .args([
            "--decode=distributed_trace.v1.Segment",
            &format!("-I{schema}"),
            "messages.proto",
        ])
        .stdin(Stdio::from(fs::File::open(entry.path())?))
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout)?;
    assert!(
        text.contains("source: \"n1\"")
            && text.contains("name: \"n2\"")
            && text.contains("probes {")
    );
    assert!(
        !text
            .lines()
            .any(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit())),
        "{text}"
    );
    Ok(())
}

#[test]
fn the_second_agent_of_one_node_name_says_so_and_ends() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::mesh(2)?;
    let mut agents = agent::start_all(&lab, &["--mode=tc"])?;
    agents[1].wait_for_mode("tc")?;
    agents[0].wait_for_mode("tc")?;
    let mut second = Launch::on(&lab, "n2")?
        .setting("DT_NODE", "n1")
        .setting("DT_FEED", "none")
        .flags(&["--mode=tc"])
        .start("second")?;
    second
        .process
        .wait_for_line("another agent runs as node n1", LIMIT)?;
    assert!(!second.process.wait(LIMIT)?.success());
    let mut feed = agents[0].feed();
    let now = unix_now_ns()?;
    wait_for_feed("that the first one works on", &mut feed, |feed| {
        (feed.pair("n2")?.received_after(now).len() > 1).then_some(())
    })?;
    assert_eq!(unexplained(&feed.total("n2")), 0);
    Ok(())
}

#[test]
fn flags_win_over_variables_and_these_over_the_file() -> Result<()> {
    skip_unless_equipped!();
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("agent.toml");
    fs::write(
        &file,
        "rate = 3\nwindow = \"7s\"\ndscp = 11\ndiscovery = \"file:/nowhere\"\n",
    )?;
    let output = Command::new(given::agent()?)
        .args(["run", "--print-config", "--rate=5", "--config"])
        .arg(&file)
        .env("DT_RATE", "4")
        .env("DT_WINDOW", "8s")
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    for line in ["rate = 5", "window = \"8s\"", "dscp = 11"] {
        assert!(text.contains(line), "no {line} in\n{text}");
    }
    Ok(())
}

/// All pairs in the mode that was asked for, and not one probe lost.
fn measure(lab: &Lab, mode: &str, family: &str) -> Result<()> {
    let flags = [format!("--mode={mode}"), format!("--family={family}")];
    let agents = agent::start_all(lab, &flags.each_ref().map(String::as_str))?;
    for (host, agent) in lab.hosts().into_iter().zip(&agents) {
        let mut feed = agent.feed();
        let others = lab.hosts().into_iter().map(dt_tests::Host::name);
        for peer in others.filter(|peer| *peer != host.name()) {
            wait_for_feed("answers", &mut feed, |feed| {
                (feed.received(peer) >= 200).then_some(())
            })?;
            settle(&mut feed, peer)?;
            let pair = feed.pair(peer).context("it was measured")?;
            let counters = pair.counters;
            assert!(pair.is_all(mode), "{mode}: {:?}", pair.modes);
            let method = pair.history.last().context("a window")?.method;
            assert_eq!((method.t1(), method.t4()), stamp_sources(mode));
            assert!(pair.adds_up(), "{counters:?}");
            assert_eq!(unexplained(&counters), 0, "{counters:?}");
            assert_eq!(excused(&counters), counters.not_admitted, "{counters:?}");
        }
    }
    Ok(())
}

/// Where T1 and T4 of a mode come from, once all is settled.
fn stamp_sources(mode: &str) -> (StampSource, StampSource) {
    match mode {
        "xdp" => (StampSource::TcEgress, StampSource::Xdp),
        "tc" => (StampSource::TcEgress, StampSource::TcIngress),
        _ => (StampSource::SocketSoftware, StampSource::SocketSoftware),
    }
}
