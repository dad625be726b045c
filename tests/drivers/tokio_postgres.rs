//! tokio-postgres: a deterministic transcript, as the scripts of the other drivers write theirs.
//!
//! This driver pipelines whatever is polled at the same time, names every statement, and works in binary.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    pin::pin,
};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _, future};
use pgweir_devcluster::Node;
use pgweir_testkit::eventually;
use tokio_postgres::{
    AsyncMessage, Client, Error, IsolationLevel, NoTls, SimpleQueryMessage, error::DbError,
    types::ToSql,
};

use crate::support::cluster;

/// Stands in the statements that are cancelled, to tell them from those of other tests that sleep.
const MARKER: &str = "/* tokio-postgres cancels */";

type Outcome = Result<(), Error>;

struct Script {
    lines: Vec<String>,
    table: String,
    copied: String,
}

/// Runs the script; its tables' names begin with `prefix`.
pub(super) fn transcript(url: &str, prefix: &str) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut script = Script {
        lines: Vec::new(),
        table: format!("{prefix}_items"),
        copied: format!("{prefix}_copied"),
    };
    if let Err(error) = runtime.block_on(run(&mut script, url)) {
        let last = script.lines.last();
        panic!("the script of tokio-postgres on {url} fails after {last:?}: {error:?}");
    }
    script.lines
}

async fn run(script: &mut Script, url: &str) -> Outcome {
    let (mut client, notices) = connect(url).await?;
    script.simple(&client).await?;
    script.prepared(&client).await?;
    script.types(&client).await?;
    script.pipelined(&client).await?;
    script.copies(&client).await?;
    script.large(&client).await?;
    script.transactions(&mut client).await?;
    script.errors(&client).await;
    script.cancels(&mut client).await?;
    script.session_state(&client).await?;
    client
        .batch_execute(&format!("DROP TABLE {}, {}", script.table, script.copied))
        .await?;
    drop(client);
    let seen = notices
        .await
        .unwrap_or_else(|error| vec![error.to_string()]);
    seen.iter().for_each(|notice| script.out("notice", notice));
    Ok(())
}

/// Connects; the handle gives the notices when the connection has ended.
async fn connect(url: &str) -> Result<(Client, tokio::task::JoinHandle<Vec<String>>), Error> {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await?;
    let messages = async move {
        let mut seen = Vec::new();
        let mut messages =
            futures_util::stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(message) = messages.next().await {
            match message {
                Ok(AsyncMessage::Notice(notice)) => seen.push(describe(&notice)),
                Ok(AsyncMessage::Notification(notification)) => {
                    seen.push(format!(
                        "{} {}",
                        notification.channel(),
                        notification.payload()
                    ));
                }
                Ok(_) => {}
                Err(error) => seen.push(format!("the connection failed: {error}")),
            }
        }
        seen
    };
    Ok((client, tokio::spawn(messages)))
}

fn describe(error: &DbError) -> String {
    format!(
        "{} {} {} / {:?} / {:?} / {:?} / {:?} / {:?}",
        error.severity(),
        error.code().code(),
        error.message(),
        error.detail(),
        error.hint(),
        error.position(),
        error.where_(),
        error.constraint()
    )
}

fn digest(rows: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    rows.hash(&mut hasher);
    hasher.finish()
}

impl Script {
    fn out(&mut self, step: &str, value: impl std::fmt::Debug) {
        self.lines.push(format!("{step}: {value:?}"));
    }

    fn failed<T>(&mut self, step: &str, outcome: Result<T, Error>) {
        match outcome {
            Ok(_) => self.out(step, "UNEXPECTED SUCCESS"),
            Err(error) => match error.as_db_error() {
                Some(error) => self.out(step, describe(error)),
                None => self.out(step, error.to_string()),
            },
        }
    }

    async fn simple(&mut self, client: &Client) -> Outcome {
        let (table, copied) = (self.table.clone(), self.copied.clone());
        let script = format!(
            "DROP TABLE IF EXISTS {table}, {copied};
             CREATE TABLE {table} (id int PRIMARY KEY, name text NOT NULL, n float8);
             CREATE TABLE {copied} (id int, name text);
             INSERT INTO {table} (id, name) VALUES (1, 'a'), (2, 'b') RETURNING id;
             SELECT count(*), null FROM {table}"
        );
        for message in client.simple_query(&script).await? {
            match message {
                SimpleQueryMessage::Row(row) => {
                    let values: Vec<_> = (0..row.len()).map(|column| row.get(column)).collect();
                    self.out("row", values);
                }
                SimpleQueryMessage::CommandComplete(count) => self.out("complete", count),
                _ => {}
            }
        }
        let wrong =
            format!("INSERT INTO {table} (id, name) VALUES (3, 'undone'); SELECT 1/0; SELECT 2");
        self.failed("script error", client.simple_query(&wrong).await);
        let count: i64 = client
            .query_one(&format!("SELECT count(*) FROM {table}"), &[])
            .await?
            .get(0);
        self.out("script undone", count);
        client.batch_execute("").await
    }

    async fn prepared(&mut self, client: &Client) -> Outcome {
        let by_id = client
            .prepare(&format!("SELECT name, n FROM {} WHERE id = $1", self.table))
            .await?;
        let columns: Vec<_> = by_id
            .columns()
            .iter()
            .map(|column| (column.name(), column.type_().name()))
            .collect();
        self.out("described", (by_id.params(), columns));
        let change = client
            .prepare(&format!(
                "UPDATE {} SET n = coalesce(n, 0) + $1 WHERE id = $2",
                self.table
            ))
            .await?;
        for step in 0..10 {
            let changed = client.execute(&change, &[&f64::from(step), &1_i32]).await?;
            let row = client.query_one(&by_id, &[&1_i32]).await?;
            self.out(
                "write and read back",
                (changed, row.get::<_, &str>(0), row.get::<_, Option<f64>>(1)),
            );
        }
        let ratio = client.prepare("SELECT 10 / $1::int").await?;
        self.failed("prepared error", client.query(&ratio, &[&0_i32]).await);
        let five: i32 = client.query_one(&ratio, &[&2_i32]).await?.get(0);
        self.out("prepared after its error", five);
        self.failed(
            "prepare error",
            client.prepare("SELECT * FROM nowhere_at_all").await,
        );
        // Dropping the statement sends a Close of it.
        for number in 0..100 {
            let statement = client
                .prepare(&format!("SELECT {number} + $1::int"))
                .await?;
            let sum: i32 = client.query_one(&statement, &[&1_i32]).await?.get(0);
            assert_eq!(sum, number + 1);
        }
        let rows = client
            .query_typed(
                "SELECT $1, $1 || 'x'",
                &[(&"typed", tokio_postgres::types::Type::TEXT)],
            )
            .await?;
        self.out(
            "typed",
            rows.iter()
                .map(|row| row.get::<_, String>(1))
                .collect::<Vec<_>>(),
        );
        Ok(())
    }

    async fn types(&mut self, client: &Client) -> Outcome {
        let row = client
            .query_one(
                "SELECT $1::int2, $2::int8, $3::bool, $4::text, $5::bytea, $6::float4, $7::text[], $8::text",
                &[&-3_i16, &i64::MIN, &true, &"h\u{e9}llo \n", &&b"\x00\xff"[..], &1.5_f32, &vec![Some("a,b"), None], &None::<&str>],
            )
            .await?;
        self.out(
            "types",
            (
                row.get::<_, i16>(0),
                row.get::<_, i64>(1),
                row.get::<_, bool>(2),
                row.get::<_, &str>(3),
                row.get::<_, &[u8]>(4),
            ),
        );
        self.out(
            "more types",
            (
                row.get::<_, f32>(5),
                row.get::<_, Vec<Option<String>>>(6),
                row.get::<_, Option<&str>>(7),
            ),
        );
        Ok(())
    }

    async fn pipelined(&mut self, client: &Client) -> Outcome {
        let double = client.prepare("SELECT $1::int * 2").await?;
        let answers = future::try_join_all((0..500).map(|number: i32| {
            let double = &double;
            async move {
                client
                    .query_one(double, &[&number])
                    .await
                    .map(|row| row.get::<_, i32>(0))
            }
        }))
        .await?;
        self.out("pipelined", (answers.len(), digest(&answers)));
        let insert = client
            .prepare(&format!(
                "INSERT INTO {} (id, name) VALUES ($1, $2)",
                self.table
            ))
            .await?;
        let inserts = future::join_all([10, 11, 1, 12, 11].map(|id: i32| {
            let insert = &insert;
            async move { client.execute(insert, &[&id, &"pipelined"]).await }
        }))
        .await;
        for outcome in inserts {
            match outcome {
                Ok(count) => self.out("pipelined insert", count),
                Err(error) => self.failed::<()>("pipelined insert", Err(error)),
            }
        }
        let ids = client
            .query(&format!("SELECT id FROM {} ORDER BY id", self.table), &[])
            .await?;
        self.out(
            "inserted",
            ids.iter()
                .map(|row| row.get::<_, i32>(0))
                .collect::<Vec<_>>(),
        );
        // Prepare, simple queries and errors at the same time.
        let (one, two, three, four) = tokio::join!(
            client.query_one("SELECT 'one'", &[]),
            client.simple_query("SELECT 'two'; SELECT 'and more'"),
            client.query_one("SELECT 1 / 0", &[]),
            client.query_one("SELECT 'four'::text", &[]),
        );
        self.out(
            "mixed",
            (one?.get::<_, &str>(0), two?.len(), four?.get::<_, &str>(0)),
        );
        self.failed("mixed error", three);
        Ok(())
    }

    async fn copies(&mut self, client: &Client) -> Outcome {
        let copied = self.copied.clone();
        let mut sink = pin!(
            client
                .copy_in::<_, Bytes>(&format!("COPY {copied} FROM STDIN"))
                .await?
        );
        for line in 0..20_000 {
            sink.feed(Bytes::from(format!("{line}\trow {line}\n")))
                .await?;
        }
        let count = sink.finish().await?;
        self.out("copy in", count);
        let row = client
            .query_one(
                &format!("SELECT count(*), sum(id), max(name) FROM {copied}"),
                &[],
            )
            .await?;
        self.out(
            "copied",
            (
                row.get::<_, i64>(0),
                row.get::<_, i64>(1),
                row.get::<_, &str>(2),
            ),
        );
        for options in ["", "(FORMAT csv, HEADER)", "(FORMAT binary)"] {
            let query = format!("COPY (SELECT * FROM {copied} ORDER BY id) TO STDOUT {options}");
            let chunks: Vec<Bytes> = client.copy_out(&query).await?.try_collect().await?;
            self.out("copy out", (options, chunks.len(), digest(chunks.concat())));
        }
        let mut sink = pin!(
            client
                .copy_in::<_, Bytes>(&format!("COPY {copied} FROM STDIN"))
                .await?
        );
        sink.send(Bytes::from_static(b"1\tok\nx\tbad\n")).await?;
        let outcome = sink.finish().await;
        self.failed("copy in error", outcome);
        {
            // Dropped before its end: CopyFail.
            let mut sink = pin!(
                client
                    .copy_in::<_, Bytes>(&format!("COPY {copied} FROM STDIN"))
                    .await?
            );
            sink.send(Bytes::from_static(b"1\tok\n")).await?;
        }
        // No COPY into a missing table here: this driver falls out of step with any server then (it sends a Sync too many).
        let count: i64 = client
            .query_one(&format!("SELECT count(*) FROM {copied}"), &[])
            .await?
            .get(0);
        self.out("after copies", count);
        Ok(())
    }

    async fn large(&mut self, client: &Client) -> Outcome {
        let parameters: [&(dyn ToSql + Sync); 1] = [&200_000_i32];
        let rows = client
            .query_raw(
                "SELECT g, md5(g::text), repeat('z', g % 100) FROM generate_series(1, $1) g",
                parameters,
            )
            .await?;
        let mut rows = pin!(rows);
        let (mut count, mut hasher) = (0, DefaultHasher::new());
        while let Some(row) = rows.try_next().await? {
            (
                row.get::<_, i32>(0),
                row.get::<_, &str>(1),
                row.get::<_, &str>(2),
            )
                .hash(&mut hasher);
            count += 1;
        }
        self.out("large result", (count, hasher.finish()));
        let value: String = client
            .query_one("SELECT repeat('abcdefghij', 500000)", &[])
            .await?
            .get(0);
        self.out("large value", digest(value));
        let value: String = client
            .query_one("SELECT md5($1)", &[&"y".repeat(3_000_000)])
            .await?
            .get(0);
        self.out("large parameter", value);
        let broken = client
            .query(
                "SELECT 100000 / (100000 - g) FROM generate_series(1, 200000) g",
                &[],
            )
            .await;
        self.failed("error in mid-result", broken);
        Ok(())
    }

    async fn transactions(&mut self, client: &mut Client) -> Outcome {
        let table = self.table.clone();
        let mut transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::Serializable)
            .start()
            .await?;
        transaction
            .execute(
                &format!("UPDATE {table} SET name = 'one' WHERE id = 1"),
                &[],
            )
            .await?;
        let inner = transaction.savepoint("s").await?;
        inner
            .execute(
                &format!("UPDATE {table} SET name = 'two' WHERE id = 1"),
                &[],
            )
            .await?;
        self.failed("in a savepoint", inner.query("SELECT 1/0", &[]).await);
        self.failed("refused", inner.query("SELECT 1", &[]).await);
        inner.rollback().await?;
        let name: String = transaction
            .query_one(&format!("SELECT name FROM {table} WHERE id = 1"), &[])
            .await?
            .get(0);
        self.out("inside", name);
        // Portals: two at a time, fetched in turn.
        let first = transaction
            .bind("SELECT generate_series(1, 10)", &[])
            .await?;
        let second = transaction
            .bind("SELECT generate_series(11, 13)", &[])
            .await?;
        for limit in [3, 4, 0] {
            for portal in [&first, &second] {
                let rows = transaction.query_portal(portal, limit).await?;
                self.out(
                    "portal",
                    rows.iter()
                        .map(|row| row.get::<_, i32>(0))
                        .collect::<Vec<_>>(),
                );
            }
        }
        transaction.commit().await?;
        let transaction = client.transaction().await?;
        transaction
            .execute(&format!("DELETE FROM {table}"), &[])
            .await?;
        drop(transaction); // rolls back
        let count: i64 = client
            .query_one(&format!("SELECT count(*) FROM {table}"), &[])
            .await?
            .get(0);
        self.out("rolled back", count);
        let transaction = client.build_transaction().read_only(true).start().await?;
        let count: i64 = transaction
            .query_one(&format!("SELECT count(*) FROM {table}"), &[])
            .await?
            .get(0);
        self.out("read only", count);
        self.failed(
            "write in read only",
            transaction
                .execute(&format!("DELETE FROM {table}"), &[])
                .await,
        );
        transaction.rollback().await
    }

    async fn errors(&mut self, client: &Client) {
        for (step, sql) in [
            ("syntax error", "SELECT * FORM nowhere"),
            ("undefined table", "SELECT * FROM nowhere_at_all"),
            ("several statements", "SELECT 1; SELECT 2"),
            (
                "raised",
                "DO $$ BEGIN RAISE EXCEPTION 'mine' USING ERRCODE = 'ZZ123', DETAIL = 'd', HINT = 'h'; END $$",
            ),
            (
                "notices",
                "DO $$ BEGIN RAISE NOTICE 'first %', 1; RAISE WARNING 'second'; PERFORM 1 / 0; END $$",
            ),
        ] {
            let outcome = client.execute(sql, &[]).await;
            self.failed(step, outcome);
        }
        let insert = format!("INSERT INTO {} (id, name) VALUES ($1, 'x')", self.table);
        self.failed("unique violation", client.execute(&insert, &[&1_i32]).await);
    }

    async fn cancels(&mut self, client: &mut Client) -> Outcome {
        let sleep = format!("SELECT pg_sleep(120) {MARKER}");
        for sql in [
            &*sleep,
            &format!("DO $$ BEGIN PERFORM pg_sleep(120); END $$ {MARKER}"),
        ] {
            let outcome = cancelled(client, client.batch_execute(sql)).await;
            self.failed("cancel", outcome);
        }
        let transaction = client.transaction().await?;
        transaction
            .execute(
                &format!("UPDATE {} SET name = 'undone' WHERE id = 2", self.table),
                &[],
            )
            .await?;
        let outcome = cancelled(transaction.client(), transaction.query(&sleep, &[])).await;
        self.failed("cancel in a transaction", outcome);
        self.failed("then", transaction.query("SELECT 1", &[]).await);
        transaction.rollback().await?;
        let name: String = client
            .query_one(
                &format!("SELECT name FROM {} WHERE id = 2", self.table),
                &[],
            )
            .await?
            .get(0);
        self.out("after cancels", name);
        Ok(())
    }

    async fn session_state(&mut self, client: &Client) -> Outcome {
        client
            .batch_execute("CREATE TEMP TABLE temporary AS SELECT generate_series(1, 10) AS x")
            .await?;
        let sum: i64 = client
            .query_one("SELECT sum(x) FROM temporary", &[])
            .await?
            .get(0);
        self.out("temporary table", sum);
        client.batch_execute("SET TIME ZONE 'Asia/Tokyo'").await?;
        let text: String = client
            .query_one("SELECT '2024-01-01 00:00+00'::timestamptz::text", &[])
            .await?
            .get(0);
        self.out("set", text);
        client
            .batch_execute(&format!("LISTEN {0}; NOTIFY {0}, 'payload'", self.table))
            .await
    }
}

/// Cancels the statement once a server runs it: a cancel that comes before hits nothing. The driver does not wait until the
/// server has taken a cancel, so one alone is sent: a second could reach the next statement.
async fn cancelled<T>(
    client: &Client,
    statement: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let token = client.cancel_token();
    let mut statement = pin!(statement);
    // On another thread: on this one the driver sends the statement meanwhile.
    let asleep = tokio::task::spawn_blocking(wait_until_asleep);
    tokio::select! {
        outcome = &mut statement => return outcome,
        waited = asleep => waited.expect("a server runs the statement"),
    }
    token.cancel_query(NoTls).await?;
    statement.await
}

fn wait_until_asleep() {
    let asleep = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE strpos(query, '{MARKER}') > 0 AND wait_event = 'PgSleep'"
    );
    let runs = |node: &Node| node.sql("postgres", &asleep).expect("a count").trim() == "1";
    eventually!(cluster().nodes().iter().any(runs));
}
