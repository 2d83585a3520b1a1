//! The model: segments that survive a crash, a broker that writes in order, a clock that is told what time it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dt_feed::proto::{Batch, ProbeBlock, Window};

use super::super::*;

pub(super) const SECOND: u64 = 1_000_000_000;
pub(super) const HOLD_NS: u64 = SECOND;
pub(super) const LIMITS: Limits = Limits {
    hold_ns: HOLD_NS,
    flight_batches: 16,
    flight_bytes: 1 << 20,
    patience_ns: SECOND,
    memory_batches: 40,
    memory_bytes: 1 << 20,
    shelf_bytes: 1 << 30,
};
const PAYLOAD_BYTES: usize = 95;
/// What each batch of the model takes on the disk.
pub(super) const RECORD_BYTES: u64 = 100;
/// Records in a segment of the model.
const SEGMENT_RECORDS: usize = 10;

pub(super) struct World {
    pub outbox: Outbox,
    pub now: MonoNanos,
    /// Segments by number; `None` is a record that cannot be read.
    pub disk: BTreeMap<u64, Vec<Option<Parcel>>>,
    pub disk_works: bool,
    /// Records that the disk has room for, whatever the outbox may use.
    pub disk_records: usize,
    /// Records ever written.
    pub stored: u64,
    pub published: BTreeSet<BatchId>,
    pub discarded: BTreeSet<BatchId>,
    /// What this broker never takes.
    pub rejected: BTreeSet<BatchId>,
    pub rejections: u64,
    limits: Limits,
    mark: Option<Place>,
    next_segment: u64,
    current: Option<u64>,
    flight: VecDeque<(Ticket, Parcel)>,
    log: Vec<BatchId>,
    start_id: u64,
    sequence: u64,
    /// Losses of the starts before.
    past: Losses,
}

impl World {
    pub fn new(limits: Limits) -> Self {
        Self {
            outbox: Outbox::new(limits, &[], None),
            now: MonoNanos(SECOND),
            disk: BTreeMap::new(),
            disk_works: true,
            disk_records: usize::MAX,
            stored: 0,
            published: BTreeSet::new(),
            discarded: BTreeSet::new(),
            rejected: BTreeSet::new(),
            rejections: 0,
            limits,
            mark: None,
            next_segment: 0,
            current: None,
            flight: VecDeque::new(),
            log: Vec::new(),
            start_id: 0,
            sequence: 0,
            past: Losses::default(),
        }
    }

    pub fn publish(&mut self) {
        let batch = Batch {
            start_id: self.start_id,
            sequence: self.sequence,
            windows: vec![Window::default(); 2],
            probes: Some(ProbeBlock {
                count: 10,
                ..ProbeBlock::default()
            }),
            ..Batch::default()
        };
        self.sequence += 1;
        let parcel = Parcel::new(&batch, vec![0; PAYLOAD_BYTES]);
        self.published.insert(parcel.id);
        self.outbox.handle_batch(parcel, self.now);
        self.obey();
    }

    /// Lets time pass, in steps as an agent's loop has them.
    pub fn tick(&mut self, nanos: u64) {
        let end = self.now.plus(nanos);
        while self.now < end {
            self.now = self.now.plus(STEP_NS.min(end.since(self.now)));
            self.obey();
        }
    }

    pub fn open(&mut self) {
        self.outbox.handle_open(self.now);
        self.obey();
    }

    /// The client is lost, with what it had.
    pub fn close(&mut self) {
        self.flight.clear();
        self.outbox.handle_closed();
        self.obey();
    }

    /// The broker writes what it has, and its answers get lost.
    pub fn persist(&mut self, count: usize) {
        let written = self.flight.iter().take(count).map(|(_, parcel)| parcel.id);
        let taken = written.filter(|id| !self.rejected.contains(id));
        self.log.extend(taken);
    }

    pub fn ack(&mut self, count: usize) {
        for _ in 0..count {
            let Some((ticket, parcel)) = self.flight.pop_front() else {
                return;
            };
            if self.rejected.contains(&parcel.id) {
                self.rejections += 1;
                self.outbox.handle_failed(ticket, Failure::Rejected);
            } else {
                self.log.push(parcel.id);
                self.outbox.handle_acked(ticket, self.now);
            }
            self.obey();
        }
    }

    pub fn ack_all(&mut self) {
        self.ack(usize::MAX);
    }

    /// The broker refuses the oldest for good.
    pub fn reject(&mut self) {
        if let Some((_, parcel)) = self.flight.front()
            && !self.log.contains(&parcel.id)
        {
            self.rejected.insert(parcel.id);
            self.ack(1);
        }
    }

    /// Acknowledges until nothing is left.
    pub fn drain(&mut self) {
        for _ in 0..10_000 {
            self.ack_all();
            if self.outbox.is_empty() {
                return;
            }
            self.tick(SECOND / 10);
        }
        panic!("never drained: {:?}", self.outbox);
    }

    /// The process dies and starts again; returns what it had in memory alone.
    pub fn crash(&mut self) -> Vec<BatchId> {
        let unsaved = self.unsaved_ids();
        self.past = self.losses();
        self.flight.clear();
        self.start_id += 1;
        self.sequence = 0;
        self.current = None;
        let found: Vec<_> = self
            .disk
            .iter()
            .map(|(number, records)| Found {
                segment: *number,
                bytes: records.len() as u64 * RECORD_BYTES,
            })
            .collect();
        self.outbox = Outbox::new(self.limits, &found, self.mark);
        self.obey();
        unsaved
    }

    /// Makes all records of a segment from this one on unreadable.
    pub fn damage(&mut self, segment: u64, from: usize) {
        let records = self.disk.get_mut(&segment).expect("a segment");
        records[from..].fill(None);
    }

    pub fn in_flight(&self) -> usize {
        self.flight.len()
    }

    pub fn flight_tickets(&self) -> Vec<Ticket> {
        self.flight.iter().map(|(ticket, _)| *ticket).collect()
    }

    pub fn disk_bytes(&self) -> u64 {
        self.disk.values().map(Vec::len).sum::<usize>() as u64 * RECORD_BYTES
    }

    pub fn log_sequences(&self) -> Vec<u64> {
        self.log.iter().map(|id| id.sequence).collect()
    }

    /// What a reader has after dropping repeats.
    pub fn delivered_ids(&self) -> Vec<BatchId> {
        let mut seen = BTreeSet::new();
        let new = |id: &&BatchId| seen.insert(**id);
        self.log.iter().filter(new).copied().collect()
    }

    pub fn delivered(&self) -> Vec<u64> {
        let ids = self.delivered_ids();
        ids.iter().map(|id| id.sequence).collect()
    }

    /// Of all starts together.
    pub fn losses(&self) -> Losses {
        let (past, now) = (&self.past, self.outbox.losses());
        Losses {
            batches_queue_full: past.batches_queue_full + now.batches_queue_full,
            batches_spool_full: past.batches_spool_full + now.batches_spool_full,
            batches_rejected: past.batches_rejected + now.batches_rejected,
            batches_spool_damaged: past.batches_spool_damaged + now.batches_spool_damaged,
            windows_unwritten: past.windows_unwritten + now.windows_unwritten,
            probe_blocks_unwritten: past.probe_blocks_unwritten + now.probe_blocks_unwritten,
            probes_lost: past.probes_lost + now.probes_lost,
            ..Losses::default()
        }
    }

    pub fn obey(&mut self) {
        for _ in 0..100_000 {
            let Some(command) = self.outbox.poll_command(self.now) else {
                return;
            };
            self.obey_one(command);
        }
        panic!("commands without end");
    }

    fn obey_one(&mut self, command: Command) {
        match command {
            Command::Send { ticket, parcel } => self.flight.push_back((ticket, parcel)),
            Command::Store(parcel) => {
                let stored = self.store(parcel);
                self.outbox.handle_stored(stored, self.now);
            }
            Command::Load { segment, offset } => {
                let index = (offset / RECORD_BYTES) as usize;
                let loaded = match &self.disk[&segment][index] {
                    Some(parcel) => Loaded::Batch(parcel.clone(), offset + RECORD_BYTES),
                    None => Loaded::Damaged,
                };
                self.outbox.handle_loaded(segment, loaded, self.now);
            }
            Command::Discard { segment, offset } => {
                let index = (offset / RECORD_BYTES) as usize;
                let records = self.remove(segment);
                let whole = records[index..].iter().map_while(Option::as_ref);
                let lost = whole
                    .map(|parcel| parcel.tally)
                    .fold(Tally::default(), Tally::plus);
                self.discarded
                    .extend(records[index..].iter().flatten().map(|parcel| parcel.id));
                let is_damaged = records[index..].iter().any(Option::is_none);
                self.outbox
                    .handle_discarded(segment, lost, is_damaged, self.now);
            }
            Command::Remove { segment } => {
                self.remove(segment);
            }
            Command::Mark(place) => self.mark = Some(place),
        }
    }

    fn store(&mut self, parcel: Parcel) -> Result<Place, ShelfFailed> {
        let taken: usize = self.disk.values().map(Vec::len).sum();
        if !self.disk_works || taken >= self.disk_records {
            return Err(ShelfFailed);
        }
        let full = |number: &u64| self.disk[number].len() >= SEGMENT_RECORDS;
        let segment = self
            .current
            .filter(|number| !full(number))
            .unwrap_or_else(|| {
                self.next_segment += 1;
                self.next_segment - 1
            });
        self.current = Some(segment);
        let records = self.disk.entry(segment).or_default();
        records.push(Some(parcel));
        self.stored += 1;
        Ok(Place {
            segment,
            end: records.len() as u64 * RECORD_BYTES,
        })
    }

    fn remove(&mut self, segment: u64) -> Vec<Option<Parcel>> {
        if self.current == Some(segment) {
            self.current = None;
        }
        self.disk.remove(&segment).expect("a segment")
    }

    fn unsaved_ids(&self) -> Vec<BatchId> {
        let front = self.outbox.front.iter().filter(|held| held.is_unplaced());
        let front = front.map(|held| held.parcel.id);
        let tail = self.outbox.tail.iter().map(|waiting| waiting.parcel.id);
        front.chain(tail).collect()
    }
}

/// How often the agent looks.
const STEP_NS: u64 = 50_000_000;
