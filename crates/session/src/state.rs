//! The settings of a session as PostgreSQL keeps them: undone by a ROLLBACK, kept by a COMMIT, savepoint by savepoint.
//!
//! ```text
//!   base ── SET ──► now ── SAVEPOINT a ── SET ──► now        COMMIT: base = now
//!     ▲                        │                    │        ROLLBACK: now = base
//!     └────────────────────────┴── an error ◄───────┘        an error, ROLLBACK TO a: now = as it was at a
//! ```
//! Two sets are kept side by side: what the session *wants* and what its server connection *carries*. They differ only where a
//! RESET has taken the connection back to its own default while the session came with a startup parameter of that name.
//!
//! A transaction's own settings and savepoints are also written down as text, so that a transaction that began on a replica
//! can be opened again on the primary.

mod own;

use std::sync::Arc;

use pgweir_sql::{StateEvent, StateStatement};

pub use own::{Own, Scope};

use crate::parameters::{ParameterSet, SharedParameters, Value};

/// One statement that touches the state, as it was sent: what it will have done once it has succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number among the statements of its message.
    pub index: usize,
    /// Its text.
    pub text: Box<[u8]>,
    /// What it does.
    pub action: Action,
}

/// What a statement does to the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `BEGIN`.
    Begin,
    /// `COMMIT`, `ROLLBACK`, `PREPARE TRANSACTION`: the command tag tells which it was.
    End {
        /// `AND CHAIN`.
        chain: bool,
    },
    /// `SAVEPOINT`.
    Savepoint(Box<[u8]>),
    /// `RELEASE`.
    Release(Box<[u8]>),
    /// `ROLLBACK TO`.
    RollbackTo(Box<[u8]>),
    /// `SET`, for the session.
    Set {
        /// The parameter.
        name: Box<str>,
        /// Its value.
        value: Value,
    },
    /// `SET LOCAL`, `SET TRANSACTION`, `SET CONSTRAINTS`: until the end of the transaction.
    Local {
        /// The parameter; empty for what is none.
        name: Box<str>,
        /// Its values, where they are known.
        words: Option<Box<[String]>>,
    },
    /// `SET LOCAL ... TO DEFAULT`.
    LocalDefault(Box<str>),
    /// `RESET`.
    Reset(Box<str>),
    /// `RESET ALL`.
    ResetAll,
    /// `DISCARD ALL`.
    DiscardAll,
}

impl Event {
    /// Returns whether it is one of the few that a failed transaction hears.
    pub fn ends_failure(&self) -> bool {
        matches!(self.action, Action::End { .. } | Action::RollbackTo(_))
    }

    /// Makes an event of a statement; `None` for one that says nothing about settings or transactions.
    pub fn of(statement: &StateStatement<'_>) -> Option<Event> {
        let words = |value: &Option<Vec<String>>| value.clone().map(Vec::into_boxed_slice);
        let action = match &statement.event {
            StateEvent::Begin(_) => Action::Begin,
            StateEvent::Commit { chain } | StateEvent::Rollback { chain } => {
                Action::End { chain: *chain }
            }
            StateEvent::PrepareTransaction => Action::End { chain: false },
            StateEvent::Savepoint(name) => Action::Savepoint((**name).into()),
            StateEvent::Release(name) => Action::Release((**name).into()),
            StateEvent::RollbackTo(name) => Action::RollbackTo((**name).into()),
            StateEvent::SetTransaction(_) | StateEvent::Constraints => Action::Local {
                name: Box::default(),
                words: None,
            },
            // The proxy's own: no server keeps them.
            StateEvent::Set(setting) if setting.name.starts_with("pgweir.") => return None,
            StateEvent::Set(setting) if setting.local => Action::Local {
                name: (*setting.name).into(),
                words: words(&setting.value),
            },
            StateEvent::Set(setting) => Action::Set {
                name: (*setting.name).into(),
                value: Value::Statement {
                    sql: (*setting.sql).into(),
                    words: words(&setting.value),
                },
            },
            StateEvent::Reset { name, local: true } => Action::LocalDefault((**name).into()),
            StateEvent::Reset { name, .. } => Action::Reset((**name).into()),
            StateEvent::ResetAll => Action::ResetAll,
            StateEvent::DiscardAll => Action::DiscardAll,
            StateEvent::Prepare { .. }
            | StateEvent::Execute { .. }
            | StateEvent::Deallocate { .. }
            | StateEvent::DeallocateAll => return None,
        };
        Some(Event {
            index: statement.index,
            text: statement.text.into(),
            action,
        })
    }
}

/// What a `SET LOCAL` has put over a setting: its values, where they are known.
pub type Overlay = Option<Box<[String]>>;

/// The state at one moment.
#[derive(Debug, Clone, Default)]
struct Moment {
    wanted: SharedParameters,
    carried: SharedParameters,
    /// Settings that hold until the end of the transaction.
    local: Vec<(Box<str>, Overlay)>,
    /// Of these, what was set to the default, which is what the session came with.
    local_defaults: Vec<Box<str>>,
    /// The proxy's own settings.
    own: Own,
}

#[derive(Debug)]
struct Savepoint {
    name: Box<[u8]>,
    moment: Moment,
    /// The length of the journal behind its SAVEPOINT.
    journal: usize,
}

/// The tracker.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts; any combination of them occurs"
)]
pub struct State {
    startup: SharedParameters,
    base: Moment,
    now: Moment,
    savepoints: Vec<Savepoint>,
    /// Something has changed since the last transaction ended.
    is_moving: bool,
    /// The text of the BEGIN of the open transaction, if it was seen.
    begin: Option<Box<[u8]>>,
    /// Who the session is was changed in a way that the server alone knows the outcome of.
    is_unclear: bool,
    /// A DISCARD ALL has succeeded.
    has_discarded: bool,
    /// More was to be written down than is kept.
    is_journal_full: bool,
    /// What must be repeated to bring the open transaction to another server, in order.
    journal: Vec<(Step, Box<[u8]>)>,
}

/// How many statements of a transaction are kept at most. Not smaller, as frameworks set a savepoint or two for every request;
/// not larger, as they are memory, and are all sent at once when the transaction moves.
const JOURNAL_LIMIT: usize = 1000;

/// How many of them one batch adds, but for a very long one: a transaction whose journal lacks the room for so many moves while it
/// can.
const BATCH_STEPS: usize = 500;

/// What becomes of what a transaction has set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Kept,
    Undone,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Savepoint,
    Setting,
}

impl State {
    /// Makes the state of a session that brought along `startup`.
    pub fn new(startup: SharedParameters) -> Self {
        let moment = Moment {
            wanted: Arc::clone(&startup),
            carried: Arc::clone(&startup),
            ..Moment::default()
        };
        State {
            startup,
            base: moment.clone(),
            now: moment,
            savepoints: Vec::new(),
            is_moving: false,
            begin: None,
            is_unclear: false,
            has_discarded: false,
            is_journal_full: false,
            journal: Vec::new(),
        }
    }

    /// Returns what a connection must carry when the session's next transaction begins.
    pub fn wanted(&self) -> &SharedParameters {
        &self.base.wanted
    }

    /// Returns what holds now, inside the open transaction, without what `SET LOCAL` has put over it.
    pub fn wanted_now(&self) -> &SharedParameters {
        &self.now.wanted
    }

    /// Returns what the connection carries now.
    pub fn carried(&self) -> &SharedParameters {
        &self.now.carried
    }

    /// Returns what the connection carries once the open transaction has been rolled back.
    pub fn carried_at_base(&self) -> &SharedParameters {
        &self.base.carried
    }

    /// Returns whether the session came with parameters.
    pub fn has_startup(&self) -> bool {
        !self.startup.entries().is_empty()
    }

    /// Returns whether the connection lacks something that the session wants.
    pub fn lacks(&self) -> bool {
        !self.now.local_defaults.is_empty()
            || !Arc::ptr_eq(&self.now.wanted, &self.now.carried)
                && !self.now.wanted.same(&self.now.carried)
    }

    /// Returns whether a `SET LOCAL` holds.
    pub fn has_local(&self) -> bool {
        !self.now.local.is_empty()
    }

    /// Returns how many `SET LOCAL` hold: they come and go one by one.
    pub fn local_count(&self) -> usize {
        self.now.local.len()
    }

    /// Returns the proxy's own settings as they hold now.
    pub fn own(&self) -> &Own {
        &self.now.own
    }

    /// Sets one of the proxy's own, `None` for the session's default; `in_transaction` if a ROLLBACK undoes that. Outside of
    /// one nothing is left of what would hold until its end.
    pub fn set_own(&mut self, name: &str, value: Option<&str>, scope: Scope, in_transaction: bool) {
        if in_transaction {
            self.now.own.set(name, value, scope);
            self.is_moving = true;
        } else if scope == Scope::Session {
            self.now.own.set(name, value, scope);
            self.base.own = self.now.own.clone();
        }
    }

    /// Puts back what the proxy's own settings were: the batch that set them has failed.
    pub fn restore_own(&mut self, own: Own, in_transaction: bool) {
        if !in_transaction {
            self.base.own = own.clone();
        }
        self.now.own = own;
    }

    /// Returns what `SET LOCAL` has put over a setting.
    pub fn local(&self, name: &str) -> Option<&Overlay> {
        let found = self
            .now
            .local
            .iter()
            .rev()
            .find(|(known, _)| &**known == name);
        found.map(|(_, overlay)| overlay)
    }

    /// Returns the text of the BEGIN of the open transaction and what must be repeated behind it.
    pub fn transaction(&self) -> (Option<&[u8]>, impl Iterator<Item = &[u8]>) {
        (
            self.begin.as_deref(),
            self.journal.iter().map(|(_, text)| &**text),
        )
    }

    /// Notes the text of a BEGIN that no server has seen yet.
    pub fn begin(&mut self, text: &[u8]) {
        self.begin = Some(text.into());
        self.is_moving = true;
    }

    /// Notes a statement for the open transaction that no server has seen yet.
    pub fn note_local(&mut self, text: &[u8]) {
        self.write_down(Step::Setting, text.into());
        self.is_moving = true;
    }

    /// Notes that a connection has been brought to what the session wants at the beginning of its transaction.
    pub fn switched(&mut self) {
        // Mostly it is so already, and to count references of what all threads share costs more than to look.
        carry(&mut self.base.carried, &self.base.wanted);
        if !self.is_moving {
            carry(&mut self.now.carried, &self.base.wanted);
        }
    }

    /// Returns the SQL that brings the connection to what the session wants now; `in_transaction` if it is in a block, which
    /// may still be given its modes.
    pub fn restore_sql(&self, in_transaction: bool) -> Vec<u8> {
        let (wanted, carried) = (&self.now.wanted, &self.now.carried);
        if !in_transaction {
            return wanted.switch_sql(carried);
        }
        let mut sql = Vec::new();
        for entry in wanted.entries() {
            if carried.get(&entry.name) != Some(&entry.value) {
                sql.extend(wanted.setting_sql(&entry.name, false));
                sql.extend_from_slice(b"\n;");
            }
        }
        for name in &self.now.local_defaults {
            sql.extend(self.startup.setting_sql(name, true));
            sql.push(b';');
        }
        sql
    }

    /// Notes that a connection has been brought to what the session wants now; `in_transaction` if a ROLLBACK undoes that.
    pub fn restored(&mut self, in_transaction: bool) {
        self.now.carried = Arc::clone(&self.now.wanted);
        let startup = Arc::clone(&self.startup);
        for name in std::mem::take(&mut self.now.local_defaults) {
            let sql = startup.setting_sql(&name, true);
            self.write_down(Step::Setting, sql.into());
        }
        if in_transaction {
            self.is_moving = true;
        } else {
            self.base.carried = Arc::clone(&self.now.carried);
        }
    }

    /// Takes the success of a statement into account; `tag` is its command tag.
    pub fn apply(&mut self, event: Event, tag: &[u8]) {
        self.is_moving = true;
        let Event { text, action, .. } = event;
        match action {
            Action::Begin => {
                // Inside a transaction it is but a warning.
                self.begin.get_or_insert(text);
            }
            Action::End { chain } => {
                let outcome = match tag.starts_with(b"ROLLBACK") {
                    true => Outcome::Undone,
                    false => Outcome::Kept,
                };
                self.end(outcome, chain);
            }
            Action::Savepoint(name) => {
                self.write_down(Step::Savepoint, text);
                self.savepoints.push(Savepoint {
                    name,
                    moment: self.now.clone(),
                    journal: self.journal.len(),
                });
            }
            Action::Release(name) => self.release(&name),
            Action::RollbackTo(name) => self.rollback_to(&name),
            Action::Set { name, value } => {
                self.write_down(Step::Setting, text);
                self.now.local.retain(|(known, _)| *known != name);
                if *name == *"session_authorization" {
                    self.is_unclear = true;
                    self.put("role", None);
                }
                self.put(&name, Some(value));
            }
            Action::Local { name, words } => {
                self.write_down(Step::Setting, text);
                self.now.local.retain(|(known, _)| *known != name);
                self.now.local.push((name, words));
            }
            Action::LocalDefault(name) => {
                self.write_down(Step::Setting, text);
                if self.startup.get(&name).is_some() {
                    self.now.local_defaults.push(name.clone());
                }
                self.now.local.push((name, None));
            }
            Action::Reset(name) => self.reset(&name, text),
            Action::ResetAll => self.reset_all(text),
            Action::DiscardAll => {
                self.has_discarded = true;
                self.now.own.reset();
                self.now.wanted = Arc::clone(&self.startup);
                self.now.carried = SharedParameters::default();
            }
        }
    }

    fn reset(&mut self, name: &str, text: Box<[u8]>) {
        self.write_down(Step::Setting, text);
        self.now.local.retain(|(known, _)| **known != *name);
        let startup = self.startup.get(name).cloned();
        if startup.is_some() {
            let sql = self.startup.setting_sql(name, false);
            self.write_down(Step::Setting, sql.into());
        }
        if name == "session_authorization" {
            self.is_unclear = true;
            self.put("role", None);
        }
        self.now.wanted = self.now.wanted.with(name, startup);
        self.now.carried = self.now.carried.with(name, None);
    }

    fn reset_all(&mut self, text: Box<[u8]>) {
        self.write_down(Step::Setting, text);
        let startup = Arc::clone(&self.startup);
        for entry in startup.entries() {
            let sql = startup.setting_sql(&entry.name, false);
            self.write_down(Step::Setting, sql.into());
        }
        self.now.local.clear();
        self.now.own.reset();
        self.now.wanted = self.now.wanted.reset_all(&startup);
        self.now.carried = self.now.carried.reset_all(&ParameterSet::default());
    }

    fn write_down(&mut self, step: Step, text: Box<[u8]>) {
        if self.journal.len() < JOURNAL_LIMIT {
            self.journal.push((step, text));
        } else {
            self.is_journal_full = true;
        }
    }

    /// Returns whether the open transaction can be opened anew: all that it has set is written down.
    pub fn can_reopen(&self) -> bool {
        !self.is_journal_full
    }

    /// Returns whether that may soon be over: what one batch sets still fits.
    pub fn is_journal_nearly_full(&self) -> bool {
        self.journal.len() + BATCH_STEPS > JOURNAL_LIMIT
    }

    /// Returns whether the open transaction has a savepoint.
    pub fn has_savepoint(&self) -> bool {
        !self.savepoints.is_empty()
    }

    fn put(&mut self, name: &str, value: Option<Value>) {
        let same = Arc::ptr_eq(&self.now.wanted, &self.now.carried);
        self.now.wanted = self.now.wanted.with(name, value.clone());
        self.now.carried = match same {
            true => Arc::clone(&self.now.wanted),
            false => self.now.carried.with(name, value),
        };
    }

    fn release(&mut self, name: &[u8]) {
        let Some(at) = self.find(name) else { return };
        let start = self
            .savepoints
            .get(at)
            .map_or(0, |savepoint| savepoint.journal);
        // What was set behind it stays; the savepoints themselves are gone.
        let mut index = 0;
        self.journal.retain(|(step, _)| {
            index += 1;
            index < start || *step != Step::Savepoint
        });
        self.savepoints.truncate(at);
    }

    fn rollback_to(&mut self, name: &[u8]) {
        let Some(at) = self.find(name) else { return };
        self.savepoints.truncate(at + 1);
        if let Some(savepoint) = self.savepoints.last() {
            self.journal.truncate(savepoint.journal);
            self.now = savepoint.moment.clone();
        }
    }

    fn find(&self, name: &[u8]) -> Option<usize> {
        self.savepoints
            .iter()
            .rposition(|savepoint| &*savepoint.name == name)
    }

    fn end(&mut self, outcome: Outcome, chain: bool) {
        if outcome == Outcome::Kept {
            self.now.local.clear();
            self.now.local_defaults.clear();
            self.now.own.commit();
            self.base = self.now.clone();
        } else {
            self.now = self.base.clone();
        }
        self.savepoints.clear();
        self.journal.clear();
        self.is_journal_full = false;
        if !chain {
            self.begin = None;
        }
    }

    /// Puts what the server says that a setting is in place of the statement that set it: what it did depended on the value
    /// before (`SET datestyle = 'ISO'` keeps the order of day and month).
    pub fn settle_relative(&mut self, name: &str, value: &str) {
        if matches!(self.now.wanted.get(name), Some(Value::Statement { .. })) {
            self.put(name, Some(Value::Text(value.into())));
        }
    }

    /// Takes over what the server says that a setting is now, if the session has made it, or in any case: a function may have
    /// changed it. Returns whether it is the session's.
    pub fn adopt(&mut self, name: &str, value: &str, in_any_case: bool) -> bool {
        let is_made = in_any_case || self.base.carried.get(name).is_some();
        let is_news =
            !matches!(self.base.carried.get(name), Some(Value::Text(text)) if &**text == value);
        if is_made && is_news {
            self.put(name, Some(Value::Text(value.into())));
            self.base = self.now.clone();
        }
        is_made
    }

    /// Returns whether the session has changed who it is since the last time this was asked: whether that took a role with it
    /// depends on what it was before.
    pub fn take_unclear(&mut self) -> bool {
        std::mem::take(&mut self.is_unclear)
    }

    /// Returns whether a DISCARD ALL has succeeded since the last time this was asked.
    pub fn take_discarded(&mut self) -> bool {
        std::mem::take(&mut self.has_discarded)
    }

    /// Returns whether something may have changed since the last transaction ended.
    pub fn is_moving(&self) -> bool {
        self.is_moving
    }

    /// Takes an error into account: what it has undone on the server is undone here.
    pub fn on_error(&mut self) {
        if !self.is_moving {
            return;
        }
        self.now = match self.savepoints.last() {
            Some(savepoint) => savepoint.moment.clone(),
            None => self.base.clone(),
        };
    }

    /// Takes into account that no transaction is open any more.
    pub fn on_idle(&mut self) {
        if !self.is_moving {
            return;
        }
        // A block whose end has not succeeded was rolled back: its COMMIT failed.
        let outcome = match self.begin.is_some() || !self.savepoints.is_empty() {
            true => Outcome::Undone,
            false => Outcome::Kept,
        };
        self.end(outcome, false);
        self.is_moving = false;
    }

    /// Takes the COMMIT of a transaction that no server has seen into account.
    pub fn commit_unseen(&mut self) {
        self.end(Outcome::Kept, false);
        self.is_moving = false;
    }

    /// Forgets the open transaction: its server is gone, or it was rolled back there.
    pub fn abandon(&mut self) {
        self.end(Outcome::Undone, false);
        self.is_moving = false;
    }
}

/// Makes `carried` the same set as `wanted`.
#[inline]
fn carry(carried: &mut SharedParameters, wanted: &SharedParameters) {
    if !Arc::ptr_eq(carried, wanted) {
        *carried = Arc::clone(wanted);
    }
}

#[cfg(test)]
mod tests;
