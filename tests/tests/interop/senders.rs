//! Senders of others against our reflector.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use dt_tests::{Host, given, skip_unless_equipped};
use serde_json::Value;

use crate::field::{Field, MODES};

#[test]
fn stamp_suite_gets_every_reply_in_mode_xdp() -> Result<()> {
    skip_unless_equipped!();
    stamp_suite_gets_every_reply("xdp")
}

#[test]
fn stamp_suite_gets_every_reply_in_mode_tc() -> Result<()> {
    skip_unless_equipped!();
    stamp_suite_gets_every_reply("tc")
}

#[test]
fn stamp_suite_gets_every_reply_in_mode_socket() -> Result<()> {
    skip_unless_equipped!();
    stamp_suite_gets_every_reply("socket")
}

#[test]
fn tlvs_come_back_with_the_flags_of_rfc_8972() -> Result<()> {
    skip_unless_equipped!();
    for mode in MODES {
        let field = Field::new(mode)?;
        let _reflector = field.reflect(mode)?;
        for to in our_addresses(&field) {
            // Known, unknown, and one whose length leads beyond the packet.
            let cases: [(&[u8], &[u8]); 4] = [
                (&[0x80, 1, 0, 4, 9, 9, 9, 9], &[0x00, 1, 0, 4, 9, 9, 9, 9]),
                (&[0x80, 250, 0, 2, 7, 7], &[0x80, 250, 0, 2, 7, 7]),
                (&[0x00, 250, 0, 2, 7, 7], &[0x80, 250, 0, 2, 7, 7]),
                (&[0x80, 1, 0, 9, 5], &[0x40, 1, 0, 9, 5]),
            ];
            for (sent, expected) in cases {
                let request = [&request(5)[..], sent].concat();
                let reply = exchange(field.foreign(), (to, 0), &request)?;
                let reply =
                    reply.with_context(|| format!("{mode}, {to}: no reply to {sent:02x?}"))?;
                assert_eq!(reply.len(), request.len(), "{mode}, {to}: {sent:02x?}");
                // Of a malformed TLV only M is prescribed.
                let flags = if expected[0] == 0x40 {
                    reply[44] & 0x40
                } else {
                    reply[44]
                };
                assert_eq!(flags, expected[0], "{mode}, {to}: flags of {sent:02x?}");
                assert_eq!(reply[45..], expected[1..], "{mode}, {to}: {sent:02x?}");
            }
        }
    }
    Ok(())
}

#[test]
fn short_twamp_light_requests_are_answered_at_full_length_for_the_allowed_only() -> Result<()> {
    skip_unless_equipped!();
    for mode in MODES {
        let field = Field::new(mode)?;
        let _reflector = field.reflect(mode)?;
        for to in our_addresses(&field) {
            for length in [14, 41, 44] {
                let request = &request(9)[..length];
                let reply = exchange(field.foreign(), (to, 0), request)?;
                let reply =
                    reply.with_context(|| format!("{mode}, {to}: no reply to {length} bytes"))?;
                assert_eq!(reply.len(), 44, "{mode}, {to}: {length} bytes");
                assert_eq!(
                    reply[24..28],
                    [0, 0, 0, 9],
                    "{mode}, {to}: the sequence number"
                );
                assert_eq!(reply[40], 255, "{mode}, {to}: the TTL");
                let stranger = exchange(field.lab.host("n3"), (to, 0), request)?;
                assert_eq!(
                    stranger, None,
                    "{mode}, {to}: {length} bytes from a stranger"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn a_request_from_a_reflectors_port_is_not_answered() -> Result<()> {
    skip_unless_equipped!();
    for mode in MODES {
        let field = Field::new(mode)?;
        let _reflector = field.reflect(mode)?;
        for to in our_addresses(&field) {
            for length in [14, 44] {
                let reply = exchange(field.foreign(), (to, 862), &request(1)[..length])?;
                assert_eq!(reply, None, "{mode}, {to}: {length} bytes from port 862");
            }
        }
    }
    Ok(())
}

fn stamp_suite_gets_every_reply(mode: &str) -> Result<()> {
    let field = Field::new(mode)?;
    let _reflector = field.reflect(mode)?;
    for to in our_addresses(&field) {
        let plain = stamp_suite(&field, to, &[])?;
        assert_eq!(plain["packets_received"], COUNT, "{mode}, {to}: {plain}");
        // Type 1 we know, type 2 (location) we do not.
        let tlvs = ["--extra-padding", "40", "--location"];
        let tagged = stamp_suite(&field, to, &tlvs)?;
        assert_eq!(tagged["packets_received"], COUNT, "{mode}, {to}: {tagged}");
        let flags = &tagged["measurements"]["tlv_validation"]["flags"];
        assert_eq!(flags["unrecognized"], COUNT, "{mode}, {to}: {tagged}");
        assert_eq!(flags["malformed"], 0, "{mode}, {to}: {tagged}");
        println!("{mode} {to}: {}", tagged["measurements"]["tlv_validation"]);
    }
    Ok(())
}

fn stamp_suite(field: &Field, to: IpAddr, options: &[&str]) -> Result<Value> {
    let foreign = field.foreign();
    let from = if to.is_ipv4() {
        foreign.ipv4().to_string()
    } else {
        foreign.ipv6().to_string()
    };
    let (tool, to, count) = (
        given::tool("stamp-suite")?,
        to.to_string(),
        COUNT.to_string(),
    );
    let tool = tool.to_string_lossy();
    let words = [
        &tool,
        "-r",
        &to,
        "-S",
        &from,
        "-c",
        &count,
        "-d",
        "2",
        "-L",
        "2",
        "--ssid",
        "77",
        "--output-format",
        "json",
    ];
    let output = foreign.run(&[&words, options].concat())?;
    let summary = output.lines().rfind(|line| line.starts_with('{'));
    Ok(serde_json::from_str(
        summary.context("it printed no summary")?,
    )?)
}

/// Sends one datagram and waits a moment for the answer. From port 0: any.
fn exchange(from: &Host, (to, port): (IpAddr, u16), request: &[u8]) -> Result<Option<Vec<u8>>> {
    let local: IpAddr = if to.is_ipv4() {
        from.ipv4().into()
    } else {
        from.ipv6().into()
    };
    from.enter(|| -> Result<Option<Vec<u8>>> {
        let socket = UdpSocket::bind((local, port))?;
        // Hops are counted from 255 down (RFC 8762 section 4.2.1).
        if to.is_ipv4() {
            socket.set_ttl(255)?;
        } else {
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Ipv6Ttl, &255)?;
        }
        socket.send_to(request, SocketAddr::new(to, 862))?;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        let mut reply = [0; 2048];
        Ok(match socket.recv(&mut reply) {
            Ok(length) => Some(reply[..length].to_vec()),
            Err(_) => None,
        })
    })?
}

/// A plain STAMP request with this sequence number and SSID 7.
fn request(seq: u8) -> [u8; 44] {
    let mut request = [0; 44];
    request[3] = seq;
    request[4..12].copy_from_slice(&0xe000_0000_8000_0000_u64.to_be_bytes());
    request[12..16].copy_from_slice(&[0, 1, 0, 7]);
    request
}

fn our_addresses(field: &Field) -> [IpAddr; 2] {
    [field.ours().ipv4().into(), field.ours().ipv6().into()]
}

const COUNT: u32 = 1000;
