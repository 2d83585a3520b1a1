//! Hands probes to the kernel, many in one system call, and finds out which of them it took.

use std::io::IoSlice;

use dt_common::time::MonoNanos;
use rustix::io::Errno;
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};

use super::classes::Classes;
use super::flights::Flight;
use super::open::ProbeSocket;
use super::probes::{Probe, SendFailure, SendReport, Sent};
use super::targets::Targets;
use super::template::{Head, Template, UserStamp};
use crate::adapters::clock::{self, ClockState};

/// What one call of `send_batch` works on.
#[derive(Clone, Copy)]
pub(super) struct Batch<'a> {
    pub probes: &'a [Probe],
    pub targets: &'a Targets,
    pub classes: &'a Classes,
    pub clock: Option<ClockState>,
}

/// One probe to send, in the order of sending.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Call {
    pub socket: usize,
    pub dscp: u8,
    /// Its place in the batch.
    pub index: usize,
}

impl Batch<'_> {
    /// Sends probes that leave by one socket; only the first may be timed.
    pub fn send(
        self,
        socket: &ProbeSocket,
        calls: &[Call],
        heads: &mut Vec<Head>,
        report: &mut SendReport,
    ) {
        // Sized at once: a filter does not say how much will pass, and would grow step by step, here per system call.
        let mut to: Vec<(SocketAddrAny, Template)> = Vec::with_capacity(calls.len());
        to.extend(calls.iter().filter_map(|call| {
            let ssid = self.probes[call.index].ssid;
            let target = self.targets.get(ssid)?;
            let template = Template::new(ssid, target.tlv);
            Some((target.address.as_any(), template))
        }));
        let handed_over = clock::now();
        let index = calls[0].index;
        if self.probes[index].timed {
            report.timed.push(Sent {
                index,
                at: handed_over,
            });
        }
        self.fill(heads, &to, calls, handed_over);
        self.register(socket, calls, handed_over);
        let parts: Vec<_> = to
            .iter()
            .zip(heads.iter())
            .zip(calls)
            .map(|(((_, template), head), call)| self.parts(*template, head, call))
            .collect();
        let mut controls: Vec<_> = to.iter().map(|_| SendAncillaryBuffer::default()).collect();
        let mut messages: Vec<_> = to
            .iter()
            .zip(&parts)
            .zip(&mut controls)
            .map(|(((address, _), parts), control)| MMsgHdr::new_with_addr(address, parts, control))
            .collect();
        self.transmit(socket, calls, &mut messages, handed_over, report);
    }

    fn parts<'b>(self, template: Template, head: &'b Head, call: &Call) -> [IoSlice<'b>; 2]
    where
        Self: 'b,
    {
        let class = self.probes[call.index].class;
        let padding = self.classes.padding(class, template);
        let head = &head[..template.head_len()];
        [IoSlice::new(head), IoSlice::new(padding)]
    }

    /// Writes what differs from probe to probe.
    fn fill(
        self,
        heads: &mut Vec<Head>,
        to: &[(SocketAddrAny, Template)],
        calls: &[Call],
        now: MonoNanos,
    ) {
        let stamp = self.clock.map(|clock| UserStamp {
            sent: clock.wall(now),
            estimate: clock.error_estimate,
            generation: clock.wire_generation(),
        });
        heads.clear();
        heads.extend(
            to.iter()
                .zip(calls)
                .map(|((_, template), call)| template.head(self.probes[call.index].seq, stamp)),
        );
    }

    /// Announces probes to whoever reads the kernel's stamps, which may come before the system call returns.
    fn register(self, socket: &ProbeSocket, calls: &[Call], handed_over: MonoNanos) {
        let (Some(clock), Some(mut flights)) = (self.clock, socket.flights()) else {
            return;
        };
        for call in calls {
            let probe = &self.probes[call.index];
            flights.handle_sent(Flight {
                ssid: probe.ssid,
                seq: probe.seq,
                handed_over,
                generation: clock.generation,
                left: None,
            });
        }
    }

    fn transmit(
        self,
        socket: &ProbeSocket,
        calls: &[Call],
        messages: &mut [MMsgHdr<'_>],
        handed_over: MonoNanos,
        report: &mut SendReport,
    ) {
        let mut start = 0;
        let mut retried = false;
        while start < messages.len() {
            let failure = match sendmmsg(socket, &mut messages[start..], SendFlags::empty()) {
                Ok(sent) if sent > 0 => {
                    report.sent += sent as u32;
                    start += sent;
                    continue;
                }
                Err(Errno::INTR) => continue,
                // Left by an earlier probe, and cleared by being reported: this one was not tried yet.
                Err(Errno::CONNREFUSED) if !retried => {
                    retried = true;
                    continue;
                }
                Ok(_) => SendFailure::Congested,
                Err(errno) => SendFailure::from(errno),
            };
            // Full buffers are full for the next one, too; anything else concerns this probe alone.
            let end = if failure == SendFailure::Congested {
                calls.len()
            } else {
                start + 1
            };
            for call in &calls[start..end] {
                report.fail(call.index, failure);
            }
            self.renumber(socket, failure, &calls[start..], end - start, handed_over);
            start = end;
        }
    }

    /// Brings the numbers of the stamps in step again after the first `failed` of `untried` were not sent.
    fn renumber(
        self,
        socket: &ProbeSocket,
        failure: SendFailure,
        untried: &[Call],
        failed: usize,
        handed_over: MonoNanos,
    ) {
        if self.clock.is_none() {
            return;
        }
        if failure.took_no_number() {
            if let Some(mut flights) = socket.flights() {
                flights.take_back(untried.len() as u32);
            }
        } else if let Err(error) = socket.restart_stamps() {
            tracing::warn!(%error, local = %socket.local(), "Probes of this port are timed by user space alone.");
        }
        self.register(socket, &untried[failed..], handed_over);
    }
}
