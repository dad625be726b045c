//! Looking: every table, joins, psql and drivers.

use std::process::Command;

use pgweir_testkit::{Client, Login, eventually};

use super::{number, refused, rows, viewer};
use crate::drivers::{INSTALL_JAVA, INSTALL_PYTHON, Script, installed, pgjdbc};
use crate::support::{
    CONSOLE, DATABASE, PASSWORD, Proxy, USER, cluster, config, login, ok, root, value,
    wait_for_replicas,
};

/// All that there are of ours, and two of those that tools look for.
const TABLES: [&str; 27] = [
    "clusters",
    "backends",
    "databases",
    "users",
    "pools",
    "clients",
    "servers",
    "transactions",
    "prepared_statements",
    "statements",
    "routes",
    "learned_routes",
    "pins",
    "rules",
    "cache_tables",
    "cache_entries",
    "shards",
    "sharded_tables",
    "two_phase_transactions",
    "settings",
    "events",
    "metrics",
    "help",
    "help_columns",
    "help_commands",
    "pg_catalog.pg_class",
    "information_schema.tables",
];

fn proxy() -> Proxy {
    let proxy = Proxy::start_ready(&config(cluster()));
    wait_for_replicas(&mut proxy.client());
    proxy
}

#[test]
fn every_table_can_be_read_by_those_who_may_only_look() {
    let proxy = proxy();
    let mut client = viewer(&proxy);
    for table in TABLES {
        let answer = ok(&mut client, &format!("SELECT * FROM {table}"));
        let described = answer
            .0
            .iter()
            .any(|m| m.tag == pgweir_wire::backend::tag::ROW_DESCRIPTION);
        assert!(described, "{table}");
    }
}

#[test]
fn backends_say_what_they_are_and_where_they_stand() {
    let proxy = proxy();
    let mut console = proxy.console();
    let sql = "SELECT name, role, state, weight FROM backends ORDER BY name";
    let expected = [
        ["primary", "primary", "up", "100"],
        ["replica1", "replica", "up", "100"],
        ["replica2", "replica", "up", "100"],
    ];
    assert_eq!(rows(&mut console, sql), expected);
    let sql = "SELECT count(*) FROM backends WHERE lag_ms < 5000 AND timeline = 1 AND replay_lsn LIKE '%/%' AND breaker = 'closed'";
    assert_eq!(number(&mut console, sql), 3.0);
}

#[test]
fn tables_join_group_and_sort() {
    let proxy = proxy();
    let mut busy = proxy.client();
    ok(&mut busy, "BEGIN; SELECT pg_current_xact_id()");
    let mut console = proxy.console();
    let sql = "SELECT b.name, p.waiting FROM backends b JOIN pools p ON p.backend = b.name ORDER BY 2 DESC, 1";
    let joined = rows(&mut console, sql);
    assert!(joined.iter().any(|row| row[0] == "primary"), "{joined:?}");
    let sql = "SELECT c.state, count(*), max(c.wait_ms) FROM clients c GROUP BY 1 HAVING count(*) >= 1 ORDER BY 1";
    let states = rows(&mut console, sql);
    assert!(states.iter().any(|row| row[0] == "active"), "{states:?}");
}

#[test]
fn a_clients_row_follows_what_it_does() {
    let proxy = proxy();
    let login = login().parameter("application_name", "shop");
    let mut client = Client::open(proxy.addr(), &login).expect("a login");
    let id = client.process_id();
    let mut console = proxy.console();
    let mut of_client = |what: &str| {
        let sql = format!("SELECT {what} FROM clients WHERE id = {id}");
        rows(&mut console, &sql).pop().unwrap_or_default()
    };
    assert_eq!(
        of_client("user, database, application, state"),
        [USER, DATABASE, "shop", "idle"]
    );
    ok(&mut client, "BEGIN; CREATE TEMP TABLE t (a int)");
    assert_eq!(of_client("state, backend"), ["active", "primary"]);
    ok(&mut client, "COMMIT");
    eventually!(of_client("pinned") == ["temp_table"]);
    ok(&mut client, "DROP TABLE t");
    eventually!(of_client("pinned") == [""]);
    drop(client);
    eventually!(of_client("id").is_empty());
}

#[test]
fn transactions_and_pins_and_servers_name_the_client() {
    let proxy = proxy();
    let mut client = proxy.client();
    let id = client.process_id().to_string();
    ok(&mut client, "LISTEN news");
    ok(&mut client, "BEGIN; SELECT pg_current_xact_id()");
    let mut console = proxy.console();
    let one = |console: &mut Client, table: &str, column: &str| {
        let sql = format!("SELECT count(*) FROM {table} WHERE {column} = {id}");
        number(console, &sql)
    };
    eventually!(one(&mut console, "transactions", "client") == 1.0);
    eventually!(one(&mut console, "pins", "client") == 1.0);
    eventually!(one(&mut console, "servers", "client") == 1.0);
}

#[test]
fn statements_are_counted_by_shape_and_where_they_ran() {
    let proxy = proxy();
    let mut client = proxy.client();
    for number in 0..7 {
        ok(
            &mut client,
            &format!("SELECT {number} AS counted_by_shape, generate_series(1, 3)"),
        );
    }
    ok(
        &mut client,
        "BEGIN READ WRITE; SELECT pg_current_xact_id(); COMMIT",
    );
    let refused = client
        .query("SELECT 1 / 0 AS counted_by_shape_too")
        .expect("an answer");
    assert_eq!(refused.sqlstate().as_deref(), Some("22012"));
    let mut console = proxy.console();
    let sql = "SELECT calls, rows, primary_calls + replica_calls, errors, statement FROM statements \
               WHERE statement LIKE '%counted_by_shape%' ORDER BY calls DESC";
    eventually!({
        let seen = rows(&mut console, sql);
        seen.len() == 2 && seen[0][..4] == ["7", "21", "7", "0"] && seen[1][3] == "1"
    });
    let shapes = rows(&mut console, sql);
    assert!(
        !shapes[0][4].contains('6'),
        "a value in a shape: {shapes:?}"
    );
    let sql = "SELECT sum(count) FROM routes WHERE decision = 'replica' AND reason = 'read'";
    assert!(number(&mut console, sql) >= 7.0);
}

#[test]
fn no_value_of_a_statement_is_shown() {
    let proxy = proxy();
    let mut client = proxy.client();
    let mut console = proxy.console();
    let query_of = |console: &mut Client, client: &Client| {
        let sql = format!(
            "SELECT query FROM clients WHERE id = {}",
            client.process_id()
        );
        value(console, &sql)
    };
    ok(&mut client, "SET app.jwt = 'not-to-be-seen'");
    ok(&mut client, "SELECT pg_current_xact_id()");
    for number in 0..20 {
        ok(&mut client, "BEGIN");
        ok(&mut client, "SELECT pg_current_xact_id()");
        ok(
            &mut client,
            &format!("SET LOCAL app.user_id = 'seen{number}'"),
        );
        assert_eq!(
            query_of(&mut console, &client),
            "set local app.user_id = ''"
        );
        ok(&mut client, "COMMIT");
    }
    ok(&mut client, "BEGIN");
    // Whether it may.
    let alter = "ALTER ROLE CURRENT_USER SET app.jwt TO not_to_be_seen";
    client.query(alter).expect("an answer");
    assert_eq!(
        query_of(&mut console, &client),
        "alter role current_user set app.jwt to ''"
    );
    ok(&mut client, "ROLLBACK");
    let answer = client.query("SELECT 'not-to-be-seen").expect("an answer");
    assert_eq!(answer.sqlstate().as_deref(), Some("42601"));
    assert_eq!(query_of(&mut console, &client), "select ...");
    ok(&mut client, "SET standard_conforming_strings = off");
    ok(
        &mut client,
        "SELECT 'it\\'s not-to-be-seen' AS x /* it's */",
    );
    assert_eq!(query_of(&mut console, &client), "select ...");
    // In one pipeline the server has not said yet how it reads.
    let mut other = proxy.client();
    for sql in [
        "SET standard_conforming_strings = off",
        "SELECT 'it\\'s not-to-be-seen' AS x /* it's */",
    ] {
        other.send_query(sql).expect("it is sent");
    }
    for _ in 0..2 {
        assert_eq!(other.until_ready().expect("an answer").sqlstate(), None);
    }
    assert_eq!(query_of(&mut console, &other), "select ...");
    let mut count = |what: &str| {
        let sql = format!("SELECT count(*) FROM statements WHERE statement LIKE '{what}'");
        number(&mut console, &sql)
    };
    // Each worker keeps statistics of its own, which are shown as one.
    eventually!(count("set local app.user_id = ''''") == 1.0);
    eventually!(count("alter role current_user set app.jwt to ''''") == 1.0);
    eventually!(count("select ...") == 1.0);
    assert_eq!(count("%seen%"), 0.0);
}

#[test]
fn who_may_only_look_changes_nothing() {
    let proxy = proxy();
    let mut client = viewer(&proxy);
    for sql in [
        "UPDATE backends SET weight = 1",
        "UPDATE settings SET value = '1s' WHERE name = 'max_lag'",
        "INSERT INTO rules (name, route) VALUES ('x', 'primary')",
        "PAUSE",
        "RELOAD",
        "SAVE CONFIG",
        "SHUTDOWN",
        "KILL 1",
        "DRAIN replica1",
    ] {
        let (sqlstate, message) = refused(&mut client, sql);
        assert_eq!(sqlstate, "42501", "{sql}: {message}");
    }
    assert_eq!(
        value(
            &mut client,
            "SELECT count(*) FROM backends WHERE weight = 100"
        ),
        "3"
    );
}

#[test]
fn only_operators_get_in() {
    let proxy = proxy();
    let stranger = Login::new(USER, CONSOLE).password(PASSWORD);
    let error = Client::open(proxy.addr(), &stranger).expect_err("refused");
    assert_eq!(error.sqlstate().as_deref(), Some("42501"));
}

#[test]
fn mistakes_name_what_was_probably_meant() {
    let proxy = proxy();
    let mut console = proxy.console();
    for (sql, sqlstate, names) in [
        ("SELECT wieght FROM backends", "42703", "weight"),
        ("SELECT * FROM backend", "42P01", "backends"),
        ("PUASE", "42601", "PAUSE"),
        ("SHOW POLLS", "", "pools"),
    ] {
        let answer = console.query(sql).expect("an answer");
        let error = answer.error().unwrap_or_else(|| panic!("{sql}"));
        let text = error.comparable();
        assert!(text.contains(names), "{sql}: {text}");
        assert!(
            sqlstate.is_empty() || text.contains(sqlstate),
            "{sql}: {text}"
        );
        assert_eq!(value(&mut console, "SELECT 'still here'"), "still here");
    }
}

#[test]
fn psqls_own_commands_list_the_tables_or_do_no_harm() {
    let proxy = proxy();
    let psql = cluster().binaries().client("psql").expect("psql");
    let run = |command: &str| {
        let output = Command::new(&psql)
            .args([
                &proxy.console_url(),
                "-X",
                "-v",
                "ON_ERROR_STOP=0",
                "-c",
                command,
                "-c",
                "SELECT 'alive'",
            ])
            .output()
            .expect("psql runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr))
    };
    for command in ["\\d", "\\dt"] {
        let (stdout, stderr) = run(command);
        assert!(
            stdout.contains("backends") && stdout.contains("pools"),
            "{command}: {stdout}{stderr}"
        );
    }
    let (stdout, stderr) = run("\\d backends");
    assert!(
        stdout.contains("weight") && stdout.contains("lag_ms"),
        "{stdout}{stderr}"
    );
    let (stdout, _) = run("\\l");
    assert!(stdout.contains(CONSOLE), "{stdout}");
    for command in [
        "\\du",
        "\\dn",
        "\\df",
        "\\dv",
        "\\di",
        "\\ds",
        "\\dT",
        "\\dx",
        "\\dp",
        "\\conninfo",
        "\\encoding",
        "\\db",
        "\\dd",
        "\\d+",
        "\\d+ pools",
        "\\dt *.*",
        "\\sf now",
        "\\d nothing",
        "\\drds",
    ] {
        let (stdout, stderr) = run(command);
        assert!(stdout.contains("alive"), "{command}: {stdout}{stderr}");
    }
}

#[test]
fn psycopg_reads_every_table_with_typed_columns() {
    let proxy = proxy();
    ok(&mut proxy.client(), "SELECT 1");
    let program = installed("venv/bin/python");
    let script = Script {
        name: "console",
        needs: vec![program.clone()],
        install: INSTALL_PYTHON,
        program,
        arguments: vec![root().join("tests/console/psycopg_console.py")],
        environment: Vec::new(),
    };
    script.run(&proxy.console_url());
}

#[test]
fn pgjdbc_reads_every_table_with_typed_columns() {
    let proxy = proxy();
    ok(&mut proxy.client(), "SELECT 1");
    let jar = pgjdbc();
    let script = Script {
        name: "console",
        needs: vec![jar.clone()],
        install: INSTALL_JAVA,
        program: "java".into(),
        arguments: vec![
            "-cp".into(),
            jar,
            root().join("tests/console/jdbc/Console.java"),
        ],
        environment: Vec::new(),
    };
    script.run(&proxy.console_url());
}
