//! A wire that loses, doubles and corrupts by count, so that a test can demand exact numbers back.
//!
//! One program per direction (`fault_forward` in `dt-ebpf/src/lab`), each from its own copy of the object: which direction
//! it is, is a constant of the loaded program.

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData};
use aya::programs::TcAttachType;
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
        let wire = Self {
            there: direction(lab, THERE, port, there, ("to-n1", "to-n2"))?,
            back: direction(lab, BACK, port, back, ("to-n2", "to-n1"))?,
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

    /// What became of the probes of `n1` with the numbers from 0 to `count`, there and back. Right for the first 65,536 of
    /// one session, if nobody else probes through this wire.
    pub fn fates(&mut self, count: u32) -> Result<Vec<(Fate, Fate)>> {
        let there = fates(&mut self.there, THERE, count)?;
        let back = fates(&mut self.back, BACK, count)?;
        Ok(there.into_iter().zip(back).collect())
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
    lab: &Lab,
    direction: u32,
    port: u16,
    faults: Faults,
    ends: (&str, &str),
) -> Result<LabObject> {
    let wire = lab.host(WIRE);
    let (from, to) = ends;
    let globals = [("DIRECTION", direction)];
    let mut object = LabObject::load_file(&given::lab_object()?, &globals)?;
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
const FATES_PER_DIRECTION: u32 = 1 << 16;
/// Counters per direction in the map `DONE`.
const COUNTERS: u32 = 4;
