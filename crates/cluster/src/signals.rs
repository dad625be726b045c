//! What the data path tells the monitor of one node, and how the node's task is told to ask it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

/// How soon a node is to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// At the usual distance from the question before.
    Usual,
    /// As soon as may be: a session waits for the answer.
    Waited,
}

/// When a node is asked again after a question.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// When a session waits.
    pub(crate) hurried: Duration,
    /// When it is to be asked.
    pub(crate) usual: Duration,
    /// In any case.
    pub(crate) longest: Duration,
}

/// The signals of one node.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    ask: Notify,
    hurry: Notify,
    /// It is to flush its WAL before it is asked.
    flush: AtomicBool,
    /// Failures that the monitor has not taken yet.
    failures: AtomicU32,
    /// A read was answered, and the monitor has not taken that yet.
    succeeded: AtomicBool,
    /// The monitor wants to know of successes: usually it does not, and one costs one load.
    is_suspect: AtomicBool,
}

impl Signals {
    /// Has the node asked.
    pub(crate) fn ask(&self, urgency: Urgency) {
        if urgency == Urgency::Waited {
            self.hurry.notify_one();
        }
        self.ask.notify_one();
    }

    /// Has the node flush its WAL, and asks it.
    pub(crate) fn flush(&self) {
        self.flush.store(true, Ordering::Release);
        self.ask(Urgency::Usual);
    }

    /// Returns whether the node is to flush its WAL, once.
    pub(crate) fn take_flush(&self) -> bool {
        self.flush.swap(false, Ordering::AcqRel)
    }

    /// Waits until the node is to be asked again after the question of `from`.
    pub(crate) async fn until_due(&self, from: Instant, pace: Pace) {
        sleep_until(from + pace.hurried).await;
        if timeout_at(from + pace.longest, self.ask.notified())
            .await
            .is_ok()
        {
            let _hurried_or_due = timeout_at(from + pace.usual, self.hurry.notified()).await;
        }
    }

    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.is_suspect.store(true, Ordering::Relaxed);
    }

    pub(crate) fn succeeded(&self) {
        if self.is_suspect.load(Ordering::Relaxed) {
            self.succeeded.store(true, Ordering::Relaxed);
        }
    }

    /// Returns the failures since the last call, and whether a read was answered.
    pub(crate) fn take(&self) -> (u32, bool) {
        let failures = self.failures.swap(0, Ordering::Relaxed);
        (failures, self.succeeded.swap(false, Ordering::Relaxed))
    }

    /// Says whether successes are to be told from now on. One that is told at this moment may get lost; the next is not.
    pub(crate) fn suspect(&self, is_suspect: bool) {
        if self.failures.load(Ordering::Relaxed) == 0 {
            self.is_suspect.store(is_suspect, Ordering::Relaxed);
        }
    }
}
