//! What wakes `ping`: the next moment, a reply, or a signal to end.
//!
//! A timer of the kernel and not the runtime's, which rounds to milliseconds: probes may be 50 us apart.

use std::io;
use std::os::fd::AsFd;

use dt_common::time::MonoNanos;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};

/// Waits for all of these at once.
#[derive(Debug)]
pub(super) struct Bell {
    epoll: Epoll,
    timer: TimerFd,
    signals: SignalFd,
}

impl Bell {
    /// To be made before any thread starts, or a signal may reach one that does not expect it.
    pub(super) fn new() -> io::Result<Self> {
        let mut wanted = SigSet::empty();
        wanted.add(Signal::SIGINT);
        wanted.add(Signal::SIGTERM);
        wanted.thread_block()?;
        let bell = Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            timer: TimerFd::new(
                ClockId::CLOCK_MONOTONIC,
                TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK,
            )?,
            signals: SignalFd::with_flags(&wanted, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?,
        };
        bell.add(&bell.timer, TIMER)?;
        bell.add(&bell.signals, SIGNALS)?;
        Ok(bell)
    }

    /// Also wakes when this can be read.
    pub(super) fn listen(&self, to: &impl AsFd) -> io::Result<()> {
        self.add(to, READABLE)
    }

    /// Waits, at most until then; true: it is time to end.
    pub(super) fn wait(&self, until: MonoNanos) -> io::Result<bool> {
        // Zero would disarm the timer.
        let until = TimeSpec::from_duration(std::time::Duration::from_nanos(until.0.max(1)));
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME;
        self.timer.set(Expiration::OneShot(until), flags)?;
        let mut events = [EpollEvent::empty(); 3];
        match self.epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(count) => Ok(events[..count].iter().any(|event| event.data() == SIGNALS)),
            Err(nix::errno::Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn add(&self, to: &impl AsFd, token: u64) -> io::Result<()> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
        Ok(self.epoll.add(to, event)?)
    }
}

const TIMER: u64 = 0;
const SIGNALS: u64 = 1;
const READABLE: u64 = 2;
