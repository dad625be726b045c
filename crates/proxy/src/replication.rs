//! Replication connections pass straight through to the primary: their grammar is not SQL and their state is the server's.
//!
//! <https://www.postgresql.org/docs/current/protocol-replication.html>

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pgweir_net::{Outgoing, Stream};
use pgweir_wire::TransactionStatus;
use pgweir_wire::backend::{Authentication, BackendKeyData, ParameterStatus, ReadyForQuery};

use crate::checkout;
use crate::client_task::Identity;
use crate::fault::Fault;
use crate::holds::Target;
use crate::worker::Worker;

/// Bytes per read of a replication stream.
const BUFFER_BYTES: usize = 64 * 1024;

/// What kind of walsender is asked for, as the server reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `replication=database`.
    Logical,
    /// `replication=true`.
    Physical,
}

/// Reads the startup parameter `replication`; `None` for an ordinary connection.
pub(crate) fn mode(value: &str) -> Option<Mode> {
    match value.to_ascii_lowercase().as_str() {
        "database" => Some(Mode::Logical),
        "true" | "on" | "yes" | "1" => Some(Mode::Physical),
        _ => None,
    }
}

/// Connects to the primary as the client asked and passes bytes to and fro until either side ends.
///
/// # Errors
/// A [`Fault`] for the client when there is no such connection.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    identity: &Identity,
    mode: Mode,
    parameters: Vec<(String, String)>,
    client: &mut Stream,
) -> Result<(), Fault> {
    let mut pass = worker.shared.passes.begin(Target {
        cluster: identity.cluster,
        database: Arc::clone(&identity.server_database),
    });
    let topology = worker.topology(identity.cluster);
    let Some(node) = topology.primary().map(|primary| primary.id) else {
        return Err(Fault::no_primary());
    };
    let mut passed: Vec<(Box<str>, Box<str>)> = parameters
        .into_iter()
        .filter(|(name, _)| !matches!(name.as_str(), "user" | "database" | "replication"))
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let value = if mode == Mode::Logical {
        "database"
    } else {
        "true"
    };
    passed.push(("replication".into(), value.into()));
    let config = worker.shared.config.load_full();
    let (key, user) = (identity.pool_key(node), config.user(&identity.user));
    let login =
        checkout::login(worker, &key, user, passed).map_err(|error| Fault::from_connect(&error))?;
    let (connection, _) = pgweir_backend::connect(&login)
        .await
        .map_err(|error| Fault::from_connect(&error))?;
    let mut bytes = Vec::new();
    Authentication::Ok.encode(&mut bytes);
    for (name, value) in connection.state.session.reported() {
        ParameterStatus {
            name: name.as_bytes(),
            value: value.as_bytes(),
        }
        .encode(&mut bytes);
    }
    let key = &connection.state.key;
    BackendKeyData {
        process_id: key.process_id,
        secret: &key.secret,
    }
    .encode(&mut bytes);
    ReadyForQuery {
        status: TransactionStatus::Idle,
    }
    .encode(&mut bytes);
    bytes.extend_from_slice(&connection.state.carry);
    if client.write_all(&bytes).await.is_err() {
        return Ok(());
    }
    tokio::select! {
        () = pass_through(client, connection.stream) => {}
        // It may last for ever, so that nobody waits for its end.
        () = pass.ended() => {}
    }
    Ok(())
}

/// Passes bytes to and fro until either side ends.
async fn pass_through(client: &mut Stream, mut server: Stream) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut to_server, mut to_client) = (Outgoing::new(), Outgoing::new());
    poll_fn(|cx| {
        loop {
            let forth = poll_pass(client, &mut server, &mut to_server, &mut buffer, cx);
            let back = poll_pass(&mut server, client, &mut to_client, &mut buffer, cx);
            match (forth, back) {
                (Poll::Ready(Pass::Ended), _) | (_, Poll::Ready(Pass::Ended)) => {
                    return Poll::Ready(());
                }
                (Poll::Pending, Poll::Pending) => return Poll::Pending,
                (Poll::Ready(Pass::Moved), _) | (_, Poll::Ready(Pass::Moved)) => {}
            }
        }
    })
    .await;
}

enum Pass {
    Moved,
    Ended,
}

/// Moves one read's worth of bytes, after what waits has been written.
fn poll_pass(
    from: &mut Stream,
    to: &mut Stream,
    waiting: &mut Outgoing,
    buffer: &mut [u8],
    cx: &mut Context<'_>,
) -> Poll<Pass> {
    if ready!(waiting.poll_flush(to, cx)).is_err() {
        return Poll::Ready(Pass::Ended);
    }
    match ready!(from.poll_read(cx, buffer)) {
        Ok(0) | Err(_) => Poll::Ready(Pass::Ended),
        Ok(count) => match waiting.send_slice(to, cx, buffer.get(..count).unwrap_or_default()) {
            Ok(()) => Poll::Ready(Pass::Moved),
            Err(_) => Poll::Ready(Pass::Ended),
        },
    }
}
