//! Consistency under faults: many sessions write and read registers and lists through the proxy while its servers are
//! delayed, stopped, killed, frozen, cut off and promoted; [`pgweir_testkit::history`] says which promises were broken.
//!
//! A run prints its seed, what the nemesis did and when, how often each error was seen by clients and why that one is allowed,
//! and, where a promise is broken, the few operations that show it. `SEED=` repeats the choices of a run, as far as real
//! servers repeat theirs. Twenty runs of a minute of each level, with every fault in each:
//!
//! ```text
//! CONSISTENCY_RUNS=20 CONSISTENCY_SECONDS=60 cargo test -p pgweir-tests --test it -- --nocapture --test-threads=1 consistency::
//! ```
//!
//! ## Why
//! - Commits are synchronous ([`pgweir_devcluster::Cluster::commit_synchronously`]) and the replica that has received most is
//!   promoted, so that no acknowledged write may be lost, whoever dies.
//! - Each operation has a deadline, and when all faults are healed the proxy must serve writes and all replicas must take
//!   reads again, and agree.
//! - The same sessions at `eventual` on delayed replicas must be caught not reading their own writes: otherwise the rest
//!   would prove nothing.
//!
//! ## Limits
//! A read of a transaction that began on a replica is held to what had been acknowledged when the transaction first read.

use std::time::Duration;

use pgweir_testkit::Rng;
use pgweir_testkit::history::{Level, Promise};

mod client;
mod nemesis;
mod run;
mod stage;
mod tally;

use run::{Findings, Run};

/// Runs a level as often and as long as the environment says; gives what each run found, run by run.
fn runs(level: Level, seconds: u64, faults: nemesis::Faults) -> impl Iterator<Item = Findings> {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect(name))
    };
    let time = Duration::from_secs(number("CONSISTENCY_SECONDS", seconds));
    let count = usize::try_from(number("CONSISTENCY_RUNS", 1)).expect("CONSISTENCY_RUNS fits");
    Rng::seeds_from_env(count).map(move |seed| Run::new(level, seed).go(time, faults))
}

#[test]
fn eventual_reads_on_delayed_replicas_are_found_not_to_show_a_sessions_own_writes() {
    for findings in runs(Level::Eventual, 6, nemesis::Faults::Delays) {
        findings.check();
        for promise in [Promise::ReadYourWrites, Promise::MonotonicReads] {
            let count = findings.count(promise);
            assert!(count > 0, "the checker has not found {promise:?} broken");
        }
    }
}

#[test]
fn eventual_reads_are_of_states_that_were_whatever_happens_to_the_servers() {
    for findings in runs(Level::Eventual, 8, nemesis::Faults::All) {
        findings.check();
    }
}

#[test]
fn a_session_sees_its_writes_and_never_an_older_state_whatever_happens_to_the_servers() {
    for findings in runs(Level::Session, 10, nemesis::Faults::All) {
        findings.check();
        findings.check_replicas_were_used();
    }
}

#[test]
fn strong_reads_see_every_write_acknowledged_before_whatever_happens_to_the_servers() {
    for findings in runs(Level::Strong, 10, nemesis::Faults::All) {
        findings.check();
        findings.check_replicas_were_used();
    }
}
