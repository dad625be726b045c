//! All that the workers share, and how the proxy starts, reloads and ends.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use pgweir_admin::{EventKind, Phase, Shutdown};
use pgweir_auth::MockKey;
use pgweir_cluster::{Handle, Monitor};
use pgweir_config::{Change, Config, Document, FileError};
use pgweir_net::{Keepalive, NetError, SocketOptions};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use crate::accept;
use crate::console::{self, ConsoleHandle};
use crate::events::Events;
use crate::facts::LastCounts;
use crate::holds::Holds;
use crate::passes::Passes;
use crate::retry::Counters;
use crate::steward::Reloads;
use crate::tables::SharedTables;
use crate::telemetry::Telemetry;
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
    /// Spans cannot be exported.
    #[error("cannot export spans to {endpoint}: {reason}")]
    Telemetry {
        /// The address as configured.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// A cluster's monitor cannot be started.
    #[error("cannot watch cluster {name}: {reason}")]
    Monitor {
        /// The cluster.
        name: String,
        /// Why.
        reason: String,
    },
}

/// What the workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: ArcSwap<Config>,
    /// What `config` is made from. Its lock serialises the changes; nothing on the way of a query takes it.
    pub(crate) document: Mutex<Document>,
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
    /// Batches that wait for a primary, at most `max_queue`.
    pub(crate) awaiting_primary: AtomicUsize,
    pub(crate) phase: watch::Sender<Phase>,
    /// How an operator has ordered the end.
    pub(crate) ending: watch::Sender<Option<Shutdown>>,
    /// What is held back, or closed to new clients.
    pub(crate) holds: Holds,
    pub(crate) passes: Arc<Passes>,
    pub(crate) events: Arc<Events>,
    pub(crate) console: ConsoleHandle,
    pub(crate) reloads: Reloads,
    pub(crate) started_at: SystemTime,
    /// Where spans go, if anywhere.
    pub(crate) telemetry: Option<Telemetry>,
    on_config: OnConfig,
    workers: OnceLock<Vec<WorkerHandle>>,
}

/// Who is told of each configuration that is taken over: the program, for what belongs to the process.
#[derive(Default)]
struct OnConfig(OnceLock<Told>);

/// Told of a configuration.
type Told = Box<dyn Fn(&Config) + Send + Sync>;

impl std::fmt::Debug for OnConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OnConfig")
            .field(&self.0.get().is_some())
            .finish()
    }
}

/// A worker as others see it.
#[derive(Debug)]
pub(crate) struct WorkerHandle {
    pub(crate) mail: UnboundedSender<Mail>,
    pub(crate) clients: AtomicUsize,
    /// What it had counted when it was last asked.
    pub(crate) counted: LastCounts,
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

    /// Has everything follow the configuration that was just stored.
    pub(crate) fn announce_config(&self) {
        let config = self.config.load();
        if let Some(telemetry) = &self.telemetry {
            telemetry.follow(&config.telemetry);
        }
        if let Some(told) = self.on_config.0.get() {
            told(&config);
        }
        for worker in 0..self.workers().len() {
            self.send(worker, Mail::ConfigChanged);
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    fn enter(&self, phase: Phase) {
        let message = match phase {
            Phase::Serving => "serves",
            Phase::Lingering => "takes no new clients and ends when all have left",
            Phase::Draining => "takes no new clients and lets transactions end",
            Phase::Stopping => "ends",
        };
        self.events.record(EventKind::Process, "", message);
        self.phase.send_replace(phase);
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
    pub(crate) shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    addresses: Vec<String>,
}

/// Starts a monitor for each cluster.
fn watch_clusters(config: &Config, events: &Arc<Events>) -> Result<Vec<Handle>, StartError> {
    let mut clusters = Vec::new();
    for (index, cluster) in config.clusters.iter().enumerate() {
        let index = u16::try_from(index).unwrap_or(u16::MAX);
        let settings = pgweir_cluster::Settings::new(cluster, index, config.server.zone.as_deref());
        let handle = Monitor::start_telling(settings, events.sink());
        let handle = handle.map_err(|error| StartError::Monitor {
            name: cluster.name.to_string(),
            reason: error.to_string(),
        })?;
        clusters.push(handle);
    }
    Ok(clusters)
}

impl Proxy {
    /// Binds the listening sockets, then starts the monitors and the workers.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start(document: Document) -> Result<Proxy, StartError> {
        let config = Arc::clone(document.config());
        let (acceptor, addresses) = accept::Acceptor::bind(&config.server)?;
        let events = Arc::new(Events::default());
        let telemetry = Telemetry::start(&config.telemetry)?;
        let clusters = watch_clusters(&config, &events)?;
        let worker_count = match config.server.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => usize::from(count),
        };
        let (console, console_mail) = ConsoleHandle::new();
        let shared = Arc::new(Shared {
            config: ArcSwap::new(config),
            document: Mutex::new(document),
            clusters,
            tables: SharedTables::default(),
            mock: MockKey::new(rand::random()),
            clients: AtomicUsize::new(0),
            epoch: AtomicU64::new(1),
            retries: Counters::default(),
            awaiting_primary: AtomicUsize::new(0),
            phase: watch::Sender::new(Phase::Serving),
            ending: watch::Sender::new(None),
            holds: Holds::default(),
            passes: Arc::default(),
            events,
            console,
            reloads: Reloads::default(),
            started_at: SystemTime::now(),
            telemetry,
            on_config: OnConfig::default(),
            workers: OnceLock::new(),
        });
        let mut handles = Vec::new();
        let mut receivers = Vec::new();
        for _ in 0..worker_count {
            let (mail, receiver) = tokio::sync::mpsc::unbounded_channel();
            handles.push(WorkerHandle {
                mail,
                clients: AtomicUsize::new(0),
                counted: LastCounts::default(),
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
        let console = console::spawn(Arc::clone(&shared), console_mail);
        threads.push(console.map_err(StartError::Thread)?);
        shared.events.record(EventKind::Process, "", "has started");
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

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Returns the configuration that is in force.
    pub fn config(&self) -> Arc<Config> {
        self.shared.config.load_full()
    }

    /// Reads the file again and takes over what can be; returns what differs from what ran. What was changed on the console
    /// and not saved is gone.
    ///
    /// # Errors
    /// [`FileError::NoFile`] and [`FileError::Invalid`]; nothing has changed.
    pub fn reload(&self) -> Result<Vec<Change>, FileError> {
        self.shared.reread()
    }

    /// Returns what hears of the end that an operator orders on the console; whoever started the proxy acts on it.
    pub fn end_orders(&self) -> EndOrders {
        EndOrders(self.shared.ending.subscribe())
    }

    /// Has `told` be called with each configuration that is taken over from now on. The first that asks is served.
    pub fn on_config(&self, told: impl Fn(&Config) + Send + Sync + 'static) {
        let _another_asked_first = self.shared.on_config.0.set(Box::new(told));
    }

    /// Has every message of a client written down from now on, without values, until the receiver is dropped or the client goes.
    ///
    /// # Errors
    /// There is no such client, or it is being traced already.
    pub async fn trace(
        &self,
        client: u32,
    ) -> Result<tokio::sync::mpsc::Receiver<pgweir_admin::TraceLine>, pgweir_admin::Refusal> {
        self.shared.trace(client).await
    }

    /// Refuses new clients and lets sessions end between transactions; after `limit` ends them all, and at once where an
    /// operator orders an end. Returns when all threads have ended.
    pub fn drain(self, limit: Duration) {
        self.leave(Phase::Draining, limit);
    }

    /// Refuses new clients and lets those that there are go on until they leave. An operator may order another end meanwhile,
    /// which is followed. Returns when all threads have ended.
    pub fn linger(self) {
        self.leave(Phase::Lingering, Duration::MAX);
    }

    fn leave(self, phase: Phase, limit: Duration) {
        // What was ordered before has led here.
        let mut orders = self.end_orders();
        let shared = Arc::clone(&self.shared);
        // What was ordered since the order that has led here.
        let phase = match *shared.ending.borrow() {
            Some(Shutdown::Now) => return self.stop(),
            Some(Shutdown::WaitForServers) => phase.max(Phase::Draining),
            Some(Shutdown::WaitForClients) | None => phase,
        };
        shared.enter(phase);
        let all_gone = async {
            let mut poll = tokio::time::interval(DRAIN_POLL);
            while shared.clients.load(Ordering::Relaxed) > 0 {
                tokio::select! {
                    _ = poll.tick() => {}
                    order = orders.next() => {
                        match order {
                            Shutdown::Now => return,
                            Shutdown::WaitForServers if shared.phase() < Phase::Draining => {
                                shared.enter(Phase::Draining);
                            }
                            // Nobody is sent away because what is under way was ordered twice.
                            Shutdown::WaitForServers | Shutdown::WaitForClients => {}
                        }
                    }
                }
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
        self.shared.enter(Phase::Stopping);
        for thread in self.threads {
            // A worker that panicked has said so.
            let _panicked = thread.join();
        }
        for cluster in &self.shared.clusters {
            cluster.stop();
        }
        if let Some(telemetry) = &self.shared.telemetry {
            telemetry.finish();
        }
    }
}

/// The ends that an operator orders.
#[derive(Debug)]
pub struct EndOrders(watch::Receiver<Option<Shutdown>>);

impl EndOrders {
    /// Waits for the next one. Several that come at once are one.
    ///
    /// # Cancel safety
    /// Safe: an order that comes in between is seen by the next call.
    pub async fn next(&mut self) -> Shutdown {
        loop {
            if self.0.changed().await.is_err() {
                // The proxy has ended.
                return std::future::pending().await;
            }
            if let Some(how) = *self.0.borrow_and_update() {
                return how;
            }
        }
    }
}

/// How often a drain looks whether all clients are gone.
const DRAIN_POLL: Duration = Duration::from_millis(20);
