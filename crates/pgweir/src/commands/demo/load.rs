//! A modest load through the proxy: eight connections, four reads to one write.
//!
//! ## Why
//! Reads and writes come from different connections, as in most applications in most moments. A session that writes every
//! few milliseconds reads on the primary, rightly, since no replica is known to have replayed its last write yet; a load
//! of such sessions alone would show no split.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_postgres::{Client, NoTls, Statement};

use super::sample::{CUSTOMERS, PRODUCTS};

/// Connections that only read: 400 reads a second in all.
const READERS: i64 = 6;
const READ_EVERY: Duration = Duration::from_millis(15);

/// Connections that write, and seldom read: 100 writes a second in all.
const WRITERS: i64 = 2;
const WRITE_EVERY: Duration = Duration::from_millis(20);

/// A writer looks for what it has just inserted once in so many writes.
const LOOK_EVERY: i64 = 10;

/// How long a connection that failed waits before the next.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// What went wrong, counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    errors: AtomicU64,
    missed: AtomicU64,
}

impl Tally {
    /// Returns how many connections ended by an error.
    pub(super) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Returns how many reads did not find what their session had just written.
    pub(super) fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

/// The load, on a thread of its own.
#[derive(Debug)]
pub(super) struct Load {
    tally: Arc<Tally>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Load {
    /// Starts it.
    pub(super) fn start(url: String) -> std::io::Result<Load> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let tally = Arc::new(Tally::default());
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&tally);
        let run = move || {
            runtime.block_on(async {
                let mut clients = JoinSet::new();
                for number in 0..READERS + WRITERS {
                    clients.spawn(client(url.clone(), number, Arc::clone(&shared)));
                }
                // A sender that is gone means stop, too.
                let _stopped = stopped.await;
                clients.shutdown().await;
            });
        };
        let thread = std::thread::Builder::new()
            .name("pgweir-load".to_owned())
            .spawn(run)?;
        Ok(Load {
            tally,
            stop,
            thread,
        })
    }

    /// Returns its counters.
    pub(super) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Ends it; its connections are closed then.
    pub(super) fn stop(self) {
        let _ended_before = self.stop.send(());
        // A panic has been reported by its hook.
        let _panicked = self.thread.join();
    }
}

/// One client, which comes back after every failure.
async fn client(url: String, number: i64, tally: Arc<Tally>) {
    loop {
        let Err(error) = session(&url, number, &tally).await;
        tally.errors.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%error, number, "a client of the load failed");
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// One connection, until it fails.
async fn session(
    url: &str,
    number: i64,
    tally: &Tally,
) -> Result<std::convert::Infallible, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let work = async {
        if number < READERS {
            read(&client, number).await
        } else {
            write(&client, number, tally).await
        }
    };
    tokio::pin!(work);
    tokio::select! {
        // Its end also fails the query under way, and that error says more.
        _ended = connection => work.await,
        failed = &mut work => failed,
    }
}

async fn read(
    client: &Client,
    number: i64,
) -> Result<std::convert::Infallible, tokio_postgres::Error> {
    let statements = [
        client.prepare("SELECT name, country FROM customers WHERE id = $1").await?,
        client.prepare("SELECT count(*), sum(quantity) FROM orders WHERE customer_id = $1").await?,
        client
            .prepare(
                "SELECT p.name, p.price * o.quantity FROM orders o JOIN products p ON p.id = o.product_id \
                 WHERE o.customer_id = $1 ORDER BY o.id DESC LIMIT 5",
            )
            .await?,
    ];
    let mut turns = turns(READ_EVERY);
    for statement in statements.iter().cycle() {
        let turn = number.wrapping_add(turns.next().await.wrapping_mul(READERS));
        client.query(statement, &[&spread(turn, CUSTOMERS)]).await?;
    }
    std::future::pending().await
}

async fn write(
    client: &Client,
    number: i64,
    tally: &Tally,
) -> Result<std::convert::Infallible, tokio_postgres::Error> {
    let order: Statement = client
        .prepare("INSERT INTO orders (customer_id, product_id, quantity) VALUES ($1, $2, 1) RETURNING id")
        .await?;
    let restock = client
        .prepare("UPDATE products SET stock = stock + 1 WHERE id = $1")
        .await?;
    let look = client
        .prepare("SELECT count(*) FROM orders WHERE id = $1")
        .await?;
    let mut turns = turns(WRITE_EVERY);
    loop {
        let turn = turns.next().await;
        let product = spread(number.wrapping_add(turn.wrapping_mul(WRITERS)), PRODUCTS);
        if turn % 2 == 1 {
            client.execute(&restock, &[&product]).await?;
            continue;
        }
        let id: i64 = client
            .query_one(&order, &[&spread(turn, CUSTOMERS), &product])
            .await?
            .try_get(0)?;
        if turn % LOOK_EVERY == 0 {
            let found: i64 = client.query_one(&look, &[&id]).await?.try_get(0)?;
            if found == 0 {
                tally.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Turns at a pace, counted from 0.
struct Turns {
    count: i64,
    pace: tokio::time::Interval,
}

fn turns(every: Duration) -> Turns {
    let mut pace = tokio::time::interval(every);
    // After a stall there is no burst to make up for it: a modest load stays modest.
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Turns { count: 0, pace }
}

impl Turns {
    async fn next(&mut self) -> i64 {
        self.pace.tick().await;
        let count = self.count;
        self.count = count.wrapping_add(1);
        count
    }
}

/// Returns an id between 1 and `count`; over `count` turns each comes once, in an order that looks random.
fn spread(turn: i64, count: i64) -> i64 {
    // A prime that divides no count of the sample.
    const STEP: i64 = 7919;
    turn.wrapping_mul(STEP).rem_euclid(count) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_has_its_turn() {
        for count in [CUSTOMERS, PRODUCTS] {
            let mut ids: Vec<i64> = (0..count).map(|turn| spread(turn, count)).collect();
            ids.sort_unstable();
            assert!(ids.into_iter().eq(1..=count));
        }
    }
}
