//! What the body of a function may leave in the session, read from its words.
//!
//! ## Why
//! After a function that may have changed a setting, the server connection is reset before another session gets it. Most
//! functions do nothing of the kind, and their text shows it: nothing can leave a setting, a lock or a temporary table behind
//! without one of a few words.
//!
//! ## Limits
//! Only `sql` and `plpgsql` are read; `c` and `internal` are taken for quiet, and any other language for nothing of the kind.
//! Triggers that its statements set off are not followed. What it calls is known by name: any function of that name counts.
//! Text that `EXECUTE` runs is judged by the literal that it begins with.

mod hidden;

use pgweir_model::PinReason;
use pgweir_model::catalog::Hidden;

use crate::catalog::nodes::References;
use crate::functions::{self, Call};
use crate::lexer::{Lexer, Token, TokenKind};
use crate::names::{self, Keyword, keyword};
use crate::tokens::Tokens;

/// What can be told of a function's body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Body {
    /// The functions that it calls, by name, without those that are built in; sorted.
    pub(crate) calls: Box<[Box<str>]>,
    /// What it refers to where the body is stored as a tree (`BEGIN ATOMIC`).
    pub(crate) references: References,
    /// What the defaults of its arguments refer to.
    pub(crate) defaults: References,
    pub(crate) leaves: Leaves,
    /// It asks what only the primary can answer.
    pub(crate) asks_primary: bool,
    /// What it does, if it is volatile, that nothing shows afterwards.
    pub(crate) hidden: Hidden,
    /// That of it which PostgreSQL does not refuse in a function that is not volatile.
    pub(crate) hidden_by_call: Hidden,
}

/// What a body may leave behind in the session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Leaves {
    #[default]
    Nothing,
    /// What a statement in it does, which PostgreSQL refuses in a function that is not volatile.
    ByStatement,
    /// What a function in it does.
    ByCall,
}

impl Body {
    /// Reads the body of a function from `pg_proc`.
    ///
    /// `source` is `prosrc`; `references` are those of `prosqlbody`, `defaults` those of `proargdefaults`.
    pub fn read(
        language: &str,
        source: &str,
        references: References,
        defaults: References,
    ) -> Self {
        let mut body = Body {
            references,
            defaults,
            ..Body::default()
        };
        match language {
            "c" | "internal" => {}
            "sql" | "plpgsql" => body.read_text(source),
            _ => {
                body.leaves = Leaves::ByStatement;
                body.hidden = hidden::of_foreign_text(source);
            }
        }
        body
    }

    /// Reads the body of a `DO` block.
    pub(crate) fn of_block(source: &str) -> Self {
        let mut body = Body::default();
        body.read_text(source);
        body
    }

    fn read_text(&mut self, source: &str) {
        let text = with_lower_case_words(source);
        let tokens: Vec<Token<'_>> = Lexer::new(&text)
            .filter(|token| !matches!(token.kind, TokenKind::Whitespace | TokenKind::Comment))
            .collect();
        let t = Tokens(&tokens);
        let mut calls = Vec::new();
        for index in 0..t.len() {
            let token = t.at(index);
            match token.kind {
                TokenKind::Word | TokenKind::QuotedIdent => self.name(t, index, &mut calls),
                TokenKind::UnicodeIdent | TokenKind::Unterminated => self.leave(Leaves::ByCall),
                _ => {}
            }
        }
        calls.sort_unstable();
        calls.dedup();
        self.calls = calls.into();
    }

    fn leave(&mut self, leaves: Leaves) {
        self.leaves = self.leaves.max(leaves);
    }

    fn name(&mut self, t: Tokens<'_, '_>, index: usize, calls: &mut Vec<Box<str>>) {
        let token = t.at(index);
        let name = token.folded();
        if names::is_temp_schema(&name) || is_loud(t, index) {
            self.leave(Leaves::ByStatement);
        }
        self.hidden = self.hidden.union(hidden::of_statement(t, index));
        if !t.punct(index + 1, "(") {
            self.asks_primary |= names::is_primary_only_relation(&name);
            return;
        }
        let plain = token.kind == TokenKind::Word && !t.before(index, 1).is_punct(".");
        if plain && matches!(keyword(&name), Keyword::Reserved | Keyword::ColumnName) {
            return;
        }
        let schema = t.qualifier(t.chain_start(index), index);
        if leaves_traces(&name) {
            self.leave(Leaves::ByCall);
        }
        if *name == *b"set_config" && hidden::is_lasting_and_unlisted(t, index) {
            self.hidden = self.hidden.union(Hidden::SETTING);
            self.hidden_by_call = self.hidden_by_call.union(Hidden::SETTING);
        }
        match functions::judge(schema.as_deref(), &name) {
            Call::PrimaryOnly => self.asks_primary |= !reads_custom_setting(t, index),
            Call::Safe | Call::Volatile => {}
            Call::Unknown => calls.push(String::from_utf8_lossy(&name).into()),
        }
    }
}

/// Returns whether a function that is built in, or `dblink`'s, leaves something in the session.
pub(crate) fn leaves_traces(name: &[u8]) -> bool {
    let pins = matches!(
        functions::pin(name),
        Some(PinReason::AdvisoryLock | PinReason::SetSeed)
    );
    name == b"set_config" || pins || functions::is_suspect(name)
}

/// Returns the text with its words, but not what is quoted, in lower case.
pub(super) fn with_lower_case_words(source: &str) -> Vec<u8> {
    let mut text = Vec::with_capacity(source.len());
    for token in Lexer::new(source.as_bytes()) {
        let start = text.len();
        text.extend_from_slice(token.text);
        if token.kind == TokenKind::Word
            && let Some(word) = text.get_mut(start..)
        {
            word.make_ascii_lowercase();
        }
    }
    text
}

/// Returns whether the word at `index` may begin a statement that changes the session, or one whose text is not there.
fn is_loud(t: Tokens<'_, '_>, index: usize) -> bool {
    let token = t.at(index);
    if token.kind != TokenKind::Word || t.before(index, 1).is_punct(".") {
        return false;
    }
    match token.text {
        // In the midst of an UPDATE the word begins nothing.
        b"set" => begins(t, index),
        b"reset" | b"listen" | b"unlisten" | b"load" | b"discard" | b"prepare" | b"deallocate"
        | b"temp" | b"temporary" | b"hold" | b"execute" => true,
        b"do" => t.at(index + 1).is_string() || t.word(index + 1, "language"),
        _ => false,
    }
}

/// Returns whether a statement may begin at `index`.
fn begins(t: Tokens<'_, '_>, index: usize) -> bool {
    let previous = t.before(index, 1);
    index == 0
        || previous.is_punct(";")
        || previous.text == b">>"
        || previous.is_any(&["begin", "then", "else", "loop"])
}

/// Returns whether the call at `index` is `current_setting('a.b'...)`: a setting that no server has of its own.
fn reads_custom_setting(t: Tokens<'_, '_>, index: usize) -> bool {
    let name = t.at(index + 2);
    t.word(index, "current_setting") && name.is_string() && name.text.contains(&b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &str) -> Body {
        Body::read(
            "plpgsql",
            source,
            References::default(),
            References::default(),
        )
    }

    #[test]
    fn writes_and_reads_leave_nothing() {
        for source in [
            "BEGIN INSERT INTO log (msg) VALUES ($1) RETURNING id INTO i; RETURN i; END",
            "BEGIN UPDATE t SET a = 1, b = now() WHERE id = $1; RETURN NEW; END",
            "SELECT nextval('s'), lower($1), coalesce(a, b) FROM t",
            "BEGIN INSERT INTO t VALUES (1) ON CONFLICT (id) DO UPDATE SET a = 2; END",
            "DECLARE r record; BEGIN FOR r IN SELECT 1 LOOP RAISE NOTICE 'set x; temp'; END LOOP; END",
            "BEGIN PERFORM pg_advisory_xact_lock(1); END",
        ] {
            assert_eq!(read(source).leaves, Leaves::Nothing, "{source}");
        }
    }

    #[test]
    fn what_may_change_the_session_is_heard() {
        for source in [
            "BEGIN SET work_mem = '1GB'; END",
            "SET LOCAL x = 1",
            "BEGIN IF true THEN SET x = 1; END IF; END",
            "BEGIN <<a>> SET x = 1; END",
            "BEGIN RESET ALL; END",
            "BEGIN CREATE TEMP TABLE t (a int); END",
            "BEGIN SELECT 1 INTO TEMPORARY t; END",
            "BEGIN CREATE TABLE pg_temp.t (a int); END",
            "BEGIN EXECUTE 'SET ' || $1; END",
            "BEGIN LISTEN c; END",
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
            "BEGIN DO 'x'; END",
            "LOAD 'auto_explain'",
        ] {
            assert_eq!(read(source).leaves, Leaves::ByStatement, "{source}");
        }
        for source in [
            "SELECT set_config('a', 'b', false)",
            "SELECT pg_advisory_lock(1)",
            "BEGIN PERFORM pg_catalog.setseed(0.5); END",
            "SELECT dblink_connect('x')",
            "SELECT U&\"\\0061\"",
        ] {
            assert_eq!(read(source).leaves, Leaves::ByCall, "{source}");
        }
        let other = Body::read(
            "plpython3u",
            "pass",
            References::default(),
            References::default(),
        );
        assert_eq!(other.leaves, Leaves::ByStatement);
    }

    #[test]
    fn settings_that_no_view_lists_are_found() {
        for source in [
            "SELECT set_config('app.tenant', $1, false)",
            "BEGIN PERFORM set_config(name, value, false); END",
            "BEGIN PERFORM set_config('app.tenant', x, is_local); END",
            "BEGIN PERFORM pg_catalog.SET_CONFIG('app.a', f(1, true), false); END",
            "BEGIN SET app.tenant = '7'; END",
            "BEGIN SET SESSION app.tenant TO '7'; END",
            "BEGIN EXECUTE command; END",
            "BEGIN EXECUTE 'SET app.tenant = ' || x; END",
            "BEGIN EXECUTE format('SELECT set_config(%L, %L, false)', a, b); END",
            "BEGIN EXECUTE 'DO ' || x; END",
        ] {
            assert!(read(source).hidden.has(Hidden::SETTING), "{source}");
        }
        for source in [
            "BEGIN PERFORM set_config('app.tenant', x, true); END",
            "BEGIN PERFORM set_config('app.tenant', x, is_local => TRUE); END",
            "BEGIN PERFORM set_config('work_mem', x, false); END",
            "BEGIN SET LOCAL app.tenant = '7'; END",
            "BEGIN SET work_mem = '1GB'; END",
            "BEGIN UPDATE a.t SET b = c.d; END",
            "BEGIN EXECUTE format('INSERT INTO %I VALUES ($1)', t) USING 1; END",
            "BEGIN RETURN QUERY EXECUTE 'SELECT * FROM ' || t; END",
            "BEGIN GRANT EXECUTE ON FUNCTION f() TO r; END",
            "BEGIN EXECUTE $q$ CREATE TABLE x (a int) $q$; END",
        ] {
            assert!(!read(source).hidden.has(Hidden::SETTING), "{source}");
        }
    }

    #[test]
    fn changes_of_the_schema_are_found() {
        for source in [
            "BEGIN CREATE TABLE t (a int); END",
            "BEGIN IF x THEN ALTER TABLE t SET UNLOGGED; END IF; END",
            "CREATE OR REPLACE VIEW v AS SELECT 1",
            "BEGIN EXECUTE format('CREATE TABLE %I PARTITION OF t', p); END",
            "BEGIN EXECUTE 'alter table ' || t; END",
        ] {
            assert!(read(source).hidden.has(Hidden::SCHEMA), "{source}");
        }
        for source in [
            "BEGIN CREATE TEMP TABLE t (a int); END",
            "BEGIN CREATE LOCAL TEMPORARY TABLE t (a int); END",
            "BEGIN EXECUTE 'CREATE TEMP TABLE t (a int)'; END",
            "BEGIN INSERT INTO t VALUES ('create'); DROP TABLE t; END",
            "BEGIN EXECUTE 'SELECT 1'; END",
        ] {
            assert!(!read(source).hidden.has(Hidden::SCHEMA), "{source}");
        }
    }

    #[test]
    fn of_other_languages_only_words_are_known() {
        let hidden = |source: &str| {
            let none = References::default;
            Body::read("plpython3u", source, none(), none()).hidden
        };
        for source in [
            "plpy.execute(\"SET a.b = 1\")",
            "set_config( ",
            "a.b.Class.method",
        ] {
            assert_eq!(hidden(source), Hidden::SETTING, "{source}");
        }
        for source in ["return a + b", "x.reset() or offset = 1"] {
            assert_eq!(hidden(source), Hidden::NOTHING, "{source}");
        }
    }

    #[test]
    fn what_only_the_primary_can_answer_is_seen() {
        for (source, asks) in [
            ("SELECT pg_backend_pid()", true),
            ("SELECT count(*) FROM pg_stat_activity", true),
            ("SELECT current_setting('server_version')", true),
            ("SELECT current_setting('app.tenant', true)::int", false),
            ("SELECT app.pg_backend_pid()", false),
            ("SELECT sum(total) FROM orders", false),
        ] {
            assert_eq!(read(source).asks_primary, asks, "{source}");
        }
    }

    #[test]
    fn calls_are_known_by_name() {
        let body =
            read("BEGIN PERFORM app.\"Odd\"(1), Other(2), lower('x'); RETURN count(*) FROM t; END");
        let calls: Vec<&str> = body.calls.iter().map(|call| &**call).collect();
        assert_eq!(calls, ["Odd", "other"]);
    }
}
