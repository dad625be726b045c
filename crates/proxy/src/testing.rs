//! What the crate's own tests start a proxy with.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use pgweir_config::{Document, Origin, Overrides};
use pgweir_devcluster::{Cluster, Node};
use pgweir_testkit::{Client, ClientError, Login, eventually, patience};

use crate::Proxy;
use crate::proxy::Shared;

/// The role of the clients, and the name of their database, which it owns.
pub(crate) const USER: &str = "app";

/// Writes a configuration to its file in `folder`, where a reload finds it.
pub(crate) fn write(folder: &Path, text: &str) {
    fs::write(folder.join("pgweir.toml"), text).expect("written");
}

/// Likewise, and returns it.
pub(crate) fn document(folder: &Path, text: &str) -> Document {
    write(folder, text);
    let origin = Origin::File(folder.join("pgweir.toml"));
    Document::load(origin, Overrides::default()).expect("valid")
}

/// Starts a cluster that [`config`] is about: a primary and two replicas.
pub(crate) fn cluster() -> Cluster {
    Cluster::builder()
        .replicas(2)
        .role(USER, "x")
        .database(USER)
        .sql(format!("ALTER DATABASE {USER} OWNER TO {USER}"))
        .start()
        .expect("a cluster")
}

/// Returns a configuration for a cluster, with some settings of `[server]` and of the database.
pub(crate) fn config(cluster: &Cluster, server: &str, database: &str) -> String {
    let backend = |node: &Node| {
        let (name, host, port) = (node.name(), node.host(), node.port());
        format!("  {{ name = \"{name}\", host = \"{host}\", port = {port} }},\n")
    };
    let backends: String = cluster.nodes().iter().map(backend).collect();
    format!(
        "[http]\nlisten = \"off\"\n[admin]\nusers = [\"{USER}\"]\n\
         [log]\nslow_statements = \"300ms\"\nstatements = \"text\"\n\
         [server]\nlisten = [\"127.0.0.1:0\"]\nworkers = 2\n{server}\n\
         [clusters.main]\nbackends = [\n{backends}]\nuser = \"{}\"\npassword = \"{}\"\nmax_lag = \"1h\"\n\
         [databases.\"*\"]\ncluster = \"main\"\n{database}\n[[users]]\nname = \"{USER}\"\npassword = \"x\"\n",
        cluster.superuser(),
        cluster.password(),
    )
}

/// A cluster, and a proxy before it.
pub(crate) struct Bench {
    /// Where the configuration is.
    pub(crate) folder: tempfile::TempDir,
    pub(crate) cluster: Cluster,
    /// `None` once a test has ended it.
    pub(crate) proxy: Option<Proxy>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) addr: String,
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(proxy) = self.proxy.take() {
            proxy.stop();
        }
    }
}

impl Bench {
    /// Starts a proxy that serves clients, and makes a table `t (a int)` that all servers have.
    pub(crate) fn start(cluster: Cluster, config: &str) -> Bench {
        let folder = tempfile::tempdir().expect("a folder");
        let proxy = Proxy::start(document(folder.path(), config)).expect("it starts");
        let bench = Bench {
            shared: Arc::clone(proxy.shared()),
            addr: proxy.addresses()[0].clone(),
            proxy: Some(proxy),
            cluster,
            folder,
        };
        let answers = |mut client: Client| {
            client
                .query("SELECT 1")
                .is_ok_and(|answer| answer.error().is_none())
        };
        eventually!(bench.open().is_ok_and(answers));
        bench.run(&mut bench.client(), "CREATE TABLE t (a int)");
        (bench.cluster.wait_caught_up(patience::PATIENCE)).expect("caught up");
        bench
    }

    pub(crate) fn open(&self) -> Result<Client, ClientError> {
        Client::open(&self.addr, &Login::new(USER, USER).password("x"))
    }

    pub(crate) fn client(&self) -> Client {
        self.open().expect("a login")
    }

    /// Runs a statement that succeeds; returns the first value of its last row, or an empty text.
    #[track_caller]
    pub(crate) fn run(&self, client: &mut Client, sql: &str) -> String {
        let answer = client.query(sql).expect(sql);
        assert_eq!(answer.error(), None, "{sql}");
        answer.value().unwrap_or_default()
    }
}
