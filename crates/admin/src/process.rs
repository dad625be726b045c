//! What the system says of this process: memory, CPU time, file descriptors.
//!
//! Asked for by a scrape, never by the data path. What a system does not tell is `None`; files below `/proc` are Linux's.

use std::fs;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike as _;

/// The numbers of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct ProcessStats {
    /// CPU time in user mode and in the kernel, in seconds.
    pub(crate) cpu_seconds: Option<f64>,
    /// Resident memory.
    pub(crate) resident_bytes: Option<u64>,
    /// Open file descriptors.
    pub(crate) open_fds: Option<usize>,
    /// How many there may be.
    pub(crate) fds_limit: Option<u64>,
}

impl ProcessStats {
    /// Asks the system.
    pub(crate) fn read() -> Self {
        ProcessStats {
            cpu_seconds: cpu_seconds(),
            resident_bytes: fs::read_to_string("/proc/self/status")
                .ok()
                .and_then(|status| resident_bytes(&status)),
            open_fds: fs::read_dir("/proc/self/fd").ok().map(Iterator::count),
            fds_limit: getrlimit(Resource::RLIMIT_NOFILE)
                .ok()
                .map(|(soft, _)| soft),
        }
    }
}

fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Some(pgweir_metrics::seconds(u64::try_from(us).ok()?))
}

/// `VmRSS` of `/proc/self/status`, which is in kB, as everything in that file.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        let status = "Name:\tpgweir\nVmHWM:\t   20 kB\nVmRSS:\t   12 kB\n";
        assert_eq!(resident_bytes(status), Some(12 * 1024));
        assert_eq!(resident_bytes("VmRSS:\t x kB"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_and_descriptors() {
        let stats = ProcessStats::read();
        assert!(stats.resident_bytes.unwrap() > 100_000);
        assert!(stats.open_fds.unwrap() >= 3);
        assert!(stats.fds_limit.unwrap() >= 3);
        assert!(stats.cpu_seconds.unwrap() >= 0.0);
    }
}
