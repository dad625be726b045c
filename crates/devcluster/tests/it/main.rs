//! The promises of devcluster on real PostgreSQL: it streams, each fault does what it says, nothing stays behind.

#[cfg(test)]
mod cleanup;
#[cfg(test)]
mod deploy;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod start;
