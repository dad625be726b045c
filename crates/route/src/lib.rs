//! The routing decision: what a statement is, what the session asks, what the servers are, to a place and a reason. Pure.
//!
//! No I/O, no clock, no randomness of its own: the same inputs give the same route. [`decide()`] is the entry point; what it
//! reads of a statement is [`Facts`], so that a batch of several statements, a FunctionCall or one too large to be read
//! are decided by the same rules.
#![forbid(unsafe_code)]

pub mod balance;
pub mod decide;
pub mod error;
pub mod explain;
pub mod facts;
pub mod rules;
pub mod session_view;

#[cfg(test)]
mod testing;

pub use balance::{Balancer, Loads};
pub use decide::{Route, Target, View, asks, decide, demand, may_catch_up};
pub use error::RouteError;
pub use explain::{Step, Subject, explain, observed};
pub use facts::Facts;
pub use rules::{Applicable, Login, Rule, RuleSet, Ruling};
pub use session_view::{Asks, Held, Instruction, RouteSetting, SessionView};
