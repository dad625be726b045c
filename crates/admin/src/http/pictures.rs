//! Pictures of the proxy, shared by the requests of a moment.
//!
//! A picture costs each worker a copy of what it counts, so that it is not taken once per request but once per moment, however
//! many look.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::control::Control;
use crate::facts::{Facts, Wanted};

/// How long a picture of counters is shown. Chosen: half of the page's second, so that each of its steps sees a new one.
const PLAIN_LIFETIME: Duration = Duration::from_millis(500);

/// How long one with statements and events is, which is a larger copy and asked for more seldom.
const DETAILED_LIFETIME: Duration = Duration::from_millis(1500);

/// How long a request waits for a picture. Below the ten seconds after which Prometheus gives up.
const WAIT_LIMIT: Duration = Duration::from_secs(5);

/// A picture, and when it was taken.
type Slot = Mutex<Option<(Instant, Arc<Facts>)>>;

/// What requests look at.
pub(super) struct Pictures {
    control: Arc<dyn Control>,
    plain: Slot,
    detailed: Slot,
}

impl Pictures {
    pub(super) fn new(control: Arc<dyn Control>) -> Self {
        Pictures {
            control,
            plain: Mutex::new(None),
            detailed: Mutex::new(None),
        }
    }

    /// Returns what costs nothing; `None` where the proxy did not answer in time.
    pub(super) async fn plain(&self) -> Option<Arc<Facts>> {
        let wanted = Wanted::default();
        self.facts(&self.plain, wanted, PLAIN_LIFETIME).await
    }

    /// Returns statements and events with it.
    pub(super) async fn detailed(&self) -> Option<Arc<Facts>> {
        let wanted = Wanted {
            statements: true,
            events: true,
            ..Wanted::default()
        };
        self.facts(&self.detailed, wanted, DETAILED_LIFETIME).await
    }

    /// Requests that come while a picture is being taken wait for that one.
    async fn facts(&self, slot: &Slot, wanted: Wanted, lifetime: Duration) -> Option<Arc<Facts>> {
        let take = async {
            let mut last = slot.lock().await;
            if let Some((at, facts)) = last.as_ref()
                && at.elapsed() < lifetime
            {
                return Arc::clone(facts);
            }
            // As old as the question, not as the answer.
            let at = Instant::now();
            let facts = Arc::new(self.control.facts(wanted).await);
            *last = Some((at, Arc::clone(&facts)));
            facts
        };
        tokio::time::timeout(WAIT_LIMIT, take).await.ok()
    }
}
