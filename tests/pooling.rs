//! Pool modes on real servers: who shares a server connection with whom, and what must not be seen of that.

use pgweir_testkit::{Client, append_bound, append_execute, eventually, patience};
use pgweir_wire::{TransactionStatus, frontend};

use crate::support::{
    DATABASE, Proxy, cluster, config, login, new_cluster, prepare, run_named, value,
};

/// The shared cluster's configuration with more lines for its databases.
fn with_database(lines: &str) -> String {
    config(cluster()).replace("[databases.\"*\"]", &format!("[databases.\"*\"]\n{lines}"))
}

/// A proxy with one connection per server, so that any two clients share it.
fn narrow() -> Proxy {
    Proxy::start_ready(&with_database("pool_size = 1"))
}

fn backend(client: &mut Client) -> String {
    value(client, "SELECT pg_backend_pid()")
}

fn run(client: &mut Client, name: &str) -> String {
    let answer = run_named(client, name);
    assert_eq!(answer.error(), None, "{name}");
    answer.value().unwrap_or_default()
}

#[test]
fn in_transaction_pooling_clients_take_turns_on_one_server_connection() {
    let proxy = narrow();
    let mut clients: Vec<Client> = (0..8).map(|_| proxy.client()).collect();
    let first = backend(&mut clients[0]);
    for round in 0..20 {
        for client in &mut clients {
            if round % 3 == 0 {
                client.query("BEGIN").expect("an answer");
            }
            assert_eq!(backend(client), first);
            if round % 3 == 0 {
                client.query("COMMIT").expect("an answer");
            }
        }
    }
    // All at once: they wait in line, and each is served.
    for (number, client) in clients.iter_mut().enumerate() {
        let sql = format!("SELECT {number} + 0 * pg_backend_pid()");
        client.send_query(&sql).expect("sent");
    }
    for (number, client) in clients.iter_mut().enumerate().rev() {
        let answer = client.until_ready().expect("an answer");
        assert_eq!(answer.value(), Some(number.to_string()));
    }
}

#[test]
fn a_transaction_keeps_its_server_and_others_wait() {
    let proxy = narrow();
    let [mut one, mut other] = [proxy.client(), proxy.client()];
    one.query("BEGIN").expect("an answer");
    other.send_query("SELECT pg_backend_pid()").expect("sent");
    assert_eq!(value(&mut one, "SELECT 1"), "1");
    assert_eq!(one.status(), TransactionStatus::InTransaction);
    let mine = backend(&mut one);
    one.query("COMMIT").expect("an answer");
    let answer = other.until_ready().expect("an answer");
    assert_eq!(answer.value(), Some(mine));
}

/// What a session does, how the next one would notice, and what that must see.
const LEFTOVERS: &[(&str, &str, &str)] = &[
    (
        "SET search_path = pg_catalog",
        "SELECT current_setting('search_path')",
        "\"$user\", public",
    ),
    (
        "SET work_mem = '123kB'; SET statement_timeout = '7s'",
        "SELECT current_setting('work_mem') || current_setting('statement_timeout')",
        "4MB0",
    ),
    (
        "SELECT set_config('my.tenant', 'secret', false)",
        "SELECT coalesce(current_setting('my.tenant', true), '')",
        "",
    ),
    (
        "CREATE TEMP TABLE leftover (a int)",
        "SELECT count(*) FROM pg_class WHERE relname = 'leftover'",
        "0",
    ),
    (
        "SELECT pg_advisory_lock(4711)",
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
        "0",
    ),
    (
        "LISTEN leftover",
        "SELECT count(*) FROM pg_listening_channels()",
        "0",
    ),
    (
        "PREPARE leftover AS SELECT 1",
        "SELECT count(*) FROM pg_prepared_statements WHERE name = 'leftover'",
        "0",
    ),
    (
        "DECLARE leftover CURSOR WITH HOLD FOR SELECT 1",
        "SELECT count(*) FROM pg_cursors",
        "0",
    ),
    ("SET ROLE pooling_role", "SELECT current_user", "app"),
    (
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SELECT current_setting('default_transaction_read_only') || pg_backend_pid() * 0",
        "off0",
    ),
    (
        "DO $$ BEGIN PERFORM set_config('work_mem', '99kB', false); END $$",
        "SELECT current_setting('work_mem')",
        "4MB",
    ),
    (
        "SELECT pooling_sets()",
        "SELECT current_setting('work_mem')",
        "4MB",
    ),
    (
        "SELECT pooling_locks()",
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
        "0",
    ),
    (
        "CALL pooling_procedure()",
        "SELECT count(*) FROM pg_class WHERE relname = 'leftover'",
        "0",
    ),
    (
        "SET SESSION AUTHORIZATION app; SET lock_timeout = '5s'",
        "SELECT current_setting('lock_timeout')",
        "0",
    ),
];

#[test]
fn what_a_session_leaves_behind_is_gone_before_the_next_one_comes() {
    let proxy = narrow();
    let mut owner = proxy.client();
    // Roles belong to the whole cluster, which other tests share: this one alone uses this name.
    let superuser = cluster();
    superuser
        .sql(
            DATABASE,
            "CREATE ROLE pooling_role; GRANT pooling_role TO app",
        )
        .expect("a role");
    for sql in [
        "CREATE FUNCTION pooling_sets() RETURNS void LANGUAGE plpgsql AS \
         $$ BEGIN SET work_mem = '77kB'; END $$",
        "CREATE FUNCTION pooling_locks() RETURNS void LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM pg_advisory_lock(4712); END $$",
        "CREATE PROCEDURE pooling_procedure() LANGUAGE plpgsql AS \
         $$ BEGIN CREATE TEMP TABLE leftover (a int); END $$",
    ] {
        assert_eq!(owner.query(sql).expect("an answer").error(), None);
    }
    owner.terminate().expect("a goodbye");
    for (leave, look, expected) in LEFTOVERS {
        let mut visitor = proxy.client();
        assert_eq!(visitor.query(leave).expect(leave).error(), None, "{leave}");
        visitor.terminate().expect("a goodbye");
        // On the primary, where the visitor was.
        let mut next = proxy.client();
        next.query("SET pgweir.route = 'primary'")
            .expect("an answer");
        assert_eq!(value(&mut next, look), *expected, "after {leave}");
    }
}

#[test]
fn what_a_session_has_set_stays_its_own_while_others_come_and_go() {
    let proxy = Proxy::start_ready(&with_database("pool_size = 2"));
    let [mut one, mut other] = [proxy.client(), proxy.client()];
    one.query("SET work_mem = '123kB'").expect("an answer");
    assert_eq!(value(&mut one, "SHOW pgweir.pinned"), "");
    assert_eq!(value(&mut other, "SHOW pgweir.pinned"), "");
    for _ in 0..10 {
        assert_eq!(value(&mut one, "SHOW work_mem"), "123kB");
        other.query("BEGIN").expect("an answer");
        assert_eq!(value(&mut other, "SHOW work_mem"), "4MB");
        other.query("COMMIT").expect("an answer");
    }
}

#[test]
fn in_session_pooling_a_client_keeps_its_server_and_leaves_it_clean() {
    let proxy = Proxy::start_ready(&with_database("pool_mode = \"session\"\npool_size = 2"));
    let [mut one, mut other] = [proxy.client(), proxy.client()];
    let mine = backend(&mut one);
    assert_ne!(mine, backend(&mut other));
    one.query("CREATE TEMP TABLE mine (a int); SET work_mem = '123kB'")
        .expect("an answer");
    for _ in 0..5 {
        assert_eq!(backend(&mut one), mine);
        assert_eq!(value(&mut one, "SELECT count(*) FROM mine"), "0");
    }
    one.terminate().expect("a goodbye");
    let mut next = proxy.client();
    assert_eq!(backend(&mut next), mine, "the connection is used again");
    assert_eq!(value(&mut next, "SHOW work_mem"), "4MB");
}

#[test]
fn in_statement_pooling_a_transaction_over_several_batches_is_refused() {
    let proxy = Proxy::start_ready(&with_database("pool_mode = \"statement\"\npool_size = 1"));
    let mut client = proxy.client();
    assert_eq!(value(&mut client, "SELECT 1"), "1");
    // Within one batch it is as good as a statement.
    let answer = client.query("BEGIN; SELECT 2; COMMIT").expect("an answer");
    assert_eq!(answer.value().as_deref(), Some("2"));
    client.send_query("BEGIN").expect("sent");
    let refused = client.until_closed().expect("a close");
    assert_eq!(refused.sqlstate().as_deref(), Some("0A000"));
    assert_eq!(value(&mut proxy.client(), "SELECT 3"), "3");
}

/// A way to go.
type Leave = fn(Client);

#[test]
fn a_client_that_leaves_in_mid_transaction_is_rolled_back() {
    let proxy = narrow();
    let mut client = proxy.client();
    client
        .query("CREATE TABLE pooling_rollback (a int)")
        .expect("an answer");
    let leave: [(&str, Leave); 3] = [
        ("with a goodbye", |client| {
            client.terminate().expect("a goodbye");
        }),
        ("without one", drop),
        ("with a reset", Client::reset),
    ];
    for (how, leave) in leave {
        let mut visitor = proxy.client();
        visitor
            .query("BEGIN; LOCK TABLE pooling_rollback; INSERT INTO pooling_rollback VALUES (1)")
            .expect("an answer");
        leave(visitor);
        let answer = client
            .query("SELECT count(*) + 0 * pg_backend_pid() FROM pooling_rollback")
            .expect("an answer");
        assert_eq!(answer.value().as_deref(), Some("0"), "{how}: {answer:?}");
    }
    // In the middle of a statement and of COPY.
    for sql in [
        "INSERT INTO pooling_rollback SELECT 1 FROM pg_sleep(60)",
        "COPY pooling_rollback FROM STDIN",
    ] {
        let visitor = {
            let mut visitor = proxy.client();
            visitor.send_query(sql).expect("sent");
            visitor
        };
        let active = format!("SELECT count(*) FROM pg_stat_activity WHERE query = '{sql}'");
        let at_it = || cluster().sql(DATABASE, &active).expect("a count");
        eventually!(patience::PATIENCE, at_it().trim() == "1", "{sql}");
        drop(visitor);
        let answer = client
            .query("SELECT count(*) + 0 * pg_backend_pid() FROM pooling_rollback")
            .expect("an answer");
        assert_eq!(answer.value().as_deref(), Some("0"), "{sql}: {answer:?}");
    }
    client
        .query("DROP TABLE pooling_rollback")
        .expect("dropped");
}

#[test]
fn startup_parameters_are_each_clients_own_on_a_shared_server() {
    let proxy = narrow();
    let tokyo = login()
        .parameter("TimeZone", "Asia/Tokyo")
        .parameter("application_name", "it's one\\")
        .parameter(
            "options",
            "-c search_path=pg_catalog,public -c DateStyle=German",
        );
    let nome = login()
        .parameter("timezone", "America/Nome")
        .parameter("application_name", "other")
        .parameter("client_encoding", "LATIN1");
    let open = |login| Client::open(proxy.addr(), login).expect("a login");
    let mut clients = [open(&tokyo), open(&nome), proxy.client()];
    let expected = [
        ["Asia/Tokyo", "it's one\\", "German, DMY", "UTF8"],
        ["America/Nome", "other", "ISO, MDY", "LATIN1"],
        ["UTC", "", "ISO, MDY", "UTF8"],
    ];
    const NAMES: [&str; 4] = [
        "TimeZone",
        "application_name",
        "DateStyle",
        "client_encoding",
    ];
    for round in 0..6 {
        for (client, expected) in clients.iter_mut().zip(expected) {
            for (name, expected) in NAMES.iter().zip(expected) {
                assert_eq!(client.parameter(name), Some(expected), "{name}");
            }
            let sql = NAMES.map(|name| format!("current_setting('{name}')"));
            let sql = format!("SELECT {}", sql.join(", "));
            let answer = match round % 3 {
                0 => client.query(&sql),
                1 => client.execute(&sql, &[]),
                // On the primary.
                _ => client.query(&format!("{sql}, pg_backend_pid()")),
            };
            let answer = answer.expect("an answer");
            let row = answer.rows().into_iter().next().expect("a row");
            let row: Vec<_> = row.into_iter().flatten().take(NAMES.len()).collect();
            assert_eq!(row, expected, "round {round}");
        }
    }
    assert_eq!(
        value(&mut clients[0], "SHOW search_path"),
        "pg_catalog,public"
    );
    assert_eq!(
        value(&mut clients[1], "SHOW search_path"),
        "\"$user\", public"
    );
}

#[test]
fn parameters_that_the_server_refuses_are_refused_at_the_login() {
    let proxy = narrow();
    for (name, value, sqlstate) in [
        ("TimeZone", "Mars/Olympus", "22023"),
        ("no_such_setting", "1", "42704"),
        ("options", "-c no_such_setting=1", "42704"),
        ("work_mem", "lots", "22023"),
    ] {
        let login = login().parameter(name, value);
        let refused = Client::open(proxy.addr(), &login).expect_err("refused");
        let direct = format!("127.0.0.1:{}", cluster().primary().port());
        let by_server = Client::open(&direct, &login).expect_err("refused");
        assert_eq!(by_server.sqlstate().as_deref(), Some(sqlstate), "{name}");
        assert_eq!(refused.sqlstate().as_deref(), Some(sqlstate), "{name}");
    }
    assert_eq!(value(&mut proxy.client(), "SELECT 1"), "1");
}

#[test]
fn statements_of_one_name_are_each_clients_own() {
    let proxy = narrow();
    let mut clients: Vec<Client> = (0..5).map(|_| proxy.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        prepare(client, "s", &format!("SELECT 'client {number}'"));
        prepare(client, "", &format!("SELECT 'unnamed {number}'"));
    }
    for round in 0..4 {
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(run(client, "s"), format!("client {number}"), "{round}");
        }
    }
    for (number, client) in clients.iter_mut().enumerate() {
        prepare(client, "", &format!("SELECT 'unnamed {number}'"));
        assert_eq!(run(client, ""), format!("unnamed {number}"));
        assert_eq!(run(client, "s"), format!("client {number}"));
    }
}

#[test]
fn a_statement_prepared_once_runs_on_every_server() {
    let proxy = narrow();
    let mut client = proxy.client();
    prepare(&mut client, "s", "SELECT inet_server_port()");
    prepare(&mut client, "t", "SELECT 'text'");
    for _ in 0..3 {
        for node in cluster().nodes() {
            let set = format!("SET pgweir.route = '{}'", node.name());
            client.query(&set).expect("set");
            assert_eq!(run(&mut client, "s"), node.port().to_string());
            assert_eq!(run(&mut client, "t"), "text");
        }
    }
    // In the same text, and in a transaction that is open already.
    client.query("RESET pgweir.route").expect("reset");
    client.query("BEGIN").expect("an answer");
    let primary = cluster().primary().port().to_string();
    assert_eq!(run(&mut client, "s"), primary);
    client.query("ROLLBACK").expect("an answer");
}

#[test]
fn prepared_statements_are_bounded_per_server_and_work_at_the_limit_and_above() {
    for limit in [1, 2] {
        let text = with_database("pool_size = 1");
        let text = format!("[server]\nprepared_statements_per_server = {limit}\n{text}");
        let proxy = Proxy::start_ready(&text);
        let mut clients = [proxy.client(), proxy.client()];
        let statements = limit + 1;
        for (number, client) in clients.iter_mut().enumerate() {
            for s in 0..statements {
                let sql = format!("SELECT '{number} {s}' || left(pg_backend_pid()::text, 0)");
                prepare(client, &format!("s{s}"), &sql);
            }
        }
        for round in 0..3 {
            for s in 0..statements {
                for (number, client) in clients.iter_mut().enumerate() {
                    let answer = run(client, &format!("s{s}"));
                    assert_eq!(answer, format!("{number} {s}"), "round {round}");
                    let count = value(
                        client,
                        "SELECT count(*) FROM pg_prepared_statements WHERE from_sql = false",
                    );
                    let count: usize = count.parse().expect("a number");
                    assert!(count <= limit, "{count} statements, limit {limit}");
                }
            }
            // More of them in one batch than the server may keep: none is closed under the session's feet.
            for (number, client) in clients.iter_mut().enumerate() {
                let mut out = Vec::new();
                for s in 0..statements {
                    append_bound(&mut out, &format!("s{s}"), &[]);
                }
                frontend::Sync.encode(&mut out);
                client.send(&out).expect("sent");
                let answer = client.until_ready().expect("an answer");
                let rows: Vec<_> = answer.rows().into_iter().flatten().flatten().collect();
                let expected: Vec<_> = (0..statements).map(|s| format!("{number} {s}")).collect();
                assert_eq!(rows, expected, "{answer:?}");
            }
        }
    }
}

#[test]
fn a_statement_survives_a_change_of_its_result_type_that_went_through_the_proxy() {
    let cluster = new_cluster(1);
    let proxy = Proxy::start_ready(&config(&cluster));
    let [mut reader, mut owner] = [proxy.client(), proxy.client()];
    owner
        .query("CREATE TABLE grows (a int); INSERT INTO grows VALUES (1)")
        .expect("an answer");
    cluster
        .wait_caught_up(patience::PATIENCE)
        .expect("caught up");
    prepare(&mut reader, "s", "SELECT * FROM grows");
    prepare(&mut reader, "p", "SELECT *, pg_backend_pid() FROM grows");
    let columns = |client: &mut Client, name: &str| {
        let mut out = Vec::new();
        append_bound(&mut out, name, &[]);
        frontend::Sync.encode(&mut out);
        client.send(&out).expect("sent");
        let answer = client.until_ready().expect("an answer");
        assert_eq!(answer.error(), None, "{name}");
        answer.rows().into_iter().next().map_or(0, |row| row.len())
    };
    for added in 1..4 {
        assert_eq!(columns(&mut reader, "p"), added + 1);
        eventually!(columns(&mut reader, "s") == added);
        // While the replica does not know of it yet, and after it does.
        cluster.replica(0).pause_replay().expect("paused");
        let sql = format!("ALTER TABLE grows ADD COLUMN b{added} int DEFAULT 7");
        assert_eq!(owner.query(&sql).expect("an answer").error(), None);
        for _ in 0..3 {
            columns(&mut reader, "s");
            columns(&mut reader, "p");
        }
        cluster.replica(0).resume_replay().expect("resumed");
        cluster
            .wait_caught_up(patience::PATIENCE)
            .expect("caught up");
    }
}

#[test]
fn a_pipeline_of_several_transactions_is_answered_in_order_whoever_else_is_there() {
    let proxy = narrow();
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    const DEPTH: usize = 50;
    for (number, client) in clients.iter_mut().enumerate() {
        let mut out = Vec::new();
        for index in 0..DEPTH {
            let sql = match index % 5 {
                // A failure skips to its own Sync and no further.
                4 => "SELECT 1/0".to_owned(),
                3 => format!("SELECT '{number} {index}' || left(pg_backend_pid()::text, 0)"),
                _ => format!("SELECT '{number} {index}'"),
            };
            append_execute(&mut out, &sql, &[]);
            frontend::Sync.encode(&mut out);
        }
        client.send(&out).expect("sent");
    }
    for (number, client) in clients.iter_mut().enumerate() {
        for index in 0..DEPTH {
            let answer = client.until_ready().expect("an answer");
            if index % 5 == 4 {
                assert_eq!(answer.sqlstate().as_deref(), Some("22012"));
            } else {
                assert_eq!(answer.value(), Some(format!("{number} {index}")));
            }
        }
    }
}

#[test]
fn what_no_reset_undoes_costs_the_connection_and_sequences_are_forgotten() {
    let proxy = narrow();
    let mut owner = proxy.client();
    value(&mut owner, "CREATE SEQUENCE pooling_sequence");
    let mut visitor = proxy.client();
    assert_eq!(
        value(&mut visitor, "SELECT nextval('pooling_sequence')"),
        "1"
    );
    visitor.terminate().expect("a goodbye");
    for look in ["SELECT currval('pooling_sequence')", "SELECT lastval()"] {
        let answer = owner.query(look).expect("an answer");
        assert_eq!(
            answer.sqlstate().as_deref(),
            Some("55000"),
            "{look}: {answer:?}"
        );
    }
    // Who asks for such a state keeps its server, in case that it has some.
    owner.terminate().expect("a goodbye");
    let mut next = proxy.client();
    let before = backend(&mut next);
    let mut visitor = proxy.client();
    value(&mut visitor, "SELECT setseed(0.25)");
    visitor.terminate().expect("a goodbye");
    assert_ne!(
        backend(&mut next),
        before,
        "the seed of random() survives DISCARD ALL"
    );
    value(&mut next, "DROP SEQUENCE pooling_sequence");
}

#[test]
fn a_notification_reaches_a_listener_that_is_idle_and_nobody_else() {
    let proxy = Proxy::start_ready(&with_database("pool_size = 3"));
    let [mut listener, mut other, mut sender] = [proxy.client(), proxy.client(), proxy.client()];
    value(&mut listener, "LISTEN pooling_channel");
    value(&mut other, "SELECT 1");
    for number in 0..3 {
        value(
            &mut sender,
            &format!("NOTIFY pooling_channel, 'number {number}'"),
        );
        let heard = listener
            .until(pgweir_wire::backend::tag::NOTIFICATION_RESPONSE)
            .expect("a notification");
        assert_eq!(heard.names(), ["NotificationResponse"]);
        assert!(format!("{heard:?}").contains(&format!("number {number}")));
    }
    let answer = other.query("SELECT 1").expect("an answer");
    assert!(!answer.names().contains(&"NotificationResponse"));
    value(&mut listener, "UNLISTEN *");
    assert_eq!(value(&mut listener, "SELECT 'still mine'"), "still mine");
}

/// Opens a transaction and takes a server connection of the primary for it, which a BEGIN alone does not.
const HOLD: &str = "BEGIN; SELECT pg_backend_pid()";

#[test]
fn a_client_that_waits_in_line_can_cancel_or_leave() {
    let proxy = narrow();
    let [mut holder, mut waiter, leaver] = [proxy.client(), proxy.client(), proxy.client()];
    let sql = "SELECT pg_backend_pid() /* in line */";
    for round in 0..3 {
        holder.query(HOLD).expect("an answer");
        waiter.send_query(sql).expect("sent");
        waiter.cancel().expect("a cancel");
        let answer = waiter.until_ready().expect("an answer");
        assert_eq!(
            answer.sqlstate().as_deref(),
            Some("57014"),
            "{round}: {answer:?}"
        );
        waiter.send_query(sql).expect("sent");
        value(&mut holder, "COMMIT");
        let answer = waiter.until_ready().expect("an answer");
        assert_eq!(answer.error(), None, "{round}: {answer:?}");
    }
    holder.query(HOLD).expect("an answer");
    let mut leaver = leaver;
    leaver.send_query(sql).expect("sent");
    leaver.reset();
    waiter.send_query(sql).expect("sent");
    value(&mut holder, "COMMIT");
    let answer = waiter.until_ready().expect("an answer");
    assert_eq!(answer.error(), None, "{answer:?}");
}
