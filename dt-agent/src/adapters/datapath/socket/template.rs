//! The bytes of a probe: its head is its own, what follows is the same for all probes of a size.

use dt_common::time::{ErrorEstimate, NtpTime};
use dt_common::wire::{
    BASE_LEN, DtTlv, EXTRA_PADDING, PROBE_LEN, SenderPacket, TlvFlags, TlvHeader,
};
use zerocopy::IntoBytes;
use zerocopy::network_endian::{U16, U32, U64};

/// The bytes of one probe that differ from probe to probe, and those before them.
pub(super) type Head = [u8; PROBE_LEN];

/// What user space writes into a probe when no program does.
#[derive(Clone, Copy, Debug)]
pub(super) struct UserStamp {
    pub sent: NtpTime,
    pub estimate: ErrorEstimate,
    pub generation: u16,
}

/// What the heads of all probes to one target have in common. Not their bytes: an agent has thousands of targets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Template {
    ssid: u16,
    tlv: Option<(u32, u8)>,
}

impl Template {
    /// `tlv` has the sender's epoch and flags for our own reflectors; without it the probe is plain RFC 8762.
    pub(super) const fn new(ssid: u16, tlv: Option<(u32, u8)>) -> Self {
        Self { ssid, tlv }
    }

    /// The head of the probe with this sequence number.
    pub(super) fn head(&self, seq: u32, stamp: Option<UserStamp>) -> Head {
        let mut head = [0; PROBE_LEN];
        let base = SenderPacket {
            seq: U32::new(seq),
            ssid: U16::new(self.ssid),
            timestamp: U64::new(stamp.map_or(0, |stamp| stamp.sent.0)),
            error_estimate: U16::new(stamp.map_or(0, |stamp| stamp.estimate.0)),
            ..SenderPacket::default()
        };
        head[..BASE_LEN].copy_from_slice(base.as_bytes());
        if let Some((sender_epoch, flags)) = self.tlv {
            let mut tlv = DtTlv::request(sender_epoch, flags);
            tlv.sender_generation = U16::new(stamp.map_or(0, |stamp| stamp.generation));
            head[BASE_LEN..].copy_from_slice(tlv.as_bytes());
        }
        head
    }

    /// Bytes of the head that are sent.
    pub(super) const fn head_len(&self) -> usize {
        head_len(self.is_ours())
    }

    /// Whether it is a probe to one of our reflectors.
    pub(super) const fn is_ours(&self) -> bool {
        self.tlv.is_some()
    }
}

/// What follows the head in probes of one size.
#[derive(Clone, Debug)]
pub(super) struct Padding {
    ours: Box<[u8]>,
    foreign: Box<[u8]>,
}

impl Padding {
    /// For `size` bytes of UDP payload, or the smallest probe there is. Sizes that leave less than a TLV header for the
    /// padding are rounded down.
    pub(super) fn new(size: u16) -> Self {
        let room = |is_ours| usize::from(size).saturating_sub(head_len(is_ours));
        Self {
            ours: padding(room(true)),
            foreign: padding(room(false)),
        }
    }

    /// What follows this head.
    pub(super) fn behind(&self, template: Template) -> &[u8] {
        if template.is_ours() {
            &self.ours
        } else {
            &self.foreign
        }
    }
}

const fn head_len(is_ours: bool) -> usize {
    if is_ours { PROBE_LEN } else { BASE_LEN }
}

/// An Extra Padding TLV that fills `room` bytes, header included (RFC 8972 section 4.1).
fn padding(room: usize) -> Box<[u8]> {
    let Some(length) = room.checked_sub(size_of::<TlvHeader>()) else {
        return Box::default();
    };
    let header = TlvHeader {
        flags: TlvFlags::UNRECOGNISED,
        kind: EXTRA_PADDING,
        // A room of at most 2^16 bytes less two headers.
        length: U16::new(length as u16),
    };
    let mut bytes = vec![0; room];
    bytes[..size_of::<TlvHeader>()].copy_from_slice(header.as_bytes());
    bytes.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dt_common::wire::{DT_TLV_TYPE, DtFlags, Tlvs};

    fn bytes(template: &Template, seq: u32, stamp: Option<UserStamp>) -> Vec<u8> {
        sized(template, 0, seq, stamp)
    }

    fn sized(template: &Template, size: u16, seq: u32, stamp: Option<UserStamp>) -> Vec<u8> {
        let head = template.head(seq, stamp);
        let padding = Padding::new(size);
        [&head[..template.head_len()], padding.behind(*template)].concat()
    }

    #[test]
    fn a_probe_of_ours_has_its_number_its_session_and_our_tlv() {
        let template = Template::new(0x1234, Some((7, DtFlags::AGENT)));
        let probe = bytes(&template, 5, None);
        assert_eq!(probe.len(), PROBE_LEN);
        let (base, rest) = SenderPacket::parse(&probe).expect("long enough");
        assert_eq!((base.seq.get(), base.ssid.get()), (5, 0x1234));
        assert_eq!(base.timestamp.get(), 0, "left to the program");
        let tlv = DtTlv::first_of(rest).expect("ours");
        assert_eq!((tlv.sender_epoch.get(), tlv.flags), (7, DtFlags::AGENT));
    }

    #[test]
    fn user_space_stamps_what_no_program_stamps() {
        let stamp = UserStamp {
            sent: NtpTime(99),
            estimate: ErrorEstimate(0x8101),
            generation: 4,
        };
        let probe = bytes(&Template::new(1, Some((7, 0))), 5, Some(stamp));
        let (base, rest) = SenderPacket::parse(&probe).expect("long enough");
        assert_eq!(
            (base.ntp(), base.error_estimate.get()),
            (NtpTime(99), 0x8101)
        );
        assert_eq!(
            DtTlv::first_of(rest).map(|tlv| tlv.sender_generation.get()),
            Some(4)
        );
        let foreign = bytes(&Template::new(1, None), 5, Some(stamp));
        assert_eq!(foreign.len(), BASE_LEN);
    }

    #[test]
    fn a_size_is_reached_by_padding_or_rounded_down() {
        for (size, sent) in [
            (0, 96),
            (96, 96),
            (99, 96),
            (100, 100),
            (101, 101),
            (1472, 1472),
            (u16::MAX, 65_535),
        ] {
            let probe = sized(&Template::new(1, Some((7, 0))), size, 0, None);
            assert_eq!(probe.len(), sent);
            let kinds: Vec<_> = Tlvs::new(&probe[BASE_LEN..])
                .map(|tlv| tlv.expect("well formed").header.kind)
                .collect();
            let padded = if sent > 96 {
                &[DT_TLV_TYPE, EXTRA_PADDING][..]
            } else {
                &[DT_TLV_TYPE]
            };
            assert_eq!(kinds, padded);
        }
    }
}
