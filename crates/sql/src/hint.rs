//! Instructions in comments: `/* pgweir: route=primary, max_lag=2s */`.
//!
//! A hint is a comment that begins with `pgweir:`. Text inside literals is never one, and neither is a comment that only
//! mentions the word later: what an application logs into its comments must not steer.

use std::time::Duration;

use pgweir_model::Consistency;

/// What the hint comments of a text say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hint {
    /// `route=`: where the text shall go.
    pub route: Option<HintRoute>,
    /// `max_lag=`: how stale a replica may be for this text.
    pub max_lag: Option<MaxLag>,
    /// `consistency=`: what the text may see.
    pub consistency: Option<Consistency>,
    /// The keys known but not used here (`cache`, `shard_key`), with their values.
    pub others: Vec<(Box<str>, Box<str>)>,
    /// What could not be understood, one sentence each, for the operator.
    pub errors: Vec<Box<str>>,
}

/// The value of `route=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HintRoute {
    /// As the classification says.
    Auto,
    /// The primary.
    Primary,
    /// A replica.
    Replica,
    /// The backend of this name.
    Backend(Box<str>),
}

/// A limit on how far a replica may be behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxLag {
    /// By age.
    Age(Duration),
    /// By bytes of WAL.
    Bytes(u64),
}

/// Returns what stands behind `pgweir:` if the comment is a hint.
pub(crate) fn content(comment: &[u8]) -> Option<&[u8]> {
    let inner = match comment {
        [b'-', b'-', inner @ ..] => inner,
        [b'/', b'*', inner @ .., b'*', b'/'] => inner,
        _ => return None,
    };
    let inner = inner.trim_ascii_start();
    let (word, rest) = inner.split_at_checked(b"pgweir".len())?;
    if !word.eq_ignore_ascii_case(b"pgweir") {
        return None;
    }
    rest.trim_ascii_start().strip_prefix(b":")
}

impl Hint {
    /// Adds what one hint comment says. A later instruction replaces an earlier one.
    pub(crate) fn read(&mut self, content: &[u8]) {
        for part in String::from_utf8_lossy(content).split(',') {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            match part.split_once('=') {
                Some((key, value)) => {
                    self.set(&key.trim().to_ascii_lowercase(), unquote(value.trim()))
                }
                None => self
                    .errors
                    .push(format!("{part:?} is not of the form key=value").into()),
            }
        }
    }

    fn set(&mut self, key: &str, value: &str) {
        match key {
            "route" if value.is_empty() => self.errors.push("route has no value".into()),
            "route" => self.route = Some(HintRoute::from_name(value)),
            "max_lag" => match MaxLag::parse(value) {
                Some(limit) => self.max_lag = Some(limit),
                None => self.errors.push(
                    format!("max_lag: {value:?} is neither a time nor a size with a unit").into(),
                ),
            },
            "consistency" => match Consistency::from_name(value) {
                Some(level) => self.consistency = Some(level),
                None => self.errors.push(
                    format!("consistency: {value:?} is none of session, eventual and strong")
                        .into(),
                ),
            },
            "cache" | "shard_key" => self.others.push((key.into(), value.into())),
            _ => self.errors.push(
                format!(
                    "{key:?} is not a hint; the known ones are route, max_lag, consistency, cache, shard_key"
                )
                .into(),
            ),
        }
    }
}

impl HintRoute {
    /// Reads a value of `route=` or of the setting `pgweir.route`: a word with a meaning, or else the name of a backend.
    pub fn from_name(value: &str) -> Self {
        match value.to_ascii_lowercase().as_str() {
            "auto" => HintRoute::Auto,
            "primary" => HintRoute::Primary,
            "replica" => HintRoute::Replica,
            _ => HintRoute::Backend(value.into()),
        }
    }
}

impl MaxLag {
    /// Reads `2s`, `500ms`, `1min`, `16MB`: a whole number with one of PostgreSQL's units. `0` needs none.
    ///
    /// See <https://www.postgresql.org/docs/current/config-setting.html#CONFIG-SETTING-NAMES-VALUES>.
    pub fn parse(value: &str) -> Option<Self> {
        let digits = value.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = value.split_at_checked(digits)?;
        let number: u64 = number.parse().ok()?;
        let unit = unit.trim();
        let age = |millis: u64| {
            Some(MaxLag::Age(Duration::from_millis(
                number.checked_mul(millis)?,
            )))
        };
        let bytes = |factor: u64| Some(MaxLag::Bytes(number.checked_mul(factor)?));
        match unit {
            "" if number == 0 => age(1),
            "us" => Some(MaxLag::Age(Duration::from_micros(number))),
            "ms" => age(1),
            "s" => age(1_000),
            "min" => age(60_000),
            "h" => age(3_600_000),
            "d" => age(86_400_000),
            "B" => bytes(1),
            "kB" | "KB" | "KiB" => bytes(1 << 10),
            "MB" | "MiB" => bytes(1 << 20),
            "GB" | "GiB" => bytes(1 << 30),
            "TB" | "TiB" => bytes(1 << 40),
            _ => None,
        }
    }
}

fn unquote(value: &str) -> &str {
    ["'", "\""]
        .iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(text: &str) -> Option<Hint> {
        let mut hint = Hint::default();
        hint.read(content(text.as_bytes())?);
        Some(hint)
    }

    #[test]
    fn reads_the_documented_example() {
        let read =
            hint("/* pgweir: route=primary, max_lag=2s, cache=10s, shard_key=42 */").unwrap();
        assert_eq!(read.route, Some(HintRoute::Primary));
        assert_eq!(read.max_lag, Some(MaxLag::Age(Duration::from_secs(2))));
        assert_eq!(
            read.others,
            [
                ("cache".into(), "10s".into()),
                ("shard_key".into(), "42".into())
            ]
        );
        assert!(read.errors.is_empty());
    }

    #[test]
    fn consistency_is_the_name_of_a_level() {
        let of = |text: &str| {
            let read = hint(text).unwrap();
            (read.consistency, read.errors.len())
        };
        assert_eq!(
            of("/* pgweir: consistency=Eventual */"),
            (Some(Consistency::Eventual), 0)
        );
        assert_eq!(
            of("-- pgweir: consistency = session"),
            (Some(Consistency::Session), 0)
        );
        assert_eq!(
            of("/* pgweir: consistency=STRONG */"),
            (Some(Consistency::Strong), 0)
        );
        assert_eq!(of("/* pgweir: consistency=none */"), (None, 1));
    }

    #[test]
    fn any_other_route_is_the_name_of_a_backend() {
        assert_eq!(
            hint("--pgweir: route='Replica-1'").unwrap().route,
            Some(HintRoute::Backend("Replica-1".into()))
        );
        assert_eq!(
            hint("/*PGWEIR : Route = AUTO*/").unwrap().route,
            Some(HintRoute::Auto)
        );
    }

    #[test]
    fn a_comment_that_mentions_it_later_is_no_hint() {
        for text in [
            "/* see pgweir: route=primary */",
            "/* pgweird: x */",
            "/* pgweir */",
            "--",
            "/**/",
        ] {
            assert_eq!(hint(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_reported_and_the_rest_is_kept() {
        let read = hint("/* pgweir: rout=primary, max_lag=soon, x, route=replica */").unwrap();
        assert_eq!(read.errors.len(), 3);
        assert_eq!(read.route, Some(HintRoute::Replica));
    }

    #[test]
    fn limits_have_units() {
        assert_eq!(MaxLag::parse("16MB"), Some(MaxLag::Bytes(16 << 20)));
        assert_eq!(
            MaxLag::parse("250 ms"),
            Some(MaxLag::Age(Duration::from_millis(250)))
        );
        assert_eq!(MaxLag::parse("0"), Some(MaxLag::Age(Duration::ZERO)));
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "1 parsec",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert_eq!(MaxLag::parse(text), None, "{text}");
        }
    }
}
