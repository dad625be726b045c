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
    let url = running.url();
    let _ = match psql(running) {
        Some(psql) => writeln!(
            text,
            "\nConnect from another terminal:\n\n  {psql} \"{url}\"\n"
        ),
        None => writeln!(
            text,
            "\nConnect from another terminal (psql was not found here):\n\n  {url}\n"
        ),
    };
    text.push_str(
        "Try there:\n\n  \
           SHOW port;                                     -- a read: one of the replicas answers\n  \
           UPDATE products SET stock = 0 WHERE id = 1;    -- a write: the primary\n  \
           SELECT stock FROM products WHERE id = 1;       -- sees it: a session reads its own writes\n  \
           EXPLAIN ROUTE SELECT count(*) FROM orders;     -- why a statement goes where it goes\n\n",
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
