//! The programs' maps as typed values.
//!
//! Values cross the boundary as byte arrays of their exact size, made and read by `zerocopy`: no trait that promises a
//! layout has to be implemented by hand.

use std::net::IpAddr;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use dt_common::map::{
    Address, Allowed, Config, Iface, IfaceMode, MAX_GUESTS, PREFIX_BITS, Proof, Reason, Session,
    Target, iface_slot, names, words,
};
use ipnet::IpNet;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::pins::NodePins;
use super::ring::EventRing;
use crate::engine::ladder::Mode;

const CONFIG: usize = size_of::<Config>();
const IFACE: usize = size_of::<Iface>();
const PROOF: usize = size_of::<Proof>();
const TARGET: usize = size_of::<Target>();
const ALLOWED: usize = size_of::<Allowed>();
const SESSION: usize = size_of::<Session>();

/// Why a map cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MapsError {
    /// It is not there, or not of its kind.
    #[error("cannot open the map {name}")]
    Open {
        /// Name of the map.
        name: &'static str,
        /// Cause.
        #[source]
        source: MapError,
    },
    /// The object or the pin directory has no such map.
    #[error("there is no map {name}")]
    Missing {
        /// Name of the map.
        name: &'static str,
    },
    /// Reading or writing failed.
    #[error("cannot use the map {name}")]
    Access {
        /// Name of the map.
        name: &'static str,
        /// Cause.
        #[source]
        source: MapError,
    },
    /// A pinned map has other sizes than this version's, although its directory says the version is the same.
    #[error("the pinned map {name} has another layout; remove it with: dt-agent detach")]
    Layout {
        /// Name of the map.
        name: &'static str,
    },
}

/// All maps of one node but the rings.
pub struct NodeMaps {
    config: Array<MapData, [u8; CONFIG]>,
    ifaces: Array<MapData, [u8; IFACE]>,
    proofs: Array<MapData, [u8; PROOF]>,
    targets: Array<MapData, [u8; TARGET]>,
    ports: Array<MapData, u32>,
    allow: HashMap<MapData, Address, [u8; ALLOWED]>,
    allow_prefix: LpmTrie<MapData, Address, [u8; ALLOWED]>,
    members: Array<MapData, [u8; SESSION]>,
    counters: PerCpuArray<MapData, u64>,
}

impl NodeMaps {
    /// The maps of programs that this process loaded.
    ///
    /// # Errors
    /// A map is missing or of another layout.
    pub fn of_object(object: &mut Ebpf) -> Result<Self, MapsError> {
        Self::from(|name| object.take_map(name).ok_or(MapsError::Missing { name }))
    }

    /// The maps that a running agent pinned.
    ///
    /// # Errors
    /// A map is missing or of another layout.
    pub fn of_pins(pins: &NodePins) -> Result<Self, MapsError> {
        Self::from(|name| pinned(pins, name))
    }

    fn from(
        mut take: impl FnMut(&'static str) -> Result<Map, MapsError>,
    ) -> Result<Self, MapsError> {
        Ok(Self {
            config: open(names::CONFIG, &mut take)?,
            ifaces: open(names::IFACES, &mut take)?,
            proofs: open(names::PROOFS, &mut take)?,
            targets: open(names::TARGETS, &mut take)?,
            ports: open(names::PORTS, &mut take)?,
            allow: open(names::ALLOW, &mut take)?,
            allow_prefix: open(names::ALLOW_PREFIX, &mut take)?,
            members: open(names::MEMBERS, &mut take)?,
            counters: open(names::COUNTERS, &mut take)?,
        })
    }

    /// The configuration that the programs see.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn config(&self) -> Result<Config, MapsError> {
        let bytes = self.config.get(&0, 0).map_err(access(names::CONFIG))?;
        parse(names::CONFIG, &bytes)
    }

    /// Replaces the configuration.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_config(&mut self, config: &Config) -> Result<(), MapsError> {
        self.config
            .set(0, bytes::<_, CONFIG>(config), 0)
            .map_err(access(names::CONFIG))
    }

    /// An interface's entry, if it is the one that stands in its slot.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn iface(&self, ifindex: u32) -> Result<Option<Iface>, MapsError> {
        let bytes = self
            .ifaces
            .get(&iface_slot(ifindex), 0)
            .map_err(access(names::IFACES))?;
        let iface: Iface = parse(names::IFACES, &bytes)?;
        Ok((iface.ifindex == ifindex).then_some(iface))
    }

    /// The rung on which the agent of these maps works on an interface; none if it does not.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn mode(&self, ifindex: u32) -> Result<Option<Mode>, MapsError> {
        let mode = self.iface(ifindex)?.map(|iface| iface.mode);
        Ok(match mode {
            Some(IfaceMode::XDP) => Some(Mode::Xdp),
            Some(IfaceMode::TC) => Some(Mode::Tc),
            _ => None,
        })
    }

    /// Replaces an interface's entry.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_iface(&mut self, iface: &Iface) -> Result<(), MapsError> {
        let slot = iface_slot(iface.ifindex);
        self.ifaces
            .set(slot, bytes::<_, IFACE>(iface), 0)
            .map_err(access(names::IFACES))
    }

    /// How far the proof on an interface has come.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn proof(&self, ifindex: u32) -> Result<Proof, MapsError> {
        let bytes = self
            .proofs
            .get(&iface_slot(ifindex), 0)
            .map_err(access(names::PROOFS))?;
        parse(names::PROOFS, &bytes)
    }

    /// Makes the collector accept a target's replies, or none any more where `target` is the default.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_target(&mut self, ssid: u16, target: &Target) -> Result<(), MapsError> {
        self.targets
            .set(u32::from(ssid), bytes::<_, TARGET>(target), 0)
            .map_err(access(names::TARGETS))
    }

    /// A target as the collector sees it, with its counters.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn target(&self, ssid: u16) -> Result<Target, MapsError> {
        let bytes = self
            .targets
            .get(&u32::from(ssid), 0)
            .map_err(access(names::TARGETS))?;
        parse(names::TARGETS, &bytes)
    }

    /// Says whose replies come to the `index`th source port when they carry no SSID.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_port_owner(&mut self, index: u16, ssid: u16) -> Result<(), MapsError> {
        self.ports
            .set(u32::from(index), u32::from(ssid), 0)
            .map_err(access(names::PORTS))
    }

    /// Lets an address be answered.
    ///
    /// # Errors
    /// The map is full or cannot be written.
    pub fn allow(&mut self, address: IpAddr, allowed: Allowed) -> Result<(), MapsError> {
        self.allow
            .insert(mapped(address), bytes::<_, ALLOWED>(&allowed), 0)
            .map_err(access(names::ALLOW))
    }

    /// Lets an address be answered no longer; none that is not there is missed.
    pub fn forbid(&mut self, address: IpAddr) {
        let _ = self.allow.remove(&mapped(address));
    }

    /// The addresses that are answered, with their permissions.
    #[must_use]
    pub fn allowed(&self) -> Vec<(IpAddr, Allowed)> {
        let entries = self.allow.iter().flatten();
        entries
            .filter_map(|(address, allowed)| {
                Some((unmapped(address), Allowed::read_from_bytes(&allowed).ok()?))
            })
            .collect()
    }

    /// Makes exactly these prefixes be answered.
    ///
    /// # Errors
    /// The map is full or cannot be written.
    pub fn allow_prefixes(&mut self, prefixes: &[IpNet]) -> Result<(), MapsError> {
        let wanted: Vec<_> = prefixes.iter().map(prefix_key).collect();
        let held: Vec<_> = self.allow_prefix.keys().flatten().collect();
        let allowed = Allowed {
            member: Allowed::NO_MEMBER,
            flags: 0,
        };
        for key in &wanted {
            self.allow_prefix
                .insert(key, bytes::<_, ALLOWED>(&allowed), 0)
                .map_err(access(names::ALLOW_PREFIX))?;
        }
        let is_wanted = |key: &Key<Address>| {
            wanted
                .iter()
                .any(|other| other.prefix_len() == key.prefix_len() && other.data() == key.data())
        };
        for key in held.iter().filter(|key| !is_wanted(key)) {
            let _ = self.allow_prefix.remove(key);
        }
        Ok(())
    }

    /// Forgets what was counted for a member number, before another member gets it.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn reset_member(&mut self, number: u16) -> Result<(), MapsError> {
        self.members
            .set(u32::from(number), [0; SESSION], 0)
            .map_err(access(names::MEMBERS))
    }

    /// How often each verdict was given, over all CPUs.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counters(&self) -> Result<Vec<(Reason, u64)>, MapsError> {
        Reason::ALL
            .iter()
            .map(|reason| Ok((*reason, self.counter(*reason)?)))
            .collect()
    }

    /// How often one verdict was given, over all CPUs.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counter(&self, reason: Reason) -> Result<u64, MapsError> {
        let values = self
            .counters
            .get(&(reason as u32), 0)
            .map_err(access(names::COUNTERS))?;
        Ok(values.iter().sum())
    }
}

/// The agent's ring, from programs that this process loaded.
pub(super) fn take_ring(object: &mut Ebpf) -> Result<EventRing, MapsError> {
    let name = names::EVENTS;
    let map = object.take_map(name).ok_or(MapsError::Missing { name })?;
    ring(name, map)
}

/// A guest's ring, from the pins of a running agent.
pub(super) fn guest_ring(pins: &NodePins, number: u16) -> Result<EventRing, MapsError> {
    let name = names::GUEST_EVENTS[usize::from(number % MAX_GUESTS)];
    ring(name, pinned(pins, name)?)
}

fn ring(name: &'static str, map: Map) -> Result<EventRing, MapsError> {
    RingBuf::try_from(map)
        .map(EventRing::new)
        .map_err(|source| MapsError::Open { name, source })
}

pub(super) fn pinned(pins: &NodePins, name: &'static str) -> Result<Map, MapsError> {
    let data = MapData::from_pin(pins.maps().join(name))
        .map_err(|source| MapsError::Open { name, source })?;
    Map::from_map_data(data).map_err(|source| MapsError::Open { name, source })
}

pub(super) fn open<M>(
    name: &'static str,
    take: &mut impl FnMut(&'static str) -> Result<Map, MapsError>,
) -> Result<M, MapsError>
where
    M: TryFrom<Map, Error = MapError>,
{
    M::try_from(take(name)?).map_err(|source| match source {
        MapError::InvalidKeySize { .. } | MapError::InvalidValueSize { .. } => {
            MapsError::Layout { name }
        }
        source => MapsError::Open { name, source },
    })
}

pub(super) fn access(name: &'static str) -> impl Fn(MapError) -> MapsError {
    move |source| MapsError::Access { name, source }
}

pub(super) fn parse<T: FromBytes>(name: &'static str, bytes: &[u8]) -> Result<T, MapsError> {
    T::read_from_bytes(bytes).map_err(|_| MapsError::Layout { name })
}

/// The bytes of a value whose size is `N`.
fn bytes<T: IntoBytes + Immutable, const N: usize>(value: &T) -> [u8; N] {
    const { assert!(size_of::<T>() == N) };
    let mut array = [0; N];
    array.copy_from_slice(value.as_bytes());
    array
}

/// An address in the form of all maps: IPv4 mapped into IPv6.
#[must_use]
pub fn mapped(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// The words of an address, as [`Config::locals`] and [`Target::address`] hold it.
#[must_use]
pub fn address_words(address: IpAddr) -> [u64; 2] {
    words(mapped(address))
}

fn unmapped(address: Address) -> IpAddr {
    IpAddr::from(address).to_canonical()
}

fn prefix_key(prefix: &IpNet) -> Key<Address> {
    let bits = u32::from(prefix.prefix_len());
    let offset = if prefix.addr().is_ipv4() {
        PREFIX_BITS - 32
    } else {
        0
    };
    Key::new(offset + bits, mapped(prefix.network()))
}
