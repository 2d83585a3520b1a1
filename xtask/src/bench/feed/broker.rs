//! What one real broker with one consumer keeps up with.
//!
//! A producer sends the minute again and again as fast as the consumer follows: it never is more than a few batches ahead.
//! The consumer does what any reader does: decodes the batch, drops repeats, decodes every probe.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dt_feed::repeats::Repeats;
use dt_feed::{batch, probes};
use dt_tests::Interrupt;
use dt_tests::Lab;
use dt_tests::servers::{Kafka, Place, kafka};
use dt_tests::wait::Deadline;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Message};
use serde::Serialize;

use super::shape::Shape;
use crate::bench::spread::Spread;
use crate::clock::Stopwatch;
use crate::demo::cpu;

/// What was kept up with in one mesh.
#[derive(Serialize)]
pub struct Throughput {
    pub shape: Shape,
    /// Probes that the consumer decoded, per second.
    pub probes_per_second: Spread,
    /// CPU time of the broker, ns per probe.
    pub broker_ns: Spread,
    /// What the broker has on its disk, bytes per probe.
    pub disk_bytes_per_probe: f64,
}

/// A broker and what it runs on.
pub struct Bench {
    // In the order of removal.
    kafka: Kafka,
    _lab: Lab,
    topics: u32,
}

/// What producer and consumer tell each other.
#[derive(Default)]
struct Progress {
    consumed: AtomicU64,
    stop: AtomicBool,
}

impl Bench {
    /// Starts a broker from the jars in `libs`.
    pub fn start(libs: &Path) -> Result<Self> {
        let lab = Lab::empty()?;
        let kafka = kafka::Options::new(libs)
            .for_load(HEAP_MB)
            .start(&Place::local(&lab))?;
        Ok(Self {
            kafka,
            _lab: lab,
            topics: 0,
        })
    }

    /// Lets these messages, of so many probes in all, pass round and round in so many turns of some seconds each.
    pub fn measure(
        &mut self,
        shape: Shape,
        messages: &[Vec<u8>],
        turns: u32,
        length: Duration,
        interrupt: &Interrupt,
    ) -> Result<Throughput> {
        self.topics += 1;
        let topic = format!("bench-{}", self.topics);
        self.kafka.create_topic(&topic, 1, &[])?;
        let address = self.kafka.address();
        let progress = Progress::default();
        let mut reader = Reader::subscribe(address, &topic)?;
        let (mut rates, mut broker_ns, mut probes) = (Vec::new(), Vec::new(), 0);
        thread::scope(|scope| {
            let producer = scope.spawn(|| produce(address, &topic, messages, &progress));
            let mut turn = |length| -> Result<(u64, f64, f64)> {
                ensure!(!interrupt.arrived(), "interrupted");
                let broker_before_ns = self.broker_ns()?;
                let watch = Stopwatch::start();
                let read = reader.read_for(length, &progress)?;
                let seconds = watch.elapsed().as_secs_f64();
                let broker_ns = self.broker_ns()? - broker_before_ns;
                Ok((read, read as f64 / seconds, broker_ns as f64 / read as f64))
            };
            // The first turn warms up the broker's compiler.
            let result = turn(WARM_UP).and_then(|(read, ..)| {
                probes += read;
                for _ in 0..turns {
                    let (read, rate, ns) = turn(length)?;
                    probes += read;
                    rates.push(rate);
                    broker_ns.push(ns);
                }
                Ok(())
            });
            progress.stop.store(true, Ordering::Relaxed);
            let produced = producer
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result.and(produced)
        })?;
        Ok(Throughput {
            shape,
            probes_per_second: Spread::of(rates).context("no turn")?,
            broker_ns: Spread::of(broker_ns).context("no turn")?,
            disk_bytes_per_probe: self.disk_bytes(&topic)? as f64 / probes as f64,
        })
    }

    fn broker_ns(&self) -> Result<u64> {
        cpu::process_ns(self.kafka.pid().context("the broker has ended")?)
    }

    /// Length of the log of a topic's only partition.
    fn disk_bytes(&self, topic: &str) -> Result<u64> {
        let directory = self.kafka.dir().join("data").join(format!("{topic}-0"));
        let mut bytes = 0;
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                bytes += fs::metadata(path)?.len();
            }
        }
        Ok(bytes)
    }
}

fn produce(
    address: SocketAddr,
    topic: &str,
    messages: &[Vec<u8>],
    progress: &Progress,
) -> Result<()> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", address.to_string())
        .set("enable.idempotence", "true")
        .set("compression.type", "zstd")
        .set("message.max.bytes", "1000000")
        .create()?;
    let mut value = Vec::new();
    for sequence in 0.. {
        while sequence - progress.consumed.load(Ordering::Relaxed) >= MAX_LAG {
            if progress.stop.load(Ordering::Relaxed) {
                producer.flush(FLUSH_LIMIT)?;
                return Ok(());
            }
            producer.poll(Duration::from_millis(1));
        }
        value.clone_from(&messages[sequence as usize % messages.len()]);
        // The field once more: the last one counts. So no batch is taken for a repeat.
        value.push(SEQUENCE_TAG);
        prost::encoding::encode_varint(sequence, &mut value);
        let record = BaseRecord::to(topic).key("node-0000").payload(&value);
        if let Err((error, _)) = producer.send(record) {
            bail!("cannot produce: {error}");
        }
        producer.poll(Duration::ZERO);
    }
    Ok(())
}

struct Reader {
    consumer: BaseConsumer,
    repeats: Repeats,
}

impl Reader {
    fn subscribe(address: SocketAddr, topic: &str) -> Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", address.to_string())
            .set("group.id", topic)
            .set("auto.offset.reset", "earliest")
            .create()?;
        consumer.subscribe(&[topic])?;
        Ok(Self {
            consumer,
            repeats: Repeats::new(),
        })
    }

    /// How many probes were read in this time.
    fn read_for(&mut self, length: Duration, progress: &Progress) -> Result<u64> {
        let deadline = Deadline::after(length);
        let mut read = 0;
        while !deadline.has_passed() {
            let message = match self.consumer.poll(POLL) {
                // Nothing yet, or no topic yet in this client's eyes.
                None
                | Some(Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::UnknownTopicOrPartition,
                ))) => continue,
                Some(message) => message?,
            };
            let batch = batch::decode(message.payload().context("an empty message")?)?;
            let log_ms = message.timestamp().to_millis().unwrap_or_default() as u64;
            ensure!(
                self.repeats.is_new(&batch, log_ms),
                "batch {} came twice",
                batch.sequence
            );
            let block = batch.probes.context("a batch without probes")?;
            read += probes::decode(&block)?.len() as u64;
            progress.consumed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(read)
    }
}

const HEAP_MB: u32 = 1_024;
/// How many batches the producer may be ahead of the consumer.
const MAX_LAG: u64 = 64;
const WARM_UP: Duration = Duration::from_secs(5);
const FLUSH_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
/// Field 4 of `Batch`, a varint.
const SEQUENCE_TAG: u8 = 4 << 3;
