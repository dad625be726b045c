//! What a caller holds: a connection in use, or a place in which to open one.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::time::Instant;

use crate::Connection;
use crate::local::Inner;
use crate::shared::Stored;

/// A place within the limit. Dropping it gives the place to the next waiter.
pub struct Permit<C: Connection> {
    /// `None` once the place has another owner.
    inner: Option<Rc<Inner<C>>>,
    /// A connection counts as made when its opening began: where the pool retires its connections meanwhile, it has
    /// possibly been made after the old settings.
    generation: u64,
}

impl<C: Connection> Permit<C> {
    pub(crate) fn new(inner: Rc<Inner<C>>) -> Permit<C> {
        let generation = inner.generation();
        Permit {
            inner: Some(inner),
            generation,
        }
    }

    /// Turns the place into a lease on the connection that was opened for it.
    pub fn fulfil(self, connection: C, now: Instant) -> Lease<C> {
        let generation = self.generation;
        let member = self.inner.as_ref().map(|inner| inner.enrol(generation));
        Lease {
            stored: Stored {
                connection,
                opened_at: now,
                idle_since: now,
                generation,
                member,
            },
            permit: self,
        }
    }

    #[inline]
    pub(crate) fn lease(self, stored: Stored<C>) -> Lease<C> {
        Lease {
            stored,
            permit: self,
        }
    }
}

impl<C: Connection> Drop for Permit<C> {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            inner.free_place();
        }
    }
}

impl<C: Connection> fmt::Debug for Permit<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

/// A connection in use. Dropping it closes the connection; only [`Lease::checkin`] lets it be reused.
pub struct Lease<C: Connection> {
    // Before the permit: the connection is closed before its place is free.
    stored: Stored<C>,
    permit: Permit<C>,
}

impl<C: Connection> Lease<C> {
    /// Gives the connection back for the next caller, who gets it at once where one waits. It is closed instead where it
    /// is past its lifetime, retired, or above the limit.
    #[inline]
    pub fn checkin(self, now: Instant) {
        let Lease {
            mut stored,
            mut permit,
        } = self;
        if let Some(inner) = permit.inner.take() {
            stored.idle_since = now;
            inner.checkin(stored, now);
        }
    }

    /// Takes the connection out of the pool for good. Its place stays taken until the permit is dropped.
    pub fn detach(self) -> (C, Permit<C>) {
        (self.stored.connection, self.permit)
    }

    /// Returns when the connection was opened.
    pub fn opened_at(&self) -> Instant {
        self.stored.opened_at
    }
}

impl<C: Connection> Deref for Lease<C> {
    type Target = C;

    #[inline]
    fn deref(&self) -> &C {
        &self.stored.connection
    }
}

impl<C: Connection> DerefMut for Lease<C> {
    #[inline]
    fn deref_mut(&mut self) -> &mut C {
        &mut self.stored.connection
    }
}

impl<C: Connection + fmt::Debug> fmt::Debug for Lease<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease")
            .field(&self.stored.connection)
            .finish()
    }
}
