//! `[[rules]]`: what an operator says about statements, by who sends them and what they are.
//!
//! Plain data as everything here, but for [`Pattern`], which is compiled when the file is read: whether a pattern is one is a
//! question of the file.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pgweir_model::Consistency;

use crate::settings::MaxLag;
use crate::units::{format_duration, format_size};

/// Most rules of a file. Chosen: more than people write, and each new statement shape is held against all of them.
pub(crate) const RULES_LIMIT: usize = 1000;

/// One entry of `[[rules]]`. The first whose `match` holds wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it is called in `EXPLAIN ROUTE`, in the logs and in errors: `name`, or its number in the file, from 1.
    pub name: Arc<str>,
    /// When it holds.
    pub matches: RuleMatch,
    /// What follows.
    pub action: RuleAction,
}

/// `match`: all that is given must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleMatch {
    /// The role that the client logged in as.
    pub user: Option<Arc<str>>,
    /// The database as the client named it.
    pub database: Option<Arc<str>>,
    /// The `application_name` of its startup packet.
    pub application: Option<Arc<str>>,
    /// The statement names one of these. Empty where nothing is asked.
    pub tables: Vec<TableName>,
    /// It is found in the statement's shape.
    pub regex: Option<Pattern>,
    /// That of the statement's shape.
    pub fingerprint: Option<u64>,
    /// The statement, or one of a text of several, is of this kind.
    pub kind: Option<RuleKind>,
}

/// `action`: something is always given, and `block` stands alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleAction {
    /// Where the statement goes.
    pub route: Option<RuleRoute>,
    /// How stale a replica may be.
    pub max_lag: Option<MaxLag>,
    /// What it may see.
    pub consistency: Option<Consistency>,
    /// How long its batch may run on a server.
    pub timeout: Option<Duration>,
    /// It is refused with this message.
    pub block: Option<Arc<str>>,
}

/// The value of `route`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleRoute {
    /// As the statement is classified; later rules are not asked.
    Auto,
    /// The primary.
    Primary,
    /// A replica.
    Replica,
    /// The backend of this name.
    Backend(Arc<str>),
}

/// A table as PostgreSQL folds its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName {
    /// The schema; `None` is any.
    pub schema: Option<Box<str>>,
    /// The table.
    pub name: Box<str>,
}

/// A regular expression; equal where the texts are.
#[derive(Debug, Clone)]
pub struct Pattern(regex::bytes::Regex);

impl Pattern {
    pub(crate) fn new(text: &str) -> Result<Self, regex::Error> {
        regex::bytes::Regex::new(text).map(Pattern)
    }

    /// Returns it compiled.
    pub fn regex(&self) -> &regex::bytes::Regex {
        &self.0
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

/// Defines the kinds with the words that name them in the file.
macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// What a statement is by its leading words.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum RuleKind { $($(#[$doc])* $variant,)* }

        impl RuleKind {
            /// Every value, in order of declaration.
            pub const ALL: &'static [RuleKind] = &[$(RuleKind::$variant,)*];

            /// Returns the word that stands for it in the file.
            pub fn name(self) -> &'static str {
                match self { $(RuleKind::$variant => $text,)* }
            }
        }
    };
}

kinds! {
    /// `SELECT`, `VALUES`, `TABLE`.
    Select = "select",
    /// `INSERT`.
    Insert = "insert",
    /// `UPDATE`.
    Update = "update",
    /// `DELETE`.
    Delete = "delete",
    /// `MERGE`.
    Merge = "merge",
    /// `COPY` in either direction.
    Copy = "copy",
    /// `CALL`.
    Call = "call",
    /// `DO`.
    Do = "do",
    /// A change of the schema or of rights.
    Ddl = "ddl",
}

/// Returns a name as it is written to be read back as it is: in double quotes where the server would fold or refuse it.
pub(crate) fn identifier(name: &str) -> Cow<'_, str> {
    let begins_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let of_a_name =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '$');
    match begins_well && name.chars().all(of_a_name) {
        true => Cow::Borrowed(name),
        false => Cow::Owned(format!("\"{}\"", name.replace('"', "\"\""))),
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{}.{}", identifier(schema), identifier(&self.name)),
            None => f.write_str(&identifier(&self.name)),
        }
    }
}

impl fmt::Display for RuleRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RuleRoute::Auto => "auto",
            RuleRoute::Primary => "primary",
            RuleRoute::Replica => "replica",
            RuleRoute::Backend(name) => name,
        })
    }
}

/// The parts that are there, as `key = value`.
fn put(f: &mut fmt::Formatter<'_>, parts: &[(&str, Option<String>)]) -> fmt::Result {
    let mut separator = "";
    for (key, value) in parts {
        if let Some(value) = value {
            write!(f, "{separator}{key} = {value}")?;
            separator = ", ";
        }
    }
    Ok(())
}

impl fmt::Display for RuleMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RuleMatch {
            user,
            database,
            application,
            tables,
            regex,
            fingerprint,
            kind,
        } = self;
        let text = |value: &Option<Arc<str>>| value.as_ref().map(|value| format!("{value:?}"));
        let tables: Vec<_> = tables.iter().map(TableName::to_string).collect();
        put(
            f,
            &[
                ("user", text(user)),
                ("database", text(database)),
                ("application", text(application)),
                (
                    "tables",
                    (!tables.is_empty()).then(|| format!("{tables:?}")),
                ),
                (
                    "regex",
                    regex
                        .as_ref()
                        .map(|regex| format!("{:?}", regex.0.as_str())),
                ),
                (
                    "fingerprint",
                    fingerprint.map(|fingerprint| format!("{fingerprint:016x}")),
                ),
                ("kind", kind.map(|kind| kind.name().to_owned())),
            ],
        )
    }
}

impl fmt::Display for RuleAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RuleAction {
            route,
            max_lag,
            consistency,
            timeout,
            block,
        } = self;
        let max_lag = max_lag.map(|limit| match limit {
            MaxLag::Time(duration) => format_duration(duration),
            MaxLag::Bytes(bytes) => format_size(bytes),
        });
        put(
            f,
            &[
                ("route", route.as_ref().map(RuleRoute::to_string)),
                ("max_lag", max_lag),
                ("consistency", consistency.map(|word| word.to_string())),
                ("timeout", timeout.map(format_duration)),
                (
                    "block",
                    block.as_ref().map(|message| format!("{message:?}")),
                ),
            ],
        )
    }
}
