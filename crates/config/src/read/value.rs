//! One value of the file to one value of the configuration, or what is wrong with it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pgweir_model::Consistency;
use pgweir_model::catalog::FunctionName;
use toml::de::DeValue;

use crate::reference::{self, Kind, Setting, Zero};
use crate::rules::{Pattern, RuleKind, TableName};
use crate::settings::{
    AuthMethod, BackendRole, Balance, DEFAULT_LISTEN_PORT, ForeignTables, LogFormat,
    LoggedStatements, PinReads, PoolMode, PrimaryReads, Splitting, TransactionReads,
};
use crate::units::{format_size, parse_duration, parse_size};
use crate::{ListenAddress, MaxLag, Secret};

/// What is wrong with a value; the caller knows where it stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) message: String,
    pub(crate) suggestion: Option<String>,
}

impl Wrong {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Wrong {
            message: message.into(),
            suggestion: None,
        }
    }

    pub(super) fn suggest(mut self, name: Option<&str>) -> Self {
        self.suggestion = name.map(str::to_owned);
        self
    }
}

/// An enum that is written as a word.
pub(super) trait Word: Copy + 'static {
    /// Stands in where the word is wrong; the error is reported, so it never gets out.
    const FIRST: Self;
    fn from_name(name: &str) -> Option<Self>;
}

macro_rules! word {
    ($($name:ident :: $first:ident),*) => {
        $(impl Word for $name {
            const FIRST: Self = $name::$first;
            fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|word| word.name() == name)
            }
        })*
    };
}

word!(
    AuthMethod::ScramSha256,
    BackendRole::Auto,
    Balance::LeastLoaded,
    Consistency::Session,
    ForeignTables::Primary,
    PinReads::Primary,
    PoolMode::Session,
    LogFormat::Text,
    LoggedStatements::Shape,
    PrimaryReads::Fallback,
    RuleKind::Select,
    Splitting::Off,
    TransactionReads::Primary
);

/// Returns what kind of value it is, in words.
pub(super) fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(entries) if entries.is_empty() => "an empty list",
        DeValue::Array(_) => "a list",
        DeValue::Table(entries) if entries.is_empty() => "an empty table",
        DeValue::Table(_) => "a table",
    }
}

fn expected(what: &str, value: &DeValue<'_>) -> Wrong {
    Wrong::new(format!("expected {what}, found {}", kind_of(value)))
}

pub(super) fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, Wrong> {
    value.as_str().ok_or_else(|| expected("a text", value))
}

/// Reads a name: PostgreSQL's protocol ends it with a zero byte, so it holds none.
pub(super) fn name(value: &DeValue<'_>) -> Result<Arc<str>, Wrong> {
    match text(value)? {
        "" => Err(Wrong::new("is empty")),
        name if name.contains('\0') => Err(Wrong::new("has a zero byte")),
        name => Ok(name.into()),
    }
}

pub(super) fn names(value: &DeValue<'_>) -> Result<Vec<Arc<str>>, Wrong> {
    let entries = value
        .as_array()
        .ok_or_else(|| expected("a list of names", value))?;
    (entries.iter())
        .map(|entry| name(entry.get_ref()))
        .collect()
}

/// Reads where HTTP is served; `off` is nowhere.
pub(super) fn http_address(value: &DeValue<'_>) -> Result<Option<(Arc<str>, u16)>, Wrong> {
    let text = text(value)?;
    if text == "off" {
        return Ok(None);
    }
    let wrong = || Wrong::new(format!("{text:?} is not host:port or off"));
    let (host, port) = split_port(text)?;
    let host = checked_host(host)
        .ok()
        .filter(|host| !host.starts_with('/'));
    match (host, port) {
        (Some(host), Some(port)) => Ok(Some((host.into(), port))),
        _ => Err(wrong()),
    }
}

/// Reads the address of a collector.
pub(super) fn endpoint(value: &DeValue<'_>) -> Result<Arc<str>, Wrong> {
    let text = text(value)?;
    let rest = text.strip_prefix("http://");
    let authority = text.split_once("://").map_or(text, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        // What it says is shown to all who look at the settings, and here it is not repeated.
        let message =
            "has a user or a password in front of an @: those are not sent, and would be shown";
        return Err(Wrong::new(message));
    }
    match rest.filter(|rest| !rest.is_empty() && !rest.contains(char::is_whitespace)) {
        Some(_) => Ok(text.trim_end_matches('/').into()),
        None => Err(Wrong::new(format!("{text:?} is not http://host:port"))),
    }
}

/// Reads what is logged.
pub(super) fn log_level(value: &DeValue<'_>) -> Result<Arc<str>, Wrong> {
    checked_log_level(text(value)?)
}

/// Returns a level, or a list of `target=level`, without blanks: the filter of the log would misread what stands behind one. A
/// lone word must be a level: taken as a target, a misspelt level would log everything of nothing.
pub(crate) fn checked_log_level(text: &str) -> Result<Arc<str>, Wrong> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    let of_a_target = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-');
    let mut parts = Vec::new();
    for part in text.split(',') {
        let (target, level) = match part.split_once('=') {
            Some((target, level)) => (Some(target.trim()), level.trim()),
            None => (None, part.trim()),
        };
        if !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
            let nearest = reference::nearest(level, LEVELS.into_iter());
            let message = format!("{level:?} is none of {}", LEVELS.join(", "));
            return Err(Wrong::new(message).suggest(nearest));
        }
        parts.push(match target {
            Some(target) if target.is_empty() || !target.chars().all(of_a_target) => {
                let message = format!("{target:?} is no target as in pgweir_cluster=debug");
                return Err(Wrong::new(message));
            }
            Some(target) => format!("{target}={level}"),
            None => level.to_owned(),
        });
    }
    Ok(parts.join(",").into())
}

pub(super) fn integer<T: TryFrom<u32>>(setting: &Setting, value: &DeValue<'_>) -> Result<T, Wrong> {
    let Kind::Integer { min, max } = setting.kind else {
        return Err(Wrong::new("is not an integer in the table of settings"));
    };
    let integer = value
        .as_integer()
        .ok_or_else(|| expected("an integer", value))?;
    let read = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
    let in_range = read.filter(|number| (min..=max).contains(number));
    in_range
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| Wrong::new(format!("{integer} is not from {min} to {max}")))
}

pub(super) fn size<T: TryFrom<u64>>(setting: &Setting, value: &DeValue<'_>) -> Result<T, Wrong> {
    let Kind::Size { min, max } = setting.kind else {
        return Err(Wrong::new("is not a size in the table of settings"));
    };
    let what = "a size with its unit, as in \"16MB\"";
    let text = value.as_str().ok_or_else(|| expected(what, value))?;
    let read = parse_size(text).ok_or_else(|| Wrong::new(format!("{text:?} is not {what}")))?;
    let in_range = Some(read).filter(|bytes| (u64::from(min)..=u64::from(max)).contains(bytes));
    in_range
        .and_then(|bytes| T::try_from(bytes).ok())
        .ok_or_else(|| {
            Wrong::new(format!(
                "{text} is not from {} to {}",
                format_size(min.into()),
                format_size(max.into())
            ))
        })
}

pub(super) fn duration(setting: &Setting, value: &DeValue<'_>) -> Result<Duration, Wrong> {
    let Kind::Duration { zero } = setting.kind else {
        return Err(Wrong::new("is not a duration in the table of settings"));
    };
    let what = "a duration with its unit (us, ms, s, min, h, d), as in \"30s\"";
    let read = match value {
        DeValue::Integer(integer) if integer.as_str() == "0" => Some(Duration::ZERO),
        DeValue::Integer(integer) => {
            return Err(Wrong::new(format!(
                "{integer} has no unit: expected {what}"
            )));
        }
        value => parse_duration(value.as_str().ok_or_else(|| expected(what, value))?),
    };
    match read {
        None => Err(Wrong::new(format!(
            "{:?} is not {what}",
            value.as_str().unwrap_or_default()
        ))),
        Some(Duration::ZERO) if zero == Zero::Refused => {
            Err(Wrong::new("must be above 0: every wait has a limit"))
        }
        Some(duration) => Ok(duration),
    }
}

/// Reads a list of tables, each written as in SQL.
pub(super) fn tables(value: &DeValue<'_>) -> Result<Vec<TableName>, Wrong> {
    let what = "a list of tables, as in [\"orders\", \"app.users\"]";
    let DeValue::Array(entries) = value else {
        return Err(expected(what, value));
    };
    if entries.is_empty() {
        return Err(expected(what, value));
    }
    entries
        .iter()
        .map(|entry| {
            let written = text(entry.get_ref())?;
            table(written).ok_or_else(|| {
                Wrong::new(format!(
                    "{written:?} is no table: expected name or schema.name"
                ))
            })
        })
        .collect()
}

/// Reads `name` or `schema.name`, folded as the server does: to lower case, but for what stands in double quotes.
fn table(written: &str) -> Option<TableName> {
    let mut parts: Vec<String> = vec![String::new()];
    let mut chars = written.chars().peekable();
    let mut is_quoted = false;
    while let Some(c) = chars.next() {
        let part = parts.last_mut()?;
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => {
                part.push('"');
                chars.next();
            }
            '"' => is_quoted = !is_quoted,
            '\0' => return None,
            c if is_quoted => part.push(c),
            '.' => parts.push(String::new()),
            c if c.is_alphanumeric() || c == '_' || c == '$' => part.push(c.to_ascii_lowercase()),
            _ => return None,
        }
    }
    if is_quoted || parts.iter().any(String::is_empty) {
        return None;
    }
    match parts.as_slice() {
        [name] => Some((None, name)),
        [schema, name] => Some((Some(schema.as_str().into()), name)),
        _ => None,
    }
    .map(|(schema, name)| TableName {
        schema,
        name: name.as_str().into(),
    })
}

/// Reads a regular expression.
pub(super) fn pattern(value: &DeValue<'_>) -> Result<Pattern, Wrong> {
    Pattern::new(text(value)?).map_err(|error| {
        // The last line says what is wrong; those before it draw an arrow.
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default();
        let last = last.strip_prefix("error: ").unwrap_or(last);
        Wrong::new(format!("is no regular expression: {last}"))
    })
}

/// Reads the fingerprint of a shape.
pub(super) fn fingerprint(value: &DeValue<'_>) -> Result<u64, Wrong> {
    let written = text(value)?;
    let is_hex = written.len() == 16 && written.bytes().all(|byte| byte.is_ascii_hexdigit());
    let read = u64::from_str_radix(written, 16).ok().filter(|_| is_hex);
    read.ok_or_else(|| {
        Wrong::new(format!(
            "{written:?} is not 16 hexadecimal digits, as pgweir route prints them"
        ))
    })
}

pub(super) fn max_lag(value: &DeValue<'_>) -> Result<MaxLag, Wrong> {
    let what = "a duration or a size, as in \"5s\" or \"16MB\"";
    let text = value.as_str().ok_or_else(|| expected(what, value))?;
    // `0` has no unit and would be zero of either: the check below refuses both.
    let time = parse_duration(text).map(MaxLag::Time);
    match time.or_else(|| parse_size(text).map(MaxLag::Bytes)) {
        None => Err(Wrong::new(format!("{text:?} is not {what}"))),
        Some(MaxLag::Time(Duration::ZERO) | MaxLag::Bytes(0)) => Err(Wrong::new(
            "must be above 0: no replica is ever level with a busy primary",
        )),
        Some(lag) => Ok(lag),
    }
}

pub(super) fn word<T: Word>(setting: &Setting, value: &DeValue<'_>) -> Result<T, Wrong> {
    let Kind::Word { now, later } = setting.kind else {
        return Err(Wrong::new("is not a word in the table of settings"));
    };
    let text = text(value)?;
    if later.contains(&text) {
        return Err(Wrong::new(format!(
            "{text:?} is not built in this version; use {}",
            now.join(", ")
        )));
    }
    T::from_name(text).ok_or_else(|| {
        let nearest = reference::nearest(text, now.iter().copied());
        Wrong::new(format!("{text:?} is none of {}", now.join(", "))).suggest(nearest)
    })
}

/// Reads the host of a server.
pub(super) fn host(value: &DeValue<'_>) -> Result<Arc<str>, Wrong> {
    checked_host(text(value)?).map(Arc::from)
}

/// Returns the host itself: the folder of a socket begins with `/`, an IPv6 address has no brackets.
pub(crate) fn checked_host(text: &str) -> Result<&str, Wrong> {
    let folder = text
        .strip_prefix("unix:")
        .or(Some(text).filter(|text| text.starts_with('/')));
    if let Some(folder) = folder {
        let absolute = folder.starts_with('/') && !folder.contains('\0');
        return if absolute {
            Ok(folder)
        } else {
            Err(Wrong::new(format!("{folder:?} is not an absolute folder")))
        };
    }
    let bracketed = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let host = bracketed.unwrap_or(text);
    let colons = host.matches(':').count();
    let of_a_host = |c: char| {
        !c.is_control() && !c.is_whitespace() && !matches!(c, '/' | '[' | ']' | '@' | ',')
    };
    match () {
        () if host.is_empty() => Err(Wrong::new("is empty")),
        () if colons == 1 => Err(Wrong::new(format!(
            "{text:?} is not a host; the port has its own key"
        ))),
        () if !host.chars().all(of_a_host) => Err(Wrong::new(format!("{text:?} is not a host"))),
        () => Ok(host),
    }
}

/// Reads a list of functions, each `name` or `schema.name`, written as SQL writes them: what is not in double quotes is in
/// lower case.
pub(super) fn functions(value: &DeValue<'_>) -> Result<Vec<FunctionName>, Wrong> {
    let entries = value
        .as_array()
        .ok_or_else(|| expected("a list of functions", value))?;
    entries
        .iter()
        .map(|entry| function(text(entry.get_ref())?))
        .collect()
}

fn function(text: &str) -> Result<FunctionName, Wrong> {
    let wrong = || Wrong::new(format!("{text:?} is not a function: name or schema.name"));
    let (first, rest) = identifier(text.trim()).ok_or_else(wrong)?;
    let Some(rest) = rest.strip_prefix('.') else {
        let whole = rest.is_empty();
        return whole
            .then_some(FunctionName {
                schema: None,
                name: first,
            })
            .ok_or_else(wrong);
    };
    let (name, rest) = identifier(rest).ok_or_else(wrong)?;
    let schema = Some(first);
    rest.is_empty()
        .then_some(FunctionName { schema, name })
        .ok_or_else(wrong)
}

/// Splits an identifier off the front of a text.
fn identifier(text: &str) -> Option<(Box<str>, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (name, rest) = quoted.split_once('"')?;
        return (!name.is_empty()).then(|| (name.into(), rest));
    }
    let of_a_name = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let end = text.find(|c| !of_a_name(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let begins_well = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
    begins_well.then(|| (name.to_ascii_lowercase().into(), rest))
}

pub(super) fn listen(value: &DeValue<'_>) -> Result<Vec<ListenAddress>, Wrong> {
    let entries = match value {
        DeValue::String(text) => return Ok(vec![listen_address(text)?]),
        DeValue::Array(entries) if !entries.is_empty() => entries,
        other => return Err(expected("a list of addresses", other)),
    };
    entries
        .iter()
        .map(|entry| listen_address(text(entry.get_ref())?))
        .collect()
}

/// Reads `host:port`, `[ipv6]:port`, `host`, `unix:/folder` or `/folder`.
pub(crate) fn listen_address(text: &str) -> Result<ListenAddress, Wrong> {
    let folder = text
        .strip_prefix("unix:")
        .or(Some(text).filter(|text| text.starts_with('/')));
    if let Some(folder) = folder {
        return checked_host(folder)
            .ok()
            .filter(|folder| folder.starts_with('/'))
            .map(|folder| ListenAddress::Unix(PathBuf::from(folder)))
            .ok_or_else(|| Wrong::new(format!("{text:?}: a socket's folder begins with /")));
    }
    let (host, port) = split_port(text)?;
    let host = checked_host(host)
        .map_err(|_| Wrong::new(format!("{text:?} is not host:port or unix:/folder")))?;
    Ok(ListenAddress::Tcp(
        host.to_owned(),
        port.unwrap_or(DEFAULT_LISTEN_PORT),
    ))
}

/// Splits `host:port`, `[ipv6]:port`, or a host alone.
pub(crate) fn split_port(text: &str) -> Result<(&str, Option<u16>), Wrong> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port))
            if !host.contains(':') || (host.starts_with('[') && host.ends_with(']')) =>
        {
            (host, Some(port))
        }
        Some(_) if !text.starts_with('[') => {
            return Err(Wrong::new(format!(
                "{text:?}: an IPv6 address stands in brackets, as in [::1]:5432"
            )));
        }
        _ => (text, None),
    };
    let number = |port: &str| {
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { port.parse().ok() } else { None };
        number.ok_or_else(|| Wrong::new(format!("{text:?}: {port:?} is not a port")))
    };
    Ok((host, port.map(number).transpose()?))
}

/// Reads a password, or the name of an environment variable that holds it.
pub(super) fn password(
    value: &DeValue<'_>,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Secret, Wrong> {
    match value {
        DeValue::String(password) => checked_password(password),
        DeValue::Table(entries) if entries.len() == 1 => {
            let name = entries.get("env").and_then(|name| name.get_ref().as_str());
            let name = name.ok_or_else(|| Wrong::new("expected a text or { env = \"NAME\" }"))?;
            let password = environment(name);
            checked_password(
                &password
                    .ok_or_else(|| Wrong::new(format!("environment variable {name} is not set")))?,
            )
        }
        other => Err(expected("a text or { env = \"NAME\" }", other)),
    }
}

/// Refuses what PostgreSQL's protocol cannot carry or never accepts.
pub(crate) fn checked_password(text: &str) -> Result<Secret, Wrong> {
    match text {
        "" => Err(Wrong::new("is empty: PostgreSQL accepts no empty password")),
        text if text.contains('\0') => Err(Wrong::new("has a zero byte")),
        text => Ok(Secret::new(text)),
    }
}
