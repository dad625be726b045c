//! The monitor's thread: a task per node asks, one task judges and publishes.
//!
//! ## Why
//! - The primary is asked every `lag_poll`; its answer wakes the others, so that a replica is always asked just after a
//!   sample and shows its lag against it. Without a primary they ask on their own.
//! - A poke brings the next question forward. Pokes are coalesced: what comes while a question is on its way is answered
//!   by the one after it. While a replica has not replayed what was sampled for a poke, it is asked again at once.
//! - A snapshot is published for every answer and at every tick, each with its end: a monitor that stalls does not leave
//!   a fresh-looking one behind.
//!
//! - While a session waits for a replica, the servers are asked as fast as they answer, within `HURRIED`. Where it waits for
//!   what the primary has not flushed, that is brought about (`flush.rs`).
//!
//! ## Limits
//! A node is asked one question at a time: at most every 10 ms, and every 2 ms while a session waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use deadpool_postgres::Pool;
use pgweir_model::{Lsn, Role};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::catalog::{self, Catalogs};
use crate::connection;
use crate::error::{ProbeError, StartError};
use crate::event::Sink;
use crate::flush::Unflushed;
use crate::handle::{Handle, Shared};
use crate::judge::Judge;
use crate::probe::{self, Observation, probe};
use crate::record::Records;
use crate::settings::Settings;
use crate::signals::{Pace, Signals, Urgency};

/// The least time between two questions to one node.
///
/// Chosen: a question costs each side some 100 us, so at most one percent of a core per server under a flood of writes;
/// a session that reads its own write waits that long for a replica at the least when there are others.
const SPACING: Duration = Duration::from_millis(10);

/// The least time between two questions to one node while a session waits for the answer.
///
/// Chosen: a replica replays a commit within a millisecond or two of it, so that a wait usually ends with the first or second
/// question; each is shared by all who wait.
const HURRIED: Duration = Duration::from_millis(2);

/// How often a replica is asked again for one poke: about 150 ms, then the ticks go on.
const CATCH_UP_TRIES: u32 = 15;

/// The wait after the first failure; it doubles with each.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);

/// The longest wait after a failure: a server that is back takes part again this soon at the latest.
const BACKOFF_LONGEST: Duration = Duration::from_secs(2);

/// The least wait after a failure, when the data path reports failures of its own.
const BACKOFF_LEAST: Duration = Duration::from_millis(50);

/// Answers that may wait for the judge; each node has at most one on its way.
const REPORTS: usize = 64;

/// Starts monitors.
#[derive(Debug)]
pub struct Monitor;

impl Monitor {
    /// Starts watching a cluster, on a thread of its own, and returns at once: the first snapshot knows nothing yet.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start(settings: Settings) -> Result<Handle, StartError> {
        Monitor::start_telling(settings, Sink::default())
    }

    /// Likewise, and tells of what happens to the servers.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start_telling(settings: Settings, sink: Sink) -> Result<Handle, StartError> {
        let settings = Arc::new(settings);
        let pools = settings
            .nodes
            .iter()
            .map(|node| connection::pool(&settings, node))
            .collect::<Result<Vec<_>, _>>()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Runtime)?;
        let mut judge = Judge::new(Arc::clone(&settings));
        let mut unseen = judge.snapshot(Instant::now());
        unseen.version = 0;
        let shared = Arc::new(Shared {
            topology: Arc::new(ArcSwap::from_pointee(unseen)),
            version: watch::Sender::new(0),
            poked: AtomicBool::new(false),
            poke: Notify::new(),
            waiting: AtomicUsize::new(0),
            settling: AtomicBool::new(false),
            signals: settings.nodes.iter().map(|_| Signals::default()).collect(),
            records: Records::new(settings.nodes.len()),
            sink,
            settings: watch::Sender::new(settings),
            catalogs: Catalogs::default(),
            stop: watch::Sender::new(false),
        });
        catalog::start(&shared)?;
        let mut stop = shared.stop.subscribe();
        let work = run(Arc::clone(&shared), judge, pools);
        let thread = std::thread::Builder::new().name("pgweir-control".to_owned());
        let started = thread.spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = work => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
            });
            // A name lookup may hang; nobody waits for it any more.
            runtime.shutdown_background();
        });
        if let Err(error) = started {
            shared.stop.send_replace(true);
            return Err(StartError::Thread(error));
        }
        Ok(Handle::new(shared))
    }
}

/// What a node's task found.
struct Report {
    node: usize,
    found: Result<Observation, ProbeError>,
}

/// What the replicas are asked again for.
#[derive(Default)]
struct CatchUp {
    /// A poke has come, and no sample that was sent after it.
    awaits_sample: bool,
    target: Option<Lsn>,
    tries: Vec<u32>,
    unflushed: Unflushed,
}

impl Shared {
    fn urgency(&self) -> Urgency {
        match self.waiting.load(Ordering::Acquire) {
            0 => Urgency::Usual,
            _ => Urgency::Waited,
        }
    }
}

async fn run(shared: Arc<Shared>, mut judge: Judge, pools: Vec<Pool>) {
    let (sender, mut reports) = mpsc::channel(REPORTS);
    let mut watchers = JoinSet::new();
    for (node, pool) in pools.into_iter().enumerate() {
        watchers.spawn(watch_node(node, pool, Arc::clone(&shared), sender.clone()));
    }
    let mut settings = shared.settings.subscribe();
    let mut tick = ticks(settings.borrow_and_update().lag_poll);
    let mut catch_up = CatchUp {
        tries: vec![0; shared.signals.len()],
        ..CatchUp::default()
    };
    loop {
        tokio::select! {
            Some(report) = reports.recv() => {
                let node = report.node;
                if judge.primary() != Some(node) {
                    shared.settling.store(false, Ordering::Release);
                }
                match report.found {
                    Ok(answer) => judge.on_answer(node, answer),
                    Err(error) => {
                        shared.records.on_failure(node, &error);
                        judge.on_failure(node, error, Instant::now());
                    }
                }
                wake_others(&shared, &judge, node, &mut catch_up);
            }
            () = shared.poke.notified() => {
                // Cleared before the question is sent: a poke from here on asks for another.
                shared.poked.store(false, Ordering::Release);
                catch_up.awaits_sample = true;
                if let Some(primary) = judge.primary().and_then(|primary| shared.signals.get(primary)) {
                    primary.ask(shared.urgency());
                }
                continue;
            }
            Ok(()) = settings.changed() => {
                let settings = Arc::clone(&settings.borrow_and_update());
                if settings.lag_poll != judge.lag_poll() {
                    tick = ticks(settings.lag_poll);
                    // Or each would be asked when the old period is over, which may have been a long one.
                    shared.signals.iter().for_each(|signals| signals.ask(Urgency::Waited));
                }
                judge.reconfigure(settings);
            }
            _ = tick.tick() => {}
        }
        take_signals(&shared, &mut judge);
        publish(&shared, &mut judge);
        let events = judge.take_events();
        let settings = shared.settings.borrow();
        for event in &events {
            event.log(&settings);
            shared.records.on_event(event, SystemTime::now());
            shared.sink.tell(event.told(&settings));
        }
    }
}

/// Takes what the data path says of the servers.
fn take_signals(shared: &Shared, judge: &mut Judge) {
    let now = Instant::now();
    for (node, signals) in shared.signals.iter().enumerate() {
        let (failures, succeeded) = signals.take();
        judge.on_signals(node, failures, succeeded, now);
        signals.suspect(judge.is_suspect(node));
    }
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(period.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn publish(shared: &Shared, judge: &mut Judge) {
    let topology = judge.snapshot(Instant::now());
    let version = topology.version;
    shared.topology.store(Arc::new(topology));
    shared.version.send_replace(version);
}

/// After an answer of the primary everyone else is asked; a replica that still lacks what a poke was for is asked again.
fn wake_others(shared: &Shared, judge: &Judge, reporter: usize, catch_up: &mut CatchUp) {
    let urgency = shared.urgency();
    if judge.primary() == Some(reporter) {
        if std::mem::take(&mut catch_up.awaits_sample) {
            catch_up.target = judge.newest_position();
            catch_up.tries.fill(0);
        }
        let flushed = judge.newest_flushed();
        if flushed.is_some_and(|flushed| {
            (catch_up.unflushed).is_due(flushed, catch_up.target, Instant::now())
        }) && let Some(primary) = shared.signals.get(reporter)
        {
            primary.flush();
        }
        let others = shared
            .signals
            .iter()
            .enumerate()
            .filter(|(node, _)| *node != reporter);
        // One that is down has a pace of its own.
        let others = others.filter(|(node, _)| !judge.is_down(*node));
        others.for_each(|(_, signals)| signals.ask(urgency));
    } else if let (Some(target), Some(tries)) = (catch_up.target, catch_up.tries.get_mut(reporter))
        && *tries < CATCH_UP_TRIES
        && judge.is_behind(reporter, target)
        && let Some(signals) = shared.signals.get(reporter)
    {
        *tries += 1;
        signals.ask(urgency);
    }
}

/// Asks one node for ever.
async fn watch_node(
    node: usize,
    mut pool: Pool,
    shared: Arc<Shared>,
    reports: mpsc::Sender<Report>,
) {
    let Some(signals) = shared.signals.get(node) else {
        return;
    };
    let mut backoff = BACKOFF_FIRST;
    let mut password = shared.settings.borrow().password.clone();
    loop {
        let settings = Arc::clone(&shared.settings.borrow());
        if settings.password != password {
            password.clone_from(&settings.password);
            // Connections that are there are not asked for it again; new ones are made with the new one.
            let made = settings
                .nodes
                .get(node)
                .map(|of| connection::pool(&settings, of));
            if let Some(Ok(made)) = made {
                pool = made;
            }
        }
        if signals.take_flush() {
            probe::flush(&pool).await;
        }
        let started_at = tokio::time::Instant::now();
        let found = probe(&pool, &settings).await;
        let pace = match &found {
            Ok(answer) => {
                backoff = BACKOFF_FIRST;
                // The primary's answer wakes a replica first; half a poll more keeps the two from asking twice.
                let period = if answer.role == Role::Primary {
                    settings.lag_poll
                } else {
                    settings.lag_poll * 3 / 2
                };
                Pace {
                    hurried: HURRIED.min(period),
                    usual: SPACING.min(period),
                    longest: period,
                }
            }
            Err(_) => {
                let longest = backoff;
                backoff = (backoff * 2).min(BACKOFF_LONGEST);
                Pace {
                    hurried: BACKOFF_LEAST,
                    usual: BACKOFF_LEAST,
                    longest,
                }
            }
        };
        let failed_at = found.is_err().then(tokio::time::Instant::now);
        if reports.send(Report { node, found }).await.is_err() {
            return;
        }
        // A failure may have taken its whole timeout: the wait begins behind it.
        let from = failed_at.unwrap_or(started_at);
        signals.until_due(from, pace).await;
    }
}
