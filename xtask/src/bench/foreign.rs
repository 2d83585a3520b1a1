//! Probers of others on the same cable, and what they say of it.
//!
//! Each prints a line for every reply; read are those lines, not the summaries, whose quantiles differ in kind.

use std::fs::{self, File};
use std::io::{BufReader, Read, Write as _};
use std::net::{IpAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dt_feed::Histogram;
use dt_tests::{Interrupt, Proc};
use serde::Deserialize;

use super::pair::{Pair, hold, interrupted_output};
use crate::clock::Stopwatch;

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

/// The same of `irtt`, whose server takes its own time out, as our reflector does.
pub fn irtt(pair: &Pair, rate: u32, length: Duration, interrupt: &Interrupt) -> Result<Histogram> {
    let server = format!("{}:{IRTT_PORT}", bracketed(pair.target()));
    let mut listening = pair.answering().command("irtt");
    // Without the flag it allows ten milliseconds and more from packet to packet.
    listening.args(["server", "-i", "0", "-b", &server]);
    let listening = Proc::spawn("irtt-server", &pair.dir(), &mut listening)?;
    hold(REFLECTOR_START, interrupt)?;
    let told = pair.dir().join("irtt.json");
    let mut client = pair.probing().command("irtt");
    client
        .args(["client", "-Q", "-l", "96", "--wait=1s"])
        .arg("-i")
        .arg(format!("{}us", 1_000_000 / rate))
        .arg("-d")
        .arg(format!("{}s", length.as_secs()))
        .arg("-o")
        .args([told.as_os_str(), server.as_ref()]);
    let mut client = Proc::spawn("irtt-client", &pair.dir(), &mut client)?;
    hold(length, interrupt)?;
    let status = client.wait(SENDER_END)?;
    ensure!(
        status.success(),
        "irtt ended with {status}:\n{}",
        client.output()?
    );
    interrupted_output(listening).context("the server of irtt")?;
    irtt_times(BufReader::new(File::open(&told)?)).context("what irtt wrote")
}

/// The same of `blackbox_exporter`: a request over HTTP is a probe, one after the other, at most at `rate`. What it tells is
/// the time of the echo alone, without its own set-up.
pub fn blackbox(
    program: &Path,
    pair: &Pair,
    rate: u32,
    length: Duration,
    interrupt: &Interrupt,
) -> Result<Histogram> {
    let config = pair.dir().join("blackbox.yml");
    fs::write(
        &config,
        "modules:\n  icmp:\n    prober: icmp\n    timeout: 1s\n",
    )?;
    let mut exporter = pair.probing().command(&program.to_string_lossy());
    exporter
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--web.listen-address={BLACKBOX}"));
    let exporter = Proc::spawn("blackbox", &pair.dir(), &mut exporter)?;
    hold(REFLECTOR_START, interrupt)?;
    let path = format!("/probe?module=icmp&target={}", pair.target());
    let interval = Duration::from_secs(1) / rate;
    let watch = Stopwatch::start();
    let rtt = pair.probing().enter(|| -> Result<Histogram> {
        let mut rtt = Histogram::default();
        let mut asked = 0;
        while watch.elapsed() < length && !interrupt.arrived() {
            if let Some(ns) = blackbox_time(&get(BLACKBOX, &path)?) {
                rtt.record(ns);
            }
            asked += 1;
            // Its pace: what it waits for is its own turn.
            thread::sleep((interval * asked).saturating_sub(watch.elapsed()));
        }
        Ok(rtt)
    })??;
    hold(Duration::ZERO, interrupt)?;
    interrupted_output(exporter).context("blackbox_exporter")?;
    Ok(rtt)
}

/// The body of what a server on this host answers.
fn get(server: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(server).context("blackbox_exporter does not listen")?;
    stream.set_read_timeout(Some(SENDER_END))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The round trip of a probe that had an answer, ns.
fn blackbox_time(answer: &str) -> Option<u64> {
    let value = |name: &str| {
        let line = answer.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<f64>().ok()
    };
    let success = value("probe_success ")?;
    let seconds = value("probe_icmp_duration_seconds{phase=\"rtt\"} ")?;
    (success > 0.0 && seconds > 0.0).then(|| (seconds * 1e9).round() as u64)
}

/// The same of `sockperf ping-pong`, which waits for each answer before it sends on; it knows IPv4 only.
pub fn sockperf(
    pair: &Pair,
    rate: u32,
    length: Duration,
    interrupt: &Interrupt,
) -> Result<Histogram> {
    let target = pair.target().to_string();
    let mut server = pair.answering().command("sockperf");
    server.args(["server", "-i", &target]);
    let server = Proc::spawn("sockperf-server", &pair.dir(), &mut server)?;
    hold(REFLECTOR_START, interrupt)?;
    let told = pair.dir().join("sockperf.csv");
    let mut client = pair.probing().command("sockperf");
    client
        .args(["ping-pong", "-i", &target, "-m", "96", "--full-rtt"])
        .arg(format!("--mps={rate}"))
        .arg(format!("--time={}", length.as_secs()))
        .arg("--full-log")
        .arg(&told);
    let mut client = Proc::spawn("sockperf-client", &pair.dir(), &mut client)?;
    hold(length, interrupt)?;
    let status = client.wait(SENDER_END)?;
    ensure!(
        status.success(),
        "sockperf ended with {status}:\n{}",
        client.output()?
    );
    interrupted_output(server).context("the server of sockperf")?;
    Ok(sockperf_times(&fs::read_to_string(&told)?))
}

fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Round trips that were not lost, from the JSON of `irtt client -o`.
fn irtt_times(json: impl Read) -> serde_json::Result<Histogram> {
    #[derive(Deserialize)]
    struct Told {
        round_trips: Vec<RoundTrip>,
    }
    #[derive(Deserialize)]
    struct RoundTrip {
        #[serde(default)]
        delay: Delay,
    }
    #[derive(Default, Deserialize)]
    struct Delay {
        rtt: Option<u64>,
    }
    let told: Told = serde_json::from_reader(json)?;
    let rtts = told
        .round_trips
        .into_iter()
        .filter_map(|trip| trip.delay.rtt);
    Ok(rtts.collect())
}

/// The fourth column of the lines after the head: microseconds.
fn sockperf_times(csv: &str) -> Histogram {
    let lines = csv
        .lines()
        .skip_while(|line| !line.starts_with("packet,"))
        .skip(1);
    let ns = |line: &str| {
        let us: f64 = line.split(", ").nth(3)?.trim().parse().ok()?;
        (us >= 0.0).then(|| (us * 1e3).round() as u64)
    };
    lines.filter_map(ns).collect()
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

const BLACKBOX: &str = "127.0.0.1:9115";
const REFLECTOR_START: Duration = Duration::from_secs(1);
const IRTT_PORT: u16 = 2_112;
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
    fn those_that_write_files_are_read_past_what_is_no_round_trip() {
        let irtt = br#"{"version": {}, "round_trips": [
            {"seqno": 0, "lost": "false", "delay": {"receive": 1, "rtt": 106373, "send": 2}},
            {"seqno": 1, "lost": "true", "delay": {}}, {"seqno": 2, "lost": "true"}]}"#;
        let irtt = irtt_times(&irtt[..]).expect("as irtt writes it");
        assert_eq!((irtt.count(), irtt.min()), (1, Some(106_373)));
        let sockperf = "------\n---> percentile 50.000 =   16.208\n------\n\
            packet, txTime(sec), rxTime(sec), rtt(usec)\n0, 2.414679975, 2.414688331, 8.356\n1, 2.4";
        let sockperf = sockperf_times(sockperf);
        assert_eq!((sockperf.count(), sockperf.max()), (1, Some(8_356)));
    }

    #[test]
    fn an_exporters_answer_has_a_time_only_if_there_was_a_reply() {
        let answer = |success: u8| {
            format!(
                "HTTP/1.0 200 OK\r\n\r\n# TYPE probe_icmp_duration_seconds gauge\n\
                 probe_icmp_duration_seconds{{phase=\"resolve\"}} 3.746e-06\n\
                 probe_icmp_duration_seconds{{phase=\"rtt\"}} 4.1782e-05\nprobe_success {success}\n"
            )
        };
        assert_eq!(blackbox_time(&answer(1)), Some(41_782));
        assert_eq!(blackbox_time(&answer(0)), None);
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
