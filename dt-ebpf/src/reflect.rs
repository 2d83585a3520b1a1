//! The Session-Reflector (RFC 8762 section 4.3): request in, reply out, in the same bytes.
//!
//! T2 is read first, T3 last. The reply is as long as the request. Everything that changes lies in the first 52 or 104
//! bytes from the UDP header on, so the checksum is one verified sum with that part replaced.

use dt_common::checksum::replace_word;
use dt_common::map::{AddressWords, Allowed, Config, ConfigFlags, IfaceFlags, Reason};
use dt_common::time::{ErrorEstimate, NtpTime};
use dt_common::wire::{BASE_LEN, DtFlags, DtTlv, ReflectorPacket};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::headers::{Datagram, Ethernet, Ipv4, Ipv6, MAX_UDP_LEN, UDP_LEN, Udp};
use crate::packet::Frame;
use crate::session::{Identity, Snapshot};
use crate::sum::{self, BASE_HEAD, PROBE_HEAD, Sums};
use crate::verdict::{Refusal, Verdict};
use crate::wide::{be16, be32, opaque, read16, read32, read64, write16, write32, write64};
use crate::{clock, maps, policy, session, tlvs};

/// The first 16 bytes of a request, which are all that a reply repeats.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
struct Head {
    seq: [u8; 4],
    timestamp: [u8; 8],
    estimate_ssid: [u8; 4],
}

/// Where the pieces of an accepted request are and what the reply needs of them.
struct Request {
    stamp: usize,
    ours: bool,
    fields: Fields,
}

/// The part of a request that a reply repeats.
#[derive(Clone, Copy)]
struct Fields {
    /// The first 16 bytes as words in memory order: sequence number, T1, error estimate and SSID.
    seq: u32,
    timestamp: u64,
    estimate_ssid: u32,
    sender_epoch: u32,
    tlv_flags: u8,
}

/// Answers a request to our port, or says why not.
#[inline(always)]
pub fn reflect<F: Frame>(
    frame: &mut F,
    datagram: &Datagram,
    config: &Config,
) -> Result<Verdict, Refusal> {
    let received_ns = clock::now();
    let flags = Datagram::acting_flags(frame).ok_or(Refusal::NotOurs)?;
    let (source, destination) = datagram.addresses(frame).ok_or(Refusal::NotOurs)?;
    if !policy::is_local(config, &destination) {
        return Err(Refusal::NotOurs);
    }
    if received_ns >= config.lease_until_ns {
        return Err(Refusal::Pass(Reason::LeaseExpired));
    }
    check_lengths(frame, datagram)?;
    policy::check_addresses(frame, datagram, &source, &destination)?;
    let allowed = policy::admit(frame, config, datagram, &source)?;
    if datagram.fragment {
        return Err(Refusal::Drop(Reason::Fragment));
    }
    let request = parse(frame, datagram)?;
    if !request.ours || datagram.udp_len as usize > PROBE_HEAD {
        tlvs::countable(frame, datagram, head_len(&request))?;
    }
    let identity = identify(&request, &allowed, datagram, &source, &destination);
    let sums = verify(frame, datagram, &request, flags, &identity)?;
    let snapshot = account(config, &request, &identity, &source, received_ns)?;
    answer(
        frame,
        datagram,
        config,
        &request,
        snapshot,
        &allowed,
        received_ns,
        sums,
    );
    maps::count(Reason::Reflected);
    Ok(Verdict::Transmit)
}

/// Lengths must agree with each other and with the frame.
#[inline(always)]
fn check_lengths<F: Frame>(frame: &mut F, datagram: &Datagram) -> Result<(), Refusal> {
    // A first fragment states the length of the whole datagram.
    if datagram.fragment {
        return Ok(());
    }
    if datagram.udp_len != datagram.ip_payload || (datagram.udp_len as usize) < UDP_LEN {
        return Err(Refusal::Pass(Reason::Malformed));
    }
    if (datagram.udp_len as usize) < BASE_HEAD {
        return Err(Refusal::Pass(Reason::Short));
    }
    if datagram.udp_len > MAX_UDP_LEN {
        return Err(Refusal::Pass(Reason::NonLinear));
    }
    let len = datagram.l4 as u32 + u32::from(datagram.udp_len);
    if !frame.pull(len) {
        let reason = if frame.holds(len) {
            Reason::NonLinear
        } else {
            Reason::Malformed
        };
        return Err(Refusal::Pass(reason));
    }
    Ok(())
}

#[inline(always)]
fn parse<F: Frame>(frame: &F, datagram: &Datagram) -> Result<Request, Refusal> {
    let stamp = datagram.l4 + UDP_LEN;
    let base = frame
        .at::<Head>(stamp)
        .ok_or(Refusal::Pass(Reason::Malformed))?;
    let tlv = if datagram.udp_len as usize >= PROBE_HEAD {
        frame.at::<DtTlv>(stamp + BASE_LEN)
    } else {
        None
    };
    let (ours, sender_epoch, tlv_flags) = match tlv {
        Some(tlv) if tlv.is_ours() => (true, be32(&tlv.sender_epoch), tlv.flags),
        _ => (false, 0, 0),
    };
    Ok(Request {
        stamp,
        ours,
        fields: Fields {
            seq: read32(&base.seq),
            timestamp: read64(&base.timestamp),
            estimate_ssid: read32(&base.estimate_ssid),
            sender_epoch,
            tlv_flags,
        },
    })
}

#[inline(always)]
fn head_len(request: &Request) -> usize {
    if request.ours { PROBE_HEAD } else { BASE_HEAD }
}

#[inline(always)]
fn identify(
    request: &Request,
    allowed: &Allowed,
    datagram: &Datagram,
    source: &AddressWords,
    destination: &AddressWords,
) -> Identity {
    let fields = &request.fields;
    let ssid = (u32::from_be(fields.estimate_ssid) & 0xffff) as u16;
    let epoch = request.ours.then_some(fields.sender_epoch);
    let agent = request.ours && fields.tlv_flags & DtFlags::AGENT != 0;
    Identity::new(*allowed, agent, epoch, datagram, source, destination, ssid)
}

/// Verifies the checksum. XDP sees packets before anybody has, and a reply computed anew would launder a corrupt request.
#[inline(always)]
fn verify<F: Frame>(
    frame: &F,
    datagram: &Datagram,
    request: &Request,
    iface_flags: u32,
    identity: &Identity,
) -> Result<Option<Sums>, Refusal> {
    let udp = frame
        .at::<Udp>(datagram.l4)
        .ok_or(Refusal::Pass(Reason::Malformed))?;
    // Zero without our TLV.
    let flags = request.fields.tlv_flags;
    // One question, because each costs the verifier a walk through all that follows.
    let summed = u16::from(flags & DtFlags::SUMMED) | read16(&udp.checksum);
    if !datagram.ipv6 && opaque(summed.into()) == 0 {
        return Ok(None);
    }
    let full = iface_flags & IfaceFlags::CHECKSUM_FULL != 0;
    let sums = Sums::of(frame, datagram, request.ours).ok_or(Refusal::Pass(Reason::Malformed))?;
    if sums.hold(full, || sum::is_request_summed(flags)) && udp.checksum != [0; 2] {
        return Ok(Some(sums));
    }
    if let Some(session) = identity.find() {
        session.count_corrupt();
    }
    Err(Refusal::Drop(Reason::CorruptRequest))
}

/// Rates and the session's counters; `None` in stateless mode.
#[inline(always)]
fn account(
    config: &Config,
    request: &Request,
    identity: &Identity,
    source: &AddressWords,
    now: u64,
) -> Result<Option<Snapshot>, Refusal> {
    if config.flags & ConfigFlags::STATELESS != 0 {
        return Ok(None);
    }
    let session = identity.open();
    let arrival = match session {
        Some(session) if identity.member != Allowed::NO_MEMBER => Some(session.arrival()),
        _ => maps::source_arrival(source),
    };
    let refuse = |reason| {
        if let Some(session) = session {
            session.count_refused();
        }
        Err(Refusal::Drop(reason))
    };
    if let Some(arrival) = arrival
        && !policy::conforms(
            &arrival,
            now,
            config.source_interval_ns,
            config.source_burst_ns,
        )
    {
        return refuse(Reason::SourceRate);
    }
    if let Some(arrival) = maps::total_arrival()
        && !policy::conforms(
            &arrival,
            now,
            config.total_interval_ns,
            config.total_burst_ns,
        )
    {
        return refuse(Reason::TotalRate);
    }
    Ok(session.map(|session| session::record(session, u32::from_be(request.fields.seq))))
}

/// Turns the frame into the reply.
#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "a struct of them would be copied to the stack, of which BPF has 512 bytes"
)]
fn answer<F: Frame>(
    frame: &mut F,
    datagram: &Datagram,
    config: &Config,
    request: &Request,
    snapshot: Option<Snapshot>,
    allowed: &Allowed,
    received_ns: u64,
    sums: Option<Sums>,
) {
    let retagged = !request.ours || datagram.udp_len as usize > PROBE_HEAD;
    if retagged {
        tlvs::set_flags(frame, datagram, head_len(request));
    }
    turn_around(frame, datagram);
    if request.ours {
        let summed = summed::<F>(request, sums.is_some());
        write_tlv(frame, request, config, snapshot.as_ref(), allowed, summed);
    }
    let received = clock::wall(config, received_ns);
    let seq = snapshot
        .as_ref()
        .map(|snapshot| snapshot.received.wrapping_sub(1));
    if write_base(
        frame,
        request,
        datagram,
        seq,
        received,
        ErrorEstimate(config.error_estimate),
    )
    .is_none()
    {
        return;
    }
    // Everything is summed but T3, so that hardly anything is left to do after it.
    let unsealed = sums.and_then(|sums| {
        let new = resum(frame, datagram, request, &sums, retagged)?;
        Some((sums, new))
    });
    let sent = received.plus_subsecond(clock::now().wrapping_sub(received_ns));
    let sent = sent.0.to_be();
    if let Some(reply) = frame.at_mut::<ReflectorPacket>(request.stamp) {
        write64(&mut reply.timestamp, sent);
    }
    if let Some((old, new)) = unsealed {
        seal(frame, datagram, &old, new.0 + sum::halves(sent), new.1);
    }
}

/// Writes all but T3, in whose place are zeros.
#[inline(always)]
fn write_base<F: Frame>(
    frame: &mut F,
    request: &Request,
    datagram: &Datagram,
    seq: Option<u32>,
    received: NtpTime,
    estimate: ErrorEstimate,
) -> Option<()> {
    let fields = request.fields;
    let reply = frame.at_mut::<ReflectorPacket>(request.stamp)?;
    if let Some(seq) = seq {
        write32(&mut reply.seq, seq.to_be());
    }
    write64(&mut reply.timestamp, 0);
    write16(&mut reply.error_estimate, estimate.0.to_be());
    write64(&mut reply.receive_timestamp, received.0.to_be());
    write32(&mut reply.sender_seq, fields.seq);
    write64(&mut reply.sender_timestamp, fields.timestamp);
    write16(
        &mut reply.sender_error_estimate,
        ((u32::from_be(fields.estimate_ssid) >> 16) as u16).to_be(),
    );
    write16(&mut reply.mbz, 0);
    reply.sender_ttl = datagram.ttl;
    reply.mbz_tail = [0; 3];
    Some(())
}

/// [`DtFlags::SUMMED`], if that will be true of the reply.
#[inline(always)]
fn summed<F: Frame>(request: &Request, has_sums: bool) -> u8 {
    if F::KERNEL_CHECKSUM {
        // Repaired by differences: what the request had, the reply has.
        request.fields.tlv_flags & DtFlags::SUMMED
    } else if has_sums {
        DtFlags::SUMMED
    } else {
        0
    }
}

#[inline(always)]
fn write_tlv<F: Frame>(
    frame: &mut F,
    request: &Request,
    config: &Config,
    snapshot: Option<&Snapshot>,
    allowed: &Allowed,
    summed: u8,
) {
    let Some(tlv) = frame.at_mut::<DtTlv>(request.stamp + BASE_LEN) else {
        return;
    };
    let mut flags = (request.fields.tlv_flags & DtFlags::KEPT) | F::TLV_FLAG | summed;
    if allowed.member != Allowed::NO_MEMBER {
        flags |= DtFlags::ADMITTED;
    }
    if let Some(snapshot) = snapshot {
        flags |= DtFlags::STATEFUL;
        if snapshot.duplicate {
            flags |= DtFlags::DUPLICATE;
        }
        write32(&mut tlv.epoch, snapshot.epoch.to_be());
        write32(&mut tlv.received, snapshot.received.to_be());
        write32(&mut tlv.duplicates, snapshot.duplicates.to_be());
        write32(&mut tlv.corrupt, snapshot.corrupt.to_be());
        write32(&mut tlv.refused, snapshot.refused.to_be());
        write64(&mut tlv.seen, snapshot.seen.to_be());
    }
    tlv.header.flags = 0;
    tlv.flags = flags;
    write16(
        &mut tlv.reflector_generation,
        (config.clock_generation as u16).to_be(),
    );
}

/// Swaps addresses and ports and renews the TTL. Swaps change no checksum.
#[inline(always)]
fn turn_around<F: Frame>(frame: &mut F, datagram: &Datagram) {
    if let Some(ethernet) = frame.at_mut::<Ethernet>(0) {
        let (high, low) = (read32(&ethernet.source.high), read16(&ethernet.source.low));
        let (back_high, back_low) = (
            read32(&ethernet.destination.high),
            read16(&ethernet.destination.low),
        );
        write32(&mut ethernet.source.high, back_high);
        write16(&mut ethernet.source.low, back_low);
        write32(&mut ethernet.destination.high, high);
        write16(&mut ethernet.destination.low, low);
    }
    if let Some(udp) = frame.at_mut::<Udp>(datagram.l4) {
        let (source, destination) = (read16(&udp.source_port), read16(&udp.destination_port));
        write16(&mut udp.source_port, destination);
        write16(&mut udp.destination_port, source);
    }
    if datagram.ipv6 {
        turn_ipv6(frame, datagram);
    } else {
        turn_ipv4(frame, datagram);
    }
}

#[inline(always)]
fn turn_ipv6<F: Frame>(frame: &mut F, datagram: &Datagram) {
    let Some(ip) = frame.at_mut::<Ipv6>(datagram.l3) else {
        return;
    };
    let source = [read64(&ip.source[0]), read64(&ip.source[1])];
    let destination = [read64(&ip.destination[0]), read64(&ip.destination[1])];
    for half in 0..2 {
        write64(&mut ip.source[half], destination[half]);
        write64(&mut ip.destination[half], source[half]);
    }
    ip.hop_limit = 255;
    // Congestion on the way here must not look like congestion on the way back.
    if ip.version_class[1] & 0x30 == 0x30 {
        ip.version_class[1] &= !0x10;
    }
}

#[inline(always)]
fn turn_ipv4<F: Frame>(frame: &mut F, datagram: &Datagram) {
    let Some(ip) = frame.at_mut::<Ipv4>(datagram.l3) else {
        return;
    };
    let (source, destination) = (read32(&ip.source), read32(&ip.destination));
    write32(&mut ip.source, destination);
    write32(&mut ip.destination, source);
    let old = u16::from_be_bytes([ip.ttl, ip.protocol]);
    let mut checksum = replace_word(
        be16(&ip.checksum),
        old,
        u16::from_be_bytes([255, ip.protocol]),
    );
    ip.ttl = 255;
    if ip.tos & 3 == 3 {
        let marked = u16::from_be_bytes([ip.version_ihl, ip.tos]);
        ip.tos &= !1;
        checksum = replace_word(
            checksum,
            marked,
            u16::from_be_bytes([ip.version_ihl, ip.tos]),
        );
    }
    write16(&mut ip.checksum, checksum.to_be());
}

/// Sums of the head and of the tail as they are now, the checksum left out where it is not the kernel's to repair.
#[inline(always)]
fn resum<F: Frame>(
    frame: &mut F,
    datagram: &Datagram,
    request: &Request,
    sums: &Sums,
    retagged: bool,
) -> Option<(u64, u64)> {
    if !F::KERNEL_CHECKSUM {
        frame.at_mut::<Udp>(datagram.l4)?.checksum = [0; 2];
    }
    let (head, head_len) = sum::head(frame, datagram, request.ours)?;
    let tail = if retagged && datagram.udp_len as usize > head_len {
        sum::tail(frame, datagram, head_len)?
    } else {
        sums.tail
    };
    Some((head, tail))
}

/// Makes the UDP checksum true again.
#[inline(always)]
fn seal<F: Frame>(frame: &mut F, datagram: &Datagram, old: &Sums, head: u64, tail: u64) {
    if F::KERNEL_CHECKSUM {
        let difference = sum::difference(head + tail, old.head + old.tail);
        frame.repair_checksum(datagram.l4 + 6, difference);
    } else if let Some(udp) = frame.at_mut::<Udp>(datagram.l4) {
        udp.checksum = sum::finish(head, tail, old.pseudo).to_ne_bytes();
    }
}
