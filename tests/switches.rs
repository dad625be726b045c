//! What goes in front of a session's batch on a server connection (its settings, its BEGIN) and is cancelled there: the batch has
//! not run, so that it runs after all, or fails as a statement fails that is cancelled, and its session goes on.
//!
//! A lock on a catalog makes the switch of a setting wait that the server looks up there; logins do not need it.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use pgweir_devcluster::Cluster;
use pgweir_testkit::{Answer, Client, Login, append_execute, eventually};
use pgweir_wire::{TransactionStatus, backend::field, frontend};

use crate::support::{DATABASE, Proxy, USER, config, direct, new_cluster, ok, value};

/// How often a batch runs again at most: as `CANCELED_LIMIT` of the proxy.
const LIMIT: usize = 3;

const SETTING: &str = "default_text_search_config";

/// A cluster with a table of what was run, and under which setting. Its users take turns.
fn cluster() -> (&'static Cluster, MutexGuard<'static, ()>) {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = CLUSTER.get_or_init(|| {
        let cluster = new_cluster(0);
        let mut owner = direct(&cluster);
        ok(&mut owner, "CREATE TABLE ran (n int, setting text)");
        ok(
            &mut owner,
            "CREATE TEXT SEARCH CONFIGURATION slow (COPY = simple)",
        );
        cluster
    });
    ok(&mut direct(cluster), "TRUNCATE ran");
    (cluster, turn)
}

/// A statement that writes down under which setting it runs.
fn run_of(n: u32) -> String {
    format!("INSERT INTO ran VALUES ({n}, current_setting('{SETTING}'))")
}

fn ran(cluster: &Cluster) -> String {
    let sql = "SELECT coalesce(string_agg(n || ' ' || setting, ', ' ORDER BY n), '') FROM ran";
    value(&mut direct(cluster), sql)
}

/// Returns a session whose next batch needs a switch of its setting on the one server connection, as another session has used
/// that since.
fn switching(proxy: &Proxy) -> Client {
    let mut client = proxy.client();
    ok(&mut client, &format!("SET {SETTING} = 'public.slow'"));
    ok(&mut proxy.client(), "SELECT pg_backend_pid()");
    client
}

/// The session that makes switches wait.
struct Obstacle {
    client: Client,
    /// The server process that was seen to wait last.
    last: String,
}

impl Obstacle {
    fn new(cluster: &Cluster) -> Self {
        let login = Login::new(cluster.superuser(), DATABASE).password(cluster.password());
        let primary = cluster.primary();
        let address = format!("{}:{}", primary.host(), primary.port());
        let mut client = Client::open(&address, &login).expect("a login");
        // Nobody remembers it from before.
        let rename = "ALTER TEXT SEARCH CONFIGURATION";
        ok(&mut client, &format!("{rename} slow RENAME TO slower"));
        ok(&mut client, &format!("{rename} slower RENAME TO slow"));
        ok(&mut client, "BEGIN");
        ok(
            &mut client,
            "LOCK TABLE pg_ts_config IN ACCESS EXCLUSIVE MODE",
        );
        Obstacle {
            client,
            last: String::new(),
        }
    }

    /// Waits until another server process than the last waits in a switch.
    fn wait(&mut self) {
        let sql = format!(
            "SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
             AND query LIKE '%pgweir_guard%' AND pid::text <> '{}'",
            self.last
        );
        eventually!({
            // What its transaction has seen of the others is kept.
            ok(&mut self.client, "SELECT pg_stat_clear_snapshot()");
            value(&mut self.client, &sql) != "0"
        });
        self.last = value(&mut self.client, &sql);
    }

    /// Waits likewise, and cancels that.
    fn cancel(&mut self) {
        self.wait();
        let sql = format!("SELECT pg_cancel_backend({})", self.last);
        assert_eq!(value(&mut self.client, &sql), "t");
    }

    fn end(mut self) {
        ok(&mut self.client, "COMMIT");
    }
}

fn narrow(cluster: &Cluster) -> Proxy {
    let narrow = "[databases.\"*\"]\npool_size = 1";
    Proxy::start_ready(&config(cluster).replace("[databases.\"*\"]", narrow))
}

fn send(client: &mut Client, sql: &[String], is_extended: bool) {
    let mut out = Vec::new();
    for sql in sql {
        match is_extended {
            true => {
                append_execute(&mut out, sql, &[]);
                frontend::Sync.encode(&mut out);
            }
            false => frontend::Query {
                sql: sql.as_bytes(),
            }
            .encode(&mut out),
        }
    }
    client.send(&out).expect("sent");
}

#[track_caller]
fn assert_canceled(answer: &Answer) {
    assert_eq!(answer.sqlstate().as_deref(), Some("57014"), "{answer:?}");
}

#[test]
fn a_write_whose_switch_somebody_cancels_runs_once() {
    let (cluster, _turn) = cluster();
    let proxy = narrow(cluster);
    for (n, is_extended) in [(1, false), (2, true)] {
        let mut client = switching(&proxy);
        let mut obstacle = Obstacle::new(cluster);
        send(&mut client, &[run_of(n)], is_extended);
        obstacle.cancel();
        obstacle.wait();
        obstacle.end();
        let answer = client.until_ready().expect("an answer");
        assert_eq!(answer.error(), None);
        assert_eq!(client.status(), TransactionStatus::Idle);
    }
    assert_eq!(ran(cluster), "1 public.slow, 2 public.slow");
}

#[test]
fn a_transaction_whose_switch_somebody_cancels_is_opened_again() {
    let (cluster, _turn) = cluster();
    let proxy = narrow(cluster);
    let mut client = switching(&proxy);
    ok(&mut client, "BEGIN");
    let mut obstacle = Obstacle::new(cluster);
    send(&mut client, &[run_of(1)], false);
    obstacle.cancel();
    obstacle.wait();
    obstacle.end();
    let answer = client.until_ready().expect("an answer");
    assert_eq!(answer.error(), None);
    assert_eq!(client.status(), TransactionStatus::InTransaction);
    ok(&mut client, "ROLLBACK");
    assert_eq!(ran(cluster), "");
}

#[test]
fn a_batch_whose_switch_is_cancelled_again_and_again_fails_and_its_session_goes_on() {
    let (cluster, _turn) = cluster();
    let proxy = narrow(cluster);
    for begins in [false, true] {
        let mut client = switching(&proxy);
        if begins {
            ok(&mut client, "BEGIN");
        }
        let mut obstacle = Obstacle::new(cluster);
        send(&mut client, &[run_of(1)], true);
        for _ in 0..=LIMIT {
            obstacle.cancel();
        }
        assert_canceled(&client.until_ready().expect("an answer"));
        obstacle.end();
        if begins {
            assert_eq!(client.status(), TransactionStatus::Failed);
            ok(&mut client, "ROLLBACK");
        }
        assert_eq!(client.status(), TransactionStatus::Idle);
        assert_eq!(
            value(&mut client, &format!("SHOW {SETTING}")),
            "public.slow"
        );
    }
    assert_eq!(ran(cluster), "");
}

#[test]
fn a_batch_too_large_to_be_kept_fails_at_once() {
    let (cluster, _turn) = cluster();
    let proxy = narrow(cluster);
    let mut client = switching(&proxy);
    let mut obstacle = Obstacle::new(cluster);
    let sql = format!("{} /* {} */", run_of(1), "x".repeat(10_000));
    send(&mut client, &[sql], false);
    obstacle.cancel();
    assert_canceled(&client.until_ready().expect("an answer"));
    obstacle.end();
    ok(&mut client, &run_of(2));
    assert_eq!(ran(cluster), "2 public.slow");
}

#[test]
fn what_follows_in_a_pipeline_does_not_run_with_the_settings_of_another_session() {
    let (cluster, _turn) = cluster();
    let proxy = narrow(cluster);
    let mut client = switching(&proxy);
    let mut obstacle = Obstacle::new(cluster);
    send(&mut client, &[run_of(1), run_of(2)], true);
    for _ in 0..=LIMIT {
        obstacle.cancel();
    }
    assert_canceled(&client.until_ready().expect("an answer"));
    obstacle.wait();
    obstacle.end();
    assert_eq!(client.until_ready().expect("an answer").error(), None);
    assert_eq!(ran(cluster), "2 public.slow");
}

#[test]
fn a_statement_timeout_that_hits_the_switch_ends_the_statement_and_not_the_session() {
    let (cluster, _turn) = cluster();
    ok(
        &mut direct(cluster),
        &format!("ALTER ROLE {USER} SET statement_timeout = '300ms'"),
    );
    let proxy = narrow(cluster);
    let mut client = switching(&proxy);
    let obstacle = Obstacle::new(cluster);
    send(&mut client, &[run_of(1)], false);
    let answer = client.until_ready().expect("an answer");
    obstacle.end();
    assert_canceled(&answer);
    let error = answer
        .error()
        .and_then(|error| error.error_field(field::MESSAGE));
    let error = error.unwrap_or_default();
    assert!(error.contains("statement timeout"), "{error}");
    ok(&mut client, &run_of(2));
    ok(
        &mut direct(cluster),
        &format!("ALTER ROLE {USER} RESET statement_timeout"),
    );
    assert_eq!(ran(cluster), "2 public.slow");
}
