//! The series of one metric, no two of which have the same labels, and no more than there may be.

use std::collections::BTreeMap;

use crate::catalog::{Kind, Metric, OPEN_LABELS};
use crate::{BUCKETS, Histogram};

/// What a label says in place of the names beyond the cap.
pub const OTHER: &str = "other";

/// Series per metric that keep their own names.
///
/// Chosen: fifty databases with twenty reasons each, or ten servers with a hundred pools. Not larger, because every scrape
/// carries them all and a scraper keeps them for weeks; not smaller, because what is folded cannot be told apart any more.
pub const SERIES_LIMIT: usize = 1000;

/// Likewise for histograms, of which each series is as many lines as there are buckets.
pub const HISTOGRAM_SERIES_LIMIT: usize = 200;

/// The longest value of a label, in characters: twice PostgreSQL's names, which servers' `host:port` may exceed.
const LABEL_CHARS_LIMIT: usize = 128;

/// The value of one series.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number of things, which adds up.
    Count(u64),
    /// A measure that adds up.
    Sum(f64),
    /// A measure of which the largest stands for several: an age, a state.
    Peak(f64),
    /// Durations.
    Histogram(Box<Histogram>),
}

impl Value {
    /// Returns 1 or 0.
    pub fn flag(is_so: bool) -> Value {
        Value::Peak(if is_so { 1.0 } else { 0.0 })
    }

    fn merge(&mut self, other: &Value) {
        match (self, other) {
            (Value::Histogram(mine), Value::Histogram(theirs)) => mine.add(theirs),
            (Value::Count(mine), Value::Count(theirs)) => *mine = mine.saturating_add(*theirs),
            (Value::Sum(mine), Value::Sum(theirs)) => *mine += theirs,
            (Value::Peak(mine), Value::Peak(theirs)) => *mine = mine.max(*theirs),
            // One metric has values of one sort.
            (_, _) => {}
        }
    }
}

/// One line of the exposition.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The name, with the suffix of a histogram's parts.
    pub name: String,
    /// Names and values of its labels, in order; empty values are left out, as they say nothing.
    pub labels: Vec<(&'static str, String)>,
    /// The value, as it is written.
    pub value: Number,
}

/// A number that is written without loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// A whole one.
    Whole(u64),
    /// Any other.
    Real(f64),
}

impl Number {
    /// Returns it as a float.
    pub fn as_f64(self) -> f64 {
        match self {
            #[expect(
                clippy::cast_precision_loss,
                reason = "what reads metrics computes in floats"
            )]
            Number::Whole(whole) => whole as f64,
            Number::Real(real) => real,
        }
    }
}

/// One metric with its series.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    metric: Metric,
    series: BTreeMap<Vec<String>, Value>,
}

impl Family {
    /// Returns one without series.
    pub fn new(metric: Metric) -> Self {
        Family {
            metric,
            series: BTreeMap::new(),
        }
    }

    /// Returns a family of one series without labels.
    pub fn single(metric: Metric, value: Value) -> Self {
        let mut family = Family::new(metric);
        family.add(&[], value);
        family
    }

    /// Returns the metric.
    pub fn metric(&self) -> &Metric {
        &self.metric
    }

    /// Returns how many series there are.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Adds a value to the series with these labels, in the order of the catalogue.
    pub fn add(&mut self, labels: &[&str], value: Value) {
        debug_assert_eq!(labels.len(), self.metric.labels.len(), "{:?}", self.metric);
        let labels = labels
            .iter()
            .map(|value| value.chars().take(LABEL_CHARS_LIMIT).collect())
            .collect();
        self.insert(labels, value);
    }

    fn insert(&mut self, labels: Vec<String>, value: Value) {
        match self.series.entry(labels) {
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(value);
            }
            std::collections::btree_map::Entry::Occupied(mut there) => {
                there.get_mut().merge(&value);
            }
        }
    }

    /// Keeps the series within the limit: names that nobody fixes ([`OPEN_LABELS`]) are kept while they fit, those of which
    /// `is_known(label, value)` holds first, and the series of the others are added up under [`OTHER`].
    ///
    /// Whole names are folded, never some series of a name, so that sums over a name stay right. Where names come and go
    /// across the limit, a counter of [`OTHER`] may fall, which a scraper takes for a restart: whoever counts is to bound the
    /// names first, and this is the second fence.
    #[must_use]
    pub fn bounded(self, is_known: &dyn Fn(&str, &str) -> bool) -> Self {
        let limit = match self.metric.kind {
            Kind::Histogram => HISTOGRAM_SERIES_LIMIT,
            Kind::Counter | Kind::Gauge | Kind::Info => SERIES_LIMIT,
        };
        if self.series.len() <= limit {
            return self;
        }
        let mut names: BTreeMap<(bool, Vec<String>), usize> = BTreeMap::new();
        for labels in self.series.keys() {
            let name = rank(&self.metric, labels, is_known);
            *names.entry(name).or_insert(0) += 1;
        }
        let mut room = limit;
        names.retain(|_, count| {
            let fits = *count <= room;
            // The first that does not fit ends it, or a small one behind it would come and go with its neighbours.
            room = if fits { room - *count } else { 0 };
            fits
        });
        let mut bounded = Family::new(self.metric);
        for (mut labels, value) in self.series {
            if !names.contains_key(&rank(&self.metric, &labels, is_known)) {
                fold(&self.metric, &mut labels);
            }
            bounded.insert(labels, value);
        }
        bounded
    }

    /// Returns the lines: of a histogram all buckets, the sum and the count.
    pub fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (values, value) in &self.series {
            let labels: Vec<(&'static str, String)> = self
                .metric
                .labels
                .iter()
                .copied()
                .zip(values.iter().cloned())
                .filter(|(_, value)| !value.is_empty())
                .collect();
            let plain = |value| Sample {
                name: self.metric.name.to_owned(),
                labels: labels.clone(),
                value,
            };
            match value {
                Value::Count(count) => samples.push(plain(Number::Whole(*count))),
                Value::Sum(real) | Value::Peak(real) => samples.push(plain(Number::Real(*real))),
                Value::Histogram(histogram) => {
                    histogram_samples(self.metric.name, &labels, histogram, &mut samples);
                }
            }
        }
        samples
    }
}

/// The open labels of a metric, which are told apart by name.
fn open<'a>(metric: &Metric, labels: &'a [String]) -> Vec<(&'static str, &'a str)> {
    let labels = metric.labels.iter().copied().zip(labels);
    labels
        .filter(|(name, _)| OPEN_LABELS.contains(name))
        .map(|(name, value)| (name, value.as_str()))
        .collect()
}

/// The values of the open labels, those that are all known sorted first.
fn rank(
    metric: &Metric,
    labels: &[String],
    is_known: &dyn Fn(&str, &str) -> bool,
) -> (bool, Vec<String>) {
    let open = open(metric, labels);
    let is_foreign = !open.iter().all(|(name, value)| is_known(name, value));
    let values = open.iter().map(|(_, value)| (*value).to_owned());
    (is_foreign, values.collect())
}

fn fold(metric: &Metric, labels: &mut [String]) {
    let labels = metric.labels.iter().zip(labels);
    for (_, label) in labels.filter(|(name, _)| OPEN_LABELS.contains(name)) {
        OTHER.clone_into(label);
    }
}

fn histogram_samples(
    name: &str,
    labels: &[(&'static str, String)],
    histogram: &Histogram,
    samples: &mut Vec<Sample>,
) {
    let bounds = BUCKETS.iter().map(|us| bound(*us));
    let bounds = bounds.chain(["+Inf".to_owned()]);
    for (bound, count) in bounds.zip(histogram.cumulative()) {
        let mut labels = labels.to_vec();
        labels.push(("le", bound));
        samples.push(Sample {
            name: format!("{name}_bucket"),
            labels,
            value: Number::Whole(count),
        });
    }
    samples.push(Sample {
        name: format!("{name}_sum"),
        labels: labels.to_vec(),
        value: Number::Real(seconds(histogram.sum_us())),
    });
    samples.push(Sample {
        name: format!("{name}_count"),
        labels: labels.to_vec(),
        value: Number::Whole(histogram.count()),
    });
}

/// Returns microseconds in the unit of Prometheus.
pub fn seconds(us: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "exact for a hundred years of microseconds"
    )]
    let us = us as f64;
    us / 1e6
}

/// A bucket's bound in seconds, with a point in it: in that form OpenMetrics and the text format agree.
fn bound(us: u64) -> String {
    let text = seconds(us).to_string();
    if text.contains('.') {
        text
    } else {
        format!("{text}.0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;

    #[test]
    fn equal_labels_are_one_series() {
        let mut family = Family::new(catalog::CLIENTS);
        family.add(&["app", "idle"], Value::Count(2));
        family.add(&["app", "idle"], Value::Count(3));
        assert_eq!(family.len(), 1);
        assert_eq!(family.samples()[0].value, Number::Whole(5));
    }

    #[test]
    fn names_beyond_the_cap_are_added_up_and_known_ones_keep_theirs() {
        let mut family = Family::new(catalog::CLIENTS);
        for number in 0..2 * SERIES_LIMIT {
            family.add(&[&format!("a{number}"), "idle"], Value::Count(1));
        }
        family.add(&["zoo", "idle"], Value::Count(7));
        let bounded = family.bounded(&|_, value| value == "zoo");
        assert_eq!(bounded.len(), SERIES_LIMIT + 1);
        let of = |database: &str| {
            let samples = bounded.samples();
            samples
                .iter()
                .find(|sample| sample.labels[0].1 == database)
                .map(|sample| sample.value)
        };
        assert_eq!(of("zoo"), Some(Number::Whole(7)));
        assert_eq!(of(OTHER), Some(Number::Whole(SERIES_LIMIT as u64 + 1)));
    }

    #[test]
    fn at_the_cap_nothing_is_folded() {
        let mut family = Family::new(catalog::DATABASE_PAUSED);
        for number in 0..SERIES_LIMIT {
            family.add(&[&number.to_string()], Value::flag(number == 3));
        }
        let same = family.clone();
        assert_eq!(family.bounded(&|_, _| false), same);
    }

    #[test]
    fn bounds_are_seconds_with_a_point() {
        assert_eq!(
            (bound(50), bound(1_000_000)),
            ("0.00005".to_owned(), "1.0".to_owned())
        );
    }
}
