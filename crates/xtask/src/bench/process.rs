//! A proxy's process: what it costs, read from `/proc`, and its end with the bench.
//!
//! ## Limits
//! Where there is no `/proc` (not Linux), the costs are unknown and the tables leave them out.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Microseconds in a tick of `/proc/PID/stat`: `USER_HZ` is 100 on every Linux that PostgreSQL runs on today.
const TICK_US: u64 = 10_000;

/// Between two looks at another process. Chosen: a run takes seconds, and a look microseconds.
const LOOK: Duration = Duration::from_millis(10);

/// What a process has used since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// CPU microseconds in user mode, all threads, ended ones too.
    pub(super) user_us: u64,
    /// CPU microseconds in the kernel.
    pub(super) system_us: u64,
    /// Times that a living thread went to sleep.
    pub(super) switches: u64,
}

impl Usage {
    /// What was used after `earlier`.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            user_us: self.user_us.saturating_sub(earlier.user_us),
            system_us: self.system_us.saturating_sub(earlier.system_us),
            switches: self.switches.saturating_sub(earlier.switches),
        }
    }
}

/// A process of ours that ends when this value is dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program with its output in `log`.
    pub(super) fn start(command: &mut Command, log: &Path) -> Result<Self, String> {
        let named = |error: std::io::Error| format!("{}: {error}", log.display());
        let output = File::create(log).map_err(named)?;
        let errors = output.try_clone().map_err(named)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        Ok(Self {
            child,
            log: log.to_path_buf(),
        })
    }

    /// Says whether it still runs.
    pub(super) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of its output.
    pub(super) fn log_tail(&self) -> String {
        last_lines(&fs::read(&self.log).unwrap_or_default())
    }

    /// What it has used so far.
    pub(super) fn usage(&self) -> Option<Usage> {
        let stat = fs::read_to_string(self.proc("stat")).ok()?;
        let (user, system) = cpu_ticks(&stat)?;
        let tasks = fs::read_dir(self.proc("task")).ok()?;
        let switches = tasks
            .flatten()
            .filter_map(|task| fs::read_to_string(task.path().join("status")).ok())
            .filter_map(|status| field(&status, "voluntary_ctxt_switches:"))
            .sum();
        Some(Usage {
            user_us: user.saturating_mul(TICK_US),
            system_us: system.saturating_mul(TICK_US),
            switches,
        })
    }

    /// Resident memory in KiB.
    pub(super) fn resident_kib(&self) -> Option<u64> {
        field(&fs::read_to_string(self.proc("status")).ok()?, "VmRSS:")
    }

    /// The number of open files, sockets included.
    pub(super) fn open_files(&self) -> usize {
        fs::read_dir(self.proc("fd")).map_or(0, Iterator::count)
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.child.id()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Reads user and system time from `/proc/PID/stat`: fields 14 and 15, where the second, the
/// name in brackets, may hold anything.
fn cpu_ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11).map(str::parse);
    Some((fields.next()?.ok()?, fields.next()?.ok()?))
}

/// Reads a number of `/proc/PID/status`.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Runs a command to its end, but not longer than `limit`; a failure carries what it printed last.
pub(super) fn output_within(command: &mut Command, limit: Duration) -> Result<String, String> {
    let name = command.get_program().display().to_string();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{name}: {error}"))?;
    let ended = until(limit, || !matches!(child.try_wait(), Ok(None)));
    if !ended {
        let _gone = child.kill();
    }
    let Output {
        status,
        stdout,
        stderr,
    } = child
        .wait_with_output()
        .map_err(|error| format!("{name}: {error}"))?;
    if ended && status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let why = match ended {
        true => status.to_string(),
        false => format!("not done after {} s", limit.as_secs()),
    };
    Err(format!("{name}: {why}\n{}", last_lines(&stderr)))
}

/// Looks again and again until `found` or `limit` has passed; says whether it was found.
pub(super) fn until(limit: Duration, mut found: impl FnMut() -> bool) -> bool {
    let started_at = Instant::now();
    loop {
        if found() {
            return true;
        }
        if started_at.elapsed() >= limit {
            return false;
        }
        // A spurious wake-up only means an earlier look.
        std::thread::park_timeout(LOOK);
    }
}

fn last_lines(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(8);
    lines.get(from..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::{cpu_ticks, field, output_within};
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 1 2 3 4 150 250 5 6 20 0 1";
        assert_eq!(cpu_ticks(stat), Some((150, 250)));
        assert_eq!(cpu_ticks("7 (a"), None);
    }

    #[test]
    fn a_field_of_the_status_is_a_number_with_or_without_a_unit() {
        let status = "VmRSS:\t    1234 kB\nvoluntary_ctxt_switches:\t17\n";
        assert_eq!(field(status, "VmRSS:"), Some(1234));
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(17));
        assert_eq!(field(status, "VmSwap:"), None);
    }

    #[test]
    fn a_command_that_hangs_is_ended_and_one_that_fails_is_quoted() {
        let hanging = output_within(Command::new("sleep").arg("60"), Duration::from_millis(20));
        assert!(hanging.unwrap_err().contains("not done"));
        let failing = output_within(
            Command::new("sh").args(["-c", "echo why >&2; exit 3"]),
            Duration::from_secs(60),
        );
        assert!(failing.unwrap_err().ends_with("why"));
    }
}
