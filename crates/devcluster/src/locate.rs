//! Finds the PostgreSQL server binaries of this machine, or says which command installs them.
//!
//! The order: `PGWEIR_PG_BIN`, `PATH`, `pg_config --bindir` (what the user chose), then the
//! distributions' folders, newest version first.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest major version that we use: PostgreSQL 13 (the spec's range is 13 to 18).
const OLDEST_MAJOR: u32 = 13;

/// What a server folder must hold for a cluster to start.
const NEEDED: [&str; 3] = ["initdb", "postgres", "pg_basebackup"];

/// A PostgreSQL version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The major version, e.g. 17.
    pub major: u32,
    /// The minor version; 0 for betas and development versions.
    pub minor: u32,
}

impl Version {
    /// Reads the output of `postgres --version`, e.g. `postgres (PostgreSQL) 15.18 (Debian 15.18-0)`.
    fn from_output(output: &str) -> Option<Self> {
        let word = output
            .split_whitespace()
            .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        let mut numbers = word
            .split(|c: char| !c.is_ascii_digit())
            .map(|digits| digits.parse::<u32>().ok());
        let major = numbers.next()??;
        let minor = match word.contains('.') {
            true => numbers.next().flatten().unwrap_or(0),
            false => 0,
        };
        Some(Self { major, minor })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// No usable server binaries.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// Nothing was found anywhere.
    #[error(
        "no PostgreSQL server binaries (version {OLDEST_MAJOR} or newer) in PGWEIR_PG_BIN, PATH, pg_config --bindir or the usual folders; install them: {}",
        install_command()
    )]
    Missing,
    /// A folder that was named holds no complete server, or one that does not start.
    #[error("{} holds no usable PostgreSQL server: {reason}", dir.display())]
    Unusable {
        /// The folder.
        dir: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// The command that installs a PostgreSQL server on this machine, for messages.
#[must_use]
fn install_command() -> &'static str {
    let is = |name: &str| Path::new("/usr/bin").join(name).exists();
    if cfg!(target_os = "macos") {
        "brew install postgresql@17"
    } else if is("apt-get") {
        "sudo apt-get update && sudo apt-get install -y postgresql"
    } else if is("dnf") {
        "sudo dnf install -y postgresql-server postgresql-contrib"
    } else if is("pacman") {
        "sudo pacman -S postgresql"
    } else {
        "see https://www.postgresql.org/download/"
    }
}

/// A folder of PostgreSQL server binaries that starts and is new enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    dir: PathBuf,
    version: Version,
}

impl Binaries {
    /// Finds the binaries of this machine.
    ///
    /// # Errors
    /// [`LocateError::Missing`] if there are none; [`LocateError::Unusable`] if `PGWEIR_PG_BIN` is set and names no server.
    pub fn locate() -> Result<Self, LocateError> {
        if let Some(dir) = std::env::var_os("PGWEIR_PG_BIN") {
            return Self::at(Path::new(&dir));
        }
        if let Some(chosen) = on_path()
            .into_iter()
            .chain(pg_config_bindir())
            .find_map(|dir| Self::at(&dir).ok())
        {
            return Ok(chosen);
        }
        distribution_folders()
            .into_iter()
            .filter_map(|dir| Self::at(&dir).ok())
            .max_by_key(Self::version)
            .ok_or(LocateError::Missing)
    }

    /// Takes the binaries of one folder.
    ///
    /// # Errors
    /// [`LocateError::Unusable`] if one is missing, does not run, or is older than PostgreSQL 13.
    pub fn at(dir: &Path) -> Result<Self, LocateError> {
        let unusable = |reason: String| LocateError::Unusable {
            dir: dir.to_path_buf(),
            reason,
        };
        if let Some(name) = NEEDED.iter().find(|name| !dir.join(name).is_file()) {
            return Err(unusable(format!("{name} is missing")));
        }
        let output = Command::new(dir.join("postgres"))
            .arg("--version")
            .output()
            .map_err(|error| unusable(error.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = Version::from_output(&text)
            .ok_or_else(|| unusable(format!("it calls itself {text:?}")))?;
        if version.major < OLDEST_MAJOR {
            return Err(unusable(format!(
                "version {version} is older than {OLDEST_MAJOR}"
            )));
        }
        Ok(Self {
            dir: dir.to_path_buf(),
            version,
        })
    }

    /// The version of the server.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The folder of the binaries.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of one of the server's own programs (`initdb`, `postgres`, `pg_basebackup`).
    pub(crate) fn server(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The path of a client program such as `psql` or `pgbench`: beside the server, or else on `PATH`.
    #[must_use]
    pub fn client(&self, name: &str) -> Option<PathBuf> {
        let beside = self.dir.join(name);
        if beside.is_file() {
            return Some(beside);
        }
        path_folders()
            .into_iter()
            .map(|dir| dir.join(name))
            .find(|path| path.is_file())
    }
}

fn path_folders() -> Vec<PathBuf> {
    std::env::var_os("PATH").map_or_else(Vec::new, |path| std::env::split_paths(&path).collect())
}

/// The folders of the `postgres` programs on `PATH`. Links are followed: a lone link to
/// `postgres` in a folder of other programs stands for the server's real folder.
fn on_path() -> Vec<PathBuf> {
    path_folders()
        .into_iter()
        .filter_map(|dir| fs::canonicalize(dir.join("postgres")).ok())
        .filter_map(|postgres| postgres.parent().map(Path::to_path_buf))
        .collect()
}

fn pg_config_bindir() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let dir = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(dir.trim()))
}

/// Where Debian, Red Hat, Homebrew and the BSDs put servers that are not on `PATH`.
fn distribution_folders() -> Vec<PathBuf> {
    const PLACES: [(&str, &str); 5] = [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql"),
        ("/usr/local/opt", "postgresql"),
        ("/usr/local", "pgsql"),
    ];
    PLACES
        .iter()
        .flat_map(|(parent, prefix)| {
            fs::read_dir(parent)
                .into_iter()
                .flatten()
                .flatten()
                .filter(move |entry| entry.file_name().to_string_lossy().starts_with(prefix))
                .map(|entry| entry.path().join("bin"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Binaries, LocateError, Version};

    #[test]
    fn reads_the_version_of_releases_betas_and_distributions() {
        let version = |text: &str| Version::from_output(text).map(|v| (v.major, v.minor));
        assert_eq!(
            version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
            Some((15, 18))
        );
        assert_eq!(version("postgres (PostgreSQL) 18beta1"), Some((18, 0)));
        assert_eq!(version("postgres (PostgreSQL) 17devel"), Some((17, 0)));
        assert_eq!(version("postgres"), None);
    }

    #[test]
    fn a_folder_without_a_server_is_named_with_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let error = Binaries::at(dir.path()).unwrap_err();
        assert!(matches!(error, LocateError::Unusable { .. }));
        assert!(error.to_string().contains("initdb is missing"), "{error}");
    }

    #[test]
    fn a_missing_server_is_answered_with_the_command_that_installs_it() {
        assert!(LocateError::Missing.to_string().contains("install them: "));
    }
}
