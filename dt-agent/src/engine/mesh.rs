//! From membership to peers: whom this node probes, and whom it answers.
//!
//! Every node computes its own list from the same membership, with no controller: all others, up to a limit. What
//! cannot be is left out and named in [`Mesh::problems`], and the rest goes on. The one hard fact: a slot is the SSID on
//! the wire, so it stays a peer's own while the path stays the same, and once freed it is given away as late as possible,
//! lest a reply that is still on its way is taken for another peer's.

mod member;
mod problem;
mod sift;
mod slots;

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use dt_common::map::MAX_MEMBERS;

pub use member::{Family, Labels, Member, MemberState, Membership, Peer, PeerChange, Slot};
pub use problem::Problem;

use sift::Sifted;
use slots::Slots;

/// The peers of one node.
#[derive(Debug)]
pub struct Mesh {
    settings: MeshSettings,
    own: Option<Member>,
    stopped: bool,
    peers: BTreeMap<String, (Slot, Peer)>,
    slots: Slots,
    admitted: BTreeMap<String, (u16, Vec<IpAddr>)>,
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
    /// Greatest number of peers.
    pub peer_limit: usize,
}

impl MeshSettings {
    /// As many peers as a reflector can tell apart, this node itself not counted.
    pub const DEFAULT_PEER_LIMIT: usize = MAX_MEMBERS as usize - 1;
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
        let wanted = if membership.stop {
            Vec::new()
        } else {
            sifted.peers
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

    /// What is wrong with the membership taken last.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    fn admit(&mut self, members: &[&Member]) {
        let names: HashSet<_> = members.iter().map(|member| member.name.as_str()).collect();
        let numbers = &mut self.numbers;
        self.admitted.retain(|name, (number, _)| {
            let stays = names.contains(name.as_str());
            if !stays {
                numbers.give_back(*number);
            }
            stays
        });
        let mut refused = Vec::new();
        for member in members {
            if let Some((_, addresses)) = self.admitted.get_mut(&member.name) {
                addresses.clone_from(&member.addresses);
            } else if let Some(number) = self.numbers.take() {
                self.admitted
                    .insert(member.name.clone(), (number, member.addresses.clone()));
            } else {
                refused.push(member.name.clone());
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
                self.peers.insert(peer.name.clone(), (slot, peer.clone()));
                joins.push(PeerChange::Join { slot, peer });
            }
        }
        updates.append(&mut joins);
        updates
    }
}

/// What makes a peer another one when it changes.
fn path(peer: &Peer) -> (&str, IpAddr, u16) {
    (&peer.name, peer.address, peer.port)
}

#[cfg(test)]
mod tests;
