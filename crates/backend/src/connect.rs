//! Opens a connection to a server and logs in.
//!
//! <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_auth::{Credentials, ScramKeys, ServerExchange, ServerStep};
use pgweir_model::NodeId;
use pgweir_net::{Outgoing, SocketOptions, Stream};
use pgweir_session::ServerSession;
use pgweir_wire::backend::{Authentication, BackendKeyData, ParameterStatus, tag};
use pgweir_wire::frontend::Password;
use pgweir_wire::{Frames, ListBuf, StartupMessage};

use crate::error::ConnectError;
use crate::exchange::refused;
use crate::server_connection::{Address, BackendKey, ServerConnection, State};

/// Who logs in where.
#[derive(Debug, Clone)]
pub struct Login {
    /// Where the server listens.
    pub address: Arc<Address>,
    /// Which node it is.
    pub node: NodeId,
    /// Database.
    pub database: Arc<str>,
    /// Role.
    pub user: Arc<str>,
    /// What the role is proved with.
    pub credentials: Credentials,
    /// 32 fresh random bytes.
    pub entropy: [u8; 32],
    /// How long all of it may take.
    pub limit: Duration,
    /// How many statements may be prepared there.
    pub statement_limit: usize,
    /// Further startup parameters, such as `replication`.
    pub parameters: Vec<(Box<str>, Box<str>)>,
    /// Keepalive and the like.
    pub socket: SocketOptions,
}

/// Opens a socket to a server.
///
/// # Errors
/// [`ConnectError::Net`].
///
/// # Cancel safety
/// Cancel safe: a dropped call closes what it opened.
pub async fn open(address: &Address, limit: Duration) -> Result<Stream, ConnectError> {
    Ok(pgweir_net::connect(&address.host, address.port, limit).await?)
}

/// Opens a connection and logs in; returns it ready for its first query, with the SCRAM keys that were used, if any:
/// whoever passes them in the next [`Login`] to this server saves a derivation, which takes a millisecond or more.
///
/// # Errors
/// [`ConnectError`].
///
/// # Cancel safety
/// Cancel safe: a dropped call closes what it opened.
pub async fn connect(login: &Login) -> Result<(ServerConnection, Option<ScramKeys>), ConnectError> {
    tokio::time::timeout(login.limit, connect_now(login))
        .await
        .map_err(|_| ConnectError::Timeout)?
}

async fn connect_now(login: &Login) -> Result<(ServerConnection, Option<ScramKeys>), ConnectError> {
    let mut stream = open(&login.address, login.limit).await?;
    stream.set_options(&login.socket)?;
    let mut startup = Vec::new();
    startup_message(login, &mut startup)?;
    stream.write_all(&startup).await?;
    let mut dialogue = Dialogue {
        exchange: ServerExchange::new(&login.user, login.credentials.clone(), &login.entropy),
        authenticated: false,
        key: BackendKey {
            process_id: 0,
            secret: Box::default(),
        },
        reported: Vec::new(),
    };
    let mut buffer = Vec::new();
    let mut reply = Vec::new();
    loop {
        let (ready, consumed) = dialogue.read(&buffer, &mut reply)?;
        buffer.drain(..consumed);
        if !reply.is_empty() {
            stream.write_all(&reply).await?;
            reply.clear();
        }
        if ready {
            break;
        }
        if stream.read_some(&mut buffer).await? == 0 {
            return Err(ConnectError::Unexpected { tag: 0 });
        }
    }
    let keys = dialogue.exchange.keys().cloned();
    let connection = ServerConnection {
        stream,
        state: Box::new(State {
            session: ServerSession::new(dialogue.reported, login.statement_limit),
            outgoing: Outgoing::new(),
            carry: buffer,
            key: dialogue.key,
            address: Arc::clone(&login.address),
            node: login.node,
            opened_at: Instant::now(),
        }),
    };
    Ok((connection, keys))
}

/// Writes the StartupMessage: protocol 3.0, which every supported server speaks and which has all that is used here.
fn startup_message(login: &Login, out: &mut Vec<u8>) -> Result<(), ConnectError> {
    let mut pairs = ListBuf::new();
    pairs.push((&b"user"[..], login.user.as_bytes()))?;
    pairs.push((&b"database"[..], login.database.as_bytes()))?;
    for (name, value) in &login.parameters {
        pairs.push((name.as_bytes(), value.as_bytes()))?;
    }
    StartupMessage {
        major: 3,
        minor: 0,
        parameters: pairs.as_list(),
    }
    .encode(out);
    Ok(())
}

/// What the server says between the startup packet and its first ReadyForQuery.
struct Dialogue {
    exchange: ServerExchange,
    authenticated: bool,
    key: BackendKey,
    reported: Vec<(Box<str>, Box<str>)>,
}

impl Dialogue {
    /// Takes whole messages off `buffer`; returns whether the server is ready, and how much was taken.
    fn read(&mut self, buffer: &[u8], reply: &mut Vec<u8>) -> Result<(bool, usize), ConnectError> {
        let mut frames = Frames::new(buffer);
        while let Some(frame) = frames.next()? {
            match frame.tag {
                tag::AUTHENTICATION => self.on_authentication(frame.body(), reply)?,
                tag::ERROR_RESPONSE => return Err(refused(frame.bytes)),
                tag::NOTICE_RESPONSE | tag::NEGOTIATE_PROTOCOL_VERSION => {}
                tag::PARAMETER_STATUS if self.authenticated => {
                    let status = ParameterStatus::decode(frame.body())?;
                    let text = |bytes| String::from_utf8_lossy(bytes).into_owned().into_boxed_str();
                    self.reported.push((text(status.name), text(status.value)));
                }
                tag::BACKEND_KEY_DATA if self.authenticated => {
                    let key = BackendKeyData::decode(frame.body())?;
                    self.key = BackendKey {
                        process_id: key.process_id,
                        secret: key.secret.into(),
                    };
                }
                tag::READY_FOR_QUERY if self.authenticated => return Ok((true, frames.consumed())),
                tag => return Err(ConnectError::Unexpected { tag }),
            }
        }
        Ok((false, frames.consumed()))
    }

    fn on_authentication(&mut self, body: &[u8], reply: &mut Vec<u8>) -> Result<(), ConnectError> {
        // Checks the structure; the exchange reads code and payload itself.
        Authentication::decode(body)?;
        let code = body
            .first_chunk::<4>()
            .map_or(-1, |code| i32::from_be_bytes(*code));
        match self
            .exchange
            .on_request(code, body.get(4..).unwrap_or_default())?
        {
            ServerStep::Reply(data) => Password { raw: &data }.encode(reply),
            ServerStep::Wait => {}
            ServerStep::Done => self.authenticated = true,
        }
        Ok(())
    }
}
