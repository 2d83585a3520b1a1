//! Keys, values, names and sizes of the BPF maps.
//!
//! Addresses are 16 bytes: IPv6 as it is, IPv4 mapped (`::ffff:a.b.c.d`). Unless said otherwise, numbers are in host
//! byte order. Who writes: user space writes `Config`, `Iface`, `Target` (but its counters) and the allow-lists; programs
//! write everything else.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::seen;

/// Address of either family, IPv4 mapped into IPv6.
pub type Address = [u8; 16];

/// An address as two words in memory order: what the kernel side keeps on its stack, where nothing may be misaligned.
pub type AddressWords = [u64; 2];

/// The words of an address.
#[must_use]
#[expect(
    clippy::many_single_char_names,
    reason = "sixteen bytes in order have no better names"
)]
pub const fn words(address: Address) -> AddressWords {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    [
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
    ]
}

/// The first twelve bytes of an IPv4-mapped address.
pub const MAPPED_PREFIX: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// Members of the mesh that a node can answer from places that nothing evicts.
pub const MAX_MEMBERS: u32 = 16_384;
/// Targets: the SSID is the index, 0 is never one.
pub const MAX_TARGETS: u32 = 65_536;
/// First SSID that belongs to `ping` and the like, not to the agent.
pub const FIRST_GUEST_SSID: u16 = 0xf000;
/// SSIDs of one guest.
pub const GUEST_SSIDS: u16 = 256;
/// Guests at one time, each with a ring of its own.
pub const MAX_GUESTS: u16 = 4;
/// Source ports of one guest. Those of all guests are the last ones of the node's range, see
/// [`ConfigFlags::GUEST_PORTS`]: sockets of the agent hold the others.
pub const GUEST_PORTS: u16 = 16;
/// Mark of probes unless the operator chose another.
pub const DEFAULT_MARK: u32 = 0x6474_0001;
/// Interfaces of one node.
pub const MAX_IFACES: u32 = 1024;
/// Where an interface's entry stands in `IFACES` and `PROOFS`. Two interfaces of one slot cannot both be used.
#[must_use]
#[inline(always)]
pub const fn iface_slot(ifindex: u32) -> u32 {
    ifindex % MAX_IFACES
}

/// Own addresses on which a node answers.
pub const MAX_LOCALS: usize = 8;
/// Foreign sessions and sources that are remembered.
pub const MAX_FOREIGN: u32 = 16_384;
/// Prefixes in the allow-list.
pub const MAX_PREFIXES: u32 = 4_096;
/// Source ports that the collector knows by number, for reflectors that return no SSID.
pub const MAX_SOURCE_PORTS: u32 = 4_096;
/// Bytes of the agent's ring.
pub const RING_BYTES: u32 = 1 << 20;
/// Bytes of a guest's ring.
pub const GUEST_RING_BYTES: u32 = 1 << 17;

/// Names of the maps, as they are pinned.
pub mod names {
    /// [`super::Config`], one entry.
    pub const CONFIG: &str = "CONFIG";
    /// [`super::Iface`] by [`super::iface_slot`].
    pub const IFACES: &str = "IFACES";
    /// [`super::Proof`] by [`super::iface_slot`].
    pub const PROOFS: &str = "PROOFS";
    /// [`super::Target`] by SSID.
    pub const TARGETS: &str = "TARGETS";
    /// SSID by source port, for reflectors that return none.
    pub const PORTS: &str = "PORTS";
    /// [`super::Allowed`] by address.
    pub const ALLOW: &str = "ALLOW";
    /// [`super::Allowed`] by prefix.
    pub const ALLOW_PREFIX: &str = "ALLOW_PREFIX";
    /// [`super::Session`] by member number.
    pub const MEMBERS: &str = "MEMBERS";
    /// [`super::Session`] by [`super::ForeignKey`].
    pub const FOREIGN: &str = "FOREIGN";
    /// Theoretical arrival time by address, for sources that are no members.
    pub const SOURCES: &str = "SOURCES";
    /// Theoretical arrival time of all requests together.
    pub const TOTAL: &str = "TOTAL";
    /// Counts by [`super::Reason`], per CPU.
    pub const COUNTERS: &str = "COUNTERS";
    /// [`crate::fan::Hop`] by SSID.
    pub const HOPS: &str = "HOPS";
    /// [`crate::fan::FanReport`], one entry.
    pub const FAN: &str = "FAN";
    /// The last serial that user space took back, one entry.
    pub const FAN_REVOKED: &str = "FAN_REVOKED";
    /// The agent's ring of [`crate::event::ReplyEvent`].
    pub const EVENTS: &str = "EVENTS";
    /// The guests' rings.
    pub const GUEST_EVENTS: [&str; super::MAX_GUESTS as usize] =
        ["GUEST_0", "GUEST_1", "GUEST_2", "GUEST_3"];
}

/// What all programs of one node share.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Config {
    /// [`crate::ABI_VERSION`] of the agent that wrote this.
    pub abi_version: u32,
    /// See [`ConfigFlags`].
    pub flags: u32,
    /// Monotonic time at which stamping and reflecting stop by themselves.
    pub lease_until_ns: u64,
    /// Added to the monotonic clock it gives nanoseconds since 1900 on the wall clock.
    pub clock_offset_ns: u64,
    /// Generation of the offset, odd while it changes.
    pub clock_generation: u32,
    /// Error estimate of this host's clock (RFC 4656 section 4.1.2).
    pub error_estimate: u16,
    /// Port on which requests are answered.
    pub port: u16,
    /// First source port of our probes.
    pub source_port_first: u16,
    /// Last source port of our probes.
    pub source_port_last: u16,
    /// Entries used of `locals`.
    pub locals_len: u32,
    /// Nanoseconds between requests of one source at its highest rate; 0: no limit.
    pub source_interval_ns: u64,
    /// How far one source may run ahead of its rate.
    pub source_burst_ns: u64,
    /// Nanoseconds between all requests together; 0: no limit.
    pub total_interval_ns: u64,
    /// How far all together may run ahead.
    pub total_burst_ns: u64,
    /// Own addresses on which requests are answered.
    pub locals: [AddressWords; MAX_LOCALS],
}

/// Bits of [`Config::flags`].
pub struct ConfigFlags;

impl ConfigFlags {
    /// Answer sources that are on no allow-list. For benchmarks and tests of the bare path only.
    pub const ALLOW_ALL: u32 = 0x01;
    /// Keep no session: sequence numbers are copied (RFC 8762 stateless mode).
    pub const STATELESS: u32 = 0x02;
    /// Answer low source ports even where the request looks like another reflector's reply. For benchmarks only, which run
    /// one frame many times.
    pub const ANSWER_REPLIES: u32 = 0x08;
    /// Answer on any address. For benchmarks only, in which one host stands for many.
    pub const ANY_ADDRESS: u32 = 0x10;
    /// The last `MAX_GUESTS * GUEST_PORTS` ports up to `source_port_last` are the guests', in the order of their numbers.
    pub const GUEST_PORTS: u32 = 0x04;
}

/// One interface, at [`iface_slot`].
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Iface {
    /// Interface index.
    pub ifindex: u32,
    /// See [`IfaceMode`].
    pub mode: u32,
    /// See [`IfaceFlags`].
    pub flags: u32,
    /// Non-zero while a proof of the reply path runs: the round's number.
    pub proof_round: u32,
}

/// Which program acts on an interface; the other lets everything pass.
pub struct IfaceMode;

impl IfaceMode {
    /// None.
    pub const OFF: u32 = 0;
    /// `xdp_ingress`.
    pub const XDP: u32 = 1;
    /// `tc_ingress`.
    pub const TC: u32 = 2;
}

/// Bits of [`Iface::flags`].
pub struct IfaceFlags;

impl IfaceFlags {
    /// Checksums of local origin may be only the pseudo-header's sum (`CHECKSUM_PARTIAL`): accept it.
    pub const CHECKSUM_FULL: u32 = 0x01;
}

/// State of the proof that `XDP_TX` reaches the wire, at [`iface_slot`].
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Proof {
    /// Round in which a neighbour's answer was sent back as a request.
    pub turned_round: u32,
    /// Round in which the neighbour answered that.
    pub proved_round: u32,
    /// When it was turned.
    pub turned_ns: u64,
    /// The address that the neighbour's first answer was meant for (IPv4), to restore it in the second.
    pub target: u32,
    /// Zero.
    pub pad: u32,
}

/// Somebody whom this node probes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Target {
    /// Its address, see [`words`].
    pub address: AddressWords,
    /// Its reflector port.
    pub port: u16,
    /// See [`TargetFlags`].
    pub flags: u16,
    /// Every how many sequence numbers the reply is passed up as well; 0: never.
    pub pass_every: u32,
    /// Written by programs: replies whose checksum failed.
    pub corrupt: u32,
    /// Written by programs: replies for which the ring had no room.
    pub overrun: u32,
}

/// Bits of [`Target::flags`].
pub struct TargetFlags;

impl TargetFlags {
    /// The entry is in use.
    pub const ACTIVE: u16 = 0x01;
    /// Wake the reader of the ring with each reply.
    pub const WAKE: u16 = 0x02;
}

/// Permission to be answered.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Allowed {
    /// Index into `MEMBERS`, or [`Allowed::NO_MEMBER`].
    pub member: u32,
    /// See [`AllowedFlags`].
    pub flags: u32,
}

impl Allowed {
    /// The source is allowed but is no member.
    pub const NO_MEMBER: u32 = u32::MAX;
}

/// Bits of [`Allowed::flags`].
pub struct AllowedFlags;

impl AllowedFlags {
    /// The source may send from its own reflector port or below 1024, as some routers do (loop guard applies).
    pub const LOW_PORTS: u32 = 0x01;
}

/// Identity of a session that is no member's.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, Hash, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct ForeignKey {
    /// Address of the sender.
    pub source: AddressWords,
    /// Address it sent to; zero with our TLV.
    pub destination: AddressWords,
    /// Source port; zero with our TLV.
    pub source_port: u16,
    /// SSID.
    pub ssid: u16,
    /// Zero.
    pub pad: u32,
}

/// A reflector's memory of one session.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct Session {
    /// Identity of these counters, 0 before the first request.
    pub epoch: u32,
    /// The sender's epoch that they belong to.
    pub sender_epoch: u32,
    /// Requests accepted.
    pub received: u32,
    /// Of those, seen before.
    pub duplicates: u32,
    /// Requests whose checksum failed.
    pub corrupt: u32,
    /// Requests that a rate limit refused.
    pub refused: u32,
    /// Sequence numbers seen, see [`crate::seen`].
    pub seen: [u64; seen::WORDS],
    /// Theoretical arrival time of the next request (GCRA, ITU-T I.371).
    pub arrival_ns: u64,
}

/// Key of a longest-prefix match: bits of prefix, then the address.
pub const PREFIX_BITS: u32 = 128;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a packet got the verdict it got; the index of its counter.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// All of them, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The reason's name in tables and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// A request was answered.
    Reflected = "reflected",
    /// A reply was collected.
    Collected = "collected",
    /// A probe got its T1.
    Stamped = "stamped",
    /// Passed: lengths in the headers contradict each other or the frame.
    Malformed = "malformed",
    /// Passed: shorter than a STAMP packet, left to the agent's socket.
    Short = "short",
    /// Passed: not in the linear part of the frame.
    NonLinear = "non_linear",
    /// Passed: more TLVs than the programs walk, left to the agent's socket.
    ManyTlvs = "many_tlvs",
    /// Passed: no agent renewed the lease.
    LeaseExpired = "lease_expired",
    /// Dropped: source on no allow-list.
    NotAllowed = "not_allowed",
    /// Dropped: source port below 1024.
    SourcePort = "source_port",
    /// Dropped: source port is a reflector's.
    Loop = "loop",
    /// Dropped: source or destination is a group.
    Multicast = "multicast",
    /// Dropped: loopback or unspecified address from the wire.
    Loopback = "loopback",
    /// Dropped: source and destination are the same.
    Reflexive = "reflexive",
    /// Dropped: a fragment.
    Fragment = "fragment",
    /// Dropped: the source's rate is used up.
    SourceRate = "source_rate",
    /// Dropped: the node's rate is used up.
    TotalRate = "total_rate",
    /// Dropped: a request's checksum is wrong.
    CorruptRequest = "corrupt_request",
    /// Dropped: a reply's checksum is wrong.
    CorruptReply = "corrupt_reply",
    /// Dropped: the ring had no room for a reply.
    RingFull = "ring_full",
    /// Passed: a reply that no target of ours explains.
    UnknownReply = "unknown_reply",
    /// Sent on unstamped: no agent renewed the lease.
    UnstampedLease = "unstamped_lease",
    /// Sent back: a neighbour's answer that proves whether `XDP_TX` works.
    Proof = "proof",
    /// A probe was made in the kernel.
    Made = "made",
}

/// Counters in the `COUNTERS` map; more than there are reasons, so that new ones need no new map.
pub const COUNTER_SLOTS: u32 = 64;
