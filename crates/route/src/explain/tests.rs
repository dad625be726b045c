//! The rows of EXPLAIN ROUTE.

use pgweir_model::Consistency;
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
    rows_of(b"", reason, None, change, held)
}

/// Returns the rows of a text of which only the hint counts, under a rule.
fn rows_of(
    sql: &[u8],
    reason: Reason,
    ruling: Option<Ruling<'_>>,
    change: impl FnOnce(&mut SessionView<'_>, &mut Topology),
    held: Option<usize>,
) -> String {
    let now = Instant::now();
    let mut topology = cluster(&[3, 1], now);
    let mut session = session(&RouteSetting::Auto);
    change(&mut session, &mut topology);
    let mut classified = pgweir_sql::classify::classify(sql);
    classified.reason = reason;
    let name = |schema: Option<&str>, name: &str| Name {
        schema: schema.map(Into::into),
        name: name.into(),
    };
    classified.tables = vec![name(None, "users"), name(Some("app"), "orders")];
    let facts = Facts {
        rule: ruling,
        ..Facts::of(&classified, false)
    };
    let view = View {
        topology: &topology,
        loads: &Loads::new(),
        now,
    };
    let subject = Subject {
        classified: &classified,
        fingerprint: Fingerprint(0x2A),
    };
    let steps = explain(subject, &facts, &session, &view, held);
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
         fingerprint | 000000000000002a |  | \n\
         tables | 2 |  | users, app.orders\n\
         shards | none |  | the database is not sharded\n\
         replica | eligible |  | pg2: lag 0 ms, 0 bytes, weight 3, effective 3.000, in flight 0\n\
         replica | not eligible | replica_lag | pg3: lag 7200 ms, 123 bytes, weight 1, effective 0.000, in flight 0\n\
         cache | no |  | the cache is off\n\
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
        shown.contains("\ninstruction | route = pg3 | session_setting | \n"),
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

/// A rule that says nothing yet.
const RULE: Ruling<'static> = Ruling {
    name: "reports",
    route: Instruction::Auto,
    asks: Asks {
        max_lag: None,
        consistency: None,
    },
    timeout: None,
    block: None,
    is_for_session: false,
};

#[test]
fn a_rule_has_a_row_and_stands_below_a_hint() {
    let rule = Ruling {
        route: Instruction::Primary,
        asks: Asks {
            max_lag: Some(MaxLag::Time(Duration::from_secs(30))),
            consistency: Some(Consistency::Eventual),
        },
        ..RULE
    };
    let shown = rows_of(b"", Reason::Read, Some(rule), |_, _| {}, None);
    let row = "rule | route = primary, max_lag = 30000 ms, consistency = eventual | rule | rule \"reports\"\n";
    assert!(shown.contains(row), "{shown}");
    assert!(shown.ends_with("\nroute | primary | rule | pg1"), "{shown}");
    let hint = b"/* pgweir: route=pg2, max_lag=16kB, consistency=session, cache=1s, x=y */";
    let shown = rows_of(hint, Reason::Read, Some(rule), |_, _| {}, None);
    assert!(
        shown.contains(
            "instruction | route = pg2 | hint | \n\
             instruction | max_lag = 16384 bytes | hint | \n\
             instruction | consistency = session | hint | \n\
             instruction | ignored | hint | \"x\" is not a hint; the known ones are route, max_lag, consistency, cache, shard_key\n\
             instruction | ignored | hint | cache: the cache is off\n"
        ),
        "{shown}"
    );
    assert!(shown.ends_with("\nroute | replica | hint | pg2"), "{shown}");
}

#[test]
fn what_a_rule_blocks_is_refused() {
    let rule = Ruling {
        block: Some("use the archive"),
        ..RULE
    };
    let shown = rows_of(b"", Reason::Read, Some(rule), |_, _| {}, None);
    assert!(
        shown.contains("\nrule | block | rule | rule \"reports\"\n"),
        "{shown}"
    );
    assert!(
        shown.ends_with("\nroute | primary | rule | refused (42501): use the archive"),
        "{shown}"
    );
}

#[test]
fn a_primary_that_shares_is_named_among_those_that_would_be_used() {
    let rows = rows(
        Reason::Read,
        |_, topology| topology.selection.primary_reads = pgweir_model::PrimaryReads::Share,
        None,
    );
    assert!(
        rows.contains("\nprimary | eligible |  | pg1: lag 0 ms, 0 bytes, weight 1, effective 1.000, in flight 0\n"),
        "{rows}"
    );
    assert!(rows.ends_with(" | read | pg1, pg2, pg3"), "{rows}");
}

#[test]
fn a_read_that_waits_for_a_replica_says_so() {
    let rows = rows(
        Reason::Read,
        |_, topology| {
            topology.selection.primary_reads = pgweir_model::PrimaryReads::Never;
            for node in topology.nodes.iter_mut().skip(1) {
                node.within_max_lag = false;
            }
        },
        None,
    );
    let expected = "\nroute | replica | replica_lag | waits until a replica is eligible: primary_reads is never";
    assert!(rows.ends_with(expected), "{rows}");
}

#[test]
fn the_own_zone_is_shown_where_it_counts() {
    let rows = rows(
        Reason::Read,
        |_, topology| {
            topology.selection.balance = Balance::Nearest;
            topology.nodes[2].is_near = true;
        },
        None,
    );
    assert!(
        rows.contains("effective 3.000, in flight 0, elsewhere\n"),
        "{rows}"
    );
    assert!(
        rows.contains("effective 1.000, in flight 0, near\n"),
        "{rows}"
    );
    assert!(rows.ends_with("\nroute | replica | read | pg3"), "{rows}");
}
