//! Authentication exchanges, of clients with us and of us with servers, as pure state machines.
//!
//! No I/O, no clock, no randomness: salts and nonces come from the caller's entropy, and bodies of messages go in and
//! out; framing is the caller's. [`ClientExchange`] asks a client who it is; [`ServerExchange`] answers a server.
//!
//! ## Why the SCRAM client is ours
//! Two rules exclude a ready-made client that takes a password and draws its own nonce: key derivation must be able to
//! run off the worker threads and be remembered from one server connection to the next ([`ServerExchange::is_slow`],
//! [`ServerExchange::keys`]), and where no password is configured the client's own key logs in to the server
//! ([`Proof::Scram`]). `postgres-protocol`'s client is the oracle of the tests instead.
//!
//! ## Limits
//! Channel binding (SCRAM-SHA-256-PLUS) waits for TLS: it is neither offered nor accepted.
#![forbid(unsafe_code)]

pub mod client;
pub mod error;
mod md5;
pub mod mock;
pub mod scram;
pub mod secret;
pub mod server;
pub mod stored;

pub use client::{ClientExchange, Method, Proof, Request, Step};
pub use error::AuthError;
pub use mock::MockKey;
pub use scram::{ScramKeys, ScramVerifier};
pub use secret::Secret;
pub use server::{Credentials, ServerExchange, ServerStep};
pub use stored::StoredPassword;
