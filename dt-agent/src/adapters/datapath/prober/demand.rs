//! Whether any peer needs the way through sockets. Pure.

use dt_common::time::MonoNanos;

use super::Path;

/// How many peers are probed through sockets, and since when none is.
#[derive(Debug)]
pub(super) struct Demand {
    peers: usize,
    /// How long replies may still come after the last peer left, ns.
    linger_ns: u64,
    unused_since: Option<MonoNanos>,
    /// Not before, because it failed.
    retry_at: Option<MonoNanos>,
}

/// What to do about the way through sockets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Advice {
    Open,
    Close,
    Keep,
}

impl Demand {
    pub(super) const fn new(linger_ns: u64) -> Self {
        Self {
            peers: 0,
            linger_ns,
            unused_since: None,
            retry_at: None,
        }
    }

    /// A peer that went one way goes another; `None` stands for a peer that comes or leaves.
    pub(super) fn handle_way(&mut self, from: Option<Path>, to: Option<Path>, now: MonoNanos) {
        if from == Some(Path::Socket) {
            self.peers = self.peers.saturating_sub(1);
        }
        if to == Some(Path::Socket) {
            self.peers += 1;
        }
        self.unused_since = match self.unused_since {
            _ if self.peers > 0 => None,
            None => Some(now),
            since => since,
        };
    }

    /// The way could not be opened: not again at every tick.
    pub(super) fn handle_failure(&mut self, now: MonoNanos) {
        self.retry_at = Some(now.plus(RETRY_NS));
    }

    /// What to do while the way is open or not.
    pub(super) fn advise(&mut self, is_open: bool, now: MonoNanos) -> Advice {
        let may_open = self.retry_at.is_none_or(|at| at <= now);
        let is_idle = || {
            self.unused_since
                .is_none_or(|since| now.since(since) > self.linger_ns)
        };
        match (is_open, self.peers) {
            (false, 1..) if may_open => Advice::Open,
            (true, 0) if is_idle() => Advice::Close,
            _ => Advice::Keep,
        }
    }
}

const RETRY_NS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: u64 = 1_200;

    fn at(ns: u64) -> MonoNanos {
        MonoNanos(ns)
    }

    #[test]
    fn it_is_open_from_the_first_peer_to_the_last_reply_of_the_last_one() {
        let mut demand = Demand::new(LINGER);
        demand.handle_way(None, Some(Path::Kernel), at(0));
        assert_eq!(demand.advise(false, at(0)), Advice::Keep);
        demand.handle_way(None, Some(Path::Socket), at(10));
        demand.handle_way(Some(Path::Kernel), Some(Path::Socket), at(20));
        assert_eq!(demand.advise(false, at(20)), Advice::Open);
        demand.handle_way(Some(Path::Socket), None, at(30));
        assert_eq!(demand.advise(true, at(10_000)), Advice::Keep);
        demand.handle_way(Some(Path::Socket), Some(Path::Kernel), at(10_000));
        // What others do meanwhile prolongs nothing.
        demand.handle_way(None, Some(Path::Kernel), at(10_500));
        assert_eq!(demand.advise(true, at(10_000 + LINGER)), Advice::Keep);
        assert_eq!(demand.advise(true, at(10_001 + LINGER)), Advice::Close);
        assert_eq!(demand.advise(false, at(20_000)), Advice::Keep);
    }

    #[test]
    fn who_comes_back_in_time_finds_it_open() {
        let mut demand = Demand::new(LINGER);
        demand.handle_way(None, Some(Path::Socket), at(0));
        demand.handle_way(Some(Path::Socket), Some(Path::Kernel), at(1_000));
        demand.handle_way(Some(Path::Kernel), Some(Path::Socket), at(2_000));
        assert_eq!(demand.advise(true, at(9_000)), Advice::Keep);
    }

    #[test]
    fn after_a_failure_it_is_tried_again_a_second_later() {
        let mut demand = Demand::new(LINGER);
        demand.handle_way(None, Some(Path::Socket), at(0));
        demand.handle_failure(at(0));
        assert_eq!(demand.advise(false, at(RETRY_NS - 1)), Advice::Keep);
        assert_eq!(demand.advise(false, at(RETRY_NS)), Advice::Open);
    }
}
