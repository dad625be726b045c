//! The snapshots of the catalogs of a cluster's databases: who asks for them, when they are read, when they stop to vouch.
//!
//! One thread per cluster reads and follows catalogs, so that neither a client's query nor the sampling of lag waits for it.
//! A database is read when a session first asks for it, every `catalog_refresh`, and after DDL that passed through the proxy;
//! from the moment that the proxy knows of the DDL until then, the old snapshot is stale.
//!
//! ## Limits
//! A load that took some time is not repeated within ten times that, so that a migration of many steps costs the primary a
//! tenth of a core at most; at least 100 ms lie between two loads. DDL is known by the words of a statement, of a `DO` block, and of
//! the functions and procedures that a statement reaches. What is changed past the proxy, by `COMMIT PREPARED`, by a trigger, or by
//! text that a function is given or puts together is noticed at the next `catalog_refresh`: no sign of it is both cheap and
//! certain, as PostgreSQL counts changes of its catalogs late and not where `track_counts` is off. Until then a function that has
//! become one that writes costs a replay, as the replica refuses it.
//! Databases beyond [`CATALOGS_LIMIT`] have no snapshot, and one that
//! nobody uses is forgotten.

mod load;
mod rows;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Cache};
use pgweir_model::catalog::{Catalog, Objects, Policy};
use pgweir_sql::catalog::Source;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::catalog::load::{LoadError, Memory, load};
use crate::error::StartError;
use crate::handle::Shared;

/// Most databases of a cluster, by name and by what the configuration says of their functions, whose catalogs are kept.
/// Chosen: a cluster has few databases that are in use at a time, and a snapshot of a large one takes tens of MiB.
pub const CATALOGS_LIMIT: usize = 256;

/// The least time between two loads.
const SPACING: Duration = Duration::from_millis(100);
/// How many times as long as a load took is waited before the next.
const REST_FACTOR: u32 = 10;
/// The first wait after a failure; it doubles with each, up to `catalog_refresh`.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// How long a whole load may take. Chosen: fifty thousand relations take a few seconds.
const LOAD_TIMEOUT: Duration = Duration::from_secs(120);

/// The catalogs of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Catalogs {
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
    /// A slot is new.
    added: Notify,
}

type Key = (Arc<str>, Arc<Policy>);

/// The snapshot of one database, under one policy.
#[derive(Debug)]
struct Slot {
    database: Arc<str>,
    policy: Arc<Policy>,
    /// What readers see; each of them holds the `Arc`, which is how it is known whether there are any.
    seen: Arc<ArcSwapOption<Catalog>>,
    state: Mutex<SlotState>,
    /// Somebody wants a new snapshot.
    wake: Notify,
    published: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct SlotState {
    /// Counts the requests for a new snapshot.
    requests: u64,
    version: u64,
    /// Somebody looks after it.
    is_watched: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Catalogs {
    /// Returns a reader of the snapshots of a database, which is read from now on.
    pub(crate) fn reader(&self, database: &str, policy: &Arc<Policy>) -> CatalogReader {
        let key = (Arc::from(database), Arc::clone(policy));
        let mut slots = lock(&self.slots);
        let full = slots.len() >= CATALOGS_LIMIT;
        let slot = match slots.entry(key) {
            Entry::Occupied(slot) => Arc::clone(slot.get()),
            Entry::Vacant(place) => {
                let slot = Arc::new(Slot::new(database, policy));
                if !full {
                    place.insert(Arc::clone(&slot));
                    self.added.notify_one();
                }
                slot
            }
        };
        CatalogReader {
            cache: Cache::new(Arc::clone(&slot.seen)),
            slot,
        }
    }

    /// Marks the snapshots of a database as stale and has them read anew.
    pub(crate) fn refresh(&self, database: &str) {
        let slots = lock(&self.slots);
        let of_database = slots.values().filter(|slot| *slot.database == *database);
        of_database.for_each(|slot| slot.request());
    }

    /// Marks all snapshots as stale and has them read anew; returns how many.
    pub(crate) fn refresh_all(&self) -> usize {
        let slots = lock(&self.slots);
        slots.values().for_each(|slot| slot.request());
        slots.len()
    }

    fn unwatched(&self) -> Vec<Arc<Slot>> {
        let slots = lock(&self.slots);
        let new = slots
            .values()
            .filter(|slot| !std::mem::replace(&mut lock(&slot.state).is_watched, true));
        new.cloned().collect()
    }

    /// Forgets a slot that nobody reads; returns whether it did.
    fn forget_unused(&self, slot: &Slot) -> bool {
        let mut slots = lock(&self.slots);
        // Readers are made under the lock: no new one can come in between.
        let unused = Arc::strong_count(&slot.seen) == 1;
        if unused {
            slots.remove(&(Arc::clone(&slot.database), Arc::clone(&slot.policy)));
        }
        unused
    }
}

impl Slot {
    fn new(database: &str, policy: &Arc<Policy>) -> Self {
        Slot {
            database: database.into(),
            policy: Arc::clone(policy),
            seen: Arc::default(),
            state: Mutex::default(),
            wake: Notify::new(),
            published: watch::Sender::new(0),
        }
    }

    fn requests(&self) -> u64 {
        lock(&self.state).requests
    }

    fn request(&self) {
        let mut state = lock(&self.state);
        state.requests += 1;
        if let Some(seen) = self.seen.load_full().filter(|seen| !seen.stale) {
            state.version += 1;
            self.seen.store(Some(Arc::new(Catalog {
                version: state.version,
                stale: true,
                objects: Arc::clone(&seen.objects),
            })));
        }
        self.wake.notify_one();
    }

    /// Shows what was read by a load that began after this many requests. What is shown already stays.
    fn publish(&self, objects: &Arc<Objects>, requests: u64) {
        let mut state = lock(&self.state);
        let stale = state.requests != requests;
        let is_shown = |seen: &Catalog| seen.stale == stale && Arc::ptr_eq(&seen.objects, objects);
        if self.seen.load().as_deref().is_some_and(is_shown) {
            return;
        }
        state.version += 1;
        self.seen.store(Some(Arc::new(Catalog {
            version: state.version,
            stale,
            objects: Arc::clone(objects),
        })));
        self.published.send_replace(state.version);
    }
}

/// The snapshots of one database for one thread or session.
#[derive(Debug, Clone)]
pub struct CatalogReader {
    slot: Arc<Slot>,
    cache: Cache<Arc<ArcSwapOption<Catalog>>, Option<Arc<Catalog>>>,
}

impl CatalogReader {
    /// Returns the newest snapshot; `None` before the first. It costs one atomic load.
    pub fn load(&mut self) -> Option<&Arc<Catalog>> {
        self.cache.load().as_ref()
    }

    /// Waits for a snapshot that is not stale and returns it; `None` at `deadline`.
    ///
    /// # Cancel safety
    /// Safe: nothing is consumed.
    pub async fn fresh(&self, deadline: std::time::Instant) -> Option<Arc<Catalog>> {
        let mut published = self.slot.published.subscribe();
        let deadline = Instant::from_std(deadline);
        loop {
            if let Some(seen) = self.slot.seen.load_full().filter(|seen| !seen.stale) {
                return Some(seen);
            }
            match tokio::time::timeout_at(deadline, published.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return None,
            }
        }
    }
}

/// Starts the thread that reads catalogs; it ends when the monitor stops.
pub(crate) fn start(shared: &Arc<Shared>) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    let mut stop = shared.stop.subscribe();
    let work = run(Arc::clone(shared));
    let thread = std::thread::Builder::new().name("pgweir-catalog".to_owned());
    let started = thread.spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = work => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        });
        // A name lookup may hang; nobody waits for it any more.
        runtime.shutdown_background();
    });
    started.map(drop).map_err(StartError::Thread)
}

async fn run(shared: Arc<Shared>) {
    let mut watchers = JoinSet::new();
    loop {
        for slot in shared.catalogs.unwatched() {
            watchers.spawn(watch_slot(slot, Arc::clone(&shared)));
        }
        tokio::select! {
            () = shared.catalogs.added.notified() => {}
            Some(_ended) = watchers.join_next() => {}
        }
    }
}

/// Reads one database for ever, until nobody uses it.
async fn watch_slot(slot: Arc<Slot>, shared: Arc<Shared>) {
    let mut memory = Memory::default();
    let mut failures = Failures::default();
    let mut objects = None;
    let mut settings = shared.settings.subscribe();
    loop {
        let requests = slot.requests();
        let started_at = Instant::now();
        let loaded = read(&slot, &shared, &mut memory).await;
        let took = started_at.elapsed();
        let (rest, wait) = match loaded {
            Ok(read) => {
                objects = read.or(objects);
                if let Some(objects) = &objects {
                    slot.publish(objects, requests);
                }
                failures.over(&slot, &shared, took);
                ((took * REST_FACTOR).max(SPACING), None)
            }
            Err(error) => {
                let wait = failures.add(&slot, &shared, &error);
                let refresh = shared.settings.borrow().catalog_refresh;
                (wait.min(refresh), Some(wait))
            }
        };
        let ended_at = Instant::now();
        let is_due = loop {
            let refresh = settings.borrow_and_update().catalog_refresh;
            let due = wait.map_or(refresh, |wait| wait.min(refresh)).max(rest);
            tokio::select! {
                // A request that came meanwhile has left its permit.
                woken = tokio::time::timeout_at(ended_at + due, slot.wake.notified()) => break woken.is_err(),
                // A shorter time counts from now on, not when the longer one is over.
                Ok(()) = settings.changed() => {}
            }
        };
        if is_due && shared.catalogs.forget_unused(&slot) {
            return;
        }
        tokio::time::sleep_until(ended_at + rest).await;
    }
}

/// Reads a database; `None` where nothing has changed.
async fn read(
    slot: &Slot,
    shared: &Shared,
    memory: &mut Memory,
) -> Result<Option<Arc<Objects>>, LoadError> {
    let node = primary(shared).await;
    let settings = Arc::clone(&shared.settings.borrow());
    let node = settings.nodes.get(node).ok_or(LoadError::NoPrimary)?;
    let source = load(&settings, node, &slot.database, memory);
    let source = tokio::time::timeout(LOAD_TIMEOUT, source)
        .await
        .unwrap_or(Err(LoadError::Timeout))?;
    let build = |source: Source| Arc::new(source.build(Arc::clone(&slot.policy)));
    Ok(source.map(build))
}

/// Waits for a primary.
async fn primary(shared: &Shared) -> usize {
    let mut version = shared.version.subscribe();
    loop {
        if let Some(primary) = shared.topology.load().primary {
            return primary;
        }
        if version.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The failures in a row.
#[derive(Debug, Default)]
struct Failures {
    count: u32,
    loaded: bool,
}

impl Failures {
    /// Logs the first of a row, and returns how long to wait.
    fn add(&mut self, slot: &Slot, shared: &Shared, error: &LoadError) -> Duration {
        if self.count == 0 {
            let (cluster, database) = (&*shared.settings.borrow().name, &*slot.database);
            tracing::warn!(cluster, database, %error, "catalog cannot be read: functions of users go to the primary");
        }
        let wait = BACKOFF_FIRST * 2_u32.saturating_pow(self.count.min(16));
        self.count = self.count.saturating_add(1);
        wait
    }

    fn over(&mut self, slot: &Slot, shared: &Shared, took: Duration) {
        if self.count > 0 || !self.loaded {
            let (cluster, database) = (&*shared.settings.borrow().name, &*slot.database);
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            tracing::info!(cluster, database, took_ms, "catalog read");
        }
        *self = Failures {
            count: 0,
            loaded: true,
        };
    }
}
