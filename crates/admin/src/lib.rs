//! The admin SQL console, and what is served over HTTP beside it: metrics, health, one page.
//!
//! This crate never sees the proxy. What it shows it gets as [`Facts`], and what it does it asks of a [`Control`].
#![forbid(unsafe_code)]

pub mod console;
mod control;
pub mod exposition;
mod facts;
pub mod http;
mod process;
mod tables;
#[cfg(test)]
mod testing;
mod time;

pub use time::format as format_time;

pub use control::{Control, Operator, Order, Pending, Phase, Refusal, Shutdown, Target, TraceLine};
pub use facts::{
    ClientFacts, ClientState, ClusterFacts, Event, EventKind, Facts, LearnedRoute, NodeFacts,
    PoolFacts, PreparedStatement, ServerFacts, ServerState, Wanted,
};
