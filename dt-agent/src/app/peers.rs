//! Where each peer is: the interface that leads to it, and the way its probes go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;

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

/// Peers without an interface, at most so many: those behind `after`, then from the first on.
pub(super) fn next_homeless(places: &Places, after: Option<Slot>, most: usize) -> Vec<Slot> {
    let homeless = |(slot, place): (&Slot, &Place)| place.interface.is_none().then_some(*slot);
    let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
    let rest = places
        .range((behind, Bound::Unbounded))
        .filter_map(homeless);
    let first = after.map(|last| places.range(..=last).filter_map(homeless));
    rest.chain(first.into_iter().flatten()).take(most).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::engine::mesh::MemberState;

    fn places(homeless: &[u16], housed: &[u16]) -> Places {
        let place = |interface: Option<&str>| Place {
            peer: Peer {
                name: "n".into(),
                address: IpAddr::from([10, 0, 0, 1]),
                port: 862,
                labels: Arc::default(),
                state: MemberState::Unsaid,
            },
            interface: interface.map(Into::into),
            path: Path::Socket,
            joined: true,
        };
        let lost = homeless.iter().map(|slot| (Slot(*slot), place(None)));
        let found = housed.iter().map(|slot| (Slot(*slot), place(Some("eth0"))));
        lost.chain(found).collect()
    }

    #[test]
    fn peers_without_a_route_are_looked_for_in_turn() {
        let places = places(&[2, 3, 5, 9], &[1, 4, 7]);
        let next = |after: Option<u16>, most| {
            let found = next_homeless(&places, after.map(Slot), most);
            found.iter().map(|slot| slot.0).collect::<Vec<_>>()
        };
        assert_eq!(next(None, 3), [2, 3, 5]);
        assert_eq!(next(Some(5), 3), [9, 2, 3]);
        assert_eq!(next(Some(9), 9), [2, 3, 5, 9]);
        assert_eq!(next(Some(3), 9), [5, 9, 2, 3]);
        assert_eq!(next_homeless(&Places::new(), Some(Slot(3)), 9), []);
    }
}
