//! Programs that `ping` loads for itself, where no agent runs, and takes away again.

use std::net::UdpSocket;
use std::path::Path as FilePath;
use std::sync::PoisonError;
use std::time::Duration;

use dt_common::ABI_VERSION;
use dt_common::map::{DEFAULT_MARK, FIRST_GUEST_SSID, GUEST_SSIDS, Target};
use dt_common::time::MonoNanos;

use super::super::bell::Bell;
use super::super::resolve::Destination;
use super::{Interrupted, station};
use crate::adapters::clock::{self, ClockState, ClockWatch};
use crate::adapters::datapath::ebpf::{
    EventRing, InterfaceStatus, MapsError, Node, NodePins, NodeSettings, SharedMaps, node_names,
    publish_clock,
};
use crate::adapters::datapath::socket::SocketOptions;
use crate::config::PingConfig;
use crate::engine::ladder::{Mode, ModeRequest};

/// Loaded programs. Dropping them takes them off every interface.
pub(super) struct Own {
    /// Absent only while it is dropped.
    node: Option<Node>,
    maps: SharedMaps,
    first_ssid: u16,
    tick_at: MonoNanos,
    renew_at: MonoNanos,
}

impl Own {
    /// Loads the programs; nothing is attached yet.
    pub(super) fn load(
        config: &PingConfig,
        ports: &[u16],
    ) -> anyhow::Result<(Self, EventRing, ClockWatch)> {
        sweep(&config.pin_root);
        let pid = std::process::id();
        let pins = NodePins::open(&config.pin_root, &format!("{NAME}{pid}"))?;
        let settings = NodeSettings {
            request: config.mode,
            // Nobody is answered: no packet worth answering has port 0.
            port: 0,
            source_ports: (
                ports.first().copied().unwrap_or(0),
                ports.last().copied().unwrap_or(0),
            ),
            guests: false,
            mark: DEFAULT_MARK,
            lease: LEASE,
            handover: LEASE,
            source_pps: 0,
            total_pps: 0,
            seed: station::chance(),
        };
        let (node, ring) = Node::load(pins.clone(), settings).inspect_err(|_| {
            // The cause is what is told; an empty directory is all that may be left.
            let _ = pins.remove_all();
        })?;
        let maps = node.maps();
        let own = Self {
            node: Some(node),
            maps: maps.clone(),
            first_ssid: first_ssid(pid),
            tick_at: MonoNanos(0),
            renew_at: MonoNanos(0),
        };
        let clock = ClockWatch::start(None, move |state: ClockState| {
            if let Err(error) = publish_clock(&maps, state) {
                tracing::error!(%error, "The programs do not hear of the clock.");
            }
        })?;
        Ok((own, ring, clock))
    }

    /// Attaches the programs on the way to all hosts and waits until each interface knows its rung.
    pub(super) fn settle(
        &mut self,
        config: &PingConfig,
        hosts: &[Destination],
        bell: &Bell,
    ) -> anyhow::Result<()> {
        let Some(node) = &mut self.node else {
            return Ok(());
        };
        for host in hosts {
            if let Some(link) = &host.link {
                node.use_interface(link, Some(host.next_hop), clock::now());
            }
        }
        let patience_ends = clock::now().plus(PATIENCE_NS);
        loop {
            let now = clock::now();
            node.tick(now);
            if node.is_settled() || now >= patience_ends {
                break;
            }
            if bell.wait(now.plus(STEP_NS))? {
                return Err(Interrupted.into());
            }
        }
        check(config.mode, &node.status())
    }

    pub(super) fn tick(&mut self, now: MonoNanos) -> anyhow::Result<()> {
        let Some(node) = self.node.as_mut().filter(|_| now >= self.tick_at) else {
            return Ok(());
        };
        self.tick_at = now.plus(TICK_NS);
        node.tick(now);
        if now >= self.renew_at {
            self.renew_at = now.plus(RENEW_NS);
            node.check_links(now);
            node.renew_lease()?;
        }
        Ok(())
    }

    pub(super) const fn first_ssid(&self) -> u16 {
        self.first_ssid
    }

    pub(super) fn mode(&self, interface: &str) -> Option<Mode> {
        self.node.as_ref()?.mode(interface)
    }

    pub(super) fn reason(&self, host: &Destination) -> String {
        let status = self.node.as_ref().map(Node::status).unwrap_or_default();
        let name = host.link.as_ref().map(|link| link.name.as_str());
        let found = status
            .into_iter()
            .find(|one| Some(one.name.as_str()) == name);
        found.map_or_else(|| String::from("this host itself"), |one| one.reason)
    }

    pub(super) fn set_target(
        &self,
        ssid: u16,
        target: &Target,
        slot: u16,
    ) -> Result<(), MapsError> {
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        maps.set_target(ssid, target)?;
        if target.flags != 0 {
            maps.set_port_owner(slot, ssid)?;
        }
        Ok(())
    }

    pub(super) fn counts(&self, ssid: u16) -> Result<(u32, u32), MapsError> {
        let maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let target = maps.target(ssid)?;
        Ok((target.corrupt, target.overrun))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.node.take().map(Node::remove) {
            eprintln!("dt-agent: {:#}", anyhow::Error::from(error));
        }
    }
}

/// The first identifier of a process without an agent's guest number: reflectors know a sender by its address and
/// identifier, so two that run at once should differ.
pub(super) fn first_ssid(pid: u32) -> u16 {
    let place = pid.wrapping_mul(0x9e37_79b9) >> 16;
    1 + (place % u32::from(FIRST_GUEST_SSID - GUEST_SSIDS)) as u16
}

/// As many ports in a row as the options ask for that nobody has on any of the addresses.
pub(super) fn free_ports(options: &SocketOptions) -> Option<Vec<u16>> {
    let count = options.ports.len() as u16;
    let tries = 0..PORT_PLACES;
    let places = tries.map(|one| (std::process::id().wrapping_add(one) % PORT_PLACES) as u16);
    let free = |port: u16| {
        let mut locals = options.locals.iter();
        locals.all(|local| {
            let mut local = *local;
            local.set_port(port);
            UdpSocket::bind(local).is_ok()
        })
    };
    places
        .map(|place| FIRST_PORT + place * PORTS_EACH)
        .map(|first| (first..first + count).collect::<Vec<_>>())
        .find(|ports| ports.iter().all(|port| free(*port)))
}

/// Who asked for one rung gets it everywhere, or an error.
fn check(request: ModeRequest, status: &[InterfaceStatus]) -> anyhow::Result<()> {
    let ModeRequest::Only(asked) = request else {
        return Ok(());
    };
    match status.iter().find(|one| one.mode != Some(asked)) {
        Some(one) => anyhow::bail!(
            "mode {} cannot be had on {}: {}",
            asked.name(),
            one.name,
            one.reason
        ),
        None => Ok(()),
    }
}

/// Takes away what killed processes left: their names tell, and nobody holds their locks.
fn sweep(root: &FilePath) {
    for node in node_names(root) {
        let Some(pid) = node
            .strip_prefix(NAME)
            .and_then(|pid| pid.parse::<u32>().ok())
        else {
            continue;
        };
        if FilePath::new("/proc").join(pid.to_string()).exists() {
            continue;
        }
        let swept = NodePins::existing(root, &node, ABI_VERSION)
            .and_then(|pins| pins.lock().and_then(|_lock| pins.remove_all()));
        if let Err(error) = swept {
            tracing::debug!(%error, node, "Pins of an ended ping stay.");
        }
    }
}

/// Names of nodes that are only a `ping`, before the process id.
const NAME: &str = "ping-";
/// From look to look at ladders and proofs.
pub(super) const TICK_NS: u64 = 20_000_000;
/// The same while one waits for them.
const STEP_NS: u64 = 5_000_000;
const RENEW_NS: u64 = 1_000_000_000;
/// A killed process stops stamping after this time.
const LEASE: Duration = Duration::from_secs(10);
/// A little more than the first proof may take.
const PATIENCE_NS: u64 = 3_500_000_000;
/// Above the kernel's own choice of ports and the agent's usual ones.
const FIRST_PORT: u16 = 61_104;
const PORTS_EACH: u16 = 16;
const PORT_PLACES: u32 = 256;
