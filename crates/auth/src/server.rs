//! The exchange with a server: we are the client and answer what it asks.
//!
//! ```text
//! Begun ── Ok ─────────────────────────────────────────────────────────────────▶ Over
//!   ├───── CleartextPassword, MD5Password ── reply ──▶ AwaitingOk ── Ok ────────▶ Over
//!   └───── SASL ── reply ──▶ AwaitingContinue ── SASLContinue, reply ──▶ AwaitingFinal ── SASLFinal ──▶ AwaitingOk
//! ```
//! An AuthenticationOk before the SASLFinal of a begun SCRAM exchange is refused: a server that skips its own proof may
//! be an impostor.
//!
//! See <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>.

use std::mem;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::scram::{self, message};
use crate::secret::Key;
use crate::{AuthError, ScramKeys, Secret, StoredPassword, md5};

/// Codes of AuthenticationRequest messages: the first Int32 of their body.
///
/// See <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-AUTHENTICATIONOK>.
mod code {
    pub(super) const OK: i32 = 0;
    pub(super) const CLEARTEXT_PASSWORD: i32 = 3;
    pub(super) const MD5_PASSWORD: i32 = 5;
    pub(super) const SASL: i32 = 10;
    pub(super) const SASL_CONTINUE: i32 = 11;
    pub(super) const SASL_FINAL: i32 = 12;
}

/// What we can prove a role with. All empty is right for a server that trusts us.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// The password: answers every method.
    pub password: Option<Secret>,
    /// MD5 of password and user, as stored: answers the MD5 method.
    pub md5: Option<[u8; 16]>,
    /// Remembered or recovered keys: answer SCRAM where the server has the same salt, without a derivation.
    pub keys: Option<ScramKeys>,
}

impl Credentials {
    /// Returns credentials that hold a clear-text password.
    pub fn password(password: Secret) -> Self {
        Credentials {
            password: Some(password),
            ..Credentials::default()
        }
    }

    /// Returns what a stored password can prove: nothing, if it is a SCRAM verifier.
    pub fn from_stored(stored: &StoredPassword) -> Self {
        match stored {
            StoredPassword::Plain(password) => Credentials::password(password.clone()),
            StoredPassword::Md5(hash) => Credentials {
                md5: Some(*hash),
                ..Credentials::default()
            },
            StoredPassword::Scram(_) => Credentials::default(),
        }
    }

    /// Adds keys.
    #[must_use]
    pub fn with_keys(mut self, keys: Option<ScramKeys>) -> Self {
        self.keys = keys.or(self.keys);
        self
    }
}

/// What follows a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerStep {
    /// Send this as the body of a message with the tag `p`. It may hold the password.
    Reply(Vec<u8>),
    /// Nothing to send: another request follows.
    Wait,
    /// AuthenticationOk: we are in.
    Done,
}

/// An exchange with a server.
#[derive(Debug)]
pub struct ServerExchange {
    user: String,
    credentials: Credentials,
    nonce: String,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing asked yet.
    Begun,
    /// SASL chosen and client-first-message given.
    AwaitingContinue,
    /// client-final-message given; the server owes its signature.
    AwaitingFinal { signature: Expected },
    /// All given; the server owes its verdict.
    AwaitingOk,
    /// Done or failed.
    Over,
}

/// The ServerSignature that a true server will send.
struct Expected(Key);

impl std::fmt::Debug for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Expected(..)")
    }
}

impl ServerExchange {
    /// Begins an exchange as `user`; `entropy` is fresh random bytes.
    pub fn new(user: &str, credentials: Credentials, entropy: &[u8; 32]) -> Self {
        ServerExchange {
            user: user.to_owned(),
            credentials,
            nonce: scram::nonce(entropy),
            state: State::Begun,
        }
    }

    /// Returns whether [`ServerExchange::on_request`] would take a millisecond or more: off the worker threads then.
    pub fn is_slow(&self, code: i32, payload: &[u8]) -> bool {
        let fits = |first: &message::ServerFirst<'_>| {
            self.credentials
                .keys
                .as_ref()
                .is_some_and(|keys| keys.fit(&first.salt, first.iterations))
        };
        code == code::SASL_CONTINUE
            && message::server_first(payload).is_ok_and(|first| !fits(&first))
    }

    /// Returns the keys that the exchange used, to be remembered for the next connection as this user to this server.
    pub fn keys(&self) -> Option<&ScramKeys> {
        self.credentials.keys.as_ref()
    }

    /// Takes an AuthenticationRequest: its code and the rest of its body.
    ///
    /// # Errors
    /// [`AuthError::Credentials`] where the server asks for what we do not have; [`AuthError::ServerSignature`] where it
    /// is not the server that knows the password; [`AuthError::Unsupported`] and [`AuthError::Mechanism`] for methods
    /// that we do not speak; [`AuthError::Malformed`] and [`AuthError::OutOfOrder`] for the rest. The exchange is over
    /// with any.
    pub fn on_request(&mut self, code: i32, payload: &[u8]) -> Result<ServerStep, AuthError> {
        // An error leaves the exchange over.
        match (mem::replace(&mut self.state, State::Over), code) {
            (State::Begun | State::AwaitingOk, code::OK) => Ok(ServerStep::Done),
            (State::AwaitingContinue | State::AwaitingFinal { .. }, code::OK) => {
                Err(AuthError::ServerSignature)
            }
            (State::Begun, code::CLEARTEXT_PASSWORD) => {
                let password = self
                    .credentials
                    .password
                    .as_ref()
                    .ok_or(AuthError::Credentials { code })?;
                let reply = terminated(password.expose())?;
                self.reply(reply, State::AwaitingOk)
            }
            (State::Begun, code::MD5_PASSWORD) => {
                let salt = payload
                    .try_into()
                    .map_err(|_| malformed("AuthenticationMD5Password", "salt"))?;
                let password = self.credentials.password.as_ref();
                let derived = password.map(|password| md5::stored(password.expose(), &self.user));
                let stored = derived
                    .or(self.credentials.md5)
                    .ok_or(AuthError::Credentials { code })?;
                self.reply(
                    terminated(&md5::response(&stored, salt))?,
                    State::AwaitingOk,
                )
            }
            (State::Begun, code::SASL) => {
                if !mechanisms(payload)?.contains(&scram::MECHANISM.as_bytes()) {
                    return Err(AuthError::Mechanism);
                }
                if self.credentials.password.is_none() && self.credentials.keys.is_none() {
                    return Err(AuthError::Credentials { code });
                }
                let reply = initial_response(&self.client_first_bare());
                self.reply(reply, State::AwaitingContinue)
            }
            (State::AwaitingContinue, code::SASL_CONTINUE) => self.on_server_first(payload),
            (State::AwaitingFinal { signature }, code::SASL_FINAL) => {
                if !signature.0.matches(&message::server_final(payload)?) {
                    return Err(AuthError::ServerSignature);
                }
                self.state = State::AwaitingOk;
                Ok(ServerStep::Wait)
            }
            (
                _,
                code::CLEARTEXT_PASSWORD
                | code::MD5_PASSWORD
                | code::SASL..=code::SASL_FINAL
                | code::OK,
            ) => Err(AuthError::OutOfOrder),
            (_, code) => Err(AuthError::Unsupported { code }),
        }
    }

    fn on_server_first(&mut self, payload: &[u8]) -> Result<ServerStep, AuthError> {
        let first = message::server_first(payload)?;
        let added = first.nonce.strip_prefix(self.nonce.as_bytes());
        if added.is_none_or(<[u8]>::is_empty) {
            return Err(malformed("server-first-message", "nonce"));
        }
        if first.iterations > scram::MAX_ITERATIONS {
            return Err(malformed("server-first-message", "too many iterations"));
        }
        let keys = self.keys_for(&first)?;
        // `biws` is `n,,`: this side has no channel binding to offer.
        let without_proof = [b"c=biws,r=", first.nonce].concat();
        let bare = self.client_first_bare();
        let auth_message = [
            bare.as_bytes(),
            b",",
            payload,
            b",",
            without_proof.as_slice(),
        ]
        .concat();
        let proof = STANDARD.encode(keys.proof(&auth_message));
        let signature = Expected(keys.server_signature(&auth_message));
        self.credentials.keys = Some(keys);
        let reply = [without_proof.as_slice(), b",p=", proof.as_bytes()].concat();
        self.reply(reply, State::AwaitingFinal { signature })
    }

    /// Returns keys for the server's salt: those at hand if they fit, else derived from the password.
    fn keys_for(&mut self, first: &message::ServerFirst<'_>) -> Result<ScramKeys, AuthError> {
        let at_hand = self
            .credentials
            .keys
            .take()
            .filter(|keys| keys.fit(&first.salt, first.iterations));
        match (at_hand, &self.credentials.password) {
            (Some(keys), _) => Ok(keys),
            (None, Some(password)) => Ok(ScramKeys::derive(
                password.expose(),
                &first.salt,
                first.iterations,
            )),
            (None, None) => Err(AuthError::Credentials {
                code: code::SASL_CONTINUE,
            }),
        }
    }

    /// Returns client-first-message without its `n,,`; the user is that of the startup packet.
    fn client_first_bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }

    #[expect(
        clippy::unnecessary_wraps,
        reason = "the last call of every arm that replies"
    )]
    fn reply(&mut self, body: Vec<u8>, next: State) -> Result<ServerStep, AuthError> {
        self.state = next;
        Ok(ServerStep::Reply(body))
    }
}

fn malformed(message: &'static str, what: &'static str) -> AuthError {
    AuthError::Malformed { message, what }
}

fn terminated(text: &[u8]) -> Result<Vec<u8>, AuthError> {
    if text.contains(&0) {
        return Err(malformed("PasswordMessage", "the password has a zero byte"));
    }
    Ok([text, b"\0"].concat())
}

/// Returns the body of a SASLInitialResponse.
fn initial_response(bare: &str) -> Vec<u8> {
    let data = format!("n,,{bare}");
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    [
        scram::MECHANISM.as_bytes(),
        b"\0",
        &length.to_be_bytes(),
        data.as_bytes(),
    ]
    .concat()
}

/// Returns the names in an AuthenticationSASL body: strings, closed by an empty one.
fn mechanisms(payload: &[u8]) -> Result<Vec<&[u8]>, AuthError> {
    let names = payload
        .strip_suffix(b"\0\0")
        .ok_or_else(|| malformed("AuthenticationSASL", "list of mechanisms"))?;
    Ok(names.split(|byte| *byte == 0).collect())
}
