//! Which form of probes a host answers, found out by asking. Pure.
//!
//! Our TLV is a legal private one that reflectors of others echo (RFC 8972 section 4), so it is tried first. A reflector
//! that cannot cope with TLVs at all gets plain packets of 44 bytes (RFC 8762) once some probes went unanswered. Until the
//! first answer probes are few, whatever the interval, so that a fast `ping` does not spend itself on the wrong form.

/// How probes to a host look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// With our TLV.
    Tlv,
    /// 44 bytes.
    Plain,
}

/// Who answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Peer {
    /// One of ours: it filled our TLV in.
    Ours,
    /// A reflector that echoed our TLV.
    Echo,
    /// A reflector that got, or returned, no TLV.
    Plain,
}

impl Peer {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "distributed-trace",
            Self::Echo => "a STAMP reflector of others",
            Self::Plain => "a STAMP or TWAMP-Light reflector without TLVs",
        }
    }
}

/// What was found out so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inquiry {
    form: Form,
    /// Probes of this form that were sent before any answer.
    asked: u32,
    peer: Option<Peer>,
}

impl Inquiry {
    pub(super) const fn new() -> Self {
        Self {
            form: Form::Tlv,
            asked: 0,
            peer: None,
        }
    }

    pub(super) const fn form(self) -> Form {
        self.form
    }

    pub(super) const fn peer(self) -> Option<Peer> {
        self.peer
    }

    /// Probes that went unanswered in this form, while nothing was answered in any.
    pub(super) const fn unanswered(self) -> u32 {
        self.asked
    }

    pub(super) const fn handle_sent(&mut self) {
        if self.peer.is_none() {
            self.asked += 1;
        }
    }

    /// Takes an answer; true for the first.
    pub(super) fn handle_reply(&mut self, peer: Peer) -> bool {
        let first = self.peer.is_none();
        // Whoever was once known as ours stays so: a copy on the way may lose a TLV, but not add one.
        if self.peer != Some(Peer::Ours) {
            self.peer = Some(peer);
        }
        first
    }

    /// Whether the other form should be tried, now that the time for the last probe's answer is over.
    pub(super) const fn is_exhausted(self) -> bool {
        self.peer.is_none() && self.asked >= PATIENCE
    }

    /// Tries the other form.
    pub(super) const fn turn(&mut self) {
        self.asked = 0;
        self.form = match self.form {
            Form::Tlv => Form::Plain,
            Form::Plain => Form::Tlv,
        };
    }
}

/// Unanswered probes of one form before the other is tried.
pub(super) const PATIENCE: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_turns_the_form_and_the_first_answer_settles_it() {
        let mut inquiry = Inquiry::new();
        for form in [Form::Tlv, Form::Plain, Form::Tlv, Form::Plain] {
            assert_eq!(inquiry.form(), form);
            for _ in 0..PATIENCE {
                assert!(!inquiry.is_exhausted());
                inquiry.handle_sent();
            }
            assert!(inquiry.is_exhausted());
            inquiry.turn();
        }
        inquiry.turn();
        assert!(inquiry.handle_reply(Peer::Plain));
        assert!(!inquiry.handle_reply(Peer::Plain));
        for _ in 0..9 {
            inquiry.handle_sent();
        }
        assert!(!inquiry.is_exhausted());
    }

    #[test]
    fn one_of_ours_is_never_taken_for_another() {
        let mut inquiry = Inquiry::new();
        inquiry.handle_reply(Peer::Echo);
        inquiry.handle_reply(Peer::Ours);
        inquiry.handle_reply(Peer::Plain);
        assert_eq!(inquiry.peer(), Some(Peer::Ours));
    }
}
