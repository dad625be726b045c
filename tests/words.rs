//! The client's own words on a real cluster: `pgweir.*`, hints, `EXPLAIN ROUTE`.
//!
//! Where PostgreSQL has settings of its own that behave likewise, it is the oracle: the scripts of `SET` run with `work_mem`
//! on a direct connection and with `pgweir.max_lag` through the proxy.

use pgweir_testkit::{Client, Login, append_execute, eventually};
use pgweir_wire::backend::field;
use pgweir_wire::{TransactionStatus, frontend, writer};

use crate::support::{
    Proxy, assert_ours, cluster, config, last_route, login, ok, value, wait_for_replicas,
};

/// Returns the rows of EXPLAIN ROUTE, one line each: `step | decision | reason | detail`.
pub(crate) fn explained(client: &mut Client, sql: &str) -> Vec<String> {
    let rows = ok(client, &format!("EXPLAIN ROUTE {sql}")).rows();
    let line = |row: &Vec<Option<String>>| {
        let cells: Vec<_> = row.iter().flatten().map(String::as_str).collect();
        cells.join(" | ")
    };
    rows.iter().map(line).collect()
}

/// Returns `decision | reason | detail` of the one `route` row.
pub(crate) fn route_row(client: &mut Client, sql: &str) -> String {
    let rows = explained(client, sql);
    let routes: Vec<_> = rows
        .iter()
        .filter_map(|row| row.strip_prefix("route | "))
        .collect();
    let [route] = routes.as_slice() else {
        panic!("not one route: {rows:?}")
    };
    (*route).to_owned()
}

/// Starts a proxy, and opens a session whose reads may run on every replica.
pub(crate) fn ready(config: &str) -> (Proxy, Client) {
    let proxy = Proxy::start_ready(config);
    let mut client = proxy.client();
    wait_for_replicas(&mut client);
    (proxy, client)
}

/// Returns the SQLSTATE that the statement fails with, and nothing where it does not fail.
pub(crate) fn sqlstate(client: &mut Client, sql: &str) -> String {
    let answer = client.query(sql).expect(sql);
    answer.sqlstate().unwrap_or_default()
}

/// Scripts of statements; `?` shows the setting. `S` stands for its name, and `1`, `2` for values of it.
const SCRIPTS: &[&str] = &[
    "SET S = 1; ?",
    "SET S = 1; SET S = 2; ?; RESET S; ?",
    "SET S = 1; SET S TO DEFAULT; ?",
    "SET SESSION S = 1; ?",
    "BEGIN; SET S = 1; COMMIT; ?",
    "BEGIN; SET S = 1; ?; ROLLBACK; ?",
    "SET S = 1; BEGIN; SET S = 2; ?; ROLLBACK; ?",
    "SET S = 1; BEGIN; SET LOCAL S = 2; ?; COMMIT; ?",
    "SET S = 1; BEGIN; SET LOCAL S = 2; ?; ROLLBACK; ?",
    "BEGIN; SET S = 1; SET LOCAL S = 2; ?; COMMIT; ?",
    "BEGIN; SET LOCAL S = 2; SET S = 1; ?; COMMIT; ?",
    "SET S = 1; BEGIN; SET LOCAL S TO DEFAULT; ?; COMMIT; ?",
    "SET S = 1; SET LOCAL S = 2; ?",
    "BEGIN; SELECT 1; SET S = 1; SELECT 1; COMMIT; ?",
    "BEGIN; SELECT 1; SET S = 1; SELECT 1; ROLLBACK; ?",
    "BEGIN; SET S = 1; SELECT 1; ROLLBACK; ?",
    "BEGIN; SET S = 1; SAVEPOINT a; SET S = 2; ?; ROLLBACK TO a; ?; COMMIT; ?",
    "BEGIN; SAVEPOINT a; SET S = 2; RELEASE a; ?; COMMIT; ?",
    "BEGIN; SAVEPOINT a; SET LOCAL S = 2; ?; ROLLBACK TO a; ?; COMMIT; ?",
    "BEGIN; SET S = 1; SELECT 1 / 0; ROLLBACK; ?",
    "BEGIN; SAVEPOINT a; SET S = 1; SELECT 1 / 0; ROLLBACK TO a; ?; COMMIT; ?",
    "SET S = 1; RESET ALL; ?",
    "SET S = 1; BEGIN; RESET ALL; ?; ROLLBACK; ?",
    "SET S = 1; DISCARD ALL; ?",
    "BEGIN; SET S = 'nonsense'; SELECT 1; COMMIT; ?",
    "BEGIN; SELECT 1; SET S = 'nonsense'; SELECT 1; COMMIT; ?",
    "BEGIN; CREATE TEMP TABLE words_t (a int); SET S = 'nonsense'; ?; ROLLBACK; ?",
    "BEGIN; SAVEPOINT a; SET S = 'nonsense'; ROLLBACK TO a; SET S = 1; COMMIT; ?",
    "BEGIN; SHOW S_not_there; SELECT 1; ROLLBACK; ?",
    "BEGIN; SET S = 1; COMMIT AND CHAIN; SET S = 2; ROLLBACK; ?",
    "START TRANSACTION READ ONLY; SET S = 1; SELECT 1; COMMIT; ?",
];

/// Runs a script and returns, per statement, the tag or SQLSTATE, the transaction status, and for `?` the value.
fn run_script(client: &mut Client, script: &str, setting: [&str; 3]) -> Vec<String> {
    let [name, one, two] = setting;
    let mut seen = Vec::new();
    for statement in script.split("; ") {
        let is_show = statement == "?";
        let sql = match statement {
            "?" => format!("SHOW {name}"),
            other if other.contains('S') && (other.contains("S =") || other.contains("S TO")) => {
                let value = other.replace("S = 1", &format!("S = '{one}'"));
                let value = value.replace("S = 2", &format!("S = '{two}'"));
                value.replace(" S ", &format!(" {name} "))
            }
            other => other
                .replace("RESET S", &format!("RESET {name}"))
                .replace("SHOW S_not_there", &format!("SHOW {name}_not_there")),
        };
        let answer = client.query(&sql).expect(&sql);
        let outcome = answer.sqlstate().unwrap_or_else(|| "ok".to_owned());
        let shown = match answer.value() {
            Some(shown) if is_show => format!(" {shown}"),
            _ => String::new(),
        };
        seen.push(format!(
            "{statement}: {outcome}{shown} {:?}",
            client.status()
        ));
    }
    seen
}

#[test]
fn settings_follow_transactions_as_postgresqls_do() {
    let (proxy, mut first) = ready(&config(cluster()));
    let default = value(&mut first, "SHOW pgweir.max_lag");
    let address = format!("127.0.0.1:{}", cluster().primary().port());
    let mut wrong = Vec::new();
    for script in SCRIPTS {
        let mut direct = Client::open(&address, &login()).expect("a login");
        let usual = value(&mut direct, "SHOW work_mem");
        let expected = run_script(&mut direct, script, ["work_mem", "1MB", "2MB"]);
        let expected: Vec<_> = expected
            .iter()
            .map(|line| line.replace(&usual, "default"))
            .collect();
        let mut client = proxy.client();
        let seen = run_script(&mut client, script, ["pgweir.max_lag", "1MB", "2MB"]);
        let seen: Vec<_> = seen
            .iter()
            .map(|line| line.replace("1MiB", "1MB").replace("2MiB", "2MB"))
            .map(|line| line.replace(&default, "default"))
            .collect();
        if seen != expected {
            wrong.push(format!(
                "{script}\n  direct: {expected:?}\n  proxy:  {seen:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_setting_is_shown_and_only_those_that_can_be_are_set() {
    let (_proxy, mut client) = ready(&config(cluster()));
    for (name, set, shown) in [
        ("route", "primary", "primary"),
        ("consistency", "eventual", "eventual"),
        ("consistency", "strong", "strong"),
        ("max_lag", "16MB", "16MiB"),
        ("max_lag", "1500ms", "1500ms"),
        ("transaction_reads", "primary", "primary"),
        ("transaction_reads", "until_write", "until_write"),
    ] {
        let before = value(&mut client, &format!("SHOW pgweir.{name}"));
        assert!(!before.is_empty(), "{name}");
        ok(&mut client, &format!("SET pgweir.{name} = '{set}'"));
        assert_eq!(value(&mut client, &format!("SHOW pgweir.{name}")), shown);
        ok(&mut client, &format!("RESET pgweir.{name}"));
        assert_eq!(value(&mut client, &format!("SHOW pgweir.{name}")), before);
    }
    for name in ["last_route", "pinned", "lsn", "version"] {
        ok(&mut client, &format!("SHOW pgweir.{name}"));
        assert_eq!(
            sqlstate(&mut client, &format!("SET pgweir.{name} = 'x'")),
            "55P02"
        );
        assert_eq!(
            sqlstate(&mut client, &format!("RESET pgweir.{name}")),
            "55P02"
        );
    }
    for sql in [
        "SHOW pgweir.nothing",
        "SET pgweir.nothing = 1",
        "RESET pgweir.nothing",
    ] {
        let answer = client.query(sql).expect(sql);
        let error = answer.error().expect("an error");
        assert_ours(error, "42704", "ERROR");
        let hint = error.error_field(field::HINT).unwrap_or_default();
        assert!(hint.contains("pgweir.transaction_reads"), "{hint}");
    }
    for sql in [
        "SET pgweir.route = 'nowhere'",
        "SET pgweir.max_lag = '5'",
        "SET pgweir.consistency = 'sometimes'",
        "SET pgweir.min_lsn = '12'",
    ] {
        assert_eq!(sqlstate(&mut client, sql), "22023", "{sql}");
    }
}

#[test]
fn settings_come_with_the_startup_packet_and_reset_returns_to_them() {
    let (proxy, _client) = ready(&config(cluster()));
    let open = |login: &Login| Client::open(proxy.addr(), login);
    for login in [
        login().parameter("options", "-c pgweir.route=primary -c geqo=off"),
        login()
            .parameter("pgweir.route", "primary")
            .parameter("geqo", "off"),
    ] {
        let mut client = open(&login).expect("a login");
        assert_eq!(value(&mut client, "SHOW pgweir.route"), "primary");
        assert_eq!(value(&mut client, "SHOW geqo"), "off");
        assert_eq!(last_route(&mut client), "primary (session_setting)");
        ok(&mut client, "SET pgweir.route = auto");
        for reset in ["RESET pgweir.route", "RESET ALL", "DISCARD ALL"] {
            ok(&mut client, "SET pgweir.route = auto");
            assert_eq!(value(&mut client, "SHOW pgweir.route"), "auto");
            ok(&mut client, reset);
            assert_eq!(
                value(&mut client, "SHOW pgweir.route"),
                "primary",
                "{reset}"
            );
        }
    }
    for (name, given, sqlstate) in [
        ("pgweir.rout", "primary", "42704"),
        ("pgweir.route", "nowhere", "22023"),
        ("pgweir.version", "1", "55P02"),
    ] {
        let refused = open(&login().parameter(name, given)).expect_err("refused");
        let error = refused.error_response().expect("an error");
        assert_ours(error, sqlstate, "FATAL");
    }
}

#[test]
fn the_position_of_a_session_lies_behind_what_it_wrote() {
    let (_proxy, mut client) = ready(&config(cluster()));
    ok(&mut client, "CREATE TABLE IF NOT EXISTS words_lsn (a int)");
    for number in 0..20 {
        // Before its commit record.
        let written = value(
            &mut client,
            &format!(
                "INSERT INTO words_lsn VALUES ({number}) RETURNING pg_current_wal_insert_lsn()"
            ),
        );
        let lsn = value(&mut client, "SHOW pgweir.lsn");
        let behind = format!("SELECT '{lsn}'::pg_lsn > '{written}'::pg_lsn");
        assert_eq!(value(&mut client, &behind), "t", "{lsn} {written}");
    }
    ok(&mut client, "DROP TABLE words_lsn");
}

#[test]
fn statements_of_ours_in_one_text_are_answered_and_a_mixture_is_refused() {
    let (_proxy, mut client) = ready(&config(cluster()));
    let answer = ok(
        &mut client,
        "SET pgweir.route = 'primary'; SHOW pgweir.route; EXPLAIN ROUTE SELECT 1",
    );
    let names = answer.names();
    assert_eq!(
        names[..4],
        [
            "CommandComplete",
            "RowDescription",
            "DataRow",
            "CommandComplete"
        ]
    );
    assert_eq!(answer.rows()[0][0].as_deref(), Some("primary"));
    // One that fails undoes those before it, as in PostgreSQL's implicit transaction.
    assert_eq!(
        sqlstate(
            &mut client,
            "SET pgweir.route = 'replica'; SHOW pgweir.nothing"
        ),
        "42704"
    );
    assert_eq!(value(&mut client, "SHOW pgweir.route"), "primary");
    for mixed in [
        "SET pgweir.route = 'replica'; SELECT 1",
        "SELECT 1; SHOW pgweir.route",
        "SET geqo = off; SET pgweir.route = 'replica'",
    ] {
        let answer = client.query(mixed).expect(mixed);
        assert_ours(answer.error().expect("an error"), "0A000", "ERROR");
        assert_eq!(
            value(&mut client, "SHOW pgweir.route"),
            "primary",
            "{mixed}"
        );
        assert_eq!(value(&mut client, "SHOW geqo"), "on", "{mixed}");
    }
    // In a transaction it fails as any error does.
    for begin in [
        "BEGIN",
        "BEGIN; SELECT 1",
        "BEGIN; CREATE TEMP TABLE words_m (a int)",
    ] {
        ok(&mut client, begin);
        let answer = client
            .query("SELECT 1; SHOW pgweir.route")
            .expect("an answer");
        assert_ours(answer.error().expect("an error"), "0A000", "ERROR");
        assert_eq!(client.status(), TransactionStatus::Failed, "{begin}");
        assert_eq!(sqlstate(&mut client, "SELECT 1"), "25P02", "{begin}");
        ok(&mut client, "ROLLBACK");
        assert_eq!(client.status(), TransactionStatus::Idle);
    }
}

#[test]
fn a_begin_may_come_in_the_batch_of_the_first_statement_of_ours() {
    let (_proxy, mut client) = ready(&config(cluster()));
    let mut out = Vec::new();
    append_execute(&mut out, "BEGIN", &[]);
    append_execute(&mut out, "SET LOCAL pgweir.route = 'primary'", &[]);
    frontend::Sync.encode(&mut out);
    client.send(&out).expect("sent");
    let answer = client.until_ready().expect("an answer");
    assert_eq!(answer.error(), None);
    assert_eq!(client.status(), TransactionStatus::InTransaction);
    assert_eq!(value(&mut client, "SHOW pgweir.route"), "primary");
    ok(&mut client, "SELECT 1");
    ok(&mut client, "COMMIT");
    assert_eq!(value(&mut client, "SHOW pgweir.route"), "auto");
}

#[test]
fn explain_route_says_what_it_saw_and_runs_nothing() {
    let (_proxy, mut client) = ready(&config(cluster()));
    ok(&mut client, "CREATE TABLE IF NOT EXISTS words_e (a int)");
    // Until the catalog has been read anew, nothing of it is vouched for.
    eventually!(
        route_row(&mut client, "SELECT lower(b) FROM words_e, app.other")
            == "replica | read | replica1, replica2"
    );
    let rows = explained(
        &mut client,
        "SELECT lower(b) FROM words_e, app.other WHERE a = $1 /* pgweir: max_lag=9s, cache=1s, oops=2 */",
    );
    let text = rows.join("\n");
    for expected in [
        "classification | replica | read | ",
        "fingerprint | ",
        "tables | 2 |  | words_e, app.other",
        "functions | 1 |  | lower",
        "shards | none |  | the database is not sharded",
        "instruction | max_lag = 9000 ms | hint | ",
        "instruction | ignored | hint | \"oops\" is not a hint",
        "instruction | ignored | hint | cache: the cache is off",
        "replica | eligible |  | replica1: lag ",
        "weight 100, effective ",
        "cache | no |  | the cache is off",
        "route | replica | read | replica1, replica2",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert_eq!(
        route_row(&mut client, "DROP TABLE words_e"),
        "primary | write | primary"
    );
    ok(&mut client, "SELECT * FROM words_e");
    assert_eq!(
        route_row(&mut client, "SHOW pgweir.route"),
        "local | local | "
    );
    ok(&mut client, "SET pgweir.route = 'replica'");
    let refused = route_row(&mut client, "DELETE FROM words_e");
    assert!(
        refused.starts_with("primary | session_setting | refused (25006): "),
        "{refused}"
    );
    ok(&mut client, "RESET pgweir.route");
    // In a transaction that has a server, that one is named.
    ok(&mut client, "BEGIN; INSERT INTO words_e VALUES (1)");
    assert_eq!(
        route_row(&mut client, "SELECT 1"),
        "primary | in_transaction | primary"
    );
    ok(&mut client, "ROLLBACK");
    // A comment that a tool has put in front counts, too.
    let answer = ok(
        &mut client,
        "/* pgweir: route=primary */ EXPLAIN ROUTE SELECT 1",
    );
    let last = answer.rows().pop().expect("rows");
    assert_eq!(last[2].as_deref(), Some("hint"));
    ok(&mut client, "DROP TABLE words_e");
}

#[test]
fn explain_route_has_parameters_in_the_extended_protocol_and_obeys_a_row_limit() {
    let (_proxy, mut client) = ready(&config(cluster()));
    let mut out = Vec::new();
    writer::message(&mut out, frontend::tag::PARSE, |w| {
        w.cstr(b"e");
        w.cstr(b"EXPLAIN ROUTE SELECT * FROM t WHERE a = $1 AND b = $2");
        w.i16(1);
        w.i32(23);
    });
    frontend::Describe {
        kind: frontend::Target::Statement,
        name: b"e",
    }
    .encode(&mut out);
    frontend::Sync.encode(&mut out);
    writer::message(&mut out, frontend::tag::BIND, |w| {
        w.cstr(b"");
        w.cstr(b"e");
        w.i16(0);
        w.i16(2);
        for parameter in [b"1", b"2"] {
            w.i32(1);
            w.bytes(parameter);
        }
        w.i16(1);
        w.i16(1);
    });
    for max_rows in [2, 0] {
        frontend::Execute {
            portal: b"",
            max_rows,
        }
        .encode(&mut out);
    }
    frontend::Sync.encode(&mut out);
    client.send(&out).expect("sent");
    let described = client.until_ready().expect("an answer");
    assert_eq!(
        described.names(),
        [
            "ParseComplete",
            "ParameterDescription",
            "RowDescription",
            "ReadyForQuery"
        ]
    );
    let types = described.0.iter().find_map(|message| {
        let body = message.body();
        (message.name() == "ParameterDescription").then(|| body.to_vec())
    });
    // Two parameters: the declared type, and text.
    assert_eq!(types, Some(vec![0, 2, 0, 0, 0, 23, 0, 0, 0, 25]));
    let answer = client.until_ready().expect("an answer");
    let names = answer.names();
    assert_eq!(
        names[..4],
        ["BindComplete", "DataRow", "DataRow", "PortalSuspended"]
    );
    assert_eq!(names.last(), Some(&"ReadyForQuery"));
    let last = answer.rows().pop().expect("rows");
    assert_eq!(last[0].as_deref(), Some("route"));
}

#[test]
fn a_hint_anywhere_in_a_batch_counts_in_both_protocols() {
    let (_proxy, mut client) = ready(&config(cluster()));
    for sql in [
        "/* pgweir: route=primary */ SELECT 1",
        "SELECT /* pgweir: route=primary */ 1",
        "SELECT 1 -- pgweir: route=primary",
        "SELECT 1; SELECT 2 /* pgweir: route=primary */",
    ] {
        ok(&mut client, sql);
        assert_eq!(last_route(&mut client), "primary (hint)", "{sql}");
        if !sql.contains(';') {
            let answer = client.execute(sql, &[]).expect("an answer");
            assert_eq!(answer.error(), None);
            assert_eq!(last_route(&mut client), "primary (hint)", "{sql}");
        }
    }
    let mut out = Vec::new();
    append_execute(&mut out, "SELECT 1", &[]);
    append_execute(&mut out, "SELECT 2 /* pgweir: route=primary */", &[]);
    frontend::Sync.encode(&mut out);
    client.send(&out).expect("sent");
    assert_eq!(client.until_ready().expect("an answer").error(), None);
    assert_eq!(last_route(&mut client), "primary (hint)");
}

#[test]
fn max_lag_and_consistency_of_a_session_choose_the_replicas() {
    let (_proxy, mut client) = ready(&config(cluster()));
    ok(&mut client, "SET pgweir.max_lag = '0'");
    // A snapshot has some age soon.
    eventually!(route_row(&mut client, "SELECT 1") == "primary | replica_lag | primary");
    assert_eq!(
        route_row(&mut client, "SELECT 1 /* pgweir: max_lag=1h */"),
        "replica | read | replica1, replica2"
    );
    ok(&mut client, "RESET pgweir.max_lag");
    ok(&mut client, "SET pgweir.consistency = 'eventual'");
    ok(&mut client, "CREATE TABLE IF NOT EXISTS words_c (a int)");
    ok(&mut client, "INSERT INTO words_c VALUES (1)");
    ok(&mut client, "SELECT 1");
    assert_eq!(last_route(&mut client), "replica (read)");
    ok(&mut client, "DROP TABLE words_c");
}
