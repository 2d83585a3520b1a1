//! Puts the datapath of a node together: programs, sockets, prober, user-space reflector.

use std::net::{IpAddr, SocketAddr};
use std::path::Path as FilePath;
use std::time::Duration;

use dt_common::map::Allowed;
use ipnet::IpNet;

use crate::adapters::clock::{self, ClockState, ClockWatch, SharedClock};
use crate::adapters::datapath::ebpf::{
    EventRing, FanMaps, Node, NodeError, NodePins, NodeSettings, publish_clock,
};
use crate::adapters::datapath::prober::{KernelPath, Paths, SocketPath};
use crate::adapters::datapath::socket::{ReflectorOptions, SocketOptions, SocketReflector};
use crate::config::{PathConfig, RateLimits, RotatingSourcePorts};
use crate::engine::ladder::{Mode, ModeRequest};
use crate::engine::random::Random;
use crate::engine::reflector::{AllowList, Policy, Rate};
use crate::engine::rotation::{RotatingPorts, Rotation};
use crate::engine::sender::Sender;

/// What a station needs to know, whichever command builds it.
#[derive(Clone, Debug)]
pub(super) struct StationSettings<'a> {
    pub node: &'a str,
    pub pin_root: &'a FilePath,
    pub request: ModeRequest,
    pub port: u16,
    pub paths: PathConfig,
    pub mark: u32,
    pub rate_limits: RateLimits,
    pub lease: Duration,
    pub handover: Duration,
    pub seed: u64,
}

/// The programs if they are to be had, and the clock that they and the sockets share.
pub(super) struct Ground {
    pub kernel: Option<(Node, EventRing)>,
    /// Why there are no programs, where there are none though they were looked for.
    pub without_programs: Option<String>,
    pub clock: ClockWatch,
}

/// Loads the programs and starts following the clock.
///
/// # Errors
/// The programs cannot be had though they were asked for, or another agent has this node, or the clock cannot be followed.
pub(super) fn prepare(settings: &StationSettings<'_>) -> anyhow::Result<Ground> {
    let mut without_programs = None;
    let kernel = match load(settings) {
        Ok(kernel) => kernel,
        Err(error) if settings.request == ModeRequest::Auto && !error.is_busy() => {
            let reason = format!("{:#}", anyhow::Error::from(error));
            tracing::warn!("No BPF on this node, probes go by sockets: {reason}");
            without_programs = Some(reason);
            None
        }
        Err(error) => return Err(error.into()),
    };
    let clock = match &kernel {
        Some((node, _)) => {
            let maps = node.maps();
            let published = Node::published_clock(&node.held_config()?);
            ClockWatch::start(published, move |state: ClockState| {
                if let Err(error) = publish_clock(&maps, state) {
                    tracing::error!(%error, "The programs do not hear of the clock.");
                }
            })?
        }
        None => ClockWatch::start(None, |_| {})?,
    };
    Ok(Ground {
        kernel,
        without_programs,
        clock,
    })
}

fn load(settings: &StationSettings<'_>) -> Result<Option<(Node, EventRing)>, NodeError> {
    if settings.request == ModeRequest::Only(Mode::Socket) {
        remove_leftovers(settings)?;
        return Ok(None);
    }
    let pins = NodePins::open(settings.pin_root, settings.node)?;
    let ports = settings.paths.all_ports();
    let node = NodeSettings {
        request: settings.request,
        port: settings.port,
        source_ports: (ports.first, ports.last),
        guests: settings.mark != 0,
        mark: settings.mark,
        lease: settings.lease,
        handover: settings.handover,
        source_pps: settings.rate_limits.source_pps,
        total_pps: settings.rate_limits.total_pps,
        seed: settings.seed,
    };
    Node::load(pins, node).map(Some)
}

/// Takes away the programs of an earlier agent, which would collect replies that nobody reads.
fn remove_leftovers(settings: &StationSettings<'_>) -> Result<(), NodeError> {
    let pins = NodePins::existing(settings.pin_root, settings.node, dt_common::ABI_VERSION)?;
    if !pins.exist() {
        return Ok(());
    }
    let _lock = pins.lock()?;
    pins.remove_all()?;
    tracing::info!(
        node = settings.node,
        "Removed the programs that an earlier agent left."
    );
    Ok(())
}

/// Opens the ways that probes can take.
///
/// # Errors
/// A socket is not to be had.
pub(super) fn open_paths(
    settings: &StationSettings<'_>,
    locals: &[IpAddr],
    kernel: Option<(EventRing, Option<(Sender, FanMaps)>)>,
    clock: &SharedClock,
    compare: bool,
) -> anyhow::Result<Paths> {
    let mut options = SocketOptions {
        locals: locals
            .iter()
            .map(|local| SocketAddr::new(*local, 0))
            .collect(),
        ports: (settings.paths.source_ports.first..=settings.paths.source_ports.last).collect(),
        rotation: rotation(settings),
        classes: settings.paths.mix.classes().to_vec(),
        mark: kernel.is_some().then_some(settings.mark),
    };
    let kernel = kernel
        .map(|(ring, making)| KernelPath::open(&options, ring, clock.clone(), compare, making))
        .transpose()?;
    if let Some(kernel) = kernel {
        // The configured ports are the programs': an interface without them sends from others.
        options.ports = vec![0; options.ports.len()];
        options.rotation = options.rotation.map(Rotation::anywhere);
        options.mark = None;
        return Ok(Paths::with_spare(kernel, options, clock.clone()));
    }
    let socket = SocketPath::open(&options, clock.clone())?;
    Ok(Paths::new(None, Some(socket)))
}

fn rotation(settings: &StationSettings<'_>) -> Option<Rotation> {
    let RotatingSourcePorts { count, every } = settings.paths.rotating?;
    let ports = RotatingPorts {
        first: settings.paths.source_ports.last.saturating_add(1),
        count,
        every_ns: every.as_nanos() as u64,
    };
    let mut random = Random::new(settings.seed.rotate_left(31));
    Some(Rotation::new(ports, &mut random, clock::now()))
}

/// Starts answering from user space: everything in `socket` mode, or beside programs what they pass up.
///
/// # Errors
/// The port is taken, or needs a privilege.
pub(super) fn start_reflector(
    settings: &StationSettings<'_>,
    locals: &[IpAddr],
    clock: &SharedClock,
    beside_programs: bool,
) -> anyhow::Result<SocketReflector> {
    let rate = |pps: u32| Rate {
        interval_ns: 1_000_000_000_u64.checked_div(pps.into()).unwrap_or(0),
        burst_ns: 100_000_000,
    };
    let options = ReflectorOptions {
        locals: locals
            .iter()
            .map(|local| SocketAddr::new(*local, settings.port))
            .collect(),
        policy: Policy {
            port: settings.port,
            allow_all: false,
            allow_loopback: false,
            stateless: false,
            source_rate: rate(settings.rate_limits.source_pps),
            total_rate: rate(settings.rate_limits.total_pps),
        },
        random: Random::new(settings.seed.rotate_left(17)),
    };
    Ok(if beside_programs {
        SocketReflector::start_beside_programs(&options, clock.clone())?
    } else {
        SocketReflector::start(&options, clock.clone())?
    })
}

/// The allow-list of the user-space reflector; who finds no room is not answered there, and that is said.
pub(super) fn allow_list(members: &[IpAddr], prefixes: &[IpNet]) -> AllowList {
    let mut list = AllowList::default();
    let mut left_out = 0_usize;
    for (place, member) in members.iter().enumerate() {
        left_out += usize::from(
            list.allow(
                *member,
                Allowed {
                    member: place as u32,
                    flags: 0,
                },
            )
            .is_err(),
        );
    }
    for prefix in prefixes {
        let allowed = Allowed {
            member: Allowed::NO_MEMBER,
            flags: 0,
        };
        left_out += usize::from(list.allow_prefix(*prefix, allowed).is_err());
    }
    if left_out > 0 {
        tracing::error!(
            left_out,
            "The allow-list of the user-space reflector is full."
        );
    }
    list
}

/// A number that differs at each start.
pub(super) fn chance() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // The standard library seeds this from the kernel's random source.
    RandomState::new().hash_one(std::process::id())
}
