//! The waiters: one queue over all threads, and the slot in which each is given what it waits for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

/// Locks; a panic of another thread inside of these few lines leaves nothing half done that could not be used.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The waiters of one pool, by thread and in order of arrival.
///
/// Separate lists, because the first of a thread and the first of all are both asked for; tickets order them overall.
/// Finding the very first looks at the head of each list: there are as many as threads.
#[derive(Debug)]
pub(crate) struct Queue<G> {
    threads: Box<[VecDeque<Entry<G>>]>,
    next_ticket: u64,
    len: usize,
    /// Who came by then has waited long enough for more than the pool's limit allows.
    relieved_until: Option<Instant>,
}

#[derive(Debug)]
struct Entry<G> {
    ticket: u64,
    since: Instant,
    slot: Arc<Slot<G>>,
}

impl<G> Queue<G> {
    pub(crate) fn new(threads: usize) -> Queue<G> {
        Queue {
            threads: (0..threads).map(|_| VecDeque::new()).collect(),
            next_ticket: 0,
            len: 0,
            relieved_until: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds a waiter of `thread` behind all others and returns its ticket.
    pub(crate) fn join(&mut self, thread: usize, since: Instant, slot: Arc<Slot<G>>) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        if let Some(list) = self.threads.get_mut(thread) {
            list.push_back(Entry {
                ticket,
                since,
                slot,
            });
            self.len += 1;
        }
        ticket
    }

    /// Takes a waiter out that does not want to wait any more; false where it was taken already.
    pub(crate) fn leave(&mut self, thread: usize, ticket: u64) -> bool {
        let Some(list) = self.threads.get_mut(thread) else {
            return false;
        };
        let Ok(place) = list.binary_search_by_key(&ticket, |entry| entry.ticket) else {
            return false;
        };
        list.remove(place);
        self.len -= 1;
        true
    }

    /// Takes the waiter that is next: the first of all; but the first of `near`, where fewer than `overtaking` waiters
    /// came between the two.
    pub(crate) fn next(&mut self, near: Option<usize>, overtaking: u64) -> Option<Arc<Slot<G>>> {
        let heads = self.threads.iter().enumerate();
        let (first, place) = heads
            .filter_map(|(place, list)| Some((list.front()?.ticket, place)))
            .min()?;
        let near = near.filter(
            |&near| match self.threads.get(near).and_then(VecDeque::front) {
                Some(own) => own.ticket - first <= overtaking,
                None => false,
            },
        );
        let taken = self.threads.get_mut(near.unwrap_or(place))?.pop_front()?;
        self.len -= 1;
        Some(taken.slot)
    }

    /// Returns when the one that waits longest came.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let heads = self.threads.iter().filter_map(VecDeque::front);
        heads
            .min_by_key(|entry| entry.ticket)
            .map(|entry| entry.since)
    }

    /// Notes that who came by `until` has waited long enough for more than the pool's limit allows.
    pub(crate) fn relieve(&mut self, until: Option<Instant>) {
        self.relieved_until = until;
    }

    /// Returns whether the one that waits longest has waited long enough for that.
    pub(crate) fn is_relieved(&self) -> bool {
        let until = self.relieved_until;
        until.is_some_and(|until| self.oldest().is_some_and(|since| since <= until))
    }
}

/// Where one waiter is given what it waits for.
#[derive(Debug)]
pub(crate) struct Slot<G> {
    /// The thread on which the waiter lives.
    pub(crate) thread: usize,
    state: Mutex<State<G>>,
}

#[derive(Debug)]
enum State<G> {
    /// Nothing yet; the waker of the last poll.
    Awaiting(Option<Waker>),
    /// Given and not taken yet.
    Granted(G),
    /// Taken, or the waiter is gone.
    Closed,
}

impl<G> Slot<G> {
    pub(crate) fn new(thread: usize) -> Slot<G> {
        Slot {
            thread,
            state: Mutex::new(State::Awaiting(None)),
        }
    }

    /// Gives, and wakes the waiter.
    ///
    /// # Errors
    /// Gives it back where the waiter is gone.
    pub(crate) fn grant(&self, grant: G) -> Result<(), G> {
        let mut state = lock(&self.state);
        let waker = match &mut *state {
            State::Awaiting(waker) => waker.take(),
            State::Granted(_) | State::Closed => return Err(grant),
        };
        *state = State::Granted(grant);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Takes what was given; where there is nothing yet, `waker` will be woken.
    pub(crate) fn take(&self, waker: &Waker) -> Option<G> {
        let mut state = lock(&self.state);
        match &mut *state {
            State::Awaiting(Some(last)) => last.clone_from(waker),
            State::Awaiting(last) => *last = Some(waker.clone()),
            State::Granted(_) => return replace(&mut state),
            State::Closed => {}
        }
        None
    }

    /// Closes the slot and returns what was given and not taken.
    pub(crate) fn close(&self) -> Option<G> {
        replace(&mut lock(&self.state))
    }
}

/// Closes, and returns what was granted.
fn replace<G>(state: &mut State<G>) -> Option<G> {
    match std::mem::replace(state, State::Closed) {
        State::Granted(grant) => Some(grant),
        State::Awaiting(_) | State::Closed => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue_of(threads: &[usize]) -> Queue<()> {
        let mut queue = Queue::new(3);
        for &thread in threads {
            queue.join(thread, Instant::now(), Arc::new(Slot::new(thread)));
        }
        queue
    }

    fn order(mut queue: Queue<()>, near: Option<usize>, overtaking: u64) -> Vec<usize> {
        std::iter::from_fn(|| queue.next(near, overtaking))
            .map(|slot| slot.thread)
            .collect()
    }

    #[test]
    fn serves_in_order_of_arrival_over_all_threads() {
        assert_eq!(order(queue_of(&[2, 0, 0, 1]), None, 100), [2, 0, 0, 1]);
        assert_eq!(order(queue_of(&[2, 0, 0, 1]), Some(0), 0), [2, 0, 0, 1]);
    }

    #[test]
    fn serves_its_own_thread_first_while_few_are_overtaken() {
        assert_eq!(order(queue_of(&[2, 0, 0, 1]), Some(0), 2), [0, 0, 2, 1]);
        assert_eq!(order(queue_of(&[2, 0, 0, 1]), Some(0), 1), [0, 2, 0, 1]);
    }

    #[test]
    fn one_that_left_is_not_served_and_cannot_leave_twice() {
        let mut queue = queue_of(&[0, 1, 0, 0]);
        assert!(queue.leave(0, 2));
        assert!(!queue.leave(0, 2));
        assert!(!queue.leave(1, 2));
        assert_eq!(queue.len(), 3);
        assert_eq!(order(queue, None, 0), [0, 1, 0]);
    }

    #[test]
    fn a_grant_that_comes_too_late_stays_with_the_giver() {
        let slot = Slot::new(0);
        assert_eq!(slot.close(), None);
        assert_eq!(slot.grant(7), Err(7));
    }

    #[test]
    fn a_grant_that_was_not_taken_is_returned_to_the_one_who_leaves() {
        let slot = Slot::new(0);
        assert_eq!(slot.grant(7), Ok(()));
        assert_eq!(slot.close(), Some(7));
        assert_eq!(slot.close(), None);
    }
}
