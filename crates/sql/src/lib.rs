//! Classification of SQL text: what a statement may do, read from its tokens and from its tree. Pure and total.
//!
//! The way of a text: [`Shaper`] rewrites it to its *shape* (literals and white space normalised), and a shape is
//! classified once. A [`PlanTable`] remembers the outcome per shape, so that a known statement costs one pass over its bytes.
//!
//! The classification of a text is, by construction, the classification of its shape: two texts with one shape can never be
//! told apart. What is not understood is never vouched for, and so goes to the primary.
//!
//! | module | does |
//! |---|---|
//! | [`lexer`] | bytes to tokens, as PostgreSQL's scanner sees them |
//! | [`shape`] | a text to its shape and hash |
//! | [`split`](mod@split) | where statements end |
//! | `reading` | the token reading: calls, locks, DML words, casts, operators |
//! | `tree` | the tree reading: sqlparser's second opinion |
//! | `statement` | what the leading words decide |
//! | [`session_statements`] | what a text sets, begins, prepares, ... |
//! | [`classify`](mod@classify) | all of it together |
//! | [`signals`] | whom a text cancels or terminates |
//! | [`catalog`] | the rows of the system catalogs to what every name may do |
//! | [`verdict`] | what the catalog makes of its names |
//! | [`plan`] | known shapes |
//! | [`fingerprint`] | a shape's name for people |
//! | [`display`] | what of a shape people may see |
#![forbid(unsafe_code)]

pub mod catalog;
pub mod classify;
pub mod display;
pub mod effects;
pub mod fingerprint;
mod functions;
pub mod hidden;
pub mod hint;
pub mod lexer;
mod names;
pub mod plan;
mod reading;
pub mod session_statements;
pub mod shape;
pub mod signals;
pub mod split;
mod statement;
mod tokens;
mod tree;
pub mod verdict;

pub use classify::{Classified, LocalCommand, Name, Statement, StatementKind, classify};
pub use display::Displayed;
pub use effects::{
    Discard, Effects, Isolation, PinSet, SavepointCommand, TransactionControl, TransactionModes,
};
pub use fingerprint::{Fingerprint, NotAFingerprint};
pub use hint::{Hint, HintRoute, MaxLag};
pub use plan::{Memo, Plan, PlanTable};
pub use session_statements::{Setting, StateEvent, StateStatement, state_statements};
pub use shape::{Shape, Shaper};
pub use split::{explained, split};
pub use verdict::{Lens, SearchPath};
