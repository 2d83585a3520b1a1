//! The publisher that the settings ask for.

use dt_feed::proto::{Batch, Losses};

use crate::adapters::publish::file::FilePublisher;
use crate::adapters::publish::kafka::{KafkaPublisher, KafkaSettings};
use crate::config::{FeedTarget, RunConfig};
use crate::ports::{FeedStatus, PublishError, Publisher};

/// One of the publishers, or none.
pub(super) enum Feed {
    None,
    File(FilePublisher),
    Kafka(KafkaPublisher),
}

impl Feed {
    /// Opens what `config` names, for the start of the agent with this id.
    pub(super) fn open(config: &RunConfig, start_id: u64) -> Result<Self, PublishError> {
        match &config.feed {
            FeedTarget::None => Ok(Self::None),
            FeedTarget::File(directory) => FilePublisher::open(directory, start_id).map(Self::File),
            FeedTarget::Kafka => {
                let kafka = config.kafka.clone();
                let settings = KafkaSettings {
                    servers: kafka.servers,
                    topic: kafka.topic,
                    properties: kafka.properties,
                    partitions: kafka.partitions,
                    retention: kafka.retention,
                    spool: config.state_dir.join("spool"),
                    spool_bytes: kafka.spool_bytes,
                };
                KafkaPublisher::open(settings, start_id).map(Self::Kafka)
            }
        }
    }
}

impl Publisher for Feed {
    fn wants_all_peers(&self, now_unix_ns: u64) -> bool {
        match self {
            Self::None => false,
            Self::File(publisher) => publisher.wants_all_peers(now_unix_ns),
            Self::Kafka(publisher) => publisher.wants_all_peers(now_unix_ns),
        }
    }

    fn losses(&self) -> Losses {
        match self {
            Self::None => Losses::default(),
            Self::File(publisher) => publisher.losses(),
            Self::Kafka(publisher) => publisher.losses(),
        }
    }

    fn status(&self) -> FeedStatus {
        match self {
            Self::None => FeedStatus::default(),
            Self::File(publisher) => publisher.status(),
            Self::Kafka(publisher) => publisher.status(),
        }
    }

    async fn publish(&mut self, batch: Batch) -> Result<(), PublishError> {
        match self {
            Self::None => Ok(()),
            Self::File(publisher) => publisher.publish(batch).await,
            Self::Kafka(publisher) => publisher.publish(batch).await,
        }
    }

    async fn flush(&mut self) -> Result<(), PublishError> {
        match self {
            Self::None => Ok(()),
            Self::File(publisher) => publisher.flush().await,
            Self::Kafka(publisher) => publisher.flush().await,
        }
    }
}
