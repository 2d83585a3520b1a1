//! Every-probe detail: records to the columns of a [`ProbeBlock`] and back, without loss.
//!
//! Records are ordered by peer, so that what hardly differs within a session (round trip, hops, next sequence number) stands
//! together and packs into few bits.

use crate::proto::{Method, ProbeBlock, ProbeClass, ProbeOutcome};

use column::{BrokenColumn, Encoder};

mod column;
#[cfg(test)]
mod tests;

/// Most probes in one block.
pub const MAX_PROBES: usize = 1 << 17;

/// Most different methods in one block.
pub const MAX_METHODS: usize = 256;

/// Most different classes of probes in one block.
pub const MAX_CLASSES: usize = 256;

/// One probe and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeRecord {
    /// Index of the peer in the dictionary.
    pub peer: u32,
    /// Send time, us unix.
    pub sent_unix_us: u64,
    /// Sequence number in the session with this peer.
    pub sequence: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// UDP source port.
    pub source_port: u16,
    /// How long it was and how the network was asked to treat it; empty where the agent does not say.
    pub class: ProbeClass,
    /// Hops to the peer, if known.
    pub hops_forward: Option<u8>,
    /// Hops back, if known.
    pub hops_return: Option<u8>,
    /// Where its stamps come from.
    pub method: Method,
    /// Bits of [`crate::proto::suspect`] that held at the time; 0 for a healthy host.
    pub suspect_reasons: u32,
}

/// What became of a probe. The meanings are those of the fields of [`crate::proto::Counters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The reply came in time.
    Received {
        /// Round trip time, ns.
        rtt_ns: u64,
    },
    /// The reply came after the deadline: lost, yet timed.
    Late {
        /// Round trip time, ns.
        rtt_ns: u64,
    },
    /// Lost on the way to the peer.
    LostForward,
    /// Lost on the way back.
    LostReturn,
    /// Lost, direction not known.
    LostUnknown,
    /// Reached the peer with a wrong checksum.
    CorruptForward,
    /// Came back with a wrong checksum.
    CorruptReturn,
    /// Came back, but the event was lost on the source host.
    Overrun,
    /// Refused by the peer's policy.
    Refused,
    /// Sent before the peer had admitted this node.
    NotAdmitted,
    /// Not known because the peer lost its counters.
    PeerRestarted,
    /// Came back, but a clock was set meanwhile.
    Straddled,
    /// The local host could not send it.
    SendFailed,
    /// Something that a later schema has a name for.
    Unknown(UnknownOutcome),
}

/// Number of an outcome that this crate does not know. Only decoding makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownOutcome(u32);

/// Why records cannot be put into a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// More than [`MAX_PROBES`].
    #[error("{count} probes for one block, at most {MAX_PROBES} fit")]
    TooManyProbes {
        /// Probes given.
        count: usize,
    },
    /// More than [`MAX_METHODS`].
    #[error("more than {MAX_METHODS} methods in one block")]
    TooManyMethods,
    /// More than [`MAX_CLASSES`].
    #[error("more than {MAX_CLASSES} classes of probes in one block")]
    TooManyClasses,
}

/// Why a block cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More than [`MAX_PROBES`].
    #[error("block of {count} probes, at most {MAX_PROBES} are read")]
    TooManyProbes {
        /// Probes the block claims.
        count: u32,
    },
    /// The bytes of a column do not hold one value per row.
    #[error("column {column} of the block is broken")]
    Column {
        /// Name of the field.
        column: &'static str,
    },
    /// A value that the column cannot have.
    #[error("column {column} of the block has the impossible value {value}")]
    Value {
        /// Name of the field.
        column: &'static str,
        /// The value.
        value: u64,
    },
}

/// Packs records into a block, and leaves them in the order in which [`decode`] returns them: by peer, send time, sequence.
///
/// # Errors
///
/// When there are more than [`MAX_PROBES`] records, [`MAX_METHODS`] methods or [`MAX_CLASSES`] classes.
pub fn encode(records: &mut [ProbeRecord]) -> Result<ProbeBlock, EncodeError> {
    if records.len() > MAX_PROBES {
        return Err(EncodeError::TooManyProbes {
            count: records.len(),
        });
    }
    records.sort_by_key(|record| (record.peer, record.sent_unix_us, record.sequence));
    let base_unix_us = records
        .iter()
        .map(|record| record.sent_unix_us)
        .min()
        .unwrap_or(0);
    let (methods, ports) = (methods_of(records)?, Ports::of(records));
    let classes = classes_of(records)?;
    let mut columns = ColumnEncoders::new();
    // Frame by frame, so that records are read from the nearest cache by all columns but the first.
    for chunk in records.chunks(column::FRAME_ROWS) {
        columns.extend(chunk, base_unix_us, &methods, &classes, &ports);
    }
    Ok(ProbeBlock {
        count: records.len() as u32,
        base_unix_us,
        methods,
        classes,
        port_count: ports.used.len() as u32,
        ports: column::encode(ports.used.iter().map(|port| (*port).into())),
        ..columns.finish()
    })
}

/// Unpacks a block, ordered by peer, send time and sequence if it was made by [`encode`].
///
/// # Errors
///
/// When the block is not one that [`encode`], or that of a later version, can have made. Memory is bounded by
/// [`MAX_PROBES`], whatever the block says.
pub fn decode(block: &ProbeBlock) -> Result<Vec<ProbeRecord>, DecodeError> {
    let columns = Columns::of(block)?;
    let mut rtts = columns.rtt.iter().copied();
    (0..block.count as usize)
        .map(|row| columns.record(block, row, &mut rtts))
        .collect()
}

impl Outcome {
    /// Round trip time in ns, if there was one.
    #[must_use]
    pub const fn rtt_ns(&self) -> Option<u64> {
        match self {
            Self::Received { rtt_ns } | Self::Late { rtt_ns } => Some(*rtt_ns),
            _ => None,
        }
    }

    /// Its number in the schema, a [`ProbeOutcome`].
    #[must_use]
    pub fn code(self) -> u32 {
        let known = match self {
            Self::Received { .. } => ProbeOutcome::Received,
            Self::Late { .. } => ProbeOutcome::Late,
            Self::LostForward => ProbeOutcome::LostForward,
            Self::LostReturn => ProbeOutcome::LostReturn,
            Self::LostUnknown => ProbeOutcome::LostUnknown,
            Self::CorruptForward => ProbeOutcome::CorruptForward,
            Self::CorruptReturn => ProbeOutcome::CorruptReturn,
            Self::Overrun => ProbeOutcome::Overrun,
            Self::Refused => ProbeOutcome::Refused,
            Self::NotAdmitted => ProbeOutcome::NotAdmitted,
            Self::PeerRestarted => ProbeOutcome::PeerRestarted,
            Self::Straddled => ProbeOutcome::Straddled,
            Self::SendFailed => ProbeOutcome::SendFailed,
            Self::Unknown(UnknownOutcome(code)) => return code,
        };
        known as u32
    }

    /// Takes a round trip time from `rtts` if the code means that there is one; `None` when there is none left.
    fn of_code(code: u32, rtts: &mut impl Iterator<Item = u64>) -> Option<Self> {
        let known = i32::try_from(code)
            .ok()
            .and_then(|code| ProbeOutcome::try_from(code).ok());
        Some(match known {
            Some(ProbeOutcome::Received) => Self::Received {
                rtt_ns: rtts.next()?,
            },
            Some(ProbeOutcome::Late) => Self::Late {
                rtt_ns: rtts.next()?,
            },
            Some(ProbeOutcome::LostForward) => Self::LostForward,
            Some(ProbeOutcome::LostReturn) => Self::LostReturn,
            Some(ProbeOutcome::LostUnknown) => Self::LostUnknown,
            Some(ProbeOutcome::CorruptForward) => Self::CorruptForward,
            Some(ProbeOutcome::CorruptReturn) => Self::CorruptReturn,
            Some(ProbeOutcome::Overrun) => Self::Overrun,
            Some(ProbeOutcome::Refused) => Self::Refused,
            Some(ProbeOutcome::NotAdmitted) => Self::NotAdmitted,
            Some(ProbeOutcome::PeerRestarted) => Self::PeerRestarted,
            Some(ProbeOutcome::Straddled) => Self::Straddled,
            Some(ProbeOutcome::SendFailed) => Self::SendFailed,
            Some(ProbeOutcome::Unspecified) | None => Self::Unknown(UnknownOutcome(code)),
        })
    }
}

impl UnknownOutcome {
    /// The number as it was in the block.
    #[must_use]
    pub const fn code(self) -> u32 {
        self.0
    }
}

/// The columns of a block, each with the right number of rows.
struct Columns {
    peer: Vec<u64>,
    sent: Vec<u64>,
    sequence: Vec<u64>,
    outcome: Vec<u64>,
    rtt: Vec<u64>,
    port: Vec<u64>,
    hops_forward: Vec<u64>,
    hops_return: Vec<u64>,
    method: Vec<u64>,
    suspect_reasons: Vec<u64>,
    class: Vec<u64>,
    ports: Vec<u64>,
}

impl Columns {
    fn of(block: &ProbeBlock) -> Result<Self, DecodeError> {
        let rows = block.count as usize;
        if rows > MAX_PROBES {
            return Err(DecodeError::TooManyProbes { count: block.count });
        }
        let ports = block.port_count as usize;
        if ports > PORTS {
            return Err(DecodeError::Value {
                column: "port_count",
                value: ports as u64,
            });
        }
        let column = |column, bytes: &[u8], rows| {
            column::decode(bytes, rows).map_err(|BrokenColumn| DecodeError::Column { column })
        };
        let outcome = column("outcome", &block.outcome, rows)?;
        let timed = outcome.iter().filter(|code| TIMED.contains(code)).count();
        Ok(Self {
            peer: column("peer", &block.peer, rows)?,
            sent: column("sent", &block.sent, rows)?,
            sequence: column("sequence", &block.sequence, rows)?,
            rtt: column("rtt", &block.rtt, timed)?,
            port: column("port", &block.port, rows)?,
            hops_forward: column("hops_forward", &block.hops_forward, rows)?,
            hops_return: column("hops_return", &block.hops_return, rows)?,
            method: column("method", &block.method, rows)?,
            suspect_reasons: column("suspect_reasons", &block.suspect_reasons, rows)?,
            class: column("class", &block.class, rows)?,
            ports: column("ports", &block.ports, ports)?,
            outcome,
        })
    }

    fn record(
        &self,
        block: &ProbeBlock,
        row: usize,
        rtts: &mut impl Iterator<Item = u64>,
    ) -> Result<ProbeRecord, DecodeError> {
        let code = narrow("outcome", self.outcome[row])?;
        let port = look_up("port", &self.ports, self.port[row])?;
        Ok(ProbeRecord {
            peer: narrow("peer", self.peer[row])?,
            sent_unix_us: block.base_unix_us.wrapping_add(self.sent[row]),
            sequence: narrow("sequence", self.sequence[row])?,
            outcome: Outcome::of_code(code, rtts).ok_or(DecodeError::Column { column: "rtt" })?,
            source_port: narrow("ports", port)?,
            class: self.class(block, row)?,
            hops_forward: row_to_hops("hops_forward", self.hops_forward[row])?,
            hops_return: row_to_hops("hops_return", self.hops_return[row])?,
            method: look_up("method", &block.methods, self.method[row])?,
            suspect_reasons: narrow("suspect_reasons", self.suspect_reasons[row])?,
        })
    }
}

impl Columns {
    /// Agents of before have no classes on their feed.
    fn class(&self, block: &ProbeBlock, row: usize) -> Result<ProbeClass, DecodeError> {
        if block.classes.is_empty() {
            return Ok(ProbeClass::default());
        }
        look_up("class", &block.classes, self.class[row])
    }
}

/// The classes of these records; none where no record says its own.
fn classes_of(records: &[ProbeRecord]) -> Result<Vec<ProbeClass>, EncodeError> {
    let classes = distinct(records.iter().map(|record| record.class));
    if classes.len() > MAX_CLASSES {
        return Err(EncodeError::TooManyClasses);
    }
    let is_said = classes != [ProbeClass::default()];
    Ok(if is_said { classes } else { Vec::new() })
}

fn methods_of(records: &[ProbeRecord]) -> Result<Vec<Method>, EncodeError> {
    let methods = distinct(records.iter().map(|record| record.method));
    if methods.len() > MAX_METHODS {
        return Err(EncodeError::TooManyMethods);
    }
    Ok(methods)
}

/// Each value once, in the order in which they come first.
fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for value in values {
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen
}

/// Where a value stands that was collected from the same records; 0 where nothing was kept.
fn place_in<T: PartialEq>(table: &[T], value: &T) -> u64 {
    let place = table.iter().position(|other| other == value);
    place.unwrap_or(0) as u64
}

/// The source ports of a block, and the place of each among them.
struct Ports {
    /// Ascending.
    used: Vec<u16>,
    /// By port; of those that are not used it says nothing.
    places: Vec<u16>,
}

impl Ports {
    fn of(records: &[ProbeRecord]) -> Self {
        let mut places = vec![0; PORTS];
        for record in records {
            places[usize::from(record.source_port)] = 1;
        }
        let mut used = Vec::new();
        for (port, place) in (0..=u16::MAX).zip(&mut places) {
            if *place == 1 {
                *place = used.len() as u16;
                used.push(port);
            }
        }
        Self { used, places }
    }

    fn place(&self, port: u16) -> u64 {
        self.places[usize::from(port)].into()
    }
}

/// The columns of a block that is being made.
struct ColumnEncoders {
    peer: Encoder,
    sent: Encoder,
    sequence: Encoder,
    outcome: Encoder,
    rtt: Encoder,
    port: Encoder,
    hops_forward: Encoder,
    hops_return: Encoder,
    method: Encoder,
    suspect_reasons: Encoder,
    class: Encoder,
}

impl ColumnEncoders {
    const fn new() -> Self {
        Self {
            peer: Encoder::new(),
            sent: Encoder::new(),
            sequence: Encoder::new(),
            outcome: Encoder::new(),
            rtt: Encoder::new(),
            port: Encoder::new(),
            hops_forward: Encoder::new(),
            hops_return: Encoder::new(),
            method: Encoder::new(),
            suspect_reasons: Encoder::new(),
            class: Encoder::new(),
        }
    }

    fn extend(
        &mut self,
        records: &[ProbeRecord],
        base_unix_us: u64,
        methods: &[Method],
        classes: &[ProbeClass],
        ports: &Ports,
    ) {
        let all = || records.iter();
        self.peer.extend(all().map(|record| record.peer.into()));
        self.sent
            .extend(all().map(|record| record.sent_unix_us - base_unix_us));
        self.sequence
            .extend(all().map(|record| record.sequence.into()));
        self.outcome
            .extend(all().map(|record| record.outcome.code().into()));
        self.rtt
            .extend(all().filter_map(|record| record.outcome.rtt_ns()));
        self.port
            .extend(all().map(|record| ports.place(record.source_port)));
        self.hops_forward
            .extend(all().map(|record| hops_to_row(record.hops_forward)));
        self.hops_return
            .extend(all().map(|record| hops_to_row(record.hops_return)));
        self.method
            .extend(all().map(|record| place_in(methods, &record.method)));
        self.suspect_reasons
            .extend(all().map(|record| record.suspect_reasons.into()));
        self.class
            .extend(all().map(|record| place_in(classes, &record.class)));
    }

    /// A block with these columns and nothing else.
    fn finish(self) -> ProbeBlock {
        ProbeBlock {
            peer: self.peer.finish(),
            sent: self.sent.finish(),
            sequence: self.sequence.finish(),
            outcome: self.outcome.finish(),
            rtt: self.rtt.finish(),
            port: self.port.finish(),
            hops_forward: self.hops_forward.finish(),
            hops_return: self.hops_return.finish(),
            method: self.method.finish(),
            suspect_reasons: self.suspect_reasons.finish(),
            class: self.class.finish(),
            ..ProbeBlock::default()
        }
    }
}

fn hops_to_row(hops: Option<u8>) -> u64 {
    hops.map_or(0, |hops| u64::from(hops) + 1)
}

fn row_to_hops(column: &'static str, value: u64) -> Result<Option<u8>, DecodeError> {
    value
        .checked_sub(1)
        .map(|hops| narrow(column, hops))
        .transpose()
}

fn narrow<T: TryFrom<u64>>(column: &'static str, value: u64) -> Result<T, DecodeError> {
    T::try_from(value).map_err(|_| DecodeError::Value { column, value })
}

fn look_up<T: Copy>(column: &'static str, table: &[T], row: u64) -> Result<T, DecodeError> {
    let entry = usize::try_from(row).ok().and_then(|row| table.get(row));
    entry
        .copied()
        .ok_or(DecodeError::Value { column, value: row })
}

const PORTS: usize = 1 << 16;
/// Codes of the outcomes that have a row in the column of round trip times.
const TIMED: [u64; 2] = [ProbeOutcome::Received as u64, ProbeOutcome::Late as u64];
