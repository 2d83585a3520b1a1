//! When to probe whom.
//!
//! Each peer has a grid of moments, one interval apart from a random phase on, and each probe goes out within a tenth
//! of an interval of its place on that grid. So intervals are jittered and cannot fall into step with anything, yet the
//! grid itself never moves: the rate asked for is the rate reached, over any time, without drift.
//!
//! Wake-ups are rounded up to ticks that all peers share, because at one probe per wake-up the wake-up costs more than
//! the probe. A wake-up that comes late makes nothing up beyond a bound; what it leaves out is reported, so that for
//! each peer asked = sent + skipped. Which wire a probe takes and what becomes of it: see `super::session`.

mod pacing;

use std::collections::VecDeque;
use std::num::NonZeroU32;

use dt_common::time::MonoNanos;

use super::mesh::Slot;
use super::random::Random;
use super::wheel::Wheel;

pub use pacing::rest_ns;
use pacing::{Burst, Grid};

/// Probes that are due, of all peers together. Add and remove cost the same for one peer as for ten thousand.
#[derive(Debug)]
pub struct Schedule {
    settings: ScheduleSettings,
    random: Random,
    wheel: Wheel,
    entries: Vec<Option<Entry>>,
    burst: Burst,
    /// Scratch of [`Self::handle_timeout`], kept for its memory.
    expired: Vec<u16>,
    /// Those whose time has come and for which there was no room yet, the longest first.
    waiting: VecDeque<Slot>,
    /// When they are to be looked at again.
    tick_after_last: u64,
}

/// How a [`Schedule`] rounds and bounds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ScheduleSettings {
    /// Wake-ups are multiples of this, ns; at least 10,000.
    pub tick_ns: u64,
    /// How much a late wake-up may make up, in ns of each peer's rate; at least one probe.
    pub catch_up_ns: u64,
    /// Source ports that the probes of each peer take turns with; at least 1.
    pub source_ports: u16,
}

impl Default for ScheduleSettings {
    fn default() -> Self {
        Self {
            tick_ns: 1_000_000,
            catch_up_ns: 20_000_000,
            source_ports: 1,
        }
    }
}

/// What is due towards one peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Due {
    /// The peer.
    pub peer: Slot,
    /// Probes to send now; may be 0 when only `skipped` is to be told.
    pub count: u32,
    /// Probes that were due but must not be sent any more.
    pub skipped: u32,
    /// Source port of the first of them, as a number from 0 on; the others take the next ones, round and round.
    pub first_port: u16,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    grid: Grid,
    /// Greatest number of probes of one wake-up.
    burst: NonZeroU32,
    next_port: u16,
    /// It is in the queue and not in the wheel.
    is_waiting: bool,
}

impl Schedule {
    /// Slowest rate, probes per second.
    pub const MIN_RATE: f64 = 0.001;
    /// Fastest rate, probes per second.
    pub const MAX_RATE: f64 = 20_000.0;
    /// Fastest sum over all peers, probes per second. What is asked for beyond it is not made up, and told as skipped: no
    /// setting, and no mistake in one, makes a flood of probes.
    pub const MAX_TOTAL_RATE: u64 = 100_000;

    /// An empty schedule.
    #[must_use]
    pub fn new(settings: ScheduleSettings, random: Random) -> Self {
        let settings = ScheduleSettings {
            tick_ns: settings.tick_ns.max(SHORTEST_TICK_NS),
            source_ports: settings.source_ports.max(1),
            ..settings
        };
        Self {
            settings,
            random,
            wheel: Wheel::new(),
            entries: Vec::new(),
            burst: Burst::new(settings.catch_up_ns),
            expired: Vec::new(),
            waiting: VecDeque::new(),
            tick_after_last: 0,
        }
    }

    /// Probes this peer from now on, so many times per second; a rate out of bounds is brought within.
    ///
    /// The first probe is due at a random moment within the first interval. A peer that is probed already starts anew.
    pub fn add(&mut self, peer: Slot, rate: f64, now: MonoNanos) {
        self.remove(peer);
        let grid = Grid::new(bounded(rate), now, &mut self.random);
        let entry = Entry {
            grid,
            burst: NonZeroU32::new(grid.count_in(self.settings.catch_up_ns))
                .unwrap_or(NonZeroU32::MIN),
            next_port: self.random.below(u64::from(self.settings.source_ports)) as u16,
            is_waiting: false,
        };
        self.burst.add(grid);
        let index = usize::from(peer.0);
        if index >= self.entries.len() {
            self.entries.resize(index + 1, None);
        }
        self.entries[index] = Some(entry);
        let first = grid.next(&mut self.random).max(now);
        self.wheel.insert(peer.0, self.tick_from(first));
    }

    /// Ends the probing of this peer; false if it was not probed.
    pub fn remove(&mut self, peer: Slot) -> bool {
        let Some(entry) = self
            .entries
            .get_mut(usize::from(peer.0))
            .and_then(Option::take)
        else {
            return false;
        };
        self.burst.remove(entry.grid);
        if entry.is_waiting {
            self.waiting.retain(|one| *one != peer);
        } else {
            self.wheel.remove(peer.0);
        }
        true
    }

    /// Number of peers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.wheel.len() + self.waiting.len()
    }

    /// Whether nobody is probed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When to call [`Self::handle_timeout`] next; none while nobody is probed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<MonoNanos> {
        let soon = (!self.waiting.is_empty()).then_some(self.tick_after_last);
        let next = self.wheel.next_tick().into_iter().chain(soon).min();
        next.map(|tick| MonoNanos(tick.saturating_mul(self.settings.tick_ns)))
    }

    /// Appends what is due by now.
    pub fn handle_timeout(&mut self, now: MonoNanos, due: &mut Vec<Due>) {
        let mut expired = std::mem::take(&mut self.expired);
        let tick = now.0 / self.settings.tick_ns;
        self.tick_after_last = tick + 1;
        self.wheel.advance(tick, &mut expired);
        self.burst.refill(now);
        // Not now, but soon: after a long stall, or where more is asked for than may be, the peers follow each other instead of
        // going out all at once, each when those that waited before it are gone.
        for peer in expired.drain(..).map(Slot) {
            if let Some(entry) = self
                .entries
                .get_mut(usize::from(peer.0))
                .and_then(Option::as_mut)
            {
                entry.is_waiting = true;
                self.waiting.push_back(peer);
            }
        }
        self.expired = expired;
        while self.burst.has_room()
            && let Some(peer) = self.waiting.pop_front()
        {
            due.extend(self.expire(peer, now));
        }
    }

    fn expire(&mut self, peer: Slot, now: MonoNanos) -> Option<Due> {
        let entry = self.entries.get_mut(usize::from(peer.0))?.as_mut()?;
        entry.is_waiting = false;
        let asked = entry.grid.take_due(now);
        let count = asked.min(u64::from(entry.burst.get())) as u32;
        let first_port = entry.next_port;
        let ports = u64::from(self.settings.source_ports);
        entry.next_port = ((u64::from(first_port) + u64::from(count)) % ports) as u16;
        let next = entry.grid.next(&mut self.random);
        self.burst.spend(count);
        self.wheel.insert(peer.0, self.tick_from(next));
        let skipped = u32::try_from(asked - u64::from(count)).unwrap_or(u32::MAX);
        Some(Due {
            peer,
            count,
            skipped,
            first_port,
        })
    }

    /// The first tick not before this moment.
    fn tick_from(&self, moment: MonoNanos) -> u64 {
        moment.0.div_ceil(self.settings.tick_ns)
    }
}

fn bounded(rate: f64) -> f64 {
    if rate.is_nan() {
        Schedule::MIN_RATE
    } else {
        rate.clamp(Schedule::MIN_RATE, Schedule::MAX_RATE)
    }
}

/// Shorter ones would wake a core more often than it can send.
const SHORTEST_TICK_NS: u64 = 10_000;

#[cfg(test)]
mod tests;
