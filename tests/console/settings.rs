//! Every setting that can be changed at run time, changed by SQL and seen to take effect, one after the other on one proxy.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgweir_devcluster::{Cluster, StopMode};
use pgweir_testkit::{Client, Login, eventually};

use super::monitors::get;
use super::{refused, rows, viewer};
use crate::failover::Doorkeeper;
use crate::limits::keepalive_timers;
use crate::support::{
    ADMIN, CONSOLE, DATABASE, PASSWORD, Proxy, USER, config, free_port, last_route, login,
    new_cluster, ok, prepare, run_named, value, wait_for_replicas,
};

/// What a write is, so that a statement runs on the primary and stays in its transaction there.
const HOLD: &str = "BEGIN; SELECT pg_current_xact_id()";

/// Changed and watched elsewhere, or without an effect that can be seen from outside:
/// weights and rules in `changes`, the sampling of traces in `telemetry`; how long an end waits, at the end.
const ELSEWHERE: [&str; 4] = ["weight", "name", "sample_one_in", "shutdown_timeout"];

struct Stage {
    cluster: Cluster,
    door: Doorkeeper,
    proxy: Proxy,
    console: Client,
    seen: BTreeSet<String>,
}

impl Stage {
    fn new() -> Self {
        let cluster = new_cluster(2);
        let port = cluster.replica(0).port();
        let door = Doorkeeper::start(port);
        let text = config(&cluster).replace(
            &format!("port = {port} "),
            &format!("port = {} ", door.port),
        );
        // Some settings hold per thread.
        let proxy = Proxy::start_ready(&format!("[server]\nworkers = 1\n{text}"));
        wait_for_replicas(&mut proxy.client());
        let console = proxy.console();
        Stage {
            cluster,
            door,
            proxy,
            console,
            seen: BTreeSet::new(),
        }
    }

    /// Changes settings of one section, in one statement.
    #[track_caller]
    fn set(&mut self, section: &str, settings: &[(&str, Option<&str>)]) {
        let quoted = |value: &Option<&str>| match value {
            Some(value) => format!("'{}'", value.replace('\'', "''")),
            None => "NULL".to_owned(),
        };
        let cases = settings
            .iter()
            .map(|(name, value)| format!(" WHEN '{name}' THEN {}", quoted(value)));
        let names = settings.iter().map(|(name, _)| format!("'{name}'"));
        let sql = format!(
            "UPDATE settings SET value = CASE name{} END WHERE section = '{section}' AND name IN ({})",
            cases.collect::<String>(),
            names.collect::<Vec<_>>().join(", "),
        );
        let answer = ok(&mut self.console, &sql);
        assert!(
            super::command_tag(&answer).contains(&format!("UPDATE {}", settings.len())),
            "{sql}"
        );
        self.seen.extend(
            settings
                .iter()
                .map(|(name, _)| format!("{section}: {name}")),
        );
    }

    /// Changes one setting for as long as `see` looks at what comes of it.
    #[track_caller]
    fn with(&mut self, section: &str, settings: &[(&str, &str)], see: impl FnOnce(&mut Stage)) {
        let names: Vec<&str> = settings.iter().map(|(name, _)| *name).collect();
        let before: Vec<_> = names.iter().map(|name| self.given(section, name)).collect();
        let wanted: Vec<_> = settings
            .iter()
            .map(|(name, value)| (*name, Some(*value)))
            .collect();
        self.set(section, &wanted);
        see(self);
        let old: Vec<_> = names
            .into_iter()
            .zip(before.iter().map(Option::as_deref))
            .collect();
        self.set(section, &old);
    }

    /// Returns a setting's value, where it does not hold by default.
    fn given(&mut self, section: &str, name: &str) -> Option<String> {
        let sql = format!(
            "SELECT value FROM settings WHERE section = '{section}' AND name = '{name}' AND source <> 'default'"
        );
        ok(&mut self.console, &sql).value()
    }

    fn client(&self) -> Client {
        self.proxy.client()
    }

    /// Returns why a new client does not get in.
    fn login_error(&self, login: &Login) -> String {
        let refused = Client::open(self.proxy.addr(), login).err();
        refused
            .and_then(|error| error.sqlstate())
            .unwrap_or_default()
    }

    /// Returns how many connections the proxy has to a server.
    fn connections(&mut self, backend: &str, also: &str) -> usize {
        let sql = format!("SELECT process_id FROM servers WHERE backend = '{backend}' {also}");
        rows(&mut self.console, &sql).len()
    }
}

const SERVER: &str = "server";
const MAIN: &str = "clusters.main";
const ALL: &str = "databases.*";

#[test]
fn each_changeable_setting_takes_effect_when_it_is_changed() {
    let mut stage = Stage::new();
    for see in [
        clients_and_logins,
        idle_clients,
        sizes,
        server_connections,
        pools,
        waits,
        reads_by_database,
        functions,
        lag_and_catalog,
        balances,
        breakers,
        users,
        the_monitors_password,
        operators,
        http_and_log,
        the_primary,
    ] {
        see(&mut stage);
    }
    let sql = "SELECT DISTINCT section || ': ' || name, name FROM settings WHERE changeable AND section NOT LIKE 'rules%' \
               AND section NOT IN ('users.boss', 'users.viewer', 'clusters.main.backends.primary', 'clusters.main.backends.replica2')";
    let missing: Vec<_> = (rows(&mut stage.console, sql).into_iter())
        .filter(|row| !stage.seen.contains(&row[0]) && !ELSEWHERE.contains(&&*row[1]))
        .collect();
    assert_eq!(
        missing,
        Vec::<Vec<String>>::new(),
        "changeable, and never changed here"
    );
    the_end(stage);
}

fn clients_and_logins(stage: &mut Stage) {
    let mut first = stage.client();
    stage.with(SERVER, &[("max_clients", "1")], |stage| {
        assert_eq!(stage.login_error(&login()), "53300");
        ok(&mut first, "SELECT 1");
    });
    stage.with(SERVER, &[("auth_timeout", "300ms")], |stage| {
        let mut silent = TcpStream::connect(stage.proxy.addr()).expect("connected");
        silent
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a limit");
        // Its end, before the limit.
        silent.read_to_end(&mut Vec::new()).expect("the end");
    });
    stage.with("auth", &[("method", "trust")], |stage| {
        assert!(Client::open(stage.proxy.addr(), &Login::new(USER, DATABASE)).is_ok());
    });
    assert_ne!(
        stage.login_error(&Login::new(USER, DATABASE).password("wrong")),
        ""
    );
}

fn idle_clients(stage: &mut Stage) {
    for (name, sql, sqlstate) in [
        ("client_idle_timeout", "SELECT 1", "57P05"),
        ("idle_in_transaction_timeout", HOLD, "25P03"),
    ] {
        let mut client = stage.client();
        ok(&mut client, sql);
        stage.with(SERVER, &[(name, "200ms")], |_| {
            let end = client.until_closed().expect("an end");
            assert_eq!(end.sqlstate().as_deref(), Some(sqlstate));
        });
    }
}

fn sizes(stage: &mut Stage) {
    stage.with(SERVER, &[("max_message", "64kB")], |stage| {
        let long = format!("SELECT '{}'", "x".repeat(70_000));
        // The rest of the message may still be on its way when the connection is closed.
        let sqlstate = match stage.client().query(&long) {
            Ok(answer) => answer.sqlstate(),
            Err(_cut) => Some("54000".to_owned()),
        };
        assert_eq!(sqlstate.as_deref(), Some("54000"));
    });
    stage.with(SERVER, &[("route_buffer", "1kB")], |stage| {
        let mut client = stage.client();
        ok(
            &mut client,
            &format!("SELECT length('{}')", "x".repeat(200_000)),
        );
        assert_eq!(last_route(&mut client), "primary (oversize)");
    });
    stage.with(SERVER, &[("statement_statistics", "0")], |stage| {
        ok(&mut stage.client(), "SELECT 1 AS not_to_be_counted");
        let sql = "SELECT calls FROM statements WHERE statement LIKE '%not_to_be_counted%'";
        assert_eq!(rows(&mut stage.console, sql).len(), 0);
    });
    ok(&mut stage.client(), "SELECT 1 AS to_be_counted");
    let sql = "SELECT calls FROM statements WHERE statement LIKE '%to_be_counted%'";
    eventually!(rows(&mut stage.console, sql).len() == 1);
}

fn server_connections(stage: &mut Stage) {
    stage.with(
        SERVER,
        &[("prepared_statements_per_server", "1")],
        |stage| {
            ok(&mut stage.console, "RECONNECT");
            ok(&mut stage.console, "WAIT_CLOSE");
            let mut client = stage.client();
            for name in ["a", "b", "c"] {
                prepare(&mut client, name, &format!("SELECT '{name}'"));
                run_named(&mut client, name);
            }
            let most = value(
                &mut stage.console,
                "SELECT max(prepared_statements) FROM servers",
            );
            assert_eq!(most, "1");
        },
    );
    stage.with(SERVER, &[("server_idle_timeout", "1s")], |stage| {
        eventually!(stage.connections("primary", "AND state = 'idle'") == 0);
    });
    stage.with(SERVER, &[("server_lifetime", "1ms")], |stage| {
        let mut client = stage.client();
        let pid = |client: &mut Client| {
            value(
                client,
                "SELECT pg_backend_pid() FROM (SELECT pg_current_xact_id()) AS x",
            )
        };
        let first = pid(&mut client);
        eventually!(pid(&mut client) != first);
    });
    stage.with(SERVER, &[("tcp_keepalive", "7s")], |stage| {
        let mut client = stage.client();
        ok(&mut client, "SELECT 1");
        eventually!(
            keepalive_timers(&stage.proxy)
                .iter()
                .any(|timer| *timer <= 700)
        );
    });
    stage.with(SERVER, &[("tcp_user_timeout", "1s")], |stage| {
        let mut client = stage.client();
        let id = client.process_id();
        client
            .send_query("SELECT repeat('x', 1000) FROM generate_series(1, 10000000)")
            .expect("sent");
        let sql = format!("SELECT id FROM clients WHERE id = {id}");
        eventually!(rows(&mut stage.console, &sql).is_empty());
    });
}

fn pools(stage: &mut Stage) {
    let hold = |stage: &Stage| {
        let mut holder = stage.client();
        ok(&mut holder, HOLD);
        holder
    };
    // A login may need a connection itself.
    let mut writer = stage.client();
    let mut waiting = stage.client();
    let write = |writer: &mut Client| {
        let answer = writer.query("SELECT pg_current_xact_id()");
        answer.expect("an answer").sqlstate()
    };
    for limit in ["pool_size", "max_backend_connections"] {
        stage.with(ALL, &[(limit, "1")], |stage| {
            let _holder = hold(stage);
            stage.with(SERVER, &[("query_wait_timeout", "300ms")], |_| {
                eventually!(write(&mut writer).as_deref() == Some("57014"));
            });
        });
    }
    stage.with(
        ALL,
        &[
            ("pool_size", "1"),
            ("pool_reserve", "1"),
            ("pool_reserve_after", "0"),
        ],
        |stage| {
            let _holder = hold(stage);
            stage.with(SERVER, &[("query_wait_timeout", "10s")], |_| {
                assert_eq!(write(&mut writer), None);
            });
        },
    );
    stage.with(ALL, &[("pool_size", "1")], |stage| {
        let _holder = hold(stage);
        stage.with(SERVER, &[("max_queue", "1")], |stage| {
            waiting
                .send_query("SELECT pg_current_xact_id()")
                .expect("sent");
            let in_line = "SELECT sum(waiting) FROM pools";
            eventually!(value(&mut stage.console, in_line) == "1");
            assert_eq!(write(&mut writer).as_deref(), Some("53400"));
        });
    });
    stage.with(ALL, &[("pool_min", "3")], |stage| {
        ok(&mut stage.client(), "SELECT pg_current_xact_id()");
        eventually!(stage.connections("primary", "AND user = 'app' AND database = 'app'") >= 3);
    });
}

fn waits(stage: &mut Stage) {
    let mut client = stage.client();
    ok(&mut client, "CREATE TABLE waits (a int)");
    stage.with(ALL, &[("causal_wait", "0")], |_| {
        eventually!({
            ok(&mut client, "INSERT INTO waits VALUES (1)");
            ok(&mut client, "SELECT count(*) FROM waits");
            last_route(&mut client) == "primary (not_replayed)"
        });
    });
    eventually!({
        ok(&mut client, "INSERT INTO waits VALUES (1)");
        ok(&mut client, "SELECT count(*) FROM waits");
        last_route(&mut client).starts_with("replica")
    });
    stage.with(ALL, &[("read_retries", "0")], |stage| {
        eventually!({
            let mut client = stage.client();
            client.send_query("SELECT pg_sleep(20), 'to be ended'").expect("sent");
            let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                        WHERE query LIKE '%to be ended%' AND pid <> pg_backend_pid() AND state = 'active'";
            eventually!([0, 1].iter().any(|n| {
                let killed = stage.cluster.replica(*n).sql("postgres", kill).unwrap_or_default();
                killed.trim() != "0"
            }));
            client.until_ready().map_or(true, |answer| answer.error().is_some())
        });
    });
}

fn reads_by_database(stage: &mut Stage) {
    let read = |stage: &Stage, sql: &str| {
        let mut client = stage.client();
        ok(&mut client, sql);
        last_route(&mut client)
    };
    stage.with(ALL, &[("splitting", "off")], |stage| {
        assert_eq!(read(stage, "SELECT 1"), "primary (splitting_off)");
    });
    let read_in_transaction = |stage: &Stage| {
        let mut client = stage.client();
        ok(&mut client, "BEGIN");
        ok(&mut client, "SELECT 1");
        last_route(&mut client)
    };
    stage.with(ALL, &[("transaction_reads", "primary")], |stage| {
        assert!(read_in_transaction(stage).starts_with("primary"));
    });
    eventually!(read_in_transaction(stage).starts_with("replica"));
    stage.with(ALL, &[("consistency", "eventual")], |stage| {
        assert_eq!(
            value(&mut stage.client(), "SHOW pgweir.consistency"),
            "eventual"
        );
    });
    stage.with(ALL, &[("pin_reads", "replica")], |stage| {
        let mut client = stage.client();
        ok(&mut client, "LISTEN news");
        eventually!({
            ok(&mut client, "SELECT 1");
            last_route(&mut client).starts_with("replica")
        });
    });
}

fn functions(stage: &mut Stage) {
    let mut client = stage.client();
    ok(
        &mut client,
        "CREATE FUNCTION odd() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1'",
    );
    ok(
        &mut client,
        "CREATE FUNCTION even() RETURNS int LANGUAGE sql STABLE AS 'SELECT 2'",
    );
    let route = |client: &mut Client, sql: &str| {
        let rows = rows(client, &format!("EXPLAIN ROUTE {sql}"));
        rows.last().map(|row| row[1].clone()).unwrap_or_default()
    };
    eventually!(route(&mut client, "SELECT even()") == "replica");
    assert_eq!(route(&mut client, "SELECT odd()"), "primary");
    stage.with(ALL, &[("replica_safe_functions", "odd")], |_| {
        eventually!(route(&mut client, "SELECT odd()") == "replica");
    });
    stage.with(ALL, &[("primary_only_functions", "even")], |_| {
        eventually!(route(&mut client, "SELECT even()") == "primary");
    });
    let foreign = "CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw; \
                   CREATE FOREIGN TABLE elsewhere (a text) SERVER files OPTIONS (program 'echo 1'); \
                   GRANT SELECT ON elsewhere TO app";
    stage
        .cluster
        .sql(DATABASE, foreign)
        .expect("a foreign table");
    ok(&mut stage.console, "RELOAD CATALOG");
    eventually!(route(&mut client, "SELECT * FROM elsewhere") == "primary");
    stage.with(ALL, &[("foreign_tables", "replica")], |_| {
        eventually!(route(&mut client, "SELECT * FROM elsewhere") == "replica");
    });
}

fn lag_and_catalog(stage: &mut Stage) {
    let mut client = stage.client();
    let asked = |stage: &Stage| {
        let sql = "SELECT coalesce(max(query_start)::text, '') FROM pg_stat_activity WHERE query LIKE '%pg_is_in_recovery%' AND pid <> pg_backend_pid()";
        stage
            .cluster
            .replica(1)
            .sql("postgres", sql)
            .expect("a moment")
    };
    stage.with(MAIN, &[("lag_poll", "60s")], |stage| {
        // Once the last of the quick looks is over.
        eventually!({
            let before = asked(stage);
            !pgweir_testkit::patience::wait_until(Duration::from_millis(700), || {
                asked(stage) != before
            })
        });
    });
    let before = asked(stage);
    eventually!(asked(stage) != before);
    wait_for_replicas(&mut client);

    stage.with(MAIN, &[("max_lag", "1B")], |stage| {
        for n in [0, 1] {
            stage.cluster.replica(n).pause_replay().expect("paused");
        }
        ok(&mut client, "CREATE TABLE lagging (a int)");
        let mut reader = stage.client();
        eventually!({
            ok(&mut reader, "SELECT 1");
            last_route(&mut reader) == "primary (replica_lag)"
        });
    });
    for n in [0, 1] {
        stage.cluster.replica(n).resume_replay().expect("resumed");
    }
    wait_for_replicas(&mut client);

    let route = |client: &mut Client| {
        let rows = rows(client, "EXPLAIN ROUTE SELECT fickle()");
        rows.last().map(|row| row[1].clone()).unwrap_or_default()
    };
    ok(
        &mut client,
        "CREATE FUNCTION fickle() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'",
    );
    eventually!(route(&mut client) == "replica");
    stage.with(MAIN, &[("catalog_refresh", "200ms")], |stage| {
        stage
            .cluster
            .sql(DATABASE, "ALTER FUNCTION fickle() VOLATILE")
            .expect("altered");
        eventually!(route(&mut client) == "primary");
    });
}

fn balances(stage: &mut Stage) {
    let ports = |stage: &Stage| -> BTreeSet<String> {
        (0..30)
            .map(|_| value(&mut stage.client(), "SHOW port"))
            .collect()
    };
    let port = |stage: &Stage, n: usize| stage.cluster.replica(n).port().to_string();
    stage.with(SERVER, &[("zone", "here")], |stage| {
        stage.with(
            "clusters.main.backends.replica1",
            &[("zone", "here")],
            |stage| {
                stage.with(MAIN, &[("balance", "nearest")], |stage| {
                    eventually!(ports(stage) == BTreeSet::from([port(stage, 0)]));
                });
                eventually!(ports(stage).len() == 2);
            },
        );
    });
    stage.with(MAIN, &[("primary_reads", "share")], |stage| {
        eventually!(ports(stage).len() == 3);
    });
}

fn breakers(stage: &mut Stage) {
    let section = "clusters.main.breaker";
    stage.with(section, &[("failures", "1"), ("open_for", "1h")], |stage| {
        open_breaker(stage);
        stage.with(section, &[("open_for", "100ms")], |stage| {
            eventually!({
                ok(&mut stage.client(), "SELECT 1");
                breaker(stage) == "closed"
            });
        });
    });
    for (trials, expected) in [("1", 1..=1), ("100", 3..=12)] {
        let settings = [
            ("failures", "1"),
            ("open_for", "3s"),
            ("half_open_trials", trials),
        ];
        stage.with(section, &settings, |stage| {
            open_breaker(stage);
            eventually!(breaker(stage) == "half_open");
            let tried = slow_reads_on_the_replica(stage);
            assert!(expected.contains(&tried), "{trials}: {tried}");
            eventually!(breaker(stage) == "closed");
        });
    }
}

fn breaker(stage: &mut Stage) -> String {
    let sql = "SELECT breaker FROM backends WHERE name = 'replica1'";
    value(&mut stage.console, sql)
}

/// Has the replica behind the door fail a read; it would answer the next again.
fn open_breaker(stage: &mut Stage) {
    stage.door.refuses.store(true, Ordering::SeqCst);
    let terminate =
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'app'";
    let replica = stage.cluster.replica(0);
    replica.sql("postgres", terminate).expect("terminated");
    eventually!({
        ok(&mut stage.client(), "SELECT 1");
        breaker(stage) == "open"
    });
    stage.door.refuses.store(false, Ordering::SeqCst);
}

/// Returns how many of 12 reads that come at once and take a second each run on the replica behind the door.
fn slow_reads_on_the_replica(stage: &Stage) -> usize {
    let mut clients: Vec<_> = (0..12).map(|_| stage.client()).collect();
    for client in &mut clients {
        let sql = "/* pgweir: route=replica */ SELECT inet_server_port() FROM pg_sleep(1)";
        client.send_query(sql).expect("sent");
    }
    let port = stage.cluster.replica(0).port().to_string();
    let there = clients.iter_mut().filter_map(|client| {
        let answer = client.until_ready().expect("an answer");
        answer.value().filter(|place| *place == port)
    });
    there.count()
}

fn users(stage: &mut Stage) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    fs::write(&file, "from a file\n").expect("written");
    let file = file.to_str().expect("a path");
    let app = "users.app";
    let superuser = stage.cluster.superuser();
    let whoever = |stage: &Stage, password: &str| {
        let login = Login::new(USER, DATABASE).password(password);
        let mut client = Client::open(stage.proxy.addr(), &login).expect("a login");
        value(&mut client, "SELECT current_user")
    };
    // The servers know the old one.
    stage.set(
        app,
        &[
            ("password", Some("another")),
            ("server_password", Some(PASSWORD)),
        ],
    );
    assert_eq!(whoever(stage, "another"), USER);
    assert_eq!(stage.login_error(&login()), "28P01");
    stage.set(app, &[("password", None), ("password_file", Some(file))]);
    assert_eq!(whoever(stage, "from a file"), USER);
    let other = folder.path().join("servers");
    fs::write(&other, PASSWORD).expect("written");
    let other = other.to_str().expect("a path");
    stage.set(
        app,
        &[
            ("server_password", None),
            ("server_password_file", Some(other)),
        ],
    );
    ok(&mut stage.console, "RECONNECT");
    assert_eq!(whoever(stage, "from a file"), USER);
    stage.set(
        app,
        &[
            ("password_file", None),
            ("password", Some(PASSWORD)),
            ("server_password_file", None),
        ],
    );
    let password = stage.cluster.password().to_owned();
    stage.set(
        app,
        &[
            ("server_user", Some(superuser)),
            ("server_password", Some(&password)),
        ],
    );
    assert_eq!(whoever(stage, PASSWORD), superuser);
    stage.set(app, &[("server_user", None), ("server_password", None)]);
    assert_eq!(whoever(stage, PASSWORD), USER);
}

/// The password of the control plane.
fn the_monitors_password(stage: &mut Stage) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    let file = file.to_str().expect("a path");
    let password = stage.cluster.password().to_owned();
    stage.set(MAIN, &[("password", Some("wrong"))]);
    stage
        .cluster
        .replica(1)
        .restart(StopMode::Fast)
        .expect("restarted");
    let state = |stage: &mut Stage| {
        value(
            &mut stage.console,
            "SELECT state FROM backends WHERE name = 'replica2'",
        )
    };
    eventually!(state(stage) == "down");
    fs::write(file, &password).expect("written");
    stage.set(MAIN, &[("password", None), ("password_file", Some(file))]);
    eventually!(state(stage) == "up");
    stage.set(
        MAIN,
        &[("password_file", None), ("password", Some(&password))],
    );
    wait_for_replicas(&mut stage.client());
}

fn operators(stage: &mut Stage) {
    let login = Login::new(USER, CONSOLE).password(PASSWORD);
    assert_eq!(stage.login_error(&login), "42501");
    stage.with("admin", &[("viewers", "viewer, app")], |stage| {
        let mut client = Client::open(stage.proxy.addr(), &login).expect("a login");
        assert_eq!(refused(&mut client, "RELOAD CATALOG").0, "42501");
    });
    stage.with("admin", &[("users", &format!("{ADMIN}, app"))], |stage| {
        let mut client = Client::open(stage.proxy.addr(), &login).expect("a login");
        ok(&mut client, "RELOAD CATALOG");
    });
    stage.with("admin", &[("statement_timeout", "100ms")], |stage| {
        let endless =
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
        assert_eq!(refused(&mut viewer(&stage.proxy), endless).0, "57014");
    });
}

fn http_and_log(stage: &mut Stage) {
    let address = format!("127.0.0.1:{}", free_port());
    stage.with("http", &[("listen", &address)], |_| {
        eventually!(get(&address, "/healthz").0 == 200);
    });
    eventually!(get(&address, "/healthz").0 == 0);
    let lines = |stage: &Stage, text: &str| stage.proxy.log().matches(text).count();
    stage.with("log", &[("level", "debug")], |stage| {
        eventually!({
            ok(&mut stage.console, "SELECT 'said at this level'");
            lines(stage, "DEBUG") > 0
        });
    });
    stage.with("log", &[("slow_statements", "50ms")], |stage| {
        ok(&mut stage.client(), "SELECT pg_sleep(0.1), 'as a shape'");
        eventually!(lines(stage, "pg_sleep") > 0);
        assert_eq!(lines(stage, "as a shape"), 0);
        stage.with("log", &[("statements", "text")], |stage| {
            ok(
                &mut stage.client(),
                "SELECT pg_sleep(0.1), 'as it was sent'",
            );
            eventually!(lines(stage, "as it was sent") > 0);
        });
    });
}

fn the_primary(stage: &mut Stage) {
    stage.with(SERVER, &[("connect_timeout", "300ms")], |stage| {
        stage.with(MAIN, &[("failover_wait", "0")], |stage| {
            stage.cluster.primary().freeze().expect("frozen");
            let began = Instant::now();
            // Of this pool there is no connection yet.
            let login = Login::new(USER, "postgres").password(PASSWORD);
            let sqlstate = stage.login_error(&login);
            let waited = began.elapsed();
            stage.cluster.primary().thaw().expect("thawed");
            assert_eq!(sqlstate, "57P03");
            assert!(waited < Duration::from_secs(10), "{waited:?}");
        });
    });
    eventually!(
        value(
            &mut stage.console,
            "SELECT state FROM backends WHERE name = 'primary'"
        ) == "up"
    );
    let mut client = stage.client();
    ok(&mut client, "SELECT pg_current_xact_id()");
    stage.with(MAIN, &[("failover_wait", "0")], |stage| {
        stage
            .cluster
            .primary()
            .stop(StopMode::Immediate)
            .expect("stopped");
        eventually!({
            let began = Instant::now();
            let answer = client.query("SELECT pg_current_xact_id()");
            answer.is_ok_and(|answer| answer.sqlstate().as_deref() == Some("57P03"))
                && began.elapsed() < Duration::from_secs(5)
        });
        stage.cluster.primary().start().expect("started");
    });
    eventually!(
        stage
            .client()
            .query("SELECT pg_current_xact_id()")
            .is_ok_and(|a| a.error().is_none())
    );
}

/// The last: how long an end waits.
fn the_end(mut stage: Stage) {
    let mut busy = stage.client();
    ok(&mut busy, HOLD);
    stage.set(SERVER, &[("shutdown_timeout", Some("0"))]);
    stage.proxy.signal("TERM");
    assert!(stage.proxy.wait(Duration::from_secs(10)).success());
}
