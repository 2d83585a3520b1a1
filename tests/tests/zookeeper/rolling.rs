//! A rolling restart, as an upgrade of the whole mesh is: every agent in turn is ended, stays away, and comes back.

use anyhow::{Result, ensure};
use dt_feed::proto::PeerState;
use dt_tests::agent::settle;
use dt_tests::feed::{excused, unexplained};
use dt_tests::servers::{Place, zookeeper};
use dt_tests::wait::unix_now_ns;
use dt_tests::{Lab, SERVERS, skip_unless_equipped, skip_unless_served};

use super::{Node, SECOND, lab, launch, show, verdict};

#[test]
fn a_rolling_restart_of_all_agents_loses_no_probe() -> Result<()> {
    skip_unless_equipped!();
    skip_unless_served!();
    let lab = lab(3)?;
    let zookeeper = zookeeper::Options::given()?.start(&Place::on(&lab, SERVERS))?;
    let servers = zookeeper.address().to_string();
    let mut mesh = Vec::new();
    for host in HOSTS {
        mesh.push(Node::start(&lab, host, &servers)?);
    }
    for host in HOSTS {
        show(wait_alive(&mut mesh, host, 0));
    }
    show(roll(&lab, &mut mesh, &servers));
    for node in &mut mesh {
        ensure!(node.agent.stop()?.success());
    }
    Ok(())
}

fn roll(lab: &Lab, mesh: &mut [Node], servers: &str) -> Result<()> {
    let mut gap_s = 0.0_f64;
    for at in 0..HOSTS.len() {
        gap_s = gap_s.max(restart(lab, mesh, at, servers)?);
    }
    let mut sent = 0;
    for (node, host) in mesh.iter().zip(HOSTS) {
        let mut feed = node.agent.feed();
        for peer in HOSTS.iter().filter(|peer| **peer != host) {
            settle(&mut feed, peer)?;
            // Of all starts: also of the one that was ended while probes were under way.
            let counters = feed.total(peer);
            ensure!(unexplained(&counters) == 0, "{host} → {peer}: {counters:?}");
            ensure!(
                excused(&counters) == counters.not_admitted,
                "{host} → {peer}: {counters:?}"
            );
            sent += counters.sent;
        }
    }
    verdict(
        "a rolling restart of all agents, each kept down 20 s: no peer's probe of it is lost",
        &format!("0 of {sent} probes lost, longest pause between probes {gap_s:.3} s"),
    );
    Ok(())
}

/// Ends one agent, starts it again after [`DOWN_S`] seconds; the longest pause in the probing by the others, s.
fn restart(lab: &Lab, mesh: &mut [Node], at: usize, servers: &str) -> Result<f64> {
    let host = HOSTS[at];
    let stopped = unix_now_ns()?;
    ensure!(mesh[at].agent.stop()?.success());
    let ended = unix_now_ns()?;
    for other in others(mesh, at) {
        other.diary.wait_past(ended + DOWN_S * SECOND)?;
        let states = other.diary.states(host, ended + SECOND);
        ensure!(
            states.iter().all(|one| one.state == PeerState::Restarting),
            "{host}: {states:?}"
        );
    }
    let back = unix_now_ns()?;
    mesh[at] = Node::of(&launch(lab, host, servers)?, host, &format!("{host}-again"))?;
    wait_alive(mesh, host, back)?;
    let mut gap_s = 0.0_f64;
    for other in others(mesh, at) {
        gap_s = gap_s.max(other.diary.check_probing(host, stopped)?);
    }
    // The next one goes when this one does its share again.
    for peer in HOSTS.iter().filter(|peer| **peer != host) {
        mesh[at].diary.wait_probed(peer, back)?;
    }
    Ok(gap_s)
}

/// Waits until all others think a member alive, in a window that ended after this instant, ns unix.
fn wait_alive(mesh: &mut [Node], member: &str, after_ns: u64) -> Result<()> {
    for (node, _) in mesh
        .iter_mut()
        .zip(HOSTS)
        .filter(|(_, host)| *host != member)
    {
        node.diary.wait_state(member, PeerState::Alive, after_ns)?;
    }
    Ok(())
}

fn others(mesh: &mut [Node], at: usize) -> impl Iterator<Item = &mut Node> {
    let nodes = mesh.iter_mut().enumerate();
    nodes
        .filter(move |(other, _)| *other != at)
        .map(|(_, node)| node)
}

const HOSTS: [&str; 3] = ["n1", "n2", "n3"];
/// For how long each agent is away.
const DOWN_S: u64 = 20;
