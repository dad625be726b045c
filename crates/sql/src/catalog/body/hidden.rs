//! What a body does that nothing shows afterwards: parameters that no view lists, changes of the schema.
//!
//! ## Why
//! What a function leaves in the session is asked of the server, which lists its own parameters but not those of two-part names
//! that no extension has defined. A session that called such a function must stay where it is, so it is told from all others
//! here, as exactly as words allow.

use pgweir_model::catalog::Hidden;

use super::begins;
use crate::lexer::{Lexer, TokenKind};
use crate::tokens::Tokens;

/// What text that is run may begin with where it sets no parameter by itself.
const QUIET: &[&str] = &[
    "alter", "analyze", "cluster", "comment", "copy", "create", "delete", "drop", "explain",
    "grant", "insert", "lock", "merge", "notify", "refresh", "reindex", "revoke", "select",
    "table", "truncate", "update", "vacuum", "values", "with",
];

/// Returns what a statement that begins at `index` does.
pub(super) fn of_statement(t: Tokens<'_, '_>, index: usize) -> Hidden {
    let token = t.at(index);
    if token.kind != TokenKind::Word || t.before(index, 1).is_punct(".") {
        return Hidden::NOTHING;
    }
    match token.text {
        b"set" if begins(t, index) && is_set_of_two_parts(t, index + 1) => Hidden::SETTING,
        b"create" | b"alter" if begins(t, index) && !is_temporary(t, index) => Hidden::SCHEMA,
        b"execute" => of_execute(t, index + 1),
        _ => Hidden::NOTHING,
    }
}

/// Returns whether `SET` is followed by a name of two parts, for longer than the transaction.
fn is_set_of_two_parts(t: Tokens<'_, '_>, index: usize) -> bool {
    let name = index + usize::from(t.word(index, "session"));
    !t.word(index, "local") && t.chain_end(name) > name
}

/// Returns whether what `CREATE` at `index` makes is the session's own.
fn is_temporary(t: Tokens<'_, '_>, index: usize) -> bool {
    (index + 1..index + 3).any(|at| t.at(at).is_any(&["temp", "temporary"]))
}

/// Returns whether the call of `set_config` at `index` may set a parameter of two parts for longer than the transaction.
pub(super) fn is_lasting_and_unlisted(t: Tokens<'_, '_>, index: usize) -> bool {
    let name = t.at(index + 2);
    let is_listed = name.kind == TokenKind::String
        && !name.text.contains(&b'.')
        && !name.text.contains(&b'\\')
        && t.punct(index + 3, ",");
    if is_listed {
        return false;
    }
    let end = t.closing(index + 1).unwrap_or(index);
    let before = t.before(end, 2);
    let is_local = t.before(end, 1).is_word("true")
        && (before.is_punct(",") || before.text == b"=>" || before.text == b":=");
    !is_local
}

/// Returns what `EXECUTE` of the text at `index` does.
fn of_execute(t: Tokens<'_, '_>, index: usize) -> Hidden {
    // A right, or part of CREATE TRIGGER.
    if t.at(index).is_any(&["on", "function", "procedure"]) {
        return Hidden::NOTHING;
    }
    let end = (index..t.len()).find(|at| t.punct(*at, ";"));
    let text = t.to(end.unwrap_or(t.len()));
    let calls_set_config = text.from(index).0.iter().any(|token| {
        token.is_string()
            && memchr::memmem::find(&token.text.to_ascii_lowercase(), b"set_config").is_some()
    });
    let mut first = index;
    while text.punct(first, "(") || text.word(first, "format") && text.punct(first + 1, "(") {
        first += 1;
    }
    let literal = text.at(first);
    let content = literal.content().filter(|_| !calls_set_config);
    let Some(content) = content else {
        return Hidden::SETTING;
    };
    let words: Vec<Vec<u8>> = Lexer::new(content)
        .filter(|token| !matches!(token.kind, TokenKind::Whitespace | TokenKind::Comment))
        .take(3)
        .map(|token| token.text.to_ascii_lowercase())
        .collect();
    let is = |at: usize, list: &[&str]| {
        let word = words.get(at);
        word.is_some_and(|word| list.iter().any(|known| known.as_bytes() == *word))
    };
    let temporary = ["temp", "temporary"];
    if is(0, &["create", "alter"]) && !is(1, &temporary) && !is(2, &temporary) {
        Hidden::SCHEMA
    } else if is(0, QUIET) {
        Hidden::NOTHING
    } else {
        Hidden::SETTING
    }
}

/// Returns what a function in a language that is not read may do. A text without `SET` in it sets nothing, unless its text is
/// elsewhere: one of a single word names a class or a file.
pub(super) fn of_foreign_text(source: &str) -> Hidden {
    let source = source.trim();
    let is_elsewhere = !source.contains(char::is_whitespace);
    let words = source.split(|c: char| !c.is_alphanumeric() && c != '_');
    let sets =
        |word: &str| word.eq_ignore_ascii_case("set") || word.eq_ignore_ascii_case("set_config");
    if is_elsewhere || words.into_iter().any(sets) {
        Hidden::SETTING
    } else {
        Hidden::NOTHING
    }
}
