//! Chance as a value: a small seeded generator that is passed to whoever needs it.
//!
//! Not for secrets. The same seed gives the same numbers on every host and version, so a simulated day can be replayed;
//! the application draws the seed from the operating system once.

/// `SplitMix64` (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
///
/// Eight bytes of state, period 2^64, passes the tests of `BigCrush`; any seed is as good as any other, zero included.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The generator of one seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN_GAMMA);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to, not including, `end`; 0 when `end` is 0.
    ///
    /// By multiplication instead of division (Lemire 2019), without its rejection step: the bias is below
    /// `end` / 2^64, which no user of this type could ever notice.
    pub const fn below(&mut self, end: u64) -> u64 {
        ((self.bits() as u128 * end as u128) >> 64) as u64
    }

    /// A number from `-limit` to `limit`, both included, evenly spread.
    pub const fn within(&mut self, limit: u32) -> i64 {
        self.below(2 * limit as u64 + 1) as i64 - limit as i64
    }

    /// A generator of its own for somebody else, so that what the one draws does not change what the other draws.
    #[must_use]
    pub const fn split(&mut self) -> Self {
        Self::new(self.bits())
    }
}

/// 2^64 divided by the golden ratio, made odd: steps of this size visit every state, spread evenly.
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_numbers_are_those_of_the_published_algorithm() {
        // First outputs of the reference implementation (xoshiro.di.unimi.it/splitmix64.c) for seed 1234567.
        let mut random = Random::new(1_234_567);
        assert_eq!(random.bits(), 6_457_827_717_110_365_317);
        assert_eq!(random.bits(), 3_203_168_211_198_807_973);
        assert_eq!(random.bits(), 9_817_491_932_198_370_423);
    }

    #[test]
    fn numbers_are_spread_evenly() {
        let mut random = Random::new(0);
        let mut counts = [0_u32; 10];
        for _ in 0..100_000 {
            counts[random.below(10) as usize] += 1;
        }
        assert!(
            counts.iter().all(|count| (9_600..10_400).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn nothing_is_below_zero_or_beyond_the_limit() {
        let mut random = Random::new(3);
        assert_eq!(random.below(0), 0);
        assert_eq!(random.within(0), 0);
        let drawn: Vec<_> = (0..1_000).map(|_| random.within(2)).collect();
        assert_eq!(drawn.iter().min(), Some(&-2));
        assert_eq!(drawn.iter().max(), Some(&2));
    }

    proptest! {
        #[test]
        fn a_number_below_an_end_is_below_it(seed: u64, end in 1..u64::MAX) {
            prop_assert!(Random::new(seed).below(end) < end);
        }

        #[test]
        fn a_split_generator_goes_its_own_way(seed: u64) {
            let mut parent = Random::new(seed);
            let mut child = parent.split();
            prop_assert_ne!(parent.bits(), child.bits());
        }
    }
}
