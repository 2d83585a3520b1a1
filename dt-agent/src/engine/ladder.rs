//! The datapath ladder of one interface: `xdp` > `tc` > `socket`.
//!
//! Attaching is not trusting: native XDP may attach and yet drop whatever it sends, for instance on a veth whose other
//! end has no XDP program. So XDP is used once a neighbour has answered a frame that it sent, and as long as that can be
//! repeated; until then tc does the work. How a neighbour is asked is the adapter's business.
//!
//! ```text
//!                      refused              proved
//!  AttachingTc ──────────────> Socket   ┌──────────> Xdp <───────────┐
//!    │  ^                        │      │            │ 60 s, or all  │ proved, or nobody
//!    │  └──── back-off ──────────┘      │            v peers silent  │ to ask
//!    │ attached                         │         Reproving ─────────┘
//!    v                                  │            │ 3 times in a row unreturned
//!  AttachingXdp ────────────────> Proving            │
//!    │ ^           attached         │   ^            │
//!    │ │ back-off, if detached      │   │ back-off   │
//!    │ └────────────────────────┐   v   │            │
//!    └────────────────────────> Tc ─────┘ <──────────┘
//!              refused
//!
//!  any state ── interface gone ──> Absent ── interface back ──> AttachingTc
//! ```
//!
//! Who asks for `xdp` or `tc` gets it or `Refused`, with the same back-off; who asks for `socket` stays there.

mod mode;
mod moves;
mod signal;
mod words;

use std::collections::VecDeque;

use dt_common::time::{MonoNanos, NANOS_PER_SEC};

use super::random::Random;

pub use mode::{Mode, ModeRequest};
pub use signal::{Command, Input, Refusal, RefusalKind, Verdict};

/// The ladder of one interface.
#[derive(Debug)]
pub struct Ladder {
    settings: LadderSettings,
    random: Random,
    state: State,
    commands: VecDeque<Command>,
    history: VecDeque<Step>,
    /// The rung in use.
    mode: Option<Mode>,
    settled: bool,
    xdp_attached: bool,
    /// A program of somebody else's held the XDP slot when it was tried last.
    foreign: bool,
    /// Number of the latest try to prove XDP.
    round: u32,
    /// Steps down since XDP last held; the back-off grows with it.
    falls: u32,
    /// When to take an XDP program off that could not be proved.
    detach_at: Option<MonoNanos>,
}

/// What a ladder is to reach, and at which price.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LadderSettings {
    /// What the operator asked for.
    pub request: ModeRequest,
    /// Take an unproved XDP program off after [`Ladder::LINGER_NS`], and put it back for each new try.
    ///
    /// For interfaces on which an idle XDP program costs and attaching does not: veth, where it ends large segments. On a
    /// NIC it is the other way round, attaching resets the rings; there it stays.
    pub detach_unproved: bool,
}

/// One change of rung.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Step {
    /// When.
    pub at: MonoNanos,
    /// The rung from then on; none: nothing works.
    pub mode: Option<Mode>,
    /// Why, in one line for operators.
    pub reason: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Absent,
    AttachingTc,
    AttachingXdp,
    /// Every so often a try, until one succeeds or the first period is over.
    Proving(Proving),
    Xdp {
        reproof_at: MonoNanos,
        proved_at: MonoNanos,
    },
    /// XDP works on while it is doubted.
    Reproving(Doubt),
    /// Without a time to retry: the operator wants it so.
    Tc {
        retry_at: Option<MonoNanos>,
    },
    /// As above.
    Socket {
        retry_at: Option<MonoNanos>,
    },
    Refused {
        retry_at: MonoNanos,
    },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Proving {
    tries: u32,
    /// What the latest verdict was.
    last: Verdict,
    next_at: MonoNanos,
    until: MonoNanos,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Doubt {
    /// Tries in a row that failed.
    failures: u32,
    /// The try under way is one of them.
    unreturned: bool,
    /// When the try under way ends.
    next_at: MonoNanos,
}

impl Ladder {
    /// How long XDP is tried at first; two agents that start together both have their programs on by then.
    pub const FIRST_PERIOD_NS: u64 = 3 * NANOS_PER_SEC;
    /// From try to try in that period.
    pub const TRY_NS: u64 = NANOS_PER_SEC / 5;
    /// From proof to proof, with a jitter of a tenth.
    pub const REPROOF_NS: u64 = 60 * NANOS_PER_SEC;
    /// From try to try when a proof is repeated, and least time between two repetitions.
    pub const REPROOF_TRY_NS: u64 = NANOS_PER_SEC;
    /// Tries in a row that must fail before XDP is given up.
    pub const REPROOF_FAILURES: u32 = 3;
    /// Shortest wait before climbing again, with a jitter of a tenth.
    pub const BACK_OFF_NS: u64 = 5 * NANOS_PER_SEC;
    /// Longest wait before climbing again, with a jitter of a tenth.
    pub const LONGEST_BACK_OFF_NS: u64 = 300 * NANOS_PER_SEC;
    /// How long an unproved XDP program stays on, if not for good. Longer than the longest back-off: of two ends that
    /// need each other, the one that came later is still there when the other one tries again.
    pub const LINGER_NS: u64 = 360 * NANOS_PER_SEC;
    /// Steps that [`Self::history`] keeps.
    pub const HISTORY: usize = 32;

    /// The ladder of an interface that is there; the first commands wait to be polled.
    #[must_use]
    pub fn new(settings: LadderSettings, random: Random, now: MonoNanos) -> Self {
        let mut ladder = Self {
            settings,
            random,
            state: State::Absent,
            commands: VecDeque::new(),
            history: VecDeque::new(),
            mode: None,
            settled: false,
            xdp_attached: false,
            foreign: false,
            round: 0,
            falls: 0,
            detach_at: None,
        };
        ladder.state = ladder.begin(now);
        ladder
    }

    /// The rung in use; none: nothing works (yet).
    #[must_use]
    pub fn mode(&self) -> Option<Mode> {
        self.mode
    }

    /// Whether the rung in use was decided on, and is not only a stand-in while XDP is tried for the first time.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Why the mode that the operator asked for cannot be had; none while it can, or while that is not known.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        let refused = matches!(self.state, State::Refused { .. });
        self.history
            .back()
            .filter(|_| refused)
            .map(|step| step.reason.as_str())
    }

    /// The latest steps, the oldest first.
    #[must_use]
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &Step> {
        self.history.iter()
    }

    /// The next order; none: all is said.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When to call [`Self::handle_timeout`]; none: only an input changes anything.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<MonoNanos> {
        self.state
            .ends_at()
            .into_iter()
            .chain(self.detaches_at())
            .min()
    }

    /// Takes something that happened.
    pub fn handle_input(&mut self, input: Input, now: MonoNanos) {
        use {Input as I, State as S};
        self.state = match (self.state, input) {
            (S::AttachingTc, I::TcAttached) => self.use_tc(now),
            (S::AttachingTc, I::TcRefused(refusal)) => self.do_without_tc(&refusal, now),
            (S::AttachingXdp, I::XdpAttached) => self.prove(now),
            (S::AttachingXdp, I::XdpRefused(refusal)) => self.do_without_xdp(&refusal, now),
            // A verdict on a try that was given up, perhaps before the interface was made anew.
            (state, I::Proof { round, .. }) if round != self.round => state,
            (S::Proving(proving), I::Proof { verdict, .. }) => {
                self.judge_first(proving, verdict, now)
            }
            (S::Reproving(doubt), I::Proof { verdict, .. }) => {
                self.judge_again(doubt, verdict, now)
            }
            (S::Xdp { proved_at, .. }, I::PeersSilent) => self.hurry(proved_at, now),
            // Told again and again that the slot is free, nobody shall climb again and again.
            (S::Tc { retry_at: Some(_) }, I::ForeignGone) if self.foreign => self.climb(now),
            (S::Refused { .. }, I::ForeignGone) if self.foreign => self.attach_tc(),
            (S::Absent, I::InterfaceBack) => self.begin(now),
            (S::Absent, I::InterfaceGone) => S::Absent,
            (_, I::InterfaceGone) => self.vanish(now),
            // Answers to orders that a later input made void, and news that change nothing. The inputs are spelt out
            // and the states are not, which the table in `tests` makes up for: it has every pair.
            (
                state,
                I::TcAttached
                | I::TcRefused(_)
                | I::XdpAttached
                | I::XdpRefused(_)
                | I::Proof { .. }
                | I::PeersSilent
                | I::ForeignGone
                | I::InterfaceBack,
            ) => state,
        };
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: MonoNanos) {
        if self.detaches_at().is_some_and(|at| at <= now) {
            self.detach();
        }
        if self.state.ends_at().is_none_or(|at| at > now) {
            return;
        }
        self.state = match self.state {
            State::Proving(proving) if proving.until <= now => self.end_first_period(proving, now),
            State::Proving(proving) => self.try_again(proving, now),
            State::Xdp { .. } => self.doubt(0, now),
            State::Reproving(Doubt {
                unreturned: false, ..
            }) => self.hold_xdp(now),
            State::Reproving(Doubt { failures, .. }) => self.doubt(failures, now),
            State::Tc { .. } => self.climb(now),
            State::Socket { .. } | State::Refused { .. } => self.attach_tc(),
            waiting @ (State::Absent | State::AttachingTc | State::AttachingXdp) => waiting,
        };
    }
}

impl State {
    /// When it ends by itself.
    fn ends_at(self) -> Option<MonoNanos> {
        match self {
            Self::Absent | Self::AttachingTc | Self::AttachingXdp => None,
            Self::Proving(proving) => Some(proving.next_at.min(proving.until)),
            Self::Xdp { reproof_at, .. } => Some(reproof_at),
            Self::Reproving(doubt) => Some(doubt.next_at),
            Self::Tc { retry_at } | Self::Socket { retry_at } => retry_at,
            Self::Refused { retry_at } => Some(retry_at),
        }
    }
}

#[cfg(test)]
mod tests;
