//! The temporary folder of a cluster, and the promise that neither it nor its servers outlive us.
//!
//! Three nets, each under the one before: `Drop`; the watchdog, which acts when our end of its
//! pipe closes, i.e. on any death of this process; and the sweep at the next start, which finds folders
//! whose owner's lock is free (the machine or the container died with the watchdog).

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use tempfile::TempDir;

use crate::error::ClusterError;
use crate::process;
use crate::wait;

/// How each cluster folder's name begins; the sweep looks at no other.
const PREFIX: &str = "pgweir-dev-";
/// The file whose lock says that the owner lives.
const LOCK: &str = "owner.lock";

/// Waits for the end of its input, then kills what works in the folder `$1` and removes it.
/// Linux finds the processes by their working directory; elsewhere the postmasters are told by
/// their PID files, and servers that miss it end by themselves when their folder is gone
/// (`src/backend/postmaster/postmaster.c ServerLoop` looks every minute).
const WATCHDOG: &str = r#"
trap '' HUP INT TERM
while read -r _; do :; done
dir=$1
[ -d "$dir" ] || exit 0
for round in 1 2 3 4 5 6 7 8 9 10; do
  for proc in /proc/[0-9]*; do
    case "$(readlink "$proc/cwd" 2>/dev/null)" in
      "$dir"|"$dir"/*) kill -KILL "${proc#/proc/}" 2>/dev/null ;;
    esac
  done
  for pidfile in "$dir"/*/postmaster.pid; do
    [ -f "$pidfile" ] || continue
    [ -d /proc/self ] || kill -QUIT "$(head -n 1 "$pidfile")" 2>/dev/null
    set -- $(sed -n 7p "$pidfile")
    [ -z "$2" ] || ipcrm -m "$2" 2>/dev/null
  done
  rm -rf "$dir" 2>/dev/null && exit 0
  sleep 0.1
done
"#;

/// A cluster's folder with its guard.
#[derive(Debug)]
pub(crate) struct Folder {
    dir: TempDir,
    watchdog: Child,
    _lock: File,
}

impl Folder {
    /// Makes a folder in `parent` (or the temporary folder), guarded; removes what dead owners left there.
    pub(crate) fn create(parent: Option<&Path>) -> Result<Self, ClusterError> {
        let parent = match parent {
            Some(parent) => parent.to_path_buf(),
            None => temporary_folder(),
        };
        // A working directory is compared with this path, so links in it must be gone.
        let parent = fs::canonicalize(&parent).map_err(ClusterError::io("open", &parent))?;
        sweep(&parent);
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(&parent)
            .map_err(ClusterError::io("create a folder in", &parent))?;
        // The server user passes through to its own folders in it, and lists nothing.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711))
            .map_err(ClusterError::io("chmod", dir.path()))?;
        let lock = locked_file(dir.path()).map_err(ClusterError::io("lock", dir.path()))?;
        let watchdog = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "pgweir-devcluster-watchdog"])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()
            .map_err(ClusterError::io("start the watchdog of", dir.path()))?;
        Ok(Self {
            dir,
            watchdog,
            _lock: lock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        clear(self.dir.path());
        drop(self.watchdog.stdin.take());
        // It ends at once, since the folder is gone; if it could not be removed, the watchdog tries on.
        let _ended = self.watchdog.wait();
    }
}

/// The folder for temporary files if the server user can reach it, and otherwise `/tmp`.
fn temporary_folder() -> PathBuf {
    let dir = std::env::temp_dir();
    // Socket paths are limited to 107 bytes (`sun_path`), of which we need about 40.
    let short = dir.as_os_str().len() <= 64;
    let open = !geteuid().is_root()
        || dir.ancestors().all(|dir| {
            fs::metadata(dir).is_ok_and(|found| found.permissions().mode() & 0o001 != 0)
        });
    if short && open {
        dir
    } else {
        PathBuf::from("/tmp")
    }
}

/// The lock appears under its name only once it is held, so that a sweep never sees a young folder as dead.
fn locked_file(dir: &Path) -> io::Result<File> {
    let young = dir.join("owner.new");
    let file = File::create(&young)?;
    file.lock()?;
    fs::rename(&young, dir.join(LOCK))?;
    Ok(file)
}

/// Removes the folders in `parent` whose owner is dead. What cannot be removed stays for the next sweep.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let dir = entry.path();
        let ours = fs::symlink_metadata(&dir)
            .is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw());
        if !ours {
            continue;
        }
        let Ok(lock) = File::open(dir.join(LOCK)) else {
            continue;
        };
        match lock.try_lock() {
            Ok(()) => clear(&dir),
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
    }
}

/// Kills what works in the folder and removes it.
fn clear(dir: &Path) {
    // A backend that was just forked may appear between the look and the kill, hence again until quiet.
    let _quiet = wait::until::<(), ()>(Duration::from_secs(5), || {
        for pid in process::with_cwd_in(dir) {
            process::send(pid, Signal::SIGKILL);
        }
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            release_shared_memory(&entry.path());
        }
        let _again = fs::remove_dir_all(dir);
        Ok((!dir.exists()).then_some(()))
    });
}

/// Removes the small System V segment that a killed server of `data` leaves. A clean stop removes
/// it with the PID file (whose 7th line names it), so a file that is still there means a leftover.
pub(crate) fn release_shared_memory(data: &Path) {
    let Ok(text) = fs::read_to_string(data.join("postmaster.pid")) else {
        return;
    };
    let Some(id) = text
        .lines()
        .nth(6)
        .and_then(|line| line.split_whitespace().nth(1))
    else {
        return;
    };
    let _best_effort = Command::new("ipcrm")
        .args(["-m", id])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

#[cfg(test)]
mod tests {
    use super::{LOCK, PREFIX, locked_file, sweep};
    use std::fs;

    #[test]
    fn the_sweep_removes_a_dead_owners_folder_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let dir = parent.path().join(name);
            fs::create_dir(&dir).unwrap();
            dir
        };
        let dead = folder(&format!("{PREFIX}dead"));
        fs::write(dead.join(LOCK), "").unwrap();
        fs::create_dir(dead.join("primary")).unwrap();
        let alive = folder(&format!("{PREFIX}alive"));
        let _lock = locked_file(&alive).unwrap();
        let young = folder(&format!("{PREFIX}young"));
        let strange = folder("strange");
        fs::write(strange.join(LOCK), "").unwrap();
        sweep(parent.path());
        assert!(!dead.exists());
        assert!(alive.exists() && young.exists() && strange.exists());
    }
}
