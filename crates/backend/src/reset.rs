//! Brings a server connection back to a clean state after a session left something behind.

use std::time::Duration;

use pgweir_wire::TransactionStatus;

use crate::error::ConnectError;
use crate::exchange::run_simple;
use crate::server_connection::ServerConnection;

/// Rolls back what is open and undoes what the ledger says.
///
/// Only for a connection on which nothing is outstanding. Returns whether it is clean now; if not, close it.
///
/// # Errors
/// [`ConnectError`]: close it.
///
/// # Cancel safety
/// Not cancel safe: close the connection when the call was dropped.
pub async fn reset(
    connection: &mut ServerConnection,
    limit: Duration,
) -> Result<bool, ConnectError> {
    if !connection.is_quiet() {
        return Ok(false);
    }
    if connection.state.session.status != TransactionStatus::Idle {
        run_simple(connection, b"ROLLBACK", limit).await?;
    }
    let Some(sql) = connection.state.session.reset_sql() else {
        return Ok(false);
    };
    if !sql.is_empty() {
        run_simple(connection, sql.as_bytes(), limit).await?;
        connection.state.session.reset_done();
    }
    Ok(connection.is_reusable())
}
