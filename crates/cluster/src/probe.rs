//! One question to one server: what are you, and where do you stand?
//!
//! The same prepared statement serves both roles, so that a promotion is seen over the connection that is there.

use std::time::{Duration, Instant};

use deadpool_postgres::{Object, Pool};
use pgweir_model::{Lsn, Role};
use tokio_postgres::Row;
use tokio_postgres::types::PgLsn;

use crate::error::ProbeError;
use crate::flush;
use crate::settings::Settings;

/// `OFFSET 0` keeps the role from being asked twice, with two answers, while a server is promoted.
///
/// The timeline of a primary is that of the segment that it writes, because `pg_control_checkpoint` tells it only after
/// the first checkpoint; that of a replica is what its WAL receiver gets.
/// See <https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-RECOVERY-INFO-TABLE>.
const QUESTION: &str = "
SELECT s.recovering,
       CASE WHEN s.recovering THEN pg_catalog.pg_last_wal_replay_lsn()
            ELSE pg_catalog.pg_current_wal_insert_lsn() END,
       CASE WHEN NOT s.recovering THEN pg_catalog.pg_current_wal_flush_lsn() END,
       CASE WHEN s.recovering THEN (SELECT r.received_tli FROM pg_catalog.pg_stat_wal_receiver r)
            ELSE ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))
                 ::pg_catalog.bit(32)::pg_catalog.int4 END,
       (pg_catalog.pg_control_checkpoint()).timeline_id,
       (pg_catalog.pg_control_system()).system_identifier
  FROM (SELECT pg_catalog.pg_is_in_recovery() AS recovering OFFSET 0) s";

/// A server's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Observation {
    /// The moment just before the question was sent.
    pub(crate) asked_at: Instant,
    /// When the connection was opened that it was sent on.
    pub(crate) connected_at: Instant,
    pub(crate) role: Role,
    /// Inserted by a primary, replayed by a replica.
    pub(crate) position: Lsn,
    /// What a primary has flushed; `position` for a replica.
    pub(crate) flushed: Lsn,
    /// The timeline that it writes or receives; `None` when a replica receives nothing or may not tell.
    pub(crate) timeline: Option<u32>,
    /// The timeline of its last checkpoint or restartpoint.
    pub(crate) checkpoint_timeline: u32,
    pub(crate) system_identifier: i64,
}

/// Asks one server. A connection that does not answer in time is closed.
pub(crate) async fn probe(pool: &Pool, settings: &Settings) -> Result<Observation, ProbeError> {
    // Twice the limit: a host name may stand for several addresses.
    let client = within(settings.connect_timeout * 2, async {
        Ok(pool.get().await?)
    })
    .await?;
    let limit = settings.query_timeout();
    let answer = within(limit, ask(&client)).await;
    if answer.is_err() {
        // What is still due on it would be taken for the next answer.
        drop(Object::take(client));
    }
    answer
}

/// Has a primary flush its WAL. What becomes of that says nothing about its health: one whose disk stands still answers
/// questions, and does not commit. So it has a short time of its own, and its failure is nobody's.
pub(crate) async fn flush(pool: &Pool) {
    let flushed = within(flush::LIMIT, async {
        let client = pool.get().await?;
        let done = within(flush::LIMIT / 2, async {
            Ok(client.batch_execute(flush::STATEMENT).await?)
        });
        if let Err(ProbeError::Timeout { .. }) = done.await {
            drop(Object::take(client));
        }
        Ok(())
    });
    // One that has become a replica refuses; the next question tells that.
    let _unflushed = flushed.await;
}

async fn ask(client: &Object) -> Result<Observation, ProbeError> {
    let statement = client.prepare_cached(QUESTION).await?;
    let asked_at = Instant::now();
    let row = client.query_one(&statement, &[]).await?;
    Ok(read(&row, asked_at, Object::metrics(client).created)?)
}

fn read(
    row: &Row,
    asked_at: Instant,
    connected_at: Instant,
) -> Result<Observation, tokio_postgres::Error> {
    let recovering: bool = row.try_get(0)?;
    let lsn = |column| {
        Ok::<_, tokio_postgres::Error>(row.try_get::<_, Option<PgLsn>>(column)?.map(lsn_of))
    };
    // A replica that has replayed nothing since it started says NULL.
    let position = lsn(1)?.unwrap_or_default();
    let timeline: Option<i32> = row.try_get(3)?;
    let checkpoint_timeline: i32 = row.try_get(4)?;
    Ok(Observation {
        asked_at,
        connected_at,
        role: if recovering {
            Role::Replica
        } else {
            Role::Primary
        },
        position,
        flushed: lsn(2)?.unwrap_or(position),
        // Timelines are unsigned, and shown as int4: the bits are the same.
        timeline: timeline
            .map(i32::cast_unsigned)
            .filter(|timeline| *timeline != 0),
        checkpoint_timeline: checkpoint_timeline.cast_unsigned(),
        system_identifier: row.try_get(5)?,
    })
}

fn lsn_of(lsn: PgLsn) -> Lsn {
    Lsn(u64::from(lsn))
}

async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, ProbeError>>,
) -> Result<T, ProbeError> {
    tokio::time::timeout(limit, answer)
        .await
        .unwrap_or(Err(ProbeError::Timeout { limit }))
}
