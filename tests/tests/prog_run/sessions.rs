//! The oracle's memory of sessions: sets and counters without any trick.

use crate::packet::{self, Datagram};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A member that says it is an agent, whatever its SSID.
    Member(u32),
    /// With our TLV: sender and SSID.
    Ours([u8; 16], u16),
    /// Without: both ends, source port and SSID.
    Plain([u8; 16], [u8; 16], u16, u16),
}

impl Key {
    pub fn of(datagram: &Datagram, payload: &[u8], ours: bool, member: Option<u32>) -> Self {
        let ssid = packet::be16(payload, 14);
        let agent = ours && payload[44 + 7] & 0x08 != 0;
        match member {
            Some(number) if agent => Self::Member(number),
            _ if ours => Self::Ours(datagram.source, ssid),
            _ => Self::Plain(
                datagram.source,
                datagram.destination,
                datagram.source_port,
                ssid,
            ),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Session {
    /// `None` until a reply showed it.
    pub epoch: Option<u32>,
    pub corrupt: u32,
    pub refused: u32,
    begun: bool,
    sender_epoch: u32,
    received: u32,
    duplicates: u32,
    windows: [Window; 4],
    last_seq: u32,
}

/// 32 sequence numbers with the same higher bits.
#[derive(Clone, Debug, Default)]
struct Window {
    used: bool,
    number: u32,
    seen: [bool; 32],
}

/// The reflector fields of our TLV.
#[derive(Clone, Debug)]
pub struct Answered {
    pub received: u32,
    pub previous_epoch: Option<u32>,
    duplicates: u32,
    corrupt: u32,
    refused: u32,
    seen: u64,
    duplicate: bool,
}

impl Session {
    /// Takes one accepted request.
    pub fn answer(&mut self, sender_epoch: u32, seq: u32) -> Answered {
        let mut previous_epoch = None;
        if !self.begun || self.sender_epoch != sender_epoch {
            previous_epoch = self.epoch;
            *self = Self {
                begun: true,
                sender_epoch,
                ..Self::default()
            };
        }
        let duplicate = self.see(seq);
        self.received = self.received.wrapping_add(1);
        self.duplicates = self.duplicates.wrapping_add(u32::from(duplicate));
        self.last_seq = seq;
        Answered {
            received: self.received,
            previous_epoch,
            duplicates: self.duplicates,
            corrupt: self.corrupt,
            refused: self.refused,
            seen: self.bitmap(seq),
            duplicate,
        }
    }

    /// The last request was the first of a session that the reflector had forgotten.
    pub fn begin_again(&mut self, epoch: u32) -> Answered {
        let (sender_epoch, seq) = (self.sender_epoch, self.last_seq);
        *self = Self::default();
        let answered = self.answer(sender_epoch, seq);
        self.epoch = Some(epoch);
        answered
    }

    /// Whether it was seen before; what is older than what is kept was not.
    fn see(&mut self, seq: u32) -> bool {
        let number = seq / 32;
        let window = &mut self.windows[(number % 4) as usize];
        if window.used && window.number != number {
            let ahead = window.number.wrapping_sub(number) % WINDOWS;
            if ahead < WINDOWS / 2 - 1 {
                return false;
            }
            *window = Window::default();
        }
        window.used = true;
        window.number = number;
        std::mem::replace(&mut window.seen[(seq % 32) as usize], true)
    }

    fn has_seen(&self, seq: u32) -> bool {
        let number = seq / 32;
        let window = &self.windows[(number % 4) as usize];
        window.used && window.number == number && window.seen[(seq % 32) as usize]
    }

    fn bitmap(&self, seq: u32) -> u64 {
        (0..64)
            .filter(|back| self.has_seen(seq.wrapping_sub(*back)))
            .map(|back| 1 << (63 - back))
            .sum()
    }
}

impl Answered {
    /// Writes what a stateful reflector fills in, but for the epoch.
    pub fn write(&self, tlv: &mut [u8]) {
        tlv[7] |= 0x02 | if self.duplicate { 0x04 } else { 0 };
        if !self.duplicate {
            tlv[7] &= !0x04;
        }
        tlv[16..20].copy_from_slice(&self.received.to_be_bytes());
        tlv[20..24].copy_from_slice(&self.duplicates.to_be_bytes());
        tlv[24..28].copy_from_slice(&self.corrupt.to_be_bytes());
        tlv[28..32].copy_from_slice(&self.refused.to_be_bytes());
        tlv[32..40].copy_from_slice(&self.seen.to_be_bytes());
    }
}

/// Windows until sequence numbers wrap.
const WINDOWS: u32 = 1 << 27;
