//! Requests and answers of any netlink family.

use std::io;

use netlink_packet_core::{
    Emitable, ErrorBuffer, ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_MULTIPART,
    NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NetlinkBuffer, NetlinkHeader, Parseable,
};
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

/// One message of an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Answer {
    pub kind: u16,
    pub payload: Vec<u8>,
}

/// A netlink socket to the kernel.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Socket,
    sequence: u32,
}

impl Channel {
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The kernel answers within the call; a limit all the same, because nothing here may hang.
        setsockopt(
            &socket,
            sockopt::ReceiveTimeout,
            &TimeVal::seconds(TIMEOUT_SECS),
        )?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Sends one request and collects its whole answer.
    pub(super) fn exchange(
        &mut self,
        kind: u16,
        flags: u16,
        payload: &[u8],
    ) -> io::Result<Vec<Answer>> {
        for _ in 0..DUMP_TRIES {
            self.sequence = self.sequence.wrapping_add(1);
            self.send(kind, flags, payload)?;
            if let Some(answers) = self.receive(flags)? {
                return Ok(answers);
            }
        }
        // The tables change faster than they can be read.
        Err(io::ErrorKind::Interrupted.into())
    }

    fn send(&self, kind: u16, flags: u16, payload: &[u8]) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.length = (HEADER + payload.len()) as u32;
        header.message_type = kind;
        header.flags = NLM_F_REQUEST | flags | if is_dump(flags) { 0 } else { NLM_F_ACK };
        header.sequence_number = self.sequence;
        let mut bytes = vec![0; HEADER];
        header.emit(&mut bytes);
        bytes.extend_from_slice(payload);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// The answer, or `None` if the tables changed while it was written.
    fn receive(&self, flags: u16) -> io::Result<Option<Vec<Answer>>> {
        let mut answers = Vec::new();
        let mut torn = false;
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = bytes.as_slice();
            while let Some((message, next)) = split(rest) {
                rest = next;
                if message.sequence_number() != self.sequence {
                    continue;
                }
                torn |= message.flags() & NLM_F_DUMP_INTR != 0;
                match message.message_type() {
                    NLMSG_DONE => return Ok((!torn).then_some(answers)),
                    NLMSG_ERROR => {
                        refusal(message.payload())?;
                        // An acknowledgement ends everything but a dump, which says by itself when it is done.
                        if !is_dump(flags) || message.flags() & NLM_F_MULTIPART == 0 {
                            return Ok(Some(answers));
                        }
                    }
                    NLMSG_NOOP => {}
                    kind => answers.push(Answer {
                        kind,
                        payload: message.payload().to_vec(),
                    }),
                }
            }
        }
    }
}

/// The first message of several, and the others.
pub(super) fn split(bytes: &[u8]) -> Option<(NetlinkBuffer<&[u8]>, &[u8])> {
    let message = NetlinkBuffer::new_checked(bytes).ok()?;
    let length = (message.length() as usize).next_multiple_of(4).max(HEADER);
    Some((message, bytes.get(length..).unwrap_or_default()))
}

fn refusal(payload: &[u8]) -> io::Result<()> {
    let parsed = ErrorBuffer::new_checked(&payload).and_then(|buffer| ErrorMessage::parse(&buffer));
    let message = parsed.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    match message.code {
        None => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.get().saturating_abs())),
    }
}

/// Both bits: the two share their values with other flags in requests that change something.
const fn is_dump(flags: u16) -> bool {
    flags & NLM_F_DUMP == NLM_F_DUMP
}

const HEADER: usize = 16;
const TIMEOUT_SECS: i64 = 2;
const DUMP_TRIES: u32 = 4;
