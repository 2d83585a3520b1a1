//! What becomes of a packet, and the counter of each reason.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::programs::TcContext;
use dt_common::map::Reason;

use crate::{maps, packet};

/// `TC_ACT_UNSPEC`, which is also `TCX_NEXT`: later programs decide.
pub const TC_NEXT: i32 = -1;
const TC_DROP: i32 = 2;

/// The end of a packet's way through an ingress program.
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Verdict {
    /// Not ours, or left to the stack.
    Untouched,
    /// Consumed, or refused by policy.
    Drop,
    /// Send it back out of the interface it came from.
    Transmit,
}

impl Verdict {
    #[inline(always)]
    pub fn to_xdp(self) -> u32 {
        match self {
            Self::Untouched => XDP_PASS,
            Self::Drop => XDP_DROP,
            Self::Transmit => XDP_TX,
        }
    }

    #[inline(always)]
    pub fn to_tc(self, ctx: &TcContext) -> i32 {
        match self {
            Self::Untouched => TC_NEXT,
            Self::Drop => TC_DROP,
            Self::Transmit => packet::redirect_back(ctx),
        }
    }
}

/// Why a packet of ours was not handled.
#[derive(Clone, Copy)]
pub enum Refusal {
    /// Not for us after all: no counter.
    NotOurs,
    /// Left to the stack.
    Pass(Reason),
    /// Dropped.
    Drop(Reason),
}

impl Refusal {
    #[inline(always)]
    pub fn count(self) -> Verdict {
        match self {
            Self::NotOurs => Verdict::Untouched,
            Self::Pass(reason) => {
                maps::count(reason);
                Verdict::Untouched
            }
            Self::Drop(reason) => {
                maps::count(reason);
                Verdict::Drop
            }
        }
    }
}
