//! Probers of others on the same cable, and what they say of it.
//!
//! Each prints a line for every reply; read are those lines, not the summaries, whose quantiles differ in kind.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dt_feed::Histogram;
use dt_tests::{Interrupt, Proc};

use super::pair::{Pair, hold, interrupted_output};

/// Round trip times that `ping` of iputils saw in so much time. Its shortest interval is a millisecond.
pub fn ping(pair: &Pair, rate: u32, length: Duration, interrupt: &Interrupt) -> Result<Histogram> {
    let interval_s = (1.0 / f64::from(rate)).max(0.001);
    let mut command = pair.probing().command("ping");
    command
        .args(["-n", "-i", &format!("{interval_s:.3}")])
        .arg(pair.target().to_string())
        .env("LC_ALL", "C");
    let ping = Proc::spawn("ping", &pair.dir(), &mut command)?;
    hold(length, interrupt)?;
    Ok(times(&interrupted_output(ping)?, "time="))
}

/// The same of `fping`, which waits for each reply as long as the others do.
pub fn fping(pair: &Pair, rate: u32, length: Duration, interrupt: &Interrupt) -> Result<Histogram> {
    let fping = start_fping(pair, rate, length, &[])?;
    hold(length, interrupt)?;
    Ok(times(&interrupted_output(fping)?, " bytes, "))
}

/// Starts an `fping` that goes on for longer than `length`, to be interrupted.
pub fn start_fping(pair: &Pair, rate: u32, length: Duration, flags: &[&str]) -> Result<Proc> {
    // It makes room for all of them before the first; endless, it would not keep quiet.
    let count = 2 * length.as_secs() * u64::from(rate);
    let period_ms = (1_000.0 / f64::from(rate)).to_string();
    let mut command = pair.probing().command("fping");
    command
        .args(flags)
        .args(["-c", &count.to_string(), "-t", "1000"])
        .args(["-p", &period_ms, "-i", &period_ms])
        .arg(pair.target().to_string());
    Proc::spawn("fping", &pair.dir(), &mut command)
}

/// Replies that a quiet `fping` counted, from its last line, such as `n2 : xmt/rcv/%loss = 20/20/0%, min/avg/max = …`.
pub fn fping_replies(output: &str) -> Option<u64> {
    let (_, counts) = output.rsplit_once("xmt/rcv/%loss = ")?;
    counts.split('/').nth(1)?.parse().ok()
}

/// The same of a pair of `stamp-suite`, sender and reflector.
pub fn stamp_suite(
    program: &Path,
    pair: &Pair,
    rate: u32,
    length: Duration,
    interrupt: &Interrupt,
) -> Result<Histogram> {
    let program = program.to_string_lossy();
    let target = pair.target().to_string();
    let mut reflector = pair.answering().command(&program);
    reflector.args(["-i", "-S", &target, "-o", "862"]);
    let reflector = Proc::spawn("stamp-reflector", &pair.dir(), &mut reflector)?;
    hold(REFLECTOR_START, interrupt)?;
    let unspecified = if pair.target().is_ipv6() {
        "::"
    } else {
        "0.0.0.0"
    };
    let mut sender = pair.probing().command(&program);
    sender
        .args(["-S", unspecified, "-r", &target, "-p", "862", "-c", "0"])
        .args(["-R", "-L", "1", "-d"])
        .arg(format!("{}us", 1_000_000 / rate))
        .arg(format!("--duration={}", length.as_secs()));
    let mut sender = Proc::spawn("stamp-sender", &pair.dir(), &mut sender)?;
    hold(length, interrupt)?;
    let status = sender.wait(SENDER_END)?;
    ensure!(status.success(), "stamp-suite ended with {status}");
    interrupted_output(reflector).context("the reflector of stamp-suite")?;
    Ok(times(&sender.output()?, " rtt="))
}

/// The milliseconds that follow `label`, of every line that has them. A last line that was cut off has no unit.
fn times(output: &str, label: &str) -> Histogram {
    let ns = |line: &str| {
        let (_, rest) = line.split_once(label)?;
        let (ms, _) = rest.trim_start().split_once("ms")?;
        let ms: f64 = ms.trim_end().parse().ok()?;
        (ms >= 0.0).then(|| (ms * 1e6).round() as u64)
    };
    output.lines().filter_map(ns).collect()
}

const REFLECTOR_START: Duration = Duration::from_secs(1);
const SENDER_END: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    fn only_time(line: &str, label: &str) -> Option<u64> {
        times(line, label).min()
    }

    #[test]
    fn each_prober_says_its_times_in_its_own_way() {
        let ping = "64 bytes from 10.77.0.2: icmp_seq=1 ttl=64 time=0.045 ms";
        assert_eq!(only_time(ping, "time="), Some(45_000));
        let fping = "10.77.0.2 : [0], 64 bytes, 0.012 ms (0.012 avg, 0% loss)";
        assert_eq!(only_time(fping, " bytes, "), Some(12_000));
        let stamp = "seq=0 rtt=12.074ms ttl=255 reflector_recv_ts=1 reflector_send_ts=2";
        assert_eq!(only_time(stamp, " rtt="), Some(12_074_000));
    }

    #[test]
    fn other_lines_and_half_a_line_have_no_time() {
        for line in ["PING 10.77.0.2", "Min RTT: 0.048 ms", "seq=9 rtt=12.0"] {
            assert_eq!(only_time(line, " rtt="), None);
        }
        let summary = "n2 : xmt/rcv/%loss = 22/20/9%, min/avg/max = 0.002/0.004/0.095";
        assert_eq!(fping_replies(summary), Some(20));
        assert_eq!(fping_replies("n2 is unreachable"), None);
    }
}
