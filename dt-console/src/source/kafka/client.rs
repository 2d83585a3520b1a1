//! The client: its properties, its complaints, and the first contact.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::types::RDKafkaRespErr;

use super::Settings;
use crate::clock::Deadline;
use crate::source::SourceError;

/// What the client complained of last, in its own words: the codes of its errors tell too little.
#[derive(Debug, Default)]
pub(super) struct Complaint(Mutex<Option<(RDKafkaErrorCode, String)>>);

impl Complaint {
    pub(super) fn note(&self, error: &KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else {
            return;
        };
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // That no broker is left follows from what was said before, and says less.
        let is_consequence = code == RDKafkaErrorCode::AllBrokersDown && last.is_some();
        if !is_consequence {
            *last = Some((code, reason.to_owned()));
        }
    }

    pub(super) fn last(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// A client that only looks.
#[derive(Default)]
pub(super) struct Looker {
    complaint: Complaint,
}

impl ClientContext for Looker {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _message: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.complaint.note(&error, reason);
    }
}

impl ConsumerContext for Looker {}

/// The configuration of every client of ours; what the user set has the last word.
pub(super) fn configuration(settings: &Settings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &settings.brokers)
        .set("client.id", "dt-console")
        .set("group.id", settings.group.as_deref().unwrap_or(NO_GROUP))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        // With the others a rebalance takes all partitions from everybody, who then all read ten minutes again.
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("queued.max.messages.kbytes", QUEUE_KBYTES)
        .set_log_level(RDKafkaLogLevel::Error);
    for (key, value) in &settings.properties {
        config.set(key, value);
    }
    config
}

/// What librdkafka says of a configuration, without the value, which may be a password.
pub(super) fn unusable(error: KafkaError) -> SourceError {
    match error {
        KafkaError::ClientConfig(_, reason, key, value) => SourceError::Property {
            key,
            reason: if value.is_empty() {
                reason
            } else {
                reason.replace(&value, "…")
            },
        },
        KafkaError::ClientCreation(reason) => SourceError::Client { reason },
        other => SourceError::Client {
            reason: other.to_string(),
        },
    }
}

/// Waits until the broker answers and has the topic, and returns the numbers of its partitions.
pub(super) fn first_contact(settings: &Settings) -> Result<Vec<i32>, SourceError> {
    let looker: BaseConsumer<Looker> = configuration(settings)
        .create_with_context(Looker::default())
        .map_err(unusable)?;
    let deadline = Deadline::after(settings.patience);
    loop {
        let within = ANSWER_WITHIN.min(deadline.left()).max(LEAST_WAIT);
        let complaint = &looker.context().complaint;
        let missing = match partitions(&looker, complaint, settings, within) {
            Ok(partitions) => return Ok(partitions),
            Err(missing) => missing,
        };
        // Serves the queue on which the client's complaints wait, one at a time.
        let served = Deadline::after(RETRY_EVERY.min(deadline.left()).max(LEAST_WAIT));
        while !served.has_passed() {
            drop(looker.poll(served.left()));
        }
        let last = complaint.last();
        if let Some(error) = last
            .clone()
            .and_then(|(code, reason)| refusal(settings, code, reason))
        {
            return Err(error);
        }
        let is_final = matches!(missing, SourceError::Denied { .. });
        if deadline.has_passed() || is_final || settings.interrupt.is_set() {
            return Err(match (missing, last) {
                (SourceError::Unreachable { brokers, .. }, Some((_, reason))) => {
                    SourceError::Unreachable { brokers, reason }
                }
                (missing, _) => missing,
            });
        }
    }
}

/// An error that will not pass by itself.
pub(super) fn refusal(
    settings: &Settings,
    code: RDKafkaErrorCode,
    reason: String,
) -> Option<SourceError> {
    let brokers = settings.brokers.clone();
    match code {
        RDKafkaErrorCode::Authentication
        | RDKafkaErrorCode::SaslAuthenticationFailed
        | RDKafkaErrorCode::UnsupportedSASLMechanism
        | RDKafkaErrorCode::SSL => Some(SourceError::Credentials { brokers, reason }),
        RDKafkaErrorCode::TopicAuthorizationFailed => Some(SourceError::Denied {
            what: format!("topic {}", settings.topic),
            brokers,
        }),
        RDKafkaErrorCode::GroupAuthorizationFailed => {
            let group = settings.group.as_deref()?;
            Some(SourceError::Denied {
                what: format!("as group {group}"),
                brokers,
            })
        }
        RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
            Some(SourceError::NoTopic {
                topic: settings.topic.clone(),
                brokers,
            })
        }
        _ => None,
    }
}

/// The numbers of the topic's partitions.
pub(super) fn partitions<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    complaint: &Complaint,
    settings: &Settings,
    within: Duration,
) -> Result<Vec<i32>, SourceError> {
    let unreachable = |error: KafkaError| SourceError::Unreachable {
        brokers: settings.brokers.clone(),
        reason: complaint
            .last()
            .map_or_else(|| plain(&error), |(_, reason)| reason),
    };
    let metadata = consumer
        .fetch_metadata(Some(&settings.topic), within)
        .map_err(unreachable)?;
    let topic = metadata.topics().first();
    // Asked for before the partitions: of a topic in error there is no list of them.
    let error = topic.and_then(MetadataTopic::error);
    match (topic, error) {
        (Some(topic), None) => Ok(topic
            .partitions()
            .iter()
            .map(MetadataPartition::id)
            .collect()),
        (_, Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED)) => {
            Err(SourceError::Denied {
                what: format!("topic {}", settings.topic),
                brokers: settings.brokers.clone(),
            })
        }
        _ => Err(SourceError::NoTopic {
            topic: settings.topic.clone(),
            brokers: settings.brokers.clone(),
        }),
    }
}

/// An error in librdkafka's words, without the type names around them.
pub(super) fn plain(error: &KafkaError) -> String {
    let code = error.rdkafka_error_code();
    code.map_or_else(|| error.to_string(), |code| code.to_string())
}

/// Longest time that a broker is waited for in one call.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const RETRY_EVERY: Duration = Duration::from_millis(200);
/// So long is waited for an answer even when the time is up.
const LEAST_WAIT: Duration = Duration::from_millis(100);
/// The client wants a name even where there is no group; it joins none.
const NO_GROUP: &str = "dt-console";
/// Messages that were fetched and not yet handed out, of all partitions, kB: what bounds the client's memory.
const QUEUE_KBYTES: &str = "32768";
