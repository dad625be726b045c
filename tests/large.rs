//! Results, COPY and single messages far larger than any buffer: they stream through in bounded memory.
//!
//! `PGWEIR_LARGE_MIB` sets the size of the streams in MiB; the acceptance run is 1024.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
};

use pgweir_testkit::{Client, append_parse, append_undescribed, patience};
use pgweir_wire::{Header, backend, frontend, writer};

use crate::support::{Proxy, cluster, config};

/// What the proxy may use beyond what it uses when idle.
const ALLOWED_BYTES: u64 = 64 << 20;

/// Size of the streams unless the environment says otherwise: enough to show a leak, quick in a debug build.
const DEFAULT_MIB: usize = 256;

/// Size of the single messages, in bytes.
const ONE_MESSAGE: usize = 110_000_000;

/// Bytes of a row.
const ROW: usize = 1_000_000;

fn rows() -> usize {
    let mib = std::env::var("PGWEIR_LARGE_MIB").map_or(DEFAULT_MIB, |text| {
        text.parse().expect("PGWEIR_LARGE_MIB is a number")
    });
    (mib << 20).div_ceil(ROW)
}

/// What came of a stream that was thrown away.
#[derive(Debug, Default)]
struct Seen {
    /// Bytes of the bodies of DataRow and CopyData.
    payload: usize,
    /// DataRow and CopyData messages.
    rows: usize,
    /// SQLSTATE of an error.
    error: Option<String>,
    /// The first column of the last small row.
    value: Option<String>,
}

/// Reads up to ReadyForQuery and throws rows away as they come.
fn drain(mut stream: &TcpStream) -> Seen {
    /// Messages up to this size are looked at.
    const SMALL: usize = 8192;
    let mut seen = Seen::default();
    let mut chunk = vec![0; 1 << 18];
    let (mut kept, mut skip) = (Vec::new(), 0);
    stream
        .set_read_timeout(Some(patience::PATIENCE))
        .expect("a timeout");
    loop {
        let count = stream.read(&mut chunk).expect("more comes");
        assert_ne!(count, 0, "the connection was closed after {seen:?}");
        let skipped = count.min(skip);
        skip -= skipped;
        kept.extend_from_slice(&chunk[skipped..count]);
        let mut at = 0;
        while let Some(header) = Header::peek(&kept[at..]).expect("a header") {
            let (length, here) = (header.frame_len(), kept.len() - at);
            if length > here && length <= SMALL {
                break;
            }
            let bytes = &kept[at..at + length.min(here)];
            at += bytes.len();
            skip = length - bytes.len();
            let is_row = matches!(header.tag, backend::tag::DATA_ROW | backend::tag::COPY_DATA);
            seen.rows += usize::from(is_row);
            seen.payload += if is_row { header.body_len() } else { 0 };
            let message = pgweir_testkit::Message {
                tag: header.tag,
                bytes: bytes.to_vec(),
            };
            match header.tag {
                backend::tag::ERROR_RESPONSE => seen.error = message.sqlstate(),
                backend::tag::DATA_ROW if length <= SMALL => {
                    seen.value = message
                        .values()
                        .and_then(|row| row.into_iter().next())
                        .flatten();
                }
                backend::tag::READY_FOR_QUERY => return seen,
                _ => {}
            }
        }
        kept.drain(..at);
    }
}

/// Returns the most memory that the proxy ever had, in bytes.
fn peak(proxy: &Proxy) -> u64 {
    let path = format!("/proc/{}/status", proxy.pid());
    let status = fs::read_to_string(path).expect("the proxy runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.map(|rest| rest.trim().trim_end_matches("kB").trim().to_owned());
    kib.and_then(|kib| kib.parse::<u64>().ok()).expect("VmHWM") * 1024
}

/// Runs something through a fresh proxy and checks what the proxy used for it.
fn in_bounded_memory(act: impl FnOnce(&mut Client) -> Seen) -> Seen {
    let proxy = Proxy::start_ready(&config(cluster()));
    let mut client = proxy.client();
    client.query("SELECT 1").expect("an answer");
    let idle = proxy.resident_bytes();
    let seen = act(&mut client);
    let used = peak(&proxy).saturating_sub(idle);
    assert!(used < ALLOWED_BYTES, "{} MiB above idle", used >> 20);
    assert_eq!(seen.error, None);
    let next = client.query("SELECT 'still here'").expect("an answer");
    assert_eq!(next.value().as_deref(), Some("still here"));
    seen
}

fn query(client: &mut Client, sql: &str) -> Seen {
    client.send_query(sql).expect("sent");
    drain(client.stream())
}

/// Writes from a thread of its own while the answer is read: neither side may wait for the other.
fn write_and_drain(client: &Client, write: impl FnOnce(&TcpStream) + Send) -> Seen {
    let stream = client.stream();
    thread::scope(|scope| {
        scope.spawn(move || write(stream));
        drain(stream)
    })
}

/// Writes a message whose body is `head`, `length` times `x`, and `tail`.
fn write_message(mut stream: &TcpStream, tag: u8, head: &[u8], length: usize, tail: &[u8]) {
    let chunk = vec![b'x'; 1 << 20];
    let body = 4 + head.len() + length + tail.len();
    let body = u32::try_from(body).expect("a length").to_be_bytes();
    stream
        .write_all(&[&[tag], &body[..], head].concat())
        .expect("sent");
    let mut left = length;
    while left > 0 {
        let piece = left.min(chunk.len());
        stream.write_all(&chunk[..piece]).expect("sent");
        left -= piece;
    }
    stream.write_all(tail).expect("sent");
}

/// Makes a table of that name and copies so many lines, each a message of that length, of which the server keeps some.
fn copy_in(client: &mut Client, table: &str, kept: &str, lines: usize, length: usize) -> Seen {
    client
        .query(&format!("CREATE TABLE {table} (line text)"))
        .expect("an answer");
    client
        .send_query(&format!("COPY {table} FROM STDIN WHERE {kept}"))
        .expect("sent");
    let started = client.until(backend::tag::COPY_IN_RESPONSE);
    assert!(started.is_ok(), "{started:?}");
    write_and_drain(client, |mut stream| {
        for _ in 0..lines {
            write_message(stream, frontend::tag::COPY_DATA, b"", length, b"\n");
        }
        let mut done = Vec::new();
        writer::message(&mut done, frontend::tag::COPY_DONE, |_| {});
        stream.write_all(&done).expect("sent");
    })
}

#[test]
fn a_large_result_streams_through() {
    let rows = rows();
    let sql = format!("SELECT repeat('x', {ROW}) FROM generate_series(1, {rows})");
    let seen = in_bounded_memory(|client| query(client, &sql));
    assert_eq!((seen.rows, seen.payload), (rows, rows * (ROW + 6)));
    // Small rows too: many to a read.
    let count = rows * (ROW / 100) / 4;
    let sql = format!("SELECT repeat('x', 89) FROM generate_series(1, {count})");
    let seen = in_bounded_memory(|client| {
        let mut out = Vec::new();
        pgweir_testkit::append_execute(&mut out, &sql, &[]);
        frontend::Sync.encode(&mut out);
        client.send(&out).expect("sent");
        drain(client.stream())
    });
    assert_eq!((seen.rows, seen.payload), (count, count * 95));
}

#[test]
fn a_large_copy_out_streams_through() {
    let rows = rows();
    let sql = format!("COPY (SELECT repeat('x', {ROW}) FROM generate_series(1, {rows})) TO STDOUT");
    let seen = in_bounded_memory(|client| query(client, &sql));
    assert_eq!((seen.rows, seen.payload), (rows, rows * (ROW + 1)));
}

#[test]
fn a_large_copy_in_streams_through() {
    let rows = rows();
    let seen = in_bounded_memory(|client| {
        // The server throws it away, so that the test needs no disk.
        let seen = copy_in(client, "large_copy", "line = 'never'", rows, ROW);
        assert_eq!(
            query(client, "SELECT count(*) FROM large_copy")
                .value
                .as_deref(),
            Some("0")
        );
        query(client, "DROP TABLE large_copy");
        seen
    });
    assert_eq!(seen.rows, 0);
}

#[test]
fn a_client_that_does_not_read_holds_the_server_back() {
    let rows = rows();
    let sql = format!("SELECT repeat('x', {ROW}) FROM generate_series(1, {rows})");
    let proxy = Proxy::start_ready(&config(cluster()));
    let lazy: Vec<Client> = (0..8)
        .map(|_| {
            let mut client = proxy.client();
            client.send_query(&sql).expect("sent");
            client
        })
        .collect();
    let idle = proxy.resident_bytes();
    // Others are served meanwhile, for long enough that all buffers on the way are full.
    let mut client = proxy.client();
    for _ in 0..2000 {
        let answer = client.query("SELECT 1").expect("an answer");
        assert_eq!(answer.value().as_deref(), Some("1"));
    }
    let used = peak(&proxy).saturating_sub(idle);
    assert!(used < ALLOWED_BYTES, "{} MiB above idle", used >> 20);
    lazy.into_iter().for_each(Client::reset);
    let answer = client.query("SELECT 2").expect("an answer");
    assert_eq!(answer.value().as_deref(), Some("2"));
}

#[test]
fn one_row_larger_than_all_buffers_streams_through() {
    let sql = format!("SELECT repeat('x', {ONE_MESSAGE})");
    let seen = in_bounded_memory(|client| query(client, &sql));
    assert_eq!((seen.rows, seen.payload), (1, ONE_MESSAGE + 6));
}

#[test]
fn one_copy_message_larger_than_all_buffers_streams_through() {
    in_bounded_memory(|client| {
        let kept = "length(line) <> 110000000";
        let seen = copy_in(client, "large_line", kept, 1, ONE_MESSAGE);
        query(client, "DROP TABLE large_line");
        seen
    });
}

#[test]
fn one_parameter_larger_than_all_buffers_streams_through() {
    let length = u32::try_from(ONE_MESSAGE).expect("a length").to_be_bytes();
    let seen = in_bounded_memory(|client| {
        let mut before = Vec::new();
        append_parse(&mut before, "", "SELECT length($1::text)");
        let mut after = Vec::new();
        frontend::Execute {
            portal: b"",
            max_rows: 0,
        }
        .encode(&mut after);
        frontend::Sync.encode(&mut after);
        write_and_drain(client, |mut stream| {
            stream.write_all(&before).expect("sent");
            // Unnamed portal and statement, text formats, one parameter.
            let head = [&[0, 0, 0, 0, 0, 1], &length[..]].concat();
            write_message(stream, frontend::tag::BIND, &head, ONE_MESSAGE, &[0, 0]);
            stream.write_all(&after).expect("sent");
        })
    });
    assert_eq!(seen.value, Some(ONE_MESSAGE.to_string()));
}

#[test]
fn one_query_text_larger_than_all_buffers_streams_through() {
    let seen = in_bounded_memory(|client| {
        write_and_drain(client, |stream| {
            let (head, tail) = (b"SELECT length('", b"')\0");
            write_message(stream, frontend::tag::QUERY, head, ONE_MESSAGE, tail);
        })
    });
    assert_eq!(seen.value, Some(ONE_MESSAGE.to_string()));
}

#[test]
fn one_prepared_text_larger_than_all_buffers_streams_through() {
    let seen = in_bounded_memory(|client| {
        let mut after = Vec::new();
        append_undescribed(&mut after, "large");
        frontend::Sync.encode(&mut after);
        write_and_drain(client, |mut stream| {
            let (head, tail) = (b"large\0SELECT length('", b"')\0\0\0");
            write_message(stream, frontend::tag::PARSE, head, ONE_MESSAGE, tail);
            stream.write_all(&after).expect("sent");
        })
    });
    assert_eq!(seen.value, Some(ONE_MESSAGE.to_string()));
}
