//! `cargo xtask bench`: the proxy against direct connections, `PgBouncer` and a raw relay.

/// Runs the bench.
pub(crate) fn run(_arguments: &[String]) -> Result<(), String> {
    Err("the bench is not written yet".to_owned())
}
