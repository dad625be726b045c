//! Waiting for a condition of another process, with a deadline; the one place of this crate that polls.

use std::time::{Duration, Instant};

/// Between two looks. Chosen: a look costs tens of microseconds (a small file, a `waitpid`), and a start should not be longer for it.
const TICK: Duration = Duration::from_millis(4);

/// Looks every few milliseconds until `look` finds something or `within` has passed (then `None`).
pub(crate) fn until<T, E>(
    within: Duration,
    mut look: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let started_at = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        if started_at.elapsed() >= within {
            return Ok(None);
        }
        // A spurious wake-up only means an earlier look.
        std::thread::park_timeout(TICK);
    }
}
