//! From membership to peers: whom this node probes, and whom it answers.
//!
//! Every node computes its own list from the same membership, with no controller: all others up to a limit, beyond it those
//! that `super::pinglist` chooses. All others are answered in any case. What cannot be is left out and named in
//! [`Mesh::problems`], and the rest goes on. The one hard fact: a slot is the SSID on the wire, so it stays a peer's own
//! while the path stays the same, and once freed it is given away as late as possible, lest a reply that is still on its way
//! is taken for another peer's.

mod member;
mod problem;
mod sift;
mod slots;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use dt_common::map::MAX_MEMBERS;

pub use member::{
    Family, LabelPool, Labels, Member, MemberState, Membership, Peer, PeerChange, Slot,
};
pub use problem::Problem;

use super::pinglist::{Node, Pinglist, Shape};
use sift::Sifted;
use slots::Slots;

/// The peers of one node.
#[derive(Debug)]
pub struct Mesh {
    settings: MeshSettings,
    pinglist: Pinglist,
    shape: Shape,
    own: Option<Member>,
    stopped: bool,
    peers: BTreeMap<Arc<str>, (Slot, Peer)>,
    slots: Slots,
    admitted: BTreeMap<Arc<str>, (u16, Arc<[IpAddr]>)>,
    numbers: Slots,
    problems: Vec<Problem>,
}

/// Who this node is and how it chooses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MeshSettings {
    /// Name of this node.
    pub name: String,
    /// IP version to probe by.
    pub family: Family,
    /// Greatest number of peers, at most [`Self::MAX_PEER_LIMIT`].
    pub peer_limit: usize,
}

impl MeshSettings {
    /// As many as an agent of Pingmesh probed (Guo et al., SIGCOMM 2015, section 3.4), at a probe a second each.
    pub const DEFAULT_PEER_LIMIT: usize = 2_500;
    /// As many peers as a reflector can tell apart, this node itself not counted. Nothing lifts this.
    pub const MAX_PEER_LIMIT: usize = MAX_MEMBERS as usize - 1;
}

/// A member that this node answers, whether or not it probes it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Admitted<'a> {
    /// Its number, below [`MAX_MEMBERS`]; the same as long as it is a member.
    pub number: u16,
    /// Its name.
    pub name: &'a str,
    /// All of its addresses, in order.
    pub addresses: &'a [IpAddr],
}

impl Mesh {
    /// A mesh of which nothing is known yet.
    #[must_use]
    pub fn new(settings: MeshSettings) -> Self {
        Self {
            pinglist: Pinglist::new(settings.peer_limit.min(MeshSettings::MAX_PEER_LIMIT)),
            shape: Shape::default(),
            settings,
            own: None,
            stopped: false,
            peers: BTreeMap::new(),
            slots: Slots::new(Slot::FIRST.0, Slot::LAST.0),
            admitted: BTreeMap::new(),
            numbers: Slots::new(0, (MAX_MEMBERS - 1) as u16),
            problems: Vec::new(),
        }
    }

    /// Takes the whole membership as it is now; what that changes, first who leaves, last who joins.
    ///
    /// A peer whose address or port changed leaves and joins under a new slot, because it is another path. The same
    /// membership again changes nothing. A mesh that is told to stop, or that does not list this node, has no peers.
    pub fn handle_membership(&mut self, membership: &Membership) -> Vec<PeerChange> {
        let sifted = Sifted::of(membership, &self.settings);
        let wanted = match sifted.own {
            Some(own) if !membership.stop => self.choose(own, &sifted.within_reach),
            _ => Vec::new(),
        };
        self.own = sifted.own.cloned();
        self.stopped = membership.stop;
        self.problems = sifted.problems;
        self.admit(&sifted.others);
        let mut changes = self.leave(&wanted);
        changes.extend(self.update_and_join(wanted));
        changes
    }

    /// Who is probed, by name.
    pub fn peers(&self) -> impl Iterator<Item = (Slot, &Peer)> {
        self.peers.values().map(|(slot, peer)| (*slot, peer))
    }

    /// Who is answered, by name: all members but this one, also while the mesh is stopped.
    pub fn admitted(&self) -> impl Iterator<Item = Admitted<'_>> {
        self.admitted
            .iter()
            .map(|(name, (number, addresses))| Admitted {
                number: *number,
                name,
                addresses,
            })
    }

    /// This node as the membership lists it.
    #[must_use]
    pub fn own(&self) -> Option<&Member> {
        self.own.as_ref()
    }

    /// Whether the mesh is told to stop.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// How the peers were chosen last.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// What is wrong with the membership taken last.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    fn choose(&mut self, own: &Member, within_reach: &[(&Member, IpAddr)]) -> Vec<Peer> {
        let others: Vec<_> = within_reach
            .iter()
            .map(|(member, _)| node(member))
            .collect();
        let list = self.pinglist.handle_members(&node(own), &others);
        self.shape = list.shape;
        let chosen = list.chosen.into_iter();
        let peer = |index: usize| {
            let (member, address) = within_reach[index];
            Peer {
                name: Arc::clone(&member.name),
                address,
                port: member.port,
                labels: Arc::clone(&member.labels),
                state: member.state,
            }
        };
        chosen.map(peer).collect()
    }

    fn admit(&mut self, members: &[&Member]) {
        let by_name = members.iter().map(|member| (&*member.name, *member));
        let mut new: HashMap<_, _> = by_name.collect();
        let numbers = &mut self.numbers;
        self.admitted.retain(|name, (number, addresses)| {
            let member = new.remove(&**name);
            match member {
                Some(member) => addresses.clone_from(&member.addresses),
                None => numbers.give_back(*number),
            }
            member.is_some()
        });
        if new.is_empty() {
            return;
        }
        let mut refused = Vec::new();
        for member in members {
            if !new.contains_key(&*member.name) {
                continue;
            }
            if let Some(number) = self.numbers.take() {
                let addresses = Arc::clone(&member.addresses);
                self.admitted
                    .insert(Arc::clone(&member.name), (number, addresses));
            } else {
                refused.push(member.name.to_string());
            }
        }
        if !refused.is_empty() {
            self.problems.push(Problem::NotAdmitted { names: refused });
        }
    }

    fn leave(&mut self, wanted: &[Peer]) -> Vec<PeerChange> {
        let paths: HashSet<_> = wanted.iter().map(path).collect();
        let mut gone: Vec<_> = self
            .peers
            .extract_if(.., |_, (_, peer)| !paths.contains(&path(peer)))
            .map(|(_, (slot, _))| slot)
            .collect();
        gone.sort_unstable();
        for slot in &gone {
            self.slots.give_back(slot.0);
        }
        gone.into_iter()
            .map(|slot| PeerChange::Leave { slot })
            .collect()
    }

    fn update_and_join(&mut self, wanted: Vec<Peer>) -> Vec<PeerChange> {
        let (mut updates, mut joins) = (Vec::new(), Vec::new());
        for peer in wanted {
            if let Some((slot, known)) = self.peers.get_mut(&peer.name) {
                if *known != peer {
                    known.clone_from(&peer);
                    updates.push(PeerChange::Update { slot: *slot, peer });
                }
            } else if let Some(slot) = self.slots.take().map(Slot) {
                self.peers
                    .insert(Arc::clone(&peer.name), (slot, peer.clone()));
                joins.push(PeerChange::Join { slot, peer });
            }
        }
        updates.append(&mut joins);
        updates
    }
}

/// A member as the choice of peers sees it. One that failed is probed but cannot probe for its rack.
fn node(member: &Member) -> Node<'_> {
    Node {
        name: &member.name,
        zone: member.labels.zone.as_deref(),
        rack: member.labels.rack.as_deref(),
        stands: member.state != MemberState::Failed,
    }
}

/// What makes a peer another one when it changes.
fn path(peer: &Peer) -> (&str, IpAddr, u16) {
    (&peer.name, peer.address, peer.port)
}

#[cfg(test)]
mod tests;
