//! Where the statements of a text begin and end.

use std::ops::Range;

use crate::lexer::{Lexer, Token, TokenKind};

/// Returns the byte ranges of the statements of a text, without their semicolons, surrounding white space and comments.
/// Empty statements are left out. They pair with [`crate::Classified::statements`].
pub fn split(sql: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut tokens = Lexer::new(sql);
    let mut splitter = Splitter::default();
    std::iter::from_fn(move || {
        let mut range: Option<Range<usize>> = None;
        for token in tokens.by_ref() {
            if matches!(token.kind, TokenKind::Whitespace | TokenKind::Comment) {
                continue;
            }
            if splitter.ends_with(&token) {
                if range.is_some() {
                    break;
                }
                continue;
            }
            let start = range.map_or(token.start, |range| range.start);
            range = Some(start..token.end());
        }
        range
    })
}

/// Returns the byte range of the statement that an `EXPLAIN ROUTE` of this text asks about, with the comments before and
/// behind it: a hint may stand in them.
pub fn explained(sql: &[u8]) -> Option<Range<usize>> {
    let statement = split(sql).next()?;
    let mut tokens = Lexer::new(sql.get(statement.clone())?)
        .filter(|token| token.kind != TokenKind::Whitespace)
        .skip_while(|token| token.kind == TokenKind::Comment);
    let is_comment = |token: &Token<'_>| token.kind == TokenKind::Comment;
    let is = |token: Option<Token<'_>>, word: &[u8]| {
        token.is_some_and(|token| token.text.eq_ignore_ascii_case(word))
    };
    let explain = tokens.next();
    let mut tokens = tokens.skip_while(is_comment);
    if !is(explain, b"explain") || !is(tokens.next(), b"route") {
        return None;
    }
    let first = tokens.next()?;
    if is_comment(&first) && tokens.all(|token| is_comment(&token)) {
        return None;
    }
    // A text for the proxy has one statement only, so all that follows belongs to it.
    Some(statement.start + first.start..sql.len())
}

/// Finds the semicolons that end statements: not those inside parentheses (`CREATE RULE`) nor inside the body of a
/// `CREATE FUNCTION ... BEGIN ATOMIC ... END`.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    parentheses: usize,
    place: Place,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the first word.
    #[default]
    Start,
    /// Behind `EXPLAIN` at the start.
    Explain,
    /// Inside a `CREATE`.
    Create,
    /// Inside a `CREATE`, directly behind the word `BEGIN`.
    CreateBegin,
    /// Inside `BEGIN ATOMIC ... END`, where a statement or the `END` begins. Any other `END` is that of a `CASE`, or a label.
    BlockStatement,
    /// Inside `BEGIN ATOMIC ... END`, elsewhere.
    Block,
    /// Inside any other statement.
    Other,
}

impl Splitter {
    /// Takes the next token that is neither white space nor comment; returns whether it ends the statement.
    pub(crate) fn ends_with(&mut self, token: &Token<'_>) -> bool {
        let in_block = matches!(self.place, Place::Block | Place::BlockStatement);
        match token.text {
            b"(" => self.parentheses += 1,
            b")" => self.parentheses = self.parentheses.saturating_sub(1),
            b";" if in_block => {
                self.place = Place::BlockStatement;
                return false;
            }
            b";" if self.parentheses == 0 => {
                self.place = Place::Start;
                return true;
            }
            _ if token.kind == TokenKind::Word => return self.word(token.text),
            _ => {}
        }
        if in_block {
            self.place = Place::Block;
        }
        false
    }

    /// Takes a word, which never ends a statement.
    fn word(&mut self, word: &[u8]) -> bool {
        let is = |other: &[u8]| word.eq_ignore_ascii_case(other);
        self.place = match self.place {
            Place::Start if is(b"create") => Place::Create,
            Place::Start if is(b"explain") => Place::Explain,
            Place::Explain if is(b"route") => Place::Start,
            Place::Start | Place::Explain | Place::Other => Place::Other,
            Place::Create | Place::CreateBegin if is(b"begin") => Place::CreateBegin,
            Place::CreateBegin if is(b"atomic") => Place::BlockStatement,
            Place::BlockStatement if is(b"end") => Place::Create,
            Place::BlockStatement | Place::Block => Place::Block,
            Place::Create | Place::CreateBegin => Place::Create,
        };
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(sql: &str) -> Vec<&str> {
        split(sql.as_bytes())
            .filter_map(|range| sql.get(range))
            .collect()
    }

    #[test]
    fn empty_statements_are_left_out() {
        assert_eq!(
            parts(";; select 1 ;/* x */; select 2 -- y"),
            ["select 1", "select 2"]
        );
        assert!(parts(" -- x").is_empty());
    }

    #[test]
    fn semicolons_inside_are_no_ends() {
        assert_eq!(parts("select ';', \";\", $$;$$; select 2").len(), 2);
        assert_eq!(
            parts("create rule r as on insert to t do (select 1; select 2); select 3").len(),
            2
        );
        let function = "create function f() returns int begin atomic select case when true then 1 end; select 2; end";
        assert_eq!(
            parts(&format!("{function}; select 3")),
            [function, "select 3"]
        );
        let labels = "create function f() returns int begin atomic select 1 as case; select case when a then b end end; end";
        assert_eq!(parts(&format!("{labels}; select 3")), [labels, "select 3"]);
        let explained = format!("explain route {function}");
        assert_eq!(
            parts(&format!("{explained}; select 3")),
            [&*explained, "select 3"]
        );
        assert_eq!(parts("begin; select 1; end"), ["begin", "select 1", "end"]);
    }

    #[test]
    fn finds_the_statement_to_explain() {
        for (sql, inner) in [
            ("/* x */ EXPLAIN /* y */ Route  SELECT 1 ; ", "SELECT 1 ; "),
            (
                "explain route /* a */ select 1 -- b",
                "/* a */ select 1 -- b",
            ),
        ] {
            let range = explained(sql.as_bytes()).unwrap();
            assert_eq!(&sql.as_bytes()[range], inner.as_bytes());
        }
        assert_eq!(explained(b"explain route /* nothing */"), None);
        assert_eq!(explained(b"explain select 1"), None);
        assert_eq!(explained(b"explain route"), None);
    }
}
