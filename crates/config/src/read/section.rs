//! One table of the file while it is read: each key is taken once, and what is left over at the end is unknown.

use std::cell::RefCell;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pgweir_model::catalog::FunctionName;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::value::{self, Word, Wrong};
use crate::reference::{self, Setting, Table};
use crate::{ConfigError, ConfigErrors, ListenAddress, MaxLag, Secret};

/// The longest file with a password. Chosen: far more than PostgreSQL takes, and too little to do harm.
const PASSWORD_FILE_BYTES_LIMIT: u64 = 64 << 10;

/// What all tables share: the text, the outside, and the problems found so far.
pub(super) struct Reader<'r> {
    text: &'r str,
    file: Arc<str>,
    folder: PathBuf,
    environment: &'r dyn Fn(&str) -> Option<String>,
    problems: RefCell<Vec<ConfigError>>,
}

impl<'r> Reader<'r> {
    pub(super) fn new(
        text: &'r str,
        file_name: &str,
        environment: &'r dyn Fn(&str) -> Option<String>,
    ) -> Self {
        Reader {
            text,
            file: file_name.into(),
            folder: Path::new(file_name)
                .parent()
                .map(Path::to_path_buf)
                .unwrap_or_default(),
            environment,
            problems: RefCell::default(),
        }
    }

    /// Notes a problem at a byte of the text.
    pub(super) fn problem(&self, at: usize, key: String, wrong: Wrong) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        self.problems.borrow_mut().push(ConfigError {
            file: Arc::clone(&self.file),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            key,
            message: wrong.message,
            suggestion: wrong.suggestion,
        });
    }

    /// Notes a problem of the file as a whole.
    pub(super) fn lacks(&self, message: impl Into<String>) {
        self.problems.borrow_mut().push(ConfigError {
            file: Arc::clone(&self.file),
            line: 0,
            column: 0,
            key: String::new(),
            message: message.into(),
            suggestion: None,
        });
    }

    /// Notes a key that is unknown, or known and not built.
    pub(super) fn unknown<'k>(
        &self,
        at: usize,
        table: Option<Table>,
        label: &str,
        key: &str,
        known: impl Iterator<Item = &'k str>,
    ) {
        let place = [label, key].join(" ").trim_start().to_owned();
        let wrong = match reference::is_later(table, key) {
            true => Wrong::new("is not built in this version"),
            false => Wrong::new("unknown key").suggest(reference::nearest(key, known)),
        };
        self.problem(at, place, wrong);
    }

    /// Returns the problems in the order of their places; those of the file as a whole, which often follow from the
    /// others, are last.
    pub(super) fn into_errors(self) -> ConfigErrors {
        let mut problems = self.problems.into_inner();
        problems.sort_by(|left, right| (left.line == 0, left).cmp(&(right.line == 0, right)));
        problems.dedup();
        ConfigErrors(problems)
    }
}

/// One table of the file.
pub(super) struct Section<'r, 'i> {
    reader: &'r Reader<'r>,
    table: Table,
    label: String,
    at: usize,
    /// What was not taken yet.
    left: Vec<(&'r str, usize, &'r Spanned<DeValue<'i>>)>,
}

impl<'r, 'i> Section<'r, 'i> {
    /// Opens a value that should be a table; notes the problem if it is none.
    pub(super) fn of(
        reader: &'r Reader<'r>,
        table: Table,
        label: String,
        at: usize,
        value: &'r Spanned<DeValue<'i>>,
    ) -> Option<Self> {
        let DeValue::Table(entries) = value.get_ref() else {
            let found = value::kind_of(value.get_ref());
            reader.problem(
                at,
                label,
                Wrong::new(format!("expected a table, found {found}")),
            );
            return None;
        };
        Some(Section {
            reader,
            table,
            label,
            at,
            left: entries_of(entries),
        })
    }

    /// Opens a table within this one, if it is there.
    pub(super) fn part(&mut self, key: &'static str, table: Table) -> Option<Self> {
        let value = self.take(key)?;
        let label = format!("{} {key}", self.label);
        Section::of(self.reader, table, label, value.span().start, value)
    }

    /// Stands for a table that is not in the file: all defaults.
    pub(super) fn empty(reader: &'r Reader<'r>, table: Table, label: &str) -> Self {
        Section {
            reader,
            table,
            label: label.to_owned(),
            at: 0,
            left: Vec::new(),
        }
    }

    pub(super) fn reader(&self) -> &'r Reader<'r> {
        self.reader
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// Returns where the table begins.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Returns whether a key was given and not taken yet.
    pub(super) fn has(&self, key: &str) -> bool {
        self.left.iter().any(|(name, ..)| *name == key)
    }

    /// Returns whether anything is left to be taken.
    pub(super) fn has_any(&self) -> bool {
        !self.left.is_empty()
    }

    /// Returns where the value of a key stands that was not taken yet; else where the table begins.
    pub(super) fn place_of(&self, key: &str) -> usize {
        let entry = self.left.iter().find(|(name, ..)| *name == key);
        entry.map_or(self.at, |(_, _, value)| value.span().start)
    }

    /// Notes a problem with one of the keys.
    pub(super) fn problem(&self, at: usize, key: &str, wrong: Wrong) {
        self.reader
            .problem(at, format!("{} {key}", self.label), wrong);
    }

    /// Notes a problem with the table as a whole.
    pub(super) fn whole_problem(&self, at: usize, wrong: Wrong) {
        self.reader.problem(at, self.label.clone(), wrong);
    }

    /// Takes the value of a key.
    pub(super) fn take(&mut self, key: &str) -> Option<&'r Spanned<DeValue<'i>>> {
        let index = self.left.iter().position(|(name, ..)| *name == key)?;
        Some(self.left.swap_remove(index).2)
    }

    /// Notes every key that nobody took.
    pub(super) fn finish(self) {
        let known = || reference::of(self.table).map(|setting| setting.key);
        for (key, at, _) in self.left {
            self.reader
                .unknown(at, Some(self.table), &self.label, key, known());
        }
    }

    /// Takes a setting, or its default where it is not given.
    fn get<T>(
        &mut self,
        key: &str,
        convert: impl Fn(&Setting, &DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<T> {
        let given = self.take(key);
        let Some(setting) = reference::find(self.table, key) else {
            // Our slip, and the tests that read every key would show it; still no reason to go on as if all were well.
            self.problem(
                self.at,
                key,
                Wrong::new("is missing from the table of settings"),
            );
            return None;
        };
        let (at, converted) = match (given, setting.default) {
            (Some(value), _) => (value.span().start, convert(setting, value.get_ref())),
            (None, None) => return None,
            (None, Some(default)) => match DeValue::parse(default) {
                Ok(value) => (self.at, convert(setting, value.get_ref())),
                Err(error) => (self.at, Err(Wrong::new(error.message().to_owned()))),
            },
        };
        converted.map_err(|wrong| self.problem(at, key, wrong)).ok()
    }

    /// Takes a setting that must be given.
    pub(super) fn required<T>(
        &mut self,
        key: &str,
        convert: impl Fn(&Setting, &DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<T> {
        if !self.has(key) {
            self.problem(self.at, key, Wrong::new("missing"));
        }
        self.get(key, convert)
    }

    /// Takes a setting that may be absent.
    pub(super) fn optional<T>(
        &mut self,
        key: &str,
        convert: impl Fn(&Setting, &DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<T> {
        self.get(key, convert)
    }

    pub(super) fn integer<T: TryFrom<u32> + Default>(&mut self, key: &str) -> T {
        self.get(key, value::integer).unwrap_or_default()
    }

    pub(super) fn size<T: TryFrom<u64> + Default>(&mut self, key: &str) -> T {
        self.get(key, value::size).unwrap_or_default()
    }

    pub(super) fn duration(&mut self, key: &str) -> Duration {
        self.get(key, value::duration).unwrap_or_default()
    }

    pub(super) fn duration_or_off(&mut self, key: &str) -> Option<Duration> {
        Some(self.duration(key)).filter(|duration| !duration.is_zero())
    }

    pub(super) fn max_lag(&mut self, key: &str) -> MaxLag {
        self.get(key, |_, value| value::max_lag(value))
            .unwrap_or(MaxLag::Bytes(0))
    }

    pub(super) fn name(&mut self, key: &str) -> Option<Arc<str>> {
        self.get(key, |_, value| value::name(value))
    }

    pub(super) fn names(&mut self, key: &str) -> Vec<Arc<str>> {
        self.get(key, |_, value| value::names(value))
            .unwrap_or_default()
    }

    pub(super) fn word<T: Word>(&mut self, key: &str) -> T {
        self.get(key, value::word).unwrap_or(T::FIRST)
    }

    pub(super) fn functions(&mut self, key: &str) -> Vec<FunctionName> {
        self.get(key, |_, value| value::functions(value))
            .unwrap_or_default()
    }

    pub(super) fn listen(&mut self, key: &str) -> Vec<ListenAddress> {
        self.get(key, |_, value| value::listen(value))
            .unwrap_or_default()
    }

    /// Takes a password: in the text, in the environment, or in a file.
    pub(super) fn secret(&mut self, key: &str, file_key: &str) -> Option<Secret> {
        let at = self.place_of(key);
        let twice = self.has(key) && self.has(file_key);
        let (environment, folder) = (self.reader.environment, self.reader.folder.clone());
        let given = self.get(key, |_, value| value::password(value, environment));
        let filed = self.get(file_key, |_, value| {
            let path = folder.join(value::text(value)?);
            let text = password_in(&path)
                .map_err(|error| Wrong::new(format!("{}: {error}", path.display())))?;
            value::checked_password(text.trim_end_matches(['\r', '\n']))
        });
        if twice {
            self.problem(
                at,
                key,
                Wrong::new(format!("given together with {file_key}; keep one")),
            );
        }
        given.or(filed)
    }
}

/// Reads a file with a password. What is no file, as a pipe or a terminal, may never end or never answer.
fn password_in(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    let mut text = String::new();
    let file = fs::File::open(path)?;
    file.take(PASSWORD_FILE_BYTES_LIMIT + 1)
        .read_to_string(&mut text)?;
    match u64::try_from(text.len()) {
        Ok(length) if length <= PASSWORD_FILE_BYTES_LIMIT => Ok(text),
        _ => Err(io::Error::other(format!(
            "is longer than {} KiB, which no password is",
            PASSWORD_FILE_BYTES_LIMIT >> 10
        ))),
    }
}

fn entries_of<'r, 'i>(table: &'r DeTable<'i>) -> Vec<(&'r str, usize, &'r Spanned<DeValue<'i>>)> {
    table
        .iter()
        .map(|(key, value)| (&**key.get_ref(), key.span().start, value))
        .collect()
}
