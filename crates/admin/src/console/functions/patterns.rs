//! What a text is held against: LIKE, regular expressions, the elements of an array.

use std::cmp::Ordering;

use regex::{Captures, Regex, RegexBuilder};
use rusqlite::Connection;

use super::arrays::elements;
use super::{arguments, pure, scalar, text};
use crate::console::types::Cell;

/// How large a compiled pattern may be, in bytes. Chosen: what people write takes a few kilobytes.
const PATTERN_LIMIT: usize = 1 << 20;

/// The most bytes of a pattern's text: it is read as a whole before the limit of what it compiles to is looked at.
const PATTERN_TEXT_LIMIT: usize = 64 << 10;

/// The most bytes that a replacement makes: as many as a value may have.
const REPLACED_LIMIT: usize = 1 << 20;

/// The most patterns in one array: each is compiled for each row, and nothing interrupts that.
const PATTERNS_LIMIT: usize = 1000;

/// `LIKE` as PostgreSQL means it: it tells letters apart by their case. Then `ILIKE`, regular expressions, and comparisons with
/// each element of an array.
pub(super) fn register(connection: &Connection) -> rusqlite::Result<()> {
    matcher(
        connection,
        "like",
        Place {
            pattern: 0,
            subject: 1,
        },
        |pattern, escape| like(pattern, escape, false),
    )?;
    matcher(
        connection,
        "pgweir_ilike",
        Place {
            pattern: 1,
            subject: 0,
        },
        |pattern, escape| like(pattern, escape, true),
    )?;
    matcher(
        connection,
        "pgweir_regex",
        Place {
            pattern: 1,
            subject: 0,
        },
        |pattern, _| compiled(pattern, false),
    )?;
    matcher(
        connection,
        "pgweir_iregex",
        Place {
            pattern: 1,
            subject: 0,
        },
        |pattern, _| compiled(pattern, true),
    )?;
    for name in ["pgweir_starts_with", "starts_with"] {
        scalar(connection, name, |cells| {
            let both = text(cells, 0).zip(text(cells, 1));
            Ok(both.map(|(text, start)| text.starts_with(&start)).into())
        })?;
    }
    scalar(connection, "regexp_replace", |cells| {
        let (Some(subject), Some(pattern)) = (text(cells, 0), text(cells, 1)) else {
            return Ok(Cell::Null);
        };
        let flags = text(cells, 3).unwrap_or_default();
        let regex = compiled(&pattern, flags.contains('i'))?;
        let Some(by) = text(cells, 2) else {
            return Ok(Cell::Null);
        };
        let parts = replacement(&by);
        let limit = usize::from(!flags.contains('g'));
        let mut size = subject.len();
        let replaced = regex.replacen(&subject, limit, |found: &Captures<'_>| {
            filled(&parts, found, &mut size)
        });
        if size > REPLACED_LIMIT {
            return Err("54000 the replaced text is too large".to_owned());
        }
        Ok(replaced.into_owned().into())
    })?;
    scalar(connection, "pgweir_any", |cells| quantified(cells, true))?;
    scalar(connection, "pgweir_all", |cells| quantified(cells, false))
}

/// A part of what stands in the place of what was found.
enum Part {
    Text(String),
    /// A group of what was found; 0 is all of it.
    Group(usize),
}

/// The parts of a replacement as PostgreSQL writes it: `\1` and `\&` are groups.
fn replacement(by: &str) -> Vec<Part> {
    let (mut parts, mut text) = (Vec::new(), String::new());
    let mut letters = by.chars();
    while let Some(c) = letters.next() {
        let group = match c {
            '\\' => match letters.next() {
                Some('&') => Some(0),
                Some('\\') | None => None,
                Some(other) => match other.to_digit(10).filter(|digit| *digit > 0) {
                    Some(digit) => usize::try_from(digit).ok(),
                    None => {
                        text.extend([c, other]);
                        continue;
                    }
                },
            },
            _ => None,
        };
        match group {
            Some(number) => {
                parts.extend([Part::Text(std::mem::take(&mut text)), Part::Group(number)])
            }
            None => text.push(c),
        }
    }
    parts.push(Part::Text(text));
    parts
}

/// Puts what was found into the parts of a replacement. What is too large already grows no further.
fn filled(parts: &[Part], found: &Captures<'_>, size: &mut usize) -> String {
    let mut out = String::new();
    for part in parts {
        let piece = match part {
            Part::Text(text) => text,
            Part::Group(number) => found.get(*number).map_or("", |group| group.as_str()),
        };
        *size += piece.len();
        if *size > REPLACED_LIMIT {
            break;
        }
        out.push_str(piece);
    }
    out
}

/// `substring(text from pattern)`: the first group of what is found, or all of it.
pub(super) fn found(subject: &str, pattern: &str) -> Result<Option<String>, String> {
    let regex = compiled(pattern, false)?;
    let groups = regex.captures(subject);
    let found = groups
        .as_ref()
        .and_then(|groups| groups.get(1).or(groups.get(0)));
    Ok(found.map(|found| found.as_str().to_owned()))
}

#[derive(Clone, Copy)]
struct Place {
    pattern: usize,
    subject: usize,
}

fn matcher(
    connection: &Connection,
    name: &str,
    place: Place,
    compile: fn(&str, Option<char>) -> Result<Regex, String>,
) -> rusqlite::Result<()> {
    connection.create_scalar_function(name, -1, pure(), move |context| {
        let cells = arguments(context)?;
        let both = text(&cells, place.subject).zip(text(&cells, place.pattern));
        let Some((subject, pattern)) = both else {
            return Ok(None);
        };
        let escape = match text(&cells, 2) {
            Some(escape) => escape.chars().next(),
            None => Some('\\'),
        };
        // Kept for the rows to come where the pattern is a literal.
        let key = i32::try_from(place.pattern).unwrap_or_default();
        let compiled = context.get_or_create_aux(key, |_| compile(&pattern, escape))?;
        Ok(Some(compiled.is_match(&subject)))
    })
}

fn compiled(pattern: &str, any_case: bool) -> Result<Regex, String> {
    if pattern.len() > PATTERN_TEXT_LIMIT {
        return Err("54000 the pattern is too long".to_owned());
    }
    RegexBuilder::new(pattern)
        .case_insensitive(any_case)
        .size_limit(PATTERN_LIMIT)
        .dfa_size_limit(PATTERN_LIMIT)
        .build()
        .map_err(|_| "2201B invalid regular expression".to_owned())
}

fn like(pattern: &str, escape: Option<char>, any_case: bool) -> Result<Regex, String> {
    let mut out = String::from("(?s)^");
    let mut letters = pattern.chars();
    while let Some(c) = letters.next() {
        let literal = if Some(c) == escape {
            letters.next().unwrap_or(c)
        } else {
            match c {
                '%' => {
                    out.push_str(".*");
                    continue;
                }
                '_' => {
                    out.push('.');
                    continue;
                }
                c => c,
            }
        };
        out.push_str(&regex::escape(&literal.to_string()));
    }
    out.push('$');
    compiled(&out, any_case)
}

/// `left op ANY (array)`, or `ALL`.
fn quantified(cells: &[Cell], any: bool) -> Result<Cell, String> {
    let (Some(left), Some(array)) = (text(cells, 0), text(cells, 2)) else {
        return Ok(Cell::Null);
    };
    // Elements are texts, and mean numbers where they are compared with one.
    let is_number = matches!(cells.first(), Some(Cell::Int(_) | Cell::Real(_)));
    let op = text(cells, 1).unwrap_or_default();
    let holds = |item: Option<String>| -> Result<bool, String> {
        let Some(item) = item else {
            return Ok(false);
        };
        let order = match is_number {
            true => as_numbers(&left, &item),
            false => left.cmp(&item),
        };
        Ok(match op.as_str() {
            "=" => order.is_eq(),
            "<>" | "!=" => order.is_ne(),
            "<" => order.is_lt(),
            ">" => order.is_gt(),
            "<=" => order.is_le(),
            ">=" => order.is_ge(),
            "~~" => like(&item, Some('\\'), false)?.is_match(&left),
            "~~*" => like(&item, Some('\\'), true)?.is_match(&left),
            "~" => compiled(&item, false)?.is_match(&left),
            "~*" => compiled(&item, true)?.is_match(&left),
            other => {
                return Err(format!(
                    "0A000 operator {other} does not take an array here"
                ));
            }
        })
    };
    let items = elements(&array);
    if op.starts_with('~') && items.len() > PATTERNS_LIMIT {
        return Err(format!(
            "54000 an array has at most {PATTERNS_LIMIT} patterns"
        ));
    }
    let mut all = items.into_iter().map(holds);
    let found = match any {
        true => all.find(|one| !matches!(one, Ok(false))),
        false => all.find(|one| !matches!(one, Ok(true))),
    };
    match found {
        Some(Err(message)) => Err(message),
        Some(Ok(_)) => Ok(any.into()),
        None => Ok((!any).into()),
    }
}

fn as_numbers(left: &str, right: &str) -> Ordering {
    if let (Ok(left), Ok(right)) = (left.parse::<i64>(), right.parse::<i64>()) {
        return left.cmp(&right);
    }
    match (left.parse::<f64>(), right.parse::<f64>()) {
        (Ok(left), Ok(right)) => left.total_cmp(&right),
        _ => left.cmp(right),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_means_what_postgresql_means() {
        for (text, pattern, expected) in [
            ("pg1", "pg_", true),
            ("PG1", "pg_", false),
            ("a%b", "a\\%b", true),
            ("axb", "a\\%b", false),
            ("a.b", "a.b", true),
            ("axb", "a.b", false),
            ("", "%", true),
        ] {
            let regex = like(pattern, Some('\\'), false).unwrap();
            assert_eq!(regex.is_match(text), expected, "{text} {pattern}");
        }
    }
    #[test]
    fn a_replacement_grows_up_to_its_limit_within_one_match_too() {
        let (subject, mut size) = ("x".repeat(1 << 16), 0);
        let found = compiled(".*", false).unwrap();
        let found = found.captures(&subject).unwrap();
        let out = filled(&replacement(&r"\&".repeat(100)), &found, &mut size);
        assert_eq!(out.len(), REPLACED_LIMIT);
        assert!(size > REPLACED_LIMIT);
    }
}
