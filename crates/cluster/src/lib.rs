//! The control plane: which server is the primary, where everyone stands in the WAL, who answers.
//!
//! One thread per cluster asks every server in turn and publishes an immutable [`pgweir_model::Topology`]; worker threads
//! read it without a lock. [`Monitor::start`] is the entry point. Nothing of a client's query passes through here.
//!
//! ## What the login needs
//! Any role may ask most of it. Which timeline a replica receives is shown to members of `pg_monitor` only: without that
//! it is taken from the last checkpoint, and a replica takes no reads between a promotion and its next restartpoint.
#![forbid(unsafe_code)]

pub mod breaker;
pub mod catalog;
pub mod error;
pub mod handle;
pub mod monitor;
pub mod settings;

mod connection;
mod event;
mod flush;
mod judge;
mod probe;
mod record;
mod signals;

pub use breaker::BreakerSettings;
pub use catalog::CatalogReader;
pub use error::{ProbeError, StartError};
pub use event::{Happening, Sink};
pub use handle::{Handle, Hurry, NoPrimary, TopologyReader};
pub use monitor::Monitor;
pub use record::NodeRecord;
pub use settings::{NodeSettings, Settings};
