//! `pgweir demo`: a real cluster, sample data and the proxy, on this machine and gone afterwards.
//!
//! The proxy is the same as that of `pgweir run`, from a configuration that the user can read; only the cluster is made up.
//! Whatever ends the process, the cluster goes with it: see `pgweir_devcluster`.

mod load;
mod meter;
mod sample;
mod screen;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pgweir_devcluster::Cluster;
use pgweir_model::{Health, Topology};
use pgweir_proxy::{Proxy, StartError};
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
            return stop(
                starting.end_or_exit(&runtime, &mut signals)?,
                &runtime,
                &mut signals,
            );
        }
    };
    let served = runtime.block_on(serve(&running, arguments, &mut signals));
    stop(Ok(running), &runtime, &mut signals)?;
    served
}

/// Shows what is there, and where the load goes, until a signal comes.
async fn serve(running: &Running, arguments: &Demo, signals: &mut Signals) -> Result<(), Failure> {
    tokio::select! {
        seen = running.wait_until_seen() => seen?,
        _request = signals.next() => return stopping(),
    }
    output::say(screen::welcome(running, arguments.load));
    if !arguments.load {
        signals.next().await;
        return stopping();
    }
    let load = Load::start(running.url()).map_err(Failure::io("start the load"))?;
    let mut meter = Meter::new(&running.cluster, load.tally());
    let second = Duration::from_secs(1);
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + second, second);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _request = signals.next() => break,
            _now = tick.tick() => meter.show(&running.cluster),
        }
    }
    load.stop();
    stopping()
}

#[expect(clippy::unnecessary_wraps, reason = "it ends functions that can fail")]
fn stopping() -> Result<(), Failure> {
    output::say("\nstopping…");
    Ok(())
}

/// Ends the proxy, then the servers; a further signal ends the process at once and leaves the rest to the watchdog.
fn stop(
    running: Result<Running, Failure>,
    runtime: &tokio::runtime::Runtime,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let running = running?;
    Work::start("pgweir-stop", move || running.stop())?.end_or_exit(runtime, signals)?;
    output::say("stopped");
    Ok(())
}

/// The demo while it runs.
#[derive(Debug)]
struct Running {
    proxy: Proxy,
    cluster: Cluster,
    port: u16,
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
        let (proxy, port) = start_proxy(&cluster, options.port, &config_file)?;
        Ok(Running {
            proxy,
            cluster,
            port,
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

    fn stop(self) {
        // The proxy first, or it would log that its servers go.
        self.proxy.stop();
        drop(self.cluster);
    }
}

/// Starts the proxy on `port`, or on the first free one of a few, and writes down its configuration.
fn start_proxy(
    cluster: &Cluster,
    port: Option<u16>,
    config_file: &std::path::Path,
) -> Result<(Proxy, u16), Failure> {
    let last = port.unwrap_or(DEMO_PORT + PORTS_TRIED - 1);
    let mut port = port.unwrap_or(DEMO_PORT);
    loop {
        let text = sample::config(cluster, port);
        std::fs::write(config_file, &text).map_err(Failure::io("write the demo's pgweir.toml"))?;
        let config = pgweir_config::parse(&text, &config_file.display().to_string())?;
        match Proxy::start(config) {
            Ok(proxy) => return Ok((proxy, port)),
            Err(StartError::Listen { .. }) if port < last => port += 1,
            Err(error) => return Err(error.into()),
        }
    }
}
