//! What all sessions of the console share: how many statements compute at once, and the picture they look at.
//!
//! ## Why
//! A statement may compute for as long as `admin.statement_timeout`, and a picture interrupts every worker. Neither may take from
//! clients what they need, however many sessions ask.
//!
//! ## Limits
//! [`SLOTS`] statements compute at once, [`VIEWERS_SLOTS`] of them viewers', so that whoever only looks cannot shut out who has
//! to act. One picture is taken at a time, and it is shared by all who asked before it was begun: nobody sees an older state
//! than that of the moment in which he asked. Between two pictures there is a rest of [`RESTS`] times what the first took.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::control::Control;
use crate::facts::{Facts, Wanted};

/// How many statements compute at once. Chosen: one more than an operator at work has, and the rest of the machine is clients'.
const SLOTS: usize = 2;

/// How many of them are of those who may only look.
const VIEWERS_SLOTS: usize = 1;

/// How many times the length of a picture nobody takes the next. Chosen: a fifth of the workers' time at most, by whoever asks.
const RESTS: u32 = 4;

/// The longest rest: a worker that was late once holds nobody up.
const REST_LIMIT: Duration = Duration::from_millis(100);

/// The time of a statement before the first picture has told of the configuration.
const FIRST_TIMEOUT: Duration = Duration::from_secs(10);

/// What the sessions of one console share.
#[derive(Debug)]
pub struct Desk {
    slots: Arc<Semaphore>,
    viewers: Arc<Semaphore>,
    last: tokio::sync::Mutex<Option<Picture>>,
    timeout: Mutex<Duration>,
}

/// The picture that was taken last; it lives for as long as a statement looks at it.
#[derive(Debug)]
struct Picture {
    begun: Instant,
    wanted: Wanted,
    facts: Weak<Facts>,
    /// When the next may be taken.
    next: Instant,
}

/// The right to compute; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    _among_viewers: Option<OwnedSemaphorePermit>,
    _among_all: OwnedSemaphorePermit,
}

impl Default for Desk {
    fn default() -> Desk {
        Desk {
            slots: Arc::new(Semaphore::new(SLOTS)),
            viewers: Arc::new(Semaphore::new(VIEWERS_SLOTS)),
            last: tokio::sync::Mutex::default(),
            timeout: Mutex::new(FIRST_TIMEOUT),
        }
    }
}

impl Desk {
    /// Waits for the right to compute; `None` never comes while the desk is there.
    ///
    /// # Cancel safety
    /// Loses its place in the queue.
    pub(crate) async fn slot(&self, may_change: bool) -> Option<Slot> {
        let among_viewers = match may_change {
            true => None,
            false => Some(Arc::clone(&self.viewers).acquire_owned().await.ok()?),
        };
        Some(Slot {
            _among_viewers: among_viewers,
            _among_all: Arc::clone(&self.slots).acquire_owned().await.ok()?,
        })
    }

    /// Returns `admin.statement_timeout` as the last picture has it.
    pub(crate) fn timeout(&self) -> Duration {
        *self.timeout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a picture that was begun after this was called.
    ///
    /// # Cancel safety
    /// Nothing is lost; who waits takes it himself.
    pub(crate) async fn facts(&self, control: &dyn Control, wanted: Wanted) -> Arc<Facts> {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        if let Some(picture) = &*last {
            if picture.begun >= asked
                && picture.wanted.covers(wanted)
                && let Some(facts) = picture.facts.upgrade()
            {
                return facts;
            }
            tokio::time::sleep_until(picture.next.into()).await;
        }
        let begun = Instant::now();
        let facts = Arc::new(control.facts(wanted).await);
        let took = begun.elapsed();
        *self.timeout.lock().unwrap_or_else(PoisonError::into_inner) =
            facts.config.admin.statement_timeout;
        *last = Some(Picture {
            begun,
            wanted,
            facts: Arc::downgrade(&facts),
            next: Instant::now() + (took * RESTS).min(REST_LIMIT),
        });
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Asked, Recorder};

    const SESSIONS: Wanted = Wanted {
        sessions: true,
        prepared: false,
        statements: false,
        learned: false,
        settings: false,
        events: false,
    };

    fn pictures(control: &Recorder) -> usize {
        let asked = control.asked.lock().unwrap();
        let is_picture = |asked: &&Asked| matches!(asked, Asked::Facts(_));
        asked.iter().filter(is_picture).count()
    }

    #[tokio::test]
    async fn those_who_asked_before_it_was_begun_share_a_picture() {
        let (desk, control) = (Desk::default(), Recorder::default());
        let held = desk.last.lock().await;
        let all = async {
            tokio::join!(
                desk.facts(&control, SESSIONS),
                desk.facts(&control, SESSIONS),
                desk.facts(&control, Wanted::default()),
            )
        };
        tokio::pin!(all);
        // They have asked, and wait.
        tokio::select! {
            biased;
            _ = &mut all => panic!("nobody may be served"),
            () = std::future::ready(()) => {}
        }
        drop(held);
        let (first, second, third) = all.await;
        assert!(Arc::ptr_eq(&first, &second) && Arc::ptr_eq(&first, &third));
        assert_eq!(pictures(&control), 1);
        // Who asks later is shown what is later.
        let fourth = desk.facts(&control, SESSIONS).await;
        assert!(!Arc::ptr_eq(&first, &fourth));
        assert_eq!(pictures(&control), 2);
    }

    #[tokio::test]
    async fn viewers_leave_a_slot_to_those_who_may_change() {
        let desk = Desk::default();
        let viewer = desk.slot(false).await.unwrap();
        {
            let other = desk.slot(false);
            tokio::pin!(other);
            tokio::select! {
                biased;
                _ = &mut other => panic!("a second viewer computes"),
                () = std::future::ready(()) => {}
            }
        }
        let admin = desk.slot(true).await.unwrap();
        {
            let other = desk.slot(true);
            tokio::pin!(other);
            tokio::select! {
                biased;
                _ = &mut other => panic!("a third statement computes"),
                () = std::future::ready(()) => {}
            }
        }
        drop((viewer, admin));
        assert!(desk.slot(false).await.is_some());
    }
}
