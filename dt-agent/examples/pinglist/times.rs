//! How long one node takes, in nanoseconds.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;

use dt_agent::adapters::clock;
use dt_agent::engine::mesh::{Family, Labels, Mesh, MeshSettings};
use dt_agent::engine::pinglist::Pinglist;
use dt_agent::engine::registry::{
    Announced, Identity, Record, Registry, RegistrySettings, Sighting,
};
use serde::Serialize;

use super::town::{RACK, Town};

/// Of each round, which is another node each time.
#[derive(Default, Serialize)]
#[expect(clippy::struct_field_names, reason = "the unit stands in the name")]
pub struct Times {
    /// A list from nothing.
    whole_ns: Vec<u64>,
    /// The list once more after one left, and after it is back.
    leave_ns: Vec<u64>,
    join_ns: Vec<u64>,
    /// From what the service's node says to members, whom to probe and answer, and what that changes.
    agent_leave_ns: Vec<u64>,
    agent_join_ns: Vec<u64>,
}

impl Times {
    pub fn measure(town: &Town, limit: usize, rounds: usize) -> Self {
        let mut times = Self::default();
        let mut registry = listed(town);
        for round in 0..rounds {
            let own = round * PRIME % town.len();
            // In turn a mate and somebody somewhere else.
            let gone = if round.is_multiple_of(2) {
                (own ^ 1) % town.len()
            } else {
                (own + town.len() / 2) % town.len()
            };
            times.lists(town, limit, own, gone);
            times.agent(town, limit, &mut registry, own, gone);
        }
        times
    }

    fn lists(&mut self, town: &Town, limit: usize, own: usize, gone: usize) {
        let (others, fewer) = (town.others(own, None), town.others(own, Some(gone)));
        let node = town.node(own);
        let mut lists = Pinglist::new(limit);
        let mut time = |others| time(|| lists.handle_members(&node, others));
        self.whole_ns.push(time(&others));
        self.leave_ns.push(time(&fewer));
        self.join_ns.push(time(&others));
    }

    fn agent(
        &mut self,
        town: &Town,
        limit: usize,
        registry: &mut Registry,
        own: usize,
        gone: usize,
    ) {
        let mut mesh = Mesh::new(MeshSettings {
            name: town.servers()[own].name.clone(),
            family: Family::Auto,
            peer_limit: limit,
        });
        mesh.handle_membership(&registry.membership());
        let mut agent = |announced| {
            let sighting = sighting(town, gone, announced);
            time(|| {
                registry.handle_changes([sighting], [], clock::now());
                mesh.handle_membership(&registry.membership())
            })
        };
        self.agent_leave_ns.push(agent(Announced::Left));
        self.agent_join_ns.push(agent(Announced::Alive));
    }
}

/// A registry that knows the whole town.
fn listed(town: &Town) -> Registry {
    let mut registry = Registry::new(RegistrySettings {
        name: town.servers()[0].name.clone(),
        identity: identity(0),
        grace_ns: u64::MAX,
        keep_failed_ns: RegistrySettings::KEEP_FAILED_NS,
    });
    let listing = (0..town.len()).map(|index| sighting(town, index, Announced::Alive));
    registry.handle_listing(listing, false, clock::now());
    let members = registry.membership().members;
    let names: BTreeSet<_> = members.iter().map(|member| &member.name).collect();
    assert_eq!(names.len(), town.len(), "all are members");
    registry
}

fn sighting(town: &Town, index: usize, announced: Announced) -> Sighting {
    let server = &town.servers()[index];
    let [_, high, middle, low] = (index as u32).to_be_bytes();
    Sighting {
        path: server.name.clone(),
        created: index as i64,
        record: Ok(Record {
            name: server.name.as_str().into(),
            identity: identity(index),
            addresses: [[10, high, middle, low].into()].into(),
            port: 862,
            labels: Arc::new(Labels {
                zone: Some(server.zone.clone()),
                rack: Some(server.rack.clone()),
                ..Labels::default()
            }),
            announced,
            handover_ns: 0,
        }),
    }
}

fn identity(index: usize) -> Identity {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&index.to_be_bytes());
    Identity(bytes)
}

fn time<T>(work: impl FnOnce() -> T) -> u64 {
    let start = clock::now();
    let made = work();
    let end = clock::now();
    // What it takes to give the memory back is not asked for.
    black_box(made);
    end.since(start)
}

/// Steps of it come to all places in a rack.
const PRIME: usize = 7_919;
const _: () = assert!(
    RACK.is_multiple_of(2),
    "else a neighbour may be of another rack"
);
