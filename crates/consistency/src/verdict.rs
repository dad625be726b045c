//! Whether a replica is fresh enough, and how much of its weight it keeps.

use std::time::Duration;

use crate::lag::Lag;

/// The limit on lag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxLag {
    /// Age of what a read may see.
    Time(Duration),
    /// WAL bytes that may be outstanding.
    Bytes(u64),
}

/// Whether a replica is within the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Within the limit.
    Fresh,
    /// Beyond it.
    Stale,
    /// Its lag is not known.
    Unknown,
}

impl MaxLag {
    /// Returns whether `lag` is within the limit; a lag equal to the limit is.
    pub fn verdict(self, lag: &Lag) -> Verdict {
        let within = match self {
            MaxLag::Time(limit) => lag.time.map(|time| time <= limit),
            MaxLag::Bytes(limit) => lag.bytes.map(|bytes| bytes <= limit),
        };
        match within {
            Some(true) => Verdict::Fresh,
            Some(false) => Verdict::Stale,
            None => Verdict::Unknown,
        }
    }

    /// Returns the share of its weight that a replica keeps, in thousandths: 1000 at no lag, falling evenly to 0 at the
    /// limit and when the lag is not known.
    pub fn weight_factor(self, lag: &Lag) -> u32 {
        let (behind, limit) = match self {
            MaxLag::Time(limit) => (lag.time.map(|time| time.as_micros()), limit.as_micros()),
            MaxLag::Bytes(limit) => (lag.bytes.map(u128::from), u128::from(limit)),
        };
        match behind {
            None => 0,
            Some(0) => 1000,
            Some(behind) if behind >= limit => 0,
            Some(behind) => {
                u32::try_from((limit - behind).saturating_mul(1000) / limit).unwrap_or(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag(ms: u64, bytes: u64) -> Lag {
        Lag {
            bytes: Some(bytes),
            time: Some(Duration::from_millis(ms)),
            replayed_through: None,
        }
    }

    #[test]
    fn the_limit_itself_is_within_and_one_more_is_not() {
        let time = MaxLag::Time(Duration::from_millis(500));
        assert_eq!(time.verdict(&lag(500, u64::MAX)), Verdict::Fresh);
        assert_eq!(time.verdict(&lag(501, 0)), Verdict::Stale);
        let bytes = MaxLag::Bytes(16);
        assert_eq!(bytes.verdict(&lag(u64::MAX / 2, 16)), Verdict::Fresh);
        assert_eq!(bytes.verdict(&lag(0, 17)), Verdict::Stale);
        assert_eq!(time.verdict(&Lag::default()), Verdict::Unknown);
        assert_eq!(bytes.verdict(&Lag::default()), Verdict::Unknown);
    }

    #[test]
    fn weight_falls_evenly_from_all_to_nothing() {
        let limit = MaxLag::Time(Duration::from_secs(1));
        let factors = [0, 1, 250, 500, 999, 1000, 5000].map(|ms| limit.weight_factor(&lag(ms, 0)));
        assert_eq!(factors, [1000, 999, 750, 500, 1, 0, 0]);
        assert_eq!(MaxLag::Bytes(0).weight_factor(&lag(0, 0)), 1000);
        assert_eq!(MaxLag::Bytes(0).weight_factor(&lag(0, 1)), 0);
        assert_eq!(limit.weight_factor(&Lag::default()), 0);
    }
}
