//! The life of one client's session, from its login to its end.
//!
//! ```text
//!            ┌──────────── relay (one poll loop, no allocation) ◄───────────┐
//!            │ a batch needs a server and none is idle                      │
//!            ▼                                                              │
//!        checkout ── granted, opened ───────────────────────────────────────┤
//!            │ no server in time                                            │
//!            └──────────► the batch fails, the session goes on ─────────────┘
//!   relay ── the client is gone, or a fault that is fatal ──► end
//! ```

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_backend::ServerConnection;
use pgweir_config::{Config, Database, PinReads, PoolMode, Splitting, TransactionReads};
use pgweir_consistency::{Demand, Token};
use pgweir_model::Consistency;
use pgweir_model::catalog::Policy;
use pgweir_model::{NodeId, PoolKey, Reason, Role, Topology};
use pgweir_net::{Outgoing, Stream};
use pgweir_pool::{Lease, LocalPool};
use pgweir_route::{Applicable, Loads};
use pgweir_session::ClientSession;
use pgweir_session::client::Portion;
use pgweir_sql::PinSet;
use pgweir_sql::signals::Signal;
use pgweir_wire::TransactionStatus;

use tokio::sync::oneshot;

use crate::account::Account;
use crate::block::Block;
use crate::cancel::{Gate, Slot};
use crate::choices::Chosen;
use crate::fault::Fault;
use crate::lens::Sight;
use crate::limits::StatementLimit;
use crate::meaning::{Defaults, Meaning};
use crate::observe::Shadow;
use crate::pools::PoolSizes;
use crate::retry::Replay;
use crate::tap::Tap;
use crate::telemetry::{Outcome, Spans};
use crate::worker::{Counted, Worker};

/// How long a client has to take our last words.
const GOODBYE_LIMIT: Duration = Duration::from_secs(2);

/// How long a server has to undo what a session left.
pub(crate) const RESET_LIMIT: Duration = Duration::from_secs(10);

/// How long a CancelRequest may take. Not shorter, as a server under load answers late; not longer, as it holds a server
/// connection.
pub(crate) const CANCEL_LIMIT: Duration = Duration::from_secs(10);

/// What the login has found out, and what the configuration says of the session's database.
pub(crate) struct Identity {
    pub(crate) user: Arc<str>,
    /// The role that server connections log in as.
    pub(crate) server_user: Arc<str>,
    /// The database as the client named it.
    pub(crate) database: Arc<str>,
    /// The `application_name` of its startup packet, or nothing.
    pub(crate) application: Arc<str>,
    /// The name of the database on the servers.
    pub(crate) server_database: Arc<str>,
    pub(crate) cluster: u16,
    pub(crate) pool_mode: PoolMode,
    pub(crate) pool_sizes: PoolSizes,
    pub(crate) splitting: Splitting,
    pub(crate) consistency: Consistency,
    /// How long a read waits for a replica that shows what it must see.
    pub(crate) causal_wait: Duration,
    /// How often a read is tried again after a replica has failed it.
    pub(crate) read_retries: u32,
    /// Our lexer reads texts as the server does: `standard_conforming_strings` is on, and no byte of a character looks like
    /// ASCII. Otherwise nothing is vouched for.
    pub(crate) reads_text: bool,
    /// Where its transactions read, unless it says something else itself.
    pub(crate) transaction_reads: TransactionReads,
    pub(crate) pin_reads: PinReads,
    pub(crate) defaults: Defaults,
    /// What the configuration says of functions.
    pub(crate) policy: Arc<Policy>,
}

impl Identity {
    pub(crate) fn new(config: &Config, database: &Database, asked: &str, user: &Arc<str>) -> Self {
        let server_user = config
            .user(user)
            .map_or_else(|| Arc::clone(user), |user| Arc::clone(user.login()));
        Identity {
            user: Arc::clone(user),
            server_user,
            database: asked.into(),
            application: Arc::default(),
            server_database: database.server_name(asked).into(),
            cluster: database.cluster_index,
            pool_mode: database.pool_mode,
            pool_sizes: PoolSizes::new(database),
            splitting: database.splitting,
            reads_text: true,
            transaction_reads: database.transaction_reads,
            pin_reads: database.pin_reads,
            defaults: Defaults::default(),
            policy: Arc::clone(&database.policy),
            read_retries: database.read_retries,
            consistency: database.consistency,
            causal_wait: database.causal_wait,
        }
    }

    /// Returns whether it is decided which reads a replica could take, whatever becomes of that.
    pub(crate) fn decides(&self) -> bool {
        self.splitting != Splitting::Off
    }

    /// Returns whether such decisions are only counted.
    pub(crate) fn observes(&self) -> bool {
        self.splitting == Splitting::Observe
    }

    pub(crate) fn pool_key(&self, node: NodeId) -> PoolKey {
        PoolKey {
            node,
            database: Arc::clone(&self.server_database),
            user: Arc::clone(&self.server_user),
        }
    }
}

/// A server connection that the session has, and what the session did on it.
pub(crate) struct Held {
    pub(crate) lease: Lease<ServerConnection>,
    pub(crate) node: NodeId,
    /// What it is to the cluster.
    pub(crate) role: Role,
    pub(crate) traces: Traces,
    /// Why the session stays here beyond the transaction.
    pub(crate) pins: PinSet,
    /// Why it came here.
    pub(crate) reason: Reason,
    pub(crate) gate: Option<Rc<Gate>>,
    pub(crate) stage: Stage,
    /// Since when the session has it.
    pub(crate) since: Instant,
    /// Since when the server owes an answer.
    pub(crate) sent_at: Option<Instant>,
    /// How long it may owe it.
    pub(crate) limit: StatementLimit,
}

/// What the transaction at hand does beyond reading.
#[derive(Debug, Clone, Copy, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts of one transaction"
)]
pub(crate) struct Traces {
    /// It is, or may be, more than a read.
    pub(crate) wrote: bool,
    /// It changes the schema.
    pub(crate) ddl: bool,
    /// It may undo what keeps the session here.
    pub(crate) may_unpin: bool,
    /// The server has been asked what it has left there.
    pub(crate) asked: bool,
}

/// How far the use of a server connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing has been sent on it yet.
    Fresh,
    /// A batch has been sent.
    Used,
    /// The transaction is over, and the server has been asked what the session has left there.
    Asking,
}

/// What is to be done about the input in `inbuf`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// More of it is to be read.
    Open,
    /// It is to be looked at as it is.
    Pending,
    /// It cannot be acted upon before the server has answered.
    Blocked,
}

impl Held {
    pub(crate) fn is_primary(&self) -> bool {
        self.role == Role::Primary
    }

    pub(crate) fn status(&self) -> TransactionStatus {
        self.lease.state.session.status
    }

    /// Returns whether its process was told to end, in place of the client: the session does not outlive that.
    pub(crate) fn is_terminating(&self) -> bool {
        self.gate.as_ref().is_some_and(|gate| gate.is_terminating())
    }

    /// Returns whether somebody cancels what the session runs here.
    pub(crate) fn is_canceled(&self) -> bool {
        self.gate.as_ref().is_some_and(|gate| gate.is_canceling())
    }
}

/// One client.
pub(crate) struct Client {
    pub(crate) counted: Counted,
    pub(crate) stream: Stream,
    pub(crate) out: Outgoing,
    /// What the client sent and could not be acted upon yet; starts at the border of a batch.
    pub(crate) inbuf: Vec<u8>,
    pub(crate) session: ClientSession,
    pub(crate) identity: Identity,
    pub(crate) process_id: u32,
    pub(crate) slot: Rc<Slot>,
    /// What its batches are accounted for with.
    pub(crate) account: Account,
    pub(crate) held: Option<Held>,
    /// The connection that it is pinned to, while a read runs elsewhere.
    pub(crate) aside: Option<Held>,
    /// A portion at the front of `inbuf` that has been scanned and waits.
    pub(crate) parked: Option<(Portion, usize)>,
    pub(crate) input: Input,
    /// The task is registered to be woken when the client sends something, and was not woken for that yet.
    pub(crate) awaits_input: bool,
    /// The batch at the front is too large to be read as a whole.
    pub(crate) is_oversize: bool,
    pub(crate) replay: Replay,
    /// What a transaction without modes of its own is, and the settings that this was found for.
    pub(crate) default_meaning: Cell<Option<(u64, Meaning)>>,
    /// What it sees of the catalog.
    pub(crate) sight: Sight,
    /// The transaction block that is no server's alone.
    pub(crate) block: Option<Block>,
    /// What it has written and seen.
    pub(crate) token: Cell<Token>,
    /// The batch at hand has waited for a replica, and is decided upon now.
    pub(crate) waited: Cell<Option<Waited>>,
    /// When it could last choose among the replicas.
    pub(crate) chose_at: Cell<Instant>,
    /// When the batch at hand is given up that waits for a primary, if it does.
    pub(crate) primary_until: Option<Instant>,
    /// The state of the servers that was looked at last: [`Worker::roles`].
    pub(crate) roles_seen: u64,
    /// When anything was last done for it.
    pub(crate) moved_at: Instant,
    pub(crate) choices: Chosen,
    /// The configuration that it follows: [`Worker::config_generation`].
    pub(crate) config_seen: u64,
    /// The rules that may speak of it.
    pub(crate) applicable: Applicable,
    /// The batch at hand is not to be run: the server fails in its place, and the client gets this ErrorResponse.
    pub(crate) failing: Option<Box<[u8]>>,
    pub(crate) last_route: Option<(Role, Reason)>,
    /// What would have become of its transaction where decisions are only counted.
    pub(crate) shadow: Option<Shadow>,
    /// What has been collected for a `SHOW` that waits.
    pub(crate) observed: Option<Vec<Vec<String>>>,
    /// When a position was asked for inside a transaction, by the batch at hand.
    pub(crate) lsn_asked_at: Cell<Option<Instant>>,
    /// What is noted for spans, where these are wanted.
    pub(crate) spans: Option<Box<Spans>>,
    /// Its messages are written down.
    pub(crate) tap: Option<Box<Tap>>,
    /// This thread's parts of the pools, by node.
    pub(crate) pools: Vec<Option<LocalPool<ServerConnection>>>,
}

/// What the relay cannot do without waiting.
pub(crate) enum Next {
    /// The parked batch needs a connection to this node of the topology.
    Checkout(Place),
    /// The batch at hand needs a server, and the operator holds the database back.
    AwaitResume,
    /// The parked batch needs a primary and there is none.
    AwaitPrimary,
    /// The parked batch needs a replica, none may take it, and the primary never does.
    AwaitReplica(Demand, Reason),
    /// The parked batch asks for a position that is not known yet.
    AwaitSample,
    /// The parked batch is a read for which no replica shows enough yet.
    AwaitReplay(Demand),
    /// The parked batch asks for what all threads have counted.
    CollectObservations,
    /// The parked batch signals these clients.
    Locate(Vec<(Signal, u32)>),
    /// The client left, or its connection failed.
    Gone,
    /// The session ends with these words to the client.
    End(Box<Fault>),
}

impl Next {
    /// Returns whether a batch waits for a server, or a connection to one: that is what clients are shown to wait for.
    fn is_wait(&self) -> bool {
        match self {
            Next::Checkout(_)
            | Next::AwaitResume
            | Next::AwaitPrimary
            | Next::AwaitReplica(..)
            | Next::AwaitSample
            | Next::AwaitReplay(_) => true,
            // What only threads of the proxy are asked, and what nobody waits for.
            Next::CollectObservations | Next::Locate(_) | Next::Gone | Next::End(_) => false,
        }
    }
}

/// A batch has waited for a replica; it does not wait for that again, whatever came of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waited {
    /// What it waited for.
    pub(crate) demand: Demand,
    /// A replica has met that.
    pub(crate) is_met: bool,
}

/// Where a batch goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) node: NodeId,
    pub(crate) role: Role,
    pub(crate) reason: Reason,
}

impl Client {
    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.counted.worker
    }

    /// Returns how far the use of the session's server connection has come, if it has one.
    pub(crate) fn stage(&self) -> Option<Stage> {
        self.held.as_ref().map(|held| held.stage)
    }

    pub(crate) fn topology(&self) -> Arc<Topology> {
        self.worker().topology(self.identity.cluster)
    }

    /// Serves the client until it leaves or is sent away.
    pub(crate) async fn run(mut self) {
        let end = loop {
            let next = poll_fn(|cx| self.poll_relay(cx)).await;
            if next.is_wait() {
                self.begin_wait();
            }
            let waited = match next {
                Next::Checkout(place) => self.checkout(place).await,
                Next::AwaitResume => self.await_resume().await,
                Next::AwaitPrimary => self.await_primary().await,
                Next::AwaitReplay(demand) => self.await_replay(demand).await,
                Next::AwaitReplica(demand, reason) => self.await_replica(demand, reason).await,
                Next::AwaitSample => self.await_sample().await,
                Next::CollectObservations => self.collect_observations().await,
                Next::Locate(whom) => self.locate(whom).await,
                Next::Gone => break None,
                Next::End(fault) => break Some(fault),
            };
            self.end_wait();
            if let Err(end) = waited {
                break end;
            }
        };
        // Whoever is killed takes the connection along.
        if !self.slot.is_killed() {
            self.await_answer().await;
        }
        let is_reply_cut = self
            .held
            .as_ref()
            .is_some_and(|held| held.lease.state.session.is_reply_cut());
        self.let_go();
        if let Some(fault) = end {
            self.end_flights(Outcome::Failed(Some(fault.sqlstate)));
            tracing::debug!(user = %self.identity.user, sqlstate = %fault.sqlstate, "session ended: {}", fault.message);
            self.note_own_error(fault.sqlstate);
            // In the middle of a message our words would be taken for its rest: then the end of the stream must do.
            if !is_reply_cut {
                let mut bytes = Vec::new();
                fault.encode(&mut bytes);
                self.out.push(&bytes);
            }
            self.trace_output();
            // A client that does not listen does not hear it.
            let goodbye = poll_fn(|cx| self.out.poll_flush(&mut self.stream, cx));
            let _heard = tokio::time::timeout(GOODBYE_LIMIT, goodbye).await;
        }
    }

    /// Fails the parked batch and goes on with the next; returns the fault instead where the session cannot go on.
    pub(crate) fn fail_batch(&mut self, fault: Fault) -> Result<(), Option<Box<Fault>>> {
        let Some((portion, len)) = self.parked.take() else {
            return Err(Some(Box::new(fault.fatal())));
        };
        // After a Flush or in a stream the rest of the batch is still to come, and nobody would know where it ends.
        if portion != Portion::Batch || fault.is_fatal {
            return Err(Some(Box::new(fault.fatal())));
        }
        let input = std::mem::take(&mut self.inbuf);
        let seen = self.seen();
        let batch = input.get(..len).unwrap_or_default();
        self.record_failed(batch, seen.as_ref(), fault.sqlstate);
        self.inbuf = input;
        self.replay.end();
        self.primary_until = None;
        self.waited.set(None);
        self.note_own_error(fault.sqlstate);
        self.session.drop_batch();
        self.failing = None;
        self.inbuf.drain(..len.min(self.inbuf.len()));
        self.input = Input::Pending;
        let mut bytes = Vec::new();
        fault.encode(&mut bytes);
        let status = self.fail_block();
        pgweir_wire::backend::ReadyForQuery { status }.encode(&mut bytes);
        self.out.push(&bytes);
        Ok(())
    }

    /// Counts what the session begins or ceases to have of a server: a connection, or a wait for one.
    pub(crate) fn count_load(&self, node: NodeId, count: fn(&mut Loads, usize)) {
        if let Some(view) = self.worker().cluster(node.cluster) {
            count(&mut view.borrow_mut().loads, usize::from(node.node));
        }
    }

    /// Notes how long the server has taken: all that it owed is in, since `answered_at` where that is known.
    pub(crate) fn note_latency(&mut self, answered_at: Option<Instant>) {
        let Some(held) = &mut self.held else { return };
        let (node, Some(sent_at)) = (held.node, held.sent_at.take()) else {
            return;
        };
        let worker = self.worker();
        let answered_at = answered_at.unwrap_or_else(Instant::now);
        let after = answered_at.saturating_duration_since(sent_at);
        if let Some(view) = worker.cluster(node.cluster) {
            let loads = &mut view.borrow_mut().loads;
            loads.answered(usize::from(node.node), after);
        }
    }

    /// Gives up the server connections of a session that ends, whatever state they are in.
    fn let_go(&mut self) {
        self.leave_traced_server();
        if let Some(aside) = self.aside.take() {
            // Nothing runs there.
            self.count_load(aside.node, Loads::finished);
            self.reset_aside(aside);
        }
        let Some(mut held) = self.held.take() else {
            return;
        };
        self.count_load(held.node, Loads::finished);
        if held.status() != TransactionStatus::Idle {
            // What was set in the transaction is rolled back with it.
            self.session.leave(&mut held.lease.state.session);
        }
        let settled = self.session.is_settled() && !self.session.is_in_mid_batch();
        if settled && held.lease.is_quiet() {
            self.reset_aside(held);
        } else {
            // Replies are on their way that nobody will read. The server is told to stop, and the connection closed.
            let farewell = Rc::clone(&self.worker().farewells);
            drop(tokio::task::spawn_local(async move {
                let state = &held.lease.state;
                // The connection is closed whatever comes of it.
                let _outcome =
                    pgweir_backend::cancel(&state.address, &state.key, CANCEL_LIMIT).await;
                drop(farewell);
            }));
        }
    }

    /// Brings a server connection back to a clean state in a task of its own and gives it to its pool, or closes it.
    pub(crate) fn reset_aside(&self, held: Held) {
        let Held {
            mut lease, gate, ..
        } = held;
        // Whoever has it next is not the one who is traced.
        lease.state.outgoing.record(false);
        let worker = Rc::clone(self.worker());
        drop(tokio::task::spawn_local(async move {
            if let Some(gate) = gate
                && !gate.wait().await
            {
                return;
            }
            match pgweir_backend::reset(&mut lease, RESET_LIMIT).await {
                Ok(true) => lease.checkin(worker.coarse_now()),
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(%error, "a server connection could not be reset and is closed")
                }
            }
        }));
    }

    /// Starts a CancelRequest for what the session's server runs now.
    pub(crate) fn cancel_aside(&mut self, requests: Vec<oneshot::Sender<()>>) {
        let Some(held) = &mut self.held else { return };
        if self.session.is_settled() {
            return;
        }
        if !requests.is_empty() {
            self.counted.worker.books.note_cancel();
        }
        let gate = Rc::clone(held.gate.get_or_insert_with(Rc::default));
        let address = Arc::clone(&held.lease.state.address);
        let key = held.lease.state.key.clone();
        let slot = Rc::clone(&self.slot);
        gate.begin();
        gate.note_cancel();
        drop(tokio::task::spawn_local(async move {
            let outcome = pgweir_backend::cancel(&address, &key, CANCEL_LIMIT).await;
            if let Err(error) = &outcome {
                tracing::warn!(%error, "a CancelRequest could not be delivered");
            }
            gate.end(outcome.is_ok());
            slot.wake();
            drop(requests);
        }));
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.close_account();
        self.counted.worker.slots.remove(self.process_id);
    }
}

/// Unused places of a list of pools are filled up to `index`.
pub(crate) fn place_for<T>(list: &mut Vec<Option<T>>, index: usize) -> Option<&mut Option<T>> {
    if index >= list.len() {
        list.resize_with(index + 1, || None);
    }
    list.get_mut(index)
}
