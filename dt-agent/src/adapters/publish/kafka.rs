//! The feed as messages of a Kafka topic, by way of a queue in memory and a spool on disk.
//!
//! [`KafkaPublisher`] only encodes and hands over. A thread of its own does what may take time: disk, and librdkafka. What goes
//! where is decided by [`crate::engine::outbox`]; how the client library is held is in `link`, the topic in `topic`, files in
//! `spool`.

mod client;
mod link;
mod spool;
mod topic;
mod worker;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dt_feed::batch;
use dt_feed::proto::{Batch, Losses};
use tokio::sync::oneshot;

use crate::engine::outbox::{Limits, Parcel, Tally};
use crate::ports::{FeedStatus, PublishError, Publisher};

use link::Link;
use spool::Spool;
use worker::{Message, Worker};

/// How to get to Kafka, and what to do while there is no way.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// Brokers to begin with, `HOST:PORT` each.
    pub servers: Vec<String>,
    /// Topic.
    pub topic: String,
    /// Properties of librdkafka.
    pub properties: Vec<(String, String)>,
    /// Partitions of a topic that is created.
    pub partitions: u32,
    /// How long a topic that is created keeps its messages.
    pub retention: Duration,
    /// Directory of the spool.
    pub spool: PathBuf,
    /// Greatest size of the spool; 0: none.
    pub spool_bytes: u64,
}

/// Publishes to a topic; the key is the source node.
#[derive(Debug)]
pub struct KafkaPublisher {
    destination: String,
    inbox: SyncSender<Message>,
    shared: Arc<Shared>,
    ended: Option<oneshot::Receiver<()>>,
}

/// Losses that the thread counted, and those that did not even get to it.
#[derive(Debug, Default)]
struct Shared {
    by_worker: Mutex<FeedStatus>,
    before_worker: Mutex<Tally>,
}

impl KafkaPublisher {
    /// Opens the spool and starts to connect. `start_id` tells this start of the agent from all others.
    ///
    /// # Errors
    /// The properties contradict each other, or the spool cannot be used. A broker that does not answer is no error.
    pub fn open(settings: KafkaSettings, start_id: u64) -> Result<Self, PublishError> {
        let destination = format!("topic {}", settings.topic);
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| PublishError::Failed {
            destination: destination.clone(),
            source,
        };
        let (spool, found, mark) = match settings.spool_bytes {
            0 => (None, Vec::new(), None),
            bytes => {
                let opened = Spool::open(&settings.spool, start_id, bytes);
                let (spool, found, mark) = opened.map_err(|error| failed(error.into()))?;
                (Some(spool), found, mark)
            }
        };
        let limits = limits(settings.spool_bytes);
        let link = Link::open(settings).map_err(|error| failed(error.into()))?;
        let (inbox, receiver) = sync_channel(INBOX_BATCHES);
        let (ending, ended) = oneshot::channel();
        let shared = Arc::new(Shared::default());
        let worker = Worker::new(
            receiver,
            link,
            spool,
            crate::engine::outbox::Outbox::new(limits, &found, mark),
            Arc::clone(&shared),
            ending,
        );
        std::thread::Builder::new()
            .name(String::from("dt-kafka"))
            .spawn(move || worker.run())
            .map_err(|error| failed(error.into()))?;
        Ok(Self {
            destination,
            inbox,
            shared,
            ended: Some(ended),
        })
    }

    fn count_lost(&self, parcel: &Parcel) {
        let mut lost = lock(&self.shared.before_worker);
        *lost = lost.plus(parcel.tally);
    }

    fn failed(&self, reason: String) -> PublishError {
        PublishError::Failed {
            destination: self.destination.clone(),
            source: reason.into(),
        }
    }
}

impl Publisher for KafkaPublisher {
    fn wants_all_peers(&self, _now_unix_ns: u64) -> bool {
        // A reader begins anywhere in a topic: repeating the dictionary now and then is all that helps it.
        false
    }

    fn losses(&self) -> Losses {
        let mut losses = lock(&self.shared.by_worker).losses;
        let before = *lock(&self.shared.before_worker);
        losses.batches_queue_full += before.batches;
        losses.windows_unwritten += before.windows;
        losses.probe_blocks_unwritten += before.probe_blocks;
        losses.probes_lost += before.probes;
        losses
    }

    fn status(&self) -> FeedStatus {
        let by_worker = *lock(&self.shared.by_worker);
        FeedStatus {
            losses: self.losses(),
            ..by_worker
        }
    }

    async fn publish(&mut self, batch: Batch) -> Result<(), PublishError> {
        let parcel = Parcel::new(&batch, batch::encode(&batch));
        // Full or without a receiver: the thread hangs on the disk, or has died. It is never waited for.
        let refused = self.inbox.try_send(Message::Batch(parcel)).err();
        if let Some(
            TrySendError::Full(Message::Batch(parcel))
            | TrySendError::Disconnected(Message::Batch(parcel)),
        ) = refused
        {
            self.count_lost(&parcel);
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), PublishError> {
        let (done, unsaved) = oneshot::channel();
        let stop = Message::Stop {
            within: FLUSH_LIMIT,
            done,
        };
        if self.inbox.try_send(stop).is_err() {
            return Err(self.failed(String::from("the publishing thread does not answer")));
        }
        let unsaved = tokio::time::timeout(FLUSH_LIMIT + STORE_LIMIT, unsaved).await;
        // The client library's threads should be gone before the process is, but that may not take long either.
        if let Some(ended) = self.ended.take() {
            let _ = tokio::time::timeout(END_LIMIT, ended).await;
        }
        match unsaved {
            Ok(Ok(Tally { batches: 0, .. })) => Ok(()),
            Ok(Ok(tally)) => Err(self.failed(format!(
                "{} batches with {} windows were neither taken by Kafka nor by the spool",
                tally.batches, tally.windows
            ))),
            Ok(Err(_)) | Err(_) => {
                Err(self.failed(String::from("the publishing thread did not end in time")))
            }
        }
    }
}

fn limits(shelf_bytes: u64) -> Limits {
    Limits {
        hold_ns: 1_000_000_000,
        flight_batches: 64,
        flight_bytes: 4 << 20,
        patience_ns: 1_000_000_000,
        memory_batches: 1_024,
        memory_bytes: 32 << 20,
        shelf_bytes,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Plain numbers cannot be left half written by a panicking holder.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Batches between the agent's loop and the thread; it takes them at once unless the disk hangs.
const INBOX_BATCHES: usize = 64;
/// How long the last batches are waited for before they go to the spool.
const FLUSH_LIMIT: Duration = Duration::from_millis(400);
/// How long writing them there may take.
const STORE_LIMIT: Duration = Duration::from_millis(200);
/// How long the client library may take to end.
const END_LIMIT: Duration = Duration::from_millis(150);
