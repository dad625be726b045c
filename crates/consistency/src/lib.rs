//! What a read may see: positions sampled on the primary, lag worked out from them, verdicts on a limit, and the token of
//! what a session has written and seen. Pure.
//!
//! The moment is an argument everywhere: nothing here reads a clock, does I/O or draws randomness.
#![forbid(unsafe_code)]

pub mod lag;
pub mod sample;
pub mod token;
pub mod verdict;

pub use lag::{Lag, Replay};
pub use sample::{Sample, SampleLog};
pub use token::{Demand, Token};
pub use verdict::{MaxLag, Verdict};
