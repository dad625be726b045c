//! The picture of the running proxy that the console, the metrics and the page show.
//!
//! Each worker gives its part when it is asked by mail, so that nothing of it is shared while nobody asks; the rest is what all
//! share anyway. Of a worker that does not answer in time there is what it had counted when it last answered, so that no count
//! ever goes back; the rest of its part is left out.
//!
//! ## Limits
//! A report holds at most [`PREPARED_LIMIT`] prepared statements of each worker, and of every text the beginning. Of statements
//! by shape there are as many as are kept, of clients as many as there may be. Texts that several lines show are shared.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use pgweir_admin::{
    ClientFacts, ClientState, ClusterFacts, Event, Facts, LearnedRoute, NodeFacts, PoolFacts,
    PreparedStatement, ServerFacts, ServerState, Wanted,
};
use pgweir_config::{Config, SettingRow};
use pgweir_metrics::{Counts, Spared, Statement, StatementKey};
use pgweir_model::{NodeId, PoolKey};
use pgweir_sql::plan::Plan;
use tokio::sync::oneshot;

use crate::account::shown;
use crate::cancel::Slot;
use crate::proxy::Shared;
use crate::shown::ShownServer;
use crate::telemetry::Telemetry;
use crate::worker::{Mail, Worker};

/// How long a worker has to give its part. It is usually a turn; who asks does not want to wait for one that is stuck.
const REPORT_LIMIT: Duration = Duration::from_secs(1);

/// Prepared statements of one worker in a report. Chosen: more than are read, and with their texts at most some MiB.
const PREPARED_LIMIT: usize = 5000;

/// What one worker knows.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// When it was given.
    taken_at: Option<Instant>,
    counts: Counts,
    client_states: Vec<(Arc<str>, [usize; 3])>,
    /// Sessions that each server has something to do for.
    in_flight: Vec<(NodeId, usize)>,
    clients: Vec<ClientFacts>,
    servers: Vec<ServerFacts>,
    prepared: Vec<PreparedStatement>,
    statements: Vec<(StatementKey, Statement)>,
    learned: Vec<LearnedRoute>,
}

/// What a worker had counted when it last said so.
#[derive(Debug, Default)]
pub(crate) struct LastCounts(Mutex<(Option<Instant>, Counts)>);

impl LastCounts {
    /// Keeps these, unless later ones are kept: two who ask at once may be answered in either order.
    fn keep(&self, taken_at: Option<Instant>, counts: Counts) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken_at >= kept.0 {
            *kept = (taken_at, counts);
        }
    }

    fn add_to(&self, sum: &mut Counts) {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sum.add(&kept.1);
    }
}

/// What other parts of the proxy know.
#[derive(Debug, Default)]
struct Beside {
    held_databases: Vec<(Arc<str>, bool, bool)>,
    settings: Vec<SettingRow>,
    events: Vec<Event>,
}

/// One moment on both clocks.
#[derive(Debug, Clone, Copy)]
struct Now {
    instant: Instant,
    system: SystemTime,
}

impl Now {
    fn new() -> Self {
        Now {
            instant: Instant::now(),
            system: SystemTime::now(),
        }
    }

    /// Returns when that was by the clock on the wall.
    fn date(self, at: Instant) -> SystemTime {
        let ago = self.instant.saturating_duration_since(at);
        self.system
            .checked_sub(ago)
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl Worker {
    /// Returns this worker's part of a picture.
    pub(crate) fn report(&self, wanted: Wanted) -> Part {
        let now = Now::new();
        let mut part = Part {
            taken_at: Some(now.instant),
            counts: self.books.counts(),
            in_flight: self.in_flight(),
            ..Part::default()
        };
        self.report_clients(&mut part, wanted.sessions.then_some(now));
        if wanted.sessions {
            self.report_idle_servers(&mut part.servers, now);
        }
        let tables = self.tables.borrow();
        if wanted.prepared {
            let prepared = tables.statements.iter().take(PREPARED_LIMIT);
            part.prepared = prepared.map(prepared_statement).collect();
        }
        if wanted.statements {
            part.statements = self.books.statements();
        }
        if wanted.learned {
            let learned = tables
                .plans
                .plans()
                .filter(|plan| plan.is_learned_primary());
            part.learned = learned.map(learned_route).collect();
        }
        part
    }

    /// Adds up what the clients do, and describes each, with the server connections that they have, where it is asked for.
    fn report_clients(&self, part: &mut Part, described: Option<Now>) {
        let databases = self.books.databases();
        let mut states = vec![[0; 3]; databases.len()];
        for (id, slot) in self.slots.all() {
            let shown = &slot.shown;
            let database = &shown.who.counted;
            let of = states.get_mut(database.index);
            if let Some(count) = of.and_then(|states| states.get_mut(place_of(shown.state()))) {
                *count += 1;
            }
            if let Some(counts) = part.counts.databases.get_mut(&database.name) {
                counts.received_bytes += shown.received_bytes.get();
                counts.sent_bytes += shown.sent_bytes.get();
            }
            if let Some(now) = described {
                part.clients.push(client_facts(id, &slot, now));
                for server in [shown.server.get(), shown.aside.get()]
                    .into_iter()
                    .flatten()
                {
                    let facts = self.leased_server(id, &slot, server, now);
                    part.servers.push(facts);
                }
            }
        }
        let named = databases.iter().map(|database| Arc::clone(&database.name));
        part.client_states = named.zip(states).collect();
    }

    fn leased_server(
        &self,
        client: u32,
        slot: &Slot,
        server: ShownServer,
        now: Now,
    ) -> ServerFacts {
        let who = &slot.shown.who;
        ServerFacts {
            key: PoolKey {
                node: server.node,
                database: Arc::clone(&who.server_database),
                user: Arc::clone(&who.server_user),
            },
            process_id: server.process_id,
            state: ServerState::Active,
            client: Some(client),
            connected_at: now.date(server.opened_at),
            moved_at: now.date(server.since),
            prepared_statements: server.prepared_statements,
            address: self.shown_address(server.node),
        }
    }

    fn report_idle_servers(&self, servers: &mut Vec<ServerFacts>, now: Now) {
        for (key, pool) in self.all_pools() {
            let address = self.shown_address(key.node);
            pool.each_idle(|connection, opened_at, idle_since| {
                servers.push(ServerFacts {
                    key: key.clone(),
                    process_id: connection.state.key.process_id,
                    state: ServerState::Idle,
                    client: None,
                    connected_at: now.date(opened_at),
                    moved_at: now.date(idle_since),
                    prepared_statements: connection.state.session.statements.len(),
                    address: Arc::clone(&address),
                });
            });
        }
    }

    fn shown_address(&self, node: NodeId) -> Arc<str> {
        let address = self.address(node);
        address.map_or_else(Arc::default, |address| address.to_string().into())
    }

    fn in_flight(&self) -> Vec<(NodeId, usize)> {
        let mut all = Vec::new();
        for cluster in 0u16.. {
            let Some(view) = self.cluster(cluster) else {
                break;
            };
            let mut view = view.borrow_mut();
            let count = view.topology.load().nodes.len();
            for (node, index) in (0u16..).zip(0..count) {
                let busy = usize::try_from(view.loads.in_flight(index)).unwrap_or(usize::MAX);
                all.push((NodeId { cluster, node }, busy));
            }
        }
        all
    }
}

/// Returns the place of a state in [`Facts::client_states`].
fn place_of(state: ClientState) -> usize {
    match state {
        ClientState::Active => 0,
        ClientState::Waiting => 1,
        ClientState::Idle => 2,
    }
}

fn client_facts(id: u32, slot: &Slot, now: Now) -> ClientFacts {
    let shown = &slot.shown;
    let (who, server) = (&shown.who, shown.server.get());
    ClientFacts {
        id,
        user: Arc::clone(&who.user),
        database: Arc::clone(&who.database),
        application: Arc::clone(&who.application),
        address: Arc::clone(&who.address),
        local_address: Arc::clone(&who.local_address),
        // There is no TLS on this side yet.
        is_tls: false,
        state: shown.state(),
        in_transaction: shown.in_transaction.get(),
        pins: shown.pins.get().iter().collect(),
        node: server.map(|server| server.node),
        role: server.map(|server| server.role),
        server_process_id: server.map(|server| server.process_id),
        last_route: shown.last_route.get(),
        wait: shown.wait_until(now.instant),
        query: shown.statement(),
        connected_at: now.date(who.connected_at),
        moved_at: now.date(shown.moved_at.get()),
        transaction_since: shown.transaction_since.get().map(|at| now.date(at)),
        received_bytes: shown.received_bytes.get(),
        sent_bytes: shown.sent_bytes.get(),
        prepared_statements: shown.prepared_statements.get(),
    }
}

fn prepared_statement(statement: &Rc<pgweir_session::Statement>) -> PreparedStatement {
    PreparedStatement {
        name: String::from_utf8_lossy(&statement.server_name).into(),
        text: shown(statement.text()),
        // The table has one of them.
        clients: Rc::strong_count(statement).saturating_sub(1),
    }
}

fn learned_route(plan: &Rc<Plan>) -> LearnedRoute {
    LearnedRoute {
        fingerprint: plan.fingerprint().0,
        shape: Arc::clone(&plan.displayed().text),
    }
}

impl Shared {
    /// Takes a picture of what is asked for.
    pub(crate) async fn facts(self: &Arc<Self>, wanted: Wanted) -> Facts {
        let part = self.collect(wanted).await;
        let now = Now::new();
        let config = self.config.load_full();
        let beside = self.beside(&config, wanted);
        let clusters = self.cluster_facts(&config, &part);
        Facts {
            version: env!("CARGO_PKG_VERSION"),
            started_at: self.started_at,
            taken_at: now.system,
            now: now.instant,
            phase: self.phase(),
            clusters,
            pools: self.pool_facts(&config, now.instant),
            held_databases: beside.held_databases,
            client_count: self.clients.load(Ordering::Relaxed),
            client_states: part.client_states,
            counts: part.counts,
            clients: part.clients,
            servers: part.servers,
            prepared: part.prepared,
            statements: part.statements,
            learned: part.learned,
            settings: beside.settings,
            events: beside.events,
            config,
        }
    }

    /// Returns what is known beside the workers.
    fn beside(&self, config: &Config, wanted: Wanted) -> Beside {
        let mut beside = Beside {
            held_databases: self.holds.load().names(config),
            ..Beside::default()
        };
        if wanted.settings {
            beside.settings = self.settings();
        }
        if wanted.events {
            beside.events = self.events.all();
        }
        beside
    }

    /// Asks all workers at once, and adds up what comes in time.
    async fn collect(&self, wanted: Wanted) -> Part {
        let mut replies = Vec::new();
        for (index, worker) in self.workers().iter().enumerate() {
            let (reply, answer) = oneshot::channel();
            self.send(index, Mail::Report { wanted, reply });
            replies.push((worker, answer));
        }
        let deadline = tokio::time::Instant::now() + REPORT_LIMIT;
        let mut sum = Sum::default();
        for (worker, answer) in replies {
            match tokio::time::timeout_at(deadline, answer).await {
                Ok(Ok(mut part)) => {
                    let counts = std::mem::take(&mut part.counts);
                    worker.counted.keep(part.taken_at, counts);
                    sum.add(part);
                }
                // It has ended.
                Ok(Err(_)) => {}
                Err(_) => {
                    tracing::debug!("a worker did not report in time: its counts are old");
                }
            }
            worker.counted.add_to(&mut sum.part.counts);
        }
        let mut part = sum.finish();
        self.count_configurations(&mut part.counts.process);
        let spans = self.telemetry.as_ref().map(Telemetry::counts);
        part.counts.process.spans = spans.unwrap_or_default();
        let retries = &self.retries;
        part.counts.spared = Spared {
            reroutes: retries.reroutes.load(Ordering::Relaxed),
            retries: retries.read_retries.load(Ordering::Relaxed),
            stale_plans: retries.stale_plans.load(Ordering::Relaxed),
        };
        part
    }

    fn cluster_facts(&self, config: &Config, part: &Part) -> Vec<ClusterFacts> {
        let busy: BTreeMap<NodeId, usize> = part.in_flight.iter().copied().collect();
        let mut all = Vec::new();
        for (handle, cluster) in self.clusters.iter().zip(&config.clusters) {
            let topology = handle.topology();
            let nodes = topology.nodes.iter().zip(handle.records());
            let nodes = nodes
                .map(|(node, record)| NodeFacts {
                    in_flight: busy.get(&node.id).copied().unwrap_or_default(),
                    since: record.since,
                    errors: record.errors,
                    last_error: record.last_error,
                })
                .collect();
            all.push(ClusterFacts {
                name: Arc::clone(&cluster.name),
                nodes,
                topology,
            });
        }
        all
    }

    fn pool_facts(&self, config: &Config, now: Instant) -> Vec<PoolFacts> {
        let mut pools = self.tables.pools.all();
        pools.sort_by(|(one, _), (other, _)| {
            let order =
                |key: &PoolKey| (key.node, Arc::clone(&key.database), Arc::clone(&key.user));
            order(one).cmp(&order(other))
        });
        let facts = |(key, pool): (PoolKey, Arc<crate::tables::SharedPool>)| {
            let stats = pool.stats();
            let waited = |since: Instant| now.saturating_duration_since(since);
            PoolFacts {
                database: named_by_clients(config, &key),
                limit: stats.limit,
                open: stats.open,
                idle: stats.idle,
                waiting: stats.waiting,
                oldest_wait: stats.oldest_waiting_since.map(waited),
                key,
            }
        };
        // A name that somebody has tried once, where any is served, stays in the table of pools: it is nobody's news.
        let is_named = |pool: &PoolFacts| {
            (config.databases.iter()).any(|database| database.name == pool.database)
        };
        let is_news = |pool: &PoolFacts| pool.open > 0 || pool.waiting > 0 || is_named(pool);
        pools.into_iter().map(facts).filter(is_news).collect()
    }
}

/// Returns the name that clients have for a pool's database, or that of the servers where several stand for it.
fn named_by_clients(config: &Config, key: &PoolKey) -> Arc<str> {
    let mut names = (config.databases.iter()).filter(|database| {
        database.cluster_index == key.node.cluster
            && &*database.name != "*"
            && database.server_name(&database.name) == &*key.database
    });
    match (names.next(), names.next()) {
        (Some(only), None) => Arc::clone(&only.name),
        _ => Arc::clone(&key.database),
    }
}

/// The parts of several workers.
#[derive(Debug, Default)]
struct Sum {
    part: Part,
    states: BTreeMap<Arc<str>, [usize; 3]>,
    in_flight: BTreeMap<NodeId, usize>,
    statements: HashMap<StatementKey, Statement>,
    learned: BTreeMap<u64, Arc<str>>,
}

impl Sum {
    /// Adds a part, but for its counts: those are [`LastCounts`].
    fn add(&mut self, part: Part) {
        self.part.clients.extend(part.clients);
        self.part.servers.extend(part.servers);
        self.part.prepared.extend(part.prepared);
        for (name, states) in part.client_states {
            let sum = self.states.entry(name).or_default();
            sum.iter_mut()
                .zip(states)
                .for_each(|(sum, count)| *sum += count);
        }
        for (node, busy) in part.in_flight {
            *self.in_flight.entry(node).or_default() += busy;
        }
        for (key, statement) in part.statements {
            match self.statements.get_mut(&key) {
                Some(sum) => sum.add(&statement),
                None => drop(self.statements.insert(key, statement)),
            }
        }
        let learned = part.learned.into_iter();
        self.learned
            .extend(learned.map(|route| (route.fingerprint, route.shape)));
    }

    /// Returns the sum, in an order that does not depend on the workers.
    fn finish(self) -> Part {
        let mut part = self.part;
        part.client_states = self.states.into_iter().collect();
        part.in_flight = self.in_flight.into_iter().collect();
        part.statements = self.statements.into_iter().collect();
        part.statements
            .sort_by(|(one, _), (other, _)| one.cmp(other));
        part.clients.sort_by_key(|client| client.id);
        let learned = self.learned.into_iter();
        part.learned = learned
            .map(|(fingerprint, shape)| LearnedRoute { fingerprint, shape })
            .collect();
        part
    }
}

#[cfg(test)]
mod tests;
