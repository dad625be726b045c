//! TOML to [`Config`]: the tables in turn, then what holds between them.
//!
//! The text is parsed to a tree that knows where each value stands; the tree is read by hand against [`reference`], so
//! that one run finds every problem and each is named with its line.
//!
//! [`reference`]: mod@crate::reference

mod rules;
mod section;
mod value;

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use pgweir_model::catalog::Policy;
use toml::de::DeTable;

use self::section::{Reader, Section};
pub(crate) use self::value::{Wrong, checked_host, checked_password, listen_address, split_port};
use self::value::{host, kind_of};
use crate::reference::{self, Table};
use crate::settings::{
    Admin, Auth, AuthMethod, Backend, Balance, Breaker, Cluster, Config, Database, ForeignTables,
    Http, Log, Server, Telemetry, User,
};
use crate::{ConfigError, ConfigErrors};

/// Reads and validates a file.
///
/// # Errors
/// All problems of the file, or that it cannot be read.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    parse(&text_of(path)?, &path.display().to_string())
}

/// Reads the text of a file.
pub(crate) fn text_of(path: &Path) -> Result<String, ConfigErrors> {
    fs::read_to_string(path).map_err(|error| {
        ConfigErrors(vec![ConfigError {
            file: path.display().to_string().into(),
            line: 0,
            column: 0,
            key: String::new(),
            message: format!("cannot be read: {error}"),
            suggestion: None,
        }])
    })
}

/// Reads what is logged as `log.level` is read.
///
/// # Errors
/// What is wrong with it.
pub fn log_level(text: &str) -> Result<Arc<str>, String> {
    value::checked_log_level(text).map_err(|wrong| wrong.message)
}

/// Validates a text; `file_name` stands in the errors, and relative `password_file`s are looked up beside it.
///
/// It reads the environment and files where a password says so.
///
/// # Errors
/// All problems of the text, in the order of their places.
///
/// # Examples
/// ```
/// let text = r#"
/// [clusters.main]
/// backends = [{ host = "pg1" }, { host = "pg2" }]
/// [[users]]
/// name = "app"
/// password = "secret"
/// "#;
/// let config = pgweir_config::parse(text, "pgweir.toml").unwrap();
/// assert_eq!(&*config.clusters[0].backends[1].name, "pg2:5432");
///
/// let errors = pgweir_config::parse(&text.replace("users", "usres"), "pgweir.toml").unwrap_err();
/// assert_eq!(errors.0[0].to_string(), "pgweir.toml:4: usres: unknown key; did you mean users?");
/// ```
pub fn parse(text: &str, file_name: &str) -> Result<Config, ConfigErrors> {
    parse_with(text, file_name, &|name| std::env::var(name).ok())
}

/// Validates a text with `environment` in place of the process's.
pub(crate) fn parse_with(
    text: &str,
    file_name: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, ConfigErrors> {
    let reader = Reader::new(text, file_name, environment);
    let (tree, syntax) = DeTable::parse_recoverable(text);
    // What follows from a broken line would only hide the broken line.
    if !syntax.is_empty() {
        for error in syntax {
            let at = error.span().map_or(text.len(), |span| span.start);
            reader.problem(
                at,
                String::new(),
                Wrong::new(error.message().trim().replace('\n', "; ")),
            );
        }
        return Err(reader.into_errors());
    }
    let config = read(&reader, tree.get_ref());
    let errors = reader.into_errors();
    if errors.0.is_empty() {
        Ok(config)
    } else {
        Err(errors)
    }
}

/// Reads the whole tree. What is wrong is reported and replaced, so that the rest is looked at too.
fn read(reader: &Reader<'_>, tree: &DeTable<'_>) -> Config {
    for key in tree.keys() {
        let name = key.get_ref();
        if !reference::TOP.contains(&&**name) {
            reader.unknown(key.span().start, None, "", name, reference::TOP.into_iter());
        }
    }
    let server = single(reader, tree, "server", Table::Server, server);
    let auth = single(reader, tree, "auth", Table::Auth, auth);
    let admin = single(reader, tree, "admin", Table::Admin, admin);
    let http = single(reader, tree, "http", Table::Http, http);
    let log = single(reader, tree, "log", Table::Log, log);
    let telemetry = single(reader, tree, "telemetry", Table::Telemetry, telemetry);
    let clusters = named(reader, tree, "clusters", Table::Cluster, |section, name| {
        cluster(section, name, server.zone.is_some())
    });
    if clusters.is_empty() && !tree.contains_key("clusters") {
        reader.lacks("no [clusters.X]: there is no server to go to");
    }
    let mut databases = named(
        reader,
        tree,
        "databases",
        Table::Database,
        |section, name| database(section, name, &clusters),
    );
    if let ([only], true) = (clusters.as_slice(), databases.is_empty()) {
        let mut implied = Section::empty(reader, Table::Database, "[databases.\"*\"]");
        databases.push(database(&mut implied, "*", std::slice::from_ref(only)));
    } else if databases.is_empty() && !clusters.is_empty() && !tree.contains_key("databases") {
        let message =
            "no [databases.X]: with several clusters, name the databases and where they are";
        reader.lacks(message);
    }
    let users = users(reader, tree, auth.method);
    let known = rules::Known {
        clusters: &clusters,
        databases: &databases,
        users: &users,
    };
    let rules = rules::rules(reader, tree, &known);
    Config {
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
    }
}

/// Reads a table that stands once.
fn single<T>(
    reader: &Reader<'_>,
    tree: &DeTable<'_>,
    name: &str,
    table: Table,
    read: fn(&mut Section<'_, '_>) -> T,
) -> T {
    let value = tree.get_key_value(name);
    let mut section = value
        .and_then(|(key, value)| {
            Section::of(
                reader,
                table,
                table.heading().to_owned(),
                key.span().start,
                value,
            )
        })
        .unwrap_or_else(|| Section::empty(reader, table, table.heading()));
    let settings = read(&mut section);
    section.finish();
    settings
}

/// Reads the tables `[name.X]`, in the order of the file.
fn named<T>(
    reader: &Reader<'_>,
    tree: &DeTable<'_>,
    name: &str,
    table: Table,
    read: impl Fn(&mut Section<'_, '_>, &str) -> T,
) -> Vec<T> {
    let Some((key, value)) = tree.get_key_value(name) else {
        return Vec::new();
    };
    let Some(tables) = value
        .get_ref()
        .as_table()
        .filter(|tables| !tables.is_empty())
    else {
        let found = kind_of(value.get_ref());
        let message = format!("expected at least one table [{name}.X], found {found}");
        reader.problem(key.span().start, name.to_owned(), Wrong::new(message));
        return Vec::new();
    };
    // The parser sorts by name; the place in the file is the place in the configuration.
    let mut tables: Vec<_> = tables.iter().collect();
    tables.sort_by_key(|(key, _)| key.span().start);
    let mut all = Vec::new();
    for (key, value) in tables {
        let name_of = key.get_ref();
        let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let label = match !name_of.is_empty() && name_of.chars().all(bare) {
            true => format!("[{name}.{name_of}]"),
            false => format!("[{name}.{name_of:?}]"),
        };
        let at = key.span().start;
        if name_of.is_empty() || name_of.contains('\0') {
            reader.problem(at, label.clone(), Wrong::new("not a name"));
        }
        if let Some(mut section) = Section::of(reader, table, label, at, value) {
            all.push(read(&mut section, name_of));
            section.finish();
        }
    }
    all
}

fn server(section: &mut Section<'_, '_>) -> Server {
    Server {
        listen: section.listen("listen"),
        workers: section.integer("workers"),
        max_clients: section.integer("max_clients"),
        query_wait_timeout: section.duration("query_wait_timeout"),
        connect_timeout: section.duration("connect_timeout"),
        auth_timeout: section.duration("auth_timeout"),
        shutdown_timeout: section.duration("shutdown_timeout"),
        server_idle_timeout: section.duration_or_off("server_idle_timeout"),
        server_lifetime: section.duration_or_off("server_lifetime"),
        client_idle_timeout: section.duration_or_off("client_idle_timeout"),
        idle_in_transaction_timeout: section.duration_or_off("idle_in_transaction_timeout"),
        max_message: section.size("max_message"),
        route_buffer: section.size("route_buffer"),
        prepared_statements_per_server: section.integer("prepared_statements_per_server"),
        statement_cache: section.integer("statement_cache"),
        max_queue: section.integer("max_queue"),
        tcp_keepalive: section.duration_or_off("tcp_keepalive"),
        tcp_user_timeout: section.duration_or_off("tcp_user_timeout"),
        statement_statistics: section.integer("statement_statistics"),
        zone: section.name("zone"),
    }
}

fn auth(section: &mut Section<'_, '_>) -> Auth {
    Auth {
        method: section.word("method"),
    }
}

fn admin(section: &mut Section<'_, '_>) -> Admin {
    Admin {
        database: section.name("database").unwrap_or_default(),
        users: section.names("users"),
        viewers: section.names("viewers"),
        statement_timeout: section.duration("statement_timeout"),
    }
}

fn http(section: &mut Section<'_, '_>) -> Http {
    Http {
        listen: section
            .optional("listen", |_, value| value::http_address(value))
            .flatten(),
    }
}

fn log(section: &mut Section<'_, '_>) -> Log {
    Log {
        level: section
            .optional("level", |_, value| value::log_level(value))
            .unwrap_or_default(),
        format: section.word("format"),
        slow_statements: section.duration_or_off("slow_statements"),
        statements: section.word("statements"),
    }
}

fn telemetry(section: &mut Section<'_, '_>) -> Telemetry {
    Telemetry {
        endpoint: section.optional("endpoint", |_, value| value::endpoint(value)),
        service_name: section.name("service_name").unwrap_or_default(),
        sample_one_in: section.integer("sample_one_in"),
    }
}

fn cluster(section: &mut Section<'_, '_>, name: &str, has_zone: bool) -> Cluster {
    let balance_at = section.place_of("balance");
    let cluster = Cluster {
        name: name.into(),
        backends: backends(section),
        user: section.name("user").unwrap_or_default(),
        password: section.secret("password", "password_file"),
        database: section.name("database").unwrap_or_default(),
        lag_poll: section.duration("lag_poll"),
        max_lag: section.max_lag("max_lag"),
        catalog_refresh: section.duration("catalog_refresh"),
        failover_wait: section.duration("failover_wait"),
        breaker: breaker(section),
        balance: section.word("balance"),
        primary_reads: section.word("primary_reads"),
    };
    if cluster.balance == Balance::Nearest && !has_zone {
        let message = "\"nearest\" needs zone in [server]: near to what?";
        section.problem(balance_at, "balance", Wrong::new(message));
    }
    cluster
}

fn breaker(cluster: &mut Section<'_, '_>) -> Breaker {
    let label = format!("{} breaker", cluster.label());
    let mut section = match cluster.part("breaker", Table::Breaker) {
        Some(section) => section,
        None => Section::empty(cluster.reader(), Table::Breaker, &label),
    };
    let breaker = Breaker {
        failures: section.integer("failures"),
        open_for: section.duration("open_for"),
        half_open_trials: section.integer("half_open_trials"),
    };
    section.finish();
    breaker
}

fn backends(cluster: &mut Section<'_, '_>) -> Vec<Backend> {
    let Some(list) = cluster.take("backends") else {
        cluster.problem(
            cluster.at(),
            "backends",
            Wrong::new("missing: a cluster needs at least one server"),
        );
        return Vec::new();
    };
    let Some(entries) = list
        .get_ref()
        .as_array()
        .filter(|entries| !entries.is_empty())
    else {
        let found = kind_of(list.get_ref());
        cluster.problem(
            list.span().start,
            "backends",
            Wrong::new(format!("expected a list of servers, found {found}")),
        );
        return Vec::new();
    };
    let mut all: Vec<Backend> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let label = format!("{} backends[{index}]", cluster.label());
        let at = entry.span().start;
        let Some(mut section) = Section::of(cluster.reader(), Table::Backend, label, at, entry)
        else {
            continue;
        };
        let backend = backend(&mut section);
        if let Some(earlier) = all.iter().find(|other| other.name == backend.name) {
            section.problem(
                at,
                "name",
                Wrong::new(format!("{} is there twice", earlier.name)),
            );
        } else if let Some(earlier) = all
            .iter()
            .find(|other| other.host == backend.host && other.port == backend.port)
        {
            section.problem(
                at,
                "host",
                Wrong::new(format!("the same server as {}", earlier.name)),
            );
        }
        section.finish();
        all.push(backend);
    }
    if u16::try_from(all.len()).is_err() {
        cluster.problem(
            list.span().start,
            "backends",
            Wrong::new("more than 65535 servers"),
        );
    }
    all
}

fn backend(section: &mut Section<'_, '_>) -> Backend {
    let host: Arc<str> = section
        .required("host", |_, value| host(value))
        .unwrap_or_default();
    let port: u16 = section.integer("port");
    let place = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    Backend {
        name: section.name("name").unwrap_or_else(|| place.into()),
        host,
        port,
        role: section.word("role"),
        weight: section.integer("weight"),
        zone: section.name("zone"),
    }
}

fn database(section: &mut Section<'_, '_>, name: &str, clusters: &[Cluster]) -> Database {
    let at = section.place_of("cluster");
    let given = section.name("cluster");
    let (cluster, cluster_index) = match (given, clusters) {
        (Some(wanted), clusters) => {
            let index = clusters.iter().position(|cluster| cluster.name == wanted);
            if index.is_none() {
                let nearest =
                    reference::nearest(&wanted, clusters.iter().map(|cluster| &*cluster.name));
                section.problem(
                    at,
                    "cluster",
                    Wrong::new(format!("there is no [clusters.{wanted}]")).suggest(nearest),
                );
            }
            (wanted, index.unwrap_or_default())
        }
        (None, [only]) => (Arc::clone(&only.name), 0),
        (None, clusters) => {
            if clusters.len() > 1 {
                section.problem(
                    section.at(),
                    "cluster",
                    Wrong::new("missing: there are several clusters"),
                );
            }
            (Arc::default(), 0)
        }
    };
    let database = Database {
        name: name.into(),
        cluster,
        cluster_index: u16::try_from(cluster_index).unwrap_or_default(),
        dbname: section.name("dbname"),
        pool_mode: section.word("pool_mode"),
        pool_size: section.integer("pool_size"),
        pool_min: section.integer("pool_min"),
        pool_reserve: section.integer("pool_reserve"),
        pool_reserve_after: section.duration("pool_reserve_after"),
        max_backend_connections: Some(section.integer("max_backend_connections"))
            .filter(|limit| *limit > 0),
        consistency: section.word("consistency"),
        transaction_reads: section.word("transaction_reads"),
        pin_reads: section.word("pin_reads"),
        read_retries: section.integer("read_retries"),
        causal_wait: section.duration("causal_wait"),
        splitting: section.word("splitting"),
        policy: Arc::new(Policy {
            replica_safe: section.functions("replica_safe_functions"),
            primary_only: section.functions("primary_only_functions"),
            foreign_on_replica: section.word::<ForeignTables>("foreign_tables")
                == ForeignTables::Replica,
        }),
    };
    if database.pool_min > database.pool_size {
        let message = format!(
            "{} is above pool_size, which is {}",
            database.pool_min, database.pool_size
        );
        section.problem(section.at(), "pool_min", Wrong::new(message));
    }
    database
}

fn users(reader: &Reader<'_>, tree: &DeTable<'_>, method: AuthMethod) -> Vec<User> {
    let mut entries = Vec::new();
    if let Some((key, value)) = tree.get_key_value("users") {
        let Some(list) = value.get_ref().as_array() else {
            let message = format!("expected [[users]], found {}", kind_of(value.get_ref()));
            reader.problem(key.span().start, "users".to_owned(), Wrong::new(message));
            return Vec::new();
        };
        entries.extend(list.iter());
    }
    if entries.is_empty() && method != AuthMethod::Trust {
        let message = format!("no [[users]]: with method {method} nobody can log in");
        reader.lacks(message);
    }
    let mut names = HashSet::new();
    let mut all = Vec::new();
    for entry in entries {
        let at = entry.span().start;
        if let Some(mut section) =
            Section::of(reader, Table::User, "[[users]]".to_owned(), at, entry)
        {
            let user = user(&mut section, method);
            if !names.insert(Arc::clone(&user.name)) {
                section.problem(
                    at,
                    "name",
                    Wrong::new(format!("{} is there twice", user.name)),
                );
            }
            section.finish();
            all.push(user);
        }
    }
    all
}

fn user(section: &mut Section<'_, '_>, method: AuthMethod) -> User {
    let password_given = section.has("password") || section.has("password_file");
    let user = User {
        name: section
            .required("name", |_, value| value::name(value))
            .unwrap_or_default(),
        password: section.secret("password", "password_file"),
        server_user: section.name("server_user"),
        server_password: section.secret("server_password", "server_password_file"),
    };
    if !password_given && method != AuthMethod::Trust {
        section.problem(
            section.at(),
            "password",
            Wrong::new(format!("missing: method {method} needs one")),
        );
    }
    user
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[clusters.main]\nbackends=[{host='h'}]\n[[users]]\nname='app'\npassword={env='APP_PASSWORD'}\n";

    #[test]
    fn a_password_may_stand_in_the_environment() {
        let environment = |name: &str| (name == "APP_PASSWORD").then(|| "from outside".to_owned());
        let config = parse_with(TEXT, "f", &environment).unwrap();
        assert_eq!(
            config.users[0].password.as_ref().unwrap().expose(),
            "from outside"
        );
    }

    #[test]
    fn an_empty_password_in_the_environment_is_refused() {
        let errors = parse_with(TEXT, "f", &|_| Some(String::new())).unwrap_err();
        assert_eq!(
            errors.to_string(),
            "f:5: [[users]] password: is empty: PostgreSQL accepts no empty password"
        );
    }
}
