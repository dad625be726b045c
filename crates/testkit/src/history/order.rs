//! The one order of each object's states, and what contradicts it: values that are invented, doubled, lost or out of order.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::{Action, History, Object, Operation, Outcome, Promise, Value, Violation};

/// The place of each operation in the order of its object: how many writes the state has that it made or saw.
pub(super) struct Order {
    /// Per operation; `None` where it has none, or where that is reported already.
    places: Vec<Option<u64>>,
    /// Who wrote what.
    writers: BTreeMap<(Object, Value), usize>,
}

impl Order {
    /// Returns the place of the operation at this index.
    pub(super) fn place(&self, index: usize) -> Option<u64> {
        self.places.get(index).copied().flatten()
    }

    /// Returns the index of the operation that wrote a value.
    pub(super) fn writer(&self, object: Object, value: Value) -> Option<usize> {
        self.writers.get(&(object, value)).copied()
    }
}

/// Works the order out, and reports what does not fit into it.
pub(super) fn of(history: &History) -> (Order, Vec<Violation<'_>>) {
    let writers = (history.operations.iter().enumerate())
        .filter_map(|(index, operation)| {
            let value = operation.action.written()?;
            Some(((operation.action.object(), value), index))
        })
        .collect();
    let mut search = Search {
        history,
        order: Order {
            places: vec![None; history.operations.len()],
            writers,
        },
        lists: BTreeMap::new(),
        versions: BTreeMap::new(),
        newest: BTreeMap::new(),
        violations: Vec::new(),
    };
    search.learn_last();
    for (index, operation) in history.operations.iter().enumerate() {
        let place = search.place(operation);
        if let Some(found) = search.order.places.get_mut(index) {
            *found = place;
        }
    }
    search.twice_in_registers();
    (search.order, search.violations)
}

struct Search<'a> {
    history: &'a History,
    order: Order,
    /// Each list as it was read last, with the place of each of its values.
    lists: BTreeMap<u32, (&'a [Value], BTreeMap<Value, u64>)>,
    /// The value of each version of a register, and who says so; nobody where it was read last.
    versions: BTreeMap<(u32, u64), (Value, Option<&'a Operation>)>,
    /// The last version of each register.
    newest: BTreeMap<u32, u64>,
    violations: Vec<Violation<'a>>,
}

impl<'a> Search<'a> {
    fn report(&mut self, promise: Promise, what: String, operations: Vec<&'a Operation>) {
        self.violations
            .push(Violation::new(promise, what, operations));
    }

    fn learn_last(&mut self) {
        for action in &self.history.last {
            match action {
                Action::List { key, values } => self.last_list(*key, values),
                Action::Register {
                    key,
                    version,
                    value,
                } => {
                    self.newest.insert(*key, *version);
                    self.version(*key, *version, *value, None);
                }
                Action::Append { .. } | Action::Write { .. } => {}
            }
        }
    }

    fn last_list(&mut self, key: u32, values: &'a [Value]) {
        let mut places = BTreeMap::new();
        for (place, value) in (1..).zip(values) {
            if places.insert(*value, place).is_some() {
                let what = format!("list {key} has the value {value} twice at the end");
                let writer = self.writer_of(Object::List(key), *value);
                self.report(Promise::NothingTwice, what, writer);
            }
            self.invented(Object::List(key), *value, None);
        }
        self.lists.insert(key, (values, places));
    }

    /// Returns the place of an operation, and reports it where it has none.
    fn place(&mut self, operation: &'a Operation) -> Option<u64> {
        match (&operation.action, operation.outcome) {
            (Action::Append { key, value }, outcome) => {
                let place = (self.lists.get(key))
                    .and_then(|(_, places)| places.get(value))
                    .copied();
                if place.is_none() && outcome == Outcome::Ok {
                    let what = format!("the acknowledged {value} is not in list {key} at the end");
                    self.report(Promise::NothingLost, what, vec![operation]);
                }
                place
            }
            (Action::List { key, values }, Outcome::Ok) => self.list(operation, *key, values),
            (
                Action::Write {
                    key,
                    value,
                    version: Some(version),
                },
                Outcome::Ok,
            ) => {
                if *version > self.newest.get(key).copied().unwrap_or(0) {
                    let what = format!("register {key} is at a lower version at the end");
                    self.report(Promise::NothingLost, what, vec![operation]);
                    return None;
                }
                self.version(*key, *version, *value, Some(operation))
            }
            (
                Action::Register {
                    key,
                    version,
                    value,
                },
                Outcome::Ok,
            ) => self.register(operation, *key, *version, *value),
            (Action::List { .. } | Action::Write { .. } | Action::Register { .. }, _) => None,
        }
    }

    fn list(&mut self, operation: &'a Operation, key: u32, values: &'a [Value]) -> Option<u64> {
        let last = self.lists.get(&key).map_or(&[][..], |(values, _)| values);
        if last.starts_with(values) {
            // What is new in a read is at its end, and what came before was looked at when it was new.
            if let Some(value) = values.last() {
                self.invented(Object::List(key), *value, Some(operation));
            }
            return u64::try_from(values.len()).ok();
        }
        let differs = values.iter().zip(last).take_while(|(a, b)| a == b).count();
        let there = values.get(differs);
        let seen_before =
            there.is_some_and(|value| values.iter().take(differs).any(|v| v == value));
        let (promise, what) = if seen_before {
            (
                Promise::NothingTwice,
                format!("list {key} shows a value twice"),
            )
        } else {
            let what = format!(
                "list {key} shows {there:?} where it has {:?} at the end, behind {differs} equal values",
                last.get(differs)
            );
            (Promise::OneOrder, what)
        };
        let mut operations = vec![operation];
        let writers = [there, last.get(differs)].into_iter().flatten();
        for value in writers.copied().collect::<Vec<_>>() {
            operations.extend(self.writer_of(Object::List(key), value));
            self.invented(Object::List(key), value, Some(operation));
        }
        self.report(promise, what, operations);
        None
    }

    fn register(
        &mut self,
        operation: &'a Operation,
        key: u32,
        version: u64,
        value: Value,
    ) -> Option<u64> {
        if version > self.newest.get(&key).copied().unwrap_or(0) {
            let what = format!("register {key} is at a lower version at the end");
            let mut operations = vec![operation];
            operations.extend(self.writer_of(Object::Register(key), value));
            self.report(Promise::OneOrder, what, operations);
            return None;
        }
        self.version(key, version, value, Some(operation))
    }

    /// Notes what a version is, unless somebody says otherwise.
    fn version(
        &mut self,
        key: u32,
        version: u64,
        value: Value,
        by: Option<&'a Operation>,
    ) -> Option<u64> {
        if version == 0 && value == 0 {
            return Some(0);
        }
        self.invented(Object::Register(key), value, by);
        match self.versions.entry((key, version)) {
            Entry::Vacant(unknown) => {
                unknown.insert((value, by));
                Some(version)
            }
            Entry::Occupied(known) if known.get().0 == value => Some(version),
            Entry::Occupied(known) => {
                let (other, says) = *known.get();
                let what = format!("version {version} of register {key} is {other} and {value}");
                let operations = says.into_iter().chain(by).collect();
                self.report(Promise::OneOrder, what, operations);
                None
            }
        }
    }

    /// Reports a value that is seen though nobody can have written it.
    fn invented(&mut self, object: Object, value: Value, by: Option<&'a Operation>) {
        let writer = self.writer_of(object, value);
        let is_possible = writer.iter().any(|writer| {
            let is_before = by.is_none_or(|by| writer.invoked_at < by.completed_at);
            is_before && writer.outcome != Outcome::Failed
        });
        if !is_possible {
            let what = format!("{object:?} shows {value}, which nobody had written by then");
            let operations = writer.into_iter().chain(by).collect();
            self.report(Promise::NothingInvented, what, operations);
        }
    }

    fn writer_of(&self, object: Object, value: Value) -> Vec<&'a Operation> {
        let index = self.order.writer(object, value);
        let writer = index.and_then(|index| self.history.operations.get(index));
        writer.into_iter().collect()
    }

    fn twice_in_registers(&mut self) {
        let mut seen: BTreeMap<(u32, Value), u64> = BTreeMap::new();
        let mut twice = Vec::new();
        for ((key, version), (value, by)) in &self.versions {
            if let Some(other) = seen.insert((*key, *value), *version) {
                twice.push((*key, *value, [other, *version], *by));
            }
        }
        for (key, value, versions, by) in twice {
            let what = format!("register {key} has the value {value} at the versions {versions:?}");
            let mut operations = self.writer_of(Object::Register(key), value);
            operations.extend(by);
            self.report(Promise::NothingTwice, what, operations);
        }
    }
}
