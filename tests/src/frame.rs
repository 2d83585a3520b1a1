//! Frames made by hand: Ethernet, tags, IP, UDP and a STAMP payload, right or wrong on purpose.
//!
//! Shares no code with what parses them: the numbers here are those of the RFCs.

use std::net::IpAddr;

/// What stands in the UDP checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The right sum.
    Right,
    /// Zero, "none".
    Zero,
    /// Only the pseudo-header's sum, as it leaves a host that lets the network card do the rest.
    Partial,
    /// One more than right.
    Wrong,
}

/// A UDP datagram in a frame, in parts.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Ethernet source.
    pub source_mac: [u8; 6],
    /// Ethernet destination.
    pub destination_mac: [u8; 6],
    /// Tags, outermost first: type and control word.
    pub tags: Vec<(u16, u16)>,
    /// IP source.
    pub source: IpAddr,
    /// IP destination, of the same version.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class.
    pub tos: u8,
    /// Flags and offset of an IPv4 fragment.
    pub fragment: u16,
    /// UDP source port.
    pub source_port: u16,
    /// UDP destination port.
    pub destination_port: u16,
    /// UDP payload.
    pub payload: Vec<u8>,
    /// UDP checksum.
    pub checksum: Checksum,
    /// Bytes after the IP packet, as Ethernet pads short frames.
    pub trailer: Vec<u8>,
}

impl Frame {
    /// A frame between two hosts, untagged, with the right sums.
    #[must_use]
    pub fn udp(source: (IpAddr, u16), destination: (IpAddr, u16), payload: Vec<u8>) -> Self {
        Self {
            source_mac: [2, 0, 0, 0, 0, 2],
            destination_mac: [2, 0, 0, 0, 0, 1],
            tags: Vec::new(),
            source: source.0,
            destination: destination.0,
            ttl: 255,
            tos: 0,
            fragment: 0,
            source_port: source.1,
            destination_port: destination.1,
            payload,
            checksum: Checksum::Right,
            trailer: Vec::new(),
        }
    }

    /// Bytes before the UDP header.
    #[must_use]
    pub fn udp_offset(&self) -> usize {
        self.ip_offset() + if self.source.is_ipv4() { 20 } else { 40 }
    }

    /// Bytes before the IP header.
    #[must_use]
    pub fn ip_offset(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    /// All bytes of the frame.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = Vec::with_capacity(self.udp_offset() + 8 + self.payload.len());
        frame.extend(self.destination_mac);
        frame.extend(self.source_mac);
        for (kind, control) in &self.tags {
            frame.extend(kind.to_be_bytes());
            frame.extend(control.to_be_bytes());
        }
        let udp = self.datagram();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x08, 0x00]);
                frame.extend(self.ipv4(&udp, source.octets(), destination.octets()));
            }
            (source, destination) => {
                frame.extend([0x86, 0xdd]);
                frame.extend([0x60 | self.tos >> 4, self.tos << 4, 0, 0]);
                frame.extend((udp.len() as u16).to_be_bytes());
                frame.extend([17, self.ttl]);
                frame.extend(octets(source));
                frame.extend(octets(destination));
            }
        }
        frame.extend(udp);
        frame.extend(&self.trailer);
        frame
    }

    fn ipv4(&self, udp: &[u8], source: [u8; 4], destination: [u8; 4]) -> [u8; 20] {
        let mut header = [0; 20];
        header[..2].copy_from_slice(&[0x45, self.tos]);
        header[2..4].copy_from_slice(&(udp.len() as u16 + 20).to_be_bytes());
        header[4..6].copy_from_slice(&[0x12, 0x34]);
        header[6..8].copy_from_slice(&self.fragment.to_be_bytes());
        header[8..10].copy_from_slice(&[self.ttl, 17]);
        header[12..16].copy_from_slice(&source);
        header[16..20].copy_from_slice(&destination);
        let sum = !ones_sum(&[&header]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    fn datagram(&self) -> Vec<u8> {
        let len = self.payload.len() as u16 + 8;
        let mut udp = Vec::with_capacity(usize::from(len));
        udp.extend(self.source_port.to_be_bytes());
        udp.extend(self.destination_port.to_be_bytes());
        udp.extend(len.to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(&self.payload);
        let pseudo = pseudo_header_sum((self.source, self.destination), len);
        let right = match !ones_sum(&[&pseudo.to_be_bytes(), &udp]) {
            0 => 0xffff,
            sum => sum,
        };
        let sum = match self.checksum {
            Checksum::Right => right,
            Checksum::Zero => 0,
            Checksum::Partial => pseudo,
            // Never zero, which would mean "none".
            Checksum::Wrong => (right % 0xfffe) + 1,
        };
        udp[6..8].copy_from_slice(&sum.to_be_bytes());
        udp
    }
}

/// Sum of the pseudo-header of a UDP datagram of so many bytes between these two (RFC 768, RFC 8200 section 8.1).
#[must_use]
pub fn pseudo_header_sum(ends: (IpAddr, IpAddr), udp_len: u16) -> u16 {
    let [high, low] = udp_len.to_be_bytes();
    ones_sum(&[&octets(ends.0), &octets(ends.1), &[0, 17, high, low]])
}

/// The base of a request: sequence number, T1, error estimate, SSID, and 28 bytes that must be zero.
#[must_use]
pub fn request(seq: u32, t1: u64, error_estimate: u16, ssid: u16) -> Vec<u8> {
    let mut base = Vec::with_capacity(44);
    base.extend(seq.to_be_bytes());
    base.extend(t1.to_be_bytes());
    base.extend(error_estimate.to_be_bytes());
    base.extend(ssid.to_be_bytes());
    base.extend([0; 28]);
    base
}

/// A TLV: flags, type, length, value.
#[must_use]
pub fn tlv(flags: u8, kind: u8, value: &[u8]) -> Vec<u8> {
    let mut tlv = vec![flags, kind];
    tlv.extend((value.len() as u16).to_be_bytes());
    tlv.extend(value);
    tlv
}

/// Our TLV in a request.
#[must_use]
pub fn our_tlv(sender_epoch: u32, flags: u8) -> Vec<u8> {
    let mut value = vec![0x64, 0x74, 1, flags];
    value.extend(sender_epoch.to_be_bytes());
    value.resize(48, 0);
    tlv(0x80, 252, &value)
}

/// One's complement sum of parts, each of even length but the last.
#[must_use]
pub fn ones_sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
