//! Simulated minutes of probing.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;
const MILLI: u64 = 1_000_000;
/// Hosts are up for a while before an agent starts.
const BOOT: MonoNanos = MonoNanos(12_345 * SECOND + 678);

#[derive(Debug, Default)]
struct Sum {
    sent: u64,
    skipped: u64,
    times: Vec<u64>,
}

/// A schedule with a clock that always wakes it in time, plus a chosen delay.
struct Simulation {
    schedule: Schedule,
    now: MonoNanos,
    sums: BTreeMap<Slot, Sum>,
    wakes: u64,
}

impl Simulation {
    fn new(rates: &[f64]) -> Self {
        Self::with(ScheduleSettings::default(), rates)
    }

    fn with(settings: ScheduleSettings, rates: &[f64]) -> Self {
        let mut schedule = Schedule::new(settings, Random::new(42));
        for (index, rate) in rates.iter().enumerate() {
            schedule.add(Slot(index as u16 + 1), *rate, BOOT);
        }
        Self {
            schedule,
            now: BOOT,
            sums: BTreeMap::new(),
            wakes: 0,
        }
    }

    fn run(&mut self, span_ns: u64) {
        let end = self.now.plus(span_ns);
        while let Some(next) = self.schedule.poll_timeout().filter(|next| *next <= end) {
            self.wake(next.max(self.now));
        }
        self.now = end;
    }

    fn wake(&mut self, now: MonoNanos) -> Vec<Due> {
        let mut due = Vec::new();
        self.schedule.handle_timeout(now, &mut due);
        self.now = now;
        self.wakes += 1;
        for Due {
            peer,
            count,
            skipped,
            ..
        } in &due
        {
            let sum = self.sums.entry(*peer).or_default();
            sum.sent += u64::from(*count);
            sum.skipped += u64::from(*skipped);
            sum.times.push(now.0);
        }
        due
    }

    fn total(&self) -> u64 {
        self.sums.values().map(|sum| sum.sent).sum()
    }
}

#[test]
fn the_rate_is_held_over_minutes_for_slow_and_fast_peers() {
    for (rate, seconds) in [
        (0.1, 20_000),
        (1.0, 2_000),
        (3.0, 700),
        (100.0, 300),
        (7_777.7, 60),
        (20_000.0, 60),
    ] {
        let mut simulation = Simulation::new(&[rate]);
        simulation.run(seconds * SECOND);
        let wanted = rate * seconds as f64;
        let off = (simulation.total() as f64 - wanted).abs() / wanted;
        assert!(
            off <= 0.001,
            "rate {rate}: {} instead of {wanted}",
            simulation.total()
        );
        assert_eq!(simulation.sums[&Slot(1)].skipped, 0);
    }
}

#[test]
fn ten_thousand_peers_at_one_a_second_all_get_their_turn() {
    let mut simulation = Simulation::new(&vec![1.0; 10_000]);
    simulation.run(60 * SECOND);
    assert_eq!(simulation.sums.len(), 10_000);
    assert!(
        simulation
            .sums
            .values()
            .all(|sum| (59..=61).contains(&sum.sent))
    );
    assert!(simulation.sums.values().all(|sum| sum.skipped == 0));
    assert!(simulation.total().abs_diff(600_000) <= 600);
    assert!(
        simulation.wakes <= 60_000,
        "one wake-up a tick at most: {}",
        simulation.wakes
    );
}

#[test]
fn one_slow_peer_causes_one_wake_up_a_probe() {
    let mut simulation = Simulation::new(&[1.0]);
    simulation.run(1_000 * SECOND);
    assert_eq!(simulation.wakes, simulation.total());
}

#[test]
fn wake_ups_fall_on_ticks_that_all_peers_share() {
    let mut simulation = Simulation::new(&[10.0; 100]);
    simulation.run(10 * SECOND);
    assert!(
        simulation
            .sums
            .values()
            .flat_map(|sum| &sum.times)
            .all(|time| time % MILLI == 0)
    );
}

#[test]
fn first_probes_are_spread_over_the_interval() {
    let mut simulation = Simulation::new(&vec![1.0; 10_000]);
    simulation.run(SECOND + SECOND / 5);
    let mut tenths = [0; 10];
    for sum in simulation.sums.values() {
        tenths[((sum.times[0] - BOOT.0) * 10 / SECOND).min(9) as usize] += 1;
    }
    assert!(
        tenths[1..9]
            .iter()
            .all(|count| (850..1_150).contains(count)),
        "{tenths:?}"
    );
}

#[test]
fn intervals_are_jittered_but_the_grid_stays() {
    let mut simulation = Simulation::new(&[10.0]);
    simulation.run(1_000 * SECOND);
    let times = &simulation.sums[&Slot(1)].times;
    let intervals: Vec<_> = times
        .windows(2)
        .map(|pair| (pair[1] - pair[0]) / MILLI)
        .collect();
    assert!(
        intervals
            .iter()
            .all(|interval| (79..=121).contains(interval))
    );
    assert!(
        intervals
            .iter()
            .filter(|interval| (98..=102).contains(*interval))
            .count()
            < intervals.len() / 2
    );
    // A sum of jitters would wander by seconds; places on a grid do not.
    let (first, last) = (times[0], times[times.len() - 1]);
    let ideal = first + (times.len() as u64 - 1) * SECOND / 10;
    assert!(last.abs_diff(ideal) <= 21 * MILLI);
}

#[test]
fn a_late_wake_up_makes_up_twenty_milliseconds_and_reports_the_rest() {
    let mut simulation = Simulation::new(&[10_000.0]);
    simulation.run(SECOND);
    let before = simulation.total();
    let late = simulation.now.plus(SECOND);
    let due = simulation.wake(late);
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].count, 200);
    assert!(due[0].skipped.abs_diff(9_800) <= 11, "{due:?}");
    simulation.run(SECOND);
    let sum = &simulation.sums[&Slot(1)];
    assert!(
        (sum.sent + sum.skipped).abs_diff(30_000) <= 11,
        "asked = sent + skipped"
    );
    assert!(
        (simulation.total() - before).abs_diff(10_200) <= 11,
        "afterwards all is as before"
    );
}

#[test]
fn a_slow_peer_is_probed_once_after_a_stall() {
    let mut simulation = Simulation::new(&[1.0]);
    simulation.run(10 * SECOND);
    let due = simulation.wake(simulation.now.plus(5 * SECOND));
    assert_eq!(due[0].count, 1);
    assert!((4..=5).contains(&due[0].skipped));
}

#[test]
fn after_a_stall_ten_thousand_peers_do_not_go_out_at_once() {
    let mut simulation = Simulation::new(&vec![1.0; 10_000]);
    simulation.run(10 * SECOND);
    let before = simulation.total();
    let due = simulation.wake(simulation.now.plus(SECOND));
    assert!(due.len() <= 220, "{}", due.len());
    let mut worst = 0;
    for _ in 0..3_000 {
        let next = simulation.schedule.poll_timeout().expect("peers wait");
        worst = worst.max(simulation.wake(next).len());
    }
    assert!(
        worst <= 40,
        "twice the rate, and one tick's spread: {worst}"
    );
    let caught_up = simulation.total() - before;
    let skipped: u64 = simulation.sums.values().map(|sum| sum.skipped).sum();
    assert!(
        (caught_up + skipped).abs_diff(40_000) <= 400,
        "{caught_up} + {skipped}"
    );
}

#[test]
fn a_removed_peer_is_never_due_again_and_can_come_back() {
    let mut simulation = Simulation::new(&[10.0, 10.0]);
    simulation.run(SECOND);
    assert!(simulation.schedule.remove(Slot(1)));
    assert!(!simulation.schedule.remove(Slot(1)));
    let before = simulation.sums[&Slot(1)].sent;
    simulation.run(10 * SECOND);
    assert_eq!(simulation.sums[&Slot(1)].sent, before);
    simulation.schedule.add(Slot(1), 10.0, simulation.now);
    simulation.run(10 * SECOND);
    assert!((simulation.sums[&Slot(1)].sent - before).abs_diff(100) <= 1);
    assert_eq!(simulation.schedule.len(), 2);
}

#[test]
fn nobody_is_due_in_an_empty_schedule() {
    let mut simulation = Simulation::new(&[]);
    assert!(simulation.schedule.is_empty());
    assert_eq!(simulation.schedule.poll_timeout(), None);
    assert_eq!(simulation.wake(BOOT.plus(SECOND)), []);
}

#[test]
fn adding_twice_changes_the_rate() {
    let mut simulation = Simulation::new(&[100.0]);
    simulation.schedule.add(Slot(1), 1.0, BOOT);
    simulation.run(100 * SECOND);
    assert!(simulation.total().abs_diff(100) <= 1);
}

#[test]
fn source_ports_take_turns() {
    let settings = ScheduleSettings {
        source_ports: 4,
        ..ScheduleSettings::default()
    };
    let mut simulation = Simulation::with(settings, &[2_000.0]);
    let mut used = [0_u32; 4];
    let mut expected = None;
    for _ in 0..1_000 {
        let next = simulation.schedule.poll_timeout().expect("a peer waits");
        for due in simulation.wake(next) {
            assert_eq!(due.first_port, expected.unwrap_or(due.first_port));
            for probe in 0..due.count {
                used[(u32::from(due.first_port) + probe) as usize % 4] += 1;
            }
            expected = Some(((u32::from(due.first_port) + due.count) % 4) as u16);
        }
    }
    let total: u32 = used.iter().sum();
    assert!(
        used.iter().all(|count| count.abs_diff(total / 4) <= 1),
        "{used:?}"
    );
}

#[test]
fn no_setting_makes_an_agent_send_more_than_its_limit_and_all_peers_share_it() {
    let seconds = 3;
    // Ten times the limit.
    let mut simulation = Simulation::new(&[1_000.0; 1_000]);
    simulation.run(seconds * SECOND);
    let limit = Schedule::MAX_TOTAL_RATE * seconds;
    let total = simulation.total();
    // At most what a late wake-up may make up is added to it.
    assert!(
        total <= limit + limit / 100 && total > limit * 9 / 10,
        "{total}"
    );
    let skipped: u64 = simulation.sums.values().map(|sum| sum.skipped).sum();
    assert!(skipped > 8 * limit, "what is not sent is told: {skipped}");
    assert_eq!(simulation.sums.len(), 1_000);
    let shares = simulation.sums.values().map(|sum| sum.sent);
    let (least, most) = (shares.clone().min(), shares.max());
    assert!(
        most <= least.map(|least| 2 * least),
        "{least:?} to {most:?}"
    );
}

#[test]
fn a_rate_out_of_bounds_is_brought_within() {
    for (rate, wanted) in [
        (f64::NAN, 0.001),
        (-1.0, 0.001),
        (0.0, 0.001),
        (f64::INFINITY, 20_000.0),
    ] {
        assert!((bounded(rate) - wanted).abs() < f64::EPSILON, "{rate}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn asked_is_sent_plus_skipped_whatever_the_delays(
        seed: u64,
        rates in prop::collection::vec(0.5..2_000.0_f64, 1..30),
        delays in prop::collection::vec(0..200 * MILLI, 1..100),
    ) {
        let mut schedule = Schedule::new(ScheduleSettings::default(), Random::new(seed));
        for (index, rate) in rates.iter().enumerate() {
            schedule.add(Slot(index as u16 + 1), *rate, BOOT);
        }
        let mut sums = vec![0_u64; rates.len()];
        let mut now = BOOT;
        for delay in delays {
            now = schedule.poll_timeout().expect("peers wait").max(now).plus(delay);
            let mut due = Vec::new();
            schedule.handle_timeout(now, &mut due);
            for Due { peer, count, skipped, .. } in due {
                let rate = rates[usize::from(peer.0) - 1];
                prop_assert!(f64::from(count) <= (rate * 0.02).max(1.0));
                sums[usize::from(peer.0) - 1] += u64::from(count) + u64::from(skipped);
            }
            prop_assert!(schedule.poll_timeout().expect("peers wait") > now);
        }
        // Let the last ones come home.
        for _ in 0..3_000 {
            now = schedule.poll_timeout().expect("peers wait");
            let mut due = Vec::new();
            schedule.handle_timeout(now, &mut due);
            for Due { peer, count, skipped, .. } in due {
                sums[usize::from(peer.0) - 1] += u64::from(count) + u64::from(skipped);
            }
        }
        let seconds = (now.0 - BOOT.0) as f64 / 1e9;
        for (rate, sum) in rates.iter().zip(sums) {
            prop_assert!((sum as f64 - rate * seconds).abs() <= 2.0 + rate * 0.002, "{} x {} s: {}", rate, seconds, sum);
        }
    }
}
