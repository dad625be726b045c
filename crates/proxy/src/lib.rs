//! The proxy itself: worker threads, client tasks, and how a query finds its server.
//!
//! - [`Proxy`] is all that is shared; [`Proxy::start`] brings it up from a configuration.
//! - `worker` is one thread with its single-threaded runtime and everything its sessions share without locks.
//! - `login` takes a socket to a session, `client_task` is the session's life, `relay` its steady state, `dispatch` the
//!   decision per batch.
#![forbid(unsafe_code)]

mod accept;
mod acquire;
mod block;
mod cancel;
mod checkout;
mod choices;
mod client_task;
mod dispatch;
mod fault;
mod lens;
mod local;
mod login;
mod probe;
mod proxy;
mod relay;
mod replication;
mod retry;
pub mod rules;
mod tables;
mod worker;

pub use proxy::{Proxy, StartError};
