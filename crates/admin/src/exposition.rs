//! The facts as metrics: what `/metrics` writes and the console's table `metrics` shows.
//!
//! Each function fills the families of one subject; which families there are is the catalogue's to say.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgweir_metrics::catalog as m;
use pgweir_metrics::{
    DatabaseCounts, Family, Histogram, Metric, NodeCounts, Value, exposition, seconds,
};
use pgweir_model::{Breaker, Health, Node, Role};

use crate::control::Phase;
use crate::facts::{ClientState, ClusterFacts, Facts, NodeFacts};
use crate::process::ProcessStats;

/// Returns every metric of the catalogue with its series, in the catalogue's order, none with more series than it may have.
pub fn families(facts: &Facts) -> Vec<Family> {
    let mut all = Families(m::CATALOG.iter().copied().map(Family::new).collect());
    process(facts, &mut all);
    clients(facts, &mut all);
    for (database, counts) in &facts.counts.databases {
        database_counts(database, counts, &mut all);
        routes(database, counts, &mut all);
    }
    held(facts, &mut all);
    pools(facts, &mut all);
    for cluster in &facts.clusters {
        self::cluster(facts, cluster, &mut all);
    }
    let config = &facts.config;
    let is_known = |label: &str, value: &str| match label {
        "database" => config
            .databases
            .iter()
            .any(|database| &*database.name == value),
        "user" => config
            .users
            .iter()
            .any(|user| &*user.name == value || &**user.login() == value),
        _ => true,
    };
    let bounded = all.0.into_iter().map(|family| family.bounded(&is_known));
    bounded.collect()
}

/// Returns every line of the exposition: name, labels as they stand between the braces, value.
pub fn samples(facts: &Facts) -> Vec<(String, String, f64)> {
    families(facts)
        .iter()
        .flat_map(Family::samples)
        .map(|sample| {
            let labels = exposition::labels(&sample);
            (sample.name, labels, sample.value.as_f64())
        })
        .collect()
}

/// The families of the catalogue, by name.
struct Families(Vec<Family>);

impl Families {
    fn add(&mut self, metric: Metric, labels: &[&str], value: Value) {
        let family = self
            .0
            .iter_mut()
            .find(|family| family.metric().name == metric.name);
        if let Some(family) = family {
            family.add(labels, value);
        }
    }

    fn count(&mut self, metric: Metric, labels: &[&str], count: u64) {
        self.add(metric, labels, Value::Count(count));
    }

    fn size(&mut self, metric: Metric, labels: &[&str], size: usize) {
        self.count(metric, labels, u64::try_from(size).unwrap_or(u64::MAX));
    }

    fn flag(&mut self, metric: Metric, labels: &[&str], is_so: bool) {
        self.add(metric, labels, Value::flag(is_so));
    }

    fn peak(&mut self, metric: Metric, labels: &[&str], value: f64) {
        self.add(metric, labels, Value::Peak(value));
    }

    fn histogram(&mut self, metric: Metric, labels: &[&str], histogram: &Histogram) {
        self.add(metric, labels, Value::Histogram(Box::new(*histogram)));
    }
}

fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs_f64()
}

fn process(facts: &Facts, all: &mut Families) {
    all.count(m::BUILD, &[facts.version], 1);
    for phase in Phase::ALL {
        all.flag(m::PHASE, &[phase.name()], facts.phase == phase);
    }
    all.peak(m::PROCESS_START, &[], unix_seconds(facts.started_at));
    let stats = ProcessStats::read();
    if let Some(cpu) = stats.cpu_seconds {
        all.add(m::PROCESS_CPU, &[], Value::Sum(cpu));
    }
    if let Some(bytes) = stats.resident_bytes {
        all.count(m::PROCESS_MEMORY, &[], bytes);
    }
    if let Some(open) = stats.open_fds {
        all.size(m::PROCESS_FDS, &[], open);
    }
    if let Some(limit) = stats.fds_limit {
        all.count(m::PROCESS_FDS_LIMIT, &[], limit);
    }
    let counts = &facts.counts.process;
    all.count(m::RELOADS, &["ok"], counts.reloads);
    all.count(m::RELOADS, &["failed"], counts.reload_failures);
    all.flag(m::RELOAD_OK, &[], !counts.is_last_reload_failed);
    all.size(m::RESTART_NEEDED, &[], counts.settings_awaiting_restart);
    all.size(m::STATEMENTS_KEPT, &[], counts.statements_kept);
    all.count(m::STATEMENTS_EVICTED, &[], counts.statements_evicted);
    let spans = &counts.spans;
    for (result, count) in [
        ("exported", spans.exported),
        ("failed", spans.failed),
        ("dropped", spans.dropped),
    ] {
        all.count(m::SPANS, &[result], count);
    }
}

fn clients(facts: &Facts, all: &mut Families) {
    all.size(m::CLIENT_CONNECTIONS, &[], facts.client_count);
    let limit = u64::from(facts.config.server.max_clients);
    all.count(m::CLIENT_CONNECTIONS_LIMIT, &[], limit);
    let states = [ClientState::Active, ClientState::Waiting, ClientState::Idle];
    for (database, counts) in &facts.client_states {
        for (state, count) in states.into_iter().zip(*counts) {
            all.size(m::CLIENTS, &[database, state.name()], count);
        }
    }
    let counts = &facts.counts;
    all.count(m::LOGINS, &["accepted"], counts.logins);
    all.count(m::LOGINS, &["refused"], counts.logins_refused);
    all.count(m::CANCELS, &[], counts.cancels);
    all.count(m::SPARED, &["reroute"], counts.spared.reroutes);
    all.count(m::SPARED, &["retry"], counts.spared.retries);
    all.count(m::SPARED, &["stale_plan"], counts.spared.stale_plans);
}

fn database_counts(database: &str, counts: &DatabaseCounts, all: &mut Families) {
    let labels = &[database];
    all.count(m::QUERIES_ANSWERED, labels, counts.queries);
    all.count(m::TRANSACTIONS, labels, counts.transactions);
    let held = seconds(counts.transaction_us);
    all.add(m::TRANSACTION_TIME, labels, Value::Sum(held));
    all.count(m::ASSIGNMENTS, labels, counts.assignments);
    all.count(m::RECEIVED, labels, counts.received_bytes);
    all.count(m::SENT, labels, counts.sent_bytes);
    all.count(m::CLIENT_PARSES, labels, counts.client_parses);
    all.count(m::SERVER_PARSES, labels, counts.server_parses);
    all.count(m::BINDS, labels, counts.binds);
    all.histogram(m::WAIT_DURATION, labels, &counts.wait);
}

fn routes(database: &str, counts: &DatabaseCounts, all: &mut Families) {
    for ((destination, reason), count) in &counts.routes {
        let labels = &[database, destination.name(), reason.name()];
        all.count(m::QUERIES, labels, *count);
    }
    for (destination, histogram) in &counts.query {
        all.histogram(
            m::QUERY_DURATION,
            &[database, destination.name()],
            histogram,
        );
    }
    for (class, count) in &counts.server_errors {
        let class = std::str::from_utf8(class).unwrap_or("");
        let class = if SQLSTATE_CLASSES.contains(&class) {
            class
        } else {
            pgweir_metrics::OTHER
        };
        all.count(m::SERVER_ERRORS, &[database, class], *count);
    }
    for (sqlstate, count) in &counts.own_errors {
        let sqlstate = std::str::from_utf8(sqlstate).unwrap_or(pgweir_metrics::OTHER);
        all.count(m::OWN_ERRORS, &[database, sqlstate], *count);
    }
}

/// The classes of <https://www.postgresql.org/docs/current/errcodes-appendix.html>. A function may raise an error with any
/// SQLSTATE; classes that are not here count as other.
const SQLSTATE_CLASSES: [&str; 43] = [
    "00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "21", "22",
    "23", "24", "25", "26", "27", "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40",
    "42", "44", "53", "54", "55", "57", "58", "F0", "HV", "P0", "XX",
];

fn held(facts: &Facts, all: &mut Families) {
    // Those that stand in the configuration are always there, so that an alert sees the moment at which one is paused.
    for database in facts.config.databases.iter().filter(|d| &*d.name != "*") {
        all.flag(m::DATABASE_PAUSED, &[&database.name], false);
        all.flag(m::DATABASE_DISABLED, &[&database.name], false);
    }
    for (database, is_paused, is_disabled) in &facts.held_databases {
        all.flag(m::DATABASE_PAUSED, &[database], *is_paused);
        all.flag(m::DATABASE_DISABLED, &[database], *is_disabled);
    }
}

fn pools(facts: &Facts, all: &mut Families) {
    for pool in &facts.pools {
        let Some((cluster, node)) = facts.node(pool.key.node) else {
            continue;
        };
        let labels = [
            &*pool.database,
            &*pool.key.user,
            &*cluster.name,
            &*node.name,
        ];
        let [database, user, cluster, backend] = labels;
        for (state, count) in [("in_use", pool.in_use()), ("idle", pool.idle)] {
            let labels = [database, user, cluster, backend, state];
            all.size(m::POOL_CONNECTIONS, &labels, count);
            all.size(m::BACKEND_CONNECTIONS, &[cluster, backend, state], count);
        }
        all.size(m::POOL_LIMIT, &labels, pool.limit);
        all.size(m::POOL_WAITING, &labels, pool.waiting);
        let waited = pool.oldest_wait.unwrap_or_default();
        all.peak(m::POOL_OLDEST_WAIT, &labels, waited.as_secs_f64());
    }
}

fn cluster(facts: &Facts, cluster: &ClusterFacts, all: &mut Families) {
    let topology = &cluster.topology;
    let labels = &[&*cluster.name];
    all.flag(m::CLUSTER_HAS_PRIMARY, labels, topology.primary().is_some());
    all.flag(m::CLUSTER_SPLIT, labels, topology.is_split);
    all.peak(m::CLUSTER_TIMELINE, labels, f64::from(topology.timeline));
    if let Some(at) = topology.published_at {
        let age = facts.now.saturating_duration_since(at);
        all.peak(m::CLUSTER_SEEN_AGE, labels, age.as_secs_f64());
    }
    for (node, seen) in topology.nodes.iter().zip(&cluster.nodes) {
        let labels = &[&*cluster.name, &*node.name];
        backend(node, labels, all);
        backend_facts(seen, labels, all);
        let none = NodeCounts::default();
        let counts = facts.counts.nodes.get(&node.id);
        backend_counts(counts.unwrap_or(&none), labels, all);
    }
}

fn backend(node: &Node, labels: &[&str; 2], all: &mut Families) {
    let [cluster, name] = *labels;
    all.flag(m::BACKEND_UP, labels, node.health == Health::Up);
    let roles = [
        ("primary", Some(Role::Primary)),
        ("replica", Some(Role::Replica)),
        ("unknown", None),
    ];
    for (word, role) in roles {
        all.flag(m::BACKEND_ROLE, &[cluster, name, word], node.role == role);
    }
    if let Some(lag) = node.lag {
        all.peak(m::BACKEND_LAG, labels, lag.as_secs_f64());
    }
    if let Some(bytes) = node.lag_bytes {
        all.count(m::BACKEND_LAG_BYTES, labels, bytes);
    }
    let is_primary = node.role == Some(Role::Primary);
    let is_close = is_primary || node.within_max_lag;
    all.flag(m::BACKEND_WITHIN_MAX_LAG, labels, is_close);
    all.flag(m::BACKEND_DRAINED, labels, node.is_drained);
    all.count(m::BACKEND_TIMELINE, labels, u64::from(node.timeline));
    all.count(m::BACKEND_POSITION, labels, node.position.0);
    all.count(m::BACKEND_WEIGHT, labels, u64::from(node.weight));
    let effective = f64::from(node.effective_weight) / f64::from(Node::WEIGHT_SCALE);
    all.peak(m::BACKEND_EFFECTIVE_WEIGHT, labels, effective);
    let breakers = [
        Breaker::Closed,
        Breaker::Open,
        Breaker::HalfOpen { trials: 0 },
    ];
    for state in breakers.map(Breaker::name) {
        let is_so = node.breaker.name() == state;
        all.flag(m::BACKEND_BREAKER, &[cluster, name, state], is_so);
    }
    // Pools add to these; a server without one has none.
    for state in ["in_use", "idle"] {
        all.size(m::BACKEND_CONNECTIONS, &[cluster, name, state], 0);
    }
}

fn backend_facts(node: &NodeFacts, labels: &[&str; 2], all: &mut Families) {
    all.size(m::BACKEND_IN_FLIGHT, labels, node.in_flight);
    all.count(m::BACKEND_CHECK_ERRORS, labels, node.errors);
    if let Some(since) = node.since {
        all.peak(m::BACKEND_CHANGED, labels, unix_seconds(since));
    }
}

fn backend_counts(counts: &NodeCounts, labels: &[&str; 2], all: &mut Families) {
    let [cluster, name] = *labels;
    all.count(m::BACKEND_QUERIES, labels, counts.queries);
    all.histogram(m::BACKEND_QUERY_DURATION, labels, &counts.query);
    for (result, count) in [("ok", counts.connects), ("failed", counts.connect_failures)] {
        all.count(m::BACKEND_CONNECTS, &[cluster, name, result], count);
    }
    all.count(m::BACKEND_LOSSES, labels, counts.losses);
}
