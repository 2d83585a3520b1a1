//! The two ways that probes can go: stamped and collected by the programs, or by the sockets alone.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use dt_common::event::ReplyEvent;
use dt_common::time::MonoNanos;

use crate::adapters::clock::SharedClock;
use crate::adapters::datapath::ebpf::{EventRing, FanMaps};
use crate::adapters::datapath::socket::{
    Collector, CollectorError, Failed, Fan, OpenError, Probe, ProbeSockets, Received, SendFailure,
    SendReport, SocketOptions, Target, TargetError,
};
use crate::engine::sender::Sender;

/// Which way a peer's probes go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Path {
    /// T1 by `tc_egress`, T4 by the collector, events through the ring.
    Kernel,
    /// `SO_TIMESTAMPING`.
    Socket,
}

/// Sockets whose probes the programs stamp and whose replies they collect.
pub struct KernelPath {
    sockets: ProbeSockets,
    ring: EventRing,
    passed_up: Mailbox,
    _collector: Option<Collector>,
}

impl KernelPath {
    /// Opens the sockets; with `compare`, also listens to the replies that are passed up; with `making`, has the programs
    /// make probes.
    ///
    /// # Errors
    /// A socket is not to be had.
    pub fn open(
        options: &SocketOptions,
        ring: EventRing,
        clock: SharedClock,
        compare: bool,
        making: Option<(Sender, FanMaps)>,
    ) -> Result<Self, PathError> {
        let fan = match making {
            Some((sender, maps)) => Fan::open(options, sender, maps)?,
            None => None,
        };
        let sockets = ProbeSockets::open(options, None)?.with_fan(fan);
        let passed_up = Mailbox::default();
        let collector = if compare {
            Some(passed_up.collect(&sockets, clock)?)
        } else {
            None
        };
        Ok(Self {
            sockets,
            ring,
            passed_up,
            _collector: collector,
        })
    }
}

impl AsFd for KernelPath {
    /// Readable while events wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// Sockets that stamp and collect by themselves.
pub struct SocketPath {
    sockets: ProbeSockets,
    received: Mailbox,
    _collector: Collector,
}

impl SocketPath {
    /// Opens the sockets and listens.
    ///
    /// # Errors
    /// A socket is not to be had.
    pub fn open(options: &SocketOptions, clock: SharedClock) -> Result<Self, PathError> {
        let sockets = ProbeSockets::open(options, Some(clock.clone()))?;
        let received = Mailbox::default();
        let collector = received.collect(&sockets, clock)?;
        Ok(Self {
            sockets,
            received,
            _collector: collector,
        })
    }
}

impl SocketPath {
    /// Makes targets known that were set before this way was open.
    ///
    /// # Errors
    /// No socket can reach one of them.
    pub fn set_targets(&mut self, targets: &BTreeMap<u16, Target>) -> Result<(), TargetError> {
        for (ssid, target) in targets {
            self.sockets.set_target(*ssid, *target)?;
        }
        Ok(())
    }
}

/// Why a way is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// A socket cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Nobody can listen.
    #[error(transparent)]
    Collector(#[from] CollectorError),
    /// A target cannot be reached.
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// The ways that are open.
#[derive(Default)]
pub struct Paths {
    /// Through the programs.
    pub kernel: Option<KernelPath>,
    /// Through sockets alone.
    pub socket: Option<SocketPath>,
    /// How the way through sockets is opened when it is needed.
    spare: Option<(SocketOptions, SharedClock)>,
    targets: BTreeMap<u16, Target>,
    scratch: Vec<Received>,
}

impl Paths {
    /// These ways.
    #[must_use]
    pub fn new(kernel: Option<KernelPath>, socket: Option<SocketPath>) -> Self {
        Self {
            kernel,
            socket,
            ..Self::default()
        }
    }

    /// The way through the programs; that through sockets is opened when it is needed, and closed when it is not.
    ///
    /// While a socket wants to know when datagrams came, the kernel reads the clock for every packet of the host.
    #[must_use]
    pub fn with_spare(kernel: KernelPath, spare: SocketOptions, clock: SharedClock) -> Self {
        Self {
            kernel: Some(kernel),
            spare: Some((spare, clock)),
            ..Self::default()
        }
    }

    /// Opens the way through sockets, unless it is open or there is none.
    ///
    /// # Errors
    /// A socket is not to be had, or cannot reach a target.
    pub fn open_spare(&mut self) -> Result<(), PathError> {
        let (Some((options, clock)), None) = (&self.spare, &self.socket) else {
            return Ok(());
        };
        let mut socket = SocketPath::open(options, clock.clone())?;
        socket.set_targets(&self.targets)?;
        self.socket = Some(socket);
        Ok(())
    }

    /// Closes the way through sockets, if it can be opened again. Replies that are on their way there are lost.
    pub fn close_spare(&mut self) {
        if self.spare.is_some() {
            self.socket = None;
        }
    }

    /// Makes a target known on every open way, so that its session may change ways.
    ///
    /// # Errors
    /// A way has no socket that can reach it.
    pub fn set_target(&mut self, ssid: u16, target: Target) -> Result<(), TargetError> {
        if let Some(kernel) = &mut self.kernel {
            kernel.sockets.set_target(ssid, target)?;
        }
        if let Some(socket) = &mut self.socket {
            socket.sockets.set_target(ssid, target)?;
        }
        self.targets.insert(ssid, target);
        Ok(())
    }

    /// Forgets a target on every open way.
    pub fn remove_target(&mut self, ssid: u16) {
        self.targets.remove(&ssid);
        if let Some(kernel) = &mut self.kernel {
            kernel.sockets.remove_target(ssid);
        }
        if let Some(socket) = &mut self.socket {
            socket.sockets.remove_target(ssid);
        }
    }

    /// The source port of a slot on a way; 0 where the way is closed.
    #[must_use]
    pub fn source_port(&self, path: Path, slot: u16) -> u16 {
        let sockets = match path {
            Path::Kernel => self.kernel.as_ref().map(|kernel| &kernel.sockets),
            Path::Socket => self.socket.as_ref().map(|socket| &socket.sockets),
        };
        sockets
            .and_then(|sockets| sockets.port(0, slot))
            .unwrap_or(0)
    }

    /// Sends probes one way; all of them fail where it is closed.
    pub fn send_batch(&mut self, path: Path, batch: &[Probe], report: &mut SendReport) {
        let sockets = match path {
            Path::Kernel => self.kernel.as_mut().map(|kernel| &mut kernel.sockets),
            Path::Socket => self.socket.as_mut().map(|socket| &mut socket.sockets),
        };
        if let Some(sockets) = sockets {
            sockets.send_batch(batch, report);
            return;
        }
        *report = SendReport::default();
        let failure = SendFailure::Unknown;
        report
            .failed
            .extend((0..batch.len()).map(|index| Failed { index, failure }));
    }

    /// Hands on every reply that arrived.
    pub fn poll_events(&mut self, mut sink: impl FnMut(&ReplyEvent)) {
        if let Some(kernel) = &mut self.kernel {
            while let Some(event) = kernel.ring.poll_event() {
                sink(&event);
            }
        }
        if let Some(socket) = &mut self.socket {
            socket.received.swap(&mut self.scratch);
            for received in &self.scratch {
                sink(&received.event);
            }
        }
    }

    /// Hands on when user space got the replies that it saw: SSID, sequence number, time. After `poll_events`.
    pub fn poll_user_replies(&mut self, mut sink: impl FnMut(u16, u32, MonoNanos)) {
        for received in self.scratch.drain(..) {
            sink(
                received.event.ssid,
                received.event.seq,
                received.user_received,
            );
        }
        if let Some(kernel) = &mut self.kernel {
            kernel.passed_up.swap(&mut self.scratch);
            for received in self.scratch.drain(..) {
                sink(
                    received.event.ssid,
                    received.event.seq,
                    received.user_received,
                );
            }
        }
    }
}

/// Replies between the collecting thread and the probing one. Bounded: what finds no room is as good as lost in a ring.
#[derive(Clone, Debug, Default)]
struct Mailbox(Arc<Mutex<Vec<Received>>>);

impl Mailbox {
    fn collect(
        &self,
        sockets: &ProbeSockets,
        clock: SharedClock,
    ) -> Result<Collector, CollectorError> {
        let mailbox = self.clone();
        Collector::start(sockets, clock, move |replies: &[Received]| {
            let mut held = mailbox.0.lock().unwrap_or_else(PoisonError::into_inner);
            let room = MAX_HELD.saturating_sub(held.len()).min(replies.len());
            held.extend_from_slice(&replies[..room]);
        })
    }

    /// Takes everything, in exchange for the memory of `into`, which is cleared.
    fn swap(&self, into: &mut Vec<Received>) {
        into.clear();
        std::mem::swap(
            &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner),
            into,
        );
    }
}

const MAX_HELD: usize = 65_536;
