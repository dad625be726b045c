//! Signals: SIGHUP takes over what can be taken over, SIGTERM drains, SIGINT ends at once.

use std::{fs, process::Command, thread};

use pgweir_devcluster::Cluster;
use pgweir_testkit::{Client, Login, eventually, patience};

use crate::support::{
    DATABASE, PASSWORD, Proxy, USER, assert_ours, cluster, config, last_route, login, new_cluster,
    ok, value,
};

/// Writes a new configuration and has it read.
fn reload(proxy: &Proxy, text: &str) {
    let times = || proxy.log().matches("SIGHUP").count();
    let before = times();
    fs::write(proxy.config_path(), text).expect("written");
    proxy.signal("HUP");
    eventually!(times() > before);
}

/// Returns which of the replicas take reads.
fn used(client: &mut Client, cluster: &Cluster) -> [bool; 2] {
    let ports: Vec<String> = (0..40).map(|_| value(client, "SHOW port")).collect();
    [0, 1].map(|replica| ports.contains(&cluster.replica(replica).port().to_string()))
}

#[test]
fn weights_users_pool_size_and_max_lag_are_taken_over_without_a_restart() {
    let cluster = new_cluster(2);
    let proxy = Proxy::start_ready(&config(&cluster));
    let mut client = proxy.client();
    let text = config(&cluster);
    eventually!(used(&mut client, &cluster) == [true, true]);

    // Weights.
    let weighted = text.replace("{ name = \"replica1\"", "{ name = \"replica1\", weight = 0");
    reload(&proxy, &weighted);
    eventually!(proxy.log().contains("weight"));
    eventually!(used(&mut client, &cluster) == [false, true]);
    reload(&proxy, &text);
    eventually!(used(&mut client, &cluster) == [true, true]);

    // Users.
    cluster
        .sql(DATABASE, "CREATE ROLE newcomer LOGIN PASSWORD 'fresh'")
        .expect("a role");
    let newcomer = Login::new("newcomer", DATABASE).password("fresh");
    let refused = Client::open(proxy.addr(), &newcomer).expect_err("refused");
    assert_eq!(refused.sqlstate().as_deref(), Some("28P01"));
    let welcome = format!("{text}\n[[users]]\nname = \"newcomer\"\npassword = \"fresh\"\n");
    reload(&proxy, &welcome);
    eventually!(Client::open(proxy.addr(), &newcomer).is_ok());
    // A password that was changed counts at once, for the sessions to come.
    let changed = text.replace(
        &format!("password = \"{PASSWORD}\""),
        "password = \"other\"\nserver_password = \"secret\"",
    );
    reload(&proxy, &changed);
    eventually!(Client::open(proxy.addr(), &login()).is_err());
    let other = Login::new("app", DATABASE).password("other");
    assert!(Client::open(proxy.addr(), &other).is_ok());
    assert!(Client::open(proxy.addr(), &newcomer).is_err());
    assert_eq!(
        value(&mut client, "SELECT 'no session was harmed'"),
        "no session was harmed"
    );

    // Pool size.
    let one = text.replace("[databases.\"*\"]", "[databases.\"*\"]\npool_size = 1");
    let one = format!("[server]\nquery_wait_timeout = \"300ms\"\n{one}");
    reload(&proxy, &one);
    eventually!(Client::open(proxy.addr(), &login()).is_ok());
    let mut holder = proxy.client();
    holder
        .query("BEGIN; SELECT pg_backend_pid()")
        .expect("an answer");
    eventually!({
        let answer = client.query("SELECT pg_backend_pid()").expect("an answer");
        answer.sqlstate().as_deref() == Some("57014")
    });
    reload(&proxy, &one.replace("pool_size = 1", "pool_size = 2"));
    eventually!({
        let answer = client.query("SELECT pg_backend_pid()").expect("an answer");
        answer.error().is_none()
    });
    value(&mut holder, "COMMIT");

    // The lag that is allowed. A session that has seen more than a late replica shows does not go back to it.
    ok(&mut client, "SET pgweir.consistency = 'eventual'");
    let strict = text.replace(
        "[clusters.main]\n",
        "[clusters.main]\nmax_lag = \"100ms\"\n",
    );
    let lax = text.replace("[clusters.main]\n", "[clusters.main]\nmax_lag = \"1h\"\n");
    reload(&proxy, &lax);
    cluster.replica(0).pause_replay().expect("paused");
    value(&mut holder, "CREATE TABLE late (a int)");
    reload(&proxy, &strict);
    eventually!(used(&mut client, &cluster) == [false, true]);
    reload(&proxy, &lax);
    eventually!(used(&mut client, &cluster) == [true, true]);
    cluster.replica(0).resume_replay().expect("resumed");
}

/// What was to be looked at in an hour is looked at as often as the new file says, from now on.
#[test]
fn a_shorter_time_between_two_looks_does_not_wait_for_the_longer_one() {
    let cluster = new_cluster(2);
    let function =
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END' STABLE";
    cluster.sql(DATABASE, function).expect("a function");
    let text = |period: &str| {
        let lines = format!(
            "[clusters.main]\nmax_lag = \"300ms\"\nlag_poll = \"{period}\"\ncatalog_refresh = \"{period}\"\n"
        );
        config(&cluster)
            .replace("[clusters.main]\n", &lines)
            .replace(
                "[databases.\"*\"]",
                "[databases.\"*\"]\nconsistency = \"eventual\"",
            )
    };
    let proxy = Proxy::start_ready(&text("1h"));
    let mut client = proxy.client();
    eventually!({
        ok(&mut client, "SELECT f()");
        last_route(&mut client) == "replica (read)"
    });
    eventually!(used(&mut client, &cluster) == [true, true]);
    cluster.replica(0).pause_replay().expect("paused");
    // Not through the proxy, which would look at once.
    cluster
        .sql(
            DATABASE,
            "ALTER FUNCTION f() VOLATILE; CREATE TABLE late (a int)",
        )
        .expect("changed");
    ok(&mut client, "SELECT f()");
    assert_eq!(last_route(&mut client), "replica (read)");
    reload(&proxy, &text("50ms"));
    eventually!(used(&mut client, &cluster) == [false, true]);
    eventually!({
        ok(&mut client, "SELECT f()");
        last_route(&mut client).starts_with("primary")
    });
    cluster.replica(0).resume_replay().expect("resumed");
}

/// The pool of a server is made by the first session that goes there, which may have logged in long before.
#[test]
fn a_pool_that_is_made_after_a_reload_has_the_sizes_of_the_new_file() {
    let text = |size: usize| {
        let text = config(cluster())
            .replace("{ name = \"replica1\"", "{ name = \"replica1\", weight = 0")
            .replace(
                "[databases.\"*\"]",
                &format!("[databases.\"*\"]\npool_size = {size}"),
            );
        format!("[server]\nquery_wait_timeout = \"2s\"\n{text}")
    };
    let proxy = Proxy::start_ready(&text(1));
    let mut client = proxy.client();
    value(&mut client, "SELECT pg_backend_pid()");
    reload(&proxy, &text(2));
    let port = cluster().replica(1).port().to_string();
    ok(&mut client, "BEGIN READ ONLY");
    assert_eq!(value(&mut client, "SHOW port"), port);
    let mut other = proxy.client();
    assert_eq!(value(&mut other, "SHOW port"), port);
    ok(&mut client, "COMMIT");
}

/// Returns a configuration with these lines for all databases.
fn with_database(lines: &str) -> String {
    config(cluster()).replace("[databases.\"*\"]", &format!("[databases.\"*\"]\n{lines}"))
}

#[test]
fn sessions_that_exist_follow_the_settings_of_their_database_between_transactions() {
    let old =
        with_database("splitting = 'off'\nconsistency = 'eventual'\ntransaction_reads = 'primary'");
    let new = with_database("consistency = 'session'\nprimary_only_functions = ['md5']");
    let proxy = Proxy::start_ready(&old);
    let mut client = proxy.client();
    let login = login().parameter("pgweir.transaction_reads", "primary");
    let mut choosy = Client::open(proxy.addr(), &login).expect("a login");
    let mut busy = proxy.client();
    let consistency = |client: &mut Client| value(client, "SHOW pgweir.consistency");
    for client in [&mut client, &mut choosy, &mut busy] {
        assert_eq!(consistency(client), "eventual");
        ok(client, "SELECT 1");
        assert_eq!(last_route(client), "primary (splitting_off)");
    }
    ok(&mut busy, "BEGIN");
    reload(&proxy, &new);
    eventually!(consistency(&mut client) == "session");
    assert_eq!(
        value(&mut client, "SHOW pgweir.transaction_reads"),
        "until_write"
    );
    eventually!({
        ok(&mut client, "SELECT 1");
        last_route(&mut client) == "replica (read)"
    });
    // What functions do is known with the catalog.
    eventually!({
        ok(&mut client, "SELECT md5('a')");
        last_route(&mut client) == "primary (primary_only)"
    });
    // What a session has said at its login stands above.
    eventually!(consistency(&mut choosy) == "session");
    assert_eq!(
        value(&mut choosy, "SHOW pgweir.transaction_reads"),
        "primary"
    );
    // A transaction ends as it began.
    for _ in 0..3 {
        assert_eq!(consistency(&mut busy), "eventual");
        ok(&mut busy, "SELECT 1");
    }
    ok(&mut busy, "COMMIT");
    assert_eq!(consistency(&mut busy), "session");
    // And back.
    reload(&proxy, &old);
    eventually!(consistency(&mut client) == "eventual");
    ok(&mut client, "SELECT 1");
    assert_eq!(last_route(&mut client), "primary (splitting_off)");
}

#[test]
fn sessions_that_exist_follow_sizes_and_keep_those_of_a_database_that_is_gone() {
    let proxy = Proxy::start_ready(&with_database(""));
    let mut client = proxy.client();
    let long = format!("SELECT '{}'", "x".repeat(500_000));
    eventually!({
        ok(&mut client, &long);
        last_route(&mut client) == "replica (read)"
    });
    let small = format!("[server]\nroute_buffer = \"1kB\"\n{}", with_database(""));
    reload(&proxy, &small);
    eventually!({
        ok(&mut client, &long);
        last_route(&mut client) == "primary (oversize)"
    });
    let gone =
        with_database("consistency = 'eventual'").replace("databases.\"*\"", "databases.other");
    reload(&proxy, &gone);
    eventually!(Client::open(proxy.addr(), &login()).is_err());
    eventually!({
        ok(&mut client, &long);
        last_route(&mut client) == "replica (read)"
    });
    assert_eq!(value(&mut client, "SHOW pgweir.consistency"), "session");
}

/// A login that began with the old file may end after the new one was taken over.
#[test]
fn a_login_under_way_does_not_bring_an_old_password_back() {
    const USERS: usize = 40;
    let name = |n: usize| format!("user{n}");
    let text = |password: &str| {
        let mut text = config(cluster());
        for n in 0..USERS {
            text += &format!(
                "\n[[users]]\nname = \"{}\"\npassword = \"{password}\"\n\
                 server_user = \"{USER}\"\nserver_password = \"{PASSWORD}\"\n",
                name(n)
            );
        }
        text
    };
    let proxy = Proxy::start_ready(&text("0"));
    let opens = |n: usize, password: &str| {
        let login = Login::new(&name(n), DATABASE).password(password);
        Client::open(proxy.addr(), &login).is_ok()
    };
    for round in 1..=6 {
        let (old, new) = ((round - 1).to_string(), round.to_string());
        thread::scope(|scope| {
            // The first with this password: what it takes is worked out while the file is read.
            for n in 0..USERS {
                let (opens, old) = (&opens, &old);
                scope.spawn(move || opens(n, old));
            }
            reload(&proxy, &text(&new));
        });
        for n in 0..USERS {
            eventually!(!opens(n, &old));
        }
    }
}

#[test]
fn a_file_with_errors_changes_nothing_and_is_complained_about() {
    let proxy = Proxy::start_ready(&config(cluster()));
    let mut client = proxy.client();
    let good = config(cluster());
    let bad = format!(
        "{}\n[serverr]\nworkers = 1\n",
        good.replacen(
            "[[users]]",
            "[databases.app]\npool_mode = \"none\"\n\n[[users]]",
            1
        )
    );
    reload(&proxy, &bad);
    eventually!(proxy.log().contains("nothing is changed"));
    let log = proxy.log();
    for part in ["pgweir.toml:", "pool_mode", "server"] {
        assert!(log.contains(part), "{part} is not in the log:\n{log}");
    }
    assert_eq!(value(&mut client, "SELECT 1"), "1");
    assert_eq!(value(&mut proxy.client(), "SELECT 2"), "2");
    // What needs a restart is said so, and left as it is.
    let moved = format!("[server]\nworkers = 7\n{good}");
    reload(&proxy, &moved);
    eventually!(proxy.log().contains("needs a restart: server.workers"));
    reload(&proxy, &good);
    assert_eq!(value(&mut proxy.client(), "SELECT 3"), "3");
}

#[test]
fn sigterm_lets_transactions_finish_and_refuses_newcomers() {
    let mut proxy = Proxy::start_ready(&config(cluster()));
    let [mut busy, mut idle, mut querying] = [proxy.client(), proxy.client(), proxy.client()];
    value(&mut busy, "BEGIN");
    value(&mut busy, "CREATE TEMP TABLE t (a int)");
    querying
        .send_query("SELECT 'finished' FROM pg_sleep(1)")
        .expect("sent");
    // It is with a server by the time that this is answered.
    let active = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%finished%pg_sleep(1)' AND state = 'active'";
    let is_active =
        |node: &pgweir_devcluster::Node| node.sql(DATABASE, active).expect("a count").trim() == "1";
    eventually!(cluster().nodes().iter().any(is_active));
    proxy.signal("TERM");
    let told = idle.until_closed().expect("a close");
    assert_ours(told.error().expect("an error"), "57P01", "FATAL");
    // The listening socket is closed, or the newcomer is told why.
    eventually!(match Client::open(proxy.addr(), &login()) {
        Ok(_) => false,
        Err(error) => error.sqlstate().is_none_or(|sqlstate| sqlstate == "57P03"),
    });
    assert!(proxy.ended().is_none(), "it does not wait");
    let answer = querying.until_ready().expect("an answer");
    assert_eq!(answer.value().as_deref(), Some("finished"));
    assert_eq!(value(&mut busy, "SELECT 'still in it'"), "still in it");
    value(&mut busy, "COMMIT");
    // A temporary table keeps the session on its server; that does not keep the proxy.
    busy.terminate().expect("a goodbye");
    assert!(proxy.wait(patience::PATIENCE).success(), "{}", proxy.log());
}

#[test]
fn sigterm_waits_no_longer_than_shutdown_timeout() {
    let text = format!("[server]\nshutdown_timeout = \"1s\"\n{}", config(cluster()));
    let mut proxy = Proxy::start_ready(&text);
    let mut lingering = proxy.client();
    value(&mut lingering, "BEGIN");
    proxy.signal("TERM");
    assert!(proxy.wait(patience::PATIENCE).success(), "{}", proxy.log());
    let told = lingering.until_closed().expect("a close");
    assert_ours(told.error().expect("an error"), "57P01", "FATAL");
    let left = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND query = 'BEGIN' \
                AND usename = 'app' AND xact_start < now() - interval '20s'";
    assert_eq!(cluster().sql(DATABASE, left).expect("a count").trim(), "0");
}

#[test]
fn sigint_ends_it_at_once_and_leaves_nothing_behind() {
    let mut proxy = Proxy::start_ready(&config(cluster()));
    let [mut busy, mut querying] = [proxy.client(), proxy.client()];
    value(&mut busy, "BEGIN");
    querying
        .send_query("SELECT pg_sleep(60) /* sigint */")
        .expect("sent");
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%* sigint *%' AND wait_event = 'PgSleep'";
    let runs =
        |node: &pgweir_devcluster::Node| node.sql(DATABASE, asleep).expect("a count").trim() != "0";
    eventually!(cluster().nodes().iter().any(runs));
    let pid = proxy.pid().to_string();
    proxy.signal("INT");
    assert!(proxy.wait(patience::PATIENCE).success(), "{}", proxy.log());
    for client in [&mut busy, &mut querying] {
        let told = client.until_closed().expect("a close");
        assert_ours(told.error().expect("an error"), "57P01", "FATAL");
    }
    let children = Command::new("ps")
        .args(["--no-headers", "--ppid", &pid])
        .output()
        .expect("ps");
    assert_eq!(String::from_utf8_lossy(&children.stdout), "");
    // The servers are free of it too.
    eventually!(!cluster().nodes().iter().any(runs));
}

#[test]
fn a_second_signal_does_not_wait_for_the_first() {
    let mut proxy = Proxy::start_ready(&config(cluster()));
    let mut busy = proxy.client();
    value(&mut busy, "BEGIN");
    proxy.signal("TERM");
    eventually!(proxy.log().contains("draining"));
    assert!(proxy.ended().is_none());
    proxy.signal("INT");
    proxy.wait(patience::PATIENCE);
}
