//! The pool on real threads, each with its own runtime, under everything that can go wrong at once.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pgweir_pool::{Cap, Checkout, Granted, Lease, LocalPool, Permit, Settings, Shared};
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::task::{LocalSet, yield_now};
use tokio::time::timeout;

use super::{Link, Random, World, open, settings};

const THREADS: usize = 4;
const TASKS: usize = 500;
const CHECKOUTS: usize = 100;
/// Far more than a run takes; a waiter that is forgotten hits it.
const PATIENCE: Duration = Duration::from_secs(120);

struct Run {
    world: Arc<World>,
    /// One, or several under one cap.
    shared: Vec<Arc<Shared<Link>>>,
    notes: Arc<[Notify]>,
    finished: AtomicUsize,
    over: AtomicBool,
}

impl Run {
    fn new(settings: Settings, pools: usize, cap: Option<usize>) -> Arc<Run> {
        let notes: Arc<[Notify]> = (0..settings.threads).map(|_| Notify::new()).collect();
        let cap = Cap::new(cap);
        let pool = |_| {
            let bells = Arc::clone(&notes);
            let notifier = Box::new(move |thread: usize| bells[thread].notify_one());
            Shared::under(Arc::clone(&cap), settings, notifier)
        };
        let shared = (0..pools).map(pool).collect();
        let world = Arc::<World>::default();
        Arc::new(Run {
            world,
            shared,
            notes,
            finished: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        })
    }

    /// One worker: its tasks, and the one that serves when asked. Returns what is idle at the end.
    fn work(self: &Arc<Run>, thread: usize, chaos: bool) {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let local = LocalSet::new();
        let part = |shared: &Arc<Shared<Link>>| LocalPool::new(Arc::clone(shared), thread);
        let pools: Vec<_> = self.shared.iter().map(part).collect();
        for task in 0..TASKS {
            let (run, pool) = (Arc::clone(self), pools[task % pools.len()].clone());
            let random = Random::new(u64::try_from(thread * TASKS + task + 1).unwrap());
            local.spawn_local(async move {
                timeout(PATIENCE, run.client(&pool, random, chaos))
                    .await
                    .expect("a client starved");
                if run.finished.fetch_add(1, Ordering::SeqCst) + 1 == THREADS * TASKS {
                    run.over.store(true, Ordering::SeqCst);
                    run.notes.iter().for_each(Notify::notify_one);
                }
            });
        }
        let served = Rc::new(pools);
        runtime.block_on(local.run_until(async {
            while !self.over.load(Ordering::SeqCst) {
                timeout(PATIENCE, self.notes[thread].notified())
                    .await
                    .expect("the run hangs");
                served.iter().for_each(LocalPool::serve);
            }
        }));
    }

    async fn client(&self, pool: &LocalPool<Link>, mut random: Random, chaos: bool) {
        for _ in 0..CHECKOUTS {
            let lease = match pool.try_checkout(Instant::now()).unwrap() {
                Checkout::Ready(lease) => Some(lease),
                Checkout::Open(permit) => self.open(permit, &mut random, chaos).await,
                Checkout::Wait(waiting) if chaos && random.one_in(10) => {
                    // A client that goes away while it waits, or just when it is served.
                    let limit = Duration::from_micros(u64::try_from(random.below(2_000)).unwrap());
                    match timeout(limit, waiting).await {
                        Ok(granted) => self.accept(granted, &mut random, chaos).await,
                        Err(_elapsed) => None,
                    }
                }
                Checkout::Wait(waiting) => self.accept(waiting.await, &mut random, chaos).await,
            };
            let Some(lease) = lease else { continue };
            let in_use = Arc::strong_count(&lease.wire);
            assert_eq!(in_use, 1, "two hold one connection");
            for _ in 0..random.below(3) {
                yield_now().await;
            }
            match random.below(50) {
                0 if chaos => drop(lease),
                1 if chaos => {
                    lease.wire.dead.store(true, Ordering::SeqCst);
                    lease.checkin(Instant::now());
                }
                _ => lease.checkin(Instant::now()),
            }
            if random.one_in(4) {
                yield_now().await;
            }
        }
    }

    async fn accept(
        &self,
        granted: Granted<Link>,
        random: &mut Random,
        chaos: bool,
    ) -> Option<Lease<Link>> {
        match granted {
            Granted::Lease(lease) => Some(lease),
            Granted::Open(permit) => self.open(permit, random, chaos).await,
        }
    }

    async fn open(
        &self,
        permit: Permit<Link>,
        random: &mut Random,
        chaos: bool,
    ) -> Option<Lease<Link>> {
        yield_now().await;
        if chaos && random.one_in(10) {
            return None;
        }
        Some(permit.fulfil(open(&self.world), Instant::now()))
    }

    fn check_the_end(&self, limit: usize) {
        assert_eq!(self.finished.load(Ordering::SeqCst), THREADS * TASKS);
        let most = self.world.most.load(Ordering::SeqCst);
        assert!(most <= limit, "{most} connections at once");
        for shared in &self.shared {
            let stats = shared.stats();
            assert_eq!(
                (stats.open, stats.idle, stats.waiting),
                (0, 0, 0),
                "every place is back"
            );
            assert_eq!(shared.cap().open(), 0);
        }
        assert_eq!(self.world.live.load(Ordering::SeqCst), 0);
    }
}

fn run(settings: Settings, chaos: bool, meanwhile: impl Fn(&Run)) -> Arc<Run> {
    run_all(Run::new(settings, 1, None), chaos, meanwhile)
}

fn run_all(run: Arc<Run>, chaos: bool, meanwhile: impl Fn(&Run)) -> Arc<Run> {
    thread::scope(|scope| {
        for index in 0..THREADS {
            let run = Arc::clone(&run);
            thread::Builder::new()
                .name(format!("worker {index}"))
                .spawn_scoped(scope, move || run.work(index, chaos))
                .unwrap();
        }
        while !run.over.load(Ordering::SeqCst) && scope_is_alive(&run) {
            meanwhile(&run);
            thread::yield_now();
        }
    });
    run
}

/// A worker that panicked never sets `over`; its tasks' patience ends the others, and this the loop beside them.
fn scope_is_alive(run: &Run) -> bool {
    Arc::strong_count(&run.shared[0]) > 1
}

#[test]
fn two_thousand_clients_share_twenty_connections() {
    let run = run(
        Settings {
            overtaking: None,
            ..settings(THREADS, 20)
        },
        false,
        |_| {},
    );
    run.check_the_end(20);
    assert!(
        run.world.opened.load(Ordering::SeqCst) <= 20,
        "a clean run closes nothing"
    );
}

#[test]
fn strict_order_over_threads_works_too() {
    run(settings(THREADS, 3), false, |_| {}).check_the_end(3);
}

#[test]
fn nothing_is_lost_when_everything_goes_wrong() {
    let settings = Settings {
        overtaking: Some(5),
        ..settings(THREADS, 10)
    };
    let run = run(settings, true, |_| {});
    run.check_the_end(10);
}

#[test]
fn limits_and_generations_may_change_under_load() {
    let turn = AtomicUsize::new(0);
    let run = run(
        Settings {
            overtaking: None,
            ..settings(THREADS, 10)
        },
        true,
        |run| {
            let turn = turn.fetch_add(1, Ordering::Relaxed);
            if turn.is_multiple_of(64) {
                run.shared[0].set_limit(1 + (turn / 64) % 12);
            }
            if turn.is_multiple_of(1024) {
                run.shared[0].retire_all();
            }
        },
    );
    run.check_the_end(12);
}

#[test]
fn one_connection_serves_the_clients_of_all_threads() {
    let settings = Settings {
        overtaking: Some(1),
        ..settings(THREADS, 1)
    };
    run(settings, true, |_| {}).check_the_end(1);
}

#[test]
fn pools_under_one_cap_let_nobody_starve() {
    for (cap, chaos) in [(1, false), (5, true)] {
        let pools = Run::new(settings(THREADS, 4), 3, Some(cap));
        run_all(pools, chaos, |_| {}).check_the_end(cap);
    }
}

#[test]
fn a_cap_may_change_under_load() {
    let turn = AtomicUsize::new(0);
    let pools = Run::new(settings(THREADS, 4), 3, Some(3));
    let run = run_all(pools, true, |run| {
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        let cap = 1 + (turn / 64) % 12;
        if turn.is_multiple_of(64) {
            run.shared[0].cap().set_limit((cap < 12).then_some(cap));
        }
    });
    run.check_the_end(12);
}
