//! `pgweir demo`: a real cluster, sample data and the proxy, on this machine and gone afterwards.
//!
//! The proxy is the same as that of `pgweir run`, from a configuration that the user can read; only the cluster is made up.
//! Whatever ends the process, the cluster goes with it: see `pgweir_devcluster`.

mod load;
mod meter;
mod sample;
mod screen;

use std::net::TcpListener;
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};

use pgweir_config::{Document, Origin, Overrides};
use pgweir_devcluster::Cluster;
use pgweir_model::{Health, Topology};
use pgweir_proxy::{Proxy, Shutdown, StartError};
use tokio::time::MissedTickBehavior;

use self::load::Load;
use self::meter::Meter;
use crate::args::{DEMO_PORT, Demo};
use crate::failure::Failure;
use crate::signals::{Signals, Work};
use crate::{logging, output};

/// How many ports are tried, from [`DEMO_PORT`] on, when none is given.
///
/// Chosen: more than demos and poolers that run on one machine; a hundred refusals mean that something else is wrong.
const PORTS_TRIED: u16 = 100;

/// The first choice of a port for metrics and the page: that of `http.listen`.
const PAGE_PORT: u16 = 9632;

/// How long the proxy may take to find the servers, which are up by then. It takes a few polls of 100 ms.
const SEEN_WITHIN: Duration = Duration::from_secs(15);

/// Runs until a signal ends it; returns when nothing is left.
pub(crate) fn run(arguments: &Demo) -> Result<(), Failure> {
    logging::start(&arguments.log_level);
    let (runtime, mut signals) = Signals::listen()?;
    let options = arguments.clone();
    let mut starting = Work::start("pgweir-demo", move || Running::start(&options))?;
    let started = runtime.block_on(async {
        tokio::select! {
            started = starting.ended() => Some(started),
            _request = signals.next() => None,
        }
    });
    let running = match started {
        Some(running) => running??,
        None => {
            // Half a cluster cannot be told to end, so it is ended once it is whole: a second or two.
            output::say("\nstopping…");
            let running = starting.end_or_exit(&runtime, &mut signals)?;
            return stop(running?, Shutdown::Now, &runtime, &mut signals);
        }
    };
    let served = runtime.block_on(serve(&running, arguments, &mut signals));
    let how = *served.as_ref().unwrap_or(&Shutdown::Now);
    stop(running, how, &runtime, &mut signals)?;
    served.map(drop)
}

/// Shows what is there, and where the load goes, until a signal comes or an operator orders an end; returns which.
async fn serve(
    running: &Running,
    arguments: &Demo,
    signals: &mut Signals,
) -> Result<Shutdown, Failure> {
    let mut orders = running.proxy.end_orders();
    let mut ended = pin!(async {
        tokio::select! {
            _request = signals.next() => Shutdown::Now,
            how = orders.next() => how,
        }
    });
    tokio::select! {
        seen = running.wait_until_seen() => seen?,
        how = &mut ended => return Ok(stopping(how)),
    }
    output::say(screen::welcome(running, arguments.load));
    if !arguments.load {
        return Ok(stopping(ended.await));
    }
    let load = Load::start(running.url()).map_err(Failure::io("start the load"))?;
    let mut meter = Meter::new(&running.cluster, load.tally());
    let second = Duration::from_secs(1);
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + second, second);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let how = loop {
        tokio::select! {
            how = &mut ended => break how,
            _now = tick.tick() => meter.show(&running.cluster),
        }
    };
    load.stop();
    Ok(stopping(how))
}

fn stopping(how: Shutdown) -> Shutdown {
    output::say("\nstopping…");
    how
}

/// Ends the proxy, then the servers; a further signal ends the process at once and leaves the rest to the watchdog.
fn stop(
    running: Running,
    how: Shutdown,
    runtime: &tokio::runtime::Runtime,
    signals: &mut Signals,
) -> Result<(), Failure> {
    Work::start("pgweir-stop", move || running.stop(how))?.end_or_exit(runtime, signals)?;
    output::say("stopped");
    Ok(())
}

/// The demo while it runs.
#[derive(Debug)]
struct Running {
    proxy: Proxy,
    cluster: Cluster,
    port: u16,
    /// Where the page is, if a port was free for it.
    page: Option<u16>,
    config_file: PathBuf,
}

impl Running {
    /// Starts the cluster with its data, then the proxy. Blocks for some seconds.
    fn start(options: &Demo) -> Result<Self, Failure> {
        let mut builder = Cluster::builder()
            .replicas(usize::from(options.replicas))
            .role(sample::USER, sample::PASSWORD)
            .role(sample::MONITOR, sample::MONITOR_PASSWORD)
            .sql(format!("GRANT pg_monitor TO {}", sample::MONITOR))
            .sql(format!(
                "CREATE DATABASE {} OWNER {}",
                sample::DATABASE,
                sample::USER
            ));
        if let Some(dir) = &options.dir {
            builder = builder.under(dir);
        }
        let cluster = builder.start()?;
        cluster.sql(sample::DATABASE, sample::SQL)?;
        let config_file = cluster.folder().join("pgweir.toml");
        let page = free_page_port();
        let (proxy, port) = start_proxy(&cluster, options.port, page, &config_file)?;
        Ok(Running {
            proxy,
            cluster,
            port,
            page,
            config_file,
        })
    }

    /// Returns the URL of the sample database through the proxy.
    fn url(&self) -> String {
        let (user, password, database) = (sample::USER, sample::PASSWORD, sample::DATABASE);
        format!(
            "postgres://{user}:{password}@127.0.0.1:{}/{database}",
            self.port
        )
    }

    /// Returns the URL of the console.
    fn console(&self) -> String {
        let (user, password) = (sample::OPERATOR, sample::OPERATOR_PASSWORD);
        let database = &self.proxy.config().admin.database;
        format!(
            "postgres://{user}:{password}@127.0.0.1:{}/{database}",
            self.port
        )
    }

    /// Waits until the proxy takes every server for what it is, so that the first query is split already.
    async fn wait_until_seen(&self) -> Result<(), Failure> {
        let replicas = self.cluster.nodes().len().saturating_sub(1);
        let all = |topology: &Topology| {
            let ready =
                |node: &&pgweir_model::Node| node.health == Health::Up && node.within_max_lag;
            topology.primary.is_some() && topology.replicas().filter(ready).count() == replicas
        };
        let seen = match self.proxy.cluster(0) {
            Some(monitor) => monitor.wait_until(Instant::now() + SEEN_WITHIN, all).await,
            None => None,
        };
        seen.map(drop).ok_or(Failure::NotSeen {
            waited: SEEN_WITHIN,
        })
    }

    fn stop(self, how: Shutdown) {
        // The proxy first, or it would log that its servers go.
        match how {
            Shutdown::Now => self.proxy.stop(),
            Shutdown::WaitForServers => self.proxy.drain(Duration::MAX),
            Shutdown::WaitForClients => self.proxy.linger(),
        }
        drop(self.cluster);
    }
}

/// Returns the first free port for the page. Another process may take it before the proxy does, which then says so in its log.
fn free_page_port() -> Option<u16> {
    (PAGE_PORT..PAGE_PORT + PORTS_TRIED)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
}

/// Starts the proxy on `port`, or on the first free one of a few, and writes down its configuration.
fn start_proxy(
    cluster: &Cluster,
    port: Option<u16>,
    page: Option<u16>,
    config_file: &std::path::Path,
) -> Result<(Proxy, u16), Failure> {
    let last = port.unwrap_or(DEMO_PORT + PORTS_TRIED - 1);
    let mut port = port.unwrap_or(DEMO_PORT);
    loop {
        let text = sample::config(cluster, port, page);
        std::fs::write(config_file, &text).map_err(Failure::io("write the demo's pgweir.toml"))?;
        let origin = Origin::File(config_file.to_path_buf());
        match Proxy::start(Document::load(origin, Overrides::default())?) {
            Ok(proxy) => return Ok((proxy, port)),
            Err(StartError::Listen { .. }) if port < last => port += 1,
            Err(error) => return Err(error.into()),
        }
    }
}
