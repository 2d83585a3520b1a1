//! The thread between the agent and Kafka: does what the outbox says, in the order in which it says it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use dt_common::time::MonoNanos;
use tokio::sync::oneshot;

use super::link::Link;
use super::spool::Spool;
use super::{Shared, lock};
use crate::adapters::clock;
use crate::engine::outbox::{Command, Complaints, Loaded, Outbox, Parcel, ShelfFailed, Tally};

/// What the agent asks for.
#[derive(Debug)]
pub(super) enum Message {
    /// Publish this.
    Batch(Parcel),
    /// Publish what is left, at most for so long, and keep the rest; then end.
    Stop {
        within: Duration,
        /// Gets what could not be kept.
        done: oneshot::Sender<Tally>,
    },
}

pub(super) struct Worker {
    inbox: Receiver<Message>,
    link: Link,
    spool: Option<Spool>,
    outbox: Outbox,
    shared: Arc<Shared>,
    disk_complaints: Complaints,
    stop: Option<Stop>,
    _ending: oneshot::Sender<()>,
}

struct Stop {
    by: MonoNanos,
    done: Option<oneshot::Sender<Tally>>,
}

impl Worker {
    pub fn new(
        inbox: Receiver<Message>,
        link: Link,
        spool: Option<Spool>,
        outbox: Outbox,
        shared: Arc<Shared>,
        ending: oneshot::Sender<()>,
    ) -> Self {
        Self {
            inbox,
            link,
            spool,
            outbox,
            shared,
            disk_complaints: Complaints::default(),
            stop: None,
            _ending: ending,
        }
    }

    /// Runs until it is told to stop, or nobody is left who could.
    pub fn run(mut self) {
        loop {
            self.wait();
            let now = clock::now();
            self.link.turn(&mut self.outbox, now);
            self.obey(now);
            *lock(&self.shared.by_worker) = self.outbox.status();
            let is_over = |stop: &Stop| now >= stop.by || self.outbox.is_empty();
            if self.stop.as_ref().is_some_and(is_over) {
                break;
            }
        }
        self.finish();
    }

    /// Waits for whatever comes first, but only so long that nothing else has to wait for it.
    fn wait(&mut self) {
        let is_lively = self.outbox.is_busy() && self.outbox.stalled_ns(clock::now()) < LIVELY_NS;
        let limit = if is_lively { SHORT_WAIT } else { LONG_WAIT };
        if !self.link.wait(limit) {
            match self.inbox.recv_timeout(limit) {
                Ok(message) => self.handle_message(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.handle_orphaned(),
            }
        }
        loop {
            match self.inbox.try_recv() {
                Ok(message) => self.handle_message(message),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => return self.handle_orphaned(),
            }
        }
    }

    fn handle_message(&mut self, message: Message) {
        let now = clock::now();
        match message {
            Message::Batch(parcel) => self.outbox.handle_batch(parcel, now),
            Message::Stop { within, done } => {
                self.stop = Some(Stop {
                    by: now.plus(within.as_nanos() as u64),
                    done: Some(done),
                });
            }
        }
    }

    fn handle_orphaned(&mut self) {
        let by = clock::now();
        self.stop.get_or_insert(Stop { by, done: None });
    }

    fn obey(&mut self, now: MonoNanos) {
        while let Some(command) = self.outbox.poll_command(now) {
            match command {
                Command::Send { ticket, parcel } => {
                    self.link.send(ticket, &parcel, &mut self.outbox);
                }
                Command::Store(parcel) => self.store(&parcel, now),
                Command::Load { segment, offset } => {
                    let loaded = match &mut self.spool {
                        Some(spool) => spool.load(segment, offset),
                        None => Loaded::Damaged,
                    };
                    self.outbox.handle_loaded(segment, loaded, now);
                }
                Command::Discard { segment, offset } => {
                    let (lost, is_damaged) = self
                        .spool
                        .as_mut()
                        .map_or((Tally::default(), true), |spool| {
                            spool.discard(segment, offset)
                        });
                    self.outbox.handle_discarded(segment, lost, is_damaged, now);
                    if self.disk_complaints.handle_trouble("room", now) {
                        tracing::error!(
                            batches = lost.batches,
                            "The spool has no room: the oldest batches are lost, and counted."
                        );
                    }
                }
                Command::Remove { segment } => {
                    if let Some(spool) = &mut self.spool {
                        spool.remove(segment);
                    }
                }
                Command::Mark(place) => {
                    if let Some(spool) = &mut self.spool {
                        spool.mark(place);
                    }
                }
            }
        }
    }

    fn store(&mut self, parcel: &Parcel, now: MonoNanos) {
        let stored = match &mut self.spool {
            Some(spool) => spool.store(&parcel.bytes, clock::unix_now_ns()),
            None => return self.outbox.handle_stored(Err(ShelfFailed), now),
        };
        match stored {
            Ok(place) => self.outbox.handle_stored(Ok(place), now),
            Err(error) => {
                if self.disk_complaints.handle_trouble(&error.to_string(), now) {
                    let error = anyhow::Error::from(error);
                    tracing::error!(
                        "The spool cannot be written, batches stay in memory: {error:#}"
                    );
                }
                self.outbox.handle_stored(Err(ShelfFailed), now);
            }
        }
    }

    /// Puts what Kafka has not taken where the next start finds it.
    fn finish(mut self) {
        self.outbox.handle_stop();
        self.obey(clock::now());
        if let Some(spool) = &self.spool {
            spool.sync();
        }
        *lock(&self.shared.by_worker) = self.outbox.status();
        if let Some(done) = self.stop.and_then(|stop| stop.done) {
            let _ = done.send(self.outbox.unsaved());
        }
        self.link.end();
    }
}

const SHORT_WAIT: Duration = Duration::from_millis(5);
const LONG_WAIT: Duration = Duration::from_millis(100);
/// Without an answer for so long, looking often is in vain.
const LIVELY_NS: u64 = 1_000_000_000;
