//! Frames by chance: right ones, wrong ones, and right ones with a few bytes changed.

use std::net::IpAddr;

use dt_tests::frame::{self, Checksum, Frame};

use crate::packet::{self, Headers};
use crate::rig::{MEMBER, NEIGHBOUR, ROUTER, STRANGER, US, host};

/// `SplitMix64`: any seed will do, and the same one gives the same frames.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

/// The next frame; `ordinal` makes sequence numbers grow.
pub fn frame(dice: &mut Dice, ordinal: u32) -> Vec<u8> {
    if dice.one_in(50) {
        let len = 60 + dice.below(200);
        return dice.bytes(len);
    }
    let made = made(dice, ordinal);
    let shortest = made.udp_offset();
    let mut bytes = made.bytes();
    let changes = dice.pick(&[0, 0, 0, 1, 1, 2, 4]);
    for _ in 0..changes {
        change(dice, &mut bytes, &made);
    }
    // Below its own IP header's end the kernel would not run it at tc.
    if bytes.len() < shortest {
        bytes.resize(shortest, 0);
    }
    if changes > 0 && !dice.one_in(3) {
        seal(&mut bytes);
    }
    bytes
}

fn made(dice: &mut Dice, ordinal: u32) -> Frame {
    let ipv6 = dice.one_in(2);
    let mut frame = if dice.one_in(5) {
        reply(dice, ipv6)
    } else {
        request(dice, ipv6, ordinal)
    };
    frame.ttl = dice.pick(&[255, 255, 64, 224, 223, 1]);
    frame.tos = dice.pick(&[0, 0, 0xb8, 1, 2, 3, 0xff]);
    frame.checksum = match dice.below(20) {
        0 => Checksum::Wrong,
        1 => Checksum::Partial,
        2 | 3 => Checksum::Zero,
        _ => Checksum::Right,
    };
    frame.tags = match dice.below(8) {
        0 => vec![(0x8100, 5)],
        1 => vec![(0x88a8, 6), (0x8100, 7)],
        _ => Vec::new(),
    };
    if dice.one_in(50) {
        frame.fragment = dice.pick(&[0x2000, 0x4000, 0x2001, 0x1fff]);
    }
    if dice.one_in(10) {
        let len = dice.below(40);
        frame.trailer = dice.bytes(len);
    }
    frame
}

fn request(dice: &mut Dice, ipv6: bool, ordinal: u32) -> Frame {
    let from = match dice.below(20) {
        0 => STRANGER,
        1 => US,
        2..5 => ROUTER,
        5..12 => MEMBER,
        _ => NEIGHBOUR,
    };
    let source_port = match dice.below(16) {
        0 => dice.pick(&[1_023, 861, 53, 0]),
        1 | 2 => 862,
        _ => dice.pick(&[50_000, 50_001, 50_002, 65_535, 1_024]),
    };
    let to = if dice.one_in(30) { MEMBER } else { US };
    let port = if dice.one_in(30) { 863 } else { 862 };
    let seq = ordinal
        .wrapping_add(dice.below(5) as u32)
        .wrapping_sub(dice.pick(&[0, 0, 3, 40, 200]));
    let ssid = dice.pick(&[0, 1, 9, 0xffff]);
    let mut payload = frame::request(seq, 0xe000_0000_1234_5678, 0x8123, ssid);
    if dice.one_in(10) {
        // Bytes that must be zero, and need not be: some of these look like a reply's.
        let noise = dice.bytes(28);
        payload[16..44].copy_from_slice(&noise);
        if dice.one_in(2) {
            payload.copy_within(4..12, 16);
        }
    }
    if !dice.one_in(3) {
        let flags = dice.pick(&[0x08, 0x48, 0x48, 0x00, 0xff]);
        payload.extend(frame::our_tlv(dice.pick(&[7, 7, 7, 8]), flags));
    }
    payload.extend(tlvs(dice));
    if dice.one_in(20) {
        payload.truncate(dice.below(120));
    }
    let source = if from == NEIGHBOUR {
        neighbour(dice, ipv6)
    } else {
        host(ipv6, from)
    };
    Frame::udp((source, source_port), (host(ipv6, to), port), payload)
}

fn reply(dice: &mut Dice, ipv6: bool) -> Frame {
    let ssid = dice.pick(&[5, 5, 6, 6, 0, 7]);
    let mut payload = frame::request(dice.below(1_000) as u32, 1, 2, ssid);
    let body = dice.bytes(28);
    payload[16..44].copy_from_slice(&body);
    if dice.one_in(2) {
        let flags = dice.pick(&[0x1b, 0x5b, 0x5b, 0x4b]);
        payload.extend(frame::our_tlv(7, flags));
    }
    payload.extend(tlvs(dice));
    let port = 60_999 + dice.below(6) as u16;
    let from = dice.pick(&[MEMBER, MEMBER, MEMBER, ROUTER]);
    Frame::udp((host(ipv6, from), 862), (host(ipv6, US), port), payload)
}

/// One of sixty hosts, so that sessions stay fewer than the kernel remembers.
fn neighbour(dice: &mut Dice, ipv6: bool) -> IpAddr {
    let number = dice.below(60) as u8;
    match host(ipv6, NEIGHBOUR) {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            [a, b, c, number].into()
        }
        IpAddr::V6(address) => {
            let mut octets = address.octets();
            octets[15] = number;
            octets.into()
        }
    }
}

/// None, a few, too many, or only the beginning of one.
fn tlvs(dice: &mut Dice) -> Vec<u8> {
    let mut tlvs = Vec::new();
    for _ in 0..dice.pick(&[0, 0, 0, 1, 1, 2, 3, 8, 9]) {
        let kind = dice.pick(&[1, 1, 4, 200, 252]);
        let len = dice.pick(&[0, 1, 2, 5, 8, 13, 48]);
        let value = dice.bytes(len);
        tlvs.extend(frame::tlv(dice.pick(&[0x80, 0x80, 0, 0xff]), kind, &value));
    }
    if dice.one_in(10) {
        let len = dice.pick(&[40, 100, 600, 1_300, 3_000]) + dice.below(8);
        tlvs.extend(frame::tlv(0x80, 1, &vec![0x5a; len]));
    }
    if dice.one_in(10) {
        let len = 1 + dice.below(6);
        tlvs.extend(dice.bytes(len));
    }
    tlvs
}

fn change(dice: &mut Dice, bytes: &mut Vec<u8>, made: &Frame) {
    // Mostly where it matters: in the headers and the first TLVs.
    let near = (made.udp_offset() + 8 + 120).min(bytes.len());
    let at = dice.below(near);
    match dice.below(8) {
        0..3 => bytes[at] ^= 1 << dice.below(8),
        3 => bytes[at] = dice.pick(&[0, 1, 0x7f, 0x80, 0xff]),
        4 => bytes[at] = dice.below(256) as u8,
        5 => bytes.truncate(made.udp_offset().max(at)),
        6 => {
            let len = dice.below(20);
            let more = dice.bytes(len);
            bytes.extend(more);
        }
        _ => {
            let from = dice.below(near);
            let byte = bytes[from];
            bytes[at] = byte;
        }
    }
}

/// Puts the checksums right, so that a change is not merely corruption.
fn seal(bytes: &mut [u8]) {
    let Headers::Udp(datagram) = packet::headers(bytes) else {
        return;
    };
    if !datagram.ipv6 {
        let header = &mut bytes[datagram.ip..datagram.udp];
        header[10..12].fill(0);
        let sum = !frame::ones_sum(&[header]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    if datagram.udp_len < 8 || datagram.end() > bytes.len() {
        return;
    }
    let field = datagram.udp + 6;
    bytes[field..field + 2].fill(0);
    let whole =
        packet::sum(&bytes[datagram.udp..datagram.end()]) + packet::pseudo_sum(bytes, &datagram);
    // The sum in one's complement; zero is written as all ones.
    let sum = 0xffff - (whole % 0xffff) as u16;
    bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}
