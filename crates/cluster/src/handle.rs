//! What the data path holds of a monitor: snapshots to read, signals to send.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use arc_swap::{ArcSwap, Cache};
use pgweir_model::catalog::Policy;
use pgweir_model::{NodeId, Topology};
use tokio::sync::{Notify, watch};

use crate::catalog::{CatalogReader, Catalogs};
use crate::settings::Settings;

/// No server takes writes before the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no primary is available")]
pub struct NoPrimary;

/// What the monitor's thread and its handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) topology: Arc<ArcSwap<Topology>>,
    /// The version of `topology`.
    pub(crate) version: watch::Sender<u64>,
    /// Set by a poke, cleared when the sampler takes it up: pokes in between cost one load.
    pub(crate) poked: AtomicBool,
    pub(crate) poke: Notify,
    /// One per node: look at it now.
    pub(crate) check: Vec<Notify>,
    pub(crate) settings: watch::Sender<Arc<Settings>>,
    pub(crate) catalogs: Catalogs,
    /// Turns true when the last handle goes, or at [`Handle::stop`].
    pub(crate) stop: watch::Sender<bool>,
}

/// A running monitor. Clones share it; it stops when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Handle {
    guard: Arc<StopOnDrop>,
}

#[derive(Debug)]
struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop.send_replace(true);
    }
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Handle {
            guard: Arc::new(StopOnDrop(shared)),
        }
    }

    fn shared(&self) -> &Shared {
        &self.guard.0
    }

    /// Returns the newest snapshot.
    pub fn topology(&self) -> Arc<Topology> {
        self.shared().topology.load_full()
    }

    /// Returns a reader for one worker thread, which costs one atomic load per look.
    pub fn reader(&self) -> TopologyReader {
        TopologyReader {
            _keep: self.clone(),
            cache: Cache::new(Arc::clone(&self.shared().topology)),
        }
    }

    /// Returns a reader of the snapshots of a database's catalog, which is read from now on. `database` is its name on the
    /// servers. It takes a lock: a session asks once.
    pub fn catalog(&self, database: &str, policy: &Arc<Policy>) -> CatalogReader {
        self.shared().catalogs.reader(database, policy)
    }

    /// Says that the schema of a database has changed: when this returns, the snapshot is stale for every reader, and a new
    /// one will be read.
    pub fn refresh_catalog(&self, database: &str) {
        self.shared().catalogs.refresh(database);
    }

    /// Says that a transaction that wrote has ended: the primary is sampled now rather than at the next tick.
    ///
    /// Cheap and coalesced; a sample that was sent earlier does not count for it.
    pub fn poke(&self) {
        let shared = self.shared();
        // Without another server nobody asks what has been replayed where.
        if shared.check.len() < 2 {
            return;
        }
        // The load keeps the cache line shared among threads while a poke is under way.
        if !shared.poked.load(Ordering::Relaxed) && !shared.poked.swap(true, Ordering::AcqRel) {
            shared.poke.notify_one();
        }
    }

    /// Says that the data path could not connect to a node, or lost it: it is looked at now.
    ///
    /// The node's health changes only by what the monitor then sees.
    pub fn report_failure(&self, node: NodeId) {
        if let Some(check) = self.shared().check.get(usize::from(node.node)) {
            check.notify_one();
        }
    }

    /// Takes over limits, weights and intervals, and returns whether it did: the servers must be as many, in the same
    /// order. Addresses and the login stay as they were at the start.
    pub fn reconfigure(&self, settings: Settings) -> bool {
        let fits = settings.nodes.len() == self.shared().check.len();
        if fits {
            self.shared().settings.send_replace(Arc::new(settings));
        }
        fits
    }

    /// Waits for the next snapshot after the call.
    ///
    /// # Cancel safety
    /// Safe: nothing is consumed.
    pub async fn changed(&self) {
        let mut version = self.shared().version.subscribe();
        // An error means that the monitor has gone, which cannot be while a handle is held.
        let _gone = version.changed().await;
    }

    /// Waits until a server takes writes.
    ///
    /// # Errors
    /// [`NoPrimary`] at `deadline`; the client should try again later.
    ///
    /// # Cancel safety
    /// Safe: nothing is consumed.
    pub async fn wait_for_primary(&self, deadline: Instant) -> Result<Arc<Topology>, NoPrimary> {
        self.wait_until(deadline, |topology| topology.primary.is_some())
            .await
            .ok_or(NoPrimary)
    }

    /// Waits until a snapshot satisfies `condition` and returns it; `None` at `deadline`.
    ///
    /// # Cancel safety
    /// Safe: nothing is consumed.
    pub async fn wait_until(
        &self,
        deadline: Instant,
        mut condition: impl FnMut(&Topology) -> bool,
    ) -> Option<Arc<Topology>> {
        let mut version = self.shared().version.subscribe();
        let deadline = tokio::time::Instant::from_std(deadline);
        loop {
            let topology = self.topology();
            if condition(&topology) {
                return Some(topology);
            }
            match tokio::time::timeout_at(deadline, version.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return None,
            }
        }
    }

    /// Stops the monitor; the last snapshot stands and expires.
    pub fn stop(&self) {
        self.shared().stop.send_replace(true);
    }
}

/// The newest snapshot for one thread.
#[derive(Debug, Clone)]
pub struct TopologyReader {
    _keep: Handle,
    cache: Cache<Arc<ArcSwap<Topology>>, Arc<Topology>>,
}

impl TopologyReader {
    /// Returns the newest snapshot. One decision uses one of them.
    pub fn load(&mut self) -> &Arc<Topology> {
        self.cache.load()
    }
}
