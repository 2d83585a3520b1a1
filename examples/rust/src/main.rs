//! Reads the topic from its beginning to its present end and prints the P50 of every pair of nodes.
//!
//! ```text
//! cargo run -p example-consumer -- BOOTSTRAP_SERVERS [TOPIC]
//! ```
//!
//! A service that goes on would `subscribe` in a consumer group, commit what it has stored, and on being given a partition
//! go back by `dt_feed::repeats::WINDOW_MS`, so that repeats across its own restart are recognised too.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::env;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dt_feed::proto::Batch;
use dt_feed::{Histogram, batch, repeats::Repeats};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

/// One start of one agent. Indices of peers mean something within it only.
type Start = (String, u64);

/// What was read of one start.
#[derive(Default)]
struct Measured {
    /// The dictionary. It is repeated every 60 s: an entry may come after the windows that need it, so names are looked up
    /// at the end.
    names: HashMap<u32, String>,
    /// Round trip times by the index of the peer.
    rtt: HashMap<u32, Histogram>,
}

fn main() -> Result<()> {
    let mut args = env::args().skip(1);
    let servers = args.next().context("usage: BOOTSTRAP_SERVERS [TOPIC]")?;
    let topic = args
        .next()
        .unwrap_or_else(|| "_distributedTrace".to_owned());

    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", "example")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()?;
    let mut unfinished = assign_all(&consumer, &topic)?;

    let mut starts: HashMap<Start, Measured> = HashMap::new();
    // A producer that missed an acknowledgement sends a batch twice. One memory for each partition: each is a log of its own.
    let mut repeats: HashMap<i32, Repeats> = HashMap::new();
    while !unfinished.is_empty() {
        match consumer.poll(Duration::from_secs(1)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                unfinished.remove(&partition);
            }
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(message)) => {
                // Somebody else may write to the topic: what is no batch is no reason to stop.
                let Ok(batch) = batch::decode(message.payload().unwrap_or_default()) else {
                    eprintln!(
                        "not a batch: partition {} offset {}",
                        message.partition(),
                        message.offset()
                    );
                    continue;
                };
                let log_ms = message.timestamp().to_millis().unwrap_or_default() as u64;
                let repeats = repeats.entry(message.partition()).or_default();
                if repeats.is_new(&batch, log_ms) {
                    let start = (batch.source.clone(), batch.start_id);
                    starts.entry(start).or_default().add(&batch);
                }
            }
        }
    }
    print(&starts);
    Ok(())
}

/// Reads all partitions from the beginning, and returns their numbers.
fn assign_all(consumer: &BaseConsumer, topic: &str) -> Result<HashSet<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10))?;
    let partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
    let partitions: HashSet<i32> = partitions.map(MetadataPartition::id).collect();
    ensure!(!partitions.is_empty(), "there is no topic {topic}");
    let mut assigned = TopicPartitionList::new();
    for partition in &partitions {
        assigned.add_partition_offset(topic, *partition, Offset::Beginning)?;
    }
    consumer.assign(&assigned)?;
    Ok(partitions)
}

impl Measured {
    fn add(&mut self, batch: &Batch) {
        let names = batch
            .peers
            .iter()
            .map(|peer| (peer.index, peer.name.clone()));
        self.names.extend(names);
        for window in &batch.windows {
            // No histogram: nothing came back in this window. One that makes no sense is left out.
            let rtt = window.rtt.as_ref().map(Histogram::try_from);
            if let Some(Ok(rtt)) = rtt {
                // Merging is exact, so windows add up to any span of time.
                self.rtt.entry(window.peer).or_default().merge(&rtt);
            }
        }
    }
}

fn print(starts: &HashMap<Start, Measured>) {
    // An agent that was restarted is the same node; the result is in the order of the names.
    let mut pairs: BTreeMap<(&str, &str), Histogram> = BTreeMap::new();
    for ((source, _), measured) in starts {
        for (index, rtt) in &measured.rtt {
            // Without an entry the reader began too late, or the log ends too early.
            let peer = measured.names.get(index).map_or("?", String::as_str);
            pairs.entry((source, peer)).or_default().merge(rtt);
        }
    }
    println!("source,peer,received,p50_ns");
    for ((source, peer), rtt) in pairs {
        let p50_ns = rtt.quantile(0.5).unwrap_or_default();
        println!("{source},{peer},{},{p50_ns}", rtt.count());
    }
}
