//! An outbox between a model disk and a model broker, on a virtual clock.

mod anything;
mod world;

use world::{HOLD_NS, LIMITS, SECOND, World};

use super::*;

#[test]
fn while_the_broker_answers_nothing_touches_the_disk() {
    let mut world = World::new(LIMITS);
    world.open();
    for _ in 0..50 {
        world.publish();
        world.tick(HOLD_NS / 2);
        world.ack_all();
    }
    assert_eq!(world.delivered(), (0..50).collect::<Vec<_>>());
    assert_eq!((world.stored, world.losses()), (0, Losses::default()));
}

#[test]
fn what_is_not_acknowledged_in_time_is_on_the_disk() {
    let mut world = World::new(LIMITS);
    world.open();
    world.publish();
    world.tick(HOLD_NS - 1);
    assert_eq!(world.stored, 0);
    world.tick(1);
    assert_eq!(
        (world.stored, world.outbox.unsaved()),
        (1, Tally::default())
    );
    world.ack_all();
    assert!(world.disk.is_empty(), "acknowledged, so deleted");
}

#[test]
fn an_outage_loses_nothing_and_keeps_the_order() {
    let mut world = World::new(LIMITS);
    world.open();
    for _ in 0..100 {
        world.publish();
        world.tick(SECOND);
    }
    // The broker was there at first, so some were handed over; then it said nothing, and no more were.
    assert!(world.in_flight() <= 2, "{}", world.in_flight());
    world.drain();
    assert_eq!(world.delivered(), (0..100).collect::<Vec<_>>());
    assert_eq!(world.losses(), Losses::default());
    assert!(world.disk.is_empty() && world.outbox.is_empty());
}

#[test]
fn the_backlog_goes_before_live_batches() {
    let mut world = World::new(LIMITS);
    for _ in 0..20 {
        world.publish();
        world.tick(SECOND);
    }
    world.open();
    world.publish();
    world.ack_all();
    world.publish();
    world.drain();
    assert_eq!(world.delivered(), (0..22).collect::<Vec<_>>());
}

#[test]
fn a_full_spool_loses_exactly_the_oldest_and_says_how_many() {
    let mut world = World::new(Limits {
        shelf_bytes: 50 * world::RECORD_BYTES,
        ..LIMITS
    });
    for _ in 0..200 {
        world.publish();
        world.tick(SECOND);
        assert!(world.disk_bytes() <= 50 * world::RECORD_BYTES);
    }
    world.open();
    world.drain();
    let delivered = world.delivered();
    let lost = delivered[0];
    assert_eq!(delivered, (lost..200).collect::<Vec<_>>());
    assert!(delivered.len() > 40, "{}", delivered.len());
    let losses = world.losses();
    assert_eq!(
        (losses.batches_spool_full, losses.batches_queue_full),
        (lost, 0)
    );
    assert_eq!(losses.windows_unwritten, 2 * lost);
    assert_eq!(losses.probes_lost, 10 * lost);
}

#[test]
fn without_a_spool_the_queue_is_bounded_and_the_oldest_go() {
    let mut world = World::new(Limits {
        shelf_bytes: 0,
        ..LIMITS
    });
    for _ in 0..100 {
        world.publish();
        world.tick(SECOND);
    }
    world.open();
    world.drain();
    let kept = LIMITS.memory_batches as u64;
    assert_eq!(world.delivered(), (100 - kept..100).collect::<Vec<_>>());
    assert_eq!(world.losses().batches_queue_full, 100 - kept);
}

#[test]
fn a_full_disk_keeps_batches_in_memory_and_then_drops_the_oldest_of_all() {
    let mut world = World::new(LIMITS);
    world.disk_records = 30;
    let memory = LIMITS.memory_batches as u64;
    for _ in 0..30 + memory {
        world.publish();
        world.tick(SECOND);
    }
    assert_eq!(world.losses(), Losses::default());
    for _ in 0..100 {
        world.publish();
        world.tick(SECOND);
    }
    let lost = world.losses().batches_spool_full;
    assert!((100..=110).contains(&lost), "{lost}");
    world.open();
    world.drain();
    assert_eq!(world.delivered(), (lost..130 + memory).collect::<Vec<_>>());
    assert_eq!(world.losses().batches_queue_full, 0);
}

#[test]
fn a_broken_disk_costs_one_segment_in_vain_and_no_more() {
    let mut world = World::new(LIMITS);
    for _ in 0..30 {
        world.publish();
        world.tick(SECOND);
    }
    world.disk_works = false;
    let memory = LIMITS.memory_batches as u64;
    for _ in 0..memory + 60 {
        world.publish();
        world.tick(SECOND);
    }
    let losses = world.losses();
    assert_eq!(
        (losses.batches_spool_full, losses.batches_queue_full),
        (10, 60)
    );
    world.disk_works = true;
    world.open();
    world.drain();
    let expected: Vec<_> = (10..30).chain(90..90 + memory).collect();
    assert_eq!(world.delivered(), expected);
}

#[test]
fn what_a_lost_client_had_is_handed_over_again_in_order() {
    let mut world = World::new(LIMITS);
    world.open();
    for _ in 0..10 {
        world.publish();
    }
    assert_eq!(world.in_flight(), 10);
    world.ack(3);
    // The broker wrote two more, but the answers were lost with the client.
    world.persist(2);
    world.close();
    world.open();
    world.drain();
    assert_eq!(world.log_sequences(), [0, 1, 2, 3, 4, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(world.delivered(), (0..10).collect::<Vec<_>>());
}

#[test]
fn a_late_answer_of_a_lost_client_means_nothing() {
    let mut world = World::new(LIMITS);
    world.open();
    world.publish();
    let ticket = world.flight_tickets()[0];
    world.close();
    world.outbox.handle_acked(ticket, world.now);
    world.outbox.handle_failed(ticket, Failure::Rejected);
    world.open();
    world.drain();
    assert_eq!(world.delivered(), [0]);
    assert_eq!(world.losses(), Losses::default());
}

#[test]
fn a_rejected_batch_is_counted_and_the_next_ones_go_on() {
    let mut world = World::new(LIMITS);
    world.open();
    for _ in 0..3 {
        world.publish();
    }
    world.ack(1);
    world.reject();
    world.drain();
    assert_eq!(world.delivered(), [0, 2]);
    let losses = world.losses();
    assert_eq!((losses.batches_rejected, losses.windows_unwritten), (1, 2));
}

#[test]
fn the_next_start_goes_on_where_this_one_was_acknowledged() {
    let mut world = World::new(LIMITS);
    for _ in 0..30 {
        world.publish();
        world.tick(SECOND);
    }
    world.open();
    world.ack(20);
    world.tick(SECOND);
    world.crash();
    world.open();
    world.publish();
    world.drain();
    let log = world.log_sequences();
    assert_eq!(log.len(), 31, "nothing was sent twice: {log:?}");
    assert_eq!(world.delivered_ids().last().map(|id| id.start_id), Some(1));
}

#[test]
fn a_stop_puts_everything_on_the_disk() {
    let mut world = World::new(LIMITS);
    world.open();
    for _ in 0..5 {
        world.publish();
    }
    world.outbox.handle_stop();
    world.obey();
    assert_eq!(
        (world.stored, world.outbox.unsaved()),
        (5, Tally::default())
    );
}

#[test]
fn damage_costs_what_was_behind_it_in_that_segment_and_is_counted_by_numbers() {
    let mut world = World::new(LIMITS);
    for _ in 0..30 {
        world.publish();
        world.tick(SECOND);
    }
    // Segments hold ten; of the second, seven are behind the damage.
    world.damage(1, 3);
    world.open();
    world.drain();
    let expected: Vec<_> = (0..13).chain(20..30).collect();
    assert_eq!(world.delivered(), expected);
    assert_eq!(world.losses().batches_spool_damaged, 7);
    assert!(world.disk.is_empty());
}
