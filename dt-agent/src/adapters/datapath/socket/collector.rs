//! Receives replies, finds out when their probes left, and hands them on.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use dt_common::wire::{DtTlv, ReflectorPacket};

use super::event::{Arrival, Received, received};
use super::inbox::{Datagram, Inbox};
use super::open::ProbeSocket;
use super::probes::ProbeSockets;
use super::targets::{Targets, key};
use super::wake::{Waiter, Worker};
use crate::adapters::clock::{self, ClockState, SharedClock};

/// Why replies cannot be collected.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the thread that collects replies")]
pub struct CollectorError(#[source] io::Error);

/// Replies and other datagrams that were not handed on, by the reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CollectorCounts {
    /// No target has this session identifier, or none has this address.
    pub unknown_session: u64,
    /// The session's target has another address or port.
    pub wrong_peer: u64,
    /// Answers a probe of an agent that ran before this one.
    pub wrong_epoch: u64,
    /// Too short for a reply.
    pub malformed: u64,
    /// The socket had an error to report instead.
    pub errors: u64,
}

/// Collects replies in a thread of its own until it is dropped.
#[derive(Debug)]
pub struct Collector {
    counters: Arc<Counters>,
    _worker: Worker,
}

impl Collector {
    /// Starts collecting what arrives at `sockets`.
    ///
    /// `sink` gets the replies of one wake-up together, in the order in which each socket got them; it must not block,
    /// because meanwhile the sockets' buffers fill.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn start(
        sockets: &ProbeSockets,
        clock: SharedClock,
        sink: impl FnMut(&[Received]) + Send + 'static,
    ) -> Result<Self, CollectorError> {
        Self::start_at(sockets, sockets.sockets(), clock, sink)
    }

    /// The same `at` some of the sockets only.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn start_at(
        sockets: &ProbeSockets,
        at: &[Arc<ProbeSocket>],
        clock: SharedClock,
        mut sink: impl FnMut(&[Received]) + Send + 'static,
    ) -> Result<Self, CollectorError> {
        let counters = Arc::<Counters>::default();
        let mut desk = Desk {
            sockets: at.to_vec(),
            targets: sockets.targets(),
            clock,
            counters: Arc::clone(&counters),
            inbox: Inbox::new(),
            replies: Vec::with_capacity(MAX_REPLIES),
        };
        let work = move |waiter: Waiter| {
            let mut ready = Vec::new();
            while waiter.wait(&mut ready) {
                for place in &ready {
                    desk.drain(*place);
                    if !desk.replies.is_empty() {
                        sink(&desk.replies);
                        desk.replies.clear();
                    }
                }
            }
        };
        let worker = Worker::start("dt-collect", at, work).map_err(CollectorError)?;
        Ok(Self {
            counters,
            _worker: worker,
        })
    }

    /// What was not handed on so far.
    #[must_use]
    pub fn counts(&self) -> CollectorCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CollectorCounts {
            unknown_session: read(&self.counters.unknown_session),
            wrong_peer: read(&self.counters.wrong_peer),
            wrong_epoch: read(&self.counters.wrong_epoch),
            malformed: read(&self.counters.malformed),
            errors: read(&self.counters.errors),
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    unknown_session: AtomicU64,
    wrong_peer: AtomicU64,
    wrong_epoch: AtomicU64,
    malformed: AtomicU64,
    errors: AtomicU64,
}

/// Where replies are received and judged.
struct Desk {
    sockets: Vec<Arc<ProbeSocket>>,
    targets: Arc<RwLock<Targets>>,
    clock: SharedClock,
    counters: Arc<Counters>,
    inbox: Inbox,
    replies: Vec<Received>,
}

impl Desk {
    /// Takes what one socket has, but no more than a fair share.
    fn drain(&mut self, place: usize) {
        let Some(socket) = self.sockets.get(place).map(Arc::clone) else {
            return;
        };
        let clock = self.clock.state();
        // Software stamps are queued before the frame can reach the wire, so those of all replies below are here.
        drain_stamps(&socket, &mut self.inbox, clock, &self.counters);
        let targets = Arc::clone(&self.targets);
        let targets = targets.read().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..MAX_REPLIES {
            let datagram = match self.inbox.receive(&*socket) {
                Ok(Some(datagram)) => datagram,
                Ok(None) => return,
                Err(_) => {
                    count(&self.counters.errors);
                    continue;
                }
            };
            let arrival = arrival(&socket, &datagram, clock);
            match judge(&targets, datagram.bytes, arrival.from) {
                Ok(reply) => self.accept(&socket, &reply, &arrival),
                Err(refusal) => count(refusal(&self.counters)),
            }
        }
    }

    fn accept(&mut self, socket: &ProbeSocket, reply: &Reply, arrival: &Arrival) {
        let (ssid, seq) = (reply.ssid, reply.packet.sender_seq.get());
        let find = || socket.flights().and_then(|flights| flights.find(ssid, seq));
        let stamps = socket.flights().is_some();
        let mut flight = find();
        // Probe sent and answered after the stamps were drained.
        if flight.is_some_and(|flight| flight.left.is_none()) {
            drain_stamps(socket, &mut self.inbox, arrival.clock, &self.counters);
            flight = find();
        }
        let tlv = reply.tlv.as_ref();
        self.replies
            .push(received(ssid, &reply.packet, tlv, arrival, flight, stamps));
    }
}

/// A reply that is one of ours. Copied out of the buffer, which is needed again to read stamps.
struct Reply {
    ssid: u16,
    packet: ReflectorPacket,
    tlv: Option<DtTlv>,
}

type Refusal = fn(&Counters) -> &AtomicU64;

/// Whose reply it is, or why it is nobody's.
fn judge(targets: &Targets, bytes: &[u8], from: SocketAddr) -> Result<Reply, Refusal> {
    let (packet, rest) =
        ReflectorPacket::parse(bytes).map_err(|_| (|c: &Counters| &c.malformed) as Refusal)?;
    let ssid = match packet.ssid.get() {
        0 => targets.ssid_of(from),
        ssid => Some(ssid),
    };
    let known = ssid.and_then(|ssid| Some((ssid, targets.get(ssid)?)));
    let Some((ssid, target)) = known else {
        return Err(|c| &c.unknown_session);
    };
    if key(target.address) != key(from) {
        return Err(|c| &c.wrong_peer);
    }
    let tlv = DtTlv::first_of(rest).copied();
    if let (Some(tlv), Some((epoch, _))) = (&tlv, target.tlv)
        && tlv.sender_epoch.get() != epoch
    {
        return Err(|c| &c.wrong_epoch);
    }
    Ok(Reply {
        ssid,
        packet: *packet,
        tlv,
    })
}

fn arrival(socket: &ProbeSocket, datagram: &Datagram<'_>, clock: ClockState) -> Arrival {
    let user_received = clock::now();
    Arrival {
        from: datagram.from,
        local_port: socket.local().port(),
        ttl: datagram.ttl.unwrap_or(0),
        stamped: datagram.stamped(clock, user_received),
        user_received,
        clock,
    }
}

fn drain_stamps(socket: &ProbeSocket, inbox: &mut Inbox, clock: ClockState, counters: &Counters) {
    if socket.flights().is_none() {
        return;
    }
    for _ in 0..MAX_STAMPS {
        match inbox.transmit_stamp(socket) {
            Ok(Some(stamp)) => {
                let left = clock.mono_of_unix(stamp.unix_ns);
                if let Some(mut flights) = socket.flights() {
                    flights.handle_stamp(stamp.number, left, clock.generation);
                }
            }
            Ok(None) => return,
            Err(_) => count(&counters.errors),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Replies taken from one socket before the next socket has its turn.
const MAX_REPLIES: usize = 256;

/// Stamps likewise; as many as a full table of probes in flight would leave.
const MAX_STAMPS: usize = 4_096;
