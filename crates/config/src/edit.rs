//! Changes of a configuration, setting by setting, as the console makes them.

use std::fmt;

use crate::reference::Table;

/// A table of the file, by what tells it from others of its kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Section {
    /// A table that stands once.
    Single(Table),
    /// `[clusters.X]`
    Cluster(String),
    /// An entry of `backends` in `[clusters.X]`, by its name.
    Backend(String, String),
    /// `[clusters.X.breaker]`
    Breaker(String),
    /// `[databases.X]`
    Database(String),
    /// An entry of `[[users]]`, by its name.
    User(String),
    /// An entry of `[[rules]]`, by its number from 1.
    Rule(usize),
    /// Its `match`.
    RuleMatch(usize),
    /// Its `action`.
    RuleAction(usize),
}

impl Section {
    /// Returns whose settings it holds.
    pub fn table(&self) -> Table {
        match self {
            Section::Single(table) => *table,
            Section::Cluster(_) => Table::Cluster,
            Section::Backend(..) => Table::Backend,
            Section::Breaker(_) => Table::Breaker,
            Section::Database(_) => Table::Database,
            Section::User(_) => Table::User,
            Section::Rule(_) => Table::Rule,
            Section::RuleMatch(_) => Table::RuleMatch,
            Section::RuleAction(_) => Table::RuleAction,
        }
    }
}

/// The path of the table, as in `clusters.main.backends.pg1` and `rules.1.match`.
impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Section::Single(table) => f.write_str(table.name()),
            Section::Cluster(name) => write!(f, "clusters.{name}"),
            Section::Backend(cluster, name) => write!(f, "clusters.{cluster}.backends.{name}"),
            Section::Breaker(cluster) => write!(f, "clusters.{cluster}.breaker"),
            Section::Database(name) => write!(f, "databases.{name}"),
            Section::User(name) => write!(f, "users.{name}"),
            Section::Rule(number) => write!(f, "rules.{number}"),
            Section::RuleMatch(number) => write!(f, "rules.{number}.match"),
            Section::RuleAction(number) => write!(f, "rules.{number}.action"),
        }
    }
}

/// One change.
///
/// Several that are made together are made as one statement of SQL is: their sections are those of the configuration
/// before all of them. Settings are set first, then entries are taken out, then others are added, each at its number
/// among those that are there by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Gives a setting another value; `None` takes it out, so that its default holds.
    Set {
        /// Where.
        section: Section,
        /// Which.
        key: String,
        /// What, as people write it: `500ms`, `20`, `replica`, `a, b` for a list.
        value: Option<String>,
    },
    /// Adds a user, or a rule: behind all others, or at its number.
    Insert {
        /// `User`, `Rule`.
        section: Section,
        /// Its settings; those of a rule's `match` and `action` stand as `match.user`, `action.route`.
        values: Vec<(String, String)>,
    },
    /// Takes a user or a rule out.
    Delete {
        /// Which.
        section: Section,
    },
}

/// Where the value of a setting comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingSource {
    /// Nobody gave one.
    Default,
    /// The file.
    File,
    /// The command line or the environment.
    CommandLine,
    /// The console, and it is not saved.
    Console,
}

impl SettingSource {
    /// Returns its name in the console.
    pub fn name(self) -> &'static str {
        match self {
            SettingSource::Default => "default",
            SettingSource::File => "file",
            SettingSource::CommandLine => "command line",
            SettingSource::Console => "console",
        }
    }
}

/// One setting as the console shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingRow {
    /// Its table.
    pub section: Section,
    /// The path of its table, as in `server`, `clusters.main`, `clusters.main.backends.pg1`, `databases.app`, `rules.1.match`.
    pub path: String,
    /// Its name.
    pub name: &'static str,
    /// Its value as people write it; `None` where it has none. Secrets are `***`.
    pub value: Option<String>,
    /// What the running proxy uses, where that is another one until a restart.
    pub running: Option<String>,
    /// The unit of a bare number: always empty, as a duration or a size without its unit is refused.
    pub unit: &'static str,
    /// What it takes, in words.
    pub takes: String,
    /// The value that holds where none is given.
    pub default: Option<&'static str>,
    /// Who gave it.
    pub source: SettingSource,
    /// Whether the running proxy can take another value.
    pub is_changeable: bool,
    /// Whether it has been changed and holds only after a restart.
    pub needs_restart: bool,
    /// What it means.
    pub about: &'static str,
}
