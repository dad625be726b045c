//! SQL over the tables: types, joins, what PostgreSQL writes and SQLite does not know, errors.

use std::sync::Arc;

use super::Talk;
use crate::console::types::{Cell, PgType, encode_binary};
use crate::facts::Wanted;
use crate::tables::{self, Scene};
use crate::testing::{self, Asked, Recorder};

#[tokio::test]
async fn every_table_is_selected_with_its_declared_types() {
    let mut talk = Talk::admin().await;
    for table in tables::all() {
        let (schema, name) = (table.schema.name(), table.name);
        let columns = talk
            .columns(&format!("select * from {schema}.{name}"))
            .await;
        let declared = table
            .columns
            .iter()
            .map(|column| format!("{}:{}", column.name, column.ty.name()));
        assert_eq!(
            columns,
            declared.collect::<Vec<_>>().join(" "),
            "{schema}.{name}"
        );
    }
}

#[test]
fn every_cell_fits_the_type_of_its_column() {
    let facts = testing::facts();
    let scene = Scene {
        facts: &facts,
        user: "admin",
        database: "pgweir",
        process_id: 77,
    };
    let mut empty = Vec::new();
    for table in tables::all() {
        let rows = (table.rows)(&scene);
        if rows.is_empty() && table.schema == tables::Schema::Public {
            empty.push(table.name);
        }
        for row in rows {
            assert_eq!(row.len(), table.columns.len(), "{}", table.name);
            for (cell, column) in row.iter().zip(table.columns) {
                let what = format!("{}.{}: {cell:?}", table.name, column.name);
                assert!(encode_binary(cell, column.ty).is_ok(), "{what}");
                let is_number = matches!(cell, Cell::Int(_) | Cell::Real(_));
                let is_text = matches!(column.ty, PgType::Text | PgType::Name | PgType::Char);
                assert!(!(is_number && is_text), "{what}");
            }
        }
    }
    // Not built: their columns are there, rows never.
    let unbuilt = [
        "cache_tables",
        "cache_entries",
        "shards",
        "sharded_tables",
        "two_phase_transactions",
    ];
    assert_eq!(empty, unbuilt);
}

const ANSWERS: &[(&str, &str)] = &[
    (
        "select count(*), sum(open), avg(waiting), max(name) from pools, backends",
        "4|12|2|pg2",
    ),
    (
        "select name from backends where role = 'replica' and not (lag_ms > 100)",
        "pg2",
    ),
    (
        "select user, state from clients where in_transaction",
        "app|active",
    ),
    (
        "select state, count(*) from clients group by state having count(*) = 1 order by 1 limit 1",
        "active|1",
    ),
    (
        "select tls, tls = false, not tls from clients limit 1",
        "f|t|t",
    ),
    ("select * from (values (1, 'a')) as t(x, y)", "1|a"),
    (
        "table clusters",
        "main|pg1|2|1|0|1|f|least_loaded|fallback|3",
    ),
    (
        "select since from clients where id = 1",
        "2026-11-30 03:26:11.000125+00",
    ),
    (
        "select id from clients where since < '2026-11-30 03:26:11'::timestamptz + interval '1 hour' order by id desc fetch first 1 rows only",
        "3",
    ),
    (
        "select since - interval '1 minute' from clients limit 1",
        "2026-11-30 03:25:11.000125+00",
    ),
    (
        "select extract(epoch from since) from clients limit 1",
        "1796009171.000125",
    ),
    (
        "select version() like 'PostgreSQL 15.0 %', current_database(), current_user, current_schema",
        "t|pgweir|admin|public",
    ),
    (
        "select '5'::int + 1, 'x'::text || 1, true::bool, 1.5::numeric",
        "6|x1|t|1.5",
    ),
    (
        "select name ilike 'PG%', name like 'PG%', name ~ '^pg[12]$', name !~* 'PG' from backends limit 1",
        "t|f|t|f",
    ),
    (
        "select 1 = any('{1,2}'::int[]), 3 = any(array[1,2]), 'a' <> all('{b,c}')",
        "t|f|t",
    ),
    // Texts are no numbers, whatever they look like.
    (
        "select '1e0' = any('{1,2}'), '01' <> all('{1}'), 'NaN' < any('{0}'), 9007199254740993 = any('{9007199254740992}'), 2.50 = any('{2.5}'), '5' < any('{10}'::int[])",
        "f|t|f|f|t|t",
    ),
    (
        "select array(select name from backends order by 1)",
        "{pg1,pg2}",
    ),
    ("select count(*) from generate_series(1, 5)", "5"),
    (
        "select coalesce(null, 'x'), nullif(1, 1), greatest(1, 3), least(2, 1)",
        "x|NULL|3|1",
    ),
    (
        "select 'it''s', E'tab\\there', $$dollar ' quoted$$",
        "it's|tab\there|dollar ' quoted",
    ),
    (
        "select name, default_value from settings where section = 'clusters.main'",
        "max_lag|5s",
    ),
    (
        "select name from settings where value = '30s'",
        "action.max_lag",
    ),
    (
        "select position, name, tables, max_lag from rules order by position limit 1",
        "1|reports|orders, public.items|30s",
    ),
    ("select reason from pins order by 1 limit 1", "listen"),
    (
        "select name, password, console from users where name = 'admin'",
        "admin|***|admin",
    ),
    (
        "with w as (select waiting from pools) select sum(waiting) from w",
        "4",
    ),
    ("select zone is null from backends order by zone", "f"),
];

#[tokio::test]
async fn tables_are_joined_filtered_ordered_and_counted() {
    let mut talk = Talk::admin().await;
    let joined = "SELECT b.name, p.waiting FROM backends b JOIN pools p ON p.backend = b.name ORDER BY 2 DESC";
    assert_eq!(talk.rows(joined).await, ["pg2|4", "pg1|0"]);
    assert_eq!(talk.columns(joined).await, "name:text waiting:int4");
    for &(sql, rows) in ANSWERS {
        let found = talk.rows(sql).await;
        assert_eq!(found.first().map_or("", String::as_str), rows, "{sql}");
    }
}

#[tokio::test]
async fn expressions_have_types() {
    let mut talk = Talk::admin().await;
    for (sql, columns) in [
        (
            "select count(*), max(lag_ms) as worst from backends",
            "count:int8 worst:float8",
        ),
        (
            "select lag_ms > 5, not true, name || 'x', weight + 1, weight * 1.5 from backends",
            "?column?:bool ?column?:bool ?column?:text ?column?:int8 ?column?:float8",
        ),
        (
            "select 1, 'a', 2.5, null, 10000000000",
            "?column?:int4 ?column?:text ?column?:float8 ?column?:text ?column?:int8",
        ),
        (
            "select x from (select max(since) as x from clients) s",
            "x:timestamptz",
        ),
        (
            "select case when tls then port else 0 end from backends, clients",
            "case:int4",
        ),
        (
            "select b.*, count(*) over () from clusters b",
            "name:text primary:text backends:int4 replicas:int4 down:int4 timeline:int8 is_split:bool balance:text primary_reads:text version:int8 count:int8",
        ),
        (
            "select now(), current_user, id::text, min(id) from clients group by id",
            "now:timestamptz current_user:name id:text min:int8",
        ),
        ("select 1 union all select 2", "?column?:int4"),
    ] {
        assert_eq!(talk.columns(sql).await, columns, "{sql}");
    }
}

const ERRORS: &[(&str, &str, &str)] = &[
    (
        "select * from backend",
        "42P01",
        "Perhaps you meant \"backends\"",
    ),
    (
        "select weigth from backends",
        "42703",
        "Perhaps you meant \"weight\"",
    ),
    (
        "select \"nothing\" from backends",
        "42703",
        "column \"nothing\" does not exist",
    ),
    // There are columns of that name, but not here.
    (
        "select name from help_commands",
        "42703",
        "SELECT * FROM help_columns lists all",
    ),
    ("select nosuch(1)", "42883", "nosuch"),
    ("select name from backends, clusters", "42702", "ambiguous"),
    ("selec 1", "42601", "SELECT"),
    ("select from where", "42601", ""),
    ("select 'x'::int", "22P02", "invalid input syntax"),
    ("select 1 where 'a' ~ '('", "2201B", "regular expression"),
    ("show nothing_like_this", "42704", "unrecognized"),
    ("create table x (y int)", "0A000", "not supported"),
    ("copy backends to stdout", "0A000", "COPY"),
    ("attach ':memory:' as x", "42601", ""),
    ("select load_extension('x')", "42501", ""),
    ("select * from sqlite_schema", "42P01", ""),
    ("select * from pragma_table_list", "42501", ""),
    ("FLUSH CACHE", "0A000", "not built"),
];

#[tokio::test]
async fn an_error_names_what_was_meant() {
    let mut talk = Talk::admin().await;
    for &(sql, state, words) in ERRORS {
        let error = talk.error(sql).await;
        assert!(
            error.contains(state) && error.contains(words),
            "{sql}: {error}"
        );
        assert!(error.contains("pgweir: "), "{sql}: {error}");
        // The session goes on.
        assert_eq!(talk.rows("select 1").await, ["1"]);
    }
}

#[tokio::test]
async fn a_statement_has_its_time_and_can_be_cancelled() {
    let endless =
        "with recursive r(x) as (select 1 union all select x + 1 from r) select count(*) from r";
    let mut talk = Talk::admin().await;
    let error = talk.error(endless).await;
    assert!(
        error.contains("57014") && error.contains("statement_timeout"),
        "{error}"
    );

    talk.send(|out| pgweir_wire::frontend::Query { sql: b"wait_close" }.encode(out))
        .await;
    // It is asked again until it is heard: a request that comes before its statement means none.
    let answer = loop {
        talk.cancel.send_modify(|count| *count += 1);
        let waited = tokio::time::timeout(std::time::Duration::from_millis(20), talk.until_ready());
        if let Ok(answer) = waited.await {
            break answer;
        }
    };
    assert!(answer[0].contains("57014"), "{answer:?}");
    assert_eq!(talk.rows("select 1").await, ["1"]);
}

#[tokio::test]
async fn a_result_is_bounded() {
    let mut talk = Talk::admin().await;
    let large = "select replace(hex(zeroblob(1000000)), '0', 'x') from backends a, backends b, backends c, backends d, backends e, backends f";
    let error = talk.error(large).await;
    assert!(error.contains("54000"), "{error}");
    assert_eq!(talk.rows("select 1").await, ["1"]);
}

#[tokio::test]
async fn a_statement_asks_for_what_it_reads_and_no_more() {
    for (sql, wanted) in [
        ("select name from clusters", Wanted::default()),
        (
            "select count(*) from clients",
            Wanted {
                sessions: true,
                ..Wanted::default()
            },
        ),
        (
            "select 1 from settings where exists (select 1 from statements) or 0 < (select max(id) from events)",
            Wanted {
                settings: true,
                statements: true,
                events: true,
                ..Wanted::default()
            },
        ),
        ("update backends set weight = 1", Wanted::default()),
        (
            "show lists",
            Wanted {
                sessions: true,
                ..Wanted::default()
            },
        ),
    ] {
        let control = Arc::new(Recorder::default());
        let mut talk = Talk::as_user("admin", true, Arc::clone(&control)).await;
        talk.rows(sql).await;
        let asked = control.asked.lock().unwrap();
        assert_eq!(asked.first(), Some(&Asked::Facts(wanted)), "{sql}");
    }
}
