//! The way that packets to an address take.

use std::net::IpAddr;

use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

/// How packets to an address leave this host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Route {
    /// Index of the link they leave by.
    pub link: u32,
    /// Address they leave with.
    pub source: Option<IpAddr>,
    /// Who forwards them; `None` if the address is a neighbour's.
    pub gateway: Option<IpAddr>,
    /// The address is this host's own.
    pub local: bool,
}

impl Route {
    /// The neighbour that packets to `address` are handed to.
    #[must_use]
    pub fn next_hop(&self, address: IpAddr) -> IpAddr {
        self.gateway.unwrap_or(address)
    }
}

pub(super) fn request(to: IpAddr, link: Option<u32>) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    let (family, prefix, destination) = match to {
        IpAddr::V4(v4) => (AddressFamily::Inet, 32, RouteAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(v6)),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = prefix;
    message
        .attributes
        .push(RouteAttribute::Destination(destination));
    message.attributes.extend(link.map(RouteAttribute::Oif));
    RouteNetlinkMessage::GetRoute(message)
}

pub(super) fn parse(message: &RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else {
        return None;
    };
    let mut route = Route {
        link: 0,
        source: None,
        gateway: None,
        local: message.header.kind == RouteType::Local,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => route.link = *index,
            RouteAttribute::PrefSource(source) => route.source = address(source),
            RouteAttribute::Gateway(gateway) => route.gateway = address(gateway),
            // IPv4 by way of an IPv6 router (RFC 8950).
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => {
                route.gateway = Some((*gateway).into());
            }
            RouteAttribute::Via(RouteVia::Inet(gateway)) => route.gateway = Some((*gateway).into()),
            _ => {}
        }
    }
    (route.link != 0).then_some(route)
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}
