//! The flags of foreign TLVs in a reply (RFC 8972 section 4).

use dt_common::map::Reason;
use dt_common::wire::{EXTRA_PADDING, TlvFlags, TlvHeader};

use crate::headers::Datagram;
use crate::packet::Frame;
use crate::verdict::Refusal;

/// TLVs that are walked; packets with more are the agent's socket's work.
const MAX_TLVS: usize = 8;
const HEADER: usize = size_of::<TlvHeader>();

/// Whether the TLVs from `from` on are few enough to be answered here.
#[inline(always)]
pub fn countable<F: Frame>(frame: &F, datagram: &Datagram, from: usize) -> Result<(), Refusal> {
    let end = datagram.l4 + (datagram.udp_len & 0x3fff) as usize;
    let mut at = datagram.l4 + from;
    for _ in 0..MAX_TLVS {
        if at + HEADER > end {
            return Ok(());
        }
        let header = frame
            .at::<TlvHeader>(at & 0x7fff)
            .ok_or(Refusal::Pass(Reason::Malformed))?;
        at += HEADER + header.length.get() as usize;
        if at >= end {
            return Ok(());
        }
    }
    Err(Refusal::Pass(Reason::ManyTlvs))
}

/// Sets the flags of the TLVs from `from` on: U where the type is unknown, M where the length lies, no other.
///
/// Ours stands before `from`: another TLV of its private type is somebody else's, and not understood.
#[inline(always)]
pub fn set_flags<F: Frame>(frame: &mut F, datagram: &Datagram, from: usize) {
    let end = datagram.l4 + (datagram.udp_len & 0x3fff) as usize;
    let mut at = datagram.l4 + from;
    for _ in 0..MAX_TLVS {
        if at + HEADER > end {
            return;
        }
        let Some(header) = frame.at_mut::<TlvHeader>(at & 0x7fff) else {
            return;
        };
        let next = at + HEADER + header.length.get() as usize;
        if next > end {
            header.flags = (header.flags & TlvFlags::UNRECOGNISED) | TlvFlags::MALFORMED;
            return;
        }
        header.flags = if header.kind == EXTRA_PADDING {
            0
        } else {
            TlvFlags::UNRECOGNISED
        };
        at = next;
    }
}
