//! What the ladder is told, and what it orders.

use super::Mode;

/// Something that happened on the interface of a ladder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Input {
    /// Answer to [`Command::AttachTc`]: both tc programs are attached.
    TcAttached,
    /// Answer to [`Command::AttachTc`]: they cannot be.
    TcRefused(Refusal),
    /// Answer to [`Command::AttachXdp`]: the XDP program is attached.
    XdpAttached,
    /// Answer to [`Command::AttachXdp`]: it cannot be.
    XdpRefused(Refusal),
    /// What became of a try to prove XDP. No verdict at all counts as [`Verdict::Unanswered`].
    Proof {
        /// The round of [`Command::StartProof`].
        round: u32,
        /// What came back.
        verdict: Verdict,
    },
    /// All peers behind this interface fell silent.
    PeersSilent,
    /// A program of somebody else's left the XDP slot.
    ForeignGone,
    /// The interface vanished, and with it all that was attached.
    InterfaceGone,
    /// The interface is there again.
    InterfaceBack,
}

/// Why a program could not be attached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// Which kind of obstacle it is.
    pub kind: RefusalKind,
    /// The obstacle in words, such as `program 17 holds the slot`.
    pub text: String,
}

/// Kinds of obstacles.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RefusalKind {
    /// A program of somebody else's is there; it is never replaced.
    Foreign,
    /// This process may not.
    Permission,
    /// Driver, MTU or kernel do not offer it.
    Unsupported,
    /// The interface is not there.
    NoInterface,
    /// Anything else.
    Other,
}

/// What became of sending a neighbour's answer back to it as a question by `XDP_TX`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The neighbour answered that too: what XDP sends reaches the wire.
    Proved,
    /// The neighbour's first answer came and was sent back, and no second one came: XDP does not reach the wire.
    Unreturned,
    /// No neighbour gave even a first answer: this says nothing about XDP.
    Unanswered,
}

/// What is to be done on the interface of a ladder. All of them are harmless when they are done already.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Command {
    /// Attach tc egress and tc ingress; answered by an input.
    AttachTc,
    /// Attach native XDP, never replacing somebody else's program; answered by an input.
    AttachXdp,
    /// Take our XDP program off.
    DetachXdp,
    /// Ask a neighbour something and let XDP send the answer back, under this number; answered by an input.
    StartProof {
        /// Greater than all before.
        round: u32,
    },
    /// Leave neighbours' answers alone again.
    EndProof,
    /// Stamp, answer and collect this way from now on.
    Use {
        /// The rung; none: not at all.
        mode: Option<Mode>,
        /// Why, in one line for operators.
        reason: String,
    },
}
