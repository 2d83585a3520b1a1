//! What programs built for development say of each packet, as messages of this agent.
//!
//! Only with the feature `trace`; without it the programs have no log and this has nothing to read.

use aya::Ebpf;
use aya_log::{EbpfLogger, Error};
use dt_common::map::Reason;
use log::{Log, Metadata, Record};

/// The ring of the programs' log.
pub(super) struct TraceLog(EbpfLogger<Verdicts>);

impl TraceLog {
    /// Takes the log of programs that have one; `None` for those built without it, and when nobody listens.
    pub(super) fn of_object(object: &mut Ebpf) -> Option<Self> {
        if !is_wanted() {
            return None;
        }
        match EbpfLogger::init_with_logger(object, Verdicts) {
            Ok(logger) => Some(Self(logger)),
            Err(Error::MapNotFound) => None,
            Err(error) => {
                tracing::warn!(%error, "The programs' log cannot be read.");
                None
            }
        }
    }

    /// Passes on what was logged since the last call. Records for which the ring had no room are lost.
    pub(super) fn flush(&mut self) {
        self.0.flush();
    }
}

/// The highest level that the programs log; none when the records would be thrown away here.
pub(super) fn level() -> u8 {
    if is_wanted() {
        aya_log::Level::Debug as u8
    } else {
        0
    }
}

fn is_wanted() -> bool {
    tracing::enabled!(tracing::Level::DEBUG)
}

/// Gives the verdicts their names.
struct Verdicts;

impl Log for Verdicts {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args().to_string();
        let reason = text
            .parse()
            .ok()
            .and_then(|key: usize| Reason::ALL.get(key));
        match reason {
            Some(reason) => tracing::debug!(verdict = reason.name(), "A program judged a packet."),
            None => tracing::debug!("A program says: {text}"),
        }
    }

    fn flush(&self) {}
}
