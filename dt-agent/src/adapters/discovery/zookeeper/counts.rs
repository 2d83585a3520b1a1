//! What discovery costs ZooKeeper, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// What one agent asked ZooKeeper for and was told since it started.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Requests that read something, each with its answer.
    pub requests: u64,
    /// Members' nodes in the answers.
    pub nodes: u64,
    /// Bytes in these nodes.
    pub node_bytes: u64,
    /// Events of the watch.
    pub events: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    requests: AtomicU64,
    nodes: AtomicU64,
    node_bytes: AtomicU64,
    events: AtomicU64,
}

impl Counts {
    pub fn add_requests(&self, count: u64) {
        self.requests.fetch_add(count, Ordering::Relaxed);
    }

    pub fn add_node(&self, bytes: usize) {
        self.nodes.fetch_add(1, Ordering::Relaxed);
        self.node_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn add_event(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    pub fn tally(&self) -> Tally {
        Tally {
            requests: self.requests.load(Ordering::Relaxed),
            nodes: self.nodes.load(Ordering::Relaxed),
            node_bytes: self.node_bytes.load(Ordering::Relaxed),
            events: self.events.load(Ordering::Relaxed),
        }
    }
}
