//! Meshes to compute lists for.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Atlas, List, Node, Pinglist, RackName};
use crate::engine::random::Random;

/// A mesh.
#[derive(Clone, Debug)]
pub(super) struct Town {
    members: Vec<Member>,
}

#[derive(Clone, Debug)]
struct Member {
    name: String,
    zone: Option<String>,
    rack: Option<String>,
    stands: bool,
}

/// So many zones of so many racks of so many servers.
pub(super) fn town(zones: u32, racks: u32, servers: u32) -> Town {
    let member = |zone, rack, server| {
        let name = format!("z{zone}-r{rack}-n{server}");
        (name, Some(format!("z{zone}")), Some(format!("r{rack}")))
    };
    let racks = (0..zones).flat_map(|zone| (0..racks).map(move |rack| (zone, rack)));
    Town::new(
        racks.flat_map(|(zone, rack)| (0..servers).map(move |server| member(zone, rack, server))),
    )
}

/// Racks of one to ten servers, up to six in each of up to four zones, some of them without a label; one in eight is down.
pub(super) fn any_town() -> impl Strategy<Value = Town> {
    let zone = prop::collection::vec(1..=10_usize, 1..=6);
    (
        prop::collection::vec(zone, 1..=4),
        0..=8_usize,
        0..=3_usize,
        any::<u64>(),
    )
        .prop_filter("two at least", |(zones, rackless, lost, _)| {
            zones.iter().flatten().sum::<usize>() + rackless + lost >= 2
        })
        .prop_map(|(zones, rackless, lost, seed)| {
            let mut random = Random::new(seed);
            let mut members = Vec::new();
            for (zone, racks) in zones.iter().enumerate() {
                for (rack, servers) in racks.iter().enumerate() {
                    let labels = (Some(format!("z{zone}")), Some(format!("r{rack}")));
                    members.extend((0..*servers).map(|_| labels.clone()));
                }
            }
            members.extend((0..rackless).map(|_| (Some(String::from("z0")), None)));
            members.extend((0..lost).map(|_| (None, None)));
            let named = members.into_iter().map(|(zone, rack)| {
                let name = format!("n{:x}", random.bits());
                (name, zone, rack)
            });
            let mut town = Town::new(named);
            for member in &mut town.members {
                member.stands = random.below(8) > 0;
            }
            town
        })
}

/// Indices of members for indices of others.
pub(super) fn others_of(own: usize, chosen: &[usize]) -> impl Iterator<Item = usize> {
    chosen
        .iter()
        .map(move |index| index + usize::from(*index >= own))
}

impl Town {
    pub fn new(
        members: impl IntoIterator<Item = (String, Option<String>, Option<String>)>,
    ) -> Self {
        let member = |(name, zone, rack)| Member {
            name,
            zone,
            rack,
            stands: true,
        };
        Self {
            members: members.into_iter().map(member).collect(),
        }
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn name(&self, index: usize) -> &str {
        &self.members[index].name
    }

    pub fn position(&self, name: &str) -> usize {
        let mut members = self.members.iter();
        members
            .position(|member| member.name == name)
            .expect("a member")
    }

    pub fn with(&self, name: &str, zone: Option<&str>, rack: Option<&str>) -> Self {
        let mut more = self.clone();
        more.members.push(Member {
            name: name.to_owned(),
            zone: zone.map(str::to_owned),
            rack: rack.map(str::to_owned),
            stands: true,
        });
        more
    }

    pub fn without(&self, index: usize) -> Self {
        let mut less = self.clone();
        less.members.remove(index);
        less
    }

    pub fn fell(&mut self, name: &str) {
        let index = self.position(name);
        self.members[index].stands = false;
    }

    pub fn shuffled(&self, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut members = self.members.clone();
        members.sort_by_cached_key(|_| random.bits());
        Self { members }
    }

    pub fn stands(&self, index: usize) -> bool {
        self.members[index].stands
    }

    pub fn node(&self, index: usize) -> Node<'_> {
        let member = &self.members[index];
        Node {
            name: &member.name,
            zone: member.zone.as_deref(),
            rack: member.rack.as_deref(),
            stands: member.stands,
        }
    }

    pub fn nodes(&self) -> Vec<Node<'_>> {
        (0..self.len()).map(|index| self.node(index)).collect()
    }

    /// All but this one.
    pub fn others(&self, own: usize) -> Vec<Node<'_>> {
        let mut others = self.nodes();
        others.remove(own);
        others
    }

    pub fn list(&self, own: usize, limit: usize) -> List {
        Pinglist::new(limit).handle_members(&self.node(own), &self.others(own))
    }

    pub fn names(&self, own: usize, limit: usize) -> BTreeSet<String> {
        let chosen = self.list(own, limit).chosen;
        others_of(own, &chosen)
            .map(|index| self.name(index).to_owned())
            .collect()
    }

    /// The three graphs of each member, whole and with nothing beside them.
    pub fn graphs(&self) -> Vec<Vec<usize>> {
        let graphs = |own| {
            let atlas = Atlas::of(&self.node(own), &self.others(own));
            let parts = Pinglist::new(0).graphs(&atlas);
            let indices = parts.iter().flatten().map(|one| one.index as usize);
            indices.collect()
        };
        (0..self.len()).map(graphs).collect()
    }

    pub fn rack_of(&self, index: usize) -> RackName {
        let member = &self.members[index];
        let rack = member.rack.clone().ok_or_else(|| member.name.clone());
        (member.zone.clone(), rack)
    }

    pub fn racks(&self) -> BTreeMap<RackName, Vec<usize>> {
        let mut racks: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for index in 0..self.len() {
            racks.entry(self.rack_of(index)).or_default().push(index);
        }
        racks
    }

    pub fn zones(&self) -> BTreeMap<Option<String>, Vec<usize>> {
        let mut zones: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for index in 0..self.len() {
            let zone = self.members[index].zone.clone();
            zones.entry(zone).or_default().push(index);
        }
        zones
    }

    /// By rack and rack, who of those that stand probes whom.
    pub fn pairs_of_racks(
        &self,
        lists: &[Vec<usize>],
    ) -> BTreeMap<(RackName, RackName), Vec<(usize, usize)>> {
        let mut pairs: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (own, list) in lists
            .iter()
            .enumerate()
            .filter(|(own, _)| self.stands(*own))
        {
            for other in others_of(own, list) {
                let racks = (self.rack_of(own), self.rack_of(other));
                pairs.entry(racks).or_default().push((own, other));
            }
        }
        pairs
    }
}
