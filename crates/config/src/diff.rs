//! What a reload changes, and the configuration that a running proxy goes on with.
//!
//! ## Why
//! Server connections and counters hang on the places of clusters and servers, so those stay as they are until a restart:
//! [`take_over`] merges what can be taken over into the running configuration, and [`diff`] tells the operator the rest.

use std::sync::Arc;
use std::time::Duration;

use pgweir_model::catalog::FunctionName;

use crate::Secret;
use crate::reference::{self, Table};
use crate::rules::Rule;
use crate::settings::{
    Auth, Backend, Cluster, Config, Database, ForeignTables, MaxLag, Server, User,
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
#[derive(Debug, PartialEq, Eq)]
enum Value {
    Absent,
    Shown(String),
    Hidden(Secret),
}

impl Value {
    fn shown(self) -> Option<String> {
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

fn joined<T: ToString>(values: impl Iterator<Item = T>) -> Value {
    Value::Shown(
        values
            .map(|value| value.to_string())
            .collect::<Vec<_>>()
            .join(", "),
    )
}

/// Something with a name and settings: the server, a cluster, a user.
struct Entity {
    path: String,
    table: Table,
    /// Whether it can come and go in a running proxy.
    movable: bool,
    settings: Vec<(&'static str, Value)>,
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
            consistency: wanted.consistency,
            transaction_reads: wanted.transaction_reads,
            read_retries: wanted.read_retries,
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
        rules: new.rules.clone(),
    }
}

fn take_over_cluster(running: &Cluster, wanted: &Cluster) -> Cluster {
    let mut cluster = running.clone();
    cluster.password.clone_from(&wanted.password);
    cluster.lag_poll = wanted.lag_poll;
    cluster.max_lag = wanted.max_lag;
    cluster.catalog_refresh = wanted.catalog_refresh;
    for backend in &mut cluster.backends {
        if let Some(other) = wanted
            .backends
            .iter()
            .find(|other| other.name == backend.name)
        {
            backend.weight = other.weight;
        }
    }
    cluster
}

fn compare_settings(changes: &mut Vec<Change>, old: Entity, new: Entity) {
    for ((key, before), (_, after)) in old.settings.into_iter().zip(new.settings) {
        let reloadable = reference::find(old.table, key).is_some_and(|setting| setting.reloadable);
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
    format!("databases.{}", database.name)
}

/// Takes a configuration apart. The patterns name every field: a new one does not compile until it stands here.
fn entities(config: &Config) -> Vec<Entity> {
    let Config {
        server,
        clusters,
        databases,
        users,
        auth,
        rules,
    } = config;
    let Auth { method } = auth;
    let mut all = vec![server_entity(server)];
    for cluster in clusters {
        all.push(cluster_entity(cluster));
        all.extend(
            cluster
                .backends
                .iter()
                .map(|backend| backend_entity(cluster, backend)),
        );
    }
    all.extend(databases.iter().map(database_entity));
    all.extend(users.iter().map(user_entity));
    all.push(Entity {
        path: "auth".to_owned(),
        table: Table::Auth,
        movable: false,
        settings: vec![("method", shown(method))],
    });
    all.extend(rules.iter().map(rule_entity));
    all
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
        max_message,
        route_buffer,
        prepared_statements_per_server,
        statement_cache,
        max_queue,
        tcp_keepalive,
        tcp_user_timeout,
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
    ];
    Entity {
        path: "server".to_owned(),
        table: Table::Server,
        movable: false,
        settings,
    }
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
    } = cluster;
    let max_lag = match max_lag {
        MaxLag::Time(duration) => Value::from(*duration),
        MaxLag::Bytes(bytes) => Value::Shown(format_size(*bytes)),
    };
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
        ("max_lag", max_lag),
        ("catalog_refresh", Value::from(*catalog_refresh)),
    ];
    Entity {
        path: format!("clusters.{name}"),
        table: Table::Cluster,
        movable: false,
        settings,
    }
}

fn backend_entity(cluster: &Cluster, backend: &Backend) -> Entity {
    let Backend {
        name,
        host,
        port,
        role,
        weight,
    } = backend;
    let settings = vec![
        ("name", shown(name)),
        ("host", shown(host)),
        ("port", shown(port)),
        ("role", shown(role)),
        ("weight", shown(weight)),
    ];
    let path = format!("clusters.{}.backends.{name}", cluster.name);
    Entity {
        path,
        table: Table::Backend,
        movable: false,
        settings,
    }
}

fn functions(list: &[FunctionName]) -> Value {
    let full = |function: &FunctionName| match &function.schema {
        Some(schema) => format!("{schema}.{}", function.name),
        None => function.name.to_string(),
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
        consistency,
        transaction_reads,
        read_retries,
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
        ("consistency", shown(consistency)),
        ("transaction_reads", shown(transaction_reads)),
        ("read_retries", shown(read_retries)),
        ("splitting", shown(splitting)),
        ("replica_safe_functions", functions(&policy.replica_safe)),
        ("primary_only_functions", functions(&policy.primary_only)),
        ("foreign_tables", shown(foreign_tables)),
    ];
    Entity {
        path: database_path(database),
        table: Table::Database,
        movable: true,
        settings,
    }
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
    Entity {
        path: format!("users.{name}"),
        table: Table::User,
        movable: true,
        settings,
    }
}

fn rule_entity(rule: &Rule) -> Entity {
    let Rule {
        name,
        matches,
        action,
    } = rule;
    let settings = vec![
        ("name", shown(name)),
        ("match", shown(matches)),
        ("action", shown(action)),
    ];
    Entity {
        path: format!("rules.{name}"),
        table: Table::Rule,
        movable: true,
        settings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{SETTINGS, default_text};

    #[test]
    fn the_table_of_settings_and_the_structs_agree() {
        let rule = "[[rules]]\nmatch = {}\naction.route = 'auto'\n";
        let config = crate::parse(&format!("{}{rule}", default_text()), "default").unwrap();
        let mut fields: Vec<_> = entities(&config)
            .iter()
            .flat_map(|entity| entity.settings.iter().map(|(key, _)| (entity.table, *key)))
            .collect();
        // A secret in a file becomes the field of the secret itself.
        let mut keys: Vec<_> = SETTINGS
            .iter()
            .filter(|setting| !setting.key.ends_with("_file"))
            // These are shown with the rule; the compiler sees that none is left out.
            .filter(|setting| !matches!(setting.table, Table::RuleMatch | Table::RuleAction))
            .map(|setting| (setting.table, setting.key))
            .collect();
        fields.sort_unstable();
        keys.sort_unstable();
        assert_eq!(fields, keys);
    }
}
