//! The CPU time of a process or a thread, to the nanosecond: run time as the scheduler accounts it, not the ticks it was seen at.

use anyhow::{Context, Result};
#[cfg(feature = "kafka")]
use nix::time::ClockId;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// What all threads of the process have used, those that ended included.
pub fn process_ns(pid: u32) -> Result<u64> {
    let used = clock_getcpuclockid(Pid::from_raw(pid as i32)).and_then(clock_gettime);
    let used = used.with_context(|| format!("no CPU clock of process {pid}"))?;
    Ok(used.tv_sec() as u64 * 1_000_000_000 + used.tv_nsec() as u64)
}

/// What the calling thread has used: unlike a stopwatch it stands while others have the CPU.
#[cfg(feature = "kafka")]
pub fn thread_ns() -> Result<u64> {
    let used = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(used.tv_sec() as u64 * 1_000_000_000 + used.tv_nsec() as u64)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_clock_of_this_process_runs_while_it_works() {
        let own = || super::process_ns(std::process::id()).expect("this process runs");
        let before = own();
        let sum = (0..1_000_000_u64).fold(0_u64, |sum, value| sum ^ std::hint::black_box(value));
        assert!(own() > before, "{sum}");
    }
}
