//! Waits for any of several sockets, or for the order to stop.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;

/// Waits in a thread of its own.
#[derive(Debug)]
pub(super) struct Waiter {
    epoll: Epoll,
    // Kept open for as long as it is waited for.
    _stop: Arc<EventFd>,
}

/// Stops a thread and waits for its end when dropped.
#[derive(Debug)]
pub(super) struct Worker {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Waiter {
    /// Waits until one of `sockets` has something, and tells which; `false` when it is time to stop.
    pub(super) fn wait(&self, ready: &mut Vec<usize>) -> bool {
        ready.clear();
        let mut events = [EpollEvent::empty(); 32];
        let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(count) => count,
            Err(Errno::EINTR) => return true,
            Err(error) => {
                tracing::error!(%error, "Nothing is received any more: cannot wait for sockets.");
                return false;
            }
        };
        let tokens = || events[..count].iter().map(EpollEvent::data);
        ready.extend(
            tokens()
                .filter(|token| *token != STOP)
                .map(|token| token as usize),
        );
        tokens().all(|token| token != STOP)
    }
}

impl Worker {
    /// Starts `work` in a thread, with a waiter for `sockets`, which it knows by their place.
    pub(super) fn start<F: AsFd>(
        name: &str,
        sockets: &[F],
        work: impl FnOnce(Waiter) + Send + 'static,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let stop = Arc::new(EventFd::new()?);
        epoll.add(&*stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        for (place, socket) in sockets.iter().enumerate() {
            epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, place as u64))?;
        }
        let waiter = Waiter {
            epoll,
            _stop: Arc::clone(&stop),
        };
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(move || work(waiter))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Writing fails only when the counter is full, and then it is readable anyway.
        _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            // A panic in there has been reported by the panic hook.
            _ = thread.join();
        }
    }
}

const STOP: u64 = u64::MAX;
