//! The Session-Reflector of user space (RFC 8762 section 4.3), pure.
//!
//! It follows the same policy as the programs, with the same reasons, and answers what they pass up: requests that are
//! short, have many TLVs, or came in fragments. The hard fact: a reply is as long as its request, except that a request
//! of TWAMP-Light length is extended to the 44 bytes of the base packet, and that for listed sources only.

mod allow;
mod lru;
mod sessions;
mod tlvs;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use dt_common::STAMP_PORT;
use dt_common::map::{Allowed, AllowedFlags, MAX_FOREIGN, Reason};
use dt_common::time::{ErrorEstimate, MonoNanos, NtpTime};
use dt_common::wire::{BASE_LEN, DtFlags, DtTlv, ReflectorPacket, SenderPacket};
use zerocopy::network_endian::U64;
use zerocopy::{FromBytes, IntoBytes};

use crate::engine::random::Random;

pub use allow::{AllowList, AllowListFull};
use lru::Lru;
use sessions::{Identity, Sessions, Snapshot};

/// How a reflector is to behave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Port on which it answers; a request from the same port is taken for another reflector's reply.
    pub port: u16,
    /// Answer sources that are on no list, for tests of the bare path.
    pub allow_all: bool,
    /// Answer requests within this host, for tests.
    pub allow_loopback: bool,
    /// Keep no session: sequence numbers are copied.
    pub stateless: bool,
    /// Rate of one source.
    pub source_rate: Rate,
    /// Rate of all together.
    pub total_rate: Rate,
}

/// A limit on requests: the generic cell rate algorithm (ITU-T I.371, virtual scheduling).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Rate {
    /// Nanoseconds between requests at the highest rate; 0: no limit.
    pub interval_ns: u64,
    /// How far a source may run ahead of its rate.
    pub burst_ns: u64,
}

impl Rate {
    /// Takes one request into account, or refuses it. `arrival_ns` is when the next one is due.
    fn admits(self, arrival_ns: &mut u64, now: MonoNanos) -> bool {
        if self.interval_ns == 0 {
            return true;
        }
        if *arrival_ns > now.0.saturating_add(self.burst_ns) {
            return false;
        }
        *arrival_ns = (*arrival_ns).max(now.0).saturating_add(self.interval_ns);
        true
    }
}

/// A datagram that came to the reflector's port.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Where it came from.
    pub source: IpAddr,
    /// Port that it came from.
    pub source_port: u16,
    /// Which of this host's addresses it was sent to.
    pub destination: IpAddr,
    /// TTL or hop limit with which it came.
    pub ttl: u8,
    /// The UDP payload.
    pub bytes: &'a [u8],
    /// T2, when it came.
    pub received: NtpTime,
    /// How wrong T2 may be.
    pub error_estimate: ErrorEstimate,
    /// Generation of this host's clock offset at T2.
    pub generation: u16,
}

/// Answers requests.
#[derive(Debug)]
pub struct Reflector {
    policy: Policy,
    allowed: AllowList,
    sessions: Sessions,
    /// When the next request of each source that is no member is due.
    sources: Lru<IpAddr, u64>,
    total_arrival_ns: u64,
    counts: [u64; Reason::ALL.len()],
}

impl Reflector {
    /// A reflector that answers nobody yet.
    ///
    /// `random` draws the epochs by which senders see that counters were lost, so it must be seeded anew at each start.
    #[must_use]
    pub fn new(policy: Policy, random: Random) -> Self {
        Self {
            policy,
            allowed: AllowList::default(),
            sessions: Sessions::new(MAX_FOREIGN as usize, random),
            sources: Lru::new(MAX_FOREIGN as usize),
            total_arrival_ns: 0,
            counts: [0; Reason::ALL.len()],
        }
    }

    /// Replaces the list of those who are answered. Sessions stay.
    pub fn set_allowed(&mut self, allowed: AllowList) {
        self.allowed = allowed;
    }

    /// Replaces the policy. Sessions stay.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// How many requests ended for this reason.
    #[must_use]
    pub const fn count(&self, reason: Reason) -> u64 {
        self.counts[reason as usize]
    }

    /// Writes the answer to `request` into `reply`, all but T3, for which see [`set_sent`].
    ///
    /// # Errors
    /// The reason for which there is no answer; `reply` is empty then.
    pub fn handle_request(
        &mut self,
        request: &Request<'_>,
        now: MonoNanos,
        reply: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        reply.clear();
        let result = self.answer(request, now, reply);
        let reason = result.err().unwrap_or(Reason::Reflected);
        self.counts[reason as usize] += 1;
        result
    }

    fn answer(
        &mut self,
        request: &Request<'_>,
        now: MonoNanos,
        reply: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        if request.bytes.len() < MIN_REQUEST {
            return Err(Reason::Malformed);
        }
        self.check_addresses(request)?;
        let allowed = self.admit(request)?;
        reply.extend_from_slice(request.bytes);
        reply.resize(reply.len().max(BASE_LEN), 0);
        let account = self.account(request, allowed, reply, now);
        let snapshot = account.inspect_err(|_| reply.clear())?;
        write_reply(request, allowed, snapshot.as_ref(), reply);
        Ok(())
    }

    /// Addresses that no honest request has.
    fn check_addresses(&self, request: &Request<'_>) -> Result<(), Reason> {
        let (source, destination) = (request.source, request.destination);
        if allow::is_group(source) || allow::is_group(destination) {
            return Err(Reason::Multicast);
        }
        if self.policy.allow_loopback && source.is_loopback() && destination.is_loopback() {
            return Ok(());
        }
        if source == destination {
            return Err(Reason::Reflexive);
        }
        if allow::is_within_host(source) {
            return Err(Reason::Loopback);
        }
        Ok(())
    }

    /// The source's permission, and its port's.
    fn admit(&self, request: &Request<'_>) -> Result<Allowed, Reason> {
        let listed = self.allowed.find(request.source);
        // Nobody unlisted gets back more than was sent.
        if listed.is_none() && self.policy.allow_all && request.bytes.len() < BASE_LEN {
            return Err(Reason::Short);
        }
        let anybody = self.policy.allow_all.then_some(Allowed {
            member: Allowed::NO_MEMBER,
            flags: 0,
        });
        let allowed = listed.or(anybody).ok_or(Reason::NotAllowed)?;
        // Two reflectors that answer each other never stop (CVE-2024-2169): only routers on the list, only while fresh.
        let excused = allowed.flags & AllowedFlags::LOW_PORTS != 0
            && request.ttl >= MIN_LOOP_TTL
            && !is_reply(request.bytes);
        let port = request.source_port;
        match port {
            _ if excused => Ok(allowed),
            _ if port == self.policy.port || port == STAMP_PORT => Err(Reason::Loop),
            0..1024 => Err(Reason::SourcePort),
            _ => Ok(allowed),
        }
    }

    /// Rates and the session's counters; `None` in stateless mode.
    fn account(
        &mut self,
        request: &Request<'_>,
        allowed: Allowed,
        bytes: &[u8],
        now: MonoNanos,
    ) -> Result<Option<Snapshot>, Reason> {
        if self.policy.stateless {
            return Ok(None);
        }
        let Ok((base, rest)) = SenderPacket::parse(bytes) else {
            return Err(Reason::Malformed);
        };
        let tlv = DtTlv::first_of(rest);
        let identity = Identity::new(request, base, tlv, allowed);
        let session = self.sessions.open(&identity);
        let arrival_ns = if identity.is_members() {
            &mut session.arrival_ns
        } else {
            // By address, not by session: of those a source can have as many as there are SSIDs.
            self.sources.get_or_insert_with(request.source, || 0)
        };
        let refused = if !self.policy.source_rate.admits(arrival_ns, now) {
            Reason::SourceRate
        } else if !self
            .policy
            .total_rate
            .admits(&mut self.total_arrival_ns, now)
        {
            Reason::TotalRate
        } else {
            return Ok(Some(sessions::record(session, base.seq.get())));
        };
        session.refused = session.refused.wrapping_add(1);
        Err(refused)
    }
}

/// Whether it is a reply itself: T2 where requests have zeros or padding, and T3 soon after. Two neighbours that excuse
/// each other see no TTL fall, so this is what ends their exchange. A short one counts as if zeros had followed.
fn is_reply(bytes: &[u8]) -> bool {
    let mut packet = ReflectorPacket::default();
    let len = bytes.len().min(BASE_LEN);
    packet.as_mut_bytes()[..len].copy_from_slice(&bytes[..len]);
    let (t2, t3) = (packet.receive_timestamp.get(), packet.timestamp.get());
    t2 != 0 && t3.wrapping_sub(t2) < MAX_RESIDENCE
}

/// Writes T3 into a reply. To be called as late as possible before it is sent.
pub fn set_sent(reply: &mut [u8], sent: NtpTime) {
    if let Ok((packet, _)) = ReflectorPacket::mut_from_prefix(reply) {
        packet.timestamp = U64::new(sent.0);
    }
}

/// Turns a request, extended where it was short, into its reply.
fn write_reply(
    request: &Request<'_>,
    allowed: Allowed,
    snapshot: Option<&Snapshot>,
    reply: &mut [u8],
) {
    let Ok((base, rest)) = SenderPacket::mut_from_prefix(reply) else {
        return;
    };
    tlvs::set_flags(rest);
    write_tlv(request, allowed, snapshot, rest);
    let seq = snapshot.map_or(base.seq.get(), |snapshot| snapshot.received.wrapping_sub(1));
    let answer = ReflectorPacket::answer(
        base,
        seq,
        request.received,
        request.error_estimate,
        request.ttl,
    );
    base.as_mut_bytes().copy_from_slice(answer.as_bytes());
}

fn write_tlv(
    request: &Request<'_>,
    allowed: Allowed,
    snapshot: Option<&Snapshot>,
    after_base: &mut [u8],
) {
    let Ok((tlv, _)) = DtTlv::mut_from_prefix(after_base) else {
        return;
    };
    if !tlv.is_ours() {
        return;
    }
    tlv.header.flags = 0;
    tlv.flags = (tlv.flags & DtFlags::KEPT) | DtFlags::REFLECTOR_SOCKET;
    if allowed.member != Allowed::NO_MEMBER {
        tlv.flags |= DtFlags::ADMITTED;
    }
    tlv.reflector_generation.set(request.generation);
    let Some(snapshot) = snapshot else {
        return;
    };
    tlv.flags |= DtFlags::STATEFUL;
    if snapshot.duplicate {
        tlv.flags |= DtFlags::DUPLICATE;
    }
    tlv.epoch.set(snapshot.epoch);
    tlv.received.set(snapshot.received);
    tlv.duplicates.set(snapshot.duplicates);
    tlv.corrupt.set(snapshot.corrupt);
    tlv.refused.set(snapshot.refused);
    tlv.seen.set(snapshot.seen);
}

/// The shortest test packet of TWAMP (RFC 5357 section 4.1.2): number, timestamp, error estimate.
const MIN_REQUEST: usize = 14;

/// A TTL below this from a source that may use low ports means a packet has been going round (RFC 8762 starts at 255).
const MIN_LOOP_TTL: u8 = 224;

/// Longest that a reflector takes for a reply, in NTP format: 16 s. Random padding looks like that once in 2^28.
const MAX_RESIDENCE: u64 = 16 << 32;
