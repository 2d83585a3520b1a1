//! Batches in, windows and probes with the names of both ends out.
//!
//! What a batch teaches (who is there, which index is whom) is kept between batches. Batches come without repeats: that is
//! the business of the sources, by [`dt_feed::Repeats`].

use std::net::IpAddr;

use dt_feed::proto::{Batch, Losses, Window};
use serde::Serialize;

use crate::dictionary::Starts;
use crate::nodes::{Node, NodeId, Nodes};
use crate::state::{Present, SILENT_AFTER_MS};

/// Everything that was learnt from the batches so far.
#[derive(Debug)]
pub struct Intake {
    nodes: Nodes,
    starts: Starts,
    faults: Faults,
    latest_ms: u64,
    forgotten_ms: u64,
    silent_after_ms: u64,
}

/// What in the batches could not be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// Batches of sources for which there was no room.
    pub crowded_batches: u64,
    /// Windows of peers whose dictionary entry had not come.
    pub unnamed_windows: u64,
    /// Windows with a histogram that is none.
    pub broken_windows: u64,
    /// Blocks of probes that could not be read.
    pub broken_probe_blocks: u64,
}

/// Whose batch it is; valid for that batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    node: NodeId,
    start_id: u64,
}

/// The other end of a window or probe.
#[derive(Clone, Copy, Debug)]
pub struct PeerAt<'a> {
    /// Number of the node.
    pub id: NodeId,
    /// The node.
    pub node: &'a Node,
    /// The address at which it is probed, if its entry has one.
    pub address: Option<IpAddr>,
}

impl Intake {
    /// Knows nothing yet. `silent_after_ms` is the least time of silence that is remarkable, usually [`SILENT_AFTER_MS`].
    #[must_use]
    pub fn new(silent_after_ms: u64) -> Self {
        Self {
            nodes: Nodes::default(),
            starts: Starts::default(),
            faults: Faults::default(),
            latest_ms: 0,
            forgotten_ms: 0,
            silent_after_ms,
        }
    }

    /// Learns what a batch says of the mesh. `None` when there is no room for its source.
    pub fn handle_batch(&mut self, batch: &Batch, log_ms: u64) -> Option<Source> {
        let known = self.nodes.hear(batch, log_ms);
        let known = known.filter(|node| self.starts.hear(*node, batch, log_ms));
        let Some(node) = known else {
            self.faults.crowded_batches = self.faults.crowded_batches.saturating_add(1);
            return None;
        };
        self.latest_ms = self.latest_ms.max(log_ms);
        for peer in &batch.peers {
            let known = self.starts.peer(node, batch.start_id, peer.index);
            if known.is_some_and(|endpoint| self.nodes.is_at(endpoint, peer)) {
                continue;
            }
            if let Some(endpoint) = self.nodes.endpoint(peer) {
                self.starts.enter(node, batch.start_id, peer, endpoint);
            }
        }
        let start_id = batch.start_id;
        for window in &batch.windows {
            let endpoint = self.starts.peer(node, start_id, window.peer);
            if let Some((peer, _)) = endpoint.and_then(|endpoint| self.nodes.at(endpoint)) {
                self.nodes.name(peer, window, log_ms);
            } else {
                self.faults.unnamed_windows = self.faults.unnamed_windows.saturating_add(1);
            }
        }
        Some(Source { node, start_id })
    }

    /// Forgets nodes and starts of which there was no sign for long. Cheap; to be called now and then.
    pub fn handle_time(&mut self, now_ms: u64) {
        if now_ms < self.forgotten_ms.saturating_add(FORGET_EVERY_MS) {
            return;
        }
        self.forgotten_ms = now_ms;
        // By what was heard last and not by now: a feed that stopped altogether is to be seen, not forgotten.
        let before_ms = self.latest_ms.saturating_sub(FORGET_AFTER_MS);
        let gone = self.nodes.forget(|node| node.signs.latest_ms() < before_ms);
        self.starts.forget(before_ms, &gone);
    }

    /// The node whose batch it is.
    #[must_use]
    pub fn source(&self, source: Source) -> Option<&Node> {
        self.nodes.get(source.node)
    }

    /// The peer that an index in the batch stands for; `None` while its entry has not come.
    #[must_use]
    pub fn peer(&self, source: Source, index: u32) -> Option<PeerAt<'_>> {
        let endpoint = self.starts.peer(source.node, source.start_id, index)?;
        let (id, address) = self.nodes.at(endpoint)?;
        let node = self.nodes.get(id)?;
        Some(PeerAt { id, node, address })
    }

    /// Windows of a batch with their peers, without those whose peer is not known.
    pub fn windows<'a>(
        &'a self,
        source: Source,
        batch: &'a Batch,
    ) -> impl Iterator<Item = (&'a Window, PeerAt<'a>)> {
        let named = move |window: &'a Window| Some((window, self.peer(source, window.peer)?));
        batch.windows.iter().filter_map(named)
    }

    /// Batches that are missing before this one or before others of its start.
    #[must_use]
    pub fn missing_batches_of(&self, source: Source) -> u64 {
        self.starts.missing_batches_of(source.node, source.start_id)
    }

    /// Batches that are missing among those of all starts.
    #[must_use]
    pub fn missing_batches(&self) -> u64 {
        self.starts.missing_batches()
    }

    /// What the agents say that they lost, with the node that says so.
    pub fn losses(&self) -> impl Iterator<Item = (&Node, &Losses)> {
        let losses = self
            .starts
            .losses()
            .filter(|(_, losses)| **losses != Losses::default());
        losses.filter_map(|(node, losses)| Some((self.nodes.get(node)?, losses)))
    }

    /// All nodes that are known.
    #[must_use]
    pub const fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// What could not be used.
    #[must_use]
    pub const fn faults(&self) -> Faults {
        self.faults
    }

    /// Counts something that a user of the batches could not use.
    pub const fn faults_mut(&mut self) -> &mut Faults {
        &mut self.faults
    }

    /// The yardstick for states, when everything was read up to `now_ms`.
    #[must_use]
    pub fn present(&self, now_ms: u64) -> Present {
        Present {
            now_ms,
            latest_ms: self.latest_ms,
            silent_after_ms: self.silent_after_ms,
        }
    }
}

impl Default for Intake {
    fn default() -> Self {
        Self::new(SILENT_AFTER_MS)
    }
}

/// A node of which there was no sign for so long is forgotten, ms. Longer than a failed one stays in the membership.
const FORGET_AFTER_MS: u64 = 900_000;
/// How often that is looked for, ms.
const FORGET_EVERY_MS: u64 = 30_000;

#[cfg(test)]
mod tests {
    use dt_feed::proto::Peer;

    use super::*;
    use crate::state::State;

    const T0: u64 = 1_800_000_000_000;

    fn batch(source: &str, sequence: u64, peers: &[(u32, &str)], windows: &[u32]) -> Batch {
        let peer =
            |(index, name): &(u32, &str)| Peer::new(*index, name, [10, 0, 0, 9].into(), "", "");
        Batch {
            source: source.to_owned(),
            start_id: 7,
            sequence,
            peers: peers.iter().map(peer).collect(),
            windows: windows
                .iter()
                .map(|peer| Window {
                    peer: *peer,
                    ..Window::default()
                })
                .collect(),
            ..Batch::default()
        }
    }

    fn state(intake: &Intake, name: &str, now_ms: u64) -> Option<State> {
        let present = intake.present(now_ms);
        let found = intake.nodes().iter().find(|(_, node)| &*node.name == name);
        found.map(|(_, node)| node.signs.state(&present))
    }

    #[test]
    fn windows_come_with_the_names_that_earlier_batches_told() {
        let mut intake = Intake::default();
        intake.handle_batch(&batch("n1", 0, &[(0, "n2"), (1, "n3")], &[]), T0);
        let later = batch("n1", 1, &[], &[1, 0, 9]);
        let source = intake.handle_batch(&later, T0).expect("there is room");
        let names: Vec<_> = intake
            .windows(source, &later)
            .map(|(_, peer)| &*peer.node.name)
            .collect();
        assert_eq!(names, ["n3", "n2"]);
        assert_eq!(intake.faults().unnamed_windows, 1);
    }

    #[test]
    fn a_source_that_stops_while_others_name_it_falls_silent() {
        let mut intake = Intake::default();
        for second in 0..40 {
            let now_ms = T0 + second * 1_000;
            intake.handle_batch(&batch("n1", second, &[(0, "n2")], &[0]), now_ms);
            if second < 20 {
                intake.handle_batch(&batch("n2", second, &[(0, "n1")], &[0]), now_ms);
            }
        }
        assert_eq!(state(&intake, "n1", T0 + 39_000), Some(State::Alive));
        assert_eq!(state(&intake, "n2", T0 + 29_000), Some(State::Alive));
        assert_eq!(state(&intake, "n2", T0 + 39_000), Some(State::Silent));
        // The whole feed has stopped.
        assert_eq!(state(&intake, "n1", T0 + 80_000), Some(State::Silent));
    }

    #[test]
    fn a_node_that_left_is_gone_and_then_forgotten_with_its_index() {
        let mut intake = Intake::default();
        intake.handle_batch(&batch("n1", 0, &[(0, "n2")], &[0]), T0);
        intake.handle_batch(&batch("n2", 0, &[(0, "n1")], &[0]), T0);
        let later_ms = T0 + FORGET_AFTER_MS + 1;
        let latest = batch("n1", 1, &[], &[]);
        let source = intake
            .handle_batch(&latest, later_ms)
            .expect("there is room");
        assert_eq!(state(&intake, "n2", later_ms), Some(State::Gone));
        intake.handle_time(later_ms);
        assert_eq!(state(&intake, "n2", later_ms), None);
        assert!(intake.peer(source, 0).is_none());
        assert_eq!(state(&intake, "n1", later_ms), Some(State::Alive));
    }

    #[test]
    fn a_feed_that_stopped_altogether_is_not_forgotten() {
        let mut intake = Intake::default();
        intake.handle_batch(&batch("n1", 0, &[], &[]), T0);
        intake.handle_time(T0 + 100 * FORGET_AFTER_MS);
        assert_eq!(
            state(&intake, "n1", T0 + 100 * FORGET_AFTER_MS),
            Some(State::Silent)
        );
    }
}
