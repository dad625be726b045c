//! PostgreSQL's SQL to SQLite's: parsed, its tree changed, printed.
//!
//! ## Why
//! Tools write PostgreSQL's dialect: casts with `::`, regular expressions, functions with a schema, arrays. SQLite has joins,
//! aggregates and everything else that makes a table worth asking, but none of these.
//!
//! ## Limits
//! What the parser does not know goes to SQLite as it is. Arrays are texts, `{a,b}`. An interval is a number of microseconds
//! while it is added to a moment, and nothing else.

mod expression;
mod factor;

use std::fmt::{Display, Write};
use std::ops::ControlFlow;

use sqlparser::ast::{
    AssignmentTarget, Expr, Ident, LimitClause, NamedWindowDefinition, NamedWindowExpr, ObjectName,
    ObjectNamePart, Offset, OffsetRows, OrderByExpr, OrderByKind, OrderBySort, Query, Select,
    SelectItem, SetExpr, Statement, TableFactor, TableObject, Value, ValueWithSpan, VisitMut,
    VisitorMut,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Span, Token, TokenWithSpan, Tokenizer};

use super::answer::refusal;
use crate::control::Refusal;

/// How deep a statement may be nested. Chosen: what tools write is not a tenth of it, and SQLite's own limit lies above.
const DEPTH_LIMIT: usize = 100;

/// The most words and operators of a statement: tokens other than numbers, texts, commas, periods and parentheses. A chain of
/// them may make a tree as deep as it is long, and what copies, prints or drops that tree does so by recursion; which of them do
/// is for the parser to know, so that all count. Chosen: what tools write has some hundreds, and as many levels fit [`STACK`]
/// twice over.
const WORDS_LIMIT: usize = 2000;

/// The most tokens of a statement: what a long list of values has.
const TOKENS_LIMIT: usize = 20_000;

/// The stack for what works on a tree, in bytes: memory that is only touched where a tree is deep.
const STACK: usize = 128 << 20;

/// The most bytes of a rewritten statement. Chosen: as long as one may be before.
const REWRITTEN_LIMIT: usize = 1 << 20;

/// What a statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Select,
    Insert,
    Update,
    Delete,
}

/// A statement for SQLite.
#[derive(Debug, Clone)]
pub(crate) struct Rewritten {
    pub(crate) sql: String,
    pub(crate) verb: Verb,
    /// As it was written; `None` where the parser does not know it.
    pub(crate) tree: Option<Box<Statement>>,
}

/// Has something done with a stack on which the deepest tree fits; the tree must be dropped within.
pub(crate) fn with_stack<T>(act: impl FnOnce() -> T) -> T {
    stacker::grow(STACK, act)
}

/// Rewrites one statement. To be called, and what it returns to be dropped, within [`with_stack`].
///
/// # Errors
/// It is one that the console does not run.
pub(crate) fn rewrite(sql: &str) -> Result<Rewritten, Refusal> {
    // The parser knows no statement of this form.
    let whole = super::words::tokens(sql)
        .next()
        .filter(|first| first.is("table"))
        .and_then(|first| Some(format!("SELECT * FROM {}", sql.get(first.end()..)?)));
    let sql = whole.as_deref().unwrap_or(sql);
    let dialect = PostgreSqlDialect {};
    // Far too many are not worth their memory.
    if super::words::tokens(sql).nth(2 * TOKENS_LIMIT).is_some() {
        return Err(too_many(TOKENS_LIMIT, "tokens"));
    }
    // The parser's own: another reading of the text could miss some.
    let tokens = Tokenizer::new(&dialect, sql)
        .tokenize_with_location()
        .map_err(|error| syntax_error(&error.to_string()))?;
    bounded(&tokens)?;
    let parsed = Parser::new(&dialect)
        .with_recursion_limit(DEPTH_LIMIT)
        .with_tokens_with_locations(tokens)
        .parse_statements();
    let tree = match parsed {
        Ok(mut statements) if statements.len() == 1 => statements.pop(),
        Ok(_) => None,
        Err(error) => {
            let verb = verb_of_text(sql).ok_or_else(|| syntax_error(&error.to_string()))?;
            return Ok(Rewritten {
                sql: sql.to_owned(),
                verb,
                tree: None,
            });
        }
    };
    let Some(tree) = tree else {
        return Err(syntax_error("one statement is expected"));
    };
    let verb = verb_of(&tree)?;
    Ok(Rewritten {
        sql: printed(tree.clone())?,
        verb,
        tree: Some(Box::new(tree)),
    })
}

/// Prints a statement for SQLite.
///
/// # Errors
/// It is one that the console does not run, or too long.
pub(super) fn printed(mut tree: Statement) -> Result<String, Refusal> {
    if let ControlFlow::Break(refusal) = tree.visit(&mut Rewriter) {
        return Err(refusal);
    }
    within(REWRITTEN_LIMIT, &tree).ok_or_else(too_long)
}

/// Prints something of so many bytes at most; `None` is longer, and is not printed to its end.
pub(super) fn within(limit: usize, printed: &impl Display) -> Option<String> {
    let text = String::new();
    let mut out = Bounded { text, limit };
    write!(out, "{printed}").ok()?;
    Some(out.text)
}

/// Refuses what would make too deep a tree.
fn bounded(tokens: &[TokenWithSpan]) -> Result<(), Refusal> {
    let (mut all, mut words, mut depth) = (0usize, 0usize, 0usize);
    for token in tokens {
        match &token.token {
            Token::Whitespace(_) | Token::EOF => continue,
            Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
            Token::RParen | Token::RBracket | Token::RBrace => depth = depth.saturating_sub(1),
            Token::Comma
            | Token::Period
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::DollarQuotedString(_) => {}
            _ => words += 1,
        }
        all += 1;
        if depth > DEPTH_LIMIT {
            return Err(too_many(DEPTH_LIMIT, "levels of parentheses"));
        }
        if words > WORDS_LIMIT {
            return Err(too_many(WORDS_LIMIT, "words and operators"));
        }
        if all > TOKENS_LIMIT {
            return Err(too_many(TOKENS_LIMIT, "tokens"));
        }
    }
    Ok(())
}

fn too_many(limit: usize, what: &str) -> Refusal {
    refusal(b"54001", format!("a statement has at most {limit} {what}"))
}

/// A text that grows up to its limit and no further.
struct Bounded {
    text: String,
    limit: usize,
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        if self.text.len() + text.len() > self.limit {
            return Err(std::fmt::Error);
        }
        self.text.push_str(text);
        Ok(())
    }
}

fn too_long() -> Refusal {
    refusal(b"54000", "the statement is too long once it is rewritten")
}

pub(super) fn syntax_error(message: &str) -> Refusal {
    refusal(b"42601", message.trim_start_matches("sql parser error: "))
}

fn unsupported(what: &str) -> Refusal {
    Refusal {
        hint: Some("SELECT * FROM help lists its tables and commands.".to_owned()),
        ..refusal(b"0A000", format!("{what} is not supported on the console"))
    }
}

/// Returns the error for a change whose first word is none.
pub(super) fn behind_with() -> Refusal {
    unsupported("a change behind WITH")
}

fn verb_of_text(sql: &str) -> Option<Verb> {
    let first = super::words::tokens(sql).find(|token| token.text != "(")?;
    Some(match first.text.to_ascii_lowercase().as_str() {
        "select" | "with" | "values" | "table" => Verb::Select,
        "insert" => Verb::Insert,
        "update" => Verb::Update,
        "delete" => Verb::Delete,
        _ => return None,
    })
}

fn verb_of(statement: &Statement) -> Result<Verb, Refusal> {
    match statement {
        Statement::Query(query) => match query.body.as_ref() {
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                Err(behind_with())
            }
            _ => Ok(Verb::Select),
        },
        Statement::Insert(_) => Ok(Verb::Insert),
        Statement::Update(_) => Ok(Verb::Update),
        Statement::Delete(_) => Ok(Verb::Delete),
        other => {
            let text = other.to_string();
            let word = text.split(' ').next().unwrap_or_default();
            Err(unsupported(&word.to_ascii_uppercase()))
        }
    }
}

struct Rewriter;

/// Quotes a name, folded as PostgreSQL folds it, so that no keyword of SQLite's can be in its place.
pub(super) fn quote(ident: &mut Ident) {
    if ident.quote_style.is_none() {
        ident.value = ident.value.to_lowercase();
    }
    ident.quote_style = Some('"');
}

fn quote_name(name: &mut ObjectName) {
    for part in &mut name.0 {
        if let ObjectNamePart::Identifier(ident) = part {
            quote(ident);
        }
    }
    // The console's database may stand in front: `pgweir.public.backends`.
    if name.0.len() > 2 {
        name.0.drain(..name.0.len() - 2);
    }
}

pub(super) fn value(value: Value) -> Expr {
    Expr::Value(ValueWithSpan {
        value,
        span: Span::empty(),
    })
}

impl VisitorMut for Rewriter {
    type Break = Refusal;

    fn pre_visit_statement(&mut self, statement: &mut Statement) -> ControlFlow<Refusal> {
        match statement {
            Statement::Insert(insert) => {
                if let TableObject::TableName(name) = &mut insert.table {
                    quote_name(name);
                }
                insert.columns.iter_mut().for_each(quote_name);
                name_items(insert.returning.as_deref_mut().unwrap_or_default());
            }
            Statement::Update(update) => {
                for assignment in &mut update.assignments {
                    match &mut assignment.target {
                        AssignmentTarget::ColumnName(name) => quote_name(name),
                        AssignmentTarget::Tuple(names) => names.iter_mut().for_each(quote_name),
                    }
                }
                name_items(update.returning.as_deref_mut().unwrap_or_default());
                let _ = update.visit(&mut expression::UserIsColumn);
            }
            Statement::Delete(delete) => {
                let _ = delete.visit(&mut expression::UserIsColumn);
                name_items(delete.returning.as_deref_mut().unwrap_or_default());
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Refusal> {
        for cte in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
            quote(&mut cte.alias.name);
            cte.alias
                .columns
                .iter_mut()
                .for_each(|c| quote(&mut c.name));
            cte.materialized = None;
        }
        // Nothing here can be locked: a picture belongs to whoever asked for it.
        query.locks.clear();
        if matches!(query.body.as_ref(), SetExpr::Select(select) if !select.from.is_empty()) {
            let _ = query.order_by.visit(&mut expression::UserIsColumn);
        }
        if let Some(fetch) = &query.fetch
            && (fetch.percent || fetch.with_ties)
        {
            return ControlFlow::Break(unsupported("FETCH of a percentage or WITH TIES"));
        }
        limits(query);
        if let Some(order_by) = &mut query.order_by
            && let OrderByKind::Expressions(all) = &mut order_by.kind
        {
            all.iter_mut().for_each(nulls_as_postgresql);
        }
        if let SetExpr::Table(table) = query.body.as_ref() {
            let name = table.table_name.clone().unwrap_or_default();
            let all = factor::parse_query(&format!("SELECT * FROM {name}"));
            if let Some(all) = all {
                query.body = all.body;
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Refusal> {
        if select.into.is_some() {
            return ControlFlow::Break(unsupported("SELECT INTO"));
        }
        // `user` is the role that asks, but for tables that have a column of this name.
        if !select.from.is_empty() {
            let _ = select.visit(&mut expression::UserIsColumn);
        }
        for NamedWindowDefinition(_, window) in &mut select.named_window {
            if let NamedWindowExpr::WindowSpec(window) = window {
                window.order_by.iter_mut().for_each(nulls_as_postgresql);
            }
        }
        name_items(&mut select.projection);
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<Refusal> {
        quote_name(relation);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Refusal> {
        factor::rewrite(factor);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Refusal> {
        if let Expr::AtTimeZone { time_zone, .. } = expr
            && !expression::is_utc(time_zone)
        {
            return ControlFlow::Break(unsupported("a time zone other than UTC"));
        }
        expression::rewrite(expr);
        ControlFlow::Continue(())
    }
}

/// Gives every column of a result the name that PostgreSQL gives it.
fn name_items(items: &mut [SelectItem]) {
    for item in items {
        match item {
            SelectItem::UnnamedExpr(expr) => {
                if matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
                    continue;
                }
                let alias = Ident::with_quote('"', super::infer::name_of(expr));
                *item = SelectItem::ExprWithAlias {
                    expr: expr.clone(),
                    alias,
                };
            }
            SelectItem::ExprWithAlias { alias, .. } => quote(alias),
            _ => {}
        }
    }
}

/// `FETCH FIRST`, `LIMIT ALL` and an `OFFSET` without a limit, which SQLite does not know.
fn limits(query: &mut Query) {
    if let Some(fetch) = query.fetch.take() {
        let one = || value(Value::Number("1".to_owned(), false));
        let quantity = fetch.quantity.unwrap_or_else(one);
        let offset = match query.limit_clause.take() {
            Some(LimitClause::LimitOffset { offset, .. }) => offset,
            _ => None,
        };
        query.limit_clause = Some(LimitClause::LimitOffset {
            limit: Some(quantity),
            offset,
            limit_by: Vec::new(),
        });
    }
    if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &mut query.limit_clause {
        let is_null = |expr: &Expr| expression::is_null(expr);
        if limit.as_ref().is_some_and(is_null) {
            *limit = None;
        }
        if let Some(Offset { rows, .. }) = offset {
            *rows = OffsetRows::None;
            if limit.is_none() {
                *limit = Some(value(Value::Number("-1".to_owned(), false)));
            }
        }
    }
}

/// NULL is the greatest for PostgreSQL, and the least for SQLite.
fn nulls_as_postgresql(order: &mut OrderByExpr) {
    let descends = matches!(order.options.sort, Some(OrderBySort::Desc));
    order.options.nulls_first.get_or_insert(descends);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sql: &str, expected: &str) {
        assert_eq!(rewrite(sql).unwrap().sql, expected, "{sql}");
    }

    #[test]
    fn rewrites_what_sqlite_does_not_know() {
        check(
            "select Name::text from backends where name ilike 'p%'",
            "SELECT CAST(\"name\" AS TEXT) AS \"name\" FROM \"backends\" WHERE pgweir_ilike(\"name\", 'p%')",
        );
        check(
            "select count(*) from pg_catalog.pg_class c where c.relname OPERATOR(pg_catalog.~) '^(x)$' COLLATE pg_catalog.default",
            "SELECT count(*) AS \"count\" FROM \"pg_catalog\".\"pg_class\" AS \"c\" WHERE pgweir_regex(\"c\".\"relname\", '^(x)$')",
        );
        check("select $1", "SELECT ?1 AS \"?column?\"");
        check(
            "select 1 limit all offset 2",
            "SELECT 1 AS \"?column?\" LIMIT -1 OFFSET 2",
        );
        check(
            "select user from clients",
            "SELECT \"user\" FROM \"clients\"",
        );
        check("select user", "SELECT current_user() AS \"user\"");
        check("select now()", "SELECT pgweir_now() AS \"now\"");
        check(
            "select since at time zone 'utc' from clients fetch first row only",
            "SELECT \"since\" AS \"?column?\" FROM \"clients\" LIMIT 1",
        );
        check(
            "select 1 where 'a' = any(array['a','b'])",
            "SELECT 1 AS \"?column?\" WHERE 'a' IN ('a', 'b')",
        );
        check(
            "select * from backends order by 1, 2 desc for update",
            "SELECT * FROM \"backends\" ORDER BY 1 NULLS LAST, 2 DESC NULLS FIRST",
        );
        check(
            "select * from pgweir.public.backends",
            "SELECT * FROM \"public\".\"backends\"",
        );
        check(
            "update settings set value = default where name = 'x'",
            "UPDATE \"settings\" SET \"value\" = NULL WHERE \"name\" = 'x'",
        );
    }

    /// What a statement can be made deep with: operators, clauses, prefixes.
    const LINKS: [&str; 92] = [
        "+",
        "-",
        "*",
        "/",
        "%",
        "^",
        "|",
        "&",
        "#",
        "~",
        "!",
        "=",
        "<",
        ">",
        "@",
        "?",
        ":",
        "\\",
        "`",
        "::int",
        "||",
        "->",
        "->>",
        "#>",
        "#>>",
        "@>",
        "<@",
        "?|",
        "?&",
        "@@",
        "@?",
        "#-",
        "!~",
        "~*",
        "!~*",
        "~~",
        "!~~",
        "~~*",
        "!~~*",
        "^@",
        "<<",
        ">>",
        "&&",
        "<=>",
        "<>",
        "<->",
        "|/",
        "||/",
        "!!",
        ":=",
        "=>",
        "[1]",
        "[",
        "(",
        "{",
        "and",
        "or",
        "xor",
        "div",
        "is null",
        "isnull",
        "notnull",
        "is not true",
        "is distinct from",
        "like",
        "ilike",
        "similar to",
        "rlike",
        "regexp",
        "in (1) ",
        "between 1 and",
        "at time zone",
        "collate c",
        "overlaps",
        "match",
        "glob",
        "member of (1)",
        "operator(pg_catalog.+)",
        "not",
        "union select",
        "except select",
        "intersect select",
        "minus select",
        "case when",
        "cast(",
        "exists(",
        "(select ",
        "array[",
        "interval ",
        "explain ",
        "::array<",
        "::numeric(1,2)",
    ];

    /// The forms in which it stands: behind, between, before.
    fn chains(link: &str, count: usize) -> [String; 3] {
        [
            format!("select 1 {}", format!(" {link}").repeat(count)),
            format!("select 1 {}", format!(" {link} 1").repeat(count)),
            format!("select {} 1", format!(" {link}").repeat(count)),
        ]
    }

    #[test]
    fn no_chain_ends_the_process() {
        // A stack on which nothing fits that is not bounded.
        let small = std::thread::Builder::new().stack_size(256 << 10);
        let all = small.spawn(|| {
            for link in LINKS {
                for sql in chains(link, 1_000_000 / (link.len() + 2)) {
                    let refused = with_stack(|| rewrite(&sql).map(|done| done.sql)).unwrap_err();
                    assert_eq!(refused.sqlstate, *b"54001", "{link}");
                }
                // As many as are let through: whatever comes of them.
                let parts = super::super::words::tokens(link).count();
                for sql in chains(link, (WORDS_LIMIT - 10) / parts) {
                    with_stack(|| drop(rewrite(&sql)));
                }
            }
        });
        all.unwrap().join().unwrap();
    }

    #[test]
    fn a_comment_hides_nothing_from_the_count() {
        // Where a comment ends is not the same for everybody.
        for end in ["\r", "\u{2028}", "\u{b}"] {
            let sql = format!("select 1 --{end}{}", " notnull".repeat(100_000));
            with_stack(|| drop(rewrite(&sql)));
        }
    }

    #[test]
    fn a_long_list_of_values_is_not_too_long() {
        let values = vec!["1, 'x'"; 4500].join(", ");
        let sql = format!("select 1 where 1 in ({values})");
        assert!(with_stack(|| rewrite(&sql).is_ok()));
    }

    #[test]
    fn what_is_nested_is_not_doubled() {
        let mut sql = "select 1".to_owned();
        for _ in 0..20 {
            sql = format!("select count(*) from generate_series(1, ({sql}))");
        }
        let rewritten = with_stack(|| rewrite(&sql).map(|done| done.sql)).unwrap();
        assert!(rewritten.len() < 10_000, "{} bytes", rewritten.len());
    }

    #[test]
    fn a_text_with_quotes_stays_what_it_is() {
        check(
            "select 'a''''b'",
            "SELECT CAST(X'61272762' AS TEXT) AS \"?column?\"",
        );
        check(
            "select E'\\n'",
            "SELECT CAST(X'0A' AS TEXT) AS \"?column?\"",
        );
    }

    #[test]
    fn refuses_what_the_console_does_not_run() {
        for (sql, state) in [
            ("create table t (a int)", b"0A000"),
            ("drop table backends", b"0A000"),
            ("select 1 into t", b"0A000"),
            ("select now() at time zone 'Asia/Tokyo'", b"0A000"),
            ("select now() at time zone $1", b"0A000"),
            ("select 1 fetch first 50 percent rows only", b"0A000"),
            ("select 1 order by 1 fetch first 1 rows with ties", b"0A000"),
            ("attach 'x' as y", b"0A000"),
            ("pragma journal_mode", b"0A000"),
            ("vacuum into 'x'", b"42601"),
        ] {
            let refused = rewrite(sql).map(|done| done.sql).unwrap_err();
            assert_eq!(refused.sqlstate, *state, "{sql}");
        }
    }
}
