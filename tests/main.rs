//! Integration tests: real PostgreSQL clusters, real drivers, the built `pgweir` binary. One test binary.

mod drivers;
mod errors;
mod support;
mod transcripts;
