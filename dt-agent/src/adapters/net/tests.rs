//! Against the kernel that runs the tests, unprivileged but where it says so.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

fn loopback(net: &mut Net) -> Link {
    net.link("lo").expect("every namespace has a loopback link")
}

#[test]
fn the_loopback_link_is_found_with_its_address() {
    let mut net = Net::open().expect("netlink needs no privilege");
    let link = loopback(&mut net);
    assert!(
        link.loopback && link.index > 0 && link.mtu >= 1_500,
        "{link:?}"
    );
    assert_eq!(link.xdp, None);
    let addresses = net.addresses().expect("readable");
    let own: Vec<_> = addresses
        .iter()
        .filter(|address| address.link == link.index)
        .collect();
    assert!(
        own.iter()
            .any(|address| address.address == IpAddr::V4(Ipv4Addr::LOCALHOST)),
        "{own:?}"
    );
}

#[test]
fn a_link_that_is_not_there_is_an_error() {
    let mut net = Net::open().expect("netlink needs no privilege");
    assert!(matches!(
        net.link("no-such-link"),
        Err(NetError::Refused { .. })
    ));
}

#[test]
fn an_own_address_is_reached_by_the_loopback_link() {
    let mut net = Net::open().expect("netlink needs no privilege");
    let link = loopback(&mut net);
    let route = net
        .route(Ipv4Addr::LOCALHOST.into(), None)
        .expect("a route");
    assert_eq!(
        (route.link, route.local, route.gateway),
        (link.index, true, None)
    );
    assert_eq!(
        route.next_hop(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    );
    let route = net.route(Ipv6Addr::LOCALHOST.into(), None);
    assert!(route.is_err() || route.is_ok_and(|route| route.link == link.index));
}

#[test]
fn a_line_is_good_for_more_than_one_question_also_after_a_refusal() {
    let mut net = Net::open().expect("netlink needs no privilege");
    let nowhere = IpAddr::V4(Ipv4Addr::new(240, 0, 0, 1));
    let refused = net.route(nowhere, None);
    assert!(refused.is_err() || refused.is_ok_and(|route| route.gateway.is_some()));
    let link = loopback(&mut net).index;
    assert!(net.neighbours(link).is_ok());
}

#[test]
fn a_loopback_link_has_no_interrupt_moderation() {
    let link = loopback(&mut Net::open().expect("netlink needs no privilege")).index;
    let error = moderation(link).expect_err("not supported");
    assert!(
        matches!(error, NetError::Refused { .. }) && !error.is_denied(),
        "{error:?}"
    );
}

#[test]
fn truncated_messages_are_not_split_into_something() {
    let whole = {
        let mut bytes = vec![0; 32];
        bytes[0] = 20;
        bytes
    };
    for length in 0..16 {
        assert!(channel::split(&whole[..length]).is_none());
    }
    let (message, rest) = channel::split(&whole).expect("whole");
    assert_eq!((message.payload().len(), rest.len()), (4, 12));
}
