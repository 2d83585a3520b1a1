//! `dt-agent doctor`: which mode each interface would take and why, and what else bears on the figures.
//!
//! Three steps apart from each other: `collect` asks the machine, `judge` decides from what it said, `print` writes it
//! down. What may not be seen is a fact, too, and is said. Nothing is changed, but for the try to attach that the caller
//! passes in.

mod collect;
mod drivers;
mod facts;
mod host;
mod interface;
mod judge;
mod print;

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::Path;

use crate::adapters::net::Link;

pub use facts::{AttachTry, Capabilities, Fact, Facts, IdleState, InterfaceFacts, KernelRelease};
pub use judge::{Diagnosis, Finding, InterfaceDiagnosis, Level, judge};

/// What to look at.
#[derive(Clone, Copy, Debug)]
pub struct DoctorOptions<'a> {
    /// Interfaces by name; none: all that could carry probes.
    pub interfaces: &'a [String],
    /// The node that an agent on this host would be.
    pub node: &'a str,
    /// Directory for programs and maps, which must be on a BPF file system.
    pub pin_root: &'a Path,
    /// Print one JSON object.
    pub json: bool,
}

/// Examines this host and prints what was found; whether `xdp` or `tc` works on any interface.
///
/// `attach_probe` tries the programs on one interface and takes them off again; `None` if it did not try.
///
/// # Errors
/// `out` cannot be written to.
pub fn doctor(
    options: &DoctorOptions<'_>,
    attach_probe: impl Fn(&Link) -> Option<AttachTry>,
    out: &mut impl Write,
) -> io::Result<bool> {
    let facts = collect::collect(options, attach_probe);
    let diagnosis = judge(&facts);
    if options.json {
        serde_json::to_writer_pretty(&mut *out, &diagnosis)?;
        writeln!(out)?;
    } else {
        print::text(&diagnosis, out)?;
    }
    Ok(diagnosis.works)
}
