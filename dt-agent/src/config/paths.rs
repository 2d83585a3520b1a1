//! Which paths probes take: source ports, sizes and code points.

use std::time::Duration;

use super::check::Checker;
use super::parse;
use super::run::SourcePorts;
use crate::engine::mix::{Mix, Share};

/// Source ports that change, behind those that stay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RotatingSourcePorts {
    /// How many there are, at least 2; one of them is in use.
    pub count: u16,
    /// How long each is.
    pub every: Duration,
}

/// What probes look like to routers and switches.
#[derive(Clone, Debug, Default)]
pub struct PathConfig {
    /// UDP source ports that stay.
    pub source_ports: SourcePorts,
    /// The port behind them that changes.
    pub rotating: Option<RotatingSourcePorts>,
    /// Sizes and code points.
    pub mix: Mix,
}

impl PathConfig {
    /// All source ports that a probe may have.
    #[must_use]
    pub fn all_ports(&self) -> SourcePorts {
        let rotating = self.rotating.map_or(0, |rotating| rotating.count);
        SourcePorts {
            last: self.source_ports.last.saturating_add(rotating),
            ..self.source_ports
        }
    }

    /// Source ports that probes take turns with.
    #[must_use]
    pub fn port_count(&self) -> u16 {
        self.source_ports.count() + u16::from(self.rotating.is_some())
    }

    /// UDP payload of the longest probes, bytes.
    #[must_use]
    pub fn longest_payload(&self) -> u16 {
        let sizes = self.mix.classes().iter();
        sizes.map(|class| class.payload_bytes).max().unwrap_or(0)
    }

    pub(super) fn check(check: &mut Checker<'_>) -> Self {
        let source_ports = check.one("source_ports", source_ports);
        let count = check.one("rotating_ports", rotating_ports);
        let every = check.one("rotate_every", |text| parse::duration(text, ROTATION));
        let sizes = check.one("size", |text| shares(text, parse::payload));
        let dscps = check.one("dscp", |text| {
            shares(text, |text| parse::whole(text, 0..=63))
        });
        let mix = Mix::new(&sizes, &dscps);
        if let Err(error) = mix {
            check.contradiction(&["size", "dscp"], true, || {
                format!("size and dscp together make {error}")
            });
        }
        let config = Self {
            source_ports,
            rotating: (count > 0).then_some(RotatingSourcePorts { count, every }),
            mix: mix.unwrap_or_default(),
        };
        config.check_ports(check);
        config
    }

    fn check_ports(&self, check: &mut Checker<'_>) {
        let count = self.rotating.map_or(0, |rotating| rotating.count);
        let SourcePorts { first, last } = self.source_ports;
        let keys = ["source_ports", "rotating_ports"];
        check.contradiction(&keys, last.checked_add(count).is_none(), || {
            format!("behind source_ports {first}-{last} there are no {count} more ports")
        });
        let all = u32::from(self.source_ports.count()) + u32::from(count);
        check.contradiction(&keys, all > dt_common::map::MAX_SOURCE_PORTS, || {
            format!(
                "{all} source ports with the rotating ones, at most {} are possible",
                dt_common::map::MAX_SOURCE_PORTS
            )
        });
    }
}

fn source_ports(text: &str) -> Result<SourcePorts, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| {
        text.trim()
            .parse()
            .ok()
            .filter(|port| *port >= FIRST_SOURCE_PORT)
    };
    let ports = port(first)
        .zip(port(last))
        .filter(|(first, last)| first <= last);
    ports
        .map(|(first, last)| SourcePorts { first, last })
        .filter(|ports| u32::from(ports.count()) <= dt_common::map::MAX_SOURCE_PORTS)
        .ok_or_else(|| {
            format!(
                "is not a range of at most {} ports from {FIRST_SOURCE_PORT} on, such as 61000-61003",
                dt_common::map::MAX_SOURCE_PORTS
            )
        })
}

fn rotating_ports(text: &str) -> Result<u16, String> {
    let most = dt_common::map::MAX_SOURCE_PORTS as u16 - 1;
    parse::whole(text, 0..=most)
        .ok()
        .filter(|count| *count != 1)
        .ok_or_else(|| format!("is neither 0 for none nor a number of ports from 2 to {most}"))
}

/// Values with their weights, such as `96:9,1472`; a weight that is left out is 1.
fn shares<T: PartialEq>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<Share<T>>, String> {
    let mut shares: Vec<Share<T>> = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (value, weight) = part.split_once(':').unwrap_or((part, "1"));
        let share = Share {
            value: parse(value.trim()).map_err(|reason| in_list(text, value, &reason))?,
            weight: parse::whole(weight.trim(), 1..=Mix::MAX_TURNS as u8)
                .map_err(|reason| format!("has the weight `{weight}`, which {reason}"))?,
        };
        if shares.iter().any(|other| other.value == share.value) {
            return Err(format!("has `{value}` twice"));
        }
        shares.push(share);
    }
    Ok(shares)
}

/// What is wrong with one of several values; of a single one the sentence is about the whole.
fn in_list(text: &str, value: &str, reason: &str) -> String {
    if text.trim() == value.trim() {
        reason.to_owned()
    } else {
        format!("has `{}`, which {reason}", value.trim())
    }
}

/// Reflectors refuse privileged source ports, so that they cannot be turned against each other.
const FIRST_SOURCE_PORT: u16 = 1024;
/// Shorter ones would leave replies no time to come back.
const ROTATION: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_hours(24);
