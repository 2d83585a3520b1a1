//! The transitions of the ladder, each from what happened to the next state, with the orders it takes.

use dt_common::time::MonoNanos;

use super::{
    Command, Doubt, Ladder, Mode, ModeRequest, Proving, Refusal, RefusalKind, State, Step, Verdict,
    words,
};

impl Ladder {
    pub(super) fn begin(&mut self, now: MonoNanos) -> State {
        match self.settings.request {
            ModeRequest::Auto | ModeRequest::Only(Mode::Xdp) => self.attach_tc(),
            ModeRequest::Only(Mode::Tc) => {
                // An agent before us may have left it there.
                self.commands.push_back(Command::DetachXdp);
                self.attach_tc()
            }
            ModeRequest::Only(Mode::Socket) => {
                self.settle(Some(Mode::Socket), words::ASKED_FOR_SOCKET.to_owned(), now);
                State::Socket { retry_at: None }
            }
        }
    }

    pub(super) fn attach_tc(&mut self) -> State {
        self.commands.push_back(Command::AttachTc);
        State::AttachingTc
    }

    pub(super) fn use_tc(&mut self, now: MonoNanos) -> State {
        if self.settings.request == ModeRequest::Only(Mode::Tc) {
            self.settle(Some(Mode::Tc), words::ASKED_FOR_TC.to_owned(), now);
            return State::Tc { retry_at: None };
        }
        // Who asked for xdp and was told that it cannot be had is not given tc at each new try.
        if self.settings.request == ModeRequest::Auto || !self.settled {
            self.use_mode(Some(Mode::Tc), words::UNPROVED.to_owned(), now);
        }
        self.climb(now)
    }

    pub(super) fn do_without_tc(&mut self, refusal: &Refusal, now: MonoNanos) -> State {
        if refusal.kind == RefusalKind::NoInterface {
            return self.vanish(now);
        }
        let reason = words::tc_refused(refusal);
        let retry_at = self.back_off(now);
        match self.settings.request {
            ModeRequest::Auto => {
                self.settle(Some(Mode::Socket), reason, now);
                State::Socket {
                    retry_at: Some(retry_at),
                }
            }
            ModeRequest::Only(mode) => {
                self.settle(None, words::refused(mode, &reason), now);
                State::Refused { retry_at }
            }
        }
    }

    pub(super) fn climb(&mut self, now: MonoNanos) -> State {
        if self.xdp_attached {
            return self.prove(now);
        }
        self.foreign = false;
        self.commands.push_back(Command::AttachXdp);
        State::AttachingXdp
    }

    pub(super) fn do_without_xdp(&mut self, refusal: &Refusal, now: MonoNanos) -> State {
        if refusal.kind == RefusalKind::NoInterface {
            return self.vanish(now);
        }
        self.foreign = refusal.kind == RefusalKind::Foreign;
        self.fall(words::xdp_refused(refusal), now)
    }

    pub(super) fn prove(&mut self, now: MonoNanos) -> State {
        self.xdp_attached = true;
        let next_at = self.start_try(Self::TRY_NS, now);
        let until = now.plus(Self::FIRST_PERIOD_NS);
        State::Proving(Proving {
            tries: 1,
            last: Verdict::Unanswered,
            next_at,
            until,
        })
    }

    pub(super) fn judge_first(
        &mut self,
        proving: Proving,
        verdict: Verdict,
        now: MonoNanos,
    ) -> State {
        if verdict != Verdict::Proved {
            return State::Proving(Proving {
                last: verdict,
                ..proving
            });
        }
        self.detach_at = None;
        self.settle(Some(Mode::Xdp), words::PROVED.to_owned(), now);
        self.hold_xdp(now)
    }

    pub(super) fn try_again(&mut self, proving: Proving, now: MonoNanos) -> State {
        let next_at = self.start_try(Self::TRY_NS, now);
        State::Proving(Proving {
            tries: proving.tries + 1,
            next_at,
            ..proving
        })
    }

    pub(super) fn end_first_period(&mut self, proving: Proving, now: MonoNanos) -> State {
        self.commands.push_back(Command::EndProof);
        self.fall(words::not_proved(proving.tries, proving.last), now)
    }

    pub(super) fn hold_xdp(&mut self, now: MonoNanos) -> State {
        self.commands.push_back(Command::EndProof);
        State::Xdp {
            reproof_at: now.plus(self.jittered(Self::REPROOF_NS)),
            proved_at: now,
        }
    }

    /// Repeats the proof at once, unless it has only just been repeated.
    pub(super) fn hurry(&mut self, proved_at: MonoNanos, now: MonoNanos) -> State {
        let earliest = proved_at.plus(Self::REPROOF_TRY_NS);
        if earliest <= now {
            self.doubt(0, now)
        } else {
            State::Xdp {
                reproof_at: earliest,
                proved_at,
            }
        }
    }

    pub(super) fn doubt(&mut self, failures: u32, now: MonoNanos) -> State {
        let next_at = self.start_try(Self::REPROOF_TRY_NS, now);
        State::Reproving(Doubt {
            failures,
            unreturned: false,
            next_at,
        })
    }

    pub(super) fn judge_again(&mut self, doubt: Doubt, verdict: Verdict, now: MonoNanos) -> State {
        match verdict {
            Verdict::Proved => {
                // Only now: a proof that holds for a moment again and again must not reset the back-off each time.
                self.falls = 0;
                self.hold_xdp(now)
            }
            // Nobody to ask: no reason to believe the less in it.
            Verdict::Unanswered => self.hold_xdp(now),
            // The same try once more.
            Verdict::Unreturned if doubt.unreturned => State::Reproving(doubt),
            Verdict::Unreturned if doubt.failures + 1 < Self::REPROOF_FAILURES => {
                State::Reproving(Doubt {
                    failures: doubt.failures + 1,
                    unreturned: true,
                    ..doubt
                })
            }
            Verdict::Unreturned => {
                self.commands.push_back(Command::EndProof);
                self.fall(words::proof_lost(Self::REPROOF_FAILURES), now)
            }
        }
    }

    /// XDP cannot be had, or not any more.
    fn fall(&mut self, reason: String, now: MonoNanos) -> State {
        let retry_at = self.back_off(now);
        if self.settings.detach_unproved && self.xdp_attached {
            let at = *self.detach_at.get_or_insert(now.plus(Self::LINGER_NS));
            if at <= now {
                self.detach();
            }
        }
        match self.settings.request {
            ModeRequest::Auto => {
                self.settle(Some(Mode::Tc), reason, now);
                State::Tc {
                    retry_at: Some(retry_at),
                }
            }
            ModeRequest::Only(mode) => {
                self.settle(None, words::refused(mode, &reason), now);
                State::Refused { retry_at }
            }
        }
    }

    pub(super) fn vanish(&mut self, now: MonoNanos) -> State {
        // What was ordered for the old interface must not reach the new one.
        self.commands.clear();
        self.xdp_attached = false;
        self.foreign = false;
        self.detach_at = None;
        self.falls = 0;
        self.use_mode(None, words::GONE.to_owned(), now);
        self.settled = false;
        State::Absent
    }

    /// An unproved program comes off only while nothing is being tried with it.
    pub(super) fn detaches_at(&self) -> Option<MonoNanos> {
        let idle = matches!(self.state, State::Tc { .. } | State::Refused { .. });
        self.detach_at.filter(|_| idle && self.xdp_attached)
    }

    pub(super) fn detach(&mut self) {
        self.xdp_attached = false;
        self.commands.push_back(Command::DetachXdp);
    }

    fn start_try(&mut self, span_ns: u64, now: MonoNanos) -> MonoNanos {
        self.round += 1;
        self.commands
            .push_back(Command::StartProof { round: self.round });
        now.plus(span_ns)
    }

    fn settle(&mut self, mode: Option<Mode>, reason: String, now: MonoNanos) {
        self.settled = true;
        self.use_mode(mode, reason, now);
    }

    fn use_mode(&mut self, mode: Option<Mode>, reason: String, now: MonoNanos) {
        if self
            .history
            .back()
            .is_some_and(|last| last.mode == mode && last.reason == reason)
        {
            return;
        }
        self.mode = mode;
        self.commands.push_back(Command::Use {
            mode,
            reason: reason.clone(),
        });
        if self.history.len() == Self::HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(Step {
            at: now,
            mode,
            reason,
        });
    }

    fn back_off(&mut self, now: MonoNanos) -> MonoNanos {
        let span = Self::BACK_OFF_NS << self.falls.min(MOST_DOUBLINGS);
        self.falls = self.falls.saturating_add(1);
        now.plus(self.jittered(span.min(Self::LONGEST_BACK_OFF_NS)))
    }

    fn jittered(&mut self, span_ns: u64) -> u64 {
        let reach = span_ns / 10;
        span_ns - reach + self.random.below(2 * reach + 1)
    }
}

/// Enough to exceed [`Ladder::LONGEST_BACK_OFF_NS`], too few to overflow.
const MOST_DOUBLINGS: u32 = 16;
