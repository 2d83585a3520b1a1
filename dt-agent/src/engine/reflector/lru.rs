//! A map of bounded size that forgets what was used longest ago.

use std::collections::HashMap;
use std::hash::Hash;

/// Least recently used goes first. Entries are linked by their places in one vector, which never shrinks.
#[derive(Debug)]
pub(super) struct Lru<K, V> {
    places: HashMap<K, usize>,
    entries: Vec<Entry<K, V>>,
    newest: usize,
    oldest: usize,
    limit: usize,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    newer: usize,
    older: usize,
}

impl<K: Clone + Eq + Hash, V> Lru<K, V> {
    /// An empty map for at most `limit` entries, but at least one.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            places: HashMap::new(),
            entries: Vec::new(),
            newest: NONE,
            oldest: NONE,
            limit: limit.max(1),
        }
    }

    /// The value of `key`, made where there is none, at the cost of the oldest entry where there is no room.
    pub(super) fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let place = match self.places.get(&key) {
            Some(place) => {
                let place = *place;
                self.unlink(place);
                place
            }
            None => self.insert(key, make()),
        };
        self.link_newest(place);
        &mut self.entries[place].value
    }

    /// Puts an entry that is not linked yet.
    fn insert(&mut self, key: K, value: V) -> usize {
        let entry = Entry {
            key: key.clone(),
            value,
            newer: NONE,
            older: NONE,
        };
        let place = if self.entries.len() < self.limit {
            self.entries.push(entry);
            self.entries.len() - 1
        } else {
            let place = self.oldest;
            self.unlink(place);
            self.places.remove(&self.entries[place].key);
            self.entries[place] = entry;
            place
        };
        self.places.insert(key, place);
        place
    }

    fn unlink(&mut self, place: usize) {
        let (newer, older) = (self.entries[place].newer, self.entries[place].older);
        match self.entries.get_mut(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.entries.get_mut(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_newest(&mut self, place: usize) {
        let older = self.newest;
        self.entries[place].newer = NONE;
        self.entries[place].older = older;
        match self.entries.get_mut(older) {
            Some(entry) => entry.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
    }
}

/// No place: beyond any vector.
const NONE: usize = usize::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_used_longest_ago_is_forgotten() {
        let mut lru = Lru::new(2);
        *lru.get_or_insert_with('a', || 0) += 1;
        *lru.get_or_insert_with('b', || 0) += 1;
        *lru.get_or_insert_with('a', || 0) += 1;
        *lru.get_or_insert_with('c', || 0) += 1;
        assert_eq!(*lru.get_or_insert_with('a', || 0), 2);
        assert_eq!(*lru.get_or_insert_with('b', || 0), 0);
    }

    proptest! {
        #[test]
        fn it_does_what_a_simple_list_does(limit in 1..8_usize, keys in prop::collection::vec(0..12_u8, 0..200)) {
            let mut lru = Lru::new(limit);
            let mut model: Vec<(u8, u32)> = Vec::new();
            for key in keys {
                let held = model.iter().position(|(held, _)| *held == key).map(|place| model.remove(place));
                let count = held.map_or(1, |(_, count)| count + 1);
                model.push((key, count));
                if model.len() > limit {
                    model.remove(0);
                }
                let value = lru.get_or_insert_with(key, || 0);
                *value += 1;
                prop_assert_eq!(*value, count);
                prop_assert!(lru.entries.len() <= limit && lru.places.len() <= limit);
            }
        }
    }
}
