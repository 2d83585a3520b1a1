//! One node's programs at work: configuration, lease, allow-list, and a ladder for each interface.
//!
//! Runs on the slow path: nothing here is called per packet. The maps are shared with the thread that follows the wall
//! clock, which must publish a step before anything else happens.

mod allow;
mod interface;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dt_common::ABI_VERSION;
use dt_common::map::{
    Config, ConfigFlags, GUEST_PORTS, MAX_GUESTS, MAX_LOCALS, MAX_SOURCE_PORTS, Reason, Target,
    TargetFlags,
};
use dt_common::time::{MonoNanos, NANOS_PER_SEC};
use ipnet::IpNet;

use self::allow::AllowList;
use self::interface::{Interface, Surroundings};
pub use self::interface::{InterfaceStatus, Rung};
use super::maps::address_words;
use super::{
    EventRing, FanMaps, Hook, LoadError, MapsError, NodeLock, NodeMaps, NodePins, PinsError,
    Programs,
};
use crate::adapters::clock::{self, ClockState};
use crate::adapters::net::{Link, Net, NetError};
use crate::engine::ladder::{Mode, ModeRequest};
use crate::engine::random::Random;

/// How a node's programs are to work.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Rung asked for.
    pub request: ModeRequest,
    /// UDP port on which requests are answered.
    pub port: u16,
    /// First and last source port of our probes.
    pub source_ports: (u16, u16),
    /// Whether guests such as `ping` may join.
    pub guests: bool,
    /// Mark of our probes.
    pub mark: u32,
    /// How long the programs work on without an agent.
    pub lease: Duration,
    /// The same after a clean stop.
    pub handover: Duration,
    /// Requests per second of one source.
    pub source_pps: u32,
    /// Requests per second of all sources.
    pub total_pps: u32,
    /// Seed of jitter.
    pub seed: u64,
}

/// Why the programs cannot work on this node.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Nothing can be pinned, or somebody else has this node.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// The kernel takes no programs.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A map fails.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// The kernel does not tell of its interfaces.
    #[error(transparent)]
    Net(#[from] NetError),
}

impl NodeError {
    /// Whether another agent is the reason, which no other datapath cures.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        matches!(self, Self::Pins(PinsError::Busy { .. }))
    }
}

/// The maps, shared with the clock's thread.
pub type SharedMaps = Arc<Mutex<NodeMaps>>;

/// A node whose programs are loaded.
pub struct Node {
    settings: NodeSettings,
    pins: NodePins,
    maps: SharedMaps,
    programs: Programs,
    net: Net,
    allow: AllowList,
    interfaces: BTreeMap<String, Interface>,
    random: Random,
    /// Added to the ladders' rounds, so that marks of an earlier agent's proofs mean nothing.
    round_base: u32,
    /// Maps of other versions than ours are gone.
    is_sole_version: bool,
    counted: (u64, u64),
    _lock: NodeLock,
}

impl Node {
    /// Becomes the node's agent and loads the programs; nothing is attached yet.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub fn load(pins: NodePins, settings: NodeSettings) -> Result<(Self, EventRing), NodeError> {
        let lock = pins.lock()?;
        let (programs, mut maps, mut ring) = Programs::load(pins.clone(), settings.mark)?;
        // Replies to an agent that ended are nobody's.
        ring.clear();
        let mut random = Random::new(settings.seed);
        let config = Self::config(&settings, &maps.config()?);
        maps.set_config(&config)?;
        let node = Self {
            allow: AllowList::resume(&maps),
            pins,
            maps: Arc::new(Mutex::new(maps)),
            programs,
            net: Net::open()?,
            interfaces: BTreeMap::new(),
            round_base: random.bits() as u32,
            is_sole_version: false,
            random,
            counted: (0, 0),
            settings,
            _lock: lock,
        };
        Ok((node, ring))
    }

    /// The maps, for whoever follows the clock.
    #[must_use]
    pub fn maps(&self) -> SharedMaps {
        Arc::clone(&self.maps)
    }

    /// What the programs tell of probes that they made, for whoever has them made.
    ///
    /// # Errors
    /// A map cannot be opened.
    pub fn fan_maps(&self) -> Result<FanMaps, MapsError> {
        FanMaps::of_pins(&self.pins)
    }

    /// The configuration as the programs see it.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn held_config(&self) -> Result<Config, MapsError> {
        lock(&self.maps).config()
    }

    /// What an earlier agent published of the clock, if it left anything.
    #[must_use]
    pub fn published_clock(config: &Config) -> Option<ClockState> {
        (config.clock_offset_ns != 0).then_some(ClockState {
            offset_ns: config.clock_offset_ns,
            generation: config.clock_generation,
            error_estimate: dt_common::time::ErrorEstimate(config.error_estimate),
        })
    }

    /// Answers on these own addresses from now on; more than the programs can hold are left out, the last ones first.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_locals(&mut self, locals: &[IpAddr]) -> Result<(), MapsError> {
        if locals.len() > MAX_LOCALS {
            tracing::warn!(
                given = locals.len(),
                held = MAX_LOCALS,
                "Too many own addresses; the last are not answered on."
            );
        }
        let mut maps = lock(&self.maps);
        let mut config = maps.config()?;
        config.locals = Default::default();
        for (place, local) in config.locals.iter_mut().zip(locals) {
            *place = address_words(*local);
        }
        config.locals_len = locals.len().min(MAX_LOCALS) as u32;
        maps.set_config(&config)
    }

    /// Answers exactly these members, and besides them these prefixes.
    ///
    /// # Errors
    /// A map is full or cannot be written.
    pub fn set_allowed(&mut self, members: &[IpAddr], prefixes: &[IpNet]) -> Result<(), MapsError> {
        let mut maps = lock(&self.maps);
        self.allow.set_members(&mut maps, members)?;
        maps.allow_prefixes(prefixes)
    }

    /// Collects the replies of a peer.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_target(
        &mut self,
        ssid: u16,
        address: IpAddr,
        port: u16,
        pass_every: u32,
    ) -> Result<(), MapsError> {
        let target = Target {
            address: address_words(address),
            port,
            flags: TargetFlags::ACTIVE,
            pass_every,
            corrupt: 0,
            overrun: 0,
        };
        lock(&self.maps).set_target(ssid, &target)
    }

    /// Collects them no longer.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn remove_target(&mut self, ssid: u16) -> Result<(), MapsError> {
        lock(&self.maps).set_target(ssid, &Target::default())
    }

    /// The collector's counts of these targets if any of them rose since the last call: corrupt replies, overruns.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn poll_counts(
        &mut self,
        ssids: impl Iterator<Item = u16>,
    ) -> Result<Vec<(u16, u32, u32)>, MapsError> {
        let maps = lock(&self.maps);
        let counted = (
            maps.counter(Reason::CorruptReply)?,
            maps.counter(Reason::RingFull)?,
        );
        if counted == self.counted {
            return Ok(Vec::new());
        }
        self.counted = counted;
        ssids
            .map(|ssid| {
                maps.target(ssid)
                    .map(|target| (ssid, target.corrupt, target.overrun))
            })
            .collect()
    }

    /// Works on this interface from now on; `neighbour` is somebody on its link who can be asked.
    pub fn use_interface(&mut self, link: &Link, neighbour: Option<IpAddr>, now: MonoNanos) {
        if let Some(interface) = self.interfaces.get_mut(&link.name) {
            interface.add_neighbour(neighbour);
            return;
        }
        let random = self.random.split();
        let interface = Interface::new(link, neighbour, self.settings.request, random, now);
        self.interfaces.insert(link.name.clone(), interface);
    }

    /// Lets the ladders work: timeouts, proofs, commands. To be called every 20 ms while one is not settled.
    pub fn tick(&mut self, now: MonoNanos) {
        let mut maps = lock(&self.maps);
        let mut around = Surroundings {
            maps: &mut maps,
            programs: &mut self.programs,
            net: &mut self.net,
            round_base: self.round_base,
        };
        for interface in self.interfaces.values_mut() {
            interface.tick(&mut around, now);
        }
        drop(maps);
        self.programs.flush_log();
        self.forget_other_versions();
    }

    /// Looks whether interfaces vanished or came back. To be called about once a second.
    pub fn check_links(&mut self, now: MonoNanos) {
        let links = match self.net.links() {
            Ok(links) => links,
            Err(error) => {
                tracing::warn!(%error, "Cannot look after the interfaces.");
                return;
            }
        };
        let mut maps = lock(&self.maps);
        let mut around = Surroundings {
            maps: &mut maps,
            programs: &mut self.programs,
            net: &mut self.net,
            round_base: self.round_base,
        };
        for interface in self.interfaces.values_mut() {
            let link = links.iter().find(|link| link.name == interface.name());
            interface.follow(link, &mut around, now);
        }
    }

    /// All peers behind an interface fell silent: is it us?
    pub fn doubt(&mut self, interface: &str, now: MonoNanos) {
        if let Some(interface) = self.interfaces.get_mut(interface) {
            interface.doubt(now);
        }
    }

    /// Whether every interface knows its rung.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.interfaces.values().all(Interface::is_settled)
    }

    /// The rung of each interface, by name; costs nothing, unlike [`Self::status`].
    pub fn rungs(&self) -> impl Iterator<Item = Rung<'_>> {
        self.interfaces.values().map(|interface| Rung {
            name: interface.name(),
            mode: interface.mode(),
            reason: interface.reason(),
        })
    }

    /// How each interface works, by name; asks the kernel what is attached.
    #[must_use]
    pub fn status(&self) -> Vec<InterfaceStatus> {
        self.interfaces
            .values()
            .map(|interface| interface.status(&self.programs))
            .collect()
    }

    /// The rung of an interface.
    #[must_use]
    pub fn mode(&self, interface: &str) -> Option<Mode> {
        self.interfaces.get(interface).and_then(Interface::mode)
    }

    /// Lets the programs work on for another lease.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn renew_lease(&self) -> Result<(), MapsError> {
        self.extend(self.settings.lease)
    }

    /// The last renewal of a clean stop: until the next agent comes.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn hand_over(&self) -> Result<(), MapsError> {
        self.extend(self.settings.handover)
    }

    /// Takes everything off and removes the pins.
    ///
    /// # Errors
    /// A pin could not be removed.
    pub fn remove(mut self) -> Result<(), PinsError> {
        for (name, _) in std::mem::take(&mut self.interfaces) {
            for hook in Hook::ALL {
                self.programs.detach(&name, hook);
            }
        }
        self.pins.remove_all()
    }

    /// Removes the maps of other versions, once every link was updated: an agent of such a version must find new ones, or
    /// its peers would take counters of long ago for those of now.
    fn forget_other_versions(&mut self) {
        if !self.is_sole_version && !self.interfaces.is_empty() && self.is_settled() {
            self.pins.remove_other_versions();
            self.is_sole_version = true;
        }
    }

    fn extend(&self, by: Duration) -> Result<(), MapsError> {
        let mut maps = lock(&self.maps);
        let mut config = maps.config()?;
        config.lease_until_ns = clock::now().plus(by.as_nanos() as u64).0;
        maps.set_config(&config)
    }

    fn config(settings: &NodeSettings, held: &Config) -> Config {
        let last = with_guest_ports(settings);
        let guests = last.map_or(0, |_| ConfigFlags::GUEST_PORTS);
        Config {
            abi_version: ABI_VERSION,
            flags: guests,
            lease_until_ns: clock::now().plus(settings.lease.as_nanos() as u64).0,
            port: settings.port,
            source_port_first: settings.source_ports.0,
            source_port_last: last.unwrap_or(settings.source_ports.1),
            source_interval_ns: interval_ns(settings.source_pps),
            source_burst_ns: BURST_NS,
            total_interval_ns: interval_ns(settings.total_pps),
            total_burst_ns: BURST_NS,
            ..*held
        }
    }
}

/// The last port of the range with the guests' ports behind our own; none where they do not fit.
fn with_guest_ports(settings: &NodeSettings) -> Option<u16> {
    let (first, own_last) = settings.source_ports;
    let last = own_last.checked_add(MAX_GUESTS * GUEST_PORTS)?;
    let known = u32::from(last - first) < MAX_SOURCE_PORTS;
    // To the programs a request comes before a reply.
    let requests = (own_last..=last).contains(&settings.port);
    (settings.guests && known && !requests).then_some(last)
}

/// Writes the clock where the programs read it.
///
/// # Errors
/// The map cannot be written.
pub fn publish_clock(maps: &SharedMaps, clock: ClockState) -> Result<(), MapsError> {
    let mut maps = lock(maps);
    let mut config = maps.config()?;
    config.clock_offset_ns = clock.offset_ns;
    config.clock_generation = clock.generation;
    config.error_estimate = clock.error_estimate.0;
    maps.set_config(&config)
}

fn lock(maps: &Mutex<NodeMaps>) -> MutexGuard<'_, NodeMaps> {
    // Maps hold no state of this process that a panicking holder could leave half done.
    maps.lock().unwrap_or_else(PoisonError::into_inner)
}

fn interval_ns(pps: u32) -> u64 {
    NANOS_PER_SEC.checked_div(u64::from(pps)).unwrap_or(0)
}

/// A source may run this far ahead of its rate: agents that woke up late catch up.
const BURST_NS: u64 = NANOS_PER_SEC / 10;
