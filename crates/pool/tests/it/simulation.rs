//! A seeded simulation: many clients on several parts of a pool, on one thread, every interleaving of steps by chance.
//!
//! Clients are polled only when they were woken, requests to threads arrive late, connections die, openings fail,
//! waiters leave. After each step the rules of the crate's documentation are checked.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use pgweir_pool::{
    Checkout, Granted, Lease, LocalPool, Permit, Reserve, Settings, Shared, Waiting,
};

use super::{Link, Random, World, open, settings};

enum Client {
    Thinking,
    Waiting(Waiting<Link>, usize),
    Opening(Permit<Link>),
    Using(Lease<Link>),
}

/// The clients that were woken, in that order, by the number of their wait.
#[derive(Default)]
struct Woken(Mutex<Vec<usize>>);

struct WakeOf(usize, Arc<Woken>);

impl Wake for WakeOf {
    fn wake(self: Arc<Self>) {
        self.1.0.lock().unwrap().push(self.0);
    }
}

struct Simulation {
    random: Random,
    world: Arc<World>,
    shared: Arc<Shared<Link>>,
    pools: Vec<LocalPool<Link>>,
    clients: Vec<Client>,
    asked: Arc<Mutex<Vec<usize>>>,
    woken: Arc<Woken>,
    /// By number of the wait, those in the queue: how many later ones were served before.
    queued: BTreeMap<usize, usize>,
    next_wait: usize,
    overtaking: usize,
    most_limit: usize,
    reserve: usize,
    now: Instant,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut random = Random::new(seed);
        let threads = 1 + random.below(4);
        let limit = 1 + random.below(8);
        let overtaking = random.below(4);
        let reserve = Reserve {
            count: random.below(3),
            after: Duration::from_millis(20),
        };
        let asked: Arc<Mutex<Vec<usize>>> = Arc::default();
        let notes = Arc::clone(&asked);
        let settings = Settings {
            overtaking: Some(overtaking),
            reserve,
            ..settings(threads, limit)
        };
        let shared = Shared::new(
            settings,
            Box::new(move |thread| notes.lock().unwrap().push(thread)),
        );
        let world = Arc::<World>::default();
        world.breaks.store(random.below(20), Ordering::SeqCst);
        let clients = 1 + random.below(24);
        Simulation {
            world,
            pools: (0..threads)
                .map(|thread| LocalPool::new(Arc::clone(&shared), thread))
                .collect(),
            clients: (0..clients).map(|_| Client::Thinking).collect(),
            shared,
            random,
            asked,
            woken: Arc::default(),
            queued: BTreeMap::new(),
            next_wait: 0,
            overtaking,
            most_limit: limit,
            reserve: reserve.count,
            now: Instant::now(),
        }
    }

    fn step(&mut self, may_begin: bool) {
        self.now += Duration::from_millis(1);
        if self.random.one_in(4) {
            self.deliver_one();
        }
        if self.random.one_in(10) {
            let thread = self.random.below(self.pools.len());
            self.pools[thread].relieve(self.now);
        }
        if self.random.one_in(500) {
            self.shared.retire_all();
        }
        if self.random.one_in(300) {
            let limit = 1 + self.random.below(8);
            self.most_limit = self.most_limit.max(limit);
            self.shared.set_limit(limit);
        }
        let place = self.random.below(self.clients.len());
        let thread = place % self.pools.len();
        let client = std::mem::replace(&mut self.clients[place], Client::Thinking);
        self.clients[place] = match client {
            Client::Thinking if may_begin => self.begin(thread),
            Client::Thinking => Client::Thinking,
            Client::Waiting(waiting, number) => self.wait(waiting, number),
            Client::Opening(permit) if self.random.one_in(5) => {
                drop(permit);
                Client::Thinking
            }
            Client::Opening(permit) => Client::Using(permit.fulfil(open(&self.world), self.now)),
            Client::Using(lease) => self.end(lease),
        };
        self.observe_grants();
        assert!(
            self.world.live.load(Ordering::SeqCst) <= self.most_limit + self.reserve,
            "more connections than any limit"
        );
    }

    fn begin(&mut self, thread: usize) -> Client {
        match self.pools[thread].try_checkout(self.now).unwrap() {
            Checkout::Ready(lease) => Client::Using(lease),
            Checkout::Open(permit) => Client::Opening(permit),
            Checkout::Wait(waiting) => {
                let number = self.next_wait;
                self.next_wait += 1;
                self.queued.insert(number, 0);
                self.poll(waiting, number)
            }
        }
    }

    fn poll(&mut self, mut waiting: Waiting<Link>, number: usize) -> Client {
        let waker = Waker::from(Arc::new(WakeOf(number, Arc::clone(&self.woken))));
        match pin!(&mut waiting).poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => Client::Waiting(waiting, number),
            Poll::Ready(granted) => {
                // Those who were served before, perhaps by this same checkout, come first.
                self.observe_grants();
                self.count_overtaken(number);
                match granted {
                    Granted::Lease(lease) => Client::Using(lease),
                    Granted::Open(permit) => Client::Opening(permit),
                }
            }
        }
    }

    fn wait(&mut self, waiting: Waiting<Link>, number: usize) -> Client {
        if self.random.one_in(12) {
            // Before the drop, which may serve others.
            self.queued.remove(&number);
            drop(waiting);
            return Client::Thinking;
        }
        let is_woken = !self.queued.contains_key(&number);
        // Sometimes without being woken: that must not lose the wake-up.
        if is_woken || self.random.one_in(10) {
            self.poll(waiting, number)
        } else {
            Client::Waiting(waiting, number)
        }
    }

    fn end(&mut self, lease: Lease<Link>) -> Client {
        match self.random.below(20) {
            0 => drop(lease),
            1 => drop(lease.detach()),
            2 => {
                lease.wire.dead.store(true, Ordering::SeqCst);
                lease.checkin(self.now);
            }
            3..8 => return Client::Using(lease),
            _ => lease.checkin(self.now),
        }
        Client::Thinking
    }

    fn deliver_one(&mut self) {
        let count = self.asked.lock().unwrap().len();
        if count > 0 {
            let place = self.random.below(count);
            let thread = self.asked.lock().unwrap().swap_remove(place);
            self.pools[thread].serve();
        }
    }

    /// A waiter is served when it is woken, which is before it is polled.
    fn observe_grants(&mut self) {
        let woken = std::mem::take(&mut *self.woken.0.lock().unwrap());
        woken
            .into_iter()
            .for_each(|number| self.count_overtaken(number));
    }

    fn count_overtaken(&mut self, number: usize) {
        if self.queued.remove(&number).is_none() {
            return;
        }
        for (earlier, overtaken) in self.queued.range_mut(..number) {
            *overtaken += 1;
            let most = self.overtaking;
            assert!(
                *overtaken <= most,
                "wait {earlier} was overtaken {overtaken} times, {number} the last; {most} allowed"
            );
        }
    }

    /// When all requests have arrived, nobody waits for what is there.
    fn check_that_nobody_waits_in_vain(&mut self) {
        while !self.asked.lock().unwrap().is_empty() {
            self.deliver_one();
        }
        self.observe_grants();
        let stats = self.shared.stats();
        assert!(
            stats.waiting == 0 || (stats.idle == 0 && stats.open >= stats.limit),
            "{stats:?}"
        );
        assert_eq!(
            stats.waiting,
            self.queued.len(),
            "a waiter was served and not woken"
        );
    }

    fn run(mut self) {
        for step in 0..2_000 {
            self.step(true);
            if step % 50 == 0 {
                self.check_that_nobody_waits_in_vain();
            }
        }
        let mut left = 200_000;
        while !self
            .clients
            .iter()
            .all(|client| matches!(client, Client::Thinking))
        {
            self.step(false);
            self.check_that_nobody_waits_in_vain();
            left -= 1;
            assert!(left > 0, "somebody waits for ever");
        }
        let stats = self.shared.stats();
        assert_eq!((stats.waiting, stats.open), (0, stats.idle));
        assert_eq!(self.world.live.load(Ordering::SeqCst), stats.idle);
        let owned: usize = self.pools.iter().map(|pool| pool.stats().owned).sum();
        assert_eq!(owned, stats.idle);
        self.pools.clear();
        assert_eq!(self.shared.stats().open, 0);
        assert_eq!(self.world.live.load(Ordering::SeqCst), 0);
    }
}

/// Prints the seed of a run that fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SEED={}", self.0);
        }
    }
}

#[test]
fn every_interleaving_keeps_the_limit_the_order_and_every_place() {
    // `SEED=7` replays one run, `SEEDS=100000` makes more of them.
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(300),
    };
    for seed in seeds {
        let _seed = Seed(seed);
        Simulation::new(seed).run();
    }
}
