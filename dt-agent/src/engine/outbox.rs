//! The way of every batch to the broker: what is sent next, what is kept on disk, what is given up when there is no room.
//!
//! ```text
//!   handle_batch ──> tail ───────────────────────────> front ── Send ──> broker
//!                     │  unacknowledged for HOLD         ^
//!                     └─ Store ──> shelf (the spool) ── Load
//! ```
//!
//! The order is that of the calls of [`Outbox::handle_batch`], and before them what an earlier start left on the shelf: all of
//! `front` is older than what is unread on the shelf, and that is older than all of `tail`. A batch leaves only by being
//! acknowledged, or by being counted in [`Outbox::losses`]. What was handed to the broker's client is never given up, because it
//! may have been written already: a count of it would be a guess.
//!
//! Effects are [`Command`]s, to be obeyed in order; the answers come back by `handle_*` before the next command is asked for. How
//! a batch is encoded, sent and written: see `adapters::publish::kafka`.

mod complaints;
mod parcel;
mod shelf;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use dt_common::time::MonoNanos;
use dt_feed::proto::Losses;

pub use complaints::Complaints;
pub use parcel::{BatchId, Parcel, Tally};
pub use shelf::{Found, Place};

use shelf::Shelf;

/// How the way to where the measurements go is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FeedStatus {
    /// What is handed over gets there.
    pub is_connected: bool,
    /// Bytes that wait in memory, or are on their way.
    pub queue_bytes: u64,
    /// Bytes that wait on disk.
    pub spool_bytes: u64,
    /// Batches that arrived since the start.
    pub published: u64,
    /// What was lost since the start, of the kinds that the publisher knows.
    pub losses: Losses,
}

/// Bounds of an [`Outbox`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// A batch that is not acknowledged after so long is put on the shelf, ns.
    pub hold_ns: u64,
    /// Batches that may be with the broker at a time; at least 1.
    pub flight_batches: usize,
    /// Bytes that may be with the broker at a time; one batch may exceed them.
    pub flight_bytes: usize,
    /// When nothing was acknowledged for so long, no more is handed over, ns.
    pub patience_ns: u64,
    /// Batches that wait in memory alone.
    pub memory_batches: usize,
    /// Bytes that wait in memory alone.
    pub memory_bytes: usize,
    /// Bytes on the shelf; 0: there is none.
    pub shelf_bytes: u64,
}

/// Names one handing over of one batch; never used twice.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What is to be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Command {
    /// Hand it to the broker. Answers, at any time: [`Outbox::handle_acked`] or [`Outbox::handle_failed`].
    Send {
        /// What the answer names.
        ticket: Ticket,
        /// The batch.
        parcel: Parcel,
    },
    /// Append it to the shelf. Answer: [`Outbox::handle_stored`].
    Store(Parcel),
    /// Read the batch that begins there. Answer: [`Outbox::handle_loaded`].
    Load {
        /// Segment of the shelf.
        segment: u64,
        /// Byte within it.
        offset: u64,
    },
    /// Count what is in the segment from there on, and delete it. Answer: [`Outbox::handle_discarded`].
    Discard {
        /// Segment of the shelf.
        segment: u64,
        /// Byte within it.
        offset: u64,
    },
    /// Delete a segment of which nothing is needed any more.
    Remove {
        /// Segment of the shelf.
        segment: u64,
    },
    /// Remember for the next start that all before this place is acknowledged.
    Mark(Place),
}

/// Why the broker did not take a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// It will never take this one.
    Rejected,
    /// It may take it another time.
    Again,
}

/// Why the shelf did not take a batch, or give it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ShelfFailed;

/// What stands at a place of the shelf.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Loaded {
    /// A batch, up to this byte.
    Batch(Parcel, u64),
    /// Nothing more that could be read.
    Damaged,
}

/// Batches on their way.
#[derive(Debug)]
pub struct Outbox {
    limits: Limits,
    front: VecDeque<Held>,
    tail: VecDeque<Waiting>,
    tail_bytes: usize,
    shelf: Shelf,
    open: bool,
    flight: Flight,
    next_ticket: u64,
    /// The shelf failed; it is tried again then.
    store_again_at: Option<MonoNanos>,
    /// A segment was given up since the shelf last took a batch, and the shelf failed all the same.
    gave_up_in_vain: bool,
    stopping: bool,
    last_loaded: Option<BatchId>,
    damaged_after: Option<BatchId>,
    losses: Losses,
    acked: u64,
}

/// A batch that was handed over, or will be as soon as may be.
#[derive(Debug)]
struct Held {
    parcel: Parcel,
    since: MonoNanos,
    /// With the broker's client under this name.
    ticket: Option<Ticket>,
    done: bool,
    place: Option<Place>,
}

/// A batch in memory alone.
#[derive(Debug)]
struct Waiting {
    parcel: Parcel,
    since: MonoNanos,
}

/// What is with the broker.
#[derive(Debug, Default)]
struct Flight {
    batches: usize,
    bytes: usize,
    /// The last acknowledgement, or when the first of these was handed over.
    progress_at: MonoNanos,
}

impl Outbox {
    /// An outbox with what an earlier start left on the shelf, oldest first, acknowledged up to `mark`.
    #[must_use]
    pub fn new(limits: Limits, found: &[Found], mark: Option<Place>) -> Self {
        Self {
            limits,
            front: VecDeque::new(),
            tail: VecDeque::new(),
            tail_bytes: 0,
            shelf: Shelf::new(limits.shelf_bytes, found, mark),
            open: false,
            flight: Flight::default(),
            next_ticket: 0,
            store_again_at: None,
            gave_up_in_vain: false,
            stopping: false,
            last_loaded: None,
            damaged_after: None,
            losses: Losses::default(),
            acked: 0,
        }
    }

    /// Takes a new batch.
    pub fn handle_batch(&mut self, parcel: Parcel, now: MonoNanos) {
        self.tail_bytes += parcel.bytes.len();
        self.tail.push_back(Waiting { parcel, since: now });
    }

    /// The broker can be given batches.
    pub fn handle_open(&mut self, now: MonoNanos) {
        self.open = true;
        self.flight.progress_at = now;
    }

    /// The broker is to be given no more; what it has may still be acknowledged.
    pub fn handle_shut(&mut self) {
        self.open = false;
    }

    /// The broker's client is gone: what it had not acknowledged is to be handed over again, in the old order.
    pub fn handle_closed(&mut self) {
        self.open = false;
        for held in &mut self.front {
            held.ticket = None;
        }
        self.flight = Flight::default();
    }

    /// The broker has written a batch.
    pub fn handle_acked(&mut self, ticket: Ticket, now: MonoNanos) {
        if let Some(index) = self.land(ticket) {
            self.flight.progress_at = now;
            self.front[index].done = true;
            self.acked += 1;
            self.release_done();
        }
    }

    /// The broker did not take a batch.
    pub fn handle_failed(&mut self, ticket: Ticket, failure: Failure) {
        let Some(index) = self.land(ticket) else {
            return;
        };
        if failure == Failure::Rejected {
            let tally = self.front[index].parcel.tally;
            self.losses.batches_rejected += tally.batches;
            self.count(tally);
            self.front[index].done = true;
            self.release_done();
        }
    }

    /// The end is near: what is in memory alone belongs on the shelf, however young it is.
    pub fn handle_stop(&mut self) {
        self.stopping = true;
        self.open = false;
        self.store_again_at = None;
    }

    /// The batch of the last [`Command::Store`] stands there, or could not be written.
    pub fn handle_stored(&mut self, stored: Result<Place, ShelfFailed>, now: MonoNanos) {
        let Ok(place) = stored else {
            self.store_again_at = Some(now.plus(STORE_AGAIN_NS));
            return;
        };
        self.store_again_at = None;
        self.gave_up_in_vain = false;
        if let Some(held) = self.front.iter_mut().find(|held| held.is_unplaced()) {
            held.place = Some(place);
            self.shelf.handle_stored(place, true);
        } else if let Some(waiting) = self.tail.pop_front() {
            self.tail_bytes -= waiting.parcel.bytes.len();
            self.shelf.handle_stored(place, false);
        }
    }

    /// What the last [`Command::Load`] found.
    pub fn handle_loaded(&mut self, segment: u64, loaded: Loaded, now: MonoNanos) {
        match loaded {
            Loaded::Batch(parcel, end) => {
                self.count_gap(parcel.id);
                self.last_loaded = Some(parcel.id);
                let place = Place { segment, end };
                self.shelf.handle_loaded(place);
                self.front.push_back(Held {
                    parcel,
                    since: now,
                    ticket: None,
                    done: false,
                    place: Some(place),
                });
            }
            Loaded::Damaged => {
                self.shelf.handle_damaged(segment);
                self.damaged_after = self.last_loaded;
                // At the least the one that could not be read.
                self.losses.batches_spool_damaged += 1;
            }
        }
    }

    /// What was lost with the segment of the last [`Command::Discard`].
    pub fn handle_discarded(
        &mut self,
        segment: u64,
        lost: Tally,
        is_damaged: bool,
        now: MonoNanos,
    ) {
        self.shelf.handle_removed(segment);
        self.losses.batches_spool_full += lost.batches;
        self.count(lost);
        self.losses.batches_spool_damaged += u64::from(is_damaged);
        // There is room now.
        self.store_again_at = self.store_again_at.map(|_| now);
    }

    /// What to do now; to be asked again until there is nothing.
    pub fn poll_command(&mut self, now: MonoNanos) -> Option<Command> {
        if let Some(segment) = self.shelf.poll_finished() {
            return Some(Command::Remove { segment });
        }
        if let Some(place) = self.shelf.poll_mark(now, self.stopping) {
            return Some(Command::Mark(place));
        }
        self.poll_store(now).or_else(|| self.poll_send(now))
    }

    /// Everything was acknowledged or counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.front.is_empty() && self.tail.is_empty() && self.shelf.next_unread().is_none()
    }

    /// Something is with the broker, or could be as soon as it answers.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.flight.batches > 0 || (self.open && !self.is_empty())
    }

    /// Nothing was acknowledged for so long, ns, though there is something to send.
    #[must_use]
    pub fn stalled_ns(&self, now: MonoNanos) -> u64 {
        if self.is_empty() {
            return 0;
        }
        let held = self.front.front().map(|held| held.since);
        let waiting = self.tail.front().map(|waiting| waiting.since);
        let oldest = held.or(waiting).unwrap_or_default();
        now.since(self.flight.progress_at.max(oldest))
    }

    /// Batches that would be lost if the process ended now.
    #[must_use]
    pub fn unsaved(&self) -> Tally {
        let held = self.front.iter().filter(|held| held.is_unplaced());
        let held = held.map(|held| held.parcel.tally);
        let waiting = self.tail.iter().map(|waiting| waiting.parcel.tally);
        held.chain(waiting).fold(Tally::default(), Tally::plus)
    }

    /// Bytes on the shelf, sent or not.
    #[must_use]
    pub fn shelf_bytes(&self) -> u64 {
        self.shelf.bytes()
    }

    /// How things are, in figures.
    #[must_use]
    pub fn status(&self) -> FeedStatus {
        let held = self.front.iter().map(|held| held.parcel.bytes.len());
        FeedStatus {
            is_connected: self.open,
            queue_bytes: (self.tail_bytes + held.sum::<usize>()) as u64,
            spool_bytes: self.shelf.bytes(),
            published: self.acked,
            losses: self.losses,
        }
    }

    /// What was given up since the start.
    #[must_use]
    pub const fn losses(&self) -> &Losses {
        &self.losses
    }

    /// The next batch for the shelf, or what has to go because there is no room for it.
    fn poll_store(&mut self, now: MonoNanos) -> Option<Command> {
        let is_over = self.tail.len() > self.limits.memory_batches
            || self.tail_bytes > self.limits.memory_bytes;
        let may_store =
            self.limits.shelf_bytes > 0 && self.store_again_at.is_none_or(|again| now >= again);
        if let Some(parcel) = self.next_for_shelf(now, is_over).filter(|_| may_store) {
            let parcel = parcel.clone();
            if self.shelf.has_room(parcel.record_bytes()) {
                return Some(Command::Store(parcel));
            }
            if let Some((segment, offset)) = self.shelf.oldest_idle() {
                return Some(Command::Discard { segment, offset });
            }
            // All that is on the shelf is with the broker.
            self.store_again_at = Some(now.plus(STORE_AGAIN_NS));
        }
        if !is_over {
            return None;
        }
        // Neither memory nor shelf has room: the oldest goes. That is on the shelf, if it makes room there.
        let on_shelf = self.shelf.oldest_idle().filter(|_| !self.gave_up_in_vain);
        if let Some((segment, offset)) = on_shelf {
            self.gave_up_in_vain = true;
            return Some(Command::Discard { segment, offset });
        }
        if let Some(waiting) = self.tail.pop_front() {
            self.tail_bytes -= waiting.parcel.bytes.len();
            self.losses.batches_queue_full += waiting.parcel.tally.batches;
            self.count(waiting.parcel.tally);
        }
        self.poll_store(now)
    }

    /// The oldest batch that is in memory alone, when it has been there for long enough.
    fn next_for_shelf(&self, now: MonoNanos, is_over: bool) -> Option<&Parcel> {
        let held = self.front.iter().find(|held| held.is_unplaced());
        let (parcel, since) = match held {
            Some(held) => (&held.parcel, held.since),
            None => self
                .tail
                .front()
                .map(|waiting| (&waiting.parcel, waiting.since))?,
        };
        let is_due = is_over || self.stopping || now.since(since) >= self.limits.hold_ns;
        is_due.then_some(parcel)
    }

    fn poll_send(&mut self, now: MonoNanos) -> Option<Command> {
        if !self.open || !self.may_hand_over(now) {
            return None;
        }
        if let Some(index) = self.front.iter().position(Held::is_to_send) {
            return Some(self.hand_over(index, now));
        }
        if let Some((segment, offset)) = self.shelf.next_unread() {
            return Some(Command::Load { segment, offset });
        }
        let Waiting { parcel, since } = self.tail.pop_front()?;
        self.tail_bytes -= parcel.bytes.len();
        self.front.push_back(Held {
            parcel,
            since,
            ticket: None,
            done: false,
            place: None,
        });
        Some(self.hand_over(self.front.len() - 1, now))
    }

    fn may_hand_over(&self, now: MonoNanos) -> bool {
        let flight = &self.flight;
        let has_room =
            flight.batches < self.limits.flight_batches && flight.bytes < self.limits.flight_bytes;
        let answers = now.since(flight.progress_at) < self.limits.patience_ns;
        flight.batches == 0 || (has_room && answers)
    }

    fn hand_over(&mut self, index: usize, now: MonoNanos) -> Command {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let held = &mut self.front[index];
        held.ticket = Some(ticket);
        let parcel = held.parcel.clone();
        if self.flight.batches == 0 {
            self.flight.progress_at = now;
        }
        self.flight.batches += 1;
        self.flight.bytes += parcel.bytes.len();
        Command::Send { ticket, parcel }
    }

    /// Takes a ticket back; `None` for one that was not, or is no more, with the broker.
    fn land(&mut self, ticket: Ticket) -> Option<usize> {
        let index = self
            .front
            .iter()
            .position(|held| held.ticket == Some(ticket))?;
        let held = &mut self.front[index];
        held.ticket = None;
        self.flight.batches -= 1;
        self.flight.bytes -= held.parcel.bytes.len();
        Some(index)
    }

    /// Lets go of what is done, as far as nothing older is in the way: the shelf remembers one place only.
    fn release_done(&mut self) {
        while self.front.front().is_some_and(|held| held.done) {
            let place = self.front.pop_front().and_then(|held| held.place);
            if let Some(place) = place {
                self.shelf.handle_released(place);
            }
        }
    }

    fn count(&mut self, lost: Tally) {
        self.losses.windows_unwritten += lost.windows;
        self.losses.probe_blocks_unwritten += lost.probe_blocks;
        self.losses.probes_lost += lost.probes;
    }

    /// After damage the next batch tells by its number how many there were in between; one of them is counted already.
    fn count_gap(&mut self, next: BatchId) {
        let Some(before) = self.damaged_after.take() else {
            return;
        };
        if before.start_id == next.start_id {
            let between = next.sequence.saturating_sub(before.sequence + 1);
            self.losses.batches_spool_damaged += between.saturating_sub(1);
        }
    }
}

impl Held {
    fn is_unplaced(&self) -> bool {
        self.place.is_none() && !self.done
    }

    fn is_to_send(&self) -> bool {
        self.ticket.is_none() && !self.done
    }
}

/// From one failure of the shelf to the next try.
const STORE_AGAIN_NS: u64 = 1_000_000_000;
