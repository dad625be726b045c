//! The traps, and what the oracle found: reason and effects of each statement, from data files.
//!
//! A line is `reason | effects | SQL`, effects `-` when there are none; `\n` in the SQL stands for a line end.
//! `UPDATE_EXPECT=1` writes what is said now; read the difference before it is committed.

use std::fmt::Write as _;

use pgweir_sql::{Classified, LocalCommand, TransactionControl, classify};

use crate::data::assert_lines;

fn effects(classified: &Classified) -> String {
    let mut text = String::new();
    let effects = &classified.effects;
    for pin in effects.pins.iter() {
        let _ = write!(text, " pin={pin}");
    }
    match effects.transaction {
        TransactionControl::None => {}
        TransactionControl::Begin(modes) => {
            let _ = write!(text, " begin{}", describe(modes.read_only, modes.isolation));
        }
        TransactionControl::Set(modes) => {
            let _ = write!(text, " modes{}", describe(modes.read_only, modes.isolation));
        }
        TransactionControl::End { commit, chain } => {
            text += if commit { " commit" } else { " rollback" };
            text += if chain { "+chain" } else { "" };
        }
        TransactionControl::Savepoint(command) => {
            let _ = write!(text, " savepoint={command:?}");
        }
        TransactionControl::PrepareTransaction => text += " prepare_transaction",
        TransactionControl::Sequence { opens, closes } => {
            let _ = write!(text, " sequence(opens={opens},closes={closes})");
        }
    }
    for discard in &effects.discard {
        let _ = write!(text, " discard={discard:?}");
    }
    for (set, name) in [
        (effects.suspect, " suspect"),
        (effects.copy_from_stdin, " stdin"),
        (effects.ddl, " ddl"),
    ] {
        text += if set { name } else { "" };
    }
    if let Some(hint) = &classified.hint {
        let _ = write!(text, " hint={:?}/{}", hint.route, hint.errors.len());
    }
    match &classified.local {
        Some(LocalCommand::SetSetting { name, value, local }) => {
            let _ = write!(text, " set({name},{value:?},{local})");
        }
        Some(other) => {
            let _ = write!(text, " {other:?}");
        }
        None => {}
    }
    if classified.statements.len() != 1 {
        let _ = write!(text, " statements={}", classified.statements.len());
    }
    if text.is_empty() {
        "-".to_owned()
    } else {
        text.trim_start().to_owned()
    }
}

fn describe(read_only: Option<bool>, isolation: Option<pgweir_sql::Isolation>) -> String {
    let mut text = String::new();
    text += read_only.map_or("", |only| if only { "+read_only" } else { "+read_write" });
    if let Some(isolation) = isolation {
        let _ = write!(text, "+{isolation:?}");
    }
    text
}

fn render(line: &str) -> String {
    if line.starts_with('#') || line.trim().is_empty() {
        return line.to_owned();
    }
    let sql = line
        .splitn(3, " | ")
        .nth(2)
        .unwrap_or_else(|| panic!("not of the form reason | effects | SQL: {line}"));
    let classified = classify(sql.replace("\\n", "\n").as_bytes());
    format!("{} | {} | {sql}", classified.reason, effects(&classified))
}

#[test]
fn traps_are_classified_as_the_file_says() {
    assert_file("traps.txt", 150);
}

#[test]
fn what_the_oracle_found_is_classified_as_the_file_says() {
    assert_file("oracle.txt", 40);
}

fn assert_file(name: &str, at_least: usize) {
    let got = assert_lines(name, render);
    assert!(got.iter().filter(|line| line.contains(" | ")).count() >= at_least);
}
