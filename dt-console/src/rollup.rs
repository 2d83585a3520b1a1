//! Figures of the last while, added up between nodes, racks or zones.
//!
//! Time is cut into slots; a window counts in the slot of its end. A picture adds up the slots that reach into the span, so it
//! covers the span and up to a quarter more. Pure: times are arguments. Memory is bounded by the number of cells; what finds
//! no room is counted.

use std::collections::HashMap;
use std::sync::Arc;

use dt_feed::proto::Window;
use serde::Serialize;

use crate::merge::Figures;
use crate::nodes::Node;

use cell::Cell;

mod cell;
#[cfg(test)]
mod tests;

/// Most cells of a roll-up: all pairs of 256 nodes, racks or zones. A cell takes up to 5 kB, so that is up to 330 MB.
pub const MAX_CELLS: usize = 1 << 16;

/// What is added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Nothing: each pair of nodes by itself.
    Node,
    /// The nodes of a rack. Racks of the same name in two zones are two.
    Rack,
    /// The nodes of a zone.
    Zone,
}

/// How far back figures count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    slot_ns: u64,
}

/// The cells of all pairs of groups that were heard of lately.
#[derive(Debug)]
pub struct Rollup {
    by: By,
    span: Span,
    max_cells: usize,
    groups: Groups,
    cells: HashMap<(u32, u32), Cell>,
    /// Slot of the latest sweep.
    swept: u64,
    dropped: Dropped,
}

/// Windows that are not in the figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// Older than the span when they came, for instance out of a spool.
    pub expired_windows: u64,
    /// Of pairs for which there was no room.
    pub crowded_windows: u64,
    /// Dated later than they were written, and counted at that time instead: the source's clock is ahead.
    pub misdated_windows: u64,
}

/// Names of groups by number and the other way round.
#[derive(Debug, Default)]
struct Groups {
    names: Vec<Arc<str>>,
    by_name: HashMap<Arc<str>, u32>,
}

impl By {
    /// The group that a node is in.
    #[must_use]
    pub fn group(self, node: &Node) -> &str {
        let group = match self {
            Self::Node => return &node.name,
            Self::Rack => node.labels.rack_in_zone(),
            Self::Zone => &node.labels.zone,
        };
        if group.is_empty() { NO_GROUP } else { group }
    }
}

impl Span {
    /// All that was ever read.
    pub const ALL: Self = Self { slot_ns: u64::MAX };

    /// The last so many ns.
    #[must_use]
    pub const fn last_ns(ns: u64) -> Self {
        let slot_ns = ns.div_ceil(SLOTS);
        Self {
            slot_ns: if slot_ns == 0 { 1 } else { slot_ns },
        }
    }

    /// Its length in ns; `None` for all.
    #[must_use]
    pub const fn length_ns(self) -> Option<u64> {
        if self.slot_ns == u64::MAX {
            None
        } else {
            Some(self.slot_ns * SLOTS)
        }
    }

    const fn slot(self, unix_ns: u64) -> u64 {
        unix_ns / self.slot_ns
    }

    /// The first slot that reaches into the span which ends now.
    const fn first(self, now_unix_ns: u64) -> u64 {
        self.slot(now_unix_ns).saturating_sub(SLOTS)
    }
}

impl Rollup {
    /// Without anything in it; `max_cells` is usually [`MAX_CELLS`].
    #[must_use]
    pub fn new(by: By, span: Span, max_cells: usize) -> Self {
        Self {
            by,
            span,
            max_cells,
            groups: Groups::default(),
            cells: HashMap::new(),
            swept: 0,
            dropped: Dropped::default(),
        }
    }

    /// What is added up.
    #[must_use]
    pub const fn by(&self) -> By {
        self.by
    }

    /// How far back.
    #[must_use]
    pub const fn span(&self) -> Span {
        self.span
    }

    /// Adds a window of one node about another, from a batch written at `log_unix_ns`.
    pub fn add(
        &mut self,
        from: &Node,
        to: &Node,
        window: &Window,
        figures: &Figures,
        log_unix_ns: u64,
    ) {
        let latest_ns = log_unix_ns.saturating_add(CLOCK_TOLERANCE_NS);
        let mut end_ns = window.end_unix_ns;
        if end_ns > latest_ns {
            self.dropped.misdated_windows = self.dropped.misdated_windows.saturating_add(1);
            end_ns = log_unix_ns;
        }
        // The end is the first instant that is not in it.
        let slot = self.span.slot(end_ns.saturating_sub(1));
        let first = self.span.first(log_unix_ns);
        if slot < first {
            self.dropped.expired_windows = self.dropped.expired_windows.saturating_add(1);
            return;
        }
        let key = (
            self.groups.number(self.by.group(from)),
            self.groups.number(self.by.group(to)),
        );
        if self.cells.len() >= self.max_cells && !self.cells.contains_key(&key) {
            self.dropped.crowded_windows = self.dropped.crowded_windows.saturating_add(1);
            self.groups.shrink(2 * self.max_cells, &mut self.cells);
            return;
        }
        let added = self.cells.entry(key).or_default().add(slot, figures);
        if !added {
            self.dropped.expired_windows = self.dropped.expired_windows.saturating_add(1);
        }
    }

    /// Lets go of what is older than the span now.
    pub fn handle_time(&mut self, now_unix_ns: u64) {
        let first = self.span.first(now_unix_ns);
        if first <= self.swept {
            return;
        }
        self.swept = first;
        self.cells.retain(|_, cell| cell.expire(first));
        self.groups
            .shrink(2 * self.cells.len() + SPARE_GROUPS, &mut self.cells);
    }

    /// The figures of every pair that has any in the span that ends now, by the names of their groups, in no order.
    pub fn figures(
        &self,
        now_unix_ns: u64,
    ) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, Figures)> {
        let first = self.span.first(now_unix_ns);
        self.cells.iter().filter_map(move |((from, to), cell)| {
            let figures = cell.figures(first)?;
            Some((self.groups.name(*from)?, self.groups.name(*to)?, figures))
        })
    }

    /// What is not in the figures.
    #[must_use]
    pub const fn dropped(&self) -> Dropped {
        self.dropped
    }
}

impl Groups {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(known) = self.by_name.get(name) {
            return *known;
        }
        let number = self.names.len() as u32;
        let name: Arc<str> = name.into();
        self.names.push(Arc::clone(&name));
        self.by_name.insert(name, number);
        number
    }

    fn name(&self, number: u32) -> Option<&Arc<str>> {
        self.names.get(number as usize)
    }

    /// Numbers those anew that some cell still needs, if there are more than `limit`.
    fn shrink(&mut self, limit: usize, cells: &mut HashMap<(u32, u32), Cell>) {
        if self.names.len() <= limit {
            return;
        }
        let before = std::mem::take(self);
        let mut renumbered =
            |number: u32| self.number(before.name(number).map_or(NO_GROUP, |name| name));
        *cells = std::mem::take(cells)
            .into_iter()
            .map(|((from, to), cell)| ((renumbered(from), renumbered(to)), cell))
            .collect();
    }
}

/// The group of nodes that have no such label.
pub const NO_GROUP: &str = "-";

/// Slots of a span.
const SLOTS: u64 = 4;
/// How far a source's clock may be ahead of the log's, ns.
const CLOCK_TOLERANCE_NS: u64 = 5_000_000_000;
/// Names that are kept though no cell needs them, so that not every sweep numbers anew.
const SPARE_GROUPS: usize = 64;
