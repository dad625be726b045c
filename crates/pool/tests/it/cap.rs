//! Pools under one cap: who gets a place that all of them lack, one rule at a time and by seeded simulation.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use pgweir_pool::{Cap, Checkout, Granted, Lease, LocalPool, Permit, Reserve, Shared, Waiting};

use super::{Link, Random, World, open, settings};

/// Several pools of several threads under one cap.
struct Group {
    world: Arc<World>,
    cap: Arc<Cap<Link>>,
    shared: Vec<Arc<Shared<Link>>>,
    /// By pool, then by thread.
    pools: Vec<Vec<LocalPool<Link>>>,
    /// Pool and thread.
    asked: Arc<Mutex<Vec<(usize, usize)>>>,
    now: Instant,
}

impl Group {
    fn new(cap: usize, limits: &[usize], threads: usize) -> Group {
        let asked: Arc<Mutex<Vec<(usize, usize)>>> = Arc::default();
        let cap = Cap::new(Some(cap));
        let shared: Vec<_> = (limits.iter().enumerate())
            .map(|(pool, limit)| {
                let notes = Arc::clone(&asked);
                Shared::under(
                    Arc::clone(&cap),
                    settings(threads, *limit),
                    Box::new(move |thread| notes.lock().unwrap().push((pool, thread))),
                )
            })
            .collect();
        let parts = |shared: &Arc<Shared<Link>>| {
            (0..threads)
                .map(|thread| LocalPool::new(Arc::clone(shared), thread))
                .collect()
        };
        Group {
            world: Arc::default(),
            cap,
            pools: shared.iter().map(parts).collect(),
            shared,
            asked,
            now: Instant::now(),
        }
    }

    /// Begins a checkout a moment after the last.
    fn checkout(&mut self, pool: usize) -> Checkout<Link> {
        self.now += Duration::from_millis(1);
        self.pools[pool][0].try_checkout(self.now).unwrap()
    }

    fn lease(&mut self, pool: usize) -> Lease<Link> {
        match self.checkout(pool) {
            Checkout::Ready(lease) => lease,
            Checkout::Open(permit) => self.fulfil(permit),
            Checkout::Wait(_) => panic!("it has to wait"),
        }
    }

    fn wait(&mut self, pool: usize) -> Waiting<Link> {
        match self.checkout(pool) {
            Checkout::Wait(waiting) => waiting,
            other => panic!("it need not wait: {other:?}"),
        }
    }

    fn fulfil(&self, permit: Permit<Link>) -> Lease<Link> {
        permit.fulfil(open(&self.world), self.now)
    }

    fn serve_those_asked(&self) {
        loop {
            let asked = std::mem::take(&mut *self.asked.lock().unwrap());
            if asked.is_empty() {
                return;
            }
            for (pool, thread) in asked {
                self.pools[pool][thread].serve();
            }
        }
    }

    fn live(&self) -> usize {
        self.world.live.load(Ordering::SeqCst)
    }
}

fn poll(waiting: &mut Waiting<Link>) -> Option<Granted<Link>> {
    match pin!(waiting).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(granted) => Some(granted),
        Poll::Pending => None,
    }
}

#[track_caller]
fn place(waiting: &mut Waiting<Link>) -> Permit<Link> {
    match poll(waiting) {
        Some(Granted::Open(permit)) => permit,
        other => panic!("no place: {other:?}"),
    }
}

#[test]
fn an_idle_connection_of_another_pool_is_closed_to_make_room() {
    let mut group = Group::new(2, &[2, 2], 1);
    let (leased, idle) = (group.lease(0), group.lease(0));
    idle.checkin(group.now);
    let mut waiting = group.wait(1);
    assert!(poll(&mut waiting).is_none());
    group.serve_those_asked();
    let permit = place(&mut waiting);
    assert_eq!((group.live(), group.cap.open()), (1, 2));
    group.fulfil(permit).checkin(group.now);
    assert_eq!(group.live(), 2);
    // The other way round.
    let mut waiting = group.wait(0);
    group.serve_those_asked();
    drop(place(&mut waiting));
    leased.checkin(group.now);
    assert_eq!((group.live(), group.cap.open()), (1, 1));
}

#[test]
fn who_waits_longest_comes_first_whichever_pool_it_is_of() {
    let mut group = Group::new(1, &[2, 2], 1);
    let leased = group.lease(0);
    let mut theirs = group.wait(1);
    let mut ours = group.wait(0);
    leased.checkin(group.now);
    assert!(poll(&mut ours).is_none());
    let leased = group.fulfil(place(&mut theirs));
    // Its own pool would use the connection as it is, and comes later.
    let mut again = group.wait(1);
    leased.checkin(group.now);
    let leased = group.fulfil(place(&mut ours));
    assert!(poll(&mut again).is_none());
    let mut ours = group.wait(0);
    drop(leased);
    let leased = group.fulfil(place(&mut again));
    assert!(poll(&mut ours).is_none());
    drop(leased);
    drop(place(&mut ours));
    assert_eq!((group.live(), group.cap.open()), (0, 0));
}

#[test]
fn a_pool_uses_its_connection_itself_where_its_own_waiter_came_first() {
    let mut group = Group::new(1, &[2, 2], 1);
    let leased = group.lease(0);
    let number = leased.wire.number;
    let mut ours = group.wait(0);
    let mut theirs = group.wait(1);
    leased.checkin(group.now);
    let Some(Granted::Lease(leased)) = poll(&mut ours) else {
        panic!("it has to wait");
    };
    assert_eq!(leased.wire.number, number);
    leased.checkin(group.now);
    drop(place(&mut theirs));
}

#[test]
fn a_pool_whose_own_limit_is_in_the_way_keeps_nobody_waiting() {
    let mut group = Group::new(2, &[1, 2], 1);
    let own = group.lease(0);
    let other = group.lease(1);
    let mut held_back = group.wait(0);
    let mut next = group.wait(1);
    drop(other);
    assert!(poll(&mut held_back).is_none());
    drop(place(&mut next));
    // Now the cap is not in the way of anybody.
    own.checkin(group.now);
    assert!(matches!(poll(&mut held_back), Some(Granted::Lease(_))));
}

#[test]
fn nobody_takes_a_place_from_under_those_who_wait() {
    let mut group = Group::new(1, &[2, 2], 1);
    let leased = group.lease(0);
    let mut first = group.wait(1);
    leased.checkin(group.now);
    // The place is granted, and not used yet.
    let mut second = group.wait(0);
    assert!(group.pools[0][0].try_fill(1).is_none());
    let leased = group.fulfil(place(&mut first));
    assert!(poll(&mut second).is_none());
    drop(leased);
    drop(place(&mut second));
}

#[test]
fn a_cap_that_is_changed_serves_waiters_or_closes_connections() {
    let mut group = Group::new(1, &[4, 4], 1);
    let first = group.lease(0);
    let mut waiting = [group.wait(1), group.wait(0)];
    group.cap.set_limit(Some(3));
    let others = [
        group.fulfil(place(&mut waiting[0])),
        group.fulfil(place(&mut waiting[1])),
    ];
    others
        .into_iter()
        .for_each(|lease| lease.checkin(group.now));
    assert_eq!(group.live(), 3);
    group.cap.set_limit(Some(2));
    group.serve_those_asked();
    assert_eq!(group.live(), 2);
    group.cap.set_limit(Some(1));
    group.serve_those_asked();
    assert_eq!(group.live(), 1);
    let mut waiting = group.wait(1);
    group.cap.set_limit(None);
    drop(place(&mut waiting));
    first.checkin(group.now);
    assert_eq!(group.live(), 1);
}

/// Two pools of one connection each under a cap of two; the first has a reserve for those who have waited five seconds.
fn with_reserve() -> Group {
    let group = Group::new(2, &[1, 1], 1);
    group.shared[0].set_reserve(Reserve {
        count: 1,
        after: Duration::from_secs(5),
    });
    group
}

#[test]
fn an_idle_connection_of_another_pool_makes_room_for_who_may_have_one_of_the_reserve() {
    let mut group = with_reserve();
    let _leased = group.lease(0);
    group.lease(1).checkin(group.now);
    let mut waiting = [group.wait(0), group.wait(0)];
    group.pools[0][0].relieve(group.now);
    group.serve_those_asked();
    assert!(poll(&mut waiting[0]).is_none());
    assert_eq!(group.live(), 2, "it has not waited long enough");
    group.now += Duration::from_secs(5);
    group.pools[0][0].relieve(group.now);
    group.serve_those_asked();
    let permit = place(&mut waiting[0]);
    // As many as the reserve has, and no more.
    group.pools[0][0].relieve(group.now);
    assert!(poll(&mut waiting[1]).is_none());
    assert_eq!((group.live(), group.cap.open()), (1, 2));
    drop(group.fulfil(permit));
}

#[test]
fn a_connection_that_is_brought_back_makes_room_for_who_may_have_one_of_the_reserve() {
    let mut group = with_reserve();
    let _leased = group.lease(0);
    let used = group.lease(1);
    let mut waiting = group.wait(0);
    group.now += Duration::from_secs(5);
    group.pools[0][0].relieve(group.now);
    assert!(poll(&mut waiting).is_none());
    // Who came later, of its own pool, does not get it.
    let mut later = group.wait(1);
    used.checkin(group.now);
    drop(place(&mut waiting));
    drop(place(&mut later));
}

enum Client {
    Thinking,
    Waiting(Waiting<Link>, Arc<Woken>),
    Opening(Permit<Link>),
    Using(Lease<Link>),
}

/// Counts how often a client was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

struct Simulation {
    random: Random,
    group: Group,
    clients: Vec<Client>,
    /// By pool.
    reserves: Vec<Reserve>,
    cap: usize,
    most_cap: usize,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut random = Random::new(seed);
        let cap = 1 + random.below(6);
        let count = 1 + random.below(4);
        let limits: Vec<_> = (0..count).map(|_| 1 + random.below(5)).collect();
        let threads = 1 + random.below(3);
        let clients = 1 + random.below(20);
        let reserves: Vec<_> = (0..count)
            .map(|_| Reserve {
                count: random.below(3),
                after: Duration::from_millis(10),
            })
            .collect();
        let group = Group::new(cap, &limits, threads);
        for (pool, reserve) in group.shared.iter().zip(&reserves) {
            pool.set_reserve(*reserve);
        }
        Simulation {
            group,
            reserves,
            clients: (0..clients).map(|_| Client::Thinking).collect(),
            random,
            cap,
            most_cap: cap,
        }
    }

    fn step(&mut self, may_begin: bool) {
        self.group.now += Duration::from_millis(1);
        if self.random.one_in(3) {
            self.deliver_one();
        }
        if self.random.one_in(300) {
            self.cap = 1 + self.random.below(6);
            self.most_cap = self.most_cap.max(self.cap);
            self.group.cap.set_limit(Some(self.cap));
        }
        if self.random.one_in(300) {
            let pool = self.random.below(self.group.shared.len());
            self.group.shared[pool].set_limit(1 + self.random.below(5));
        }
        let place = self.random.below(self.clients.len());
        let client = std::mem::replace(&mut self.clients[place], Client::Thinking);
        self.clients[place] = match client {
            Client::Thinking if may_begin => self.begin(),
            Client::Thinking => Client::Thinking,
            Client::Waiting(waiting, woken) => self.wait(waiting, woken),
            Client::Opening(permit) if self.random.one_in(5) => {
                drop(permit);
                Client::Thinking
            }
            Client::Opening(permit) => Client::Using(self.group.fulfil(permit)),
            Client::Using(lease) => self.end(lease),
        };
        assert!(self.group.live() <= self.most_cap, "more than any cap");
    }

    fn begin(&mut self) -> Client {
        let pools = &self.group.pools[self.random.below(self.group.pools.len())];
        let pool = &pools[self.random.below(pools.len())];
        match pool.try_checkout(self.group.now).unwrap() {
            Checkout::Ready(lease) => Client::Using(lease),
            Checkout::Open(permit) => Client::Opening(permit),
            Checkout::Wait(waiting) => poll_client(waiting, Arc::default()),
        }
    }

    fn wait(&mut self, waiting: Waiting<Link>, woken: Arc<Woken>) -> Client {
        if self.random.one_in(12) {
            drop(waiting);
            return Client::Thinking;
        }
        if woken.0.load(Ordering::SeqCst) > 0 {
            poll_client(waiting, woken)
        } else {
            Client::Waiting(waiting, woken)
        }
    }

    fn end(&mut self, lease: Lease<Link>) -> Client {
        match self.random.below(20) {
            0 => drop(lease),
            1..8 => return Client::Using(lease),
            _ => lease.checkin(self.group.now),
        }
        Client::Thinking
    }

    fn deliver_one(&mut self) {
        let count = self.group.asked.lock().unwrap().len();
        if count > 0 {
            let place = self.random.below(count);
            let (pool, thread) = self.group.asked.lock().unwrap().swap_remove(place);
            self.group.pools[pool][thread].serve();
        }
    }

    /// When all requests have arrived, nobody waits for what is there, be it in another pool.
    fn check_that_nobody_waits_in_vain(&mut self) {
        let now = self.group.now;
        for pools in &self.group.pools {
            pools[0].relieve(now);
        }
        self.group.serve_those_asked();
        let all: Vec<_> = self.group.shared.iter().map(|pool| pool.stats()).collect();
        let is_room = self.group.cap.open() < self.cap || all.iter().any(|stats| stats.idle > 0);
        for (stats, reserve) in all.iter().zip(&self.reserves) {
            let has_waited = |since| now.saturating_duration_since(since) >= reserve.after;
            let most = match stats.oldest_waiting_since.is_some_and(has_waited) {
                true => stats.limit + reserve.count,
                false => stats.limit,
            };
            let is_held_back = stats.open >= most || !is_room;
            assert!(
                stats.waiting == 0 || (stats.idle == 0 && is_held_back),
                "{stats:?} of {all:?} under {:?}",
                self.group.cap
            );
        }
    }

    fn run(mut self) {
        for step in 0..2_000 {
            self.step(true);
            if step % 50 == 0 {
                self.check_that_nobody_waits_in_vain();
            }
        }
        let mut left = 100_000;
        while !(self.clients.iter()).all(|client| matches!(client, Client::Thinking)) {
            self.step(false);
            self.check_that_nobody_waits_in_vain();
            left -= 1;
            assert!(left > 0, "somebody waits for ever");
        }
        let idle: usize = (self.group.shared.iter())
            .map(|pool| pool.stats().idle)
            .sum();
        assert_eq!((self.group.cap.open(), self.group.live()), (idle, idle));
        self.group.pools.clear();
        assert_eq!((self.group.cap.open(), self.group.live()), (0, 0));
    }
}

fn poll_client(mut waiting: Waiting<Link>, woken: Arc<Woken>) -> Client {
    let waker = Waker::from(Arc::clone(&woken));
    match pin!(&mut waiting).poll(&mut Context::from_waker(&waker)) {
        Poll::Pending => Client::Waiting(waiting, woken),
        Poll::Ready(Granted::Lease(lease)) => Client::Using(lease),
        Poll::Ready(Granted::Open(permit)) => Client::Opening(permit),
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
fn every_interleaving_keeps_the_cap_and_lets_nobody_wait_in_vain() {
    for seed in 0..300 {
        let _seed = Seed(seed);
        Simulation::new(seed).run();
    }
}
