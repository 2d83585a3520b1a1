//! The latest slots of one pair.

use crate::merge::Figures;

use super::SLOTS;

/// At most one more slot than a span has, in ascending order.
#[derive(Debug, Default)]
pub(super) struct Cell {
    slots: Vec<(u64, Figures)>,
}

impl Cell {
    /// Adds to a slot; false when it is older than all that are kept.
    pub(super) fn add(&mut self, slot: u64, figures: &Figures) -> bool {
        let place = self.slots.partition_point(|(known, _)| *known < slot);
        match self.slots.get_mut(place) {
            Some((known, sum)) if *known == slot => sum.merge(figures),
            _ => {
                self.slots.insert(place, (slot, figures.clone()));
                if self.slots.len() > MAX_SLOTS {
                    self.slots.remove(0);
                    return place > 0;
                }
            }
        }
        true
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Drops slots before `first`; false when none is left.
    pub(super) fn expire(&mut self, first: u64) -> bool {
        self.slots.retain(|(slot, _)| *slot >= first);
        !self.slots.is_empty()
    }

    /// The sum from slot `first` on; `None` when there is nothing.
    pub(super) fn figures(&self, first: u64) -> Option<Figures> {
        let mut live = self.slots.iter().filter(|(slot, _)| *slot >= first);
        let mut sum = live.next()?.1.clone();
        live.for_each(|(_, figures)| sum.merge(figures));
        Some(sum)
    }
}

const MAX_SLOTS: usize = SLOTS as usize + 1;
