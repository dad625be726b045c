//! Time limits and sizes that an operator sets: each is seen to do something.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use pgweir_devcluster::Cluster;
use pgweir_testkit::{Answer, Client, Login, eventually};
use pgweir_wire::TransactionStatus;
use pgweir_wire::backend::field;

use crate::flavours::{FLAVOURS, make_ready, run};
use crate::support::{
    DATABASE, Proxy, USER, assert_ours, cluster, config, new_cluster, ok, value, wait_for_replicas,
};

/// The shared cluster's configuration with lines for `[server]`.
fn with_server(lines: &str) -> String {
    format!("[server]\n{lines}\n{}", config(cluster()))
}

/// Waits for the end of the session, and checks what the client is told.
#[track_caller]
fn assert_ended(client: &mut Client, sqlstate: &str) {
    let seen = client.until_closed().expect("closed");
    let error = seen.error().expect("an error");
    assert_ours(error, sqlstate, "FATAL");
}

#[test]
fn a_transaction_that_is_left_alone_is_rolled_back_and_its_session_ended() {
    let proxy = Proxy::start_ready(&with_server("idle_in_transaction_timeout = \"300ms\""));
    let mut bystander = proxy.client();
    for (begin, has_server) in [
        ("BEGIN", false),
        ("BEGIN; SELECT pg_backend_pid()", true),
        ("BEGIN; SELECT pg_backend_pid(); SELECT 1 / 0", true),
    ] {
        let mut client = proxy.client();
        let began = client.query(begin).expect("an answer");
        let pid = began.value();
        assert_ne!(client.status(), TransactionStatus::Idle, "{begin}");
        assert_ended(&mut client, "25P03");
        if has_server {
            let pid = pid.expect("its server's process ID");
            // Rolled back, and ready for the next.
            let sql = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND state <> 'idle'"
            );
            eventually!(cluster().sql(DATABASE, &sql).expect("a count").trim() == "0");
        }
    }
    // Who is outside of a transaction may stay.
    assert_eq!(value(&mut bystander, "SELECT 7"), "7");
}

#[test]
fn a_transaction_in_which_something_happens_is_not_left_alone() {
    let proxy = Proxy::start_ready(&with_server("idle_in_transaction_timeout = \"500ms\""));
    let mut client = proxy.client();
    ok(&mut client, "BEGIN");
    // Longer than the limit, each on its own and all together.
    for _ in 0..3 {
        ok(&mut client, "SELECT pg_sleep(0.7), pg_backend_pid()");
        for _ in 0..3 {
            ok(&mut client, "SELECT pg_sleep(0.2)");
        }
    }
    ok(&mut client, "COMMIT");
}

#[test]
fn a_client_that_does_nothing_is_sent_away() {
    let proxy = Proxy::start_ready(&with_server("client_idle_timeout = \"300ms\""));
    let mut client = proxy.client();
    ok(&mut client, "SELECT pg_sleep(0.8)");
    ok(&mut client, "BEGIN");
    // A transaction has another limit, which is off.
    let mut other = proxy.client();
    assert_ended(&mut other, "57P05");
    ok(&mut client, "COMMIT");
    assert_ended(&mut client, "57P05");
}

#[test]
fn a_limit_that_a_reload_brings_holds_for_those_who_are_idle_already() {
    let proxy = Proxy::start_ready(&with_server(""));
    let mut client = proxy.client();
    ok(&mut client, "SELECT 1");
    let text = with_server("client_idle_timeout = \"200ms\"");
    fs::write(proxy.config_path(), text).expect("written");
    proxy.signal("HUP");
    assert_ended(&mut client, "57P05");
}

/// A proxy that gives what is called `limited` 300 ms.
fn with_limited() -> Proxy {
    let rule = "[[rules]]\nmatch.regex = 'as limited'\naction.timeout = '300ms'\n";
    Proxy::start_ready(&format!("{}\n{rule}", config(cluster())))
}

#[track_caller]
fn assert_timed_out(answer: &Answer) {
    let error = answer.error().expect("an error");
    assert_ours(error, "57014", "ERROR");
    let message = error.error_field(field::MESSAGE).unwrap_or_default();
    assert_eq!(
        message,
        "pgweir: canceling statement due to statement timeout"
    );
    let detail = error.error_field(field::DETAIL).unwrap_or_default();
    assert!(detail.contains("300 ms"), "{detail}");
}

#[test]
fn what_runs_longer_than_its_rule_allows_is_cancelled_and_the_session_goes_on() {
    let proxy = with_limited();
    let mut client = proxy.client();
    wait_for_replicas(&mut client);
    for flavour in FLAVOURS {
        // On a replica, on the primary, and in transactions of both.
        for (begin, sql, end) in [
            ("", "SELECT pg_sleep(60) AS limited", ""),
            ("", "SELECT pg_sleep(60) AS limited, pg_backend_pid()", ""),
            ("BEGIN", "SELECT pg_sleep(60) AS limited", "ROLLBACK"),
            (
                "BEGIN; SELECT pg_backend_pid()",
                "SELECT pg_sleep(60) AS limited",
                "ROLLBACK",
            ),
        ] {
            let mut client = proxy.client();
            make_ready(&mut client, flavour, sql);
            ok(&mut client, begin);
            assert_timed_out(&run(&mut client, flavour, sql));
            let status = match begin {
                "" => TransactionStatus::Idle,
                _ => TransactionStatus::Failed,
            };
            assert_eq!(client.status(), status, "{flavour:?} {begin} {sql}");
            ok(&mut client, end);
            // In time, and without a limit.
            ok(&mut client, "SELECT pg_sleep(0.1) AS limited");
            ok(&mut client, "SELECT pg_sleep(0.5)");
        }
    }
}

/// Where a session has its server connection for itself, messages are passed on as they come.
#[test]
fn a_limit_holds_in_session_pooling_as_well() {
    let rule = "[[rules]]\nmatch.regex = 'as limited'\naction.timeout = '300ms'\n";
    let text = config(cluster()).replace(
        "[databases.\"*\"]",
        "[databases.\"*\"]\npool_mode = \"session\"",
    );
    let proxy = Proxy::start_ready(&format!("{text}\n{rule}"));
    for flavour in FLAVOURS {
        let mut client = proxy.client();
        let sql = "SELECT pg_sleep(60) AS limited";
        make_ready(&mut client, flavour, sql);
        for begin in ["", "BEGIN"] {
            ok(&mut client, begin);
            assert_timed_out(&run(&mut client, flavour, sql));
            ok(&mut client, "ROLLBACK");
            ok(&mut client, "SELECT pg_sleep(0.5)");
        }
        // Behind others, and others behind it.
        for sql in ["SELECT pg_sleep(0.7)", sql, "SELECT pg_sleep(0.7)"] {
            client.send_query(sql).expect("sent");
        }
        assert_eq!(client.until_ready().expect("an answer").error(), None);
        assert_timed_out(&client.until_ready().expect("an answer"));
        assert_eq!(client.until_ready().expect("an answer").error(), None);
    }
}

#[test]
fn a_limit_is_that_of_its_own_batch_in_a_pipeline() {
    let proxy = with_limited();
    let mut client = proxy.client();
    let free = "SELECT pg_sleep(0.7), pg_backend_pid()";
    let quick = "SELECT pg_sleep(0.1) AS limited, pg_backend_pid()";
    let slow = "SELECT pg_sleep(60) AS limited, pg_backend_pid()";
    for begin in ["", "BEGIN; SELECT pg_backend_pid()"] {
        for sql in [begin, free, quick, free, slow] {
            client.send_query(sql).expect("sent");
        }
        // A transaction has failed by then.
        client.send_query("ROLLBACK").expect("sent");
        client.send_query(free).expect("sent");
        for _ in 0..4 {
            assert_eq!(client.until_ready().expect("an answer").error(), None);
        }
        assert_timed_out(&client.until_ready().expect("an answer"));
        for _ in 0..2 {
            assert_eq!(client.until_ready().expect("an answer").error(), None);
        }
    }
}

#[test]
fn time_in_line_for_a_server_does_not_count() {
    let rule = "[[rules]]\nmatch.regex = 'as limited'\naction.timeout = '300ms'\n";
    let text = config(cluster()).replace("[databases.\"*\"]", "[databases.\"*\"]\npool_size = 1");
    let proxy = Proxy::start_ready(&format!("{text}\n{rule}"));
    let [mut one, mut other] = [proxy.client(), proxy.client()];
    ok(&mut one, "BEGIN; SELECT pg_backend_pid()");
    let sql = "SELECT 5 AS limited, pg_backend_pid()";
    other.send_query(sql).expect("sent");
    ok(&mut one, "SELECT pg_sleep(0.8)");
    ok(&mut one, "COMMIT");
    assert_eq!(other.until_ready().expect("an answer").error(), None);
}

/// A cluster of a primary alone, for those who count its connections.
struct Alone(Cluster);

impl Alone {
    fn new() -> Alone {
        Alone(new_cluster(0))
    }

    /// Returns a configuration with lines for the server and for the databases. It knows the superuser as well.
    fn config(&self, server: &str, database: &str) -> String {
        let Alone(cluster) = self;
        let text = config(cluster).replace(
            "[databases.\"*\"]",
            &format!("[databases.\"*\"]\n{database}"),
        );
        let (user, password) = (cluster.superuser(), cluster.password());
        format!(
            "[server]\n{server}\n{text}[[users]]\nname = \"{user}\"\npassword = \"{password}\"\n"
        )
    }

    fn superuser(&self) -> Login {
        Login::new(self.0.superuser(), DATABASE).password(self.0.password())
    }

    /// Returns how many connections the proxy has for the application.
    fn connections(&self) -> usize {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{USER}'");
        let count = self.0.sql("postgres", &sql).expect("a count");
        count.trim().parse().expect("a number")
    }
}

fn pid(client: &mut Client) -> String {
    value(client, "SELECT pg_backend_pid()")
}

#[test]
fn the_cap_of_a_server_is_kept_over_all_users() {
    let alone = Alone::new();
    let text = alone.config("", "pool_size = 2\nmax_backend_connections = 1");
    let proxy = Proxy::start_ready(&text);
    let mut ours = proxy.client();
    pid(&mut ours);
    assert_eq!(alone.connections(), 1);
    // An idle connection makes room, in either direction.
    let mut theirs = Client::open(proxy.addr(), &alone.superuser()).expect("a login");
    pid(&mut theirs);
    eventually!(alone.connections() == 0);
    pid(&mut ours);
    assert_eq!(alone.connections(), 1);
    // One in use does not. Who waits longest comes first.
    ok(&mut ours, "BEGIN; SELECT pg_backend_pid()");
    theirs
        .send_query("SELECT pg_sleep(0.5), pg_backend_pid()")
        .expect("sent");
    ok(&mut ours, "SELECT pg_sleep(0.3)");
    let mut later = proxy.client();
    later
        .send_query("SELECT 1, pg_backend_pid()")
        .expect("sent");
    ok(&mut ours, "SELECT pg_sleep(0.3)");
    ok(&mut ours, "COMMIT");
    assert_eq!(theirs.until_ready().expect("an answer").error(), None);
    assert_eq!(later.until_ready().expect("an answer").error(), None);
    assert_eq!(alone.connections(), 1);
    // Without it there is room for everybody.
    ok(&mut ours, "BEGIN; SELECT pg_backend_pid()");
    theirs.send_query("SELECT pg_backend_pid()").expect("sent");
    let text = text.replace("max_backend_connections = 1", "");
    fs::write(proxy.config_path(), text).expect("written");
    proxy.signal("HUP");
    assert_eq!(theirs.until_ready().expect("an answer").error(), None);
    ok(&mut ours, "COMMIT");
}

#[test]
fn who_has_waited_long_gets_a_connection_of_the_reserve() {
    let alone = Alone::new();
    let database = "pool_size = 1\npool_reserve = 1\npool_reserve_after = \"300ms\"";
    let proxy = Proxy::start_ready(&alone.config("", database));
    let [mut one, mut two] = [proxy.client(), proxy.client()];
    ok(&mut one, "BEGIN; SELECT pg_backend_pid()");
    let began = Instant::now();
    ok(&mut two, "BEGIN; SELECT pg_backend_pid()");
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(alone.connections(), 2);
    // Not a third one; and when nobody waits, the extra one goes.
    let mut three = proxy.client();
    three.send_query("SELECT pg_backend_pid()").expect("sent");
    ok(&mut one, "SELECT pg_sleep(0.8)");
    assert_eq!(alone.connections(), 2);
    ok(&mut one, "COMMIT");
    assert_eq!(three.until_ready().expect("an answer").error(), None);
    ok(&mut two, "COMMIT");
    eventually!(alone.connections() == 1);
}

#[test]
fn a_pool_that_is_in_use_is_filled_and_kept_so() {
    let alone = Alone::new();
    let proxy = Proxy::start_ready(&alone.config("server_idle_timeout = \"1s\"", "pool_min = 3"));
    eventually!(alone.connections() == 3);
    let sql =
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{USER}'");
    alone.0.sql("postgres", &sql).expect("terminated");
    eventually!(alone.connections() == 3);
    // Beyond that, they go as they would.
    let mut clients: Vec<_> = (0..5).map(|_| proxy.client()).collect();
    for client in &mut clients {
        ok(client, "BEGIN; SELECT pg_backend_pid()");
    }
    assert!(alone.connections() >= 5);
    for client in &mut clients {
        ok(client, "COMMIT");
    }
    eventually!(alone.connections() == 3);
}

#[test]
fn an_unused_server_connection_is_closed_and_an_old_one_is_replaced() {
    let alone = Alone::new();
    let proxy = Proxy::start_ready(&alone.config("server_idle_timeout = \"1s\"", ""));
    pid(&mut proxy.client());
    eventually!(alone.connections() == 0);
    let proxy = Proxy::start_ready(&alone.config("server_lifetime = \"1s\"", ""));
    let mut client = proxy.client();
    let first = pid(&mut client);
    eventually!(pid(&mut client) != first);
    // In the middle of a transaction it is kept.
    ok(&mut client, "BEGIN");
    let first = pid(&mut client);
    ok(&mut client, "SELECT pg_sleep(1.5)");
    assert_eq!(pid(&mut client), first);
    ok(&mut client, "COMMIT");
    assert_ne!(pid(&mut client), first);
}

#[test]
fn a_server_that_does_not_answer_is_given_up_after_connect_timeout() {
    let alone = Alone::new();
    // The monitor takes longer to see that something is wrong.
    let proxy = Proxy::start_ready(&alone.config("connect_timeout = \"300ms\"", ""));
    alone.0.primary().freeze().expect("frozen");
    let began = Instant::now();
    let refused = Client::open(proxy.addr(), &alone.superuser()).expect_err("refused");
    let waited = began.elapsed();
    alone.0.primary().thaw().expect("thawed");
    assert_eq!(refused.sqlstate().as_deref(), Some("57P03"), "{refused:?}");
    assert!(
        (Duration::from_millis(300)..Duration::from_secs(4)).contains(&waited),
        "{waited:?}"
    );
}

/// A postmaster that is stopped, while its servers go on: they answer, and nobody new is let in, be it to cancel.
struct Stopped(String);

impl Stopped {
    fn new(alone: &Alone) -> Stopped {
        let pid = alone.0.primary().pid().expect("it runs").to_string();
        let stopped = Stopped(pid);
        stopped.signal("-STOP");
        stopped
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.0]).status();
        assert!(sent.is_ok_and(|status| status.success()));
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.signal("-CONT");
    }
}

#[test]
fn who_waits_for_a_cancel_to_be_dealt_with_is_not_idle() {
    let alone = Alone::new();
    let limit = "idle_in_transaction_timeout = \"1s\"";
    let rule = "[[rules]]\nmatch.regex = 'as limited'\naction.timeout = '100ms'\n";
    let proxy = Proxy::start_ready(&format!("{}\n{rule}", alone.config(limit, "")));
    let [mut client, mut clock] = [proxy.client(), proxy.client()];
    for client in [&mut client, &mut clock] {
        ok(client, "BEGIN; SELECT pg_backend_pid()");
    }
    let stopped = Stopped::new(&alone);
    clock.send_query("SELECT pg_sleep(3)").expect("sent");
    // It ends by itself before it can be told to stop.
    ok(&mut client, "SELECT pg_sleep(0.5) AS limited");
    client.send_query("SELECT 7").expect("sent");
    clock.until_ready().expect("an answer");
    drop(stopped);
    let answer = client.until_ready().expect("an answer");
    assert_eq!(answer.value().as_deref(), Some("7"));
}

/// Returns the keepalive timers of the connections to this port, in hundredths of a second, as the kernel shows them.
#[cfg(target_os = "linux")]
pub(crate) fn keepalive_timers(proxy: &Proxy) -> Vec<u64> {
    let (_, port) = proxy.addr().rsplit_once(':').expect("a port");
    let port: u16 = port.parse().expect("a number");
    let local = format!(":{port:04X}");
    let table = fs::read_to_string("/proc/net/tcp").expect("the table of connections");
    let timer = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        // 01 is ESTABLISHED, and timer 02 that of keepalive.
        let is_ours = fields.get(1)?.ends_with(&local) && *fields.get(3)? == "01";
        let (kind, when) = fields.get(5)?.split_once(':')?;
        (is_ours && kind == "02").then(|| u64::from_str_radix(when, 16).ok())?
    };
    table.lines().filter_map(timer).collect()
}

#[test]
#[cfg(target_os = "linux")]
fn silent_clients_are_probed_as_tcp_keepalive_says() {
    for (lines, expected) in [
        ("tcp_keepalive = \"7s\"", Some(700)),
        ("tcp_keepalive = \"0\"", None),
    ] {
        let proxy = Proxy::start_ready(&with_server(lines));
        let mut client = proxy.client();
        ok(&mut client, "SELECT 1");
        let Some(most) = expected else {
            assert_eq!(keepalive_timers(&proxy), [0_u64; 0]);
            continue;
        };
        // Another timer stands there until the peer's kernel has acknowledged the last answer.
        let mut timers = Vec::new();
        eventually!({
            timers = keepalive_timers(&proxy);
            !timers.is_empty()
        });
        assert!(timers.iter().all(|timer| *timer <= most), "{timers:?}");
    }
}

/// A peer that takes nothing any more is as good as gone, though its kernel answers.
#[test]
#[cfg(target_os = "linux")]
fn a_client_that_takes_nothing_is_given_up_after_tcp_user_timeout() {
    let proxy = Proxy::start_ready(&with_server("tcp_user_timeout = \"1s\""));
    let mut client = proxy.client();
    let sql = "SELECT repeat('x', 1000), 'limits_user_timeout' FROM generate_series(1, 10000000)";
    client.send_query(sql).expect("sent");
    let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
        AND pid <> pg_backend_pid() AND strpos(query, 'limits_user_timeout') > 0";
    let count = || {
        (cluster().nodes().iter())
            .map(|node| node.sql("postgres", running).expect("a count"))
            .filter(|count| count.trim() != "0")
            .count()
    };
    eventually!(count() == 1);
    eventually!(count() == 0);
}
