//! The console where no other test of the process uses SQLite, whose memory has one limit for all of them.

use std::sync::Arc;
use std::time::Duration;

use pgweir_admin::console::{Desk, Session, serve};
use pgweir_wire::backend::Message;
use pgweir_wire::{Deframer, frontend};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;

use crate::sample::{Sample, SampleControl};

struct Client {
    stream: DuplexStream,
    input: Deframer,
    _cancel: watch::Sender<u64>,
}

impl Client {
    async fn new() -> Client {
        let (stream, theirs) = tokio::io::duplex(1 << 16);
        let (cancel, cancelled) = watch::channel(0);
        let session = Session {
            user: "viewer".into(),
            may_change: false,
            database: "pgweir".into(),
            parameters: Vec::new(),
            process_id: 1,
            secret: vec![1, 2, 3, 4],
            cancel: cancelled,
            desk: Arc::new(Desk::default()),
        };
        tokio::spawn(serve(theirs, session, SampleControl::new(Sample::new(1))));
        let mut client = Client {
            stream,
            input: Deframer::new(1 << 24),
            _cancel: cancel,
        };
        assert_eq!(client.until_ready().await, None);
        client
    }

    /// Returns the SQLSTATE of an error, if there was one.
    async fn until_ready(&mut self) -> Option<[u8; 5]> {
        let mut state = None;
        loop {
            while let Some(frame) = self.input.next().unwrap() {
                match Message::decode(frame.as_frame()).unwrap() {
                    Message::ErrorResponse(error) => state = error.sqlstate(),
                    Message::ReadyForQuery(_) => return state,
                    _ => {}
                }
            }
            let read = self.stream.read_buf(self.input.buffer_mut());
            let read = tokio::time::timeout(Duration::from_secs(60), read);
            assert_ne!(read.await.unwrap().unwrap(), 0, "the session has ended");
        }
    }

    async fn query(&mut self, sql: &str) -> Option<[u8; 5]> {
        let mut bytes = Vec::new();
        frontend::Query {
            sql: sql.as_bytes(),
        }
        .encode(&mut bytes);
        self.stream.write_all(&bytes).await.unwrap();
        self.until_ready().await
    }
}

#[tokio::test]
async fn what_statements_keep_in_between_is_in_memory_and_has_a_limit() {
    let mut client = Client::new().await;
    // Two thousand of 800 kB, to be sorted.
    let large = "select h from (select hex(zeroblob(400000)) || x as h from generate_series(1, 2000) as x) as t \
                 order by h limit 1 offset 1999";
    assert_eq!(client.query(large).await, Some(*b"53200"));
    // What it took was given back.
    let small = large.replace("2000)", "100)").replace("1999", "99");
    for _ in 0..5 {
        assert_eq!(client.query(&small).await, None);
    }
    let mut other = Client::new().await;
    assert_eq!(other.query("select count(*) from settings").await, None);
}
