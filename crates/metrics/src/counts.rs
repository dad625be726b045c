//! The counters of one worker, and their sum over all.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgweir_model::{NodeId, Reason};

use crate::Histogram;

/// Who answered a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Destination {
    /// The primary.
    Primary,
    /// A replica.
    Replica,
    /// The proxy itself.
    Local,
}

impl Destination {
    /// Every one, in order of declaration.
    pub const ALL: [Destination; 3] = [
        Destination::Primary,
        Destination::Replica,
        Destination::Local,
    ];

    /// Returns its name in labels and tables.
    pub fn name(self) -> &'static str {
        match self {
            Destination::Primary => "primary",
            Destination::Replica => "replica",
            Destination::Local => "local",
        }
    }
}

/// What was done for the clients of one database. All are totals since the start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DatabaseCounts {
    /// Transactions that have ended, each statement in autocommit being one.
    pub transactions: u64,
    /// Batches answered: a simple query, or the extended messages up to a Sync.
    pub queries: u64,
    /// Times that a session was given a server connection.
    pub assignments: u64,
    /// Bytes from clients.
    pub received_bytes: u64,
    /// Bytes to clients.
    pub sent_bytes: u64,
    /// Time in which sessions held a server connection in a transaction, in microseconds.
    pub transaction_us: u64,
    /// Time from sending batches to servers until they were answered.
    pub query: BTreeMap<Destination, Histogram>,
    /// Time in which batches waited for a server connection, those that got one at once left out.
    pub wait: Histogram,
    /// Parse messages of clients.
    pub client_parses: u64,
    /// Parse messages sent to servers.
    pub server_parses: u64,
    /// Bind messages of clients.
    pub binds: u64,
    /// Batches by where they went and why.
    pub routes: BTreeMap<(Destination, Reason), u64>,
    /// Errors of servers that reached clients, by the two letters of their SQLSTATE's class.
    pub server_errors: BTreeMap<[u8; 2], u64>,
    /// Errors of the proxy's own, by SQLSTATE.
    pub own_errors: BTreeMap<[u8; 5], u64>,
}

/// What was done with one server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeCounts {
    /// Batches answered by it.
    pub queries: u64,
    /// Time from sending batches until they were answered.
    pub query: Histogram,
    /// Server connections opened.
    pub connects: u64,
    /// Attempts that failed.
    pub connect_failures: u64,
    /// Server connections lost while in use.
    pub losses: u64,
    /// The last failure, for people.
    pub last_error: Option<Box<str>>,
}

/// What clients were spared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spared {
    /// Reads run again on the primary because a replica had refused them.
    pub reroutes: u64,
    /// Reads run again because their replica had failed.
    pub retries: u64,
    /// Statements prepared again because the schema had changed.
    pub stale_plans: u64,
}

/// What the process as a whole counts. Workers fill in their statements; the rest is added by whoever takes the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProcessCounts {
    /// Times that the configuration file was read again and taken over.
    pub reloads: u64,
    /// Times that it was refused.
    pub reload_failures: u64,
    /// Whether the last of both was refused.
    pub is_last_reload_failed: bool,
    /// Settings that have been changed and hold only after a restart.
    pub settings_awaiting_restart: usize,
    /// Shapes of statements in the statistics; one that several workers have seen counts for each.
    pub statements_kept: usize,
    /// Shapes that were dropped from the statistics to make room.
    pub statements_evicted: u64,
    /// Spans of OpenTelemetry.
    pub spans: SpanCounts,
}

/// What became of the spans of batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpanCounts {
    /// Batches whose spans the collector has taken.
    pub exported: u64,
    /// Batches whose spans were dropped because too many waited.
    pub dropped: u64,
    /// Batches whose spans the collector has not taken.
    pub failed: u64,
}

/// Everything that is counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// By the database as clients name it; the number of names is bounded by whoever counts.
    pub databases: BTreeMap<Arc<str>, DatabaseCounts>,
    /// By server.
    pub nodes: BTreeMap<NodeId, NodeCounts>,
    /// Over all.
    pub spared: Spared,
    /// Logins that ended in a session.
    pub logins: u64,
    /// Logins that were refused.
    pub logins_refused: u64,
    /// CancelRequests that were passed on.
    pub cancels: u64,
    /// What no worker counts.
    pub process: ProcessCounts,
}

impl DatabaseCounts {
    /// Adds what was counted elsewhere of the same database.
    pub fn add(&mut self, other: &DatabaseCounts) {
        self.transactions += other.transactions;
        self.queries += other.queries;
        self.assignments += other.assignments;
        self.received_bytes += other.received_bytes;
        self.sent_bytes += other.sent_bytes;
        self.transaction_us += other.transaction_us;
        for (destination, histogram) in &other.query {
            self.query.entry(*destination).or_default().add(histogram);
        }
        self.wait.add(&other.wait);
        self.client_parses += other.client_parses;
        self.server_parses += other.server_parses;
        self.binds += other.binds;
        add_all(&mut self.routes, &other.routes);
        add_all(&mut self.server_errors, &other.server_errors);
        add_all(&mut self.own_errors, &other.own_errors);
    }
}

impl NodeCounts {
    /// Adds what was counted elsewhere of the same server.
    pub fn add(&mut self, other: &NodeCounts) {
        self.queries += other.queries;
        self.query.add(&other.query);
        self.connects += other.connects;
        self.connect_failures += other.connect_failures;
        self.losses += other.losses;
        if other.last_error.is_some() {
            self.last_error.clone_from(&other.last_error);
        }
    }
}

impl Counts {
    /// Adds what another worker has counted.
    pub fn add(&mut self, other: &Counts) {
        for (name, counts) in &other.databases {
            self.databases
                .entry(Arc::clone(name))
                .or_default()
                .add(counts);
        }
        for (node, counts) in &other.nodes {
            self.nodes.entry(*node).or_default().add(counts);
        }
        self.spared.reroutes += other.spared.reroutes;
        self.spared.retries += other.spared.retries;
        self.spared.stale_plans += other.spared.stale_plans;
        self.logins += other.logins;
        self.logins_refused += other.logins_refused;
        self.cancels += other.cancels;
        self.process.statements_kept += other.process.statements_kept;
        self.process.statements_evicted += other.process.statements_evicted;
    }
}

fn add_all<K: Copy + Ord>(sum: &mut BTreeMap<K, u64>, more: &BTreeMap<K, u64>) {
    for (key, count) in more {
        *sum.entry(*key).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_workers_have_counted_adds_up() {
        let mut one = Counts::default();
        let app = one.databases.entry("app".into()).or_default();
        app.queries = 3;
        app.routes.insert((Destination::Replica, Reason::Read), 2);
        app.own_errors.insert(*b"57014", 1);
        let mut histogram = Histogram::default();
        histogram.record(Duration::from_micros(7));
        app.query.insert(Destination::Replica, histogram);
        let node = NodeId {
            cluster: 0,
            node: 1,
        };
        one.nodes.entry(node).or_default().last_error = Some("lost".into());
        one.logins = 1;
        let mut sum = one.clone();
        sum.add(&one);
        sum.add(&Counts::default());
        let app = &sum.databases["app"];
        assert_eq!((app.queries, sum.logins), (6, 2));
        assert_eq!(app.routes[&(Destination::Replica, Reason::Read)], 4);
        assert_eq!(app.own_errors[b"57014"], 2);
        assert_eq!(app.query[&Destination::Replica].sum_us(), 14);
        assert_eq!(sum.nodes[&node].last_error.as_deref(), Some("lost"));
    }
}
