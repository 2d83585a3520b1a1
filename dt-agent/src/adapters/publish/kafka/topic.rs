//! Waits until the topic is there, and creates it where that is allowed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;
use rdkafka::types::RDKafkaRespErr;

use super::KafkaSettings;
use super::client::{self, Event, Producer, Reports, Trouble};

/// One search for the topic.
pub(super) struct Search {
    pub settings: Arc<KafkaSettings>,
    pub producer: Arc<Producer>,
    pub attempt: u64,
    pub events: Sender<Event>,
    pub is_given_up: Arc<AtomicBool>,
}

/// What a look at the topic showed.
enum Look {
    Ready,
    Missing,
    /// Nothing can be said yet; the library tells why.
    NotYet,
    Refused(RDKafkaErrorCode),
}

impl Search {
    /// Looks until the topic is there or nobody wants to know any more. Blocks.
    pub fn run(&self) {
        let mut pause = FIRST_PAUSE;
        while !self.is_given_up.load(Ordering::Relaxed) {
            let trouble = match self.look() {
                Look::Ready => {
                    let _ = self.events.send(Event::TopicReady(self.attempt));
                    return;
                }
                Look::NotYet => None,
                Look::Missing => self.create(),
                Look::Refused(code) => Some(self.refused("this user may not look at it", code)),
            };
            if let Some(trouble) = trouble {
                let _ = self.events.send(Event::Trouble(trouble));
                pause = (pause * 2).min(LAST_PAUSE);
            }
            self.pause(pause);
        }
    }

    fn look(&self) -> Look {
        let topic = self.settings.topic.as_str();
        let metadata = match self
            .producer
            .client()
            .fetch_metadata(Some(topic), LOOK_LIMIT)
        {
            Ok(metadata) => metadata,
            Err(KafkaError::MetadataFetch(code)) if is_refusal(code) => return Look::Refused(code),
            Err(_) => return Look::NotYet,
        };
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Look::NotYet;
        };
        match found.error() {
            None if !found.partitions().is_empty() => Look::Ready,
            Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => Look::Missing,
            None | Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE) => Look::NotYet,
            Some(error) => Look::Refused(error.into()),
        }
    }

    /// Why the topic could not be created, if so.
    fn create(&self) -> Option<Trouble> {
        match self.try_create() {
            Ok(()) => {
                tracing::info!(topic = %self.settings.topic, "Topic created.");
                None
            }
            // Another agent was first.
            Err(RDKafkaErrorCode::TopicAlreadyExists) => None,
            Err(code) => Some(self.refused("it does not exist and cannot be created", code)),
        }
    }

    fn try_create(&self) -> Result<(), RDKafkaErrorCode> {
        let code = |error: KafkaError| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        let config = client::config(&self.settings);
        let reports = Reports::new(self.events.clone());
        let admin = AdminClient::from_config_and_context(&config, reports).map_err(code)?;
        let retention_ms = self.settings.retention.as_millis().to_string();
        let partitions = i32::try_from(self.settings.partitions).unwrap_or(i32::MAX);
        // As many copies as the brokers have for default.
        let topic = NewTopic::new(
            &self.settings.topic,
            partitions,
            TopicReplication::Fixed(-1),
        )
        .set("retention.ms", &retention_ms);
        let options = AdminOptions::new().request_timeout(Some(CREATE_LIMIT));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(|_| RDKafkaErrorCode::Fail)?;
        let results = runtime
            .block_on(admin.create_topics([&topic], &options))
            .map_err(code)?;
        results
            .into_iter()
            .try_for_each(|result| result.map(drop).map_err(|(_, code)| code))
    }

    fn refused(&self, what: &str, code: RDKafkaErrorCode) -> Trouble {
        Trouble {
            key: format!("topic {code:?}"),
            text: format!("topic {}: {what} ({code})", self.settings.topic),
            is_definite: true,
        }
    }

    fn pause(&self, pause: Duration) {
        let steps = pause.as_millis() / STEP.as_millis();
        for _ in 0..=steps {
            if self.is_given_up.load(Ordering::Relaxed) {
                return;
            }
            thread::sleep(STEP);
        }
    }
}

const fn is_refusal(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::InvalidTopic
    )
}

const LOOK_LIMIT: Duration = Duration::from_secs(1);
const CREATE_LIMIT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(50);
