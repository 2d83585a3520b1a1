//! Of which class each probe to a peer is: how long, and how the network is asked to treat it.
//!
//! Long probes show faults of cells and of the MTU that short ones pass by, and code points lead into other queues. All classes
//! of a peer share one session, so one sequence of numbers: a probe's class follows from its number and is stored nowhere.

/// What probes of one kind have in common on the wire.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Class {
    /// UDP payload, bytes; less than the smallest probe means that.
    pub payload_bytes: u16,
    /// Differentiated services code point (RFC 2474), 0 to 63.
    pub dscp: u8,
}

/// One value of a setting, and how many of so many probes have it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Share<T> {
    /// The value.
    pub value: T,
    /// Its part of the sum of all.
    pub weight: u8,
}

/// Why there is no such mix.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MixError {
    /// None, or more than [`Mix::MAX_CLASSES`].
    #[error(
        "{classes} classes of probes, where 1 to {} are possible",
        Mix::MAX_CLASSES
    )]
    Classes {
        /// Those asked for.
        classes: usize,
    },
    /// More than [`Mix::MAX_TURNS`].
    #[error(
        "{turns} probes until each class had its part, where {} are possible",
        Mix::MAX_TURNS
    )]
    Turns {
        /// The sum of all weights.
        turns: usize,
    },
}

/// Classes, and which probe is of which.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mix {
    classes: [Class; Self::MAX_CLASSES],
    count: u8,
    turns: [u8; Self::MAX_TURNS],
    turn_count: u8,
    /// After so many probes the turns move on by one, see [`Self::class_of`].
    round: u32,
}

impl Mix {
    /// Each has a window of its own, for each peer.
    pub const MAX_CLASSES: usize = 8;
    /// Sum of all weights.
    pub const MAX_TURNS: usize = 64;

    /// Each size with each code point, as often as the product of their weights says.
    ///
    /// # Errors
    /// There are too many, or none.
    pub fn new(sizes: &[Share<u16>], dscps: &[Share<u8>]) -> Result<Self, MixError> {
        let pairs = sizes
            .iter()
            .flat_map(|size| dscps.iter().map(move |dscp| (size, dscp)));
        let shares: Vec<_> = pairs
            .map(|(size, dscp)| {
                let class = Class {
                    payload_bytes: size.value,
                    dscp: dscp.value,
                };
                (class, u32::from(size.weight) * u32::from(dscp.weight))
            })
            .collect();
        Self::of(&shares)
    }

    fn of(shares: &[(Class, u32)]) -> Result<Self, MixError> {
        let mut mix = Self {
            classes: [Class::default(); Self::MAX_CLASSES],
            count: shares.len() as u8,
            turns: [0; Self::MAX_TURNS],
            turn_count: 0,
            round: 1,
        };
        if shares.is_empty() || shares.len() > Self::MAX_CLASSES {
            return Err(MixError::Classes {
                classes: shares.len(),
            });
        }
        let turns: usize = shares.iter().map(|(_, weight)| *weight as usize).sum();
        if !(1..=Self::MAX_TURNS).contains(&turns) {
            return Err(MixError::Turns { turns });
        }
        for (place, (class, _)) in mix.classes.iter_mut().zip(shares) {
            *place = *class;
        }
        let weights: Vec<_> = shares.iter().map(|(_, weight)| *weight).collect();
        for (place, turn) in mix.turns.iter_mut().zip(interleaved(&weights)) {
            *place = turn;
        }
        mix.turn_count = turns as u8;
        Ok(mix.with_ports(1))
    }

    /// The same for probes that take turns with so many source ports, at least 1.
    #[must_use]
    pub fn with_ports(mut self, ports: u16) -> Self {
        let (turns, ports) = (u32::from(self.turn_count), u32::from(ports.max(1)));
        self.round = turns / greatest_divisor(turns, ports) * ports;
        self
    }

    /// The classes, by number; at least one.
    #[must_use]
    pub fn classes(&self) -> &[Class] {
        self.classes
            .get(..usize::from(self.count))
            .unwrap_or_default()
    }

    /// The number of the class of the probe with this sequence number.
    ///
    /// Ports take turns, too. Were both to go round side by side, with 4 ports and 2 classes each port would have one class
    /// for ever: so the turns move on by one as soon as the same pairs would come again. In `ports * turns` probes each pair
    /// comes once.
    #[must_use]
    pub fn class_of(&self, seq: u32) -> u8 {
        if self.count == 1 {
            return 0;
        }
        let seq = u64::from(seq);
        let turn = (seq + seq / u64::from(self.round)) % u64::from(self.turn_count);
        self.turns.get(turn as usize).copied().unwrap_or(0)
    }
}

impl Default for Mix {
    /// The smallest probes, as any other traffic.
    fn default() -> Self {
        Self {
            classes: [Class::default(); Self::MAX_CLASSES],
            count: 1,
            turns: [0; Self::MAX_TURNS],
            turn_count: 1,
            round: 1,
        }
    }
}

/// So many turns of each as its weight says, spread evenly: each time whoever is the furthest behind its part.
fn interleaved(weights: &[u32]) -> impl Iterator<Item = u8> {
    let total: u32 = weights.iter().sum();
    let weights: Vec<_> = weights.iter().map(|weight| i64::from(*weight)).collect();
    let mut credit = vec![0_i64; weights.len()];
    (0..total).map(move |_| {
        let mut best = 0;
        for (place, weight) in weights.iter().enumerate() {
            credit[place] += weight;
            if credit[place] > credit[best] {
                best = place;
            }
        }
        credit[best] -= i64::from(total);
        best as u8
    })
}

const fn greatest_divisor(mut one: u32, mut other: u32) -> u32 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn shares<T: Copy>(values: &[(T, u8)]) -> Vec<Share<T>> {
        let share = |(value, weight): &(T, u8)| Share {
            value: *value,
            weight: *weight,
        };
        values.iter().map(share).collect()
    }

    fn mix(sizes: &[(u16, u8)], dscps: &[(u8, u8)]) -> Result<Mix, MixError> {
        Mix::new(&shares(sizes), &shares(dscps))
    }

    fn turns(mix: &Mix, seqs: std::ops::Range<u32>) -> Vec<u8> {
        seqs.map(|seq| mix.class_of(seq)).collect()
    }

    #[test]
    fn each_size_comes_with_each_code_point_as_often_as_both_weigh() {
        let mix = mix(&[(96, 3), (1_472, 1)], &[(0, 1), (46, 2)]).expect("few");
        let classes: Vec<_> = mix
            .classes()
            .iter()
            .map(|class| (class.payload_bytes, class.dscp))
            .collect();
        assert_eq!(classes, [(96, 0), (96, 46), (1_472, 0), (1_472, 46)]);
        let mut counts = [0; 4];
        for class in turns(&mix, 0..12) {
            counts[usize::from(class)] += 1;
        }
        assert_eq!(counts, [3, 6, 1, 2]);
    }

    #[test]
    fn a_rare_class_is_spread_and_not_bunched() {
        let mix = mix(&[(96, 6), (1_472, 2)], &[(0, 1)]).expect("few");
        assert_eq!(turns(&mix, 0..8), [0, 0, 1, 0, 0, 0, 1, 0]);
    }

    #[test]
    fn one_class_is_that_of_all_probes() {
        for mix in [Mix::default(), mix(&[(200, 9)], &[(46, 7)]).expect("one")] {
            assert_eq!(mix.classes().len(), 1);
            assert!(
                turns(&mix.with_ports(4), 0..100)
                    .iter()
                    .all(|class| *class == 0)
            );
        }
    }

    #[test]
    fn what_is_too_much_or_nothing_is_no_mix() {
        let nine: Vec<_> = (0..9).map(|dscp| (dscp, 1)).collect();
        assert_eq!(
            mix(&[(96, 1)], &nine),
            Err(MixError::Classes { classes: 9 })
        );
        assert_eq!(mix(&[], &[(0, 1)]), Err(MixError::Classes { classes: 0 }));
        assert_eq!(
            mix(&[(96, 64), (97, 1)], &[(0, 1)]),
            Err(MixError::Turns { turns: 65 })
        );
        assert_eq!(
            mix(&[(96, 0)], &[(0, 1)]),
            Err(MixError::Turns { turns: 0 })
        );
        assert!(mix(&[(96, 63), (97, 1)], &[(0, 1)]).is_ok());
    }

    proptest! {
        #[test]
        fn each_port_meets_each_turn_once_and_the_shares_are_kept(
            weights in prop::collection::vec(1..9_u8, 1..8),
            ports in 1..40_u16,
            round in 0..50_u32,
        ) {
            let sizes: Vec<_> = (96..).zip(weights.iter().copied()).collect();
            let mix = mix(&sizes, &[(0, 1)]).expect("few").with_ports(ports);
            let total: u32 = weights.iter().map(|weight| u32::from(*weight)).sum();
            let length = total * u32::from(ports);
            let mut met = BTreeMap::<_, u32>::new();
            for seq in round * length..(round + 1) * length {
                *met.entry((seq % u32::from(ports), mix.class_of(seq))).or_default() += 1;
            }
            for port in 0..u32::from(ports) {
                for (class, weight) in (0..).zip(&weights) {
                    let count = met.get(&(port, class)).copied().unwrap_or(0);
                    prop_assert_eq!(count, u32::from(*weight), "port {}, class {}", port, class);
                }
            }
        }
    }
}
