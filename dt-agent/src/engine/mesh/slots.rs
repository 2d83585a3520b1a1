//! Small numbers that are given away and come back, each given away again as late as possible.

use std::collections::VecDeque;

/// The numbers of a range that are free.
#[derive(Debug)]
pub(super) struct Slots {
    /// The least number that was never given away; none when all were.
    fresh: Option<u16>,
    last: u16,
    /// Those that came back, in the order of their return.
    returned: VecDeque<u16>,
}

impl Slots {
    /// All numbers from `first` to `last`.
    pub fn new(first: u16, last: u16) -> Self {
        Self {
            fresh: Some(first),
            last,
            returned: VecDeque::new(),
        }
    }

    /// A number that was never given away, else the one that came back longest ago.
    pub fn take(&mut self) -> Option<u16> {
        let Some(fresh) = self.fresh else {
            return self.returned.pop_front();
        };
        self.fresh = fresh.checked_add(1).filter(|next| *next <= self.last);
        Some(fresh)
    }

    /// Takes a number back.
    pub fn give_back(&mut self, number: u16) {
        self.returned.push_back(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_comes_round_only_after_all_others() {
        let mut slots = Slots::new(1, 3);
        assert_eq!(slots.take(), Some(1));
        slots.give_back(1);
        assert_eq!(slots.take(), Some(2));
        slots.give_back(2);
        let rest: Vec<_> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!(rest, [3, 1, 2]);
    }

    #[test]
    fn the_end_of_the_type_is_no_obstacle() {
        let mut slots = Slots::new(u16::MAX, u16::MAX);
        assert_eq!(slots.take(), Some(u16::MAX));
        assert_eq!(slots.take(), None);
    }
}
