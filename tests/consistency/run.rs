//! One run: sessions and the nemesis side by side, then quiet, and the judgement.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use pgweir_testkit::{
    Rng,
    history::{self, History, Level, Operation, Promise},
};

use super::{
    client,
    nemesis::{Faults, Log, Nemesis},
    stage::Stage,
    tally::{Doing, Tally},
};

/// Clients at one time; each is a session after another.
const CLIENTS: u32 = 8;

/// From the last fault healed to a proxy that serves everything, and replicas that have replayed everything. An old server
/// that was rebuilt counts as new, and comes to its full weight over seconds.
const RECOVERY: Duration = Duration::from_secs(60);

/// Violations of one promise that are told in full.
const SHOWN: usize = 3;

/// What the sessions share.
pub(super) struct Run {
    level: Level,
    seed: u64,
    pub(super) stage: Stage,
    began_at: Instant,
    is_over: AtomicBool,
    sessions: AtomicU32,
    /// Appends so far; they decide which lists are in use.
    pub(super) appends: AtomicU32,
    operations: Mutex<Vec<Operation>>,
    tally: Mutex<Tally>,
    hangs: Mutex<Vec<String>>,
}

impl Run {
    pub(super) fn new(level: Level, seed: u64) -> Self {
        Self {
            level,
            seed,
            stage: Stage::new(),
            began_at: Instant::now(),
            is_over: AtomicBool::new(false),
            sessions: AtomicU32::new(0),
            appends: AtomicU32::new(0),
            operations: Mutex::default(),
            tally: Mutex::default(),
            hangs: Mutex::default(),
        }
    }

    pub(super) fn level(&self) -> Level {
        self.level
    }

    pub(super) fn now(&self) -> Duration {
        self.began_at.elapsed()
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    pub(super) fn next_session(&self) -> u32 {
        self.sessions.fetch_add(1, Ordering::SeqCst)
    }

    pub(super) fn record(&self, operation: Operation) {
        lock(&self.operations).push(operation);
    }

    pub(super) fn count_error(&self, doing: Doing, code: &str, text: &str) {
        lock(&self.tally).count(doing, code, text);
    }

    /// Notes an operation that has not ended by its deadline.
    pub(super) fn hangs(&self, what: String) {
        lock(&self.hangs).push(format!("at {:.1?}: {what}", self.now()));
    }

    /// Plays the run to its end.
    pub(super) fn go(self, time: Duration, faults: Faults) -> Findings {
        let mut rng = Rng::new(self.seed);
        let rngs = (0..CLIENTS).map(|_| rng.fork()).collect();
        let (nemesis, alive) = Nemesis::new(&self.stage, rng.fork(), self.began_at);
        let (log, played) = thread::scope(|scope| {
            let clients = scope.spawn(|| {
                let _alive = alive;
                client::live(&self, rngs)
            });
            let over = Over(&self.is_over);
            let played = nemesis.play(faults, time);
            let _served = self.stage_recovers();
            drop(over);
            clients.join().expect("the clients do not panic");
            played
        });
        let mut problems: Vec<String> = played.err().iter().map(ToString::to_string).collect();
        problems.extend(self.quiet());
        self.findings(log, problems)
    }

    /// Waits, with the sessions going on, until everything is served again.
    fn stage_recovers(&self) -> bool {
        pgweir_testkit::patience::wait_until(RECOVERY, || self.stage.is_available())
    }

    /// Waits until everything is at rest; returns what does not come to it.
    fn quiet(&self) -> Vec<String> {
        let stage = &self.stage;
        let mut problems = Vec::new();
        let mut want = |holds: bool, what: &str| {
            if !holds {
                problems.push(format!("{what} within {RECOVERY:?} of the last fault"));
            }
        };
        want(
            self.stage_recovers(),
            "the proxy does not take writes, and reads to each replica,",
        );
        let is_idle = pgweir_testkit::patience::wait_until(RECOVERY, || stage.is_idle());
        want(is_idle, "statements of the sessions have not ended");
        let caught_up = stage.cluster.wait_caught_up(RECOVERY);
        want(caught_up.is_ok(), "the replicas have not caught up");
        let nodes = 0..stage.cluster.nodes().len();
        let mut states = nodes.map(|node| stage.state(node));
        let first = states.next();
        want(
            states.all(|state| Some(state) == first),
            "the servers do not agree",
        );
        problems
    }

    fn findings(self, log: Log, mut problems: Vec<String>) -> Findings {
        let take =
            |mutex: Mutex<Vec<String>>| mutex.into_inner().unwrap_or_else(PoisonError::into_inner);
        let operations = self.operations.into_inner();
        let primary = self.stage.cluster.primary().name();
        let nodes = self.stage.cluster.nodes();
        let primary = nodes.iter().position(|node| node.name() == primary);
        let history = History {
            operations: operations.unwrap_or_else(PoisonError::into_inner),
            last: self.stage.state(primary.unwrap_or_default()),
        };
        let tally = lock(&self.tally);
        problems.extend(
            take(self.hangs)
                .into_iter()
                .map(|hang| format!("hangs {hang}")),
        );
        problems.extend(tally.unwanted());
        let findings = Findings {
            level: self.level,
            seed: self.seed,
            history,
            log,
            problems,
            tally: tally.to_string(),
        };
        report(&findings.summary());
        findings
    }
}

/// Ends the sessions when the nemesis panics, too.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a run did is shown where it failed, and where `--nocapture` asks for it.
fn report(text: &str) {
    eprintln!("{text}");
}

/// What a run has brought to light.
pub(super) struct Findings {
    level: Level,
    seed: u64,
    history: History,
    log: Log,
    /// Hangs, errors that nobody may see, and what did not recover.
    problems: Vec<String>,
    tally: String,
}

impl Findings {
    /// Returns how often a promise was broken, whether the level gives it or not.
    pub(super) fn count(&self, promise: Promise) -> usize {
        let violations = history::check(&self.history);
        violations.iter().filter(|v| v.promise == promise).count()
    }

    /// Asserts that the run broke nothing that its level promises, and that nobody hung or saw what nobody may see.
    pub(super) fn check(&self) {
        let violations = history::check(&self.history);
        let mut counts: BTreeMap<Promise, usize> = BTreeMap::new();
        let mut told = String::new();
        let mut is_broken = false;
        for violation in &violations {
            let promise = violation.promise;
            let count = counts.entry(promise).or_default();
            *count += 1;
            if !self.level.promises().contains(&promise) {
                continue;
            }
            is_broken = true;
            if *count <= SHOWN {
                let _infallible = write!(told, "\n{violation}");
            }
        }
        report(&format!("broken, all levels: {counts:?}{told}"));
        assert!(
            !is_broken && self.problems.is_empty(),
            "SEED={} at {}; what happened is above\n{}",
            self.seed,
            self.level,
            self.problems.join("\n"),
        );
    }

    /// Asserts that the promises were not kept by reading on the primary only.
    pub(super) fn check_replicas_were_used(&self) {
        let places = self.reads();
        let used = places.values().filter(|count| **count > 10).count();
        assert!(used > 1, "SEED={}: reads ran on {places:?}", self.seed);
    }

    /// Returns how many reads each server answered.
    fn reads(&self) -> BTreeMap<&str, usize> {
        let mut places = BTreeMap::new();
        for operation in &self.history.operations {
            if operation.action.written().is_none() {
                *places.entry(operation.place.as_str()).or_default() += 1;
            }
        }
        places
    }

    fn nemesis(&self) -> String {
        let lines = self
            .log
            .iter()
            .map(|(at, what)| format!("\n  {at:>9.3?} {what}"));
        format!(
            "\nnemesis (servers have the names that they began with):{}",
            lines.collect::<String>()
        )
    }

    fn summary(&self) -> String {
        let operations = &self.history.operations;
        let writes = operations
            .iter()
            .filter(|o| o.action.written().is_some())
            .count();
        let sessions = operations.iter().map(|o| o.session).max().unwrap_or(0) + 1;
        format!(
            "level {}, seed {}: {writes} writes, {} reads ({:?}), {sessions} sessions{}\n{}",
            self.level,
            self.seed,
            operations.len() - writes,
            self.reads(),
            self.nemesis(),
            self.tally
        )
    }
}
