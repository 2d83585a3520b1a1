//! Where in a partition to begin: what to hand out from, and what to read before that as context.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dt_feed::repeats::WINDOW_MS;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::Settings;
use super::client::{self, ANSWER_WITHIN, Looker};
use super::partition::resume;
use crate::clock::{self, Deadline};
use crate::source::Begin;

/// Where to begin in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The first message to read.
    pub(super) read_from: i64,
    /// The first message to hand out.
    pub(super) deliver_from: i64,
    /// What the group has said that it has read.
    pub(super) committed: Option<i64>,
    /// Messages that were deleted before the group had read them.
    pub(super) deleted: u64,
}

/// Finds places.
pub(super) struct Placer<'a, C: ConsumerContext> {
    consumer: &'a BaseConsumer<C>,
    settings: &'a Settings,
}

impl<'a, C: ConsumerContext> Placer<'a, C> {
    pub(super) const fn new(consumer: &'a BaseConsumer<C>, settings: &'a Settings) -> Self {
        Self { consumer, settings }
    }

    /// The places of partitions that were just given to us.
    pub(super) fn places(&self, partitions: &[i32]) -> KafkaResult<BTreeMap<i32, Place>> {
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let committed = self.committed(partitions)?;
        let begins = self.begins(partitions)?;
        let mut places = BTreeMap::new();
        for number in partitions {
            let (low, high) =
                self.consumer
                    .fetch_watermarks(&self.settings.topic, *number, ANSWER_WITHIN)?;
            let committed = committed.get(number).copied();
            let (deliver_from, deleted) = match (committed, self.settings.begin) {
                (Some(offset), _) => resume(offset, low, high),
                (None, Begin::Earliest) => (low, 0),
                (None, Begin::Latest) => (high, 0),
                (None, Begin::At(_)) => (
                    begins.get(number).map_or(high, |offset| (*offset).max(low)),
                    0,
                ),
            };
            let place = Place {
                read_from: low,
                deliver_from,
                committed,
                deleted,
            };
            places.insert(*number, place);
        }
        self.rewind(&mut places)?;
        Ok(places)
    }

    /// Moves the beginning of each from the beginning of the partition to a window of log before what is to be handed out.
    fn rewind(&self, places: &mut BTreeMap<i32, Place>) -> KafkaResult<()> {
        let anchors = self.anchors(places)?;
        let times = anchors
            .iter()
            .map(|(number, anchor_ms)| (*number, anchor_ms - WINDOW_MS as i64));
        for (number, offset) in self.offsets_at(times)? {
            if let Some(place) = places.get_mut(&number) {
                place.read_from = offset.map_or(place.deliver_from, |offset| {
                    offset.clamp(place.read_from, place.deliver_from)
                });
            }
        }
        Ok(())
    }

    /// The log time of the place of each, ms unix; nothing for one that stands at the beginning anyway.
    fn anchors(&self, places: &BTreeMap<i32, Place>) -> KafkaResult<BTreeMap<i32, i64>> {
        let mut anchors = BTreeMap::new();
        let mut unknown = BTreeMap::new();
        for (number, place) in places {
            match (place.committed, self.settings.begin) {
                _ if place.deliver_from <= place.read_from => (),
                (None, Begin::Latest) => {
                    anchors.insert(*number, clock::now_ms() as i64);
                }
                (None, Begin::At(begin_ms)) => {
                    anchors.insert(*number, begin_ms as i64);
                }
                (Some(_), _) | (None, Begin::Earliest) => {
                    unknown.insert(*number, place.deliver_from - 1);
                }
            }
        }
        anchors.extend(self.times_of(&unknown)?);
        Ok(anchors)
    }

    fn committed(&self, partitions: &[i32]) -> KafkaResult<BTreeMap<i32, i64>> {
        if self.settings.group.is_none() {
            return Ok(BTreeMap::new());
        }
        let mut list = TopicPartitionList::new();
        for number in partitions {
            list.add_partition(&self.settings.topic, *number);
        }
        let list = self.consumer.committed_offsets(list, ANSWER_WITHIN)?;
        let mut committed = BTreeMap::new();
        for element in list.elements() {
            element.error()?;
            if let Offset::Offset(offset) = element.offset() {
                committed.insert(element.partition(), offset);
            }
        }
        Ok(committed)
    }

    /// The first messages at or after the time that was asked for.
    fn begins(&self, partitions: &[i32]) -> KafkaResult<BTreeMap<i32, i64>> {
        let Begin::At(begin_ms) = self.settings.begin else {
            return Ok(BTreeMap::new());
        };
        let times = partitions.iter().map(|number| (*number, begin_ms as i64));
        let offsets = self.offsets_at(times)?;
        Ok(offsets
            .into_iter()
            .filter_map(|(number, offset)| Some((number, offset?)))
            .collect())
    }

    /// The first message at or after each time, ms unix; `None` when there is none.
    fn offsets_at(
        &self,
        times: impl Iterator<Item = (i32, i64)>,
    ) -> KafkaResult<BTreeMap<i32, Option<i64>>> {
        let mut list = TopicPartitionList::new();
        for (number, time_ms) in times {
            let time = Offset::Offset(time_ms.max(0));
            list.add_partition_offset(&self.settings.topic, number, time)?;
        }
        let mut offsets = BTreeMap::new();
        if list.count() > 0 {
            let list = self.consumer.offsets_for_times(list, ANSWER_WITHIN)?;
            for element in list.elements() {
                element.error()?;
                let offset = match element.offset() {
                    Offset::Offset(offset) => Some(offset),
                    _ => None,
                };
                offsets.insert(element.partition(), offset);
            }
        }
        Ok(offsets)
    }

    /// When the messages at these offsets were written, ms unix; nothing for one that is no more. By a client of its own,
    /// because ours is not to fetch anything yet.
    fn times_of(&self, offsets: &BTreeMap<i32, i64>) -> KafkaResult<BTreeMap<i32, i64>> {
        let mut times = BTreeMap::new();
        if offsets.is_empty() {
            return Ok(times);
        }
        let mut config: ClientConfig = client::configuration(self.settings);
        // One message of each is enough; a broker sends at least one whatever its size.
        config.set("fetch.message.max.bytes", "1000");
        let looker: BaseConsumer<Looker> = config.create_with_context(Looker::default())?;
        let mut list = TopicPartitionList::new();
        for (number, offset) in offsets {
            list.add_partition_offset(&self.settings.topic, *number, Offset::Offset(*offset))?;
        }
        looker.assign(&list)?;
        let mut done = BTreeSet::new();
        let deadline = Deadline::after(TIMES_WITHIN);
        while done.len() < offsets.len() {
            if deadline.has_passed() || self.settings.interrupt.is_set() {
                return Err(KafkaError::OffsetFetch(RDKafkaErrorCode::OperationTimedOut));
            }
            match looker.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let time_ms = message.timestamp().to_millis().unwrap_or(0);
                    if done.insert(message.partition()) {
                        times.insert(message.partition(), time_ms);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(number))) => {
                    done.insert(number);
                }
                // Complaints that pass; the deadline is for those that do not.
                Some(Err(_)) | None => (),
            }
        }
        Ok(times)
    }
}

const TIMES_WITHIN: Duration = Duration::from_secs(15);
