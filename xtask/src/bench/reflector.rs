//! `cargo xtask bench reflector`: nanoseconds per packet in the programs themselves, by `BPF_PROG_TEST_RUN`.
//!
//! Stands beside an empty program and one with two clock reads, which a reflector cannot do without. Nothing resets the
//! frame between runs, so it must be a request again once it is a reply: both ends are ours, both ports 862, and the
//! programs are told to answer what looks like a reply.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use aya::{Ebpf, EbpfLoader};
use clap::{Args, value_parser};
use dt_common::map::{
    Allowed, AllowedFlags, Config, ConfigFlags, Iface, IfaceFlags, IfaceMode, words,
};
use dt_tests::Datapath;
use dt_tests::datapath::{self, Hook, IFINDEX, mapped};
use dt_tests::frame::{self, Checksum, Frame};
use serde::Serialize;

use super::json::JsonFile;
use super::machine::{Machine, stay_on_one_cpu};
use super::spread::Spread;
use crate::build;
use crate::setup::{self, Group};
use crate::workspace::Workspace;

/// Flags of `cargo xtask bench reflector`.
#[derive(Args)]
pub struct Options {
    /// Turns of each program
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = value_parser!(u32).range(1..=1_000))]
    rounds: u32,

    /// Packets of each turn
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = value_parser!(u32).range(1..=10_000_000))]
    packets: u32,

    /// Also write the result to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What kind of packet is timed.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Case {
    StatelessNoChecksum,
    Stateless,
    Full,
    FullPadded,
    NotOurs,
}

#[derive(Serialize)]
struct Report {
    machine: Machine,
    packets: u32,
    rounds: u32,
    rows: Vec<Row>,
}

/// One program and packet, all rounds together, in nanoseconds per packet.
#[derive(Serialize)]
struct Row {
    mode: &'static str,
    ip: u8,
    case: Case,
    ns: Spread,
    above_empty_ns: Spread,
    /// Not of packets that are none of ours: they pay for no clock.
    above_two_clocks_ns: Option<Spread>,
}

/// Sets up, builds, times, and prints.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let json = JsonFile::create(options.json.as_deref())?;
    setup::run(workspace, Group::Bench)?;
    let built = build::run(workspace)?;
    let mut bench = Bench {
        options,
        datapath: Datapath::load(&built.datapath_object)?,
        lab: EbpfLoader::new()
            .load_file(&built.lab_object)
            .context("cannot load the lab object")?,
    };
    datapath::load_all(&mut bench.lab)?;
    // Before all CPUs but one are out of sight.
    let machine = Machine::look()?;
    stay_on_one_cpu()?;
    let report = Report {
        machine,
        packets: options.packets,
        rounds: options.rounds,
        rows: bench.rows()?,
    };
    print!("{}", report.to_markdown());
    json.write(&report)
}

struct Bench<'a> {
    options: &'a Options,
    datapath: Datapath,
    lab: Ebpf,
}

impl Bench<'_> {
    fn rows(&mut self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for hook in [Hook::Xdp, Hook::Tc] {
            for ipv6 in [false, true] {
                for case in CASES {
                    // IPv6 has no packets without a checksum.
                    if !(ipv6 && matches!(case, Case::StatelessNoChecksum)) {
                        rows.push(self.row(hook, ipv6, case)?);
                    }
                }
            }
        }
        Ok(rows)
    }

    fn row(&mut self, hook: Hook, ipv6: bool, case: Case) -> Result<Row> {
        self.configure(hook, ipv6, case)?;
        let frame = case.frame(ipv6).bytes();
        let (empty, two_clocks) = baselines(hook);
        let mut turns = Vec::new();
        for _ in 0..self.options.rounds {
            let packets = self.options.packets;
            let subject = self.turn(hook, case, &frame)?;
            let empty = datapath::time(&self.lab, empty, &frame, packets)?.as_nanos() as f64;
            let two_clocks =
                datapath::time(&self.lab, two_clocks, &frame, packets)?.as_nanos() as f64;
            turns.push((subject, subject - empty, subject - two_clocks));
        }
        let spread =
            |of: fn(&(f64, f64, f64)) -> f64| Spread::of(turns.iter().map(of)).context("no rounds");
        Ok(Row {
            mode: if hook == Hook::Xdp { "xdp" } else { "tc" },
            ip: if ipv6 { 6 } else { 4 },
            case,
            ns: spread(|turn| turn.0)?,
            above_empty_ns: spread(|turn| turn.1)?,
            above_two_clocks_ns: match case {
                Case::NotOurs => None,
                _ => Some(spread(|turn| turn.2)?),
            },
        })
    }

    /// Times the program once, and demands that every packet went the way that is meant.
    fn turn(&mut self, hook: Hook, case: Case, frame: &[u8]) -> Result<f64> {
        let before = self.datapath.counters()?;
        let time = self
            .datapath
            .time(hook.ingress(), frame, self.options.packets)?;
        let after = self.datapath.counters()?;
        for ((reason, before), (_, after)) in before.into_iter().zip(after) {
            let answered = reason == "reflected" && !matches!(case, Case::NotOurs);
            let expected = if answered {
                u64::from(self.options.packets)
            } else {
                0
            };
            let moved = after - before;
            ensure!(
                moved == expected,
                "{moved} packets were {reason}, not {expected}"
            );
        }
        Ok(time.as_nanos() as f64)
    }

    fn configure(&mut self, hook: Hook, ipv6: bool, case: Case) -> Result<()> {
        let ends = ends(ipv6);
        let mut config = Config {
            abi_version: dt_common::ABI_VERSION,
            flags: ConfigFlags::ANSWER_REPLIES | case.flags(),
            lease_until_ns: u64::MAX,
            error_estimate: 0x8b21,
            port: PORT,
            locals_len: 2,
            // Limits that are checked and never reached.
            source_interval_ns: 1,
            source_burst_ns: 1 << 40,
            total_interval_ns: 1,
            total_burst_ns: 1 << 40,
            clock_offset_ns: 4_000_000_000_000_000_000,
            ..Config::default()
        };
        for (index, end) in ends.into_iter().enumerate() {
            let (address, flags) = (mapped(end), AllowedFlags::LOW_PORTS);
            config.locals[index] = words(address);
            self.datapath.allow(
                address,
                Allowed {
                    member: index as u32,
                    flags,
                },
            )?;
        }
        self.datapath.set_config(&config)?;
        let mode = if hook == Hook::Xdp {
            IfaceMode::XDP
        } else {
            IfaceMode::TC
        };
        let iface = Iface {
            ifindex: IFINDEX,
            mode,
            flags: IfaceFlags::CHECKSUM_FULL,
            proof_round: 0,
        };
        self.datapath.set_iface(&iface)
    }
}

impl Case {
    fn flags(self) -> u32 {
        match self {
            Self::StatelessNoChecksum | Self::Stateless => {
                ConfigFlags::ALLOW_ALL | ConfigFlags::STATELESS
            }
            Self::Full | Self::FullPadded | Self::NotOurs => 0,
        }
    }

    fn frame(self, ipv6: bool) -> Frame {
        let mut payload = frame::request(1, 0xe000_0000_0000_0000, 0x8b21, 9);
        if matches!(self, Self::Full | Self::FullPadded) {
            payload.extend(frame::our_tlv(7, 0x08));
        }
        if matches!(self, Self::FullPadded) {
            payload.extend(frame::tlv(0x80, 1, &[0; 996]));
        }
        let [one, other] = ends(ipv6);
        let mut frame = Frame::udp((one, PORT), (other, PORT), payload);
        match self {
            Self::StatelessNoChecksum => frame.checksum = Checksum::Zero,
            Self::NotOurs => frame.destination_port = PORT + 1,
            _ => {}
        }
        frame
    }

    fn words(self) -> &'static str {
        match self {
            Self::StatelessNoChecksum => "stateless, no checksum",
            Self::Stateless => "stateless",
            Self::Full => "policy, state, checksums",
            Self::FullPadded => "the same, 1,000 B padding",
            Self::NotOurs => "not ours",
        }
    }
}

impl Report {
    fn to_markdown(&self) -> String {
        let Machine {
            cpus,
            model,
            kernel,
            date,
        } = &self.machine;
        let mut text = format!(
            "{date}: {cpus} CPUs ({model}), Linux {kernel}; BPF_PROG_TEST_RUN.\nns per packet, median of {} rounds of {} packets (least to greatest).\n\n\
             | mode | IP | packet | program | above empty | above two clock reads |\n|---|---|---|---|---|---|\n",
            self.rounds, self.packets
        );
        for row in &self.rows {
            let cells = [
                row.mode.to_owned(),
                row.ip.to_string(),
                row.case.words().to_owned(),
                whole(&row.ns),
                whole(&row.above_empty_ns),
                row.above_two_clocks_ns
                    .as_ref()
                    .map_or_else(String::new, whole),
            ];
            text.extend(["| ", &cells.join(" | "), " |\n"]);
        }
        text
    }
}

/// Without decimals: the kernel gives none.
fn whole(Spread { median, min, max }: &Spread) -> String {
    format!("{median:.0} ({min:.0} to {max:.0})")
}

fn baselines(hook: Hook) -> (&'static str, &'static str) {
    match hook {
        Hook::Xdp => ("xdp_pass", "xdp_two_clocks"),
        Hook::Tc => ("tc_pass", "tc_two_clocks"),
    }
}

fn ends(ipv6: bool) -> [IpAddr; 2] {
    [1, 2].map(|number: u8| {
        if ipv6 {
            [0xfd77, 0, 0, 0, 0, 0, 0, u16::from(number)].into()
        } else {
            [10, 77, 0, number].into()
        }
    })
}

const CASES: [Case; 5] = [
    Case::StatelessNoChecksum,
    Case::Stateless,
    Case::Full,
    Case::FullPadded,
    Case::NotOurs,
];
const PORT: u16 = dt_common::STAMP_PORT;
