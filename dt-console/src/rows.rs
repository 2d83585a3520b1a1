//! Windows and probes as rows of named columns: the one place where the names, types and meanings of columns stand.
//!
//! `export` and `tail --json` write these rows. Columns are added at the end and never changed; `docs/console.md` lists them, and
//! a test compares.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use dt_feed::Histogram;
use dt_feed::probes::{self, DecodeError};
use dt_feed::proto::{Batch, Method, Mode, StampSource};

use crate::filter::Filter;
use crate::intake::{Intake, PeerAt, Source};
use crate::nodes::{Labels, Node};
use crate::text::clean;

pub use probe::{PROBE_COLUMNS, ProbeRow, outcome_name};
pub use window::{WINDOW_COLUMNS, WindowRow};

mod probe;
#[cfg(test)]
mod tests;
mod window;

/// One column of rows of a kind.
pub struct Column<R> {
    /// Its name in files and JSON.
    pub name: &'static str,
    /// What its values are.
    pub kind: Kind,
    /// Its value in a row.
    pub value: fn(&R) -> Value<'_>,
}

/// What the values of a column are. Any may be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// A whole number. Counts stop at 2^63 - 1, so that every reader can take them for signed.
    Number,
    /// Yes or no.
    Flag,
    /// Whole numbers.
    List,
}

/// A value of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Not said.
    Absent,
    /// Of [`Kind::Text`], borrowed or made for it.
    Text(Cow<'a, str>),
    /// Of [`Kind::Number`].
    Number(i64),
    /// Of [`Kind::Flag`].
    Flag(bool),
    /// Of [`Kind::List`].
    List(Vec<i64>),
}

/// What the rows of one batch have in common.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Name of the node that measured.
    pub source: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// Its start.
    pub start_id: u64,
    /// The number of the batch.
    pub sequence: u64,
    /// Its program's version.
    pub agent_version: Arc<str>,
}

/// The other end.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its index in the dictionary of the source.
    pub index: u32,
    /// Its name and labels; `None` when its entry had not come yet.
    pub node: Option<(Arc<str>, Labels)>,
    /// The address at which it is probed.
    pub address: Option<IpAddr>,
}

impl<'a> From<&'a str> for Value<'a> {
    /// Empty text says nothing.
    fn from(text: &'a str) -> Self {
        if text.is_empty() {
            Self::Absent
        } else {
            Self::Text(text.into())
        }
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<u64> for Value<'_> {
    fn from(count: u64) -> Self {
        Self::Number(i64::try_from(count).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value<'_> {
    fn from(count: u32) -> Self {
        Self::Number(count.into())
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value<'_> {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Absent, Into::into)
    }
}

impl Origin {
    /// That of the rows of a batch.
    #[must_use]
    pub fn new(source: &Node, batch: &Batch) -> Self {
        Self {
            source: Arc::clone(&source.name),
            labels: source.labels.clone(),
            start_id: batch.start_id,
            sequence: batch.sequence,
            agent_version: clean(&batch.agent_version).into(),
        }
    }

    fn start_id(&self) -> Value<'_> {
        format!("{:016x}", self.start_id).into()
    }
}

impl Peer {
    /// The peer of this index, if it is known.
    #[must_use]
    pub fn new(index: u32, known: Option<PeerAt<'_>>) -> Self {
        Self {
            index,
            node: known.map(|peer| (Arc::clone(&peer.node.name), peer.node.labels.clone())),
            address: known.and_then(|peer| peer.address),
        }
    }

    /// Its name, or its index when that is all that is known.
    #[must_use]
    pub fn shown(&self) -> String {
        match &self.node {
            Some((name, _)) => name.to_string(),
            None => format!("#{}", self.index),
        }
    }

    fn name(&self) -> Value<'_> {
        self.node.as_ref().map(|(name, _)| &**name).into()
    }

    fn label(&self, label: fn(&Labels) -> &str) -> Value<'_> {
        self.node.as_ref().map(|(_, labels)| label(labels)).into()
    }

    fn address(&self) -> Value<'_> {
        self.address.map(|address| address.to_string()).into()
    }
}

/// A row for each window of a batch that the filter wants, and how many make none because they are broken.
#[must_use]
pub fn windows_of(
    intake: &Intake,
    source: Source,
    batch: &Batch,
    filter: &Filter,
) -> (Vec<WindowRow>, u64) {
    let (mut rows, mut broken) = (Vec::new(), 0);
    let Some(from) = intake.source(source) else {
        return (rows, broken);
    };
    let origin = Origin::new(from, batch);
    for window in &batch.windows {
        let peer = intake.peer(source, window.peer);
        if filter.accepts(from, peer.map(|peer| peer.node))
            && filter.accepts_class(window.dscp, window.packet_bytes)
        {
            match WindowRow::new(origin.clone(), Peer::new(window.peer, peer), window) {
                Ok(row) => rows.push(row),
                Err(_) => broken += 1,
            }
        }
    }
    (rows, broken)
}

/// A row for each probe of a batch that the filter wants.
///
/// # Errors
///
/// When the block of probes cannot be read.
pub fn probes_of(
    intake: &Intake,
    source: Source,
    batch: &Batch,
    filter: &Filter,
) -> Result<Vec<ProbeRow>, DecodeError> {
    let (Some(from), Some(block)) = (intake.source(source), &batch.probes) else {
        return Ok(Vec::new());
    };
    let origin = Origin::new(from, batch);
    let mut rows = Vec::new();
    for record in probes::decode(block)? {
        let peer = intake.peer(source, record.peer);
        if filter.accepts(from, peer.map(|peer| peer.node))
            && filter.accepts_class(record.class.dscp, record.class.packet_bytes)
        {
            rows.push(ProbeRow {
                origin: origin.clone(),
                peer: Peer::new(record.peer, peer),
                record,
            });
        }
    }
    Ok(rows)
}

/// Name of a mode; nothing for one that is not said or not known here.
#[must_use]
pub fn mode_name(method: &Method) -> Option<&'static str> {
    match method.mode() {
        Mode::Unspecified => None,
        Mode::Xdp => Some("xdp"),
        Mode::Tc => Some("tc"),
        Mode::Socket => Some("socket"),
    }
}

fn stamp_name(source: StampSource) -> Option<&'static str> {
    match source {
        StampSource::Unspecified => None,
        StampSource::TcEgress => Some("tc_egress"),
        StampSource::Xdp => Some("xdp"),
        StampSource::TcIngress => Some("tc_ingress"),
        StampSource::SocketSoftware => Some("socket_software"),
        StampSource::SocketHardware => Some("socket_hardware"),
        StampSource::UserSpace => Some("user_space"),
        StampSource::Foreign => Some("foreign"),
    }
}

/// Least value, greatest value and count of the buckets of a histogram, each as a list.
fn buckets(histogram: &Histogram, part: Part) -> Value<'static> {
    let of = |(values, count): (RangeInclusive<u64>, u64)| match part {
        Part::First => *values.start(),
        Part::Last => *values.end(),
        Part::Count => count,
    };
    let fitted = |value| i64::try_from(value).unwrap_or(i64::MAX);
    Value::List(histogram.iter().map(of).map(fitted).collect())
}

#[derive(Clone, Copy)]
enum Part {
    First,
    Last,
    Count,
}
