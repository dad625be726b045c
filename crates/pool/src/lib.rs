//! A pool of connections for threads that share nothing but a limit.
//!
//! Each worker thread keeps its own stack of idle connections ([`LocalPool`]); one [`Shared`] per pool holds the limit,
//! the queue of waiters and what the threads must know of each other. The pool has never heard of PostgreSQL, sockets
//! or runtimes: it stores [`Connection`]s, and wakes tasks by their [`std::task::Waker`].
//!
//! A checkout from the own thread's stack takes no lock and makes no system call. Locks are taken only by those who
//! wait and those who serve them.
//!
//! ## How a checkout is decided
//! 1. Nobody waits and this thread has an idle connection: the one used last is taken.
//! 2. Nobody waits, the limit is not reached, and this thread has less than its share of it: the caller opens one.
//! 3. Another thread has an idle connection: the caller waits, and that thread is asked to hand one over.
//! 4. The limit is not reached: the caller opens one.
//! 5. The caller waits.
//!
//! Pools may stand under a common [`Cap`]; and a pool may have a [`Reserve`], out of which it opens connections beyond its
//! limit for those who have waited long.
//!
//! ## Why nobody waits beside an idle connection
//! A waiter first counts itself in `Shared::waiting` and then looks at the idle counts that the threads publish and at
//! the number of open connections; a thread first publishes what became idle (or was closed) and then looks at
//! `waiting`. Each of the four steps is sequentially consistent, so at least one of the two sees the other (Dekker): the
//! waiter, which then asks the thread or takes the permit, or the thread, which then serves the queue.
//! A request to a thread is remembered in a flag that the thread clears before it looks, so that requests are neither
//! lost nor repeated. A thread that is asked in vain, because its connection was taken meanwhile, hands out a permit
//! instead where there is one, else asks the next thread that has something; where there is nothing anywhere, every
//! connection is leased, and its checkin will see the waiter.
//!
//! ## Why the limit holds and no place is lost
//! A connection's place is counted in `Shared::open` from before it is opened until after it is dropped. Only
//! `Cap::take_place` increments, and only below the limit; after that the place has exactly one owner at any time:
//! a [`Permit`], a [`Lease`], an idle entry, or a grant in a waiter's slot. The first two give it up when dropped; a
//! grant is taken out by the waiter, also by one that is dropped, which passes it on; and the slot knows under its own
//! lock whether the waiter is gone, so a grant that comes too late stays with the giver, who tries the next waiter.
//!
//! ## Who is next
//! Waiters are served in the order in which they came, with one exception. To hand a connection to another thread means
//! to take it out of one reactor and into another, and to wake that thread: dearer than a short query. So a thread may
//! serve its own first waiter ahead of the very first one, as long as that one came at most [`Settings::overtaking`]
//! places behind it. A waiter is therefore overtaken by at most that many others, however many come: with the default,
//! the limit itself, by about as many as are served while one connection is in use. Nobody starves.
#![forbid(unsafe_code)]

mod cap;
mod lease;
mod local;
mod queue;
mod shared;

pub use cap::Cap;
pub use lease::{Lease, Permit};
pub use local::{Checkout, Granted, LocalPool, LocalStats, Waiting};
pub use shared::{Notifier, Reserve, Settings, Shared, SharedStats};

/// What can be pooled.
///
/// It is moved by value between the stack and the lease; a large one is better boxed by the implementor.
pub trait Connection: Sized + 'static {
    /// The connection on its way from one thread to another.
    type Transit: Send + 'static;

    /// Takes it off its thread; `None` where that broke it.
    fn into_transit(self) -> Option<Self::Transit>;

    /// Puts it on the calling thread; `None` where that broke it. Called in the task that waited for it.
    fn from_transit(transit: Self::Transit) -> Option<Self>;

    /// Tells whether an idle connection still looks usable. Called at each checkout, so it must be cheap.
    fn is_usable(&mut self) -> bool;
}

/// Why there is no connection and no waiting for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckoutError {
    /// As many wait as may wait.
    #[error("{limit} clients wait for a connection already")]
    QueueFull {
        /// How many may wait.
        limit: usize,
    },
    /// The pool is being drained.
    #[error("the pool is draining")]
    Draining,
}
