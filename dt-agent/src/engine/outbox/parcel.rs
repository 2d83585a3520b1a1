//! One encoded batch and what it would mean to lose it.

use std::sync::Arc;

use dt_feed::proto::Batch;

/// A batch as it goes to the broker and to the disk: encoded once, the same bytes each time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Parcel {
    /// Which one.
    pub id: BatchId,
    /// Name of the node that measured: batches of one name keep their order.
    pub source: Arc<str>,
    /// The encoded batch.
    pub bytes: Arc<[u8]>,
    /// What it holds.
    pub tally: Tally,
}

/// Names a batch of one source.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, PartialOrd, Ord)]
pub struct BatchId {
    /// Start of the agent.
    pub start_id: u64,
    /// Number within it.
    pub sequence: u64,
}

/// Counts of what is in batches.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Batches.
    pub batches: u64,
    /// Windows in them.
    pub windows: u64,
    /// Blocks of probes in them.
    pub probe_blocks: u64,
    /// Probes in these.
    pub probes: u64,
}

impl Parcel {
    /// A batch and its encoded form.
    #[must_use]
    pub fn new(batch: &Batch, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self {
            id: BatchId {
                start_id: batch.start_id,
                sequence: batch.sequence,
            },
            source: batch.source.as_str().into(),
            bytes: bytes.into(),
            tally: Tally::of(batch),
        }
    }

    /// At most so many bytes are needed for it in a segment.
    #[must_use]
    pub fn record_bytes(&self) -> u64 {
        self.bytes.len() as u64 + RECORD_HEADER
    }
}

impl Tally {
    /// What is in one batch.
    #[must_use]
    pub fn of(batch: &Batch) -> Self {
        let probes = batch.probes.as_ref();
        Self {
            batches: 1,
            windows: batch.windows.len() as u64,
            probe_blocks: u64::from(probes.is_some()),
            probes: probes.map_or(0, |block| block.count.into()),
        }
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            batches: self.batches + other.batches,
            windows: self.windows + other.windows,
            probe_blocks: self.probe_blocks + other.probe_blocks,
            probes: self.probes + other.probes,
        }
    }
}

/// Tag and length of a record, of batches below 2^28 bytes.
const RECORD_HEADER: u64 = 5;
