//! Facts about the machine's network, asked from the kernel by netlink: links, addresses, routes, neighbours.
//!
//! Netlink and not `/sys/class/net`, because an agent may have entered a network namespace without its own `/sys`, which
//! then shows the devices of another namespace. Calls block for the fraction of a millisecond that the kernel needs.

mod address;
mod channel;
mod driver;
mod ethtool;
mod link;
mod neighbour;
mod route;
mod watch;

#[cfg(test)]
mod tests;

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_DUMP, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_packet_route::RouteNetlinkMessage;

use channel::Channel;

pub use address::LinkAddress;
pub use ethtool::Moderation;
pub use link::{Link, XdpHolder, XdpMode};
pub use neighbour::{Neighbour, NeighbourState};
pub use route::Route;
pub use watch::{LinkEvent, LinkWatch};

/// Why a fact about the network is not known.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// No netlink socket is to be had.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// The kernel refused to answer.
    #[error("the kernel does not tell {what}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The kernel's answer lacks what was asked for.
    #[error("the kernel's answer does not say {what}")]
    Incomplete {
        /// What was asked for.
        what: &'static str,
    },
    /// The watching thread could not be started.
    #[error("cannot start the thread that watches links")]
    Thread(#[source] io::Error),
}

impl NetError {
    /// Whether a privilege is missing.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Refused { source, .. } | Self::Open(source)
            if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// An open line to the kernel. Not shared: whoever asks has one of its own.
#[derive(Debug)]
pub struct Net {
    channel: Channel,
}

impl Net {
    /// Opens it, for the network namespace that the calling thread is in.
    ///
    /// # Errors
    /// Netlink sockets are forbidden here.
    pub fn open() -> Result<Self, NetError> {
        let channel =
            Channel::open(netlink_sys::protocols::NETLINK_ROUTE).map_err(NetError::Open)?;
        Ok(Self { channel })
    }

    /// All links, by index.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn links(&mut self) -> Result<Vec<Link>, NetError> {
        let answers = self.ask("the links", &link::request(), NLM_F_DUMP)?;
        let mut links: Vec<_> = answers.iter().filter_map(link::parse).collect();
        links.sort_unstable_by_key(|link| link.index);
        Ok(links)
    }

    /// The link of this name.
    ///
    /// # Errors
    /// The kernel refuses, or there is none.
    pub fn link(&mut self, name: &str) -> Result<Link, NetError> {
        let found = self.links()?.into_iter().find(|link| link.name == name);
        found.ok_or_else(|| NetError::Refused {
            what: "the link",
            source: io::ErrorKind::NotFound.into(),
        })
    }

    /// All addresses of all links.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn addresses(&mut self) -> Result<Vec<LinkAddress>, NetError> {
        let answers = self.ask("the addresses", &address::request(), NLM_F_DUMP)?;
        Ok(answers.iter().filter_map(address::parse).collect())
    }

    /// How packets to an address leave; `link` only for link-local ones, which mean nothing without.
    ///
    /// # Errors
    /// There is no route, or the kernel refuses.
    pub fn route(&mut self, to: IpAddr, link: Option<u32>) -> Result<Route, NetError> {
        let answers = self.ask("a route", &route::request(to, link), 0)?;
        let found = answers.iter().find_map(route::parse);
        found.ok_or(NetError::Incomplete {
            what: "the interface",
        })
    }

    /// The neighbours that the kernel knows on a link.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn neighbours(&mut self, link: u32) -> Result<Vec<Neighbour>, NetError> {
        let answers = self.ask("the neighbours", &neighbour::request(), NLM_F_DUMP)?;
        let all = answers.iter().filter_map(neighbour::parse);
        Ok(all.filter(|neighbour| neighbour.link == link).collect())
    }

    /// Makes the kernel ask a neighbour for its link-layer address, even if it believes to know it.
    ///
    /// Returns when the kernel has taken the order, not when the neighbour has answered. Needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// The kernel refuses, or the link is gone.
    pub fn probe_neighbour(&mut self, link: u32, address: IpAddr) -> Result<(), NetError> {
        let known = self.neighbours(link)?;
        let known = known.iter().find(|neighbour| neighbour.address == address);
        let (message, flags) =
            neighbour::probe(link, address, known.and_then(|known| known.mac.as_deref()));
        self.ask("a neighbour to answer", &message, flags).map(drop)
    }

    fn ask(
        &mut self,
        what: &'static str,
        message: &RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, NetError> {
        let mut payload = vec![0; message.buffer_len()];
        message.serialize(&mut payload);
        let answers = self
            .channel
            .exchange(message.message_type(), flags, &payload)
            .map_err(|source| NetError::Refused { what, source })?;
        Ok(answers
            .iter()
            .filter_map(|answer| decode(what, answer))
            .collect())
    }
}

/// Asks how long the device of a link may hold back a received packet. Needs no privilege.
///
/// # Errors
/// The device or the kernel cannot say.
pub fn moderation(link: u32) -> Result<Moderation, NetError> {
    let what = "interrupt moderation";
    let channel = Channel::open(netlink_sys::protocols::NETLINK_GENERIC);
    let mut channel = channel.map_err(NetError::Open)?;
    ethtool::moderation(&mut channel, link).map_err(|source| NetError::Refused { what, source })
}

/// One message, or `None` if it has something that is not understood; one odd device must not hide the others.
fn decode(what: &str, answer: &channel::Answer) -> Option<RouteNetlinkMessage> {
    let mut header = NetlinkHeader::default();
    header.message_type = answer.kind;
    header.length = answer.payload.len() as u32;
    match RouteNetlinkMessage::deserialize(&header, &answer.payload) {
        Ok(message) => Some(message),
        Err(error) => {
            tracing::warn!(%error, what, "Skipped a part of the kernel's answer that is not understood.");
            None
        }
    }
}
