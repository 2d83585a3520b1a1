//! Links: what they are, who drives them, who holds their XDP slot.

use netlink_packet_route::link::{
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::driver;

/// A network interface.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Link {
    /// Index in its network namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Kind of a link that is no device: `veth`, `bond`, `vlan`, `bridge`...
    pub kind: Option<String>,
    /// Driver of its device, or its kind; `None` where neither is told.
    pub driver: Option<String>,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Set up by the administrator.
    pub up: bool,
    /// Has a carrier.
    pub running: bool,
    /// The loopback interface.
    pub loopback: bool,
    /// Link-layer address, if it has one of six bytes.
    pub mac: Option<[u8; 6]>,
    /// Index of the link it stands on: the device under a VLAN, the other end of a veth if that is in this namespace.
    pub lower: Option<u32>,
    /// Index of the bond or bridge it is a port of.
    pub controller: Option<u32>,
    /// Receive queues.
    pub receive_queues: u32,
    /// Transmit queues.
    pub transmit_queues: u32,
    /// Who holds its XDP slot.
    pub xdp: Option<XdpHolder>,
}

/// A program in the XDP slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct XdpHolder {
    /// Its id, as `bpftool prog` shows it.
    pub program: u32,
    /// Where it runs.
    pub mode: XdpMode,
}

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// After the driver, on socket buffers.
    Generic,
    /// On the device.
    Offloaded,
    /// In several of these places.
    Several,
}

pub(super) fn request() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(LinkMessage::default())
}

pub(super) fn parse(message: &RouteNetlinkMessage) -> Option<Link> {
    let (RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message)) = message
    else {
        return None;
    };
    // A port that leaves its bridge is announced as a deleted link, too, but of that family.
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        up: flags.contains(LinkFlags::Up),
        running: flags.contains(LinkFlags::LowerUp),
        loopback: flags.contains(LinkFlags::Loopback),
        ..Link::default()
    };
    let (mut bus, mut device, mut elsewhere) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::ParentDevBusName(name) => bus = Some(name.as_str()),
            LinkAttribute::ParentDevName(name) => device = Some(name.as_str()),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            other => take(&mut link, other),
        }
    }
    if elsewhere {
        // The index is one of another namespace, where it means another link.
        link.lower = None;
    }
    link.driver = match (bus, device) {
        (Some(bus), Some(device)) => driver::of_device(bus, device),
        // Kernels before 5.14 do not name the device.
        _ => driver::of_link(&link.name, link.index),
    }
    .or_else(|| link.kind.clone());
    Some(link)
}

fn take(link: &mut Link, attribute: &LinkAttribute) {
    match attribute {
        LinkAttribute::IfName(name) => link.name.clone_from(name),
        LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
        LinkAttribute::Address(address) => link.mac = address.as_slice().try_into().ok(),
        LinkAttribute::Link(index) if *index != 0 => link.lower = Some(*index),
        LinkAttribute::Controller(index) => link.controller = Some(*index),
        LinkAttribute::NumRxQueues(queues) => link.receive_queues = *queues,
        LinkAttribute::NumTxQueues(queues) => link.transmit_queues = *queues,
        LinkAttribute::LinkInfo(infos) => link.kind = kind(infos),
        LinkAttribute::Xdp(attributes) => link.xdp = holder(attributes),
        _ => {}
    }
}

fn kind(infos: &[LinkInfo]) -> Option<String> {
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

/// `IFLA_XDP_PROG_ID` is absent where several programs are attached; each mode's own id is there then.
fn holder(attributes: &[LinkXdp]) -> Option<XdpHolder> {
    let mode = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(XdpAttached::Driver) => Some(XdpMode::Native),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(XdpMode::Generic),
        LinkXdp::Attached(XdpAttached::Hardware) => Some(XdpMode::Offloaded),
        LinkXdp::Attached(XdpAttached::Multiple) => Some(XdpMode::Several),
        _ => None,
    })?;
    let program = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id)
        | LinkXdp::DrvProgId(id)
        | LinkXdp::SkbProgId(id)
        | LinkXdp::HwProgId(id) => Some(*id),
        _ => None,
    });
    Some(XdpHolder {
        program: program.unwrap_or(0),
        mode,
    })
}
