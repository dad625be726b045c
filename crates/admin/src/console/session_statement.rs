//! Statements about the session itself, which drivers send: transactions, parameters, what they reset.
//!
//! ## What a transaction means here
//! Nothing but its status. Each statement sees a picture of its own, and a change holds at once, for everybody: `ROLLBACK` takes
//! nothing back, and says so where something was changed. After an error the statements up to its end are refused, as drivers
//! expect.

use super::words::{Kind, Token, tokens};

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SessionStatement {
    Begin,
    Commit,
    Rollback,
    RollbackTo,
    Savepoint,
    Release,
    Set {
        name: String,
        value: Option<String>,
    },
    /// Something of no consequence here, with its tag.
    Nothing(&'static str),
    ResetAll,
    DiscardAll,
    /// `None` is all.
    Deallocate(Option<String>),
}

impl SessionStatement {
    /// Returns its command tag.
    pub(crate) fn tag(&self) -> &'static str {
        match self {
            SessionStatement::Begin => "BEGIN",
            SessionStatement::Commit => "COMMIT",
            SessionStatement::Rollback | SessionStatement::RollbackTo => "ROLLBACK",
            SessionStatement::Savepoint => "SAVEPOINT",
            SessionStatement::Release => "RELEASE",
            SessionStatement::Set { .. } => "SET",
            SessionStatement::Nothing(tag) => tag,
            SessionStatement::ResetAll => "RESET",
            SessionStatement::DiscardAll => "DISCARD ALL",
            SessionStatement::Deallocate(None) => "DEALLOCATE ALL",
            SessionStatement::Deallocate(Some(_)) => "DEALLOCATE",
        }
    }

    /// Returns what it is called where it needs a transaction.
    pub(crate) fn needs_transaction(&self) -> Option<&'static str> {
        match self {
            SessionStatement::Savepoint => Some("SAVEPOINT"),
            SessionStatement::Release => Some("RELEASE SAVEPOINT"),
            SessionStatement::RollbackTo => Some("ROLLBACK TO SAVEPOINT"),
            _ => None,
        }
    }

    /// Returns whether it may run in a transaction that has failed.
    pub(crate) fn ends_transaction(&self) -> bool {
        matches!(
            self,
            SessionStatement::Commit | SessionStatement::Rollback | SessionStatement::RollbackTo
        )
    }
}

/// Returns what a statement is, if it is one of them.
pub(crate) fn parse(sql: &str) -> Option<SessionStatement> {
    let words: Vec<Token<'_>> = tokens(sql).collect();
    let (verb, rest) = words.split_first()?;
    let next = |word: &str| rest.first().is_some_and(|token| token.is(word));
    Some(match verb.text.to_ascii_lowercase().as_str() {
        "begin" => SessionStatement::Begin,
        "start" if next("transaction") => SessionStatement::Begin,
        "commit" | "end" => SessionStatement::Commit,
        "rollback" if rest.iter().any(|token| token.is("to")) => SessionStatement::RollbackTo,
        "rollback" | "abort" => SessionStatement::Rollback,
        "savepoint" => SessionStatement::Savepoint,
        "release" => SessionStatement::Release,
        "set" => set(rest)?,
        "reset" if next("all") => SessionStatement::ResetAll,
        "reset" => SessionStatement::Set {
            name: name(rest.split_first()?).0,
            value: None,
        },
        "discard" if next("all") => SessionStatement::DiscardAll,
        "discard" => SessionStatement::Nothing("DISCARD"),
        "deallocate" => deallocate(rest),
        "unlisten" => SessionStatement::Nothing("UNLISTEN"),
        "close" if next("all") => SessionStatement::Nothing("CLOSE CURSOR ALL"),
        _ => return None,
    })
}

/// A name, which may have two parts, and what follows.
fn name<'a>(parts: (&Token<'_>, &'a [Token<'a>])) -> (String, &'a [Token<'a>]) {
    let (first, rest) = parts;
    match rest {
        [dot, second, rest @ ..] if dot.kind == Kind::Symbol('.') => {
            (format!("{}.{}", first.value(), second.value()), rest)
        }
        rest => (first.value(), rest),
    }
}

fn deallocate(rest: &[Token<'_>]) -> SessionStatement {
    let rest = match rest {
        [word, rest @ ..] if word.is("prepare") => rest,
        rest => rest,
    };
    let named = rest.first().filter(|token| !token.is("all"));
    SessionStatement::Deallocate(named.map(Token::value))
}

fn set<'a>(rest: &'a [Token<'a>]) -> Option<SessionStatement> {
    let rest = match rest {
        [word, rest @ ..] if word.is("session") || word.is("local") => rest,
        rest => rest,
    };
    let (first, others) = rest.split_first()?;
    if first.is("transaction") || first.is("characteristics") {
        return Some(SessionStatement::Nothing("SET"));
    }
    if first.is("names") {
        return Some(SessionStatement::Set {
            name: "client_encoding".to_owned(),
            value: others.first().map(Token::value),
        });
    }
    if first.is("time") && others.first().is_some_and(|token| token.is("zone")) {
        return Some(SessionStatement::Set {
            name: "timezone".to_owned(),
            value: Some(values(others.get(1..)?)),
        });
    }
    let (name, others) = name((first, others));
    let (sign, value) = others.split_first()?;
    if !sign.is("to") && sign.kind != Kind::Symbol('=') {
        return None;
    }
    let default = matches!(value, [one] if one.is("default"));
    Some(SessionStatement::Set {
        name,
        value: (!default).then(|| values(value)),
    })
}

/// A list is joined as PostgreSQL shows it.
fn values(tokens: &[Token<'_>]) -> String {
    let mut out = String::new();
    for token in tokens {
        match token.kind {
            Kind::Symbol(',') => out.push_str(", "),
            _ => out.push_str(&token.value()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_drivers_send() {
        let set = |name: &str, value: Option<&str>| {
            Some(SessionStatement::Set {
                name: name.to_owned(),
                value: value.map(str::to_owned),
            })
        };
        for (sql, expected) in [
            ("BEGIN", Some(SessionStatement::Begin)),
            (
                "begin isolation level serializable",
                Some(SessionStatement::Begin),
            ),
            ("START TRANSACTION READ ONLY", Some(SessionStatement::Begin)),
            ("COMMIT", Some(SessionStatement::Commit)),
            (
                "ROLLBACK TO SAVEPOINT x",
                Some(SessionStatement::RollbackTo),
            ),
            ("abort", Some(SessionStatement::Rollback)),
            (
                "SET extra_float_digits = 3",
                set("extra_float_digits", Some("3")),
            ),
            (
                "SET SESSION search_path TO a, \"b\"",
                set("search_path", Some("a, b")),
            ),
            ("set x.y = 'z'", set("x.y", Some("z"))),
            (
                "SET application_name TO DEFAULT",
                set("application_name", None),
            ),
            ("SET TIME ZONE 'UTC'", set("timezone", Some("UTC"))),
            ("SET NAMES 'utf8'", set("client_encoding", Some("utf8"))),
            (
                "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
                Some(SessionStatement::Nothing("SET")),
            ),
            (
                "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
                Some(SessionStatement::Nothing("SET")),
            ),
            ("RESET ALL", Some(SessionStatement::ResetAll)),
            ("reset search_path", set("search_path", None)),
            ("DISCARD ALL", Some(SessionStatement::DiscardAll)),
            (
                "DEALLOCATE \"S_1\"",
                Some(SessionStatement::Deallocate(Some("S_1".to_owned()))),
            ),
            ("DEALLOCATE ALL", Some(SessionStatement::Deallocate(None))),
            ("UNLISTEN *", Some(SessionStatement::Nothing("UNLISTEN"))),
            ("select 1", None),
            ("set", None),
            ("set x", None),
            ("start", None),
        ] {
            assert_eq!(parse(sql), expected, "{sql}");
        }
    }
}
