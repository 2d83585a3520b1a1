//! A reply as the socket datapath saw it, in the terms of the ring events.

use std::net::SocketAddr;

use dt_common::event::{EventFlags, ReplyEvent};
use dt_common::time::MonoNanos;
use dt_common::wire::{DtTlv, ReflectorPacket};

use super::flights::Flight;
use crate::adapters::clock::ClockState;

/// Where a stamp of this host was taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum StampSource {
    /// By the kernel, for this socket (`SO_TIMESTAMPING`).
    Kernel,
    /// By the agent, right before sending or after receiving.
    User,
    /// By a program, in the packet.
    Program,
}

impl StampSource {
    /// The kernel's stamp is taken where there is one.
    const fn of(kernel: Option<MonoNanos>) -> Self {
        match kernel {
            Some(_) => Self::Kernel,
            None => Self::User,
        }
    }
}

/// A reply that came up to a socket and belongs to a target.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Received {
    /// The reply, as a program would have reported it.
    pub event: ReplyEvent,
    /// Where T1 comes from.
    pub t1: StampSource,
    /// Where T4 comes from.
    pub t4: StampSource,
    /// When user space had it in its hands, which is what a prober without time stamps would take for T4.
    pub user_received: MonoNanos,
}

/// What the machine said about a reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub from: SocketAddr,
    pub local_port: u16,
    pub ttl: u8,
    /// When the kernel got it, if it is known.
    pub stamped: Option<MonoNanos>,
    pub user_received: MonoNanos,
    pub clock: ClockState,
}

/// Puts together what is known of one reply.
///
/// `flight` is what is known of its probe here; `stamps` says whether this side stamps probes at all.
pub(super) fn received(
    ssid: u16,
    packet: &ReflectorPacket,
    tlv: Option<&DtTlv>,
    arrival: &Arrival,
    flight: Option<Flight>,
    stamps: bool,
) -> Received {
    let left = flight.and_then(|flight| flight.left);
    let received = arrival.stamped.unwrap_or(arrival.user_received);
    let sender_generation = match (tlv, flight) {
        (Some(tlv), _) => tlv.sender_generation.get(),
        (None, Some(flight)) => flight.generation as u16,
        (None, None) => arrival.clock.wire_generation(),
    };
    let event = ReplyEvent {
        received_ns: received.0,
        t1: left.map_or(packet.sender_timestamp.get(), |left| {
            arrival.clock.wall(left).0
        }),
        t2: packet.receive_timestamp.get(),
        t3: packet.timestamp.get(),
        t4: arrival.clock.wall(received).0,
        seq: packet.sender_seq.get(),
        reflector_seq: packet.seq.get(),
        ssid,
        source_port: arrival.local_port,
        error_estimate: packet.error_estimate.get(),
        sender_generation,
        local_generation: arrival.clock.wire_generation(),
        reply_ttl: arrival.ttl,
        request_ttl: packet.sender_ttl,
        flags: EventFlags::SOCKET | user_stamps(left, arrival.stamped),
        ..ReplyEvent::default()
    };
    Received {
        event: tlv.map_or(event, |tlv| with_tlv(event, tlv)),
        t1: if stamps {
            StampSource::of(left)
        } else {
            StampSource::Program
        },
        t4: StampSource::of(arrival.stamped),
        user_received: arrival.user_received,
    }
}

/// Which stamps had to be taken in user space.
const fn user_stamps(left: Option<MonoNanos>, arrived: Option<MonoNanos>) -> u8 {
    let t1 = if left.is_none() {
        EventFlags::T1_USER
    } else {
        0
    };
    let t4 = if arrived.is_none() {
        EventFlags::T4_USER
    } else {
        0
    };
    t1 | t4
}

fn with_tlv(event: ReplyEvent, tlv: &DtTlv) -> ReplyEvent {
    ReplyEvent {
        seen: tlv.seen.get(),
        sender_epoch: tlv.sender_epoch.get(),
        epoch: tlv.epoch.get(),
        received: tlv.received.get(),
        duplicates: tlv.duplicates.get(),
        corrupt: tlv.corrupt.get(),
        refused: tlv.refused.get(),
        reflector_generation: tlv.reflector_generation.get(),
        flags: event.flags | EventFlags::TLV,
        tlv_flags: tlv.flags,
        ..event
    }
}
