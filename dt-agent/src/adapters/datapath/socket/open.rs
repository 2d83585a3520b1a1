//! One UDP socket for probes: bound, with the options that a probe needs.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::socket::{TimestampingFlag, setsockopt, sockopt};
use rustix::net::sockopt::{self as option, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with};

use super::flights::Flights;
use super::options::{AutoFlowLabel, NoCheck, NoCheck6};
use crate::engine::mix::Class;
use crate::engine::rotation::Rotation;

/// What sockets to open for probes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SocketOptions {
    /// Own addresses to send from, with their scope where link-local; the port in them says nothing. Unspecified
    /// addresses leave the choice to the route.
    pub locals: Vec<SocketAddr>,
    /// Source ports, opened on each address; 0 lets the kernel choose one.
    pub ports: Vec<u16>,
    /// One more source port, which changes; its number among the ports is the last.
    pub rotation: Option<Rotation>,
    /// What kinds of probes there are, by number.
    pub classes: Vec<Class>,
    /// Mark that the stamping program looks for; needs `CAP_NET_ADMIN`.
    pub mark: Option<u32>,
}

impl SocketOptions {
    /// Source ports of each own address.
    #[must_use]
    pub fn port_count(&self) -> usize {
        self.ports.len() + usize::from(self.rotation.is_some())
    }

    /// The code point that sockets begin with.
    pub(super) fn first_dscp(&self) -> u8 {
        self.classes.first().map_or(0, |class| class.dscp)
    }
}

/// Why a socket for probes is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address is not ours, or the port is taken.
    #[error(
        "cannot bind a probe socket to {local}; is the address on this host and the port free?"
    )]
    Bind {
        /// Address and port asked for.
        local: SocketAddr,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The mark was refused.
    #[error("cannot mark probes on {local}; `CAP_NET_ADMIN` is needed for it")]
    Mark {
        /// Address and port of the socket.
        local: SocketAddr,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Another option, or the socket itself, was refused.
    #[error("cannot set {option} on the probe socket of {local}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Address and port of the socket.
        local: SocketAddr,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Nothing to open was named.
    #[error("no address or no source port to send probes from")]
    Nothing,
}

/// One socket, shared by whoever sends through it and whoever receives from it.
#[derive(Debug)]
pub struct ProbeSocket {
    fd: OwnedFd,
    local: SocketAddr,
    flights: Option<Mutex<Flights>>,
}

impl ProbeSocket {
    /// Opens and binds one; `stamps` makes the kernel report when each probe left.
    pub(super) fn open(
        local: SocketAddr,
        options: &SocketOptions,
        stamps: bool,
    ) -> Result<Self, OpenError> {
        let fd = open_udp(
            local,
            UdpOptions {
                dscp: options.first_dscp(),
                mark: options.mark,
                without_checksum: options.mark.is_some(),
                ..UdpOptions::default()
            },
        )?;
        let socket = Self {
            local: bound_to(&fd, local)?,
            fd,
            flights: stamps.then(|| Mutex::new(Flights::new())),
        };
        checked("SO_TIMESTAMPING", local, socket.restart_stamps())?;
        Ok(socket)
    }

    /// Its own address, with the port that the kernel chose if that was asked for.
    #[must_use]
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// The probes whose transmit stamps are awaited, if any are.
    pub(super) fn flights(&self) -> Option<MutexGuard<'_, Flights>> {
        // A table left half written by a panicking holder only loses stamps, which have a fallback.
        self.flights
            .as_ref()
            .map(|flights| flights.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Numbers transmit stamps from zero again.
    ///
    /// The kernel takes a number for a datagram that it then fails to send, or not, depending on where it failed; after a
    /// failure nobody knows. `SOF_TIMESTAMPING_OPT_ID` restarts at zero when it is set anew.
    pub(super) fn restart_stamps(&self) -> nix::Result<()> {
        // Without flights there are no stamps at all, see `stamp_arrivals`.
        let Some(mut flights) = self.flights() else {
            return Ok(());
        };
        stamp_arrivals(&self.fd, true)?;
        flights.restart();
        stamp_all(&self.fd)
    }
}

impl AsFd for ProbeSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Options in which the sockets of probes and of the reflector differ.
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of the socket on its own"
)]
pub(super) struct UdpOptions {
    /// Differentiated services code point, 0 to 63.
    pub dscp: u8,
    pub mark: Option<u32>,
    /// Send what is longer than the MTU in fragments.
    pub fragment: bool,
    /// Leave the checksum out: a program on the egress, which could not tell whether the driver is to finish one, makes it.
    pub without_checksum: bool,
    /// Of packets that list probes for a program to make: a TTL that takes one no further than the next hop should no program
    /// meet it.
    pub is_list: bool,
    /// Tell to which of the own addresses a datagram was sent.
    pub packet_info: bool,
}

/// A bound UDP socket that starts at TTL 255 and tells the TTL of what it receives.
pub(super) fn open_udp(local: SocketAddr, options: UdpOptions) -> Result<OwnedFd, OpenError> {
    let family = if local.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = checked(
        "UDP",
        local,
        socket_with(family, SocketType::DGRAM, flags, None),
    )?;
    configure(&fd, local, options)?;
    bind(&fd, &local).map_err(|errno| OpenError::Bind {
        local,
        source: errno.into(),
    })?;
    Ok(fd)
}

/// The address that a socket is bound to.
pub(super) fn bound_to(fd: &OwnedFd, local: SocketAddr) -> Result<SocketAddr, OpenError> {
    let bound = checked("its own address", local, getsockname(fd))?;
    checked("its own address", local, SocketAddr::try_from(bound))
}

fn configure(fd: &OwnedFd, local: SocketAddr, options: UdpOptions) -> Result<(), OpenError> {
    let sized = option::set_socket_send_buffer_size(fd, SEND_BUFFER);
    checked("SO_SNDBUF", local, sized)?;
    let sized = option::set_socket_recv_buffer_size(fd, RECEIVE_BUFFER);
    checked("SO_RCVBUF", local, sized)?;
    if let Some(mark) = options.mark {
        setsockopt(fd, sockopt::Mark, &mark).map_err(|errno| OpenError::Mark {
            local,
            source: errno.into(),
        })?;
    }
    if local.is_ipv4() {
        configure_ipv4(fd, local, options)
    } else {
        configure_ipv6(fd, local, options)
    }
}

/// "Probe": never fragmented, and no ICMP from the path can make the kernel refuse a size (ip(7)).
fn configure_ipv4(fd: &OwnedFd, local: SocketAddr, options: UdpOptions) -> Result<(), OpenError> {
    let discovery = if options.fragment {
        Ipv4PathMtuDiscovery::DONT
    } else {
        Ipv4PathMtuDiscovery::PROBE
    };
    checked("IP_TOS", local, set_dscp(fd, local, options.dscp))?;
    checked(
        "IP_MTU_DISCOVER",
        local,
        option::set_ip_mtu_discover(fd, discovery),
    )?;
    let ttl = if options.is_list { 1 } else { TTL };
    checked("IP_TTL", local, option::set_ip_ttl(fd, ttl.into()))?;
    if options.without_checksum {
        checked("SO_NO_CHECK", local, setsockopt(fd, NoCheck, &true))?;
    }
    checked(
        "IP_RECVTTL",
        local,
        setsockopt(fd, sockopt::Ipv4RecvTtl, &true),
    )?;
    let info = &options.packet_info;
    checked(
        "IP_PKTINFO",
        local,
        setsockopt(fd, sockopt::Ipv4PacketInfo, info),
    )
}

fn configure_ipv6(fd: &OwnedFd, local: SocketAddr, options: UdpOptions) -> Result<(), OpenError> {
    let discovery = if options.fragment {
        Ipv6PathMtuDiscovery::DONT
    } else {
        Ipv6PathMtuDiscovery::PROBE
    };
    checked("IPV6_V6ONLY", local, option::set_ipv6_v6only(fd, true))?;
    checked("IPV6_TCLASS", local, set_dscp(fd, local, options.dscp))?;
    checked(
        "IPV6_MTU_DISCOVER",
        local,
        option::set_ipv6_mtu_discover(fd, discovery),
    )?;
    checked(
        "IPV6_UNICAST_HOPS",
        local,
        option::set_ipv6_unicast_hops(fd, Some(if options.is_list { 1 } else { TTL })),
    )?;
    // A path is named by its addresses and ports: what the kernel draws from them for a label would be a second name.
    checked(
        "IPV6_AUTOFLOWLABEL",
        local,
        setsockopt(fd, AutoFlowLabel, &false),
    )?;
    if options.without_checksum {
        checked("UDP_NO_CHECK6_TX", local, setsockopt(fd, NoCheck6, &true))?;
    }
    checked(
        "IPV6_RECVHOPLIMIT",
        local,
        setsockopt(fd, sockopt::Ipv6RecvHopLimit, &true),
    )?;
    let info = &options.packet_info;
    checked(
        "IPV6_RECVPKTINFO",
        local,
        setsockopt(fd, sockopt::Ipv6RecvPacketInfo, info),
    )
}

/// Gives the code point to all that a socket bound to `local` sends from now on, without a congestion mark (RFC 3168).
pub(super) fn set_dscp(fd: impl AsFd, local: SocketAddr, dscp: u8) -> rustix::io::Result<()> {
    if local.is_ipv4() {
        option::set_ip_tos(fd, dscp << 2)
    } else {
        option::set_ipv6_tclass(fd, u32::from(dscp) << 2)
    }
}

/// Makes the kernel tell when each datagram came, or no longer.
///
/// As long as any socket of the host wants to know when datagrams came, the kernel reads the clock for every packet that
/// any interface receives: not to be asked for where a program stamps.
pub(super) fn stamp_arrivals(fd: &OwnedFd, on: bool) -> nix::Result<()> {
    let flags = if on {
        ARRIVALS
    } else {
        TimestampingFlag::empty()
    };
    setsockopt(fd, sockopt::Timestamping, &flags)
}

/// The same, and when each datagram left.
fn stamp_all(fd: &OwnedFd) -> nix::Result<()> {
    let departures = TimestampingFlag::SOF_TIMESTAMPING_TX_SOFTWARE
        | TimestampingFlag::SOF_TIMESTAMPING_OPT_ID
        | TimestampingFlag::SOF_TIMESTAMPING_OPT_TSONLY;
    setsockopt(fd, sockopt::Timestamping, &(ARRIVALS | departures))
}

pub(super) fn checked<T>(
    option: &'static str,
    local: SocketAddr,
    result: Result<T, impl Into<io::Error>>,
) -> Result<T, OpenError> {
    result.map_err(|source| OpenError::Option {
        option,
        local,
        source: source.into(),
    })
}

const ARRIVALS: TimestampingFlag = TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE
    .union(TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE);

/// Both sides start here, so that 255 less what arrives is the number of hops (RFC 8762 section 4.2.1).
const TTL: u8 = 255;

/// A few batches; more would only let probes age in the queue.
const SEND_BUFFER: usize = 256 << 10;

/// Room for what comes in while the receiver is off the CPU for some milliseconds.
const RECEIVE_BUFFER: usize = 512 << 10;
