//! The two ways that probes can go: stamped and collected by the programs, or by the sockets alone.

mod outlet;

use std::os::fd::{AsFd, BorrowedFd};

use dt_common::event::ReplyEvent;
use dt_common::time::MonoNanos;

use self::outlet::Outlet;
use crate::adapters::clock::SharedClock;
use crate::adapters::datapath::ebpf::{EventRing, FanMaps};
use crate::adapters::datapath::socket::{
    CollectorError, Failed, Fan, OpenError, Probe, ProbeSockets, Received, SendFailure, SendReport,
    SocketOptions, Target, TargetError,
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
    outlet: Outlet,
    ring: EventRing,
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
        let outlet = Outlet::new(sockets, compare.then_some(clock))?;
        Ok(Self { outlet, ring })
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
    outlet: Outlet,
}

impl SocketPath {
    /// Opens the sockets and listens.
    ///
    /// # Errors
    /// A socket is not to be had.
    pub fn open(options: &SocketOptions, clock: SharedClock) -> Result<Self, PathError> {
        let sockets = ProbeSockets::open(options, Some(clock.clone()))?;
        Self::of(sockets, clock)
    }

    fn of(sockets: ProbeSockets, clock: SharedClock) -> Result<Self, PathError> {
        let outlet = Outlet::new(sockets, Some(clock))?;
        Ok(Self { outlet })
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
    /// A socket is not to be had.
    pub fn open_spare(&mut self) -> Result<(), PathError> {
        let (Some((options, clock)), None) = (self.spare.clone(), &self.socket) else {
            return Ok(());
        };
        self.open_socket(&options, clock)
    }

    /// Opens the way through sockets, towards the targets of the programs' where that is open.
    ///
    /// # Errors
    /// A socket is not to be had.
    pub fn open_socket(
        &mut self,
        options: &SocketOptions,
        clock: SharedClock,
    ) -> Result<(), PathError> {
        let mut sockets = ProbeSockets::open(options, Some(clock.clone()))?;
        if let Some(kernel) = &self.kernel {
            // Also those that were set before this way was open.
            sockets = sockets.with_targets_of(&kernel.outlet.sockets);
        }
        self.socket = Some(SocketPath::of(sockets, clock)?);
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
        for outlet in self.outlets_mut() {
            outlet.sockets.set_target(ssid, target)?;
        }
        Ok(())
    }

    /// Forgets a target on every open way.
    pub fn remove_target(&mut self, ssid: u16) {
        for outlet in self.outlets_mut() {
            outlet.sockets.remove_target(ssid);
        }
    }

    /// Changes the source port that changes, on each way whose time has come.
    pub fn rotate(&mut self, keep_ns: u64, now: MonoNanos) {
        for outlet in self.outlets_mut() {
            if let Err(error) = outlet.rotate(keep_ns, now) {
                tracing::warn!(%error, "The rotating source port cannot be changed for now.");
            }
        }
    }

    fn outlets_mut(&mut self) -> impl Iterator<Item = &mut Outlet> {
        let kernel = self.kernel.as_mut().map(|kernel| &mut kernel.outlet);
        let socket = self.socket.as_mut().map(|socket| &mut socket.outlet);
        kernel.into_iter().chain(socket)
    }

    /// The source port of a slot on a way; 0 where the way is closed.
    #[must_use]
    pub fn source_port(&self, path: Path, slot: u16) -> u16 {
        let outlet = match path {
            Path::Kernel => self.kernel.as_ref().map(|kernel| &kernel.outlet),
            Path::Socket => self.socket.as_ref().map(|socket| &socket.outlet),
        };
        outlet
            .and_then(|outlet| outlet.sockets.port(0, slot))
            .unwrap_or(0)
    }

    /// Sends probes one way; all of them fail where it is closed.
    pub fn send_batch(&mut self, path: Path, batch: &[Probe], report: &mut SendReport) {
        let outlet = match path {
            Path::Kernel => self.kernel.as_mut().map(|kernel| &mut kernel.outlet),
            Path::Socket => self.socket.as_mut().map(|socket| &mut socket.outlet),
        };
        if let Some(outlet) = outlet {
            outlet.sockets.send_batch(batch, report);
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
            socket.outlet.received.swap(&mut self.scratch);
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
            kernel.outlet.received.swap(&mut self.scratch);
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
