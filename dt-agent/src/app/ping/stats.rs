//! What `ping` sums up of one host's replies.

/// Exact extremes, mean and deviation of some durations; quantiles come from the histogram beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Spread {
    pub count: u64,
    pub min_ns: u64,
    pub max_ns: u64,
    mean: f64,
    /// Sum of squared distances from the mean (Welford).
    squares: f64,
}

impl Spread {
    pub(super) fn record(&mut self, ns: u64) {
        self.min_ns = if self.count == 0 {
            ns
        } else {
            self.min_ns.min(ns)
        };
        self.max_ns = self.max_ns.max(ns);
        self.count += 1;
        let distance = ns as f64 - self.mean;
        self.mean += distance / self.count as f64;
        self.squares += distance * (ns as f64 - self.mean);
    }

    pub(super) const fn mean_ns(&self) -> f64 {
        self.mean
    }

    /// Standard deviation, what `ping` calls mdev.
    pub(super) fn deviation_ns(&self) -> f64 {
        if self.count == 0 {
            0.0
        } else {
            (self.squares / self.count as f64).sqrt()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation_are_those_of_the_textbook() {
        let mut spread = Spread::default();
        for ns in [2, 4, 4, 4, 5, 5, 7, 9] {
            spread.record(ns);
        }
        assert_eq!((spread.min_ns, spread.max_ns, spread.count), (2, 9, 8));
        assert!((spread.mean_ns() - 5.0).abs() < 1e-9);
        assert!((spread.deviation_ns() - 2.0).abs() < 1e-9);
    }
}
