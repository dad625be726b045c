//! PostgreSQL's types on the console: their object IDs, and values in both formats.
//!
//! SQLite keeps integers, floats and texts; what a column is declared as says what they are on the wire. A `bool` is kept as
//! 0 or 1, a `timestamptz` as a text in UTC that sorts as the moments do.

use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};

use crate::time;

/// A value as SQLite keeps it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    /// NULL.
    Null,
    /// An integer, or a bool.
    Int(i64),
    /// A float.
    Real(f64),
    /// A text, or a moment.
    Text(String),
}

impl From<ValueRef<'_>> for Cell {
    fn from(value: ValueRef<'_>) -> Cell {
        match value {
            ValueRef::Null => Cell::Null,
            ValueRef::Integer(value) => Cell::Int(value),
            ValueRef::Real(value) => Cell::Real(value),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                Cell::Text(String::from_utf8_lossy(bytes).into_owned())
            }
        }
    }
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Cell::Null => ToSqlOutput::Owned(Value::Null),
            Cell::Int(value) => ToSqlOutput::Owned(Value::Integer(*value)),
            Cell::Real(value) => ToSqlOutput::Owned(Value::Real(*value)),
            Cell::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        })
    }
}

/// A type that a column of the console may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum PgType {
    Bool,
    Char,
    Name,
    Int2,
    Int4,
    Int8,
    Float8,
    Text,
    Oid,
    Timestamptz,
}

impl PgType {
    pub(crate) const ALL: [PgType; 10] = [
        PgType::Bool,
        PgType::Char,
        PgType::Name,
        PgType::Int2,
        PgType::Int4,
        PgType::Int8,
        PgType::Float8,
        PgType::Text,
        PgType::Oid,
        PgType::Timestamptz,
    ];

    /// Returns the object ID (`pg_type.dat`).
    pub(crate) fn oid(self) -> u32 {
        match self {
            PgType::Bool => 16,
            PgType::Char => 18,
            PgType::Name => 19,
            PgType::Int8 => 20,
            PgType::Int2 => 21,
            PgType::Int4 => 23,
            PgType::Text => 25,
            PgType::Oid => 26,
            PgType::Float8 => 701,
            PgType::Timestamptz => 1184,
        }
    }

    /// Returns `pg_type.typname`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            PgType::Bool => "bool",
            PgType::Char => "char",
            PgType::Name => "name",
            PgType::Int8 => "int8",
            PgType::Int2 => "int2",
            PgType::Int4 => "int4",
            PgType::Text => "text",
            PgType::Oid => "oid",
            PgType::Float8 => "float8",
            PgType::Timestamptz => "timestamptz",
        }
    }

    /// Returns the name that `format_type` gives.
    pub(crate) fn sql_name(self) -> &'static str {
        match self {
            PgType::Bool => "boolean",
            PgType::Char => "\"char\"",
            PgType::Name => "name",
            PgType::Int8 => "bigint",
            PgType::Int2 => "smallint",
            PgType::Int4 => "integer",
            PgType::Text => "text",
            PgType::Oid => "oid",
            PgType::Float8 => "double precision",
            PgType::Timestamptz => "timestamp with time zone",
        }
    }

    /// Returns `pg_type.typlen`.
    pub(crate) fn size(self) -> i16 {
        match self {
            PgType::Bool | PgType::Char => 1,
            PgType::Name => 64,
            PgType::Int2 => 2,
            PgType::Int4 | PgType::Oid => 4,
            PgType::Int8 | PgType::Float8 | PgType::Timestamptz => 8,
            PgType::Text => -1,
        }
    }

    /// Returns how a column is declared to SQLite: the name, and a word that gives it the right affinity.
    pub(crate) fn declaration(self) -> &'static str {
        match self {
            PgType::Bool => "bool int",
            PgType::Char => "char text",
            PgType::Name => "name text",
            PgType::Int8 => "int8",
            PgType::Int2 => "int2",
            PgType::Int4 => "int4",
            PgType::Text => "text",
            PgType::Oid => "oid int",
            PgType::Float8 => "float8",
            PgType::Timestamptz => "timestamptz text",
        }
    }

    /// Returns the type of a column that SQLite knows by its declaration.
    pub(crate) fn of_declaration(declaration: &str) -> Option<PgType> {
        let word = declaration.split_whitespace().next()?;
        PgType::ALL.into_iter().find(|ty| ty.name() == word)
    }

    /// Returns the type of an object ID.
    pub(crate) fn of_oid(oid: u32) -> Option<PgType> {
        PgType::ALL.into_iter().find(|ty| ty.oid() == oid)
    }

    /// Returns the type that a cast names, whatever its case and its schema.
    pub(crate) fn of_name(name: &str) -> Option<PgType> {
        let name = name.to_ascii_lowercase();
        let name = name
            .rsplit('.')
            .next()
            .unwrap_or_default()
            .trim_matches('"');
        let bare = name.split('(').next().unwrap_or_default().trim();
        Some(match bare {
            "bool" | "boolean" => PgType::Bool,
            "int2" | "smallint" => PgType::Int2,
            "int" | "int4" | "integer" => PgType::Int4,
            "int8" | "bigint" | "xid8" => PgType::Int8,
            "float4" | "float8" | "real" | "double precision" | "float" | "double" | "numeric"
            | "decimal" => PgType::Float8,
            "text" | "varchar" | "character varying" | "bpchar" | "character" | "char varying"
            | "json" | "jsonb" | "unknown" | "cstring" | "uuid" | "char" => PgType::Text,
            "name" => PgType::Name,
            "oid" | "xid" => PgType::Oid,
            "timestamptz"
            | "timestamp"
            | "timestamp with time zone"
            | "timestamp without time zone"
            | "date" => PgType::Timestamptz,
            _ => return None,
        })
    }

    /// Returns whether values are integers.
    pub(crate) fn is_integer(self) -> bool {
        matches!(
            self,
            PgType::Int2 | PgType::Int4 | PgType::Int8 | PgType::Oid
        )
    }
}

/// Returns a value in the text format; `None` is NULL.
pub(crate) fn encode_text(cell: &Cell, ty: PgType) -> Option<Vec<u8>> {
    let text = match cell {
        Cell::Null => return None,
        Cell::Int(value) if ty == PgType::Bool => (if *value != 0 { "t" } else { "f" }).to_owned(),
        Cell::Int(value) => value.to_string(),
        Cell::Real(value) => match whole(*value).filter(|_| ty.is_integer()) {
            Some(whole) => whole.to_string(),
            None => float_text(*value),
        },
        Cell::Text(text) => text.clone(),
    };
    Some(text.into_bytes())
}

fn float_text(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        (if value > 0.0 { "Infinity" } else { "-Infinity" }).to_owned()
    } else if value != 0.0 && !(1e-5..1e15).contains(&value.abs()) {
        format!("{value:e}")
    } else {
        value.to_string()
    }
}

/// Returns a float without fraction as an integer.
fn whole(value: f64) -> Option<i64> {
    let fits = value.fract() == 0.0 && value.abs() < 9.0e15;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it has no fraction and fits"
    )]
    fits.then_some(value as i64)
}

/// Returns a value in the binary format; `Ok(None)` is NULL, and `Err` one that its column's type has no place for.
pub(crate) fn encode_binary(cell: &Cell, ty: PgType) -> Result<Option<Vec<u8>>, ()> {
    if *cell == Cell::Null {
        return Ok(None);
    }
    let bytes = match ty {
        PgType::Text | PgType::Name | PgType::Char => encode_text(cell, ty).unwrap_or_default(),
        PgType::Bool => vec![u8::from(integer(cell)? != 0)],
        PgType::Int2 => i16::try_from(integer(cell)?)
            .map_err(drop)?
            .to_be_bytes()
            .to_vec(),
        PgType::Int4 => i32::try_from(integer(cell)?)
            .map_err(drop)?
            .to_be_bytes()
            .to_vec(),
        PgType::Oid => u32::try_from(integer(cell)?)
            .map_err(drop)?
            .to_be_bytes()
            .to_vec(),
        PgType::Int8 => integer(cell)?.to_be_bytes().to_vec(),
        PgType::Float8 => float(cell)?.to_be_bytes().to_vec(),
        PgType::Timestamptz => {
            let Cell::Text(text) = cell else {
                return Err(());
            };
            let us = time::parse_us(text).ok_or(())?;
            us.saturating_sub(time::UNIX_TO_PG_US)
                .to_be_bytes()
                .to_vec()
        }
    };
    Ok(Some(bytes))
}

fn integer(cell: &Cell) -> Result<i64, ()> {
    match cell {
        Cell::Int(value) => Ok(*value),
        Cell::Real(value) => whole(*value).ok_or(()),
        Cell::Text(text) => text.trim().parse().map_err(drop),
        Cell::Null => Err(()),
    }
}

fn float(cell: &Cell) -> Result<f64, ()> {
    match cell {
        #[expect(clippy::cast_precision_loss, reason = "a float was asked for")]
        Cell::Int(value) => Ok(*value as f64),
        Cell::Real(value) => Ok(*value),
        Cell::Text(text) => text.trim().parse().map_err(drop),
        Cell::Null => Err(()),
    }
}

/// Reads a parameter as its type says; `Err` is what is wrong with it.
pub(crate) fn decode(bytes: &[u8], oid: u32, format: i16) -> Result<Cell, String> {
    match format {
        0 => decode_text(bytes, oid),
        1 => decode_binary(bytes, oid),
        other => Err(format!("there is no format {other}")),
    }
}

/// Returns the bool that a word means.
pub(super) fn bool_of(word: &str) -> Option<bool> {
    match word.trim().to_ascii_lowercase().as_str() {
        "t" | "true" | "y" | "yes" | "on" | "1" => Some(true),
        "f" | "false" | "n" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn decode_text(bytes: &[u8], oid: u32) -> Result<Cell, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    let bad = |ty: PgType| format!("invalid input for type {}", ty.sql_name());
    let Some(ty) = PgType::of_oid(oid) else {
        return Ok(match oid {
            // float4 and numeric
            700 | 1700 => text.trim().parse().map_or_else(
                |_| Cell::Text(text.to_owned()),
                |value: f64| whole(value).map_or(Cell::Real(value), Cell::Int),
            ),
            _ => Cell::Text(text.to_owned()),
        });
    };
    Ok(match ty {
        PgType::Bool => bool_of(text).ok_or_else(|| bad(ty))?.into(),
        PgType::Int2 | PgType::Int4 | PgType::Int8 | PgType::Oid => {
            Cell::Int(text.trim().parse().map_err(|_| bad(ty))?)
        }
        PgType::Float8 => Cell::Real(text.trim().parse().map_err(|_| bad(ty))?),
        PgType::Timestamptz => Cell::Text(time::format_us(
            time::parse_us(text).ok_or_else(|| bad(ty))?,
        )),
        PgType::Text | PgType::Name | PgType::Char => Cell::Text(text.to_owned()),
    })
}

fn decode_binary(bytes: &[u8], oid: u32) -> Result<Cell, String> {
    let length = || "its length is not that of its type".to_owned();
    fn array<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
        bytes.try_into().ok()
    }
    Ok(match oid {
        16 => Cell::Int(i64::from(
            *array::<1>(bytes).ok_or_else(length)?.first().unwrap_or(&0) != 0,
        )),
        21 => Cell::Int(i16::from_be_bytes(array(bytes).ok_or_else(length)?).into()),
        23 => Cell::Int(i32::from_be_bytes(array(bytes).ok_or_else(length)?).into()),
        20 => Cell::Int(i64::from_be_bytes(array(bytes).ok_or_else(length)?)),
        26 => Cell::Int(u32::from_be_bytes(array(bytes).ok_or_else(length)?).into()),
        700 => Cell::Real(f32::from_be_bytes(array(bytes).ok_or_else(length)?).into()),
        701 => Cell::Real(f64::from_be_bytes(array(bytes).ok_or_else(length)?)),
        1184 | 1114 => {
            let us = i64::from_be_bytes(array(bytes).ok_or_else(length)?);
            Cell::Text(time::format_us(us.saturating_add(time::UNIX_TO_PG_US)))
        }
        0 | 18 | 19 | 25 | 705 | 1042 | 1043 | 114 => {
            let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
            Cell::Text(text.to_owned())
        }
        other => return Err(format!("type {other} is not taken in the binary format")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declaration_says_its_type_and_no_two_share_an_object_id() {
        for ty in PgType::ALL {
            assert_eq!(PgType::of_declaration(ty.declaration()), Some(ty));
            assert_eq!(PgType::of_oid(ty.oid()), Some(ty));
        }
    }

    #[test]
    fn values_come_back_in_both_formats() {
        let moment = "2026-11-30 03:26:11.000125+00".to_owned();
        for (ty, cell) in [
            (PgType::Bool, Cell::Int(1)),
            (PgType::Int2, Cell::Int(-3)),
            (PgType::Int4, Cell::Int(i64::from(i32::MIN))),
            (PgType::Int8, Cell::Int(i64::MAX)),
            (PgType::Oid, Cell::Int(i64::from(u32::MAX))),
            (PgType::Float8, Cell::Real(1.5e-9)),
            (PgType::Text, Cell::Text("ä".to_owned())),
            (PgType::Name, Cell::Text("x".to_owned())),
            (PgType::Timestamptz, Cell::Text(moment)),
        ] {
            let text = encode_text(&cell, ty).unwrap();
            assert_eq!(decode(&text, ty.oid(), 0), Ok(cell.clone()), "{ty:?}");
            let binary = encode_binary(&cell, ty).unwrap().unwrap();
            assert_eq!(decode(&binary, ty.oid(), 1), Ok(cell), "{ty:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_null_is_null() {
        assert_eq!(encode_binary(&Cell::Int(i64::MAX), PgType::Int4), Err(()));
        assert_eq!(
            encode_binary(&Cell::Text("x".to_owned()), PgType::Int8),
            Err(())
        );
        assert_eq!(encode_binary(&Cell::Null, PgType::Int8), Ok(None));
        assert_eq!(encode_text(&Cell::Null, PgType::Text), None);
        assert!(decode(&[1, 2], 23, 1).is_err());
        assert!(decode(b"x", 23, 0).is_err());
        assert!(decode(b"x", 23, 7).is_err());
        assert!(decode(&[0xff], 25, 0).is_err());
    }
}
