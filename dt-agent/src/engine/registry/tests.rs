//! How members come and go.

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;
const HANDOVER_NS: u64 = 180 * SECOND;

fn at(seconds: u64) -> MonoNanos {
    MonoNanos(seconds * SECOND)
}

fn registry() -> Registry {
    Registry::new(RegistrySettings {
        name: String::from("me"),
        identity: Identity([0; 16]),
        grace_ns: 300 * SECOND,
        keep_failed_ns: RegistrySettings::KEEP_FAILED_NS,
    })
}

/// A node of host `host` that is called `name`, made by transaction `created`.
fn node(name: &str, host: u8, created: i64, announced: Announced) -> Sighting {
    Sighting {
        path: format!("{name}:{created}"),
        created,
        record: Ok(Record {
            name: name.into(),
            identity: Identity([host; 16]),
            addresses: [[10, 0, 0, host].into()].into(),
            port: 862,
            labels: Arc::default(),
            announced,
            handover_ns: HANDOVER_NS,
        }),
    }
}

fn states(registry: &Registry) -> Vec<(String, MemberState)> {
    let members = registry.membership().members.into_iter();
    members
        .map(|member| (member.name.to_string(), member.state))
        .collect()
}

fn state(registry: &Registry) -> Option<MemberState> {
    let found = states(registry);
    found
        .into_iter()
        .find(|(name, _)| name == "n1")
        .map(|(_, state)| state)
}

#[test]
fn who_vanishes_without_a_word_has_failed_and_is_kept_for_ten_minutes() {
    let mut registry = registry();
    registry.handle_listing([node("n1", 1, 1, Announced::Alive)], false, at(0));
    assert_eq!(state(&registry), Some(MemberState::Alive));
    registry.handle_changes([], [String::from("n1:1")], at(10));
    assert_eq!(state(&registry), Some(MemberState::Failed));
    assert_eq!(registry.poll_timeout(), Some(at(610)));
    assert!(!registry.handle_timeout(at(609)));
    assert!(registry.handle_timeout(at(610)));
    assert_eq!(state(&registry), None);
}

#[test]
fn who_said_that_it_would_be_back_is_waited_for_and_then_has_failed() {
    let mut registry = registry();
    registry.handle_listing([node("n1", 1, 1, Announced::Alive)], false, at(0));
    registry.handle_changes([node("n1", 1, 1, Announced::Restarting)], [], at(10));
    assert_eq!(state(&registry), Some(MemberState::Restarting));
    // Its session ends long before the hand-over does.
    registry.handle_changes([], [String::from("n1:1")], at(20));
    assert_eq!(state(&registry), Some(MemberState::Restarting));
    registry.handle_timeout(at(190));
    assert_eq!(state(&registry), Some(MemberState::Failed));
    registry.handle_timeout(at(790));
    assert_eq!(state(&registry), None);
}

#[test]
fn who_comes_back_is_alive_beside_what_its_earlier_session_left() {
    let mut registry = registry();
    registry.handle_listing([node("n1", 1, 1, Announced::Restarting)], false, at(0));
    registry.handle_changes([node("n1", 1, 5, Announced::Alive)], [], at(3));
    assert_eq!(
        states(&registry),
        [(String::from("n1"), MemberState::Alive)]
    );
    registry.handle_changes([], [String::from("n1:1")], at(10));
    assert_eq!(
        states(&registry),
        [(String::from("n1"), MemberState::Alive)]
    );
}

#[test]
fn who_left_is_gone_at_once_and_may_come_back() {
    let mut registry = registry();
    registry.handle_listing([node("n1", 1, 1, Announced::Alive)], false, at(0));
    registry.handle_changes([node("n1", 1, 1, Announced::Left)], [], at(1));
    assert_eq!(state(&registry), None);
    registry.handle_changes([], [String::from("n1:1")], at(11));
    assert_eq!(state(&registry), None);
    registry.handle_changes([node("n1", 1, 9, Announced::Alive)], [], at(12));
    assert_eq!(state(&registry), Some(MemberState::Alive));
}

#[test]
fn when_the_service_forgets_everybody_nobody_is_gone() {
    let mut registry = registry();
    let all = (1..=50).map(|host| node(&format!("n{host}"), host, host.into(), Announced::Alive));
    registry.handle_listing(all, false, at(0));
    registry.handle_away(at(1));
    registry.handle_listing([], false, at(40));
    let failed = states(&registry);
    assert_eq!(failed.len(), 50);
    assert!(
        failed
            .iter()
            .all(|(_, state)| *state == MemberState::Failed)
    );
    let again = (1..=50).map(|host| {
        node(
            &format!("n{host}"),
            host,
            100 + i64::from(host),
            Announced::Alive,
        )
    });
    registry.handle_listing(again, false, at(41));
    let alive = states(&registry);
    assert!(alive.iter().all(|(_, state)| *state == MemberState::Alive));
    assert_eq!(alive.len(), 50);
}

#[test]
fn what_changed_while_nobody_listened_is_found_by_the_next_listing() {
    let mut registry = registry();
    registry.handle_listing(
        [
            node("n1", 1, 1, Announced::Alive),
            node("n2", 2, 2, Announced::Alive),
        ],
        false,
        at(0),
    );
    registry.handle_away(at(1));
    registry.handle_listing(
        [
            node("n2", 2, 2, Announced::Left),
            node("n3", 3, 3, Announced::Alive),
        ],
        false,
        at(9),
    );
    assert_eq!(
        states(&registry),
        [
            (String::from("n1"), MemberState::Failed),
            (String::from("n3"), MemberState::Alive)
        ]
    );
}

#[test]
fn who_left_while_nobody_listened_is_no_member_and_who_came_back_is() {
    let left = node("n1", 1, 9, Announced::Left).record.expect("a record");
    let other_host = node("n1", 2, 9, Announced::Left).record.expect("a record");
    let mut registry = registry();
    registry.handle_listing([node("n1", 1, 1, Announced::Alive)], false, at(0));
    registry.handle_left(&left);
    assert_eq!(state(&registry), Some(MemberState::Alive));
    assert!(registry.missing().is_empty());

    registry.handle_listing([], false, at(1));
    assert_eq!(registry.missing(), ["n1"]);
    registry.handle_left(&other_host);
    assert_eq!(state(&registry), Some(MemberState::Failed));
    registry.handle_left(&left);
    assert_eq!(state(&registry), None);
    assert!(registry.missing().is_empty());
}

#[test]
fn without_the_service_probing_goes_on_for_the_grace_period_and_then_stops() {
    let mut registry = registry();
    registry.handle_listing([node("n1", 1, 1, Announced::Alive)], false, at(0));
    registry.handle_away(at(10));
    registry.handle_away(at(200));
    assert_eq!(registry.poll_timeout(), Some(at(310)));
    assert!(!registry.handle_timeout(at(309)));
    assert!(!registry.membership().stop);
    assert!(registry.handle_timeout(at(310)), "it is news");
    assert!(registry.membership().stop);
    assert!(!registry.handle_timeout(at(311)));
    assert_eq!(registry.poll_timeout(), None);
    assert_eq!(state(&registry), Some(MemberState::Alive));
    registry.handle_listing([node("n1", 1, 1, Announced::Alive)], false, at(400));
    assert!(!registry.membership().stop);
}

#[test]
fn the_stop_key_stops_the_mesh_and_its_end_lets_it_go_on() {
    let mut registry = registry();
    registry.handle_listing([], true, at(0));
    assert!(registry.membership().stop);
    registry.handle_stop(false);
    assert!(!registry.membership().stop);
}

#[test]
fn the_first_host_keeps_a_name_and_the_second_is_named() {
    let mut registry = registry();
    registry.handle_listing(
        [
            node("n1", 2, 8, Announced::Alive),
            node("n1", 1, 1, Announced::Alive),
        ],
        false,
        at(0),
    );
    let members = registry.membership().members;
    assert_eq!(*members[0].addresses, [IpAddr::from([10, 0, 0, 1])]);
    let refused: Vec<_> = registry.refused().collect();
    assert_eq!(refused, [("n1:8", "another host is called n1 already")]);
}

#[test]
fn a_rival_for_the_own_name_is_told_and_an_own_earlier_node_is_none() {
    let mut registry = registry();
    registry.handle_listing(
        [
            node("me", 0, 5, Announced::Restarting),
            node("me", 0, 6, Announced::Alive),
        ],
        false,
        at(0),
    );
    assert_eq!(registry.rival(), None);
    registry.handle_listing(
        [
            node("me", 0, 6, Announced::Alive),
            node("me", 7, 2, Announced::Alive),
        ],
        false,
        at(1),
    );
    assert_eq!(registry.rival(), Some(Identity([7; 16])));
}

#[test]
fn who_had_an_address_first_comes_first_also_after_a_restart() {
    let mut registry = registry();
    registry.handle_listing(
        [
            node("n1", 1, 1, Announced::Alive),
            node("n2", 2, 2, Announced::Alive),
        ],
        false,
        at(0),
    );
    registry.handle_changes([], [String::from("n1:1")], at(1));
    registry.handle_changes([node("n1", 1, 9, Announced::Alive)], [], at(2));
    let names: Vec<_> = states(&registry)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["n1", "n2"]);
}

#[test]
fn a_broken_node_is_named_and_harms_nobody() {
    let mut registry = registry();
    let broken = Sighting {
        path: String::from("x:1"),
        created: 1,
        record: Err(String::from("it is not a record of an agent")),
    };
    registry.handle_listing([broken, node("n1", 1, 2, Announced::Alive)], false, at(0));
    assert_eq!(
        registry.refused().collect::<Vec<_>>(),
        [("x:1", "it is not a record of an agent")]
    );
    assert_eq!(state(&registry), Some(MemberState::Alive));
}

#[test]
fn a_node_that_says_left_tells_its_agent() {
    let mut registry = registry();
    registry.handle_listing([node("me", 0, 5, Announced::Left)], false, at(0));
    assert!(registry.told_to_leave("me:5"));
    assert!(!registry.told_to_leave("me:6"));
}

#[derive(Clone, Debug)]
enum Op {
    Appear(u8, i64, Announced),
    Vanish(u8, i64),
    List,
    Away,
    Wait(u16),
}

fn any_op() -> impl Strategy<Value = Op> {
    let announced = prop_oneof![
        Just(Announced::Alive),
        Just(Announced::Restarting),
        Just(Announced::Left)
    ];
    prop_oneof![
        (1..5_u8, 0..6_i64, announced)
            .prop_map(|(host, created, says)| Op::Appear(host, created, says)),
        (1..5_u8, 0..6_i64).prop_map(|(host, created)| Op::Vanish(host, created)),
        Just(Op::List),
        Just(Op::Away),
        (0..900_u16).prop_map(Op::Wait),
    ]
}

proptest! {
    /// However they came: incremental changes and one listing of the same nodes agree, each name is there once, and whoever is
    /// alive in the service is alive here.
    #[test]
    fn changes_and_a_listing_agree(ops in prop::collection::vec(any_op(), 1..60)) {
        let mut registry = registry();
        let mut service: BTreeMap<String, Sighting> = BTreeMap::new();
        let mut seconds = 0;
        for op in ops {
            match op {
                Op::Appear(host, created, says) => {
                    let sighting = node(&format!("n{host}"), host, created, says);
                    service.insert(sighting.path.clone(), sighting.clone());
                    registry.handle_changes([sighting], [], at(seconds));
                }
                Op::Vanish(host, created) => {
                    let path = format!("n{host}:{created}");
                    service.remove(&path);
                    registry.handle_changes([], [path], at(seconds));
                }
                Op::List => registry.handle_listing(service.values().cloned(), false, at(seconds)),
                Op::Away => registry.handle_away(at(seconds)),
                Op::Wait(more) => {
                    seconds += u64::from(more);
                    registry.handle_timeout(at(seconds));
                    // What was due is done: nobody is woken again and again for it.
                    prop_assert!(registry.poll_timeout().is_none_or(|due| due > at(seconds)));
                }
            }
            let now = at(seconds);
            let before = registry.membership().members;
            registry.handle_listing(service.values().cloned(), false, now);
            prop_assert_eq!(&registry.membership().members, &before);
            let mut names: Vec<_> = before.iter().map(|member| &*member.name).collect();
            names.sort_unstable();
            names.dedup();
            prop_assert_eq!(names.len(), before.len());
            for host in 1..5_u8 {
                let name = format!("n{host}");
                let newest = service
                    .values()
                    .filter_map(|seen| seen.record.as_ref().ok().map(|record| (seen.created, record)))
                    .filter(|(_, record)| *record.name == *name && record.announced != Announced::Left)
                    .max_by_key(|(created, _)| *created);
                if newest.is_some_and(|(_, record)| record.announced == Announced::Alive) {
                    let found = before.iter().find(|member| *member.name == *name);
                    prop_assert_eq!(found.map(|member| member.state), Some(MemberState::Alive));
                }
            }
        }
    }
}
