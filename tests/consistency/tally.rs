//! The errors that clients saw, counted by what they were doing and by SQLSTATE, and why each may be seen at all.

use std::collections::BTreeMap;
use std::fmt;

/// What a client was doing. A connection that is found closed was told why between two statements, when nobody listened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doing {
    Connect,
    Read,
    Write,
    Begin,
    ReadInTransaction,
    WriteInTransaction,
    Commit,
    Rollback,
}

/// Stands for an SQLSTATE where the connection ended without one.
pub(super) const CLOSED: &str = "closed";

/// Which errors a client may see while servers die, and why. Everything else fails the run.
const ALLOWED: [(Doing, &[&str], &str); 9] = [
    (
        Doing::Connect,
        &["57P03"],
        "no server takes a login: the primary is away for longer than the proxy waits",
    ),
    (
        Doing::Read,
        &["57P03"],
        "only the primary shows what the session must see, and it is away",
    ),
    (
        Doing::Read,
        &["08006", "57P01", "57P02"],
        "it ran on the primary, which went, as only that one shows what the session must see",
    ),
    (
        Doing::Write,
        &["57P03"],
        "the primary is away; it has not happened",
    ),
    (
        Doing::Write,
        &["08006", "57P01", "57P02"],
        "the primary went in the middle of it; whether it has happened is not known",
    ),
    (
        Doing::ReadInTransaction,
        &["08006", "57P01", "57P02", "57P03", CLOSED],
        "a transaction that has a snapshot or has written goes with its server",
    ),
    (
        Doing::WriteInTransaction,
        &["08006", "57P01", "57P02", "57P03", CLOSED],
        "a transaction that has written goes with the primary, or finds none to write on",
    ),
    (
        Doing::Commit,
        &["08006", "57P01", "57P02", CLOSED],
        "the server of the transaction went; whether a write has happened is not known",
    ),
    (
        Doing::Rollback,
        &["08006", "57P01", "57P02", CLOSED],
        "the server of the transaction went, which ends the transaction, too",
    ),
];

/// How often each error was seen, with the text of the first.
#[derive(Debug, Default)]
pub(super) struct Tally {
    errors: BTreeMap<(Doing, String), (usize, String)>,
}

impl Tally {
    pub(super) fn count(&mut self, doing: Doing, code: &str, text: &str) {
        let error = self.errors.entry((doing, code.to_owned()));
        error.or_insert_with(|| (0, text.to_owned())).0 += 1;
    }

    /// Returns the errors that nobody may see.
    pub(super) fn unwanted(&self) -> Vec<String> {
        (self.errors.iter())
            .filter(|((doing, code), _)| why(*doing, code).is_none())
            .map(|((doing, code), (count, text))| {
                format!("{doing:?} {code}, {count} times: {text}")
            })
            .collect()
    }
}

fn why(doing: Doing, code: &str) -> Option<&'static str> {
    let found = (ALLOWED.iter()).find(|(found, codes, _)| *found == doing && codes.contains(&code));
    found.map(|(_, _, why)| *why)
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.errors.is_empty() {
            return write!(f, "no client saw an error");
        }
        write!(f, "errors that clients saw:")?;
        for ((doing, code), (count, text)) in &self.errors {
            let why = why(*doing, code).unwrap_or("NOT ALLOWED");
            let doing = format!("{doing:?}");
            write!(
                f,
                "\n  {count:>5} x {doing:<18} {code:<6} {why}\n{:>11}first: {text}",
                ""
            )?;
        }
        Ok(())
    }
}
