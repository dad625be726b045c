//! The engine by itself: when it stops, and what it says that a statement has changed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::console::answer::cell_size;
use crate::console::engine::{Changed, Engine, Outcome};
use crate::console::functions::Caller;
use crate::console::parameters::Parameters;
use crate::console::rewrite::{rewrite, with_stack};
use crate::console::run::Runner;
use crate::console::types::Cell;
use crate::control::Refusal;
use crate::facts::Facts;
use crate::tables::Scene;
use crate::testing::{self, Recorder};

/// Longer than anything here takes.
const AMPLE: Duration = Duration::from_secs(20);

fn caller() -> Caller {
    Caller {
        user: "admin".into(),
        database: "pgweir".into(),
        process_id: 77,
    }
}

fn run_on(
    engine: &mut Engine,
    sql: &str,
    facts: &Facts,
    before: impl FnOnce(&Engine) -> Instant,
) -> Result<Outcome, Refusal> {
    with_stack(|| {
        let plan = engine.prepare(rewrite(sql)?, &[], true, Instant::now() + AMPLE)?;
        let scene = Scene {
            facts,
            user: "admin",
            database: "pgweir",
            process_id: 77,
        };
        let deadline = before(engine);
        engine.run(&plan, &[], &scene, deadline)
    })
}

/// Runs a statement; `before` is called once it is prepared, and returns when its time is over.
fn run(
    sql: &str,
    facts: &Facts,
    before: impl FnOnce(&Engine) -> Instant,
) -> Result<Outcome, Refusal> {
    run_on(&mut Engine::new(&caller())?, sql, facts, before)
}

fn changed(sql: &str, facts: &Facts) -> Vec<Changed> {
    let outcome = run(sql, facts, |_| Instant::now() + AMPLE);
    outcome.unwrap().changed
}

#[test]
fn a_request_to_cancel_that_comes_before_the_first_step_is_heard() {
    let endless =
        "with recursive r(x) as (select 1 union all select x + 1 from r) select count(*) from r";
    let stopped = run(endless, &testing::facts(), |engine| {
        engine.stopper().store(true, Ordering::Relaxed);
        Instant::now() + Duration::from_secs(3)
    });
    assert_eq!(
        stopped.unwrap_err().message,
        "canceling statement due to user request"
    );
}

#[test]
fn filling_the_tables_counts_towards_the_time_of_a_statement() {
    let mut facts = testing::facts();
    facts.clients = vec![facts.clients[0].clone(); 5000];
    let mut engine = Engine::new(&caller()).unwrap();
    let sql = "select id from clients";
    let late = run_on(&mut engine, sql, &facts, |_| Instant::now());
    assert_eq!(late.unwrap_err().sqlstate, *b"57014");
    // Nothing of it is left.
    let found = run_on(&mut engine, sql, &facts, |_| Instant::now() + AMPLE);
    assert_eq!(found.unwrap().count, 5000);
}

#[tokio::test]
async fn a_request_to_cancel_that_comes_once_a_statement_is_understood_is_heard() {
    let (cancel, cancelled) = watch::channel(0);
    let parameters = Parameters::new("admin", &[]);
    let control = Arc::new(Recorder::default());
    let runner = Runner::new(
        caller(),
        true,
        parameters,
        control.clone(),
        Arc::default(),
        cancelled,
    );
    let mut runner = runner.unwrap();
    let sql = "update backends set weight = 0";
    for _ in 0..20 {
        runner.begin();
        let understood = runner.understand(sql, &[]).await.unwrap();
        cancel.send_modify(|count| *count += 1);
        let cancelled = runner.run(sql, &understood, &[]).await.unwrap_err();
        assert_eq!(cancelled.sqlstate, *b"57014");
    }
    assert_eq!(control.done(), []);
    // It does not mean the next one.
    runner.begin();
    let understood = runner.understand(sql, &[]).await.unwrap();
    assert!(runner.run(sql, &understood, &[]).await.is_ok());
}

/// A rule among them has a text that is longer than what is shown of one.
fn with_long_text() -> Facts {
    let mut facts = testing::facts();
    let config = Arc::make_mut(&mut facts.config);
    config.rules[1].action.block = Some("x".repeat(1 << 18).into());
    facts
}

#[test]
fn a_long_text_that_a_statement_leaves_alone_is_not_changed() {
    let facts = with_long_text();
    let changed = changed("update rules set name = 'new' where position = 1", &facts);
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].place, Some(0));
    let all = self::changed("update rules set name = 'new'", &facts);
    let (before, after) = (all[1].before.as_ref(), all[1].after.as_ref());
    let differing: Vec<_> = std::iter::zip(before.unwrap(), after.unwrap())
        .filter(|(before, after)| before != after)
        .collect();
    assert_eq!(differing, [(&Cell::from("2"), &Cell::from("new"))]);
}

#[test]
fn a_long_text_that_a_statement_builds_on_is_not_cut() {
    let facts = with_long_text();
    let changed = changed("update rules set block = block || 'y'", &facts);
    let after = changed[0].after.as_ref().unwrap();
    let longest = after.iter().map(cell_size).max().unwrap();
    assert_eq!(longest, cell_size(&Cell::Null) + (1 << 18) + 1);
}

#[test]
fn a_row_that_is_added_may_have_any_number() {
    let facts = testing::facts();
    for number in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX] {
        let sql = format!("insert into rules (rowid, block) values ({number}, 'no')");
        let changed = changed(&sql, &facts);
        assert_eq!(changed.len(), 1, "{number}");
        assert_eq!((changed[0].place, &changed[0].before), (None, &None));
    }
}
