//! The agent's own pinglists, timed and compared with the rule of the paper: what `cargo xtask bench pinglist` runs.
//!
//! `pinglist ROUNDS NODES…` writes one line of JSON for each number of nodes. Beside the lists by rendezvous hashing stand
//! those by rank, as in Pingmesh (Guo et al., SIGCOMM 2015): the `i`th server of a rack probes the `i`th of each other.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use dt_agent::adapters::clock;
use dt_agent::engine::pinglist::{Node, Pinglist};
use serde_json::{Value, json};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let rounds = args.next().context("pinglist ROUNDS NODES…")?.parse()?;
    for nodes in args {
        println!("{}", measure(nodes.parse()?, rounds));
    }
    Ok(())
}

/// One mesh: the times of each round, and what one who comes or goes changes in the lists of all that are looked at.
fn measure(nodes: usize, rounds: usize) -> Value {
    let town = Town::of(nodes);
    let limit = nodes / 4;
    let (mut whole_ns, mut join_ns, mut leave_ns) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let own = round * 7919 % town.servers.len();
        let (others, fewer) = (town.others(own, None), town.others(own, Some(round)));
        let mut lists = Pinglist::new(limit);
        whole_ns.push(time(|| lists.handle_members(&town.node(own), &others)));
        leave_ns.push(time(|| lists.handle_members(&town.node(own), &fewer)));
        join_ns.push(time(|| lists.handle_members(&town.node(own), &others)));
    }
    // In steps of a prime, so that all places in a rack occur.
    let looked_at: Vec<_> = (0..LOOKED_AT.min(nodes))
        .map(|index| index * 7919 % nodes)
        .collect();
    let lengths: Vec<_> = looked_at
        .iter()
        .map(|own| town.list(*own, limit, None).len())
        .collect();
    // The first of a rack at the beginning, and one in the middle of the mesh.
    let gone = [0, nodes / 2];
    let changes = |list: &dyn Fn(usize, Option<usize>) -> BTreeSet<usize>| -> Vec<usize> {
        let pairs = gone
            .iter()
            .flat_map(|gone| looked_at.iter().map(move |own| (*own, *gone)));
        pairs
            .filter(|(own, gone)| own != gone)
            .map(|(own, gone)| {
                let (before, after) = (list(own, None), list(own, Some(gone)));
                before.symmetric_difference(&after).count()
            })
            .collect()
    };
    json!({
        "nodes": nodes,
        "racks": town.racks(),
        "zones": town.zones(),
        "limit": limit,
        "whole_ns": whole_ns,
        "join_ns": join_ns,
        "leave_ns": leave_ns,
        "lengths": lengths,
        "changed_by_hash": changes(&|own, gone| town.list(own, limit, gone)),
        "changed_by_rank": changes(&|own, gone| town.by_rank(own, gone)),
    })
}

fn time<T>(work: impl FnOnce() -> T) -> u64 {
    let start = clock::now();
    std::hint::black_box(work());
    clock::now().since(start)
}

/// Zones of 25 racks of 40 servers; what is left over stands in a smaller zone.
struct Town {
    servers: Vec<Server>,
}

struct Server {
    name: String,
    zone: String,
    rack: String,
}

impl Town {
    fn of(nodes: usize) -> Self {
        let server = |index: usize| Server {
            name: format!("server-{index:05}.example.net"),
            zone: format!("zone-{}", index / (RACK * RACKS)),
            rack: format!("rack-{}", index / RACK),
        };
        Self {
            servers: (0..nodes).map(server).collect(),
        }
    }

    fn racks(&self) -> usize {
        self.servers.len().div_ceil(RACK)
    }

    fn zones(&self) -> usize {
        self.servers.len().div_ceil(RACK * RACKS)
    }

    fn node(&self, index: usize) -> Node<'_> {
        let server = &self.servers[index];
        Node {
            name: &server.name,
            zone: Some(&server.zone),
            rack: Some(&server.rack),
            stands: true,
        }
    }

    /// Indices of all but this one, and but one who left.
    fn indices(&self, own: usize, gone: Option<usize>) -> Vec<usize> {
        (0..self.servers.len())
            .filter(|index| *index != own && Some(*index) != gone)
            .collect()
    }

    fn others(&self, own: usize, gone: Option<usize>) -> Vec<Node<'_>> {
        let indices = self.indices(own, gone);
        indices.into_iter().map(|index| self.node(index)).collect()
    }

    fn list(&self, own: usize, limit: usize, gone: Option<usize>) -> BTreeSet<usize> {
        let indices = self.indices(own, gone);
        let list = Pinglist::new(limit).handle_members(&self.node(own), &self.others(own, gone));
        list.chosen
            .into_iter()
            .map(|place| indices[place])
            .collect()
    }

    /// The same three graphs, with who stands for whom told by places among those that are there.
    fn by_rank(&self, own: usize, gone: Option<usize>) -> BTreeSet<usize> {
        let rack_of = |index: usize| index / RACK;
        let zone_of = |index: usize| index / (RACK * RACKS);
        let there = |start: usize, len: usize| {
            let end = (start + len).min(self.servers.len());
            (start..end).filter(move |index| Some(*index) != gone)
        };
        let mates: Vec<_> = there(rack_of(own) * RACK, RACK).collect();
        let rank = mates.iter().position(|mate| *mate == own).unwrap_or(0);
        let mut list: BTreeSet<_> = mates.into_iter().filter(|mate| *mate != own).collect();
        let first_rack = zone_of(own) * RACKS;
        for rack in (first_rack..first_rack + RACKS).filter(|rack| *rack != rack_of(own)) {
            list.extend(there(rack * RACK, RACK).nth(rank));
        }
        for zone in (0..self.zones()).filter(|zone| *zone != zone_of(own) && rank < PER_ZONE) {
            let all: Vec<_> = there(zone * RACK * RACKS, RACK * RACKS).collect();
            let place = (rack_of(own) % RACKS) * PER_ZONE + rank;
            list.extend(all.get(place % all.len().max(1)));
        }
        list
    }
}

const RACK: usize = 40;
const RACKS: usize = 25;
/// Servers of a rack that probe another zone.
const PER_ZONE: usize = 4;
/// How many nodes' lists are looked at, evenly over the mesh.
const LOOKED_AT: usize = 250;
