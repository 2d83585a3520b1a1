//! From readings of the wall clock to offsets and their generations. Pure.

use std::collections::VecDeque;

use dt_common::time::ErrorEstimate;

use super::ClockState;

/// One measurement of the wall clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reading {
    /// Nanoseconds since 1900 on the wall clock less nanoseconds on the monotonic clock.
    pub offset_ns: u64,
    /// How far the measured offset may be from the true one, by the way it was measured.
    pub uncertainty_ns: u64,
    /// How far the wall clock may be from UTC.
    pub bound_ns: u64,
    /// Whether something keeps it synchronised.
    pub synchronised: bool,
}

/// Tells steps of the wall clock from noise in measuring it.
///
/// ```text
///   reading near the offset:  generation stays, offset stays exactly as it was
///   reading elsewhere:        (2n, old) -> (2n+1, old) -> (2n+1, new) -> (2n+2, new)
/// ```
///
/// Each state that [`Self::poll_state`] hands out is to be published before the next: whoever sees an odd generation, or
/// two different ones around a sample, knows that the offset was not one thing throughout. Offset and generation need
/// therefore not be written in one atomic step.
#[derive(Clone, Debug)]
pub struct ClockTracker {
    state: ClockState,
    unpublished: VecDeque<ClockState>,
}

impl ClockTracker {
    /// Starts from a first reading.
    #[must_use]
    pub fn new(first: &Reading) -> Self {
        let state = ClockState {
            offset_ns: first.offset_ns,
            generation: FIRST_GENERATION,
            error_estimate: estimate(first),
        };
        Self {
            state,
            unpublished: VecDeque::from([state]),
        }
    }

    /// Goes on from what an earlier agent had published, so that its probes in flight are judged rightly.
    #[must_use]
    pub fn resume(published: ClockState, first: &Reading) -> Self {
        let mut tracker = Self {
            // The earlier agent may have died in the middle of a step.
            state: ClockState {
                generation: published.generation & !1,
                ..published
            },
            unpublished: VecDeque::new(),
        };
        if published.is_changing() {
            tracker.step(first);
        } else {
            tracker.handle_reading(first);
        }
        tracker
    }

    /// The state once everything polled is published.
    #[must_use]
    pub const fn state(&self) -> ClockState {
        self.state
    }

    /// Takes one reading.
    pub fn handle_reading(&mut self, reading: &Reading) {
        let moved = (reading.offset_ns.wrapping_sub(self.state.offset_ns) as i64).unsigned_abs();
        if moved > reading.uncertainty_ns.saturating_add(STEP_NS) {
            self.step(reading);
            return;
        }
        let error_estimate = estimate(reading);
        if error_estimate != self.state.error_estimate {
            self.publish(ClockState {
                error_estimate,
                ..self.state
            });
        }
    }

    /// The next state to publish.
    pub fn poll_state(&mut self) -> Option<ClockState> {
        self.unpublished.pop_front()
    }

    fn step(&mut self, reading: &Reading) {
        let changing = self.state.generation.wrapping_add(1);
        self.publish(ClockState {
            generation: changing,
            ..self.state
        });
        self.publish(ClockState {
            offset_ns: reading.offset_ns,
            generation: changing,
            error_estimate: estimate(reading),
        });
        self.publish(ClockState {
            generation: changing.wrapping_add(1),
            ..self.state
        });
    }

    fn publish(&mut self, state: ClockState) {
        self.state = state;
        // A caller that never polls must not make this grow; the latest states are those that matter.
        if self.unpublished.len() == MAX_UNPUBLISHED {
            self.unpublished.pop_front();
        }
        self.unpublished.push_back(state);
    }
}

/// Zero stands for "no clock was ever published".
const FIRST_GENERATION: u32 = 2;

/// A difference of this size between two readings is no longer put down to measuring. Steps that are smaller change a
/// one-way delay by less than the best clock's error bound.
const STEP_NS: u64 = 1_000;

const MAX_UNPUBLISHED: usize = 16;

const fn estimate(reading: &Reading) -> ErrorEstimate {
    ErrorEstimate::from_bound(reading.bound_ns, reading.synchronised)
}
