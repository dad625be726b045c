//! What others may see of a session: the part of it that tables of clients and server connections show.
//!
//! ## Why
//! A session is owned by its task, and asking each of ten thousand tasks would wake them all. So the session writes down what is
//! shown of it, in cells beside its place in the worker, once at the end of each turn: a dozen stores, and nothing is forgotten,
//! whatever the turn has done.
//!
//! ## Limits
//! Within a turn what is shown is that of the turn before. Moments are those of the worker's coarse clock, save that of a
//! transaction and of a wait.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_admin::ClientState;
use pgweir_model::{NodeId, Reason, Role};
use pgweir_net::{Peer, Stream};
use pgweir_sql::PinSet;
use pgweir_wire::TransactionStatus;

use crate::account::DatabaseCell;
use crate::client_task::{Client, Held, Identity, Stage};
use crate::seen::Seen;

/// Who a client is. It stays the same for the length of its session.
#[derive(Debug)]
pub(crate) struct Who {
    pub(crate) user: Arc<str>,
    pub(crate) database: Arc<str>,
    pub(crate) application: Arc<str>,
    /// The role and the database on the servers.
    pub(crate) server_user: Arc<str>,
    pub(crate) server_database: Arc<str>,
    /// Where it connects from, and to.
    pub(crate) address: Arc<str>,
    pub(crate) local_address: Arc<str>,
    /// Where its batches are counted.
    pub(crate) counted: Rc<DatabaseCell>,
    pub(crate) connected_at: Instant,
}

/// A server connection that a session has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShownServer {
    pub(crate) node: NodeId,
    pub(crate) role: Role,
    pub(crate) process_id: u32,
    pub(crate) opened_at: Instant,
    /// When the session got it.
    pub(crate) since: Instant,
    pub(crate) prepared_statements: usize,
}

/// What is shown of one session.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) who: Who,
    pub(crate) server: Cell<Option<ShownServer>>,
    /// The connection that it is pinned to, while a read runs elsewhere.
    pub(crate) aside: Cell<Option<ShownServer>>,
    pub(crate) pins: Cell<PinSet>,
    is_active: Cell<bool>,
    pub(crate) in_transaction: Cell<bool>,
    pub(crate) transaction_since: Cell<Option<Instant>>,
    pub(crate) last_route: Cell<Option<(Role, Reason)>>,
    /// Since when its batch waits.
    pub(crate) waiting_since: Cell<Option<Instant>>,
    /// How long a batch of it has waited last.
    pub(crate) wait: Cell<Duration>,
    pub(crate) moved_at: Cell<Instant>,
    pub(crate) received_bytes: Cell<u64>,
    pub(crate) sent_bytes: Cell<u64>,
    pub(crate) prepared_statements: Cell<usize>,
    running: RefCell<Option<Running>>,
}

/// What a client runs.
#[derive(Debug)]
enum Running {
    /// A plan that others share.
    Shared(Seen),
    /// The beginning of a text that nobody else has: an idle session must not keep all of it.
    Cut(Arc<str>),
}

/// The longest shape whose plan a client keeps. Chosen: those of more are not shared in the plan table, so that each would
/// be one client's alone.
const KEPT_SHAPE_BYTES: usize = 8 * 1024;

impl Who {
    /// Returns who has logged in on `stream`.
    pub(crate) fn new(
        identity: &Identity,
        stream: &Stream,
        counted: Rc<DatabaseCell>,
        now: Instant,
    ) -> Self {
        Who {
            user: Arc::clone(&identity.user),
            database: Arc::clone(&identity.database),
            application: Arc::clone(&identity.application),
            server_user: Arc::clone(&identity.server_user),
            server_database: Arc::clone(&identity.server_database),
            address: address_of(&stream.peer()),
            local_address: address_of(&stream.local()),
            counted,
            connected_at: now,
        }
    }
}

#[cfg(test)]
impl Who {
    /// Returns somebody of whom nothing is known.
    pub(crate) fn nobody() -> Self {
        Who {
            user: Arc::default(),
            database: Arc::default(),
            application: Arc::default(),
            server_user: Arc::default(),
            server_database: Arc::default(),
            address: Arc::default(),
            local_address: Arc::default(),
            counted: Rc::new(DatabaseCell::new(Arc::default(), 0)),
            connected_at: Instant::now(),
        }
    }
}

/// Returns an address as tables show it.
fn address_of(peer: &Peer) -> Arc<str> {
    match peer {
        Peer::Tcp(address) => address.to_string().into(),
        Peer::Unix(_) | Peer::UnixClient => "unix".into(),
        Peer::Host(..) | Peer::Unknown => Arc::default(),
    }
}

impl Shown {
    pub(crate) fn new(who: Who) -> Self {
        Shown {
            server: Cell::default(),
            aside: Cell::default(),
            pins: Cell::default(),
            is_active: Cell::default(),
            in_transaction: Cell::default(),
            transaction_since: Cell::default(),
            last_route: Cell::default(),
            waiting_since: Cell::default(),
            wait: Cell::default(),
            moved_at: Cell::new(who.connected_at),
            received_bytes: Cell::default(),
            sent_bytes: Cell::default(),
            prepared_statements: Cell::default(),
            running: RefCell::default(),
            who,
        }
    }

    /// Returns what the session does.
    pub(crate) fn state(&self) -> ClientState {
        match self.waiting_since.get() {
            Some(_) => ClientState::Waiting,
            None if self.is_active.get() || self.in_transaction.get() => ClientState::Active,
            None => ClientState::Idle,
        }
    }

    /// Returns how long its batch has waited, or waited last.
    pub(crate) fn wait_until(&self, now: Instant) -> Duration {
        match self.waiting_since.get() {
            Some(since) => now.saturating_duration_since(since),
            None => self.wait.get(),
        }
    }

    /// Notes what it runs.
    #[inline]
    pub(crate) fn set_statement(&self, seen: &Seen) {
        let mut shown = self.running.borrow_mut();
        if !matches!(&*shown, Some(Running::Shared(known)) if known.is_same(seen)) {
            *shown = Some(match seen.plan.shape.len() > KEPT_SHAPE_BYTES {
                true => Running::Cut(Arc::clone(&seen.displayed().text)),
                false => Running::Shared(seen.clone()),
            });
        }
    }

    /// Returns what it runs, or ran last.
    pub(crate) fn statement(&self) -> Option<Arc<str>> {
        match &*self.running.borrow() {
            Some(Running::Shared(seen)) => Some(Arc::clone(&seen.displayed().text)),
            Some(Running::Cut(text)) => Some(Arc::clone(text)),
            None => None,
        }
    }

    /// Adds what the client has sent.
    #[inline]
    pub(crate) fn add_received(&self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let so_far = self.received_bytes.get();
        self.received_bytes.set(so_far.wrapping_add(count));
    }
}

fn shown_server(held: &Held) -> ShownServer {
    let state = &held.lease.state;
    ShownServer {
        node: held.node,
        role: held.role,
        process_id: state.key.process_id,
        opened_at: state.opened_at,
        since: held.since,
        prepared_statements: state.session.statements.len(),
    }
}

impl Client {
    /// Writes down what is shown of the session, at the end of a turn.
    pub(crate) fn write_down(&self) {
        let shown = &self.slot.shown;
        let held = self.held.as_ref();
        shown.server.set(held.map(shown_server));
        if self.aside.is_some() || shown.aside.get().is_some() {
            shown.aside.set(self.aside.as_ref().map(shown_server));
        }
        let pinned = held.or(self.aside.as_ref());
        shown
            .pins
            .set(pinned.map(|held| held.pins).unwrap_or_default());
        let is_open = self.client_status() != TransactionStatus::Idle;
        shown.in_transaction.set(is_open);
        let since = self.account.transaction_began().filter(|_| is_open);
        shown.transaction_since.set(since);
        // What is asked of the server for the proxy's own sake is not the client's.
        let is_ours = self.stage() == Some(Stage::Asking);
        shown.is_active.set(!is_ours && !self.session.is_settled());
        shown.moved_at.set(self.moved_at);
        shown.sent_bytes.set(self.out.total());
        let prepared = self.session.statement_count();
        shown.prepared_statements.set(prepared);
    }
}
