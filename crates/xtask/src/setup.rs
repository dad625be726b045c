//! Installs what demo, tests and bench need, where that is ours to do (Debian as root), and
//! otherwise names the command that does it. Each step is quick once satisfied.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pgweir_devcluster::Binaries;

use crate::steps::run;

/// Everything the tests need. All parts are tried; the message names each that is missing.
pub(crate) fn all(root: &Path) -> Result<(), String> {
    let parts = [
        postgres(),
        python(root),
        exporter(root),
        node(root),
        java(),
        libclang(),
        prometheus(),
        check_postgres(),
        chromium(),
    ];
    let missing: Vec<String> = parts.into_iter().filter_map(Result::err).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(missing.join("\n"))
    }
}

/// A PostgreSQL server of 13 or newer, with `psql` and `pgbench`.
pub(crate) fn postgres() -> Result<(), String> {
    let complete = |found: Binaries| {
        let clients = ["psql", "pgbench"];
        clients
            .iter()
            .all(|name| found.client(name).is_some())
            .then_some(found)
    };
    if let Some(found) = Binaries::locate().ok().and_then(complete) {
        println!(
            "PostgreSQL {} in {}",
            found.version(),
            found.dir().display()
        );
        return Ok(());
    }
    install(
        "PostgreSQL with psql and pgbench",
        &["postgresql", "postgresql-client"],
    )?;
    let found = Binaries::locate().map_err(|error| error.to_string())?;
    println!(
        "PostgreSQL {} in {}",
        found.version(),
        found.dir().display()
    );
    Ok(())
}

/// libclang, with which the bindings of PostgreSQL's own parser are generated: the oracle of the classification's tests.
fn libclang() -> Result<(), String> {
    let is_there = std::env::var_os("LIBCLANG_PATH").is_some()
        || ["/usr/lib", "/usr/lib64", "/usr/local/lib"]
            .iter()
            .any(|folder| holds_libclang(Path::new(folder), 3));
    if is_there {
        return Ok(());
    }
    install("libclang (or LIBCLANG_PATH)", &["libclang-dev"])
}

/// Looks for a library that programs can load, some folders deep.
fn holds_libclang(folder: &Path, depth: usize) -> bool {
    let Ok(entries) = fs::read_dir(folder) else {
        return false;
    };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if is_libclang(&name) {
            return true;
        }
        let leads_there = name.starts_with("llvm") || name == "lib" || name.ends_with("-linux-gnu");
        depth > 1 && leads_there && holds_libclang(&entry.path(), depth - 1)
    })
}

/// Tells whether a file is libclang. `libclang-cpp`, which comes with other packages, is another library.
fn is_libclang(name: &str) -> bool {
    let is_it =
        name.starts_with("libclang.so") || name.starts_with("libclang-") && name.contains(".so");
    is_it && !name.starts_with("libclang-cpp")
}

/// Prometheus, which scrapes the metrics in the tests, and `promtool`, which checks them, the alerts and the example.
fn prometheus() -> Result<(), String> {
    if works("prometheus", "--version") && works("promtool", "--version") {
        return Ok(());
    }
    install("Prometheus with promtool", &["prometheus"])
}

/// A browser, in which the page is looked at.
fn chromium() -> Result<(), String> {
    let is_there = std::env::var_os("CHROMIUM").is_some()
        || ["chromium", "chromium-browser", "google-chrome"]
            .iter()
            .any(|name| works(name, "--version"));
    if is_there {
        return Ok(());
    }
    install("Chromium (or CHROMIUM)", &["chromium"])
}

/// The distribution's `PgBouncer`, for the bench.
pub(crate) fn pgbouncer() -> Result<(), String> {
    if works("pgbouncer", "--version") || works("/usr/sbin/pgbouncer", "--version") {
        return Ok(());
    }
    install("PgBouncer", &["pgbouncer"])
}

/// A virtual environment with psycopg, asyncpg, SQLAlchemy and Django, in `target/drivers/venv`.
fn python(root: &Path) -> Result<(), String> {
    let requirements = root.join("tests/drivers/requirements.txt");
    let venv = drivers(root).join("venv");
    if is_stamped(&venv, &requirements) {
        println!("Python drivers in {}", venv.display());
        return Ok(());
    }
    if !works("python3", "-c pass") || !works("python3", "-c import venv, ensurepip") {
        install("Python 3 with venv", &["python3", "python3-venv"])?;
    }
    println!("Installing the Python drivers into {}", venv.display());
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&venv))?;
    run(Command::new(venv.join("bin/python"))
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--requirement",
        ])
        .arg(&requirements))?;
    stamp(&venv, &requirements)
}

/// An exporter that was written for `PgBouncer`, in `target/drivers/exporter`.
fn exporter(root: &Path) -> Result<(), String> {
    let requirements = root.join("tests/drivers/requirements-exporter.txt");
    let venv = drivers(root).join("exporter");
    if is_stamped(&venv, &requirements) {
        return Ok(());
    }
    println!("Installing an exporter into {}", venv.display());
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&venv))?;
    run(Command::new(venv.join("bin/python"))
        .args(["-m", "pip", "install", "--quiet", "--no-deps"])
        .args(["--disable-pip-version-check", "--requirement"])
        .arg(&requirements))?;
    stamp(&venv, &requirements)
}

/// `check_postgres`, which knows `PgBouncer`'s console.
fn check_postgres() -> Result<(), String> {
    if works("check_postgres", "--version") {
        return Ok(());
    }
    install("check_postgres", &["check-postgres"])
}

/// The packages of node-postgres and `TypeORM`, in `target/drivers/node`.
fn node(root: &Path) -> Result<(), String> {
    let source = root.join("tests/drivers/node");
    let lock = source.join("package-lock.json");
    let place = drivers(root).join("node");
    if is_stamped(&place, &lock) {
        println!("Node drivers in {}", place.display());
        return Ok(());
    }
    if !works("node", "--version") || !works("npm", "--version") {
        install("Node with npm", &["nodejs", "npm"])?;
    }
    println!("Installing the Node drivers into {}", place.display());
    fs::create_dir_all(&place).map_err(|error| format!("create {}: {error}", place.display()))?;
    for file in ["package.json", "package-lock.json"] {
        fs::copy(source.join(file), place.join(file))
            .map_err(|error| format!("copy {}: {error}", source.join(file).display()))?;
    }
    run(Command::new("npm")
        .args(["ci", "--silent", "--no-audit", "--no-fund", "--prefix"])
        .arg(&place))?;
    stamp(&place, &lock)
}

/// A JDK (a single source file is run as it is) and pgjdbc.
fn java() -> Result<(), String> {
    let jar = std::env::var_os("PGJDBC_JAR").map_or_else(
        || PathBuf::from("/usr/share/java/postgresql.jar"),
        PathBuf::from,
    );
    let mut packages = Vec::new();
    if !works("javac", "-version") {
        packages.push("default-jdk-headless");
    }
    if !jar.is_file() {
        packages.push("libpostgresql-jdbc-java");
    }
    if !packages.is_empty() {
        install("Java with pgjdbc (or PGJDBC_JAR)", &packages)?;
    }
    println!("pgjdbc in {}", jar.display());
    Ok(())
}

/// The folder of the drivers; `PGWEIR_DRIVERS` names another.
fn drivers(root: &Path) -> PathBuf {
    std::env::var_os("PGWEIR_DRIVERS").map_or_else(|| root.join("target/drivers"), PathBuf::from)
}

/// Says whether `place` was filled from `list` as it is now.
fn is_stamped(place: &Path, list: &Path) -> bool {
    match (fs::read(place.join("installed-from")), fs::read(list)) {
        (Ok(then), Ok(now)) => then == now,
        _ => false,
    }
}

fn stamp(place: &Path, list: &Path) -> Result<(), String> {
    fs::copy(list, place.join("installed-from"))
        .map(drop)
        .map_err(|error| format!("copy {}: {error}", list.display()))
}

/// Says whether a program runs; `argument` is one or more words, of which all after the first are one.
fn works(program: &str, argument: &str) -> bool {
    let words = argument.splitn(2, ' ');
    Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Installs Debian packages, or says what to install.
fn install(what: &str, packages: &[&str]) -> Result<(), String> {
    let names = packages.join(" ");
    if !works("apt-get", "--version") {
        return Err(format!(
            "{what} is missing: install it with this system's package manager (on Debian: apt-get install {names})"
        ));
    }
    if !is_root() {
        return Err(format!(
            "{what} is missing; install it: sudo apt-get update && sudo apt-get install -y {names}"
        ));
    }
    println!("Installing {what}: apt-get install {names}");
    run(apt_get().args(["update", "-qq"]))?;
    run(apt_get()
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(packages))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // Nobody answers questions; and a run level of 1 keeps packages from starting their services,
    // since the clusters here are our own.
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("RUNLEVEL", "1");
    command
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

#[cfg(test)]
mod tests {
    use super::{is_libclang, is_stamped, stamp, works};
    use std::fs;

    #[test]
    fn a_place_is_filled_again_when_its_list_changes() {
        let place = tempfile::tempdir().unwrap();
        let list = place.path().join("list");
        fs::write(&list, "a==1").unwrap();
        assert!(!is_stamped(place.path(), &list));
        stamp(place.path(), &list).unwrap();
        assert!(is_stamped(place.path(), &list));
        fs::write(&list, "a==2").unwrap();
        assert!(!is_stamped(place.path(), &list));
    }

    #[test]
    fn the_library_of_clangs_own_tools_is_not_taken_for_libclang() {
        for name in ["libclang.so", "libclang.so.1", "libclang-14.so.1"] {
            assert!(is_libclang(name), "{name}");
        }
        for name in ["libclang-cpp.so.14", "libclang-cpp14.so", "libclang_rt.so"] {
            assert!(!is_libclang(name), "{name}");
        }
    }

    #[test]
    fn a_missing_program_does_not_work() {
        assert!(works("sh", "-c true"));
        assert!(!works("sh", "-c exit 3"));
        assert!(!works("no-such-program-of-ours", "--version"));
    }
}
