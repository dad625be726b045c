//! `cargo xtask bench`: the proxy against direct connections, `PgBouncer` and a raw relay.
//!
//! Times mean little on a shared machine, so all targets take turns within a round, and what counts is the CPU of the
//! proxy's process per transaction, as a ratio. Nothing here passes or fails.

mod extra;
mod plot;
mod process;
mod relay;
mod report;
mod results;
mod scenario;
mod target;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;

use crate::{cargo, root, steps};
use process::Process;
use results::{Results, Run};
use scenario::Scenario;
use target::{Bed, Kind, Programs, Target};

/// Compares the proxy with direct connections, `PgBouncer` and a raw relay; writes target/bench/report.md and report.svg.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Options {
    /// Also with 1 and 64 clients
    #[arg(long)]
    full: bool,
    /// Rounds; each runs all targets once, and figures are medians over them
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each run takes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Only these targets: direct, relay, pgbouncer, pgweir/1, pgweir/3, "pgweir/3 cores"
    #[arg(long, value_delimiter = ',')]
    targets: Vec<String>,
    /// Only scenarios whose name contains one of these, such as simple, extended, prepared, tpcb, none
    #[arg(long, value_delimiter = ',')]
    scenarios: Vec<String>,
    /// Also a new connection for each transaction
    #[arg(long)]
    connect: bool,
    /// Also a large result and COPY both ways, of so many MiB (1024)
    #[arg(long, value_name = "MIB", num_args = 0..=1, default_missing_value = "1024")]
    large: Option<u32>,
    /// Also the memory of so many idle clients (2000)
    #[arg(long, value_name = "CLIENTS", num_args = 0..=1, default_missing_value = "2000")]
    idle: Option<u32>,
    /// A pgweir that is built already
    #[arg(long, value_name = "PROGRAM")]
    pgweir: Option<PathBuf>,
}

/// Rounds of a large transfer, at most: each moves enough to be steady.
const LARGE_ROUNDS: u32 = 3;

/// Runs the bench.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    // Our own relay, as the bench starts it.
    if let [relay, listen, target] = arguments
        && relay == "relay"
    {
        return relay::run(listen, target);
    }
    let program = std::iter::once("bench").chain(arguments.iter().map(String::as_str));
    let options = Options::parse_from(program);
    let root = root();
    let target_dir = target_dir(&root);
    let mut results = Results {
        scenarios: options.scenarios()?,
        targets: options.kinds()?,
        ..Results::default()
    };
    let pgweir = match &options.pgweir {
        Some(path) => {
            fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()))?
        }
        None => target_dir.join("release/pgweir"),
    };
    if options.pgweir.is_none() && results.targets.iter().any(|kind| kind.is_pgweir()) {
        println!("Building pgweir (release)…");
        steps::run(cargo(&root).args(["build", "--quiet", "--release", "--package", "pgweir"]))?;
    }
    if results.targets.contains(&Kind::Relay) {
        // A relay that is not optimised would be no yardstick, and we ourselves seldom are.
        println!("Building the relay (release)…");
        steps::run(cargo(&root).args(["build", "--quiet", "--release", "--package", "xtask"]))?;
    }
    println!("Starting a primary and two replicas…");
    let bed = Bed::start(Programs {
        pgweir,
        relay: target_dir.join("release/xtask"),
        pgbouncer: pgbouncer(),
    })?;
    results.header = header(&root, &bed, &options);
    measure(&bed, &options, &mut results)?;
    write(&target_dir.join("bench"), &results)
}

impl Options {
    fn kinds(&self) -> Result<Vec<Kind>, String> {
        if self.targets.is_empty() {
            return Ok(Kind::ALL.to_vec());
        }
        let kind = |name: &String| {
            let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
            let known = || Kind::ALL.map(Kind::name).join(", ");
            found.ok_or_else(|| format!("no target {name:?}; there are {}", known()))
        };
        self.targets.iter().map(kind).collect()
    }

    fn scenarios(&self) -> Result<Vec<Scenario>, String> {
        let mut all = Scenario::set(if self.full { &[1, 16, 64] } else { &[16] });
        all.extend(self.connect.then_some(Scenario::CONNECT));
        if self.scenarios.iter().any(|part| part == "none") {
            return Ok(Vec::new());
        }
        if !self.scenarios.is_empty() {
            let named = |scenario: &Scenario| {
                let name = scenario.name();
                self.scenarios.iter().any(|part| name.contains(part))
            };
            all.retain(named);
            if all.is_empty() {
                return Err("no scenario has such a name".to_owned());
            }
        }
        Ok(all)
    }
}

fn measure(bed: &Bed, options: &Options, results: &mut Results) -> Result<(), String> {
    let mut targets = Vec::new();
    for kind in results.targets.clone() {
        match Target::start(kind, bed) {
            Ok(target) => targets.push(target),
            Err(why) => leave_out(results, kind.name(), &why),
        }
    }
    results
        .targets
        .retain(|kind| targets.iter().any(|target| target.kind == *kind));
    for scenario in results.scenarios.clone() {
        rounds(bed, scenario, (&mut targets, options), results)?;
    }
    if let Some(mib) = options.large {
        let rounds = options.rounds.min(LARGE_ROUNDS);
        results.transfers = extra::large(bed, &targets, mib, rounds)?;
    }
    // The idle clients come to processes of their own, whose memory has no past.
    drop(targets);
    if let Some(clients) = options.idle {
        results.idle = extra::idle(bed, &results.targets, clients)?;
    }
    Ok(())
}

/// Runs a scenario against all targets in turn, as often as asked, after a short run of each that warms it up.
fn rounds(
    bed: &Bed,
    scenario: Scenario,
    (targets, options): (&mut [Target], &Options),
    results: &mut Results,
) -> Result<(), String> {
    let logs = bed.folder.join("logs");
    fs::create_dir_all(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;
    let mut fit: Vec<&Target> = Vec::new();
    for target in targets.iter() {
        match scenario.run(target.pgbench(bed, scenario)?, 1, &logs) {
            Ok(_warm) => fit.push(target),
            Err(why) => {
                let what = format!("{} of {}", scenario.name(), target.kind.name());
                leave_out(results, &what, &why);
            }
        }
        if let Some(remark) = target.remark(scenario) {
            results.note(format!("{} ran {remark}.", target.kind.name()));
        }
    }
    let mut order = fit;
    for round in 1..=options.rounds {
        for target in &order {
            let (name, kind) = (scenario.name(), target.kind);
            match one(bed, target, (scenario, round), (options.seconds, &logs)) {
                Ok(run) => {
                    println!("{name}, round {round}: {}", summary(&run));
                    results.runs.push(run);
                }
                Err(why) => {
                    let what = format!("{name} of {}, round {round},", kind.name());
                    leave_out(results, &what, &why);
                }
            }
        }
        // Each comes first at some time, so that no target always follows the same one.
        let first = order.len().min(1);
        order.rotate_left(first);
    }
    Ok(())
}

fn one(
    bed: &Bed,
    target: &Target,
    (scenario, round): (Scenario, u32),
    (seconds, logs): (u32, &Path),
) -> Result<Run, String> {
    bed.settle(scenario)?;
    let usage = || target.process.as_ref().and_then(Process::usage);
    let splits = target.kind.splits();
    let commits_before = splits.then(|| bed.commits()).transpose()?;
    let before = usage();
    let figures = scenario.run(target.pgbench(bed, scenario)?, seconds, logs)?;
    let after = usage();
    let commits_after = splits.then(|| bed.commits()).transpose()?;
    Ok(Run {
        scenario,
        target: target.kind,
        round,
        figures,
        usage: before.zip(after).map(|(before, after)| after.since(before)),
        primary_share: commits_before
            .zip(commits_after)
            .and_then(|(before, after)| share_of_first(&before, &after)),
    })
}

/// The part of what was added that the first has; servers count per node, the primary first.
fn share_of_first(before: &[f64], after: &[f64]) -> Option<f64> {
    let mut added = after
        .iter()
        .zip(before)
        .map(|(after, before)| after - before);
    let first = added.next()?;
    let all = first + added.sum::<f64>();
    (all > 0.0).then(|| first / all)
}

fn summary(run: &Run) -> String {
    let (name, tps) = (run.target.name(), run.figures.tps);
    match run.cpu_us() {
        Some(cpu_us) => format!("{name:<14} {tps:>8.0} tps {cpu_us:>7.1} µs CPU/tx"),
        None => format!("{name:<14} {tps:>8.0} tps"),
    }
}

fn leave_out(results: &mut Results, what: &str, why: &str) {
    let why: Vec<&str> = why.lines().map(str::trim).collect();
    let note = format!("{what} is left out: {}", why.join(" "));
    println!("{note}");
    results.note(note);
}

fn write(folder: &Path, results: &Results) -> Result<(), String> {
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let report = report::markdown(results);
    file("report.md", &report)?;
    file("results.json", &format!("{:#}\n", results.json()))?;
    if let Some(svg) = plot::svg(results)? {
        file("report.svg", &svg)?;
    }
    println!("\n{report}\nWritten to {}", folder.display());
    Ok(())
}

/// What was measured, on what, when.
fn header(root: &Path, bed: &Bed, options: &Options) -> Vec<(&'static str, String)> {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let after_colon = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()));
        value.unwrap_or_else(|| "?".to_owned())
    };
    let gib = after_colon(&memory, "MemTotal")
        .split_whitespace()
        .next()
        .and_then(|kib| kib.parse::<f64>().ok())
        .map_or_else(|| "?".to_owned(), |kib| format!("{:.0}", kib / 1_048_576.0));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let pgbouncer = said(Command::new(pgbouncer_program()).arg("--version"));
    let pgweir = match &options.pgweir {
        Some(path) => path.display().to_string(),
        None => revision(root),
    };
    vec![
        (
            "date",
            said(Command::new("date").args(["-u", "+%F %H:%M UTC"])),
        ),
        (
            "machine",
            format!(
                "{}, {cores} cores, {gib} GiB",
                after_colon(&cpus, "model name")
            ),
        ),
        ("kernel", said(Command::new("uname").arg("-sr"))),
        ("PostgreSQL", bed.cluster.binaries().version().to_string()),
        (
            "PgBouncer",
            pgbouncer.lines().next().unwrap_or("none").to_owned(),
        ),
        ("pgweir", pgweir),
        (
            "rounds",
            format!(
                "{} of {} s, targets in turn, all on this machine; pgbench scale 10, fsync off",
                options.rounds, options.seconds
            ),
        ),
    ]
}

/// The commit of the sources, and whether they differ from it.
fn revision(root: &Path) -> String {
    let git = |arguments: &[&str]| said(Command::new("git").current_dir(root).args(arguments));
    let commit = git(&["rev-parse", "--short", "HEAD"]);
    match git(&["status", "--porcelain", "--untracked-files=no"]).is_empty() {
        true => commit,
        false => format!("{commit} with changes"),
    }
}

/// What a program prints, or nothing.
fn said(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout);
    let text = output.unwrap_or_default();
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// `PgBouncer`, which Debian keeps where only root's `PATH` leads.
fn pgbouncer_program() -> &'static str {
    match Path::new("/usr/sbin/pgbouncer").exists() {
        true => "/usr/sbin/pgbouncer",
        false => "pgbouncer",
    }
}

fn pgbouncer() -> Option<(PathBuf, (u32, u32))> {
    let program = pgbouncer_program();
    let version = version_of(&said(Command::new(program).arg("--version")))?;
    Some((PathBuf::from(program), version))
}

/// Reads `PgBouncer 1.18.0`.
fn version_of(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_whitespace().nth(1)?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Where cargo builds.
fn target_dir(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

#[cfg(test)]
mod tests {
    use super::{Options, share_of_first, version_of};
    use clap::Parser as _;

    fn options(arguments: &[&str]) -> Options {
        Options::try_parse_from(std::iter::once(&"bench").chain(arguments)).unwrap()
    }

    #[test]
    fn the_plain_bench_is_short_and_can_be_narrowed() {
        let plain = options(&[]);
        assert_eq!(plain.scenarios().unwrap().len(), 4);
        assert_eq!(plain.kinds().unwrap().len(), 6);
        let narrow = options(&["--scenarios", "simple", "--targets", "relay,pgweir/3 cores"]);
        assert_eq!(narrow.scenarios().unwrap().len(), 1);
        assert_eq!(narrow.kinds().unwrap().len(), 2);
        assert!(options(&["--targets", "x"]).kinds().is_err());
        assert!(options(&["--scenarios", "nothing"]).scenarios().is_err());
        assert_eq!(options(&["--large", "--idle", "9"]).large, Some(1024));
    }

    #[test]
    fn the_share_of_the_primary_is_that_of_what_was_added() {
        assert_eq!(share_of_first(&[10.0, 0.0], &[11.0, 3.0]), Some(0.25));
        assert_eq!(share_of_first(&[10.0, 0.0], &[10.0, 0.0]), None);
    }

    #[test]
    fn the_version_of_pgbouncer_is_read() {
        assert_eq!(version_of("PgBouncer 1.18.0\nlibevent 2.1"), Some((1, 18)));
        assert_eq!(version_of("sh: not found"), None);
    }
}
