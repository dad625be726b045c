//! From an accepted socket to a session: startup packet, authentication, and what a client is told about its server.
//!
//! <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>
//!
//! ## Limits
//! Before authentication a client makes us hold at most one startup packet (10,000 bytes) or one password message
//! (64 KiB), for at most `auth_timeout`.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pgweir_admin::Phase;
use pgweir_auth::{AuthError, ClientExchange, Method, Request, Step, StoredPassword};
use pgweir_config::{AuthMethod, Config};
use pgweir_net::{NetError, Stream};
use pgweir_route::Applicable;
use pgweir_session::{ClientSession, ParameterSet, SharedParameters};
use pgweir_wire::backend::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, ReadyForQuery,
};
use pgweir_wire::frontend::tag;
use pgweir_wire::limits::MAX_STARTUP_PACKET;
use pgweir_wire::{
    Frames, HEADER_LEN, Header, ListBuf, StartupMessage, StartupPacket, TransactionStatus,
};

use crate::account::Account;
use crate::cancel::{Slot, Slots};
use crate::choices::{Choices, Chosen, take_startup};
use crate::client_task::{CANCEL_LIMIT, Client, Identity, Input};
use crate::console::{self, ConsoleMail};
use crate::fault::Fault;
use crate::follow::limits;
use crate::holds::Target;
use crate::lens::Sight;
use crate::replication;
use crate::retry::Replay;
use crate::shown::Who;
use crate::tables::KnownPassword;
use crate::worker::{Counted, Mail, Worker};

/// The newest minor version of protocol 3 that is spoken with clients.
const NEWEST_MINOR: u16 = 2;

/// A password message may be this long: PostgreSQL's `PG_MAX_AUTH_TOKEN_LENGTH`.
const PASSWORD_LIMIT: usize = 65_535;

/// Bytes of the secret in BackendKeyData: 4 in protocol 3.0, up to 256 from 3.2 on.
const SHORT_SECRET: usize = 4;
const LONG_SECRET: usize = 32;

/// Why a login ended without a session.
enum Refused {
    /// The client is told.
    Fault(Fault),
    /// There is nobody to tell, or nothing to say.
    Silent,
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Refused::Fault(fault)
    }
}

impl From<NetError> for Refused {
    fn from(_: NetError) -> Self {
        Refused::Silent
    }
}

/// A startup packet, owned.
struct Startup {
    minor: u16,
    parameters: Vec<(String, String)>,
    /// `_pq_.` options, none of which is known.
    options: Vec<String>,
}

impl Startup {
    fn get(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .rev()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Serves one accepted connection to its end.
pub(crate) async fn serve(counted: Counted, mut stream: Stream) {
    let worker = Rc::clone(&counted.worker);
    if let Err(error) = stream.set_options(&worker.shared.socket_options()) {
        tracing::debug!(%error, "socket options");
    }
    let limit = worker.shared.config.load().server.auth_timeout;
    let outcome = match tokio::time::timeout(limit, startup_and_auth(&worker, &mut stream)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Refused::Fault(Fault::bad_startup(
            "the client did not log in within auth_timeout",
        ))),
    };
    let outcome = match outcome {
        Ok(Some((startup, user))) if console::is_meant(&worker.shared, startup.get("database")) => {
            match console::hand_over(&worker.shared, stream, startup.parameters, user) {
                Ok(()) | Err((_, None)) => return,
                Err((fault, Some(stream))) => Err((fault.into(), stream)),
            }
        }
        Ok(Some((startup, user))) => begin(counted, stream, startup, user).await,
        Ok(None) => return,
        Err(refused) => Err((refused, stream)),
    };
    match outcome {
        Ok(Some(client)) => client.run().await,
        Ok(None) | Err((Refused::Silent, _)) => {}
        Err((Refused::Fault(fault), mut stream)) => {
            tracing::info!(sqlstate = %fault.sqlstate, "login refused: {}", fault.message);
            worker.books.note_refused_login();
            let mut bytes = Vec::new();
            fault.fatal().encode(&mut bytes);
            // A client that has gone does not hear it.
            let _heard = tokio::time::timeout(limit, stream.write_all(&bytes)).await;
        }
    }
}

/// Reads the startup packet and asks for the password; `None` when the connection was for a CancelRequest.
async fn startup_and_auth(
    worker: &Rc<Worker>,
    stream: &mut Stream,
) -> Result<Option<(Startup, Arc<str>)>, Refused> {
    let mut buffer = Vec::new();
    let Some(startup) = read_startup(worker, stream, &mut buffer).await? else {
        return Ok(None);
    };
    let config = worker.shared.config.load_full();
    // Who looks after the proxy gets in also when nobody else does.
    let is_visitor = console::is_meant(&worker.shared, startup.get("database"));
    if worker.shared.phase() > Phase::Serving && !is_visitor {
        return Err(Fault::shutting_down().into());
    }
    if !is_visitor
        && worker.shared.clients.load(Ordering::Relaxed)
            > usize::try_from(config.server.max_clients).unwrap_or(usize::MAX)
    {
        return Err(Fault::too_many_clients(config.server.max_clients).into());
    }
    let user: Arc<str> = match startup.get("user") {
        Some(user) if !user.is_empty() => user.into(),
        _ => {
            return Err(
                Fault::bad_startup("no PostgreSQL user name specified in startup packet").into(),
            );
        }
    };
    negotiate(&startup, stream).await?;
    authenticate(worker, stream, &mut buffer, &config, &user).await?;
    // What is read after this belongs to the session, which starts with an empty buffer: a client may not send ahead.
    if !buffer.is_empty() {
        return Err(Fault::bad_startup("data before the end of the startup").into());
    }
    Ok(Some((startup, user)))
}

async fn read_startup(
    worker: &Rc<Worker>,
    stream: &mut Stream,
    buffer: &mut Vec<u8>,
) -> Result<Option<Startup>, Refused> {
    // At most one request for each kind of encryption may come before.
    for _ in 0..3 {
        let consumed = loop {
            let decoded = StartupPacket::decode(buffer, MAX_STARTUP_PACKET);
            match decoded.map_err(|error| Fault::bad_startup(error.to_string()))? {
                Some((StartupPacket::Ssl | StartupPacket::Gss, consumed)) => {
                    if buffer.len() > consumed {
                        return Err(Fault::bad_startup(
                            "received unencrypted data after an encryption request",
                        )
                        .into());
                    }
                    break consumed;
                }
                Some((StartupPacket::Cancel { process_id, secret }, _)) => {
                    let secret = secret.into();
                    cancel(worker, process_id, secret).await;
                    return Ok(None);
                }
                Some((StartupPacket::Startup(message), consumed)) => {
                    let startup = own(&message)?;
                    buffer.drain(..consumed);
                    return Ok(Some(startup));
                }
                Some((StartupPacket::Other { code }, _)) => {
                    let text = format!(
                        "unsupported frontend protocol {}.{}: server supports 3.0 to 3.{NEWEST_MINOR}",
                        code >> 16,
                        code & 0xFFFF
                    );
                    return Err(Fault::not_supported(&text).into());
                }
                None => {}
            }
            if stream.read_some(buffer).await? == 0 {
                return Err(Refused::Silent);
            }
        };
        buffer.drain(..consumed);
        stream.write_all(b"N").await?;
    }
    Err(Fault::bad_startup("too many requests for encryption").into())
}

fn own(message: &StartupMessage<'_>) -> Result<Startup, Fault> {
    let text = |bytes: &[u8]| {
        std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|_| Fault::bad_startup("a startup parameter is not UTF-8"))
    };
    let mut startup = Startup {
        minor: message.minor,
        parameters: Vec::new(),
        options: Vec::new(),
    };
    for (name, value) in message.parameters.iter() {
        let name = text(name)?;
        if name.starts_with("_pq_.") {
            startup.options.push(name);
        } else {
            startup.parameters.push((name, text(value)?));
        }
    }
    Ok(startup)
}

/// Hands a CancelRequest to the client's worker and waits until it has been dealt with, as PostgreSQL closes the
/// connection only after the signal: what the client sends afterwards is not cancelled.
async fn cancel(worker: &Rc<Worker>, process_id: u32, secret: Box<[u8]>) {
    let (done, dealt_with) = tokio::sync::oneshot::channel();
    let of_worker = Slots::worker_of(process_id);
    // Behind the last worker stands the console.
    match of_worker == worker.shared.workers().len() {
        true => worker.shared.console.send(ConsoleMail::Cancel {
            process_id,
            secret,
            done,
        }),
        false => worker.shared.send(
            of_worker,
            Mail::Cancel {
                process_id,
                secret,
                done,
            },
        ),
    }
    // An error means that nobody has the request any more, which is what is waited for.
    let _dealt = tokio::time::timeout(CANCEL_LIMIT, dealt_with).await;
}

/// Tells the client what of its wishes for the protocol is not met.
async fn negotiate(startup: &Startup, stream: &mut Stream) -> Result<(), Refused> {
    if startup.minor <= NEWEST_MINOR && startup.options.is_empty() {
        return Ok(());
    }
    let options = ListBuf::collect(startup.options.iter().map(String::as_bytes))
        .map_err(|error| Fault::bad_startup(error.to_string()))?;
    let minor = startup.minor.min(NEWEST_MINOR);
    let mut bytes = Vec::new();
    let version = 3 << 16 | u32::from(minor);
    NegotiateProtocolVersion {
        version,
        options: options.as_list(),
    }
    .encode(&mut bytes);
    stream.write_all(&bytes).await?;
    Ok(())
}

async fn authenticate(
    worker: &Rc<Worker>,
    stream: &mut Stream,
    buffer: &mut Vec<u8>,
    config: &Config,
    user: &Arc<str>,
) -> Result<(), Refused> {
    let method = match config.auth.method {
        AuthMethod::Trust => Method::Trust,
        AuthMethod::Password => Method::Password,
        AuthMethod::Md5 => Method::Md5,
        AuthMethod::ScramSha256 => Method::ScramSha256,
    };
    if method == Method::Trust && !config.users.is_empty() && config.user(user).is_none() {
        return Err(Fault::unknown_user(user).into());
    }
    let stored = stored_password(worker, config, method, user).await;
    let entropy = rand::random();
    let (mut exchange, mut request) =
        ClientExchange::start(method, user, stored.as_ref(), &entropy, &worker.shared.mock);
    while let Some(asked) = request.take() {
        let mut bytes = Vec::new();
        encode_request(&asked, &mut bytes)?;
        stream.write_all(&bytes).await?;
        let body = read_password(stream, buffer).await?;
        let step = if exchange.is_slow() {
            let checked = tokio::task::spawn_blocking(move || exchange.on_response(&body)).await;
            checked.map_err(|_| Refused::Silent)?
        } else {
            exchange.on_response(&body)
        };
        match step.map_err(|error| auth_fault(&error, user))? {
            Step::Continue(next, asked) => {
                exchange = next;
                request = Some(asked);
            }
            Step::Done { final_request, .. } => {
                let mut bytes = Vec::new();
                if let Some(last) = final_request {
                    encode_request(&last, &mut bytes)?;
                }
                stream.write_all(&bytes).await?;
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Returns what is stored for a user, with a clear-text password turned into a verifier where SCRAM is asked: once per
/// user, and not on this thread.
async fn stored_password(
    worker: &Rc<Worker>,
    config: &Config,
    method: Method,
    user: &Arc<str>,
) -> Option<StoredPassword> {
    let text = config.user(user)?.password.as_ref()?.expose();
    let stored = StoredPassword::parse(text);
    let (Method::ScramSha256, StoredPassword::Plain(password)) = (method, &stored) else {
        return Some(stored);
    };
    let verifiers = &worker.shared.tables.verifiers;
    if let Some(known) = verifiers.get(user)
        && known.password == *password
    {
        return Some(StoredPassword::Scram(known.verifier.clone()));
    }
    let (mock, name, password) = (
        worker.shared.mock.clone(),
        Arc::clone(user),
        password.clone(),
    );
    let known = tokio::task::spawn_blocking(move || KnownPassword {
        verifier: mock.verifier(&name, &password),
        password,
    })
    .await
    .ok()?;
    let stored = StoredPassword::Scram(known.verifier.clone());
    verifiers.insert(Arc::clone(user), Arc::new(known));
    Some(stored)
}

fn auth_fault(error: &AuthError, user: &str) -> Fault {
    match error {
        AuthError::Rejected => Fault::password(user),
        AuthError::Malformed { .. }
        | AuthError::Mechanism
        | AuthError::ChannelBinding
        | AuthError::ServerSignature
        | AuthError::Unsupported { .. }
        | AuthError::Credentials { .. }
        | AuthError::OutOfOrder => Fault::bad_startup(error.to_string()),
    }
}

fn encode_request(request: &Request, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mechanisms;
    let message = match request {
        Request::CleartextPassword => Authentication::CleartextPassword,
        Request::Md5 { salt } => Authentication::Md5 { salt: *salt },
        Request::Sasl { mechanisms: names } => {
            mechanisms = ListBuf::collect(names.iter().map(|name| name.as_bytes()))
                .map_err(|error| Fault::bad_startup(error.to_string()))?;
            Authentication::Sasl {
                mechanisms: mechanisms.as_list(),
            }
        }
        Request::SaslContinue(data) => Authentication::SaslContinue { data },
        Request::SaslFinal(data) => Authentication::SaslFinal { data },
    };
    message.encode(out);
    Ok(())
}

async fn read_password(stream: &mut Stream, buffer: &mut Vec<u8>) -> Result<Vec<u8>, Refused> {
    loop {
        let header = Header::peek(buffer).map_err(|error| Fault::bad_startup(error.to_string()))?;
        if let Some(header) = header {
            if header.tag != tag::PASSWORD {
                return Err(Fault::bad_startup("expected a password response").into());
            }
            if header.body_len() > PASSWORD_LIMIT {
                return Err(Fault::bad_startup("the password response is too long").into());
            }
        }
        let mut frames = Frames::new(buffer);
        if let Ok(Some(frame)) = frames.next() {
            let body = frame.bytes.get(HEADER_LEN..).unwrap_or_default().to_vec();
            let consumed = frames.consumed();
            buffer.drain(..consumed);
            return Ok(body);
        }
        if stream.read_some(buffer).await? == 0 {
            return Err(Refused::Silent);
        }
    }
}

/// Turns an authenticated connection into a session.
async fn begin(
    counted: Counted,
    mut stream: Stream,
    startup: Startup,
    user: Arc<str>,
) -> Result<Option<Client>, (Refused, Stream)> {
    let worker = Rc::clone(&counted.worker);
    // Should it be replaced meanwhile, the session's first batch will see that.
    let config_seen = worker.config_generation();
    let config = worker.shared.config.load_full();
    let mode = startup.get("replication").and_then(replication::mode);
    let mut identity = match identify(&config, &startup, &user, mode) {
        Ok(identity) => identity,
        Err(fault) => return Err((fault.into(), stream)),
    };
    if worker.shared.holds.load().is_disabled(&identity.database) {
        return Err((Fault::disabled(&identity.database).into(), stream));
    }
    if let Err(refused) = while_held(&worker, &identity, &mut stream).await {
        return Err((refused, stream));
    }
    if let Some(mode) = mode {
        let parameters = startup.parameters.clone();
        return match replication::serve(&worker, &identity, mode, parameters, &mut stream).await {
            Ok(()) => Ok(None),
            Err(fault) => Err((fault.into(), stream)),
        };
    }
    let (entries, choices) = match settings(&worker, &identity, &startup) {
        Ok(read) => read,
        Err(fault) => return Err((fault.into(), stream)),
    };
    identity.application = application_of(&entries);
    let parameters = worker.shared.tables.intern(entries);
    let reported = match identity.reported(&worker, &parameters).await {
        Ok(reported) => reported,
        Err(fault) => return Err((fault.into(), stream)),
    };
    identity.reads_text = pgweir_session::reads_text(&reported.parameters);
    identity.defaults = reported.defaults.clone();
    let secret = new_secret(startup.minor);
    let counted_in = worker.books.database(&identity.database);
    let account = Account::new(Rc::clone(&counted_in));
    let who = Who::new(&identity, &stream, counted_in, worker.coarse_now());
    let (process_id, slot) = worker.slots.add(secret.clone(), who);
    slot.set_target(Target {
        cluster: identity.cluster,
        database: Arc::clone(&identity.server_database),
    });
    let mut client = Client::new(
        counted,
        stream,
        &config,
        identity,
        parameters,
        (process_id, slot, account),
    );
    client.choices = Chosen::new(choices);
    client.look_at_catalog();
    client.follow_rules();
    client.config_seen = config_seen;
    let mut bytes = Vec::new();
    welcome(&reported.parameters, process_id, &secret, &mut bytes);
    match client.stream.write_all(&bytes).await {
        Ok(()) => {
            worker.books.note_login();
            Ok(Some(client))
        }
        Err(_) => Ok(None),
    }
}

/// Returns the `application_name` among the settings of a startup packet, or nothing.
fn application_of(entries: &[(String, String)]) -> Arc<str> {
    let application = entries.iter().find(|(name, _)| name == "application_name");
    application
        .map(|(_, value)| value.as_str().into())
        .unwrap_or_default()
}

/// Draws the secret of a client that speaks this minor version.
fn new_secret(minor: u16) -> Box<[u8]> {
    let len = match minor >= 2 {
        true => LONG_SECRET,
        false => SHORT_SECRET,
    };
    let drawn = rand::random::<[u8; LONG_SECRET]>().into_iter();
    drawn.take(len).collect()
}

/// Lets a new client wait as long as its database is held back.
async fn while_held(
    worker: &Rc<Worker>,
    identity: &Identity,
    stream: &mut Stream,
) -> Result<(), Refused> {
    if !worker.is_held_back(identity.cluster, &identity.server_database) {
        return Ok(());
    }
    let mut early = Vec::new();
    tokio::select! {
        resumed = identity.await_resume(worker) => Ok(resumed?),
        read = stream.read_some(&mut early) => match read? {
            0 => Err(Refused::Silent),
            _ => Err(Fault::bad_startup("data before the end of the startup").into()),
        },
    }
}

/// Reads the settings of a startup packet: the server's, and what the session starts with of ours.
fn settings(
    worker: &Worker,
    identity: &Identity,
    startup: &Startup,
) -> Result<(Vec<(String, String)>, Choices), Fault> {
    let pairs = startup
        .parameters
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let mut entries =
        ParameterSet::from_startup(pairs).map_err(|bad| Fault::bad_parameter(&bad.name))?;
    let mut choices = Choices::default();
    let topology = worker.topology(identity.cluster);
    let is_backend = |name: &str| topology.nodes.iter().any(|node| &*node.name == name);
    take_startup(&mut entries, &mut choices, is_backend)?;
    Ok((entries, choices))
}

/// Finds the database that a client asks for.
fn identify(
    config: &Config,
    startup: &Startup,
    user: &Arc<str>,
    mode: Option<replication::Mode>,
) -> Result<Identity, Fault> {
    let asked = startup
        .get("database")
        .filter(|name| !name.is_empty())
        .unwrap_or(user);
    // A physical replication connection has no database, whatever it calls itself (libpq: "replication").
    let of_the_only_cluster = || {
        let is_meant = mode == Some(replication::Mode::Physical) && config.clusters.len() == 1;
        config.databases.first().filter(|_| is_meant)
    };
    match config.database(asked).or_else(of_the_only_cluster) {
        Some(database) => Ok(Identity::new(config, database, asked, user)),
        None => Err(Fault::unknown_database(
            asked,
            config.nearest_database(asked),
        )),
    }
}

impl Client {
    /// Makes the session of a client that has logged in, under the process ID that its worker gave it.
    fn new(
        counted: Counted,
        stream: Stream,
        config: &Config,
        identity: Identity,
        parameters: SharedParameters,
        (process_id, slot, account): (u32, Rc<Slot>, Account),
    ) -> Self {
        let tables = &counted.worker.shared.tables;
        let place = tables.place(identity.login_key(&parameters));
        Client {
            stream,
            out: pgweir_net::Outgoing::new(),
            inbuf: Vec::new(),
            session: ClientSession::new(limits(config), parameters, place),
            choices: Chosen::new(Choices::default()),
            config_seen: 0,
            applicable: Applicable::default(),
            failing: None,
            identity,
            process_id,
            slot,
            account,
            held: None,
            aside: None,
            parked: None,
            input: Input::Open,
            awaits_input: false,
            is_oversize: false,
            replay: Replay::default(),
            default_meaning: std::cell::Cell::new(None),
            sight: Sight::default(),
            block: None,
            token: std::cell::Cell::default(),
            waited: std::cell::Cell::default(),
            chose_at: std::cell::Cell::new(counted.worker.coarse_now()),
            primary_until: None,
            lsn_asked_at: std::cell::Cell::default(),
            roles_seen: counted.worker.roles(),
            moved_at: counted.worker.coarse_now(),
            last_route: None,
            shadow: None,
            observed: None,
            spans: (counted.worker.shared.telemetry.is_some()).then(Box::default),
            tap: None,
            pools: Vec::new(),
            counted,
        }
    }
}

/// AuthenticationOk, the parameters, the key, ReadyForQuery: all in one write.
fn welcome(reported: &[(Box<str>, Box<str>)], process_id: u32, secret: &[u8], out: &mut Vec<u8>) {
    Authentication::Ok.encode(out);
    for (name, value) in reported.iter() {
        // As if connected straight to the primary, whoever told us.
        let value: &str = if **name == *"in_hot_standby" {
            "off"
        } else {
            value
        };
        ParameterStatus {
            name: name.as_bytes(),
            value: value.as_bytes(),
        }
        .encode(out);
    }
    BackendKeyData { process_id, secret }.encode(out);
    ReadyForQuery {
        status: TransactionStatus::Idle,
    }
    .encode(out);
}
