//! The one table of every setting: what it is called, what it takes, what it is when not given.
//!
//! ## Why
//! The reader takes ranges, words and defaults from here, so the documentation, the default file and the suggestions for
//! misspelt keys cannot disagree with what the program does.

use std::fmt::Write;

/// Where a setting stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// `[server]`
    Server,
    /// `[clusters.X]`
    Cluster,
    /// One entry of `backends` in `[clusters.X]`
    Backend,
    /// `[clusters.X.breaker]`
    Breaker,
    /// `[databases.X]`
    Database,
    /// `[[users]]`
    User,
    /// `[auth]`
    Auth,
    /// `[admin]`
    Admin,
    /// `[http]`
    Http,
    /// `[log]`
    Log,
    /// `[telemetry]`
    Telemetry,
    /// `[[rules]]`
    Rule,
    /// `match` in `[[rules]]`
    RuleMatch,
    /// `action` in `[[rules]]`
    RuleAction,
}

impl Table {
    /// Every table, in the order of the documentation.
    pub const ALL: [Table; 14] = [
        Table::Server,
        Table::Cluster,
        Table::Backend,
        Table::Breaker,
        Table::Database,
        Table::User,
        Table::Auth,
        Table::Admin,
        Table::Http,
        Table::Log,
        Table::Telemetry,
        Table::Rule,
        Table::RuleMatch,
        Table::RuleAction,
    ];

    /// Returns how the table is written.
    pub fn heading(self) -> &'static str {
        match self {
            Table::Server => "[server]",
            Table::Cluster => "[clusters.X]",
            Table::Backend => "[clusters.X] backends",
            Table::Breaker => "[clusters.X.breaker]",
            Table::Database => "[databases.X]",
            Table::User => "[[users]]",
            Table::Auth => "[auth]",
            Table::Admin => "[admin]",
            Table::Http => "[http]",
            Table::Log => "[log]",
            Table::Telemetry => "[telemetry]",
            Table::Rule => "[[rules]]",
            Table::RuleMatch => "[[rules]] match",
            Table::RuleAction => "[[rules]] action",
        }
    }

    /// Returns its name in the file, without those of the tables that it stands in.
    pub fn name(self) -> &'static str {
        match self {
            Table::Server => "server",
            Table::Cluster => "clusters",
            Table::Backend => "backends",
            Table::Breaker => "breaker",
            Table::Database => "databases",
            Table::User => "users",
            Table::Auth => "auth",
            Table::Admin => "admin",
            Table::Http => "http",
            Table::Log => "log",
            Table::Telemetry => "telemetry",
            Table::Rule => "rules",
            Table::RuleMatch => "match",
            Table::RuleAction => "action",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Table::Server => "The listening side, the limits and the timeouts.",
            Table::Cluster => "A primary and its replicas. At least one.",
            Table::Backend => {
                "One server of a cluster, as in `backends = [{ host = \"pg1\" }, { host = \"pg2\" }]`."
            }
            Table::Breaker => {
                "When a server that answers the monitor takes no reads all the same: connections to it fail or break. A replica \
                 is left in use while no other one can take its reads; the primary always is."
            }
            Table::Database => {
                "A database as clients name it; `[databases.\"*\"]` serves every other name. With one cluster and no database \
                 at all, `\"*\"` is there by itself."
            }
            Table::User => "A login that clients may use.",
            Table::Auth => "How clients prove who they are.",
            Table::Admin => {
                "The console: a database of its own on the same port, in which the proxy itself is looked at and changed by SQL. \
                 Its users log in as all others do, and stand under `[[users]]`."
            }
            Table::Http => "Metrics, health and the status page.",
            Table::Log => "What is written to the log.",
            Table::Telemetry => "Traces of statements, exported by OpenTelemetry's protocol.",
            Table::Rule => {
                "What to do with statements, as in `match = { user = \"report\", tables = [\"orders\"] }` and \
                 `action = { route = \"replica\", max_lag = \"30s\" }`. The first rule whose `match` holds wins. A hint in the \
                 statement and what the session set (`SET pgweir.*`) stand above rules, except above `block`. Rules see \
                 what the client sends: not what a view or a function does, and nothing of a batch above `route_buffer`."
            }
            Table::RuleMatch => {
                "When a rule holds: all that is given must. An empty one, `match = {}`, always does."
            }
            Table::RuleAction => "What follows from a rule; at least one.",
        }
    }
}

/// What a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A list of `host:port` and `unix:/folder`.
    Addresses,
    /// A whole number.
    Integer {
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
    /// A number with one of `us ms s min h d`.
    Duration {
        /// What `"0"` means.
        zero: Zero,
    },
    /// A number with one of `B kB MB GB TB`.
    Size {
        /// The least, in bytes.
        min: u32,
        /// The most, in bytes.
        max: u32,
    },
    /// A duration or a size.
    Lag,
    /// One of a few words.
    Word {
        /// Those that work.
        now: &'static [&'static str],
        /// Those that are specified and not built in this version.
        later: &'static [&'static str],
    },
    /// A name.
    Name,
    /// A host name, an IP address, or the folder of a socket.
    Host,
    /// A password or `{ env = "NAME" }`.
    Password,
    /// A file name.
    Path,
    /// The list of servers.
    Backends,
    /// A list of functions.
    Functions,
    /// A list of names.
    Names,
    /// `host:port`, or `off`.
    HttpAddress,
    /// The address of a collector, `http://host:port`.
    Endpoint,
    /// A level of the log, or a list of `target=level`.
    LogLevel,
    /// A table of its own within this one.
    Part,
    /// A list of tables of the database.
    Tables,
    /// A regular expression.
    Pattern,
    /// 16 hexadecimal digits.
    Fingerprint,
    /// `auto`, `primary`, `replica`, or the name of a backend.
    Route,
    /// A text for people.
    Text,
}

/// What a duration of `"0"` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zero {
    /// The limit is off.
    Off,
    /// Nothing is waited for.
    Immediate,
    /// It is refused: the wait needs a limit.
    Refused,
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Where it stands.
    pub table: Table,
    /// Its key there.
    pub key: &'static str,
    /// What it takes, with the unit or the range.
    pub kind: Kind,
    /// The default, as TOML; `None` where it must be given or may be absent, which the description says.
    pub default: Option<&'static str>,
    /// Whether SIGHUP takes a new value over; else it needs a restart.
    pub reloadable: bool,
    /// One line of description.
    pub about: &'static str,
}

/// Whether SIGHUP takes a new value over.
#[derive(Clone, Copy, PartialEq)]
enum Reload {
    Yes,
    No,
}
use Reload::{No, Yes};

const fn duration(zero: Zero) -> Kind {
    Kind::Duration { zero }
}

const fn words(now: &'static [&'static str], later: &'static [&'static str]) -> Kind {
    Kind::Word { now, later }
}

const fn integer(min: u32, max: u32) -> Kind {
    Kind::Integer { min, max }
}

const fn server(
    key: &'static str,
    kind: Kind,
    default: &'static str,
    reload: Reload,
    about: &'static str,
) -> Setting {
    let reloadable = matches!(reload, Yes);
    Setting {
        table: Table::Server,
        key,
        kind,
        default: Some(default),
        reloadable,
        about,
    }
}

const fn given(
    table: Table,
    key: &'static str,
    kind: Kind,
    reload: Reload,
    about: &'static str,
) -> Setting {
    Setting {
        table,
        key,
        kind,
        default: None,
        reloadable: matches!(reload, Yes),
        about,
    }
}

impl Setting {
    const fn or(mut self, default: &'static str) -> Setting {
        self.default = Some(default);
        self
    }
}

/// Every setting, in the order of the documentation.
///
/// Defaults are chosen to be safe on a first day: bounded everywhere, and nothing that trades correctness for speed.
#[rustfmt::skip] // one line each: it is a table
pub const SETTINGS: &[Setting] = &[
    server("listen", Kind::Addresses, r#"["127.0.0.1:6432"]"#, No, "Addresses that clients connect to; `unix:/folder` holds `.s.PGSQL.<port>` with the port of the first TCP address, else 6432."),
    server("workers", integer(0, 1024), "0", No, "Worker threads; 0 is one per core."),
    server("max_clients", integer(1, 10_000_000), "10000", Yes, "Clients at once; one more is refused with 53300."),
    server("query_wait_timeout", duration(Zero::Refused), r#""120s""#, Yes, "How long a client waits for a server connection before 57014."),
    server("connect_timeout", duration(Zero::Refused), r#""5s""#, Yes, "How long opening a server connection may take, login included."),
    server("auth_timeout", duration(Zero::Refused), r#""30s""#, Yes, "How long a client may take to log in."),
    server("shutdown_timeout", duration(Zero::Immediate), r#""30s""#, Yes, "How long SIGTERM waits for running transactions."),
    server("server_idle_timeout", duration(Zero::Off), r#""10min""#, Yes, "How long a server connection stays open unused."),
    server("server_lifetime", duration(Zero::Off), r#""1h""#, Yes, "How old a server connection grows before it is replaced when next given back."),
    server("client_idle_timeout", duration(Zero::Off), r#""0""#, Yes, "How long a client may do nothing outside of a transaction before its session ends with 57P05. Kept to within a tenth of a second, as the next one."),
    server("idle_in_transaction_timeout", duration(Zero::Off), r#""0""#, Yes, "How long a client may do nothing in an open transaction before it is rolled back and the session ends with 25P03; also in one that no server has begun yet."),
    server("max_message", Kind::Size { min: 65_536, max: 2_147_483_647 }, r#""1GiB""#, Yes, "The largest message that is accepted; a larger one is refused with 54000."),
    server("route_buffer", Kind::Size { min: 1024, max: 1 << 30 }, r#""1MiB""#, Yes, "How much of a batch is held back to be classified; a larger batch goes to the primary."),
    server("prepared_statements_per_server", integer(1, 1_000_000), "500", Yes, "Prepared statements kept on each server connection; the least recently used goes first."),
    server("statement_cache", integer(1, 10_000_000), "4096", No, "Statement shapes whose classification each worker remembers."),
    server("max_queue", integer(1, 10_000_000), "100000", Yes, "Clients waiting per pool; one more is refused with 53400."),
    server("tcp_keepalive", duration(Zero::Off), r#""60s""#, Yes, "Idle time before TCP keepalive probes, on both sides."),
    server("tcp_user_timeout", duration(Zero::Off), r#""0""#, Yes, "How long sent bytes may stay unacknowledged before a connection is given up (Linux); off leaves it to the system."),
    server("statement_statistics", integer(0, 1_000_000), "1000", Yes, "Statement shapes whose statistics each worker keeps, the least recently used going first; 0 keeps none."),
    given(Table::Server, "zone", Kind::Name, Yes, "Where the proxy stands, for clusters with `balance = \"nearest\"`. None by default."),

    given(Table::Cluster, "backends", Kind::Backends, No, "The servers. Required."),
    given(Table::Cluster, "user", Kind::Name, No, "The role that the control plane logs in as.").or(r#""pgweir_monitor""#),
    given(Table::Cluster, "password", Kind::Password, Yes, "Its password. None by default."),
    given(Table::Cluster, "password_file", Kind::Path, Yes, "A file that holds its password instead, relative to this file."),
    given(Table::Cluster, "database", Kind::Name, No, "The database that the control plane connects to.").or(r#""postgres""#),
    given(Table::Cluster, "lag_poll", duration(Zero::Refused), Yes, "Time between two looks at every server.").or(r#""100ms""#),
    given(Table::Cluster, "max_lag", Kind::Lag, Yes, "The replay lag above which a replica takes no reads, in time or in bytes of WAL.").or(r#""5s""#),
    given(Table::Cluster, "catalog_refresh", duration(Zero::Refused), Yes, "Time between two looks at the catalog of a database that is in use; DDL through the proxy brings the next one forward.").or(r#""60s""#),
    given(Table::Cluster, "failover_wait", duration(Zero::Immediate), Yes, "How long a statement that needs the primary waits for one, or for a connection to it, before 57P03.").or(r#""30s""#),
    given(Table::Cluster, "breaker", Kind::Part, Yes, "When a server takes no reads though it answers the monitor. All defaults if it is not given."),
    given(Table::Cluster, "balance", words(&["least_loaded", "round_robin", "random", "nearest"], &[]), Yes, "How one of the eligible replicas is chosen, each time by weight: away from one that has clearly more in flight than another; in a fixed order; by lot; or as the first, within the proxy's `zone` while a replica there is eligible and not clearly busier than those elsewhere.").or(r#""least_loaded""#),
    given(Table::Cluster, "primary_reads", words(&["never", "fallback", "share"], &[]), Yes, "Whether the primary takes reads: never, so that a read waits for an eligible replica up to `query_wait_timeout`, also for one that has replayed what the session wrote; where no replica is eligible; or by its `weight`, as a replica without lag.").or(r#""fallback""#),

    given(Table::Backend, "name", Kind::Name, No, "Its name in the console and the logs. By default `host:port`."),
    given(Table::Backend, "host", Kind::Host, No, "Host name, IP address, or `unix:/folder` of a socket. Required."),
    given(Table::Backend, "port", integer(1, 65_535), No, "Port.").or("5432"),
    given(Table::Backend, "role", words(&["auto", "primary", "replica"], &[]), No, "The role that it is expected in: what the server says counts, and a difference is logged.").or(r#""auto""#),
    given(Table::Backend, "weight", integer(0, 1_000_000), Yes, "Share of the reads relative to the other replicas; 0 takes none.").or("100"),
    given(Table::Backend, "zone", Kind::Name, Yes, "Where it stands, for `balance = \"nearest\"`. None by default."),

    given(Table::Breaker, "failures", integer(1, 1_000_000), Yes, "Connections to a server that fail or break in a row, none of them answering in between, until it takes no reads.").or("5"),
    given(Table::Breaker, "open_for", duration(Zero::Refused), Yes, "How long it then takes none at all.").or(r#""5s""#),
    given(Table::Breaker, "half_open_trials", integer(1, 1000), Yes, "How many reads at once, per worker, then try it; the first that is answered brings it back, the first that fails keeps it off for another `open_for`.").or("1"),

    given(Table::Database, "cluster", Kind::Name, No, "The cluster that has it. Required where there are several."),
    given(Table::Database, "dbname", Kind::Name, No, "Its real name on the servers. By default the name that the client gave."),
    given(Table::Database, "pool_mode", words(&["session", "transaction", "statement"], &[]), No, "When a client gives its server connection back.").or(r#""transaction""#),
    given(Table::Database, "pool_size", integer(1, 100_000), Yes, "Server connections per user and backend, at most.").or("20"),
    given(Table::Database, "pool_min", integer(0, 100_000), Yes, "Server connections per user and backend that are kept open once there was one: missing ones are opened within seconds.").or("0"),
    given(Table::Database, "pool_reserve", integer(0, 100_000), Yes, "Server connections per user and backend beyond `pool_size`, opened for those who have waited for `pool_reserve_after`, and closed when nobody waits.").or("0"),
    given(Table::Database, "pool_reserve_after", duration(Zero::Immediate), Yes, "How long the first in line waits before it gets one of `pool_reserve`, to within a tenth of a second.").or(r#""5s""#),
    given(Table::Database, "max_backend_connections", integer(0, 1_000_000), Yes, "Server connections per backend over all users, at most; 0 is no limit. Who waits longest comes first, and an idle connection of another user is closed to make room.").or("0"),
    given(Table::Database, "consistency", words(&["session", "eventual", "strong"], &[]), Yes, "What a read may see: `session`, every write of this session and never an older state than it has seen; `eventual`, any state within `max_lag`; `strong`, every write that was committed anywhere before the read began.").or(r#""session""#),
    given(Table::Database, "transaction_reads", words(&["primary", "until_write"], &[]), Yes, "Where the reads of a transaction run that was not opened READ ONLY: on the primary, or on a replica until its first write.").or(r#""until_write""#),
    given(Table::Database, "pin_reads", words(&["primary", "replica"], &[]), Yes, "Where a session reads that is pinned by LISTEN, a cursor WITH HOLD or PREPARE in SQL: on its connection, or on a replica if the read cannot see any of that.").or(r#""primary""#),
    given(Table::Database, "read_retries", integer(0, 100), Yes, "How often a read is tried elsewhere after a replica has failed it: on other replicas, the last time on the primary.").or("2"),
    given(Table::Database, "causal_wait", duration(Zero::Immediate), Yes, "How long a read waits for a replica that shows what it must see, where one is that close, before it goes to the primary.").or(r#""10ms""#),
    given(Table::Database, "splitting", words(&["off", "observe", "on"], &[]), Yes, "Whether reads leave the primary; `observe` counts what would have gone where: `SHOW pgweir.observed`.").or(r#""on""#),
    given(Table::Database, "replica_safe_functions", Kind::Functions, Yes, "Functions that a replica may run although they are volatile; a name without a schema means every schema.").or("[]"),
    given(Table::Database, "primary_only_functions", Kind::Functions, Yes, "Functions that only the primary may run, whatever they are declared as.").or("[]"),
    given(Table::Database, "foreign_tables", words(&["primary", "replica"], &[]), Yes, "Where foreign tables are read.").or(r#""primary""#),

    given(Table::User, "name", Kind::Name, Yes, "Role name. Required."),
    given(Table::User, "password", Kind::Password, Yes, "Clear text, a SCRAM-SHA-256 verifier, or `md5` and 32 digits. Required unless the method is trust."),
    given(Table::User, "password_file", Kind::Path, Yes, "A file that holds the password instead, relative to this file."),
    given(Table::User, "server_user", Kind::Name, Yes, "The role that pgweir logs in as on the servers. By default the same."),
    given(Table::User, "server_password", Kind::Password, Yes, "The password for that, where `password` is a verifier or another. By default the same."),
    given(Table::User, "server_password_file", Kind::Path, Yes, "A file that holds that password instead, relative to this file."),

    given(Table::Auth, "method", words(&["trust", "password", "md5", "scram-sha-256"], &["cert"]), Yes, "What is asked of a client.").or(r#""scram-sha-256""#),

    given(Table::Admin, "database", Kind::Name, No, "The name of the console's database; a database of the servers with this name cannot be reached.").or(r#""pgweir""#),
    given(Table::Admin, "users", Kind::Names, Yes, "Users who may look at everything and change it.").or("[]"),
    given(Table::Admin, "viewers", Kind::Names, Yes, "Users who may only look.").or("[]"),
    given(Table::Admin, "statement_timeout", duration(Zero::Refused), Yes, "How long a statement on the console may compute before it is cancelled with 57014; waiting for clients, as `PAUSE` does, does not count.").or(r#""10s""#),

    given(Table::Http, "listen", Kind::HttpAddress, Yes, "Where `/metrics`, `/healthz`, `/readyz` and the page are served, to everybody who can connect. The proxy starts without them where the address is taken.").or(r#""127.0.0.1:9632""#),

    given(Table::Log, "level", Kind::LogLevel, Yes, "`error`, `warn`, `info`, `debug` or `trace`, or a list of `target=level`; the command line stands above it.").or(r#""info""#),
    given(Table::Log, "format", words(&["text", "json"], &[]), No, "Lines for people, or one JSON object per line.").or(r#""text""#),
    given(Table::Log, "slow_statements", duration(Zero::Off), Yes, "Batches that take longer, waiting included, are logged with fingerprint, route, reason and times.").or(r#""1s""#),
    given(Table::Log, "statements", words(&["shape", "text"], &[]), Yes, "How a statement stands in the log: with its literals taken out, or as it was sent, values and all.").or(r#""shape""#),

    given(Table::Telemetry, "endpoint", Kind::Endpoint, No, "The collector that takes OTLP over HTTP, as in `http://127.0.0.1:4318`. None by default: nothing is traced."),
    given(Table::Telemetry, "service_name", Kind::Name, No, "The `service.name` of the traces.").or(r#""pgweir""#),
    given(Table::Telemetry, "sample_one_in", integer(1, 1_000_000), Yes, "One batch in so many is traced, where the statement brings no `traceparent`; that of one that does is followed.").or("1"),

    given(Table::Rule, "name", Kind::Name, Yes, "What it is called in `EXPLAIN ROUTE`, the logs and errors. By default its number, from 1."),
    given(Table::Rule, "match", Kind::Part, Yes, "When it holds. Required."),
    given(Table::Rule, "action", Kind::Part, Yes, "What follows. Required."),

    given(Table::RuleMatch, "user", Kind::Name, Yes, "The role that the client logged in as."),
    given(Table::RuleMatch, "database", Kind::Name, Yes, "The database as the client named it."),
    given(Table::RuleMatch, "application", Kind::Name, Yes, "The `application_name` that the client logged in with."),
    given(Table::RuleMatch, "tables", Kind::Tables, Yes, "The statement names one of these; a name without schema is in any, and a statement that gives none may mean any."),
    given(Table::RuleMatch, "regex", Kind::Pattern, Yes, "Found in the statement's shape: lower case, one blank where there is white space, no comments but hints, numbers as `0` and strings as `''`."),
    given(Table::RuleMatch, "fingerprint", Kind::Fingerprint, Yes, "That of the statement's shape, as `pgweir route` and `EXPLAIN ROUTE` print it."),
    given(Table::RuleMatch, "kind", words(&["select", "insert", "update", "delete", "merge", "copy", "call", "do", "ddl"], &[]), Yes, "What the statement, or one of a text of several, is by its leading words."),

    given(Table::RuleAction, "route", Kind::Route, Yes, "Where it goes; a known write that would go to a replica is refused with 25006."),
    given(Table::RuleAction, "max_lag", Kind::Lag, Yes, "How far a replica may be behind for it, in place of the cluster's `max_lag`."),
    given(Table::RuleAction, "consistency", words(&["session", "eventual", "strong"], &[]), Yes, "What it may see, in place of the database's `consistency`."),
    given(Table::RuleAction, "timeout", duration(Zero::Refused), Yes, "How long its batch may run on a server before it is cancelled there with 57014, to within a tenth of a second. Waiting for a server does not count."),
    given(Table::RuleAction, "block", Kind::Text, Yes, "It is refused with 42501 and this message. Stands alone."),
];

/// Keys that are specified and not built in this version; `None` is the top level.
const LATER: &[(Option<Table>, &[&str])] = &[
    (None, &["cache"]),
    (Some(Table::Server), &["tls", "proxy_protocol"]),
    (Some(Table::Cluster), &["tls", "dns_ttl", "discovery"]),
    (
        Some(Table::Database),
        &["shards", "default_shard", "two_phase", "tables"],
    ),
    (Some(Table::Auth), &["query", "hba_file"]),
    (Some(Table::RuleAction), &["cache", "mirror"]),
];

/// Tables of the top level.
pub(crate) const TOP: [&str; 10] = [
    "server",
    "clusters",
    "databases",
    "users",
    "auth",
    "admin",
    "http",
    "log",
    "telemetry",
    "rules",
];

/// Returns a setting by its place.
pub fn find(table: Table, key: &str) -> Option<&'static Setting> {
    SETTINGS
        .iter()
        .find(|setting| setting.table == table && setting.key == key)
}

/// Returns the settings of a table.
pub fn of(table: Table) -> impl Iterator<Item = &'static Setting> {
    SETTINGS
        .iter()
        .filter(move |setting| setting.table == table)
}

/// Returns whether a key is specified but not built; `None` is the top level.
pub(crate) fn is_later(table: Option<Table>, key: &str) -> bool {
    LATER
        .iter()
        .any(|(place, keys)| *place == table && keys.contains(&key))
}

/// Returns the candidate that `name` may be a slip of, if one is near enough: a third of its letters may be wrong.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let letters = name.chars().count();
    let wrong = |candidate: &'a str| {
        let candidate = candidate.to_lowercase();
        let others = candidate.chars().count();
        let most = others.max(letters).max(3) / 3;
        // They differ by as many letters at least; to count them takes as long as both are long.
        let distance =
            (others.abs_diff(letters) <= most).then(|| strsim::osa_distance(&name, &candidate));
        distance.filter(|distance| *distance <= most)
    };
    candidates
        .filter_map(|candidate| Some((wrong(candidate)?, candidate)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

impl Kind {
    /// Returns what it takes, in words.
    pub fn describe(&self) -> String {
        let size = |bytes: u32| crate::units::format_size(bytes.into());
        match self {
            Kind::Addresses => "list of `host:port` or `unix:/folder`".to_owned(),
            Kind::Integer { min, max } => format!("integer, {min} to {max}"),
            Kind::Duration { zero: Zero::Off } => "duration; `\"0\"` is off".to_owned(),
            Kind::Duration {
                zero: Zero::Immediate,
            } => "duration; `\"0\"` does not wait".to_owned(),
            Kind::Duration {
                zero: Zero::Refused,
            } => "duration, above 0".to_owned(),
            Kind::Size { min, max } => format!("size, {} to {}", size(*min), size(*max)),
            Kind::Lag => "duration or size, above 0".to_owned(),
            Kind::Word { now, .. } => now
                .iter()
                .map(|word| format!("`{word}`"))
                .collect::<Vec<_>>()
                .join(", "),
            Kind::Name | Kind::Host => "text".to_owned(),
            Kind::Password => "text, or `{ env = \"NAME\" }`".to_owned(),
            Kind::Path => "file name".to_owned(),
            Kind::Backends => "list of tables".to_owned(),
            Kind::Functions => "list of `name` or `schema.name`".to_owned(),
            Kind::Names => "list of text".to_owned(),
            Kind::HttpAddress => "`host:port`, or `off`".to_owned(),
            Kind::Endpoint => "`http://host:port`".to_owned(),
            Kind::LogLevel => "level, or list of `target=level`".to_owned(),
            Kind::Part => "table".to_owned(),
            Kind::Tables => "list of `name` or `schema.name`".to_owned(),
            Kind::Pattern => "regular expression".to_owned(),
            Kind::Fingerprint => "16 hexadecimal digits".to_owned(),
            Kind::Route => "`auto`, `primary`, `replica`, or the name of a backend".to_owned(),
            Kind::Text => "text".to_owned(),
        }
    }
}

/// Returns the documentation of every setting, as Markdown.
pub fn markdown() -> String {
    let mut page = "# Configuration\n\n\
        Generated from `crates/config/src/reference.rs`; do not edit by hand.\n\n\
        The file is TOML.\n\
        Unknown keys are errors.\n\
        A duration is a number with one of `us`, `ms`, `s`, `min`, `h`, `d`; a size is a number with one of `B`, `kB`, `MB`, \
        `GB`, `TB`, each 1024 of the one before, as in PostgreSQL.\n\
        SIGHUP takes over new values of the settings marked yes under Reload, and added or removed users and databases; the \
        others need a restart.\n\
        Sessions that exist follow, at the latest when their transaction is over.\n\
        `[auth]` and `[[users]]` hold for the logins to come, and `tcp_keepalive`, `tcp_user_timeout` and \
        `prepared_statements_per_server` for the connections to come.\n\
        The sessions of a database that is removed keep what was said of it last.\n"
        .to_owned();
    for table in Table::ALL {
        let _ = write!(page, "\n## `{}`\n\n{}\n\n", table.heading(), table.about());
        page.push_str("| Key | Takes | Default | Reload | Meaning |\n|---|---|---|---|---|\n");
        for setting in of(table) {
            let default = setting
                .default
                .map(|value| format!("`{value}`"))
                .unwrap_or_default();
            let reload = if setting.reloadable { "yes" } else { "no" };
            let kind = setting.kind.describe();
            let _ = writeln!(
                page,
                "| `{}` | {kind} | {default} | {reload} | {} |",
                setting.key, setting.about
            );
        }
    }
    page
}

/// Returns a commented file in which every default stands as it is; it is valid.
pub fn default_text() -> String {
    let mut text =
        "# pgweir: every setting with its default. Those behind # are off or have none.\n"
            .to_owned();
    for table in Table::ALL {
        let heading = match table {
            Table::Server
            | Table::Auth
            | Table::User
            | Table::Admin
            | Table::Http
            | Table::Log
            | Table::Telemetry => table.heading(),
            Table::Cluster => "[clusters.main]",
            Table::Backend => "[[clusters.main.backends]]",
            Table::Breaker => "[clusters.main.breaker]",
            Table::Database => "[databases.\"*\"]",
            // There is none by default, and each that there is costs.
            Table::Rule => "# [[rules]]",
            Table::RuleMatch => "# [rules.match]",
            Table::RuleAction => "# [rules.action]",
        };
        let _ = write!(text, "\n# {}\n{heading}\n", table.about());
        for setting in
            of(table).filter(|setting| !matches!(setting.kind, Kind::Backends | Kind::Part))
        {
            let _ = writeln!(
                text,
                "# {} Takes {}.",
                setting.about,
                setting.kind.describe().replace('`', "")
            );
            let _ = match (setting.default, example(setting)) {
                (Some(value), _) => writeln!(text, "{} = {value}", setting.key),
                (None, Some(value)) => writeln!(text, "{} = \"{value}\"", setting.key),
                (None, None) => writeln!(text, "# {} = \"...\"", setting.key),
            };
        }
    }
    text
}

/// Returns a value for a setting that has no default and without which the file would not be valid.
fn example(setting: &Setting) -> Option<&'static str> {
    match (setting.table, setting.key) {
        (Table::Backend, "host") => Some("127.0.0.1"),
        (Table::User, "name") => Some("app"),
        (Table::User, "password") => Some("change me"),
        (Table::Database, "cluster") => Some("main"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgweir_model::Consistency;

    use crate::rules::RuleKind;
    use crate::settings::{
        AuthMethod, BackendRole, Balance, ForeignTables, LogFormat, LoggedStatements, PinReads,
        PoolMode, PrimaryReads, Splitting, TransactionReads,
    };

    #[test]
    fn keys_are_unique_and_described() {
        for (index, setting) in SETTINGS.iter().enumerate() {
            let again = SETTINGS
                .iter()
                .skip(index + 1)
                .any(|other| other.table == setting.table && other.key == setting.key);
            assert!(!again, "{setting:?}");
            assert!(
                setting.about.ends_with('.') && !setting.about.contains('\n'),
                "{setting:?}"
            );
            assert!(!is_later(Some(setting.table), setting.key), "{setting:?}");
        }
    }

    #[track_caller]
    fn assert_words<T: Copy>(table: Table, key: &str, all: &[T], name: fn(T) -> &'static str) {
        let words = match find(table, key).unwrap().kind {
            Kind::Word { now, .. } => now.to_vec(),
            other => panic!("{other:?}"),
        };
        let names: Vec<_> = all.iter().map(|word| name(*word)).collect();
        assert_eq!(words, names, "{key}");
    }

    #[test]
    fn words_are_those_of_the_enums() {
        use Table::{Auth, Backend, Cluster, Database, Log, RuleAction, RuleMatch};
        assert_words(Cluster, "balance", Balance::ALL, Balance::name);
        assert_words(
            Cluster,
            "primary_reads",
            PrimaryReads::ALL,
            PrimaryReads::name,
        );
        assert_words(Backend, "role", BackendRole::ALL, BackendRole::name);
        assert_words(Database, "pool_mode", PoolMode::ALL, PoolMode::name);
        assert_words(Database, "consistency", Consistency::ALL, Consistency::name);
        assert_words(
            Database,
            "transaction_reads",
            TransactionReads::ALL,
            TransactionReads::name,
        );
        assert_words(Database, "pin_reads", PinReads::ALL, PinReads::name);
        assert_words(Database, "splitting", Splitting::ALL, Splitting::name);
        assert_words(
            Database,
            "foreign_tables",
            ForeignTables::ALL,
            ForeignTables::name,
        );
        assert_words(RuleMatch, "kind", RuleKind::ALL, RuleKind::name);
        assert_words(
            RuleAction,
            "consistency",
            Consistency::ALL,
            Consistency::name,
        );
        assert_words(Auth, "method", AuthMethod::ALL, AuthMethod::name);
        assert_words(Log, "format", LogFormat::ALL, LogFormat::name);
        assert_words(
            Log,
            "statements",
            LoggedStatements::ALL,
            LoggedStatements::name,
        );
    }

    #[test]
    fn suggests_slips_and_nothing_far_off() {
        let keys = || of(Table::Database).map(|setting| setting.key);
        assert_eq!(nearest("pol_size", keys()), Some("pool_size"));
        assert_eq!(nearest("POOL_SIZE", keys()), Some("pool_size"));
        assert_eq!(nearest("poolsize", keys()), Some("pool_size"));
        assert_eq!(nearest("consitsency", keys()), Some("consistency"));
        assert_eq!(nearest("xyzzy", keys()), None);
        assert_eq!(nearest("ap", ["app"].into_iter()), Some("app"));
        assert_eq!(nearest("", ["app"].into_iter()), None);
    }

    #[test]
    fn a_name_that_is_far_too_long_is_near_to_none_at_once() {
        let (long, began) = ("x".repeat(1 << 20), std::time::Instant::now());
        assert_eq!(nearest(&long, ["pool_size"; 1000].into_iter()), None);
        assert!(began.elapsed() < std::time::Duration::from_secs(5));
    }
}
