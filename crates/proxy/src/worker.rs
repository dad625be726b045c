//! One worker: a thread, its single-threaded runtime, and what its sessions share without locks.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pgweir_backend::{Address, ServerConnection};
use pgweir_cluster::TopologyReader;
use pgweir_model::{NodeId, PoolKey, Topology};
use pgweir_net::{StdStream, Stream};
use pgweir_pool::LocalPool;
use pgweir_route::{Balancer, Loads, RuleSet};
use pgweir_session::{StatementTable, Tables};
use pgweir_sql::plan::PlanTable;
use pgweir_wire::Gather;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use crate::cancel::Slots;
use crate::login;
use crate::proxy::{Phase, Shared};

/// Bytes per read, in either direction. One buffer serves all sessions of a thread.
///
/// Chosen: fits the second-level cache together with the socket buffers' pages; larger reads gained nothing for results
/// of 1 GiB, smaller ones cost more system calls.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// How often the worker's clock is set. It dates idle connections and judges the age of snapshots, which are a matter
/// of seconds; what must be exact reads the clock itself.
const CLOCK_PERIOD: Duration = Duration::from_millis(50);

/// How often idle connections are looked through.
const REAP_PERIOD: Duration = Duration::from_secs(1);

/// Text of prepared statements that one worker keeps per generation.
const STATEMENT_BYTES_LIMIT: usize = 32 * 1024 * 1024;

/// The generation of the rules that a worker starts with.
const FIRST_RULES: u64 = 1;

/// A note for a worker, from any thread.
#[derive(Debug)]
pub(crate) enum Mail {
    /// A new client.
    Client(StdStream),
    /// A CancelRequest for one of its clients.
    Cancel {
        /// The process ID that we gave the client.
        process_id: u32,
        /// The secret that the request carries.
        secret: Box<[u8]>,
        /// Dropped when the request has been dealt with.
        done: oneshot::Sender<()>,
    },
    /// Somebody waits for a connection of this pool.
    Serve(PoolKey),
    /// The configuration was replaced.
    ConfigChanged,
}

/// What the sessions of one thread share.
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) buffer: RefCell<Box<[u8]>>,
    pub(crate) gather: RefCell<Gather>,
    pub(crate) tables: RefCell<Tables>,
    pub(crate) slots: Slots,
    /// Shared with every task that tells a server to stop what nobody waits for any more: the worker ends after them.
    pub(crate) farewells: Rc<()>,
    clusters: Vec<RefCell<ClusterView>>,
    pools: RefCell<HashMap<PoolKey, LocalPool<ServerConnection>>>,
    clock: Cell<Instant>,
    /// As last heard: read at every turn of every session, so it is no lock's.
    phase: Cell<Phase>,
    rules: RefCell<Rc<RuleSet>>,
    /// That of `rules`; 0 where there are none.
    rules_generation: Cell<u64>,
    /// How many sets of rules there have been: the generation of the last.
    rules_made: Cell<u64>,
}

/// One cluster as a worker sees it.
pub(crate) struct ClusterView {
    pub(crate) topology: TopologyReader,
    pub(crate) loads: Loads,
    pub(crate) balancer: Balancer,
    addresses: Vec<Arc<Address>>,
}

impl Worker {
    fn new(index: usize, shared: Arc<Shared>) -> Self {
        let config = shared.config.load();
        let view = |(handle, cluster): (&pgweir_cluster::Handle, &pgweir_config::Cluster)| {
            let address = |backend: &pgweir_config::Backend| {
                Arc::new(Address {
                    host: Arc::clone(&backend.host),
                    port: backend.port,
                })
            };
            RefCell::new(ClusterView {
                topology: handle.reader(),
                loads: Loads::new(),
                balancer: Balancer::new(rand::random()),
                addresses: cluster.backends.iter().map(address).collect(),
            })
        };
        let rules = crate::rules::compile(&config, FIRST_RULES);
        let worker_number = u16::try_from(index).unwrap_or(u16::MAX);
        let capacity = config.server.statement_cache;
        let tables = Tables {
            plans: PlanTable::new(capacity),
            statements: StatementTable::new(worker_number, capacity, STATEMENT_BYTES_LIMIT),
            epoch: 0,
        };
        Worker {
            index,
            buffer: RefCell::new(vec![0; READ_BUFFER_BYTES].into_boxed_slice()),
            gather: RefCell::new(Gather::new()),
            tables: RefCell::new(tables),
            slots: Slots::new(index),
            clusters: shared
                .clusters
                .iter()
                .zip(&config.clusters)
                .map(view)
                .collect(),
            farewells: Rc::default(),
            pools: RefCell::default(),
            clock: Cell::new(Instant::now()),
            phase: Cell::new(Phase::Serving),
            rules_made: Cell::new(FIRST_RULES),
            rules_generation: Cell::new(rules.generation()),
            rules: RefCell::new(Rc::new(rules)),
            shared: Arc::clone(&shared),
        }
    }

    /// Returns the generation of the rules that hold now; 0 where there are none.
    pub(crate) fn rules_generation(&self) -> u64 {
        self.rules_generation.get()
    }

    /// Returns the rules that hold now.
    pub(crate) fn rules(&self) -> Rc<RuleSet> {
        Rc::clone(&self.rules.borrow())
    }

    /// Takes the rules of the present configuration over.
    fn apply_rules(&self, config: &pgweir_config::Config) {
        self.rules_made.set(self.rules_made.get() + 1);
        let rules = crate::rules::compile(config, self.rules_made.get());
        self.rules_generation.set(rules.generation());
        self.rules.replace(Rc::new(rules));
    }

    /// Returns the time to within [`CLOCK_PERIOD`], without a look at the clock.
    pub(crate) fn coarse_now(&self) -> Instant {
        self.clock.get()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(crate) fn cluster(&self, index: u16) -> Option<&RefCell<ClusterView>> {
        self.clusters.get(usize::from(index))
    }

    /// Returns the newest snapshot of a cluster.
    pub(crate) fn topology(&self, cluster: u16) -> Arc<Topology> {
        match self.cluster(cluster) {
            Some(view) => Arc::clone(view.borrow_mut().topology.load()),
            None => Arc::default(),
        }
    }

    pub(crate) fn address(&self, node: NodeId) -> Option<Arc<Address>> {
        self.cluster(node.cluster)?
            .borrow()
            .addresses
            .get(usize::from(node.node))
            .cloned()
    }

    /// Returns this thread's part of a pool.
    pub(crate) fn pool(&self, key: &PoolKey, limit: usize) -> LocalPool<ServerConnection> {
        if let Some(pool) = self.pools.borrow().get(key) {
            return pool.clone();
        }
        let pool = LocalPool::new(self.shared.pool(key, limit), self.index);
        self.pools.borrow_mut().insert(key.clone(), pool.clone());
        pool
    }

    fn serve(&self, key: &PoolKey) {
        // A thread that has no part of the pool has nothing to hand out, and is not asked: it publishes nothing.
        let pool = self.pools.borrow().get(key).cloned();
        if let Some(pool) = pool {
            pool.serve();
        }
    }

    /// Takes the limits of the pools and the rules of the present configuration over.
    fn apply_config(&self) {
        let config = self.shared.config.load();
        self.apply_rules(&config);
        let pools: Vec<_> = self
            .pools
            .borrow()
            .iter()
            .map(|(key, pool)| (key.clone(), pool.clone()))
            .collect();
        for (key, pool) in pools {
            let size = config
                .databases
                .iter()
                .find(|db| {
                    db.cluster_index == key.node.cluster
                        && db.server_name(&key.database) == &*key.database
                })
                .map(|db| db.pool_size);
            if let Some(size) = size {
                pool.shared()
                    .set_limit(usize::try_from(size).unwrap_or(usize::MAX));
            }
            pool.shared().set_lifetime(config.server.server_lifetime);
            pool.shared().set_queue_limit(config.server.max_queue);
        }
    }

    fn reap(&self) {
        let config = self.shared.config.load();
        let min = config
            .databases
            .iter()
            .map(|db| db.pool_min)
            .max()
            .unwrap_or(0);
        let min = usize::try_from(min).unwrap_or(usize::MAX);
        let pools: Vec<_> = self.pools.borrow().values().cloned().collect();
        for pool in pools {
            pool.reap(self.coarse_now(), config.server.server_idle_timeout, min);
        }
    }
}

/// Starts a worker; returns once its runtime stands.
pub(crate) fn spawn(
    index: usize,
    shared: Arc<Shared>,
    mail: UnboundedReceiver<Mail>,
) -> Result<JoinHandle<()>, std::io::Error> {
    let (built, is_built) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new()
        .name(format!("pgweir-{index}"))
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                // The default of 61 makes a busy thread ask the reactor rarely; sockets are all that it has.
                .event_interval(31)
                .build_local(tokio::runtime::LocalOptions::default());
            match runtime {
                Ok(runtime) => {
                    // The starter waits for this.
                    let _waits = built.send(Ok(()));
                    runtime.block_on(async move {
                        serve(Rc::new(Worker::new(index, shared)), mail).await
                    });
                }
                Err(error) => {
                    let _waits = built.send(Err(error));
                }
            }
        })?;
    is_built
        .recv()
        .unwrap_or_else(|_| Err(std::io::Error::other("the thread ended at once")))?;
    Ok(thread)
}

/// The worker's own task: its mail, its clock, its reaper. Ends when the proxy stops.
async fn serve(worker: Rc<Worker>, mut mail: UnboundedReceiver<Mail>) {
    let mut phase = worker.shared.phase.subscribe();
    // The proxy may have been told to stop before this thread listened.
    phase.mark_changed();
    let mut clock = tokio::time::interval(CLOCK_PERIOD);
    let mut reaped_at = worker.coarse_now();
    loop {
        tokio::select! {
            received = mail.recv() => match received {
                Some(note) => on_mail(&worker, note),
                None => return,
            },
            _ = clock.tick() => {
                worker.clock.set(Instant::now());
                if worker.coarse_now().duration_since(reaped_at) >= REAP_PERIOD {
                    reaped_at = worker.coarse_now();
                    worker.reap();
                }
            }
            changed = phase.changed() => {
                worker.phase.set(worker.shared.phase());
                worker.slots.wake_all();
                if changed.is_err() || worker.phase() == Phase::Stopping {
                    break;
                }
            }
        }
    }
    // Sessions say goodbye to their clients; those whose client does not listen are dropped with the runtime.
    let goodbye = async {
        let mut poll = tokio::time::interval(GOODBYE_POLL);
        while worker.slots.len() > 0 || Rc::strong_count(&worker.farewells) > 1 {
            worker.slots.wake_all();
            poll.tick().await;
        }
    };
    let _in_time = tokio::time::timeout(GOODBYE_LIMIT, goodbye).await;
}

/// How long sessions have to say goodbye when the proxy stops.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);
const GOODBYE_POLL: Duration = Duration::from_millis(5);

fn on_mail(worker: &Rc<Worker>, note: Mail) {
    match note {
        Mail::Client(stream) => {
            let counted = Counted::new(Rc::clone(worker));
            match Stream::from_std(stream) {
                Ok(stream) => {
                    // Detached: the session ends by itself, or with the worker's runtime.
                    drop(tokio::task::spawn_local(login::serve(counted, stream)));
                }
                Err(error) => tracing::warn!(%error, "cannot take over a new connection"),
            }
        }
        Mail::Cancel {
            process_id,
            secret,
            done,
        } => {
            let worker = Rc::clone(worker);
            drop(tokio::task::spawn_local(async move {
                // Once around the reactor: what the client sent before its cancel may lie in its socket, and is meant.
                tokio::task::yield_now().await;
                worker.slots.request(process_id, &secret, done);
            }));
        }
        Mail::Serve(key) => worker.serve(&key),
        Mail::ConfigChanged => worker.apply_config(),
    }
}

/// A client's place in the counts; the acceptor counted it with the worker already.
pub(crate) struct Counted {
    pub(crate) worker: Rc<Worker>,
}

impl Counted {
    fn new(worker: Rc<Worker>) -> Self {
        worker.shared.clients.fetch_add(1, Ordering::Relaxed);
        Counted { worker }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.worker.shared.clients.fetch_sub(1, Ordering::Relaxed);
        if let Some(handle) = self.worker.shared.workers().get(self.worker.index) {
            handle.clients.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
