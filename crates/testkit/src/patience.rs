//! Waiting for a condition with a deadline: the only place of the tests that sleeps.

use std::time::{Duration, Instant};

/// Time to wait for something that normally takes milliseconds. Long, since a loaded machine with two
/// cores takes its time; a passing test never waits for it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Time between two looks. Short against everything that a test waits for, long against a look.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks at a condition until it holds, for at most `within`. Returns whether it came to hold.
pub fn wait_until(within: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        pause();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a poll of another process's state has nothing to wait on; the condition and the deadline are around it"
)]
fn pause() {
    std::thread::sleep(PAUSE);
}

/// Asserts that a condition comes to hold within a time ([`PATIENCE`] unless given).
///
/// ```
/// use std::time::Duration;
/// let mut looks = 0;
/// pgweir_testkit::eventually!(Duration::from_secs(5), {
///     looks += 1;
///     looks == 3
/// });
/// ```
#[macro_export]
macro_rules! eventually {
    ($within:expr, $condition:expr, $($message:tt)+) => {
        assert!($crate::patience::wait_until($within, || $condition), $($message)+)
    };
    ($within:expr, $condition:expr $(,)?) => {
        $crate::eventually!($within, $condition, "did not come to hold: {}", stringify!($condition))
    };
    ($condition:expr) => {
        $crate::eventually!($crate::patience::PATIENCE, $condition)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_up_at_the_deadline() {
        assert!(!wait_until(Duration::from_millis(20), || false));
    }

    #[test]
    fn looks_at_least_once() {
        assert!(wait_until(Duration::ZERO, || true));
    }
}
