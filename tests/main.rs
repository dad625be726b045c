//! Integration tests: real PostgreSQL clusters, real drivers, the built `pgweir` binary. One test binary.

mod drivers;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod large;
#[cfg(test)]
mod pgbench;
#[cfg(test)]
mod pooling;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod replication;
#[cfg(test)]
mod routing;
mod support;
mod torture;
mod transcripts;
