//! One thread's part of a pool: its idle connections, and the tasks that wait on it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::cap::Place;
use crate::lease::{Lease, Permit};
use crate::queue::Slot;
use crate::shared::{Grant, Shared, Stored};
use crate::{CheckoutError, Connection};

/// One thread's part of a pool. Clones are handles to the same part; there is one part for each thread and pool.
pub struct LocalPool<C: Connection> {
    inner: Rc<Inner<C>>,
}

/// How a checkout begins.
#[derive(Debug)]
#[must_use = "a place in the queue or in the pool is given up when it is dropped"]
pub enum Checkout<C: Connection> {
    /// A connection.
    Ready(Lease<C>),
    /// A place: the caller opens a connection and calls [`Permit::fulfil`].
    Open(Permit<C>),
    /// A place in the queue.
    Wait(Waiting<C>),
}

/// What somebody who waited gets.
#[derive(Debug)]
#[must_use = "what was waited for is given up when it is dropped"]
pub enum Granted<C: Connection> {
    /// A connection.
    Lease(Lease<C>),
    /// A place: the caller opens a connection and calls [`Permit::fulfil`].
    Open(Permit<C>),
}

/// A moment's figures of one thread's part, and what it counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LocalStats {
    /// Idle connections.
    pub idle: usize,
    /// Connections on this thread: idle, leased or being opened.
    pub owned: usize,
    /// Checkouts that found an idle connection here.
    pub hits: u64,
    /// Checkouts that had to wait, if only for another thread's idle connection.
    pub waits: u64,
    /// Connections that came from other threads.
    pub taken_over: u64,
}

/// The part itself. No method calls foreign code (a connection's, a waker's, the notifier) while it has a cell borrowed.
pub(crate) struct Inner<C: Connection> {
    shared: Arc<Shared<C>>,
    thread: usize,
    /// The one used last is on top: it is the likeliest to be warm, and those at the bottom may time out.
    idle: RefCell<Vec<Stored<Held<C>>>>,
    /// Connections for waiters of this thread who have been told and have not come yet, by the key that they were told.
    /// A connection is not sent through the waiter's slot, since the slot is shared between threads and it cannot be.
    ready: RefCell<Vec<(u64, Stored<Held<C>>)>>,
    next_key: Cell<u64>,
    owned: Cell<usize>,
    closed: Cell<bool>,
    hits: Cell<u64>,
    waits: Cell<u64>,
    taken_over: Cell<u64>,
}

/// A connection that is on this thread, or has arrived for a waiter who was gone and is not put on this thread before
/// it is needed: the waiter may be dropped where that is impossible, as when its runtime ends.
enum Held<C: Connection> {
    Here(C),
    Transit(C::Transit),
}

impl<C: Connection> Held<C> {
    #[inline]
    fn into_here(self) -> Option<C> {
        match self {
            Held::Here(connection) => Some(connection),
            Held::Transit(transit) => C::from_transit(transit),
        }
    }

    fn into_transit(self) -> Option<C::Transit> {
        match self {
            Held::Here(connection) => connection.into_transit(),
            Held::Transit(transit) => Some(transit),
        }
    }

    #[inline]
    fn is_usable(&mut self) -> bool {
        match self {
            Held::Here(connection) => connection.is_usable(),
            Held::Transit(_) => true,
        }
    }
}

impl<C: Connection> Clone for LocalPool<C> {
    fn clone(&self) -> Self {
        LocalPool {
            inner: Rc::clone(&self.inner),
        }
    }
}

impl<C: Connection> LocalPool<C> {
    /// Returns the part of the calling thread, whose index is `thread`.
    pub fn new(shared: Arc<Shared<C>>, thread: usize) -> LocalPool<C> {
        // An earlier thread of this index may have been asked and have ended instead.
        shared.begin_serving(thread);
        let inner = Inner {
            shared,
            thread,
            idle: RefCell::default(),
            ready: RefCell::default(),
            next_key: Cell::new(0),
            owned: Cell::new(0),
            closed: Cell::new(false),
            hits: Cell::new(0),
            waits: Cell::new(0),
            taken_over: Cell::new(0),
        };
        LocalPool {
            inner: Rc::new(inner),
        }
    }

    /// Begins a checkout. `now` is when the wait begins, should there be one.
    ///
    /// # Errors
    /// [`CheckoutError::QueueFull`], [`CheckoutError::Draining`].
    #[inline]
    pub fn try_checkout(&self, now: Instant) -> Result<Checkout<C>, CheckoutError> {
        if self.inner.shared.waiting() == 0
            && let Some(stored) = self.inner.pop()
        {
            count(&self.inner.hits);
            return Ok(Checkout::Ready(
                Permit::new(Rc::clone(&self.inner)).lease(stored),
            ));
        }
        self.checkout_without_idle(now)
    }

    #[cold]
    fn checkout_without_idle(&self, now: Instant) -> Result<Checkout<C>, CheckoutError> {
        let inner = &self.inner;
        let shared = &inner.shared;
        if inner.closed.get() {
            return Err(CheckoutError::Draining);
        }
        if shared.waiting() == 0 && !shared.cap().is_waited_for() {
            let may_open = inner.owned.get() < shared.share() || !shared.has_idle();
            if may_open && shared.try_permit() {
                add(&inner.owned);
                return Ok(Checkout::Open(Permit::new(Rc::clone(inner))));
            }
        }
        let slot = Arc::new(Slot::new(inner.thread));
        let ticket = shared.join(inner.thread, now, Arc::clone(&slot))?;
        count(&inner.waits);
        let waiting = Waiting {
            inner: Rc::clone(inner),
            slot,
            ticket,
            since: now,
            done: false,
        };
        // Only now, when everybody sees the waiter, does it look at what there is.
        inner.hand_out();
        Ok(Checkout::Wait(waiting))
    }

    /// Hands idle connections of this thread to those who wait, and closes those that are retired or above the limit.
    /// Called on this thread after the [`crate::Notifier`] was called with its index.
    pub fn serve(&self) {
        let inner = &self.inner;
        inner.shared.begin_serving(inner.thread);
        let (shared, generation) = (&inner.shared, inner.shared.generation());
        inner.sweep(|stored| match stored.generation == generation {
            true if shared.is_above_limit() && shared.begin_closing(shared.limit()) => {
                Fate::Surplus
            }
            true => Fate::Stays,
            false => Fate::Done,
        });
        while inner.shared.cap().is_exceeded() && inner.close_one() {}
        inner.hand_out();
    }

    /// Lets those who have waited long enough have a connection of the reserve. To be called now and then; how often is how
    /// exactly the reserve's time is kept.
    pub fn relieve(&self, now: Instant) {
        self.inner.shared.relieve(now);
    }

    /// Returns a place in which to open a connection, where fewer than `min` are open over all threads and nobody waits.
    pub fn try_fill(&self, min: usize) -> Option<Permit<C>> {
        let inner = &self.inner;
        let shared = &inner.shared;
        let most = min.min(shared.limit());
        let is_over = inner.closed.get() || shared.waiting() > 0 || shared.cap().is_waited_for();
        if is_over || shared.take_place(most) != Place::Taken {
            return None;
        }
        add(&inner.owned);
        Some(Permit::new(Rc::clone(inner)))
    }

    /// Closes the idle connections that nobody should use any more (dead, retired, past their lifetime, above the
    /// limit), and those that have been idle for `idle_timeout`, except for `min` that stay open over all threads.
    /// Returns how many were closed. To be called now and then.
    pub fn reap(&self, now: Instant, idle_timeout: Option<Duration>, min: usize) -> usize {
        let shared = &self.inner.shared;
        let generation = shared.generation();
        self.inner.sweep(|stored| {
            let idle_for = now.saturating_duration_since(stored.idle_since);
            if stored.generation != generation
                || shared.is_expired(stored.opened_at, now)
                || !stored.connection.is_usable()
            {
                return Fate::Done;
            }
            let timed_out = idle_timeout.is_some_and(|timeout| idle_for >= timeout);
            let kept = if timed_out {
                min.min(shared.limit())
            } else {
                shared.limit()
            };
            if shared.begin_closing(kept) {
                Fate::Surplus
            } else {
                Fate::Stays
            }
        })
    }

    /// Closes this thread's idle connections, and returns how many.
    pub fn close_idle(&self) -> usize {
        self.inner.sweep(|_| Fate::Done)
    }

    /// Ends checkouts on this thread: closes the idle connections now, and the leased ones at their checkin. Who waits
    /// already is still served.
    pub fn close(&self) {
        self.inner.closed.set(true);
        self.close_idle();
    }

    /// Shows each idle connection of this thread to `look`, with when it was opened and since when it is idle: those that are
    /// on this thread, which all are but for some that have just arrived.
    pub fn each_idle(&self, mut look: impl FnMut(&C, Instant, Instant)) {
        // Out of the cell, since `look` is foreign code, and together with what came meanwhile back into it.
        let mut all = self.inner.idle.take();
        for stored in &all {
            if let Held::Here(connection) = &stored.connection {
                look(connection, stored.opened_at, stored.idle_since);
            }
        }
        let mut idle = self.inner.idle.borrow_mut();
        all.append(&mut idle);
        *idle = all;
    }

    /// Returns the part that is shared with other threads.
    pub fn shared(&self) -> &Arc<Shared<C>> {
        &self.inner.shared
    }

    /// Returns this moment's figures.
    pub fn stats(&self) -> LocalStats {
        let inner = &self.inner;
        LocalStats {
            idle: inner.idle.borrow().len(),
            owned: inner.owned.get(),
            hits: inner.hits.get(),
            waits: inner.waits.get(),
            taken_over: inner.taken_over.get(),
        }
    }
}

impl<C: Connection> Inner<C> {
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.shared.generation()
    }

    pub(crate) fn enrol(&self, generation: u64) -> Arc<()> {
        self.shared.enrol(generation)
    }

    /// Takes the usable connection that was used last.
    #[inline]
    fn pop(&self) -> Option<Stored<C>> {
        while let Some(held) = self.pop_held() {
            match held.try_map(Held::into_here) {
                Some(stored) => return Some(stored),
                None => self.free_place(),
            }
        }
        None
    }

    #[inline]
    fn pop_held(&self) -> Option<Stored<Held<C>>> {
        loop {
            let (mut held, left) = {
                let mut idle = self.idle.borrow_mut();
                (idle.pop()?, idle.len())
            };
            self.shared.publish_fewer_idle(self.thread, left);
            if held.generation == self.shared.generation() && held.connection.is_usable() {
                return Some(held);
            }
            drop(held);
            self.free_place();
        }
    }

    /// Puts a connection on the stack and lets everybody see it; the caller then looks for waiters.
    #[inline]
    fn push(&self, held: Stored<Held<C>>) {
        let count = {
            let mut idle = self.idle.borrow_mut();
            idle.push(held);
            idle.len()
        };
        self.shared.publish_more_idle(self.thread, count);
    }

    #[inline]
    pub(crate) fn checkin(&self, stored: Stored<C>, now: Instant) {
        let shared = &self.shared;
        if stored.generation != shared.generation()
            || self.closed.get()
            || shared.is_expired(stored.opened_at, now)
        {
            drop(stored);
            return self.free_place();
        }
        if shared.is_above_limit() && shared.begin_closing(shared.limit()) {
            drop(stored);
            self.free_place();
            return shared.end_closing(1);
        }
        if shared.cap().is_exceeded() {
            drop(stored);
            return self.free_place();
        }
        let Stored {
            connection,
            opened_at,
            idle_since,
            generation,
            member,
        } = stored;
        self.push(Stored {
            connection: Held::Here(connection),
            opened_at,
            idle_since,
            generation,
            member,
        });
        if shared.waiting() > 0 || shared.cap().is_waited_for() {
            self.hand_out();
        }
    }

    /// Closes an idle connection of this thread, if it has one.
    fn close_one(&self) -> bool {
        let Some(held) = self.pop_held() else {
            return false;
        };
        drop(held);
        self.free_place();
        true
    }

    /// Gives up a place of this thread, whose connection is dropped already.
    #[cold]
    pub(crate) fn free_place(&self) {
        subtract(&self.owned, 1);
        self.shared.release();
        self.shared.settle();
    }

    /// Hands idle connections to those who wait, while there are both; then sees to it that the others are not waiting
    /// for something that is elsewhere.
    #[cold]
    fn hand_out(&self) {
        loop {
            if self.shared.cap().is_owed_by(&self.shared) {
                // Somebody in another pool comes first, and gets the place.
                if self.close_one() {
                    continue;
                }
                break;
            }
            if self.shared.waiting() == 0 {
                break;
            }
            let Some(held) = self.pop_held() else { break };
            self.hand(held);
        }
        self.shared.settle();
    }

    /// Hands one connection to the next waiter; where there is none any more, it becomes idle.
    fn hand(&self, mut held: Stored<Held<C>>) {
        while let Some(slot) = self.shared.next_waiter(Some(self.thread)) {
            if slot.thread == self.thread {
                let key = self.next_key.get();
                self.next_key.set(key.wrapping_add(1));
                self.ready.borrow_mut().push((key, held));
                if slot.grant(Grant::Here(key)).is_ok() {
                    return;
                }
                held = self.fetch(key);
                continue;
            }
            let Some(transit) = held.try_map(Held::into_transit) else {
                // It broke on the way. Its place goes to the waiter, who is out of the queue already.
                return self.hand_place(&slot);
            };
            match slot.grant(Grant::Transit(transit)) {
                Ok(()) => return subtract(&self.owned, 1),
                Err(Grant::Transit(transit)) => held = transit.held(),
                // A grant comes back as it was given.
                Err(Grant::Here(_) | Grant::Place) => return,
            }
        }
        self.push(held);
    }

    fn hand_place(&self, slot: &Slot<Grant<C::Transit>>) {
        subtract(&self.owned, 1);
        if slot.grant(Grant::Place).is_err() && !self.shared.grant_place() {
            self.shared.release();
            self.shared.settle();
        }
    }

    /// Takes the connection that lies ready under `key`.
    #[expect(
        clippy::expect_used,
        reason = "a key is made together with its entry, and only its one holder fetches it"
    )]
    fn fetch(&self, key: u64) -> Stored<Held<C>> {
        let mut ready = self.ready.borrow_mut();
        let place = ready.iter().position(|(other, _)| *other == key);
        ready
            .swap_remove(place.expect("a connection lies ready under each key that is out"))
            .1
    }

    /// Turns a grant into what the waiter holds.
    fn claim(self: &Rc<Self>, grant: Grant<C::Transit>) -> Granted<C> {
        let held = match grant {
            Grant::Here(key) => Some(self.fetch(key)),
            Grant::Transit(transit) => {
                add(&self.owned);
                count(&self.taken_over);
                Some(transit.held())
            }
            Grant::Place => {
                add(&self.owned);
                None
            }
        };
        let permit = Permit::new(Rc::clone(self));
        match held.and_then(|held| held.try_map(Held::into_here)) {
            Some(stored) => Granted::Lease(permit.lease(stored)),
            None => Granted::Open(permit),
        }
    }

    /// Passes on what was granted to a waiter who is gone.
    fn pass_on(&self, grant: Grant<C::Transit>) {
        let held = match grant {
            Grant::Here(key) => self.fetch(key),
            Grant::Transit(transit) => {
                add(&self.owned);
                transit.held()
            }
            Grant::Place => {
                self.shared.release();
                return self.shared.settle();
            }
        };
        if self.closed.get() {
            drop(held);
            return self.free_place();
        }
        self.push(held);
        self.hand_out();
    }

    /// Closes the idle connections that are not to stay, and returns how many.
    fn sweep(&self, mut fate: impl FnMut(&mut Stored<Held<C>>) -> Fate) -> usize {
        // Out of the cell, since closing them is foreign code. Meanwhile others may be told of too many idle ones.
        let mut all = self.idle.take();
        let (before, mut surplus) = (all.len(), 0);
        all.retain_mut(|stored| match fate(stored) {
            Fate::Stays => true,
            Fate::Done => false,
            Fate::Surplus => {
                surplus += 1;
                false
            }
        });
        let closed = before - all.len();
        let count = {
            let mut idle = self.idle.borrow_mut();
            all.append(&mut idle);
            *idle = all;
            idle.len()
        };
        self.shared.publish_more_idle(self.thread, count);
        (0..closed).for_each(|_| self.free_place());
        self.shared.end_closing(surplus);
        if self.shared.waiting() > 0 || self.shared.cap().is_waited_for() {
            self.hand_out();
        }
        closed
    }
}

/// What becomes of an idle connection.
enum Fate {
    Stays,
    /// Closed, as nobody should use it any more.
    Done,
    /// Closed, as there are too many; [`Shared::begin_closing`] allowed it.
    Surplus,
}

impl<C: Connection> Drop for Inner<C> {
    fn drop(&mut self) {
        self.closed.set(true);
        self.sweep(|_| Fate::Done);
        // Empty by now, unless a waiter was leaked.
        let ready = self.ready.take().len();
        (0..ready).for_each(|_| self.free_place());
    }
}

impl<T> Stored<T> {
    fn held<C: Connection<Transit = T>>(self) -> Stored<Held<C>> {
        let Stored {
            connection,
            opened_at,
            idle_since,
            generation,
            member,
        } = self;
        Stored {
            connection: Held::Transit(connection),
            opened_at,
            idle_since,
            generation,
            member,
        }
    }
}

/// A place in the queue: a future that resolves to a connection or to a place in which to open one.
///
/// # Cancel safety
/// Dropping it leaves the queue. What it was given and has not been polled for goes to the next waiter.
#[must_use = "a place in the queue is given up when it is dropped"]
pub struct Waiting<C: Connection> {
    inner: Rc<Inner<C>>,
    slot: Arc<Slot<Grant<C::Transit>>>,
    ticket: u64,
    since: Instant,
    done: bool,
}

impl<C: Connection> Waiting<C> {
    /// Returns when the wait began.
    pub fn since(&self) -> Instant {
        self.since
    }
}

impl<C: Connection> Future for Waiting<C> {
    type Output = Granted<C>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Granted<C>> {
        match self.slot.take(cx.waker()) {
            Some(grant) => {
                self.done = true;
                Poll::Ready(self.inner.claim(grant))
            }
            None => Poll::Pending,
        }
    }
}

impl<C: Connection> Drop for Waiting<C> {
    fn drop(&mut self) {
        if self.done || self.inner.shared.leave(self.inner.thread, self.ticket) {
            return;
        }
        // Somebody took it out of the queue. Either the grant is here, or it comes too late and stays with the giver.
        if let Some(grant) = self.slot.close() {
            self.inner.pass_on(grant);
        }
    }
}

impl<C: Connection> fmt::Debug for Waiting<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting")
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}

impl<C: Connection> fmt::Debug for LocalPool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalPool")
            .field("thread", &self.inner.thread)
            .field("stats", &self.stats())
            .finish()
    }
}

fn count(counter: &Cell<u64>) {
    counter.set(counter.get().wrapping_add(1));
}

fn add(counter: &Cell<usize>) {
    counter.set(counter.get() + 1);
}

fn subtract(counter: &Cell<usize>, count: usize) {
    counter.set(counter.get() - count);
}
