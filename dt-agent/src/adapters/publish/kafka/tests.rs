//! The spool on a real disk, and what needs no broker.

use std::fs;
use std::path::Path;

use dt_feed::batch;
use dt_feed::proto::{Batch, Window};

use super::*;
use crate::engine::outbox::{Found, Loaded, Place};

const BUDGET: u64 = 64 * 1_000;

fn parcel(sequence: u64) -> Parcel {
    let batch = Batch {
        source: "n1".into(),
        start_id: 7,
        sequence,
        windows: vec![Window::default(); 3],
        agent_version: "x".repeat(400),
        ..Batch::default()
    };
    Parcel::new(&batch, batch::encode(&batch))
}

fn open(directory: &Path) -> (Spool, Vec<Found>, Option<Place>) {
    Spool::open(directory, 7, BUDGET).expect("a spool")
}

/// Sequence numbers from a place on, segment after segment.
fn read(spool: &mut Spool, found: &[Found], mark: Option<Place>) -> Vec<u64> {
    let mut sequences = Vec::new();
    for segment in found {
        let mut offset = match mark {
            Some(mark) if mark.segment == segment.segment => mark.end,
            Some(mark) if mark.segment > segment.segment => continue,
            _ => 0,
        };
        while offset < segment.bytes
            && let Loaded::Batch(parcel, end) = spool.load(segment.segment, offset)
        {
            sequences.push(parcel.id.sequence);
            offset = end;
        }
    }
    sequences
}

#[test]
fn the_next_start_reads_what_is_behind_the_mark_byte_for_byte() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut spool, found, mark) = open(directory.path());
    assert_eq!((found.len(), mark), (0, None));
    let mut places = Vec::new();
    for sequence in 0..10 {
        let place = spool.store(&parcel(sequence).bytes, 1).expect("stored");
        places.push(place);
    }
    assert!(places[9].segment > 1, "several segments: {places:?}");
    for segment in 0..places[4].segment {
        spool.remove(segment);
    }
    spool.mark(places[4]);
    drop(spool);

    let (mut spool, found, mark) = open(directory.path());
    assert_eq!(read(&mut spool, &found, mark), [5, 6, 7, 8, 9]);
    let last = found.last().expect("segments");
    let Loaded::Batch(first, _) = spool.load(last.segment, 0) else {
        panic!("readable");
    };
    assert_eq!(first, parcel(first.id.sequence));
}

#[test]
fn a_clock_that_is_set_back_or_ahead_changes_nothing() {
    const HOUR: u64 = 3_600_000_000_000;
    let directory = tempfile::tempdir().expect("a directory");
    let mut sequence = 0;
    for now in [10 * HOUR, 9 * HOUR, 11 * HOUR, HOUR] {
        let (mut spool, ..) = open(directory.path());
        for step in 0..6 {
            // Ahead and back within one start, too.
            let now = if step % 2 == 0 { now } else { now / 2 };
            spool.store(&parcel(sequence).bytes, now).expect("stored");
            sequence += 1;
        }
    }
    let (mut spool, found, mark) = open(directory.path());
    assert_eq!(read(&mut spool, &found, mark), (0..24).collect::<Vec<_>>());
    println!(
        "promised: a step of the wall clock neither loses nor reorders | seen: 24 batches in order over steps of 1 to 10 h"
    );
}

#[test]
fn what_is_given_up_is_counted_and_deleted() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut spool, ..) = open(directory.path());
    let first = spool.store(&parcel(0).bytes, 1).expect("stored");
    for sequence in 1..10 {
        spool.store(&parcel(sequence).bytes, 1).expect("stored");
    }
    let segments = |directory: &Path| fs::read_dir(directory).expect("listed").count();
    let before = segments(directory.path());
    let (lost, is_damaged) = spool.discard(first.segment, first.end);
    assert!(!is_damaged);
    assert!(
        lost.batches > 0 && lost.windows == 3 * lost.batches,
        "{lost:?}"
    );
    assert_eq!(segments(directory.path()), before - 1);
}

#[test]
fn a_damaged_segment_gives_its_whole_batches_and_no_panic() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut spool, ..) = open(directory.path());
    let first = spool.store(&parcel(0).bytes, 1).expect("stored");
    spool.store(&parcel(1).bytes, 1).expect("stored");
    drop(spool);
    let path = fs::read_dir(directory.path())
        .expect("listed")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some())
        .expect("a segment");
    let whole = fs::read(&path).expect("read");
    for (byte, at) in [(0xFF, first.end as usize + 1), (0, first.end as usize)] {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        fs::write(&path, bytes).expect("written");
        let (mut spool, found, mark) = open(directory.path());
        assert_eq!(read(&mut spool, &found, mark), [0]);
        assert!(matches!(spool.load(0, first.end), Loaded::Damaged));
        let (lost, is_damaged) = spool.discard(0, 0);
        assert_eq!((lost.batches, is_damaged), (1, true));
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 1);
    }
}

#[test]
fn a_mark_of_nonsense_is_no_mark() {
    for text in [
        "",
        "\n",
        "x",
        "x y",
        "00000000000000000001-0000000000000007.dtseg",
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut spool, ..) = open(directory.path());
        spool.store(&parcel(0).bytes, 1).expect("stored");
        drop(spool);
        fs::write(directory.path().join("acknowledged"), text).expect("written");
        let (mut spool, found, mark) = open(directory.path());
        assert_eq!(mark, None, "{text:?}");
        assert_eq!(read(&mut spool, &found, mark), [0]);
    }
}

#[test]
fn a_spool_in_use_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let _spool = open(directory.path());
    let error = Spool::open(directory.path(), 8, BUDGET).map(drop);
    let text = error.expect_err("in use").to_string();
    assert!(text.contains("in use by another agent"), "{text}");
    assert!(
        text.contains(&directory.path().display().to_string()),
        "{text}"
    );
}

#[test]
fn properties_that_contradict_each_other_are_told_at_the_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let settings = |key: &str, value: &str| KafkaSettings {
        servers: vec!["127.0.0.1:1".into()],
        topic: "t".into(),
        properties: vec![(key.into(), value.into())],
        partitions: 1,
        retention: Duration::from_hours(1),
        spool: directory.path().to_owned(),
        spool_bytes: BUDGET,
    };
    for (key, value, word) in [
        ("acks", "1", "acks"),
        ("security.protocol", "sasl_ssl", "mechanism"),
        ("ssl.ca.location", "/no/such/file", "ssl.ca.location"),
    ] {
        let mut settings = settings(key, value);
        if key.starts_with("ssl") {
            settings
                .properties
                .push(("security.protocol".into(), "ssl".into()));
        }
        let error = KafkaPublisher::open(settings, 7).expect_err(key);
        let text = format!("{:#}", anyhow::Error::from(error));
        assert!(text.contains(word), "{text}");
    }
}
