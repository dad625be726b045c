//! Who keeps the configuration: every change of it, by the console or by a reload, comes through here.
//!
//! ## Why
//! Two changes at once must not each be made from the configuration before both, nor from what an operator saw before the
//! other: a change is made from a copy, and taken over under the lock on the document only if the document is still the one
//! copied, and the configuration still the one seen. The data path never takes that lock; it reads the snapshot.
//!
//! ## Limits
//! A change reads the text anew, and saving waits for the disk: these are for threads and tasks that may wait some
//! milliseconds.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};

use pgweir_admin::{Operator, Refusal};
use pgweir_config::{
    AuthMethod, Change, Config, ConfigErrors, Document, Edit, EditError, FileError, SettingRow,
};
use pgweir_metrics::ProcessCounts;
use tracing::{info, warn};

use crate::console::ConsoleMail;
use crate::proxy::Shared;

/// `undefined_object`: there is no such setting.
const UNDEFINED_OBJECT: [u8; 5] = *b"42704";
/// `invalid_parameter_value`.
const INVALID_PARAMETER_VALUE: [u8; 5] = *b"22023";
/// `feature_not_supported`: not of this setting.
const FEATURE_NOT_SUPPORTED: [u8; 5] = *b"0A000";
/// `object_not_in_prerequisite_state`: not with things as they are.
const NOT_IN_PREREQUISITE_STATE: [u8; 5] = *b"55000";
/// `serialization_failure`: somebody else was faster.
const SERIALIZATION_FAILURE: [u8; 5] = *b"40001";
/// `config_file_error`.
const CONFIG_FILE_ERROR: [u8; 5] = *b"F0000";
/// `io_error`.
const IO_ERROR: [u8; 5] = *b"58030";

/// How often the file was read again.
#[derive(Debug, Default)]
pub(crate) struct Reloads {
    taken_over: AtomicU64,
    refused: AtomicU64,
    /// The last one was refused.
    is_refused: AtomicBool,
}

impl Reloads {
    fn note(&self, is_taken_over: bool) {
        let count = match is_taken_over {
            true => &self.taken_over,
            false => &self.refused,
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.is_refused.store(!is_taken_over, Ordering::Relaxed);
    }
}

/// What came of reading the file again. Shown, it says so in a line, without values.
#[derive(Debug)]
pub(crate) struct Reloaded {
    /// What differs from what ran.
    pub(crate) changes: Vec<Change>,
    /// What was changed on the console, not saved, and is not so any more.
    dropped: Vec<String>,
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.changes.iter().filter(|change| !change.reloadable);
        let waiting: Vec<_> = waiting.map(|change| change.key.as_str()).collect();
        match self.changes.len().saturating_sub(waiting.len()) {
            0 => f.write_str("no setting has changed")?,
            1 => f.write_str("1 setting has changed")?,
            count => write!(f, "{count} settings have changed")?,
        }
        if !self.dropped.is_empty() {
            let dropped = self.dropped.join(", ");
            write!(
                f,
                "; changes on the console that were not saved are dropped: {dropped}"
            )?;
        }
        match waiting.is_empty() {
            true => Ok(()),
            false => write!(f, "; in force after a restart: {}", waiting.join(", ")),
        }
    }
}

/// A change that is worked out and not in force yet.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// What it was made from.
    from: Document,
    edited: Document,
}

impl Prepared {
    /// Returns the configuration that it makes.
    pub(crate) fn config(&self) -> &Config {
        self.edited.config()
    }
}

impl Shared {
    /// Adds what is counted of the configuration.
    pub(crate) fn count_configurations(&self, counts: &mut ProcessCounts) {
        counts.reloads = self.reloads.taken_over.load(Ordering::Relaxed);
        counts.reload_failures = self.reloads.refused.load(Ordering::Relaxed);
        counts.is_last_reload_failed = self.reloads.is_refused.load(Ordering::Relaxed);
        let wanted = Arc::clone(self.document().config());
        let waiting = pgweir_config::diff(&self.config.load(), &wanted);
        counts.settings_awaiting_restart =
            waiting.iter().filter(|change| !change.reloadable).count();
    }

    fn document(&self) -> MutexGuard<'_, Document> {
        self.document.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works out what a change of the running configuration makes of it. Takes some time, for which it holds no lock.
    ///
    /// # Errors
    /// The first thing that is wrong, or `seen` is not in force any more.
    pub(crate) fn prepare(
        &self,
        edits: &[Edit],
        seen: &Arc<Config>,
        operator: &Operator,
    ) -> Result<Prepared, Refusal> {
        let from = self.document().clone();
        if !Arc::ptr_eq(&self.config.load(), seen) {
            return Err(changed_meanwhile());
        }
        let edited = from.edited(edits).map_err(refused_edit)?;
        refuse_lockout(from.config(), edited.config(), operator)?;
        Ok(Prepared { from, edited })
    }

    /// Takes a change over, all or nothing. Returns what has changed; what of it is not `reloadable` is kept and holds after a
    /// restart, if it is saved by then.
    ///
    /// # Errors
    /// There was another one since it was prepared; nothing has changed.
    pub(crate) fn commit(
        &self,
        prepared: Prepared,
        operator: &Operator,
    ) -> Result<Vec<Change>, Refusal> {
        let Prepared { from, edited } = prepared;
        let changes = pgweir_config::diff(from.config(), edited.config());
        let mut document = self.document();
        if !document.is_still(&from) {
            return Err(changed_meanwhile());
        }
        self.take_over(edited.config());
        if from.config().users != edited.config().users {
            self.tables.reported.clear();
        }
        self.events.record_changes(&changes);
        *document = edited;
        drop(document);
        info!(
            user = &*operator.user,
            "the configuration is changed on the console"
        );
        report(&changes);
        Ok(changes)
    }

    /// Reads the file again and takes over what can be. What was changed on the console and not saved is gone.
    ///
    /// # Errors
    /// There is no file, or it is wrong; nothing has changed.
    pub(crate) fn reload(&self) -> Result<Reloaded, Refusal> {
        let reloaded = self.read_again().map_err(refused_file)?;
        report(&reloaded.changes);
        Ok(reloaded)
    }

    /// Does what [`Shared::reload`] does, and tells all problems of the file apart. Returns what differs from what ran.
    pub(crate) fn reread(&self) -> Result<Vec<Change>, FileError> {
        self.read_again().map(|reloaded| reloaded.changes)
    }

    fn read_again(&self) -> Result<Reloaded, FileError> {
        let mut document = self.document();
        let read = document.reread();
        self.reloads.note(read.is_ok());
        let read = read?;
        let changes = pgweir_config::diff(&self.config.load(), read.config());
        let gone = pgweir_config::diff(document.config(), read.config());
        let is_gone = |key: &String| gone.iter().any(|change| change.key == *key);
        let unsaved = document.unsaved().into_iter().map(|change| change.key);
        let dropped: Vec<_> = unsaved.filter(is_gone).collect();
        if !dropped.is_empty() {
            let dropped = dropped.join(", ");
            warn!("changes on the console that were not saved are dropped: {dropped}");
        }
        self.take_over(read.config());
        // Whoever has it read again may have changed what servers say to a login.
        self.tables.reported.clear();
        self.events.record_changes(&changes);
        *document = read;
        Ok(Reloaded { changes, dropped })
    }

    /// Writes the configuration back to its file; what the command line says is not in it. Returns where it stands now.
    ///
    /// # Errors
    /// There is no file, somebody else has written it, or it cannot be written; it is as it was.
    pub(crate) fn save(&self) -> Result<String, Refusal> {
        let path = self.document().save().map_err(refused_file)?;
        let path = path.display().to_string();
        info!("the configuration is saved to {path}");
        Ok(path)
    }

    /// Returns what differs between the file as it is now, on the left, and what runs.
    ///
    /// # Errors
    /// There is no file, or it is wrong.
    pub(crate) fn config_diff(&self) -> Result<Vec<Change>, Refusal> {
        let document = self.document();
        document
            .diff_with_file(&self.config.load())
            .map_err(refused_file)
    }

    /// Returns every setting.
    pub(crate) fn settings(&self) -> Vec<SettingRow> {
        // A copy, so that nobody waits for a long list.
        let document = self.document().clone();
        document.rows(&self.config.load())
    }

    /// Takes over what can be taken over of another configuration. The lock on the document is held.
    fn take_over(&self, new: &Config) {
        let kept = pgweir_config::take_over(&self.config.load(), new);
        for (index, (handle, cluster)) in self.clusters.iter().zip(&kept.clusters).enumerate() {
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            let zone = kept.server.zone.as_deref();
            handle.reconfigure(pgweir_cluster::Settings::new(cluster, index, zone));
        }
        self.config.store(Arc::new(kept));
        self.announce_config();
        self.console.send(ConsoleMail::ConfigChanged);
    }
}

/// Logs what a change of the configuration has changed, and what of it waits for a restart.
pub fn report(changes: &[Change]) {
    if changes.is_empty() {
        info!("nothing has changed");
    }
    for change in changes {
        let line = describe(change);
        if change.reloadable {
            info!("changed: {line}");
        } else {
            warn!("needs a restart: {line}");
        }
    }
}

/// Says what has changed, on one line whatever the names and the values hold: nobody writes lines of his own with them.
fn describe(change: &Change) -> String {
    let one_line = |text: &str| match text.contains(char::is_control) {
        true => format!("{text:?}"),
        false => text.to_owned(),
    };
    let shown =
        |value: &Option<String>| value.as_deref().map_or_else(|| "none".to_owned(), one_line);
    format!(
        "{}: {} -> {}",
        one_line(&change.key),
        shown(&change.old),
        shown(&change.new)
    )
}

fn changed_meanwhile() -> Refusal {
    Refusal {
        sqlstate: SERIALIZATION_FAILURE,
        message: "the configuration was changed meanwhile; try again".to_owned(),
        detail: None,
        hint: None,
    }
}

/// Refuses a change after which nobody could make another one, or not the operator who makes it.
fn refuse_lockout(old: &Config, new: &Config, operator: &Operator) -> Result<(), Refusal> {
    let refusal = |message: &str, hint: &str| Refusal {
        sqlstate: NOT_IN_PREREQUISITE_STATE,
        message: message.to_owned(),
        detail: None,
        hint: Some(hint.to_owned()),
    };
    if operators(old).next().is_some() && operators(new).next().is_none() {
        return Err(refusal(
            "that would leave nobody who can change anything on the console",
            "Name a user of [[users]] in admin.users first.",
        ));
    }
    let may_change = |config| operators(config).any(|name| *name == operator.user);
    if may_change(old) && !may_change(new) {
        return Err(refusal(
            "that would take your own right to change anything on the console",
            "Let another user of admin.users do it, or change the file and RELOAD.",
        ));
    }
    Ok(())
}

/// Returns who may change things and can log in to do it.
fn operators(config: &Config) -> impl Iterator<Item = &Arc<str>> {
    let is_everybody = config.users.is_empty() && config.auth.method == AuthMethod::Trust;
    let can_log_in = move |name: &&Arc<str>| is_everybody || config.user(name).is_some();
    config.admin.users.iter().filter(can_log_in)
}

fn refused_edit(error: EditError) -> Refusal {
    let sqlstate = match &error {
        EditError::UnknownSection { .. } | EditError::UnknownSetting { .. } => UNDEFINED_OBJECT,
        EditError::NotOneValue { .. } | EditError::NotMovable { .. } => FEATURE_NOT_SUPPORTED,
        EditError::Hidden { .. } | EditError::Invalid(_) => INVALID_PARAMETER_VALUE,
        EditError::Overridden { .. } => NOT_IN_PREREQUISITE_STATE,
    };
    let more = error.others();
    Refusal {
        sqlstate,
        message: error.message(),
        detail: (!more.is_empty()).then(|| more.join("\n")),
        hint: error.nearest().map(|name| format!("Did you mean {name}?")),
    }
}

fn refused_file(error: FileError) -> Refusal {
    let (sqlstate, hint) = match &error {
        FileError::NoFile => (NOT_IN_PREREQUISITE_STATE, None),
        FileError::ChangedMeanwhile { .. } => (
            NOT_IN_PREREQUISITE_STATE,
            Some(
                "RELOAD takes over what it says now; what was changed here and not saved is lost by that.",
            ),
        ),
        FileError::Invalid(_) => (CONFIG_FILE_ERROR, None),
        FileError::Io { .. } => (IO_ERROR, None),
    };
    let (message, detail) = match &error {
        FileError::Invalid(ConfigErrors(problems)) => {
            let mut lines = problems.iter().map(ToString::to_string);
            let first = lines.next().unwrap_or_default();
            let rest: Vec<_> = lines.collect();
            (first, (!rest.is_empty()).then(|| rest.join("\n")))
        }
        other => (other.to_string(), None),
    };
    Refusal {
        sqlstate,
        message,
        detail,
        hint: hint.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::{fs, thread};

    use pgweir_config::reference::Table;
    use pgweir_config::{Origin, Overrides, Section};

    use super::*;
    use crate::proxy::Proxy;

    /// No server is needed to change what is asked of them.
    const TEXT: &str = "[server] # here\nlisten = ['127.0.0.1:0']\nworkers = 1\n[http]\nlisten = 'off'\n\
        [auth]\nmethod = 'trust'\n[clusters.main]\nbackends = [{ name = 'pg1', host = '127.0.0.1', port = 1 }]\n";

    fn set(section: Section, key: &str, value: &str) -> Edit {
        Edit::Set {
            section,
            key: key.to_owned(),
            value: Some(value.to_owned()),
        }
    }

    fn lines(changes: Vec<Change>) -> Vec<String> {
        let line = |change: &Change| format!("{} {}", describe(change), change.reloadable);
        changes.iter().map(line).collect()
    }

    /// A proxy from a file of its own.
    struct Stage {
        _folder: tempfile::TempDir,
        path: PathBuf,
        proxy: Proxy,
    }

    impl Stage {
        fn new() -> Stage {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("pgweir.toml");
            fs::write(&path, TEXT).expect("written");
            let origin = Origin::File(path.clone());
            let document = Document::load(origin, Overrides::default()).expect("it is right");
            Stage {
                _folder: folder,
                path,
                proxy: Proxy::start(document).expect("it starts"),
            }
        }

        fn change(&self, edits: &[Edit]) -> Result<Vec<String>, Refusal> {
            let user = "admin".into();
            self.change_as(edits, &self.proxy.config(), &Operator { user })
        }

        fn change_as(
            &self,
            edits: &[Edit],
            seen: &Arc<Config>,
            operator: &Operator,
        ) -> Result<Vec<String>, Refusal> {
            let shared = self.proxy.shared();
            let prepared = shared.prepare(edits, seen, operator)?;
            shared.commit(prepared, operator).map(lines)
        }

        /// The weight of the server and the number of workers that are in force.
        fn now(&self) -> (u32, u16) {
            let config = self.proxy.config();
            (config.clusters[0].backends[0].weight, config.server.workers)
        }
    }

    fn server() -> Section {
        Section::Single(Table::Server)
    }

    fn weight(value: &str) -> Edit {
        let section = Section::Backend("main".to_owned(), "pg1".to_owned());
        set(section, "weight", value)
    }

    #[test]
    fn what_is_changed_holds_at_once_or_is_known_to_wait_for_a_restart() {
        let stage = Stage::new();
        assert_eq!(
            stage.change(&[weight("0"), set(server(), "workers", "2")]),
            Ok(vec![
                "server.workers: 1 -> 2 false".to_owned(),
                "clusters.main.backends.pg1.weight: 100 -> 0 true".to_owned(),
            ])
        );
        assert_eq!(stage.now(), (0, 1));
        let bad = stage.change(&[weight("5"), set(server(), "max_clients", "none")]);
        assert_eq!(bad.unwrap_err().sqlstate, INVALID_PARAMETER_VALUE);
        assert_eq!(stage.now(), (0, 1), "all or nothing");
        // What waits for a restart is told once, and stays known.
        let weighed = "clusters.main.backends.pg1.weight: 0 -> 7 true".to_owned();
        assert_eq!(stage.change(&[weight("7")]), Ok(vec![weighed]));
        let settings = stage.proxy.shared().settings();
        let waiting: Vec<_> = settings.iter().filter(|row| row.needs_restart).collect();
        assert_eq!(waiting.len(), 1);
        assert_eq!(
            (waiting[0].name, waiting[0].running.as_deref()),
            ("workers", Some("1"))
        );
        stage.proxy.stop();
    }

    #[test]
    fn what_is_changed_is_saved_and_a_reload_drops_what_is_not() {
        let stage = Stage::new();
        let shared = stage.proxy.shared();
        stage
            .change(&[weight("7"), set(server(), "workers", "2")])
            .unwrap();
        assert_eq!(shared.config_diff().unwrap().len(), 2);
        shared.save().unwrap();
        let left = lines(shared.config_diff().unwrap());
        assert_eq!(left, ["server.workers: 2 -> 1 false"]);
        let saved = fs::read_to_string(&stage.path).unwrap();
        let expected = TEXT
            .replace("workers = 1", "workers = 2")
            .replace("port = 1 }", "port = 1, weight = 7 }");
        assert_eq!(saved, expected);

        stage.change(&[weight("9")]).unwrap();
        fs::write(&stage.path, saved.replace("weight = 7", "weight = 8")).unwrap();
        let refused = shared.save().unwrap_err();
        assert_eq!(refused.sqlstate, NOT_IN_PREREQUISITE_STATE);
        let reloaded = shared.reload().unwrap();
        assert_eq!(
            reloaded.to_string(),
            "1 setting has changed; changes on the console that were not saved are dropped: \
             clusters.main.backends.pg1.weight; in force after a restart: server.workers"
        );
        assert_eq!(
            lines(reloaded.changes),
            [
                "server.workers: 1 -> 2 false",
                "clusters.main.backends.pg1.weight: 9 -> 8 true"
            ]
        );
        assert_eq!(stage.now(), (8, 1));
        fs::write(&stage.path, "[serverr]\nweight = 'x'").unwrap();
        let refused = shared.reload().unwrap_err();
        assert_eq!(refused.sqlstate, CONFIG_FILE_ERROR);
        assert!(refused.detail.is_some(), "{refused:?}");
        assert_eq!(stage.now(), (8, 1));
        stage.proxy.stop();
    }

    #[test]
    fn changes_at_the_same_time_do_not_undo_each_other() {
        let stage = Stage::new();
        let change = |key| {
            for value in 1..=50 {
                let edit = set(server(), key, &value.to_string());
                while let Err(refused) = stage.change(std::slice::from_ref(&edit)) {
                    assert_eq!(refused.sqlstate, SERIALIZATION_FAILURE, "{refused:?}");
                }
            }
        };
        thread::scope(|scope| {
            for key in ["max_clients", "max_queue", "statement_statistics"] {
                scope.spawn(move || change(key));
            }
        });
        let config = stage.proxy.config();
        let server = &config.server;
        assert_eq!(
            (
                server.max_clients,
                server.max_queue,
                server.statement_statistics
            ),
            (50, 50, 50)
        );
        stage.proxy.stop();
    }

    #[test]
    fn a_change_is_refused_that_was_made_from_what_is_not_in_force_any_more() {
        let stage = Stage::new();
        let rules = "[[rules]]\nname = 'r1'\nmatch = {}\naction = { route = 'primary' }\n\
            [[rules]]\nname = 'r2'\nmatch = {}\naction = { route = 'primary' }\n";
        fs::write(&stage.path, format!("{TEXT}{rules}")).unwrap();
        stage.proxy.shared().reload().unwrap();
        let (seen, operator) = (
            stage.proxy.config(),
            Operator {
                user: "admin".into(),
            },
        );
        let section = Section::Rule(1);
        let first = [Edit::Delete { section }];
        // Two who both look at the same two rules, and both mean the first.
        let late = stage.proxy.shared().prepare(&first, &seen, &operator);
        stage.change_as(&first, &seen, &operator).unwrap();
        for refused in [
            stage.proxy.shared().commit(late.unwrap(), &operator),
            (stage.proxy.shared().prepare(&first, &seen, &operator)).map(|_| Vec::new()),
        ] {
            let refused = refused.unwrap_err();
            assert_eq!(refused.sqlstate, SERIALIZATION_FAILURE, "{refused:?}");
        }
        let config = stage.proxy.config();
        let names: Vec<_> = config.rules.iter().map(|rule| &*rule.name).collect();
        assert_eq!(names, ["r2"]);
        // What somebody has saved meanwhile is not forgotten by who changes.
        let prepared = stage
            .proxy
            .shared()
            .prepare(&[weight("3")], &config, &operator);
        stage.proxy.shared().save().unwrap();
        let refused = stage.proxy.shared().commit(prepared.unwrap(), &operator);
        assert_eq!(refused.unwrap_err().sqlstate, SERIALIZATION_FAILURE);
        stage.proxy.stop();
    }

    #[test]
    fn nobody_is_locked_out_by_a_change() {
        let text = "[server]\nlisten = ['127.0.0.1:0']\n[http]\nlisten = 'off'\n[auth]\nmethod = 'password'\n\
            [admin]\nusers = ['admin', 'other', 'nobody']\n\
            [clusters.main]\nbackends = [{ host = '127.0.0.1', port = 1 }]\n\
            [[users]]\nname = 'admin'\npassword = 'a'\n[[users]]\nname = 'other'\npassword = 'b'\n";
        let stage = Stage::new();
        fs::write(&stage.path, text).unwrap();
        let document = Document::load(Origin::File(stage.path.clone()), Overrides::default());
        let old = document.unwrap();
        let refused = |edits: &[Edit], user: &str| {
            let edited = old.edited(edits).unwrap();
            let operator = Operator { user: user.into() };
            let refusal = refuse_lockout(old.config(), edited.config(), &operator).err()?;
            assert!(refusal.hint.is_some());
            assert_eq!(refusal.sqlstate, NOT_IN_PREREQUISITE_STATE);
            Some(refusal.message)
        };
        let delete = |name: &str| Edit::Delete {
            section: Section::User(name.to_owned()),
        };
        let named = |users: &str| set(Section::Single(Table::Admin), "users", users);
        let nobody = "that would leave nobody who can change anything on the console";
        let own = "that would take your own right to change anything on the console";
        assert_eq!(refused(&[delete("admin")], "admin").as_deref(), Some(own));
        assert_eq!(refused(&[named("other")], "admin").as_deref(), Some(own));
        assert_eq!(
            refused(&[named("nobody")], "admin").as_deref(),
            Some(nobody)
        );
        assert_eq!(refused(&[named("")], "admin").as_deref(), Some(nobody));
        assert_eq!(refused(&[delete("other")], "admin"), None);
        assert_eq!(refused(&[delete("admin")], "other"), None);
        stage.proxy.stop();
    }

    #[test]
    fn a_change_shows_both_values() {
        let change = Change {
            key: "databases.app.pool_size".to_owned(),
            old: Some("20".to_owned()),
            new: None,
            reloadable: true,
        };
        assert_eq!(describe(&change), "databases.app.pool_size: 20 -> none");
        let forged = Change {
            key: "users.a\nb".to_owned(),
            old: Some("x\r\nWARN y".to_owned()),
            ..change
        };
        assert_eq!(describe(&forged), r#""users.a\nb": "x\r\nWARN y" -> none"#);
    }

    #[test]
    fn a_refusal_has_its_sqlstate_and_names_the_nearest() {
        let origin = Origin::Upstreams(vec!["postgres://pg1".to_owned()]);
        let document = Document::load(origin, Overrides::default()).unwrap();
        let refusal = |section, key: &str, value: &str| {
            let edit = Edit::Set {
                section,
                key: key.to_owned(),
                value: Some(value.to_owned()),
            };
            let refusal = refused_edit(document.edited(&[edit]).unwrap_err());
            let sqlstate = String::from_utf8_lossy(&refusal.sqlstate).into_owned();
            (sqlstate, refusal.message, refusal.hint)
        };
        let main = || Section::Cluster("main".to_owned());
        for (section, key, value, sqlstate, message, hint) in [
            (
                main(),
                "max_leg",
                "5s",
                "42704",
                "clusters.main has no setting max_leg",
                Some("Did you mean max_lag?"),
            ),
            (
                Section::Cluster("mian".to_owned()),
                "max_lag",
                "5s",
                "42704",
                "there is no clusters.mian",
                Some("Did you mean main?"),
            ),
            (
                main(),
                "balance",
                "rndom",
                "22023",
                "[clusters.main] balance: \"rndom\" is none of least_loaded, round_robin, random, nearest",
                Some("Did you mean random?"),
            ),
            (
                main(),
                "backends",
                "a",
                "0A000",
                "clusters.main.backends is not one value; the settings in it are changed one by one",
                None,
            ),
        ] {
            let hint = hint.map(str::to_owned);
            let expected = (sqlstate.to_owned(), message.to_owned(), hint);
            assert_eq!(refusal(section, key, value), expected);
        }
        let changed = refused_file(FileError::ChangedMeanwhile {
            path: PathBuf::from("f"),
        });
        assert_eq!(changed.sqlstate, *b"55000");
        assert!(changed.hint.is_some());
    }
}
