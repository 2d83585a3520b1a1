//! ZooKeeper restarts, hangs, loses its leader or is gone for long, and members come and go behind an agent's back.

use anyhow::{Context, Result, ensure};
use dt_feed::proto::PeerState;
use dt_tests::servers::{Place, ZooKeeper, zookeeper};
use dt_tests::wait::{self, unix_now_ns};
use dt_tests::{Lab, SERVERS, agent, given, skip_unless_equipped, skip_unless_served};

use super::{Node, SECOND, lab, launch, leave, nodes, seconds, show, verdict};

#[test]
fn no_absence_of_zookeeper_stops_the_probing_but_one_beyond_the_grace_period() -> Result<()> {
    skip_unless_equipped!();
    skip_unless_served!();
    let lab = lab(4)?;
    let mut zookeeper = zookeeper::Options::given()?.start(&Place::on(&lab, SERVERS))?;
    let servers = zookeeper.address().to_string();
    let start = |host: &str| {
        let grace = GRACE_S.to_string() + "s";
        let launch = launch(&lab, host, &servers)?.setting("DT_MEMBERSHIP_GRACE", grace);
        Node::of(&launch, host, host)
    };
    let mut mesh = vec![start("n1")?, start("n2")?, start("n3")?];
    show(wait_all_probed(&mut mesh, &["n1", "n2", "n3"], 0));

    show(restart(&lab, &mut mesh, &mut zookeeper));
    show(freeze(&lab, &mut mesh, &mut zookeeper));
    show(behind_its_back(&lab, &mut mesh, &zookeeper, start));
    show(beyond_grace(&lab, &mut mesh, &mut zookeeper));
    for node in &mut mesh {
        ensure!(node.agent.stop()?.success());
    }
    Ok(())
}

/// Waits until each node probed each other one after this instant, ns unix.
fn wait_all_probed(mesh: &mut [Node], names: &[&str], after_ns: u64) -> Result<()> {
    for (node, own) in mesh.iter_mut().zip(names) {
        for peer in names.iter().filter(|peer| *peer != own) {
            node.diary.wait_probed(peer, after_ns)?;
        }
    }
    Ok(())
}

/// Waits until each node thinks each other one alive, in a window that began after this instant, ns unix.
fn wait_all_alive(mesh: &mut [Node], names: &[&str], after_ns: u64) -> Result<()> {
    for (node, own) in mesh.iter_mut().zip(names) {
        for peer in names.iter().filter(|peer| *peer != own) {
            node.diary.wait(&format!("ALIVE of {peer}"), |diary| {
                let last = *diary.states(peer, after_ns).last()?;
                (last.start_ns > after_ns && last.state == PeerState::Alive).then_some(())
            })?;
        }
    }
    Ok(())
}

fn wait_nodes(lab: &Lab, zookeeper: &ZooKeeper, count: usize) -> Result<()> {
    wait::until("one node per agent", agent::LIMIT, || {
        // It may not serve yet.
        let there = nodes(lab, zookeeper.address()).ok();
        Ok(there.filter(|nodes| nodes.len() == count).map(drop))
    })
}

/// The longest pause in probing between any two since this instant, ns unix, in s.
fn check_all(mesh: &mut [Node], names: &[&str], since_ns: u64) -> Result<f64> {
    let mut gap_s = 0.0_f64;
    for (node, own) in mesh.iter_mut().zip(names) {
        for peer in names.iter().filter(|peer| *peer != own) {
            gap_s = gap_s.max(node.diary.check_probing(peer, since_ns)?);
        }
    }
    Ok(gap_s)
}

fn restart(lab: &Lab, mesh: &mut [Node], zookeeper: &mut ZooKeeper) -> Result<()> {
    let stopped = unix_now_ns()?;
    zookeeper.stop()?;
    for node in &mut *mesh {
        node.agent.wait_until_said("The last membership is kept")?;
    }
    zookeeper.start()?;
    for node in &mut *mesh {
        node.agent.wait_until_said("ZooKeeper is reached again")?;
    }
    let back = unix_now_ns()?;
    wait_nodes(lab, zookeeper, 3)?;
    wait_all_alive(mesh, &["n1", "n2", "n3"], back)?;
    let gap_s = check_all(mesh, &["n1", "n2", "n3"], stopped)?;
    verdict(
        "ZooKeeper restarts: all are members still, probing goes on",
        &format!("one node per agent, all ALIVE, longest pause between probes {gap_s:.3} s"),
    );
    Ok(())
}

/// Beyond the session timeout, so that all expire at once.
fn freeze(lab: &Lab, mesh: &mut [Node], zookeeper: &mut ZooKeeper) -> Result<()> {
    let names = ["n1", "n2", "n3"];
    let frozen = unix_now_ns()?;
    zookeeper.freeze()?;
    for node in &mut *mesh {
        node.diary.wait_past(frozen + 3 * SECOND)?;
    }
    zookeeper.thaw()?;
    let thawed = unix_now_ns()?;
    ensure!(
        seconds(frozen, thawed) < GRACE_S as f64,
        "the machine is too slow for this test"
    );
    wait_all_alive(mesh, &names, thawed + 4 * SECOND)?;
    wait_nodes(lab, zookeeper, 3)?;
    let gap_s = check_all(mesh, &names, frozen)?;
    verdict(
        "ZooKeeper frozen beyond the session timeout and thawed (mass expiry): the mesh is never empty, probing goes on",
        &format!(
            "frozen {:.1} s, all ALIVE again with one node each, longest pause between probes {gap_s:.3} s",
            seconds(frozen, thawed)
        ),
    );
    Ok(())
}

/// `n1` is cut off while `n3` leaves and `n4` joins.
fn behind_its_back(
    lab: &Lab,
    mesh: &mut Vec<Node>,
    zookeeper: &ZooKeeper,
    start: impl Fn(&str) -> Result<Node>,
) -> Result<()> {
    let cut = unix_now_ns()?;
    lab.unplug("n1", SERVERS)?;
    leave(lab, "n3", &zookeeper.address().to_string())?;
    let mut gone = mesh.pop().context("n3 is there")?;
    ensure!(gone.agent.process.wait(agent::LIMIT)?.success());
    mesh.push(start("n4")?);
    mesh[1].diary.wait_probed("n4", cut)?;
    mesh[0].diary.wait_past(unix_now_ns()?)?;
    ensure!(mesh[0].diary.first_sent("n4", 0).is_none());
    let last = mesh[0].diary.last_sent("n3").context("it was probed")?;
    ensure!(
        last > cut + SECOND,
        "n1 knew that n3 left, though it was cut off"
    );
    lab.plug("n1", SERVERS)?;
    let joined = unix_now_ns()?;
    let first = mesh[0].diary.wait_probed("n4", joined)?;
    mesh[0].diary.wait_past(first + 2 * SECOND)?;
    let last = mesh[0].diary.last_sent("n3").context("it was probed")?;
    ensure!(
        last < first + SECOND,
        "n3 is probed on for {} s",
        seconds(first, last)
    );
    let gap_s = check_all(mesh, &["n1", "n2"], cut)?;
    verdict(
        "a member joined and one left while an agent was cut off: it knows of both once it is back, probing goes on",
        &format!(
            "the new one probed and the other not {:.3} s after the link was back, longest pause between probes {gap_s:.3} s",
            seconds(joined, first)
        ),
    );
    Ok(())
}

fn beyond_grace(lab: &Lab, mesh: &mut [Node], zookeeper: &mut ZooKeeper) -> Result<()> {
    let names = ["n1", "n2", "n4"];
    let killed = unix_now_ns()?;
    zookeeper.kill()?;
    let (mut earliest, mut latest) = (f64::MAX, 0.0_f64);
    for (node, own) in mesh.iter_mut().zip(names) {
        node.diary.wait_past(killed + (GRACE_S + 4) * SECOND)?;
        for peer in names.iter().filter(|peer| **peer != own) {
            let last = node.diary.last_sent(peer).context("it was probed")?;
            let after = seconds(killed, last);
            (earliest, latest) = (earliest.min(after), latest.max(after));
        }
    }
    let grace_s = GRACE_S as f64;
    ensure!(
        earliest > grace_s - 1.0 && latest < grace_s + 2.0,
        "probing stopped between {earliest} s and {latest} s"
    );
    // Whoever does probe is answered.
    lab.host("n2").run(&[
        &given::agent()?.display().to_string(),
        "ping",
        "-c",
        "5",
        "-i",
        "10ms",
        "--mode=socket",
        "--pin-root",
        &lab.pin_dir().display().to_string(),
        &lab.host("n1").ipv4().to_string(),
    ])?;
    zookeeper.start()?;
    let back = unix_now_ns()?;
    wait_all_probed(mesh, &names, back)?;
    wait_all_alive(mesh, &names, back)?;
    verdict(
        "ZooKeeper gone longer than the grace period: probing stops then, answering goes on, and probing starts again when it is back",
        &format!(
            "grace {GRACE_S} s, last probes after {earliest:.1} to {latest:.1} s, 5 of 5 pings answered, all pairs probed again"
        ),
    );
    Ok(())
}

#[test]
fn an_ensemble_that_loses_its_leader_costs_no_member_and_no_probe() -> Result<()> {
    skip_unless_equipped!();
    skip_unless_served!();
    let lab = lab(3)?;
    let options = zookeeper::Options::given()?;
    let mut ensemble = options.start_ensemble(&Place::on(&lab, SERVERS), 3)?;
    let servers = ensemble.addresses();
    let start = |host: &str| {
        // An election is to fit into a session.
        let launch = launch(&lab, host, &servers)?.setting("DT_ZOOKEEPER_SESSION", "10s");
        Node::of(&launch, host, host)
    };
    let mut mesh = vec![start("n1")?, start("n2")?];
    wait_all_probed(&mut mesh, &["n1", "n2"], 0)?;
    wait_all_alive(&mut mesh, &["n1", "n2"], 0)?;
    let lost = unix_now_ns()?;
    let first = ensemble.leader()?;
    ensemble.servers[first].kill()?;
    let second = ensemble.leader()?;
    ensure!(second != first);
    mesh.push(start("n3")?);
    show(wait_all_alive(&mut mesh, &["n1", "n2", "n3"], lost));
    let gap_s = check_all(&mut mesh[..2], &["n1", "n2"], lost)?;
    for (node, peer) in mesh.iter().zip(["n2", "n1"]) {
        let states = node.diary.states(peer, lost);
        ensure!(
            states.iter().all(|one| one.state == PeerState::Alive),
            "{states:?}"
        );
    }
    verdict(
        "an ensemble of three loses its leader: sessions live on, members can join, probing goes on",
        &format!("ALIVE in every window, one joined, longest pause between probes {gap_s:.3} s"),
    );
    Ok(())
}

/// Longer than any absence but the last takes, also on a busy machine.
const GRACE_S: u64 = 12;
