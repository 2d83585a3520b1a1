//! A hierarchical timer wheel (Varghese and Lauck, SOSP 1987): insert, remove and advance in constant time.
//!
//! ```text
//! level 0   64 slots of 1 tick        an entry stands on the level of the highest bit group in which its tick
//! level 1   64 slots of 64 ticks      differs from the wheel's; when the wheel enters its slot, it is sorted
//! ...                                 into the level below, until it expires on level 0
//! ```
//!
//! Entries are small numbers and name their own node, so each slot is a linked list without allocations.

/// Ticks until entries expire, each entry at most once.
#[derive(Debug)]
pub struct Wheel {
    /// All ticks up to this one have been handled.
    elapsed: u64,
    /// By entry.
    nodes: Vec<Node>,
    slots: Vec<List>,
    /// By level: which slots are not empty.
    occupied: [u64; LEVELS],
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    tick: u64,
    previous: u32,
    next: u32,
    /// Index of the list it is in, or [`NOWHERE`].
    list: u32,
}

#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
}

impl Default for Wheel {
    fn default() -> Self {
        Self {
            elapsed: 0,
            nodes: Vec::new(),
            slots: vec![List::EMPTY; LEVELS * SLOTS],
            occupied: [0; LEVELS],
            len: 0,
        }
    }
}

impl Wheel {
    /// An empty wheel.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Entries that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether an entry waits.
    #[must_use]
    pub fn contains(&self, entry: u16) -> bool {
        let node = self.nodes.get(usize::from(entry));
        node.is_some_and(|node| node.list != NOWHERE)
    }

    /// Lets an entry expire at this tick, or at the next one to be handled if it has passed. Must not be waiting.
    pub fn insert(&mut self, entry: u16, tick: u64) {
        let index = usize::from(entry);
        if index >= self.nodes.len() {
            self.nodes.resize(index + 1, Node::IDLE);
        }
        debug_assert!(!self.contains(entry), "entry {entry} waits already");
        self.nodes[index].tick = tick.max(self.elapsed + 1);
        self.link(u32::from(entry));
        self.len += 1;
    }

    /// Takes an entry out, if it waits.
    pub fn remove(&mut self, entry: u16) {
        if self.contains(entry) {
            self.unlink(u32::from(entry));
            self.len -= 1;
        }
    }

    /// Appends all entries whose tick is not after `tick`, in the order of their ticks, and forgets them.
    pub fn advance(&mut self, tick: u64, expired: &mut Vec<u16>) {
        while let Some((list, start)) = self.next_list().filter(|(_, start)| *start <= tick) {
            self.elapsed = start;
            let mut entry = self.take_list(list);
            while entry != NOWHERE {
                let node = self.nodes[entry as usize];
                self.nodes[entry as usize].list = NOWHERE;
                if node.tick <= start {
                    self.len -= 1;
                    // Only `insert` makes nodes, and its entries are u16.
                    expired.push(entry as u16);
                } else {
                    self.link(entry);
                }
                entry = node.next;
            }
        }
        self.elapsed = self.elapsed.max(tick);
    }

    /// The tick at which the next entry expires.
    #[must_use]
    pub fn next_tick(&self) -> Option<u64> {
        let (list, start) = self.next_list()?;
        if list < SLOTS {
            return Some(start);
        }
        // The start of the slot is early; rather look through one list than wake up in vain.
        let mut least = u64::MAX;
        let mut entry = self.slots[list].first;
        while entry != NOWHERE {
            let node = self.nodes[entry as usize];
            least = least.min(node.tick);
            entry = node.next;
        }
        Some(least)
    }

    /// The list that is reached next, and at which tick: the first one of the lowest level that has any.
    fn next_list(&self) -> Option<(usize, u64)> {
        let level = self.occupied.iter().position(|slots| *slots != 0)?;
        let slot_bits = BITS * level as u32;
        let current = (self.elapsed >> slot_bits) as u32 % SLOTS as u32;
        let slot =
            (current + self.occupied[level].rotate_right(current).trailing_zeros()) % SLOTS as u32;
        let turn = self.elapsed >> (slot_bits + BITS) << (slot_bits + BITS);
        let start = turn + (u64::from(slot) << slot_bits);
        // A slot at or behind the current one belongs to the next turn; that happens on the highest level only.
        let start = if start <= self.elapsed {
            start + (1 << (slot_bits + BITS))
        } else {
            start
        };
        Some((level * SLOTS + slot as usize, start))
    }

    /// Appends a node to the list of its tick.
    fn link(&mut self, entry: u32) {
        let tick = self.nodes[entry as usize].tick;
        let level = level_of(self.elapsed, tick);
        let slot = (tick >> (BITS * level as u32)) as usize % SLOTS;
        let list = level * SLOTS + slot;
        let last = std::mem::replace(&mut self.slots[list].last, entry);
        match last {
            NOWHERE => self.slots[list].first = entry,
            last => self.nodes[last as usize].next = entry,
        }
        self.nodes[entry as usize] = Node {
            tick,
            previous: last,
            next: NOWHERE,
            list: list as u32,
        };
        self.occupied[level] |= 1 << slot;
    }

    fn unlink(&mut self, entry: u32) {
        let Node {
            previous,
            next,
            list,
            ..
        } = self.nodes[entry as usize];
        let list = list as usize;
        match previous {
            NOWHERE => self.slots[list].first = next,
            previous => self.nodes[previous as usize].next = next,
        }
        match next {
            NOWHERE => self.slots[list].last = previous,
            next => self.nodes[next as usize].previous = previous,
        }
        self.nodes[entry as usize].list = NOWHERE;
        if self.slots[list].first == NOWHERE {
            self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        }
    }

    /// Empties a list; its first entry.
    fn take_list(&mut self, list: usize) -> u32 {
        self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        std::mem::replace(&mut self.slots[list], List::EMPTY).first
    }
}

impl Node {
    const IDLE: Self = Self {
        tick: 0,
        previous: NOWHERE,
        next: NOWHERE,
        list: NOWHERE,
    };
}

impl List {
    const EMPTY: Self = Self {
        first: NOWHERE,
        last: NOWHERE,
    };
}

/// The level of a tick as seen from another one.
fn level_of(elapsed: u64, tick: u64) -> usize {
    let differing = (elapsed ^ tick).max(1).ilog2();
    ((differing / BITS) as usize).min(LEVELS - 1)
}

/// Bits of a tick that one level stands for.
const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
/// 2^36 ticks: more than two years of milliseconds, and a week of the shortest ticks.
const LEVELS: usize = 6;
/// No node, no list.
const NOWHERE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn drained(wheel: &mut Wheel, tick: u64) -> Vec<u16> {
        let mut expired = Vec::new();
        wheel.advance(tick, &mut expired);
        expired
    }

    #[test]
    fn an_entry_expires_at_its_tick_and_not_before() {
        let mut wheel = Wheel::new();
        wheel.insert(7, 5_000);
        assert_eq!(wheel.next_tick(), Some(5_000));
        assert!(drained(&mut wheel, 4_999).is_empty());
        assert_eq!(
            wheel.next_tick(),
            Some(5_000),
            "sorting into lower levels changes nothing"
        );
        assert_eq!(drained(&mut wheel, 5_000), [7]);
        assert_eq!(wheel.next_tick(), None);
    }

    #[test]
    fn what_has_passed_expires_next() {
        let mut wheel = Wheel::new();
        drained(&mut wheel, 100);
        wheel.insert(1, 3);
        assert_eq!(wheel.next_tick(), Some(101));
    }

    #[test]
    fn entries_of_one_tick_expire_in_the_order_of_insertion() {
        let mut wheel = Wheel::new();
        for entry in [3, 1, 2] {
            wheel.insert(entry, 70);
        }
        wheel.remove(1);
        assert_eq!(drained(&mut wheel, 1_000), [3, 2]);
    }

    #[test]
    fn the_wrap_of_the_highest_level_is_crossed() {
        let mut wheel = Wheel::new();
        let turn = 1 << (BITS * LEVELS as u32);
        drained(&mut wheel, turn - 1);
        wheel.insert(1, turn + 5);
        assert_eq!(wheel.next_tick(), Some(turn + 5));
        assert!(drained(&mut wheel, turn + 4).is_empty());
        assert_eq!(drained(&mut wheel, turn + 5), [1]);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u16, u64),
        Remove(u16),
        Advance(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        let span = prop_oneof![0..200_u64, 0..100_000_u64, 0..100_000_000_u64];
        prop_oneof![
            (0..40_u16, span.clone()).prop_map(|(entry, span)| Op::Insert(entry, span)),
            (0..40_u16).prop_map(Op::Remove),
            span.prop_map(Op::Advance),
        ]
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_sorted_map(start in 0..u64::MAX / 4, ops in prop::collection::vec(op(), 1..200)) {
            let mut wheel = Wheel::new();
            let mut model = BTreeMap::new();
            drained(&mut wheel, start);
            let mut now = start;
            for op in ops {
                match op {
                    Op::Insert(entry, span) => {
                        wheel.remove(entry);
                        wheel.insert(entry, now + span);
                        model.insert(entry, (now + span).max(now + 1));
                    }
                    Op::Remove(entry) => {
                        wheel.remove(entry);
                        model.remove(&entry);
                    }
                    Op::Advance(span) => {
                        now += span;
                        let expired = drained(&mut wheel, now);
                        let ticks: Vec<_> = expired.iter().map(|entry| model.remove(entry)).collect();
                        prop_assert!(ticks.iter().all(|tick| tick.is_some_and(|tick| tick <= now)), "{:?}", ticks);
                        prop_assert!(ticks.is_sorted());
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                prop_assert_eq!(wheel.next_tick(), model.values().min().copied());
                prop_assert!(model.values().all(|tick| *tick > now));
            }
        }
    }
}
