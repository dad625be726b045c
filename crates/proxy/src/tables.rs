//! What all workers share and look up rarely: pools, startup parameters, what a login reports, SCRAM keys.
//!
//! Behind locks, and only on slow paths: a login, a session's first use of a node, the opening of a connection.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pgweir_auth::{ScramKeys, ScramVerifier, Secret};
use pgweir_backend::ServerConnection;
use pgweir_model::{NodeId, PoolKey};
use pgweir_session::{ParameterSet, SharedParameters};

use crate::meaning::Defaults;
use crate::pools::PoolCap;

/// Entries per table. Chosen: some thousand users and parameter sets are usual at most; beyond that a table is emptied
/// and fills again, which costs a login or two.
const ENTRIES_LIMIT: usize = 4096;

/// The pool shared by all workers for one key.
pub(crate) type SharedPool = pgweir_pool::Shared<ServerConnection>;

/// What a login with a set of parameters finds on the server.
#[derive(Debug)]
pub(crate) struct LoginFacts {
    /// The parameters that the server reports.
    pub(crate) parameters: Vec<(Box<str>, Box<str>)>,
    /// Some that it does not report.
    pub(crate) defaults: Defaults,
}

/// Shared by the logins that find the same.
pub(crate) type Reported = Arc<LoginFacts>;

/// Who logs in where with which parameters: they are told the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct LoginKey {
    pub(crate) cluster: u16,
    pub(crate) database: Arc<str>,
    pub(crate) user: Arc<str>,
    pub(crate) parameters: u64,
}

/// What a user proves to know by SCRAM, and the clear-text password that this was derived from: a login that began before a
/// reload may store what it found after it, and must not bring an old password back.
#[derive(Debug)]
pub(crate) struct KnownPassword {
    pub(crate) password: Secret,
    pub(crate) verifier: ScramVerifier,
}

/// A map behind a lock that never grows beyond its limit.
#[derive(Debug)]
pub(crate) struct Table<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Table(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Table<K, V> {
    pub(crate) fn get(&self, key: &K) -> Option<V> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    pub(crate) fn insert(&self, key: K, value: V) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= ENTRIES_LIMIT {
            map.clear();
        }
        map.insert(key, value);
    }

    /// Returns the value of `key`, made by `make` if there is none.
    pub(crate) fn get_or_insert_with(&self, key: K, make: impl FnOnce() -> V) -> V {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(key)
            .or_insert_with(make)
            .clone()
    }

    /// Returns all that it holds.
    pub(crate) fn all(&self) -> Vec<(K, V)>
    where
        K: Clone,
    {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (map.iter())
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    pub(crate) fn clear(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

/// The tables.
#[derive(Debug, Default)]
pub(crate) struct SharedTables {
    /// Never emptied: as many as there are nodes times databases times users in use.
    pub(crate) pools: Table<PoolKey, Arc<SharedPool>>,
    /// Likewise, of nodes times databases.
    pub(crate) caps: Table<(NodeId, Arc<str>), Arc<PoolCap>>,
    pub(crate) reported: Table<LoginKey, Reported>,
    pub(crate) scram_keys: Table<(NodeId, Arc<str>), ScramKeys>,
    pub(crate) verifiers: Table<Arc<str>, Arc<KnownPassword>>,
    parameters: Mutex<Interner>,
    places: Table<LoginKey, u64>,
    next_place: AtomicU64,
}

#[derive(Debug, Default)]
struct Interner {
    sets: HashMap<Vec<(String, String)>, SharedParameters>,
}

impl SharedTables {
    /// Returns the number that stands for a place in a session's statements; see [`pgweir_session::ClientSession::new`].
    pub(crate) fn place(&self, key: LoginKey) -> u64 {
        // Numbers are never used twice, so a place that outlives a clean-up merely looks new.
        self.places
            .get_or_insert_with(key, || self.next_place.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Returns the one shared set with these contents.
    pub(crate) fn intern(&self, entries: Vec<(String, String)>) -> SharedParameters {
        if entries.is_empty() {
            return SharedParameters::default();
        }
        let mut interner = self
            .parameters
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = interner.sets.get(&entries) {
            return Arc::clone(set);
        }
        // Ids are never used twice, so a set that outlives a clean-up merely looks different from its successor.
        if interner.sets.len() >= ENTRIES_LIMIT {
            interner.sets.clear();
        }
        let set = Arc::new(ParameterSet::from_pairs(entries.clone()));
        interner.sets.insert(entries, Arc::clone(&set));
        set
    }
}
