//! What is known of the nodes of a mesh: as discovery delivers them, and as the prober sees them.
//!
//! Names, addresses and labels are shared: each of ten thousand members is held by whoever found it, by whoever compares, and by
//! whoever probes.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// The whole mesh as one source of discovery sees it at one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Membership {
    /// All members, this node among them, in the order of the source.
    pub members: Vec<Member>,
    /// The mesh is told to stop: nobody probes until this is false again.
    pub stop: bool,
}

/// One node of the mesh.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// Name, unique in the mesh.
    pub name: Arc<str>,
    /// Addresses in order of preference, IPv4 and IPv6 mixed.
    pub addresses: Arc<[IpAddr]>,
    /// UDP port on which it answers.
    pub port: u16,
    /// Where it stands.
    pub labels: Arc<Labels>,
    /// Whether it is there.
    pub state: MemberState,
}

/// What the source of discovery says of a member. One that left is not a member any more.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum MemberState {
    /// Nothing: the source knows no states.
    #[default]
    Unsaid,
    /// It is there.
    Alive,
    /// Its agent said that it would be back; its host goes on answering meanwhile.
    Restarting,
    /// It went without a word; probed on, so that a dead host is seen as one.
    Failed,
}

/// Where a node stands and what it is; all of it is optional.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Labels {
    /// Zone, data centre or site.
    pub zone: Option<String>,
    /// Rack or top-of-rack switch.
    pub rack: Option<String>,
    /// Group of like machines.
    pub instance_group: Option<String>,
    /// Bandwidth of its network interface, as the operator wrote it, for instance `10G`.
    pub bandwidth: Option<String>,
    /// Any others.
    pub other: BTreeMap<String, String>,
}

/// Gives equal labels out as one: most of a rack's servers have the same.
#[derive(Debug, Default)]
pub struct LabelPool {
    held: HashSet<Arc<Labels>>,
    /// With so many it looks for those that nobody has any more.
    full_at: usize,
}

impl LabelPool {
    /// The same labels, as somebody has them already.
    pub fn share(&mut self, labels: Arc<Labels>) -> Arc<Labels> {
        if let Some(held) = self.held.get(&labels) {
            return Arc::clone(held);
        }
        if self.held.len() >= self.full_at {
            self.held.retain(|held| Arc::strong_count(held) > 1);
            self.full_at = (2 * self.held.len()).max(LEAST_POOL);
        }
        self.held.insert(Arc::clone(&labels));
        labels
    }
}

const LEAST_POOL: usize = 64;

/// A member that this node probes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Peer {
    /// Name, unique in the mesh.
    pub name: Arc<str>,
    /// The address that is probed.
    pub address: IpAddr,
    /// UDP port on which it answers.
    pub port: u16,
    /// Where it stands.
    pub labels: Arc<Labels>,
    /// Whether it is there, by the membership.
    pub state: MemberState,
}

/// Number of a peer on this node, from 1 to [`Slot::LAST`]; on the wire it is the STAMP session identifier (SSID).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Slot(pub u16);

impl Slot {
    /// The first slot: SSID 0 means "no session" (RFC 8972 section 3).
    pub const FIRST: Self = Self(1);
    /// The last slot of the agent; those behind it belong to guests such as `ping`.
    pub const LAST: Self = Self(dt_common::map::FIRST_GUEST_SSID - 1);
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which IP version to probe a member by.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Family {
    /// IPv4 if both ends have it, else IPv6.
    #[default]
    Auto,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// What changed about the peers of this node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PeerChange {
    /// Stop probing this peer; the slot is not used again soon.
    Leave {
        /// Its slot.
        slot: Slot,
    },
    /// The same path has other labels or another state.
    Update {
        /// Its slot.
        slot: Slot,
        /// The peer as it is now; address and port are as before.
        peer: Peer,
    },
    /// Probe this peer from now on.
    Join {
        /// Its slot.
        slot: Slot,
        /// Who it is.
        peer: Peer,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_rack(rack: usize) -> Arc<Labels> {
        Arc::new(Labels {
            rack: Some(format!("r{rack}")),
            ..Labels::default()
        })
    }

    #[test]
    fn equal_labels_are_held_once_and_forgotten_with_their_last_holder() {
        let mut pool = LabelPool::default();
        let held: Vec<_> = (0..10_000)
            .map(|node| pool.share(of_rack(node / 40)))
            .collect();
        assert!(
            held.chunks(40)
                .all(|rack| rack.iter().all(|one| Arc::ptr_eq(one, &rack[0])))
        );
        drop(held);
        let lives = pool.share(of_rack(0));
        for rack in 1_000..3_000 {
            drop(pool.share(of_rack(rack)));
        }
        assert!(pool.held.len() <= 1_024, "{}", pool.held.len());
        assert!(Arc::ptr_eq(&lives, &pool.share(of_rack(0))));
    }
}
