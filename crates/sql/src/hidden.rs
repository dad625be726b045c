//! Settings that a text makes in a roundabout way: by `set_config`, or inside of a `DO` block.
//!
//! ## Why
//! Drivers and frameworks set a few parameters of presentation by `SELECT set_config('TimeZone', 'UTC', false)` on every
//! connection (Django, asyncpg). Were that to pin the session to its server connection, nothing would be left of pooling.
//! The server knows what such a parameter is afterwards, also where the value was bound as a parameter, and it is asked.
//!
//! Like [`session_statements`](crate::session_statements), this reads the text itself: its shape has no literals.

use pgweir_model::catalog::Hidden;

use crate::catalog::Body;
use crate::lexer::{Token, TokenKind};
use crate::tokens::{Tokens, significant};

/// Parameters whose value is taken over from the server after a text has set them in a roundabout way. Lower case.
///
/// They change how values are written or how a query is planned, and nothing that the proxy decides by.
pub const ADOPTED: [&str; 7] = [
    "application_name",
    "bytea_output",
    "datestyle",
    "extra_float_digits",
    "intervalstyle",
    "jit",
    "timezone",
];

/// Returns whether every `set_config` of the text names one of [`ADOPTED`] by a plain literal.
pub fn sets_adopted_only(sql: &[u8]) -> bool {
    let (tokens, _) = significant(sql);
    let t = Tokens(&tokens);
    let mut calls = 0;
    for index in 0..t.len() {
        let is_call = is_word(t, index, b"set_config") && t.punct(index + 1, "(");
        if !is_call {
            continue;
        }
        calls += 1;
        let name = t.at(index + 2);
        let content = name.text.get(1..name.text.len().saturating_sub(1));
        let is_adopted = |content: &[u8]| {
            ADOPTED
                .iter()
                .any(|known| known.as_bytes().eq_ignore_ascii_case(content))
        };
        if !name.text.starts_with(b"'")
            || !t.punct(index + 3, ",")
            || !content.is_some_and(is_adopted)
        {
            return false;
        }
    }
    calls > 0
}

/// Returns whether the body of a `DO` block may set a parameter that no view of the server shows: one of two parts, for an
/// extension or an application, which PostgreSQL lists only while an extension has defined it.
pub fn sets_unlisted(sql: &[u8]) -> bool {
    let (tokens, _) = significant(sql);
    tokens.iter().filter_map(Token::content).any(|body| {
        let (words, _) = significant(body);
        let t = Tokens(&words);
        (0..t.len()).any(|index| {
            is_word(t, index, b"set_config")
                || is_word(t, index, b"execute")
                || (is_word(t, index, b"set")
                    && (1..4).any(|distance| t.punct(index + distance, ".")))
        })
    })
}

/// Returns whether the body of a `DO` block changes the schema.
pub fn changes_schema(sql: &[u8]) -> bool {
    let (tokens, _) = significant(sql);
    tokens.iter().filter_map(Token::content).any(|body| {
        let source = String::from_utf8_lossy(body);
        Body::of_block(&source).hidden.has(Hidden::SCHEMA)
    })
}

fn is_word(t: Tokens<'_, '_>, index: usize, word: &[u8]) -> bool {
    let token = t.at(index);
    token.kind == TokenKind::Word && token.text.eq_ignore_ascii_case(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_config_of_adopted_parameters_is_told_from_any_other() {
        for sql in [
            "SELECT set_config('TimeZone', 'UTC', false)",
            "SELECT current_setting('jit') AS cur, set_config('jit', 'off', false) AS new",
            "select pg_catalog.SET_CONFIG('datestyle', $1, false)",
        ] {
            assert!(sets_adopted_only(sql.as_bytes()), "{sql}");
        }
        for sql in [
            "SELECT set_config('work_mem', '1MB', false)",
            "SELECT set_config($1, 'UTC', false)",
            "SELECT set_config('Time' || 'Zone', 'UTC', false)",
            "SELECT set_config('jit', 'off', false), set_config('app.x', '1', false)",
            "SELECT set_config(E'jit', 'off', false)",
            "SELECT 1",
        ] {
            assert!(!sets_adopted_only(sql.as_bytes()), "{sql}");
        }
    }

    #[test]
    fn do_blocks_that_may_set_what_no_view_shows_are_found() {
        for sql in [
            "DO $$ BEGIN SET my.x = 1; END $$",
            "do $a$ begin perform set_config('my.x', '1', false); end $a$",
            "DO 'BEGIN SET LOCAL my.x = 1; END'",
            "DO E'BEGIN SET LOCAL my.x = 1; END'",
            "DO $a$ BEGIN PERFORM '$1'; SET my.x = 1; END $a$",
            "DO $$ BEGIN EXECUTE 'SET my.x = 1'; END $$",
        ] {
            assert!(sets_unlisted(sql.as_bytes()), "{sql}");
        }
        for sql in [
            "DO $$ BEGIN PERFORM 1; END $$",
            "DO $$ BEGIN SET work_mem = '1MB'; END $$",
            "DO $$ BEGIN UPDATE t SET a = 1; END $$",
        ] {
            assert!(!sets_unlisted(sql.as_bytes()), "{sql}");
        }
    }

    #[test]
    fn do_blocks_that_change_the_schema_are_found() {
        for sql in [
            "DO $$ BEGIN CREATE TYPE \"Role\" AS ENUM ('USER'); EXCEPTION WHEN duplicate_object THEN null; END $$",
            "do $a$ begin execute format('ALTER TABLE %I SET UNLOGGED', 't'); end $a$ language plpgsql",
            "DO 'BEGIN CREATE VIEW v AS SELECT 1; END'",
        ] {
            assert!(changes_schema(sql.as_bytes()), "{sql}");
        }
        for sql in [
            "DO $$ BEGIN PERFORM 1; CREATE TEMP TABLE t (a int); END $$",
            "DO $$ BEGIN UPDATE t SET a = 'create'; END $$",
        ] {
            assert!(!changes_schema(sql.as_bytes()), "{sql}");
        }
    }
}
