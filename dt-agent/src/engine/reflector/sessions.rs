//! What the reflector remembers of each sender.

use std::net::IpAddr;

use dt_common::map::{Allowed, MAX_MEMBERS, Session};
use dt_common::seen;
use dt_common::wire::{DtFlags, DtTlv, SenderPacket};

use super::Request;
use super::lru::Lru;
use crate::engine::random::Random;

/// What identifies the session of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    /// The member whose fixed session it is, or [`Allowed::NO_MEMBER`].
    member: u32,
    /// The sender's epoch; 0 without our TLV.
    sender_epoch: u32,
    key: Key,
}

/// A session that has no fixed place.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Key {
    source: IpAddr,
    ssid: u16,
    /// Where the request was sent to, and its source port; `None` with our TLV.
    path: Option<(IpAddr, u16)>,
}

impl Identity {
    /// With our TLV by sender and SSID whatever the source port; without it by both addresses, source port and SSID.
    ///
    /// Only a running agent gets the fixed session of its node; `ping` from there has sessions of its own.
    pub(super) fn new(
        request: &Request<'_>,
        base: &SenderPacket,
        tlv: Option<&DtTlv>,
        allowed: Allowed,
    ) -> Self {
        let agent = tlv.is_some_and(|tlv| tlv.flags & DtFlags::AGENT != 0);
        let path = (request.destination, request.source_port);
        Self {
            member: if agent {
                allowed.member
            } else {
                Allowed::NO_MEMBER
            },
            sender_epoch: tlv.map_or(0, |tlv| tlv.sender_epoch.get()),
            key: Key {
                source: request.source,
                ssid: base.ssid.get(),
                path: tlv.is_none().then_some(path),
            },
        }
    }
}

impl Identity {
    /// Whether the session is a member's, with a fixed place and a rate of its own.
    pub(super) const fn is_members(&self) -> bool {
        self.member < MAX_MEMBERS
    }
}

/// A session after one more request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Snapshot {
    pub epoch: u32,
    pub received: u32,
    pub duplicates: u32,
    pub corrupt: u32,
    pub refused: u32,
    pub seen: u64,
    pub duplicate: bool,
}

/// All sessions: members' in places that nothing evicts, others' while there is room.
#[derive(Debug)]
pub(super) struct Sessions {
    members: Vec<Session>,
    foreign: Lru<Key, Session>,
    random: Random,
}

impl Sessions {
    pub(super) fn new(foreign: usize, random: Random) -> Self {
        Self {
            members: Vec::new(),
            foreign: Lru::new(foreign),
            random,
        }
    }

    /// The session, made or begun anew where needed; it has another epoch then, so that this is never read as loss.
    pub(super) fn open(&mut self, identity: &Identity) -> &mut Session {
        let session = if identity.is_members() {
            let place = identity.member as usize;
            if self.members.len() <= place {
                self.members.resize(place + 1, Session::default());
            }
            &mut self.members[place]
        } else {
            self.foreign
                .get_or_insert_with(identity.key, Session::default)
        };
        if session.epoch == 0 || session.sender_epoch != identity.sender_epoch {
            *session = Session {
                // Zero means "no session yet".
                epoch: self.random.bits() as u32 | 1,
                sender_epoch: identity.sender_epoch,
                // The rate is the source's, not the session's: a new epoch must not refill it.
                arrival_ns: session.arrival_ns,
                ..Session::default()
            };
        }
        session
    }
}

/// Counts one accepted request.
pub(super) fn record(session: &mut Session, seq: u32) -> Snapshot {
    let word = &mut session.seen[seen::slot(seq)];
    // Too old to be known counts as new.
    let duplicate = seen::mark(*word, seq).is_some_and(|(next, before)| {
        *word = next;
        before
    });
    session.received = session.received.wrapping_add(1);
    session.duplicates = session.duplicates.wrapping_add(duplicate.into());
    let word = |back: u32| session.seen[seen::slot(seq.wrapping_sub(back))];
    Snapshot {
        epoch: session.epoch,
        received: session.received,
        duplicates: session.duplicates,
        corrupt: session.corrupt,
        refused: session.refused,
        seen: seen::bitmap(seq, word(0), word(32), word(64)),
        duplicate,
    }
}
