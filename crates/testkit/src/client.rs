//! A raw protocol client: sends any bytes, shows each message. Blocking, with a deadline on each read.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs as _},
    time::{Duration, Instant},
};

use pgweir_auth::{AuthError, Credentials, Secret, ServerExchange, ServerStep};
use pgweir_wire::{DecodeError, Header, TransactionStatus, backend, frontend, startup, writer};

use crate::{
    login::Login,
    message::{Answer, Message},
    patience::PATIENCE,
    seed::Rng,
};

/// Why a client could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket failed.
    #[error("{op}: {source}")]
    Io {
        /// What was being done.
        op: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing came within the client's patience. What had come is in the error, since it tells where the server hangs.
    #[error("nothing more came after {0:?}")]
    Deadline(Vec<Message>),
    /// The server closed the connection. What came before is in the error.
    #[error("the connection was closed after {0:?}")]
    Closed(Vec<Message>),
    /// The server sent what is no message.
    #[error("malformed message: {0}")]
    Malformed(#[from] DecodeError),
    /// The server refused the login.
    #[error("login refused: {0:?}")]
    Refused(Message),
    /// The authentication exchange failed on our side.
    #[error("authentication: {0}")]
    Authentication(#[from] AuthError),
}

impl ClientError {
    /// Returns the ErrorResponse that the server sent before it ended things, if it did.
    #[must_use]
    pub fn error_response(&self) -> Option<&Message> {
        match self {
            Self::Refused(message) => Some(message),
            Self::Closed(messages) | Self::Deadline(messages) => messages
                .iter()
                .find(|message| message.tag == backend::tag::ERROR_RESPONSE),
            Self::Io { .. } | Self::Malformed(_) | Self::Authentication(_) => None,
        }
    }

    /// Returns the SQLSTATE of [`Self::error_response`].
    #[must_use]
    pub fn sqlstate(&self) -> Option<String> {
        self.error_response()?.sqlstate()
    }
}

fn io_error(op: &'static str) -> impl FnOnce(io::Error) -> ClientError {
    move |source| ClientError::Io { op, source }
}

/// A connection to a server or a proxy.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    peer: SocketAddr,
    /// What was received and not taken yet: `input[taken..]`.
    input: Vec<u8>,
    taken: usize,
    patience: Duration,
    process_id: u32,
    secret: Vec<u8>,
    parameters: BTreeMap<String, String>,
    status: TransactionStatus,
}

impl Client {
    /// Connects and logs in.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] with the server's answer; others as the connection goes.
    pub fn open(address: &str, login: &Login) -> Result<Self, ClientError> {
        let mut client = Self::connect(address)?;
        client.login(login)?;
        Ok(client)
    }

    /// Connects, and sends nothing.
    ///
    /// # Errors
    ///
    /// [`ClientError::Io`].
    pub fn connect(address: &str) -> Result<Self, ClientError> {
        let peer = address
            .to_socket_addrs()
            .map_err(io_error("resolve"))?
            .next()
            .ok_or_else(|| io_error("resolve")(io::ErrorKind::NotFound.into()))?;
        let stream = TcpStream::connect_timeout(&peer, PATIENCE).map_err(io_error("connect"))?;
        stream
            .set_nodelay(true)
            .map_err(io_error("set TCP_NODELAY"))?;
        Ok(Self {
            stream,
            peer,
            input: Vec::new(),
            taken: 0,
            patience: PATIENCE,
            process_id: 0,
            secret: Vec::new(),
            parameters: BTreeMap::new(),
            status: TransactionStatus::Idle,
        })
    }

    /// Sets how long a read waits for the next message.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sends the StartupMessage, authenticates, and reads up to the first ReadyForQuery.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] with the server's answer; others as the connection goes.
    pub fn login(&mut self, login: &Login) -> Result<Answer, ClientError> {
        self.send(&login.startup_message())?;
        let password = login.password.as_deref().unwrap_or_default();
        let credentials = Credentials::password(Secret::new(password));
        let mut exchange = ServerExchange::new(&login.user, credentials, &entropy()?);
        let mut seen = Vec::new();
        loop {
            let message = self.read()?;
            match message.tag {
                backend::tag::ERROR_RESPONSE => return Err(ClientError::Refused(message)),
                backend::tag::AUTHENTICATION => self.authenticate(&mut exchange, &message)?,
                _ => {}
            }
            let ready = message.tag == backend::tag::READY_FOR_QUERY;
            seen.push(message);
            if ready {
                return Ok(Answer(seen));
            }
        }
    }

    fn authenticate(
        &mut self,
        exchange: &mut ServerExchange,
        message: &Message,
    ) -> Result<(), ClientError> {
        let (code, payload) = message
            .body()
            .split_first_chunk::<4>()
            .unwrap_or((&[0; 4], &[]));
        match exchange.on_request(i32::from_be_bytes(*code), payload)? {
            ServerStep::Reply(body) => {
                let mut out = Vec::new();
                frontend::Password { raw: &body }.encode(&mut out);
                self.send(&out)
            }
            ServerStep::Wait | ServerStep::Done => Ok(()),
        }
    }

    /// Sends these bytes.
    ///
    /// # Errors
    ///
    /// [`ClientError::Io`].
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.stream.write_all(bytes).map_err(io_error("send"))
    }

    /// Sends these bytes in pieces of random sizes, so that the peer reads torn messages.
    ///
    /// # Errors
    ///
    /// [`ClientError::Io`].
    pub fn send_torn(&mut self, mut bytes: &[u8], rng: &mut Rng) -> Result<(), ClientError> {
        while !bytes.is_empty() {
            // Mostly within a header, at times over several messages.
            let limit = if rng.chance(1, 8) { 300 } else { 7 };
            let (piece, rest) = bytes.split_at((1 + rng.below(limit)).min(bytes.len()));
            self.send(piece)?;
            bytes = rest;
        }
        Ok(())
    }

    /// Reads the next message, whichever it is.
    ///
    /// # Errors
    ///
    /// [`ClientError::Closed`] at the end of the stream, [`ClientError::Deadline`] when nothing comes.
    pub fn read(&mut self) -> Result<Message, ClientError> {
        let deadline = Instant::now() + self.patience;
        loop {
            let waiting = self.input.get(self.taken..).unwrap_or_default();
            if let Some(header) = Header::peek(waiting)?
                && let Some(bytes) = waiting.get(..header.frame_len())
            {
                let message = Message {
                    tag: header.tag,
                    bytes: bytes.to_vec(),
                };
                self.taken += bytes.len();
                self.note(&message);
                return Ok(message);
            }
            self.receive(deadline)?;
        }
    }

    /// Reads one byte that is no message: the answer to SSLRequest and GSSENCRequest.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn read_byte(&mut self) -> Result<u8, ClientError> {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some(byte) = self.input.get(self.taken) {
                self.taken += 1;
                return Ok(*byte);
            }
            self.receive(deadline)?;
        }
    }

    /// Reads up to and with the next ReadyForQuery.
    ///
    /// # Errors
    ///
    /// As [`Self::read`]; the error holds the messages before it.
    pub fn until_ready(&mut self) -> Result<Answer, ClientError> {
        self.until(backend::tag::READY_FOR_QUERY)
    }

    /// Reads up to and with the next message of this tag.
    ///
    /// # Errors
    ///
    /// As [`Self::read`]; the error holds the messages before it.
    pub fn until(&mut self, tag: u8) -> Result<Answer, ClientError> {
        let mut seen = Vec::new();
        loop {
            match self.read() {
                Ok(message) => {
                    let last = message.tag == tag;
                    seen.push(message);
                    if last {
                        return Ok(Answer(seen));
                    }
                }
                Err(ClientError::Closed(_)) => return Err(ClientError::Closed(seen)),
                // It was closed before it had read all that was sent: its last words are what counts.
                Err(ClientError::Io { .. }) if !seen.is_empty() => {
                    return Err(ClientError::Closed(seen));
                }
                Err(ClientError::Deadline(_)) => return Err(ClientError::Deadline(seen)),
                Err(other) => return Err(other),
            }
        }
    }

    /// Reads until the server closes the connection; a reset counts as that.
    ///
    /// # Errors
    ///
    /// [`ClientError::Deadline`] when it stays open, [`ClientError::Malformed`].
    pub fn until_closed(&mut self) -> Result<Answer, ClientError> {
        let mut seen = Vec::new();
        loop {
            match self.read() {
                Ok(message) => seen.push(message),
                Err(ClientError::Closed(_) | ClientError::Io { .. }) => return Ok(Answer(seen)),
                Err(ClientError::Deadline(_)) => return Err(ClientError::Deadline(seen)),
                Err(other) => return Err(other),
            }
        }
    }

    /// Runs a simple query and returns all that answers it. An ErrorResponse is an answer, not an error.
    ///
    /// # Errors
    ///
    /// As [`Self::until_ready`].
    pub fn query(&mut self, sql: &str) -> Result<Answer, ClientError> {
        self.send_query(sql)?;
        self.until_ready()
    }

    /// Sends a simple query and does not wait for its answer.
    ///
    /// # Errors
    ///
    /// [`ClientError::Io`].
    pub fn send_query(&mut self, sql: &str) -> Result<(), ClientError> {
        let mut out = Vec::new();
        frontend::Query {
            sql: sql.as_bytes(),
        }
        .encode(&mut out);
        self.send(&out)
    }

    /// Runs one statement through the extended protocol (unnamed statement and portal, text parameters).
    ///
    /// # Errors
    ///
    /// As [`Self::until_ready`].
    pub fn execute(
        &mut self,
        sql: &str,
        parameters: &[Option<&str>],
    ) -> Result<Answer, ClientError> {
        let mut out = Vec::new();
        append_execute(&mut out, sql, parameters);
        frontend::Sync.encode(&mut out);
        self.send(&out)?;
        self.until_ready()
    }

    /// Sends a CancelRequest for this session over a connection of its own, and waits until the peer has closed that:
    /// from then on the cancel hits nothing more.
    ///
    /// # Errors
    ///
    /// [`ClientError::Io`].
    pub fn cancel(&self) -> Result<(), ClientError> {
        let mut canceller = Self::connect(&self.peer.to_string())?;
        canceller.send(&self.cancel_request())?;
        canceller.until_closed().map(drop)
    }

    /// Returns the CancelRequest for this session.
    #[must_use]
    pub fn cancel_request(&self) -> Vec<u8> {
        let mut out = Vec::new();
        startup::encode_cancel(&mut out, self.process_id, &self.secret);
        out
    }

    /// Says goodbye and waits until the peer has closed the connection.
    ///
    /// # Errors
    ///
    /// As [`Self::until_closed`].
    pub fn terminate(mut self) -> Result<(), ClientError> {
        self.send(&frontend::Terminate::BYTES)?;
        self.until_closed().map(drop)
    }

    /// Closes the sending side only.
    ///
    /// # Errors
    ///
    /// [`ClientError::Io`].
    pub fn shutdown_send(&self) -> Result<(), ClientError> {
        self.stream
            .shutdown(Shutdown::Write)
            .map_err(io_error("shutdown"))
    }

    /// Vanishes with a TCP reset, as a killed machine behind a firewall does.
    pub fn reset(self) {
        // Without the option the drop closes in an orderly manner, which the caller's test then tells.
        let _best_effort = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Returns the process ID of BackendKeyData; 0 before the login.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process_id
    }

    /// Returns the cancel key of BackendKeyData.
    #[must_use]
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }

    /// Returns the last value that the server reported for a parameter.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Returns the last value of each parameter that the server reported.
    #[must_use]
    pub fn parameters(&self) -> &BTreeMap<String, String> {
        &self.parameters
    }

    /// Returns the transaction status of the last ReadyForQuery.
    #[must_use]
    pub fn status(&self) -> TransactionStatus {
        self.status
    }

    /// Returns the socket, for options and for a second thread.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn note(&mut self, message: &Message) {
        match message.decode() {
            Ok(backend::Message::BackendKeyData(key)) => {
                self.process_id = key.process_id;
                self.secret = key.secret.to_vec();
            }
            Ok(backend::Message::ParameterStatus(parameter)) => {
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                self.parameters
                    .insert(text(parameter.name), text(parameter.value));
            }
            Ok(backend::Message::ReadyForQuery(ready)) => self.status = ready.status,
            _ => {}
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<(), ClientError> {
        const CHUNK: usize = 64 * 1024;
        self.input.drain(..self.taken);
        self.taken = 0;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ClientError::Deadline(Vec::new()));
        }
        self.stream
            .set_read_timeout(Some(left))
            .map_err(io_error("set a timeout"))?;
        let before = self.input.len();
        self.input.resize(before + CHUNK, 0);
        let read = self
            .stream
            .read(self.input.get_mut(before..).unwrap_or_default());
        self.input
            .truncate(before + read.as_ref().map_or(0, |count| *count));
        match read {
            Ok(0) => Err(ClientError::Closed(Vec::new())),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(ClientError::Deadline(Vec::new()))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(io_error("receive")(error)),
        }
    }
}

/// Appends a Parse that leaves the types to the server.
pub fn append_parse(out: &mut Vec<u8>, name: &str, sql: &str) {
    writer::message(out, frontend::tag::PARSE, |w| {
        w.cstr(name.as_bytes());
        w.cstr(sql.as_bytes());
        w.i16(0);
    });
}

/// Appends Bind, Describe and Execute of a prepared statement, without a Sync.
pub fn append_bound(out: &mut Vec<u8>, name: &str, parameters: &[Option<&str>]) {
    append_bind(out, name, parameters);
    frontend::Describe {
        kind: frontend::Target::Portal,
        name: b"",
    }
    .encode(out);
    append_run(out);
}

fn append_bind(out: &mut Vec<u8>, name: &str, parameters: &[Option<&str>]) {
    writer::message(out, frontend::tag::BIND, |w| {
        w.cstr(b"");
        w.cstr(name.as_bytes());
        w.i16(0);
        w.u16(u16::try_from(parameters.len()).unwrap_or(u16::MAX));
        for parameter in parameters {
            w.value(parameter.map(str::as_bytes));
        }
        w.i16(0);
    });
}

fn append_run(out: &mut Vec<u8>) {
    frontend::Execute {
        portal: b"",
        max_rows: 0,
    }
    .encode(out);
}

/// Appends Bind and Execute of a prepared statement without parameters, and neither a Describe nor a Sync.
pub fn append_undescribed(out: &mut Vec<u8>, name: &str) {
    append_bind(out, name, &[]);
    append_run(out);
}

/// Appends Parse, Bind, Describe and Execute of one statement, without a Sync.
pub fn append_execute(out: &mut Vec<u8>, sql: &str, parameters: &[Option<&str>]) {
    append_parse(out, "", sql);
    append_bound(out, "", parameters);
}

fn entropy() -> Result<[u8; 32], ClientError> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(io_error("draw a nonce"))?;
    Ok(bytes)
}
