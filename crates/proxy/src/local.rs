//! Statements for the proxy itself: `SET`, `RESET` and `SHOW` of `pgweir.*`, and `EXPLAIN ROUTE`.

use std::rc::Rc;
use std::sync::Arc;

use pgweir_model::PinReason;
use pgweir_route::{Consistency, Held as HeldView, RouteSetting, SessionView, View, explain};
use pgweir_sql::plan::Plan;
use pgweir_sql::{Discard, LocalCommand};
use pgweir_wire::backend::{
    BindComplete, CloseComplete, Column, CommandComplete, DataRow, NoData, ParameterDescription,
    ParseComplete, ReadyForQuery, RowDescription,
};
use pgweir_wire::frontend::{Bind, Describe, Parse, Query, Target, tag};
use pgweir_wire::{Frames, ListBuf, TransactionStatus};

use crate::client_task::Client;
use crate::dispatch::route_facts_of;
use crate::fault::Fault;

/// Object ID of `text`.
const TEXT: u32 = 25;

/// The settings that exist, for the error about those that do not.
const KNOWN: &str =
    "pgweir.route, pgweir.consistency, pgweir.last_route, pgweir.pinned, pgweir.version";

/// What a statement of ours returns.
enum Answer {
    /// A command without rows: its tag.
    Done(&'static str),
    /// Columns and rows, all text, and the tag.
    Rows(&'static [&'static str], Vec<Vec<String>>, &'static str),
}

/// A statement of ours in a batch: its plan and its text.
struct Current {
    plan: Rc<Plan>,
    sql: Vec<u8>,
}

impl Client {
    /// Answers a batch of statements for the proxy. `reply` gets all of its replies, errors included.
    pub(crate) fn answer(&mut self, batch: &[u8], status: TransactionStatus, reply: &mut Vec<u8>) {
        let mut frames = Frames::new(batch);
        let mut current: Option<Current> = None;
        let mut has_failed = false;
        while let Ok(Some(frame)) = frames.next() {
            match frame.tag {
                tag::SYNC => ReadyForQuery { status }.encode(reply),
                _ if has_failed => {}
                tag::QUERY => {
                    let outcome = Query::decode(frame.body()).map(|query| self.current(query.sql));
                    let outcome = outcome.ok().and_then(|current| self.run_local(&current));
                    has_failed = !put(outcome, true, reply);
                    ReadyForQuery { status }.encode(reply);
                }
                tag::PARSE => {
                    if let Ok(parse) = Parse::decode(frame.body()) {
                        current = Some(self.current(parse.sql));
                        self.prepare_local(frame.body(), &parse);
                        ParseComplete.encode(reply);
                    }
                }
                tag::BIND => {
                    if let Ok(bind) = Bind::decode(frame.body())
                        && let Some(sql) = self.session.statement_text(bind.statement)
                    {
                        current = Some(self.current(&sql));
                    }
                    BindComplete.encode(reply);
                }
                tag::DESCRIBE => has_failed = !self.describe(frame.body(), &mut current, reply),
                tag::EXECUTE => {
                    let outcome = current.as_ref().and_then(|current| self.run_local(current));
                    has_failed = !put(outcome, false, reply);
                }
                tag::CLOSE => CloseComplete.encode(reply),
                _ => {}
            }
        }
    }

    fn current(&self, sql: &[u8]) -> Current {
        let worker = Rc::clone(self.worker());
        let plan = worker.tables.borrow_mut().plans.get(sql);
        Current {
            plan,
            sql: sql.to_vec(),
        }
    }

    pub(crate) fn prepare_local(&mut self, body: &[u8], parse: &Parse<'_>) {
        let worker = Rc::clone(self.worker());
        let tables = &mut *worker.tables.borrow_mut();
        let tail = body.get(parse.name.len() + 1..).unwrap_or_default();
        let statement = tables
            .statements
            .prepare(tail, parse.sql, self.session.reading(), &mut tables.plans);
        self.session.define_statement(parse.name, statement);
    }

    /// Describes without running: the shape of a result depends only on the command.
    fn describe(
        &mut self,
        body: &[u8],
        current: &mut Option<Current>,
        reply: &mut Vec<u8>,
    ) -> bool {
        let Ok(describe) = Describe::decode(body) else {
            return false;
        };
        if describe.kind == Target::Statement {
            if let Some(sql) = self.session.statement_text(describe.name) {
                *current = Some(self.current(&sql));
            }
            ParameterDescription {
                parameter_types: ListBuf::new().as_list(),
            }
            .encode(reply);
        }
        let command = current
            .as_ref()
            .and_then(|current| current.plan.classified.local.as_ref());
        match command {
            Some(LocalCommand::ShowSetting(name)) => columns(&[column_of(name)], reply),
            Some(LocalCommand::ExplainRoute) => columns(&EXPLAIN_COLUMNS, reply),
            Some(LocalCommand::SetSetting { .. } | LocalCommand::ResetSetting(_)) | None => {
                NoData.encode(reply)
            }
        }
        true
    }

    fn run_local(&mut self, current: &Current) -> Option<Result<Answer, Fault>> {
        let plan = Rc::clone(&current.plan);
        if self
            .held
            .as_ref()
            .is_some_and(|held| held.status() == TransactionStatus::Failed)
        {
            return Some(Err(Fault::transaction_is_aborted()));
        }
        if let [Discard::Deallocate(name)] = plan.classified.effects.discard.as_slice() {
            self.session.deallocate(name.as_bytes());
            return Some(Ok(Answer::Done("DEALLOCATE")));
        }
        let command = plan.classified.local.as_ref()?;
        Some(match command {
            LocalCommand::ShowSetting(name) => self
                .show(name)
                .map(|value| Answer::Rows(one(column_of(name)), vec![vec![value]], "SHOW")),
            LocalCommand::SetSetting {
                name,
                value,
                local: _,
            } => self
                .set(name, value.as_deref())
                .map(|()| Answer::Done("SET")),
            LocalCommand::ResetSetting(name) => {
                self.set(name, None).map(|()| Answer::Done("RESET"))
            }
            LocalCommand::ExplainRoute => Ok(self.explain(&current.sql)),
        })
    }

    fn show(&self, name: &str) -> Result<String, Fault> {
        Ok(match name {
            "pgweir.version" => format!("pgweir {}", env!("CARGO_PKG_VERSION")),
            "pgweir.route" => self.choices.route.to_string(),
            "pgweir.consistency" => match self.choices.consistency {
                Consistency::Session => "session".to_owned(),
                Consistency::Eventual => "eventual".to_owned(),
            },
            "pgweir.last_route" => match self.last_route {
                Some((role, reason)) => format!("{role} ({reason})"),
                None => String::new(),
            },
            "pgweir.pinned" => self
                .held
                .as_ref()
                .and_then(|held| held.pins.iter().next())
                .map_or_else(String::new, |pin: PinReason| pin.to_string()),
            _ => return Err(Fault::unknown_setting(name, KNOWN)),
        })
    }

    fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), Fault> {
        match (name, value) {
            ("pgweir.route", None) => self.choices.route = RouteSetting::Auto,
            ("pgweir.route", Some(value)) => {
                let route = RouteSetting::parse(value);
                if let RouteSetting::Backend(backend) = &route
                    && !self
                        .topology()
                        .nodes
                        .iter()
                        .any(|node| node.name == *backend)
                {
                    return Err(Fault::bad_value(
                        name,
                        value,
                        "auto, primary, replica, or the name of a backend",
                    ));
                }
                self.choices.route = route;
            }
            ("pgweir.consistency", None) => self.choices.consistency = self.identity.consistency,
            ("pgweir.consistency", Some(value)) => {
                self.choices.consistency = match value.to_ascii_lowercase().as_str() {
                    "session" => Consistency::Session,
                    "eventual" => Consistency::Eventual,
                    "strong" => return Err(Fault::not_built("consistency strong")),
                    _ => return Err(Fault::bad_value(name, value, "session and eventual")),
                }
            }
            ("pgweir.version" | "pgweir.last_route" | "pgweir.pinned", _) => {
                return Err(Fault::bad_value(
                    name,
                    value.unwrap_or("DEFAULT"),
                    "none: it can only be shown",
                ));
            }
            _ => return Err(Fault::unknown_setting(name, KNOWN)),
        }
        Ok(())
    }

    fn explain(&self, sql: &[u8]) -> Answer {
        let inner = pgweir_sql::explained(sql)
            .and_then(|range| sql.get(range))
            .unwrap_or_default();
        let current = self.current(inner);
        let classified = &current.plan.classified;
        let held = match &self.held {
            Some(held) => match held.pins.iter().next() {
                Some(pin) => HeldView::Pinned(pin),
                None => HeldView::Transaction,
            },
            None => HeldView::Nothing,
        };
        let rows = self.with_view(|view| {
            let session = SessionView {
                held,
                route: &self.choices.route,
                wrote_at: self.wrote_at,
                consistency: self.choices.consistency,
                splitting: self.identity.splitting,
                session_pooling: self.identity.pool_mode == pgweir_config::PoolMode::Session,
            };
            let facts = pgweir_route::Facts {
                reason: current.plan.verdict(self.session.lens()).reason,
                ..route_facts_of(&current.plan)
            };
            let held_node = self.held.as_ref().map(|held| usize::from(held.node.node));
            explain(classified, &facts, &session, view, held_node)
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
            rows.into_iter().map(row).collect(),
            "EXPLAIN",
        )
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

const EXPLAIN_COLUMNS: [&str; 4] = ["step", "decision", "reason", "detail"];

/// A result has one column, named as PostgreSQL names that of `SHOW`.
fn column_of(name: &str) -> &'static str {
    match name {
        "pgweir.version" => "pgweir.version",
        "pgweir.route" => "pgweir.route",
        "pgweir.consistency" => "pgweir.consistency",
        "pgweir.last_route" => "pgweir.last_route",
        "pgweir.pinned" => "pgweir.pinned",
        _ => "?column?",
    }
}

fn one(column: &'static str) -> &'static [&'static str] {
    match column {
        "pgweir.version" => &["pgweir.version"],
        "pgweir.route" => &["pgweir.route"],
        "pgweir.consistency" => &["pgweir.consistency"],
        "pgweir.last_route" => &["pgweir.last_route"],
        "pgweir.pinned" => &["pgweir.pinned"],
        _ => &["?column?"],
    }
}

fn columns(names: &[&str], reply: &mut Vec<u8>) {
    let mut list = ListBuf::new();
    for name in names {
        // A handful of short names always fits.
        let _fits = list.push(Column {
            name: name.as_bytes(),
            table: 0,
            attribute: 0,
            type_id: TEXT,
            type_size: -1,
            type_modifier: -1,
            format: 0,
        });
    }
    RowDescription {
        columns: list.as_list(),
    }
    .encode(reply);
}

/// Puts out an answer; `described` where the client has not asked for the columns itself. Returns whether it is no error.
fn put(outcome: Option<Result<Answer, Fault>>, described: bool, reply: &mut Vec<u8>) -> bool {
    match outcome {
        Some(Ok(Answer::Done(command))) => CommandComplete {
            tag: command.as_bytes(),
        }
        .encode(reply),
        Some(Ok(Answer::Rows(names, rows, command))) => {
            if described {
                columns(names, reply);
            }
            for row in &rows {
                let values = row.iter().map(|value| Some(value.as_bytes()));
                if let Ok(values) = ListBuf::collect(values) {
                    DataRow {
                        columns: values.as_list(),
                    }
                    .encode(reply);
                }
            }
            CommandComplete {
                tag: command.as_bytes(),
            }
            .encode(reply);
        }
        Some(Err(fault)) => {
            fault.encode(reply);
            return false;
        }
        None => {
            Fault::mixed_batch().encode(reply);
            return false;
        }
    }
    true
}
