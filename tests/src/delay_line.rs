//! A wire that holds each frame for a time of its own: the ends of [`Lab::wire`], joined by a thread that forwards.
//!
//! It holds by `AF_PACKET`, because no program of the kernel can hold a packet and there is no netem here; how long it really
//! held does not matter, because [`Stamps`](crate::truth::Stamps) say so.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, send,
    setsockopt, socket, sockopt,
};

use crate::WIRE;
use crate::datapath::monotonic_ns;
use crate::lab::Lab;

/// For how long probes are held, in each direction evenly distributed over a range, ns. Other frames are not held.
#[derive(Clone, Debug)]
pub struct Holds {
    /// From `n1` to `n2`.
    pub there: Range<u64>,
    /// From `n2` to `n1`.
    pub back: Range<u64>,
}

/// The joined ends; dropping it cuts the wire, with what is held.
#[derive(Debug)]
pub struct DelayLine {
    ended: Arc<AtomicBool>,
    forwarder: Option<JoinHandle<Result<()>>>,
}

impl DelayLine {
    /// Joins the ends of the wire. `seed` decides which frame is held for how long.
    pub fn join(lab: &Lab, holds: &Holds, seed: u64) -> Result<Self> {
        ensure!(
            !holds.there.is_empty() && !holds.back.is_empty(),
            "a range of holds is empty"
        );
        let ends = lab
            .host(WIRE)
            .enter(|| -> Result<_> { Ok([End::open("to-n1")?, End::open("to-n2")?]) })??;
        let ended = Arc::new(AtomicBool::new(false));
        let mut forwarder = Forwarder {
            ends,
            holds: [holds.there.clone(), holds.back.clone()],
            held: BinaryHeap::new(),
            serial: 0,
            random: seed | 1,
            ended: Arc::clone(&ended),
        };
        let forwarder = thread::Builder::new()
            .name("delay-line".into())
            .spawn(move || forwarder.work())?;
        let line = Self {
            ended,
            forwarder: Some(forwarder),
        };
        lab.wait_reachable()?;
        Ok(line)
    }

    /// Cuts the wire; the error for which it had been cut before, if so.
    pub fn cut(mut self) -> Result<()> {
        self.ended.store(true, Ordering::Relaxed);
        match self.forwarder.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => anyhow::bail!("the delay line's thread panicked"),
            None => Ok(()),
        }
    }
}

impl Drop for DelayLine {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(forwarder) = self.forwarder.take() {
            // Whoever wants to know why it ended asks with `cut`.
            let _ = forwarder.join();
        }
    }
}

struct Forwarder {
    /// Towards `n1` and `n2`.
    ends: [End; 2],
    /// There, and back.
    holds: [Range<u64>; 2],
    held: BinaryHeap<Reverse<Held>>,
    serial: u64,
    random: u64,
    ended: Arc<AtomicBool>,
}

/// A frame that waits, ordered by when it goes on.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    until_ns: u64,
    /// First come, first served among those of one moment.
    serial: u64,
    /// The end by which it leaves.
    out: usize,
    frame: Vec<u8>,
}

impl Forwarder {
    fn work(&mut self) -> Result<()> {
        let mut buffer = vec![0; LONGEST_FRAME];
        while !self.ended.load(Ordering::Relaxed) {
            let mut is_idle = true;
            for from in [0, 1] {
                while let Some(len) = self.ends[from].receive(&mut buffer)? {
                    self.hold(from, &buffer[..len])?;
                    is_idle = false;
                }
            }
            self.release()?;
            if is_idle {
                let now = monotonic_ns()?;
                let next = self.held.peek().map_or(u64::MAX, |next| next.0.until_ns);
                let left = Duration::from_nanos(next.saturating_sub(now));
                thread::sleep(left.min(LOOK_EVERY));
            }
        }
        Ok(())
    }

    fn hold(&mut self, from: usize, frame: &[u8]) -> Result<()> {
        let for_ns = if is_probe(frame) {
            let Range { start, end } = self.holds[from].clone();
            start + self.chance() % (end - start)
        } else {
            0
        };
        self.serial += 1;
        self.held.push(Reverse(Held {
            until_ns: monotonic_ns()? + for_ns,
            serial: self.serial,
            out: 1 - from,
            frame: frame.to_vec(),
        }));
        Ok(())
    }

    fn release(&mut self) -> Result<()> {
        let now = monotonic_ns()?;
        while self.held.peek().is_some_and(|next| next.0.until_ns <= now) {
            let Some(Reverse(next)) = self.held.pop() else {
                break;
            };
            self.ends[next.out].send(&next.frame)?;
        }
        Ok(())
    }

    /// Xorshift (Marsaglia 2003): all that matters is that it is the same for the same seed.
    fn chance(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// One end of the wire.
struct End(OwnedFd);

impl End {
    fn open(device: &str) -> Result<Self> {
        let address = getifaddrs()?
            .filter(|one| one.interface_name == device)
            .find_map(|one| one.address?.as_link_addr().copied())
            .with_context(|| format!("no device {device}"))?;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            flags,
            SockProtocol::EthAll,
        )?;
        setsockopt(&socket, sockopt::RcvBuf, &BUFFER)?;
        bind(socket.as_raw_fd(), &address)?;
        Ok(Self(socket))
    }

    /// The next frame that came in by this end, if one is there.
    fn receive(&self, buffer: &mut [u8]) -> Result<Option<usize>> {
        loop {
            match recvfrom::<LinkAddr>(self.0.as_raw_fd(), buffer) {
                // What this process sent is seen, too.
                Ok((_, Some(from))) if from.pkttype() == PACKET_OUTGOING => {}
                Ok((len, _)) => return Ok(Some(len)),
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR | Errno::ENETDOWN) => {}
                Err(error) => return Err(error).context("the delay line cannot receive"),
            }
        }
    }

    fn send(&self, frame: &[u8]) -> Result<()> {
        match send(self.0.as_raw_fd(), frame, MsgFlags::empty()) {
            Ok(_) | Err(Errno::ENETDOWN) => Ok(()),
            Err(error) => Err(error).context("the delay line cannot send"),
        }
    }
}

/// Whether a frame is a request or a reply, by its ports.
fn is_probe(frame: &[u8]) -> bool {
    let udp = match frame.get(12..14) {
        Some([0x08, 0x00]) if frame.get(23) == Some(&17) => 34,
        Some([0x86, 0xdd]) if frame.get(20) == Some(&17) => 54,
        _ => return false,
    };
    let port = PORT.to_be_bytes();
    frame
        .get(udp..udp + 4)
        .is_some_and(|ports| ports[..2] == port || ports[2..] == port)
}

const PORT: u16 = 862;
const PACKET_OUTGOING: u8 = 4;
const LONGEST_FRAME: usize = 65_536;
const BUFFER: usize = 8 << 20;
const LOOK_EVERY: Duration = Duration::from_micros(50);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{self, Frame};

    #[test]
    fn requests_and_replies_are_probes_and_nothing_else_is() {
        let ends = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let frame = |source, destination| {
            let payload = frame::request(1, 2, 3, 4);
            Frame::udp((ends.0, source), (ends.1, destination), payload).bytes()
        };
        assert!(is_probe(&frame(61_000, 862)) && is_probe(&frame(862, 61_000)));
        assert!(!is_probe(&frame(61_000, 863)));
        let mut tcp = frame(61_000, 862);
        tcp[23] = 6;
        assert!(!is_probe(&tcp) && !is_probe(&tcp[..20]) && !is_probe(&[]));
    }
}
