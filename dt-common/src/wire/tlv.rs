//! TLVs after the base packet (RFC 8972 section 4), and ours, of private-use type 252.
//!
//! The layout of [`DtTlv`] is frozen: every later version must read it. Requests carry it at full length, so that no
//! reply is ever longer than its request.

use zerocopy::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{BASE_LEN, WireError};

/// TLV type of Extra Padding (RFC 8972 section 4.1).
pub const EXTRA_PADDING: u8 = 1;
/// TLV type of ours, from the private-use range 252-254 (RFC 8972 section 5.1).
pub const DT_TLV_TYPE: u8 = 252;
/// Length of our TLV with its header.
pub const DT_TLV_LEN: usize = 52;
/// Length of our TLV as its length field states it.
pub const DT_TLV_VALUE_LEN: u16 = 48;
/// UDP payload of a probe of ours at its smallest: base packet and TLV.
pub const PROBE_LEN: usize = BASE_LEN + DT_TLV_LEN;
/// First two bytes of our TLV's value: "dt".
pub const MAGIC: u16 = 0x6474;
/// Version of our TLV's value.
pub const VERSION: u8 = 1;

/// The flags byte of a TLV (RFC 8972 section 4, figure 4).
pub struct TlvFlags;

impl TlvFlags {
    /// U: the reflector did not recognise the type. Senders set it.
    pub const UNRECOGNISED: u8 = 0x80;
    /// M: the TLV is malformed.
    pub const MALFORMED: u8 = 0x40;
    /// I: an integrity check failed.
    pub const INTEGRITY: u8 = 0x20;
}

/// The four bytes before every TLV's value.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
)]
pub struct TlvHeader {
    /// See [`TlvFlags`].
    pub flags: u8,
    /// Type.
    pub kind: u8,
    /// Length of the value in bytes.
    pub length: U16,
}

/// Flags in our TLV.
pub struct DtFlags;

impl DtFlags {
    /// Reply: the sender is a member of the reflector's mesh. Probes before the first such reply are not loss.
    pub const ADMITTED: u8 = 0x01;
    /// Reply: epoch, counters and bitmap were filled in; without it they say nothing.
    pub const STATEFUL: u8 = 0x02;
    /// Reply: this request's sequence number had been seen before.
    pub const DUPLICATE: u8 = 0x04;
    /// Request: sent by a running agent, whose session deserves a fixed place; `ping` does not set it.
    pub const AGENT: u8 = 0x08;
    /// Reply: bits that say where T2 and T3 were taken.
    pub const REFLECTOR_MASK: u8 = 0x30;
    /// T2, T3 in native XDP.
    pub const REFLECTOR_XDP: u8 = 0x10;
    /// T2, T3 at tc ingress.
    pub const REFLECTOR_TC: u8 = 0x20;
    /// T2, T3 in user space.
    pub const REFLECTOR_SOCKET: u8 = 0x30;
    /// Both: a program summed the whole datagram, so no checksum, or the pseudo-header's sum alone, is damage. In a reply only
    /// beside a bit of [`Self::REFLECTOR_MASK`]: reflectors of others return our TLV as it came.
    pub const SUMMED: u8 = 0x40;
    /// What a reflector keeps of a request's flags.
    pub const KEPT: u8 = Self::AGENT;
}

/// Our TLV, header included. In a request all reflector fields are zero.
///
/// ```text
///  0    1    2        4       6    7      8              12           16
///  | fl | 252| len 48 | magic | v  | flags | sender epoch | epoch      |
///  16            20           24          28          32                40       42       44          52
///  | received    | duplicates | corrupt   | refused   | seen (64 bits)  | s.gen  | r.gen  | keyed tag |
/// ```
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
)]
pub struct DtTlv {
    /// TLV header.
    pub header: TlvHeader,
    /// [`MAGIC`].
    pub magic: U16,
    /// [`VERSION`].
    pub version: u8,
    /// See [`DtFlags`].
    pub flags: u8,
    /// Request, copied: chosen at random at each start of the sender. Another one starts the session anew.
    pub sender_epoch: U32,
    /// Reply: identity of the counters below; changes whenever they were lost, so that this is never read as loss.
    pub epoch: U32,
    /// Reply: requests of this session that were accepted, duplicates included, this one too. Wraps.
    pub received: U32,
    /// Reply: of those, how many had been seen before. Wraps.
    pub duplicates: U32,
    /// Reply: requests from this sender whose checksum failed; they were not answered. Wraps.
    pub corrupt: U32,
    /// Reply: requests of this session that a rate limit refused; they were not answered. Wraps.
    pub refused: U32,
    /// Reply: which of the 64 sequence numbers up to this request's had been seen; the highest bit is this request.
    pub seen: U64,
    /// Request, copied: generation of the sender's clock offset when T1 was taken. Odd: T1 is not to be used.
    pub sender_generation: U16,
    /// Reply: generation of the reflector's clock offset when T2 was taken. Odd: T2 and T3 are not to be used.
    pub reflector_generation: U16,
    /// Room for a keyed tag over sequence number and T1; zero while there is no key.
    pub tag: U64,
}

impl DtTlv {
    /// Our TLV in a request.
    #[must_use]
    pub const fn request(sender_epoch: u32, flags: u8) -> Self {
        Self {
            header: TlvHeader {
                flags: TlvFlags::UNRECOGNISED,
                kind: DT_TLV_TYPE,
                length: U16::from_bytes(DT_TLV_VALUE_LEN.to_be_bytes()),
            },
            magic: U16::from_bytes(MAGIC.to_be_bytes()),
            version: VERSION,
            flags,
            sender_epoch: U32::from_bytes(sender_epoch.to_be_bytes()),
            epoch: U32::ZERO,
            received: U32::ZERO,
            duplicates: U32::ZERO,
            corrupt: U32::ZERO,
            refused: U32::ZERO,
            seen: U64::ZERO,
            sender_generation: U16::ZERO,
            reflector_generation: U16::ZERO,
            tag: U64::ZERO,
        }
    }

    /// Whether these bytes are our TLV in a version whose fields we know.
    ///
    /// Later versions only add TLVs, so any version from 1 on has these fields.
    #[must_use]
    #[inline(always)]
    pub fn is_ours(&self) -> bool {
        self.header.kind == DT_TLV_TYPE
            && self.header.length.get() == DT_TLV_VALUE_LEN
            && self.magic.get() == MAGIC
            && self.version >= VERSION
    }

    /// Our TLV where senders put it: first after the base packet.
    #[must_use]
    pub fn first_of(after_base: &[u8]) -> Option<&Self> {
        Self::ref_from_prefix(after_base)
            .ok()
            .map(|(tlv, _)| tlv)
            .filter(|tlv| tlv.is_ours())
    }
}

/// One TLV as found in a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tlv<'a> {
    /// Offset of its header in the bytes after the base packet.
    pub offset: usize,
    /// Its header.
    pub header: TlvHeader,
    /// Its value.
    pub value: &'a [u8],
}

/// Walks the TLVs after a base packet; ends at the first that lies about its length.
#[derive(Clone, Debug)]
pub struct Tlvs<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Tlvs<'a> {
    /// Over the bytes after a base packet.
    #[must_use]
    pub const fn new(after_base: &'a [u8]) -> Self {
        Self {
            bytes: after_base,
            offset: 0,
        }
    }
}

impl<'a> Iterator for Tlvs<'a> {
    type Item = Result<Tlv<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset;
        let rest = self.bytes.get(offset..).filter(|rest| !rest.is_empty())?;
        // Whatever is wrong, there is no telling where the next TLV starts: stop for good.
        self.offset = self.bytes.len();
        let Ok((header, after)) = TlvHeader::read_from_prefix(rest) else {
            return Some(Err(WireError::Truncated {
                need: size_of::<TlvHeader>(),
                have: rest.len(),
            }));
        };
        let length = usize::from(header.length.get());
        let Some(value) = after.get(..length) else {
            return Some(Err(WireError::TlvOverrun { offset }));
        };
        self.offset = offset + size_of::<TlvHeader>() + length;
        Some(Ok(Tlv {
            offset,
            header,
            value,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ours_is_found_behind_the_base_packet_and_nowhere_else() {
        let tlv = DtTlv::request(7, DtFlags::AGENT);
        assert_eq!(DtTlv::first_of(tlv.as_bytes()), Some(&tlv));
        let mut foreign = tlv;
        foreign.magic = U16::new(1);
        assert_eq!(DtTlv::first_of(foreign.as_bytes()), None);
        assert_eq!(DtTlv::first_of(&tlv.as_bytes()[..51]), None);
    }

    #[test]
    fn a_lying_length_ends_the_walk_with_an_error() {
        let bytes = [0x80, 1, 0, 2, 9, 9, 0x80, 4, 0, 9, 0];
        let mut tlvs = Tlvs::new(&bytes);
        assert!(matches!(
            tlvs.next(),
            Some(Ok(Tlv {
                offset: 0,
                value: [9, 9],
                ..
            }))
        ));
        assert_eq!(tlvs.next(), Some(Err(WireError::TlvOverrun { offset: 6 })));
        assert_eq!(tlvs.next(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let walked: usize = Tlvs::new(&bytes).flatten().map(|tlv| tlv.value.len() + 4).sum();
            prop_assert!(walked <= bytes.len());
        }
    }
}
