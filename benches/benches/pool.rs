//! What a checkout and its checkin cost: from the own thread's stack, and handed to a waiter.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use pgweir_pool::{Checkout, Connection, Granted, Lease, LocalPool, Reserve, Settings, Shared};

/// As large as what the proxy pools: a box.
struct Link(Box<u64>);

impl Connection for Link {
    type Transit = Box<u64>;

    fn into_transit(self) -> Option<Box<u64>> {
        Some(self.0)
    }

    fn from_transit(transit: Box<u64>) -> Option<Link> {
        Some(Link(transit))
    }

    fn is_usable(&mut self) -> bool {
        *black_box(&*self.0) == 0
    }
}

fn pool(limit: usize) -> LocalPool<Link> {
    let settings = Settings {
        threads: 2,
        limit,
        queue_limit: 100,
        overtaking: None,
        lifetime: None,
        reserve: Reserve::default(),
    };
    LocalPool::new(Shared::new(settings, Box::new(|_| {})), 0)
}

fn lease(pool: &LocalPool<Link>, now: Instant) -> Option<Lease<Link>> {
    match pool.try_checkout(now) {
        Ok(Checkout::Ready(lease)) => Some(lease),
        Ok(Checkout::Open(permit)) => Some(permit.fulfil(Link(Box::new(0)), now)),
        Ok(Checkout::Wait(_)) | Err(_) => None,
    }
}

fn checkout(criterion: &mut Criterion) {
    let now = Instant::now();
    criterion.bench_function("pool/checkout and checkin, idle", |bencher| {
        let pool = pool(4);
        bencher.iter(|| lease(&pool, now).map(|lease| lease.checkin(now)));
    });
    criterion.bench_function("pool/checkin to a waiter of the thread", |bencher| {
        let pool = pool(1);
        let mut held = lease(&pool, now);
        bencher.iter(|| {
            let Ok(Checkout::Wait(waiting)) = pool.try_checkout(now) else {
                return;
            };
            let mut waiting = pin!(waiting);
            let mut cx = Context::from_waker(Waker::noop());
            black_box(waiting.as_mut().poll(&mut cx).is_pending());
            if let Some(lease) = held.take() {
                lease.checkin(now);
            }
            if let Poll::Ready(Granted::Lease(lease)) = waiting.poll(&mut cx) {
                held = Some(lease);
            }
        });
    });
}

criterion_group!(benches, checkout);
criterion_main!(benches);
