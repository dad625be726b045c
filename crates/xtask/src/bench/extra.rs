//! What no `pgbench` run measures: a large result, and the memory of idle clients.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::process::{Process, Usage, output_within, until};
use super::target::{Bed, Kind, Target};

/// Rows of a large result are 1 KiB with their newline, so a MiB is this many.
const ROWS_PER_MIB: u64 = 1024;

/// For one transfer. Chosen: 1 GiB at a few MiB/s.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(300);
/// For all idle clients to be there: each logs in by SCRAM, which costs milliseconds.
const IDLE_DEADLINE: Duration = Duration::from_secs(300);

/// How a large result travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Select,
    CopyTo,
    CopyFrom,
}

impl Way {
    pub(super) const ALL: [Self; 3] = [Self::Select, Self::CopyTo, Self::CopyFrom];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Select => "SELECT",
            Self::CopyTo => "COPY TO STDOUT",
            Self::CopyFrom => "COPY FROM STDIN",
        }
    }
}

/// One large transfer.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) way: Way,
    pub(super) target: &'static str,
    pub(super) round: u32,
    pub(super) mib: u32,
    pub(super) seconds: f64,
    pub(super) usage: Option<Usage>,
}

/// Sends `mib` each way through each target, `rounds` times.
pub(super) fn large(
    bed: &Bed,
    targets: &[Target],
    mib: u32,
    rounds: u32,
) -> Result<Vec<Transfer>, String> {
    let input = bed.folder.join("large.txt");
    write_rows(&input, mib).map_err(|error| format!("{}: {error}", input.display()))?;
    let table = "CREATE UNLOGGED TABLE sink (row text); GRANT ALL ON sink TO bench";
    bed.sql(table)?;
    let mut transfers = Vec::new();
    for way in Way::ALL {
        for round in 1..=rounds {
            for target in targets {
                let name = target.kind.name();
                println!("{} of {mib} MiB, round {round}: {name}", way.name());
                transfers.push(transfer(bed, target, way, (mib, round), &input)?);
                if way == Way::CopyFrom {
                    empty_sink(bed, mib).map_err(|why| format!("{name}: {why}"))?;
                }
            }
        }
    }
    let _left_to_the_folder = fs::remove_file(&input);
    Ok(transfers)
}

/// Counts what COPY has left on the primary, and removes it.
fn empty_sink(bed: &Bed, mib: u32) -> Result<(), String> {
    let rows = bed.sql("SELECT count(*) FROM sink")?;
    if rows != (u64::from(mib) * ROWS_PER_MIB).to_string() {
        return Err(format!("COPY FROM STDIN left {rows} rows of {mib} MiB"));
    }
    bed.sql("TRUNCATE sink").map(drop)
}

fn transfer(
    bed: &Bed,
    target: &Target,
    way: Way,
    (mib, round): (u32, u32),
    input: &Path,
) -> Result<Transfer, String> {
    let rows = u64::from(mib) * ROWS_PER_MIB;
    let query = format!("SELECT repeat('x', 1023) FROM generate_series(1, {rows})");
    let mut psql = bed.client("psql", target.port, "bench")?;
    psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"]);
    match way {
        // By a cursor, or psql keeps all of it in memory and the figure is about that.
        Way::Select => psql.args(["-v", "FETCH_COUNT=10000", "-c", &query]),
        Way::CopyTo => psql.args(["-c", &format!("COPY ({query}) TO STDOUT")]),
        Way::CopyFrom => psql.args(["-c", "COPY sink FROM STDIN"]),
    };
    let stdin = match way {
        Way::CopyFrom => Stdio::from(File::open(input).map_err(|error| error.to_string())?),
        Way::Select | Way::CopyTo => Stdio::null(),
    };
    let usage = || target.process.as_ref().and_then(Process::usage);
    let before = usage();
    let started_at = Instant::now();
    transfer_by(psql.stdin(stdin))?;
    let seconds = started_at.elapsed().as_secs_f64();
    Ok(Transfer {
        way,
        target: target.kind.name(),
        round,
        mib,
        seconds,
        usage: before
            .zip(usage())
            .map(|(before, after)| after.since(before)),
    })
}

/// Runs psql with its input as set and its output unread.
fn transfer_by(psql: &mut Command) -> Result<(), String> {
    let mut child = psql
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("psql: {error}"))?;
    if !until(TRANSFER_DEADLINE, || !matches!(child.try_wait(), Ok(None))) {
        let _gone = child.kill();
    }
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("psql: {status}")),
        Err(error) => Err(format!("psql: {error}")),
    }
}

fn write_rows(path: &Path, mib: u32) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let row = format!("{}\n", "x".repeat(1023));
    for _ in 0..u64::from(mib) * ROWS_PER_MIB {
        file.write_all(row.as_bytes())?;
    }
    file.flush()
}

/// What idle clients cost a proxy.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) target: &'static str,
    pub(super) clients: u32,
    pub(super) before_kib: u64,
    pub(super) after_kib: u64,
}

/// Connects `clients` to a new process of each pooler, has each run one query, and weighs the process when all are idle.
pub(super) fn idle(bed: &Bed, kinds: &[Kind], clients: u32) -> Result<Vec<Idle>, String> {
    raise_open_files(clients)?;
    let script = bed.folder.join("idle.sql");
    fs::write(&script, "SELECT 1;\n\\sleep 3600 s\n")
        .map_err(|error| format!("{}: {error}", script.display()))?;
    let poolers = [Kind::PgBouncer, Kind::Pgweir1, Kind::Pgweir3Cores];
    let mut weighed = Vec::new();
    for &kind in kinds.iter().filter(|kind| poolers.contains(kind)) {
        println!("{clients} idle clients: {}", kind.name());
        let target = Target::start(kind, bed)?;
        let Some(process) = target.process.as_ref() else {
            continue;
        };
        // The first connections also pay for what is made once.
        let mut few = bed.client("pgbench", target.port, "bench")?;
        output_within(
            few.args(["-n", "-S", "-c", "16", "-t", "10"]),
            IDLE_DEADLINE,
        )?;
        let Some(before_kib) = process.resident_kib() else {
            return Err("the memory of a process is not known on this system".to_owned());
        };
        let files = process.open_files();
        let mut pgbench = bed.client("pgbench", target.port, "bench")?;
        pgbench
            .args(["-n", "-t", "1", "-c", &clients.to_string(), "-f"])
            .arg(&script);
        let log = bed.folder.join("idle.log");
        let mut pgbench = Process::start(&mut pgbench, &log)?;
        let expected = files.saturating_add(usize::try_from(clients).unwrap_or(usize::MAX));
        let connected = until(IDLE_DEADLINE, || {
            process.open_files() >= expected || !pgbench.is_running()
        });
        if !connected || !pgbench.is_running() || !settles(process) {
            return Err(format!("{}: {}", kind.name(), pgbench.log_tail()));
        }
        weighed.push(Idle {
            target: kind.name(),
            clients,
            before_kib,
            after_kib: process.resident_kib().unwrap_or(before_kib),
        });
    }
    Ok(weighed)
}

/// Waits until a process does next to nothing for a second; its monitors may still look at the servers.
fn settles(process: &Process) -> bool {
    const SECOND: Duration = Duration::from_secs(1);
    const QUIET_US: u64 = 40_000;
    until(IDLE_DEADLINE, || {
        let before = process.usage();
        let _a_second_passes = until(SECOND, || false);
        before.zip(process.usage()).is_some_and(|(before, after)| {
            let used = after.since(before);
            used.user_us.saturating_add(used.system_us) <= QUIET_US
        })
    })
}

/// Raises the limit of open files, which the processes that we start inherit.
fn raise_open_files(clients: u32) -> Result<(), String> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let wanted = u64::from(clients).saturating_add(1000);
    let (soft, hard) =
        getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| format!("getrlimit: {error}"))?;
    if soft >= wanted {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)).map_err(|error| {
        format!(
            "{clients} idle clients need {wanted} open files, and ulimit -n says {soft}: {error}"
        )
    })
}
