//! What really happened to each probe on [`Lab::wire`]: stamps of programs that share no code with the product's.
//!
//! ```text
//!  n1                         wire                         n2
//!  sent ───────────> line_in ───hold──> line_out ─────────> asked
//!  answered <─────── back_out <──hold── back_in <────────── replied
//! ```
//!
//! On the hosts they stand at tc, outside of the product's programs there: `sent` right after its T1, `answered` right before its
//! T4. Where XDP does the work it consumes what would come to tc, so that only `sent` and the wire's own stamps are there.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use aya::maps::{Array, MapData};
use aya::programs::TcAttachType;
use dt_feed::probes::{self, Outcome, ProbeRecord};
use dt_feed::segment::{Followed, Follower};

use crate::WIRE;
use crate::lab::Lab;
use crate::object::LabObject;

/// The places of one lab, stamping until it is dropped.
#[derive(Debug)]
pub struct Stamps {
    /// In the order of [`Passage`]'s fields.
    places: Vec<LabObject>,
}

/// When one probe of `n1` and its reply passed each place, monotonic ns; 0 where none did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// Left `n1`.
    pub sent: u64,
    /// Reached the wire from `n1`.
    pub line_in: u64,
    /// Left the wire for `n2`.
    pub line_out: u64,
    /// Reached `n2`.
    pub asked: u64,
    /// The reply left `n2`.
    pub replied: u64,
    /// It reached the wire.
    pub back_in: u64,
    /// It left the wire for `n1`.
    pub back_out: u64,
    /// It reached `n1`.
    pub answered: u64,
}

impl Passage {
    /// The round trip without the time that `n2` took, as the product defines it; none where a stamp is missing.
    #[must_use]
    pub fn rtt_ns(&self) -> Option<u64> {
        let whole = difference(self.answered, self.sent)?;
        whole.checked_sub(difference(self.replied, self.asked)?)
    }

    /// The part of it that the wire itself took: from its near end to its far end, both ways.
    #[must_use]
    pub fn line_ns(&self) -> Option<u64> {
        let there = difference(self.line_out, self.line_in)?;
        Some(there + difference(self.back_out, self.back_in)?)
    }
}

// Where the stamps are, in the order of a probe's way.
const SENT: usize = 0;
const LINE_IN: usize = 1;
const LINE_OUT: usize = 2;
const ASKED: usize = 3;
const REPLIED: usize = 4;
const BACK_IN: usize = 5;
const BACK_OUT: usize = 6;
const ANSWERED: usize = 7;

fn difference(later: u64, earlier: u64) -> Option<u64> {
    (earlier > 0).then(|| later.checked_sub(earlier)).flatten()
}

impl Stamps {
    /// Loads the programs from the lab's object; nothing is stamped yet.
    pub fn load(object: &Path) -> Result<Self> {
        let load = |place| {
            let globals = [
                ("REPLIES", u32::from(place >= REPLIED)),
                ("BEFORE", u32::from([ASKED, ANSWERED].contains(&place))),
            ];
            LabObject::load_file(object, &globals)
        };
        Ok(Self {
            places: (0..=ANSWERED).map(load).collect::<Result<_>>()?,
        })
    }

    /// Stamps on the wire. Its ends get programs that let either host answer by `XDP_TX`.
    pub fn attach_to_wire(&mut self, lab: &Lab) -> Result<()> {
        let wire = lab.host(WIRE);
        let egress = TcAttachType::Egress;
        self.places[LINE_IN].attach_xdp("truth_xdp", wire, "to-n1")?;
        self.places[LINE_OUT].attach_tc("truth_tc", wire, "to-n2", egress)?;
        self.places[BACK_IN].attach_xdp("truth_xdp", wire, "to-n2")?;
        self.places[BACK_OUT].attach_tc("truth_tc", wire, "to-n1", egress)
    }

    /// Stamps on the hosts. After the agents have chosen mode `tc`, so that these programs stand outside of theirs.
    pub fn attach_to_hosts(&mut self, lab: &Lab) -> Result<()> {
        let (n1, n2) = (lab.host("n1"), lab.host("n2"));
        let (near, far) = (n1.device_to("n2"), n2.device_to("n1"));
        let (ingress, egress) = (TcAttachType::Ingress, TcAttachType::Egress);
        self.places[SENT].attach_tc("truth_tc", n1, near, egress)?;
        self.places[ASKED].attach_tc_first("truth_tc", n2, far, ingress)?;
        self.places[REPLIED].attach_tc("truth_tc", n2, far, egress)?;
        self.places[ANSWERED].attach_tc_first("truth_tc", n1, near, ingress)
    }

    /// What the probes with these numbers did. Right for the first 2^20 of one session, if nobody else probes through the wire.
    pub fn passages(&mut self, numbers: std::ops::Range<u32>) -> Result<Vec<Passage>> {
        let mut columns = Vec::new();
        for place in &mut self.places {
            let map = place.ebpf_mut().map_mut("PASSED");
            let map: Array<&mut MapData, u64> = map.context("no map PASSED")?.try_into()?;
            let column = numbers.clone().map(|number| map.get(&number, 0));
            columns.push(column.collect::<Result<Vec<_>, _>>()?);
        }
        let passage = |row: usize| Passage {
            sent: columns[SENT][row],
            line_in: columns[LINE_IN][row],
            line_out: columns[LINE_OUT][row],
            asked: columns[ASKED][row],
            replied: columns[REPLIED][row],
            back_in: columns[BACK_IN][row],
            back_out: columns[BACK_OUT][row],
            answered: columns[ANSWERED][row],
        };
        Ok((0..numbers.len()).map(passage).collect())
    }
}

/// How many replies arrived, and how many of them after that to a later probe.
#[must_use]
pub fn overtaken(passages: &[Passage]) -> (u64, u64) {
    let numbered = passages.iter().enumerate();
    let mut arrivals: Vec<_> = numbered
        .filter(|(_, passage)| passage.answered > 0)
        .map(|(number, passage)| (passage.answered, number))
        .collect();
    arrivals.sort_unstable();
    let mut highest = 0;
    let mut overtaken = 0;
    for (_, number) in &arrivals {
        overtaken += u64::from(*number < highest);
        highest = highest.max(*number);
    }
    (arrivals.len() as u64, overtaken)
}

/// The round trip times, ns, that an agent with one peer wrote of each probe, by sequence number.
pub fn reported(feed: &Path) -> Result<BTreeMap<u32, u64>> {
    let timed = |record: ProbeRecord| match record.outcome {
        Outcome::Received { rtt_ns } => Some((record.sequence, rtt_ns)),
        _ => None,
    };
    Ok(records(feed)?.into_iter().filter_map(timed).collect())
}

/// What an agent wrote of each probe, in the order in which it did.
pub fn records(feed: &Path) -> Result<Vec<ProbeRecord>> {
    let mut follower = Follower::new(feed);
    let mut records = Vec::new();
    while let Some(followed) = follower.poll()? {
        let batch = match followed {
            Followed::Batch(batch) => batch,
            Followed::Damaged { path, cause, .. } => bail!("{}: {cause}", path.display()),
        };
        let Some(block) = batch.probes else { continue };
        records.extend(probes::decode(&block)?);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_is_known_only_where_every_stamp_is() {
        let passage = Passage {
            sent: 1_000,
            line_in: 1_010,
            line_out: 2_010,
            asked: 2_020,
            replied: 2_520,
            back_in: 2_530,
            back_out: 4_530,
            answered: 4_540,
        };
        assert_eq!(passage.rtt_ns(), Some(3_040));
        assert_eq!(passage.line_ns(), Some(3_000));
        let lost = Passage {
            answered: 0,
            back_out: 0,
            ..passage
        };
        assert_eq!((lost.rtt_ns(), lost.line_ns()), (None, None));
    }

    #[test]
    fn a_reply_is_overtaken_once_however_many_did_it() {
        let arrivals = [10, 40, 20, 30, 0, 50];
        let passages = arrivals.map(|answered| Passage {
            answered,
            ..Passage::default()
        });
        // The second came after the third and the fourth; the fifth never.
        assert_eq!(overtaken(&passages), (5, 1));
    }
}
