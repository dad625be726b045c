//! Positions of the primary over time: what was written by when.
//!
//! ## Why
//! Clocks of other machines are not trusted, and `pg_last_xact_replay_timestamp()` stands still on an idle primary. So the
//! proxy writes down where the primary was at moments of its own clock. A sample that was *sent* at `t` covers all that
//! was committed before `t`; a replica that has replayed its position shows all of that.
//!
//! ## Limits
//! The log holds at most [`SampleLog::CAPACITY`] entries, whatever the rate of sampling and however far a replica is
//! behind: older entries are thinned so that the gap between two of them stays below about 1/32 of their age. Thinning
//! only ever makes a replica look older than it is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pgweir_model::Lsn;

/// One answer of the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The moment just before the question was sent: all that was committed earlier lies below `inserted`.
    pub sent_at: Instant,
    /// `pg_current_wal_insert_lsn()`: at or above every commit record, those of asynchronous commits too.
    pub inserted: Lsn,
    /// `pg_current_wal_flush_lsn()`: what a replica can have been sent at all.
    pub flushed: Lsn,
    /// The timeline that the primary writes.
    pub timeline: u32,
}

/// A run of samples with one position.
#[derive(Debug, Clone, Copy)]
struct Entry {
    inserted: Lsn,
    flushed: Lsn,
    /// When the first sample of the run was sent.
    since: Instant,
    /// When the last sample of the run was sent.
    sent_at: Instant,
}

/// The primary's samples, oldest first, on one timeline.
#[derive(Debug, Clone, Default)]
pub struct SampleLog {
    /// Strictly ordered by `sent_at`; `inserted` and `flushed` never fall.
    entries: VecDeque<Entry>,
    timeline: u32,
}

impl SampleLog {
    /// The most entries that are held.
    ///
    /// Chosen: with gaps of 1/64 of the age, samples a millisecond apart and ten hours of lag need 64 x ln(36,000 s /
    /// 64 ms), about 850, and half as many again come in between two thinnings. Fewer would coarsen lag, more would buy
    /// nothing. An entry is 48 bytes.
    pub const CAPACITY: usize = 2048;

    /// The least gap between entries, as a share of their age, that thinning leaves: one in this many.
    const RESOLUTION: u32 = 64;

    /// Returns an empty log.
    pub fn new() -> Self {
        SampleLog::default()
    }

    /// Returns the timeline of the samples; 0 while there are none.
    pub fn timeline(&self) -> u32 {
        self.timeline
    }

    /// Returns how many positions are held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether no sample has been taken on this timeline.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a sample and returns whether it was taken.
    ///
    /// One of a lower timeline, or sent before the newest, is refused. A higher timeline starts the log afresh: positions
    /// above the point where the timelines part mean something else now. A position below earlier ones (a primary that
    /// lost what it had not flushed) drops those.
    pub fn push(&mut self, sample: Sample) -> bool {
        let late = self
            .entries
            .back()
            .is_some_and(|newest| sample.sent_at < newest.sent_at);
        if sample.timeline < self.timeline || (late && sample.timeline == self.timeline) {
            return false;
        }
        if sample.timeline > self.timeline {
            self.entries.clear();
            self.timeline = sample.timeline;
        }
        let inserted = without_page_header(sample.inserted);
        let flushed = without_page_header(sample.flushed).min(inserted);
        let entry = Entry {
            inserted,
            flushed,
            since: sample.sent_at,
            sent_at: sample.sent_at,
        };
        while self
            .entries
            .back()
            .is_some_and(|last| last.inserted > inserted || last.flushed > flushed)
        {
            self.entries.pop_back();
        }
        match self.entries.back_mut() {
            Some(last) if last.inserted == inserted && last.flushed == flushed => {
                last.sent_at = sample.sent_at
            }
            _ => self.entries.push_back(entry),
        }
        if self.entries.len() >= SampleLog::CAPACITY {
            self.thin();
        }
        true
    }

    /// Forgets every sample and the timeline.
    pub fn clear(&mut self) {
        *self = SampleLog::default();
    }

    /// Returns the newest sample.
    pub fn newest(&self) -> Option<Sample> {
        self.entries.back().map(|entry| self.sample(entry))
    }

    /// Returns when the newest sample was sent all of whose WAL, flushed or not, lies below `replayed`.
    ///
    /// Whatever was committed before that moment is visible on a replica that has replayed up to there.
    pub fn covered_until(&self, replayed: Lsn) -> Option<Instant> {
        let covered = self
            .entries
            .partition_point(|entry| entry.inserted <= replayed);
        self.entries
            .get(covered.checked_sub(1)?)
            .map(|entry| entry.sent_at)
    }

    /// Returns when the newest sample was sent all of whose *flushed* WAL lies below `replayed`.
    pub fn flushed_until(&self, replayed: Lsn) -> Option<Instant> {
        let covered = self
            .entries
            .partition_point(|entry| entry.flushed <= replayed);
        self.entries
            .get(covered.checked_sub(1)?)
            .map(|entry| entry.sent_at)
    }

    /// Returns the newest position that was known at `at`, or the oldest one if all were taken later.
    pub fn as_of(&self, at: Instant) -> Option<Sample> {
        let earlier = self.entries.partition_point(|entry| entry.since <= at);
        self.entries
            .get(earlier.saturating_sub(1))
            .map(|entry| self.sample(entry))
    }

    fn sample(&self, entry: &Entry) -> Sample {
        let Entry {
            inserted,
            flushed,
            sent_at,
            ..
        } = *entry;
        Sample {
            sent_at,
            inserted,
            flushed,
            timeline: self.timeline,
        }
    }

    /// Drops entries until a quarter of the room is free, the closest together for their age first.
    fn thin(&mut self) {
        let Some(newest) = self.entries.back().map(|entry| entry.sent_at) else {
            return;
        };
        let mut share = SampleLog::RESOLUTION;
        while self.entries.len() > SampleLog::CAPACITY / 4 * 3 && share > 0 {
            self.thin_to(newest, share);
            share /= 2;
        }
        // A log of samples too close for any share: the oldest go.
        while self.entries.len() > SampleLog::CAPACITY / 4 * 3 {
            self.entries.pop_front();
        }
    }

    /// Keeps the newest and oldest entry and, between, those at least `age / share` before the next newer one kept.
    fn thin_to(&mut self, newest: Instant, share: u32) {
        let oldest = self.entries.front().map(|entry| entry.sent_at);
        let mut kept: VecDeque<Entry> = VecDeque::with_capacity(SampleLog::CAPACITY);
        for entry in self.entries.iter().rev() {
            let age = newest.saturating_duration_since(entry.sent_at);
            let gap = kept.front().map_or(Duration::MAX, |next| {
                next.sent_at.saturating_duration_since(entry.sent_at)
            });
            if gap >= age / share || Some(entry.sent_at) == oldest {
                kept.push_front(*entry);
            }
        }
        self.entries = kept;
    }
}

/// Returns the end of the last record below `lsn`, where `lsn` stands just behind a page header.
///
/// When the last record ends with its page, the primary reports the next insertion behind the next page's header, 24
/// bytes further, or 40 at the start of a segment file, where a replica that has replayed everything stands before it.
/// Uncorrected, it would look behind for as long as nothing is written. No record fits into the header, so nothing is
/// lost: a replica at or beyond the corrected position has replayed all below the reported one.
///
/// See `src/backend/access/transam/xlog.c XLogBytePosToRecPtr`, `src/include/access/xlog_internal.h SizeOfXLogShortPHD`.
pub(crate) fn without_page_header(lsn: Lsn) -> Lsn {
    /// `XLOG_BLCKSZ` as PostgreSQL is built by everyone.
    const PAGE_BYTES: u64 = 8192;
    /// The smallest segment file; every size is a multiple of it.
    const SEGMENT_BYTES_MIN: u64 = 1 << 20;
    const SHORT_HEADER_BYTES: u64 = 24;
    const LONG_HEADER_BYTES: u64 = 40;
    if lsn.0 % PAGE_BYTES == SHORT_HEADER_BYTES {
        Lsn(lsn.0 - SHORT_HEADER_BYTES)
    } else if lsn.0 % SEGMENT_BYTES_MIN == LONG_HEADER_BYTES {
        Lsn(lsn.0 - LONG_HEADER_BYTES)
    } else {
        lsn
    }
}

#[cfg(test)]
mod tests;
