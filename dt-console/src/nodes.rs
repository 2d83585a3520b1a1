//! Every node that was heard of: its labels, the addresses it is probed at, and when it was last heard and named.
//!
//! Nodes and their addresses are numbered, so that a source's dictionary costs four bytes per peer. All times are log times.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use dt_feed::proto::{Batch, Peer, PeerState, Window};

use crate::state::Signs;
use crate::text::clean;

/// Most nodes that are known at a time; twice what one mesh may have.
pub const MAX_NODES: usize = 1 << 15;

/// Most addresses of nodes that are known at a time.
pub const MAX_ENDPOINTS: usize = 1 << 17;

/// Number of a node. It is given to another one only after [`Nodes::forget`] gave it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

/// Number of a node at one address, from 1 on, so that an absent one costs no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(NonZeroU32);

/// Where a node is, as it says itself or others say of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// Zone; empty: none.
    pub zone: Arc<str>,
    /// Rack; empty: none.
    pub rack: Arc<str>,
    /// Instance group; empty: none.
    pub instance_group: Arc<str>,
    rack_in_zone: Arc<str>,
}

/// What is known of a node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// Its labels; its own word counts more than that of others.
    pub labels: Labels,
    /// What its state is judged by.
    pub signs: Signs,
    labels_are_its_own: bool,
    /// End of the latest window that told its membership state, ns unix.
    membership_unix_ns: u64,
}

/// All nodes that were heard of lately.
#[derive(Debug, Default)]
pub struct Nodes {
    places: Vec<Option<Node>>,
    by_name: HashMap<Arc<str>, NodeId>,
    free_places: Vec<NodeId>,
    endpoints: Vec<Option<Endpoint>>,
    by_endpoint: HashMap<Endpoint, EndpointId>,
    free_endpoints: Vec<EndpointId>,
    refused: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Endpoint {
    node: NodeId,
    address: Option<IpAddr>,
}

impl Nodes {
    /// The source of a batch, which has just been heard. `None` when there is no room for another node.
    pub fn hear(&mut self, batch: &Batch, log_ms: u64) -> Option<NodeId> {
        let id = self.number(&batch.source)?;
        let node = self.places.get_mut(id.0 as usize)?.as_mut()?;
        node.labels.update(
            &batch.source_zone,
            &batch.source_rack,
            &batch.source_instance_group,
        );
        node.labels_are_its_own = true;
        node.signs.hear(log_ms, longest_window_ms(batch));
        Some(id)
    }

    /// The peer of a dictionary entry. `None` when there is no room for another one.
    pub fn endpoint(&mut self, peer: &Peer) -> Option<EndpointId> {
        let id = self.number(&peer.name)?;
        let node = self.places.get_mut(id.0 as usize)?.as_mut()?;
        if !node.labels_are_its_own {
            node.labels
                .update(&peer.zone, &peer.rack, &peer.instance_group);
        }
        let endpoint = Endpoint {
            node: id,
            address: peer.ip(),
        };
        if let Some(known) = self.by_endpoint.get(&endpoint) {
            return Some(*known);
        }
        if self.by_endpoint.len() >= MAX_ENDPOINTS {
            self.refused = self.refused.saturating_add(1);
            return None;
        }
        let number = self.free_endpoints.pop().unwrap_or_else(|| {
            self.endpoints.push(None);
            EndpointId::of_place(self.endpoints.len() - 1)
        });
        self.endpoints[number.place()] = Some(endpoint);
        self.by_endpoint.insert(endpoint, number);
        Some(number)
    }

    /// Whether an endpoint is that of this entry, which then may bring new labels. Most entries are repeated ones: this spares
    /// them the look-up by name.
    pub fn is_at(&mut self, id: EndpointId, peer: &Peer) -> bool {
        let Some(Some(endpoint)) = self.endpoints.get(id.place()) else {
            return false;
        };
        let Some(Some(node)) = self.places.get_mut(endpoint.node.0 as usize) else {
            return false;
        };
        let is_it = *node.name == *clean(&peer.name) && endpoint.address == peer.ip();
        if is_it && !node.labels_are_its_own {
            node.labels
                .update(&peer.zone, &peer.rack, &peer.instance_group);
        }
        is_it
    }

    /// Notes that a window about a node was read, and what it says of its membership.
    pub fn name(&mut self, id: NodeId, window: &Window, log_ms: u64) {
        let Some(Some(node)) = self.places.get_mut(id.0 as usize) else {
            return;
        };
        node.signs.name(log_ms);
        let said = window.peer_state();
        // Windows of several sources come in any order, and those of a spool late.
        if said != PeerState::Unspecified && window.end_unix_ns >= node.membership_unix_ns {
            node.membership_unix_ns = window.end_unix_ns;
            node.signs.membership = said;
        }
    }

    /// What is known of a node; nothing after it was forgotten.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<&Node> {
        self.places.get(id.0 as usize)?.as_ref()
    }

    /// The node at an endpoint and the address.
    #[must_use]
    pub fn at(&self, id: EndpointId) -> Option<(NodeId, Option<IpAddr>)> {
        let endpoint = (*self.endpoints.get(id.place())?)?;
        Some((endpoint.node, endpoint.address))
    }

    /// All nodes.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        let numbered = self.places.iter().enumerate();
        numbered.filter_map(|(number, node)| Some((NodeId(number as u32), node.as_ref()?)))
    }

    /// How many nodes are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// How many times a node or an address was not taken in for want of room.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// Forgets the nodes that `is_past` picks, and says which of their addresses are gone: whoever keeps such a number must
    /// drop it before anything else is taken in.
    pub fn forget(&mut self, is_past: impl Fn(&Node) -> bool) -> Vec<EndpointId> {
        for number in 0..self.places.len() {
            let past = self.places[number].take_if(|node| is_past(node));
            if let Some(node) = past {
                self.by_name.remove(&node.name);
                self.free_places.push(NodeId(number as u32));
            }
        }
        let nodes = &self.places;
        let is_orphan = |endpoint: &Endpoint| {
            nodes
                .get(endpoint.node.0 as usize)
                .is_none_or(Option::is_none)
        };
        let mut gone = Vec::new();
        for (number, slot) in self.endpoints.iter_mut().enumerate() {
            if let Some(endpoint) = slot.take_if(|endpoint| is_orphan(endpoint)) {
                self.by_endpoint.remove(&endpoint);
                gone.push(EndpointId::of_place(number));
            }
        }
        self.free_endpoints.extend(&gone);
        gone
    }

    fn number(&mut self, name: &str) -> Option<NodeId> {
        let name = clean(name);
        if let Some(known) = self.by_name.get(&*name) {
            return Some(*known);
        }
        if self.by_name.len() >= MAX_NODES {
            self.refused = self.refused.saturating_add(1);
            return None;
        }
        let id = self.free_places.pop().unwrap_or_else(|| {
            self.places.push(None);
            NodeId(self.places.len() as u32 - 1)
        });
        let name: Arc<str> = name.into();
        self.places[id.0 as usize] = Some(Node {
            name: Arc::clone(&name),
            labels: Labels::default(),
            signs: Signs::default(),
            labels_are_its_own: false,
            membership_unix_ns: 0,
        });
        self.by_name.insert(name, id);
        Some(id)
    }
}

impl EndpointId {
    /// By place in the list of endpoints, which [`MAX_ENDPOINTS`] keeps below 2^32.
    const fn of_place(place: usize) -> Self {
        Self(NonZeroU32::MIN.saturating_add(place as u32))
    }

    const fn place(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl Labels {
    /// The rack with its zone before it, because racks of two zones may have one name; empty: no rack.
    #[must_use]
    pub fn rack_in_zone(&self) -> &str {
        &self.rack_in_zone
    }

    /// Takes over what is different, and allocates only then.
    fn update(&mut self, zone: &str, rack: &str, instance_group: &str) {
        let mut is_changed = false;
        for (kept, said) in [
            (&mut self.zone, zone),
            (&mut self.rack, rack),
            (&mut self.instance_group, instance_group),
        ] {
            let said = clean(said);
            if **kept != *said {
                *kept = said.into();
                is_changed = true;
            }
        }
        if is_changed {
            self.rack_in_zone = if self.zone.is_empty() || self.rack.is_empty() {
                Arc::clone(&self.rack)
            } else {
                format!("{}/{}", self.zone, self.rack).into()
            };
        }
    }
}

fn longest_window_ms(batch: &Batch) -> Option<u64> {
    let length_ns = |window: &Window| window.end_unix_ns.saturating_sub(window.start_unix_ns);
    batch
        .windows
        .iter()
        .map(length_ns)
        .max()
        .map(|ns| ns / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str, last: u8, rack: &str) -> Peer {
        Peer::new(0, name, [10, 0, 0, last].into(), "z", rack)
    }

    fn batch(source: &str, rack: &str) -> Batch {
        Batch {
            source: source.to_owned(),
            source_rack: rack.to_owned(),
            ..Batch::default()
        }
    }

    fn rack(nodes: &Nodes, id: NodeId) -> Option<&str> {
        nodes.get(id).map(|node| &*node.labels.rack)
    }

    #[test]
    fn a_node_knows_its_labels_better_than_others_do() {
        let mut nodes = Nodes::default();
        let endpoint = nodes
            .endpoint(&peer("n1", 1, "guessed"))
            .expect("there is room");
        let (id, address) = nodes.at(endpoint).expect("it was just made");
        assert_eq!(address, Some([10, 0, 0, 1].into()));
        assert_eq!(rack(&nodes, id), Some("guessed"));
        assert_eq!(nodes.hear(&batch("n1", "own"), 1), Some(id));
        nodes.endpoint(&peer("n1", 1, "stale"));
        assert_eq!(rack(&nodes, id), Some("own"));
    }

    #[test]
    fn a_repeated_entry_is_known_and_may_bring_new_labels() {
        let mut nodes = Nodes::default();
        let n1 = nodes.endpoint(&peer("n1", 1, "")).expect("there is room");
        assert!(nodes.is_at(n1, &peer("n1", 1, "moved")));
        let (id, _) = nodes.at(n1).expect("it was just made");
        assert_eq!(rack(&nodes, id), Some("moved"));
        assert!(!nodes.is_at(n1, &peer("n1", 2, "")));
        assert!(!nodes.is_at(n1, &peer("n2", 1, "")));
        assert_eq!(rack(&nodes, id), Some("moved"));
    }

    #[test]
    fn one_node_may_have_several_addresses() {
        let mut nodes = Nodes::default();
        let first = nodes.endpoint(&peer("n1", 1, ""));
        assert_eq!(nodes.endpoint(&peer("n1", 1, "")), first);
        assert_ne!(nodes.endpoint(&peer("n1", 2, "")), first);
        assert_eq!(nodes.len(), 1);
    }

    #[test]
    fn a_forgotten_node_gives_its_place_to_another() {
        let mut nodes = Nodes::default();
        let first = nodes.endpoint(&peer("n1", 1, "")).expect("there is room");
        nodes.endpoint(&peer("n2", 2, ""));
        assert_eq!(nodes.forget(|node| &*node.name == "n1"), [first]);
        assert_eq!(nodes.at(first), None);
        assert_eq!(nodes.endpoint(&peer("n3", 3, "")), Some(first));
        assert_eq!(nodes.len(), 2);
    }

    #[test]
    fn the_latest_window_tells_the_membership_whatever_the_order() {
        let mut nodes = Nodes::default();
        let endpoint = nodes.endpoint(&peer("n1", 1, "")).expect("there is room");
        let (id, _) = nodes.at(endpoint).expect("it was just made");
        for (end_unix_ns, said) in [
            (20, PeerState::Failed),
            (10, PeerState::Alive),
            (30, PeerState::Unspecified),
        ] {
            let window = Window {
                end_unix_ns,
                peer_state: said.into(),
                ..Window::default()
            };
            nodes.name(id, &window, 1);
        }
        let membership = nodes.get(id).map(|node| node.signs.membership);
        assert_eq!(membership, Some(PeerState::Failed));
    }

    #[test]
    fn more_nodes_than_there_is_room_for_are_refused_and_counted() {
        let mut nodes = Nodes::default();
        for number in 0..MAX_NODES {
            assert!(nodes.hear(&batch(&format!("n{number}"), ""), 1).is_some());
        }
        assert_eq!(nodes.hear(&batch("one too many", ""), 1), None);
        assert_eq!((nodes.len(), nodes.refused()), (MAX_NODES, 1));
    }
}
