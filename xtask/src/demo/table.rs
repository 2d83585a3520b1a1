//! The result for people.

use std::fmt::Write as _;

use dt_feed::Histogram;

use super::findings::{Findings, PINGED};
use super::options::{Options, mode_name};
use super::stage::COMPARE_EVERY;
use super::tally::Pair;
use super::{ping, units};

/// All pairs, then the three views of one wire, then what it cost and what one sees.
pub fn render(options: &Options, findings: &Findings) -> String {
    let mut text = String::new();
    pairs(&mut text, options, findings);
    others(&mut text, findings);
    views(&mut text, options, findings);
    costs(&mut text, findings);
    text
}

fn pairs(text: &mut String, options: &Options, findings: &Findings) {
    let _ = writeln!(
        text,
        "\n{:56}{:^32}{:^32}",
        "", "kernel RTT, µs", "user-space RTT, µs"
    );
    let _ = writeln!(
        text,
        "{:<10}{:<7}{:>10}{:>10}{:>9}{:>8}  {HEADS}{HEADS}",
        "", "mode", "sent", "received", "lost", "pps"
    );
    for (source, destination, pair) in findings.pairs(options) {
        let name = format!("{source} → {destination}");
        let Some(pair) = pair else {
            let _ = writeln!(text, "{name:<10}not measured");
            continue;
        };
        let _ = writeln!(
            text,
            "{name:<10}{:<7}{:>10}{:>10}{:>9}{:>8.1}  {}{}",
            pair.mode().map_or("-", mode_name),
            pair.counters.sent,
            pair.counters.received,
            losses(pair),
            pair.sent_pps(findings.measured),
            quantiles(&pair.rtt),
            quantiles(&pair.user_rtt),
        );
    }
    let _ = writeln!(
        text,
        "lost: on the way there / on the way back / direction not known; user space timed every {COMPARE_EVERY}th of the same probes"
    );
}

/// There, back, unknown.
fn losses(pair: &Pair) -> String {
    let counters = &pair.counters;
    format!(
        "{}/{}/{}",
        counters.lost_forward, counters.lost_return, counters.lost_unknown
    )
}

/// What happened to some probes and has no column.
fn others(text: &mut String, findings: &Findings) {
    let mut sum = dt_feed::proto::Counters::default();
    findings
        .tally
        .pairs()
        .for_each(|pair| sum.merge(&pair.counters));
    let counted = [
        ("late", sum.late),
        (
            "back after they had been counted as lost",
            sum.late_after_loss,
        ),
        ("duplicated on the way there", sum.duplicate_forward),
        ("duplicated on the way back", sum.duplicate_return),
        ("corrupted on the way there", sum.corrupt_forward),
        ("corrupted on the way back", sum.corrupt_return),
        ("reordered", sum.reordered),
        ("not sent by the host", sum.send_failed),
        ("overrun", sum.overrun),
        ("refused", sum.refused),
        (
            "sent before the peer had admitted the source",
            sum.not_admitted,
        ),
        ("unknown because the peer restarted", sum.peer_restarted),
        ("without a time because a clock was set", sum.straddled),
        ("departed with their peer", sum.departed),
        ("still under way at the end", sum.in_flight),
    ];
    let named = counted
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{count} {name}"));
    let named: Vec<_> = named.collect();
    if !named.is_empty() {
        let _ = writeln!(text, "beside that, of all probes: {}", named.join(", "));
    }
    let mut modes: Vec<(&str, u64)> = Vec::new();
    for (mode, count) in findings
        .tally
        .pairs()
        .flat_map(|pair| &pair.modes)
        .filter(|(_, count)| *count > 0)
    {
        match modes.iter_mut().find(|(name, _)| *name == mode_name(*mode)) {
            Some((_, sum)) => *sum += count,
            None => modes.push((mode_name(*mode), *count)),
        }
    }
    if modes.len() > 1 {
        let named: Vec<_> = modes
            .iter()
            .map(|(name, count)| format!("{count} in {name}"))
            .collect();
        let _ = writeln!(
            text,
            "the datapath changed meanwhile; round trips by mode: {}",
            named.join(", ")
        );
    }
}

fn views(text: &mut String, options: &Options, findings: &Findings) {
    let (source, destination) = PINGED;
    let Some(pair) = findings.tally.pair(source, destination) else {
        return;
    };
    let title = format!("one wire, {source} → {destination}, three views, µs");
    let _ = writeln!(text, "\n{title:<46}{:>10}  {HEADS}", "samples");
    let every = format!("ping, every {} ms", ping::interval_ms(options));
    for (view, rtt) in [
        ("stamped in the kernel", &pair.rtt),
        ("the same probes as user space saw them", &pair.user_rtt),
        (&every, &findings.ping_rtt),
    ] {
        let _ = writeln!(text, "{view:<46}{:>10}  {}", rtt.count(), quantiles(rtt));
    }
}

fn costs(text: &mut String, findings: &Findings) {
    let us = |ns: f64| units::us(ns.round() as u64);
    let cpu = findings
        .cpu_ns_per_probe()
        .map_or_else(|| "-".to_owned(), us);
    let bytes = findings
        .feed_bytes_per_probe()
        .map_or_else(|| "-".to_owned(), |bytes| format!("{bytes:.2}"));
    let _ = writeln!(
        text,
        "\nA round trip cost the agents at both ends {cpu} µs of CPU time, their time in the kernel included, and a probe {bytes} bytes on the feed."
    );
    if let Some(after) = findings.began_after {
        let (after, built) = (units::seconds(after), units::seconds(findings.built_after));
        let _ = writeln!(
            text,
            "Every host was probing every other {after} after the start; set-up and build were {built} of that."
        );
    }
    if let Some(sentence) = moral(findings) {
        let _ = writeln!(text, "{sentence}");
    }
}

/// What one sees.
fn moral(findings: &Findings) -> Option<String> {
    let pair = findings.tally.pair(PINGED.0, PINGED.1)?;
    let kernel = pair.rtt.quantile(0.5)?;
    let user = pair.user_rtt.quantile(0.5)?;
    let ping = findings.ping_rtt.quantile(0.5)?;
    let (kernel_tail, user_tail) = (pair.rtt.quantile(0.999)?, pair.user_rtt.quantile(0.999)?);
    let ratio = |of: u64| of as f64 / kernel.max(1) as f64;
    Some(format!(
        "One sees: the network takes {} µs (P99.9 {}), of which user space makes {} µs ({:.1} times; P99.9 {}) and ping {} µs ({:.1} times); the difference is the hosts'.",
        units::us(kernel),
        units::us(kernel_tail),
        units::us(user),
        ratio(user),
        units::us(user_tail),
        units::us(ping),
        ratio(ping),
    ))
}

fn quantiles(rtt: &Histogram) -> String {
    let shown = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), units::us);
    let figures = [
        rtt.quantile(0.5),
        rtt.quantile(0.99),
        rtt.quantile(0.999),
        rtt.max(),
    ];
    figures.iter().fold(String::new(), |line, ns| {
        line + &format!("{:>8}", shown(*ns))
    })
}

const HEADS: &str = "     P50     P99   P99.9     max";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::fixture::{findings, options};

    #[test]
    fn the_table_puts_the_views_of_the_same_wire_beside_each_other() {
        let text = render(&options(&["--nodes", "2"]), &findings());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[3],
            "n1 → n2   xdp           100       100    0/0/0   100.0       4.0     4.0     4.0     4.0    31.0    31.0    31.0    31.0"
        );
        assert_eq!(
            lines[4],
            "n2 → n1   tc            100       100    0/0/0   100.0       9.0     9.0     9.0     9.0       -       -       -       -"
        );
        assert!(
            text.contains(
                "the datapath changed meanwhile; round trips by mode: 100 in xdp, 100 in tc"
            ),
            "{text}"
        );
        assert!(
            text.contains("ping, every 10 ms                                     90      40.0"),
            "{text}"
        );
        assert!(text.contains("both ends 10.0 µs of CPU time"), "{text}");
        assert!(text.contains("2.50 bytes on the feed"), "{text}");
        assert!(
            text.contains("every other 3.1 s after the start; set-up and build were 1.3 s"),
            "{text}"
        );
        assert!(
            text.contains(
                "the network takes 4.0 µs (P99.9 4.0), of which user space makes 31.0 µs (7.8 times"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_demo_that_measured_nothing_still_has_a_table() {
        let nothing = Findings {
            tally: super::super::tally::Tally::default(),
            ..findings()
        };
        let text = render(&options(&["--nodes", "2"]), &nothing);
        assert!(text.contains("n1 → n2   not measured"), "{text}");
    }
}
