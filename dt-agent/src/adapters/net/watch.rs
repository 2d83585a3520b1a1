//! A thread that hears of links that come, change and go.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::channel::{Answer, split};
use super::{Link, NetError, decode, link};

/// Something happened to a link.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LinkEvent {
    /// It is new, or something about it changed.
    Changed(Link),
    /// It is gone; its index will not come back, its name may.
    Removed(Link),
    /// More happened than could be told: read all links again.
    Missed,
}

/// Watches links until it is dropped; the thread then ends within a second.
#[derive(Debug)]
pub struct LinkWatch {
    stopped: Arc<AtomicBool>,
}

impl LinkWatch {
    /// Starts watching the links of the network namespace that the calling thread is in.
    ///
    /// Links that exist already are not told: read them after this returned, so that none falls in between.
    ///
    /// # Errors
    /// No netlink socket or no thread is to be had.
    pub fn start(sink: impl FnMut(LinkEvent) + Send + 'static) -> Result<Self, NetError> {
        let socket = open().map_err(NetError::Open)?;
        let stopped = Arc::new(AtomicBool::new(false));
        let watch = Self {
            stopped: Arc::clone(&stopped),
        };
        thread::Builder::new()
            .name("dt-links".into())
            .spawn(move || listen(&socket, &stopped, sink))
            .map_err(NetError::Thread)?;
        Ok(watch)
    }
}

impl Drop for LinkWatch {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(netlink_sys::protocols::NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    socket.add_membership(RTNLGRP_LINK)?;
    // So that the order to stop is seen.
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(1))?;
    Ok(socket)
}

fn listen(socket: &Socket, stopped: &AtomicBool, mut sink: impl FnMut(LinkEvent)) {
    while !stopped.load(Ordering::Relaxed) {
        match socket.recv_from_full() {
            Ok((bytes, _)) => events(&bytes, &mut sink),
            Err(error) => match error.raw_os_error() {
                Some(nix::libc::EAGAIN | nix::libc::EINTR) => {}
                Some(nix::libc::ENOBUFS) => sink(LinkEvent::Missed),
                _ => return tracing::error!(%error, "Links are no longer watched."),
            },
        }
    }
}

fn events(bytes: &[u8], sink: &mut impl FnMut(LinkEvent)) {
    let mut rest = bytes;
    while let Some((message, next)) = split(rest) {
        rest = next;
        let answer = Answer {
            kind: message.message_type(),
            payload: message.payload().to_vec(),
        };
        let Some(message) = decode("a change of a link", &answer) else {
            sink(LinkEvent::Missed);
            continue;
        };
        if let Some(link) = link::parse(&message) {
            sink(match message {
                RouteNetlinkMessage::DelLink(_) => LinkEvent::Removed(link),
                _ => LinkEvent::Changed(link),
            });
        }
    }
}

/// `include/uapi/linux/rtnetlink.h`
const RTNLGRP_LINK: u32 = 1;
