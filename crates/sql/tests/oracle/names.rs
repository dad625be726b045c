//! The names of `pg_catalog`, read from a file that was made of PostgreSQL's own bootstrap file.

use std::collections::BTreeSet;

use crate::tree::Name;

/// What is built in.
#[derive(Debug)]
pub(crate) struct Catalog {
    operators: BTreeSet<&'static str>,
    types: BTreeSet<&'static str>,
    stable: BTreeSet<&'static str>,
}

/// Functions that are newer than the file, and those that are volatile but harmless on a replica.
const MORE_FUNCTIONS: &[&str] = &[
    "any_value",
    "array_reverse",
    "array_sort",
    "casefold",
    "clock_timestamp",
    "gen_random_uuid",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "random",
    "random_normal",
    "system_user",
    "timeofday",
    "uuidv4",
    "uuidv7",
];

/// What the grammar makes of its own syntax. All of it is immutable or stable.
const MADE: &[&str] = &[
    "btrim",
    "extract",
    "is_normalized",
    "json_object",
    "like_escape",
    "ltrim",
    "normalize",
    "overlaps",
    "overlay",
    "pg_collation_for",
    "position",
    "rtrim",
    "similar_to_escape",
    "substring",
    "system_user",
    "timezone",
    "xmlexists",
];

impl Catalog {
    pub(crate) fn load() -> Self {
        let part = |title: &str| {
            let file = include_str!("catalog.txt");
            let (_, rest) = file.split_once(&format!("\n[{title}]\n")).unwrap();
            let part = rest.split_once("\n[").map_or(rest, |(part, _)| part);
            part.split_whitespace().collect::<BTreeSet<_>>()
        };
        Catalog {
            operators: part("operators"),
            types: part("types"),
            stable: part("stable"),
        }
    }

    pub(crate) fn knows_operator(&self, name: &Name) -> bool {
        built_in(name) && self.operators.contains(name.1.as_str())
    }

    pub(crate) fn knows_type(&self, name: &Name) -> bool {
        // The grammar itself writes `interval` and the like with their schema.
        built_in(name) && self.types.contains(name.1.as_str())
    }

    /// Whether a function is built in and not volatile, or harmless though it is.
    pub(crate) fn allows_function(&self, name: &Name) -> bool {
        let known = |name: &str| self.stable.contains(name) || MORE_FUNCTIONS.contains(&name);
        built_in(name) && known(&name.1)
    }
}

/// Whether a function that the grammar made may run on a replica. `TREAT(a AS t)` makes one named like a type.
pub(crate) fn is_harmless_syntax(name: &str) -> bool {
    MADE.contains(&name)
}

fn built_in(name: &Name) -> bool {
    name.0
        .as_deref()
        .is_none_or(|schema| schema == "pg_catalog")
}
