//! What a server connection is told before a session uses it, and what must be undone afterwards.

use pgweir_model::PinReason;
use pgweir_session::client::FrontFailure;
use pgweir_session::server::Ledger;
use pgweir_session::{ClientSession, ServerSession};
use pgweir_wire::{Gather, TransactionStatus};

use crate::notation::show_client;
use crate::rig::{GUARDED, LIMITS, Rig, SWITCHED, bytes_of, parameters};

fn with_parameters(entries: &[(&str, &str)]) -> Rig {
    let mut rig = Rig::new();
    rig.client = ClientSession::new(LIMITS, parameters(entries), 1);
    rig
}

#[test]
fn a_server_that_carries_the_sessions_parameters_is_told_nothing() {
    let mut rig = Rig::new();
    assert_eq!(rig.lease(0), "");
    assert!(rig.client.is_settled());
}

#[test]
fn parameters_are_switched_in_front_of_the_first_batch() {
    let mut rig = with_parameters(&[("timezone", "CET")]);
    assert_eq!(
        rig.lease(0),
        "Query(SELECT pg_catalog.set_config('timezone',E'CET',false);PREPARE pgweir_guard AS SELECT 1) | \
         Describe(S pgweir_guard) | Close(S pgweir_guard)"
    );
    assert!(rig.client.is_ahead_of_its_batch());
    rig.send("Query(select 1)");
    assert!(!rig.client.is_settled());
    // None of it is for the client.
    assert_eq!(
        rig.reply("RowDescription(set_config) | Row(CET) | Complete(SELECT 1)"),
        ""
    );
    assert_eq!(
        rig.reply("Complete(PREPARE) | Notice(hm) | Status(TimeZone=CET) | Ready(I)"),
        ""
    );
    // The server keeps these to itself until the batch is done.
    assert!(!rig.client.is_ahead_of_its_batch());
    assert_eq!(
        rig.reply("ParameterDescription | RowDescription(c) | CloseComplete"),
        ""
    );
    rig.passes("Complete(SELECT 0) | Ready(I)");
    assert!(rig.client.is_settled());
    let reported: Vec<_> = rig
        .server
        .reported()
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    assert_eq!(reported, [("TimeZone", "CET")]);
    // The next session with the same ones finds them there.
    rig.client = ClientSession::new(LIMITS, parameters(&[("timezone", "CET")]), 1);
    assert_eq!(rig.lease(0), "");
    // One without them does not.
    rig.next_client();
    assert_eq!(
        rig.lease(0),
        "Query(RESET \"timezone\";PREPARE pgweir_guard AS SELECT 1) | \
         Describe(S pgweir_guard) | Close(S pgweir_guard)"
    );
}

#[test]
fn a_switch_that_fails_is_noticed_and_the_server_is_given_up() {
    let mut rig = with_parameters(&[("search_path", "x")]);
    rig.lease(0);
    rig.send("Query(insert)");
    assert!(rig.client.front_failure().is_none());
    // The batch is skipped by the server, which waits for a Sync that never comes.
    rig.receive(&crate::notation::server_bytes(
        "Error(22023 invalid value) | Ready(I) | Error(26000 no such statement)",
    ))
    .unwrap();
    assert!(rig.client.front_failure().is_some());
    assert!(!rig.server.is_clean());
}

#[test]
fn a_switch_that_is_cancelled_says_nothing_to_the_client_until_the_guard_has_been_asked_for() {
    let mut rig = with_parameters(&[("search_path", "x")]);
    rig.lease(0);
    rig.send("Parse(,insert) | Bind | Execute | Sync");
    assert!(rig.client.front_is_of_ours());
    assert_eq!(rig.reply("Error(57014 canceling) | Ready(I)"), "");
    assert_eq!(rig.client.front_failure(), None);
    // What the server says at the Sync is not heard.
    let skipped = "Error(26000 no such statement) | Ready(I)";
    let (_, out) = rig
        .receive(&crate::notation::server_bytes(skipped))
        .unwrap();
    assert_eq!(out, b"");
    assert_eq!(rig.client.front_failure(), Some(FrontFailure::Canceled));
    let error = rig.client.take_front_error();
    assert_eq!(
        error,
        crate::notation::server_bytes("Error(57014 canceling)")
    );
    assert!(!rig.server.is_clean());
}

#[test]
fn a_guard_that_is_there_although_the_switch_was_cancelled_ends_the_session() {
    let mut rig = with_parameters(&[("search_path", "x")]);
    rig.lease(0);
    rig.send("Query(insert)");
    assert_eq!(rig.reply("Error(57014 canceling) | Ready(I)"), "");
    // The batch runs.
    assert_eq!(rig.reply("ParameterDescription"), "");
    assert_eq!(rig.client.front_failure(), Some(FrontFailure::Refused));
    assert!(!rig.client.take_front_error().is_empty());
}

#[test]
fn a_begin_that_is_cancelled_takes_the_batch_with_it() {
    let mut rig = Rig::new();
    rig.client.state.begin(b"BEGIN");
    let mut gather = Gather::new();
    rig.client
        .open_transaction(None, &mut rig.server, &mut gather);
    rig.send("Query(insert)");
    assert!(rig.client.front_is_of_ours());
    assert_eq!(rig.reply("ParseComplete | Error(57014 canceling)"), "");
    assert_eq!(rig.client.front_failure(), Some(FrontFailure::Canceled));
}

#[test]
fn what_else_is_to_be_run_first_is_guarded_too() {
    let mut rig = Rig::new();
    let mut gather = Gather::new();
    rig.client
        .begin_lease(&mut rig.server, 0, b"DISCARD SEQUENCES;", &mut gather);
    assert_eq!(
        show_client(&bytes_of(&gather, &[])),
        format!("Query(DISCARD SEQUENCES;{GUARDED}")
    );
}

#[test]
fn statements_of_an_older_schema_are_dropped_before_use() {
    let mut rig = Rig::new();
    rig.prepare("a", "select 1");
    assert_eq!(rig.lease(5), format!("Query(DEALLOCATE ALL;{GUARDED}"));
    assert_eq!(
        rig.send("Bind(,a) | Sync"),
        "Parse($0,select 1) | Bind(,$0) | Sync"
    );
    assert_eq!(
        rig.reply(
            "Complete(DEALLOCATE ALL) | Complete(PREPARE) | Ready(I) | ParameterDescription | \
             RowDescription(c) | CloseComplete | ParseComplete | BindComplete | Ready(I)"
        ),
        "BindComplete | Ready(I)"
    );
    assert_eq!(
        (rig.client.statement_count(), rig.server.statements.len()),
        (1, 1)
    );
    assert_eq!(rig.lease(5), "");
}

#[test]
fn a_server_without_statements_has_none_to_drop() {
    let mut rig = Rig::new();
    assert_eq!(rig.lease(5), "");
    assert_eq!(rig.server.epoch, 5);
}

#[test]
fn a_lost_server_owes_nothing() {
    let mut rig = Rig::new();
    rig.prepare("a", "select 1");
    rig.stream("Bind(,a) | Execute | Flush");
    assert!(!rig.client.is_settled() && rig.client.is_in_mid_batch());
    rig.client.server_lost();
    assert!(rig.client.is_settled() && !rig.client.is_in_mid_batch());
    rig.server = ServerSession::new(Vec::new(), 10);
    assert_eq!(
        rig.send("Bind(,a) | Sync"),
        "Parse($0,select 1) | Bind(,$0) | Sync"
    );
}

#[test]
fn marks_of_the_ledger_only_get_worse() {
    let mut server = ServerSession::new(Vec::new(), 10);
    assert!(server.is_clean());
    assert_eq!(server.reset_sql(), Some(""));
    server.mark(Ledger::Suspect);
    assert!(!server.is_clean());
    assert!(server.reset_sql().unwrap().contains("RESET ALL"));
    server.mark_pin(PinReason::Listen);
    server.mark(Ledger::Suspect);
    assert_eq!(server.reset_sql(), Some("DISCARD ALL"));
    server.mark(Ledger::Beyond);
    assert_eq!(server.reset_sql(), None);
}

#[test]
fn a_reset_forgets_what_the_server_forgets() {
    for (ledger, statements) in [(Ledger::Suspect, 1), (Ledger::SessionState, 0)] {
        let mut rig = with_parameters(&[("timezone", "CET")]);
        rig.lease(0);
        rig.reply(SWITCHED);
        rig.prepare("a", "select 1");
        rig.send("Parse(,select 2) | Sync");
        rig.reply("ParseComplete | Ready(I)");
        rig.server.mark(ledger);
        rig.server.reset_done();
        assert!(rig.server.is_clean(), "{ledger:?}");
        assert_eq!(rig.server.statements.len(), statements, "{ledger:?}");
        assert_eq!(rig.server.unnamed, None);
        assert!(rig.server.parameters.entries().is_empty());
    }
}

#[test]
fn a_server_is_clean_only_between_transactions() {
    let mut rig = Rig::new();
    for (status, clean) in [("I", true), ("T", false), ("E", false)] {
        rig.send("Query(x)");
        rig.reply(&format!("Complete(X) | Ready({status})"));
        assert_eq!(rig.server.is_clean(), clean, "{status}");
    }
    assert_eq!(rig.server.status, TransactionStatus::Failed);
}
