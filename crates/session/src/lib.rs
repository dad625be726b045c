//! The two ends of a proxied session as machines without I/O: what a client's bytes ask for, what a server still owes.
//!
//! Bytes come in, a [`Gather`](pgweir_wire::Gather) of byte ranges goes out; sockets, clocks and pools are the caller's.
//!
//! - [`client::ClientSession`] cuts the client's messages into batches ([`scan`](client::ClientSession::scan)) and
//!   translates a batch for one server ([`forward`](client::ClientSession::forward)).
//! - [`server::ServerSession`] is what is known of one server connection.
//! - [`reply`] takes the server's bytes apart and gives each reply to the request that owns it.
#![forbid(unsafe_code)]

pub mod client;
pub mod error;
pub mod outstanding;
pub mod parameters;
pub mod reply;
pub mod server;
pub mod state;
pub mod statement;
pub mod tally;

pub use client::{ClientSession, Limits, Probe, Scan, Tables};
pub use error::{Side, Violation};
pub use outstanding::Outstanding;
pub use parameters::{ParameterSet, SharedParameters};
pub use reply::{Received, Refusal, ReplyEvent, Watch};
pub use server::{ServerSession, reads_text};
pub use state::State;
pub use statement::{Statement, StatementId, StatementTable};
pub use tally::{BatchAnswer, Tally};
