//! All that the workers share, and how the proxy starts, reloads and ends.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use pgweir_auth::MockKey;
use pgweir_cluster::{Handle, Monitor};
use pgweir_config::Config;
use pgweir_model::PoolKey;
use pgweir_net::{Keepalive, NetError, SocketOptions};
use pgweir_pool::Settings;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use crate::accept;
use crate::retry::Counters;
use crate::tables::{SharedPool, SharedTables};
use crate::worker::{self, Mail};

/// The proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address as configured.
        address: String,
        /// Why.
        source: NetError,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// A cluster's monitor cannot be started.
    #[error("cannot watch cluster {name}: {reason}")]
    Monitor {
        /// The cluster.
        name: String,
        /// Why.
        reason: String,
    },
}

/// How far an end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Serving.
    Serving,
    /// No new clients; sessions end when they are between transactions.
    Draining,
    /// Sessions end now.
    Stopping,
}

/// What the workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: ArcSwap<Config>,
    /// By index of the cluster.
    pub(crate) clusters: Vec<Handle>,
    pub(crate) tables: SharedTables,
    pub(crate) mock: MockKey,
    /// Clients connected, over all workers.
    pub(crate) clients: AtomicUsize,
    /// Rises with every change of the schema that passes through: statements prepared before may be stale.
    pub(crate) epoch: AtomicU64,
    /// What clients were spared.
    pub(crate) retries: Counters,
    pub(crate) phase: watch::Sender<Phase>,
    workers: OnceLock<Vec<WorkerHandle>>,
}

/// A worker as others see it.
#[derive(Debug)]
pub(crate) struct WorkerHandle {
    pub(crate) mail: UnboundedSender<Mail>,
    pub(crate) clients: AtomicUsize,
}

impl Shared {
    pub(crate) fn workers(&self) -> &[WorkerHandle] {
        self.workers.get().map(Vec::as_slice).unwrap_or_default()
    }

    /// Leaves a note for a worker. A worker that has ended does not read it.
    pub(crate) fn send(&self, worker: usize, mail: Mail) {
        if let Some(handle) = self.workers().get(worker) {
            // The receiver is gone only when the proxy ends.
            let _gone = handle.mail.send(mail);
        }
    }

    /// Returns the worker with the fewest clients.
    pub(crate) fn least_busy(&self) -> usize {
        let count = |handle: &WorkerHandle| handle.clients.load(Ordering::Relaxed);
        self.workers()
            .iter()
            .enumerate()
            .min_by_key(|(_, handle)| count(handle))
            .map_or(0, |(index, _)| index)
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Returns the pool that all workers share for a key.
    pub(crate) fn pool(self: &Arc<Self>, key: &PoolKey, limit: usize) -> Arc<SharedPool> {
        self.tables.pools.get_or_insert_with(key.clone(), || {
            let config = self.config.load();
            let settings = Settings {
                threads: self.workers().len(),
                limit,
                queue_limit: config.server.max_queue,
                overtaking: Some(0),
                lifetime: config.server.server_lifetime,
            };
            let shared = Arc::downgrade(self);
            let key = key.clone();
            SharedPool::new(
                settings,
                Box::new(move |thread| {
                    if let Some(shared) = shared.upgrade() {
                        shared.send(thread, Mail::Serve(key.clone()));
                    }
                }),
            )
        })
    }

    /// Returns the options of every TCP socket.
    pub(crate) fn socket_options(&self) -> SocketOptions {
        let config = self.config.load();
        SocketOptions {
            nodelay: true,
            keepalive: config.server.tcp_keepalive.map(|idle| Keepalive {
                idle,
                // Three probes, so that a silent peer is gone after about twice the idle time.
                interval: (idle / 3).max(Duration::from_secs(1)),
                count: 3,
            }),
            user_timeout: config.server.tcp_user_timeout,
        }
    }
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    addresses: Vec<String>,
}

impl Proxy {
    /// Binds the listening sockets, then starts the monitors and the workers.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start(config: Config) -> Result<Proxy, StartError> {
        let (acceptor, addresses) = accept::Acceptor::bind(&config.server)?;
        let mut clusters = Vec::new();
        for (index, cluster) in config.clusters.iter().enumerate() {
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            let handle =
                Monitor::start(pgweir_cluster::Settings::new(cluster, index)).map_err(|error| {
                    StartError::Monitor {
                        name: cluster.name.to_string(),
                        reason: error.to_string(),
                    }
                })?;
            clusters.push(handle);
        }
        let worker_count = match config.server.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => usize::from(count),
        };
        let shared = Arc::new(Shared {
            config: ArcSwap::from_pointee(config),
            clusters,
            tables: SharedTables::default(),
            mock: MockKey::new(rand::random()),
            clients: AtomicUsize::new(0),
            epoch: AtomicU64::new(1),
            retries: Counters::default(),
            phase: watch::Sender::new(Phase::Serving),
            workers: OnceLock::new(),
        });
        let mut handles = Vec::new();
        let mut receivers = Vec::new();
        for _ in 0..worker_count {
            let (mail, receiver) = tokio::sync::mpsc::unbounded_channel();
            handles.push(WorkerHandle {
                mail,
                clients: AtomicUsize::new(0),
            });
            receivers.push(receiver);
        }
        let _first = shared.workers.set(handles);
        let mut threads = Vec::new();
        for (index, receiver) in receivers.into_iter().enumerate() {
            threads.push(
                worker::spawn(index, Arc::clone(&shared), receiver).map_err(StartError::Thread)?,
            );
        }
        threads.push(
            acceptor
                .spawn(Arc::clone(&shared))
                .map_err(StartError::Thread)?,
        );
        Ok(Proxy {
            shared,
            threads,
            addresses,
        })
    }

    /// Returns the addresses that it listens on.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Returns the monitor of the cluster at `index`, for those who report on it.
    pub fn cluster(&self, index: usize) -> Option<&Handle> {
        self.shared.clusters.get(index)
    }

    /// Returns how many clients are connected.
    pub fn client_count(&self) -> usize {
        self.shared.clients.load(Ordering::Relaxed)
    }

    /// Takes over what can be taken over of a new configuration; returns what changed.
    pub fn reload(&self, new: Config) -> Vec<pgweir_config::Change> {
        let old = self.shared.config.load_full();
        let changes = pgweir_config::diff(&old, &new);
        let kept = pgweir_config::take_over(&old, &new);
        for (index, (handle, cluster)) in
            self.shared.clusters.iter().zip(&kept.clusters).enumerate()
        {
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            handle.reconfigure(pgweir_cluster::Settings::new(cluster, index));
        }
        self.shared.config.store(Arc::new(kept));
        self.shared.tables.reported.clear();
        for worker in 0..self.shared.workers().len() {
            self.shared.send(worker, Mail::ConfigChanged);
        }
        changes
    }

    /// Refuses new clients and lets sessions end between transactions; after `limit` ends them all. Returns when all
    /// threads have ended.
    pub fn drain(self, limit: Duration) {
        self.shared.phase.send_replace(Phase::Draining);
        let shared = Arc::clone(&self.shared);
        let all_gone = async {
            let mut poll = tokio::time::interval(DRAIN_POLL);
            while shared.clients.load(Ordering::Relaxed) > 0 {
                poll.tick().await;
            }
        };
        if let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
        {
            // At the limit the rest is ended below.
            let _in_time = runtime.block_on(async { tokio::time::timeout(limit, all_gone).await });
        }
        self.stop();
    }

    /// Ends all sessions now. Returns when all threads have ended.
    pub fn stop(self) {
        self.shared.phase.send_replace(Phase::Stopping);
        for thread in self.threads {
            // A worker that panicked has said so.
            let _panicked = thread.join();
        }
        for cluster in &self.shared.clusters {
            cluster.stop();
        }
    }
}

/// How often a drain looks whether all clients are gone.
const DRAIN_POLL: Duration = Duration::from_millis(20);
