//! Settings of the way to Kafka, checked.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use super::check::Checker;
use super::{parse, secret};

/// How batches get to Kafka.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KafkaConfig {
    /// Brokers to begin with, `HOST:PORT` each.
    pub servers: Vec<String>,
    /// Topic.
    pub topic: String,
    /// Properties of librdkafka, each known to it.
    pub properties: Vec<(String, String)>,
    /// Partitions of a topic that is created.
    pub partitions: u32,
    /// How long a topic that is created keeps its messages.
    pub retention: Duration,
    /// Greatest size of the spool; 0: none.
    pub spool_bytes: u64,
}

impl KafkaConfig {
    pub(super) fn check(check: &mut Checker<'_>) -> Self {
        Self {
            servers: check.list("kafka", server),
            topic: check.one("kafka_topic", topic),
            properties: check.list("kafka_property", property),
            partitions: check.one("kafka_partitions", |text| parse::whole(text, 1..=10_000)),
            retention: check.one("kafka_retention", |text| {
                parse::duration(
                    text,
                    Duration::from_mins(1)..=Duration::from_hours(24 * 3_650),
                )
            }),
            spool_bytes: check.one("spool_bytes", spool_bytes),
        }
    }
}

fn server(text: &str) -> Result<String, String> {
    let well_formed = text.rsplit_once(':').is_some_and(|(host, port)| {
        let is_bare_ipv6 = host.contains(':') && !host.starts_with('[');
        !host.is_empty() && !is_bare_ipv6 && parse::port(port).is_ok()
    });
    if well_formed && !text.contains(char::is_whitespace) {
        Ok(text.to_owned())
    } else {
        Err(String::from(
            "is not a broker such as kafka-1:9092 or [fd00::1]:9092",
        ))
    }
}

/// By Kafka's own rule.
fn topic(text: &str) -> Result<String, String> {
    let is_good = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    let valid = (1..=MAX_TOPIC).contains(&text.len())
        && text.chars().all(is_good)
        && !matches!(text, "." | "..");
    if valid {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "is not the name of a topic (1 to {MAX_TOPIC} letters, digits, `.`, `_` or `-`)"
        ))
    }
}

fn property(text: &str) -> Result<(String, String), String> {
    let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.is_empty()) else {
        return Err(String::from(
            "is not a property such as security.protocol=ssl",
        ));
    };
    if let Some((_, remedy)) = OURS.iter().find(|(ours, _)| *ours == key) {
        return Err(format!("cannot be set: {remedy}"));
    }
    if value == secret::MASK {
        return Err(String::from(
            "is masked, as --print-config does it: write the secret itself",
        ));
    }
    match ClientConfig::new().set(key, value).create_native_config() {
        Ok(_) => Ok((key.to_owned(), value.to_owned())),
        // The text has the key in it, and a value only where librdkafka has a list of good ones.
        Err(KafkaError::ClientConfig(_, reason, _, _)) => {
            Err(format!("is refused by librdkafka: {reason}"))
        }
        Err(error) => Err(format!("is refused by librdkafka: {error}")),
    }
}

fn spool_bytes(text: &str) -> Result<u64, String> {
    let bytes = parse::bytes(text)?;
    if bytes == 0 || (LEAST_SPOOL..=GREATEST_SPOOL).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(String::from("is neither 0 nor from 256KiB to 16TiB"))
    }
}

/// Properties that a promise hangs on, and what to do instead.
const OURS: &[(&str, &str)] = &[
    ("bootstrap.servers", "use --kafka"),
    ("metadata.broker.list", "use --kafka"),
    ("enable.idempotence", "without it the order would not hold"),
    (
        "enable.gapless.guarantee",
        "without it the order would not hold",
    ),
    (
        "transactional.id",
        "batches are not written in transactions",
    ),
    (
        "delivery.report.only.error",
        "each acknowledgement is needed",
    ),
    (
        "allow.auto.create.topics",
        "the agent creates the topic itself",
    ),
];
/// Kafka's limit.
const MAX_TOPIC: usize = 249;
/// A minute of a small mesh; what is larger than the whole spool waits in memory.
const LEAST_SPOOL: u64 = 256 << 10;
const GREATEST_SPOOL: u64 = 16 << 40;
