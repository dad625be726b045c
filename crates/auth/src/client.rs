//! The exchange with a client: we are the server and ask it who it is.
//!
//! ```text
//! Trust:     nothing is asked
//! Password:  Cleartext ──────────────── PasswordMessage ─────▶ done
//! Md5:       Md5 ────────────────────── PasswordMessage ─────▶ done
//! SCRAM:     ClientFirst ─ SASLInitialResponse ─▶ ClientFinal ─ SASLResponse ─▶ done
//! ```
//! What is stored decides along with the method, as in `src/backend/libpq/auth.c CheckPWChallengeAuth` (REL_18):
//! method md5 with a SCRAM verifier is SCRAM, method scram-sha-256 with an MD5 hash fails like a wrong password.
//! An unknown user goes through the same messages as a known one and fails at the end.
//!
//! See <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

use crate::scram::{self, message};
use crate::{AuthError, MockKey, ScramKeys, ScramVerifier, Secret, StoredPassword, md5};

/// Bytes of a PasswordMessage body. Copied: PostgreSQL's `PG_MAX_AUTH_TOKEN_LENGTH`.
pub const MAX_PASSWORD_BYTES: usize = 65_535;

/// What is asked of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Nothing.
    Trust,
    /// The password in clear text.
    Password,
    /// An MD5 challenge; SCRAM where a SCRAM verifier is stored.
    Md5,
    /// SCRAM-SHA-256.
    ScramSha256,
}

/// An AuthenticationRequest that the caller frames and sends.
///
/// See <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-AUTHENTICATIONSASL>.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// AuthenticationCleartextPassword.
    CleartextPassword,
    /// AuthenticationMD5Password.
    Md5 {
        /// The challenge.
        salt: [u8; 4],
    },
    /// AuthenticationSASL.
    Sasl {
        /// Names of mechanisms, in order of preference.
        mechanisms: &'static [&'static str],
    },
    /// AuthenticationSASLContinue, with its data.
    SaslContinue(Vec<u8>),
    /// AuthenticationSASLFinal, with its data.
    SaslFinal(Vec<u8>),
}

/// What the client's proof leaves in our hands to log in to servers with.
#[derive(Debug, Clone)]
pub enum Proof {
    /// Nothing that could be used again.
    Nothing,
    /// The password itself.
    Password(Secret),
    /// The keys for the stored verifier's salt: they log in to every server that stores the same verifier.
    Scram(ScramKeys),
}

/// What follows a response.
#[derive(Debug)]
pub enum Step {
    /// Send the request; the next response is for the exchange.
    Continue(ClientExchange, Request),
    /// The client is who it says.
    Done {
        /// Sent before AuthenticationOk.
        final_request: Option<Request>,
        /// What can be used on the server side.
        proof: Proof,
    },
}

/// An exchange with a client that owes a response.
#[derive(Debug)]
pub struct ClientExchange(Box<State>);

#[derive(Debug)]
enum State {
    /// Nothing is asked, so no response is awaited.
    Trusted,
    /// Awaiting the password.
    Cleartext {
        user: String,
        stored: Option<StoredPassword>,
    },
    /// Awaiting the answer to the challenge; `known` is whether the right answer counts.
    Md5 { expected: Secret, known: bool },
    /// Awaiting client-first-message; `chosen` once the mechanism was named.
    ClientFirst { scram: Scram, chosen: bool },
    /// Awaiting client-final-message.
    ClientFinal {
        scram: Scram,
        binding: message::Binding,
        nonce: Vec<u8>,
        auth_message: Vec<u8>,
    },
}

#[derive(Debug)]
struct Scram {
    verifier: ScramVerifier,
    /// Whether the right proof counts; false for a mock exchange.
    known: bool,
    server_nonce: String,
}

impl ClientExchange {
    /// Begins an exchange; `None` as the request means that the client is trusted and nothing is to follow.
    ///
    /// `stored` is `None` for an unknown user and for one without password. `entropy` is fresh random bytes. With
    /// [`Method::ScramSha256`] a clear-text password is derived here, which takes a millisecond or more: callers on
    /// worker threads pass [`MockKey::verifier`]'s result, which they keep per user, instead; known users are then as
    /// fast as unknown ones.
    pub fn start(
        method: Method,
        user: &str,
        stored: Option<&StoredPassword>,
        entropy: &[u8; 32],
        mock: &MockKey,
    ) -> (Self, Option<Request>) {
        let (state, request) = match (method, stored) {
            (Method::Trust, _) => (State::Trusted, None),
            (Method::Password, _) => {
                let state = State::Cleartext {
                    user: user.to_owned(),
                    stored: stored.cloned(),
                };
                (state, Some(Request::CleartextPassword))
            }
            (Method::Md5, Some(StoredPassword::Plain(password))) => {
                md5_challenge(Some(md5::stored(password.expose(), user)), entropy)
            }
            (Method::Md5, Some(StoredPassword::Md5(hash))) => md5_challenge(Some(*hash), entropy),
            (Method::Md5, None) => md5_challenge(None, entropy),
            (Method::Md5 | Method::ScramSha256, Some(StoredPassword::Scram(verifier))) => {
                sasl(verifier.clone(), true, entropy)
            }
            (Method::ScramSha256, Some(StoredPassword::Plain(password))) => {
                sasl(mock.verifier(user, password), true, entropy)
            }
            (Method::ScramSha256, Some(StoredPassword::Md5(_)) | None) => {
                sasl(mock.unmatchable(user), false, entropy)
            }
        };
        (ClientExchange(Box::new(state)), request)
    }

    /// Returns whether the next response may take a millisecond or more to check: off the worker threads then.
    pub fn is_slow(&self) -> bool {
        matches!(
            &*self.0,
            State::Cleartext {
                stored: Some(StoredPassword::Scram(_)),
                ..
            }
        )
    }

    /// Takes the body of a PasswordMessage, SASLInitialResponse or SASLResponse (all have the tag `p`).
    ///
    /// # Errors
    /// [`AuthError::Rejected`] where the proof is wrong; [`AuthError::Malformed`], [`AuthError::Mechanism`],
    /// [`AuthError::ChannelBinding`] and [`AuthError::OutOfOrder`] where the message is. The client is closed with any.
    pub fn on_response(self, body: &[u8]) -> Result<Step, AuthError> {
        match *self.0 {
            State::Trusted => Err(AuthError::OutOfOrder),
            State::Cleartext { user, stored } => {
                let password = password_message(body)?;
                match stored.is_some_and(|stored| stored.matches(&user, password)) {
                    true => Ok(done(Proof::Password(Secret::new(password)))),
                    false => Err(AuthError::Rejected),
                }
            }
            State::Md5 { expected, known } => {
                let right = bool::from(expected.expose().ct_eq(password_message(body)?));
                if right && known {
                    Ok(done(Proof::Nothing))
                } else {
                    Err(AuthError::Rejected)
                }
            }
            State::ClientFirst {
                scram,
                chosen: false,
            } => match initial_response(body)? {
                Some(data) => scram.on_client_first(data),
                // A client that waits for a challenge gets an empty one
                // (`src/backend/libpq/auth-scram.c scram_exchange`, REL_18).
                None => {
                    let state = State::ClientFirst {
                        scram,
                        chosen: true,
                    };
                    Ok(Step::Continue(
                        ClientExchange(Box::new(state)),
                        Request::SaslContinue(Vec::new()),
                    ))
                }
            },
            State::ClientFirst {
                scram,
                chosen: true,
            } => scram.on_client_first(body),
            State::ClientFinal {
                scram,
                binding,
                nonce,
                auth_message,
            } => scram.on_client_final(body, binding, &nonce, auth_message),
        }
    }
}

impl Scram {
    fn on_client_first(self, data: &[u8]) -> Result<Step, AuthError> {
        let first = message::client_first(data)?;
        let nonce = [first.nonce, self.server_nonce.as_bytes()].concat();
        let salt = STANDARD.encode(self.verifier.salt());
        let rounds = format!(",s={salt},i={}", self.verifier.iterations());
        let server_first = [b"r=", nonce.as_slice(), rounds.as_bytes()].concat();
        let auth_message = [first.bare, b",", server_first.as_slice(), b","].concat();
        let state = State::ClientFinal {
            binding: first.binding,
            nonce,
            auth_message,
            scram: self,
        };
        Ok(Step::Continue(
            ClientExchange(Box::new(state)),
            Request::SaslContinue(server_first),
        ))
    }

    fn on_client_final(
        self,
        data: &[u8],
        binding: message::Binding,
        nonce: &[u8],
        mut auth_message: Vec<u8>,
    ) -> Result<Step, AuthError> {
        let client_final = message::client_final(data, binding)?;
        if client_final.nonce != nonce {
            return Err(AuthError::Malformed {
                message: "client-final-message",
                what: "nonce",
            });
        }
        auth_message.extend_from_slice(client_final.without_proof);
        let client_key = self.verifier.client_key(&auth_message, client_final.proof);
        let Some(client_key) = client_key.filter(|_| self.known) else {
            return Err(AuthError::Rejected);
        };
        let signature = STANDARD.encode(self.verifier.server_signature(&auth_message));
        Ok(Step::Done {
            final_request: Some(Request::SaslFinal(format!("v={signature}").into_bytes())),
            proof: Proof::Scram(ScramKeys::recovered(&self.verifier, client_key)),
        })
    }
}

fn done(proof: Proof) -> Step {
    Step::Done {
        final_request: None,
        proof,
    }
}

fn sasl(verifier: ScramVerifier, known: bool, entropy: &[u8; 32]) -> (State, Option<Request>) {
    let scram = Scram {
        verifier,
        known,
        server_nonce: scram::nonce(entropy),
    };
    let request = Request::Sasl {
        mechanisms: &[scram::MECHANISM],
    };
    (
        State::ClientFirst {
            scram,
            chosen: false,
        },
        Some(request),
    )
}

fn md5_challenge(hash: Option<[u8; 16]>, entropy: &[u8; 32]) -> (State, Option<Request>) {
    // The bytes after those that a nonce would take: one call's entropy serves either, never both.
    let salt = entropy.last_chunk::<4>().copied().unwrap_or_default();
    let expected = Secret::new(md5::response(&hash.unwrap_or_default(), salt));
    (
        State::Md5 {
            expected,
            known: hash.is_some(),
        },
        Some(Request::Md5 { salt }),
    )
}

/// Returns the password of a PasswordMessage body: a string that ends with its only zero byte.
fn password_message(body: &[u8]) -> Result<&[u8], AuthError> {
    let malformed = |what| AuthError::Malformed {
        message: "PasswordMessage",
        what,
    };
    if body.len() > MAX_PASSWORD_BYTES {
        return Err(malformed("too long"));
    }
    let password = body
        .strip_suffix(b"\0")
        .ok_or_else(|| malformed("no zero byte at the end"))?;
    if password.contains(&0) {
        return Err(malformed("zero byte before the end"));
    }
    // An empty password never counts (`src/backend/libpq/auth.c recv_password_packet`, REL_18).
    if password.is_empty() {
        Err(AuthError::Rejected)
    } else {
        Ok(password)
    }
}

/// Returns the data of a SASLInitialResponse body, `None` where the client sends none yet.
///
/// See <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-SASLINITIALRESPONSE>.
fn initial_response(body: &[u8]) -> Result<Option<&[u8]>, AuthError> {
    let malformed = |what| AuthError::Malformed {
        message: "SASLInitialResponse",
        what,
    };
    let end = body
        .iter()
        .position(|byte| *byte == 0)
        .ok_or_else(|| malformed("mechanism without zero byte"))?;
    let (mechanism, rest) = body.split_at(end);
    if mechanism != scram::MECHANISM.as_bytes() {
        return Err(AuthError::Mechanism);
    }
    let rest = rest.get(1..).unwrap_or_default();
    let (length, data) = rest
        .split_first_chunk::<4>()
        .ok_or_else(|| malformed("no length"))?;
    match i32::from_be_bytes(*length) {
        -1 if data.is_empty() => Ok(None),
        length if usize::try_from(length) == Ok(data.len()) => Ok(Some(data)),
        _ => Err(malformed("length does not fit")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_initial_response() {
        let body = |length: i32, data: &[u8]| {
            [b"SCRAM-SHA-256\0", length.to_be_bytes().as_slice(), data].concat()
        };
        assert_eq!(
            initial_response(&body(3, b"abc")),
            Ok(Some(b"abc".as_slice()))
        );
        assert_eq!(initial_response(&body(0, b"")), Ok(Some(b"".as_slice())));
        assert_eq!(initial_response(&body(-1, b"")), Ok(None));
        for bad in [
            body(-1, b"a"),
            body(-2, b""),
            body(2, b"abc"),
            body(4, b"abc"),
            body(i32::MAX, b""),
            b"SCRAM-SHA-256".to_vec(),
        ] {
            assert!(
                matches!(initial_response(&bad), Err(AuthError::Malformed { .. })),
                "{}",
                bad.escape_ascii()
            );
        }
        assert_eq!(
            initial_response(b"SCRAM-SHA-256-PLUS\0"),
            Err(AuthError::Mechanism)
        );
    }

    #[test]
    fn a_password_message_may_be_65535_bytes_long() {
        let body = |len: usize| [vec![b'a'; len - 1], vec![0]].concat();
        assert!(password_message(&body(MAX_PASSWORD_BYTES)).is_ok());
        assert!(password_message(&body(MAX_PASSWORD_BYTES + 1)).is_err());
    }
}
