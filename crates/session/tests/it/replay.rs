//! A read that a replica refuses and the primary is given instead: what counts as refused, and until when.

use pgweir_session::reply::is_recovery_error;
use pgweir_session::{ClientSession, Received, Refusal, ReplyEvent, Watch};
use pgweir_wire::HEADER_LEN;
use pgweir_wire::backend::ErrorResponse;

use crate::notation::{error, server_bytes, show_server};
use crate::rig::{LIMITS, Rig, SWITCHED, parameters};

const REFUSED: &str = "Error(25006 cannot execute UPDATE in a read-only transaction)";

/// A session whose batch, sent to a replica, may be replayed.
fn watching(batch: &str) -> Rig {
    let mut rig = Rig::new();
    rig.send(batch);
    rig.client.watch(Watch::Read);
    rig
}

fn outcome(rig: &mut Rig, replies: &str) -> (usize, ReplyEvent, String) {
    let (received, out) = rig.receive(&server_bytes(replies)).unwrap();
    (received.consumed, received.event, show_server(&out))
}

/// The rest of the replies goes nowhere, and the session can go on elsewhere.
fn throws_away(rig: &mut Rig, replies: &str) {
    rig.client.abandon_replies(&mut rig.server);
    assert_eq!(rig.reply(replies), "");
    assert!(rig.client.is_settled() && !rig.client.is_in_mid_batch());
}

#[test]
fn a_refused_query_is_replayed_and_leaves_no_trace() {
    let mut rig = watching("Query(select f())");
    let replies = format!("RowDescription(f) | {REFUSED} | Ready(I)");
    assert_eq!(
        outcome(&mut rig, &replies),
        (0, ReplyEvent::Replay(Refusal::Recovery), String::new())
    );
    throws_away(&mut rig, &replies);
    // The primary's replies are the client's again, whatever they are.
    rig.send("Query(select f())");
    rig.passes(&format!("{REFUSED} | Ready(I)"));
}

#[test]
fn a_refused_batch_has_prepared_nothing_for_the_client() {
    let mut rig = watching("Parse(a,select f()) | Bind(,a) | Execute | Sync");
    let replies = format!("ParseComplete | BindComplete | {REFUSED} | Ready(I)");
    assert_eq!(
        outcome(&mut rig, &replies),
        (0, ReplyEvent::Replay(Refusal::Recovery), String::new())
    );
    throws_away(&mut rig, &replies);
    assert_eq!(rig.client.statement_count(), 0);
    // The server has it for real.
    assert_eq!(rig.server.statements.len(), 1);
    assert_eq!(
        rig.send("Parse(a,select f()) | Bind(,a) | Execute | Sync"),
        "Bind(,$0) | Execute | Sync"
    );
}

#[test]
fn replies_of_ours_wait_until_it_is_decided() {
    let mut rig = Rig::new();
    rig.prepare("a", "select f()");
    rig.send("Parse(b,select f()) | Bind(,b) | Execute | Sync");
    rig.client.watch(Watch::Read);
    assert_eq!(
        outcome(&mut rig, "BindComplete"),
        (0, ReplyEvent::None, String::new())
    );
    let replies = format!("BindComplete | {REFUSED} | Ready(I)");
    assert_eq!(
        outcome(&mut rig, &replies),
        (0, ReplyEvent::Replay(Refusal::Recovery), String::new())
    );
    throws_away(&mut rig, &replies);
    assert_eq!(rig.client.statement_count(), 1);
}

#[test]
fn a_result_decides_that_the_replica_has_answered() {
    for result in ["Row(1)", "Complete(SELECT 0)", "Empty", "CopyOut", "CopyIn"] {
        let mut rig = watching("Query(select f())");
        rig.passes(result);
        rig.passes(&format!("{REFUSED} | Ready(I)"));
    }
    let mut rig = watching("Parse(,select f()) | Bind(,) | Execute(,1) | Execute | Sync");
    rig.passes("ParseComplete | BindComplete | Suspended");
    rig.passes(&format!("{REFUSED} | Ready(I)"));
}

#[test]
fn a_refusal_behind_rows_is_replayed_as_long_as_the_client_has_none_of_them() {
    let mut rig = watching("Query(select 1;select f())");
    let replies = format!("Row(1) | Complete(SELECT 1) | {REFUSED} | Ready(I)");
    assert_eq!(
        outcome(&mut rig, &replies),
        (0, ReplyEvent::Replay(Refusal::Recovery), String::new())
    );
    throws_away(&mut rig, &replies);
}

#[test]
fn what_comes_before_a_result_decides_nothing() {
    let mut rig = watching("Parse(,select f()) | Bind(,) | Describe(P ) | Execute | Sync");
    let before = "Notice(hm) | Status(a=b) | Notification(ch) | ParseComplete | BindComplete | RowDescription(f)";
    assert_eq!(
        outcome(&mut rig, before),
        (0, ReplyEvent::None, String::new())
    );
    rig.passes(&format!("{before} | Row(1)"));
}

#[test]
fn an_error_that_the_primary_would_raise_too_is_the_clients() {
    let mut rig = watching("Query(select 1/0)");
    rig.passes("RowDescription(c) | Error(22012 division by zero) | Ready(I)");
}

#[test]
fn a_refusal_that_comes_in_pieces_is_understood_once_it_is_whole() {
    let replies = server_bytes(&format!("RowDescription(f) | {REFUSED}"));
    let mut rig = watching("Query(select f())");
    for len in 0..replies.len() {
        let (received, out) = rig.receive(&replies[..len]).unwrap();
        assert_eq!(
            received,
            Received {
                consumed: 0,
                event: ReplyEvent::None
            },
            "{len} bytes"
        );
        assert!(out.is_empty());
    }
    let (received, out) = rig.receive(&replies).unwrap();
    assert_eq!(
        (received, out),
        (
            Received {
                consumed: 0,
                event: ReplyEvent::Replay(Refusal::Recovery)
            },
            Vec::new()
        )
    );
}

#[test]
fn a_switch_of_parameters_in_front_does_not_hide_a_refusal() {
    let mut rig = Rig::new();
    rig.client = ClientSession::new(LIMITS, parameters(&[("timezone", "CET")]), 1);
    rig.lease(0);
    rig.send("Query(select f())");
    rig.client.watch(Watch::Read);
    assert_eq!(outcome(&mut rig, SWITCHED).1, ReplyEvent::None);
    assert_eq!(
        outcome(&mut rig, REFUSED),
        (0, ReplyEvent::Replay(Refusal::Recovery), String::new())
    );
}

#[test]
fn replies_are_thrown_away_to_the_last_and_no_further() {
    let mut rig = watching("Parse(a,select f()) | Bind(,a) | Execute | Sync");
    rig.client.abandon_replies(&mut rig.server);
    assert!(!rig.client.is_settled());
    assert_eq!(
        rig.reply("ParseComplete | BindComplete | Row(1) | Error(25006 no)"),
        ""
    );
    // A notification has nothing to do with it.
    rig.passes("Notification(ch)");
    assert_eq!(rig.reply("Ready(I)"), "");
    assert!(rig.client.is_settled());
    rig.send("Query(select 1)");
    rig.passes("Row(1) | Complete(SELECT 1) | Ready(I)");
}

#[test]
fn only_what_recovery_forbids_is_a_refusal() {
    for (code, message, expected) in [
        (
            "25006",
            "cannot execute INSERT in a read-only transaction",
            true,
        ),
        (
            "0A000",
            "cannot use serializable mode in a hot standby",
            true,
        ),
        (
            "0A000",
            "cannot access temporary or unlogged relations during recovery",
            true,
        ),
        ("0A000", "not supported at all", false),
        ("55000", "recovery is in progress", true),
        ("55000", "lastval is not yet defined in this session", true),
        ("55000", "portal \"p\" cannot be run", false),
        (
            "XX000",
            "cannot assign TransactionIds during recovery",
            true,
        ),
        ("XX000", "something else", false),
        ("42P01", "relation \"t\" does not exist", true),
        ("42601", "syntax error during recovery", false),
        ("22012", "division by zero", false),
    ] {
        let bytes = error(code, message);
        let decoded = ErrorResponse::decode(&bytes[HEADER_LEN..]).unwrap();
        assert_eq!(is_recovery_error(&decoded), expected, "{code} {message}");
    }
}
