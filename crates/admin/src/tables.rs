//! The tables of the console: what each is called, its columns with their types, and its rows out of one picture.
//!
//! One file per table. A table says what its rows need of [`Facts`], so that a statement costs what it reads and no more.

mod backends;
mod clients;
mod clusters;
mod databases;
mod events;
mod help;
mod information_schema;
mod learned_routes;
mod metrics;
mod pg_catalog;
mod pins;
mod pools;
mod prepared_statements;
mod routes;
mod rules;
mod servers;
mod settings;
mod statements;
mod transactions;
mod unbuilt;
mod users;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pgweir_model::NodeId;

use crate::console::types::{Cell, PgType};
use crate::facts::{Facts, Wanted};
use crate::time;

pub(crate) use rules::KEYS as RULE_KEYS;

/// A row: as many cells as its table has columns.
pub(crate) type Row = Vec<Cell>;

/// Where a table stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Schema {
    /// The console's own.
    Public,
    /// What drivers and tools look for.
    PgCatalog,
    /// Likewise, by the standard's names.
    Standard,
}

impl Schema {
    pub(crate) const ALL: [Schema; 3] = [Schema::Public, Schema::PgCatalog, Schema::Standard];

    /// Returns its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Schema::Public => "public",
            Schema::PgCatalog => "pg_catalog",
            Schema::Standard => "information_schema",
        }
    }

    /// Returns its object ID: PostgreSQL's own where it is fixed.
    pub(crate) fn oid(self) -> u32 {
        match self {
            Schema::Public => 2200,
            Schema::PgCatalog => 11,
            Schema::Standard => 13_000,
        }
    }
}

/// A column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) ty: PgType,
    pub(crate) about: &'static str,
    /// Whether an UPDATE may set it.
    pub(crate) changeable: bool,
}

const fn column(name: &'static str, ty: PgType, about: &'static str) -> Column {
    Column {
        name,
        ty,
        about,
        changeable: false,
    }
}

const fn text(name: &'static str, about: &'static str) -> Column {
    column(name, PgType::Text, about)
}

const fn int4(name: &'static str, about: &'static str) -> Column {
    column(name, PgType::Int4, about)
}

const fn int8(name: &'static str, about: &'static str) -> Column {
    column(name, PgType::Int8, about)
}

const fn float8(name: &'static str, about: &'static str) -> Column {
    column(name, PgType::Float8, about)
}

const fn boolean(name: &'static str, about: &'static str) -> Column {
    column(name, PgType::Bool, about)
}

const fn moment(name: &'static str, about: &'static str) -> Column {
    column(name, PgType::Timestamptz, about)
}

impl Column {
    const fn changeable(mut self) -> Column {
        self.changeable = true;
        self
    }
}

/// What an operator may do to the rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changes {
    /// Look.
    None,
    /// UPDATE.
    Update,
    /// INSERT, UPDATE and DELETE.
    All,
}

/// A table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    pub(crate) schema: Schema,
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) columns: &'static [Column],
    pub(crate) changes: Changes,
    /// What its rows are made of, beside what is always there.
    pub(crate) needs: Wanted,
    pub(crate) rows: fn(&Scene<'_>) -> Vec<Row>,
}

/// What rows are made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub(crate) facts: &'a Facts,
    /// The role that asks.
    pub(crate) user: &'a str,
    /// The console's database.
    pub(crate) database: &'a str,
    /// The process ID of the session that asks.
    pub(crate) process_id: u32,
}

const NOTHING: Wanted = Wanted {
    sessions: false,
    prepared: false,
    statements: false,
    learned: false,
    settings: false,
    events: false,
};

const SESSIONS: Wanted = Wanted {
    sessions: true,
    ..NOTHING
};

/// The console's own tables, in the order of `help`.
pub(crate) const OWN: [&Table; 25] = [
    &clusters::TABLE,
    &backends::TABLE,
    &databases::TABLE,
    &users::TABLE,
    &pools::TABLE,
    &clients::TABLE,
    &servers::TABLE,
    &transactions::TABLE,
    &prepared_statements::TABLE,
    &statements::TABLE,
    &routes::TABLE,
    &learned_routes::TABLE,
    &pins::TABLE,
    &rules::TABLE,
    &unbuilt::CACHE_TABLES,
    &unbuilt::CACHE_ENTRIES,
    &unbuilt::SHARDS,
    &unbuilt::SHARDED_TABLES,
    &unbuilt::TWO_PHASE_TRANSACTIONS,
    &settings::TABLE,
    &events::TABLE,
    &metrics::TABLE,
    &help::TABLE,
    &help::COLUMNS_TABLE,
    &help::COMMANDS_TABLE,
];

/// Returns every table, those for tools included.
pub(crate) fn all() -> impl Iterator<Item = &'static Table> {
    OWN.into_iter()
        .chain(pg_catalog::TABLES)
        .chain(information_schema::TABLES)
}

/// Returns a table by its schema and name.
pub(crate) fn find(schema: &str, name: &str) -> Option<&'static Table> {
    all().find(|table| table.schema.name() == schema && table.name == name)
}

/// Returns one of the console's own tables.
pub(crate) fn own(name: &str) -> Option<&'static Table> {
    OWN.into_iter().find(|table| table.name == name)
}

/// Returns the object ID of a table. Chosen: the console's own begin where PostgreSQL's for users do, the others below.
pub(crate) fn oid_of(table: &Table) -> u32 {
    let first = if table.schema == Schema::Public {
        16_384
    } else {
        12_000
    };
    let place = all().position(|other| other.schema == table.schema && other.name == table.name);
    let place = u32::try_from(place.unwrap_or_default()).unwrap_or_default();
    match (table.schema, table.name) {
        // Those that tools know by heart.
        (Schema::PgCatalog, "pg_class") => 1259,
        (Schema::PgCatalog, "pg_type") => 1247,
        (Schema::PgCatalog, "pg_proc") => 1255,
        (Schema::PgCatalog, "pg_attribute") => 1249,
        (Schema::PgCatalog, "pg_namespace") => 2615,
        (Schema::PgCatalog, "pg_database") => 1262,
        _ => first + place,
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::Text(text)
    }
}

impl From<&Arc<str>> for Cell {
    fn from(text: &Arc<str>) -> Cell {
        Cell::Text(text.to_string())
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Cell {
        Cell::Int(value.into())
    }
}

impl From<u16> for Cell {
    fn from(value: u16) -> Cell {
        Cell::Int(value.into())
    }
}

impl From<u32> for Cell {
    fn from(value: u32) -> Cell {
        Cell::Int(value.into())
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Cell {
        Cell::Int(value)
    }
}

impl From<u64> for Cell {
    fn from(value: u64) -> Cell {
        Cell::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Cell {
    fn from(value: usize) -> Cell {
        Cell::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Cell {
    fn from(value: f64) -> Cell {
        Cell::Real(value)
    }
}

impl From<SystemTime> for Cell {
    fn from(at: SystemTime) -> Cell {
        Cell::Text(time::format(at))
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Cell {
        value.map_or(Cell::Null, Into::into)
    }
}

/// Returns a duration in milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    us_to_ms(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

/// Returns microseconds in milliseconds.
fn us_to_ms(us: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a duration for people")]
    let us = us as f64;
    us / 1000.0
}

impl Facts {
    /// Returns the name of a server, or its place where it is unknown.
    pub(crate) fn node_name(&self, id: NodeId) -> String {
        self.node(id)
            .map_or_else(|| id.to_string(), |(_, node)| node.name.to_string())
    }

    /// Returns the name of a cluster, or nothing.
    pub(crate) fn cluster_name(&self, id: NodeId) -> &str {
        self.node(id).map_or("", |(cluster, _)| &cluster.name)
    }
}
