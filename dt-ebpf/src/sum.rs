//! Checksums of UDP datagrams: one pass that verifies, and the parts from which the reply's checksum is made.
//!
//! Sums are of native 32-bit words, as `bpf_csum_diff` makes them: one's complement sums do not care for byte order, so
//! the folded result, stored natively, is the checksum in network order (RFC 1071 section 2B).

use core::ptr;

use aya_ebpf::helpers::bpf_csum_diff;
use dt_common::checksum::{fold, udp_form};
use dt_common::wire::DtFlags;

use crate::headers::{Datagram, Ipv4, Ipv6, MAX_UDP_LEN, UDP_LEN, Udp};
use crate::packet::Frame;
use crate::wide::{opaque, read16, read32, read64};

/// Bytes of a base packet behind its UDP header.
pub const BASE_HEAD: usize = UDP_LEN + dt_common::wire::BASE_LEN;
/// Bytes of a probe of ours behind its UDP header included.
pub const PROBE_HEAD: usize = UDP_LEN + dt_common::wire::PROBE_LEN;
const CHUNK: usize = 512;
/// All lengths up to `MAX_UDP_LEN`, as a mask that the verifier understands.
const MAX_TAIL: usize = 0x3fff;

/// A datagram's sums before it is changed.
#[derive(Clone, Copy)]
pub struct Sums {
    /// UDP header (checksum included) and the part that a reply changes.
    pub head: u64,
    /// Whatever follows.
    pub tail: u64,
    /// Pseudo-header.
    pub pseudo: u64,
    /// The checksum as received, native order.
    pub checksum: u16,
}

impl Sums {
    /// Sums a datagram whose `head` bytes from the UDP header on will change. `None` if it is shorter than it says.
    #[inline(always)]
    pub fn of<F: Frame>(frame: &F, datagram: &Datagram, ours: bool) -> Option<Self> {
        let udp = frame.at::<Udp>(datagram.l4)?;
        let checksum = read16(&udp.checksum);
        let (head, head_len) = head(frame, datagram, ours)?;
        let tail = if datagram.udp_len as usize > head_len {
            tail(frame, datagram, head_len)?
        } else {
            0
        };
        Some(Self {
            head,
            tail,
            pseudo: pseudo(frame, datagram)?,
            checksum,
        })
    }

    /// Whether the checksum holds; on a `full` interface also the bare pseudo-header sum of a packet that never left the host,
    /// unless it is `promised` to be more.
    #[inline(always)]
    pub fn hold(&self, full: bool, promised: impl FnOnce() -> bool) -> bool {
        fold(self.head + self.tail + self.pseudo) == 0xffff
            || (full && fold(self.pseudo) == self.checksum && !promised())
    }
}

/// Whether the flags of our TLV in a request, or zero, promise a checksum over the whole. To be asked late: the verifier would
/// walk all that comes after once for each answer.
#[inline(always)]
pub fn is_request_summed(flags: u8) -> bool {
    opaque(flags as usize) & DtFlags::SUMMED as usize != 0
}

/// The same of a reply, see [`DtFlags::SUMMED`].
#[inline(always)]
pub fn is_reply_summed(flags: u8) -> bool {
    is_request_summed(flags) && opaque(flags as usize) & DtFlags::REFLECTOR_MASK as usize != 0
}

/// Sum of the part that a reply changes, and its length.
#[inline(always)]
pub fn head<F: Frame>(frame: &F, datagram: &Datagram, ours: bool) -> Option<(u64, usize)> {
    if ours {
        Some((
            short(frame.at::<[u8; PROBE_HEAD]>(datagram.l4)?),
            PROBE_HEAD,
        ))
    } else {
        Some((short(frame.at::<[u8; BASE_HEAD]>(datagram.l4)?), BASE_HEAD))
    }
}

/// Sum of the bytes from `from` on to the end of the datagram, odd lengths too.
///
/// In pieces of 512 bytes, the most that `bpf_csum_diff` takes before kernel 6.13, then by the binary digits of what is
/// left. Where a piece starts follows from the length alone, never from the pieces before: else the verifier would walk
/// all that comes after once for each way of getting there.
#[inline(always)]
pub fn tail<F: Frame>(frame: &F, datagram: &Datagram, from: usize) -> Option<u64> {
    let start = datagram.l4 + from;
    let len = (datagram.udp_len as usize).checked_sub(from)? & MAX_TAIL;
    let mut sum = 0_u64;
    let chunks = opaque(len >> 9);
    for chunk in 0..=(MAX_UDP_LEN as usize / CHUNK) {
        if chunk >= chunks {
            break;
        }
        sum = add(sum, frame.at::<[u8; CHUNK]>(start + chunk * CHUNK)?);
    }
    sum = piece::<F, 256>(frame, start, len, sum)?;
    sum = piece::<F, 128>(frame, start, len, sum)?;
    sum = piece::<F, 64>(frame, start, len, sum)?;
    sum = piece::<F, 32>(frame, start, len, sum)?;
    sum = piece::<F, 16>(frame, start, len, sum)?;
    sum = piece::<F, 8>(frame, start, len, sum)?;
    sum = piece::<F, 4>(frame, start, len, sum)?;
    // Up to three bytes are left; an odd one is the first of a word whose second is zero.
    if opaque(len >> 1) & 1 != 0 {
        sum += u64::from(read16(
            frame.at::<[u8; 2]>(start + (opaque(len) & (MAX_TAIL & !3)))?,
        ));
    }
    if opaque(len) & 1 != 0 {
        let last = *frame.at::<u8>(start + (opaque(len) & (MAX_TAIL & !1)))?;
        sum += u64::from(u16::from_ne_bytes([last, 0]));
    }
    Some(sum)
}

/// The piece of `N` bytes, if the length has that binary digit.
#[inline(always)]
fn piece<F: Frame, const N: usize>(frame: &F, start: usize, len: usize, sum: u64) -> Option<u64> {
    if opaque(len / N) & 1 == 0 {
        return Some(sum);
    }
    Some(add(
        sum,
        frame.at::<[u8; N]>(start + (opaque(len) & (MAX_TAIL & !(2 * N - 1))))?,
    ))
}

/// Sum of the pseudo-header (RFC 768, RFC 8200 section 8.1). Swapping the addresses does not change it.
#[inline(always)]
pub fn pseudo<F: Frame>(frame: &F, datagram: &Datagram) -> Option<u64> {
    let fixed = u64::from(datagram.udp_len.to_be()) + u64::from(17_u16.to_be());
    if datagram.ipv6 {
        let ip = frame.at::<Ipv6>(datagram.l3)?;
        Some(
            fixed
                + halves(read64(&ip.source[0]))
                + halves(read64(&ip.source[1]))
                + halves(read64(&ip.destination[0]))
                + halves(read64(&ip.destination[1])),
        )
    } else {
        let ip = frame.at::<Ipv4>(datagram.l3)?;
        Some(
            fixed
                + u64::from(u32::from_ne_bytes(ip.source))
                + u64::from(u32::from_ne_bytes(ip.destination)),
        )
    }
}

/// The checksum of a reply from its sums, made with the checksum field zero; native order.
#[inline(always)]
pub fn finish(head: u64, tail: u64, pseudo: u64) -> u16 {
    udp_form(!fold(head + tail + pseudo))
}

/// New minus old as the difference that `bpf_l4_csum_replace` wants.
#[inline(always)]
pub fn difference(new: u64, old: u64) -> u32 {
    u32::from(fold(new + u64::from(!fold(old))))
}

/// Adds `bytes`, whose length is a multiple of four and known at compile time, to a sum.
#[inline(always)]
pub fn add<const N: usize>(sum: u64, bytes: &[u8; N]) -> u64 {
    // SAFETY: `bytes` is readable for N bytes, the verifier sees N as a constant; no `from` buffer is given. The helper
    // takes mutable pointers but only reads.
    let part = unsafe {
        bpf_csum_diff(
            ptr::null_mut(),
            0,
            ptr::from_ref(bytes).cast_mut().cast(),
            N as u32,
            0,
        )
    };
    sum + u64::from(part as u32)
}

/// The sum of so few bytes that calling a helper for it costs more than adding them up here (see
/// `docs/adr/0016-heads-are-summed-in-line.md`).
#[inline(always)]
fn short<const N: usize>(bytes: &[u8; N]) -> u64 {
    const { assert!(N.is_multiple_of(4)) };
    let (words, rest) = bytes.as_chunks::<8>();
    let mut sum = rest
        .first_chunk::<4>()
        .map_or(0, |half| u64::from(read32(half)));
    for word in words {
        sum += halves(read64(word));
    }
    sum
}

/// The sum of a 64-bit word's halves.
#[inline(always)]
pub fn halves(word: u64) -> u64 {
    (word >> 32) + (word & 0xffff_ffff)
}
