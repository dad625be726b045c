//! One worker: a thread, its single-threaded runtime, and what its sessions share without locks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pgweir_admin::{Phase, Refusal, TraceLine, Wanted};
use pgweir_backend::Address;
use pgweir_cluster::TopologyReader;
use pgweir_model::{NodeId, PoolKey, Topology};
use pgweir_net::{StdStream, Stream};
use pgweir_route::{Balancer, Loads, RuleSet};
use pgweir_session::{StatementTable, Tables};
use pgweir_sql::SearchPath;
use pgweir_sql::plan::PlanTable;
use pgweir_wire::Gather;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::account::Books;
use crate::cancel::Slots;
use crate::facts::Part;
use crate::holds::Held;
use crate::limits::IdleLimits;
use crate::login;
use crate::observe::{Count, Observations, Outcome};
use crate::orders::Chore;
use crate::pools::Pools;
use crate::proxy::Shared;
use crate::signal::SignalRequest;

/// Bytes per read, in either direction. One buffer serves all sessions of a thread.
///
/// Chosen: fits the second-level cache together with the socket buffers' pages; larger reads gained nothing for results
/// of 1 GiB, smaller ones cost more system calls.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// How often the worker's clock is set. It dates idle connections and judges the age of snapshots, which are a matter
/// of seconds; what must be exact reads the clock itself.
pub(crate) const CLOCK_PERIOD: Duration = Duration::from_millis(50);

/// How often idle connections are looked through.
const REAP_PERIOD: Duration = Duration::from_secs(1);

/// Text of prepared statements that one worker keeps per generation.
const STATEMENT_BYTES_LIMIT: usize = 32 * 1024 * 1024;

/// The generation of the configuration that a worker starts with.
const FIRST_CONFIG: u64 = 1;

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
    /// A statement that signals one of its clients.
    Signal {
        /// The process ID that we gave the client.
        process_id: u32,
        /// What is to be answered.
        request: SignalRequest,
    },
    /// Somebody asks what this thread has counted for a database.
    Observed {
        /// As clients name it.
        database: Arc<str>,
        /// Who asks.
        reply: oneshot::Sender<Vec<(Outcome, Count)>>,
    },
    /// Somebody asks for what this thread knows of what is shown.
    Report {
        /// The parts of it that are asked for.
        wanted: Wanted,
        /// Who asks.
        reply: oneshot::Sender<Part>,
    },
    /// The statistics of statements are to be emptied.
    ResetStatements,
    /// Somebody wants the messages of one of its clients written down.
    Trace {
        /// The process ID that we gave the client.
        client: u32,
        /// What is to be answered.
        reply: oneshot::Sender<Result<mpsc::Receiver<TraceLine>, Refusal>>,
    },
    /// Somebody waits for a connection of this pool.
    Serve(PoolKey),
    /// The configuration was replaced.
    ConfigChanged,
    /// A part of an operator's order.
    Order {
        /// What is to be done.
        chore: Chore,
        /// Told how many clients that concerned, when it is done.
        done: oneshot::Sender<usize>,
    },
}

/// What the sessions of one thread share.
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) buffer: RefCell<Box<[u8]>>,
    pub(crate) gather: RefCell<Gather>,
    pub(crate) tables: RefCell<Tables>,
    /// The search path that was found out last. Most sessions have the same one, and comparing it is cheaper where they share it.
    recent_path: RefCell<Option<Arc<SearchPath>>>,
    pub(crate) slots: Slots,
    /// What would have gone where, where that is only counted.
    pub(crate) observed: RefCell<Observations>,
    /// What is counted.
    pub(crate) books: Books,
    log: Cell<LogLimits>,
    /// Shared with every task that tells a server to stop what nobody waits for any more: the worker ends after them.
    pub(crate) farewells: Rc<()>,
    clusters: Vec<RefCell<ClusterView>>,
    pub(crate) pools: RefCell<Pools>,
    clock: Cell<Instant>,
    /// Grows when a server of any cluster has another role or health, and while one is down: what sessions look at.
    roles: Cell<u64>,
    /// The sum of the clusters' versions of that.
    roles_known: Cell<u64>,
    /// As last heard: read at every turn of every session, so it is no lock's.
    phase: Cell<Phase>,
    /// What is held back, as last heard.
    held: RefCell<Arc<Held>>,
    /// Whether that is anything: all that a session looks at in the steady state.
    is_holding: Cell<bool>,
    /// Told of changes of the phase and of what is held back, for those who log in.
    pub(crate) changed: Notify,
    pub(crate) idle_limits: Cell<IdleLimits>,
    rules: RefCell<Rc<RuleSet>>,
    /// That of `rules`; 0 where there are none.
    rules_generation: Cell<u64>,
    /// How many configurations there have been.
    config_generation: Cell<u64>,
}

/// What is logged of batches.
#[derive(Debug, Clone, Copy)]
struct LogLimits {
    /// `Duration::MAX` where none is slow.
    slow_after: Duration,
    has_text: bool,
}

impl LogLimits {
    fn new(config: &pgweir_config::Config) -> Self {
        let log = &config.log;
        LogLimits {
            slow_after: log.slow_statements.unwrap_or(Duration::MAX),
            has_text: log.slow_statements.is_some()
                && log.statements == pgweir_config::LoggedStatements::Text,
        }
    }
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
        let rules = crate::rules::compile(&config, FIRST_CONFIG);
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
            recent_path: RefCell::default(),
            slots: Slots::new(index),
            observed: RefCell::default(),
            books: Books::new(&config),
            log: Cell::new(LogLimits::new(&config)),
            clusters: shared
                .clusters
                .iter()
                .zip(&config.clusters)
                .map(view)
                .collect(),
            farewells: Rc::default(),
            pools: RefCell::default(),
            clock: Cell::new(Instant::now()),
            roles: Cell::new(0),
            roles_known: Cell::new(0),
            phase: Cell::new(Phase::Serving),
            held: RefCell::default(),
            is_holding: Cell::new(false),
            changed: Notify::new(),
            idle_limits: Cell::new(IdleLimits::new(&config)),
            config_generation: Cell::new(FIRST_CONFIG),
            rules_generation: Cell::new(rules.generation()),
            rules: RefCell::new(Rc::new(rules)),
            shared: Arc::clone(&shared),
        }
    }

    /// Returns how long a batch may take before it is logged.
    pub(crate) fn slow_after(&self) -> Duration {
        self.log.get().slow_after
    }

    /// Returns whether the texts of slow batches are to be logged, so that they must be kept.
    pub(crate) fn logs_text(&self) -> bool {
        self.log.get().has_text
    }

    /// Returns the generation of the configuration that sessions are to follow; never 0.
    pub(crate) fn config_generation(&self) -> u64 {
        self.config_generation.get()
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
        let rules = crate::rules::compile(config, self.config_generation.get());
        self.rules_generation.set(rules.generation());
        self.rules.replace(Rc::new(rules));
    }

    /// Returns a search path to keep: the one that was found out last, if it is the same.
    pub(crate) fn shared_path(&self, path: SearchPath) -> Arc<SearchPath> {
        let mut recent = self.recent_path.borrow_mut();
        match recent.as_ref().filter(|recent| ***recent == path) {
            Some(same) => Arc::clone(same),
            None => Arc::clone(recent.insert(Arc::new(path))),
        }
    }

    /// Returns the time to within [`CLOCK_PERIOD`], without a look at the clock.
    pub(crate) fn coarse_now(&self) -> Instant {
        self.clock.get()
    }

    /// Returns a number that grows when sessions must look at the servers that they use.
    pub(crate) fn roles(&self) -> u64 {
        self.roles.get()
    }

    /// Wakes the sessions when a server has another role or health than at the last look.
    fn look_at_roles(&self) {
        let version = |view: &RefCell<ClusterView>| view.borrow_mut().topology.load().roles_version;
        let known = self.clusters.iter().map(version).sum();
        if self.roles_known.replace(known) != known {
            self.wake_for_roles();
        }
    }

    /// Wakes the sessions now and then while a server is down: some may have waited for it long enough.
    fn look_at_the_silent(&self) {
        let is_down = |node: &pgweir_model::Node| node.health == pgweir_model::Health::Down;
        let has_down = |view: &RefCell<ClusterView>| {
            let mut view = view.borrow_mut();
            view.topology.load().nodes.iter().any(is_down)
        };
        if self.clusters.iter().any(has_down) {
            self.wake_for_roles();
        }
    }

    /// Takes over what is held back now, and lets all who wait, or are to, look at it.
    pub(crate) fn take_holds(&self) {
        let held = self.shared.holds.load();
        self.is_holding.set(held.is_any());
        self.held.replace(held);
        self.slots.wake_all();
        self.changed.notify_waiters();
    }

    /// Returns whether no server connection of a database may be taken, by its name on the servers.
    pub(crate) fn is_held_back(&self, cluster: u16, database: &str) -> bool {
        self.is_holding.get() && self.held.borrow().holds(cluster, database)
    }

    pub(crate) fn wake_for_roles(&self) {
        self.roles.set(self.roles.get() + 1);
        self.slots.wake_all();
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

    /// Takes the limits of the pools and the rules of the present configuration over. Sessions follow by themselves.
    fn apply_config(&self) {
        let config = self.shared.config.load();
        self.config_generation.set(self.config_generation.get() + 1);
        self.apply_rules(&config);
        self.books.apply(&config);
        self.log.set(LogLimits::new(&config));
        let limits = IdleLimits::new(&config);
        if self.idle_limits.replace(limits) != limits {
            // Who is idle has noted what was the limit then.
            self.slots.wake_all();
        }
        self.resize_pools(&config);
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
                worker.look_at_roles();
                worker.slots.wake_due(worker.coarse_now());
                worker.relieve_waiters();
                if worker.coarse_now().duration_since(reaped_at) >= REAP_PERIOD {
                    reaped_at = worker.coarse_now();
                    worker.tend_pools();
                    worker.look_at_the_silent();
                }
            }
            changed = phase.changed() => {
                worker.phase.set(worker.shared.phase());
                worker.slots.wake_all();
                worker.changed.notify_waiters();
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
        Mail::Serve(key) => worker.serve_pool(&key),
        Mail::Signal {
            process_id,
            request,
        } => worker.slots.signal(process_id, request),
        Mail::Trace { client, reply } => {
            // Whoever asked may have gone.
            let _gone = reply.send(worker.slots.trace(client));
        }
        Mail::Observed { database, reply } => {
            // Whoever asked may have gone.
            let _gone = reply.send(worker.observed.borrow().of(&database));
        }
        Mail::Report { wanted, reply } => {
            if !reply.is_closed() {
                // Whoever asked may have gone.
                let _gone = reply.send(worker.report(wanted));
            }
        }
        Mail::ResetStatements => worker.books.reset_statements(),
        Mail::ConfigChanged => worker.apply_config(),
        Mail::Order { chore, done } => {
            // Whoever gave the order may have gone.
            let _gone = done.send(worker.do_chore(chore));
        }
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
