//! `pgweir run`: the proxy, from its configuration to its last client.

use std::path::PathBuf;

use pgweir_config::{Change, Config, ConfigErrors, ListenAddress};
use pgweir_proxy::Proxy;
use tracing::{error, info, warn};

use crate::args::{self, Run};
use crate::failure::Failure;
use crate::logging;
use crate::signals::{Request, Signals, Work};

/// Runs until a signal ends it.
pub(crate) fn run(arguments: &Run) -> Result<(), Failure> {
    logging::start(&arguments.log_level);
    let source = Source::of(arguments)?;
    let config = source.load()?;
    let mut shutdown_timeout = config.server.shutdown_timeout;
    // Before the proxy starts, so that a signal in between is not lost.
    let (runtime, mut signals) = Signals::listen()?;
    let proxy = Proxy::start(config)?;
    info!(
        "pgweir {} with {}",
        env!("CARGO_PKG_VERSION"),
        source.describe()
    );
    for address in proxy.addresses() {
        info!("listening on {address}");
    }
    let work = loop {
        match runtime.block_on(signals.next()) {
            Request::Hangup => {
                if let Some(config) = source.reload() {
                    shutdown_timeout = config.server.shutdown_timeout;
                    report(&proxy.reload(config));
                }
            }
            Request::Terminate => {
                let (clients, limit) = (proxy.client_count(), shutdown_timeout);
                info!("draining: {clients} clients have {limit:?} to finish their transactions");
                break Work::start("pgweir-drain", move || proxy.drain(limit))?;
            }
            Request::Interrupt => {
                info!(
                    "stopping: {} clients are disconnected",
                    proxy.client_count()
                );
                break Work::start("pgweir-stop", move || proxy.stop())?;
            }
        }
    };
    work.end_or_exit(&runtime, &mut signals)?;
    info!("stopped");
    Ok(())
}

/// Where the configuration comes from, with what the command line puts in its place.
struct Source {
    from: From,
    listen: Option<ListenAddress>,
    workers: Option<u16>,
}

enum From {
    File(PathBuf),
    Upstreams(Vec<String>),
}

impl Source {
    fn of(arguments: &Run) -> Result<Self, Failure> {
        let from = if arguments.upstream.is_empty() {
            let file = args::config_or_default(arguments.config.as_deref());
            From::File(file.ok_or(Failure::NoConfig)?)
        } else {
            From::Upstreams(arguments.upstream.clone())
        };
        Ok(Source {
            from,
            listen: arguments.listen.clone(),
            workers: arguments.workers,
        })
    }

    fn load(&self) -> Result<Config, ConfigErrors> {
        let mut config = match &self.from {
            From::File(path) => pgweir_config::load(path)?,
            From::Upstreams(urls) => pgweir_config::from_upstreams(urls, None)?,
        };
        if let Some(listen) = &self.listen {
            config.server.listen = vec![listen.clone()];
        }
        if let Some(workers) = self.workers {
            config.server.workers = workers;
        }
        Ok(config)
    }

    /// Returns the file's new content; logs why there is none to take over.
    fn reload(&self) -> Option<Config> {
        let From::File(path) = &self.from else {
            warn!("SIGHUP: there is no file to read again");
            return None;
        };
        match self.load() {
            Ok(config) => {
                info!("SIGHUP: {} is read again", path.display());
                Some(config)
            }
            Err(errors) => {
                for problem in &errors.0 {
                    error!("{problem}");
                }
                error!("SIGHUP: {} has errors; nothing is changed", path.display());
                None
            }
        }
    }

    fn describe(&self) -> String {
        match &self.from {
            From::File(path) => path.display().to_string(),
            // The URLs hold passwords.
            From::Upstreams(_) => "the servers of --upstream".to_owned(),
        }
    }
}

fn report(changes: &[Change]) {
    if changes.is_empty() {
        info!("nothing has changed");
    }
    for change in changes {
        let line = describe(change);
        if change.reloadable {
            info!("changed: {line}");
        } else {
            warn!("needs a restart: {line}");
        }
    }
}

fn describe(change: &Change) -> String {
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
    format!(
        "{}: {} -> {}",
        change.key,
        shown(&change.old),
        shown(&change.new)
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn arguments(config: Option<&Path>, upstream: &[&str]) -> Run {
        Run {
            config: config.map(Path::to_path_buf),
            listen: None,
            upstream: upstream.iter().map(|&url| url.to_owned()).collect(),
            workers: None,
            log_level: "info".to_owned(),
        }
    }

    #[test]
    fn the_command_line_wins_over_the_file_also_at_a_reload() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pgweir.toml");
        let text = "auth.method = 'trust'\nserver = { listen = ['127.0.0.1:1'], workers = 7 }\n\
                    clusters.main.backends = [{ host = 'pg1' }]\n";
        std::fs::write(&file, text).unwrap();
        let mut arguments = arguments(Some(&file), &[]);
        arguments.listen = Some(ListenAddress::Tcp("::1".to_owned(), 6000));
        let source = Source::of(&arguments).unwrap();
        for config in [source.load().unwrap(), source.reload().unwrap()] {
            assert_eq!(
                config.server.listen,
                [ListenAddress::Tcp("::1".to_owned(), 6000)]
            );
            assert_eq!(config.server.workers, 7);
        }
        std::fs::write(&file, "nonsense = 1").unwrap();
        assert_eq!(source.reload(), None);
    }

    #[test]
    fn servers_on_the_command_line_need_no_file_and_are_not_shown() {
        let source = Source::of(&arguments(None, &["postgres://app:secret@pg1,pg2/app"])).unwrap();
        assert_eq!(source.load().unwrap().clusters[0].backends.len(), 2);
        assert!(!source.describe().contains("secret"));
        assert_eq!(source.reload(), None);
    }

    #[test]
    fn a_change_shows_both_values() {
        let change = Change {
            key: "databases.app.pool_size".to_owned(),
            old: Some("20".to_owned()),
            new: None,
            reloadable: true,
        };
        assert_eq!(describe(&change), "databases.app.pool_size: 20 -> none");
    }
}
