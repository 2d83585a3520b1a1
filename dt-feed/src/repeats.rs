//! Removal of repeated batches: what a producer sent twice, and what a consumer reads again.
//!
//! A batch is the same when source, start id and sequence are. Those that were met are remembered for a window of log time, as
//! runs of consecutive sequences: a source that loses nothing costs one entry, however much it sends.
//!
//! Log time is that of the log which the batches are read from (for Kafka the message's timestamp), not of the sources'
//! clocks. One [`Repeats`] belongs to one log, for instance a partition, because each log is read at its own place.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use crate::proto::Batch;

#[cfg(test)]
mod tests;

/// How far back in log time a repeat is recognised, in ms: 10 minutes.
///
/// A reader that begins in the middle of a log reads so much of it before its place, and passes nothing of that on.
pub const WINDOW_MS: u64 = 600_000;

/// Most starts of agents that are remembered of one window: those of 16,384 members, each restarted three times.
pub const MAX_STARTS: usize = 1 << 16;

/// Most runs of consecutive sequences that are remembered of one start. Between two runs is a gap: a lost batch.
pub const MAX_RUNS: usize = 64;

/// The batches of one log that were met lately.
///
/// A batch is recognised for at least the window after it or a copy of it was met, and its start is forgotten when none of
/// its batches was met for two windows. Memory is bounded by two windows of starts of [`MAX_RUNS`] runs each, 1.6 kB, and
/// usually far below; what was forgotten early for want of room is counted.
#[derive(Debug)]
pub struct Repeats {
    window_ms: u64,
    max_starts: usize,
    /// Latest log time met, ms. Log time that goes back is taken as standing still.
    now_ms: u64,
    /// Log time in ms at which `young` was begun.
    young_since_ms: u64,
    /// Starts that were met since then.
    young: HashMap<StartKey, Runs>,
    /// Starts that were met in the time before, and not since.
    old: HashMap<StartKey, Runs>,
    forgotten: u64,
    names: RandomState,
}

impl Repeats {
    /// A memory of [`WINDOW_MS`] and [`MAX_STARTS`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_bounds(WINDOW_MS, MAX_STARTS)
    }

    /// A memory of another window, in ms of log time, and of another number of starts in it, at least 1.
    #[must_use]
    pub fn with_bounds(window_ms: u64, max_starts: usize) -> Self {
        Self {
            window_ms,
            max_starts: max_starts.max(1),
            now_ms: 0,
            young_since_ms: 0,
            young: HashMap::new(),
            old: HashMap::new(),
            forgotten: 0,
            names: RandomState::new(),
        }
    }

    /// Whether this batch was not met before; from now on it has been. `log_ms` is its time in the log.
    pub fn is_new(&mut self, batch: &Batch, log_ms: u64) -> bool {
        self.advance(log_ms);
        let key = StartKey {
            source: self.names.hash_one(&batch.source),
            start_id: batch.start_id,
        };
        let now_ms = self.now_ms;
        let runs = self.rejuvenated(key);
        let is_new = runs.add(batch.sequence, now_ms);
        if runs.shrink() {
            self.forgotten = self.forgotten.saturating_add(1);
        }
        is_new
    }

    /// How many starts and runs were forgotten early for want of room. Repeats of their batches pass as new.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// How many starts are remembered now.
    #[must_use]
    pub fn starts(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Begins a new window when the present one is over. Never two at once: what is young stays for a window at least, even
    /// when a single message is dated far ahead.
    fn advance(&mut self, log_ms: u64) {
        self.now_ms = self.now_ms.max(log_ms);
        if self.now_ms.saturating_sub(self.young_since_ms) >= self.window_ms {
            self.begin_window();
        }
    }

    fn begin_window(&mut self) {
        self.old = std::mem::take(&mut self.young);
        self.young_since_ms = self.now_ms;
    }

    /// What is known of a start, moved to those that were met in this window.
    fn rejuvenated(&mut self, key: StartKey) -> &mut Runs {
        if !self.young.contains_key(&key) && self.young.len() >= self.max_starts {
            // Kept, because the start that is asked for may be among those that go.
            let kept = self.old.remove(&key);
            self.forgotten = self.forgotten.saturating_add(self.old.len() as u64);
            self.begin_window();
            self.old.extend(kept.map(|runs| (key, runs)));
        }
        let old = &mut self.old;
        self.young
            .entry(key)
            .or_insert_with(|| old.remove(&key).unwrap_or_default())
    }
}

impl Default for Repeats {
    fn default() -> Self {
        Self::new()
    }
}

/// One start of one agent. The name is hashed under a key drawn by this process, so that names of any length cost the same
/// and nobody can choose two that collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct StartKey {
    source: u64,
    start_id: u64,
}

/// Sequences that were met of one start: runs in ascending order, none touching the next.
#[derive(Debug, Default)]
struct Runs(Vec<Run>);

#[derive(Clone, Copy, Debug)]
struct Run {
    first: u64,
    last: u64,
    /// Log time of the latest batch in it, ms.
    met_ms: u64,
}

impl Runs {
    /// Whether the sequence is in none of the runs; now it is in one.
    fn add(&mut self, sequence: u64, now_ms: u64) -> bool {
        let runs = &mut self.0;
        // The first run that ends at the sequence or behind it.
        let place = runs.partition_point(|run| run.last < sequence);
        if let Some(run) = runs.get_mut(place).filter(|run| run.first <= sequence) {
            run.met_ms = now_ms;
            return false;
        }
        let follows = place > 0 && runs[place - 1].last + 1 == sequence;
        // It is before this run's first, so adding one cannot overflow.
        let precedes = runs.get(place).is_some_and(|run| sequence + 1 == run.first);
        match (follows, precedes) {
            (true, true) => {
                runs[place - 1].last = runs[place].last;
                runs.remove(place);
            }
            (true, false) => runs[place - 1].last = sequence,
            (false, true) => {
                runs[place].first = sequence;
                runs[place].met_ms = now_ms;
                return true;
            }
            (false, false) => {
                let run = Run {
                    first: sequence,
                    last: sequence,
                    met_ms: now_ms,
                };
                runs.insert(place, run);
                return true;
            }
        }
        runs[place - 1].met_ms = now_ms;
        true
    }

    /// Forgets the run that was met longest ago if there are too many; whether there were.
    fn shrink(&mut self) -> bool {
        if self.0.len() <= MAX_RUNS {
            return false;
        }
        let oldest = (0..self.0.len()).min_by_key(|place| self.0[*place].met_ms);
        oldest.map(|place| self.0.remove(place)).is_some()
    }
}
