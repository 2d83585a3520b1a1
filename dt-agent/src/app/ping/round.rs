//! The loop: receive, decide, send, print, wait.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use dt_common::event::{EventFlags, ReplyEvent};
use dt_common::time::MonoNanos;

use super::bell::Bell;
use super::form::{Form, Peer};
use super::ground::Ground;
use super::host::Host;
use super::print::Printer;
use super::resolve::Destination;
use crate::adapters::clock;
use crate::adapters::datapath::prober::Path;
use crate::adapters::datapath::socket::{Probe, SendReport};
use crate::app::station;
use crate::config::PingConfig;
use crate::engine::random::Random;
use crate::engine::session::SessionConfig;

/// How it ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ended {
    /// Every host answered at least once.
    Answered,
    /// Some host did not.
    Unanswered,
    /// And it could not even be probed.
    Failed,
}

/// All hosts and what they are probed with.
pub(super) struct Round {
    hosts: Vec<Host>,
    ground: Ground,
    printer: Printer,
    random: Random,
    compare: bool,
    started: MonoNanos,
    ends: Option<MonoNanos>,
    counts_at: MonoNanos,
    failure_told: bool,
    // Scratch, kept for its memory.
    events: Vec<ReplyEvent>,
    batch: Vec<Probe>,
    report: SendReport,
}

impl Round {
    pub(super) fn new(
        config: &PingConfig,
        ground: Ground,
        destinations: Vec<Destination>,
    ) -> anyhow::Result<Self> {
        let started = clock::now();
        let mut round = Self {
            hosts: hosts(config, destinations, started),
            ground,
            printer: Printer::new(config),
            random: Random::new(station::chance()),
            compare: config.compare,
            started,
            ends: config.deadline.map(|after| started.plus(nanos(after))),
            counts_at: started,
            failure_told: false,
            events: Vec::new(),
            batch: Vec::new(),
            report: SendReport::default(),
        };
        for place in 0..round.hosts.len() {
            round.begin(place, started)?;
        }
        round.look(true)?;
        Ok(round)
    }

    /// Probes until all is done, the deadline or a signal, and sums up.
    pub(super) fn run(mut self, bell: &Bell) -> anyhow::Result<Ended> {
        loop {
            let now = clock::now();
            if self.ground.tick(now)? {
                self.look(false)?;
            }
            self.receive(now);
            self.settle(now)?;
            self.send_due(clock::now());
            if !self.print()? {
                // Nobody reads any more, as behind `head`.
                break;
            }
            let now = clock::now();
            let over = self.ends.is_some_and(|ends| now >= ends);
            if over || self.hosts.iter().all(|host| host.is_done(now)) {
                break;
            }
            if bell.wait(self.next(now))? {
                break;
            }
        }
        self.receive(clock::now());
        self.finish()
    }

    /// Begins a session of a host with the form that its inquiry says.
    fn begin(&mut self, place: usize, now: MonoNanos) -> anyhow::Result<()> {
        let host = &mut self.hosts[place];
        if host.turn() > 0 {
            self.ground.remove_target(host.ssid)?;
        }
        let ssid = self.ground.ssid(place as u16, host.turn());
        let slot = place as u16 % self.ground.ports();
        // The reflector starts a session anew when this changes; 0 is what packets without our TLV have.
        let sender_epoch = (self.random.bits() as u32) | 1;
        let tlv = host.begin(ssid, sender_epoch, now);
        self.ground
            .set_target(ssid, &host.destination, slot, tlv)
            .with_context(|| format!("cannot probe {}", host.destination.name))
    }

    /// Looks at the ways to all hosts, which a ladder or an ended agent may have changed.
    fn look(&mut self, first: bool) -> anyhow::Result<()> {
        for host in &mut self.hosts {
            let path = self.ground.path(&host.destination)?;
            let changed = path != host.path;
            host.path = path;
            let mode = self.ground.mode(&host.destination)?;
            if first {
                let why = self.ground.reason(&host.destination);
                self.printer.start(host, mode, &why)?;
            } else if changed {
                let name = mode.map_or("socket", crate::engine::ladder::Mode::name);
                eprintln!(
                    "dt-agent: {} is now probed in mode {name}",
                    host.destination.name
                );
            }
        }
        Ok(())
    }

    fn receive(&mut self, now: MonoNanos) {
        self.events.clear();
        let events = &mut self.events;
        self.ground.paths.poll_events(|event| events.push(*event));
        for place in 0..self.events.len() {
            let event = self.events[place];
            let by_program = event.flags & EventFlags::SOCKET == 0;
            if by_program && event.t1 == 0 {
                self.ground.distrust();
            }
            let found = self.hosts.iter_mut().find(|host| host.ssid == event.ssid);
            if let Some(host) = found
                && host.handle_reply(&event, now)
            {
                tell_peer(host);
            }
        }
        let hosts = &mut self.hosts;
        self.ground.paths.poll_user_replies(|ssid, seq, received| {
            if let Some(host) = hosts.iter_mut().find(|host| host.ssid == ssid) {
                host.handle_user_reply(seq, received);
            }
        });
    }

    /// Lets time pass for every host.
    fn settle(&mut self, now: MonoNanos) -> anyhow::Result<()> {
        let counts_due = now >= self.counts_at;
        if counts_due {
            self.counts_at = now.plus(COUNTS_NS);
        }
        for place in 0..self.hosts.len() {
            let host = &mut self.hosts[place];
            if counts_due {
                let counts = self.ground.counts(host.ssid)?;
                host.handle_counts(counts, now);
            }
            host.handle_timeout(now);
            if host.wants_other_form(now) {
                let first = host.turn() == 0;
                host.give_up_form(now);
                if first {
                    eprintln!(
                        "dt-agent: {} does not answer probes with TLVs, trying plain STAMP of 44 bytes",
                        host.destination.name
                    );
                }
                self.begin(place, now)?;
            }
        }
        Ok(())
    }

    fn send_due(&mut self, now: MonoNanos) {
        for path in [Path::Kernel, Path::Socket] {
            self.batch.clear();
            for (place, host) in self.hosts.iter_mut().enumerate() {
                if host.path != path {
                    continue;
                }
                let slot = place as u16 % self.ground.ports();
                let port = self.ground.paths.source_port(path, slot);
                for _ in 0..host.poll_due(now, MAX_BURST) {
                    self.batch.push(Probe {
                        ssid: host.ssid,
                        slot,
                        class: host.class,
                        seq: host.handle_send(port, now),
                        timed: self.compare,
                        by_socket: true,
                    });
                }
            }
            if !self.batch.is_empty() {
                self.send_batch(path, now);
            }
        }
    }

    fn send_batch(&mut self, path: Path, now: MonoNanos) {
        self.ground
            .paths
            .send_batch(path, &self.batch, &mut self.report);
        for sent in &self.report.timed {
            let probe = self.batch[sent.index];
            if let Some(host) = self.hosts.iter_mut().find(|host| host.ssid == probe.ssid) {
                host.handle_user_sent(probe.seq, sent.at);
            }
        }
        // From the last on: what is taken back must be the newest of its session each time.
        for failed in self.report.failed.iter().rev() {
            let probe = self.batch[failed.index];
            let Some(host) = self.hosts.iter_mut().find(|host| host.ssid == probe.ssid) else {
                continue;
            };
            host.handle_send_failed(probe.seq, now);
            if !self.failure_told {
                self.failure_told = true;
                eprintln!("dt-agent: {}: {}", host.destination.name, failed.failure);
            }
        }
    }

    /// Prints what is to be told; false when nobody listens any more.
    fn print(&mut self) -> anyhow::Result<bool> {
        let printed = self.try_print();
        match printed {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error).context("cannot write"),
        }
    }

    fn try_print(&mut self) -> io::Result<()> {
        for host in &mut self.hosts {
            while let Some(told) = host.poll_told() {
                self.printer.told(host, &told)?;
            }
        }
        self.printer.flush()
    }

    /// When there is something to do, if no reply comes before.
    fn next(&self, now: MonoNanos) -> MonoNanos {
        let mut next = self.ground.poll_timeout(now).min(self.counts_at);
        for host in &self.hosts {
            next = next.min(host.poll_timeout(now).unwrap_or(next));
            if host.path == Path::Socket && host.is_waiting() {
                // The thread that reads the sockets rings no bell.
                next = next.min(now.plus(SOCKET_STEP_NS));
            }
        }
        next.min(self.ends.unwrap_or(next))
    }

    fn finish(mut self) -> anyhow::Result<Ended> {
        let now = clock::now();
        let elapsed_ns = now.since(self.started);
        let mut ended = Ended::Answered;
        let mut reports = Vec::new();
        for host in &mut self.hosts {
            let counts = self.ground.counts(host.ssid)?;
            host.handle_counts(counts, now);
            let report = host.finish(now);
            if host.inquiry.peer().is_none() {
                let tried = host.totals.sent > 0 || host.totals.failed == 0;
                let failed = !tried || ended == Ended::Failed;
                ended = if failed {
                    Ended::Failed
                } else {
                    Ended::Unanswered
                };
            }
            reports.push(report);
        }
        if self.print()? {
            for (host, report) in self.hosts.iter().zip(&reports) {
                self.printer.summary(host, report, elapsed_ns)?;
            }
            self.print()?;
        }
        Ok(ended)
    }
}

/// Interleaved: no two hosts are probed at the same moment.
fn hosts(config: &PingConfig, destinations: Vec<Destination>, started: MonoNanos) -> Vec<Host> {
    let session = Arc::new(session_config(config));
    let apart_ns = session.interval_ns / destinations.len().max(1) as u64;
    let wanted = (config.count, config.compare);
    let hosts = destinations.into_iter().enumerate();
    hosts
        .map(|(place, one)| {
            let due_at = started.plus(apart_ns * place as u64);
            Host::new(one, &session, wanted, due_at)
        })
        .collect()
}

/// Says once who answers, where that is not one of ours.
fn tell_peer(host: &Host) {
    let (Some(peer), form) = (host.inquiry.peer(), host.inquiry.form()) else {
        return;
    };
    if peer != Peer::Ours && form == Form::Plain {
        eprintln!(
            "dt-agent: {} answers plain STAMP of 44 bytes only; whatever its size, no probe of it is longer",
            host.destination.name
        );
    }
}

fn session_config(config: &PingConfig) -> SessionConfig {
    SessionConfig {
        deadline_ns: nanos(config.timeout),
        interval_ns: nanos(config.interval),
        // Nobody has to admit a `ping`.
        admission_grace_ns: 0,
        max_records: MAX_RECORDS,
        ..SessionConfig::default()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// From look to look at the collector's counts.
const COUNTS_NS: u64 = 100_000_000;
/// From look to look at what the sockets got.
const SOCKET_STEP_NS: u64 = 500_000;
/// Probes of one host in one go.
const MAX_BURST: u32 = 32;
/// Records between two turns of the loop; far more than can come.
const MAX_RECORDS: u32 = 65_536;
