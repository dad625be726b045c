//! What stands in FROM: functions that return rows, lists of columns behind an alias.

use sqlparser::ast::{FunctionArg, Ident, Query, SetExpr, Statement, TableAlias, TableFactor};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::quote;

/// A function of SQLite's own that stands in FROM.
const EACH: &str = "json_each";

/// Rewrites one; its parts are rewritten afterwards.
pub(super) fn rewrite(factor: &mut TableFactor) {
    let replaced = match factor {
        TableFactor::Table {
            name,
            args: Some(args),
            alias,
            ..
        } => {
            let function = name.to_string();
            function_rows(&function, &arguments(&args.args), alias.as_ref())
        }
        TableFactor::Function {
            name, args, alias, ..
        } => function_rows(&name.to_string(), &arguments(args), alias.as_ref()),
        TableFactor::UNNEST {
            array_exprs, alias, ..
        } => {
            let arrays: Vec<_> = array_exprs.iter().map(ToString::to_string).collect();
            function_rows("unnest", &arrays, alias.as_ref())
        }
        TableFactor::Derived {
            subquery,
            alias: Some(alias),
            ..
        } if !alias.columns.is_empty() => named_columns(subquery, alias),
        _ => None,
    };
    if let Some(replaced) = replaced {
        *factor = replaced;
    }
    let alias = match factor {
        TableFactor::Table { alias, .. } | TableFactor::NestedJoin { alias, .. } => alias,
        TableFactor::Derived { alias, lateral, .. } => {
            *lateral = false;
            alias
        }
        _ => return,
    };
    if let Some(alias) = alias {
        quote(&mut alias.name);
        alias.explicit = true;
        alias.columns.clear();
    }
}

fn arguments(args: &[FunctionArg]) -> Vec<String> {
    args.iter().map(ToString::to_string).collect()
}

fn quoted(name: &str) -> String {
    Ident::with_quote('"', name).to_string()
}

fn folded(ident: &Ident) -> String {
    let mut ident = ident.clone();
    quote(&mut ident);
    ident.value
}

/// A function as a table: the rows of a series or an array, or one row.
fn function_rows(name: &str, args: &[String], alias: Option<&TableAlias>) -> Option<TableFactor> {
    let name = name.replace('"', "").to_lowercase();
    let name = name.rsplit('.').next().unwrap_or_default();
    if name == EACH {
        return None;
    }
    let table = alias.map_or_else(|| name.to_owned(), |alias| folded(&alias.name));
    let named = alias.and_then(|alias| alias.columns.first());
    let column = named.map_or_else(|| table.clone(), |column| folded(&column.name));
    let (table, column) = (quoted(&table), quoted(&column));
    let rows = match (name, args) {
        // Each end stands there once: in what is nested, twice is a thousand times ten levels down. By its limit SQLite
        // does not double them either.
        ("generate_series", [from, to]) => format!(
            "(WITH RECURSIVE pgweir_series(x, y) AS (SELECT x, y FROM \
             (SELECT {from} AS x, {to} AS y LIMIT 1) AS pgweir_ends WHERE x <= y UNION ALL \
             SELECT x + 1, y FROM pgweir_series WHERE x < y) SELECT x AS {column} FROM pgweir_series)"
        ),
        ("unnest", [array]) => {
            format!("(SELECT value AS {column} FROM {EACH}(pgweir_json({array})))")
        }
        // Of no use here: nobody writes SQL for the console by a list of PostgreSQL's words.
        ("pg_get_keywords", []) => "(SELECT 'select' AS word, 'R' AS catcode)".to_owned(),
        (name, args) => format!("(SELECT {name}({}) AS {column})", args.join(", ")),
    };
    parse_factor(&format!("{rows} AS {table}"))
}

/// `(query) AS t(a, b)`: SQLite names the columns of a common table expression only.
fn named_columns(subquery: &Query, alias: &TableAlias) -> Option<TableFactor> {
    let table = quoted(&folded(&alias.name));
    let columns = alias
        .columns
        .iter()
        .map(|column| quoted(&folded(&column.name)));
    let columns = columns.collect::<Vec<_>>().join(", ");
    parse_factor(&format!(
        "(WITH {table}({columns}) AS ({subquery}) SELECT * FROM {table}) AS {table}"
    ))
}

fn parse_factor(text: &str) -> Option<TableFactor> {
    let query = parse_query(&format!("SELECT * FROM {text}"))?;
    match *query.body {
        SetExpr::Select(select) => select.from.into_iter().next().map(|from| from.relation),
        _ => None,
    }
}

/// Parses a query that is put together here.
pub(super) fn parse_query(sql: &str) -> Option<Query> {
    let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).ok()?;
    match statements.pop()? {
        Statement::Query(query) => Some(*query),
        _ => None,
    }
}
