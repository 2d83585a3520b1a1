//! A window as a row.

use dt_feed::Histogram;
use dt_feed::histogram::HistogramError;
use dt_feed::proto::{AddressFamily, Clocks, Counters, Hops, Method, PeerState, Window};

use super::{Column, Kind, Origin, Part, Peer, Value, buckets, mode_name, stamp_name};

/// What one node counted and timed of another in a span of time.
#[derive(Clone, Debug)]
pub struct WindowRow {
    /// Who measured.
    pub origin: Origin,
    /// Who was measured.
    pub peer: Peer,
    /// First instant, ns unix.
    pub start_unix_ns: u64,
    /// First instant after it, ns unix.
    pub end_unix_ns: u64,
    /// What was counted.
    pub counters: Counters,
    /// Round trip times, ns.
    pub rtt: Histogram,
    /// The host distorted the figures.
    pub is_suspect: bool,
    user_rtt: Histogram,
    /// Count, sum and extremes; agents of this version keep no buckets of it.
    residence: dt_feed::proto::Histogram,
    residence_buckets: Histogram,
    method: Method,
    suspect_reasons: u32,
    peer_state: PeerState,
    family: AddressFamily,
    dscp: Option<u32>,
    packet_bytes: u32,
    hops_forward: Option<Hops>,
    hops_return: Option<Hops>,
    clocks: Clocks,
}

impl WindowRow {
    /// Code point and length of its probes, as in the feed.
    #[must_use]
    pub const fn class(&self) -> (Option<u32>, u32) {
        (self.dscp, self.packet_bytes)
    }

    /// The row of a window.
    ///
    /// # Errors
    ///
    /// When one of its histograms is none.
    pub fn new(origin: Origin, peer: Peer, window: &Window) -> Result<Self, HistogramError> {
        let histogram = |message: &Option<dt_feed::proto::Histogram>| {
            let message = message.as_ref();
            message.map_or(Ok(Histogram::new()), Histogram::try_from)
        };
        Ok(Self {
            origin,
            peer,
            start_unix_ns: window.start_unix_ns,
            end_unix_ns: window.end_unix_ns,
            counters: window.counters.unwrap_or_default(),
            rtt: histogram(&window.rtt)?,
            is_suspect: window.host_suspect,
            user_rtt: histogram(&window.user_rtt)?,
            residence_buckets: histogram(&with_buckets(window.residence.as_ref()))?,
            residence: window.residence.clone().unwrap_or_default(),
            method: window.method.unwrap_or_default(),
            suspect_reasons: window.suspect_reasons,
            peer_state: window.peer_state(),
            family: window.address_family(),
            dscp: window.dscp,
            packet_bytes: window.packet_bytes,
            hops_forward: window.hops_forward,
            hops_return: window.hops_return,
            clocks: window.clocks.unwrap_or_default(),
        })
    }

    /// Name of the state in which the membership saw the peer.
    #[must_use]
    pub const fn peer_state(&self) -> Option<&'static str> {
        match self.peer_state {
            PeerState::Unspecified => None,
            PeerState::Alive => Some("alive"),
            PeerState::Restarting => Some("restarting"),
            PeerState::Failed => Some("failed"),
        }
    }

    /// Name of the mode in which it was measured.
    #[must_use]
    pub fn mode(&self) -> Option<&'static str> {
        mode_name(&self.method)
    }

    const fn family(&self) -> Option<u32> {
        match self.family {
            AddressFamily::Unspecified => None,
            AddressFamily::Ipv4 => Some(4),
            AddressFamily::Ipv6 => Some(6),
        }
    }
}

/// A histogram that has buckets, if it has.
fn with_buckets(message: Option<&dt_feed::proto::Histogram>) -> Option<dt_feed::proto::Histogram> {
    message
        .filter(|message| !message.bucket_deltas.is_empty())
        .cloned()
}

/// One of a message's extremes, which mean nothing without values.
fn extreme(of: &dt_feed::proto::Histogram, ns: u64) -> Option<u64> {
    (of.count > 0).then_some(ns)
}

const fn column(
    name: &'static str,
    kind: Kind,
    value: fn(&WindowRow) -> Value<'_>,
) -> Column<WindowRow> {
    Column { name, kind, value }
}

/// Columns of windows, in their order in a file.
pub const WINDOW_COLUMNS: &[Column<WindowRow>] = &[
    column("source", Kind::Text, |row| (&*row.origin.source).into()),
    column("source_zone", Kind::Text, |row| {
        (&*row.origin.labels.zone).into()
    }),
    column("source_rack", Kind::Text, |row| {
        (&*row.origin.labels.rack).into()
    }),
    column("source_instance_group", Kind::Text, |row| {
        (&*row.origin.labels.instance_group).into()
    }),
    column("start_id", Kind::Text, |row| row.origin.start_id()),
    column("batch_sequence", Kind::Number, |row| {
        row.origin.sequence.into()
    }),
    column("peer", Kind::Text, |row| row.peer.name()),
    column("peer_zone", Kind::Text, |row| {
        row.peer.label(|labels| &labels.zone)
    }),
    column("peer_rack", Kind::Text, |row| {
        row.peer.label(|labels| &labels.rack)
    }),
    column("peer_instance_group", Kind::Text, |row| {
        row.peer.label(|labels| &labels.instance_group)
    }),
    column("peer_index", Kind::Number, |row| row.peer.index.into()),
    column("peer_address", Kind::Text, |row| row.peer.address()),
    column("start_unix_ns", Kind::Number, |row| {
        row.start_unix_ns.into()
    }),
    column("end_unix_ns", Kind::Number, |row| row.end_unix_ns.into()),
    column("mode", Kind::Text, |row| row.mode().into()),
    column("stamp_t1", Kind::Text, |row| {
        stamp_name(row.method.t1()).into()
    }),
    column("stamp_peer", Kind::Text, |row| {
        stamp_name(row.method.peer()).into()
    }),
    column("stamp_t4", Kind::Text, |row| {
        stamp_name(row.method.t4()).into()
    }),
    column("host_suspect", Kind::Flag, |row| row.is_suspect.into()),
    column("suspect_reasons", Kind::Number, |row| {
        row.suspect_reasons.into()
    }),
    column("peer_state", Kind::Text, |row| row.peer_state().into()),
    column("address_family", Kind::Number, |row| row.family().into()),
    column("dscp", Kind::Number, |row| row.dscp.into()),
    column("packet_bytes", Kind::Number, |row| row.packet_bytes.into()),
    column("asked", Kind::Number, |row| row.counters.asked.into()),
    column("sent", Kind::Number, |row| row.counters.sent.into()),
    column("send_failed", Kind::Number, |row| {
        row.counters.send_failed.into()
    }),
    column("in_flight", Kind::Number, |row| {
        row.counters.in_flight.into()
    }),
    column("received", Kind::Number, |row| row.counters.received.into()),
    column("lost_forward", Kind::Number, |row| {
        row.counters.lost_forward.into()
    }),
    column("lost_return", Kind::Number, |row| {
        row.counters.lost_return.into()
    }),
    column("lost_unknown", Kind::Number, |row| {
        row.counters.lost_unknown.into()
    }),
    column("late", Kind::Number, |row| row.counters.late.into()),
    column("corrupt_forward", Kind::Number, |row| {
        row.counters.corrupt_forward.into()
    }),
    column("corrupt_return", Kind::Number, |row| {
        row.counters.corrupt_return.into()
    }),
    column("overrun", Kind::Number, |row| row.counters.overrun.into()),
    column("refused", Kind::Number, |row| row.counters.refused.into()),
    column("not_admitted", Kind::Number, |row| {
        row.counters.not_admitted.into()
    }),
    column("peer_restarted", Kind::Number, |row| {
        row.counters.peer_restarted.into()
    }),
    column("departed", Kind::Number, |row| row.counters.departed.into()),
    column("straddled", Kind::Number, |row| {
        row.counters.straddled.into()
    }),
    column("late_after_loss", Kind::Number, |row| {
        row.counters.late_after_loss.into()
    }),
    column("duplicate_forward", Kind::Number, |row| {
        row.counters.duplicate_forward.into()
    }),
    column("duplicate_return", Kind::Number, |row| {
        row.counters.duplicate_return.into()
    }),
    column("reordered", Kind::Number, |row| {
        row.counters.reordered.into()
    }),
    column("rtt_count", Kind::Number, |row| row.rtt.count().into()),
    column("rtt_sum_ns", Kind::Number, |row| row.rtt.sum().into()),
    column("rtt_min_ns", Kind::Number, |row| row.rtt.min().into()),
    column("rtt_p50_ns", Kind::Number, |row| {
        row.rtt.quantile(0.5).into()
    }),
    column("rtt_p99_ns", Kind::Number, |row| {
        row.rtt.quantile(0.99).into()
    }),
    column("rtt_max_ns", Kind::Number, |row| row.rtt.max().into()),
    column("rtt_bucket_first_ns", Kind::List, |row| {
        buckets(&row.rtt, Part::First)
    }),
    column("rtt_bucket_last_ns", Kind::List, |row| {
        buckets(&row.rtt, Part::Last)
    }),
    column("rtt_bucket_count", Kind::List, |row| {
        buckets(&row.rtt, Part::Count)
    }),
    column("user_rtt_count", Kind::Number, |row| {
        row.user_rtt.count().into()
    }),
    column("user_rtt_sum_ns", Kind::Number, |row| {
        row.user_rtt.sum().into()
    }),
    column("user_rtt_min_ns", Kind::Number, |row| {
        row.user_rtt.min().into()
    }),
    column("user_rtt_p50_ns", Kind::Number, |row| {
        row.user_rtt.quantile(0.5).into()
    }),
    column("user_rtt_p99_ns", Kind::Number, |row| {
        row.user_rtt.quantile(0.99).into()
    }),
    column("user_rtt_max_ns", Kind::Number, |row| {
        row.user_rtt.max().into()
    }),
    column("user_rtt_bucket_first_ns", Kind::List, |row| {
        buckets(&row.user_rtt, Part::First)
    }),
    column("user_rtt_bucket_last_ns", Kind::List, |row| {
        buckets(&row.user_rtt, Part::Last)
    }),
    column("user_rtt_bucket_count", Kind::List, |row| {
        buckets(&row.user_rtt, Part::Count)
    }),
    column("residence_count", Kind::Number, |row| {
        row.residence.count.into()
    }),
    column("residence_sum_ns", Kind::Number, |row| {
        row.residence.sum_ns.into()
    }),
    column("residence_min_ns", Kind::Number, |row| {
        extreme(&row.residence, row.residence.min_ns).into()
    }),
    column("residence_p50_ns", Kind::Number, |row| {
        row.residence_buckets.quantile(0.5).into()
    }),
    column("residence_p99_ns", Kind::Number, |row| {
        row.residence_buckets.quantile(0.99).into()
    }),
    column("residence_max_ns", Kind::Number, |row| {
        extreme(&row.residence, row.residence.max_ns).into()
    }),
    column("residence_bucket_first_ns", Kind::List, |row| {
        buckets(&row.residence_buckets, Part::First)
    }),
    column("residence_bucket_last_ns", Kind::List, |row| {
        buckets(&row.residence_buckets, Part::Last)
    }),
    column("residence_bucket_count", Kind::List, |row| {
        buckets(&row.residence_buckets, Part::Count)
    }),
    column("hops_forward", Kind::Number, |row| {
        row.hops_forward.map(|hops| hops.last).into()
    }),
    column("hops_forward_changed", Kind::Flag, |row| {
        row.hops_forward.map(|hops| hops.changed).into()
    }),
    column("hops_return", Kind::Number, |row| {
        row.hops_return.map(|hops| hops.last).into()
    }),
    column("hops_return_changed", Kind::Flag, |row| {
        row.hops_return.map(|hops| hops.changed).into()
    }),
    column("clock_generation", Kind::Number, |row| {
        row.clocks.offset_generation.into()
    }),
    column("clock_error_local_ns", Kind::Number, |row| {
        row.clocks.error_bound_local_ns.into()
    }),
    column("clock_error_peer_ns", Kind::Number, |row| {
        row.clocks.error_bound_peer_ns.into()
    }),
    column("min_forward_ns", Kind::Number, |row| {
        row.clocks.min_forward_ns.into()
    }),
    column("min_return_ns", Kind::Number, |row| {
        row.clocks.min_return_ns.into()
    }),
    column("agent_version", Kind::Text, |row| {
        (&*row.origin.agent_version).into()
    }),
];
