//! The reflector as `dt-ebpf` has it, for one session.

use dt_common::event::{EventFlags, ReplyEvent};
use dt_common::seen;
use dt_common::time::ErrorEstimate;
use dt_common::wire::DtFlags;

/// The sender epoch that all tests use.
pub const EPOCH: u32 = 77;
/// The source port that all tests use.
pub const PORT: u16 = 50_000;

/// Its counters and its ring, public so that tests can tamper with them.
#[derive(Default)]
pub struct Reflector {
    pub epoch: u32,
    pub received: u32,
    pub duplicates: u32,
    pub corrupt: u32,
    pub refused: u32,
    pub ring: [u64; seen::WORDS],
    pub generation: u16,
    pub admits: bool,
    pub foreign: bool,
    pub down: bool,
}

impl Reflector {
    pub fn answer(&mut self, seq: u32) -> ReplyEvent {
        let slot = seen::slot(seq);
        let duplicate = match seen::mark(self.ring[slot], seq) {
            Some((word, before)) => {
                self.ring[slot] = word;
                before
            }
            None => false,
        };
        self.duplicates = self.duplicates.wrapping_add(u32::from(duplicate));
        self.received = self.received.wrapping_add(1);
        let word = |back: u32| self.ring[seen::slot(seq.wrapping_sub(back))];
        let common = ReplyEvent {
            seq,
            reflector_seq: self.received.wrapping_sub(1),
            error_estimate: ErrorEstimate::from_bound(1000, true).0,
            source_port: PORT,
            reply_ttl: 253,
            request_ttl: 252,
            ..ReplyEvent::default()
        };
        if self.foreign {
            return common;
        }
        let admitted = if self.admits { DtFlags::ADMITTED } else { 0 };
        let copy = if duplicate { DtFlags::DUPLICATE } else { 0 };
        ReplyEvent {
            flags: EventFlags::TLV | EventFlags::XDP,
            tlv_flags: DtFlags::STATEFUL | DtFlags::REFLECTOR_XDP | admitted | copy,
            sender_epoch: EPOCH,
            epoch: self.epoch,
            received: self.received,
            duplicates: self.duplicates,
            corrupt: self.corrupt,
            refused: self.refused,
            seen: seen::bitmap(seq, word(0), word(32), word(64)),
            reflector_generation: self.generation,
            ..common
        }
    }

    pub fn restart(&mut self, epoch: u32) {
        *self = Self {
            epoch,
            admits: self.admits,
            foreign: self.foreign,
            generation: self.generation,
            ..Self::default()
        };
    }
}
