//! Any input in any order, hostile replies included: no panic, and the books balance.

use std::collections::BTreeSet;
use std::sync::Arc;

use dt_common::event::ReplyEvent;
use dt_common::time::MonoNanos;
use proptest::prelude::*;

use super::reflector::EPOCH;
use super::sim::MS;
use crate::engine::mix::{Mix, Share};
use crate::engine::session::{Session, SessionConfig};
use crate::engine::window::WindowReport;

#[derive(Clone, Debug)]
enum Op {
    Send(u16),
    SendFailed(u32),
    Reply { back: u32, event: [u64; 12] },
    UserReply(u32, u64, u64),
    LocalCounts(u32, u32),
    Wait(u64),
    Window,
    PeerGone,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..3_u16).prop_map(Op::Send),
        1 => (0..4_u32).prop_map(Op::SendFailed),
        8 => (0..80_u32, any::<[u64; 12]>()).prop_map(|(back, event)| Op::Reply { back, event }),
        1 => (0..10_u32, any::<u64>(), any::<u64>()).prop_map(|(back, sent, got)| Op::UserReply(back, sent, got)),
        1 => any::<(u32, u32)>().prop_map(|(corrupt, overrun)| Op::LocalCounts(corrupt, overrun)),
        4 => (0..2_000_u64).prop_map(Op::Wait),
        1 => Just(Op::Window),
        1 => Just(Op::PeerGone),
    ]
}

/// Half plausible, so that it gets past the gate, half noise.
fn reply(seq: u32, noise: [u64; 12], now: u64) -> ReplyEvent {
    let [
        t1,
        t2,
        t3,
        t4,
        seen,
        counters,
        more,
        epochs,
        generations,
        flags,
        ttl,
        estimate,
    ] = noise;
    ReplyEvent {
        received_ns: now,
        t1,
        t2,
        t3,
        t4,
        seen,
        seq,
        reflector_seq: more as u32,
        sender_epoch: if epochs % 8 == 0 {
            epochs as u32
        } else {
            EPOCH
        },
        epoch: (epochs >> 32) as u32 % 3,
        received: counters as u32,
        duplicates: (counters >> 32) as u32,
        corrupt: more as u32 % 5,
        refused: (more >> 32) as u32,
        ssid: 1,
        source_port: 1,
        error_estimate: estimate as u16,
        sender_generation: generations as u16 % 4,
        local_generation: 2,
        reflector_generation: (generations >> 16) as u16 % 4,
        reply_ttl: ttl as u8,
        request_ttl: (ttl >> 8) as u8,
        flags: flags as u8,
        tlv_flags: (flags >> 8) as u8,
    }
}

struct Driver {
    session: Session,
    now: u64,
    /// By class of probes.
    in_flight: Vec<u64>,
    decided: BTreeSet<u32>,
}

impl Driver {
    fn apply(&mut self, op: &Op) {
        let now = MonoNanos(self.now);
        let newest = self.session.next_seq();
        match *op {
            Op::Send(port) => drop(self.session.handle_send(port, now)),
            Op::SendFailed(back) => {
                let seq = newest.wrapping_sub(back);
                // A number that was taken back may be given out again.
                self.session.handle_send_failed(seq, now);
            }
            Op::Reply { back, event } => {
                let event = reply(newest.wrapping_sub(back), event, self.now);
                self.session.handle_reply(&event, now);
            }
            Op::UserReply(back, sent, got) => {
                self.session
                    .handle_user_reply(newest.wrapping_sub(back), sent, got);
            }
            Op::LocalCounts(corrupt, overrun) => {
                self.session.handle_local_counts(corrupt, overrun, now);
            }
            Op::Wait(ms) => self.wait(ms),
            Op::Window => {
                let report = self.session.take_window(now);
                self.book(&report);
                self.book_others();
            }
            Op::PeerGone => self.session.handle_peer_gone(now),
        }
        self.fetch();
    }

    fn wait(&mut self, ms: u64) {
        self.now += ms * MS;
        for _ in 0..1000 {
            let (deadline, timeout) = (self.session.poll_deadline(), self.session.poll_timeout());
            assert!(deadline.is_some() == timeout.is_some() && deadline <= timeout);
            match timeout {
                Some(timeout) if timeout.0 <= self.now => {
                    self.session.handle_timeout(MonoNanos(self.now));
                }
                _ => return,
            }
        }
        panic!("timeouts that come to nothing");
    }

    fn book(&mut self, report: &WindowReport) {
        let counters = &report.counters;
        let in_flight = &mut self.in_flight[usize::from(report.class)];
        let after = counters.outcomes() + u64::from(report.in_flight);
        assert_eq!(*in_flight + u64::from(counters.sent), after, "{report:?}");
        *in_flight = u64::from(report.in_flight);
    }

    fn book_others(&mut self) {
        while let Some(report) = self.session.poll_window() {
            self.book(&report);
        }
    }

    fn fetch(&mut self) {
        while let Some(record) = self.session.poll_record() {
            assert!(
                self.decided.insert(record.seq),
                "probe {} has two outcomes",
                record.seq
            );
        }
    }
}

fn mix(classes: u8) -> Mix {
    let dscps: Vec<_> = (0..classes)
        .map(|dscp| Share {
            value: dscp,
            weight: dscp + 1,
        })
        .collect();
    let size = Share {
        value: 96,
        weight: 1,
    };
    Mix::new(&[size], &dscps).expect("few").with_ports(3)
}

proptest! {
    #[test]
    fn whatever_comes_the_books_balance(ops in prop::collection::vec(op(), 0..400), start: u32, classes in 1..5_u8) {
        let config = Arc::new(SessionConfig {
            max_records: 10_000,
            max_remembered: 100,
            mix: mix(classes),
            ..SessionConfig::default()
        });
        let now = 1 << 40;
        let session = Session::after(start, &config, EPOCH, MonoNanos(now));
        let in_flight = vec![0; usize::from(classes)];
        let mut driver = Driver { session, now, in_flight, decided: BTreeSet::new() };
        for op in &ops {
            driver.apply(op);
        }
        let report = driver.session.finish(MonoNanos(driver.now));
        driver.book(&report);
        driver.book_others();
        driver.fetch();
    }
}
