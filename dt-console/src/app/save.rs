//! `dt-console save`: the batches themselves, from a topic into segment files.
//!
//! Each batch is written as it came, without repeats, so whatever reads segments reads a topic's past without Kafka.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use dt_feed::segment::{Limits, Writer};

use super::{Talk, open, told};
use crate::cli::Save;
use crate::clock;
use crate::interrupt::Interrupt;
use crate::source::{Begin, Event};

/// Writes until it is interrupted, or until everything is written.
pub(super) fn run(arguments: &Save, interrupt: &Interrupt) -> Result<ExitCode> {
    // The name of a segment wants a number of its writer's; two that begin within one nanosecond would have to be stopped.
    let mut writer = Writer::open(&arguments.out, clock::now_ms(), LIMITS)?;
    let mut source = open(&arguments.source, Begin::Earliest, interrupt)?;
    let mut talk = Talk::default();
    let mut batches = 0_u64;
    while !interrupt.is_set() {
        match source.poll(PATIENCE)? {
            // Another member of the group has had it, or this one before it was stopped.
            Some(Event::Batch { context: true, .. }) => (),
            Some(Event::Batch { batch, .. }) => {
                writer.append(&batch, clock::now_ms().saturating_mul(NS_PER_MS))?;
                batches += 1;
                source.confirm();
            }
            Some(other) => talk.take(&other),
            None if arguments.once && source.is_caught_up() => break,
            None => (),
        }
    }
    told(source.skipped());
    source.close();
    writer.sync()?;
    eprintln!("dt-console: {batches} batches written");
    Ok(ExitCode::SUCCESS)
}

const PATIENCE: Duration = Duration::from_millis(200);
const NS_PER_MS: u64 = 1_000_000;
/// As the agents' own files.
const LIMITS: Limits = Limits {
    max_bytes: 64 << 20,
    max_age_ns: 600 * 1_000_000_000,
};
