//! The text of a statement as words: where a statement ends, and what its commands are made of.
//!
//! As PostgreSQL reads it: quotes, dollar quotes, and comments that nest. Total: whatever does not end, ends with the text.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A word or a number without quotes.
    Word,
    /// A name in double quotes.
    Name,
    /// A text in single quotes or between dollar quotes.
    Text,
    /// A single character.
    Symbol(char),
}

/// A token: what it is, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    /// As it is written, quotes and all.
    pub(crate) text: &'a str,
    /// Its first byte.
    pub(crate) start: usize,
}

impl Token<'_> {
    /// Returns where it ends.
    pub(crate) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// Returns whether it is this word, whatever its case.
    pub(crate) fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// Returns what it stands for: a name or a text without its quotes, else as it is.
    pub(crate) fn value(&self) -> String {
        let inner = |quote: char| {
            let text = self.text.trim_start_matches(['E', 'e']);
            let text = text.strip_prefix(quote).unwrap_or(text);
            let text = text.strip_suffix(quote).unwrap_or(text);
            text.replace(&format!("{quote}{quote}"), &quote.to_string())
        };
        match self.kind {
            Kind::Name => inner('"'),
            Kind::Text if self.text.starts_with('$') => {
                let tag = self.text.split_inclusive('$').take(2).map(str::len).sum();
                let end = self.text.len().saturating_sub(tag);
                self.text.get(tag..end).unwrap_or_default().to_owned()
            }
            Kind::Text => inner('\''),
            Kind::Word | Kind::Symbol(_) => self.text.to_owned(),
        }
    }
}

/// Returns the tokens of a text, comments left out.
pub(crate) fn tokens(sql: &str) -> impl Iterator<Item = Token<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += blank(sql.get(at..)?);
        let rest = sql.get(at..)?;
        let (kind, length) = first(rest)?;
        let token = Token {
            kind,
            text: rest.get(..length)?,
            start: at,
        };
        at += length;
        Some(token)
    })
}

/// Returns the statements of a text, without what ends them and without those of nothing but blanks and comments.
pub(crate) fn statements(sql: &str) -> Vec<&str> {
    let mut all = Vec::new();
    let mut start = None;
    let mut end = 0;
    for token in tokens(sql) {
        if token.kind == Kind::Symbol(';') {
            all.extend(start.take().and_then(|start| sql.get(start..end)));
        } else {
            start.get_or_insert(token.start);
            end = token.end();
        }
    }
    all.extend(start.and_then(|start| sql.get(start..end)));
    all
}

/// The length of the white space and comments that a text begins with.
fn blank(text: &str) -> usize {
    let mut at = 0;
    while let Some(rest) = text.get(at..) {
        let trimmed = rest.trim_start();
        let spaces = rest.len() - trimmed.len();
        let comment = if trimmed.starts_with("--") {
            trimmed.find('\n').unwrap_or(trimmed.len())
        } else if trimmed.starts_with("/*") {
            block_comment(trimmed)
        } else {
            0
        };
        if spaces + comment == 0 {
            break;
        }
        at += spaces + comment;
    }
    at
}

fn block_comment(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(pair) = bytes.get(at..at + 2) {
        match pair {
            [b'/', b'*'] => {
                depth += 1;
                at += 2;
            }
            [b'*', b'/'] => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    text.len()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// The kind and the length of the token that a text begins with.
fn first(text: &str) -> Option<(Kind, usize)> {
    let c = text.chars().next()?;
    let escapes = text
        .get(..2)
        .is_some_and(|two| two.eq_ignore_ascii_case("e'"));
    Some(match c {
        '\'' => (Kind::Text, quoted(text, 1, b'\'', Escapes::No)),
        _ if escapes => (Kind::Text, quoted(text, 2, b'\'', Escapes::Backslash)),
        '"' => (Kind::Name, quoted(text, 1, b'"', Escapes::No)),
        '$' => match dollar_quoted(text) {
            Some(length) => (Kind::Text, length),
            None => (Kind::Word, word(text)),
        },
        c if is_word(c) => (Kind::Word, word(text)),
        c => (Kind::Symbol(c), c.len_utf8()),
    })
}

fn word(text: &str) -> usize {
    let end = text.find(|c: char| !is_word(c)).unwrap_or(text.len());
    // What is called for a sign, as `$`, is one all the same.
    end.max(text.chars().next().map_or(0, char::len_utf8))
}

#[derive(PartialEq)]
enum Escapes {
    No,
    Backslash,
}

/// The length of what begins `from` bytes before, up to its closing quote; one that is doubled does not close.
fn quoted(text: &str, from: usize, quote: u8, escapes: Escapes) -> usize {
    let bytes = text.as_bytes();
    let mut at = from;
    while let Some(byte) = bytes.get(at) {
        let is_escape = *byte == b'\\' && escapes == Escapes::Backslash;
        let is_double = *byte == quote && bytes.get(at + 1) == Some(&quote);
        if is_escape || is_double {
            at += 2;
        } else if *byte == quote {
            return at + 1;
        } else {
            at += 1;
        }
    }
    text.len()
}

fn dollar_quoted(text: &str) -> Option<usize> {
    let close = text.get(1..)?.find('$')? + 2;
    let tag = text.get(..close)?;
    let name = tag.trim_matches('$');
    let valid = !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if !valid {
        return None;
    }
    let body = text.get(close..)?;
    Some(body.find(tag).map_or(text.len(), |at| close + at + close))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn statements_end_where_postgresql_ends_them() {
        for (sql, expected) in [
            ("select 1; select 2", vec!["select 1", "select 2"]),
            (" ; ;; -- nothing\n", vec![]),
            ("select ';' ; x", vec!["select ';'", "x"]),
            ("select \";\"", vec!["select \";\""]),
            ("select E'\\';' ; x", vec!["select E'\\';'", "x"]),
            (
                "select $a$ ; $b$ ; $a$; x",
                vec!["select $a$ ; $b$ ; $a$", "x"],
            ),
            ("/* a /* ; */ ; */ x /* ; */ y", vec!["x /* ; */ y"]),
            ("select $1;", vec!["select $1"]),
            ("select '", vec!["select '"]),
            ("pause app;", vec!["pause app"]),
        ] {
            assert_eq!(statements(sql), expected, "{sql}");
        }
    }

    #[test]
    fn a_value_has_no_quotes() {
        let values = |sql| tokens(sql).map(|token| token.value()).collect::<Vec<_>>();
        assert_eq!(
            values("a \"b\"\"c\" 'd''e' $x$f$x$"),
            ["a", "b\"c", "d'e", "f"]
        );
        assert_eq!(values("127.0.0.1"), ["127", ".", "0", ".", "0", ".", "1"]);
    }

    proptest! {
        #[test]
        fn tokens_are_found_in_any_text(sql in "\\PC{0,60}|[-'\"$eE;/*\\\\ ab\n]{0,60}") {
            let mut end = 0;
            for token in tokens(&sql) {
                prop_assert!(token.start >= end);
                prop_assert!(!token.text.is_empty());
                end = token.end();
                let _ = token.value();
            }
            prop_assert!(end <= sql.len());
            let _ = statements(&sql);
        }
    }
}
