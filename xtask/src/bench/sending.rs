//! `cargo xtask bench sending`: what one probe costs at the least, by each way of making it.
//!
//! Bare ways, without schedule, session or answer: a frame of 138 bytes with a number and T1 in it goes over a veth and is
//! counted and dropped by XDP at the far end. One CPU does all of it, the far end's part included, and is never idle: so
//! the time that passes is the cost.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::maps::Array;
use aya::programs::{TcAttachType, TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use clap::{Args, ValueEnum as _, value_parser};
use dt_tests::frame::{self, Frame};
use dt_tests::{Host, Lab, LabObject};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::sockopt::Mark;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg, setsockopt};
use serde::Serialize;

use super::json::JsonFile;
use super::machine::{Machine, stay_on_one_cpu};
use super::spread::Spread;
use crate::build;
use crate::clock::Stopwatch;
use crate::setup::{self, Group};
use crate::workspace::Workspace;

/// Flags of `cargo xtask bench sending`.
#[derive(Args)]
pub struct Options {
    /// Turns of each way
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = value_parser!(u32).range(1..=1_000))]
    rounds: u32,

    /// Probes of each turn
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = value_parser!(u32).range(1_000..=10_000_000))]
    probes: u32,

    /// Also write the result to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// How a probe is made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Way {
    /// A socket for all, `sendmmsg`, T1 by a program at egress.
    Sendmmsg,
    /// One packet lists probes; a program at egress makes a clone of it for each, T1 by itself on the clone.
    CloneRedirect,
    /// `BPF_PROG_RUN` of an XDP program on live frames.
    LiveFrames,
}

#[derive(Serialize)]
struct Report {
    machine: Machine,
    probes: u32,
    rounds: u32,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    way: Way,
    batch: u32,
    ns: Spread,
    of_sendmmsg: Spread,
}

/// Sets up, builds, times, and prints.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let json = JsonFile::create(options.json.as_deref())?;
    setup::run(workspace, Group::Bench)?;
    let built = build::run(workspace)?;
    dt_tests::sweep()?;
    let machine = Machine::look()?;
    let lab = Lab::mesh(2)?;
    let mut bench = Bench {
        options,
        object: LabObject::load_file(&built.lab_object, &[])?,
        lab: &lab,
    };
    bench.attach()?;
    let report = Report {
        machine,
        probes: options.probes,
        rounds: options.rounds,
        rows: bench.rows()?,
    };
    print!("{}", report.to_markdown());
    json.write(&report)
}

struct Bench<'a> {
    options: &'a Options,
    object: LabObject,
    lab: &'a Lab,
}

impl Bench<'_> {
    fn attach(&mut self) -> Result<()> {
        let (near, far) = (self.lab.host("n1"), self.lab.host("n2"));
        let device = near.device_to("n2");
        self.object
            .attach_xdp("xdp_sink", far, far.device_to("n1"))?;
        self.object
            .attach_tc("fan_out", near, device, TcAttachType::Egress)?;
        self.object.attach_xdp("live_send", near, device)?;
        let index = near.enter(|| if_nametoindex(device))??;
        words(self.object.ebpf_mut(), "SENDING")?.set(0, u64::from(index), 0)?;
        self.lab.wait_reachable()
    }

    fn rows(&mut self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for batch in BATCHES {
            let mut turns: Vec<[f64; 3]> = Vec::new();
            for _ in 0..self.options.rounds {
                let mut turn = [0.0; 3];
                for (ns, way) in turn.iter_mut().zip(Way::value_variants()) {
                    *ns = self.turn(*way, batch)?;
                }
                turns.push(turn);
            }
            for (index, way) in Way::value_variants().iter().enumerate() {
                let spread = |of: &dyn Fn(&[f64; 3]) -> f64| {
                    Spread::of(turns.iter().map(of)).context("no rounds")
                };
                rows.push(Row {
                    way: *way,
                    batch,
                    ns: spread(&|turn| turn[index])?,
                    of_sendmmsg: spread(&|turn| turn[index] / turn[0])?,
                });
            }
        }
        Ok(rows)
    }

    /// Nanoseconds a probe; every one of them must have reached the far end.
    fn turn(&mut self, way: Way, batch: u32) -> Result<f64> {
        let calls = self.options.probes / batch;
        let (near, far) = (self.lab.host("n1"), self.lab.host("n2"));
        let before = self.sunk()?;
        let mut sender = Sender::open(way, batch, near, far)?;
        let ebpf = self.object.ebpf_mut();
        let took = near.enter(|| {
            stay_on_one_cpu()?;
            // Neighbour entries, caches, and the clock's speed.
            for _ in 0..WARM_UP {
                sender.send(ebpf)?;
            }
            let began = Stopwatch::start();
            for _ in 0..calls {
                sender.send(ebpf)?;
            }
            anyhow::Ok(began.elapsed())
        })??;
        let (sent, sunk) = (u64::from((calls + WARM_UP) * batch), self.sunk()? - before);
        ensure!(sunk == sent, "{way:?}: {sunk} of {sent} probes arrived");
        Ok(took.as_nanos() as f64 / f64::from(calls * batch))
    }

    fn sunk(&mut self) -> Result<u64> {
        Ok(words(self.object.ebpf_mut(), "SUNK")?.get(&0, 0)?)
    }
}

fn words<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<Array<&'a mut aya::maps::MapData, u64>> {
    let map = ebpf.map_mut(name);
    Ok(map
        .with_context(|| format!("the lab object has no map {name}"))?
        .try_into()?)
}

/// What sends one batch.
enum Sender {
    Probes(UdpSocket, SocketAddrV4, Vec<[u8; PROBE]>),
    Orders(UdpSocket, Vec<u8>),
    Frame(Vec<u8>, u32),
}

impl Sender {
    fn open(way: Way, batch: u32, near: &Host, far: &Host) -> Result<Self> {
        let to = SocketAddrV4::new(far.ipv4(), PORT);
        let socket = |mark: u32| -> Result<UdpSocket> {
            let socket = near.enter(|| UdpSocket::bind((near.ipv4(), 0)))??;
            setsockopt(&socket, Mark, &mark)?;
            socket.connect(to)?;
            Ok(socket)
        };
        Ok(match way {
            Way::Sendmmsg => {
                Self::Probes(socket(PROBE_MARK)?, to, vec![[0; PROBE]; batch as usize])
            }
            Way::CloneRedirect => {
                Self::Orders(socket(ORDER_MARK)?, vec![1; ORDER * batch as usize])
            }
            Way::LiveFrames => {
                let mut payload = frame::request(1, 0, 0, 9);
                payload.resize(PROBE, 0);
                let source = (IpAddr::V4(near.ipv4()), 49_152);
                let frame = Frame::udp(source, (IpAddr::V4(far.ipv4()), PORT), payload);
                Self::Frame(frame.bytes(), batch)
            }
        })
    }

    fn send(&mut self, ebpf: &Ebpf) -> Result<()> {
        match self {
            Self::Probes(socket, to, probes) => {
                let slices: Vec<_> = probes.iter().map(|probe| [IoSlice::new(probe)]).collect();
                let to = vec![Some(SockaddrIn::from(*to)); probes.len()];
                let mut headers = MultiHeaders::preallocate(probes.len(), None);
                let sent = sendmmsg(
                    socket.as_raw_fd(),
                    &mut headers,
                    &slices,
                    &to,
                    [],
                    MsgFlags::empty(),
                )?;
                ensure!(sent.count() == probes.len(), "not all were sent");
            }
            Self::Orders(socket, orders) => {
                // What a program at egress drops is an error to the sender, ENOBUFS, when it is told at all.
                let _ = socket.send(orders);
            }
            Self::Frame(frame, batch) => {
                let xdp: &Xdp = ebpf
                    .program("live_send")
                    .context("no program live_send")?
                    .try_into()?;
                let mut options = TestRunOptions::new();
                options.data_in = Some(frame);
                options.repeat = *batch;
                options.attrs = TestRunAttrs::new().xdp_live_frames(*batch);
                xdp.test_run(options)?;
            }
        }
        Ok(())
    }
}

impl Report {
    fn to_markdown(&self) -> String {
        use std::fmt::Write as _;
        let mut text = format!(
            "{}\nns a probe on one busy CPU, the far end's part included; {} rounds of {} probes: median (least to greatest).\n\n\
             | probes at a time | way | ns a probe | of sendmmsg |\n| ---: | --- | ---: | ---: |\n",
            self.machine.line(),
            self.rounds,
            self.probes
        );
        for row in &self.rows {
            let _ = writeln!(
                text,
                "| {} | {:?} | {} | {} |",
                row.batch, row.way, row.ns, row.of_sendmmsg
            );
        }
        text
    }
}

const BATCHES: [u32; 3] = [1, 10, 64];
const WARM_UP: u32 = 200;
const PORT: u16 = 862;
/// Bytes of UDP payload.
const PROBE: usize = 96;
/// Bytes that say what is special about one probe. As `dt-ebpf/src/lab/sending.rs` has it, like the marks.
const ORDER: usize = 16;
const PROBE_MARK: u32 = 0x6474_0001;
const ORDER_MARK: u32 = 0x6474_0002;
