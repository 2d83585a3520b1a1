//! Throughput of other people's packets through no program, empty ones, and ours.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::programs::TcAttachType;
use dt_common::map::Config;
use dt_tests::{Host, Interrupt, Lab, LabObject, Proc};
use serde::{Deserialize, Serialize};

use super::Options;
use crate::bench::hung::{Hung, hang};
use crate::bench::pair::hold;
use crate::bench::spread::Spread;
use crate::build::Built;

/// What is sent.
#[derive(Clone, Copy, Debug, Serialize)]
enum Traffic {
    Udp64,
    UdpMtu,
    Tcp,
}

/// What hangs on both ends of the cable.
#[derive(Clone, Copy, Debug, Serialize)]
enum Programs {
    None,
    EmptyXdp,
    OursXdp,
    EmptyTc,
    OursTc,
}

/// One kind of traffic through one set of programs.
#[derive(Serialize)]
pub struct Row {
    traffic: Traffic,
    programs: Programs,
    /// Packets, or for TCP megabits, per second.
    rate: Spread,
    /// Of ours over the empty ones of the same hook in the same round: mean and half of its confidence interval.
    over_empty: Option<(f64, f64)>,
}

/// Lets all programs take turns under each kind of traffic.
pub fn rows(built: &Built, options: &Options, interrupt: &Interrupt) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for traffic in [Traffic::Udp64, Traffic::UdpMtu, Traffic::Tcp] {
        let mut turns: Vec<[f64; PROGRAMS.len()]> = Vec::new();
        for round in 1..=options.rounds {
            let mut turn = [0.0; PROGRAMS.len()];
            for (rate, programs) in turn.iter_mut().zip(PROGRAMS) {
                *rate = measure(built, programs, traffic, options.seconds, interrupt)
                    .with_context(|| format!("{traffic:?} through {programs:?}"))?;
            }
            eprintln!("  {traffic:?}, round {round}: {turn:.0?}");
            turns.push(turn);
        }
        for (index, programs) in PROGRAMS.into_iter().enumerate() {
            let is_ours = matches!(programs, Programs::OursXdp | Programs::OursTc);
            // The empty ones of a hook stand before ours.
            let ratios = turns
                .iter()
                .map(|turn| turn[index] / turn[index.max(1) - 1]);
            rows.push(Row {
                traffic,
                programs,
                rate: Spread::of(turns.iter().map(|turn| turn[index])).context("no rounds")?,
                over_empty: is_ours.then(|| confidence(&ratios.collect::<Vec<_>>())),
            });
        }
    }
    Ok(rows)
}

/// One turn on a cable of its own, so that nothing is left of the turn before.
fn measure(
    built: &Built,
    programs: Programs,
    traffic: Traffic,
    seconds: u32,
    interrupt: &Interrupt,
) -> Result<f64> {
    let lab = Lab::mesh(2)?;
    let ends = [("n1", "n2"), ("n2", "n1")].map(|(name, peer)| {
        let host = lab.host(name);
        (host, host.device_to(peer))
    });
    let mut empty = LabObject::load_file(&built.lab_object, &[])?;
    let mut ours = Vec::new();
    let config = Config {
        source_port_first: 61_000,
        source_port_last: 61_003,
        ..Config::default()
    };
    for (host, device) in ends {
        match programs {
            Programs::None => {}
            Programs::EmptyXdp => {
                empty.attach_xdp("xdp_pass", host, device)?;
                empty.attach_tc("tc_pass", host, device, TcAttachType::Egress)?;
            }
            Programs::EmptyTc => {
                empty.attach_tc("tc_pass", host, device, TcAttachType::Ingress)?;
                empty.attach_tc("tc_pass", host, device, TcAttachType::Egress)?;
            }
            Programs::OursXdp => ours.push(hang(built, host, device, Hung::Xdp, config)?),
            Programs::OursTc => ours.push(hang(built, host, device, Hung::Tc, config)?),
        }
    }
    lab.wait_reachable()?;
    let [(client, _), (server, _)] = ends;
    iperf(&lab, client, server, traffic, seconds, interrupt)
}

fn iperf(
    lab: &Lab,
    client: &Host,
    server: &Host,
    traffic: Traffic,
    seconds: u32,
    interrupt: &Interrupt,
) -> Result<f64> {
    let mut listening = server.command("iperf3");
    let mut listening = Proc::spawn(
        "iperf3-server",
        &lab.dir(),
        listening.args(["-s", "-1", "--forceflush"]),
    )?;
    listening.wait_for_line("Server listening", START_LIMIT)?;
    let mut sending = client.command("iperf3");
    sending
        .args(["-J", "-c", &server.ipv4().to_string()])
        .args(["-t", &seconds.to_string()])
        .args(traffic.flags());
    let mut sending = Proc::spawn("iperf3-client", &lab.dir(), &mut sending)?;
    hold(Duration::from_secs(seconds.into()), interrupt)?;
    let status = sending.wait(END_LIMIT)?;
    let output = sending.output()?;
    ensure!(status.success(), "iperf3 ended with {status}:\n{output}");
    listening.wait(END_LIMIT)?;
    // What it has to warn of stands before.
    let json = output.find('{').map_or("", |start| &output[start..]);
    let told: Told = serde_json::from_str(json).context("what iperf3 wrote")?;
    Ok(traffic.rate(told.end.sum_received.bits_per_second))
}

impl Traffic {
    /// Bytes of UDP payload: with headers 64 bytes, and a whole frame.
    const fn payload(self) -> Option<u32> {
        match self {
            Self::Udp64 => Some(22),
            Self::UdpMtu => Some(1_472),
            Self::Tcp => None,
        }
    }

    fn flags(self) -> Vec<String> {
        self.payload().map_or_else(Vec::new, |payload| {
            ["-u", "-b", "0", "-l", &payload.to_string()]
                .map(str::to_owned)
                .into()
        })
    }

    /// What arrived: packets, or for TCP megabits, per second.
    fn rate(self, bits_per_second: f64) -> f64 {
        match self.payload() {
            Some(payload) => bits_per_second / 8.0 / f64::from(payload),
            None => bits_per_second / 1e6,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Udp64 => "UDP, 64 bytes, packets/s",
            Self::UdpMtu => "UDP, 1,514 bytes, packets/s",
            Self::Tcp => "TCP, one stream, Mbit/s",
        }
    }
}

impl Programs {
    const fn words(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::EmptyXdp => "empty: XDP, tc egress",
            Self::OursXdp => "ours, mode `xdp`",
            Self::EmptyTc => "empty: tc ingress and egress",
            Self::OursTc => "ours, mode `tc`",
        }
    }
}

impl Row {
    pub fn to_markdown(&self) -> String {
        let over = self.over_empty.map_or_else(
            || String::from("-"),
            |(mean, half)| format!("{mean:.3} ± {half:.3}"),
        );
        format!(
            "| {} | {} | {} | {over} |\n",
            self.traffic.words(),
            self.programs.words(),
            self.rate
        )
    }
}

/// What `iperf3 -J` tells, as far as it is wanted.
#[derive(Deserialize)]
struct Told {
    end: End,
}

#[derive(Deserialize)]
struct End {
    sum_received: Received,
}

#[derive(Deserialize)]
struct Received {
    bits_per_second: f64,
}

/// Mean, and half of the 95 % confidence interval by Student's t.
fn confidence(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let degrees = values.len().saturating_sub(1);
    if degrees == 0 {
        return (mean, f64::INFINITY);
    }
    let quantile = T_975.get(degrees - 1).copied().unwrap_or(1.96);
    (mean, quantile * (squares / degrees as f64 / count).sqrt())
}

/// Student's t, 97.5 %, by degrees of freedom from one on.
const T_975: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];
const PROGRAMS: [Programs; 5] = [
    Programs::None,
    Programs::EmptyXdp,
    Programs::OursXdp,
    Programs::EmptyTc,
    Programs::OursTc,
];
pub const HEAD: &str = "\
| traffic | programs on both ends | rate | ours over empty |
| --- | --- | ---: | ---: |
";
const START_LIMIT: Duration = Duration::from_secs(10);
const END_LIMIT: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_of_the_mean() {
        let (mean, half) = confidence(&[1.0, 2.0, 3.0]);
        assert!((mean - 2.0).abs() < 1e-9 && (half - 4.303 / 3_f64.sqrt()).abs() < 1e-3);
        assert_eq!(confidence(&[1.0]), (1.0, f64::INFINITY));
    }

    #[test]
    fn rates_are_of_what_arrived() {
        let told = r#"{"end": {"sum_received": {"seconds": 2.0, "bits_per_second": 17600, "packets": 50}}}"#;
        let told: Told = serde_json::from_str(told).expect("as iperf3 writes it");
        let bits = told.end.sum_received.bits_per_second;
        assert!((Traffic::Udp64.rate(bits) - 100.0).abs() < 1e-9);
        assert!((Traffic::Tcp.rate(bits) - 0.0176).abs() < 1e-9);
    }
}
