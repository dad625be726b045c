//! What the demo tells: where everything is, what to paste, what to try.

use std::fmt::Write as _;
use std::path::Path;

use super::Running;

/// Returns the text that is shown once everything runs.
pub(super) fn welcome(running: &Running, with_load: bool) -> String {
    let cluster = &running.cluster;
    let mut text = format!("\nPostgreSQL {}:\n", cluster.binaries().version());
    // Writing to a String cannot fail.
    for node in cluster.nodes() {
        let _ = writeln!(
            text,
            "  {:<10} {}:{}",
            node.name(),
            node.host(),
            node.port()
        );
    }
    let file = running.config_file.display();
    let _ = writeln!(
        text,
        "pgweir in front of them, configured by {file}:\n  {:<10} 127.0.0.1:{}",
        "pgweir", running.port
    );
    let psql = psql(running);
    if psql.is_none() {
        text.push_str("psql was not found here; any client will do.\n");
    }
    let psql = psql.as_deref().unwrap_or("psql");
    let (url, console) = (running.url(), running.console());
    let _ = write!(
        text,
        "\nConnect from another terminal:\n\n  {psql} \"{url}\"\n\n\
         Try there:\n\n  \
           SHOW port;                                     -- a read: one of the replicas answers\n  \
           UPDATE products SET stock = 0 WHERE id = 1;    -- a write: the primary\n  \
           SELECT stock FROM products WHERE id = 1;       -- sees it: a session reads its own writes\n  \
           EXPLAIN ROUTE SELECT count(*) FROM orders;     -- why a statement goes where it goes\n\n\
         Look at pgweir itself, by SQL, in a terminal, in a browser:\n\n  \
           {psql} \"{console}\"\n  \
           {} top \"{console}\"\n",
        program()
    );
    if let Some(page) = running.page {
        let _ = writeln!(text, "  http://127.0.0.1:{page}/");
    }
    text.push_str(
        "\nOn the console:\n\n  \
           SELECT name, role, weight, lag_ms FROM backends;         -- \\d lists all tables\n  \
           UPDATE backends SET weight = 0 WHERE name = 'replica1';  -- its reads go elsewhere at once\n\n",
    );
    text.push_str(match with_load {
        true => {
            "Eight connections read and write through the proxy. Transactions as each server counts them, per second;\n\
             `missed` are reads that did not find what their session had just written.\n"
        }
        false => "With --load, traffic is made and its split shown.\n",
    });
    text.push_str("Ctrl-C stops everything and leaves nothing behind.");
    text
}

/// Returns what to type for this program: it need not be where a shell looks for it.
fn program() -> String {
    std::env::current_exe().map_or_else(
        |_unknown| "pgweir".to_owned(),
        |path| path.display().to_string(),
    )
}

/// Returns what to type for psql, if there is one.
fn psql(running: &Running) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|dir| is_program(&dir.join("psql"))) {
        return Some("psql".to_owned());
    }
    let beside = running.cluster.binaries().client("psql")?;
    Some(beside.display().to_string())
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
