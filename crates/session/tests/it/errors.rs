//! Errors: what the server skips, what is undone, and errors of our own.

use pgweir_session::client::ScanMode;
use pgweir_session::server::Ledger;
use pgweir_session::{Side, Violation};
use pgweir_wire::DecodeError;
use pgweir_wire::backend::{ErrorBuilder, Severity};

use crate::notation::{server_bytes, show_client};
use crate::rig::{LIMITS, Rig};

#[test]
fn an_error_skips_to_sync_and_nothing_behind_it_happens() {
    let mut rig = Rig::new();
    rig.prepare("a", "select 1");
    rig.send("Parse(b,selec) | Bind(,b) | Execute | Close(S a) | Parse(c,select 3) | Sync");
    rig.passes("Error(42601 syntax error) | Ready(I)");
    assert!(rig.client.is_settled() && !rig.client.is_in_mid_batch());
    assert_eq!(rig.client.statement_count(), 1);
    assert_eq!(rig.server.statements.len(), 1);
    // Neither is there.
    assert_eq!(
        rig.send("Parse(c,select 3) | Sync"),
        "Parse($2,select 3) | Sync"
    );
}

#[test]
fn what_came_before_an_error_stays() {
    let mut rig = Rig::new();
    rig.send("Parse(a,select 1) | Bind(,a) | Execute | Sync");
    rig.passes("ParseComplete | BindComplete | Error(22012 division by zero) | Ready(I)");
    assert_eq!(rig.client.statement_count(), 1);
    assert_eq!(rig.send("Bind(,a) | Sync"), "Bind(,$0) | Sync");
}

#[test]
fn a_batch_behind_one_that_fails_runs_all_the_same() {
    let mut rig = Rig::new();
    rig.prepare("a", "select 1");
    rig.send("Bind(,a) | Execute | Sync");
    rig.send("Query(select 2)");
    rig.send("Parse(b,select 3) | Sync");
    rig.passes("Error(22012 division by zero) | Ready(I)");
    rig.passes("Row(2) | Complete(SELECT 1) | Ready(I) | ParseComplete | Ready(I)");
    assert!(rig.client.is_settled());
    assert_eq!(rig.client.statement_count(), 2);
}

#[test]
fn a_failed_query_skips_nothing() {
    let mut rig = Rig::new();
    rig.send("Query(selec)");
    rig.send("Query(select 2)");
    rig.passes("Error(42601 syntax error) | Ready(I) | Row(2) | Complete(SELECT 1) | Ready(I)");
}

#[test]
fn after_an_error_what_the_server_would_skip_is_not_sent_either() {
    let mut rig = Rig::new();
    rig.prepare("a", "select 1");
    rig.stream("Parse(b,selec) | Flush");
    rig.passes("Error(42601 syntax error)");
    assert!(rig.client.is_settled() && rig.client.is_in_mid_batch());
    assert_eq!(
        rig.stream("Bind(,b) | Parse(c,select 3) | Close(S a) | Query(select 1) | Execute | Flush"),
        ""
    );
    assert_eq!(rig.stream("Describe(S b) | Sync"), "Sync");
    rig.passes("Ready(E)");
    assert!(rig.client.is_settled() && !rig.client.is_in_mid_batch());
    assert_eq!(rig.client.statement_count(), 1);
    assert_eq!(rig.stream("Bind(,a) | Sync"), "Bind(,$0) | Sync");
    rig.passes("BindComplete | Ready(E)");
}

#[test]
fn a_statement_that_was_taken_from_the_server_and_put_back_in_a_skipped_batch_is_there() {
    let mut rig = Rig::with(LIMITS, 1);
    rig.prepare("a", "select 1");
    rig.lease(0);
    assert_eq!(
        rig.send("Execute(nope) | Parse(b,select 2) | Parse(c,select 1) | Sync"),
        "Execute(nope) | Close(S $0) | Parse($1,select 2) | Parse($0,select 1) | Sync"
    );
    rig.passes("Error(34000 portal \"nope\" does not exist) | Ready(I)");
    assert_eq!(rig.server.statements.len(), 1);
    assert_eq!(rig.send("Parse(c,select 1) | Sync"), "Sync");
}

#[test]
fn a_message_with_a_broken_inside_fails_as_postgresql_fails_it() {
    let mut bind = b"B\0\0\0\x07abc".to_vec();
    bind.extend_from_slice(b"S\0\0\0\x04");
    for (bytes, error) in [
        (
            b"P\0\0\0\x08abcdS\0\0\0\x04".to_vec(),
            "invalid string in message",
        ),
        (
            b"P\0\0\0\x0aa\0b\0\0\x01S\0\0\0\x04".to_vec(),
            "insufficient data left in message",
        ),
        (bind, "invalid string in message"),
        (
            b"D\0\0\0\x06X\0S\0\0\0\x04".to_vec(),
            "invalid DESCRIBE message subtype 88",
        ),
        (
            b"C\0\0\0\x06X\0S\0\0\0\x04".to_vec(),
            "invalid CLOSE message subtype 88",
        ),
    ] {
        let mut rig = Rig::new();
        let (_, sent) = rig.send_bytes(&bytes, ScanMode::Whole);
        assert_eq!(
            show_client(&sent),
            "Describe(S pgweir_missing) | Sync",
            "{error}"
        );
        assert_eq!(
            rig.reply(
                "Error(26000 prepared statement \"pgweir_missing\" does not exist) | Ready(I)"
            ),
            format!("Error(08P01 {error}) | Ready(I)")
        );
        assert!(rig.client.is_settled());
    }
}

#[test]
fn a_query_with_a_broken_inside_is_the_servers_to_refuse() {
    let mut rig = Rig::new();
    let (_, sent) = rig.send_bytes(b"Q\0\0\0\x07abc", ScanMode::Whole);
    assert_eq!(sent, b"Q\0\0\0\x07abc");
    rig.passes("Error(08P01 invalid string in message) | Ready(I)");
}

#[test]
fn what_is_no_message_of_a_client_is_a_violation() {
    let mut rig = Rig::new();
    let scan =
        |rig: &mut Rig, bytes: &[u8]| rig.client.scan(bytes, ScanMode::Whole, &mut rig.tables);
    assert_eq!(
        scan(&mut rig, b"z\0\0\0\x04"),
        Err(Violation::UnknownTag {
            side: Side::Client,
            tag: b'z'
        })
    );
    assert_eq!(
        scan(&mut rig, b"Q\0\0\0\x03"),
        Err(Violation::Decode(DecodeError::BadLength {
            tag: b'Q',
            length: 3
        }))
    );
}

#[test]
fn the_last_words_of_a_server_that_the_session_is_done_with_are_not_for_the_client() {
    let mut rig = Rig::new();
    let last = ErrorBuilder::new(Severity::Fatal, *b"57P01", "terminating connection").build();
    let (_, out) = rig.receive(&last).unwrap();
    assert_eq!(out, b"");
    assert_eq!(rig.server.ledger, Ledger::Beyond);
    // In the middle of something they are.
    let mut rig = Rig::new();
    rig.send("Query(select 1)");
    let (_, out) = rig.receive(&last).unwrap();
    assert_eq!(out, last);
}

#[test]
fn a_cancel_of_ours_is_told_in_our_words_and_only_once() {
    let ours = ErrorBuilder::new(Severity::Error, *b"57014", "pgweir: too slow").build();
    let mut rig = Rig::new();
    rig.send("Parse(,select 1) | Bind | Execute | Sync");
    rig.client.word_cancel(ours.clone().into());
    let (_, out) = rig
        .receive(&server_bytes("ParseComplete | BindComplete"))
        .unwrap();
    assert_eq!(out, server_bytes("ParseComplete | BindComplete"));
    let (_, out) = rig
        .receive(&server_bytes("Error(57014 by request)"))
        .unwrap();
    assert_eq!(out, ours);
    rig.passes("Ready(I)");
    // What the client cancels itself is told as the server tells it; so is any other error, and what comes too late.
    rig.send("Query(select 1)");
    rig.passes("Error(57014 by request) | Ready(I)");
    rig.send("Query(select 1)");
    rig.client.word_cancel(ours.clone().into());
    rig.passes("Error(22012 division by zero) | Ready(I)");
    rig.send("Query(select 1)");
    rig.passes("Error(57014 by request) | Ready(I)");
}
