//! Disposable real PostgreSQL clusters: one primary, N streaming replicas, and faults to inject.
//!
//! The demo, the integration tests and the bench all need a cluster that starts in about a second
//! and leaves nothing behind. This crate makes one from the PostgreSQL binaries of the machine
//! ([`Binaries::locate`]), as another user where it runs as root (PostgreSQL refuses root).
//!
//! ```no_run
//! use std::time::Duration;
//! let cluster = pgweir_devcluster::Cluster::builder().replicas(2).start()?;
//! cluster.primary().sql("postgres", "CREATE TABLE t (a int); INSERT INTO t VALUES (1)")?;
//! cluster.wait_caught_up(Duration::from_secs(5))?;
//! assert_eq!(cluster.replica(0).sql("postgres", "SELECT a FROM t")?, "1");
//! # Ok::<(), pgweir_devcluster::ClusterError>(())
//! ```
//!
//! ## Why
//! - The replicas are cold copies of the primary's freshly made data folder, not base backups: PostgreSQL
//!   documents a file-system-level copy of a stopped server as a valid base for a standby, and it
//!   saves a second per replica. [`Cluster::rejoin`] uses `pg_basebackup`, since by then the primary runs.
//! - Clean-up does not trust this process to live: a watchdog (a shell in a process group of its
//!   own) holds one end of a pipe, and kills the servers and removes the folder when the pipe
//!   closes, however that comes about: drop, panic, `exit`, Ctrl-C, SIGKILL. A death signal
//!   (`PR_SET_PDEATHSIG`) would fire when the *thread* that started a server ends, which in a
//!   test binary is at once, and it exists on Linux only. What a dead machine leaves is swept
//!   by the next start.
//! - The API blocks and is callable from any thread, inside a runtime too: SQL runs on a thread of its own.
//!
//! ## Limits
//! Unix only. There is no variant on containers (`docker.rs` in the house's layout): local binaries
//! serve each use that this project has.

#![forbid(unsafe_code)]

mod cluster;
mod error;
mod faults;
mod folder;
mod locate;
mod node;
mod process;
mod relay;
mod template;
mod wait;

pub use cluster::{Builder, Cluster};
pub use error::ClusterError;
pub use faults::StopMode;
pub use locate::{Binaries, LocateError, Version};
pub use node::Node;
pub use relay::Relay;
