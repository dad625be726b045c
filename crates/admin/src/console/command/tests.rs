//! The grammar of the commands, by a table of cases.

use super::*;
use proptest::prelude::*;

fn database(name: &str) -> Option<String> {
    Some(name.to_owned())
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn commands_are_read_in_any_case_with_names_quoted_or_not() {
    let order = |order: Order| Some(Ok(Command::Order(order)));
    let cases = [
        ("PAUSE", order(Order::Pause { database: None })),
        (
            "pause app;",
            order(Order::Pause {
                database: database("app"),
            }),
        ),
        (
            "Pause \"My db\"",
            order(Order::Pause {
                database: database("My db"),
            }),
        ),
        (
            "pause app-1",
            order(Order::Pause {
                database: database("app-1"),
            }),
        ),
        (
            "pause *",
            order(Order::Pause {
                database: database("*"),
            }),
        ),
        (
            "RESUME app",
            order(Order::Resume {
                database: database("app"),
            }),
        ),
        (
            "DISABLE app",
            order(Order::Disable {
                database: "app".to_owned(),
            }),
        ),
        (
            "ENABLE app",
            order(Order::Enable {
                database: "app".to_owned(),
            }),
        ),
        (
            "DRAIN pg2",
            order(Order::Drain {
                backend: "pg2".to_owned(),
            }),
        ),
        (
            "DRAIN 127.0.0.1:5432",
            order(Order::Drain {
                backend: "127.0.0.1:5432".to_owned(),
            }),
        ),
        (
            "UNDRAIN 'pg2'",
            order(Order::Undrain {
                backend: "pg2".to_owned(),
            }),
        ),
        ("PROMOTE CHECK", Some(Ok(Command::PromoteCheck))),
        ("KILL 17", order(Order::Kill(Target::Client(17)))),
        (
            "KILL app",
            order(Order::Kill(Target::Database("app".to_owned()))),
        ),
        (
            "KILL \"17\"",
            order(Order::Kill(Target::Database("17".to_owned()))),
        ),
        ("KILL", order(Order::Kill(Target::Everybody))),
        ("KILL_CLIENT 17", order(Order::Kill(Target::Client(17)))),
        ("CANCEL 17", order(Order::Cancel { client: 17 })),
        ("RECONNECT", order(Order::Reconnect { database: None })),
        (
            "WAIT_CLOSE app",
            order(Order::WaitClose {
                database: database("app"),
            }),
        ),
        ("RELOAD", order(Order::Reload)),
        ("RELOAD CATALOG", order(Order::ReloadCatalog)),
        ("RESET STATEMENTS", order(Order::ResetStatements)),
        ("SAVE CONFIG", order(Order::SaveConfig)),
        ("SHUTDOWN", order(Order::Shutdown(Shutdown::Now))),
        (
            "SHUTDOWN WAIT_FOR_SERVERS",
            order(Order::Shutdown(Shutdown::WaitForServers)),
        ),
        (
            "shutdown wait_for_clients",
            order(Order::Shutdown(Shutdown::WaitForClients)),
        ),
        ("SHOW CONFIG DIFF", Some(Ok(Command::ConfigDiff))),
        ("SHOW CONFIG", Some(Ok(Command::Show(Show::Config)))),
        (
            "show stats_averages;",
            Some(Ok(Command::Show(Show::StatsAverages))),
        ),
        ("SHOW HELP", Some(Ok(Command::Help))),
        (
            "/* x */ SHOW pools -- y",
            Some(Ok(Command::Show(Show::Pools))),
        ),
        (
            "SHOW server_version",
            Some(Ok(Command::ShowParameter("server_version".to_owned()))),
        ),
        (
            "SHOW TIME ZONE",
            Some(Ok(Command::ShowParameter("timezone".to_owned()))),
        ),
        (
            "SHOW TRANSACTION ISOLATION LEVEL",
            Some(Ok(Command::ShowParameter(
                "transaction_isolation".to_owned(),
            ))),
        ),
        ("SELECT 1", None),
        ("reset all", None),
        ("explain select 1", None),
        ("", None),
        ("(select 1)", None),
    ];
    for (sql, expected) in cases {
        assert_eq!(parse(sql), expected, "{sql}");
    }
}

#[test]
fn explain_route_takes_everything_up_to_its_clause() {
    let explained = |sql: &str, database: Option<&str>, user: Option<&str>| {
        Some(Ok(Command::Explain {
            sql: sql.to_owned(),
            database: database.map(str::to_owned),
            user: user.map(str::to_owned),
        }))
    };
    assert_eq!(
        parse("EXPLAIN ROUTE SELECT 1"),
        explained("SELECT 1", None, None)
    );
    assert_eq!(
        parse("explain route select * from t for update for database app user \"U\""),
        explained("select * from t for update", Some("app"), Some("U"))
    );
    assert_eq!(
        parse(
            "EXPLAIN ROUTE /* pgweir: route=primary */ SELECT ' for database x' FOR DATABASE app"
        ),
        explained(
            "/* pgweir: route=primary */ SELECT ' for database x'",
            Some("app"),
            None
        )
    );
    assert!(matches!(parse("EXPLAIN ROUTE"), Some(Err(_))));
}

#[test]
fn trace_has_limits() {
    let traced = |limit, seconds: Option<u64>| {
        Some(Ok(Command::Trace {
            client: 5,
            limit,
            duration: seconds.map(Duration::from_secs),
        }))
    };
    assert_eq!(parse("TRACE 5"), traced(None, None));
    assert_eq!(parse("TRACE CLIENT 5 LIMIT 10"), traced(Some(10), None));
    assert_eq!(
        parse("TRACE 5 FOR '5s' LIMIT 10"),
        traced(Some(10), Some(5))
    );
    assert!(matches!(parse("TRACE 5 LIMIT"), Some(Err(_))));
    assert!(matches!(parse("TRACE x"), Some(Err(_))));
}

#[test]
fn a_slip_is_answered_with_what_was_meant() {
    let hint = |sql: &str| match parse(sql) {
        Some(Err(refusal)) => (refusal.sqlstate, refusal.hint.unwrap_or_default()),
        other => panic!("{sql}: {other:?}"),
    };
    for (sql, meant) in [
        ("PUASE app", "PAUSE [db]"),
        ("DISABEL app", "DISABLE db"),
        ("DRAIN", "DRAIN backend"),
        ("CANCEL x", "CANCEL id"),
        ("RELOAD CATALOGUE", "RELOAD CATALOG"),
        ("SELCET 1", "SELECT"),
        ("PROMOTE", "PROMOTE CHECK"),
        ("xyzzy", "SHOW HELP"),
    ] {
        let (state, hint) = hint(sql);
        assert_eq!(state, *b"42601", "{sql}");
        assert!(hint.contains(meant), "{sql}: {hint}");
    }
}

#[test]
fn what_is_not_built_is_refused_as_that() {
    for sql in ["FLUSH CACHE", "RELOAD TLS", "SUSPEND", "SHOW FDS"] {
        let Some(Err(refusal)) = parse(sql) else {
            panic!("{sql}");
        };
        assert_eq!(refusal.sqlstate, *b"0A000", "{sql}");
    }
}

#[test]
fn viewers_may_look_and_no_more() {
    for one in SYNTAX {
        let sql = one.text.split(['[', '|']).next().unwrap_or_default().trim();
        let sql = sql.replace("id", "5");
        let sql = if sql == "EXPLAIN ROUTE sql" {
            "EXPLAIN ROUTE select 1"
        } else {
            &sql
        };
        match parse(sql) {
            Some(Ok(command)) => assert_eq!(command.changes(), one.changes, "{sql}"),
            Some(Err(refusal)) => assert_eq!(refusal.sqlstate, *b"0A000", "{sql}"),
            None => panic!("{sql}"),
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_a_command_or_sql_or_an_error(sql in "(pause|kill|trace|explain route|show|for|database|user|limit|'| |;|\\PC|[a-z*.:-]){0,12}") {
        let _ = parse(&sql);
    }
}
