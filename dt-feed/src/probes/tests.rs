use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message;

use super::*;
use crate::proto::{Batch, Mode, Peer, ProbeClass, StampSource};

const OUTCOMES: [Outcome; 11] = [
    Outcome::LostForward,
    Outcome::LostReturn,
    Outcome::LostUnknown,
    Outcome::CorruptForward,
    Outcome::CorruptReturn,
    Outcome::Overrun,
    Outcome::Refused,
    Outcome::NotAdmitted,
    Outcome::PeerRestarted,
    Outcome::Straddled,
    Outcome::SendFailed,
];

fn xdp() -> Method {
    Method::of(
        Mode::Xdp,
        StampSource::TcEgress,
        StampSource::Xdp,
        StampSource::Xdp,
    )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => any::<u64>().prop_map(|rtt_ns| Outcome::Received { rtt_ns }),
        1 => any::<u64>().prop_map(|rtt_ns| Outcome::Late { rtt_ns }),
        2 => prop::sample::select(&OUTCOMES[..]),
        1 => (14..=u32::MAX).prop_map(|code| Outcome::Unknown(UnknownOutcome(code))),
    ]
}

prop_compose! {
    fn record()(
        peer in prop_oneof![0..4_u32, any::<u32>()],
        sent_unix_us in prop_oneof![1_000_000..2_000_000_u64, any::<u64>()],
        sequence in any::<u32>(),
        outcome in outcome(),
        source_port in any::<u16>(),
        hops in (option::of(any::<u8>()), option::of(any::<u8>())),
        mode in 0..9,
        suspect_reasons in prop_oneof![Just(0), any::<u32>()],
        class in (option::of(0..3_u32), 0..3_u32),
    ) -> ProbeRecord {
        let method = Method { mode, ..xdp() };
        let (hops_forward, hops_return) = hops;
        ProbeRecord {
            peer, sent_unix_us, sequence, outcome, source_port, hops_forward, hops_return, method, suspect_reasons,
            class: ProbeClass { dscp: class.0, packet_bytes: class.1 },
        }
    }
}

/// Any column, to be damaged.
fn column_of(block: &mut ProbeBlock, column: usize) -> &mut Vec<u8> {
    match column {
        0 => &mut block.peer,
        1 => &mut block.sent,
        2 => &mut block.sequence,
        3 => &mut block.outcome,
        4 => &mut block.rtt,
        5 => &mut block.port,
        6 => &mut block.hops_forward,
        7 => &mut block.hops_return,
        8 => &mut block.method,
        9 => &mut block.suspect_reasons,
        10 => &mut block.class,
        _ => &mut block.ports,
    }
}

proptest! {
    #[test]
    fn a_block_is_lossless(mut records in vec(record(), 0..300)) {
        let given = records.clone();
        let block = encode(&mut records).expect("few enough");
        let wire = ProbeBlock::decode(&block.encode_to_vec()[..]).expect("just encoded");
        prop_assert_eq!(decode(&wire), Ok(records.clone()));
        prop_assert!(given.iter().all(|record| records.contains(record)));
    }

    #[test]
    fn a_damaged_column_is_an_error_or_yields_as_many_records(
        mut records in vec(record(), 1..200), column in 0..12_usize, at in any::<Index>(), noise in any::<u8>(),
    ) {
        let mut block = encode(&mut records).expect("few enough");
        let bytes = column_of(&mut block, column);
        if !bytes.is_empty() {
            *at.get_mut(bytes) = noise;
        }
        if let Ok(decoded) = decode(&block) {
            prop_assert_eq!(decoded.len(), records.len());
        }
    }

    #[test]
    fn noise_in_every_field_never_panics(
        count in 0..200_u32, port_count in any::<u32>(), columns in vec(vec(any::<u8>(), 0..40), 12),
    ) {
        let classes = vec![ProbeClass::default()];
        let mut block = ProbeBlock { count, port_count, methods: vec![xdp()], classes, ..ProbeBlock::default() };
        for (column, bytes) in columns.into_iter().enumerate() {
            *column_of(&mut block, column) = bytes;
        }
        let _ = decode(&block);
    }
}

#[test]
fn more_probes_than_the_limit_are_refused_both_ways() {
    let mut records = vec![Mesh::default().probe(0, 0); MAX_PROBES + 1];
    assert_eq!(
        encode(&mut records),
        Err(EncodeError::TooManyProbes {
            count: MAX_PROBES + 1
        })
    );
    let block = ProbeBlock {
        count: u32::MAX,
        ..ProbeBlock::default()
    };
    assert_eq!(
        decode(&block),
        Err(DecodeError::TooManyProbes { count: u32::MAX })
    );
}

#[test]
fn more_methods_than_the_limit_are_refused() {
    let mut mesh = Mesh::default();
    let with_mode = |mode| ProbeRecord {
        method: Method { mode, ..xdp() },
        ..mesh.probe(0, 0)
    };
    let mut records: Vec<ProbeRecord> = (0..=MAX_METHODS as i32).map(with_mode).collect();
    assert_eq!(encode(&mut records), Err(EncodeError::TooManyMethods));
    assert!(encode(&mut records[1..]).is_ok());
}

#[test]
fn more_classes_than_the_limit_are_refused() {
    let mut mesh = Mesh::default();
    let of_length = |packet_bytes| ProbeRecord {
        class: ProbeClass {
            dscp: None,
            packet_bytes,
        },
        ..mesh.probe(0, 0)
    };
    let mut records: Vec<ProbeRecord> = (0..=MAX_CLASSES as u32).map(of_length).collect();
    assert_eq!(encode(&mut records), Err(EncodeError::TooManyClasses));
    assert!(encode(&mut records[1..]).is_ok());
}

#[test]
fn one_class_costs_a_block_no_column_and_a_block_of_before_has_none() {
    let class = ProbeClass {
        dscp: Some(46),
        packet_bytes: 124,
    };
    let mut mesh = Mesh::default();
    let mut records: Vec<_> = (0..200).map(|round| mesh.probe(0, round)).collect();
    for record in &mut records {
        record.class = class;
    }
    let mut block = encode(&mut records).expect("few enough");
    assert_eq!(
        (block.classes.as_slice(), block.class.len()),
        (&[class][..], 0)
    );
    assert!(
        decode(&block)
            .expect("whole")
            .iter()
            .all(|record| record.class == class)
    );
    block.classes.clear();
    let none = ProbeClass::default();
    assert!(
        decode(&block)
            .expect("whole")
            .iter()
            .all(|record| record.class == none)
    );
    block.classes = vec![none];
    block.class = vec![0, 0, 2];
    assert!(decode(&block).is_err());
}

#[test]
fn a_lost_round_trip_time_is_an_error() {
    let mut block = encode(&mut [Mesh::default().probe(0, 0)]).expect("one record");
    block.rtt = vec![0, 0];
    assert_eq!(decode(&block), Err(DecodeError::Column { column: "rtt" }));
}

#[test]
fn a_probe_of_many_peers_costs_at_most_eight_bytes() {
    assert_bytes_per_probe_at_most(8.0, 5000, 1);
}

#[test]
fn a_probe_of_few_peers_costs_at_most_eight_bytes() {
    assert_bytes_per_probe_at_most(8.0, 50, 100);
}

/// One minute of batches of 1 s: the first of them has the peer dictionary.
fn assert_bytes_per_probe_at_most(limit: f64, peers: u32, probes_per_peer: u32) {
    let mut mesh = Mesh {
        interval_us: 1_000_000 / u64::from(probes_per_peer),
        ..Mesh::default()
    };
    let mut bytes = 0;
    for second in 0..60 {
        let rounds = second * probes_per_peer..(second + 1) * probes_per_peer;
        let pairs = rounds.flat_map(|round| (0..peers).map(move |peer| (peer, round)));
        let mut records: Vec<ProbeRecord> =
            pairs.map(|(peer, round)| mesh.probe(peer, round)).collect();
        let block = encode(&mut records).expect("few enough");
        assert_eq!(decode(&block), Ok(records));
        let is_first = second == 0;
        let batch = Batch {
            source: "node-0000".into(),
            agent_version: "0.1.0".into(),
            peers: (0..peers)
                .filter(|_| is_first)
                .map(dictionary_entry)
                .collect(),
            probes: Some(block),
            ..Batch::default()
        };
        bytes += batch.encoded_len();
    }
    let per_probe = bytes as f64 / f64::from(60 * peers * probes_per_peer);
    println!("{peers} peers, {probes_per_peer} probes each: {per_probe:.2} bytes per probe");
    assert!(per_probe <= limit, "{per_probe} bytes per probe");
}

fn dictionary_entry(peer: u32) -> Peer {
    let address = [10, 1, (peer >> 8) as u8, peer as u8].into();
    Peer::new(
        peer,
        &format!("node-{peer:04}"),
        address,
        &format!("zone-{}", peer / 2000),
        &format!("rack-{}", peer / 40),
    )
}

/// A mesh with seeded jitter: round trips differ by peer and by probe, ports are drawn, one probe in a thousand is lost.
struct Mesh {
    interval_us: u64,
    state: u64,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            interval_us: 1_000_000,
            state: 0,
        }
    }
}

impl Mesh {
    fn probe(&mut self, peer: u32, round: u32) -> ProbeRecord {
        let outcome = match self.draw(1000) {
            0 => OUTCOMES[self.draw(3) as usize],
            _ => Outcome::Received {
                rtt_ns: self.rtt_ns(peer),
            },
        };
        ProbeRecord {
            peer,
            sent_unix_us: 1_763_900_000_000_000
                + u64::from(round) * self.interval_us
                + self.draw(self.interval_us),
            sequence: age(peer) + round,
            outcome,
            source_port: 40_000 + self.draw(64) as u16,
            hops_forward: Some(3 + (peer % 2) as u8),
            hops_return: Some(3),
            method: xdp(),
            suspect_reasons: 0,
            class: ProbeClass::default(),
        }
    }

    /// 20 us to 220 us by peer, and queueing with a long tail.
    fn rtt_ns(&mut self, peer: u32) -> u64 {
        let unit = (self.draw(1 << 20) + 1) as f64 / f64::from(1 << 20);
        20_000 + u64::from(peer) * 7919 % 200_000 + (-unit.ln() * 8_000.0) as u64
    }

    /// Splitmix64, below `limit`.
    fn draw(&mut self, limit: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// Sequence numbers count from 0 since the agent started and drift apart by jitter; one session in twenty is younger.
fn age(peer: u32) -> u32 {
    let drift = peer * 7919 % 31;
    if peer.is_multiple_of(20) {
        peer * 17 + drift
    } else {
        86_400 + drift
    }
}
