//! The receiving half of the Session-Sender: checks a reply, stamps T4, hands it to user space.

use dt_common::event::{EventFlags, ReplyEvent};
use dt_common::map::{Config, IfaceFlags, Reason, Target, TargetFlags};
use dt_common::wire::{BASE_LEN, DtTlv, ReflectorPacket};

use crate::clock;
use crate::headers::{Datagram, MAX_UDP_LEN, UDP_LEN, Udp};
use crate::maps::{self, TargetRef};
use crate::packet::Frame;
use crate::sum::{self, BASE_HEAD, PROBE_HEAD, Sums};
use crate::verdict::{Refusal, Verdict};
use crate::wide::{be16, be32, be64};

/// Consumes the reply of a target of ours, or leaves it alone.
#[inline(always)]
pub fn collect<F: Frame>(
    frame: &mut F,
    datagram: &Datagram,
    config: &Config,
) -> Result<Verdict, Refusal> {
    let received_ns = clock::now();
    let flags = Datagram::acting_flags(frame).ok_or(Refusal::NotOurs)?;
    // Without an agent nobody reads the rings: the socket, if there is one, is the better place.
    if received_ns >= config.lease_until_ns {
        return Err(Refusal::NotOurs);
    }
    check_lengths(frame, datagram)?;
    let (ssid, target) = find_target(frame, datagram, config)?;
    let ours = datagram.udp_len as usize >= PROBE_HEAD
        && frame
            .at::<DtTlv>(datagram.l4 + UDP_LEN + BASE_LEN)
            .is_some_and(DtTlv::is_ours);
    if !checksum_holds(frame, datagram, ours, flags) {
        report_corrupt(frame, datagram, config, ours, received_ns, ssid);
        // After the event, so that who reads the count and then the ring misses no event that was counted.
        target.count_corrupt();
        return Err(Refusal::Drop(Reason::CorruptReply));
    }
    deliver(frame, datagram, config, ours, received_ns, ssid, target)
}

#[inline(always)]
fn check_lengths<F: Frame>(frame: &mut F, datagram: &Datagram) -> Result<(), Refusal> {
    let udp_len = datagram.udp_len;
    if udp_len != datagram.ip_payload || (udp_len as usize) < BASE_HEAD || datagram.fragment {
        return Err(Refusal::Pass(Reason::UnknownReply));
    }
    let len = datagram.l4 as u32 + u32::from(udp_len);
    if udp_len > MAX_UDP_LEN || !frame.pull(len) {
        return Err(Refusal::Pass(Reason::NonLinear));
    }
    Ok(())
}

/// A reply is ours only if its SSID, its sender and the sender's port belong together.
#[inline(always)]
fn find_target<F: Frame>(
    frame: &F,
    datagram: &Datagram,
    config: &Config,
) -> Result<(u16, TargetRef), Refusal> {
    const UNKNOWN: Refusal = Refusal::Pass(Reason::UnknownReply);
    let reply = frame
        .at::<ReflectorPacket>(datagram.l4 + UDP_LEN)
        .ok_or(UNKNOWN)?;
    let mut ssid = be16(&reply.ssid);
    if ssid == 0 {
        // Reflectors older than RFC 8972 return zeros: the port must tell.
        ssid = maps::port_owner(u32::from(
            datagram
                .destination_port
                .wrapping_sub(config.source_port_first),
        ));
    }
    let (source, _) = datagram.addresses(frame).ok_or(UNKNOWN)?;
    let target = maps::target(ssid).ok_or(UNKNOWN)?;
    let entry: &Target = target.read();
    let known = entry.flags & TargetFlags::ACTIVE != 0 && entry.port == datagram.source_port;
    if known && entry.address == source {
        Ok((ssid, target))
    } else {
        Err(UNKNOWN)
    }
}

#[inline(always)]
fn checksum_holds<F: Frame>(frame: &F, datagram: &Datagram, ours: bool, iface_flags: u32) -> bool {
    let Some(udp) = frame.at::<Udp>(datagram.l4) else {
        return false;
    };
    let flags = if ours {
        frame
            .at::<DtTlv>(datagram.l4 + UDP_LEN + BASE_LEN)
            .map_or(0, |tlv| tlv.flags)
    } else {
        0
    };
    if udp.checksum == [0; 2] {
        return !datagram.ipv6 && !sum::is_reply_summed(flags);
    }
    let full = iface_flags & IfaceFlags::CHECKSUM_FULL != 0;
    Sums::of(frame, datagram, ours)
        .is_some_and(|sums| sums.hold(full, || sum::is_reply_summed(flags)))
}

#[inline(always)]
fn fill<F: Frame>(
    frame: &F,
    datagram: &Datagram,
    config: &Config,
    ours: bool,
    event: &mut ReplyEvent,
) -> Option<()> {
    let stamp = datagram.l4 + UDP_LEN;
    let reply = frame.at::<ReflectorPacket>(stamp)?;
    event.t1 = be64(&reply.sender_timestamp);
    event.t2 = be64(&reply.receive_timestamp);
    event.t3 = be64(&reply.timestamp);
    event.t4 = clock::wall(config, event.received_ns).0;
    event.seq = be32(&reply.sender_seq);
    event.reflector_seq = be32(&reply.seq);
    event.error_estimate = be16(&reply.error_estimate);
    event.request_ttl = reply.sender_ttl;
    event.reply_ttl = datagram.ttl;
    event.source_port = datagram.destination_port;
    event.local_generation = config.clock_generation as u16;
    if !ours {
        // Without our TLV the generation at T1 did not travel; user space compares with what it sent.
        event.sender_generation = event.local_generation;
        return Some(());
    }
    let tlv = frame.at::<DtTlv>(stamp + BASE_LEN)?;
    event.flags |= EventFlags::TLV;
    event.tlv_flags = tlv.flags;
    event.seen = be64(&tlv.seen);
    event.sender_epoch = be32(&tlv.sender_epoch);
    event.epoch = be32(&tlv.epoch);
    event.received = be32(&tlv.received);
    event.duplicates = be32(&tlv.duplicates);
    event.corrupt = be32(&tlv.corrupt);
    event.refused = be32(&tlv.refused);
    event.sender_generation = be16(&tlv.sender_generation);
    event.reflector_generation = be16(&tlv.reflector_generation);
    Some(())
}

/// Names the probe of a corrupt reply, as far as it can be read; without room in the ring it is counted all the same.
#[inline(always)]
fn report_corrupt<F: Frame>(
    frame: &F,
    datagram: &Datagram,
    config: &Config,
    ours: bool,
    received_ns: u64,
    ssid: u16,
) {
    let Some(mut entry) = maps::reserve(ssid) else {
        return;
    };
    let event = entry.clear();
    event.received_ns = received_ns;
    event.ssid = ssid;
    event.flags = F::EVENT_FLAG | EventFlags::CORRUPT;
    if fill(frame, datagram, config, ours, event).is_some() {
        entry.submit(false);
    } else {
        entry.discard();
    }
}

/// Into the ring, and up to the socket too where the session compares.
#[inline(always)]
fn deliver<F: Frame>(
    frame: &F,
    datagram: &Datagram,
    config: &Config,
    ours: bool,
    received_ns: u64,
    ssid: u16,
    target: TargetRef,
) -> Result<Verdict, Refusal> {
    let Some(mut entry) = maps::reserve(ssid) else {
        target.count_overrun();
        return Err(Refusal::Drop(Reason::RingFull));
    };
    let event = entry.clear();
    event.received_ns = received_ns;
    event.ssid = ssid;
    event.flags = F::EVENT_FLAG;
    if fill(frame, datagram, config, ours, event).is_none() {
        entry.discard();
        return Err(Refusal::Pass(Reason::Malformed));
    }
    let settings = target.read();
    let passed = event.seq.checked_rem(settings.pass_every) == Some(0);
    if passed {
        event.flags |= EventFlags::PASSED_UP;
    }
    entry.submit(settings.flags & TargetFlags::WAKE != 0);
    maps::count(Reason::Collected);
    Ok(if passed {
        Verdict::Untouched
    } else {
        Verdict::Drop
    })
}
