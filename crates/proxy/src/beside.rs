//! Reads of a pinned session on replicas: `pin_reads = "replica"`.
//!
//! The connection that the session is pinned to is put aside for the length of one read, which is routed like any other, and taken
//! back as soon as that has been answered. Nothing runs on it meanwhile, so that one of the two at most owes anything.
//!
//! ## Which reads
//! Those of a batch of one query in autocommit, whose outcome cannot depend on what the session has left on its connection:
//!
//! | the session has | a read may leave |
//! |---|---|
//! | `LISTEN` | always: what is listened to shows in one function, which only the primary runs |
//! | a cursor `WITH HOLD`, `PREPARE` in SQL | if it calls no function, which might use either |
//! | anything else | never |
//!
//! A temporary table may stand for any name of a query, or in a function that it calls. A session-level lock is taken to read
//! what is current, not what a replica has replayed.
//!
//! ## Limits
//! - What fails on the replica runs on the connection that the session is pinned to, not on a further replica.
//! - What that connection has to say meanwhile (a notification) is heard after the read.

use pgweir_config::{PinReads, PoolMode};
use pgweir_model::{PinReason, Reason, Role};
use pgweir_session::client::{Facts, Marks, Portion};
use pgweir_sql::plan::Traits;
use pgweir_sql::{Classified, PinSet, StatementKind};
use pgweir_wire::TransactionStatus;

use crate::acquire::route_facts;
use crate::client_task::{Client, Next, Place, Stage};
use crate::dispatch::Act;
use crate::roles::LOOK_AGAIN;

impl Client {
    /// Returns whether the session is pinned, and may read beside its connection now.
    pub(crate) fn may_read_beside(&self) -> bool {
        let is_asked = self.identity.pin_reads == PinReads::Replica
            && self.identity.pool_mode == PoolMode::Transaction
            && !self.identity.observes()
            && self.identity.reads_text;
        let is_idle = self.held.as_ref().is_some_and(|held| {
            !held.pins.is_empty()
                && held.stage == Stage::Used
                && held.status() == TransactionStatus::Idle
                && held.lease.is_quiet()
                && held.gate.is_none()
        });
        is_asked
            && is_idle
            && !self.replay.stays
            && self.session.is_settled()
            && !self.session.is_in_mid_batch()
            && !self.session.state.lacks()
    }

    /// Puts the connection that the session is pinned to aside, where the batch at hand is a read that a replica may take.
    pub(crate) fn leave_pin(&mut self, portion: Portion) -> Result<(), Act> {
        let is_pinned = self.held.as_ref().is_some_and(|held| !held.pins.is_empty());
        if self.identity.pin_reads != PinReads::Replica || !is_pinned {
            return Ok(());
        }
        let place = self.place_beside(portion);
        let Some(place) = place.filter(|place| place.role == Role::Replica) else {
            self.last_route = Some((Role::Primary, Reason::Pinned));
            return Ok(());
        };
        self.aside = self.held.take();
        match self.try_checkout(place) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Act::Stop(Box::new(Next::Checkout(place)))),
            Err(_) => {
                let _back = self.return_to_pin();
                Ok(())
            }
        }
    }

    /// Returns where the batch at hand would go if nothing pinned its session, and may go.
    fn place_beside(&self, portion: Portion) -> Option<Place> {
        let facts = self.session.facts();
        let pins = self.held.as_ref()?.pins;
        let is_free = portion == Portion::Batch
            && self.may_read_beside()
            && is_free(pins, facts)
            // Then it goes on where it is, until that is given back.
            && !self.is_held_back();
        if !is_free || self.default_meaning().is_serializable() {
            return None;
        }
        // What is refused, or cannot be decided, is so on the connection that there is.
        self.decide(&route_facts(facts), false).ok()
    }

    /// Takes the connection back that was put aside, if the session has no other; returns whether it has. What is to run again
    /// does so there.
    #[inline]
    pub(crate) fn return_to_pin(&mut self) -> bool {
        let is_aside = self.aside.is_some() && self.held.is_none();
        if is_aside {
            self.take_pinned();
        }
        is_aside
    }

    fn take_pinned(&mut self) {
        self.held = self.aside.take();
        self.trace_server_again();
        // Its server may have been replaced meanwhile.
        self.roles_seen = LOOK_AGAIN;
        self.session.set_owns_server(true);
        self.replay.stays |= self.replay.due.take().is_some();
    }

    /// Takes the connection back that was put aside, before anything is sent there: its server may have been replaced.
    pub(crate) fn come_back(&mut self) -> Result<(), Box<Next>> {
        let _is_back = self.return_to_pin();
        // Also where that was done before, since the session last looked.
        match self.roles_seen == LOOK_AGAIN {
            true => self.look_at_roles(),
            false => Ok(()),
        }
    }

    /// The replica that was to take the batch cannot take it: returns whether it runs on the connection that was put aside.
    pub(crate) fn stays_after_all(&mut self) -> bool {
        let stays = self.aside.is_some();
        self.replay.stays |= stays;
        stays
    }
}

/// Returns whether a batch sees nothing of what pins its session.
fn is_free(pins: PinSet, facts: &Facts) -> bool {
    let touched = [
        Marks::WRITES,
        Marks::NEEDS_PRIMARY,
        Marks::SUSPECT,
        Marks::STATE,
        Marks::LEAVES_OPEN,
        Marks::MAY_UNPIN,
        Marks::UNREAD,
        Marks::SIGNALS,
    ];
    let is_plain = facts.statements == 1
        && facts.pin.is_none()
        && !touched.into_iter().any(|mark| facts.marks.has(mark));
    let plan = facts.deciding.as_ref().filter(|_| is_plain);
    plan.is_some_and(|plan| {
        !plan.traits.has(Traits::EXECUTES) && is_unaffected(pins, &plan.classified)
    })
}

/// Returns whether a text reads the same whatever pins the session.
pub(crate) fn is_unaffected(pins: PinSet, classified: &Classified) -> bool {
    let is_query = matches!(
        classified.statements.as_slice(),
        [one] if one.kind == StatementKind::Query
    );
    let calls_nothing = classified.functions.is_empty();
    is_query
        && pins.iter().all(|pin| match pin {
            PinReason::Listen => true,
            PinReason::HoldCursor | PinReason::SqlPrepare => calls_nothing,
            PinReason::Setting
            | PinReason::TempTable
            | PinReason::AdvisoryLock
            | PinReason::Load
            | PinReason::SetSeed
            | PinReason::Sequence
            | PinReason::Unread => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_read_may_see_decides_whether_it_leaves() {
        use PinReason::{AdvisoryLock, HoldCursor, Listen, SqlPrepare, TempTable};
        let free = |pins: &[PinReason], sql: &str| {
            let mut set = PinSet::default();
            pins.iter().for_each(|pin| set.insert(*pin));
            is_unaffected(set, &pgweir_sql::classify(sql.as_bytes()))
        };
        for (pins, sql, expected) in [
            (&[Listen][..], "SELECT f(a) FROM t", true),
            (&[HoldCursor], "SELECT a FROM t", true),
            (&[HoldCursor], "SELECT f(a) FROM t", false),
            (&[HoldCursor], "FETCH c", false),
            (&[SqlPrepare], "SELECT a FROM t", true),
            (&[SqlPrepare], "EXECUTE x", false),
            (&[Listen, SqlPrepare], "SELECT f(a) FROM t", false),
            (&[TempTable], "SELECT a FROM app.t", false),
            (&[AdvisoryLock], "SELECT a FROM t", false),
            (&[Listen, AdvisoryLock], "SELECT a FROM t", false),
            (&[Listen], "SELECT 1; SELECT 2", false),
            (&[Listen], "SHOW search_path", false),
        ] {
            assert_eq!(free(pins, sql), expected, "{pins:?} {sql}");
        }
    }
}
