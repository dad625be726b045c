//! Changing what the configuration says, while clients work.

use std::fs;
use std::time::{Duration, Instant};

use pgweir_devcluster::Cluster;
use pgweir_testkit::{Client, eventually, patience};

use super::{Load, command_tag, number, refused, rows};
use crate::support::{Proxy, config, new_cluster, ok, value, wait_for_replicas};

fn started(cluster: &Cluster) -> Proxy {
    let proxy = Proxy::start_ready(&config(cluster));
    wait_for_replicas(&mut proxy.client());
    proxy
}

/// Returns how many batches a server has answered.
fn queries_of(console: &mut Client, backend: &str) -> f64 {
    let sql = format!(
        "SELECT value FROM metrics WHERE name = 'pgweir_backend_queries_total' AND labels LIKE '%\"{backend}\"%'"
    );
    number(console, &sql)
}

#[test]
fn a_weight_of_0_moves_reads_off_within_100_ms_and_back() {
    let cluster = new_cluster(2);
    let proxy = started(&cluster);
    let mut console = proxy.console();
    let load = Load::start(&proxy, 4, "SELECT 1");
    eventually!(queries_of(&mut console, "replica1") > 0.0);
    let changed_at = Instant::now();
    let answer = ok(
        &mut console,
        "UPDATE backends SET weight = 0 WHERE name = 'replica1'",
    );
    assert!(command_tag(&answer).contains("UPDATE 1"), "{answer:?}");
    let took = changed_at.elapsed();
    // From a tenth of a second on, nobody reads there.
    let quiet_at = Instant::now() + Duration::from_millis(100);
    patience::wait_until(Duration::from_secs(1), || Instant::now() >= quiet_at);
    let before = queries_of(&mut console, "replica1");
    load.wait_for_more(200);
    let after = queries_of(&mut console, "replica1");
    assert_eq!(
        after, before,
        "reads went on for more than 100 ms after a change that took {took:?}"
    );
    ok(
        &mut console,
        "UPDATE backends SET weight = 100 WHERE name = 'replica1'",
    );
    eventually!(queries_of(&mut console, "replica1") > after);
    assert_eq!(load.stop(), Vec::<String>::new());
}

#[test]
fn a_bad_value_changes_nothing_and_says_why() {
    let cluster = new_cluster(2);
    let proxy = started(&cluster);
    let mut console = proxy.console();
    let before = rows(
        &mut console,
        "SELECT section, name, value FROM settings ORDER BY 1, 2",
    );
    for (sql, says) in [
        (
            "UPDATE settings SET value = 'soon' WHERE name = 'max_lag'",
            "max_lag",
        ),
        (
            "UPDATE settings SET value = '0' WHERE name = 'query_wait_timeout'",
            "above 0",
        ),
        (
            "UPDATE settings SET value = '-1' WHERE name = 'pool_size'",
            "pool_size",
        ),
        (
            "UPDATE settings SET value = 'sesion' WHERE name = 'consistency'",
            "session",
        ),
        (
            "UPDATE settings SET name = 'x' WHERE name = 'max_lag'",
            "name",
        ),
        (
            "UPDATE backends SET weight = -1 WHERE name = 'replica1'",
            "weight",
        ),
        (
            "UPDATE backends SET role = 'primary' WHERE name = 'replica1'",
            "role",
        ),
        // The first of the two would do.
        (
            "UPDATE settings SET value = '1' WHERE name IN ('max_clients', 'max_message')",
            "max_message",
        ),
        (
            "INSERT INTO rules (name, route) VALUES ('bad', 'nowhere')",
            "nowhere",
        ),
        (
            "INSERT INTO rules (name, regex, route) VALUES ('bad', '(', 'primary')",
            "regex",
        ),
    ] {
        let (_, message) = refused(&mut console, sql);
        assert!(message.contains(says), "{sql}: {message}");
    }
    assert_eq!(
        rows(
            &mut console,
            "SELECT section, name, value FROM settings ORDER BY 1, 2"
        ),
        before
    );
    assert_eq!(value(&mut console, "SELECT count(*) FROM rules"), "0");
    ok(&mut proxy.client(), "SELECT 1");
}

#[test]
fn rules_are_made_changed_and_taken_out_by_sql() {
    let cluster = new_cluster(1);
    let proxy = started(&cluster);
    let (mut console, mut client) = (proxy.console(), proxy.client());
    let insert = "INSERT INTO rules (name, user, block) VALUES ('shut', 'app', 'closed today')";
    ok(&mut console, insert);
    let (sqlstate, message) = refused(&mut client, "SELECT 1");
    assert_eq!(
        (sqlstate.as_str(), message.contains("closed today")),
        ("42501", true)
    );
    ok(
        &mut console,
        "UPDATE rules SET block = 'closed for ever' WHERE name = 'shut'",
    );
    assert!(refused(&mut client, "SELECT 1").1.contains("for ever"));
    let answer = ok(&mut console, "DELETE FROM rules WHERE name = 'shut'");
    assert!(command_tag(&answer).contains("DELETE 1"));
    ok(&mut client, "SELECT 1");
}

#[test]
fn a_change_is_saved_with_the_files_comments_and_lost_without() {
    let cluster = new_cluster(1);
    let text = format!(
        "# by hand\n{}",
        config(&cluster).replace("[databases.\"*\"]", "[databases.\"*\"] # all of them")
    );
    let proxy = Proxy::start_ready(&text);
    let mut console = proxy.console();
    assert_eq!(
        rows(&mut console, "SHOW CONFIG DIFF"),
        Vec::<Vec<String>>::new()
    );
    ok(
        &mut console,
        "UPDATE settings SET value = '7s' WHERE name = 'max_lag'",
    );
    let diff = rows(&mut console, "SHOW CONFIG DIFF");
    assert!(
        diff.len() == 1 && diff[0].iter().any(|cell| cell.contains("max_lag")),
        "{diff:?}"
    );
    assert_eq!(
        fs::read_to_string(proxy.config_path()).expect("the file"),
        text
    );
    let answer = ok(&mut console, "RELOAD");
    let notice = (answer.0.iter()).find(|m| m.tag == pgweir_wire::backend::tag::NOTICE_RESPONSE);
    let notice = notice.map(pgweir_testkit::Message::comparable);
    assert!(
        notice.is_some_and(|text| text.contains("not saved are dropped: clusters.main.max_lag")),
        "{answer:?}"
    );
    assert_eq!(
        value(
            &mut console,
            "SELECT value FROM settings WHERE name = 'max_lag' AND section = 'clusters.main'"
        ),
        "5s"
    );
    ok(
        &mut console,
        "UPDATE settings SET value = '7s' WHERE name = 'max_lag'",
    );
    ok(&mut console, "SAVE CONFIG");
    let saved = fs::read_to_string(proxy.config_path()).expect("the file");
    assert!(
        saved.starts_with("# by hand\n") && saved.contains("# all of them"),
        "{saved}"
    );
    let added: Vec<&str> = saved.lines().filter(|line| !text.contains(line)).collect();
    assert_eq!(added, ["max_lag = \"7s\""]);
    assert_eq!(
        rows(&mut console, "SHOW CONFIG DIFF"),
        Vec::<Vec<String>>::new()
    );
}

#[test]
fn a_file_that_somebody_else_has_changed_is_not_overwritten() {
    let cluster = new_cluster(1);
    let proxy = Proxy::start_ready(&config(&cluster));
    let mut console = proxy.console();
    ok(
        &mut console,
        "UPDATE settings SET value = '7s' WHERE name = 'max_lag'",
    );
    let theirs = format!("# theirs\n{}", config(&cluster));
    fs::write(proxy.config_path(), &theirs).expect("written");
    let (_, message) = refused(&mut console, "SAVE CONFIG");
    assert!(message.contains("changed"), "{message}");
    assert_eq!(
        fs::read_to_string(proxy.config_path()).expect("the file"),
        theirs
    );
}

#[test]
fn two_who_take_the_same_rule_out_do_not_take_the_next_one_too() {
    let cluster = new_cluster(1);
    let proxy = Proxy::start_ready(&config(&cluster));
    let mut console = proxy.console();
    for round in 0..20 {
        for name in ["r1", "r2"] {
            let insert =
                format!("INSERT INTO rules (name, user, block) VALUES ('{name}', 'app', 'b')");
            ok(&mut console, &insert);
        }
        let barrier = std::sync::Barrier::new(2);
        let delete = |sql| {
            let mut other = proxy.console();
            barrier.wait();
            let answer = other.query(sql).expect("an answer");
            let code = pgweir_wire::backend::field::CODE;
            let error = answer.error();
            if let Some(sqlstate) = error.map(|error| error.error_field(code).unwrap_or_default()) {
                assert_eq!(sqlstate, "40001", "{answer:?}");
            }
        };
        let sql = "DELETE FROM rules WHERE name = 'r1'";
        std::thread::scope(|scope| {
            scope.spawn(|| delete(sql));
            scope.spawn(|| delete(sql));
        });
        let left = rows(&mut console, "SELECT name FROM rules");
        assert_eq!(left, [["r2"]], "round {round}");
        ok(&mut console, "DELETE FROM rules");
    }
}

#[test]
fn nobody_locks_the_operators_out() {
    let cluster = new_cluster(1);
    let proxy = Proxy::start_ready(&config(&cluster));
    let mut console = proxy.console();
    let users = "SELECT name FROM users ORDER BY 1";
    let before = rows(&mut console, users);
    for sql in [
        "DELETE FROM users WHERE name = 'boss'",
        "DELETE FROM users WHERE name <> 'app' AND name <> 'viewer'",
        "UPDATE settings SET value = '' WHERE section = 'admin' AND name = 'users'",
        "UPDATE settings SET value = 'app' WHERE section = 'admin' AND name = 'users'",
    ] {
        assert_eq!(refused(&mut console, sql).0, "55000", "{sql}");
    }
    assert_eq!(rows(&mut console, users), before);
    drop(proxy.console());
}

#[test]
fn an_address_that_is_taken_is_refused_for_http() {
    let cluster = new_cluster(1);
    let proxy = Proxy::start_ready(&config(&cluster));
    let mut console = proxy.console();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    let sql = format!(
        "UPDATE settings SET value = '{address}' WHERE section = 'http' AND name = 'listen'"
    );
    let (sqlstate, message) = refused(&mut console, &sql);
    assert_eq!(sqlstate, "55000", "{message}");
    let listen = "SELECT value FROM settings WHERE section = 'http' AND name = 'listen'";
    assert_eq!(value(&mut console, listen), "off");
    drop(taken);
    ok(&mut console, &sql);
    assert_eq!(value(&mut console, listen), address.to_string());
}
