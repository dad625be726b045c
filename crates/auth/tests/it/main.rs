//! The two halves against each other, and against `postgres-protocol`'s SCRAM client as an independent one.

mod exchange;
mod hostile;
