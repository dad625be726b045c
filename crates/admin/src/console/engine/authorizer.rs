//! What a statement of a client may do, asked by SQLite while it is prepared, and what it does.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use crate::console::answer::{not_for_viewers, refusal};
use crate::control::Refusal;
use crate::tables::{self, Changes, Schema, Table};

/// Whose statement it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mode {
    /// The engine's.
    #[default]
    Own,
    /// A client's.
    Client { may_change: bool },
}

/// What was asked about one statement.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) mode: Mode,
    /// Schema and name.
    pub(super) reads: BTreeSet<(String, String)>,
    pub(super) writes: Option<&'static Table>,
    /// Why it was refused.
    pub(super) denied: Option<Refusal>,
}

/// Makes an authorizer that writes down what it sees.
pub(super) fn new(
    seen: Arc<Mutex<Seen>>,
) -> impl for<'r> FnMut(AuthContext<'r>) -> Authorization + Send + 'static {
    move |context| {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.mode {
            Mode::Own => Authorization::Allow,
            Mode::Client { may_change } => seen.judge(&context, may_change),
        }
    }
}

impl Seen {
    fn judge(&mut self, context: &AuthContext<'_>, may_change: bool) -> Authorization {
        let schema = context.database_name.unwrap_or_default();
        let judged = match context.action {
            AuthAction::Select | AuthAction::Recursive => Ok(()),
            AuthAction::Function { function_name } => match function_name {
                "load_extension" | "fts3_tokenizer" => Err(not_here(function_name)),
                _ => Ok(()),
            },
            AuthAction::Read { table_name, .. } => self.read(schema, table_name),
            AuthAction::Insert { table_name } | AuthAction::Delete { table_name } => {
                self.rows(schema, table_name, may_change)
            }
            AuthAction::Update {
                table_name,
                column_name,
            } => self.update(schema, table_name, column_name, may_change),
            _ => Err(not_here("this")),
        };
        match judged {
            Ok(()) => Authorization::Allow,
            Err(denied) => {
                self.denied.get_or_insert(denied);
                Authorization::Deny
            }
        }
    }

    fn read(&mut self, schema: &str, name: &str) -> Result<(), Refusal> {
        // A table of which no column is used comes without its schema.
        let candidates = Schema::ALL.map(Schema::name);
        let candidates = match schema {
            "" => &candidates[..],
            schema => &[schema],
        };
        let found = candidates
            .iter()
            .find(|schema| tables::find(schema, name).is_some());
        match found {
            Some(schema) => {
                self.reads.insert(((*schema).to_owned(), name.to_owned()));
                Ok(())
            }
            // Those of SQLite's own; subqueries and common table expressions have no table behind them.
            None if name.starts_with("sqlite_") => Err(unknown_table(name)),
            None => Ok(()),
        }
    }

    fn changeable(
        &mut self,
        schema: &str,
        name: &str,
        may_change: bool,
    ) -> Result<&'static Table, Refusal> {
        let table = tables::find(schema, name).ok_or_else(|| unknown_table(name))?;
        if table.changes == Changes::None {
            return Err(refusal(
                b"0A000",
                format!("table \"{name}\" cannot be changed"),
            ));
        }
        if !may_change {
            return Err(not_for_viewers(&format!(
                "permission denied for table {name}"
            )));
        }
        self.writes = Some(table);
        Ok(table)
    }

    fn rows(&mut self, schema: &str, name: &str, may_change: bool) -> Result<(), Refusal> {
        let table = self.changeable(schema, name, may_change)?;
        if table.changes != Changes::All {
            return Err(Refusal {
                hint: Some("UPDATE changes those that there are.".to_owned()),
                ..refusal(
                    b"0A000",
                    format!("rows of \"{name}\" can be neither added nor taken out"),
                )
            });
        }
        Ok(())
    }

    fn update(
        &mut self,
        schema: &str,
        name: &str,
        column: &str,
        may_change: bool,
    ) -> Result<(), Refusal> {
        let table = self.changeable(schema, name, may_change)?;
        let found = table.columns.iter().find(|known| known.name == column);
        if found.is_some_and(|column| column.changeable) {
            return Ok(());
        }
        let can: Vec<_> = table
            .columns
            .iter()
            .filter(|known| known.changeable)
            .collect();
        let can: Vec<_> = can.iter().map(|column| column.name).collect();
        Err(Refusal {
            hint: Some(format!("Those that can be: {}.", can.join(", "))),
            ..refusal(
                b"0A000",
                format!("column \"{column}\" of \"{name}\" cannot be changed"),
            )
        })
    }
}

fn unknown_table(name: &str) -> Refusal {
    refusal(b"42P01", format!("relation \"{name}\" does not exist"))
}

fn not_here(what: &str) -> Refusal {
    refusal(b"42501", format!("{what} is not allowed on the console"))
}
