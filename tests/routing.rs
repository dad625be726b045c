//! Where statements go on a real cluster, as the router says and as the servers see it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use pgweir_testkit::{Client, append_parse, append_undescribed, eventually, patience};
use pgweir_wire::{TransactionStatus, frontend};

use crate::support::{
    DATABASE, Proxy, USER, cluster, config, direct, last_route, login, new_cluster, ok, value,
    wait_for_replicas, with_usual_wait,
};

/// The schema that the routing cases assume.
const SCHEMA: &str = include_str!("cases/schema.sql");
/// A function that writes and says that it does not, where no text shows it: the one thing that only a replica can find out.
const LYING: &str = "CREATE FUNCTION app.lying_audit(text) RETURNS bigint LANGUAGE plpgsql STABLE AS \
    $$ BEGIN RETURN app.audit($1); END $$; \
    CREATE VIEW app.lying_users AS SELECT id, app.lying_audit(name) AS a FROM app.users";
/// The cases themselves, with the crate that decides them without a server.
const CASES: &str = include_str!("../crates/sql/tests/cases/routing.txt");

/// Loads the schema into a database of the shared cluster, once.
fn load_schema() {
    static LOADED: OnceLock<()> = OnceLock::new();
    LOADED.get_or_init(|| {
        let mut client = direct(cluster());
        for schema in [SCHEMA, LYING] {
            let answer = client.query(schema).expect("an answer");
            assert_eq!(answer.error(), None, "{answer:?}");
        }
        let filled =
            client.query("INSERT INTO app.users (email, name) VALUES ('a', 'A'), ('b', 'B')");
        assert_eq!(filled.expect("an answer").error(), None);
        cluster()
            .wait_caught_up(patience::PATIENCE)
            .expect("caught up");
    });
}

/// Starts a proxy for the routing schema, which it finds when it first reads the catalog.
fn start_on_schema(config: &str) -> Proxy {
    load_schema();
    Proxy::start_ready(config)
}

/// Opens a session on the routing schema.
fn on_schema(proxy: &Proxy) -> Client {
    let login = login().parameter("options", "-c search_path=app");
    Client::open(proxy.addr(), &login).expect("a login")
}

/// Returns the port of the server that a read is given to.
fn port_of_a_read(client: &mut Client) -> u16 {
    value(client, "SHOW port").parse().expect("a port")
}

fn explained(client: &mut Client, sql: &str) -> (String, String) {
    let rows = ok(client, &format!("EXPLAIN ROUTE {sql}")).rows();
    let last = rows.last().unwrap_or_else(|| panic!("no rows: {sql}"));
    assert_eq!(last[0].as_deref(), Some("route"), "{sql}");
    let text = |column: usize| last[column].clone().unwrap_or_default();
    (text(1), text(2))
}

#[test]
fn every_case_of_the_specification_is_explained_as_it_says() {
    let proxy = start_on_schema(&config(cluster()));
    let mut client = on_schema(&proxy);
    wait_for_replicas(&mut client);
    let mut wrong = Vec::new();
    let mut seen = 0;
    for line in CASES.lines() {
        let mut fields = line.splitn(3, " | ");
        let (Some(decision), Some(reason), Some(sql)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let is_one_statement = !sql.contains(';') || sql.contains("$$") || sql.contains("'DELETE");
        if line.starts_with('#') || decision == "either" || !is_one_statement {
            continue;
        }
        seen += 1;
        let mut got = (String::new(), String::new());
        // Until the catalog is loaded, the router only knows what text alone says.
        patience::wait_until(Duration::from_secs(5), || {
            got = explained(&mut client, sql);
            got.0 == decision && (reason == "-" || reason == got.1)
        });
        let (to, why) = got;
        if to != decision || (reason != "-" && reason != why) {
            wrong.push(format!("{to} ({why}), not {decision} ({reason}): {sql}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 95, "only {seen} cases");
}

#[test]
fn every_read_of_the_specification_runs_on_a_replica() {
    let proxy = start_on_schema(&config(cluster()));
    let mut client = on_schema(&proxy);
    wait_for_replicas(&mut client);
    // Until the catalog is loaded, a function that is not built in may do anything.
    eventually!(explained(&mut client, "SELECT add_tax(10)").0 == "replica");
    let mut wrong = Vec::new();
    for line in CASES.lines() {
        let Some(sql) = line.strip_prefix("replica | - | ") else {
            continue;
        };
        let answer = client.query(sql).expect(sql);
        // A materialized view of the schema is empty, which is no error.
        if let Some(error) = answer.error() {
            wrong.push(format!("{}: {sql}", error.comparable()));
            continue;
        }
        let route = last_route(&mut client);
        if !route.starts_with("replica (") {
            wrong.push(format!("{route}: {sql}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn reads_are_spread_over_the_replicas_and_writes_go_to_the_primary() {
    let proxy = Proxy::start_ready(&config(cluster()));
    let mut client = proxy.client();
    wait_for_replicas(&mut client);
    let mut ports = BTreeMap::new();
    // A session that reads without a pause stays with a replica for a moment; many sessions are spread at once.
    for _ in 0..50 {
        let mut reader = proxy.client();
        for _ in 0..4 {
            *ports.entry(port_of_a_read(&mut reader)).or_insert(0) += 1;
        }
        assert_eq!(last_route(&mut reader), "replica (read)");
    }
    for replica in [0, 1] {
        let port = cluster().replica(replica).port();
        let share = ports.get(&port).copied().unwrap_or(0);
        assert!((60..=140).contains(&share), "{ports:?}");
    }
    assert_eq!(ports.len(), 2, "{ports:?}");
    let primary = cluster().primary().port().to_string();
    for (sql, route) in [
        ("CREATE TABLE routing_writes (port int)", "primary (write)"),
        (
            "INSERT INTO routing_writes VALUES (inet_server_port())",
            "primary (write)",
        ),
        (
            "SELECT * FROM routing_writes FOR UPDATE",
            "primary (row_lock)",
        ),
        ("SELECT inet_server_port()", "primary (primary_only)"),
        (
            "WITH w AS (INSERT INTO routing_writes VALUES (inet_server_port()) RETURNING *) SELECT * FROM w",
            "primary (write)",
        ),
        ("SELECT 1; DROP TABLE routing_writes", "primary (write)"),
    ] {
        let answer = ok(&mut client, sql);
        assert_eq!(last_route(&mut client), route, "{sql}");
        if sql.starts_with("SELECT inet") || sql.starts_with("WITH") {
            assert_eq!(answer.value().as_deref(), Some(&*primary), "{sql}");
        }
    }
}

#[test]
fn hints_and_the_setting_say_where_a_statement_goes() {
    let proxy = Proxy::start_ready(&config(cluster()));
    let mut client = proxy.client();
    wait_for_replicas(&mut client);
    let port = "SELECT inet_server_port()";
    let is_replica = |port: &str| {
        let of = |replica| cluster().replica(replica).port().to_string();
        port == of(0) || port == of(1)
    };
    let primary = cluster().primary().port().to_string();
    let hinted = format!("/* pgweir: route=replica */ {port}");
    assert!(is_replica(&value(&mut client, &hinted)));
    assert_eq!(last_route(&mut client), "replica (hint)");
    let answer = ok(&mut client, "SHOW port /* pgweir: route=primary */");
    assert_eq!(answer.value().as_deref(), Some(&*primary));
    for node in cluster().nodes() {
        let hinted = format!("/* pgweir: route={} */ {port}", node.name());
        assert_eq!(value(&mut client, &hinted), node.port().to_string());
        ok(
            &mut client,
            &format!("SET pgweir.route = '{}'", node.name()),
        );
        assert_eq!(value(&mut client, port), node.port().to_string());
        let answer = client.execute("SHOW port", &[]).expect("an answer");
        assert_eq!(answer.value(), Some(node.port().to_string()));
    }
    ok(&mut client, "SET pgweir.route = replica");
    assert!(is_replica(&value(&mut client, port)));
    // The nearer instruction wins.
    let hinted = format!("/* pgweir: route=primary */ {port}");
    assert_eq!(value(&mut client, &hinted), primary);
    ok(&mut client, "RESET pgweir.route");
    assert_eq!(value(&mut client, port), primary);
    // A literal and a comment that only mentions the word are none.
    assert_eq!(
        value(
            &mut client,
            "SELECT inet_server_port(), '/* pgweir: route=replica */'"
        ),
        primary
    );
}

#[test]
fn settings_of_ours_work_through_the_extended_protocol() {
    let proxy = Proxy::start_ready(&config(cluster()));
    let mut client = proxy.client();
    let mut run = |sql: &str| {
        let answer = client.execute(sql, &[]).expect(sql);
        assert_eq!(answer.error(), None, "{sql}");
        answer
    };
    let set = run("SET pgweir.route TO 'primary'");
    assert_eq!(
        set.names(),
        [
            "ParseComplete",
            "BindComplete",
            "NoData",
            "CommandComplete",
            "ReadyForQuery"
        ]
    );
    let shown = run("SHOW pgweir.route");
    assert_eq!(
        shown.names(),
        [
            "ParseComplete",
            "BindComplete",
            "RowDescription",
            "DataRow",
            "CommandComplete",
            "ReadyForQuery"
        ]
    );
    assert_eq!(shown.value().as_deref(), Some("primary"));
    run("SELECT 1");
    assert_eq!(
        run("SHOW pgweir.last_route").value().as_deref(),
        Some("primary (session_setting)")
    );
    run("RESET pgweir.route");
    assert_eq!(run("SHOW pgweir.route").value().as_deref(), Some("auto"));
    let rows = run("EXPLAIN ROUTE SELECT 1").rows();
    assert!(rows.len() > 2, "{rows:?}");
}

#[test]
fn a_statement_for_the_proxy_is_prepared_described_and_run_twice() {
    let proxy = Proxy::start_ready(&config(cluster()));
    let mut client = proxy.client();
    let mut out = Vec::new();
    append_parse(&mut out, "show", "SHOW pgweir.consistency");
    let described = frontend::Describe {
        kind: frontend::Target::Statement,
        name: b"show",
    };
    described.encode(&mut out);
    frontend::Sync.encode(&mut out);
    for _ in 0..2 {
        append_undescribed(&mut out, "show");
        frontend::Sync.encode(&mut out);
    }
    client.send(&out).expect("sent");
    let prepared = client.until_ready().expect("an answer");
    assert_eq!(
        prepared.names(),
        [
            "ParseComplete",
            "ParameterDescription",
            "RowDescription",
            "ReadyForQuery"
        ]
    );
    for _ in 0..2 {
        let answer = client.until_ready().expect("an answer");
        assert_eq!(answer.value().as_deref(), Some("session"), "{answer:?}");
    }
}

#[test]
fn read_only_transactions_run_on_a_replica_as_a_whole() {
    let proxy = start_on_schema(&config(cluster()));
    let mut client = on_schema(&proxy);
    wait_for_replicas(&mut client);
    for (begin, on_replica) in [
        ("BEGIN READ ONLY", "t"),
        (
            "START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            "t",
        ),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", "f"),
        ("BEGIN", "f"),
        ("BEGIN READ WRITE", "f"),
    ] {
        ok(&mut client, begin);
        assert_eq!(client.status(), TransactionStatus::InTransaction);
        for _ in 0..3 {
            assert_eq!(
                value(&mut client, "SELECT pg_is_in_recovery()"),
                on_replica,
                "{begin}"
            );
            assert_eq!(value(&mut client, "SELECT count(*) FROM users"), "2");
        }
        ok(&mut client, "COMMIT");
        assert_eq!(client.status(), TransactionStatus::Idle);
    }
    // A write in it is refused as on a direct connection, and not carried out elsewhere.
    ok(&mut client, "BEGIN READ ONLY");
    let answer = client.query("DELETE FROM users").expect("an answer");
    assert_eq!(answer.sqlstate().as_deref(), Some("25006"));
    assert_eq!(client.status(), TransactionStatus::Failed);
    ok(&mut client, "ROLLBACK");
    assert_eq!(value(&mut client, "SELECT count(*) FROM users"), "2");
}

/// Two tests fill the schema's log, and one of them counts.
fn log_of_the_schema() -> MutexGuard<'static, ()> {
    static LOG: Mutex<()> = Mutex::new(());
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_read_that_writes_after_all_runs_on_the_primary_and_is_remembered() {
    let _one_at_a_time = log_of_the_schema();
    let proxy = start_on_schema(&config(cluster()));
    let mut client = on_schema(&proxy);
    wait_for_replicas(&mut client);
    // Else the replicas would not be asked before they have replayed what the session wrote.
    ok(&mut client, "SET pgweir.consistency = eventual");
    // A catalog that is loaded later would make the proxy forget what it has learned.
    eventually!(explained(&mut client, "SELECT add_tax(1)").0 == "replica");
    let log = |client: &mut Client| {
        value(
            client,
            "SELECT count(*) FROM log /* pgweir: route=primary */",
        )
    };
    let before: u32 = log(&mut client).parse().expect("a count");
    // The view calls a function that inserts, and that says that it does not.
    for (route, sql) in [
        (
            "primary (rerouted)",
            "SELECT id FROM lying_users WHERE a > 0",
        ),
        (
            "primary (learned)",
            "SELECT id FROM lying_users WHERE a > 0",
        ),
        // The same shape.
        (
            "primary (learned)",
            "SELECT id FROM lying_users WHERE a > 1",
        ),
    ] {
        let answer = ok(&mut client, sql);
        assert_eq!(answer.rows().len(), 2, "{answer:?}");
        let expected = [
            "RowDescription",
            "DataRow",
            "DataRow",
            "CommandComplete",
            "ReadyForQuery",
        ];
        assert_eq!(answer.names(), expected);
        assert_eq!(last_route(&mut client), route, "{sql}");
    }
    let after: u32 = log(&mut client).parse().expect("a count");
    assert_eq!(after, before + 6, "each ran once");
    // Through the extended protocol, and in COPY.
    let answer = client
        .execute("SELECT id, a FROM lying_users WHERE id > $1", &[Some("0")])
        .expect("an answer");
    assert_eq!(answer.error(), None);
    assert_eq!(answer.rows().len(), 2);
    assert_eq!(
        answer
            .names()
            .iter()
            .filter(|name| **name == "BindComplete")
            .count(),
        1
    );
    assert_eq!(last_route(&mut client), "primary (rerouted)");
    ok(&mut client, "COPY (SELECT a FROM lying_users) TO STDOUT");
    assert_eq!(last_route(&mut client), "primary (rerouted)");
    // An error that the primary raises too is the client's, and a table that is nowhere says nothing about the shape.
    for _ in 0..2 {
        let answer = client
            .query("SELECT * FROM nowhere_at_all")
            .expect("an answer");
        assert_eq!(answer.sqlstate().as_deref(), Some("42P01"));
        let answer = client.query("SELECT 1/0").expect("an answer");
        assert_eq!(answer.sqlstate().as_deref(), Some("22012"));
        assert_eq!(last_route(&mut client), "replica (read)");
    }
}

#[test]
fn a_pipeline_that_writes_in_the_middle_of_reads_is_answered_once_and_in_order() {
    let _one_at_a_time = log_of_the_schema();
    let proxy = start_on_schema(&config(cluster()));
    let mut client = on_schema(&proxy);
    wait_for_replicas(&mut client);
    let mut out = Vec::new();
    for number in 0..30 {
        let sql = match number % 3 {
            0 => format!("SELECT '{number}', count(a) AS c{number} FROM lying_users"),
            1 => format!("SELECT '{number}'"),
            _ => format!("INSERT INTO log (msg) VALUES ('{number}') RETURNING msg"),
        };
        pgweir_testkit::append_execute(&mut out, &sql, &[]);
        frontend::Sync.encode(&mut out);
    }
    client.send(&out).expect("sent");
    for number in 0..30 {
        let answer = client.until_ready().expect("an answer");
        assert_eq!(answer.value(), Some(number.to_string()), "{answer:?}");
        assert_eq!(answer.rows().len(), 1);
    }
}

#[test]
fn a_session_reads_its_own_writes_while_replicas_are_late_and_others_keep_using_them() {
    let cluster = new_cluster(2);
    let proxy = Proxy::start_ready(&with_usual_wait(&config(&cluster)));
    let [mut writer, mut reader, mut careless] = [proxy.client(), proxy.client(), proxy.client()];
    ok(
        &mut writer,
        "CREATE TABLE counter (n int); INSERT INTO counter VALUES (0)",
    );
    let read = "SELECT n FROM counter";
    // Until the catalog knows the table, its name could be that of a view which writes. It knows both or neither.
    ok(
        &mut writer,
        "CREATE FUNCTION known() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'",
    );
    eventually!({
        ok(&mut reader, "SELECT known()");
        last_route(&mut reader).starts_with("replica")
    });
    for replica in [0, 1] {
        cluster
            .replica(replica)
            .delay_apply(Duration::from_secs(1))
            .expect("delayed");
    }
    wait_for_replicas(&mut reader);
    ok(&mut careless, "SET pgweir.consistency = eventual");
    let (mut on_replica, mut stale) = (0, 0);
    let mut routes = BTreeSet::new();
    for n in 1..=60 {
        if n % 2 == 0 {
            ok(&mut writer, &format!("UPDATE counter SET n = {n}"));
        } else {
            let update = format!("UPDATE counter SET n = {n}");
            ok(&mut writer, &format!("BEGIN; {update}"));
            ok(&mut writer, "COMMIT");
        }
        let seen = match n % 3 {
            0 => writer.execute(read, &[]).expect("an answer").value(),
            _ => writer.query(read).expect("an answer").value(),
        };
        assert_eq!(seen, Some(n.to_string()), "{}", last_route(&mut writer));
        ok(&mut reader, read);
        let route = last_route(&mut reader);
        on_replica += usize::from(route.starts_with("replica"));
        routes.insert(route);
        ok(&mut careless, &format!("UPDATE counter SET n = {n}"));
        stale += usize::from(value(&mut careless, read) != n.to_string());
    }
    assert!(
        on_replica >= 55,
        "the other session used replicas {on_replica} times of 60: {routes:?}"
    );
    assert!(stale > 0, "nothing was late, so this proves nothing");
    // No session stays on the primary for good.
    eventually!({
        assert_eq!(value(&mut writer, read), "60");
        last_route(&mut writer).starts_with("replica")
    });
}

#[test]
fn a_replica_over_max_lag_takes_no_reads_until_it_has_caught_up() {
    let cluster = new_cluster(2);
    let text = config(&cluster).replace(
        "[clusters.main]\n",
        "[clusters.main]\nmax_lag = \"500ms\"\n",
    );
    let proxy = Proxy::start_ready(&text);
    let mut client = proxy.client();
    wait_for_replicas(&mut client);
    let [late, other] = [cluster.replica(0).port(), cluster.replica(1).port()];
    let used = |client: &mut Client| {
        let ports: Vec<u16> = (0..40).map(|_| port_of_a_read(client)).collect();
        [late, other].map(|port| ports.contains(&port))
    };
    eventually!(used(&mut client) == [true, true]);
    cluster.replica(0).pause_replay().expect("paused");
    ok(&mut client, "CREATE TABLE t (a int)");
    eventually!(used(&mut client) == [false, true]);
    // Whoever has not written is told the lag; the writer, that its own write is not there.
    let mut reader = proxy.client();
    let is_late = |row: &Vec<Option<String>>| row[2].as_deref() == Some("replica_lag");
    eventually!(
        ok(&mut reader, "EXPLAIN ROUTE SELECT 1")
            .rows()
            .iter()
            .any(is_late)
    );
    eventually!(used(&mut reader) == [false, true]);
    // With both over the limit it is the primary.
    cluster.replica(1).pause_replay().expect("paused");
    ok(&mut client, "CREATE TABLE u (a int)");
    eventually!(port_of_a_read(&mut reader) == cluster.primary().port());
    for replica in [0, 1] {
        cluster.replica(replica).resume_replay().expect("resumed");
    }
    eventually!(used(&mut reader) == [true, true]);
    eventually!(used(&mut client) == [true, true]);
}

#[test]
fn a_table_that_a_replica_does_not_know_yet_is_read_from_the_primary() {
    let cluster = new_cluster(1);
    let proxy = Proxy::start_ready(&config(&cluster));
    let [mut owner, mut reader] = [proxy.client(), proxy.client()];
    wait_for_replicas(&mut reader);
    cluster.replica(0).pause_replay().expect("paused");
    ok(&mut owner, "CREATE TABLE young AS SELECT 7 AS a");
    assert_eq!(value(&mut reader, "SELECT a FROM young"), "7");
    let answer = reader
        .execute("SELECT a FROM young", &[])
        .expect("an answer");
    assert_eq!(answer.value().as_deref(), Some("7"), "{answer:?}");
    cluster.replica(0).resume_replay().expect("resumed");
    // The shape is not held against it.
    eventually!({
        assert_eq!(value(&mut reader, "SELECT a FROM young"), "7");
        last_route(&mut reader) == "replica (read)"
    });
}

#[test]
fn a_transaction_that_has_set_more_than_is_kept_of_it_writes_nevertheless() {
    let proxy = start_on_schema(&config(cluster()));
    let mut client = on_schema(&proxy);
    wait_for_replicas(&mut client);
    ok(&mut client, "SET pgweir.consistency = eventual");
    ok(&mut client, "BEGIN");
    ok(&mut client, "SELECT 1");
    let many: String = (0..100)
        .map(|n| format!("SET LOCAL my.a = '{n}';"))
        .collect();
    for _ in 0..11 {
        ok(&mut client, &many);
    }
    for n in 0..15 {
        ok(&mut client, &format!("SET LOCAL my.a = '{n}'"));
    }
    ok(
        &mut client,
        "INSERT INTO app.users (email, name) VALUES ('many', 'M')",
    );
    ok(&mut client, "ROLLBACK");
}

#[test]
fn a_large_statement_runs_in_a_transaction_that_stays_on_its_replica() {
    let proxy = start_on_schema(&config(cluster()));
    let mut client = on_schema(&proxy);
    wait_for_replicas(&mut client);
    ok(&mut client, "SET pgweir.consistency = eventual");
    ok(
        &mut client,
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    );
    assert_ne!(port_of_a_read(&mut client), cluster().primary().port());
    let text = "x".repeat(3 << 20);
    let length = value(&mut client, &format!("SELECT length('{text}')"));
    assert_eq!(length, text.len().to_string());
    ok(&mut client, "COMMIT");
}

#[test]
fn a_role_that_a_replica_does_not_know_yet_is_assumed_on_the_primary() {
    let cluster = new_cluster(1);
    let proxy = Proxy::start_ready(&config(&cluster));
    let mut client = proxy.client();
    wait_for_replicas(&mut client);
    ok(&mut client, "SET pgweir.consistency = eventual");
    cluster.replica(0).pause_replay().expect("paused");
    let made = format!("CREATE ROLE newborn; GRANT newborn TO {USER}");
    cluster.sql(DATABASE, &made).expect("a role");
    ok(&mut client, "SET ROLE newborn");
    assert_eq!(value(&mut client, "SELECT current_user"), "newborn");
    cluster.replica(0).resume_replay().expect("resumed");
}
