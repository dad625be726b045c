//! A server's replies: whose they are, in whatever pieces they come.

use pgweir_session::Violation;
use pgweir_session::client::ScanMode;

use crate::notation::{client_bytes, row, row_description, server_bytes, show_server};
use crate::rig::Rig;

#[test]
fn a_reply_that_nobody_owns_is_a_violation() {
    for reply in [
        "ParseComplete",
        "BindComplete",
        "CloseComplete",
        "ParameterDescription",
        "RowDescription(c)",
        "NoData",
        "Row(1)",
        "Complete(SELECT 1)",
        "Empty",
        "Suspended",
        "CopyIn",
        "CopyOut",
        "CopyData(x)",
        "CopyDone",
        "Result(1)",
        "Ready(I)",
    ] {
        let tag = server_bytes(reply)[0];
        let mut rig = Rig::new();
        assert_eq!(
            rig.violates(reply),
            Violation::UnownedReply { tag },
            "{reply}, nothing due"
        );
    }
}

#[test]
fn a_reply_of_the_wrong_kind_is_a_violation() {
    for (request, reply) in [
        ("Parse(,x) | Sync", "BindComplete"),
        ("Parse(,x) | Sync", "Row(1)"),
        ("Parse(,x) | Sync", "Ready(I)"),
        ("Describe(P ) | Sync", "ParameterDescription"),
        ("Describe(P ) | Sync", "CopyIn"),
        ("Close(P ) | Sync", "ParseComplete"),
        ("Execute | Sync", "Result(1)"),
        ("Execute | Sync", "Ready(I)"),
        ("Query(x)", "Suspended"),
        ("Query(x)", "NoData"),
        ("Call", "Complete(X)"),
        ("Sync", "Complete(X)"),
    ] {
        let mut rig = Rig::new();
        rig.stream(request);
        let tag = server_bytes(reply)[0];
        assert_eq!(
            rig.violates(reply),
            Violation::UnownedReply { tag },
            "{request}: {reply}"
        );
    }
}

#[test]
fn each_request_gets_its_replies() {
    for (request, reply) in [
        (
            "Query(x)",
            "RowDescription(c) | Row(1) | Row(2) | Complete(SELECT 2) | Complete(SET) | Ready(I)",
        ),
        ("Query()", "Empty | Ready(I)"),
        ("Call", "Result(7) | Ready(I)"),
        ("Call", "Error(42883 no such function) | Ready(I)"),
        (
            "Execute(p,2) | Execute(p) | Sync",
            "Row(1) | Row(2) | Suspended | Row(3) | Complete(SELECT 1) | Ready(T)",
        ),
        ("Execute | Sync", "Empty | Ready(I)"),
        (
            "Describe(P p) | Close(P p) | Sync",
            "RowDescription(c) | CloseComplete | Ready(T)",
        ),
        ("Sync", "Ready(E)"),
    ] {
        let mut rig = Rig::new();
        assert_eq!(rig.stream(request), request);
        assert!(!rig.client.is_settled(), "{request}");
        rig.passes(reply);
        assert!(
            rig.client.is_settled() && !rig.client.is_in_mid_batch(),
            "{request}"
        );
    }
}

#[test]
fn a_query_amid_extended_messages_is_answered_and_ends_them() {
    let mut rig = Rig::new();
    assert_eq!(rig.stream("Parse(,x) | Bind(,)"), "Parse(,x) | Bind(,)");
    assert!(rig.client.is_in_mid_batch());
    rig.stream("Query(select 1)");
    assert!(
        rig.client.is_in_mid_batch(),
        "an error before it would have it skipped"
    );
    rig.passes("ParseComplete | BindComplete | Complete(SELECT 1) | Ready(I)");
    assert!(!rig.client.is_in_mid_batch());
}

#[test]
fn a_query_behind_a_failed_message_is_skipped() {
    let mut rig = Rig::new();
    rig.stream("Parse(,selec) | Query(select 1)");
    rig.passes("Error(42601 syntax error)");
    assert!(rig.client.is_settled() && rig.client.is_in_mid_batch());
    rig.stream("Sync");
    rig.passes("Ready(I)");
    assert!(!rig.client.is_in_mid_batch());
}

#[test]
fn notices_notifications_and_parameters_may_come_at_any_time() {
    let mut rig = Rig::new();
    let asynchronous = "Notice(hm) | Notification(ch) | Status(TimeZone=UTC)";
    rig.passes(asynchronous);
    rig.send("Parse(,x) | Bind(,) | Execute | Sync");
    for reply in [
        "ParseComplete",
        "BindComplete",
        "Row(1)",
        "Complete(SELECT 1)",
        "Ready(I)",
    ] {
        rig.passes(asynchronous);
        rig.passes(reply);
    }
    rig.passes("Status(TimeZone=CET)");
    assert_eq!(rig.server.reported(), [("TimeZone".into(), "CET".into())]);
}

#[test]
fn a_flush_is_answered_by_what_stands_before_it() {
    let mut rig = Rig::new();
    assert_eq!(
        rig.send("Parse(a,x) | Describe(S a) | Flush"),
        "Parse($0,x) | Describe(S $0) | Flush"
    );
    rig.passes("ParseComplete | ParameterDescription | NoData");
    assert!(rig.client.is_settled() && rig.client.is_in_mid_batch());
    assert_eq!(
        rig.stream("Bind(,a) | Execute | Sync"),
        "Bind(,$0) | Execute | Sync"
    );
    rig.passes("BindComplete | Complete(X) | Ready(I)");
    assert!(!rig.client.is_in_mid_batch());
}

#[test]
fn replies_may_be_cut_anywhere() {
    let replies = "ParseComplete | BindComplete | RowDescription(c) | Notice(hm) | Row(1) | Row(2) | Complete(SELECT 2) | \
                   Status(a=b) | Ready(I)";
    let input = server_bytes(replies);
    for cut in 0..=input.len() {
        let mut rig = Rig::new();
        rig.prepare("a", "select 1");
        rig.send("Close(S a) | Parse(,x) | Bind(,) | Describe(P ) | Execute | Sync");
        let (first, mut out) = rig.receive(&input[..cut]).unwrap();
        let (second, more) = rig.receive(&input[first.consumed..]).unwrap();
        assert_eq!(first.consumed + second.consumed, input.len());
        out.extend(more);
        assert_eq!(
            show_server(&out),
            format!("CloseComplete | {replies}"),
            "cut at {cut}"
        );
        assert!(rig.client.is_settled() && rig.server.is_between_messages());
    }
}

#[test]
fn a_large_row_passes_through_in_pieces_and_a_small_one_does_not() {
    for (size, passes) in [(1000, false), (100_000, true)] {
        let mut rig = Rig::new();
        rig.send("Query(x)");
        let mut input = Vec::new();
        row(&vec![b'x'; size], &mut input);
        let (first, mut out) = rig.receive(&input[..500]).unwrap();
        assert_eq!(first.consumed, if passes { 500 } else { 0 });
        assert_eq!(
            (out.len(), rig.server.is_reply_cut()),
            (first.consumed, passes)
        );
        let (second, more) = rig.receive(&input[first.consumed..]).unwrap();
        assert_eq!(first.consumed + second.consumed, input.len());
        out.extend(more);
        assert!(out == input && !rig.server.is_reply_cut());
    }
}

#[test]
fn nothing_of_ours_goes_between_the_pieces_of_a_reply() {
    let mut rig = Rig::new();
    rig.prepare("a", "select wide");
    rig.send("Describe(S a) | Close(S a) | Flush");
    rig.reply("ParameterDescription");
    let mut input = Vec::new();
    row_description(&["a column of a wide table"; 300], &mut input);
    let (first, mut out) = rig.receive(&input[..9000]).unwrap();
    assert_eq!((first.consumed, out.len()), (9000, 9000));
    assert!(!rig.client.is_settled());
    // Not even what the client asks for only now.
    rig.stream("Close(S a) | Flush");
    let (_, more) = rig.receive(&input[9000..]).unwrap();
    out.extend(more);
    assert_eq!(
        show_server(&out),
        "RowDescription(a column of a wide table) | CloseComplete | CloseComplete"
    );
}

#[test]
fn a_large_reply_that_nobody_gets_is_passed_over_in_pieces() {
    let mut rig = Rig::new();
    rig.send("Query(x)");
    rig.client.abandon_replies(&mut rig.server);
    let mut input = Vec::new();
    row(&vec![b'x'; 100_000], &mut input);
    input.extend(server_bytes("Complete(SELECT 1) | Ready(I)"));
    for piece in input.chunks(30_000) {
        let (received, out) = rig.receive(piece).unwrap();
        assert_eq!((received.consumed, out.len()), (piece.len(), 0));
        assert!(!rig.server.is_reply_cut());
    }
    assert!(rig.client.is_settled());
}

#[test]
fn a_reply_with_an_impossible_length_is_a_violation() {
    let mut rig = Rig::new();
    rig.send("Query(x)");
    assert!(matches!(
        rig.receive(b"D\0\0\0\x03"),
        Err(Violation::Decode(_))
    ));
}

#[test]
fn what_is_passed_on_in_mid_stream_is_what_came() {
    let mut rig = Rig::new();
    let input = client_bytes("Query(select 1)");
    let (taken, sent) = rig.send_bytes(&input, ScanMode::Stream);
    assert_eq!((taken, sent), (input.len(), input));
}
