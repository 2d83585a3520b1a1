//! Counters that explain missing probes: corrupted, refused, overrun.
//!
//! Corrupt replies are named where the collector could read and tell their number. For the rest, both ends count what they
//! threw away, but not which probe it was. A credit is such a count with the bounds of what it
//! can explain; a missing probe within the bounds claims one before it is called lost. Bounds are as narrow as the
//! counters are read often, because a credit may belong to a copy of a probe that itself arrived, and would otherwise
//! excuse a real loss later.

use std::collections::VecDeque;

use dt_common::time::MonoNanos;

use super::outcome::Outcome;
use super::serial::{is_below, later, rise};

/// Credits of both directions, not yet claimed.
#[derive(Debug, Default)]
pub(super) struct Credits {
    queues: Option<Box<Queues>>,
    local: Option<LocalCounts>,
    /// Corrupt replies that were named and are in no count read so far.
    uncounted: u32,
}

/// What the reflector threw away between two requests that it answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct ForwardCredit {
    /// Explains probes after this one...
    pub after: u32,
    /// ...and before this one.
    pub before: u32,
    pub refused: u32,
    pub corrupt: u32,
}

#[derive(Debug, Default)]
struct Queues {
    forward: VecDeque<ForwardCredit>,
    back: VecDeque<ReturnCredit>,
    /// Probes to which a corrupt reply came.
    named: VecDeque<u32>,
}

/// What this host threw away between two readings of its counters.
#[derive(Clone, Copy, Debug)]
struct ReturnCredit {
    from: MonoNanos,
    until: MonoNanos,
    overrun: u32,
    corrupt: u32,
}

#[derive(Clone, Copy, Debug)]
struct LocalCounts {
    corrupt: u32,
    overrun: u32,
    read: MonoNanos,
}

impl Credits {
    /// Adds what the reflector threw away; `oldest` is the oldest probe that may still claim.
    pub fn grant_forward(&mut self, credit: ForwardCredit, oldest: u32) {
        if credit.refused == 0 && credit.corrupt == 0 {
            return;
        }
        let queue = &mut self.queues.get_or_insert_default().forward;
        queue.retain(|held| is_below(oldest, held.before));
        let full = queue.len() >= MAX_CREDITS;
        match queue.back_mut() {
            Some(last) if full => {
                last.before = later(last.before, credit.before);
                last.refused = last.refused.saturating_add(credit.refused);
                last.corrupt = last.corrupt.saturating_add(credit.corrupt);
            }
            _ => queue.push_back(credit),
        }
    }

    /// Takes the collector's totals for this target, as they stand at `now`. The first reading is only a starting point.
    pub fn handle_local_counts(&mut self, corrupt: u32, overrun: u32, now: MonoNanos) {
        let current = LocalCounts {
            corrupt,
            overrun,
            read: now,
        };
        let Some(last) = self.local.replace(current) else {
            return;
        };
        // Named ones need no credit. An event may be read before the count that it is in, so they wait for it.
        let risen = rise(last.corrupt, corrupt);
        let named = risen.min(self.uncounted);
        self.uncounted -= named;
        let credit = ReturnCredit {
            from: last.read,
            until: now,
            overrun: rise(last.overrun, overrun),
            corrupt: risen - named,
        };
        if credit.overrun > 0 || credit.corrupt > 0 {
            self.grant_return(credit);
        }
    }

    /// Notes that a corrupt reply came to this probe; `oldest` is the oldest probe that may still claim.
    pub fn name_corrupt(&mut self, seq: u32, oldest: u32) {
        let queue = &mut self.queues.get_or_insert_default().named;
        queue.retain(|held| !is_below(*held, oldest));
        // Beyond that it goes without a name, like all that the collector could only count.
        if queue.len() < MAX_NAMED {
            queue.push_back(seq);
            self.uncounted = self.uncounted.saturating_add(1);
        }
        self.drop_empty();
    }

    /// Explains a probe that the reflector answered by the corrupt reply that named it.
    pub fn claim_named(&mut self, seq: u32) -> Option<Outcome> {
        let named = &mut self.queues.as_mut()?.named;
        let before = named.len();
        named.retain(|held| *held != seq);
        let found = named.len() < before;
        self.drop_empty();
        found.then_some(Outcome::CorruptReturn)
    }

    /// Explains a probe that the reflector did not accept. Probes must ask in the order of their numbers.
    pub fn claim_forward(&mut self, seq: u32) -> Option<Outcome> {
        let queues = self.queues.as_mut()?;
        let queue = &mut queues.forward;
        queue.retain(|held| is_below(seq, held.before));
        let place = queue.iter().position(|held| is_below(held.after, seq))?;
        let credit = &mut queue[place];
        let outcome = if credit.refused > 0 {
            credit.refused -= 1;
            Outcome::Refused
        } else {
            credit.corrupt -= 1;
            Outcome::CorruptForward
        };
        if credit.refused == 0 && credit.corrupt == 0 {
            queue.remove(place);
        }
        self.drop_empty();
        Some(outcome)
    }

    /// Explains a probe sent at `sent` whose reply did not arrive, if replies take at most `reach_ns`. Probes must ask
    /// in the order in which they were sent.
    pub fn claim_return(&mut self, sent: MonoNanos, reach_ns: u64) -> Option<Outcome> {
        let queues = self.queues.as_mut()?;
        let queue = &mut queues.back;
        queue.retain(|held| held.until >= sent);
        let place = queue
            .iter()
            .position(|held| sent.plus(reach_ns) >= held.from)?;
        let credit = &mut queue[place];
        let outcome = if credit.overrun > 0 {
            credit.overrun -= 1;
            Outcome::Overrun
        } else {
            credit.corrupt -= 1;
            Outcome::CorruptReturn
        };
        if credit.overrun == 0 && credit.corrupt == 0 {
            queue.remove(place);
        }
        self.drop_empty();
        Some(outcome)
    }

    fn grant_return(&mut self, credit: ReturnCredit) {
        let queue = &mut self.queues.get_or_insert_default().back;
        let full = queue.len() >= MAX_CREDITS;
        match queue.back_mut() {
            Some(last) if full => {
                last.until = credit.until;
                last.overrun = last.overrun.saturating_add(credit.overrun);
                last.corrupt = last.corrupt.saturating_add(credit.corrupt);
            }
            _ => queue.push_back(credit),
        }
    }

    fn drop_empty(&mut self) {
        if self.queues.as_ref().is_some_and(|queues| queues.is_empty()) {
            self.queues = None;
        }
    }
}

impl Queues {
    fn is_empty(&self) -> bool {
        self.forward.is_empty() && self.back.is_empty() && self.named.is_empty()
    }
}

/// Beyond this many unclaimed credits of one direction the newest ones share their bounds.
const MAX_CREDITS: usize = 64;
/// Named corrupt replies that wait to be claimed.
const MAX_NAMED: usize = 1024;
