//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624), as plain arithmetic.
//!
//! The kernel side sums with `bpf_csum_diff` and folds here; the user side sums slices. Sums are kept unfolded in `u32`
//! or `u64`; "raw" sums are over 16-bit words in network order read as big-endian unless a doc says otherwise.

/// Folds a sum into 16 bits with end-around carry.
#[must_use]
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    // Three rounds: 64 -> 33 -> 17 -> 16 bits, without a branch for the verifier to follow.
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// The UDP form of a checksum: a computed zero is sent as all ones, because zero means "none" (RFC 768).
#[must_use]
#[inline(always)]
pub const fn udp_form(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// Replaces one 16-bit word under a checksum: `HC' = ~(~HC + ~m + m')` (RFC 1624 equation 3).
#[must_use]
#[inline(always)]
pub const fn replace_word(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(!checksum as u64 + !old as u64 + new as u64)
}

/// Sum of `bytes` as big-endian words, an odd last byte padded with zero.
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, tail) = bytes.as_chunks::<2>();
    let words: u64 = words
        .iter()
        .map(|word| u64::from(u16::from_be_bytes(*word)))
        .sum();
    words + tail.first().map_or(0, |last| u64::from(*last) << 8)
}

/// Sum of the pseudo-header of UDP over IPv4 or IPv6 (RFC 768, RFC 8200 section 8.1).
#[must_use]
pub fn udp_pseudo_sum(source: &[u8], destination: &[u8], udp_len: u16) -> u64 {
    sum(source) + sum(destination) + 17 + u64::from(udp_len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1071_section_3() {
        assert_eq!(
            fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])),
            0xddf2
        );
    }

    #[test]
    fn the_corner_case_of_rfc_1624_section_4() {
        assert_eq!(replace_word(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    proptest! {
        #[test]
        fn an_incremental_update_equals_a_new_sum(mut bytes in prop::collection::vec(any::<u8>(), 2..200), new: [u8; 2], at: prop::sample::Index) {
            let at = at.index(bytes.len() / 2) * 2;
            let before = !fold(sum(&bytes));
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            bytes[at..at + 2].copy_from_slice(&new);
            let updated = replace_word(before, old, u16::from_be_bytes(new));
            let after = !fold(sum(&bytes));
            // 0x0000 and 0xffff are the same number in one's complement.
            prop_assert!(updated == after || (updated ^ after) == 0xffff && (updated == 0 || after == 0));
        }

        #[test]
        fn folding_keeps_the_value_modulo_ffff(sum in 0..u64::MAX / 2) {
            prop_assert_eq!(u64::from(fold(sum)) % 0xffff, sum % 0xffff);
        }
    }
}
