//! A short demo with every probe on its feed: real round trips, paths and methods to draw from.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use dt_feed::probes::{self, Outcome};
use dt_feed::proto::{Batch, Method, ProbeClass};
use dt_feed::segment::Reader;
use dt_tests::Interrupt;
use dt_tests::wait::Deadline;

use crate::build::Built;
use crate::clock;
use crate::demo;
use crate::demo::feed::Feed;
use crate::demo::stage::Stage;
use crate::demo::tally::Tally;

/// What every pair of hosts measured.
pub struct Recording {
    pub pairs: Vec<Vec<Sample>>,
}

/// One probe that came back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    pub rtt_ns: u64,
    pub hops_forward: Option<u8>,
    pub hops_return: Option<u8>,
    pub method: Method,
    pub class: ProbeClass,
}

impl Recording {
    /// Raises a demo, lets it warm up, and keeps what its agents report of these seconds.
    pub fn take(built: &Built, seconds: u32, interrupt: &Interrupt) -> Result<Self> {
        let options = Line::parse_from(["demo", "--every-probe"]).options;
        let mut stage = Stage::raise(&options, built)?;
        stage.start_agents(&options, &built.agent)?;
        let dirs = stage.feed_dirs();
        warm_up(&mut stage, &options, interrupt)?;
        let start_unix_us = clock::now_unix_ns() / 1_000;
        eprintln!(
            "recording a demo of {} hosts for {seconds} s",
            options.nodes
        );
        let end = Deadline::after(Duration::from_secs(seconds.into()) + WINDOW);
        while !end.has_passed() {
            ensure!(!interrupt.arrived(), "interrupted");
            stage.check_agents()?;
            thread::sleep(end.left().min(LOOK_EVERY));
        }
        let faults = stage.stop_agents();
        ensure!(
            faults.is_empty(),
            "the demo went wrong:\n{}",
            faults.join("\n")
        );
        let mut pairs = Vec::new();
        for dir in dirs {
            pairs.extend(read(&dir, start_unix_us)?);
        }
        let recording = Self { pairs };
        ensure!(
            recording.pairs.len() == options.pair_count(),
            "not every pair was recorded"
        );
        Ok(recording)
    }

    /// How many probes it has.
    pub fn probes(&self) -> usize {
        self.pairs.iter().map(Vec::len).sum()
    }
}

/// Waits until every pair is measured in the best mode.
fn warm_up(stage: &mut Stage, options: &demo::Options, interrupt: &Interrupt) -> Result<()> {
    let (mut feed, mut tally) = (Feed::follow(stage.feed_dirs()), Tally::default());
    let deadline = Deadline::after(START_LIMIT);
    loop {
        feed.read_into(&mut tally)?;
        if tally.in_mode(options.mode.best()) == options.pair_count() {
            return Ok(());
        }
        ensure!(!interrupt.arrived(), "interrupted");
        stage.check_agents()?;
        ensure!(
            !deadline.has_passed(),
            "the hosts of the demo did not all measure each other in the best mode within {START_LIMIT:?}"
        );
        thread::sleep(LOOK_EVERY);
    }
}

/// The samples of one host's feed, by peer.
fn read(dir: &Path, start_unix_us: u64) -> Result<Vec<Vec<Sample>>> {
    let mut peers: BTreeMap<u32, Vec<Sample>> = BTreeMap::new();
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir)? {
        segments.push(entry?.path());
    }
    segments.sort();
    for segment in segments {
        let mut reader = Reader::open(&segment)?;
        while let Some(batch) = reader.next_batch()? {
            for (peer, sample) in samples(&batch, start_unix_us)? {
                peers.entry(peer).or_default().push(sample);
            }
        }
    }
    Ok(peers.into_values().collect())
}

fn samples(batch: &Batch, start_unix_us: u64) -> Result<Vec<(u32, Sample)>> {
    let Some(block) = &batch.probes else {
        return Ok(Vec::new());
    };
    let records = probes::decode(block).context("a probe block of the demo is broken")?;
    let sample = |record: probes::ProbeRecord| {
        let Outcome::Received { rtt_ns } = record.outcome else {
            return None;
        };
        let sample = Sample {
            rtt_ns,
            hops_forward: record.hops_forward,
            hops_return: record.hops_return,
            method: record.method,
            class: record.class,
        };
        (record.sent_unix_us >= start_unix_us).then_some((record.peer, sample))
    };
    Ok(records.into_iter().filter_map(sample).collect())
}

/// A demo as its own command line would ask for it.
#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: demo::Options,
}

const START_LIMIT: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The agents' windows: probes of the last second are reported when theirs is over.
const WINDOW: Duration = Duration::from_millis(1_500);
