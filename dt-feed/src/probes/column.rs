//! One column of a probe block: integers in frames of at most 128, each packed with the fewest bits.
//!
//! ```text
//! frame:  | delta 1, width 7 | exceptions 8 | base, zigzag varint | rows x width bits, lowest first | exceptions |
//! exception:                                                       | row 8 | value - base, zigzag varint        |
//! ```
//!
//! A row is `base` plus its packed bits, or what its exception says. In a frame with the delta bit this is the distance from
//! the row before (in the frame before for the first one, from 0 in the first frame), else the value itself. All arithmetic
//! wraps at 64 bits, so every `u64` can be stored. A column of zeros only is empty.

use crate::varint;

/// Rows of a frame; the last one of a column has the rest.
pub(super) const FRAME_ROWS: usize = 128;

/// The bytes are not a column of as many rows as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BrokenColumn;

/// Encodes a column.
pub(super) fn encode(values: impl Iterator<Item = u64>) -> Vec<u8> {
    let mut values = values.map(|value| value as i64).peekable();
    let mut column = Vec::new();
    let mut only_zeros = true;
    let mut before = 0;
    while values.peek().is_some() {
        let mut frame = [0; FRAME_ROWS];
        let mut rows = 0;
        for (row, value) in frame.iter_mut().zip(&mut values) {
            *row = value;
            rows += 1;
        }
        let frame = &frame[..rows];
        only_zeros &= frame.iter().all(|value| *value == 0);
        encode_frame(frame, before, &mut column);
        before = frame[rows - 1];
    }
    if only_zeros { Vec::new() } else { column }
}

/// Decodes a column of exactly `rows` rows.
pub(super) fn decode(mut bytes: &[u8], rows: usize) -> Result<Vec<u64>, BrokenColumn> {
    if bytes.is_empty() {
        return Ok(vec![0; rows]);
    }
    // A frame has at least three bytes, so this bounds the memory by the input as well as by `rows`.
    let mut values = Vec::with_capacity(rows.min(bytes.len() / 3 * FRAME_ROWS));
    let mut before = 0;
    while values.len() < rows {
        let mut frame = [0; FRAME_ROWS];
        let frame = &mut frame[..(rows - values.len()).min(FRAME_ROWS)];
        decode_frame(&mut bytes, frame, &mut before).ok_or(BrokenColumn)?;
        values.extend(frame.iter().map(|value| *value as u64));
    }
    if bytes.is_empty() {
        Ok(values)
    } else {
        Err(BrokenColumn)
    }
}

fn encode_frame(values: &[i64], before: i64, out: &mut Vec<u8>) {
    let mut deltas = [0; FRAME_ROWS];
    let deltas = &mut deltas[..values.len()];
    let mut previous = before;
    for (delta, value) in deltas.iter_mut().zip(values) {
        *delta = value.wrapping_sub(previous);
        previous = *value;
    }
    let plain = Plan::best(values);
    if plain.width == 0 && plain.bytes <= SHORTEST_FRAME {
        return plain.write(values, 0, out);
    }
    let distances = Plan::best(deltas);
    if distances.bytes < plain.bytes {
        distances.write(deltas, DELTA, out);
    } else {
        plain.write(values, 0, out);
    }
}

fn decode_frame(bytes: &mut &[u8], frame: &mut [i64], before: &mut i64) -> Option<()> {
    let (&[head, exceptions], rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    let width = u32::from(head & !DELTA);
    let base = varint::unzigzag(varint::read(bytes).ok()?);
    if width > u64::BITS {
        return None;
    }
    let (packed, rest) = bytes.split_at_checked((frame.len() * width as usize).div_ceil(8))?;
    *bytes = rest;
    unpack(packed, width, frame);
    for value in &mut *frame {
        *value = value.wrapping_add(base);
    }
    for _ in 0..exceptions {
        let (row, rest) = bytes.split_first()?;
        *bytes = rest;
        let offset = varint::unzigzag(varint::read(bytes).ok()?);
        *frame.get_mut(usize::from(*row))? = base.wrapping_add(offset);
    }
    if head & DELTA != 0 {
        for value in &mut *frame {
            *before = before.wrapping_add(*value);
            *value = *before;
        }
    }
    *before = *frame.last()?;
    Some(())
}

/// How a frame will be written, and how long that is.
#[derive(Clone, Copy)]
struct Plan {
    base: i64,
    width: u32,
    bytes: usize,
}

impl Plan {
    /// The shorter of the plans for two likely bases.
    ///
    /// A few values far below the others (the first probe of the next peer among distances, a young session among old ones)
    /// would widen all rows if the base were the least value. So when nearly all values stand high above it, a base above the
    /// greatest gap among the lowest ones is tried too.
    fn best(values: &[i64]) -> Self {
        let least = values.iter().copied().min().unwrap_or(0);
        let (plan, stands_high) = Self::with_base(least, values);
        if !stands_high {
            return plan;
        }
        let (other, _) = Self::with_base(base_above_gap(values), values);
        if other.bytes < plan.bytes {
            other
        } else {
            plan
        }
    }

    /// The best width for this base, and whether at least 7/8 of the values are in the upper 3/4 of that width.
    fn with_base(base: i64, values: &[i64]) -> (Self, bool) {
        let offsets = Offsets::of(values, base);
        let head = 2 + varint::len(varint::zigzag(base));
        let mut best = Self {
            base,
            width: u64::BITS,
            bytes: usize::MAX,
        };
        let (mut exceptions, mut exception_bytes) = (0, 0);
        for width in (0..=offsets.widest).rev() {
            let bytes = head + (values.len() * width).div_ceil(8) + exception_bytes;
            if bytes <= best.bytes {
                best = Self {
                    base,
                    width: width as u32,
                    bytes,
                };
            }
            exceptions += offsets.rows[width];
            exception_bytes += offsets.exception_bytes(width);
            if exceptions > MAX_EXCEPTIONS {
                break;
            }
        }
        let width = best.width as usize;
        let high: usize = offsets.rows[width.saturating_sub(1)..=width].iter().sum();
        (best, width > 0 && high * 8 >= values.len() * 7)
    }

    fn write(&self, values: &[i64], delta: u8, out: &mut Vec<u8>) {
        let is_exception = |value: &i64| bits(offset(*value, self.base)) > self.width;
        let exceptions = values.iter().filter(|value| is_exception(value)).count();
        out.extend([self.width as u8 | delta, exceptions as u8]);
        varint::write(out, varint::zigzag(self.base));
        let packed = values.iter().map(|value| {
            if is_exception(value) {
                0
            } else {
                offset(*value, self.base)
            }
        });
        pack(packed, self.width, out);
        for (row, value) in values
            .iter()
            .enumerate()
            .filter(|(_, value)| is_exception(value))
        {
            out.push(row as u8);
            varint::write(out, varint::zigzag(value.wrapping_sub(self.base)));
        }
    }
}

/// How wide the distances of a frame's values from a base are.
struct Offsets {
    /// Number of rows by width in bits. Those below the base have the highest bit set and so stand at 64.
    rows: [usize; u64::BITS as usize + 1],
    widest: usize,
    /// Length of the exceptions that the rows of width 64 would be.
    below_bytes: usize,
}

impl Offsets {
    fn of(values: &[i64], base: i64) -> Self {
        let mut offsets = Self {
            rows: [0; u64::BITS as usize + 1],
            widest: 0,
            below_bytes: 0,
        };
        for value in values {
            let offset = offset(*value, base);
            let width = bits(offset) as usize;
            offsets.rows[width] += 1;
            offsets.widest = offsets.widest.max(width);
            if width == u64::BITS as usize {
                offsets.below_bytes += 1 + varint::len(varint::zigzag(offset as i64));
            }
        }
        offsets
    }

    /// Length of the exceptions that the rows of this width would be: row number, and zigzag varint.
    fn exception_bytes(&self, width: usize) -> usize {
        if width == u64::BITS as usize {
            self.below_bytes
        } else {
            self.rows[width] * (1 + (width + 1).div_ceil(7))
        }
    }
}

/// The value above the greatest gap among the lowest ones of a frame.
fn base_above_gap(values: &[i64]) -> i64 {
    let mut sorted = [0; FRAME_ROWS];
    let sorted = &mut sorted[..values.len()];
    sorted.copy_from_slice(values);
    let last = LOWEST.min(values.len()) - 1;
    sorted.select_nth_unstable(last);
    let lowest = &mut sorted[..=last];
    lowest.sort_unstable();
    let above = (1..lowest.len()).max_by_key(|rank| lowest[*rank].abs_diff(lowest[rank - 1]));
    lowest[above.unwrap_or(0)]
}

/// Distance above the base; below it, a number with the highest bit set, which makes it an exception.
const fn offset(value: i64, base: i64) -> u64 {
    value.wrapping_sub(base) as u64
}

const fn bits(value: u64) -> u32 {
    u64::BITS - value.leading_zeros()
}

/// Appends the `width` lowest bits of each value, lowest first; no higher one may be set.
fn pack(values: impl Iterator<Item = u64>, width: u32, out: &mut Vec<u8>) {
    let (mut pending, mut pending_bits) = (0_u128, 0);
    for value in values {
        pending |= u128::from(value) << pending_bits;
        pending_bits += width;
        if pending_bits >= u64::BITS {
            out.extend((pending as u64).to_le_bytes());
            pending >>= u64::BITS;
            pending_bits -= u64::BITS;
        }
    }
    let bytes = pending_bits.div_ceil(8) as usize;
    out.extend(&(pending as u64).to_le_bytes()[..bytes]);
}

/// Inverse of [`pack`]; `packed` must have the bits of all rows.
fn unpack(mut packed: &[u8], width: u32, frame: &mut [i64]) {
    let mask = if width == 0 {
        0
    } else {
        u64::MAX >> (u64::BITS - width)
    };
    let (mut pending, mut pending_bits) = (0_u128, 0);
    for value in frame {
        if pending_bits < width {
            let mut word = [0; 8];
            let taken = packed.len().min(word.len());
            word[..taken].copy_from_slice(&packed[..taken]);
            packed = &packed[taken..];
            pending |= u128::from(u64::from_le_bytes(word)) << pending_bits;
            pending_bits += u64::BITS;
        }
        *value = (pending as u64 & mask) as i64;
        pending >>= width;
        pending_bits -= width;
    }
}

/// First two bytes and a base of one byte: no plan is shorter.
const SHORTEST_FRAME: usize = 3;
/// Bit of a frame's first byte: rows are distances.
const DELTA: u8 = 0x80;
/// How many of the lowest values are looked at for a better base.
const LOWEST: usize = 16;
/// Beyond so many exceptions (of two bytes or more) a narrower frame cannot win back what they cost.
const MAX_EXCEPTIONS: usize = 24;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn column() -> impl Strategy<Value = Vec<u64>> {
        let value = (any::<u64>(), 0..=63_u32, any::<bool>());
        let value = value.prop_map(|(value, shift, minus)| {
            if minus {
                (value >> shift).wrapping_neg()
            } else {
                value >> shift
            }
        });
        prop::collection::vec(value, 0..400)
    }

    proptest! {
        #[test]
        fn a_column_is_lossless(values in column()) {
            let bytes = encode(values.iter().copied());
            prop_assert_eq!(decode(&bytes, values.len()), Ok(values));
        }

        #[test]
        fn a_column_near_a_line_is_lossless(start in any::<u64>(), steps in prop::collection::vec(0..5000_u64, 0..400)) {
            let line = steps.iter().scan(start, |at, step| { *at = at.wrapping_add(*step); Some(*at) });
            let values: Vec<u64> = line.collect();
            let bytes = encode(values.iter().copied());
            prop_assert_eq!(decode(&bytes, values.len()), Ok(values));
        }

        #[test]
        fn noise_is_a_column_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), rows in 0..300_usize) {
            if let Ok(values) = decode(&bytes, rows) {
                prop_assert_eq!(values.len(), rows);
            }
        }

        #[test]
        fn a_column_cut_short_is_an_error(values in column(), cut in 1..50_usize) {
            let bytes = encode(values.iter().copied());
            let kept = bytes.len().saturating_sub(cut);
            prop_assume!(kept > 0);
            prop_assert_eq!(decode(&bytes[..kept], values.len()), Err(BrokenColumn));
        }
    }

    #[test]
    fn equal_and_evenly_spaced_values_cost_next_to_nothing() {
        assert_eq!(encode(std::iter::repeat_n(0, 1000)), Vec::<u8>::new());
        assert!(encode(std::iter::repeat_n(7, 1024)).len() <= 24);
        assert!(encode(0..1024).len() <= 32);
    }

    #[test]
    fn an_outlier_on_either_side_does_not_widen_the_others() {
        let steady: Vec<u64> = (0..FRAME_ROWS as u64)
            .map(|row| 50_000 + row * 7 % 16)
            .collect();
        let bare = encode(steady.iter().copied()).len();
        for outlier in [0, 3_000_000_000] {
            let mut values = steady.clone();
            values[77] = outlier;
            assert!(encode(values.into_iter()).len() <= bare + 8, "{outlier}");
        }
    }

    #[test]
    fn a_tiny_input_cannot_claim_much_memory() {
        let values = decode(&[0, 0, 2], 1_000_000);
        assert_eq!(values, Err(BrokenColumn));
    }
}
