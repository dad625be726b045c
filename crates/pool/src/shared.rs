//! What the threads of one pool share: the limit, the waiters, and how much each thread has idle.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use crate::cap::{Cap, Place, Served};
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
    /// Connections beyond the limit.
    pub reserve: Reserve,
}

/// Connections beyond the limit of a pool, for those who have waited long. They are closed as soon as nobody waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reserve {
    /// How many may be open.
    pub count: usize,
    /// How long the first in the queue must have waited for one.
    pub after: Duration,
}

/// The shared part of one pool.
pub struct Shared<C: Connection> {
    threads: Box<[Thread]>,
    limit: AtomicUsize,
    queue_limit: AtomicUsize,
    overtaking: Option<usize>,
    /// Milliseconds; 0 for no end.
    lifetime_ms: AtomicU64,
    reserve: AtomicUsize,
    reserve_after_ms: AtomicU64,
    cap: Arc<Cap<C>>,
    /// Places taken: connections being opened, leased, idle, or on their way.
    open: AtomicUsize,
    /// Of them, those that are about to be closed because they are too many, so that two threads do not both close one
    /// for the same reason.
    closing: AtomicUsize,
    /// Length of the queue; changed only under its lock.
    waiting: AtomicUsize,
    /// Connections of an earlier generation are closed instead of being reused.
    generation: AtomicU64,
    generations: Mutex<Generations>,
    queue: Mutex<Queue<Grant<C::Transit>>>,
    notifier: Notifier,
}

/// Who is still there of each generation. Touched when a connection is opened or all are retired.
#[derive(Debug, Default)]
struct Generations {
    /// Held by every connection of the present generation.
    present: Arc<()>,
    /// Those of earlier ones, by number, as long as any connection of theirs is there.
    earlier: Vec<(u64, Weak<()>)>,
}

impl Generations {
    /// Returns how many connections of earlier generations there are.
    fn retired(&mut self) -> usize {
        self.earlier
            .retain(|(_, members)| members.strong_count() > 0);
        let counts = self.earlier.iter();
        counts.map(|(_, members)| members.strong_count()).sum()
    }
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
    /// Its place among those of its generation, for as long as it is open.
    pub(crate) member: Option<Arc<()>>,
}

impl<T> Stored<T> {
    #[inline]
    pub(crate) fn try_map<U>(self, f: impl FnOnce(T) -> Option<U>) -> Option<Stored<U>> {
        let Stored {
            connection,
            opened_at,
            idle_since,
            generation,
            member,
        } = self;
        Some(Stored {
            connection: f(connection)?,
            opened_at,
            idle_since,
            generation,
            member,
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
        Shared::under(Cap::new(None), settings, notifier)
    }

    /// Returns a pool without connections that shares a limit with others.
    pub fn under(cap: Arc<Cap<C>>, settings: Settings, notifier: Notifier) -> Arc<Shared<C>> {
        let shared = Shared {
            threads: (0..settings.threads).map(|_| Thread::default()).collect(),
            limit: AtomicUsize::new(settings.limit),
            queue_limit: AtomicUsize::new(settings.queue_limit),
            overtaking: settings.overtaking,
            lifetime_ms: AtomicU64::new(0),
            reserve: AtomicUsize::new(0),
            reserve_after_ms: AtomicU64::new(0),
            cap,
            open: AtomicUsize::new(0),
            closing: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
            generations: Mutex::default(),
            queue: Mutex::new(Queue::new(settings.threads)),
            notifier,
        };
        shared.set_lifetime(settings.lifetime);
        shared.set_reserve(settings.reserve);
        let shared = Arc::new(shared);
        shared.cap.add(&shared);
        shared
    }

    /// Returns the limit that it shares with others.
    pub fn cap(&self) -> &Arc<Cap<C>> {
        &self.cap
    }

    /// Changes how many connections beyond the limit there may be, and for whom. Those above a smaller reserve are closed at
    /// their checkin.
    pub fn set_reserve(&self, reserve: Reserve) {
        let after = u64::try_from(reserve.after.as_millis()).unwrap_or(u64::MAX);
        self.reserve_after_ms.store(after, Ordering::Relaxed);
        self.reserve.store(reserve.count, Ordering::SeqCst);
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
        {
            let mut generations = lock(&self.generations);
            let number = self.generation.fetch_add(1, Ordering::SeqCst);
            let members = Arc::downgrade(&std::mem::take(&mut generations.present));
            generations.earlier.push((number, members));
            let _pruned = generations.retired();
        }
        self.ask_all();
    }

    /// Returns how many connections are still open that [`Shared::retire_all`] has meant. One that was being opened then counts
    /// from when it is open.
    pub fn retired(&self) -> usize {
        lock(&self.generations).retired()
    }

    /// Counts a connection that was opened among those of its generation.
    pub(crate) fn enrol(&self, generation: u64) -> Arc<()> {
        let mut generations = lock(&self.generations);
        if generation == self.generation.load(Ordering::SeqCst) {
            return Arc::clone(&generations.present);
        }
        let earlier = &mut generations.earlier;
        let known = earlier.iter().find(|(number, _)| *number == generation);
        if let Some(members) = known.and_then(|(_, members)| members.upgrade()) {
            return members;
        }
        // The others have gone, and it was retired before it was there.
        let members = Arc::default();
        earlier.retain(|(number, _)| *number != generation);
        earlier.push((generation, Arc::downgrade(&members)));
        members
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
        self.take_place(self.limit.load(Ordering::SeqCst)) == Place::Taken
    }

    /// Takes a place, where fewer than `most` are taken.
    pub(crate) fn take_place(&self, most: usize) -> Place {
        self.cap.take_place(&self.open, most)
    }

    /// Gives a place back; the caller then looks for waiters.
    pub(crate) fn release(&self) {
        self.cap.release(&self.open);
    }

    /// Gives places of the reserve to those who have waited long enough for one; where only the cap is in the way, another
    /// pool makes room.
    pub(crate) fn relieve(&self, now: Instant) {
        if self.waiting() == 0 || self.reserve.load(Ordering::SeqCst) == 0 {
            return;
        }
        let after = Duration::from_millis(self.reserve_after_ms.load(Ordering::Relaxed));
        lock(&self.queue).relieve(now.checked_sub(after));
        if self.places() > self.limit() {
            self.settle();
        }
    }

    /// Returns how many connections there may be for the first in the queue: those of the reserve count once it has waited
    /// long enough, as far as [`Shared::relieve`] has looked.
    fn places(&self) -> usize {
        let (limit, reserve) = (
            self.limit.load(Ordering::SeqCst),
            self.reserve.load(Ordering::SeqCst),
        );
        match reserve > 0 && lock(&self.queue).is_relieved() {
            true => limit.saturating_add(reserve),
            false => limit,
        }
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

    /// Returns whether a connection is one too many: above the limit, where nobody waits for one of the reserve.
    #[inline]
    pub(crate) fn is_above_limit(&self) -> bool {
        let (open, limit) = (
            self.open.load(Ordering::SeqCst),
            self.limit.load(Ordering::SeqCst),
        );
        let most = || limit.saturating_add(self.reserve.load(Ordering::SeqCst));
        open > limit && (self.waiting() == 0 || open > most())
    }

    /// Returns since when the first in the queue waits.
    pub(crate) fn oldest_waiting(&self) -> Option<Instant> {
        if self.waiting() == 0 {
            return None;
        }
        lock(&self.queue).oldest()
    }

    /// Returns whether its waiters lack nothing but a place under the cap.
    pub(crate) fn needs_a_place(&self) -> bool {
        self.open.load(Ordering::SeqCst) < self.places() && !self.has_idle()
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
        self.cap.joined();
        Ok(ticket)
    }

    /// Takes a waiter out of the queue; false where it has been taken out already, to be given something.
    pub(crate) fn leave(&self, thread: usize, ticket: u64) -> bool {
        let mut queue = lock(&self.queue);
        let left = queue.leave(thread, ticket);
        self.waiting.store(queue.len(), Ordering::SeqCst);
        if left {
            self.cap.left();
        }
        left
    }

    /// Takes the waiter that is next to get a connection of thread `near`, or a place.
    pub(crate) fn next_waiter(&self, near: Option<usize>) -> Option<Arc<Slot<Grant<C::Transit>>>> {
        let overtaking = self.overtaking.unwrap_or_else(|| self.limit());
        let mut queue = lock(&self.queue);
        let next = queue.next(near, u64::try_from(overtaking).unwrap_or(u64::MAX));
        self.waiting.store(queue.len(), Ordering::SeqCst);
        if next.is_some() {
            self.cap.left();
        }
        next
    }

    /// Sees to it that waiters do not wait for what is there: asks a thread that has idle connections, else gives the
    /// places that are left.
    pub(crate) fn settle(&self) {
        if self.cap.is_limit() {
            return self.cap.settle();
        }
        while self.waiting() > 0 && self.serve_one() == Served::One {}
    }

    /// Gives the next waiter what there is: an idle connection, else a place.
    pub(crate) fn serve_one(&self) -> Served {
        if self.ask_one_with_idle() {
            return Served::NotHere;
        }
        match self.take_place(self.places()) {
            Place::PoolIsFull => return Served::NotHere,
            Place::CapIsReached => return Served::CapIsReached,
            Place::Taken => {}
        }
        // The place is taken before the waiter, so that a waiter is never out of the queue with nothing to get.
        if !self.grant_place() {
            self.release();
        }
        Served::One
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
    pub(crate) fn ask_one_with_idle(&self) -> bool {
        let mut threads = self.threads.iter().enumerate();
        match threads.find(|(_, thread)| thread.idle.load(Ordering::SeqCst) > 0) {
            Some((index, thread)) => {
                self.ask(index, thread);
                true
            }
            None => false,
        }
    }

    pub(crate) fn ask_all(&self) {
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
