//! What the feed said so far, added up per ordered pair of hosts.
//!
//! Counts and histograms are over all windows. Rates are over a [`Span`]: a window that lies in it partly counts for that
//! part, because agents open and close their windows each at its own time.

use std::collections::{BTreeMap, VecDeque};

use dt_feed::Histogram;
use dt_feed::histogram::HistogramError;
use dt_feed::proto::{Counters, Mode, Window};

/// All pairs that were heard of, by the names of source and destination.
#[derive(Debug, Default)]
pub struct Tally {
    pairs: BTreeMap<(String, String), Pair>,
}

/// What one host measured of another.
#[derive(Debug, Default)]
pub struct Pair {
    /// Sums; `in_flight` is that of the last window.
    pub counters: Counters,
    /// As the kernel stamped it.
    pub rtt: Histogram,
    /// As user space saw the compared ones among the same probes.
    pub user_rtt: Histogram,
    /// Probes received in each mode, in the order in which the modes came.
    pub modes: Vec<(Mode, u64)>,
    recent: VecDeque<Histogram>,
    windows: Vec<Counted>,
}

/// From before to after, ns unix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start_unix_ns: u64,
    pub end_unix_ns: u64,
}

/// What is kept of each window.
#[derive(Debug)]
struct Counted {
    span: Span,
    mode: Mode,
    sent: u64,
    received: u64,
}

impl Tally {
    /// Adds a window of `source` about `peer`.
    pub fn add(&mut self, source: &str, peer: &str, window: &Window) -> Result<(), HistogramError> {
        let key = (source.to_owned(), peer.to_owned());
        self.pairs.entry(key).or_default().add(window)
    }

    /// What is known of a pair; nothing until its first window.
    pub fn pair(&self, source: &str, peer: &str) -> Option<&Pair> {
        self.pairs.get(&(source.to_owned(), peer.to_owned()))
    }

    /// All pairs that were heard of.
    pub fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.values()
    }

    /// How many pairs have had an answer.
    pub fn answered(&self) -> usize {
        self.pairs().filter(|pair| pair.is_answered()).count()
    }

    /// How many pairs were last measured in `mode`.
    pub fn in_mode(&self, mode: Mode) -> usize {
        self.pairs()
            .filter(|pair| pair.mode() == Some(mode))
            .count()
    }

    /// Since when every pair that was heard of is being probed and answered, ns unix.
    pub fn all_answered_since_unix_ns(&self) -> Option<u64> {
        let first = |pair: &Pair| {
            pair.windows
                .iter()
                .find(|window| window.received > 0)
                .map(|window| window.span.start_unix_ns)
        };
        self.pairs().filter_map(first).max()
    }

    /// Round trips in `span`, all pairs together.
    pub fn received_in(&self, span: Span) -> f64 {
        self.pairs()
            .map(|pair| pair.count_in(span, |window| window.received))
            .sum()
    }
}

impl Pair {
    /// Whether it was ever measured.
    pub fn is_answered(&self) -> bool {
        self.counters.received > 0
    }

    /// The mode of the last window.
    pub fn mode(&self) -> Option<Mode> {
        self.windows.last().map(|window| window.mode)
    }

    /// Round trip times of the last few windows.
    pub fn recent_rtt(&self) -> Histogram {
        let mut sum = Histogram::new();
        self.recent.iter().for_each(|window| sum.merge(window));
        sum
    }

    /// The share of lost probes among those that ended either way.
    pub fn loss(&self) -> Option<f64> {
        let lost = self.counters.lost();
        let ended = self.counters.received + lost;
        (ended > 0).then(|| lost as f64 / ended as f64)
    }

    /// Probes sent per second of `span`.
    pub fn sent_pps(&self, span: Span) -> f64 {
        let seconds = span.length_ns() as f64 / 1e9;
        if seconds > 0.0 {
            self.count_in(span, |window| window.sent) / seconds
        } else {
            0.0
        }
    }

    /// Probes received in `span` in a mode that `accepts` does not take.
    pub fn received_otherwise(&self, span: Span, accepts: impl Fn(Mode) -> bool) -> u64 {
        let strange = |window: &&Counted| span.overlap_ns(window.span) > 0 && !accepts(window.mode);
        self.windows
            .iter()
            .filter(strange)
            .map(|window| window.received)
            .sum()
    }

    fn add(&mut self, window: &Window) -> Result<(), HistogramError> {
        let counters = window.counters.unwrap_or_default();
        self.counters.merge(&counters);
        self.counters.in_flight = counters.in_flight;
        let rtt = window
            .rtt
            .as_ref()
            .map_or(Ok(Histogram::new()), Histogram::try_from)?;
        self.rtt.merge(&rtt);
        if let Some(user_rtt) = &window.user_rtt {
            self.user_rtt.merge(&Histogram::try_from(user_rtt)?);
        }
        self.recent.push_back(rtt);
        if self.recent.len() > RECENT_WINDOWS {
            self.recent.pop_front();
        }
        let mode = window
            .method
            .map_or(Mode::Unspecified, |method| method.mode());
        self.count_mode(mode, counters.received);
        let span = Span {
            start_unix_ns: window.start_unix_ns,
            end_unix_ns: window.end_unix_ns,
        };
        self.windows.push(Counted {
            span,
            mode,
            sent: counters.sent,
            received: counters.received,
        });
        Ok(())
    }

    fn count_mode(&mut self, mode: Mode, received: u64) {
        match self.modes.iter_mut().find(|(known, _)| *known == mode) {
            Some((_, count)) => *count += received,
            None => self.modes.push((mode, received)),
        }
    }

    fn count_in(&self, span: Span, of: impl Fn(&Counted) -> u64) -> f64 {
        let part = |window: &Counted| of(window) as f64 * window.span.share_in(span);
        self.windows.iter().map(part).sum()
    }
}

impl Span {
    /// How long it is; an end before its start makes it empty.
    pub fn length_ns(self) -> u64 {
        self.end_unix_ns.saturating_sub(self.start_unix_ns)
    }

    fn overlap_ns(self, other: Self) -> u64 {
        let start_unix_ns = self.start_unix_ns.max(other.start_unix_ns);
        let end_unix_ns = self.end_unix_ns.min(other.end_unix_ns);
        end_unix_ns.saturating_sub(start_unix_ns)
    }

    /// The share of this span that lies in `other`.
    fn share_in(self, other: Self) -> f64 {
        match self.length_ns() {
            0 => 0.0,
            length_ns => self.overlap_ns(other) as f64 / length_ns as f64,
        }
    }
}

/// How many windows, of a second each, the live figures look back.
const RECENT_WINDOWS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::fixture::{SECOND_NS, window};

    #[test]
    fn a_window_counts_for_the_part_that_lies_in_the_span() {
        let mut tally = Tally::default();
        for second in 0..3 {
            tally
                .add("n1", "n2", &window(0, second, Mode::Xdp, &[4_000; 100]))
                .expect("a sound window");
        }
        let span = Span {
            start_unix_ns: SECOND_NS / 2,
            end_unix_ns: 2 * SECOND_NS,
        };
        let pair = tally.pair("n1", "n2").expect("it was added");
        assert!((pair.sent_pps(span) - 100.0).abs() < 1e-9);
        assert!((tally.received_in(span) - 150.0).abs() < 1e-9);
        assert_eq!(pair.counters.received, 300);
    }

    #[test]
    fn the_mode_is_the_last_one_and_the_others_are_not_forgotten() {
        let mut tally = Tally::default();
        tally
            .add("n1", "n2", &window(0, 0, Mode::Tc, &[9_000; 3]))
            .expect("a sound window");
        tally
            .add("n1", "n2", &window(0, 1, Mode::Xdp, &[4_000; 5]))
            .expect("a sound window");
        let pair = tally.pair("n1", "n2").expect("it was added");
        assert_eq!(pair.mode(), Some(Mode::Xdp));
        assert_eq!(pair.modes, [(Mode::Tc, 3), (Mode::Xdp, 5)]);
        let late = Span {
            start_unix_ns: SECOND_NS,
            end_unix_ns: 2 * SECOND_NS,
        };
        let is_xdp = |mode| mode == Mode::Xdp;
        assert_eq!(pair.received_otherwise(late, is_xdp), 0);
        assert_eq!(
            pair.received_otherwise(
                Span {
                    start_unix_ns: 0,
                    ..late
                },
                is_xdp
            ),
            3
        );
    }

    #[test]
    fn live_figures_forget_what_is_old() {
        let mut tally = Tally::default();
        tally
            .add("n1", "n2", &window(0, 0, Mode::Xdp, &[9_000_000]))
            .expect("a sound window");
        for second in 1..=5 {
            tally
                .add("n1", "n2", &window(0, second, Mode::Xdp, &[4_000]))
                .expect("a sound window");
        }
        let pair = tally.pair("n1", "n2").expect("it was added");
        assert_eq!(pair.recent_rtt().max(), Some(4_000));
        assert_eq!(pair.rtt.max(), Some(9_000_000));
    }

    #[test]
    fn a_span_without_length_has_no_rate() {
        let span = Span {
            start_unix_ns: 5,
            end_unix_ns: 5,
        };
        assert!(Pair::default().sent_pps(span).abs() < f64::EPSILON);
        assert_eq!(Pair::default().loss(), None);
    }
}
