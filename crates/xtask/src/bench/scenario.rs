//! The scenarios, each a way to call `pgbench`, and what one run of it says.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::process::output_within;

/// Over the time that a run was asked to take: for connecting, and for a slow end.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Workload {
    /// `pgbench -S`: one lookup by primary key.
    Select,
    /// The TPC-B-like script: five statements in a transaction block, writes among them.
    TpcB,
    /// `pgbench -S -C`: a new connection for each lookup.
    Connect,
}

/// `pgbench -M`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Simple,
    Extended,
    Prepared,
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Simple, Self::Extended, Self::Prepared];

    fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Prepared => "prepared",
        }
    }
}

/// One row of the bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scenario {
    pub(super) workload: Workload,
    pub(super) protocol: Protocol,
    pub(super) clients: u32,
}

impl Scenario {
    /// A new connection for each transaction.
    pub(super) const CONNECT: Self = Self {
        workload: Workload::Connect,
        protocol: Protocol::Simple,
        clients: 16,
    };

    /// Lookups in each protocol with each of these numbers of clients, and TPC-B.
    pub(super) fn set(clients: &[u32]) -> Vec<Self> {
        let select = clients.iter().flat_map(|&clients| {
            Protocol::ALL.map(|protocol| Self {
                workload: Workload::Select,
                protocol,
                clients,
            })
        });
        let tpc_b = Self {
            workload: Workload::TpcB,
            protocol: Protocol::Prepared,
            clients: 16,
        };
        select.chain([tpc_b]).collect()
    }

    /// A short name, unique in a set.
    pub(super) fn name(self) -> String {
        let (protocol, clients) = (self.protocol.name(), self.clients);
        match self.workload {
            Workload::Select => format!("select {protocol} {clients}"),
            Workload::TpcB => format!("tpcb {protocol} {clients}"),
            Workload::Connect => format!("connect {clients}"),
        }
    }

    /// A heading.
    pub(super) fn title(self) -> String {
        let protocol = self.protocol.name();
        let what = match self.workload {
            Workload::Select => format!("pgbench -S, {protocol}"),
            Workload::TpcB => format!("pgbench TPC-B-like, {protocol}"),
            Workload::Connect => "pgbench -S -C: a new connection (SCRAM) per transaction".into(),
        };
        match self.clients {
            1 => format!("{what}, 1 client"),
            clients => format!("{what}, {clients} clients"),
        }
    }

    fn arguments(self) -> Vec<&'static str> {
        let mut arguments = vec!["-n", "-M", self.protocol.name()];
        arguments.extend(match self.workload {
            Workload::Select => &["-S"][..],
            Workload::TpcB => &[],
            Workload::Connect => &["-S", "-C"],
        });
        arguments
    }

    /// Whether each transaction's time is wanted: with one client it is the latency itself, with more it is mostly queueing.
    fn logs(self) -> bool {
        self.clients == 1
    }

    /// Runs it once with `pgbench`, a command that is set to connect, in `folder`, which may hold nothing else.
    pub(super) fn run(
        self,
        mut pgbench: Command,
        seconds: u32,
        folder: &Path,
    ) -> Result<Figures, String> {
        // More threads than cores only take turns.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = usize::try_from(self.clients).unwrap_or(1).min(cores);
        pgbench
            .args(self.arguments())
            .args(["-c", &self.clients.to_string()])
            .args(["-j", &threads.to_string()])
            .args(["-T", &seconds.to_string()]);
        if self.logs() {
            pgbench
                .arg("-l")
                .arg("--log-prefix")
                .arg(folder.join("log"));
        }
        let limit = Duration::from_secs(seconds.into()) + PATIENCE;
        let output = output_within(&mut pgbench, limit)?;
        let mut figures =
            Figures::parse(&output).ok_or_else(|| format!("pgbench printed:\n{output}"))?;
        if self.logs() {
            let mut times = take_log(folder)?;
            times.sort_unstable();
            figures.p50_ms = percentile(&times, 50);
            figures.p99_ms = percentile(&times, 99);
        }
        Ok(figures)
    }
}

/// What `pgbench` says of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Figures {
    pub(super) tps: f64,
    pub(super) transactions: u64,
    pub(super) latency_ms: f64,
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
}

impl Figures {
    fn parse(output: &str) -> Option<Self> {
        let after = |prefix: &str| {
            let rest = output.lines().find_map(|line| line.strip_prefix(prefix))?;
            // `1234/5000` is what a run with -t says.
            rest.split([' ', '/']).find(|word| !word.is_empty())
        };
        let figures = Self {
            tps: after("tps =")?.parse().ok()?,
            transactions: after("number of transactions actually processed:")?
                .parse()
                .ok()?,
            latency_ms: after("latency average =")?.parse().ok()?,
            p50_ms: None,
            p99_ms: None,
        };
        (figures.transactions > 0).then_some(figures)
    }
}

/// Reads and removes the logs of a run; the third word of a line is the transaction's time in microseconds.
fn take_log(folder: &Path) -> Result<Vec<u64>, String> {
    let named = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut times = Vec::new();
    for entry in fs::read_dir(folder).map_err(named)?.flatten() {
        let text = fs::read_to_string(entry.path()).map_err(named)?;
        let words = text.lines().filter_map(|line| line.split(' ').nth(2));
        times.extend(words.filter_map(|word| word.parse::<u64>().ok()));
        fs::remove_file(entry.path()).map_err(named)?;
    }
    Ok(times)
}

/// The time in milliseconds that `percent` of the sorted times (in microseconds) do not pass.
fn percentile(times: &[u64], percent: usize) -> Option<f64> {
    let last = times.len().checked_sub(1)?;
    let time = times.get(last.saturating_mul(percent) / 100)?;
    Some(*time as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::{Figures, Scenario, percentile, take_log};

    const OUTPUT: &str = "pgbench (15.18)\ntransaction type: <builtin: select only>\n\
        number of clients: 16\nnumber of transactions actually processed: 80211\n\
        number of failed transactions: 0 (0.000%)\nlatency average = 0.995 ms\n\
        initial connection time = 61.011 ms\ntps = 16072.913 (without initial connection time)\n";

    #[test]
    fn the_figures_are_read_from_what_pgbench_prints() {
        let figures = Figures::parse(OUTPUT).unwrap();
        assert!((figures.tps - 16072.913).abs() < 1e-9);
        assert_eq!(figures.transactions, 80211);
        assert!((figures.latency_ms - 0.995).abs() < 1e-9);
        assert_eq!(Figures::parse("tps = nan"), None);
    }

    #[test]
    fn the_names_of_a_set_are_unique() {
        let mut names: Vec<String> = Scenario::set(&[1, 16, 64])
            .into_iter()
            .chain([Scenario::CONNECT])
            .map(Scenario::name)
            .collect();
        assert_eq!(names.len(), 11);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 11);
    }

    #[test]
    fn a_log_is_read_once_and_ranked() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("log.1"),
            "0 1 2000 0 1 2\n0 2 1000 0 1 2\n",
        )
        .unwrap();
        let mut times = take_log(folder.path()).unwrap();
        times.sort_unstable();
        assert_eq!(times, [1000, 2000]);
        assert_eq!(percentile(&times, 50), Some(1.0));
        assert_eq!(percentile(&times, 100), Some(2.0));
        assert_eq!(percentile(&[], 50), None);
        assert!(take_log(folder.path()).unwrap().is_empty());
    }
}
