//! The thread that probes: it sends what the schedule says, reads what came back, and closes windows.
//!
//! A thread of its own, not a task, so that nothing that publishes or discovers can delay a probe. It wakes for ticks
//! that all peers share, sends and reaps in one go, and sleeps again: wake-ups are what probes cost. The one hard rule:
//! replies are read before the time is told, or a reply that is already here would count as missing.

mod compare;
mod demand;
mod paths;
mod peers;
#[cfg(test)]
mod tests;
mod windows;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dt_common::event::ReplyEvent;
use dt_common::time::MonoNanos;
use dt_common::wire::DtFlags;

use self::compare::Comparisons;
use self::demand::{Advice, Demand};
pub use self::paths::{KernelPath, Path, Paths, SocketPath};
use self::peers::Peers;
pub use self::windows::{PeerWindow, WindowBatch, WindowSink};
use super::socket::{Probe, SendFailure, SendReport, Target};
use crate::adapters::clock;
use crate::engine::mesh::Slot;
use crate::engine::mix::Mix;
use crate::engine::random::Random;
use crate::engine::schedule::{self, Due, Schedule, ScheduleSettings};
use crate::engine::sender;
use crate::engine::session::{Session, SessionConfig};
use crate::engine::wheel::Wheel;

/// How to probe.
#[derive(Clone, Copy, Debug)]
pub struct ProberSettings {
    /// Probes per second to each peer.
    pub rate: f64,
    /// Length of a window.
    pub window: Duration,
    /// How long a probe is waited for.
    pub deadline: Duration,
    /// Of how many probes to a peer one is also timed in user space; 0: none.
    pub compare_every: u32,
    /// Source ports that each peer's probes take turns with, the one that changes among them.
    pub source_ports: u16,
    /// The classes of probes.
    pub mix: Mix,
    /// Keep a record of every probe.
    pub records: bool,
    /// Seed of phases and jitter.
    pub seed: u64,
}

/// What the prober is told.
#[derive(Debug)]
pub enum Order {
    /// Probe this peer from now on.
    Join {
        /// Its slot, which is its SSID.
        slot: Slot,
        /// Where it is.
        target: Target,
        /// How probes get there.
        path: Path,
    },
    /// Probe it another way, in the same session.
    Via {
        /// Its slot.
        slot: Slot,
        /// How probes get there from now on.
        path: Path,
    },
    /// Probe all peers at another rate.
    Rate {
        /// Probes per second to each peer.
        rate: f64,
    },
    /// Probe it no more; its last window is closed with the others'.
    Leave {
        /// Its slot.
        slot: Slot,
    },
    /// The collector's totals for a target.
    Counts {
        /// Its slot.
        slot: Slot,
        /// Replies with a wrong checksum.
        corrupt: u32,
        /// Replies for which the ring had no room.
        overrun: u32,
    },
}

/// The running prober. Dropping it stops probing; [`Prober::stop`] also waits for the last windows.
#[derive(Debug)]
pub struct Prober {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Prober {
    /// Starts probing nobody yet; windows go to `sink`.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn start(settings: ProberSettings, paths: Paths, sink: WindowSink) -> io::Result<Self> {
        let (orders, inbox) = channel();
        let thread = thread::Builder::new()
            .name("dt-probe".into())
            .spawn(move || Worker::new(settings, paths, sink).work(&inbox))?;
        Ok(Self {
            orders: Some(orders),
            thread: Some(thread),
        })
    }

    /// One that has nothing left to do.
    #[must_use]
    pub const fn ended() -> Self {
        Self {
            orders: None,
            thread: None,
        }
    }

    /// Tells it something; after its thread ended nobody hears.
    pub fn tell(&self, order: Order) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
        }
    }

    /// Sends no more, waits for what is on its way, at most the deadline, and closes the last windows.
    pub fn stop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("The probing thread failed; its last windows are lost.");
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One peer as the thread knows it.
#[derive(Debug)]
struct Entry {
    session: Session,
    path: Path,
    /// When a reply came last.
    answered: Option<MonoNanos>,
}

struct Worker {
    settings: ProberSettings,
    paths: Paths,
    session_config: Arc<SessionConfig>,
    windows: windows::Windows,
    schedule: Schedule,
    peers: Peers,
    comparisons: Comparisons,
    demand: Demand,
    random: Random,
    sweep_at: MonoNanos,
    /// Sessions in which a probe waits, by sweeps: not all ten thousand are to be looked at each time.
    deadlines: Wheel,
    /// Until when nothing is sent, so that more leaves together.
    rests_until: MonoNanos,
    /// The collector's totals that wait until the replies before them were read.
    counts: Vec<(Slot, u32, u32)>,
    // Scratch, kept for its memory.
    due: Vec<Due>,
    overdue: Vec<u16>,
    batch: Vec<Probe>,
    report: SendReport,
}

impl Worker {
    fn new(settings: ProberSettings, paths: Paths, sink: WindowSink) -> Self {
        let mut random = Random::new(settings.seed);
        let schedule = Schedule::new(
            ScheduleSettings {
                source_ports: settings.source_ports,
                ..ScheduleSettings::default()
            },
            random.split(),
        );
        let now = clock::now();
        Self {
            settings,
            paths,
            session_config: Arc::new(session_config(&settings)),
            windows: windows::Windows::new(settings.window, sink, now),
            schedule,
            peers: Peers::default(),
            comparisons: Comparisons::default(),
            demand: Demand::new(nanos(settings.deadline).saturating_add(SETTLE_NS)),
            random,
            sweep_at: now,
            deadlines: Wheel::new(),
            rests_until: now,
            counts: Vec::new(),
            due: Vec::new(),
            overdue: Vec::new(),
            batch: Vec::new(),
            report: SendReport::default(),
        }
    }

    fn work(mut self, orders: &Receiver<Order>) {
        while self.obey(orders) {
            let now = clock::now();
            self.fit_ways(now);
            self.receive(now);
            self.take_counts(now);
            let keep_ns = self.session_config.deadline_ns.saturating_add(SETTLE_NS);
            self.paths.rotate(keep_ns, now);
            self.send_due(clock::now());
            self.sweep(now);
            self.windows.close_due(&mut self.peers, now);
            self.sleep();
        }
        self.finish();
    }

    /// Takes all orders that wait; false when nobody will give any more.
    fn obey(&mut self, orders: &Receiver<Order>) -> bool {
        loop {
            match orders.try_recv() {
                Ok(order) => self.obey_one(order),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "an order is obeyed once")]
    fn obey_one(&mut self, order: Order) {
        let now = clock::now();
        match order {
            Order::Join { slot, target, path } => self.join(slot, target, path, now),
            Order::Via { slot, path } => {
                if let Some(entry) = self.peers.get_mut(slot.0) {
                    self.demand.handle_way(Some(entry.path), Some(path), now);
                    entry.path = path;
                }
            }
            Order::Rate { rate } => self.change_rate(rate, now),
            Order::Leave { slot } => {
                self.schedule.remove(slot);
                self.deadlines.remove(slot.0);
                self.paths.remove_target(slot.0);
                if let Some(mut entry) = self.peers.remove(slot.0) {
                    self.demand.handle_way(Some(entry.path), None, now);
                    entry.session.handle_peer_gone(now);
                    self.windows.keep_last(slot, entry.session, entry.path, now);
                }
            }
            Order::Counts {
                slot,
                corrupt,
                overrun,
            } => self.counts.push((slot, corrupt, overrun)),
        }
    }

    fn join(&mut self, slot: Slot, target: Target, path: Path, now: MonoNanos) {
        // The reflector starts a session anew when this changes; 0 is what packets without our TLV have.
        let sender_epoch = (self.random.bits() as u32) | 1;
        let flags = target.tlv.map_or(DtFlags::AGENT, |(_, flags)| flags);
        let target = Target {
            tlv: Some((sender_epoch, flags)),
            ..target
        };
        if let Err(error) = self.paths.set_target(slot.0, target) {
            tracing::error!(%slot, %error, "A peer cannot be probed.");
            return;
        }
        let mut session = Session::new(&self.session_config, sender_epoch, now);
        session.handle_local_counts(0, 0, now);
        self.deadlines.remove(slot.0);
        let before = self.peers.insert(
            slot.0,
            Entry {
                session,
                path,
                answered: None,
            },
        );
        let before = before.map(|entry| entry.path);
        self.demand.handle_way(before, Some(path), now);
        self.schedule.add(slot, self.settings.rate, now);
    }

    fn change_rate(&mut self, rate: f64, now: MonoNanos) {
        self.settings.rate = rate;
        self.session_config = Arc::new(session_config(&self.settings));
        for (slot, entry) in self.peers.iter_mut() {
            entry.session.handle_config(&self.session_config);
            self.schedule.add(Slot(slot), rate, now);
        }
    }

    /// Opens the way through sockets for the first peer that needs it, and closes it behind the last one.
    fn fit_ways(&mut self, now: MonoNanos) {
        match self.demand.advise(self.paths.socket.is_some(), now) {
            Advice::Open => {
                if let Err(error) = self.paths.open_spare() {
                    self.demand.handle_failure(now);
                    tracing::error!(%error, "Peers that the programs do not reach are not probed.");
                }
            }
            Advice::Close => self.paths.close_spare(),
            Advice::Keep => {}
        }
    }

    fn receive(&mut self, now: MonoNanos) {
        let Self {
            paths,
            peers,
            comparisons,
            ..
        } = self;
        paths.poll_events(|event: &ReplyEvent| {
            if let Some(entry) = peers.get_mut(event.ssid) {
                entry.session.handle_reply(event, now);
                entry.answered = Some(now);
            }
        });
        paths.poll_user_replies(|ssid, seq, received| {
            let sent = comparisons.take(ssid, seq);
            if let (Some(sent), Some(entry)) = (sent, peers.get_mut(ssid)) {
                entry.session.handle_user_reply(seq, sent.0, received.0);
            }
        });
    }

    /// Credits what was thrown away. After the ring was emptied: what an event tells of must not be credited too.
    fn take_counts(&mut self, now: MonoNanos) {
        for (slot, corrupt, overrun) in self.counts.drain(..) {
            if let Some(entry) = self.peers.get_mut(slot.0) {
                entry.session.handle_local_counts(corrupt, overrun, now);
            }
        }
    }

    fn send_due(&mut self, now: MonoNanos) {
        if now < self.rests_until {
            return;
        }
        self.windows.note_wake_up(self.next_send(), now);
        self.due.clear();
        self.schedule.handle_timeout(now, &mut self.due);
        if self.due.is_empty() {
            return;
        }
        let interval_ns = self.session_config.interval_ns;
        self.rests_until = now.plus(schedule::rest_ns(interval_ns, self.peers.len()));
        let due = std::mem::take(&mut self.due);
        for path in [Path::Kernel, Path::Socket] {
            self.fill_batch(&due, path, now);
            if !self.batch.is_empty() {
                self.send_batch(path, now);
            }
        }
        self.due = due;
    }

    /// Gathers the probes that go one way. A whole burst of a peer shares a source port: one system call sends it, or one for
    /// each code point.
    fn fill_batch(&mut self, due: &[Due], path: Path, now: MonoNanos) {
        self.batch.clear();
        for due in due {
            let Some(entry) = self
                .peers
                .get_mut(due.peer.0)
                .filter(|entry| entry.path == path)
            else {
                continue;
            };
            entry.session.handle_skipped(due.skipped);
            let slot = due.first_port % self.settings.source_ports.max(1);
            let port = self.paths.source_port(path, slot);
            let first = self.batch.len();
            let may_be_made =
                sender::may_be_made(entry.answered, now, self.session_config.interval_ns);
            for _ in 0..due.count {
                let seq = entry.session.handle_send(port, now);
                let timed = seq.checked_rem(self.settings.compare_every) == Some(0);
                self.batch.push(Probe {
                    ssid: due.peer.0,
                    slot,
                    class: self.session_config.mix.class_of(seq),
                    seq,
                    timed,
                    by_socket: !may_be_made,
                });
            }
            if !self.deadlines.contains(due.peer.0)
                && let Some(at) = entry.session.poll_deadline()
            {
                self.deadlines.insert(due.peer.0, sweep_of(at));
            }
            // All of a run or none, so that they leave in order.
            let run = &mut self.batch[first..];
            if run.iter().any(|probe| probe.timed) {
                for probe in run {
                    probe.by_socket = true;
                }
            }
        }
    }

    fn send_batch(&mut self, path: Path, now: MonoNanos) {
        self.paths.send_batch(path, &self.batch, &mut self.report);
        for sent in &self.report.timed {
            let probe = self.batch[sent.index];
            self.comparisons.note(probe.ssid, probe.seq, sent.at);
        }
        // From the last on: what is taken back must be the newest of its session each time.
        for failed in self.report.failed.iter().rev() {
            let probe = self.batch[failed.index];
            if let Some(entry) = self.peers.get_mut(probe.ssid) {
                entry.session.handle_send_failed(probe.seq, now);
            }
            self.windows.note_failure(failed.failure);
        }
    }

    /// Lets sessions decide in which a probe is overdue.
    fn sweep(&mut self, now: MonoNanos) {
        if now < self.sweep_at {
            return;
        }
        self.sweep_at = now.plus(SWEEP_NS);
        self.deadlines.advance(now.0 / SWEEP_NS, &mut self.overdue);
        for ssid in self.overdue.drain(..) {
            let Some(entry) = self.peers.get_mut(ssid) else {
                continue;
            };
            let session = &mut entry.session;
            if session.poll_timeout().is_some_and(|at| at <= now) {
                session.handle_timeout(now);
            }
            if let Some(at) = session.poll_deadline() {
                // One that is overdue and undecided waits for what other replies say.
                self.deadlines
                    .insert(ssid, sweep_of(at.max(now.plus(LOOK_AGAIN_NS))));
            }
        }
    }

    /// When probes are sent next.
    fn next_send(&self) -> Option<MonoNanos> {
        let due = self.schedule.poll_timeout()?;
        Some(due.max(self.rests_until))
    }

    fn sleep(&self) {
        let now = clock::now();
        let wake_at = self.next_send().unwrap_or(self.sweep_at);
        let wake_at = wake_at.min(self.sweep_at).min(self.windows.next_at(now));
        if wake_at > now {
            thread::sleep(Duration::from_nanos(wake_at.since(now)));
        }
    }

    /// Waits for replies that are on their way and closes the last windows.
    fn finish(mut self) {
        let end = clock::now().plus(nanos(self.settings.deadline).min(LONGEST_FINISH_NS));
        while clock::now() < end
            && self
                .peers
                .iter_mut()
                .any(|(_, entry)| entry.session.in_flight() > 0)
        {
            thread::sleep(FINISH_STEP);
            self.receive(clock::now());
        }
        let now = clock::now();
        for slot in self.peers.slots().collect::<Vec<_>>() {
            let Some(mut entry) = self.peers.remove(slot) else {
                continue;
            };
            entry.session.handle_timeout(now);
            self.windows
                .keep_last(Slot(slot), entry.session, entry.path, now);
        }
        self.windows.close_all(&mut self.peers, now);
    }
}

/// The sweep at which a moment has passed.
const fn sweep_of(moment: MonoNanos) -> u64 {
    moment.0.div_ceil(SWEEP_NS)
}

fn session_config(settings: &ProberSettings) -> SessionConfig {
    SessionConfig {
        deadline_ns: nanos(settings.deadline),
        interval_ns: (1e9 / settings.rate) as u64,
        max_cuts: MAX_CUTS,
        max_records: if settings.records { MAX_RECORDS } else { 0 },
        mix: settings.mix.with_ports(settings.source_ports),
        ..SessionConfig::default()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// From sweep to sweep; also the longest sleep, so that orders are heard.
const SWEEP_NS: u64 = 100_000_000;
/// How soon a session whose overdue probe is undecided is looked at again.
const LOOK_AGAIN_NS: u64 = 100_000_000;
/// A clean stop takes two seconds in all.
const LONGEST_FINISH_NS: u64 = 1_200_000_000;
/// How much later than the deadline the reply to a probe still counts, see `SessionConfig::settle_ns`; with some room.
const SETTLE_NS: u64 = 1_000_000_000;
const FINISH_STEP: Duration = Duration::from_millis(2);
/// Windows of a peer that may end early in the time of one, because stamps come from elsewhere.
const MAX_CUTS: u32 = 4;
/// Records that wait for a window's end, per peer.
const MAX_RECORDS: u32 = 131_072;
