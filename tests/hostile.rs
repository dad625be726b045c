//! Garbage, lies and spite on the socket: the sender gets an error or a close, everybody else notices nothing.

mod mutated;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use pgweir_testkit::{Answer, Client, ClientError, Rng, patience};
use pgweir_wire::{backend, frontend, writer};

use crate::support::{DATABASE, Proxy, USER, assert_ours, cluster, config, login, value};

/// What the proxy's memory may have grown by after a storm: an allocator keeps pages.
const FLAT_BYTES: u64 = 32 << 20;

fn with_server(lines: &str) -> String {
    format!("[server]\n{lines}\n{}", config(cluster()))
}

fn trusting() -> String {
    format!("{}\n[auth]\nmethod = \"trust\"\n", config(cluster()))
}

/// Sends bytes as the first of a connection and returns what came until the close.
fn first_bytes(proxy: &Proxy, bytes: &[u8]) -> Answer {
    let mut client = Client::connect(proxy.addr()).expect("a connection");
    // It may be closed before all is sent.
    let _sent = client.send(bytes);
    closed(&mut client)
}

/// Reads to the close. A byte `N`, the answer to a request for encryption, is no message.
fn closed(client: &mut Client) -> Answer {
    match client.until_closed() {
        Ok(answer) => answer,
        Err(ClientError::Malformed(error)) => panic!("the proxy sent nonsense: {error}"),
        Err(other) => panic!("not closed: {other}"),
    }
}

/// Checks that the error, if the close came with one, is the proxy's own and one of these.
#[track_caller]
fn assert_any_error_is(seen: &Answer, sqlstates: [&str; 2], what: &str) {
    if let Some(error) = seen.error() {
        let sqlstate = error.sqlstate().unwrap_or_default();
        assert_ours(error, &sqlstate, "FATAL");
        assert!(sqlstates.contains(&&*sqlstate), "{what}: {error:?}");
    }
}

fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    body.push(0);
    prefixed(&body)
}

fn prefixed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a length");
    [&length.to_be_bytes(), body].concat()
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    writer::message(&mut out, tag, |w| w.bytes(body));
    out
}

/// A client that behaves does so at least this often.
const ENOUGH_ROUNDS: usize = 20;

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a storm beside a client that behaves, and checks that it notices nothing and that the proxy is as before.
fn beside_a_client_that_behaves(proxy: &Proxy, storm: impl FnOnce()) {
    let before = proxy.resident_bytes();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let behaves = scope.spawn(|| {
            let mut client = proxy.client();
            let mut round = 0;
            while !over.load(Ordering::Relaxed) || round < ENOUGH_ROUNDS {
                round += 1;
                let token = format!("token {round}");
                let sql = format!("SELECT '{token}'");
                let answer = match round % 4 {
                    0 => client.query(&format!("BEGIN; {sql}; COMMIT")),
                    1 => client.query(&sql),
                    2 => client.execute("SELECT $1::text", &[Some(&token)]),
                    _ => client.query(&format!("{sql}, pg_backend_pid()")),
                };
                assert_eq!(answer.expect("an answer").value(), Some(token));
            }
        });
        // Also when the storm panics, or the scope would wait for ever.
        let stops = StopOnDrop(&over);
        storm();
        drop(stops);
        behaves.join().expect("it noticed nothing");
    });
    let grown = proxy.resident_bytes().saturating_sub(before);
    assert!(grown < FLAT_BYTES, "{} MiB more than before", grown >> 20);
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
    // All places of the pool are still there: as many sleeps as there are run at once.
    let mut sleepers: Vec<Client> = (0..20).map(|_| proxy.client()).collect();
    for client in &mut sleepers {
        let asleep = "SELECT 'slept' FROM pg_sleep(0.05), pg_backend_pid()";
        client.send_query(asleep).expect("sent");
    }
    for client in &mut sleepers {
        let answer = client.until_ready().expect("an answer");
        assert_eq!(answer.value().as_deref(), Some("slept"), "{answer:?}");
    }
}

#[test]
fn startup_packets_that_are_none_are_refused_or_hung_up_on() {
    let proxy = Proxy::start_ready(&config(cluster()));
    let user = [("user", USER), ("database", DATABASE)];
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing but a length of zero", vec![0, 0, 0, 0]),
        ("a length below its own", vec![0, 0, 0, 3]),
        ("a length without room for a version", vec![0, 0, 0, 7]),
        ("a negative length", vec![0xff; 4]),
        (
            "a length of 2 GiB",
            vec![0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0],
        ),
        (
            "a TLS hello",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(),
        ),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("a parameter without a value", prefixed(b"\0\x03\0\0user\0")),
        ("no end of the list", prefixed(b"\0\x03\0\0user\0ann\0")),
        (
            "something behind the end",
            prefixed(b"\0\x03\0\0user\0ann\0\0x"),
        ),
        ("no user", startup(0x0003_0000, &[("database", DATABASE)])),
        (
            "bytes that are no text",
            prefixed(b"\0\x03\0\0user\0\xff\xfe\0\0"),
        ),
        (
            "a cancel without a key",
            prefixed(&80_877_102_u32.to_be_bytes()),
        ),
        (
            "encryption and more at once",
            [
                prefixed(&80_877_103_u32.to_be_bytes()),
                startup(0x0003_0000, &user),
            ]
            .concat(),
        ),
    ];
    beside_a_client_that_behaves(&proxy, || {
        for (what, bytes) in &cases {
            let seen = first_bytes(&proxy, bytes);
            assert!(seen.0.len() <= 1, "{what}: {seen:?}");
            assert_any_error_is(&seen, ["08P01", "28000"], what);
        }
    });
}

#[test]
fn the_startup_packet_is_bounded_by_ten_thousand_bytes() {
    /// Of the whole packet, length included.
    const LIMIT: usize = 10_000;
    let proxy = Proxy::start_ready(&trusting());
    let of = |total: usize| {
        let empty = startup(
            0x0003_0000,
            &[("user", USER), ("database", DATABASE), ("my.padding", "")],
        );
        let padding = "x".repeat(total - empty.len());
        startup(
            0x0003_0000,
            &[
                ("user", USER),
                ("database", DATABASE),
                ("my.padding", &padding),
            ],
        )
    };
    let mut client = Client::connect(proxy.addr()).expect("a connection");
    client.send(&of(LIMIT)).expect("sent");
    let welcome = client.until_ready().expect("a welcome");
    assert_eq!(welcome.error(), None);
    let refused = first_bytes(&proxy, &of(LIMIT + 5));
    assert_ours(refused.error().expect("an error"), "08P01", "FATAL");
    // Announced is enough: nothing of it is waited for.
    let announced = first_bytes(&proxy, &[0, 0, 0x27, 0x20]);
    assert_ours(announced.error().expect("an error"), "08P01", "FATAL");
}

#[test]
fn versions_of_the_protocol_are_negotiated_or_refused() {
    let proxy = Proxy::start_ready(&trusting());
    let user = [("user", USER), ("database", DATABASE)];
    for version in [0x0001_0000, 0x0002_0000, 0x0004_0000, 0x7777_7777] {
        let seen = first_bytes(&proxy, &startup(version, &user));
        assert_ours(seen.error().expect("an error"), "0A000", "FATAL");
    }
    let options = [
        ("user", USER),
        ("database", DATABASE),
        ("_pq_.nonsense", "1"),
    ];
    for (version, parameters, negotiated) in [
        (0x0003_0000, &user[..], false),
        (0x0003_0002, &user[..], false),
        (0x0003_0063, &user[..], true),
        (0x0003_0000, &options[..], true),
    ] {
        let mut client = Client::connect(proxy.addr()).expect("a connection");
        client.send(&startup(version, parameters)).expect("sent");
        let welcome = client.until_ready().expect("a welcome");
        let names = welcome.names();
        assert_eq!(
            names.contains(&"NegotiateProtocolVersion"),
            negotiated,
            "{version:x}"
        );
        let long = version & 0xffff >= 2;
        assert_eq!(client.secret().len() > 4, long, "{version:x}");
        assert_eq!(value(&mut client, "SELECT 1"), "1");
    }
}

#[test]
fn requests_for_encryption_are_declined_and_the_session_goes_on_in_the_clear() {
    let proxy = Proxy::start_ready(&config(cluster()));
    let (ssl, gss) = (80_877_103_u32, 80_877_104_u32);
    for requests in [vec![ssl], vec![gss], vec![gss, ssl]] {
        let mut client = Client::connect(proxy.addr()).expect("a connection");
        for request in requests {
            client
                .send(&prefixed(&request.to_be_bytes()))
                .expect("sent");
            assert_eq!(client.read_byte().expect("an answer"), b'N');
        }
        client.login(&login()).expect("a login");
        assert_eq!(value(&mut client, "SELECT 1"), "1");
    }
    // Not for ever.
    let mut client = Client::connect(proxy.addr()).expect("a connection");
    let mut declined = 0;
    while client.send(&prefixed(&ssl.to_be_bytes())).is_ok()
        && client.read_byte().is_ok_and(|byte| byte == b'N')
    {
        declined += 1;
        assert!(declined < 10, "it declines for ever");
    }
}

#[test]
fn a_login_that_takes_too_long_is_ended() {
    let proxy = Proxy::start_ready(&with_server("auth_timeout = \"1s\""));
    let packet = login().startup_message();
    let begun = Instant::now();
    // One sends nothing, one half of a packet, one stops at the password, and one drips.
    let mut silent = Client::connect(proxy.addr()).expect("a connection");
    let mut half = Client::connect(proxy.addr()).expect("a connection");
    half.send(&packet[..packet.len() / 2]).expect("sent");
    let mut no_password = Client::connect(proxy.addr()).expect("a connection");
    no_password.send(&packet).expect("sent");
    let mut drips = Client::connect(proxy.addr())
        .expect("a connection")
        .patience(Duration::from_millis(20));
    let long = startup(
        0x0003_0000,
        &[("user", USER), ("my.padding", &"x".repeat(9000))],
    );
    for byte in long {
        let sent = drips.send(&[byte]);
        let over = match drips.read() {
            Err(ClientError::Deadline(_)) => sent.is_err(),
            Ok(_) | Err(_) => true,
        };
        if over {
            break;
        }
        assert!(begun.elapsed() < patience::PATIENCE, "it drips for ever");
    }
    for client in [&mut silent, &mut half, &mut no_password] {
        closed(client);
    }
    assert!(begun.elapsed() >= Duration::from_millis(900), "too early");
    // Who has logged in may be as silent as it likes.
    assert!(proxy.client().query("SELECT 1").is_ok());
}

#[test]
fn what_comes_instead_of_a_password_is_refused() {
    let proxy = Proxy::start_ready(&config(cluster()));
    let password = |length: usize| message(frontend::tag::PASSWORD, &vec![b'x'; length]);
    let mut query = Vec::new();
    frontend::Query { sql: b"SELECT 1" }.encode(&mut query);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a query", query),
        ("a goodbye", frontend::Terminate::BYTES.to_vec()),
        ("no SASL at all", password(10)),
        ("the most that is read", password(65_535)),
        ("a byte more", password(65_536)),
        ("a gigabyte, announced", vec![b'p', 0x40, 0, 0, 0]),
        ("a negative length", vec![b'p', 0xff, 0xff, 0xff, 0xff]),
        ("an empty message", password(0)),
        ("noise", Rng::new(7).bytes(5000)),
    ];
    beside_a_client_that_behaves(&proxy, || {
        for (what, bytes) in &cases {
            let mut client = Client::connect(proxy.addr()).expect("a connection");
            client.send(&login().startup_message()).expect("sent");
            let asked = client.read().expect("a question");
            assert_eq!(asked.tag, backend::tag::AUTHENTICATION, "{what}");
            let _sent = client.send(bytes);
            let seen = closed(&mut client);
            assert_eq!(
                seen.names()
                    .iter()
                    .filter(|name| **name != "ErrorResponse")
                    .count(),
                0,
                "{what}: {seen:?}"
            );
            assert_any_error_is(&seen, ["08P01", "28P01"], what);
        }
    });
}

#[test]
fn a_query_sent_along_with_the_startup_packet_is_not_run() {
    let proxy = Proxy::start_ready(&trusting());
    let mut bytes = startup(0x0003_0000, &[("user", USER), ("database", DATABASE)]);
    frontend::Query {
        sql: b"CREATE TABLE hostile_smuggled (a int)",
    }
    .encode(&mut bytes);
    let mut client = Client::connect(proxy.addr()).expect("a connection");
    client.send(&bytes).expect("sent");
    let seen = closed(&mut client);
    assert!(seen.error().is_some(), "{seen:?}");
    let there = "SELECT count(*) FROM pg_class WHERE relname = 'hostile_smuggled'";
    assert_eq!(cluster().sql(DATABASE, there).expect("a count").trim(), "0");
}

/// Starts a long statement and waits until a server runs it: PostgreSQL ignores a cancel that comes before.
fn fall_asleep(client: &mut Client, marker: &str) {
    let sql = format!("SELECT pg_sleep(60) /* {marker} */");
    client.send_query(&sql).expect("sent");
    let asleep = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE query = '{sql}' AND wait_event = 'PgSleep'"
    );
    let runs = |node: &pgweir_devcluster::Node| {
        node.sql(DATABASE, &asleep).expect("a count").trim() == "1"
    };
    pgweir_testkit::eventually!(cluster().nodes().iter().any(runs));
}

#[test]
fn a_cancel_with_a_wrong_key_cancels_nothing() {
    let proxy = Proxy::start_ready(&config(cluster()));
    let mut client = proxy.client();
    client
        .send_query("SELECT 'finished' FROM pg_sleep(1.5)")
        .expect("sent");
    let (process_id, secret) = (client.process_id(), client.secret().to_vec());
    let mut rng = Rng::from_env();
    let flipped: Vec<u8> = secret.iter().map(|byte| byte ^ 1).collect();
    let keys = [
        (process_id, flipped),
        (process_id, vec![0; 4]),
        (process_id, [&secret[..], b"more"].concat()),
        (process_id, vec![7; 256]),
        (process_id ^ 1, secret.clone()),
        (process_id | 0xf000_0000, secret.clone()),
        (0, secret.clone()),
        (u32::MAX, secret),
        (process_id, rng.bytes(4)),
    ];
    for (process_id, secret) in keys {
        let mut packet = Vec::new();
        pgweir_wire::startup::encode_cancel(&mut packet, process_id, &secret);
        let seen = first_bytes(&proxy, &packet);
        assert_eq!(seen.error(), None, "nobody is told whether a key is right");
    }
    let answer = client.until_ready().expect("an answer");
    assert_eq!(answer.value().as_deref(), Some("finished"), "{answer:?}");
    // The right one does.
    fall_asleep(&mut client, "the right key");
    client.cancel().expect("a cancel");
    let answer = client.until_ready().expect("an answer");
    assert_eq!(answer.sqlstate().as_deref(), Some("57014"));
}

#[test]
fn one_client_more_than_max_clients_is_refused() {
    const LIMIT: usize = 5;
    let proxy = Proxy::start_ready(&with_server(&format!("max_clients = {LIMIT}")));
    let open = || Client::open(proxy.addr(), &login());
    // The one that start_ready opened may take a moment to be gone.
    let mut clients: Vec<Client> = Vec::new();
    pgweir_testkit::eventually!({
        clients.extend(open().ok());
        clients.len() == LIMIT
    });
    for _ in 0..3 {
        match open() {
            Err(ClientError::Refused(error)) => assert_ours(&error, "53300", "FATAL"),
            other => panic!("not refused: {other:?}"),
        }
    }
    // A cancel is no client, and is needed most when there is no room.
    let first = clients.first_mut().expect("a client");
    fall_asleep(first, "no room");
    first.cancel().expect("a cancel");
    let answer = first.until_ready().expect("an answer");
    assert_eq!(answer.sqlstate().as_deref(), Some("57014"));
    clients.pop();
    pgweir_testkit::eventually!(open().is_ok());
}

#[test]
fn many_half_made_connections_cost_little() {
    const MANY: usize = 400;
    let proxy = Proxy::start_ready(&config(cluster()));
    let before = proxy.resident_bytes();
    let packet = startup(
        0x0003_0000,
        &[("user", USER), ("my.padding", &"x".repeat(9_900))],
    );
    let half: Vec<Client> = (0..MANY)
        .map(|number| {
            let mut client = Client::connect(proxy.addr()).expect("a connection");
            if number % 2 == 0 {
                client.send(&packet[..packet.len() - 1]).expect("sent");
            } else {
                client.send(&login().startup_message()).expect("sent");
                client.read().expect("a question");
                // As much of a password as is allowed, less one byte.
                let password = message(frontend::tag::PASSWORD, &vec![b'x'; 65_000]);
                client.send(&password[..password.len() - 1]).expect("sent");
            }
            client
        })
        .collect();
    let mut client = proxy.client();
    assert!(client.query("SELECT 1").is_ok());
    let each =
        proxy.resident_bytes().saturating_sub(before) / u64::try_from(MANY).expect("a number");
    assert!(each < 128 << 10, "{each} bytes each");
    drop(half);
}
