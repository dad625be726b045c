//! Statistics of statements by their shape: a bounded table, as `pg_stat_statements` is one.

use std::collections::HashMap;
use std::sync::Arc;

use pgweir_model::Reason;

use crate::{Destination, Histogram, Lap};

/// What statements are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatementKey {
    /// The database as clients name it.
    pub database: Arc<str>,
    /// The fingerprint of the shape, as `pgweir route` prints it.
    pub fingerprint: u64,
}

/// What is known of one shape.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Statement {
    /// The shape: the text with its literals taken out.
    pub shape: Arc<str>,
    /// Times that it was answered.
    pub calls: u64,
    /// Times that it ended in an error.
    pub errors: u64,
    /// Rows returned or changed, by the command tags.
    pub rows: u64,
    /// Time from sending it to a server until it was answered.
    pub query: Histogram,
    /// Times that the primary answered it.
    pub on_primary: u64,
    /// Times that a replica did.
    pub on_replica: u64,
    /// Times that the cache did.
    pub from_cache: u64,
    /// Why it went last where it went.
    pub last_reason: Option<Reason>,
}

/// A table of them with a limit.
#[derive(Debug, Clone, Default)]
pub struct Statements {
    /// What is kept.
    pub entries: HashMap<StatementKey, Statement>,
    /// How many were dropped to make room.
    pub evicted: u64,
}

impl Statement {
    /// Counts one call.
    pub fn record(
        &mut self,
        destination: Destination,
        reason: Reason,
        lap: impl Into<Lap>,
        rows: u64,
    ) {
        self.calls += 1;
        self.rows += rows;
        self.query.record(lap);
        self.last_reason = Some(reason);
        match destination {
            Destination::Primary => self.on_primary += 1,
            Destination::Replica => self.on_replica += 1,
            Destination::Local => {}
        }
    }

    /// Adds what another worker has counted of the same shape.
    pub fn add(&mut self, other: &Statement) {
        self.calls += other.calls;
        self.errors += other.errors;
        self.rows += other.rows;
        self.query.add(&other.query);
        self.on_primary += other.on_primary;
        self.on_replica += other.on_replica;
        self.from_cache += other.from_cache;
        self.last_reason = other.last_reason.or(self.last_reason);
    }
}
