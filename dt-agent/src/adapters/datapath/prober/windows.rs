//! Closes all peers' windows together and hands them to whoever publishes.

use std::time::Duration;

use dt_common::time::MonoNanos;

use super::peers::Peers;
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
    /// The next batch has more windows that ended with these.
    pub more: bool,
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
    /// Peers whose windows are still to be closed.
    open: Vec<u16>,
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
            open: Vec::new(),
        }
    }

    /// When [`Self::close_due`] has something to do next. Soon while some windows wait: however few probes there are, all have to
    /// be closed before the next ones end.
    pub(super) fn next_at(&self, now: MonoNanos) -> MonoNanos {
        if self.open.is_empty() {
            self.due_at
        } else {
            now.plus(PART_NS)
        }
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
        self.keep_ended(slot, path, &mut session);
        let records = records(&mut session);
        let report = session.finish(now);
        self.keep_ended(slot, path, &mut session);
        self.batch.windows.push(PeerWindow {
            slot,
            path,
            report,
            records,
            last: true,
        });
    }

    /// Takes the windows that ended early, or those of other classes of probes; all records are those of the first class's
    /// window, each knows its stamps and its class.
    fn keep_ended(&mut self, slot: Slot, path: Path, session: &mut Session) {
        let ended = std::iter::from_fn(|| session.poll_window());
        self.batch.windows.extend(ended.map(|report| PeerWindow {
            slot,
            path,
            report,
            records: Vec::new(),
            last: false,
        }));
    }

    /// Closes some of the windows that are due, and hands them over; the others wait for the next call.
    ///
    /// All at once would hold back probes for milliseconds, and take the memory of ten thousand windows in all the forms
    /// that they have on their way to the feed.
    pub(super) fn close_due(&mut self, peers: &mut Peers, now: MonoNanos) {
        if now >= self.due_at {
            self.begin(peers, now);
        } else if self.open.is_empty() {
            return;
        }
        self.close_some(peers, now);
    }

    /// Closes all windows, due or not, and hands them over.
    pub(super) fn close_all(&mut self, peers: &mut Peers, now: MonoNanos) {
        self.begin(peers, now);
        self.close_some(peers, now);
        while !self.open.is_empty() {
            self.close_some(peers, now);
        }
    }

    /// From the highest slot down: they are taken from the end.
    fn begin(&mut self, peers: &Peers, now: MonoNanos) {
        self.open.clear();
        self.open.extend(peers.slots());
        // After a stall the next window ends a whole length from now, not at once.
        self.due_at = self.due_at.plus(self.length_ns);
        if self.due_at <= now {
            self.due_at = now.plus(self.length_ns);
        }
    }

    fn close_some(&mut self, peers: &mut Peers, now: MonoNanos) {
        let kept = self.open.len().saturating_sub(AT_ONCE);
        let part = self.open.split_off(kept);
        self.batch.windows.reserve_exact(part.len());
        for slot in part.into_iter().rev() {
            // One that left meanwhile closed its own.
            let Some(entry) = peers.get_mut(slot) else {
                continue;
            };
            let Entry { session, path, .. } = entry;
            self.keep_ended(Slot(slot), *path, session);
            let report = session.take_window(now);
            self.keep_ended(Slot(slot), *path, session);
            let records = records(session);
            self.batch.windows.push(PeerWindow {
                slot: Slot(slot),
                path: *path,
                report,
                records,
                last: false,
            });
        }
        self.hand_over();
    }

    fn hand_over(&mut self) {
        self.batch.windows.sort_by_key(|window| window.slot);
        self.batch.dropped = self.dropped;
        self.batch.more = !self.open.is_empty();
        let batch = std::mem::take(&mut self.batch);
        if batch.more {
            // Whoever starved this thread did it to all of these windows.
            self.batch.latest_wake_up_ns = batch.latest_wake_up_ns;
        }
        if let Err(refused) = (self.sink)(batch) {
            self.dropped += refused.windows.len() as u64;
        }
    }
}

fn records(session: &mut Session) -> Vec<ProbeOutcome> {
    std::iter::from_fn(|| session.poll_record()).collect()
}

/// Windows in one batch: some hundred kilobytes.
const AT_ONCE: usize = 512;
/// From one part to the next: those of the most peers there can be are closed within two thirds of the shortest window.
const PART_NS: u64 = 20_000_000;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::*;
    use crate::engine::session::SessionConfig;

    #[test]
    fn many_windows_are_closed_part_by_part_and_each_once() {
        let config = Arc::new(SessionConfig::default());
        let entry = |ssid: u16| {
            let entry = Entry {
                session: Session::new(&config, u32::from(ssid) | 1, MonoNanos(0)),
                path: Path::Kernel,
                answered: None,
            };
            (ssid, entry)
        };
        let mut peers = Peers::default();
        for (slot, entry) in (1..=1_200).map(entry) {
            assert!(peers.insert(slot, entry).is_none());
        }
        let (sender, batches) = channel();
        let sink: WindowSink = Box::new(move |batch| sender.send(batch).map_err(|error| error.0));
        let mut windows = Windows::new(Duration::from_secs(10), sink, MonoNanos(0));
        let at = |ms: u64| MonoNanos(ms * 1_000_000);

        windows.close_due(&mut peers, at(9_999));
        assert!(batches.try_recv().is_err(), "none is due");
        windows.note_wake_up(Some(at(9_000)), at(9_500));
        windows.note_failure(SendFailure::Congested);
        for ms in [10_000, 10_020, 10_040, 10_060] {
            if ms == 10_040 {
                // One that leaves between two parts has closed its own window.
                let gone = peers.remove(1_100).expect("a peer");
                windows.keep_last(Slot(1_100), gone.session, gone.path, at(ms));
            }
            windows.close_due(&mut peers, at(ms));
            let next = windows.next_at(at(ms));
            assert_eq!(next <= at(ms + 20), ms < 10_040, "{next:?} after {ms}");
        }
        let batches: Vec<_> = batches.try_iter().collect();
        let sizes: Vec<_> = batches.iter().map(|batch| batch.windows.len()).collect();
        assert_eq!(sizes, [512, 512, 176]);
        assert_eq!(
            batches.iter().map(|batch| batch.more).collect::<Vec<_>>(),
            [true, true, false]
        );
        assert!(
            batches
                .iter()
                .all(|batch| batch.latest_wake_up_ns == 500_000_000)
        );
        let failures = batches.iter().filter(|batch| batch.send_failure.is_some());
        assert_eq!(failures.count(), 1, "told once");
        let slots = batches.iter().flat_map(|batch| &batch.windows);
        let slots: Vec<_> = slots.map(|window| window.slot.0).collect();
        assert_eq!(slots, (1..=1_200).collect::<Vec<_>>());
        assert_eq!(windows.next_at(at(10_060)), at(20_000));
    }
}
