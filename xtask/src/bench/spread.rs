//! A figure of several rounds: its median, and how far apart the rounds were.

use std::fmt;

use serde::Serialize;

/// Median, least and greatest of the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Of these values; `None` of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(*values.get(middle.checked_sub(1)?)?, values[middle])
        } else {
            values[middle]
        };
        Some(Self {
            median,
            min: *values.first()?,
            max: *values.last()?,
        })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = |value: f64| usize::from(value < 99.5) + usize::from(value < 9.95);
        let Self { median, min, max } = *self;
        write!(
            f,
            "{median:.0$} ({min:.1$} to {max:.2$})",
            digits(median),
            digits(min),
            digits(max)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_or_between_the_two_in_the_middle() {
        let median = |values: &[f64]| Spread::of(values.iter().copied()).map(|one| one.median);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn small_values_keep_their_digits() {
        let spread = Spread::of([0.234, 12.34, 1_234.0]).expect("three values");
        assert_eq!(spread.to_string(), "12.3 (0.23 to 1234)");
    }
}
