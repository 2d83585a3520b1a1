//! Whatever happens, in any order: nothing is lost without being counted, and what arrives arrives in order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::world::{LIMITS, RECORD_BYTES, SECOND, World};
use super::*;

#[derive(Clone, Debug)]
enum Event {
    Publish(u8),
    Time(u16),
    Ack(u8),
    Reject,
    LoseClient { written: u8 },
    Open,
    Shut,
    Disk { works: bool },
    Crash { written: u8 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1..6_u8).prop_map(Event::Publish),
        6 => (1..3_000_u16).prop_map(Event::Time),
        4 => (1..12_u8).prop_map(Event::Ack),
        1 => Just(Event::Reject),
        2 => (0..4_u8).prop_map(|written| Event::LoseClient { written }),
        3 => Just(Event::Open),
        1 => Just(Event::Shut),
        1 => any::<bool>().prop_map(|works| Event::Disk { works }),
        1 => (0..4_u8).prop_map(|written| Event::Crash { written }),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    (0..40_u64, 1..20_usize, 1..30_usize).prop_map(|(shelf, flight, memory)| Limits {
        shelf_bytes: shelf * RECORD_BYTES,
        flight_batches: flight,
        memory_batches: memory,
        ..LIMITS
    })
}

proptest! {
    #[test]
    fn nothing_is_lost_uncounted_and_the_order_holds(
        limits in limits(),
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut world = World::new(limits);
        let mut crashed = BTreeSet::new();
        for event in events {
            match event {
                Event::Publish(count) => (0..count).for_each(|_| world.publish()),
                Event::Time(ms) => world.tick(u64::from(ms) * SECOND / 1_000),
                Event::Ack(count) => world.ack(count.into()),
                Event::Reject => world.reject(),
                Event::LoseClient { written } => {
                    world.persist(written.into());
                    world.close();
                }
                Event::Open => world.open(),
                Event::Shut => world.outbox.handle_shut(),
                Event::Disk { works } => world.disk_works = works,
                Event::Crash { written } => {
                    world.persist(written.into());
                    crashed.extend(world.crash());
                }
            }
            prop_assert!(world.in_flight() <= limits.flight_batches);
            prop_assert!(world.outbox.tail.len() <= limits.memory_batches);
            prop_assert!(world.outbox.front.len() <= limits.flight_batches);
            prop_assert!(world.disk_bytes() <= limits.shelf_bytes);
            prop_assert_eq!(world.disk_bytes(), world.outbox.shelf_bytes());
        }
        world.disk_works = true;
        world.open();
        world.drain();
        let delivered = world.delivered_ids();
        prop_assert!(delivered.is_sorted(), "{:?}", delivered);
        let delivered: BTreeSet<_> = delivered.into_iter().collect();
        let mut gone = world.published.clone();
        for reason in [&delivered, &world.discarded, &world.rejected, &crashed] {
            gone.retain(|id| !reason.contains(id));
        }
        let losses = world.losses();
        prop_assert_eq!(losses.batches_queue_full, gone.len() as u64);
        prop_assert_eq!(losses.batches_spool_full, world.discarded.len() as u64);
        prop_assert_eq!(losses.batches_rejected, world.rejections);
        let counted = losses.batches_queue_full + losses.batches_spool_full + losses.batches_rejected;
        prop_assert_eq!(losses.windows_unwritten, 2 * counted);
        prop_assert!(world.disk.is_empty());
    }

    /// What was published longer ago than the hold, and was not acknowledged, is on the disk whatever the moment.
    #[test]
    fn a_crash_loses_only_the_youngest(
        events in prop::collection::vec(event(), 1..80),
    ) {
        let mut world = World::new(LIMITS);
        let mut published_at = BTreeMap::new();
        let mut sequence = 0;
        for event in events {
            match event {
                Event::Publish(count) => {
                    for _ in 0..count {
                        published_at.insert(sequence, world.now);
                        sequence += 1;
                        world.publish();
                    }
                }
                Event::Time(ms) => world.tick(u64::from(ms) * SECOND / 1_000),
                Event::Ack(count) => world.ack(count.into()),
                Event::LoseClient { .. } => world.close(),
                Event::Open => world.open(),
                Event::Shut | Event::Reject | Event::Disk { .. } | Event::Crash { .. } => {}
            }
        }
        let now = world.now;
        for id in world.crash() {
            let age_ns = now.since(published_at[&id.sequence]);
            prop_assert!(age_ns <= LIMITS.hold_ns, "{} ns", age_ns);
        }
    }
}
