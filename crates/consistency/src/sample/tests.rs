//! The log of samples: order, timelines, thinning.

use proptest::prelude::*;

use super::*;

fn at(base: Instant, ms: u64) -> Instant {
    base + Duration::from_millis(ms)
}

fn sample(sent_at: Instant, lsn: u64, timeline: u32) -> Sample {
    Sample {
        sent_at,
        inserted: Lsn(lsn),
        flushed: Lsn(lsn),
        timeline,
    }
}

#[test]
fn an_idle_primary_keeps_one_entry_that_grows_younger() {
    let base = Instant::now();
    let mut log = SampleLog::new();
    for ms in 0..5000 {
        assert!(log.push(sample(at(base, ms), 500, 1)));
    }
    assert_eq!(log.len(), 1);
    assert_eq!(log.covered_until(Lsn(500)), Some(at(base, 4999)));
    assert_eq!(log.covered_until(Lsn(499)), None);
    assert_eq!(log.as_of(at(base, 17)).unwrap().inserted, Lsn(500));
}

#[test]
fn a_replayed_position_covers_the_newest_sample_below_it() {
    let base = Instant::now();
    let mut log = SampleLog::new();
    for (ms, lsn) in [(0, 100), (10, 200), (20, 200), (30, 300)] {
        log.push(sample(at(base, ms), lsn, 1));
    }
    let expected = [
        (99, None),
        (100, Some(0)),
        (199, Some(0)),
        (200, Some(20)),
        (300, Some(30)),
        (999, Some(30)),
    ];
    for (replayed, ms) in expected {
        assert_eq!(
            log.covered_until(Lsn(replayed)),
            ms.map(|ms| at(base, ms)),
            "{replayed}"
        );
    }
}

#[test]
fn what_is_inserted_and_not_flushed_counts_for_writes_and_not_for_lag() {
    let base = Instant::now();
    let mut log = SampleLog::new();
    log.push(sample(base, 100, 1));
    log.push(Sample {
        sent_at: at(base, 10),
        inserted: Lsn(300),
        flushed: Lsn(100),
        timeline: 1,
    });
    assert_eq!(log.covered_until(Lsn(100)), Some(base));
    assert_eq!(log.flushed_until(Lsn(100)), Some(at(base, 10)));
}

#[test]
fn a_higher_timeline_starts_afresh_and_a_lower_one_is_refused() {
    let base = Instant::now();
    let mut log = SampleLog::new();
    log.push(sample(base, 900, 1));
    assert!(log.push(sample(at(base, 10), 700, 2)));
    assert!(!log.push(sample(at(base, 20), 950, 1)));
    assert_eq!((log.len(), log.timeline()), (1, 2));
    assert_eq!(log.newest().unwrap().inserted, Lsn(700));
}

#[test]
fn a_sample_sent_before_the_newest_is_refused() {
    let base = Instant::now();
    let mut log = SampleLog::new();
    log.push(sample(at(base, 10), 100, 1));
    assert!(!log.push(sample(base, 200, 1)));
}

#[test]
fn a_primary_that_lost_unflushed_wal_takes_its_samples_with_it() {
    let base = Instant::now();
    let mut log = SampleLog::new();
    for (ms, lsn) in [(0, 100), (10, 200), (20, 300), (30, 150)] {
        assert!(log.push(sample(at(base, ms), lsn, 1)));
    }
    assert_eq!(log.covered_until(Lsn(140)), Some(base));
    assert_eq!(log.covered_until(Lsn(150)), Some(at(base, 30)));
}

#[test]
fn a_position_behind_a_page_header_is_the_end_of_the_page_before() {
    let base = Instant::now();
    for (reported, expected) in [
        (0x0400_0028, 0x0400_0000),
        (0x0400_2018, 0x0400_2000),
        (0x0400_2028, 0x0400_2028),
        (0x0400_2020, 0x0400_2020),
    ] {
        let mut log = SampleLog::new();
        log.push(sample(base, reported, 1));
        assert_eq!(
            log.newest().unwrap().inserted,
            Lsn(expected),
            "{reported:x}"
        );
    }
}

#[test]
fn ten_hours_of_lag_are_measured_within_a_few_percent_in_bounded_room() {
    let base = Instant::now();
    let mut log = SampleLog::new();
    let hours = 10 * 3600 * 10;
    for tick in 0..hours {
        log.push(sample(at(base, tick * 100), 1000 + tick, 1));
        assert!(log.len() <= SampleLog::CAPACITY);
    }
    for age_ticks in [1, 10, 100, 1000, 10_000, 100_000, 300_000] {
        let tick = hours - 1 - age_ticks;
        let until = log.covered_until(Lsn(1000 + tick)).unwrap();
        let truth = at(base, tick * 100);
        let error = truth.checked_duration_since(until).unwrap().as_secs_f64();
        assert!(
            error <= age_ticks as f64 * 0.1 * 0.05 + 0.001,
            "{error} s at {age_ticks} ticks"
        );
    }
}

#[test]
fn a_burst_of_samples_stays_in_bounds() {
    let base = Instant::now();
    let mut log = SampleLog::new();
    for tick in 0..50_000 {
        log.push(sample(base + Duration::from_nanos(tick), 1000 + tick, 1));
        assert!(log.len() <= SampleLog::CAPACITY);
    }
    // Even samples at one and the same moment.
    for tick in 50_000..60_000 {
        log.push(sample(base + Duration::from_secs(1), 1000 + tick, 1));
        assert!(log.len() <= SampleLog::CAPACITY);
    }
    assert_eq!(log.newest().unwrap().inserted, Lsn(60_999));
}

proptest! {
    /// Compared with every sample ever taken: never younger than the truth.
    #[test]
    fn thinning_never_makes_a_replica_look_younger(
        steps in proptest::collection::vec((1..500_u64, 0..40_u64), 1..4000),
        replayed in 0..100_000_u64,
    ) {
        let base = Instant::now();
        let (mut log, mut all) = (SampleLog::new(), Vec::new());
        let (mut ms, mut lsn) = (0, 0);
        for (wait, written) in steps {
            ms += wait;
            lsn += written * 8;
            log.push(sample(at(base, ms), lsn, 1));
            all.push((without_page_header(Lsn(lsn)), at(base, ms)));
        }
        let truth = all.iter().rev().find(|(lsn, _)| *lsn <= Lsn(replayed)).map(|(_, sent_at)| *sent_at);
        prop_assert!(log.covered_until(Lsn(replayed)) <= truth);
        prop_assert!(log.len() <= SampleLog::CAPACITY);
        if Some(Lsn(replayed)) >= all.last().map(|(lsn, _)| *lsn) {
            prop_assert_eq!(log.covered_until(Lsn(replayed)), truth);
        }
    }
}
