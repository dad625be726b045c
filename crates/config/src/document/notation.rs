//! A value as people write it to the value in the file's notation.
//!
//! Whether it is a good one, the reader decides: what cannot be meant is passed on as a text, so that it is the reader that
//! says what is wrong.

use toml_edit::{Array, Value};

use crate::diff::list_of;
use crate::reference::Kind;

/// Returns a value in the file's notation. `old` is the one that it replaces, whose quotes it gets.
pub(super) fn notation(kind: Kind, value: &str, old: Option<&str>) -> String {
    let trimmed = value.trim();
    match kind {
        Kind::Addresses | Kind::Functions | Kind::Names | Kind::Tables => list_of(trimmed)
            .map_or_else(|| list(trimmed), |list| list.decorated("", "").to_string()),
        Kind::Integer { .. } => match trimmed.parse::<Value>() {
            Ok(number @ Value::Integer(_)) => number.decorated("", "").to_string(),
            _ => quoted(value, old),
        },
        Kind::Password => match trimmed.parse::<Value>() {
            Ok(Value::InlineTable(table)) if table.contains_key("env") => {
                Value::InlineTable(table).decorated("", "").to_string()
            }
            _ => quoted(value, old),
        },
        Kind::Duration { .. } | Kind::Size { .. } | Kind::Lag | Kind::Word { .. } => {
            quoted(trimmed, old)
        }
        Kind::Name
        | Kind::Host
        | Kind::Path
        | Kind::HttpAddress
        | Kind::Endpoint
        | Kind::LogLevel
        | Kind::Pattern
        | Kind::Fingerprint
        | Kind::Route
        | Kind::Text
        | Kind::Backends
        | Kind::Part => quoted(value, old),
    }
}

fn list(line: &str) -> String {
    let entries = line.split(',').map(str::trim);
    Array::from_iter(entries.filter(|entry| !entry.is_empty())).to_string()
}

fn quoted(text: &str, old: Option<&str>) -> String {
    let is_literal = old.is_some_and(|old| old.starts_with('\'') && !old.starts_with("''"));
    if is_literal && !text.contains(|c: char| c == '\'' || c.is_control()) {
        return format!("'{text}'");
    }
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::Zero;

    #[test]
    fn each_kind_has_its_notation() {
        let integer = Kind::Integer { min: 0, max: 9 };
        let duration = Kind::Duration { zero: Zero::Off };
        for (kind, value, expected) in [
            (integer, " 20", "20"),
            (integer, "1_000", "1_000"),
            (integer, "many", r#""many""#),
            (duration, "500ms ", r#""500ms""#),
            (duration, "0", r#""0""#),
            (Kind::Names, "a, b", r#"["a", "b"]"#),
            (Kind::Names, "", "[]"),
            (Kind::Names, r#"["a,b", 'c']"#, r#"["a,b", 'c']"#),
            (Kind::Addresses, "[::1]:1, h:2", r#"["[::1]:1", "h:2"]"#),
            (Kind::Password, "a b", r#""a b""#),
            (Kind::Password, "{ env = 'P' }", "{ env = 'P' }"),
            (Kind::Password, "{ no = 'P' }", r#""{ no = 'P' }""#),
            (Kind::Pattern, r"^a\d", r"'^a\d'"),
            (Kind::Text, "not \"now\"", r#"'not "now"'"#),
        ] {
            assert_eq!(notation(kind, value, None), expected, "{kind:?} {value}");
        }
        assert_eq!(notation(duration, "1s", Some("'5s'")), "'1s'");
        assert_eq!(notation(Kind::Text, "it's", Some("'no'")), "\"it's\"");
    }
}
