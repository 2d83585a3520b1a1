//! scapy's `contrib.stamp` as a third opinion: it builds and dissects the same bytes as `dt-common`.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use dt_common::time::{ErrorEstimate, NtpTime};
use dt_common::wire::{DtFlags, DtTlv, ReflectorPacket, SenderPacket, Tlvs};
use dt_tests::{frame, given, skip_unless_equipped};
use serde_json::{Value, json};
use zerocopy::IntoBytes;
use zerocopy::network_endian::{U16, U32, U64};

use crate::rig::{MEMBER, Rig, probe, request_from};

#[test]
fn scapy_builds_and_dissects_the_same_bytes_as_we_do() -> Result<()> {
    skip_unless_equipped!();
    let mut cases = Vec::new();
    // NTP and PTP, each synchronised or not; and times around the turn of an era.
    for (estimate, time) in [
        (0x8102, 0xe000_0000_1234_5678),
        (0x0001, 0),
        (0x3fff, u64::MAX),
        (0xc105, 0x6789_abcd_3b9a_c9ff),
    ] {
        for tlvs in tlv_lists() {
            let request = request(estimate, time);
            cases.push(case_of(request.as_bytes(), &tlvs, false)?);
            let (t2, other) = (NtpTime(time ^ 0xff), ErrorEstimate(0x8203));
            let mut reply = ReflectorPacket::answer(&request, 77, t2, other, 254);
            reply.timestamp = U64::new(time.wrapping_add(1));
            cases.push(case_of(reply.as_bytes(), &tlvs, true)?);
        }
    }
    agree(&cases)
}

#[test]
fn scapy_dissects_what_the_kernel_answered_as_we_do() -> Result<()> {
    skip_unless_equipped!();
    let mut cases = Vec::new();
    for hook in crate::rig::HOOKS {
        let mut rig = Rig::new(hook)?;
        let request = request_from(
            true,
            MEMBER,
            [probe(3, 7), tlv_lists().concat().concat()].concat(),
        );
        let (_, _, reply) = rig.judge(&request.bytes())?;
        cases.push(case(&reply[request.udp_offset() + 8..], true)?);
    }
    agree(&cases)
}

/// Has scapy build what each case says and dissect what each case is, and compares both with ours.
fn agree(cases: &[Value]) -> Result<()> {
    let answers = ask_scapy(&Value::from(cases))?;
    let answers = answers
        .as_array()
        .context("scapy answered with something else")?;
    ensure!(
        answers.len() == cases.len(),
        "{} answers to {} cases",
        answers.len(),
        cases.len()
    );
    for (ours, theirs) in cases.iter().zip(answers) {
        assert_eq!(ours, theirs, "ours on the left, scapy's on the right");
    }
    Ok(())
}

fn case_of(base: &[u8], tlvs: &[Vec<u8>], reflector: bool) -> Result<Value> {
    case(&[base, &tlvs.concat()].concat(), reflector)
}

/// A packet as `dt-common` understands it.
fn case(packet: &[u8], reflector: bool) -> Result<Value> {
    let (fields, rest) = if reflector {
        let (reply, rest) = ReflectorPacket::parse(packet)?;
        (reply_fields(reply), rest)
    } else {
        let (request, rest) = SenderPacket::parse(packet)?;
        (request_fields(request), rest)
    };
    let mut tlvs = Vec::new();
    for tlv in Tlvs::new(rest) {
        let tlv = tlv?;
        let (flags, kind) = (tlv.header.flags, tlv.header.kind);
        tlvs.push(json!({ "flags": flags, "type": kind, "value": hex(tlv.value) }));
    }
    Ok(json!({ "reflector": reflector, "fields": fields, "tlvs": tlvs, "bytes": hex(packet) }))
}

fn request_fields(request: &SenderPacket) -> Value {
    json!({
        "seq": request.seq.get(),
        "ts": request.timestamp.get(),
        "err_estimate": request.error_estimate.get(),
        "ssid": request.ssid.get(),
    })
}

fn reply_fields(reply: &ReflectorPacket) -> Value {
    json!({
        "seq": reply.seq.get(),
        "ts": reply.timestamp.get(),
        "err_estimate": reply.error_estimate.get(),
        "ssid": reply.ssid.get(),
        "ts_rx": reply.receive_timestamp.get(),
        "seq_sender": reply.sender_seq.get(),
        "ts_sender": reply.sender_timestamp.get(),
        "err_estimate_sender": reply.sender_error_estimate.get(),
        "ttl_sender": reply.sender_ttl,
    })
}

fn request(estimate: u16, time: u64) -> SenderPacket {
    SenderPacket {
        seq: U32::new(0xfedc_ba98),
        timestamp: U64::new(time),
        error_estimate: U16::new(estimate),
        ssid: U16::new(0x0102),
        ..SenderPacket::default()
    }
}

/// None; ours; ours, padding and others with each of the flags.
fn tlv_lists() -> Vec<Vec<Vec<u8>>> {
    let ours = DtTlv::request(0x0a0b_0c0d, DtFlags::AGENT)
        .as_bytes()
        .to_vec();
    let padding = frame::tlv(0x80, 1, &[0x5a; 33]);
    let flagged =
        [0x00, 0x80, 0x40, 0x20, 0xe0].map(|flags| frame::tlv(flags, 4, &[1, 2, 3, flags]));
    vec![
        Vec::new(),
        vec![ours.clone()],
        [vec![ours, padding, frame::tlv(0, 250, &[])], flagged.into()].concat(),
    ]
}

fn ask_scapy(cases: &Value) -> Result<Value> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/oracle/scapy_stamp.py");
    let mut child = Command::new(given::python()?)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start Python")?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    stdin.write_all(cases.to_string().as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "scapy_stamp.py ended with {}",
        output.status
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
