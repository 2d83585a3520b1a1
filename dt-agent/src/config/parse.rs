//! One value at a time: from what an operator wrote to what the program wants, or the end of a sentence about it.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use tracing::level_filters::LevelFilter;

use crate::engine::ladder::{Mode, ModeRequest};
use crate::engine::mesh::Family;

/// `true` or `false`, also as `1`, `0`, `yes`, `no`, `on`, `off`.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(String::from("is neither true nor false")),
    }
}

/// A whole number in a range, also hexadecimal with `0x` and with `_` between digits.
pub(super) fn whole<T>(text: &str, range: RangeInclusive<T>) -> Result<T, String>
where
    T: TryFrom<u64> + PartialOrd + std::fmt::Display,
{
    let digits = text.replace('_', "");
    let number = match digits.strip_prefix("0x") {
        Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16),
        None => digits.parse(),
    };
    number
        .ok()
        .and_then(|number| T::try_from(number).ok())
        .filter(|number| range.contains(number))
        .ok_or_else(|| {
            format!(
                "is not a whole number from {} to {}",
                range.start(),
                range.end()
            )
        })
}

/// Seconds as a plain number, or a number with a unit as in `200ms`, `1m 30s`; in a range.
pub(super) fn duration(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    let plain = text
        .parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    plain
        .or_else(|| humantime::parse_duration(text).ok())
        .filter(|duration| range.contains(duration))
        .ok_or_else(|| {
            format!(
                "is not a time from {} to {} (in seconds, or with a unit as in 200ms or 1m)",
                humantime::format_duration(*range.start()),
                humantime::format_duration(*range.end())
            )
        })
}

/// Probes per second towards one peer.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let rate = text.replace('_', "").parse().ok();
    rate.filter(|rate| RATES.contains(rate)).ok_or_else(|| {
        format!(
            "is not a rate from {} to {} probes per second",
            RATES.start(),
            RATES.end()
        )
    })
}

/// A UDP port.
pub(super) fn port(text: &str) -> Result<u16, String> {
    whole(text, 1..=u16::MAX)
}

/// Bytes of UDP payload of a probe.
pub(super) fn payload(text: &str) -> Result<u16, String> {
    whole(text, PAYLOADS)
}

/// Packets per second that a reflector answers.
pub(super) fn packet_rate(text: &str) -> Result<u32, String> {
    whole(text, 1..=100_000_000)
}

/// How long stamping and answering go on without an agent.
pub(super) fn lease(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(3)..=Duration::from_hours(1))
}

/// Bytes as a plain number, or with a unit as in `512MiB`; units are powers of 1024, however they are written.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let text = text.replace('_', "");
    let unit_at = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit_at);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(0),
        "k" | "kb" | "kib" => Some(10),
        "m" | "mb" | "mib" => Some(20),
        "g" | "gb" | "gib" => Some(30),
        "t" | "tb" | "tib" => Some(40),
        _ => None,
    };
    let number: Option<u64> = digits.parse().ok();
    number
        .zip(shift)
        .and_then(|(number, shift)| number.checked_mul(1 << shift))
        .ok_or_else(|| String::from("is not a number of bytes such as 512MiB"))
}

/// A datapath mode, or `auto`.
pub(super) fn mode(text: &str) -> Result<ModeRequest, String> {
    match text {
        "auto" => Ok(ModeRequest::Auto),
        "xdp" => Ok(ModeRequest::Only(Mode::Xdp)),
        "tc" => Ok(ModeRequest::Only(Mode::Tc)),
        "socket" => Ok(ModeRequest::Only(Mode::Socket)),
        _ => Err(String::from("is none of auto, xdp, tc, socket")),
    }
}

/// An IP version, or `auto`.
pub(super) fn family(text: &str) -> Result<Family, String> {
    match text {
        "auto" => Ok(Family::Auto),
        "4" => Ok(Family::V4),
        "6" => Ok(Family::V6),
        _ => Err(String::from("is none of auto, 4, 6")),
    }
}

/// A network in CIDR form, or one address; bits behind the prefix are cleared.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    IpNet::from_str(text)
        .map(|network| network.trunc())
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| String::from("is neither a network such as 10.0.0.0/8 nor an address"))
}

/// The name of a network interface.
pub(super) fn interface(text: &str) -> Result<String, String> {
    let valid = (1..=MAX_INTERFACE_NAME).contains(&text.len())
        && !text.contains(|letter: char| letter == '/' || letter.is_whitespace())
        && !matches!(text, "." | "..");
    if valid {
        Ok(text.to_owned())
    } else {
        Err(String::from("is not an interface name"))
    }
}

/// The name of a node; it also names a directory, so it is kept to what is harmless there.
pub(super) fn node(text: &str) -> Result<String, String> {
    let valid = (1..=MAX_NODE_NAME).contains(&text.len())
        && text.starts_with(|letter: char| letter.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
    if valid {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "is not a node name (1 to {MAX_NODE_NAME} letters, digits, `-`, `_` or `.`, the first a letter or digit)"
        ))
    }
}

/// An absolute path: the agent may be started anywhere.
pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(String::from("is not an absolute path"))
    }
}

/// A level of logging.
pub(super) fn level(text: &str) -> Result<LevelFilter, String> {
    match text {
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(String::from("is none of error, warn, info, debug, trace")),
    }
}

/// Bounds that no configuration lifts: probes per second and peer, bytes of payload.
const RATES: RangeInclusive<f64> = 0.001..=20_000.0;
/// From a STAMP base with our TLV to what still fits a jumbo frame of 9,216 bytes with its headers.
const PAYLOADS: RangeInclusive<u16> = 96..=9_000;
/// `IFNAMSIZ` without its zero byte.
const MAX_INTERFACE_NAME: usize = 15;
/// As long as a DNS name may be.
const MAX_NODE_NAME: usize = 253;
