//! Moments and intervals: texts in UTC, and microseconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rusqlite::Connection;

use super::{Act, float, number, scalar, text};
use crate::console::types::Cell;
use crate::time;

/// Makes the functions known.
pub(super) fn register(connection: &Connection, clock: &Arc<AtomicI64>) -> rusqlite::Result<()> {
    for (name, act) in FUNCTIONS {
        scalar(connection, name, act)?;
    }
    let stands = Arc::clone(clock);
    scalar(connection, "pgweir_now", move |_| {
        Ok(time::format_us(stands.load(Ordering::Relaxed)).into())
    })?;
    let stands = Arc::clone(clock);
    scalar(connection, "pgweir_timestamp", move |cells| {
        match text(cells, 0) {
            None => Ok(Cell::Null),
            Some(word) if word.trim().eq_ignore_ascii_case("now") => {
                Ok(time::format_us(stands.load(Ordering::Relaxed)).into())
            }
            Some(written) => moment(&written).map(|us| time::format_us(us).into()),
        }
    })
}

const FUNCTIONS: [(&str, Act); 9] = [
    ("to_char", to_char),
    ("pg_postmaster_start_time", |_| Ok(Cell::Null)),
    ("pg_conf_load_time", |_| Ok(Cell::Null)),
    ("pgweir_interval", |cells| interval(cells).map(Cell::from)),
    ("pgweir_shift", |cells| {
        let (Some(written), Some(by)) = (text(cells, 0), number(cells, 1)) else {
            return Ok(Cell::Null);
        };
        moment(&written).map(|us| time::format_us(us.saturating_add(by)).into())
    }),
    ("pgweir_minus", minus),
    ("date_part", date_part),
    ("date_trunc", date_trunc),
    ("to_timestamp", |cells| {
        #[expect(clippy::cast_possible_truncation, reason = "a moment in microseconds")]
        let us = float(cells, 0).map(|seconds| (seconds * 1e6) as i64);
        Ok(us.map(time::format_us).into())
    }),
];

fn moment(written: &str) -> Result<i64, String> {
    time::parse_us(written).ok_or_else(|| {
        format!("22007 invalid input syntax for type timestamp with time zone: \"{written}\"")
    })
}

fn interval(cells: &[Cell]) -> Result<Option<i64>, String> {
    let Some(written) = text(cells, 0) else {
        return Ok(None);
    };
    let unit = text(cells, 1).unwrap_or_default();
    let whole = format!("{written} {unit}");
    let us = time::parse_interval_us(whole.trim());
    us.map(Some)
        .ok_or_else(|| format!("22007 invalid input syntax for type interval: \"{written}\""))
}

/// Numbers, or how long it was from one moment to another: `01:02:03.000000`.
fn minus(cells: &[Cell]) -> Result<Cell, String> {
    if let [Cell::Text(left), Cell::Text(right)] = cells
        && let (Some(left), Some(right)) = (time::parse_us(left), time::parse_us(right))
    {
        return Ok(duration(left.saturating_sub(right)).into());
    }
    if let [Cell::Int(left), Cell::Int(right)] = cells {
        return Ok(left.checked_sub(*right).into());
    }
    Ok(float(cells, 0)
        .zip(float(cells, 1))
        .map(|(left, right)| left - right)
        .into())
}

fn duration(us: i64) -> String {
    let sign = if us < 0 { "-" } else { "" };
    let us = us.unsigned_abs();
    let (seconds, us) = (us / 1_000_000, us % 1_000_000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{sign}{hours:02}:{minutes:02}:{seconds:02}.{us:06}")
}

fn seconds(us: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "seconds for people")]
    let us = us as f64;
    us / 1e6
}

fn date_part(cells: &[Cell]) -> Result<Cell, String> {
    let (Some(field), Some(written)) = (text(cells, 0), text(cells, 1)) else {
        return Ok(Cell::Null);
    };
    let Some(us) = time::parse_us(&written) else {
        // A difference of moments; a number of microseconds.
        let us = written
            .parse()
            .ok()
            .or_else(|| time::parse_interval_us(&written));
        return match (us, field.to_lowercase().as_str()) {
            (Some(us), "epoch") => Ok(seconds(us).into()),
            _ => Err(format!(
                "0A000 \"{field}\" of \"{written}\" is not known here"
            )),
        };
    };
    let at = time::format_us(us);
    let part = |range: std::ops::Range<usize>| {
        let digits = at.get(range).unwrap_or_default();
        Ok(digits.parse::<f64>().ok().into())
    };
    match field.to_lowercase().as_str() {
        "epoch" => Ok(seconds(us).into()),
        "year" => part(0..4),
        "month" => part(5..7),
        "day" => part(8..10),
        "hour" => part(11..13),
        "minute" => part(14..16),
        "second" => part(17..26),
        _ => Err(format!("0A000 the field \"{field}\" is not known here")),
    }
}

fn date_trunc(cells: &[Cell]) -> Result<Cell, String> {
    let (Some(field), Some(written)) = (text(cells, 0), text(cells, 1)) else {
        return Ok(Cell::Null);
    };
    let at = time::format_us(moment(&written)?);
    let (keep, rest) = match field.to_lowercase().as_str() {
        "year" => (4, "-01-01 00:00:00.000000+00"),
        "month" => (7, "-01 00:00:00.000000+00"),
        "day" => (10, " 00:00:00.000000+00"),
        "hour" => (13, ":00:00.000000+00"),
        "minute" => (16, ":00.000000+00"),
        "second" => (19, ".000000+00"),
        _ => return Err(format!("0A000 the field \"{field}\" is not known here")),
    };
    Ok(format!("{}{rest}", at.get(..keep).unwrap_or_default()).into())
}

/// A moment in a form of its own: the usual letters for its parts, and what stands in quotes or is no letter as it is.
fn to_char(cells: &[Cell]) -> Result<Cell, String> {
    let (Some(written), Some(form)) = (text(cells, 0), text(cells, 1)) else {
        return Ok(Cell::Null);
    };
    let at = time::format_us(moment(&written)?);
    let digits = |range: std::ops::Range<usize>| at.get(range).unwrap_or_default().to_owned();
    let hour: u8 = digits(11..13).parse().unwrap_or_default();
    let parts = [
        ("YYYY", digits(0..4)),
        ("YY", digits(2..4)),
        ("MM", digits(5..7)),
        ("DD", digits(8..10)),
        ("HH24", digits(11..13)),
        ("HH12", format!("{:02}", (hour + 11) % 12 + 1)),
        ("HH", format!("{:02}", (hour + 11) % 12 + 1)),
        ("MI", digits(14..16)),
        ("SS", digits(17..19)),
        ("MS", digits(20..23)),
        ("US", digits(20..26)),
        ("AM", (if hour < 12 { "AM" } else { "PM" }).to_owned()),
        ("PM", (if hour < 12 { "AM" } else { "PM" }).to_owned()),
        ("TZH", "+00".to_owned()),
        ("TZ", "UTC".to_owned()),
        ("OF", "+00".to_owned()),
    ];
    let mut out = String::new();
    let mut rest = form.as_str();
    while let Some(letter) = rest.chars().next() {
        let part = parts.iter().find(|(name, _)| {
            rest.get(..name.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(name))
        });
        let length = if letter == '"' {
            let inner = rest.get(1..).unwrap_or_default();
            let end = inner.find('"').unwrap_or(inner.len());
            out.push_str(inner.get(..end).unwrap_or_default());
            end + 2
        } else if let Some((name, digits)) = part {
            out.push_str(digits);
            name.len()
        } else if letter.is_alphabetic() && !letter.eq_ignore_ascii_case(&'T') {
            return Err(format!("0A000 the form \"{form}\" is not known here"));
        } else {
            out.push(letter);
            letter.len_utf8()
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(out.into())
}
