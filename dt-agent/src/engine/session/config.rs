//! The settings of sessions.

use crate::engine::mix::Mix;

/// What sessions need to know from the start; shared by those that are alike.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SessionConfig {
    /// A reply later than this is late, ns.
    pub deadline_ns: u64,
    /// How long after the deadline, and after the reply that decides, more evidence is waited for, ns.
    pub settle_ns: u64,
    /// The longest pause between two probes that the schedule plans, ns. Longer ones that happen are noticed.
    pub interval_ns: u64,
    /// How long after the session's start a peer may take to admit this node, ns; 0 where nobody admits.
    pub admission_grace_ns: u64,
    /// How long decided probes are remembered, to know copies and late replies when they come, ns after sending.
    pub memory_ns: u64,
    /// The most probes that are remembered, at 16 bytes each.
    pub max_remembered: u32,
    /// The most records that [`super::Session::poll_record`] finds waiting; 0: no records are made.
    pub max_records: u32,
    /// How often a window may be ended early because stamps come from elsewhere; see [`super::Session::poll_window`].
    pub max_cuts: u32,
    /// The classes of probes; the same for the whole life of a session.
    pub mix: Mix,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            deadline_ns: 1_000_000_000,
            settle_ns: 200_000_000,
            interval_ns: 0,
            admission_grace_ns: 10_000_000_000,
            memory_ns: 4_000_000_000,
            max_remembered: 65_536,
            max_records: 0,
            max_cuts: 0,
            mix: Mix::default(),
        }
    }
}
