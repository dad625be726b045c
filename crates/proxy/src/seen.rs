//! Statements as others may see them: in tables, in the log, in spans.
//!
//! ## Why
//! What is shown of a text depends on its plan and on whether the server reads the text as our lexer does. That is known only
//! when it is sent, and asked for later; here the two stay together.
//!
//! ## Limits
//! A session whose server has once read texts otherwise is shown by its commands from then on, as what it has prepared may
//! still be in use.

use std::rc::Rc;

use pgweir_model::PinReason;
use pgweir_sql::Displayed;
use pgweir_sql::plan::Plan;

use crate::client_task::Client;

/// A plan, and how its text was read.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) plan: Rc<Plan>,
    /// The server reads the text as our lexer does.
    pub(crate) is_read: bool,
}

impl Seen {
    /// Returns what may be shown of it.
    #[inline]
    pub(crate) fn displayed(&self) -> &Displayed {
        match self.is_read {
            true => self.plan.displayed(),
            false => self.plan.command(),
        }
    }

    /// Returns whether the same is shown of another.
    #[inline]
    pub(crate) fn is_same(&self, other: &Seen) -> bool {
        Rc::ptr_eq(&self.plan, &other.plan) && self.is_read == other.is_read
    }
}

impl Client {
    /// Returns the plan that decides about the batch at hand, as others may see it.
    pub(crate) fn seen(&self) -> Option<Seen> {
        let plan = self.session.facts().deciding.clone()?;
        let is_read = self.is_text_read();
        Some(Seen { plan, is_read })
    }

    /// Takes it out: the batch is about to be forwarded, or answered.
    #[inline]
    pub(crate) fn take_seen(&mut self) -> Option<Seen> {
        let is_read = self.is_text_read();
        if !is_read
            && self
                .held
                .as_ref()
                .is_some_and(|held| !held.lease.state.session.reads_text())
        {
            self.account.has_misread = true;
        }
        let plan = self.session.take_deciding()?;
        Some(Seen { plan, is_read })
    }

    /// Returns whether the session's server reads texts as our lexer does.
    #[inline]
    fn is_text_read(&self) -> bool {
        let does_held = self.held.as_ref().is_none_or(|held| {
            // What sets that may be on its way: the server has not reported it yet.
            let is_known = !held.pins.contains(PinReason::Setting) || self.session.is_settled();
            is_known && held.lease.state.session.reads_text()
        });
        does_held && self.identity.reads_text && !self.account.has_misread
    }
}
