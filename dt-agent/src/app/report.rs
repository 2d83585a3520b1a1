//! From closed windows to batches of the feed.

mod fit;
mod indices;

use std::net::IpAddr;

use dt_common::time::MonoNanos;
use dt_common::wire::{PROBE_LEN, TlvHeader};
use dt_feed::SCHEMA_VERSION;
use dt_feed::probes::{Outcome as FeedOutcome, ProbeRecord};
use dt_feed::proto::{
    self, AddressFamily, Batch, Clocks, Losses, Method, Mode, PeerState, ProbeClass, StampSource,
    suspect,
};

use self::fit::Part;
use super::peers::Places;
use crate::adapters::clock::{ClockState, SharedClock};
use crate::adapters::datapath::prober::{Path, PeerWindow, WindowBatch};
use crate::engine::mesh::{Member, MemberState, Slot};
use crate::engine::mix::{Class, Mix};
use crate::engine::session::{Outcome, ProbeOutcome};
use crate::engine::window::{Counters, StampSources, WindowReport};
use crate::ports::FeedStatus;
use indices::Indices;

/// Makes batches; knows which peers a reader has been told of.
pub(super) struct Reporter {
    source: String,
    zone: String,
    rack: String,
    instance_group: String,
    start_id: u64,
    sequence: u64,
    indices: Indices,
    told_at_unix_ns: u64,
    losses: Losses,
    lost_on_the_way: Losses,
    mix: Mix,
    clock: SharedClock,
}

impl Reporter {
    pub(super) fn new(own: &Member, start_id: u64, mix: Mix, clock: SharedClock) -> Self {
        Self {
            source: own.name.to_string(),
            zone: own.labels.zone.clone().unwrap_or_default(),
            rack: own.labels.rack.clone().unwrap_or_default(),
            instance_group: own.labels.instance_group.clone().unwrap_or_default(),
            start_id,
            sequence: 0,
            indices: Indices::default(),
            told_at_unix_ns: 0,
            losses: Losses::default(),
            lost_on_the_way: Losses::default(),
            mix,
            clock,
        }
    }

    /// The windows that ended together, in one batch or as many as they need. `all_peers`: a reader may begin with them.
    /// `lost_on_the_way` is what the publisher lost since the start.
    pub(super) fn batches(
        &mut self,
        closed: &WindowBatch,
        places: &Places,
        all_peers: bool,
        lost_on_the_way: Losses,
        now_unix_ns: u64,
    ) -> Vec<Batch> {
        // What was lost may have been the only batch that named a peer.
        let has_lost_more = lost_on_the_way != self.lost_on_the_way;
        self.lost_on_the_way = lost_on_the_way;
        let is_old = now_unix_ns.saturating_sub(self.told_at_unix_ns) >= DICTIONARY_NS;
        if all_peers || has_lost_more || is_old {
            self.indices.forget_told();
            self.told_at_unix_ns = now_unix_ns;
        }
        self.losses.windows_dropped += closed.dropped;
        let frame = self.frame(now_unix_ns);
        let parts = self.parts(closed, places);
        for window in closed.windows.iter().filter(|window| window.last) {
            self.indices.handle_left(window.slot);
        }
        let mut batches = fit::batches(&frame, parts, MAX_BATCH_BYTES);
        for batch in &mut batches {
            batch.sequence = self.sequence;
            self.sequence += 1;
        }
        batches
    }

    /// A batch without its content. Its number is the greatest, so that the right one needs no more room.
    fn frame(&self, now_unix_ns: u64) -> Batch {
        let losses = sum(&self.losses, &self.lost_on_the_way);
        Batch {
            schema_version: SCHEMA_VERSION,
            source: self.source.clone(),
            start_id: self.start_id,
            sequence: u64::MAX,
            closed_unix_ns: now_unix_ns,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            source_zone: self.zone.clone(),
            source_rack: self.rack.clone(),
            source_instance_group: self.instance_group.clone(),
            peers: Vec::new(),
            windows: Vec::new(),
            probes: None,
            losses: (losses != Losses::default()).then_some(losses),
        }
    }

    fn parts(&mut self, closed: &WindowBatch, places: &Places) -> Vec<Part> {
        let clock = self.clock.state();
        let mut parts = Vec::new();
        for window in &closed.windows {
            parts.push(Part {
                peer: self.tell(window.slot, places),
                window: Some(self.window(window, closed, places, &clock)),
                records: self.records(window, closed, places, &clock),
            });
        }
        parts
    }

    /// A batch was lost: what only it carried must be sent again. `probes` is the number of probes in its block, if it had one.
    pub(super) fn handle_lost(
        &mut self,
        batch_windows: usize,
        probes: Option<u32>,
        disk_full: bool,
    ) {
        if disk_full {
            self.losses.batches_disk_full += 1;
        } else {
            self.losses.batches_io_failed += 1;
        }
        self.losses.windows_unwritten += batch_windows as u64;
        self.losses.probe_blocks_unwritten += u64::from(probes.is_some());
        self.losses.probes_lost += u64::from(probes.unwrap_or(0));
        self.indices.forget_told();
    }

    /// A publisher's status with what was lost before it took it.
    pub(super) fn with_own_losses(&self, status: FeedStatus) -> FeedStatus {
        FeedStatus {
            losses: sum(&self.losses, &status.losses),
            ..status
        }
    }

    /// The peer's entry of the dictionary, unless readers have it.
    fn tell(&mut self, slot: Slot, places: &Places) -> Option<proto::Peer> {
        let place = places.get(&slot)?;
        if !self.indices.tell(slot) {
            return None;
        }
        let labels = &place.peer.labels;
        let text = |label: &Option<String>| label.clone().unwrap_or_default();
        let (zone, rack) = (text(&labels.zone), text(&labels.rack));
        let entry = proto::Peer::new(
            self.indices.of(slot),
            &place.peer.name,
            place.peer.address,
            &zone,
            &rack,
        );
        Some(entry.in_group(&text(&labels.instance_group)))
    }

    fn window(
        &self,
        window: &PeerWindow,
        closed: &WindowBatch,
        places: &Places,
        clock: &ClockState,
    ) -> proto::Window {
        let report = &window.report;
        let peer = places.get(&window.slot).map(|place| &place.peer);
        let address = peer.map(|peer| peer.address);
        let reasons = suspect_reasons(report, closed);
        let class = self.class(report.class, address);
        proto::Window {
            peer: self.indices.of(window.slot),
            start_unix_ns: unix_ns(clock, report.start),
            end_unix_ns: unix_ns(clock, report.end),
            method: Some(method(report.stamps, window.path)),
            host_suspect: reasons != 0,
            suspect_reasons: reasons,
            address_family: family(address).into(),
            dscp: class.dscp,
            packet_bytes: class.packet_bytes,
            peer_state: state(peer.map(|peer| peer.state)).into(),
            counters: Some(counters(&report.counters, report.in_flight)),
            rtt: some_histogram(&report.rtt),
            user_rtt: some_histogram(&report.user_rtt),
            residence: residence(report),
            hops_forward: hops(report.hops_forward),
            hops_return: hops(report.hops_return),
            clocks: Some(clocks(report, clock)),
        }
    }

    /// What readers know a class of probes by.
    fn class(&self, class: u8, address: Option<IpAddr>) -> ProbeClass {
        let class = self.mix.classes().get(usize::from(class));
        let Class {
            payload_bytes,
            dscp,
        } = class.copied().unwrap_or_default();
        ProbeClass {
            dscp: Some(dscp.into()),
            packet_bytes: packet_bytes(address, payload_bytes),
        }
    }

    fn records(
        &self,
        window: &PeerWindow,
        closed: &WindowBatch,
        places: &Places,
        clock: &ClockState,
    ) -> Vec<ProbeRecord> {
        if window.records.is_empty() {
            return Vec::new();
        }
        let address = places.get(&window.slot).map(|place| place.peer.address);
        // Of a probe that was lost only the window knows how it would have been measured.
        let of_window = method(window.report.stamps, window.path);
        let method_of = |probe: &ProbeOutcome| {
            if probe.stamps.is_empty() {
                of_window
            } else {
                method(probe.stamps, window.path)
            }
        };
        let reasons = suspect_reasons(&window.report, closed);
        let index = self.indices.of(window.slot);
        window
            .records
            .iter()
            .filter_map(|probe| {
                let class = self.class(probe.class, address);
                record(index, probe, class, method_of(probe), reasons, clock)
            })
            .collect()
    }
}

/// Why the figures of this window are in doubt; the bits of [`suspect`].
pub(super) fn suspect_reasons(report: &WindowReport, closed: &WindowBatch) -> u32 {
    let mut reasons = 0;
    let mut set = |condition: bool, reason: u32| reasons |= if condition { reason } else { 0 };
    set(
        closed.latest_wake_up_ns >= LATE_WAKE_UP_NS,
        suspect::LATE_WAKE_UPS,
    );
    set(report.counters.overrun > 0, suspect::RING_OVERRUN);
    set(report.counters.straddled > 0, suspect::CLOCK_STEP);
    set(report.stamps.is_mixed(), suspect::DATAPATH_CHANGED);
    reasons
}

/// How the times of these stamps were taken; of several sources of one stamp the least exact.
fn method(stamps: StampSources, path: Path) -> Method {
    let by_socket = [StampSources::T4_USER, StampSources::T4_SOCKET];
    let t4 = first_of(
        stamps,
        &[
            (StampSources::T4_USER, StampSource::UserSpace),
            (StampSources::T4_SOCKET, StampSource::SocketSoftware),
            (StampSources::T4_TC, StampSource::TcIngress),
            (StampSources::T4_XDP, StampSource::Xdp),
        ],
    );
    let mode = if by_socket.iter().any(|source| stamps.contains(*source)) {
        Mode::Socket
    } else if stamps.contains(StampSources::T4_TC) {
        Mode::Tc
    } else if stamps.contains(StampSources::T4_XDP) {
        Mode::Xdp
    } else {
        Mode::Unspecified
    };
    let t1 = match path {
        // Nothing came back that could say how its probe was stamped.
        Path::Socket if stamps.is_empty() => StampSource::SocketSoftware,
        Path::Kernel if stamps.is_empty() => StampSource::TcEgress,
        Path::Socket | Path::Kernel => first_of(
            stamps,
            &[
                (StampSources::T1_USER, StampSource::UserSpace),
                (StampSources::T1_SOCKET, StampSource::SocketSoftware),
                (StampSources::T1_PROGRAM, StampSource::TcEgress),
            ],
        ),
    };
    let peer = first_of(
        stamps,
        &[
            (StampSources::PEER_FOREIGN, StampSource::Foreign),
            (StampSources::PEER_SOCKET, StampSource::UserSpace),
            (StampSources::PEER_TC, StampSource::TcIngress),
            (StampSources::PEER_XDP, StampSource::Xdp),
        ],
    );
    Method::of(mode, t1, peer, t4)
}

fn first_of(stamps: StampSources, names: &[(StampSources, StampSource)]) -> StampSource {
    names
        .iter()
        .find(|(source, _)| stamps.contains(*source))
        .map_or(StampSource::Unspecified, |(_, name)| *name)
}

fn counters(counted: &Counters, in_flight: u32) -> proto::Counters {
    proto::Counters {
        asked: counted.asked(),
        sent: counted.sent.into(),
        send_failed: counted.send_failed.into(),
        in_flight: in_flight.into(),
        late: counted.late.into(),
        duplicate_forward: counted.duplicate_forward.into(),
        duplicate_return: counted.duplicate_return.into(),
        reordered: counted.reordered.into(),
        late_after_loss: counted.late_after_loss.into(),
        received: counted.received.into(),
        lost_forward: counted.lost_forward.into(),
        lost_return: counted.lost_return.into(),
        lost_unknown: counted.lost_unknown.into(),
        corrupt_forward: counted.corrupt_forward.into(),
        corrupt_return: counted.corrupt_return.into(),
        overrun: counted.overrun.into(),
        refused: counted.refused.into(),
        not_admitted: counted.not_admitted.into(),
        peer_restarted: counted.peer_restarted.into(),
        straddled: counted.straddled.into(),
        departed: counted.departed.into(),
    }
}

fn clocks(report: &WindowReport, clock: &ClockState) -> Clocks {
    Clocks {
        offset_generation: clock.generation,
        error_bound_local_ns: clock.error_estimate.bound_ns(),
        error_bound_peer_ns: report.peer_error_bound_ns,
        min_forward_ns: report.min_one_way.map(|least| least.forward_ns),
        min_return_ns: report.min_one_way.map(|least| least.return_ns),
    }
}

fn residence(report: &WindowReport) -> Option<proto::Histogram> {
    let spread = &report.residence;
    let (min_ns, max_ns) = (spread.min_ns()?, spread.max_ns()?);
    // Only the extremes and the sum are kept of it; a histogram without buckets says so.
    Some(proto::Histogram {
        count: spread.count().into(),
        min_ns,
        max_ns,
        sum_ns: spread.sum_ns(),
        ..proto::Histogram::default()
    })
}

fn some_histogram(histogram: &dt_feed::Histogram) -> Option<proto::Histogram> {
    (!histogram.is_empty()).then(|| histogram.into())
}

fn hops(hops: crate::engine::window::Hops) -> Option<proto::Hops> {
    hops.last.map(|last| proto::Hops {
        last: last.into(),
        changed: hops.changed,
    })
}

fn state(state: Option<MemberState>) -> PeerState {
    match state {
        Some(MemberState::Alive) => PeerState::Alive,
        Some(MemberState::Restarting) => PeerState::Restarting,
        Some(MemberState::Failed) => PeerState::Failed,
        Some(MemberState::Unsaid) | None => PeerState::Unspecified,
    }
}

fn family(address: Option<IpAddr>) -> AddressFamily {
    match address {
        Some(IpAddr::V4(_)) => AddressFamily::Ipv4,
        Some(IpAddr::V6(_)) => AddressFamily::Ipv6,
        None => AddressFamily::Unspecified,
    }
}

/// Length of the IP packet. What is too short for a TLV to fill it is not filled.
fn packet_bytes(address: Option<IpAddr>, payload_bytes: u16) -> u32 {
    let longer = usize::from(payload_bytes) >= PROBE_LEN + size_of::<TlvHeader>();
    let payload_bytes = if longer {
        payload_bytes
    } else {
        PROBE_LEN as u16
    };
    let ip = if address.is_some_and(|address| address.is_ipv6()) {
        40
    } else {
        20
    };
    ip + 8 + u32::from(payload_bytes)
}

fn unix_ns(clock: &ClockState, at: MonoNanos) -> u64 {
    clock
        .wall(at)
        .unix_nanos_near(crate::adapters::clock::unix_now_ns())
}

/// What was lost here and what was lost on the way; each counts its own kinds of batches.
fn sum(here: &Losses, way: &Losses) -> Losses {
    Losses {
        windows_unwritten: here.windows_unwritten + way.windows_unwritten,
        probe_blocks_unwritten: here.probe_blocks_unwritten + way.probe_blocks_unwritten,
        probes_lost: here.probes_lost + way.probes_lost,
        batches_queue_full: way.batches_queue_full,
        batches_spool_full: way.batches_spool_full,
        batches_rejected: way.batches_rejected,
        batches_spool_damaged: way.batches_spool_damaged,
        ..*here
    }
}

fn record(
    peer: u32,
    probe: &ProbeOutcome,
    class: ProbeClass,
    method: Method,
    reasons: u32,
    clock: &ClockState,
) -> Option<ProbeRecord> {
    let outcome = match (probe.outcome, probe.rtt_ns) {
        (Outcome::Received, Some(rtt_ns)) => FeedOutcome::Received { rtt_ns },
        (Outcome::Late, Some(rtt_ns)) => FeedOutcome::Late { rtt_ns },
        (Outcome::Received | Outcome::Late, None) => FeedOutcome::Straddled,
        (Outcome::LostForward, _) => FeedOutcome::LostForward,
        (Outcome::LostReturn, _) => FeedOutcome::LostReturn,
        (Outcome::LostUnknown, _) => FeedOutcome::LostUnknown,
        (Outcome::CorruptForward, _) => FeedOutcome::CorruptForward,
        (Outcome::CorruptReturn, _) => FeedOutcome::CorruptReturn,
        (Outcome::Overrun, _) => FeedOutcome::Overrun,
        (Outcome::Refused, _) => FeedOutcome::Refused,
        (Outcome::NotAdmitted, _) => FeedOutcome::NotAdmitted,
        (Outcome::PeerRestarted, _) => FeedOutcome::PeerRestarted,
        // A peer that left is of no interest any more.
        (Outcome::Departed, _) => return None,
    };
    Some(ProbeRecord {
        peer,
        sent_unix_us: unix_ns(clock, probe.sent) / 1_000,
        sequence: probe.seq,
        outcome,
        source_port: probe.source_port,
        class,
        hops_forward: probe.hops_forward,
        hops_return: probe.hops_return,
        method,
        suspect_reasons: reasons,
    })
}

/// Longest batch in bytes: a message of Kafka's default limit of 1 MiB, with room for what is around it.
const MAX_BATCH_BYTES: usize = 900_000;
/// The dictionary is repeated at least this often.
const DICTIONARY_NS: u64 = 60_000_000_000;
/// A wake-up this late makes the host suspect: it was starved.
const LATE_WAKE_UP_NS: u64 = 20_000_000;

#[cfg(test)]
mod tests;
