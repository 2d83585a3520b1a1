//! Hashes that every node computes alike, on any machine and in any version.
//!
//! They decide who stands for whom, so another function here means that agents of two versions disagree during an upgrade:
//! nothing breaks, but some pairs are probed twice and others not at all until all are upgraded.

use crate::engine::random::Random;

/// Stands for a name: of a member, of a rack or of a zone.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Key(u64);

impl Key {
    /// Of a member.
    pub fn of_member(name: &str) -> Self {
        Self(MEMBER).with(name)
    }

    /// Of a zone; members without a zone share one.
    pub fn of_zone(zone: Option<&str>) -> Self {
        zone.map_or(Self(NO_ZONE), |name| Self(ZONE).with(name))
    }

    /// Of a rack in that zone; a member without a rack is one of its own.
    pub fn of_rack(zone: Self, rack: Option<&str>, member: Self) -> Self {
        match rack {
            Some(name) => Self(zone.0 ^ RACK).with(name),
            None => Self(member.0 ^ ALONE),
        }
    }

    /// How much this one is for that one: the highest of several is chosen. Not the same in the other direction.
    pub const fn weight_for(self, other: Self) -> u64 {
        Random::new(self.0.wrapping_add(other.0.wrapping_mul(ODD))).bits()
    }

    fn with(self, text: &str) -> Self {
        let mut hash = self.0 ^ text.len() as u64;
        for part in text.as_bytes().chunks(size_of::<u64>()) {
            let mut word = [0; size_of::<u64>()];
            word[..part.len()].copy_from_slice(part);
            hash = Random::new(hash ^ u64::from_le_bytes(word)).bits();
        }
        Self(hash)
    }
}

/// Names of different kinds are different although they read the same.
const MEMBER: u64 = 0x6d65_6d62_6572_0000;
const ZONE: u64 = 0x7a6f_6e65_0000_0000;
const RACK: u64 = 0x7261_636b_0000_0000;
const NO_ZONE: u64 = 0x6e6f_7a6f_6e65_0000;
const ALONE: u64 = 0x616c_6f6e_6500_0000;
/// Multiplies one of two keys, so that their order counts.
const ODD: u64 = 0xd6e8_feb8_6659_fd93;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_what_they_were_when_they_were_released() {
        // Computed by another implementation, in Python.
        let member = Key::of_member("node-00042.example.net");
        let zone = Key::of_zone(Some("eu-1"));
        let rack = Key::of_rack(zone, Some("r7"), member);
        assert_eq!(
            [member.0, zone.0, rack.0, member.weight_for(rack)],
            [
                0x57b2_6fae_ce21_9f92,
                0xdbb8_1473_fe86_6c73,
                0xd85b_ecaa_97de_7759,
                0xe2c3_1b88_b946_4ba0
            ]
        );
    }

    #[test]
    fn a_name_says_what_it_names() {
        let member = Key::of_member("a");
        let (no_zone, zone) = (Key::of_zone(None), Key::of_zone(Some("a")));
        let keys = [
            member,
            no_zone,
            zone,
            Key::of_zone(Some("")),
            Key::of_rack(zone, Some("a"), member),
            Key::of_rack(no_zone, Some("a"), member),
            Key::of_rack(zone, None, member),
            Key::of_rack(zone, None, Key::of_member("b")),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{index}");
        }
        assert_ne!(member.weight_for(zone), zone.weight_for(member));
    }

    #[test]
    fn everybody_is_chosen_equally_often() {
        let members: Vec<_> = (0..40)
            .map(|index| Key::of_member(&format!("n{index}")))
            .collect();
        let mut counts = [0_u32; 40];
        for rack in 0..40_000 {
            let rack = Key::of_zone(Some(&format!("r{rack}")));
            let best = (0..40).max_by_key(|index| members[*index].weight_for(rack));
            counts[best.expect("forty")] += 1;
        }
        // A thousand each; 31 is one standard deviation.
        assert!(
            counts.iter().all(|count| (850..1_150).contains(count)),
            "{counts:?}"
        );
    }
}
