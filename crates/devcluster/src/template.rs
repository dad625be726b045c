//! The data folder that every node starts as: made by `initdb`, kept in Cargo's target folder.
//!
//! `initdb` takes about a second and its result depends on the binaries only, so a test run makes
//! it once. Outside a Cargo build (an installed `pgweir demo`) there is no place that may be left behind, and it is made anew.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::error::ClusterError;
use crate::locate::Binaries;
use crate::process::ServerUser;

/// Arguments of `initdb`; part of the cache's key, with [`Binaries::version`]. The superuser gets its password later.
const ARGUMENTS: [&str; 6] = [
    "--username=postgres",
    "--auth=trust",
    "--encoding=UTF8",
    "--locale=C",
    "--no-sync",
    "--no-instructions",
];

/// To be raised when [`ARGUMENTS`] change.
const FORMAT: u32 = 1;

/// Makes the data folder `data` in `folder` and gives it to the server user.
pub(crate) fn make(
    binaries: &Binaries,
    user: &ServerUser,
    folder: &Path,
    data: &Path,
) -> Result<(), ClusterError> {
    let kept = kept_at(binaries);
    if let Some(kept) = kept.as_deref().filter(|kept| kept.is_dir()) {
        return copy(kept, data, user);
    }
    fs::create_dir(data).map_err(ClusterError::io("create", data))?;
    user.own(data)?;
    let output = user
        .command(&binaries.server("initdb"), folder)
        .args(ARGUMENTS)
        .arg("--pgdata")
        .arg(data)
        .stdin(Stdio::null())
        .output()
        .map_err(ClusterError::io("run", binaries.server("initdb")))?;
    if !output.status.success() {
        return Err(ClusterError::Program {
            program: "initdb",
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    if let Some(kept) = kept {
        keep(data, &kept);
    }
    Ok(())
}

/// Copies a data folder of a stopped server, for the server user.
pub(crate) fn copy(from: &Path, to: &Path, user: &ServerUser) -> Result<(), ClusterError> {
    fs::create_dir(to).map_err(ClusterError::io("create", to))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o700))
        .map_err(ClusterError::io("chmod", to))?;
    user.own(to)?;
    for entry in fs::read_dir(from).map_err(ClusterError::io("read", from))? {
        let entry = entry.map_err(ClusterError::io("read", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target, user)?;
        } else {
            fs::copy(&source, &target).map_err(ClusterError::io("copy", &source))?;
            user.own(&target)?;
        }
    }
    Ok(())
}

/// Keeps a copy for the next start. Best effort: without it the next start is slower, not wrong.
fn keep(data: &Path, kept: &Path) {
    let nobody_else = ServerUser::ourselves();
    let Some(parent) = kept.parent() else { return };
    if fs::create_dir_all(parent).is_err() {
        return;
    }
    let Ok(young) = tempfile::tempdir_in(parent) else {
        return;
    };
    let copied = young.path().join("data");
    if copy(data, &copied, &nobody_else).is_ok() {
        // Another process may have been faster; its copy is as good.
        let _faster = fs::rename(&copied, kept);
    }
}

/// The place of the kept copy: in the Cargo target folder that this executable lies in, if it lies in one.
fn kept_at(binaries: &Binaries) -> Option<PathBuf> {
    let executable = std::env::current_exe().ok()?;
    let target = executable
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").is_file() && dir.join(".rustc_info.json").is_file())?;
    Some(
        target
            .join("devcluster")
            .join(format!("initdb-{}-{FORMAT}", binaries.version())),
    )
}
