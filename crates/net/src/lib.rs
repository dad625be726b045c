//! Sockets for both sides of the proxy: listening, connecting, reading, writing what is gathered, deadlines.
//!
//! This crate knows bytes; it has never heard of messages, sessions or pools. One rule shapes it: in the steady state a
//! run of messages costs one read and one write, so nothing here reads "until it would block", and what is written is
//! gathered from the bytes that were read ([`Gather`](pgweir_wire::Gather)) instead of being copied.
#![deny(unsafe_code)]

mod connect;
mod deadline;
mod error;
mod framed;
mod listener;
mod socket_options;
mod stream;

pub use connect::connect;
pub use deadline::with_deadline;
pub use error::{NetError, Peer};
pub use framed::Outgoing;
pub use listener::Listener;
pub use socket_options::{Keepalive, SocketOptions};
pub use stream::{Quiet, StdStream, Stream};
