//! What of a shape may be shown: in tables, in the log and in spans, and what statistics tell statements apart by.
//!
//! ## Why
//! A [shape](crate::shape) is made to be classified, so that it keeps what decides: the values of `SET`, and what cannot be
//! read. Those may be secrets, and a setting with a value per request would be a statement per request. So what is shown is
//! made of the shape once more, without any value. For all other statements it is the shape, byte for byte, so that the
//! fingerprint that is shown with it is the one that rules take.
//!
//! ## What is taken out
//! - Literals and numbers that the shape has left, and what looks like a number but is none.
//! - The value of `SET`, and of the `SET` of ALTER ROLE, DATABASE, SYSTEM or FUNCTION, written as a word or not.
//! - What stands behind PASSWORD in CREATE and ALTER ROLE or USER, written as a string or not.
//! - All but the command of a text that lacks the end of a string, name or comment: a quote too many turns inside and outside
//!   around, and the server refuses it anyway. Likewise of a text that the server may read in another way than our lexer.
//!
//! ## Limits
//! Names stay, whatever they say, and so do hint comments.

use std::sync::Arc;

use crate::fingerprint::{Fingerprint, Fingerprinter};
use crate::lexer::{Lexer, Token, TokenKind};

/// How much of a shape is shown, in bytes. Chosen: more than people read, and a thousand of them are 2 MiB.
pub const DISPLAY_BYTES_LIMIT: usize = 2048;

/// What is shown of a shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Displayed {
    /// Its beginning, at most [`DISPLAY_BYTES_LIMIT`] bytes.
    pub text: Arc<str>,
    /// The fingerprint of all that could be shown of it: that of the shape, where nothing was taken out.
    pub fingerprint: Fingerprint,
    /// It is more than the command.
    pub is_whole: bool,
}

impl Displayed {
    /// Returns what is shown of a shape whose text was read as its server reads it.
    pub fn of(shape: &[u8]) -> Self {
        let mut writer = Writer::new();
        for token in Lexer::new(shape) {
            if token.kind == TokenKind::Unterminated {
                return Displayed::command(shape);
            }
            writer.write(&token);
        }
        writer.finish(true)
    }

    /// Returns what is shown of a shape whose text the server may have read in another way: its command.
    pub fn command(shape: &[u8]) -> Self {
        let mut writer = Writer::new();
        let is_gap =
            |token: &Token<'_>| matches!(token.kind, TokenKind::Whitespace | TokenKind::Comment);
        let mut tokens = Lexer::new(shape).filter(|token| !is_gap(token));
        let Some(first) = tokens.next() else {
            return writer.finish(false);
        };
        let is_word = first.kind == TokenKind::Word;
        if is_word {
            writer.emit(TokenKind::Word, first.text);
        }
        if !is_word || tokens.next().is_some() {
            if is_word {
                writer.emit(TokenKind::Whitespace, b" ");
            }
            writer.emit(TokenKind::Punct, b"...");
        }
        writer.finish(false)
    }
}

/// Where in a statement the writer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before its first word.
    Start,
    /// Where nothing but literals is a value.
    Plain,
    /// Behind CREATE.
    Create,
    /// Behind ALTER.
    Alter,
    /// In one of a role, where PASSWORD may stand, and SET if it alters.
    Role { alters: bool },
    /// Behind PASSWORD.
    Password { alters: bool },
    /// In one that alters something else that has settings.
    Altered,
    /// Where the name of a setting begins or goes on.
    Name,
    /// Behind the name of a setting, or a part of it.
    Named,
    /// Where a value begins.
    Value,
    /// In what is left out, up to the end of the statement.
    Dropped,
}

/// What is written for a value.
const VALUE: &[u8] = b"''";

struct Writer {
    /// What is shown, and little more.
    text: Vec<u8>,
    fingerprint: Fingerprinter,
    place: Place,
}

impl Writer {
    fn new() -> Self {
        Writer {
            text: Vec::new(),
            fingerprint: Fingerprinter::default(),
            place: Place::Start,
        }
    }

    fn emit(&mut self, kind: TokenKind, text: &[u8]) {
        self.fingerprint.add(kind, text);
        // One byte more than is shown says that it is cut.
        let room = (DISPLAY_BYTES_LIMIT + 1).saturating_sub(self.text.len());
        self.text
            .extend_from_slice(text.get(..room).unwrap_or(text));
    }

    fn finish(self, is_whole: bool) -> Displayed {
        Displayed {
            text: beginning(&self.text, DISPLAY_BYTES_LIMIT).into(),
            fingerprint: self.fingerprint.finish(),
            is_whole,
        }
    }

    fn write(&mut self, token: &Token<'_>) {
        if token.kind == TokenKind::Punct && token.text == b";" {
            self.place = Place::Start;
            return self.emit(token.kind, token.text);
        }
        if self.place == Place::Dropped {
            return;
        }
        if matches!(token.kind, TokenKind::Whitespace | TokenKind::Comment) {
            return self.emit(token.kind, token.text);
        }
        match self.next(token) {
            Place::Value if self.place == Place::Value => self.value(token),
            // It is the value already.
            Place::Value if !is_before_value(token) => self.value(token),
            next => {
                self.literal(token);
                self.place = next;
            }
        }
    }

    /// Returns where the writer is behind this token.
    fn next(&self, token: &Token<'_>) -> Place {
        let word = match token.kind {
            TokenKind::Word => token.text,
            _ => b"",
        };
        match (self.place, word) {
            (Place::Start, b"set") => Place::Name,
            (Place::Start, b"create") => Place::Create,
            (Place::Start, b"alter") => Place::Alter,
            (Place::Start, b"") => Place::Start,
            (Place::Create, b"role" | b"user" | b"group") => Place::Role { alters: false },
            (Place::Alter, b"role" | b"user" | b"group") => Place::Role { alters: true },
            (Place::Alter, b"database" | b"system" | b"function" | b"procedure" | b"routine") => {
                Place::Altered
            }
            (Place::Role { alters }, b"password") => Place::Password { alters },
            (Place::Role { alters: true } | Place::Altered, b"set") => Place::Name,
            (place @ (Place::Role { .. } | Place::Altered), _) => place,
            (Place::Password { alters }, b"null") => Place::Role { alters },
            (Place::Password { alters }, _) if token.kind == TokenKind::String => {
                Place::Role { alters }
            }
            (Place::Name, b"local" | b"session") => Place::Name,
            (Place::Name, b"transaction" | b"characteristics" | b"constraints" | b"xml") => {
                Place::Plain
            }
            (Place::Name, _) if is_name(token.kind) => Place::Named,
            (Place::Named, _) if token.text == b"." => Place::Name,
            (Place::Password { .. } | Place::Name | Place::Named | Place::Value, _) => Place::Value,
            (Place::Start | Place::Plain | Place::Create | Place::Alter, _) => Place::Plain,
            (Place::Dropped, _) => Place::Dropped,
        }
    }

    /// Writes that there is a value, and leaves the rest of the statement out: it belongs to it.
    fn value(&mut self, token: &Token<'_>) {
        match token.text {
            b"default" => self.emit(TokenKind::Word, token.text),
            _ => self.emit(TokenKind::String, VALUE),
        }
        self.place = Place::Dropped;
    }

    /// Writes a token without the value that it is.
    fn literal(&mut self, token: &Token<'_>) {
        let text = token.text;
        match token.kind {
            TokenKind::String => {
                let prefix = text.iter().position(|byte| *byte == b'\'').unwrap_or(0);
                self.emit(token.kind, text.get(..prefix).unwrap_or_default());
                self.emit(token.kind, VALUE);
            }
            TokenKind::DollarString => self.emit(token.kind, b"$$$$"),
            TokenKind::Number if text.first() == Some(&b'.') => self.emit(token.kind, b".0"),
            TokenKind::Number => self.emit(token.kind, b"0"),
            // There are no more than 65535 parameters.
            TokenKind::Param if text.len() > b"$65535".len() => self.emit(token.kind, b"$0"),
            TokenKind::Junk if text.len() > 1 => self.emit(token.kind, b"0"),
            _ => self.emit(token.kind, text),
        }
    }
}

fn is_name(kind: TokenKind) -> bool {
    matches!(
        kind,
        TokenKind::Word | TokenKind::QuotedIdent | TokenKind::UnicodeIdent
    )
}

/// Returns whether a token behind the name of a setting says that its value follows: `ZONE` is that of `SET TIME ZONE`.
fn is_before_value(token: &Token<'_>) -> bool {
    match token.kind {
        TokenKind::Word => matches!(token.text, b"to" | b"zone"),
        TokenKind::Operator => token.text == b"=",
        _ => false,
    }
}

/// Returns at most `limit` bytes of the beginning of a text, without half a character at the end.
pub fn beginning(text: &[u8], limit: usize) -> String {
    let cut = text.get(..limit).unwrap_or(text);
    let whole = match std::str::from_utf8(cut) {
        // The character goes on where it is cut.
        Err(error) if error.error_len().is_none() && cut.len() < text.len() => {
            cut.get(..error.valid_up_to()).unwrap_or(cut)
        }
        _ => cut,
    };
    let mut shown = String::from_utf8_lossy(whole).into_owned();
    // What is no UTF-8 takes more room when it is shown.
    shown.truncate(shown.floor_char_boundary(limit));
    shown
}

#[cfg(test)]
mod tests;
