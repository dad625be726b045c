//! The tracker against what PostgreSQL does, by scripts of statements.

use super::*;
use pgweir_sql::state_statements;

fn state(startup: &[(&str, &str)]) -> State {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    State::new(Arc::new(ParameterSet::from_pairs(
        startup.iter().map(owned).collect(),
    )))
}

/// Runs statements that all succeed; `!` stands for an error, `.` for ReadyForQuery outside of a transaction.
fn run(state: &mut State, script: &[&str]) {
    for line in script {
        match *line {
            "!" => state.on_error(),
            "." => state.on_idle(),
            sql => {
                for statement in &state_statements(sql.as_bytes()) {
                    if let Some(event) = Event::of(statement) {
                        let tag = sql.to_ascii_uppercase();
                        state.apply(event, tag.as_bytes());
                    }
                }
            }
        }
    }
}

fn shown(set: &ParameterSet) -> String {
    let value = |value: &Value| match value {
        Value::Text(text) => text.to_string(),
        Value::Statement { words, .. } => words.as_ref().map_or("?".into(), |w| w.join("+")),
    };
    let entry =
        |entry: &crate::parameters::Setting| format!("{}={}", entry.name, value(&entry.value));
    set.entries()
        .iter()
        .map(entry)
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn settings_follow_transactions_and_savepoints() {
    let table: &[(&[&str], &str)] = &[
        (&["SET geqo = off", "."], "geqo=off"),
        (&["SET geqo = off", "!", "."], ""),
        (&["BEGIN", "SET geqo = off", "COMMIT", "."], "geqo=off"),
        (&["BEGIN", "SET geqo = off", "ROLLBACK", "."], ""),
        (&["BEGIN", "SET geqo = off", "!", "ROLLBACK", "."], ""),
        (
            &[
                "SET geqo = on",
                ".",
                "BEGIN",
                "SET geqo = off",
                "ROLLBACK",
                ".",
            ],
            "geqo=on",
        ),
        (
            &[
                "BEGIN",
                "SET geqo = on",
                "SAVEPOINT a",
                "SET geqo = off",
                "ROLLBACK TO a",
                "COMMIT",
                ".",
            ],
            "geqo=on",
        ),
        (
            &[
                "BEGIN",
                "SAVEPOINT a",
                "SET geqo = off",
                "!",
                "ROLLBACK TO a",
                "COMMIT",
                ".",
            ],
            "",
        ),
        (
            &[
                "BEGIN",
                "SAVEPOINT a",
                "SET geqo = off",
                "RELEASE a",
                "COMMIT",
                ".",
            ],
            "geqo=off",
        ),
        (
            &[
                "BEGIN",
                "SAVEPOINT a",
                "SET geqo = off",
                "SAVEPOINT a",
                "SET geqo = on",
                "ROLLBACK TO a",
                "RELEASE a",
                "ROLLBACK TO a",
                "COMMIT",
                ".",
            ],
            "",
        ),
        (&["BEGIN", "SET LOCAL geqo = off", "COMMIT", "."], ""),
        (
            &[
                "BEGIN",
                "SET geqo = off",
                "COMMIT AND CHAIN",
                "SET geqo = on",
                "ROLLBACK",
                ".",
            ],
            "geqo=off",
        ),
        (&["SET geqo = off", "BEGIN", "ROLLBACK", "."], ""),
        (&["SET geqo = off", ".", "RESET geqo", "."], ""),
        (
            &["SET ROLE a", "SET geqo = off", "RESET ALL", "."],
            "role=a",
        ),
        (
            &["SET ROLE a", "SET SESSION AUTHORIZATION b", "."],
            "session_authorization=b",
        ),
        (
            &["SET ROLE a", "SET geqo = off", ".", "DISCARD ALL", "."],
            "",
        ),
    ];
    for (script, expected) in table {
        let mut state = state(&[]);
        run(&mut state, script);
        assert_eq!(shown(state.wanted()), *expected, "{script:?}");
        assert_eq!(shown(state.carried()), *expected, "{script:?}");
        assert!(!state.lacks() && !state.has_local(), "{script:?}");
    }
}

#[test]
fn a_reset_brings_back_what_the_session_came_with_and_the_connection_lacks_it() {
    let mut state = state(&[("geqo", "on"), ("timezone", "CET")]);
    run(&mut state, &["SET geqo = off", ".", "RESET geqo", "."]);
    assert_eq!(shown(state.wanted()), "geqo=on timezone=CET");
    assert_eq!(shown(state.carried()), "timezone=CET");
    assert!(state.lacks());
    state.restored(false);
    assert!(!state.lacks());
    run(&mut state, &["BEGIN", "RESET ALL"]);
    assert!(state.lacks());
    run(&mut state, &["ROLLBACK", "."]);
    assert!(!state.lacks());
    run(&mut state, &["DISCARD ALL", "."]);
    assert_eq!(shown(state.carried()), "");
    assert_eq!(shown(state.wanted()), "geqo=on timezone=CET");
}

#[test]
fn the_journal_holds_what_opens_the_transaction_anew() {
    let journal = |state: &State| {
        let (begin, steps) = state.transaction();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut lines = vec![begin.map(text).unwrap_or_default()];
        lines.extend(steps.map(text));
        lines.join("; ")
    };
    let table: &[(&[&str], &str)] = &[
        (&["BEGIN"], "BEGIN"),
        (
            &["START TRANSACTION", "SET LOCAL a.b = 1"],
            "START TRANSACTION; SET LOCAL a.b = 1",
        ),
        (
            &["BEGIN", "SAVEPOINT a", "SET geqo = off", "ROLLBACK TO a"],
            "BEGIN; SAVEPOINT a",
        ),
        (
            &["BEGIN", "SAVEPOINT a", "SET geqo = off", "RELEASE a"],
            "BEGIN; SET geqo = off",
        ),
        (
            &[
                "BEGIN",
                "SAVEPOINT a",
                "SAVEPOINT b",
                "SET LOCAL geqo = off",
                "RELEASE b",
            ],
            "BEGIN; SAVEPOINT a; SET LOCAL geqo = off",
        ),
        (
            &[
                "BEGIN",
                "SAVEPOINT a",
                "SET LOCAL geqo = off",
                "!",
                "ROLLBACK TO a",
                "SET LOCAL geqo = on",
            ],
            "BEGIN; SAVEPOINT a; SET LOCAL geqo = on",
        ),
        (&["BEGIN", "SET geqo = off", "COMMIT", "."], ""),
    ];
    for (script, expected) in table {
        let mut state = state(&[]);
        run(&mut state, script);
        assert_eq!(journal(&state), *expected, "{script:?}");
    }
}

#[test]
fn a_setting_that_builds_on_the_one_before_is_kept_as_the_server_reports_it() {
    let mut state = state(&[]);
    run(&mut state, &["SET datestyle = ISO"]);
    state.settle_relative("datestyle", "ISO, DMY");
    state.on_idle();
    assert_eq!(shown(state.wanted()), "datestyle=ISO, DMY");
}

/// Returns the proxy's own settings, sorted.
fn own(state: &State) -> String {
    let mut values: Vec<_> = state.own().values().collect();
    values.sort_unstable();
    let entry = |(name, value): &(&str, &str)| format!("{name}={value}");
    values.iter().map(entry).collect::<Vec<_>>().join(" ")
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn the_proxys_own_settings_follow_transactions_like_any_other() {
    /// `set x 1`, `local x 1`, `reset x`: what the proxy does by itself; the rest is SQL.
    const TABLE: &[(&[&str], &str)] = &[
        (&["set a 1"], "a=1"),
        (&["set a 1", "set b 2", "set a 3"], "a=3 b=2"),
        (&["set a 1", "reset a"], ""),
        (&["local a 1"], ""),
        (&["set a 1", "BEGIN", "set a 2"], "a=2"),
        (&["set a 1", "BEGIN", "set a 2", "COMMIT", "."], "a=2"),
        (&["set a 1", "BEGIN", "set a 2", "ROLLBACK", "."], "a=1"),
        (
            &["set a 1", "BEGIN", "set a 2", "!", "ROLLBACK", "."],
            "a=1",
        ),
        (&["set a 1", "BEGIN", "local a 2"], "a=2"),
        (&["set a 1", "BEGIN", "local a 2", "COMMIT", "."], "a=1"),
        (
            &["set a 1", "BEGIN", "local a 2", "set a 3", "COMMIT", "."],
            "a=3",
        ),
        (&["BEGIN", "set a 3", "local a 2"], "a=2"),
        (&["BEGIN", "set a 3", "local a 2", "COMMIT", "."], "a=3"),
        (&["set a 1", "BEGIN", "localreset a"], ""),
        (&["set a 1", "BEGIN", "localreset a", "COMMIT", "."], "a=1"),
        (
            &[
                "BEGIN",
                "set a 1",
                "SAVEPOINT s",
                "set a 2",
                "ROLLBACK TO s",
            ],
            "a=1",
        ),
        (
            &[
                "BEGIN",
                "SAVEPOINT s",
                "set a 2",
                "RELEASE s",
                "COMMIT",
                ".",
            ],
            "a=2",
        ),
        (
            &[
                "BEGIN",
                "SAVEPOINT s",
                "set a 2",
                "!",
                "ROLLBACK TO s",
                "COMMIT",
                ".",
            ],
            "",
        ),
        (
            &[
                "BEGIN",
                "local a 1",
                "SAVEPOINT s",
                "local a 2",
                "ROLLBACK TO s",
            ],
            "a=1",
        ),
        (&["set a 1", "RESET ALL", "."], ""),
        (&["set a 1", "BEGIN", "RESET ALL", "ROLLBACK", "."], "a=1"),
        (&["set a 1", "DISCARD ALL", "."], ""),
    ];
    for (script, expected) in TABLE {
        let mut state = state(&[]);
        let mut in_transaction = false;
        for line in *script {
            let words: Vec<&str> = line.split(' ').collect();
            let (scope, name, value) = match words.as_slice() {
                ["set", name, value] => (Scope::Session, name, Some(*value)),
                ["local", name, value] => (Scope::Transaction, name, Some(*value)),
                ["reset", name] => (Scope::Session, name, None),
                ["localreset", name] => (Scope::Transaction, name, None),
                _ => {
                    in_transaction = *line != "." && (in_transaction || *line == "BEGIN");
                    run(&mut state, &[line]);
                    continue;
                }
            };
            state.set_own(name, value, scope, in_transaction);
        }
        assert_eq!(own(&state), *expected, "{script:?}");
    }
}

#[test]
fn the_end_of_a_transaction_that_no_server_has_seen_counts_for_the_proxys_own_settings() {
    for (commits, expected) in [(true, "a=2"), (false, "a=1")] {
        let mut state = state(&[("geqo", "on")]);
        state.set_own("a", Some("1"), Scope::Session, false);
        state.begin(b"BEGIN");
        state.set_own("a", Some("2"), Scope::Session, true);
        if commits {
            state.commit_unseen();
        } else {
            state.abandon();
        }
        assert_eq!((own(&state).as_str(), state.is_moving()), (expected, false));
        assert_eq!(shown(state.wanted()), "geqo=on");
    }
}

#[test]
fn what_a_failed_batch_set_of_the_proxys_own_is_put_back() {
    let mut state = state(&[]);
    state.set_own("a", Some("1"), Scope::Session, false);
    let before = state.own().clone();
    assert!(state.own().is(&before));
    state.set_own("a", Some("2"), Scope::Session, false);
    assert!(!state.own().is(&before));
    state.restore_own(before, false);
    run(&mut state, &["BEGIN", "ROLLBACK", "."]);
    assert_eq!(own(&state), "a=1");
}
