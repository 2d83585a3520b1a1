//! Proof that a reply can leave: a neighbour's answer is sent back as a question, and answered again.
//!
//! Attaching a program proves nothing: on a veth whose peer has no XDP program, `XDP_TX` is dropped or gets stuck
//! (kernel-facts 4.2). Every neighbour's kernel answers ARP and NDP, agent or not, so this works against anybody. While no
//! proof runs, such frames are not touched.

use dt_common::map::{Iface, IfaceFlags, Proof, Reason};
use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::headers::{ETHERNET_LEN, Ethernet, IPV6_LEN, Ipv6, Mac, Neighbour};
use crate::packet::Frame;
use crate::verdict::Verdict;
use crate::{clock, maps, sum};

const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_ADDRESS: u8 = 1;
/// A second advertisement counts as an answer to ours only this soon: the kernel asks again after a second.
const ANSWER_NS: u64 = 500_000_000;

/// ARP for IPv4 over Ethernet (RFC 826).
#[repr(C)]
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
struct Arp {
    fixed: [u8; 6],
    operation: U16,
    sender_mac: Mac,
    sender: [u8; 4],
    target_mac: Mac,
    target: [u8; 4],
}

/// Neighbour advertisement or solicitation without options (RFC 4861 section 4).
#[repr(C)]
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
struct Discovery {
    kind: u8,
    code: u8,
    checksum: [u8; 2],
    flags: [u8; 4],
    target: [u8; 16],
}

/// The link-layer address option. Linux leaves it out of its answer to a question that was not asked by multicast
/// (6.18 `ndisc_recv_ns`), which is how it asks a neighbour that it knows.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
struct LinkAddress {
    kind: u8,
    len: u8,
    mac: Mac,
}

/// Turns a neighbour's answer into a question of ours, or notes that ours was answered.
#[inline(always)]
pub fn turn<F: Frame>(frame: &mut F, neighbour: Neighbour) -> Verdict {
    let Some(iface) = maps::iface(frame.ifindex()) else {
        return Verdict::Untouched;
    };
    // Only XDP_TX needs a proof: tc redirects through the ordinary transmit path.
    if iface.proof_round == 0 || F::KERNEL_CHECKSUM {
        return Verdict::Untouched;
    }
    // What went to everybody names no address of ours to ask from, and answers no question.
    let to_one = |ethernet: &Ethernet| ethernet.destination.high[0] & 1 == 0;
    if !frame.at::<Ethernet>(0).is_some_and(to_one) {
        return Verdict::Untouched;
    }
    let Some(proof) = maps::proof(frame.ifindex()) else {
        return Verdict::Untouched;
    };
    // SAFETY: the map's value; answers of one neighbour arrive one after the other, and a lost race costs one round.
    let proof = unsafe { &mut *proof };
    let turned = match neighbour {
        Neighbour::Arp(offset) => turn_arp(frame, offset, iface, proof),
        Neighbour::Icmpv6(offset) => turn_discovery(frame, offset, iface, proof),
    };
    if turned == Some(true) {
        maps::count(Reason::Proof);
        return Verdict::Transmit;
    }
    Verdict::Untouched
}

/// The question is an ARP probe (RFC 5227): its answer is meant for 0.0.0.0 and so cannot be mistaken for another.
#[inline(always)]
fn turn_arp<F: Frame>(
    frame: &mut F,
    offset: usize,
    iface: &Iface,
    proof: &mut Proof,
) -> Option<bool> {
    if offset != ETHERNET_LEN {
        return None;
    }
    let arp = frame.at_mut::<Arp>(offset)?;
    if arp.operation.get() != ARP_REPLY || arp.fixed != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    if arp.target == [0; 4] {
        if proof.turned_round == iface.proof_round {
            proof.proved_round = iface.proof_round;
            // The kernel still waits for the answer that was turned: this is it.
            arp.target = proof.target.to_ne_bytes();
        }
        return Some(false);
    }
    if proof.turned_round == iface.proof_round {
        return Some(false);
    }
    proof.target = u32::from_ne_bytes(arp.target);
    let (neighbour_mac, own_mac, neighbour) = (arp.sender_mac, arp.target_mac, arp.sender);
    *arp = Arp {
        fixed: arp.fixed,
        operation: U16::new(ARP_REQUEST),
        sender_mac: own_mac,
        sender: [0; 4],
        target_mac: Mac {
            high: [0; 4],
            low: [0; 2],
        },
        target: neighbour,
    };
    *frame.at_mut::<Ethernet>(0)? = Ethernet {
        destination: neighbour_mac,
        source: own_mac,
    };
    note_turned(iface, proof);
    Some(true)
}

#[inline(always)]
fn turn_discovery<F: Frame>(
    frame: &mut F,
    l3: usize,
    iface: &Iface,
    proof: &mut Proof,
) -> Option<bool> {
    let discovery = frame.at::<Discovery>(l3 + IPV6_LEN)?;
    let payload_len = frame.at::<Ipv6>(l3)?.payload_len.get();
    let with_option = payload_len == WITH_OPTION;
    if discovery.kind != NEIGHBOUR_ADVERTISEMENT || !(with_option || payload_len == BARE) {
        return None;
    }
    let option = l3 + IPV6_LEN + size_of::<Discovery>();
    if with_option {
        frame.at::<LinkAddress>(option)?;
    }
    if proof.turned_round == iface.proof_round {
        if clock::now().wrapping_sub(proof.turned_ns) < ANSWER_NS {
            proof.proved_round = iface.proof_round;
        }
        return Some(false);
    }
    let ethernet = frame.at_mut::<Ethernet>(0)?;
    core::mem::swap(&mut ethernet.source, &mut ethernet.destination);
    let own_mac = ethernet.source;
    let ip = frame.at_mut::<Ipv6>(l3)?;
    core::mem::swap(&mut ip.source, &mut ip.destination);
    // The pseudo-header: addresses, length and next header; swapped addresses sum to the same.
    let pseudo = [
        ip.source[0],
        ip.source[1],
        ip.destination[0],
        ip.destination[1],
    ]
    .iter()
    .map(|half| sum::halves(u64::from_ne_bytes(*half)))
    .sum::<u64>()
        + u64::from(payload_len.to_be())
        + u64::from(58_u16.to_be());
    let discovery = frame.at_mut::<Discovery>(l3 + IPV6_LEN)?;
    discovery.kind = NEIGHBOUR_SOLICITATION;
    discovery.checksum = [0; 2];
    discovery.flags = [0; 4];
    let mut body = sum::add(0, frame.at::<[u8; BARE as usize]>(l3 + IPV6_LEN)?);
    if with_option {
        let address = frame.at_mut::<LinkAddress>(option)?;
        address.kind = SOURCE_LINK_ADDRESS;
        address.mac = own_mac;
        body = sum::add(body, frame.at::<[u8; size_of::<LinkAddress>()]>(option)?);
    }
    frame.at_mut::<Discovery>(l3 + IPV6_LEN)?.checksum =
        (!dt_common::checksum::fold(pseudo + body)).to_ne_bytes();
    note_turned(iface, proof);
    Some(true)
}

#[inline(always)]
fn note_turned(iface: &Iface, proof: &mut Proof) {
    proof.turned_ns = clock::now();
    proof.turned_round = iface.proof_round;
}

/// Length of a neighbour discovery message without and with the option.
const BARE: u16 = 24;
const WITH_OPTION: u16 = 32;

const _: () = assert!(
    size_of::<Arp>() == 28
        && size_of::<Discovery>() == BARE as usize
        && size_of::<LinkAddress>() == (WITH_OPTION - BARE) as usize
        && IfaceFlags::CHECKSUM_FULL == 1
);
