//! Meshes that do not fit this machine, filled from what a demo recorded.

use dt_feed::probes::{Outcome, ProbeRecord};
use dt_feed::proto::Peer;
use serde::Serialize;

use super::recording::{Recording, Sample};

/// How many peers one agent has, how many probes each gets per flush, and on how many source ports.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Shape {
    pub peers: u32,
    pub probes_per_peer: u32,
    pub ports: u32,
}

/// The two that the promise is about, with the agent's default number of ports; then with more, up to what it can have.
pub const SHAPES: [Shape; 6] = [
    Shape::new(5_000, 1, DEFAULT_PORTS),
    Shape::new(50, 100, DEFAULT_PORTS),
    Shape::new(5_000, 1, 64),
    Shape::new(50, 100, 64),
    Shape::new(5_000, 1, 4_096),
    Shape::new(50, 100, 4_096),
];

/// A minute of flushes, one per second: as often as the dictionary comes at least.
pub struct Minute {
    pub dictionary: Vec<Peer>,
    pub flushes: Vec<Vec<ProbeRecord>>,
}

impl Minute {
    pub fn probes(&self) -> usize {
        self.flushes.iter().map(Vec::len).sum()
    }
}

/// What all probes of one session share.
struct Session<'a> {
    recorded: &'a [Sample],
    /// Cables, switches and drivers that the demo has not, ns.
    distance_ns: u64,
    /// Routers that the demo has not.
    routers: u8,
    /// Probes sent before.
    age: u32,
    /// Of the moments at which the schedule sends, us.
    phase_us: u64,
}

impl Shape {
    const fn new(peers: u32, probes_per_peer: u32, ports: u32) -> Self {
        Self {
            peers,
            probes_per_peer,
            ports,
        }
    }

    /// Whether this is one of those that the promise is about.
    pub const fn is_judged(self) -> bool {
        self.ports == DEFAULT_PORTS
    }

    /// All probes that get their outcome within a minute, in the flush and the order in which the agent reports them.
    pub fn minute(self, recording: &Recording, seed: u64) -> Minute {
        let mut random = Random { state: seed };
        let ports = random.ports(self.ports);
        let mut flushes = vec![Vec::new(); FLUSHES];
        for peer in 0..self.peers {
            let session = Session::draw(peer, self, recording, &mut random);
            // Some that are sent before the minute get their outcome in it.
            for round in 0..(FLUSHES as u32 + LEAD_S) * self.probes_per_peer {
                let port = ports[random.below(ports.len() as u64) as usize];
                let record = session.probe(peer, round, self, port, &mut random);
                let after_us = match record.outcome {
                    Outcome::Received { rtt_ns } => rtt_ns / 1_000,
                    _ => DEADLINE_US,
                };
                let ends_us = record.sent_unix_us - BEGIN_UNIX_US + after_us;
                let flush = (ends_us / FLUSH_US).checked_sub(LEAD_S.into());
                if let Some(flush) = flush.and_then(|flush| flushes.get_mut(flush as usize)) {
                    flush.push(record);
                }
            }
        }
        Minute {
            dictionary: (0..self.peers).map(dictionary_entry).collect(),
            flushes,
        }
    }

    /// Time between two probes to one peer, us.
    fn interval_us(self) -> u64 {
        FLUSH_US / u64::from(self.probes_per_peer)
    }
}

impl<'a> Session<'a> {
    fn draw(peer: u32, shape: Shape, recording: &'a Recording, random: &mut Random) -> Self {
        let own = shape.peers / 2;
        // Of a Clos network: through the rack's switch, the zone's, or those between zones.
        let (routers, distance_ns) = if rack(peer) == rack(own) {
            (0, 0)
        } else if zone(peer) == zone(own) {
            (2, 20_000)
        } else {
            (
                4,
                20_000 + 300_000 * u64::from(zone(peer).abs_diff(zone(own))),
            )
        };
        // Most sessions are as old as the agent, but for a wake-up too late; the others' peers came since.
        let age_s = match random.below(20) {
            0 => random.below(DAY_S),
            _ => DAY_S - random.below(4),
        };
        Self {
            recorded: &recording.pairs[peer as usize % recording.pairs.len()],
            distance_ns: distance_ns + random.below(10_000),
            routers,
            age: age_s as u32 * shape.probes_per_peer,
            phase_us: random.below(shape.interval_us()),
        }
    }

    fn probe(
        &self,
        peer: u32,
        round: u32,
        shape: Shape,
        port: u16,
        random: &mut Random,
    ) -> ProbeRecord {
        let sample = self.recorded[random.below(self.recorded.len() as u64) as usize];
        let interval_us = shape.interval_us();
        // As the schedule does it: within a tenth of an interval of its place.
        let jitter_us = random.below(interval_us / 5);
        let outcome = match random.below(LOSS_ONE_IN) {
            0 => Outcome::LostForward,
            1 => Outcome::LostReturn,
            _ => Outcome::Received {
                rtt_ns: sample.rtt_ns + self.distance_ns + random.queueing_ns(),
            },
        };
        // Of a lost one no hops are known.
        let hops = |hops: Option<u8>| {
            hops.filter(|_| outcome.rtt_ns().is_some())
                .map(|hops| hops + self.routers)
        };
        ProbeRecord {
            peer,
            sent_unix_us: BEGIN_UNIX_US
                + u64::from(round) * interval_us
                + self.phase_us
                + jitter_us,
            sequence: self.age + round,
            outcome,
            source_port: port,
            hops_forward: hops(sample.hops_forward),
            hops_return: hops(sample.hops_return),
            method: sample.method,
            suspect_reasons: 0,
            class: sample.class,
        }
    }
}

const fn rack(peer: u32) -> u32 {
    peer / 40
}

const fn zone(peer: u32) -> u32 {
    peer / 2_000
}

fn dictionary_entry(peer: u32) -> Peer {
    let address = [10, 1, (peer >> 8) as u8, peer as u8].into();
    Peer::new(
        peer,
        &format!("node-{peer:04}"),
        address,
        &format!("zone-{}", zone(peer)),
        &format!("rack-{:03}", rack(peer)),
    )
}

/// Splitmix64: the same minute from the same seed and recording.
struct Random {
    state: u64,
}

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit.max(1)
    }

    /// Exponential, 8 us in the mean: the jitter of a network with other traffic.
    fn queueing_ns(&mut self) -> u64 {
        let unit = (self.below(1 << 30) + 1) as f64 / f64::from(1 << 30);
        (-unit.ln() * 8_000.0) as u64
    }

    /// So many ports in a row, as the agent has them.
    fn ports(&mut self, count: u32) -> Vec<u16> {
        let first = 1_024 + self.below(u64::from(65_536 - 1_024 - count)) as u16;
        (first..).take(count as usize).collect()
    }
}

/// `--source-ports` of an agent that is not told otherwise: 61000-61003.
const DEFAULT_PORTS: u32 = 4;
const FLUSHES: usize = 60;
const FLUSH_US: u64 = 1_000_000;
/// Flushes before the minute.
const LEAD_S: u32 = 3;
/// When a probe counts as lost: the agent's default, and some time for what the peer says of it.
const DEADLINE_US: u64 = 1_200_000;
const BEGIN_UNIX_US: u64 = 1_763_900_000_000_000;
const DAY_S: u64 = 86_400;
/// One in a thousand is lost on the way there, and another one on the way back.
const LOSS_ONE_IN: u64 = 1_000;

#[cfg(test)]
mod tests {
    use dt_feed::proto::{Method, ProbeClass};

    use super::*;
    use crate::bench::feed::codec::{Sizes, encode};

    /// A few microseconds and a tail, as the demo has them.
    fn recording() -> Recording {
        let mut random = Random { state: 2 };
        let mut sample = || Sample {
            rtt_ns: 4_000 + random.queueing_ns() / 4,
            hops_forward: Some(0),
            hops_return: Some(0),
            method: Method::default(),
            class: ProbeClass::default(),
        };
        let pairs = (0..12).map(|_| (0..1_000).map(|_| sample()).collect());
        Recording {
            pairs: pairs.collect(),
        }
    }

    #[test]
    fn a_probe_costs_at_most_eight_bytes_and_six_compressed() -> anyhow::Result<()> {
        for shape in SHAPES.into_iter().filter(|shape| shape.is_judged()) {
            let minute = shape.minute(&recording(), 1);
            let messages = encode(minute.flushes.clone(), &minute.dictionary)?;
            let sizes = Sizes::of(&messages, &minute)?;
            assert!(
                sizes.total <= 8.0 && sizes.zstd <= 6.0,
                "{shape:?}: {sizes:?}"
            );
        }
        Ok(())
    }

    #[test]
    fn a_minute_is_what_its_shape_and_seed_say() {
        let shape = Shape::new(50, 100, 4);
        let minute = shape.minute(&recording(), 1);
        let probes: Vec<_> = minute.flushes.iter().flatten().collect();
        let share = |of: fn(&Outcome) -> bool| {
            probes.iter().filter(|probe| of(&probe.outcome)).count() as f64 / probes.len() as f64
        };
        assert_eq!((minute.flushes.len(), minute.dictionary.len()), (60, 50));
        assert!((probes.len() as f64 / 300_000.0 - 1.0).abs() < 0.001);
        for lost in [
            |outcome: &Outcome| matches!(outcome, Outcome::LostForward),
            |outcome: &Outcome| matches!(outcome, Outcome::LostReturn),
        ] {
            assert!((0.0008..0.0012).contains(&share(lost)), "{}", share(lost));
        }
        assert_eq!(shape.minute(&recording(), 1).flushes, minute.flushes);
        assert_ne!(shape.minute(&recording(), 2).flushes, minute.flushes);
    }
}
