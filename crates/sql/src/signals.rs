//! Whom a text signals: the process IDs that it gives to `pg_cancel_backend` and `pg_terminate_backend`.
//!
//! ## Why
//! A client knows other sessions by the process IDs that they were given, which are the proxy's and no server's. A text that
//! passes one on must be read for it, and the number replaced in the client's own text.
//!
//! Like [`session_statements`](crate::session_statements), this reads the text itself: its shape has no literals.
//!
//! ## Limits
//! The number must stand there as such: a literal or a parameter, perhaps with a cast behind it. What is computed, or comes out
//! of a table, is a matter of the server.

use std::ops::Range;

use crate::lexer::{Token, TokenKind};
use crate::tokens::{Tokens, significant};

/// The functions, and whether they end the session.
const FUNCTIONS: [(&str, Signal); 2] = [
    ("pg_cancel_backend", Signal::Cancel),
    ("pg_terminate_backend", Signal::Terminate),
];

/// What is to become of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Its statement is cancelled.
    Cancel,
    /// It ends.
    Terminate,
}

/// Where a process ID comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessId {
    /// It stands in the text.
    Literal(u32),
    /// It is the parameter of this number, from 1.
    Parameter(u16),
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalCall {
    /// What it asks for.
    pub signal: Signal,
    /// Of whom.
    pub process_id: ProcessId,
    /// Where that stands in the text: the digits alone.
    pub range: Range<usize>,
}

/// Returns whether a function of this name is one of them, wherever it lives.
pub(crate) fn is_signal_function(name: &str) -> bool {
    FUNCTIONS.iter().any(|(known, _)| *known == name)
}

/// Returns the calls of a text whose process ID can be read, in order.
///
/// # Examples
///
/// ```
/// use pgweir_sql::signals::{ProcessId, signal_calls};
///
/// let calls = signal_calls(b"SELECT pg_cancel_backend(4194305)");
/// assert_eq!(calls[0].process_id, ProcessId::Literal(4194305));
/// assert_eq!(calls[0].range, 25..32);
/// ```
pub fn signal_calls(sql: &[u8]) -> Vec<SignalCall> {
    let (tokens, _) = significant(sql);
    let t = Tokens(&tokens);
    (0..t.len()).filter_map(|index| call_at(t, index)).collect()
}

/// Puts other numbers into a text: `translate` returns what a process ID that stands in it is replaced by. `None` where none is.
pub fn with_process_ids(sql: &[u8], translate: impl Fn(u32) -> Option<u32>) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut end = 0;
    for call in signal_calls(sql) {
        let ProcessId::Literal(id) = call.process_id else {
            continue;
        };
        let Some(new) = translate(id) else { continue };
        text.extend_from_slice(sql.get(end..call.range.start).unwrap_or_default());
        text.extend_from_slice(new.to_string().as_bytes());
        end = call.range.end;
    }
    (end > 0).then(|| {
        text.extend_from_slice(sql.get(end..).unwrap_or_default());
        text
    })
}

fn call_at(t: Tokens<'_, '_>, index: usize) -> Option<SignalCall> {
    let name = t.at(index);
    let (_, signal) = FUNCTIONS
        .into_iter()
        .find(|(known, _)| is_name(name, known))?;
    let is_builtin = !t.before(index, 1).is_punct(".") || is_name(t.before(index, 2), "pg_catalog");
    if !is_builtin || !t.punct(index + 1, "(") || !ends_argument(t, index + 3) {
        return None;
    }
    let (process_id, range) = process_id(t.at(index + 2))?;
    Some(SignalCall {
        signal,
        process_id,
        range,
    })
}

fn is_name(token: Token<'_>, name: &str) -> bool {
    match token.kind {
        TokenKind::Word => token.text.eq_ignore_ascii_case(name.as_bytes()),
        TokenKind::QuotedIdent => {
            let inner = token.text.strip_prefix(b"\"");
            inner.and_then(|inner| inner.strip_suffix(b"\"")) == Some(name.as_bytes())
        }
        _ => false,
    }
}

/// Returns whether an argument ends here, or only a cast follows.
fn ends_argument(t: Tokens<'_, '_>, index: usize) -> bool {
    t.punct(index, ",") || t.punct(index, ")") || t.punct(index, "::")
}

fn process_id(token: Token<'_>) -> Option<(ProcessId, Range<usize>)> {
    let text = std::str::from_utf8(token.text).ok()?;
    let (digits, before) = match token.kind {
        TokenKind::Number => (text, 0),
        TokenKind::String => (text.strip_prefix('\'')?.strip_suffix('\'')?, 1),
        TokenKind::Param => {
            let number = text.strip_prefix('$')?.parse().ok()?;
            let range = token.start..token.start + text.len();
            return Some((ProcessId::Parameter(number), range));
        }
        _ => return None,
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let start = token.start + before;
    let id = ProcessId::Literal(digits.parse().ok()?);
    Some((id, start..start + digits.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(sql: &str) -> Vec<ProcessId> {
        let calls = signal_calls(sql.as_bytes());
        calls.into_iter().map(|call| call.process_id).collect()
    }

    #[test]
    fn finds_process_ids_however_they_are_written() {
        use ProcessId::{Literal, Parameter};
        for (sql, expected) in [
            ("select pg_cancel_backend(7)", vec![Literal(7)]),
            ("SELECT PG_TERMINATE_BACKEND ( 7 , 100 )", vec![Literal(7)]),
            ("select pg_catalog.pg_cancel_backend('7')", vec![Literal(7)]),
            ("select \"pg_cancel_backend\"(7::int)", vec![Literal(7)]),
            ("select pg_cancel_backend($2::int4)", vec![Parameter(2)]),
            (
                "select pg_cancel_backend(1), pg_terminate_backend(2)",
                vec![Literal(1), Literal(2)],
            ),
            ("select pg_cancel_backend(/* who */ 7)", vec![Literal(7)]),
        ] {
            assert_eq!(ids(sql), expected, "{sql}");
        }
    }

    #[test]
    fn leaves_alone_what_is_no_number_or_no_call() {
        for sql in [
            "select pg_cancel_backend(pid) from pg_stat_activity",
            "select pg_cancel_backend(7 + 1)",
            "select pg_cancel_backend(-7)",
            "select pg_cancel_backend(7.0)",
            "select pg_cancel_backend(99999999999)",
            "select app.pg_cancel_backend(7)",
            "select 'pg_cancel_backend(7)'",
            "select pg_cancel_backend from t",
            "select pg_cancel_backend(E'7')",
            "select pg_cancel_backend(",
        ] {
            assert_eq!(ids(sql), [], "{sql}");
        }
    }

    #[test]
    fn replaces_numbers_and_nothing_else() {
        let sql = b"SELECT 7, pg_cancel_backend('7'), pg_terminate_backend(8, 7) -- 7";
        let text = with_process_ids(sql, |id| (id == 7).then_some(4711));
        let expected = b"SELECT 7, pg_cancel_backend('4711'), pg_terminate_backend(8, 7) -- 7";
        assert_eq!(text.as_deref(), Some(&expected[..]));
        assert_eq!(with_process_ids(sql, |_| None), None);
    }
}
