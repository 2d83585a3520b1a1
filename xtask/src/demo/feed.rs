//! The agents' feed, read while they write it: the only source of what the demo says about the mesh.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use dt_feed::proto::{Batch, Losses};
use dt_feed::segment::{Followed, Follower};

use super::tally::Tally;

/// The feed directories of all agents.
pub struct Feed {
    followers: Vec<Follower>,
    starts: HashMap<Start, Known>,
    damages: Vec<String>,
}

/// One life of one agent: its name and the number that it drew.
type Start = (String, u64);

/// What was learnt of one life of an agent.
#[derive(Default)]
struct Known {
    /// Names of the peers by their index.
    peers: HashMap<u32, String>,
    next_sequence: u64,
    missing_batches: u64,
    losses: Losses,
}

impl Feed {
    /// Follows these directories, which need not exist yet.
    pub fn follow(directories: impl IntoIterator<Item = PathBuf>) -> Self {
        Self {
            followers: directories.into_iter().map(Follower::new).collect(),
            starts: HashMap::new(),
            damages: Vec::new(),
        }
    }

    /// Adds what is new.
    pub fn read_into(&mut self, tally: &mut Tally) -> Result<()> {
        for index in 0..self.followers.len() {
            while let Some(followed) = self.followers[index].poll()? {
                match followed {
                    Followed::Batch(batch) => self.take(&batch, tally)?,
                    Followed::Damaged {
                        path,
                        offset,
                        cause,
                    } => self.damages.push(format!(
                        "{} is damaged at byte {offset}: {cause}",
                        path.display()
                    )),
                }
            }
        }
        Ok(())
    }

    /// Length of all segments in bytes.
    pub fn bytes(&self) -> Result<u64> {
        let mut bytes = 0;
        for follower in &self.followers {
            for entry in fs::read_dir(follower.directory()).into_iter().flatten() {
                bytes += entry?.metadata()?.len();
            }
        }
        Ok(bytes)
    }

    /// What the feed lacks, a line for each finding.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.damages.clone();
        for ((source, _), known) in &self.starts {
            if known.missing_batches > 0 {
                faults.push(format!(
                    "{} batches of {source} are missing",
                    known.missing_batches
                ));
            }
            if known.losses != Losses::default() {
                faults.push(format!(
                    "the feed of {source} says that it lost something: {:?}",
                    known.losses
                ));
            }
        }
        faults
    }

    fn take(&mut self, batch: &Batch, tally: &mut Tally) -> Result<()> {
        let known = self
            .starts
            .entry((batch.source.clone(), batch.start_id))
            .or_default();
        if batch.sequence < known.next_sequence {
            // The feed may repeat a batch; it is the same one.
            return Ok(());
        }
        known.missing_batches += batch.sequence - known.next_sequence;
        known.next_sequence = batch.sequence + 1;
        known.losses = batch.losses.unwrap_or_default();
        known.peers.extend(
            batch
                .peers
                .iter()
                .map(|peer| (peer.index, peer.name.clone())),
        );
        for window in &batch.windows {
            let peer = known.peers.get(&window.peer).with_context(|| {
                format!(
                    "{} has a window for peer {}, whom it never named",
                    batch.source, window.peer
                )
            })?;
            tally.add(&batch.source, peer, window).with_context(|| {
                format!("a window of {} about {peer} makes no sense", batch.source)
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::fixture::{batch, window};
    use dt_feed::proto::Mode;
    use dt_feed::segment::{Limits, Writer};

    const LIMITS: Limits = Limits {
        max_bytes: 1 << 20,
        max_age_ns: u64::MAX,
    };

    #[test]
    fn windows_arrive_under_the_names_of_the_dictionary_while_they_are_written() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let mut feed = Feed::follow([dir.path().to_owned()]);
        let mut tally = Tally::default();
        feed.read_into(&mut tally)?;
        let mut writer = Writer::open(dir.path(), 7, LIMITS)?;
        writer.append(
            &batch(
                "n1",
                0,
                &["n2", "n3"],
                vec![window(0, 0, Mode::Tc, &[5_000])],
            ),
            1,
        )?;
        feed.read_into(&mut tally)?;
        writer.append(
            &batch("n1", 1, &[], vec![window(1, 1, Mode::Xdp, &[4_000; 2])]),
            2,
        )?;
        feed.read_into(&mut tally)?;
        feed.read_into(&mut tally)?;
        assert_eq!(
            tally.pair("n1", "n2").map(|pair| pair.counters.received),
            Some(1)
        );
        assert_eq!(
            tally.pair("n1", "n3").map(|pair| pair.counters.received),
            Some(2)
        );
        let path = writer.path().context("a segment is open")?;
        assert_eq!(feed.bytes()?, fs::metadata(path)?.len());
        assert_eq!(feed.faults(), Vec::<String>::new());
        Ok(())
    }

    #[test]
    fn a_repeated_batch_counts_once_and_a_gap_is_named() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let mut writer = Writer::open(dir.path(), 7, LIMITS)?;
        let first = batch("n1", 0, &["n2"], vec![window(0, 0, Mode::Xdp, &[5_000])]);
        writer.append(&first, 1)?;
        writer.append(&first, 1)?;
        writer.append(&batch("n1", 3, &[], Vec::new()), 2)?;
        let mut feed = Feed::follow([dir.path().to_owned()]);
        let mut tally = Tally::default();
        feed.read_into(&mut tally)?;
        assert_eq!(
            tally.pair("n1", "n2").map(|pair| pair.counters.received),
            Some(1)
        );
        assert_eq!(feed.faults(), ["2 batches of n1 are missing"]);
        Ok(())
    }
}
