//! Which names and statements are about to change, found without a walk over the requests that change them.
//!
//! A pipeline may hold tens of thousands of requests, and each new one asks what the names in it mean by then. So what
//! the queue of requests says about a name is kept beside it, counted in and out with the requests.
//!
//! Nothing is allocated for the unnamed statement, which most drivers define with every batch.

use std::hash::Hash;
use std::rc::Rc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::{Change, Pending};
use crate::statement::{Statement, StatementId};

/// How many outstanding requests touch one thing, and how many of them belong to the newest batch that does.
///
/// Requests leave in the order in which they came, so these numbers suffice to tell whether any batch before the present
/// one is among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Touches {
    all: usize,
    /// The newest batch that touches it.
    newest: u64,
    /// Requests of that batch: `in_newest <= all`.
    in_newest: usize,
}

impl Touches {
    fn add(&mut self, batch: u64) {
        if self.newest != batch {
            self.newest = batch;
            self.in_newest = 0;
        }
        self.in_newest += 1;
        self.all += 1;
    }

    fn remove(&mut self, batch: u64) {
        self.in_newest -= usize::from(self.newest == batch);
        self.all -= 1;
    }

    /// Returns whether a request of another batch than `present` is among them.
    fn has_earlier(&self, present: u64) -> bool {
        let of_present = if self.newest == present {
            self.in_newest
        } else {
            0
        };
        self.all > of_present
    }
}

/// What the outstanding requests make of one name.
#[derive(Debug, Default)]
struct PendingName {
    touches: Touches,
    /// What the newest of them makes it mean; `None`: it will be gone.
    meaning: Option<Rc<Statement>>,
}

/// The pending changes of all names, and the statements under way to a server.
#[derive(Debug, Default)]
pub(super) struct PendingChanges {
    unnamed: PendingName,
    named: HashMap<Box<[u8]>, PendingName, RandomState>,
    placing: HashMap<StatementId, Touches, RandomState>,
}

impl PendingChanges {
    /// Counts in what a request of `batch` changes.
    pub(super) fn add(&mut self, change: &Change, places: Option<StatementId>, batch: u64) {
        let (name, meaning) = match change {
            Change::None => (None, None),
            Change::Define { name, statement } => (Some(name), Some(Rc::clone(statement))),
            Change::Undefine { name } => (Some(name), None),
        };
        if let Some(name) = name {
            let pending = if name.is_empty() {
                &mut self.unnamed
            } else {
                self.named.entry(name.clone()).or_default()
            };
            pending.touches.add(batch);
            pending.meaning = meaning;
        }
        if let Some(id) = places {
            self.placing.entry(id).or_default().add(batch);
        }
    }

    /// Counts out what the oldest request, one of `batch`, changes.
    pub(super) fn remove(&mut self, change: &Change, places: Option<StatementId>, batch: u64) {
        match change.name() {
            None => {}
            Some(b"") => {
                self.unnamed.touches.remove(batch);
                if self.unnamed.touches.all == 0 {
                    self.unnamed.meaning = None;
                }
            }
            Some(name) => {
                if let Some(pending) = self.named.get_mut(name) {
                    pending.touches.remove(batch);
                    if pending.touches.all == 0 {
                        self.named.remove(name);
                    }
                }
            }
        }
        if let Some(id) = places
            && let Some(touches) = self.placing.get_mut(&id)
        {
            touches.remove(batch);
            if touches.all == 0 {
                self.placing.remove(&id);
            }
        }
    }

    /// Returns what `name` will mean once all that is due has come.
    #[inline]
    pub(super) fn meaning(&self, name: &[u8]) -> Pending {
        match self.name(name) {
            None => Pending::Untouched,
            Some(pending) => match &pending.meaning {
                Some(statement) => Pending::Defined(Rc::clone(statement)),
                None => Pending::Undefined,
            },
        }
    }

    /// Returns whether a batch before `present` changes `name`.
    pub(super) fn is_changed_before(&self, name: &[u8], present: u64) -> bool {
        self.name(name)
            .is_some_and(|pending| pending.touches.has_earlier(present))
    }

    /// Returns whether a batch before `present` places the statement on the server or takes it from there.
    pub(super) fn is_placed_before(&self, id: StatementId, present: u64) -> bool {
        look_up(&self.placing, &id).is_some_and(|touches| touches.has_earlier(present))
    }

    /// Forgets all changes of names.
    pub(super) fn clear_names(&mut self) {
        self.unnamed = PendingName::default();
        if !self.named.is_empty() {
            self.named = HashMap::default();
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.clear_names();
        if !self.placing.is_empty() {
            self.placing = HashMap::default();
        }
    }

    #[inline]
    fn name(&self, name: &[u8]) -> Option<&PendingName> {
        if name.is_empty() {
            (self.unnamed.touches.all > 0).then_some(&self.unnamed)
        } else {
            look_up(&self.named, name)
        }
    }
}

/// A look-up that hashes nothing in the usual case of nothing to be found.
#[inline]
fn look_up<'a, K, Q, V>(map: &'a HashMap<K, V, RandomState>, key: &Q) -> Option<&'a V>
where
    K: Hash + Eq + std::borrow::Borrow<Q>,
    Q: Hash + Eq + ?Sized,
{
    if map.is_empty() { None } else { map.get(key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touches_of_the_present_batch_are_no_earlier_ones() {
        let mut touches = Touches::default();
        assert!(!touches.has_earlier(0));
        touches.add(0);
        touches.add(0);
        assert!(!touches.has_earlier(0));
        assert!(touches.has_earlier(1));
        touches.add(1);
        assert!(touches.has_earlier(1));
        touches.remove(0);
        assert!(touches.has_earlier(1));
        touches.remove(0);
        assert!(!touches.has_earlier(1));
        assert!(touches.has_earlier(2));
        touches.remove(1);
        assert_eq!(touches.all, 0);
    }
}
