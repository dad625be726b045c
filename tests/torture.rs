//! Torture: sessions that are killed at random, crowds, storms of CancelRequests; not one byte may reach the wrong client.

mod cancel;
mod crowd;
mod faults;
mod regressions;
mod scenario;
mod storm;
mod talk;
