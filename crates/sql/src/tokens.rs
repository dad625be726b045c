//! The tokens of a shape, without white space and comments, with total access by index.

use std::borrow::Cow;

use crate::lexer::{Lexer, Token, TokenKind};

/// A run of tokens. An index outside it yields [`END`], so that looking around needs no bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tokens<'t, 'a>(pub(crate) &'t [Token<'a>]);

/// What stands before the first and after the last token: equal to no word and no punctuation.
pub(crate) const END: Token<'static> = Token {
    kind: TokenKind::Whitespace,
    start: 0,
    text: b"",
};

impl<'t, 'a> Tokens<'t, 'a> {
    pub(crate) fn len(self) -> usize {
        self.0.len()
    }

    pub(crate) fn at(self, index: usize) -> Token<'a> {
        self.0.get(index).copied().unwrap_or(END)
    }

    /// Returns the token `distance` before `index`.
    pub(crate) fn before(self, index: usize, distance: usize) -> Token<'a> {
        index
            .checked_sub(distance)
            .map_or(END, |index| self.at(index))
    }

    pub(crate) fn from(self, index: usize) -> Tokens<'t, 'a> {
        Tokens(self.0.get(index..).unwrap_or(&[]))
    }

    pub(crate) fn to(self, index: usize) -> Tokens<'t, 'a> {
        Tokens(self.0.get(..index).unwrap_or(self.0))
    }

    pub(crate) fn word(self, index: usize, word: &str) -> bool {
        self.at(index).is_word(word)
    }

    /// Returns whether the tokens from `index` on are these words.
    pub(crate) fn words(self, index: usize, words: &[&str]) -> bool {
        words
            .iter()
            .enumerate()
            .all(|(offset, word)| self.word(index + offset, word))
    }

    pub(crate) fn punct(self, index: usize, punct: &str) -> bool {
        self.at(index).is_punct(punct)
    }

    /// Returns the index of the first of these words outside parentheses, from `index` on.
    pub(crate) fn find_outside(self, index: usize, words: &[&str]) -> Option<usize> {
        let mut depth = 0_usize;
        for (offset, token) in self.from(index).0.iter().enumerate() {
            match token.text {
                b"(" | b"[" => depth += 1,
                b")" | b"]" => depth = depth.saturating_sub(1),
                _ if depth == 0 && words.iter().any(|word| token.is_word(word)) => {
                    return Some(index + offset);
                }
                _ => {}
            }
        }
        None
    }

    /// Returns the index of the parenthesis that closes the one at `open`.
    pub(crate) fn closing(self, open: usize) -> Option<usize> {
        let mut depth = 0_usize;
        for (offset, token) in self.from(open).0.iter().enumerate() {
            match token.text {
                b"(" | b"[" => depth += 1,
                b")" | b"]" => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return Some(open + offset);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// Returns the index of the first part of the dotted name whose last part is at `index`.
    pub(crate) fn chain_start(self, index: usize) -> usize {
        let mut start = index;
        while self.before(start, 1).is_punct(".") && self.before(start, 2).is_name() {
            start -= 2;
        }
        start
    }

    /// Returns the index of the last part of the dotted name whose first part is at `index`.
    pub(crate) fn chain_end(self, index: usize) -> usize {
        let mut end = index;
        while self.punct(end + 1, ".") && self.at(end + 2).is_name() {
            end += 2;
        }
        end
    }

    /// Returns all parts but the last of a dotted name, joined by points; `None` when there is only one part.
    pub(crate) fn qualifier(self, start: usize, end: usize) -> Option<Vec<u8>> {
        let mut schema = Vec::new();
        for index in (start..end).step_by(2) {
            if index > start {
                schema.push(b'.');
            }
            schema.extend_from_slice(&self.at(index).folded());
        }
        (start < end).then_some(schema)
    }
}

impl<'a> Token<'a> {
    /// Returns whether it is this word, which is given in lower case.
    pub(crate) fn is_word(&self, word: &str) -> bool {
        self.kind == TokenKind::Word && self.text == word.as_bytes()
    }

    pub(crate) fn is_any(&self, words: &[&str]) -> bool {
        self.kind == TokenKind::Word && words.iter().any(|word| self.text == word.as_bytes())
    }

    pub(crate) fn is_punct(&self, punct: &str) -> bool {
        self.kind == TokenKind::Punct && self.text == punct.as_bytes()
    }

    pub(crate) fn is_name(&self) -> bool {
        matches!(self.kind, TokenKind::Word | TokenKind::QuotedIdent)
    }

    pub(crate) fn is_string(&self) -> bool {
        matches!(self.kind, TokenKind::String | TokenKind::DollarString)
    }

    /// Returns what stands between the quotes of a string, as it is written: with escapes, without the tag of dollar quotes.
    pub(crate) fn content(&self) -> Option<&'a [u8]> {
        let quote = match self.kind {
            TokenKind::String => b'\'',
            TokenKind::DollarString => b'$',
            _ => return None,
        };
        let mut ends = (1_usize..)
            .zip(self.text)
            .filter_map(|(end, byte)| (*byte == quote).then_some(end));
        let first = ends.next()?;
        let (open, close) = match self.kind {
            TokenKind::DollarString => ends.next().map(|tag| (tag, tag))?,
            _ => (first, 1),
        };
        self.text.get(open..self.text.len().checked_sub(close)?)
    }

    pub(crate) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// Returns a name, or an operator, as the server knows it: without quotes, and cut to [`NAME_BYTES_LIMIT`]. Words of a
    /// shape are in lower case already.
    pub(crate) fn folded(&self) -> Cow<'a, [u8]> {
        if self.kind == TokenKind::Operator && self.text == b"!=" {
            // The scanner knows no other name for it.
            return Cow::Borrowed(b"<>");
        }
        let inner = match self.text {
            [b'"', inner @ .., b'"'] if self.kind == TokenKind::QuotedIdent => inner,
            word => return Cow::Borrowed(cut(word)),
        };
        if memchr::memchr(b'"', inner).is_none() {
            return Cow::Borrowed(cut(inner));
        }
        let mut name = Vec::with_capacity(inner.len());
        let mut bytes = inner.iter();
        while let Some(byte) = bytes.next() {
            name.push(*byte);
            if *byte == b'"' {
                bytes.next();
            }
        }
        name.truncate(cut(&name).len());
        Cow::Owned(name)
    }
}

/// Longest name: `NAMEDATALEN - 1` of a server that was built without changes. The scanner cuts longer ones.
const NAME_BYTES_LIMIT: usize = 63;

/// Returns what the server keeps of a name. It cuts no character in two, in UTF-8 as in all encodings of single bytes.
fn cut(name: &[u8]) -> &[u8] {
    if name.len() <= NAME_BYTES_LIMIT {
        return name;
    }
    let mut end = NAME_BYTES_LIMIT;
    // A byte that continues a character cannot begin what is cut off.
    while end > 0 && name.get(end).is_some_and(|byte| byte & 0xC0 == 0x80) {
        end -= 1;
    }
    name.get(..end).unwrap_or(name)
}

/// Returns the tokens of a shape without white space, and its comments, which are all hints.
pub(crate) fn significant(text: &[u8]) -> (Vec<Token<'_>>, Vec<Token<'_>>) {
    let mut tokens = Vec::with_capacity(text.len() / 4 + 1);
    let mut comments = Vec::new();
    for token in Lexer::new(text) {
        match token.kind {
            TokenKind::Whitespace => {}
            TokenKind::Comment => comments.push(token),
            _ => tokens.push(token),
        }
    }
    (tokens, comments)
}
