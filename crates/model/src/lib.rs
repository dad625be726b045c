//! The shared nouns of pgweir: positions in the WAL, roles, nodes, reasons. Pure data.
//!
//! Every other crate may use this one; it uses none. It does no I/O, reads no clock and draws no randomness.
#![forbid(unsafe_code)]

pub mod catalog;
pub mod consistency;
pub mod ids;
pub mod lsn;
pub mod reason;
pub mod role;
pub mod selection;
pub mod sqlstate;
pub mod topology;

pub use catalog::{Catalog, Verdict};
pub use consistency::Consistency;
pub use ids::{NodeId, PoolKey};
pub use lsn::Lsn;
pub use reason::{PinReason, Reason};
pub use role::Role;
pub use selection::{Balance, PrimaryReads, Selection};
pub use sqlstate::Sqlstate;
pub use topology::{Breaker, Health, Node, Topology};
