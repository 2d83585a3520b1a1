//! `dt-agent reflect`: only answers.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use dt_common::ABI_VERSION;
use tokio::signal::unix::{SignalKind, signal};

use super::peers::path_of;
use super::station::{self, Ground, StationSettings};
use crate::adapters::clock;
use crate::adapters::datapath::ebpf::{InterfaceStatus, Node, NodePins};
use crate::adapters::datapath::prober::Path;
use crate::adapters::datapath::socket::SocketReflector;
use crate::adapters::net::{Link, Net};
use crate::config::{PathConfig, ReflectConfig, SourcePorts};
use crate::engine::ladder::{Mode, ModeRequest};

/// Answers on the given interfaces until a signal, then takes its programs away.
///
/// # Errors
/// An interface is not there, or the mode asked for cannot be had.
pub fn reflect(config: ReflectConfig) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(config))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: ReflectConfig) -> anyhow::Result<()> {
    let mut stop = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut net = Net::open()?;
    let links = config.interfaces.iter().map(|name| {
        net.link(name)
            .with_context(|| format!("no interface {name}"))
    });
    let links: Vec<_> = links.collect::<Result<_, _>>()?;
    let locals = addresses(&mut net, &links)?;
    anyhow::ensure!(
        !locals.is_empty(),
        "the interfaces {} have no address to answer on",
        config.interfaces.join(", ")
    );
    if config.allow.is_empty() {
        println!("Nobody is allowed: every request is refused. Allow sources with --allow CIDR.");
    }
    let settings = station_settings(&config);
    let Ground { kernel, clock, .. } = station::prepare(&settings)?;
    let reflector = station::start_reflector(&settings, &locals, &clock.clock(), kernel.is_some())?;
    reflector.set_allowed(station::allow_list(&[], &config.allow));
    let Some((mut node, _ring)) = kernel else {
        println!("Answering on {} in mode socket.", listed(&locals));
        tokio::select! { _ = stop.recv() => {}, _ = interrupt.recv() => {} }
        return Ok(());
    };
    node.set_locals(&locals)?;
    node.set_allowed(&[], &config.allow)?;
    let answered = tokio::select! {
        result = answer(&mut node, &reflector, &mut net, &links, &config) => result,
        _ = stop.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    node.remove()?;
    answered
}

/// Keeps the lease and lets the ladders work, saying each change.
async fn answer(
    node: &mut Node,
    reflector: &SocketReflector,
    net: &mut Net,
    links: &[Link],
    config: &ReflectConfig,
) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(TICK);
    let mut said: Vec<InterfaceStatus> = Vec::new();
    for ticks in 0_u64.. {
        tick.tick().await;
        let now = clock::now();
        if ticks.is_multiple_of(50) {
            meet_neighbours(node, net, links)?;
            node.check_links(now);
            node.renew_lease()?;
        }
        node.tick(now);
        if !node.is_settled() {
            continue;
        }
        let is_said = node.rungs().eq(said.iter().map(InterfaceStatus::rung));
        if is_said && !ticks.is_multiple_of(50) {
            continue;
        }
        let status = node.status();
        if status != said {
            for one in &status {
                say(one, config)?;
            }
            say_maps(config)?;
            let by_socket = |one: &InterfaceStatus| path_of(one.mode) == Path::Socket;
            reflector.stamp_arrivals(status.iter().any(by_socket));
            said = status;
        }
    }
    Ok(())
}

/// Tells the interfaces who can be asked for a proof. Again and again: at the start nobody may have been heard of yet.
fn meet_neighbours(node: &mut Node, net: &mut Net, links: &[Link]) -> anyhow::Result<()> {
    for link in links {
        let known = net
            .neighbours(link.index)?
            .into_iter()
            .filter(|one| one.mac.is_some());
        node.use_interface(link, None, clock::now());
        for neighbour in known {
            node.use_interface(link, Some(neighbour.address), clock::now());
        }
    }
    Ok(())
}

fn say(status: &InterfaceStatus, config: &ReflectConfig) -> anyhow::Result<()> {
    let mode = status.mode.map_or("none", Mode::name);
    println!(
        "{}: mode {mode}, port {}: {}",
        status.name, config.port, status.reason
    );
    for (hook, program, link) in &status.attached {
        let id = |id: &Option<u32>| id.map_or_else(|| "?".to_owned(), |id| id.to_string());
        println!(
            "  {}: program {}, link {}",
            hook.program(),
            id(program),
            id(link)
        );
    }
    if let (ModeRequest::Only(asked), true) = (
        config.mode,
        status.mode.map(ModeRequest::Only) != Some(config.mode),
    ) {
        anyhow::bail!(
            "mode {} cannot be had on {}: {}",
            asked.name(),
            status.name,
            status.reason
        );
    }
    Ok(())
}

fn say_maps(config: &ReflectConfig) -> anyhow::Result<()> {
    let pins = NodePins::existing(&config.pin_root, &config.node, ABI_VERSION)?;
    let maps = pins.map_ids().into_iter();
    let maps: Vec<_> = maps.map(|(name, id)| format!("{name} {id}")).collect();
    println!("  maps: {}", maps.join(", "));
    Ok(())
}

/// Addresses of the interfaces, and those of `lo` that are no loopback ones: hosts are often addressed there.
fn addresses(net: &mut Net, links: &[Link]) -> anyhow::Result<Vec<IpAddr>> {
    let indices: BTreeSet<_> = links.iter().map(|link| link.index).collect();
    let loopbacks: BTreeSet<_> = net
        .links()?
        .iter()
        .filter(|link| link.loopback)
        .map(|link| link.index)
        .collect();
    let own = net.addresses()?;
    let usable = own
        .iter()
        .filter(|one| !one.is_link_local() && !one.address.is_loopback());
    let found = usable.filter(|one| indices.contains(&one.link) || loopbacks.contains(&one.link));
    Ok(found.map(|one| one.address).collect())
}

fn listed(addresses: &[IpAddr]) -> String {
    addresses
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn station_settings(config: &ReflectConfig) -> StationSettings<'_> {
    StationSettings {
        node: &config.node,
        pin_root: &config.pin_root,
        request: config.mode,
        port: config.port,
        // Nothing is sent from here: an empty range, so that no arrival is taken for a reply.
        paths: PathConfig {
            source_ports: SourcePorts {
                first: u16::MAX,
                last: u16::MAX,
            },
            ..PathConfig::default()
        },
        mark: 0,
        rate_limits: config.rate_limits,
        lease: config.lease,
        handover: config.lease,
        seed: station::chance(),
    }
}

const TICK: Duration = Duration::from_millis(20);
