//! What is counted: plain numbers that each worker keeps for itself and that are added up when somebody asks.
//!
//! Nothing here is shared between threads: a worker counts in its own [`Counts`] and its own [`Statements`], and hands out a
//! copy when it is asked. So counting costs an addition, never a lock or a contended cache line.
#![forbid(unsafe_code)]

pub mod catalog;
mod counts;
pub mod exposition;
mod family;
mod histogram;
mod recent;
mod statements;

pub use catalog::Metric;
pub use counts::{
    Counts, DatabaseCounts, Destination, NodeCounts, ProcessCounts, SpanCounts, Spared,
};
pub use family::{
    Family, HISTOGRAM_SERIES_LIMIT, Number, OTHER, SERIES_LIMIT, Sample, Value, seconds,
};
pub use histogram::{BUCKETS, Histogram, Lap};
pub use recent::Recent;
pub use statements::{Statement, StatementKey, Statements};
