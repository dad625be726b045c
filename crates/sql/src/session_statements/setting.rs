//! `SET` and `RESET`, as `VariableSetStmt` and `VariableResetStmt` of PostgreSQL's grammar have them, and which of them pin.
//!
//! See <https://www.postgresql.org/docs/current/sql-set.html>.

use std::borrow::Cow;

use pgweir_model::PinReason;
use smallvec::SmallVec;

use super::cursor::Cursor;
use super::{Reading, Setting, StateEvent, literal, transaction};
use crate::effects::{Isolation, TransactionModes};
use crate::lexer::TokenKind;
use crate::names::listed;

/// Behind `SET`.
pub(super) fn set<'a>(mut cursor: Cursor<'_, 'a>) -> Option<Reading<'a>> {
    let mut local = false;
    let is_special = cursor.are(&["session", "authorization"])
        || cursor.are(&["session", "characteristics", "as"]);
    let is_scope = !is_special && !names_parameter(&cursor);
    if is_scope && cursor.take("local") {
        local = true;
    } else if is_scope {
        cursor.take("session");
    }
    if names_parameter(&cursor) {
        return assigned(cursor, local);
    }
    if cursor.take_all(&["session", "characteristics", "as", "transaction"]) {
        return characteristics(cursor, local);
    }
    if cursor.take("transaction") {
        return of_transaction(cursor);
    }
    if cursor.take("constraints") {
        // The grammar takes no scope here, which a server would say.
        return constraints(cursor);
    }
    named(cursor, local)
}

/// Returns whether the word at the cursor is the beginning of a parameter's name, whatever it means elsewhere.
fn names_parameter(cursor: &Cursor<'_, '_>) -> bool {
    cursor.is_sign_at(1, "=")
        || cursor.is_sign_at(1, ".")
        || cursor.is_at(1, "to")
        || cursor.are_at(1, &["from", "current"])
        || cursor.is_at(1, "uescape")
}

/// `name {TO | =} {value [, ...] | DEFAULT}` or `name FROM CURRENT`.
fn assigned<'a>(mut cursor: Cursor<'_, 'a>, local: bool) -> Option<Reading<'a>> {
    let name = parameter(&mut cursor)?;
    if cursor.take_all(&["from", "current"]) {
        // It makes what `SET LOCAL` set a setting of the session. What that is stands in no text.
        let over = cursor.is_over();
        return over.then_some(Reading::Pins(PinReason::Setting));
    }
    if !cursor.take("to") && !cursor.take_sign("=") {
        return None;
    }
    if cursor.take("default") {
        return cursor.is_over().then(|| reset_to_default(name, local));
    }
    let mut values = Vec::new();
    loop {
        let value = value(&mut cursor).or_else(|| word_for_proxy(&mut cursor, &name))?;
        values.push(value);
        if cursor.is_over() {
            break;
        }
        cursor.take_sign(",").then_some(())?;
    }
    set_to(&cursor, name, local, values)
}

fn set_to<'a>(
    cursor: &Cursor<'_, 'a>,
    name: Cow<'a, str>,
    local: bool,
    values: Vec<Option<String>>,
) -> Option<Reading<'a>> {
    let setting = Setting {
        name,
        local,
        sql: Cow::Borrowed(cursor.statement()),
        value: values.into_iter().collect(),
    };
    match &*setting.name {
        // It is no setting: it moves the server's random numbers on.
        "seed" => Some(Reading::Pins(PinReason::SetSeed)),
        name if is_of_transaction(name) => {
            let modes = assigned_modes(&setting)?;
            Some(Reading::event(StateEvent::SetTransaction(modes)))
        }
        _ => Some(Reading::event(StateEvent::Set(setting))),
    }
}

fn reset_to_default(name: Cow<'_, str>, local: bool) -> Reading<'_> {
    if is_of_transaction(&name) || name == "seed" {
        Reading::Nothing
    } else {
        Reading::event(StateEvent::Reset { name, local })
    }
}

/// The parameters that are of the transaction, with or without `LOCAL`.
fn is_of_transaction(name: &str) -> bool {
    matches!(
        name,
        "transaction_isolation" | "transaction_read_only" | "transaction_deferrable"
    )
}

fn assigned_modes(setting: &Setting<'_>) -> Option<TransactionModes> {
    let mut modes = TransactionModes::default();
    match &*setting.name {
        "transaction_isolation" => {
            let value = setting.single()?.to_ascii_lowercase();
            let level = LEVELS.iter().find(|(name, _)| *name == value)?;
            modes.isolation = Some(level.1);
        }
        "transaction_read_only" => modes.read_only = Some(setting.as_bool()?),
        _ => modes.deferrable = Some(setting.as_bool()?),
    }
    Some(modes)
}

const LEVELS: [(&str, Isolation); 4] = [
    ("serializable", Isolation::Serializable),
    ("repeatable read", Isolation::RepeatableRead),
    ("read committed", Isolation::ReadCommitted),
    ("read uncommitted", Isolation::ReadUncommitted),
];

/// Behind `SET TRANSACTION`.
fn of_transaction<'a>(mut cursor: Cursor<'_, 'a>) -> Option<Reading<'a>> {
    if cursor.take("snapshot") {
        cursor.string()?;
        return cursor.is_over().then_some(Reading::Nothing);
    }
    let modes = transaction::modes(cursor)?;
    Some(Reading::event(StateEvent::SetTransaction(modes)))
}

/// Behind `SET SESSION CHARACTERISTICS AS TRANSACTION`: the defaults of later transactions.
fn characteristics<'a>(cursor: Cursor<'_, 'a>, local: bool) -> Option<Reading<'a>> {
    let modes = transaction::modes(cursor)?;
    let on_off = |on: bool| if on { "on" } else { "off" };
    let level = |level| LEVELS.iter().find(|(_, known)| *known == level);
    let values = [
        (
            "default_transaction_isolation",
            modes.isolation.and_then(level).map(|(name, _)| *name),
        ),
        ("default_transaction_read_only", modes.read_only.map(on_off)),
        (
            "default_transaction_deferrable",
            modes.deferrable.map(on_off),
        ),
    ];
    let scope = if local { "LOCAL " } else { "" };
    let set = |(name, value): (&'static str, Option<&str>)| {
        let value = value?;
        Some(StateEvent::Set(Setting {
            name: Cow::Borrowed(name),
            local,
            sql: Cow::Owned(format!("SET {scope}{name} = '{value}'").into_bytes()),
            value: Some(vec![value.to_owned()]),
        }))
    };
    let events: SmallVec<_> = values.into_iter().filter_map(set).collect();
    Some(Reading::Events(events))
}

/// Behind `SET CONSTRAINTS`.
fn constraints<'a>(mut cursor: Cursor<'_, 'a>) -> Option<Reading<'a>> {
    if !cursor.take("all") {
        loop {
            cursor.name()?;
            while cursor.take_sign(".") {
                cursor.next()?;
            }
            if !cursor.take_sign(",") {
                break;
            }
        }
    }
    let known = cursor.take_any(&["deferred", "immediate"]) && cursor.is_over();
    known.then(|| Reading::event(StateEvent::Constraints))
}

/// The parameters with a syntax of their own.
fn named<'a>(mut cursor: Cursor<'_, 'a>, local: bool) -> Option<Reading<'a>> {
    let (name, value) = if cursor.take_all(&["time", "zone"]) {
        if cursor.take_any(&["local", "default"]) {
            ("timezone", None)
        } else {
            ("timezone", Some(zone(&mut cursor)?))
        }
    } else if cursor.take("schema") {
        ("search_path", Some(text(cursor.string()?)))
    } else if cursor.take("names") {
        // Without a value it means the default.
        if cursor.is_over() || cursor.take("default") {
            ("client_encoding", None)
        } else {
            ("client_encoding", Some(text(cursor.string()?)))
        }
    } else if cursor.take("role") {
        ("role", Some(word_or_string(&mut cursor)?))
    } else if cursor.take_all(&["session", "authorization"]) {
        if cursor.take("default") {
            ("session_authorization", None)
        } else {
            ("session_authorization", Some(word_or_string(&mut cursor)?))
        }
    } else if cursor.take_all(&["xml", "option"]) {
        let document = cursor.take("document");
        (document || cursor.take("content")).then_some(())?;
        let value = if document { "DOCUMENT" } else { "CONTENT" };
        ("xmloption", Some(Some(value.to_owned())))
    } else {
        return None;
    };
    cursor.is_over().then_some(())?;
    let name = Cow::Borrowed(name);
    match value {
        Some(value) => set_to(&cursor, name, local, vec![value]),
        None => Some(reset_to_default(name, local)),
    }
}

/// The value of `SET TIME ZONE`; `Some(None)` for an interval.
fn zone(cursor: &mut Cursor<'_, '_>) -> Option<Option<String>> {
    if !cursor.take("interval") {
        return cursor
            .identifier()
            .or_else(|| cursor.string())
            .map(text)
            .or_else(|| number(cursor).map(Some));
    }
    if cursor.is_sign_at(0, "(") {
        cursor.parentheses()?;
    }
    cursor.string()?;
    while cursor.take_any(&["hour", "minute", "second", "year", "month", "day", "to"])
        || cursor.parentheses().is_some()
    {}
    Some(None)
}

/// Behind `RESET`.
pub(super) fn reset<'a>(mut cursor: Cursor<'_, 'a>) -> Option<Reading<'a>> {
    if cursor.peek(1).is_none() && cursor.take("all") {
        return Some(Reading::event(StateEvent::ResetAll));
    }
    let name = if cursor.take_all(&["time", "zone"]) {
        Cow::Borrowed("timezone")
    } else if cursor.take_all(&["session", "authorization"]) {
        Cow::Borrowed("session_authorization")
    } else if cursor.take_all(&["transaction", "isolation", "level"]) {
        Cow::Borrowed("transaction_isolation")
    } else {
        parameter(&mut cursor)?
    };
    cursor.is_over().then(|| reset_to_default(name, false))
}

/// Takes the name of a parameter, of one or more parts.
fn parameter<'a>(cursor: &mut Cursor<'_, 'a>) -> Option<Cow<'a, str>> {
    let first = cursor.name()?;
    let name = if cursor.is_sign_at(0, ".") {
        let mut name = first.into_owned();
        while cursor.take_sign(".") {
            name.push(b'.');
            name.extend_from_slice(&cursor.name()?);
        }
        Cow::Owned(name)
    } else {
        first
    };
    let mut name = match name {
        Cow::Borrowed(name) => Cow::Borrowed(std::str::from_utf8(name).ok()?),
        Cow::Owned(name) => Cow::Owned(String::from_utf8(name).ok()?),
    };
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        name.to_mut().make_ascii_lowercase();
    }
    // The names of old that the server still takes: `map_old_guc_names` in guc.c.
    Some(match &*name {
        "sort_mem" => Cow::Borrowed("work_mem"),
        "vacuum_mem" => Cow::Borrowed("maintenance_work_mem"),
        _ => name,
    })
}

/// Takes a value of a list: `var_value`. `Some(None)` where it is not UTF-8.
fn value(cursor: &mut Cursor<'_, '_>) -> Option<Option<String>> {
    for word in ["true", "false", "on"] {
        if cursor.take(word) {
            return Some(Some(word.to_owned()));
        }
    }
    word_or_string(cursor).or_else(|| number(cursor).map(Some))
}

/// A reserved word as a value for the proxy: nobody should have to know that `primary` is one.
fn word_for_proxy(cursor: &mut Cursor<'_, '_>, parameter: &str) -> Option<Option<String>> {
    let token = cursor.peek(0)?;
    let is_word = parameter.starts_with("pgweir.") && token.kind == TokenKind::Word;
    is_word.then(|| {
        cursor.next();
        text(literal::word(token.text))
    })
}

/// `NonReservedWord_or_Sconst`.
fn word_or_string(cursor: &mut Cursor<'_, '_>) -> Option<Option<String>> {
    cursor.value_word().or_else(|| cursor.string()).map(text)
}

fn text(value: Cow<'_, [u8]>) -> Option<String> {
    String::from_utf8(value.into_owned()).ok()
}

/// `NumericOnly`.
fn number(cursor: &mut Cursor<'_, '_>) -> Option<String> {
    let mut after = *cursor;
    let sign = if after.take_sign("-") {
        "-"
    } else {
        after.take_sign("+");
        ""
    };
    let token = after
        .next()
        .filter(|token| token.kind == TokenKind::Number)?;
    *cursor = after;
    Some(format!("{sign}{}", literal::numeral(token.text)))
}

/// Returns why a setting that can be tracked keeps its session on the server connection all the same.
pub(crate) fn pin(setting: &Setting<'_>) -> Option<PinReason> {
    let tracked = match &*setting.name {
        // Another reading of strings, or of bytes, than our lexer has: nothing that follows may be vouched for.
        "standard_conforming_strings" => setting.as_bool() == Some(true),
        "client_encoding" => setting.single().is_some_and(is_readable_encoding),
        // Its change is refused, or not, by what the server connection has done before.
        "temp_buffers" => setting.local,
        // What it switches off is not to be found switched off by mistake on another server.
        "session_replication_role" => setting.local,
        _ => true,
    };
    (!tracked).then_some(PinReason::Setting)
}

/// Returns whether a text in this encoding is read by our lexer as by the server: no character has a byte of ASCII behind its
/// first.
fn is_readable_encoding(name: &str) -> bool {
    let name: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    listed(READABLE_ENCODINGS, name.as_bytes())
}

/// The names of `pg_encname_tbl` in `src/common/encnames.c`, as `clean_encoding_name` leaves them, without those of SJIS, BIG5,
/// GBK, UHC, GB18030, JOHAB and SHIFT_JIS_2004. Sorted by bytes.
#[rustfmt::skip]
const READABLE_ENCODINGS: &[&str] = &[
    "abc", "alt", "euccn", "eucjis2004", "eucjp", "euckr", "euctw", "iso88591", "iso885910", "iso885913", "iso885914",
    "iso885915", "iso885916", "iso88592", "iso88593", "iso88594", "iso88595", "iso88596", "iso88597", "iso88598",
    "iso88599", "koi8", "koi8r", "koi8u", "latin1", "latin10", "latin2", "latin3", "latin4", "latin5", "latin6",
    "latin7", "latin8", "latin9", "muleinternal", "sqlascii", "tcvn", "tcvn5712", "unicode", "utf8", "vscii", "win",
    "win1250", "win1251", "win1252", "win1253", "win1254", "win1255", "win1256", "win1257", "win1258", "win866",
    "win874", "windows1250", "windows1251", "windows1252", "windows1253", "windows1254", "windows1255", "windows1256",
    "windows1257", "windows1258", "windows866", "windows874",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encodings_are_sorted_and_read_in_any_spelling() {
        assert!(READABLE_ENCODINGS.is_sorted());
        for name in [
            "UTF8",
            "utf-8",
            "Latin1",
            "ISO_8859_5",
            "SQL_ASCII",
            "euc_jp",
        ] {
            assert!(is_readable_encoding(name), "{name}");
        }
        for name in ["SJIS", "GB18030", "Windows-932", "big5", "", "utf9"] {
            assert!(!is_readable_encoding(name), "{name}");
        }
    }
}
