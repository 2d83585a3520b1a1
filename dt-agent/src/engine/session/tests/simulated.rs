//! Hundreds of thousands of probes against exact bookkeeping.

use proptest::prelude::*;

use super::sim::{Fate, MS, OnWire, Rng, SEC, Sim, US, Wire, direction};
use crate::engine::mix::{Mix, Share};
use crate::engine::session::{Outcome, SessionConfig};
use crate::engine::window::Counters;

/// The outcomes alone.
fn outcomes(counters: &Counters) -> Vec<(Outcome, u32)> {
    Outcome::ALL
        .iter()
        .map(|outcome| (*outcome, counters.of(*outcome)))
        .collect()
}

/// Every 7th request and every 11th reply dropped, every 13th duplicated, every 17th corrupted, in both directions.
fn patterned(interval_ns: u64, probes: u64) -> Sim {
    let mut sim = Sim::new(SessionConfig::default(), interval_ns, 1);
    sim.run(20);
    sim.forward = Box::new(|_, packet| match packet.number {
        n if n % 7 == 0 => vec![],
        n if n % 17 == 0 => vec![(100 * US, true)],
        n if n % 13 == 0 => vec![(100 * US, false), (101 * US, false)],
        _ => vec![(100 * US, false)],
    });
    sim.back = Box::new(|_, packet| match packet.number {
        // Nobody could tell which of two answers a local counter speaks of.
        _ if packet.copied => vec![(100 * US, false)],
        n if n % 11 == 0 => vec![],
        n if n % 17 == 0 => vec![(100 * US, true)],
        n if n % 13 == 0 => vec![(100 * US, false), (101 * US, false)],
        _ => vec![(100 * US, false)],
    });
    sim.run(probes);
    sim.settle();
    sim.finish();
    sim
}

fn assert_exact(sim: &Sim) {
    assert_eq!(outcomes(&sim.total), outcomes(&sim.expected()));
    assert_eq!(sim.total.sent, sim.expected().sent);
    assert_eq!(
        sim.total.duplicate_forward, sim.peer_duplicates,
        "copies of requests"
    );
    assert_eq!(
        sim.total.duplicate_return, sim.arrived_copies,
        "copies of replies"
    );
    assert_eq!(sim.total.lost_unknown, 0);
    assert_eq!(
        (
            sim.total.stale,
            sim.total.implausible,
            sim.total.crowded_out
        ),
        (0, 0, 0)
    );
}

#[test]
fn scripted_loss_duplication_and_corruption_are_exact_at_1000_per_second() {
    assert_exact(&patterned(MS, 150_000));
}

#[test]
fn scripted_loss_duplication_and_corruption_are_exact_at_1_per_second() {
    let sim = patterned(SEC, 50_000);
    assert_exact(&sim);
    sim.assert_each_direction_is_right();
}

/// Sums over what threw a packet away, by direction.
fn directions(counters: &Counters) -> Vec<(Outcome, u32)> {
    let mut sums = Vec::new();
    for outcome in Outcome::ALL {
        let count = counters.of(outcome);
        let direction = direction(outcome);
        match sums.iter_mut().find(|(known, _)| *known == direction) {
            Some((_, sum)) => *sum += count,
            None => sums.push((direction, count)),
        }
    }
    sums
}

/// Independent loss, duplication, corruption and jitter in one direction, per mille.
#[derive(Clone, Copy)]
struct Weather {
    drop: u64,
    corrupt: u64,
    copy: u64,
    jitter_ns: u64,
}

fn weather(weather: Weather) -> Wire {
    Box::new(move |rng, packet| {
        let delay = |rng: &mut Rng| 100 * US + rng.below(weather.jitter_ns.max(1));
        if rng.chance(weather.drop) {
            return vec![];
        }
        if packet.copied {
            return vec![(delay(rng), false)];
        }
        if rng.chance(weather.corrupt) {
            return vec![(delay(rng), true)];
        }
        if rng.chance(weather.copy) {
            return vec![(delay(rng), false), (delay(rng), false)];
        }
        vec![(delay(rng), false)]
    })
}

#[test]
fn random_loss_in_order_is_exact() {
    // At a slow rate a longer run of losses is silence, and its direction unknown.
    for (seed, interval_ns, drop) in [
        (1, MS, 80),
        (2, 100 * US, 80),
        (3, SEC, 5),
        (4, 10 * SEC, 5),
    ] {
        let mut sim = Sim::new(SessionConfig::default(), interval_ns, seed);
        sim.run(20);
        sim.forward = weather(Weather {
            drop,
            corrupt: 5,
            copy: 5,
            jitter_ns: 0,
        });
        sim.back = weather(Weather {
            drop,
            corrupt: 5,
            copy: 5,
            jitter_ns: 0,
        });
        sim.refuses = Box::new(|rng, _| rng.chance(5));
        sim.ring_full = Box::new(|rng, _| rng.chance(5));
        sim.run(40_000);
        sim.settle();
        sim.finish();
        assert_eq!(
            directions(&sim.total),
            directions(&sim.expected()),
            "at {interval_ns}"
        );
    }
}

#[test]
fn random_loss_among_reordered_packets_is_exact_by_direction() {
    for (seed, interval_ns, jitter_ns) in [(1, MS, 5 * MS), (2, 100 * US, 5 * MS)] {
        let mut sim = Sim::new(SessionConfig::default(), interval_ns, seed);
        sim.run(20);
        sim.forward = weather(Weather {
            drop: 80,
            corrupt: 10,
            copy: 5,
            jitter_ns,
        });
        sim.back = weather(Weather {
            drop: 60,
            corrupt: 10,
            copy: 5,
            jitter_ns,
        });
        sim.run(60_000);
        sim.settle();
        sim.finish();
        assert_eq!(
            directions(&sim.total),
            directions(&sim.expected()),
            "{interval_ns} {jitter_ns}"
        );
        assert!(sim.total.reordered > 1000);
    }
}

#[test]
fn loss_is_loss_even_where_requests_overtake_more_than_a_bitmap_holds() {
    let mut sim = Sim::new(SessionConfig::default(), 100 * US, 3);
    let jitter_ns = 20 * MS;
    sim.run(20);
    sim.forward = weather(Weather {
        drop: 80,
        corrupt: 0,
        copy: 5,
        jitter_ns,
    });
    sim.back = weather(Weather {
        drop: 60,
        corrupt: 0,
        copy: 5,
        jitter_ns,
    });
    sim.run(40_000);
    sim.settle();
    sim.finish();
    assert_eq!(sim.total.lost(), sim.expected().lost());
    assert_eq!(sim.total.received, sim.expected().received);
    assert_eq!(sim.total.lost_unknown, 0);
}

/// Whole outages, longer than a bitmap, of one direction or of both by turns.
fn outages(sim: &mut Sim, seed: u64, jitter_ns: u64) {
    let mut rng = Rng(seed);
    sim.run(20);
    for _ in 0..40 {
        let there = rng.below(100) * 10;
        let here = rng.below(100) * 10;
        sim.forward = weather(Weather {
            drop: there,
            corrupt: 10,
            copy: 0,
            jitter_ns,
        });
        sim.back = weather(Weather {
            drop: here,
            corrupt: 0,
            copy: 0,
            jitter_ns,
        });
        let length = 30 + rng.below(600);
        sim.run(length);
        // Nothing at all comes back for a while.
        sim.back = Box::new(|_, _| vec![]);
        let length = rng.below(400);
        sim.run(length);
        sim.forward = weather(Weather {
            drop: 0,
            corrupt: 0,
            copy: 0,
            jitter_ns,
        });
        sim.back = weather(Weather {
            drop: 0,
            corrupt: 0,
            copy: 0,
            jitter_ns,
        });
        let length = rng.below(500);
        sim.run(length);
    }
    sim.settle();
    sim.finish();
}

#[test]
fn gaps_longer_than_a_bitmap_are_split_exactly() {
    for seed in 0..6 {
        let mut sim = Sim::new(SessionConfig::default(), MS, seed);
        outages(&mut sim, seed, 0);
        assert_eq!(
            directions(&sim.total),
            directions(&sim.expected()),
            "seed {seed}"
        );
    }
}

#[test]
fn gaps_longer_than_a_bitmap_are_split_exactly_among_reordered_packets() {
    for seed in 0..6 {
        let mut sim = Sim::new(SessionConfig::default(), MS, seed);
        outages(&mut sim, seed, 5 * MS);
        assert_eq!(
            directions(&sim.total),
            directions(&sim.expected()),
            "seed {seed}"
        );
    }
}

#[test]
fn a_full_ring_is_never_loss() {
    let mut sim = Sim::new(SessionConfig::default(), 100 * US, 1);
    // For 50 ms of each 200 ms nobody reads the ring: 500 replies find no room.
    sim.ring_full = Box::new(|_, n| n % 2000 >= 1500);
    sim.run(100_000);
    sim.settle();
    sim.finish();
    assert_exact(&sim);
    assert_eq!(sim.total.lost(), 0);
    assert!(sim.total.overrun >= 24_000);
}

#[test]
fn all_counters_wrap_without_a_trace() {
    let mut sim = Sim::new(SessionConfig::default(), MS, 9);
    sim.resume_after(u32::MAX - 20_000);
    sim.reflector.corrupt = 0;
    sim.run(20);
    sim.forward = weather(Weather {
        drop: 80,
        corrupt: 10,
        copy: 0,
        jitter_ns: 0,
    });
    sim.back = weather(Weather {
        drop: 60,
        corrupt: 10,
        copy: 0,
        jitter_ns: 0,
    });
    sim.run(40_000);
    assert!(
        sim.session.next_seq() < 40_000,
        "the sequence number has wrapped"
    );
    sim.run(10_000);
    assert!(
        sim.reflector.received < 40_000,
        "the reflector's counter has wrapped"
    );
    sim.settle();
    sim.finish();
    assert_eq!(directions(&sim.total), directions(&sim.expected()));
}

#[test]
fn a_restarted_peer_makes_no_loss() {
    for seed in 1..6 {
        let mut sim = Sim::new(SessionConfig::default(), MS, seed);
        for epoch in 2..30 {
            let length = 200 + sim.rng.below(1000);
            sim.run(length);
            sim.reflector.down = true;
            let length = sim.rng.below(300);
            sim.run(length);
            sim.reflector.restart(epoch);
        }
        sim.settle();
        sim.finish();
        let lost_while_down = sim.expected().lost_forward;
        assert_eq!(sim.total.lost(), 0, "seed {seed}");
        assert_eq!(sim.total.peer_restarted, lost_while_down, "seed {seed}");
        assert_eq!(sim.total.received, sim.expected().received);
    }
}

#[test]
fn loss_around_a_restart_is_either_exact_or_the_restarts() {
    for seed in 1..6 {
        let mut sim = Sim::new(SessionConfig::default(), MS, seed);
        sim.run(20);
        for epoch in 2..30 {
            sim.forward = weather(Weather {
                drop: 80,
                corrupt: 0,
                copy: 5,
                jitter_ns: 2 * MS,
            });
            sim.back = weather(Weather {
                drop: 60,
                corrupt: 0,
                copy: 5,
                jitter_ns: 2 * MS,
            });
            let length = 200 + sim.rng.below(1000);
            sim.run(length);
            sim.reflector.restart(epoch);
        }
        sim.settle();
        sim.finish();
        let (said, truth) = (sim.total, sim.expected());
        assert_eq!(said.received, truth.received);
        assert_eq!(
            said.lost() + u64::from(said.peer_restarted),
            truth.lost(),
            "seed {seed}"
        );
        assert_eq!(said.lost_unknown, 0);
        assert!(
            said.peer_restarted < 29 * 6,
            "{} of {} restarts",
            said.peer_restarted,
            28
        );
        assert!(said.lost_forward <= truth.lost_forward + 8);
        assert!(said.lost_return <= truth.lost_return + 8);
    }
}

/// Sum and number of all round trip times in all windows.
fn measured(sim: &Sim) -> (u64, u64) {
    let sum = sim.windows.iter().map(|window| window.rtt.sum()).sum();
    (
        sum,
        sim.windows.iter().map(|window| window.rtt.count()).sum(),
    )
}

#[test]
fn round_trip_times_are_exact_and_untouched_by_clock_steps() {
    let mut sim = Sim::new(SessionConfig::default(), MS, 5);
    sim.forward = weather(Weather {
        drop: 10,
        corrupt: 0,
        copy: 0,
        jitter_ns: 3 * MS,
    });
    sim.back = weather(Weather {
        drop: 10,
        corrupt: 0,
        copy: 0,
        jitter_ns: 3 * MS,
    });
    for step in 0..200 {
        sim.run(100);
        sim.step_clock(if step % 2 == 0 {
            7 * SEC as i64
        } else {
            -5 * MS as i64
        });
    }
    sim.settle();
    sim.finish();
    assert_eq!(sim.total.straddled, sim.straddled);
    assert!(sim.straddled > 300);
    let (sum, count) = measured(&sim);
    assert_eq!(count, u64::from(sim.total.received - sim.total.straddled));
    assert_eq!(sum, sim.rtt_ns);
    assert_eq!(sim.total.implausible, 0);
}

#[test]
fn replies_beyond_the_deadline_are_late_or_called_lost_once_and_corrected() {
    let mut sim = Sim::new(SessionConfig::default(), MS, 6);
    sim.run(20);
    let held: fn(&mut Rng, OnWire) -> Fate = |rng, _| {
        if rng.chance(50) {
            vec![(900 * MS + rng.below(1000 * MS), false)]
        } else {
            vec![(100 * US, false)]
        }
    };
    sim.forward = Box::new(held);
    sim.back = Box::new(held);
    sim.run(50_000);
    sim.settle();
    sim.finish();
    let truth = sim.expected();
    assert_eq!(sim.total.received, truth.received);
    assert_eq!(sim.total.late + sim.total.late_after_loss, truth.late);
    assert_eq!(
        sim.total.lost(),
        truth.lost() + u64::from(sim.total.late_after_loss)
    );
    assert!(sim.total.late > 500 && sim.total.late_after_loss > 500);
    assert_eq!(sim.total.lost_unknown, 0);
}

#[test]
fn a_rate_limit_that_bites_in_bursts_is_not_loss() {
    let mut sim = Sim::new(SessionConfig::default(), MS, 7);
    sim.run(20);
    sim.forward = weather(Weather {
        drop: 0,
        corrupt: 0,
        copy: 0,
        jitter_ns: 0,
    });
    sim.back = weather(Weather {
        drop: 30,
        corrupt: 0,
        copy: 0,
        jitter_ns: 0,
    });
    sim.refuses = Box::new(|_, n| n % 1000 > 700);
    sim.run(50_000);
    sim.settle();
    sim.finish();
    assert_exact(&sim);
    assert!(sim.total.refused > 14_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn in_any_weather_every_probe_is_accounted_for(
        seed: u64,
        interval_ns in prop::sample::select(vec![100 * US, MS, 10 * MS, SEC]),
        window_ns in prop::sample::select(vec![SEC, 7 * SEC, 60 * SEC]),
        drop in prop::array::uniform2(0..150_u64),
        corrupt in prop::array::uniform2(0..30_u64),
        copy in prop::array::uniform2(0..30_u64),
        overtaking in 0..40_u64,
        refused in 0..20_u64,
        overrun in 0..20_u64,
    ) {
        let mut sim = Sim::new(SessionConfig::default(), interval_ns, seed);
        sim.window_ns = window_ns;
        sim.run(20);
        let jitter_ns = interval_ns * overtaking / 2;
        // Beyond a deadline's worth of jitter the late ones would blur the comparison.
        let jitter_ns = jitter_ns.min(400 * MS);
        let slow = interval_ns == SEC;
        let drop = drop.map(|drop| if slow { drop / 20 } else { drop });
        let scale = if slow { 4 } else { 1 };
        sim.forward = weather(Weather { drop: drop[0], corrupt: corrupt[0] / scale, copy: copy[0], jitter_ns });
        sim.back = weather(Weather { drop: drop[1], corrupt: corrupt[1] / scale, copy: copy[1], jitter_ns });
        sim.refuses = Box::new(move |rng, _| rng.chance(refused / scale));
        sim.ring_full = Box::new(move |rng, _| rng.chance(overrun / scale));
        sim.run(10_000);
        sim.settle();
        sim.finish();
        prop_assert_eq!(directions(&sim.total), directions(&sim.expected()));
        prop_assert_eq!(sim.total.duplicate_forward, sim.peer_duplicates);
        prop_assert_eq!(sim.total.sent as usize, sim.records.iter().flatten().count());
        let (sum, count) = measured(&sim);
        prop_assert_eq!((sum, count), (sim.rtt_ns, u64::from(sim.total.received)));
    }
}

/// Short probes three times in four, each to one of two queues.
fn four_classes() -> Mix {
    let share = |(value, weight)| Share { value, weight };
    let sizes = [(96, 3), (1_472, 1)].map(share);
    let dscps = [0, 46].map(|value| Share { value, weight: 1 });
    Mix::new(&sizes, &dscps).expect("few").with_ports(4)
}

#[test]
fn what_befalls_one_class_of_probes_is_told_of_that_class_alone() {
    let mix = four_classes();
    let long = move |seq: u32| mix.classes()[usize::from(mix.class_of(seq))].payload_bytes > 96;
    let second = move |seq: u32| mix.classes()[usize::from(mix.class_of(seq))].dscp == 46;
    let config = SessionConfig {
        mix,
        ..SessionConfig::default()
    };
    let mut sim = Sim::new(config, MS, 1);
    sim.run(20);
    // A black hole for what is long, and a queue that drops replies.
    sim.forward = Box::new(move |_, packet| match packet.seq {
        seq if long(seq) => vec![],
        _ => vec![(100 * US, false)],
    });
    sim.back = Box::new(move |rng, packet| match packet.seq {
        seq if second(seq) && rng.chance(100) => vec![],
        _ => vec![(100 * US, false)],
    });
    sim.run(20_000);
    sim.settle();
    sim.finish();
    assert_exact(&sim);
    for (class, said) in (0..).zip(&sim.totals) {
        let expected = sim.expected_of(class);
        assert_eq!(outcomes(said), outcomes(&expected), "class {class}");
        assert_eq!(said.sent, expected.sent, "class {class}");
        let of = mix.classes()[usize::from(class)];
        let (forward, back) = (said.lost_forward > 0, said.lost_return > 0);
        assert_eq!(forward, of.payload_bytes > 96, "{of:?}: {said:?}");
        assert_eq!(
            back,
            of.payload_bytes == 96 && of.dscp == 46,
            "{of:?}: {said:?}"
        );
    }
}

#[test]
fn classes_that_overtake_each_other_are_not_out_of_order() {
    let mix = four_classes();
    let second = move |seq: u32| mix.classes()[usize::from(mix.class_of(seq))].dscp == 46;
    let config = SessionConfig {
        mix,
        ..SessionConfig::default()
    };
    let mut sim = Sim::new(config, MS, 1);
    sim.forward = Box::new(move |_, packet| {
        let held = if second(packet.seq) { 0 } else { 10 * MS };
        vec![(100 * US + held, false)]
    });
    sim.run(5_000);
    // What is held now is not to be overtaken by what is not held later.
    sim.drain(20 * MS);
    sim.settle();
    sim.finish();
    assert_exact(&sim);
    assert_eq!(sim.total.reordered, 0);
}
