//! Threads of the idle class, one pinned to each CPU, that count how often they get round.
//!
//! They run only when nothing else wants to, so what they lose against a quiet time is what everything else took:
//! processes, interrupts and context switches alike. `/proc/stat` does not know that here: it looks at each tick who is
//! running, and who works in step with a timer is never seen.

use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, gettid};

use crate::clock::Stopwatch;
use crate::process;

/// Spinning on all CPUs that this process may use. Dropping it ends them.
pub struct Spinners {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    watch: Stopwatch,
}

/// Counts at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    at: Duration,
    rounds: Vec<u64>,
}

/// Rounds per second of each CPU between two readings.
#[derive(Clone, Debug)]
pub struct Speed(Vec<f64>);

struct Shared {
    ended: AtomicBool,
    counters: Vec<Counter>,
}

/// On a pair of cache lines of its own: the CPUs must not slow each other.
#[repr(align(128))]
#[derive(Default)]
struct Counter(AtomicU64);

impl Spinners {
    /// Returns when all spin.
    pub fn start() -> Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let cpus: Vec<_> = (0..CpuSet::count())
            .filter(|cpu| allowed.is_set(*cpu).unwrap_or(false))
            .collect();
        let shared = Arc::new(Shared {
            ended: AtomicBool::new(false),
            counters: cpus.iter().map(|_| Counter::default()).collect(),
        });
        let mut spinners = Self {
            shared: Arc::clone(&shared),
            threads: Vec::new(),
            watch: Stopwatch::start(),
        };
        let (ready, readiness) = channel();
        for (index, cpu) in cpus.iter().copied().enumerate() {
            let (shared, ready) = (Arc::clone(&shared), ready.clone());
            let spin = move || spin(&shared, index, cpu, &ready);
            spinners.threads.push(thread::spawn(spin));
        }
        for _ in cpus {
            readiness.recv().context("a spinner ended")??;
        }
        Ok(spinners)
    }

    /// What they have counted so far.
    pub fn read(&self) -> Reading {
        let counters = self.shared.counters.iter();
        Reading {
            at: self.watch.elapsed(),
            rounds: counters
                .map(|counter| counter.0.load(Ordering::Relaxed))
                .collect(),
        }
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It cannot panic, and if it did there is nothing left to end.
            let _ = thread.join();
        }
    }
}

impl Reading {
    /// Speed between an earlier reading and this one.
    pub fn speed_since(&self, earlier: &Self) -> Speed {
        let seconds = self.seconds_since(earlier);
        let pairs = self.rounds.iter().zip(&earlier.rounds);
        Speed(
            pairs
                .map(|(now, then)| (now - then) as f64 / seconds)
                .collect(),
        )
    }

    /// Time since an earlier reading.
    pub fn seconds_since(&self, earlier: &Self) -> f64 {
        self.at.saturating_sub(earlier.at).as_secs_f64()
    }

    /// CPU time that others took since an earlier reading, ns, when `quiet` is the speed without them.
    pub fn taken_ns_since(&self, earlier: &Self, quiet: &Speed) -> f64 {
        let span_ns = self.seconds_since(earlier) * 1e9;
        let busy = self.speed_since(earlier);
        let shares = busy.0.iter().zip(&quiet.0);
        shares
            .map(|(busy, quiet)| (1.0 - busy / quiet) * span_ns)
            .sum()
    }
}

impl Speed {
    /// The mean of two.
    pub fn mean(&self, other: &Self) -> Self {
        let pairs = self.0.iter().zip(&other.0);
        Self(
            pairs
                .map(|(one, other)| f64::midpoint(*one, *other))
                .collect(),
        )
    }

    /// How many CPUs.
    pub const fn cpus(&self) -> usize {
        self.0.len()
    }

    /// All CPUs together.
    pub fn total(&self) -> f64 {
        self.0.iter().sum()
    }
}

fn spin(shared: &Shared, index: usize, cpu: usize, ready: &Sender<Result<()>>) {
    let prepared = settle(cpu);
    let well = prepared.is_ok();
    // Nobody listens any more when another one failed.
    let _ = ready.send(prepared);
    while well && !shared.ended.load(Ordering::Relaxed) {
        for step in 0..STEPS {
            black_box(step);
        }
        shared.counters[index].0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Pins the calling thread and puts it into the idle class, for which the standard library and `nix` have no call.
fn settle(cpu: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &only)?;
    let thread = gettid().to_string();
    let mut chrt = Command::new("chrt");
    process::capture(chrt.args(["--idle", "--pid", "0", &thread])).map(|_| ())
}

/// One round: about a microsecond, so that counting costs nothing and a reading is exact enough.
const STEPS: u32 = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at_ms: u64, rounds: &[u64]) -> Reading {
        Reading {
            at: Duration::from_millis(at_ms),
            rounds: rounds.to_vec(),
        }
    }

    #[test]
    fn what_spinners_lose_is_what_others_took() {
        let start = reading(0, &[0, 0]);
        let quiet = reading(1_000, &[1_000, 2_000]).speed_since(&start);
        // A quarter of one CPU and none of the other, for two seconds.
        let taken_ns = reading(2_000, &[1_500, 4_000]).taken_ns_since(&start, &quiet);
        assert!((taken_ns - 5e8).abs() < 1.0, "{taken_ns}");
    }
}
