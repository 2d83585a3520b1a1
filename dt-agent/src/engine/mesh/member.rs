//! What is known of the nodes of a mesh: as discovery delivers them, and as the prober sees them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

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
    pub name: String,
    /// Addresses in order of preference, IPv4 and IPv6 mixed.
    pub addresses: Vec<IpAddr>,
    /// UDP port on which it answers.
    pub port: u16,
    /// Where it stands.
    pub labels: Labels,
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
#[derive(Clone, Debug, Default, Eq, PartialEq)]
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

/// A member that this node probes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Peer {
    /// Name, unique in the mesh.
    pub name: String,
    /// The address that is probed.
    pub address: IpAddr,
    /// UDP port on which it answers.
    pub port: u16,
    /// Where it stands.
    pub labels: Labels,
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
