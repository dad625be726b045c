//! The configuration of a running proxy as something that can be changed and saved.
//!
//! ## Why
//! What an operator changes on the console must be what the file could say, and what is saved must be the file that people
//! wrote, with its comments and its order. So a [`Document`] is the text of the file: a change is a change of the text, read
//! by the same reader that reads the file, and there is no second way to a [`Config`].
//!
//! What the command line puts in place of the file's settings lies above the text and is never written to it.
//!
//! ## Limits
//! A change reads the whole text again, and with it what stands in the environment and in password files by then.

mod layout;
mod notation;
mod rows;
mod save;

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::layout::{Layout, Step};
use self::notation::notation;
use self::save::{failed, replace};
use crate::edit::{Edit, Section};
use crate::reference::{self, Kind, Table};
use crate::settings::{Config, ListenAddress};
use crate::upstream::text_of_upstreams;
use crate::{Change, ConfigError, ConfigErrors, diff, parse};

/// Where a configuration comes from.
#[derive(Clone)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// Upstream URLs: there is no file.
    Upstreams(Vec<String>),
}

/// What the command line puts in place of the file's settings.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `server.listen`
    pub listen: Option<ListenAddress>,
    /// `server.workers`
    pub workers: Option<u16>,
    /// `log.level`
    pub log_level: Option<Arc<str>>,
}

/// The text of a configuration, valid at every moment, with where it comes from and what has been changed since.
#[derive(Clone)]
pub struct Document {
    origin: Origin,
    overrides: Overrides,
    /// With all changes.
    text: String,
    config: Arc<Config>,
    /// As it was read or saved last.
    saved: String,
    saved_config: Arc<Config>,
}

/// A change that is not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// There is no such table.
    #[error("there is no {section}{}", did_you_mean(.nearest.as_deref()))]
    UnknownSection {
        /// The path that was asked for.
        section: Section,
        /// The nearest name of such a table.
        nearest: Option<String>,
    },
    /// There is no such setting.
    #[error("{section} has no setting {key}{}", did_you_mean(.nearest.as_deref()))]
    UnknownSetting {
        /// The table.
        section: Section,
        /// The name that was asked for.
        key: String,
        /// The nearest one that there is.
        nearest: Option<String>,
    },
    /// It is a table or a list of tables, whose settings are changed one by one.
    #[error("{section}.{key} is not one value; the settings in it are changed one by one")]
    NotOneValue {
        /// The table.
        section: Section,
        /// The setting.
        key: String,
    },
    /// Only users and rules come and go.
    #[error("{section} is neither a user nor a rule; others are added and taken out in the file")]
    NotMovable {
        /// The table.
        section: Section,
    },
    /// What stands for a secret that is not shown was given for a secret.
    #[error("{section}.{key}: *** stands for a secret that is not shown, and is none itself")]
    Hidden {
        /// The table.
        section: Section,
        /// The setting.
        key: String,
    },
    /// The command line stands above it, so that a change would be without effect.
    #[error("{section}.{key} is given on the command line, which stands above the file")]
    Overridden {
        /// The table.
        section: Section,
        /// The setting.
        key: String,
    },
    /// The file as it would be says something wrong.
    #[error("{}", said(.0))]
    Invalid(ConfigErrors),
}

impl EditError {
    /// Returns what is wrong, of several things the first, without the nearest name.
    pub fn message(&self) -> String {
        match self {
            EditError::UnknownSection { section, .. } => format!("there is no {section}"),
            EditError::UnknownSetting { section, key, .. } => {
                format!("{section} has no setting {key}")
            }
            EditError::Invalid(errors) => errors.0.first().map(problem).unwrap_or_default(),
            other => other.to_string(),
        }
    }

    /// Returns what else is wrong.
    pub fn others(&self) -> Vec<String> {
        match self {
            EditError::Invalid(errors) => errors.0.iter().skip(1).map(problem).collect(),
            _ => Vec::new(),
        }
    }

    /// Returns the nearest known name of the first problem.
    pub fn nearest(&self) -> Option<&str> {
        match self {
            EditError::UnknownSection { nearest, .. }
            | EditError::UnknownSetting { nearest, .. } => nearest.as_deref(),
            EditError::Invalid(errors) => errors.0.first()?.suggestion.as_deref(),
            EditError::NotOneValue { .. }
            | EditError::NotMovable { .. }
            | EditError::Hidden { .. }
            | EditError::Overridden { .. } => None,
        }
    }
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

/// Says what is wrong without the line: that is one of a text that nobody sees.
fn problem(error: &ConfigError) -> String {
    let colon = if error.key.is_empty() { "" } else { ": " };
    format!("{}{colon}{}", error.key, error.message)
}

fn said(errors: &ConfigErrors) -> String {
    let line = |error: &ConfigError| {
        format!(
            "{}{}",
            problem(error),
            did_you_mean(error.suggestion.as_deref())
        )
    };
    let lines: Vec<_> = errors.0.iter().map(line).collect();
    lines.join("; ")
}

/// The file cannot be read, compared or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The configuration came from the command line.
    #[error("there is no file: the servers were named on the command line")]
    NoFile,
    /// Somebody else has written it: what they wrote would be lost.
    #[error("{} has been changed since it was read; RELOAD takes over what it says now", path.display())]
    ChangedMeanwhile {
        /// The file.
        path: PathBuf,
    },
    /// It has errors, or cannot be read.
    #[error("{0}")]
    Invalid(#[from] ConfigErrors),
    /// The operating system refused.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Of what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// Never shows the text: it holds passwords.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("origin", &self.origin)
            .field("overrides", &self.overrides)
            .field("is_edited", &self.is_edited())
            .finish_non_exhaustive()
    }
}

/// Never shows the URLs: they hold passwords.
impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path) => f.debug_tuple("File").field(path).finish(),
            Origin::Upstreams(urls) => write!(f, "Upstreams({})", urls.len()),
        }
    }
}

impl Document {
    /// Reads and validates what a proxy starts with.
    ///
    /// # Errors
    /// All problems of the file or of the URLs, or that the file cannot be read.
    pub fn load(origin: Origin, overrides: Overrides) -> Result<Document, ConfigErrors> {
        let text = match &origin {
            Origin::File(path) => crate::read::text_of(path)?,
            Origin::Upstreams(urls) => text_of_upstreams(urls)?,
        };
        let config = Arc::new(read(&origin, &overrides, &text)?);
        Ok(Document {
            saved: text.clone(),
            saved_config: Arc::clone(&config),
            origin,
            overrides,
            text,
            config,
        })
    }

    /// Returns the configuration that it says, with what the command line puts in place of some of it.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Returns the text as it would be saved.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        match &self.origin {
            Origin::File(path) => Some(path),
            Origin::Upstreams(_) => None,
        }
    }

    /// Returns whether something was changed and not saved.
    pub fn is_edited(&self) -> bool {
        self.text != self.saved
    }

    /// Returns whether this is still the document that another one was copied from: not changed, read or saved since.
    pub fn is_still(&self, copy: &Document) -> bool {
        Arc::ptr_eq(&self.config, &copy.config)
            && Arc::ptr_eq(&self.saved_config, &copy.saved_config)
    }

    /// Returns what was changed since it was read or saved last.
    pub fn unsaved(&self) -> Vec<Change> {
        diff(&self.saved_config, &self.config)
    }

    /// Returns the document with changes, all of them or none; see [`Edit`] for what several mean together.
    ///
    /// # Errors
    /// [`EditError`]: what is wrong with the first that is, or with the whole that they make.
    ///
    /// # Examples
    /// ```
    /// use pgweir_config::{Document, Edit, Origin, Overrides, Section};
    ///
    /// let urls = vec!["postgres://app:secret@pg1,pg2/app".to_owned()];
    /// let document = Document::load(Origin::Upstreams(urls), Overrides::default()).unwrap();
    /// let edit = Edit::Set {
    ///     section: Section::Backend("main".to_owned(), "pg2:5432".to_owned()),
    ///     key: "weight".to_owned(),
    ///     value: Some("0".to_owned()),
    /// };
    /// let edited = document.edited(&[edit]).unwrap();
    /// assert_eq!(edited.config().clusters[0].backends[1].weight, 0);
    /// ```
    pub fn edited(&self, edits: &[Edit]) -> Result<Document, EditError> {
        let (mut text, left) = self.set_in_place(edits);
        for edit in left {
            if let Edit::Set {
                section,
                key,
                value,
            } = edit
            {
                text = self.set(&text, section, key, value.as_deref())?;
                text = self.without_twin(text, section, key, edits);
            }
        }
        text = self.delete(text, edits)?;
        for edit in edits {
            if let Edit::Insert { section, values } = edit {
                text = insert(&text, section, values)?;
            }
        }
        let config = read(&self.origin, &self.overrides, &text).map_err(EditError::Invalid)?;
        Ok(Document {
            text,
            config: Arc::new(config),
            ..self.clone()
        })
    }

    /// Gives all those settings their values that need nothing but another value where one stands, in one go: each of the
    /// others is looked up in a text of its own, which is slow for thousands. Returns the text and the others.
    fn set_in_place<'e>(&self, edits: &'e [Edit]) -> (String, Vec<&'e Edit>) {
        let Some(layout) = Layout::of(&self.text) else {
            return (self.text.clone(), edits.iter().collect());
        };
        let mut given = HashSet::new();
        let (mut values, mut left) = (Vec::new(), Vec::new());
        for edit in edits {
            let place = match edit {
                Edit::Set { section, key, .. } if given.insert((section, key)) => {
                    self.place_of_value(&layout, edit)
                }
                // The last one holds, and is made behind all others.
                _ => None,
            };
            match place {
                Some(place) => values.push(place),
                None => left.push(edit),
            }
        }
        (layout.with_all(values), left)
    }

    /// Returns where the value stands that an edit replaces, and what comes there; `None` where there is more to it.
    fn place_of_value(&self, layout: &Layout<'_>, edit: &Edit) -> Option<(Range<usize>, String)> {
        let Edit::Set {
            section,
            key,
            value: Some(value),
        } = edit
        else {
            return None;
        };
        let kind = kind_of(section, key).ok()?;
        let is_more = matches!(
            kind,
            Kind::Part | Kind::Backends | Kind::Password | Kind::Path
        );
        if is_more || self.is_overridden(section, key) {
            return None;
        }
        let path = path_of(&self.config, section)?;
        let place = layout.span(&path, key)?;
        Some((place, notation(kind, value, layout.value(&path, key))))
    }

    fn set(
        &self,
        text: &str,
        section: &Section,
        key: &str,
        value: Option<&str>,
    ) -> Result<String, EditError> {
        let path = path_of(&self.config, section).ok_or_else(|| self.unknown(section))?;
        let kind = kind_of(section, key)?;
        let not_one_value = || EditError::NotOneValue {
            section: section.clone(),
            key: key.to_owned(),
        };
        if matches!(kind, Kind::Part | Kind::Backends) {
            return Err(not_one_value());
        }
        if self.is_overridden(section, key) {
            let (section, key) = (section.clone(), key.to_owned());
            return Err(EditError::Overridden { section, key });
        }
        if kind == Kind::Password && value == Some(HIDDEN) {
            let (section, key) = (section.clone(), key.to_owned());
            return Err(EditError::Hidden { section, key });
        }
        let layout = Layout::of(text).ok_or_else(not_one_value)?;
        let new = match value {
            Some(value) => {
                let value = notation(kind, value, layout.value(&path, key));
                layout.set(&path, key, &value)
            }
            None if layout.has(&path, key) => layout.remove(&path, key),
            None => Some(text.to_owned()),
        };
        new.ok_or_else(not_one_value)
    }

    /// Takes out what gave a secret the other way, `password_file` for `password`: both together are refused, and where there
    /// is to be none, neither may stay.
    fn without_twin(&self, text: String, section: &Section, key: &str, edits: &[Edit]) -> String {
        let twin = match key.strip_suffix("_file") {
            Some(key) => key.to_owned(),
            None => format!("{key}_file"),
        };
        let is_given = edits.iter().any(|edit| {
            matches!(edit, Edit::Set { section: other, key, value: Some(_) } if other == section && *key == twin)
        });
        if is_given || reference::find(section.table(), &twin).is_none() {
            return text;
        }
        let path = path_of(&self.config, section);
        let without = path.and_then(|path| Layout::of(&text)?.remove(&path, &twin));
        without.unwrap_or(text)
    }

    /// Takes users and rules out, from the last on, so that the places of the others hold.
    fn delete(&self, mut text: String, edits: &[Edit]) -> Result<String, EditError> {
        let mut places = Vec::new();
        for edit in edits {
            if let Edit::Delete { section } = edit {
                if !matches!(section, Section::User(_) | Section::Rule(_)) {
                    let section = section.clone();
                    return Err(EditError::NotMovable { section });
                }
                let path = path_of(&self.config, section);
                let Some([Step::Entry(list, index)]) = path.as_deref() else {
                    return Err(self.unknown(section));
                };
                places.push((section, *list, *index));
            }
        }
        places.sort_by_key(|(_, _, index)| std::cmp::Reverse(*index));
        places.dedup();
        let layout = Layout::of(&text);
        let cuts = layout.and_then(|layout| {
            let lists: Option<Vec<_>> = (places.iter())
                .map(|(_, list, index)| layout.cuts(list, *index))
                .collect();
            let cuts = lists?.into_iter().flatten();
            Some(layout.with_all(cuts.map(|cut| (cut, String::new())).collect()))
        });
        if let Some(without) = cuts {
            return Ok(without);
        }
        for (section, list, index) in places {
            let without = Layout::of(&text).and_then(|layout| layout.delete(list, index));
            text = without.ok_or_else(|| self.unknown(section))?;
        }
        Ok(text)
    }

    fn unknown(&self, section: &Section) -> EditError {
        EditError::UnknownSection {
            section: section.clone(),
            nearest: nearest_section(&self.config, section).map(str::to_owned),
        }
    }

    /// Returns whether the command line stands above a setting.
    fn is_overridden(&self, section: &Section, key: &str) -> bool {
        match (section, key) {
            (Section::Single(Table::Server), "listen") => self.overrides.listen.is_some(),
            (Section::Single(Table::Server), "workers") => self.overrides.workers.is_some(),
            (Section::Single(Table::Log), "level") => self.overrides.log_level.is_some(),
            _ => false,
        }
    }

    /// Reads the file anew. What was changed and not saved is gone.
    ///
    /// # Errors
    /// [`FileError::NoFile`] and [`FileError::Invalid`]; the document that there is stays good.
    pub fn reread(&self) -> Result<Document, FileError> {
        match &self.origin {
            Origin::File(_) => Ok(Document::load(self.origin.clone(), self.overrides.clone())?),
            Origin::Upstreams(_) => Err(FileError::NoFile),
        }
    }

    /// Writes the text to its file: whole or not at all, with the rights that the file has.
    ///
    /// # Errors
    /// [`FileError`]; the file is as it was.
    pub fn save(&mut self) -> Result<PathBuf, FileError> {
        let path = self.path().ok_or(FileError::NoFile)?;
        // A link stays one: what it points to is replaced.
        let path = fs::canonicalize(path).map_err(failed("find", path))?;
        let on_disk = fs::read_to_string(&path).map_err(failed("read", &path))?;
        if on_disk != self.saved {
            return Err(FileError::ChangedMeanwhile { path });
        }
        if self.is_edited() {
            replace(&path, &self.text)?;
        }
        self.saved.clone_from(&self.text);
        self.saved_config = Arc::clone(&self.config);
        Ok(path)
    }

    /// Returns what differs between the file as it is now, on the left, and what runs: what was changed and not saved, what
    /// stands in the file and was not read again, and what waits for a restart.
    ///
    /// # Errors
    /// [`FileError::NoFile`] and [`FileError::Invalid`].
    pub fn diff_with_file(&self, running: &Config) -> Result<Vec<Change>, FileError> {
        let file = self.reread()?;
        let mut changes = diff(&file.config, running);
        // Such as was changed here and waits for a restart: the proxy runs with what the file says.
        let waiting = diff(&file.config, &self.config);
        for change in waiting {
            if !changes.iter().any(|other| other.key == change.key) {
                changes.push(change);
            }
        }
        Ok(changes)
    }
}

/// What stands for a secret where it is shown.
const HIDDEN: &str = "***";

/// Reads a text as the file is read, and lays what the command line says above it.
fn read(origin: &Origin, overrides: &Overrides, text: &str) -> Result<Config, ConfigErrors> {
    let name = match origin {
        Origin::File(path) => path.display().to_string(),
        Origin::Upstreams(_) => "--upstream".to_owned(),
    };
    let mut config = parse(text, &name)?;
    let Overrides {
        listen,
        workers,
        log_level,
    } = overrides;
    if let Some(listen) = listen {
        config.server.listen = vec![listen.clone()];
    }
    if let Some(workers) = workers {
        config.server.workers = *workers;
    }
    if let Some(level) = log_level {
        config.log.level = Arc::clone(level);
    }
    Ok(config)
}

fn kind_of(section: &Section, key: &str) -> Result<Kind, EditError> {
    let table = section.table();
    let known = reference::find(table, key).map(|setting| setting.kind);
    known.ok_or_else(|| {
        let keys = reference::of(table).map(|setting| setting.key);
        EditError::UnknownSetting {
            section: section.clone(),
            key: key.to_owned(),
            nearest: reference::nearest(key, keys).map(str::to_owned),
        }
    })
}

/// Adds a user or a rule.
fn insert(text: &str, section: &Section, values: &[(String, String)]) -> Result<String, EditError> {
    let not_movable = || EditError::NotMovable {
        section: section.clone(),
    };
    let layout = Layout::of(text).ok_or_else(not_movable)?;
    let (written, index) = match section {
        Section::User(name) => {
            let mut values = values.to_vec();
            if !values.iter().any(|(key, _)| key == "name") {
                values.insert(0, ("name".to_owned(), name.clone()));
            }
            (written(section, &values)?, usize::MAX)
        }
        Section::Rule(number) => {
            let (inner, own): (Vec<_>, Vec<_>) = values
                .iter()
                .cloned()
                .partition(|(key, _)| key.contains('.'));
            let mut all = written(section, &own)?;
            for (name, part) in [
                ("match", Section::RuleMatch(*number)),
                ("action", Section::RuleAction(*number)),
            ] {
                let of_part = |(key, value): &(String, String)| {
                    let (table, key) = key.split_once('.')?;
                    (table == name).then(|| (key.to_owned(), value.clone()))
                };
                let values: Vec<_> = inner.iter().filter_map(of_part).collect();
                all.push((name.to_owned(), braced(&written(&part, &values)?)));
            }
            if let Some((key, _)) = inner
                .iter()
                .find(|(key, _)| !key.starts_with("match.") && !key.starts_with("action."))
            {
                kind_of(section, key)?;
            }
            (all, number.checked_sub(1).unwrap_or(usize::MAX))
        }
        Section::Single(_)
        | Section::Cluster(_)
        | Section::Backend(..)
        | Section::Breaker(_)
        | Section::Database(_)
        | Section::RuleMatch(_)
        | Section::RuleAction(_) => return Err(not_movable()),
    };
    let list = section.table().name();
    layout.add(list, index, &written).ok_or_else(not_movable)
}

/// Returns settings in the notation of the file.
fn written(
    section: &Section,
    values: &[(String, String)],
) -> Result<Vec<(String, String)>, EditError> {
    let one = |(key, value): &(String, String)| {
        let kind = kind_of(section, key)?;
        let (section, key) = (section.clone(), key.clone());
        match kind {
            Kind::Part | Kind::Backends => Err(EditError::NotOneValue { section, key }),
            Kind::Password if value == HIDDEN => Err(EditError::Hidden { section, key }),
            kind => Ok((key, notation(kind, value, None))),
        }
    };
    values.iter().map(one).collect()
}

fn braced(values: &[(String, String)]) -> String {
    let pairs: Vec<_> = values
        .iter()
        .map(|(key, value)| format!("{key} = {value}"))
        .collect();
    match pairs.is_empty() {
        true => "{}".to_owned(),
        false => format!("{{ {} }}", pairs.join(", ")),
    }
}

/// Returns where a table is in the text of its configuration; `None` where there is none of that name.
fn path_of<'s>(config: &Config, section: &'s Section) -> Option<Vec<Step<'s>>> {
    let cluster = |name: &str| config.clusters.iter().find(|other| *other.name == *name);
    let of_cluster = |name: &'s str| vec![Step::Key(Table::Cluster.name()), Step::Key(name)];
    match section {
        Section::Single(table) => Some(vec![Step::Key(table.name())]),
        Section::Cluster(name) => cluster(name).map(|_| of_cluster(name)),
        Section::Backend(name, backend) => {
            let mut backends = cluster(name)?.backends.iter();
            let index = backends.position(|other| *other.name == **backend)?;
            let mut path = of_cluster(name);
            path.push(Step::Entry(Table::Backend.name(), index));
            Some(path)
        }
        Section::Breaker(name) => {
            cluster(name)?;
            let mut path = of_cluster(name);
            path.push(Step::Key(Table::Breaker.name()));
            Some(path)
        }
        Section::Database(name) => {
            config
                .databases
                .iter()
                .find(|other| *other.name == **name)?;
            Some(vec![Step::Key(Table::Database.name()), Step::Key(name)])
        }
        Section::User(name) => {
            let index = config
                .users
                .iter()
                .position(|other| *other.name == **name)?;
            Some(vec![Step::Entry(Table::User.name(), index)])
        }
        Section::Rule(number) | Section::RuleMatch(number) | Section::RuleAction(number) => {
            config.rules.get(number.checked_sub(1)?)?;
            Some(rule_path(section.table(), *number))
        }
    }
}

/// Returns where the rule of a number from 1 is, or its `match` or `action`.
fn rule_path(table: Table, number: usize) -> Vec<Step<'static>> {
    let mut path = vec![Step::Entry(Table::Rule.name(), number.saturating_sub(1))];
    if table != Table::Rule {
        path.push(Step::Key(table.name()));
    }
    path
}

/// Returns the name that a table which is not there may be a slip of.
fn nearest_section<'c>(config: &'c Config, section: &Section) -> Option<&'c str> {
    let clusters = || config.clusters.iter();
    let names: Vec<&'c str> = match section {
        Section::Backend(cluster, _) if clusters().any(|other| *other.name == **cluster) => {
            let backends = clusters().filter(|other| *other.name == **cluster);
            (backends.flat_map(|cluster| &cluster.backends))
                .map(|backend| &*backend.name)
                .collect()
        }
        Section::Cluster(_) | Section::Backend(..) | Section::Breaker(_) => {
            clusters().map(|cluster| &*cluster.name).collect()
        }
        Section::Database(_) => (config.databases.iter())
            .map(|database| &*database.name)
            .collect(),
        Section::User(_) => config.users.iter().map(|user| &*user.name).collect(),
        Section::Single(_) | Section::Rule(_) | Section::RuleMatch(_) | Section::RuleAction(_) => {
            Vec::new()
        }
    };
    let wanted = match section {
        Section::Backend(cluster, _) if !clusters().any(|other| *other.name == **cluster) => {
            cluster
        }
        Section::Cluster(name)
        | Section::Backend(_, name)
        | Section::Breaker(name)
        | Section::Database(name)
        | Section::User(name) => name,
        Section::Single(_) | Section::Rule(_) | Section::RuleMatch(_) | Section::RuleAction(_) => {
            return None;
        }
    };
    reference::nearest(wanted, names.into_iter())
}
