//! COPY in both directions, and what Sync means to a server that reads COPY data.

use pgweir_session::Scan;
use pgweir_session::client::{Portion, ScanMode};
use pgweir_session::server::Ledger;

use crate::notation::client_bytes;
use crate::rig::Rig;

fn settled(rig: &Rig) -> bool {
    rig.client.is_settled() && !rig.client.is_in_mid_batch() && !rig.server.is_copy_in()
}

/// A session with the statement `a`, which is a COPY FROM.
fn with_copy() -> Rig {
    let mut rig = Rig::new();
    rig.prepare("a", "copy t from stdin");
    rig
}

#[test]
fn a_simple_copy_from_the_client() {
    let mut rig = Rig::new();
    rig.send("Query(copy t from stdin)");
    rig.passes("CopyIn");
    assert!(rig.server.is_copy_in());
    assert_eq!(
        rig.stream("CopyData(1) | CopyData(2)"),
        "CopyData(1) | CopyData(2)"
    );
    assert_eq!(rig.stream("CopyDone"), "CopyDone");
    rig.passes("Complete(COPY 2) | Ready(I)");
    assert!(settled(&rig));
}

#[test]
fn a_copy_to_the_client() {
    let mut rig = Rig::new();
    rig.send("Query(copy t to stdout)");
    rig.passes("CopyOut | CopyData(1) | CopyData(2) | CopyDone | Complete(COPY 2) | Ready(I)");
    assert!(settled(&rig));
}

#[test]
fn two_copies_in_one_query() {
    let mut rig = Rig::new();
    rig.send("Query(copy t from stdin;copy t from stdin)");
    rig.passes("CopyIn");
    rig.stream("CopyData(1) | CopyDone");
    rig.passes("Complete(COPY 1) | CopyIn");
    assert!(rig.server.is_copy_in());
    rig.stream("CopyDone");
    rig.passes("Complete(COPY 0) | Ready(I)");
    assert!(settled(&rig));
}

#[test]
fn a_sync_that_came_before_the_server_asked_for_data_is_not_answered() {
    let mut rig = with_copy();
    assert_eq!(
        rig.send("Bind(,a) | Execute | Sync"),
        "Bind(,$0) | Execute | Sync"
    );
    rig.passes("BindComplete | CopyIn");
    assert!(rig.client.is_in_mid_batch(), "its end was ignored");
    assert_eq!(
        rig.stream("CopyData(1) | CopyDone | Sync"),
        "CopyData(1) | CopyDone | Sync"
    );
    rig.passes("Complete(COPY 1) | Ready(I)");
    assert!(settled(&rig));
}

#[test]
fn a_sync_to_a_server_that_reads_data_is_not_answered() {
    let mut rig = with_copy();
    rig.send("Bind(,a) | Execute | Flush");
    rig.passes("BindComplete | CopyIn");
    assert_eq!(
        rig.stream("Sync | Flush | CopyDone | Sync"),
        "Sync | Flush | CopyDone | Sync"
    );
    rig.passes("Complete(COPY 0) | Ready(I)");
    assert!(settled(&rig));
}

#[test]
fn a_sync_behind_data_that_came_unasked_is_answered() {
    let mut rig = with_copy();
    rig.stream("Bind(,a) | Execute | CopyData(1) | CopyDone | Sync");
    rig.passes("BindComplete | CopyIn");
    assert!(!rig.server.is_copy_in(), "it has been given all");
    rig.passes("Complete(COPY 1) | Ready(I)");
    assert!(settled(&rig));
}

#[test]
fn a_sync_that_follows_data_which_came_unasked_is_answered() {
    let mut rig = with_copy();
    rig.stream("Bind(,a) | Execute | CopyData(1) | CopyDone");
    rig.passes("BindComplete | CopyIn");
    assert_eq!(rig.stream("Sync"), "Sync");
    rig.passes("Complete(COPY 1) | Ready(I)");
    assert!(settled(&rig));
}

#[test]
fn a_copy_that_the_client_gives_up() {
    let mut rig = with_copy();
    rig.send("Bind(,a) | Execute | Flush");
    rig.passes("BindComplete | CopyIn");
    assert_eq!(
        rig.stream("CopyData(1) | CopyFail(enough) | Sync"),
        "CopyData(1) | CopyFail(enough) | Sync"
    );
    rig.passes("Error(57014 COPY from stdin failed: enough) | Ready(I)");
    assert!(settled(&rig));
}

#[test]
fn a_copy_that_fails_while_the_client_still_sends() {
    let mut rig = Rig::new();
    rig.send("Query(copy t from stdin)");
    rig.passes("CopyIn");
    rig.stream("CopyData(bad)");
    rig.passes("Error(22P04 bad line) | Ready(I)");
    assert!(settled(&rig));
    // The server ignores it, and so does whoever counts replies.
    assert_eq!(
        rig.send("CopyData(2) | CopyDone | Query(select 1)"),
        "CopyData(2) | CopyDone | Query(select 1)"
    );
    rig.passes("Complete(SELECT 0) | Ready(I)");
    assert!(settled(&rig));
}

#[test]
fn an_extended_copy_that_fails_while_the_client_still_sends() {
    let mut rig = with_copy();
    rig.send("Bind(,a) | Execute | Flush");
    rig.passes("BindComplete | CopyIn");
    rig.stream("CopyData(bad)");
    rig.passes("Error(22P04 bad line)");
    assert_eq!(rig.stream("CopyData(2) | CopyDone | Sync"), "Sync");
    rig.passes("Ready(I)");
    assert!(settled(&rig));
}

#[test]
fn a_copy_that_never_begins() {
    let mut rig = with_copy();
    rig.stream("Bind(,a) | Execute | CopyData(1) | CopyDone | Sync");
    rig.passes("BindComplete | Error(42P01 no such table) | Ready(I)");
    assert!(settled(&rig));
    rig.send("Query(copy missing from stdin)");
    rig.send("CopyData(1) | CopyDone | Query(select 1)");
    rig.passes("Error(42P01 no such table) | Ready(I) | Complete(SELECT 0) | Ready(I)");
    assert!(settled(&rig));
}

#[test]
fn a_sync_of_which_nobody_knows_whether_it_was_ignored_may_be_answered() {
    let mut rig = with_copy();
    rig.send("Bind(,a) | Execute | Sync");
    rig.passes("BindComplete | CopyIn | Error(57014 canceled)");
    // The server had not read it when it failed.
    rig.passes("Ready(I)");
    assert_eq!(
        rig.server.ledger,
        Ledger::Beyond,
        "no other session may get what may still come"
    );
}

#[test]
fn whatever_else_a_server_gets_while_it_reads_data_fails_the_copy() {
    for (message, sent) in [
        ("Bind(,a)", "Bind(,a)"),
        ("Parse(b,copy t from stdin)", "Parse(b,copy t from stdin)"),
        ("Close(S a)", "Close(S a)"),
        ("Describe(S a)", "Describe(S a)"),
        ("Query(select 1)", "Query(select 1)"),
    ] {
        let mut rig = with_copy();
        rig.send("Bind(,a) | Execute | Flush");
        rig.passes("BindComplete | CopyIn");
        assert_eq!(
            rig.stream(&format!("{message} | Execute | Sync")),
            format!("{sent} | Sync")
        );
        rig.passes("Error(08P01 unexpected message type) | Ready(I)");
        assert!(settled(&rig), "{message}");
        assert_eq!(rig.client.statement_count(), 1, "{message}");
    }
}

#[test]
fn data_that_nobody_reads_is_ignored() {
    let mut rig = Rig::new();
    let input = client_bytes("CopyData(0123456789)");
    let ready = |len| {
        Ok(Scan::Ready {
            portion: Portion::Ignored,
            len,
        })
    };
    assert_eq!(
        rig.client.scan(&input, ScanMode::Whole, &mut rig.tables),
        ready(input.len())
    );
    rig.client.skip_ignored(&input, input.len()).unwrap();
    assert!(!rig.client.is_in_mid_batch());
}

#[test]
fn data_that_nobody_reads_is_ignored_piece_by_piece() {
    let mut rig = Rig::new();
    let input = client_bytes("CopyData(0123456789) | CopyDone | Query(select 1)");
    let ready = |len| {
        Ok(Scan::Ready {
            portion: Portion::Ignored,
            len,
        })
    };
    assert_eq!(
        rig.client
            .scan(&input[..7], ScanMode::Whole, &mut rig.tables),
        ready(7)
    );
    rig.client.skip_ignored(&input[..7], 7).unwrap();
    assert!(rig.client.is_in_mid_batch());
    assert_eq!(
        rig.client
            .scan(&input[7..9], ScanMode::Whole, &mut rig.tables),
        ready(2)
    );
    rig.client.skip_ignored(&input[7..9], 2).unwrap();
    assert_eq!(
        rig.client
            .scan(&input[9..], ScanMode::Whole, &mut rig.tables),
        ready(6)
    );
    rig.client.skip_ignored(&input[9..], 6).unwrap();
    assert!(!rig.client.is_in_mid_batch());
    assert_eq!(
        rig.client
            .scan(&input[15..], ScanMode::Whole, &mut rig.tables),
        ready(5)
    );
    rig.client.skip_ignored(&input[15..], 5).unwrap();
    assert_eq!(rig.send("Query(select 1)"), "Query(select 1)");
}
