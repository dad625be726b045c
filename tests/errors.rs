//! The errors that the proxy itself raises: each with the SQLSTATE that the interface promises, each marked as ours.

use std::{
    fs,
    io::{Read as _, Write as _},
    process::Command,
};

use pgweir_devcluster::StopMode;
use pgweir_testkit::{Answer, Client, ClientError, Message, append_execute, eventually};
use pgweir_wire::{TransactionStatus, backend::field, frontend, writer};

use crate::support::{
    DATABASE, PASSWORD, Proxy, USER, assert_ours, binary, cluster, config, login, new_cluster,
};

/// Logs in and returns the refusal.
fn refusal(proxy: &Proxy, login: &pgweir_testkit::Login) -> Message {
    match Client::open(proxy.addr(), login) {
        Err(ClientError::Refused(message)) => message,
        other => panic!("the login was not refused: {other:?}"),
    }
}

/// Checks the error in an answer and that the session can go on.
fn assert_survives(client: &mut Client, answer: &Answer, sqlstate: &str) -> Message {
    let error = answer.error().expect("an ErrorResponse").clone();
    assert_ours(&error, sqlstate, "ERROR");
    let next = client.query("SELECT 'still here'").expect("an answer");
    assert_eq!(next.value().as_deref(), Some("still here"));
    error
}

fn field_of(message: &Message, code: u8) -> String {
    message.error_field(code).unwrap_or_default()
}

#[test]
fn a_wrong_password_and_an_unknown_user_cannot_be_told_apart() {
    let methods = ["scram-sha-256", "md5", "password"];
    for method in methods {
        let text = format!("{}\n[auth]\nmethod = \"{method}\"\n", config(cluster()));
        let proxy = Proxy::start_ready(&text);
        let texts = [USER, "nobody"].map(|user| {
            let login = pgweir_testkit::Login::new(user, DATABASE).password("wrong");
            let message = refusal(&proxy, &login);
            assert_ours(&message, "28P01", "FATAL");
            message.comparable().replace(user, "<user>")
        });
        assert_eq!(texts[0], texts[1], "{method}");
    }
}

#[test]
fn an_unknown_database_is_named_with_the_one_nearest_to_it() {
    let text = config(cluster()).replace("[databases.\"*\"]", "[databases.app]");
    let proxy = Proxy::start_ready(&text);
    let near = pgweir_testkit::Login::new(USER, "apps").password(PASSWORD);
    let message = refusal(&proxy, &near);
    assert_ours(&message, "3D000", "FATAL");
    assert!(field_of(&message, field::MESSAGE).contains("\"apps\""));
    assert!(field_of(&message, field::HINT).contains("\"app\""));
    // Nobody learns the names of databases before the password was right.
    let stranger = pgweir_testkit::Login::new(USER, "apps").password("wrong");
    assert_ours(&refusal(&proxy, &stranger), "28P01", "FATAL");
}

#[test]
fn a_database_that_the_server_does_not_have_is_refused_with_the_servers_verdict() {
    let proxy = Proxy::start_ready(&config(cluster()));
    let login = pgweir_testkit::Login::new(USER, "nowhere").password(PASSWORD);
    let message = refusal(&proxy, &login);
    assert_ours(&message, "3D000", "FATAL");
    assert!(field_of(&message, field::MESSAGE).contains("\"nowhere\""));
}

#[test]
fn without_a_server_at_the_start_clients_are_told_so_until_there_is_one() {
    let cluster = new_cluster(1);
    let text = config(&cluster);
    for node in cluster.nodes() {
        node.stop(StopMode::Fast).expect("it stops");
    }
    let proxy = Proxy::start(&text);
    assert_ours(&refusal(&proxy, &login()), "57P03", "FATAL");
    // A replica is enough to log in and to read.
    cluster.replica(0).start().expect("it starts");
    eventually!(Client::open(proxy.addr(), &login()).is_ok());
    let mut client = proxy.client();
    let answer = client.query("SELECT 1").expect("an answer");
    assert_eq!(answer.value().as_deref(), Some("1"));
    let answer = client.query("CREATE TABLE t (a int)").expect("an answer");
    assert_survives(&mut client, &answer, "57P03");
    cluster.primary().start().expect("it starts");
    eventually!({
        let answer = client.query("CREATE TABLE IF NOT EXISTS t (a int)");
        answer.expect("an answer").error().is_none()
    });
}

#[test]
fn reads_go_on_without_an_error_when_replicas_stop_and_come_back() {
    let cluster = new_cluster(2);
    let proxy = Proxy::start_ready(&config(&cluster));
    let mut client = proxy.client();
    let mut read = |what: &str| {
        for _ in 0..50 {
            let answer = client.query("SELECT 1").expect(what);
            assert_eq!(answer.value().as_deref(), Some("1"), "{what}: {answer:?}");
        }
        let answer = client.query("SHOW pgweir.last_route").expect(what);
        answer.value().expect("a route")
    };
    eventually!(read("at the start").starts_with("replica"));
    for replica in [0, 1] {
        cluster.replica(replica).stop(StopMode::Fast).expect("stop");
        read("with a replica gone");
    }
    eventually!(read("without a replica").starts_with("primary"));
    cluster.replica(1).start().expect("start");
    eventually!(read("with a replica back").starts_with("replica"));
}

#[test]
fn a_server_that_dies_in_mid_result_is_reported_with_what_is_known_of_the_outcome() {
    let cluster = new_cluster(0);
    let proxy = Proxy::start_ready(&config(&cluster));
    let mut reader = proxy.client();
    let mut writer = proxy.client();
    writer.query("CREATE TABLE t (a text)").expect("an answer");
    let rows = "SELECT repeat('x', 1000) FROM generate_series(1, 1000000)";
    reader.send_query(rows).expect("sent");
    let first = reader.until(pgweir_wire::backend::tag::DATA_ROW);
    assert!(first.is_ok(), "{first:?}");
    writer
        .send_query("INSERT INTO t SELECT pg_sleep(60)::text")
        .expect("sent");
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    eventually!(cluster.sql(DATABASE, asleep).expect("a count").trim() == "1");
    cluster.primary().kill().expect("it dies");
    let told = |client: &mut Client| {
        let seen = client.until_closed().expect("a close");
        let error = seen.error().expect("an ErrorResponse").clone();
        assert_ours(&error, "08006", "FATAL");
        field_of(&error, field::DETAIL)
    };
    assert!(told(&mut reader).contains("did not write"));
    assert!(told(&mut writer).contains("unknown"));
    // The proxy survives its server.
    cluster.primary().start().expect("it starts again");
    eventually!(
        Client::open(proxy.addr(), &login())
            .and_then(|mut client| client.query("SELECT count(*) FROM t"))
            .is_ok_and(|answer| answer.value().as_deref() == Some("0"))
    );
}

#[test]
fn a_message_that_a_server_leaves_half_sent_is_not_filled_up_with_words_of_ours() {
    let cluster = new_cluster(0);
    let proxy = Proxy::start_ready(&config(&cluster));
    let client = proxy.client();
    let mut query = Vec::new();
    frontend::Query {
        sql: b"SELECT repeat('x', 100000000)",
    }
    .encode(&mut query);
    let mut stream = client.stream();
    stream.write_all(&query).expect("sent");
    // The row has begun, and is far larger than all buffers on the way.
    let mut input = vec![0; 100_000];
    stream.read_exact(&mut input).expect("its beginning");
    cluster.primary().kill().expect("it dies");
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest);
    assert!(ended.is_ok(), "{ended:?}");
    assert!(rest.len() < 100_000_000, "the whole row came");
    assert!(rest.iter().all(|byte| *byte == b'x'), "foreign bytes in it");
}

#[test]
fn a_full_pool_lets_wait_so_many_and_so_long() {
    let text = config(cluster()).replace("[databases.\"*\"]", "[databases.\"*\"]\npool_size = 1");
    let text = format!("[server]\nquery_wait_timeout = \"2s\"\nmax_queue = 1\n{text}");
    let proxy = Proxy::start_ready(&text);
    let [mut holder, mut waiter, mut third] = [proxy.client(), proxy.client(), proxy.client()];
    holder
        .query("BEGIN; SELECT pg_backend_pid()")
        .expect("an answer");
    const WRITE: &str = "SELECT pg_backend_pid()";
    waiter.send_query(WRITE).expect("sent");
    third.send_query(WRITE).expect("sent");
    // One of the two is first in line and waits in vain; the other is told that there is no room.
    let mut told: Vec<Message> = [&mut waiter, &mut third]
        .map(|client| client.until_ready().expect("an answer"))
        .map(|answer| answer.error().expect("an error").clone())
        .into();
    told.sort_by_key(Message::sqlstate);
    let [full, timed_out] = &told[..] else {
        panic!("two answers: {told:?}");
    };
    assert_ours(full, "53400", "ERROR");
    assert_ours(timed_out, "57014", "ERROR");
    assert!(field_of(timed_out, field::MESSAGE).contains("query_wait_timeout"));
    holder.query("COMMIT").expect("an answer");
    for client in [&mut holder, &mut waiter, &mut third] {
        assert_eq!(client.query(WRITE).expect("an answer").error(), None);
    }
}

#[test]
fn a_bad_configuration_is_refused_with_file_line_and_the_nearest_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bad.toml");
    let text = "[server]\nworkers = 1\npool_sise = 3\nmax_clents = 5\n\n[clusters.main]\nbackends = [{ host = \"h\" }]\n\
                [databases.app]\npool_mode = \"trans\"\n";
    fs::write(&path, text).expect("written");
    let run = |arguments: &[&str]| {
        let output = Command::new(binary())
            .args(arguments)
            .arg("--config")
            .arg(&path)
            .output()
            .expect("pgweir runs");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    for command in ["run", "check"] {
        let (code, said) = run(&[command]);
        assert_eq!(code, Some(2), "{command}: {said}");
        // All problems at once.
        for part in [
            "bad.toml:3",
            "bad.toml:4",
            "max_clients",
            "bad.toml:9",
            "transaction",
        ] {
            assert!(
                said.contains(part),
                "{command} does not say {part}:\n{said}"
            );
        }
    }
    assert_eq!(run(&["run", "--no-such-flag"]).0, Some(2));
}

#[test]
fn malformed_messages_are_refused_as_such() {
    let proxy = Proxy::start_ready(&config(cluster()));
    let mut bind = Vec::new();
    append_execute(&mut bind, "SELECT 1", &[]);
    writer::message(&mut bind, frontend::tag::BIND, |w| {
        w.cstr(b"");
        w.cstr(b"");
        w.i16(0);
        // Seven parameters are announced, none comes.
        w.i16(7);
    });
    frontend::Sync.encode(&mut bind);
    let with_sync = |bytes: &[u8]| [bytes, b"S\0\0\0\x04"].concat();
    // The border of the next message is known: the message fails, or the session does.
    let inside: [(&str, Vec<u8>); 4] = [
        ("an unknown tag", b"~\0\0\0\x04".to_vec()),
        ("a query without its end", b"Q\0\0\0\x08abcd".to_vec()),
        ("a bind that is cut short", bind),
        ("a target that is none", with_sync(b"D\0\0\0\x06X\0")),
    ];
    for (what, bytes) in inside {
        let mut client = proxy.client();
        client.send(&bytes).expect("sent");
        let seen = match client.until_ready() {
            Ok(seen) => seen,
            Err(ClientError::Closed(seen)) => Answer(seen),
            Err(other) => panic!("{what}: {other}"),
        };
        assert_eq!(seen.sqlstate().as_deref(), Some("08P01"), "{what}");
    }
    // It is not: PostgreSQL closes without a word.
    for (what, bytes) in [
        ("a length below its own", b"Q\0\0\0\x03"),
        ("a negative length", b"Q\xff\xff\xff\xff"),
    ] {
        let mut client = proxy.client();
        client.send(bytes).expect("sent");
        client.until_closed().expect(what);
    }
}

#[test]
fn a_message_over_max_message_is_refused_and_one_at_it_is_not() {
    /// The length field counts itself; the limit is meant of the whole message.
    const LIMIT: usize = 65_536;
    let text = format!("[server]\nmax_message = \"64kB\"\n{}", config(cluster()));
    let proxy = Proxy::start_ready(&text);
    let query = |total: usize| {
        let head = "SELECT length('";
        let tail = "')";
        // Tag, length, text, NUL.
        let filler = total - 1 - 4 - head.len() - tail.len() - 1;
        (format!("{head}{}{tail}", "x".repeat(filler)), filler)
    };
    let mut client = proxy.client();
    let (sql, filler) = query(LIMIT);
    let answer = client.query(&sql).expect("an answer");
    assert_eq!(answer.value(), Some(filler.to_string()), "{answer:?}");
    client.send_query(&query(LIMIT + 2).0).expect("sent");
    let seen = client.until_closed().expect("a close");
    assert_ours(seen.error().expect("an error"), "54000", "FATAL");
}

#[test]
fn an_instruction_to_write_on_a_replica_is_refused() {
    let proxy = Proxy::start_ready(&config(cluster()));
    let mut client = proxy.client();
    let hinted = "/* pgweir: route=replica */ CREATE TABLE never (a int)";
    let answer = client.query(hinted).expect("an answer");
    let error = assert_survives(&mut client, &answer, "25006");
    assert!(field_of(&error, field::HINT).contains("pgweir.route"));
    client.query("SET pgweir.route = replica").expect("set");
    let answer = client.query("DELETE FROM never").expect("an answer");
    assert_survives(&mut client, &answer, "25006");
    let answer = client.execute("DELETE FROM never", &[]).expect("an answer");
    assert_survives(&mut client, &answer, "25006");
}

#[test]
fn settings_of_ours_that_do_not_exist_are_refused_with_those_that_do() {
    let proxy = Proxy::start_ready(&config(cluster()));
    let mut client = proxy.client();
    for sql in [
        "SET pgweir.nonsense = 1",
        "SHOW pgweir.nonsense",
        "RESET pgweir.nonsense",
    ] {
        let answer = client.query(sql).expect("an answer");
        let error = assert_survives(&mut client, &answer, "42704");
        assert!(field_of(&error, field::HINT).contains("pgweir.route"));
        let answer = client.execute(sql, &[]).expect("an answer");
        assert_survives(&mut client, &answer, "42704");
    }
    for sql in [
        "SET pgweir.consistency = sometimes",
        "SET pgweir.route = nowhere",
    ] {
        let answer = client.query(sql).expect("an answer");
        assert_survives(&mut client, &answer, "22023");
    }
    // One batch for the proxy and others: nobody can answer it.
    let mut batch = Vec::new();
    append_execute(&mut batch, "SELECT 1", &[]);
    append_execute(&mut batch, "SHOW pgweir.route", &[]);
    frontend::Sync.encode(&mut batch);
    client.send(&batch).expect("sent");
    let answer = client.until_ready().expect("an answer");
    assert_survives(&mut client, &answer, "0A000");
}

#[test]
fn an_error_of_ours_in_a_transaction_fails_it_as_one_of_the_servers_would() {
    let proxy = Proxy::start_ready(&config(cluster()));
    let mut client = proxy.client();
    client.query("BEGIN").expect("an answer");
    let answer = client.query("SHOW pgweir.nonsense").expect("an answer");
    assert_ours(answer.error().expect("an error"), "42704", "ERROR");
    // It is the proxy's to answer: the server's transaction does not know of it, and what is told is its true status.
    let told = client.status();
    let answer = client.query("SELECT 1").expect("an answer");
    let failed = answer.sqlstate().as_deref() == Some("25P02");
    assert_eq!(told == TransactionStatus::Failed, failed, "{answer:?}");
    client.query("ROLLBACK").expect("an answer");
    assert_eq!(client.status(), TransactionStatus::Idle);
}
