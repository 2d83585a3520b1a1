//! Who is answered: addresses, ports, allow-list, rates.

use dt_common::STAMP_PORT;
use dt_common::map::{
    AddressWords, Allowed, AllowedFlags, Config, ConfigFlags, MAX_LOCALS, Reason,
};
use dt_common::wire::ReflectorPacket;

use crate::atomic::Word;
use crate::headers::{Datagram, Ethernet, UDP_LEN};
use crate::maps;
use crate::packet::Frame;
use crate::verdict::Refusal;
use crate::wide::be64;

/// A TTL below this from a source that may use low ports means a packet has been going round (RFC 8762 starts at 255).
const MIN_LOOP_TTL: u8 = 224;
/// Longest that a reflector takes for a reply, in NTP format: 16 s. Random padding looks like that once in 2^28.
const MAX_RESIDENCE: u64 = 16 << 32;

/// Whether `destination` is one of the node's own addresses.
#[inline(always)]
pub fn is_local(config: &Config, destination: &AddressWords) -> bool {
    let used = config.locals_len as usize;
    for (index, local) in config.locals.iter().enumerate().take(MAX_LOCALS) {
        if index >= used {
            break;
        }
        if local == destination {
            return true;
        }
    }
    config.flags & ConfigFlags::ANY_ADDRESS != 0
}

/// Addresses that no honest request has.
#[inline(always)]
pub fn check_addresses<F: Frame>(
    frame: &F,
    datagram: &Datagram,
    source: &AddressWords,
    destination: &AddressWords,
) -> Result<(), Refusal> {
    let ethernet = frame
        .at::<Ethernet>(0)
        .ok_or(Refusal::Pass(Reason::Malformed))?;
    if (ethernet.source.high[0] | ethernet.destination.high[0]) & 1 != 0 {
        return Err(Refusal::Drop(Reason::Multicast));
    }
    if source == destination {
        return Err(Refusal::Drop(Reason::Reflexive));
    }
    if datagram.ipv6 {
        check_ipv6(source)
    } else {
        check_ipv4(source)
    }
}

// The destination is one of our own addresses by now, so only the source can be a group or a loopback.
#[inline(always)]
fn check_ipv4(source: &AddressWords) -> Result<(), Refusal> {
    let address = u32::from_be((source[1] >> 32) as u32);
    match address >> 24 {
        127 => Err(Refusal::Drop(Reason::Loopback)),
        0 if address == 0 => Err(Refusal::Drop(Reason::Loopback)),
        224..=239 => Err(Refusal::Drop(Reason::Multicast)),
        255 if address == u32::MAX => Err(Refusal::Drop(Reason::Multicast)),
        _ => Ok(()),
    }
}

#[inline(always)]
fn check_ipv6(source: &AddressWords) -> Result<(), Refusal> {
    let (high, low) = (u64::from_be(source[0]), u64::from_be(source[1]));
    if high >> 56 == 0xff {
        return Err(Refusal::Drop(Reason::Multicast));
    }
    // ::, ::1, and IPv4 in disguise: RFC 6890 allows none of them on a wire, and the maps use the mapped form.
    if high == 0 && (low <= 1 || low >> 32 == 0xffff) {
        return Err(Refusal::Drop(Reason::Loopback));
    }
    Ok(())
}

/// The source's permission, and its port's.
#[inline(always)]
pub fn admit<F: Frame>(
    frame: &F,
    config: &Config,
    datagram: &Datagram,
    source: &AddressWords,
) -> Result<Allowed, Refusal> {
    let allowed = if config.flags & ConfigFlags::ALLOW_ALL != 0 {
        Allowed {
            member: Allowed::NO_MEMBER,
            flags: AllowedFlags::LOW_PORTS,
        }
    } else {
        maps::allowed(source).ok_or(Refusal::Drop(Reason::NotAllowed))?
    };
    let port = datagram.source_port;
    let reflector = port == config.port || port == STAMP_PORT;
    if reflector || port < 1024 {
        // Two reflectors that answer each other never stop (CVE-2024-2169): only routers on the list, only while fresh.
        let excused = allowed.flags & AllowedFlags::LOW_PORTS != 0
            && datagram.ttl >= MIN_LOOP_TTL
            && (config.flags & ConfigFlags::ANSWER_REPLIES != 0 || !is_reply(frame, datagram));
        if !excused {
            return Err(Refusal::Drop(if reflector {
                Reason::Loop
            } else {
                Reason::SourcePort
            }));
        }
    }
    Ok(allowed)
}

/// Whether it is a reply itself: T2 where requests have zeros or padding, and T3 soon after. Two neighbours that excuse
/// each other see no TTL fall, so this is what ends their exchange.
#[inline(always)]
fn is_reply<F: Frame>(frame: &F, datagram: &Datagram) -> bool {
    let Some(packet) = frame.at::<ReflectorPacket>(datagram.l4 + UDP_LEN) else {
        return false;
    };
    let (t2, t3) = (be64(&packet.receive_timestamp), be64(&packet.timestamp));
    t2 != 0 && t3.wrapping_sub(t2) < MAX_RESIDENCE
}

/// One cell of the generic cell rate algorithm (ITU-T I.371 virtual scheduling). False: refused.
///
/// Two CPUs may both pass on the last cell; the excess is one packet per CPU.
#[inline(always)]
pub fn conforms(arrival: &Word<u64>, now: u64, interval_ns: u64, burst_ns: u64) -> bool {
    if interval_ns == 0 {
        return true;
    }
    let expected = arrival.load();
    if expected > now.wrapping_add(burst_ns) {
        return false;
    }
    let base = if expected > now { expected } else { now };
    arrival.store(base.wrapping_add(interval_ns));
    true
}
