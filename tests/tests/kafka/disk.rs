//! A broker whose disk gets full.

use std::time::Duration;

use anyhow::{Result, ensure};
use dt_agent::adapters::publish::kafka::{KafkaPublisher, KafkaSettings};
use dt_agent::engine::random::Random;
use dt_agent::ports::Publisher;
use dt_feed::proto::Batch;
use dt_tests::servers::{Place, kafka};
use dt_tests::topic::Topic;
use dt_tests::{SERVERS, skip_unless_equipped, skip_unless_served, wait};

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
        filler.fill(|| Ok(!kafka.answers()))
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

/// Publishes what cannot be compressed.
struct Filler {
    publisher: KafkaPublisher,
}

impl Filler {
    fn open(broker: String, dir: &std::path::Path) -> Result<Self> {
        let settings = KafkaSettings {
            servers: vec![broker],
            topic: "filler".into(),
            properties: Vec::new(),
            partitions: 1,
            retention: Duration::from_hours(1),
            spool: dir.to_path_buf(),
            spool_bytes: 64 << 20,
        };
        Ok(Self {
            publisher: KafkaPublisher::open(settings, 1)?,
        })
    }

    /// Until the disk is full; returns how many batches that took.
    fn fill(mut self, is_full: impl Fn() -> Result<bool>) -> Result<u64> {
        let mut sequence = 0;
        let mut random = Random::new(1);
        wait::until("a full disk", Duration::from_mins(1), || {
            let noise: String = (0..700_000)
                .map(|_| char::from(33 + random.below(90) as u8))
                .collect();
            let batch = Batch {
                source: "filler".into(),
                sequence,
                agent_version: noise,
                ..Batch::default()
            };
            sequence += 1;
            block_on(self.publisher.publish(batch))?;
            Ok(is_full()?.then_some(()))
        })?;
        Ok(sequence)
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
