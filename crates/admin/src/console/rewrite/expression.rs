//! Expressions: operators, casts, functions and literals as SQLite, with the console's functions, understands them.

use std::ops::ControlFlow;

use sqlparser::ast::{
    AccessExpr, BinaryOperator, CastKind, DataType, DateTimeField, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList, FunctionArguments, Ident,
    ObjectName, Subscript, UnaryOperator, Value, ValueWithSpan, VisitorMut, WindowType,
};

use super::{factor, nulls_as_postgresql, quote, value};
use crate::console::types::PgType;

/// Makes `user` without parentheses a column.
pub(super) struct UserIsColumn;

impl VisitorMut for UserIsColumn {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && function.args == FunctionArguments::None
            && function.name.to_string().eq_ignore_ascii_case("user")
        {
            *expr = Expr::Identifier(Ident::with_quote('"', "user"));
        }
        ControlFlow::Continue(())
    }
}

/// A function call.
pub(super) fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args
        .into_iter()
        .map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)))
        .collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        within_group: Vec::new(),
        filter: None,
        null_treatment: None,
        over: None,
    })
}

fn not(expr: Expr) -> Expr {
    Expr::UnaryOp {
        op: UnaryOperator::Not,
        expr: Box::new(expr),
    }
}

fn negated(expr: Expr, negated: bool) -> Expr {
    if negated { not(expr) } else { expr }
}

fn string(text: &str) -> Expr {
    value(Value::SingleQuotedString(text.to_owned()))
}

/// Whether it is NULL, as it is written.
pub(super) fn is_null(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Value(ValueWithSpan {
            value: Value::Null,
            ..
        })
    )
}

/// Whether it is the time zone that all moments here are in.
pub(super) fn is_utc(zone: &Expr) -> bool {
    let names = ["utc", "gmt", "etc/utc", "z", "zulu", "+00", "+00:00"];
    matches!(zone, Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(name), .. })
        if names.iter().any(|utc| name.eq_ignore_ascii_case(utc)))
}

/// Takes an expression out of its place.
fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, value(Value::Null))
}

/// Rewrites one whose parts are rewritten already.
pub(super) fn rewrite(expr: &mut Expr) {
    let taken = take(expr);
    *expr = rewritten(taken);
}

fn rewritten(expr: Expr) -> Expr {
    match expr {
        Expr::Identifier(mut ident) => {
            if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default") {
                return value(Value::Null);
            }
            if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("current_schema") {
                return call("current_schema", Vec::new());
            }
            quote(&mut ident);
            Expr::Identifier(ident)
        }
        Expr::CompoundIdentifier(mut parts) => {
            parts.iter_mut().for_each(quote);
            // The table that a row stands in, which is the table itself: nothing here has another.
            if parts.last().is_some_and(|last| last.value == "tableoid") {
                return value(Value::Null);
            }
            if parts.len() > 3 {
                parts.drain(..parts.len() - 3);
            }
            Expr::CompoundIdentifier(parts)
        }
        Expr::Value(found) => literal(found.value),
        Expr::Cast {
            expr, data_type, ..
        } => cast(*expr, &data_type),
        Expr::TypedString(typed) => cast(literal(typed.value.value), &typed.data_type),
        Expr::Collate { expr, .. } => *expr,
        Expr::AtTimeZone { timestamp, .. } => *timestamp,
        Expr::Interval(interval) => {
            let unit = interval
                .leading_field
                .map(|field| string(&field.to_string()));
            let args = std::iter::once(*interval.value).chain(unit).collect();
            call(INTERVAL, args)
        }
        Expr::Extract { field, expr, .. } => {
            call("date_part", vec![string(&field_name(&field)), *expr])
        }
        Expr::Position { expr, r#in } => call("instr", vec![*r#in, *expr]),
        Expr::Substring {
            expr,
            substring_from,
            substring_for,
            ..
        } => {
            let from = substring_from
                .map_or_else(|| value(Value::Number("1".to_owned(), false)), |from| *from);
            let length = substring_for.map(|length| *length);
            let args = [*expr, from].into_iter().chain(length).collect();
            call("pgweir_substring", args)
        }
        Expr::IsUnknown(expr) => Expr::IsNull(expr),
        Expr::IsNotUnknown(expr) => Expr::IsNotNull(expr),
        Expr::Array(array) => call("pgweir_array", array.elem),
        Expr::CompoundFieldAccess { root, access_chain } => access(*root, access_chain),
        Expr::Function(function) => function_call(function),
        other => matching(other),
    }
}

/// The function that an interval becomes; see [`shifted`].
const INTERVAL: &str = "pgweir_interval";

fn field_name(field: &DateTimeField) -> String {
    field.to_string().trim_matches(['\'', '"']).to_lowercase()
}

/// Comparisons with a pattern, a list or an array, and operators.
fn matching(expr: Expr) -> Expr {
    match expr {
        Expr::ILike {
            negated: no,
            expr,
            pattern,
            escape_char,
            ..
        } => {
            let escape = escape_char.map(|escape| *escape);
            let args = [*expr, *pattern].into_iter().chain(escape).collect();
            negated(call("pgweir_ilike", args), no)
        }
        Expr::AnyOp {
            left,
            compare_op,
            right,
            ..
        } => quantified(*left, compare_op, *right, Quantifier::Any),
        Expr::AllOp {
            left,
            compare_op,
            right,
        } => quantified(*left, compare_op, *right, Quantifier::All),
        Expr::BinaryOp { left, op, right } => binary(*left, op, *right),
        other => other,
    }
}

fn literal(literal: Value) -> Expr {
    match literal {
        Value::SingleQuotedString(text)
        | Value::EscapedStringLiteral(text)
        | Value::UnicodeStringLiteral(text)
        | Value::NationalStringLiteral(text) => quoted_text(text),
        Value::DollarQuotedString(text) => quoted_text(text.value),
        Value::Placeholder(name) => {
            let number = name.strip_prefix('$').map(|number| format!("?{number}"));
            value(Value::Placeholder(number.unwrap_or(name)))
        }
        other => value(other),
    }
}

/// A text with a quote or a sign that may be printed otherwise goes as its bytes.
fn quoted_text(text: String) -> Expr {
    let plain = |b: u8| b >= b' ' && b != b'\'' && b != b'\\';
    if text.bytes().all(plain) {
        return value(Value::SingleQuotedString(text));
    }
    let digits: String = text.bytes().map(|b| format!("{b:02X}")).collect();
    Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(value(Value::HexStringLiteral(digits))),
        data_type: DataType::Text,
        format: None,
    }
}

fn cast(expr: Expr, data_type: &DataType) -> Expr {
    if matches!(data_type, DataType::Array(_)) {
        return expr;
    }
    let name = data_type.to_string().to_lowercase();
    let bare = name
        .rsplit('.')
        .next()
        .unwrap_or_default()
        .trim_matches('"');
    match bare {
        "regclass" | "regtype" | "regnamespace" | "regrole" => {
            return call(&format!("pgweir_{bare}"), vec![expr]);
        }
        "regproc" | "regprocedure" | "regoper" | "regoperator" => return as_text(expr),
        "interval" => return call(INTERVAL, vec![expr]),
        _ => {}
    }
    match PgType::of_name(&name) {
        Some(PgType::Bool) => call("pgweir_bool", vec![expr]),
        Some(PgType::Int2) => call("pgweir_int2", vec![expr]),
        Some(PgType::Int4) => call("pgweir_int4", vec![expr]),
        Some(PgType::Int8) => call("pgweir_int", vec![expr]),
        Some(PgType::Oid) => call("pgweir_oid", vec![expr]),
        Some(PgType::Float8) => call("pgweir_float", vec![expr]),
        Some(PgType::Timestamptz) => call("pgweir_timestamp", vec![expr]),
        Some(PgType::Text | PgType::Name | PgType::Char) => as_text(expr),
        None => expr,
    }
}

fn as_text(expr: Expr) -> Expr {
    Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(expr),
        data_type: DataType::Text,
        format: None,
    }
}

/// `array[n]`; a slice is the array itself, and a field of a row is not known.
fn access(root: Expr, chain: Vec<AccessExpr>) -> Expr {
    chain.into_iter().fold(root, |root, step| match step {
        AccessExpr::Subscript(Subscript::Index { index }) => {
            call("pgweir_element", vec![root, index])
        }
        AccessExpr::Subscript(Subscript::Slice { .. }) => root,
        AccessExpr::Dot(_) => value(Value::Null),
    })
}

/// The names of functions that are called otherwise here.
const RENAMED: [(&str, &str); 27] = [
    ("json_build_object", "json_object"),
    ("jsonb_build_object", "json_object"),
    ("json_agg", "json_group_array"),
    ("jsonb_agg", "json_group_array"),
    ("now", "pgweir_now"),
    ("current_timestamp", "pgweir_now"),
    ("transaction_timestamp", "pgweir_now"),
    ("statement_timestamp", "pgweir_now"),
    ("clock_timestamp", "pgweir_now"),
    ("localtimestamp", "pgweir_now"),
    ("user", "current_user"),
    ("session_user", "current_user"),
    ("current_role", "current_user"),
    ("current_catalog", "current_database"),
    ("array_agg", "pgweir_array_agg"),
    ("bool_or", "max"),
    ("bool_and", "min"),
    ("every", "min"),
    ("greatest", "pgweir_greatest"),
    ("least", "pgweir_least"),
    ("strpos", "instr"),
    ("char_length", "length"),
    ("left", "pgweir_left"),
    ("right", "pgweir_right"),
    ("substr", "pgweir_substring"),
    ("substring", "pgweir_substring"),
    ("mod", "pgweir_modulo"),
];

fn function_call(mut function: Function) -> Expr {
    let full = function.name.to_string().replace('"', "").to_lowercase();
    let name = full.rsplit('.').next().unwrap_or_default();
    if let FunctionArguments::Subquery(query) = &function.args {
        return array_of(query).unwrap_or(Expr::Function(function));
    }
    if function.args == FunctionArguments::None {
        function.args = FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: Vec::new(),
            clauses: Vec::new(),
        });
    }
    if let Some(WindowType::WindowSpec(window)) = &mut function.over {
        window.order_by.iter_mut().for_each(nulls_as_postgresql);
    }
    if let FunctionArguments::List(list) = &mut function.args {
        for clause in &mut list.clauses {
            if let FunctionArgumentClause::OrderBy(order_by) = clause {
                order_by.iter_mut().for_each(nulls_as_postgresql);
            }
        }
    }
    let renamed = RENAMED.iter().find(|(from, _)| *from == name);
    let name = renamed.map_or(name, |(_, to)| to);
    function.name = ObjectName::from(vec![Ident::new(name)]);
    Expr::Function(function)
}

/// `ARRAY(SELECT ...)`
fn array_of(query: &sqlparser::ast::Query) -> Option<Expr> {
    let sql =
        format!("WITH pgweir_rows(x) AS ({query}) SELECT pgweir_array_agg(x) FROM pgweir_rows");
    let query = factor::parse_query(&sql)?;
    let empty = string("{}");
    let rows = Expr::Subquery(Box::new(query));
    Some(call("coalesce", vec![rows, empty]))
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Quantifier {
    Any,
    All,
}

fn quantified(left: Expr, op: BinaryOperator, right: Expr, quantifier: Quantifier) -> Expr {
    let is_in = op == BinaryOperator::Eq && quantifier == Quantifier::Any;
    let is_not_in = op == BinaryOperator::NotEq && quantifier == Quantifier::All;
    if let (Expr::Subquery(subquery), true) = (&right, is_in || is_not_in) {
        return Expr::InSubquery {
            expr: Box::new(left),
            subquery: subquery.clone(),
            negated: is_not_in,
        };
    }
    // The array was rewritten before.
    if let Expr::Function(function) = &right
        && (is_in || is_not_in)
        && function.name.to_string() == "pgweir_array"
        && let FunctionArguments::List(list) = &function.args
    {
        let items = list.args.iter().filter_map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
            _ => None,
        });
        return Expr::InList {
            expr: Box::new(left),
            list: items.collect(),
            negated: is_not_in,
        };
    }
    let right = match right {
        Expr::Nested(inner) => *inner,
        other => other,
    };
    let name = match quantifier {
        Quantifier::Any => "pgweir_any",
        Quantifier::All => "pgweir_all",
    };
    call(name, vec![left, string(&operator_text(&op)), right])
}

fn operator_text(op: &BinaryOperator) -> String {
    match op {
        BinaryOperator::PGCustomBinaryOperator(parts) => parts.last().cloned().unwrap_or_default(),
        other => other.to_string(),
    }
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    let text = operator_text(&op);
    let matched = |name: &str, no: bool, left, right| negated(call(name, vec![left, right]), no);
    match text.as_str() {
        "~" => matched("pgweir_regex", false, left, right),
        "!~" => matched("pgweir_regex", true, left, right),
        "~*" => matched("pgweir_iregex", false, left, right),
        "!~*" => matched("pgweir_iregex", true, left, right),
        "~~" => matched("like", false, right, left),
        "!~~" => matched("like", true, right, left),
        "~~*" => matched("pgweir_ilike", false, left, right),
        "!~~*" => matched("pgweir_ilike", true, left, right),
        "^" => call("pgweir_power", vec![left, right]),
        "^@" => matched("pgweir_starts_with", false, left, right),
        "/" => call("pgweir_divide", vec![left, right]),
        "%" => call("pgweir_modulo", vec![left, right]),
        "+" | "-" => shifted(left, op, right),
        _ => Expr::BinaryOp {
            left: Box::new(left),
            op: known(op, &text),
            right: Box::new(right),
        },
    }
}

/// An operator that was written with its schema, as the plain one.
fn known(op: BinaryOperator, text: &str) -> BinaryOperator {
    if !matches!(op, BinaryOperator::PGCustomBinaryOperator(_)) {
        return op;
    }
    match text {
        "=" => BinaryOperator::Eq,
        "<>" | "!=" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        ">" => BinaryOperator::Gt,
        "<=" => BinaryOperator::LtEq,
        ">=" => BinaryOperator::GtEq,
        "*" => BinaryOperator::Multiply,
        "||" => BinaryOperator::StringConcat,
        _ => op,
    }
}

fn is_call_of(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::Function(function) if function.name.to_string() == name)
}

/// A moment and an interval, or two moments; else numbers.
fn shifted(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    let minus = operator_text(&op) == "-";
    if is_call_of(&right, INTERVAL) && !is_call_of(&left, INTERVAL) {
        let by = if minus {
            Expr::UnaryOp {
                op: UnaryOperator::Minus,
                expr: Box::new(right),
            }
        } else {
            right
        };
        return call("pgweir_shift", vec![left, by]);
    }
    let may_be_moment = |expr: &Expr| {
        matches!(
            expr,
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Function(_)
        )
    };
    if minus && may_be_moment(&left) && may_be_moment(&right) {
        return call("pgweir_minus", vec![left, right]);
    }
    let op = if minus {
        BinaryOperator::Minus
    } else {
        BinaryOperator::Plus
    };
    Expr::BinaryOp {
        left: Box::new(left),
        op,
        right: Box::new(right),
    }
}
