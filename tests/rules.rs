//! The operator's `[[rules]]` on a real cluster: where they send statements, and how the blocked ones fail.

use std::fs;

use pgweir_testkit::{Answer, Client, append_execute, eventually, patience};
use pgweir_wire::backend::field;
use pgweir_wire::{TransactionStatus, frontend};

use crate::support::{assert_ours, cluster, config, last_route, login, ok, value};
use crate::words::{explained, ready, route_row, sqlstate};

/// Four rules: by fingerprint, by table and kind, by application, and for everybody.
fn with_rules(config: &str) -> String {
    format!(
        "{config}\n\
         [[rules]]\nname = 'wall'\nmatch = {{ tables = ['words_secrets'] }}\naction.block = 'words_secrets is closed'\n\
         [[rules]]\nname = 'shape'\nmatch = {{ fingerprint = '{shape}' }}\naction.route = 'primary'\n\
         [[rules]]\nname = 'pattern'\nmatch = {{ regex = '^select 0 as slow$', user = 'app', database = 'app' }}\naction.route = 'replica2'\n\
         [[rules]]\nname = 'reports'\nmatch = {{ application = 'reports' }}\naction = {{ route = 'replica', consistency = 'eventual' }}\n",
        shape = "02fb795a1a5a98a5",
    )
}

#[test]
fn rules_route_by_statement_and_by_client() {
    let (proxy, mut client) = ready(&with_rules(&config(cluster())));
    for (sql, expected) in [
        ("SELECT 17", "primary (rule)"),
        ("SELECT 1 AS a", "replica (read)"),
        ("SELECT 1 AS slow", "replica (rule)"),
        ("/* pgweir: route=replica */ SELECT 1", "replica (hint)"),
    ] {
        ok(&mut client, sql);
        assert_eq!(last_route(&mut client), expected, "{sql}");
        let answer = client.execute(sql, &[]).expect(sql);
        assert_eq!(answer.error(), None);
        assert_eq!(last_route(&mut client), expected, "{sql}");
    }
    assert_eq!(
        route_row(&mut client, "SELECT 2"),
        "primary | rule | primary"
    );
    let rows = explained(&mut client, "SELECT 2 AS slow").join("\n");
    assert!(
        rows.contains("rule | route = replica2 | rule | rule \"pattern\"\n"),
        "{rows}"
    );
    // The session's own setting stands above.
    ok(&mut client, "SET pgweir.route = 'replica'");
    ok(&mut client, "SELECT 17");
    assert_eq!(last_route(&mut client), "replica (session_setting)");

    let reports = login().parameter("application_name", "reports");
    let mut reports = Client::open(proxy.addr(), &reports).expect("a login");
    ok(&mut reports, "SELECT inet_server_port()");
    assert_eq!(last_route(&mut reports), "replica (rule)");
    let answer = reports
        .query("CREATE TABLE words_r (a int)")
        .expect("an answer");
    assert_ours(answer.error().expect("an error"), "25006", "ERROR");
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one conversation, of which each step needs the one before"
)]
fn what_a_rule_blocks_fails_as_postgresql_would_fail_it() {
    let (_proxy, mut client) = ready(&with_rules(&config(cluster())));
    let blocked = "SELECT * FROM words_secrets";
    let check = |client: &mut Client, answer: &Answer, status: TransactionStatus| {
        let error = answer.error().expect("an error");
        assert_ours(error, "42501", "ERROR");
        let message = error.error_field(field::MESSAGE).unwrap_or_default();
        assert_eq!(message, "pgweir: words_secrets is closed");
        let detail = error.error_field(field::DETAIL).unwrap_or_default();
        assert!(detail.contains("\"wall\""), "{detail}");
        assert_eq!(client.status(), status);
    };
    let idle = TransactionStatus::Idle;
    let answer = client.query(blocked).expect("an answer");
    check(&mut client, &answer, idle);
    let answer = client.execute(blocked, &[]).expect("an answer");
    check(&mut client, &answer, idle);
    let answer = client
        .query("SELECT 1; DELETE FROM words_secrets")
        .expect("an answer");
    check(&mut client, &answer, idle);
    // In a transaction: held back, reading on a replica, writing on the primary.
    let failed = TransactionStatus::Failed;
    for begin in [
        "BEGIN",
        "BEGIN; SELECT 1",
        "BEGIN; CREATE TEMP TABLE words_b (a int)",
    ] {
        for is_extended in [false, true] {
            ok(&mut client, begin);
            if begin == "BEGIN" {
                ok(&mut client, "SELECT 1");
            }
            let answer = match is_extended {
                true => client.execute(blocked, &[]),
                false => client.query(blocked),
            };
            let answer = answer.expect("an answer");
            check(&mut client, &answer, failed);
            assert_eq!(sqlstate(&mut client, "SELECT 1"), "25P02", "{begin}");
            ok(&mut client, "ROLLBACK");
        }
    }
    ok(&mut client, "BEGIN");
    let answer = client.query(blocked).expect("an answer");
    check(&mut client, &answer, failed);
    ok(&mut client, "ROLLBACK");
    // Behind a savepoint the transaction goes on.
    ok(&mut client, "BEGIN");
    ok(&mut client, "CREATE TEMP TABLE words_s (a int)");
    ok(&mut client, "SAVEPOINT a");
    let answer = client.query(blocked).expect("an answer");
    check(&mut client, &answer, failed);
    ok(&mut client, "ROLLBACK TO a");
    ok(&mut client, "SELECT * FROM words_s");
    ok(&mut client, "ROLLBACK");
    // A Flush in the middle: the error comes, the rest up to Sync is skipped, and the session goes on.
    let mut out = Vec::new();
    append_execute(&mut out, blocked, &[]);
    frontend::Flush.encode(&mut out);
    client.send(&out).expect("sent");
    let answer = client.until(b'E').expect("an error");
    assert_eq!(answer.sqlstate().as_deref(), Some("42501"));
    out.clear();
    append_execute(&mut out, "SELECT 1", &[]);
    frontend::Sync.encode(&mut out);
    client.send(&out).expect("sent");
    assert_eq!(
        client.until_ready().expect("an answer").names(),
        ["ReadyForQuery"]
    );
    assert_eq!(value(&mut client, "SELECT 5"), "5");
    assert!(
        route_row(&mut client, blocked).starts_with("primary | rule | refused (42501): "),
        "EXPLAIN ROUTE of a blocked statement"
    );
}

#[test]
fn a_blocked_statement_in_a_pipeline_fails_its_own_batch_alone() {
    let (_proxy, mut client) = ready(&with_rules(&config(cluster())));
    let mut out = Vec::new();
    for sql in ["SELECT 1 AS a", "TABLE words_secrets", "SELECT 2 AS b"] {
        append_execute(&mut out, sql, &[]);
        frontend::Sync.encode(&mut out);
    }
    // The second statement of a batch is blocked: so is the first.
    append_execute(&mut out, "SELECT 3 AS c", &[]);
    append_execute(&mut out, "TABLE words_secrets", &[]);
    frontend::Sync.encode(&mut out);
    client.send(&out).expect("sent");
    let expected = [Ok("1"), Err("42501"), Ok("2"), Err("42501")];
    for expected in expected {
        let answer = client.until_ready().expect("an answer");
        let (value, sqlstate) = (answer.value(), answer.sqlstate());
        match expected {
            Ok(wanted) => assert_eq!((value.as_deref(), sqlstate), (Some(wanted), None)),
            Err(wanted) => assert_eq!((value, sqlstate.as_deref()), (None, Some(wanted))),
        }
    }
}

#[test]
fn rules_are_taken_over_by_a_reload() {
    let plain = config(cluster());
    let (proxy, mut client) = ready(&plain);
    let blocked = "SELECT 1 AS words_secrets_before FROM words_secrets";
    assert_eq!(sqlstate(&mut client, blocked), "42P01");
    let reload = |text: &str| {
        fs::write(proxy.config_path(), text).expect("written");
        proxy.signal("HUP");
    };
    reload(&with_rules(&plain));
    eventually!(sqlstate(&mut client, blocked) == "42501");
    ok(&mut client, "SELECT 17");
    assert_eq!(last_route(&mut client), "primary (rule)");
    let other = with_rules(&plain).replace("words_secrets is closed", "closed for ever");
    reload(&other);
    let message = |client: &mut Client| {
        let answer = client.query(blocked).expect("an answer");
        let error = answer
            .error()
            .and_then(|error| error.error_field(field::MESSAGE));
        error.unwrap_or_default()
    };
    eventually!(message(&mut client) == "pgweir: closed for ever");
    reload(&plain);
    eventually!(
        patience::PATIENCE,
        sqlstate(&mut client, blocked) == "42P01",
        "{}",
        proxy.log()
    );
    ok(&mut client, "SELECT 17");
    assert_eq!(last_route(&mut client), "replica (read)");
}

/// A batch that waits while the rules change is judged by the new ones: neither by the old, nor by a mixture.
#[test]
fn a_batch_that_waits_over_a_reload_is_judged_by_the_new_rules() {
    let text = |rule: &str| {
        let one = "[databases.\"*\"]\npool_size = 1";
        let text = config(cluster()).replace("[databases.\"*\"]", one);
        let other = "[[users]]\nname = 'other'\npassword = 'other'";
        format!("[server]\nworkers = 1\n{text}\n{other}\n[[rules]]\n{rule}\n")
    };
    let (proxy, mut holder) = ready(&text("match = {}\naction.route = 'primary'"));
    let mut waiting = proxy.client();
    for (name, rule, expected) in [
        ("theirs", "match.user = 'other'", None),
        (
            "ours",
            "match = { user = 'app', regex = 'pg_backend' }",
            Some("42501"),
        ),
    ] {
        ok(&mut holder, "BEGIN; SELECT pg_backend_pid()");
        waiting.send_query("SELECT pg_backend_pid()").expect("sent");
        // It is in line by then.
        ok(&mut holder, "SELECT 1");
        let rule = format!(
            "{rule}\naction.block = 'closed'\n\
             [[rules]]\nname = '{name}'\nmatch.regex = 'as probe'\naction.route = 'primary'"
        );
        fs::write(proxy.config_path(), text(&rule)).expect("written");
        proxy.signal("HUP");
        let known = format!("rule \"{name}\"");
        eventually!(
            explained(&mut holder, "SELECT 2 AS probe")
                .join("\n")
                .contains(&known)
        );
        ok(&mut holder, "COMMIT");
        let answer = waiting.until_ready().expect("an answer");
        assert_eq!(answer.sqlstate().as_deref(), expected, "{name}");
    }
}
