//! Session statements: what the data file says of each text, and what PostgreSQL's own grammar says of it.
//!
//! A line of the file is `events | SQL`: events `-` when there are none, joined by ` / `, each behind the place of its
//! statement where that is not the first; `\n` in the SQL stands for a line end. `UPDATE_EXPECT=1` writes what is said now;
//! read the difference before it is committed.

use pgweir_sql::{
    Isolation, Shaper, StateEvent, StateStatement, TransactionModes, classify, split,
    state_statements,
};
use proptest::prelude::*;

use crate::data::assert_lines;
use crate::state_oracle;

pub(crate) fn modes(modes: TransactionModes) -> String {
    let mut text = String::new();
    if let Some(isolation) = modes.isolation {
        text += match isolation {
            Isolation::ReadUncommitted => " read uncommitted",
            Isolation::ReadCommitted => " read committed",
            Isolation::RepeatableRead => " repeatable read",
            Isolation::Serializable => " serializable",
        };
    }
    if let Some(read_only) = modes.read_only {
        text += if read_only {
            " +read_only"
        } else {
            " -read_only"
        };
    }
    if let Some(deferrable) = modes.deferrable {
        text += if deferrable {
            " +deferrable"
        } else {
            " -deferrable"
        };
    }
    text
}

pub(crate) fn name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Says what an event is, as `state_oracle` says what a tree is.
fn render(event: &StateEvent<'_>) -> String {
    let scope = |local: bool| if local { "local " } else { "" };
    let chained = |chain: bool| if chain { " and chain" } else { "" };
    match event {
        StateEvent::Begin(given) => format!("begin{}", modes(*given)),
        StateEvent::Commit { chain } => format!("commit{}", chained(*chain)),
        StateEvent::Rollback { chain } => format!("rollback{}", chained(*chain)),
        StateEvent::PrepareTransaction => "prepare transaction".to_owned(),
        StateEvent::Savepoint(savepoint) => format!("savepoint <{}>", name(savepoint)),
        StateEvent::Release(savepoint) => format!("release <{}>", name(savepoint)),
        StateEvent::RollbackTo(savepoint) => format!("rollback to <{}>", name(savepoint)),
        StateEvent::SetTransaction(given) => format!("transaction{}", modes(*given)),
        StateEvent::Constraints => "constraints".to_owned(),
        StateEvent::Set(setting) => {
            let value = setting
                .value
                .as_ref()
                .map_or("?".to_owned(), |values| format!("{values:?}"));
            format!("set {}{} {value}", scope(setting.local), setting.name)
        }
        StateEvent::Reset { name, local } => format!("reset {}{name}", scope(*local)),
        StateEvent::ResetAll => "reset all".to_owned(),
        StateEvent::DiscardAll => "discard all".to_owned(),
        StateEvent::Prepare { name: given, .. } => format!("prepare <{}>", name(given)),
        StateEvent::Execute { name: given, .. } => format!("execute <{}>", name(given)),
        StateEvent::Deallocate { name: given, .. } => format!("deallocate <{}>", name(given)),
        StateEvent::DeallocateAll => "deallocate all".to_owned(),
    }
}

fn events(sql: &str) -> Vec<(usize, String)> {
    state_statements(sql.as_bytes())
        .iter()
        .map(|found| (found.index, render(&found.event)))
        .collect()
}

fn line(sql: &str) -> String {
    let parts: Vec<String> = events(sql)
        .into_iter()
        .map(|(index, event)| match index {
            0 => event,
            index => format!("{index}:{event}"),
        })
        .collect();
    if parts.is_empty() {
        "-".to_owned()
    } else {
        parts.join(" / ")
    }
}

fn cases() -> Vec<(String, String)> {
    let text = include_str!("../cases/state.txt");
    let is_case = |line: &&str| !line.starts_with('#') && !line.trim().is_empty();
    text.lines()
        .filter(is_case)
        .map(|line| {
            let (expected, sql) = line
                .split_once(" | ")
                .unwrap_or_else(|| panic!("not of the form events | SQL: {line}"));
            (expected.to_owned(), sql.replace("\\n", "\n"))
        })
        .collect()
}

#[test]
fn session_statements_are_read_as_the_file_says() {
    let rewrite = |text: &str| match text.split_once(" | ") {
        Some((_, sql)) if !text.starts_with('#') => {
            format!("{} | {sql}", line(&sql.replace("\\n", "\n")))
        }
        _ => text.to_owned(),
    };
    assert_lines("state.txt", rewrite);
    assert!(cases().len() >= 200, "only {} cases", cases().len());
}

/// Compares with PostgreSQL's tree; returns whether there is one.
#[track_caller]
fn agrees(sql: &str) -> bool {
    let Ok(expected) = state_oracle::events(sql) else {
        return false;
    };
    assert_eq!(events(sql), expected, "{sql}");
    true
}

/// What the oracle's grammar takes beyond PostgreSQL's own: it is made for normalised texts, too.
const ONLY_THE_ORACLE_TAKES: [&str; 1] = ["SET x = $1"];

#[test]
fn what_postgresql_accepts_is_read_as_its_grammar_reads_it() {
    let mut accepted = 0;
    for (_, sql) in cases() {
        accepted += usize::from(!ONLY_THE_ORACLE_TAKES.contains(&&*sql) && agrees(&sql));
    }
    assert!(accepted >= 180, "only {accepted} texts are SQL");
}

#[test]
fn what_is_vouched_for_is_accepted_by_postgresql() {
    for (_, sql) in cases() {
        let for_proxy = classify(sql.as_bytes()).local.is_some();
        if for_proxy || pg_query::parse(&sql, 0).is_ok() {
            continue;
        }
        assert_eq!(line(&sql), "-", "{sql}");
        let reason = classify(sql.as_bytes()).reason.name();
        assert!(
            ["unparsed", "primary_only", "write"].contains(&reason),
            "{reason}: {sql}"
        );
    }
}

/// Words of session statements; `~` stands for a space inside one.
const WORDS: &str = r#"SET SET SET SESSION LOCAL TO = , . DEFAULT a Work_Mem "Q" 'x' 1 -1.5 on true E'\n' $$d$$ TIME ZONE
    TIME~ZONE INTERVAL '1' HOUR NAMES SCHEMA ROLE none SESSION~AUTHORIZATION AUTHORIZATION XML~OPTION DOCUMENT
    TRANSACTION TRANSACTION ISOLATION~LEVEL READ~COMMITTED SERIALIZABLE READ~ONLY READ~WRITE NOT DEFERRABLE
    SESSION~CHARACTERISTICS~AS~TRANSACTION transaction_isolation transaction_read_only FROM~CURRENT RESET RESET ALL
    SNAPSHOT CONSTRAINTS DEFERRED BEGIN START WORK COMMIT END ROLLBACK ABORT AND CHAIN NO SAVEPOINT RELEASE PREPARED
    PREPARE AS EXECUTE DEALLOCATE DISCARD PLANS TEMP ( ) SELECT~1 EXPLAIN ANALYZE CREATE~TABLE~t TABLE U&"\0061" ; ; ;
    BEGIN; COMMIT; SET~x~= uescape '!' seed"#;

fn soup() -> impl Strategy<Value = String> {
    let words: Vec<String> = WORDS
        .split_whitespace()
        .map(|word| word.replace('~', " "))
        .collect();
    prop::collection::vec(prop::sample::select(words), 1..9).prop_map(|words| words.join(" "))
}

/// One rule of the grammar after another, so that most of what comes out is SQL.
#[expect(clippy::too_many_lines, reason = "lists of spellings")]
fn sentence() -> impl Strategy<Value = String> {
    let one = |choices: &'static [&'static str]| prop::sample::select(choices);
    let mode = one(&[
        "ISOLATION LEVEL SERIALIZABLE",
        "isolation level repeatable  read",
        "ISOLATION LEVEL READ COMMITTED",
        "READ ONLY",
        "read write",
        "DEFERRABLE",
        "NOT DEFERRABLE",
    ]);
    let modes = prop::collection::vec((mode, one(&[", ", " ", ","])), 1..4).prop_map(|modes| {
        let mut text: String = modes
            .iter()
            .map(|(mode, gap)| format!("{mode}{gap}"))
            .collect();
        text.truncate(text.trim_end_matches([',', ' ']).len());
        text
    });
    let modes = modes.boxed();
    let parameter = one(&[
        "x",
        "Work_Mem",
        "\"Q\"",
        "a.b",
        "A.\"B\".c",
        "role",
        "session",
        "local",
        "transaction.x",
        "time",
        "names.x",
        "transaction_isolation",
        "transaction_read_only",
        "U&\"\\0061\"",
        "sort_mem",
        "schema",
        "session.x",
        "local.y",
    ]);
    let value = one(&[
        "1",
        "-1",
        "+ 2",
        "1.50",
        "-.5",
        "007",
        "'it''s'",
        "E'\\x41'",
        "$$d$$",
        "on",
        "OFF",
        "true",
        "Word",
        "\"Word\"",
        "none",
        "public",
        "\"$user\"",
        "''",
        "'a' \n 'b'",
        "U&'\\0061'",
        "99999999999",
        "left",
        "user_x",
    ]);
    let values = prop::collection::vec(value, 1..3).prop_map(|values| values.join(" , "));
    let scope = one(&["", "SESSION ", "LOCAL ", "local /* c */ "]);
    let special = one(&[
        "TIME ZONE 'UTC'",
        "TIME ZONE utc",
        "TIME ZONE -7",
        "TIME ZONE LOCAL",
        "TIME ZONE DEFAULT",
        "TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE",
        "TIME ZONE INTERVAL(2) '1'",
        "SCHEMA 'a'",
        "NAMES 'LATIN1'",
        "NAMES",
        "NAMES DEFAULT",
        "ROLE none",
        "ROLE 'x'",
        "ROLE \"X\"",
        "SESSION AUTHORIZATION x",
        "SESSION AUTHORIZATION DEFAULT",
        "SESSION AUTHORIZATION 'x'",
        "XML OPTION DOCUMENT",
        "XML OPTION CONTENT",
    ]);
    let name = one(&[
        "a",
        "A",
        "\"A\"",
        "savepoint",
        "transaction",
        "U&\"!0061\" UESCAPE '!'",
        "prepare",
        "work",
    ]);
    let name = name.boxed();
    prop_oneof![
        (scope, parameter, one(&[" TO ", " = ", "="]), values).prop_map(
            |(scope, parameter, to, values)| format!("SET {scope}{parameter}{to}{values}")
        ),
        (one(&["", "SESSION ", "LOCAL "]), special)
            .prop_map(|(scope, special)| format!("SET {scope}{special}")),
        (
            one(&[
                "SET TRANSACTION ",
                "BEGIN ",
                "begin work ",
                "START TRANSACTION ",
                "BEGIN TRANSACTION ",
                "SET SESSION CHARACTERISTICS AS TRANSACTION ",
                "SET LOCAL TRANSACTION ",
                "SET SESSION TRANSACTION ",
                "SET LOCAL SESSION CHARACTERISTICS AS TRANSACTION "
            ]),
            modes
        )
            .prop_map(|(verb, modes)| format!("{verb}{modes}")),
        (
            one(&[
                "SAVEPOINT ",
                "RELEASE ",
                "RELEASE SAVEPOINT ",
                "ROLLBACK TO ",
                "ROLLBACK WORK TO SAVEPOINT ",
                "ROLLBACK TRANSACTION TO ",
                "EXECUTE ",
                "DEALLOCATE ",
                "DEALLOCATE PREPARE ",
                "EXPLAIN EXECUTE ",
                "EXPLAIN (ANALYZE, COSTS off) EXECUTE ",
                "EXPLAIN ANALYZE VERBOSE EXECUTE ",
                "RESET ",
                "CREATE TEMP TABLE t (a, b) AS EXECUTE ",
                "EXPLAIN CREATE TABLE IF NOT EXISTS t AS EXECUTE "
            ]),
            name
        )
            .prop_map(|(verb, name)| format!("{verb}{name}")),
        (
            one(&["COMMIT", "END", "ROLLBACK", "ABORT"]),
            one(&["", " WORK", " TRANSACTION"]),
            one(&["", " AND CHAIN", " AND NO CHAIN"])
        )
            .prop_map(|(verb, work, chain)| format!("{verb}{work}{chain}")),
    ]
}

/// Statements one behind the other, some of which are none of this module's.
fn text() -> impl Strategy<Value = String> {
    let other = prop::sample::select(vec![
        "SELECT 1",
        "",
        "INSERT INTO t VALUES ('a;b')",
        "SELECT 1; ; SELECT 2",
    ]);
    let other = other.prop_map(str::to_owned);
    let statement = prop_oneof![4 => sentence(), 1 => other, 1 => soup()];
    prop::collection::vec(statement, 1..4).prop_map(|statements| statements.join(" ; "))
}

/// A Begin, Commit, ... may be answered by the proxy, so nothing may pass for one that PostgreSQL would refuse.
fn may_be_answered(event: &StateEvent<'_>) -> bool {
    matches!(
        event,
        StateEvent::Begin(_)
            | StateEvent::Commit { .. }
            | StateEvent::Rollback { .. }
            | StateEvent::Savepoint(_)
            | StateEvent::Release(_)
            | StateEvent::RollbackTo(_)
            | StateEvent::SetTransaction(_)
    )
}

/// A text whose classification and whose own reading must agree on whether there is something to read.
fn agrees_with_its_plan(sql: &str) -> Result<(), TestCaseError> {
    let classified = classify(sql.as_bytes());
    let found = state_statements(sql.as_bytes());
    if classified.local.is_none() {
        prop_assert_eq!(classified.effects.state, !found.is_empty(), "{}", sql);
        let settings = found.iter().any(|found| found.event.is_setting());
        prop_assert_eq!(classified.effects.settings, settings, "{}", sql);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn generated_statements_are_read_as_postgresql_reads_them(sql in text()) {
        agrees(&sql);
        agrees_with_its_plan(&sql)?;
    }

    #[test]
    fn soup_is_read_as_postgresql_reads_it(sql in soup()) {
        agrees(&sql);
        agrees_with_its_plan(&sql)?;
        if pg_query::parse(&sql, 0).is_err() {
            let found = state_statements(sql.as_bytes());
            if let ([one], 1) = (found.as_slice(), split(sql.as_bytes()).count()) {
                prop_assert!(!may_be_answered(&one.event), "{}", sql);
            }
        }
    }

    #[test]
    fn the_statements_of_a_text_are_read_as_if_alone(sql in text()) {
        let found = state_statements(sql.as_bytes());
        let mut alone = Vec::new();
        for (index, range) in split(sql.as_bytes()).enumerate() {
            let own = &sql.as_bytes()[range.clone()];
            for one in state_statements(own) {
                prop_assert_eq!(one.index, 0);
                prop_assert_eq!((one.start, one.text), (0, own));
                alone.push((index, range.start, one));
            }
        }
        prop_assert_eq!(found.len(), alone.len());
        for (one, (index, start, same)) in found.iter().zip(&alone) {
            prop_assert_eq!((one.index, one.start, one.text), (*index, *start, same.text));
            prop_assert_eq!(render(&one.event), render(&same.event));
            prop_assert_eq!(ranges(one, 0), ranges(same, *start));
        }
    }

    #[test]
    fn any_bytes_are_read(sql in prop::collection::vec(any::<u8>(), 0..200)) {
        state_statements(&sql);
        let mut text = b"SET x = ".to_vec();
        text.extend_from_slice(&sql);
        state_statements(&text);
    }

    #[test]
    fn the_statement_of_a_setting_does_just_that(sql in sentence()) {
        for found in state_statements(sql.as_bytes()) {
            if let StateEvent::Set(setting) = &found.event {
                let again = state_statements(&setting.sql);
                prop_assert_eq!(again.len(), 1);
                prop_assert_eq!(render(&again[0].event), render(&found.event));
            }
        }
    }

    #[test]
    fn comments_layout_and_letter_case_change_nothing(
        sql in sentence().prop_filter("without literals", |sql| !sql.contains(['\'', '"', '$'])),
    ) {
        let other = format!("/* a */{} -- b", sql.to_uppercase().replace(' ', " /* SET x = 1; */\n"));
        prop_assert_eq!(events(&other), events(&sql));
    }
}

/// The ranges of an event, moved.
fn ranges(found: &StateStatement<'_>, by: usize) -> Vec<(usize, usize)> {
    let moved = |range: &std::ops::Range<usize>| (range.start + by, range.end + by);
    match &found.event {
        StateEvent::Prepare { body, .. } => vec![moved(body)],
        StateEvent::Execute {
            name_range,
            arguments,
            ..
        } => [Some(name_range), arguments.as_ref()]
            .into_iter()
            .flatten()
            .map(moved)
            .collect(),
        StateEvent::Deallocate { name_range, .. } => vec![moved(name_range)],
        _ => Vec::new(),
    }
}

#[test]
fn ranges_are_those_of_the_whole_text() {
    let sql = "SELECT 1; PREPARE p(int) AS SELECT $1 ; EXPLAIN ANALYZE EXECUTE \"P\" ( f(1), 2 );\
               CREATE TABLE t AS EXECUTE q WITH NO DATA; DEALLOCATE PREPARE U&\"x\" UESCAPE '!' ; EXECUTE z";
    let parts: Vec<&str> = state_statements(sql.as_bytes())
        .iter()
        .flat_map(|found| ranges(found, 0))
        .filter_map(|(start, end)| sql.get(start..end))
        .collect();
    assert_eq!(
        parts,
        [
            "SELECT $1",
            "\"P\"",
            "( f(1), 2 )",
            "q",
            "U&\"x\" UESCAPE '!'",
            "z"
        ]
    );
}

#[test]
fn what_cannot_be_tracked_pins() {
    for (sql, pin) in [
        ("SET x FROM CURRENT", "setting"),
        ("SET SEED TO 0.5", "setseed"),
        ("SET SESSION seed = 0.5", "setseed"),
        ("SET standard_conforming_strings = off", "setting"),
        ("SET standard_conforming_strings = 0", "setting"),
        ("SET LOCAL standard_conforming_strings = off", "setting"),
        ("SET NAMES 'SJIS'", "setting"),
        ("SET client_encoding = gb18030", "setting"),
        ("SET CLIENT_ENCODING TO 'Big5'", "setting"),
        ("SET session_replication_role = replica", "setting"),
        ("SET temp_buffers = 100", "setting"),
        ("SET x y", "setting"),
        ("RESET", "setting"),
        ("PREPARE p AS SELECT 1", "sql_prepare"),
    ] {
        let effects = classify(sql.as_bytes()).effects;
        assert_eq!(effects.pin.map(|pin| pin.name()), Some(pin), "{sql}");
    }
    for sql in [
        "SET standard_conforming_strings = on",
        "SET standard_conforming_strings = 'true'",
        "SET NAMES 'utf-8'",
        "SET client_encoding = latin1",
        "SET NAMES DEFAULT",
        "RESET client_encoding",
        "SET search_path = a, b",
        "SET ROLE x",
        "RESET ALL",
        "DISCARD ALL",
        "SET SESSION AUTHORIZATION DEFAULT",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "EXECUTE p",
        "SET LOCAL x = 1",
    ] {
        assert!(classify(sql.as_bytes()).effects.pins.is_empty(), "{sql}");
    }
}

#[test]
fn settings_and_savepoints_are_known_for_what_they_are() {
    for (sql, settings, neutral) in [
        ("SET x = 1", true, false),
        ("SET LOCAL x = 1; RESET y; RESET ALL", true, false),
        ("SET ROLE a", true, false),
        ("SET x = 1; SELECT 1", false, false),
        ("SET x = 1; SET TRANSACTION SNAPSHOT '1'", false, false),
        ("SET NAMES 'SJIS'", false, false),
        ("SET x = 1; SET seed = 1", false, false),
        ("SET TRANSACTION READ ONLY", false, false),
        ("SET x", false, false),
        ("SAVEPOINT a; RELEASE a; ROLLBACK TO b", false, true),
        ("SAVEPOINT", false, false),
        ("SAVEPOINT a; SELECT 1", false, false),
        ("", false, false),
    ] {
        let classified = classify(sql.as_bytes());
        assert_eq!(
            (classified.is_settings_only(), classified.is_neutral()),
            (settings, neutral),
            "{sql}"
        );
    }
}

#[test]
fn the_shape_says_what_the_text_says_about_names() {
    for sql in ["SAVEPOINT U&\"!0061\" UESCAPE '!'", "EXECUTE P('x', 1)"] {
        let shape = Shaper::new().shape(sql.as_bytes()).text.to_vec();
        assert_eq!(state_statements(&shape).len(), 1, "{sql}");
    }
}
