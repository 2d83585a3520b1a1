//! Neighbours: what the kernel knows of them, and the order to ask them again.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
    NeighbourState as KernelState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

/// Somebody on the same link.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Neighbour {
    /// Index of the link.
    pub link: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its link-layer address, if known.
    pub mac: Option<Vec<u8>>,
    /// What the kernel thinks of it.
    pub state: NeighbourState,
    /// It said that it is a router.
    pub router: bool,
}

/// What the kernel thinks of a neighbour.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum NeighbourState {
    /// It answered lately, or needs not be asked.
    Reachable,
    /// It answered once.
    Stale,
    /// It is being asked.
    Asking,
    /// It does not answer.
    Failed,
}

pub(super) fn request() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default())
}

pub(super) fn parse(message: &RouteNetlinkMessage) -> Option<Neighbour> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else {
        return None;
    };
    let (mut found, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(destination) => found = address(destination),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = Some(bytes.clone()),
            _ => {}
        }
    }
    Some(Neighbour {
        link: message.header.ifindex,
        address: found?,
        mac,
        state: state(message.header.state)?,
        router: message.header.flags.contains(NeighbourFlags::Router),
    })
}

/// The order to ask a neighbour, and its flags.
///
/// A known one is put into the state `PROBE`, in which the kernel asks it by unicast at once and keeps using it
/// meanwhile. An unknown one is treated as if a packet were waiting for it.
pub(super) fn probe(link: u32, to: IpAddr, mac: Option<&[u8]>) -> (RouteNetlinkMessage, u16) {
    let mut message = NeighbourMessage::default();
    let (family, destination) = match to {
        IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
    };
    message.header.family = family;
    message.header.ifindex = link;
    message
        .attributes
        .push(NeighbourAttribute::Destination(destination));
    let flags = if let Some(mac) = mac {
        message.header.state = KernelState::Probe;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        NLM_F_REPLACE
    } else {
        message.header.flags = NeighbourFlags::Use;
        NLM_F_CREATE
    };
    (RouteNetlinkMessage::NewNeighbour(message), flags)
}

fn address(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(v4) => Some((*v4).into()),
        NeighbourAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

/// `None` for entries that stand for no neighbour.
fn state(state: KernelState) -> Option<NeighbourState> {
    match state {
        KernelState::Reachable | KernelState::Permanent => Some(NeighbourState::Reachable),
        KernelState::Stale | KernelState::Delay => Some(NeighbourState::Stale),
        KernelState::Incomplete | KernelState::Probe => Some(NeighbourState::Asking),
        KernelState::Failed => Some(NeighbourState::Failed),
        _ => None,
    }
}
