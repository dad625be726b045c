//! The answer to a statement: rows, a command tag. Its columns are known before.

use super::types::{Cell, PgType};
use crate::control::Refusal;
use crate::tables::Row;

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) ty: PgType,
}

impl Column {
    pub(crate) fn new(name: &str, ty: PgType) -> Column {
        Column {
            name: name.to_owned(),
            ty,
        }
    }
}

/// What goes to the client.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) rows: Vec<Row>,
    pub(crate) tag: String,
    /// Words for the operator beside it.
    pub(crate) notice: Option<String>,
}

impl Answer {
    /// Returns an answer without rows.
    pub(crate) fn done(tag: &str) -> Answer {
        Answer {
            tag: tag.to_owned(),
            ..Answer::default()
        }
    }

    /// Returns rows, whose number stands in the tag.
    pub(crate) fn rows(rows: Vec<Row>, tag: &str) -> Answer {
        Answer {
            rows,
            ..Answer::done(tag)
        }
    }

    /// Returns about how much memory the rows take, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.rows.iter().map(|row| row_size(row)).sum()
    }
}

/// Returns about how much memory a row takes, in bytes.
pub(crate) fn row_size(row: &[Cell]) -> usize {
    row.iter().map(cell_size).sum()
}

/// Returns about how much memory a cell takes, in bytes.
pub(crate) fn cell_size(cell: &Cell) -> usize {
    match cell {
        Cell::Text(text) => text.len() + size_of::<Cell>(),
        Cell::Null | Cell::Int(_) | Cell::Real(_) => size_of::<Cell>(),
    }
}

/// Returns an error.
pub(crate) fn refusal(sqlstate: &[u8; 5], message: impl Into<String>) -> Refusal {
    Refusal {
        sqlstate: *sqlstate,
        message: message.into(),
        detail: None,
        hint: None,
    }
}

/// Returns the error for what viewers may not do.
pub(crate) fn not_for_viewers(message: &str) -> Refusal {
    Refusal {
        hint: Some("Users in admin.viewers may only look.".to_owned()),
        ..refusal(b"42501", message)
    }
}

/// Returns the error for what a client has cancelled.
pub(crate) fn canceled() -> Refusal {
    refusal(b"57014", "canceling statement due to user request")
}
