use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use prost::Message;
use tempfile::TempDir;

use super::*;
use crate::proto::{Segment, Window};

const SECOND: u64 = 1_000_000_000;
const LIMITS: Limits = Limits {
    max_bytes: 1 << 20,
    max_age_ns: 3600 * SECOND,
};

fn batch(sequence: u64) -> Batch {
    let windows = (0..sequence % 4).map(|peer| Window {
        peer: peer as u32,
        ..Window::default()
    });
    Batch {
        source: "n1".into(),
        sequence,
        windows: windows.collect(),
        ..Batch::default()
    }
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn writer(directory: &Path, limits: Limits) -> Writer {
    Writer::open(directory, 7, limits).expect("a writer")
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
}

fn read(path: &Path) -> (Vec<Batch>, End) {
    let mut reader = Reader::open(path).expect("a segment");
    let mut batches = Vec::new();
    while let Some(batch) = reader.next_batch().expect("readable") {
        batches.push(batch);
    }
    (batches, reader.end().expect("the end was reached").clone())
}

/// Sequence numbers of all batches that are there now.
fn poll_all(follower: &mut Follower) -> Vec<u64> {
    let mut sequences = Vec::new();
    while let Some(followed) = follower.poll().expect("readable") {
        match followed {
            Followed::Batch(batch) => sequences.push(batch.sequence),
            Followed::Damaged { path, .. } => panic!("{} is damaged", path.display()),
        }
    }
    sequences
}

/// A segment of these batches, and where each record ends.
fn written(batches: u64) -> (TempDir, PathBuf, Vec<usize>) {
    let directory = directory();
    let mut writer = writer(directory.path(), LIMITS);
    let mut ends = vec![0];
    for sequence in 0..batches {
        let bytes = writer
            .append(&batch(sequence), 5 * SECOND)
            .expect("written");
        ends.push(ends[ends.len() - 1] + bytes as usize);
    }
    let path = writer.path().expect("a segment").to_owned();
    (directory, path, ends)
}

#[test]
fn a_segment_is_a_serialised_segment_message() {
    let (_directory, path, ends) = written(20);
    let bytes = fs::read(&path).expect("a file");
    assert_eq!(bytes.len(), ends[20]);
    let segment = Segment::decode(&bytes[..]).expect("a message");
    assert_eq!(segment.batches, (0..20).map(batch).collect::<Vec<_>>());
    assert_eq!(read(&path), (segment.batches, End::Complete));
}

#[test]
fn encoded_batches_are_written_and_read_byte_for_byte() {
    let directory = directory();
    let mut writer = writer(directory.path(), LIMITS);
    let batches: Vec<_> = (0..5).map(batch).collect();
    let mut ends = Vec::new();
    for batch in &batches {
        let grown = writer.append_encoded(&batch.encode_to_vec(), 0);
        ends.push(ends.last().unwrap_or(&0) + grown.expect("written"));
    }
    let first = writer.path().expect("a segment").to_owned();
    let mut reader = Reader::open_at(&first, ends[1]).expect("a segment");
    for (batch, end) in batches.iter().zip(&ends).skip(2) {
        let record = reader.next_record().expect("readable").expect("a record");
        assert_eq!(
            (&record.batch, record.bytes),
            (batch, batch.encode_to_vec())
        );
        assert_eq!(reader.offset(), *end);
    }
    assert_eq!(reader.next_record().expect("readable"), None);
    writer.close();
    writer.append(&batch(5), 0).expect("written");
    assert_ne!(writer.path(), Some(first.as_path()));
}

#[test]
fn a_segment_cut_at_any_byte_yields_all_whole_batches() {
    let (_directory, path, ends) = written(20);
    let file = fs::File::options().write(true).open(&path).expect("a file");
    for cut in (0..=ends[20]).rev() {
        file.set_len(cut as u64).expect("cut");
        let whole = ends
            .iter()
            .rposition(|end| *end <= cut)
            .expect("zero is an end");
        let (batches, end) = read(&path);
        assert_eq!(
            batches,
            (0..whole as u64).map(batch).collect::<Vec<_>>(),
            "cut at {cut}"
        );
        let offset = ends[whole] as u64;
        let expected = if ends[whole] == cut {
            End::Complete
        } else {
            End::Truncated { offset }
        };
        assert_eq!(end, expected, "cut at {cut}");
    }
}

#[test]
fn what_is_no_record_ends_the_segment_with_its_place() {
    let endless = [
        RECORD_TAG, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01,
    ];
    let too_long = [RECORD_TAG, 0x81, 0x80, 0x80, 0x08];
    let no_batch = [RECORD_TAG, 0x02, 0x12, 0x09];
    let cases = [
        (&[0; 9][..], Corruption::Tag { found: 0 }),
        (&endless, Corruption::TooLong),
        (&too_long, Corruption::TooLong),
        (
            &no_batch,
            Corruption::Batch(BatchError::Broken { offset: 0 }),
        ),
    ];
    for (garbage, cause) in cases {
        let (_directory, path, ends) = written(3);
        let mut bytes = fs::read(&path).expect("a file");
        bytes.extend_from_slice(garbage);
        fs::write(&path, bytes).expect("written");
        let (batches, end) = read(&path);
        assert_eq!(batches.len(), 3);
        assert_eq!(
            end,
            End::Corrupt {
                offset: ends[3] as u64,
                cause
            }
        );
    }
}

proptest! {
    #[test]
    fn noise_in_a_segment_never_panics(noise in prop::collection::vec(any::<u8>(), 0..100), at in 0..300_usize) {
        let (_directory, path, _ends) = written(10);
        let mut bytes = fs::read(&path).expect("a file");
        bytes.splice(at.min(bytes.len()).., noise);
        fs::write(&path, bytes).expect("written");
        let _ = read(&path);
    }
}

#[test]
fn a_segment_of_many_chunks_is_read_whole() {
    let directory = directory();
    let mut writer = writer(directory.path(), LIMITS);
    let big = Batch {
        source: "x".repeat(50_000),
        ..Batch::default()
    };
    for _ in 0..10 {
        writer.append(&big, 0).expect("written");
    }
    assert_eq!(
        read(writer.path().expect("a segment")),
        (vec![big; 10], End::Complete)
    );
}

#[test]
fn a_segment_is_replaced_when_it_is_long_or_old_enough() {
    let directory = directory();
    let mut writer = writer(
        directory.path(),
        Limits {
            max_bytes: 20,
            max_age_ns: 10 * SECOND,
        },
    );
    let mut begun = Vec::new();
    for now in [0, 1, 2, 3, 14, 15, 16] {
        begun.push(writer.begins_segment(now * SECOND));
        // Eight bytes each: three of them reach the greatest length.
        writer
            .append(
                &Batch {
                    source: "four".into(),
                    ..Batch::default()
                },
                now * SECOND,
            )
            .expect("written");
    }
    assert_eq!(begun, [true, false, false, true, true, false, false]);
    assert_eq!(segments(directory.path()).len(), 3);
}

#[test]
fn names_sort_by_writing_and_never_collide_even_when_the_clock_steps_back() {
    let directory = directory();
    let one_each = Limits {
        max_bytes: 1,
        max_age_ns: SECOND,
    };
    for (run, now) in [9, 9, 3].into_iter().enumerate() {
        let mut writer = writer(directory.path(), one_each);
        for sequence in 0..3 {
            writer
                .append(&batch(run as u64 * 3 + sequence), now * SECOND)
                .expect("written");
        }
    }
    let in_name_order = segments(directory.path())
        .iter()
        .flat_map(|path| read(path).0)
        .map(|batch| batch.sequence)
        .collect::<Vec<_>>();
    assert_eq!(in_name_order, (0..9).collect::<Vec<_>>());
}

#[test]
fn two_writers_of_one_moment_get_a_segment_each() {
    let directory = directory();
    let mut first = writer(directory.path(), LIMITS);
    let mut second = writer(directory.path(), LIMITS);
    first.append(&batch(1), 0).expect("written");
    second.append(&batch(2), 0).expect("written");
    assert_ne!(first.path(), second.path());
    assert_eq!(segments(directory.path()).len(), 2);
}

#[test]
fn a_batch_that_no_reader_accepts_is_refused() {
    let directory = directory();
    let mut writer = writer(directory.path(), LIMITS);
    let huge = Batch {
        source: "x".repeat(MAX_BATCH_BYTES),
        ..Batch::default()
    };
    let error = writer.append(&huge, 0).expect_err("too long");
    assert!(
        matches!(error, WriteError::TooLong { bytes } if bytes > MAX_BATCH_BYTES),
        "{error}"
    );
    assert!(!error.is_disk_full());
    assert_eq!(segments(directory.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let error = Writer::open(file.path().join("feed"), 7, LIMITS).expect_err("below a file");
    assert!(error.to_string().contains("feed"), "{error}");
}

/// The kernel itself refuses the write, after taking a part of it: the test runs itself again under a limit of file size.
#[test]
fn a_write_refused_by_the_kernel_loses_that_batch_alone() {
    const DIRECTORY: &str = "DT_FEED_TEST_DIRECTORY";
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return write_until_refused(Path::new(&directory));
    }
    let directory = directory();
    let status = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 32; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().expect("this program"))
        .args([
            "--exact",
            "segment::tests::a_write_refused_by_the_kernel_loses_that_batch_alone",
        ])
        .env(DIRECTORY, directory.path())
        .output()
        .expect("a shell");
    assert!(status.status.success(), "{status:?}");
    let paths = segments(directory.path());
    assert_eq!(paths.len(), 1);
    let (batches, end) = read(&paths[0]);
    assert_eq!(end, End::Complete);
    assert!(batches.len() > 5);
    let last = batches.last().expect("more than five");
    assert_eq!(
        last.sequence,
        batches.len() as u64,
        "only the refused batch is missing"
    );
}

fn write_until_refused(directory: &Path) {
    let mut writer = writer(directory, LIMITS);
    for sequence in 0.. {
        let big = Batch {
            source: "x".repeat(1234),
            sequence,
            ..Batch::default()
        };
        if let Err(error) = writer.append(&big, 0) {
            assert!(error.is_disk_full(), "{error:?}");
            assert!(!writer.begins_segment(0));
            writer
                .append(&batch(sequence + 1), 0)
                .expect("a small batch fits into what is left");
            return;
        }
    }
}

#[test]
fn a_follower_reads_all_segments_in_order_and_then_what_is_new() {
    let directory = directory();
    let mut follower = Follower::new(directory.path().join("later"));
    assert_eq!(poll_all(&mut follower), []);
    let mut writer = writer(
        &directory.path().join("later"),
        Limits {
            max_bytes: 30,
            max_age_ns: SECOND,
        },
    );
    for sequence in 0..10 {
        writer.append(&batch(sequence), 0).expect("written");
    }
    assert_eq!(poll_all(&mut follower), (0..10).collect::<Vec<_>>());
    assert_eq!(poll_all(&mut follower), []);
    for sequence in 10..20 {
        writer.append(&batch(sequence), 0).expect("written");
        assert_eq!(poll_all(&mut follower), [sequence]);
    }
}

#[test]
fn a_follower_waits_for_the_rest_of_a_record() {
    let (_directory, path, _ends) = written(10);
    let whole = fs::read(&path).expect("a file");
    let mut follower = Follower::new(path.parent().expect("a directory"));
    let mut seen = Vec::new();
    for cut in 0..=whole.len() {
        fs::write(&path, &whole[..cut]).expect("written");
        seen.extend(poll_all(&mut follower));
    }
    assert_eq!(seen, (0..10).collect::<Vec<_>>());
}

#[test]
fn a_follower_reports_damage_once_and_reads_the_other_segments() {
    let directory = directory();
    let mut writer = writer(
        directory.path(),
        Limits {
            max_bytes: 1,
            max_age_ns: SECOND,
        },
    );
    for sequence in 0..3 {
        writer.append(&batch(sequence), 0).expect("written");
    }
    let broken = &segments(directory.path())[1];
    fs::write(broken, [0; 40]).expect("written");
    fs::write(directory.path().join("notes.txt"), "not a segment").expect("written");
    let mut follower = Follower::new(directory.path());
    let followed: Vec<Followed> =
        std::iter::from_fn(|| follower.poll().expect("readable")).collect();
    let damage = Followed::Damaged {
        path: broken.clone(),
        offset: 0,
        cause: Corruption::Tag { found: 0 },
    };
    assert_eq!(
        followed,
        [
            Followed::Batch(Box::new(batch(0))),
            damage,
            Followed::Batch(Box::new(batch(2)))
        ]
    );
    assert_eq!(follower.poll().expect("readable"), None);
}

#[test]
fn a_follower_forgets_segments_that_vanish() {
    let (_directory, path, _ends) = written(3);
    let mut follower = Follower::new(path.parent().expect("a directory"));
    assert!(follower.poll().expect("readable").is_some());
    fs::remove_file(&path).expect("removed");
    // The open file is read to its end.
    assert_eq!(poll_all(&mut follower), [1, 2]);
    assert_eq!(poll_all(&mut follower), []);
    // Another segment of that name is a new one.
    fs::write(&path, []).expect("written");
    assert_eq!(poll_all(&mut follower), []);
}
