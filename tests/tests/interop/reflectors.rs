//! `dt-agent ping` against reflectors of others.

use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use dt_tests::skip_unless_equipped;

use crate::field::{Field, MODES, texts};

#[test]
fn ping_in_mode_xdp_gets_every_reply_of_stamp_suite() -> Result<()> {
    skip_unless_equipped!();
    ping_gets_every_reply("xdp")
}

#[test]
fn ping_in_mode_tc_gets_every_reply_of_stamp_suite() -> Result<()> {
    skip_unless_equipped!();
    ping_gets_every_reply("tc")
}

#[test]
fn ping_in_mode_socket_gets_every_reply_of_stamp_suite() -> Result<()> {
    skip_unless_equipped!();
    ping_gets_every_reply("socket")
}

#[test]
fn ping_understands_ptp_stamps_counting_reflectors_and_those_that_copy_tlvs() -> Result<()> {
    skip_unless_equipped!();
    let field = Field::new("tc")?;
    let address = field.foreign_addresses()[0];
    let kinds: [&[&str]; 3] = [
        &["-K", "PTP"],
        &["--stateful-reflector"],
        &["--tlv-mode", "ignore"],
    ];
    for kind in kinds {
        let _suite = field.stamp_suite(address, kind)?;
        let target = address.to_string();
        // Long patience: that reflector is a process like others, and late is not what is judged here.
        let options = [
            "-c", "200", "-i", "0.002", "-W", "5", "--mode", "tc", "-q", &target,
        ];
        let summary = field.ping_summary(&options)?;
        assert_eq!(summary["received"], 200, "{kind:?}: {summary}");
        assert_eq!(summary["rtt_ns"]["count"], 200, "{kind:?}: {summary}");
        assert_eq!(summary["ptp"], kind.contains(&"PTP"), "{summary}");
    }
    Ok(())
}

#[test]
fn a_reflector_that_knows_neither_tlvs_nor_sessions_is_measured_all_the_same() -> Result<()> {
    skip_unless_equipped!();
    for mode in MODES {
        let field = Field::new(mode)?;
        for address in field.foreign_addresses() {
            let done = AtomicBool::new(false);
            let output = thread::scope(|scope| {
                let (field, done) = (&field, &done);
                let old = scope.spawn(move || old_reflector(field, address, done));
                let target = address.to_string();
                let options = [
                    "-c", "100", "-i", "0.005", "-W", "0.3", "--mode", mode, "-q", &target,
                ];
                let output = field.ping(&options);
                done.store(true, Ordering::Relaxed);
                old.join().expect("no panic")?;
                output
            })?;
            let (stdout, stderr) = texts(&output);
            assert!(
                output.status.success(),
                "{mode} {address}: {stdout}{stderr}"
            );
            let summary: serde_json::Value = serde_json::from_str(&stdout)?;
            assert_eq!(summary["sent"], 100, "{mode}: {summary}");
            assert_eq!(summary["received"], 100, "{mode}: {summary}");
            assert_eq!(summary["unanswered_with_tlv"], 3, "{mode}: {summary}");
            assert!(stderr.contains("plain STAMP of 44 bytes"), "{stderr}");
        }
    }
    Ok(())
}

#[test]
fn ping_ends_as_ping_does() -> Result<()> {
    skip_unless_equipped!();
    let field = Field::new("tc")?;
    let nobody = field.foreign_addresses()[0].to_string();
    let status = |options: &[&str]| Ok::<_, anyhow::Error>(field.ping(options)?.status.code());
    assert_eq!(
        status(&["-c", "2", "-i", "0.01", "-W", "0.2", &nobody])?,
        Some(1)
    );
    assert_eq!(status(&["-c", "1", "-w", "0.3", &nobody])?, Some(1));
    assert_eq!(status(&["-c", "1", "no-such-host.invalid"])?, Some(2));
    assert_eq!(status(&["-c", "1", "-4", "fd77::2"])?, Some(2));
    assert_eq!(std::fs::read_dir(field.lab.pin_dir())?.count(), 0);
    Ok(())
}

fn ping_gets_every_reply(mode: &str) -> Result<()> {
    let field = Field::new(mode)?;
    for address in field.foreign_addresses() {
        let _suite = field.stamp_suite(address, &[])?;
        let target = address.to_string();
        let summary = field.ping_summary(&[
            "-c",
            "1000",
            "-i",
            "0.002",
            "-q",
            "--compare",
            "--mode",
            mode,
            &target,
        ])?;
        assert_eq!(summary["sent"], 1000, "{summary}");
        assert_eq!(summary["received"], 1000, "{summary}");
        assert_eq!(summary["t4"], serde_json::json!([mode]), "{summary}");
        assert_eq!(summary["peer"], "a STAMP reflector of others", "{summary}");
        for times in ["rtt_ns", "user_rtt_ns", "residence_ns"] {
            assert_eq!(summary[times]["count"], 1000, "{times}: {summary}");
        }
        assert_eq!(summary["hops_forward"], 0, "{summary}");
        println!("{mode} {address}: {summary}");
    }
    Ok(())
}

/// Answers packets of exactly 44 bytes, without an SSID, as a reflector of RFC 8762 that drops what it does not know.
fn old_reflector(field: &Field, address: IpAddr, done: &AtomicBool) -> Result<()> {
    let socket = field
        .foreign()
        .enter(|| UdpSocket::bind((address, 862)))??;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut request = [0; 2048];
    while !done.load(Ordering::Relaxed) {
        let Ok((44, from)) = socket.recv_from(&mut request) else {
            continue;
        };
        let mut reply = [0_u8; 44];
        reply[..14].copy_from_slice(&request[..14]);
        reply[16..24].copy_from_slice(&request[4..12]);
        reply[24..38].copy_from_slice(&request[..14]);
        reply[40] = 255;
        socket.send_to(&reply, from)?;
    }
    Ok(())
}
