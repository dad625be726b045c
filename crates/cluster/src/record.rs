//! What an operator wants to know of a server beside its state: since when it has that, and what went wrong before.
//!
//! Written by the monitor's thread when something has happened, read when somebody looks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::error::ProbeError;
use crate::event::Event;

/// The history of one server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeRecord {
    /// Since when it has its role and health; `None` while it has not been seen.
    pub since: Option<SystemTime>,
    /// How often it has not answered the monitor, and how many failures the data path has reported.
    pub errors: u64,
    /// The last of these, for people.
    pub last_error: Option<Arc<str>>,
}

/// Those of a cluster, by their place.
#[derive(Debug)]
pub(crate) struct Records(Mutex<Vec<NodeRecord>>);

impl Records {
    pub(crate) fn new(nodes: usize) -> Self {
        Records(Mutex::new(vec![NodeRecord::default(); nodes]))
    }

    pub(crate) fn all(&self) -> Vec<NodeRecord> {
        self.lock().clone()
    }

    /// Notes that a server has not answered.
    pub(crate) fn on_failure(&self, node: usize, error: &ProbeError) {
        if let Some(record) = self.lock().get_mut(node) {
            record.errors += 1;
            record.last_error = Some(error.to_string().into());
        }
    }

    /// Notes since when a server has another state.
    pub(crate) fn on_event(&self, event: &Event, at: SystemTime) {
        let (Event::Up { node, .. } | Event::Down { node, .. } | Event::Role { node, .. }) = event
        else {
            return;
        };
        if let Some(record) = self.lock().get_mut(*node) {
            record.since = Some(at);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<NodeRecord>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pgweir_model::{Breaker, Role};

    use super::*;

    #[test]
    fn a_state_is_dated_and_failures_are_counted() {
        let records = Records::new(2);
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        let error = ProbeError::Timeout {
            limit: Duration::from_secs(1),
        };
        let state = Breaker::Open;
        records.on_event(&Event::Breaker { node: 1, state }, at);
        assert_eq!(records.all(), vec![NodeRecord::default(); 2]);
        let role = Role::Replica;
        records.on_event(&Event::Up { node: 1, role }, at);
        records.on_failure(1, &error);
        assert_eq!(
            records.all()[1],
            NodeRecord {
                since: Some(at),
                errors: 1,
                last_error: Some(error.to_string().into()),
            }
        );
        // A server that is not there does no harm.
        records.on_failure(2, &error);
        assert_eq!(records.all()[0], NodeRecord::default());
    }
}
