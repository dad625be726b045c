//! The types of a result's columns, and of a statement's parameters, by its text: known before it runs, so that Describe says
//! what the rows will be.
//!
//! ## Why
//! SQLite knows the declared type of a plain column and nothing of an expression, and its values may be anything. Drivers ask
//! before they run a statement.
//!
//! ## Limits
//! A column is looked up by its name among the tables that the statement reads: where two of them disagree, the qualifier
//! decides if it is a table's name, else the first.

use std::collections::HashMap;
use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    Insert, ObjectNamePart, Query, Select, SelectItem, SetExpr, Statement, TableFactor,
    UnaryOperator, Value, Visit, Visitor,
};

use super::types::PgType;
use crate::tables::Table;

/// Returns the name that PostgreSQL gives the column of an expression.
pub(crate) fn name_of(expr: &Expr) -> String {
    let fallback = || "?column?".to_owned();
    match expr {
        Expr::Identifier(ident) => ident.value.to_lowercase(),
        Expr::CompoundIdentifier(parts) => parts
            .last()
            .map_or_else(fallback, |ident| ident.value.to_lowercase()),
        Expr::Function(function) => {
            let last = function.name.0.last();
            last.and_then(ObjectNamePart::as_ident)
                .map_or_else(fallback, |ident| ident.value.to_lowercase())
        }
        Expr::Cast {
            expr, data_type, ..
        } => match name_of(expr) {
            name if name == "?column?" => cast_name(data_type),
            name => name,
        },
        Expr::Nested(expr) | Expr::Collate { expr, .. } => name_of(expr),
        Expr::Case { else_result, .. } => match else_result.as_deref().map(name_of) {
            Some(name) if name != "?column?" => name,
            _ => "case".to_owned(),
        },
        Expr::Exists { .. } => "exists".to_owned(),
        Expr::Extract { .. } => "extract".to_owned(),
        Expr::Array(_) => "array".to_owned(),
        Expr::Subquery(query) => select_of(query)
            .and_then(|select| match select.projection.first()? {
                SelectItem::UnnamedExpr(expr) => Some(name_of(expr)),
                SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
                _ => None,
            })
            .unwrap_or_else(fallback),
        Expr::CompoundFieldAccess { root, .. } => name_of(root),
        _ => fallback(),
    }
}

fn cast_name(data_type: &DataType) -> String {
    let name = data_type.to_string().to_lowercase();
    PgType::of_name(&name).map_or(name, |ty| ty.name().to_owned())
}

fn select_of(query: &Query) -> Option<&Select> {
    fn of(body: &SetExpr) -> Option<&Select> {
        match body {
            SetExpr::Select(select) => Some(select),
            SetExpr::Query(query) => of(&query.body),
            SetExpr::SetOperation { left, .. } => of(left),
            _ => None,
        }
    }
    of(&query.body)
}

/// What names stand for in one statement.
#[derive(Debug, Default)]
pub(crate) struct Names {
    columns: HashMap<String, PgType>,
    qualified: HashMap<(String, String), PgType>,
}

impl Names {
    /// Collects the names of a statement that reads some tables.
    pub(crate) fn new(tree: Option<&Statement>, tables: &[&'static Table]) -> Names {
        let mut names = Names::default();
        for table in tables {
            for column in table.columns {
                let name = column.name.to_owned();
                names.columns.entry(name.clone()).or_insert(column.ty);
                names
                    .qualified
                    .insert((table.name.to_owned(), name), column.ty);
            }
        }
        if let Some(tree) = tree {
            let mut aliases = Aliases {
                tables,
                names: &mut names,
            };
            let _ = tree.visit(&mut aliases);
        }
        names
    }

    fn column(&self, name: &str) -> Option<PgType> {
        self.columns.get(&name.to_lowercase()).copied()
    }

    fn qualified(&self, table: &str, name: &str) -> Option<PgType> {
        let key = (table.to_lowercase(), name.to_lowercase());
        self.qualified
            .get(&key)
            .copied()
            .or_else(|| self.column(name))
    }

    /// Returns the types of a result of so many columns, where they are known.
    pub(crate) fn columns_of(&self, tree: &Statement, count: usize) -> Vec<Option<PgType>> {
        let items: &[SelectItem] = match tree {
            Statement::Query(query) => match (select_of(query), query.body.as_ref()) {
                (Some(select), _) => &select.projection,
                (None, SetExpr::Values(values)) => {
                    let row = values.rows.first().map(|row| row.content.as_slice());
                    let row = row.unwrap_or_default();
                    return row.iter().map(|expr| self.of(expr)).collect();
                }
                _ => &[],
            },
            Statement::Insert(insert) => insert.returning.as_deref().unwrap_or_default(),
            Statement::Update(update) => update.returning.as_deref().unwrap_or_default(),
            Statement::Delete(delete) => delete.returning.as_deref().unwrap_or_default(),
            _ => &[],
        };
        let is_wild = |item: &SelectItem| {
            matches!(
                item,
                SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)
            )
        };
        let of = |item: &SelectItem| match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => self.of(expr),
            _ => None,
        };
        let before = items.iter().take_while(|item| !is_wild(item)).map(of);
        let mut types: Vec<_> = before.take(count).collect();
        let after = items.iter().rev().take_while(|item| !is_wild(item)).map(of);
        let wild = items.iter().any(is_wild);
        let after: Vec<_> = if wild { after.collect() } else { Vec::new() };
        types.resize(count.saturating_sub(after.len()).max(types.len()), None);
        types.extend(after.into_iter().rev());
        types.resize(count, None);
        types
    }

    /// Returns the type of an expression, if it is known.
    pub(super) fn of(&self, expr: &Expr) -> Option<PgType> {
        match expr {
            Expr::Identifier(ident) => self.column(&ident.value),
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [.., table, column] => self.qualified(&table.value, &column.value),
                _ => None,
            },
            Expr::Value(value) => literal(&value.value),
            Expr::Nested(expr) | Expr::Collate { expr, .. } => self.of(expr),
            Expr::Cast { data_type, .. } => cast_type(data_type),
            Expr::TypedString(typed) => cast_type(&typed.data_type),
            Expr::Extract { .. } => Some(PgType::Float8),
            Expr::Position { .. } => Some(PgType::Int4),
            Expr::AtTimeZone { .. } => Some(PgType::Timestamptz),
            Expr::UnaryOp { op, expr } => match op {
                UnaryOperator::Not => Some(PgType::Bool),
                _ => self.of(expr),
            },
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right),
            Expr::Case {
                conditions,
                else_result,
                ..
            } => {
                let results = conditions.iter().map(|when| &when.result);
                self.first(results.chain(else_result.as_deref()))
            }
            Expr::Subquery(query) => self.first_column(query),
            Expr::Function(function) => self.function(function),
            Expr::Array(_) | Expr::Substring { .. } | Expr::Trim { .. } => Some(PgType::Text),
            Expr::Ceil { .. } | Expr::Floor { .. } => Some(PgType::Float8),
            Expr::IsFalse(_)
            | Expr::IsNotFalse(_)
            | Expr::IsTrue(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotUnknown(_)
            | Expr::IsDistinctFrom(..)
            | Expr::IsNotDistinctFrom(..)
            | Expr::InList { .. }
            | Expr::InSubquery { .. }
            | Expr::Between { .. }
            | Expr::Like { .. }
            | Expr::ILike { .. }
            | Expr::SimilarTo { .. }
            | Expr::AnyOp { .. }
            | Expr::AllOp { .. }
            | Expr::Exists { .. } => Some(PgType::Bool),
            _ => None,
        }
    }

    /// Returns the first type that is known.
    fn first<'e>(&self, exprs: impl Iterator<Item = &'e Expr>) -> Option<PgType> {
        let types: Vec<_> = exprs.filter_map(|expr| self.of(expr)).collect();
        match types.contains(&PgType::Float8) && types.iter().all(is_number) {
            true => Some(PgType::Float8),
            false => types.first().copied(),
        }
    }

    fn first_column(&self, query: &Query) -> Option<PgType> {
        match select_of(query)?.projection.first()? {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => self.of(expr),
            _ => None,
        }
    }

    fn binary(&self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Option<PgType> {
        use BinaryOperator as Op;
        match op {
            Op::StringConcat => Some(PgType::Text),
            Op::Plus | Op::Minus | Op::Multiply | Op::Divide | Op::Modulo | Op::PGExp => {
                match (self.of(left), self.of(right)) {
                    (Some(PgType::Timestamptz), Some(PgType::Timestamptz)) => Some(PgType::Text),
                    (Some(PgType::Timestamptz), _) => Some(PgType::Timestamptz),
                    (Some(PgType::Float8), _) | (_, Some(PgType::Float8)) => Some(PgType::Float8),
                    _ if *op == Op::PGExp => Some(PgType::Float8),
                    _ => Some(PgType::Int8),
                }
            }
            Op::BitwiseAnd | Op::BitwiseOr | Op::BitwiseXor => Some(PgType::Int8),
            _ => Some(PgType::Bool),
        }
    }

    fn function(&self, function: &Function) -> Option<PgType> {
        let full = function.name.to_string().replace('"', "").to_lowercase();
        let name = full.rsplit('.').next().unwrap_or_default();
        let args: Vec<&Expr> = match &function.args {
            FunctionArguments::List(list) => list.args.iter().filter_map(argument).collect(),
            _ => Vec::new(),
        };
        let first = || args.first().and_then(|expr| self.of(expr));
        Some(match name {
            "count"
            | "row_number"
            | "rank"
            | "dense_rank"
            | "pg_database_size"
            | "pg_total_relation_size"
            | "pg_relation_size"
            | "pg_table_size" => PgType::Int8,
            "sum" => match first() {
                Some(PgType::Float8) => PgType::Float8,
                _ => PgType::Int8,
            },
            "avg" | "extract" | "date_part" | "round" | "ceil" | "ceiling" | "floor" | "random"
            | "power" | "sqrt" | "total" => PgType::Float8,
            "length" | "char_length" | "strpos" | "position" | "instr" | "pg_backend_pid"
            | "array_length" | "array_upper" | "array_lower" | "cardinality" => PgType::Int4,
            "trunc" => match first() {
                Some(ty) if ty.is_integer() => ty,
                _ => PgType::Float8,
            },
            "mod" => PgType::Int8,
            "min" | "max" | "abs" | "lag" | "lead" | "first_value" | "last_value" | "greatest"
            | "least" => return first(),
            "coalesce" | "nullif" | "ifnull" => return self.first(args.iter().copied()),
            "now"
            | "current_timestamp"
            | "transaction_timestamp"
            | "statement_timestamp"
            | "clock_timestamp"
            | "localtimestamp"
            | "date_trunc"
            | "to_timestamp"
            | "pg_postmaster_start_time"
            | "pg_conf_load_time" => PgType::Timestamptz,
            "current_user" | "session_user" | "user" | "current_role" | "current_database"
            | "current_schema" | "current_catalog" | "pg_get_userbyid" => PgType::Name,
            "bool_and" | "bool_or" | "every" | "starts_with" => PgType::Bool,
            "to_regclass" | "to_regtype" => PgType::Oid,
            name if is_question(name) => PgType::Bool,
            _ => PgType::Text,
        })
    }

    /// Returns the types of a statement's parameters, the first being `$1`: as the client says, else by where they stand, else
    /// text.
    pub(crate) fn parameters(&self, tree: &Statement, declared: &[u32]) -> Vec<u32> {
        let mut found = Parameters {
            names: self,
            types: HashMap::new(),
            count: declared.len(),
        };
        if let Statement::Insert(insert) = tree {
            found.insert(insert);
        }
        if let Statement::Update(update) = tree {
            for assignment in &update.assignments {
                let column = assignment.target.to_string().replace('"', "");
                found.note(&assignment.value, self.column(&column));
            }
        }
        let _ = tree.visit(&mut found);
        let of = |index: usize| {
            let declared = declared.get(index).copied().filter(|oid| *oid != 0);
            let inferred = || found.types.get(&(index + 1)).copied();
            declared.unwrap_or_else(|| inferred().unwrap_or(PgType::Text).oid())
        };
        (0..found.count).map(of).collect()
    }
}

fn is_question(name: &str) -> bool {
    let has = name.starts_with("has_") && name.ends_with("_privilege");
    has || (name.starts_with("pg_")
        && (name.ends_with("_is_visible") || name.starts_with("pg_is_")))
        || name == "pg_relation_is_publishable"
        || name == "pg_has_role"
}

fn is_number(ty: &PgType) -> bool {
    ty.is_integer() || *ty == PgType::Float8
}

fn argument(arg: &FunctionArg) -> Option<&Expr> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

fn literal(value: &Value) -> Option<PgType> {
    match value {
        Value::Number(text, _) if text.contains(['.', 'e', 'E']) => Some(PgType::Float8),
        Value::Number(text, _) if text.parse::<i32>().is_ok() => Some(PgType::Int4),
        Value::Number(..) => Some(PgType::Int8),
        Value::Boolean(_) => Some(PgType::Bool),
        Value::Null | Value::Placeholder(_) => None,
        _ => Some(PgType::Text),
    }
}

fn cast_type(data_type: &DataType) -> Option<PgType> {
    match data_type {
        DataType::Array(_) => Some(PgType::Text),
        other => PgType::of_name(&other.to_string()),
    }
}

/// The number of a parameter.
fn placeholder(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Placeholder(name) => name.strip_prefix('$')?.parse().ok(),
            _ => None,
        },
        Expr::Nested(expr) => placeholder(expr),
        _ => None,
    }
}

/// Finds what aliases of tables and of columns stand for.
struct Aliases<'a> {
    tables: &'a [&'static Table],
    names: &'a mut Names,
}

impl Visitor for Aliases<'_> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table {
            name,
            alias: Some(alias),
            ..
        } = factor
        {
            let last = name.0.last().and_then(ObjectNamePart::as_ident);
            let table = last.and_then(|ident| {
                let named = ident.value.to_lowercase();
                self.tables.iter().find(|table| table.name == named)
            });
            for column in table.iter().flat_map(|table| table.columns) {
                let key = (alias.name.value.to_lowercase(), column.name.to_owned());
                self.names.qualified.insert(key, column.ty);
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        for item in &select.projection {
            let (name, expr) = match item {
                SelectItem::ExprWithAlias { expr, alias } => (alias.value.to_lowercase(), expr),
                SelectItem::UnnamedExpr(expr) => (name_of(expr), expr),
                _ => continue,
            };
            if let Some(ty) = self.names.of(expr) {
                self.names.columns.entry(name).or_insert(ty);
            }
        }
        ControlFlow::Continue(())
    }
}

/// Finds parameters beside something whose type is known.
struct Parameters<'a> {
    names: &'a Names,
    types: HashMap<usize, PgType>,
    count: usize,
}

/// The most parameters of a statement (PostgreSQL's own limit: a Bind counts them in 16 bits).
const PARAMETERS_LIMIT: usize = 65_535;

impl Parameters<'_> {
    fn note(&mut self, expr: &Expr, ty: Option<PgType>) {
        if let (Some(number), Some(ty)) = (placeholder(expr), ty) {
            self.types.entry(number).or_insert(ty);
        }
    }

    fn both(&mut self, left: &Expr, right: &Expr) {
        self.note(left, self.names.of(right));
        self.note(right, self.names.of(left));
    }

    fn insert(&mut self, insert: &Insert) {
        let Some(SetExpr::Values(values)) = insert.source.as_ref().map(|query| query.body.as_ref())
        else {
            return;
        };
        for row in &values.rows {
            for (column, expr) in insert.columns.iter().zip(row.content.as_slice()) {
                let name = column.to_string().replace('"', "");
                self.note(expr, self.names.column(&name));
            }
        }
    }
}

impl Visitor for Parameters<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if let Some(sqlparser::ast::LimitClause::LimitOffset { limit, offset, .. }) =
            &query.limit_clause
        {
            let offset = offset.as_ref().map(|offset| &offset.value);
            for expr in limit.iter().chain(offset) {
                self.note(expr, Some(PgType::Int8));
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Some(number) = placeholder(expr) {
            self.count = self.count.max(number.min(PARAMETERS_LIMIT));
        }
        match expr {
            Expr::BinaryOp { left, op, right } if *op != BinaryOperator::StringConcat => {
                self.both(left, right);
            }
            Expr::Cast {
                expr, data_type, ..
            } => self.note(expr, cast_type(data_type)),
            Expr::InList { expr, list, .. } => {
                for item in list {
                    self.both(expr, item);
                }
            }
            Expr::Between {
                expr, low, high, ..
            } => {
                self.both(expr, low);
                self.both(expr, high);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
