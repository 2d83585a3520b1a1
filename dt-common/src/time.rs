//! Clocks and time formats as types that cannot be mixed up.
//!
//! Three clocks meet in one probe: this host's monotonic clock, this host's wall clock and the peer's wall clock. Only
//! differences within one clock mean anything, so each is a type, and the wire formats subtract with wrapping
//! arithmetic: NTP era 0 ends on 2036-02-07 (RFC 5905 section 6).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Nanoseconds in a second.
pub const NANOS_PER_SEC: u64 = 1_000_000_000;
/// Seconds from 1900-01-01, where NTP counts from, to 1970-01-01 (RFC 5905 figure 4).
pub const NTP_UNIX_OFFSET_SECS: u64 = 2_208_988_800;
/// 2^64 / 10^9 rounded down: turns nanoseconds below one second into 32.32 fractions without a division.
const FRACTION_PER_NANO: u64 = 18_446_744_073;

/// Nanoseconds on this host's `CLOCK_MONOTONIC`; what `bpf_ktime_get_ns` returns.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd, Hash)]
pub struct MonoNanos(pub u64);

impl MonoNanos {
    /// Time since `earlier`, zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This moment plus `nanos`, saturating.
    #[must_use]
    pub const fn plus(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }
}

/// A 64-bit NTP timestamp: seconds since 1900 and a binary fraction, 32 bits each (RFC 8762 section 4.2.1).
#[repr(transparent)]
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, Hash, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// From nanoseconds since 1900-01-01, in any era.
    ///
    /// One unsigned division, no 128-bit arithmetic: runs in BPF. The result is at most 0.28 ns early, so the
    /// difference of two such times rounds to the exact number of nanoseconds.
    #[must_use]
    #[inline(always)]
    pub const fn from_nanos_1900(nanos: u64) -> Self {
        let secs = nanos / NANOS_PER_SEC;
        let rest = nanos - secs * NANOS_PER_SEC;
        Self((secs << 32).wrapping_add((rest * FRACTION_PER_NANO) >> 32))
    }

    /// This time plus `nanos`, which must be below one second; exact to 0.24 ns. Spares BPF the division.
    #[must_use]
    #[inline(always)]
    pub const fn plus_subsecond(self, nanos: u64) -> Self {
        Self(
            self.0
                .wrapping_add((nanos.wrapping_mul(FRACTION_PER_NANO)) >> 32),
        )
    }

    /// From nanoseconds since 1970-01-01.
    #[must_use]
    pub const fn from_unix_nanos(nanos: u64) -> Self {
        Self::from_nanos_1900(nanos.wrapping_add(NTP_UNIX_OFFSET_SECS * NANOS_PER_SEC))
    }

    /// Nanoseconds since 1970-01-01, of the era whose middle is nearest to `near_unix_nanos`.
    #[must_use]
    pub const fn unix_nanos_near(self, near_unix_nanos: u64) -> u64 {
        near_unix_nanos.wrapping_add_signed(self.since(Self::from_unix_nanos(near_unix_nanos)))
    }

    /// Signed nanoseconds from `earlier` to `self`, right across an era's end, for spans below 68 years.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        let span = self.0.wrapping_sub(earlier.0) as i64;
        let magnitude = span.unsigned_abs();
        let secs = magnitude >> 32;
        let fraction = magnitude & 0xffff_ffff;
        let nanos = secs * NANOS_PER_SEC + ((fraction * NANOS_PER_SEC + (1 << 31)) >> 32);
        if span < 0 {
            -(nanos as i64)
        } else {
            nanos as i64
        }
    }
}

/// A truncated PTP timestamp: 32 bits of seconds since 1970 (TAI) and 32 bits of nanoseconds (RFC 8877 section 4.3).
#[repr(transparent)]
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, Hash, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct PtpTime(pub u64);

impl PtpTime {
    /// From nanoseconds on the PTP timescale.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        let secs = nanos / NANOS_PER_SEC;
        Self((secs << 32) | (nanos - secs * NANOS_PER_SEC))
    }

    /// Signed nanoseconds from `earlier` to `self`, right across the wrap of the 32-bit seconds in 2106.
    ///
    /// A peer may send a nanosecond part of 10^9 or more; it is taken as it stands and cannot overflow the result.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        let secs = ((self.0 >> 32) as u32).wrapping_sub((earlier.0 >> 32) as u32) as i32;
        let nanos = (self.0 & 0xffff_ffff) as i64 - (earlier.0 & 0xffff_ffff) as i64;
        secs as i64 * NANOS_PER_SEC as i64 + nanos
    }
}

/// The Error Estimate of a timestamp: `S|Z|scale(6)|multiplier(8)` (RFC 4656 section 4.1.2, RFC 8186 for Z).
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub struct ErrorEstimate(pub u16);

impl ErrorEstimate {
    const SYNCHRONISED: u16 = 0x8000;
    const PTP: u16 = 0x4000;

    /// The smallest NTP-format estimate that is not below `bound_ns`.
    #[must_use]
    pub const fn from_bound(bound_ns: u64, synchronised: bool) -> Self {
        // Units of 2^-32 s, rounded up; a bound beyond 16 s is what an unsynchronised kernel reports anyway.
        let capped = if bound_ns > 1 << 36 {
            1 << 36
        } else {
            bound_ns
        };
        let mut multiplier = (capped as u128 * (1 << 32)).div_ceil(NANOS_PER_SEC as u128) as u64;
        let mut scale = 0_u16;
        while multiplier > 255 {
            multiplier = multiplier.div_ceil(2);
            scale += 1;
        }
        // A multiplier of zero is forbidden: it would claim a perfect clock.
        let multiplier = if multiplier == 0 { 1 } else { multiplier };
        let flag = if synchronised { Self::SYNCHRONISED } else { 0 };
        Self(flag | (scale << 8) | multiplier as u16)
    }

    /// Whether the clock claims to be synchronised to UTC by an external source.
    #[must_use]
    pub const fn is_synchronised(self) -> bool {
        self.0 & Self::SYNCHRONISED != 0
    }

    /// Whether the timestamp beside it is in PTP format (Z = 1), not NTP.
    #[must_use]
    pub const fn is_ptp(self) -> bool {
        self.0 & Self::PTP != 0
    }

    /// The bound in nanoseconds, saturating; `None` when the multiplier is the forbidden zero.
    #[must_use]
    pub const fn bound_ns(self) -> Option<u64> {
        let multiplier = (self.0 & 0xff) as u128;
        if multiplier == 0 {
            return None;
        }
        let scale = (self.0 >> 8) & 0x3f;
        let nanos = ((multiplier << scale) * NANOS_PER_SEC as u128) >> 32;
        Some(if nanos > u64::MAX as u128 {
            u64::MAX
        } else {
            nanos as u64
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_era_ends_without_a_jump() {
        // 2036-02-07 06:28:16 UTC is second 2^32 of the NTP timescale.
        let end = (1_u64 << 32) * NANOS_PER_SEC;
        let before = NtpTime::from_nanos_1900(end - 400);
        let after = NtpTime::from_nanos_1900(end + 600);
        assert_eq!(after.0 >> 32, 0, "the seconds have wrapped");
        assert_eq!(after.since(before), 1_000);
        assert_eq!(before.since(after), -1_000);
    }

    #[test]
    fn the_error_estimate_of_1500_us_is_that_of_the_rfc_arithmetic() {
        let estimate = ErrorEstimate::from_bound(1_500_000, true);
        assert_eq!(estimate.0, 0x8000 | (15 << 8) | 0xc5);
        assert!(estimate.is_synchronised() && !estimate.is_ptp());
    }

    #[test]
    fn a_zero_multiplier_is_never_made_and_never_believed() {
        assert_eq!(ErrorEstimate::from_bound(0, false).0, 1);
        assert_eq!(ErrorEstimate(0x8000).bound_ns(), None);
        assert_eq!(ErrorEstimate(0x3fff).bound_ns(), Some(u64::MAX));
    }

    #[test]
    fn ptp_seconds_wrap_in_2106() {
        let before = PtpTime((0xffff_ffff << 32) | 0x3b9a_c9ff);
        let after = PtpTime(0);
        assert_eq!(after.since(before), 1);
    }

    proptest! {
        #[test]
        fn a_difference_of_ntp_times_is_exact_to_the_nanosecond(
            start in 0..u64::MAX / 2,
            span in 0..(1_u64 << 60),
        ) {
            let earlier = NtpTime::from_nanos_1900(start);
            let later = NtpTime::from_nanos_1900(start + span);
            prop_assert_eq!(later.since(earlier), span as i64);
            prop_assert_eq!(earlier.since(later), -(span as i64));
        }

        #[test]
        fn adding_within_a_second_agrees_with_the_division(start in 0..u64::MAX / 2, span in 0..NANOS_PER_SEC) {
            let base = NtpTime::from_nanos_1900(start);
            prop_assert_eq!(base.plus_subsecond(span).since(base), span as i64);
        }

        #[test]
        fn a_bound_is_never_understated(bound in 0..1_u64 << 36) {
            let stated = ErrorEstimate::from_bound(bound, true).bound_ns();
            // One unit of rounding in the conversion back to nanoseconds.
            prop_assert!(stated.is_some_and(|stated| stated + 1 >= bound));
        }

        #[test]
        fn the_nearest_era_is_found(unix in 0..4 * (1_u64 << 32) * NANOS_PER_SEC, skew in -1_000_000_000_i64..1_000_000_000) {
            let near = unix.saturating_add_signed(skew);
            prop_assert_eq!(NtpTime::from_unix_nanos(unix).unix_nanos_near(near), unix);
        }
    }
}
