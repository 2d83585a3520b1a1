//! Whether a node is well: what the membership says of it, and whether it is still heard.
//!
//! An agent cannot report that it is dead. So silence counts: a source whose batches stopped while others go on naming it is
//! shown as silent, whatever the membership says. Pure: times are log times in ms, and now is an argument.

use dt_feed::proto::PeerState;
use serde::Serialize;

/// State of a node, from well to bad; of a group its worst counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It publishes, and the membership does not object.
    Alive,
    /// Named by others, too new to be missed.
    New,
    /// Neither heard nor named any more, while others are: it left.
    Gone,
    /// The membership says that its agent will be back.
    Restarting,
    /// It ought to publish and does not.
    Silent,
    /// The membership says that it went without a word.
    Failed,
}

/// What the state of a node is judged by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// What the membership said last.
    pub membership: PeerState,
    /// When its latest batch was written.
    heard_ms: Option<u64>,
    /// When the latest batch with a window about it was written.
    named_ms: Option<u64>,
    /// When it was first named.
    first_named_ms: Option<u64>,
    /// Longest window in its latest batch that had any, 0 before.
    window_ms: u64,
}

/// How things stand at one time, for all nodes.
#[derive(Clone, Copy, Debug)]
pub struct Present {
    /// Up to when everything was read.
    pub now_ms: u64,
    /// The latest time at which any node was heard.
    pub latest_ms: u64,
    /// Patience with a source of unknown window, and the least with any.
    pub silent_after_ms: u64,
}

impl Signs {
    /// A batch of it was written at this time; `window_ms` is the longest of its windows, if it has any.
    pub fn hear(&mut self, log_ms: u64, window_ms: Option<u64>) {
        self.heard_ms = self.heard_ms.max(Some(log_ms));
        // Bounded, so that nobody buys eternal patience with one absurd window.
        self.window_ms = window_ms.map_or(self.window_ms, |ms| ms.min(MAX_WINDOW_MS));
    }

    /// A window about it was written at this time.
    pub fn name(&mut self, log_ms: u64) {
        self.named_ms = self.named_ms.max(Some(log_ms));
        self.first_named_ms.get_or_insert(log_ms);
    }

    /// When it was last heard.
    #[must_use]
    pub const fn heard_ms(&self) -> Option<u64> {
        self.heard_ms
    }

    /// The latest sign of it: heard or named.
    #[must_use]
    pub fn latest_ms(&self) -> u64 {
        self.heard_ms.max(self.named_ms).unwrap_or(0)
    }

    /// Its state.
    #[must_use]
    pub fn state(&self, present: &Present) -> State {
        let patience_ms = present
            .silent_after_ms
            .max(PATIENCE_WINDOWS * self.window_ms);
        let is_past = |ms: u64| present.now_ms.saturating_sub(ms) > patience_ms;
        let is_heard = self.heard_ms.is_some_and(|ms| !is_past(ms));
        let is_named = self.named_ms.is_some_and(|ms| !is_past(ms));
        // When nobody is heard, nobody names: then not being named says nothing.
        let others_go_on = !is_past(present.latest_ms);
        if !is_heard && !is_named && others_go_on {
            return State::Gone;
        }
        match self.membership {
            PeerState::Failed => State::Failed,
            PeerState::Restarting => State::Restarting,
            PeerState::Alive | PeerState::Unspecified if is_heard => State::Alive,
            PeerState::Alive | PeerState::Unspecified => {
                let since_ms = self.heard_ms.or(self.first_named_ms);
                if since_ms.is_some_and(is_past) {
                    State::Silent
                } else {
                    State::New
                }
            }
        }
    }
}

impl State {
    /// All states, from well to bad.
    pub const ALL: [Self; 6] = [
        Self::Alive,
        Self::New,
        Self::Gone,
        Self::Restarting,
        Self::Silent,
        Self::Failed,
    ];

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::New => "new",
            Self::Gone => "gone",
            Self::Restarting => "restarting",
            Self::Silent => "silent",
            Self::Failed => "failed",
        }
    }
}

/// How many of its own windows a source may be late.
const PATIENCE_WINDOWS: u64 = 3;
/// The longest window an agent can be told to make.
const MAX_WINDOW_MS: u64 = 60_000;

/// Least patience unless told otherwise, ms.
pub const SILENT_AFTER_MS: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_000_000;

    fn present(latest_ms: u64) -> Present {
        Present {
            now_ms: NOW_MS,
            latest_ms,
            silent_after_ms: SILENT_AFTER_MS,
        }
    }

    /// Ages in ms of the latest batch, the latest mention and the first one.
    fn signs(heard: Option<u64>, named: Option<u64>, first: u64, membership: PeerState) -> Signs {
        Signs {
            membership,
            heard_ms: heard.map(|age| NOW_MS - age),
            named_ms: named.map(|age| NOW_MS - age),
            first_named_ms: named.map(|_| NOW_MS - first),
            window_ms: 1_000,
        }
    }

    #[test]
    fn every_combination_of_signs_has_its_state() {
        use PeerState::{Alive, Failed, Restarting, Unspecified};
        let (fresh, old) = (Some(500), Some(60_000));
        let table = [
            (fresh, fresh, Alive, State::Alive),
            (fresh, None, Unspecified, State::Alive),
            // Its own batches say more than what was once said of it, but a fresh word of the membership says more still.
            (fresh, fresh, Failed, State::Failed),
            (fresh, fresh, Restarting, State::Restarting),
            (old, fresh, Alive, State::Silent),
            (old, fresh, Unspecified, State::Silent),
            (old, fresh, Restarting, State::Restarting),
            (old, fresh, Failed, State::Failed),
            (None, fresh, Alive, State::Silent),
            (None, fresh, Failed, State::Failed),
            (old, old, Alive, State::Gone),
            (old, old, Failed, State::Gone),
            (None, old, Unspecified, State::Gone),
        ];
        for (heard, named, membership, expected) in table {
            let signs = signs(heard, named, 60_000, membership);
            assert_eq!(signs.state(&present(NOW_MS)), expected, "{signs:?}");
        }
    }

    #[test]
    fn a_node_that_was_just_named_for_the_first_time_is_not_missed_yet() {
        let signs = signs(None, Some(500), 9_000, PeerState::Alive);
        assert_eq!(signs.state(&present(NOW_MS)), State::New);
    }

    #[test]
    fn when_nobody_is_heard_everybody_is_silent_and_nobody_has_left() {
        let old = Some(60_000);
        let signs = signs(old, old, 90_000, PeerState::Alive);
        assert_eq!(signs.state(&present(NOW_MS - 60_000)), State::Silent);
    }

    #[test]
    fn a_source_with_long_windows_is_given_time() {
        let mut signs = signs(Some(100_000), Some(500), 200_000, PeerState::Alive);
        assert_eq!(signs.state(&present(NOW_MS)), State::Silent);
        signs.hear(NOW_MS - 100_000, Some(60_000));
        assert_eq!(signs.state(&present(NOW_MS)), State::Alive);
        signs.hear(NOW_MS - 100_000, Some(u64::MAX));
        let late = Present {
            now_ms: NOW_MS + 200_000,
            ..present(NOW_MS)
        };
        assert_ne!(signs.state(&late), State::Alive);
    }

    #[test]
    fn batches_without_windows_do_not_shorten_the_patience() {
        let mut signs = Signs::default();
        signs.hear(NOW_MS, Some(60_000));
        signs.hear(NOW_MS, None);
        assert_eq!(signs.window_ms, 60_000);
    }

    #[test]
    fn states_are_ordered_as_they_are_listed() {
        assert!(State::ALL.is_sorted());
    }
}
