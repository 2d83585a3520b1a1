//! Whether racks and zones are covered, and how little a list changes, told by counting.

use std::collections::{BTreeMap, BTreeSet};

use super::world::{Place, What};
use crate::engine::mesh::{MemberState, Membership, MeshSettings};
use crate::engine::pinglist::{List, Node, Pinglist, Shape};

/// The members by rack.
pub(super) struct Town<'a> {
    nodes: Vec<Node<'a>>,
    racks: BTreeMap<RackName<'a>, Vec<usize>>,
    /// How many each zone has.
    zones: BTreeMap<&'a str, usize>,
}

/// Zone and rack.
type RackName<'a> = (&'a str, &'a str);

impl<'a> Town<'a> {
    pub fn of(membership: &'a Membership) -> Self {
        let mut town = Self {
            nodes: Vec::new(),
            racks: BTreeMap::new(),
            zones: BTreeMap::new(),
        };
        for (index, member) in membership.members.iter().enumerate() {
            let labels = &member.labels;
            let node = Node {
                name: &member.name,
                zone: labels.zone.as_deref(),
                rack: labels.rack.as_deref(),
                stands: member.state != MemberState::Failed,
            };
            town.nodes.push(node);
            town.racks.entry(rack_of(&node)).or_default().push(index);
            *town.zones.entry(rack_of(&node).0).or_default() += 1;
        }
        town
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn position(&self, name: &str) -> usize {
        let mut nodes = self.nodes.iter();
        nodes
            .position(|node| node.name == name)
            .expect("it is a member")
    }

    /// How many the three graphs want at the most: all mates, one of each other rack of the zone, one of each other zone.
    pub fn most_of_graphs(&self, own: usize) -> usize {
        let rack = rack_of(&self.nodes[own]);
        let racks = self.racks.keys().filter(|other| other.0 == rack.0).count();
        (self.racks[&rack].len() - 1) + (racks - 1) + (self.zones.len() - 1)
    }

    /// The list of one member, as indices of members, in no order.
    pub fn list(&mut self, pinglist: &mut Pinglist, own: usize) -> List {
        // Out of the way for a moment: a list does not depend on the order of the others.
        let last = self.nodes.len() - 1;
        self.nodes.swap(own, last);
        let mut list = pinglist.handle_members(&self.nodes[last], &self.nodes[..last]);
        self.nodes.swap(own, last);
        for other in &mut list.chosen {
            if *other == own {
                *other = last;
            }
        }
        list
    }

    pub fn names(&self, chosen: &[usize]) -> BTreeSet<&'a str> {
        chosen.iter().map(|other| self.nodes[*other].name).collect()
    }

    fn standing(&self, rack: RackName<'_>) -> Vec<usize> {
        let members = self.racks.get(&rack).into_iter().flatten().copied();
        members
            .filter(|member| self.nodes[*member].stands)
            .collect()
    }

    /// That those of a rack who stand do together what the rack owes, with these lists, and nothing besides.
    ///
    /// Owed are: by each all mates; to each other rack of the zone as many pairs as the smaller of both has servers; to each
    /// other zone four, or as many as stand. No one lists two for the same.
    fn assert_covered_from(&self, rack: RackName<'_>, lists: &[(usize, Vec<usize>)]) {
        let mut pairs = BTreeMap::new();
        for (_, chosen) in lists {
            let mut targets: BTreeMap<_, usize> = BTreeMap::new();
            for other in chosen {
                let other = rack_of(&self.nodes[*other]);
                let target = (other.0, (other.0 == rack.0).then_some(other.1));
                *targets.entry(target).or_default() += 1;
            }
            for (target, count) in targets {
                if target == (rack.0, Some(rack.1)) {
                    assert_eq!(count, self.racks[&rack].len() - 1, "all mates");
                } else {
                    assert_eq!(count, 1, "{rack:?} to {target:?}");
                }
                *pairs.entry(target).or_default() += 1;
            }
        }
        assert!(
            pairs == self.owed_by(rack, lists.len()),
            "{rack:?}: {pairs:?}"
        );
    }

    /// To racks of the own zone and to other zones, how many of those who stand are to probe there.
    fn owed_by(
        &self,
        rack: RackName<'a>,
        standing: usize,
    ) -> BTreeMap<(&'a str, Option<&'a str>), usize> {
        let mut owed = BTreeMap::new();
        for (other, members) in self.racks.iter().filter(|(other, _)| other.0 == rack.0) {
            let pairs = if *other == rack {
                // Who is alone has no mates.
                standing * usize::from(members.len() > 1)
            } else {
                standing.min(members.len())
            };
            owed.insert((other.0, Some(other.1)), pairs);
        }
        let racks = owed.len();
        for (zone, members) in self.zones.iter().filter(|(zone, _)| **zone != rack.0) {
            assert!(
                racks <= PER_ZONE * members,
                "else not every rack probes {zone}"
            );
            owed.insert((zone, None), standing.min(PER_ZONE));
        }
        owed.retain(|_, pairs| *pairs > 0);
        owed
    }
}

/// Each server's list of a few racks, followed from change to change.
pub(super) struct Watch {
    racks: Vec<(String, String)>,
    /// By name, those who stand.
    followed: BTreeMap<String, Followed>,
    turn: usize,
}

struct Followed {
    pinglist: Pinglist,
    /// Indices of members in the town of this moment, and their names.
    chosen: Vec<usize>,
    names: BTreeSet<String>,
}

impl Watch {
    pub fn new(racks: &[Place]) -> Self {
        let name = |place: &Place| (format!("zone-{}", place.0), format!("rack-{}", place.1));
        Self {
            racks: racks.iter().map(name).collect(),
            followed: BTreeMap::new(),
            turn: 0,
        }
    }

    /// Takes the town as it is now; how many entries changed in the list of each who stood before and still stands.
    pub fn follow(&mut self, town: &mut Town<'_>) -> BTreeMap<String, usize> {
        let mut before = std::mem::take(&mut self.followed);
        let mut changed = BTreeMap::new();
        for (zone, rack) in &self.racks {
            for own in town.standing((zone, rack)) {
                let name = town.nodes[own].name.to_owned();
                let known = before.remove(&name);
                let (mut pinglist, earlier) = match known {
                    Some(known) => (known.pinglist, Some(known.names)),
                    None => (new_pinglist(), None),
                };
                let list = town.list(&mut pinglist, own);
                self.turn += 1;
                // A prime, so that everybody has a turn.
                if self.turn.is_multiple_of(41) {
                    assert_eq!(list, town.list(&mut new_pinglist(), own), "from scratch");
                }
                assert!(is_whole(&list), "{:?}", list.shape);
                let names = town.names(&list.chosen).into_iter().map(str::to_owned);
                let names: BTreeSet<_> = names.collect();
                let count = earlier.map(|earlier| earlier.symmetric_difference(&names).count());
                changed.extend(count.map(|count| (name.clone(), count)));
                let followed = Followed {
                    pinglist,
                    chosen: list.chosen,
                    names,
                };
                self.followed.insert(name, followed);
            }
        }
        changed
    }

    /// That the racks do what they owe, each way between those that are watched.
    pub fn assert_covered(&self, town: &Town<'_>) {
        for (zone, rack) in &self.racks {
            let standing = town.standing((zone, rack)).into_iter();
            let lists =
                standing.map(|own| (own, self.followed[town.nodes[own].name].chosen.clone()));
            town.assert_covered_from((zone, rack), &lists.collect::<Vec<_>>());
        }
    }

    /// That one host changed at most two entries of a list: itself, and whom it replaced or who replaced it. Only its mates
    /// have more to do: what it did, which is divided among them.
    pub fn assert_little_changed(
        town: &Town<'_>,
        what: What,
        name: &str,
        (zone, rack): Place,
        changed: &BTreeMap<String, usize>,
    ) {
        let (zone, rack) = (format!("zone-{zone}"), format!("rack-{rack}"));
        let (mut mates, mut of_mates) = (0, 0);
        for (one, count) in changed {
            let own = rack_of(&town.nodes[town.position(one)]);
            // Who is down or restarts is probed as before.
            let most = match what {
                What::Joined | What::Left | What::Forgotten => 2,
                What::Failed | What::Returned | What::Restarting | What::Restarted => 0,
            };
            if own == (&zone, &rack) {
                mates += 1;
                of_mates += count;
            } else {
                assert!(*count <= most, "{what:?} {name}: {count} changed for {one}");
            }
        }
        let duties = town.racks.keys().filter(|other| other.0 == zone).count() + town.zones.len();
        let most = match what {
            What::Joined | What::Left | What::Forgotten => mates + duties,
            What::Failed | What::Returned => duties,
            What::Restarting | What::Restarted => 0,
        };
        assert!(
            of_mates <= most,
            "{what:?} {name}: {of_mates} of {mates} mates"
        );
    }
}

/// That a rack does what it owes, by lists made anew.
pub(super) fn assert_covered_anew(town: &mut Town<'_>, (zone, rack): Place) {
    let (zone, rack) = (format!("zone-{zone}"), format!("rack-{rack}"));
    let mut lists = Vec::new();
    for own in town.standing((&zone, &rack)) {
        let list = town.list(&mut new_pinglist(), own);
        assert!(is_whole(&list), "{:?}", list.shape);
        lists.push((own, list.chosen));
    }
    if !lists.is_empty() {
        town.assert_covered_from((&zone, &rack), &lists);
    }
}

/// Whether it is the three graphs, nothing left out and nothing besides.
fn is_whole(list: &List) -> bool {
    matches!(list.shape, Shape::Graphs(graphs) if !graphs.is_cut() && graphs.more == 0)
}

fn new_pinglist() -> Pinglist {
    Pinglist::new(MeshSettings::DEFAULT_PEER_LIMIT)
}

fn rack_of<'a>(node: &Node<'a>) -> RackName<'a> {
    let label = |label: Option<&'a str>| label.expect("every host has both labels");
    (label(node.zone), label(node.rack))
}

/// Servers of a rack that probe another zone, as documented of the pinglist.
const PER_ZONE: usize = 4;
