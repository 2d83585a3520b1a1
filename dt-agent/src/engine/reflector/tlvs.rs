//! The flags of TLVs in a reply (RFC 8972 section 4).

use dt_common::wire::{EXTRA_PADDING, TlvFlags, TlvHeader};
use zerocopy::FromBytes;

/// Sets U where the type is unknown, M where a length lies, which ends the walk, and no other flag.
///
/// Ours is set right by who fills it in: another TLV of its private type is somebody else's, and not understood.
pub(super) fn set_flags(after_base: &mut [u8]) {
    let mut rest = after_base;
    while let Ok((header, values)) = TlvHeader::mut_from_prefix(rest) {
        let length = usize::from(header.length.get());
        let Some((_, next)) = values.split_at_mut_checked(length) else {
            header.flags = (header.flags & TlvFlags::UNRECOGNISED) | TlvFlags::MALFORMED;
            return;
        };
        header.flags = if header.kind == EXTRA_PADDING {
            0
        } else {
            TlvFlags::UNRECOGNISED
        };
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_tlv_gets_its_flags() {
        let table: &[(&str, &[u8], &[u8])] = &[
            ("no TLV", &[], &[]),
            ("less than a header", &[0x80, 1, 0], &[0x80, 1, 0]),
            ("extra padding", &[0x80, 1, 0, 1, 9], &[0, 1, 0, 1, 9]),
            ("unknown", &[0x80, 4, 0, 1, 9], &[0x80, 4, 0, 1, 9]),
            (
                "unknown, sent without U",
                &[0, 250, 0, 0],
                &[0x80, 250, 0, 0],
            ),
            (
                "sent with other flags",
                &[0xff, 1, 0, 0, 0x7f, 4, 0, 0, 0, 252, 0, 0],
                &[0, 1, 0, 0, 0x80, 4, 0, 0, 0x80, 252, 0, 0],
            ),
            ("lying length", &[0x80, 1, 0, 2, 9], &[0xc0, 1, 0, 2, 9]),
            (
                "longest lie",
                &[0x80, 4, 0xff, 0xff],
                &[0xc0, 4, 0xff, 0xff],
            ),
            (
                "what stands after a lie is copied",
                &[0x80, 1, 0, 0, 0x80, 1, 0, 9, 0x80, 1, 0, 0],
                &[0, 1, 0, 0, 0xc0, 1, 0, 9, 0x80, 1, 0, 0],
            ),
        ];
        for (name, request, reply) in table {
            let mut bytes = request.to_vec();
            set_flags(&mut bytes);
            assert_eq!(bytes, *reply, "{name}");
        }
    }
}
