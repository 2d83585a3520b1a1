//! What `ping` says: lines for people, or one JSON object a line.

use std::io::{self, BufWriter, Stdout, Write};

use dt_feed::Histogram;
use serde_json::{Map, Value, json};

use super::host::{Host, Reply, Told, hops};
use super::stats::Spread;
use crate::config::PingConfig;
use crate::engine::ladder::Mode;
use crate::engine::session::Outcome;
use crate::engine::window::{StampSources, WindowReport};

/// Writes to standard output.
pub(super) struct Printer {
    out: BufWriter<Stdout>,
    json: bool,
    quiet: bool,
    compare: bool,
    size: u16,
}

impl Printer {
    pub(super) fn new(config: &PingConfig) -> Self {
        Self {
            out: BufWriter::new(io::stdout()),
            json: config.json,
            quiet: config.quiet,
            compare: config.compare,
            size: config.payload_bytes,
        }
    }

    /// What is about to be done.
    pub(super) fn start(&mut self, host: &Host, mode: Option<Mode>, why: &str) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        let destination = &host.destination;
        let link = destination.link.as_ref();
        let link = link.map_or("lo", |link| link.name.as_str());
        writeln!(
            self.out,
            "PING {} ({}) port {}, {} bytes, by {link}, mode {}: {why}",
            destination.name,
            destination.address.ip(),
            destination.address.port(),
            self.size,
            mode.map_or("none", Mode::name),
        )
    }

    /// One probe.
    pub(super) fn told(&mut self, host: &Host, told: &Told) -> io::Result<()> {
        if self.quiet {
            return Ok(());
        }
        match (told, self.json) {
            (Told::Reply(reply), true) => self.line(&json_reply(host, reply)),
            (Told::Missing { seq, outcome }, true) => self.line(&json!({
                "type": "missing", "host": host.destination.name, "seq": seq, "outcome": word(*outcome),
            })),
            (Told::Reply(reply), false) => {
                let line = self.text_reply(reply);
                writeln!(self.out, "{}: {line}", host.destination.name)
            }
            (Told::Missing { seq, outcome }, false) => writeln!(
                self.out,
                "{}: seq={seq} {}",
                host.destination.name,
                word(*outcome).replace('_', " ")
            ),
        }
    }

    /// The end.
    pub(super) fn summary(
        &mut self,
        host: &Host,
        report: &WindowReport,
        elapsed_ns: u64,
    ) -> io::Result<()> {
        if self.json {
            return self.line(&json_summary(host, report, elapsed_ns));
        }
        writeln!(
            self.out,
            "\n--- {} ping statistics ---",
            host.destination.name
        )?;
        self.counts(host, report, elapsed_ns)?;
        let totals = &host.totals;
        self.times("rtt", &totals.rtt, Some(&report.rtt))?;
        self.times("user-space rtt", &totals.user_rtt, None)?;
        self.times("residence", &totals.residence, None)?;
        if report.counters.received + report.counters.late > 0 {
            writeln!(
                self.out,
                "hops {} there, {} back; {}",
                hops(report.hops_forward),
                hops(report.hops_return),
                stamps(report.stamps)
            )?;
        }
        if let Some(peer) = host.inquiry.peer() {
            let format = if totals.ptp {
                ", stamping in PTP format"
            } else {
                ""
            };
            writeln!(self.out, "peer: {}{format}", peer.name())?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn counts(&mut self, host: &Host, report: &WindowReport, elapsed_ns: u64) -> io::Result<()> {
        let (totals, counters) = (&host.totals, &report.counters);
        let lost = counters.lost();
        writeln!(
            self.out,
            "{} sent, {} received, {lost} lost ({:.3}%): {} there, {} back, {} unknown, time {:.0} ms",
            totals.sent,
            counters.received + counters.late,
            100.0 * lost as f64 / totals.sent.max(1) as f64,
            counters.lost_forward,
            counters.lost_return,
            counters.lost_unknown,
            elapsed_ns as f64 / 1e6,
        )?;
        let odd = oddities(host, report);
        if odd.is_empty() {
            return Ok(());
        }
        writeln!(self.out, "{}", odd.join(", "))
    }

    fn text_reply(&self, reply: &Reply) -> String {
        let time = |ns: Option<u64>| ns.map_or_else(|| String::from("?"), duration);
        let user = if self.compare {
            format!(" user={}", time(reply.user_rtt_ns))
        } else {
            String::new()
        };
        let hops =
            |hops: Option<u8>| hops.map_or_else(|| String::from("?"), |hops| hops.to_string());
        let mut line = format!(
            "seq={} rtt={}{user} residence={} hops={}/{}",
            reply.seq,
            time(reply.rtt_ns),
            time(reply.residence_ns),
            hops(reply.hops_forward),
            hops(reply.hops_return)
        );
        if reply.late {
            line += " (late)";
        }
        if reply.straddled {
            line += " (a clock was set meanwhile)";
        } else if reply.rtt_ns.is_none() {
            line += " (its time stamps contradict each other)";
        }
        line
    }

    fn times(
        &mut self,
        name: &str,
        spread: &Spread,
        histogram: Option<&Histogram>,
    ) -> io::Result<()> {
        if spread.count == 0 {
            return Ok(());
        }
        let (divisor, unit) = unit(spread.max_ns);
        let text = |ns: f64| format!("{:.3}", ns / divisor);
        let (mut names, mut values) = (
            String::from("min/avg"),
            vec![text(spread.min_ns as f64), text(spread.mean_ns())],
        );
        for (quantile, label) in [(0.5, "/p50"), (0.99, "/p99")] {
            if let Some(ns) = histogram.and_then(|histogram| histogram.quantile(quantile)) {
                names += label;
                values.push(text(ns as f64));
            }
        }
        values.push(text(spread.max_ns as f64));
        values.push(text(spread.deviation_ns()));
        writeln!(
            self.out,
            "{name} {names}/max/mdev = {} {unit}",
            values.join("/")
        )
    }

    fn line(&mut self, value: &Value) -> io::Result<()> {
        writeln!(self.out, "{value}")
    }
}

fn json_reply(host: &Host, reply: &Reply) -> Value {
    json!({
        "type": "reply", "host": host.destination.name, "seq": reply.seq,
        "rtt_ns": reply.rtt_ns, "user_rtt_ns": reply.user_rtt_ns, "residence_ns": reply.residence_ns,
        "hops_forward": reply.hops_forward, "hops_return": reply.hops_return,
        "late": reply.late, "straddled": reply.straddled, "ptp": reply.ptp,
    })
}

fn json_summary(host: &Host, report: &WindowReport, elapsed_ns: u64) -> Value {
    let (totals, counters) = (&host.totals, &report.counters);
    let mut summary = Map::new();
    let mut set = |key: &str, value: Value| summary.insert(key.to_owned(), value);
    set("type", json!("summary"));
    set("host", json!(host.destination.name));
    set("address", json!(host.destination.address.ip()));
    set("sent", json!(totals.sent));
    for outcome in Outcome::ALL {
        set(word(outcome), json!(counters.of(outcome)));
    }
    set(
        "duplicate",
        json!(counters.duplicate_forward + counters.duplicate_return),
    );
    set("reordered", json!(counters.reordered));
    set("in_flight", json!(report.in_flight));
    set("send_failed", json!(totals.failed));
    set("unanswered_with_tlv", json!(totals.asked_before));
    set("elapsed_ns", json!(elapsed_ns));
    set("rtt_ns", json_spread(&totals.rtt, Some(&report.rtt)));
    set(
        "user_rtt_ns",
        json_spread(&totals.user_rtt, Some(&report.user_rtt)),
    );
    set("residence_ns", json_spread(&totals.residence, None));
    set("hops_forward", json!(report.hops_forward.last));
    set("hops_return", json!(report.hops_return.last));
    set("t4", json!(source(report.stamps, &T4)));
    set("peer_stamps", json!(source(report.stamps, &PEER)));
    set(
        "peer",
        json!(host.inquiry.peer().map(super::form::Peer::name)),
    );
    set("ptp", json!(totals.ptp));
    Value::Object(summary)
}

fn json_spread(spread: &Spread, histogram: Option<&Histogram>) -> Value {
    if spread.count == 0 {
        return Value::Null;
    }
    let quantile = |q| histogram.and_then(|histogram| histogram.quantile(q));
    json!({
        "count": spread.count, "min": spread.min_ns, "mean": spread.mean_ns(), "p50": quantile(0.5),
        "p99": quantile(0.99), "max": spread.max_ns, "deviation": spread.deviation_ns(),
    })
}

/// What is not worth a line unless there is any.
fn oddities(host: &Host, report: &WindowReport) -> Vec<String> {
    let counters = &report.counters;
    let duplicates = counters.duplicate_forward + counters.duplicate_return;
    let counted = [
        (u64::from(counters.late), "late"),
        (u64::from(duplicates), "duplicate"),
        (u64::from(counters.reordered), "reordered"),
        (u64::from(counters.corrupt_forward), "corrupt there"),
        (u64::from(counters.corrupt_return), "corrupt back"),
        (
            u64::from(counters.refused),
            "refused by the peer's rate limit",
        ),
        (
            u64::from(counters.peer_restarted),
            "while the peer restarted",
        ),
        (u64::from(counters.overrun), "not noted by this host"),
        (
            u64::from(counters.straddled),
            "not measured because a clock was set",
        ),
        (
            u64::from(counters.implausible),
            "with time stamps that make no sense",
        ),
        (u64::from(report.in_flight), "still under way"),
        (host.totals.failed, "not sent"),
        (
            host.totals.asked_before,
            "with our TLV unanswered before, not counted",
        ),
    ];
    let some = counted.into_iter().filter(|(count, _)| *count > 0);
    some.map(|(count, what)| format!("{count} {what}"))
        .collect()
}

/// An outcome as the feed's counters name it.
pub(super) const fn word(outcome: Outcome) -> &'static str {
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

fn stamps(stamps: StampSources) -> String {
    let or_unknown = |sources: Vec<&str>| {
        if sources.is_empty() {
            String::from("unknown")
        } else {
            sources.join("+")
        }
    };
    format!(
        "stamped here by {}, there by {}",
        or_unknown(source(stamps, &T4)),
        or_unknown(source(stamps, &PEER))
    )
}

fn source(stamps: StampSources, names: &[(StampSources, &'static str)]) -> Vec<&'static str> {
    let there = names.iter().filter(|(source, _)| stamps.contains(*source));
    there.map(|(_, name)| *name).collect()
}

/// A duration with its unit, as short as is exact to the nanosecond below 10 ms.
fn duration(ns: u64) -> String {
    let (divisor, unit) = unit(ns);
    format!("{:.3} {unit}", ns as f64 / divisor)
}

const fn unit(ns: u64) -> (f64, &'static str) {
    if ns < 10_000_000 {
        (1e3, "us")
    } else {
        (1e6, "ms")
    }
}

const T4: [(StampSources, &str); 4] = [
    (StampSources::T4_XDP, "xdp"),
    (StampSources::T4_TC, "tc"),
    (StampSources::T4_SOCKET, "socket"),
    (StampSources::T4_USER, "user space"),
];
const PEER: [(StampSources, &str); 4] = [
    (StampSources::PEER_XDP, "xdp"),
    (StampSources::PEER_TC, "tc"),
    (StampSources::PEER_SOCKET, "socket"),
    (StampSources::PEER_FOREIGN, "a reflector of others"),
];
