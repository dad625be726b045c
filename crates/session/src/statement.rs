//! Statements that clients prepared, one copy per worker thread, named by text and parameter types.
//!
//! A client's statement name means nothing to a shared server connection. What is prepared there is the *text and
//! parameter types* under a name of ours, so that all sessions which prepare the same thing share one plan.
//!
//! ## Why
//! The table belongs to a thread, so it needs no lock; ids carry the thread's number, so that a server connection that
//! moves to another thread never confuses two statements (it may hold one twice, which costs a little memory there).
//!
//! ## Limits
//! The table keeps two generations; when the young one is full the old one is dropped. A statement that a client still
//! holds lives on through its `Rc`, and preparing its text anew merely gives it another id.

use std::cell::Cell;
use std::hash::BuildHasher;
use std::rc::Rc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use pgweir_sql::plan::{Plan, PlanTable};

/// What a statement is called within the process: the worker's number above, a counter below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatementId(pub u64);

/// Bits of a [`StatementId`] that count statements; the worker's number lies above them.
const COUNTER_BITS: u32 = 48;

impl StatementId {
    /// Returns the name under which the statement is prepared on servers.
    ///
    /// Well below NAMEDATALEN (64), and with a prefix that no client gets through to a server.
    pub fn server_name(self) -> String {
        format!(
            "{SERVER_NAME_PREFIX}{}_{}",
            self.0 >> COUNTER_BITS,
            self.0 & ((1 << COUNTER_BITS) - 1)
        )
    }
}

/// Begins every statement name that pgweir uses on a server.
pub const SERVER_NAME_PREFIX: &str = "pgweir_";

/// The statement that is there once a switch of parameters has succeeded, until the batch begins.
pub const GUARD: &[u8] = b"pgweir_guard";

/// A name that no client's statement has there: it stands for one that is taken.
pub const TAKEN: &[u8] = b"pgweir_taken";

/// A name that is never prepared: Bind and Describe of a missing statement are sent to it, so that the *server* fails
/// the batch with all the consequences that this has there.
pub const MISSING_NAME: &[u8] = b"pgweir_missing";

/// A prepared statement's text and parameter types.
#[derive(Debug)]
pub struct Statement {
    /// Its identity on servers.
    pub id: StatementId,
    /// The name on servers, as bytes.
    pub server_name: Box<[u8]>,
    /// What follows the name in Parse: text, NUL, number of types, types. `None` when the message was too large to keep:
    /// then the statement exists only where it was sent, and the session is pinned there.
    pub tail: Option<Box<[u8]>>,
    /// Bytes of the text at its front.
    text_len: usize,
    /// How the text is classified; `None` where it was too large to be read.
    pub plan: Option<Rc<Plan>>,
    /// The settings by which it was read when it was first prepared; see [`ParameterSet::reading`](crate::ParameterSet::reading).
    reading: u64,
    /// How often it has been prepared by clients of this thread.
    prepared_count: Cell<u32>,
    /// The context in which a server last accepted it.
    accepted_in: Cell<Context>,
}

/// What the acceptance of a statement depends on, besides its text and types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Context {
    /// Cluster, database, role and startup parameters, as one number that no two combinations share.
    pub place: u64,
    /// The settings of the session, as the id of their set; `u64::MAX` for what holds for a transaction only.
    pub settings: u64,
    /// The schema epoch.
    pub epoch: u64,
}

impl Statement {
    /// Returns whether naming it on the server pays: from the second time on.
    ///
    /// A text with literals in it comes once; naming it would only push useful statements out of the server's list.
    pub fn is_repeated(&self) -> bool {
        self.prepared_count.get() > 1
    }

    /// Returns its text; nothing where it was too large to keep.
    pub fn text(&self) -> &[u8] {
        let tail = self.tail.as_deref().unwrap_or_default();
        tail.get(..self.text_len).unwrap_or_default()
    }

    /// Notes that a server accepted it.
    pub(crate) fn accept(&self, context: Context) {
        self.accepted_in.set(context);
    }

    /// Returns whether a server accepted it in this very context, so that preparing it again needs no server: it is
    /// placed where it is first run.
    pub(crate) fn is_accepted(&self, context: Context) -> bool {
        context.place != 0 && context.settings != u64::MAX && self.accepted_in.get() == context
    }
}

/// The statements of one worker thread.
#[derive(Debug)]
pub struct StatementTable {
    worker: u16,
    next: u64,
    hasher: RandomState,
    young: HashTable<Rc<Statement>>,
    old: HashTable<Rc<Statement>>,
    young_bytes: usize,
    count_limit: usize,
    bytes_limit: usize,
}

impl StatementTable {
    /// Makes an empty table for worker number `worker`, bounded by `count_limit` statements and `bytes_limit` bytes of
    /// text per generation.
    pub fn new(worker: u16, count_limit: usize, bytes_limit: usize) -> Self {
        StatementTable {
            worker,
            next: 0,
            hasher: RandomState::default(),
            young: HashTable::new(),
            old: HashTable::new(),
            young_bytes: 0,
            count_limit: count_limit.max(1),
            bytes_limit,
        }
    }

    /// Returns the statement of a Parse message, given what follows its name (`tail`) and the text alone (`sql`).
    ///
    /// `reading` stands for the settings that give the text its meaning: sessions that differ in them share no statement.
    /// `None` where no other session's can be the same.
    /// Allocates only for a statement that is not known yet.
    pub fn prepare(
        &mut self,
        tail: &[u8],
        sql: &[u8],
        reading: Option<u64>,
        plans: &mut PlanTable,
    ) -> Rc<Statement> {
        let Some(reading) = reading else {
            let statement = self.create(Some(tail.into()), Some(plans.get(sql)), 0);
            statement.prepared_count.set(2);
            return statement;
        };
        let hash = self.hasher.hash_one((tail, reading));
        let same = |statement: &Rc<Statement>| {
            statement.reading == reading && statement.tail.as_deref() == Some(tail)
        };
        if let Some(found) = self.young.find(hash, same) {
            found
                .prepared_count
                .set(found.prepared_count.get().saturating_add(1));
            return Rc::clone(found);
        }
        let statement = match self.old.find_entry(hash, same) {
            Ok(entry) => entry.remove().0,
            Err(_) => self.create(Some(tail.into()), Some(plans.get(sql)), reading),
        };
        statement
            .prepared_count
            .set(statement.prepared_count.get().saturating_add(1));
        self.insert(hash, &statement, tail.len());
        statement
    }

    /// Returns a statement whose text was too large to keep: it is in no table and can be prepared only once.
    pub fn prepare_unread(&mut self) -> Rc<Statement> {
        let statement = self.create(None, None, 0);
        statement.prepared_count.set(2);
        statement
    }

    fn create(
        &mut self,
        tail: Option<Box<[u8]>>,
        plan: Option<Rc<Plan>>,
        reading: u64,
    ) -> Rc<Statement> {
        let id = StatementId(u64::from(self.worker) << COUNTER_BITS | self.next);
        self.next += 1;
        let text = tail
            .as_deref()
            .and_then(|tail| tail.split(|byte| *byte == 0).next());
        Rc::new(Statement {
            id,
            text_len: text.map_or(0, <[u8]>::len),
            server_name: id.server_name().into_bytes().into(),
            tail,
            plan,
            reading,
            prepared_count: Cell::new(0),
            accepted_in: Cell::default(),
        })
    }

    fn insert(&mut self, hash: u64, statement: &Rc<Statement>, bytes: usize) {
        if self.young.len() >= self.count_limit || self.young_bytes + bytes > self.bytes_limit {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        let hasher = &self.hasher;
        self.young.insert_unique(hash, Rc::clone(statement), |s| {
            hasher.hash_one((s.tail.as_deref().unwrap_or_default(), s.reading))
        });
    }

    /// Returns the statements that it holds, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Rc<Statement>> {
        self.young.iter().chain(self.old.iter())
    }

    /// Returns how many statements the table holds.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Returns whether the table holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
