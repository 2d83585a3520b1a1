//! The result for programs. Fields are added here, never renamed: scripts and the closing notes of issues read them.

use std::collections::BTreeMap;

use dt_feed::Histogram;
use serde::Serialize;

use super::findings::{Findings, PINGED};
use super::options::{Options, mode_name};
use super::ping;
use super::tally::Pair;

#[derive(Serialize)]
struct Document {
    nodes: u16,
    seconds: u32,
    topology: String,
    asked_pps: u32,
    pairs: Vec<PairResult>,
    ping_rtt_ns: Option<Quantiles>,
    cpu_ns_per_probe: Option<u64>,
    feed_bytes_per_probe: Option<f64>,
    mode_asked: String,
    ipv6: bool,
    stress: bool,
    measured_seconds: f64,
    built_after_seconds: f64,
    began_after_seconds: Option<f64>,
    ping_pair: [&'static str; 2],
    ping_interval_ms: u32,
    feed_bytes: u64,
    violations: Vec<String>,
}

/// Counts are over all windows, from the first probe to the last; the reached rate is that of the measured time.
#[derive(Default, Serialize)]
struct PairResult {
    src: String,
    dst: String,
    mode: Option<&'static str>,
    reached_pps: f64,
    sent: u64,
    received: u64,
    lost_forward: u64,
    lost_return: u64,
    lost_unknown: u64,
    late: u64,
    duplicate: u64,
    corrupt: u64,
    rtt_ns: Option<Quantiles>,
    user_rtt_ns: Option<Quantiles>,
    /// Probes received in each mode.
    modes: BTreeMap<&'static str, u64>,
    asked: u64,
    send_failed: u64,
    in_flight: u64,
    reordered: u64,
    overrun: u64,
    refused: u64,
    not_admitted: u64,
    peer_restarted: u64,
    straddled: u64,
    departed: u64,
    late_after_loss: u64,
}

#[derive(Serialize)]
struct Quantiles {
    min: u64,
    p50: u64,
    p99: u64,
    p999: u64,
    max: u64,
    count: u64,
}

/// The whole result as JSON.
pub fn render(options: &Options, findings: &Findings) -> serde_json::Result<String> {
    let pair = |(src, dst, pair): (String, String, Option<&Pair>)| match pair {
        Some(pair) => PairResult::of(src, dst, pair, pair.sent_pps(findings.measured)),
        None => PairResult {
            src,
            dst,
            ..PairResult::default()
        },
    };
    let document = Document {
        nodes: options.nodes,
        seconds: options.seconds,
        topology: options.topology.to_string(),
        asked_pps: options.rate,
        pairs: findings.pairs(options).into_iter().map(pair).collect(),
        ping_rtt_ns: Quantiles::of(&findings.ping_rtt),
        cpu_ns_per_probe: findings.cpu_ns_per_probe().map(|ns| ns.round() as u64),
        feed_bytes_per_probe: findings
            .feed_bytes_per_probe()
            .map(|bytes| rounded(bytes, 1e3)),
        mode_asked: options.mode.to_string(),
        ipv6: options.ipv6,
        stress: options.stress,
        measured_seconds: rounded(findings.measured.length_ns() as f64 / 1e9, 1e3),
        built_after_seconds: rounded(findings.built_after.as_secs_f64(), 1e3),
        began_after_seconds: findings
            .began_after
            .map(|after| rounded(after.as_secs_f64(), 1e3)),
        ping_pair: [PINGED.0, PINGED.1],
        ping_interval_ms: ping::interval_ms(options),
        feed_bytes: findings.feed_bytes,
        violations: findings.violations(options),
    };
    serde_json::to_string_pretty(&document)
}

impl PairResult {
    fn of(src: String, dst: String, pair: &Pair, reached_pps: f64) -> Self {
        let counters = &pair.counters;
        Self {
            src,
            dst,
            mode: pair.mode().map(mode_name),
            reached_pps: rounded(reached_pps, 1e2),
            sent: counters.sent,
            received: counters.received,
            lost_forward: counters.lost_forward,
            lost_return: counters.lost_return,
            lost_unknown: counters.lost_unknown,
            late: counters.late,
            duplicate: counters.duplicate_forward + counters.duplicate_return,
            corrupt: counters.corrupt_forward + counters.corrupt_return,
            rtt_ns: Quantiles::of(&pair.rtt),
            user_rtt_ns: Quantiles::of(&pair.user_rtt),
            modes: pair
                .modes
                .iter()
                .map(|(mode, count)| (mode_name(*mode), *count))
                .collect(),
            asked: counters.asked,
            send_failed: counters.send_failed,
            in_flight: counters.in_flight,
            reordered: counters.reordered,
            overrun: counters.overrun,
            refused: counters.refused,
            not_admitted: counters.not_admitted,
            peer_restarted: counters.peer_restarted,
            straddled: counters.straddled,
            departed: counters.departed,
            late_after_loss: counters.late_after_loss,
        }
    }
}

impl Quantiles {
    fn of(histogram: &Histogram) -> Option<Self> {
        Some(Self {
            min: histogram.min()?,
            p50: histogram.quantile(0.5)?,
            p99: histogram.quantile(0.99)?,
            p999: histogram.quantile(0.999)?,
            max: histogram.max()?,
            count: histogram.count(),
        })
    }
}

fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::demo::fixture::{findings, options};

    fn document(nodes: &str) -> Value {
        let text = render(&options(&["--nodes", nodes, "--seconds", "1"]), &findings())
            .expect("it can be written");
        serde_json::from_str(&text).expect("it is JSON")
    }

    #[test]
    fn the_promised_fields_are_there_under_their_names() {
        let document = document("2");
        for (name, value) in [
            ("nodes", json!(2)),
            ("seconds", json!(1)),
            ("topology", json!("mesh")),
            ("asked_pps", json!(100)),
            ("cpu_ns_per_probe", json!(10_000)),
            ("feed_bytes_per_probe", json!(2.5)),
            (
                "ping_rtt_ns",
                json!({"min": 40_000, "p50": 40_000, "p99": 40_000, "p999": 40_000, "max": 40_000, "count": 90}),
            ),
        ] {
            assert_eq!(document[name], value, "{name}");
        }
        let pair = &document["pairs"][0];
        for (name, value) in [
            ("src", json!("n1")),
            ("dst", json!("n2")),
            ("mode", json!("xdp")),
            ("reached_pps", json!(100.0)),
            ("sent", json!(100)),
            ("received", json!(100)),
            ("modes", json!({"xdp": 100})),
            (
                "rtt_ns",
                json!({"min": 4_000, "p50": 4_000, "p99": 4_000, "p999": 4_000, "max": 4_000, "count": 100}),
            ),
        ] {
            assert_eq!(pair[name], value, "{name}");
        }
        assert_eq!(pair["user_rtt_ns"]["p50"], json!(31_000));
        for name in [
            "lost_forward",
            "lost_return",
            "lost_unknown",
            "late",
            "duplicate",
            "corrupt",
        ] {
            assert_eq!(pair[name], json!(0), "{name}");
        }
    }

    #[test]
    fn a_pair_that_was_never_heard_of_is_there_without_times() {
        let document = document("3");
        assert_eq!(document["pairs"].as_array().map(Vec::len), Some(6));
        let silent = &document["pairs"][1];
        assert_eq!(
            (
                &silent["dst"],
                &silent["mode"],
                &silent["rtt_ns"],
                &silent["sent"]
            ),
            (&json!("n3"), &Value::Null, &Value::Null, &json!(0))
        );
        assert_eq!(document["violations"].as_array().map(Vec::len), Some(4));
    }
}
