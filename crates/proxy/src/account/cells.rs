//! What one worker counts, in cells: no lock, no atomic, and no name is looked up for a batch.
//!
//! A session holds the [`DatabaseCell`] of its database; servers are found by their place in the configuration. Only who asks
//! for a report gets maps with names.
//!
//! ## Limits
//! [`DATABASES_LIMIT`] databases are told apart by name, as an entry `*` serves any; the clients of further ones are counted
//! together. Classes and codes of errors likewise, as a client can have its server raise any it likes.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pgweir_config::Config;
use pgweir_metrics::{
    Counts, DatabaseCounts, Destination, Histogram, Lap, NodeCounts, ProcessCounts, Recent,
    Statement, StatementKey,
};
use pgweir_model::{NodeId, Reason, Sqlstate};
use pgweir_sql::Fingerprint;
use pgweir_sql::display::{DISPLAY_BYTES_LIMIT, beginning};

use crate::seen::Seen;

/// Databases that are counted by name. Chosen: each is some KiB here and some dozen lines of a scrape, and who has more of
/// them looks at the servers rather than at each.
const DATABASES_LIMIT: usize = 200;

/// The name of those beyond.
const OTHERS: &str = "other";

/// Classes and codes of errors that are told apart per database. PostgreSQL knows 43 classes; of a proxy's own codes there are
/// about 30.
const CODES_LIMIT: usize = 64;

/// What the classes and codes beyond are counted as. It is no SQLSTATE.
const OTHER_CLASS: [u8; 2] = *b"??";
const OTHER_CODE: [u8; 5] = *b"?????";

const DESTINATIONS: usize = Destination::ALL.len();
const REASONS: usize = Reason::ALL.len();

/// Counts one more.
#[inline]
fn add(cell: &Cell<u64>, more: u64) {
    cell.set(cell.get().wrapping_add(more));
}

/// What was done for the clients of one database, as [`DatabaseCounts`] has it.
#[derive(Debug)]
pub(crate) struct DatabaseCell {
    pub(crate) name: Arc<str>,
    /// Its place among the databases of this worker.
    pub(crate) index: usize,
    transactions: Cell<u64>,
    queries: Cell<u64>,
    assignments: Cell<u64>,
    /// Of clients that have left; those that are there have their own.
    received_bytes: Cell<u64>,
    sent_bytes: Cell<u64>,
    transaction_us: Cell<u64>,
    query: RefCell<[Histogram; DESTINATIONS]>,
    wait: RefCell<Histogram>,
    client_parses: Cell<u64>,
    server_parses: Cell<u64>,
    binds: Cell<u64>,
    routes: [[Cell<u64>; REASONS]; DESTINATIONS],
    server_errors: RefCell<BTreeMap<[u8; 2], u64>>,
    own_errors: RefCell<BTreeMap<[u8; 5], u64>>,
}

impl DatabaseCell {
    pub(crate) fn new(name: Arc<str>, index: usize) -> Self {
        DatabaseCell {
            name,
            index,
            transactions: Cell::default(),
            queries: Cell::default(),
            assignments: Cell::default(),
            received_bytes: Cell::default(),
            sent_bytes: Cell::default(),
            transaction_us: Cell::default(),
            query: RefCell::default(),
            wait: RefCell::default(),
            client_parses: Cell::default(),
            server_parses: Cell::default(),
            binds: Cell::default(),
            routes: std::array::from_fn(|_| std::array::from_fn(|_| Cell::default())),
            server_errors: RefCell::default(),
            own_errors: RefCell::default(),
        }
    }

    /// Counts a batch that was answered, and where.
    #[inline]
    pub(crate) fn note_batch(&self, destination: Destination, reason: Reason) {
        add(&self.queries, 1);
        let routes = self.routes.get(destination as usize);
        if let Some(count) = routes.and_then(|reasons| reasons.get(reason as usize)) {
            add(count, 1);
        }
    }

    /// Counts how long a server took for a batch.
    #[inline]
    pub(crate) fn note_query(&self, destination: Destination, took: Lap) {
        if let Some(histogram) = self.query.borrow_mut().get_mut(destination as usize) {
            histogram.record(took);
        }
    }

    /// Counts how long a batch has waited.
    pub(crate) fn note_wait(&self, waited: Duration) {
        self.wait.borrow_mut().record(waited);
    }

    /// Counts a transaction that is over, and how many microseconds it took.
    #[inline]
    pub(crate) fn note_transaction(&self, took_us: u64) {
        add(&self.transactions, 1);
        add(&self.transaction_us, took_us);
    }

    /// Counts a server connection that a session was given.
    #[inline]
    pub(crate) fn note_assignment(&self) {
        add(&self.assignments, 1);
    }

    /// Adds what a session has counted of its messages.
    #[inline]
    pub(crate) fn note_messages(&self, tally: &mut pgweir_session::Tally) {
        add(
            &self.client_parses,
            std::mem::take(&mut tally.client_parses).into(),
        );
        add(
            &self.server_parses,
            std::mem::take(&mut tally.server_parses).into(),
        );
        add(&self.binds, std::mem::take(&mut tally.binds).into());
        if !tally.errors.is_empty() {
            self.note_server_errors(&mut tally.errors);
        }
    }

    #[cold]
    fn note_server_errors(&self, classes: &mut Vec<[u8; 2]>) {
        let mut counts = self.server_errors.borrow_mut();
        for class in classes.drain(..) {
            count_code(&mut counts, class, OTHER_CLASS);
        }
    }

    /// Counts an error of the proxy's own.
    #[cold]
    pub(crate) fn note_own_error(&self, sqlstate: Sqlstate) {
        count_code(&mut self.own_errors.borrow_mut(), sqlstate.0, OTHER_CODE);
    }

    /// Adds the bytes of a client that leaves.
    pub(crate) fn note_bytes(&self, received: u64, sent: u64) {
        add(&self.received_bytes, received);
        add(&self.sent_bytes, sent);
    }

    /// Returns what was counted, without the bytes of clients that are there.
    pub(crate) fn counts(&self) -> DatabaseCounts {
        let mut counts = DatabaseCounts {
            transactions: self.transactions.get(),
            queries: self.queries.get(),
            assignments: self.assignments.get(),
            received_bytes: self.received_bytes.get(),
            sent_bytes: self.sent_bytes.get(),
            transaction_us: self.transaction_us.get(),
            query: BTreeMap::new(),
            wait: *self.wait.borrow(),
            client_parses: self.client_parses.get(),
            server_parses: self.server_parses.get(),
            binds: self.binds.get(),
            routes: BTreeMap::new(),
            server_errors: self.server_errors.borrow().clone(),
            own_errors: self.own_errors.borrow().clone(),
        };
        for (destination, histogram) in Destination::ALL.iter().zip(*self.query.borrow()) {
            if histogram.count() > 0 {
                counts.query.insert(*destination, histogram);
            }
        }
        for (destination, reasons) in Destination::ALL.iter().zip(&self.routes) {
            for (reason, count) in Reason::ALL.iter().zip(reasons) {
                if count.get() > 0 {
                    counts.routes.insert((*destination, *reason), count.get());
                }
            }
        }
        counts
    }
}

/// Counts one more of a code, or of `other` where as many are known as are told apart.
fn count_code<K: Copy + Ord>(counts: &mut BTreeMap<K, u64>, code: K, other: K) {
    let is_full = counts.len() >= CODES_LIMIT && !counts.contains_key(&code);
    let code = if is_full { other } else { code };
    *counts.entry(code).or_default() += 1;
}

/// What was done with one server, as [`NodeCounts`] has it.
#[derive(Debug, Default)]
struct NodeCell {
    queries: Cell<u64>,
    query: RefCell<Histogram>,
    connects: Cell<u64>,
    connect_failures: Cell<u64>,
    losses: Cell<u64>,
    last_error: RefCell<Option<Box<str>>>,
}

/// All that one worker counts.
#[derive(Debug)]
pub(crate) struct Books {
    databases: RefCell<Vec<Rc<DatabaseCell>>>,
    /// By cluster and place in it.
    nodes: Vec<Vec<NodeCell>>,
    statements: RefCell<Recent<(usize, Fingerprint), Statement>>,
    logins: Cell<u64>,
    logins_refused: Cell<u64>,
    cancels: Cell<u64>,
}

impl Books {
    pub(crate) fn new(config: &Config) -> Self {
        let nodes = |cluster: &pgweir_config::Cluster| {
            cluster
                .backends
                .iter()
                .map(|_| NodeCell::default())
                .collect()
        };
        Books {
            databases: RefCell::default(),
            nodes: config.clusters.iter().map(nodes).collect(),
            statements: RefCell::new(Recent::new(config.server.statement_statistics)),
            logins: Cell::default(),
            logins_refused: Cell::default(),
            cancels: Cell::default(),
        }
    }

    /// Takes the limits of another configuration over.
    pub(crate) fn apply(&self, config: &Config) {
        let limit = config.server.statement_statistics;
        self.statements.borrow_mut().set_limit(limit);
    }

    /// Returns what is counted of a database, by its name as clients give it.
    pub(crate) fn database(&self, name: &Arc<str>) -> Rc<DatabaseCell> {
        let mut databases = self.databases.borrow_mut();
        let is_full = databases.len() >= DATABASES_LIMIT;
        let known = |name: &str| databases.iter().find(|cell| *cell.name == *name);
        let found = known(name).or_else(|| known(OTHERS).filter(|_| is_full));
        if let Some(cell) = found {
            return Rc::clone(cell);
        }
        let name = match is_full {
            true => OTHERS.into(),
            false => Arc::clone(name),
        };
        let cell = Rc::new(DatabaseCell::new(name, databases.len()));
        databases.push(Rc::clone(&cell));
        cell
    }

    fn node(&self, node: NodeId) -> Option<&NodeCell> {
        let nodes = self.nodes.get(usize::from(node.cluster))?;
        nodes.get(usize::from(node.node))
    }

    /// Counts a batch that a server has answered.
    #[inline]
    pub(crate) fn note_node_query(&self, node: NodeId, took: Lap) {
        if let Some(cell) = self.node(node) {
            add(&cell.queries, 1);
            cell.query.borrow_mut().record(took);
        }
    }

    /// Counts a server connection that was opened.
    pub(crate) fn note_connect(&self, node: NodeId) {
        if let Some(cell) = self.node(node) {
            add(&cell.connects, 1);
        }
    }

    /// Counts one that could not be opened.
    pub(crate) fn note_connect_failure(&self, node: NodeId, error: &pgweir_backend::ConnectError) {
        if let Some(cell) = self.node(node) {
            add(&cell.connect_failures, 1);
            cell.last_error.replace(Some(error.to_string().into()));
        }
    }

    /// Counts one that was lost in use.
    pub(crate) fn note_loss(&self, node: NodeId) {
        if let Some(cell) = self.node(node) {
            add(&cell.losses, 1);
            let text = "a server connection was lost in use";
            cell.last_error.replace(Some(text.into()));
        }
    }

    pub(crate) fn note_login(&self) {
        add(&self.logins, 1);
    }

    pub(crate) fn note_refused_login(&self) {
        add(&self.logins_refused, 1);
    }

    pub(crate) fn note_cancel(&self) {
        add(&self.cancels, 1);
    }

    /// Counts a call of a statement: `act` is given its statistics, where any are kept.
    #[inline]
    pub(crate) fn note_statement(
        &self,
        database: &DatabaseCell,
        seen: &Seen,
        act: impl FnOnce(&mut Statement),
    ) {
        let displayed = seen.displayed();
        let key = (database.index, displayed.fingerprint);
        let mut statements = self.statements.borrow_mut();
        let made = || Statement {
            shape: Arc::clone(&displayed.text),
            ..Statement::default()
        };
        if let Some(statement) = statements.get_or_insert_with(key, made) {
            act(statement);
        }
    }

    /// Empties the statistics of statements.
    pub(crate) fn reset_statements(&self) {
        self.statements.borrow_mut().clear();
    }

    /// Returns the statistics of statements.
    pub(crate) fn statements(&self) -> Vec<(StatementKey, Statement)> {
        let databases = self.databases.borrow();
        let statements = self.statements.borrow();
        let named = |((database, fingerprint), statement): ((usize, Fingerprint), &Statement)| {
            let key = StatementKey {
                database: Arc::clone(&databases.get(database)?.name),
                fingerprint: fingerprint.0,
            };
            Some((key, statement.clone()))
        };
        statements.iter().filter_map(named).collect()
    }

    /// Returns the databases that are counted, each at its index.
    pub(crate) fn databases(&self) -> Vec<Rc<DatabaseCell>> {
        self.databases.borrow().clone()
    }

    /// Returns what was counted. The bytes of clients that are there, and what all workers count together, are still missing.
    pub(crate) fn counts(&self) -> Counts {
        let databases = self.databases.borrow();
        let mut counts = Counts {
            logins: self.logins.get(),
            logins_refused: self.logins_refused.get(),
            cancels: self.cancels.get(),
            process: ProcessCounts {
                statements_kept: self.statements.borrow().len(),
                statements_evicted: self.statements.borrow().evicted(),
                ..ProcessCounts::default()
            },
            ..Counts::default()
        };
        for cell in databases.iter() {
            counts
                .databases
                .insert(Arc::clone(&cell.name), cell.counts());
        }
        for (cluster, nodes) in (0u16..).zip(&self.nodes) {
            for (node, cell) in (0u16..).zip(nodes) {
                let counted = NodeCounts {
                    queries: cell.queries.get(),
                    query: *cell.query.borrow(),
                    connects: cell.connects.get(),
                    connect_failures: cell.connect_failures.get(),
                    losses: cell.losses.get(),
                    last_error: cell.last_error.borrow().clone(),
                };
                counts.nodes.insert(NodeId { cluster, node }, counted);
            }
        }
        counts
    }
}

/// Returns the beginning of a text, as it is shown.
pub(crate) fn shown(text: &[u8]) -> Arc<str> {
    beginning(text, DISPLAY_BYTES_LIMIT).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgweir_sql::plan::PlanTable;

    fn books(settings: &str) -> Books {
        let text = format!(
            "auth.method = 'trust'\nclusters.main.backends = [{{ host = 'a' }}, {{ host = 'b' }}]\n\
             [server]\n{settings}\n[databases.app]\n"
        );
        Books::new(&pgweir_config::parse(&text, "f").unwrap())
    }

    #[test]
    fn batches_are_counted_by_where_they_went_and_why() {
        let books = books("");
        let cell = books.database(&"app".into());
        cell.note_batch(Destination::Replica, Reason::Read);
        cell.note_batch(Destination::Replica, Reason::Read);
        cell.note_batch(Destination::Local, Reason::Local);
        cell.note_query(Destination::Replica, Duration::from_micros(70).into());
        cell.note_transaction(2_000);
        cell.note_bytes(10, 20);
        let counts = books.counts();
        let app = &counts.databases["app"];
        assert_eq!(app.queries, 3);
        let routes: Vec<_> = app
            .routes
            .iter()
            .map(|(key, count)| (*key, *count))
            .collect();
        let replica = ((Destination::Replica, Reason::Read), 2);
        assert_eq!(routes, [replica, ((Destination::Local, Reason::Local), 1)]);
        assert_eq!(app.query.len(), 1);
        assert_eq!(app.query[&Destination::Replica].sum_us(), 70);
        assert_eq!((app.transactions, app.transaction_us), (1, 2_000));
        assert_eq!((app.received_bytes, app.sent_bytes), (10, 20));
        assert_eq!(counts.nodes.len(), 2);
    }

    #[test]
    fn further_databases_are_counted_together() {
        let books = books("");
        let names: Vec<Arc<str>> = (0..DATABASES_LIMIT + 2)
            .map(|n| format!("d{n}").into())
            .collect();
        for name in names.iter().chain(&names) {
            let cell = books.database(name);
            cell.note_batch(Destination::Primary, Reason::Write);
        }
        let counts = books.counts();
        assert_eq!(counts.databases.len(), DATABASES_LIMIT + 1);
        assert_eq!(counts.databases["d0"].queries, 2);
        assert_eq!(counts.databases[OTHERS].queries, 4);
    }

    #[test]
    fn further_codes_of_errors_are_counted_together() {
        let mut counts = BTreeMap::new();
        for code in (0..200u8).chain([0]) {
            count_code(&mut counts, [code, 0], OTHER_CLASS);
        }
        assert_eq!(counts.len(), CODES_LIMIT + 1);
        assert_eq!(counts[&[0, 0]], 2);
        assert_eq!(counts[&OTHER_CLASS], 200 - 64);
    }

    #[test]
    fn statements_are_told_apart_by_shape_and_database_up_to_their_limit() {
        let books = books("statement_statistics = 2");
        let (app, other) = (books.database(&"app".into()), books.database(&"b".into()));
        let mut plans = PlanTable::new(8);
        let mut call = |cell: &DatabaseCell, sql: &[u8]| {
            let seen = Seen {
                plan: plans.get(sql),
                is_read: true,
            };
            let took = Duration::from_micros(5);
            books.note_statement(cell, &seen, |statement| {
                statement.record(Destination::Primary, Reason::Write, took, 1);
            });
        };
        call(&app, b"select 1");
        call(&other, b"select 1");
        call(&app, b"select 2");
        let calls = |books: &Books| {
            let all = books.statements();
            let mut all: Vec<_> = (all.into_iter())
                .map(|(key, of)| (key.database.to_string(), of.shape.to_string(), of.calls))
                .collect();
            all.sort();
            all
        };
        let entry = |database: &str, shape: &str, calls| (database.into(), shape.into(), calls);
        let shape = "select 0";
        let expected = [entry("app", shape, 2), entry("b", shape, 1)];
        assert_eq!(calls(&books), expected);
        call(&app, b"select a from t");
        let expected = [entry("app", shape, 2), entry("app", "select a from t", 1)];
        assert_eq!(calls(&books), expected);
        books.reset_statements();
        assert!(books.statements().is_empty());
    }

    #[test]
    fn the_last_failure_of_a_server_is_remembered() {
        let books = books("");
        let node = NodeId {
            cluster: 0,
            node: 1,
        };
        books.note_connect(node);
        books.note_connect_failure(node, &pgweir_backend::ConnectError::Timeout);
        let counts = books.counts();
        let counted = &counts.nodes[&node];
        assert_eq!((counted.connects, counted.connect_failures), (1, 1));
        let expected = pgweir_backend::ConnectError::Timeout.to_string();
        assert_eq!(counted.last_error.as_deref(), Some(expected.as_str()));
        books.note_loss(node);
        assert_eq!(books.counts().nodes[&node].losses, 1);
        // Nobody has configured it.
        books.note_loss(NodeId {
            cluster: 7,
            node: 1,
        });
    }
}
