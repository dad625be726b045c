//! The protocol by transcripts: what is sent, what comes back.

use std::sync::Arc;

use pgweir_wire::ListBuf;
use pgweir_wire::frontend::{Bind, Close, Describe, Execute, Flush, Parse, Sync, Target};

use super::Talk;
use crate::control::{Order, Target as Aim};
use crate::testing::{Asked, Recorder};

fn parse(name: &str, sql: &str, types: &[u32], out: &mut Vec<u8>) {
    let types = ListBuf::collect(types.iter().copied()).unwrap();
    Parse {
        name: name.as_bytes(),
        sql: sql.as_bytes(),
        parameter_types: types.as_list(),
    }
    .encode(out);
}

struct Binding<'a> {
    portal: &'a str,
    statement: &'a str,
    values: &'a [Option<&'a [u8]>],
    formats: &'a [i16],
    results: &'a [i16],
}

const UNNAMED: Binding<'_> = Binding {
    portal: "",
    statement: "",
    values: &[],
    formats: &[],
    results: &[],
};

fn bind(binding: &Binding<'_>, out: &mut Vec<u8>) {
    let formats = ListBuf::collect(binding.formats.iter().copied()).unwrap();
    let values = ListBuf::collect(binding.values.iter().copied()).unwrap();
    let results = ListBuf::collect(binding.results.iter().copied()).unwrap();
    Bind {
        portal: binding.portal.as_bytes(),
        statement: binding.statement.as_bytes(),
        parameter_formats: formats.as_list(),
        parameters: values.as_list(),
        result_formats: results.as_list(),
    }
    .encode(out);
}

fn describe(kind: Target, name: &str, out: &mut Vec<u8>) {
    Describe {
        kind,
        name: name.as_bytes(),
    }
    .encode(out);
}

fn execute(portal: &str, max_rows: i32, out: &mut Vec<u8>) {
    Execute {
        portal: portal.as_bytes(),
        max_rows,
    }
    .encode(out);
}

#[tokio::test]
async fn a_simple_query_runs_all_its_statements_up_to_an_error() {
    let mut talk = Talk::admin().await;
    let answer = talk
        .query("select 1; show application_name; select nothing; select 2")
        .await;
    assert_eq!(
        answer[..6],
        [
            "Columns ?column?:int4",
            "Row 1",
            "Done SELECT 1",
            "Columns application_name:text",
            "Row tests",
            "Done SHOW"
        ]
    );
    assert!(answer[6].starts_with("Error 42703"), "{answer:?}");
    assert_eq!(answer[7..], ["Ready idle"]);
    assert_eq!(
        talk.query(" -- nothing\n;").await,
        ["EmptyQueryResponse", "Ready idle"]
    );
}

#[tokio::test]
async fn a_request_to_cancel_means_the_batch_in_which_it_comes_and_none_after() {
    let mut talk = Talk::admin().await;
    talk.cancel.send_modify(|count| *count += 1);
    talk.send(|out| {
        parse("", "select name from backends", &[], out);
        Flush.encode(out);
    })
    .await;
    assert_eq!(talk.next().await.as_deref(), Some("ParseComplete"));
    talk.cancel.send_modify(|count| *count += 1);
    let run = |out: &mut Vec<u8>| {
        bind(&UNNAMED, out);
        execute("", 0, out);
        Sync.encode(out);
    };
    talk.send(run).await;
    let answer = talk.until_ready().await;
    assert_eq!(answer[0], "BindComplete");
    assert!(answer[1].starts_with("Error 57014"), "{answer:?}");
    talk.cancel.send_modify(|count| *count += 1);
    talk.send(run).await;
    assert_eq!(talk.until_ready().await[1], "Row pg1");
}

#[tokio::test]
async fn an_extended_query_with_parameters_in_both_formats() {
    let mut talk = Talk::admin().await;
    talk.send(|out| {
        parse(
            "s",
            "select name, port from backends where port > $1 and name = $2",
            &[],
            out,
        );
        describe(Target::Statement, "s", out);
        bind(
            &Binding {
                statement: "s",
                values: &[Some(&[0, 0, 0, 1]), Some(b"pg2")],
                formats: &[1, 0],
                results: &[0, 1],
                ..UNNAMED
            },
            out,
        );
        describe(Target::Portal, "", out);
        execute("", 0, out);
        Close {
            kind: Target::Statement,
            name: b"s",
        }
        .encode(out);
        Sync.encode(out);
    })
    .await;
    assert_eq!(
        talk.until_ready().await,
        [
            "ParseComplete",
            "Parameters 23 25",
            "Columns name:text port:int4",
            "BindComplete",
            "Columns name:text port:int4/binary",
            "Row pg2|0000157e",
            "Done SELECT 1",
            "CloseComplete",
            "Ready idle",
        ]
    );
}

#[tokio::test]
async fn parameters_have_the_types_of_where_they_stand() {
    for (sql, types, expected) in [
        (
            "insert into rules (position, block) values ($1, $2)",
            &[][..],
            "Parameters 23 25",
        ),
        (
            "update backends set weight = $1 where name = $2",
            &[],
            "Parameters 23 25",
        ),
        (
            "select 1 from clients where since > $1 limit $2",
            &[],
            "Parameters 1184 20",
        ),
        ("select $1::float8, $2", &[], "Parameters 701 25"),
        (
            "select 1 from clients where id in ($1, $2)",
            &[0, 21],
            "Parameters 20 21",
        ),
        (
            "select 1 from clients where tls = $1",
            &[16],
            "Parameters 16",
        ),
    ] {
        let mut talk = Talk::admin().await;
        talk.send(|out| {
            parse("", sql, types, out);
            describe(Target::Statement, "", out);
            Sync.encode(out);
        })
        .await;
        let answer = talk.until_ready().await;
        assert_eq!(answer[1], expected, "{sql}: {answer:?}");
    }
}

#[tokio::test]
async fn every_type_comes_in_binary() {
    let mut talk = Talk::admin().await;
    talk.send(|out| {
        let sql = "select id, user, tls, wait_ms, since, prepared_statements from clients where id = $1::int";
        parse("", sql, &[], out);
        bind(&Binding { values: &[Some(b"1")], results: &[1], ..UNNAMED }, out);
        execute("", 0, out);
        Sync.encode(out);
    })
    .await;
    let answer = talk.until_ready().await;
    let since = since();
    let row = format!("Row 0000000000000001|app|00|4097710000000000|{since}|00000002");
    assert_eq!(answer[2], row);
}

/// 2026-11-30 03:26:11.000125+00, in microseconds since 2000.
fn since() -> String {
    let us = 1_796_009_171_000_125i64 - 946_684_800_000_000;
    us.to_be_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[tokio::test]
async fn a_portal_gives_its_rows_in_parts() {
    let mut talk = Talk::admin().await;
    talk.query("begin").await;
    talk.send(|out| {
        parse("", "select id from clients order by id", &[], out);
        bind(
            &Binding {
                portal: "p",
                ..UNNAMED
            },
            out,
        );
        execute("p", 2, out);
        Sync.encode(out);
    })
    .await;
    let first = talk.until_ready().await;
    assert_eq!(
        first[2..],
        ["Row 1", "Row 2", "PortalSuspended", "Ready in transaction"]
    );
    talk.send(|out| {
        execute("p", 2, out);
        Flush.encode(out);
        Sync.encode(out);
    })
    .await;
    assert_eq!(
        talk.until_ready().await,
        ["Row 3", "Done SELECT 3", "Ready in transaction"]
    );
    talk.query("commit").await;
    talk.send(|out| {
        execute("p", 0, out);
        Sync.encode(out);
    })
    .await;
    let gone = talk.until_ready().await;
    assert!(gone[0].starts_with("Error 34000"), "{gone:?}");
}

#[tokio::test]
async fn after_an_error_everything_up_to_sync_is_skipped() {
    let mut talk = Talk::admin().await;
    talk.send(|out| {
        parse("", "select nothing", &[], out);
        bind(&UNNAMED, out);
        execute("", 0, out);
        pgweir_wire::frontend::Query { sql: b"select 2" }.encode(out);
        Sync.encode(out);
        parse("", "select 1", &[], out);
        bind(&UNNAMED, out);
        execute("", 0, out);
        Sync.encode(out);
    })
    .await;
    let failed = talk.until_ready().await;
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert_eq!(
        talk.until_ready().await,
        [
            "ParseComplete",
            "BindComplete",
            "Row 1",
            "Done SELECT 1",
            "Ready idle"
        ]
    );
}

#[tokio::test]
async fn a_wrong_bind_is_an_error_and_no_more() {
    let mut talk = Talk::admin().await;
    for (values, formats, results, state) in [
        (&[][..], &[][..], &[][..], "08P01"),
        (&[Some(&b"x"[..])], &[], &[], "22P02"),
        (&[Some(&b"123"[..])], &[1], &[], "22P02"),
        (&[Some(&b"1"[..])], &[], &[0, 1, 0], "08P01"),
        (&[Some(&b"1"[..])], &[], &[7], "22023"),
    ] {
        talk.send(|out| {
            parse("", "select id from clients where id = $1", &[], out);
            bind(
                &Binding {
                    values,
                    formats,
                    results,
                    ..UNNAMED
                },
                out,
            );
            execute("", 0, out);
            Sync.encode(out);
        })
        .await;
        let answer = talk.until_ready().await;
        assert!(answer[1].contains(state), "{answer:?}");
    }
    assert_eq!(talk.rows("select 1").await, ["1"]);
}

#[tokio::test]
async fn a_transaction_has_its_status() {
    let mut talk = Talk::admin().await;
    assert_eq!(
        talk.query("BEGIN").await,
        ["Done BEGIN", "Ready in transaction"]
    );
    let failed = talk.query("select nothing").await;
    assert_eq!(failed.last().unwrap(), "Ready failed");
    assert!(talk.error("select 1").await.contains("25P02"));
    assert_eq!(talk.query("COMMIT").await, ["Done ROLLBACK", "Ready idle"]);
    talk.query("begin; update backends set weight = 1 where name = 'pg1'")
        .await;
    let back = talk.query("rollback").await;
    assert!(
        back[0].starts_with("Notice pgweir: what was changed stays"),
        "{back:?}"
    );
}

#[tokio::test]
async fn parameters_are_reported_when_they_change() {
    let mut talk = Talk::admin().await;
    assert_eq!(
        talk.query("SET application_name = 'x'").await,
        ["Status application_name=x", "Done SET", "Ready idle"]
    );
    assert_eq!(talk.rows("show application_name").await, ["x"]);
    // What stays as it is is not told again.
    assert_eq!(
        talk.query("SET application_name = 'x'; SET DateStyle = 'ISO'")
            .await,
        ["Done SET", "Done SET", "Ready idle"]
    );
    assert_eq!(
        talk.query("SET default_transaction_read_only = on").await,
        [
            "Status default_transaction_read_only=on",
            "Done SET",
            "Ready idle"
        ]
    );
    // The values at login come back.
    assert_eq!(
        talk.query("RESET ALL").await,
        [
            "Status application_name=tests",
            "Status default_transaction_read_only=off",
            "Done RESET",
            "Ready idle"
        ]
    );
    assert_eq!(
        talk.query("DISCARD ALL").await,
        ["Done DISCARD ALL", "Ready idle"]
    );
    talk.query("SET application_name = 'x'").await;
    assert_eq!(
        talk.query("RESET application_name").await,
        ["Status application_name=tests", "Done RESET", "Ready idle"]
    );
    assert!(
        talk.error("set client_encoding = 'LATIN1'")
            .await
            .contains("22023")
    );
}

#[tokio::test]
async fn a_savepoint_needs_a_transaction() {
    let mut talk = Talk::admin().await;
    for sql in ["savepoint a", "release a", "rollback to a"] {
        let answer = talk.query(sql).await;
        assert!(answer[0].starts_with("Error 25P01"), "{sql}: {answer:?}");
        assert_eq!(answer[1..], ["Ready idle"], "{sql}");
    }
    talk.query("begin; savepoint a").await;
    talk.error("select nothing").await;
    assert_eq!(
        talk.query("rollback to a").await,
        ["Done ROLLBACK", "Ready in transaction"]
    );
}

#[tokio::test]
async fn commands_are_orders_in_both_protocols() {
    let control = Arc::new(Recorder::default());
    let mut talk = Talk::as_user("admin", true, Arc::clone(&control)).await;
    assert_eq!(
        talk.query("PAUSE app").await,
        ["Notice pgweir: done", "Done PAUSE", "Ready idle"]
    );
    talk.send(|out| {
        parse("", "KILL 5", &[], out);
        describe(Target::Statement, "", out);
        bind(&UNNAMED, out);
        execute("", 0, out);
        Sync.encode(out);
    })
    .await;
    let answer = talk.until_ready().await;
    assert_eq!(
        answer[..4],
        ["ParseComplete", "Parameters ", "NoData", "BindComplete"]
    );
    let explained = talk
        .rows("EXPLAIN ROUTE select 1 FOR DATABASE app USER app")
        .await;
    assert_eq!(explained, ["route|replica|read|"]);
    assert_eq!(
        control.done(),
        [
            Asked::Order(Order::Pause {
                database: Some("app".to_owned())
            }),
            Asked::Order(Order::Kill(Aim::Client(5))),
            Asked::Explain(
                "select 1".to_owned(),
                Some("app".to_owned()),
                Some("app".to_owned())
            ),
        ]
    );
    assert_eq!(
        talk.rows("SHOW CONFIG DIFF").await,
        ["clusters.main.max_lag|5s|NULL"]
    );
    let check = talk.rows("PROMOTE CHECK").await;
    assert_eq!(check, ["main|pg2|t|5|16|0/2FFFFF0|1|16|NULL"]);
}

#[tokio::test]
async fn a_trace_streams_its_lines_and_ends() {
    let mut talk = Talk::admin().await;
    let answer = talk.query("TRACE 5").await;
    assert_eq!(
        answer,
        [
            "Columns line:text",
            "Row 5\tF\t10\tQuery",
            "Row 5\tB\t5\tReadyForQuery",
            "Done TRACE 2",
            "Ready idle"
        ]
    );
    let answer = talk.query("TRACE 5 LIMIT 1 FOR '5s'").await;
    assert_eq!(answer[2], "Done TRACE 1");
    assert!(talk.error("select 1; TRACE 5").await.contains("0A000"));
}

#[tokio::test]
async fn a_viewer_looks_and_changes_nothing() {
    let control = Arc::new(Recorder::default());
    let mut talk = Talk::as_user("viewer", false, Arc::clone(&control)).await;
    assert_eq!(talk.rows("select count(*) from backends").await, ["2"]);
    assert!(!talk.rows("show pools").await.is_empty());
    for sql in [
        "PAUSE",
        "KILL 5",
        "SHUTDOWN",
        "update backends set weight = 0",
        "update settings set value = '1s' where name = 'max_lag'",
        "delete from rules",
        "insert into users (name) values ('x')",
    ] {
        assert!(talk.error(sql).await.contains("42501"), "{sql}");
    }
    assert_eq!(control.done(), []);
}

#[tokio::test]
async fn pgbouncers_answers_have_its_columns() {
    let mut talk = Talk::admin().await;
    let columns = talk.columns("SHOW POOLS").await;
    assert!(columns.starts_with(
        "database:text user:text cl_active:int4 cl_waiting:int4 cl_active_cancel_req:int4"
    ));
    assert_eq!(
        talk.rows("SHOW POOLS").await,
        [
            "app|app|2|1|0|0|4|0|0|2|0|0|0|1|500250|transaction|NULL",
            "pgweir|pgweir|1|0|0|0|0|0|0|0|0|0|0|0|0|statement|NULL"
        ]
    );
    let stats = talk.rows("SHOW STATS").await;
    assert!(
        stats[0].starts_with("app|0|500|1000|10000|20000|0|3000|0|0|0|0|0|5|10|100|200|"),
        "{stats:?}"
    );
    assert!(
        stats.iter().any(|row| row.starts_with("pgweir|0|0|")),
        "{stats:?}"
    );
    let last = talk.columns("SHOW STATS").await;
    assert!(last.ends_with(" avg_bind_count:int8"), "{last}");
    let databases = talk.columns("SHOW DATABASES").await;
    assert!(databases.ends_with(" disabled:int4"), "{databases}");
    let databases = talk.rows("SHOW DATABASES").await;
    assert!(
        databases.iter().any(|row| row.starts_with("pgweir|NULL|")),
        "{databases:?}"
    );
    let clients = talk.rows("SHOW CLIENTS").await;
    assert!(
        clients[clients.len() - 1].starts_with("C|admin|pgweir|none|active|"),
        "{clients:?}"
    );
    assert_eq!(talk.columns("SHOW LISTS").await, "list:text items:int4");
    assert_eq!(talk.columns("SHOW DATABASES").await.split(' ').count(), 17);
    assert_eq!(talk.columns("SHOW CLIENTS").await.split(' ').count(), 21);
    for show in [
        "STATS_TOTALS",
        "STATS_AVERAGES",
        "TOTALS",
        "SERVERS",
        "SOCKETS",
        "USERS",
        "CONFIG",
        "VERSION",
        "MEM",
        "DNS_HOSTS",
        "DNS_ZONES",
        "STATE",
        "PEERS",
    ] {
        let width = talk
            .columns(&format!("SHOW {show};"))
            .await
            .split(' ')
            .count();
        for row in talk.rows(&format!("show {show}")).await {
            assert_eq!(row.split('|').count(), width, "{show}: {row}");
        }
    }
    // There is a `|` in some of its rows.
    assert_eq!(talk.columns("SHOW HELP").await.split(' ').count(), 3);
    assert!(talk.rows("SHOW HELP").await.len() > 40);
    assert_eq!(
        talk.rows("SHOW STATE").await,
        ["active|yes", "paused|no", "suspended|no"]
    );
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_session() {
    let mut talk = Talk::admin().await;
    talk.send(|out| pgweir_wire::frontend::Query { sql: b"WAIT_CLOSE" }.encode(out))
        .await;
    let Talk { stream, served, .. } = talk;
    drop(stream);
    tokio::time::timeout(super::PATIENCE, served)
        .await
        .unwrap()
        .unwrap();
}
