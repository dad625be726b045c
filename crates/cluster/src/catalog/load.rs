//! One load: a connection to the database on the primary, one transaction, few questions.
//!
//! ## Why
//! All rows are of one snapshot, so that nothing refers to what is not there. Stored expressions and the bodies of functions
//! are long and change rarely: they are read once, and known again by their row's identifier and `xmin`, which changes with
//! the row.
//!
//! ## Limits
//! It takes no lock on anybody's relation. What the login may not see of the catalogs, which everyone may by default, fails
//! the load.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pgweir_sql::catalog::{Body, References, Source};
use tokio_postgres::{Client, NoTls, Row};

use crate::catalog::rows;
use crate::connection;
use crate::settings::{NodeSettings, Settings};

/// A catalog could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("no primary is known")]
    NoPrimary,
    #[error("it took too long")]
    Timeout,
    #[error("{}", describe(.0))]
    Server(#[from] tokio_postgres::Error),
}

fn describe(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(answer), _) => format!("{} ({})", answer.message(), answer.code().code()),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}

/// What is kept from one load for the next.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// The server that it is of: version and system identifier.
    server: Option<(i32, i64)>,
    /// That of the last load.
    fingerprint: Option<String>,
    builtins: Arc<HashMap<u32, (Box<str>, bool)>>,
    rules: HashMap<Version, Arc<References>>,
    policies: HashMap<Version, Arc<References>>,
    bodies: HashMap<Version, Arc<Body>>,
}

/// A row's identifier and its `xmin`.
pub(crate) type Version = (u32, i64);

/// How many long rows are asked for at once: what is on its way is held in memory.
const CHUNK: usize = 500;

/// One snapshot for all questions. Names mean the system's own objects, and compiling queries of this kind costs more than it
/// saves.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
    SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL jit = off; SET LOCAL statement_timeout = '60s'; SET LOCAL lock_timeout = '5s';
    SET LOCAL idle_in_transaction_session_timeout = '60s'";

const SERVER: &str =
    "SELECT current_setting('server_version_num')::int4, (pg_control_system()).system_identifier";

/// Reads the catalog of a database; `None` where nothing has changed since the last load.
pub(crate) async fn load(
    settings: &Settings,
    node: &NodeSettings,
    database: &str,
    memory: &mut Memory,
) -> Result<Option<Source>, LoadError> {
    let mut config = connection::config(settings, node, "pgweir catalog");
    config.dbname(database);
    let connecting = tokio::time::timeout(connect_limit(settings), config.connect(NoTls));
    let (client, connection) = connecting.await.map_err(|_elapsed| LoadError::Timeout)??;
    let task = tokio::spawn(async move {
        let _told_to_the_client = connection.await;
    });
    let source = read(&client, memory).await;
    drop(client);
    // It ends by itself when all is said; a server that does not answer is not waited for.
    task.abort();
    Ok(source?)
}

fn connect_limit(settings: &Settings) -> Duration {
    settings.connect_timeout * 2
}

async fn read(
    client: &Client,
    memory: &mut Memory,
) -> Result<Option<Source>, tokio_postgres::Error> {
    client.batch_execute(BEGIN).await?;
    let server = client.query_one(SERVER, &[]).await?;
    let server = (server.try_get(0)?, server.try_get(1)?);
    if memory.server != Some(server) {
        *memory = Memory {
            server: Some(server),
            builtins: Arc::new(rows::builtins(client).await?),
            ..Memory::default()
        };
    }
    let row = client.query_one(rows::FINGERPRINT, &[]).await?;
    let fingerprint: Option<String> = row.try_get(0)?;
    if fingerprint.is_some() && fingerprint == memory.fingerprint {
        return Ok(None);
    }
    let source = read_all(client, memory, server.0).await?;
    memory.fingerprint = fingerprint;
    Ok(Some(source))
}

async fn read_all(
    client: &Client,
    memory: &mut Memory,
    server_version: i32,
) -> Result<Source, tokio_postgres::Error> {
    let mut source = Source {
        builtins: Arc::clone(&memory.builtins),
        ..Source::default()
    };
    rows::fill(client, &mut source).await?;
    let rules = rows::versions(client, rows::RULES).await?;
    let keys = rules.iter().map(|(version, _)| *version);
    known(client, &mut memory.rules, keys, rows::RULE_TREES, tree).await?;
    let policies = rows::versions(client, rows::POLICIES).await?;
    let keys = policies.iter().map(|(version, _)| *version);
    known(client, &mut memory.policies, keys, rows::POLICY_TREES, tree).await?;
    for (list, trees) in [(rules, &memory.rules), (policies, &memory.policies)] {
        for (version, relation) in list {
            if let Some(tree) = trees.get(&version) {
                source.reach.push((relation, Arc::clone(tree)));
            }
        }
    }
    let functions = rows::functions(client).await?;
    let keys = functions.iter().map(|(version, _)| *version);
    let bodies = rows::function_bodies(server_version);
    known(client, &mut memory.bodies, keys, bodies, body).await?;
    for (version, mut row) in functions {
        if let Some(body) = memory.bodies.get(&version) {
            row.body = Arc::clone(body);
        }
        source.functions.push(row);
    }
    Ok(source)
}

fn tree(row: &Row) -> Result<References, tokio_postgres::Error> {
    rows::tree(row, 1)
}

fn body(row: &Row) -> Result<Body, tokio_postgres::Error> {
    let (language, source): (&str, &str) = (row.try_get(1)?, row.try_get(2)?);
    Ok(Body::read(
        language,
        source,
        rows::tree(row, 3)?,
        rows::tree(row, 4)?,
    ))
}

/// Makes the memory hold these rows and no others: those that are new are asked for.
async fn known<T>(
    client: &Client,
    memory: &mut HashMap<Version, Arc<T>>,
    versions: impl Iterator<Item = Version>,
    question: &str,
    read: impl Fn(&Row) -> Result<T, tokio_postgres::Error>,
) -> Result<(), tokio_postgres::Error> {
    let mut kept = HashMap::new();
    let mut lacking: Vec<Version> = Vec::new();
    for version in versions {
        match memory.remove(&version) {
            Some(known) => {
                kept.insert(version, known);
            }
            None => lacking.push(version),
        }
    }
    *memory = kept;
    let by_oid: HashMap<u32, Version> = lacking
        .iter()
        .map(|version| (version.0, *version))
        .collect();
    let statement = client.prepare(question).await?;
    for chunk in lacking.chunks(CHUNK) {
        let oids: Vec<u32> = chunk.iter().map(|version| version.0).collect();
        for row in client.query(&statement, &[&oids]).await? {
            let oid: u32 = row.try_get(0)?;
            if let Some(version) = by_oid.get(&oid) {
                memory.insert(*version, Arc::new(read(&row)?));
            }
        }
    }
    Ok(())
}
