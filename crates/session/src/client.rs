//! What is known of one client between its login and its end: statements it prepared, replies it waits for.
//!
//! ```text
//!                 scan: a batch is whole            forward: translated for a server
//!   client's bytes ──────────────────────► routed ────────────────────────────────────► outstanding
//!                                             │                                             │ receive: the server's bytes
//!                                             └── nothing in it needs a server:             ▼
//!                                                 answer_locally ─────────────────────► client
//! ```
//! A *batch* is one Query, one FunctionCall, or the extended messages up to a Sync: the unit of routing.

mod facts;
mod forward;
mod front;
mod scan;
mod texts;
mod translate;

use std::collections::VecDeque;
use std::rc::Rc;

use hashbrown::HashMap;
use pgweir_sql::Lens;
use pgweir_sql::plan::{Plan, PlanTable};

pub use facts::{Facts, Marks, is_read};
pub use front::FrontFailure;
pub use scan::{Portion, Scan, ScanMode};
use translate::Translation;

use crate::outstanding::{Outstanding, Pending};
use crate::parameters::SharedParameters;
use crate::reply::Watch;
use crate::server::{Ledger, ServerSession};
use crate::state::State;
use crate::statement::{Context, SERVER_NAME_PREFIX, Statement, StatementTable};
use crate::tally::Tally;

/// Bounds on what one client may make the proxy hold. All in bytes unless named otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest message that is accepted.
    pub max_message: usize,
    /// A batch larger than this is not read as a whole: it goes to the primary and streams.
    pub route_buffer: usize,
    /// Requests whose replies may be due at once; the client is not read further until some have come.
    pub pipeline: usize,
}

/// The tables of a worker thread that sessions share.
#[derive(Debug)]
pub struct Tables {
    /// Classified shapes.
    pub plans: PlanTable,
    /// Prepared statements.
    pub statements: StatementTable,
    /// The schema epoch now.
    pub epoch: u64,
}

/// The session of one client.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts of a session, each true for a while of its own"
)]
#[derive(Debug)]
pub struct ClientSession {
    named: HashMap<Box<[u8]>, Rc<Statement>, foldhash::fast::RandomState>,
    unnamed: Option<Rc<Statement>>,
    pub(crate) outstanding: Outstanding,
    pub(crate) replies: Replies,
    /// Its settings, and how to open its transaction anew.
    pub state: State,
    /// Portals made of statements that touch the state: its name, the statement.
    portals: Vec<(Box<[u8]>, Rc<Statement>)>,
    /// The session's transaction can be opened anew on another server, should this one die.
    pub(crate) reopens: bool,
    plans: Plans,
    /// Where its statements are prepared, and the schema epoch of the server that it last used.
    pub(crate) context: Context,
    /// What the client was told of the parameters by a server that its transaction has left.
    pub(crate) told: Option<Told>,
    /// What the names in its texts stand for.
    lens: Lens,
    /// What its settings make of a text.
    pub(crate) reading: u64,
    limits: Limits,
    batch: BatchInProgress,
    rest: Rest,
    /// The session has its server connection for itself.
    pub(crate) owns_server: bool,
    /// A question of ours about what the session has left on its server connection.
    pub(crate) probe: Probe,
    /// Process IDs that are other ones on the server.
    translation: Translation,
    /// The error of what stood in front of the batch, while it is not decided whether the client hears of it.
    front_error: Vec<u8>,
    /// A batch that has been answered took from the connection what the session came with.
    pub(crate) is_restore_due: bool,
    /// What the client is told where the server says that the statement was cancelled: a complete ErrorResponse message.
    pub(crate) cancel_error: Option<Box<[u8]>>,
    /// The client was sent an error since that was last asked.
    pub(crate) has_failed: bool,
    /// Part of a batch has been forwarded, its end has not.
    pub(crate) is_open: bool,
    /// What it counts.
    pub tally: Tally,
    kept: Kept,
}

/// Which plans of a batch are kept for those who look at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// The one that decides, and the first with a hint.
    Deciding,
    /// All.
    All,
}

/// The part of the client's present message that is still to come.
#[derive(Debug, Clone, Copy, Default)]
struct Rest {
    /// Its size in bytes.
    len: usize,
    /// It goes nowhere instead of to the server: nobody reads it, or the message's head was replaced by one that fails.
    is_dropped: bool,
}

/// Parameters as a server reported them: name, value.
pub(crate) type Told = Box<[(Box<str>, Box<str>)]>;

/// A question of ours to the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Probe {
    /// None was asked, or its answer was taken.
    #[default]
    None,
    /// The body of the row that answered it; empty while none has come.
    Asked(Vec<u8>),
    /// It failed.
    Failed,
}

/// Where the statements come from that the batch at hand runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plans {
    /// All from the batch itself.
    New,
    /// At least one was on the server before.
    Old,
}

/// What becomes of the replies that are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replies {
    /// The client gets them.
    Passed,
    /// Likewise, unless they begin with an error that is not the client's.
    Watched(Watch),
    /// They are thrown away until all are in.
    Abandoned,
    /// A switch of parameters in front of the batch was cancelled; whether the server skips the batch is known once it has been
    /// asked for the guard.
    FrontFailing,
    /// What stands in front of the batch failed (a switch of parameters, a BEGIN): the server connection must be closed.
    FrontFailed(FrontFailure),
}

/// What [`scan`](ClientSession::scan) has found so far of a batch.
#[derive(Debug, Default)]
struct BatchInProgress {
    /// Bytes from the start of the input that have been looked at.
    scanned: usize,
    facts: Facts,
    /// The statements of its Parse messages, in order; `forward` takes them from here.
    /// `None` for one that cannot be read.
    parsed: VecDeque<Option<Rc<Statement>>>,
    /// The unnamed statement as this batch leaves it; `None` where the batch does not touch it.
    unnamed: Option<Option<Rc<Statement>>>,
    /// Named statements that this batch defines.
    defined: HashMap<Box<[u8]>, Rc<Statement>, foldhash::fast::RandomState>,
}

impl BatchInProgress {
    fn reset(&mut self) {
        self.scanned = 0;
        self.facts = Facts::default();
        self.parsed.clear();
        self.unnamed = None;
        if !self.defined.is_empty() {
            self.defined = HashMap::default();
        }
    }
}

impl ClientSession {
    /// Makes the session of a client that has logged in.
    ///
    /// `place` stands for cluster, database, role and startup parameters: no two combinations share one; never 0.
    pub fn new(limits: Limits, parameters: SharedParameters, place: u64) -> Self {
        ClientSession {
            named: HashMap::default(),
            unnamed: None,
            outstanding: Outstanding::default(),
            replies: Replies::Passed,
            context: Context {
                place,
                settings: parameters.id,
                epoch: 0,
            },
            told: None,
            lens: Lens::blind(),
            reading: parameters.reading(),
            state: State::new(parameters),
            portals: Vec::new(),
            plans: Plans::New,
            limits,
            batch: BatchInProgress::default(),
            rest: Rest::default(),
            owns_server: false,
            reopens: false,
            probe: Probe::None,
            translation: Translation::default(),
            front_error: Vec::new(),
            is_restore_due: false,
            cancel_error: None,
            has_failed: false,
            is_open: false,
            tally: Tally::default(),
            kept: Kept::Deciding,
        }
    }

    /// Returns what the batch at hand asks for. Valid between `scan` and `forward`, `answer_locally` or `drop_batch`.
    pub fn facts(&self) -> &Facts {
        &self.batch.facts
    }

    /// Says whether [`Facts::plans`] is to hold all plans of a batch.
    pub fn keep_plans(&mut self, keep: bool) {
        self.kept = if keep { Kept::All } else { Kept::Deciding };
    }

    /// Forgets what the batch at hand would do: it is not going to run.
    pub fn void_facts(&mut self) {
        let mut facts = Facts::default();
        facts.marks.set(Marks::NEEDS_SERVER);
        self.batch.facts = facts;
    }

    /// Takes out the plan that decides about the batch at hand, which is about to be forwarded.
    pub fn take_deciding(&mut self) -> Option<Rc<Plan>> {
        self.batch.facts.deciding.take()
    }

    /// Returns how many batches of the client have begun to go to servers: it grows by one with each, however many pieces it
    /// comes in. To be compared around [`forward`](Self::forward) alone, as a COPY may move the count in between.
    pub fn batches_begun(&self) -> u64 {
        self.outstanding.batches_ended() + u64::from(self.is_open)
    }

    /// Forgets what `scan` found: the batch is scanned again, or not served.
    pub fn drop_batch(&mut self) {
        self.batch.reset();
    }

    /// Returns whether every request that went to the server has been answered.
    pub fn is_settled(&self) -> bool {
        self.outstanding.is_settled()
    }

    /// Returns whether part of a batch or message has gone to the server and its end has not.
    pub fn is_in_mid_batch(&self) -> bool {
        self.is_open || self.rest.len > 0
    }

    /// Returns how many bytes of the message that the client is in the midst of sending are still to be passed on; 0 between
    /// messages.
    pub fn rest_of_message(&self) -> usize {
        self.rest.len
    }

    /// Returns whether that rest goes to no server.
    pub fn is_rest_dropped(&self) -> bool {
        self.rest.len > 0 && self.rest.is_dropped
    }

    /// Returns whether the batch at hand can be understood only when all earlier ones have been answered.
    pub fn must_wait(&self) -> bool {
        // The rest of a message follows its beginning, come what may.
        self.rest.len == 0
            && (self.outstanding.is_discarding() || self.batch.facts.marks.has(Marks::DEPENDS))
            && self.outstanding.holds_whole_batch()
    }

    /// Returns whether every batch that went to the server as a whole has been answered. Of a batch that went there in part
    /// replies may still be due, which the server keeps until the Sync.
    pub fn are_whole_batches_answered(&self) -> bool {
        !self.outstanding.holds_whole_batch()
    }

    /// Returns whether as many replies are due as the client may have waiting.
    pub fn is_pipeline_full(&self) -> bool {
        self.outstanding.len() >= self.limits.pipeline
    }

    /// Lets `receive` report [`ReplyEvent::Replay`](crate::ReplyEvent::Replay) for the batch just forwarded, which must be
    /// all that is due.
    pub fn watch(&mut self, watch: Watch) {
        self.replies = Replies::Watched(watch);
    }

    /// Lets the client have the replies that are due whatever they are: the batch cannot be run again any more.
    pub fn stop_watching(&mut self) {
        if matches!(self.replies, Replies::Watched(_)) {
            self.replies = Replies::Passed;
        }
    }

    /// Returns whether a read is watched: nothing of its result has left yet.
    pub fn is_watching_read(&self) -> bool {
        matches!(self.replies, Replies::Watched(watch) if watch.is_read())
    }

    /// Returns whether the batch that was forwarded last uses a statement that was on the server before, so that its plan
    /// may have become useless.
    pub fn uses_old_plan(&self) -> bool {
        self.plans == Plans::Old
    }

    /// Throws away all replies that are due: the batch runs anew elsewhere.
    ///
    /// What the batch has set there before it failed is not followed any more: `server` is reset before it is used again.
    pub fn abandon_replies(&mut self, server: &mut ServerSession) {
        self.tally.forget_batch();
        if self.outstanding.skip_all() {
            server.mark(Ledger::Suspect);
        }
        self.replies = if self.outstanding.is_settled() {
            Replies::Passed
        } else {
            Replies::Abandoned
        };
    }

    /// Says what the client is told, in place of the server's own words, should what runs now be cancelled: a complete
    /// ErrorResponse message. It holds until all that is owed is in.
    pub fn word_cancel(&mut self, error: Box<[u8]>) {
        self.cancel_error = Some(error);
    }

    /// Returns whether the client was sent an error of a server since the last call.
    pub fn take_failed(&mut self) -> bool {
        std::mem::take(&mut self.has_failed)
    }

    /// Forgets what a server owed and did: its connection is gone, and the session with it.
    pub fn server_lost(&mut self) {
        self.forget_server();
        self.state.abandon();
    }

    /// Forgets what a server owed: its connection is gone, and what was sent there runs elsewhere.
    pub fn forget_server(&mut self) {
        self.outstanding.clear();
        self.tally.forget_batch();
        self.replies = Replies::Passed;
        self.is_open = false;
        self.rest.len = 0;
        self.portals.clear();
        self.probe = Probe::None;
        self.cancel_error = None;
    }

    /// Returns the number that stands for the settings by which the session's texts are read, `None` for ones that are its own.
    pub fn reading(&self) -> Option<u64> {
        match self.state.has_local() {
            true => None,
            false => Some(self.reading),
        }
    }

    /// Defines a statement that the proxy itself answers.
    pub fn define_statement(&mut self, name: &[u8], statement: Rc<Statement>) {
        self.define(significant(name).into(), statement);
    }

    /// Forgets a statement that the client deallocates by SQL; returns whether it was one of the protocol's.
    pub fn deallocate(&mut self, name: &[u8]) -> bool {
        self.named.remove(significant(name)).is_some()
    }

    /// Returns the text of a statement by the client's name for it.
    pub fn statement_text(&self, name: &[u8]) -> Option<Vec<u8>> {
        let statement = self.resolve(name)?;
        statement.tail.is_some().then(|| statement.text().to_vec())
    }

    /// Returns how many statements the client has prepared by name.
    pub fn statement_count(&self) -> usize {
        self.named.len()
    }

    /// Returns what a statement name means once everything sent so far has been answered.
    fn resolve(&self, name: &[u8]) -> Option<Rc<Statement>> {
        let name = significant(name);
        match self.outstanding.pending(name) {
            Pending::Defined(statement) => return Some(statement),
            Pending::Undefined => return None,
            Pending::Untouched => {}
        }
        if name.is_empty() {
            self.unnamed.clone()
        } else {
            self.named.get(name).cloned()
        }
    }

    /// Returns whether an unknown statement name may be one that the session made by SQL on the server that is its own.
    fn may_be_sql_statement(&self, name: &[u8]) -> bool {
        self.owns_server && !name.is_empty() && !name.starts_with(SERVER_NAME_PREFIX.as_bytes())
    }

    /// Notes what the server has told the client of its parameters so far.
    pub(crate) fn remember_told(&mut self, server: &ServerSession) {
        // Outside of a transaction nothing that was set is lost with the server.
        if self.state.is_moving() {
            self.told.get_or_insert_with(|| server.reported().into());
        }
    }

    /// Notes that the session's transaction leaves a server, and what that told the client.
    pub fn leave(&mut self, server: &mut ServerSession) {
        self.remember_told(server);
        server.parameters = SharedParameters::clone(self.state.carried_at_base());
        self.portals.clear();
    }

    /// Returns what the names in its texts stand for.
    pub fn lens(&self) -> &Lens {
        &self.lens
    }

    /// Changes the bounds for what comes from now on. To be called between batches.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Says what the names in its texts stand for.
    pub fn set_lens(&mut self, lens: Lens) {
        self.lens = lens;
    }

    /// Says whether the session's transaction can be opened anew on another server.
    pub fn set_reopens(&mut self, reopens: bool) {
        self.reopens = reopens;
    }

    /// Says whether the session has its server connection for itself, so that names of statements made by SQL mean
    /// something there.
    pub fn set_owns_server(&mut self, owns: bool) {
        self.owns_server = owns;
    }

    pub(crate) fn define(&mut self, name: Box<[u8]>, statement: Rc<Statement>) {
        if name.is_empty() {
            self.unnamed = Some(statement);
        } else {
            self.named.insert(name, statement);
        }
    }

    pub(crate) fn undefine(&mut self, name: &[u8]) {
        if name.is_empty() {
            self.unnamed = None;
        } else {
            self.named.remove(significant(name));
        }
    }

    /// Notes that a simple query was answered without a server: it drops the unnamed statement.
    pub fn drop_unnamed(&mut self) {
        self.unnamed = None;
    }

    /// Returns the answer to [`probe`](Self::probe), which is then forgotten.
    pub fn take_probe(&mut self) -> Probe {
        std::mem::take(&mut self.probe)
    }

    /// Forgets which portals there are: their transaction is over.
    pub fn forget_portals(&mut self) {
        self.portals.clear();
    }

    pub(crate) fn forget_statements(&mut self) {
        self.named.clear();
        self.unnamed = None;
    }
}

/// Returns the part of a statement name that counts: PostgreSQL cuts it at NAMEDATALEN - 1 bytes.
fn significant(name: &[u8]) -> &[u8] {
    name.get(..63).unwrap_or(name)
}
