//! The flags of TLVs in a reply (RFC 8972 section 4).

use dt_common::wire::{DT_TLV_TYPE, EXTRA_PADDING, TlvFlags, TlvHeader};
use zerocopy::FromBytes;

/// Clears U where the type is known, sets it where it is not, and sets M where a length lies, which ends the walk.
pub(super) fn set_flags(after_base: &mut [u8]) {
    let mut rest = after_base;
    while let Ok((header, values)) = TlvHeader::mut_from_prefix(rest) {
        let length = usize::from(header.length.get());
        let Some((_, next)) = values.split_at_mut_checked(length) else {
            header.flags |= TlvFlags::MALFORMED;
            return;
        };
        if matches!(header.kind, EXTRA_PADDING | DT_TLV_TYPE) {
            header.flags &= !TlvFlags::UNRECOGNISED;
        } else {
            header.flags |= TlvFlags::UNRECOGNISED;
        }
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
