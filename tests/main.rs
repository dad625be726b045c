//! Integration tests: real PostgreSQL clusters, real drivers, the built `pgweir` binary. One test binary.

mod drivers;
mod errors;
mod pooling;
mod support;
mod torture;
mod transcripts;
