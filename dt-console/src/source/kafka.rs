//! Batches out of a Kafka topic: as a member of a group that shares its partitions, or alone with all of them.
//!
//! Whenever a partition is given to us, we begin [`dt_feed::repeats::WINDOW_MS`] of log before the place up to which the group has read.
//! Those messages are context: they make repeats known and teach names. Only what is behind that place is handed out. The place
//! is the group's committed offset, which is moved only over what our reader confirmed, and before a partition is given away.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use rdkafka::types::RDKafkaRespErr;

use super::{Begin, Event, Skipped, SourceError};
use crate::clock::{self, Deadline};
use crate::interrupt::Interrupt;
use client::Complaint;
use partition::{Found, Partition};
use place::{Place, Placer};

mod client;
mod partition;
mod place;

/// How to read a topic.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `HOST:PORT`, with commas between them.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// The group to share the topic with; without one we read all of it, and leave no trace.
    pub group: Option<String>,
    /// Anything that librdkafka knows; these have the last word.
    pub properties: Vec<(String, String)>,
    /// Where to begin, if the group has not read yet.
    pub begin: Begin,
    /// How long the broker and the topic may take to be there.
    pub patience: Duration,
    /// Ends the waiting.
    pub interrupt: Interrupt,
}

/// A topic that is being read.
pub struct Kafka {
    consumer: BaseConsumer<Context>,
    next_commit: Deadline,
    next_look: Deadline,
    next_question: Deadline,
}

/// What the client calls back, on the thread that polls.
struct Context {
    settings: Settings,
    complaint: Complaint,
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    partitions: BTreeMap<i32, Partition>,
    /// Partitions were given to us at least once, be it none.
    is_assigned: bool,
    /// Since when no broker answers, ms unix.
    away_since_ms: Option<u64>,
    events: VecDeque<Event>,
    failure: Option<SourceError>,
    skipped: Skipped,
}

impl Kafka {
    /// Connects, and begins to read.
    ///
    /// # Errors
    ///
    /// When there is no such broker or topic, or it does not let us in.
    pub fn open(settings: Settings) -> Result<Self, SourceError> {
        let partitions = client::first_contact(&settings)?;
        let config = client::configuration(&settings);
        let has_group = settings.group.is_some();
        let context = Context {
            settings,
            complaint: Complaint::default(),
            shared: Mutex::default(),
        };
        let consumer: BaseConsumer<Context> = config
            .create_with_context(context)
            .map_err(client::unusable)?;
        let context = consumer.context();
        if has_group {
            let topic = &context.settings.topic;
            consumer
                .subscribe(&[topic])
                .map_err(|error| context.failed(&error))?;
        } else {
            context.take_over(&consumer, &partitions)?;
        }
        Ok(Self {
            consumer,
            next_commit: Deadline::after(COMMIT_EVERY),
            next_look: Deadline::after(LOOK_EVERY),
            next_question: Deadline::after(ASK_EVERY),
        })
    }

    /// See [`super::Source::poll`].
    ///
    /// # Errors
    ///
    /// See [`super::Source::poll`].
    pub fn poll(&mut self, wait: Duration) -> Result<Option<Event>, SourceError> {
        let deadline = Deadline::after(wait);
        self.keep_up()?;
        loop {
            let context = self.consumer.context();
            if let Some(failure) = context.shared().failure.take() {
                return Err(failure);
            }
            if let Some(event) = context.shared().events.pop_front() {
                return Ok(Some(event));
            }
            let event = match self.consumer.poll(deadline.left()) {
                Some(Ok(message)) => context.handle_message(&message),
                Some(Err(error)) => context.handle_error(&self.consumer, &error)?,
                // Nothing came, or a rebalance, which may leave events and a failure behind.
                None => None,
            };
            if event.is_some() {
                return Ok(event);
            }
            if deadline.has_passed() {
                return Ok(context.shared().events.pop_front());
            }
        }
    }

    /// See [`super::Source::confirm`].
    pub fn confirm(&mut self) {
        let mut shared = self.consumer.context().shared();
        shared.partitions.values_mut().for_each(Partition::confirm);
    }

    /// See [`super::Source::horizon_ms`].
    #[must_use]
    pub fn horizon_ms(&self) -> u64 {
        let shared = self.consumer.context().shared();
        // While no broker answers, nobody knows what was written since: that nothing came makes no source silent.
        let now_ms = shared.away_since_ms.unwrap_or_else(clock::now_ms);
        let horizons = shared
            .partitions
            .values()
            .map(|partition| partition.horizon_ms(now_ms));
        horizons.min().unwrap_or(now_ms)
    }

    /// See [`super::Source::is_caught_up`].
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        let shared = self.consumer.context().shared();
        shared.is_assigned && shared.partitions.values().all(Partition::was_at_end)
    }

    /// See [`super::Source::skipped`].
    #[must_use]
    pub fn skipped(&self) -> Skipped {
        let shared = self.consumer.context().shared();
        let forgotten = shared.partitions.values().map(Partition::forgotten).sum();
        Skipped {
            forgotten,
            ..shared.skipped
        }
    }

    /// See [`super::Source::close`].
    pub fn close(self) {
        let context = self.consumer.context();
        context.commit(&self.consumer, None, CommitMode::Sync);
        if context.settings.group.is_some() {
            self.consumer.unsubscribe();
        }
        // Dropping the consumer leaves the group.
    }

    /// What has to be done now and then.
    fn keep_up(&mut self) -> Result<(), SourceError> {
        let context = self.consumer.context();
        if self.next_commit.has_passed() {
            self.next_commit = Deadline::after(COMMIT_EVERY);
            context.commit(&self.consumer, None, CommitMode::Async);
        }
        let is_away = context.shared().away_since_ms.is_some();
        if is_away && self.next_question.has_passed() {
            self.next_question = Deadline::after(ASK_EVERY);
            if context.is_answered(&self.consumer) {
                context.shared().come_back();
            }
        }
        if context.settings.group.is_none() && !is_away && self.next_look.has_passed() {
            self.next_look = Deadline::after(LOOK_EVERY);
            // Nobody tells who is in no group that the topic got more partitions. If nobody answers, another time will do.
            let found = client::partitions(
                &self.consumer,
                &context.complaint,
                &context.settings,
                client::ANSWER_WITHIN,
            );
            let known: Vec<i32> = context.shared().partitions.keys().copied().collect();
            let new: Vec<i32> = found
                .unwrap_or_default()
                .into_iter()
                .filter(|partition| !known.contains(partition))
                .collect();
            if !new.is_empty() {
                context.take_over(&self.consumer, &new)?;
            }
        }
        Ok(())
    }
}

impl Context {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        // What a panicking holder left is at worst one message behind.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, error: &KafkaError) -> SourceError {
        let code = error.rdkafka_error_code();
        let refusal =
            code.and_then(|code| client::refusal(&self.settings, code, client::plain(error)));
        refusal.unwrap_or_else(|| SourceError::Failed {
            topic: self.settings.topic.clone(),
            brokers: self.settings.brokers.clone(),
            reason: client::plain(error),
        })
    }

    /// Begins to read partitions, each from its own place on.
    fn take_over(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: &[i32],
    ) -> Result<(), SourceError> {
        let places = Placer::new(consumer, &self.settings).places(partitions);
        let places = places.map_err(|error| self.failed(&error))?;
        let mut list = TopicPartitionList::new();
        for (number, place) in &places {
            let offset = Offset::Offset(place.read_from);
            list.add_partition_offset(&self.settings.topic, *number, offset)
                .map_err(|error| self.failed(&error))?;
        }
        let assigned = match consumer.rebalance_protocol() {
            RebalanceProtocol::Eager => consumer.assign(&list),
            RebalanceProtocol::Cooperative | RebalanceProtocol::None => {
                consumer.incremental_assign(&list)
            }
        };
        assigned.map_err(|error| self.failed(&error))?;
        let mut shared = self.shared();
        shared.is_assigned = true;
        for (number, place) in places {
            shared.enter(number, &place);
        }
        drop(shared);
        // A group without an offset would begin anew at the next rebalance, and pass over what comes until then.
        self.commit(consumer, None, CommitMode::Sync);
        Ok(())
    }

    /// Tells the group how far it has read.
    fn commit(&self, consumer: &BaseConsumer<Self>, only: Option<&[i32]>, mode: CommitMode) {
        if self.settings.group.is_none() {
            return;
        }
        let mut shared = self.shared();
        let mut list = TopicPartitionList::new();
        for (number, partition) in &mut shared.partitions {
            let is_meant = only.is_none_or(|only| only.contains(number));
            let Some(offset) = partition.poll_commit().filter(|_| is_meant) else {
                continue;
            };
            let added =
                list.add_partition_offset(&self.settings.topic, *number, Offset::Offset(offset));
            if added.is_ok() {
                partition.handle_commit(offset);
            }
        }
        drop(shared);
        if list.count() == 0 {
            return;
        }
        if let Err(error) = consumer.commit(&list, mode) {
            self.handle_commit_failure(&error, &list);
        }
    }

    /// The next commit makes up for it, unless the partition is another member's by then.
    fn handle_commit_failure(&self, error: &KafkaError, list: &TopicPartitionList) {
        let mut shared = self.shared();
        for element in list.elements() {
            if let Some(partition) = shared.partitions.get_mut(&element.partition()) {
                partition.handle_commit_failure();
            }
        }
        drop(shared);
        // While partitions move, commits that are under way are refused.
        let is_passing = matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::IllegalGeneration | RDKafkaErrorCode::RebalanceInProgress)
        );
        if is_passing {
            return;
        }
        let text = format!(
            "the group was not told how far it has read: {}; what follows may come again",
            client::plain(error)
        );
        self.shared().events.push_back(Event::Note(text));
    }

    fn handle_message(&self, message: &BorrowedMessage<'_>) -> Option<Event> {
        let mut shared = self.shared();
        shared.come_back();
        let log_ms = message.timestamp().to_millis();
        let log_ms = log_ms.and_then(|ms| u64::try_from(ms).ok());
        let value = message.payload().unwrap_or_default();
        let (number, offset) = (message.partition(), message.offset());
        // Given away meanwhile: another member hands it out.
        let partition = shared.partitions.get_mut(&number)?;
        match partition.handle_message(offset, log_ms, value, clock::now_ms()) {
            Found::Batch {
                batch,
                log_ms,
                context,
            } => Some(Event::Batch {
                batch,
                log_ms,
                context,
            }),
            Found::Nothing => None,
            Found::Repeat => {
                shared.skipped.repeated_batches += 1;
                None
            }
            Found::Broken(cause) => {
                shared.skipped.broken_messages += 1;
                let topic = &self.settings.topic;
                Some(Event::Broken(format!(
                    "{topic}, partition {number}, offset {offset}: {cause}; skipped"
                )))
            }
        }
    }

    /// An error that passes is told once; any other one is returned.
    fn handle_error(
        &self,
        consumer: &BaseConsumer<Self>,
        error: &KafkaError,
    ) -> Result<Option<Event>, SourceError> {
        if let KafkaError::PartitionEOF(number) = error {
            if let Some(partition) = self.shared().partitions.get_mut(number) {
                partition.handle_end();
            }
            return Ok(None);
        }
        let code = error.rdkafka_error_code();
        let reason = self
            .complaint
            .last()
            .filter(|(last, _)| {
                Some(*last) == code || code == Some(RDKafkaErrorCode::AllBrokersDown)
            })
            .map_or_else(|| client::plain(error), |(_, reason)| reason);
        let refusal = code.and_then(|code| client::refusal(&self.settings, code, reason.clone()));
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            return Err(self.failed(error));
        }
        let is_contact_lost = matches!(
            code,
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::Resolve
                    | RDKafkaErrorCode::AllBrokersDown
            )
        );
        // One broker of several may be away, and connections that were idle end: others may answer.
        if !is_contact_lost || self.shared().away_since_ms.is_some() || self.is_answered(consumer) {
            return Ok(None);
        }
        self.shared().away_since_ms = Some(clock::now_ms());
        let brokers = &self.settings.brokers;
        let text = format!("Kafka at {brokers} is away: {reason}; waiting for it");
        Ok(Some(Event::Note(text)))
    }

    /// Whether a broker answers at once.
    fn is_answered(&self, consumer: &BaseConsumer<Self>) -> bool {
        let topic = Some(&*self.settings.topic);
        consumer.fetch_metadata(topic, ANSWER_AT_ONCE).is_ok()
    }
}

impl Shared {
    /// A broker answered.
    fn come_back(&mut self) {
        if self.away_since_ms.take().is_some() {
            let text = String::from("Kafka is back");
            self.events.push_back(Event::Note(text));
        }
    }

    fn enter(&mut self, number: i32, place: &Place) {
        if place.deleted > 0 {
            self.skipped.deleted_messages += place.deleted;
            self.events.push_back(Event::Note(format!(
                "partition {number}: the broker deleted {} messages before this group had read them",
                place.deleted
            )));
        }
        let partition = Partition::new(place.deliver_from, place.committed);
        self.partitions.insert(number, partition);
    }
}

impl ClientContext for Context {
    /// What matters comes as an error too.
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _message: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.complaint.note(&error, reason);
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let numbers: Vec<i32> = list
            .elements()
            .iter()
            .map(TopicPartitionListElem::partition)
            .collect();
        let outcome = if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.take_over(consumer, &numbers)
        } else {
            if !consumer.assignment_lost() {
                self.commit(consumer, Some(&numbers), CommitMode::Sync);
            }
            self.shared()
                .partitions
                .retain(|number, _| !numbers.contains(number));
            let given_up = match consumer.rebalance_protocol() {
                RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
                RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
            };
            given_up.map_err(|error| self.failed(&error))
        };
        if let Err(error) = outcome {
            self.shared().failure = Some(error);
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, list: &TopicPartitionList) {
        if let Err(error) = result {
            self.handle_commit_failure(&error, list);
        }
    }

    fn main_queue_min_poll_interval(&self) -> rdkafka::util::Timeout {
        rdkafka::util::Timeout::After(Duration::from_millis(100))
    }
}

const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// How often brokers that are away are asked whether they are back, and how long an answer may take that does not disturb.
const ASK_EVERY: Duration = Duration::from_secs(2);
const ANSWER_AT_ONCE: Duration = Duration::from_secs(1);
/// How often who is in no group looks for new partitions.
const LOOK_EVERY: Duration = Duration::from_secs(30);
