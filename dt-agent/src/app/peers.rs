//! Where each peer is: the interface that leads to it, and the way its probes go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::adapters::datapath::prober::Path;
use crate::adapters::net::{Link, Net, NetError};
use crate::engine::ladder::Mode;
use crate::engine::mesh::{Peer, Slot};

/// A peer that is probed.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub peer: Peer,
    /// Interface that leads to it; unknown while there is no route.
    pub interface: Option<String>,
    /// How its probes go.
    pub path: Path,
    /// The prober knows it.
    pub joined: bool,
}

/// All peers by slot.
pub(super) type Places = BTreeMap<Slot, Place>;

/// How to get to an address.
pub(super) struct Way {
    pub link: Link,
    pub next_hop: IpAddr,
}

/// The interface that leads to an address; only one of `wanted`, unless that is empty.
pub(super) fn way_to(
    net: &mut Net,
    links: &[Link],
    wanted: &[String],
    address: IpAddr,
) -> Result<Option<Way>, NetError> {
    let route = net.route(address, None)?;
    let link = links.iter().find(|link| link.index == route.link);
    let usable =
        |link: &&Link| !link.loopback && (wanted.is_empty() || wanted.contains(&link.name));
    Ok(link.filter(usable).map(|link| Way {
        link: link.clone(),
        next_hop: route.next_hop(address),
    }))
}

/// The way that probes take on a rung.
pub(super) const fn path_of(mode: Option<Mode>) -> Path {
    match mode {
        Some(Mode::Xdp | Mode::Tc) => Path::Kernel,
        Some(Mode::Socket) | None => Path::Socket,
    }
}

/// Interfaces behind which every peer is silent, though there are some.
pub(super) fn silent_interfaces(places: &Places, silent: &BTreeSet<Slot>) -> BTreeSet<String> {
    let of = |place: &Place| place.interface.clone();
    let mut interfaces: BTreeSet<_> = places.values().filter_map(of).collect();
    for (slot, place) in places {
        if let (Some(interface), false) = (&place.interface, silent.contains(slot)) {
            interfaces.remove(interface);
        }
    }
    interfaces
}
