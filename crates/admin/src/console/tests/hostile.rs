//! Input that nobody means: it is answered or ends the conversation, and never a panic.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pgweir_wire::frontend;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Desk, PATIENCE, Talk};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// What says that the console itself has failed, which is how a panic of its engine is told.
fn fault(answer: &[String]) -> Option<&String> {
    let mut errors = answer.iter().filter(|one| one.starts_with("Error"));
    errors.find(|error| error.contains(" XX000 ") || error.contains("FATAL"))
}

/// Sends bytes and the end, and waits until the session has ended without a panic.
async fn survives(bytes: &[u8]) {
    let mut talk = Talk::admin().await;
    // It may end before it has read all.
    let _ = talk.stream.write_all(bytes).await;
    let _ = talk.stream.shutdown().await;
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, talk.stream.read_to_end(&mut rest));
    read.await.unwrap().unwrap();
    // Its engine is on another thread, where a panic is an error of the session's.
    assert!(!rest.windows(7).any(|field| field == b"CXX000\0"));
    tokio::time::timeout(PATIENCE, talk.served)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_message_that_is_too_large_or_malformed_ends_the_session() {
    for (bytes, state) in [
        (&b"Q\x7f\xff\xff\xff"[..], "54000"),
        (b"Q\0\0\0\0", "08P01"),
        (b"Q\0\0\0\x05x", "08P01"),
        (b"!\0\0\0\x04", "08P01"),
        (b"B\0\0\0\x06ab", "08P01"),
    ] {
        let mut talk = Talk::admin().await;
        talk.stream.write_all(bytes).await.unwrap();
        let answer = talk.until_ready().await;
        let [error] = answer.as_slice() else {
            panic!("{answer:?}");
        };
        assert!(
            error.starts_with("Error FATAL") && error.contains(state),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_statement_that_is_too_long_is_refused() {
    let mut talk = Talk::admin().await;
    let sql = format!("select '{}'", "x".repeat(1 << 20));
    assert!(talk.error(&sql).await.contains("54000"));
    assert_eq!(talk.rows("select 1").await, ["1"]);
}

#[tokio::test]
async fn a_statement_that_is_nested_too_deep_is_refused() {
    let mut talk = Talk::admin().await;
    let deep = |depth| format!("select {}1{}", "(".repeat(depth), ")".repeat(depth));
    let error = talk.error(&deep(100_000)).await;
    assert!(error.starts_with("Error"), "{error}");
    assert_eq!(talk.rows("select 1").await, ["1"]);
}

#[test]
fn a_chain_of_operators_is_refused_before_it_becomes_a_deep_tree() {
    // With the stack that a thread has by default.
    let talks = std::thread::spawn(|| {
        runtime().block_on(async {
            let mut talk = Talk::admin().await;
            for link in [
                "+1",
                "::int",
                "[1]",
                " and 1",
                " is null",
                " union select 1",
                " collate c",
                " notnull",
                " xor 1",
                " minus select 1",
            ] {
                let chain = |length: usize| format!("select 1{}", link.repeat(length));
                let error = talk.error(&chain(50_000)).await;
                assert!(error.contains("54001"), "{link}: {error}");
                // What is let through is answered, or refused by SQLite.
                for length in [333, 500, 990] {
                    let answer = talk.query(&chain(length)).await;
                    assert_eq!(answer.last().unwrap(), "Ready idle", "{link}");
                    assert_eq!(fault(&answer), None, "{link}");
                }
            }
        });
    });
    talks.join().unwrap();
}

#[tokio::test]
async fn nested_series_are_answered() {
    let mut talk = Talk::admin().await;
    let mut sql = "select 1".to_owned();
    for _ in 0..8 {
        sql = format!("select count(*) from generate_series(1, ({sql}))");
    }
    assert_eq!(talk.rows(&sql).await, ["1"]);
}

#[tokio::test]
async fn a_few_names_for_a_great_many_tables_are_refused() {
    let mut talk = Talk::admin().await;
    let mut sql = "with a0 as (select count(*) x from clients)".to_owned();
    for n in 0..40 {
        let next = n + 1;
        sql += &format!(", a{next} as (select p.x from a{n} p, a{n} q)");
    }
    let error = talk.error(&format!("{sql} select * from a40")).await;
    assert!(error.contains("nested too deep"), "{error}");
    assert_eq!(talk.rows("select 1").await, ["1"]);
}

#[tokio::test]
async fn a_statement_waits_for_its_turn_within_its_time() {
    let desk = Arc::new(Desk::default());
    let mut talk = Talk::at_desk("viewer", false, Arc::default(), Arc::clone(&desk)).await;
    assert_eq!(talk.rows("select 1").await, ["1"]);
    let held = desk.slot(false).await;
    let error = talk.error("select 1").await;
    assert!(error.contains("57014"), "{error}");
    // A command needs none, and whoever may change has another.
    assert_eq!(talk.rows("show version").await.len(), 1);
    let mut admin = Talk::at_desk("admin", true, Arc::default(), desk).await;
    assert_eq!(admin.rows("select 1").await, ["1"]);
    drop(held);
    assert_eq!(talk.rows("select 1").await, ["1"]);
}

#[tokio::test]
async fn values_columns_and_results_have_a_size() {
    let mut talk = Talk::admin().await;
    let columns = |count| vec!["1"; count].join(", ");
    for sql in [
        "select hex(zeroblob(8000000))".to_owned(),
        format!("select {}", vec!["hex(zeroblob(600000))"; 60].join(", ")),
        format!(
            "select {} from generate_series(1, 2)",
            vec!["hex(zeroblob(500000))"; 60].join(", ")
        ),
        "select array_agg(x) from generate_series(1, 1000000) as x".to_owned(),
        "select length(regexp_replace(hex(zeroblob(10000)), '0', hex(zeroblob(10000)), 'g'))"
            .to_owned(),
        "select 'x' ~ hex(zeroblob(100000))".to_owned(),
        "select 'x' like hex(zeroblob(100000))".to_owned(),
        format!(
            "select length(greatest({})) from (select hex(zeroblob(500000)) as x) t",
            ["x"; 6].join(", ")
        ),
        "select 'x' ~ any('{' || replace(hex(zeroblob(1000)), '0', 'x,') || 'x}')".to_owned(),
    ] {
        let error = talk.error(&sql).await;
        assert!(error.contains("54000"), "{sql}: {error}");
    }
    assert_eq!(
        talk.rows(&format!("select {}", columns(200))).await.len(),
        1
    );
    let error = talk.error(&format!("select {}", columns(201))).await;
    assert!(error.contains("too many columns"), "{error}");
}

#[tokio::test]
async fn a_query_of_many_statements_has_one_limit() {
    let mut talk = Talk::admin().await;
    let one = "select hex(zeroblob(500000)) from generate_series(1, 30);";
    let answer = talk.query(&one.repeat(4)).await;
    let done = answer.iter().filter(|message| message.starts_with("Done"));
    assert_eq!(done.count(), 2);
    assert!(answer.iter().any(|message| message.contains("54000")));
    assert_eq!(talk.rows("select 1").await, ["1"]);
}

async fn parses(talk: &mut Talk, name: &str, sql: &str) -> String {
    let none = pgweir_wire::ListBuf::new();
    talk.send(|out| {
        frontend::Parse {
            name: name.as_bytes(),
            sql: sql.as_bytes(),
            parameter_types: none.as_list(),
        }
        .encode(out);
        frontend::Sync.encode(out);
    })
    .await;
    talk.until_ready().await.swap_remove(0)
}

#[tokio::test]
async fn a_short_statement_with_many_parameters_is_not_small() {
    let mut talk = Talk::admin().await;
    let mut count = 0;
    let refused = loop {
        let answer = parses(&mut talk, &format!("s{count}"), "select $32766").await;
        if answer != "ParseComplete" {
            break answer;
        }
        count += 1;
        assert!(count < 200, "too many fit");
    };
    assert!(refused.contains("53400"), "{refused}");
    assert!(count > 100, "{count}");
    // One that takes the place of another takes its room, too.
    talk.query("deallocate s0").await;
    for _ in 0..3 {
        assert_eq!(
            parses(&mut talk, "", "select $32766").await,
            "ParseComplete"
        );
    }
    let refused = parses(&mut talk, "s0", "select $32766").await;
    assert!(refused.contains("53400"), "{refused}");
}

#[tokio::test]
async fn between_the_statements_of_a_query_others_have_their_turn() {
    let mut talk = Talk::admin().await;
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&turns);
    let other = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let answer = talk.query(&"begin;".repeat(5000)).await;
    other.abort();
    assert_eq!(answer.len(), 5001);
    let turns = turns.load(Ordering::Relaxed);
    assert!(turns >= 5000, "{turns} turns");
}

#[tokio::test]
async fn the_values_of_portals_have_a_limit() {
    let mut talk = Talk::admin().await;
    let value = vec![b'x'; 1 << 20];
    talk.send(|out| {
        frontend::Parse {
            name: b"s",
            sql: b"select $1::text",
            parameter_types: pgweir_wire::ListBuf::collect([])
                .unwrap_or_default()
                .as_list(),
        }
        .encode(out);
    })
    .await;
    let values = pgweir_wire::ListBuf::collect([Some(value.as_slice())]).unwrap();
    for number in 0..70 {
        talk.send(|out| {
            frontend::Bind {
                portal: format!("p{number}").as_bytes(),
                statement: b"s",
                parameter_formats: pgweir_wire::ListBuf::new().as_list(),
                parameters: values.as_list(),
                result_formats: pgweir_wire::ListBuf::new().as_list(),
            }
            .encode(out);
        })
        .await;
    }
    talk.send(|out| frontend::Sync.encode(out)).await;
    let answer = talk.until_ready().await;
    let bound = answer
        .iter()
        .filter(|message| message.starts_with("BindComplete"));
    assert_eq!(bound.count(), 63);
    assert!(
        answer.iter().any(|message| message.contains("54000")),
        "{answer:?}"
    );
}

#[tokio::test]
async fn the_unnamed_portal_makes_room_for_the_next() {
    let mut talk = Talk::admin().await;
    assert_eq!(parses(&mut talk, "s", "select 1").await, "ParseComplete");
    let none = pgweir_wire::ListBuf::new();
    let values = pgweir_wire::ListBuf::collect([]).unwrap();
    let names = (0..999).map(|number| format!("p{number}"));
    let names = names.chain([String::new(), String::new(), "one more".to_owned()]);
    talk.send(|out| {
        for portal in names {
            frontend::Bind {
                portal: portal.as_bytes(),
                statement: b"s",
                parameter_formats: none.as_list(),
                parameters: values.as_list(),
                result_formats: none.as_list(),
            }
            .encode(out);
        }
        frontend::Sync.encode(out);
    })
    .await;
    let answer = talk.until_ready().await;
    assert_eq!(answer.len(), 1003);
    assert!(answer[1001].contains("53400"), "{}", answer[1001]);
}

/// Binds so many portals to a statement with a result of 40 MB and asks each for so many rows.
async fn large_portals(count: usize, max_rows: i32) -> Vec<String> {
    let mut talk = Talk::admin().await;
    talk.query("begin").await;
    let sql = "select hex(zeroblob(500000)) from generate_series(1, 40)";
    assert_eq!(parses(&mut talk, "s", sql).await, "ParseComplete");
    let none = pgweir_wire::ListBuf::new();
    let values = pgweir_wire::ListBuf::collect([]).unwrap();
    for number in 0..count {
        let portal = format!("p{number}");
        let portal = portal.as_bytes();
        talk.send(|out| {
            frontend::Bind {
                portal,
                statement: b"s",
                parameter_formats: none.as_list(),
                parameters: values.as_list(),
                result_formats: none.as_list(),
            }
            .encode(out);
            frontend::Execute { portal, max_rows }.encode(out);
        })
        .await;
    }
    talk.send(|out| frontend::Sync.encode(out)).await;
    let mut answer = talk.until_ready().await;
    answer.retain(|message| !message.starts_with("Row "));
    answer
}

#[tokio::test]
async fn rows_that_have_gone_out_take_no_room() {
    let done = ["BindComplete", "Done SELECT 40"];
    let all = [done, done, done].concat();
    assert_eq!(
        large_portals(3, 0).await,
        [all, vec!["Ready in transaction"]].concat()
    );
}

#[tokio::test]
async fn what_is_left_of_results_has_a_limit_which_comes_before_they_end() {
    let answer = large_portals(2, 1).await;
    assert_eq!(
        answer[..3],
        ["BindComplete", "PortalSuspended", "BindComplete"]
    );
    assert!(answer[3].contains("54000"), "{answer:?}");
    assert_eq!(answer[4..], ["Ready failed"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        runtime().block_on(survives(&bytes));
    }

    #[test]
    fn random_messages_never_panic(
        bodies in proptest::collection::vec((0usize..9, proptest::collection::vec(any::<u8>(), 0..40)), 0..20),
    ) {
        let tags = b"QPBDECSHF";
        let mut bytes = Vec::new();
        for (tag, body) in &bodies {
            bytes.push(tags[*tag]);
            bytes.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
            bytes.extend(body);
        }
        runtime().block_on(survives(&bytes));
    }

    #[test]
    fn words_of_sql_in_any_order_never_panic(
        words in proptest::collection::vec(
            prop::sample::select(vec![
                "select", "*", "from", "backends", "where", "name", "=", "'x'", "(", ")", ",", "$1", "::int", "any",
                "array[1]", "update", "settings", "set", "value", "null", "order by", "1", "limit", "with", "as",
                "[1]", "interval '1 day'", "-", "now()", "union", "case", "when", "then", "end", "unnest('{a}')",
                "~", "ilike", "explain route", "trace", "insert into rules", "values", "returning", "user", ";",
            ]),
            0..25,
        ),
    ) {
        let sql = words.join(" ");
        runtime().block_on(async {
            let mut talk = Talk::admin().await;
            talk.send(|out| frontend::Query { sql: sql.as_bytes() }.encode(out)).await;
            let answer = talk.until_ready().await;
            assert!(answer.last().unwrap().starts_with("Ready"), "{sql}: {answer:?}");
            assert_eq!(fault(&answer), None, "{sql}");
        });
    }
}
