//! The stateful side of the reflector: one session's counters, without a lock.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use dt_common::map::{AddressWords, Allowed, ForeignKey, Session};
use dt_common::seen;

use crate::headers::Datagram;
use crate::maps::{self, SessionRef};

/// What identifies the session of a request.
#[derive(Clone, Copy)]
pub struct Identity {
    /// The member whose fixed session it is, or [`Allowed::NO_MEMBER`].
    pub member: u32,
    /// The sender's epoch; 0 without our TLV.
    pub sender_epoch: u32,
    /// The key among foreign sessions.
    pub key: ForeignKey,
}

/// A session after one more request.
#[derive(Clone, Copy)]
pub struct Snapshot {
    pub epoch: u32,
    pub received: u32,
    pub duplicates: u32,
    pub corrupt: u32,
    pub refused: u32,
    pub seen: u64,
    pub duplicate: bool,
}

impl Identity {
    /// With our TLV by sender and SSID whatever the source port; without it by both addresses, source port and SSID.
    #[inline(always)]
    pub fn new(
        allowed: Allowed,
        agent: bool,
        sender_epoch: Option<u32>,
        datagram: &Datagram,
        source: &AddressWords,
        destination: &AddressWords,
        ssid: u16,
    ) -> Self {
        let ours = sender_epoch.is_some();
        Self {
            member: if agent {
                allowed.member
            } else {
                Allowed::NO_MEMBER
            },
            sender_epoch: sender_epoch.unwrap_or_default(),
            key: ForeignKey {
                source: *source,
                destination: if ours { [0; 2] } else { *destination },
                source_port: if ours { 0 } else { datagram.source_port },
                ssid,
                pad: 0,
            },
        }
    }

    /// The session if there is one.
    #[inline(always)]
    pub fn find(&self) -> Option<SessionRef> {
        if self.member == Allowed::NO_MEMBER {
            maps::foreign(&self.key)
        } else {
            maps::member(self.member)
        }
    }

    /// The session, made or begun anew where needed.
    #[inline(always)]
    pub fn open(&self) -> Option<SessionRef> {
        let Some(session) = self.find() else {
            return maps::remember(&self.key, &self.fresh());
        };
        let held = session.read();
        if held.epoch == 0 || held.sender_epoch != self.sender_epoch {
            // The rate is the source's, not the session's: beginning anew does not refill it.
            session.replace(&Session {
                arrival_ns: held.arrival_ns,
                ..self.fresh()
            });
        }
        Some(session)
    }

    #[inline(always)]
    fn fresh(&self) -> Session {
        // SAFETY: the helper has no arguments and cannot fail.
        let random = unsafe { bpf_get_prandom_u32() };
        Session {
            epoch: random | 1,
            sender_epoch: self.sender_epoch,
            ..Session::default()
        }
    }
}

/// Counts one accepted request.
#[inline(always)]
pub fn record(session: SessionRef, seq: u32) -> Snapshot {
    let duplicate = mark(session, seq);
    if duplicate {
        session.count_duplicate();
    }
    let received = session.count_received();
    let held = session.read();
    let word = |back: u32| session.seen(seen::slot(seq.wrapping_sub(back))).load();
    Snapshot {
        epoch: held.epoch,
        received,
        duplicates: held.duplicates,
        corrupt: held.corrupt,
        refused: held.refused,
        seen: seen::bitmap(seq, word(0), word(32), word(64)),
        duplicate,
    }
}

/// Marks `seq` as seen; whether it was before. Too old to be known counts as new.
#[inline(always)]
fn mark(session: SessionRef, seq: u32) -> bool {
    let word = session.seen(seen::slot(seq));
    // Four CPUs would have to interleave on one word for this to give up; the count stays right even then.
    for _ in 0..4 {
        let held = word.load();
        let Some((next, before)) = seen::mark(held, seq) else {
            return false;
        };
        if before || word.compare_exchange(held, next) {
            return before;
        }
    }
    false
}
