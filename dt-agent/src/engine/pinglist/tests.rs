//! What the lists of all nodes of a mesh have in common, on topologies of any shape.

mod town;

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use town::{Town, any_town, others_of, town};

/// What makes a rack: zone and name, or the node's own name.
type RackName = (Option<String>, Result<String, String>);

#[test]
fn up_to_the_limit_everybody_is_probed() {
    let town = town(3, 4, 5);
    assert_eq!(town.list(7, 59).chosen.len(), 59);
    assert_eq!(town.list(7, 59).shape, Shape::Full);
    assert_ne!(town.list(7, 58).shape, Shape::Full);
}

#[test]
fn beyond_twice_the_limit_there_are_three_graphs_and_no_more() {
    // Two zones of ten racks of eight.
    let town = town(2, 10, 8);
    for own in [0, 77, 159] {
        let List { chosen, shape } = town.list(own, 79);
        let Shape::Graphs(graphs) = shape else {
            panic!("{shape:?}");
        };
        let zones = graphs.zones.wanted;
        let part = |wanted| Part {
            wanted,
            listed: wanted,
        };
        let expected = Graphs {
            others: 159,
            mates: part(7),
            racks: part(9),
            zones: part(zones),
            more: 0,
        };
        assert_eq!((graphs, graphs.is_cut()), (expected, false));
        assert!(zones <= 1);
        assert_eq!(chosen.len(), 7 + 9 + zones);
    }
}

#[test]
fn one_joiner_at_the_limit_does_not_turn_every_list_over() {
    let full = town(1, 10, 10);
    let more = full.with("newcomer", Some("z0"), Some("r3"));
    for own in [0, 50, 99] {
        let (before, after) = (full.names(own, 99), more.names(own, 99));
        assert_eq!(before.len(), 99);
        assert_eq!(after.len(), 98);
        assert!(before.symmetric_difference(&after).count() <= 3);
    }
}

#[test]
fn without_labels_each_probes_as_many_as_the_limit_allows() {
    let town = Town::new((0..300).map(|index| (format!("n{index}"), None, None)));
    let lists: Vec<_> = (0..300).map(|own| town.list(own, 40)).collect();
    let mut probed = vec![0_u32; 300];
    for (own, list) in lists.iter().enumerate() {
        assert_eq!(list.chosen.len(), 40);
        for other in others_of(own, &list.chosen) {
            probed[other] += 1;
        }
    }
    // 40 each in the mean, 6 is one standard deviation.
    assert!(
        probed.iter().all(|count| (12..=70).contains(count)),
        "{probed:?}"
    );
}

#[test]
fn a_limit_below_the_graphs_keeps_a_pair_for_each_two_racks() {
    let town = town(1, 60, 6);
    let lists: Vec<_> = (0..360).map(|own| town.list(own, 30)).collect();
    for list in &lists {
        let Shape::Graphs(graphs) = list.shape else {
            panic!("{:?}", list.shape);
        };
        assert!(graphs.is_cut());
        assert_eq!(
            (
                graphs.mates.listed,
                graphs.racks.listed,
                graphs.racks.wanted
            ),
            (5, 25, 59)
        );
    }
    let chosen: Vec<_> = lists.into_iter().map(|list| list.chosen).collect();
    let pairs = town.pairs_of_racks(&chosen);
    assert_eq!(pairs.len(), 60 * 60, "each to each, and to itself");
}

#[test]
fn who_is_down_is_probed_and_somebody_else_stands_for_the_rack() {
    // Racks of one, which one of the mates has to probe.
    let small = (0..30).map(|index| (format!("s{index}"), None, Some(format!("s{index}"))));
    let large = (0..10).map(|index| (format!("n{index}"), None, Some(String::from("large"))));
    let mut town = Town::new(large.chain(small));
    let of_large = |town: &Town| {
        let lists: Vec<_> = (1..10).map(|own| town.names(own, 19)).collect();
        lists
    };
    let probed_by = |lists: &[BTreeSet<String>], name: &str| {
        lists.iter().filter(|list| list.contains(name)).count()
    };
    let before = of_large(&town);
    town.fell("n0");
    let after = of_large(&town);
    assert_eq!(probed_by(&after, "n0"), 9);
    let uncovered = |lists: &[BTreeSet<String>]| {
        let names = (0..30).map(|index| format!("s{index}"));
        names.filter(|name| probed_by(lists, name) == 0).count()
    };
    assert!(uncovered(&before) > 0, "n0 stood for some");
    assert_eq!(uncovered(&after), 0);
}

#[test]
fn what_does_not_suffice_is_divided_by_thirds() {
    for (room, wanted, expected) in [
        (9, [1, 2, 3], [1, 2, 3]),
        (9, [9, 9, 9], [3, 3, 3]),
        (9, [1, 9, 9], [1, 4, 4]),
        (9, [9, 1, 2], [6, 1, 2]),
        (10, [9, 9, 9], [3, 3, 4]),
        (0, [9, 9, 9], [0, 0, 0]),
        (usize::MAX, [9, 9, 9], [9, 9, 9]),
    ] {
        assert_eq!(shares(room, wanted), expected, "{room} for {wanted:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_list_is_longer_than_the_limit(town in any_town(), limit in 0..200_usize, own: prop::sample::Index) {
        let own = own.index(town.len());
        let list = town.list(own, limit);
        prop_assert!(list.chosen.len() <= limit);
        prop_assert!(list.chosen.is_sorted_by(|one, next| one < next));
        prop_assert!(list.chosen.iter().all(|index| *index < town.len() - 1));
        if town.len() - 1 <= limit {
            prop_assert_eq!(list.chosen.len(), town.len() - 1);
        } else if let Shape::Graphs(graphs) = list.shape {
            let listed = graphs.mates.listed + graphs.racks.listed + graphs.zones.listed;
            prop_assert_eq!(list.chosen.len(), listed + graphs.more);
            prop_assert!(list.chosen.len() >= (2 * limit).saturating_sub(town.len() - 1));
        }
    }

    #[test]
    fn neither_the_order_nor_the_past_matters(
        town in any_town(),
        past in any_town(),
        limit in 0..100_usize,
        own: prop::sample::Index,
        seed: u64,
    ) {
        let own = own.index(town.len());
        let expected = town.names(own, limit);
        let shuffled = town.shuffled(seed);
        let place = shuffled.position(town.name(own));
        prop_assert_eq!(&shuffled.names(place, limit), &expected);
        let mut used = Pinglist::new(limit);
        used.handle_members(&town.node(own), &past.nodes());
        used.handle_members(&town.node(own), &shuffled.others(place));
        used.handle_members(&town.node(own), &past.nodes()[past.len() / 2..]);
        prop_assert_eq!(used.handle_members(&town.node(own), &town.others(own)), town.list(own, limit));
    }

    #[test]
    fn mates_racks_and_zones_are_covered_each_way(town in any_town()) {
        let lists = town.graphs();
        let racks = town.racks();
        let by_racks = town.pairs_of_racks(&lists);
        for (one, members) in &racks {
            let standing: Vec<_> = members.iter().filter(|member| town.stands(**member)).collect();
            for (other, targets) in &racks {
                let pairs = by_racks.get(&(one.clone(), other.clone())).cloned().unwrap_or_default();
                let from: BTreeSet<_> = pairs.iter().map(|(from, _)| *from).collect();
                if one == other {
                    prop_assert_eq!(pairs.len(), standing.len() * (members.len() - 1), "all mates");
                } else if one.0 == other.0 {
                    prop_assert_eq!(pairs.len(), standing.len().min(targets.len()), "{:?} to {:?}", one, other);
                    prop_assert_eq!(from.len(), pairs.len(), "one each");
                } else {
                    prop_assert!(pairs.len() <= standing.len().min(PER_ZONE as usize));
                }
            }
        }
        let zones = town.zones();
        for (one, members) in &zones {
            let standing: BTreeSet<_> = (members.iter().filter(|member| town.stands(**member)))
                .map(|member| town.rack_of(*member))
                .collect();
            for (other, targets) in zones.iter().filter(|(other, _)| *other != one) {
                let pairs: Vec<_> = by_racks
                    .iter()
                    .filter(|((from, to), _)| from.0 == *one && to.0 == *other)
                    .flat_map(|(_, pairs)| pairs)
                    .collect();
                let from: BTreeSet<_> = pairs.iter().map(|(from, _)| town.rack_of(*from)).collect();
                prop_assert_eq!(from.len(), standing.len().min(PER_ZONE as usize * targets.len()));
                for rack in from {
                    let servers = racks[&rack].iter().filter(|member| town.stands(**member)).count();
                    let probing = pairs.iter().filter(|(from, _)| town.rack_of(*from) == rack).count();
                    prop_assert_eq!(probing, servers.min(PER_ZONE as usize));
                }
            }
        }
    }

    #[test]
    fn nobody_is_probed_by_far_more_than_others(town in any_town()) {
        let lists = town.graphs();
        let mut probed = vec![0; town.len()];
        for (own, list) in lists.iter().enumerate() {
            for other in others_of(own, list) {
                probed[other] += 1;
            }
        }
        let (racks, zones) = (town.racks(), town.zones());
        for (member, count) in probed.iter().enumerate() {
            let rack = town.rack_of(member);
            let mates = racks[&rack].len() - 1;
            let others = racks.keys().filter(|other| other.0 == rack.0).count() - 1;
            let far = (4 * PER_ZONE) as usize * (zones.len() - 1);
            let mean = (others + far) as f64;
            // Chernoff: beyond it less than once in 10^12.
            let most = mates as f64 + mean + 7.0 * mean.sqrt() + 20.0;
            prop_assert!(f64::from(*count) <= most, "{} probe {}, more than {}", count, member, most);
        }
    }

    #[test]
    fn one_who_comes_or_goes_changes_little(
        town in any_town(),
        limit in 0..200_usize,
        gone: prop::sample::Index,
    ) {
        let gone = gone.index(town.len());
        let (rack, less) = (town.rack_of(gone), town.without(gone));
        // What a whole rack did for other zones, other racks do.
        let for_rack = if less.racks().contains_key(&rack) { 0 } else { less.zones().len() };
        let (mut of_mates, mut mates) = (0, 0);
        for own in 0..less.len() {
            let place = town.position(less.name(own));
            let (with, without) = (town.names(place, limit), less.names(own, limit));
            let change = with.symmetric_difference(&without).count();
            if town.rack_of(place) == rack {
                of_mates += change;
                mates += 1;
            } else {
                prop_assert!(change <= MOST_CHANGES + for_rack, "{} of {} changed for {}", change, with.len(), less.name(own));
            }
        }
        // What the one did for other racks and zones is divided among its mates.
        let done: usize = town.graphs()[gone].len();
        prop_assert!(of_mates <= mates * MOST_CHANGES + 2 * done, "{} of {} mates", of_mates, mates);
    }
}

/// In a list of whoever is not of the same rack: the one itself, and for it or for the room that it takes one other.
const MOST_CHANGES: usize = 5;
