//! Log-linear histogram of nanoseconds: 16 buckets per power of two, so each is at most 6.25 % wide.
//!
//! The bucket numbers are those of the schema's `Histogram` message. Merging is exact: two histograms merged are equal to one
//! that recorded the values of both.

use std::ops::RangeInclusive;

use crate::proto;

#[cfg(test)]
mod tests;

/// Counts of values in nanoseconds, with their exact number, sum, least and greatest.
///
/// Recording costs a few instructions and allocates only when a value falls into a power of two that had none before; an
/// empty histogram owns no heap memory, and each power of two in use costs 128 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    count: u64,
    sum: u64,
    min: u64,
    max: u64,
    /// Bit `g` is set when group `g` has a row; the row's place is the number of set bits below.
    groups: u64,
    /// Bucket counts of the groups in use, ascending; no row is all zero.
    rows: Vec<[u64; BUCKETS_PER_GROUP]>,
}

/// Why a histogram message is not a histogram.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistogramError {
    /// The two columns of the message differ in length.
    #[error("histogram has {deltas} bucket numbers but {counts} bucket counts")]
    Length {
        /// Entries of `bucket_deltas`.
        deltas: usize,
        /// Entries of `bucket_counts`.
        counts: usize,
    },
    /// A bucket beyond the greatest, or one that is not above the one before it.
    #[error("histogram has no place for bucket entry {position}")]
    Bucket {
        /// Position in `bucket_deltas`, from 0 on.
        position: usize,
    },
    /// A bucket is listed but holds nothing.
    #[error("histogram lists bucket entry {position} without a value in it")]
    EmptyBucket {
        /// Position in `bucket_counts`, from 0 on.
        position: usize,
    },
    /// The buckets do not add up to the count.
    #[error("histogram says {count} values, its buckets do not hold as many")]
    Count {
        /// Number of values the message claims.
        count: u64,
    },
    /// Least, greatest and sum do not fit the buckets.
    #[error(
        "histogram says min {min_ns} ns, max {max_ns} ns, sum {sum_ns} ns, which its buckets exclude"
    )]
    Extremes {
        /// Least value the message claims, ns.
        min_ns: u64,
        /// Greatest value the message claims, ns.
        max_ns: u64,
        /// Sum the message claims, ns.
        sum_ns: u64,
    },
}

impl Histogram {
    /// A histogram without values.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            count: 0,
            sum: 0,
            min: 0,
            max: 0,
            groups: 0,
            rows: Vec::new(),
        }
    }

    /// Records one value in ns.
    pub fn record(&mut self, ns: u64) {
        self.record_n(ns, 1);
    }

    /// Records the same value in ns `n` times.
    pub fn record_n(&mut self, ns: u64, n: u64) {
        if n == 0 {
            return;
        }
        let bucket = Bucket::of(ns);
        let count = &mut self.row(bucket.group)[bucket.column];
        *count = count.saturating_add(n);
        self.widen(ns, ns);
        self.count = self.count.saturating_add(n);
        self.sum = self.sum.saturating_add(ns.saturating_mul(n));
    }

    /// Adds all values of `other`, exactly as if they had been recorded here.
    pub fn merge(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        for (group, theirs) in other.groups_in_use() {
            for (ours, theirs) in self.row(group).iter_mut().zip(theirs) {
                *ours = ours.saturating_add(*theirs);
            }
        }
        self.widen(other.min, other.max);
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// Forgets all values, but keeps the memory for the next ones.
    pub fn clear(&mut self) {
        let mut rows = std::mem::take(&mut self.rows);
        rows.clear();
        *self = Self {
            rows,
            ..Self::new()
        };
    }

    /// Whether nothing was recorded.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Number of values.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Sum of all values in ns; `u64::MAX` when it is greater than that.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// Least value in ns, exact.
    #[must_use]
    pub fn min(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.min)
    }

    /// Greatest value in ns, exact.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.max)
    }

    /// Mean in ns, exact but for the rounding of `f64`.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (!self.is_empty()).then(|| self.sum as f64 / self.count as f64)
    }

    /// The value in ns below or at which the share `q` of all values lies; `None` when empty or `q` is not a number.
    ///
    /// By nearest rank: the value of rank `ceil(q * count)`, at least the first, at most the last. First and last are the exact
    /// minimum and maximum; of any other the middle of its bucket is returned, clamped to [minimum, maximum], which is at most
    /// 3.2 % away from the true one. A `q` outside of 0 to 1 counts as the nearer of these.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<u64> {
        if self.is_empty() || q.is_nan() {
            return None;
        }
        // A negative product saturates to 0 in the cast.
        let rank = ((q * self.count as f64).ceil() as u64).clamp(1, self.count);
        if rank == 1 {
            return Some(self.min);
        }
        if rank == self.count {
            return Some(self.max);
        }
        let mut below = 0_u64;
        let bucket = self.buckets().find(|(_, count)| {
            below = below.saturating_add(*count);
            below >= rank
        });
        bucket.map(|(bucket, _)| bucket.middle().clamp(self.min, self.max))
    }

    /// Buckets that are not empty, ascending: the values in ns that each stands for, and how many of them there are.
    pub fn iter(&self) -> impl Iterator<Item = (RangeInclusive<u64>, u64)> {
        self.buckets()
            .map(|(bucket, count)| (bucket.values(), count))
    }

    fn row(&mut self, group: u32) -> &mut [u64; BUCKETS_PER_GROUP] {
        let bit = 1_u64 << group;
        let place = (self.groups & (bit - 1)).count_ones() as usize;
        if self.groups & bit == 0 {
            self.groups |= bit;
            // One is all that most windows need, and there may be ten thousand of them.
            self.rows.reserve_exact(1);
            self.rows.insert(place, [0; BUCKETS_PER_GROUP]);
        }
        &mut self.rows[place]
    }

    /// Must come before the change of `count`, which tells whether there are extremes yet.
    fn widen(&mut self, min: u64, max: u64) {
        if self.is_empty() {
            (self.min, self.max) = (min, max);
        } else {
            (self.min, self.max) = (self.min.min(min), self.max.max(max));
        }
    }

    fn groups_in_use(&self) -> impl Iterator<Item = (u32, &[u64; BUCKETS_PER_GROUP])> {
        (0..u64::BITS)
            .filter(|group| self.groups >> group & 1 == 1)
            .zip(&self.rows)
    }

    fn buckets(&self) -> impl Iterator<Item = (Bucket, u64)> {
        self.groups_in_use().flat_map(|(group, row)| {
            let buckets = row
                .iter()
                .enumerate()
                .map(move |(column, count)| (Bucket { group, column }, *count));
            buckets.filter(|(_, count)| *count != 0)
        })
    }

    /// Takes over the buckets of a message, but not what it says beside them.
    fn fill_from(&mut self, message: &proto::Histogram) -> Result<(), HistogramError> {
        let (deltas, counts) = (message.bucket_deltas.len(), message.bucket_counts.len());
        if deltas != counts {
            return Err(HistogramError::Length { deltas, counts });
        }
        let mut number = 0_u32;
        for (position, (delta, n)) in message
            .bucket_deltas
            .iter()
            .zip(&message.bucket_counts)
            .enumerate()
        {
            let repeats = position > 0 && *delta == 0;
            number = number.saturating_add(*delta);
            let bucket = Bucket::numbered(number).filter(|_| !repeats);
            let bucket = bucket.ok_or(HistogramError::Bucket { position })?;
            if *n == 0 {
                return Err(HistogramError::EmptyBucket { position });
            }
            self.row(bucket.group)[bucket.column] = *n;
            let count = self.count.checked_add(*n);
            self.count = count.ok_or(HistogramError::Count {
                count: message.count,
            })?;
        }
        Ok(())
    }

    /// Sets what the buckets cannot tell, if it can be true of them.
    fn set_extremes(&mut self, min: u64, max: u64, sum: u64) -> Option<()> {
        let first = self.buckets().next()?.0.values();
        let last = self.buckets().last()?.0.values();
        let least = u128::from(min) * u128::from(self.count - 1) + u128::from(max);
        let greatest = u128::from(max) * u128::from(self.count - 1) + u128::from(min);
        let sum_fits = least.min(u64::MAX.into()) <= sum.into() && u128::from(sum) <= greatest;
        let fits = first.contains(&min) && last.contains(&max) && min <= max && sum_fits;
        (self.min, self.max, self.sum) = (min, max, sum);
        fits.then_some(())
    }
}

impl Extend<u64> for Histogram {
    fn extend<T: IntoIterator<Item = u64>>(&mut self, values: T) {
        values.into_iter().for_each(|ns| self.record(ns));
    }
}

impl FromIterator<u64> for Histogram {
    fn from_iter<T: IntoIterator<Item = u64>>(values: T) -> Self {
        let mut histogram = Self::new();
        histogram.extend(values);
        histogram
    }
}

impl From<&Histogram> for proto::Histogram {
    fn from(histogram: &Histogram) -> Self {
        let mut message = Self {
            count: histogram.count,
            min_ns: histogram.min,
            max_ns: histogram.max,
            sum_ns: histogram.sum,
            ..Self::default()
        };
        let mut before = 0;
        for (bucket, count) in histogram.buckets() {
            message.bucket_deltas.push(bucket.number() - before);
            message.bucket_counts.push(count);
            before = bucket.number();
        }
        message
    }
}

impl TryFrom<&proto::Histogram> for Histogram {
    type Error = HistogramError;

    /// Accepts only what some sequence of [`Histogram::record`] could have made, saturated counts apart.
    fn try_from(message: &proto::Histogram) -> Result<Self, HistogramError> {
        let &proto::Histogram {
            count,
            min_ns,
            max_ns,
            sum_ns,
            ..
        } = message;
        let mut histogram = Self::new();
        histogram.fill_from(message)?;
        if histogram.count != count {
            return Err(HistogramError::Count { count });
        }
        if count == 0 && (min_ns, max_ns, sum_ns) == (0, 0, 0) {
            return Ok(histogram);
        }
        let extremes = HistogramError::Extremes {
            min_ns,
            max_ns,
            sum_ns,
        };
        histogram
            .set_extremes(min_ns, max_ns, sum_ns)
            .ok_or(extremes)?;
        Ok(histogram)
    }
}

/// Place of a bucket. Group 0 holds 0 to 15 ns exactly; group `g` from 1 on holds [2^(g+3), 2^(g+4)) ns in equal parts.
#[derive(Clone, Copy)]
struct Bucket {
    group: u32,
    column: usize,
}

impl Bucket {
    const fn of(ns: u64) -> Self {
        let group = (u64::BITS - COLUMN_BITS).saturating_sub(ns.leading_zeros());
        let shift = group.saturating_sub(1);
        Self {
            group,
            column: (ns >> shift) as usize % BUCKETS_PER_GROUP,
        }
    }

    fn numbered(number: u32) -> Option<Self> {
        let (group, column) = (number >> COLUMN_BITS, number as usize % BUCKETS_PER_GROUP);
        (group < GROUPS).then_some(Self { group, column })
    }

    const fn number(self) -> u32 {
        (self.group << COLUMN_BITS) + self.column as u32
    }

    const fn values(self) -> RangeInclusive<u64> {
        let shift = self.group.saturating_sub(1);
        let leading = if self.group == 0 {
            0
        } else {
            BUCKETS_PER_GROUP as u64
        };
        let least = (leading + self.column as u64) << shift;
        least..=least + ((1 << shift) - 1)
    }

    const fn middle(self) -> u64 {
        let values = self.values();
        *values.start() + (*values.end() - *values.start()) / 2
    }
}

const COLUMN_BITS: u32 = 4;
const BUCKETS_PER_GROUP: usize = 1 << COLUMN_BITS;
/// Group 0 and one for each power of two from 2^4 to 2^63.
const GROUPS: u32 = u64::BITS - COLUMN_BITS + 1;
