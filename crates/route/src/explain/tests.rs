//! The rows of EXPLAIN ROUTE.

use std::time::{Duration, Instant};

use pgweir_model::PinReason;

use super::*;
use crate::balance::Loads;
use crate::session_view::{Held, RouteSetting};
use crate::testing::{cluster, session};

/// Returns the rows, one line each: `step | decision | reason | detail`.
fn rows(
    reason: Reason,
    change: impl FnOnce(&mut SessionView<'_>, &mut Topology),
    held: Option<usize>,
) -> String {
    let now = Instant::now();
    let mut topology = cluster(&[3, 1], now);
    let mut session = session(&RouteSetting::Auto);
    change(&mut session, &mut topology);
    let mut classified = pgweir_sql::classify::classify(b"");
    classified.reason = reason;
    let name = |schema: Option<&str>, name: &str| Name {
        schema: schema.map(Into::into),
        name: name.into(),
    };
    classified.tables = vec![name(None, "users"), name(Some("app"), "orders")];
    let facts = Facts::of(&classified, false);
    let view = View {
        topology: &topology,
        loads: &Loads::new(),
        now,
    };
    let steps = explain(&classified, &facts, &session, &view, held);
    let line = |step: &Step| {
        format!(
            "{} | {} | {} | {}",
            step.step, step.decision, step.reason, step.detail
        )
    };
    steps.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_read_shows_the_replicas_and_which_would_take_it() {
    let shown = rows(
        Reason::Read,
        |_, topology| {
            topology.nodes[2].lag = Some(Duration::from_millis(7200));
            topology.nodes[2].lag_bytes = Some(123);
            topology.nodes[2].effective_weight = 0;
            topology.nodes[2].within_max_lag = false;
        },
        None,
    );
    assert_eq!(
        shown,
        "classification | replica | read | \n\
         tables | 2 |  | users, app.orders\n\
         replica | eligible |  | pg2: lag 0 ms, 0 bytes, weight 3, effective 3.000, in flight 0\n\
         replica | not eligible | replica_lag | pg3: lag 7200 ms, 123 bytes, weight 1, effective 0.000, in flight 0\n\
         route | replica | read | pg2"
    );
}

#[test]
fn the_route_row_tells_the_primary_by_name() {
    let shown = rows(Reason::Write, |_, _| {}, None);
    assert!(
        shown.ends_with("\nroute | primary | write | pg1"),
        "{shown}"
    );
}

#[test]
fn a_read_that_any_replica_may_take_names_them_all() {
    let shown = rows(Reason::ReadByTokens, |_, _| {}, None);
    assert!(
        shown.ends_with("\nroute | replica | read_by_tokens | pg2, pg3"),
        "{shown}"
    );
}

#[test]
fn a_pinned_session_shows_the_server_that_it_has() {
    let shown = rows(
        Reason::Read,
        |session, _| session.held = Held::Pinned(PinReason::Listen),
        Some(2),
    );
    assert!(
        shown.ends_with("\nroute | replica | pinned | pg3"),
        "{shown}"
    );
}

#[test]
fn an_instruction_has_a_row() {
    let setting = RouteSetting::parse("pg3");
    let setting: &'static RouteSetting = Box::leak(Box::new(setting));
    let shown = rows(Reason::Read, |session, _| session.route = setting, None);
    assert!(
        shown.contains("\ninstruction | pg3 | session_setting | \n"),
        "{shown}"
    );
    assert!(
        shown.ends_with("\nroute | replica | session_setting | pg3"),
        "{shown}"
    );
}

#[test]
fn a_refusal_is_told_in_the_route_row() {
    let shown = rows(
        Reason::Write,
        |session, _| session.route = &RouteSetting::Replica,
        None,
    );
    assert!(
        shown.contains("\nroute | primary | session_setting | refused (25006): "),
        "{shown}"
    );
    let shown = rows(Reason::Write, |_, topology| topology.primary = None, None);
    assert!(
        shown.ends_with("refused (57P03): no primary is available"),
        "{shown}"
    );
}
