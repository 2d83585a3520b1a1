//! A session and a reflector with nothing between them: every packet is placed by hand.

use std::sync::Arc;

use dt_common::event::ReplyEvent;
use dt_common::time::{MonoNanos, NtpTime};

use super::reflector::{EPOCH, PORT, Reflector};
use super::sim::{MS, SEC, US};
use crate::engine::session::{Outcome, Session, SessionConfig};
use crate::engine::window::Counters;

/// Where the clocks of all desks start, so that nothing rests on zero.
pub const START: u64 = 1000 * SEC;
/// Round trip time of all replies that [`Desk::answer`] makes.
pub const RTT: u64 = 200 * US;
const WALL: u64 = 1_700_000_000 * SEC;

pub struct Desk {
    pub session: Session,
    pub reflector: Reflector,
    sent: Vec<u64>,
}

impl Desk {
    pub fn new(config: SessionConfig) -> Self {
        let config = Arc::new(SessionConfig {
            max_records: 1000,
            ..config
        });
        let mut session = Session::new(&config, EPOCH, at(0));
        session.handle_local_counts(0, 0, at(0));
        let reflector = Reflector {
            epoch: 1,
            admits: true,
            ..Reflector::default()
        };
        Self {
            session,
            reflector,
            sent: Vec::new(),
        }
    }

    /// A desk on which probe 0 was answered, so that the peer is known to have admitted us.
    pub fn admitted() -> Self {
        let mut desk = Self::new(SessionConfig::default());
        desk.send(0);
        desk.exchange(0);
        desk
    }

    /// Sends a probe, milliseconds after the start.
    pub fn send(&mut self, ms: u64) -> u32 {
        self.send_from(PORT, ms)
    }

    /// The same from this source port.
    pub fn send_from(&mut self, port: u16, ms: u64) -> u32 {
        let seq = self.session.handle_send(port, at(ms));
        self.sent.truncate(seq as usize);
        self.sent.push(START + ms * MS);
        seq
    }

    /// Sends this many probes, one each millisecond.
    pub fn send_many(&mut self, from_ms: u64, count: u64) {
        for step in 0..count {
            self.send(from_ms + step);
        }
    }

    /// The reflector sees the request: its answer, with the stamps of a round trip of [`RTT`].
    pub fn answer(&mut self, seq: u32) -> ReplyEvent {
        let sent = self.sent[seq as usize];
        let event = self.reflector.answer(seq);
        stamped(event, sent, sent + RTT + 5 * US, 5 * US)
    }

    /// The reply arrives now.
    pub fn deliver(&mut self, event: &ReplyEvent) {
        self.session
            .handle_reply(event, MonoNanos(event.received_ns));
    }

    /// The reply arrives, but this many milliseconds after the start.
    pub fn deliver_at(&mut self, event: &ReplyEvent, ms: u64) {
        let sent = self.sent[event.seq as usize];
        let event = stamped(*event, sent, START + ms * MS, 5 * US);
        self.deliver(&event);
    }

    /// The request is seen and the reply arrives.
    pub fn exchange(&mut self, seq: u32) {
        let event = self.answer(seq);
        self.deliver(&event);
    }

    /// The request is seen; the reply is lost.
    pub fn lose_reply(&mut self, seq: u32) {
        self.reflector.answer(seq);
    }

    /// Tells the time until nothing is left to decide before `ms`, as an agent would.
    pub fn wait(&mut self, ms: u64) {
        while let Some(timeout) = self
            .session
            .poll_timeout()
            .filter(|timeout| *timeout <= at(ms))
        {
            self.session.handle_timeout(timeout);
        }
    }

    /// What was counted until `ms`.
    pub fn counters(&mut self, ms: u64) -> Counters {
        self.wait(ms);
        self.session.take_window(at(ms)).counters
    }

    /// The outcomes of all probes until `ms`, in the order of their numbers.
    pub fn outcomes(&mut self, ms: u64) -> Vec<Outcome> {
        self.wait(ms);
        let mut records: Vec<_> = std::iter::from_fn(|| self.session.poll_record()).collect();
        records.sort_by_key(|record| record.seq);
        records.iter().map(|record| record.outcome).collect()
    }
}

/// Milliseconds after the start.
pub fn at(ms: u64) -> MonoNanos {
    MonoNanos(START + ms * MS)
}

/// The event with the stamps of a request that left at `sent`, and of its reply that arrived at `received`, ns.
pub fn stamped(event: ReplyEvent, sent: u64, received: u64, residence: u64) -> ReplyEvent {
    let there = WALL + sent + (received - sent - residence) / 2;
    ReplyEvent {
        received_ns: received,
        t1: NtpTime::from_unix_nanos(WALL + sent).0,
        t2: NtpTime::from_unix_nanos(there).0,
        t3: NtpTime::from_unix_nanos(there + residence).0,
        t4: NtpTime::from_unix_nanos(WALL + received).0,
        ..event
    }
}
