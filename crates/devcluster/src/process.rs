//! Processes of a server: who they are, and signals to all of them.
//!
//! Each PostgreSQL child calls `setsid` (`src/backend/utils/init/miscinit.c InitPostmasterChild`), so a
//! server has no process group that one `kill` could reach. On Linux its processes are those
//! whose working directory lies in the data folder, which also finds orphans of a dead
//! postmaster and cannot hit a stranger by a reused process ID.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};

use crate::error::ClusterError;

/// Who runs the servers: `None` for us, or another user where we are root.
#[derive(Debug, Clone)]
pub(crate) struct ServerUser {
    ids: Option<(u32, u32)>,
}

impl ServerUser {
    /// Finds the user to run servers as.
    pub(crate) fn find() -> Result<Self, ClusterError> {
        if !geteuid().is_root() {
            return Ok(Self { ids: None });
        }
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(|user| Self {
                ids: Some((user.uid.as_raw(), user.gid.as_raw())),
            })
            .ok_or(ClusterError::NoServerUser)
    }

    /// This process's own user, for files that no server needs.
    pub(crate) fn ourselves() -> Self {
        Self { ids: None }
    }

    /// Gives a path to the server user.
    pub(crate) fn own(&self, path: &Path) -> Result<(), ClusterError> {
        let Some((uid, gid)) = self.ids else {
            return Ok(());
        };
        std::os::unix::fs::chown(path, Some(uid), Some(gid))
            .map_err(ClusterError::io("chown", path))
    }

    /// Returns a command that runs as the server user, in `dir`, away from our terminal's signals
    /// and from the `PG*` variables of our environment.
    pub(crate) fn command(&self, program: &Path, dir: &Path) -> Command {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C").current_dir(dir).process_group(0);
        if let Some((uid, gid)) = self.ids {
            command.uid(uid).gid(gid);
        }
        command
    }
}

/// Returns the process IDs of the server of `data`: its postmaster (if it is known) and all its children.
pub(crate) fn of_server(postmaster: Option<i32>, data: &Path) -> Vec<i32> {
    let mut found = if Path::new("/proc/self/cwd").exists() {
        with_cwd_in(data)
    } else {
        postmaster.map_or_else(Vec::new, children_by_ps)
    };
    if let Some(pid) = postmaster
        && !found.contains(&pid)
    {
        found.push(pid);
    }
    found
}

/// Returns the live processes whose working directory is `dir` or lies in it (Linux).
pub(crate) fn with_cwd_in(dir: &Path) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir))
        })
        .collect()
}

fn children_by_ps(parent: i32) -> Vec<i32> {
    let Ok(output) = Command::new("ps")
        .args(["-A", "-o", "pid=", "-o", "ppid="])
        .output()
    else {
        return Vec::new();
    };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse::<i32>);
            let (pid, ppid) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
            (ppid == parent).then_some(pid)
        })
        .collect()
}

/// Sends a signal; a process that is gone already is what the sender wanted.
pub(crate) fn send(pid: i32, signal: Signal) {
    // A PID of ours is positive; 0 and below would name process groups.
    if pid > 0 {
        let _gone = kill(Pid::from_raw(pid), signal);
    }
}
