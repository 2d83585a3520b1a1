//! Millions of random and mutated frames, through the programs and through the user-space parser and reflector.
//!
//! `DT_FUZZ_PACKETS` and `DT_FUZZ_SEED` say how many and which; the seed is printed. A sample of the same frames is judged
//! again by an oracle in Python (`oracle/judge.py`), which shares no code with anybody.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use dt_common::map::names;
use dt_tests::datapath::{Hook, monotonic_ns};
use dt_tests::skip_unless_equipped;

use crate::dice::{self, Dice};
use crate::record::Record;
use crate::rig::{Rig, moved};
use crate::user_space::UserSpace;

#[test]
fn random_and_mutated_packets_get_what_two_oracles_say() -> Result<()> {
    skip_unless_equipped!();
    let packets = from_environment("DT_FUZZ_PACKETS")?.unwrap_or(DEFAULT_PACKETS);
    let seed = from_environment("DT_FUZZ_SEED")?.map_or_else(monotonic_ns, Ok)?;
    say(&format!("fuzz: {packets} packets, DT_FUZZ_SEED={seed}"));
    let mut record = Record::new()?;
    let mut run = Run {
        dice: Dice::new(seed),
        ..Run::default()
    };
    for block in 0..packets.div_ceil(BLOCK) {
        let count = BLOCK.min(packets - block * BLOCK);
        let recorded = (block < RECORDED_BLOCKS).then_some(&mut record);
        let result = run.block(block, count, recorded);
        result.with_context(|| format!("in block {block} with DT_FUZZ_SEED={seed}"))?;
    }
    say(&format!(
        "fuzz: {:?}, {} parsed in user space",
        run.reasons, run.parsed
    ));
    let judged = record.judge()?;
    say(&format!("fuzz: {}", judged.trim()));
    Ok(())
}

struct Run {
    dice: Dice,
    /// How often each reason was given; "untouched" where none was.
    reasons: BTreeMap<&'static str, u64>,
    parsed: u64,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            dice: Dice::new(0),
            reasons: BTreeMap::new(),
            parsed: 0,
        }
    }
}

impl Run {
    /// Frames under one setting, beginning with nothing remembered.
    fn block(&mut self, block: u64, count: u64, mut record: Option<&mut Record>) -> Result<()> {
        let hook = if block % 4 == 3 { Hook::Tc } else { Hook::Xdp };
        let mut rig = Rig::new(hook)?;
        rig.set(|settings| {
            settings.stateless = block % 8 == 4;
            settings.partial_checksums = block % 3 == 1;
            settings.allow_all = block % 16 == 9;
        })?;
        let mut user_space = UserSpace::new(&rig.oracle.settings)?;
        if let Some(record) = &mut record {
            record.settings(&rig)?;
        }
        let before = rig.datapath.counters()?;
        let mut reasons = BTreeMap::new();
        for index in 0..count {
            let frame = dice::frame(&mut self.dice, index as u32);
            let (outcome, reason) = rig.judge_quickly(&frame)?;
            self.parsed += user_space.judge(&frame)?;
            *reasons.entry(reason.unwrap_or("untouched")).or_default() += 1;
            if let Some(record) = &mut record {
                record.packet(&frame, &outcome)?;
            }
            if index % DRAIN_EVERY == 0 {
                rig.datapath.events(names::EVENTS)?;
            }
        }
        let counted: BTreeMap<_, _> = moved(&before, &rig.datapath.counters()?)
            .into_iter()
            .collect();
        self.take(reasons, &counted)?;
        // So few sessions fit into what the kernel remembers.
        ensure!(
            rig.oracle.forgotten == 0,
            "sessions were forgotten: {}",
            rig.oracle.forgotten
        );
        Ok(())
    }

    /// Demands that the counters say what was predicted.
    fn take(
        &mut self,
        reasons: BTreeMap<&'static str, u64>,
        counted: &BTreeMap<&str, u64>,
    ) -> Result<()> {
        let mut predicted = reasons.clone();
        predicted.remove("untouched");
        ensure!(
            predicted == *counted,
            "counters moved by {counted:?}, predicted {predicted:?}"
        );
        for (reason, count) in reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
        Ok(())
    }
}

/// Runs a script of `tests/oracle` and returns what it wrote.
pub fn python(python: &std::path::Path, script: &str, args: &[&std::ffi::OsStr]) -> Result<String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("oracle")
        .join(script);
    let output = Command::new(python)
        .arg(path)
        .args(args)
        .output()
        .context("cannot start Python")?;
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(
        output.status.success(),
        "{script} ended with {}\n{stdout}{stderr}",
        output.status
    );
    Ok(stdout.into_owned())
}

fn from_environment(name: &str) -> Result<Option<u64>> {
    let Ok(text) = std::env::var(name) else {
        return Ok(None);
    };
    let number = text.replace('_', "").parse();
    Ok(Some(
        number.with_context(|| format!("{name}={text} is no number"))?,
    ))
}

/// Past the harness, which would keep it to itself.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

const DEFAULT_PACKETS: u64 = 1_000_000;
const BLOCK: u64 = 50_000;
const RECORDED_BLOCKS: u64 = 4;
/// Before the ring of events is full.
const DRAIN_EVERY: u64 = 2_000;
