//! Probes made in the kernel: one packet of a marked socket lists them, and `tc_egress` makes them of it.
//!
//! Such a packet is a UDP datagram to [`FAN_PORT`]: a [`FanHead`], then up to [`MAX_FAN_ORDERS`] of [`FanOrder`]. It never
//! leaves the host: should no program meet it, its TTL of 1 and its port end it at the next hop. Numbers are in host byte
//! order, because whoever writes them and whoever reads them are on one machine.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Destination port of packets that list probes: "discard" (RFC 863).
pub const FAN_PORT: u16 = 9;
/// Probes that one packet can list. Its 1,040 bytes fit the smallest MTU of IPv6 (RFC 8200 section 5).
pub const MAX_FAN_ORDERS: usize = 64;
/// First bytes of such a packet. Where a probe has the seconds of T1 this has the year 1960.
pub const FAN_MAGIC: [u8; 8] = *b"dt order";
/// How long the way to a peer is believed in after an ordinary probe went it.
pub const HOP_LIFE_NS: u64 = 10_000_000_000;

/// Begins a packet that lists probes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct FanHead {
    /// [`FAN_MAGIC`].
    pub magic: [u8; 8],
    /// Names the packet; rises from packet to packet, also over starts of the agent (its monotonic time in ns).
    pub serial: u64,
}

/// One probe to make: [`crate::wire::PROBE_LEN`] bytes to the target of this SSID.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct FanOrder {
    /// Sequence number.
    pub seq: u32,
    /// See [`crate::wire::DtTlv::sender_epoch`].
    pub sender_epoch: u32,
    /// The target, and what the probe says in [`crate::wire::SenderPacket::ssid`].
    pub ssid: u16,
    /// Source port.
    pub source_port: u16,
    /// See [`crate::wire::DtFlags`].
    pub flags: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// What became of the last packet that listed probes. Written by `tc_egress`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct FanReport {
    /// Its serial, from the moment on at which it is worked on.
    pub serial: u64,
    /// Its serial, once nothing more happens to it.
    pub done: u64,
    /// Bit by bit, the probes that were made. The others were not, and can be sent another way.
    pub made: u64,
    /// Of those, the ones for which the interface had no room.
    pub congested: u64,
}

/// How the last ordinary probe to a target left this host. Written by `tc_egress`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Hop {
    /// When, on the monotonic clock; 0: never.
    pub learned_ns: u64,
    /// By which interface.
    pub ifindex: u32,
    /// Its source address, folded to a word: another one means that something on this host rewrites addresses.
    pub source: u32,
    /// Its destination, in the same way: another one means that the SSID is another target's now.
    pub destination: u32,
    /// Ethernet destination and source as they lie in the frame.
    pub ethernet: [u32; 3],
}
