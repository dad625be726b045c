//! Tests of the codec as a whole: every message, every split, the corpus, and mutations of it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic as tests may"
)]

mod corpus;
mod round_trip;
mod smoke;
mod split;
