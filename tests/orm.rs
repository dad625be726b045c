//! Applications written with ORMs: each gets the same from the proxy as from PostgreSQL, and its read-only views run on
//! the replicas although the ORM opens a transaction around them.
//!
//! An application runs twice, in a database of its own each time: on the primary directly, and through the proxy in
//! transaction mode with a small pool. It has two parts, `steps` (migrations, transactions, cursors, bulk writes, ...) and
//! `views` (hundreds of functions that only read). `orm/README.md` says what an application must do.

use std::path::PathBuf;

use pgweir_devcluster::{Cluster, Node};
use pgweir_testkit::{Client, Login, eventually, patience::PATIENCE};

use crate::{
    drivers::{INSTALL_JAVA, INSTALL_NODE, INSTALL_PYTHON, Script, compare, installed, pgjdbc},
    support::{PASSWORD, Proxy, USER, cluster, config, root},
};

/// Views that each application runs; its transcript ends with this number.
const VIEWS: i64 = 300;

/// Percent of the reads of read-only views that replicas must have run.
const SHARE: i64 = 90;

/// Server connections of the proxy per backend: fewer than the applications have threads.
const POOL_SIZE: u32 = 4;

/// An application: how to run its two parts.
struct App {
    name: &'static str,
    part: fn(&'static str) -> Script,
    known: &'static [Known],
}

/// A step that gets something else through the proxy, which is a bug of the proxy. The test fails when it does not.
struct Known {
    step: &'static str,
    why: &'static str,
}

impl App {
    fn check(&self) {
        let direct = self.run_directly();
        let failed = direct.iter().find(|line| line.contains(": FAILED"));
        assert_eq!(failed, None, "{} fails without the proxy", self.name);
        let (proxied, scans) = self.run_through_proxy();
        let percent = scans.percent_on_replicas();
        println!(
            "{}: replicas ran {percent}% of the reads of {VIEWS} read-only views: {scans:?}",
            self.name
        );
        let (direct, proxied) = self.without_known(direct, proxied);
        compare(self.name, &direct, &proxied);
        assert!(
            scans.replicas * 100 > SHARE * scans.total(),
            "{}: replicas ran {percent}% of the reads of read-only views, not over {SHARE}%: {scans:?}",
            self.name
        );
    }

    fn without_known(
        &self,
        mut direct: Vec<String>,
        mut proxied: Vec<String>,
    ) -> (Vec<String>, Vec<String>) {
        for Known { step, why } in self.known {
            let of_step = |line: &mut String| line.starts_with(step);
            let left: Vec<_> = direct.extract_if(.., of_step).collect();
            let right: Vec<_> = proxied.extract_if(.., of_step).collect();
            assert_ne!(left, right, "{step} is right now, no longer: {why}");
        }
        (direct, proxied)
    }

    fn run_directly(&self) -> Vec<String> {
        let database = fresh_database(self.name, "direct");
        let url = cluster().primary().url_as(USER, PASSWORD, &database);
        let run = |part| (self.part)(part).run(&url);
        let steps = run("steps");
        avoid_nested_loops(&database);
        [steps, run("views")].concat()
    }

    /// Each part has its own proxy, as a server is sure to have counted what a connection did only when it is closed.
    fn run_through_proxy(&self) -> (Vec<String>, Scans) {
        let database = fresh_database(self.name, "proxied");
        let run = |part| {
            let proxy = proxy_with_replicas(&database);
            let url = format!("postgresql://{USER}:{PASSWORD}@{}/{database}", proxy.addr());
            let transcript = (self.part)(part).run(&url);
            end(proxy, &database);
            transcript
        };
        let steps = run("steps");
        avoid_nested_loops(&database);
        let before = Scans::so_far(&database);
        let views = run("views");
        let mut scans = before;
        eventually!({
            scans = Scans::so_far(&database).since(before);
            scans.total() >= VIEWS
        });
        ([steps, views].concat(), scans)
    }
}

/// Scans of the application's tables and their indexes, as the servers counted them. Catalogs are left out, and with them
/// what the proxy and the drivers ask for themselves.
#[derive(Clone, Copy, Debug)]
struct Scans {
    primary: i64,
    replicas: i64,
}

impl Scans {
    fn so_far(database: &str) -> Self {
        let on = |node: &Node| -> i64 {
            let sql = "SELECT coalesce(sum(seq_scan + coalesce(idx_scan, 0)), 0) FROM pg_stat_user_tables";
            let count = node.sql(database, sql).expect("the counters");
            count.trim().parse().expect("a number")
        };
        let cluster = cluster();
        Self {
            primary: on(cluster.primary()),
            replicas: on(cluster.replica(0)) + on(cluster.replica(1)),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            primary: self.primary - before.primary,
            replicas: self.replicas - before.replicas,
        }
    }

    fn total(self) -> i64 {
        self.primary + self.replicas
    }

    fn percent_on_replicas(self) -> i64 {
        self.replicas * 100 / self.total()
    }
}

/// Creates a database that belongs to [`USER`], on the primary and on the replicas.
fn fresh_database(app: &str, path: &str) -> String {
    let cluster = cluster();
    let database = format!("orm_{app}_{path}");
    let sql = format!("CREATE DATABASE {database} OWNER {USER} TEMPLATE template0");
    cluster.sql("postgres", &sql).expect("a database");
    cluster.wait_caught_up(PATIENCE).expect("caught up");
    database
}

/// A nested loop scans an index once per row: without them, no view counts for hundreds.
fn avoid_nested_loops(database: &str) {
    let sql = format!("ALTER DATABASE {database} SET enable_nestloop = off");
    cluster().sql("postgres", &sql).expect("a setting");
    cluster().wait_caught_up(PATIENCE).expect("caught up");
}

/// Starts a proxy and waits until it would use both replicas.
fn proxy_with_replicas(database: &str) -> Proxy {
    let text = config(cluster());
    let general = "[databases.\"*\"]\n";
    let small = text.replace(general, &format!("{general}pool_size = {POOL_SIZE}\n"));
    assert_ne!(text, small, "the configuration has no general database");
    let proxy = Proxy::start_ready(&small);
    let login = Login::new(USER, database).password(PASSWORD);
    let mut client = Client::open(proxy.addr(), &login).expect("the proxy takes the login");
    eventually!({
        let answer = client.query("EXPLAIN ROUTE SELECT 1").expect("an answer");
        let eligible = |row: &&Vec<Option<String>>| row[1].as_deref() == Some("eligible");
        answer.rows().iter().filter(eligible).count() == 2
    });
    proxy
}

/// Ends a proxy and waits until the servers have ended its sessions.
fn end(mut proxy: Proxy, database: &str) {
    proxy.signal("INT");
    proxy.wait(PATIENCE);
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'");
    let gone = |cluster: &Cluster| {
        let none = |node: &Node| node.sql("postgres", &sql).expect("a count").trim() == "0";
        cluster.nodes().iter().all(none)
    };
    eventually!(gone(cluster()));
}

fn apps() -> PathBuf {
    root().join("tests/orm")
}

fn python(name: &'static str, script: &str, part: &'static str) -> Script {
    let program = installed("venv/bin/python");
    Script {
        name,
        needs: vec![program.clone()],
        install: INSTALL_PYTHON,
        program,
        arguments: vec![apps().join(script), part.into()],
        environment: vec![("PYTHONDONTWRITEBYTECODE", "1".into())],
    }
}

#[test]
fn sqlalchemy_on_psycopg_gets_the_same_answers_and_reads_from_replicas() {
    App {
        name: "sqlalchemy_psycopg",
        part: |part| python("sqlalchemy_psycopg", "sqlalchemy_psycopg.py", part),
        known: &[],
    }
    .check();
}

#[test]
fn sqlalchemy_on_asyncpg_gets_the_same_answers_and_reads_from_replicas() {
    App {
        name: "sqlalchemy_asyncpg",
        part: |part| python("sqlalchemy_asyncpg", "sqlalchemy_asyncpg.py", part),
        known: &[Known {
            step: "around ALTER",
            why: "a statement that was described before its table changed is prepared anew unseen, and gives rows that do \
                  not fit the description, where PostgreSQL raises 0A000",
        }],
    }
    .check();
}

#[test]
fn django_gets_the_same_answers_and_reads_from_replicas() {
    App {
        name: "django",
        part: |part| python("django", "django_app.py", part),
        known: &[],
    }
    .check();
}

#[test]
fn pgjdbc_gets_the_same_answers_and_reads_from_replicas() {
    App {
        name: "jdbc",
        part: |part| {
            let jar = pgjdbc();
            Script {
                name: "jdbc",
                needs: vec![jar.clone()],
                install: INSTALL_JAVA,
                program: "java".into(),
                arguments: vec!["-cp".into(), jar, apps().join("jdbc/App.java"), part.into()],
                environment: Vec::new(),
            }
        },
        known: &[],
    }
    .check();
}

#[test]
fn typeorm_gets_the_same_answers_and_reads_from_replicas() {
    App {
        name: "typeorm",
        part: |part| {
            let modules = installed("node/node_modules");
            Script {
                name: "typeorm",
                needs: vec![modules.join("typeorm")],
                install: INSTALL_NODE,
                program: "node".into(),
                arguments: vec![apps().join("typeorm/app.js"), part.into()],
                environment: vec![("NODE_PATH", modules)],
            }
        },
        known: &[],
    }
    .check();
}
