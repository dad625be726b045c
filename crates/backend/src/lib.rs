//! Server connections of the data path: connecting, logging in, resetting, cancelling.
//!
//! A [`ServerConnection`] is a socket and what [`session`](pgweir_session) knows of its other end. It moves raw frames;
//! the control plane has drivers of its own.
#![forbid(unsafe_code)]

pub mod cancel;
pub mod connect;
pub mod error;
pub mod exchange;
pub mod reset;
pub mod server_connection;

pub use cancel::cancel;
pub use connect::{Login, connect, open};
pub use error::ConnectError;
pub use exchange::run_simple;
pub use reset::reset;
pub use server_connection::{Address, BackendKey, ServerConnection, Transit};
