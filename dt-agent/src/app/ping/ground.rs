//! What probes stand on: the programs of a running agent, programs of `ping`'s own, or sockets alone.
//!
//! A running agent is joined as its guest. Without one the programs are loaded for the time of the run, under a node name
//! with the process id in it, and taken away at the end; what a killed `ping` left is taken away by the next.

mod own;

use std::net::SocketAddr;

use anyhow::Context as _;
use dt_common::map::{self, DEFAULT_MARK, GUEST_PORTS, TargetFlags};
use dt_common::time::MonoNanos;

use self::own::Own;
use super::bell::Bell;
use super::resolve::{Destination, MAX_HOSTS};
use crate::adapters::clock::{self, ClockWatch};
use crate::adapters::datapath::ebpf::{EventRing, Visit, address_words};
use crate::adapters::datapath::prober::{KernelPath, Path, Paths, SocketPath};
use crate::adapters::datapath::socket::{SocketOptions, Target};
use crate::app::{peers, station};
use crate::config::PingConfig;
use crate::engine::ladder::{Mode, ModeRequest};
use crate::engine::mix::Class;

/// See the module.
pub(super) struct Ground {
    base: Base,
    /// The ways that are open.
    pub paths: Paths,
    options: SocketOptions,
    clock: ClockWatch,
    compare: bool,
    look_at: MonoNanos,
    /// The agent's programs do not act on our probes, whatever its maps say.
    distrusted: bool,
}

enum Base {
    Own(Box<Own>),
    Guest(Box<Visit>, String),
    /// With the reason why there is nothing else.
    Sockets(String),
}

impl Ground {
    /// Finds or makes what the hosts can be probed with. May take some seconds, until native XDP is proved.
    pub(super) fn open(
        config: &PingConfig,
        hosts: &[Destination],
        bell: &Bell,
    ) -> anyhow::Result<Self> {
        let asked = config.mode != ModeRequest::Auto;
        if config.mode == ModeRequest::Only(Mode::Socket) {
            return Self::on_sockets(config, hosts, String::from("mode socket was asked for"));
        }
        if hosts.iter().all(|host| host.link.is_none()) {
            anyhow::ensure!(!asked, "packets to this host itself pass no program");
            return Self::on_sockets(config, hosts, String::from("this host itself"));
        }
        match Self::on_programs(config, hosts, bell) {
            Ok(ground) => Ok(ground),
            Err(error) if asked || error.is::<Interrupted>() => Err(error),
            Err(error) => {
                eprintln!("dt-agent: no programs can be used, probes go by sockets: {error:#}");
                Self::on_sockets(config, hosts, format!("{error:#}"))
            }
        }
    }

    fn on_programs(
        config: &PingConfig,
        hosts: &[Destination],
        bell: &Bell,
    ) -> anyhow::Result<Self> {
        let mut options = socket_options(config, hosts);
        if let Some((visit, ring)) = join(config, hosts)? {
            let first = visit.first_port();
            options.ports = (first..).take(options.ports.len()).collect();
            let base = Base::Guest(Box::new(visit), config.node.clone());
            let clock = ClockWatch::start(None, |_| {})?;
            return Self::with_ring(config, base, options, ring, clock);
        }
        if config.source_port.is_none() {
            options.ports = own::free_ports(&options).context("no source ports are free")?;
        }
        let (own, ring, clock) = Own::load(config, &options.ports)?;
        let mut ground = Self::with_ring(config, Base::Own(Box::new(own)), options, ring, clock)?;
        if let Base::Own(own) = &mut ground.base {
            own.settle(config, hosts, bell)?;
        }
        Ok(ground)
    }

    fn with_ring(
        config: &PingConfig,
        base: Base,
        options: SocketOptions,
        ring: EventRing,
        clock: ClockWatch,
    ) -> anyhow::Result<Self> {
        let marked = SocketOptions {
            mark: Some(DEFAULT_MARK),
            ..options.clone()
        };
        let kernel = KernelPath::open(&marked, ring, clock.clock(), config.compare, None)?;
        // The programs take replies to these ports: plain sockets need others.
        let options = SocketOptions {
            ports: vec![0; options.ports.len()],
            ..options
        };
        Ok(Self::new(
            config,
            base,
            Paths::new(Some(kernel), None),
            options,
            clock,
        ))
    }

    fn on_sockets(
        config: &PingConfig,
        hosts: &[Destination],
        reason: String,
    ) -> anyhow::Result<Self> {
        let clock = ClockWatch::start(None, |_| {})?;
        let options = socket_options(config, hosts);
        let socket = SocketPath::open(&options, clock.clock())?;
        let paths = Paths::new(None, Some(socket));
        Ok(Self::new(
            config,
            Base::Sockets(reason),
            paths,
            options,
            clock,
        ))
    }

    fn new(
        config: &PingConfig,
        base: Base,
        paths: Paths,
        options: SocketOptions,
        clock: ClockWatch,
    ) -> Self {
        Self {
            base,
            paths,
            options,
            clock,
            compare: config.compare,
            look_at: MonoNanos(0),
            distrusted: false,
        }
    }

    /// How many source ports there are to take turns with.
    pub(super) fn ports(&self) -> u16 {
        self.options.ports.len() as u16
    }

    /// The session identifier of a host's `turn`th session.
    pub(super) fn ssid(&self, host: u16, turn: u16) -> u16 {
        let index = host + (turn % SSIDS_PER_HOST) * MAX_HOSTS as u16;
        match &self.base {
            Base::Guest(visit, _) => visit.ssid(index),
            Base::Own(own) => own.first_ssid() + index,
            Base::Sockets(_) => own::first_ssid(std::process::id()) + index,
        }
    }

    /// Sends to this host under that identifier, and collects its replies; `slot` is its source port. Without a TLV it gets
    /// plain STAMP.
    pub(super) fn set_target(
        &mut self,
        ssid: u16,
        host: &Destination,
        slot: u16,
        tlv: Option<(u32, u8)>,
    ) -> anyhow::Result<()> {
        let place = |local: &SocketAddr| *local == host.local;
        let target = Target {
            address: host.address,
            local: self.options.locals.iter().position(place).unwrap_or(0),
            tlv,
        };
        let collected = map::Target {
            address: address_words(host.address.ip()),
            port: host.address.port(),
            flags: TargetFlags::ACTIVE | TargetFlags::WAKE,
            pass_every: u32::from(self.compare),
            ..map::Target::default()
        };
        match &mut self.base {
            Base::Guest(visit, _) => visit.set_target(ssid, &collected, slot)?,
            Base::Own(own) => own.set_target(ssid, &collected, slot)?,
            Base::Sockets(_) => {}
        }
        self.paths.set_target(ssid, target)?;
        Ok(())
    }

    /// Sends under this identifier no more.
    pub(super) fn remove_target(&mut self, ssid: u16) -> anyhow::Result<()> {
        match &mut self.base {
            Base::Guest(visit, _) => visit.remove_target(ssid)?,
            Base::Own(own) => own.set_target(ssid, &map::Target::default(), 0)?,
            Base::Sockets(_) => {}
        }
        self.paths.remove_target(ssid);
        Ok(())
    }

    /// What the collector threw away of a target's replies: corrupt ones, and those without room.
    pub(super) fn counts(&self, ssid: u16) -> anyhow::Result<(u32, u32)> {
        Ok(match &self.base {
            Base::Guest(visit, _) => visit.counts(ssid)?,
            Base::Own(own) => own.counts(ssid)?,
            Base::Sockets(_) => (0, 0),
        })
    }

    /// Does what keeps the programs alive; true when it is time to look at the hosts' ways again.
    pub(super) fn tick(&mut self, now: MonoNanos) -> anyhow::Result<bool> {
        if let Base::Own(own) = &mut self.base {
            own.tick(now)?;
        }
        let due = now >= self.look_at;
        if due {
            self.look_at = now.plus(LOOK_NS);
        }
        Ok(due)
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn poll_timeout(&self, now: MonoNanos) -> MonoNanos {
        match &self.base {
            Base::Own(_) => now.plus(own::TICK_NS).min(self.look_at),
            Base::Guest(..) | Base::Sockets(_) => self.look_at,
        }
    }

    /// The way to a host as things are now.
    pub(super) fn path(&mut self, host: &Destination) -> anyhow::Result<Path> {
        let path = peers::path_of(self.mode(host)?);
        if path == Path::Socket && self.paths.socket.is_none() {
            self.paths.open_socket(&self.options, self.clock.clock())?;
        }
        Ok(path)
    }

    /// The rung on which a host is probed.
    pub(super) fn mode(&self, host: &Destination) -> anyhow::Result<Option<Mode>> {
        let Some(link) = &host.link else {
            return Ok(Some(Mode::Socket));
        };
        Ok(match &self.base {
            Base::Guest(visit, _) => {
                let alive = !self.distrusted && visit.is_alive(clock::now())?;
                alive.then(|| visit.mode(link.index)).transpose()?.flatten()
            }
            Base::Own(own) => own.mode(&link.name),
            Base::Sockets(_) => Some(Mode::Socket),
        })
    }

    /// Why a host is probed on its rung.
    pub(super) fn reason(&self, host: &Destination) -> String {
        match &self.base {
            Base::Guest(_, node) => format!("joined the agent of node {node}"),
            Base::Own(own) => own.reason(host),
            Base::Sockets(reason) => reason.clone(),
        }
    }

    /// A probe came back without T1 though a program should have stamped it.
    pub(super) fn distrust(&mut self) {
        if !self.distrusted && matches!(self.base, Base::Guest(..)) {
            eprintln!(
                "dt-agent: the agent's programs do not stamp our probes, perhaps its --mark is not the default; probes go by sockets"
            );
            self.distrusted = true;
            self.look_at = MonoNanos(0);
        }
    }
}

/// A signal came before probing began.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(super) struct Interrupted;

/// Joins the running agent if its programs act on all interfaces that are needed, as asked for.
fn join(config: &PingConfig, hosts: &[Destination]) -> anyhow::Result<Option<(Visit, EventRing)>> {
    let joined = Visit::join(&config.pin_root, &config.node, clock::now())?;
    let Some((visit, ring)) = joined.filter(|_| config.source_port.is_none()) else {
        return Ok(None);
    };
    for link in hosts.iter().filter_map(|host| host.link.as_ref()) {
        let fits = match (visit.mode(link.index)?, config.mode) {
            (None, _) => false,
            (Some(_), ModeRequest::Auto) => true,
            (Some(mode), ModeRequest::Only(asked)) => mode == asked,
        };
        if !fits {
            let mode = config.mode;
            eprintln!(
                "dt-agent: the agent of node {} does not work on {} in mode {mode}; programs are loaded beside it",
                config.node, link.name
            );
            return Ok(None);
        }
    }
    Ok(Some((visit, ring)))
}

fn of_size(payload_bytes: u16) -> Class {
    Class {
        payload_bytes,
        dscp: 0,
    }
}

/// One source port for each host as far as guests have them, so that replies without an identifier find their host.
fn socket_options(config: &PingConfig, hosts: &[Destination]) -> SocketOptions {
    let mut locals: Vec<_> = hosts.iter().map(|host| host.local).collect();
    locals.sort_unstable();
    locals.dedup();
    let ports = match config.source_port {
        Some(port) => vec![port],
        None => vec![0; hosts.len().clamp(1, GUEST_PORTS.into())],
    };
    SocketOptions {
        locals,
        ports,
        rotation: None,
        classes: [config.payload_bytes, 0].map(of_size).to_vec(),
        mark: None,
    }
}

/// Class of probes of the size asked for.
pub(super) const SIZED: u8 = 0;
/// Class of the shortest ones.
pub(super) const SHORTEST: u8 = 1;
/// Each new session of a host has another identifier, so that late replies of the last one are not taken for its own.
const SSIDS_PER_HOST: u16 = 4;
/// From look to look at the hosts' ways.
const LOOK_NS: u64 = 200_000_000;
