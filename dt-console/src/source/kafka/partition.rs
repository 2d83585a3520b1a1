//! How far one partition was read, and what of it is to be handed out. Knows no client.

use dt_feed::batch::{self, BatchError};
use dt_feed::proto::Batch;
use dt_feed::repeats::Repeats;

/// One partition that was given to us.
#[derive(Debug)]
pub(super) struct Partition {
    repeats: Repeats,
    /// The first message that is to be handed out; those before it are context.
    deliver_from: i64,
    /// Behind the last message that was handed out, or was nothing to hand out.
    given: i64,
    /// Of these, what has reached its reader.
    confirmed: i64,
    /// Of these, what the group was told.
    committed: Option<i64>,
    /// Log time of the latest message, ms unix.
    latest_ms: u64,
    /// Nothing is left to be read at the moment.
    is_at_end: bool,
    /// That was so at least once.
    was_at_end: bool,
}

/// What a message is for us.
#[derive(Debug)]
pub(super) enum Found {
    /// A batch that is to be handed out.
    Batch {
        batch: Box<Batch>,
        log_ms: u64,
        context: bool,
    },
    /// A batch that was handed out before.
    Repeat,
    /// Something that has already been seen, or teaches nothing.
    Nothing,
    /// No batch.
    Broken(BatchError),
}

impl Partition {
    /// A partition of which messages from `deliver_from` on are to be handed out. `committed` is what the group knows.
    pub(super) fn new(deliver_from: i64, committed: Option<i64>) -> Self {
        Self {
            repeats: Repeats::new(),
            deliver_from,
            given: deliver_from,
            confirmed: deliver_from,
            committed,
            latest_ms: 0,
            is_at_end: false,
            was_at_end: false,
        }
    }

    /// Takes in a message. `log_ms` is its timestamp, if it has one; the future is taken for now.
    pub(super) fn handle_message(
        &mut self,
        offset: i64,
        log_ms: Option<u64>,
        value: &[u8],
        now_ms: u64,
    ) -> Found {
        self.is_at_end = false;
        let log_ms = log_ms.map_or(self.latest_ms, |ms| ms.min(now_ms));
        self.latest_ms = self.latest_ms.max(log_ms);
        let context = offset < self.deliver_from;
        if !context {
            self.given = self.given.max(offset + 1);
        }
        match batch::decode(value) {
            Ok(batch) if self.repeats.is_new(&batch, log_ms) => Found::Batch {
                batch: Box::new(batch),
                log_ms,
                context,
            },
            Ok(_) | Err(_) if context => Found::Nothing,
            Ok(_) => Found::Repeat,
            Err(error) => Found::Broken(error),
        }
    }

    /// Nothing is left to be read.
    pub(super) const fn handle_end(&mut self) {
        self.is_at_end = true;
        self.was_at_end = true;
    }

    /// What was handed out has reached its reader.
    pub(super) const fn confirm(&mut self) {
        self.confirmed = self.given;
    }

    /// The offset that the group is to be told, if it does not know it.
    pub(super) fn poll_commit(&self) -> Option<i64> {
        (self.committed != Some(self.confirmed)).then_some(self.confirmed)
    }

    /// The group was told.
    pub(super) const fn handle_commit(&mut self, offset: i64) {
        self.committed = Some(offset);
    }

    /// The group was not told after all, so it has to be told again.
    pub(super) const fn handle_commit_failure(&mut self) {
        self.committed = None;
    }

    /// Up to when everything was read, ms unix.
    pub(super) const fn horizon_ms(&self, now_ms: u64) -> u64 {
        if self.is_at_end {
            now_ms
        } else {
            self.latest_ms
        }
    }

    pub(super) const fn was_at_end(&self) -> bool {
        self.was_at_end
    }

    pub(super) const fn forgotten(&self) -> u64 {
        self.repeats.forgotten()
    }
}

/// Where to begin reading, and what is lost, when a group's offset is `committed` and the log holds `low` to before `high`.
///
/// Returns the first message to hand out, and how many were deleted before they were read.
pub(super) const fn resume(committed: i64, low: i64, high: i64) -> (i64, u64) {
    if committed < low {
        (low, (low - committed) as u64)
    } else if committed > high {
        // The topic was made anew, or its end was lost: nothing of what is there was read.
        (low, 0)
    } else {
        (committed, 0)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    const T0: u64 = 1_800_000_000_000;

    fn value(sequence: u64) -> Vec<u8> {
        let batch = Batch {
            source: "n1".into(),
            sequence,
            ..Batch::default()
        };
        batch.encode_to_vec()
    }

    /// Reads these as messages from offset `first` on; one word for each.
    fn read(partition: &mut Partition, first: i64, sequences: &[u64]) -> Vec<&'static str> {
        let mut found = Vec::new();
        for (offset, sequence) in (first..).zip(sequences) {
            let log_ms = T0 + offset as u64;
            found.push(
                match partition.handle_message(offset, Some(log_ms), &value(*sequence), u64::MAX) {
                    Found::Batch { context: true, .. } => "context",
                    Found::Batch { context: false, .. } => "new",
                    Found::Repeat => "repeat",
                    Found::Nothing => "nothing",
                    Found::Broken(_) => "broken",
                },
            );
        }
        found
    }

    #[test]
    fn what_stands_before_the_offset_makes_repeats_known_and_is_not_handed_out() {
        let mut partition = Partition::new(3, Some(3));
        let found = read(&mut partition, 0, &[0, 1, 1, 1, 2, 2]);
        assert_eq!(
            found,
            ["context", "context", "nothing", "repeat", "new", "repeat"]
        );
    }

    #[test]
    fn the_group_is_told_what_was_confirmed_and_no_more() {
        let mut partition = Partition::new(3, Some(3));
        assert_eq!(partition.poll_commit(), None);
        read(&mut partition, 3, &[0, 1]);
        assert_eq!(partition.poll_commit(), None);
        partition.confirm();
        read(&mut partition, 5, &[2]);
        assert_eq!(partition.poll_commit(), Some(5));
        partition.handle_commit(5);
        assert_eq!(partition.poll_commit(), None);
        partition.handle_commit_failure();
        assert_eq!(partition.poll_commit(), Some(5));
    }

    #[test]
    fn a_group_without_an_offset_is_told_where_it_begins() {
        let mut partition = Partition::new(7, None);
        assert_eq!(partition.poll_commit(), Some(7));
        read(&mut partition, 4, &[0, 1]);
        partition.confirm();
        assert_eq!(partition.poll_commit(), Some(7));
    }

    #[test]
    fn broken_messages_and_repeats_count_as_read() {
        let mut partition = Partition::new(0, None);
        let found = partition.handle_message(0, Some(T0), &[0xFF; 3], T0);
        assert!(matches!(found, Found::Broken(_)));
        read(&mut partition, 1, &[0, 0]);
        partition.confirm();
        assert_eq!(partition.poll_commit(), Some(3));
    }

    #[test]
    fn the_horizon_is_now_only_at_the_end() {
        let mut partition = Partition::new(0, None);
        assert_eq!(partition.horizon_ms(T0 + 100), 0);
        read(&mut partition, 5, &[0]);
        assert_eq!(partition.horizon_ms(T0 + 100), T0 + 5);
        partition.handle_end();
        assert_eq!(partition.horizon_ms(T0 + 100), T0 + 100);
        read(&mut partition, 6, &[1]);
        assert_eq!(partition.horizon_ms(T0 + 100), T0 + 6);
        assert!(partition.was_at_end());
    }

    #[test]
    fn a_message_from_the_future_is_taken_for_one_of_now() {
        let mut partition = Partition::new(0, None);
        let found = partition.handle_message(0, Some(u64::MAX), &value(0), T0);
        assert!(matches!(found, Found::Batch { log_ms: T0, .. }));
        // One without a timestamp is as old as the one before it.
        let found = partition.handle_message(1, None, &value(1), T0 + 9);
        assert!(matches!(found, Found::Batch { log_ms: T0, .. }));
    }

    #[test]
    fn a_group_goes_on_where_the_log_still_has_something() {
        for (committed, low, high, expected) in [
            (5, 0, 9, (5, 0)),
            (9, 0, 9, (9, 0)),
            (2, 5, 9, (5, 3)),
            (20, 0, 9, (0, 0)),
        ] {
            assert_eq!(resume(committed, low, high), expected);
        }
    }
}
