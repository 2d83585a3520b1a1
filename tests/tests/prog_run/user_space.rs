//! The user-space parser and the agent's reflector, judged on the same frames.

use anyhow::{Context, Result, bail, ensure};
use dt_agent::engine::random::Random;
use dt_agent::engine::reflector::{AllowList, Policy, Rate, Reflector, Request, set_sent};
use dt_common::map::{Allowed, AllowedFlags};
use dt_common::time::{ErrorEstimate, MonoNanos, NtpTime};
use dt_common::wire::{DtTlv, ReflectorPacket, SenderPacket, Tlvs};
use dt_tests::frame::Frame;
use std::net::{IpAddr, Ipv6Addr};

use crate::oracle::{Oracle, Place, Settings};
use crate::packet::{self, Datagram, Headers};

pub struct UserSpace {
    reflector: Reflector,
    oracle: Oracle,
}

impl UserSpace {
    pub fn new(settings: &Settings) -> Result<Self> {
        let policy = Policy {
            port: settings.port,
            allow_all: false,
            allow_loopback: false,
            stateless: settings.stateless,
            source_rate: Rate::default(),
            total_rate: Rate::default(),
        };
        let mut reflector = Reflector::new(policy, Random::new(1));
        reflector.set_allowed(allow_list(settings)?);
        let settings = Settings {
            allow_all: false,
            ..settings.clone()
        };
        Ok(Self {
            reflector,
            oracle: Oracle::new(settings, Place::Socket),
        })
    }

    /// Judges what user space makes of a frame's payload; how many were judged, 0 or 1.
    pub fn judge(&mut self, frame: &[u8]) -> Result<u64> {
        let Headers::Udp(datagram) = packet::headers(frame) else {
            return Ok(0);
        };
        let whole = datagram.udp_len == datagram.ip_payload && datagram.udp_len >= 8;
        if !whole || datagram.end() > frame.len() {
            return Ok(0);
        }
        let payload = &frame[datagram.payload()..datagram.end()];
        Self::parse(payload).with_context(|| format!("parsing {payload:02x?}"))?;
        let to_us = self.oracle.settings.locals.contains(&datagram.destination);
        if to_us && datagram.destination_port == self.oracle.settings.port {
            self.reflect(&datagram, payload)
                .with_context(|| format!("on {payload:02x?} of {datagram:x?}"))?;
        }
        Ok(1)
    }

    fn parse(payload: &[u8]) -> Result<()> {
        let Ok((base, rest)) = SenderPacket::parse(payload) else {
            ensure!(
                payload.len() < 44 && ReflectorPacket::parse(payload).is_err(),
                "refused though long enough"
            );
            return Ok(());
        };
        ensure!(rest.len() == payload.len() - 44, "bytes were lost");
        let fields = (
            base.seq.get(),
            base.timestamp.get(),
            base.error_estimate.get(),
            base.ssid.get(),
        );
        let expected = (
            packet::be32(payload, 0),
            packet::be64(payload, 4),
            packet::be16(payload, 12),
            packet::be16(payload, 14),
        );
        ensure!(fields == expected, "a request's fields are {fields:x?}");
        let (reply, _) = ReflectorPacket::parse(payload)?;
        let fields = (
            reply.receive_timestamp.get(),
            reply.sender_seq.get(),
            reply.sender_timestamp.get(),
            reply.sender_ttl,
        );
        let expected = (
            packet::be64(payload, 16),
            packet::be32(payload, 24),
            packet::be64(payload, 28),
            payload[40],
        );
        ensure!(fields == expected, "a reply's fields are {fields:x?}");
        ensure!(
            DtTlv::first_of(rest).is_some() == packet::has_our_tlv(payload),
            "our TLV is mistaken"
        );
        walk(payload, rest)
    }

    fn reflect(&mut self, datagram: &Datagram, payload: &[u8]) -> Result<()> {
        let now = MonoNanos(1_000_000_007 * u64::from(datagram.source_port));
        let settings = &self.oracle.settings;
        let wall_ns = now.0.wrapping_add(settings.clock_offset_ns);
        let received = NtpTime(((u128::from(wall_ns) << 32) / 1_000_000_000) as u64);
        let request = Request {
            source: address(datagram.source),
            source_port: datagram.source_port,
            destination: address(datagram.destination),
            ttl: datagram.ttl,
            bytes: payload,
            received,
            error_estimate: ErrorEstimate(settings.error_estimate),
            generation: settings.clock_generation,
        };
        let mut reply = Vec::new();
        let result = self.reflector.handle_request(&request, now, &mut reply);
        if payload.len() < 14 {
            ensure!(result.is_err(), "answered {} bytes", payload.len());
            return Ok(());
        }
        set_sent(&mut reply, received);
        // A short request is answered as if zeros had followed it.
        let mut extended = payload.to_vec();
        extended.resize(payload.len().max(44), 0);
        let (from, to) = (
            (request.source, datagram.source_port),
            (request.destination, datagram.destination_port),
        );
        let as_frame = Frame {
            ttl: datagram.ttl,
            ..Frame::udp(from, to, extended)
        };
        let prediction = self.oracle.predict(&as_frame.bytes());
        match (result, prediction.reply) {
            (Ok(()), Some(expected)) => self
                .oracle
                .check_payload(expected, &reply, now.0)
                .map_err(anyhow::Error::msg),
            (Err(reason), None) if Some(reason.name()) == prediction.reason && reply.is_empty() => {
                Ok(())
            }
            (result, _) => bail!("{result:?} where {:?} was due", prediction.reason),
        }
    }
}

/// Demands the TLVs that the oracle finds, and an error exactly where one lies or ends early.
fn walk(payload: &[u8], rest: &[u8]) -> Result<()> {
    let mut at = 44;
    let mut tlvs = Tlvs::new(rest);
    while at < payload.len() {
        let tlv = tlvs.next().context("the walk ends early")?;
        let len = (at + 4 <= payload.len()).then(|| usize::from(packet::be16(payload, at + 2)));
        let Some(end) = len
            .map(|len| at + 4 + len)
            .filter(|end| *end <= payload.len())
        else {
            ensure!(
                tlv.is_err() && tlvs.next().is_none(),
                "a lie at {at} was believed"
            );
            return Ok(());
        };
        let tlv = tlv?;
        let expected = (at - 44, payload[at], payload[at + 1], &payload[at + 4..end]);
        ensure!(
            (tlv.offset, tlv.header.flags, tlv.header.kind, tlv.value) == expected,
            "another TLV at {at}"
        );
        at = end;
    }
    ensure!(tlvs.next().is_none(), "a TLV behind the end");
    Ok(())
}

fn allow_list(settings: &Settings) -> Result<AllowList> {
    let mut list = AllowList::default();
    for permit in &settings.permits {
        let allowed = Allowed {
            member: permit.member.unwrap_or(Allowed::NO_MEMBER),
            flags: if permit.low_ports {
                AllowedFlags::LOW_PORTS
            } else {
                0
            },
        };
        let source = address(permit.address);
        if permit.bits == 128 {
            list.allow(source, allowed)?;
        } else {
            let bits = if source.is_ipv4() {
                permit.bits - 96
            } else {
                permit.bits
            };
            list.allow_prefix(format!("{source}/{bits}").parse()?, allowed)?;
        }
    }
    Ok(list)
}

fn address(octets: [u8; 16]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
}
