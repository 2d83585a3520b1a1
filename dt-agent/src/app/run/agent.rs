//! The running agent: the one place where membership, datapath, prober and feed meet.

mod telling;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dt_common::wire::DtFlags;
use tokio::sync::mpsc::{self, Receiver, error::TrySendError};
use tokio::time::{Instant, sleep_until};

use crate::adapters::clock::{self, ClockWatch, SharedClock};
use crate::adapters::datapath::ebpf::{FanMaps, Node};
use crate::adapters::datapath::prober::{
    Order, Path, Prober, ProberSettings, WindowBatch, WindowSink,
};
use crate::adapters::datapath::socket::{SocketReflector, Target};
use crate::adapters::metrics::Telemetry;
use crate::adapters::net::Net;
use crate::app::log;
use crate::app::peers::{self, Place, Places};
use crate::app::report::Reporter;
use crate::app::run::choice::Choice;
use crate::app::run::feed::Feed;
use crate::app::station::{self, Ground, StationSettings};
use crate::config::{Detail, Reloaded, RunConfig};
use crate::engine::ladder::{Mode, ModeRequest};
use crate::engine::mesh::{Mesh, MeshSettings, Peer, PeerChange, Slot};
use crate::engine::schedule::Schedule;
use crate::engine::sender::Sender;
use crate::ports::{Discovered, PublishError, Publisher};

/// An agent at work.
pub(super) struct Agent {
    config: RunConfig,
    locals: Vec<IpAddr>,
    mesh: Mesh,
    told: Choice,
    places: Places,
    /// More probes are asked for than an agent may send.
    asks_too_much: bool,
    /// The last peer without a route that was looked for.
    homeless_after: Option<Slot>,
    node: Option<Node>,
    net: Net,
    prober: Prober,
    reflector: Option<SocketReflector>,
    /// Why there are no programs, where they were looked for.
    without_programs: Option<String>,
    /// Why requests that the programs pass up are not answered, if they are not.
    unanswered: Option<String>,
    /// Requests come in beside the programs, and the kernel says when.
    stamps_arrivals: bool,
    reporter: Reporter,
    publisher: Feed,
    windows: Receiver<WindowBatch>,
    closed: Option<WindowBatch>,
    /// Peers that were silent in the windows that are being closed.
    silent: BTreeSet<Slot>,
    /// The interfaces' rungs when peers were last told of them, unless peers came or moved since.
    settled: Option<Vec<Option<Mode>>>,
    due: Due,
    telemetry: Telemetry,
    /// When peers that wait for their interface's proof are probed anyway.
    patience_ends: dt_common::time::MonoNanos,
    _clock: ClockWatch,
}

/// When what comes round is due, in ticks.
struct Due {
    ticks: u64,
    /// Up to which tick all was done; none before the first time.
    done: Option<u64>,
    next: Instant,
}

impl Due {
    fn new() -> Self {
        Self {
            ticks: 0,
            done: None,
            next: Instant::now(),
        }
    }

    /// A tick came; the next one is after `step` of them. None is made up for.
    fn tick(&mut self, step: u32) {
        self.ticks += u64::from(step);
        self.next = (self.next + TICK * step).max(Instant::now());
    }

    /// Whether a period ended since all was done.
    fn every(&self, period: Duration) -> bool {
        let ticks = (period.as_millis() / TICK.as_millis()).max(1) as u64;
        self.done
            .is_none_or(|done| done / ticks != self.ticks / ticks)
    }
}

impl Agent {
    /// Sets everything up; probing begins as soon as the interfaces know their rungs.
    pub(super) fn start(
        config: &RunConfig,
        first: &Discovered,
        telemetry: Telemetry,
    ) -> anyhow::Result<Self> {
        let settings = station_settings(config, station::chance());
        let mut mesh = Mesh::new(MeshSettings {
            name: config.node.clone(),
            family: config.family,
            peer_limit: config.peer_limit,
        });
        let changes = mesh.handle_membership(&first.membership);
        let own = mesh
            .own()
            .cloned()
            .ok_or_else(|| anyhow::anyhow!("node {} is not a member", config.node))?;
        let locals = sending_addresses(&own.addresses);
        anyhow::ensure!(
            !locals.is_empty(),
            "the membership gives node {} no address",
            config.node
        );

        let Ground {
            kernel,
            without_programs,
            clock,
        } = station::prepare(&settings)?;
        let (mut node, ring) = kernel.map_or((None, None), |(node, ring)| (Some(node), Some(ring)));
        if let Some(node) = &mut node {
            node.set_locals(&own.addresses)?;
        }
        let making = node.as_ref().and_then(|node| making(config, node));
        let kernel = ring.map(|ring| (ring, making));
        let shared = clock.clock();
        let paths = station::open_paths(
            &settings,
            &locals,
            kernel,
            &shared,
            config.compare_every > 0,
        )?;
        let (reflector, unanswered) =
            start_reflector(&settings, &own.addresses, &shared, node.is_some())?;
        let (sink, windows) = window_channel();
        let prober = Prober::start(prober_settings(config, settings.seed), paths, sink)?;
        let start_id = station::chance();
        let publisher = Feed::open(config, start_id)?;
        let mut agent = Self {
            reporter: Reporter::new(&own, start_id, config.paths.mix, shared),
            config: config.clone(),
            // Without programs the reflector always does, and nothing ever changes that.
            stamps_arrivals: node.is_none(),
            locals,
            mesh,
            told: Choice::All,
            places: Places::new(),
            asks_too_much: false,
            homeless_after: None,
            node,
            net: Net::open()?,
            prober,
            reflector,
            without_programs,
            unanswered,
            publisher,
            windows,
            closed: None,
            silent: BTreeSet::new(),
            settled: None,
            due: Due::new(),
            telemetry,
            patience_ends: clock::now().plus(PATIENCE_NS),
            _clock: clock,
        };
        agent.note_problems(first);
        agent.take_changes(changes)?;
        agent.tell_membership(first);
        agent.tell_renewed();
        tracing::info!(node = %agent.config.node, peers = agent.places.len(), "Started.");
        Ok(agent)
    }

    /// Waits until there is something for [`Self::work`]. Cancel safe: a batch that arrived is kept.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            closed = self.windows.recv(), if self.closed.is_none() => self.closed = closed,
            () = sleep_until(self.due.next) => {
                let settled = self.node.as_ref().is_none_or(Node::is_settled);
                self.due.tick(if settled { SETTLED_TICKS } else { 1 });
            }
        }
    }

    /// Does what is due.
    pub(super) async fn work(&mut self) -> anyhow::Result<()> {
        if let Some(closed) = self.closed.take() {
            self.publish(&closed).await;
            self.doubt_silent(&closed);
        }
        self.look_after_datapath()?;
        if self.due.every(LINKS) {
            self.place_homeless()?;
            self.tell_state();
        }
        self.due.done = Some(self.due.ticks);
        self.settle_peers()
    }

    /// Takes a new membership.
    pub(super) fn handle_membership(&mut self, discovered: &Discovered) -> anyhow::Result<()> {
        let changes = self.mesh.handle_membership(&discovered.membership);
        self.note_problems(discovered);
        if let Some(own) = self
            .mesh
            .own()
            .filter(|own| sending_addresses(&own.addresses) != self.locals)
        {
            tracing::error!(node = %own.name, "This node's addresses changed; restart the agent to use the new ones.");
        }
        self.take_changes(changes)?;
        self.tell_membership(discovered);
        Ok(())
    }

    /// Takes those of the settings that can change while an agent runs, and names the others.
    pub(super) fn handle_settings(&mut self, newer: &RunConfig) -> anyhow::Result<()> {
        let Reloaded { taken, waiting } = self.config.reload(newer);
        if !waiting.is_empty() {
            let keys = waiting.join(", ");
            tracing::warn!(%keys, "These settings changed and need a restart of the agent.");
        }
        if taken.is_empty() {
            tracing::info!("The settings were read again; none of those in use changed.");
            return Ok(());
        }
        log::set_level(self.config.log);
        tracing::info!(keys = %taken.join(", "), "These settings changed and are in use now.");
        let rate = self.config.rate;
        if taken.contains(&"rate") {
            self.prober.tell(Order::Rate { rate });
            self.warn_of_too_many_probes();
        }
        self.admit()
    }

    /// Sends no more, flushes, and leaves the programs to the next agent.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        tracing::info!("Stopping.");
        let mut prober = std::mem::replace(&mut self.prober, Prober::ended());
        let stopped = tokio::task::spawn_blocking(move || prober.stop());
        // The last windows arrive while the thread ends; it never waits for us.
        stopped.await?;
        while let Ok(closed) = self.windows.try_recv() {
            self.publish(&closed).await;
        }
        let flushed = self.publisher.flush().await;
        if let Some(node) = &self.node {
            node.hand_over()?;
        }
        Ok(flushed?)
    }

    fn take_changes(&mut self, changes: Vec<PeerChange>) -> anyhow::Result<()> {
        self.settled = None;
        self.admit()?;
        for change in changes {
            match change {
                PeerChange::Leave { slot } => self.leave(slot)?,
                PeerChange::Update { slot, peer } => {
                    if let Some(place) = self.places.get_mut(&slot) {
                        place.peer = peer;
                    }
                }
                PeerChange::Join { slot, peer } => self.place(slot, peer)?,
            }
        }
        self.warn_of_too_many_probes();
        self.settle_peers()
    }

    /// Says it once, until it was right again.
    fn warn_of_too_many_probes(&mut self) {
        let asked = self.config.rate * self.places.len() as f64;
        let is_too_much = asked > Schedule::MAX_TOTAL_RATE as f64;
        if is_too_much && !self.asks_too_much {
            let (peers, limit) = (self.places.len(), Schedule::MAX_TOTAL_RATE);
            tracing::warn!(
                rate = self.config.rate,
                peers,
                limit,
                "More probes per second are asked for than an agent sends. The rest is told as not sent; lower the rate."
            );
        }
        self.asks_too_much = is_too_much;
    }

    /// Lets the members be answered, and nobody else but the configured prefixes.
    fn admit(&mut self) -> anyhow::Result<()> {
        let members: Vec<_> = self
            .mesh
            .admitted()
            .flat_map(|member| member.addresses.iter().copied())
            .collect();
        if let Some(node) = &mut self.node {
            node.set_allowed(&members, &self.config.allow)?;
        }
        if let Some(reflector) = &self.reflector {
            reflector.set_allowed(station::allow_list(&members, &self.config.allow));
        }
        Ok(())
    }

    /// Finds the interfaces to peers that had no route, as far as there is one now; some of them at a time.
    fn place_homeless(&mut self) -> anyhow::Result<()> {
        let Some(node) = &mut self.node else {
            // Sockets need no interface: the kernel looks for a route at each probe.
            return Ok(());
        };
        let homeless = peers::next_homeless(&self.places, self.homeless_after, ROUTES_AT_ONCE);
        self.homeless_after = homeless.last().copied();
        if homeless.is_empty() {
            return Ok(());
        }
        let links = self.net.links()?;
        for slot in homeless {
            let Some(place) = self.places.get_mut(&slot) else {
                continue;
            };
            let (net, wanted) = (&mut self.net, &self.config.interfaces);
            let Ok(Some(way)) = peers::way_to(net, &links, wanted, place.peer.address) else {
                continue;
            };
            let (peer, interface) = (&place.peer.name, &way.link.name);
            tracing::info!(%peer, %interface, "There is a way to this peer now.");
            node.use_interface(&way.link, Some(way.next_hop), clock::now());
            place.interface = Some(way.link.name);
            self.settled = None;
        }
        Ok(())
    }

    /// Finds the interface to a peer; it is probed once that interface knows its rung.
    fn place(&mut self, slot: Slot, peer: Peer) -> anyhow::Result<()> {
        let links = self.net.links()?;
        let way = match peers::way_to(&mut self.net, &links, &self.config.interfaces, peer.address)
        {
            Ok(way) => way,
            Err(error) => {
                tracing::warn!(peer = %peer.name, address = %peer.address, %error, "No way to this peer yet.");
                None
            }
        };
        if let Some(node) = &mut self.node {
            let pass_every = self.config.compare_every;
            node.set_target(slot.0, peer.address, peer.port, pass_every)?;
            if let Some(way) = &way {
                node.use_interface(&way.link, Some(way.next_hop), clock::now());
            }
        }
        let interface = way.map(|way| way.link.name);
        self.places.insert(
            slot,
            Place {
                peer,
                interface,
                path: Path::Socket,
                joined: false,
            },
        );
        Ok(())
    }

    fn leave(&mut self, slot: Slot) -> anyhow::Result<()> {
        self.prober.tell(Order::Leave { slot });
        self.places.remove(&slot);
        if let Some(node) = &mut self.node {
            node.remove_target(slot.0)?;
        }
        Ok(())
    }

    /// Ladders, lease, links and the collector's counts.
    fn look_after_datapath(&mut self) -> anyhow::Result<()> {
        let Some(node) = &mut self.node else {
            return Ok(());
        };
        let now = clock::now();
        node.tick(now);
        if self.due.every(COUNTS) {
            let slots = self.places.keys().map(|slot| slot.0);
            for (ssid, corrupt, overrun) in node.poll_counts(slots)? {
                self.prober.tell(Order::Counts {
                    slot: Slot(ssid),
                    corrupt,
                    overrun,
                });
            }
        }
        if self.due.every(LINKS) {
            node.check_links(now);
        }
        if self.due.every(self.config.lease / 3) {
            node.renew_lease()?;
            self.tell_renewed();
        }
        Ok(())
    }

    /// Tells the prober of peers whose interface has settled, and of those whose way changed.
    fn settle_peers(&mut self) -> anyhow::Result<()> {
        let asked_for = self.config.mode;
        let patient = clock::now() < self.patience_ends;
        if let Some(node) = &self.node {
            if node.is_settled() {
                refuse_unreachable(node, asked_for)?;
            } else if patient {
                return Ok(());
            }
        }
        // Looked at up to fifty times a second: nothing that grows with the peers, unless there is something to tell.
        let rungs = self.node.iter().flat_map(Node::rungs);
        let modes: Vec<_> = rungs.map(|rung| rung.mode).collect();
        if self.settled.as_ref() == Some(&modes) {
            return Ok(());
        }
        self.settled = Some(modes);
        for (slot, place) in &mut self.places {
            let mode = match (&self.node, &place.interface) {
                (Some(node), Some(interface)) => node.mode(interface),
                _ => None,
            };
            let path = peers::path_of(mode);
            if !place.joined {
                let Some(local) = self
                    .locals
                    .iter()
                    .position(|local| local.is_ipv4() == place.peer.address.is_ipv4())
                else {
                    continue;
                };
                let target = Target {
                    address: SocketAddr::new(place.peer.address, place.peer.port),
                    local,
                    tlv: Some((0, DtFlags::AGENT)),
                };
                self.prober.tell(Order::Join {
                    slot: *slot,
                    target,
                    path,
                });
                place.joined = true;
            } else if place.path != path {
                self.prober.tell(Order::Via { slot: *slot, path });
            }
            place.path = path;
        }
        self.fit_reflector();
        Ok(())
    }

    /// Where peers are probed by sockets, they are answered by one: then it matters when their requests came.
    fn fit_reflector(&mut self) {
        let by_socket = |place: &Place| place.joined && place.path == Path::Socket;
        let needed = self.node.is_none() || self.places.values().any(by_socket);
        if needed != self.stamps_arrivals
            && let Some(reflector) = &self.reflector
        {
            reflector.stamp_arrivals(needed);
            self.stamps_arrivals = needed;
        }
    }

    async fn publish(&mut self, closed: &WindowBatch) {
        self.tell_windows(closed);
        if matches!(self.publisher, Feed::None) {
            return;
        }
        let now = clock::unix_now_ns();
        let all_peers = self.publisher.wants_all_peers(now);
        let lost = self.publisher.losses();
        let batches = self
            .reporter
            .batches(closed, &self.places, all_peers, lost, now);
        for batch in batches {
            let windows = batch.windows.len();
            let probes = batch.probes.as_ref().map(|block| block.count);
            if let Err(error) = self.publisher.publish(batch).await {
                let is_full = matches!(error, PublishError::Full { .. });
                self.reporter.handle_lost(windows, probes, is_full);
                tracing::error!(
                    "A batch of the feed is lost: {:#}",
                    anyhow::Error::from(error)
                );
            }
        }
    }

    /// All peers of an interface silent for a window: perhaps it is this end that does not work.
    fn doubt_silent(&mut self, closed: &WindowBatch) {
        if let Some(failure) = closed.send_failure {
            tracing::warn!(%failure, "Some probes could not be sent.");
        }
        let Some(node) = &mut self.node else {
            return;
        };
        let silent = closed.windows.iter().filter(|window| {
            window.report.counters.received == 0 && window.report.counters.lost() > 0
        });
        self.silent.extend(silent.map(|window| window.slot));
        if closed.more {
            return;
        }
        for interface in peers::silent_interfaces(&self.places, &self.silent) {
            node.doubt(&interface, clock::now());
        }
        self.silent.clear();
    }

    fn note_problems(&mut self, discovered: &Discovered) {
        for left_out in &discovered.left_out {
            tracing::warn!("{left_out}");
        }
        for problem in self.mesh.problems() {
            tracing::warn!("{problem}");
        }
        if self.mesh.stopped() {
            tracing::warn!("The mesh is told to stop: nobody is probed.");
        }
        self.told.tell(self.mesh.shape(), self.config.peer_limit);
    }
}

/// Who asked for one rung and cannot have it anywhere gets an error, not another rung.
fn refuse_unreachable(node: &Node, asked_for: ModeRequest) -> anyhow::Result<()> {
    let ModeRequest::Only(mode) = asked_for else {
        return Ok(());
    };
    if node.rungs().next().is_none() || node.rungs().any(|rung| rung.mode == Some(mode)) {
        return Ok(());
    }
    let reasons: Vec<_> = node
        .rungs()
        .map(|rung| format!("{}: {}", rung.name, rung.reason))
        .collect();
    anyhow::bail!(
        "mode {} is to be had on no interface: {}",
        mode.name(),
        reasons.join("; ")
    )
}

/// Without programs this node must answer from user space; beside them that only serves what they pass up, and
/// the second value is why it is not served.
fn start_reflector(
    settings: &StationSettings<'_>,
    locals: &[IpAddr],
    clock: &SharedClock,
    beside_programs: bool,
) -> anyhow::Result<(Option<SocketReflector>, Option<String>)> {
    match station::start_reflector(settings, locals, clock, beside_programs) {
        Ok(reflector) => Ok((Some(reflector), None)),
        Err(error) if beside_programs => {
            let reason = format!("requests that the programs pass up are not answered: {error:#}");
            tracing::warn!(%reason, "The reflector is not whole.");
            Ok((None, Some(reason)))
        }
        Err(error) => Err(error),
    }
}

/// One own address of each family to send from.
fn sending_addresses(own: &[IpAddr]) -> Vec<IpAddr> {
    let first = |ipv4: bool| {
        own.iter()
            .copied()
            .find(|address| address.is_ipv4() == ipv4)
    };
    [first(true), first(false)].into_iter().flatten().collect()
}

fn station_settings(config: &RunConfig, seed: u64) -> StationSettings<'_> {
    StationSettings {
        node: &config.node,
        pin_root: &config.pin_root,
        request: config.mode,
        port: config.port,
        paths: config.paths.clone(),
        mark: config.mark,
        rate_limits: config.rate_limits,
        lease: config.lease,
        handover: config.handover,
        seed,
    }
}

/// How probes are made in the kernel; without it all go through sockets.
fn making(config: &RunConfig, node: &Node) -> Option<(Sender, FanMaps)> {
    match node.fan_maps() {
        Ok(maps) => Some((config.sender, maps)),
        Err(error) => {
            tracing::warn!(
                "No probes are made in the kernel: {:#}",
                anyhow::Error::from(error)
            );
            None
        }
    }
}

fn prober_settings(config: &RunConfig, seed: u64) -> ProberSettings {
    ProberSettings {
        rate: config.rate,
        window: config.window,
        deadline: config.timeout,
        compare_every: config.compare_every,
        source_ports: config.paths.port_count(),
        mix: config.paths.mix,
        records: config.detail == Detail::Probes,
        seed,
    }
}

fn window_channel() -> (WindowSink, Receiver<WindowBatch>) {
    let (sender, receiver) = mpsc::channel(WAITING_BATCHES);
    let sink: WindowSink = Box::new(move |batch| {
        sender.try_send(batch).map_err(|error| match error {
            TrySendError::Full(batch) | TrySendError::Closed(batch) => batch,
        })
    });
    (sink, receiver)
}

/// From look to look at ladders and proofs.
const TICK: Duration = Duration::from_millis(20);
/// The same when all interfaces know their rungs, in ticks.
const SETTLED_TICKS: u32 = 5;
const COUNTS: Duration = Duration::from_millis(100);
const LINKS: Duration = Duration::from_secs(1);
/// Routes that are asked for in one look; each is a system call.
const ROUTES_AT_ONCE: usize = 64;
/// How long peers wait for the first proof; a little more than it may take.
const PATIENCE_NS: u64 = 3_500_000_000;
/// Batches that wait for the feed; more are counted as dropped.
const WAITING_BATCHES: usize = 48;
