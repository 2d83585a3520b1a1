//! Why a rung is used, in one line for operators.

use super::{Mode, Refusal, Verdict};

pub(super) const ASKED_FOR_SOCKET: &str = "mode socket was asked for";
pub(super) const ASKED_FOR_TC: &str = "mode tc was asked for";
pub(super) const UNPROVED: &str = "xdp is not proved yet";
pub(super) const PROVED: &str = "a neighbour answered what xdp sent";
pub(super) const GONE: &str = "the interface is gone";

pub(super) fn tc_refused(refusal: &Refusal) -> String {
    format!(
        "tc cannot be attached, and xdp needs it for the send time: {}",
        refusal.text
    )
}

pub(super) fn xdp_refused(refusal: &Refusal) -> String {
    format!("xdp cannot be attached: {}", refusal.text)
}

/// For the end of a first period in which nothing was proved.
pub(super) fn not_proved(tries: u32, last: Verdict) -> String {
    match last {
        Verdict::Unreturned => format!(
            "xdp is attached, but what it sends does not reach the wire ({tries} tries); on a veth the other end needs \
             an xdp program too"
        ),
        Verdict::Unanswered | Verdict::Proved => {
            format!("xdp is attached, but no neighbour answered to prove it with ({tries} tries)")
        }
    }
}

/// For a proof that held and holds no more.
pub(super) fn proof_lost(failures: u32) -> String {
    format!("what xdp sends does not reach the wire any more ({failures} tries in a row)")
}

/// For an operator who asked for a mode that cannot be had.
pub(super) fn refused(mode: Mode, reason: &str) -> String {
    format!("mode {mode} was asked for and cannot be had: {reason}")
}
