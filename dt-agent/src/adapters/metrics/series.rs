//! Which series there are, and in which format they are written.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::EncodeMetric as _;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, NativeHistogram, NativeHistogramBuckets,
    prometheus_protobuf, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::process::ProcessCost;
use super::{SourceState, Status, Telemetry};
use crate::build;
use crate::engine::ladder::Mode;
use crate::engine::mesh::MemberState;
use crate::engine::rollup::{NATIVE_SCHEMA, Native, Place, Totals, classic};
use crate::engine::session::Outcome;

/// How series are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// Prometheus' protobuf, the only one with native histograms.
    Protobuf,
    /// The text of OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' text, 0.0.4.
    Text,
}

impl Format {
    /// What the header `Content-Type` says of it.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The one that a header `Accept` likes best; text for whoever says nothing that we know (RFC 9110, 12.5.1).
    #[must_use]
    pub fn accepted(header: Option<&str>) -> Self {
        let mut best = (Self::Text, 0.0);
        for part in header.unwrap_or_default().split(',') {
            let mut parameters = part.split(';').map(str::trim);
            let media = parameters.next().unwrap_or_default();
            let (mut weight, mut is_known) = (1.0_f32, true);
            for parameter in parameters {
                match parameter.split_once('=') {
                    Some(("q", value)) => weight = value.parse().unwrap_or(0.0),
                    Some(("proto", value)) => {
                        is_known &= value == "io.prometheus.client.MetricFamily";
                    }
                    Some(("encoding", value)) => is_known &= value == "delimited",
                    _ => {}
                }
            }
            let format = match media.to_ascii_lowercase().as_str() {
                "application/vnd.google.protobuf" if is_known => Self::Protobuf,
                "application/openmetrics-text" => Self::OpenMetrics,
                "text/plain" | "text/*" | "*/*" => Self::Text,
                _ => continue,
            };
            if weight > best.1 {
                best = (format, weight);
            }
        }
        best.0
    }
}

/// All series as they are now.
///
/// # Errors
/// The library refuses what it is given; a mistake of this module.
pub(super) fn encode(telemetry: &Telemetry, format: Format) -> Result<Vec<u8>, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Series {
        telemetry: telemetry.clone(),
        has_native: format == Format::Protobuf,
    }));
    let mut written = String::new();
    match format {
        Format::Protobuf => {
            return prometheus_protobuf::encode_to_vec(&registry).map_err(|_| fmt::Error);
        }
        Format::OpenMetrics => text::encode(&mut written, &registry)?,
        Format::Text => prometheus_text::encode(&mut written, &registry)?,
    }
    Ok(written.into_bytes())
}

/// All of them.
#[derive(Debug)]
struct Series {
    telemetry: Telemetry,
    /// The format can say what a native histogram holds.
    has_native: bool,
}

impl Collector for Series {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let cost = ProcessCost::read();
        self.telemetry.read(|status| {
            let mut writer = Writer {
                encoder: &mut encoder,
                status,
                has_native: self.has_native,
            };
            writer.by_zone()?;
            writer.by_rack()?;
            writer.events()?;
            writer.datapath()?;
            writer.members()?;
            writer.feed()?;
            writer.process(&cost)
        })
    }
}

struct Writer<'a, 'e> {
    encoder: &'a mut DescriptorEncoder<'e>,
    status: &'a Status,
    has_native: bool,
}

impl Writer<'_, '_> {
    fn by_zone(&mut self) -> fmt::Result {
        let status = self.status;
        let labels = |zone: &str| {
            [
                ("zone", status.zone.clone()),
                ("peer_zone", zone.to_owned()),
            ]
        };
        let zones = || status.rollup.zones();

        let mut family = self.encoder.encode_descriptor(
            "dt_rtt_seconds",
            "Round trip time of probes by the zones of both ends, without the peer's residence",
            None,
            MetricType::Histogram,
        )?;
        for (zone, totals) in zones() {
            let (buckets, labels) = (classic(&totals.rtt), labels(zone));
            histogram(family.encode_family(&labels)?, totals, &buckets)?;
        }
        self.counters(
            "dt_probes_asked",
            "Probes that the schedule asked for",
            zones().map(|(zone, totals)| (labels(zone), totals.asked)),
        )?;
        self.counters(
            "dt_probes_sent",
            "Probes put on the wire",
            zones().map(|(zone, totals)| (labels(zone), totals.sent)),
        )?;
        let outcomes = zones().flat_map(|(zone, totals)| {
            let failed = ("send_failed", totals.send_failed);
            let outcomes = totals
                .outcomes()
                .map(|(outcome, count)| (name_of(outcome), count));
            outcomes.chain([failed]).map(move |(outcome, count)| {
                let [own, peer] = labels(zone);
                ([own, peer, ("outcome", outcome.to_owned())], count)
            })
        });
        self.counters("dt_probes", "Probes by what became of them", outcomes)
    }

    fn by_rack(&mut self) -> fmt::Result {
        let status = self.status;
        let labels = |place: &Place| {
            [
                ("zone", status.zone.clone()),
                ("rack", status.rack.clone()),
                ("peer_zone", place.zone.clone()),
                ("peer_rack", place.rack.clone()),
            ]
        };
        let racks = || status.rollup.racks();

        let has_native = self.has_native;
        let mut family = self.encoder.encode_descriptor(
            "dt_rack_rtt_seconds",
            "Round trip time of probes by the racks of both ends; buckets as a native histogram only",
            None,
            MetricType::Histogram,
        )?;
        for (place, totals) in racks() {
            let labels = labels(place);
            // A text cannot do without a bucket.
            let all = [(f64::INFINITY, totals.rtt.count())];
            let buckets = if has_native { &[][..] } else { &all[..] };
            histogram(family.encode_family(&labels)?, totals, buckets)?;
        }
        self.counters(
            "dt_rack_probes_sent",
            "Probes put on the wire, by the racks of both ends",
            racks().map(|(place, totals)| (labels(place), totals.sent)),
        )?;
        self.counters(
            "dt_rack_probes_lost",
            "Probes that the network lost in either direction, by the racks of both ends",
            racks().map(|(place, totals)| (labels(place), totals.lost())),
        )
    }

    fn events(&mut self) -> fmt::Result {
        let rollup = &self.status.rollup;
        let events = rollup.events;
        let named = [
            ("duplicate_forward", events.duplicate_forward),
            ("duplicate_return", events.duplicate_return),
            ("reordered", events.reordered),
            ("late_after_loss", events.late_after_loss),
            ("straddled", events.straddled),
        ];
        let named = named.map(|(event, count)| ([("event", event)], count));
        self.counters(
            "dt_probe_events",
            "What happened to probes beside their outcome",
            named,
        )?;
        self.counter(
            "dt_windows",
            "Windows of peers that were closed",
            rollup.windows,
        )?;
        self.counter(
            "dt_windows_suspect",
            "Windows in which this host was starved or disturbed, so that their figures are in doubt",
            rollup.windows_suspect,
        )?;
        self.counter(
            "dt_windows_dropped",
            "Windows that got into no batch, because the feed was behind",
            self.status.windows_dropped,
        )
    }

    fn datapath(&mut self) -> fmt::Result {
        let status = self.status;
        let modes = status.interfaces.iter().flat_map(|interface| {
            let rungs = [Some(Mode::Xdp), Some(Mode::Tc), Some(Mode::Socket), None];
            rungs.into_iter().map(|rung| {
                let name = rung.map_or("none", Mode::name);
                let labels = [("interface", interface.name.as_str()), ("mode", name)];
                (labels, f64::from(u8::from(rung == interface.mode)))
            })
        });
        self.gauges(
            "dt_interface_mode",
            "1 for the datapath that an interface has",
            modes,
        )?;
        let Some(lease_s) = status.lease_s else {
            return Ok(());
        };
        self.gauge(
            "dt_lease_seconds",
            "The programs stop by themselves when nobody renewed them for so long",
            lease_s,
        )?;
        self.gauge(
            "dt_lease_renewed_timestamp_seconds",
            "When the lease of the programs was last renewed",
            status.lease_renewed_unix_s,
        )
    }

    fn members(&mut self) -> fmt::Result {
        let status = self.status;
        let members = status.members.iter().map(|(state, count)| {
            let name = match state {
                MemberState::Unsaid => "unsaid",
                MemberState::Alive => "alive",
                MemberState::Restarting => "restarting",
                MemberState::Failed => "failed",
            };
            ([("state", name)], *count as f64)
        });
        self.gauges(
            "dt_members",
            "Members of the mesh by what discovery says of them",
            members,
        )?;
        self.gauge(
            "dt_peers",
            "Members that this node probes",
            status.peers as f64,
        )?;
        self.gauge(
            "dt_discovery_connected",
            "1 while the source of members can be read",
            truth(status.discovery == SourceState::Readable),
        )?;
        self.gauge(
            "dt_mesh_stopped",
            "1 while the mesh is told to stop",
            truth(status.is_stopped),
        )?;
        self.gauge(
            "dt_reflector_whole",
            "1 while requests that the programs pass up are answered too",
            truth(status.unanswered.is_none()),
        )
    }

    fn feed(&mut self) -> fmt::Result {
        let Some(feed) = &self.status.feed else {
            return Ok(());
        };
        self.gauge(
            "dt_feed_connected",
            "1 while the measurements get to where they belong",
            truth(feed.is_connected),
        )?;
        self.gauge(
            "dt_feed_queue_bytes",
            "Measurements that wait in memory",
            feed.queue_bytes as f64,
        )?;
        self.gauge(
            "dt_feed_spool_bytes",
            "Measurements that wait on disk",
            feed.spool_bytes as f64,
        )?;
        self.counter(
            "dt_feed_batches_published",
            "Batches of measurements that arrived where they belong",
            feed.published,
        )?;
        let losses = &feed.losses;
        let reasons = [
            ("disk_full", losses.batches_disk_full),
            ("io_failed", losses.batches_io_failed),
            ("queue_full", losses.batches_queue_full),
            ("spool_full", losses.batches_spool_full),
            ("rejected", losses.batches_rejected),
            ("spool_damaged", losses.batches_spool_damaged),
        ];
        let reasons = reasons.map(|(reason, count)| ([("reason", reason)], count));
        self.counters(
            "dt_feed_batches_lost",
            "Batches of measurements that were lost",
            reasons,
        )
    }

    fn process(&mut self, cost: &ProcessCost) -> fmt::Result {
        let build = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("commit", build::COMMIT),
            ("bpf_object", build::BPF_OBJECT),
        ];
        self.gauges("dt_build_info", "What runs here", [(build, 1.0)])?;
        let mut cpu = self.encoder.encode_descriptor(
            "process_cpu_seconds",
            "User and system time of this process; what its programs cost others is not in it",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(cost.cpu_s).encode(cpu.encode_family(&NO_LABELS)?)?;
        self.gauge(
            "process_resident_memory_bytes",
            "Memory of this process",
            cost.resident_bytes as f64,
        )?;
        self.gauge(
            "process_start_time_seconds",
            "When this process started, since 1970",
            cost.start_unix_s,
        )
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.counters(name, help, [(NO_LABELS, value)])
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.gauges(name, help, [(NO_LABELS, value)])
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut family = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn histogram(
    mut encoder: prometheus_client::encoding::MetricEncoder<'_>,
    totals: &Totals,
    buckets: &[(f64, u64)],
) -> fmt::Result {
    let native = Native::of(&totals.rtt);
    encoder.encode_histogram_with_native(
        totals.rtt.sum() as f64 / 1e9,
        totals.rtt.count(),
        buckets,
        None::<&std::collections::HashMap<usize, Exemplar<[(&str, &str); 0], f64>>>,
        NativeHistogram {
            schema: NATIVE_SCHEMA,
            zero_threshold: ZERO_THRESHOLD,
            zero_count: native.zeros,
            negative: NativeHistogramBuckets {
                spans: &[],
                deltas: &[],
            },
            positive: NativeHistogramBuckets {
                spans: &native.spans,
                deltas: &native.deltas,
            },
            created: None,
        },
    )
}

const fn name_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Received => "received",
        Outcome::Late => "late",
        Outcome::LostForward => "lost_forward",
        Outcome::LostReturn => "lost_return",
        Outcome::LostUnknown => "lost_unknown",
        Outcome::CorruptForward => "corrupt_forward",
        Outcome::CorruptReturn => "corrupt_return",
        Outcome::Overrun => "overrun",
        Outcome::Refused => "refused",
        Outcome::NotAdmitted => "not_admitted",
        Outcome::PeerRestarted => "peer_restarted",
        Outcome::Departed => "departed",
    }
}

fn truth(is_true: bool) -> f64 {
    f64::from(u8::from(is_true))
}

const NO_LABELS: [(&str, &str); 0] = [];
/// Less than any time that can be measured: what is in the zero bucket is 0.
const ZERO_THRESHOLD: f64 = 1e-10;

#[cfg(test)]
mod tests;
