//! The drivers' scripts: each gets the same from the proxy as from PostgreSQL.
//!
//! `drivers/README.md` says what the scripts need and which command installs it; a test of a missing driver fails and names
//! the command.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use pgweir_testkit::patience::wait_until;

use crate::support::{DATABASE, PASSWORD, Proxy, USER, cluster, config, root};

mod tokio_postgres;

/// A script takes a few seconds; this is for a loaded machine.
const SCRIPT_DEADLINE: Duration = Duration::from_secs(240);

/// Installs what the Python scripts import.
pub(crate) const INSTALL_PYTHON: &str = "python3 -m venv target/drivers/venv && target/drivers/venv/bin/pip install --requirement tests/drivers/requirements.txt";

/// Installs what the Node scripts import.
pub(crate) const INSTALL_NODE: &str = "mkdir -p target/drivers/node && cp tests/drivers/node/package*.json target/drivers/node/ && npm ci --prefix target/drivers/node (and: apt-get install --yes nodejs npm)";

/// Installs what the Java sources need.
pub(crate) const INSTALL_JAVA: &str =
    "apt-get install --yes default-jdk-headless libpostgresql-jdbc-java";

/// A program that prints what it gets, and `done` at its end.
pub(crate) struct Script {
    /// The driver's name, and the prefix of the script's tables.
    pub(crate) name: &'static str,
    /// What must be there, beside the program itself.
    pub(crate) needs: Vec<PathBuf>,
    /// The command that installs the driver.
    pub(crate) install: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<PathBuf>,
    pub(crate) environment: Vec<(&'static str, PathBuf)>,
}

impl Script {
    /// Runs the script on a direct connection and through the proxy, and compares the transcripts.
    fn check(&self) {
        let direct = self.run(&direct_url());
        let proxy = Proxy::start_ready(&config(cluster()));
        let proxied = self.run(&proxy.url());
        compare(self.name, &direct, &proxied);
    }

    /// Runs the script on a connection URL and returns its transcript.
    pub(crate) fn run(&self, url: &str) -> Vec<String> {
        for path in &self.needs {
            assert!(
                path.exists(),
                "{} is missing; install it with: {}",
                path.display(),
                self.install
            );
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (stdout, stderr) = (folder.path().join("stdout"), folder.path().join("stderr"));
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .args([url, self.name])
            .envs(self.environment.iter().map(|(name, value)| (*name, value)))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).expect("a file for the transcript"))
            .stderr(File::create(&stderr).expect("a file for the messages"))
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "{}: {error}; install it with: {}",
                    self.program.display(),
                    self.install
                )
            });
        let ended = wait_until(SCRIPT_DEADLINE, || matches!(child.try_wait(), Ok(Some(_))));
        if !ended {
            let _already_gone = child.kill();
            let _reaped = child.wait();
        }
        let read = |path: &Path| {
            let bytes = fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let transcript: Vec<String> = read(&stdout).lines().map(str::to_owned).collect();
        let done = transcript.last().is_some_and(|line| line == "done");
        let last_lines = transcript.iter().skip(transcript.len().saturating_sub(10));
        let last_lines = last_lines.cloned().collect::<Vec<_>>().join("\n");
        assert!(
            ended && done,
            "the script of {} {} on {url}; its last lines:\n{}\nand on stderr:\n{}",
            self.name,
            if ended { "failed" } else { "hangs" },
            last_lines,
            read(&stderr),
        );
        transcript
    }
}

fn direct_url() -> String {
    cluster().primary().url_as(USER, PASSWORD, DATABASE)
}

/// Asserts that two transcripts are equal; shows the first few differences, each after the line before it.
pub(crate) fn compare(name: &str, direct: &[String], proxied: &[String]) {
    const SHOWN: usize = 10;
    let mut differences = Vec::new();
    for index in 0..direct.len().max(proxied.len()) {
        let (left, right) = (direct.get(index), proxied.get(index));
        if left != right {
            let nothing = "(nothing)".to_owned();
            let before = index.checked_sub(1).and_then(|before| direct.get(before));
            differences.push(format!(
                "line {}, after: {}\n  direct:  {}\n  proxied: {}",
                index + 1,
                before.unwrap_or(&nothing),
                left.unwrap_or(&nothing),
                right.unwrap_or(&nothing)
            ));
        }
    }
    let count = differences.len();
    differences.truncate(SHOWN);
    assert!(
        differences.is_empty(),
        "{name} gets other answers in {count} lines\n{}",
        differences.join("\n")
    );
}

fn scripts() -> PathBuf {
    root().join("tests/drivers")
}

/// Returns a path in the folder where the drivers are installed.
pub(crate) fn installed(path: &str) -> PathBuf {
    std::env::var_os("PGWEIR_DRIVERS")
        .map_or_else(|| root().join("target/drivers"), PathBuf::from)
        .join(path)
}

/// Returns the driver's jar, Debian's unless `PGJDBC_JAR` names another.
pub(crate) fn pgjdbc() -> PathBuf {
    std::env::var_os("PGJDBC_JAR").map_or_else(
        || PathBuf::from("/usr/share/java/postgresql.jar"),
        PathBuf::from,
    )
}

fn python(name: &'static str, script: &str) -> Script {
    let program = installed("venv/bin/python");
    Script {
        name,
        needs: vec![program.clone()],
        install: INSTALL_PYTHON,
        program,
        arguments: vec![scripts().join(script)],
        environment: Vec::new(),
    }
}

#[test]
fn psql_gets_the_same_answers() {
    Script {
        name: "psql",
        needs: Vec::new(),
        install: "apt-get install --yes postgresql-client",
        program: "bash".into(),
        arguments: vec![scripts().join("psql.sh")],
        environment: cluster()
            .binaries()
            .client("psql")
            .map(|psql| ("PSQL", psql))
            .into_iter()
            .collect(),
    }
    .check();
}

#[test]
fn psycopg_gets_the_same_answers() {
    python("psycopg3", "psycopg3.py").check();
}

#[test]
fn asyncpg_gets_the_same_answers() {
    python("asyncpg", "asyncpg_script.py").check();
}

#[test]
fn node_postgres_gets_the_same_answers() {
    let modules = installed("node/node_modules");
    Script {
        name: "node",
        needs: vec![modules.join("pg"), modules.join("pg-copy-streams")],
        install: INSTALL_NODE,
        program: "node".into(),
        arguments: vec![scripts().join("node/script.js")],
        environment: vec![("NODE_PATH", modules)],
    }
    .check();
}

#[test]
fn pgjdbc_gets_the_same_answers() {
    let jar = pgjdbc();
    Script {
        name: "jdbc",
        needs: vec![jar.clone()],
        install: INSTALL_JAVA,
        program: "java".into(),
        arguments: vec!["-cp".into(), jar, scripts().join("jdbc/Script.java")],
        environment: Vec::new(),
    }
    .check();
}

#[test]
fn tokio_postgres_gets_the_same_answers() {
    let direct = tokio_postgres::transcript(&direct_url(), "tokio");
    let proxy = Proxy::start_ready(&config(cluster()));
    let proxied = tokio_postgres::transcript(&proxy.url(), "tokio");
    compare("tokio-postgres", &direct, &proxied);
}
