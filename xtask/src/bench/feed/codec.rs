//! Bytes and time per probe, through the encoder of the agents and the decoder of all readers.

use std::hint::black_box;

use anyhow::{Context, Result, ensure};
use dt_feed::probes::{self, ProbeRecord};
use dt_feed::proto::{Batch, Peer, ProbeBlock};
use dt_feed::{SCHEMA_VERSION, batch};
use prost::Message;
use serde::Serialize;

use super::shape::{Minute, Shape};
use crate::bench::spread::Spread;
use crate::demo::cpu;

/// What a probe of one mesh costs.
#[derive(Serialize)]
pub struct Costs {
    pub shape: Shape,
    pub probes: usize,
    pub bytes: Sizes,
    /// CPU time.
    pub encode_ns: Spread,
    /// CPU time.
    pub decode_ns: Spread,
}

/// Bytes per probe of one mesh.
#[derive(Clone, Debug, Serialize)]
pub struct Sizes {
    /// Serialised batches, dictionary and all, before compression.
    pub total: f64,
    /// The same, each batch compressed by itself as librdkafka does by default.
    pub zstd: f64,
    /// The part of `total` that is peer dictionary.
    pub dictionary: f64,
    /// The part of each column, by its name.
    pub columns: Vec<(&'static str, f64)>,
}

impl Costs {
    /// Encodes and decodes a minute so many times.
    pub fn measure(shape: Shape, minute: &Minute, rounds: u32) -> Result<Self> {
        let messages = encode(minute.flushes.clone(), &minute.dictionary)?;
        ensure_lossless(&messages, minute)?;
        let probes = minute.probes();
        let per_probe = |ns: u64| ns as f64 / probes as f64;
        let (mut encode_ns, mut decode_ns) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            // The agent owns its records; the copy is not part of its work.
            let flushes = minute.flushes.clone();
            let start_ns = cpu::thread_ns()?;
            black_box(encode(flushes, &minute.dictionary)?);
            encode_ns.push(per_probe(cpu::thread_ns()? - start_ns));
            let start_ns = cpu::thread_ns()?;
            for message in &messages {
                black_box(decode(message)?);
            }
            decode_ns.push(per_probe(cpu::thread_ns()? - start_ns));
        }
        Ok(Self {
            shape,
            probes,
            bytes: Sizes::of(&messages, minute)?,
            encode_ns: Spread::of(encode_ns).context("no round")?,
            decode_ns: Spread::of(decode_ns).context("no round")?,
        })
    }
}

impl Sizes {
    /// Of the messages that a minute was encoded to.
    pub fn of(messages: &[Vec<u8>], minute: &Minute) -> Result<Self> {
        let per_probe = |bytes: usize| bytes as f64 / minute.probes() as f64;
        let mut zstd = 0;
        for message in messages {
            zstd += zstd::bulk::compress(message, LIBRDKAFKA_LEVEL)?.len();
        }
        Ok(Self {
            total: per_probe(messages.iter().map(Vec::len).sum()),
            zstd: per_probe(zstd),
            dictionary: per_probe(minute.dictionary.iter().map(entry_len).sum()),
            columns: columns(messages, per_probe)?,
        })
    }
}

/// One message per flush, the first of them with the dictionary.
pub fn encode(flushes: Vec<Vec<ProbeRecord>>, dictionary: &[Peer]) -> Result<Vec<Vec<u8>>> {
    let mut messages = Vec::new();
    for (sequence, mut records) in flushes.into_iter().enumerate() {
        let peers = if sequence == 0 { dictionary } else { &[] };
        let batch = Batch {
            schema_version: SCHEMA_VERSION,
            source: "node-0000".to_owned(),
            start_id: 0x5EED_57A2_7001,
            sequence: sequence as u64,
            closed_unix_ns: 1_763_900_000_000_000_000 + sequence as u64 * 1_000_000_000,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            source_zone: "zone-0".to_owned(),
            source_rack: "rack-000".to_owned(),
            peers: peers.to_vec(),
            probes: Some(probes::encode(&mut records)?),
            ..Batch::default()
        };
        messages.push(batch.encode_to_vec());
    }
    Ok(messages)
}

fn decode(message: &[u8]) -> Result<Vec<ProbeRecord>> {
    let batch = batch::decode(message)?;
    let block = batch.probes.context("no probes in the batch")?;
    Ok(probes::decode(&block)?)
}

/// Figures of an encoder that loses something would say nothing.
fn ensure_lossless(messages: &[Vec<u8>], minute: &Minute) -> Result<()> {
    for (message, records) in messages.iter().zip(&minute.flushes) {
        let mut given = records.clone();
        given.sort_by_key(|record| (record.peer, record.sent_unix_us, record.sequence));
        ensure!(
            decode(message)? == given,
            "the decoder returns other probes than the encoder was given"
        );
    }
    Ok(())
}

/// A dictionary entry with its field number and length.
fn entry_len(peer: &Peer) -> usize {
    let batch = Batch {
        peers: vec![peer.clone()],
        ..Batch::default()
    };
    batch.encoded_len()
}

fn columns(
    messages: &[Vec<u8>],
    per_probe: impl Fn(usize) -> f64,
) -> Result<Vec<(&'static str, f64)>> {
    let mut totals = [0; COLUMNS.len()];
    for message in messages {
        let block = batch::decode(message)?.probes.unwrap_or_default();
        for (total, (_, column)) in totals.iter_mut().zip(COLUMNS) {
            *total += column(&block).len();
        }
    }
    let named = COLUMNS.iter().zip(totals);
    Ok(named
        .map(|((name, _), total)| (*name, per_probe(total)))
        .collect())
}

type Column = (&'static str, fn(&ProbeBlock) -> &[u8]);

const COLUMNS: [Column; 12] = [
    ("peer", |block| &block.peer),
    ("sent", |block| &block.sent),
    ("sequence", |block| &block.sequence),
    ("outcome", |block| &block.outcome),
    ("rtt", |block| &block.rtt),
    ("port", |block| &block.port),
    ("ports", |block| &block.ports),
    ("hops_forward", |block| &block.hops_forward),
    ("hops_return", |block| &block.hops_return),
    ("method", |block| &block.method),
    ("suspect_reasons", |block| &block.suspect_reasons),
    ("class", |block| &block.class),
];

/// What librdkafka takes for `compression.level=-1`.
const LIBRDKAFKA_LEVEL: i32 = 3;
