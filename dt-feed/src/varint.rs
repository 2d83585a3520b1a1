//! Protobuf's variable-length integers and zigzag, for the framing of segments and the columns of probe blocks.

/// Longest varint: ten groups of seven bits hold 64.
pub(crate) const MAX_LEN: usize = 10;

/// Appends `value`, seven bits a byte, the least first.
pub(crate) fn write(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Number of bytes that [`write()`] appends.
pub(crate) const fn len(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// Takes a varint off the front.
pub(crate) fn read(bytes: &mut &[u8]) -> Result<u64, VarintError> {
    let mut value = 0_u64;
    for (position, byte) in bytes.iter().enumerate().take(MAX_LEN) {
        let group = u64::from(byte & 0x7F);
        let shift = 7 * position as u32;
        if group.leading_zeros() < shift {
            return Err(VarintError::Overlong);
        }
        value |= group << shift;
        if byte & 0x80 == 0 {
            *bytes = &bytes[position + 1..];
            return Ok(value);
        }
    }
    Err(if bytes.len() < MAX_LEN {
        VarintError::Truncated
    } else {
        VarintError::Overlong
    })
}

/// Folds the sign into the lowest bit, so that small negative numbers are short too.
pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Inverse of [`zigzag`].
pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Why no varint could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VarintError {
    /// The bytes end within it.
    Truncated,
    /// It does not fit 64 bits.
    Overlong,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in any::<u64>(), shift in 0..64_u32) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            write(&mut bytes, value);
            prop_assert_eq!(bytes.len(), len(value));
            prop_assert_eq!(read(&mut &bytes[..bytes.len() - 1]), Err(VarintError::Truncated));
            let mut rest = &bytes[..];
            prop_assert_eq!(read(&mut rest), Ok(value));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn zigzag_loses_nothing(value in any::<i64>()) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }
    }

    #[test]
    fn more_than_64_bits_are_refused() {
        assert_eq!(read(&mut &[0xFF; 11][..]), Err(VarintError::Overlong));
        let mut too_wide = [0xFF; MAX_LEN];
        too_wide[MAX_LEN - 1] = 0x02;
        assert_eq!(read(&mut &too_wide[..]), Err(VarintError::Overlong));
    }
}
