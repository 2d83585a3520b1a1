//! A broker that is not there yet, dies, hangs, and comes back with an empty disk, under the same agents.

use std::thread;

use anyhow::{Context, Result, ensure};
use dt_tests::servers::{Kafka, Place, kafka};
use dt_tests::topic::Topic;
use dt_tests::{Agent, Lab, SERVERS, agent, skip_unless_equipped, skip_unless_served, wait};
use nix::mount::{MsFlags, mount};

use super::{
    A_WHILE, TOPIC, check_pauses, check_probing, count_lines, lab, launch, spool_of, verdict,
    wait_for_sequence,
};

#[test]
fn no_absence_of_the_broker_costs_a_batch_or_a_probe() -> Result<()> {
    skip_unless_equipped!();
    skip_unless_served!();
    let lab = lab(2)?;
    let mut kafka = kafka::Options::given()?
        .line("auto.create.topics.enable=false")
        .prepare(&Place::on(&lab, SERVERS))?;
    let broker = kafka.address().to_string();
    // The spool of the second is full after some batches.
    let narrow = spool_of(&lab, "n2");
    std::fs::create_dir_all(&narrow)?;
    mount(
        Some("tmpfs"),
        &narrow,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=12k"),
    )?;
    let mut agents = [
        launch(&lab, "n1", &broker, &[])?,
        launch(&lab, "n2", &broker, &[])?,
    ];

    absent_at_start(&lab, &mut agents, &mut kafka)?;
    gone_and_back(&lab, &agents, &mut kafka)?;
    hanging(&lab, &mut kafka)?;
    empty_disk(&lab, &agents, &mut kafka)?;
    killed_in_an_outage(&lab, &mut agents[0], &mut kafka)?;
    ensure!(agents[1].stop()?.success());
    Ok(())
}

fn absent_at_start(lab: &Lab, agents: &mut [Agent; 2], kafka: &mut Kafka) -> Result<()> {
    for agent in &mut *agents {
        let line = agent.wait_until_said("Kafka takes no batches")?;
        ensure!(line.contains("Connection refused"), "{line}");
    }
    agents[1].wait_until_said("The spool cannot be written")?;
    thread::sleep(A_WHILE);
    kafka.start()?;
    let topic = read_whole(lab, kafka, 8)?;
    let gap_s = check_probing(&topic.batches)?;
    for agent in agents {
        agent.wait_until_said("Kafka takes batches again")?;
        let lines = count_lines(agent, "Kafka takes no batches")?;
        ensure!(lines == 1, "{lines} lines about one trouble");
    }
    verdict(
        "Kafka absent at start: nothing lost, order kept, one line of log, probing goes on",
        &format!(
            "all batches from 0 on in order, 1 line, longest pause between probes {gap_s:.3} s"
        ),
    );
    verdict(
        "disk of the spool full while Kafka is away: batches wait in memory, one line of log",
        "all batches from 0 on in order, nothing counted as lost",
    );
    Ok(())
}

fn gone_and_back(lab: &Lab, agents: &[Agent; 2], kafka: &mut Kafka) -> Result<()> {
    let before = last_sequence(&read_whole(lab, kafka, 0)?)?;
    kafka.kill()?;
    thread::sleep(A_WHILE);
    kafka.start()?;
    let topic = read_whole(lab, kafka, before + 6)?;
    let gap_s = check_probing(&topic.batches)?;
    for agent in agents {
        let lines = count_lines(agent, "Kafka takes no batches")?;
        ensure!(lines <= 2, "{lines} lines about two troubles");
    }
    verdict(
        "Kafka killed under load and back: nothing lost, order kept, probing goes on",
        &format!("no number missing, in order, longest pause between probes {gap_s:.3} s"),
    );
    Ok(())
}

fn hanging(lab: &Lab, kafka: &mut Kafka) -> Result<()> {
    let before = last_sequence(&read_whole(lab, kafka, 0)?)?;
    kafka.freeze()?;
    thread::sleep(A_WHILE);
    kafka.thaw()?;
    let topic = read_whole(lab, kafka, before + 6)?;
    let gap_s = check_probing(&topic.batches)?;
    verdict(
        "Kafka hangs (SIGSTOP) and goes on: nothing lost, order kept, probing goes on",
        &format!("no number missing, in order, longest pause between probes {gap_s:.3} s"),
    );
    Ok(())
}

/// What was acknowledged goes with the disk; all that was not is written to the new one.
fn empty_disk(lab: &Lab, agents: &[Agent; 2], kafka: &mut Kafka) -> Result<()> {
    let before = read_whole(lab, kafka, 0)?;
    kafka.kill()?;
    kafka.wipe()?;
    thread::sleep(A_WHILE);
    kafka.start()?;
    let least = last_sequence(&before)? + 6;
    let broker = kafka.address();
    let after = lab
        .host(SERVERS)
        .enter(|| wait_for_sequence(broker, "n1", least))??;
    let start = after.only_start("n1")?;
    let first = *start.sequences.first().context("batches")?;
    // The one with the last word of the old disk may have been written after that was read.
    let known = last_of(&before, "n1")?;
    ensure!(
        first <= known + 3,
        "from {first} on, known were those to {known}"
    );
    ensure!(start.missing()?.is_empty(), "{:?}", start.missing());
    ensure!(start.losses == dt_feed::proto::Losses::default());
    // Those that only the old disk had are gone with it, and their probes' times with them.
    let unread = first.saturating_sub(known + 1);
    let gap_s = check_pauses(
        before
            .batches
            .iter()
            .chain(&after.batches)
            .filter(|batch| batch.source == "n1"),
        unread,
    )?;
    // Brokers here make no topic by themselves, and only one of the agents can be first on each disk.
    let created = count_created(agents)?;
    ensure!(created <= 2, "the topic was created {created} times");
    verdict(
        "Kafka back with an empty disk: topic created anew, nothing lost that was not acknowledged, order kept, probing goes on",
        &format!(
            "old disk to {known}, new disk from {first} on without a gap, longest pause between probes {gap_s:.3} s"
        ),
    );
    Ok(())
}

/// A real agent dies while the broker is away, and starts again before it is back.
fn killed_in_an_outage(lab: &Lab, agent: &mut Agent, kafka: &mut Kafka) -> Result<()> {
    kafka.kill()?;
    thread::sleep(A_WHILE);
    agent.kill()?;
    let killed_at = wait::unix_now_ns()?;
    let mut next = launch(lab, "n1", &kafka.address().to_string(), &[])?;
    next.wait_until_said("Started")?;
    kafka.start()?;
    let broker = kafka.address();
    let topic = lab.host(SERVERS).enter(|| {
        let what = "both starts of n1";
        Topic::wait_for(what, agent::LIMIT, broker, TOPIC, |topic| {
            let starts = topic.starts().remove("n1")?;
            (starts.len() == 2 && starts[1].sequences.len() > 2).then(|| topic.clone())
        })
    })??;
    let starts = topic.starts().remove("n1").context("n1")?;
    for start in &starts {
        ensure!(start.missing()?.is_empty(), "{start:?}");
    }
    let first_id = topic
        .batches
        .iter()
        .find(|batch| batch.source == "n1")
        .context("n1")?
        .start_id;
    let of_first = topic
        .batches
        .iter()
        .filter(|batch| batch.start_id == first_id);
    let last = of_first
        .map(|batch| batch.closed_unix_ns)
        .max()
        .context("batches")?;
    // The window that was open is no batch yet; it was one second long.
    let lost_s = killed_at.saturating_sub(last) as f64 / 1e9;
    ensure!(lost_s < 3.0, "{lost_s} s were lost");
    ensure!(next.stop()?.success());
    verdict(
        "kill -9 of an agent while Kafka is away: at most 2 s and the open window (1 s) lost, the rest written before the next start's",
        &format!(
            "the last batch was closed {lost_s:.2} s before the kill, both starts in order without a gap"
        ),
    );
    Ok(())
}

/// How often either of the agents says it created the topic.
fn count_created(agents: &[Agent; 2]) -> Result<usize> {
    agents
        .iter()
        .map(|agent| count_lines(agent, "Topic created"))
        .sum()
}

/// The topic, once both have written batch `least`: without repeats, gaps or losses from 0 on.
fn read_whole(lab: &Lab, kafka: &Kafka, least: u64) -> Result<Topic> {
    let broker = kafka.address();
    let topic = lab.host(SERVERS).enter(|| {
        wait_for_sequence(broker, "n1", least)?;
        wait_for_sequence(broker, "n2", least)?;
        Topic::read(broker, TOPIC)
    })??;
    for source in ["n1", "n2"] {
        let start = topic.only_start(source)?;
        ensure!(start.sequences.first() == Some(&0), "{start:?}");
        ensure!(
            start.missing()?.is_empty(),
            "{source}: {:?}",
            start.missing()
        );
        ensure!(
            start.losses == dt_feed::proto::Losses::default(),
            "{start:?}"
        );
    }
    Ok(topic)
}

fn last_sequence(topic: &Topic) -> Result<u64> {
    Ok(last_of(topic, "n1")?.max(last_of(topic, "n2")?))
}

fn last_of(topic: &Topic, source: &str) -> Result<u64> {
    let start = topic.only_start(source)?;
    start.sequences.last().copied().context("batches")
}
