//! Getting a server connection when none is idle: waiting in line, opening one, waiting for a primary.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pgweir_auth::Credentials;
use pgweir_backend::{ConnectError, Login, ServerConnection};
use pgweir_model::{Health, NodeId, Reason, Role};
use pgweir_pool::{Checkout, CheckoutError, Granted, Lease, Permit};
use pgweir_session::SharedParameters;

use crate::block::Defaults;
use crate::client_task::{Client, Identity, Input, Place};
use crate::fault::Fault;
use crate::local::position;
use crate::tables::{LoginFacts, LoginKey, Reported};
use crate::worker::Worker;

/// How long a batch waits for a primary to be found. Chosen: longer than a monitor needs to see the cluster after the
/// proxy's start or a switch of roles, shorter than people and load balancers take for an outage.
const PRIMARY_WAIT: Duration = Duration::from_secs(5);

/// How long `SHOW pgweir.lsn` waits for a position behind the session's last write. Chosen: many times the usual interval of
/// the monitor, and short enough for somebody who waits for an answer.
const SAMPLE_WAIT: Duration = Duration::from_secs(2);

/// How much a client may send while it waits.
const WAITING_INPUT_LIMIT: usize = 1024 * 1024;

/// Asks for the parameters that a login wants to know and the server does not report, in the order of [`Defaults`].
const ASK_DEFAULTS: &str = "SELECT pg_catalog.current_setting('default_transaction_isolation'),\
    pg_catalog.current_setting('default_transaction_read_only'),\
    pg_catalog.current_setting('search_path')";

/// Why a session ends instead of getting its connection: `None` when the client left.
type End = Option<Box<Fault>>;

/// Why a wait ended early.
enum Interrupted {
    Gone,
    Canceled,
}

impl Client {
    /// Gets the connection that the parked batch needs. When that fails the batch fails, and the session goes on.
    pub(crate) async fn checkout(&mut self, place: Place) -> Result<(), End> {
        match self.obtain(place).await {
            Ok(lease) => {
                self.hold(place, lease);
                self.input = Input::Pending;
                Ok(())
            }
            Err(Failure::Gone) => Err(None),
            Err(Failure::Fault(fault)) => self.fail_batch(fault),
            Err(Failure::Unreachable(error)) => self.on_unreachable(place, &error).await,
        }
    }

    /// A node could not be reached. A read is tried elsewhere, in the end on the primary; the rest fails.
    async fn on_unreachable(&mut self, place: Place, error: &ConnectError) -> Result<(), End> {
        let fault = Fault::from_connect(error);
        if let Some(cluster) = self
            .worker()
            .shared
            .clusters
            .get(usize::from(place.node.cluster))
        {
            cluster.report_failure(place.node);
        }
        tracing::warn!(node = %place.node, %error, "cannot connect to a server");
        if place.role == Role::Primary {
            return self.fail_batch(fault);
        }
        if self.on_replica_unreachable(place.node, place.reason) {
            return Ok(());
        }
        let topology = self.topology();
        let Some(primary) = topology.primary() else {
            return self.fail_batch(fault);
        };
        let place = Place {
            node: primary.id,
            role: Role::Primary,
            reason: Reason::ReplicaDown,
        };
        match self.obtain(place).await {
            Ok(lease) => {
                self.hold(place, lease);
                self.input = Input::Pending;
                Ok(())
            }
            Err(Failure::Gone) => Err(None),
            Err(Failure::Fault(fault)) => self.fail_batch(fault),
            Err(Failure::Unreachable(error)) => self.fail_batch(Fault::from_connect(&error)),
        }
    }

    /// Waits until the cluster has a primary, then lets the parked batch be routed again.
    pub(crate) async fn await_primary(&mut self) -> Result<(), End> {
        let Some(cluster) = self
            .worker()
            .shared
            .clusters
            .get(usize::from(self.identity.cluster))
            .cloned()
        else {
            return self.fail_batch(Fault::no_primary());
        };
        let deadline = Instant::now() + PRIMARY_WAIT;
        match self
            .unless_interrupted(cluster.wait_for_primary(deadline))
            .await
        {
            Ok(Ok(_)) => {
                self.input = Input::Pending;
                Ok(())
            }
            Ok(Err(_)) => self.fail_batch(Fault::no_primary()),
            Err(Interrupted::Gone) => Err(None),
            Err(Interrupted::Canceled) => self.fail_batch(Fault::canceled_while_waiting()),
        }
    }

    /// Waits until the monitor has asked the primary for its position since the session last wrote; then the parked batch is
    /// looked at again.
    pub(crate) async fn await_sample(&mut self) -> Result<(), End> {
        let cluster = self
            .worker()
            .shared
            .clusters
            .get(usize::from(self.identity.cluster))
            .cloned();
        let Some(cluster) = cluster else {
            return self.fail_batch(Fault::no_position());
        };
        cluster.poke();
        let wrote_at = self.wrote_at;
        let known = cluster.wait_until(Instant::now() + SAMPLE_WAIT, |topology| {
            position(topology, wrote_at).is_some()
        });
        match self.unless_interrupted(known).await {
            Ok(Some(_)) => {
                self.input = Input::Pending;
                Ok(())
            }
            Ok(None) => self.fail_batch(Fault::no_position()),
            Err(Interrupted::Gone) => Err(None),
            Err(Interrupted::Canceled) => self.fail_batch(Fault::canceled_while_waiting()),
        }
    }

    async fn obtain(&mut self, place: Place) -> Result<Lease<ServerConnection>, Failure> {
        let pool = self.pool(place.node);
        let limit = self.worker().shared.config.load().server.query_wait_timeout;
        let granted = match pool.try_checkout(Instant::now()) {
            Ok(Checkout::Ready(lease)) => Granted::Lease(lease),
            Ok(Checkout::Open(permit)) => Granted::Open(permit),
            Ok(Checkout::Wait(waiting)) => {
                let waiting = async { tokio::time::timeout(limit, waiting).await };
                match self.unless_interrupted(waiting).await {
                    Ok(Ok(granted)) => granted,
                    Ok(Err(_)) => return Err(Failure::Fault(Fault::query_wait_timeout(limit))),
                    Err(Interrupted::Gone) => return Err(Failure::Gone),
                    Err(Interrupted::Canceled) => {
                        return Err(Failure::Fault(Fault::canceled_while_waiting()));
                    }
                }
            }
            Err(CheckoutError::QueueFull { limit }) => {
                return Err(Failure::Fault(Fault::queue_full(limit)));
            }
            Err(CheckoutError::Draining) => return Err(Failure::Fault(Fault::shutting_down())),
        };
        match granted {
            Granted::Lease(lease) => Ok(lease),
            Granted::Open(permit) => open(self.worker(), &self.identity, place.node, permit)
                .await
                .map_err(Failure::Unreachable),
        }
    }

    /// Runs `work` while listening to the client, who may leave or cancel meanwhile.
    async fn unless_interrupted<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, Interrupted> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            self.slot.register(cx);
            if self.slot.take_requests().is_some() {
                return Poll::Ready(Err(Interrupted::Canceled));
            }
            if self.poll_client_gone(cx).is_ready() {
                return Poll::Ready(Err(Interrupted::Gone));
            }
            work.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    /// Keeps what the client sends, up to a limit; ready when it is gone.
    fn poll_client_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let worker = Rc::clone(self.worker());
        let mut buffer = worker.buffer.borrow_mut();
        while self.inbuf.len() < WAITING_INPUT_LIMIT {
            match self.stream.poll_read(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(count)) => self
                    .inbuf
                    .extend_from_slice(buffer.get(..count).unwrap_or_default()),
            }
        }
        Poll::Pending
    }
}

enum Failure {
    /// The client left.
    Gone,
    Fault(Fault),
    /// The server cannot be reached, or refuses.
    Unreachable(ConnectError),
}

/// Opens a server connection in a place of the pool.
pub(crate) async fn open(
    worker: &Rc<Worker>,
    identity: &Identity,
    node: NodeId,
    permit: Permit<ServerConnection>,
) -> Result<Lease<ServerConnection>, ConnectError> {
    let login = login(worker, identity, node, Vec::new())?;
    let (connection, keys) = pgweir_backend::connect(&login).await?;
    if let Some(keys) = keys {
        worker
            .shared
            .tables
            .scram_keys
            .insert((node, Arc::clone(&identity.server_user)), keys);
    }
    Ok(permit.fulfil(connection, Instant::now()))
}

/// Returns who logs in to a node for a session.
pub(crate) fn login(
    worker: &Rc<Worker>,
    identity: &Identity,
    node: NodeId,
    parameters: Vec<(Box<str>, Box<str>)>,
) -> Result<Login, ConnectError> {
    let config = worker.shared.config.load();
    let Some(address) = worker.address(node) else {
        return Err(ConnectError::Timeout);
    };
    let user = config.user(&identity.user);
    let stored = user
        .and_then(|user| user.login_password())
        .map(|secret| secret.expose());
    let credentials = stored
        .map(|text| Credentials::from_stored(&pgweir_auth::StoredPassword::parse(text)))
        .unwrap_or_default();
    let keys = worker
        .shared
        .tables
        .scram_keys
        .get(&(node, Arc::clone(&identity.server_user)));
    Ok(Login {
        address,
        node,
        database: Arc::clone(&identity.server_database),
        user: Arc::clone(&identity.server_user),
        credentials: credentials.with_keys(keys),
        entropy: rand::random(),
        limit: config.server.connect_timeout,
        statement_limit: config.server.prepared_statements_per_server,
        parameters,
        socket: worker.shared.socket_options(),
    })
}

impl Identity {
    /// Returns what a server reports to a session with these parameters: from the last login like this one, else by asking
    /// the primary (or, while there is none, a replica).
    ///
    /// # Errors
    /// A [`Fault`] with the server's own verdict on the parameters, the database or the role.
    pub(crate) async fn reported(
        &self,
        worker: &Rc<Worker>,
        parameters: &SharedParameters,
    ) -> Result<Reported, Fault> {
        let key = self.login_key(parameters);
        if let Some(reported) = worker.shared.tables.reported.get(&key) {
            return Ok(reported);
        }
        let node = self.some_node(worker).await?;
        let mut lease = self.lease_for_login(worker, node).await?;
        let session = &lease.state.session;
        let mut sql = parameters.switch_sql(&session.parameters);
        let limit = worker.shared.config.load().server.connect_timeout;
        sql.extend_from_slice(ASK_DEFAULTS.as_bytes());
        let row = pgweir_backend::run_simple(&mut lease, &sql, limit)
            .await
            .map_err(|error| Fault::from_parameters(&error))?;
        lease.state.session.parameters = Arc::clone(parameters);
        let mut values = row.into_iter().map(Option::unwrap_or_default);
        let mut next = || values.next().unwrap_or_default();
        let reported: Reported = Arc::new(LoginFacts {
            parameters: lease.state.session.reported().to_vec(),
            defaults: Defaults {
                isolation: next(),
                read_only: next(),
                search_path: next(),
            },
        });
        worker
            .shared
            .tables
            .reported
            .insert(key, Arc::clone(&reported));
        if lease.is_reusable() {
            lease.checkin(worker.coarse_now());
        }
        Ok(reported)
    }

    pub(crate) fn login_key(&self, parameters: &SharedParameters) -> LoginKey {
        LoginKey {
            cluster: self.cluster,
            database: Arc::clone(&self.server_database),
            user: Arc::clone(&self.server_user),
            parameters: parameters.id,
        }
    }

    /// Returns the primary, or a replica that answers while there is none.
    pub(crate) async fn some_node(&self, worker: &Rc<Worker>) -> Result<NodeId, Fault> {
        let Some(cluster) = worker
            .shared
            .clusters
            .get(usize::from(self.cluster))
            .cloned()
        else {
            return Err(Fault::no_primary());
        };
        let topology = match cluster
            .wait_for_primary(Instant::now() + PRIMARY_WAIT)
            .await
        {
            Ok(topology) => topology,
            Err(_) => cluster.topology(),
        };
        let up = topology.replicas().find(|node| node.health == Health::Up);
        topology
            .primary()
            .or(up)
            .map(|node| node.id)
            .ok_or_else(Fault::no_primary)
    }

    async fn lease_for_login(
        &self,
        worker: &Rc<Worker>,
        node: NodeId,
    ) -> Result<Lease<ServerConnection>, Fault> {
        let pool = worker.pool(&self.pool_key(node), self.pool_size);
        let limit = worker.shared.config.load().server.query_wait_timeout;
        let granted = match pool.try_checkout(Instant::now()) {
            Ok(Checkout::Ready(lease)) => Granted::Lease(lease),
            Ok(Checkout::Open(permit)) => Granted::Open(permit),
            Ok(Checkout::Wait(waiting)) => tokio::time::timeout(limit, waiting)
                .await
                .map_err(|_| Fault::query_wait_timeout(limit))?,
            Err(CheckoutError::QueueFull { limit }) => return Err(Fault::queue_full(limit)),
            Err(CheckoutError::Draining) => return Err(Fault::shutting_down()),
        };
        match granted {
            Granted::Lease(lease) => Ok(lease),
            Granted::Open(permit) => open(worker, self, node, permit)
                .await
                .map_err(|error| Fault::from_connect(&error)),
        }
    }
}
