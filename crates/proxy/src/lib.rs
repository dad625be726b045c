//! The proxy itself: worker threads, client tasks, and how a query finds its server.
//!
//! - [`Proxy`] is all that is shared; [`Proxy::start`] brings it up from a configuration.
//! - `worker` is one thread with its single-threaded runtime and everything its sessions share without locks.
//! - `login` takes a socket to a session, `client_task` is the session's life, `relay` its steady state, `dispatch` the
//!   decision per batch.
#![forbid(unsafe_code)]

mod accept;
mod account;
mod acquire;
mod beside;
mod block;
mod cancel;
mod checkout;
mod choices;
mod client_task;
mod console;
mod dispatch;
mod events;
mod facts;
mod fault;
mod follow;
mod holds;
mod lens;
mod limits;
mod local;
mod login;
mod meaning;
mod observe;
mod orders;
mod passes;
mod pools;
mod probe;
mod proxy;
mod relay;
mod replication;
mod retry;
mod roles;
pub mod rules;
mod seen;
mod shown;
mod signal;
mod steward;
mod tables;
mod tap;
mod telemetry;
#[cfg(test)]
mod testing;
mod wait;
mod worker;

pub use pgweir_admin::Shutdown;
pub use proxy::{EndOrders, Proxy, StartError};
pub use steward::report;
