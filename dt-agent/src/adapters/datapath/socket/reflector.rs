//! Answers probes from user space: all of them in `socket` mode, else those that the programs pass up.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dt_common::map::Reason;
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};

use super::inbox::Inbox;
use super::open::{self, OpenError, UdpOptions, bound_to, checked, open_udp};
use super::wake::{Waiter, Worker};
use crate::adapters::clock::{self, SharedClock};
use crate::engine::random::Random;
use crate::engine::reflector::{AllowList, Policy, Reflector, Request, set_sent};

/// Where and how to answer.
#[derive(Clone, Debug)]
pub struct ReflectorOptions {
    /// Own addresses to answer on, with their scope where link-local; the port in them says nothing. Unspecified ones
    /// mean all of that family.
    pub locals: Vec<SocketAddr>,
    /// The policy; port 0 lets the kernel choose one, the same for all addresses.
    pub policy: Policy,
    /// Chance for the epochs of sessions; another one at each start.
    pub random: Random,
}

/// Why requests are not answered from user space.
#[derive(Debug, thiserror::Error)]
pub enum ReflectorError {
    /// A socket is not to be had.
    #[error("cannot open the reflector's socket")]
    Open(#[from] OpenError),
    /// No thread is to be had.
    #[error("cannot start the reflector's thread")]
    Thread(#[source] std::io::Error),
}

/// Answers in a thread of its own until it is dropped. At first it answers nobody, see [`Self::set_allowed`].
#[derive(Debug)]
pub struct SocketReflector {
    reflector: Arc<Mutex<Reflector>>,
    unsent: Arc<AtomicU64>,
    sockets: Arc<[ReflectorSocket]>,
    locals: Vec<SocketAddr>,
    _worker: Worker,
}

impl SocketReflector {
    /// Binds all sockets and starts answering; the kernel says when requests came.
    ///
    /// # Errors
    /// Any of the sockets, or the thread, is not to be had.
    pub fn start(options: &ReflectorOptions, clock: SharedClock) -> Result<Self, ReflectorError> {
        Self::start_with(options, clock, true)
    }

    /// The same for hosts on which programs answer all but the odd ones: T2 is taken when a request is read.
    ///
    /// Kernel stamps would cost every packet that the host receives a clock reading, which a few odd requests are not worth.
    ///
    /// # Errors
    /// Any of the sockets, or the thread, is not to be had.
    pub fn start_beside_programs(
        options: &ReflectorOptions,
        clock: SharedClock,
    ) -> Result<Self, ReflectorError> {
        Self::start_with(options, clock, false)
    }

    fn start_with(
        options: &ReflectorOptions,
        clock: SharedClock,
        kernel_stamps: bool,
    ) -> Result<Self, ReflectorError> {
        let (sockets, policy) = bind_all(options, kernel_stamps)?;
        let reflector = Reflector::new(policy, options.random.clone());
        let reflector = Arc::new(Mutex::new(reflector));
        let unsent = Arc::<AtomicU64>::default();
        let locals = sockets.iter().map(|socket| socket.local).collect();
        let sockets = Arc::<[_]>::from(sockets);
        let mut desk = Desk {
            sockets: Arc::clone(&sockets),
            reflector: Arc::clone(&reflector),
            unsent: Arc::clone(&unsent),
            clock,
            inbox: Inbox::new(),
            reply: Vec::new(),
        };
        let work = move |waiter| desk.work(&waiter);
        let worker = Worker::start("dt-reflect", &sockets, work).map_err(ReflectorError::Thread)?;
        Ok(Self {
            reflector,
            unsent,
            sockets,
            locals,
            _worker: worker,
        })
    }

    /// From now on lets the kernel say when requests came, or not. Needed where no program answers, dear elsewhere.
    pub fn stamp_arrivals(&self, on: bool) {
        for socket in &*self.sockets {
            if let Err(error) = open::stamp_arrivals(&socket.fd, on) {
                tracing::warn!(local = %socket.local, %error, "Requests are stamped when they are read.");
            }
        }
    }

    /// The addresses it answers on, with the port.
    #[must_use]
    pub fn locals(&self) -> &[SocketAddr] {
        &self.locals
    }

    /// Replaces the list of those who are answered; sessions go on.
    pub fn set_allowed(&self, allowed: AllowList) {
        lock(&self.reflector).set_allowed(allowed);
    }

    /// How many datagrams ended for this reason.
    #[must_use]
    pub fn count(&self, reason: Reason) -> u64 {
        lock(&self.reflector).count(reason)
    }

    /// How many answers the kernel did not take.
    #[must_use]
    pub fn unsent(&self) -> u64 {
        self.unsent.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct ReflectorSocket {
    fd: OwnedFd,
    local: SocketAddr,
}

impl ReflectorSocket {
    fn open(local: SocketAddr, kernel_stamps: bool) -> Result<Self, OpenError> {
        let options = UdpOptions {
            // A request that came in fragments is answered in fragments.
            fragment: true,
            packet_info: true,
            ..UdpOptions::default()
        };
        let fd = open_udp(local, options)?;
        if kernel_stamps {
            checked("SO_TIMESTAMPING", local, open::stamp_arrivals(&fd, true))?;
        }
        let local = bound_to(&fd, local)?;
        Ok(Self { fd, local })
    }
}

impl AsFd for ReflectorSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens all sockets; the policy has the port that they are bound to.
fn bind_all(
    options: &ReflectorOptions,
    kernel_stamps: bool,
) -> Result<(Vec<ReflectorSocket>, Policy), OpenError> {
    let mut policy = options.policy;
    let mut sockets = Vec::new();
    for local in &options.locals {
        let mut local = *local;
        local.set_port(policy.port);
        let socket = ReflectorSocket::open(local, kernel_stamps)?;
        policy.port = socket.local.port();
        sockets.push(socket);
    }
    if sockets.is_empty() {
        return Err(OpenError::Nothing);
    }
    Ok((sockets, policy))
}

/// Where requests are received and answered.
struct Desk {
    sockets: Arc<[ReflectorSocket]>,
    reflector: Arc<Mutex<Reflector>>,
    unsent: Arc<AtomicU64>,
    clock: SharedClock,
    inbox: Inbox,
    reply: Vec<u8>,
}

impl Desk {
    fn work(&mut self, waiter: &Waiter) {
        let mut ready = Vec::new();
        while waiter.wait(&mut ready) {
            for place in &ready {
                // A fair share each, so that one flooded address does not silence the others.
                for _ in 0..MAX_REQUESTS {
                    if !self.answer_next(*place) {
                        break;
                    }
                }
            }
        }
    }

    /// Answers one datagram; `false` when there is none.
    fn answer_next(&mut self, place: usize) -> bool {
        let Some(socket) = self.sockets.get(place) else {
            return false;
        };
        let datagram = match self.inbox.receive(socket) {
            Ok(Some(datagram)) => datagram,
            Ok(None) => return false,
            // An error that was pending, cleared by being reported.
            Err(_) => return true,
        };
        let now = clock::now();
        let clock = self.clock.state();
        let received = datagram.stamped(clock, now).unwrap_or(now);
        let destination = datagram.to.unwrap_or(socket.local.ip());
        let request = Request {
            source: datagram.from.ip(),
            source_port: datagram.from.port(),
            destination,
            ttl: datagram.ttl.unwrap_or(0),
            bytes: datagram.bytes,
            received: clock.wall(received),
            error_estimate: clock.error_estimate,
            generation: clock.wire_generation(),
        };
        let answered = lock(&self.reflector).handle_request(&request, now, &mut self.reply);
        if answered.is_ok() {
            set_sent(&mut self.reply, clock.wall(clock::now()));
            if send(socket, destination, datagram.from, &self.reply).is_err() {
                self.unsent.fetch_add(1, Ordering::Relaxed);
            }
        }
        true
    }
}

/// Sends a reply from the address that its request was sent to, without ever waiting.
fn send(socket: &ReflectorSocket, from: IpAddr, to: SocketAddr, reply: &[u8]) -> nix::Result<()> {
    let parts = [IoSlice::new(reply)];
    let fd = socket.as_fd().as_raw_fd();
    let to = SockaddrStorage::from(to);
    let flags = MsgFlags::MSG_DONTWAIT;
    // Interface 0: the route decides, or the scope in `to`.
    match from {
        IpAddr::V4(v4) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            sendmsg(
                fd,
                &parts,
                &[ControlMessage::Ipv4PacketInfo(&info)],
                flags,
                Some(&to),
            )
        }
        IpAddr::V6(v6) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: v6.octets(),
                },
                ipi6_ifindex: 0,
            };
            sendmsg(
                fd,
                &parts,
                &[ControlMessage::Ipv6PacketInfo(&info)],
                flags,
                Some(&to),
            )
        }
    }
    .map(drop)
}

fn lock(reflector: &Mutex<Reflector>) -> MutexGuard<'_, Reflector> {
    // Counters that a panicking holder left half written are worth more than no answers at all.
    reflector.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Requests taken from one socket before the next one has its turn.
const MAX_REQUESTS: usize = 64;
