//! When the primary is to flush what it has not yet: replicas are sent nothing else.
//!
//! ## Why
//! A session may have to see all that the primary has inserted into its WAL. What an open transaction, or the pruning of a page,
//! has inserted there is flushed with the next commit of anybody; where nobody commits, the background writer sees to it some
//! 15 s later (`LOG_SNAPSHOT_INTERVAL_MS` of `src/backend/postmaster/bgwriter.c`). For so long each session that has written,
//! or read on the primary, would be kept from the replicas. So a transaction is committed that does nothing but have a number:
//! the WAL writer flushes that, and what stands before it, within `wal_writer_delay` (200 ms).
//! See <https://www.postgresql.org/docs/current/wal-async-commit.html>.
//!
//! ## Limits
//! It costs the primary a transaction number and a record of some 34 bytes, at most once in [`SPACING`], and only where sessions
//! have asked for a position that has not been flushed.

use std::time::{Duration, Instant};

use pgweir_model::Lsn;

/// The statement that is committed. It may not run on a replica, and is refused there.
pub(crate) const STATEMENT: &str = "SELECT pg_catalog.txid_current()";

/// How long it may take, connecting included. Chosen: it takes a millisecond, and questions wait for it.
pub(crate) const LIMIT: Duration = Duration::from_millis(100);

/// How long nothing has been flushed that is wanted. Chosen: a commit under way takes some milliseconds.
const PATIENCE: Duration = Duration::from_millis(50);

/// The least time between two of them. Chosen: some 80,000 numbers a day at the most, of 2^31.
const SPACING: Duration = Duration::from_secs(1);

/// What is known of what stands unflushed.
#[derive(Debug, Default)]
pub(crate) struct Unflushed {
    /// What was flushed when something more was wanted first, and since when it is that.
    stands: Option<(Lsn, Instant)>,
    asked_at: Option<Instant>,
}

impl Unflushed {
    /// Takes what the primary has flushed by `now`; returns whether it is to flush more, as sessions ask for `wanted`.
    pub(crate) fn is_due(&mut self, flushed: Lsn, wanted: Option<Lsn>, now: Instant) -> bool {
        if wanted.is_none_or(|wanted| wanted <= flushed) {
            self.stands = None;
            return false;
        }
        let since = match self.stands {
            Some((at, since)) if at == flushed => since,
            _ => now,
        };
        self.stands = Some((flushed, since));
        let passed = |since: Instant| now.saturating_duration_since(since);
        let is_due =
            passed(since) >= PATIENCE && self.asked_at.is_none_or(|at| passed(at) >= SPACING);
        if is_due {
            self.asked_at = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_due_where_what_is_wanted_stands_unflushed_for_a_while() {
        let (mut unflushed, base) = (Unflushed::default(), Instant::now());
        let mut is_due = |flushed, wanted: Option<u64>, ms| {
            let now = base + Duration::from_millis(ms);
            unflushed.is_due(Lsn(flushed), wanted.map(Lsn), now)
        };
        assert!(!is_due(10, None, 0), "nobody wants anything");
        assert!(!is_due(10, Some(10), 100), "it is flushed");
        assert!(!is_due(10, Some(20), 200), "only just");
        assert!(!is_due(15, Some(20), 300), "the primary flushes by itself");
        assert!(is_due(15, Some(20), 350));
        assert!(!is_due(15, Some(30), 450), "not so soon again");
        assert!(is_due(15, Some(30), 1350));
        assert!(!is_due(30, Some(30), 2400));
        assert!(!is_due(30, Some(31), 2500), "only just");
        assert!(is_due(30, Some(31), 2600));
    }
}
