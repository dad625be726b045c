//! What PostgreSQL would answer: tables of expressions, of comparisons, and of what is refused.

use std::sync::Arc;

use pgweir_config::reference::Table;
use pgweir_config::{Edit, Section};

use super::Talk;
use crate::testing::{Asked, Recorder};

async fn check(cases: &[(&str, &str)]) {
    let mut talk = Talk::admin().await;
    let mut wrong = Vec::new();
    for (sql, expected) in cases {
        let found = talk.query(sql).await;
        let rows = found.iter().filter_map(|message| {
            message
                .strip_prefix("Row ")
                .map(str::to_owned)
                .or_else(|| message.starts_with("Error").then(|| message.clone()))
        });
        let rows = rows.collect::<Vec<_>>().join(";");
        if rows != *expected {
            wrong.push(format!("{sql}: {rows}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn refused(cases: &[(&str, &str)]) {
    let mut talk = Talk::admin().await;
    for (sql, state) in cases {
        let error = talk.error(sql).await;
        assert!(error.contains(state), "{sql}: {error}");
    }
}

#[tokio::test]
async fn a_moment_is_compared_as_one() {
    check(&[
        ("select count(*) > 0 from clients where since between '2026-11-30T00:00:00Z' and '2026-11-30T23:59:59Z'", "t"),
        ("select count(*) from clients where since not between '2026-11-30T00:00:00Z' and '2026-11-30T23:59:59Z'", "0"),
        ("select count(*) from clients where since = '2026-11-30T05:26:11.000125+02:00' and id = (select min(id) from clients)", "1"),
        ("select count(*) from clients where '2026-11-30T23:00:00Z' < since", "0"),
        ("select count(*) > 0 from clients where since <> '2026-11-30T03:26:11Z'", "t"),
        ("select count(*) > 0 from clients c where c.since >= '2026-11-30'", "t"),
        ("select count(*) > 0 from clients where since in ('2026-11-30T03:26:11.000125Z', '2020-01-01')", "t"),
        ("select count(*) > 0 from clients where since = any(array['2026-11-30T03:26:11.000125Z'])", "t"),
        ("select count(*) > 0 from (select since as t from clients) s where t > '2026-11-30T00:00:00Z'", "t"),
        ("select now() > '2000-01-01T00:00:00Z', now() < '2000-01-01T00:00:00Z'", "t|f"),
    ])
    .await;
    refused(&[("select 1 from clients where since > 'yesteryear'", "22007")]).await;
}

#[tokio::test]
async fn a_bool_is_compared_as_one() {
    check(&[
        ("select (select count(*) from settings where changeable = 'true') = (select count(*) from settings where changeable)", "t"),
        ("select count(*) > 0 from settings where changeable = 't'", "t"),
        ("select count(*) > 0 from settings where 'on' = changeable", "t"),
        ("select count(*) from settings where changeable in ('true', 'f') and changeable is null", "0"),
        ("select (select count(*) from settings where changeable in ('true', 'f')) = (select count(*) from settings)", "t"),
        ("select (1 = 1) = 'true', (1 = 2) <> 'f'", "t|f"),
    ])
    .await;
    refused(&[(
        "select 1 from settings where changeable = 'perhaps'",
        "22P02",
    )])
    .await;
}

#[tokio::test]
async fn expressions_are_what_postgresql_makes_of_them() {
    check(&[
        ("select greatest(1, null, 3), least(null, 2, 1), greatest(null, null), greatest(5), least('b', 'a')", "3|1|NULL|5|a"),
        ("select greatest(weight) from backends limit 1", "100"),
        ("select left('weir', 2), left('weir', -1), right('weir', 3), right('weir', -3), right('wéir', 9)", "we|wei|eir|r|wéir"),
        ("select substring('weir' from 2), substring('weir' from 2 for 2), substring('weir', 0, 2), substr('weir', -1)", "eir|ei|w|weir"),
        ("select substring('a12b' from '[0-9]+'), substring('a12b' from 'a(.)'), substring('a' from 'x')", "12|1|NULL"),
        ("select trunc(1.7), trunc(-1.7), trunc(1.239, 2), trunc(5)", "1|-1|1.23|5"),
        ("select split_part('a,b,c', ',', 2), split_part('a,b,c', ',', -1), split_part('a', ',', 2)", "b|c|"),
        ("select pg_typeof(1), pg_typeof(since), pg_typeof(tls), pg_typeof('x') from clients limit 1", "integer|timestamp with time zone|boolean|unknown"),
        ("select to_char('2026-11-30T13:05:09.25Z'::timestamptz, 'YYYY-MM-DD HH24:MI:SS.MS'), to_char('2026-11-30T13:05:09Z'::timestamptz, 'DD/MM HH12:MI AM')", "2026-11-30 13:05:09.250|30/11 01:05 PM"),
        (r"select regexp_replace('abc','(b)','<\1x>'), regexp_replace('abc','b','$1'), regexp_replace('abc','b','[\&]'), regexp_replace('aa','a','b','g')", "a<bx>c|a$1c|a[b]c|bb"),
        ("select 7 / 2, -7 / 2, 7 % 3, -7 % 3, 7.0 / 2, 1 / null::int", "3|-3|1|-1|3.5|NULL"),
        ("select 2147483647::int4, 32767::int2, 2147483648::int8", "2147483647|32767|2147483648"),
        ("select '5' + 1, 1 + '2.5'::float8", "6|3.5"),
    ])
    .await;
}

#[tokio::test]
async fn what_postgresql_refuses_is_refused() {
    refused(&[
        ("select 1/0", "22012"),
        ("select 1%0", "22012"),
        ("select weight / 0 from backends", "22012"),
        ("select 1.5 / 0", "22012"),
        ("select 2147483648::int4", "22003"),
        ("select 32768::int2", "22003"),
        ("select 1e30::int8", "22003"),
        ("select 'abc' + 1", "22P02"),
        ("select name + 1 from backends", "42883"),
        ("select 'abc'::text * 2", "42883"),
        ("select name, count(*) from backends", "42803"),
        ("select name, port from backends group by name", "42803"),
        (
            "select lower(name), count(*) from backends b group by b.port",
            "42803",
        ),
        ("select split_part('a', ',', 0)", "22023"),
        ("select to_char(now(), 'Q')", "0A000"),
    ])
    .await;
    check(&[
        ("select b.name as n, count(*) from backends b group by n order by 1 limit 1", "pg1|1"),
        ("select lower(name), max(port) > 0, 'x' from backends group by lower(name) order by 1 limit 1", "pg1|t|x"),
        ("select b.name, count(*) from backends b group by 1 order by 1 limit 1", "pg1|1"),
        ("select count(*), (select min(name) from clusters), current_user from backends", "2|main|admin"),
        ("select name, count(*) over () from backends order by 1 limit 1", "pg1|2"),
        ("select upper(name) || 'x', count(*) from backends group by name order by 1 limit 1", "PG1x|1"),
        ("select name || 'x' || 1 from backends order by 1 limit 1", "pg1x1"),
    ])
    .await;
}

#[tokio::test]
async fn nulls_come_last_wherever_rows_are_ordered() {
    let rows = "(select 2 as x union all select null union all select 1) t";
    check(&[
        (
            &format!("select array_agg(x order by x) from {rows}"),
            "{1,2,NULL}",
        ),
        (
            &format!("select array_agg(x order by x desc) from {rows}"),
            "{NULL,2,1}",
        ),
        (
            &format!("select x, row_number() over (order by x) from {rows} order by 2"),
            "1|1;2|2;NULL|3",
        ),
        (
            &format!(
                "select x, row_number() over w from {rows} window w as (order by x desc) order by 2"
            ),
            "NULL|1;2|2;1|3",
        ),
    ])
    .await;
}

#[tokio::test]
async fn now_stands_still_within_a_statement() {
    let mut talk = Talk::admin().await;
    let count = "select count(distinct now()) from generate_series(1, 20000)";
    assert_eq!(talk.rows(count).await, ["1"]);
    let first = talk.rows("select now()").await;
    assert_ne!(talk.rows("select now()").await, first);
}

#[tokio::test]
async fn a_setting_is_set_by_pgbouncers_name() {
    let control = Arc::new(Recorder::default());
    let mut talk = Talk::as_user("admin", true, Arc::clone(&control)).await;
    for (sql, key, value) in [
        ("SET max_client_conn = 5", "max_clients", "5"),
        ("SET query_wait_timeout = 7;", "query_wait_timeout", "7s"),
        ("SET server_lifetime TO '90s'", "server_lifetime", "90s"),
    ] {
        let answer = talk.query(sql).await;
        assert!(answer.contains(&"Done SET".to_owned()), "{answer:?}");
        let edit = Edit::Set {
            section: Section::Single(Table::Server),
            key: key.to_owned(),
            value: Some(value.to_owned()),
        };
        let done = control.done();
        assert!(
            matches!(done.last(), Some(Asked::Change(edits)) if *edits == [edit.clone()]),
            "{done:?}"
        );
    }
    assert!(
        talk.error("SET no_such_setting = 5")
            .await
            .contains("42704")
    );

    let control = Arc::new(Recorder::default());
    let mut talk = Talk::as_user("viewer", false, Arc::clone(&control)).await;
    assert!(
        talk.error("SET max_client_conn = 5")
            .await
            .contains("42501")
    );
    assert_eq!(control.done(), []);
}
