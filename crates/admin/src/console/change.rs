//! From rows that a statement has changed to edits of the configuration.
//!
//! ## Why
//! SQLite works out what a change means, with all of SQL; the configuration takes it as whole edits, checks them as it checks
//! a file, and takes all of them or none.

use pgweir_config::{Edit, Section};

use super::answer::refusal;
use super::engine::Changed;
use super::types::Cell;
use crate::control::Refusal;
use crate::facts::Facts;
use crate::tables::{RULE_KEYS, Row, Table};

/// Returns the edits that rows of a table stand for: changes first, then what is taken out, the last first, then what is added,
/// so that the numbers of rules stay what they are until they are used.
///
/// # Errors
/// A column is set that cannot be.
pub(crate) fn edits(
    table: &'static Table,
    changed: &[Changed],
    facts: &Facts,
) -> Result<Vec<Edit>, Refusal> {
    let (mut sets, mut deletes, mut inserts) = (Vec::new(), Vec::new(), Vec::new());
    for one in changed {
        match (&one.before, &one.after, one.place) {
            (Some(before), Some(after), Some(place)) => {
                sets.extend(updated(table, place, before, after, facts)?);
            }
            (Some(before), None, Some(place)) => deletes.push(Edit::Delete {
                section: entity(table, place, before)?,
            }),
            (None, Some(after), _) => inserts.push(inserted(table, after, facts)?),
            _ => {}
        }
    }
    deletes.reverse();
    sets.extend(deletes);
    sets.extend(inserts);
    Ok(sets)
}

fn cell<'r>(table: &Table, row: &'r Row, name: &str) -> &'r Cell {
    let place = table.columns.iter().position(|column| column.name == name);
    place
        .and_then(|place| row.get(place))
        .unwrap_or(&Cell::Null)
}

/// A value as people write it.
fn written(cell: &Cell) -> Option<String> {
    match cell {
        Cell::Null => None,
        Cell::Int(value) => Some(value.to_string()),
        Cell::Real(value) => Some(value.to_string()),
        Cell::Text(text) => Some(text.clone()),
    }
}

fn text(table: &Table, row: &Row, name: &str) -> String {
    written(cell(table, row, name)).unwrap_or_default()
}

fn fixed(table: &Table, column: &str) -> Refusal {
    refusal(
        b"0A000",
        format!(
            "column \"{column}\" of \"{}\" cannot be changed",
            table.name
        ),
    )
}

/// The part of the configuration that a row is.
fn entity(table: &Table, place: usize, row: &Row) -> Result<Section, Refusal> {
    Ok(match table.name {
        "backends" => Section::Backend(text(table, row, "cluster"), text(table, row, "name")),
        "databases" => Section::Database(text(table, row, "name")),
        "users" => Section::User(text(table, row, "name")),
        "rules" => Section::Rule(place + 1),
        other => {
            return Err(refusal(
                b"0A000",
                format!("rows of \"{other}\" can be neither added nor taken out"),
            ));
        }
    })
}

fn updated(
    table: &'static Table,
    place: usize,
    before: &Row,
    after: &Row,
    facts: &Facts,
) -> Result<Vec<Edit>, Refusal> {
    let mut edits = Vec::new();
    let cells = table.columns.iter().zip(before.iter().zip(after));
    for (column, (_, new)) in cells.filter(|(_, (old, new))| old != new) {
        if !column.changeable {
            return Err(fixed(table, column.name));
        }
        let (section, key) = setting(table, place, before, column.name, facts)?;
        edits.push(Edit::Set {
            section,
            key,
            value: written(new),
        });
    }
    Ok(edits)
}

/// The setting that a cell is.
fn setting(
    table: &Table,
    place: usize,
    row: &Row,
    column: &'static str,
    facts: &Facts,
) -> Result<(Section, String), Refusal> {
    match table.name {
        "settings" => {
            let setting = facts
                .settings
                .get(place)
                .ok_or_else(|| fixed(table, column))?;
            Ok((setting.section.clone(), setting.name.to_owned()))
        }
        "rules" => {
            let number = place + 1;
            let found = RULE_KEYS.iter().find(|(name, _)| *name == column);
            let (_, key) = found.ok_or_else(|| fixed(table, column))?;
            Ok(match key.split_once('.') {
                Some(("match", key)) => (Section::RuleMatch(number), key.to_owned()),
                Some((_, key)) => (Section::RuleAction(number), key.to_owned()),
                None => (Section::Rule(number), (*key).to_owned()),
            })
        }
        _ => Ok((entity(table, place, row)?, column.to_owned())),
    }
}

fn inserted(table: &'static Table, row: &Row, facts: &Facts) -> Result<Edit, Refusal> {
    let names = match table.name {
        "users" => "name",
        _ => "position",
    };
    let mut values = Vec::new();
    for (column, cell) in table.columns.iter().zip(row) {
        let Some(value) = written(cell) else {
            continue;
        };
        if !column.changeable && column.name != names {
            return Err(fixed(table, column.name));
        }
        let key = RULE_KEYS.iter().find(|(name, _)| *name == column.name);
        match (table.name, key) {
            ("rules", Some((_, key))) => values.push(((*key).to_owned(), value)),
            // Its place is not one of its settings.
            ("rules", None) => {}
            _ => values.push((column.name.to_owned(), value)),
        }
    }
    let section = match table.name {
        "users" => {
            let name = text(table, row, "name");
            if name.is_empty() {
                return Err(refusal(
                    b"23502",
                    "column \"name\" of \"users\" must be given",
                ));
            }
            Section::User(name)
        }
        "rules" => {
            let last = facts.config.rules.len() + 1;
            let position = match cell(table, row, "position") {
                Cell::Null => last,
                cell => written(cell)
                    .and_then(|number| number.parse().ok())
                    .filter(|number| (1..=last).contains(number))
                    .ok_or_else(|| {
                        refusal(b"22003", format!("\"position\" must be from 1 to {last}"))
                    })?,
            };
            Section::Rule(position)
        }
        _ => entity(table, 0, row)?,
    };
    Ok(Edit::Insert { section, values })
}
