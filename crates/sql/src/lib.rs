//! Classification of SQL text: what a statement may do, read from its tokens and from its tree. Pure and total.
//!
//! The way of a text: [`Shaper`] rewrites it to its *shape* (literals and white space normalised), and a shape is
//! classified once. A [`PlanTable`] remembers the outcome per shape, so that a known statement costs one pass over its bytes.
//!
//! The classification of a text is, by construction, the classification of its shape: two texts with one shape can never be
//! told apart. What is not understood is never vouched for, and so goes to the primary.
#![forbid(unsafe_code)]

pub mod classify;
pub mod effects;
pub mod hint;
pub mod plan;

pub use classify::{Classified, LocalCommand, Name, Statement, StatementKind, classify};
pub use effects::{Discard, Effects, Isolation, PinSet, SavepointCommand, TransactionControl, TransactionModes};
pub use hint::{Hint, HintRoute, MaxLag};
pub use plan::{Plan, PlanTable};
