//! What PostgreSQL reads into a statement by the types of its parts, and SQLite does not.
//!
//! ## Why
//! `since > '2026-11-30T00:00:00Z'` compares moments for PostgreSQL, and texts for SQLite. A literal takes the type of what it is
//! compared with here, as a cast that is written into the tree; what PostgreSQL refuses by types or by grouping is refused.
//!
//! ## Limits
//! Refused is what the tree shows plainly: a text column in arithmetic where all of FROM are tables, and a bare column beside an
//! aggregate where the statement itself groups, not a query within.

use std::collections::HashSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    ArrayElemTypeDef, BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, GroupByExpr, ObjectNamePart, Query, Select, SelectItem, SetExpr, Statement,
    TableFactor, TimezoneInfo, Value, ValueWithSpan, Visit, VisitMut, Visitor, VisitorMut,
};
use sqlparser::tokenizer::Span;

use super::answer::refusal;
use super::infer::Names;
use super::rewrite::within;
use super::types::PgType;
use crate::control::Refusal;

/// Returns the statement with the casts that its types ask for; `None` where they ask for none.
///
/// # Errors
/// PostgreSQL refuses it.
pub(crate) fn coerced(tree: &Statement, names: &Names) -> Result<Option<Statement>, Refusal> {
    grouped(tree)?;
    let mut plain = Plain(true);
    let _ = Visit::visit(tree, &mut plain);
    let mut changed = tree.clone();
    let mut coercer = Coercer {
        names,
        plain: plain.0,
        has_changed: false,
    };
    match VisitMut::visit(&mut changed, &mut coercer) {
        ControlFlow::Break(refused) => Err(refused),
        ControlFlow::Continue(()) => Ok(coercer.has_changed.then_some(changed)),
    }
}

/// Whether a name can be nothing but a column of a table.
struct Plain(bool);

impl Visitor for Plain {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.0 &= query.with.is_none();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        self.0 &= matches!(factor, TableFactor::Table { args: None, .. });
        ControlFlow::Continue(())
    }
}

struct Coercer<'a> {
    names: &'a Names,
    plain: bool,
    has_changed: bool,
}

impl VisitorMut for Coercer<'_> {
    type Break = Refusal;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Refusal> {
        match expr {
            Expr::BinaryOp { left, op, right } if compares(op) => self.both(left, right),
            Expr::BinaryOp { left, op, right } if computes(op) => {
                return self.numbers(left, op, right);
            }
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                self.both(left, right);
            }
            Expr::Between {
                expr, low, high, ..
            } => {
                let ty = [&*low, &*high, &*expr]
                    .into_iter()
                    .find_map(|part| self.compared(part));
                for part in [expr, low, high] {
                    self.give(part, ty);
                }
            }
            Expr::InList { expr, list, .. } => {
                let ty = self
                    .compared(expr)
                    .or_else(|| list.iter().find_map(|item| self.compared(item)));
                self.give(expr, ty);
                list.iter_mut().for_each(|item| self.give(item, ty));
            }
            Expr::AnyOp { left, right, .. } | Expr::AllOp { left, right, .. } => {
                match right.as_mut() {
                    Expr::Array(array) => {
                        let ty = self.compared(left);
                        array.elem.iter_mut().for_each(|item| self.give(item, ty));
                    }
                    Expr::Cast {
                        data_type: DataType::Array(ArrayElemTypeDef::SquareBracket(of, _)),
                        ..
                    } => self.give(left, number(PgType::of_name(&of.to_string()))),
                    _ => {}
                }
            }
            Expr::Function(function) => {
                if let Some(name) = self.type_name(function) {
                    *expr = text(name);
                    self.has_changed = true;
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Coercer<'_> {
    /// The type that a literal beside it takes on, if SQLite would not give it the right meaning.
    fn compared(&self, expr: &Expr) -> Option<PgType> {
        if is_literal(expr) {
            return None;
        }
        let ty = self.names.of(expr)?;
        matches!(ty, PgType::Timestamptz | PgType::Bool).then_some(ty)
    }

    fn both(&mut self, left: &mut Expr, right: &mut Expr) {
        let (of_left, of_right) = (self.compared(left), self.compared(right));
        self.give(left, of_right);
        self.give(right, of_left);
    }

    fn give(&mut self, expr: &mut Expr, ty: Option<PgType>) {
        let Some(ty) = ty.filter(|_| is_literal(expr)) else {
            return;
        };
        let data_type = match ty {
            PgType::Timestamptz => DataType::Timestamp(None, TimezoneInfo::Tz),
            PgType::Bool => DataType::Boolean,
            PgType::Float8 => DataType::DoublePrecision,
            _ => DataType::BigInt(None),
        };
        let inner = std::mem::replace(expr, text(""));
        *expr = Expr::Cast {
            kind: sqlparser::ast::CastKind::Cast,
            expr: Box::new(inner),
            data_type,
            format: None,
        };
        self.has_changed = true;
    }

    /// A text in arithmetic is a number as PostgreSQL reads one, or an error.
    fn numbers(
        &mut self,
        left: &mut Expr,
        op: &BinaryOperator,
        right: &mut Expr,
    ) -> ControlFlow<Refusal> {
        let (of_left, of_right) = (self.names.of(left), self.names.of(right));
        let clash = match (number(of_left), number(of_right)) {
            (Some(_), None) => self.is_text(right),
            (None, Some(_)) => self.is_text(left),
            _ => false,
        };
        if clash {
            let name = |ty: Option<PgType>| ty.map_or("unknown", PgType::sql_name);
            let message = format!(
                "operator does not exist: {} {op} {}",
                name(of_left),
                name(of_right)
            );
            return ControlFlow::Break(refusal(b"42883", message));
        }
        self.give_text(left, number(of_right));
        self.give_text(right, number(of_left));
        ControlFlow::Continue(())
    }

    /// Whether it is a text and no literal that may still become something else.
    fn is_text(&self, expr: &Expr) -> bool {
        let may_say = match expr {
            Expr::Nested(inner) => return self.is_text(inner),
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => self.plain,
            Expr::Cast { data_type, .. } => !matches!(data_type, DataType::Array(_)),
            _ => false,
        };
        may_say && matches!(self.names.of(expr), Some(PgType::Text | PgType::Name))
    }

    fn give_text(&mut self, expr: &mut Expr, ty: Option<PgType>) {
        if is_literal(expr) && self.names.of(expr) == Some(PgType::Text) {
            self.give(expr, ty);
        }
    }

    /// What `pg_typeof(...)` says.
    fn type_name(&self, function: &Function) -> Option<&'static str> {
        if name_of(function) != "pg_typeof" {
            return None;
        }
        let FunctionArguments::List(list) = &function.args else {
            return None;
        };
        let [FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))] = list.args.as_slice() else {
            return None;
        };
        if is_literal(expr) {
            return Some("unknown");
        }
        Some(self.names.of(expr).map_or("unknown", PgType::sql_name))
    }
}

fn number(ty: Option<PgType>) -> Option<PgType> {
    ty.filter(|ty| ty.is_integer() || *ty == PgType::Float8)
}

fn text(text: &str) -> Expr {
    Expr::Value(ValueWithSpan {
        value: Value::SingleQuotedString(text.to_owned()),
        span: Span::empty(),
    })
}

/// Whether it is a text without a type of its own, or a parameter.
fn is_literal(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_literal(inner),
        Expr::Value(value) => matches!(
            value.value,
            Value::SingleQuotedString(_)
                | Value::EscapedStringLiteral(_)
                | Value::UnicodeStringLiteral(_)
                | Value::NationalStringLiteral(_)
                | Value::DollarQuotedString(_)
                | Value::Placeholder(_)
        ),
        _ => false,
    }
}

fn compares(op: &BinaryOperator) -> bool {
    use BinaryOperator as Op;
    match op {
        Op::Eq | Op::NotEq | Op::Lt | Op::Gt | Op::LtEq | Op::GtEq => true,
        Op::PGCustomBinaryOperator(parts) => {
            let last = parts.last().map(String::as_str).unwrap_or_default();
            ["=", "<>", "!=", "<", ">", "<=", ">="].contains(&last)
        }
        _ => false,
    }
}

fn computes(op: &BinaryOperator) -> bool {
    use BinaryOperator as Op;
    matches!(
        op,
        Op::Plus | Op::Minus | Op::Multiply | Op::Divide | Op::Modulo
    )
}

fn name_of(function: &Function) -> String {
    let last = function.name.0.last().and_then(ObjectNamePart::as_ident);
    last.map_or_else(String::new, |ident| ident.value.to_lowercase())
}

const AGGREGATES: [&str; 15] = [
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "total",
    "array_agg",
    "string_agg",
    "group_concat",
    "bool_and",
    "bool_or",
    "every",
    "json_agg",
    "jsonb_agg",
    "json_group_array",
];

/// Refuses a bare column of the result where rows are put together.
fn grouped(tree: &Statement) -> Result<(), Refusal> {
    let Statement::Query(query) = tree else {
        return Ok(());
    };
    let SetExpr::Select(select) = query.body.as_ref() else {
        return Ok(());
    };
    let GroupByExpr::Expressions(by, modifiers) = &select.group_by else {
        return Ok(());
    };
    let items = select.projection.iter().filter_map(of_item);
    let has_aggregate = items.clone().any(|expr| holds(expr, &is_aggregate));
    let keys = by
        .iter()
        .flat_map(|key| [written(key), key_of(key, select)])
        .collect::<Option<HashSet<String>>>();
    // One that is too long to be told is left to SQLite.
    let Some(keys) = keys else {
        return Ok(());
    };
    // The key of a row decides all its columns.
    let is_whole = keys.contains("oid");
    if (by.is_empty() && !has_aggregate) || !modifiers.is_empty() || is_whole {
        return Ok(());
    }
    for expr in items {
        if let Some(column) = bare(expr, &keys) {
            let message = format!(
                "column \"{column}\" must appear in the GROUP BY clause or be used in an aggregate function"
            );
            return Err(refusal(b"42803", message));
        }
    }
    Ok(())
}

fn of_item(item: &SelectItem) -> Option<&Expr> {
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

/// What an expression of GROUP BY is told by: a column by its bare name, an alias or a number by what it stands for.
fn key_of(key: &Expr, select: &Select) -> Option<String> {
    let of_place = |place: usize| {
        select
            .projection
            .get(place.checked_sub(1)?)
            .and_then(of_item)
    };
    let found = match key {
        Expr::Value(value) => match &value.value {
            Value::Number(place, _) => place.parse().ok().and_then(of_place),
            _ => None,
        },
        Expr::Identifier(name) => select.projection.iter().find_map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias }
                if alias.value.eq_ignore_ascii_case(&name.value) =>
            {
                Some(expr)
            }
            _ => None,
        }),
        _ => None,
    };
    written(found.unwrap_or(key))
}

/// The most bytes of an expression that is told by its text. Chosen: longer than what anybody groups by; each part of an
/// expression is printed, and a chain has a thousand that are as long as it.
const WRITTEN_LIMIT: usize = 4096;

/// What an expression is told by; `None` is too long.
fn written(expr: &Expr) -> Option<String> {
    let text = match expr {
        Expr::Nested(inner) => return written(inner),
        Expr::Identifier(name) => name.value.clone(),
        Expr::CompoundIdentifier(parts) => parts
            .last()
            .map_or_else(String::new, |name| name.value.clone()),
        other => within(WRITTEN_LIMIT, other)?,
    };
    Some(text.to_lowercase())
}

fn is_aggregate(expr: &Expr) -> bool {
    matches!(expr, Expr::Function(function)
        if function.over.is_none() && AGGREGATES.contains(&name_of(function).as_str()))
}

/// Whether an expression, or one in it, is something; what stands in a query within is not looked at.
fn holds(expr: &Expr, is: &dyn Fn(&Expr) -> bool) -> bool {
    is(expr) || parts(expr).into_iter().any(|part| holds(part, is))
}

/// The parts of those expressions that are looked into.
fn parts(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::Nested(inner)
        | Expr::Cast { expr: inner, .. }
        | Expr::UnaryOp { expr: inner, .. }
        | Expr::IsNull(inner)
        | Expr::IsNotNull(inner) => vec![inner],
        Expr::BinaryOp { left, right, .. } => vec![left, right],
        Expr::Function(function) => match &function.args {
            FunctionArguments::List(list) => list
                .args
                .iter()
                .filter_map(|arg| match arg {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// Returns the name of a column that is neither grouped by nor aggregated.
fn bare(expr: &Expr, keys: &HashSet<String>) -> Option<String> {
    let text = written(expr);
    if text.as_ref().is_some_and(|text| keys.contains(text)) || is_aggregate(expr) {
        return None;
    }
    match expr {
        Expr::Identifier(name) if name.quote_style.is_none() && is_word(&name.value) => None,
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => text,
        other => parts(other).into_iter().find_map(|part| bare(part, keys)),
    }
}

/// Whether a name without quotes stands for something else than a column.
fn is_word(name: &str) -> bool {
    ["current_schema", "default"]
        .iter()
        .any(|word| name.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_expression_is_not_printed_for_each_of_its_parts() {
        let sum = |letters| Expr::BinaryOp {
            left: Box::new(Expr::Nested(Box::new(text(&"X".repeat(letters))))),
            op: BinaryOperator::Plus,
            right: Box::new(text("")),
        };
        assert_eq!(written(&sum(1)).as_deref(), Some("('x') + ''"));
        assert_eq!(written(&sum(WRITTEN_LIMIT)), None);
    }
}
