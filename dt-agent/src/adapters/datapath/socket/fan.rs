//! Has the programs make probes: one packet lists up to 64 of them, see `dt_common::fan`.
//!
//! A way of sending, not a way of probing: what cannot be made goes through the sockets as ever, in the same batch. Only
//! whole runs of one target's probes are made or not, so that they leave in order.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use dt_common::fan::{FAN_MAGIC, FAN_PORT, FanHead, FanOrder, FanReport, MAX_FAN_ORDERS};
use dt_common::time::MonoNanos;
use rustix::net::{SendFlags, sendto};
use zerocopy::IntoBytes;

use super::SocketOptions;
use super::classes::Classes;
use super::open::{OpenError, ProbeSocket, UdpOptions, open_udp, set_dscp};
use super::probes::{Probe, SendFailure, SendReport};
use super::targets::{Target, Targets};
use super::template::Template;
use crate::adapters::clock;
use crate::adapters::datapath::ebpf::FanMaps;
use crate::engine::sender::Sender;

/// Sockets for packets that list probes, one for each own address.
pub struct Fan {
    maps: FanMaps,
    sockets: Vec<ListSocket>,
    least: usize,
    /// Not before: the programs did not meet the last packet.
    rests_until: MonoNanos,
    rest_ns: u64,
    serial: u64,
    // Scratch, kept for its memory.
    packet: Vec<u8>,
    chosen: Vec<Chosen>,
}

/// Where lists are handed over. The probes get the code point of the list.
#[derive(Debug)]
struct ListSocket {
    fd: OwnedFd,
    local: SocketAddr,
    dscp: u8,
}

/// A probe that can be made: its code point, and its place in the batch.
type Chosen = (u8, usize);

impl Fan {
    /// Opens the sockets; none where `sender` wants none.
    ///
    /// # Errors
    /// A socket is not to be had.
    pub fn open(
        options: &SocketOptions,
        sender: Sender,
        maps: FanMaps,
    ) -> Result<Option<Self>, OpenError> {
        let Some(least) = sender.least() else {
            return Ok(None);
        };
        let udp = UdpOptions {
            dscp: options.first_dscp(),
            mark: options.mark,
            without_checksum: true,
            is_list: true,
            ..UdpOptions::default()
        };
        let sockets = options.locals.iter().map(|local| {
            let mut local = *local;
            local.set_port(0);
            let (fd, dscp) = (open_udp(local, udp)?, udp.dscp);
            Ok(ListSocket { fd, local, dscp })
        });
        Ok(Some(Self {
            maps,
            sockets: sockets.collect::<Result<_, _>>()?,
            least,
            rests_until: MonoNanos(0),
            rest_ns: FIRST_REST_NS,
            serial: 0,
            packet: Vec::new(),
            chosen: Vec::with_capacity(MAX_FAN_ORDERS),
        }))
    }

    /// Has made what can be made, and marks it in `made`, which has a place for each probe.
    pub(super) fn make(&mut self, batch: Batch<'_>, report: &mut SendReport, made: &mut [bool]) {
        if clock::now() < self.rests_until {
            return;
        }
        let mut chosen = std::mem::take(&mut self.chosen);
        for local in 0..self.sockets.len() {
            chosen.clear();
            let suits = |(index, probe): (usize, &Probe)| {
                let target = batch.targets.get(probe.ssid).filter(|_| !probe.by_socket)?;
                let suits = target.local == local && batch.is_smallest_of_ours(probe, target);
                let class = batch.classes.get(probe.class).filter(|_| suits)?;
                Some((class.dscp, index))
            };
            chosen.extend(batch.probes.iter().enumerate().filter_map(suits));
            chosen.sort_unstable();
            let mut met = chosen.len() >= self.least;
            let alike = chosen.chunk_by(|one, next| one.0 == next.0);
            for part in alike.flat_map(|alike| alike.chunks(MAX_FAN_ORDERS)) {
                // A later part may list probes to the same target: in order, or not at all.
                met = met && self.make_part(local, part, batch, report, made);
            }
        }
        self.chosen = chosen;
    }

    /// Has one packet's probes made; false when no program met it.
    fn make_part(
        &mut self,
        local: usize,
        part: &[Chosen],
        batch: Batch<'_>,
        report: &mut SendReport,
        made: &mut [bool],
    ) -> bool {
        let head = self.next_head();
        self.packet.clear();
        self.packet.extend_from_slice(head.as_bytes());
        let mut towards = None;
        for (_, index) in part {
            let probe = &batch.probes[*index];
            let Some((target, order)) = batch.order(probe, local) else {
                return false;
            };
            towards.get_or_insert(target.address);
            self.packet.extend_from_slice(order.as_bytes());
        }
        let dscp = part.first().map_or(0, |(dscp, _)| *dscp);
        let told = towards.and_then(|towards| self.hand_over(local, dscp, towards, head.serial));
        let Some(told) = told else {
            self.rests_until = clock::now().plus(self.rest_ns);
            self.rest_ns = (self.rest_ns * 2).min(LAST_REST_NS);
            return false;
        };
        self.rest_ns = FIRST_REST_NS;
        for (place, (_, index)) in part.iter().enumerate() {
            if told.made >> place & 1 == 0 {
                continue;
            }
            made[*index] = true;
            if told.congested >> place & 1 == 0 {
                report.sent += 1;
            } else {
                report.fail(*index, SendFailure::Congested);
            }
        }
        true
    }

    /// Rises from packet to packet, whatever the clock's resolution.
    fn next_head(&mut self) -> FanHead {
        self.serial = clock::now().0.max(self.serial + 1);
        FanHead {
            magic: FAN_MAGIC,
            serial: self.serial,
        }
    }

    /// Sends the packet and asks what became of it; nothing if no program worked on it, and then none ever will.
    fn hand_over(
        &mut self,
        local: usize,
        dscp: u8,
        towards: SocketAddr,
        serial: u64,
    ) -> Option<FanReport> {
        let mut address = towards;
        address.set_port(FAN_PORT);
        let socket = self.sockets.get_mut(local)?;
        if socket.dscp != dscp {
            set_dscp(&socket.fd, socket.local, dscp).ok()?;
            socket.dscp = dscp;
        }
        let sent = sendto(&socket.fd, &self.packet, SendFlags::empty(), &address);
        let told = self.maps.report().ok()?;
        if sent.is_ok() && told.done == serial {
            return Some(told);
        }
        // It may wait for a neighbour's address, and would be worked on later, after the sockets sent the same.
        self.maps.revoke(serial).ok()?;
        fence(Ordering::SeqCst);
        for _ in 0..MOST_LOOKS {
            let told = self.maps.report().ok()?;
            if told.serial != serial {
                return None;
            }
            if told.done == serial {
                return Some(told);
            }
            std::thread::yield_now();
        }
        None
    }
}

impl std::fmt::Debug for Fan {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Fan")
            .field("sockets", &self.sockets)
            .field("least", &self.least)
            .finish_non_exhaustive()
    }
}

/// What is to be sent, and by what.
#[derive(Clone, Copy)]
pub(super) struct Batch<'a> {
    pub probes: &'a [Probe],
    pub targets: &'a Targets,
    pub classes: &'a Classes,
    /// Own address by own address, and within that port by port.
    pub sockets: &'a [Arc<ProbeSocket>],
    /// Ports of each own address.
    pub ports: usize,
}

impl<'a> Batch<'a> {
    /// Whether it goes to one of our reflectors and nothing follows the head, which is what the programs make.
    fn is_smallest_of_ours(self, probe: &Probe, target: &Target) -> bool {
        let template = Template::new(probe.ssid, target.tlv);
        template.is_ours() && self.classes.padding(probe.class, template).is_empty()
    }

    /// A probe as the programs want it told; none for one that they cannot make.
    fn order(self, probe: &Probe, local: usize) -> Option<(&'a Target, FanOrder)> {
        let target = self.targets.get(probe.ssid)?;
        let (sender_epoch, flags) = target.tlv?;
        let slot = usize::from(probe.slot);
        let socket = self.sockets.get(local * self.ports + slot)?;
        let order = FanOrder {
            seq: probe.seq,
            sender_epoch,
            ssid: probe.ssid,
            source_port: socket.local().port(),
            flags,
            pad: [0; 3],
        };
        (slot < self.ports).then_some((target, order))
    }
}

/// How long probes go through the sockets after a packet met no program; longer each time, because whatever took it may say so
/// in a log.
const FIRST_REST_NS: u64 = 1_000_000_000;
const LAST_REST_NS: u64 = 64_000_000_000;
/// A packet that is worked on by another CPU is done within some tens of microseconds.
const MOST_LOOKS: usize = 10_000;
