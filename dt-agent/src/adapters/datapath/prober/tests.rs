//! The probing thread itself, through real sockets on the loopback link, while the clock port says that the clock was set.

use std::time::Duration;

use dt_common::wire::DtFlags;

use super::super::socket::{SocketOptions, loopback};
use super::*;
use crate::adapters::clock::{ClockTracker, Reading, SharedClock, read};
use crate::engine::mix::Class;
use crate::engine::session::{Outcome, ProbeOutcome};

const SLOT: Slot = Slot(9);
const RATE: f64 = 200.0;
const WINDOW: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(10);
const HOUR: i64 = 3_600;

/// A clock that is set when the test says so, as the thread that follows the real one would tell it.
struct Steered {
    shared: SharedClock,
    tracker: ClockTracker,
    offset_ns: u64,
}

impl Steered {
    fn new() -> Self {
        let first = read();
        let mut tracker = ClockTracker::new(&first);
        let shared = SharedClock::new(tracker.state());
        while tracker.poll_state().is_some() {}
        Self {
            shared,
            tracker,
            offset_ns: first.offset_ns,
        }
    }

    fn step(&mut self, seconds: i64) {
        self.offset_ns = self.offset_ns.wrapping_add_signed(seconds * 1_000_000_000);
        self.tracker.handle_reading(&Reading {
            offset_ns: self.offset_ns,
            ..read()
        });
        while let Some(state) = self.tracker.poll_state() {
            self.shared.set(state);
        }
    }
}

fn start(clock: SharedClock) -> (Prober, Receiver<WindowBatch>) {
    let options = SocketOptions {
        locals: vec![loopback::V4],
        ports: vec![0],
        rotation: None,
        classes: vec![Class::default()],
        mark: None,
    };
    let socket = SocketPath::open(&options, clock).expect("a port");
    let settings = ProberSettings {
        rate: RATE,
        window: WINDOW,
        deadline: Duration::from_secs(1),
        compare_every: 0,
        source_ports: 1,
        mix: Mix::default(),
        records: true,
        seed: 7,
    };
    let (sender, windows) = channel();
    let sink: WindowSink = Box::new(move |batch| sender.send(batch).map_err(|unsent| unsent.0));
    let prober = Prober::start(settings, Paths::new(None, Some(socket)), sink);
    (prober.expect("a thread"), windows)
}

/// All that the windows said.
#[derive(Default)]
struct Told {
    ends: Vec<MonoNanos>,
    sent: u64,
    straddled: u64,
    implausible: u64,
    records: Vec<ProbeOutcome>,
}

impl Told {
    fn take(&mut self, batch: WindowBatch) {
        for window in batch.windows {
            let counters = &window.report.counters;
            self.ends.push(window.report.end);
            self.sent += u64::from(counters.sent);
            self.straddled += u64::from(counters.straddled);
            self.implausible += u64::from(counters.implausible);
            self.records.extend(window.records);
        }
    }

    /// Nothing is lost, and nothing that was measured is wrong; the greatest round trip time and the longest pause, ns.
    fn check(&mut self) -> (u64, u64) {
        let records = &mut self.records;
        records.sort_unstable_by_key(|record| record.seq);
        let numbers: Vec<_> = records.iter().map(|record| record.seq).collect();
        assert!(
            numbers.iter().copied().eq(0..self.sent as u32),
            "{numbers:?} of {}",
            self.sent
        );
        let lost = records
            .iter()
            .filter(|record| record.outcome != Outcome::Received);
        assert_eq!(lost.count(), 0, "{records:?}");
        // The kernel stamps by a clock that nobody set: where one end of a probe has only its stamp and the other only ours,
        // the two contradict each other, and that is seen.
        let unmeasured = records.iter().filter(|record| record.rtt_ns.is_none());
        assert_eq!(unmeasured.count() as u64, self.straddled + self.implausible);
        assert!(self.ends.is_sorted(), "windows end in order");
        let greatest_ns = records.iter().filter_map(|record| record.rtt_ns).max();
        let greatest_ns = greatest_ns.expect("round trip times");
        let pauses = records
            .windows(2)
            .map(|pair| pair[1].sent.since(pair[0].sent));
        let pause_ns = pauses.max().expect("probes");
        // The least step is 5 s, the deadline 1 s.
        assert!(
            greatest_ns < SECOND && pause_ns < SECOND,
            "{greatest_ns} ns, {pause_ns} ns"
        );
        (greatest_ns, pause_ns)
    }
}

#[test]
fn steps_of_either_clock_leave_round_trip_times_probing_and_windows_alone() {
    let (mut own, mut peers) = (Steered::new(), Steered::new());
    let reflector = loopback::reflector(loopback::V4, peers.shared.clone());
    let (mut prober, windows) = start(own.shared.clone());
    prober.tell(Order::Join {
        slot: SLOT,
        target: Target {
            address: reflector.locals()[0],
            local: 0,
            tlv: Some((0, DtFlags::AGENT)),
        },
        path: Path::Socket,
    });
    let mut told = Told::default();
    let set = STEPS.iter().flat_map(|(own, peers)| [own, peers]);
    let set = set.filter(|seconds| **seconds != 0).count();
    for (own_s, peers_s) in STEPS {
        own.step(own_s);
        peers.step(peers_s);
        for _ in 0..4 {
            told.take(windows.recv_timeout(PATIENCE).expect("windows go on"));
        }
    }
    // So often that some probes are on their way meanwhile, and by less than a round trip time may be.
    let until = clock::now().plus(nanos(PATIENCE));
    let mut storm = 0_i64;
    while told.straddled == 0 && clock::now() < until {
        storm += 1;
        own.step(if storm % 2 == 0 { 5 } else { -5 });
        if let Ok(batch) = windows.recv_timeout(Duration::from_millis(1)) {
            told.take(batch);
        }
    }
    prober.stop();
    for batch in windows.try_iter() {
        told.take(batch);
    }
    assert!(
        told.straddled > 0,
        "none of {storm} steps met a probe on its way"
    );
    let (greatest_ns, pause_ns) = told.check();
    let Told {
        sent,
        straddled,
        implausible,
        ..
    } = told;
    println!(
        "promised: clock steps of own and peer's clock (±5 s, ±10 s, ±1 h, by the clock port): round trip times, probing and \
         windows unharmed | seen: {sent} probes, {} steps, 0 lost, greatest round trip time {:.3} ms, {straddled} straddled a step \
         and {implausible} contradicted themselves, both not measured, longest pause {:.3} s",
        storm + set as i64,
        greatest_ns as f64 / 1e6,
        pause_ns as f64 / 1e9,
    );
}

const SECOND: u64 = 1_000_000_000;
/// By how many seconds the own clock and the peer's are set.
const STEPS: [(i64, i64); 6] = [
    (0, 0),
    (HOUR, 0),
    (-HOUR, 0),
    (10, -10),
    (-10, HOUR),
    (0, -HOUR),
];
