//! The kernel's monotonic clock, and its value as wall-clock time.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use dt_common::map::Config;
use dt_common::time::NtpTime;

/// Nanoseconds on `CLOCK_MONOTONIC`; about 34 ns a call.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper has no arguments and cannot fail.
    unsafe { bpf_ktime_get_ns() }
}

/// `monotonic_ns` on this host's wall clock.
#[inline(always)]
pub fn wall(config: &Config, monotonic_ns: u64) -> NtpTime {
    NtpTime::from_nanos_1900(monotonic_ns.wrapping_add(config.clock_offset_ns))
}
