//! Integration tests: real PostgreSQL clusters, real drivers, the built `pgweir` binary. One test binary.

mod drivers;
mod errors;
mod hostile;
mod large;
mod pgbench;
mod pooling;
mod routing;
mod support;
mod torture;
mod transcripts;
