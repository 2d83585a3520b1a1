//! One value at a time: from what was typed to what it means, or the end of a sentence about it.

use std::time::Duration;

use crate::source::Begin;

/// A time, as it was typed: it may depend on when now is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before everything.
    Start,
    /// Now.
    End,
    /// So long ago.
    Ago(Duration),
    /// ms unix.
    At(u64),
}

/// How far back; nothing: all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanArg(pub Option<Duration>);

impl Moment {
    /// As a place in a log.
    #[must_use]
    pub fn begin(self, now_ms: u64) -> Begin {
        match self {
            Self::Start => Begin::Earliest,
            Self::End => Begin::Latest,
            Self::Ago(_) | Self::At(_) => Begin::At(self.unix_ms(now_ms)),
        }
    }

    /// As a time, ms unix.
    #[must_use]
    pub fn unix_ms(self, now_ms: u64) -> u64 {
        match self {
            Self::Start => 0,
            Self::End => now_ms,
            Self::Ago(ago) => now_ms.saturating_sub(ago.as_millis() as u64),
            Self::At(unix_ms) => unix_ms,
        }
    }
}

/// `start`, `end`, how long ago, or a time in UTC.
pub(super) fn moment(text: &str) -> Result<Moment, String> {
    match text {
        "start" => return Ok(Moment::Start),
        "end" | "now" => return Ok(Moment::End),
        _ => (),
    }
    if let Ok(ago) = duration(text.trim_end_matches(" ago")) {
        return Ok(Moment::Ago(ago));
    }
    let at = humantime::parse_rfc3339_weak(text).map_err(
        |_| "is none of start, end, a time ago such as 10m, a time such as 2026-11-25T18:00:00Z",
    )?;
    let since = at
        .duration_since(std::time::UNIX_EPOCH)
        .map_err(|_| "is before 1970")?;
    Ok(Moment::At(since.as_millis() as u64))
}

/// Seconds as a plain number, or a number with a unit; at most a thousand years.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let plain = text
        .parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    plain
        .or_else(|| humantime::parse_duration(text).ok())
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| {
            String::from("is not a time (in seconds, or with a unit as in 200us, 5s, 1m)")
        })
}

/// A time, or `all`.
pub(super) fn span(text: &str) -> Result<SpanArg, String> {
    if text == "all" {
        return Ok(SpanArg(None));
    }
    match duration(text) {
        Ok(span) if span >= SHORTEST_SPAN => Ok(SpanArg(Some(span))),
        _ => Err(String::from(
            "is neither all nor a time of at least 1s such as 30s or 5m",
        )),
    }
}

/// A share in percent, with or without the sign.
pub(super) fn percent(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.trim_end_matches('%').parse().ok();
    number
        .filter(|percent| (0.0..=100.0).contains(percent))
        .map(|percent| percent / 100.0)
        .ok_or_else(|| String::from("is not a share from 0 to 100 percent"))
}

/// `KEY=VALUE`.
pub(super) fn property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(String::from("is not KEY=VALUE")),
    }
}

const SHORTEST_SPAN: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_hours(1000 * 365 * 24);
