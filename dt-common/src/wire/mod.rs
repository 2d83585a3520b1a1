//! STAMP test packets as views over bytes (RFC 8762, RFC 8972), and the one private TLV that is ours.
//!
//! Everything is unaligned, big-endian and without padding, so a view is a cast after one length check. What a packet
//! means, and whether it is answered, is decided elsewhere.

mod stamp;
mod tlv;

pub use stamp::{BASE_LEN, ReflectorPacket, SenderPacket};
pub use tlv::{
    DT_TLV_LEN, DT_TLV_TYPE, DT_TLV_VALUE_LEN, DtFlags, DtTlv, EXTRA_PADDING, MAGIC, PROBE_LEN,
    Tlv, TlvFlags, TlvHeader, Tlvs, VERSION,
};

/// Bytes that are no packet of the expected kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WireError {
    /// Fewer bytes than the fixed part needs.
    Truncated {
        /// Bytes needed.
        need: usize,
        /// Bytes there.
        have: usize,
    },
    /// A TLV claims more bytes than the packet has.
    TlvOverrun {
        /// Offset of the TLV's header in the bytes after the base packet.
        offset: usize,
    },
}

impl core::fmt::Display for WireError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Truncated { need, have } => {
                write!(f, "packet has {have} bytes, {need} are needed")
            }
            Self::TlvOverrun { offset } => {
                write!(f, "TLV at offset {offset} is longer than the packet")
            }
        }
    }
}

impl core::error::Error for WireError {}
