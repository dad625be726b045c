//! The frames of a statement: what its parentheses and brackets enclose, which decides what a name in them or behind them is.

use super::Reading;
use super::with::With;
use crate::lexer::TokenKind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameKind {
    Top,
    Paren,
    Bracket,
    /// `CAST(`, `TREAT(`, `XMLSERIALIZE(`: `AS` is followed by a type.
    Cast,
    /// `DISTINCT ON (`: an expression may follow directly behind it.
    DistinctOn,
    /// The columns of an alias, perhaps with types.
    Columns,
    /// `JSON_...(`, `XMLTABLE(`: `RETURNING` and `COLUMNS` bring types.
    Typed,
    /// `EXTRACT(`, `SUBSTRING(`, `TRIM(`, `OVERLAY(`: `FROM` names no table.
    Cut,
    /// `GROUPING SETS (`.
    GroupingSets,
    /// `OPERATOR(`: an operand follows.
    Operator,
    /// The arguments of a function; of a type, if a string follows.
    Call,
    /// `set_config(`: its last argument says whether it outlives the transaction.
    SetConfig,
}

/// The clause of a statement, as far as it decides what a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clause {
    Other,
    /// A list of tables: a comma brings the next.
    Tables,
    /// That of a `DELETE` or `MERGE`, before the `USING` that brings tables.
    BeforeUsing,
    /// `GROUP BY`.
    Group,
}

/// What a name that comes now is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Anything,
    /// A relation, or a common table expression.
    Table,
    /// The relation that is modified.
    Target,
}

impl FrameKind {
    /// Whether an expression may follow directly behind its end. Behind any other a name is an alias, not a call.
    pub(super) fn precedes_operand(self) -> bool {
        matches!(self, FrameKind::DistinctOn | FrameKind::Operator)
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) kind: FrameKind,
    /// Where it was opened.
    pub(super) from: usize,
    pub(super) clause: Clause,
    pub(super) with: With,
    /// Whether the `WITH` is `RECURSIVE`.
    pub(super) recursive: bool,
    /// Behind the word `COLUMNS`.
    pub(super) columns: bool,
    /// Commas so far.
    pub(super) commas: usize,
    /// How many common table expressions were in scope before.
    pub(super) outer_scope: usize,
    /// How many tables were known before the `WITH`.
    pub(super) outer_tables: usize,
}

impl Frame {
    pub(super) fn new(kind: FrameKind) -> Self {
        Frame {
            kind,
            clause: Clause::Other,
            with: With::Outside,
            recursive: false,
            columns: kind == FrameKind::Columns,
            commas: 0,
            outer_scope: 0,
            from: 0,
            outer_tables: 0,
        }
    }
}

impl Reading<'_, '_, '_> {
    pub(super) fn push(&mut self, i: usize, kind: FrameKind) {
        self.frames.push(self.frame);
        // `FROM ((a JOIN b ON ...) ...)`: a table may follow the parentheses around a join.
        let list = self.frame.clause == Clause::Tables && self.expected == Expected::Table;
        self.frame = Frame {
            clause: if list && kind == FrameKind::Paren {
                Clause::Tables
            } else {
                Clause::Other
            },
            outer_scope: self.scope.len(),
            from: i,
            ..Frame::new(kind)
        };
    }

    pub(super) fn pop(&mut self, bracket: bool) {
        if (self.frame.kind == FrameKind::Bracket) != bracket {
            self.findings.give_up();
        }
        self.closed = self.frame.kind;
        self.closed_from = self.frame.from;
        self.scope.truncate(self.frame.outer_scope);
        match self.frames.pop() {
            Some(frame) => self.frame = frame,
            None => self.findings.give_up(),
        }
        self.expected = Expected::Anything;
        if self.frame.with == With::Query && self.closed != FrameKind::Columns {
            self.frame.with = With::Behind;
            if let Some(name) = self.defined.pop()
                && !self.frame.recursive
            {
                self.bring_into_scope(name);
            }
        }
    }

    /// Returns what a parenthesis at `i` opens, where no word before it has said.
    pub(super) fn opened(&self, i: usize) -> FrameKind {
        let previous = self.t.before(i, 1);
        let plain = !self.t.before(i, 2).is_punct(".");
        if previous.kind != TokenKind::Word || !plain {
            return FrameKind::Paren;
        }
        match previous.text {
            b"on" if self.t.before(i, 2).is_word("distinct") => FrameKind::DistinctOn,
            b"cast" | b"treat" | b"xmlserialize" => FrameKind::Cast,
            b"as" if !self.opens_query(i + 1) && !self.t.at(i + 1).is_any(OPENS_NO_COLUMNS) => {
                FrameKind::Columns
            }
            b"columns" => FrameKind::Columns,
            b"extract" | b"substring" | b"trim" | b"overlay" => FrameKind::Cut,
            text if text.starts_with(b"json") || text == b"xmltable" => FrameKind::Typed,
            _ => FrameKind::Paren,
        }
    }
}

/// The words that may begin a window definition or a data-modifying statement; the columns of an alias begin with none of
/// them and a type, or the word itself is objected to.
const OPENS_NO_COLUMNS: &[&str] = &[
    "delete",
    "groups",
    "insert",
    "merge",
    "order",
    "partition",
    "range",
    "rows",
    "update",
];
