//! Orders under load: they do what PgBouncer's manual says of them.

use std::thread;
use std::time::Duration;

use pgweir_devcluster::StopMode;
use pgweir_testkit::{Client, Login, eventually, patience};

use super::{Load, number, refused, rows, viewer};
use crate::support::{
    PASSWORD, Proxy, USER, config, login, new_cluster, ok, value, wait_for_replicas,
};

/// How long nothing must happen to be sure that nothing does.
const A_WHILE: Duration = Duration::from_millis(300);

fn of(backends: usize) -> (pgweir_devcluster::Cluster, Proxy) {
    let cluster = new_cluster(backends);
    let proxy = Proxy::start_ready(&config(&cluster));
    wait_for_replicas(&mut proxy.client());
    (cluster, proxy)
}

/// Returns how many server connections there are, to one server or to all.
fn connections(console: &mut Client, backend: Option<&str>) -> f64 {
    let of = backend.map(|name| format!(" WHERE backend = '{name}'"));
    number(
        console,
        &format!("SELECT count(*) FROM servers{}", of.unwrap_or_default()),
    )
}

#[test]
fn pause_ends_when_no_server_connection_is_left_and_resume_goes_on() {
    let (_cluster, proxy) = of(1);
    let mut console = proxy.console();
    let load = Load::start(&proxy, 4, "SELECT 1");
    let mut busy = proxy.client();
    ok(&mut busy, "BEGIN; SELECT pg_current_xact_id()");
    let mut other = proxy.console();
    let pausing = thread::spawn(move || {
        ok(&mut other, "PAUSE");
        other
    });
    // It waits for the transaction, and lets it finish.
    eventually!(load.stands_still(A_WHILE));
    assert!(!pausing.is_finished());
    ok(&mut busy, "SELECT 1");
    ok(&mut busy, "COMMIT");
    let mut other = pausing.join().expect("paused");
    assert_eq!(connections(&mut console, None), 0.0);
    // Who comes now waits.
    assert!(load.stands_still(A_WHILE));
    assert_eq!(refused(&mut other, "PAUSE").0.len(), 5);
    ok(&mut console, "RESUME");
    load.wait_for_more(20);
    assert_eq!(refused(&mut console, "RESUME").0.len(), 5);
    assert_eq!(load.stop(), Vec::<String>::new());
}

#[test]
fn pause_of_one_database_leaves_the_others_alone() {
    let (cluster, proxy) = of(1);
    cluster
        .sql("postgres", "CREATE DATABASE second OWNER app")
        .expect("a database");
    let mut console = proxy.console();
    let mut client = proxy.client();
    ok(&mut client, "SELECT 1");
    ok(&mut console, "PAUSE second");
    ok(&mut client, "SELECT 1");
    let load = Load::start(&proxy, 2, "SELECT 1");
    load.wait_for_more(10);
    assert_eq!(load.stop(), Vec::<String>::new());
    // While nothing runs there.
    let second = Login::new(USER, "second").password(PASSWORD);
    let address = proxy.addr().to_owned();
    let held_back = thread::spawn(move || {
        let mut client = Client::open(&address, &second).expect("a login");
        value(&mut client, "SELECT 1")
    });
    thread_stays(&held_back);
    ok(&mut console, "RESUME second");
    assert_eq!(held_back.join().expect("served"), "1");
}

/// Makes sure that a thread waits for something.
fn thread_stays<T>(thread: &thread::JoinHandle<T>) {
    let has_ended = patience::wait_until(A_WHILE, || thread.is_finished());
    assert!(!has_ended, "it is not held back");
}

#[test]
fn a_drained_replica_loses_its_connections_and_gets_them_back() {
    let (_cluster, proxy) = of(2);
    let mut console = proxy.console();
    let load = Load::start(&proxy, 4, "SELECT 1");
    eventually!(connections(&mut console, Some("replica1")) > 0.0);
    ok(&mut console, "DRAIN replica1");
    eventually!(connections(&mut console, Some("replica1")) == 0.0);
    load.wait_for_more(100);
    assert_eq!(connections(&mut console, Some("replica1")), 0.0);
    let state = value(
        &mut console,
        "SELECT state FROM backends WHERE name = 'replica1'",
    );
    assert_eq!(state, "drained");
    ok(&mut console, "UNDRAIN replica1");
    eventually!(connections(&mut console, Some("replica1")) > 0.0);
    assert_eq!(load.stop(), Vec::<String>::new());
    let (_, message) = refused(&mut console, "DRAIN primary");
    assert!(message.contains("primary"), "{message}");
    let answer = console.query("DRAIN replica3").expect("an answer");
    let error = answer.error().expect("no such server").comparable();
    assert!(error.contains("replica"), "{error}");
}

#[test]
fn kill_ends_one_client_and_no_other() {
    let (_cluster, proxy) = of(1);
    let mut console = proxy.console();
    let load = Load::start(&proxy, 2, "SELECT 1");
    let mut victim = proxy.client();
    ok(&mut victim, "BEGIN; SELECT pg_current_xact_id()");
    ok(&mut console, &format!("KILL {}", victim.process_id()));
    let ended = victim.until_closed().expect("an end");
    assert_eq!(ended.sqlstate().as_deref(), Some("57P01"));
    load.wait_for_more(20);
    assert_eq!(load.stop(), Vec::<String>::new());
    let (sqlstate, _) = refused(&mut console, "KILL 12345");
    assert_eq!(sqlstate.len(), 5);
}

#[test]
fn cancel_ends_a_statement_and_not_its_session() {
    let (_cluster, proxy) = of(1);
    let mut console = proxy.console();
    let mut client = proxy.client();
    let id = client.process_id();
    let sleeping = thread::spawn(move || {
        let answer = client.query("SELECT pg_sleep(60)").expect("an answer");
        (client, answer)
    });
    let sql = format!("SELECT state FROM clients WHERE id = {id}");
    eventually!(value(&mut console, &sql) == "active");
    eventually!({
        ok(&mut console, &format!("CANCEL {id}"));
        patience::wait_until(A_WHILE, || sleeping.is_finished())
    });
    let (mut client, answer) = sleeping.join().expect("an answer");
    assert_eq!(answer.sqlstate().as_deref(), Some("57014"));
    ok(&mut client, "SELECT 1");
}

#[test]
fn reconnect_replaces_every_server_connection_under_load() {
    let (_cluster, proxy) = of(1);
    let mut console = proxy.console();
    let load = Load::start(&proxy, 4, "SELECT 1");
    let ids = |console: &mut Client| -> Vec<String> {
        let rows = rows(
            console,
            "SELECT DISTINCT backend || ' ' || process_id FROM servers",
        );
        rows.into_iter().flatten().collect()
    };
    let before = ids(&mut console);
    assert!(!before.is_empty());
    ok(&mut console, "RECONNECT");
    ok(&mut console, "WAIT_CLOSE");
    let after = ids(&mut console);
    assert!(
        before.iter().all(|id| !after.contains(id)),
        "{before:?} {after:?}"
    );
    load.wait_for_more(20);
    assert_eq!(load.stop(), Vec::<String>::new());
}

#[test]
fn a_disabled_database_takes_no_new_clients() {
    let (_cluster, proxy) = of(1);
    let mut console = proxy.console();
    let mut client = proxy.client();
    ok(&mut console, "DISABLE app");
    assert!(Client::open(proxy.addr(), &login()).is_err());
    ok(&mut client, "SELECT 1");
    ok(&mut console, "ENABLE app");
    ok(&mut proxy.client(), "SELECT 1");
}

#[test]
fn shutdown_that_waits_for_clients_ends_when_the_last_has_left() {
    let (_cluster, mut proxy) = of(1);
    let mut client = proxy.client();
    let mut console = proxy.console();
    console
        .send_query("SHUTDOWN WAIT_FOR_CLIENTS")
        .expect("sent");
    eventually!(Client::open(proxy.addr(), &login()).is_err());
    ok(&mut client, "SELECT 1");
    assert!(proxy.ended().is_none());
    drop(client);
    assert!(proxy.wait(Duration::from_secs(10)).success());
}

#[test]
fn shutdown_that_waits_for_servers_lets_transactions_finish() {
    let (_cluster, mut proxy) = of(1);
    let mut idle = proxy.client();
    let mut busy = proxy.client();
    ok(&mut busy, "BEGIN; SELECT pg_current_xact_id()");
    let mut console = proxy.console();
    console
        .send_query("SHUTDOWN WAIT_FOR_SERVERS")
        .expect("sent");
    eventually!(
        idle.query("SELECT 1")
            .map_or(true, |answer| answer.error().is_some())
    );
    assert!(proxy.ended().is_none());
    ok(&mut busy, "COMMIT");
    assert!(proxy.wait(Duration::from_secs(10)).success());
}

#[test]
fn shutdown_ends_at_once() {
    let (_cluster, mut proxy) = of(1);
    let mut busy = proxy.client();
    ok(&mut busy, "BEGIN; SELECT pg_current_xact_id()");
    proxy.console().send_query("SHUTDOWN").expect("sent");
    assert!(proxy.wait(Duration::from_secs(10)).success());
}

#[test]
fn a_trace_shows_one_clients_messages_without_values() {
    let (_cluster, proxy) = of(1);
    let (mut traced, mut other) = (proxy.client(), proxy.client());
    let id = traced.process_id();
    let mut console = proxy.console();
    let tracing = thread::spawn(move || rows(&mut console, &format!("TRACE {id} LIMIT 8")));
    eventually!({
        ok(&mut other, "SELECT 'not to be seen'");
        ok(&mut traced, "SELECT 'a secret value'");
        tracing.is_finished()
    });
    let lines = tracing.join().expect("lines").concat().join("\n");
    assert!(
        lines.contains("Query") && lines.contains("DataRow"),
        "{lines}"
    );
    assert!(
        !lines.contains("secret") && !lines.contains("not to be seen"),
        "{lines}"
    );
}

#[test]
fn explain_route_on_the_console_speaks_for_anybody() {
    let (_cluster, proxy) = of(1);
    let mut console = viewer(&proxy);
    let last = |console: &mut Client, sql: &str| rows(console, sql).pop().unwrap_or_default();
    let sql = "EXPLAIN ROUTE SELECT 1 FOR DATABASE app USER app";
    eventually!(last(&mut console, sql)[1] == "replica");
    let sql = "EXPLAIN ROUTE INSERT INTO t VALUES (1)";
    assert_eq!(last(&mut console, sql)[1..3], ["primary", "write"]);
}

#[test]
fn promote_check_says_which_replica_is_ready() {
    let (cluster, proxy) = of(2);
    let mut console = viewer(&proxy);
    let mut ready = || -> Vec<[String; 2]> {
        let rows = rows(&mut console, "PROMOTE CHECK");
        let of = |row: &Vec<String>| [row[1].clone(), row[2].clone()];
        rows.iter().map(of).collect()
    };
    let expected =
        |second: &str| [["replica1", "t"], ["replica2", second]].map(|row| row.map(str::to_owned));
    eventually!(ready() == expected("t"));
    (cluster.replica(1).stop(StopMode::Fast)).expect("stopped");
    eventually!(ready() == expected("f"));
}
