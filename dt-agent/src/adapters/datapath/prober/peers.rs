//! The peers of the probing thread, by slot.

use super::Entry;

/// At most one entry a slot, found by its number; each in a place of its own, so that a few thousand need no table for the
/// next power of two.
#[derive(Debug, Default)]
pub(super) struct Peers {
    entries: Vec<Option<Box<Entry>>>,
    len: usize,
}

impl Peers {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get_mut(&mut self, slot: u16) -> Option<&mut Entry> {
        self.entries.get_mut(usize::from(slot))?.as_deref_mut()
    }

    /// The entry that was there before.
    pub(super) fn insert(&mut self, slot: u16, entry: Entry) -> Option<Box<Entry>> {
        let index = usize::from(slot);
        if index >= self.entries.len() {
            self.entries.resize_with(index + 1, || None);
        }
        let before = self.entries[index].replace(Box::new(entry));
        self.len += usize::from(before.is_none());
        before
    }

    pub(super) fn remove(&mut self, slot: u16) -> Option<Box<Entry>> {
        let entry = self.entries.get_mut(usize::from(slot))?.take();
        self.len -= usize::from(entry.is_some());
        entry
    }

    /// All, in the order of their slots.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u16, &mut Entry)> {
        let entries = (0..).zip(&mut self.entries);
        entries.filter_map(|(slot, entry)| Some((slot, entry.as_deref_mut()?)))
    }

    /// The slots in use, from the highest down.
    pub(super) fn slots(&self) -> impl Iterator<Item = u16> {
        let entries = self.entries.iter().enumerate().rev();
        entries.filter_map(|(slot, entry)| entry.as_ref().map(|_| slot as u16))
    }
}
