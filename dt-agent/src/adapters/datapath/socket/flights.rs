//! Which transmit stamp belongs to which probe of one socket. Pure.
//!
//! The kernel numbers stamps, not probes. Both tables are of fixed size: a probe that was pushed out has lost its kernel
//! stamp and is measured by the one of user space, which says so.

use dt_common::time::MonoNanos;

/// A probe that was handed to the kernel.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Flight {
    pub ssid: u16,
    pub seq: u32,
    /// When user space handed it over.
    pub handed_over: MonoNanos,
    /// Generation of the clock offset at that time.
    pub generation: u32,
    /// When the kernel gave it to the driver.
    pub left: Option<MonoNanos>,
}

/// The latest probes of one socket.
#[derive(Debug)]
pub(super) struct Flights {
    /// Number of the next stamp.
    next: u32,
    by_number: Box<[(u32, u16, u32)]>,
    by_probe: Box<[Flight]>,
}

impl Flights {
    pub(super) fn new() -> Self {
        Self {
            next: 0,
            by_number: vec![(u32::MAX, 0, 0); SLOTS].into_boxed_slice(),
            by_probe: vec![Flight::default(); SLOTS].into_boxed_slice(),
        }
    }

    /// Forgets the numbers, which start from zero again; stamps that are already there stay.
    pub(super) fn restart(&mut self) {
        self.next = 0;
        self.by_number.fill((u32::MAX, 0, 0));
    }

    /// Registers the next probe, before it is handed to the kernel.
    pub(super) fn handle_sent(&mut self, flight: Flight) {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.by_number[number as usize % SLOTS] = (number, flight.ssid, flight.seq);
        self.by_probe[slot(flight.ssid, flight.seq)] = flight;
    }

    /// Takes back the numbers of the last `count` probes: they are given to those that come next.
    pub(super) fn take_back(&mut self, count: u32) {
        self.next = self.next.wrapping_sub(count);
    }

    /// Takes the kernel's stamp of the probe with this number, if it is credible.
    ///
    /// `generation` is that of the offset by which the stamp was converted: another one than when the probe was handed
    /// over means that the clock was stepped in between and the conversion says nothing.
    pub(super) fn handle_stamp(&mut self, number: u32, left: MonoNanos, generation: u32) {
        let (held, ssid, seq) = self.by_number[number as usize % SLOTS];
        let flight = &mut self.by_probe[slot(ssid, seq)];
        let same = held == number && (flight.ssid, flight.seq) == (ssid, seq);
        // A stamp from before the numbers restarted is older than the probe that now has its number.
        let credible = left.plus(SLACK_NS) >= flight.handed_over && generation == flight.generation;
        if same && credible {
            flight.left = Some(left);
        }
    }

    /// The probe, if it is still known.
    pub(super) fn find(&self, ssid: u16, seq: u32) -> Option<Flight> {
        let flight = self.by_probe[slot(ssid, seq)];
        ((flight.ssid, flight.seq) == (ssid, seq)).then_some(flight)
    }
}

/// Multiplication by 2^32 over the golden ratio spreads neighbouring numbers over the table.
const fn slot(ssid: u16, seq: u32) -> usize {
    let mixed = seq ^ ((ssid as u32) << 16) ^ (ssid as u32);
    (mixed.wrapping_mul(0x9e37_79b9) >> (u32::BITS - SLOT_BITS)) as usize
}

/// A tenth of a second at the highest rate of a single socket.
const SLOT_BITS: u32 = 12;
const SLOTS: usize = 1 << SLOT_BITS;

/// By how much the conversion from the wall clock may be off.
const SLACK_NS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flight(seq: u32, at: u64) -> Flight {
        Flight {
            ssid: 7,
            seq,
            handed_over: MonoNanos(at),
            generation: 2,
            left: None,
        }
    }

    #[test]
    fn stamps_are_numbered_in_the_order_of_sending() {
        let mut flights = Flights::new();
        for seq in 100..110 {
            flights.handle_sent(flight(seq, 5_000));
        }
        flights.handle_stamp(3, MonoNanos(6_000), 2);
        assert_eq!(
            flights.find(7, 103).and_then(|flight| flight.left),
            Some(MonoNanos(6_000))
        );
        assert_eq!(flights.find(7, 104).and_then(|flight| flight.left), None);
        assert_eq!(flights.find(7, 110), None);
    }

    #[test]
    fn a_stamp_from_before_a_restart_is_not_believed() {
        let mut flights = Flights::new();
        flights.handle_sent(flight(1, 5_000));
        flights.restart();
        flights.handle_stamp(0, MonoNanos(5_500), 2);
        assert_eq!(flights.find(7, 1).and_then(|flight| flight.left), None);
        flights.handle_sent(flight(2, 9_000));
        flights.handle_stamp(0, MonoNanos(5_500), 2);
        assert_eq!(flights.find(7, 2).and_then(|flight| flight.left), None);
    }

    #[test]
    fn a_stamp_across_a_step_of_the_clock_is_not_believed() {
        let mut flights = Flights::new();
        flights.handle_sent(flight(1, 5_000));
        flights.handle_stamp(0, MonoNanos(6_000), 4);
        assert_eq!(flights.find(7, 1).and_then(|flight| flight.left), None);
    }

    proptest! {
        #[test]
        fn no_number_that_the_kernel_may_report_does_harm(numbers: Vec<u32>, seqs: Vec<u32>) {
            let mut flights = Flights::new();
            for seq in &seqs {
                flights.handle_sent(flight(*seq, 5_000));
            }
            for number in numbers {
                flights.handle_stamp(number, MonoNanos(6_000), 2);
            }
            for seq in seqs {
                let found = flights.find(7, seq);
                prop_assert!(found.is_none_or(|flight| flight.seq == seq));
            }
        }
    }
}
