//! One host: when it is probed, what was answered, what became of the rest.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use dt_common::event::{EventFlags, ReplyEvent};
use dt_common::time::{ErrorEstimate, MonoNanos, NtpTime, PtpTime};
use dt_common::wire::DtFlags;

use super::form::{Form, Inquiry, PATIENCE, Peer};
use super::ground::{SHORTEST, SIZED};
use super::resolve::Destination;
use super::stats::Spread;
use crate::adapters::datapath::prober::Path;
use crate::engine::session::{Outcome, ProbeOutcome, Session, SessionConfig};
use crate::engine::window::{Hops, WindowReport};

/// What is told of one probe.
#[derive(Clone, Copy, Debug)]
pub(super) enum Told {
    /// It was answered.
    Reply(Reply),
    /// It was not, or too late to matter.
    Missing {
        /// Its number.
        seq: u32,
        /// Why.
        outcome: Outcome,
    },
}

/// One answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply {
    pub seq: u32,
    /// By the stamps of the datapath, without the peer's time; absent where the stamps make no sense.
    pub rtt_ns: Option<u64>,
    /// The same packets as user space saw them, also without the peer's time; only where it was asked for.
    pub user_rtt_ns: Option<u64>,
    pub residence_ns: Option<u64>,
    pub hops_forward: Option<u8>,
    pub hops_return: Option<u8>,
    pub late: bool,
    /// The wall clock of an end was set while it was away.
    pub straddled: bool,
    /// The peer stamps in PTP format.
    pub ptp: bool,
}

/// What was measured over all.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    /// Probes in the form that counts.
    pub sent: u64,
    /// Those before, in the form that nobody answered.
    pub asked_before: u64,
    /// Probes that this host could not send.
    pub failed: u64,
    pub rtt: Spread,
    pub user_rtt: Spread,
    pub residence: Spread,
    pub ptp: bool,
}

/// Times of a compared probe, as far as they are known.
#[derive(Clone, Copy, Debug, Default)]
struct UserTimes {
    sent: Option<MonoNanos>,
    received: Option<MonoNanos>,
    /// The reply by its stamps, and until when its line waits for user space.
    held: Option<(Reply, MonoNanos)>,
}

/// See the module.
pub(super) struct Host {
    pub destination: Destination,
    pub ssid: u16,
    /// Of which class the probes of its session are.
    pub class: u8,
    pub path: Path,
    pub inquiry: Inquiry,
    pub totals: Totals,
    config: Arc<SessionConfig>,
    session: Session,
    /// Sessions so far.
    turns: u16,
    due_at: MonoNanos,
    last_sent: Option<MonoNanos>,
    /// When the first probe of a form left that nobody answered so far.
    first_asked: Option<MonoNanos>,
    left: Option<u64>,
    count: Option<u64>,
    compare: bool,
    times: BTreeMap<u32, UserTimes>,
    told: VecDeque<Told>,
    /// Probes without an answer in sessions that were given up.
    abandoned: u64,
}

impl Host {
    pub(super) fn new(
        destination: Destination,
        config: &Arc<SessionConfig>,
        (count, compare): (Option<u64>, bool),
        due_at: MonoNanos,
    ) -> Self {
        Self {
            destination,
            ssid: 0,
            class: SIZED,
            path: Path::Socket,
            inquiry: Inquiry::new(),
            totals: Totals::default(),
            config: Arc::clone(config),
            session: Session::new(config, 0, due_at),
            turns: 0,
            due_at,
            last_sent: None,
            first_asked: None,
            left: count,
            count,
            compare,
            times: BTreeMap::new(),
            told: VecDeque::new(),
            abandoned: 0,
        }
    }

    /// Which session this is, for its identifier.
    pub(super) const fn turn(&self) -> u16 {
        self.turns
    }

    /// Begins a session; `sender_epoch` goes with each of its probes. The TLV that these have.
    pub(super) fn begin(
        &mut self,
        ssid: u16,
        sender_epoch: u32,
        now: MonoNanos,
    ) -> Option<(u32, u8)> {
        // No flag: a session of `ping` deserves no fixed place at the reflector.
        let (tlv, class) = match self.inquiry.form() {
            Form::Tlv => (Some((sender_epoch, 0)), SIZED),
            Form::Plain => (None, SHORTEST),
        };
        (self.ssid, self.class) = (ssid, class);
        self.session = Session::new(&self.config, sender_epoch, now);
        self.session.handle_local_counts(0, 0, now);
        self.times.clear();
        tlv
    }

    /// Gives the form up that nobody answers: the next session has the other one. The first time costs no probe of the
    /// count that was asked for.
    pub(super) fn give_up_form(&mut self, now: MonoNanos) {
        let asked = self.inquiry.unanswered();
        if self.turns == 0 {
            self.totals.asked_before = asked.into();
            self.totals.sent -= u64::from(asked);
            self.left = self.count;
        } else {
            self.abandoned += u64::from(asked);
            let missing = (0..asked).map(|seq| Told::Missing {
                seq,
                outcome: Outcome::LostUnknown,
            });
            self.told.extend(missing);
        }
        self.first_asked = None;
        self.turns += 1;
        self.inquiry.turn();
        self.due_at = now;
    }

    /// Whether another form is to be tried: see [`Inquiry`].
    pub(super) fn wants_other_form(&self, now: MonoNanos) -> bool {
        let over = self
            .first_asked
            .is_some_and(|sent| now >= sent.plus(self.config.deadline_ns));
        let last = self.left == Some(0) && self.turns == 0 && self.inquiry.peer().is_none();
        over && (self.inquiry.is_exhausted() || last)
    }

    /// Probes that are due now, at most `most`.
    pub(super) fn poll_due(&mut self, now: MonoNanos, most: u32) -> u32 {
        let Some(at) = self.next_send() else { return 0 };
        if now < at {
            return 0;
        }
        if self.inquiry.peer().is_none() {
            self.due_at = now.plus(self.config.interval_ns);
            return 1;
        }
        let interval = self.config.interval_ns.max(1);
        // Who woke up very late does not make it up: the rest is shifted.
        self.due_at = self
            .due_at
            .max(MonoNanos(now.0.saturating_sub(CATCH_UP_NS)));
        let behind = now.since(self.due_at) / interval + 1;
        let left = self.left.unwrap_or(u64::MAX);
        let count = behind.min(u64::from(most)).min(left);
        self.due_at = self.due_at.plus(interval * count);
        count as u32
    }

    /// Counts a probe that is about to be sent, and numbers it.
    pub(super) fn handle_send(&mut self, port: u16, now: MonoNanos) -> u32 {
        self.last_sent = Some(now);
        self.first_asked.get_or_insert(now);
        self.left = self.left.map(|left| left.saturating_sub(1));
        self.totals.sent += 1;
        self.inquiry.handle_sent();
        self.session.handle_send(port, now)
    }

    /// Takes a probe back that this host could not send.
    pub(super) fn handle_send_failed(&mut self, seq: u32, now: MonoNanos) {
        self.session.handle_send_failed(seq, now);
        self.totals.sent -= 1;
        self.totals.failed += 1;
    }

    /// Takes in the time at which user space handed a probe over.
    pub(super) fn handle_user_sent(&mut self, seq: u32, at: MonoNanos) {
        self.times.entry(seq).or_default().sent = Some(at);
    }

    /// Takes in a reply; true if it is the first of this host.
    pub(super) fn handle_reply(&mut self, event: &ReplyEvent, now: MonoNanos) -> bool {
        if event.flags & EventFlags::CORRUPT != 0 {
            // Not an answer, but word of one that came with a wrong checksum: only the accounting wants it.
            self.session.handle_reply(event, now);
            self.drain(None, now);
            return false;
        }
        let peer = peer_of(event);
        let mut event = *event;
        if peer == Peer::Echo {
            // Nobody filled our TLV in: it says nothing.
            event.flags &= !EventFlags::TLV;
        }
        let first = self.inquiry.handle_reply(peer);
        if first {
            let planned = self.last_sent.unwrap_or(now).plus(self.config.interval_ns);
            self.due_at = planned.max(now);
        }
        self.session.handle_reply(&event, now);
        self.drain(Some(&event), now);
        first
    }

    /// Takes in when user space got a reply.
    pub(super) fn handle_user_reply(&mut self, seq: u32, at: MonoNanos) {
        if let Some(times) = self.times.get_mut(&seq) {
            times.received = Some(at);
        }
    }

    /// Takes in what the collector threw away.
    pub(super) fn handle_counts(&mut self, (corrupt, overrun): (u32, u32), now: MonoNanos) {
        self.session.handle_local_counts(corrupt, overrun, now);
    }

    /// Lets time pass.
    pub(super) fn handle_timeout(&mut self, now: MonoNanos) {
        self.session.handle_timeout(now);
        self.drain(None, now);
        if !self.compare {
            return;
        }
        let ready = |times: &UserTimes| {
            let whole = times.sent.is_some() && times.received.is_some();
            times.held.is_some_and(|(_, until)| whole || now >= until)
        };
        let ready: Vec<_> = self
            .times
            .iter()
            .filter(|(_, times)| ready(times))
            .map(|(seq, _)| *seq)
            .collect();
        for seq in ready {
            self.release(seq);
        }
        while self.times.len() > MAX_TIMES {
            self.times.pop_first();
        }
    }

    /// What is to be told next.
    pub(super) fn poll_told(&mut self) -> Option<Told> {
        self.told.pop_front()
    }

    /// When there is something to do for this host, replies apart.
    pub(super) fn poll_timeout(&self, now: MonoNanos) -> Option<MonoNanos> {
        let asked = self.inquiry.peer().is_none();
        let answer = self.first_asked.filter(|_| asked);
        let last = self.last_sent.filter(|_| self.left == Some(0));
        let held = self.times.values().any(|times| times.held.is_some());
        [
            self.next_send(),
            self.session.poll_timeout(),
            answer.map(|sent| sent.plus(self.config.deadline_ns)),
            last.map(|sent| sent.plus(self.config.deadline_ns)),
            held.then(|| now.plus(HELD_STEP_NS)),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether a reply may come.
    pub(super) const fn is_waiting(&self) -> bool {
        self.session.in_flight() > 0
    }

    /// Whether all was sent and every answer came or was waited for.
    pub(super) fn is_done(&self, now: MonoNanos) -> bool {
        let over = self
            .last_sent
            .is_none_or(|sent| now > sent.plus(self.config.deadline_ns));
        let all_sent = self.left == Some(0) && !self.wants_other_form(now);
        let held = self.times.values().any(|times| times.held.is_some());
        all_sent && (over || self.session.in_flight() == 0) && !held
    }

    /// Ends it: what is missing is decided by what is known.
    pub(super) fn finish(&mut self, now: MonoNanos) -> WindowReport {
        let held: Vec<_> = self.times.keys().copied().collect();
        for seq in held {
            self.release(seq);
        }
        let mut report = self.session.finish(now);
        self.drain(None, now);
        let counters = &mut report.counters;
        let abandoned = u32::try_from(self.abandoned).unwrap_or(u32::MAX);
        counters.lost_unknown = counters.lost_unknown.saturating_add(abandoned);
        report
    }

    fn next_send(&self) -> Option<MonoNanos> {
        if self.left == Some(0) {
            return None;
        }
        if self.inquiry.peer().is_some() || self.inquiry.unanswered() == 0 {
            return Some(self.due_at);
        }
        if self.inquiry.is_exhausted() {
            return None;
        }
        // As many as one asks with go out within the time that the first is waited for.
        let step_ns = self.config.deadline_ns / u64::from(PATIENCE);
        let answer = self.last_sent.map(|sent| sent.plus(step_ns));
        Some(answer.map_or(self.due_at, |at| at.max(self.due_at)))
    }

    /// Turns the session's records into what is told.
    fn drain(&mut self, event: Option<&ReplyEvent>, now: MonoNanos) {
        while let Some(record) = self.session.poll_record() {
            match (record.outcome, event) {
                (Outcome::Received | Outcome::Late, Some(event)) if event.seq == record.seq => {
                    self.note(reply(&record, event), now);
                }
                (outcome, _) => self.told.push_back(Told::Missing {
                    seq: record.seq,
                    outcome,
                }),
            }
        }
    }

    fn note(&mut self, reply: Reply, now: MonoNanos) {
        self.totals.ptp |= reply.ptp;
        if let (Some(rtt_ns), false) = (reply.rtt_ns, reply.late) {
            self.totals.rtt.record(rtt_ns);
            if let Some(residence_ns) = reply.residence_ns {
                self.totals.residence.record(residence_ns);
            }
        }
        if self.compare {
            let until = now.plus(HELD_NS);
            self.times.entry(reply.seq).or_default().held = Some((reply, until));
        } else {
            self.told.push_back(Told::Reply(reply));
        }
    }

    /// Tells a compared reply, with what user space saw if that is known.
    fn release(&mut self, seq: u32) {
        let Some(times) = self.times.remove(&seq) else {
            return;
        };
        let Some((mut reply, _)) = times.held else {
            return;
        };
        if let (Some(sent), Some(received), Some(residence_ns), false) =
            (times.sent, times.received, reply.residence_ns, reply.late)
        {
            let rtt_ns = received.since(sent).saturating_sub(residence_ns);
            reply.user_rtt_ns = Some(rtt_ns);
            self.totals.user_rtt.record(rtt_ns);
            self.session.handle_user_reply(seq, sent.0, received.0);
        }
        self.told.push_back(Told::Reply(reply));
    }
}

fn peer_of(event: &ReplyEvent) -> Peer {
    if event.flags & EventFlags::TLV == 0 {
        Peer::Plain
    } else if event.tlv_flags & (DtFlags::REFLECTOR_MASK | DtFlags::STATEFUL) != 0 {
        Peer::Ours
    } else {
        Peer::Echo
    }
}

fn reply(record: &ProbeOutcome, event: &ReplyEvent) -> Reply {
    let ptp = ErrorEstimate(event.error_estimate).is_ptp();
    let residence_ns = if ptp {
        PtpTime(event.t3).since(PtpTime(event.t2))
    } else {
        NtpTime(event.t3).since(NtpTime(event.t2))
    };
    Reply {
        seq: record.seq,
        rtt_ns: record.rtt_ns,
        user_rtt_ns: None,
        residence_ns: record.rtt_ns.and_then(|_| u64::try_from(residence_ns).ok()),
        hops_forward: record.hops_forward,
        hops_return: record.hops_return,
        late: record.outcome == Outcome::Late,
        straddled: record.straddled,
        ptp,
    }
}

/// Hops in words; a reflector may not say.
pub(super) fn hops(hops: Hops) -> String {
    let last = hops
        .last
        .map_or_else(|| String::from("?"), |hops| hops.to_string());
    if hops.changed {
        format!("{last} (changed)")
    } else {
        last
    }
}

/// How long the line of a compared reply waits for user space, which may get no turn on a busy host.
const HELD_NS: u64 = 1_000_000_000;
const HELD_STEP_NS: u64 = 500_000;
/// What a late wake-up makes up.
const CATCH_UP_NS: u64 = 50_000_000;
/// Compared probes that are remembered without an answer.
const MAX_TIMES: usize = 65_536;
