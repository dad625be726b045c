//! What the decision reads of a batch: its reason, and what its hints ask.

use pgweir_consistency::MaxLag;
use pgweir_model::Reason;
use pgweir_sql::Classified;
use pgweir_sql::hint::{self, Hint, HintRoute};

use crate::rules::Ruling;
use crate::session_view::{Asks, Instruction};

/// A batch as the decision sees it. Copied rather than built on the heap: one is made for every batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts<'a> {
    /// What it is; the reads among them are [`Reason::Read`], [`Reason::ReadByTokens`] and
    /// [`Reason::ReadOnlyTransaction`].
    pub reason: Reason,
    /// The `route` of its hint, if it has one.
    pub route: Option<Instruction<'a>>,
    /// The `max_lag` and the `consistency` of its hint.
    pub asks: Asks,
    /// What the operator's rules say of it.
    pub rule: Option<Ruling<'a>>,
    /// Whether its shape failed on a replica before with an error that only recovery raises.
    pub learned: bool,
}

impl<'a> Facts<'a> {
    /// Returns a batch without hints.
    pub fn new(reason: Reason) -> Self {
        Facts {
            reason,
            route: None,
            asks: Asks::default(),
            rule: None,
            learned: false,
        }
    }

    /// Returns the facts of one text; `learned` is the memory of its shape.
    pub fn of(classified: &'a Classified, learned: bool) -> Self {
        Facts {
            learned,
            ..Facts::new(classified.reason)
        }
        .hinted(classified.hint.as_ref())
    }

    /// Returns the same with what a hint asks.
    #[must_use]
    pub fn hinted(self, hint: Option<&'a Hint>) -> Self {
        let Some(hint) = hint else { return self };
        Facts {
            route: hint.route.as_ref().map(instruction),
            asks: Asks {
                max_lag: hint.max_lag.map(|limit| match limit {
                    hint::MaxLag::Age(age) => MaxLag::Time(age),
                    hint::MaxLag::Bytes(bytes) => MaxLag::Bytes(bytes),
                }),
                consistency: hint.consistency,
            },
            ..self
        }
    }

    /// Returns the batch that runs this one and then `next` on one server: what needs the primary in either needs it in
    /// both. The first hint of a kind stands.
    #[must_use]
    pub fn and(self, next: Facts<'a>) -> Self {
        let reason = match (self.is_read(), next.is_read()) {
            (true, false) => next.reason,
            // A known write is named before a guess, because an instruction may overrule a guess only.
            (false, false) if next.is_known_write() && !self.is_known_write() => next.reason,
            (true, true) if self.reason == Reason::Read => next.reason,
            _ => self.reason,
        };
        Facts {
            reason,
            route: self.route.or(next.route),
            asks: self.asks.or(next.asks),
            rule: self.rule.or(next.rule),
            learned: self.learned || next.learned,
        }
    }

    /// Returns whether a replica may run it.
    pub fn is_read(&self) -> bool {
        matches!(
            self.reason,
            Reason::Read | Reason::ReadByTokens | Reason::ReadOnlyTransaction
        )
    }

    /// Returns whether it is known to write, so that a replica can only refuse it.
    pub fn is_known_write(&self) -> bool {
        matches!(self.reason, Reason::Write | Reason::RowLock)
    }
}

fn instruction(route: &HintRoute) -> Instruction<'_> {
    match route {
        HintRoute::Auto => Instruction::Auto,
        HintRoute::Primary => Instruction::Primary,
        HintRoute::Replica => Instruction::Replica,
        HintRoute::Backend(name) => Instruction::Backend(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_as_grave_as_its_gravest_part() {
        let join = |one, other| Facts::new(one).and(Facts::new(other)).reason;
        assert_eq!(join(Reason::Read, Reason::Read), Reason::Read);
        assert_eq!(
            join(Reason::Read, Reason::ReadByTokens),
            Reason::ReadByTokens
        );
        assert_eq!(
            join(Reason::ReadByTokens, Reason::Read),
            Reason::ReadByTokens
        );
        assert_eq!(join(Reason::Read, Reason::Write), Reason::Write);
        assert_eq!(join(Reason::Unparsed, Reason::Read), Reason::Unparsed);
        assert_eq!(join(Reason::VolatileFunction, Reason::Write), Reason::Write);
        assert_eq!(join(Reason::RowLock, Reason::Write), Reason::RowLock);
        assert_eq!(
            join(Reason::PrimaryOnly, Reason::Unparsed),
            Reason::PrimaryOnly
        );
    }

    #[test]
    fn the_first_hint_stands_and_what_was_learned_stays() {
        let hinted = Facts {
            route: Some(Instruction::Primary),
            ..Facts::new(Reason::Read)
        };
        let other = Facts {
            route: Some(Instruction::Replica),
            learned: true,
            ..Facts::new(Reason::Read)
        };
        let both = Facts::new(Reason::Read).and(hinted).and(other);
        assert_eq!(
            (both.route, both.learned),
            (Some(Instruction::Primary), true)
        );
    }
}
