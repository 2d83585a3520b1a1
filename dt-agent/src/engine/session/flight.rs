//! The probes that are remembered: those on their way, and for a while those that have their outcome.
//!
//! Sequence numbers are dense and sent in the order of time, so a probe's place follows from its number, and the oldest
//! undecided probe is always the next to be decided.

use std::collections::VecDeque;

use dt_common::time::MonoNanos;

use super::outcome::Outcome;
use super::serial::{earlier, is_below};
use crate::engine::mix::Mix;

/// One probe. Sixteen bytes, because a fast session remembers tens of thousands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    pub sent: MonoNanos,
    /// Residence at the peer in ns with [`Marks::MEASURED`], user-space elapsed ns with [`Marks::USER_EARLY`].
    pub spare_ns: u32,
    pub source_port: u16,
    pub state: State,
    pub marks: Marks,
}

const _: () = assert!(size_of::<Probe>() == 16);

/// A fifth of a second at the highest rate: what a reply may be behind, and a bound on the work that one can make.
const OVERTAKEN_LOOK: usize = 4_096;

/// Where a probe is in its life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// On its way, or missing and not yet decided.
    Waiting,
    /// Its number was given out, but it never left this host.
    Unsent,
    /// Decided.
    Done(Outcome),
}

/// What is known of a probe beside its state.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Marks(u8);

impl Marks {
    /// The reflector saw the request.
    pub const SEEN: Self = Self(0x01);
    /// The reflector did not see it; set only where the evidence is about to vanish.
    pub const UNSEEN: Self = Self(0x02);
    /// The peer lost its counters while this probe was on its way.
    pub const ORPHANED: Self = Self(0x04);
    /// A reply to this probe brought a bitmap that can be trusted for the 63 numbers before.
    pub const WITNESS: Self = Self(0x08);
    /// The answer to the request itself, not to a copy of it, has arrived.
    pub const ANSWERED: Self = Self(0x10);
    /// Some reply has arrived.
    pub const REPLIED: Self = Self(0x20);
    /// Its round trip time was recorded and may be compared with what user space saw.
    pub const MEASURED: Self = Self(0x40);
    /// User space saw the reply before the collector's event was read.
    pub const USER_EARLY: Self = Self(0x80);

    pub const fn has(self, mark: Self) -> bool {
        self.0 & mark.0 != 0
    }

    pub const fn set(&mut self, mark: Self) {
        self.0 |= mark.0;
    }

    pub const fn clear(&mut self, mark: Self) {
        self.0 &= !mark.0;
    }
}

/// Where a sequence number lies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// Sent and remembered.
    Known,
    /// Below all that are remembered.
    Past,
    /// Not sent yet, or taken back.
    Never,
}

/// The remembered probes, a run of sequence numbers that ends before `next`.
#[derive(Debug, Default)]
pub(super) struct Flight {
    probes: VecDeque<Probe>,
    next: u32,
    /// The oldest waiting probe, or `next`.
    oldest: u32,
    waiting: u32,
    /// Numbers ever given out; saturates.
    given: u32,
}

impl Flight {
    pub const fn next_seq(&self) -> u32 {
        self.next
    }

    /// Probes without an outcome.
    pub const fn waiting(&self) -> u32 {
        self.waiting
    }

    pub fn len(&self) -> usize {
        self.probes.len()
    }

    #[cfg(test)]
    pub fn start_at(&mut self, seq: u32) {
        (self.next, self.oldest) = (seq, seq);
    }

    /// How many numbers were given out up to and including `seq`; saturates, which is right for all who ask for 64.
    pub const fn given_up_to(&self, seq: u32) -> u32 {
        self.given
            .saturating_sub(self.next.wrapping_sub(seq).wrapping_sub(1))
    }

    pub fn place(&self, seq: u32) -> Place {
        match self.get(seq) {
            Some(probe) if probe.state != State::Unsent => Place::Known,
            None if is_below(seq, self.next) => Place::Past,
            Some(_) | None => Place::Never,
        }
    }

    pub fn get(&self, seq: u32) -> Option<&Probe> {
        self.probes.get(self.index(seq)?)
    }

    pub fn get_mut(&mut self, seq: u32) -> Option<&mut Probe> {
        let index = self.index(seq)?;
        self.probes.get_mut(index)
    }

    /// The probe sent last.
    pub fn newest(&self) -> Option<&Probe> {
        self.probes.back()
    }

    /// The oldest probe without an outcome.
    pub fn oldest_waiting(&self) -> Option<(u32, &Probe)> {
        self.get(self.oldest).map(|probe| (self.oldest, probe))
    }

    /// Whether a later probe of the same path, that is from the same source port and of the same class, has a reply. Looks at
    /// [`OVERTAKEN_LOOK`] numbers.
    pub fn is_overtaken(&self, seq: u32, mix: &Mix) -> bool {
        let Some(index) = self.index(seq) else {
            return false;
        };
        let Some(probe) = self.probes.get(index) else {
            return false;
        };
        let class = mix.class_of(seq);
        let later = self.probes.iter().skip(index + 1).take(OVERTAKEN_LOOK);
        (1..).zip(later).any(|(step, later)| {
            later.source_port == probe.source_port
                && later.marks.has(Marks::REPLIED)
                && mix.class_of(seq.wrapping_add(step)) == class
        })
    }

    /// Whether any probe up to and including `seq` has no outcome yet.
    pub const fn waits_up_to(&self, seq: u32) -> bool {
        self.waiting > 0 && !is_below(seq, self.oldest)
    }

    pub fn push(&mut self, source_port: u16, sent: MonoNanos) -> u32 {
        let seq = self.next;
        self.probes.push_back(Probe {
            sent,
            spare_ns: 0,
            source_port,
            state: State::Waiting,
            marks: Marks::default(),
        });
        self.next = seq.wrapping_add(1);
        self.given = self.given.saturating_add(1);
        self.waiting += 1;
        seq
    }

    /// Gives a waiting probe its outcome.
    pub fn decide(&mut self, seq: u32, outcome: Outcome) {
        self.leave_waiting(seq, State::Done(outcome));
    }

    /// Takes back a waiting probe that never left: its number is used again if it is the newest, else it stays a hole.
    pub fn withdraw(&mut self, seq: u32) {
        self.leave_waiting(seq, State::Unsent);
        while self
            .probes
            .pop_back_if(|last| last.state == State::Unsent)
            .is_some()
        {
            self.next = self.next.wrapping_sub(1);
            self.given -= 1;
        }
        // Nothing waits in what was taken back, but the search for the oldest may have run past its start.
        self.oldest = earlier(self.oldest, self.next);
    }

    /// Forgets decided probes from the front that were sent before `before`, but never the newest.
    pub fn forget(&mut self, before: MonoNanos) {
        while self.probes.len() > 1
            && self
                .probes
                .pop_front_if(|first| first.state != State::Waiting && first.sent < before)
                .is_some()
        {}
    }

    /// Forgets the oldest probe if it is decided.
    pub fn forget_oldest(&mut self) {
        self.probes
            .pop_front_if(|first| first.state != State::Waiting);
    }

    /// The numbers of all waiting probes up to but without `end`, ascending.
    pub fn waiting_before(&self, end: u32) -> impl Iterator<Item = u32> + use<'_> {
        let count = end.wrapping_sub(self.oldest) as i32;
        (0..count.max(0).cast_unsigned())
            .map(|step| self.oldest.wrapping_add(step))
            .filter(|seq| {
                self.get(*seq)
                    .is_some_and(|probe| probe.state == State::Waiting)
            })
    }

    fn index(&self, seq: u32) -> Option<usize> {
        let back = self.next.wrapping_sub(seq) as usize;
        self.probes.len().checked_sub(back)
    }

    fn leave_waiting(&mut self, seq: u32, state: State) {
        let Some(probe) = self.get_mut(seq) else {
            return;
        };
        if probe.state != State::Waiting {
            return;
        }
        probe.state = state;
        self.waiting -= 1;
        if seq == self.oldest {
            self.advance_oldest();
        }
    }

    fn advance_oldest(&mut self) {
        while self.oldest != self.next
            && self
                .get(self.oldest)
                .is_some_and(|probe| probe.state != State::Waiting)
        {
            self.oldest = self.oldest.wrapping_add(1);
        }
    }
}
