//! How members come and go, told apart by the others.

use anyhow::{Context, Result, ensure};
use dt_feed::proto::PeerState;
use dt_tests::agent::settle;
use dt_tests::feed::{excused, unexplained};
use dt_tests::servers::{Place, ZooKeeper, zookeeper};
use dt_tests::wait::{self, unix_now_ns};
use dt_tests::{Lab, SERVERS, agent, skip_unless_equipped, skip_unless_served};

use super::{Node, SECOND, SESSION_S, in_zookeeper, lab, leave, node_of, seconds, show, verdict};

#[test]
fn joining_restarting_failing_and_leaving_are_told_apart_and_probing_never_stops() -> Result<()> {
    skip_unless_equipped!();
    skip_unless_served!();
    let lab = lab(3)?;
    let zookeeper = zookeeper::Options::given()?.start(&Place::on(&lab, SERVERS))?;
    let servers = zookeeper.address().to_string();
    let mut others = [
        Node::start(&lab, "n1", &servers)?,
        Node::start(&lab, "n2", &servers)?,
    ];
    let began = others[0].diary.wait_probed("n2", 0)?;
    others[1].diary.wait_probed("n1", 0)?;

    let mut subject = show(join(&lab, &mut others, &servers));
    show(restart(&lab, &mut others, &mut subject, &servers));
    show(fail(&lab, &mut others, &mut subject, &servers));
    show(leave_running(&lab, &mut others, &mut subject, &servers));
    show(leave_after_failing(&lab, &mut others, &servers));
    show(delete_by_hand(&lab, &mut others, &zookeeper));
    let [one, two] = &mut others;
    one.diary.check_probing("n2", began)?;
    two.diary.check_probing("n1", began + SECOND)?;
    for node in &mut others {
        ensure!(node.agent.stop()?.success());
    }
    Ok(())
}

fn join(lab: &Lab, others: &mut [Node; 2], servers: &str) -> Result<Node> {
    let started = unix_now_ns()?;
    let subject = Node::start(lab, "n3", servers)?;
    let mut latest = 0.0_f64;
    for node in others {
        let first = node.diary.wait_probed("n3", started)?;
        latest = latest.max(seconds(started, first));
    }
    ensure!(latest < 2.0, "probed only after {latest} s");
    verdict(
        "a new member is probed by all others within 2 s of its start",
        &format!("by the last of them after {latest:.3} s"),
    );
    Ok(subject)
}

/// Down for longer than its session lasts.
fn restart(lab: &Lab, others: &mut [Node; 2], subject: &mut Node, servers: &str) -> Result<()> {
    for node in &mut *others {
        let state = PeerState::Alive;
        node.diary.wait_state("n3", state, 0)?;
    }
    let stopped = unix_now_ns()?;
    ensure!(subject.agent.stop()?.success());
    let ended = unix_now_ns()?;
    for node in &mut *others {
        node.diary.wait_past(ended + 6 * SECOND)?;
        let states = node.diary.states("n3", ended + SECOND);
        ensure!(
            states.iter().all(|one| one.state == PeerState::Restarting),
            "{states:?}"
        );
    }
    let back = unix_now_ns()?;
    *subject = Node::of(&super::launch(lab, "n3", servers)?, "n3", "n3-again")?;
    let mut gap_s = 0.0_f64;
    for node in &mut *others {
        node.diary.wait_state("n3", PeerState::Alive, back)?;
        gap_s = gap_s.max(node.diary.check_probing("n3", stopped)?);
        let mut feed = node.agent.feed();
        settle(&mut feed, "n3")?;
        let counters = feed.total("n3");
        ensure!(unexplained(&counters) == 0, "{counters:?}");
        ensure!(excused(&counters) == counters.not_admitted, "{counters:?}");
    }
    verdict(
        "an agent that restarts (SIGTERM, down three times its session) is RESTARTING, probed on, and no probe is lost",
        &format!(
            "RESTARTING in every window, 0 probes lost, longest pause between probes {gap_s:.3} s"
        ),
    );
    Ok(())
}

fn fail(lab: &Lab, others: &mut [Node; 2], subject: &mut Node, servers: &str) -> Result<()> {
    let killed = unix_now_ns()?;
    subject.agent.kill()?;
    let (mut latest, mut gap_s) = (0.0_f64, 0.0_f64);
    for node in &mut *others {
        let failed = node.diary.wait("FAILED of n3", |diary| {
            let states = diary.states("n3", killed).into_iter();
            states
                .into_iter()
                .find(|one| one.state == PeerState::Failed)
        })?;
        latest = latest.max(seconds(killed, failed.end_ns));
        node.diary.wait_past(failed.end_ns + 2 * SECOND)?;
        gap_s = gap_s.max(node.diary.check_probing("n3", killed)?);
    }
    ensure!(latest < SESSION_S + 2.0, "FAILED only after {latest} s");
    verdict(
        "a killed agent is shown FAILED within its session timeout (2 s) + 2 s, and probed on",
        &format!(
            "in a window that ended after {latest:.3} s, longest pause between probes {gap_s:.3} s"
        ),
    );
    let back = unix_now_ns()?;
    *subject = Node::of(&super::launch(lab, "n3", servers)?, "n3", "n3-third")?;
    for node in others {
        node.diary.wait_state("n3", PeerState::Alive, back)?;
    }
    Ok(())
}

fn leave_running(
    lab: &Lab,
    others: &mut [Node; 2],
    subject: &mut Node,
    servers: &str,
) -> Result<()> {
    leave(lab, "n3", servers)?;
    let left = unix_now_ns()?;
    ensure!(subject.agent.process.wait(agent::LIMIT)?.success());
    let latest = last_probe_after(others, left)?;
    verdict(
        "a member that leaves (dt-agent leave) is no longer probed within 1 s, and its agent ends",
        &format!("last probe after {latest:.3} s, its agent ended with status 0"),
    );
    Ok(())
}

fn leave_after_failing(lab: &Lab, others: &mut [Node; 2], servers: &str) -> Result<()> {
    let back = unix_now_ns()?;
    let mut subject = Node::of(&super::launch(lab, "n3", servers)?, "n3", "n3-fourth")?;
    for node in &mut *others {
        node.diary.wait_probed("n3", back)?;
    }
    let killed = unix_now_ns()?;
    subject.agent.kill()?;
    for node in &mut *others {
        node.diary.wait_state("n3", PeerState::Failed, killed)?;
    }
    let said = leave(lab, "n3", servers)?;
    ensure!(said.contains("told to forget it"), "{said}");
    let latest = last_probe_after(others, unix_now_ns()?)?;
    verdict(
        "a failed member whose agent does not run leaves: no longer probed within 1 s",
        &format!("last probe after {latest:.3} s"),
    );
    Ok(())
}

/// For how long after it left the subject was probed, s.
fn last_probe_after(others: &mut [Node; 2], left: u64) -> Result<f64> {
    let mut latest = 0.0_f64;
    for node in others {
        node.diary.wait_past(left + 3 * SECOND)?;
        let last = node.diary.last_sent("n3").context("it was probed")?;
        latest = latest.max(seconds(left, last));
    }
    ensure!(latest < 1.0, "probed for {latest} s more");
    Ok(latest)
}

fn delete_by_hand(lab: &Lab, others: &mut [Node; 2], zookeeper: &ZooKeeper) -> Result<()> {
    let server = zookeeper.address();
    let path = node_of(lab, server, "n2")?;
    let before = created(lab, zookeeper, &path)?;
    let deleted = unix_now_ns()?;
    in_zookeeper(lab, server, None, async |client| {
        Ok(client.delete(&path, None).await?)
    })?;
    wait::until("node that was made again", agent::LIMIT, || {
        let again = created(lab, zookeeper, &path)?;
        Ok(again.filter(|again| Some(*again) != before).map(drop))
    })?;
    let one = &mut others[0].diary;
    one.wait_past(deleted + 3 * SECOND)?;
    let last = *one.states("n2", deleted).last().context("it is a peer")?;
    ensure!(last.state == PeerState::Alive, "{last:?}");
    let gap_s = one.check_probing("n2", deleted)?;
    verdict(
        "a node deleted by hand is made again by its agent, and probing goes on",
        &format!("made again, ALIVE, longest pause between probes {gap_s:.3} s"),
    );
    Ok(())
}

/// The transaction that made a node, if it is there.
fn created(lab: &Lab, zookeeper: &ZooKeeper, path: &str) -> Result<Option<i64>> {
    in_zookeeper(lab, zookeeper.address(), None, async |client| {
        let stat = client.check_stat(path).await?;
        Ok(stat.map(|stat| stat.czxid))
    })
}
