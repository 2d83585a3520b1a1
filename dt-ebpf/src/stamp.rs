//! The sending half of the Session-Sender: T1, as late as software can take it.

use dt_common::checksum::fold;
use dt_common::map::{Config, Reason};
use dt_common::wire::{BASE_LEN, DtFlags, DtTlv, PROBE_LEN, SenderPacket};

use crate::headers::{self, Datagram, MAX_UDP_LEN, UDP_LEN, Udp};
use crate::packet::Frame;
use crate::sum::{self, BASE_HEAD, PROBE_HEAD, Sums};
use crate::wide::{be16, read16, read64, write16, write64};
use crate::{clock, fan, maps};

/// Writes T1 into a probe of ours; anything else under our mark is left as it is.
#[inline(always)]
pub fn stamp<F: Frame>(frame: &mut F) {
    let Some(config) = maps::config() else {
        return;
    };
    let Some(datagram) = headers::outgoing(frame, config) else {
        return;
    };
    if (datagram.udp_len as usize) < BASE_HEAD {
        return;
    }
    let head = if datagram.udp_len as usize >= PROBE_HEAD {
        PROBE_LEN
    } else {
        BASE_LEN
    };
    if !frame.pull((datagram.l4 + UDP_LEN + head) as u32) {
        return;
    }
    let sums = sums(frame, &datagram);
    write(frame, &datagram, config, sums);
}

/// Sums a datagram whose socket left its checksum to us. A driver's sum would cover no more, and on virtual links there is none
/// but the pseudo-header's, which one of 65,536 damaged packets has by accident.
#[inline(always)]
fn sums<F: Frame>(frame: &mut F, datagram: &Datagram) -> Option<Sums> {
    if frame.at::<Udp>(datagram.l4)?.checksum != [0; 2]
        || datagram.fragment
        || datagram.udp_len > MAX_UDP_LEN
        || !frame.pull(datagram.l4 as u32 + u32::from(datagram.udp_len))
    {
        return None;
    }
    let mut is_ours = false;
    if datagram.udp_len as usize >= PROBE_HEAD {
        let tlv = frame.at_mut::<DtTlv>(datagram.l4 + UDP_LEN + BASE_LEN)?;
        is_ours = tlv.is_ours();
        if is_ours {
            tlv.flags |= DtFlags::SUMMED;
        }
    }
    Sums::of(frame, datagram, is_ours)
}

#[inline(always)]
fn write<F: Frame>(
    frame: &mut F,
    datagram: &Datagram,
    config: &Config,
    sums: Option<Sums>,
) -> Option<()> {
    let stamp = datagram.l4 + UDP_LEN;
    let (is_ordinary, ssid) = {
        let packet = frame.at::<SenderPacket>(stamp)?;
        (read64(&packet.timestamp) == 0, be16(&packet.ssid))
    };
    let learned = if is_ordinary {
        fan::learn(frame, datagram, ssid)
    } else {
        None
    };
    let now = clock::now();
    if now >= config.lease_until_ns {
        maps::count(Reason::UnstampedLease);
        return finish(frame, datagram, sums, 0);
    }
    if let Some(learned) = learned {
        learned.at(now);
    }
    let mut difference = 0;
    if datagram.udp_len as usize >= PROBE_HEAD {
        let tlv = frame.at_mut::<DtTlv>(stamp + BASE_LEN)?;
        if tlv.is_ours() {
            let generation = (config.clock_generation as u16).to_be();
            difference = u64::from(!read16(&tlv.sender_generation)) + u64::from(generation);
            write16(&mut tlv.sender_generation, generation);
        }
    }
    let packet = frame.at_mut::<SenderPacket>(stamp)?;
    let old = sum::halves(read64(&packet.timestamp)) + u64::from(read16(&packet.error_estimate));
    let (timestamp, estimate) = (
        clock::wall(config, now).0.to_be(),
        config.error_estimate.to_be(),
    );
    write64(&mut packet.timestamp, timestamp);
    write16(&mut packet.error_estimate, estimate);
    difference += sum::halves(timestamp) + u64::from(estimate) + u64::from(!fold(old));
    maps::count(Reason::Stamped);
    finish(frame, datagram, sums, difference)
}

/// Makes the checksum that of a datagram which by so much differs from what it was.
#[inline(always)]
fn finish<F: Frame>(
    frame: &mut F,
    datagram: &Datagram,
    sums: Option<Sums>,
    difference: u64,
) -> Option<()> {
    if let Some(sums) = sums {
        let checksum = sum::finish(sums.head + difference, sums.tail, sums.pseudo);
        frame.at_mut::<Udp>(datagram.l4)?.checksum = checksum.to_ne_bytes();
    } else if difference != 0 {
        frame.repair_checksum(datagram.l4 + 6, u32::from(fold(difference)));
    }
    Some(())
}
