//! `dt-console inspect`: what is in segment files, and where they are damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use dt_feed::Histogram;
use dt_feed::probes;
use dt_feed::proto::{Batch, Window};
use dt_feed::segment::{End, ReadError, Reader};
use serde::Serialize;

use super::output::Output;
use crate::cli::Inspect;
use crate::interrupt::Interrupt;
use crate::text::clean;
use crate::units;

/// Reads all files to their ends; status 1 if one is damaged or cannot be read.
pub(super) fn run(arguments: &Inspect, interrupt: &Interrupt) -> Result<ExitCode> {
    let mut output = Output::new();
    let mut is_sound = true;
    for path in arguments.files.iter().take_while(|_| !interrupt.is_set()) {
        match report(path, interrupt) {
            Ok(report) => {
                is_sound &= report.damage.is_empty();
                let text = if arguments.json {
                    serde_json::to_string(&report)? + "\n"
                } else {
                    report.to_text()
                };
                output.text(&text)?;
                output.flush()?;
            }
            Err(error) => {
                is_sound = false;
                eprintln!("dt-console: {:#}", anyhow::Error::from(error));
            }
        }
    }
    Ok(if is_sound && !interrupt.is_set() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What is in one file.
#[derive(Debug, Default, Serialize)]
struct Report {
    file: String,
    bytes: u64,
    batches: u64,
    windows: u64,
    probes: u64,
    /// First and last close of a batch.
    first_closed_unix_ns: Option<u64>,
    last_closed_unix_ns: Option<u64>,
    starts: Vec<StartReport>,
    damage: Vec<Damage>,
}

/// What one start of an agent has in a file.
#[derive(Debug, Default, Serialize)]
struct StartReport {
    source: String,
    start_id: String,
    first_sequence: u64,
    last_sequence: u64,
    batches: u64,
    repeated_batches: u64,
    missing_batches: u64,
    peers: usize,
    unnamed_windows: u64,
}

/// Something that cannot be read.
#[derive(Debug, Serialize)]
struct Damage {
    /// Where the record with it begins, in bytes.
    offset: u64,
    /// What is wrong.
    cause: String,
    /// How many bytes cannot be read for it.
    unreadable_bytes: u64,
}

/// What is kept of a start while its file is read. Sequences are kept each by itself: a segment is small.
#[derive(Default)]
struct Start {
    sequences: BTreeSet<u64>,
    repeated: u64,
    peers: BTreeSet<u32>,
    unnamed_windows: u64,
}

fn report(path: &Path, interrupt: &Interrupt) -> Result<Report, ReadError> {
    let mut reader = Reader::open(path)?;
    let bytes = fs::metadata(path).map_or(0, |metadata| metadata.len());
    let mut report = Report {
        file: path.display().to_string(),
        bytes,
        ..Report::default()
    };
    let mut starts: BTreeMap<(String, u64), Start> = BTreeMap::new();
    let mut offset = 0;
    while let Some(batch) = reader.next_batch()? {
        report.take(&batch, offset);
        let key = (clean(&batch.source).into_owned(), batch.start_id);
        starts.entry(key).or_default().take(&batch);
        offset = reader.offset();
        if interrupt.is_set() {
            break;
        }
    }
    let end = match reader.end() {
        Some(End::Truncated { offset }) => Some((
            *offset,
            "the record ends too early: its writer crashed there, or is writing it now".to_owned(),
        )),
        Some(End::Corrupt { offset, cause }) => {
            Some((*offset, format!("{:#}", anyhow::Error::from(cause.clone()))))
        }
        Some(End::Complete) | None => None,
    };
    report.damage.extend(end.map(|(offset, cause)| Damage {
        offset,
        cause,
        unreadable_bytes: bytes.saturating_sub(offset),
    }));
    report.starts = starts
        .into_iter()
        .map(|(key, start)| start.report(key))
        .collect();
    Ok(report)
}

impl Report {
    fn take(&mut self, batch: &Batch, offset: u64) {
        let mut damaged = |cause: String| {
            self.damage.push(Damage {
                offset,
                cause,
                unreadable_bytes: 0,
            });
        };
        for window in &batch.windows {
            if let Some(cause) = broken(window) {
                damaged(format!("window of peer {}: {cause}", window.peer));
            }
        }
        let records = batch.probes.as_ref().map(probes::decode);
        match records.transpose() {
            Ok(records) => self.probes += records.map_or(0, |records| records.len() as u64),
            Err(error) => damaged(error.to_string()),
        }
        self.batches += 1;
        self.windows += batch.windows.len() as u64;
        let closed = Some(batch.closed_unix_ns);
        self.first_closed_unix_ns = self.first_closed_unix_ns.min(closed).or(closed);
        self.last_closed_unix_ns = self.last_closed_unix_ns.max(closed);
    }

    fn to_text(&self) -> String {
        let time = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), |ns| units::utc(ns / 1_000));
        let mut text = format!(
            "{}: {} bytes, {} batches, {} windows, {} probes, {} to {}\n",
            self.file,
            self.bytes,
            self.batches,
            self.windows,
            self.probes,
            time(self.first_closed_unix_ns),
            time(self.last_closed_unix_ns),
        );
        for start in &self.starts {
            let _ = write!(
                text,
                "  {} start {}: batches {} to {}, {} missing, {} repeated, {} peers named",
                start.source,
                start.start_id,
                start.first_sequence,
                start.last_sequence,
                start.missing_batches,
                start.repeated_batches,
                start.peers,
            );
            if start.unnamed_windows > 0 {
                let _ = write!(
                    text,
                    ", {} windows of peers not named in this file",
                    start.unnamed_windows
                );
            }
            text += "\n";
        }
        for damage in &self.damage {
            let _ = write!(
                text,
                "  DAMAGED at byte {}: {}",
                damage.offset, damage.cause
            );
            if damage.unreadable_bytes > 0 {
                let _ = write!(text, "; {} bytes cannot be read", damage.unreadable_bytes);
            }
            text += "\n";
        }
        text
    }
}

impl Start {
    fn take(&mut self, batch: &Batch) {
        if !self.sequences.insert(batch.sequence) {
            self.repeated += 1;
        }
        self.peers.extend(batch.peers.iter().map(|peer| peer.index));
        let unnamed = batch
            .windows
            .iter()
            .filter(|window| !self.peers.contains(&window.peer));
        self.unnamed_windows += unnamed.count() as u64;
    }

    fn report(self, (source, start_id): (String, u64)) -> StartReport {
        let first = self.sequences.first().copied().unwrap_or(0);
        let last = self.sequences.last().copied().unwrap_or(0);
        let count = self.sequences.len() as u64;
        StartReport {
            source,
            start_id: format!("{start_id:016x}"),
            first_sequence: first,
            last_sequence: last,
            batches: count,
            repeated_batches: self.repeated,
            missing_batches: (last - first).saturating_sub(count.saturating_sub(1)),
            peers: self.peers.len(),
            unnamed_windows: self.unnamed_windows,
        }
    }
}

/// What is wrong with a window's histograms. That of the residence may have extremes only.
fn broken(window: &Window) -> Option<String> {
    let residence = window.residence.as_ref();
    let histograms = [
        ("rtt", window.rtt.as_ref()),
        ("user_rtt", window.user_rtt.as_ref()),
        (
            "residence",
            residence.filter(|message| !message.bucket_deltas.is_empty()),
        ),
    ];
    histograms.into_iter().find_map(|(name, message)| {
        let error = Histogram::try_from(message?).err()?;
        Some(format!("{name}: {error}"))
    })
}
