//! The course of a demo on a raised stage: warm up, measure, stop, count.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dt_feed::Histogram;
use dt_tests::Interrupt;
use dt_tests::wait::Deadline;

use super::feed::Feed;
use super::findings::{Findings, PINGED};
use super::live::{Scene, Screen};
use super::options::Options;
use super::ping::Ping;
use super::stage::Stage;
use super::stress::Stress;
use super::tally::{Span, Tally};
use crate::clock::{self, Stopwatch};

/// A demo that is running.
pub struct Show<'a> {
    options: &'a Options,
    stage: &'a mut Stage,
    interrupt: &'a Interrupt,
    start: Start,
    feed: Feed,
    tally: Tally,
    screen: Screen,
}

/// When the command was started, and how long set-up and build took from there.
#[derive(Clone, Copy)]
pub struct Start {
    pub unix_ns: u64,
    pub built_after: Duration,
}

/// What was taken while measuring, beside the feed.
struct Measured {
    span: Span,
    ping_rtt: Histogram,
    cpu_ns: Option<u64>,
}

impl<'a> Show<'a> {
    /// A show with the agents of `stage`, which have been started; `start` is that of the command.
    pub fn new(
        options: &'a Options,
        stage: &'a mut Stage,
        interrupt: &'a Interrupt,
        start: Start,
    ) -> Self {
        let feed = Feed::follow(stage.feed_dirs());
        let screen = if stage.is_drawn() {
            Screen::dark()
        } else {
            Screen::new()
        };
        let tally = Tally::default();
        Self {
            options,
            stage,
            interrupt,
            start,
            feed,
            tally,
            screen,
        }
    }

    /// Runs to the end and stops the agents.
    pub fn run(mut self) -> Result<Findings> {
        self.warm_up()?;
        ensure!(!self.interrupt.arrived(), "nothing was measured yet");
        let measured = self.measure()?;
        if self.interrupt.arrived() {
            eprintln!("interrupted: stopping the agents and clearing away what they have");
        }
        let mut faults = self.stage.stop_agents();
        self.stage.finish_feed()?;
        self.feed.read_into(&mut self.tally)?;
        faults.extend(self.feed.faults());
        if self.interrupt.arrived() {
            let seconds = measured.span.length_ns() / 1_000_000_000;
            faults.push(format!("interrupted after {seconds} s of measuring"));
        }
        let began = self.tally.all_answered_since_unix_ns();
        let after =
            began.map(|began| Duration::from_nanos(began.saturating_sub(self.start.unix_ns)));
        Ok(Findings {
            measured: measured.span,
            built_after: self.start.built_after,
            began_after: after,
            ping_rtt: measured.ping_rtt,
            cpu_ns: measured.cpu_ns,
            feed_bytes: self.feed.bytes()?,
            tally: self.tally,
            faults,
        })
    }

    /// Waits until every pair is answered, and then a while for the best mode: what then is not there, never may be.
    fn warm_up(&mut self) -> Result<()> {
        let pairs = self.options.pair_count();
        let best = self.options.mode.best();
        self.watch(answer_limit(self.options), "warming up", |tally| {
            tally.answered() == pairs
        })?;
        self.watch(MODE_LIMIT, "warming up", |tally| {
            tally.in_mode(best) == pairs
        })
    }

    fn measure(&mut self) -> Result<Measured> {
        let stress = if self.options.stress {
            Some(Stress::start(self.stage)?)
        } else {
            None
        };
        let ping = Ping::start(
            self.stage.host(PINGED.0),
            self.stage.host(PINGED.1),
            self.options,
        )?;
        let (cpu_before_ns, start_unix_ns) = (self.stage.cpu_ns()?, clock::now_unix_ns());
        let length = Duration::from_secs(self.options.seconds.into());
        let limit = format!("of {} s", self.options.seconds);
        self.watch(length, &limit, |_| false)?;
        // An agent that Ctrl-C has ended took its clock along.
        let cpu_after_ns = self.stage.cpu_ns().ok();
        let span = Span {
            start_unix_ns,
            end_unix_ns: clock::now_unix_ns(),
        };
        let ping_rtt = ping.finish();
        if let Some(stress) = stress {
            stress.finish().context("cannot end the stress")?;
        }
        // Windows are a second long and their probes belong to all of it: the last one has to close in peace.
        self.watch(WINDOW, "last window", |_| false)?;
        Ok(Measured {
            span,
            ping_rtt,
            cpu_ns: cpu_after_ns.map(|after_ns| after_ns - cpu_before_ns),
        })
    }

    /// Shows what the feed says for `length`, or until `enough` or Ctrl-C; an error when an agent ends by itself.
    fn watch(
        &mut self,
        length: Duration,
        phase: &str,
        enough: impl Fn(&Tally) -> bool,
    ) -> Result<()> {
        let watch = Stopwatch::start();
        let deadline = Deadline::after(length);
        loop {
            self.feed.read_into(&mut self.tally)?;
            let scene = Scene {
                options: self.options,
                tally: &self.tally,
                phase: format!("{} s {phase}", watch.elapsed().as_secs()),
            };
            self.screen.show(&scene);
            if enough(&self.tally) || deadline.has_passed() || self.interrupt.arrived() {
                return Ok(());
            }
            let checked = self.stage.check_agents();
            if self.interrupt.arrived() {
                // They got the same Ctrl-C.
                return Ok(());
            }
            checked?;
            thread::sleep(deadline.left().min(REDRAW));
        }
    }
}

/// Long, because each host has its programs verified, and a busy machine takes its time for that.
fn answer_limit(options: &Options) -> Duration {
    Duration::from_secs(15 + 5 * u64::from(options.nodes))
}

const MODE_LIMIT: Duration = Duration::from_secs(4);
/// `--window` of the agents, and some time to write.
const WINDOW: Duration = Duration::from_millis(1_200);
const REDRAW: Duration = Duration::from_millis(200);
