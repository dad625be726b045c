//! A simulated store that keeps its promises, many seeds of it: the checker finds nothing, and finds each thing that is
//! spoilt in its history afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::seed::Rng;

use super::{Action, History, Level, Object, Operation, Outcome, Promise, Value, check};

const SEEDS: u64 = 200;
const KEYS: usize = 3;
const SESSIONS: usize = 4;
const OPERATIONS: usize = 120;

/// A store whose commits are one log, read at any place of it that the level allows.
struct Store {
    rng: Rng,
    level: Level,
    log: Vec<(Object, Value)>,
    /// How many commits had happened by each millisecond of an acknowledgement, the latest last.
    acknowledged: Vec<(u64, usize)>,
    operations: Vec<Operation>,
}

/// A session's next free moment, the place in the log that it must not fall behind, and its next value.
struct Session {
    free_at: u64,
    floor: usize,
    next: Value,
}

fn simulate(seed: u64, level: Level) -> History {
    let mut store = Store {
        rng: Rng::new(seed),
        level,
        log: Vec::new(),
        acknowledged: Vec::new(),
        operations: Vec::new(),
    };
    let mut sessions: Vec<Session> = (1..)
        .map(|session: Value| session * 1000)
        .take(SESSIONS)
        .map(|next| Session {
            free_at: 0,
            floor: 0,
            next,
        })
        .collect();
    for now in (1..).take(OPERATIONS) {
        // An operation takes effect at once; it began some time before and is answered some time later.
        let name = store.rng.below(SESSIONS);
        let session = &mut sessions[name];
        if session.free_at < now * 10 {
            store.act(u32::try_from(name).unwrap(), session, now * 10);
        }
    }
    let objects: BTreeSet<Object> = store.log.iter().map(|(object, _)| *object).collect();
    let last = (objects.into_iter())
        .map(|object| store.read(object, store.log.len()))
        .collect();
    History {
        operations: store.operations,
        last,
    }
}

impl Store {
    fn act(&mut self, name: u32, session: &mut Session, now: u64) {
        let key = u32::try_from(self.rng.below(KEYS)).unwrap();
        let object = match self.rng.chance(1, 3) {
            true => Object::Register(key),
            false => Object::List(key),
        };
        let invoked_at = session.free_at + 1 + self.rng_below(now - session.free_at);
        let completed_at = now + 1 + self.rng_below(30);
        session.free_at = completed_at;
        let (action, outcome) = if self.rng.chance(1, 2) {
            session.next += 1;
            self.write(object, session, completed_at)
        } else {
            let place = self.place(session.floor, invoked_at);
            if self.level != Level::Eventual {
                session.floor = session.floor.max(place);
            }
            (self.read(object, place), Outcome::Ok)
        };
        self.operations.push(Operation {
            session: name,
            invoked_at: Duration::from_millis(invoked_at),
            completed_at: Duration::from_millis(completed_at),
            outcome,
            action,
            place: String::new(),
            is_on_primary: false,
        });
    }

    fn rng_below(&mut self, limit: u64) -> u64 {
        u64::try_from(self.rng.below(usize::try_from(limit).unwrap())).unwrap()
    }

    fn write(
        &mut self,
        object: Object,
        session: &mut Session,
        completed_at: u64,
    ) -> (Action, Outcome) {
        let value = session.next;
        let outcome = *self
            .rng
            .pick(&[
                Outcome::Ok,
                Outcome::Ok,
                Outcome::Ok,
                Outcome::Unknown,
                Outcome::Failed,
            ])
            .unwrap();
        if outcome == Outcome::Ok || (outcome == Outcome::Unknown && self.rng.chance(1, 2)) {
            self.log.push((object, value));
        }
        if outcome == Outcome::Ok {
            session.floor = self.log.len();
            self.acknowledged.push((completed_at, self.log.len()));
        }
        let action = match object {
            Object::List(key) => Action::Append { key, value },
            Object::Register(key) => Action::Write {
                key,
                value,
                version: (outcome == Outcome::Ok).then(|| self.count(object, self.log.len())),
            },
        };
        (action, outcome)
    }

    /// Returns a place of the log that a read may see.
    fn place(&mut self, floor: usize, invoked_at: u64) -> usize {
        let before = self.acknowledged.iter().filter(|(at, _)| *at < invoked_at);
        let least = match self.level {
            Level::Eventual => 0,
            Level::Session => floor,
            Level::Strong => before.map(|(_, place)| *place).fold(floor, usize::max),
        };
        least + self.rng.below(self.log.len() - least + 1)
    }

    fn count(&self, object: Object, place: usize) -> u64 {
        let of_object = self.log[..place].iter().filter(|(of, _)| *of == object);
        u64::try_from(of_object.count()).unwrap()
    }

    fn read(&self, object: Object, place: usize) -> Action {
        let values: Vec<Value> = (self.log[..place].iter())
            .filter(|(of, _)| *of == object)
            .map(|(_, value)| *value)
            .collect();
        match object {
            Object::List(key) => Action::List { key, values },
            Object::Register(key) => Action::Register {
                key,
                version: self.count(object, place),
                value: values.last().copied().unwrap_or(0),
            },
        }
    }
}

fn promises(history: &History) -> BTreeSet<Promise> {
    check(history).iter().map(|found| found.promise).collect()
}

#[test]
fn a_store_that_keeps_its_promises_is_not_blamed() {
    for level in [Level::Eventual, Level::Session, Level::Strong] {
        for seed in 0..SEEDS {
            let history = simulate(seed, level);
            let violations = check(&history);
            let broken =
                (violations.iter()).find(|found| level.promises().contains(&found.promise));
            assert!(
                broken.is_none(),
                "{level}, SEED={seed}: {}",
                broken.unwrap()
            );
        }
    }
}

#[test]
fn a_weaker_level_is_found_to_be_weaker() {
    let found = |level| -> BTreeSet<Promise> {
        (0..SEEDS)
            .flat_map(|seed| promises(&simulate(seed, level)))
            .collect()
    };
    let session = found(Level::Session);
    assert_eq!(session, BTreeSet::from([Promise::RealTime]));
    let eventual = found(Level::Eventual);
    let wanted = [
        Promise::ReadYourWrites,
        Promise::MonotonicReads,
        Promise::RealTime,
    ];
    assert_eq!(eventual, BTreeSet::from(wanted));
}

/// Something that is done to a history; returns which promise is broken by it, or nothing where there was no room for it.
type Spoil = fn(&mut History, &mut Rng) -> Option<Promise>;

/// Returns an acknowledged append, by its place in the history, with its list.
fn acknowledged_append(history: &History, rng: &mut Rng) -> Option<(usize, u32, Value)> {
    let appends: Vec<_> = (history.operations.iter().enumerate())
        .filter_map(|(index, operation)| match operation.action {
            Action::Append { key, value } if operation.outcome == Outcome::Ok => {
                Some((index, key, value))
            }
            _ => None,
        })
        .collect();
    rng.pick(&appends).copied()
}

/// Changes every read of a list, the last too.
fn change_list(history: &mut History, list: u32, change: impl Fn(&mut Vec<Value>)) {
    let actions = history
        .operations
        .iter_mut()
        .map(|operation| &mut operation.action);
    for action in actions.chain(&mut history.last) {
        if let Action::List { key, values } = action
            && *key == list
        {
            change(values);
        }
    }
}

fn lost(history: &mut History, rng: &mut Rng) -> Option<Promise> {
    let (_, key, value) = acknowledged_append(history, rng)?;
    change_list(history, key, |values| values.retain(|v| *v != value));
    Some(Promise::NothingLost)
}

fn doubled(history: &mut History, rng: &mut Rng) -> Option<Promise> {
    let (_, list, value) = acknowledged_append(history, rng)?;
    for action in &mut history.last {
        if let Action::List { key, values } = action
            && *key == list
        {
            values.push(value);
        }
    }
    Some(Promise::NothingTwice)
}

fn stale(history: &mut History, rng: &mut Rng) -> Option<Promise> {
    let (index, list, value) = acknowledged_append(history, rng)?;
    let session = history.operations[index].session;
    let later = &mut history.operations[index + 1..];
    let read = later
        .iter_mut()
        .find_map(|operation| match &mut operation.action {
            Action::List { key, values } if operation.session == session && *key == list => {
                Some(values)
            }
            _ => None,
        })?;
    let place = read.iter().position(|v| *v == value)?;
    read.truncate(place);
    Some(Promise::ReadYourWrites)
}

fn older_than_read(history: &mut History, rng: &mut Rng) -> Option<Promise> {
    let mut longest: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    let mut reads = Vec::new();
    for (index, operation) in history.operations.iter().enumerate() {
        if let Action::List { key, values } = &operation.action {
            let longest = longest.entry((operation.session, *key)).or_default();
            if *longest > 0 {
                reads.push((index, *longest - 1));
            }
            *longest = values.len().max(*longest);
        }
    }
    let (index, length) = *rng.pick(&reads)?;
    if let Action::List { values, .. } = &mut history.operations[index].action {
        values.truncate(length);
    }
    Some(Promise::MonotonicReads)
}

fn swapped_in_one_read(history: &mut History, rng: &mut Rng) -> Option<Promise> {
    let mut reads: Vec<_> = (history.operations.iter_mut())
        .filter_map(|operation| match &mut operation.action {
            Action::List { values, .. } if values.len() > 1 => Some(values),
            _ => None,
        })
        .collect();
    let count = reads.len();
    let values = reads.get_mut(rng.below(count))?;
    let place = rng.below(values.len() - 1);
    values.swap(place, place + 1);
    Some(Promise::OneOrder)
}

fn swapped_everywhere(history: &mut History, rng: &mut Rng) -> Option<Promise> {
    let (index, list, first) = acknowledged_append(history, rng)?;
    let session = history.operations[index].session;
    let second = (history.operations[index + 1..].iter()).find_map(|later| match later.action {
        Action::Append { key, value }
            if key == list && later.session == session && later.outcome == Outcome::Ok =>
        {
            Some(value)
        }
        _ => None,
    })?;
    change_list(history, list, |values| {
        for value in values {
            *value = match *value {
                value if value == first => second,
                value if value == second => first,
                value => value,
            };
        }
    });
    Some(Promise::MonotonicWrites)
}

fn overwritten(history: &mut History, rng: &mut Rng) -> Option<Promise> {
    let mut writes: BTreeMap<(u32, u64), &mut u64> = BTreeMap::new();
    for operation in &mut history.operations {
        if let Action::Write {
            key,
            version: Some(version),
            ..
        } = &mut operation.action
        {
            writes.insert((*key, *version), version);
        }
    }
    let others: Vec<_> = (writes.keys().copied())
        .filter(|(key, version)| writes.contains_key(&(*key, version - 1)))
        .collect();
    // As if the write before it had been lost.
    **writes.get_mut(rng.pick(&others)?)? -= 1;
    Some(Promise::OneOrder)
}

#[test]
fn whatever_is_spoilt_is_found() {
    let spoils: [(&str, Spoil); 7] = [
        ("lost", lost),
        ("doubled", doubled),
        ("stale", stale),
        ("older than read", older_than_read),
        ("swapped in one read", swapped_in_one_read),
        ("swapped everywhere", swapped_everywhere),
        ("overwritten", overwritten),
    ];
    for (name, spoil) in spoils {
        let mut spoilt = 0;
        for seed in 0..SEEDS {
            let mut history = simulate(seed, Level::Strong);
            let Some(wanted) = spoil(&mut history, &mut Rng::new(seed)) else {
                continue;
            };
            spoilt += 1;
            let found = promises(&history);
            assert!(found.contains(&wanted), "{name}, SEED={seed}: {found:?}");
        }
        assert!(spoilt > SEEDS / 4, "{name}: hardly ever");
    }
}
