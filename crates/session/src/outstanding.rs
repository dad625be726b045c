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
#[derive(Debug)]
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
    /// The request cannot succeed; the server's error is replaced by this complete ErrorResponse message.
    Substitute(Box<[u8]>),
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
    pub fn forward(owed: Owed) -> Self {
        Entry {
            owed,
            action: Action::Forward,
            change: Change::None,
            places: None,
            events: None,
        }
    }

    /// An entry that swallows a reply.
    pub fn skip(owed: Owed) -> Self {
        Entry {
            owed,
            action: Action::Skip,
            change: Change::None,
            places: None,
            events: None,
        }
    }
}

/// The replies that are due, oldest first.
#[derive(Debug, Default)]
pub struct Outstanding {
    entries: VecDeque<Queued>,
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

#[derive(Debug)]
struct Queued {
    entry: Entry,
    /// The batch that it belongs to.
    batch: u64,
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
    /// Adds a request.
    pub fn push(&mut self, entry: Entry) {
        let batch = self.batch;
        self.pending.add(&entry.change, entry.places, batch);
        self.awaited += usize::from(!matches!(entry.action, Action::Fake));
        self.is_skipping &= entry.owed != Owed::Sync;
        if entry.owed.ends_batch() {
            self.ends += 1;
            self.batch += 1;
        }
        self.entries.push_back(Queued { entry, batch });
    }

    /// Returns the request whose reply is due next.
    pub fn front(&self) -> Option<&Entry> {
        self.entries.front().map(|queued| &queued.entry)
    }

    /// Returns the request whose reply is due next, to note how far it has come.
    pub fn front_mut(&mut self) -> Option<&mut Entry> {
        self.entries.front_mut().map(|queued| &mut queued.entry)
    }

    /// Takes the request at the front: its reply has come (or is ours to give).
    pub fn pop(&mut self) -> Option<Entry> {
        let Queued { entry, batch } = self.entries.pop_front()?;
        self.pending.remove(&entry.change, entry.places, batch);
        self.ends -= usize::from(entry.owed.ends_batch());
        self.awaited -= usize::from(!matches!(entry.action, Action::Fake));
        Some(entry)
    }

    /// Takes the request at the front if the server skips it after an error in an extended message: all up to a Sync,
    /// simple queries included.
    pub fn pop_skipped(&mut self) -> Option<Entry> {
        match self.front() {
            Some(entry) if entry.owed == Owed::Sync => None,
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
        self.is_skipping = self
            .front()
            .is_some_and(|entry| entry.owed == Owed::Execute);
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
            // The request at the front, which copies, changes no name: to which batch it is counted does not matter.
            self.entries.remove(1);
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
            self.entries.remove(1);
        }
        found
    }

    /// Returns what `name` will mean once all that is due has come.
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
        let among = if self.pending.is_placing_none() {
            0
        } else {
            self.entries.len()
        };
        self.entries
            .iter()
            .take(among)
            .filter(|queued| queued.entry.owed == Owed::Parse)
            .filter_map(|queued| queued.entry.places)
    }

    /// Returns whether the second request is of this kind.
    fn is_behind_front(&self, owed: Owed) -> bool {
        self.entries
            .get(1)
            .is_some_and(|queued| queued.entry.owed == owed)
    }

    /// Returns whether a request that is due may end a failed transaction, or a part of it.
    pub fn may_end_failure(&self) -> bool {
        let events = self.entries.iter().flat_map(|queued| &queued.entry.events);
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
        self.entries.is_empty()
    }

    /// Returns how many requests are due.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Forgets all: the server connection is gone, or its replies are thrown away.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.pending.clear();
        self.ends = 0;
        self.awaited = 0;
        self.is_skipping = false;
    }

    /// Turns every due reply into one that is swallowed.
    ///
    /// Returns whether one of them might have changed the session's state.
    pub fn skip_all(&mut self) -> bool {
        let has_events = self
            .entries
            .iter()
            .any(|queued| queued.entry.events.is_some());
        self.entries
            .retain(|queued| !matches!(queued.entry.action, Action::Fake));
        for queued in &mut self.entries {
            queued.entry.action = Action::Skip;
            queued.entry.change = Change::None;
            queued.entry.events = None;
        }
        self.pending.clear_names();
        has_events
    }
}
