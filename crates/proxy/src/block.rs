//! Transaction blocks in which the proxy has a hand: held back until their first statement, or reading on a replica, from where
//! they can still move to the primary.
//!
//! ```text
//!            BEGIN (answered here)
//!   nothing ─────────────────────► Held ── a first statement that reads ──► OnReplica ── COMMIT, ROLLBACK ──► nothing
//!      ▲                            │ ▲                                        │
//!      │ COMMIT, ROLLBACK           │ └──── the first that needs the primary ◄─┘  (rolled back there, opened anew)
//!      └────────────────────────────┤
//!                                   └── anything else ──► on the primary: an ordinary transaction, nothing to do here
//! ```
//! Under READ COMMITTED every statement has a snapshot of its own, and the primary is never behind a replica: the application
//! cannot see that the transaction moved. See <https://www.postgresql.org/docs/current/transaction-iso.html>.

use std::task::Context;

use pgweir_config::{PoolMode, Splitting, TransactionReads};
use pgweir_model::{Reason, Role};
use pgweir_route::{Facts as RouteFacts, Loads};
use pgweir_session::client::{Facts, Marks, Portion};
use pgweir_sql::{Isolation, StatementKind, TransactionControl, TransactionModes};
use pgweir_wire::backend::{
    BindComplete, CommandComplete, NoData, ParameterDescription, ParseComplete, ReadyForQuery,
};
use pgweir_wire::frontend::{Bind, Describe, Parse, Query, Target, tag};
use pgweir_wire::{Frames, ListBuf, TransactionStatus};

use crate::client_task::{Client, Next};
use crate::dispatch::Act;
use crate::fault::Fault;

/// A transaction block that the client has opened and that is no server's alone.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts of one transaction"
)]
pub(crate) struct Block {
    /// What its BEGIN and SET TRANSACTION ask for.
    pub(crate) modes: TransactionModes,
    /// What its BEGIN alone asks for.
    begin: TransactionModes,
    /// A SET TRANSACTION has asked for READ WRITE, which no standby takes.
    has_set_read_write: bool,
    /// A SET TRANSACTION has run where it is: it may have another isolation level now.
    has_set_modes: bool,
    /// It may have read on a replica that it has left: another one may be further behind.
    has_read: bool,
    pub(crate) stage: BlockStage,
    /// It stays where it runs: a cursor or portal was left open there, or something that is in no journal.
    pub(crate) is_stuck: bool,
}

impl Block {
    /// Returns one that is held back.
    pub(crate) fn held(modes: TransactionModes) -> Self {
        Block::new(modes, BlockStage::Held)
    }

    fn new(modes: TransactionModes, stage: BlockStage) -> Self {
        Block {
            modes,
            begin: modes,
            has_set_read_write: false,
            has_set_modes: false,
            has_read: false,
            stage,
            is_stuck: false,
        }
    }
}

/// Where a block stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockStage {
    /// No server has it.
    Held,
    /// Likewise, and it has failed: only its end is heard.
    Failed,
    /// It reads on a replica.
    OnReplica,
}

/// A batch that holds one statement, of transaction control.
struct Alone {
    control: TransactionControl,
    text: Vec<u8>,
    /// It runs the statement; else it only prepares or describes it.
    runs: bool,
}

/// What becomes of the batch at hand, as far as a block is concerned.
pub(crate) enum Taken {
    /// It has been answered, or waits.
    Yes(Act),
    /// It needs a server.
    No,
}

impl Client {
    /// Returns the transaction status that the client knows of.
    pub(crate) fn client_status(&self) -> TransactionStatus {
        match (&self.held, self.block) {
            (Some(held), _) => held.status(),
            (None, None) => TransactionStatus::Idle,
            (None, Some(block)) if block.stage == BlockStage::Failed => TransactionStatus::Failed,
            (None, Some(_)) => TransactionStatus::InTransaction,
        }
    }

    /// Notes that a batch fails that was not sent: so does the block that it was for. Returns the status to report.
    pub(crate) fn fail_block(&mut self) -> TransactionStatus {
        if let Some(block) = &mut self.block {
            block.stage = BlockStage::Failed;
        }
        self.client_status()
    }

    /// Acts on a batch for which the session has no server connection, where its block decides.
    pub(crate) fn act_on_block(
        &mut self,
        cx: &mut Context<'_>,
        rest: &[u8],
        portion: Portion,
        len: usize,
    ) -> Taken {
        let control = self.control_at_hand(portion);
        let batch = rest.get(..len).unwrap_or(rest);
        let alone = match control {
            TransactionControl::None => None,
            _ => self.alone_in(batch),
        };
        if alone.as_ref().is_some_and(|alone| !alone.runs) {
            return match self.prepares_here(control) {
                true => self.answer_control(cx, batch, ""),
                false => Taken::No,
            };
        }
        let alone = alone.map(|alone| (alone.control, alone.text));
        match (self.block.map(|block| block.stage), alone) {
            (None, Some((TransactionControl::Begin(modes), text))) if self.holds_back(modes) => {
                let tag = self.hold_block(modes, &text);
                self.answer_control(cx, batch, tag)
            }
            (
                Some(stage @ (BlockStage::Held | BlockStage::Failed)),
                Some((
                    TransactionControl::End {
                        commit,
                        chain: false,
                    },
                    _,
                )),
            ) => {
                let commits = commit && stage == BlockStage::Held;
                self.block = None;
                if commits {
                    self.session.state.commit_unseen();
                } else {
                    self.session.state.abandon();
                }
                self.answer_control(cx, batch, if commits { "COMMIT" } else { "ROLLBACK" })
            }
            (Some(BlockStage::Held), Some((TransactionControl::Set(modes), text))) => {
                self.session.state.note_local(&text);
                self.change_modes(modes);
                self.answer_control(cx, batch, "SET")
            }
            (Some(BlockStage::Failed), alone) => {
                let is_rollback_to = matches!(
                    alone,
                    Some((
                        TransactionControl::Savepoint(pgweir_sql::SavepointCommand::RollbackTo),
                        _
                    ))
                );
                if is_rollback_to {
                    self.set_stage(BlockStage::Held);
                    return Taken::No;
                }
                let may_end = matches!(
                    control,
                    TransactionControl::End { .. } | TransactionControl::Savepoint(_)
                );
                if may_end || portion != Portion::Batch || self.goes_beyond() {
                    // It may end the transaction and go on: a server takes it from here, with a transaction that has failed.
                    return Taken::No;
                }
                Taken::Yes(Act::Fail(Fault::transaction_is_aborted()))
            }
            _ => Taken::No,
        }
    }

    /// Returns what the batch at hand does to the transaction, if it is whole.
    fn control_at_hand(&self, portion: Portion) -> TransactionControl {
        let facts = self.session.facts();
        match &facts.deciding {
            Some(plan) if portion == Portion::Batch && facts.marks.has(Marks::STATE) => {
                plan.classified.effects.transaction
            }
            _ => TransactionControl::None,
        }
    }

    /// Returns whether a statement of transaction control that is prepared now and run later needs no server for that: it is
    /// one that would be answered here. While there is no primary a client could not even end its transaction otherwise.
    fn prepares_here(&self, control: TransactionControl) -> bool {
        match control {
            TransactionControl::Begin(modes) => self.block.is_none() && self.holds_back(modes),
            TransactionControl::End { chain: false, .. } | TransactionControl::Set(_) => {
                self.block.is_some()
            }
            _ => false,
        }
    }

    /// Returns whether the batch at hand holds several statements, of which one may end the transaction.
    fn goes_beyond(&self) -> bool {
        let facts = self.session.facts();
        let is_long = |plan: &std::rc::Rc<pgweir_sql::Plan>| plan.classified.statements.len() > 1;
        let leaves = |plan: &std::rc::Rc<pgweir_sql::Plan>| {
            plan.classified.effects.transaction == TransactionControl::PrepareTransaction
        };
        facts.statements > 1
            || facts.marks.has(Marks::UNREAD)
            || facts.deciding.as_ref().is_some_and(leaves)
            || facts.deciding.as_ref().is_some_and(is_long)
    }

    /// Returns whether the batch at hand ends the transaction first thing, and then goes on: with another, or other statements.
    fn ends_and_goes_on(&self) -> bool {
        let Some(plan) = &self.session.facts().deciding else {
            return false;
        };
        let chains = matches!(
            plan.classified.effects.transaction,
            TransactionControl::End { chain: true, .. }
        );
        self.ends_first() && (chains || self.goes_beyond())
    }

    /// Returns whether the batch at hand ends the transaction first thing.
    fn ends_first(&self) -> bool {
        let deciding = self.session.facts().deciding.as_ref();
        let first = deciding.and_then(|plan| plan.classified.statements.first());
        first.is_some_and(|first| {
            matches!(first.kind, StatementKind::Commit | StatementKind::Rollback)
        })
    }

    /// Returns the BEGIN with which a held block is opened on a replica, where its own says READ WRITE, which no standby takes.
    pub(crate) fn opening(&self, is_replica: bool) -> Option<Vec<u8>> {
        let block = self.block.filter(|_| is_replica)?;
        if block.begin.read_only != Some(false) {
            return None;
        }
        let level = match block.begin.isolation {
            Some(Isolation::ReadUncommitted) => " ISOLATION LEVEL READ UNCOMMITTED",
            Some(Isolation::ReadCommitted) => " ISOLATION LEVEL READ COMMITTED",
            Some(Isolation::RepeatableRead) => " ISOLATION LEVEL REPEATABLE READ",
            _ => "",
        };
        Some(format!("BEGIN{level}").into_bytes())
    }

    fn set_stage(&mut self, stage: BlockStage) {
        if let Some(block) = &mut self.block {
            block.stage = stage;
        }
    }

    fn change_modes(&mut self, modes: TransactionModes) {
        if let Some(block) = &mut self.block {
            block.modes = block.modes.and(modes);
            block.has_set_read_write |= modes.read_only == Some(false);
        }
    }

    /// Returns where the reads of its transactions run.
    pub(crate) fn transaction_reads(&self) -> TransactionReads {
        let chosen = self.choices.transaction_reads;
        chosen.unwrap_or(self.identity.transaction_reads)
    }

    /// Returns whether a BEGIN is held back until the statement after it is known.
    fn holds_back(&self, modes: TransactionModes) -> bool {
        self.identity.splitting == Splitting::On
            && self.identity.reads_text
            && self.identity.pool_mode == PoolMode::Transaction
            && (self.transaction_reads() == TransactionReads::UntilWrite
                || self.meaning(modes).is_read_only())
    }

    /// Returns whether the batch at hand, but for statements of the proxy's own, only opens a block that is held back: some
    /// drivers send the BEGIN together with the first statement.
    pub(crate) fn opens_block_locally(&self) -> bool {
        let facts = self.session.facts();
        let is_all = facts.statements == facts.local_statements + 1;
        is_all
            && self.held.is_none()
            && self.block.is_none()
            && facts.begin.is_some_and(|modes| self.holds_back(modes))
    }

    /// Opens a block of which no server knows yet; returns the command tag.
    pub(crate) fn hold_block(&mut self, modes: TransactionModes, text: &[u8]) -> &'static str {
        self.session.state.begin(text);
        self.block = Some(Block::held(modes));
        let statements = pgweir_sql::state_statements(text);
        match statements.first().and_then(|first| first.text.first()) {
            Some(b's' | b'S') => "START TRANSACTION",
            _ => "BEGIN",
        }
    }

    /// Returns the statement that controls the transaction, if the batch prepares it, or runs it once, and holds nothing else.
    fn alone_in(&self, batch: &[u8]) -> Option<Alone> {
        let tables = &mut *self.counted.worker.tables.borrow_mut();
        let mut found: Option<(TransactionControl, Vec<u8>)> = None;
        let mut prepared = None;
        let mut runs = 0;
        let mut frames = Frames::new(batch);
        while let Ok(Some(frame)) = frames.next() {
            let text = match frame.tag {
                tag::QUERY => {
                    runs += 1;
                    Query::decode(frame.body()).ok()?.sql.to_vec()
                }
                tag::PARSE => {
                    let parse = Parse::decode(frame.body()).ok()?;
                    prepared = Some(parse.name);
                    parse.sql.to_vec()
                }
                tag::BIND => {
                    let name = Bind::decode(frame.body()).ok()?.statement;
                    if prepared == Some(name) {
                        continue;
                    }
                    self.session.statement_text(name)?
                }
                tag::EXECUTE => {
                    runs += 1;
                    continue;
                }
                tag::DESCRIBE | tag::SYNC => continue,
                _ => return None,
            };
            let plan = tables.plans.get(&text);
            if plan.classified.statements.len() != 1 || found.as_ref().is_some_and(|f| f.1 != text)
            {
                return None;
            }
            found = Some((plan.classified.effects.transaction, text));
        }
        let (control, text) = found.filter(|_| runs <= 1)?;
        Some(Alone {
            control,
            text,
            runs: runs == 1,
        })
    }

    /// Answers a batch that runs one statement of transaction control.
    fn answer_control(&mut self, cx: &mut Context<'_>, batch: &[u8], command: &str) -> Taken {
        let status = self.client_status();
        let mut reply = Vec::new();
        let mut frames = Frames::new(batch);
        let complete = CommandComplete {
            tag: command.as_bytes(),
        };
        while let Ok(Some(frame)) = frames.next() {
            match frame.tag {
                tag::QUERY => {
                    self.session.drop_unnamed();
                    complete.encode(&mut reply);
                    ReadyForQuery { status }.encode(&mut reply);
                }
                tag::PARSE => {
                    if let Ok(parse) = Parse::decode(frame.body()) {
                        self.prepare_local(frame.body(), &parse);
                    }
                    ParseComplete.encode(&mut reply);
                }
                tag::BIND => BindComplete.encode(&mut reply),
                tag::DESCRIBE => {
                    let of_statement = Describe::decode(frame.body())
                        .is_ok_and(|describe| describe.kind == Target::Statement);
                    if of_statement {
                        ParameterDescription {
                            parameter_types: ListBuf::new().as_list(),
                        }
                        .encode(&mut reply);
                    }
                    NoData.encode(&mut reply);
                }
                tag::EXECUTE => complete.encode(&mut reply),
                tag::SYNC => ReadyForQuery { status }.encode(&mut reply),
                _ => {}
            }
        }
        self.account_for_own_answer();
        self.session.drop_batch();
        Taken::Yes(match self.out.send_slice(&mut self.stream, cx, &reply) {
            Ok(()) => Act::Done,
            Err(_) => Act::Stop(Box::new(Next::Gone)),
        })
    }

    /// Returns what the router is to decide about the first statement of a transaction, in this block if there is one: `None`
    /// where it is no such thing or where the transaction begins on the primary.
    pub(crate) fn first_of_block<'a>(
        &self,
        block: Option<Block>,
        facts: &'a Facts,
        portion: Portion,
    ) -> FirstOfBlock<'a> {
        let modes = match (block, facts.begin) {
            (Some(block), None) => block.modes,
            (None, Some(modes)) => modes,
            (None, None) => return FirstOfBlock::NoBlock,
            (Some(_), Some(_)) => return FirstOfBlock::OnPrimary,
        };
        let meaning = self.meaning(modes);
        if self.default_meaning().is_serializable() {
            // A standby does not even take the setting.
            return FirstOfBlock::OnPrimary;
        }
        let may_split =
            meaning.is_read_only() || self.transaction_reads() == TransactionReads::UntilWrite;
        let is_open = facts.marks.has(Marks::LEAVES_OPEN) || portion != Portion::Batch;
        // A BEGIN in the batch itself goes out as it is, READ WRITE and all, and so does a SET TRANSACTION.
        let says_read_write = match facts.begin {
            Some(begin) => begin.read_only == Some(false),
            None => block.is_some_and(|block| block.has_set_read_write),
        };
        let is_failed = block.is_some_and(|block| block.stage == BlockStage::Failed);
        if !may_split
            || is_failed
            || block.is_some_and(|block| block.has_read)
            || !meaning.allows_replica()
            || facts.pin.is_some()
            || facts.marks.has(Marks::UNREAD)
            || (facts.marks.has(Marks::NEEDS_PRIMARY) && !meaning.is_read_only())
            || (meaning.is_read_only() && self.goes_beyond() && facts.begin.is_none())
            || (is_open && !meaning.is_read_only())
            || says_read_write
        {
            return FirstOfBlock::OnPrimary;
        }
        let reason = if meaning.is_read_only() {
            Reason::ReadOnlyTransaction
        } else {
            Reason::Read
        };
        FirstOfBlock::MayRead(match &facts.deciding {
            Some(plan) => RouteFacts {
                reason: match facts.verdict.map(|verdict| verdict.reason) {
                    Some(Reason::ReadByTokens) if !meaning.is_read_only() => Reason::ReadByTokens,
                    _ => reason,
                },
                ..crate::acquire::route_facts_of(plan)
            }
            // The hint may stand in another statement of the batch.
            .hinted(
                facts
                    .hinted
                    .as_ref()
                    .and_then(|plan| plan.classified.hint.as_ref()),
            ),
            None => RouteFacts::new(reason),
        })
    }

    /// Returns whether a transaction that begins with these facts must see all that is committed meanwhile: it takes a
    /// snapshot for each statement, and is asked to be strong.
    pub(crate) fn block_must_be_current(&self, facts: &RouteFacts<'_>) -> bool {
        let modes = self.block.map(|block| block.modes);
        let modes = modes.or(self.session.facts().begin).unwrap_or_default();
        self.meaning(modes).may_move() && self.asks_strong(facts)
    }

    /// Returns whether the replica in use is not known to have replayed what the session was told of since it came there.
    fn is_below_min_lsn(&self) -> bool {
        let (Some(least), Some(held)) = (self.choices.min_lsn, &self.held) else {
            return false;
        };
        let topology = self.topology();
        let node = topology.nodes.get(usize::from(held.node.node));
        node.is_none_or(|node| node.position < least)
    }

    /// Notes where the first batch of a transaction goes.
    pub(crate) fn begin_block_there(&mut self, is_replica: bool) {
        let begin = self.session.facts().begin;
        if !is_replica {
            self.block = None;
            return;
        }
        match (&mut self.block, begin) {
            (Some(block), _) => block.stage = BlockStage::OnReplica,
            (None, Some(modes)) => {
                self.block = Some(Block::new(modes, BlockStage::OnReplica));
            }
            (None, None) => {}
        }
    }

    /// Returns whether the transaction can be opened anew should its replica die now.
    pub(crate) fn reopens(&self) -> bool {
        self.is_movable() && self.session.is_settled() && !self.session.is_in_mid_batch()
    }

    fn is_on_replica(&self) -> bool {
        self.block
            .is_some_and(|block| block.stage == BlockStage::OnReplica)
    }

    /// Returns whether the transaction reads on a replica and can be brought to the primary: whole batches are looked at.
    pub(crate) fn is_movable(&self) -> bool {
        self.block.is_some_and(|block| {
            block.stage == BlockStage::OnReplica
                && !block.is_stuck
                && self.session.state.can_reopen()
                && self.meaning(block.modes).may_move()
        })
    }

    /// Returns whether the batch at hand must take its transaction from the replica to the primary.
    pub(crate) fn must_move(&self, portion: Portion) -> bool {
        let Some(status) = self.held.as_ref().map(|held| held.status()) else {
            return false;
        };
        if !self.session.is_settled() || self.session.is_in_mid_batch() || !self.is_on_replica() {
            return false;
        }
        if status == TransactionStatus::Failed {
            // What a failed transaction has seen does not matter any more, unless it goes back to a savepoint.
            let is_over =
                self.is_movable() || self.ends_first() || !self.session.state.has_savepoint();
            return is_over && (self.goes_beyond() || portion != Portion::Batch);
        }
        if status == TransactionStatus::InTransaction && self.ends_and_goes_on() {
            // What the transaction has seen does not matter any more either.
            return self.session.state.can_reopen();
        }
        if status != TransactionStatus::InTransaction || !self.is_movable() {
            return false;
        }
        let facts = self.session.facts();
        if self.asks_strong(&crate::acquire::route_facts(facts)) || self.is_below_min_lsn() {
            return true;
        }
        let read_only = self
            .block
            .is_some_and(|block| self.meaning(block.modes).is_read_only());
        if read_only {
            // It stays, except for what a replica would keep to itself.
            return facts.pin.is_some() || self.goes_beyond();
        }
        // A SET TRANSACTION fails where something was read before, and where it does not, nothing is lost by a move.
        let has_set_modes = self.block.is_some_and(|block| block.has_set_modes);
        // No standby takes a READ WRITE, and a transaction that may write takes it at any time.
        let asks_to_write = facts.deciding.as_ref().is_some_and(|plan| {
            matches!(
                plan.classified.effects.transaction,
                TransactionControl::Set(TransactionModes {
                    read_only: Some(false),
                    isolation: None,
                    ..
                })
            )
        });
        has_set_modes
            || asks_to_write
            || facts.sets_modes && self.goes_beyond()
            || self.session.state.is_journal_nearly_full()
            || facts.marks.has(Marks::NEEDS_PRIMARY)
            || facts.marks.has(Marks::LEAVES_OPEN)
            || facts.pin.is_some()
            || facts.begin.is_some()
            || portion != Portion::Batch
    }

    /// Gives up the replica on which the transaction read so far; it is opened anew where it goes on.
    pub(crate) fn leave_replica(&mut self) {
        self.leave_traced_server();
        let Some(mut held) = self.held.take() else {
            return;
        };
        self.note_use(held.node, held.role);
        // Behind its end another transaction begins, which has read nothing.
        match self.ends_first() {
            true => self.take_block_along(held.status()),
            false => self.lose_block_replica(held.status()),
        }
        self.count_load(held.node, Loads::finished);
        self.session.leave(&mut held.lease.state.session);
        self.reset_aside(held);
    }

    /// Notes what the batch at hand does to the block that it is in.
    pub(crate) fn note_effects_on_block(&mut self) {
        let Some(block) = self.block else { return };
        let is_read_only = self.meaning(block.modes).is_read_only();
        let facts = self.session.facts();
        let marks = facts.marks;
        // What a function sets or locks is in no journal, and what becomes of the modes is not known here.
        let is_hidden = marks.has(Marks::SUSPECT)
            || is_read_only && (marks.has(Marks::NEEDS_PRIMARY) || facts.sets_modes);
        let block = Block {
            is_stuck: block.is_stuck || marks.has(Marks::LEAVES_OPEN) || is_hidden,
            has_set_modes: block.has_set_modes || facts.sets_modes,
            ..block
        };
        self.block = Some(block);
    }

    /// Notes that no server has the block any more, which had this status where it was. What has failed stays failed.
    fn take_block_along(&mut self, status: TransactionStatus) {
        self.set_stage(match status {
            TransactionStatus::Failed => BlockStage::Failed,
            TransactionStatus::Idle | TransactionStatus::InTransaction => BlockStage::Held,
        });
    }

    /// Notes that the block has left a replica on which it may have read.
    pub(crate) fn lose_block_replica(&mut self, status: TransactionStatus) {
        self.take_block_along(status);
        if let Some(block) = &mut self.block {
            block.has_read = true;
        }
    }

    /// Notes that the server connection of a transaction is given back: the block is over, unless its batch runs anew
    /// elsewhere.
    pub(crate) fn leave_block(&mut self, runs_anew: bool) {
        if runs_anew {
            let has_shown = self.has_shown(Role::Replica);
            self.set_stage(BlockStage::Held);
            if let Some(block) = &mut self.block {
                block.has_read |= has_shown;
            }
        } else {
            self.block = None;
        }
    }
}

/// Where the first batch of a transaction may go.
pub(crate) enum FirstOfBlock<'a> {
    /// It opens none and is in none.
    NoBlock,
    /// The primary.
    OnPrimary,
    /// A replica, if one is eligible for these facts.
    MayRead(RouteFacts<'a>),
}
