//! What can be wrong with a membership.

use std::fmt;
use std::net::IpAddr;

/// Something in the membership that was left out, and why. The rest of it holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Problem {
    /// This node is not listed, so it does not probe.
    NotAMember {
        /// Name of this node.
        name: String,
    },
    /// Two members have one name; the second is left out.
    DuplicateName {
        /// The name.
        name: String,
    },
    /// Two members have one address; the second is left out.
    DuplicateAddress {
        /// Who is left out.
        name: String,
        /// Who had the address first.
        holder: String,
        /// The address.
        address: IpAddr,
    },
    /// Another member has an address of this node; it is left out.
    OwnAddress {
        /// Who is left out.
        name: String,
        /// The address.
        address: IpAddr,
    },
    /// An address that no probe can be sent to; the member is left out.
    UnusableAddress {
        /// Who is left out.
        name: String,
        /// The address.
        address: IpAddr,
    },
    /// A member without any address.
    NoAddress {
        /// Its name.
        name: String,
    },
    /// A member that this node has no IP version in common with, as far as the settings allow; answered, not probed.
    NoCommonFamily {
        /// Its name.
        name: String,
    },
    /// More members than can be answered.
    NotAdmitted {
        /// Who is not answered.
        names: Vec<String>,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAMember { name } => {
                write!(
                    f,
                    "{name} is not a member of the mesh: it does not probe, and nobody probes it; see --node"
                )
            }
            Self::DuplicateName { name } => {
                write!(f, "two members are called {name}: the second is left out")
            }
            Self::DuplicateAddress {
                name,
                holder,
                address,
            } => {
                write!(
                    f,
                    "members {holder} and {name} both have address {address}: {name} is left out"
                )
            }
            Self::OwnAddress { name, address } => {
                write!(
                    f,
                    "member {name} has address {address} of this node: {name} is left out"
                )
            }
            Self::UnusableAddress { name, address } => {
                write!(
                    f,
                    "member {name} has address {address}, which cannot be probed: {name} is left out"
                )
            }
            Self::NoAddress { name } => write!(f, "member {name} has no address"),
            Self::NoCommonFamily { name } => {
                write!(
                    f,
                    "member {name} has no address of an IP version that this node may use; see --family"
                )
            }
            Self::NotAdmitted { names } => {
                write!(f, "too many members to answer: {} left out", Names(names))
            }
        }
    }
}

/// How many, and the first of them by name: a message with ten thousand names helps nobody.
struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(NAMES_SHOWN)];
        let more = if shown.len() < self.0.len() {
            ", ..."
        } else {
            ""
        };
        write!(f, "{} ({}{more})", self.0.len(), shown.join(", "))
    }
}

const NAMES_SHOWN: usize = 5;
