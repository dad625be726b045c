//! A table with a limit that drops what was least recently used.
//!
//! ## Why
//! Statistics are found for every batch, so a look-up is one comparison where the key is that of the look-up before, else one
//! hash of a small key; what was used moves to the front of a list that is chained through the entries. Nothing is allocated
//! but for an entry that is new while the table is not full.
//!
//! ## Limits
//! Entries are numbered by 32 bits, far above any limit that a configuration takes.

use std::hash::Hash;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// No entry.
const NONE: u32 = u32::MAX;

/// At most `limit` values by key; one more drops the one that was not used for longest.
#[derive(Debug)]
pub struct Recent<K, V> {
    entries: Vec<Entry<K, V>>,
    index: HashMap<K, u32, RandomState>,
    /// The entry that was used last.
    newest: u32,
    /// The one that was not used for longest.
    oldest: u32,
    limit: usize,
    evicted: u64,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    /// The one that was used next.
    newer: u32,
    /// The one that was used before.
    older: u32,
}

impl<K: Copy + Eq + Hash, V> Recent<K, V> {
    /// Returns an empty table for at most `limit` values; 0 keeps none.
    pub fn new(limit: usize) -> Self {
        Recent {
            entries: Vec::new(),
            index: HashMap::default(),
            newest: NONE,
            oldest: NONE,
            limit: limit.min(usize::try_from(NONE - 1).unwrap_or(usize::MAX)),
            evicted: 0,
        }
    }

    /// Returns the value of `key`, made by `make` where there is none, and marks it as used; `None` where none is kept at all.
    #[inline]
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> Option<&mut V> {
        let is_newest = self.entry(self.newest).is_some_and(|e| e.key == key);
        if !is_newest {
            match self.index.get(&key).copied() {
                Some(at) => {
                    self.unlink(at);
                    self.link(at);
                }
                None => self.insert(key, make)?,
            }
        }
        self.entry_mut(self.newest).map(|entry| &mut entry.value)
    }

    /// Changes the limit; a smaller one drops what was used least recently.
    pub fn set_limit(&mut self, limit: usize) {
        if limit == self.limit {
            return;
        }
        let surplus = self.len().saturating_sub(limit);
        let mut kept = Recent::new(limit);
        kept.evicted = self.evicted + u64::try_from(surplus).unwrap_or(u64::MAX);
        let mut at = self.oldest;
        let mut order = Vec::with_capacity(self.len());
        while let Some(entry) = self.entry(at) {
            order.push(at);
            at = entry.newer;
        }
        let mut all: Vec<_> = (self.entries.drain(..))
            .map(|entry| Some((entry.key, entry.value)))
            .collect();
        for at in order.into_iter().skip(surplus) {
            let place = all.get_mut(usize::try_from(at).unwrap_or(usize::MAX));
            if let Some((key, value)) = place.and_then(Option::take) {
                let _kept = kept.insert(key, || value);
            }
        }
        *self = kept;
    }

    /// Drops all values. What was evicted before is still counted.
    pub fn clear(&mut self) {
        self.entries = Vec::new();
        self.index = HashMap::default();
        (self.newest, self.oldest) = (NONE, NONE);
    }

    /// Returns the values with their keys, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.entries.iter().map(|entry| (entry.key, &entry.value))
    }

    /// Returns how many values there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns how many values were dropped to make room.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Adds a value in front, in the place of the oldest one where the table is full.
    fn insert(&mut self, key: K, make: impl FnOnce() -> V) -> Option<()> {
        if self.limit == 0 {
            return None;
        }
        let (value, newer, older) = (make(), NONE, NONE);
        let entry = Entry {
            key,
            value,
            newer,
            older,
        };
        let at = if self.entries.len() < self.limit {
            self.entries.push(entry);
            u32::try_from(self.entries.len() - 1).ok()?
        } else {
            let at = self.oldest;
            let former = self.entry(at)?.key;
            self.unlink(at);
            self.index.remove(&former);
            self.evicted += 1;
            *self.entry_mut(at)? = entry;
            at
        };
        self.index.insert(key, at);
        self.link(at);
        Some(())
    }

    /// Takes an entry out of the list.
    fn unlink(&mut self, at: u32) {
        let Some((newer, older)) = self.entry(at).map(|e| (e.newer, e.older)) else {
            return;
        };
        match self.entry_mut(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.entry_mut(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }

    /// Puts an entry in front of the list.
    fn link(&mut self, at: u32) {
        let older = std::mem::replace(&mut self.newest, at);
        match self.entry_mut(older) {
            Some(entry) => entry.newer = at,
            None => self.oldest = at,
        }
        if let Some(entry) = self.entry_mut(at) {
            (entry.newer, entry.older) = (NONE, older);
        }
    }

    #[inline]
    fn entry(&self, at: u32) -> Option<&Entry<K, V>> {
        self.entries.get(usize::try_from(at).ok()?)
    }

    #[inline]
    fn entry_mut(&mut self, at: u32) -> Option<&mut Entry<K, V>> {
        self.entries.get_mut(usize::try_from(at).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(table: &mut Recent<u32, u32>, keys: &[u32]) {
        for key in keys {
            if let Some(count) = table.get_or_insert_with(*key, || 0) {
                *count += 1;
            }
        }
    }

    fn sorted(table: &Recent<u32, u32>) -> Vec<(u32, u32)> {
        let mut all: Vec<_> = table.iter().map(|(key, count)| (key, *count)).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn the_least_recently_used_makes_room() {
        let mut table = Recent::new(3);
        touch(&mut table, &[1, 2, 3, 1, 1, 2]);
        assert_eq!(sorted(&table), [(1, 3), (2, 2), (3, 1)]);
        touch(&mut table, &[4]);
        assert_eq!(sorted(&table), [(1, 3), (2, 2), (4, 1)]);
        touch(&mut table, &[5, 2]);
        assert_eq!(sorted(&table), [(2, 3), (4, 1), (5, 1)]);
        assert_eq!((table.len(), table.evicted()), (3, 2));
    }

    #[test]
    fn a_limit_of_zero_keeps_nothing() {
        let mut table = Recent::new(0);
        touch(&mut table, &[1, 1, 2]);
        assert!(table.is_empty());
        let mut one = Recent::new(1);
        touch(&mut one, &[1, 1, 2, 2]);
        assert_eq!(sorted(&one), [(2, 2)]);
    }

    #[test]
    fn a_smaller_limit_drops_the_oldest_and_a_larger_one_nothing() {
        let mut table = Recent::new(4);
        touch(&mut table, &[1, 2, 3, 4, 1]);
        table.set_limit(2);
        assert_eq!(sorted(&table), [(1, 2), (4, 1)]);
        assert_eq!(table.evicted(), 2);
        table.set_limit(3);
        touch(&mut table, &[5, 6]);
        assert_eq!(sorted(&table), [(1, 2), (5, 1), (6, 1)]);
        table.clear();
        touch(&mut table, &[7]);
        assert_eq!(sorted(&table), [(7, 1)]);
        table.set_limit(0);
        touch(&mut table, &[8]);
        assert_eq!((table.len(), table.evicted()), (0, 4));
    }

    #[test]
    fn it_holds_what_a_plain_list_would_hold() {
        // A linear congruential generator: the same keys each time.
        let mut state = 12_345u32;
        let mut table = Recent::new(8);
        let mut list: Vec<u32> = Vec::new();
        for _ in 0..5_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let key = state >> 28;
            touch(&mut table, &[key]);
            list.retain(|known| *known != key);
            list.push(key);
            if list.len() > 8 {
                list.remove(0);
            }
            let mut expected = list.clone();
            expected.sort_unstable();
            let keys: Vec<u32> = sorted(&table).into_iter().map(|(key, _)| key).collect();
            assert_eq!(keys, expected);
        }
    }
}
