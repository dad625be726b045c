//! The `WITH` clauses of a statement: where a name stands for a common table expression, and for no table.

use std::borrow::Cow;

use super::{Clause, Expected, Mode, NAMES_LIMIT, Reading};
use crate::classify::Name;
use crate::lexer::Token;

/// Where in a `WITH` clause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum With {
    Outside,
    /// A name comes next.
    Name,
    /// Behind the name, before the end of the query in parentheses.
    Query,
    /// Behind that query, where a comma brings the next name.
    Behind,
    /// In the columns of `SEARCH` or `CYCLE`, where it does not.
    Columns,
}

impl<'a> Reading<'_, 'a, '_> {
    /// Follows a `WITH` clause, so that it is known where a name stands for a common table expression. Returns whether the
    /// token is the name of one, whatever the word means elsewhere.
    pub(super) fn follow_with(&mut self, i: usize, token: Token<'a>) -> bool {
        match self.frame.with {
            With::Outside => {
                if token.is_word("with") && self.begins_query(i) {
                    self.frame.with = With::Name;
                    self.frame.outer_tables = self.findings.tables.len();
                    self.frame.clause = Clause::Other;
                    self.expected = Expected::Anything;
                }
            }
            With::Name => {
                let next = self.t.at(i + 1);
                if token.is_word("recursive") && next.is_name() && !next.is_word("as") {
                    self.frame.recursive = true;
                    return false;
                }
                self.frame.with = With::Query;
                let name = token.folded();
                if self.frame.recursive {
                    // What is modified stays a table.
                    if self.mode == Mode::Query {
                        self.forget_table(&name);
                    }
                    self.bring_into_scope(name.clone());
                }
                self.defined.push(name);
                return true;
            }
            With::Query => {}
            With::Behind if token.is_any(&["search", "cycle"]) => self.frame.with = With::Columns,
            With::Behind if token.is_any(&["set", "to", "default", "using"]) => {}
            With::Behind if self.is_in_cycle(i) => {}
            With::Behind => self.frame.with = With::Outside,
            With::Columns => {
                if token.is_word("set") {
                    self.frame.with = With::Behind;
                }
            }
        }
        false
    }

    /// Whether the `WITH` at `i` begins a query or another statement to its end. That of `INSERT INTO t WITH ...` does not
    /// reach as far, and is left alone: what it names are tables, to be on the safe side.
    pub(super) fn begins_query(&self, i: usize) -> bool {
        i == 0 || self.t.before(i, 1).is_punct("(")
    }

    /// Whether the parenthesis at `i` opens the query of a common table expression, not the list of its columns.
    pub(super) fn opens_definition(&self, i: usize) -> bool {
        let materialized = usize::from(self.t.before(i, 1).is_word("materialized"));
        let negated = usize::from(self.t.before(i, 1 + materialized).is_word("not"));
        self.t.before(i, 1 + materialized + negated).is_word("as")
    }

    /// Whether a name at `i` is a column or a value of `SEARCH ... SET a` or `CYCLE ... SET a TO b DEFAULT c USING d`.
    pub(super) fn is_in_cycle(&self, i: usize) -> bool {
        self.t
            .before(i, 1)
            .is_any(&["set", "to", "default", "using"])
    }

    pub(super) fn bring_into_scope(&mut self, name: Cow<'a, [u8]>) {
        if self.scope.len() < NAMES_LIMIT {
            self.scope.push(name);
        }
    }

    /// Takes back what was taken for a table earlier in this `WITH RECURSIVE`, before its definition was seen.
    pub(super) fn forget_table(&mut self, name: &[u8]) {
        let is_it = |table: &Name| table.schema.is_none() && table.name.as_bytes() == name;
        let tables = &mut self.findings.tables;
        if let Some(earlier) = tables.get(self.frame.outer_tables..)
            && let Some(at) = earlier.iter().position(is_it)
        {
            tables.remove(self.frame.outer_tables + at);
        }
    }
}
