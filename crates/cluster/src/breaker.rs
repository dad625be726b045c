//! The circuit breaker of one server: closed, open, half-open. Pure: the moment is an argument.
//!
//! ```text
//!            `failures` in a row                     `open_for` has passed
//!   Closed ────────────────────────► Open ─────────────────────────────────► HalfOpen
//!      ▲                              ▲                                       │    │
//!      │                              └───────────── a failure ───────────────┘    │
//!      └───────────────────── a success, or as long again without a failure ───────┘
//! ```
//! ## Why
//! The monitor's one connection may work while those of the data path do not: the server is out of connections, a firewall
//! drops some, processes crash. Then every read that goes there costs a retry. What counts is reported by the data path:
//! a connection that could not be opened, or broke in use, against one that answered.

use std::time::{Duration, Instant};

use pgweir_model::Breaker as State;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures in a row that open it; at least 1.
    pub failures: u32,
    /// How long it stays open.
    pub open_for: Duration,
    /// Reads at once, per worker thread, that try the server when it is half-open.
    pub half_open_trials: u32,
}

/// A breaker.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Breaker {
    failures: u32,
    /// When it was opened last; `None` while it is closed.
    opened_at: Option<Instant>,
}

impl Breaker {
    /// Takes `count` failures that came at once; returns whether they have opened it, or kept it from closing.
    pub(crate) fn on_failures(
        &mut self,
        count: u32,
        settings: &BreakerSettings,
        now: Instant,
    ) -> bool {
        self.failures = self.failures.saturating_add(count);
        let opens = match self.state(settings, now) {
            State::Closed => self.failures >= settings.failures,
            // What was under way when it opened still comes in.
            State::Open => false,
            State::HalfOpen { .. } => true,
        };
        if opens {
            self.opened_at = Some(now);
        }
        opens
    }

    /// Takes a success; returns whether that has closed it.
    pub(crate) fn on_success(&mut self, settings: &BreakerSettings, now: Instant) -> bool {
        match self.state(settings, now) {
            State::Closed => {
                *self = Breaker::default();
                false
            }
            // An answer to what was sent before it opened says nothing about now.
            State::Open => false,
            State::HalfOpen { .. } => {
                *self = Breaker::default();
                true
            }
        }
    }

    /// Returns whether a success would change anything.
    pub(crate) fn is_suspect(&self) -> bool {
        self.failures > 0 || self.opened_at.is_some()
    }

    /// Returns its state at `now`.
    pub(crate) fn state(&self, settings: &BreakerSettings, now: Instant) -> State {
        match self.opened_at {
            None => State::Closed,
            Some(at) => match now.saturating_duration_since(at) {
                open if open < settings.open_for => State::Open,
                open if open < settings.open_for * 2 => State::HalfOpen {
                    trials: settings.half_open_trials,
                },
                // Nobody has come to try it, or a trial takes long. The first failure opens it again.
                _ => State::Closed,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: BreakerSettings = BreakerSettings {
        failures: 3,
        open_for: Duration::from_secs(5),
        half_open_trials: 2,
    };

    #[test]
    fn opens_after_failures_in_a_row_and_not_before() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        assert!(!breaker.on_failures(2, &SETTINGS, now));
        assert!(!breaker.on_success(&SETTINGS, now));
        assert!(!breaker.on_failures(2, &SETTINGS, now));
        assert_eq!(breaker.state(&SETTINGS, now), State::Closed);
        assert!(breaker.on_failures(1, &SETTINGS, now));
        assert_eq!(breaker.state(&SETTINGS, now), State::Open);
    }

    #[test]
    fn tries_after_a_while_and_closes_with_a_success_or_opens_again_with_a_failure() {
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let mut breaker = Breaker::default();
        assert!(breaker.on_failures(9, &SETTINGS, now));
        assert!(!breaker.on_failures(9, &SETTINGS, later(1)));
        assert!(!breaker.on_success(&SETTINGS, later(4)));
        assert_eq!(breaker.state(&SETTINGS, later(4)), State::Open);
        assert_eq!(
            breaker.state(&SETTINGS, later(5)),
            State::HalfOpen { trials: 2 }
        );
        assert!(breaker.on_failures(1, &SETTINGS, later(6)));
        assert_eq!(breaker.state(&SETTINGS, later(10)), State::Open);
        let untried = breaker;
        assert_eq!(untried.state(&SETTINGS, later(16)), State::Closed);
        assert!(breaker.clone().on_failures(1, &SETTINGS, later(16)));
        assert!(breaker.on_success(&SETTINGS, later(11)));
        assert_eq!(breaker.state(&SETTINGS, later(11)), State::Closed);
        assert!(!breaker.on_failures(2, &SETTINGS, later(12)));
    }
}
