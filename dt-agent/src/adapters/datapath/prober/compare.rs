//! When compared probes were handed to the kernel, until their replies come up to user space.

use std::collections::HashMap;

use dt_common::time::MonoNanos;

/// Send times by SSID and sequence number. Bounded: probes that are never answered must not pile up.
#[derive(Debug, Default)]
pub(super) struct Comparisons {
    sent: HashMap<(u16, u32), MonoNanos>,
}

impl Comparisons {
    /// Notes when a probe was handed over.
    pub(super) fn note(&mut self, ssid: u16, seq: u32, at: MonoNanos) {
        if self.sent.len() >= MAX_WAITING {
            self.sent.retain(|_, sent| at.since(*sent) < FORGOTTEN_NS);
        }
        if self.sent.len() < MAX_WAITING {
            self.sent.insert((ssid, seq), at);
        }
    }

    /// When this probe was handed over, told once.
    pub(super) fn take(&mut self, ssid: u16, seq: u32) -> Option<MonoNanos> {
        self.sent.remove(&(ssid, seq))
    }
}

const MAX_WAITING: usize = 65_536;
/// Session does not compare what took longer.
const FORGOTTEN_NS: u64 = 4_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unanswered_probes_do_not_pile_up() {
        let mut comparisons = Comparisons::default();
        for seq in 0..200_000 {
            comparisons.note(1, seq, MonoNanos(u64::from(seq) * 100_000));
        }
        assert!(comparisons.sent.len() <= MAX_WAITING);
        assert_eq!(
            comparisons.take(1, 199_999),
            Some(MonoNanos(19_999_900_000))
        );
        assert_eq!(comparisons.take(1, 199_999), None);
    }
}
