//! Receives datagrams and transmit stamps, with what the kernel says about them.

use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use dt_common::time::MonoNanos;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrLike, SockaddrStorage, recvmsg};
use nix::sys::time::TimeSpec;

use crate::adapters::clock::ClockState;

/// One datagram and where, when and how it came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Datagram<'a> {
    pub bytes: &'a [u8],
    pub from: SocketAddr,
    /// When the kernel got it, in nanoseconds since 1970; `None` when it did not say.
    pub unix_ns: Option<u64>,
    /// TTL or hop limit with which it came.
    pub ttl: Option<u8>,
    /// The address it was sent to.
    pub to: Option<IpAddr>,
}

impl Datagram<'_> {
    /// When the kernel got it, on the monotonic clock, if that can be believed.
    ///
    /// A stamp lies in the past, but not far: otherwise the wall clock was stepped between stamp and conversion.
    pub(super) fn stamped(&self, clock: ClockState, now: MonoNanos) -> Option<MonoNanos> {
        let stamped = clock.mono_of_unix(self.unix_ns?);
        let past = stamped <= now.plus(SLACK_NS) && now.since(stamped) < MAX_QUEUED_NS;
        (past && !clock.is_changing()).then_some(stamped)
    }
}

/// When the kernel gave a datagram to the driver.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct TransmitStamp {
    /// Number of the datagram on its socket.
    pub number: u32,
    /// When, in nanoseconds since 1970.
    pub unix_ns: u64,
}

/// Memory to receive into, one datagram at a time.
#[derive(Debug)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    control: Vec<u8>,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; MAX_DATAGRAM],
            control: vec![0; CONTROL],
        }
    }

    /// The next datagram; `None` when there is none now.
    ///
    /// # Errors
    /// The error that the socket had pending, which is gone then.
    pub(super) fn receive(&mut self, socket: &impl AsFd) -> nix::Result<Option<Datagram<'_>>> {
        let mut parts = [IoSliceMut::new(&mut self.bytes)];
        let fd = socket.as_fd().as_raw_fd();
        let control = Some(self.control.as_mut_slice());
        let received =
            match recvmsg::<SockaddrStorage>(fd, &mut parts, control, MsgFlags::MSG_DONTWAIT) {
                Ok(received) => received,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(errno) => return Err(errno),
            };
        let from = received
            .address
            .as_ref()
            .and_then(address)
            .ok_or(Errno::EAFNOSUPPORT)?;
        let (mut unix_ns, mut ttl, mut to) = (None, None, None);
        for message in received.cmsgs()? {
            match message {
                ControlMessageOwned::ScmTimestampsns(stamps) => unix_ns = nanos(stamps.system),
                ControlMessageOwned::Ipv4Ttl(value) | ControlMessageOwned::Ipv6HopLimit(value) => {
                    ttl = u8::try_from(value).ok();
                }
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    to = Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes()));
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    to = Some(IpAddr::from(info.ipi6_addr.s6_addr));
                }
                _ => {}
            }
        }
        let length = received.bytes;
        Ok(Some(Datagram {
            bytes: &self.bytes[..length],
            from,
            unix_ns,
            ttl,
            to,
        }))
    }

    /// The next transmit stamp; `None` when there is none now. Other things in the error queue are skipped.
    ///
    /// # Errors
    /// The error queue cannot be read.
    pub(super) fn transmit_stamp(
        &mut self,
        socket: &impl AsFd,
    ) -> nix::Result<Option<TransmitStamp>> {
        let fd = socket.as_fd().as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_ERRQUEUE;
        loop {
            let mut parts = [IoSliceMut::new(&mut self.bytes)];
            let control = Some(self.control.as_mut_slice());
            let received = match recvmsg::<SockaddrStorage>(fd, &mut parts, control, flags) {
                Ok(received) => received,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(errno) => return Err(errno),
            };
            let (mut unix_ns, mut number) = (None, None);
            for message in received.cmsgs()? {
                match message {
                    ControlMessageOwned::ScmTimestampsns(stamps) => unix_ns = nanos(stamps.system),
                    ControlMessageOwned::Ipv4RecvErr(error, _)
                    | ControlMessageOwned::Ipv6RecvErr(error, _)
                        if error.ee_origin == libc::SO_EE_ORIGIN_TIMESTAMPING =>
                    {
                        number = Some(error.ee_data);
                    }
                    _ => {}
                }
            }
            if let (Some(unix_ns), Some(number)) = (unix_ns, number) {
                return Ok(Some(TransmitStamp { number, unix_ns }));
            }
        }
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    match storage.family()? {
        nix::sys::socket::AddressFamily::Inet => {
            storage.as_sockaddr_in().map(|v4| SocketAddr::from(*v4))
        }
        nix::sys::socket::AddressFamily::Inet6 => {
            storage.as_sockaddr_in6().map(|v6| SocketAddr::from(*v6))
        }
        _ => None,
    }
}

/// Nanoseconds since 1970; `None` for the zero that stands for "no such stamp".
fn nanos(stamp: TimeSpec) -> Option<u64> {
    let secs = u64::try_from(stamp.tv_sec()).ok()?;
    let nanos = u64::try_from(stamp.tv_nsec()).ok()?;
    (secs > 0).then(|| secs.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// The longest UDP payload there is.
const MAX_DATAGRAM: usize = 65_535;

/// Stamps, TTL, packet information and an error with its address, with room to spare.
const CONTROL: usize = 512;

/// By how much the conversion from the wall clock may be off.
const SLACK_NS: u64 = 1_000;

/// Longer than a datagram ever waits in a socket's buffer on a host that is alive.
const MAX_QUEUED_NS: u64 = 10_000_000_000;
