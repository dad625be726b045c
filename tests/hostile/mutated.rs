//! Fuzz-fed connections: what is valid is broken at random, so that lies come up that nobody thought of.
//!
//! `SEED` replays a run of the fuzz-fed tests; `PGWEIR_FUZZ_CONNECTIONS` sets how many connections they make.

use std::{fs, time::Duration};

use pgweir_testkit::{Client, ClientError, Login, Rng, append_execute};
use pgweir_wire::frontend;

use super::{
    beside_a_client_that_behaves, closed, message, prefixed, startup, trusting, with_server,
};
use crate::support::{DATABASE, PASSWORD, Proxy, USER, login, root};

/// Connections of a fuzz-fed test unless the environment says otherwise.
const CONNECTIONS: usize = 600;

/// A conversation that is valid as it stands, after a login.
fn conversation(rng: &mut Rng) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    for _ in 0..1 + rng.below(5) {
        let number = rng.below(1000);
        let mut out = Vec::new();
        match rng.below(8) {
            0 => frontend::Query {
                sql: format!("SELECT {number}; SELECT 'two'").as_bytes(),
            }
            .encode(&mut out),
            1 => frontend::Query {
                sql: b"BEGIN; SELECT 1/0",
            }
            .encode(&mut out),
            2 => frontend::Query {
                sql: b"COPY (SELECT generate_series(1, 100)) TO STDOUT",
            }
            .encode(&mut out),
            3 => {
                frontend::Query {
                    sql: b"CREATE TEMP TABLE IF NOT EXISTS fuzz (a text); COPY fuzz FROM STDIN",
                }
                .encode(&mut out);
                out.extend(message(frontend::tag::COPY_DATA, b"a line\n"));
                out.extend(message(frontend::tag::COPY_DONE, b""));
            }
            4 => {
                out.extend(message(frontend::tag::PARSE, b"s\0SELECT $1::int\0\0\0"));
                out.extend(message(frontend::tag::DESCRIBE, b"Ss\0"));
                out.extend(message(
                    frontend::tag::BIND,
                    b"p\0s\0\0\0\0\x01\0\0\0\x0242\0\0",
                ));
                out.extend(message(frontend::tag::EXECUTE, b"p\0\0\0\0\x01"));
                out.extend(message(frontend::tag::CLOSE, b"Ss\0"));
                frontend::Sync.encode(&mut out);
            }
            5 => out.extend(message(
                frontend::tag::FUNCTION_CALL,
                b"\0\0\x06\x8d\0\0\0\0\0\0",
            )),
            6 => {
                append_execute(&mut out, "SELECT $1 || 'x'", &[Some("parameter")]);
                out.extend(message(frontend::tag::FLUSH, b""));
                frontend::Sync.encode(&mut out);
            }
            _ => append_execute(&mut out, "SET pgweir.route = primary", &[]),
        }
        messages.push(out);
    }
    messages
}

/// Breaks bytes in one of the ways in which bytes break.
fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    if bytes.is_empty() {
        bytes.extend(rng.bytes(16));
        return;
    }
    let at = rng.below(bytes.len());
    match rng.below(8) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes[at] = rng.bytes(1)[0],
        2 => bytes.truncate(at),
        3 => {
            let count = rng.below(40);
            let noise = rng.bytes(count);
            bytes.splice(at..at, noise);
        }
        4 => {
            let end = (at + rng.below(30)).min(bytes.len());
            bytes.drain(at..end);
        }
        5 => {
            let end = (at + rng.below(60)).min(bytes.len());
            let again = bytes[at..end].to_vec();
            bytes.extend(again);
        }
        6 => {
            // A length that lies.
            let lies: [u32; 6] = [0, 3, 5, 0x7fff_ffff, 0xffff_ffff, 70_000];
            let lie = rng.pick(&lies).copied().unwrap_or(0).to_be_bytes();
            let end = (at + 4).min(bytes.len());
            bytes.splice(at..end, lie);
        }
        _ => {
            let mut other = conversation(rng).concat();
            other.rotate_left(at % 7);
            bytes.extend(other);
        }
    }
}

fn connections() -> usize {
    std::env::var("PGWEIR_FUZZ_CONNECTIONS").map_or(CONNECTIONS, |text| {
        text.parse().expect("PGWEIR_FUZZ_CONNECTIONS is a number")
    })
}

/// Sends and leaves in one of several ways. Whatever the proxy says meanwhile must be messages.
fn send_and_leave(mut client: Client, bytes: &[u8], rng: &mut Rng) {
    let _sent = match rng.chance(1, 4) {
        true => client.send_torn(bytes, rng),
        false => client.send(bytes),
    };
    match rng.below(4) {
        0 => drop(client),
        1 => client.reset(),
        _ => {
            let _sent = client.shutdown_send();
            closed(&mut client);
        }
    }
}

#[test]
fn mutated_conversations_harm_nobody_else() {
    let proxy = Proxy::start_ready(&trusting());
    let mut rng = Rng::from_env();
    let login = Login::new(USER, DATABASE);
    beside_a_client_that_behaves(&proxy, || {
        for _ in 0..connections() {
            let mut bytes = conversation(&mut rng).concat();
            for _ in 0..1 + rng.below(4) {
                mutate(&mut bytes, &mut rng);
            }
            let client = Client::open(proxy.addr(), &login).expect("a login");
            send_and_leave(client, &bytes, &mut rng);
        }
    });
}

#[test]
fn mutated_startup_packets_harm_nobody_else() {
    let proxy = Proxy::start_ready(&with_server("auth_timeout = \"2s\""));
    let mut rng = Rng::from_env();
    let valid = [
        login().startup_message(),
        startup(
            0x0003_0002,
            &[
                ("user", USER),
                ("options", "-c work_mem=1MB"),
                ("_pq_.x", "y"),
            ],
        ),
        prefixed(&80_877_103_u32.to_be_bytes()),
        prefixed(&[&80_877_102_u32.to_be_bytes()[..], &[0, 0, 0, 1, 0, 0, 0, 2]].concat()),
        startup(
            0x0003_0000,
            &[
                ("user", USER),
                ("database", DATABASE),
                ("replication", "database"),
            ],
        ),
    ];
    beside_a_client_that_behaves(&proxy, || {
        for _ in 0..connections() {
            let mut bytes = rng.pick(&valid).cloned().unwrap_or_default();
            if rng.chance(1, 2) {
                bytes.extend(message(
                    frontend::tag::PASSWORD,
                    b"SCRAM-SHA-256\0\0\0\0\x20n,,n=,r=abcdefghijklmnopqrstuvwx",
                ));
                bytes.extend(message(frontend::tag::PASSWORD, PASSWORD.as_bytes()));
            }
            for _ in 0..rng.below(4) {
                mutate(&mut bytes, &mut rng);
            }
            let client = Client::connect(proxy.addr()).expect("a connection");
            let mut client = client.patience(Duration::from_secs(10));
            let _sent = client.send(&bytes);
            let _sent = client.shutdown_send();
            match client.until_closed() {
                // An N before a message looks like one that is malformed.
                Ok(_) | Err(ClientError::Malformed(_)) => {}
                Err(other) => panic!("not closed: {other}"),
            }
        }
    });
}

#[test]
fn the_codecs_corpus_harms_nobody_in_any_state() {
    let proxy = Proxy::start_ready(&trusting());
    let folder = root().join("crates/wire/tests/corpus");
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("the corpus")
        .map(|entry| entry.expect("a file").path())
        .collect();
    files.sort();
    assert!(files.len() > 20, "the corpus is not there");
    let login = Login::new(USER, DATABASE);
    let mut rng = Rng::from_env();
    beside_a_client_that_behaves(&proxy, || {
        for path in &files {
            let bytes = fs::read(path).expect("a file");
            let fresh = Client::connect(proxy.addr()).expect("a connection");
            send_and_leave(fresh, &bytes, &mut rng);
            for before in [
                "",
                "BEGIN",
                "COPY pg_temp.none FROM STDIN",
                "SELECT pg_sleep(0.01)",
            ] {
                let mut client = Client::open(proxy.addr(), &login).expect("a login");
                if !before.is_empty() {
                    client.send_query(before).expect("sent");
                }
                send_and_leave(client, &bytes, &mut rng);
            }
        }
    });
}
