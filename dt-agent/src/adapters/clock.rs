//! This host's clocks: the monotonic one, the wall clock as an offset to it, and how wrong the latter may be.
//!
//! The one place in the agent that reads a clock. The hard fact it rests on: the kernel slews `CLOCK_MONOTONIC` and
//! `CLOCK_REALTIME` alike, so their difference changes only when somebody steps the wall clock. A change of the measured
//! offset is therefore a step, and nothing else is.

mod reader;
mod tracker;
mod watch;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use dt_common::time::{ErrorEstimate, MonoNanos, NANOS_PER_SEC, NTP_UNIX_OFFSET_SECS, NtpTime};
use rustix::time::{ClockId, Timespec, clock_gettime};

pub use reader::{KernelClock, kernel_clock, read};
pub use tracker::{ClockTracker, Reading};
pub use watch::{ClockError, ClockWatch};

/// Now, on the monotonic clock.
#[must_use]
pub fn now() -> MonoNanos {
    MonoNanos(nanos(clock_gettime(ClockId::Monotonic)))
}

/// Now, on the wall clock, in nanoseconds since 1970.
#[must_use]
pub fn unix_now_ns() -> u64 {
    nanos(clock_gettime(ClockId::Realtime))
}

/// The wall clock as everybody who stamps needs it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClockState {
    /// Nanoseconds since 1900 on the wall clock less nanoseconds on the monotonic clock.
    pub offset_ns: u64,
    /// Which offset this is: rises by two with each step of the wall clock, odd while the offset changes.
    pub generation: u32,
    /// How wrong the wall clock may be, as the kernel's NTP state says.
    pub error_estimate: ErrorEstimate,
}

impl ClockState {
    /// A monotonic time on the wall clock.
    #[must_use]
    pub const fn wall(&self, at: MonoNanos) -> NtpTime {
        NtpTime::from_nanos_1900(at.0.wrapping_add(self.offset_ns))
    }

    /// Nanoseconds since 1970 as the monotonic time that it was, or will be, under this offset.
    #[must_use]
    pub const fn mono_of_unix(&self, unix_ns: u64) -> MonoNanos {
        let since_1900 = unix_ns.wrapping_add(NTP_UNIX_OFFSET_SECS * NANOS_PER_SEC);
        MonoNanos(since_1900.wrapping_sub(self.offset_ns))
    }

    /// Whether the offset is being changed: a stamp taken now means nothing.
    #[must_use]
    pub const fn is_changing(&self) -> bool {
        self.generation & 1 == 1
    }

    /// The generation as it fits into the wire format.
    #[must_use]
    pub const fn wire_generation(&self) -> u16 {
        self.generation as u16
    }
}

/// The latest [`ClockState`], shared between the threads that stamp.
#[derive(Clone, Debug)]
pub struct SharedClock {
    state: Arc<Mutex<ClockState>>,
}

impl SharedClock {
    /// A clock that stands at `state` until it is told otherwise.
    #[must_use]
    pub fn new(state: ClockState) -> Self {
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The state now; about 20 ns.
    #[must_use]
    pub fn state(&self) -> ClockState {
        // A `Copy` value cannot be left half written by a panicking holder.
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the state.
    pub fn set(&self, state: ClockState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

/// Nanoseconds of a time that the kernel gave; before its clock's zero counts as zero.
fn nanos(time: Timespec) -> u64 {
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    secs.saturating_mul(NANOS_PER_SEC).saturating_add(nanos)
}
