//! What one agent says of itself, checked.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::engine::mesh::Labels;

/// What one agent says of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// Name of its node.
    pub name: Arc<str>,
    /// Which host it is, whatever it is called.
    pub identity: Identity,
    /// Addresses in order of preference; at least one.
    pub addresses: Arc<[IpAddr]>,
    /// UDP port on which it answers.
    pub port: u16,
    /// Where it stands.
    pub labels: Arc<Labels>,
    /// What it does.
    pub announced: Announced,
    /// For how long after RESTARTING it is expected back, ns.
    pub handover_ns: u64,
}

/// What an agent says that it does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Announced {
    /// It runs.
    Alive,
    /// It was stopped and will be back.
    Restarting,
    /// It left for good.
    Left,
}

/// Drawn at random when the agent first started on a host.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Identity(pub [u8; 16]);

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
