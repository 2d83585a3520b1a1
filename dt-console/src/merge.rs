//! What windows say, added up: counters and histograms of any number of them.
//!
//! Merging is exact, see [`Histogram::merge`]; the figures of a rack are those that one agent would have had that sent the
//! probes of them all.

use dt_feed::Histogram;
use dt_feed::histogram::HistogramError;
use dt_feed::proto::{Counters, Mode, Window};

/// Sums over windows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Windows in these figures.
    pub windows: u64,
    /// Windows of them whose source says that its host distorted them.
    pub suspect_windows: u64,
    /// Sums. `in_flight` is the sum over all windows too, and says something only for one window of each pair.
    pub counters: Counters,
    /// Round trip times of the received probes, ns.
    pub rtt: Histogram,
    /// Modes in which the windows were measured.
    pub modes: Modes,
}

impl Figures {
    /// Those of one window.
    ///
    /// # Errors
    ///
    /// When its histogram is not one.
    pub fn of(window: &Window) -> Result<Self, HistogramError> {
        let rtt = window.rtt.as_ref();
        Ok(Self {
            windows: 1,
            suspect_windows: window.host_suspect.into(),
            counters: window.counters.unwrap_or_default(),
            rtt: rtt.map_or(Ok(Histogram::new()), Histogram::try_from)?,
            modes: Modes::of(window),
        })
    }

    /// Adds others to these.
    pub fn merge(&mut self, other: &Self) {
        // Taken apart without `..`, so that a new figure cannot be forgotten here.
        let Self {
            windows,
            suspect_windows,
            counters,
            rtt,
            modes,
        } = other;
        self.windows = self.windows.saturating_add(*windows);
        self.suspect_windows = self.suspect_windows.saturating_add(*suspect_windows);
        self.counters.merge(counters);
        self.rtt.merge(rtt);
        self.modes = self.modes.with(*modes);
    }

    /// The share of lost probes among those that ended either way, 0 to 1; `None` when none did.
    #[must_use]
    pub fn loss(&self) -> Option<f64> {
        loss(&self.counters)
    }
}

/// The share of lost probes among those that came back or were lost, 0 to 1; `None` when there are none of either.
#[must_use]
pub fn loss(counters: &Counters) -> Option<f64> {
    let lost = counters.lost();
    let ended = counters.received.saturating_add(lost);
    (ended > 0).then(|| lost as f64 / ended as f64)
}

/// A set of datapath modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modes(u8);

impl Modes {
    /// The mode of a window, unless it is not said or not known here.
    #[must_use]
    pub fn of(window: &Window) -> Self {
        let mode = window
            .method
            .map_or(Mode::Unspecified, |method| method.mode());
        match mode {
            Mode::Unspecified => Self(0),
            Mode::Xdp | Mode::Tc | Mode::Socket => Self(1 << mode as u8),
        }
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Names of the modes, the best first.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        [
            (Mode::Xdp, "xdp"),
            (Mode::Tc, "tc"),
            (Mode::Socket, "socket"),
        ]
        .into_iter()
        .filter(move |(mode, _)| self.0 >> *mode as u8 & 1 == 1)
        .map(|(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use dt_feed::proto::{Method, StampSource};
    use proptest::prelude::*;

    use super::*;

    fn window(rtts: &[u64], lost: u64, mode: Mode) -> Window {
        let unspecified = StampSource::Unspecified;
        Window {
            method: Some(Method::of(mode, unspecified, unspecified, unspecified)),
            host_suspect: lost > 2,
            counters: Some(Counters {
                sent: rtts.len() as u64 + lost,
                received: rtts.len() as u64,
                lost_return: lost,
                ..Counters::default()
            }),
            rtt: Some((&rtts.iter().copied().collect::<Histogram>()).into()),
            ..Window::default()
        }
    }

    #[test]
    fn a_window_without_anything_has_no_loss() {
        let figures = Figures::of(&Window::default()).expect("nothing is wrong with it");
        assert_eq!(figures.loss(), None);
        assert_eq!(figures.modes.names().count(), 0);
    }

    #[test]
    fn a_broken_histogram_is_an_error() {
        let mut broken = window(&[5], 0, Mode::Xdp);
        broken.rtt = broken.rtt.map(|mut rtt| {
            rtt.count = 2;
            rtt
        });
        assert_eq!(
            Figures::of(&broken),
            Err(HistogramError::Count { count: 2 })
        );
    }

    proptest! {
        #[test]
        fn merged_windows_are_one_window_of_all_probes(
            parts in prop::collection::vec((prop::collection::vec(0..10_000_000_u64, 0..20), 0..5_u64), 1..8),
        ) {
            let mut merged = Figures::default();
            for (rtts, lost) in &parts {
                let part = Figures::of(&window(rtts, *lost, Mode::Tc)).expect("it is sound");
                merged.merge(&part);
            }
            let rtts: Vec<u64> = parts.iter().flat_map(|(rtts, _)| rtts.clone()).collect();
            let lost = parts.iter().map(|(_, lost)| lost).sum();
            let whole = Figures::of(&window(&rtts, lost, Mode::Tc)).expect("it is sound");
            prop_assert_eq!(&merged.rtt, &whole.rtt);
            prop_assert_eq!(merged.counters, whole.counters);
            prop_assert_eq!(merged.loss(), whole.loss());
            prop_assert_eq!(merged.windows, parts.len() as u64);
            prop_assert_eq!(merged.modes.names().collect::<Vec<_>>(), ["tc"]);
        }
    }
}
