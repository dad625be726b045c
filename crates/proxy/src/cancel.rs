//! CancelRequests: from the key that we gave a client to the server that runs its statement now, or to nothing.
//!
//! ## Why it never hits another client
//! The request is handed to the client's own task, which alone knows whether a server owes it anything. From then until
//! the server has closed the connection that carried the CancelRequest, that is until the signal has been sent, the
//! server connection stays with this client: a [`Gate`] holds back its return to the pool. If the outcome is unknown,
//! the server connection is closed.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Instant;

use subtle::ConstantTimeEq;
use tokio::sync::{Notify, oneshot};

use crate::holds::{Scope, Target};
use crate::shown::{Shown, Who};
use crate::signal::SignalRequest;
use crate::tap::TraceRequest;

/// Bits of the process ID that we give out which count clients; the worker's number, from 1, lies above them. So none is one that
/// a system gives its processes (`PID_MAX_LIMIT` of Linux), and it is never in doubt whose it is.
const COUNTER_BITS: u32 = 22;

/// A client's end of the line.
#[derive(Debug)]
pub(crate) struct Slot {
    secret: Box<[u8]>,
    /// CancelRequests that the client's task has not seen yet; each is dropped when it has been dealt with.
    requests: RefCell<Vec<oneshot::Sender<()>>>,
    /// Likewise, questions which server process serves it.
    signals: RefCell<Vec<SignalRequest>>,
    waker: RefCell<Option<Waker>>,
    /// When its task is to be woken to look at its limits.
    due: Cell<Option<Instant>>,
    /// What it is connected to; nothing where no server serves it.
    target: OnceCell<Target>,
    /// An operator has ended it.
    is_killed: Cell<bool>,
    /// What others may see of it.
    pub(crate) shown: Shown,
    /// Who wants its messages written down.
    pub(crate) trace: TraceRequest,
}

impl Slot {
    /// Lets `wake` wake the task of `cx`; returns whether it would have before.
    pub(crate) fn register(&self, cx: &Context<'_>) -> bool {
        let mut waker = self.waker.borrow_mut();
        let known = waker.as_ref();
        let is_known = known.is_some_and(|known| known.will_wake(cx.waker()));
        if !is_known {
            *waker = Some(cx.waker().clone());
        }
        is_known
    }

    /// Wakes the client's task.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Notes what it is connected to.
    pub(crate) fn set_target(&self, target: Target) {
        // A session stays with its database.
        let _first = self.target.set(target);
    }

    /// Returns whether an operator has ended it.
    pub(crate) fn is_killed(&self) -> bool {
        self.is_killed.get()
    }

    fn kill(&self) {
        self.is_killed.set(true);
        self.wake();
    }

    /// Returns the CancelRequests that came since the last call; whoever has them drops them when they are dealt with.
    pub(crate) fn take_requests(&self) -> Option<Vec<oneshot::Sender<()>>> {
        let mut requests = self.requests.borrow_mut();
        if requests.is_empty() {
            None
        } else {
            Some(std::mem::take(&mut requests))
        }
    }

    /// Returns the questions which server process serves it that came since the last call; dropped, they are answered in the
    /// negative.
    pub(crate) fn take_signals(&self) -> Option<Vec<SignalRequest>> {
        let mut signals = self.signals.borrow_mut();
        (!signals.is_empty()).then(|| std::mem::take(&mut *signals))
    }
}

/// The clients of one worker, by the process ID that they were given.
#[derive(Debug)]
pub(crate) struct Slots {
    worker: u32,
    next: Cell<u32>,
    slots: RefCell<BTreeMap<u32, Rc<Slot>>>,
    /// No client is due before this moment; `None` where none is due at all.
    next_due: Cell<Option<Instant>>,
}

impl Slots {
    pub(crate) fn new(worker: usize) -> Self {
        let worker = u32::try_from(worker).unwrap_or(0);
        Slots {
            worker,
            next: Cell::new(1),
            slots: RefCell::default(),
            next_due: Cell::new(None),
        }
    }

    fn compose(worker: u32, counter: u32) -> u32 {
        (worker + 1) << COUNTER_BITS | (counter & ((1 << COUNTER_BITS) - 1))
    }

    /// Returns the process ID of a worker's client; the console's thread stands behind the last worker.
    pub(crate) fn process_id(worker: usize, counter: u32) -> u32 {
        Slots::compose(u32::try_from(worker).unwrap_or(0), counter)
    }

    /// Returns which worker gave out a process ID.
    pub(crate) fn worker_of(process_id: u32) -> usize {
        let number = usize::try_from(process_id >> COUNTER_BITS).unwrap_or_default();
        number.checked_sub(1).unwrap_or(usize::MAX)
    }

    /// Returns whether a process ID may be one that a worker gave out.
    pub(crate) fn is_given_out(process_id: u32) -> bool {
        process_id >> COUNTER_BITS > 0
    }

    /// Adds a client; returns its process ID.
    pub(crate) fn add(&self, secret: Box<[u8]>, who: Who) -> (u32, Rc<Slot>) {
        let mut slots = self.slots.borrow_mut();
        let mut counter = self.next.get();
        let process_id = loop {
            let id = Slots::compose(self.worker, counter);
            counter = (counter + 1) & ((1 << COUNTER_BITS) - 1);
            if !slots.contains_key(&id) {
                break id;
            }
        };
        self.next.set(counter);
        let slot = Rc::new(Slot {
            secret,
            requests: RefCell::default(),
            signals: RefCell::default(),
            waker: RefCell::new(None),
            due: Cell::new(None),
            target: OnceCell::new(),
            is_killed: Cell::new(false),
            shown: Shown::new(who),
            trace: TraceRequest::default(),
        });
        slots.insert(process_id, Rc::clone(&slot));
        (process_id, slot)
    }

    /// Returns a client's end of the line.
    pub(crate) fn find(&self, process_id: u32) -> Option<Rc<Slot>> {
        self.slots.borrow().get(&process_id).cloned()
    }

    pub(crate) fn remove(&self, process_id: u32) {
        self.slots.borrow_mut().remove(&process_id);
    }

    /// Returns the clients, with the process IDs that they were given.
    pub(crate) fn all(&self) -> Vec<(u32, Rc<Slot>)> {
        let slots = self.slots.borrow();
        let own = |(id, slot): (&u32, &Rc<Slot>)| (*id, Rc::clone(slot));
        slots.iter().map(own).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.borrow().len()
    }

    /// Takes a CancelRequest. A wrong secret is ignored, as PostgreSQL does; it is compared in constant time.
    pub(crate) fn request(&self, process_id: u32, secret: &[u8], done: oneshot::Sender<()>) {
        let slots = self.slots.borrow();
        let Some(slot) = slots.get(&process_id) else {
            return;
        };
        if bool::from(slot.secret.ct_eq(secret)) {
            slot.requests.borrow_mut().push(done);
            slot.wake();
        }
    }

    /// Takes an operator's order to cancel what a client runs, which needs no secret; returns whether the client is there.
    pub(crate) fn cancel(&self, process_id: u32, done: oneshot::Sender<()>) -> bool {
        let slots = self.slots.borrow();
        let slot = slots.get(&process_id);
        if let Some(slot) = slot {
            slot.requests.borrow_mut().push(done);
            slot.wake();
        }
        slot.is_some()
    }

    /// Ends a client; returns whether it is there.
    pub(crate) fn kill(&self, process_id: u32) -> bool {
        let slots = self.slots.borrow();
        let slot = slots.get(&process_id);
        if let Some(slot) = slot {
            slot.kill();
        }
        slot.is_some()
    }

    /// Ends the clients of databases; returns how many.
    pub(crate) fn kill_all(&self, scope: &Scope) -> usize {
        let slots = self.slots.borrow();
        let is_meant = |slot: &&Rc<Slot>| {
            let target = slot.target.get();
            target.is_some_and(|target| scope.covers(target.cluster, &target.database))
        };
        let mut count = 0;
        for slot in slots.values().filter(is_meant) {
            slot.kill();
            count += 1;
        }
        count
    }

    /// Notes when a client is to be woken to look at its limits.
    pub(crate) fn set_due(&self, slot: &Slot, due: Option<Instant>) {
        slot.due.set(due);
        if let Some(due) = due
            && self.next_due.get().is_none_or(|next| due < next)
        {
            self.next_due.set(Some(due));
        }
    }

    /// Wakes the clients that are due.
    pub(crate) fn wake_due(&self, now: Instant) {
        if self.next_due.get().is_none_or(|next| next > now) {
            return;
        }
        let mut next_due: Option<Instant> = None;
        for slot in self.slots.borrow().values() {
            match slot.due.get() {
                Some(due) if due <= now => {
                    slot.due.set(None);
                    slot.wake();
                }
                Some(due) => next_due = Some(next_due.map_or(due, |next| next.min(due))),
                None => {}
            }
        }
        self.next_due.set(next_due);
    }

    /// Takes a question which server process serves a client. A client that is not there does not answer.
    pub(crate) fn signal(&self, process_id: u32, request: SignalRequest) {
        if let Some(slot) = self.slots.borrow().get(&process_id) {
            slot.signals.borrow_mut().push(request);
            slot.wake();
        }
    }

    /// Wakes every client, to look at a change of the worker's state.
    pub(crate) fn wake_all(&self) {
        for slot in self.slots.borrow().values() {
            slot.wake();
        }
    }
}

/// Keeps a server connection from its pool while CancelRequests for it, or signals to its process, are under way.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    pending: Cell<u32>,
    /// How many have ended the process, or may yet.
    terminations: Cell<u32>,
    /// How many of those the client waits for.
    awaited: Cell<u32>,
    /// One of them cancels a statement, if whoever sends it may.
    is_canceling: Cell<bool>,
    failed: Cell<bool>,
    changed: Notify,
}

impl Gate {
    pub(crate) fn begin(&self) {
        self.pending.set(self.pending.get() + 1);
    }

    pub(crate) fn end(&self, succeeded: bool) {
        self.pending.set(self.pending.get().saturating_sub(1));
        if !succeeded {
            self.failed.set(true);
        }
        self.changed.notify_waiters();
    }

    /// Notes that what is under way cancels what the process runs.
    pub(crate) fn note_cancel(&self) {
        self.is_canceling.set(true);
    }

    /// Returns whether anything that is, or was, under way cancels what the process runs.
    pub(crate) fn is_canceling(&self) -> bool {
        self.is_canceling.get()
    }

    /// Notes that one of the signals ends the process, if whoever sends it may.
    pub(crate) fn note_termination(&self) {
        self.terminations.set(self.terminations.get() + 1);
    }

    /// Takes that back: it was not sent, or refused.
    pub(crate) fn take_back_termination(&self) {
        let left = self.terminations.get().saturating_sub(1);
        self.terminations.set(left);
    }

    /// Returns whether one of the signals that are, or were, under way ends the process.
    pub(crate) fn is_terminating(&self) -> bool {
        self.terminations.get() > 0
    }

    /// Notes that the client waits for such an end.
    pub(crate) fn begin_wait(&self) {
        self.awaited.set(self.awaited.get() + 1);
    }

    /// Notes that it does not any more.
    pub(crate) fn end_wait(&self) {
        self.awaited.set(self.awaited.get().saturating_sub(1));
    }

    /// Returns whether the client waits for its end.
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited.get() > 0
    }

    pub(crate) fn is_open(&self) -> bool {
        self.pending.get() == 0 && !self.failed.get()
    }

    /// Returns whether no request is under way, however those before have ended.
    pub(crate) fn is_still(&self) -> bool {
        self.pending.get() == 0
    }

    /// Waits until no request is under way; returns whether all of them ended well.
    pub(crate) async fn wait(&self) -> bool {
        while self.pending.get() > 0 {
            self.changed.notified().await;
        }
        !self.failed.get()
    }
}
