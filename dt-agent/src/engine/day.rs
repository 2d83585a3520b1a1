//! A day of ten thousand hosts, simulated: from their sessions to registry, peers and schedule, with books kept beside it.
//!
//! Ten zones of 25 racks of 40. One by one hosts join, leave, restart, fail and come back or are forgotten after ten minutes;
//! a zone goes dark for four minutes and another one for half an hour, a rack fails, a thousand hosts join at once, half a
//! rack leaves. All is drawn from a seed, so that a failure can be repeated.

mod agent;
mod coverage;
mod world;

use std::collections::BTreeMap;

use dt_common::time::{MonoNanos, NANOS_PER_SEC};

use agent::Agent;
use coverage::{Town, Watch};
use world::{Place, What, World};

use super::mesh::MeshSettings;

#[test]
fn agents_follow_a_day_of_ten_thousand_hosts_within_their_limits() {
    let mut world = World::new(SEED);
    // Two of the zone where most happens, the first in a rack that is lost but for it; one whose limit cuts its list; one whose limit lets it probe more.
    let usual = MeshSettings::DEFAULT_PEER_LIMIT;
    let mut agents: Vec<_> = [
        ((0, 1), 3, usual, 0.05),
        ((0, 2), 17, usual, 0.05),
        ((6, 24), 0, 40, 0.05),
        ((3, 3), 30, 5_500, 0.002),
    ]
    .map(|(place, server, limit, rate)| {
        Agent::new(world.spare(place, server), limit, rate, world.now)
    })
    .into();
    let start = world.membership();
    let mut town = Town::of(&start);
    for agent in &mut agents {
        agent.handle_membership(&start, &town, world.now);
        agent.audit(&mut town);
    }
    let mut turn = 0;
    while let Some(happening) = world.next() {
        let membership = world.membership();
        let mut town = Town::of(&membership);
        let is_large = happening.hosts.len() > 1;
        for agent in &mut agents {
            if is_large {
                agent.stall_until(world.now);
            } else {
                agent.run_until(world.now);
            }
            let changed = agent.handle_membership(&membership, &town, world.now);
            agent.assert_little_changed(&happening, changed);
        }
        // Everybody after what befalls many, and one after another else: an audit makes the whole list once more.
        for (index, agent) in agents.iter().enumerate() {
            if is_large || index == turn % agents.len() {
                agent.audit(&mut town);
            }
        }
        turn += 1;
    }
    let end = world.membership();
    let mut town = Town::of(&end);
    for agent in &mut agents {
        agent.run_until(START.plus(DAY));
        agent.audit(&mut town);
        agent.assert_no_rate_lifts_the_bounds();
        agent.close();
    }
}

#[test]
fn what_befalls_hosts_leaves_all_racks_and_zones_covered_and_most_lists_alone() {
    let mut world = World::new(SEED);
    let mut watch = Watch::new(&WATCHED);
    watch.follow(&mut Town::of(&world.membership()));
    let mut happened = BTreeMap::new();
    while let Some(happening) = world.next() {
        let membership = world.membership();
        let mut town = Town::of(&membership);
        let changed = watch.follow(&mut town);
        watch.assert_covered(&town);
        if happening.hosts.len() > 500 {
            // Also one that is large: small ones are probed by few of its servers.
            coverage::assert_covered_anew(&mut town, world.any_rack());
        }
        if let [(name, place)] = &happening.hosts[..] {
            Watch::assert_little_changed(&town, happening.what, name, *place, &changed);
        }
        let count: &mut [u32; 2] = happened.entry(happening.what).or_default();
        count[usize::from(happening.hosts.len() > 1)] += 1;
    }
    // A day on which nothing happens proves nothing.
    for what in [
        What::Joined,
        What::Left,
        What::Failed,
        What::Returned,
        What::Restarting,
        What::Restarted,
        What::Forgotten,
    ] {
        let [single, many] = happened.get(&what).copied().unwrap_or_default();
        assert!(single >= 2, "{what:?}: {happened:?}");
        let one_by_one = matches!(what, What::Restarting | What::Restarted);
        assert!(many >= 1 || one_by_one, "{what:?}: {happened:?}");
    }
}

const SEED: u64 = 20_261_126;
/// Racks of which each server's list is followed: two of one zone, one of another.
const WATCHED: [Place; 3] = [(0, 0), (0, 1), (6, 0)];
/// Hosts are up for a while before an agent starts.
const START: MonoNanos = MonoNanos(12_345 * SECOND + 678);
const SECOND: u64 = NANOS_PER_SEC;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
