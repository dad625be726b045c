//! Tests of the session machines: what goes where, message by message, and a seeded simulation of many sessions that
//! share few servers.

#[cfg(test)]
mod copy;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod lease;
#[cfg(test)]
mod model;
#[cfg(test)]
mod notation;
#[cfg(test)]
mod pipeline;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod relay;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod replies;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod scripts;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod statements;
#[cfg(test)]
mod stream;
mod translate;
