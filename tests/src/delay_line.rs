//! A wire that does to each probe what a script says: holds it for a time of its own (so that others overtake it), drops it,
//! doubles it, spoils it. The ends of [`Lab::wire`], joined by a thread that forwards.
//!
//! It holds by `AF_PACKET`, because no program of the kernel can hold a packet and there is no netem here; how long it really
//! held does not matter, because [`Stamps`](crate::truth::Stamps) say so.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, send,
    setsockopt, socket, sockopt,
};
use nix::unistd::Pid;

use crate::WIRE;
use crate::datapath::monotonic_ns;
use crate::frame;
use crate::lab::Lab;

/// For how long probes are held, in each direction evenly distributed over a range, ns. Other frames are not held.
#[derive(Clone, Debug)]
pub struct Holds {
    /// From `n1` to `n2`.
    pub there: Range<u64>,
    /// From `n2` to `n1`.
    pub back: Range<u64>,
}

impl Holds {
    /// As a script; `seed` decides which frame is held for how long.
    pub fn script(&self, seed: u64) -> Result<Script> {
        ensure!(
            !self.there.is_empty() && !self.back.is_empty(),
            "a range of holds is empty"
        );
        let ranges = self.clone();
        let mut random = seed | 1;
        Ok(Box::new(move |passing| {
            let Range { start, end } = if passing.is_there {
                ranges.there.clone()
            } else {
                ranges.back.clone()
            };
            vec![Onward::held(start + chance(&mut random) % (end - start))]
        }))
    }
}

/// A request or a reply that came to the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passing {
    /// From `n1` to `n2`.
    pub is_there: bool,
    /// How many there were in this direction, this one included.
    pub number: u64,
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// Code point, 0 to 63.
    pub dscp: u8,
    /// UDP payload, bytes.
    pub payload_bytes: usize,
}

/// One copy that goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Onward {
    /// After so long, ns.
    pub hold_ns: u64,
    /// What else happens to it.
    pub damage: Damage,
}

/// What a copy suffers. The payload stays, because a checksum that only covers the pseudo-header would say nothing of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Damage {
    /// Nothing.
    #[default]
    None,
    /// Its checksum has a bit turned over.
    Checksum,
    /// Its checksum is the pseudo-header's sum, as that of packets of the same machine is before a device completes it. Of
    /// [`Damage::Checksum`] this comes once in 65,536 times.
    Accident,
}

impl Onward {
    /// A sound one.
    #[must_use]
    pub const fn held(hold_ns: u64) -> Self {
        Self {
            hold_ns,
            damage: Damage::None,
        }
    }
}

/// Decides what becomes of each probe: the copies that go on, none if it is dropped. Other frames pass.
pub type Script = Box<dyn FnMut(&Passing) -> Vec<Onward> + Send>;

/// The joined ends; dropping it cuts the wire, with what is held.
#[derive(Debug)]
pub struct DelayLine {
    ended: Arc<AtomicBool>,
    forwarder: Option<JoinHandle<Result<()>>>,
}

impl DelayLine {
    /// Joins the ends of the wire, to do what the script says.
    pub fn join(lab: &Lab, script: Script) -> Result<Self> {
        let ends = lab
            .host(WIRE)
            .enter(|| -> Result<_> { Ok([End::open("to-n1")?, End::open("to-n2")?]) })??;
        let ended = Arc::new(AtomicBool::new(false));
        let mut forwarder = Forwarder {
            ends,
            script,
            passed: [0; 2],
            held: BinaryHeap::new(),
            serial: 0,
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
    script: Script,
    /// Probes there, and back.
    passed: [u64; 2],
    held: BinaryHeap<Reverse<Held>>,
    serial: u64,
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
        // Frames keep their order from here to the hosts only if they all go through one CPU's queues.
        let mut one = CpuSet::new();
        one.set(0)?;
        sched_setaffinity(Pid::from_raw(0), &one)?;
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
        let copies = match look(frame) {
            Some((passing, _)) => {
                self.passed[from] += 1;
                let (is_there, number) = (from == 0, self.passed[from]);
                (self.script)(&Passing {
                    is_there,
                    number,
                    ..passing
                })
            }
            None => vec![Onward::default()],
        };
        let now = monotonic_ns()?;
        for copy in copies {
            let mut frame = frame.to_vec();
            spoil(&mut frame, copy.damage);
            self.serial += 1;
            self.held.push(Reverse(Held {
                until_ns: now + copy.hold_ns,
                serial: self.serial,
                out: 1 - from,
                frame,
            }));
        }
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
}

/// Xorshift (Marsaglia 2003): all that matters is that it is the same for the same seed.
fn chance(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
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

/// A frame that is a request or a reply, by its ports, and where its UDP header begins.
fn look(frame: &[u8]) -> Option<(Passing, usize)> {
    let byte = |at: usize| frame.get(at).copied();
    let (udp, addresses, class) = match frame.get(12..14)? {
        [0x08, 0x00] if byte(23) == Some(UDP) => {
            let address = |at| <[u8; 4]>::try_from(frame.get(at..at + 4)?).ok();
            (
                34,
                [address(26)?, address(30)?].map(IpAddr::from),
                byte(15)?,
            )
        }
        [0x86, 0xdd] if byte(20) == Some(UDP) => {
            let address = |at| <[u8; 16]>::try_from(frame.get(at..at + 16)?).ok();
            let class = byte(14)? << 4 | byte(15)? >> 4;
            (54, [address(22)?, address(38)?].map(IpAddr::from), class)
        }
        _ => return None,
    };
    let number = |at| Some(u16::from_be_bytes([byte(at)?, byte(at + 1)?]));
    let (source, destination) = (number(udp)?, number(udp + 2)?);
    let passing = Passing {
        is_there: false,
        number: 0,
        source: SocketAddr::new(addresses[0], source),
        destination: SocketAddr::new(addresses[1], destination),
        dscp: class >> 2,
        payload_bytes: usize::from(number(udp + 4)?).saturating_sub(8),
    };
    (source == PORT || destination == PORT).then_some((passing, udp))
}

fn spoil(frame: &mut [u8], damage: Damage) {
    let Some((passing, udp)) = look(frame) else {
        return;
    };
    let Some(checksum) = frame.get_mut(udp + 6..udp + 8) else {
        return;
    };
    match damage {
        Damage::None => {}
        Damage::Checksum => checksum[1] ^= 0x10,
        Damage::Accident => {
            let ends = (passing.source.ip(), passing.destination.ip());
            let sum = frame::pseudo_header_sum(ends, passing.payload_bytes as u16 + 8);
            checksum.copy_from_slice(&sum.to_be_bytes());
        }
    }
}

const UDP: u8 = 17;

const PORT: u16 = 862;
const PACKET_OUTGOING: u8 = 4;
const LONGEST_FRAME: usize = 65_536;
const BUFFER: usize = 8 << 20;
const LOOK_EVERY: Duration = Duration::from_micros(50);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{self, Checksum, Frame};

    #[test]
    fn requests_and_replies_are_probes_and_nothing_else_is() {
        let ends = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let frame = |source, destination| {
            let payload = frame::request(1, 2, 3, 4);
            Frame::udp((ends.0, source), (ends.1, destination), payload).bytes()
        };
        let is_probe = |frame: &[u8]| look(frame).is_some();
        assert!(is_probe(&frame(61_000, 862)) && is_probe(&frame(862, 61_000)));
        assert!(!is_probe(&frame(61_000, 863)));
        let mut tcp = frame(61_000, 862);
        tcp[23] = 6;
        assert!(!is_probe(&tcp) && !is_probe(&tcp[..20]) && !is_probe(&[]));
    }

    #[test]
    fn a_script_sees_flow_code_point_and_size_by_both_versions() {
        for ends in [
            (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])),
            ([0xfd; 16].into(), [0xfc; 16].into()),
        ] {
            let payload = frame::request(1, 2, 3, 4);
            let length = payload.len();
            let frame = Frame {
                tos: 46 << 2 | 1,
                ..Frame::udp((ends.0, 61_000), (ends.1, 862), payload)
            };
            let (passing, udp) = look(&frame.bytes()).expect("a request");
            assert_eq!(udp, frame.udp_offset());
            assert_eq!(
                passing,
                Passing {
                    is_there: false,
                    number: 0,
                    source: SocketAddr::new(ends.0, 61_000),
                    destination: SocketAddr::new(ends.1, 862),
                    dscp: 46,
                    payload_bytes: length,
                }
            );
            let spoilt = |damage| {
                let mut bytes = frame.bytes();
                spoil(&mut bytes, damage);
                bytes
            };
            let (sound, wrong) = (spoilt(Damage::None), spoilt(Damage::Checksum));
            assert_eq!(sound, frame.bytes());
            let differing = sound.iter().zip(&wrong).filter(|(one, other)| one != other);
            assert_eq!(differing.count(), 1);
            let bare = Frame {
                checksum: Checksum::Partial,
                ..frame.clone()
            };
            assert_eq!(spoilt(Damage::Accident), bare.bytes());
        }
    }
}
