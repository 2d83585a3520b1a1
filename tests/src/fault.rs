//! A wire that loses, doubles and corrupts by count, so that a test can demand exact numbers back.
//!
//! One program per direction (`fault_forward` in `dt-ebpf/src/lab`), each from its own copy of the object: which direction
//! it is, is a constant of the loaded program.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData};
use aya::programs::TcAttachType;
use dt_feed::proto::Counters;
use nix::net::if_::if_nametoindex;

use crate::lab::Lab;
use crate::object::LabObject;
use crate::{WIRE, given};

/// What happens in one direction to the packets from or to the watched port; 0 is never.
///
/// A packet has one fault at most, the first of those due in the order of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Drop every so many.
    pub drop_every: u64,
    /// Send every so many twice.
    pub duplicate_every: u64,
    /// Flip a bit in every so many, without putting the checksum right.
    pub corrupt_every: u64,
}

impl Faults {
    /// All of them on the way to the reflector, by numbers without a common divisor, so that every combination comes.
    pub const MIXED_THERE: Self = Self {
        drop_every: 7,
        duplicate_every: 13,
        corrupt_every: 17,
    };
    /// The same for the way back.
    pub const MIXED_BACK: Self = Self {
        drop_every: 11,
        ..Self::MIXED_THERE
    };
}

/// What was done in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Packets from or to the watched port.
    pub seen: u64,
    /// Of these, dropped.
    pub dropped: u64,
    /// Sent twice.
    pub duplicated: u64,
    /// Corrupted.
    pub corrupted: u64,
}

/// What became, in one direction, of all packets with the sequence number of one probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// Packets that went on as they came.
    pub whole: u32,
    /// Packets that went on with a wrong checksum.
    pub corrupt: u32,
    /// Packets that did not go on.
    pub dropped: u32,
}

impl Fate {
    const fn decode(word: u32) -> Self {
        Self {
            whole: word & 0xff,
            corrupt: (word >> 8) & 0xff,
            dropped: word >> 16,
        }
    }
}

/// The outcomes of probes that a wire is to blame for, and the copies: as an agent counts them, or as they must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Answered in time.
    pub received: u64,
    /// Lost on the way there.
    pub lost_forward: u64,
    /// Lost on the way back.
    pub lost_return: u64,
    /// Lost, and nobody knows where.
    pub lost_unknown: u64,
    /// Spoilt on the way there.
    pub corrupt_forward: u64,
    /// Spoilt on the way back.
    pub corrupt_return: u64,
    /// Copies made on the way there.
    pub duplicate_forward: u64,
    /// Copies made on the way back.
    pub duplicate_return: u64,
    /// Everything else that a probe can come to.
    pub other: u64,
}

impl Outcomes {
    /// What an agent counted.
    #[must_use]
    pub const fn said(counters: &Counters) -> Self {
        Self {
            received: counters.received,
            lost_forward: counters.lost_forward,
            lost_return: counters.lost_return,
            lost_unknown: counters.lost_unknown,
            corrupt_forward: counters.corrupt_forward,
            corrupt_return: counters.corrupt_return,
            duplicate_forward: counters.duplicate_forward,
            duplicate_return: counters.duplicate_return,
            other: counters.late
                + counters.overrun
                + counters.refused
                + counters.not_admitted
                + counters.peer_restarted
                + counters.departed
                + counters.in_flight,
        }
    }

    /// By how much the counts of two differ in all.
    #[must_use]
    pub fn off(&self, other: &Self) -> u64 {
        let all = |one: &Self| {
            [
                one.received,
                one.lost_forward,
                one.lost_return,
                one.lost_unknown,
                one.corrupt_forward,
                one.corrupt_return,
                one.duplicate_forward,
                one.duplicate_return,
                one.other,
            ]
        };
        let pairs = all(self).into_iter().zip(all(other));
        pairs.map(|(one, other)| one.abs_diff(other)).sum()
    }

    const fn outcome(&mut self, there: Fate, back: Fate) -> &mut u64 {
        if back.whole > 0 {
            &mut self.received
        } else if back.corrupt > 0 {
            &mut self.corrupt_return
        } else if there.whole > 0 {
            &mut self.lost_return
        } else if there.corrupt > 0 {
            &mut self.corrupt_forward
        } else {
            &mut self.lost_forward
        }
    }
}

/// The joined ends of [`Lab::wire`]; dropping it cuts the wire.
#[derive(Debug)]
pub struct FaultyWire {
    there: LabObject,
    back: LabObject,
}

impl FaultyWire {
    /// Joins the ends: `there` is from `n1` to `n2`. Waits until both hosts reached each other.
    ///
    /// Both ends get `xdp_pass`, so that either host may answer by `XDP_TX`.
    pub fn join(lab: &Lab, port: u16, there: Faults, back: Faults) -> Result<Self> {
        Self::join_with(&given::lab_object()?, lab, port, there, back)
    }

    /// The same by the lab object in this file.
    pub fn join_with(
        object: &Path,
        lab: &Lab,
        port: u16,
        there: Faults,
        back: Faults,
    ) -> Result<Self> {
        let load = |way: u32| LabObject::load_file(object, &[("DIRECTION", way)]);
        let wire = Self {
            there: direction(load(THERE)?, lab, THERE, port, there, ("to-n1", "to-n2"))?,
            back: direction(load(BACK)?, lab, BACK, port, back, ("to-n2", "to-n1"))?,
        };
        lab.wait_reachable()?;
        Ok(wire)
    }

    /// Does this to packets from now on.
    pub fn inject(&mut self, there: Faults, back: Faults) -> Result<()> {
        change(&mut self.there, THERE, there)?;
        change(&mut self.back, BACK, back)
    }

    /// Lets everything pass from now on.
    pub fn heal(&mut self) -> Result<()> {
        self.inject(Faults::default(), Faults::default())
    }

    /// What became of the probes of `n1` with the numbers from 0 to `count`, there and back. Right for the first 2^20 of
    /// one session, if nobody else probes through this wire.
    pub fn fates(&mut self, count: u32) -> Result<Vec<(Fate, Fate)>> {
        let there = fates(&mut self.there, THERE, count)?;
        let back = fates(&mut self.back, BACK, count)?;
        Ok(there.into_iter().zip(back).collect())
    }

    /// What must be said of the first `sent` probes of `n1`, by what became of each packet; as [`Self::fates`].
    pub fn expected(&mut self, sent: u64) -> Result<Outcomes> {
        let mut expected = Outcomes::default();
        for (there, back) in self.fates(u32::try_from(sent)?)? {
            *expected.outcome(there, back) += 1;
            expected.duplicate_forward += u64::from(there.whole.saturating_sub(1));
            // As many answers left the peer as whole requests reached it; what came home beyond these was copied on the way.
            let answers = there.whole - back.corrupt - back.dropped;
            expected.duplicate_return += u64::from(back.whole.saturating_sub(answers));
        }
        Ok(expected)
    }

    /// What was done to packets from `n1` to `n2`.
    pub fn done_there(&mut self) -> Result<Done> {
        done(&mut self.there, THERE)
    }

    /// What was done to packets from `n2` to `n1`.
    pub fn done_back(&mut self) -> Result<Done> {
        done(&mut self.back, BACK)
    }
}

fn direction(
    mut object: LabObject,
    lab: &Lab,
    direction: u32,
    port: u16,
    faults: Faults,
    ends: (&str, &str),
) -> Result<LabObject> {
    let wire = lab.host(WIRE);
    let (from, to) = ends;
    let out = wire
        .enter(|| if_nametoindex(to))?
        .with_context(|| format!("no device {to}"))?;
    self::faults(&mut object)?.set(direction, encode(out, port, faults), 0)?;
    object.attach_xdp("xdp_pass", wire, from)?;
    object.attach_tc("fault_forward", wire, from, TcAttachType::Ingress)?;
    Ok(object)
}

fn faults(object: &mut LabObject) -> Result<Array<&mut MapData, [u8; FAULT_BYTES]>> {
    let map = object
        .ebpf_mut()
        .map_mut("FAULTS")
        .context("the lab object has no map FAULTS")?;
    Ok(map.try_into()?)
}

fn change(object: &mut LabObject, direction: u32, faults: Faults) -> Result<()> {
    let mut array = self::faults(object)?;
    let mut bytes = array.get(&direction, 0)?;
    bytes[8..].copy_from_slice(&encode(0, 0, faults)[8..]);
    array.set(direction, bytes, 0)?;
    Ok(())
}

fn fates(object: &mut LabObject, direction: u32, count: u32) -> Result<Vec<Fate>> {
    let map = object
        .ebpf_mut()
        .map("FATES")
        .context("the lab object has no map FATES")?;
    let words: Array<_, u32> = map.try_into()?;
    ensure!(
        count <= FATES_PER_DIRECTION,
        "{count} probes are too many to be told apart"
    );
    let first = direction * FATES_PER_DIRECTION;
    (first..first + count)
        .map(|index| Ok(Fate::decode(words.get(&index, 0)?)))
        .collect()
}

/// `Fault` of the lab object: two words of 32 bits and three of 64, in the order of the host.
fn encode(out: u32, port: u16, faults: Faults) -> [u8; FAULT_BYTES] {
    let mut bytes = [0; FAULT_BYTES];
    bytes[0..4].copy_from_slice(&out.to_ne_bytes());
    bytes[4..8].copy_from_slice(&u32::from(port).to_ne_bytes());
    bytes[8..16].copy_from_slice(&faults.drop_every.to_ne_bytes());
    bytes[16..24].copy_from_slice(&faults.duplicate_every.to_ne_bytes());
    bytes[24..32].copy_from_slice(&faults.corrupt_every.to_ne_bytes());
    bytes
}

fn done(object: &mut LabObject, direction: u32) -> Result<Done> {
    let map = object
        .ebpf_mut()
        .map("DONE")
        .context("the lab object has no map DONE")?;
    let counters: Array<_, u64> = map.try_into()?;
    let counter = |what: u32| counters.get(&(direction * COUNTERS + what), 0);
    Ok(Done {
        seen: counter(0)?,
        dropped: counter(1)?,
        duplicated: counter(2)?,
        corrupted: counter(3)?,
    })
}

const THERE: u32 = 0;
const BACK: u32 = 1;
const FAULT_BYTES: usize = 32;
const FATES_PER_DIRECTION: u32 = 1 << 20;
/// Counters per direction in the map `DONE`.
const COUNTERS: u32 = 4;
