//! What one who leaves changes in the lists of all others, by rendezvous hashing and by rank.
//!
//! By rank is the rule of Pingmesh (Guo et al., SIGCOMM 2015): the `i`th server of a rack probes the `i`th of each other. A
//! list depends on nothing but who is there, so one who joins changes what the same one changes by leaving.

use std::collections::BTreeSet;
use std::ops::Range;
use std::thread;

use anyhow::{Context, Result};
use dt_agent::engine::pinglist::{Pinglist, Shape};
use serde::Serialize;

use super::town::{RACK, RACKS, Town};

/// Counted over the lists of all nodes.
#[derive(Serialize)]
pub struct Changes {
    /// Peers of each node.
    lengths: Vec<usize>,
    departures: Vec<Departure>,
}

/// One leaves.
#[derive(Serialize)]
struct Departure {
    /// Which one it was of its rack.
    place: usize,
    by_hash: Changed,
    by_rank: Changed,
}

/// Entries that came or went.
#[derive(Clone, Copy, Default, Serialize)]
struct Changed {
    /// In all lists together.
    all: usize,
    /// In the list that changed most.
    most: usize,
    /// In the list that changed most of those who are not of its rack.
    most_elsewhere: usize,
}

impl Changes {
    /// Of one after another of these places in a rack, each time of another rack, evenly over the mesh.
    pub fn count(town: &Town, limit: usize) -> Result<Self> {
        let racks = town.len() / RACK;
        let gone: Vec<_> = (PLACES.iter().enumerate())
            .map(|(turn, place)| turn * racks / PLACES.len() * RACK + place)
            .collect();
        let counted = counted(town, limit, &gone)?;
        let departures = gone.iter().enumerate().map(|(turn, gone)| {
            let mut departure = Departure {
                place: gone % RACK,
                by_hash: Changed::default(),
                by_rank: Changed::default(),
            };
            let others = counted.iter().enumerate().filter(|(own, _)| own != gone);
            for (own, one) in others {
                let is_mate = own / RACK == gone / RACK;
                let [by_hash, by_rank] = one.changed[turn];
                departure.by_hash.add(by_hash, is_mate);
                departure.by_rank.add(by_rank, is_mate);
            }
            departure
        });
        Ok(Self {
            departures: departures.collect(),
            lengths: counted.iter().map(|one| one.length).collect(),
        })
    }
}

impl Changed {
    fn add(&mut self, count: usize, is_mate: bool) {
        self.all += count;
        self.most = self.most.max(count);
        if !is_mate {
            self.most_elsewhere = self.most_elsewhere.max(count);
        }
    }
}

/// What was counted for one node.
struct One {
    length: usize,
    /// For each who leaves, by hash and by rank.
    changed: Vec<[usize; 2]>,
}

/// For all nodes, in their order.
fn counted(town: &Town, limit: usize, gone: &[usize]) -> Result<Vec<One>> {
    let threads = thread::available_parallelism().map_or(1, Into::into);
    let part = town.len().div_ceil(threads);
    let parts = (0..town.len()).step_by(part);
    let of_part = |owns: Range<usize>| -> Result<Vec<One>> {
        owns.map(|own| one(town, limit, own, gone)).collect()
    };
    thread::scope(|scope| {
        let spawned: Vec<_> = parts
            .map(|start| scope.spawn(move || of_part(start..(start + part).min(town.len()))))
            .collect();
        let mut all = Vec::new();
        for thread in spawned {
            let part = thread
                .join()
                .ok()
                .context("a thread that counts panicked")?;
            all.extend(part?);
        }
        Ok(all)
    })
}

fn one(town: &Town, limit: usize, own: usize, gone: &[usize]) -> Result<One> {
    let mut lists = Pinglist::new(limit);
    let mut by_hash = |gone| -> Result<BTreeSet<usize>> {
        let list = lists.handle_members(&town.node(own), &town.others(own, gone));
        let graphs = match list.shape {
            Shape::Graphs(graphs) => Some(graphs),
            Shape::Full => None,
        };
        graphs
            .filter(|graphs| !graphs.is_cut() && graphs.more == 0)
            .context("a list is not the three graphs and nothing else")?;
        let indices = town.indices(own, gone);
        Ok(list
            .chosen
            .into_iter()
            .map(|place| indices[place])
            .collect())
    };
    let before = [by_hash(None)?, by_rank(town, own, None)];
    let mut changed = Vec::new();
    for gone in gone {
        let after = [by_hash(Some(*gone))?, by_rank(town, own, Some(*gone))];
        changed.push([0, 1].map(|rule| {
            let before: &BTreeSet<usize> = &before[rule];
            before.symmetric_difference(&after[rule]).count()
        }));
    }
    Ok(One {
        length: before[0].len(),
        changed,
    })
}

/// The same three graphs, with who stands for whom told by places among those that are there.
fn by_rank(town: &Town, own: usize, gone: Option<usize>) -> BTreeSet<usize> {
    let rack_of = |index: usize| index / RACK;
    let zone_of = |index: usize| index / (RACK * RACKS);
    let there = |start: usize, len: usize| {
        let end = (start + len).min(town.len());
        (start..end).filter(move |index| Some(*index) != gone)
    };
    let mates: Vec<_> = there(rack_of(own) * RACK, RACK).collect();
    let rank = mates.iter().position(|mate| *mate == own).unwrap_or(0);
    let mut list: BTreeSet<_> = mates.into_iter().filter(|mate| *mate != own).collect();
    let first_rack = zone_of(own) * RACKS;
    for rack in (first_rack..first_rack + RACKS).filter(|rack| *rack != rack_of(own)) {
        list.extend(there(rack * RACK, RACK).nth(rank));
    }
    for zone in (0..town.zones()).filter(|zone| *zone != zone_of(own) && rank < PER_ZONE) {
        let all: Vec<_> = there(zone * RACK * RACKS, RACK * RACKS).collect();
        let place = (rack_of(own) % RACKS) * PER_ZONE + rank;
        list.extend(all.get(place % all.len().max(1)));
    }
    list
}

/// The first, the last, and between them: by rank it matters.
const PLACES: [usize; 5] = [0, 10, 20, 30, RACK - 1];
/// Servers of a rack that probe another zone.
const PER_ZONE: usize = 4;
