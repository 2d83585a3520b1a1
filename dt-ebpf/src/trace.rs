//! One log record for each verdict, in builds for development only.
//!
//! A record costs more than all the rest of a program, so that the feature `trace` is in no release object.

use dt_common::map::Reason;

/// Logs the number of `reason`; the agent knows its name.
///
/// Not in line: the macro is a hundred times as long as what it is called from, and that at each verdict.
#[inline(never)]
pub fn verdict(reason: Reason) {
    aya_log_ebpf::debug!((), "{}", reason as u32);
}
