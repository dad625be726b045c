//! The plans of known shapes: a bounded table per thread.
//!
//! ## Why
//! Applications send few shapes many times. A lookup is one pass over the text, one hash and one comparison of the whole
//! shape; it takes no lock and allocates nothing. The hash is seeded at random, so that nobody can aim texts at one bucket.
//!
//! ## Limits
//! The table holds at most `capacity` shapes and [`SHAPE_BYTES_LIMIT`] bytes each. Eviction is by the clock: a shape used
//! since the hand last passed is spared once, so that a stream of unique texts cannot push out the ones in use.

mod traits;

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Weak;

use hashbrown::HashTable;
use pgweir_model::Verdict;
use pgweir_model::catalog::Objects;

use crate::classify::{Classified, classify_shape};
use crate::display::Displayed;
use crate::fingerprint::Fingerprint;
use crate::shape::{Shape, Shaper};
use crate::verdict::{Lens, Remembered};

pub use traits::Traits;

/// What is known of a shape.
#[derive(Debug)]
pub struct Plan {
    /// Its classification.
    pub classified: Classified,
    /// What is asked of it for every batch.
    pub traits: Traits,
    learned_primary: Cell<bool>,
    /// The objects that the lens of the session saw which learned that. What a replica could not run may be another thing when
    /// the schema has changed. A weak reference keeps its address taken.
    learned_under: RefCell<Option<Weak<Objects>>>,
    /// The shape itself: the text with its literals normalised.
    pub shape: Box<[u8]>,
    /// Worked out when it is first asked for.
    fingerprint: OnceCell<Fingerprint>,
    /// What is shown of it, worked out when it is first asked for.
    displayed: OnceCell<Displayed>,
    /// What is shown where its text was not read as the server reads it.
    command: OnceCell<Displayed>,
    /// Which of the configured rules speak of it, as the router last found.
    pub rules: Memo,
    /// Its verdicts under the lenses that looked last: one, and another while a snapshot is replaced or two search paths are
    /// in use. More would only help those who use three for one shape.
    remembered: RefCell<[Option<Remembered>; 2]>,
}

impl Plan {
    /// Returns the fingerprint of its shape.
    #[inline]
    pub fn fingerprint(&self) -> Fingerprint {
        *self
            .fingerprint
            .get_or_init(|| Fingerprint::of_shape(&self.shape))
    }

    /// Returns what may be shown of its shape, where its text was read as the server reads it.
    #[inline]
    pub fn displayed(&self) -> &Displayed {
        self.displayed.get_or_init(|| Displayed::of(&self.shape))
    }

    /// Returns what may be shown of its shape where the server may have read its text in another way.
    pub fn command(&self) -> &Displayed {
        self.command.get_or_init(|| Displayed::command(&self.shape))
    }

    /// Returns what it is under a lens: what [`Classified::verdict`] says, remembered.
    #[inline]
    pub fn verdict(&self, lens: &Lens) -> Verdict {
        if self.learned_primary.get() && !self.is_learned_under(lens) {
            self.learned_primary.set(false);
        }
        let asks = self.traits.has(Traits::ASKS_CATALOG);
        let Some(catalog) = lens.catalog().filter(|_| asks) else {
            return self.classified.blind_verdict();
        };
        let mut remembered = self.remembered.borrow_mut();
        for known in remembered.iter().flatten() {
            if known.is_of(catalog, lens) {
                return known.verdict;
            }
        }
        let verdict = self.classified.verdict(lens);
        remembered.swap(0, 1);
        if let Some(place) = remembered.first_mut() {
            *place = Some(Remembered::new(catalog, lens, verdict));
        }
        verdict
    }

    /// Returns whether a text of this shape has failed on a replica with an error that only recovery raises. That is forgotten by
    /// the first [`Plan::verdict`] under a lens that sees other objects.
    pub fn is_learned_primary(&self) -> bool {
        self.learned_primary.get()
    }

    /// Remembers that a text of this shape has failed on a replica with an error that only recovery raises.
    pub fn learn_primary(&self, lens: &Lens) {
        let objects = lens
            .catalog()
            .map(|catalog| std::sync::Arc::downgrade(&catalog.objects));
        self.learned_under.replace(objects);
        self.learned_primary.set(true);
    }

    #[cold]
    fn is_learned_under(&self, lens: &Lens) -> bool {
        let seen = lens.catalog().map(|c| std::sync::Arc::as_ptr(&c.objects));
        self.learned_under.borrow().as_ref().map(Weak::as_ptr) == seen
    }
}

/// A list that somebody worked out about a plan, for as long as what it was worked out from stays the same.
#[derive(Debug, Default)]
pub struct Memo {
    generation: Cell<u64>,
    list: RefCell<Rc<[u16]>>,
}

impl Memo {
    /// Returns the list of this generation, worked out by `make` where it is of another; a generation is never 0.
    pub fn of(&self, generation: u64, make: impl FnOnce() -> Rc<[u16]>) -> Rc<[u16]> {
        if self.generation.get() != generation {
            self.list.replace(make());
            self.generation.set(generation);
        }
        Rc::clone(&self.list.borrow())
    }
}

/// Longest shape that is kept. Longer ones are classified each time, by tokens mostly: they are bulk statements, which cost
/// the server far more. Not smaller, since generated queries reach several KiB; not larger, since `capacity` of them is memory.
pub const SHAPE_BYTES_LIMIT: usize = 8 * 1024;

/// The plans of the shapes seen by one thread, at most as many as its capacity.
#[derive(Debug)]
pub struct PlanTable {
    shaper: Shaper,
    /// Indexes into `entries`, by hash of the shape.
    index: HashTable<usize>,
    entries: Vec<Entry>,
    capacity: usize,
    /// The next entry that eviction looks at.
    hand: usize,
    hits: u64,
    misses: u64,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    plan: Rc<Plan>,
    /// Used since the hand last passed.
    used: bool,
}

impl PlanTable {
    /// Returns an empty table for at most `capacity` shapes (at least 1).
    pub fn new(capacity: usize) -> Self {
        PlanTable {
            shaper: Shaper::new(),
            index: HashTable::new(),
            entries: Vec::new(),
            capacity: capacity.max(1),
            hand: 0,
            hits: 0,
            misses: 0,
        }
    }

    /// Returns the plan of the text's shape, classifying it when the shape is not known.
    pub fn get(&mut self, sql: &[u8]) -> Rc<Plan> {
        let shape = self.shaper.shape(sql);
        let entries = &mut self.entries;
        let is_it = |at: &usize| {
            entries
                .get(*at)
                .is_some_and(|entry| *entry.plan.shape == *shape.text)
        };
        if let Some(at) = self.index.find(shape.hash, is_it).copied()
            && let Some(entry) = entries.get_mut(at)
        {
            entry.used = true;
            self.hits += 1;
            return Rc::clone(&entry.plan);
        }
        self.misses += 1;
        let Shape { hash, text } = shape;
        let kept = text.len() <= SHAPE_BYTES_LIMIT;
        let classified = classify_shape(text);
        let plan = Rc::new(Plan {
            traits: Traits::of(&classified),
            classified,
            learned_primary: Cell::new(false),
            learned_under: RefCell::default(),
            remembered: RefCell::default(),
            // Rules may speak of a long one, too: it lives no longer than whoever uses it.
            shape: text.into(),
            fingerprint: OnceCell::new(),
            displayed: OnceCell::new(),
            command: OnceCell::new(),
            rules: Memo::default(),
        });
        if kept {
            self.insert(Entry {
                hash,
                plan: Rc::clone(&plan),
                used: false,
            });
        }
        plan
    }

    fn insert(&mut self, entry: Entry) {
        let at = if self.entries.len() < self.capacity {
            self.entries.len()
        } else {
            self.evict()
        };
        let entries = &mut self.entries;
        let hash = entry.hash;
        if let Some(place) = entries.get_mut(at) {
            *place = entry;
        } else {
            entries.push(entry);
        }
        self.index.insert_unique(hash, at, |at| {
            entries.get(*at).map_or(0, |entry| entry.hash)
        });
    }

    /// Takes the first entry that was not used since the hand last passed out of the index, and returns its place.
    fn evict(&mut self) -> usize {
        loop {
            let at = self.hand;
            self.hand = (at + 1) % self.entries.len().max(1);
            let Some(entry) = self.entries.get_mut(at) else {
                return at;
            };
            if std::mem::take(&mut entry.used) {
                continue;
            }
            if let Ok(found) = self.index.find_entry(entry.hash, |other| *other == at) {
                found.remove();
            }
            return at;
        }
    }

    /// Returns how many shapes are known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether no shape is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns how many lookups found their plan.
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// Returns how many lookups had to classify.
    pub fn misses(&self) -> u64 {
        self.misses
    }

    /// Returns the known plans, in no particular order.
    pub fn plans(&self) -> impl Iterator<Item = &Rc<Plan>> {
        self.entries.iter().map(|entry| &entry.plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(number: usize) -> Vec<u8> {
        format!("select c{number}").into_bytes()
    }

    #[test]
    fn texts_of_one_shape_share_a_plan() {
        let mut table = PlanTable::new(8);
        let first = table.get(b"SELECT * FROM t WHERE id = 17");
        let second = table.get(b"select *  from T where ID = 4711 -- other");
        assert!(Rc::ptr_eq(&first, &second));
        let text = b"select * from t where id = 0";
        assert_eq!(first.fingerprint(), Fingerprint::of(text));
        assert_eq!((table.hits(), table.misses(), table.len()), (1, 1, 1));
    }

    #[test]
    fn what_was_learned_is_forgotten_when_the_objects_are_others() {
        use pgweir_model::Catalog;
        use std::sync::Arc;

        let objects = Arc::new(Objects::default());
        let lens = |objects: &Arc<Objects>, stale: bool| {
            let catalog = Catalog {
                version: 1,
                stale,
                objects: Arc::clone(objects),
            };
            Lens::new(Some(Arc::new(catalog)), None)
        };
        let plan = PlanTable::new(1).get(b"select a from t");
        let learned = |lens: &Lens| {
            plan.verdict(lens);
            plan.is_learned_primary()
        };
        plan.learn_primary(&lens(&objects, true));
        // The same objects, found to be up to date.
        assert!(learned(&lens(&objects, false)));
        assert!(!learned(&lens(&Arc::default(), false)));
        assert!(!learned(&lens(&objects, false)));
        plan.learn_primary(&Lens::blind());
        assert!(learned(&Lens::blind()));
        assert!(!learned(&lens(&objects, false)));
    }

    #[test]
    fn holds_its_capacity_and_not_one_more() {
        let mut table = PlanTable::new(4);
        (0..4).for_each(|number| drop(table.get(&sql(number))));
        assert_eq!(table.len(), 4);
        (0..4).for_each(|number| drop(table.get(&sql(number))));
        assert_eq!(table.hits(), 4);
        drop(table.get(&sql(4)));
        assert_eq!((table.len(), table.index.len()), (4, 4));
    }

    #[test]
    fn a_shape_in_use_outlives_a_stream_of_others() {
        let mut table = PlanTable::new(4);
        let kept = table.get(b"select kept");
        for number in 0..100 {
            assert!(Rc::ptr_eq(&kept, &table.get(b"select kept")), "{number}");
            drop(table.get(&sql(number)));
        }
        assert_eq!(table.index.len(), table.len());
    }

    #[test]
    fn a_shape_over_the_limit_is_not_kept() {
        let mut table = PlanTable::new(4);
        let text = |len: usize| format!("select {}", "a".repeat(len - 7)).into_bytes();
        drop(table.get(&text(SHAPE_BYTES_LIMIT)));
        assert_eq!(table.len(), 1);
        drop(table.get(&text(SHAPE_BYTES_LIMIT + 1)));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn texts_with_different_hints_never_share_a_plan() {
        let mut table = PlanTable::new(64);
        let texts = [
            "SELECT a FROM t",
            "/* pgweir: route=primary */ SELECT a FROM t",
            "/* pgweir: route=replica */ SELECT a FROM t",
            "SELECT a FROM t /* pgweir: route=primary */",
            "SELECT a /* pgweir: route=primary */ FROM t",
            "SELECT a FROM t -- pgweir: route=primary",
            "-- pgweir: route=primary\nSELECT a FROM t",
            "-- pgweir: max_lag=2s\nSELECT a FROM t",
            "-- pgweir: max_lag=3s\nSELECT a FROM t",
            "/* pgweir: consistency=eventual */ SELECT a FROM t",
            "/* pgweir: consistency=session */ SELECT a FROM t",
        ];
        let plans: Vec<_> = texts
            .iter()
            .map(|text| table.get(text.as_bytes()))
            .collect();
        for (index, plan) in plans.iter().enumerate() {
            let hint = crate::classify(texts[index].as_bytes()).hint;
            assert_eq!(plan.classified.hint, hint, "{}", texts[index]);
            assert_eq!(hint.is_some(), index > 0);
            for other in plans.iter().skip(index + 1) {
                assert!(!Rc::ptr_eq(plan, other), "{}", texts[index]);
            }
        }
    }

    #[test]
    fn a_memo_is_made_anew_for_another_generation_only() {
        let memo = Memo::default();
        assert_eq!(*memo.of(1, || Rc::new([7])), [7]);
        assert_eq!(*memo.of(1, || panic!("it is worked out again")), [7]);
        assert_eq!(*memo.of(2, || Rc::new([])), []);
    }

    #[test]
    fn a_capacity_of_zero_is_one() {
        let mut table = PlanTable::new(0);
        drop(table.get(b"select 1"));
        drop(table.get(b"select a"));
        assert_eq!(table.len(), 1);
    }
}
