//! Closes all peers' windows together and hands them to whoever publishes.

use std::collections::HashMap;
use std::time::Duration;

use dt_common::time::MonoNanos;

use super::{Entry, Path, SendFailure, nanos};
use crate::engine::mesh::Slot;
use crate::engine::session::{ProbeOutcome, Session};
use crate::engine::window::WindowReport;

/// One peer's window.
#[derive(Debug)]
pub struct PeerWindow {
    /// Who.
    pub slot: Slot,
    /// How its probes went at the window's end.
    pub path: Path,
    /// What was measured.
    pub report: WindowReport,
    /// Every probe that got its outcome, when that is asked for.
    pub records: Vec<ProbeOutcome>,
    /// The session ended with this window.
    pub last: bool,
}

/// All windows that ended together.
#[derive(Debug, Default)]
pub struct WindowBatch {
    /// The windows.
    pub windows: Vec<PeerWindow>,
    /// The greatest delay of a wake-up, ns.
    pub latest_wake_up_ns: u64,
    /// The latest reason why probes could not be sent, if any could not.
    pub send_failure: Option<SendFailure>,
    /// Windows that were thrown away before these, because nobody took them.
    pub dropped: u64,
}

/// Where batches go; never waits. False: there was no room.
pub type WindowSink = Box<dyn FnMut(WindowBatch) -> Result<(), WindowBatch> + Send>;

/// The current window of all peers.
pub(super) struct Windows {
    length_ns: u64,
    due_at: MonoNanos,
    sink: WindowSink,
    batch: WindowBatch,
    dropped: u64,
}

impl Windows {
    pub(super) fn new(length: Duration, sink: WindowSink, now: MonoNanos) -> Self {
        let length_ns = nanos(length).max(1);
        Self {
            length_ns,
            due_at: now.plus(length_ns),
            sink,
            batch: WindowBatch::default(),
            dropped: 0,
        }
    }

    pub(super) fn due_at(&self) -> MonoNanos {
        self.due_at
    }

    pub(super) fn is_due(&self, now: MonoNanos) -> bool {
        now >= self.due_at
    }

    /// Notes how late this wake-up is.
    pub(super) fn note_wake_up(&mut self, planned: Option<MonoNanos>, now: MonoNanos) {
        let late_ns = planned.map_or(0, |planned| now.since(planned));
        self.batch.latest_wake_up_ns = self.batch.latest_wake_up_ns.max(late_ns);
    }

    pub(super) fn note_failure(&mut self, failure: SendFailure) {
        self.batch.send_failure = Some(failure);
    }

    /// Closes the window of a session that ends.
    pub(super) fn keep_last(
        &mut self,
        slot: Slot,
        mut session: Session,
        path: Path,
        now: MonoNanos,
    ) {
        self.keep_cut(slot, path, &mut session);
        let records = records(&mut session);
        self.batch.windows.push(PeerWindow {
            slot,
            path,
            report: session.finish(now),
            records,
            last: true,
        });
    }

    /// Takes the windows that ended early; all records are the last one's, each knows its stamps.
    fn keep_cut(&mut self, slot: Slot, path: Path, session: &mut Session) {
        let cut = std::iter::from_fn(|| session.poll_window());
        self.batch.windows.extend(cut.map(|report| PeerWindow {
            slot,
            path,
            report,
            records: Vec::new(),
            last: false,
        }));
    }

    /// Closes all windows and hands them over.
    pub(super) fn close(&mut self, peers: &mut HashMap<u16, Entry>, now: MonoNanos) {
        for (slot, entry) in peers {
            self.keep_cut(Slot(*slot), entry.path, &mut entry.session);
            let report = entry.session.take_window(now);
            let records = records(&mut entry.session);
            self.batch.windows.push(PeerWindow {
                slot: Slot(*slot),
                path: entry.path,
                report,
                records,
                last: false,
            });
        }
        self.batch.windows.sort_by_key(|window| window.slot);
        self.batch.dropped = self.dropped;
        let batch = std::mem::take(&mut self.batch);
        if let Err(refused) = (self.sink)(batch) {
            self.dropped += refused.windows.len() as u64;
        }
        // After a stall the next window ends a whole length from now, not at once.
        self.due_at = self.due_at.plus(self.length_ns);
        if self.due_at <= now {
            self.due_at = now.plus(self.length_ns);
        }
    }
}

fn records(session: &mut Session) -> Vec<ProbeOutcome> {
    std::iter::from_fn(|| session.poll_record()).collect()
}
