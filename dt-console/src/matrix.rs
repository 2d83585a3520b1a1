//! The mesh at a glance: between every two nodes, racks or zones their P50, P99, loss and state.
//!
//! [`Matrix`] takes batches and time; [`Picture`] is what there is to be seen at one time, ready to be drawn or serialised.

use std::collections::{BTreeMap, HashSet};

use dt_feed::Histogram;
use dt_feed::proto::{Batch, Counters};
use serde::Serialize;

use crate::filter::Filter;
use crate::intake::{Faults, Intake};
use crate::merge::{Figures, loss};
use crate::rollup::{By, Dropped, Rollup};
use crate::state::State;

#[cfg(test)]
mod tests;

/// A roll-up with the names that it needs.
#[derive(Debug)]
pub struct Matrix {
    intake: Intake,
    rollup: Rollup,
    filter: Filter,
}

/// All that is to be seen. The names of the fields are those of `dt-console matrix --json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Picture {
    /// What a row and a column stand for.
    pub by: By,
    /// Up to when everything was read, ms unix, log time.
    pub now_unix_ms: u64,
    /// How far back figures count, s; absent: all that was read.
    pub span_s: Option<f64>,
    /// Rows and columns, by name.
    pub groups: Vec<Group>,
    /// One for each ordered pair that has figures, by name.
    pub cells: Vec<PairFigures>,
    /// All cells together.
    pub total: TotalFigures,
    /// Batches that are missing between those that came.
    pub missing_batches: u64,
    /// What agents say that they lost before it reached the feed: probes, by node. Nodes that lost nothing are not there.
    pub lost_by_source: BTreeMap<String, SourceLoss>,
    /// What could not be used.
    #[serde(flatten)]
    pub faults: Faults,
    /// What is not in the figures.
    #[serde(flatten)]
    pub dropped: Dropped,
}

/// A node, rack or zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Its name; a rack's has its zone before it.
    pub name: String,
    /// The worst state of its nodes.
    pub state: State,
    /// How many of its nodes are in each state; states without any are not there.
    pub nodes: BTreeMap<State, u64>,
}

/// Figures of one ordered pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairFigures {
    /// Who measured.
    pub from: String,
    /// Who was measured.
    pub to: String,
    /// The worse state of both.
    pub state: State,
    /// The figures.
    #[serde(flatten)]
    pub figures: TotalFigures,
}

/// Figures in the form in which they are read.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[expect(
    missing_docs,
    reason = "the names are those of the feed's counters, which docs/feed.md explains"
)]
pub struct TotalFigures {
    pub windows: u64,
    pub suspect_windows: u64,
    pub modes: Vec<&'static str>,
    pub sent: u64,
    pub received: u64,
    pub lost: u64,
    pub lost_forward: u64,
    pub lost_return: u64,
    pub lost_unknown: u64,
    pub late: u64,
    pub corrupt: u64,
    pub refused: u64,
    /// Lost probes among those that came back or were lost, 0 to 1; absent: there were none.
    pub loss: Option<f64>,
    /// Exact; absent: nothing was timed.
    pub min_ns: Option<u64>,
    pub p50_ns: Option<u64>,
    pub p99_ns: Option<u64>,
    pub max_ns: Option<u64>,
}

/// What one agent says that it lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SourceLoss {
    /// Batches, whatever the reason.
    pub batches: u64,
    /// Windows in no batch or in a lost one.
    pub windows: u64,
    /// Probes in no block or in a lost one.
    pub probes: u64,
}

impl Matrix {
    /// Without anything in it.
    #[must_use]
    pub fn new(intake: Intake, rollup: Rollup, filter: Filter) -> Self {
        Self {
            intake,
            rollup,
            filter,
        }
    }

    /// Takes in a batch that was written at `log_ms`. One that is only `context` teaches names and has no figures for us.
    pub fn handle_batch(&mut self, batch: &Batch, log_ms: u64, context: bool) {
        let Some(source) = self.intake.handle_batch(batch, log_ms) else {
            return;
        };
        if context {
            return;
        }
        let mut broken = 0;
        let log_ns = log_ms.saturating_mul(NS_PER_MS);
        if let Some(from) = self.intake.source(source) {
            for (window, peer) in self.intake.windows(source, batch) {
                let is_wanted = self.filter.accepts(from, Some(peer.node))
                    && self.filter.accepts_class(window.dscp, window.packet_bytes);
                if !is_wanted {
                    continue;
                }
                match Figures::of(window) {
                    Ok(figures) => self.rollup.add(from, peer.node, window, &figures, log_ns),
                    Err(_) => broken += 1,
                }
            }
        }
        let faults = self.intake.faults_mut();
        faults.broken_windows = faults.broken_windows.saturating_add(broken);
    }

    /// Lets go of what is over, when everything was read up to `now_ms`.
    pub fn handle_time(&mut self, now_ms: u64) {
        self.intake.handle_time(now_ms);
        self.rollup.handle_time(now_ms.saturating_mul(NS_PER_MS));
    }

    /// What is to be seen when everything was read up to `now_ms`.
    #[must_use]
    pub fn picture(&self, now_ms: u64) -> Picture {
        let now_ns = now_ms.saturating_mul(NS_PER_MS);
        let mut figures: Vec<_> = self.rollup.figures(now_ns).collect();
        figures.sort_unstable_by(|left, right| (left.0, left.1).cmp(&(right.0, right.1)));
        let measured = figures.iter().flat_map(|(from, to, _)| [&***from, &***to]);
        let groups = self.groups(now_ms, &measured.collect());
        let mut total = Figures::default();
        let mut cells = Vec::with_capacity(figures.len());
        for (from, to, figures) in &figures {
            total.merge(figures);
            let state = |name: &str| groups.get(name).map_or(State::Alive, |group| group.state);
            cells.push(PairFigures {
                from: from.to_string(),
                to: to.to_string(),
                state: state(from).max(state(to)),
                figures: figures.into(),
            });
        }
        Picture {
            by: self.rollup.by(),
            now_unix_ms: now_ms,
            span_s: self.rollup.span().length_ns().map(|ns| ns as f64 / 1e9),
            groups: groups.into_values().collect(),
            cells,
            total: (&total).into(),
            missing_batches: self.intake.missing_batches(),
            lost_by_source: self.lost_by_source(),
            faults: self.intake.faults(),
            dropped: self.rollup.dropped(),
        }
    }

    /// Who is there, by name: the groups of nodes that were asked for, and those that have figures.
    fn groups(&self, now_ms: u64, measured: &HashSet<&str>) -> BTreeMap<String, Group> {
        let present = self.intake.present(now_ms);
        let mut groups: BTreeMap<String, Group> = BTreeMap::new();
        for (_, node) in self.intake.nodes().iter() {
            let state = node.signs.state(&present);
            let name = self.rollup.by().group(node);
            let is_shown = state != State::Gone && self.filter.means(node);
            if is_shown || measured.contains(name) {
                let group = groups
                    .entry(name.to_owned())
                    .or_insert_with(|| Group::new(name));
                group.state = group.state.max(state);
                *group.nodes.entry(state).or_insert(0) += 1;
            }
        }
        // Figures may be there under labels that no node has any more.
        for name in measured {
            groups
                .entry((*name).to_owned())
                .or_insert_with(|| Group::new(name));
        }
        groups
    }

    fn lost_by_source(&self) -> BTreeMap<String, SourceLoss> {
        let mut lost: BTreeMap<String, SourceLoss> = BTreeMap::new();
        for (node, losses) in self.intake.losses() {
            let sum = lost.entry(node.name.to_string()).or_default();
            sum.batches = sum.batches.saturating_add(batches(losses));
            let windows = losses
                .windows_dropped
                .saturating_add(losses.windows_unwritten);
            sum.windows = sum.windows.saturating_add(windows);
            sum.probes = sum.probes.saturating_add(losses.probes_lost);
        }
        lost
    }
}

/// Batches lost for whatever reason.
#[must_use]
pub fn batches(losses: &dt_feed::proto::Losses) -> u64 {
    [
        losses.batches_disk_full,
        losses.batches_io_failed,
        losses.batches_queue_full,
        losses.batches_spool_full,
        losses.batches_rejected,
        losses.batches_spool_damaged,
    ]
    .into_iter()
    .fold(0, u64::saturating_add)
}

impl Picture {
    /// The figures of one ordered pair.
    #[must_use]
    pub fn cell(&self, from: &str, to: &str) -> Option<&PairFigures> {
        let place = self
            .cells
            .binary_search_by(|cell| (&*cell.from, &*cell.to).cmp(&(from, to)));
        Some(&self.cells[place.ok()?])
    }

    /// How many nodes are in each state.
    #[must_use]
    pub fn nodes(&self) -> BTreeMap<State, u64> {
        let mut nodes = BTreeMap::new();
        for (state, count) in self.groups.iter().flat_map(|group| &group.nodes) {
            *nodes.entry(*state).or_insert(0) += count;
        }
        nodes
    }
}

impl Group {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: State::Alive,
            nodes: BTreeMap::new(),
        }
    }
}

impl From<&Figures> for TotalFigures {
    fn from(figures: &Figures) -> Self {
        let Counters {
            sent,
            received,
            lost_forward,
            lost_return,
            lost_unknown,
            late,
            corrupt_forward,
            corrupt_return,
            refused,
            ..
        } = figures.counters;
        let rtt: &Histogram = &figures.rtt;
        Self {
            windows: figures.windows,
            suspect_windows: figures.suspect_windows,
            modes: figures.modes.names().collect(),
            sent,
            received,
            lost: figures.counters.lost(),
            lost_forward,
            lost_return,
            lost_unknown,
            late,
            corrupt: corrupt_forward.saturating_add(corrupt_return),
            refused,
            loss: loss(&figures.counters),
            min_ns: rtt.min(),
            p50_ns: rtt.quantile(0.5),
            p99_ns: rtt.quantile(0.99),
            max_ns: rtt.max(),
        }
    }
}

const NS_PER_MS: u64 = 1_000_000;
