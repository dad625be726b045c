//! `cargo xtask`: the one toolbox of the project. It installs what a task needs, runs it, and says how it went.
//!
//! Everything that CI does is a task here, so that a developer's machine and CI cannot differ.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    reason = "a development tool talks to the terminal"
)]

mod bench;
mod graph;
mod setup;
mod steps;
mod suite;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

/// Development tasks of pgweir.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Checks and tests everything; with filters, runs only the tests whose names contain one
    Test {
        /// Only what needs no PostgreSQL and no driver: format, tidy, graph, unit tests
        #[arg(long)]
        fast: bool,
        /// Parts of test names
        filters: Vec<String>,
    },
    /// The same as CI runs it: locked dependencies, no incremental builds, dependency audit
    Ci,
    /// A real local cluster, the proxy and sample data (`--load` for traffic); arguments go to `pgweir demo`
    Demo {
        /// Arguments of `pgweir demo`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Compares the proxy with direct connections, `PgBouncer` and a raw relay
    Bench {
        /// Arguments of the bench
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Checks the workspace's dependencies against the floors of the house
    Graph,
    /// Checks the source for what no lint checks
    Tidy,
    /// Installs or names what the tests need, and does nothing else
    Setup,
}

fn main() -> ExitCode {
    let root = root();
    let outcome = match Arguments::parse().task {
        Task::Test { fast, filters } => {
            let kind = match (fast, filters.is_empty()) {
                (_, false) => suite::Kind::Filtered(filters),
                (true, true) => suite::Kind::Fast,
                (false, true) => suite::Kind::Full,
            };
            suite::run(&root, &kind)
        }
        Task::Ci => suite::run(&root, &suite::Kind::Ci),
        Task::Demo { arguments } => demo(&root, &arguments),
        Task::Bench { arguments } => setup::postgres()
            .and_then(|()| setup::pgbouncer())
            .and_then(|()| bench::run(&arguments)),
        Task::Graph => graph::check(&root),
        Task::Tidy => tidy::check(&root),
        Task::Setup => setup::all(&root),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's folder: two above this crate's.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest
        .ancestors()
        .nth(2)
        .unwrap_or(manifest)
        .to_path_buf()
}

/// The cargo that runs us.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

fn demo(root: &Path, arguments: &[String]) -> Result<(), String> {
    use std::os::unix::process::CommandExt as _;
    setup::postgres()?;
    println!("Building pgweir (release)…");
    // The demo takes our place, so that Ctrl-C and SIGTERM reach it and nothing stands between.
    let error = cargo(root)
        .args([
            "run",
            "--quiet",
            "--release",
            "--package",
            "pgweir",
            "--",
            "demo",
        ])
        .args(arguments)
        .exec();
    Err(format!("cargo run: {error}"))
}
