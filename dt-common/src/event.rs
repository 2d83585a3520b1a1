//! What the collector tells user space about each reply, through a ring buffer.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// One reply as the collector saw it. Host byte order throughout, but for what is said to be copied.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
pub struct ReplyEvent {
    /// T4 on this host's monotonic clock.
    pub received_ns: u64,
    /// T1 as echoed, in the sender's time format (NTP 32.32).
    pub t1: u64,
    /// T2, when the reflector got the request.
    pub t2: u64,
    /// T3, when the reflector sent the reply.
    pub t3: u64,
    /// T4 in NTP format on this host's wall clock.
    pub t4: u64,
    /// The reflector's bitmap of sequence numbers seen, see `DtTlv::seen`.
    pub seen: u64,
    /// Sequence number of the probe.
    pub seq: u32,
    /// The reflector's own sequence number.
    pub reflector_seq: u32,
    /// Epoch that the sender put into the probe.
    pub sender_epoch: u32,
    /// Epoch of the reflector's counters.
    pub epoch: u32,
    /// The reflector's counters, see `DtTlv`.
    pub received: u32,
    /// See `DtTlv::duplicates`.
    pub duplicates: u32,
    /// See `DtTlv::corrupt`.
    pub corrupt: u32,
    /// See `DtTlv::refused`.
    pub refused: u32,
    /// SSID, which is the index of the target on this host.
    pub ssid: u16,
    /// Source port of the probe (destination port of the reply).
    pub source_port: u16,
    /// Error estimate of T2 and T3.
    pub error_estimate: u16,
    /// Generation of this host's clock offset at T1.
    pub sender_generation: u16,
    /// Generation of this host's clock offset at T4.
    pub local_generation: u16,
    /// Generation of the reflector's clock offset.
    pub reflector_generation: u16,
    /// TTL with which the reply arrived here.
    pub reply_ttl: u8,
    /// TTL with which the request arrived at the reflector.
    pub request_ttl: u8,
    /// See [`EventFlags`].
    pub flags: u8,
    /// `DtTlv::flags` of the reply; zero without our TLV.
    pub tlv_flags: u8,
}

/// Bits of [`ReplyEvent::flags`].
pub struct EventFlags;

impl EventFlags {
    /// The reply carried our TLV.
    pub const TLV: u8 = 0x01;
    /// The reply was also passed up to the socket, so that user space can time it.
    pub const PASSED_UP: u8 = 0x02;
    /// T4 was taken by native XDP (else tc ingress).
    pub const XDP: u8 = 0x04;
    /// T4 was taken in user space or by `SO_TIMESTAMPING`: made by the `socket` datapath, not by a program.
    pub const SOCKET: u8 = 0x08;
    /// The reply's checksum was wrong: nothing in the event but its arrival can be trusted, and [`Target::corrupt`]
    /// counted it too.
    ///
    /// [`Target::corrupt`]: crate::map::Target::corrupt
    pub const CORRUPT: u8 = 0x10;
    /// With `SOCKET`: T1 was taken in user space, because the kernel's was not to be had. No program sets this.
    pub const T1_USER: u8 = 0x20;
    /// With `SOCKET`: T4 likewise.
    pub const T4_USER: u8 = 0x40;
}
