//! Prepared statements whose tables were changed: they are prepared anew while the client has seen nothing of a result.

use pgweir_testkit::{Answer, Client, append_bound, patience};
use pgweir_wire::{TransactionStatus, frontend};

use crate::flavours::{Flavour, reader, run};
use crate::support::{
    Proxy, cluster, config, direct, messages, ok, prepare, run_named, value, wait_for_replicas,
};

/// Prepares a statement, changes its table past the proxy, and runs it again.
fn change_under(proxy: &Proxy, table: &str, sql: &str) -> (Client, Answer) {
    let mut owner = direct(cluster());
    ok(
        &mut owner,
        &format!("CREATE TABLE {table} (i int DEFAULT 1)"),
    );
    ok(&mut owner, &format!("INSERT INTO {table} VALUES (1)"));
    cluster()
        .wait_caught_up(patience::PATIENCE)
        .expect("caught up");
    let mut client = reader(proxy);
    prepare(&mut client, "stale", sql);
    let before = run_named(&mut client, "stale");
    assert_eq!(before.error(), None, "{sql}");
    assert_eq!(before.rows()[0].len(), 1, "{sql}");
    ok(
        &mut owner,
        &format!("ALTER TABLE {table} ADD COLUMN more int DEFAULT 2"),
    );
    cluster()
        .wait_caught_up(patience::PATIENCE)
        .expect("caught up");
    let after = run_named(&mut client, "stale");
    (client, after)
}

#[test]
fn a_statement_whose_table_was_changed_is_prepared_anew_where_it_runs() {
    let proxy = Proxy::start_ready(&config(cluster()));
    let session = config(cluster()).replace(
        "[databases.\"*\"]",
        "[databases.\"*\"]\npool_mode = \"session\"",
    );
    let session = Proxy::start_ready(&session);
    wait_for_replicas(&mut proxy.client());
    wait_for_replicas(&mut session.client());
    for (name, proxy) in [("shared", &proxy), ("own", &session)] {
        for (kind, hint) in [("primary", "/* pgweir: route=primary */"), ("any", "")] {
            let table = format!("stale_{name}_{kind}");
            let (_client, answer) =
                change_under(proxy, &table, &format!("{hint} SELECT * FROM {table}"));
            assert_eq!(answer.error(), None, "{table}");
            assert_eq!(
                answer.rows(),
                [[Some("1".to_owned()), Some("2".to_owned())]],
                "{table}"
            );
            assert_eq!(
                answer.names(),
                [
                    "BindComplete",
                    "RowDescription",
                    "DataRow",
                    "CommandComplete",
                    "ReadyForQuery"
                ]
            );
        }
        let table = format!("stale_{name}_write");
        let (mut client, answer) = change_under(
            proxy,
            &table,
            &format!("INSERT INTO {table} VALUES (DEFAULT) RETURNING *"),
        );
        assert_eq!(answer.error(), None, "{table}");
        assert_eq!(
            answer.rows(),
            [[Some("1".to_owned()), Some("2".to_owned())]],
            "{table}"
        );
        let count = format!("/* pgweir: route=primary */ SELECT count(*) FROM {table}");
        assert_eq!(value(&mut client, &count), "3", "each ran once");
    }
}

#[test]
fn a_stale_statement_is_prepared_anew_for_an_execute_in_sql_too() {
    let proxy = Proxy::start_ready(&config(cluster()));
    wait_for_replicas(&mut proxy.client());
    let mut owner = direct(cluster());
    ok(&mut owner, "CREATE TABLE stale_execute (i int DEFAULT 1)");
    let mut client = reader(&proxy);
    let sql = "INSERT INTO stale_execute VALUES (DEFAULT) RETURNING *";
    prepare(&mut client, "stale", sql);
    assert_eq!(ok(&mut client, "EXECUTE stale").rows()[0].len(), 1);
    ok(&mut owner, "ALTER TABLE stale_execute ADD COLUMN more int");
    assert_eq!(ok(&mut client, "EXECUTE stale").rows()[0].len(), 2);
    assert_eq!(value(&mut owner, "SELECT count(*) FROM stale_execute"), "2");
}

#[test]
fn every_connection_of_the_pool_prepares_anew_what_was_changed() {
    let proxy = Proxy::start_ready(&config(cluster()));
    wait_for_replicas(&mut proxy.client());
    let mut owner = direct(cluster());
    ok(&mut owner, "CREATE TABLE stale_many (i int)");
    ok(&mut owner, "INSERT INTO stale_many VALUES (1)");
    let sql = "SELECT *, pg_sleep(0.05) FROM stale_many /* pgweir: route=primary */";
    let mut clients: Vec<_> = (0..4).map(|_| reader(&proxy)).collect();
    for client in &mut clients {
        prepare(client, "many", sql);
    }
    let mut all = |columns: usize| {
        let mut out = Vec::new();
        append_bound(&mut out, "many", &[]);
        frontend::Sync.encode(&mut out);
        // At once, so that each uses a connection of its own.
        for client in &mut clients {
            client.send(&out).expect("sent");
        }
        for client in &mut clients {
            let answer = client.until_ready().expect("an answer");
            assert_eq!(answer.error(), None);
            assert_eq!(answer.rows()[0].len(), columns);
        }
    };
    all(2);
    ok(&mut owner, "ALTER TABLE stale_many ADD COLUMN more int");
    all(3);
    all(3);
}

#[test]
fn in_a_transaction_stale_plans_fail_as_on_a_direct_connection() {
    // One connection: on another one the statement would be prepared anew anyway.
    let config = config(cluster()).replace("[databases.\"*\"]", "[databases.\"*\"]\npool_size = 1");
    let proxy = Proxy::start_ready(&config);
    let mut owner = direct(cluster());
    ok(&mut owner, "CREATE TABLE stale_block (i int)");
    let sql = "SELECT * FROM stale_block /* pgweir: route=primary */";
    let script = |client: &mut Client| {
        let mut seen = Vec::new();
        // Often enough to be shared.
        for _ in 0..3 {
            seen.push(run(client, Flavour::Extended, sql));
        }
        prepare(client, "named", sql);
        seen.push(run(client, Flavour::Named, sql));
        // Prepared anew by the client itself it cannot be stale, and prepared before it is.
        for (flavour, status) in [
            (Flavour::Extended, TransactionStatus::InTransaction),
            (Flavour::Named, TransactionStatus::Failed),
        ] {
            seen.push(ok(client, "BEGIN"));
            seen.push(ok(client, "SAVEPOINT a"));
            seen.push(ok(client, "ALTER TABLE stale_block ADD COLUMN more int"));
            seen.push(run(client, flavour, sql));
            assert_eq!(client.status(), status, "{seen:#?}");
            seen.push(ok(client, "ROLLBACK TO a"));
            seen.push(run(client, Flavour::Extended, sql));
            seen.push(ok(client, "ROLLBACK"));
            seen.push(run(client, Flavour::Extended, sql));
            seen.push(run(client, Flavour::Named, sql));
        }
        seen.iter().flat_map(messages).collect::<Vec<_>>()
    };
    let expected = script(&mut owner);
    assert_eq!(script(&mut proxy.client()), expected);
}

#[test]
fn a_batch_behind_which_others_were_sent_is_not_taken_out_of_order() {
    let proxy = Proxy::start_ready(&config(cluster()));
    let mut owner = direct(cluster());
    ok(&mut owner, "CREATE TABLE stale_order (i int DEFAULT 1)");
    let mut client = proxy.client();
    prepare(
        &mut client,
        "stale",
        "INSERT INTO stale_order VALUES (DEFAULT) RETURNING *",
    );
    assert_eq!(run_named(&mut client, "stale").error(), None);
    ok(&mut owner, "ALTER TABLE stale_order ADD COLUMN more int");
    // Three at once: the first fails with nothing of its result sent, but the others are on their way behind it.
    let mut out = Vec::new();
    for _ in 0..3 {
        append_bound(&mut out, "stale", &[]);
        frontend::Sync.encode(&mut out);
    }
    client.send(&out).expect("sent");
    let answers: Vec<_> = (0..3)
        .map(|_| client.until_ready().expect("an answer"))
        .collect();
    let done = answers
        .iter()
        .filter(|answer| answer.error().is_none())
        .count();
    for answer in &answers {
        assert!(
            answer.error().is_none() || answer.sqlstate().as_deref() == Some("0A000"),
            "{answer:?}"
        );
    }
    let count = value(
        &mut client,
        "SELECT count(*) FROM stale_order /* pgweir: route=primary */",
    );
    assert_eq!(
        count,
        (done + 1).to_string(),
        "what was answered ran once, the rest not at all"
    );
}
