//! Ethernet, VLAN, IP and UDP headers, and which arrivals concern us.

use dt_common::map::{AddressWords, Config};
use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::maps;
use crate::packet::Frame;
use crate::wide::{self, be16, read32, read64};

/// Length of an Ethernet header without tags.
pub const ETHERNET_LEN: usize = 14;
/// Length of an IPv4 header without options.
pub const IPV4_LEN: usize = 20;
/// Length of an IPv6 header without extensions.
pub const IPV6_LEN: usize = 40;
/// Length of a UDP header.
pub const UDP_LEN: usize = 8;
/// Longest UDP datagram that the programs handle; longer ones go to the stack. Covers jumbo frames of 9,216 bytes.
pub const MAX_UDP_LEN: u16 = 9_216;

/// IPv4 (IEEE 802 numbers).
pub const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
/// IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMPV6: u8 = 58;

/// A hardware address in two parts that are words.
#[repr(C)]
#[derive(Clone, Copy, Eq, PartialEq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
pub struct Mac {
    pub high: [u8; 4],
    pub low: [u8; 2],
}

/// Ethernet addresses.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
pub struct Ethernet {
    pub destination: Mac,
    pub source: Mac,
}

/// IPv4 header without options (RFC 791).
#[repr(C)]
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
pub struct Ipv4 {
    pub version_ihl: u8,
    pub tos: u8,
    pub total_len: U16,
    pub id: U16,
    pub fragment: U16,
    pub ttl: u8,
    pub protocol: u8,
    pub checksum: U16,
    pub source: [u8; 4],
    pub destination: [u8; 4],
}

/// IPv6 header (RFC 8200).
#[repr(C)]
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
pub struct Ipv6 {
    pub version_class: [u8; 4],
    pub payload_len: U16,
    pub next_header: u8,
    pub hop_limit: u8,
    pub source: [[u8; 8]; 2],
    pub destination: [[u8; 8]; 2],
}

/// UDP header (RFC 768).
#[repr(C)]
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
pub struct Udp {
    pub source_port: U16,
    pub destination_port: U16,
    pub len: U16,
    /// As it lies in memory: sums are made of native words, see `sum`.
    pub checksum: [u8; 2],
}

/// A UDP datagram that concerns us, as far as its headers tell. No pointers: frames may be made linear after this.
#[derive(Clone, Copy)]
pub struct Datagram {
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of the UDP header.
    pub l4: usize,
    /// Whether it is IPv6.
    pub ipv6: bool,
    /// Whether it is the first fragment of several.
    pub fragment: bool,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Bytes of IP payload as the IP header states them.
    pub ip_payload: u16,
    /// UDP length as the UDP header states it.
    pub udp_len: u16,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

/// A neighbour's answer, of interest only while the reply path is proved.
#[derive(Clone, Copy)]
pub enum Neighbour {
    /// ARP, header at this offset.
    Arp(usize),
    /// `ICMPv6`, IPv6 header at this offset.
    Icmpv6(usize),
}

/// What an arriving frame is to us.
pub enum Arrival {
    /// Nothing.
    Foreign,
    /// To our reflector port.
    Request(Datagram),
    /// To one of our source ports.
    Reply(Datagram),
    /// Possibly part of a proof.
    Neighbour(Neighbour),
}

/// Says what a frame is to us; the only work that foreign packets pay for.
#[inline(always)]
pub fn classify<F: Frame>(frame: &F, config: &Config) -> Arrival {
    let Some((l3, ethertype)) = network_layer(frame) else {
        return Arrival::Foreign;
    };
    let datagram = match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, l3),
        ETHERTYPE_IPV6 => match ipv6(frame, l3) {
            Ok(datagram) => datagram,
            Err(arrival) => return arrival,
        },
        ETHERTYPE_ARP => return Arrival::Neighbour(Neighbour::Arp(l3)),
        _ => None,
    };
    let Some(datagram) = datagram else {
        return Arrival::Foreign;
    };
    let port = datagram.destination_port;
    if port == config.port {
        Arrival::Request(datagram.blurred())
    } else if port >= config.source_port_first && port <= config.source_port_last {
        Arrival::Reply(datagram.blurred())
    } else {
        Arrival::Foreign
    }
}

/// A probe of ours on its way out: UDP from one of our source ports.
#[inline(always)]
pub fn outgoing<F: Frame>(frame: &F, config: &Config) -> Option<Datagram> {
    let (l3, ethertype) = network_layer(frame)?;
    let datagram = match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, l3)?,
        ETHERTYPE_IPV6 => ipv6(frame, l3).ok()??,
        _ => return None,
    };
    let port = datagram.source_port;
    (port >= config.source_port_first && port <= config.source_port_last).then_some(datagram)
}

/// Offset and type of what follows the Ethernet header and at most two VLAN tags.
#[inline(always)]
fn network_layer<F: Frame>(frame: &F) -> Option<(usize, u16)> {
    let mut offset = ETHERNET_LEN;
    let mut ethertype = be16(frame.at::<U16>(ETHERNET_LEN - 2)?);
    for _ in 0..2 {
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ {
            break;
        }
        ethertype = be16(frame.at::<U16>(offset + 2)?);
        offset += 4;
    }
    Some((offset, ethertype))
}

/// Options make the port's place uncertain and routers slow: such packets are left to the stack, as not ours.
#[inline(always)]
fn ipv4<F: Frame>(frame: &F, l3: usize) -> Option<Datagram> {
    let ip = frame.at::<Ipv4>(l3)?;
    let fragment = be16(&ip.fragment);
    if ip.version_ihl != 0x45 || ip.protocol != PROTOCOL_UDP || fragment & 0x1fff != 0 {
        return None;
    }
    let udp = frame.at::<Udp>(l3 + IPV4_LEN)?;
    Some(Datagram {
        l3,
        l4: l3 + IPV4_LEN,
        ipv6: false,
        fragment: fragment & 0x2000 != 0,
        ttl: ip.ttl,
        ip_payload: be16(&ip.total_len).saturating_sub(IPV4_LEN as u16),
        udp_len: be16(&udp.len),
        source_port: be16(&udp.source_port),
        destination_port: be16(&udp.destination_port),
    })
}

/// A fragment header comes before UDP in IPv6, so fragments are never seen as UDP here.
#[inline(always)]
fn ipv6<F: Frame>(frame: &F, l3: usize) -> Result<Option<Datagram>, Arrival> {
    let Some(ip) = frame.at::<Ipv6>(l3) else {
        return Ok(None);
    };
    if ip.next_header == PROTOCOL_ICMPV6 {
        return Err(Arrival::Neighbour(Neighbour::Icmpv6(l3)));
    }
    if ip.next_header != PROTOCOL_UDP || ip.version_class[0] >> 4 != 6 {
        return Ok(None);
    }
    let Some(udp) = frame.at::<Udp>(l3 + IPV6_LEN) else {
        return Ok(None);
    };
    Ok(Some(Datagram {
        l3,
        l4: l3 + IPV6_LEN,
        ipv6: true,
        fragment: false,
        ttl: ip.hop_limit,
        ip_payload: be16(&ip.payload_len),
        udp_len: be16(&udp.len),
        source_port: be16(&udp.source_port),
        destination_port: be16(&udp.destination_port),
    }))
}

impl Datagram {
    /// The same datagram, at offsets of which the verifier knows only the range.
    ///
    /// It knows them exactly for each number of tags and each IP version, and would walk the rest of the program once for
    /// every combination. A number that cancels itself out, unknown to it, makes these walks one (six times less work).
    #[inline(always)]
    fn blurred(mut self) -> Self {
        let noise = usize::from(self.source_port);
        let zero = wide::opaque(noise) ^ wide::opaque(noise);
        self.l3 = (self.l3 + zero) & 0x1f;
        self.l4 = (self.l4 + zero) & 0x7f;
        self
    }

    /// Whether this hook is the one that acts on this interface, and with which interface flags.
    #[inline(always)]
    pub fn acting_flags<F: Frame>(frame: &F) -> Option<u32> {
        let iface = maps::iface(frame.ifindex())?;
        (iface.mode == F::MODE).then_some(iface.flags)
    }

    /// Source and destination as 16 bytes each.
    #[inline(always)]
    pub fn addresses<F: Frame>(&self, frame: &F) -> Option<(AddressWords, AddressWords)> {
        if self.ipv6 {
            let ip = frame.at::<Ipv6>(self.l3)?;
            Some((words(&ip.source), words(&ip.destination)))
        } else {
            let ip = frame.at::<Ipv4>(self.l3)?;
            Some((mapped(read32(&ip.source)), mapped(read32(&ip.destination))))
        }
    }
}

/// An address as two words.
#[inline(always)]
pub fn words(address: &[[u8; 8]; 2]) -> AddressWords {
    [read64(&address[0]), read64(&address[1])]
}

/// An IPv4 address, as it lies in memory, in the form that all maps use: `::ffff:a.b.c.d`.
#[inline(always)]
pub fn mapped(address: u32) -> AddressWords {
    let prefix = u64::from(u32::from_ne_bytes([0, 0, 0xff, 0xff]));
    let address = u64::from(address);
    [
        0,
        if cfg!(target_endian = "little") {
            prefix | address << 32
        } else {
            prefix << 32 | address
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_is_mapped_as_user_space_maps_it() {
        let address: std::net::Ipv4Addr = [10, 77, 0, 3].into();
        let octets = address.to_ipv6_mapped().octets();
        let whole: [u64; 2] = [0, 1].map(|half: usize| {
            u64::from_ne_bytes(
                octets[half * 8..half * 8 + 8]
                    .try_into()
                    .expect("eight bytes"),
            )
        });
        assert_eq!(mapped(u32::from_ne_bytes(address.octets())), whole);
    }
}
