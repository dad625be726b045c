//! A storm of CancelRequests: each hits the statement of the client that sent it, or nothing.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use pgweir_testkit::{Client, Rng, patience};
use pgweir_wire::{TransactionStatus, backend::tag, startup};

use super::storm::{check_pools, report, small_pool};
use crate::support::{Proxy, login, new_cluster};

const CLIENTS: usize = 100;
const POOL_SIZE: usize = 8;

/// Statements of each client, if `PGWEIR_TORTURE_CANCELS` does not say otherwise.
const ROUNDS: usize = 30;

/// What has been seen by all clients.
#[derive(Default)]
struct Seen {
    /// CancelRequests sent.
    sent: AtomicUsize,
    /// Statements that were cancelled.
    hit: AtomicUsize,
    /// Forged CancelRequests.
    forged: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

/// Whether a CancelRequest of the client's own may hit what it runs now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Own {
    None,
    UnderWay,
}

#[test]
fn a_cancel_request_hits_the_statement_of_its_own_client_or_nothing() {
    let mut rng = Rng::from_env();
    let rounds = match std::env::var("PGWEIR_TORTURE_CANCELS") {
        Ok(text) => text.parse().expect("PGWEIR_TORTURE_CANCELS is a number"),
        Err(_) => ROUNDS,
    };
    let cluster = new_cluster(1);
    let server = "query_wait_timeout = \"120s\"";
    let proxy = Proxy::start_ready(&small_pool(&cluster, POOL_SIZE, server));
    let seen = Seen::default();
    thread::scope(|scope| {
        for n in 0..CLIENTS {
            let (mut rng, proxy, seen) = (rng.fork(), &proxy, &seen);
            scope.spawn(move || {
                if let Err(failure) = client(proxy, seen, n, rounds, &mut rng) {
                    seen.failures
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(failure);
                }
            });
        }
    });
    let Seen {
        sent,
        hit,
        forged,
        failures,
    } = seen;
    let failures = failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    report(&format!(
        "{} statements, {sent:?} CancelRequests, {hit:?} hits, {forged:?} forged",
        CLIENTS * rounds
    ));
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert!(
        hit.load(Ordering::Relaxed) > 0,
        "no CancelRequest ever hit anything"
    );
    check_pools(&proxy, &cluster, POOL_SIZE);
}

fn client(
    proxy: &Proxy,
    seen: &Seen,
    n: usize,
    rounds: usize,
    rng: &mut Rng,
) -> Result<(), String> {
    let mut client = Client::open(proxy.addr(), &login())
        .map_err(|error| error.to_string())?
        .patience(patience::PATIENCE * 4);
    let mut own = Own::None;
    let mut stray: Option<Client> = None;
    for round in 0..rounds {
        let token = format!("k{n}-{round}");
        let sql = statement(&token, rng);
        client
            .send_query(&sql)
            .map_err(|error| format!("{token}: {error}"))?;
        match rng.below(8) {
            // Waits for the end of the CancelRequest: from then on it must not hit anything.
            0..3 => {
                own = Own::UnderWay;
                seen.sent.fetch_add(1, Ordering::Relaxed);
                client
                    .cancel()
                    .map_err(|error| format!("{token}: cancel: {error}"))?;
            }
            // Does not wait: it may hit this statement or the next ones, until its connection has been closed.
            3 => {
                own = Own::UnderWay;
                seen.sent.fetch_add(1, Ordering::Relaxed);
                stray = Some(send_cancel(proxy, &client.cancel_request())?);
            }
            4 => {
                seen.forged.fetch_add(1, Ordering::Relaxed);
                drop(send_cancel(proxy, &forged(&client, rng))?);
            }
            _ => {}
        }
        let answer = client
            .until_ready()
            .map_err(|error| format!("{token}: {error}"))?;
        match (answer.sqlstate().as_deref(), answer.value()) {
            (None, Some(value)) if value == token => {}
            (Some("57014"), _) if own == Own::UnderWay => {
                seen.hit.fetch_add(1, Ordering::Relaxed);
            }
            (Some("57014"), _) => {
                return Err(format!(
                    "{token} was cancelled by another client: {answer:?}"
                ));
            }
            _ => return Err(format!("{token}: {answer:?}")),
        }
        if answer
            .0
            .iter()
            .any(|message| message.tag == tag::NOTICE_RESPONSE)
        {
            return Err(format!("{token}: {answer:?}"));
        }
        // A statement that is cancelled in a transaction leaves it failed, and the next cancel may hit the ROLLBACK.
        while client.status() != TransactionStatus::Idle {
            client
                .query("ROLLBACK")
                .map_err(|error| format!("{token}: ROLLBACK: {error}"))?;
        }
        if let Some(mut canceller) = stray.take() {
            if rng.chance(1, 2) {
                stray = Some(canceller);
                continue;
            }
            canceller
                .until_closed()
                .map_err(|error| format!("{token}: {error}"))?;
        }
        own = Own::None;
    }
    Ok(())
}

/// Statements of all lengths, on the primary and on the replica, alone and in transactions.
fn statement(token: &str, rng: &mut Rng) -> String {
    let pause = rng.below(30);
    match rng.below(5) {
        0 => format!("SELECT '{token}'"),
        1 => format!("SELECT '{token}' || pg_sleep(0.0{pause:02})"),
        2 => format!("BEGIN; SELECT '{token}' || pg_sleep(0.0{pause:02}); COMMIT"),
        3 => format!(
            "SELECT '{token}' FROM (SELECT count(*) FROM generate_series(1, {pause}000)) AS busy"
        ),
        _ => format!("SELECT '{token}'; SELECT pg_sleep(0.0{pause:02})"),
    }
}

fn send_cancel(proxy: &Proxy, request: &[u8]) -> Result<Client, String> {
    let mut canceller = Client::connect(proxy.addr()).map_err(|error| error.to_string())?;
    canceller.send(request).map_err(|error| error.to_string())?;
    Ok(canceller)
}

/// A CancelRequest for a random client, with the wrong secret.
fn forged(client: &Client, rng: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    let process_id = client.process_id() ^ u32::try_from(rng.below(64)).unwrap_or(0);
    startup::encode_cancel(&mut out, process_id, &rng.bytes(client.secret().len()));
    out
}
