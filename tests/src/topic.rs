//! What stands in a Kafka topic: a snapshot of all its messages, and what a reader makes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dt_feed::batch;
use dt_feed::probes;
use dt_feed::proto::{Batch, Losses};
use dt_feed::repeats::Repeats;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::wait::{self, Deadline};

/// All batches of a topic at one moment, partition after partition, each in the order of its log.
#[derive(Clone, Debug, Default)]
pub struct Topic {
    /// As they stand there, repeats included.
    pub batches: Vec<Batch>,
    /// Partition and log time in ms of each.
    places: Vec<(i32, u64)>,
}

/// What one start of one agent published, after removal of repeats.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// Sequence numbers in the order of the log.
    pub sequences: Vec<u64>,
    /// Messages that were there before.
    pub repeats: u64,
    /// The last word on losses.
    pub losses: Losses,
    /// Probes in its batches.
    pub probes: u64,
}

impl Topic {
    /// Reads everything that is there now. A topic that does not exist is empty.
    pub fn read(broker: SocketAddr, topic: &str) -> Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", broker.to_string())
            .set("group.id", "dt-tests")
            .set("enable.auto.commit", "false")
            .set("allow.auto.create.topics", "false")
            .set_log_level(RDKafkaLogLevel::Critical)
            .create()?;
        let metadata = consumer.fetch_metadata(Some(topic), ANSWER_LIMIT)?;
        let partitions: Vec<_> = metadata
            .topics()
            .iter()
            .flat_map(MetadataTopic::partitions)
            .map(MetadataPartition::id)
            .collect();
        let mut left = BTreeMap::new();
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            let (low, high) = consumer.fetch_watermarks(topic, partition, ANSWER_LIMIT)?;
            if high > low {
                list.add_partition_offset(topic, partition, Offset::Beginning)?;
                left.insert(partition, high);
            }
        }
        consumer.assign(&list)?;
        let mut logs: BTreeMap<i32, Vec<(u64, Batch)>> = BTreeMap::new();
        let deadline = Deadline::after(READ_LIMIT);
        while !left.is_empty() {
            ensure!(
                !deadline.has_passed(),
                "the topic cannot be read to its end"
            );
            let Some(message) = consumer.poll(POLL) else {
                continue;
            };
            let message = message?;
            let payload = message.payload().context("a message without value")?;
            let batch = batch::decode(payload)?;
            ensure!(
                message.key() == Some(batch.source.as_bytes()),
                "the key is not the source"
            );
            if left
                .get(&message.partition())
                .is_some_and(|high| message.offset() + 1 >= *high)
            {
                left.remove(&message.partition());
            }
            let log_ms = message.timestamp().to_millis().unwrap_or(0) as u64;
            let log = logs.entry(message.partition()).or_default();
            log.push((log_ms, batch));
        }
        let mut read = Self::default();
        for (partition, log) in logs {
            for (log_ms, batch) in log {
                read.batches.push(batch);
                read.places.push((partition, log_ms));
            }
        }
        Ok(read)
    }

    /// Reads again and again until `found` finds something; a broker that does not answer yet is waited for.
    pub fn wait_for<T>(
        what: &str,
        limit: Duration,
        broker: SocketAddr,
        topic: &str,
        mut found: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T> {
        let mut last = None;
        let result = wait::until(what, limit, || match Self::read(broker, topic) {
            Ok(read) => {
                let result = found(&read);
                last = Some(Ok(read));
                Ok(result)
            }
            Err(error) => {
                last = Some(Err(error));
                Ok(None)
            }
        });
        result.with_context(|| match &last {
            Some(Ok(read)) => format!("the topic has {:?}", read.starts()),
            Some(Err(error)) => format!("{error:#}"),
            None => String::new(),
        })
    }

    /// Repeats that are left after those were removed that readers remove.
    #[must_use]
    pub fn repeats_left(&self) -> usize {
        let mut memories: BTreeMap<i32, Repeats> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let passed = self.batches.iter().zip(&self.places);
        let passed = passed.filter(|(batch, (partition, log_ms))| {
            let memory = memories.entry(*partition).or_default();
            memory.is_new(batch, *log_ms)
        });
        passed
            .filter(|(batch, _)| !seen.insert((&batch.source, batch.start_id, batch.sequence)))
            .count()
    }

    /// By source, its starts in the order of their first batch.
    #[must_use]
    pub fn starts(&self) -> BTreeMap<String, Vec<Start>> {
        let mut starts: BTreeMap<&str, Vec<(u64, Start)>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for batch in &self.batches {
            let of_source = starts.entry(&batch.source).or_default();
            let known = of_source.iter().position(|(id, _)| *id == batch.start_id);
            let index = known.unwrap_or_else(|| {
                of_source.push((batch.start_id, Start::default()));
                of_source.len() - 1
            });
            let start = &mut of_source[index].1;
            if !seen.insert((&batch.source, batch.start_id, batch.sequence)) {
                start.repeats += 1;
                continue;
            }
            start.sequences.push(batch.sequence);
            start.losses = batch.losses.unwrap_or_default();
            start.probes += batch.probes.as_ref().map_or(0, |block| block.count.into());
        }
        let strip = |(source, starts): (&str, Vec<(u64, Start)>)| {
            let starts = starts.into_iter().map(|(_, start)| start).collect();
            (source.to_owned(), starts)
        };
        starts.into_iter().map(strip).collect()
    }

    /// The only start of a source.
    pub fn only_start(&self, source: &str) -> Result<Start> {
        let mut starts = self.starts();
        let mut of_source = starts.remove(source).unwrap_or_default();
        match (of_source.pop(), of_source.is_empty()) {
            (Some(start), true) => Ok(start),
            (None, _) => bail!("nothing of {source}"),
            (Some(_), false) => bail!("several starts of {source}"),
        }
    }
}

impl Start {
    /// Sequence numbers that are missing between the first and the last; an error if their order does not hold.
    pub fn missing(&self) -> Result<Vec<u64>> {
        ensure!(
            self.sequences.is_sorted(),
            "the order does not hold: {:?}",
            self.sequences
        );
        let (Some(first), Some(last)) = (self.sequences.first(), self.sequences.last()) else {
            return Ok(Vec::new());
        };
        let there: BTreeSet<_> = self.sequences.iter().copied().collect();
        Ok((*first..*last)
            .filter(|sequence| !there.contains(sequence))
            .collect())
    }
}

/// The longest time without a probe to some peer in these batches of one source, given in any order, in ns.
pub fn longest_gap_ns<'a>(batches: impl IntoIterator<Item = &'a Batch>) -> Result<u64> {
    let mut sent: BTreeMap<(u64, u32), Vec<u64>> = BTreeMap::new();
    for batch in batches {
        let Some(block) = &batch.probes else {
            continue;
        };
        for record in probes::decode(block)? {
            let session = sent.entry((batch.start_id, record.peer)).or_default();
            session.push(record.sent_unix_us);
        }
    }
    let gap_us = sent
        .values_mut()
        .map(|times| {
            times.sort_unstable();
            let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
            gaps.max().unwrap_or(u64::MAX / 1_000)
        })
        .max();
    gap_us
        .map(|gap_us| gap_us.saturating_mul(1_000))
        .context("no probes")
}

const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const READ_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);
