//! Prepared statements: what they are called on the server, and which messages about them never get there.

use pgweir_session::client::{Marks, ScanMode};
use pgweir_session::{ClientSession, ServerSession};

use crate::rig::{LIMITS, Rig, parameters};

#[test]
fn an_unnamed_statement_stays_unnamed_at_first_sight() {
    let mut rig = Rig::new();
    let batch = "Parse(,select 1) | Bind(,) | Describe(P ) | Execute | Sync";
    assert_eq!(rig.send(batch), batch);
    rig.passes(
        "ParseComplete | BindComplete | RowDescription(c) | Row(1) | Complete(SELECT 1) | Ready(I)",
    );
    // It is still there.
    assert_eq!(
        rig.send("Bind(,) | Execute | Sync"),
        "Bind(,) | Execute | Sync"
    );
}

#[test]
fn an_unnamed_statement_that_comes_again_is_named() {
    let mut rig = Rig::new();
    rig.send("Parse(,select 1) | Sync");
    rig.reply("ParseComplete | Ready(I)");
    rig.send("Parse(,select 2) | Sync");
    rig.reply("ParseComplete | Ready(I)");
    assert_eq!(
        rig.send("Parse(,select 1) | Bind(,) | Describe(S ) | Execute | Sync"),
        "Parse($0,select 1) | Bind(,$0) | Describe(S $0) | Execute | Sync"
    );
}

#[test]
fn an_unnamed_statement_that_is_still_there_is_not_sent_again() {
    let mut rig = Rig::new();
    rig.send("Parse(,select 1) | Sync");
    rig.reply("ParseComplete | Ready(I)");
    assert_eq!(
        rig.send("Parse(,select 1) | Bind(,) | Sync"),
        "Bind(,) | Sync"
    );
    assert_eq!(
        rig.reply("BindComplete | Ready(I)"),
        "ParseComplete | BindComplete | Ready(I)"
    );
}

#[test]
fn a_named_statement_is_called_by_its_text() {
    let mut rig = Rig::new();
    assert_eq!(
        rig.send("Parse(a,select $1) | Describe(S a) | Bind(p,a,x) | Execute(p) | Sync"),
        "Parse($0,select $1) | Describe(S $0) | Bind(p,$0,x) | Execute(p) | Sync"
    );
    rig.passes("ParseComplete | ParameterDescription | NoData | BindComplete | Complete(SELECT 0) | Ready(I)");
    assert_eq!(rig.client.statement_count(), 1);
    assert_eq!(
        rig.client.statement_text(b"a").as_deref(),
        Some(b"select $1".as_slice())
    );
}

#[test]
fn a_statement_that_the_server_has_is_not_prepared_again() {
    let mut rig = Rig::new();
    rig.prepare("a", "select 1");
    rig.next_client();
    assert_eq!(
        rig.send("Parse(other,select 1) | Bind(,other) | Execute | Sync"),
        "Bind(,$0) | Execute | Sync"
    );
    assert_eq!(
        rig.reply("BindComplete | Complete(SELECT 0) | Ready(I)"),
        "ParseComplete | BindComplete | Complete(SELECT 0) | Ready(I)"
    );
}

#[test]
fn a_statement_that_the_server_lacks_is_prepared_there_unseen() {
    let mut rig = Rig::new();
    rig.prepare("a", "select 1");
    rig.server = ServerSession::new(Vec::new(), 10);
    assert_eq!(
        rig.send("Bind(,a) | Execute | Describe(S a) | Sync"),
        "Parse($0,select 1) | Bind(,$0) | Execute | Describe(S $0) | Sync"
    );
    assert_eq!(rig.reply("ParseComplete | BindComplete"), "BindComplete");
    rig.passes("Complete(SELECT 0) | ParameterDescription | NoData | Ready(I)");
}

#[test]
fn an_error_of_an_unseen_parse_is_the_clients() {
    let mut rig = Rig::new();
    rig.prepare("a", "select 1");
    rig.server = ServerSession::new(Vec::new(), 10);
    rig.send("Bind(,a) | Execute | Sync");
    rig.passes("Error(42P01 relation \"t\" does not exist) | Ready(I)");
    assert!(rig.server.statements.is_empty());
    assert_eq!(
        rig.send("Bind(,a) | Sync"),
        "Parse($0,select 1) | Bind(,$0) | Sync"
    );
}

#[test]
fn replies_of_ours_keep_their_place_among_the_servers() {
    let mut rig = Rig::new();
    rig.prepare("a", "select 1");
    assert_eq!(
        rig.send("Describe(S a) | Close(S a) | Parse(a,select 1) | Bind(,a) | Close(P ) | Close(S a) | Sync"),
        "Describe(S $0) | Bind(,$0) | Close(P ) | Sync"
    );
    assert_eq!(rig.reply("ParameterDescription"), "ParameterDescription");
    assert_eq!(
        rig.reply("NoData"),
        "NoData | CloseComplete | ParseComplete"
    );
    assert_eq!(
        rig.reply("BindComplete | CloseComplete"),
        "BindComplete | CloseComplete | CloseComplete"
    );
    rig.passes("Ready(I)");
    assert_eq!(rig.client.statement_count(), 0);
}

#[test]
fn a_batch_of_which_nothing_but_sync_is_sent_is_answered_with_its_ready() {
    let mut rig = Rig::new();
    rig.prepare("a", "select 1");
    assert_eq!(rig.send("Parse(b,select 1) | Close(S a) | Sync"), "Sync");
    assert_eq!(
        rig.reply("Ready(T)"),
        "ParseComplete | CloseComplete | Ready(T)"
    );
}

#[test]
fn replies_of_ours_behind_flush_wait_for_nobody() {
    let mut rig = Rig::new();
    rig.prepare("a", "select 1");
    assert_eq!(rig.send("Parse(b,select 1) | Flush"), "Flush");
    assert!(rig.client.is_settled());
    let mut gather = pgweir_wire::Gather::new();
    rig.client.emit_due_fakes(&mut gather);
    assert_eq!(gather.len(), 5, "ParseComplete");
    assert!(rig.client.is_in_mid_batch());
    rig.stream("Sync");
    rig.passes("Ready(I)");
    assert!(!rig.client.is_in_mid_batch());
}

#[test]
fn a_name_that_is_taken_is_refused_in_the_servers_stead() {
    let mut rig = Rig::new();
    rig.prepare("a", "select 1");
    assert_eq!(
        rig.send("Parse(a,select 2) | Bind(,a) | Sync"),
        "Close(S pgweir_taken) | Parse(pgweir_taken,) | Parse(pgweir_taken,select 2) | Sync",
        "an error in the text comes first"
    );
    assert_eq!(
        rig.reply("CloseComplete | ParseComplete | Error(42P05 prepared statement \"pgweir_1_0\" already exists) | Ready(I)"),
        "Error(42P05 prepared statement \"a\" already exists) | Ready(I)"
    );
    // What the name stands for may not even be valid on this server, under these settings.
    assert_eq!(
        rig.send("Parse(a,select nonsense) | Sync"),
        "Close(S pgweir_taken) | Parse(pgweir_taken,) | Parse(pgweir_taken,select nonsense) | Sync"
    );
    assert_eq!(
        rig.reply("CloseComplete | ParseComplete | Error(42703 no such column) | Ready(I)"),
        "Error(42703 no such column) | Ready(I)"
    );
    assert_eq!(
        rig.client.statement_text(b"a").as_deref(),
        Some(b"select 1".as_slice())
    );
}

#[test]
fn a_name_that_is_closed_before_is_free() {
    let mut rig = Rig::new();
    rig.prepare("a", "select 1");
    assert_eq!(
        rig.send("Close(S a) | Parse(a,select 2) | Bind(,a) | Sync"),
        "Parse($1,select 2) | Bind(,$1) | Sync"
    );
    assert_eq!(
        rig.reply("ParseComplete | BindComplete | Ready(I)"),
        "CloseComplete | ParseComplete | BindComplete | Ready(I)"
    );
}

#[test]
fn a_missing_statement_fails_on_the_server_with_the_clients_name() {
    let mut rig = Rig::new();
    for (message, error) in [
        ("Bind(,nope)", "prepared statement \"nope\" does not exist"),
        (
            "Describe(S nope)",
            "prepared statement \"nope\" does not exist",
        ),
        ("Bind(,)", "unnamed prepared statement does not exist"),
    ] {
        assert_eq!(
            rig.send(&format!("{message} | Execute | Sync")),
            "Describe(S pgweir_missing) | Sync",
            "{message}, and nothing that would be skipped"
        );
        assert_eq!(
            rig.reply(
                "Error(26000 prepared statement \"pgweir_missing\" does not exist) | Ready(E)"
            ),
            format!("Error(26000 {error}) | Ready(E)")
        );
    }
}

#[test]
fn another_error_in_the_place_of_a_missing_statement_is_passed_on() {
    let mut rig = Rig::new();
    rig.send("Bind(,nope) | Sync");
    rig.passes("Error(57014 canceling statement due to user request) | Ready(I)");
}

#[test]
fn a_name_that_only_the_sessions_own_server_can_know_is_passed_on() {
    let mut rig = Rig::new();
    rig.client.set_owns_server(true);
    assert_eq!(
        rig.send("Describe(S q) | Bind(,q) | Sync"),
        "Describe(S q) | Bind(,q) | Sync"
    );
    rig.passes("ParameterDescription | NoData | BindComplete | Ready(I)");
    // Ours are nobody's to name.
    assert_eq!(
        rig.send("Bind(,$0) | Sync"),
        "Describe(S pgweir_missing) | Sync"
    );
}

#[test]
fn names_count_up_to_63_bytes() {
    let mut rig = Rig::new();
    let (long, longer) = ("n".repeat(63), "n".repeat(70));
    rig.prepare(&longer, "select 1");
    assert_eq!(
        rig.send(&format!("Bind(,{long}) | Sync")),
        "Bind(,$0) | Sync"
    );
    rig.reply("BindComplete | Ready(I)");
    rig.send(&format!("Close(S {longer}x) | Sync"));
    rig.reply("Ready(I)");
    assert_eq!(rig.client.statement_count(), 0);
}

#[test]
fn a_query_drops_the_unnamed_statement() {
    let mut rig = Rig::new();
    rig.send("Parse(,select 1) | Sync");
    rig.reply("ParseComplete | Ready(I)");
    rig.send("Query(select 2)");
    rig.reply("Complete(SELECT 0) | Ready(I)");
    assert_eq!(
        rig.send("Bind(,) | Sync"),
        "Describe(S pgweir_missing) | Sync"
    );
}

#[test]
fn a_query_drops_an_unnamed_statement_that_is_on_its_way() {
    let mut rig = Rig::new();
    rig.send("Parse(,select 1) | Sync");
    rig.send("Query(select 2)");
    rig.reply("ParseComplete | Ready(I) | Complete(SELECT 0) | Ready(I)");
    assert_eq!(
        rig.send("Bind(,) | Sync"),
        "Describe(S pgweir_missing) | Sync"
    );
}

#[test]
fn a_parse_that_fails_drops_the_unnamed_statement() {
    let mut rig = Rig::new();
    rig.send("Parse(,select 1) | Sync");
    rig.reply("ParseComplete | Ready(I)");
    rig.send("Parse(,selec) | Sync");
    rig.passes("Error(42601 syntax error) | Ready(I)");
    assert_eq!(
        rig.send("Bind(,) | Sync"),
        "Describe(S pgweir_missing) | Sync"
    );
}

#[test]
fn nothing_is_closed_at_the_limit_and_one_beyond_it() {
    let mut rig = Rig::with(LIMITS, 2);
    rig.prepare("a", "select 1");
    rig.prepare("b", "select 2");
    assert_eq!(rig.server.statements.len(), 2);
    rig.lease(0);
    assert_eq!(
        rig.send("Parse(c,select 3) | Sync"),
        "Close(S $0) | Parse($2,select 3) | Sync"
    );
    assert_eq!(
        rig.reply("CloseComplete | ParseComplete | Ready(I)"),
        "ParseComplete | Ready(I)"
    );
    assert_eq!(rig.server.statements.len(), 2);
    // The client still has it: it comes back when it is used.
    assert_eq!(
        rig.send("Bind(,a) | Sync"),
        "Close(S $1) | Parse($0,select 1) | Bind(,$0) | Sync"
    );
    assert_eq!(
        rig.reply("CloseComplete | ParseComplete | BindComplete | Ready(I)"),
        "BindComplete | Ready(I)"
    );
}

#[test]
fn the_least_recently_used_statement_gives_way() {
    let mut rig = Rig::with(LIMITS, 2);
    rig.prepare("a", "select 1");
    rig.prepare("b", "select 2");
    rig.send("Bind(,a) | Sync");
    rig.reply("BindComplete | Ready(I)");
    rig.lease(0);
    assert_eq!(
        rig.send("Parse(c,select 3) | Sync"),
        "Close(S $1) | Parse($2,select 3) | Sync"
    );
}

#[test]
fn a_statement_that_the_session_has_used_since_it_has_the_server_is_never_closed() {
    let mut rig = Rig::with(LIMITS, 2);
    rig.prepare("a", "select 1");
    rig.prepare("b", "select 2");
    rig.lease(0);
    rig.send("Bind(p,a) | Bind(q,b) | Sync");
    rig.reply("BindComplete | BindComplete | Ready(T)");
    assert_eq!(
        rig.send("Parse(c,select 3) | Sync"),
        "Parse($2,select 3) | Sync"
    );
    rig.passes("ParseComplete | Ready(T)");
    assert_eq!(rig.server.statements.len(), 3);
    // The next session brings the list back to its limit.
    rig.next_client();
    rig.lease(0);
    assert_eq!(
        rig.send("Parse(d,select 4) | Sync"),
        "Close(S $0) | Close(S $1) | Parse($3,select 4) | Sync"
    );
}

#[test]
fn deallocate_all_is_known_by_its_tag() {
    for command in ["DEALLOCATE ALL", "DISCARD ALL"] {
        let mut rig = Rig::new();
        rig.prepare("a", "select 1");
        rig.send(&format!("Query({command})"));
        rig.passes(&format!("Complete({command}) | Ready(I)"));
        assert_eq!(rig.client.statement_count(), 0, "{command}");
        assert!(rig.server.statements.is_empty(), "{command}");
        assert_eq!(
            rig.send("Bind(,a) | Sync"),
            "Describe(S pgweir_missing) | Sync",
            "{command}"
        );
    }
}

#[test]
fn what_stands_behind_deallocate_all_waits_until_it_is_known_to_have_succeeded() {
    let mut rig = Rig::new();
    rig.prepare("a", "select 1");
    rig.send("Query(deallocate all)");
    rig.scan("Parse(b,select 1) | Sync", ScanMode::Whole)
        .unwrap();
    assert!(rig.client.must_wait());
    rig.client.drop_batch();
    rig.reply("Complete(DEALLOCATE ALL) | Ready(I)");
    assert_eq!(
        rig.send("Parse(b,select 1) | Sync"),
        "Parse($0,select 1) | Sync"
    );
}

#[test]
fn a_batch_in_parts_that_makes_the_server_forget_is_waited_for_as_well() {
    let mut rig = Rig::new();
    rig.stream("Parse(,deallocate all) | Bind(,)");
    rig.stream("Execute | Sync");
    rig.scan("Parse(,select 1) | Sync", ScanMode::Whole)
        .unwrap();
    assert!(rig.client.must_wait());
}

#[test]
fn an_unnamed_statement_behind_deallocate_all_is_not_taken_for_a_named_one() {
    let mut rig = Rig::new();
    rig.send("Parse(,deallocate all) | Bind(,) | Execute | Parse(,select 1) | Sync");
    rig.reply("ParseComplete | BindComplete | Complete(DEALLOCATE ALL) | ParseComplete | Ready(I)");
    assert!(rig.server.statements.is_empty());
}

#[test]
fn a_statement_deallocated_by_sql_is_gone_if_the_protocol_made_it() {
    let mut rig = Rig::new();
    rig.prepare("a", "select 1");
    rig.scan("Query(deallocate a)", ScanMode::Whole).unwrap();
    assert_eq!(rig.client.facts().local_statements, 1);
    rig.client.drop_batch();
    assert!(rig.client.deallocate(b"a"));
    assert!(!rig.client.deallocate(b"a"));
}

#[test]
fn a_batch_waits_if_its_names_depend_on_how_an_earlier_one_ends() {
    for (before, batch, depends) in [
        ("Parse(b,select 2) | Sync", "Bind(,b) | Sync", true),
        ("Parse(b,select 2) | Sync", "Describe(S b) | Sync", true),
        ("Parse(b,select 2) | Sync", "Parse(b,select 3) | Sync", true),
        // It is not known whether the text will be on the server.
        ("Parse(b,select 2) | Sync", "Parse(c,select 2) | Sync", true),
        ("Close(S a) | Sync", "Bind(,a) | Sync", true),
        (
            "Query(select 2)",
            "Parse(,select 4) | Bind(,) | Sync",
            false,
        ),
        (
            "Parse(b,select 2) | Sync",
            "Bind(,a) | Execute | Sync",
            false,
        ),
        (
            "Parse(b,select 2) | Sync",
            "Parse(c,select 3) | Bind(,c) | Sync",
            false,
        ),
        ("Parse(b,select 2) | Sync", "Query(select 3)", false),
    ] {
        let mut rig = Rig::new();
        rig.prepare("a", "select 1");
        rig.send(before);
        rig.scan(batch, ScanMode::Whole).unwrap();
        assert_eq!(rig.client.must_wait(), depends, "{before}, then {batch}");
    }
}

#[test]
fn within_one_batch_names_are_known_before_they_are_answered() {
    let mut rig = Rig::new();
    assert_eq!(
        rig.send("Parse(a,select 1) | Bind(,a) | Close(S a) | Bind(,a) | Sync"),
        "Parse($0,select 1) | Bind(,$0) | Describe(S pgweir_missing) | Sync"
    );
}

#[test]
fn a_parse_that_a_server_has_accepted_needs_no_server() {
    let mut rig = Rig::new();
    let needs_server = |rig: &mut Rig, batch: &str| {
        rig.scan(batch, ScanMode::Whole).unwrap();
        let needs = rig.client.facts().marks.has(Marks::NEEDS_SERVER);
        rig.client.drop_batch();
        needs
    };
    assert!(
        needs_server(&mut rig, "Parse(a,select 1) | Sync"),
        "nobody has accepted it"
    );
    rig.prepare("a", "select 1");
    assert!(!needs_server(
        &mut rig,
        "Parse(b,select 1) | Close(S a) | Sync"
    ));
    assert!(
        needs_server(&mut rig, "Parse(a,select 1) | Sync"),
        "the name is taken"
    );
    assert!(
        needs_server(&mut rig, "Parse(b,select 1) | Parse(b,select 1) | Sync"),
        "the name is taken by then"
    );
    assert!(needs_server(
        &mut rig,
        "Parse(b,select 1) | Describe(S b) | Sync"
    ));
    rig.tables.epoch = 1;
    assert!(
        needs_server(&mut rig, "Parse(b,select 1) | Sync"),
        "the schema has changed"
    );
    rig.tables.epoch = 0;
    rig.client = ClientSession::new(LIMITS, parameters(&[("search_path", "x")]), 2);
    assert!(
        needs_server(&mut rig, "Parse(b,select 1) | Sync"),
        "it may mean something else there"
    );
}

#[test]
fn what_needs_no_server_is_answered_in_order() {
    let mut rig = Rig::new();
    rig.prepare("a", "select 1");
    assert_eq!(
        rig.answer("Close(P x) | Parse(b,select 1) | Close(S a) | Sync"),
        "CloseComplete | ParseComplete | CloseComplete | Ready(I)"
    );
    assert_eq!(rig.client.statement_count(), 1);
    assert_eq!(rig.send("Bind(,b) | Sync"), "Bind(,$0) | Sync");
}
