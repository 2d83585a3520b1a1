//! From the hosts that were typed to addresses and the ways that lead there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};

use anyhow::Context as _;

use crate::adapters::net::{Link, Net};
use crate::config::PingConfig;
use crate::engine::mesh::Family;

/// A host to probe.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    /// As it was typed.
    pub name: String,
    /// Where its reflector is.
    pub address: SocketAddr,
    /// Interface that leads there; none on this host itself.
    pub link: Option<Link>,
    /// Neighbour on the way.
    pub next_hop: IpAddr,
    /// Own address to send from, port 0.
    pub local: SocketAddr,
}

/// Finds all hosts; those that cannot be found are reported and left out.
pub(super) fn all(config: &PingConfig) -> anyhow::Result<Vec<Destination>> {
    anyhow::ensure!(
        config.hosts.len() <= MAX_HOSTS,
        "at most {MAX_HOSTS} hosts can be probed at once"
    );
    let mut net = Net::open()?;
    let links = net.links()?;
    let mut found = Vec::new();
    for name in &config.hosts {
        match one(config, &mut net, &links, name) {
            Ok(destination) => found.push(destination),
            Err(error) => eprintln!("dt-agent: {name}: {error:#}"),
        }
    }
    Ok(found)
}

fn one(
    config: &PingConfig,
    net: &mut Net,
    links: &[Link],
    name: &str,
) -> anyhow::Result<Destination> {
    let address = resolve(name, config)?;
    let index = |name: &str| links.iter().find(|link| link.name == name);
    let wanted = match &config.interface {
        Some(name) => Some(index(name).with_context(|| format!("no interface {name}"))?),
        None => None,
    };
    let scope = match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => {
            let scope = Some(v6.scope_id()).filter(|scope| *scope != 0);
            let scope = scope.or(wanted.map(|link| link.index));
            Some(scope.context("a link-local address needs its interface, as in fe80::1%eth0")?)
        }
        _ => None,
    };
    let route = net.route(address.ip(), scope)?;
    let link = links.iter().find(|link| link.index == route.link);
    if let (Some(wanted), Some(link)) = (wanted, link)
        && wanted.index != link.index
    {
        anyhow::bail!("the route leads through {}, not {}", link.name, wanted.name);
    }
    Ok(Destination {
        name: name.to_owned(),
        address: scoped(address.ip(), address.port(), scope),
        link: link.filter(|link| !link.loopback && !route.local).cloned(),
        next_hop: route.next_hop(address.ip()),
        local: scoped(route.source.unwrap_or(unspecified(address)), 0, scope),
    })
}

fn resolve(name: &str, config: &PingConfig) -> anyhow::Result<SocketAddr> {
    let found: Vec<_> = (name, config.port)
        .to_socket_addrs()
        .context("cannot be resolved")?
        .collect();
    let wanted = found.iter().find(|address| match config.family {
        Family::Auto => true,
        Family::V4 => address.is_ipv4(),
        Family::V6 => address.is_ipv6(),
    });
    let family = match config.family {
        Family::Auto => "",
        Family::V4 => "IPv4 ",
        Family::V6 => "IPv6 ",
    };
    let address = wanted.with_context(|| format!("has no {family}address"))?;
    anyhow::ensure!(
        !address.ip().is_multicast(),
        "a group of hosts cannot be probed"
    );
    Ok(*address)
}

fn scoped(address: IpAddr, port: u16, scope: Option<u32>) -> SocketAddr {
    match (SocketAddr::new(address, port), scope) {
        (SocketAddr::V6(mut v6), Some(scope)) => {
            v6.set_scope_id(scope);
            v6.into()
        }
        (address, _) => address,
    }
}

fn unspecified(like: SocketAddr) -> IpAddr {
    if like.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    }
}

/// Each may need this many session identifiers, see `ground::SSIDS_PER_HOST`.
pub(super) const MAX_HOSTS: usize = 64;
