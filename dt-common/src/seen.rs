//! Which of the latest sequence numbers were seen, in words that several CPUs can set without a lock.
//!
//! A window of 32 sequence numbers lives in one `u64`: the window's number above, one bit per sequence number below. A
//! reflector keeps [`WORDS`] of them as a ring, so the newest 97 to 128 numbers are known. The kernel updates a word by
//! compare-and-swap; the arithmetic is here, where a host can test it.

/// Words in the ring of one session.
pub const WORDS: usize = 4;

/// Index of the word that holds `seq`.
#[must_use]
#[inline(always)]
pub const fn slot(seq: u32) -> usize {
    ((seq >> 5) as usize) & (WORDS - 1)
}

/// What `word` becomes when `seq` is seen, and whether `seq` had been seen before.
///
/// A word of an older window is given up for the new one. A word of a newer window (the packet is more than 96 numbers
/// late) stays as it is: `None`.
#[must_use]
#[inline(always)]
pub const fn mark(word: u64, seq: u32) -> Option<(u64, bool)> {
    let window = (seq >> 5) as u64;
    let bit = 1_u64 << (seq & 31);
    let held = word >> 32;
    if held == window {
        return Some((word | bit, word & bit != 0));
    }
    // 27-bit window numbers wrap with the sequence number: "newer" is the shorter way round.
    let ahead = (held.wrapping_sub(window) & WINDOW_MASK) < (WINDOW_MASK / 2);
    if ahead && word != 0 {
        None
    } else {
        Some(((window << 32) | bit, false))
    }
}

/// The 64 sequence numbers up to `seq` as a bitmap: the highest bit is `seq` itself, bit 63-i is `seq - i`.
///
/// `current`, `previous`, `oldest` are the ring's words for the windows of `seq`, `seq - 32` and `seq - 64`, as they
/// stand; words of other windows count as nothing seen.
#[must_use]
#[inline(always)]
pub const fn bitmap(seq: u32, current: u64, previous: u64, oldest: u64) -> u64 {
    let window = (seq >> 5) as u64;
    let bit = (seq & 31) as u64;
    let newest = bits_of(current, window);
    let middle = bits_of(previous, window.wrapping_sub(1) & WINDOW_MASK);
    let last = bits_of(oldest, window.wrapping_sub(2) & WINDOW_MASK);
    (((newest << 32) | middle) << (31 - bit)) | (last >> (bit + 1))
}

#[inline(always)]
const fn bits_of(word: u64, window: u64) -> u64 {
    if word >> 32 == window {
        word & 0xffff_ffff
    } else {
        0
    }
}

const WINDOW_MASK: u64 = (1 << 27) - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    struct Ring([u64; WORDS]);

    impl Ring {
        fn see(&mut self, seq: u32) -> Option<bool> {
            let (word, before) = mark(self.0[slot(seq)], seq)?;
            self.0[slot(seq)] = word;
            Some(before)
        }

        fn bitmap(&self, seq: u32) -> u64 {
            let word = |back: u32| self.0[slot(seq.wrapping_sub(back))];
            bitmap(seq, word(0), word(32), word(64))
        }
    }

    #[test]
    fn a_second_sight_is_told_from_a_first() {
        let mut ring = Ring([0; WORDS]);
        assert_eq!(ring.see(0), Some(false));
        assert_eq!(ring.see(0), Some(true));
        assert_eq!(ring.see(40), Some(false));
        assert_eq!(ring.see(0), Some(true));
    }

    #[test]
    fn a_packet_that_is_128_late_does_not_erase_newer_ones() {
        let mut ring = Ring([0; WORDS]);
        ring.see(1000);
        assert_eq!(ring.see(1000 - 128), None);
        assert_eq!(ring.bitmap(1000) >> 63, 1);
    }

    proptest! {
        #[test]
        fn the_bitmap_agrees_with_a_set(start: u32, steps in prop::collection::vec((0..5_u32, any::<bool>()), 1..400)) {
            let mut ring = Ring([0; WORDS]);
            let mut seen = BTreeSet::new();
            let mut seq = start;
            for (step, late) in steps {
                let this = if late { seq.wrapping_sub(step * 3) } else { seq.wrapping_add(step) };
                if !late { seq = this; }
                prop_assert_eq!(ring.see(this), Some(!seen.insert(this)));
            }
            for back in 0..64 {
                let one = seq.wrapping_sub(back);
                let bit = (ring.bitmap(seq) >> (63 - back)) & 1;
                prop_assert_eq!(bit == 1, seen.contains(&one), "{} back", back);
            }
        }
    }
}
