//! Reads the clocks of the machine.

use std::io;

use dt_common::time::{NANOS_PER_SEC, NTP_UNIX_OFFSET_SECS};
use nix::libc;
use rtime_clock::adjtime::{Timex, adjtimex};

use super::{Reading, now, unix_now_ns};

/// What the kernel's NTP state says of the wall clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KernelClock {
    /// How far it may be from UTC; the kernel lets it grow by 500 ppm while no daemon sets it, up to 16 s.
    pub bound_ns: u64,
    /// Whether something keeps it synchronised.
    pub synchronised: bool,
}

/// Asks the kernel how good the wall clock is. Needs no privilege.
///
/// # Errors
/// The call is not allowed, as under some seccomp profiles.
pub fn kernel_clock() -> io::Result<KernelClock> {
    let mut timex = Timex::new();
    let state = adjtimex(&mut timex)?;
    // `maxerror` is in microseconds whatever STA_NANO says (adjtimex(2)).
    let bound_us = u64::try_from(timex.0.maxerror).unwrap_or(0);
    Ok(KernelClock {
        bound_ns: bound_us.saturating_mul(1_000),
        synchronised: state != libc::TIME_ERROR && timex.0.status & libc::STA_UNSYNC == 0,
    })
}

/// Measures the wall clock against the monotonic clock and asks how good it is.
#[must_use]
pub fn read() -> Reading {
    let (offset_ns, uncertainty_ns) = best_offset();
    // Not being told is treated as the kernel treats a clock that nobody sets.
    let kernel = kernel_clock().unwrap_or(KernelClock {
        bound_ns: UNKNOWN_BOUND_NS,
        synchronised: false,
    });
    Reading {
        offset_ns,
        uncertainty_ns,
        bound_ns: kernel.bound_ns,
        synchronised: kernel.synchronised,
    }
}

/// The offset as read between the two closest readings of the monotonic clock, and half their distance.
fn best_offset() -> (u64, u64) {
    let mut best = bracket();
    for _ in 1..BRACKETS {
        let next = bracket();
        if next.1 < best.1 {
            best = next;
        }
    }
    best
}

fn bracket() -> (u64, u64) {
    let before = now();
    let wall = unix_now_ns().wrapping_add(NTP_UNIX_OFFSET_SECS * NANOS_PER_SEC);
    let half = now().since(before) / 2;
    (wall.wrapping_sub(before.0 + half), half + 1)
}

/// Enough that one of them is not interrupted, also on a busy host.
const BRACKETS: usize = 8;

/// Where the kernel clamps its own bound (`NTP_PHASE_LIMIT`).
const UNKNOWN_BOUND_NS: u64 = 16_000_000_000;
