//! How the hosts of a lab are joined: every pair, by a switch, or through a wire that programs may tamper with.
//!
//! A host has one address per IP version, on `lo`, whatever device a packet takes; a route per peer names the device. IPv4
//! resolves the peer's address on the device itself, because Linux answers ARP for every address of the host. It does not
//! so for NDP, so IPv6 routes go by way of the peer's link-local address, `fe80::i`.

use std::fs;

use anyhow::{Context, Result};

use crate::host::Host;
use crate::lab::Lab;
use crate::netns;

/// The host with the bridge in [`Lab::bridge`].
pub const SWITCH: &str = "switch";
/// The host in the middle of [`Lab::wire`].
pub const WIRE: &str = "wire";
/// The host that [`Lab::add_servers`] makes.
pub const SERVERS: &str = "servers";

pub(crate) fn mesh(lab: &mut Lab, count: u16) -> Result<()> {
    let names = add_hosts(lab, count)?;
    for left in 0..names.len() {
        for right in left + 1..names.len() {
            join(
                lab,
                (left, &device_to(&names[right])),
                (right, &device_to(&names[left])),
            )?;
            lab.host_mut(left)
                .add_device(&names[right], &device_to(&names[right]));
            lab.host_mut(right)
                .add_device(&names[left], &device_to(&names[left]));
        }
    }
    bring_up_all(lab)
}

pub(crate) fn bridge(lab: &mut Lab, count: u16) -> Result<()> {
    let names = add_hosts(lab, count)?;
    lab.add_host(SWITCH)?;
    let switch = names.len();
    for (index, name) in names.iter().enumerate() {
        join(lab, (index, UPLINK), (switch, &device_to(name)))?;
    }
    let mut lines = vec![
        // A bridge that learns and forwards and does nothing of its own accord.
        "link add br0 type bridge stp_state 0 mcast_snooping 0 forward_delay 0".to_owned(),
        "link set br0 up".to_owned(),
    ];
    for name in &names {
        lines.push(format!("link set {0} master br0 up", device_to(name)));
    }
    netns::ip_batch(lab.host(SWITCH).namespace(), &lines)?;
    share_uplinks(lab, &names);
    bring_up_all(lab)
}

pub(crate) fn wire(lab: &mut Lab) -> Result<()> {
    let names = add_hosts(lab, 2)?;
    lab.add_host(WIRE)?;
    let mut lines = Vec::new();
    for (index, name) in names.iter().enumerate() {
        join(lab, (index, UPLINK), (names.len(), &device_to(name)))?;
        // It receives what is addressed to the hosts, not to itself.
        lines.push(format!("link set {} promisc on up", device_to(name)));
    }
    netns::ip_batch(lab.host(WIRE).namespace(), &lines)?;
    for name in &names {
        lab.host(name)
            .run(&["ethtool", "-K", UPLINK, "tx", "off"])?;
    }
    share_uplinks(lab, &names);
    bring_up_all(lab)
}

/// A host beside the others, with a wire of its own to each of them.
pub(crate) fn servers(lab: &mut Lab) -> Result<()> {
    lab.add_host(SERVERS)?;
    let names: Vec<_> = lab
        .hosts()
        .iter()
        .map(|host| host.name().to_owned())
        .collect();
    let servers = lab.index_of(SERVERS);
    for name in &names {
        let index = lab.index_of(name);
        lab.host_mut(index).add_device(SERVERS, &device_to(SERVERS));
        lab.host_mut(servers).add_device(name, &device_to(name));
        plug(lab, name, SERVERS)?;
    }
    Ok(())
}

/// Quiet settings, before the first device exists and inherits them, and the addresses on `lo`.
pub(crate) fn prepare(host: &Host) -> Result<()> {
    host.enter(|| {
        SETTINGS.iter().try_for_each(|(name, value)| {
            // Paths below /proc/sys/net show the namespace of the thread that opens them.
            let path = format!("/proc/sys/net/{name}");
            fs::write(&path, value).with_context(|| format!("cannot set {path}"))
        })
    })??;
    let mut lines = vec!["link set lo up".to_owned()];
    if !is_middle(host.name()) {
        lines.push(format!("addr add {}/32 dev lo", host.ipv4()));
        lines.push(format!("addr add {}/128 dev lo nodad", host.ipv6()));
    }
    netns::ip_batch(host.namespace(), &lines)
}

/// Whether a host with this name only carries what others say.
fn is_middle(name: &str) -> bool {
    name == SWITCH || name == WIRE
}

/// Whether a host with this name is one that agents measure.
pub(crate) fn is_end(name: &str) -> bool {
    !is_middle(name) && name != SERVERS
}

fn add_hosts(lab: &mut Lab, count: u16) -> Result<Vec<String>> {
    let names: Vec<_> = (1..=count).map(|number| format!("n{number}")).collect();
    for name in &names {
        lab.add_host(name)?;
    }
    Ok(names)
}

/// Makes a veth pair with its ends, each a host's index and the device's name there, in their namespaces at once.
fn join(lab: &mut Lab, left: (usize, &str), right: (usize, &str)) -> Result<()> {
    let there = lab.host_mut(right.0).namespace().to_owned();
    let here = lab.host_mut(left.0).namespace();
    let line = format!(
        "link add {} mtu 1500 type veth peer name {} mtu 1500 netns {there}",
        left.1, right.1
    );
    netns::ip_batch(here, &[line])
}

/// Joins two hosts of a mesh again.
pub(crate) fn plug(lab: &Lab, left: &str, right: &str) -> Result<()> {
    let (here, there) = (lab.host(left), lab.host(right));
    let line = format!(
        "link add {} mtu 1500 type veth peer name {} mtu 1500 netns {}",
        here.device_to(right),
        there.device_to(left),
        there.namespace()
    );
    netns::ip_batch(here.namespace(), &[line])?;
    for (host, peer) in [(here, there), (there, here)] {
        let device = host.device_to(peer.name());
        netns::ip_batch(host.namespace(), &up_lines(host, device))?;
    }
    for (host, peer) in [(here, there), (there, here)] {
        netns::ip_batch(host.namespace(), &route_lines(host, peer))?;
    }
    Ok(())
}

/// Notes which device leads where when all hosts, and nothing but the hosts, hang on one middle.
fn share_uplinks(lab: &mut Lab, names: &[String]) {
    for (index, name) in names.iter().enumerate() {
        lab.host_mut(names.len()).add_device(name, &device_to(name));
        for peer in names.iter().filter(|peer| *peer != name) {
            lab.host_mut(index).add_device(peer, UPLINK);
        }
    }
}

/// Link-local addresses and routes to all peers. Both ends of a pair exist by now; a route needs a device that is up.
fn bring_up_all(lab: &Lab) -> Result<()> {
    for host in lab.hosts() {
        let devices = host.devices().into_iter();
        let lines: Vec<_> = devices.flat_map(|device| up_lines(host, device)).collect();
        netns::ip_batch(host.namespace(), &lines)?;
    }
    for host in lab.hosts() {
        let peers = lab
            .hosts()
            .into_iter()
            .filter(|peer| peer.name() != host.name());
        let lines: Vec<_> = peers.flat_map(|peer| route_lines(host, peer)).collect();
        netns::ip_batch(host.namespace(), &lines)?;
    }
    Ok(())
}

fn up_lines(host: &Host, device: &str) -> [String; 2] {
    [
        format!("link set {device} addrgenmode none up"),
        format!("addr add {}/64 dev {device} nodad", host.link_local()),
    ]
}

fn route_lines(host: &Host, peer: &Host) -> [String; 2] {
    let device = host.device_to(peer.name());
    [
        format!(
            "route add {}/32 dev {device} src {}",
            peer.ipv4(),
            host.ipv4()
        ),
        format!(
            "route add {}/128 via {} dev {device} src {}",
            peer.ipv6(),
            peer.link_local(),
            host.ipv6()
        ),
    ]
}

fn device_to(host: &str) -> String {
    format!("to-{host}")
}

/// The only device of a host that is not in a mesh.
const UPLINK: &str = "eth0";

const SETTINGS: &[(&str, &str)] = &[
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
];
