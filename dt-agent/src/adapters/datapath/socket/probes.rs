//! Sends probes in batches through one socket for each own address and source port.
//!
//! What is known about a target is encoded once; a probe costs one copy of 96 bytes, one number, and its share of a
//! system call, with several code points also of one that sets them. What cannot be sent is reported probe by probe, because a local failure is not loss.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use dt_common::time::MonoNanos;
use rustix::io::Errno;

use super::calls::{Batch, Call};
use super::classes::Classes;
use super::fan::{self, Fan};
use super::open::{OpenError, ProbeSocket, SocketOptions, set_dscp};
use super::targets::{Target, TargetError, Targets};
use super::template::Head;
use crate::adapters::clock::SharedClock;
use crate::engine::rotation::Rotation;

/// Probes in one system call.
pub const MAX_BATCH: usize = 64;

/// One probe to send.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Probe {
    /// Whom to: the target set under this SSID.
    pub ssid: u16,
    /// Which of the source ports in [`SocketOptions::ports`], or the number behind them for the one that changes.
    pub slot: u16,
    /// Which of the classes in [`SocketOptions::classes`].
    pub class: u8,
    /// Sequence number.
    pub seq: u32,
    /// Whether the time at which user space handed it over is wanted, to be compared with what the kernel measures. Such
    /// a probe begins a system call of its own, so that it waits for no other.
    pub timed: bool,
    /// Not to be made in the kernel. The same for all probes to a target in one batch, so that they leave in order.
    pub by_socket: bool,
}

/// What became of a batch. To be used again: it keeps its memory.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SendReport {
    /// Probes that the kernel took.
    pub sent: u32,
    /// Probes that it did not.
    pub failed: Vec<Failed>,
    /// When the timed ones were handed over.
    pub timed: Vec<Sent>,
}

/// A probe that was not sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Failed {
    /// Its place in the batch.
    pub index: usize,
    /// Why.
    pub failure: SendFailure,
}

/// A timed probe that was handed over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sent {
    /// Its place in the batch.
    pub index: usize,
    /// When, on the monotonic clock.
    pub at: MonoNanos,
}

/// Why a probe was not sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, thiserror::Error)]
pub enum SendFailure {
    /// No target of this SSID, no socket of this slot, or no such class.
    #[error("the target, the source port or the class of probes is not known")]
    Unknown,
    /// The socket's or the machine's buffers are full.
    #[error("no buffer is left to send with")]
    Congested,
    /// No route, no interface, or the own address went away.
    #[error("there is no route from here")]
    Unreachable,
    /// A firewall rule of this host or a missing privilege.
    #[error("this host forbids it")]
    Forbidden,
    /// Longer than the interface's MTU.
    #[error("the probe is longer than the interface allows")]
    TooLong,
    /// Something else.
    #[error("system error {0}")]
    Other(i32),
}

/// The sockets that probes leave by, and the targets they go to.
#[derive(Debug)]
pub struct ProbeSockets {
    sockets: Vec<Arc<ProbeSocket>>,
    /// The code point that each has now.
    dscps: Vec<u8>,
    options: SocketOptions,
    classes: Classes,
    targets: Arc<RwLock<Targets>>,
    stamping: Option<SharedClock>,
    fan: Option<Fan>,
    made: Vec<bool>,
    order: Vec<Call>,
    heads: Vec<Head>,
}

impl ProbeSockets {
    /// Opens one socket for each own address and source port.
    ///
    /// With `stamping`, user space writes T1 into each probe and asks the kernel for a better one; without, that is left
    /// to the program on the egress.
    ///
    /// # Errors
    /// Any of the sockets is not to be had: none is open then.
    pub fn open(options: &SocketOptions, stamping: Option<SharedClock>) -> Result<Self, OpenError> {
        let stamps = stamping.is_some();
        let mut options = options.clone();
        let mut changing = match options.rotation {
            Some(rotation) => {
                let (port, sockets) = open_any(&options, &rotation, stamps)?;
                options.rotation = Some(rotation.with_first(port));
                sockets
            }
            None => Vec::new(),
        }
        .into_iter();
        let mut sockets = Vec::new();
        for local in &options.locals {
            for &port in &options.ports {
                sockets.push(open_one(&options, *local, port, stamps)?);
            }
            sockets.extend(changing.next());
        }
        if sockets.is_empty() {
            return Err(OpenError::Nothing);
        }
        Ok(Self {
            dscps: vec![options.first_dscp(); sockets.len()],
            sockets,
            classes: Classes::new(&options.classes),
            options,
            targets: Arc::default(),
            stamping,
            fan: None,
            made: Vec::with_capacity(MAX_BATCH),
            order: Vec::with_capacity(MAX_BATCH),
            heads: Vec::with_capacity(MAX_BATCH),
        })
    }

    /// The same towards the targets of others, which have the same own addresses: each is then told to either of them.
    #[must_use]
    pub fn with_targets_of(mut self, other: &Self) -> Self {
        self.targets = Arc::clone(&other.targets);
        self
    }

    /// Lets the programs make probes where they can; only for sockets whose probes they stamp.
    #[must_use]
    pub fn with_fan(mut self, fan: Option<Fan>) -> Self {
        self.fan = fan;
        self
    }

    /// The source port of `slot` on own address number `local`.
    #[must_use]
    pub fn port(&self, local: usize, slot: u16) -> Option<u16> {
        let index = self.index(local, slot)?;
        self.sockets.get(index).map(|socket| socket.local().port())
    }

    /// The sockets, own address by own address and within that port by port.
    #[must_use]
    pub fn sockets(&self) -> &[Arc<ProbeSocket>] {
        &self.sockets
    }

    /// Makes `target` the one that probes with this SSID go to.
    ///
    /// # Errors
    /// The SSID is 0, or no socket can reach the target; a target set before is kept.
    pub fn set_target(&mut self, ssid: u16, target: Target) -> Result<(), TargetError> {
        if ssid == 0 {
            return Err(TargetError::NoSsid);
        }
        let socket = self
            .index(target.local, 0)
            .and_then(|index| self.sockets.get(index))
            .filter(|socket| socket.local().is_ipv4() == target.address.is_ipv4());
        if socket.is_none() {
            return Err(TargetError::NoSocket {
                address: target.address,
                local: target.local,
            });
        }
        self.targets
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .set(ssid, target);
        Ok(())
    }

    /// Forgets the target with this SSID, if there is one; its replies are then nobody's.
    pub fn remove_target(&mut self, ssid: u16) {
        self.targets
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(ssid);
    }

    /// Sends what can be sent, never waiting, and reports the rest. Probes of one source port and class leave in the order
    /// given.
    pub fn send_batch(&mut self, probes: &[Probe], report: &mut SendReport) {
        report.sent = 0;
        report.failed.clear();
        report.timed.clear();
        let targets = Arc::clone(&self.targets);
        let targets = targets.read().unwrap_or_else(PoisonError::into_inner);
        self.made.clear();
        self.made.resize(probes.len(), false);
        if let Some(fan) = &mut self.fan {
            let batch = fan::Batch {
                probes,
                targets: &targets,
                classes: &self.classes,
                sockets: &self.sockets,
                ports: self.options.port_count(),
            };
            fan.make(batch, report, &mut self.made);
        }
        self.put_in_order(probes, &targets, report);
        let order = std::mem::take(&mut self.order);
        let batch = Batch {
            probes,
            targets: &targets,
            classes: &self.classes,
            clock: self.stamping.as_ref().map(SharedClock::state),
        };
        let together = |one: &Call, next: &Call| {
            one.socket == next.socket && one.dscp == next.dscp && !probes[next.index].timed
        };
        for run in order.chunk_by(together) {
            let at = run[0].socket;
            let (Some(socket), Some(dscp)) = (self.sockets.get(at), self.dscps.get_mut(at)) else {
                continue;
            };
            if let Err(errno) = turn_to(socket, dscp, run[0].dscp) {
                for call in run {
                    report.fail(call.index, SendFailure::from(errno));
                }
                continue;
            }
            for calls in run.chunks(MAX_BATCH) {
                batch.send(socket, calls, &mut self.heads, report);
            }
        }
        self.order = order;
    }

    /// The sockets of the port that changes; none where none does.
    #[must_use]
    pub fn changing(&self) -> Vec<Arc<ProbeSocket>> {
        let last = (self.options.port_count() as u16).saturating_sub(1);
        let locals = 0..self.options.locals.len();
        let of = |local| self.sockets.get(self.index(local, last)?).cloned();
        match self.options.rotation {
            Some(_) => locals.filter_map(of).collect(),
            None => Vec::new(),
        }
    }

    /// All other sockets.
    #[must_use]
    pub fn staying(&self) -> Vec<Arc<ProbeSocket>> {
        let ports = self.options.port_count();
        let is_staying = |place: usize| place % ports < self.options.ports.len();
        let sockets = self.sockets.iter().enumerate();
        sockets
            .filter(|(place, _)| is_staying(*place))
            .map(|(_, socket)| Arc::clone(socket))
            .collect()
    }

    /// Changes the port that changes, if its time has come; the sockets that it had until now, for the replies on their way.
    ///
    /// # Errors
    /// None of its ports is free: the one in use stays.
    pub fn rotate(&mut self, now: MonoNanos) -> Result<Vec<Arc<ProbeSocket>>, OpenError> {
        let Some(mut rotation) = self.options.rotation.filter(|one| one.is_due(now)) else {
            return Ok(Vec::new());
        };
        let opened = open_any(&self.options, &rotation, self.stamping.is_some());
        match &opened {
            Ok((port, _)) => rotation.handle_opened(*port, now),
            Err(_) => rotation.handle_failed(now),
        }
        self.options.rotation = Some(rotation);
        let last = (self.options.port_count() as u16).saturating_sub(1);
        let mut before = Vec::new();
        for (local, socket) in opened?.1.into_iter().enumerate() {
            if let Some(index) = self.index(local, last) {
                self.dscps[index] = self.options.first_dscp();
                before.push(std::mem::replace(&mut self.sockets[index], socket));
            }
        }
        Ok(before)
    }

    pub(super) fn targets(&self) -> Arc<RwLock<Targets>> {
        Arc::clone(&self.targets)
    }

    /// Sorts the probes that were not made by the socket they leave by, and by what that has to be told before.
    fn put_in_order(&mut self, probes: &[Probe], targets: &Targets, report: &mut SendReport) {
        self.order.clear();
        for (index, probe) in probes.iter().enumerate() {
            if self.made[index] {
                continue;
            }
            let socket = targets
                .get(probe.ssid)
                .and_then(|target| self.index(target.local, probe.slot));
            match socket.zip(self.classes.get(probe.class)) {
                Some((socket, class)) => self.order.push(Call {
                    socket,
                    dscp: class.dscp,
                    index,
                }),
                None => report.fail(index, SendFailure::Unknown),
            }
        }
        self.order.sort_unstable();
    }

    fn index(&self, local: usize, slot: u16) -> Option<usize> {
        let (slot, ports) = (usize::from(slot), self.options.port_count());
        let index = local.checked_mul(ports)?.checked_add(slot)?;
        (slot < ports && index < self.sockets.len()).then_some(index)
    }
}

impl SendReport {
    pub(super) fn fail(&mut self, index: usize, failure: SendFailure) {
        self.failed.push(Failed { index, failure });
    }
}

/// The first port of those that may be next that is free on all own addresses, and its sockets.
fn open_any(
    options: &SocketOptions,
    rotation: &Rotation,
    stamps: bool,
) -> Result<(u16, Vec<Arc<ProbeSocket>>), OpenError> {
    let mut failure = OpenError::Nothing;
    for port in rotation.candidates() {
        let locals = options.locals.iter();
        let sockets = locals.map(|local| open_one(options, *local, port, stamps));
        match sockets.collect() {
            Ok(sockets) => return Ok((port, sockets)),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn open_one(
    options: &SocketOptions,
    mut local: SocketAddr,
    port: u16,
    stamps: bool,
) -> Result<Arc<ProbeSocket>, OpenError> {
    local.set_port(port);
    ProbeSocket::open(local, options, stamps).map(Arc::new)
}

/// Gives a socket a code point, unless it has it.
fn turn_to(socket: &ProbeSocket, held: &mut u8, dscp: u8) -> Result<(), Errno> {
    if *held != dscp {
        set_dscp(socket, socket.local(), dscp)?;
        *held = dscp;
    }
    Ok(())
}

impl SendFailure {
    /// Whether the kernel refuses before it takes a number for the transmit stamp: while looking for a route, or while
    /// comparing with the MTU (Linux 6.18 `udp_sendmsg`, `__ip_append_data`).
    pub(super) const fn took_no_number(self) -> bool {
        matches!(self, Self::Unreachable | Self::TooLong)
    }
}

impl From<Errno> for SendFailure {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM => Self::Congested,
            Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ADDRNOTAVAIL => Self::Unreachable,
            Errno::PERM | Errno::ACCESS => Self::Forbidden,
            Errno::MSGSIZE => Self::TooLong,
            other => Self::Other(other.raw_os_error()),
        }
    }
}
