//! What each session must see, and what everybody must: comparisons of places in the order of the objects.

use std::collections::BTreeMap;
use std::time::Duration;

use super::order::Order;
use super::{Action, History, Object, Operation, Outcome, Promise, Violation};

/// Reports what the sessions saw and did out of order.
pub(super) fn check<'a>(history: &'a History, order: &Order) -> Vec<Violation<'a>> {
    let acknowledged = Acknowledged::of(history, order);
    let mut sessions: BTreeMap<u32, Session<'a>> = BTreeMap::new();
    let mut violations = Vec::new();
    for (index, operation) in history.operations.iter().enumerate() {
        let Some(place) = order
            .place(index)
            .filter(|_| operation.outcome == Outcome::Ok)
        else {
            continue;
        };
        let session = sessions.entry(operation.session).or_default();
        let done = Done { operation, place };
        if operation.action.written().is_some() {
            violations.extend(session.write(done));
        } else {
            violations.extend(session.read(done, &acknowledged));
        }
        violations.extend(acknowledged.real_time(done));
        session.learn(done, history, order);
    }
    violations
}

/// An operation that was acknowledged, with its place.
#[derive(Clone, Copy)]
struct Done<'a> {
    operation: &'a Operation,
    place: u64,
}

impl Done<'_> {
    fn object(self) -> Object {
        self.operation.action.object()
    }
}

/// The acknowledged writes of each object in the order of their acknowledgements; the place is the highest so far.
struct Acknowledged<'a>(BTreeMap<Object, Vec<Done<'a>>>);

impl<'a> Acknowledged<'a> {
    fn of(history: &'a History, order: &Order) -> Self {
        let mut objects: BTreeMap<Object, Vec<Done<'a>>> = BTreeMap::new();
        for (index, operation) in history.operations.iter().enumerate() {
            let is_write = operation.action.written().is_some() && operation.outcome == Outcome::Ok;
            if let Some(place) = order.place(index).filter(|_| is_write) {
                let writes = objects.entry(operation.action.object()).or_default();
                writes.push(Done { operation, place });
            }
        }
        for writes in objects.values_mut() {
            writes.sort_by_key(|write| write.operation.completed_at);
            let mut highest: Option<Done<'a>> = None;
            for write in writes {
                match highest {
                    Some(above) if above.place > write.place => *write = above,
                    _ => highest = Some(*write),
                }
            }
        }
        Self(objects)
    }

    /// Returns the latest write of an object that had been acknowledged before a moment.
    fn before(&self, object: Object, moment: Duration) -> Option<Done<'a>> {
        let writes = self.0.get(&object)?;
        let count = writes.partition_point(|write| write.operation.completed_at < moment);
        // Where a later acknowledgement has a lower place, the higher one stands in its stead: it came earlier.
        writes.get(count.checked_sub(1)?).copied()
    }

    fn real_time(&self, done: Done<'a>) -> Option<Violation<'a>> {
        let before = self.before(done.object(), done.operation.invoked_at)?;
        let is_broken = match done.operation.action {
            Action::Append { .. } | Action::Write { .. } => done.place <= before.place,
            Action::List { .. } | Action::Register { .. } => done.place < before.place,
        };
        let what = "an operation began after a write was acknowledged, and stands before it";
        is_broken.then(|| violation(Promise::RealTime, what, &[before, done]))
    }
}

/// What a session has done and seen so far.
#[derive(Default)]
struct Session<'a> {
    /// Its acknowledged writes, per object, the one with the highest place that each moment knows.
    writes: BTreeMap<Object, Vec<Done<'a>>>,
    /// Its read with the highest place, per object.
    reads: BTreeMap<Object, Done<'a>>,
    /// It has seen a state in which all had happened that was acknowledged before this write began; and the operation that
    /// saw it.
    seen: Option<(&'a Operation, Done<'a>)>,
}

impl<'a> Session<'a> {
    fn write(&self, done: Done<'a>) -> Option<Violation<'a>> {
        let earlier = self.own_write(done)?;
        let what = "a session's writes took place the other way round";
        (done.place <= earlier.place)
            .then(|| violation(Promise::MonotonicWrites, what, &[earlier, done]))
    }

    fn read(&self, done: Done<'a>, acknowledged: &Acknowledged<'a>) -> Vec<Violation<'a>> {
        let mut found = Vec::new();
        if let Some(own) = self.own_write(done)
            && done.place < own.place
        {
            let what = "a read does not show what its session wrote before";
            found.push(violation(Promise::ReadYourWrites, what, &[own, done]));
        }
        if let Some(earlier) = self.reads.get(&done.object())
            && done.place < earlier.place
        {
            found.push(older(*earlier, done, acknowledged));
        } else if let Some((seen, through)) = self.seen
            && let Some(write) = acknowledged.before(done.object(), seen.invoked_at)
            && done.place < write.place
        {
            let what = "a read lacks a write that was acknowledged before another one began that its session has seen";
            let operations = vec![write.operation, seen, through.operation, done.operation];
            let violation = Violation::new(Promise::MonotonicReads, what.to_owned(), operations);
            found.push(violation);
        }
        found
    }

    /// Returns the session's last write of the same object, of those that it was told of before the operation.
    fn own_write(&self, done: Done<'a>) -> Option<Done<'a>> {
        let writes = self.writes.get(&done.object())?;
        let invoked_at = done.operation.invoked_at;
        let told = (writes.iter().rev()).find(|own| own.operation.completed_at <= invoked_at);
        told.copied()
    }

    fn learn(&mut self, done: Done<'a>, history: &'a History, order: &Order) {
        let object = done.object();
        let highest = |other: Option<&Done<'a>>| other.is_none_or(|other| other.place < done.place);
        let seen = match &done.operation.action {
            Action::Append { value, .. } | Action::Write { value, .. } => {
                let writes = self.writes.entry(object).or_default();
                if highest(writes.last()) {
                    writes.push(done);
                }
                Some(*value)
            }
            Action::List { values, .. } => {
                if highest(self.reads.get(&object)) {
                    self.reads.insert(object, done);
                }
                values.last().copied()
            }
            Action::Register { value, .. } => {
                if highest(self.reads.get(&object)) {
                    self.reads.insert(object, done);
                }
                Some(*value)
            }
        };
        let writer = seen
            .and_then(|value| order.writer(object, value))
            .and_then(|index| history.operations.get(index));
        if let Some(writer) = writer
            && (self.seen).is_none_or(|(seen, _)| seen.invoked_at < writer.invoked_at)
        {
            self.seen = Some((writer, done));
        }
    }
}

/// Tells whether what was seen first had been acknowledged to anybody: a replica may show a commit before the primary does,
/// which first waits for the replicas.
fn older<'a>(earlier: Done<'a>, done: Done<'a>, acknowledged: &Acknowledged<'a>) -> Violation<'a> {
    let write = acknowledged.before(done.object(), done.operation.invoked_at);
    let lacks_acknowledged = write.is_some_and(|write| write.place > done.place);
    let went_to_primary = done.operation.is_on_primary && !earlier.operation.is_on_primary;
    let (promise, what) = match (lacks_acknowledged, went_to_primary) {
        (true, _) => (
            Promise::MonotonicReads,
            "a read shows an older state than its session has read before",
        ),
        (false, false) => (
            Promise::MonotonicReads,
            "a read shows an older state than its session has read before, by what nobody was told of when it began",
        ),
        (false, true) => (
            Promise::PrimaryIsAhead,
            "the primary does not show yet what a replica has shown, and nobody was told of",
        ),
    };
    violation(promise, what, &[earlier, done])
}

fn violation<'a>(promise: Promise, what: &str, done: &[Done<'a>]) -> Violation<'a> {
    let operations = done.iter().map(|done| done.operation).collect();
    Violation::new(promise, what.to_owned(), operations)
}
