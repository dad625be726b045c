//! `pgweir route --schema`: the catalog in which the names of a statement mean something, from a running server or from a dump.
//!
//! A dump is loaded into a PostgreSQL of its own that lives as long as the command: only PostgreSQL knows what a dump makes.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};

use pgweir_cluster::{Monitor, Settings};
use pgweir_devcluster::Cluster;
use pgweir_model::catalog::{Catalog, Policy};

use crate::failure::Failure;
use crate::output;

/// How long a catalog may take. Chosen: a large one takes some seconds, and somebody waits for it.
const LOAD_LIMIT: Duration = Duration::from_secs(30);

/// The database of the server that a dump is loaded into.
const DATABASE: &str = "schema";

/// Reads a catalog from where `schema` says: a connection URL, or the name of a file of SQL.
pub(super) fn load(schema: &str, policy: &Arc<Policy>) -> Result<Arc<Catalog>, Failure> {
    let is_url = ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| schema.starts_with(scheme));
    if is_url {
        return read(schema, policy);
    }
    let dump = fs::read_to_string(Path::new(schema)).map_err(Failure::io("read the schema"))?;
    let cluster = Cluster::builder().replicas(0).database(DATABASE).start()?;
    let mut failures = 0_usize;
    let text = without_psql(&dump);
    for range in pgweir_sql::split(text.as_bytes()) {
        let statement = text.get(range).unwrap_or_default();
        if let Err(error) = cluster.sql(DATABASE, statement) {
            failures += 1;
            if failures == 1 {
                output::complain(format!("pgweir: in {schema}: {error}"));
            }
        }
    }
    if failures > 0 {
        output::complain(format!("pgweir: {failures} statements of {schema} failed"));
    }
    read(&cluster.url(DATABASE), policy)
}

/// Reads the catalog of a running server's database.
fn read(url: &str, policy: &Arc<Policy>) -> Result<Arc<Catalog>, Failure> {
    let config = pgweir_config::from_upstreams(&[url.to_owned()], None)?;
    let cluster = config.clusters.first().ok_or(Failure::NoConfig)?;
    let handle = Monitor::start(Settings::new(cluster, 0, None))
        .map_err(|error| Failure::io("start a monitor")(io::Error::other(error)))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(Failure::io("start a runtime"))?;
    let reader = handle.catalog(&cluster.database, policy);
    let loaded = runtime.block_on(reader.fresh(Instant::now() + LOAD_LIMIT));
    handle.stop();
    loaded.ok_or(Failure::NoCatalog { waited: LOAD_LIMIT })
}

/// Returns a dump without what only psql understands: its own commands, and the data of COPY.
fn without_psql(dump: &str) -> String {
    let mut text = String::with_capacity(dump.len());
    let mut is_data = false;
    for line in dump.lines() {
        if is_data {
            is_data = line != "\\.";
        } else if line.starts_with("COPY ") && line.ends_with("FROM stdin;") {
            is_data = true;
        } else if !line.starts_with('\\') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_psql_understands_is_left_out() {
        let dump = "\\restrict x\nCREATE TABLE t (a text);\nCOPY t (a) FROM stdin;\nDROP TABLE t;\n\\.\nSELECT 1;\n";
        assert_eq!(without_psql(dump), "CREATE TABLE t (a text);\nSELECT 1;\n");
    }
}
