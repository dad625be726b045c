//! `SHOW STATS` and its relatives: totals since the start, and averages over a period.
//!
//! ## Limits
//! A console keeps its own samples: the averages of its first answer are over the time since the proxy started, those that
//! follow over the time since a sample that is at least [`PERIOD`] old, or the first.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::layout;
use crate::console::answer::Column;
use crate::console::types::Cell;
use crate::facts::Facts;
use crate::tables::Row;

/// PgBouncer's `stats_period` by default.
pub(super) const PERIOD: Duration = Duration::from_secs(60);

/// What is counted, in the order of PgBouncer 1.24.
const COUNTS: [&str; 11] = [
    "server_assignment_count",
    "xact_count",
    "query_count",
    "received",
    "sent",
    "xact_time",
    "query_time",
    "wait_time",
    "client_parse_count",
    "server_parse_count",
    "bind_count",
];

type Counted = [u64; 11];

pub(super) fn columns_of_stats() -> Vec<Column> {
    let total = COUNTS.iter().map(|name| format!("total_{name}"));
    let average = COUNTS.iter().map(|name| match *name {
        "received" => "avg_recv".to_owned(),
        name => format!("avg_{name}"),
    });
    named(total.chain(average))
}

pub(super) fn columns_of_totals() -> Vec<Column> {
    named(COUNTS.iter().map(|name| match *name {
        "received" | "sent" => format!("bytes_{name}"),
        name => name.to_owned(),
    }))
}

fn named(names: impl Iterator<Item = String>) -> Vec<Column> {
    let names: Vec<String> = names.collect();
    let columns = names.iter().map(|name| (name.as_str(), 'q'));
    layout(
        &std::iter::once(("database", 's'))
            .chain(columns)
            .collect::<Vec<_>>(),
    )
}

/// What was counted for each database.
fn counted(facts: &Facts) -> BTreeMap<String, Counted> {
    let mut all: BTreeMap<String, Counted> = BTreeMap::new();
    for database in facts
        .config
        .databases
        .iter()
        .filter(|database| *database.name != *"*")
    {
        all.insert(database.name.to_string(), Counted::default());
    }
    // What the console answers is not counted, but a monitor expects its row.
    all.insert(facts.config.admin.database.to_string(), Counted::default());
    for (name, counts) in &facts.counts.databases {
        let query_us = counts
            .query
            .values()
            .map(pgweir_metrics::Histogram::sum_us)
            .sum();
        let row = [
            counts.assignments,
            counts.transactions,
            counts.queries,
            counts.received_bytes,
            counts.sent_bytes,
            counts.transaction_us,
            query_us,
            counts.wait.sum_us(),
            counts.client_parses,
            counts.server_parses,
            counts.binds,
        ];
        all.insert(name.to_string(), row);
    }
    all
}

fn row(name: &str, counts: impl IntoIterator<Item = u64>) -> Row {
    let counts = counts.into_iter().map(Cell::from);
    std::iter::once(name.into()).chain(counts).collect()
}

pub(super) fn totals(facts: &Facts) -> Vec<Row> {
    counted(facts)
        .iter()
        .map(|(name, counts)| row(name, *counts))
        .collect()
}

#[derive(Debug)]
struct Sample {
    at: Instant,
    counts: BTreeMap<String, Counted>,
}

/// The samples of one console.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    older: Option<Sample>,
    newer: Option<Sample>,
}

impl Sampler {
    /// Takes a sample if the last is a period old.
    fn look(&mut self, facts: &Facts) -> BTreeMap<String, Counted> {
        let counts = counted(facts);
        let is_due = self
            .newer
            .as_ref()
            .is_none_or(|sample| facts.now.saturating_duration_since(sample.at) >= PERIOD);
        if is_due {
            self.older = self.newer.take();
            self.newer = Some(Sample {
                at: facts.now,
                counts: counts.clone(),
            });
        }
        counts
    }

    /// The averages of what was counted since the older sample, or the start.
    fn average(&self, facts: &Facts, name: &str, now: &Counted) -> Counted {
        let zero = Counted::default();
        let (since, before) = match &self.older {
            Some(sample) => (
                facts.now.saturating_duration_since(sample.at),
                sample.counts.get(name).unwrap_or(&zero),
            ),
            None => {
                let up = facts.taken_at.duration_since(facts.started_at);
                (up.unwrap_or_default(), &zero)
            }
        };
        let us = since.as_micros().max(1);
        let mut delta = *now;
        for (new, old) in delta.iter_mut().zip(before) {
            *new = new.saturating_sub(*old);
        }
        let [assignments, transactions, queries, ..] = delta;
        let mut average = delta;
        for (place, value) in average.iter_mut().enumerate() {
            let each = match COUNTS.get(place).copied().unwrap_or_default() {
                "xact_time" => Some(transactions),
                "query_time" => Some(queries),
                "wait_time" => Some(assignments),
                _ => None,
            };
            *value = match each {
                Some(count) => value.checked_div(count).unwrap_or(0),
                None => u64::try_from(u128::from(*value) * 1_000_000 / us).unwrap_or(u64::MAX),
            };
        }
        average
    }

    pub(super) fn stats(&mut self, facts: &Facts) -> Vec<Row> {
        let counts = self.look(facts);
        let rows = counts.iter().map(|(name, now)| {
            let average = self.average(facts, name, now);
            row(name, now.iter().copied().chain(average))
        });
        rows.collect()
    }

    pub(super) fn averages(&mut self, facts: &Facts) -> Vec<Row> {
        let counts = self.look(facts);
        let rows = counts
            .iter()
            .map(|(name, now)| row(name, self.average(facts, name, now)));
        rows.collect()
    }

    /// `SHOW TOTALS`: over all databases.
    pub(super) fn sums(&mut self, facts: &Facts) -> Vec<Row> {
        let counts = self.look(facts);
        let (mut sum, mut averages) = (Counted::default(), Counted::default());
        for (name, now) in &counts {
            let average = self.average(facts, name, now);
            sum.iter_mut().zip(now).for_each(|(sum, one)| *sum += one);
            averages
                .iter_mut()
                .zip(average)
                .for_each(|(sum, one)| *sum += one);
        }
        let total = COUNTS
            .iter()
            .zip(sum)
            .map(|(name, value)| (format!("total_{name}"), value));
        let average = COUNTS
            .iter()
            .zip(averages)
            .map(|(name, value)| match *name {
                "received" => ("avg_recv".to_owned(), value),
                name => (format!("avg_{name}"), value),
            });
        total
            .chain(average)
            .map(|(name, value)| vec![name.into(), value.into()])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    /// The place of one of the counts.
    const QUERIES: usize = 2;

    #[test]
    fn averages_are_over_the_time_since_a_sample() {
        let mut facts = testing::facts();
        let mut sampler = Sampler::default();
        let per_second = |rows: &[Row]| match &rows[0][QUERIES + 1] {
            Cell::Int(value) => *value,
            other => panic!("{other:?}"),
        };
        // The picture is a hundred seconds after the start, with 1,000 queries.
        assert_eq!(per_second(&sampler.averages(&facts)), 10);
        facts.now += PERIOD;
        facts.counts.databases.get_mut("app").unwrap().queries += 6_000;
        sampler.averages(&facts);
        facts.now += PERIOD;
        facts.counts.databases.get_mut("app").unwrap().queries += 12_000;
        assert_eq!(per_second(&sampler.averages(&facts)), 200);
        assert_eq!(totals(&facts)[0][2], Cell::Int(500));
        assert_eq!(totals(&facts)[0][1], Cell::Int(0));
    }
}
