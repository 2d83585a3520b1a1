//! The source port that changes: which one is next, and when.
//!
//! Routers choose among paths of equal cost by a hash of addresses and ports. A few ports that stay see the same few paths all
//! the time, so that a change there is a change of the path; one that goes through many ports gets around to all of them.

use dt_common::time::MonoNanos;

use super::random::Random;

/// Ports, of which one is in use at a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RotatingPorts {
    /// The first; 0 where somebody else chooses.
    pub first: u16,
    /// How many there are; none of them is above 65,535.
    pub count: u16,
    /// How long each is in use, ns.
    pub every_ns: u64,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rotation {
    ports: RotatingPorts,
    place: u16,
    due_at: MonoNanos,
}

impl Rotation {
    /// Begins anywhere, and changes for the first time at any moment of an interval: agents that start together do not go round
    /// together.
    #[must_use]
    pub fn new(ports: RotatingPorts, random: &mut Random, now: MonoNanos) -> Self {
        Self {
            ports,
            place: random.below(u64::from(ports.count.max(1))) as u16,
            due_at: now.plus(random.below(ports.every_ns.max(1))),
        }
    }

    /// The same for ports that somebody else chooses.
    #[must_use]
    pub fn anywhere(self) -> Self {
        let ports = RotatingPorts {
            first: 0,
            count: 1,
            ..self.ports
        };
        Self {
            ports,
            place: 0,
            ..self
        }
    }

    /// The same with this port in use, however long that is to last.
    #[must_use]
    pub fn with_first(mut self, port: u16) -> Self {
        self.advance(port);
        self
    }

    /// The ports to try, the best first: that whose turn it is, then those behind it, round and round. The last one is the one
    /// in use, which cannot be had again.
    pub fn candidates(&self) -> impl Iterator<Item = u16> + use<> {
        let (ports, place) = (self.ports, self.place);
        (0..ports.count).map(move |step| ports.at(u32::from(place) + u32::from(step)))
    }

    /// Whether the port is to be changed.
    #[must_use]
    pub fn is_due(&self, now: MonoNanos) -> bool {
        now >= self.due_at
    }

    /// This port is in use from now on. Its turn ends an interval after the one before should have ended, or from now if that
    /// is past.
    pub fn handle_opened(&mut self, port: u16, now: MonoNanos) {
        self.advance(port);
        self.wait(now);
    }

    /// None could be had: the one in use stays for another interval.
    pub fn handle_failed(&mut self, now: MonoNanos) {
        self.wait(now);
    }

    fn advance(&mut self, port: u16) {
        let used = port.saturating_sub(self.ports.first);
        self.place = used.saturating_add(1) % self.ports.count.max(1);
    }

    fn wait(&mut self, now: MonoNanos) {
        if now < self.due_at {
            return;
        }
        self.due_at = self.due_at.plus(self.ports.every_ns);
        if self.due_at <= now {
            self.due_at = now.plus(self.ports.every_ns);
        }
    }
}

impl RotatingPorts {
    fn at(self, place: u32) -> u16 {
        let place = place % u32::from(self.count.max(1));
        self.first.saturating_add(place as u16)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const MINUTE: u64 = 60_000_000_000;
    const PORTS: RotatingPorts = RotatingPorts {
        first: 61_004,
        count: 12,
        every_ns: MINUTE,
    };

    fn rotation(seed: u64) -> Rotation {
        Rotation::new(PORTS, &mut Random::new(seed), MonoNanos(0))
    }

    #[test]
    fn all_ports_have_their_turn_before_one_comes_again() {
        let mut rotation = rotation(3);
        let mut used = Vec::new();
        for minute in 0..24 {
            let port = rotation.candidates().next().expect("one");
            rotation.handle_opened(port, MonoNanos(minute * MINUTE));
            used.push(port);
        }
        let all: BTreeSet<_> = (61_004..61_016).collect();
        assert_eq!(used[..12].iter().copied().collect::<BTreeSet<_>>(), all);
        assert_eq!(used[..12], used[12..]);
    }

    #[test]
    fn one_that_is_taken_is_passed_over_and_the_one_in_use_comes_last() {
        let mut rotation = rotation(3);
        let first = rotation.candidates().next().expect("one");
        rotation.handle_opened(first, MonoNanos(0));
        let candidates: Vec<_> = rotation.candidates().collect();
        assert_eq!((candidates.len(), candidates[11]), (12, first));
        let third = candidates[2];
        rotation.handle_opened(third, MonoNanos(0));
        assert_eq!(rotation.candidates().next(), Some(candidates[3]));
    }

    #[test]
    fn each_is_in_use_for_an_interval_and_a_stall_is_not_made_up() {
        let mut rotation = rotation(5);
        let due = rotation.due_at;
        assert!(due.0 < MINUTE);
        assert!(!rotation.is_due(MonoNanos(due.0 - 1)) && rotation.is_due(due));
        rotation.handle_opened(61_004, due.plus(1_000));
        assert_eq!(rotation.due_at, due.plus(MINUTE));
        let late = due.plus(10 * MINUTE);
        rotation.handle_failed(late);
        assert_eq!(rotation.due_at, late.plus(MINUTE));
    }

    #[test]
    fn agents_begin_at_different_ports_and_times() {
        let starts: BTreeSet<_> = (0..40)
            .map(|seed| {
                let rotation = rotation(seed);
                (rotation.candidates().next(), rotation.due_at)
            })
            .collect();
        assert!(starts.len() > 35, "{starts:?}");
        let ports: BTreeSet<_> = starts.iter().map(|(port, _)| port).collect();
        assert!(ports.len() > 6, "{ports:?}");
    }

    #[test]
    fn where_the_kernel_chooses_it_chooses_each_time() {
        let rotation = rotation(1).anywhere();
        assert_eq!(rotation.candidates().collect::<Vec<_>>(), [0]);
    }
}
