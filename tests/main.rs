//! Integration tests: real PostgreSQL clusters, real drivers, the built `pgweir` binary. One test binary.

#[cfg(test)]
mod beside;
#[cfg(test)]
mod cases;
#[cfg(test)]
mod catalog;
#[cfg(test)]
mod consistency;
#[cfg(test)]
mod console;
#[cfg(test)]
mod differential;
mod drivers;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod failover;
#[cfg(test)]
mod flavours;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod large;
#[cfg(test)]
mod levels;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod lost_servers;
#[cfg(test)]
mod observe;
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
mod selection;
#[cfg(test)]
mod session_state;
#[cfg(test)]
mod signals;
#[cfg(test)]
mod stale_plans;
mod support;
#[cfg(test)]
mod switches;
#[cfg(test)]
mod telemetry;
mod torture;
#[cfg(test)]
mod trace;
mod transcripts;
#[cfg(test)]
mod words;
