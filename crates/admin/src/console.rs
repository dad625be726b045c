//! The console: PostgreSQL's protocol over the tables and commands of the proxy itself.
//!
//! [`serve`] takes a client over from the proxy once it is logged in. Its messages go through a machine without a socket
//! (`machine`), which has each statement understood and run (`run`): as a command (`command`), one of PgBouncer's (`pgbouncer`),
//! a statement about the session (`session_statement`), or SQL (`rewrite`, `infer`, `coerce`, `engine`). What a statement changes becomes
//! edits of the configuration (`change`).

pub(crate) mod answer;
mod change;
mod coerce;
pub(crate) mod command;
mod desk;
mod engine;
mod functions;
mod infer;
mod machine;
pub(crate) mod parameters;
mod pgbouncer;
mod promote;
mod rewrite;
mod run;
mod serve;
mod session_statement;
pub(crate) mod types;
mod words;

#[doc(hidden)]
pub mod fuzzing;
pub mod reference;
#[cfg(test)]
mod tests;

pub use desk::Desk;
pub use serve::{Session, serve};
