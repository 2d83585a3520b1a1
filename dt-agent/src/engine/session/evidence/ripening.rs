//! How far replies reached a settle time ago.

use dt_common::time::MonoNanos;

use super::super::serial::is_below;

/// Remembers when the number last rose, and one step on its way for when it never stops rising: so what is ripe is known at
/// most one settle time too late, in constant space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ripening {
    ripe: u32,
    pending: u32,
    since: MonoNanos,
    risen: MonoNanos,
}

impl Ripening {
    /// Nothing above `before` yet.
    pub const fn new(before: u32) -> Self {
        Self {
            ripe: before,
            pending: before,
            since: MonoNanos(0),
            risen: MonoNanos(0),
        }
    }

    /// The number has risen.
    pub const fn handle_rise(&mut self, now: MonoNanos) {
        self.risen = now;
    }

    /// The number stands at `top`.
    pub fn handle_time(&mut self, top: u32, now: MonoNanos, settle_ns: u64) {
        if now >= self.risen.plus(settle_ns) {
            (self.ripe, self.pending) = (top, top);
        } else if now >= self.since.plus(settle_ns) {
            self.ripe = self.pending;
            (self.pending, self.since) = (top, now);
        }
    }

    /// Whether the number passed `seq` a settle time ago.
    pub const fn is_past(&self, seq: u32) -> bool {
        is_below(seq, self.ripe)
    }

    /// When to look again whether it has passed `seq`, which it has by now.
    pub fn past_at(&self, seq: u32, settle_ns: u64) -> MonoNanos {
        if self.is_past(seq) {
            MonoNanos(0)
        } else {
            self.since.min(self.risen).plus(settle_ns)
        }
    }
}
