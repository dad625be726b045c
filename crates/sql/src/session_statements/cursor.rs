//! A place among the tokens of one statement, of a shape or of a real text: words are compared in any letter case.
//!
//! What `take` in a name returns moves the cursor only when it finds what it looks for, as the rules of a grammar do.

use std::borrow::Cow;
use std::ops::Range;

use super::literal;
use crate::lexer::{Token, TokenKind};
use crate::names::{Keyword, keyword};

/// The tokens of a statement that are still to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'t, 'a> {
    text: &'a [u8],
    rest: &'t [Token<'a>],
    /// All tokens of the statement.
    all: &'t [Token<'a>],
}

/// The longest keyword that the grammar has, with room to spare: a longer word is none.
const KEYWORD_BYTES_LIMIT: usize = 24;

impl<'t, 'a> Cursor<'t, 'a> {
    pub(super) fn new(text: &'a [u8], tokens: &'t [Token<'a>]) -> Self {
        Cursor {
            text,
            rest: tokens,
            all: tokens,
        }
    }

    pub(super) fn peek(&self, ahead: usize) -> Option<Token<'a>> {
        self.rest.get(ahead).copied()
    }

    pub(super) fn next(&mut self) -> Option<Token<'a>> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    pub(super) fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    /// Returns whether the token `ahead` is this word, which is given in lower case.
    pub(super) fn is_at(&self, ahead: usize, word: &str) -> bool {
        self.peek(ahead).is_some_and(|token| {
            token.kind == TokenKind::Word && token.text.eq_ignore_ascii_case(word.as_bytes())
        })
    }

    pub(super) fn is(&self, word: &str) -> bool {
        self.is_at(0, word)
    }

    pub(super) fn are_at(&self, ahead: usize, words: &[&str]) -> bool {
        let mut words = words.iter().enumerate();
        words.all(|(offset, word)| self.is_at(ahead + offset, word))
    }

    pub(super) fn are(&self, words: &[&str]) -> bool {
        self.are_at(0, words)
    }

    pub(super) fn take(&mut self, word: &str) -> bool {
        self.take_all(&[word])
    }

    /// Takes all of these words, or none.
    pub(super) fn take_all(&mut self, words: &[&str]) -> bool {
        let found = self.are(words);
        if found {
            self.rest = self.rest.get(words.len()..).unwrap_or(&[]);
        }
        found
    }

    /// Takes one of these words.
    pub(super) fn take_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.take(word))
    }

    /// Returns whether the token `ahead` is this punctuation or operator.
    pub(super) fn is_sign_at(&self, ahead: usize, sign: &str) -> bool {
        self.peek(ahead).is_some_and(|token| {
            matches!(token.kind, TokenKind::Punct | TokenKind::Operator)
                && token.text == sign.as_bytes()
        })
    }

    pub(super) fn take_sign(&mut self, sign: &str) -> bool {
        let found = self.is_sign_at(0, sign);
        if found {
            self.next();
        }
        found
    }

    /// Takes a name: the grammar's `ColId`.
    pub(super) fn name(&mut self) -> Option<Cow<'a, [u8]>> {
        let token = self.peek(0)?;
        let name = match token.kind {
            TokenKind::Word => match keyword_of(&token) {
                Keyword::Reserved | Keyword::TypeFunction => return None,
                Keyword::ColumnName | Keyword::Unreserved | Keyword::None => {
                    literal::word(token.text)
                }
            },
            TokenKind::QuotedIdent => literal::quoted_name(token.text)?,
            TokenKind::UnicodeIdent => return self.unicode(&token, b'"').map(literal::clipped),
            _ => return None,
        };
        self.next();
        Some(name)
    }

    /// Takes a word that is no reserved one, as a value: the grammar's `NonReservedWord`.
    pub(super) fn value_word(&mut self) -> Option<Cow<'a, [u8]>> {
        let token = self.peek(0)?;
        let is_word = token.kind == TokenKind::Word;
        if is_word && keyword_of(&token) == Keyword::TypeFunction {
            self.next();
            return Some(literal::word(token.text));
        }
        self.name()
    }

    /// Takes a word that is no keyword, or a quoted name: the scanner's `IDENT`.
    pub(super) fn identifier(&mut self) -> Option<Cow<'a, [u8]>> {
        let token = self.peek(0)?;
        if token.kind == TokenKind::Word && keyword_of(&token) != Keyword::None {
            return None;
        }
        self.name()
    }

    /// Takes a string: the grammar's `Sconst`. Strings that follow one another are parts of one.
    pub(super) fn string(&mut self) -> Option<Cow<'a, [u8]>> {
        let token = self.peek(0)?;
        match (token.kind, token.text) {
            (TokenKind::DollarString, text) => {
                self.next();
                return Some(Cow::Borrowed(literal::dollar_string(text)));
            }
            (TokenKind::String, [b'u' | b'U', ..]) => return self.unicode(&token, b'\''),
            (TokenKind::String, _) => {}
            _ => return None,
        }
        let mut value = literal::string(token.text)?;
        self.next();
        while let Some(part) = self.peek(0)
            && part.kind == TokenKind::String
        {
            // Behind an `E` the parts that follow have escapes as well, and the lexer cannot know that.
            if token.text.first() != Some(&b'\'') || part.text.first() != Some(&b'\'') {
                return None;
            }
            value
                .to_mut()
                .extend_from_slice(&literal::string(part.text)?);
            self.next();
        }
        Some(value)
    }

    /// Takes `U&"..."` or `U&'...'` with its `UESCAPE`.
    fn unicode(&mut self, token: &Token<'a>, quote: u8) -> Option<Cow<'a, [u8]>> {
        let mut after = *self;
        after.next();
        let mut escape = Some(b'\\');
        if after.take("uescape") {
            let given = after
                .next()
                .filter(|token| token.kind == TokenKind::String)?;
            match given.text {
                [b'\'', one, b'\''] => escape = Some(*one),
                // A shape has no literals. The server refuses this, so it may mean anything.
                b"''" => escape = None,
                _ => return None,
            }
        }
        let value = literal::unicode(token.text, quote, escape)?;
        *self = after;
        Some(Cow::Owned(value))
    }

    /// Takes a pair of parentheses and all that stands between them; returns where.
    pub(super) fn parentheses(&mut self) -> Option<Range<usize>> {
        let start = self.peek(0)?.start;
        if !self.is_sign_at(0, "(") {
            return None;
        }
        let mut depth = 0_usize;
        let mut after = *self;
        while let Some(token) = after.next() {
            match token.text {
                b"(" | b"[" => depth += 1,
                b")" | b"]" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                *self = after;
                return Some(start..token.end());
            }
        }
        None
    }

    /// Returns where the rest of the statement stands.
    pub(super) fn range(&self) -> Option<Range<usize>> {
        Some(self.rest.first()?.start..self.rest.last()?.end())
    }

    /// Returns where the token ends that was taken last.
    pub(super) fn taken_up_to(&self) -> Option<usize> {
        let taken = self.all.len().checked_sub(self.rest.len())?;
        Some(self.all.get(taken.checked_sub(1)?)?.end())
    }

    /// Returns the whole statement.
    pub(super) fn statement(&self) -> &'a [u8] {
        let range = self.all.first().zip(self.all.last());
        range
            .and_then(|(first, last)| self.text.get(first.start..last.end()))
            .unwrap_or(&[])
    }
}

fn keyword_of(token: &Token<'_>) -> Keyword {
    let mut word = [0; KEYWORD_BYTES_LIMIT];
    let Some(word) = word.get_mut(..token.text.len()) else {
        return Keyword::None;
    };
    word.copy_from_slice(token.text);
    word.make_ascii_lowercase();
    keyword(word)
}
