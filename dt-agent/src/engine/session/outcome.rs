//! What can become of a probe, and the record of one probe for those who want every probe.

use std::collections::VecDeque;

use dt_common::time::MonoNanos;

use crate::engine::window::StampSources;

/// What became of one probe. Decided once and never revised, so that the sums over all windows are exact.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Outcome {
    /// The reply came in time.
    Received,
    /// The reply came after the deadline, but before the probe had been given up.
    Late,
    /// The request did not reach the reflector.
    LostForward,
    /// The reflector answered, the answer did not arrive.
    LostReturn,
    /// No reply, and nothing that tells the direction.
    LostUnknown,
    /// The request reached the reflector with a wrong checksum.
    CorruptForward,
    /// The reply arrived with a wrong checksum.
    CorruptReturn,
    /// The reply arrived, but this host had no room to note it. Never loss.
    Overrun,
    /// A rate limit of the reflector refused the request. Never loss.
    Refused,
    /// Sent before the peer had admitted this node. Never loss.
    NotAdmitted,
    /// The peer lost its counters while the probe was on its way. Never loss.
    PeerRestarted,
    /// The peer left while the probe was on its way. Never loss.
    Departed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Received,
        Self::Late,
        Self::LostForward,
        Self::LostReturn,
        Self::LostUnknown,
        Self::CorruptForward,
        Self::CorruptReturn,
        Self::Overrun,
        Self::Refused,
        Self::NotAdmitted,
        Self::PeerRestarted,
        Self::Departed,
    ];

    /// Whether the network lost the probe, as far as was known when this was decided.
    #[must_use]
    pub const fn is_lost(self) -> bool {
        matches!(
            self,
            Self::LostForward | Self::LostReturn | Self::LostUnknown
        )
    }
}

/// One probe and what became of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ProbeOutcome {
    /// Its sequence number.
    pub seq: u32,
    /// Number of its class in [`crate::engine::mix::Mix::classes`].
    pub class: u8,
    /// When it was handed to the socket.
    pub sent: MonoNanos,
    /// Its UDP source port.
    pub source_port: u16,
    /// What became of it.
    pub outcome: Outcome,
    /// Its round trip time in ns, for `Received` and `Late`; absent when the reply could not be measured.
    pub rtt_ns: Option<u64>,
    /// A clock was set while it was on its way; therefore without a round trip time.
    pub straddled: bool,
    /// Routers on the way there; absent without a reply.
    pub hops_forward: Option<u8>,
    /// Routers on the way back; absent without a reply.
    pub hops_return: Option<u8>,
    /// Where its stamps were taken; empty without a reply.
    pub stamps: StampSources,
}

/// Records that wait to be fetched. Bounded: when nobody fetches them, the oldest are dropped.
#[derive(Debug)]
pub(super) struct Records {
    waiting: VecDeque<ProbeOutcome>,
    max: usize,
}

impl Records {
    pub fn new(max: u32) -> Self {
        Self {
            waiting: VecDeque::new(),
            max: max as usize,
        }
    }

    /// Adds a record; whether another had to go for it.
    pub fn push(&mut self, record: ProbeOutcome) -> bool {
        let full = self.waiting.len() >= self.max;
        if full {
            self.waiting.pop_front();
        }
        self.waiting.push_back(record);
        full
    }

    pub fn pop(&mut self) -> Option<ProbeOutcome> {
        self.waiting.pop_front()
    }
}
