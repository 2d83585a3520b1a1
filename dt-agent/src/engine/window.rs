//! What one peer's probes did in a span of time: the figures that are published.
//!
//! A window counts events when they happen, so a probe that was sent in one window may get its outcome in the next:
//! `in_flight before + sent = outcomes + in_flight after`, exactly, in each window. Outcomes are final; what is learnt
//! later ([`Counters::late_after_loss`]) is counted beside them.

use dt_common::event::{EventFlags, ReplyEvent};
use dt_common::time::{ErrorEstimate, MonoNanos};
use dt_common::wire::DtFlags;
use dt_feed::Histogram;

use super::session::Outcome;

/// All that was measured of one peer between two instants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WindowReport {
    /// Number of the class of probes in [`super::mix::Mix::classes`].
    pub class: u8,
    /// First instant of the window.
    pub start: MonoNanos,
    /// First instant after the window.
    pub end: MonoNanos,
    /// What was counted.
    pub counters: Counters,
    /// Probes without an outcome at the end.
    pub in_flight: u32,
    /// Round trip times of probes received in time, ns.
    pub rtt: Histogram,
    /// Round trip times of the compared ones among them as user space saw them, less the residence at the peer, ns.
    pub user_rtt: Histogram,
    /// Residence at the peer (T3 - T2) of the same probes as `rtt`, ns.
    pub residence: Spread,
    /// The least one-way delays. Absent: not measured.
    pub min_one_way: Option<OneWay>,
    /// Greatest error bound that the peer's clock stated, ns. Absent: not stated.
    pub peer_error_bound_ns: Option<u64>,
    /// Routers on the way there.
    pub hops_forward: Hops,
    /// Routers on the way back.
    pub hops_return: Hops,
    /// Where time stamps were taken.
    pub stamps: StampSources,
}

/// Counts of probes and replies in one window; each saturates.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Probes put on the wire.
    pub sent: u32,
    /// Probes that the local host could not send; not among `sent`.
    pub send_failed: u32,
    /// Probes that the schedule asked for and a late wake-up left out; not among `sent`.
    pub skipped: u32,

    /// Outcome: [`Outcome::Received`].
    pub received: u32,
    /// Outcome: [`Outcome::Late`].
    pub late: u32,
    /// Outcome: [`Outcome::LostForward`].
    pub lost_forward: u32,
    /// Outcome: [`Outcome::LostReturn`].
    pub lost_return: u32,
    /// Outcome: [`Outcome::LostUnknown`].
    pub lost_unknown: u32,
    /// Outcome: [`Outcome::CorruptForward`].
    pub corrupt_forward: u32,
    /// Outcome: [`Outcome::CorruptReturn`].
    pub corrupt_return: u32,
    /// Outcome: [`Outcome::Overrun`].
    pub overrun: u32,
    /// Outcome: [`Outcome::Refused`].
    pub refused: u32,
    /// Outcome: [`Outcome::NotAdmitted`].
    pub not_admitted: u32,
    /// Outcome: [`Outcome::PeerRestarted`].
    pub peer_restarted: u32,
    /// Outcome: [`Outcome::Departed`].
    pub departed: u32,

    /// Replies to probes that had been called lost, in this window or before: subtract them from the lost to correct.
    pub late_after_loss: u32,
    /// Copies of requests that reached the peer beyond the first, by the peer's count.
    pub duplicate_forward: u32,
    /// Copies of replies that arrived beyond the first, answers to copied requests apart.
    pub duplicate_return: u32,
    /// First replies that came after the reply to a later probe.
    pub reordered: u32,
    /// Replies to probes of an earlier life, or to probes long forgotten; ignored.
    pub stale: u32,
    /// Replies to probes that were never sent, or whose stamps are absurd; not measured.
    pub implausible: u32,
    /// Received or late, but a clock was set meanwhile; not measured.
    pub straddled: u32,
    /// Probes given up as `lost_unknown` before their time, because too many were remembered.
    pub crowded_out: u32,
    /// Records of single probes dropped, because nobody fetched them.
    pub records_dropped: u32,
}

impl Counters {
    /// Probes that the schedule asked for.
    #[must_use]
    pub fn asked(&self) -> u64 {
        u64::from(self.sent) + u64::from(self.send_failed) + u64::from(self.skipped)
    }

    /// Probes that got an outcome.
    #[must_use]
    pub fn outcomes(&self) -> u64 {
        Outcome::ALL
            .iter()
            .map(|outcome| u64::from(self.of(*outcome)))
            .sum()
    }

    /// Probes that the network lost, whatever the direction.
    #[must_use]
    pub fn lost(&self) -> u64 {
        u64::from(self.lost_forward) + u64::from(self.lost_return) + u64::from(self.lost_unknown)
    }

    /// Probes with this outcome.
    #[must_use]
    pub const fn of(&self, outcome: Outcome) -> u32 {
        match outcome {
            Outcome::Received => self.received,
            Outcome::Late => self.late,
            Outcome::LostForward => self.lost_forward,
            Outcome::LostReturn => self.lost_return,
            Outcome::LostUnknown => self.lost_unknown,
            Outcome::CorruptForward => self.corrupt_forward,
            Outcome::CorruptReturn => self.corrupt_return,
            Outcome::Overrun => self.overrun,
            Outcome::Refused => self.refused,
            Outcome::NotAdmitted => self.not_admitted,
            Outcome::PeerRestarted => self.peer_restarted,
            Outcome::Departed => self.departed,
        }
    }

    pub(super) const fn count(&mut self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Received => &mut self.received,
            Outcome::Late => &mut self.late,
            Outcome::LostForward => &mut self.lost_forward,
            Outcome::LostReturn => &mut self.lost_return,
            Outcome::LostUnknown => &mut self.lost_unknown,
            Outcome::CorruptForward => &mut self.corrupt_forward,
            Outcome::CorruptReturn => &mut self.corrupt_return,
            Outcome::Overrun => &mut self.overrun,
            Outcome::Refused => &mut self.refused,
            Outcome::NotAdmitted => &mut self.not_admitted,
            Outcome::PeerRestarted => &mut self.peer_restarted,
            Outcome::Departed => &mut self.departed,
        };
        add(counter, 1);
    }
}

/// Adds to a counter that a hostile peer may drive, so without overflow.
pub(super) const fn add(counter: &mut u32, n: u32) {
    *counter = counter.saturating_add(n);
}

/// Number, sum, least and greatest of some durations.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Spread {
    count: u32,
    sum_ns: u64,
    min_ns: u64,
    max_ns: u64,
}

impl Spread {
    /// Adds one duration, ns.
    pub fn record(&mut self, ns: u64) {
        self.min_ns = if self.count == 0 {
            ns
        } else {
            self.min_ns.min(ns)
        };
        self.max_ns = self.max_ns.max(ns);
        self.sum_ns = self.sum_ns.saturating_add(ns);
        add(&mut self.count, 1);
    }

    /// How many there were.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Their sum, ns.
    #[must_use]
    pub const fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// The least, ns; `None` without any.
    #[must_use]
    pub fn min_ns(&self) -> Option<u64> {
        (self.count > 0).then_some(self.min_ns)
    }

    /// The greatest, ns; `None` without any.
    #[must_use]
    pub fn max_ns(&self) -> Option<u64> {
        (self.count > 0).then_some(self.max_ns)
    }

    /// Their mean, ns, rounded down; `None` without any.
    #[must_use]
    pub fn mean_ns(&self) -> Option<u64> {
        self.sum_ns.checked_div(u64::from(self.count))
    }
}

/// One-way delays: differences between two hosts' wall clocks, true within both clocks' error bounds, so they may be
/// negative.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OneWay {
    /// T2 - T1, ns.
    pub forward_ns: i64,
    /// T4 - T3, ns.
    pub return_ns: i64,
}

/// Routers on one way, from the TTL that was left: probes and replies of ours start with 255.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Hops {
    /// Those of the latest reply, of an earlier window if there was none in this one; absent before the first reply.
    pub last: Option<u8>,
    /// They were not the same for all replies since the end of the window before.
    pub changed: bool,
}

impl Hops {
    /// The hops that a TTL at arrival stands for. Zero cannot arrive: it is a reflector that did not say.
    pub(super) const fn of_ttl(ttl: u8) -> Option<u8> {
        if ttl == 0 { None } else { Some(u8::MAX - ttl) }
    }

    fn observe(&mut self, ttl: u8) {
        let Some(hops) = Self::of_ttl(ttl) else {
            return;
        };
        self.changed |= self.last.is_some_and(|last| last != hops);
        self.last = Some(hops);
    }

    const fn carried_over(self) -> Self {
        Self {
            last: self.last,
            changed: false,
        }
    }
}

/// A set of places where time stamps were taken.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StampSources(u16);

impl StampSources {
    /// T4 in native XDP.
    pub const T4_XDP: Self = Self(0x01);
    /// T4 at tc ingress.
    pub const T4_TC: Self = Self(0x02);
    /// T4 by the kernel for a socket.
    pub const T4_SOCKET: Self = Self(0x04);
    /// T2, T3 in native XDP.
    pub const PEER_XDP: Self = Self(0x08);
    /// T2, T3 at tc ingress.
    pub const PEER_TC: Self = Self(0x10);
    /// T2, T3 in user space of an agent of ours.
    pub const PEER_SOCKET: Self = Self(0x20);
    /// T2, T3 by a reflector that is not ours.
    pub const PEER_FOREIGN: Self = Self(0x40);
    /// T4 in user space.
    pub const T4_USER: Self = Self(0x80);
    /// T1 by the program on its way out.
    pub const T1_PROGRAM: Self = Self(0x100);
    /// T1 by the kernel for a socket.
    pub const T1_SOCKET: Self = Self(0x200);
    /// T1 in user space.
    pub const T1_USER: Self = Self(0x400);

    const T1: [Self; 3] = [Self::T1_PROGRAM, Self::T1_SOCKET, Self::T1_USER];
    const T4: [Self; 4] = [Self::T4_XDP, Self::T4_TC, Self::T4_SOCKET, Self::T4_USER];
    const PEER: [Self; 4] = [
        Self::PEER_XDP,
        Self::PEER_TC,
        Self::PEER_SOCKET,
        Self::PEER_FOREIGN,
    ];

    /// Whether all of `sources` are in the set.
    #[must_use]
    pub const fn contains(self, sources: Self) -> bool {
        self.0 & sources.0 == sources.0
    }

    /// Whether no stamp was taken.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether one of the stamps was taken in more than one place.
    #[must_use]
    pub fn is_mixed(self) -> bool {
        let several = |places: &[Self]| {
            let taken = places.iter().filter(|place| self.contains(**place));
            taken.count() > 1
        };
        several(&Self::T1) || several(&Self::T4) || several(&Self::PEER)
    }

    /// The sources of one reply's stamps.
    #[must_use]
    pub const fn of(event: &ReplyEvent) -> Self {
        let (t1, t4) = if event.flags & EventFlags::SOCKET != 0 {
            (
                if event.flags & EventFlags::T1_USER != 0 {
                    Self::T1_USER
                } else {
                    Self::T1_SOCKET
                },
                if event.flags & EventFlags::T4_USER != 0 {
                    Self::T4_USER
                } else {
                    Self::T4_SOCKET
                },
            )
        } else if event.flags & EventFlags::XDP != 0 {
            (Self::T1_PROGRAM, Self::T4_XDP)
        } else {
            (Self::T1_PROGRAM, Self::T4_TC)
        };
        let peer = match event.tlv_flags & DtFlags::REFLECTOR_MASK {
            _ if event.flags & EventFlags::TLV == 0 => Self::PEER_FOREIGN,
            DtFlags::REFLECTOR_XDP => Self::PEER_XDP,
            DtFlags::REFLECTOR_TC => Self::PEER_TC,
            DtFlags::REFLECTOR_SOCKET => Self::PEER_SOCKET,
            // An agent that does not say.
            _ => Self(0),
        };
        Self(t1.0 | t4.0 | peer.0)
    }
}

impl WindowReport {
    /// An empty window that begins at `start`.
    #[must_use]
    pub fn starting(start: MonoNanos) -> Self {
        Self {
            start,
            ..Self::default()
        }
    }

    /// Closes this window and begins the next at the same instant.
    pub(super) fn turn(&mut self, end: MonoNanos, in_flight: u32) -> Self {
        let next = Self {
            class: self.class,
            start: end,
            hops_forward: self.hops_forward.carried_over(),
            hops_return: self.hops_return.carried_over(),
            ..Self::default()
        };
        let mut closed = std::mem::replace(self, next);
        (closed.end, closed.in_flight) = (end, in_flight);
        closed
    }

    /// Whether nothing happened and nothing is awaited.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.counters == Counters::default()
    }

    /// Probes that came back.
    pub(super) const fn replies(&self) -> u32 {
        let counters = &self.counters;
        counters.received.saturating_add(counters.late)
    }

    /// Whether stamps like these were taken so far, or none at all.
    pub(super) fn is_alike(&self, stamps: StampSources) -> bool {
        self.stamps.is_empty() || self.stamps == stamps
    }

    /// Notes the path and the stamps of a probe's first reply.
    pub(super) fn observe(&mut self, event: &ReplyEvent) {
        self.hops_forward.observe(event.request_ttl);
        self.hops_return.observe(event.reply_ttl);
        self.stamps.0 |= StampSources::of(event).0;
        let bound_ns = ErrorEstimate(event.error_estimate).bound_ns();
        // `None` is less than any bound.
        self.peer_error_bound_ns = self.peer_error_bound_ns.max(bound_ns);
    }

    /// Notes one-way delays.
    pub(super) fn observe_one_way(&mut self, delays: OneWay) {
        let least = self.min_one_way.get_or_insert(delays);
        least.forward_ns = least.forward_ns.min(delays.forward_ns);
        least.return_ns = least.return_ns.min(delays.return_ns);
    }
}

/// The current windows of one peer, one for each class of probes.
#[derive(Debug)]
pub(super) struct ClassWindows {
    first: WindowReport,
    /// None for nearly everybody.
    others: Box<[WindowReport]>,
}

impl ClassWindows {
    /// Empty ones of so many classes, at least 1, that begin at `start`.
    pub fn starting(classes: usize, start: MonoNanos) -> Self {
        let window = |class| WindowReport {
            class,
            ..WindowReport::starting(start)
        };
        Self {
            first: window(0),
            others: (1..classes as u8).map(window).collect(),
        }
    }

    /// That of a class; the first for one that is not.
    pub fn of(&mut self, class: u8) -> &mut WindowReport {
        let other = usize::from(class).checked_sub(1);
        match other.and_then(|other| self.others.get_mut(other)) {
            Some(window) => window,
            None => &mut self.first,
        }
    }

    /// Probes that came back, of all classes.
    pub fn replies(&self) -> u32 {
        let others = self.others.iter().map(WindowReport::replies);
        others.fold(self.first.replies(), u32::saturating_add)
    }
}

#[cfg(test)]
mod tests;
