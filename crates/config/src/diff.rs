//! What a reload changes, and the configuration that a running proxy goes on with.
//!
//! ## Why
//! Server connections and counters hang on the places of clusters and servers, so those stay as they are until a restart:
//! [`take_over`] merges what can be taken over into the running configuration, and [`diff`] tells the operator the rest.

use std::sync::Arc;
use std::time::Duration;

use pgweir_model::catalog::FunctionName;

use crate::Secret;
use crate::edit::Section;
use crate::reference::{self, Table};
use crate::rules::{Rule, RuleAction, RuleMatch, RuleRoute, identifier};
use crate::settings::{
    Admin, Auth, Backend, Breaker, Cluster, Config, Database, ForeignTables, Http, ListenAddress,
    Log, MaxLag, Server, Telemetry, User,
};
use crate::units::{format_duration, format_size};

/// One setting that differs between two configurations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Path of the setting, as in `clusters.main.backends.pg1.weight`.
    pub key: String,
    /// The old value; `None` where there was none. Secrets are shown as `***`.
    pub old: Option<String>,
    /// The new value; `None` where there is none any more.
    pub new: Option<String>,
    /// Whether a running proxy can take it over; the others need a restart.
    pub reloadable: bool,
}

/// The value of a setting, for comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Absent,
    Shown(String),
    Hidden(Secret),
}

impl Value {
    pub(crate) fn shown(self) -> Option<String> {
        match self {
            Value::Absent => None,
            Value::Shown(text) => Some(text),
            Value::Hidden(_) => Some("***".to_owned()),
        }
    }
}

impl From<&Option<Secret>> for Value {
    fn from(secret: &Option<Secret>) -> Self {
        secret.clone().map_or(Value::Absent, Value::Hidden)
    }
}

impl From<&Option<Arc<str>>> for Value {
    fn from(name: &Option<Arc<str>>) -> Self {
        name.as_ref()
            .map_or(Value::Absent, |name| Value::Shown(name.to_string()))
    }
}

impl From<Duration> for Value {
    fn from(duration: Duration) -> Self {
        Value::Shown(format_duration(duration))
    }
}

impl From<Option<Duration>> for Value {
    fn from(duration: Option<Duration>) -> Self {
        Value::from(duration.unwrap_or_default())
    }
}

fn shown(value: impl ToString) -> Value {
    Value::Shown(value.to_string())
}

fn optional(value: Option<impl ToString>) -> Value {
    value.map_or(Value::Absent, shown)
}

/// Shows a list as people write it; as a list of TOML where an entry of it would be taken apart.
fn joined<T: ToString>(values: impl Iterator<Item = T>) -> Value {
    let values: Vec<String> = values.map(|value| value.to_string()).collect();
    let is_plain =
        |value: &String| !value.is_empty() && !value.contains(',') && value.trim() == value;
    let line = values.join(", ");
    match values.iter().all(is_plain) && list_of(&line).is_none() {
        true => Value::Shown(line),
        false => Value::Shown(toml_edit::Array::from_iter(values).to_string()),
    }
}

/// Returns the list that a text is, where it is one of TOML.
pub(crate) fn list_of(text: &str) -> Option<toml_edit::Value> {
    let value = text.parse::<toml_edit::Value>().ok();
    value.filter(toml_edit::Value::is_array)
}

/// Shows the limit of lag.
fn lag(limit: MaxLag) -> Value {
    match limit {
        MaxLag::Time(duration) => Value::from(duration),
        MaxLag::Bytes(bytes) => Value::Shown(format_size(bytes)),
    }
}

/// Something with a name and settings: the server, a cluster, a user.
pub(crate) struct Entity {
    /// What it is called where two configurations are compared.
    pub(crate) path: String,
    /// Where it stands in the file.
    pub(crate) section: Section,
    /// Whether it can come and go in a running proxy.
    movable: bool,
    pub(crate) settings: Vec<(&'static str, Value)>,
}

impl Entity {
    fn fixed(section: Section, settings: Vec<(&'static str, Value)>) -> Self {
        Entity {
            path: section.to_string(),
            section,
            movable: false,
            settings,
        }
    }

    fn movable(section: Section, settings: Vec<(&'static str, Value)>) -> Self {
        Entity {
            movable: true,
            ..Entity::fixed(section, settings)
        }
    }
}

/// Returns what differs between two configurations; an empty list means that they are the same.
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = Vec::new();
    let order = |config: &Config| {
        joined(
            config
                .clusters
                .iter()
                .map(|cluster| Arc::clone(&cluster.name)),
        )
    };
    compare(
        &mut changes,
        "clusters".to_owned(),
        order(old),
        order(new),
        false,
    );
    let rules = |config: &Config| joined(config.rules.iter().map(|rule| Arc::clone(&rule.name)));
    // Their order decides.
    compare(
        &mut changes,
        "rules".to_owned(),
        rules(old),
        rules(new),
        true,
    );
    let mut after = entities(new);
    for before in entities(old) {
        let same = |other: &Entity| other.path == before.path;
        match after.iter().position(same).map(|index| after.remove(index)) {
            Some(entity) => compare_settings(&mut changes, before, entity),
            None if before.movable => changes.push(Change {
                key: before.path,
                old: Some("present".to_owned()),
                new: None,
                reloadable: true,
            }),
            // The list that it has left says so.
            None => {}
        }
    }
    for entity in after.into_iter().filter(|entity| entity.movable) {
        let homeless = new.databases.iter().any(|database| {
            entity.path == database_path(database)
                && !old
                    .clusters
                    .iter()
                    .any(|cluster| cluster.name == database.cluster)
        });
        changes.push(Change {
            key: entity.path,
            old: None,
            new: Some("present".to_owned()),
            reloadable: !homeless,
        });
    }
    changes
}

/// Returns the configuration that a running proxy goes on with: `old`, with all of `new` that can be taken over.
pub fn take_over(old: &Config, new: &Config) -> Config {
    let cluster_index = |name: &str| {
        old.clusters
            .iter()
            .position(|cluster| &*cluster.name == name)
    };
    let databases = new.databases.iter().filter_map(|wanted| {
        let running = old
            .databases
            .iter()
            .find(|database| database.name == wanted.name)
            .unwrap_or(wanted);
        Some(Database {
            name: Arc::clone(&wanted.name),
            cluster: Arc::clone(&running.cluster),
            cluster_index: u16::try_from(cluster_index(&running.cluster)?).ok()?,
            dbname: running.dbname.clone(),
            pool_mode: running.pool_mode,
            pool_size: wanted.pool_size,
            pool_min: wanted.pool_min,
            pool_reserve: wanted.pool_reserve,
            pool_reserve_after: wanted.pool_reserve_after,
            max_backend_connections: wanted.max_backend_connections,
            consistency: wanted.consistency,
            transaction_reads: wanted.transaction_reads,
            pin_reads: wanted.pin_reads,
            read_retries: wanted.read_retries,
            causal_wait: wanted.causal_wait,
            splitting: wanted.splitting,
            policy: Arc::clone(&wanted.policy),
        })
    });
    let clusters = old.clusters.iter().map(|running| {
        match new
            .clusters
            .iter()
            .find(|cluster| cluster.name == running.name)
        {
            Some(wanted) => take_over_cluster(running, wanted),
            None => running.clone(),
        }
    });
    Config {
        server: Server {
            listen: old.server.listen.clone(),
            workers: old.server.workers,
            statement_cache: old.server.statement_cache,
            ..new.server.clone()
        },
        clusters: clusters.collect(),
        databases: databases.collect(),
        users: new.users.clone(),
        auth: new.auth.clone(),
        admin: Admin {
            database: Arc::clone(&old.admin.database),
            ..new.admin.clone()
        },
        http: new.http.clone(),
        log: Log {
            format: old.log.format,
            ..new.log.clone()
        },
        telemetry: Telemetry {
            sample_one_in: new.telemetry.sample_one_in,
            ..old.telemetry.clone()
        },
        rules: new.rules.clone(),
    }
}

fn take_over_cluster(running: &Cluster, wanted: &Cluster) -> Cluster {
    let mut cluster = running.clone();
    cluster.password.clone_from(&wanted.password);
    cluster.lag_poll = wanted.lag_poll;
    cluster.max_lag = wanted.max_lag;
    cluster.catalog_refresh = wanted.catalog_refresh;
    cluster.failover_wait = wanted.failover_wait;
    cluster.breaker = wanted.breaker;
    cluster.balance = wanted.balance;
    cluster.primary_reads = wanted.primary_reads;
    for backend in &mut cluster.backends {
        if let Some(other) = wanted
            .backends
            .iter()
            .find(|other| other.name == backend.name)
        {
            backend.weight = other.weight;
            backend.zone.clone_from(&other.zone);
        }
    }
    cluster
}

fn compare_settings(changes: &mut Vec<Change>, old: Entity, new: Entity) {
    for ((key, before), (_, after)) in old.settings.into_iter().zip(new.settings) {
        let reloadable =
            reference::find(old.section.table(), key).is_some_and(|setting| setting.reloadable);
        compare(
            changes,
            format!("{}.{key}", old.path),
            before,
            after,
            reloadable,
        );
    }
}

fn compare(changes: &mut Vec<Change>, key: String, old: Value, new: Value, reloadable: bool) {
    if old != new {
        changes.push(Change {
            key,
            old: old.shown(),
            new: new.shown(),
            reloadable,
        });
    }
}

fn database_path(database: &Database) -> String {
    Section::Database(database.name.to_string()).to_string()
}

/// Takes a configuration apart. The patterns name every field: a new one does not compile until it stands here.
pub(crate) fn entities(config: &Config) -> Vec<Entity> {
    let Config {
        server,
        clusters,
        databases,
        users,
        auth,
        admin,
        http,
        log,
        telemetry,
        rules,
    } = config;
    let Auth { method } = auth;
    let mut all = vec![server_entity(server)];
    for cluster in clusters {
        all.push(cluster_entity(cluster));
        all.push(breaker_entity(cluster));
        all.extend(
            cluster
                .backends
                .iter()
                .map(|backend| backend_entity(cluster, backend)),
        );
    }
    all.extend(databases.iter().map(database_entity));
    all.extend(users.iter().map(user_entity));
    all.push(Entity::fixed(
        Section::Single(Table::Auth),
        vec![("method", shown(method))],
    ));
    all.extend([
        admin_entity(admin),
        http_entity(http),
        log_entity(log),
        telemetry_entity(telemetry),
    ]);
    all.extend((rules.iter().zip(1..)).flat_map(|(rule, number)| rule_entities(rule, number)));
    all
}

fn admin_entity(admin: &Admin) -> Entity {
    let Admin {
        database,
        users,
        viewers,
        statement_timeout,
    } = admin;
    Entity::fixed(
        Section::Single(Table::Admin),
        vec![
            ("database", shown(database)),
            ("users", joined(users.iter())),
            ("viewers", joined(viewers.iter())),
            ("statement_timeout", Value::from(*statement_timeout)),
        ],
    )
}

fn http_entity(http: &Http) -> Entity {
    let Http { listen } = http;
    let listen = listen.as_ref().map_or("off".to_owned(), |(host, port)| {
        ListenAddress::Tcp(host.to_string(), *port).to_string()
    });
    Entity::fixed(
        Section::Single(Table::Http),
        vec![("listen", Value::Shown(listen))],
    )
}

fn log_entity(log: &Log) -> Entity {
    let Log {
        level,
        format,
        slow_statements,
        statements,
    } = log;
    Entity::fixed(
        Section::Single(Table::Log),
        vec![
            ("level", shown(level)),
            ("format", shown(format)),
            ("slow_statements", Value::from(*slow_statements)),
            ("statements", shown(statements)),
        ],
    )
}

fn telemetry_entity(telemetry: &Telemetry) -> Entity {
    let Telemetry {
        endpoint,
        service_name,
        sample_one_in,
    } = telemetry;
    Entity::fixed(
        Section::Single(Table::Telemetry),
        vec![
            ("endpoint", Value::from(endpoint)),
            ("service_name", shown(service_name)),
            ("sample_one_in", shown(sample_one_in)),
        ],
    )
}

fn server_entity(server: &Server) -> Entity {
    let Server {
        listen,
        workers,
        max_clients,
        query_wait_timeout,
        connect_timeout,
        auth_timeout,
        shutdown_timeout,
        server_idle_timeout,
        server_lifetime,
        client_idle_timeout,
        idle_in_transaction_timeout,
        max_message,
        route_buffer,
        prepared_statements_per_server,
        statement_cache,
        max_queue,
        tcp_keepalive,
        tcp_user_timeout,
        statement_statistics,
        zone,
    } = server;
    let size = |bytes: u64| Value::Shown(format_size(bytes));
    let settings = vec![
        ("listen", joined(listen.iter())),
        ("workers", shown(workers)),
        ("max_clients", shown(max_clients)),
        ("query_wait_timeout", Value::from(*query_wait_timeout)),
        ("connect_timeout", Value::from(*connect_timeout)),
        ("auth_timeout", Value::from(*auth_timeout)),
        ("shutdown_timeout", Value::from(*shutdown_timeout)),
        ("server_idle_timeout", Value::from(*server_idle_timeout)),
        ("server_lifetime", Value::from(*server_lifetime)),
        ("client_idle_timeout", Value::from(*client_idle_timeout)),
        (
            "idle_in_transaction_timeout",
            Value::from(*idle_in_transaction_timeout),
        ),
        ("max_message", size((*max_message).into())),
        (
            "route_buffer",
            size(u64::try_from(*route_buffer).unwrap_or(u64::MAX)),
        ),
        (
            "prepared_statements_per_server",
            shown(prepared_statements_per_server),
        ),
        ("statement_cache", shown(statement_cache)),
        ("max_queue", shown(max_queue)),
        ("tcp_keepalive", Value::from(*tcp_keepalive)),
        ("tcp_user_timeout", Value::from(*tcp_user_timeout)),
        ("statement_statistics", shown(statement_statistics)),
        ("zone", Value::from(zone)),
    ];
    Entity::fixed(Section::Single(Table::Server), settings)
}

fn cluster_entity(cluster: &Cluster) -> Entity {
    let Cluster {
        name,
        backends,
        user,
        password,
        database,
        lag_poll,
        max_lag,
        catalog_refresh,
        failover_wait,
        breaker: _, // an entity of its own
        balance,
        primary_reads,
    } = cluster;
    let settings = vec![
        // Their order is part of it: a server's place is how it is counted.
        (
            "backends",
            joined(backends.iter().map(|backend| Arc::clone(&backend.name))),
        ),
        ("user", shown(user)),
        ("password", Value::from(password)),
        ("database", shown(database)),
        ("lag_poll", Value::from(*lag_poll)),
        ("max_lag", lag(*max_lag)),
        ("catalog_refresh", Value::from(*catalog_refresh)),
        ("failover_wait", Value::from(*failover_wait)),
        ("balance", shown(balance)),
        ("primary_reads", shown(primary_reads)),
    ];
    Entity::fixed(Section::Cluster(name.to_string()), settings)
}

fn breaker_entity(cluster: &Cluster) -> Entity {
    let Breaker {
        failures,
        open_for,
        half_open_trials,
    } = &cluster.breaker;
    Entity::fixed(
        Section::Breaker(cluster.name.to_string()),
        vec![
            ("failures", shown(failures)),
            ("open_for", Value::from(*open_for)),
            ("half_open_trials", shown(half_open_trials)),
        ],
    )
}

fn backend_entity(cluster: &Cluster, backend: &Backend) -> Entity {
    let Backend {
        name,
        host,
        port,
        role,
        weight,
        zone,
    } = backend;
    let settings = vec![
        ("name", shown(name)),
        ("host", shown(host)),
        ("port", shown(port)),
        ("role", shown(role)),
        ("weight", shown(weight)),
        ("zone", Value::from(zone)),
    ];
    let section = Section::Backend(cluster.name.to_string(), name.to_string());
    Entity::fixed(section, settings)
}

fn functions(list: &[FunctionName]) -> Value {
    let full = |function: &FunctionName| match &function.schema {
        Some(schema) => format!("{}.{}", identifier(schema), identifier(&function.name)),
        None => identifier(&function.name).into_owned(),
    };
    joined(list.iter().map(full))
}

fn database_entity(database: &Database) -> Entity {
    let Database {
        name: _, // the path
        cluster,
        cluster_index: _, // follows from `cluster`
        dbname,
        pool_mode,
        pool_size,
        pool_min,
        pool_reserve,
        pool_reserve_after,
        max_backend_connections,
        consistency,
        transaction_reads,
        pin_reads,
        read_retries,
        causal_wait,
        splitting,
        policy,
    } = database;
    let foreign_tables = if policy.foreign_on_replica {
        ForeignTables::Replica
    } else {
        ForeignTables::Primary
    };
    let settings = vec![
        ("cluster", shown(cluster)),
        ("dbname", Value::from(dbname)),
        ("pool_mode", shown(pool_mode)),
        ("pool_size", shown(pool_size)),
        ("pool_min", shown(pool_min)),
        ("pool_reserve", shown(pool_reserve)),
        ("pool_reserve_after", Value::from(*pool_reserve_after)),
        (
            "max_backend_connections",
            shown(max_backend_connections.unwrap_or_default()),
        ),
        ("consistency", shown(consistency)),
        ("transaction_reads", shown(transaction_reads)),
        ("pin_reads", shown(pin_reads)),
        ("read_retries", shown(read_retries)),
        ("causal_wait", Value::from(*causal_wait)),
        ("splitting", shown(splitting)),
        ("replica_safe_functions", functions(&policy.replica_safe)),
        ("primary_only_functions", functions(&policy.primary_only)),
        ("foreign_tables", shown(foreign_tables)),
    ];
    Entity::movable(Section::Database(database.name.to_string()), settings)
}

fn user_entity(user: &User) -> Entity {
    let User {
        name,
        password,
        server_user,
        server_password,
    } = user;
    let settings = vec![
        ("name", shown(name)),
        ("password", Value::from(password)),
        ("server_user", Value::from(server_user)),
        ("server_password", Value::from(server_password)),
    ];
    Entity::movable(Section::User(name.to_string()), settings)
}

/// A rule is compared by its name and stands in the file at its number.
fn rule_entities(rule: &Rule, number: usize) -> [Entity; 3] {
    let Rule {
        name,
        matches,
        action,
    } = rule;
    let path = format!("rules.{name}");
    [
        Entity {
            path: path.clone(),
            ..Entity::movable(Section::Rule(number), vec![("name", shown(name))])
        },
        Entity {
            path: format!("{path}.match"),
            ..match_entity(matches, number)
        },
        Entity {
            path: format!("{path}.action"),
            ..action_entity(action, number)
        },
    ]
}

fn match_entity(matches: &RuleMatch, number: usize) -> Entity {
    let RuleMatch {
        user,
        database,
        application,
        tables,
        regex,
        fingerprint,
        kind,
    } = matches;
    let listed = Some(tables).filter(|tables| !tables.is_empty());
    let settings = vec![
        ("user", Value::from(user)),
        ("database", Value::from(database)),
        ("application", Value::from(application)),
        (
            "tables",
            listed.map_or(Value::Absent, |tables| joined(tables.iter())),
        ),
        (
            "regex",
            optional(regex.as_ref().map(|pattern| pattern.regex().as_str())),
        ),
        (
            "fingerprint",
            optional(fingerprint.map(|fingerprint| format!("{fingerprint:016x}"))),
        ),
        ("kind", optional(kind.map(|kind| kind.name()))),
    ];
    Entity::fixed(Section::RuleMatch(number), settings)
}

fn action_entity(action: &RuleAction, number: usize) -> Entity {
    let RuleAction {
        route,
        max_lag,
        consistency,
        timeout,
        block,
    } = action;
    let settings = vec![
        ("route", optional(route.as_ref().map(RuleRoute::to_string))),
        ("max_lag", max_lag.map_or(Value::Absent, lag)),
        ("consistency", optional(*consistency)),
        ("timeout", timeout.map_or(Value::Absent, Value::from)),
        ("block", Value::from(block)),
    ];
    Entity::fixed(Section::RuleAction(number), settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{Kind, SETTINGS, default_text};

    #[test]
    fn the_table_of_settings_and_the_structs_agree() {
        let rule = "[[rules]]\nmatch = {}\naction.route = 'auto'\n";
        let config = crate::parse(&format!("{}{rule}", default_text()), "default").unwrap();
        let mut fields: Vec<_> = entities(&config)
            .iter()
            .flat_map(|entity| {
                entity
                    .settings
                    .iter()
                    .map(|(key, _)| (entity.section.table(), *key))
            })
            .collect();
        // A secret in a file becomes the field of the secret itself.
        let mut keys: Vec<_> = SETTINGS
            .iter()
            .filter(|setting| !setting.key.ends_with("_file"))
            // Tables of their own.
            .filter(|setting| setting.kind != Kind::Part)
            .map(|setting| (setting.table, setting.key))
            .collect();
        fields.sort_unstable();
        keys.sort_unstable();
        assert_eq!(fields, keys);
    }
}
