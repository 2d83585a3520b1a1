//! What was measured since the start, added up by the peers' zones and racks: never by pair of hosts.
//!
//! A mesh of ten thousand has a hundred million pairs; a monitoring system takes a few thousand series of an agent. What is
//! kept here is bounded whatever labels the members carry: zones and racks beyond [`Rollup::MAX_ZONES`] and
//! [`Rollup::MAX_RACKS`] are added up under the name [`OTHER`].

mod buckets;

use std::collections::{BTreeMap, BTreeSet};

use dt_feed::Histogram;

use super::mesh::Labels;
use super::session::Outcome;
use super::window::{Counters, WindowReport};

pub use buckets::{CLASSIC_BOUNDS, NATIVE_SCHEMA, Native, classic};

/// Name of the zone, or rack, that stands for those for which there was no room.
pub const OTHER: &str = "other";

/// A rack and the zone it stands in; empty where a peer does not say.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// Zone label.
    pub zone: String,
    /// Rack label.
    pub rack: String,
}

impl Place {
    /// Where a member with these labels stands.
    #[must_use]
    pub fn of(labels: &Labels) -> Self {
        Self {
            zone: labels.zone.clone().unwrap_or_default(),
            rack: labels.rack.clone().unwrap_or_default(),
        }
    }
}

/// Probes towards the peers of one zone or rack, since the start.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Probes that the schedule asked for.
    pub asked: u64,
    /// Probes put on the wire.
    pub sent: u64,
    /// Probes that the local host could not send.
    pub send_failed: u64,
    outcomes: [u64; Outcome::ALL.len()],
    /// Round trip times of those received in time, ns.
    pub rtt: Histogram,
}

impl Totals {
    fn add(&mut self, report: &WindowReport) {
        let counted = &report.counters;
        self.asked += counted.asked();
        self.sent += u64::from(counted.sent);
        self.send_failed += u64::from(counted.send_failed);
        for (total, outcome) in self.outcomes.iter_mut().zip(Outcome::ALL) {
            *total += u64::from(counted.of(outcome));
        }
        self.rtt.merge(&report.rtt);
    }

    /// Each outcome and how many probes it had.
    pub fn outcomes(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::ALL.into_iter().zip(self.outcomes)
    }

    /// Probes that the network lost, whatever the direction.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let lost = |(outcome, count): (Outcome, u64)| if outcome.is_lost() { count } else { 0 };
        self.outcomes().map(lost).sum()
    }
}

/// What happened beside the outcomes, since the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Events {
    /// Copies of requests that peers saw beyond the first.
    pub duplicate_forward: u64,
    /// Copies of replies beyond the first.
    pub duplicate_return: u64,
    /// First replies after the reply to a later probe on the same path.
    pub reordered: u64,
    /// Replies to probes that had been called lost.
    pub late_after_loss: u64,
    /// Replies without a time, because a clock was set meanwhile.
    pub straddled: u64,
}

impl Events {
    fn add(&mut self, counted: &Counters) {
        self.duplicate_forward += u64::from(counted.duplicate_forward);
        self.duplicate_return += u64::from(counted.duplicate_return);
        self.reordered += u64::from(counted.reordered);
        self.late_after_loss += u64::from(counted.late_after_loss);
        self.straddled += u64::from(counted.straddled);
    }
}

/// The sums.
#[derive(Clone, Debug, Default)]
pub struct Rollup {
    zones: BTreeMap<String, Totals>,
    racks: BTreeMap<Place, Totals>,
    /// What happened beside the outcomes.
    pub events: Events,
    /// Windows that were added.
    pub windows: u64,
    /// Those of them in which this host was suspect.
    pub windows_suspect: u64,
}

impl Rollup {
    /// Zones with a name of their own.
    pub const MAX_ZONES: usize = 18;
    /// Racks with a name of their own.
    pub const MAX_RACKS: usize = 256;

    /// Adds a window of a peer that stands at `place`. `is_suspect`: this host was in a state that makes its figures doubtful.
    pub fn add(&mut self, place: &Place, report: &WindowReport, is_suspect: bool) {
        self.windows += 1;
        self.windows_suspect += u64::from(is_suspect);
        self.events.add(&report.counters);
        let zone = name_of(&self.zones, &place.zone, Self::MAX_ZONES, OTHER.to_owned());
        self.zones.entry(zone).or_default().add(report);
        let others = Place {
            zone: OTHER.to_owned(),
            rack: OTHER.to_owned(),
        };
        let rack = name_of(&self.racks, place, Self::MAX_RACKS, others);
        self.racks.entry(rack).or_default().add(report);
    }

    /// Forgets zones and racks that no peer stands in any more, so that labels that come and go do not fill the tables.
    pub fn keep(&mut self, places: &BTreeSet<Place>) {
        let zones: BTreeSet<_> = places.iter().map(|place| place.zone.as_str()).collect();
        self.zones
            .retain(|zone, _| zone == OTHER || zones.contains(zone.as_str()));
        self.racks
            .retain(|place, _| place.rack == OTHER || places.contains(place));
    }

    /// Sums by zone of the peer.
    pub fn zones(&self) -> impl Iterator<Item = (&str, &Totals)> {
        self.zones
            .iter()
            .map(|(zone, totals)| (zone.as_str(), totals))
    }

    /// Sums by rack of the peer.
    pub fn racks(&self) -> impl Iterator<Item = (&Place, &Totals)> {
        self.racks.iter()
    }
}

/// The name under which to count, which is `other` where there is no room for one more.
fn name_of<K: Clone + Ord>(table: &BTreeMap<K, Totals>, wanted: &K, most: usize, other: K) -> K {
    if table.contains_key(wanted) || table.len() < most {
        wanted.clone()
    } else {
        other
    }
}

#[cfg(test)]
mod tests;
