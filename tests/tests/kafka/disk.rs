//! A broker whose disk gets full.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dt_agent::adapters::publish::kafka::{KafkaPublisher, KafkaSettings};
use dt_agent::engine::random::Random;
use dt_agent::ports::Publisher;
use dt_feed::proto::{Batch, Window};
use dt_tests::servers::{Place, kafka};
use dt_tests::topic::Topic;
use dt_tests::{Lab, SERVERS, skip_unless_equipped, skip_unless_served, wait};

use super::{TOPIC, check_probing, lab, launch, verdict, wait_for_sequence};

#[test]
fn a_full_disk_at_the_broker_costs_nothing_but_time() -> Result<()> {
    skip_unless_equipped!();
    skip_unless_served!();
    let lab = lab(2)?;
    let mut kafka = kafka::Options::given()?
        .disk_mb(DISK_MB)
        .start(&Place::on(&lab, SERVERS))?;
    let broker = kafka.address();
    let mut agent = launch(&lab, "n1", &broker.to_string(), &[])?;
    let filled = lab.host(SERVERS).enter(|| -> Result<u64> {
        wait_for_sequence(broker, "n1", 1)?;
        let filler = Filler::open(broker.to_string(), &lab.dir().join("filler"))?;
        filler.fill(|| !kafka.answers())
    })??;
    let line = agent.wait_until_said("Kafka takes no batches")?;
    // It ends by itself when its only disk fails, or goes on refusing; either way an operator gives it room and starts it.
    let _ = kafka.kill();
    kafka.resize_disk(2 * DISK_MB)?;
    kafka.start()?;
    agent.wait_until_said("Kafka takes batches again")?;
    let topic = lab.host(SERVERS).enter(|| -> Result<Topic> {
        let now = Topic::read(broker, TOPIC)?;
        let last = now.only_start("n1")?.sequences.last().copied();
        wait_for_sequence(broker, "n1", last.unwrap_or(0) + 3)
    })??;
    let start = topic.only_start("n1")?;
    ensure!(
        start.sequences.first() == Some(&0) && start.missing()?.is_empty(),
        "{start:?}"
    );
    let own = topic.batches.iter().filter(|batch| batch.source == "n1");
    let gap_s = check_probing(own)?;
    ensure!(agent.stop()?.success());
    verdict(
        "full disk at the broker: nothing lost, order kept, probing goes on",
        &format!(
            "after {filled} batches of others filled it ({}): no number missing, in order, longest pause between probes {gap_s:.3} s",
            line.split(" servers=")
                .next()
                .and_then(|text| text.split("batches: ").nth(1))
                .unwrap_or("no answer"),
        ),
    );
    Ok(())
}

#[test]
fn a_spool_with_too_little_room_loses_exactly_the_oldest_and_says_how_many() -> Result<()> {
    skip_unless_served!();
    let lab = Lab::empty()?;
    let mut kafka = kafka::Options::given()?.prepare(&Place::local(&lab))?;
    let broker = kafka.address();
    let mut filler = Filler::with_spool(broker.to_string(), &lab.dir().join("spool"), 100_000)?;
    for _ in 0..300 {
        filler.publish(1_000)?;
        thread::sleep(Duration::from_millis(5));
    }
    wait::until("losses", LIMIT, || {
        let lost = filler.publisher.losses().batches_spool_full;
        Ok((lost > 150).then_some(()))
    })?;
    kafka.start()?;
    // The last word on what was lost comes with a batch of after that.
    let last = filler.publish(1_000)?;
    let topic = Topic::wait_for("last batch", LIMIT, broker, "filler", |topic| {
        let start = topic.only_start("filler").ok()?;
        (start.sequences.last() == Some(&last)).then(|| topic.clone())
    })?;
    let start = topic.only_start("filler")?;
    // Nothing had been handed over, so the oldest is the first.
    let lost = *start.sequences.first().context("batches")?;
    ensure!(start.missing()?.is_empty(), "{start:?}");
    ensure!(
        start.losses.batches_spool_full == lost,
        "{lost} of {:?}",
        start.losses
    );
    ensure!(start.losses.windows_unwritten == lost);
    verdict(
        "spool full: exactly the oldest are lost, and the published counts say how many",
        &format!(
            "batches 0 to {} of {last} lost, {lost} counted as such, the rest in order",
            lost - 1
        ),
    );
    Ok(())
}

/// Publishes what cannot be compressed.
struct Filler {
    publisher: KafkaPublisher,
    sequence: u64,
    random: Random,
}

impl Filler {
    fn open(broker: String, dir: &Path) -> Result<Self> {
        Self::with_spool(broker, dir, 64 << 20)
    }

    fn with_spool(broker: String, dir: &Path, spool_bytes: u64) -> Result<Self> {
        let settings = KafkaSettings {
            servers: vec![broker],
            topic: "filler".into(),
            properties: Vec::new(),
            partitions: 1,
            retention: Duration::from_hours(1),
            spool: dir.to_path_buf(),
            spool_bytes,
        };
        Ok(Self {
            publisher: KafkaPublisher::open(settings, 1)?,
            sequence: 0,
            random: Random::new(1),
        })
    }

    /// One batch with so many letters; returns its number.
    fn publish(&mut self, letters: usize) -> Result<u64> {
        let noise = (0..letters).map(|_| char::from(33 + self.random.below(90) as u8));
        let batch = Batch {
            source: "filler".into(),
            start_id: 1,
            sequence: self.sequence,
            agent_version: noise.collect(),
            windows: vec![Window::default()],
            losses: Some(self.publisher.losses()),
            ..Batch::default()
        };
        self.sequence += 1;
        block_on(self.publisher.publish(batch))?;
        Ok(self.sequence - 1)
    }

    /// Until the disk is full; returns how many batches that took.
    fn fill(mut self, is_full: impl Fn() -> bool) -> Result<u64> {
        wait::until("a full disk", LIMIT, || {
            self.publish(700_000)?;
            Ok(is_full().then_some(()))
        })?;
        Ok(self.sequence)
    }
}

/// `publish` of this publisher never waits, so one poll is all it takes.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}

const DISK_MB: u32 = 24;
const LIMIT: Duration = Duration::from_mins(1);
