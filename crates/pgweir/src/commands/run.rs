//! `pgweir run`: the proxy, from its configuration to its last client.

use std::time::Duration;

use pgweir_config::{ConfigErrors, Document, FileError, Origin, Overrides};
use pgweir_proxy::{EndOrders, Proxy, Shutdown};
use tokio::runtime::Runtime;
use tracing::{error, info, warn};

use crate::args::{self, Run};
use crate::failure::Failure;
use crate::logging::Logging;
use crate::signals::{Request, Signals, Work};

/// Runs until a signal, or an operator on the console, ends it.
pub(crate) fn run(arguments: &Run) -> Result<(), Failure> {
    let document = load(arguments)?;
    let logging = Logging::start(&document.config().log);
    let source = describe(&document);
    // Before the proxy starts, so that a signal in between is not lost.
    let (runtime, mut signals) = Signals::listen()?;
    let proxy = Proxy::start(document)?;
    proxy.on_config(move |config| logging.follow(&config.log));
    info!("pgweir {} with {source}", env!("CARGO_PKG_VERSION"));
    for address in proxy.addresses() {
        info!("listening on {address}");
    }
    let mut orders = proxy.end_orders();
    let end = loop {
        match runtime.block_on(next(&mut signals, &mut orders)) {
            Asked::Signal(Request::Hangup) => reload(&proxy, &source),
            Asked::Signal(Request::Terminate) => {
                break End::Drain(Some(proxy.config().server.shutdown_timeout));
            }
            Asked::Ordered(Shutdown::WaitForServers) => break End::Drain(None),
            Asked::Ordered(Shutdown::WaitForClients) => break End::Linger,
            Asked::Signal(Request::Interrupt) | Asked::Ordered(Shutdown::Now) => break End::Stop,
        }
    };
    end.carry_out(proxy, &runtime, &mut signals)?;
    info!("stopped");
    Ok(())
}

/// Reads the configuration, with what the command line puts in place of some of it.
fn load(arguments: &Run) -> Result<Document, Failure> {
    let origin = if arguments.upstream.is_empty() {
        let file = args::config_or_default(arguments.config.as_deref());
        Origin::File(file.ok_or(Failure::NoConfig)?)
    } else {
        Origin::Upstreams(arguments.upstream.clone())
    };
    let overrides = Overrides {
        listen: arguments.listen.clone(),
        workers: arguments.workers,
        log_level: arguments.log_level.clone(),
    };
    Ok(Document::load(origin, overrides)?)
}

/// What the main thread waits for.
enum Asked {
    Signal(Request),
    /// On the console.
    Ordered(Shutdown),
}

async fn next(signals: &mut Signals, orders: &mut EndOrders) -> Asked {
    tokio::select! {
        request = signals.next() => Asked::Signal(request),
        how = orders.next() => Asked::Ordered(how),
    }
}

/// How it ends.
enum End {
    Stop,
    /// Transactions have so long.
    Drain(Option<Duration>),
    Linger,
}

impl End {
    /// Ends the proxy. A signal meanwhile ends the process at once.
    fn carry_out(
        self,
        proxy: Proxy,
        runtime: &Runtime,
        signals: &mut Signals,
    ) -> Result<(), Failure> {
        let clients = proxy.client_count();
        let work = match self {
            End::Stop => {
                info!("stopping: {clients} clients are disconnected");
                Work::start("pgweir-stop", move || proxy.stop())?
            }
            End::Drain(Some(limit)) => {
                info!("draining: {clients} clients have {limit:?} to finish their transactions");
                Work::start("pgweir-drain", move || proxy.drain(limit))?
            }
            End::Drain(None) => {
                info!("draining: {clients} clients finish their transactions");
                Work::start("pgweir-drain", move || proxy.drain(Duration::MAX))?
            }
            End::Linger => {
                info!("no new clients are taken; {clients} are there and may stay");
                Work::start("pgweir-linger", move || proxy.linger())?
            }
        };
        work.end_or_exit(runtime, signals)
    }
}

/// Has the file read again; logs why there is nothing to take over.
fn reload(proxy: &Proxy, source: &str) {
    match proxy.reload() {
        Ok(changes) => {
            info!("SIGHUP: {source} is read again");
            pgweir_proxy::report(&changes);
        }
        Err(FileError::NoFile) => warn!("SIGHUP: there is no file to read again"),
        Err(FileError::Invalid(ConfigErrors(problems))) => {
            for problem in &problems {
                error!("{problem}");
            }
            error!("SIGHUP: {source} has errors; nothing is changed");
        }
        Err(problem) => error!("SIGHUP: {problem}; nothing is changed"),
    }
}

fn describe(document: &Document) -> String {
    match document.path() {
        Some(path) => path.display().to_string(),
        // The URLs hold passwords.
        None => "the servers of --upstream".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use pgweir_config::ListenAddress;

    use super::*;

    fn arguments(config: Option<&Path>, upstream: &[&str]) -> Run {
        Run {
            config: config.map(Path::to_path_buf),
            listen: None,
            upstream: upstream.iter().map(|&url| url.to_owned()).collect(),
            workers: None,
            log_level: None,
        }
    }

    #[test]
    fn the_command_line_wins_over_the_file_also_at_a_reload() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pgweir.toml");
        let text = "auth.method = 'trust'\nserver = { listen = ['127.0.0.1:1'], workers = 7 }\n\
                    clusters.main.backends = [{ host = 'pg1' }]\nlog.level = 'warn'\n";
        std::fs::write(&file, text).unwrap();
        let mut arguments = arguments(Some(&file), &[]);
        assert_eq!(&*load(&arguments).unwrap().config().log.level, "warn");
        arguments.listen = Some(ListenAddress::Tcp("::1".to_owned(), 6000));
        arguments.log_level = Some("debug".into());
        let document = load(&arguments).unwrap();
        for document in [document.reread().unwrap(), document.clone()] {
            let config = document.config();
            assert_eq!(
                config.server.listen,
                [ListenAddress::Tcp("::1".to_owned(), 6000)]
            );
            assert_eq!((config.server.workers, &*config.log.level), (7, "debug"));
        }
        std::fs::write(&file, "nonsense = 1").unwrap();
        assert!(matches!(document.reread(), Err(FileError::Invalid(_))));
    }

    #[test]
    fn servers_on_the_command_line_need_no_file_and_are_not_shown() {
        let document = load(&arguments(None, &["postgres://app:secret@pg1,pg2/app"])).unwrap();
        assert_eq!(document.config().clusters[0].backends.len(), 2);
        assert!(!describe(&document).contains("secret"));
        assert!(matches!(document.reread(), Err(FileError::NoFile)));
    }
}
