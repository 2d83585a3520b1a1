//! Whom a node probes in a mesh that is too large for everybody to probe everybody.
//!
//! Up to the peer limit that is all others. Beyond it: the three complete graphs of Pingmesh (Guo et al., SIGCOMM 2015), of
//! the nodes in a rack, of the racks in a zone, and of the zones. Each node computes its own list, so who stands for a rack
//! must come out alike everywhere: it is who has the highest of hashes that all can compute (rendezvous hashing). By rank,
//! as in the paper, one who leaves shifts everybody behind.
//!
//! ```text
//! own rack     all mates
//! own zone     one server of each other rack, if fewer mates are ahead for that rack than it has servers
//! other zones  one server of each, if fewer than 4 mates are ahead for that zone, and fewer racks than 4 for each server of it
//! ```
//!
//! So between two racks there are as many pairs each way as the smaller one has servers, and a small rack is not
//! overrun. The one hard fact: a list depends on who is there and not on the order, nor on what was before.

mod atlas;
mod key;
mod ranking;

use std::cmp::Reverse;
use std::fmt;

use atlas::{Atlas, Entry};
use ranking::Ranking;

/// The lists of one node, one after another.
#[derive(Debug)]
pub struct Pinglist {
    limit: usize,
    mates_for_racks: Ranking,
    mates_for_zones: Ranking,
    racks_for_zones: Ranking,
}

/// A member, as far as it matters here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Node<'a> {
    /// Its name, unique in the mesh.
    pub name: &'a str,
    /// Its zone; those without one share one.
    pub zone: Option<&'a str>,
    /// Its rack, a name within its zone; a node without one is a rack of its own.
    pub rack: Option<&'a str>,
    /// Whether it can probe for its rack: false for a node that is down, which is probed all the same.
    pub stands: bool,
}

/// Whom to probe.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct List {
    /// Which of the others, ascending.
    pub chosen: Vec<usize>,
    /// How they were chosen.
    pub shape: Shape,
}

/// How the peers of a node were chosen.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Shape {
    /// All others.
    #[default]
    Full,
    /// There are more others than the peer limit.
    Graphs(Graphs),
}

/// The parts of a list beyond the peer limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Graphs {
    /// The others, peers or not.
    pub others: usize,
    /// Those of the own rack.
    pub mates: Part,
    /// For other racks of the own zone.
    pub racks: Part,
    /// For other zones.
    pub zones: Part,
    /// Others beside the three graphs, while the mesh is not larger than twice the peer limit.
    pub more: usize,
}

/// One graph's part of a list.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Part {
    /// How many it wants.
    pub wanted: usize,
    /// For how many there was room below the peer limit.
    pub listed: usize,
}

impl Graphs {
    /// Whether the peer limit left something out that a graph wants.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        [self.mates, self.racks, self.zones]
            .iter()
            .any(|part| part.listed < part.wanted)
    }
}

impl fmt::Display for Graphs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            mates,
            racks,
            zones,
            more,
            ..
        } = self;
        write!(
            f,
            "{mates} of the own rack, {racks} of other racks, {zones} of other zones, {more} more"
        )
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wanted, listed } = self;
        if listed < wanted {
            write!(f, "{listed} instead of {wanted}")
        } else {
            write!(f, "{listed}")
        }
    }
}

impl Pinglist {
    /// No list yet; none of them will be longer than `limit`.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            mates_for_racks: Ranking::default(),
            mates_for_zones: Ranking::default(),
            racks_for_zones: Ranking::default(),
        }
    }

    /// The list of `own` among these others. The same others again, in whatever order, are the same list.
    pub fn handle_members(&mut self, own: &Node<'_>, others: &[Node<'_>]) -> List {
        if others.len() <= self.limit {
            return List {
                chosen: (0..others.len()).collect(),
                shape: Shape::Full,
            };
        }
        let atlas = Atlas::of(own, others);
        let parts = self.graphs(&atlas);
        let wanted = parts.each_ref().map(Vec::len);
        let rooms = shares(self.limit, wanted);
        let mut picks = Picks::new(others.len());
        for (part, room) in parts.into_iter().zip(rooms) {
            picks.take(part, room);
        }
        let graphs = picks.count;
        picks.take(
            rest(&atlas, &picks),
            self.floor(others.len()).saturating_sub(graphs),
        );
        let part = |index: usize| Part {
            wanted: wanted[index],
            listed: rooms[index],
        };
        let shape = Shape::Graphs(Graphs {
            others: others.len(),
            mates: part(0),
            racks: part(1),
            zones: part(2),
            more: picks.count - graphs,
        });
        List {
            chosen: picks.chosen(),
            shape,
        }
    }

    /// Whom the graphs want, whatever the limit: in the rack, between racks, between zones.
    fn graphs(&mut self, atlas: &Atlas) -> [Vec<Candidate>; 3] {
        [mates(atlas), self.racks(atlas), self.zones(atlas)]
    }

    /// How long a list is at least. If all lists shrank to the graphs when one more joins at the peer limit, one node that
    /// comes and goes would make a mesh of thousands begin anew each time; so each one more makes them one shorter.
    fn floor(&self, others: usize) -> usize {
        (2 * self.limit).saturating_sub(others)
    }

    fn racks(&mut self, atlas: &Atlas) -> Vec<Candidate> {
        let rivals = standing(atlas.mates()).map(|mate| mate.place.member);
        let targets = atlas.racks().map(|rack| rack[0].place.rack);
        let ranks =
            self.mates_for_racks
                .ranks(atlas.own.member, rivals.collect(), targets.collect());
        let duties = atlas
            .racks()
            .zip(ranks)
            .filter(|(rack, (_, rank))| (*rank as usize) < rack.len());
        duties
            .filter_map(|(rack, (_, rank))| Candidate::heaviest(rack, *rank))
            .collect()
    }

    fn zones(&mut self, atlas: &Atlas) -> Vec<Candidate> {
        let targets: Vec<_> = atlas.zones().map(|zone| zone[0].place.zone).collect();
        let rivals = standing(atlas.mates()).map(|mate| mate.place.member);
        let among_mates =
            self.mates_for_zones
                .ranks(atlas.own.member, rivals.collect(), targets.clone());
        let racks = atlas.racks().filter(|rack| standing(rack).next().is_some());
        let racks: Vec<_> = racks.map(|rack| rack[0].place.rack).collect();
        let among_racks = self.racks_for_zones.ranks(atlas.own.rack, racks, targets);
        let mut candidates = Vec::new();
        for ((zone, (_, mates)), (_, racks)) in atlas.zones().zip(among_mates).zip(among_racks) {
            if *mates < PER_ZONE && (*racks as usize) < PER_ZONE as usize * zone.len() {
                candidates.extend(Candidate::heaviest(zone, mates + racks));
            }
        }
        candidates
    }
}

/// One who may be listed.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// How many others stand for the same rack or zone before this node.
    rank: u32,
    weight: u64,
    index: u32,
}

impl Candidate {
    fn of(entry: &Entry, rank: u32) -> Self {
        Self {
            rank,
            weight: entry.weight,
            index: entry.index,
        }
    }

    /// Whom of these to probe.
    fn heaviest(entries: &[Entry], rank: u32) -> Option<Self> {
        let entry = entries.iter().max_by_key(|entry| entry.weight)?;
        Some(Self::of(entry, rank))
    }
}

/// Who is listed.
struct Picks {
    is_listed: Vec<bool>,
    count: usize,
}

impl Picks {
    fn new(others: usize) -> Self {
        Self {
            is_listed: vec![false; others],
            count: 0,
        }
    }

    /// Lists the first of these: where nobody else stands before this node, then the heaviest.
    fn take(&mut self, mut candidates: Vec<Candidate>, room: usize) {
        if room == 0 {
            return;
        }
        if room < candidates.len() {
            candidates.select_nth_unstable_by_key(room, |one| (one.rank, Reverse(one.weight)));
            candidates.truncate(room);
        }
        self.count += candidates.len();
        for candidate in candidates {
            self.is_listed[candidate.index as usize] = true;
        }
    }

    fn chosen(&self) -> Vec<usize> {
        (0..self.is_listed.len())
            .filter(|index| self.is_listed[*index])
            .collect()
    }
}

fn mates(atlas: &Atlas) -> Vec<Candidate> {
    atlas
        .mates()
        .iter()
        .map(|mate| Candidate::of(mate, 0))
        .collect()
}

/// Those that no graph listed.
fn rest(atlas: &Atlas, picks: &Picks) -> Vec<Candidate> {
    let unlisted = |entry: &&Entry| !picks.is_listed[entry.index as usize];
    atlas
        .all()
        .iter()
        .filter(unlisted)
        .map(|entry| Candidate::of(entry, 0))
        .collect()
}

fn standing(entries: &[Entry]) -> impl Iterator<Item = &Entry> {
    entries.iter().filter(|entry| entry.stands)
}

/// What each gets when it does not suffice for all: a third, and of what one does not want the others get the more.
fn shares(room: usize, wanted: [usize; 3]) -> [usize; 3] {
    let mut by_want = [0, 1, 2];
    by_want.sort_by_key(|part| wanted[*part]);
    let (mut shares, mut left) = ([0; 3], room);
    for (done, part) in by_want.into_iter().enumerate() {
        shares[part] = wanted[part].min(left / (wanted.len() - done));
        left -= shares[part];
    }
    shares
}

/// Servers of a rack that probe a zone, so that one which is slow or down does not make a zone look so.
const PER_ZONE: u32 = 4;

#[cfg(test)]
mod tests;
