//! What has happened since the start: the last events, for the console and the page.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use pgweir_admin::{Event, EventKind};
use pgweir_cluster::{Happening, Sink};

/// How many are kept. Copied: the interface promises so many. A role change makes some ten, a reload one per setting.
const EVENTS_LIMIT: usize = 10_000;

/// The last events, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Events(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    last_id: u64,
    events: VecDeque<Event>,
}

impl Events {
    /// Notes that something has happened now.
    pub(crate) fn record(&self, kind: EventKind, subject: &str, message: impl Into<Arc<str>>) {
        let mut kept = self.lock();
        if kept.events.len() >= EVENTS_LIMIT {
            kept.events.pop_front();
        }
        kept.last_id += 1;
        let event = Event {
            id: kept.last_id,
            at: SystemTime::now(),
            kind,
            subject: subject.into(),
            message: message.into(),
        };
        kept.events.push_back(event);
    }

    /// Notes changes of the configuration.
    pub(crate) fn record_changes(&self, changes: &[pgweir_config::Change]) {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
        for change in changes {
            let restart = match change.reloadable {
                true => "",
                false => ", after a restart",
            };
            let (old, new) = (shown(&change.old), shown(&change.new));
            let message = format!("{old} -> {new}{restart}");
            self.record(EventKind::Config, &change.key, message);
        }
    }

    /// Returns all that are kept.
    pub(crate) fn all(&self) -> Vec<Event> {
        self.lock().events.iter().cloned().collect()
    }

    /// Returns what takes the events of a cluster.
    pub(crate) fn sink(self: &Arc<Self>) -> Sink {
        let events = Arc::clone(self);
        Sink::new(move |happening: Happening| {
            let kind = match happening.is_succession {
                true => EventKind::Primary,
                false => EventKind::Server,
            };
            events.record(kind, &happening.subject, happening.message);
        })
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_leave_at_the_limit_and_numbers_go_on() {
        let events = Events::default();
        for number in 0..EVENTS_LIMIT {
            events.record(EventKind::Config, "a", format!("{number}"));
        }
        let all = events.all();
        assert_eq!((all.len(), &*all[0].message), (EVENTS_LIMIT, "0"));
        events.record(EventKind::Process, "", "ends");
        let all = events.all();
        assert_eq!(all.len(), EVENTS_LIMIT);
        let (first, last) = (&all[0], &all[EVENTS_LIMIT - 1]);
        assert_eq!((first.id, &*first.message), (2, "1"));
        assert_eq!((last.id, last.kind), (10_001, EventKind::Process));
    }
}
