//! Tokens of SQL text: literals, comments and quoted names told apart as PostgreSQL's scanner does, over any bytes.
//!
//! It follows `src/backend/parser/scan.l` with `standard_conforming_strings = on`. No byte is lost: the texts of the tokens,
//! white space and comments included, add up to the input. What the scanner would refuse is a token of kind
//! [`TokenKind::Junk`] or [`TokenKind::Unterminated`], never an error.
//!
//! See <https://www.postgresql.org/docs/current/sql-syntax-lexical.html>.

use memchr::{memchr, memchr2, memmem};

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// Space, tab, line ends.
    Whitespace,
    /// `-- to the end of the line` (without the line end) or `/* nested /* too */ */`.
    Comment,
    /// A keyword or a name without quotes, in the letter case of the text.
    Word,
    /// `"name"`, quotes included.
    QuotedIdent,
    /// `U&"name"`: its real name is behind escapes.
    UnicodeIdent,
    /// `'...'`, `E'...'`, `B'...'`, `X'...'`, `N'...'`, `U&'...'`, with prefix and quotes.
    String,
    /// `$tag$...$tag$`.
    DollarString,
    /// A number of any form, without sign.
    Number,
    /// `$1`.
    Param,
    /// A run of operator characters.
    Operator,
    /// `, ( ) [ ] ; : . ..  :: :=`.
    Punct,
    /// A string, quoted name or comment without its end: it holds all of the rest.
    Unterminated,
    /// Bytes that no token begins with, or a number with letters behind it.
    Junk,
}

/// A piece of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    /// What it is.
    pub kind: TokenKind,
    /// Byte offset in the text.
    pub start: usize,
    /// Its bytes.
    pub text: &'a [u8],
}

/// Iterator over the tokens of a text.
#[derive(Debug, Clone)]
pub struct Lexer<'a> {
    rest: &'a [u8],
    start: usize,
    /// How many bytes at the front are signs that an operator could not end in: each is an operator of its own. To find
    /// that out anew for each would cost the length of the run squared.
    signs: usize,
}

impl<'a> Lexer<'a> {
    /// Starts at the beginning of a text.
    pub fn new(text: &'a [u8]) -> Self {
        Lexer {
            rest: text,
            start: 0,
            signs: 0,
        }
    }

    /// [`Iterator::next`] for the one loop that runs for every text: there the call, and the token that it leaves in memory, cost
    /// as much as finding it.
    #[expect(
        clippy::inline_always,
        reason = "measured: a third of the cost of a shape"
    )]
    #[inline(always)]
    pub(crate) fn next_inlined(&mut self) -> Option<Token<'a>> {
        let first = *self.rest.first()?;
        let (kind, len) = self.scan(first);
        // Every scanner takes at least the first byte and at most the rest, so that the loop ends.
        let (text, rest) = self
            .rest
            .split_at_checked(len.max(1))
            .unwrap_or((self.rest, &[]));
        let start = self.start;
        self.start += text.len();
        self.rest = rest;
        Some(Token { kind, start, text })
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    #[inline]
    fn next(&mut self) -> Option<Token<'a>> {
        self.next_inlined()
    }
}

/// What a first byte announces.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Space,
    Letter,
    /// A letter that may be the prefix of a string: `b e n x u`.
    Prefix,
    Digit,
    Quote,
    DoubleQuote,
    Dollar,
    Operator,
    Punct,
    Dot,
    Colon,
    Other,
}

const fn class_of(byte: u8) -> Class {
    match byte {
        b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C => Class::Space,
        b'b' | b'B' | b'e' | b'E' | b'n' | b'N' | b'x' | b'X' | b'u' | b'U' => Class::Prefix,
        b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xFF => Class::Letter,
        b'0'..=b'9' => Class::Digit,
        b'\'' => Class::Quote,
        b'"' => Class::DoubleQuote,
        b'$' => Class::Dollar,
        b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'-' | b'*'
        | b'/' | b'%' | b'<' | b'>' | b'=' => Class::Operator,
        b',' | b'(' | b')' | b'[' | b']' | b';' => Class::Punct,
        b'.' => Class::Dot,
        b':' => Class::Colon,
        _ => Class::Other,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the counter stays below 256"
)]
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
static CLASSES: [Class; 256] = {
    let mut table = [Class::Other; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = class_of(byte as u8);
        byte += 1;
    }
    table
};

#[inline]
#[expect(clippy::indexing_slicing, reason = "a byte is always below 256")]
fn class(byte: u8) -> Class {
    CLASSES[usize::from(byte)]
}

/// Letters, digits, `_`, `$` and all bytes above ASCII.
#[inline]
fn is_word_byte(byte: u8) -> bool {
    matches!(
        class(byte),
        Class::Letter | Class::Prefix | Class::Digit | Class::Dollar
    )
}

/// Returns how many bytes at the front satisfy the predicate.
#[inline]
fn run(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    bytes
        .iter()
        .position(|byte| !belongs(*byte))
        .unwrap_or(bytes.len())
}

#[inline]
fn run_from(bytes: &[u8], from: usize, belongs: impl Fn(u8) -> bool) -> usize {
    from + run(bytes.get(from..).unwrap_or(&[]), belongs)
}

impl Lexer<'_> {
    #[expect(
        clippy::inline_always,
        reason = "a part of what `next_inlined` inlines: words, spaces and punctuation are found without a call"
    )]
    #[inline(always)]
    fn scan(&mut self, first: u8) -> (TokenKind, usize) {
        let rest = self.rest;
        match class(first) {
            Class::Letter => (TokenKind::Word, run(rest, is_word_byte)),
            Class::Space => (
                TokenKind::Whitespace,
                run(rest, |byte| class(byte) == Class::Space),
            ),
            Class::Punct => (TokenKind::Punct, 1),
            Class::Operator => self.operator(first),
            Class::Prefix => prefixed(first, rest),
            Class::Digit => number(rest, 0),
            Class::Quote => string(rest, 1, false),
            Class::DoubleQuote => quoted(rest, 1, TokenKind::QuotedIdent),
            Class::Dollar => dollar(rest),
            Class::Dot => match rest.get(1) {
                Some(b'.') => (TokenKind::Punct, 2),
                Some(b'0'..=b'9') => number(rest, 0),
                _ => (TokenKind::Punct, 1),
            },
            Class::Colon => (
                TokenKind::Punct,
                if matches!(rest.get(1), Some(b':' | b'=')) {
                    2
                } else {
                    1
                },
            ),
            Class::Other => (TokenKind::Junk, 1),
        }
    }

    /// A comment or an operator.
    #[inline(never)]
    fn operator(&mut self, first: u8) -> (TokenKind, usize) {
        let rest = self.rest;
        if self.signs > 0 {
            self.signs -= 1;
            return (TokenKind::Operator, 1);
        }
        match (first, rest.get(1)) {
            (b'-', Some(b'-')) => {
                return (
                    TokenKind::Comment,
                    run(rest, |byte| byte != b'\n' && byte != b'\r'),
                );
            }
            (b'/', Some(b'*')) => return block_comment(rest),
            (_, Some(next)) if class(*next) == Class::Operator => {}
            _ => return (TokenKind::Operator, 1),
        }
        let mut run = operator_run(rest);
        // "A multiple-character operator name cannot end in + or -, unless the name also contains at least one of these characters".
        let text = rest.get(..run).unwrap_or(rest);
        if !text.iter().any(|byte| b"~!@#%^&|`?".contains(byte)) {
            let whole = run;
            while run > 1 && matches!(rest.get(run - 1), Some(b'+' | b'-')) {
                run -= 1;
            }
            self.signs = whole - run;
        }
        (TokenKind::Operator, run)
    }
}

/// Returns the length of the run of operator characters at the front, up to a comment inside it. There is none at its front.
fn operator_run(rest: &[u8]) -> usize {
    let ends = |at: usize| match (rest.get(at), rest.get(at + 1)) {
        (Some(b'-'), Some(b'-')) | (Some(b'/'), Some(b'*')) => true,
        (Some(byte), _) => class(*byte) != Class::Operator,
        (None, _) => true,
    };
    (1..rest.len()).find(|at| ends(*at)).unwrap_or(rest.len())
}

/// A word, unless a quote makes its first letters a prefix.
#[inline(never)]
fn prefixed(first: u8, rest: &[u8]) -> (TokenKind, usize) {
    let unicode = matches!(first, b'u' | b'U');
    match (unicode, rest.get(1), rest.get(2)) {
        (false, Some(b'\''), _) => string(rest, 2, matches!(first, b'e' | b'E')),
        (true, Some(b'&'), Some(b'\'')) => string(rest, 3, false),
        (true, Some(b'&'), Some(b'"')) => quoted(rest, 3, TokenKind::UnicodeIdent),
        _ => (TokenKind::Word, run(rest, is_word_byte)),
    }
}

/// A string whose content begins at `from`.
fn string(rest: &[u8], from: usize, backslashes: bool) -> (TokenKind, usize) {
    let mut at = from;
    loop {
        let tail = rest.get(at..).unwrap_or(&[]);
        let found = if backslashes {
            memchr2(b'\'', b'\\', tail)
        } else {
            memchr(b'\'', tail)
        };
        let Some(found) = found else {
            return (TokenKind::Unterminated, rest.len());
        };
        at += found;
        match (rest.get(at), rest.get(at + 1)) {
            (Some(b'\\'), _) | (_, Some(b'\'')) => at += 2,
            _ => return (TokenKind::String, at + 1),
        }
    }
}

/// A quoted name whose content begins at `from`.
fn quoted(rest: &[u8], from: usize, kind: TokenKind) -> (TokenKind, usize) {
    let mut at = from;
    loop {
        let Some(found) = memchr(b'"', rest.get(at..).unwrap_or(&[])) else {
            return (TokenKind::Unterminated, rest.len());
        };
        at += found + 1;
        if rest.get(at) != Some(&b'"') {
            return (kind, at);
        }
        at += 1;
    }
}

/// A parameter, a dollar-quoted string, or a lone dollar.
#[inline(never)]
fn dollar(rest: &[u8]) -> (TokenKind, usize) {
    let digits = run_from(rest, 1, |byte| byte.is_ascii_digit());
    if digits > 1 {
        let end = run_from(rest, digits, |byte| {
            matches!(class(byte), Class::Letter | Class::Prefix)
        });
        return if end == digits {
            (TokenKind::Param, digits)
        } else {
            (TokenKind::Junk, run_from(rest, end, is_word_byte))
        };
    }
    let tag = run_from(rest, 1, |byte| is_word_byte(byte) && byte != b'$');
    if rest.get(tag) != Some(&b'$') {
        return (TokenKind::Junk, 1);
    }
    let (delimiter, body) = rest.split_at_checked(tag + 1).unwrap_or((rest, &[]));
    match memmem::find(body, delimiter) {
        Some(end) => (TokenKind::DollarString, end + 2 * delimiter.len()),
        None => (TokenKind::Unterminated, rest.len()),
    }
}

/// A number. One with letters or a second point directly behind it is junk: PostgreSQL 15 and later refuse it, and before
/// that `1or` was read as two tokens, which nobody should be vouched for.
fn number(rest: &[u8], from: usize) -> (TokenKind, usize) {
    let digit = |byte: u8| byte.is_ascii_digit() || byte == b'_';
    let mut end = run_from(rest, from, digit);
    if rest.get(end) == Some(&b'.') && rest.get(end + 1) != Some(&b'.') {
        end = run_from(rest, end + 1, digit);
    }
    if matches!(rest.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(rest.get(end + 1), Some(b'+' | b'-')));
        if matches!(rest.get(end + 1 + sign), Some(b'0'..=b'9')) {
            end = run_from(rest, end + 1 + sign, digit);
        }
    }
    let tail = run_from(rest, end, is_word_byte);
    let range_follows = rest.get(tail) == Some(&b'.') && rest.get(tail + 1) == Some(&b'.');
    let ends_here = rest.get(tail) != Some(&b'.') || range_follows;
    if ends_here && (tail == end || is_based(rest.get(..tail).unwrap_or(&[]))) {
        return (TokenKind::Number, tail);
    }
    (
        TokenKind::Junk,
        run_from(rest, tail, |byte| is_word_byte(byte) || byte == b'.'),
    )
}

/// `0x1F`, `0o17`, `0b11`, with underscores.
fn is_based(text: &[u8]) -> bool {
    match text {
        [b'0', b'x' | b'X', digits @ ..] => digits
            .iter()
            .all(|byte| byte.is_ascii_hexdigit() || *byte == b'_'),
        [b'0', b'o' | b'O' | b'b' | b'B', digits @ ..] => digits
            .iter()
            .all(|byte| byte.is_ascii_digit() || *byte == b'_'),
        _ => false,
    }
}

fn block_comment(rest: &[u8]) -> (TokenKind, usize) {
    let mut depth = 1_usize;
    let mut at = 2;
    loop {
        let Some(found) = memchr2(b'*', b'/', rest.get(at..).unwrap_or(&[])) else {
            return (TokenKind::Unterminated, rest.len());
        };
        at += found;
        match (rest.get(at), rest.get(at + 1)) {
            (Some(b'*'), Some(b'/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return (TokenKind::Comment, at);
                }
            }
            (Some(b'/'), Some(b'*')) => {
                depth += 1;
                at += 2;
            }
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lex(text: &str) -> Vec<(TokenKind, String)> {
        Lexer::new(text.as_bytes())
            .filter(|token| token.kind != TokenKind::Whitespace)
            .map(|token| (token.kind, String::from_utf8_lossy(token.text).into_owned()))
            .collect()
    }

    #[track_caller]
    fn one(text: &str, kind: TokenKind) {
        assert_eq!(lex(text), [(kind, text.to_owned())]);
    }

    #[test]
    fn strings_end_where_postgresql_ends_them() {
        for text in [
            "''",
            "'it''s'",
            r"'\'",
            r"E'it\'s'",
            r"e'\\'",
            "B'01'",
            "x'1F'",
            "N'a'",
            "U&'d\\0061'",
            "'--'",
            "'/*'",
        ] {
            one(text, TokenKind::String);
        }
        for text in ["'a", "E'a\\'", "\"a", "U&'a", "/* /* */", "$$a", "$a$b$$"] {
            one(text, TokenKind::Unterminated);
        }
        assert_eq!(lex("'a''b' 'c'").len(), 2);
    }

    #[test]
    fn dollar_quotes_need_their_own_tag() {
        for text in ["$$$$", "$$it's$$", "$a$ $$ $b$ $a$", "$_1$x$_1$"] {
            one(text, TokenKind::DollarString);
        }
        one("$1", TokenKind::Param);
        one("a$b$c", TokenKind::Word);
        one("$1a", TokenKind::Junk);
        assert_eq!(lex("$").first().map(|t| t.0), Some(TokenKind::Junk));
    }

    #[test]
    fn numbers_with_letters_behind_are_junk() {
        for text in [
            "0", "1.5", ".5", "1.", "1e10", "1E-5", "1_000", "0x1F", "0o17", "0b1",
        ] {
            one(text, TokenKind::Number);
        }
        for text in ["1or", "1e", "1.5.5", "0xG", "1$1"] {
            one(text, TokenKind::Junk);
        }
        assert_eq!(
            lex("1..2").iter().map(|t| t.1.as_str()).collect::<Vec<_>>(),
            ["1", "..", "2"]
        );
    }

    #[test]
    fn operators_stop_before_comments_and_signs() {
        let texts = |sql: &str| lex(sql).into_iter().map(|t| t.1).collect::<Vec<_>>();
        assert_eq!(texts("a=-1"), ["a", "=", "-", "1"]);
        assert_eq!(texts("a@-1"), ["a", "@-", "1"]);
        assert_eq!(texts("a+--b\n"), ["a", "+", "--b"]);
        assert_eq!(texts("a*/*b*/c"), ["a", "*", "/*b*/", "c"]);
        assert_eq!(
            texts("a::b[1:2]"),
            ["a", "::", "b", "[", "1", ":", "2", "]"]
        );
        assert_eq!(texts("f(a=>-1)"), ["f", "(", "a", "=>", "-", "1", ")"]);
        assert_eq!(texts("a->>'b'"), ["a", "->>", "'b'"]);
        assert_eq!(texts("*+-+a"), ["*", "+", "-", "+", "a"]);
        assert_eq!(texts("*+---a"), ["*", "+", "---a"]);
        assert_eq!(texts("+-+/**/-"), ["+", "-", "+", "/**/", "-"]);
        assert_eq!(texts("-+*+@-+"), ["-+*+@-+"]);
    }

    #[test]
    fn comments_nest_and_end_at_line_ends() {
        one("/* a /* b */ c */", TokenKind::Comment);
        one("-- a", TokenKind::Comment);
        assert_eq!(lex("-- a\rb").len(), 2);
        assert_eq!(lex("/**/a").len(), 2);
    }

    proptest! {
        #[test]
        fn tokens_add_up_to_the_input(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut whole = Vec::new();
            for token in Lexer::new(&text) {
                prop_assert_eq!(token.start, whole.len());
                prop_assert!(!token.text.is_empty());
                whole.extend_from_slice(token.text);
            }
            prop_assert_eq!(whole, text);
        }

        #[test]
        fn tokens_of_sql_like_text_add_up_to_it(text in "[a-e0-9'\"$*/(). \n;:+-]{0,60}") {
            let whole: Vec<u8> = Lexer::new(text.as_bytes()).flat_map(|token| token.text.to_vec()).collect();
            prop_assert_eq!(whole, text.into_bytes());
        }
    }
}
