//! What the data path holds of a monitor: snapshots to read, signals to send.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use arc_swap::{ArcSwap, Cache};
use pgweir_model::catalog::Policy;
use pgweir_model::{NodeId, Topology};
use tokio::sync::{Notify, watch};

use crate::catalog::{CatalogReader, Catalogs};
use crate::event::Sink;
use crate::record::{NodeRecord, Records};
use crate::settings::Settings;
use crate::signals::{Signals, Urgency};

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
    /// How many sessions wait for what the servers answer.
    pub(crate) waiting: AtomicUsize,
    /// Sessions ask where the replicas are; cleared when one has answered.
    pub(crate) settling: AtomicBool,
    /// One per node.
    pub(crate) signals: Vec<Signals>,
    pub(crate) settings: watch::Sender<Arc<Settings>>,
    pub(crate) catalogs: Catalogs,
    pub(crate) records: Records,
    /// Who is told of events.
    pub(crate) sink: Sink,
    /// Turns true when the last handle goes, or at [`Handle::stop`].
    pub(crate) stop: watch::Sender<bool>,
}

/// A running monitor. Clones share it; it stops when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Handle {
    guard: Arc<StopOnDrop>,
}

/// A session that waits: see [`Handle::hurry`].
#[derive(Debug)]
pub struct Hurry(Arc<Shared>);

impl Drop for Hurry {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
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
        if shared.signals.len() < 2 {
            return;
        }
        // The load keeps the cache line shared among threads while a poke is under way.
        if !shared.poked.load(Ordering::Relaxed) && !shared.poked.swap(true, Ordering::AcqRel) {
            shared.poke.notify_one();
        }
    }

    /// Says that a session waits for what a poke is for: until the guard is dropped the servers are asked as fast as they
    /// answer.
    pub fn hurry(&self) -> Hurry {
        let shared = Arc::clone(&self.guard.0);
        shared.waiting.fetch_add(1, Ordering::AcqRel);
        shared.poked.store(true, Ordering::Release);
        shared.poke.notify_one();
        Hurry(shared)
    }

    /// Says that a session is bound to a replica until it is known where that stands. Cheap and coalesced, as a poke.
    pub fn settle(&self) {
        let shared = self.shared();
        if shared.settling.load(Ordering::Relaxed) || shared.settling.swap(true, Ordering::AcqRel) {
            return;
        }
        let primary = shared.topology.load().primary;
        let replicas = shared.signals.iter().enumerate();
        for (_, signals) in replicas.filter(|(node, _)| Some(*node) != primary) {
            signals.ask(Urgency::Usual);
        }
    }

    /// Says that the data path could not connect to a node, or lost it: it is looked at now, and its breaker counts it.
    ///
    /// The node's health changes only by what the monitor then sees.
    pub fn report_failure(&self, node: NodeId) {
        if let Some(signals) = self.shared().signals.get(usize::from(node.node)) {
            signals.failed();
            signals.ask(Urgency::Usual);
        }
    }

    /// Says that something has happened to a node's connections which is no failure of the node: it is looked at now.
    pub fn look_at(&self, node: NodeId) {
        if let Some(signals) = self.shared().signals.get(usize::from(node.node)) {
            signals.ask(Urgency::Usual);
        }
    }

    /// Says that a node has answered the data path. One load, unless its breaker wants to know.
    pub fn report_success(&self, node: NodeId) {
        if let Some(signals) = self.shared().signals.get(usize::from(node.node)) {
            signals.succeeded();
        }
    }

    /// Says that all schemas may have changed, as [`Handle::refresh_catalog`] does of one; returns how many snapshots are read
    /// anew.
    pub fn refresh_catalogs(&self) -> usize {
        self.shared().catalogs.refresh_all()
    }

    /// Takes over limits, weights and intervals, and returns whether it did: the servers must be as many, in the same
    /// order. Addresses and the login's name stay as they were at the start, and what is drained stays so.
    pub fn reconfigure(&self, mut settings: Settings) -> bool {
        let fits = settings.nodes.len() == self.shared().signals.len();
        if fits {
            self.shared().settings.send_modify(|known| {
                for (new, old) in settings.nodes.iter_mut().zip(&known.nodes) {
                    new.is_drained = old.is_drained;
                }
                *known = Arc::new(settings);
            });
        }
        fits
    }

    /// Lets nothing new run on a node, or takes that back; returns whether that is news. The next snapshot, which is published
    /// at once, says so.
    pub fn set_drained(&self, node: NodeId, is_drained: bool) -> bool {
        self.shared().settings.send_if_modified(|known| {
            let mut settings = Settings::clone(known);
            let Some(node) = settings.nodes.get_mut(usize::from(node.node)) else {
                return false;
            };
            let is_news = std::mem::replace(&mut node.is_drained, is_drained) != is_drained;
            if is_news {
                *known = Arc::new(settings);
            }
            is_news
        })
    }

    /// Returns the history of each server.
    pub fn records(&self) -> Vec<NodeRecord> {
        self.shared().records.all()
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
