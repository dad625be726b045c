//! What SQLite says, as PostgreSQL would: an SQLSTATE, and the nearest name where one is unknown.

use pgweir_config::reference::nearest;
use rusqlite::ErrorCode;

use super::authorizer::Seen;
use crate::console::answer::{canceled, refusal};
use crate::control::Refusal;
use crate::tables;

/// Returns the error for what SQLite reports about a statement of which so much was seen.
pub(super) fn of(error: &rusqlite::Error, seen: &Seen) -> Refusal {
    if let Some(denied) = &seen.denied {
        return denied.clone();
    }
    let (code, message) = match error {
        rusqlite::Error::SqliteFailure(error, message) => (
            Some(error.code),
            message.clone().unwrap_or_else(|| error.to_string()),
        ),
        rusqlite::Error::SqlInputError { error, msg, .. } => (Some(error.code), msg.clone()),
        other => (None, other.to_string()),
    };
    match code {
        Some(ErrorCode::OperationInterrupted) => canceled(),
        Some(ErrorCode::TooBig) => refusal(b"54000", message),
        Some(ErrorCode::OutOfMemory) => refusal(b"53200", "out of memory"),
        Some(ErrorCode::DiskFull | ErrorCode::CannotOpen | ErrorCode::SystemIoFailure) => {
            refusal(b"53100", "no room for what the statement keeps in between")
        }
        _ => worded(&message, seen),
    }
}

fn worded(message: &str, seen: &Seen) -> Refusal {
    // Those of the console's functions begin with their SQLSTATE.
    if let Some((state, rest)) = message.split_once(' ')
        && let Ok(state) = <[u8; 5]>::try_from(state.as_bytes())
        && state
            .iter()
            .all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
        && state.iter().any(u8::is_ascii_digit)
    {
        return refusal(&state, rest);
    }
    let named = |start: &str| {
        let rest = message.strip_prefix(start)?;
        // SQLite has advice of its own behind some.
        Some(
            rest.split(" - ")
                .next()
                .unwrap_or(rest)
                .trim_matches('"')
                .to_owned(),
        )
    };
    if let Some(name) = named("no such table: ") {
        return unknown_table(&name);
    }
    if let Some(name) = named("no such column: ") {
        return unknown_column(&name, seen);
    }
    if let Some(rest) = message.strip_prefix("table ")
        && let Some((table, column)) = rest.split_once(" has no column named ")
    {
        return unknown_column(&format!("{table}.{column}"), seen);
    }
    if let Some(name) = named("no such function: ") {
        return refusal(b"42883", format!("function {name} does not exist"));
    }
    if message.starts_with("wrong number of arguments to function") {
        return refusal(b"42883", message);
    }
    if let Some(name) = named("ambiguous column name: ") {
        return refusal(
            b"42702",
            format!("column reference \"{name}\" is ambiguous"),
        );
    }
    let is_syntax = ["syntax error", "incomplete input", "unrecognized token"];
    if is_syntax.iter().any(|words| message.contains(words)) {
        return refusal(b"42601", message);
    }
    refusal(b"42000", message)
}

fn unknown_table(name: &str) -> Refusal {
    let bare = name.rsplit('.').next().unwrap_or(name).trim_matches('"');
    let meant = nearest(bare, tables::OWN.iter().map(|table| table.name));
    let hint = match meant {
        Some(meant) => format!("Perhaps you meant \"{meant}\"."),
        None => "SELECT * FROM help lists all.".to_owned(),
    };
    Refusal {
        hint: Some(hint),
        ..refusal(b"42P01", format!("relation \"{name}\" does not exist"))
    }
}

fn unknown_column(name: &str, seen: &Seen) -> Refusal {
    let bare = name.rsplit('.').next().unwrap_or(name).trim_matches('"');
    let read = seen
        .reads
        .iter()
        .filter_map(|(schema, table)| tables::find(schema, table));
    let columns = read.chain(seen.writes).flat_map(|table| table.columns);
    let own = tables::OWN.iter().flat_map(|table| table.columns);
    // A column of another table that is called so is not what was meant.
    let meant = nearest(bare, columns.map(|column| column.name))
        .or_else(|| nearest(bare, own.map(|column| column.name)))
        .filter(|meant| *meant != bare);
    let hint = match meant {
        Some(meant) => format!("Perhaps you meant \"{meant}\"."),
        None => "SELECT * FROM help_columns lists all.".to_owned(),
    };
    Refusal {
        hint: Some(hint),
        ..refusal(b"42703", format!("column \"{bare}\" does not exist"))
    }
}
