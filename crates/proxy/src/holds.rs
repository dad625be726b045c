//! Which databases an operator holds back (`PAUSE`, `KILL`) or closes to new clients (`DISABLE`).
//!
//! A hold is on a database as the servers know it. Names of the configuration that stand for the same one on the same cluster
//! share their server connections, so that none of them could be paused alone: they are held together. `DISABLE` is about the name
//! that a client logs in to.
//!
//! ## How it reaches the sessions
//! The state is a snapshot that is replaced whole. Each worker takes it over when it is told to, and says so: whoever gave the
//! order then knows that no session of any worker takes another server connection. A session looks at the worker's copy, which
//! in the steady state is one flag.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use pgweir_config::Config;
use pgweir_model::PoolKey;

/// A database as the servers of a cluster know it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) cluster: u16,
    /// Its name on the servers.
    pub(crate) database: Arc<str>,
}

impl Target {
    /// Returns what a name of the configuration stands for; `None` where it stands for nothing.
    pub(crate) fn of(config: &Config, name: &str) -> Option<Target> {
        // A client cannot ask for `*` itself.
        let database = config.database(name).filter(|_| name != "*")?;
        Some(Target {
            cluster: database.cluster_index,
            database: database.server_name(name).into(),
        })
    }
}

/// What an order is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Every database.
    All,
    /// One.
    One(Target),
}

impl Scope {
    pub(crate) fn covers(&self, cluster: u16, database: &str) -> bool {
        match self {
            Scope::All => true,
            Scope::One(target) => target.cluster == cluster && *target.database == *database,
        }
    }

    pub(crate) fn has_pool(&self, key: &PoolKey) -> bool {
        self.covers(key.node.cluster, &key.database)
    }
}

/// The state at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    /// The number of the hold on everything.
    all: Option<u64>,
    /// Likewise, of single databases, with the name that the operator used.
    databases: BTreeMap<Target, (u64, Arc<str>)>,
    /// As clients name them.
    disabled: BTreeSet<Arc<str>>,
    last: u64,
}

impl Held {
    /// Returns whether anything is held back.
    pub(crate) fn is_any(&self) -> bool {
        self.all.is_some() || !self.databases.is_empty()
    }

    /// Returns whether a database is held back, by its name on the servers.
    pub(crate) fn holds(&self, cluster: u16, database: &str) -> bool {
        let is_held = |target: &Target| target.cluster == cluster && *target.database == *database;
        self.all.is_some() || self.databases.keys().any(is_held)
    }

    /// Returns whether new clients of a name are refused.
    pub(crate) fn is_disabled(&self, name: &str) -> bool {
        self.disabled.contains(name)
    }

    /// Returns the number of the hold of this scope.
    pub(crate) fn number(&self, scope: &Scope) -> Option<u64> {
        match scope {
            Scope::All => self.all,
            Scope::One(target) => self.databases.get(target).map(|(number, _)| *number),
        }
    }

    /// Holds back; returns the hold's number, or `None` where that is so already: by this order, or by one about everything.
    pub(crate) fn hold(&mut self, scope: &Scope, name: &str) -> Option<u64> {
        if self.all.is_some() || self.number(scope).is_some() {
            return None;
        }
        self.last += 1;
        match scope {
            Scope::All => self.all = Some(self.last),
            Scope::One(target) => {
                let hold = (self.last, Arc::from(name));
                self.databases.insert(target.clone(), hold);
            }
        }
        Some(self.last)
    }

    /// Lets go on; returns whether just that was held back.
    pub(crate) fn resume(&mut self, scope: &Scope) -> bool {
        match scope {
            Scope::All => self.all.take().is_some(),
            Scope::One(target) => self.databases.remove(target).is_some(),
        }
    }

    /// Closes a name to new clients, or opens it; returns whether that is news.
    pub(crate) fn disable(&mut self, name: &str, is_disabled: bool) -> bool {
        match is_disabled {
            true => self.disabled.insert(name.into()),
            false => self.disabled.remove(name),
        }
    }

    /// Returns the names that are held back or closed: `(name, paused, disabled)`, those of the configuration and those that an
    /// operator used.
    pub(crate) fn names(&self, config: &Config) -> Vec<(Arc<str>, bool, bool)> {
        let configured = config.databases.iter().map(|database| &database.name);
        let named = self.databases.values().map(|(_, name)| name);
        let all: BTreeSet<&Arc<str>> = (configured.chain(named).chain(&self.disabled))
            .filter(|name| ***name != *"*")
            .collect();
        let states = all.into_iter().map(|name| {
            let is_held = Target::of(config, name)
                .is_some_and(|target| self.holds(target.cluster, &target.database));
            (Arc::clone(name), is_held, self.is_disabled(name))
        });
        states
            .filter(|(_, is_held, is_disabled)| *is_held || *is_disabled)
            .collect()
    }

    /// Returns what a hold was given by this name to, whatever the name stands for by now.
    pub(crate) fn named(&self, name: &str) -> Option<Target> {
        let mut all = self.databases.iter();
        let found = all.find(|(_, (_, known))| **known == *name);
        found.map(|(target, _)| target.clone())
    }

    /// Returns the names that single holds were given by, for a hint.
    pub(crate) fn single_names(&self) -> Vec<&str> {
        self.databases.values().map(|(_, name)| &**name).collect()
    }
}

/// The state, as all workers share it.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    now: ArcSwap<Held>,
    changing: Mutex<()>,
}

impl Holds {
    pub(crate) fn load(&self) -> Arc<Held> {
        self.now.load_full()
    }

    /// Changes the state.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Held) -> T) -> T {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = Held::clone(&self.now.load());
        let outcome = change(&mut held);
        self.now.store(Arc::new(held));
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let text = "auth.method = 'trust'\nclusters.main.backends = [{ host = 'a' }]\n\
            clusters.other.backends = [{ host = 'b' }]\n\
            [databases.one]\ncluster = 'main'\n[databases.alias]\ncluster = 'main'\ndbname = 'one'\n\
            [databases.elsewhere]\ncluster = 'other'\ndbname = 'one'\n[databases.'*']\ncluster = 'main'\n";
        pgweir_config::parse(text, "f").unwrap()
    }

    fn one(name: &str) -> Scope {
        Scope::One(Target::of(&config(), name).unwrap())
    }

    fn names(held: &Held) -> Vec<(String, bool, bool)> {
        let names = held.names(&config());
        (names.into_iter())
            .map(|(name, paused, disabled)| (name.to_string(), paused, disabled))
            .collect()
    }

    #[test]
    fn names_of_one_database_are_held_together_and_only_those() {
        let mut held = Held::default();
        assert!(!held.is_any());
        assert_eq!(held.hold(&one("alias"), "alias"), Some(1));
        assert!(held.is_any() && held.holds(0, "one"));
        assert!(!held.holds(1, "one") && !held.holds(0, "two"));
        assert_eq!(
            names(&held),
            [
                ("alias".to_owned(), true, false),
                ("one".to_owned(), true, false)
            ]
        );
        // By another name it is the same.
        assert_eq!(held.hold(&one("one"), "one"), None);
        assert_eq!(held.number(&one("one")), Some(1));
        assert!(held.resume(&one("one")));
        assert!(!held.resume(&one("alias")) && !held.is_any());
    }

    #[test]
    fn a_hold_on_everything_and_those_on_single_databases_are_taken_back_each_by_its_own() {
        let mut held = Held::default();
        assert_eq!(held.hold(&one("any"), "any"), Some(1));
        assert_eq!(held.hold(&Scope::All, ""), Some(2));
        assert!(held.holds(1, "one"));
        // As PgBouncer, which has nothing left to pause then.
        assert_eq!(held.hold(&one("one"), "one"), None);
        assert!(!held.resume(&one("one")));
        assert!(held.resume(&Scope::All) && !held.resume(&Scope::All));
        assert!(held.holds(0, "any") && !held.holds(1, "one"));
        assert_eq!(held.single_names(), ["any"]);
        assert_eq!(held.named("any").map(Scope::One), Some(one("any")));
        assert_eq!(held.named("one"), None);
        // A hold that was taken back and given anew is another one.
        assert!(held.resume(&one("any")));
        assert_eq!(held.hold(&one("any"), "any"), Some(3));
    }

    #[test]
    fn new_clients_are_refused_by_the_name_that_they_use() {
        let mut held = Held::default();
        assert!(held.disable("one", true) && !held.disable("one", true));
        assert!(held.is_disabled("one") && !held.is_disabled("alias"));
        assert!(!held.is_any());
        assert_eq!(names(&held), [("one".to_owned(), false, true)]);
        assert!(held.disable("one", false) && !held.disable("one", false));
        assert!(names(&held).is_empty());
    }

    #[test]
    fn a_name_stands_for_a_database_or_for_none() {
        let target = Target::of(&config(), "alias").unwrap();
        assert_eq!((target.cluster, &*target.database), (0, "one"));
        assert_eq!(Target::of(&config(), "*"), None);
        let known = pgweir_config::parse(
            "auth.method = 'trust'\nclusters.main.backends = [{ host = 'a' }]\n[databases.one]\n",
            "f",
        );
        assert_eq!(Target::of(&known.unwrap(), "two"), None);
    }
}
