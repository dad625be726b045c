//! The tree reading: sqlparser's view of a query, which must agree with the tokens'.
//!
//! ## Why
//! The tokens are the authority on what is safe; the tree is a second opinion with another way to be wrong, and it knows the
//! structure. It is asked once per shape, and only about what the tokens hold for a read. The names of tables and functions
//! are the tokens', which the tests hold against PostgreSQL's own tree.
//!
//! ## Limits
//! sqlparser rejects one PostgreSQL query in twenty and misreads some: a tree that cannot be had is no objection.

use std::ops::ControlFlow;

use pgweir_model::Reason;
use sqlparser::ast::{
    Expr, ObjectName, ObjectNamePart, Query, Select, SetExpr, Statement, TableFactor, Visit,
    Visitor,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use crate::classify::Name;
use crate::functions::{self, Call};
use crate::lexer::TokenKind;
use crate::names::{Keyword, keyword};
use crate::tokens::Tokens;

/// What the tree says about a query.
#[derive(Debug)]
pub(crate) enum Tree {
    /// There is none.
    Unreadable,
    /// It is a read.
    Read,
    /// It is not a read, for this reason.
    Objects(Reason),
}

/// Longest text that is parsed. Parsing takes about 100 ns a byte (measured, `classify` bench), which is worth it only for a
/// shape that is kept.
const TEXT_BYTES_LIMIT: usize = crate::plan::SHAPE_BYTES_LIMIT;
/// Most tokens that can each add one level to a chain like `a + b + c`. The parser builds chains in a loop, but a tree is
/// dropped by recursion, which must fit a thread's stack (2 MiB). Far above what people write.
const CHAIN_LIMIT: usize = 500;
/// Deepest nesting of parentheses. The parser tries alternatives at each, so that its time may double with every level.
const NESTING_LIMIT: usize = 12;
/// Deepest recursion of the parser: sqlparser's own default.
const RECURSION_LIMIT: usize = 50;

/// Reads a query from its text, whose tokens are given to judge the cost beforehand, with the calls found among them.
pub(crate) fn read(text: &[u8], tokens: Tokens<'_, '_>, functions: &[Name]) -> Tree {
    if text.len() > TEXT_BYTES_LIMIT || !is_affordable(tokens) {
        return Tree::Unreadable;
    }
    let Ok(text) = std::str::from_utf8(text) else {
        return Tree::Unreadable;
    };
    let parser = Parser::new(&PostgreSqlDialect {}).with_recursion_limit(RECURSION_LIMIT);
    let Ok(statements) = parser
        .try_with_sql(text)
        .and_then(|mut parser| parser.parse_statements())
    else {
        return Tree::Unreadable;
    };
    let [Statement::Query(query)] = statements.as_slice() else {
        return Tree::Objects(Reason::Write);
    };
    match query.visit(&mut Walk { functions }) {
        ControlFlow::Break(reason) => Tree::Objects(reason),
        ControlFlow::Continue(()) => Tree::Read,
    }
}

fn is_affordable(tokens: Tokens<'_, '_>) -> bool {
    let (mut chain, mut depth, mut deepest) = (0_usize, 0_usize, 0_usize);
    for token in tokens.0 {
        match (token.kind, token.text) {
            (TokenKind::Punct, b"(" | b"[") => {
                depth += 1;
                chain += usize::from(token.text == b"[");
                deepest = deepest.max(depth);
            }
            (TokenKind::Punct, b")" | b"]") => depth = depth.saturating_sub(1),
            (TokenKind::Punct, b"," | b".") => {}
            (TokenKind::Operator | TokenKind::Punct, _) => chain += 1,
            (TokenKind::Word, word) if !matches!(keyword(word), Keyword::None) => {
                chain += usize::from(CHAINING.contains(&word));
            }
            _ => {}
        }
    }
    chain <= CHAIN_LIMIT && deepest <= NESTING_LIMIT
}

/// The words that join expressions or queries to chains.
const CHAINING: &[&[u8]] = &[
    b"and",
    b"or",
    b"not",
    b"is",
    b"isnull",
    b"notnull",
    b"in",
    b"like",
    b"ilike",
    b"similar",
    b"between",
    b"collate",
    b"at",
    b"union",
    b"intersect",
    b"except",
    b"overlaps",
];

struct Walk<'f> {
    /// The calls that the tokens have found.
    functions: &'f [Name],
}

impl Walk<'_> {
    fn call(&self, name: &ObjectName) -> ControlFlow<Reason> {
        let Some(name) = to_name(name) else {
            return ControlFlow::Break(Reason::VolatileFunction);
        };
        let plain = name.schema.is_none();
        match functions::judge(
            name.schema.as_deref().map(str::as_bytes),
            name.name.as_bytes(),
        ) {
            Call::Safe => ControlFlow::Continue(()),
            // The tokens have found it too, so that it is judged by what the catalog says.
            _ if self.functions.contains(&name) => ControlFlow::Continue(()),
            Call::PrimaryOnly => ControlFlow::Break(Reason::PrimaryOnly),
            // `coalesce`, `current_date` and the like are functions to sqlparser and constructs to PostgreSQL; so is `rollup` in
            // some places, which the tokens know.
            _ if plain
                && (matches!(&*name.name, "rollup" | "cube")
                    || matches!(
                        keyword(name.name.as_bytes()),
                        Keyword::Reserved | Keyword::ColumnName
                    )) =>
            {
                ControlFlow::Continue(())
            }
            Call::Volatile | Call::Unknown => ControlFlow::Break(Reason::VolatileFunction),
        }
    }
}

impl Visitor for Walk<'_> {
    type Break = Reason;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Reason> {
        if !query.locks.is_empty() {
            return ControlFlow::Break(Reason::RowLock);
        }
        match *query.body {
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                ControlFlow::Break(Reason::Write)
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Reason> {
        if select.into.is_some() {
            ControlFlow::Break(Reason::Write)
        } else {
            ControlFlow::Continue(())
        }
    }

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<Reason> {
        if matches!(statement, Statement::Query(_)) {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(Reason::Write)
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Reason> {
        match factor {
            TableFactor::Table {
                name,
                args: Some(_),
                ..
            }
            | TableFactor::Function { name, .. } => self.call(name),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Reason> {
        match expr {
            Expr::Function(function) => self.call(&function.name),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn to_name(name: &ObjectName) -> Option<Name> {
    let mut parts = Vec::with_capacity(name.0.len());
    for part in &name.0 {
        match part {
            ObjectNamePart::Identifier(ident) => parts.push(ident.value.as_str()),
            ObjectNamePart::Function(_) => return None,
        }
    }
    let (last, schema) = parts.split_last()?;
    let schema = (!schema.is_empty()).then(|| schema.join(".").into());
    Some(Name {
        schema,
        name: (*last).into(),
    })
}
