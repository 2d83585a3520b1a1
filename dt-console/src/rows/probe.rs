//! A probe as a row.

use dt_feed::probes::{Outcome, ProbeRecord};

use super::{Column, Kind, Origin, Peer, Value, mode_name, stamp_name};

/// One probe and what became of it.
#[derive(Clone, Debug)]
pub struct ProbeRow {
    /// Who sent it.
    pub origin: Origin,
    /// To whom.
    pub peer: Peer,
    /// As it was recorded.
    pub record: ProbeRecord,
}

impl ProbeRow {
    /// Whether the network lost it.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        matches!(
            self.record.outcome,
            Outcome::LostForward | Outcome::LostReturn | Outcome::LostUnknown
        )
    }
}

/// How a probe's end is written; as the counters of windows are called.
#[must_use]
pub const fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Received { .. } => "received",
        Outcome::Late { .. } => "late",
        Outcome::LostForward => "lost_forward",
        Outcome::LostReturn => "lost_return",
        Outcome::LostUnknown => "lost_unknown",
        Outcome::CorruptForward => "corrupt_forward",
        Outcome::CorruptReturn => "corrupt_return",
        Outcome::Overrun => "overrun",
        Outcome::Refused => "refused",
        Outcome::NotAdmitted => "not_admitted",
        Outcome::PeerRestarted => "peer_restarted",
        Outcome::Straddled => "straddled",
        Outcome::SendFailed => "send_failed",
        Outcome::Unknown(_) => "unknown",
    }
}

const fn column(
    name: &'static str,
    kind: Kind,
    value: fn(&ProbeRow) -> Value<'_>,
) -> Column<ProbeRow> {
    Column { name, kind, value }
}

/// Columns of probes, in their order in a file.
pub const PROBE_COLUMNS: &[Column<ProbeRow>] = &[
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
    column("sent_unix_us", Kind::Number, |row| {
        row.record.sent_unix_us.into()
    }),
    column("probe_sequence", Kind::Number, |row| {
        row.record.sequence.into()
    }),
    column("outcome", Kind::Text, |row| {
        outcome_name(row.record.outcome).into()
    }),
    column("rtt_ns", Kind::Number, |row| {
        row.record.outcome.rtt_ns().into()
    }),
    column("source_port", Kind::Number, |row| {
        u32::from(row.record.source_port).into()
    }),
    column("hops_forward", Kind::Number, |row| {
        row.record.hops_forward.map(u32::from).into()
    }),
    column("hops_return", Kind::Number, |row| {
        row.record.hops_return.map(u32::from).into()
    }),
    column("mode", Kind::Text, |row| {
        mode_name(&row.record.method).into()
    }),
    column("stamp_t1", Kind::Text, |row| {
        stamp_name(row.record.method.t1()).into()
    }),
    column("stamp_peer", Kind::Text, |row| {
        stamp_name(row.record.method.peer()).into()
    }),
    column("stamp_t4", Kind::Text, |row| {
        stamp_name(row.record.method.t4()).into()
    }),
    column("suspect_reasons", Kind::Number, |row| {
        row.record.suspect_reasons.into()
    }),
    column("dscp", Kind::Number, |row| row.record.class.dscp.into()),
    column("packet_bytes", Kind::Number, |row| {
        row.record.class.packet_bytes.into()
    }),
];
