//! Which replies a server still owes, and what becomes of each.
//!
//! Every message that goes to a server and is answered gets one entry, in order. A reply belongs to the entry at the
//! front; a reply that no entry owns is a [`Violation`](crate::Violation) and the connection dies. This is what keeps
//! one client's rows from ever reaching another.
//!
//! ```text
//!   sent:      Parse*  Bind   Execute   Sync          * the server has it already: nothing is sent
//!   entries:   Fake    Forward Forward  Forward
//!   replies:   (ours)  2       D.. C    Z
//! ```
//!
//! ## Why two queues
//! Of most requests nothing needs to be known but whose the reply is: two bytes, which every message writes and reads. What the
//! few others carry stands in a queue of its own, in the same order.

mod pending;

use std::collections::VecDeque;
use std::rc::Rc;

use self::pending::PendingChanges;
use crate::state::Event;
use crate::statement::{Statement, StatementId};

/// The kind of request whose reply is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owed {
    /// A simple Query: everything up to ReadyForQuery.
    Query,
    /// A FunctionCall: FunctionCallResponse and ReadyForQuery.
    FunctionCall,
    /// Sync: ReadyForQuery.
    Sync,
    /// ParseComplete.
    Parse,
    /// BindComplete.
    Bind,
    /// ParameterDescription, then RowDescription or NoData.
    DescribeStatement,
    /// RowDescription or NoData.
    DescribePortal,
    /// Rows, then CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// CloseComplete.
    Close,
    /// Nothing: the client has ended its COPY data here. A Sync before it may be ignored by the server, one behind it is not.
    CopyEnd,
}

impl Owed {
    /// Returns whether this is the last request of its batch.
    fn ends_batch(self) -> bool {
        matches!(self, Owed::Sync | Owed::Query | Owed::FunctionCall)
    }
}

/// What becomes of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The client gets it.
    Forward,
    /// We asked, not the client: it is swallowed. An error is not: it is the client's.
    Skip,
    /// We asked in the client's name, as the last thing of its batch: it gets what the server reports of its parameters, and the
    /// ReadyForQuery.
    Tail,
    /// We asked for something that fails, and so make the server skip up to a Sync: error and all are swallowed.
    Break,
    /// Nothing was sent for it: the client gets a reply of ours when its turn comes.
    Fake,
    /// The request cannot succeed; the server's error is replaced by the one of the entry.
    Substitute,
}

/// What a successful reply changes in the client's list of prepared statements. Not applied when the server skips the
/// request after an error.
#[derive(Debug)]
pub enum Change {
    /// Nothing.
    None,
    /// `name` now means `statement`. The empty name is the unnamed statement and allocates nothing.
    Define {
        /// The client's name.
        name: Box<[u8]>,
        /// What it means.
        statement: Rc<Statement>,
    },
    /// `name` is gone.
    Undefine {
        /// The client's name.
        name: Box<[u8]>,
    },
}

impl Change {
    fn name(&self) -> Option<&[u8]> {
        match self {
            Change::None => None,
            Change::Define { name, .. } | Change::Undefine { name } => Some(name),
        }
    }
}

/// One request whose reply is due.
#[derive(Debug)]
pub struct Entry {
    /// What is due.
    pub owed: Owed,
    /// What becomes of it.
    pub action: Action,
    /// What it changes for the client.
    pub change: Change,
    /// The statement that this Parse places on the server, or this Close takes from it: undone if the server skips it.
    pub places: Option<StatementId>,
    /// What its statements do to the session's state, each as it succeeds.
    pub events: Option<Box<Events>>,
    /// What the client gets in place of the server's error: a complete ErrorResponse message.
    pub error: Option<Box<[u8]>>,
}

/// The statements of one request that touch the session's state.
#[derive(Debug)]
pub struct Events {
    /// In order of the text.
    pub list: Vec<Event>,
    /// How many statements of the request have succeeded so far.
    pub completed: usize,
}

impl Entry {
    /// An entry that forwards a reply and changes nothing.
    #[inline]
    pub fn forward(owed: Owed) -> Self {
        Entry::plain(owed, Action::Forward)
    }

    /// An entry that swallows a reply.
    #[inline]
    pub fn skip(owed: Owed) -> Self {
        Entry::plain(owed, Action::Skip)
    }

    /// An entry whose reply is replaced by `error`, a complete ErrorResponse message.
    pub fn substitute(owed: Owed, error: Box<[u8]>) -> Self {
        Entry {
            error: Some(error),
            ..Entry::plain(owed, Action::Substitute)
        }
    }

    #[inline]
    fn plain(owed: Owed, action: Action) -> Self {
        Entry {
            owed,
            action,
            change: Change::None,
            places: None,
            events: None,
            error: None,
        }
    }

    /// Returns whether it carries nothing.
    #[inline]
    fn is_plain(&self) -> bool {
        matches!(self.change, Change::None)
            && self.places.is_none()
            && self.events.is_none()
            && self.error.is_none()
    }
}

/// The replies that are due, oldest first.
#[derive(Debug, Default)]
pub struct Outstanding {
    /// The oldest: every message asks for it several times.
    front: Option<Queued>,
    /// The others; empty where there is no front.
    behind: VecDeque<Queued>,
    /// Those of them that carry something, in the same order.
    laden: VecDeque<Entry>,
    /// What they change, by name.
    pending: PendingChanges,
    /// The number of the batch that is being added to: how many have ended.
    batch: u64,
    /// Entries that end a batch.
    ends: usize,
    /// Entries that the server really has to answer.
    awaited: usize,
    /// A batch among them makes the server forget prepared statements.
    is_discarding: bool,
    /// The server skips what it gets up to the next Sync, which is still to be sent.
    is_skipping: bool,
}

/// What is known of every request.
#[derive(Debug, Clone, Copy)]
struct Queued {
    /// The batch that it belongs to.
    batch: u64,
    due: Due,
    is_laden: bool,
}

/// A request whose reply is due, as far as most of them are of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// What is due.
    pub owed: Owed,
    /// What becomes of it.
    pub action: Action,
}

/// What a client's name means while changes are on their way.
#[derive(Debug)]
pub enum Pending {
    /// No outstanding request touches it.
    Untouched,
    /// It will mean this.
    Defined(Rc<Statement>),
    /// It will be gone.
    Undefined,
}

impl Pending {
    /// Returns whether the meaning of the name is still open.
    pub fn is_open(&self) -> bool {
        !matches!(self, Pending::Untouched)
    }
}

impl Outstanding {
    /// Adds a request whose reply is forwarded, and which carries nothing.
    #[inline]
    pub fn forward(&mut self, owed: Owed) {
        self.queue(owed, Action::Forward, false);
    }

    /// Adds a request.
    pub fn push(&mut self, entry: Entry) {
        let is_laden = !entry.is_plain();
        if is_laden {
            self.pending.add(&entry.change, entry.places, self.batch);
        }
        self.queue(entry.owed, entry.action, is_laden);
        if is_laden {
            self.laden.push_back(entry);
        }
    }

    #[inline]
    fn queue(&mut self, owed: Owed, action: Action, is_laden: bool) {
        let queued = Queued {
            batch: self.batch,
            due: Due { owed, action },
            is_laden,
        };
        match &self.front {
            None => self.front = Some(queued),
            Some(_) => self.behind.push_back(queued),
        }
        self.awaited += usize::from(action != Action::Fake);
        self.is_skipping &= owed != Owed::Sync;
        if owed.ends_batch() {
            self.ends += 1;
            self.batch += 1;
        }
    }

    /// Returns the request whose reply is due next.
    #[inline]
    pub fn front(&self) -> Option<Due> {
        self.front.map(|queued| queued.due)
    }

    /// Returns all of the request whose reply is due next, if there is more to it.
    pub fn front_laden(&self) -> Option<&Entry> {
        let is_laden = self.front?.is_laden;
        self.laden.front().filter(|_| is_laden)
    }

    /// Returns what the statements of the request at the front do, to note how far it has come.
    #[inline]
    pub fn front_events(&mut self) -> Option<&mut Events> {
        let is_laden = self.front?.is_laden;
        let laden = self.laden.front_mut().filter(|_| is_laden);
        laden?.events.as_deref_mut()
    }

    /// Returns whether the reply that is due next is ours to give.
    #[inline]
    pub fn is_front_fake(&self) -> bool {
        self.front().is_some_and(|due| due.action == Action::Fake)
    }

    /// Takes the request at the front, if it carries nothing; returns whether that was so.
    #[inline]
    pub fn pop_plain(&mut self) -> bool {
        match self.front {
            Some(queued) if !queued.is_laden => {
                self.take_front(queued);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Takes the request at the front: its reply has come (or is ours to give).
    pub fn pop(&mut self) -> Option<Entry> {
        let front = self.front?;
        self.take_front(front);
        let Queued {
            batch,
            due,
            is_laden,
        } = front;
        match is_laden {
            true => self.unload(batch),
            false => Some(Entry::plain(due.owed, due.action)),
        }
    }

    #[inline]
    fn take_front(&mut self, front: Queued) {
        let due = front.due;
        self.front = self.behind.pop_front();
        self.ends -= usize::from(due.owed.ends_batch());
        self.awaited -= usize::from(due.action != Action::Fake);
    }

    fn unload(&mut self, batch: u64) -> Option<Entry> {
        let entry = self.laden.pop_front()?;
        self.pending.remove(&entry.change, entry.places, batch);
        Some(entry)
    }

    /// Takes the request at the front if the server skips it after an error in an extended message: all up to a Sync,
    /// simple queries included.
    pub fn pop_skipped(&mut self) -> Option<Entry> {
        match self.front() {
            Some(due) if due.owed == Owed::Sync => None,
            Some(_) => self.pop(),
            None => {
                self.is_skipping = true;
                None
            }
        }
    }

    /// Returns whether the server skips what it gets until a Sync, so that it will answer nothing else.
    pub fn is_skipping(&self) -> bool {
        self.is_skipping
    }

    /// Notes that the request added last will fail, so that the server skips what comes up to a Sync.
    pub fn begin_skipping(&mut self) {
        self.is_skipping = true;
    }

    /// Notes that the Execute at the front will fail, so that the server skips what comes up to a Sync.
    ///
    /// Returns false where the request at the front is another.
    pub fn skip_behind_execute(&mut self) -> bool {
        self.is_skipping = self.front().is_some_and(|due| due.owed == Owed::Execute);
        self.is_skipping
    }

    /// Notes that the server says that it is ready, and so skips nothing any more.
    pub fn end_skipping(&mut self) {
        self.is_skipping = false;
    }

    /// Takes a Sync that directly follows the request at the front: the server in COPY IN ignores it.
    ///
    /// Returns whether there was one.
    pub fn drop_sync_behind_front(&mut self) -> bool {
        let found = self.is_behind_front(Owed::Sync);
        if found {
            // The request at the front, which copies, changes no name: to which batch it is counted does not matter. A Sync
            // carries nothing.
            self.behind.pop_front();
            self.awaited -= 1;
            self.ends -= 1;
        }
        found
    }

    /// Takes the end of the COPY data that directly follows the request at the front.
    ///
    /// Returns whether there was one.
    pub fn take_copy_end_behind_front(&mut self) -> bool {
        let found = self.is_behind_front(Owed::CopyEnd);
        if found {
            self.behind.pop_front();
        }
        found
    }

    /// Returns what `name` will mean once all that is due has come.
    #[inline]
    pub fn pending(&self, name: &[u8]) -> Pending {
        self.pending.meaning(name)
    }

    /// Returns whether the meaning of `name` depends on how an *earlier* batch ends, one with a Sync of its own: if that
    /// fails, the change is undone, and the present batch runs all the same.
    pub fn depends_on_earlier_batch(&self, name: &[u8]) -> bool {
        self.pending.is_changed_before(name, self.batch)
    }

    /// Returns whether an earlier batch places a statement on the server or takes it from there, which is undone if that
    /// batch fails.
    pub fn is_placed_by_earlier_batch(&self, id: StatementId) -> bool {
        self.pending.is_placed_before(id, self.batch)
    }

    /// Notes that a batch begins to go out.
    pub fn begin_batch(&mut self) {
        self.is_discarding = self.is_discarding();
    }

    /// Notes that the batch that goes out makes the server forget prepared statements.
    pub fn note_discards(&mut self) {
        self.is_discarding = true;
    }

    /// Returns whether the server may still be about to forget prepared statements.
    pub fn is_discarding(&self) -> bool {
        self.is_discarding && self.holds_whole_batch()
    }

    /// Returns whether a batch that has gone out as a whole is still to be answered.
    pub fn holds_whole_batch(&self) -> bool {
        self.ends > 0
    }

    /// Returns how many batches have ended among those that were added: each with a Sync, a Query or a FunctionCall.
    pub fn batches_ended(&self) -> u64 {
        self.batch
    }

    /// Returns the statements that are being placed on the server.
    pub fn placed(&self) -> impl Iterator<Item = StatementId> {
        let parses = self.laden.iter().filter(|entry| entry.owed == Owed::Parse);
        parses.filter_map(|entry| entry.places)
    }

    /// Returns whether the second request is of this kind.
    fn is_behind_front(&self, owed: Owed) -> bool {
        self.behind
            .front()
            .is_some_and(|queued| queued.due.owed == owed)
    }

    /// Returns whether a request that is due may end a failed transaction, or a part of it.
    pub fn may_end_failure(&self) -> bool {
        let events = self.laden.iter().flat_map(|entry| &entry.events);
        events
            .flat_map(|events| &events.list)
            .any(Event::ends_failure)
    }

    /// Returns whether the server owes nothing.
    pub fn is_settled(&self) -> bool {
        self.awaited == 0
    }

    /// Returns whether nothing is due at all, replies of ours included.
    pub fn is_empty(&self) -> bool {
        self.front.is_none()
    }

    /// Returns how many requests are due.
    pub fn len(&self) -> usize {
        usize::from(self.front.is_some()) + self.behind.len()
    }

    /// Forgets all: the server connection is gone, or its replies are thrown away.
    pub fn clear(&mut self) {
        self.front = None;
        self.behind.clear();
        self.laden.clear();
        self.pending.clear();
        self.ends = 0;
        self.awaited = 0;
        self.is_skipping = false;
    }

    /// Turns every due reply into one that is swallowed.
    ///
    /// Returns whether one of them might have changed the session's state.
    pub fn skip_all(&mut self) -> bool {
        let has_events = self.laden.iter().any(|entry| entry.events.is_some());
        self.laden.retain(|entry| entry.action != Action::Fake);
        for entry in &mut self.laden {
            entry.action = Action::Skip;
            entry.change = Change::None;
            entry.events = None;
            entry.error = None;
        }
        let is_real = |queued: &Queued| queued.due.action != Action::Fake;
        self.behind.retain(is_real);
        self.front = (self.front.take().filter(is_real)).or_else(|| self.behind.pop_front());
        for queued in self.front.iter_mut().chain(&mut self.behind) {
            queued.due.action = Action::Skip;
        }
        self.pending.clear_names();
        has_events
    }
}
