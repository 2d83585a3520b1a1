//! The unauthenticated base packets, 44 bytes each way.

use zerocopy::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::WireError;
use crate::time::{ErrorEstimate, NtpTime};

/// Length of both base packets in bytes.
pub const BASE_LEN: usize = 44;

/// What a Session-Sender sends (RFC 8762 section 4.2.1, figure 2; SSID: RFC 8972 section 3).
///
/// ```text
///  0        4                12     14     16                          44
///  | seq    | timestamp (T1) | err  | SSID | MBZ, 28 bytes             |
/// ```
#[repr(C)]
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Eq,
    PartialEq,
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    Unaligned,
)]
pub struct SenderPacket {
    /// Sequence number of the probe, from 0, per session.
    pub seq: U32,
    /// T1, in the format that the error estimate's Z bit names.
    pub timestamp: U64,
    /// Error estimate of T1.
    pub error_estimate: U16,
    /// STAMP Session Identifier, 0 when there is none.
    pub ssid: U16,
    /// Must be zero on sending, is ignored on receipt.
    pub mbz: [u8; 28],
}

impl SenderPacket {
    /// The packet at the start of `datagram`, and the bytes after it, where TLVs may stand.
    ///
    /// # Errors
    /// [`WireError::Truncated`] below 44 bytes.
    pub fn parse(datagram: &[u8]) -> Result<(&Self, &[u8]), WireError> {
        Self::ref_from_prefix(datagram).map_err(|_| WireError::Truncated {
            need: BASE_LEN,
            have: datagram.len(),
        })
    }

    /// T1 as an NTP time; what it means when the Z bit says PTP is the caller's to ask.
    #[must_use]
    pub fn ntp(&self) -> NtpTime {
        NtpTime(self.timestamp.get())
    }
}

/// What a Session-Reflector answers (RFC 8762 section 4.3.1, figure 6).
///
/// ```text
///  0      4               12    14     16              24       28               36    38   40   41
///  | seq  | timestamp T3  | err | SSID | receive T2    | s.seq  | sender T1      | err | MBZ| TTL| MBZ |
/// ```
#[repr(C)]
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Eq,
    PartialEq,
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    Unaligned,
)]
pub struct ReflectorPacket {
    /// The reflector's own counter when stateful, a copy of the sender's when stateless.
    pub seq: U32,
    /// T3, when the reply was sent.
    pub timestamp: U64,
    /// Error estimate of T2 and T3.
    pub error_estimate: U16,
    /// The sender's SSID; 0 from reflectors that know only RFC 8762.
    pub ssid: U16,
    /// T2, when the request arrived.
    pub receive_timestamp: U64,
    /// Copy of the request's sequence number.
    pub sender_seq: U32,
    /// Copy of T1.
    pub sender_timestamp: U64,
    /// Copy of the request's error estimate.
    pub sender_error_estimate: U16,
    /// Zero.
    pub mbz: [u8; 2],
    /// TTL or hop limit with which the request arrived.
    pub sender_ttl: u8,
    /// Zero.
    pub mbz_tail: [u8; 3],
}

impl ReflectorPacket {
    /// The packet at the start of `datagram`, and the bytes after it.
    ///
    /// # Errors
    /// [`WireError::Truncated`] below 44 bytes.
    pub fn parse(datagram: &[u8]) -> Result<(&Self, &[u8]), WireError> {
        Self::ref_from_prefix(datagram).map_err(|_| WireError::Truncated {
            need: BASE_LEN,
            have: datagram.len(),
        })
    }

    /// The answer to `request`, but for T3: RFC 8762 section 4.3.1.
    #[must_use]
    #[inline(always)]
    pub fn answer(
        request: &SenderPacket,
        seq: u32,
        received: NtpTime,
        estimate: ErrorEstimate,
        ttl: u8,
    ) -> Self {
        Self {
            seq: U32::new(seq),
            timestamp: U64::new(received.0),
            error_estimate: U16::new(estimate.0),
            ssid: request.ssid,
            receive_timestamp: U64::new(received.0),
            sender_seq: request.seq,
            sender_timestamp: request.timestamp,
            sender_error_estimate: request.error_estimate,
            mbz: [0; 2],
            sender_ttl: ttl,
            mbz_tail: [0; 3],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_where_the_rfc_puts_them() {
        let request = SenderPacket {
            seq: U32::new(0x0102_0304),
            timestamp: U64::new(0x1112_1314_1516_1718),
            error_estimate: U16::new(0x2122),
            ssid: U16::new(0x3132),
            mbz: [0; 28],
        };
        assert_eq!(
            &request.as_bytes()[..16],
            [
                1, 2, 3, 4, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x21, 0x22, 0x31, 0x32
            ]
        );
        let reply = ReflectorPacket::answer(&request, 7, NtpTime(0xaabb), ErrorEstimate(1), 254);
        let bytes = reply.as_bytes();
        assert_eq!(
            bytes[24..38],
            request.as_bytes()[..14],
            "seq, T1 and error estimate are copied to 24..38"
        );
        assert_eq!(bytes[14..16], [0x31, 0x32]);
        assert_eq!(bytes[40], 254);
    }

    #[test]
    fn a_short_packet_is_an_error_not_a_panic() {
        for len in 0..BASE_LEN {
            let bytes = [0; BASE_LEN];
            assert_eq!(
                SenderPacket::parse(&bytes[..len]).err(),
                Some(WireError::Truncated {
                    need: 44,
                    have: len
                })
            );
        }
    }
}
