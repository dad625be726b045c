//! Arithmetic, the ends of texts and the greatest of some values, as PostgreSQL has them where SQLite has others.

use std::cmp::Ordering;

use rusqlite::Connection;

use super::{Act, float, invalid, number, relation, scalar, text};
use crate::console::types::Cell;

/// Makes the functions known.
pub(super) fn register(connection: &Connection) -> rusqlite::Result<()> {
    for (name, act) in FUNCTIONS {
        scalar(connection, name, act)?;
    }
    Ok(())
}

const FUNCTIONS: [(&str, Act); 13] = [
    ("pgweir_greatest", |cells| {
        Ok(most(cells, Ordering::Greater))
    }),
    ("pgweir_least", |cells| Ok(most(cells, Ordering::Less))),
    ("pgweir_divide", |cells| quotient(cells, Part::Whole)),
    ("pgweir_modulo", |cells| quotient(cells, Part::Rest)),
    ("pgweir_int", |cells| {
        integer(cells, i64::MIN..=i64::MAX, "bigint")
    }),
    ("pgweir_int2", |cells| {
        integer(cells, i16::MIN.into()..=i16::MAX.into(), "smallint")
    }),
    ("pgweir_int4", |cells| {
        integer(cells, i32::MIN.into()..=i32::MAX.into(), "integer")
    }),
    ("pgweir_oid", |cells| {
        integer(cells, 0..=u32::MAX.into(), "oid")
    }),
    ("pgweir_left", |cells| end_of(cells, End::Left)),
    ("pgweir_right", |cells| end_of(cells, End::Right)),
    ("pgweir_substring", substring),
    ("trunc", trunc),
    ("split_part", split_part),
];

/// NULL counts for nothing, unless there is nothing else.
fn most(cells: &[Cell], wanted: Ordering) -> Cell {
    let known = cells.iter().filter(|cell| !matches!(cell, Cell::Null));
    let found = known.reduce(|best, cell| match order(cell, best) == wanted {
        true => cell,
        false => best,
    });
    found.cloned().unwrap_or(Cell::Null)
}

fn order(left: &Cell, right: &Cell) -> Ordering {
    match (left, right) {
        (Cell::Int(left), Cell::Int(right)) => left.cmp(right),
        (Cell::Text(left), Cell::Text(right)) => left.cmp(right),
        _ => {
            let both = [left.clone(), right.clone()];
            match (float(&both, 0), float(&both, 1)) {
                (Some(left), Some(right)) => left.total_cmp(&right),
                _ => text(&both, 0).cmp(&text(&both, 1)),
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Part {
    Whole,
    Rest,
}

fn quotient(cells: &[Cell], part: Part) -> Result<Cell, String> {
    let zero = || "22012 division by zero".to_owned();
    let whole = |index| match cells.get(index) {
        Some(Cell::Int(value)) => Some(*value),
        Some(Cell::Text(text)) => text.trim().parse::<i64>().ok(),
        _ => None,
    };
    if let (Some(left), Some(right)) = (whole(0), whole(1)) {
        let done = match part {
            _ if right == 0 => return Err(zero()),
            Part::Whole => left.checked_div(right),
            // The least number by -1 leaves nothing.
            Part::Rest => Some(left.checked_rem(right).unwrap_or(0)),
        };
        return done
            .map(Cell::Int)
            .ok_or_else(|| "22003 bigint out of range".to_owned());
    }
    let (Some(left), Some(right)) = (float(cells, 0), float(cells, 1)) else {
        return Ok(Cell::Null);
    };
    if right == 0.0 {
        return Err(zero());
    }
    Ok(Cell::Real(match part {
        Part::Whole => left / right,
        Part::Rest => left % right,
    }))
}

fn integer(cells: &[Cell], range: std::ops::RangeInclusive<i64>, ty: &str) -> Result<Cell, String> {
    let out_of_range = || format!("22003 {ty} out of range");
    match cells.first() {
        None | Some(Cell::Null) => Ok(Cell::Null),
        // Beyond these a float is none that fits 64 bits.
        Some(Cell::Real(value)) if value.is_nan() || value.abs() >= 9.3e18 => Err(out_of_range()),
        // The name of a table is its object ID to who casts it.
        Some(_) => match number(cells, 0) {
            Some(value) if range.contains(&value) => Ok(Cell::Int(value)),
            Some(_) => Err(out_of_range()),
            None => relation(cells).ok_or_else(|| invalid(ty, cells)),
        },
    }
}

#[derive(Clone, Copy)]
enum End {
    Left,
    Right,
}

/// So many letters of an end; a number below zero leaves so many of the other end out.
fn end_of(cells: &[Cell], end: End) -> Result<Cell, String> {
    let (Some(text), Some(count)) = (text(cells, 0), number(cells, 1)) else {
        return Ok(Cell::Null);
    };
    let length = text.chars().count();
    let size = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let kept = match count < 0 {
        true => length.saturating_sub(size),
        false => size.min(length),
    };
    let letters = text.chars();
    let found: String = match end {
        End::Left => letters.take(kept).collect(),
        End::Right => letters.skip(length - kept).collect(),
    };
    Ok(found.into())
}

/// From a place, which counts from 1 and may lie before the text, as many letters as asked for.
fn substring(cells: &[Cell]) -> Result<Cell, String> {
    let Some(subject) = text(cells, 0) else {
        return Ok(Cell::Null);
    };
    if let Some(Cell::Text(pattern)) = cells.get(1)
        && pattern.parse::<i64>().is_err()
    {
        return super::patterns::found(&subject, pattern).map(Cell::from);
    }
    let Some(from) = number(cells, 1) else {
        return Ok(Cell::Null);
    };
    let end = match (cells.len(), number(cells, 2)) {
        (3, None) => return Ok(Cell::Null),
        (3, Some(count)) if count < 0 => {
            return Err("22011 negative substring length not allowed".to_owned());
        }
        (3, Some(count)) => from.saturating_add(count),
        _ => i64::MAX,
    };
    let letters = (1_i64..).zip(subject.chars());
    let within = letters.filter(|(place, _)| (from..end).contains(place));
    Ok(within.map(|(_, letter)| letter).collect::<String>().into())
}

fn trunc(cells: &[Cell]) -> Result<Cell, String> {
    if let (Some(Cell::Int(value)), 1) = (cells.first(), cells.len()) {
        return Ok(Cell::Int(*value));
    }
    let Some(value) = float(cells, 0) else {
        return match cells.first() {
            None | Some(Cell::Null) => Ok(Cell::Null),
            Some(_) => Err(invalid("double precision", cells)),
        };
    };
    let digits = number(cells, 1).and_then(|digits| i32::try_from(digits).ok());
    let scale = 10_f64.powi(digits.unwrap_or(0).clamp(-300, 15));
    Ok(Cell::Real((value * scale).trunc() / scale))
}

/// The n-th part of a text, counted from its end where n is below zero.
fn split_part(cells: &[Cell]) -> Result<Cell, String> {
    let (Some(subject), Some(between), Some(place)) =
        (text(cells, 0), text(cells, 1), number(cells, 2))
    else {
        return Ok(Cell::Null);
    };
    if place == 0 {
        return Err("22023 field position must not be zero".to_owned());
    }
    let parts: Vec<&str> = match between.is_empty() {
        true => vec![&subject],
        false => subject.split(&between).collect(),
    };
    let index = usize::try_from(place.unsigned_abs() - 1).unwrap_or(usize::MAX);
    let found = match place > 0 {
        true => parts.get(index),
        false => parts.iter().rev().nth(index),
    };
    Ok(found.copied().unwrap_or_default().into())
}
