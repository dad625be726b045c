//! The functions that SQLite lacks and PostgreSQL's clients call.
//!
//! Those named `pgweir_..` are what [`super::rewrite`] makes of operators, casts and arrays.

mod arrays;
mod moments;
mod patterns;
mod values;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;

use self::arrays::{Collect, array, elements, length};
use super::parameters::{self, SERVER_VERSION};
use super::types::{Cell, PgType, bool_of};
use crate::tables::{self, Schema};

/// What functions say about the session that calls them.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) user: Arc<str>,
    pub(crate) database: Arc<str>,
    pub(crate) process_id: u32,
}

/// What a function does with its arguments. `Err` is an SQLSTATE and a message, separated by a blank.
type Act = fn(&[Cell]) -> Result<Cell, String>;

/// Makes the functions known. `now()` is what the clock stands at, in microseconds since 1970.
///
/// # Errors
/// SQLite has no memory.
pub(crate) fn register(
    connection: &Connection,
    caller: &Caller,
    clock: &Arc<AtomicI64>,
) -> rusqlite::Result<()> {
    for (name, act) in PLAIN {
        scalar(connection, name, act)?;
    }
    moments::register(connection, clock)?;
    values::register(connection)?;
    let caller = caller.clone();
    let whoever = caller.clone();
    scalar(connection, "current_user", move |_| {
        Ok((&whoever.user).into())
    })?;
    let whoever = caller.clone();
    scalar(connection, "current_database", move |_| {
        Ok((&whoever.database).into())
    })?;
    // As PostgreSQL shows it: of 32 bits with a sign.
    let process_id = i64::from(i32::from_be_bytes(caller.process_id.to_be_bytes()));
    scalar(connection, "pg_backend_pid", move |_| Ok(process_id.into()))?;
    let whoever = caller;
    scalar(connection, "pg_get_userbyid", move |cells| {
        Ok(match number(cells, 0) {
            Some(10) => "pgweir".into(),
            Some(_) => (&whoever.user).into(),
            None => Cell::Null,
        })
    })?;
    patterns::register(connection)?;
    connection.create_aggregate_function("pgweir_array_agg", 1, pure(), Collect)
}

fn pure() -> FunctionFlags {
    FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC
}

fn failed(message: String) -> rusqlite::Error {
    rusqlite::Error::UserFunctionError(message.into())
}

/// The most bytes of the arguments of one call. Chosen: four values of the greatest length; SQLite does not see the memory of
/// what is copied, and takes a thousand of them.
const ARGUMENTS_LIMIT: usize = 4 << 20;

/// Copies the arguments of a call.
fn arguments(context: &Context<'_>) -> rusqlite::Result<Vec<Cell>> {
    let mut size = 0;
    let mut copied = |index| {
        let raw = context.get_raw(index);
        if let ValueRef::Text(bytes) | ValueRef::Blob(bytes) = raw {
            size += bytes.len();
        }
        match size > ARGUMENTS_LIMIT {
            true => Err(failed("54000 the arguments are too large".to_owned())),
            false => Ok(raw.into()),
        }
    };
    (0..context.len()).map(&mut copied).collect()
}

fn scalar(
    connection: &Connection,
    name: &str,
    act: impl Fn(&[Cell]) -> Result<Cell, String> + Send + 'static,
) -> rusqlite::Result<()> {
    // Not deterministic: the moment and the session are part of some, and nothing here is worth keeping.
    connection.create_scalar_function(name, -1, FunctionFlags::SQLITE_UTF8, move |context| {
        act(&arguments(context)?).map_err(failed)
    })
}

fn text(cells: &[Cell], index: usize) -> Option<String> {
    match cells.get(index)? {
        Cell::Null => None,
        Cell::Text(text) => Some(text.clone()),
        Cell::Int(value) => Some(value.to_string()),
        Cell::Real(value) => Some(value.to_string()),
    }
}

fn number(cells: &[Cell], index: usize) -> Option<i64> {
    match cells.get(index)? {
        Cell::Int(value) => Some(*value),
        #[expect(clippy::cast_possible_truncation, reason = "as the cast of SQL rounds")]
        Cell::Real(value) => Some(value.round() as i64),
        Cell::Text(text) => text.trim().parse().ok(),
        Cell::Null => None,
    }
}

fn float(cells: &[Cell], index: usize) -> Option<f64> {
    match cells.get(index)? {
        #[expect(clippy::cast_precision_loss, reason = "a float is asked for")]
        Cell::Int(value) => Some(*value as f64),
        Cell::Real(value) => Some(*value),
        Cell::Text(text) => text.trim().parse().ok(),
        Cell::Null => None,
    }
}

fn invalid(ty: &str, cells: &[Cell]) -> String {
    let shown = text(cells, 0).unwrap_or_default();
    format!("22P02 invalid input syntax for type {ty}: \"{shown}\"")
}

const TRUE: Act = |_| Ok(Cell::Int(1));
const NULL: Act = |_| Ok(Cell::Null);
const ZERO: Act = |_| Ok(Cell::Int(0));

const PLAIN: [(&str, Act); 86] = [
    // A type that is known is written into the statement before it runs.
    ("pg_typeof", |_| Ok("unknown".into())),
    ("unnest", rows_in_from),
    ("generate_subscripts", rows_in_from),
    ("array_length", length),
    ("array_upper", length),
    ("cardinality", length),
    ("array_lower", |cells| Ok(length(cells)?.min_one())),
    ("_pg_expandarray", NULL),
    ("to_regtype", |cells| Ok(type_named(cells))),
    ("parse_ident", |cells| {
        Ok(text(cells, 0).map(|name| parse_ident(&name)).into())
    }),
    ("txid_current", ZERO),
    ("pg_advisory_unlock_all", NULL),
    ("version", |_| {
        Ok(format!("PostgreSQL {SERVER_VERSION}, the console of pgweir").into())
    }),
    ("current_schema", |_| Ok("public".into())),
    ("current_schemas", |cells| {
        let implicit = number(cells, 0) == Some(1);
        Ok(if implicit {
            "{pg_catalog,public}"
        } else {
            "{public}"
        }
        .into())
    }),
    ("pg_is_in_recovery", ZERO),
    ("pg_is_wal_replay_paused", ZERO),
    ("pg_is_other_temp_schema", ZERO),
    ("pg_table_is_visible", |cells| {
        Ok(is_visible(number(cells, 0)).into())
    }),
    ("pg_type_is_visible", TRUE),
    ("pg_function_is_visible", TRUE),
    ("pg_operator_is_visible", TRUE),
    ("pg_opclass_is_visible", TRUE),
    ("pg_opfamily_is_visible", TRUE),
    ("pg_collation_is_visible", TRUE),
    ("pg_conversion_is_visible", TRUE),
    ("pg_statistics_obj_is_visible", TRUE),
    ("pg_ts_config_is_visible", TRUE),
    ("pg_ts_dict_is_visible", TRUE),
    ("pg_ts_parser_is_visible", TRUE),
    ("pg_ts_template_is_visible", TRUE),
    ("pg_relation_is_publishable", ZERO),
    ("has_table_privilege", TRUE),
    ("has_any_column_privilege", TRUE),
    ("has_column_privilege", TRUE),
    ("has_schema_privilege", TRUE),
    ("has_database_privilege", TRUE),
    ("has_function_privilege", TRUE),
    ("has_sequence_privilege", TRUE),
    ("has_type_privilege", TRUE),
    ("has_tablespace_privilege", TRUE),
    ("pg_has_role", TRUE),
    ("format_type", |cells| Ok(format_type(number(cells, 0)))),
    ("pg_get_expr", NULL),
    ("pg_get_viewdef", NULL),
    ("pg_get_indexdef", NULL),
    ("pg_get_constraintdef", NULL),
    ("pg_get_functiondef", NULL),
    ("pg_get_function_result", NULL),
    ("pg_get_function_arguments", NULL),
    ("pg_get_function_identity_arguments", NULL),
    ("pg_get_triggerdef", NULL),
    ("pg_get_ruledef", NULL),
    ("pg_get_statisticsobjdef_columns", NULL),
    ("pg_get_serial_sequence", NULL),
    ("pg_get_partkeydef", NULL),
    ("pg_tablespace_location", |_| Ok("".into())),
    ("pg_encoding_to_char", |_| Ok("UTF8".into())),
    ("pg_char_to_encoding", |_| Ok(Cell::Int(6))),
    ("pg_client_encoding", |_| Ok("UTF8".into())),
    ("getdatabaseencoding", |_| Ok("UTF8".into())),
    ("pg_database_size", ZERO),
    ("pg_total_relation_size", ZERO),
    ("pg_relation_size", ZERO),
    ("pg_table_size", ZERO),
    ("pg_indexes_size", ZERO),
    ("pg_size_pretty", |cells| {
        Ok(format!("{} bytes", number(cells, 0).unwrap_or(0)).into())
    }),
    ("obj_description", |cells| {
        Ok(description(number(cells, 0), 0))
    }),
    ("col_description", |cells| {
        Ok(description(
            number(cells, 0),
            number(cells, 1).unwrap_or(-1),
        ))
    }),
    ("shobj_description", |_| Ok("The console of pgweir.".into())),
    ("to_regclass", |cells| {
        Ok(relation(cells).unwrap_or(Cell::Null))
    }),
    ("pgweir_regclass", |cells| match relation(cells) {
        Some(cell) => Ok(cell),
        None => Err(format!(
            "42P01 relation \"{}\" does not exist",
            text(cells, 0).unwrap_or_default()
        )),
    }),
    ("pgweir_regtype", |cells| Ok(type_named(cells))),
    ("pgweir_regnamespace", |cells| Ok(schema_named(cells))),
    ("pgweir_regrole", |cells| {
        Ok(cells.first().cloned().unwrap_or(Cell::Null))
    }),
    ("current_setting", |cells| {
        let name = text(cells, 0).unwrap_or_default();
        let found = parameters::default_of(&name);
        let may_lack = number(cells, 1) == Some(1);
        match found {
            Some(value) => Ok(value.into()),
            None if may_lack => Ok(Cell::Null),
            None => Err(format!(
                "42704 unrecognized configuration parameter \"{name}\""
            )),
        }
    }),
    ("set_config", |cells| {
        Ok(cells.get(1).cloned().unwrap_or(Cell::Null))
    }),
    ("quote_ident", |cells| {
        Ok(text(cells, 0).map(|name| quote_ident(&name)).into())
    }),
    ("quote_literal", |cells| {
        Ok(text(cells, 0)
            .map(|text| format!("'{}'", text.replace('\'', "''")))
            .into())
    }),
    ("pgweir_bool", |cells| match text(cells, 0) {
        None => Ok(Cell::Null),
        Some(word) => bool_of(&word)
            .or_else(|| Some(number(cells, 0)? != 0))
            .map(Cell::from)
            .ok_or_else(|| invalid("boolean", cells)),
    }),
    ("pgweir_float", |cells| match cells.first() {
        None | Some(Cell::Null) => Ok(Cell::Null),
        Some(_) => float(cells, 0)
            .map(Cell::Real)
            .ok_or_else(|| invalid("double precision", cells)),
    }),
    ("pgweir_power", |cells| {
        Ok(float(cells, 0)
            .zip(float(cells, 1))
            .map(|(base, by)| base.powf(by))
            .into())
    }),
    ("pgweir_array", |cells| {
        let items: Vec<_> = (0..cells.len()).map(|index| text(cells, index)).collect();
        Ok(array(&items).into())
    }),
    ("pgweir_json", |cells| {
        let items = text(cells, 0)
            .map(|array| elements(&array))
            .unwrap_or_default();
        Ok(serde_json::to_string(&items).ok().into())
    }),
    ("pgweir_element", |cells| {
        let index = number(cells, 1).and_then(|index| usize::try_from(index).ok());
        let items = text(cells, 0)
            .map(|array| elements(&array))
            .unwrap_or_default();
        let found = index.and_then(|index| items.into_iter().nth(index.checked_sub(1)?));
        Ok(found.flatten().into())
    }),
    ("array_to_string", |cells| {
        let between = text(cells, 1).unwrap_or_default();
        let joined = text(cells, 0).map(|array| {
            let items = elements(&array).into_iter().flatten();
            items.collect::<Vec<_>>().join(&between)
        });
        Ok(joined.into())
    }),
];

/// A function that returns rows is called for one value only where there is a row to call it for.
fn rows_in_from(_: &[Cell]) -> Result<Cell, String> {
    Err("0A000 a function that returns rows stands in FROM on the console".to_owned())
}

/// The parts of a name, folded where they are not quoted.
fn parse_ident(name: &str) -> String {
    let tokens = super::words::tokens(name);
    let names = tokens.filter(|token| token.text != ".");
    let parts: Vec<_> = names
        .map(|token| match token.kind {
            super::words::Kind::Word => Some(token.text.to_lowercase()),
            _ => Some(token.value()),
        })
        .collect();
    array(&parts)
}

fn is_visible(oid: Option<i64>) -> bool {
    let table = tables::all().find(|table| Some(i64::from(tables::oid_of(table))) == oid);
    table.is_some_and(|table| table.schema != Schema::Standard)
}

fn format_type(oid: Option<i64>) -> Cell {
    let Some(oid) = oid else {
        return Cell::Null;
    };
    let ty = u32::try_from(oid).ok().and_then(PgType::of_oid);
    ty.map_or("???", PgType::sql_name).into()
}

fn description(oid: Option<i64>, column: i64) -> Cell {
    let table = tables::all().find(|table| Some(i64::from(tables::oid_of(table))) == oid);
    let about = table.and_then(|table| match usize::try_from(column) {
        Ok(0) => Some(table.about),
        Ok(column) => table.columns.get(column - 1).map(|column| column.about),
        Err(_) => None,
    });
    about.filter(|about| !about.is_empty()).into()
}

/// A name to an object ID, an object ID to a name: what a `regclass` is to who reads it. `None` is an unknown name.
fn relation(cells: &[Cell]) -> Option<Cell> {
    match cells.first()? {
        Cell::Null => Some(Cell::Null),
        Cell::Int(oid) => {
            let table = tables::all().find(|table| i64::from(tables::oid_of(table)) == *oid);
            Some(
                table
                    .map_or_else(|| oid.to_string(), |table| table.name.to_owned())
                    .into(),
            )
        }
        Cell::Text(name) => {
            if let Ok(oid) = name.parse::<u32>() {
                return Some(oid.into());
            }
            let name = name.replace('"', "").to_lowercase();
            let (schema, name) = match name.split_once('.') {
                Some((schema, name)) => (Some(schema.to_owned()), name.to_owned()),
                None => (None, name),
            };
            let is = |table: &&tables::Table| {
                let schema = schema.as_deref();
                table.name == name && schema.is_none_or(|schema| schema == table.schema.name())
            };
            tables::all()
                .find(is)
                .map(|table| tables::oid_of(table).into())
        }
        Cell::Real(_) => None,
    }
}

fn type_named(cells: &[Cell]) -> Cell {
    match cells.first() {
        Some(Cell::Int(0)) => "-".into(),
        Some(Cell::Int(oid)) => format_type(Some(*oid)),
        Some(Cell::Text(name)) => match PgType::of_name(name) {
            Some(ty) => ty.oid().into(),
            None => Cell::Null,
        },
        _ => Cell::Null,
    }
}

fn schema_named(cells: &[Cell]) -> Cell {
    let all = Schema::ALL.into_iter();
    match cells.first() {
        Some(Cell::Int(oid)) => {
            let mut found = all.filter(|schema| i64::from(schema.oid()) == *oid);
            found.next().map(Schema::name).into()
        }
        Some(Cell::Text(name)) => {
            let mut found = all.filter(|schema| schema.name() == name);
            found.next().map(Schema::oid).into()
        }
        _ => Cell::Null,
    }
}

fn quote_ident(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let is_plain = name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit());
    if is_plain && !name.is_empty() {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}
