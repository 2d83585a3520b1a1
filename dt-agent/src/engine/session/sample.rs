//! What the four time stamps of one reply say, if they may be believed.

use dt_common::event::{EventFlags, ReplyEvent};
use dt_common::time::{ErrorEstimate, NtpTime, PtpTime};

use crate::engine::window::OneWay;

/// The times of one reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reading {
    /// All four stamps are good.
    Measured(Sample),
    /// A clock was set between two of them.
    Straddled,
    /// They contradict each other or are absurd.
    Implausible,
}

/// Times that may be believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Sample {
    /// (T4 - T1) - (T3 - T2), ns.
    pub rtt_ns: u64,
    /// T3 - T2, ns.
    pub residence_ns: u64,
    /// One-way delays; absent when the peer's clock counts on another timescale.
    pub one_way: Option<OneWay>,
}

impl Reading {
    /// Reads the stamps of a reply that arrived `waited_ns` of this host's monotonic time after its probe was handed over.
    pub fn of(event: &ReplyEvent, waited_ns: u64) -> Self {
        let (t1, t4) = (NtpTime(event.t1), NtpTime(event.t4));
        let away_ns = t4.since(t1);
        if straddles(event) || outlasts(event, away_ns, waited_ns) {
            return Self::Straddled;
        }
        let ptp = ErrorEstimate(event.error_estimate).is_ptp();
        let residence_ns = if ptp {
            PtpTime(event.t3).since(PtpTime(event.t2))
        } else {
            NtpTime(event.t3).since(NtpTime(event.t2))
        };
        let (Some(residence), Some(rtt_ns)) = (
            u64::try_from(residence_ns).ok(),
            plausible_rtt(away_ns - residence_ns),
        ) else {
            return Self::Implausible;
        };
        Self::Measured(Sample {
            rtt_ns,
            residence_ns: residence,
            one_way: (!ptp).then(|| OneWay {
                forward_ns: NtpTime(event.t2).since(t1),
                return_ns: t4.since(NtpTime(event.t3)),
            }),
        })
    }

    /// How long the probe was away by its own stamps, ns.
    pub const fn away_ns(self) -> Option<u64> {
        match self {
            Self::Measured(sample) => Some(sample.rtt_ns.saturating_add(sample.residence_ns)),
            Self::Straddled | Self::Implausible => None,
        }
    }
}

/// A generation is odd while its offset changes, and T1 and T4 must be of one generation.
const fn straddles(event: &ReplyEvent) -> bool {
    let odd = (event.sender_generation | event.local_generation | event.reflector_generation) & 1;
    odd != 0 || event.sender_generation != event.local_generation
}

/// Without our TLV no generation travels. But a probe cannot be away for longer than was waited for it.
const fn outlasts(event: &ReplyEvent, away_ns: i64, waited_ns: u64) -> bool {
    event.flags & EventFlags::TLV == 0
        && away_ns > 0
        && away_ns.unsigned_abs() > waited_ns.saturating_add(SLEW_NS)
}

fn plausible_rtt(rtt_ns: i64) -> Option<u64> {
    (-ROUNDING_NS..MAX_RTT_NS)
        .contains(&rtt_ns)
        .then(|| rtt_ns.max(0).unsigned_abs())
}

/// Two clocks that tick differently may make a very short round trip negative by this much.
const ROUNDING_NS: i64 = 1_000;
/// No network holds a packet this long; more is a broken stamp.
const MAX_RTT_NS: i64 = 10_000_000_000;
/// What an adjusted wall clock may gain on the monotonic one within a deadline (500 ppm).
const SLEW_NS: u64 = 1_000_000;
