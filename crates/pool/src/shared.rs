//! What the threads of one pool share: the limit, the waiters, and how much each thread has idle.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::queue::{Queue, Slot, lock};
use crate::{CheckoutError, Connection};

/// Asks a thread, by its index, to call [`crate::LocalPool::serve`] soon. Called from any thread, also from within the
/// pool's own methods, so it must only leave a note and wake the thread.
pub type Notifier = Box<dyn Fn(usize) + Send + Sync>;

/// The sizes of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Threads that use the pool; their indexes are below this.
    pub threads: usize,
    /// Connections that may be open at once, over all threads.
    pub limit: usize,
    /// Callers that may wait at once, over all threads.
    pub queue_limit: usize,
    /// How many later waiters of the own thread may be served ahead of one of another thread; `None` for as many as the
    /// limit, 0 for strict order of arrival.
    pub overtaking: Option<usize>,
    /// Age at which a connection is closed instead of being reused.
    pub lifetime: Option<Duration>,
}

/// The shared part of one pool.
pub struct Shared<C: Connection> {
    threads: Box<[Thread]>,
    limit: AtomicUsize,
    queue_limit: AtomicUsize,
    overtaking: Option<usize>,
    /// Milliseconds; 0 for no end.
    lifetime_ms: AtomicU64,
    /// Places taken: connections being opened, leased, idle, or on their way.
    open: AtomicUsize,
    /// Of them, those that are about to be closed because they are too many, so that two threads do not both close one
    /// for the same reason.
    closing: AtomicUsize,
    /// Length of the queue; changed only under its lock.
    waiting: AtomicUsize,
    /// Connections of an earlier generation are closed instead of being reused.
    generation: AtomicU64,
    queue: Mutex<Queue<Grant<C::Transit>>>,
    notifier: Notifier,
}

/// What one thread publishes. On a cache line of its own (two, as processors fetch them in pairs): it is written at each
/// checkout and checkin, and nobody else's counter must suffer.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Thread {
    /// Its idle connections.
    idle: AtomicUsize,
    /// It has been asked to serve and has not looked since.
    asked: AtomicBool,
}

/// What a waiter is given.
#[derive(Debug)]
pub(crate) enum Grant<T> {
    /// A connection that lies ready in the waiter's own [`crate::LocalPool`], under this key.
    Here(u64),
    /// A connection from another thread.
    Transit(Stored<T>),
    /// A place, in which to open a connection.
    Place,
}

/// A connection and what the pool knows of it.
#[derive(Debug)]
pub(crate) struct Stored<T> {
    pub(crate) connection: T,
    pub(crate) opened_at: Instant,
    /// When it was checked in last.
    pub(crate) idle_since: Instant,
    pub(crate) generation: u64,
}

impl<T> Stored<T> {
    #[inline]
    pub(crate) fn try_map<U>(self, f: impl FnOnce(T) -> Option<U>) -> Option<Stored<U>> {
        let Stored {
            connection,
            opened_at,
            idle_since,
            generation,
        } = self;
        Some(Stored {
            connection: f(connection)?,
            opened_at,
            idle_since,
            generation,
        })
    }
}

/// A moment's figures of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedStats {
    /// Connections that may be open at once.
    pub limit: usize,
    /// Connections that are open or being opened.
    pub open: usize,
    /// Of them, those that are idle, as last published.
    pub idle: usize,
    /// Callers in the queue.
    pub waiting: usize,
    /// Since when the first of them waits.
    pub oldest_waiting_since: Option<Instant>,
}

impl<C: Connection> Shared<C> {
    /// Returns a pool without connections.
    pub fn new(settings: Settings, notifier: Notifier) -> Arc<Shared<C>> {
        let shared = Shared {
            threads: (0..settings.threads).map(|_| Thread::default()).collect(),
            limit: AtomicUsize::new(settings.limit),
            queue_limit: AtomicUsize::new(settings.queue_limit),
            overtaking: settings.overtaking,
            lifetime_ms: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            closing: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
            queue: Mutex::new(Queue::new(settings.threads)),
            notifier,
        };
        shared.set_lifetime(settings.lifetime);
        Arc::new(shared)
    }

    /// Changes how many connections may be open at once. A larger limit serves waiters at once; above a smaller one,
    /// idle connections are closed as soon as their threads hear of it, leased ones at their checkin.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::SeqCst);
        if self.is_above_limit() {
            self.ask_all();
        }
        self.settle();
    }

    /// Changes how many callers may wait at once. Those who wait already go on waiting.
    pub fn set_queue_limit(&self, limit: usize) {
        self.queue_limit.store(limit, Ordering::Relaxed);
    }

    /// Changes the age at which a connection is closed instead of being reused.
    pub fn set_lifetime(&self, lifetime: Option<Duration>) {
        let ms = lifetime.map_or(0, |lifetime| {
            u64::try_from(lifetime.as_millis())
                .unwrap_or(u64::MAX)
                .max(1)
        });
        self.lifetime_ms.store(ms, Ordering::Relaxed);
    }

    /// Lets no connection that exists now be reused: idle ones are closed as soon as their threads hear of it, leased
    /// ones at their checkin. New ones are opened in their place.
    pub fn retire_all(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.ask_all();
    }

    /// Returns this moment's figures.
    pub fn stats(&self) -> SharedStats {
        SharedStats {
            limit: self.limit.load(Ordering::Relaxed),
            open: self.open.load(Ordering::Relaxed),
            idle: self
                .threads
                .iter()
                .map(|thread| thread.idle.load(Ordering::Relaxed))
                .sum(),
            waiting: self.waiting.load(Ordering::Relaxed),
            oldest_waiting_since: lock(&self.queue).oldest(),
        }
    }

    /// Returns how many wait.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Returns the part of the limit that one thread may fill without looking for idle connections of others.
    pub(crate) fn share(&self) -> usize {
        self.limit
            .load(Ordering::Relaxed)
            .div_ceil(self.threads.len().max(1))
    }

    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Returns whether a connection of that age has had its time.
    #[inline]
    pub(crate) fn is_expired(&self, opened_at: Instant, now: Instant) -> bool {
        match self.lifetime_ms.load(Ordering::Relaxed) {
            0 => false,
            ms => now.saturating_duration_since(opened_at) >= Duration::from_millis(ms),
        }
    }

    /// Tells the others how many connections `thread` has idle, before the caller looks for waiters.
    #[inline]
    pub(crate) fn publish_more_idle(&self, thread: usize, count: usize) {
        if let Some(thread) = self.threads.get(thread) {
            thread.idle.store(count, Ordering::SeqCst);
        }
    }

    /// Tells the others that `thread` has fewer idle connections now. Nothing hangs on when they hear of it: asking in
    /// vain is allowed.
    #[inline]
    pub(crate) fn publish_fewer_idle(&self, thread: usize, count: usize) {
        if let Some(thread) = self.threads.get(thread) {
            thread.idle.store(count, Ordering::Release);
        }
    }

    /// Notes that `thread` is about to look for waiters.
    pub(crate) fn begin_serving(&self, thread: usize) {
        if let Some(thread) = self.threads.get(thread) {
            thread.asked.store(false, Ordering::SeqCst);
        }
    }

    /// Takes a place, where there is one.
    pub(crate) fn try_permit(&self) -> bool {
        let limit = || self.limit.load(Ordering::SeqCst);
        let taken = |open: usize| (open < limit()).then_some(open + 1);
        self.open
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, taken)
            .is_ok()
    }

    /// Gives a place back; the caller then looks for waiters.
    pub(crate) fn release(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    /// Allows the caller to close a connection because more than `kept` are open. Afterwards, when its place is free, it
    /// calls [`Shared::end_closing`].
    pub(crate) fn begin_closing(&self, kept: usize) -> bool {
        let claimed = |closing: usize| {
            let staying = self.open.load(Ordering::SeqCst).saturating_sub(closing);
            (staying > kept).then_some(closing + 1)
        };
        self.closing
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, claimed)
            .is_ok()
    }

    /// Ends `count` times [`Shared::begin_closing`].
    pub(crate) fn end_closing(&self, count: usize) {
        self.closing.fetch_sub(count, Ordering::SeqCst);
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn is_above_limit(&self) -> bool {
        self.open.load(Ordering::SeqCst) > self.limit.load(Ordering::SeqCst)
    }

    /// Puts a waiter of `thread` into the queue, and returns its ticket; the caller then looks for idle connections.
    pub(crate) fn join(
        &self,
        thread: usize,
        now: Instant,
        slot: Arc<Slot<Grant<C::Transit>>>,
    ) -> Result<u64, CheckoutError> {
        let mut queue = lock(&self.queue);
        let queue_limit = self.queue_limit.load(Ordering::Relaxed);
        if queue.len() >= queue_limit {
            return Err(CheckoutError::QueueFull { limit: queue_limit });
        }
        let ticket = queue.join(thread, now, slot);
        self.waiting.store(queue.len(), Ordering::SeqCst);
        Ok(ticket)
    }

    /// Takes a waiter out of the queue; false where it has been taken out already, to be given something.
    pub(crate) fn leave(&self, thread: usize, ticket: u64) -> bool {
        let mut queue = lock(&self.queue);
        let left = queue.leave(thread, ticket);
        self.waiting.store(queue.len(), Ordering::SeqCst);
        left
    }

    /// Takes the waiter that is next to get a connection of thread `near`, or a place.
    pub(crate) fn next_waiter(&self, near: Option<usize>) -> Option<Arc<Slot<Grant<C::Transit>>>> {
        let overtaking = self.overtaking.unwrap_or_else(|| self.limit());
        let mut queue = lock(&self.queue);
        let next = queue.next(near, u64::try_from(overtaking).unwrap_or(u64::MAX));
        self.waiting.store(queue.len(), Ordering::SeqCst);
        next
    }

    /// Sees to it that waiters do not wait for what is there: asks a thread that has idle connections, else gives the
    /// places that are left.
    pub(crate) fn settle(&self) {
        while self.waiting() > 0 {
            if self.ask_one_with_idle() || !self.try_permit() {
                return;
            }
            // The place is taken before the waiter, so that a waiter is never out of the queue with nothing to get.
            if !self.grant_place() {
                self.release();
            }
        }
    }

    /// Gives a place, which the caller holds, to the next waiter; false where there is none.
    pub(crate) fn grant_place(&self) -> bool {
        while let Some(slot) = self.next_waiter(None) {
            if slot.grant(Grant::Place).is_ok() {
                return true;
            }
        }
        false
    }

    /// Returns whether some thread has an idle connection, as far as is published.
    pub(crate) fn has_idle(&self) -> bool {
        self.threads
            .iter()
            .any(|thread| thread.idle.load(Ordering::SeqCst) > 0)
    }

    /// Asks a thread that has something idle to serve the queue, unless it has been asked already; false where no
    /// thread has.
    fn ask_one_with_idle(&self) -> bool {
        let mut threads = self.threads.iter().enumerate();
        match threads.find(|(_, thread)| thread.idle.load(Ordering::SeqCst) > 0) {
            Some((index, thread)) => {
                self.ask(index, thread);
                true
            }
            None => false,
        }
    }

    fn ask_all(&self) {
        for (index, thread) in self.threads.iter().enumerate() {
            self.ask(index, thread);
        }
    }

    fn ask(&self, index: usize, thread: &Thread) {
        if !thread.asked.swap(true, Ordering::SeqCst) {
            (self.notifier)(index);
        }
    }
}

impl<C: Connection> fmt::Debug for Shared<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("threads", &self.threads.len())
            .field("stats", &self.stats())
            .finish()
    }
}
