//! CancelRequest on a connection of its own.
//!
//! <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-CANCELING-REQUESTS>

use std::time::Duration;

use crate::connect::open;
use crate::error::ConnectError;
use crate::server_connection::{Address, BackendKey};

/// Sends a CancelRequest and waits until the server has closed the connection: by then the signal has been sent, so what
/// the backend reads afterwards is not cancelled by it.
///
/// # Errors
/// [`ConnectError`]: whether the signal was or will be sent is unknown, so the server connection that it is for must not
/// serve another session.
///
/// # Cancel safety
/// Not cancel safe in the same sense: a dropped call leaves it unknown.
pub async fn cancel(
    address: &Address,
    key: &BackendKey,
    limit: Duration,
) -> Result<(), ConnectError> {
    let work = async {
        let mut stream = open(address, limit).await?;
        let mut request = Vec::new();
        pgweir_wire::startup::encode_cancel(&mut request, key.process_id, &key.secret);
        stream.write_all(&request).await?;
        let mut rest = Vec::new();
        while stream.read_some(&mut rest).await? > 0 {
            rest.clear();
        }
        Ok(())
    };
    tokio::time::timeout(limit, work)
        .await
        .map_err(|_| ConnectError::Timeout)?
}
