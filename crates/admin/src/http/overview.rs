//! What the page asks for each second, as JSON: totals, from whose differences it draws.
//!
//! Totals, not rates: pages that look at different moments each get the right ones, and nothing has to be remembered for them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgweir_metrics::{BUCKETS, Destination, Histogram, Statement, StatementKey};
use pgweir_model::{Health, Node};
use serde::Serialize;

use super::ready::{Readiness, readiness};
use crate::facts::{ClusterFacts, Facts, NodeFacts};

/// Pools on the page, the busiest first. Chosen: what a page can show; the console has all.
const POOLS_LIMIT: usize = 100;

/// Statements on the page.
const STATEMENTS_LIMIT: usize = 25;

/// Events on the page.
const EVENTS_LIMIT: usize = 50;

/// Characters of a shape on the page.
const SHAPE_CHARS_LIMIT: usize = 400;

/// Buckets of a histogram, each with all below it.
type Buckets = [u64; BUCKETS.len() + 1];

/// The answer of `/api/overview.json`. Moments are milliseconds of Unix time.
#[derive(Debug, Serialize)]
pub(super) struct Overview<'a> {
    version: &'static str,
    phase: &'static str,
    started_at: u64,
    taken_at: u64,
    readiness: Readiness,
    clients: Clients,
    clusters: Vec<Cluster<'a>>,
    pools: Vec<Pool<'a>>,
    pool_count: usize,
    held: Vec<(&'a str, bool, bool)>,
    bounds_us: [u64; BUCKETS.len()],
    totals: Totals,
}

#[derive(Debug, Serialize)]
struct Clients {
    connected: usize,
    limit: u32,
    active: usize,
    waiting: usize,
    idle: usize,
}

#[derive(Debug, Serialize)]
struct Cluster<'a> {
    name: &'a str,
    is_split: bool,
    timeline: u32,
    primary: Option<&'a str>,
    backends: Vec<Backend<'a>>,
}

#[derive(Debug, Serialize)]
struct Backend<'a> {
    name: &'a str,
    host: &'a str,
    port: u16,
    role: Option<String>,
    health: &'static str,
    breaker: &'static str,
    is_drained: bool,
    within_max_lag: bool,
    lag_ms: Option<u64>,
    lag_bytes: Option<u64>,
    timeline: u32,
    weight: u32,
    effective_weight: f64,
    in_use: usize,
    idle: usize,
    in_flight: usize,
    since: Option<u64>,
    last_error: Option<&'a str>,
    queries: u64,
}

#[derive(Debug, Serialize)]
struct Pool<'a> {
    database: &'a str,
    user: &'a str,
    cluster: &'a str,
    backend: &'a str,
    limit: usize,
    in_use: usize,
    idle: usize,
    waiting: usize,
    oldest_wait_ms: u64,
}

#[derive(Debug, Serialize)]
struct Totals {
    transactions: u64,
    received_bytes: u64,
    sent_bytes: u64,
    own_errors: u64,
    server_errors: u64,
    routes: BTreeMap<&'static str, u64>,
    reasons: Vec<(&'static str, &'static str, u64)>,
    latency: Buckets,
    latency_by_route: BTreeMap<&'static str, Buckets>,
    wait: Buckets,
}

/// The answer of `/api/details.json`.
#[derive(Debug, Serialize)]
pub(super) struct Details<'a> {
    statements: Vec<Shape<'a>>,
    statement_count: usize,
    events: Vec<Event<'a>>,
}

#[derive(Debug, Serialize)]
struct Shape<'a> {
    database: &'a str,
    fingerprint: String,
    shape: String,
    calls: u64,
    errors: u64,
    rows: u64,
    total_ms: f64,
    mean_ms: f64,
    p99_ms: Option<f64>,
    on_primary: u64,
    on_replica: u64,
    reason: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Event<'a> {
    id: u64,
    at: u64,
    kind: &'static str,
    subject: &'a str,
    message: &'a str,
}

/// Returns what the page shows each second.
pub(super) fn overview(facts: &Facts) -> Overview<'_> {
    let mut states = [0_usize; 3];
    for (_, counts) in &facts.client_states {
        for (sum, count) in states.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    let [active, waiting, idle] = states;
    Overview {
        version: facts.version,
        phase: facts.phase.name(),
        started_at: unix_ms(facts.started_at),
        taken_at: unix_ms(facts.taken_at),
        readiness: readiness(facts),
        clients: Clients {
            connected: facts.client_count,
            limit: facts.config.server.max_clients,
            active,
            waiting,
            idle,
        },
        clusters: facts
            .clusters
            .iter()
            .map(|one| cluster(facts, one))
            .collect(),
        pools: pools(facts),
        pool_count: facts.pools.len(),
        held: facts
            .held_databases
            .iter()
            .map(|(name, is_paused, is_disabled)| (&**name, *is_paused, *is_disabled))
            .collect(),
        bounds_us: BUCKETS,
        totals: totals(facts),
    }
}

fn cluster<'a>(facts: &'a Facts, cluster: &'a ClusterFacts) -> Cluster<'a> {
    let topology = &cluster.topology;
    let backends = topology.nodes.iter().zip(&cluster.nodes);
    Cluster {
        name: &cluster.name,
        is_split: topology.is_split,
        timeline: topology.timeline,
        primary: topology.primary().map(|node| &*node.name),
        backends: backends
            .map(|(node, known)| backend(facts, node, known))
            .collect(),
    }
}

fn backend<'a>(facts: &'a Facts, node: &'a Node, known: &'a NodeFacts) -> Backend<'a> {
    let pools = || facts.pools.iter().filter(|pool| pool.key.node == node.id);
    let counts = facts.counts.nodes.get(&node.id);
    Backend {
        name: &node.name,
        host: &node.host,
        port: node.port,
        role: node.role.map(|role| role.to_string()),
        health: match node.health {
            Health::Unknown => "unknown",
            Health::Up => "up",
            Health::Down => "down",
        },
        breaker: node.breaker.name(),
        is_drained: node.is_drained,
        within_max_lag: node.within_max_lag,
        lag_ms: node.lag.map(milliseconds),
        lag_bytes: node.lag_bytes,
        timeline: node.timeline,
        weight: node.weight,
        effective_weight: f64::from(node.effective_weight) / f64::from(Node::WEIGHT_SCALE),
        in_use: pools().map(crate::facts::PoolFacts::in_use).sum(),
        idle: pools().map(|pool| pool.idle).sum(),
        in_flight: known.in_flight,
        since: known.since.map(unix_ms),
        last_error: facts.last_error(node.id),
        queries: counts.map_or(0, |counts| counts.queries),
    }
}

fn pools(facts: &Facts) -> Vec<Pool<'_>> {
    let mut pools: Vec<Pool<'_>> = facts
        .pools
        .iter()
        .filter_map(|pool| {
            let (cluster, node) = facts.node(pool.key.node)?;
            Some(Pool {
                database: &pool.database,
                user: &pool.key.user,
                cluster: &cluster.name,
                backend: &node.name,
                limit: pool.limit,
                in_use: pool.in_use(),
                idle: pool.idle,
                waiting: pool.waiting,
                oldest_wait_ms: milliseconds(pool.oldest_wait.unwrap_or_default()),
            })
        })
        .collect();
    // By use only where they do not fit: rows that change places each second cannot be read.
    if pools.len() > POOLS_LIMIT {
        pools.sort_by_key(|pool| std::cmp::Reverse((pool.waiting, pool.in_use, pool.idle)));
        pools.truncate(POOLS_LIMIT);
    }
    pools.sort_by_key(|pool| (pool.database, pool.user, pool.backend));
    pools
}

fn totals(facts: &Facts) -> Totals {
    let mut totals = Totals {
        transactions: 0,
        received_bytes: 0,
        sent_bytes: 0,
        own_errors: 0,
        server_errors: 0,
        routes: Destination::ALL.iter().map(|d| (d.name(), 0)).collect(),
        reasons: Vec::new(),
        latency: [0; BUCKETS.len() + 1],
        latency_by_route: BTreeMap::new(),
        wait: [0; BUCKETS.len() + 1],
    };
    let (mut reasons, mut latency, mut wait) =
        (BTreeMap::new(), BTreeMap::new(), Histogram::default());
    for counts in facts.counts.databases.values() {
        totals.transactions += counts.transactions;
        totals.received_bytes += counts.received_bytes;
        totals.sent_bytes += counts.sent_bytes;
        totals.own_errors += counts.own_errors.values().sum::<u64>();
        totals.server_errors += counts.server_errors.values().sum::<u64>();
        for ((destination, reason), count) in &counts.routes {
            *totals.routes.entry(destination.name()).or_insert(0) += count;
            *reasons.entry((*destination, *reason)).or_insert(0) += count;
        }
        for (destination, histogram) in &counts.query {
            let sum: &mut Histogram = latency.entry(*destination).or_default();
            sum.add(histogram);
        }
        wait.add(&counts.wait);
    }
    let mut all = Histogram::default();
    for (destination, histogram) in latency {
        all.add(&histogram);
        let buckets = histogram.cumulative();
        totals.latency_by_route.insert(destination.name(), buckets);
    }
    totals.latency = all.cumulative();
    totals.wait = wait.cumulative();
    let rows = reasons.into_iter();
    totals.reasons = rows
        .map(|((destination, reason), count)| (destination.name(), reason.name(), count))
        .collect();
    totals
}

/// Returns what the page shows every few seconds.
pub(super) fn details(facts: &Facts) -> Details<'_> {
    let mut statements: Vec<&(StatementKey, Statement)> = facts.statements.iter().collect();
    statements.sort_by_key(|(key, statement)| (std::cmp::Reverse(statement.query.sum_us()), key));
    let shapes = statements.iter().take(STATEMENTS_LIMIT);
    let events = facts.events.iter().rev().take(EVENTS_LIMIT);
    Details {
        statements: shapes
            .map(|(key, statement)| shape(key, statement))
            .collect(),
        statement_count: statements.len(),
        events: events
            .map(|event| Event {
                id: event.id,
                at: unix_ms(event.at),
                kind: event.kind.name(),
                subject: &event.subject,
                message: &event.message,
            })
            .collect(),
    }
}

fn shape<'a>(key: &'a StatementKey, statement: &'a Statement) -> Shape<'a> {
    let ms = |us: u64| pgweir_metrics::seconds(us) * 1e3;
    Shape {
        database: &key.database,
        fingerprint: format!("{:016x}", key.fingerprint),
        shape: statement.shape.chars().take(SHAPE_CHARS_LIMIT).collect(),
        calls: statement.calls,
        errors: statement.errors,
        rows: statement.rows,
        total_ms: ms(statement.query.sum_us()),
        mean_ms: ms(statement.query.mean_us()),
        p99_ms: statement.query.quantile_us(0.99).map(|us| us / 1e3),
        on_primary: statement.on_primary,
        on_replica: statement.on_replica,
        reason: statement.last_reason.map(pgweir_model::Reason::name),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unix_ms(at: SystemTime) -> u64 {
    milliseconds(at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO))
}
