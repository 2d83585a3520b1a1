//! Whom a membership makes peers.

use proptest::prelude::*;

use super::*;

fn member(name: &str, addresses: &[&str]) -> Member {
    Member {
        name: name.into(),
        addresses: addresses
            .iter()
            .map(|text| text.parse().expect("an address"))
            .collect(),
        port: 862,
        labels: Arc::default(),
        state: MemberState::Alive,
    }
}

fn membership(members: &[Member]) -> Membership {
    Membership {
        members: members.to_vec(),
        stop: false,
    }
}

fn settings(family: Family) -> MeshSettings {
    MeshSettings {
        name: String::from("me"),
        family,
        peer_limit: MeshSettings::DEFAULT_PEER_LIMIT,
    }
}

fn mesh() -> Mesh {
    Mesh::new(settings(Family::Auto))
}

fn me() -> Member {
    member("me", &["10.0.0.1", "fd00::1"])
}

fn names(mesh: &Mesh) -> Vec<&str> {
    mesh.peers().map(|(_, peer)| &*peer.name).collect()
}

#[test]
fn all_others_are_peers() {
    let mut mesh = mesh();
    let changes = mesh.handle_membership(&membership(&[
        member("b", &["10.0.0.3"]),
        me(),
        member("a", &["10.0.0.2"]),
    ]));
    let joined: Vec<_> = changes
        .iter()
        .map(|change| match change {
            PeerChange::Join { slot, peer } => (slot.0, &*peer.name),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(joined, [(1, "b"), (2, "a")]);
    assert_eq!(mesh.problems(), []);
    assert_eq!(mesh.own(), Some(&me()));
}

#[test]
fn the_same_membership_again_changes_nothing() {
    let mut mesh = mesh();
    let all = membership(&[me(), member("a", &["10.0.0.2"])]);
    mesh.handle_membership(&all);
    assert_eq!(mesh.handle_membership(&all), []);
}

/// Own addresses, the peer's, the setting, the address that is probed.
type Case<'a> = (&'a [&'a str], &'a [&'a str], Family, Option<&'a str>);

#[test]
fn the_address_is_of_a_version_that_both_ends_have() {
    let both = ["10.0.0.1", "fd00::1"];
    let (v4, v6) = (&both[..1], &both[1..]);
    let (peer_v4, peer_v6) = ("10.0.0.2", "fd00::2");
    let cases: &[Case<'_>] = &[
        (&both, &[peer_v6, peer_v4], Family::Auto, Some(peer_v4)),
        (&both, &[peer_v6], Family::Auto, Some(peer_v6)),
        (v6, &[peer_v4, peer_v6], Family::Auto, Some(peer_v6)),
        (v4, &[peer_v6], Family::Auto, None),
        (&both, &[peer_v4, peer_v6], Family::V6, Some(peer_v6)),
        (&both, &[peer_v4], Family::V6, None),
        (&both, &[peer_v4, peer_v6], Family::V4, Some(peer_v4)),
        (v6, &[peer_v4, peer_v6], Family::V4, None),
        (&both, &["::ffff:10.0.0.2"], Family::Auto, Some(peer_v4)),
        (
            &both,
            &["10.0.0.7", peer_v4],
            Family::Auto,
            Some("10.0.0.7"),
        ),
    ];
    for (own, peer, family, wanted) in cases {
        let mut mesh = Mesh::new(settings(*family));
        mesh.handle_membership(&membership(&[member("me", own), member("a", peer)]));
        let address = mesh
            .peers()
            .map(|(_, peer)| peer.address.to_string())
            .next();
        assert_eq!(address.as_deref(), *wanted, "{own:?} {peer:?} {family:?}");
        assert_eq!(mesh.problems().is_empty(), wanted.is_some());
        assert_eq!(
            mesh.admitted().count(),
            1,
            "who cannot be probed is answered all the same"
        );
    }
}

#[test]
fn each_mistake_leaves_out_one_member_and_is_named() {
    let other = || member("a", &["10.0.0.2"]);
    let cases = [
        (
            member("a", &["10.0.0.9"]),
            "two members are called a: the second is left out",
        ),
        (
            member("b", &["10.0.0.2"]),
            "members a and b both have address 10.0.0.2: b is left out",
        ),
        (
            member("b", &["fd00::7", "::ffff:10.0.0.2"]),
            "members a and b both have address 10.0.0.2: b is left out",
        ),
        (
            member("b", &["10.0.0.1"]),
            "member b has address 10.0.0.1 of this node: b is left out",
        ),
        (
            member("me", &["10.0.0.9"]),
            "two members are called me: the second is left out",
        ),
        (member("b", &[]), "member b has no address"),
        (
            member("b", &["224.0.0.1"]),
            "member b has address 224.0.0.1, which cannot be probed: b is left out",
        ),
        (
            member("b", &["fe80::1"]),
            "member b has address fe80::1, which cannot be probed: b is left out",
        ),
        (
            member("b", &["0.0.0.0"]),
            "member b has address 0.0.0.0, which cannot be probed: b is left out",
        ),
    ];
    for (mistake, text) in cases {
        let mut mesh = mesh();
        mesh.handle_membership(&membership(&[me(), other(), mistake]));
        assert_eq!(names(&mesh), ["a"], "{text}");
        assert_eq!(
            mesh.problems()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            [text]
        );
    }
}

#[test]
fn a_member_with_our_address_is_left_out_even_if_it_comes_first() {
    let mut mesh = mesh();
    mesh.handle_membership(&membership(&[member("a", &["10.0.0.1"]), me()]));
    assert_eq!(names(&mesh), [""; 0]);
    assert_eq!(mesh.problems().len(), 1);
}

#[test]
fn a_node_that_is_no_member_does_not_probe_but_answers() {
    let mut mesh = mesh();
    assert_eq!(
        mesh.handle_membership(&membership(&[member("a", &["10.0.0.2"])])),
        []
    );
    assert_eq!(
        mesh.problems(),
        [Problem::NotAMember {
            name: String::from("me")
        }]
    );
    assert_eq!(
        mesh.admitted()
            .map(|admitted| admitted.name)
            .collect::<Vec<_>>(),
        ["a"]
    );
}

#[test]
fn stop_makes_all_leave_and_go_makes_them_join_again() {
    let mut mesh = mesh();
    let go = membership(&[me(), member("a", &["10.0.0.2"]), member("b", &["10.0.0.3"])]);
    mesh.handle_membership(&go);
    let changes = mesh.handle_membership(&Membership {
        stop: true,
        ..go.clone()
    });
    assert_eq!(
        changes,
        [
            PeerChange::Leave { slot: Slot(1) },
            PeerChange::Leave { slot: Slot(2) }
        ]
    );
    assert!(mesh.stopped());
    assert_eq!(mesh.admitted().count(), 2);
    assert_eq!(mesh.handle_membership(&go).len(), 2);
    assert_eq!(
        mesh.peers().map(|(slot, _)| slot.0).collect::<Vec<_>>(),
        [3, 4]
    );
}

#[test]
fn new_labels_are_an_update_and_a_new_address_is_another_path() {
    let mut mesh = mesh();
    let mut a = member("a", &["10.0.0.2"]);
    mesh.handle_membership(&membership(&[me(), a.clone()]));
    a.labels = Arc::new(Labels {
        rack: Some(String::from("r7")),
        ..Labels::default()
    });
    let changes = mesh.handle_membership(&membership(&[me(), a.clone()]));
    assert!(
        matches!(&changes[..], [PeerChange::Update { slot: Slot(1), peer }] if peer.labels == a.labels),
        "{changes:?}"
    );
    a.port = 8620;
    let changes = mesh.handle_membership(&membership(&[me(), a]));
    assert!(
        matches!(
            &changes[..],
            [
                PeerChange::Leave { slot: Slot(1) },
                PeerChange::Join { slot: Slot(2), .. }
            ]
        ),
        "{changes:?}"
    );
    assert_eq!(
        mesh.admitted()
            .map(|admitted| admitted.number)
            .collect::<Vec<_>>(),
        [0],
        "it is still the same member"
    );
}

#[test]
fn beyond_the_peer_limit_fewer_are_probed_and_all_are_answered() {
    let mut mesh = Mesh::new(MeshSettings {
        peer_limit: 2,
        ..settings(Family::Auto)
    });
    let mut members = vec![me()];
    members.extend((0..9).map(|index| member(&format!("n{index}"), &[&format!("10.0.1.{index}")])));
    mesh.handle_membership(&membership(&members));
    assert_eq!(mesh.peers().count(), 2);
    let Shape::Graphs(graphs) = mesh.shape() else {
        panic!("{:?}", mesh.shape());
    };
    assert!(
        graphs.is_cut(),
        "nobody has a rack, so everybody is one: {graphs:?}"
    );
    assert_eq!(mesh.admitted().count(), 9);
    members.truncate(3);
    mesh.handle_membership(&membership(&members));
    assert_eq!(
        (names(&mesh), mesh.shape()),
        (vec!["n0", "n1"], Shape::Full)
    );
}

#[test]
fn whom_this_node_cannot_reach_takes_nobody_elses_place() {
    let mut mesh = Mesh::new(MeshSettings {
        peer_limit: 2,
        ..settings(Family::V4)
    });
    let mut members = vec![me()];
    members
        .extend((0..9).map(|index| member(&format!("n{index}"), &[&format!("fd00::1:{index}")])));
    members.push(member("v4", &["10.0.0.9"]));
    mesh.handle_membership(&membership(&members));
    assert_eq!((names(&mesh), mesh.shape()), (vec!["v4"], Shape::Full));
}

#[test]
fn no_setting_makes_more_peers_than_a_reflector_can_tell_apart() {
    let mut mesh = Mesh::new(MeshSettings {
        peer_limit: usize::MAX,
        ..settings(Family::Auto)
    });
    mesh.handle_membership(&membership(&many(20_000)));
    assert_eq!(mesh.peers().count(), MeshSettings::MAX_PEER_LIMIT);
}

#[test]
fn a_state_is_news_of_the_same_path() {
    let mut mesh = mesh();
    let alive = [me(), member("n1", &["10.0.0.9"])];
    let joined = mesh.handle_membership(&membership(&alive));
    let [PeerChange::Join { slot, .. }] = joined[..] else {
        panic!("{joined:?}");
    };
    let failed = [
        me(),
        Member {
            state: MemberState::Failed,
            ..alive[1].clone()
        },
    ];
    let changes = mesh.handle_membership(&membership(&failed));
    assert!(
        matches!(&changes[..], [PeerChange::Update { slot: same, peer }] if *same == slot && peer.state == MemberState::Failed),
        "{changes:?}"
    );
}

#[test]
fn ten_thousand_members_and_more_fit() {
    let mut mesh = mesh();
    let changes = mesh.handle_membership(&membership(&many(20_000)));
    assert_eq!(changes.len(), MeshSettings::DEFAULT_PEER_LIMIT);
    assert_eq!(mesh.admitted().count(), MAX_MEMBERS as usize);
    assert_eq!(mesh.problems().len(), 1);
}

/// This node and so many others.
fn many(others: u32) -> Vec<Member> {
    let mut members = vec![me()];
    members.extend((0..others).map(|index| Member {
        addresses: [IpAddr::V4((0x0b00_0000 + index).into())].into(),
        ..member(&format!("n{index}"), &[])
    }));
    members
}

fn any_member() -> impl Strategy<Value = Member> {
    (
        0..12_u8,
        prop::collection::vec(0..16_u8, 0..3),
        1..3_u16,
        0..2_u8,
    )
        .prop_map(|(name, addresses, port, rack)| Member {
            name: if name == 0 {
                "me".into()
            } else {
                format!("n{name}").into()
            },
            addresses: addresses
                .into_iter()
                .map(|last| IpAddr::from([10, 0, 0, last]))
                .collect(),
            port,
            labels: Arc::new(Labels {
                rack: Some(format!("r{rack}")),
                ..Labels::default()
            }),
            state: MemberState::Alive,
        })
}

fn any_membership() -> impl Strategy<Value = Membership> {
    (
        prop::collection::vec(any_member(), 0..16),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(members, stop)| Membership { members, stop })
}

proptest! {
    #[test]
    fn changes_add_up_to_the_peers(memberships in prop::collection::vec(any_membership(), 1..20)) {
        let mut mesh = Mesh::new(MeshSettings { peer_limit: 6, ..settings(Family::Auto) });
        let mut model: BTreeMap<Slot, Peer> = BTreeMap::new();
        for membership in memberships {
            for change in mesh.handle_membership(&membership) {
                match change {
                    PeerChange::Leave { slot } => prop_assert!(model.remove(&slot).is_some()),
                    PeerChange::Update { slot, peer } => {
                        let before = model.insert(slot, peer.clone()).expect("known");
                        prop_assert_eq!(path(&before), path(&peer));
                        prop_assert_ne!(before, peer);
                    }
                    PeerChange::Join { slot, peer } => prop_assert!(model.insert(slot, peer).is_none()),
                }
            }
            let peers: BTreeMap<_, _> = mesh.peers().map(|(slot, peer)| (slot, peer.clone())).collect();
            prop_assert_eq!(&peers, &model);
            let mut fresh = Mesh::new(mesh.settings.clone());
            fresh.handle_membership(&membership);
            prop_assert_eq!(model.len(), fresh.peers().count(), "history does not matter");
            prop_assert!(fresh.peers().all(|(_, peer)| model.values().any(|known| known == peer)));
            prop_assert!(model.len() <= 6);
            prop_assert!(model.values().all(|peer| &*peer.name != "me"));
            prop_assert_eq!(mesh.handle_membership(&membership), []);
        }
    }

    #[test]
    fn names_and_addresses_of_those_answered_are_unique(membership in any_membership()) {
        let mut mesh = mesh();
        mesh.handle_membership(&membership);
        let numbers: HashSet<_> = mesh.admitted().map(|admitted| admitted.number).collect();
        prop_assert_eq!(numbers.len(), mesh.admitted().count());
        let mut seen = HashSet::new();
        for admitted in mesh.admitted() {
            for address in admitted.addresses.iter().collect::<HashSet<_>>() {
                prop_assert!(seen.insert(*address), "{} twice", address);
            }
        }
    }
}
