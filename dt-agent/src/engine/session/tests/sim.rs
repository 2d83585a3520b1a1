//! A network between a session and a model of the reflector, on a virtual clock, that knows the truth about every probe.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use dt_common::event::ReplyEvent;
use dt_common::time::{MonoNanos, NtpTime};
use dt_common::wire::DtFlags;

use super::reflector::{EPOCH, PORT, Reflector};
use crate::engine::session::{Outcome, ProbeOutcome, Session, SessionConfig};
use crate::engine::window::{Counters, WindowReport};

pub const US: u64 = 1_000;
pub const MS: u64 = 1_000_000;
pub const SEC: u64 = 1_000_000_000;
const RESIDENCE: u64 = 7 * US;

/// The generator `SplitMix64`: small, seeded, and good enough to choose packets.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// True in `per_mille` of 1000 cases.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

/// What the wire does to one packet: the delay of each copy, ns, and whether it is damaged. Nothing: dropped.
pub type Fate = Vec<(u64, bool)>;
/// Decides the fate of each packet in one direction.
pub type Wire = Box<dyn FnMut(&mut Rng, OnWire) -> Fate>;

/// Chooses among packets by their number.
pub type Choice = Box<dyn FnMut(&mut Rng, u64) -> bool>;

/// A packet as the wire sees it.
#[derive(Clone, Copy, Debug)]
pub struct OnWire {
    /// How many there were in this direction, this one included.
    pub number: u64,
    /// The probe that it is, or answers.
    pub seq: u32,
    /// The probe's request was copied on its way there.
    pub copied: bool,
}

/// A wire that only takes time.
pub fn clean(delay_ns: u64) -> Wire {
    Box::new(move |_, _| vec![(delay_ns, false)])
}

/// What really happened to one probe.
#[derive(Clone, Copy, Debug, Default)]
pub struct Truth {
    pub sent: u64,
    pub seen: bool,
    /// What threw away a copy on the way there, and on the way back.
    pub thrown_there: Option<Outcome>,
    pub thrown_here: Option<Outcome>,
    pub arrived: Option<u64>,
    pub copied: bool,
}

impl Truth {
    pub fn outcome(&self, deadline_ns: u64) -> Outcome {
        match self.arrived {
            Some(at) if at - self.sent <= deadline_ns => return Outcome::Received,
            Some(_) => return Outcome::Late,
            None => {}
        }
        if self.seen {
            self.thrown_here.unwrap_or(Outcome::LostReturn)
        } else {
            self.thrown_there.unwrap_or(Outcome::LostForward)
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Packet {
    Send,
    Request {
        seq: u32,
        t1: u64,
        generation: u16,
        damaged: bool,
    },
    Reply {
        event: ReplyEvent,
        damaged: bool,
    },
    Counts,
    Window,
}

pub struct Sim {
    pub now: u64,
    pub session: Session,
    pub reflector: Reflector,
    pub rng: Rng,
    pub forward: Wire,
    pub back: Wire,
    /// Says of the n-th request that arrives whether a rate limit refuses it.
    pub refuses: Choice,
    /// Says of the n-th reply that arrives whether the ring is full.
    pub ring_full: Choice,
    pub interval_ns: u64,
    pub window_ns: u64,
    /// Wall clock minus monotonic clock, here.
    pub wall: u64,
    pub generation: u16,
    /// By sequence number, from `first` on.
    pub truth: Vec<Truth>,
    pub first: u32,
    pub total: Counters,
    /// By class of probes.
    pub totals: Vec<Counters>,
    pub windows: Vec<WindowReport>,
    pub records: Vec<Option<ProbeOutcome>>,
    pub peer_duplicates: u32,
    pub arrived_copies: u32,
    /// First replies whose probe straddled a clock step.
    pub straddled: u32,
    /// Sum of the round trip times of all probes in time that did not.
    pub rtt_ns: u64,
    config: Arc<SessionConfig>,
    local_corrupt: u32,
    local_overrun: u32,
    requests: u64,
    arrivals: u64,
    replies: u64,
    returns: u64,
    order: u64,
    /// By class of probes.
    in_flight: Vec<u32>,
    answers_seen: HashMap<(u32, u32), u32>,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    packets: Vec<Packet>,
    free: Vec<usize>,
}

impl Sim {
    pub fn new(config: SessionConfig, interval_ns: u64, seed: u64) -> Self {
        let config = Arc::new(SessionConfig {
            max_records: 1 << 20,
            ..config
        });
        let (start, classes) = (5 * SEC, config.mix.classes().len());
        let mut sim = Self {
            now: start,
            session: Session::new(&config, EPOCH, MonoNanos(start)),
            reflector: Reflector {
                epoch: 1,
                admits: true,
                ..Reflector::default()
            },
            rng: Rng(seed),
            forward: clean(100 * US),
            back: clean(100 * US),
            refuses: Box::new(|_, _| false),
            ring_full: Box::new(|_, _| false),
            interval_ns,
            window_ns: SEC,
            wall: 1_700_000_000 * SEC,
            generation: 2,
            truth: Vec::new(),
            first: 0,
            total: Counters::default(),
            totals: vec![Counters::default(); classes],
            windows: Vec::new(),
            records: Vec::new(),
            peer_duplicates: 0,
            arrived_copies: 0,
            straddled: 0,
            rtt_ns: 0,
            config,
            local_corrupt: 40,
            local_overrun: 50,
            requests: 0,
            arrivals: 0,
            replies: 0,
            returns: 0,
            order: 0,
            in_flight: vec![0; classes],
            answers_seen: HashMap::new(),
            queue: BinaryHeap::new(),
            packets: Vec::new(),
            free: Vec::new(),
        };
        sim.session.handle_local_counts(40, 50, MonoNanos(start));
        sim.put(start + sim.window_ns, Packet::Window);
        sim.put(start + 50 * MS, Packet::Counts);
        sim.put(start, Packet::Send);
        sim
    }

    /// As if this many probes had been sent and seen before.
    pub fn resume_after(&mut self, count: u32) {
        self.session = Session::after(count, &self.config, EPOCH, MonoNanos(self.now));
        self.session
            .handle_local_counts(40, 50, MonoNanos(self.now));
        self.reflector.received = count;
        self.first = count;
    }

    /// Sets the wall clock forward or back.
    pub fn step_clock(&mut self, by_ns: i64) {
        self.wall = self.wall.wrapping_add_signed(by_ns);
        self.generation = self.generation.wrapping_add(2);
    }

    /// Sends `probes` probes at the interval, and lets time pass until the next one would be due.
    pub fn run(&mut self, probes: u64) {
        let end = self.requests + probes;
        while self.requests < end {
            self.step();
        }
    }

    /// Stops all mischief, sends until everything before is decided, and closes the books.
    pub fn settle(&mut self) {
        self.forward = clean(100 * US);
        self.back = clean(100 * US);
        self.refuses = Box::new(|_, _| false);
        self.ring_full = Box::new(|_, _| false);
        self.reflector.down = false;
        self.run(5 + 5 * SEC / self.interval_ns);
        self.drain(5 * SEC);
    }

    /// Lets time pass without another probe; the rest of the queue is what was on its way.
    pub fn drain(&mut self, ns: u64) {
        let end = self.now + ns;
        while self.now < end {
            self.step_without_sending();
        }
    }

    pub fn finish(&mut self) -> Counters {
        let report = self.session.finish(MonoNanos(self.now));
        self.fetch();
        self.book(report);
        self.book_others();
        self.total
    }

    /// What the counters should say, by the truth about every probe that was sent before `end`.
    pub fn expected(&self) -> Counters {
        let mut expected = Counters::default();
        for class in 0..self.config.mix.classes().len() as u8 {
            sum(&mut expected, &self.expected_of(class));
        }
        expected
    }

    /// The same of one class of probes.
    pub fn expected_of(&self, class: u8) -> Counters {
        let mut expected = Counters::default();
        for (place, truth) in (0..).zip(&self.truth) {
            let seq = self.first.wrapping_add(place);
            if self.config.mix.class_of(seq) == class {
                expected.sent += 1;
                expected.count(truth.outcome(self.config.deadline_ns));
            }
        }
        expected
    }

    fn index(&self, seq: u32) -> usize {
        seq.wrapping_sub(self.first) as usize
    }

    fn step(&mut self) {
        let Some(Reverse((at, _, index))) = self.queue.peek().copied() else {
            return;
        };
        if let Some(timeout) = self.session.poll_timeout().filter(|timeout| timeout.0 < at) {
            self.now = self.now.max(timeout.0);
            self.session.handle_timeout(MonoNanos(self.now));
            let next = self.session.poll_timeout();
            assert!(
                next.is_none_or(|next| next.0 > self.now),
                "a timeout came to nothing"
            );
            self.fetch();
            return;
        }
        self.queue.pop();
        self.now = self.now.max(at);
        let packet = self.packets[index];
        self.free.push(index);
        self.handle(packet);
    }

    fn step_without_sending(&mut self) {
        let interval = self.interval_ns;
        let Some(Reverse((at, _, index))) = self.queue.peek().copied() else {
            return;
        };
        if matches!(self.packets[index], Packet::Send) {
            self.queue.pop();
            self.free.push(index);
            self.put(at + interval, Packet::Send);
            self.now = self.now.max(at);
            return;
        }
        self.step();
    }

    fn put(&mut self, at: u64, packet: Packet) {
        let index = if let Some(index) = self.free.pop() {
            self.packets[index] = packet;
            index
        } else {
            self.packets.push(packet);
            self.packets.len() - 1
        };
        self.order += 1;
        self.queue.push(Reverse((at, self.order, index)));
    }

    fn handle(&mut self, packet: Packet) {
        match packet {
            Packet::Send => self.send(),
            Packet::Request {
                seq,
                t1,
                generation,
                damaged,
            } => {
                self.reflect(seq, t1, generation, damaged);
            }
            Packet::Reply { event, damaged } => self.collect(event, damaged),
            Packet::Counts => {
                let now = MonoNanos(self.now);
                self.session
                    .handle_local_counts(self.local_corrupt, self.local_overrun, now);
                self.put(self.now + 100 * MS, Packet::Counts);
            }
            Packet::Window => {
                let now = MonoNanos(self.now);
                self.session
                    .handle_local_counts(self.local_corrupt, self.local_overrun, now);
                let report = self.session.take_window(now);
                self.book(report);
                self.book_others();
                self.fetch();
                self.put(self.now + self.window_ns, Packet::Window);
            }
        }
    }

    fn send(&mut self) {
        let seq = self.session.handle_send(PORT, MonoNanos(self.now));
        assert_eq!(self.session.next_seq(), seq.wrapping_add(1));
        self.requests += 1;
        let t1 = self.now + self.wall;
        let packet = OnWire {
            number: self.requests,
            seq,
            copied: false,
        };
        let fate = (self.forward)(&mut self.rng, packet);
        self.truth.push(Truth {
            sent: self.now,
            copied: fate.len() > 1,
            ..Truth::default()
        });
        self.records.push(None);
        for (delay, damaged) in fate {
            let generation = self.generation;
            self.put(
                self.now + delay,
                Packet::Request {
                    seq,
                    t1,
                    generation,
                    damaged,
                },
            );
        }
        self.put(self.now + self.interval_ns, Packet::Send);
    }

    fn reflect(&mut self, seq: u32, t1: u64, generation: u16, damaged: bool) {
        if self.reflector.down {
            return;
        }
        let index = self.index(seq);
        let truth = &mut self.truth[index];
        if damaged {
            truth.thrown_there = Some(Outcome::CorruptForward);
            self.reflector.corrupt = self.reflector.corrupt.wrapping_add(1);
            return;
        }
        self.arrivals += 1;
        if (self.refuses)(&mut self.rng, self.arrivals) {
            truth.thrown_there = Some(Outcome::Refused);
            self.reflector.refused = self.reflector.refused.wrapping_add(1);
            return;
        }
        truth.seen = true;
        let copied = truth.copied;
        let mut event = self.reflector.answer(seq);
        self.peer_duplicates += u32::from(event.tlv_flags & DtFlags::DUPLICATE != 0);
        let peer_wall = self.now + 1_700_000_000 * SEC + 3 * SEC;
        event.t1 = NtpTime::from_unix_nanos(t1).0;
        event.t2 = NtpTime::from_unix_nanos(peer_wall).0;
        event.t3 = NtpTime::from_unix_nanos(peer_wall + RESIDENCE).0;
        event.sender_generation = generation;
        self.replies += 1;
        let packet = OnWire {
            number: self.replies,
            seq,
            copied,
        };
        for (delay, damaged) in (self.back)(&mut self.rng, packet) {
            self.put(
                self.now + RESIDENCE + delay,
                Packet::Reply { event, damaged },
            );
        }
    }

    fn collect(&mut self, mut event: ReplyEvent, damaged: bool) {
        let index = self.index(event.seq);
        let truth = &mut self.truth[index];
        if damaged {
            truth.thrown_here = Some(Outcome::CorruptReturn);
            self.local_corrupt = self.local_corrupt.wrapping_add(1);
            return;
        }
        self.returns += 1;
        if (self.ring_full)(&mut self.rng, self.returns) {
            truth.thrown_here = Some(Outcome::Overrun);
            self.local_overrun = self.local_overrun.wrapping_add(1);
            return;
        }
        let copies = self
            .answers_seen
            .entry((event.seq, event.reflector_seq))
            .or_default();
        *copies += 1;
        self.arrived_copies += u32::from(*copies > 1);
        event.received_ns = self.now;
        event.t4 = NtpTime::from_unix_nanos(self.now + self.wall).0;
        event.local_generation = self.generation;
        if self.reflector.foreign {
            event.sender_generation = self.generation;
        }
        if truth.arrived.is_none() {
            truth.arrived = Some(self.now);
            let away = self.now - truth.sent;
            if event.sender_generation != self.generation {
                self.straddled += 1;
            } else if away <= self.config.deadline_ns {
                self.rtt_ns += away - RESIDENCE;
            }
        }
        self.session.handle_reply(&event, MonoNanos(self.now));
        self.fetch();
    }

    fn fetch(&mut self) {
        while let Some(record) = self.session.poll_record() {
            self.keep(record);
        }
    }

    fn keep(&mut self, record: ProbeOutcome) {
        let index = self.index(record.seq);
        assert_eq!(record.class, self.config.mix.class_of(record.seq));
        let again = self.records[index].replace(record);
        assert_eq!(again, None, "a probe has one outcome");
    }

    fn book(&mut self, report: WindowReport) {
        let counters = report.counters;
        let class = usize::from(report.class);
        assert_eq!(
            u64::from(self.in_flight[class]) + u64::from(counters.sent),
            counters.outcomes() + u64::from(report.in_flight),
            "the books of a window do not balance: {report:?}"
        );
        assert_eq!(counters.records_dropped, 0);
        self.in_flight[class] = report.in_flight;
        sum(&mut self.total, &counters);
        sum(&mut self.totals[class], &counters);
        self.windows.push(report);
    }

    fn book_others(&mut self) {
        while let Some(report) = self.session.poll_window() {
            self.book(report);
        }
    }

    /// Compares record by record, and says of which probes the direction differs. Which of two missing neighbours was
    /// corrupt and which was dropped cannot be known.
    pub fn assert_each_direction_is_right(&self) {
        let wrong: Vec<_> = self
            .records
            .iter()
            .flatten()
            .filter_map(|record| {
                let truth = self.truth[self.index(record.seq)].outcome(self.config.deadline_ns);
                let differs = direction(record.outcome) != direction(truth);
                differs.then_some((record.seq, record.outcome, truth))
            })
            .take(10)
            .collect();
        assert_eq!(wrong, [], "(seq, said, true)");
    }
}

pub fn sum(total: &mut Counters, window: &Counters) {
    macro_rules! add { ($($field:ident)*) => { $(total.$field += window.$field;)* } }
    add!(sent send_failed skipped received late lost_forward lost_return lost_unknown corrupt_forward corrupt_return
        overrun refused not_admitted peer_restarted departed late_after_loss duplicate_forward duplicate_return reordered
        stale implausible straddled crowded_out records_dropped);
}

/// Outcomes up to what threw the packet away.
pub fn direction(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::CorruptForward | Outcome::Refused => Outcome::LostForward,
        Outcome::CorruptReturn | Outcome::Overrun => Outcome::LostReturn,
        Outcome::Received
        | Outcome::Late
        | Outcome::LostForward
        | Outcome::LostReturn
        | Outcome::LostUnknown
        | Outcome::NotAdmitted
        | Outcome::PeerRestarted
        | Outcome::Departed => outcome,
    }
}
