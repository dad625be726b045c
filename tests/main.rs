//! Integration tests: real PostgreSQL clusters, real drivers, the built `pgweir` binary. One test binary.

#[cfg(test)]
mod cases;
#[cfg(test)]
mod catalog;
#[cfg(test)]
mod differential;
mod drivers;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod flavours;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod large;
#[cfg(test)]
mod lost_servers;
#[cfg(test)]
mod orm;
#[cfg(test)]
mod pgbench;
#[cfg(test)]
mod pooling;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod replication;
#[cfg(test)]
mod retries;
#[cfg(test)]
mod routing;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod scripts;
#[cfg(test)]
mod session_state;
#[cfg(test)]
mod stale_plans;
mod support;
mod torture;
mod transcripts;
#[cfg(test)]
mod words;
