//! Defaults, the default file, the documentation, and where values come from.

use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use pgweir_config::reference::{default_text, markdown};
use pgweir_config::{
    AuthMethod, BackendRole, Consistency, ListenAddress, MaxLag, PoolMode, Splitting, load, parse,
};

const SMALLEST: &str = "auth.method = 'trust'\nclusters.main.backends = [{ host = 'pg1' }]\n";

#[test]
fn the_server_gets_every_default() {
    let config = parse(SMALLEST, "smallest").unwrap();
    let server = &config.server;
    assert_eq!(
        server.listen,
        [ListenAddress::Tcp("127.0.0.1".to_owned(), 6432)]
    );
    assert_eq!(
        (server.workers, server.max_clients, server.max_queue),
        (0, 10_000, 100_000)
    );
    assert_eq!(server.query_wait_timeout, Duration::from_secs(120));
    assert_eq!(server.connect_timeout, Duration::from_secs(5));
    assert_eq!(
        (server.auth_timeout, server.shutdown_timeout),
        (Duration::from_secs(30), Duration::from_secs(30))
    );
    assert_eq!(server.server_idle_timeout, Some(Duration::from_secs(600)));
    assert_eq!(server.server_lifetime, Some(Duration::from_secs(3600)));
    assert_eq!(server.tcp_user_timeout, None);
    assert_eq!(server.tcp_keepalive, Some(Duration::from_secs(60)));
    assert_eq!(
        (server.max_message, server.route_buffer),
        (1 << 30, 1 << 20)
    );
    assert_eq!(
        (
            server.prepared_statements_per_server,
            server.statement_cache
        ),
        (500, 4096)
    );
}

#[test]
fn clusters_and_databases_get_every_default() {
    let config = parse(SMALLEST, "smallest").unwrap();
    let cluster = &config.clusters[0];
    assert_eq!(
        (&*cluster.name, &*cluster.user, &*cluster.database),
        ("main", "pgweir_monitor", "postgres")
    );
    assert_eq!(
        (cluster.lag_poll, cluster.max_lag),
        (
            Duration::from_millis(100),
            MaxLag::Time(Duration::from_secs(5))
        )
    );
    let backend = &cluster.backends[0];
    assert_eq!(
        (&*backend.name, &*backend.host, backend.port),
        ("pg1:5432", "pg1", 5432)
    );
    assert_eq!((backend.role, backend.weight), (BackendRole::Auto, 100));

    let database = config.database("anything").unwrap();
    assert_eq!(
        (
            &*database.name,
            &*database.cluster,
            database.server_name("anything")
        ),
        ("*", "main", "anything")
    );
    assert_eq!(
        (database.pool_mode, database.pool_size, database.pool_min),
        (PoolMode::Transaction, 20, 0)
    );
    assert_eq!(
        (database.consistency, database.splitting),
        (Consistency::Session, Splitting::On)
    );
    assert_eq!(database.read_retries, 2);
    assert_eq!(config.auth.method, AuthMethod::Trust);
    assert_eq!(
        parse(
            "[clusters.c]\nbackends=[{host='h'}]\n[[users]]\nname='u'\npassword='p'",
            ""
        )
        .unwrap()
        .auth
        .method,
        AuthMethod::ScramSha256
    );
}

#[test]
fn the_default_file_says_what_is_so_without_it() {
    let written = parse(&default_text(), "default").unwrap();
    let smallest = parse(SMALLEST, "smallest").unwrap();
    assert_eq!(written.server, smallest.server);
    let mut cluster = written.clusters[0].clone();
    cluster.backends.clone_from(&smallest.clusters[0].backends);
    assert_eq!(cluster, smallest.clusters[0]);
    assert_eq!(written.databases, smallest.databases);
    assert_eq!(written.auth.method, AuthMethod::ScramSha256);
}

#[test]
fn the_page_of_settings_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/config.md");
    if env::var_os("UPDATE_EXPECT").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, markdown()).unwrap();
    }
    let page = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == markdown(),
        "docs/config.md is not what the table of settings says: run with UPDATE_EXPECT=1"
    );
}

/// The example of the specification, without what is not built.
const EXAMPLE: &str = r#"
[server]
listen = ["127.0.0.1:6432", "[::1]:6433", "unix:/run/pgweir", "/tmp"]
workers = 4
max_clients = 2_000
[clusters.main]
backends = [
  { name = "pg1", host = "127.0.0.1", port = 5501 },
  { name = "pg2", host = "::1", port = 5502, weight = 50, role = "replica" },
  { name = "pg3", host = "unix:/run/postgresql" },
]
user = "monitor"
password = "hidden"
lag_poll = "50ms"
max_lag = "16MB"
[databases.app]
cluster = "main"
dbname = "app_production"
pool_mode = "session"
pool_size = 7
pool_min = 2
consistency = "eventual"
transaction_reads = "primary"
splitting = "off"
[databases."*"]
[[users]]
name = "app"
password = "md56a422f785c9e20873908ce25d1736ae2"
server_user = "app_rw"
server_password = "other"
[auth]
method = "md5"
"#;

#[test]
fn the_file_of_the_specification_is_read_where_it_is_built() {
    let config = parse(EXAMPLE, "pgweir.toml").unwrap();
    let listen: Vec<_> = config
        .server
        .listen
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        listen,
        [
            "127.0.0.1:6432",
            "[::1]:6433",
            "unix:/run/pgweir",
            "unix:/tmp"
        ]
    );
    let cluster = &config.clusters[0];
    let places: Vec<_> = cluster
        .backends
        .iter()
        .map(|backend| (&*backend.name, &*backend.host, backend.port))
        .collect();
    assert_eq!(
        places,
        [
            ("pg1", "127.0.0.1", 5501),
            ("pg2", "::1", 5502),
            ("pg3", "/run/postgresql", 5432)
        ]
    );
    assert_eq!(
        (cluster.backends[1].weight, cluster.backends[1].role),
        (50, BackendRole::Replica)
    );
    assert_eq!(cluster.max_lag, MaxLag::Bytes(16 << 20));
    let app = config.database("app").unwrap();
    assert_eq!(app.server_name("app"), "app_production");
    assert_eq!(
        (app.pool_mode, app.consistency, app.splitting),
        (PoolMode::Session, Consistency::Eventual, Splitting::Off)
    );
    assert_eq!(&*config.database("other").unwrap().name, "*");
    let user = config.user("app").unwrap();
    assert_eq!(
        (&**user.login(), user.login_password().unwrap().expose()),
        ("app_rw", "other")
    );
    assert!(config.user("nobody").is_none());
    assert!(
        !format!("{config:?}").contains("hidden"),
        "secrets do not print"
    );
}

#[test]
fn places_are_those_of_the_file_not_of_the_alphabet() {
    let text = "auth.method='trust'\n[clusters.z]\nbackends=[{host='z'}]\n[clusters.a]\nbackends=[{host='a'}]\n\
        [databases.z]\ncluster='z'\n[databases.a]\ncluster='a'\n";
    let config = parse(text, "order").unwrap();
    let names: Vec<_> = config
        .clusters
        .iter()
        .map(|cluster| &*cluster.name)
        .collect();
    assert_eq!(names, ["z", "a"]);
    let databases: Vec<_> = config
        .databases
        .iter()
        .map(|database| (&*database.name, database.cluster_index))
        .collect();
    assert_eq!(databases, [("z", 0), ("a", 1)]);
    assert_eq!(&*config.cluster_of(&config.databases[1]).unwrap().name, "a");
}

#[test]
fn a_misspelt_database_finds_its_neighbour() {
    let config = parse(
        &format!("{SMALLEST}[databases.shop]\n[databases.'*']\n"),
        "names",
    )
    .unwrap();
    assert_eq!(config.nearest_database("shpo"), Some("shop"));
    assert_eq!(config.nearest_database("warehouse"), None);
}

#[test]
fn a_password_may_stand_in_a_file_beside_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret"), "from the file\n").unwrap();
    let file = folder.path().join("pgweir.toml");
    fs::write(
        &file,
        "[clusters.main]\nbackends=[{host='h'}]\n[[users]]\nname='app'\npassword_file='secret'\n",
    )
    .unwrap();
    let config = load(&file).unwrap();
    assert_eq!(
        config.users[0].password.as_ref().unwrap().expose(),
        "from the file"
    );

    let missing = load(&folder.path().join("none.toml"))
        .unwrap_err()
        .to_string();
    assert!(missing.contains("none.toml: cannot be read: "), "{missing}");
}

#[test]
fn what_is_no_file_or_too_long_is_no_password() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pgweir.toml");
    let problem = |secret: &str| {
        let text = format!(
            "[clusters.main]\nbackends=[{{host='h'}}]\n[[users]]\nname='app'\npassword_file='{secret}'\n"
        );
        fs::write(&file, text).unwrap();
        load(&file).err().map(|errors| errors.to_string())
    };
    let said = problem("/dev/zero").unwrap();
    assert!(said.contains("/dev/zero: is not a regular file"), "{said}");
    fs::write(folder.path().join("long"), "x".repeat((64 << 10) + 1)).unwrap();
    let said = problem("long").unwrap();
    assert!(said.contains("is longer than 64 KiB"), "{said}");
    fs::write(folder.path().join("long"), "x".repeat(64 << 10)).unwrap();
    assert_eq!(problem("long"), None);
}
