//! A histogram of durations with fixed buckets, so that those of several workers can be added.

use std::time::Duration;

/// The upper bounds of the buckets in microseconds; the last bucket, beyond them, has none.
///
/// Chosen: three per decade from 50 µs, which no query through a socket beats, to 50 s, beyond which only the count matters.
/// Few enough that a histogram per database and destination stays cheap to scrape.
pub const BUCKETS: [u64; 19] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000, 10_000_000, 20_000_000, 50_000_000,
];

/// Durations, counted by bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Histogram {
    /// Of each bucket alone, not cumulative; the last one is that without a bound.
    counts: [u64; BUCKETS.len() + 1],
    sum_us: u64,
}

/// One duration and its bucket, worked out once for all the histograms that count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lap {
    us: u64,
    bucket: usize,
}

impl Lap {
    /// Returns the duration in whole microseconds.
    #[inline]
    pub fn us(self) -> u64 {
        self.us
    }
}

impl From<Duration> for Lap {
    #[inline]
    fn from(duration: Duration) -> Self {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Lap {
            us,
            bucket: BUCKETS.partition_point(|bound| *bound < us),
        }
    }
}

impl Histogram {
    /// Counts one duration.
    #[inline]
    pub fn record(&mut self, lap: impl Into<Lap>) {
        let Lap { us, bucket } = lap.into();
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// Adds what another one has counted.
    pub fn add(&mut self, other: &Histogram) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }

    /// Returns how many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns their sum, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// Returns their mean, in microseconds; 0 where there is none.
    pub fn mean_us(&self) -> u64 {
        self.sum_us.checked_div(self.count()).unwrap_or(0)
    }

    /// Returns how many were at most as long as each of [`BUCKETS`], and last how many there are in all.
    pub fn cumulative(&self) -> [u64; BUCKETS.len() + 1] {
        let mut total = 0;
        self.counts.map(|count| {
            total += count;
            total
        })
    }

    /// Returns what `share` (0 to 1) of the durations do not exceed, in microseconds, interpolated within its bucket; `None`
    /// where nothing was counted. What lies beyond the last bound is given as that bound.
    pub fn quantile_us(&self, share: f64) -> Option<f64> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let (rank, mut below, mut lower) = (share.clamp(0.0, 1.0) * total as f64, 0.0, 0.0);
        for (count, bound) in self.counts.iter().zip(BUCKETS) {
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let (count, bound) = (*count as f64, bound as f64);
            if count > 0.0 && below + count >= rank {
                return Some(lower + (bound - lower) * ((rank - below) / count).clamp(0.0, 1.0));
            }
            below += count;
            lower = bound;
        }
        Some(lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(us: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        for us in us {
            histogram.record(Duration::from_micros(*us));
        }
        histogram
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let counts = of(&[50, 51, 100, 60_000_000]).cumulative();
        assert_eq!(counts[..3], [1, 3, 3]);
        assert_eq!(counts[BUCKETS.len() - 1..], [3, 4]);
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let histogram = of(&[60, 70, 80, 90, 4_000]);
        let median = histogram.quantile_us(0.5).unwrap();
        assert!((50.0..=100.0).contains(&median), "{median}");
        let high = histogram.quantile_us(0.99).unwrap();
        assert!((2_000.0..=5_000.0).contains(&high), "{high}");
        assert_eq!(Histogram::default().quantile_us(0.5), None);
        assert_eq!(of(&[90_000_000]).quantile_us(0.5), Some(50_000_000.0));
    }

    #[test]
    fn sums_add_up() {
        let mut sum = of(&[1, 2]);
        sum.add(&of(&[3]));
        assert_eq!((sum.count(), sum.sum_us(), sum.mean_us()), (3, 6, 2));
    }
}
