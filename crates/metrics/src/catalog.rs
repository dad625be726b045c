//! The one catalogue of what is exported: each metric with its name, kind, labels and help.
//!
//! The exposition, `docs/metrics.md`, the dashboard and the alerts are made from it or checked against it, so that a metric
//! exists in all of these or in none. Names follow <https://prometheus.io/docs/practices/naming/>: base units as suffixes,
//! `_total` for counters.
//!
//! ## Limits
//! No label holds SQL or anything else that a statement brings. Labels whose values are not fixed by the program or by the list
//! of servers are [`OPEN_LABELS`], and [`crate::Family::bounded`] keeps them in bounds.

use std::fmt::Write as _;

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It only rises, until the process is restarted.
    Counter,
    /// It rises and falls.
    Gauge,
    /// It counts durations by [`crate::BUCKETS`].
    Histogram,
    /// It is always 1: its labels are what it says.
    Info,
}

impl Kind {
    /// Returns its name in the documentation and in OpenMetrics.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name, with all suffixes but those that a histogram adds.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, in one sentence.
    pub help: &'static str,
}

impl Metric {
    /// Returns the name without the suffix that the kind asks for: that of the family in OpenMetrics.
    pub fn base_name(&self) -> &'static str {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        self.name.strip_suffix(suffix).unwrap_or(self.name)
    }

    /// Returns its unit, `seconds` or `bytes`, or nothing where it is a number of things.
    pub fn unit(&self) -> &'static str {
        ["seconds", "bytes"]
            .into_iter()
            .find(|unit| {
                self.base_name()
                    .strip_suffix(unit)
                    .is_some_and(|rest| rest.ends_with('_'))
            })
            .unwrap_or("")
    }
}

/// Labels whose values clients or servers bring, so that only a cap bounds how many there are.
pub const OPEN_LABELS: [&str; 4] = ["database", "user", "class", "sqlstate"];

/// Defines a constant for each metric, and the list of all.
macro_rules! catalog {
    ($($metric:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $metric: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )*

        /// Every metric, in the order of the exposition.
        pub const CATALOG: &[Metric] = &[$($metric),*];
    };
}

catalog! {
    BUILD = Info "pgweir_build_info" ["version"] "The version that runs.";
    PHASE = Gauge "pgweir_phase" ["phase"] "1 for the phase that the process is in: serving, lingering (no new clients, those that are there may stay), draining or stopping.";

    CLIENT_CONNECTIONS = Gauge "pgweir_client_connections" [] "Clients that are connected, logins under way included.";
    CLIENT_CONNECTIONS_LIMIT = Gauge "pgweir_client_connections_limit" [] "The setting max_clients.";
    CLIENTS = Gauge "pgweir_clients" ["database", "state"] "Clients that are logged in, by what they do: active, waiting or idle.";
    LOGINS = Counter "pgweir_logins_total" ["result"] "Logins, by whether they were accepted or refused.";
    CANCELS = Counter "pgweir_cancels_total" [] "Cancel requests of clients that were passed on to a server.";

    QUERIES = Counter "pgweir_queries_total" ["database", "route", "reason"] "Batches, by where they went (primary, replica, local) and why.";
    QUERIES_ANSWERED = Counter "pgweir_queries_answered_total" ["database"] "Batches that were answered: a simple query, or the extended messages up to a Sync.";
    TRANSACTIONS = Counter "pgweir_transactions_total" ["database"] "Transactions that have ended, each statement in autocommit being one.";
    QUERY_DURATION = Histogram "pgweir_query_duration_seconds" ["database", "route"] "Time from sending a batch to a server until it was answered.";
    WAIT_DURATION = Histogram "pgweir_wait_duration_seconds" ["database"] "Time in which batches waited for a server connection, those that got one at once left out.";
    TRANSACTION_TIME = Counter "pgweir_transaction_seconds_total" ["database"] "Time in which clients held a server connection in a transaction.";
    ASSIGNMENTS = Counter "pgweir_server_assignments_total" ["database"] "Times that a client was given a server connection.";
    RECEIVED = Counter "pgweir_client_received_bytes_total" ["database"] "Bytes from clients.";
    SENT = Counter "pgweir_client_sent_bytes_total" ["database"] "Bytes to clients.";
    CLIENT_PARSES = Counter "pgweir_client_parses_total" ["database"] "Parse messages of clients.";
    SERVER_PARSES = Counter "pgweir_server_parses_total" ["database"] "Parse messages that were sent to servers.";
    BINDS = Counter "pgweir_binds_total" ["database"] "Bind messages of clients.";
    SERVER_ERRORS = Counter "pgweir_server_errors_total" ["database", "class"] "Errors of servers that reached clients, by the class of their SQLSTATE.";
    OWN_ERRORS = Counter "pgweir_own_errors_total" ["database", "sqlstate"] "Errors that pgweir itself gave to clients, by SQLSTATE.";
    SPARED = Counter "pgweir_spared_errors_total" ["cause"] "Errors that clients did not see: reads run again after a replica refused (reroute) or failed (retry) them, statements prepared again (stale_plan).";
    DATABASE_PAUSED = Gauge "pgweir_database_paused" ["database"] "1 while the database is paused.";
    DATABASE_DISABLED = Gauge "pgweir_database_disabled" ["database"] "1 while the database refuses new clients.";

    POOL_CONNECTIONS = Gauge "pgweir_pool_connections" ["database", "user", "cluster", "backend", "state"] "Server connections: in_use (those being opened included) or idle.";
    POOL_LIMIT = Gauge "pgweir_pool_connections_limit" ["database", "user", "cluster", "backend"] "How many server connections the pool may have.";
    POOL_WAITING = Gauge "pgweir_pool_waiting_clients" ["database", "user", "cluster", "backend"] "Clients in line for a server connection.";
    POOL_OLDEST_WAIT = Gauge "pgweir_pool_oldest_wait_seconds" ["database", "user", "cluster", "backend"] "How long the first client in line has waited.";

    CLUSTER_HAS_PRIMARY = Gauge "pgweir_cluster_has_primary" ["cluster"] "1 while a server is known that takes writes.";
    CLUSTER_SPLIT = Gauge "pgweir_cluster_split" ["cluster"] "1 while several servers claim to be the primary on one timeline, and none takes writes.";
    CLUSTER_TIMELINE = Gauge "pgweir_cluster_timeline" ["cluster"] "The timeline of the primary.";
    CLUSTER_SEEN_AGE = Gauge "pgweir_cluster_seen_age_seconds" ["cluster"] "How old the picture of the servers is that routing goes by.";

    BACKEND_UP = Gauge "pgweir_backend_up" ["cluster", "backend"] "1 while the server answers, 0 while it does not or has not been asked yet.";
    BACKEND_ROLE = Gauge "pgweir_backend_role" ["cluster", "backend", "role"] "1 for the role that the server was last seen in: primary, replica or unknown.";
    BACKEND_LAG = Gauge "pgweir_backend_lag_seconds" ["cluster", "backend"] "Replay lag in time; absent while it is not known.";
    BACKEND_LAG_BYTES = Gauge "pgweir_backend_lag_bytes" ["cluster", "backend"] "Replay lag in WAL; absent while it is not known.";
    BACKEND_WITHIN_MAX_LAG = Gauge "pgweir_backend_within_max_lag" ["cluster", "backend"] "1 while the replay lag is within max_lag.";
    BACKEND_TIMELINE = Gauge "pgweir_backend_timeline" ["cluster", "backend"] "The timeline that the server was last seen on.";
    BACKEND_POSITION = Gauge "pgweir_backend_wal_position_bytes" ["cluster", "backend"] "The WAL position inserted (primary) or replayed (replica).";
    BACKEND_WEIGHT = Gauge "pgweir_backend_weight" ["cluster", "backend"] "The weight that is configured.";
    BACKEND_EFFECTIVE_WEIGHT = Gauge "pgweir_backend_effective_weight" ["cluster", "backend"] "The weight that reads are shared by, after lag and slow start.";
    BACKEND_BREAKER = Gauge "pgweir_backend_breaker" ["cluster", "backend", "state"] "1 for the state of the circuit breaker: closed, open or half_open.";
    BACKEND_DRAINED = Gauge "pgweir_backend_drained" ["cluster", "backend"] "1 while the server takes no new work because of DRAIN.";
    BACKEND_CHANGED = Gauge "pgweir_backend_changed_timestamp_seconds" ["cluster", "backend"] "Since when the server has its role and health, as Unix time.";
    BACKEND_CONNECTIONS = Gauge "pgweir_backend_connections" ["cluster", "backend", "state"] "Server connections over all pools: in_use (those being opened included) or idle.";
    BACKEND_IN_FLIGHT = Gauge "pgweir_backend_in_flight" ["cluster", "backend"] "Batches that the server has not answered yet.";
    BACKEND_CHECK_ERRORS = Counter "pgweir_backend_check_errors_total" ["cluster", "backend"] "Times that the server was found not to answer.";
    BACKEND_QUERIES = Counter "pgweir_backend_queries_total" ["cluster", "backend"] "Batches answered by the server.";
    BACKEND_QUERY_DURATION = Histogram "pgweir_backend_query_duration_seconds" ["cluster", "backend"] "Time from sending a batch to the server until it was answered.";
    BACKEND_CONNECTS = Counter "pgweir_backend_connects_total" ["cluster", "backend", "result"] "Server connections that were opened (ok), or could not be (failed).";
    BACKEND_LOSSES = Counter "pgweir_backend_connections_lost_total" ["cluster", "backend"] "Server connections that were lost while a client used them.";

    STATEMENTS_KEPT = Gauge "pgweir_statements_kept" [] "Shapes of statements in the statistics.";
    STATEMENTS_EVICTED = Counter "pgweir_statements_evicted_total" [] "Shapes that were dropped from the statistics to make room.";
    SPANS = Counter "pgweir_spans_total" ["result"] "Batches whose spans the collector has taken (exported) or not taken (failed), or that were dropped as too many waited for it.";
    RELOADS = Counter "pgweir_config_reloads_total" ["result"] "Reloads of the configuration file, by whether it was taken over (ok) or refused (failed).";
    RELOAD_OK = Gauge "pgweir_config_last_reload_ok" [] "1 unless the last reload was refused.";
    RESTART_NEEDED = Gauge "pgweir_config_restart_needed" [] "Settings that have been changed and hold only after a restart.";

    PROCESS_START = Gauge "process_start_time_seconds" [] "When the process was started, as Unix time.";
    PROCESS_CPU = Counter "process_cpu_seconds_total" [] "CPU time that the process has used, in user mode and in the kernel.";
    PROCESS_MEMORY = Gauge "process_resident_memory_bytes" [] "Memory that is resident (Linux).";
    PROCESS_FDS = Gauge "process_open_fds" [] "File descriptors that are open (Linux).";
    PROCESS_FDS_LIMIT = Gauge "process_max_fds" [] "How many file descriptors may be open.";
}

/// Returns the metric of a name; those that a histogram is exposed by are its own.
pub fn find(name: &str) -> Option<&'static Metric> {
    let exact = CATALOG.iter().find(|metric| metric.name == name);
    exact.or_else(|| {
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))?;
        CATALOG
            .iter()
            .find(|metric| metric.kind == Kind::Histogram && metric.name == base)
    })
}

/// Returns `docs/metrics.md`.
pub fn markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    page.push_str("\n| Name | Kind | Labels | Meaning |\n|---|---|---|---|\n");
    for metric in CATALOG {
        let labels: Vec<String> = metric
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} |",
            metric.name,
            metric.kind.name(),
            labels.join(", "),
            metric.help
        );
    }
    page
}

const INTRODUCTION: &str = "# Metrics, health and the page

Generated from `crates/metrics/src/catalog.rs`; do not edit by hand.

`http.listen` serves these, by default to this machine alone:

| Path | What |
|---|---|
| `/` | One page that shows the proxy live. |
| `/metrics` | All metrics, in Prometheus' text format or as OpenMetrics 1.0, as the scraper asks. |
| `/healthz` | 200 while the process lives. |
| `/readyz` | 200 while it serves and each cluster that a database uses has a server that takes work; else 503 with the reasons, as JSON. |

Nobody logs in there: whoever can connect can see it.
It shows the names of databases, users and servers, the addresses of servers and the last error of each, what was done on the console, and in the list of top statements their shapes: names of tables and columns, never a value.
Nothing can be changed by it.
Keep the address to a network that may see this, or put a proxy that asks for a password in front.

A cluster without a primary is still ready while a replica can take reads: statements that need the primary wait for it up to `failover_wait`, and with no proxy in the service there would be nobody for them to wait at.
Whether there is a primary stands in the answer and in `pgweir_cluster_has_primary`.

[deploy/prometheus.yml](../deploy/prometheus.yml) is an example of a scrape, [deploy/prometheus-alerts.yml](../deploy/prometheus-alerts.yml) has alerts and [deploy/grafana-dashboard.json](../deploy/grafana-dashboard.json) a dashboard.

## How many series there are

Clients choose names of databases and users, so their number has a cap: a metric has at most 1000 series of its own, a histogram 200.
Where there are more, the names that stand in the configuration are kept first, then the others in the order of the alphabet; those beyond the cap are added up under `other`.
Servers are those of the configuration, and all other labels have fixed values.
There is no metric per statement: the console's table `statements` has those.

## All of them

A duration's histogram has the buckets 50 µs, 100 µs, 200 µs, 500 µs, and so on in steps of 1, 2 and 5 up to 50 s.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions_and_are_unique() {
        let mut names = Vec::new();
        for metric in CATALOG {
            let name = metric.name;
            assert!(
                name.starts_with("pgweir_") || name.starts_with("process_"),
                "{name}"
            );
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{name}"
            );
            assert_eq!(
                name.ends_with("_total"),
                metric.kind == Kind::Counter,
                "{name}"
            );
            assert_eq!(name.ends_with("_info"), metric.kind == Kind::Info, "{name}");
            assert!(
                metric.kind != Kind::Histogram || metric.unit() == "seconds",
                "{name}"
            );
            assert!(metric.help.ends_with('.'), "{name}");
            names.push(metric.base_name());
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CATALOG.len());
    }

    #[test]
    fn the_series_of_a_histogram_are_found_by_their_names() {
        assert_eq!(find("pgweir_queries_total"), Some(&QUERIES));
        assert_eq!(
            find("pgweir_query_duration_seconds_bucket"),
            Some(&QUERY_DURATION)
        );
        assert_eq!(find("pgweir_queries_total_bucket"), None);
        assert_eq!(find("pgweir_nonsense"), None);
    }

    #[test]
    fn a_unit_is_a_whole_word_of_the_name() {
        assert_eq!(RECEIVED.unit(), "bytes");
        assert_eq!(TRANSACTION_TIME.unit(), "seconds");
        assert_eq!(QUERIES.unit(), "");
    }
}
