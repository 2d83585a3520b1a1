//! What is valid within one start of an agent: peer indices, batch numbers, totals of losses.
//!
//! An index is never given to another peer within one start, so entries are added and never replaced. At 10,000 nodes that
//! all probe each other there are 10^8 entries; four bytes each is what they take here.

use std::collections::{HashMap, HashSet};

use dt_feed::proto::{Batch, Losses, Peer};

use crate::nodes::{EndpointId, NodeId};

/// Most starts that are known at a time, of all agents together.
pub const MAX_STARTS: usize = 1 << 16;

/// Most pages of [`PAGE`] entries, of all dictionaries together: 640 MiB, those of 10,000 nodes that all know each other and
/// half as much again.
pub const MAX_PAGES: usize = 2_621_440;

/// Entries of a dictionary that are allocated together.
pub const PAGE: usize = 64;

/// Dictionaries and counts of all starts that were heard lately.
#[derive(Debug, Default)]
pub struct Starts {
    by_id: HashMap<(NodeId, u64), Start>,
    pages: usize,
    refused: u64,
}

/// What is known of one start of an agent.
#[derive(Debug, Default)]
pub struct Start {
    /// By page number. Indices are given from 0 on, so pages are nearly full.
    peers: HashMap<u32, Box<[Option<EndpointId>; PAGE]>>,
    sequences: Sequences,
    losses: Losses,
    heard_ms: u64,
}

/// Which batches of a start came, provided that none is counted twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sequences {
    first: u64,
    last: u64,
    count: u64,
}

impl Starts {
    /// Notes that a batch of a source came that had not come before, and what it says of its dictionary and losses.
    ///
    /// False when there is no room for another start.
    pub fn hear(&mut self, source: NodeId, batch: &Batch, log_ms: u64) -> bool {
        let key = (source, batch.start_id);
        if !self.by_id.contains_key(&key) && self.by_id.len() >= MAX_STARTS {
            self.refused = self.refused.saturating_add(1);
            return false;
        }
        let start = self.by_id.entry(key).or_default();
        start.heard_ms = start.heard_ms.max(log_ms);
        start.sequences.add(batch.sequence);
        if let Some(losses) = batch
            .losses
            .filter(|_| start.sequences.last == batch.sequence)
        {
            start.losses = losses;
        }
        true
    }

    /// Enters a peer under its index. False when there is no room for it.
    pub fn enter(
        &mut self,
        source: NodeId,
        start_id: u64,
        peer: &Peer,
        endpoint: EndpointId,
    ) -> bool {
        let Some(start) = self.by_id.get_mut(&(source, start_id)) else {
            return false;
        };
        let (page, place) = split(peer.index);
        let is_new = !start.peers.contains_key(&page);
        if is_new && self.pages >= MAX_PAGES {
            self.refused = self.refused.saturating_add(1);
            return false;
        }
        self.pages += usize::from(is_new);
        let page = start
            .peers
            .entry(page)
            .or_insert_with(|| Box::new([None; PAGE]));
        page[place] = Some(endpoint);
        true
    }

    /// The peer that an index stands for; `None` while its entry has not come.
    #[must_use]
    pub fn peer(&self, source: NodeId, start_id: u64, index: u32) -> Option<EndpointId> {
        let (page, place) = split(index);
        self.by_id.get(&(source, start_id))?.peers.get(&page)?[place]
    }

    /// Batches that are missing between those that came, of all starts that are known.
    #[must_use]
    pub fn missing_batches(&self) -> u64 {
        self.by_id
            .values()
            .map(|start| start.sequences.missing())
            .sum()
    }

    /// Batches of one start that are missing between those that came.
    #[must_use]
    pub fn missing_batches_of(&self, source: NodeId, start_id: u64) -> u64 {
        let start = self.by_id.get(&(source, start_id));
        start.map_or(0, |start| start.sequences.missing())
    }

    /// What the agents say that they lost, by start.
    pub fn losses(&self) -> impl Iterator<Item = (NodeId, &Losses)> {
        self.by_id
            .iter()
            .map(|((source, _), start)| (*source, &start.losses))
    }

    /// How many times a start or a peer was not taken in for want of room.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// Forgets the starts that were last heard before `before_ms`, and the peers that are no more.
    pub fn forget(&mut self, before_ms: u64, gone: &[EndpointId]) {
        self.by_id.retain(|_, start| start.heard_ms >= before_ms);
        let gone: HashSet<EndpointId> = gone.iter().copied().collect();
        if !gone.is_empty() {
            let pages = self
                .by_id
                .values_mut()
                .flat_map(|start| start.peers.values_mut());
            for entry in pages.flat_map(|page| page.iter_mut()) {
                entry.take_if(|endpoint| gone.contains(endpoint));
            }
        }
        self.pages = self.by_id.values().map(|start| start.peers.len()).sum();
    }
}

impl Sequences {
    fn add(&mut self, sequence: u64) {
        if self.count == 0 {
            (self.first, self.last) = (sequence, sequence);
        } else {
            (self.first, self.last) = (self.first.min(sequence), self.last.max(sequence));
        }
        self.count = self.count.saturating_add(1);
    }

    fn missing(&self) -> u64 {
        if self.count == 0 {
            return 0;
        }
        // The whole range of 2^64 is one too many for a count of it.
        (self.last - self.first).saturating_sub(self.count - 1)
    }
}

fn split(index: u32) -> (u32, usize) {
    (index / PAGE as u32, index as usize % PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::Nodes;

    fn peer(index: u32, name: &str) -> Peer {
        Peer::new(index, name, [10, 0, 0, 1].into(), "", "")
    }

    fn batch(start_id: u64, sequence: u64) -> Batch {
        Batch {
            source: "n1".into(),
            start_id,
            sequence,
            ..Batch::default()
        }
    }

    struct Given {
        nodes: Nodes,
        starts: Starts,
        n1: NodeId,
    }

    fn given(sequences: &[u64]) -> Given {
        let (mut nodes, mut starts) = (Nodes::default(), Starts::default());
        let n1 = nodes.hear(&batch(7, 0), 1).expect("there is room");
        for sequence in sequences {
            assert!(starts.hear(n1, &batch(7, *sequence), 1));
        }
        Given { nodes, starts, n1 }
    }

    #[test]
    fn an_index_means_what_its_own_start_said() {
        let Given {
            mut nodes,
            mut starts,
            n1,
        } = given(&[0]);
        let n2 = nodes.endpoint(&peer(0, "n2")).expect("there is room");
        assert!(starts.enter(n1, 7, &peer(70, "n2"), n2));
        assert_eq!(starts.peer(n1, 7, 70), Some(n2));
        assert_eq!(starts.peer(n1, 7, 71), None);
        assert_eq!(starts.peer(n1, 8, 70), None);
        assert_eq!(starts.peer(n1, 7, u32::MAX), None);
        assert!(
            !starts.enter(n1, 8, &peer(0, "n2"), n2),
            "a start that was never heard"
        );
    }

    #[test]
    fn gaps_between_batches_are_missing_until_they_are_filled() {
        for (sequences, missing) in [
            (&[][..], 0),
            (&[5], 0),
            (&[5, 6, 7], 0),
            (&[5, 8], 2),
            (&[5, 8, 6], 1),
            (&[8, 5], 2),
            (&[0, u64::MAX], u64::MAX - 1),
        ] {
            let given = given(sequences);
            assert_eq!(given.starts.missing_batches(), missing, "{sequences:?}");
            assert_eq!(given.starts.missing_batches_of(given.n1, 7), missing);
        }
    }

    #[test]
    fn the_latest_batch_tells_the_losses() {
        let mut given = given(&[]);
        let with_losses = |sequence, lost| Batch {
            losses: Some(Losses {
                probes_lost: lost,
                ..Losses::default()
            }),
            ..batch(7, sequence)
        };
        given.starts.hear(given.n1, &with_losses(4, 9), 1);
        given.starts.hear(given.n1, &with_losses(3, 5), 2);
        let lost: Vec<u64> = given
            .starts
            .losses()
            .map(|(_, losses)| losses.probes_lost)
            .collect();
        assert_eq!(lost, [9]);
    }

    #[test]
    fn what_is_gone_is_forgotten_with_its_memory() {
        let Given {
            mut nodes,
            mut starts,
            n1,
        } = given(&[0]);
        let n2 = nodes.endpoint(&peer(0, "n2")).expect("there is room");
        starts.enter(n1, 7, &peer(0, "n2"), n2);
        let gone = nodes.forget(|node| &*node.name == "n2");
        starts.forget(0, &gone);
        assert_eq!(starts.peer(n1, 7, 0), None);
        assert_eq!(starts.pages, 1);
        starts.forget(2, &[]);
        assert_eq!((starts.pages, starts.missing_batches()), (0, 0));
        assert!(starts.by_id.is_empty());
    }

    #[test]
    fn an_entry_costs_four_bytes() {
        assert_eq!(size_of::<[Option<EndpointId>; PAGE]>(), 4 * PAGE);
    }
}
