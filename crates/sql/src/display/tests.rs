//! What is shown of texts, and that no value is in it.

use proptest::prelude::*;

use super::*;
use crate::shape::Shaper;

fn shape(sql: &str) -> Vec<u8> {
    Shaper::new().shape(sql.as_bytes()).text.to_vec()
}

fn displayed(sql: &str) -> Displayed {
    Displayed::of(&shape(sql))
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn no_value_is_shown() {
    for (sql, shown) in [
        ("SET app.jwt = 's3cret-token'", "set app.jwt = ''"),
        ("SET app.jwt = s3cret", "set app.jwt = ''"),
        ("SET app.jwt TO E's3c\\'ret', x", "set app.jwt to ''"),
        ("SET LOCAL app.user_id=4711", "set local app.user_id=''"),
        (
            "SET SESSION \"App\".\"Key\" = -1.5",
            "set session \"App\".\"Key\" = ''",
        ),
        ("SET app.jwt s3cret", "set app.jwt ''"),
        ("SET = s3cret", "set = ''"),
        ("SET app.jwt =@ s3cret", "set app.jwt ''"),
        ("SET work_mem TO DEFAULT", "set work_mem to default"),
        ("SET TIME ZONE 'UTC'", "set time zone ''"),
        ("SET TIME ZONE INTERVAL '1' HOUR", "set time zone ''"),
        ("SET NAMES 'UTF8'", "set names ''"),
        ("SET SCHEMA 'tenant_17'", "set schema ''"),
        ("SET ROLE tenant_17", "set role ''"),
        (
            "SET SESSION AUTHORIZATION tenant_17",
            "set session authorization ''",
        ),
        (
            "SET x = $a$s3cret$a$ -- pgweir: route=primary\n; SELECT 'y', 17",
            "set x = ''; select '', 0",
        ),
        (
            "BEGIN; SET LOCAL app.id = '17'; UPDATE t SET a = 5, b = c WHERE d = 'x'; COMMIT",
            "begin; set local app.id = ''; update t set a = 0, b = c where d = ''; commit",
        ),
        (
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "set transaction isolation level serializable",
        ),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "set session characteristics as transaction read only",
        ),
        (
            "SET TRANSACTION SNAPSHOT '00000003-1'",
            "set transaction snapshot ''",
        ),
        (
            "SET CONSTRAINTS ALL DEFERRED",
            "set constraints all deferred",
        ),
        (
            "ALTER ROLE bob SET app.jwt TO s3cret",
            "alter role bob set app.jwt to ''",
        ),
        (
            "ALTER ROLE bob IN DATABASE d SET app.jwt = 's3cret'",
            "alter role bob in database d set app.jwt = ''",
        ),
        (
            "ALTER DATABASE d SET app.jwt = s3cret",
            "alter database d set app.jwt = ''",
        ),
        (
            "ALTER SYSTEM SET app.jwt = s3cret",
            "alter system set app.jwt = ''",
        ),
        (
            "ALTER FUNCTION f() SET app.jwt = s3cret",
            "alter function f() set app.jwt = ''",
        ),
        (
            "ALTER TABLE t ALTER a SET DEFAULT b",
            "alter table t alter a set default b",
        ),
        (
            "ALTER USER bob PASSWORD 's3cret' LOGIN",
            "alter user bob password '' login",
        ),
        (
            "ALTER USER bob PASSWORD \"s3cret\" x",
            "alter user bob password ''",
        ),
        (
            "ALTER USER bob PASSWORD s3cret!x LOGIN",
            "alter user bob password ''",
        ),
        (
            "ALTER ROLE bob PASSWORD NULL LOGIN",
            "alter role bob password null login",
        ),
        (
            "CREATE USER bob WITH ENCRYPTED PASSWORD 's3cret' LOGIN",
            "create user bob with encrypted password '' login",
        ),
        (
            "CREATE ROLE bob LOGIN PASSWORD $$s3cret$$",
            "create role bob login password ''",
        ),
        (
            "CREATE USER MAPPING FOR bob SERVER s OPTIONS (password 's3cret', user 'x')",
            "create user mapping for bob server s options (password '', user '')",
        ),
        (
            "SELECT 10.0.0.17, 4111111111111111x, 0x1G, $4711171717",
            "select 0, 0, 0, $0",
        ),
        (
            "SELECT U&'d\\0061ta', B'0101', N'abcd'",
            "select u&'', b'', n''",
        ),
        ("SELECT 1 /* s3cret */ -- s3cret", "select 0"),
        (
            "/* pgweir: route=primary */ SELECT 'x'",
            "/* pgweir: route=primary */ select ''",
        ),
    ] {
        let shown_now = displayed(sql);
        assert_eq!(&*shown_now.text, shown, "{sql}");
        assert!(shown_now.is_whole);
        assert_eq!(
            shown_now.fingerprint,
            Fingerprint::of(shown.as_bytes()),
            "{sql}"
        );
    }
}

#[test]
fn of_a_text_without_an_end_only_the_command_is_shown() {
    for (sql, shown) in [
        ("SELECT 'unterm1nated", "select ..."),
        ("SELECT 'it\\'s leak3d value' AS x", "select ..."),
        ("UPDATE t SET a = 'it's leak3d' WHERE b", "update ..."),
        ("/* c */ INSERT INTO t VALUES ($$abc", "insert ..."),
        ("SELECT \"leak3d", "select ..."),
        ("SELECT 1 /* leak3d", "select ..."),
        ("'leak3d", "..."),
        ("(SELECT 'leak3d", "..."),
    ] {
        let shown_now = displayed(sql);
        assert_eq!(
            (&*shown_now.text, shown_now.is_whole),
            (shown, false),
            "{sql}"
        );
        assert_eq!(shown_now, Displayed::command(&shape(sql)));
    }
}

#[test]
fn of_a_text_that_the_server_reads_otherwise_only_the_command_is_shown() {
    let of = |sql: &str| Displayed::command(&shape(sql)).text.to_string();
    assert_eq!(of("SELECT 'it\\'s leak3d' /* it's */"), "select ...");
    assert_eq!(of("  COMMIT"), "commit");
    assert_eq!(of(""), "");
    assert_eq!(of("-- nothing"), "");
    let select = displayed("select");
    assert_ne!(
        Displayed::command(b"select a").fingerprint,
        select.fingerprint
    );
}

#[test]
fn settings_of_one_name_are_one_statement() {
    let one = displayed("SET app.user_id = '17'");
    assert_eq!(one, displayed("set app.user_id  =  4711"));
    assert_eq!(one, displayed("set app.user_id = a, b"));
    assert_ne!(one, displayed("set app.other = '17'"));
}

#[test]
fn an_ordinary_statement_is_shown_with_the_fingerprint_that_rules_take() {
    for sql in [
        "SELECT * FROM t WHERE id = 17 AND s = 'x'",
        "INSERT INTO t (a, b) VALUES ($1, .5) ON CONFLICT DO UPDATE SET a = excluded.a",
        "-- pgweir: max_lag=2s\nSELECT a FROM t",
        "WITH x AS (SELECT 1) SELECT E'\\'', \"A\" FROM x; COMMIT",
        "CREATE TABLE t (a int DEFAULT 5); ALTER TABLE t SET (fillfactor = 70)",
    ] {
        let shape = shape(sql);
        let shown = Displayed::of(&shape);
        assert_eq!(shown.text.as_bytes(), shape, "{sql}");
        assert_eq!(shown.fingerprint, Fingerprint::of(sql.as_bytes()), "{sql}");
    }
}

#[test]
fn a_long_one_is_cut_and_told_apart_by_all_of_it() {
    let long = |end: &str| displayed(&format!("SELECT \"{}\", {end}", "é".repeat(2000)));
    let (one, other) = (long("a"), long("b"));
    assert!(one.text.len() <= DISPLAY_BYTES_LIMIT && one.text.len() > DISPLAY_BYTES_LIMIT - 3);
    assert!(one.text.ends_with('é'));
    assert_eq!(one.text, other.text);
    assert_ne!(one.fingerprint, other.fingerprint);
}

#[test]
fn a_text_is_cut_at_a_character() {
    assert_eq!(beginning("aéb".as_bytes(), 2), "a");
    assert_eq!(beginning("aéb".as_bytes(), 3), "aé");
    assert_eq!(beginning(b"ab", 5), "ab");
    assert_eq!(beginning(b"\xFF\xFF\xFF", 2), "");
    assert_eq!(beginning(b"a\xC3", 5), "a\u{FFFD}");
}

/// A value as a statement may have it, with what must not be shown of it.
fn value() -> impl Strategy<Value = (String, String)> {
    // Letters that stand in no keyword of the templates, so that no word is taken for a value.
    let secret = || "[qjzk7]{4,12}";
    prop_oneof![
        secret().prop_map(|s| (format!("'{s}'"), s)),
        secret().prop_map(|s| (format!("'it''s {s}'"), s)),
        secret().prop_map(|s| (format!("E'\\'{s}'"), s)),
        secret().prop_map(|s| (format!("$q${s}$q$"), s)),
        secret().prop_map(|s| (format!("U&'\\0061{s}'"), s)),
        "[1-9]{4,16}".prop_map(|s| (s.clone(), s)),
        "[1-9]{4,9}".prop_map(|s| (format!("-0.{s}"), s)),
        "[1-9]{4,9}".prop_map(|s| (format!("{s}e7"), s)),
    ]
}

/// A statement with a place for a value.
fn template() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "SELECT a FROM t WHERE b = @ AND c > 5",
        "INSERT INTO t VALUES (@, 'x'), (5, @)",
        "UPDATE t SET a = @, b = c + @",
        "SET app.x = @",
        "SET LOCAL app.x TO @, @",
        "SET TIME ZONE @",
        "SET TRANSACTION SNAPSHOT @",
        "ALTER ROLE r SET app.x = @",
        "ALTER ROLE r PASSWORD @ VALID UNTIL @",
        "CREATE USER u PASSWORD @",
        "NOTIFY n, @",
        "SELECT set_config('app.x', @, false)",
        "DO @",
        "PREPARE TRANSACTION @",
        "EXPLAIN SELECT @::text /* @ */",
        "SELECT @ -- @\n, @",
        "COMMENT ON TABLE t IS @",
        "gibberish @",
    ])
}

proptest! {
    #[test]
    fn no_literal_of_a_statement_is_shown(
        mut statements in prop::collection::vec((template(), value()), 1..4),
        open in prop::option::of(value()),
    ) {
        // Only as the last: what comes behind it is no value any more, as its quotes have changed sides.
        statements.extend(open.map(|value| ("SELECT @ 'open", value)));
        let mut sql = String::new();
        for (template, (written, _)) in &statements {
            sql.push_str(&template.replace('@', written));
            sql.push_str(" ; ");
        }
        for shown in [displayed(&sql), Displayed::command(&shape(&sql))] {
            for (_, (_, secret)) in &statements {
                prop_assert!(!shown.text.contains(secret.as_str()), "{sql}: {}", shown.text);
            }
        }
    }

    #[test]
    fn no_literal_token_of_any_text_is_shown(
        text in "([qjzk]{4,6}|[1-9]{4,6}|'|''|\"|set |= |to |;|E'|\\$\\$|\\$q\\$| |-|\\.|,|/\\*|\\*/|--|\n|\\\\|password |alter role |select ){0,24}",
    ) {
        let shown = displayed(&text).text;
        let shape = shape(&text);
        for token in Lexer::new(&shape) {
            let is_value = matches!(token.kind, TokenKind::String | TokenKind::Number | TokenKind::Junk | TokenKind::Unterminated);
            let token = String::from_utf8_lossy(token.text);
            if is_value && token.len() >= 4 {
                prop_assert!(!shown.contains(&*token), "{text}: {shown}");
            }
        }
    }

    #[test]
    fn what_is_shown_has_its_own_fingerprint_and_shows_itself(
        text in "(SET|select|alter role|password|1|'a'|\\$\\$|\\$1|\\.5|e'|x|=|to|;| |--|/\\*|\\*/|-- pgweir:a|\n|\"){0,20}",
    ) {
        let shown = displayed(&text);
        prop_assert_eq!(shown.fingerprint, Fingerprint::of_shape(shown.text.as_bytes()), "{}", shown.text);
    }
}
