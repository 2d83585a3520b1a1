//! A reflector on the loopback link, for tests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use dt_common::map::Allowed;

use super::{ReflectorOptions, SocketReflector};
use crate::adapters::clock::SharedClock;
use crate::engine::random::Random;
use crate::engine::reflector::{AllowList, Policy, Rate};

/// This host by IPv4, at a port that the kernel chooses.
pub const V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// The same by IPv6.
pub const V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0);

/// Answers this host as a member.
pub fn reflector(local: SocketAddr, clock: SharedClock) -> SocketReflector {
    let policy = Policy {
        port: 0,
        allow_all: false,
        allow_loopback: true,
        stateless: false,
        source_rate: Rate::default(),
        total_rate: Rate::default(),
    };
    let options = ReflectorOptions {
        locals: vec![local],
        policy,
        random: Random::new(1),
    };
    let reflector = SocketReflector::start(&options, clock).expect("a port");
    let mut allowed = AllowList::default();
    let member = Allowed {
        member: 3,
        flags: 0,
    };
    for source in [V4, V6] {
        allowed.allow(source.ip(), member).expect("room");
    }
    reflector.set_allowed(allowed);
    reflector
}
