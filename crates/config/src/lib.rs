//! Configuration: TOML text, or upstream URLs, to a validated immutable snapshot.
//!
//! Every problem of a file is reported at once, each with file, line, key and the nearest known name. The one table of
//! all settings is [`mod@reference`]: the reader, the documentation and the default file are made from it.
//! A [`Config`] never changes: a reload makes a new one, and [`diff()`] says what it takes over. What changes is the
//! [`Document`] that a running proxy keeps: the text of its file.
#![forbid(unsafe_code)]

pub mod diff;
pub mod document;
pub mod edit;
pub mod error;
pub mod reference;
pub mod rules;
pub mod secret;
pub mod settings;
pub mod units;

mod read;
mod upstream;

pub use diff::{Change, diff, take_over};
pub use document::{Document, EditError, FileError, Origin, Overrides};
pub use edit::{Edit, Section, SettingRow, SettingSource};
pub use error::{ConfigError, ConfigErrors};
pub use read::{load, log_level, parse};
pub use rules::{Pattern, Rule, RuleAction, RuleKind, RuleMatch, RuleRoute, TableName};
pub use secret::Secret;
pub use settings::{
    Admin, Auth, AuthMethod, Backend, BackendRole, Balance, Breaker, Cluster, Config, Database,
    ForeignTables, Http, ListenAddress, Log, LogFormat, LoggedStatements, MaxLag, PinReads,
    PoolMode, PrimaryReads, Server, Splitting, Telemetry, TransactionReads, User,
};
pub use upstream::from_upstreams;

pub use pgweir_model::Consistency;
