//! What this process costs its host.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use nix::unistd::{SysconfVar, sysconf};

use crate::adapters::clock;

/// Figures of the process, in the units of Prometheus' conventions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ProcessCost {
    /// User and system time, s.
    pub cpu_s: f64,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// Start, s since 1970; 0: not known.
    pub start_unix_s: f64,
}

impl ProcessCost {
    /// As of now. What cannot be read is 0.
    pub fn read() -> Self {
        let cpu_us = getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| {
            usage.user_time().num_microseconds() + usage.system_time().num_microseconds()
        });
        Self {
            cpu_s: cpu_us as f64 / 1e6,
            resident_bytes: resident_bytes().unwrap_or(0),
            start_unix_s: start_unix_s().unwrap_or(0.0),
        }
    }
}

/// Second field of `/proc/self/statm`, in pages (proc(5)).
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let page = sysconf(SysconfVar::PAGE_SIZE).ok()??;
    pages.checked_mul(page.try_into().ok()?)
}

/// Field 22 of `/proc/self/stat`, in clock ticks since the host started (proc(5)).
fn start_unix_s() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field may hold anything, but ends with the last parenthesis.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let ticks: f64 = fields.nth(19)?.parse().ok()?;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok()?? as f64;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime_s: f64 = uptime.split_ascii_whitespace().next()?.parse().ok()?;
    let now_s = clock::unix_now_ns() as f64 / 1e9;
    Some(now_s - (uptime_s - ticks / per_second).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_cost() {
        let cost = ProcessCost::read();
        assert!(cost.cpu_s > 0.0);
        assert!(cost.resident_bytes > 1 << 20);
        let now_s = clock::unix_now_ns() as f64 / 1e9;
        assert!(cost.start_unix_s > now_s - 86_400.0 && cost.start_unix_s <= now_s + 1.0);
    }
}
