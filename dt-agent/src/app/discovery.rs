//! The source of members that the settings ask for.

use std::net::IpAddr;

use ipnet::IpNet;

use super::station;
use crate::adapters::discovery::file::FileDiscovery;
use crate::adapters::discovery::zookeeper::{
    Credentials, OwnMember, Tls, ZookeeperDiscovery, ZookeeperSettings,
};
use crate::adapters::net::{Link, LinkAddress, Net};
use crate::config::{DiscoverySource, RunConfig, ZookeeperConfig};
use crate::engine::mesh::Labels;
use crate::ports::{Discovered, Discovery, DiscoveryError};

/// One of the sources.
pub(super) enum Source {
    File(Box<FileDiscovery>),
    Zookeeper(ZookeeperDiscovery),
}

impl Source {
    /// Opens what `config` names.
    pub(super) fn open(config: &RunConfig) -> anyhow::Result<Self> {
        match &config.discovery {
            DiscoverySource::File(path) => {
                let source = FileDiscovery::new(path.clone(), config.port);
                Ok(Self::File(Box::new(source)))
            }
            DiscoverySource::Zookeeper => {
                let settings = zookeeper_settings(config)?;
                Ok(Self::Zookeeper(ZookeeperDiscovery::start(settings)?))
            }
        }
    }
}

impl Discovery for Source {
    async fn next_change(&mut self) -> Result<Discovered, DiscoveryError> {
        match self {
            Self::File(source) => source.next_change().await,
            Self::Zookeeper(source) => source.next_change().await,
        }
    }

    fn reload(&mut self) {
        match self {
            Self::File(source) => source.reload(),
            Self::Zookeeper(source) => source.reload(),
        }
    }

    fn announce(&mut self) {
        match self {
            Self::File(source) => source.announce(),
            Self::Zookeeper(source) => source.announce(),
        }
    }

    async fn suspend(&mut self) {
        match self {
            Self::File(source) => source.suspend().await,
            Self::Zookeeper(source) => source.suspend().await,
        }
    }
}

/// Who the agents of a mesh are to ZooKeeper, by its settings.
pub(super) fn credentials(config: &ZookeeperConfig) -> Option<Credentials> {
    let sasl = config.sasl.clone();
    let sasl = sasl.map(|(user, password)| Credentials::Sasl { user, password });
    sasl.or_else(|| config.auth.clone().map(Credentials::Digest))
}

/// TLS towards ZooKeeper, by its settings.
pub(super) fn tls(config: &ZookeeperConfig) -> anyhow::Result<Option<Tls>> {
    let Some(ca) = config.tls_ca.clone() else {
        return Ok(None);
    };
    let identity = config.tls_cert.clone().zip(config.tls_key.clone());
    let tls = Tls { ca, identity };
    tls.check().map_err(anyhow::Error::msg)?;
    Ok(Some(tls))
}

fn zookeeper_settings(config: &RunConfig) -> anyhow::Result<ZookeeperSettings> {
    let mut net = Net::open()?;
    let (links, held) = (net.links()?, net.addresses()?);
    let addresses = own_addresses(config, &links, &held);
    anyhow::ensure!(
        !addresses.is_empty(),
        "this host has no address that others could probe: give --address IP"
    );
    tracing::info!(?addresses, "Members will be told these addresses.");
    let own = &config.own;
    Ok(ZookeeperSettings {
        servers: config.zookeeper.connection(),
        root: config.zookeeper.root.clone(),
        session: config.zookeeper.session,
        grace: own.grace,
        auth: credentials(&config.zookeeper),
        tls: tls(&config.zookeeper)?,
        targets: targets(&own.allow_targets, &held),
        state_dir: config.state_dir.clone(),
        own: OwnMember {
            name: config.node.clone(),
            addresses,
            port: config.port,
            labels: Labels {
                zone: own.zone.clone(),
                rack: own.rack.clone(),
                instance_group: own.instance_group.clone(),
                bandwidth: own.bandwidth.clone(),
                other: own.labels.clone(),
            },
            handover: config.handover,
        },
        seed: station::chance(),
    })
}

/// As told, or the first global address of each IP version on a link that may carry probes, in the order of the links; where
/// these have none, that of the loopback, where routed hosts keep theirs.
fn own_addresses(config: &RunConfig, links: &[Link], held: &[LinkAddress]) -> Vec<IpAddr> {
    if !config.own.addresses.is_empty() {
        return config.own.addresses.clone();
    }
    let may_carry = |link: &&Link| {
        link.up && (config.interfaces.is_empty() || config.interfaces.contains(&link.name))
    };
    let (carrying, loopback) = links
        .iter()
        .filter(|link| link.loopback || may_carry(link))
        .partition::<Vec<_>, _>(|link| !link.loopback);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for link in carrying.into_iter().chain(loopback) {
        for one in held.iter().filter(|one| one.link == link.index) {
            let known = addresses
                .iter()
                .any(|address| address.is_ipv4() == one.address.is_ipv4());
            if !known && !one.tentative && is_global(one.address) {
                addresses.push(one.address);
            }
        }
    }
    addresses
}

/// Valid beyond its link and its host.
fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}

/// As told, or private networks and those that this host is on.
fn targets(told: &[IpNet], held: &[LinkAddress]) -> Vec<IpNet> {
    if !told.is_empty() {
        return told.to_vec();
    }
    let private = PRIVATE.iter().filter_map(|text| text.parse().ok());
    let on_links = held
        .iter()
        .filter(|one| is_global(one.address))
        .filter_map(|one| IpNet::new(one.address, one.prefix_len).ok())
        .map(|network| network.trunc());
    private.chain(on_links).collect()
}

/// RFC 1918, RFC 6598 (shared address space, used by clouds for nodes), RFC 4193.
const PRIVATE: &[&str] = &[
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "fc00::/7",
];
