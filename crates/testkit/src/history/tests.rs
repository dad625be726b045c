//! Histories made by hand: each broken promise is found, and what only looks odd is not taken for one.

use std::time::Duration;

use super::{Action, History, Level, Operation, Outcome, Promise, Value, check};

/// An operation of a session from one millisecond to another.
fn at(session: u32, from: u64, to: u64, action: Action) -> Operation {
    Operation {
        session,
        invoked_at: Duration::from_millis(from),
        completed_at: Duration::from_millis(to),
        outcome: Outcome::Ok,
        action,
        place: String::new(),
        is_on_primary: false,
    }
}

fn ended(outcome: Outcome, operation: Operation) -> Operation {
    Operation {
        outcome,
        ..operation
    }
}

/// An append to list 1.
fn append(value: Value) -> Action {
    Action::Append { key: 1, value }
}

/// A read of list 1.
fn list(values: &[Value]) -> Action {
    let values = values.to_vec();
    Action::List { key: 1, values }
}

/// A read of list 2.
fn other_list(values: &[Value]) -> Action {
    let values = values.to_vec();
    Action::List { key: 2, values }
}

fn write(value: Value, version: u64) -> Action {
    let version = Some(version);
    Action::Write {
        key: 1,
        value,
        version,
    }
}

fn register(version: u64, value: Value) -> Action {
    Action::Register {
        key: 1,
        version,
        value,
    }
}

/// Returns the broken promises, each as often as it was found.
fn broken(operations: &[Operation], last: &[Action]) -> Vec<Promise> {
    let history = History {
        operations: operations.to_vec(),
        last: last.to_vec(),
    };
    let mut promises: Vec<_> = check(&history).iter().map(|v| v.promise).collect();
    promises.sort();
    promises
}

const CLEAN: [Promise; 0] = [];

#[test]
fn sessions_that_read_what_was_written_break_nothing() {
    let operations = [
        at(1, 0, 1, append(11)),
        at(1, 2, 3, list(&[11])),
        at(2, 2, 4, append(21)),
        at(2, 5, 6, list(&[11, 21])),
        at(1, 7, 8, list(&[11, 21])),
        at(1, 9, 10, write(12, 1)),
        at(2, 11, 12, register(1, 12)),
    ];
    assert_eq!(
        broken(&operations, &[list(&[11, 21]), register(1, 12)]),
        CLEAN
    );
}

#[test]
fn an_object_that_nobody_wrote_is_empty() {
    let operations = [at(1, 0, 1, list(&[])), at(1, 2, 3, register(0, 0))];
    assert_eq!(broken(&operations, &[]), CLEAN);
    assert_eq!(broken(&operations, &[list(&[]), register(0, 0)]), CLEAN);
}

#[test]
fn operations_at_one_time_may_see_each_other_or_not() {
    let operations = [
        at(1, 0, 10, append(11)),
        at(2, 1, 2, list(&[])),
        at(3, 1, 2, list(&[11])),
        at(4, 3, 4, list(&[])),
    ];
    assert_eq!(broken(&operations, &[list(&[11])]), CLEAN);
}

#[test]
fn an_unknown_write_may_have_happened_late_or_never() {
    let unknown = ended(Outcome::Unknown, at(1, 0, 1, append(11)));
    let read = at(1, 2, 3, list(&[]));
    let seen = at(1, 4, 5, list(&[11]));
    assert_eq!(broken(&[unknown.clone(), read.clone()], &[]), CLEAN);
    assert_eq!(broken(&[unknown, read, seen], &[list(&[11])]), CLEAN);
    let unknown = Action::Write {
        key: 1,
        value: 12,
        version: None,
    };
    let unknown = ended(Outcome::Unknown, at(1, 0, 1, unknown));
    assert_eq!(broken(&[unknown], &[register(1, 12)]), CLEAN);
}

#[test]
fn a_failed_write_that_is_seen_is_invented() {
    let failed = ended(Outcome::Failed, at(1, 0, 1, append(11)));
    assert_eq!(broken(std::slice::from_ref(&failed), &[]), CLEAN);
    assert_eq!(
        broken(&[failed], &[list(&[11])]),
        [Promise::NothingInvented]
    );
}

#[test]
fn a_value_that_was_never_written_or_is_seen_too_early_is_invented() {
    assert_eq!(broken(&[], &[list(&[7])]), [Promise::NothingInvented]);
    assert_eq!(broken(&[], &[register(1, 7)]), [Promise::NothingInvented]);
    let early = [at(1, 0, 1, list(&[21])), at(2, 2, 3, append(21))];
    assert_eq!(broken(&early, &[list(&[21])]), [Promise::NothingInvented]);
}

#[test]
fn an_acknowledged_append_that_is_gone_at_the_end_is_lost() {
    let operations = [at(1, 0, 1, append(11))];
    assert_eq!(broken(&operations, &[]), [Promise::NothingLost]);
    assert_eq!(broken(&operations, &[list(&[])]), [Promise::NothingLost]);
}

#[test]
fn an_acknowledged_version_that_is_gone_or_taken_by_another_is_lost() {
    let operations = [at(1, 0, 1, write(11, 1)), at(1, 2, 3, write(12, 2))];
    assert_eq!(
        broken(&operations, &[register(1, 11)]),
        [Promise::NothingLost]
    );
    let taken = [at(1, 0, 1, write(11, 1)), at(2, 2, 3, write(21, 1))];
    assert_eq!(broken(&taken, &[register(1, 21)]), [Promise::OneOrder]);
}

#[test]
fn a_value_that_is_there_twice_is_found_in_lists_and_registers() {
    let operations = [at(1, 0, 1, append(11))];
    assert_eq!(
        broken(&operations, &[list(&[11, 11])]),
        [Promise::NothingTwice]
    );
    let operations = [at(1, 0, 1, append(11)), at(1, 2, 3, list(&[11, 11]))];
    assert_eq!(broken(&operations, &[list(&[11])]), [Promise::NothingTwice]);
    let operations = [at(1, 0, 1, write(11, 1))];
    assert_eq!(
        broken(&operations, &[register(2, 11)]),
        [Promise::NothingTwice]
    );
}

#[test]
fn a_read_that_is_no_beginning_of_the_list_is_out_of_order() {
    let writes = [at(1, 0, 9, append(11)), at(2, 0, 9, append(21))];
    for read in [&[21, 11][..], &[21]] {
        let mut operations = writes.to_vec();
        operations.push(at(3, 1, 10, list(read)));
        assert_eq!(
            broken(&operations, &[list(&[11, 21])]),
            [Promise::OneOrder],
            "{read:?}"
        );
    }
    let mut operations = writes.to_vec();
    operations.push(at(3, 1, 10, list(&[11, 21])));
    // What was seen and is gone was lost, too, where it was acknowledged.
    assert_eq!(
        broken(&operations, &[list(&[11])]),
        [Promise::OneOrder, Promise::NothingLost]
    );
}

#[test]
fn a_session_that_does_not_see_its_own_write_is_found() {
    let operations = [at(1, 0, 1, append(11)), at(1, 2, 3, list(&[]))];
    let found = [Promise::ReadYourWrites, Promise::RealTime];
    assert_eq!(broken(&operations, &[list(&[11])]), found);
    let operations = [at(1, 0, 1, write(11, 1)), at(1, 2, 3, register(0, 0))];
    assert_eq!(broken(&operations, &[register(1, 11)]), found);
}

#[test]
fn another_session_may_see_less_unless_the_level_is_strong() {
    let operations = [at(1, 0, 1, append(11)), at(2, 2, 3, list(&[]))];
    assert_eq!(broken(&operations, &[list(&[11])]), [Promise::RealTime]);
    assert!(!Level::Session.promises().contains(&Promise::RealTime));
    assert!(Level::Strong.promises().contains(&Promise::RealTime));
}

#[test]
fn a_session_that_sees_less_than_before_is_found() {
    let unknown = ended(Outcome::Unknown, at(1, 0, 1, append(11)));
    let operations = [
        unknown,
        at(2, 2, 3, list(&[11])),
        at(3, 4, 5, list(&[])),
        at(2, 6, 7, list(&[])),
    ];
    assert_eq!(
        broken(&operations, &[list(&[11])]),
        [Promise::MonotonicReads]
    );
}

#[test]
fn a_primary_that_shows_a_commit_later_than_its_replicas_is_told_apart() {
    let unknown = ended(Outcome::Unknown, at(1, 0, 9, append(11)));
    let mut later = at(2, 6, 7, list(&[]));
    later.is_on_primary = true;
    let operations = [unknown, at(2, 2, 3, list(&[11])), later.clone()];
    assert_eq!(
        broken(&operations, &[list(&[11])]),
        [Promise::PrimaryIsAhead]
    );
    // Whoever wrote it was told: the primary must show it.
    let told = [at(1, 0, 1, append(11)), at(2, 2, 3, list(&[11])), later];
    assert!(broken(&told, &[list(&[11])]).contains(&Promise::MonotonicReads));
}

#[test]
fn a_session_that_sees_less_of_one_object_than_another_shows_is_found() {
    let second = Action::Append { key: 2, value: 12 };
    let operations = [
        at(1, 0, 1, append(11)),
        ended(Outcome::Unknown, at(1, 2, 3, second)),
        at(2, 4, 5, other_list(&[12])),
        at(2, 6, 7, list(&[])),
    ];
    assert_eq!(
        broken(&operations, &[list(&[11]), other_list(&[12])]),
        [Promise::MonotonicReads, Promise::RealTime]
    );
}

#[test]
fn writes_of_a_session_that_took_place_the_other_way_round_are_found() {
    let operations = [at(1, 0, 1, append(11)), at(1, 2, 3, append(12))];
    let found = [Promise::MonotonicWrites, Promise::RealTime];
    assert_eq!(broken(&operations, &[list(&[12, 11])]), found);
    let operations = [at(1, 0, 1, write(11, 2)), at(1, 2, 3, write(12, 1))];
    assert_eq!(broken(&operations, &[register(2, 11)]), found);
}

#[test]
fn a_violation_is_told_with_its_operations() {
    let history = History {
        operations: vec![at(1, 0, 1, append(11)), at(1, 2, 3, list(&[]))],
        last: vec![list(&[11])],
    };
    let violations = check(&history);
    let text = violations.iter().map(ToString::to_string).next();
    assert_eq!(
        text.as_deref(),
        Some(
            "ReadYourWrites: a read does not show what its session wrote before\n       \
             0.000ns to    1.000ms session   1: append 11 to list 1\n       \
             2.000ms to    3.000ms session   1: read list 1: 0 values, []"
        )
    );
}
