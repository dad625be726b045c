//! Why a command failed, and the exit code that says so.

use std::process::ExitCode;

use pgweir_config::ConfigErrors;
use pgweir_devcluster::ClusterError;
use pgweir_proxy::StartError;

/// A command's failure; displayed as the whole text for the terminal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The configuration is wrong. Every line names its place, so that an editor can jump there.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// There is nothing to run with.
    #[error(
        "pgweir: no configuration: there is no {} here; name the file with --config FILE, or the servers with\n        --upstream postgres://user:password@host1,host2/database",
        crate::args::DEFAULT_CONFIG
    )]
    NoConfig,
    /// The configuration has no database of that name.
    #[error("pgweir: there is no database {name} in the configuration{}", suggest(.nearest.as_deref()))]
    UnknownDatabase {
        /// The name that was asked for.
        name: String,
        /// A name that it may be a slip of.
        nearest: Option<String>,
    },
    /// The proxy did not start.
    #[error("pgweir: {0}")]
    Start(#[from] StartError),
    /// The demo's PostgreSQL did not start.
    #[error("pgweir: {0}")]
    Cluster(#[from] ClusterError),
    /// The proxy runs and does not find the demo's servers.
    #[error(
        "pgweir: the proxy did not find the demo's servers within {waited:?}; see its log above"
    )]
    NotSeen {
        /// How long.
        waited: std::time::Duration,
    },
    /// The catalog that `--schema` names could not be read in time.
    #[error(
        "pgweir: the catalog could not be read within {waited:?}; does the URL name the primary, and may its user log in there?"
    )]
    NoCatalog {
        /// How long.
        waited: std::time::Duration,
    },
    /// The console of a running proxy does not answer as it should.
    #[error("pgweir: {0}")]
    Console(String),
    /// A call of the operating system failed.
    #[error("pgweir: {op}: {source}")]
    Io {
        /// What was tried, as a verb and its object.
        op: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A thread of ours ended by a panic, which has been reported by then.
    #[error("pgweir: {0} ended by a panic")]
    Panicked(&'static str),
}

impl Failure {
    /// Returns a closure that wraps an I/O error with what was tried.
    pub(crate) fn io(op: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Failure::Io { op, source }
    }

    /// Returns the code for the shell.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Config(_) | Failure::NoConfig | Failure::UnknownDatabase { .. } => {
                ExitCode::from(2)
            }
            Failure::Start(_)
            | Failure::Cluster(_)
            | Failure::NotSeen { .. }
            | Failure::NoCatalog { .. }
            | Failure::Console(_)
            | Failure::Io { .. }
            | Failure::Panicked(_) => ExitCode::FAILURE,
        }
    }
}

fn suggest(nearest: Option<&str>) -> String {
    nearest
        .map(|name| format!("; did you mean {name}?"))
        .unwrap_or_default()
}
