//! How many requests the reflector counted that nobody knows by name.
//!
//! The one identity behind it: what the reflector counted, less what is known by name, is the number of requests that it
//! saw and whose replies were lost beyond the reach of every bitmap. It holds whatever the order of packets, but for
//! requests that have overtaken the latest answered one: those are counted and not yet named. They are named soon, so
//! the least surplus since a gap opened is the gap's own.

use super::super::flight::Flight;
use super::Side;

/// The count of one series of reflector counters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Different requests that the reflector has counted.
    counted: u32,
    /// Of those, how many are known by name.
    known: u32,
    /// The least surplus since the last gap opened.
    unnamed: i32,
    gap: Option<Gap>,
    /// Probes given up without any evidence since the last reply.
    blind: u32,
}

/// Probes that no bitmap covers.
#[derive(Clone, Copy, Debug)]
struct Gap {
    last: u32,
    /// How many of them were given up before there was any evidence.
    blind: u32,
}

impl Tally {
    /// As if `count` requests had been counted and named.
    #[cfg(test)]
    pub fn after(count: u32) -> Self {
        Self {
            counted: count,
            known: count,
            ..Self::default()
        }
    }

    /// The reflector has counted this many by now.
    pub const fn count(&mut self, counted: u32) {
        self.counted = counted;
    }

    /// `n` more are known by name.
    pub const fn know(&mut self, n: u32) {
        self.known = self.known.wrapping_add(n);
    }

    /// A probe was given up with no reply to a later one.
    pub const fn give_up_blindly(&mut self) {
        self.blind = self.blind.saturating_add(1);
    }

    /// A higher number than ever was answered, and nothing is left uncovered.
    pub const fn close_up(&mut self) {
        self.blind = 0;
    }

    /// A higher number than ever was answered, and the probes up to `last` are left uncovered.
    pub fn open_gap(&mut self, last: u32, flight: &Flight) {
        self.close_gap(flight);
        let held = self.gap.map_or(0, |gap| gap.blind);
        self.gap = Some(Gap {
            last,
            blind: held.saturating_add(self.blind),
        });
        self.blind = 0;
        self.unnamed = i32::MAX;
    }

    /// Takes the surplus as it is after a reply.
    pub fn weigh(&mut self) {
        self.unnamed = self.unnamed.min(self.surplus());
    }

    /// Lets all that was counted so far be known: it says nothing about probes that may still be missing.
    pub const fn begin_here(&mut self) {
        self.known = self.counted;
        self.unnamed = 0;
    }

    /// On which side the next probe of a gap was lost. Which of them the reflector saw cannot be known, how many can.
    pub fn claim(&mut self) -> Side {
        let blind = self.gap.map_or(0, |gap| i64::from(gap.blind));
        if self.unnamed <= 0 {
            return Side::Forward;
        }
        // Those that were given up blindly may have been the ones that were seen.
        if i64::from(self.unnamed) <= blind {
            return Side::Unknown;
        }
        self.unnamed -= 1;
        Side::Return
    }

    /// Writes off a surplus that lasted, so that it cannot excuse forward loss in a later gap: requests more than 64 numbers
    /// late, and probes that were given up before their gap was closed.
    ///
    /// `replies` is the number of replies since the last call: few of them cannot tell a lasting surplus from requests
    /// that overtook.
    pub fn write_off(&mut self, replies: u32, flight: &Flight) {
        self.close_gap(flight);
        if self.gap.is_none() && replies >= ENOUGH_REPLIES {
            self.know_unnamed();
            self.unnamed = self.surplus();
        }
    }

    fn close_gap(&mut self, flight: &Flight) {
        if self.gap.is_some_and(|gap| !flight.waits_up_to(gap.last)) {
            self.know_unnamed();
            self.gap = None;
        }
    }

    const fn know_unnamed(&mut self) {
        self.known = self.known.wrapping_add_signed(self.unnamed);
        self.unnamed = 0;
    }

    const fn surplus(&self) -> i32 {
        self.counted.wrapping_sub(self.known).cast_signed()
    }
}

const ENOUGH_REPLIES: u32 = 64;
