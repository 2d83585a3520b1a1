//! The numbers by which a start of the agent names peers on its feed.
//!
//! A slot is given to another peer once all others had their turn; an index never is. So an index is the slot and, above it,
//! how often the slot was left.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::mesh::Slot;

/// Which index each slot has, and which a reader has been told of.
#[derive(Debug, Default)]
pub(super) struct Indices {
    told: BTreeSet<Slot>,
    /// How often each slot was left; those that never were are not in it.
    turns: BTreeMap<Slot, u16>,
}

impl Indices {
    /// The index of whoever has the slot.
    pub(super) fn of(&self, slot: Slot) -> u32 {
        let turn = self.turns.get(&slot).copied().unwrap_or(0);
        u32::from(turn) << u16::BITS | u32::from(slot.0)
    }

    /// Whether a reader has not been told yet who that is; from now on it has.
    pub(super) fn tell(&mut self, slot: Slot) -> bool {
        self.told.insert(slot)
    }

    /// All have to be told again.
    pub(super) fn forget_told(&mut self) {
        self.told.clear();
    }

    /// The last window of whoever had the slot was published.
    pub(super) fn handle_left(&mut self, slot: Slot) {
        self.told.remove(&slot);
        let turn = self.turns.entry(slot).or_default();
        *turn = turn.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_peer_of_a_slot_has_another_index_and_is_told() {
        let (mut indices, slot) = (Indices::default(), Slot(7));
        assert_eq!(indices.of(slot), 7);
        assert!(indices.tell(slot));
        assert!(!indices.tell(slot));
        indices.handle_left(slot);
        assert_eq!(indices.of(slot), 0x1_0007);
        assert!(indices.tell(slot));
        assert_eq!(indices.of(Slot(8)), 8);
    }
}
