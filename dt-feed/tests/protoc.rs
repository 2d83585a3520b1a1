//! The reference tool reads what we write.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use dt_feed::proto::{Batch, Counters, Mode, Peer, StampSource, Window};
use dt_feed::segment::{Limits, Writer};
use dt_feed::{Histogram, SCHEMA_VERSION, proto};

#[test]
fn protoc_decodes_a_segment_with_our_schema() {
    if Command::new("protoc")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "protoc not installed, and CI allows no skips"
        );
        println!("skipped: protoc not installed");
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let limits = Limits {
        max_bytes: 1 << 20,
        max_age_ns: u64::MAX,
    };
    let mut writer = Writer::open(directory.path(), 7, limits).expect("a writer");
    for sequence in 0..3 {
        writer.append(&batch(sequence), 1).expect("written");
    }
    let text = decode(writer.path().expect("a segment"));
    for expected in [
        "sequence: 2",
        "name: \"n2\"",
        "mode: MODE_XDP",
        "lost_return: 4",
        "max_ns: 90000",
        "rtt: \"",
    ] {
        assert!(text.contains(expected), "{expected} is missing in\n{text}");
    }
    assert_eq!(text.matches("batches {").count(), 3);
}

fn batch(sequence: u64) -> Batch {
    let method = proto::Method::of(
        Mode::Xdp,
        StampSource::TcEgress,
        StampSource::Xdp,
        StampSource::Xdp,
    );
    let rtt: Histogram = [40_000, 41_000, 90_000].into_iter().collect();
    let window = Window {
        peer: 1,
        method: Some(method),
        counters: Some(Counters {
            sent: 7,
            received: 3,
            lost_return: 4,
            ..Counters::default()
        }),
        rtt: Some((&rtt).into()),
        ..Window::default()
    };
    let probe = dt_feed::probes::ProbeRecord {
        peer: 1,
        sent_unix_us: 1_763_900_000_000_000,
        sequence: 9,
        outcome: dt_feed::probes::Outcome::Received { rtt_ns: 40_000 },
        source_port: 40_000,
        hops_forward: Some(1),
        hops_return: None,
        method,
        suspect_reasons: 0,
        class: proto::ProbeClass {
            dscp: Some(46),
            packet_bytes: 124,
        },
    };
    Batch {
        schema_version: SCHEMA_VERSION,
        source: "n1".into(),
        sequence,
        peers: vec![Peer::new(1, "n2", [10, 0, 0, 2].into(), "z1", "r1")],
        windows: vec![window],
        probes: Some(dt_feed::probes::encode(&mut [probe]).expect("one record")),
        ..Batch::default()
    }
}

fn decode(segment: &Path) -> String {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/proto");
    let output = Command::new("protoc")
        .arg("--proto_path")
        .arg(schema)
        .args([
            "--decode",
            "distributed_trace.v1.Segment",
            "v1/messages.proto",
        ])
        .stdin(File::open(segment).expect("a segment"))
        .output()
        .expect("protoc");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}
