//! Two thousand clients on twenty server connections: all finish, none starves, and killing them loses no place.

use std::{
    sync::{Barrier, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use pgweir_testkit::{Client, Rng, eventually, patience};

use super::{
    storm::{check_pools, report, small_pool},
    talk::{Heard, Talk, Want, hear},
};
use crate::support::{DATABASE, Proxy, USER, login, new_cluster};

const CLIENTS: usize = 2000;
const POOL_SIZE: usize = 20;

/// Statements per client.
const ROUNDS: usize = 5;

/// The longest wait over the median. Each statement takes a while, so that all wait in line and waits are alike; the first
/// are short, and the machine runs the 2,000 threads as it likes.
const UNFAIR: u32 = 4;

/// Two thousand statements wait at once, each for those before it.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn two_thousand_clients_share_twenty_server_connections_fairly_and_their_deaths_lose_none() {
    let mut rng = Rng::from_env();
    let cluster = new_cluster(0);
    let server = "query_wait_timeout = \"120s\"\nmax_clients = 4000\nmax_queue = 4000";
    let proxy = Proxy::start_ready(&small_pool(&cluster, POOL_SIZE, server));
    let rngs: Vec<Rng> = (0..CLIENTS).map(|_| rng.fork()).collect();
    let start = Barrier::new(CLIENTS);
    let waits = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for (n, mut rng) in rngs.into_iter().enumerate() {
            let (proxy, start, waits) = (&proxy, &start, &waits);
            let life = move || {
                let mut client = Client::open(proxy.addr(), &login())
                    .expect("a login")
                    .patience(PATIENCE);
                start.wait();
                let measured: Vec<Duration> = (0..ROUNDS)
                    .map(|round| ask(&mut client, n, round))
                    .collect();
                waits
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(measured);
                // All are there still: their deaths fall among the statements of others.
                start.wait();
                die(client, &mut rng);
            };
            thread::Builder::new()
                .stack_size(256 << 10)
                .spawn_scoped(scope, life)
                .expect("a thread");
        }
    });
    let mut waits = waits.into_inner().unwrap_or_else(PoisonError::into_inner);
    waits.sort();
    let median = waits.get(waits.len() / 2).copied().unwrap_or_default();
    let longest = waits.last().copied().unwrap_or_default();
    report(&format!(
        "{} statements: median wait {median:.1?}, longest {longest:.1?}",
        waits.len()
    ));
    assert_eq!(waits.len(), CLIENTS * ROUNDS);
    assert!(
        longest < median * UNFAIR,
        "median {median:?}, longest {longest:?}"
    );
    let connections =
        format!("SELECT count(*) <= {POOL_SIZE} FROM pg_stat_activity WHERE usename = '{USER}'");
    eventually!(
        patience::PATIENCE,
        cluster
            .sql(DATABASE, &connections)
            .is_ok_and(|fits| fits == "t"),
        "more than {POOL_SIZE} server connections are left"
    );
    check_pools(&proxy, &cluster, POOL_SIZE);
}

/// Runs one statement; returns how long the answer took.
fn ask(client: &mut Client, n: usize, round: usize) -> Duration {
    let token = format!("c{n}-{round}");
    let talk = match round % 2 {
        0 => Talk::new()
            .query(&format!("SELECT '{token}' || pg_sleep(0.01)"))
            .result(&[&token])
            .ready(),
        _ => Talk::new()
            .parse("", "SELECT $1::text || pg_sleep(0.01)")
            .bind("", "", &[&token])
            .execute_one(&token)
            .sync(),
    };
    let asked = Instant::now();
    client.send(&talk.bytes).expect("the proxy listens");
    let heard = hear(client, &talk.wants, None);
    assert!(matches!(heard, Heard::All), "{token}: {heard:?}");
    asked.elapsed()
}

/// Ends in the middle of a message, a batch, a transaction, a COPY or a wait for a server connection.
fn die(mut client: Client, rng: &mut Rng) {
    let talk = match rng.below(5) {
        0 => Talk::new().query("SELECT pg_sleep(0.02)"),
        1 => Talk::new().query("BEGIN; SELECT 1"),
        2 => Talk::new()
            .parse("s", "SELECT $1::text")
            .bind("", "s", &["x"])
            .execute("", 0)
            .sync(),
        3 => Talk::new().query("COPY (SELECT generate_series(1, 10000)) TO STDOUT"),
        _ => Talk::new().query("BEGIN").then(
            Talk::new()
                .parse("", "SELECT generate_series(1, 5000)")
                .bind("", "", &[])
                .execute("", 7)
                .flush(),
        ),
    };
    let cut = if rng.chance(1, 2) {
        rng.below(talk.bytes.len())
    } else {
        talk.bytes.len()
    };
    // Whether all of it arrives is no matter, nor what comes back.
    let _sent = client.send(talk.bytes.get(..cut).unwrap_or_default());
    if cut == talk.bytes.len() && rng.chance(1, 4) {
        let _heard = hear(&mut client, &[Want::AnyUntilReady], Some(1 + rng.below(3)));
    }
    if rng.chance(1, 2) {
        client.reset();
    }
}
