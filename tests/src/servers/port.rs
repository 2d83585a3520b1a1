//! A port that stays reserved while nobody listens on it.
//!
//! Clients of a server that is down try its port again and again, each time from a port that the kernel chooses. Were the
//! server's port free, it would be chosen one day: the client would be connected with itself, and the server could not
//! listen any more. The kernel chooses no port to which a socket is bound, and two sockets with `SO_REUSEADDR` may be
//! bound to the same port as long as only one of them listens. Java sets that option on all that listen.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, getsockname, setsockopt, socket,
    sockopt,
};

/// A TCP port on one address.
#[derive(Debug)]
pub(super) struct Port {
    address: SocketAddr,
    _bound: OwnedFd,
}

impl Port {
    /// One that the kernel chooses.
    pub fn reserve(address: IpAddr) -> Result<Self> {
        let family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        let bound = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&bound, sockopt::ReuseAddr, &true)?;
        let any = SockaddrStorage::from(SocketAddr::new(address, 0));
        bind(bound.as_raw_fd(), &any).with_context(|| format!("cannot listen on {address}"))?;
        let chosen: SockaddrStorage = getsockname(bound.as_raw_fd())?;
        let port = match address {
            IpAddr::V4(_) => chosen
                .as_sockaddr_in()
                .map(nix::sys::socket::SockaddrIn::port),
            IpAddr::V6(_) => chosen
                .as_sockaddr_in6()
                .map(nix::sys::socket::SockaddrIn6::port),
        };
        Ok(Self {
            address: SocketAddr::new(address, port.context("a bound socket has a port")?),
            _bound: bound,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
