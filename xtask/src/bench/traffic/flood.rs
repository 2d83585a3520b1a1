//! A flood on the probe port: strangers, or somebody who takes a member's address.

use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData};
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use dt_common::map::Reason;
use dt_tests::frame::{self, Frame};
use dt_tests::{Interrupt, LabObject};
use nix::net::if_::if_nametoindex;
use serde::Serialize;

use super::Options;
use crate::bench::pair::{Asked, Pair, hold, measured};
use crate::build::Built;
use crate::clock::{self, Stopwatch};
use crate::demo::tally::Span;

/// Who floods.
#[derive(Clone, Copy, Debug, Serialize)]
enum Flood {
    /// Nobody: the baseline.
    None,
    /// As many addresses as there are in a /16, none of them allowed.
    Strangers,
    /// The address of a member that is not the prober.
    SpoofedMember,
}

/// What one flood did.
#[derive(Serialize)]
pub struct Row {
    flood: Flood,
    /// Frames sent per second.
    pps: f64,
    /// Frames that were sent and that the host's program saw, as a share of those sent.
    seen: f64,
    /// Of those, the ones that were answered, per second.
    answered_pps: f64,
    /// Probes of ours meanwhile, and how many of them were lost.
    probes: u64,
    lost: u64,
}

/// One flood after the other, each with agents of its own.
pub fn rows(built: &Built, options: &Options, interrupt: &Interrupt) -> Result<Vec<Row>> {
    let floods = [Flood::None, Flood::Strangers, Flood::SpoofedMember];
    let row = |flood| {
        let row = measure(built, options, flood, interrupt).with_context(|| format!("{flood:?}"));
        if let Ok(row) = &row {
            eprint!("  {}", row.to_markdown());
        }
        row
    };
    floods.into_iter().map(row).collect()
}

fn measure(built: &Built, options: &Options, flood: Flood, interrupt: &Interrupt) -> Result<Row> {
    let mut pair = Pair::raise(&built.agent, false)?;
    pair.add_member("spoofed", IpAddr::V4(SPOOFED))?;
    let asked = Asked {
        rate: RATE,
        compare_every: 0,
        sender: "auto",
    };
    let agents = pair.start_agents(asked, interrupt)?;
    hold(SETTLE, interrupt)?;
    let verdicts = |reasons: &[Reason]| -> Result<u64> {
        reasons
            .iter()
            .map(|reason| pair.answering_counter(*reason))
            .sum()
    };
    let seen_before = verdicts(&SEEN)?;
    let answered_before = verdicts(&[Reason::Reflected])?;
    let start_unix_ns = clock::now_unix_ns();
    let watch = Stopwatch::start();
    let length = Duration::from_secs(options.flood_seconds.into());
    let frames = match flood {
        Flood::None => {
            hold(length, interrupt)?;
            0
        }
        Flood::Strangers => send(built, &pair, STRANGERS, 65_536, options, interrupt)?,
        Flood::SpoofedMember => send(built, &pair, SPOOFED, 1, options, interrupt)?,
    };
    let seconds = watch.elapsed().as_secs_f64();
    let span = Span {
        start_unix_ns,
        end_unix_ns: clock::now_unix_ns(),
    };
    hold(SETTLE, interrupt)?;
    let seen = verdicts(&SEEN)? - seen_before;
    let answered = verdicts(&[Reason::Reflected])? - answered_before;
    let tally = agents.finish()?;
    let measured = measured(&tally).context("nothing was measured")?;
    let probes = measured.sent_pps(span) * span.length_ns() as f64 / 1e9;
    // Ours are answered as well, a little longer than the flood lasted.
    let ours = u64::from(RATE) as f64 * (seconds + SETTLE.as_secs_f64());
    Ok(Row {
        flood,
        pps: frames as f64 / seconds,
        seen: (seen as f64 - ours).max(0.0) / (frames as f64).max(1.0),
        answered_pps: (answered as f64 - ours).max(0.0) / seconds,
        probes: probes as u64,
        lost: measured.counters.lost(),
    })
}

/// Sends frames to the answering host by live frames, from the prober's end of the cable; how many.
fn send(
    built: &Built,
    pair: &Pair,
    first: Ipv4Addr,
    sources: u64,
    options: &Options,
    interrupt: &Interrupt,
) -> Result<u64> {
    let near = pair.probing();
    // The program hangs on a cable of its own, because the prober's has one of ours; see `live_send`.
    near.run(&[
        "ip", "link", "add", SPARE, "type", "veth", "peer", "name", "spare1",
    ])?;
    let mut object = LabObject::load_file(&built.lab_object, &[])?;
    object.attach_xdp("flood_send", near, SPARE)?;
    let device = near.device_to(pair.answering().name());
    let ifindex = near.enter(|| if_nametoindex(device))??;
    let words = [u64::from(ifindex), 0, u64::from(u32::from(first)), sources];
    let mut map: Array<&mut MapData, u64> = object
        .ebpf_mut()
        .map_mut("FLOOD")
        .context("no map FLOOD")?
        .try_into()?;
    for (index, word) in (0..).zip(words) {
        map.set(index, word, 0)?;
    }
    let frame = frame(pair)?;
    let xdp: &Xdp = object
        .ebpf_mut()
        .program("flood_send")
        .context("no program flood_send")?
        .try_into()?;
    let frames = near.enter(|| burst(xdp, &frame, options, interrupt))??;
    near.run(&["ip", "link", "del", SPARE])?;
    Ok(frames)
}

/// Sends at the rate asked for, or as fast as this goes.
fn burst(xdp: &Xdp, frame: &[u8], options: &Options, interrupt: &Interrupt) -> Result<u64> {
    let length = Duration::from_secs(options.flood_seconds.into());
    let watch = Stopwatch::start();
    let mut frames = 0;
    loop {
        let elapsed = watch.elapsed();
        if elapsed >= length {
            return Ok(frames);
        }
        let due = elapsed.as_secs_f64() * f64::from(options.flood_rate);
        if due < (frames + u64::from(BATCH)) as f64 {
            // Shorter than a sleep: whoever floods a host has a host of his own.
            thread::yield_now();
            continue;
        }
        ensure!(!interrupt.arrived(), "interrupted");
        let mut run = TestRunOptions::new();
        run.data_in = Some(frame);
        run.repeat = BATCH;
        run.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
        xdp.test_run(run)?;
        frames += u64::from(BATCH);
    }
}

/// A probe as an agent sends it, but for its source.
fn frame(pair: &Pair) -> Result<Vec<u8>> {
    let mut payload = frame::request(0, 1, 0x4102, 9);
    payload.extend(frame::our_tlv(7, 0x08));
    let hardware = |name: &str, peer: &str| -> Result<[u8; 6]> {
        let host = if name == pair.probing().name() {
            pair.probing()
        } else {
            pair.answering()
        };
        let device = host.device_to(peer);
        let text = host.run(&["ip", "-br", "link", "show", "dev", device])?;
        let address = text.split_whitespace().nth(2).context("no address")?;
        let mut bytes = [0; 6];
        for (byte, digits) in bytes.iter_mut().zip(address.split(':')) {
            *byte = u8::from_str_radix(digits, 16)?;
        }
        Ok(bytes)
    };
    let (near, far) = (pair.probing().name(), pair.answering().name());
    let frame = Frame {
        source_mac: hardware(near, far)?,
        destination_mac: hardware(far, near)?,
        ..Frame::udp(
            (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 50_000),
            (pair.target(), dt_common::STAMP_PORT),
            payload,
        )
    };
    Ok(frame.bytes())
}

impl Row {
    pub fn to_markdown(&self) -> String {
        let who = match self.flood {
            Flood::None => "none",
            Flood::Strangers => "65,536 addresses, none allowed",
            Flood::SpoofedMember => "the address of another member",
        };
        format!(
            "| {who} | {:.0} | {:.1} | {:.0} | {} | {} | {:.4} |\n",
            self.pps,
            self.seen * 100.0,
            self.answered_pps,
            self.probes,
            self.lost,
            self.lost as f64 / self.probes.max(1) as f64 * 100.0
        )
    }
}

/// Verdicts that a frame of a flood, or a probe of ours, can get.
const SEEN: [Reason; 6] = [
    Reason::Reflected,
    Reason::NotAllowed,
    Reason::SourceRate,
    Reason::TotalRate,
    Reason::CorruptRequest,
    Reason::Malformed,
];
/// Round trips per second of the agent beside the flood.
const RATE: u32 = 1_000;
const BATCH: u32 = 64;
const SPOOFED: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 99);
const STRANGERS: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
const SPARE: &str = "spare0";
const SETTLE: Duration = Duration::from_secs(3);
pub const HEAD: &str = "\
| flood from | frames/s | seen by the program, % | answered/s | probes of ours | lost | lost, % |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
";
