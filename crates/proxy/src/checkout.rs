//! Getting a server connection when none is idle: waiting in line, opening one.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_admin::Phase;
use pgweir_auth::Credentials;
use pgweir_backend::{ConnectError, Login, ServerConnection};
use pgweir_config::User;
use pgweir_model::{Health, NodeId, PoolKey, Role};
use pgweir_pool::{Checkout, CheckoutError, Granted, Lease, Permit};
use pgweir_route::Loads;
use pgweir_session::SharedParameters;

use crate::client_task::{Client, Identity, Input, Place};
use crate::fault::Fault;
use crate::meaning::Defaults;
use crate::tables::{LoginFacts, LoginKey, Reported};
use crate::wait::Interrupted;
use crate::worker::Worker;

/// How long a login waits for a primary to be found before it asks a replica. Chosen: longer than a monitor needs to see the
/// cluster after the proxy's start or a switch of roles, shorter than people and load balancers take for an outage.
const LOGIN_PRIMARY_WAIT: Duration = Duration::from_secs(5);

/// Asks for the parameters that a login wants to know and the server does not report, in the order of [`Defaults`].
const ASK_DEFAULTS: &str = "SELECT pg_catalog.current_setting('default_transaction_isolation'),\
    pg_catalog.current_setting('default_transaction_read_only'),\
    pg_catalog.current_setting('search_path')";

/// Why a session ends instead of getting its connection: `None` when the client left.
pub(crate) type End = Option<Box<Fault>>;

impl Client {
    /// Gets the connection that the parked batch needs. When that fails the batch fails, and the session goes on.
    pub(crate) async fn checkout(&mut self, place: Place) -> Result<(), End> {
        // Or all that come while one connects would be among the few that try a server again.
        self.count_load(place.node, Loads::waits);
        let obtained = self.obtain(place).await;
        self.count_load(place.node, Loads::waited);
        match obtained {
            Ok(lease) => {
                self.hold(place, lease);
                self.input = Input::Pending;
                Ok(())
            }
            Err(Failure::Gone) => Err(None),
            Err(Failure::Ended) => Err(Some(Box::new(Fault::terminated()))),
            Err(Failure::Moved) => {
                self.input = Input::Pending;
                Ok(())
            }
            Err(Failure::Canceled) => self.fail_batch(Fault::canceled_while_waiting()),
            Err(Failure::Fault(_)) if self.stays_after_all() => {
                self.input = Input::Pending;
                Ok(())
            }
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
            match is_the_servers(error) {
                true => cluster.report_failure(place.node),
                false => cluster.look_at(place.node),
            }
        }
        tracing::warn!(node = %place.node, %error, "cannot connect to a server");
        if self.stays_after_all() {
            self.input = Input::Pending;
            return Ok(());
        }
        if place.role == Role::Primary {
            return match may_come_back(error) {
                true => self.await_reachable(fault).await,
                false => self.fail_batch(fault),
            };
        }
        if self.on_replica_unreachable(place.node, place.reason) {
            return Ok(());
        }
        self.fail_batch(fault)
    }

    async fn obtain(&mut self, place: Place) -> Result<Lease<ServerConnection>, Failure> {
        let pool = self.pool(place.node);
        let limit = self.worker().shared.config.load().server.query_wait_timeout;
        let granted = match pool.try_checkout(Instant::now()) {
            Ok(Checkout::Ready(lease)) => Granted::Lease(lease),
            Ok(Checkout::Open(permit)) => Granted::Open(permit),
            Ok(Checkout::Wait(waiting)) => {
                let waiting = async { tokio::time::timeout(limit, waiting).await };
                match self.unless_moved(place, waiting).await {
                    Ok(Ok(granted)) => granted,
                    Ok(Err(_)) => return Err(Failure::Fault(Fault::query_wait_timeout(limit))),
                    Err(Interrupted::Gone) => return Err(Failure::Gone),
                    Err(Interrupted::Ended) => return Err(Failure::Ended),
                    Err(Interrupted::Moved) => return Err(Failure::Moved),
                    Err(Interrupted::Canceled) => return Err(Failure::Canceled),
                }
            }
            Err(CheckoutError::QueueFull { limit }) => {
                return Err(Failure::Fault(Fault::queue_full(limit)));
            }
            Err(CheckoutError::Draining) => return Err(Failure::Fault(Fault::shutting_down())),
        };
        match granted {
            Granted::Lease(lease) => Ok(lease),
            Granted::Open(permit) => {
                let opened = open(self.worker(), &self.identity, place.node, permit);
                match self.unless_ended(opened).await {
                    Ok(opened) => opened.map_err(Failure::Unreachable),
                    Err(_) => Err(Failure::Ended),
                }
            }
        }
    }
}

enum Failure {
    /// The client left.
    Gone,
    /// The node is not any more what the batch was sent there for, or the database is held back.
    Moved,
    /// The session is to end.
    Ended,
    /// The client has cancelled the batch.
    Canceled,
    /// There is no room, or none in time.
    Fault(Fault),
    /// The server cannot be reached, or refuses.
    Unreachable(ConnectError),
}

/// Returns whether a server that could not be connected to may take the connection a moment later, or another one in its
/// place: it is away, starts, or shuts down. A refused login says the same next time.
fn may_come_back(error: &ConnectError) -> bool {
    match error {
        ConnectError::Net(_) | ConnectError::Timeout | ConnectError::Unexpected { .. } => true,
        // Class 57: operator intervention.
        ConnectError::Refused { sqlstate, .. } => sqlstate.starts_with(b"57"),
        ConnectError::Auth(_) | ConnectError::Decode(_) | ConnectError::Encode(_) => false,
    }
}

/// Returns whether the server is at fault: it is away, or full. A login that it refuses says nothing about others'.
fn is_the_servers(error: &ConnectError) -> bool {
    let is_full = matches!(error, ConnectError::Refused { sqlstate, .. } if sqlstate == b"53300");
    may_come_back(error) || is_full
}

/// Opens a server connection in a place of the pool.
pub(crate) async fn open(
    worker: &Rc<Worker>,
    identity: &Identity,
    node: NodeId,
    permit: Permit<ServerConnection>,
) -> Result<Lease<ServerConnection>, ConnectError> {
    let config = worker.shared.config.load_full();
    let user = config.user(&identity.user);
    login_of(worker, &identity.pool_key(node), user, permit).await
}

/// Opens a server connection of a pool, as the role that a user of the configuration logs in as there.
pub(crate) async fn login_of(
    worker: &Rc<Worker>,
    key: &PoolKey,
    user: Option<&User>,
    permit: Permit<ServerConnection>,
) -> Result<Lease<ServerConnection>, ConnectError> {
    let login = login(worker, key, user, Vec::new())?;
    let (connection, keys) = match pgweir_backend::connect(&login).await {
        Ok(connected) => {
            worker.books.note_connect(key.node);
            connected
        }
        Err(error) => {
            worker.books.note_connect_failure(key.node, &error);
            return Err(error);
        }
    };
    if let Some(keys) = keys {
        let role = (key.node, Arc::clone(&key.user));
        worker.shared.tables.scram_keys.insert(role, keys);
    }
    Ok(permit.fulfil(connection, Instant::now()))
}

/// Returns who logs in to the node of a pool.
pub(crate) fn login(
    worker: &Rc<Worker>,
    key: &PoolKey,
    user: Option<&User>,
    parameters: Vec<(Box<str>, Box<str>)>,
) -> Result<Login, ConnectError> {
    let config = worker.shared.config.load();
    let Some(address) = worker.address(key.node) else {
        return Err(ConnectError::Timeout);
    };
    let stored = user
        .and_then(|user| user.login_password())
        .map(|secret| secret.expose());
    let credentials = stored
        .map(|text| Credentials::from_stored(&pgweir_auth::StoredPassword::parse(text)))
        .unwrap_or_default();
    let role = (key.node, Arc::clone(&key.user));
    let keys = worker.shared.tables.scram_keys.get(&role);
    Ok(Login {
        address,
        node: key.node,
        database: Arc::clone(&key.database),
        user: Arc::clone(&key.user),
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
            .wait_for_primary(Instant::now() + LOGIN_PRIMARY_WAIT)
            .await
        {
            Ok(topology) => topology,
            Err(_) => cluster.topology(),
        };
        let is_up = |node: &&pgweir_model::Node| node.health == Health::Up && !node.is_drained;
        let up = topology.replicas().find(is_up);
        topology
            .primary()
            .or(up)
            .map(|node| node.id)
            .ok_or_else(Fault::no_primary)
    }

    /// Waits until the database is not held back: new clients wait as those do that are there.
    pub(crate) async fn await_resume(&self, worker: &Rc<Worker>) -> Result<(), Fault> {
        let limit = worker.shared.config.load().server.query_wait_timeout;
        let resumed = async {
            loop {
                // Made before the look, so that no change in between is missed.
                let changed = worker.changed.notified();
                if !worker.is_held_back(self.cluster, &self.server_database) {
                    return Ok(());
                }
                if worker.phase() > Phase::Serving {
                    return Err(Fault::shutting_down());
                }
                changed.await;
            }
        };
        let resumed = tokio::time::timeout(limit, resumed).await;
        resumed.unwrap_or_else(|_| Err(Fault::held_back(limit)))
    }

    async fn lease_for_login(
        &self,
        worker: &Rc<Worker>,
        node: NodeId,
    ) -> Result<Lease<ServerConnection>, Fault> {
        self.await_resume(worker).await?;
        let pool = worker.pool(&self.pool_key(node), self.pool_sizes);
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
