//! Errors that are no answer to a batch: which they are, by what is watched, and what the machines do about them.

use pgweir_session::{Refusal, ReplyEvent, Watch};
use pgweir_wire::HEADER_LEN;
use pgweir_wire::backend::ErrorResponse;

use crate::notation::{server_bytes, show_server};
use crate::rig::{GUARDED, Rig};

/// An ErrorResponse with the place in the source that raised it.
fn error(severity: &str, code: &str, message: &str, routine: &str) -> Vec<u8> {
    let mut body = Vec::new();
    let fields = [
        (b'S', severity),
        (b'V', severity),
        (b'C', code),
        (b'M', message),
        (b'R', routine),
    ];
    for (field, text) in fields {
        body.push(field);
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap();
    let mut message = vec![b'E'];
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(&body);
    message
}

fn stale_plan() -> Vec<u8> {
    error(
        "ERROR",
        "0A000",
        "im Cache gehaltener Plan",
        "RevalidateCachedQuery",
    )
}

fn refusal(watch: Watch, bytes: &[u8]) -> Option<Refusal> {
    watch.refusal(&ErrorResponse::decode(&bytes[HEADER_LEN..]).unwrap())
}

#[test]
fn what_a_replica_suffers_is_told_from_what_the_statement_does() {
    let conflict = "canceling statement due to conflict with recovery";
    let by_user = "canceling statement due to user request";
    for (code, message, routine, expected) in [
        ("40001", conflict, "ProcessInterrupts", Some(Refusal::Fault)),
        (
            "40001",
            "storniere Anfrage",
            "ProcessRecoveryConflictInterrupt",
            Some(Refusal::Fault),
        ),
        ("40001", "could not serialize access", "heap_update", None),
        ("40001", conflict, "exec_stmt_raise", None),
        ("40P01", conflict, "ProcessInterrupts", Some(Refusal::Fault)),
        (
            "40P01",
            "deadlock detected",
            "DeadLockReport",
            Some(Refusal::Fault),
        ),
        ("40P01", "mine", "exec_stmt_raise", None),
        (
            "57014",
            by_user,
            "ProcessInterrupts",
            Some(Refusal::Canceled),
        ),
        (
            "57014",
            "canceling statement due to statement timeout",
            "ProcessInterrupts",
            None,
        ),
        ("57P01", "bye", "", Some(Refusal::Fault)),
        ("57P02", "bye", "", Some(Refusal::Fault)),
        ("57P03", "bye", "", Some(Refusal::Fault)),
        ("57P01", "mine", "exec_stmt_raise", None),
        ("22012", "division by zero", "int4div", None),
        ("42703", "column does not exist", "", Some(Refusal::Behind)),
        (
            "0A000",
            "auf Deutsch",
            "get_relation_info",
            Some(Refusal::Recovery),
        ),
        (
            "55000",
            "auf Deutsch",
            "LockAcquireExtended",
            Some(Refusal::Recovery),
        ),
    ] {
        let bytes = error("ERROR", code, message, routine);
        assert_eq!(refusal(Watch::Read, &bytes), expected, "{code} {message}");
        // Nobody vouches that it only reads: what may have had an effect is not repeated.
        let unvouched =
            expected.filter(|refusal| matches!(refusal, Refusal::Recovery | Refusal::Behind));
        assert_eq!(
            refusal(Watch::Unvouched, &bytes),
            unvouched,
            "{code} {message}"
        );
        assert_eq!(refusal(Watch::Plan, &bytes), None, "{code} {message}");
    }
    let last = error("FATAL", "57P05", "idle session timeout", "");
    assert_eq!(refusal(Watch::Read, &last), Some(Refusal::Fault));
    assert_eq!(refusal(Watch::Plan, &last), None);
    for watch in [Watch::Read, Watch::Unvouched, Watch::Plan] {
        assert_eq!(refusal(watch, &stale_plan()), Some(Refusal::StalePlan));
    }
}

/// A session that has prepared `a`, and runs it again.
fn running(watch: Watch) -> Rig {
    let mut rig = Rig::new();
    rig.prepare("a", "select 1");
    rig.send("Bind(,a) | Execute | Sync");
    assert!(rig.client.uses_old_plan());
    rig.client.watch(watch);
    rig
}

fn event(rig: &mut Rig, replies: &[u8]) -> (ReplyEvent, String) {
    let (received, out) = rig.receive(replies).unwrap();
    (received.event, show_server(&out))
}

#[test]
fn a_stale_plan_is_replaced_under_its_name() {
    for watch in [Watch::Plan, Watch::Read] {
        let mut rig = running(watch);
        let replies = [stale_plan(), server_bytes("Ready(I)")].concat();
        let (received, out) = rig.receive(&replies).unwrap();
        assert_eq!(
            (received.consumed, received.event, out.len()),
            (0, ReplyEvent::Replay(Refusal::StalePlan), 0)
        );
        rig.server.distrust_statements();
        rig.client.abandon_replies(&mut rig.server);
        assert_eq!(event(&mut rig, &replies), (ReplyEvent::None, String::new()));
        assert!(rig.client.is_settled());
        assert_eq!(
            rig.send("Bind(,a) | Execute | Sync"),
            "Close(S $0) | Parse($0,select 1) | Bind(,$0) | Execute | Sync"
        );
        assert_eq!(
            rig.reply("CloseComplete | ParseComplete | BindComplete | Row(1) | Complete(SELECT 1) | Ready(I)"),
            "BindComplete | Row(1) | Complete(SELECT 1) | Ready(I)"
        );
        assert_eq!(
            rig.send("Bind(,a) | Execute | Sync"),
            "Bind(,$0) | Execute | Sync"
        );
    }
}

#[test]
fn what_has_begun_to_run_on_the_primary_is_not_run_again() {
    for result in ["Row(1)", "Complete(INSERT 0 1)", "Notice(hm)", "CopyIn"] {
        let mut rig = running(Watch::Plan);
        let replies = [
            server_bytes(&format!("BindComplete | {result}")),
            stale_plan(),
        ]
        .concat();
        let (event, out) = event(&mut rig, &replies);
        assert_eq!(event, ReplyEvent::None, "{result}");
        assert!(out.contains(result), "{out}");
    }
}

#[test]
fn an_error_of_the_statement_itself_is_passed_on_where_plans_are_watched() {
    let mut rig = running(Watch::Plan);
    rig.passes("BindComplete | Error(23505 duplicate key) | Ready(I)");
    assert!(rig.client.is_settled());
}

#[test]
fn a_batch_that_prepares_all_it_runs_uses_no_old_plan() {
    let mut rig = Rig::new();
    rig.send("Parse(,select 1) | Bind(,) | Execute | Sync");
    assert!(!rig.client.uses_old_plan());
    rig.reply("ParseComplete | BindComplete | Row(1) | Complete(SELECT 1) | Ready(I)");
    // Prepared in an earlier batch, under no name.
    rig.send("Bind(,) | Execute | Sync");
    assert!(rig.client.uses_old_plan());
    rig.reply("BindComplete | Row(1) | Complete(SELECT 1) | Ready(I)");
    rig.send("Query(select 1)");
    assert!(!rig.client.uses_old_plan());
}

#[test]
fn a_client_that_prepares_while_the_schema_changes_gets_a_fresh_plan() {
    let mut rig = Rig::new();
    let run = "Parse(,select 1) | Bind(,) | Execute | Sync";
    let results = "BindComplete | Row(1) | Complete(SELECT 1)";
    rig.prepare("a", "select 1");
    rig.send(run);
    rig.reply(&format!("{results} | Ready(I)"));
    let fresh = "Close(S $0) | Parse($0,select 1) | Bind(,$0) | Execute | Sync";
    rig.send("Query(begin)");
    rig.reply("Complete(BEGIN) | Ready(T)");
    rig.send("Query(alter table t add c int)");
    rig.reply("Complete(ALTER TABLE) | Ready(T)");
    // Any of them may have been followed by a change that was undone.
    for _ in 0..2 {
        assert_eq!(rig.send(run), fresh);
        rig.reply(&format!(
            "CloseComplete | ParseComplete | {results} | Ready(T)"
        ));
    }
    rig.send("Query(rollback)");
    rig.reply("Complete(ROLLBACK) | Ready(I)");
    assert_eq!(rig.send(run), fresh);
    rig.reply(&format!(
        "CloseComplete | ParseComplete | {results} | Ready(I)"
    ));
    assert_eq!(rig.send(run), "Bind(,$0) | Execute | Sync");
}

#[test]
fn replies_of_ours_do_not_slip_past_while_it_is_undecided() {
    let mut rig = Rig::new();
    rig.prepare("a", "select 1");
    rig.prepare("b", "select 2");
    assert_eq!(rig.lease(1), format!("Query(DEALLOCATE ALL;{GUARDED}"));
    // The Close is answered by us, behind what we asked for and before what the batch asks for.
    assert_eq!(
        rig.send("Close(S a) | Bind(,b) | Execute | Sync"),
        "Parse($1,select 2) | Bind(,$1) | Execute | Sync"
    );
    rig.client.watch(Watch::Read);
    let ours = "Complete(DEALLOCATE ALL) | Complete(PREPARE) | Ready(I) | ParameterDescription | \
                RowDescription(c) | CloseComplete";
    let replies = server_bytes(&format!("{ours} | ParseComplete | BindComplete"));
    let (received, out) = rig.receive(&replies).unwrap();
    assert_eq!(show_server(&out), "");
    assert_eq!(received.consumed, server_bytes(ours).len());
    assert_eq!(
        rig.reply("ParseComplete | BindComplete | Row(1) | Complete(SELECT 1) | Ready(I)"),
        "CloseComplete | BindComplete | Row(1) | Complete(SELECT 1) | Ready(I)"
    );
}

#[test]
fn the_last_words_of_a_server_that_has_not_got_to_the_batch_are_not_the_clients() {
    let mut rig = Rig::new();
    rig.prepare("a", "select 1");
    // The schema has changed since: our own DEALLOCATE ALL stands in front.
    assert_eq!(rig.lease(1), format!("Query(DEALLOCATE ALL;{GUARDED}"));
    rig.send("Bind(,a) | Execute | Sync");
    rig.client.watch(Watch::Read);
    let goodbye = error("FATAL", "57P01", "terminating connection", "");
    assert_eq!(event(&mut rig, &goodbye), (ReplyEvent::None, String::new()));
    assert!(rig.client.is_watching_read(), "it may run elsewhere");
    assert!(!rig.server.has_said_farewell());
}

#[test]
fn it_is_known_whether_the_client_has_heard_the_servers_last_words() {
    let mut rig = Rig::new();
    rig.send("Query(select 1)");
    rig.passes("Row(1)");
    let goodbye = error("FATAL", "57P01", "terminating connection", "");
    let (event, out) = event(&mut rig, &goodbye);
    assert_eq!(event, ReplyEvent::None);
    assert!(out.contains("57P01"));
    assert!(rig.server.has_said_farewell());
}

#[test]
fn a_server_that_goes_behind_an_answer_takes_nothing_of_it() {
    let mut rig = Rig::new();
    rig.send("Query(select 1)");
    rig.client.watch(Watch::Read);
    let goodbye = error("FATAL", "57P01", "terminating connection", "");
    let answer = "Row(1) | Complete(SELECT 1) | Ready(I)";
    let replies = [server_bytes(answer), goodbye].concat();
    assert_eq!(
        event(&mut rig, &replies),
        (ReplyEvent::None, answer.to_owned())
    );
    assert!(rig.client.is_settled());
    assert!(rig.server.is_leaving());
}
