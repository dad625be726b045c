//! A limit over several pools: what one of them has is not there for the others.
//!
//! ## How it is shared
//! A pool opens a connection only where its own limit and the cap both allow it. Where the cap does not, the one who waits
//! longest of all pools gets the next place: the pool that has a connection to spare closes it, as a connection of one pool
//! is of no use to another. A pool whose waiters its own limit holds back is passed over.
//!
//! ## Why nobody waits beside a connection that could make room
//! As in a single pool (see the crate's documentation): a waiter counts itself in [`Cap::waiting`] before it looks at what
//! the others have idle, and a thread publishes what becomes idle, or frees its place, before it looks at `waiting`.
//!
//! ## Limits
//! Places are taken and given back under a lock: that is, when a connection is opened or closed. Who takes or brings back an
//! idle connection reads two or three counters.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use crate::Connection;
use crate::queue::lock;
use crate::shared::Shared;

/// What stands for no limit.
const UNLIMITED: usize = usize::MAX;

/// The limit over several pools.
pub struct Cap<C: Connection> {
    limit: AtomicUsize,
    /// Places taken in all the pools.
    open: AtomicUsize,
    /// Waiters of all the pools.
    waiting: AtomicUsize,
    /// Held while places are counted, so that a place that is tried for and not taken is never seen as taken.
    places: Mutex<()>,
    members: Mutex<Vec<Weak<Shared<C>>>>,
}

/// Whether a place was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It was.
    Taken,
    /// The pool has as many connections as it may.
    PoolIsFull,
    /// All pools together have.
    CapIsReached,
}

/// What became of the attempt to serve a waiter of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    /// It has a place.
    One,
    /// Its own pool has something for it, or allows nothing, or it is gone.
    NotHere,
    /// There is no place under the cap.
    CapIsReached,
}

impl<C: Connection> Cap<C> {
    /// Returns a limit of so many connections; `None` for none.
    pub fn new(limit: Option<usize>) -> Arc<Cap<C>> {
        Arc::new(Cap {
            limit: AtomicUsize::new(limit.unwrap_or(UNLIMITED)),
            open: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            places: Mutex::default(),
            members: Mutex::default(),
        })
    }

    /// Changes the limit. A larger one serves waiters at once; above a smaller one, idle connections are closed as soon as
    /// their threads hear of it, leased ones at their checkin.
    pub fn set_limit(&self, limit: Option<usize>) {
        let limit = limit.unwrap_or(UNLIMITED);
        if self.limit.swap(limit, Ordering::SeqCst) == limit {
            return;
        }
        if self.is_exceeded() {
            self.members().iter().for_each(|pool| pool.ask_all());
        }
        // As those of a cap, and as those of pools that each stand alone.
        self.settle();
        self.members().iter().for_each(|pool| pool.settle());
    }

    /// Returns how many connections are open, or being opened, in all the pools.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub(crate) fn add(&self, pool: &Arc<Shared<C>>) {
        lock(&self.members).push(Arc::downgrade(pool));
    }

    #[inline]
    pub(crate) fn is_limit(&self) -> bool {
        self.limit.load(Ordering::SeqCst) != UNLIMITED
    }

    /// Returns whether more are open than may be.
    #[inline]
    pub(crate) fn is_exceeded(&self) -> bool {
        self.open() > self.limit.load(Ordering::SeqCst)
    }

    /// Returns whether somebody waits, in any pool, whom another pool may keep waiting.
    #[inline]
    pub(crate) fn is_waited_for(&self) -> bool {
        self.is_limit() && self.waiting.load(Ordering::SeqCst) > 0
    }

    pub(crate) fn joined(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn left(&self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// Takes a place of a pool that has `pool_open` of at most `pool_limit`.
    pub(crate) fn take_place(&self, pool_open: &AtomicUsize, pool_limit: usize) -> Place {
        let _counting = lock(&self.places);
        if pool_open.load(Ordering::SeqCst) >= pool_limit {
            return Place::PoolIsFull;
        }
        if self.open() >= self.limit.load(Ordering::SeqCst) {
            return Place::CapIsReached;
        }
        pool_open.fetch_add(1, Ordering::SeqCst);
        self.open.fetch_add(1, Ordering::SeqCst);
        Place::Taken
    }

    /// Gives a place of a pool back.
    pub(crate) fn release(&self, pool_open: &AtomicUsize) {
        let _counting = lock(&self.places);
        pool_open.fetch_sub(1, Ordering::SeqCst);
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    /// Returns whether `pool` should close an idle connection rather than use it: somebody in another pool waits longer than
    /// all its own, and only the cap is in the way.
    pub(crate) fn is_owed_by(&self, pool: &Shared<C>) -> bool {
        if !self.is_waited_for() || self.open() < self.limit.load(Ordering::SeqCst) {
            return false;
        }
        let longest = |other: &Arc<Shared<C>>| {
            let is_self = std::ptr::eq(Arc::as_ptr(other), pool);
            let is_in_need = is_self || other.needs_a_place();
            let since = other.oldest_waiting().filter(|_| is_in_need)?;
            Some((since, is_self))
        };
        let first = self.members().iter().filter_map(longest).min();
        first.is_some_and(|(_, is_self)| !is_self)
    }

    /// Gives the places that there are to those who wait longest; where there is none, asks a pool that has something idle
    /// to make room.
    pub(crate) fn settle(&self) {
        if !self.is_waited_for() {
            return;
        }
        let members = self.members();
        let mut is_done = vec![false; members.len()];
        loop {
            let waiting = members.iter().enumerate().filter_map(|(index, pool)| {
                let is_open = is_done.get(index) == Some(&false);
                Some((pool.oldest_waiting().filter(|_| is_open)?, index))
            });
            let next: Option<(Instant, usize)> = waiting.min();
            let Some((index, pool)) = next.and_then(|(_, at)| Some((at, members.get(at)?))) else {
                return;
            };
            match pool.serve_one() {
                Served::One => {}
                Served::NotHere => {
                    if let Some(done) = is_done.get_mut(index) {
                        *done = true;
                    }
                }
                Served::CapIsReached => {
                    let mut others = members.iter().filter(|other| !Arc::ptr_eq(other, pool));
                    // Where nobody has anything idle, the next checkin will see the waiter.
                    let _asked = others.any(|other| other.ask_one_with_idle());
                    return;
                }
            }
        }
    }

    fn members(&self) -> Vec<Arc<Shared<C>>> {
        let mut members = lock(&self.members);
        members.retain(|pool| pool.strong_count() > 0);
        members.iter().filter_map(Weak::upgrade).collect()
    }
}

impl<C: Connection> fmt::Debug for Cap<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cap")
            .field("limit", &self.limit)
            .field("open", &self.open)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}
