//! How far a replica is behind, in bytes and in time.
//!
//! ## Why
//! Lag in time is the age of the newest primary sample that the replica has replayed, counted only while WAL is
//! outstanding: on an idle cluster it is zero, on a replica that stands still it grows from the moment at which the
//! primary really moved on.
//!
//! Both numbers are taken against what the primary had *flushed*: an open transaction that nobody has flushed yet cannot
//! have been sent to anyone and makes nobody stale. What a session wrote is measured against what was *inserted*, because
//! an asynchronous commit is acknowledged before it is flushed.

use std::time::{Duration, Instant};

use pgweir_model::Lsn;

use crate::sample::SampleLog;

/// Where a replica stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replay {
    /// `pg_last_wal_replay_lsn()`.
    pub position: Lsn,
    /// The timeline that it follows; 0 if it is not known.
    pub timeline: u32,
    /// The moment just before the question was sent.
    pub asked_at: Instant,
}

/// How far behind a replica is; `None` where that cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// WAL bytes that the primary had flushed and the replica had not replayed.
    pub bytes: Option<u64>,
    /// Age of what the replica shows. Zero when it has replayed all that had been sampled when it was asked.
    pub time: Option<Duration>,
    /// All that was committed before this moment is visible on the replica.
    pub replayed_through: Option<Instant>,
}

impl Lag {
    /// Returns what the samples say of a replica that stood at `replay`, seen at `now`.
    ///
    /// An answer older than `patience` ages: what was true then is not known to be true any more. A replica on another
    /// timeline than the samples has positions that cannot be compared.
    pub fn measure(log: &SampleLog, replay: Replay, patience: Duration, now: Instant) -> Lag {
        let Some(newest) = log.newest() else {
            return Lag::default();
        };
        if replay.timeline != 0 && replay.timeline != log.timeline() {
            return Lag::default();
        }
        // The position is compared with what was known when it was asked for: a sample that is younger than the answer
        // would make every replica of a busy primary look one poll behind.
        let known = log.as_of(replay.asked_at).unwrap_or(newest);
        let bytes = known.flushed.distance_bytes(replay.position);
        let behind = if bytes == 0 {
            Some(Duration::ZERO)
        } else {
            log.flushed_until(replay.position)
                .map(|sent_at| replay.asked_at.saturating_duration_since(sent_at))
        };
        let unheard = now.saturating_duration_since(replay.asked_at);
        let ageing = if unheard > patience {
            unheard
        } else {
            Duration::ZERO
        };
        Lag {
            bytes: Some(bytes),
            time: behind.map(|behind| behind.saturating_add(ageing)),
            replayed_through: log.covered_until(replay.position),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    const PATIENCE: Duration = Duration::from_millis(200);

    fn at(base: Instant, ms: u64) -> Instant {
        base + Duration::from_millis(ms)
    }

    fn log(base: Instant, samples: &[(u64, u64)]) -> SampleLog {
        let mut log = SampleLog::new();
        for (ms, lsn) in samples {
            log.push(Sample {
                sent_at: at(base, *ms),
                inserted: Lsn(*lsn),
                flushed: Lsn(*lsn),
                timeline: 3,
            });
        }
        log
    }

    fn measure(log: &SampleLog, base: Instant, position: u64, asked_ms: u64, now_ms: u64) -> Lag {
        let replay = Replay {
            position: Lsn(position),
            timeline: 3,
            asked_at: at(base, asked_ms),
        };
        Lag::measure(log, replay, PATIENCE, at(base, now_ms))
    }

    #[test]
    fn an_idle_cluster_has_no_lag_however_long() {
        let base = Instant::now();
        let idle: Vec<_> = (0..1000).map(|tick| (tick * 100, 500)).collect();
        let lag = measure(&log(base, &idle), base, 500, 99_901, 99_950);
        assert_eq!((lag.time, lag.bytes), (Some(Duration::ZERO), Some(0)));
        assert_eq!(lag.replayed_through, Some(at(base, 99_900)));
    }

    #[test]
    fn a_paused_replica_is_behind_only_since_the_primary_moved() {
        let base = Instant::now();
        let mut samples: Vec<_> = (0..=50).map(|tick| (tick * 100, 500)).collect();
        assert_eq!(
            measure(&log(base, &samples), base, 500, 5001, 5001).time,
            Some(Duration::ZERO)
        );
        samples.extend([(5100, 900), (5200, 900), (5300, 900)]);
        let lag = measure(&log(base, &samples), base, 500, 5301, 5301);
        assert_eq!(
            (lag.time, lag.bytes),
            (Some(Duration::from_millis(301)), Some(400))
        );
    }

    #[test]
    fn a_busy_primary_does_not_make_a_replica_look_one_poll_behind() {
        let base = Instant::now();
        // The replica was asked just after the sample of 100 ms and had it; the one of 200 ms came later.
        let log = log(base, &[(0, 100), (100, 200), (200, 300)]);
        let lag = measure(&log, base, 210, 101, 201);
        assert_eq!((lag.time, lag.bytes), (Some(Duration::ZERO), Some(0)));
        assert_eq!(lag.replayed_through, Some(at(base, 100)));
    }

    #[test]
    fn an_answer_that_grows_old_counts_as_lag() {
        let base = Instant::now();
        let log = log(base, &[(0, 100)]);
        assert_eq!(measure(&log, base, 100, 1, 200).time, Some(Duration::ZERO));
        assert_eq!(
            measure(&log, base, 100, 1, 3001).time,
            Some(Duration::from_secs(3))
        );
    }

    #[test]
    fn nothing_is_known_without_samples_or_on_another_timeline() {
        let base = Instant::now();
        assert_eq!(measure(&SampleLog::new(), base, 100, 0, 0), Lag::default());
        let log = log(base, &[(0, 100)]);
        let replay = Replay {
            position: Lsn(500),
            timeline: 2,
            asked_at: base,
        };
        assert_eq!(Lag::measure(&log, replay, PATIENCE, base), Lag::default());
        let unknown = Replay {
            timeline: 0,
            ..replay
        };
        assert_eq!(Lag::measure(&log, unknown, PATIENCE, base).bytes, Some(0));
    }

    #[test]
    fn a_replica_below_every_sample_has_bytes_and_no_age() {
        let base = Instant::now();
        let lag = measure(&log(base, &[(0, 100)]), base, 40, 1, 1);
        assert_eq!(
            lag,
            Lag {
                bytes: Some(60),
                time: None,
                replayed_through: None
            }
        );
    }
}
