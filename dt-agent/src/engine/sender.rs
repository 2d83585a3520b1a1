//! Who makes the packets of probes, and which probes may be made in the kernel. Pure.

use dt_common::time::MonoNanos;

/// When probes are made in the kernel.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Sender {
    /// Where enough leave together to gain by it.
    #[default]
    Auto,
    /// Never: all go through sockets.
    Sockets,
    /// Wherever it can be done.
    Kernel,
}

impl Sender {
    /// How many probes must leave together; none where no number will do.
    ///
    /// Having one packet worked on costs about as much as two probes through a socket
    /// (`docs/adr/0020-probes-made-in-the-kernel.md`).
    #[must_use]
    pub const fn least(self) -> Option<usize> {
        match self {
            Self::Auto => Some(4),
            Self::Sockets => None,
            Self::Kernel => Some(1),
        }
    }
}

/// Whether a peer's next probes may be made in the kernel.
///
/// They go the way that an earlier probe through a socket went, up to ten seconds before, and the network may have changed
/// since: another gateway, a neighbour's new address. So they are only made as long as replies keep coming: a peer that fell
/// silent is probed through sockets, as whoever talks to it would find it.
#[must_use]
pub fn may_be_made(answered: Option<MonoNanos>, now: MonoNanos, interval_ns: u64) -> bool {
    let patience_ns = (interval_ns.saturating_mul(5) / 2).saturating_add(SLACK_NS);
    answered.is_some_and(|at| now.since(at) <= patience_ns)
}

/// Round trips, and ticks that come late.
const SLACK_NS: u64 = 200_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_fell_silent_is_probed_through_sockets() {
        let at = |ms: u64| MonoNanos(ms * 1_000_000);
        for (answered, now, interval_ms, expected) in [
            (None, 0, 10, false),
            (Some(1_000), 1_000, 10, true),
            (Some(1_000), 1_225, 10, true),
            (Some(1_000), 1_226, 10, false),
            (Some(1_000), 3_700, 1_000, true),
            (Some(1_000), 3_701, 1_000, false),
            // The clock of the reply may be a little ahead.
            (Some(1_001), 1_000, 10, true),
        ] {
            let is = may_be_made(answered.map(at), at(now), interval_ms * 1_000_000);
            assert_eq!(is, expected, "{answered:?} {now} {interval_ms}");
        }
    }
}
