//! The members by zone and rack, seen from one of them.

use std::ops::Range;

use super::Node;
use super::key::Key;

/// All others, in an order that does not depend on how they came.
#[derive(Debug)]
pub(super) struct Atlas {
    /// By zone, rack and key.
    entries: Vec<Entry>,
    own_zone: Range<usize>,
    own_rack: Range<usize>,
    /// Where this node stands.
    pub own: Place,
}

/// Where a member stands.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Place {
    pub zone: Key,
    pub rack: Key,
    pub member: Key,
}

/// Another member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub place: Place,
    /// What it is for this node; the highest is chosen.
    pub weight: u64,
    /// Which of the others it is, as they came.
    pub index: u32,
    pub stands: bool,
}

impl Place {
    fn of(node: &Node<'_>) -> Self {
        let member = Key::of_member(node.name);
        let zone = Key::of_zone(node.zone);
        Self {
            zone,
            rack: Key::of_rack(zone, node.rack, member),
            member,
        }
    }
}

impl Atlas {
    pub fn of(own: &Node<'_>, others: &[Node<'_>]) -> Self {
        let own = Place::of(own);
        let mut entries = Vec::with_capacity(others.len());
        for (index, node) in others.iter().enumerate() {
            let place = Place::of(node);
            entries.push(Entry {
                place,
                weight: own.member.weight_for(place.member),
                index: index as u32,
                stands: node.stands,
            });
        }
        // Keys of two names that are one, should that ever happen, must not let the order decide.
        let name = |entry: &Entry| others[entry.index as usize].name;
        entries.sort_unstable_by(|one, other| {
            (one.place.cmp(&other.place)).then_with(|| name(one).cmp(name(other)))
        });
        let own_zone = range(&entries, |place| place.zone.cmp(&own.zone));
        let own_rack = range(&entries, |place| {
            (place.zone, place.rack).cmp(&(own.zone, own.rack))
        });
        Self {
            entries,
            own_zone,
            own_rack,
            own,
        }
    }

    /// Everybody else.
    pub fn all(&self) -> &[Entry] {
        &self.entries
    }

    /// Those of the own rack.
    pub fn mates(&self) -> &[Entry] {
        &self.entries[self.own_rack.clone()]
    }

    /// The other racks of the own zone, by key.
    pub fn racks(&self) -> impl Iterator<Item = &[Entry]> {
        let own = self.own.rack;
        self.entries[self.own_zone.clone()]
            .chunk_by(|one, next| one.place.rack == next.place.rack)
            .filter(move |rack| rack[0].place.rack != own)
    }

    /// The other zones, by key.
    pub fn zones(&self) -> impl Iterator<Item = &[Entry]> {
        let own = self.own.zone;
        self.entries
            .chunk_by(|one, next| one.place.zone == next.place.zone)
            .filter(move |zone| zone[0].place.zone != own)
    }
}

/// Where those are that compare as equal.
fn range(entries: &[Entry], compare: impl Fn(&Place) -> std::cmp::Ordering) -> Range<usize> {
    let start = entries.partition_point(|entry| compare(&entry.place).is_lt());
    let count = entries[start..].partition_point(|entry| compare(&entry.place).is_le());
    start..start + count
}
