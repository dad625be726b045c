//! CancelRequests: from the key that we gave a client to the server that runs its statement now, or to nothing.
//!
//! ## Why it never hits another client
//! The request is handed to the client's own task, which alone knows whether a server owes it anything. From then until
//! the server has closed the connection that carried the CancelRequest, that is until the signal has been sent, the
//! server connection stays with this client: a [`Gate`] holds back its return to the pool. If the outcome is unknown,
//! the server connection is closed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::{Context, Waker};

use subtle::ConstantTimeEq;
use tokio::sync::{Notify, oneshot};

/// Bits of the process ID that we give out which count clients; the worker's number lies above them.
const COUNTER_BITS: u32 = 22;

/// A client's end of the line.
#[derive(Debug)]
pub(crate) struct Slot {
    secret: Box<[u8]>,
    /// CancelRequests that the client's task has not seen yet; each is dropped when it has been dealt with.
    requests: RefCell<Vec<oneshot::Sender<()>>>,
    waker: RefCell<Option<Waker>>,
}

impl Slot {
    /// Lets `wake` wake the task of `cx`.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|known| known.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Wakes the client's task.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
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
}

/// The clients of one worker, by the process ID that they were given.
#[derive(Debug)]
pub(crate) struct Slots {
    worker: u32,
    next: Cell<u32>,
    slots: RefCell<BTreeMap<u32, Rc<Slot>>>,
}

impl Slots {
    pub(crate) fn new(worker: usize) -> Self {
        let worker = u32::try_from(worker).unwrap_or(0);
        Slots {
            worker,
            next: Cell::new(1),
            slots: RefCell::default(),
        }
    }

    /// Returns which worker gave out a process ID.
    pub(crate) fn worker_of(process_id: u32) -> usize {
        usize::try_from(process_id >> COUNTER_BITS).unwrap_or(usize::MAX)
    }

    /// Adds a client; returns its process ID.
    pub(crate) fn add(&self, secret: Box<[u8]>) -> (u32, Rc<Slot>) {
        let mut slots = self.slots.borrow_mut();
        let mut counter = self.next.get();
        let process_id = loop {
            let id = self.worker << COUNTER_BITS | counter;
            counter = (counter + 1) & ((1 << COUNTER_BITS) - 1);
            if id != 0 && !slots.contains_key(&id) {
                break id;
            }
        };
        self.next.set(counter);
        let slot = Rc::new(Slot {
            secret,
            requests: RefCell::default(),
            waker: RefCell::new(None),
        });
        slots.insert(process_id, Rc::clone(&slot));
        (process_id, slot)
    }

    pub(crate) fn remove(&self, process_id: u32) {
        self.slots.borrow_mut().remove(&process_id);
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

    /// Wakes every client, to look at a change of the worker's state.
    pub(crate) fn wake_all(&self) {
        for slot in self.slots.borrow().values() {
            slot.wake();
        }
    }
}

/// Keeps a server connection from its pool while CancelRequests for it are under way.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    pending: Cell<u32>,
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

    pub(crate) fn is_open(&self) -> bool {
        self.pending.get() == 0 && !self.failed.get()
    }

    /// Waits until no request is under way; returns whether all of them ended well.
    pub(crate) async fn wait(&self) -> bool {
        while self.pending.get() > 0 {
            self.changed.notified().await;
        }
        !self.failed.get()
    }
}
