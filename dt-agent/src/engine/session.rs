//! One peer's probes, from the socket to their outcome: what was received, and what was lost where.
//!
//! Every probe gets exactly one [`Outcome`], once. A probe is *missing* when its deadline has passed; it is decided only
//! when later replies tell the direction of its loss and this evidence had time to settle, or when there was none for
//! long enough. So the counts do not depend on where windows are cut, and a reply that comes later still is counted
//! beside them, never instead.
//!
//! ```text
//!                        reply within the deadline
//!              ┌─────────────────────────────────────────> Received
//! handle_send  │         reply after it
//! ──> Waiting ─┼─────────────────────────────────────────> Late
//!              │ deadline + settle, and a later reply that had time to settle
//!              ├─────────┬─ not seen by the reflector ───> Refused, CorruptForward, NotAdmitted, else LostForward
//!              │         ├─ seen by the reflector ───────> Overrun, CorruptReturn, else LostReturn
//!              │         └─ the reflector forgot ────────> PeerRestarted
//!              │ deadline + settle + patience, no such reply
//!              ├─────────────────────────────────────────> Overrun, CorruptReturn, NotAdmitted, else LostUnknown
//!              │ handle_peer_gone                          any of these, then a reply: late_after_loss, if it was a loss
//!              ├─────────────────────────────────────────> Departed
//!              │ handle_send_failed
//!              └─────────────────────────────────────────> taken back, as if never sent
//! ```
//!
//! Pure: time is an argument. Who reads replies from the ring must hand them over before it tells the time.

mod config;
mod credits;
mod evidence;
mod flight;
mod outcome;
mod pace;
mod sample;
mod serial;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use dt_common::event::{EventFlags, ReplyEvent};
use dt_common::time::MonoNanos;
use dt_common::wire::DtFlags;

pub use self::config::SessionConfig;
use self::credits::{Credits, ForwardCredit};
use self::evidence::{Evidence, Side};
use self::flight::{Flight, Marks, Place, Probe, State};
use self::outcome::Records;
pub use self::outcome::{Outcome, ProbeOutcome};
use self::pace::Pace;
use self::sample::{Reading, Sample};
use self::serial::is_below;
use super::window::{ClassWindows, Counters, Hops, StampSources, WindowReport, add};

/// The probes towards one peer: one SSID, one sequence space, any number of source ports and classes of probes.
#[derive(Debug)]
pub struct Session {
    config: Arc<SessionConfig>,
    sender_epoch: u32,
    started: MonoNanos,
    flight: Flight,
    evidence: Evidence,
    credits: Credits,
    pace: Pace,
    /// The lowest sequence number whose reply said that the peer has admitted this node.
    admitted: Option<u32>,
    windows: ClassWindows,
    /// Windows that ended, until they are asked for: because stamps came from elsewhere, or with that of the first class.
    ended: VecDeque<WindowReport>,
    /// Replies in those that ended early.
    cut_replies: u32,
    records: Option<Box<Records>>,
}

impl Session {
    /// A session that begins at `now` with sequence number 0.
    ///
    /// `sender_epoch` goes with each probe, and must be new for each session that uses the same SSID: the reflector keeps
    /// its counters for as long as it stays the same, and this session counts from 0.
    #[must_use]
    pub fn new(config: &Arc<SessionConfig>, sender_epoch: u32, now: MonoNanos) -> Self {
        let records = Records::new(config.max_records);
        Self {
            config: Arc::clone(config),
            sender_epoch,
            started: now,
            flight: Flight::default(),
            evidence: Evidence::new(0),
            credits: Credits::default(),
            pace: Pace::default(),
            admitted: None,
            windows: ClassWindows::starting(config.mix.classes().len(), now),
            ended: VecDeque::new(),
            cut_replies: 0,
            records: (config.max_records > 0).then(|| Box::new(records)),
        }
    }

    /// A session that has sent `count` probes, all of them seen and forgotten.
    #[cfg(test)]
    fn after(count: u32, config: &Arc<SessionConfig>, sender_epoch: u32, now: MonoNanos) -> Self {
        let mut session = Self::new(config, sender_epoch, now);
        session.flight.start_at(count);
        session.evidence = Evidence::after(count, count);
        session
    }

    /// Goes on with other settings; whether records are made, and the classes of probes, stay as they are.
    pub fn handle_config(&mut self, config: &Arc<SessionConfig>) {
        debug_assert_eq!(config.mix, self.config.mix, "a class of each number");
        self.config = Arc::clone(config);
    }

    /// The sequence number that the next probe will get.
    #[must_use]
    pub const fn next_seq(&self) -> u32 {
        self.flight.next_seq()
    }

    /// Probes without an outcome.
    #[must_use]
    pub const fn in_flight(&self) -> u32 {
        self.flight.waiting()
    }

    /// Counts a probe as sent and returns its sequence number; to be called just before it is handed to the socket.
    ///
    /// Of a batch that the socket then refuses, take back each probe by [`Session::handle_send_failed`].
    pub fn handle_send(&mut self, source_port: u16, now: MonoNanos) -> u32 {
        self.flight.forget(self.memory_start(now));
        if self.flight.len() >= self.config.max_remembered as usize {
            self.make_room();
        }
        if let Some(last) = self.flight.newest() {
            self.pace.handle_pause(now.since(last.sent));
        }
        add(&mut self.counters_of(self.flight.next_seq()).sent, 1);
        self.flight.push(source_port, now)
    }

    /// Takes back a probe that the local host could not send after all.
    ///
    /// The newest number is used again, so numbers stay without gaps on the wire when the end of a batch fails. To be
    /// called before the window in which it was counted as sent is taken; else it has [`Outcome::Departed`].
    pub fn handle_send_failed(&mut self, seq: u32, now: MonoNanos) {
        let waits = |probe: &Probe| probe.state == State::Waiting;
        if !self.flight.get(seq).is_some_and(waits) {
            return;
        }
        let counters = self.counters_of(seq);
        add(&mut counters.send_failed, 1);
        if counters.sent == 0 {
            self.decide(seq, Outcome::Departed);
            return;
        }
        counters.sent -= 1;
        self.flight.withdraw(seq);
        self.flight.forget(self.memory_start(now));
    }

    /// Counts `n` probes that the schedule asked for and that were left out, because the wake-up came too late. They have no
    /// number: the class whose turn it is has them all.
    pub fn handle_skipped(&mut self, n: u32) {
        add(&mut self.counters_of(self.flight.next_seq()).skipped, n);
    }

    /// Takes in a reply, which may be a copy, late, from an earlier life, or nonsense.
    pub fn handle_reply(&mut self, event: &ReplyEvent, now: MonoNanos) {
        if event.flags & EventFlags::CORRUPT != 0 {
            self.handle_corrupt_reply(event);
            return;
        }
        if !self.accepts(event) {
            return;
        }
        let reordered = is_below(event.seq, self.evidence.top())
            && self.flight.is_overtaken(event.seq, &self.config.mix);
        let advance = self.evidence.handle_reply(event, &mut self.flight, now);
        self.evidence.handle_time(now, self.config.settle_ns);
        let thrown_away = ForwardCredit {
            after: advance.after,
            before: advance.before,
            refused: advance.refused,
            corrupt: advance.corrupt,
        };
        self.credits
            .grant_forward(thrown_away, self.oldest_waiting_seq());
        self.note_admission(event);
        let answered_again = self.note_answer(event) && advance.duplicate_forward == 0;
        let copied_back = answered_again || advance.duplicate_return;
        let counters = self.counters_of(event.seq);
        add(&mut counters.duplicate_forward, advance.duplicate_forward);
        add(&mut counters.duplicate_return, u32::from(copied_back));
        self.conclude(event, reordered, now);
    }

    /// Notes which probe a reply with a wrong checksum was for, if it names one that is remembered; else only the
    /// collector's count tells of it.
    fn handle_corrupt_reply(&mut self, event: &ReplyEvent) {
        let ours = !has_tlv(event) || event.sender_epoch == self.sender_epoch;
        if ours && self.flight.place(event.seq) == Place::Known {
            let oldest = self.oldest_waiting_seq();
            self.credits.name_corrupt(event.seq, oldest);
        }
    }

    /// Takes in what user space saw of a compared probe: its own time just before sending and at receiving, ns of one clock.
    ///
    /// Recorded is `received - sent - (T3 - T2)`, and only for probes whose kernel RTT was recorded, so both histograms
    /// speak of the same probes and of the same path: without the time that the peer took. Whichever of event and user
    /// reply comes first waits for the other.
    pub fn handle_user_reply(&mut self, seq: u32, user_sent_ns: u64, user_received_ns: u64) {
        let elapsed = user_received_ns.checked_sub(user_sent_ns);
        // More than 4.2 s cannot be in time; such probes are not compared.
        let Some(elapsed_ns) = elapsed.and_then(|ns| u32::try_from(ns).ok()) else {
            return;
        };
        let Some(probe) = self.flight.get_mut(seq) else {
            return;
        };
        if probe.marks.has(Marks::MEASURED) {
            probe.marks.clear(Marks::MEASURED);
            let rtt_ns = elapsed_ns.saturating_sub(probe.spare_ns);
            self.window_of(seq).user_rtt.record(u64::from(rtt_ns));
        } else if probe.state == State::Waiting {
            probe.spare_ns = elapsed_ns;
            probe.marks.set(Marks::USER_EARLY);
        }
    }

    /// Takes in the collector's totals for this target: replies with a wrong checksum, and replies that found no room.
    ///
    /// To be called before the first probe (only differences count), about every 100 ms, and just before a window is taken;
    /// each time after the replies that had arrived when the totals were read.
    pub fn handle_local_counts(&mut self, corrupt_total: u32, overrun_total: u32, now: MonoNanos) {
        self.credits
            .handle_local_counts(corrupt_total, overrun_total, now);
    }

    /// The peer has left: what is still on its way, or missing without a trace, is nobody's loss.
    pub fn handle_peer_gone(&mut self, now: MonoNanos) {
        self.handle_timeout(now);
        while let Some((seq, probe)) = self.flight.oldest_waiting() {
            let overdue = now > probe.sent.plus(self.config.deadline_ns);
            let settle_ns = self.config.settle_ns;
            if overdue && self.evidence.ripe_at(seq, settle_ns).is_some() {
                self.decide_missing(seq);
            } else {
                self.decide(seq, Outcome::Departed);
            }
        }
    }

    /// Decides the missing probes whose time has come. Replies that have arrived by now must have been handed over before.
    pub fn handle_timeout(&mut self, now: MonoNanos) {
        self.evidence.handle_time(now, self.config.settle_ns);
        while let Some((seq, probe)) = self.flight.oldest_waiting() {
            let decidable = self.decidable_at(probe.sent);
            let patience_ends = decidable.plus(self.pace.patience_ns(self.config.interval_ns));
            if now < decidable || (now < patience_ends && !self.evidence.is_ripe(seq)) {
                break;
            }
            self.decide_missing(seq);
        }
        self.flight.forget(self.memory_start(now));
    }

    /// When [`Session::handle_timeout`] has something to do, if no reply comes before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<MonoNanos> {
        let (seq, probe) = self.flight.oldest_waiting()?;
        let decidable = self.decidable_at(probe.sent);
        let patience_ends = decidable.plus(self.pace.patience_ns(self.config.interval_ns));
        let ripe = self.evidence.ripe_at(seq, self.config.settle_ns);
        Some(ripe.map_or(patience_ends, |ripe| ripe.max(decidable).min(patience_ends)))
    }

    /// The earliest moment at which [`Session::handle_timeout`] may have something to do, whatever replies come before: not
    /// later than any answer of [`Session::poll_timeout`] until then. `None` while no probe waits.
    #[must_use]
    pub fn poll_deadline(&self) -> Option<MonoNanos> {
        let (_, probe) = self.flight.oldest_waiting()?;
        Some(self.decidable_at(probe.sent))
    }

    /// The record of the next probe that got its outcome, in the order of outcomes. `None` for ever without `max_records`.
    pub fn poll_record(&mut self) -> Option<ProbeOutcome> {
        self.records.as_mut()?.pop()
    }

    /// The next window that ended; to be asked for before [`Session::take_window`] and [`Session::finish`], where it is one
    /// that ended of itself because its method changed (never without `max_cuts`), and after them, where it is that of another
    /// class of probes.
    pub fn poll_window(&mut self) -> Option<WindowReport> {
        self.ended.pop_front()
    }

    /// Closes all windows at `now` and begins the next ones; that of the first class of probes, whatever is in it. Those of
    /// the others, if anything is in them, are had by [`Session::poll_window`].
    pub fn take_window(&mut self, now: MonoNanos) -> WindowReport {
        self.handle_timeout(now);
        let replies = self.windows.replies().saturating_add(self.cut_replies);
        self.cut_replies = 0;
        self.evidence.handle_window_end(replies, &self.flight);
        self.turn_all(now)
    }

    /// Closes the last windows as [`Session::take_window`] does: what is missing is decided by what is known, what may still
    /// come in time is in flight. Records can be fetched afterwards; nothing else should follow.
    pub fn finish(&mut self, now: MonoNanos) -> WindowReport {
        while let Some((seq, probe)) = self.flight.oldest_waiting() {
            if now <= probe.sent.plus(self.config.deadline_ns) {
                break;
            }
            self.decide_missing(seq);
        }
        self.turn_all(now)
    }

    /// The current window of the class of the probe with this number, sent or not.
    fn window_of(&mut self, seq: u32) -> &mut WindowReport {
        self.windows.of(self.config.mix.class_of(seq))
    }

    fn counters_of(&mut self, seq: u32) -> &mut Counters {
        &mut self.window_of(seq).counters
    }

    /// Probes of a class without an outcome.
    fn in_flight_of(&self, class: u8) -> u32 {
        let mix = &self.config.mix;
        if mix.classes().len() == 1 {
            return self.flight.waiting();
        }
        let waiting = self.flight.waiting_before(self.flight.next_seq());
        waiting.filter(|seq| mix.class_of(*seq) == class).count() as u32
    }

    fn turn(&mut self, class: u8, now: MonoNanos) -> WindowReport {
        let in_flight = self.in_flight_of(class);
        self.windows.of(class).turn(now, in_flight)
    }

    fn turn_all(&mut self, now: MonoNanos) -> WindowReport {
        for class in 1..self.config.mix.classes().len() as u8 {
            let report = self.turn(class, now);
            if !report.is_idle() {
                self.ended.push_back(report);
            }
        }
        self.turn(0, now)
    }

    /// Ends the window of a reply's class when its stamps come from elsewhere than those before.
    ///
    /// Not twice at one instant, and not without end where sources take turns: then they share a window, which names all.
    fn cut_window(&mut self, event: &ReplyEvent, now: MonoNanos) {
        let class = self.config.mix.class_of(event.seq);
        let room = self.ended.len() < self.config.max_cuts as usize;
        let window = self.windows.of(class);
        if !room || window.is_alike(StampSources::of(event)) || window.start >= now {
            return;
        }
        self.cut_replies = self.cut_replies.saturating_add(window.replies());
        let report = self.turn(class, now);
        self.ended.push_back(report);
    }

    /// Whether a reply belongs to a probe that is remembered; counts it if not.
    fn accepts(&mut self, event: &ReplyEvent) -> bool {
        let place = self.flight.place(event.seq);
        let is_ours = !has_tlv(event) || event.sender_epoch == self.sender_epoch;
        let counters = self.counters_of(event.seq);
        if !is_ours {
            add(&mut counters.stale, 1);
            return false;
        }
        match place {
            Place::Known => return true,
            Place::Past => add(&mut counters.stale, 1),
            Place::Never => add(&mut counters.implausible, 1),
        }
        false
    }

    /// Whether the answer to the very request, not to a copy of it, had come before.
    fn note_answer(&mut self, event: &ReplyEvent) -> bool {
        if has_tlv(event) && event.tlv_flags & DtFlags::DUPLICATE != 0 {
            return false;
        }
        let Some(probe) = self.flight.get_mut(event.seq) else {
            return false;
        };
        let before = probe.marks.has(Marks::ANSWERED);
        probe.marks.set(Marks::ANSWERED);
        before
    }

    fn note_admission(&mut self, event: &ReplyEvent) {
        // Whoever is not ours has admitted us by answering.
        if has_tlv(event) && event.tlv_flags & DtFlags::ADMITTED == 0 {
            return;
        }
        if self.admitted.is_none_or(|first| is_below(event.seq, first)) {
            self.admitted = Some(event.seq);
        }
    }

    /// Gives the probe of a first reply its outcome.
    fn conclude(&mut self, event: &ReplyEvent, reordered: bool, now: MonoNanos) {
        let Some(probe) = self.flight.get_mut(event.seq) else {
            return;
        };
        let first = !probe.marks.has(Marks::REPLIED);
        probe.marks.set(Marks::REPLIED);
        let probe = *probe;
        match probe.state {
            State::Waiting => {
                self.cut_window(event, now);
                let counters = self.counters_of(event.seq);
                add(&mut counters.reordered, u32::from(reordered));
                self.measure(event, probe);
            }
            State::Done(outcome) if first && outcome.is_lost() => {
                add(&mut self.counters_of(event.seq).late_after_loss, 1);
            }
            State::Done(_) if first => add(&mut self.counters_of(event.seq).stale, 1),
            // Copies were counted as such.
            State::Done(_) | State::Unsent => {}
        }
    }

    fn measure(&mut self, event: &ReplyEvent, probe: Probe) {
        let waited_ns = MonoNanos(event.received_ns).since(probe.sent);
        let reading = Reading::of(event, waited_ns);
        let away_ns = reading.away_ns().unwrap_or(waited_ns);
        let in_time = away_ns <= self.config.deadline_ns;
        self.pace.handle_away(away_ns);
        self.window_of(event.seq).observe(event);
        let mut rtt_ns = None;
        match reading {
            Reading::Measured(sample) => {
                rtt_ns = Some(sample.rtt_ns);
                if in_time {
                    self.record_sample(event.seq, &sample);
                }
            }
            Reading::Straddled => add(&mut self.counters_of(event.seq).straddled, 1),
            Reading::Implausible => add(&mut self.counters_of(event.seq).implausible, 1),
        }
        let outcome = if in_time {
            Outcome::Received
        } else {
            Outcome::Late
        };
        self.counters_of(event.seq).count(outcome);
        self.flight.decide(event.seq, outcome);
        self.push_record(ProbeOutcome {
            seq: event.seq,
            class: self.config.mix.class_of(event.seq),
            sent: probe.sent,
            source_port: probe.source_port,
            outcome,
            rtt_ns,
            straddled: reading == Reading::Straddled,
            hops_forward: Hops::of_ttl(event.request_ttl),
            hops_return: Hops::of_ttl(event.reply_ttl),
            stamps: StampSources::of(event),
        });
    }

    fn record_sample(&mut self, seq: u32, sample: &Sample) {
        let window = self.window_of(seq);
        window.rtt.record(sample.rtt_ns);
        window.residence.record(sample.residence_ns);
        if let Some(one_way) = sample.one_way {
            window.observe_one_way(one_way);
        }
        let Some(probe) = self.flight.get_mut(seq) else {
            return;
        };
        if probe.marks.has(Marks::USER_EARLY) {
            let rtt_ns = u64::from(probe.spare_ns).saturating_sub(sample.residence_ns);
            self.window_of(seq).user_rtt.record(rtt_ns);
        } else if let Ok(residence_ns) = u32::try_from(sample.residence_ns) {
            probe.spare_ns = residence_ns;
            probe.marks.set(Marks::MEASURED);
        }
    }

    /// Finds out what became of a missing probe; the oldest one first.
    fn decide_missing(&mut self, seq: u32) {
        let Some(sent) = self.flight.get(seq).map(|probe| probe.sent) else {
            return;
        };
        let reach_ns = self.pace.reach_ns(self.config.deadline_ns);
        let outcome = match self.evidence.side(seq, &mut self.flight) {
            Side::Forward => self
                .credits
                .claim_forward(seq)
                .or_else(|| self.not_admitted(seq, sent))
                .unwrap_or(Outcome::LostForward),
            Side::Return => self
                .credits
                .claim_named(seq)
                .or_else(|| self.credits.claim_return(sent, reach_ns))
                .unwrap_or(Outcome::LostReturn),
            Side::Restarted => Outcome::PeerRestarted,
            Side::Unknown => self
                .credits
                .claim_named(seq)
                .or_else(|| self.credits.claim_return(sent, reach_ns))
                .or_else(|| self.not_admitted(seq, sent))
                .unwrap_or(Outcome::LostUnknown),
        };
        self.decide(seq, outcome);
    }

    fn not_admitted(&self, seq: u32, sent: MonoNanos) -> Option<Outcome> {
        let before = self.admitted.is_none_or(|first| is_below(seq, first));
        let in_grace = sent.since(self.started) < self.config.admission_grace_ns;
        (before && in_grace).then_some(Outcome::NotAdmitted)
    }

    /// Gives a probe without a reply its outcome.
    fn decide(&mut self, seq: u32, outcome: Outcome) {
        let Some(probe) = self.flight.get(seq).copied() else {
            return;
        };
        self.counters_of(seq).count(outcome);
        self.flight.decide(seq, outcome);
        self.push_record(ProbeOutcome {
            seq,
            class: self.config.mix.class_of(seq),
            sent: probe.sent,
            source_port: probe.source_port,
            outcome,
            rtt_ns: None,
            straddled: false,
            hops_forward: None,
            hops_return: None,
            stamps: StampSources::default(),
        });
    }

    fn push_record(&mut self, record: ProbeOutcome) {
        let Some(records) = &mut self.records else {
            return;
        };
        let dropped = records.push(record);
        add(
            &mut self.counters_of(record.seq).records_dropped,
            u32::from(dropped),
        );
    }

    /// Forgets the oldest probe, which is given up if it still waits.
    fn make_room(&mut self) {
        let first = self
            .flight
            .next_seq()
            .wrapping_sub(self.flight.len() as u32);
        if self.oldest_waiting() == Some(first) {
            add(&mut self.counters_of(first).crowded_out, 1);
            self.decide(first, Outcome::LostUnknown);
        }
        self.flight.forget_oldest();
    }

    fn oldest_waiting(&self) -> Option<u32> {
        self.flight.oldest_waiting().map(|(seq, _)| seq)
    }

    fn oldest_waiting_seq(&self) -> u32 {
        self.oldest_waiting().unwrap_or(self.flight.next_seq())
    }

    fn decidable_at(&self, sent: MonoNanos) -> MonoNanos {
        sent.plus(
            self.config
                .deadline_ns
                .saturating_add(self.config.settle_ns),
        )
    }

    fn memory_start(&self, now: MonoNanos) -> MonoNanos {
        MonoNanos(now.0.saturating_sub(self.config.memory_ns))
    }
}

const fn has_tlv(event: &ReplyEvent) -> bool {
    event.flags & EventFlags::TLV != 0
}
