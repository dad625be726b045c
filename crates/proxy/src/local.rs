//! Statements for the proxy itself: `SET`, `RESET` and `SHOW` of `pgweir.*`, and `EXPLAIN ROUTE`.
//!
//! They are answered in both protocols as PostgreSQL would: transactionally, with errors that end the batch, and with a
//! description of the result for who asks.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_model::{Lsn, Topology};
use pgweir_route::{
    Facts as RouteFacts, Held as HeldView, SessionView, Subject, View, explain, observed,
};
use pgweir_session::state::Scope;
use pgweir_sql::lexer::{Lexer, TokenKind};
use pgweir_sql::plan::Plan;
use pgweir_sql::{Classified, Discard, LocalCommand, TransactionControl, split};
use pgweir_wire::backend::{
    BindComplete, CloseComplete, Column, CommandComplete, DataRow, ErrorBuilder, NoData,
    ParameterDescription, ParseComplete, PortalSuspended, ReadyForQuery, RowDescription, Severity,
};
use pgweir_wire::frontend::{Bind, Close, Describe, Execute, Parse, Query, Target, tag};
use pgweir_wire::{Frame, Frames, ListBuf, TransactionStatus};

use crate::acquire::route_facts_of;
use crate::beside::is_unaffected;
use crate::choices::{Setting, shown_lag};
use crate::client_task::{Client, Next};
use crate::fault::Fault;

/// Object ID of `text`.
const TEXT: u32 = 25;

const EXPLAIN_COLUMNS: [&str; 4] = ["step", "decision", "reason", "detail"];

/// What came of a batch of statements for the proxy.
pub(crate) enum Answered {
    /// It is answered to its end.
    Whole,
    /// It failed, and so does the transaction. What it had set before is undone; the answers up to there are given.
    Failed(Fault),
    /// It asks for what is not known yet. Nothing has been done.
    Awaits(Awaited),
}

/// What an answer waits for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Awaited {
    /// A position.
    Sample,
    /// What all threads have counted.
    Observations,
}

impl Awaited {
    /// Returns how it is waited for.
    pub(crate) fn next(self) -> Next {
        match self {
            Awaited::Sample => Next::AwaitSample,
            Awaited::Observations => Next::CollectObservations,
        }
    }
}

/// Why a statement has no answer.
enum Stop {
    Fault(Fault),
    Awaits(Awaited),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Stop::Fault(fault)
    }
}

/// What a statement of ours returns.
enum Answer {
    /// A command without rows: its tag.
    Done(&'static str),
    /// Columns and rows, all text, and the tag.
    Rows(&'static [&'static str], Vec<Vec<String>>, &'static str),
}

/// A statement of ours in a batch, and what is left of its result.
struct Current {
    plan: Rc<Plan>,
    sql: Vec<u8>,
    parameter_types: Vec<u32>,
    /// The format of each result column: none (all text), one (for all) or one each.
    formats: Vec<i16>,
    /// What is still to be given out, once it has been run.
    result: Option<Answer>,
}

impl Current {
    /// Returns the columns of its result; they depend only on the command.
    fn columns(&self) -> Option<&'static [&'static str]> {
        match self.plan.classified.local.as_ref()? {
            LocalCommand::ShowSetting(name) => {
                Some(Setting::find(name).map_or(&["?column?"], Setting::columns))
            }
            LocalCommand::ExplainRoute => Some(&EXPLAIN_COLUMNS),
            LocalCommand::SetSetting { .. } | LocalCommand::ResetSetting(_) => None,
        }
    }
}

impl Client {
    /// Answers a batch of statements for the proxy.
    pub(crate) fn answer(&mut self, batch: &[u8], reply: &mut Vec<u8>) -> Answered {
        let before = self.session.state.own().clone();
        let had_block = self.block.is_some();
        let stop = match self.answer_messages(batch, reply) {
            Ok(()) => {
                self.end_questions();
                return Answered::Whole;
            }
            Err(stop) => stop,
        };
        if matches!(stop, Stop::Fault(_)) {
            self.end_questions();
        }
        let in_transaction = self.client_status() != TransactionStatus::Idle;
        self.session.state.restore_own(before, in_transaction);
        match stop {
            Stop::Fault(fault) => Answered::Failed(fault),
            Stop::Awaits(what) => {
                reply.clear();
                if !had_block && self.block.take().is_some() {
                    self.session.state.abandon();
                }
                Answered::Awaits(what)
            }
        }
    }

    /// Forgets what was found out for the batch at hand.
    fn end_questions(&mut self) {
        self.observed = None;
        self.lsn_asked_at.set(None);
    }

    /// Returns until when, and up to which position of replicas, the session has written and seen. In a transaction that is now:
    /// what it does there is noted when it is over.
    pub(crate) fn seen_until(&self) -> (Option<Instant>, Lsn) {
        let token = self.token.get();
        let is_inside = self
            .held
            .as_ref()
            .is_some_and(|held| held.status() != TransactionStatus::Idle);
        let newest_at = match (is_inside, self.lsn_asked_at.get()) {
            (false, _) => token.newest_at(),
            (true, Some(asked_at)) => Some(asked_at),
            (true, None) => {
                let now = Instant::now();
                self.lsn_asked_at.set(Some(now));
                Some(now)
            }
        };
        (newest_at, token.floor())
    }

    fn answer_messages(&mut self, batch: &[u8], reply: &mut Vec<u8>) -> Result<(), Stop> {
        let mut frames = Frames::new(batch);
        let mut current: Option<Current> = None;
        while let Ok(Some(frame)) = frames.next() {
            match frame.tag {
                tag::SYNC => {
                    let status = self.client_status();
                    ReadyForQuery { status }.encode(reply);
                }
                tag::QUERY => self.answer_query(frame, reply)?,
                tag::PARSE => {
                    let parse = Parse::decode(frame.body()).map_err(|_| Fault::mixed_batch())?;
                    current = Some(self.parsed(&parse));
                    self.prepare_local(frame.body(), &parse);
                    ParseComplete.encode(reply);
                }
                tag::BIND => {
                    let bind = Bind::decode(frame.body()).map_err(|_| Fault::mixed_batch())?;
                    self.bind(&bind, &mut current);
                    BindComplete.encode(reply);
                }
                tag::DESCRIBE => self.describe(frame, &mut current, reply),
                tag::EXECUTE => {
                    let current = current.as_mut().ok_or_else(Fault::mixed_batch)?;
                    self.execute(frame, current, reply)?;
                }
                tag::CLOSE => {
                    if let Ok(close) = Close::decode(frame.body())
                        && close.kind == Target::Statement
                    {
                        self.session.deallocate(close.name);
                    }
                    CloseComplete.encode(reply);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A simple query of one statement or several.
    fn answer_query(&mut self, frame: Frame<'_>, reply: &mut Vec<u8>) -> Result<(), Stop> {
        let query = Query::decode(frame.body()).map_err(|_| Fault::mixed_batch())?;
        self.session.drop_unnamed();
        let whole = self.current(query.sql);
        let mut statements = match whole.plan.classified.statements.len() {
            // With the comments around it, which may hold a hint.
            1 => vec![whole],
            _ => split(query.sql)
                .filter_map(|range| query.sql.get(range))
                .map(|sql| self.current(sql))
                .collect(),
        };
        for statement in &mut statements {
            let answer = self.run_local(statement, reply)?;
            if let Answer::Rows(names, ..) = &answer {
                put_columns(names, &[], reply);
            }
            put_all(&answer, reply);
        }
        let status = self.client_status();
        ReadyForQuery { status }.encode(reply);
        Ok(())
    }

    fn current(&self, sql: &[u8]) -> Current {
        let worker = Rc::clone(self.worker());
        let plan = worker.tables.borrow_mut().plans.get(sql);
        Current {
            plan,
            sql: sql.to_vec(),
            parameter_types: parameter_types(sql, &[]),
            formats: Vec::new(),
            result: None,
        }
    }

    fn parsed(&self, parse: &Parse<'_>) -> Current {
        let declared: Vec<u32> = parse.parameter_types.iter().collect();
        Current {
            parameter_types: parameter_types(parse.sql, &declared),
            ..self.current(parse.sql)
        }
    }

    pub(crate) fn prepare_local(&mut self, body: &[u8], parse: &Parse<'_>) {
        let worker = Rc::clone(self.worker());
        let tables = &mut *worker.tables.borrow_mut();
        let tail = body.get(parse.name.len() + 1..).unwrap_or_default();
        let statement =
            tables
                .statements
                .prepare(tail, parse.sql, self.session.reading(), &mut tables.plans);
        self.session.define_statement(parse.name, statement);
    }

    fn bind(&self, bind: &Bind<'_>, current: &mut Option<Current>) {
        if let Some(sql) = self.session.statement_text(bind.statement) {
            *current = Some(self.current(&sql));
        }
        if let Some(current) = current {
            current.formats = bind.result_formats.iter().collect();
        }
    }

    /// Describes without running.
    fn describe(&self, frame: Frame<'_>, current: &mut Option<Current>, reply: &mut Vec<u8>) {
        let of_statement = Describe::decode(frame.body())
            .ok()
            .filter(|describe| describe.kind == Target::Statement);
        if let Some(describe) = of_statement {
            // What was parsed in this batch knows the declared types.
            let is_here = |current: &Current, sql: &[u8]| current.sql == sql;
            if let Some(sql) = self.session.statement_text(describe.name)
                && !current.as_ref().is_some_and(|c| is_here(c, &sql))
            {
                *current = Some(self.current(&sql));
            }
            let types = current.iter().flat_map(|current| &current.parameter_types);
            // As many as fit a Parse.
            let types = ListBuf::collect(types.copied()).unwrap_or_default();
            ParameterDescription {
                parameter_types: types.as_list(),
            }
            .encode(reply);
        }
        let described = current
            .as_ref()
            .and_then(|current| Some((current.columns()?, current)));
        match described {
            Some((names, _)) if of_statement.is_some() => put_columns(names, &[], reply),
            Some((names, current)) => put_columns(names, &current.formats, reply),
            None => NoData.encode(reply),
        }
    }

    /// Runs a statement, unless that has been done, and gives out as many rows as are asked for.
    fn execute(
        &mut self,
        frame: Frame<'_>,
        current: &mut Current,
        reply: &mut Vec<u8>,
    ) -> Result<(), Stop> {
        let max_rows = Execute::decode(frame.body()).map_or(0, |execute| execute.max_rows);
        let answer = match current.result.take() {
            Some(rest) => rest,
            None => self.run_local(current, reply)?,
        };
        let limit = usize::try_from(max_rows).unwrap_or(0);
        match answer {
            Answer::Rows(names, mut rows, command) if limit > 0 && rows.len() > limit => {
                let rest = rows.split_off(limit);
                rows.iter().for_each(|row| put_row(row, reply));
                PortalSuspended.encode(reply);
                current.result = Some(Answer::Rows(names, rest, command));
            }
            answer => put_all(&answer, reply),
        }
        Ok(())
    }

    fn run_local(&mut self, current: &Current, reply: &mut Vec<u8>) -> Result<Answer, Stop> {
        let plan = Rc::clone(&current.plan);
        let effects = &plan.classified.effects;
        if self.client_status() == TransactionStatus::Failed {
            return Err(Fault::transaction_is_aborted().into());
        }
        if let TransactionControl::Begin(modes) = effects.transaction {
            let command = self.hold_block(modes, &current.sql);
            return Ok(Answer::Done(command));
        }
        if let [Discard::Deallocate(name)] = effects.discard.as_slice() {
            self.session.deallocate(name.as_bytes());
            return Ok(Answer::Done("DEALLOCATE"));
        }
        let command = plan.classified.local.as_ref();
        match command.ok_or_else(Fault::mixed_batch)? {
            LocalCommand::ShowSetting(name) => {
                let setting = Setting::find(name)?;
                if setting == Setting::Observed {
                    // Kept for the whole batch: it may ask twice.
                    let rows = self.observed.clone();
                    let rows = rows.ok_or(Stop::Awaits(Awaited::Observations))?;
                    return Ok(Answer::Rows(setting.columns(), rows, "SHOW"));
                }
                let value = self.show(setting)?;
                Ok(Answer::Rows(setting.columns(), vec![vec![value]], "SHOW"))
            }
            LocalCommand::SetSetting { name, value, local } => {
                let scope = match local {
                    true => Scope::Transaction,
                    false => Scope::Session,
                };
                self.set(name, value.as_deref(), scope, reply)?;
                Ok(Answer::Done("SET"))
            }
            LocalCommand::ResetSetting(name) => {
                self.set(name, None, Scope::Session, reply)?;
                Ok(Answer::Done("RESET"))
            }
            LocalCommand::ExplainRoute => Ok(self.explain(current)),
        }
    }

    fn show(&self, setting: Setting) -> Result<String, Stop> {
        Ok(match setting {
            Setting::Version => format!("pgweir {}", env!("CARGO_PKG_VERSION")),
            Setting::Route => self.choices.route.to_string(),
            Setting::Consistency => {
                let chosen = self.choices.asks.consistency;
                chosen.unwrap_or(self.identity.consistency).to_string()
            }
            Setting::MaxLag => {
                let config = self.worker().shared.config.load();
                let cluster = config.clusters.get(usize::from(self.identity.cluster));
                shown_lag(
                    self.choices.asks.max_lag,
                    cluster.map(|cluster| cluster.max_lag),
                )
            }
            Setting::TransactionReads => self.transaction_reads().to_string(),
            Setting::LastRoute => match self.last_route {
                Some((role, reason)) => format!("{role} ({reason})"),
                None => String::new(),
            },
            Setting::Pinned => {
                let held = self.held.as_ref();
                let pins = held.into_iter().flat_map(|held| held.pins.iter());
                pins.map(|pin| pin.name()).collect::<Vec<_>>().join(", ")
            }
            Setting::MinLsn => {
                let lsn = self.choices.min_lsn;
                lsn.map(|lsn| lsn.to_string()).unwrap_or_default()
            }
            Setting::Lsn => {
                let (newest_at, floor) = self.seen_until();
                let position = position(&self.topology(), newest_at, floor);
                position.ok_or(Stop::Awaits(Awaited::Sample))?.to_string()
            }
            // Rows of its own.
            Setting::Observed => String::new(),
        })
    }

    fn set(
        &mut self,
        name: &str,
        value: Option<&str>,
        scope: Scope,
        reply: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let setting = Setting::find(name)?;
        let topology = self.topology();
        let is_backend = |name: &str| topology.nodes.iter().any(|node| &*node.name == name);
        self.choices.check(setting, value, is_backend)?;
        let in_transaction = self.client_status() != TransactionStatus::Idle;
        if scope == Scope::Transaction && !in_transaction {
            let message = "SET LOCAL can only be used in transaction blocks";
            ErrorBuilder::new(Severity::Warning, *b"25P01", message).encode_notice(reply);
        }
        let state = &mut self.session.state;
        state.set_own(setting.name(), value, scope, in_transaction);
        self.choices.follow(state.own());
        Ok(())
    }

    fn explain(&self, current: &Current) -> Answer {
        let inner = pgweir_sql::explained(&current.sql)
            .and_then(|range| current.sql.get(range))
            .unwrap_or_default();
        let plan = self.current(inner).plan;
        let rules = self.worker().rules();
        let mut facts = RouteFacts {
            reason: plan.verdict(self.session.lens()).reason,
            ..route_facts_of(&plan)
        };
        // A tool may have put its comment in front of everything.
        if plan.classified.hint.is_none() {
            facts = facts.hinted(current.plan.classified.hint.as_ref());
        }
        facts.rule = rules.ruling(std::iter::once(&plan), &self.applicable);
        let held_node = self.held.as_ref().map(|held| usize::from(held.node.node));
        let steps = self.with_view(|view| {
            // As if it had waited for a replica with the newest sample.
            let newest = view.topology.primary().and_then(|p| p.replayed_through);
            let session = SessionView {
                arrived_at: newest.and_then(|at| at.checked_sub(Duration::from_nanos(1))),
                ..self.view(self.held_view(&facts, &plan.classified), view.topology)
            };
            let subject = Subject {
                classified: &plan.classified,
                fingerprint: plan.fingerprint(),
            };
            let steps = explain(subject, &facts, &session, view, held_node);
            match self.identity.observes() {
                true => observed(steps, &facts, view.topology),
                false => steps,
            }
        });
        let row = |step: pgweir_route::Step| {
            vec![
                step.step.to_owned(),
                step.decision.into_owned(),
                step.reason.to_owned(),
                step.detail,
            ]
        };
        Answer::Rows(
            &EXPLAIN_COLUMNS,
            steps.into_iter().map(row).collect(),
            "EXPLAIN",
        )
    }

    /// Returns the server connection that the session would have to use for a statement.
    fn held_view(&self, facts: &RouteFacts<'_>, classified: &Classified) -> HeldView {
        let Some(held) = &self.held else {
            return HeldView::Nothing;
        };
        if let Some(pin) = held.pins.iter().next() {
            let leaves =
                facts.is_read() && self.may_read_beside() && is_unaffected(held.pins, classified);
            return match leaves {
                true => HeldView::Nothing,
                false => HeldView::Pinned(pin),
            };
        }
        if self.identity.pool_mode == pgweir_config::PoolMode::Session {
            return HeldView::Session;
        }
        // A transaction that has only read so far goes to the primary with its first write.
        match held.status() == TransactionStatus::Idle || (self.is_movable() && !facts.is_read()) {
            true => HeldView::Nothing,
            false => HeldView::Transaction,
        }
    }

    fn with_view<T: Default>(&self, act: impl FnOnce(&View<'_>) -> T) -> T {
        let topology: Arc<_> = self.topology();
        let Some(cluster) = self.worker().cluster(self.identity.cluster) else {
            return T::default();
        };
        let cluster = cluster.borrow();
        act(&View {
            topology: &topology,
            loads: &cluster.loads,
            now: self.worker().coarse_now(),
        })
    }
}

/// Returns the primary's newest known position, if it was asked for after the session last did something: then all that the
/// session has committed and seen lies before it.
pub(crate) fn position(topology: &Topology, newest_at: Option<Instant>, floor: Lsn) -> Option<Lsn> {
    let primary = topology.primary()?;
    let asked_at = primary.replayed_through?;
    let is_behind = newest_at.is_none_or(|newest_at| asked_at > newest_at);
    (is_behind && primary.position >= floor).then_some(primary.position)
}

/// Returns the types of a statement's parameters: as declared, else text.
fn parameter_types(sql: &[u8], declared: &[u32]) -> Vec<u32> {
    let number = |token: pgweir_sql::lexer::Token<'_>| {
        let digits = token.text.strip_prefix(b"$")?;
        std::str::from_utf8(digits).ok()?.parse::<u16>().ok()
    };
    let parameters = Lexer::new(sql).filter(|token| token.kind == TokenKind::Param);
    let highest = parameters.filter_map(number).max().unwrap_or(0);
    let count = usize::from(highest).max(declared.len());
    let of = |index: usize| declared.get(index).copied().filter(|oid| *oid != 0);
    (0..count).map(|index| of(index).unwrap_or(TEXT)).collect()
}

fn put_columns(names: &[&str], formats: &[i16], reply: &mut Vec<u8>) {
    let format = |index: usize| match formats {
        [all] => *all,
        each => each.get(index).copied().unwrap_or(0),
    };
    let mut list = ListBuf::new();
    for (index, name) in names.iter().enumerate() {
        // A handful of short names always fits.
        let _fits = list.push(Column {
            name: name.as_bytes(),
            table: 0,
            attribute: 0,
            type_id: TEXT,
            type_size: -1,
            type_modifier: -1,
            // A text is the same in both formats.
            format: format(index),
        });
    }
    RowDescription {
        columns: list.as_list(),
    }
    .encode(reply);
}

fn put_row(row: &[String], reply: &mut Vec<u8>) {
    let values = row.iter().map(|value| Some(value.as_bytes()));
    if let Ok(values) = ListBuf::collect(values) {
        DataRow {
            columns: values.as_list(),
        }
        .encode(reply);
    }
}

/// Puts out the rows of an answer, if it has any, and its end.
fn put_all(answer: &Answer, reply: &mut Vec<u8>) {
    let command = match answer {
        Answer::Done(command) => command,
        Answer::Rows(_, rows, command) => {
            rows.iter().for_each(|row| put_row(row, reply));
            command
        }
    };
    CommandComplete {
        tag: command.as_bytes(),
    }
    .encode(reply);
}
