//! The command line: what can be said, and how it is explained.
//!
//! Every flag has an environment variable of the same meaning; the command line wins.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand};
use pgweir_config::ListenAddress;

/// The file that is read where none is named.
pub(crate) const DEFAULT_CONFIG: &str = "pgweir.toml";

/// The demo's first choice of a port.
pub(crate) const DEMO_PORT: u16 = 6432;

const EXAMPLES: &str = "\
Examples:
  pgweir demo                              a cluster of three, the proxy and sample data, for a look
  pgweir run --upstream postgres://app:secret@pg1,pg2,pg3/app
                                           the proxy with no file: the roles of the servers are detected
  pgweir run --config pgweir.toml          the proxy
  pgweir route \"SELECT now()\"              why a statement goes where it goes

Exit codes: 0, 1 for a failure at run time, 2 for wrong usage or a wrong configuration.";

const RUN_HELP: &str = "\
Signals:
  SIGTERM  drains: refuses new clients and lets transactions finish, up to server.shutdown_timeout
  SIGINT   ends at once
  SIGHUP   reads the file again; a file with errors changes nothing

Examples:
  pgweir run
  pgweir run --config /etc/pgweir/pgweir.toml
  pgweir run --upstream postgres://app:secret@pg1:5432,pg2:5432/app --listen 0.0.0.0:6432
  PGWEIR_UPSTREAM=postgres://app:secret@pg1,pg2/app pgweir run    keeps the password out of `ps`";

const CHECK_HELP: &str = "\
Every problem is printed with its file and line; the exit code is 2 then.

Example:
  pgweir check --config pgweir.toml && systemctl reload pgweir";

const ROUTE_HELP: &str = "\
Nothing is connected to. All servers are taken as healthy and the replicas as without lag; \
without a configuration there are one primary and two replicas.
Through a running proxy, `EXPLAIN ROUTE SELECT ...` shows the decision as things stand.

Examples:
  pgweir route \"SELECT * FROM orders\"
  pgweir route \"SELECT nextval('ids')\" --config pgweir.toml --database app";

const DEMO_HELP: &str = "\
It needs PostgreSQL's server programs (13 or newer) on this machine, and runs them on free ports of the loopback \
interface. Ctrl-C ends everything and removes the folder.

Examples:
  pgweir demo
  pgweir demo --load
  pgweir demo --replicas 3 --port 7000 --dir /var/tmp";

const TOP_HELP: &str = "\
It is a client of the console, and shows its tables: backends, pools, routes, statements, clients, events.
Keys: 1-6 or Tab another view, left and right the column to sort by, r reverse, / filter, q quit.

Examples:
  pgweir top postgres://admin:secret@localhost:6432/pgweir
  pgweir top --once | less";

/// A SQL-aware PostgreSQL proxy: pools connections, sends writes to the primary and spreads reads over the replicas.
#[derive(Debug, Parser)]
#[command(name = "pgweir", version, about, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs the proxy
    #[command(after_help = RUN_HELP)]
    Run(Run),
    /// Checks a configuration without using it
    #[command(after_help = CHECK_HELP)]
    Check(Check),
    /// Explains where a statement would go, and why
    #[command(after_help = ROUTE_HELP)]
    Route(Route),
    /// Starts a real local cluster with sample data and the proxy in front of it
    #[command(after_help = DEMO_HELP)]
    Demo(Demo),
    /// Shows a running proxy in the terminal, live
    #[command(after_help = TOP_HELP)]
    Top(Top),
}

/// `pgweir run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Configuration file [default: pgweir.toml, if there is one]
    #[arg(
        long,
        value_name = "FILE",
        env = "PGWEIR_CONFIG",
        conflicts_with = "upstream"
    )]
    pub(crate) config: Option<PathBuf>,
    /// Address to accept clients on, in place of the file's: host:port or unix:/folder
    #[arg(long, value_name = "ADDR", env = "PGWEIR_LISTEN", value_parser = listen_address)]
    pub(crate) listen: Option<ListenAddress>,
    /// Servers, in place of a file: postgres://user:password@host1:port,host2:port/database
    ///
    /// May be given several times; the variable takes several with a space between. Clients log in with the same user and
    /// password. Without a password everyone is let in, as on the servers.
    #[arg(
        long,
        value_name = "URL",
        env = "PGWEIR_UPSTREAM",
        hide_env_values = true,
        value_delimiter = ' '
    )]
    pub(crate) upstream: Vec<String>,
    /// Worker threads, in place of the file's; 0 is one per core
    #[arg(
        long,
        value_name = "N",
        env = "PGWEIR_WORKERS",
        value_parser = clap::value_parser!(u16).range(0..=1024)
    )]
    pub(crate) workers: Option<u16>,
    /// How much is logged, in place of the file's: error, warn, info, debug, trace, or target=level,...
    #[arg(
        long,
        value_name = "LEVEL",
        env = "PGWEIR_LOG_LEVEL",
        value_parser = pgweir_config::log_level
    )]
    pub(crate) log_level: Option<Arc<str>>,
}

/// `pgweir check`.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "PGWEIR_CONFIG", default_value = DEFAULT_CONFIG)]
    pub(crate) config: PathBuf,
}

/// `pgweir route`.
#[derive(Debug, Args)]
pub(crate) struct Route {
    /// The statement
    pub(crate) sql: String,
    /// Configuration file [default: pgweir.toml, if there is one]
    #[arg(long, value_name = "FILE", env = "PGWEIR_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// The database whose settings count [default: the first of the file]
    #[arg(long, value_name = "NAME", env = "PGWEIR_DATABASE")]
    pub(crate) database: Option<String>,
    /// The role that rules see [default: the first of the file]
    #[arg(long, value_name = "NAME", env = "PGWEIR_USER")]
    pub(crate) user: Option<String>,
    /// The application_name that rules see
    #[arg(
        long,
        value_name = "NAME",
        env = "PGWEIR_APPLICATION",
        default_value = ""
    )]
    pub(crate) application: String,
    /// Where the functions, views and tables of the statement are: postgres://user:password@host/database, or a file of SQL
    ///
    /// A file (`pg_dump --schema-only`) is loaded into a PostgreSQL of its own, which needs the server's programs here.
    #[arg(
        long,
        value_name = "URL|FILE",
        env = "PGWEIR_SCHEMA",
        hide_env_values = true
    )]
    pub(crate) schema: Option<String>,
    /// The search_path under which names without a schema are looked up
    #[arg(
        long,
        value_name = "PATH",
        env = "PGWEIR_SEARCH_PATH",
        default_value = "\"$user\", public"
    )]
    pub(crate) search_path: String,
}

/// `pgweir demo`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Demo {
    /// Streaming replicas
    #[arg(
        long,
        value_name = "N",
        env = "PGWEIR_REPLICAS",
        default_value_t = 2,
        value_parser = clap::value_parser!(u8).range(0..=16)
    )]
    pub(crate) replicas: u8,
    /// Port of the proxy [default: 6432, or the next that is free]
    #[arg(
        long,
        value_name = "PORT",
        env = "PGWEIR_PORT",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub(crate) port: Option<u16>,
    /// Folder to make the cluster's own folder in [default: that for temporary files]
    #[arg(long, value_name = "DIR", env = "PGWEIR_DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Runs reads and writes through the proxy and shows every second where they went
    #[arg(long, env = "PGWEIR_LOAD", value_parser = FalseyValueParser::new())]
    pub(crate) load: bool,
    /// How much is logged: error, warn, info, debug, trace, or target=level,...
    #[arg(
        long,
        value_name = "LEVEL",
        env = "PGWEIR_LOG_LEVEL",
        default_value = "warn",
        value_parser = pgweir_config::log_level
    )]
    pub(crate) log_level: Arc<str>,
}

/// `pgweir top`.
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// The console: postgres://user:password@host:port/pgweir
    ///
    /// The user must be one of admin.users or admin.viewers.
    #[arg(
        value_name = "URL",
        env = "PGWEIR_CONSOLE",
        hide_env_values = true,
        default_value = "postgres://localhost:6432/pgweir"
    )]
    pub(crate) url: String,
    /// Seconds between two pictures
    #[arg(
        long,
        value_name = "SECONDS",
        env = "PGWEIR_INTERVAL",
        default_value_t = 1.0
    )]
    pub(crate) interval: f64,
    /// Prints two pictures' worth as text and ends; so it does where the output is no terminal
    #[arg(long, env = "PGWEIR_ONCE", value_parser = FalseyValueParser::new())]
    pub(crate) once: bool,
}

/// Returns the named file, else the default one if it exists.
pub(crate) fn config_or_default(named: Option<&Path>) -> Option<PathBuf> {
    let default = || Some(PathBuf::from(DEFAULT_CONFIG)).filter(|path| path.exists());
    named.map(Path::to_path_buf).or_else(default)
}

/// Reads a listening address by the rules of the configuration.
fn listen_address(text: &str) -> Result<ListenAddress, String> {
    // The configuration's own reader decides; the server beside it only makes the configuration whole.
    let servers = ["postgres://localhost".to_owned()];
    match pgweir_config::from_upstreams(&servers, Some(text)) {
        Ok(config) => config
            .server
            .listen
            .into_iter()
            .next()
            .ok_or_else(|| "no address".to_owned()),
        Err(errors) => {
            let messages: Vec<String> = errors.0.into_iter().map(|error| error.message).collect();
            Err(messages.join("; "))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace()).map(|arguments| arguments.command)
    }

    fn refusal(line: &str) -> ErrorKind {
        parse(line).unwrap_err().kind()
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_flag_has_an_environment_variable() {
        for command in Arguments::command().get_subcommands() {
            for flag in command
                .get_arguments()
                .filter(|argument| argument.get_long().is_some())
            {
                let name = flag
                    .get_env()
                    .map(|name| name.to_string_lossy().into_owned());
                assert!(
                    name.is_some_and(|name| name.starts_with("PGWEIR_")),
                    "{flag:?}"
                );
            }
        }
    }

    #[test]
    fn no_command_prints_help() {
        let shown = ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        assert_eq!(refusal("pgweir"), shown);
        assert_eq!(refusal("pgweir --version"), ErrorKind::DisplayVersion);
    }

    #[test]
    fn run_takes_several_servers_and_an_address() {
        let line = "pgweir run --upstream postgres://a@h1 --upstream postgres://h2 --listen [::1]:7000 --workers 3";
        let Ok(Command::Run(run)) = parse(line) else {
            panic!("not run");
        };
        assert_eq!(run.upstream, ["postgres://a@h1", "postgres://h2"]);
        assert_eq!(run.listen, Some(ListenAddress::Tcp("::1".to_owned(), 7000)));
        assert_eq!(
            (run.workers, run.config, run.log_level),
            (Some(3), None, None)
        );
    }

    #[test]
    fn refuses_what_cannot_be_meant() {
        let cases = [
            (
                "pgweir run --config f --upstream postgres://h",
                ErrorKind::ArgumentConflict,
            ),
            (
                "pgweir run --listen nowhere:port",
                ErrorKind::ValueValidation,
            ),
            ("pgweir run --workers 1025", ErrorKind::ValueValidation),
            ("pgweir run --log-level loud", ErrorKind::ValueValidation),
            ("pgweir demo --port 0", ErrorKind::ValueValidation),
            ("pgweir demo --replicas 17", ErrorKind::ValueValidation),
            ("pgweir check --connect", ErrorKind::UnknownArgument),
            ("pgweir route", ErrorKind::MissingRequiredArgument),
            ("pgweir serve", ErrorKind::InvalidSubcommand),
        ];
        for (line, kind) in cases {
            assert_eq!(refusal(line), kind, "{line}");
        }
    }

    #[test]
    fn the_demo_has_two_replicas_and_no_load_unless_told() {
        let Ok(Command::Demo(demo)) = parse("pgweir demo") else {
            panic!("not demo");
        };
        assert_eq!((demo.replicas, demo.port, demo.load), (2, None, false));
        let Ok(Command::Demo(demo)) = parse("pgweir demo --load --port 7000") else {
            panic!("not demo");
        };
        assert_eq!((demo.port, demo.load), (Some(7000), true));
    }
}
