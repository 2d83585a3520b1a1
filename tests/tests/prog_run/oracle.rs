//! A second opinion: what the programs should do with a frame, written from the RFCs and the documentation alone.
//!
//! Shares no code with `dt-common` or `dt-ebpf`; slow, plain and by index. It predicts verdict, counter and reply. What it
//! cannot know (times, a new session's epoch) it checks against what it does know and takes from the reply.

use std::collections::HashMap;

use crate::packet::{self, Datagram, Headers, Residues};
use crate::sessions::{Answered, Key, Session};

/// The world as the programs are told it is.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the programs on its own"
)]
pub struct Settings {
    pub port: u16,
    pub source_ports: (u16, u16),
    pub locals: Vec<[u8; 16]>,
    pub permits: Vec<Permit>,
    pub targets: Vec<Target>,
    /// SSID by source port.
    pub port_owners: Vec<(u16, u16)>,
    pub allow_all: bool,
    pub stateless: bool,
    pub partial_checksums: bool,
    /// Whether the hook is the one that acts on the interface.
    pub acting: bool,
    pub lease: bool,
    pub clock_offset_ns: u64,
    pub clock_generation: u16,
    pub error_estimate: u16,
}

#[derive(Clone, Debug)]
pub struct Permit {
    pub address: [u8; 16],
    pub bits: usize,
    pub member: Option<u32>,
    pub low_ports: bool,
}

#[derive(Clone, Debug)]
pub struct Target {
    pub ssid: u16,
    pub address: [u8; 16],
    pub port: u16,
    pub pass_every: u32,
}

/// Where the frame is looked at, as far as that shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Xdp,
    Tc,
    /// The agent's reflector, which sees payloads only: no frame, no fragment, and checksums are the stack's.
    Socket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Pass,
    Drop,
    Send,
}

/// What should happen.
#[derive(Clone, Debug)]
pub struct Prediction {
    pub action: Action,
    /// The counter that moves, if one does.
    pub reason: Option<&'static str>,
    pub reply: Option<Reply>,
}

/// A reply but for what only its maker knows.
#[derive(Clone, Debug)]
pub struct Reply {
    datagram: Datagram,
    ours: bool,
    answered: Option<(Key, Answered)>,
    residues: Residues,
    frame: Vec<u8>,
}

pub struct Oracle {
    pub settings: Settings,
    pub place: Place,
    sessions: HashMap<Key, Session>,
    /// Sessions that began anew though nothing demanded it: legal only where the kernel had to forget some.
    pub forgotten: usize,
}

impl Oracle {
    pub fn new(settings: Settings, place: Place) -> Self {
        Self {
            settings,
            place,
            sessions: HashMap::new(),
            forgotten: 0,
        }
    }

    /// Says what should become of a frame, and takes note of it.
    pub fn predict(&mut self, frame: &[u8]) -> Prediction {
        let settings = &self.settings;
        let Headers::Udp(datagram) = packet::headers(frame) else {
            return Prediction::untouched();
        };
        if datagram.destination_port == settings.port {
            return self.request(frame, &datagram);
        }
        let (first, last) = settings.source_ports;
        if (first..=last).contains(&datagram.destination_port) {
            return self.reply(frame, &datagram);
        }
        Prediction::untouched()
    }

    fn request(&mut self, frame: &[u8], datagram: &Datagram) -> Prediction {
        let settings = &self.settings;
        if !settings.acting || !settings.locals.contains(&datagram.destination) {
            return Prediction::untouched();
        }
        if !settings.lease {
            return Prediction::pass("lease_expired");
        }
        if let Some(reason) = self.misfit(frame, datagram) {
            return Prediction::pass(reason);
        }
        if let Some(reason) = self.refusal(frame, datagram) {
            return Prediction::drop(reason);
        }
        let payload = &frame[datagram.payload()..datagram.end()];
        let ours = packet::has_our_tlv(payload);
        let in_kernel = self.place != Place::Socket;
        if in_kernel && packet::has_many_tlvs(payload, packet::own_len(ours)) {
            return Prediction::pass("many_tlvs");
        }
        let permit = self.permit(&datagram.source);
        let key = Key::of(
            datagram,
            payload,
            ours,
            permit.and_then(|permit| permit.member),
        );
        if in_kernel && !self.settings.checksum_holds(frame, datagram) {
            self.count_corrupt(&key);
            return Prediction::drop("corrupt_request");
        }
        let member = permit.is_some_and(|permit| permit.member.is_some());
        let answered = (!self.settings.stateless).then(|| {
            let session = self.sessions.entry(key.clone()).or_default();
            (
                key,
                session.answer(
                    packet::sender_epoch(payload, ours),
                    packet::be32(payload, 0),
                ),
            )
        });
        let reply = self.make_reply(frame, datagram, ours, member, answered);
        Prediction {
            action: Action::Send,
            reason: Some("reflected"),
            reply: Some(reply),
        }
    }

    /// Why the stack should have it.
    fn misfit(&self, frame: &[u8], datagram: &Datagram) -> Option<&'static str> {
        if self.place == Place::Socket {
            return None;
        }
        if datagram.more_fragments {
            return None;
        }
        if datagram.udp_len != datagram.ip_payload || datagram.udp_len < 8 {
            return Some("malformed");
        }
        match datagram.udp_len {
            8..52 => return Some("short"),
            9217.. => return Some("non_linear"),
            _ => {}
        }
        if datagram.end() > frame.len() {
            return Some("malformed");
        }
        (self.place == Place::Xdp && datagram.end() > packet::XDP_LINEAR).then_some("non_linear")
    }

    /// Why policy refuses it.
    fn refusal(&self, frame: &[u8], datagram: &Datagram) -> Option<&'static str> {
        let settings = &self.settings;
        let in_kernel = self.place != Place::Socket;
        if in_kernel && (frame[0] & 1 == 1 || frame[6] & 1 == 1) {
            return Some("multicast");
        }
        if datagram.source == datagram.destination {
            return Some("reflexive");
        }
        if let Some(reason) = packet::impossible_source(datagram) {
            return Some(reason);
        }
        let permit = self.permit(&datagram.source);
        if !settings.allow_all && permit.is_none() {
            return Some("not_allowed");
        }
        let low_ports = settings.allow_all || permit.is_some_and(|permit| permit.low_ports);
        let excused = low_ports && datagram.ttl >= 224 && !packet::is_reply(frame, datagram);
        if !excused && [settings.port, 862].contains(&datagram.source_port) {
            return Some("loop");
        }
        if !excused && datagram.source_port < 1024 {
            return Some("source_port");
        }
        datagram.more_fragments.then_some("fragment")
    }

    fn permit(&self, source: &[u8; 16]) -> Option<&Permit> {
        if self.settings.allow_all {
            return None;
        }
        let fits = |permit: &&Permit| packet::same_prefix(&permit.address, source, permit.bits);
        // An address of its own is the longest prefix of all.
        self.settings
            .permits
            .iter()
            .filter(fits)
            .max_by_key(|permit| permit.bits)
    }

    fn count_corrupt(&mut self, key: &Key) {
        match key {
            Key::Member(_) => self.sessions.entry(key.clone()).or_default().corrupt += 1,
            _ => {
                if let Some(session) = self.sessions.get_mut(key) {
                    session.corrupt += 1;
                }
            }
        }
    }

    fn make_reply(
        &self,
        frame: &[u8],
        datagram: &Datagram,
        ours: bool,
        member: bool,
        answered: Option<(Key, Answered)>,
    ) -> Reply {
        let mut reply = frame.to_vec();
        packet::turn_around(&mut reply, datagram);
        let at = datagram.payload();
        let request = frame[at..datagram.end()].to_vec();
        packet::write_flags(&mut reply[at..datagram.end()], packet::own_len(ours));
        let base = &mut reply[at..at + 44];
        if let Some((_, answered)) = &answered {
            base[0..4].copy_from_slice(&(answered.received - 1).to_be_bytes());
        }
        base[12..14].copy_from_slice(&self.settings.error_estimate.to_be_bytes());
        base[24..38].copy_from_slice(&request[0..14]);
        base[38..44].copy_from_slice(&[0, 0, datagram.ttl, 0, 0, 0]);
        if ours {
            let tlv = &mut reply[at + 44..at + 96];
            let place = match self.place {
                Place::Xdp => 0x10,
                Place::Tc => 0x20,
                Place::Socket => 0x30,
            };
            let kept = request[44 + 7] & 0x08;
            // XDP sums anew what had a sum; at tc a sum is as whole as it was.
            let summed = match self.place {
                Place::Xdp => u8::from(packet::be16(frame, datagram.udp + 6) != 0) << 6,
                Place::Tc => request[44 + 7] & 0x40,
                Place::Socket => 0,
            };
            tlv[0] = 0;
            tlv[7] = kept | summed | place | u8::from(member);
            if let Some((_, answered)) = &answered {
                answered.write(tlv);
            }
            tlv[42..44].copy_from_slice(&self.settings.clock_generation.to_be_bytes());
        }
        let residues = Residues::of(frame, datagram);
        Reply {
            datagram: *datagram,
            ours,
            answered,
            residues,
            frame: reply,
        }
    }

    fn reply(&self, frame: &[u8], datagram: &Datagram) -> Prediction {
        let settings = &self.settings;
        if !settings.acting || !settings.lease {
            return Prediction::untouched();
        }
        let fits = datagram.udp_len == datagram.ip_payload && datagram.udp_len >= 52;
        if !fits || datagram.more_fragments {
            return Prediction::pass("unknown_reply");
        }
        let linear = self.place == Place::Tc || datagram.end() <= packet::XDP_LINEAR;
        if datagram.udp_len > 9216 || datagram.end() > frame.len() || !linear {
            return Prediction::pass("non_linear");
        }
        let payload = &frame[datagram.payload()..datagram.end()];
        let Some(target) = settings.target_of(datagram, payload) else {
            return Prediction::pass("unknown_reply");
        };
        if !settings.checksum_holds(frame, datagram) {
            return Prediction::drop("corrupt_reply");
        }
        let seq = packet::be32(payload, 24);
        let passed = target.pass_every != 0 && seq.is_multiple_of(target.pass_every);
        let action = if passed { Action::Pass } else { Action::Drop };
        Prediction {
            action,
            reason: Some("collected"),
            reply: None,
        }
    }

    /// Compares a reply with its prediction, which learns from it. `Err` says what is wrong.
    pub fn check(
        &mut self,
        expected: Reply,
        reply: &[u8],
        before_ns: u64,
        after_ns: u64,
    ) -> Result<(), String> {
        let (datagram, residues) = (expected.datagram, expected.residues);
        self.compare(expected, reply, before_ns, after_ns)?;
        residues.hold(reply, &datagram, self.place == Place::Xdp)
    }

    /// The same for a reply of which there is only the payload.
    pub fn check_payload(
        &mut self,
        expected: Reply,
        payload: &[u8],
        now_ns: u64,
    ) -> Result<(), String> {
        let mut reply = expected.frame.clone();
        reply.splice(expected.datagram.payload().., payload.iter().copied());
        self.compare(expected, &reply, now_ns, now_ns)
    }

    fn compare(
        &mut self,
        expected: Reply,
        reply: &[u8],
        before_ns: u64,
        after_ns: u64,
    ) -> Result<(), String> {
        let Reply {
            datagram,
            ours,
            answered,
            frame: mut wanted,
            ..
        } = expected;
        if reply.len() != wanted.len() {
            let (got, due) = (reply.len(), wanted.len());
            return Err(format!("reply has {got} bytes, request had {due}"));
        }
        let at = datagram.payload();
        let (sent, received) = (packet::be64(reply, at + 4), packet::be64(reply, at + 16));
        let offset = self.settings.clock_offset_ns;
        let span = (
            before_ns.wrapping_add(offset),
            after_ns.wrapping_add(offset),
        );
        packet::check_times(received, sent, span.0, span.1)?;
        wanted[at + 4..at + 12].copy_from_slice(&sent.to_be_bytes());
        wanted[at + 16..at + 24].copy_from_slice(&received.to_be_bytes());
        if let Some((key, answered)) = answered.filter(|_| ours) {
            let tlv = &reply[at + 44..at + 96];
            self.learn(&key, &answered, tlv, &mut wanted, at)?;
        }
        packet::take_checksums(&mut wanted, reply, &datagram);
        let differ = |at: &usize| reply[*at] != wanted[*at];
        let differing: Vec<_> = (0..reply.len()).filter(differ).collect();
        if differing.is_empty() {
            return Ok(());
        }
        Err(format!(
            "bytes {differing:?} differ:\n  wanted {wanted:02x?}\n  got    {reply:02x?}"
        ))
    }

    /// The epoch is the reflector's to choose, once per session; then it stays.
    fn learn(
        &mut self,
        key: &Key,
        answered: &Answered,
        tlv: &[u8],
        wanted: &mut [u8],
        at: usize,
    ) -> Result<(), String> {
        let epoch = packet::be32(tlv, 12);
        let session = self.sessions.get_mut(key).ok_or("no such session")?;
        if epoch == 0 {
            return Err("an epoch of zero".to_owned());
        }
        match session.epoch {
            Some(known) if known == epoch => {}
            Some(_) if packet::be32(tlv, 16) == 1 && !matches!(key, Key::Member(_)) => {
                // Forgotten by the LRU: this is its first request again.
                self.forgotten += 1;
                let again = session.begin_again(epoch);
                wanted[at..at + 4].fill(0);
                again.write(&mut wanted[at + 44..at + 96]);
            }
            Some(known) => return Err(format!("epoch {known:#x} became {epoch:#x}")),
            None if answered.previous_epoch == Some(epoch) => {
                return Err("a session that began anew kept its epoch".to_owned());
            }
            None => session.epoch = Some(epoch),
        }
        wanted[at + 44 + 12..at + 44 + 16].copy_from_slice(&epoch.to_be_bytes());
        Ok(())
    }
}

impl Settings {
    fn target_of(&self, datagram: &Datagram, payload: &[u8]) -> Option<&Target> {
        let port = datagram.destination_port;
        let ssid = match packet::be16(payload, 14) {
            0 => self.port_owners.iter().find(|(owned, _)| *owned == port)?.1,
            ssid => ssid,
        };
        let mut targets = self.targets.iter().filter(|target| target.ssid == ssid);
        targets
            .find(|target| target.address == datagram.source && target.port == datagram.source_port)
    }

    fn checksum_holds(&self, frame: &[u8], datagram: &Datagram) -> bool {
        let checksum = packet::be16(frame, datagram.udp + 6);
        let payload = &frame[datagram.payload()..datagram.end()];
        // What others answer has the flags that we sent.
        let is_request = datagram.destination_port == self.port;
        let must_be_whole = packet::has_our_tlv(payload)
            && payload[44 + 7] & 0x40 != 0
            && (is_request || payload[44 + 7] & 0x30 != 0);
        if checksum == 0 {
            return !datagram.ipv6 && !must_be_whole;
        }
        let pseudo = packet::pseudo_sum(frame, datagram);
        let whole = packet::sum(&frame[datagram.udp..datagram.end()]) + pseudo;
        whole.is_multiple_of(0xffff)
            || (self.partial_checksums
                && !must_be_whole
                && (pseudo - 1) % 0xffff + 1 == u64::from(checksum))
    }
}

impl Prediction {
    fn untouched() -> Self {
        Self {
            action: Action::Pass,
            reason: None,
            reply: None,
        }
    }

    fn pass(reason: &'static str) -> Self {
        Self {
            reason: Some(reason),
            ..Self::untouched()
        }
    }

    fn drop(reason: &'static str) -> Self {
        Self {
            action: Action::Drop,
            ..Self::pass(reason)
        }
    }
}
