//! The probing thread itself, through real sockets on the loopback link, while the clock port says that the clock was set.

use std::cell::Cell;
use std::time::Duration;

use dt_common::wire::DtFlags;

use super::super::socket::{SocketOptions, loopback};
use super::*;
use crate::adapters::clock::{ClockTracker, Reading, SharedClock, read};
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
        dscp: 0,
        mark: None,
    };
    let socket = SocketPath::open(&options, clock).expect("a port");
    let settings = ProberSettings {
        rate: RATE,
        window: WINDOW,
        deadline: Duration::from_secs(1),
        compare_every: 0,
        source_ports: 1,
        records: true,
        seed: 7,
    };
    let (sender, windows) = channel();
    let sink: WindowSink = Box::new(move |batch| sender.send(batch).map_err(|unsent| unsent.0));
    let prober = Prober::start(settings, Paths::new(None, Some(socket)), sink);
    (prober.expect("a thread"), windows)
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
            size: 0,
        },
        path: Path::Socket,
    });
    let mut records: Vec<ProbeOutcome> = Vec::new();
    let (mut ends, mut sent, mut implausible) = (Vec::new(), 0_u64, 0_u64);
    let straddled = Cell::new(0_u64);
    let mut take = |batch: WindowBatch| {
        for window in batch.windows {
            ends.push(window.report.end);
            sent += u64::from(window.report.counters.sent);
            let counters = &window.report.counters;
            straddled.set(straddled.get() + u64::from(counters.straddled));
            implausible += u64::from(counters.implausible);
            records.extend(window.records);
        }
    };
    for (own_s, peers_s) in [
        (0, 0),
        (HOUR, 0),
        (-HOUR, 0),
        (10, -10),
        (-10, HOUR),
        (0, -HOUR),
    ] {
        own.step(own_s);
        peers.step(peers_s);
        for _ in 0..4 {
            take(windows.recv_timeout(PATIENCE).expect("windows go on"));
        }
    }
    // So often that some probes are on their way meanwhile, and by less than a round trip time may be.
    let until = clock::now().plus(nanos(PATIENCE));
    let mut steps = 0_i64;
    while straddled.get() == 0 && clock::now() < until {
        steps += 1;
        own.step(if steps % 2 == 0 { 5 } else { -5 });
        if let Ok(batch) = windows.recv_timeout(Duration::from_millis(1)) {
            take(batch);
        }
    }
    prober.stop();
    windows.try_iter().for_each(&mut take);
    let straddled = straddled.get();
    assert!(
        straddled > 0,
        "none of {steps} steps met a probe on its way"
    );

    records.sort_unstable_by_key(|record| record.seq);
    let numbers: Vec<_> = records.iter().map(|record| record.seq).collect();
    assert!(
        numbers.iter().copied().eq(0..sent as u32),
        "{numbers:?} of {sent}"
    );
    let lost = records
        .iter()
        .filter(|record| record.outcome != Outcome::Received);
    assert_eq!(lost.count(), 0, "{records:?}");
    let greatest_ns = records.iter().filter_map(|record| record.rtt_ns).max();
    let greatest_ns = greatest_ns.expect("round trip times");
    // The least step is 10 s, the deadline 1 s.
    assert!(greatest_ns < 1_000_000_000, "{greatest_ns} ns");
    let unmeasured = records
        .iter()
        .filter(|record| record.rtt_ns.is_none())
        .count();
    // The kernel stamps by a clock that nobody set: where one end of a probe has only its stamp and the other only ours, the two
    // contradict each other, and that is seen.
    assert_eq!(unmeasured as u64, straddled + implausible);
    let pauses = records
        .windows(2)
        .map(|pair| pair[1].sent.since(pair[0].sent));
    let pause_ns = pauses.max().expect("probes");
    assert!(pause_ns < 1_000_000_000, "no probe for {pause_ns} ns");
    assert!(ends.is_sorted(), "windows end in order");
    println!(
        "promised: clock steps of own and peer's clock (±5 s, ±10 s, ±1 h, by the clock port): round trip times, probing and windows unharmed \
         | seen: {sent} probes, {} steps, 0 lost, greatest round trip time {:.3} ms, {straddled} straddled a step and {implausible} contradicted themselves, both not measured, longest pause {:.3} s",
        steps + 9,
        greatest_ns as f64 / 1e6,
        pause_ns as f64 / 1e9,
    );
}
