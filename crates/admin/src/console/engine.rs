//! SQL over the tables: SQLite in memory, with the rows of the tables that a statement reads put in for its length.
//!
//! ## Why
//! A statement costs what it reads: while it is prepared, SQLite tells an authorizer every table and column that it will use. Then
//! the picture is asked for with these parts, the rows are put in, the statement runs, and everything is rolled back.
//!
//! ## Limits
//! A statement has `admin.statement_timeout`, a result [`RESULT_LIMIT`] and [`COLUMNS_LIMIT`], a text in it [`TEXT_LIMIT`]. What
//! all statements sort or keep in between is in memory, [`HEAP_LIMIT`] in all: one that needs more fails. No file is written.

mod authorizer;
mod failure;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, ToSql};
use sqlparser::ast::Statement;

use self::authorizer::{Mode, Seen};
use super::answer::{Column, cell_size, refusal};
use super::coerce;
use super::functions::{self, Caller};
use super::infer::Names;
use super::rewrite::{self, Rewritten, Verb};
use super::types::{Cell, PgType};
use crate::control::Refusal;
use crate::facts::Wanted;
use crate::tables::{self, Row, Scene, Schema, Table};

/// The most bytes of a result. Chosen: ten thousand clients with their statements are a sixth of it.
pub(crate) const RESULT_LIMIT: usize = 64 << 20;

/// The most bytes of one value, or of a row in between. Chosen: more than any cell has; a function may not make a larger one.
const TEXT_LIMIT: i32 = 1 << 20;

/// The most bytes of a cell that is put in. Chosen: the longest statement of a client that anybody reads; what is longer is cut,
/// and some of them fit the limit of a row. A table that is changed has its texts whole, or is refused.
const CELL_LIMIT: usize = 128 << 10;

/// The most columns of a result. Chosen: no table has a fifth of it.
const COLUMNS_LIMIT: i32 = 200;

/// The most bytes that SQLite takes in this process, for all sessions. Chosen: a session takes some hundred kilobytes, and the
/// rest sorts what ten thousand clients are several times over.
const HEAP_LIMIT: usize = 256 << 20;

/// The most bytes of a statement's text, rewritten or not.
const SQL_LIMIT: i32 = 1 << 20;

/// Steps of SQLite's machine between two looks at the clock: some tens of microseconds.
const STEPS: i32 = 10_000;

/// Likewise while a statement is prepared, where a step is a table or an expression.
const PREPARING_STEPS: i32 = 100;

/// A statement that is understood.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    rewritten: Rewritten,
    reads: Vec<&'static Table>,
    writes: Option<&'static Table>,
    /// None where it returns no rows.
    pub(crate) columns: Option<Vec<Column>>,
    /// The object IDs of its parameters' types.
    pub(crate) parameters: Vec<u32>,
}

impl Plan {
    /// Returns what its rows are made of.
    pub(crate) fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::default();
        for table in self.reads.iter().copied().chain(self.writes) {
            wanted.sessions |= table.needs.sessions;
            wanted.prepared |= table.needs.prepared;
            wanted.statements |= table.needs.statements;
            wanted.learned |= table.needs.learned;
            wanted.settings |= table.needs.settings;
            wanted.events |= table.needs.events;
        }
        wanted
    }

    /// Returns the table that it changes.
    pub(crate) fn writes(&self) -> Option<&'static Table> {
        self.writes
    }

    /// Returns about how much memory it takes, in bytes.
    pub(crate) fn size(&self) -> usize {
        let columns = self.columns.iter().flatten();
        let columns = columns.map(|column| size_of::<Column>() + column.name.len());
        self.rewritten.sql.len() + size_of_val(self.parameters.as_slice()) + columns.sum::<usize>()
    }

    /// Returns its command tag after so many rows.
    pub(crate) fn tag(&self, count: usize) -> String {
        match self.rewritten.verb {
            Verb::Select => format!("SELECT {count}"),
            Verb::Insert => format!("INSERT 0 {count}"),
            Verb::Update => format!("UPDATE {count}"),
            Verb::Delete => format!("DELETE {count}"),
        }
    }
}

/// The name of a column, and its type if it is a table's.
type Declared = (String, Option<PgType>);

/// A row that a statement has changed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Changed {
    /// Its place among the rows before, if it was there.
    pub(crate) place: Option<usize>,
    pub(crate) before: Option<Row>,
    pub(crate) after: Option<Row>,
}

/// What came of a statement.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) rows: Vec<Row>,
    /// How many rows it returned or changed.
    pub(crate) count: usize,
    pub(crate) changed: Vec<Changed>,
}

/// SQLite with the tables.
#[derive(Debug)]
pub(crate) struct Engine {
    connection: Connection,
    seen: Arc<Mutex<Seen>>,
    /// When the statement began that runs, in microseconds since 1970.
    clock: Arc<AtomicI64>,
    /// Whether nobody wants any more what it is at.
    is_stopped: Arc<AtomicBool>,
}

impl Engine {
    /// Makes the tables, empty.
    ///
    /// # Errors
    /// SQLite has no memory.
    pub(crate) fn new(caller: &Caller) -> Result<Engine, Refusal> {
        Engine::open(caller).map_err(|error| failure::of(&error, &Seen::default()))
    }

    fn open(caller: &Caller) -> rusqlite::Result<Engine> {
        let mut connection = Connection::open_in_memory()?;
        connection.execute_batch(&format!(
            "PRAGMA temp_store = MEMORY; PRAGMA hard_heap_limit = {HEAP_LIMIT}; PRAGMA trusted_schema = OFF;"
        ))?;
        for schema in Schema::ALL {
            let name = schema.name();
            connection.execute_batch(&format!("ATTACH ':memory:' AS \"{name}\""))?;
        }
        for table in tables::all() {
            connection.execute_batch(&definition(table))?;
        }
        let clock = Arc::new(AtomicI64::new(0));
        functions::register(&connection, caller, &clock)?;
        // A name in double quotes is a name, as for PostgreSQL.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        for (limit, most) in [
            (Limit::SQLITE_LIMIT_LENGTH, TEXT_LIMIT),
            (Limit::SQLITE_LIMIT_COLUMN, COLUMNS_LIMIT),
            (Limit::SQLITE_LIMIT_SQL_LENGTH, SQL_LIMIT),
            (Limit::SQLITE_LIMIT_EXPR_DEPTH, 500),
            (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 100),
            (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 4096),
            (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
        ] {
            connection.set_limit(limit, most)?;
        }
        let seen = Arc::new(Mutex::new(Seen::default()));
        connection.authorizer(Some(authorizer::new(Arc::clone(&seen))))?;
        Ok(Engine {
            connection,
            seen,
            clock,
            is_stopped: Arc::default(),
        })
    }

    /// Returns what stops the work that comes next, from another thread, by being set. SQLite's own interrupt is lost where
    /// it comes before the first step.
    pub(crate) fn stopper(&self) -> Arc<AtomicBool> {
        self.is_stopped.store(false, Ordering::Relaxed);
        Arc::clone(&self.is_stopped)
    }

    fn look(&self, mode: Mode) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = Seen {
            mode,
            ..Seen::default()
        };
    }

    fn seen(&self) -> Seen {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }

    /// Finds out what a statement reads, changes and returns.
    ///
    /// # Errors
    /// It cannot be understood, or is not allowed.
    pub(crate) fn prepare(
        &mut self,
        mut rewritten: Rewritten,
        declared: &[u32],
        may_change: bool,
        deadline: Instant,
    ) -> Result<Plan, Refusal> {
        let (mut columns, count, seen) = self.understand(&rewritten, may_change, deadline)?;
        let tree = rewritten.tree.as_deref();
        let reads: Vec<_> = seen
            .reads
            .iter()
            .filter_map(|(schema, name)| tables::find(schema, name))
            .collect();
        let known: Vec<_> = reads.iter().copied().chain(seen.writes).collect();
        let names = Names::new(tree, &known);
        let coerced = tree.map(|tree| coerce::coerced(tree, &names)).transpose()?;
        if let Some(coerced) = coerced.flatten() {
            rewritten.sql = rewrite::printed(coerced)?;
            (columns, ..) = self.understand(&rewritten, may_change, deadline)?;
        }
        let tree = rewritten.tree.as_deref();
        let columns = typed(&names, tree, columns);
        let parameters = parameters(&names, tree, declared, count);
        // A plan lives on where the stack is small.
        rewritten.tree = None;
        Ok(Plan {
            columns,
            parameters,
            reads,
            writes: seen.writes,
            rewritten,
        })
    }

    /// Has SQLite understand a statement, with an eye on what it may do: what is not said to change anything may not either.
    fn understand(
        &mut self,
        rewritten: &Rewritten,
        may_change: bool,
        deadline: Instant,
    ) -> Result<(Vec<Declared>, usize, Seen), Refusal> {
        self.look(Mode::Client { may_change });
        // A few names may stand for a great many tables.
        let described = self
            .start_clock(PREPARING_STEPS, deadline)
            .and_then(|()| self.describe(&rewritten.sql));
        let seen = self.seen();
        self.look(Mode::Own);
        let stopped = self.stop_clock();
        let (columns, count, is_readonly) =
            described.map_err(|error| refused(&error, &seen, deadline))?;
        stopped.map_err(|error| failure::of(&error, &seen))?;
        if rewritten.verb == Verb::Select && !is_readonly {
            return Err(rewrite::behind_with());
        }
        if rewritten.verb != Verb::Select && (is_readonly || seen.writes.is_none()) {
            let message = "this statement changes nothing that can be changed";
            return Err(refusal(b"0A000", message));
        }
        Ok((columns, count, seen))
    }

    /// Returns the columns, with the type of each that is a table's, how many parameters there are, and whether it only reads.
    fn describe(&self, sql: &str) -> rusqlite::Result<(Vec<Declared>, usize, bool)> {
        let statement = self.connection.prepare(sql)?;
        let columns = statement.columns();
        let columns = columns.map(|column| {
            let ty = column.decl_type().and_then(PgType::of_declaration);
            (column.name().to_owned(), ty)
        });
        let columns = columns.collect();
        Ok((columns, statement.parameter_count(), statement.readonly()))
    }

    /// Runs a statement over rows of one picture, and takes everything back.
    ///
    /// # Errors
    /// It failed, took too long, or returned too much.
    pub(crate) fn run(
        &mut self,
        plan: &Plan,
        values: &[Cell],
        scene: &Scene<'_>,
        deadline: Instant,
    ) -> Result<Outcome, Refusal> {
        self.look(Mode::Own);
        let began = crate::time::unix_us(SystemTime::now());
        self.clock.store(began, Ordering::Relaxed);
        let result = self.within(plan, values, scene, deadline);
        let seen = self.seen();
        self.look(Mode::Own);
        // Whatever it was, its rows are not needed any more, nor the memory that they took.
        let cleared = self.stop_clock().and_then(|()| {
            if !self.connection.is_autocommit() {
                self.connection.execute_batch("ROLLBACK")?;
            }
            self.connection.execute_batch("PRAGMA shrink_memory")
        });
        let outcome = match result {
            Err(Stop::Sqlite(error)) => Err(refused(&error, &seen, deadline)),
            Err(Stop::Refused(refused)) => Err(refused),
            Ok(outcome) => Ok(outcome),
        };
        cleared.map_err(|error| failure::of(&error, &seen))?;
        outcome
    }

    fn start_clock(&mut self, steps: i32, deadline: Instant) -> rusqlite::Result<()> {
        let is_stopped = Arc::clone(&self.is_stopped);
        let is_over = move || is_stopped.load(Ordering::Relaxed) || Instant::now() >= deadline;
        self.connection.progress_handler(steps, Some(is_over))
    }

    fn stop_clock(&mut self) -> rusqlite::Result<()> {
        self.connection.progress_handler(0, None::<fn() -> bool>)
    }

    fn within(
        &mut self,
        plan: &Plan,
        values: &[Cell],
        scene: &Scene<'_>,
        deadline: Instant,
    ) -> Result<Outcome, Stop> {
        self.start_clock(STEPS, deadline)?;
        self.connection.execute_batch("BEGIN")?;
        for table in &plan.reads {
            if plan
                .writes
                .is_some_and(|written| written.name == table.name)
            {
                continue;
            }
            self.load(table, &(table.rows)(scene), CELL_LIMIT)?;
        }
        // What becomes of a text is written back, so that none is cut. What is compared later is read in the same way.
        let mut before = Vec::new();
        if let Some(table) = plan.writes {
            self.load(table, &(table.rows)(scene), usize::MAX)?;
            before = self.stored(table)?;
        }
        // It was looked at when it was prepared; what may be changed has not become less since.
        self.look(Mode::Client { may_change: true });
        let mut outcome = self.collect(plan, values)?;
        self.look(Mode::Own);
        if let Some(table) = plan.writes {
            outcome.changed = self.difference(table, before)?;
        }
        Ok(outcome)
    }

    /// Puts rows in; a text is cut at so many bytes.
    fn load(&self, table: &Table, rows: &[Row], limit: usize) -> rusqlite::Result<()> {
        let places = vec!["?"; table.columns.len()].join(", ");
        let (schema, name) = (table.schema.name(), table.name);
        let sql = format!("INSERT INTO \"{schema}\".\"{name}\" VALUES ({places})");
        let mut statement = self.connection.prepare(&sql)?;
        for row in rows {
            statement.execute(rusqlite::params_from_iter(
                row.iter().map(|cell| Cut { cell, limit }),
            ))?;
        }
        Ok(())
    }

    fn collect(&self, plan: &Plan, values: &[Cell]) -> Result<Outcome, Stop> {
        let mut statement = self.connection.prepare(&plan.rewritten.sql)?;
        for number in 1..=statement.parameter_count() {
            // A text that went to SQLite as it is has its own names for them.
            let name = statement.parameter_name(number).unwrap_or_default();
            let place = name
                .trim_start_matches(['?', '$'])
                .parse()
                .unwrap_or(number);
            let value = values.get(place.saturating_sub(1)).unwrap_or(&Cell::Null);
            statement.raw_bind_parameter(number, value)?;
        }
        let width = statement.column_count();
        let mut outcome = Outcome::default();
        let mut size = 0;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            let mut cells = Row::with_capacity(width);
            for index in 0..width {
                let cell = Cell::from(row.get_ref(index)?);
                size += cell_size(&cell);
                if size > RESULT_LIMIT {
                    return Err(Stop::Refused(too_large()));
                }
                cells.push(cell);
            }
            outcome.rows.push(cells);
        }
        drop(rows);
        drop(statement);
        outcome.count = match plan.rewritten.verb {
            Verb::Select => outcome.rows.len(),
            Verb::Insert | Verb::Update | Verb::Delete => {
                usize::try_from(self.connection.changes()).unwrap_or(usize::MAX)
            }
        };
        Ok(outcome)
    }

    /// Returns the rows of a table with their numbers, which begin with 1.
    fn stored(&self, table: &Table) -> rusqlite::Result<Vec<(i64, Row)>> {
        let (schema, name) = (table.schema.name(), table.name);
        let sql = format!("SELECT rowid, * FROM \"{schema}\".\"{name}\" ORDER BY rowid");
        let mut statement = self.connection.prepare(&sql)?;
        let width = statement.column_count();
        let rows = statement.query_map([], |row| {
            let cells = (1..width).map(|index| row.get_ref(index).map(Cell::from));
            Ok((row.get(0)?, cells.collect::<rusqlite::Result<_>>()?))
        })?;
        rows.collect()
    }

    /// Compares the rows of a table with those before.
    fn difference(&self, table: &Table, before: Vec<(i64, Row)>) -> rusqlite::Result<Vec<Changed>> {
        let mut before: Vec<Option<Row>> = before.into_iter().map(|(_, row)| Some(row)).collect();
        let mut changed = Vec::new();
        for (number, after) in self.stored(table)? {
            // A row that was added may have any.
            let place = usize::try_from(number.saturating_sub(1)).ok();
            let old = place.and_then(|place| before.get_mut(place)?.take());
            if old.as_ref() != Some(&after) {
                changed.push(Changed {
                    place: old.as_ref().and(place),
                    before: old,
                    after: Some(after),
                });
            }
        }
        // What has not been met is gone.
        for (place, row) in before.into_iter().enumerate() {
            if let Some(row) = row {
                changed.push(Changed {
                    place: Some(place),
                    before: Some(row),
                    after: None,
                });
            }
        }
        Ok(changed)
    }
}

enum Stop {
    Sqlite(rusqlite::Error),
    Refused(Refusal),
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Stop {
        Stop::Sqlite(error)
    }
}

/// Returns the error for a statement that may have run out of its time.
fn refused(error: &rusqlite::Error, seen: &Seen, deadline: Instant) -> Refusal {
    let refused = failure::of(error, seen);
    if refused.sqlstate == *b"57014" && Instant::now() >= deadline {
        return timed_out();
    }
    refused
}

/// Returns the error for a statement whose time is over.
pub(crate) fn timed_out() -> Refusal {
    refusal(
        b"57014",
        "canceling statement due to admin.statement_timeout",
    )
}

fn too_large() -> Refusal {
    Refusal {
        hint: Some("Ask for fewer rows or columns.".to_owned()),
        ..refusal(
            b"54000",
            format!("the result is larger than {} MiB", RESULT_LIMIT >> 20),
        )
    }
}

fn definition(table: &Table) -> String {
    let columns = table.columns.iter();
    let columns = columns.map(|column| format!("\"{}\" {}", column.name, column.ty.declaration()));
    format!(
        "CREATE TABLE \"{}\".\"{}\" ({})",
        table.schema.name(),
        table.name,
        columns.collect::<Vec<_>>().join(", ")
    )
}

fn typed(names: &Names, tree: Option<&Statement>, columns: Vec<Declared>) -> Option<Vec<Column>> {
    if columns.is_empty() {
        return None;
    }
    let inferred = tree.map(|tree| names.columns_of(tree, columns.len()));
    let inferred = inferred.unwrap_or_else(|| vec![None; columns.len()]);
    let columns = columns.into_iter().zip(inferred);
    let columns = columns.map(|((name, declared), inferred)| Column {
        name,
        ty: declared.or(inferred).unwrap_or(PgType::Text),
    });
    Some(columns.collect())
}

fn parameters(names: &Names, tree: Option<&Statement>, declared: &[u32], count: usize) -> Vec<u32> {
    match tree {
        Some(tree) => names.parameters(tree, declared),
        None => {
            let count = count.max(declared.len());
            let of = |index: usize| declared.get(index).copied().filter(|oid| *oid != 0);
            (0..count)
                .map(|index| of(index).unwrap_or(PgType::Text.oid()))
                .collect()
        }
    }
}

/// A cell of a table, whose text is cut at so many bytes.
struct Cut<'a> {
    cell: &'a Cell,
    limit: usize,
}

impl ToSql for Cut<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self.cell {
            Cell::Text(text) if text.len() > self.limit => {
                let end = text.floor_char_boundary(self.limit);
                text.get(..end).unwrap_or_default().to_sql()
            }
            cell => cell.to_sql(),
        }
    }
}
