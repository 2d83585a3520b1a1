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

#[cfg(test)]
mod tests;

/// Rows of a frame; the last one of a column has the rest.
pub(super) const FRAME_ROWS: usize = 128;

/// The bytes are not a column of as many rows as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BrokenColumn;

/// Encodes a column, value by value.
pub(super) struct Encoder {
    frame: [i64; FRAME_ROWS],
    /// Rows of `frame` that are taken.
    rows: usize,
    /// The last row of the frame before.
    before: i64,
    only_zeros: bool,
    habit: Habit,
    column: Vec<u8>,
}

/// Which of the two ways of writing was the shorter one lately: frames of a column are much alike.
struct Habit {
    distances: bool,
    bytes: usize,
    /// Frames to be written that way without another look, as long as they do not get longer.
    trusted_frames: u32,
}

impl Encoder {
    pub(super) const fn new() -> Self {
        Self {
            frame: [0; FRAME_ROWS],
            rows: 0,
            before: 0,
            only_zeros: true,
            habit: Habit {
                distances: false,
                bytes: 0,
                trusted_frames: 0,
            },
            column: Vec::new(),
        }
    }

    /// Appends rows.
    pub(super) fn extend(&mut self, values: impl Iterator<Item = u64>) {
        for value in values {
            self.frame[self.rows] = value as i64;
            self.rows += 1;
            if self.rows == FRAME_ROWS {
                self.end_frame();
            }
        }
    }

    /// The column.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.rows > 0 {
            self.end_frame();
        }
        if self.only_zeros {
            Vec::new()
        } else {
            self.column
        }
    }

    fn end_frame(&mut self) {
        let frame = &self.frame[..self.rows];
        self.only_zeros &= frame.iter().all(|value| *value == 0);
        encode_frame(frame, self.before, &mut self.habit, &mut self.column);
        self.before = frame[self.rows - 1];
        self.rows = 0;
    }
}

/// Encodes a column of values that are there already.
pub(super) fn encode(values: impl Iterator<Item = u64>) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.extend(values);
    encoder.finish()
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

fn encode_frame(values: &[i64], before: i64, habit: &mut Habit, out: &mut Vec<u8>) {
    let first = values[0];
    if values.iter().all(|value| *value == first) {
        // Most frames of most columns. As distances they are zeros, if they go on as the frame before has ended.
        let plain = 2 + varint::len(varint::zigzag(first));
        let (base, delta) = if first == before && plain > SHORTEST_FRAME {
            (0, DELTA)
        } else {
            (first, 0)
        };
        out.extend([delta, 0]);
        return varint::write(out, varint::zigzag(base));
    }
    let mut deltas = [0; FRAME_ROWS];
    let deltas = &mut deltas[..values.len()];
    deltas[0] = first.wrapping_sub(before);
    for (delta, pair) in deltas[1..].iter_mut().zip(values.windows(2)) {
        *delta = pair[1].wrapping_sub(pair[0]);
    }
    let (usual, other) = if habit.distances {
        ((&*deltas, DELTA), (values, 0))
    } else {
        ((values, 0), (&*deltas, DELTA))
    };
    let plan = Plan::best(usual.0);
    if habit.trusts(&plan) {
        return plan.write(usual.0, usual.1, out);
    }
    let other_plan = Plan::best(other.0);
    let (plan, (rows, delta)) = if other_plan.bytes < plan.bytes {
        (other_plan, other)
    } else {
        (plan, usual)
    };
    *habit = Habit {
        distances: delta == DELTA,
        bytes: plan.bytes,
        trusted_frames: TRUSTED_FRAMES,
    };
    plan.write(rows, delta, out);
}

impl Habit {
    /// Whether the other way need not be looked at.
    fn trusts(&mut self, plan: &Plan) -> bool {
        let trusts = self.trusted_frames > 0 && plan.bytes <= self.bytes + self.bytes / 8;
        self.trusted_frames = self.trusted_frames.saturating_sub(1);
        trusts
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
    /// Rows that do not fit the width.
    exceptions: usize,
    bytes: usize,
}

impl Plan {
    /// The shorter of the plans for two likely bases.
    ///
    /// A few values far below the others (the first probe of the next peer among distances, a young session among old ones)
    /// would widen all rows if the base were the least value. So a base above them, which are exceptions then, is tried too.
    fn best(values: &[i64]) -> Self {
        let least = values.iter().copied().min().unwrap_or(0);
        let plan = Self::with_base(least, values);
        let Some(higher) = plan.higher_base(values) else {
            return plan;
        };
        let other = Self::with_base(higher, values);
        if other.bytes < plan.bytes {
            other
        } else {
            plan
        }
    }

    /// Which of the lowest values of a frame to take for its base instead of the least one, if that may save a bit.
    fn higher_base(&self, values: &[i64]) -> Option<i64> {
        let half = 1_u64 << self.width.checked_sub(1)?;
        let offsets = || values.iter().map(|value| offset(*value, self.base));
        let mask = half - 1 + half;
        let packed = offsets().map(|offset| if offset <= mask { offset } else { 0 });
        let greatest = packed.fold(0, u64::max);
        // Packed with a bit less, the greatest row leaves room for no base below this.
        let least_useful = greatest.saturating_sub(half - 1);
        let below: usize = offsets()
            .map(|offset| usize::from(offset < least_useful))
            .sum();
        if below == 0 || below >= LOWEST {
            return None;
        }
        let mut sorted = [0; FRAME_ROWS];
        let sorted = &mut sorted[..values.len()];
        sorted.copy_from_slice(values);
        let last = LOWEST.min(values.len()) - 1;
        sorted.select_nth_unstable(last);
        let lowest = &mut sorted[..=last];
        lowest.sort_unstable();
        let bytes = |rank: &usize| {
            let base = lowest[*rank];
            let width = bits(greatest.saturating_sub(offset(base, self.base))) as usize;
            let below = lowest[..*rank].iter();
            let below_bytes: usize = below.map(|value| exception_len(*value, base)).sum();
            (values.len() * width).div_ceil(8) + below_bytes
        };
        (below..lowest.len())
            .min_by_key(bytes)
            .map(|rank| lowest[rank])
    }

    /// The best width for this base.
    fn with_base(base: i64, values: &[i64]) -> Self {
        let offsets = Offsets::of(values, base);
        let head = 2 + varint::len(varint::zigzag(base));
        let mut best = Self {
            base,
            width: u64::BITS,
            exceptions: 0,
            bytes: usize::MAX,
        };
        let (mut exceptions, mut exception_bytes) = (0, 0);
        for width in (0..=offsets.widest).rev() {
            let bytes = head + (values.len() * width).div_ceil(8) + exception_bytes;
            if bytes <= best.bytes {
                best = Self {
                    base,
                    width: width as u32,
                    exceptions,
                    bytes,
                };
            }
            exceptions += usize::from(offsets.rows[width]);
            exception_bytes += offsets.exception_bytes(width);
            if exceptions > MAX_EXCEPTIONS {
                break;
            }
        }
        best
    }

    fn write(&self, values: &[i64], delta: u8, out: &mut Vec<u8>) {
        out.extend([self.width as u8 | delta, self.exceptions as u8]);
        varint::write(out, varint::zigzag(self.base));
        let offsets = values.iter().map(|value| offset(*value, self.base));
        if self.exceptions == 0 {
            return pack(offsets, self.width, out);
        }
        let fits = |offset: u64| bits(offset) <= self.width;
        let packed = offsets.map(|offset| if fits(offset) { offset } else { 0 });
        pack(packed, self.width, out);
        for (row, value) in values.iter().enumerate() {
            if !fits(offset(*value, self.base)) {
                out.push(row as u8);
                varint::write(out, varint::zigzag(value.wrapping_sub(self.base)));
            }
        }
    }
}

/// How wide the distances of a frame's values from a base are.
struct Offsets {
    /// Number of rows by width in bits. Those below the base have the highest bit set and so stand at 64.
    rows: [u8; WIDTHS],
    widest: usize,
    /// Length of the exceptions that the rows of width 64 would be.
    below_bytes: usize,
}

impl Offsets {
    fn of(values: &[i64], base: i64) -> Self {
        // Counted by turns in four places: the same one again and again would wait for itself.
        let mut lanes = [[0_u8; WIDTHS]; 4];
        for chunk in values.chunks(lanes.len()) {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                lane[bits(offset(*value, base)) as usize] += 1;
            }
        }
        let mut rows = [0; WIDTHS];
        for (width, rows) in rows.iter_mut().enumerate() {
            *rows = lanes.iter().map(|lane| lane[width]).sum();
        }
        let below = values
            .iter()
            .filter(|value| bits(offset(**value, base)) == u64::BITS);
        let below_bytes = if rows[WIDTHS - 1] == 0 {
            0
        } else {
            below.map(|value| exception_len(*value, base)).sum()
        };
        Self {
            widest: rows.iter().rposition(|rows| *rows > 0).unwrap_or(0),
            rows,
            below_bytes,
        }
    }

    /// Length of the exceptions that the rows of this width would be: row number, and zigzag varint.
    fn exception_bytes(&self, width: usize) -> usize {
        if width == u64::BITS as usize {
            self.below_bytes
        } else {
            usize::from(self.rows[width]) * (1 + (width + 1).div_ceil(7))
        }
    }
}

/// Length of a value as an exception: row number, and zigzag varint.
const fn exception_len(value: i64, base: i64) -> usize {
    1 + varint::len(varint::zigzag(value.wrapping_sub(base)))
}

/// Distance above the base; below it, a number with the highest bit set, which makes it an exception.
const fn offset(value: i64, base: i64) -> u64 {
    value.wrapping_sub(base) as u64
}

const fn bits(value: u64) -> u32 {
    u64::BITS - value.leading_zeros()
}

/// Appends the `width` lowest bits of each value, lowest first; no higher one may be set. At most a frame of values.
fn pack(values: impl Iterator<Item = u64>, width: u32, out: &mut Vec<u8>) {
    if width == 0 {
        return;
    }
    let mut words = [0_u64; FRAME_ROWS + 1];
    let mut bit = 0;
    for value in values {
        let (word, shift) = ((bit / u64::BITS) as usize, bit % u64::BITS);
        words[word] |= value << shift;
        // What does not fit the word; in two steps, because a shift by all bits is none.
        words[word + 1] = value >> 1 >> (u64::BITS - 1 - shift);
        bit += width;
    }
    let whole = (bit / u64::BITS) as usize;
    for word in &words[..whole] {
        out.extend(word.to_le_bytes());
    }
    let rest = (bit % u64::BITS).div_ceil(8) as usize;
    out.extend(&words[whole].to_le_bytes()[..rest]);
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
/// From none to all bits of a `u64`.
const WIDTHS: usize = u64::BITS as usize + 1;
/// Bit of a frame's first byte: rows are distances.
const DELTA: u8 = 0x80;
/// After how many frames both ways of writing are compared again.
const TRUSTED_FRAMES: u32 = 7;
/// How many of the lowest values of a frame are looked at for a better base.
const LOWEST: usize = 16;
/// Beyond so many exceptions (of two bytes or more) a narrower frame cannot win back what they cost.
const MAX_EXCEPTIONS: usize = 24;
