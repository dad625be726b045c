//! What is wrong with a configuration: every problem at once, each with its place.

use std::fmt;
use std::sync::Arc;

/// One problem, with the place that it was found at.
///
/// Displayed as `pgweir.toml:12: [databases.app] pol_size: unknown key; did you mean pool_size?`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigError {
    /// The file's name as it was given, or `--upstream`.
    pub file: Arc<str>,
    /// Line, from 1; 0 where no line is meant.
    pub line: usize,
    /// Column in characters, from 1; 0 where no line is meant.
    pub column: usize,
    /// The table and key, as in `[databases.app] pool_size`; empty where none is meant.
    pub key: String,
    /// What is wrong, without the key.
    pub message: String,
    /// The nearest known name, if one is near enough.
    pub suggestion: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        f.write_str(": ")?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(name) => write!(f, "; did you mean {name}?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

/// All problems of a configuration, in the order of their places. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
