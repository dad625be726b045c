//! The names of types in a statement: casts, constants of a type, lists of columns.

use super::findings::{Findings, add_name};
use super::{FrameKind, Reading};
use crate::lexer::{Token, TokenKind};
use crate::names::{self, Keyword, keyword};

impl Reading<'_, '_, '_> {
    /// A name directly before a string is the name of a type, or one of the words that take a string.
    pub(super) fn check_prefix(&mut self, i: usize, token: Token<'_>, name: &[u8]) {
        let start = self.t.chain_start(i);
        let plain_word = start == i && token.kind == TokenKind::Word;
        let known = match keyword(token.text) {
            Keyword::Reserved | Keyword::ColumnName if plain_word => true,
            _ if plain_word && token.is_word("zone") => self.t.before(i, 1).is_word("time"),
            _ if plain_word && token.is_word("varying") => self.t.before(i, 1).is_any(VARYING),
            Keyword::TypeFunction | Keyword::Unreserved
                if plain_word && token.is_any(TAKES_STRING) =>
            {
                self.is_marked(i, token) || !self.begins_operand(i)
            }
            _ => self.is_builtin_type(start, i, name),
        };
        if !known {
            self.distrust_type(start, i);
        } else if !plain_word || !token.is_any(TAKES_STRING) {
            self.findings.names.casts = true;
        }
    }

    /// Whether the place of a word shows that the string behind it is an argument of its own.
    pub(super) fn is_marked(&self, i: usize, token: Token<'_>) -> bool {
        match token.text {
            b"by" => self.t.before(i, 1).is_any(&["order", "group", "partition"]),
            b"version" => true,
            b"key" => self.frame.kind == FrameKind::Typed,
            b"content" | b"document" => self.begins_xml(i),
            _ => false,
        }
    }

    /// Whether `i` stands directly behind `XMLPARSE (` or `XMLSERIALIZE (`.
    pub(super) fn begins_xml(&self, i: usize) -> bool {
        let opener = self.t.before(i, 2);
        self.t.before(i, 1).is_punct("(") && opener.is_any(&["xmlparse", "xmlserialize"])
    }

    /// In a list of column definitions, the second of two names is a type.
    pub(super) fn is_column_type(&self, i: usize, token: Token<'_>) -> bool {
        let opener = self.t.before(i, 2);
        let second = self.t.before(i, 1).is_name()
            && (opener.is_punct("(") || opener.is_punct(",") || opener.is_word("columns"));
        let skipped = token.kind == TokenKind::Word
            && !token.is_word("setof")
            && (matches!(keyword(token.text), Keyword::Reserved | Keyword::ColumnName)
                || token.is_word("path"));
        second && !skipped
    }

    pub(super) fn check_type(&mut self, i: usize) {
        let start = i + usize::from(self.t.word(i, "setof"));
        if !self.t.at(start).is_name() {
            return;
        }
        let end = self.t.chain_end(start);
        if self.is_builtin_type(start, end, &self.t.at(end).folded()) {
            self.findings.names.casts = true;
        } else {
            self.distrust_type(start, end);
        }
    }

    pub(super) fn is_builtin_type(&self, start: usize, end: usize, name: &[u8]) -> bool {
        let plain_word = start == end && self.t.at(start).kind == TokenKind::Word;
        if plain_word && name == b"double" {
            return self.t.word(start + 1, "precision");
        }
        let schema = self.t.qualifier(start, end);
        plain_word && names::is_type_spelling(name)
            || schema.is_none_or(|schema| schema == b"pg_catalog") && names::is_builtin_type(name)
    }

    /// Without the catalog, a user's type may be a domain whose check calls a function, or the target of a cast that does.
    pub(super) fn distrust_type(&mut self, start: usize, end: usize) {
        let Findings { names, .. } = &mut *self.findings;
        let mut list = std::mem::take(&mut names.types);
        add_name(&mut list, names, self.t, start, end);
        names.types = list;
        self.findings.distrust_name();
    }
}

/// The types that may be `VARYING`.
pub(super) const VARYING: &[&str] = &["character", "char", "nchar", "bit"];

/// Keywords that a string may follow without being a constant of a type.
const TAKES_STRING: &[&str] = &[
    "by",
    "content",
    "default",
    "delimiter",
    "document",
    "encoding",
    "error",
    "escape",
    "format",
    "ilike",
    "key",
    "like",
    "null",
    "passing",
    "path",
    "preceding",
    "quote",
    "range",
    "similar",
    "uescape",
    "value",
    "version",
];
