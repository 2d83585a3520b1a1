//! The program on directories of segments: what it prints, how it ends.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use dt_feed::Histogram;
use dt_feed::proto::{self, Batch, Counters, Method, Mode, Peer, StampSource, Window};
use dt_feed::segment::{Limits, Writer};

const LIMITS: Limits = Limits {
    max_bytes: 1 << 20,
    max_age_ns: u64::MAX,
};
/// 2023-11-14T22:13:20Z.
const T0_NS: u64 = 1_700_000_000_000_000_000;

/// A batch of n1 with one window about n2, which lost `lost` of ten probes. Its residence is as agents write it.
fn batch(sequence: u64, lost: u64) -> Batch {
    let end_unix_ns = T0_NS + sequence * 1_000_000_000;
    let stamp = StampSource::Unspecified;
    let rtt: Histogram = (lost..10).map(|probe| 4_000 + probe).collect();
    Batch {
        source: "n1".into(),
        start_id: 0xAB,
        sequence,
        closed_unix_ns: end_unix_ns,
        peers: vec![Peer::new(0, "n2", [10, 0, 0, 2].into(), "z1", "r1")],
        windows: vec![Window {
            start_unix_ns: end_unix_ns - 1_000_000_000,
            end_unix_ns,
            method: Some(Method::of(Mode::Tc, stamp, stamp, stamp)),
            counters: Some(Counters {
                sent: 10,
                received: 10 - lost,
                lost_forward: lost,
                ..Counters::default()
            }),
            rtt: Some((&rtt).into()),
            residence: Some(proto::Histogram {
                count: 10 - lost,
                min_ns: 700,
                max_ns: 700,
                sum_ns: 700 * (10 - lost),
                ..proto::Histogram::default()
            }),
            ..Window::default()
        }],
        ..Batch::default()
    }
}

fn write(directory: &Path, batches: &[Batch]) {
    let mut writer = Writer::open(directory, 0xAB, LIMITS).expect("a writable directory");
    for batch in batches {
        writer.append(batch, 1).expect("room on the disk");
    }
}

fn segment(directory: &Path) -> std::path::PathBuf {
    let entry = fs::read_dir(directory).expect("readable").next();
    entry.expect("a segment").expect("readable").path()
}

fn console(words: &[&str], directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dt-console"));
    command
        .args(words)
        .current_dir(directory)
        .env_remove("KAFKA_BOOTSTRAP_SERVERS")
        .stdin(Stdio::null());
    command
}

fn run(words: &[&str], directory: &Path) -> Output {
    console(words, directory).output().expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn three() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), &[batch(0, 0), batch(1, 3), batch(2, 0)]);
    directory
}

#[test]
fn tail_prints_the_windows_that_were_asked_for() {
    let directory = three();
    let output = run(&["tail", "--dir", ".", "--once"], directory.path());
    assert_eq!(text(&output.stdout).lines().count(), 3);
    let output = run(
        &["tail", "--dir", ".", "--once", "--loss", "20%"],
        directory.path(),
    );
    assert_eq!(
        text(&output.stdout),
        "2023-11-14T22:13:21.000000Z n1 → n2 tc sent 10 received 7 lost 3 (30%) P50 4.0 P99 4.0 max 4.0 µs, there 3 back 0 unknown 0\n"
    );
    for other in ["--peer=n3", "--zone=z2", "--source=n2", "--rtt=1ms"] {
        let output = run(&["tail", "--dir", ".", "--once", other], directory.path());
        assert!(
            output.status.success() && output.stdout.is_empty(),
            "{other}"
        );
    }
}

#[test]
fn the_matrix_of_a_directory_shows_it_as_it_ended() {
    let directory = three();
    let output = run(&["matrix", "--dir", ".", "--once"], directory.path());
    let shown = text(&output.stdout);
    assert!(shown.contains("22:13:22 nodes"), "{shown}");
    assert!(shown.contains("27 round trips, 3 lost (10%)"), "{shown}");
    let output = run(
        &["matrix", "--dir", ".", "--once", "--json"],
        directory.path(),
    );
    let picture: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(picture["cells"][0]["lost_forward"], 3);
    assert_eq!(picture["groups"][0]["state"], "alive");
}

#[test]
fn inspect_says_what_is_there_and_where_it_is_damaged() {
    let directory = three();
    let path = segment(directory.path());
    let name = path.to_string_lossy().into_owned();
    let output = run(&["inspect", &name], directory.path());
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}");
    assert!(
        shown.contains(
            "n1 start 00000000000000ab: batches 0 to 2, 0 missing, 0 repeated, 1 peers named"
        ),
        "{shown}"
    );
    let whole = fs::read(&path).expect("readable");
    for (tail, cause) in [
        (&[0, 0][..], "found byte 0x00"),
        (&[0x0A, 0x05, 1], "the record ends too early"),
    ] {
        fs::write(&path, [&whole, tail].concat()).expect("writable");
        let output = run(&["inspect", &name, "nowhere"], directory.path());
        let shown = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1));
        let place = format!("DAMAGED at byte {}", whole.len());
        assert!(shown.contains(&place) && shown.contains(cause), "{shown}");
        assert!(text(&output.stderr).contains("cannot read nowhere"));
    }
}

#[test]
fn what_is_saved_is_each_batch_once_and_reads_as_the_original() {
    let directory = three();
    let path = directory.path();
    // A repeat, as a topic has it after an agent was killed.
    write(path, &[batch(1, 3)]);
    let output = run(&["save", "--dir", ".", "--once", "--out", "saved"], path);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("3 batches written"));
    let tail = |from: &str| run(&["tail", "--dir", from, "--once"], path).stdout;
    assert_eq!(text(&tail("saved")), text(&tail(".")));
    assert_eq!(text(&tail("saved")).lines().count(), 3);
}

#[test]
fn export_writes_a_file_only_when_it_is_whole() {
    let directory = three();
    let words = [
        "export",
        "--dir",
        ".",
        "--out",
        "w.csv",
        "--to",
        "2023-11-14T22:13:21.5Z",
    ];
    let output = run(&words, directory.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rows = fs::read_to_string(directory.path().join("w.csv")).expect("it was written");
    assert_eq!(rows.lines().count(), 1 + 2);
    let output = run(
        &["export", "--dir", "absent", "--out", "x.csv"],
        directory.path(),
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("absent is not a directory"));
    let left = fs::read_dir(directory.path()).expect("readable").count();
    assert_eq!(left, 2, "the segment and the one export");
}

#[test]
fn mistakes_on_the_command_line_have_a_status_of_their_own() {
    let directory = three();
    for words in [
        &["tail"][..],
        &["tail", "--dir", ".", "--span", "1m"],
        &["matrix", "--by", "host"],
    ] {
        let output = run(words, directory.path());
        assert_eq!(output.status.code(), Some(64), "{words:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
}

#[test]
fn what_is_written_meanwhile_follows_and_a_signal_ends_it_well() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut child = console(
        &["tail", "--dir", ".", "--since", "start"],
        directory.path(),
    )
    .stdout(Stdio::piped())
    .spawn()
    .expect("it starts");
    let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut line = String::new();
    for sequence in 0..2 {
        write(directory.path(), &[batch(sequence, 0)]);
        line.clear();
        // Blocks until the line is there: a hang is a failure of the whole run.
        output.read_line(&mut line).expect("readable");
        assert!(line.contains("n1 → n2"), "{line}");
    }
    let killed = Command::new("kill")
        .arg("-INT")
        .arg(child.id().to_string())
        .status();
    assert!(killed.expect("kill is there").success());
    assert!(child.wait().expect("it is ours").success());
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let directory = tempfile::tempdir().expect("a directory");
    let batches: Vec<_> = (0..5_000).map(|sequence| batch(sequence, 0)).collect();
    write(directory.path(), &batches);
    let mut child = console(&["tail", "--dir", ".", "--once"], directory.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut first = [0; 10];
    let mut output = child.stdout.take().expect("it is piped");
    output.read_exact(&mut first).expect("readable");
    drop(output);
    let ended = child.wait_with_output().expect("it is ours");
    assert!(ended.status.success(), "{:?}", ended.status);
    assert_eq!(text(&ended.stderr), "");
}
