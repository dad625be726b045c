//! The places of a statement: whether an operand ends or begins there, and whether a name before a parenthesis can be a call.

use super::types::VARYING;
use super::{Clause, FrameKind, Mode, Reading};
use crate::lexer::{Token, TokenKind};
use crate::names::{Keyword, keyword};

impl Reading<'_, '_, '_> {
    /// Returns the frame that a keyword opens where its place makes it a construct rather than a function's name.
    pub(super) fn construct(&self, i: usize, token: Token<'_>) -> Option<FrameKind> {
        let previous = self.t.before(i, 1);
        let after_operand = self.ends_operand(i);
        let fits = match token.text {
            // Behind `DISTINCT ON (...)` these could be functions.
            b"over" | b"filter" => previous.is_punct(")") && !self.closed.precedes_operand(),
            b"sets" => previous.is_word("grouping"),
            b"rollup" | b"cube" => {
                let first = match self.frame.kind {
                    FrameKind::GroupingSets => previous.is_punct("("),
                    _ => previous.is_any(&["by", "distinct", "all"]),
                };
                let grouped = self.frame.clause == Clause::Group
                    || self.frame.kind == FrameKind::GroupingSets;
                grouped && (first || previous.is_punct(","))
            }
            b"materialized" => {
                (previous.is_word("as") || previous.is_word("not")) && self.opens_query(i + 2)
            }
            b"varying" => previous.is_any(VARYING),
            b"second" => previous.is_any(&["interval", "to"]),
            b"by" => previous.is_any(&["order", "group", "partition"]),
            b"first" | b"next" => previous.is_word("fetch"),
            b"columns" => {
                (self.frame.kind == FrameKind::Typed || self.frame.columns) && after_operand
            }
            b"system" | b"bernoulli" => previous.is_word("tablesample"),
            b"zone" => previous.is_word("time"),
            b"ref" => previous.is_word("by") && self.t.before(i, 2).is_word("passing"),
            b"content" | b"document" => self.begins_xml(i),
            b"value" => {
                previous.is_word("by") && self.t.before(i, 2).is_word("passing")
                    || self.frame.kind == FrameKind::Typed && after_operand
            }
            b"passing" | b"escape" => after_operand,
            b"conflict" => previous.is_word("on"),
            b"set" => self.mode == Mode::Dml,
            b"insert" => previous.is_word("then"),
            b"join" => {
                after_operand
                    || previous.is_any(&[
                        "left", "right", "full", "inner", "outer", "cross", "natural",
                    ])
            }
            b"like" | b"ilike" | b"overlaps" => {
                after_operand || previous.is_word("not") && self.ends_operand(i - 1)
            }
            b"repeatable" => previous.is_punct(")"),
            _ => false,
        };
        fits.then_some(match token.text {
            b"columns" => FrameKind::Columns,
            b"sets" => FrameKind::GroupingSets,
            _ => FrameKind::Paren,
        })
    }

    /// Whether an operand certainly begins at `i`, as what stands before wants one.
    pub(super) fn begins_operand(&self, i: usize) -> bool {
        let previous = self.t.before(i, 1);
        match previous.kind {
            TokenKind::Operator => true,
            TokenKind::Punct => matches!(previous.text, b"(" | b"," | b"["),
            TokenKind::Word if previous.is_word("not") => self.begins_operand(i - 1),
            TokenKind::Word => i == 0 || previous.is_any(WANTS_OPERAND),
            _ => false,
        }
    }

    /// Whether an operand ends just before `i`, so that no expression can begin there.
    pub(super) fn ends_operand(&self, i: usize) -> bool {
        let previous = self.t.before(i, 1);
        match previous.kind {
            TokenKind::QuotedIdent | TokenKind::String | TokenKind::DollarString => true,
            TokenKind::Number | TokenKind::Param => true,
            TokenKind::Word => {
                self.t.before(i, 2).is_punct(".") || keyword(previous.text) == Keyword::None
            }
            TokenKind::Punct => previous.text == b")" && !self.closed.precedes_operand(),
            _ => false,
        }
    }

    /// Whether the name from `start` to `i`, before a parenthesis, is an alias or a table with its columns. The grammar puts
    /// no call directly behind `AS`, a closing parenthesis (but that of `DISTINCT ON`), or a name that is no keyword.
    pub(super) fn is_alias(&self, start: usize, i: usize) -> bool {
        let previous = self.t.before(start, 1);
        if previous.is_word("into") && self.mode == Mode::Dml {
            return true;
        }
        if start != i {
            return false;
        }
        let behind_ordinality =
            previous.is_word("ordinality") && self.t.before(start, 2).is_word("with");
        previous.is_word("as")
            || self.mode == Mode::Dml && previous.is_any(&["with", "recursive"])
            || behind_ordinality
            || self.ends_operand(i)
            || previous.is_punct(",") && self.is_common_table(i + 1)
    }

    /// Whether the parenthesis at `open` holds the columns of a common table expression: only names, then `AS (SELECT`.
    pub(super) fn is_common_table(&self, open: usize) -> bool {
        let mut close = open + 1;
        while self.t.at(close).is_name() || self.t.punct(close, ",") {
            close += 1;
        }
        if !self.t.punct(close, ")") || !self.t.word(close + 1, "as") {
            return false;
        }
        let mut query = close + 2;
        query += usize::from(self.t.word(query, "not"));
        query += usize::from(self.t.word(query, "materialized"));
        self.t.punct(query, "(") && self.opens_query(query + 1)
    }

    pub(super) fn opens_query(&self, i: usize) -> bool {
        let values = self.t.word(i, "values") && self.t.punct(i + 1, "(");
        values || self.t.punct(i, "(") || self.t.at(i).is_any(&["select", "with", "table"])
    }
}

/// Keywords behind which an operand begins.
const WANTS_OPERAND: &[&str] = &[
    "all",
    "and",
    "asymmetric",
    "between",
    "by",
    "case",
    "distinct",
    "else",
    "escape",
    "for",
    "from",
    "having",
    "ilike",
    "in",
    "like",
    "limit",
    "offset",
    "on",
    "or",
    "placing",
    "select",
    "similar",
    "symmetric",
    "then",
    "to",
    "when",
    "where",
];
