//! `kill -9` of whoever publishes, at random moments, with and without a broker.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dt_agent::adapters::publish::kafka::{KafkaPublisher, KafkaSettings};
use dt_agent::engine::random::Random;
use dt_agent::ports::Publisher;
use dt_feed::proto::{Batch, Losses, Window};
use dt_feed::segment::{Followed, Follower};
use dt_tests::process::Proc;
use dt_tests::servers::{Place, kafka};
use dt_tests::topic::Topic;
use dt_tests::{Lab, agent, skip_unless_served, wait};

use super::disk::block_on;
use super::verdict;

#[test]
fn a_kill_at_any_moment_loses_at_most_two_seconds_and_no_order() -> Result<()> {
    if let Ok(dir) = std::env::var(CHILD) {
        return publish_until_killed(Path::new(&dir));
    }
    skip_unless_served!();
    let lab = Lab::empty()?;
    let place = Place::local(&lab);
    let kafka = kafka::Options::given()?.start(&place)?;
    // Nobody ever listens there.
    let away = kafka::Options::given()?.prepare(&place)?;
    let mut lanes = Vec::new();
    for number in 0..LANES {
        let broker = if number % 2 == 0 { &away } else { &kafka };
        lanes.push(Lane::new(&lab, number, broker.address().to_string())?);
    }
    let mut random = Random::new(wait::unix_now_ns()?);
    for round in 0..ROUNDS {
        let mut children = Vec::new();
        for lane in &lanes {
            children.push((lane.spawn(&lab, round)?, random.below(SPREAD_MS)));
        }
        thread::scope(|scope| {
            let kills: Vec<_> = children
                .into_iter()
                .map(|(child, after_ms)| scope.spawn(move || kill_after(child, after_ms)))
                .collect();
            for (lane, kill) in lanes.iter_mut().zip(kills) {
                let killed = kill
                    .join()
                    .map_err(|_| anyhow::anyhow!("a kill panicked"))??;
                lane.kills.push(killed);
            }
            anyhow::Ok(())
        })?;
        for lane in &lanes {
            lane.check_spool()?;
        }
    }
    finish(&lanes, kafka.address())
}

/// Sends what the killed left behind, and judges all of it.
fn finish(lanes: &[Lane], broker: std::net::SocketAddr) -> Result<()> {
    let mut publishers = Vec::new();
    for lane in lanes {
        publishers.push(KafkaPublisher::open(
            settings(&lane.dir, broker.to_string()),
            u64::MAX,
        )?);
    }
    let (mut worst_ns, mut repeats, mut published) = (0, 0, 0);
    for lane in lanes {
        let said = lane.said()?;
        let topic = Topic::wait_for(
            "what the killed left",
            agent::LIMIT,
            broker,
            TOPIC,
            |topic| lane.is_in(topic, &said).then(|| topic.clone()),
        )?;
        let starts = topic.starts().remove(&lane.name()).unwrap_or_default();
        for start in &starts {
            ensure!(start.missing()?.is_empty(), "{}: {start:?}", lane.name());
            ensure!(start.sequences.first() == Some(&0) && start.losses == Losses::default());
            repeats += start.repeats;
        }
        let there = ids(&topic, &lane.name());
        for (round, said) in said.iter().enumerate() {
            published += said.len();
            let lost = said
                .iter()
                .find(|(sequence, _)| !there.contains(&(round as u64, *sequence)));
            let lost_ns = lost.map_or(0, |(_, at)| lane.kills[round].saturating_sub(*at));
            worst_ns = lost_ns.max(worst_ns);
        }
    }
    ensure!(worst_ns < LOST_NS, "{worst_ns} ns were lost");
    verdict(
        "kill -9 at 50 random moments, Kafka there or away: at most 2 s lost, the spool readable each time, order kept",
        &format!(
            "{published} batches published, at most the last {:.2} s of one start lost, {repeats} repeats, in order",
            worst_ns as f64 / 1e9
        ),
    );
    Ok(())
}

/// One spool, used by one start after the other.
struct Lane {
    number: u64,
    dir: PathBuf,
    broker: String,
    /// When each start was killed, ns unix.
    kills: Vec<u64>,
}

impl Lane {
    fn new(lab: &Lab, number: u64, broker: String) -> Result<Self> {
        let dir = lab.dir().join(format!("lane-{number}"));
        fs::create_dir_all(&dir)?;
        Ok(Self {
            number,
            dir,
            broker,
            kills: Vec::new(),
        })
    }

    fn name(&self) -> String {
        format!("lane-{}", self.number)
    }

    fn spawn(&self, lab: &Lab, round: u64) -> Result<Proc> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["--exact", TEST, "--nocapture"])
            .env(CHILD, &self.dir)
            .env("DT_TEST_SOURCE", self.name())
            .env("DT_TEST_BROKER", &self.broker)
            .env("DT_TEST_START", round.to_string());
        let log = format!("{}-round-{round}", self.name());
        let mut child = Proc::spawn(&log, &lab.dir(), &mut command)?;
        child.wait_for_line(READY, agent::LIMIT)?;
        Ok(child)
    }

    /// Each segment is readable up to its end, or to where the kill cut a write.
    fn check_spool(&self) -> Result<()> {
        let mut follower = Follower::new(self.dir.join("spool"));
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        while let Some(followed) = follower.poll()? {
            let batch = match followed {
                Followed::Batch(batch) => batch,
                Followed::Damaged {
                    path,
                    offset,
                    cause,
                } => {
                    bail!("{} is damaged at {offset}: {cause}", path.display())
                }
            };
            if let Some(before) = last.insert(batch.start_id, batch.sequence) {
                ensure!(
                    batch.sequence == before + 1,
                    "{} after {before}",
                    batch.sequence
                );
            }
        }
        Ok(())
    }

    /// What each start said that it had published: number, and when, ns unix.
    fn said(&self) -> Result<Vec<Vec<(u64, u64)>>> {
        (0..ROUNDS)
            .map(|round| {
                let text = fs::read_to_string(self.dir.join(format!("said-{round}")))?;
                let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
                whole
                    .lines()
                    .map(|line| {
                        let (sequence, at) = line.split_once(' ').context("two numbers")?;
                        Ok((sequence.parse()?, at.parse()?))
                    })
                    .collect()
            })
            .collect()
    }

    /// Whether all is in the topic that was published in time.
    fn is_in(&self, topic: &Topic, said: &[Vec<(u64, u64)>]) -> bool {
        let there = ids(topic, &self.name());
        said.iter().enumerate().all(|(round, said)| {
            said.iter().all(|(sequence, at)| {
                let in_time = at + LOST_NS < self.kills[round];
                !in_time || there.contains(&(round as u64, *sequence))
            })
        })
    }
}

fn ids(topic: &Topic, source: &str) -> BTreeSet<(u64, u64)> {
    let own = topic.batches.iter().filter(|batch| batch.source == source);
    own.map(|batch| (batch.start_id, batch.sequence)).collect()
}

fn kill_after(mut child: Proc, after_ms: u64) -> Result<u64> {
    thread::sleep(Duration::from_millis(after_ms));
    child.kill()?;
    wait::unix_now_ns()
}

/// The child: publishes at a high rate and notes what it handed over.
fn publish_until_killed(dir: &Path) -> Result<()> {
    let variable = |name: &str| std::env::var(name).context(name.to_owned());
    let round: u64 = variable("DT_TEST_START")?.parse()?;
    let mut publisher = KafkaPublisher::open(settings(dir, variable("DT_TEST_BROKER")?), round)?;
    let source = variable("DT_TEST_SOURCE")?;
    let mut said: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join(format!("said-{round}")))?;
    println!("{READY}");
    for sequence in 0.. {
        let closed_unix_ns = wait::unix_now_ns()?;
        let batch = Batch {
            source: source.clone(),
            start_id: round,
            sequence,
            closed_unix_ns,
            windows: vec![Window::default(); 20],
            ..Batch::default()
        };
        block_on(publisher.publish(batch))?;
        said.write_all(format!("{sequence} {closed_unix_ns}\n").as_bytes())?;
        thread::sleep(EVERY);
    }
    Ok(())
}

fn settings(dir: &Path, broker: String) -> KafkaSettings {
    KafkaSettings {
        servers: vec![broker],
        topic: TOPIC.into(),
        properties: Vec::new(),
        partitions: 3,
        retention: Duration::from_hours(1),
        spool: dir.join("spool"),
        spool_bytes: 64 << 20,
    }
}

const TEST: &str = "rounds::a_kill_at_any_moment_loses_at_most_two_seconds_and_no_order";
const CHILD: &str = "DT_TEST_CHILD_DIR";
const READY: &str = "publishing";
const TOPIC: &str = "rounds";
/// Side by side, each with a spool of its own: 50 kills in all.
const LANES: u64 = 10;
const ROUNDS: u64 = 5;
/// A child lives for up to so long.
const SPREAD_MS: u64 = 3_500;
const EVERY: Duration = Duration::from_millis(5);
/// What is promised.
const LOST_NS: u64 = 2_000_000_000;
