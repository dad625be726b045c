//! One session's statements: understood, then run over a picture of the proxy, or handed to it as an order or a change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgweir_config::{Change, Config, Edit};
use tokio::sync::{mpsc, watch};

use super::answer::{Answer, Column, canceled, not_for_viewers, refusal};
use super::command::{self, Command};
use super::desk::{Desk, Slot};
use super::engine::{Engine, Outcome, Plan, timed_out};
use super::functions::Caller;
use super::parameters::Parameters;
use super::session_statement::{self, SessionStatement};
use super::types::{Cell, PgType};
use super::{change, pgbouncer, promote, rewrite};
use crate::control::{Control, Operator, Order, Refusal, TraceLine};
use crate::facts::{Facts, Wanted};
use crate::tables::{self, Row, Scene};

/// The longest statement, in bytes. Chosen: a thousand times what people write; each is kept while it is prepared.
pub(crate) const STATEMENT_LIMIT: usize = 1 << 20;

/// A statement that is understood.
#[derive(Debug, Clone)]
pub(crate) enum Understood {
    /// There is none.
    Empty,
    Command(Command),
    Session(SessionStatement),
    Sql(Arc<Plan>),
}

impl Understood {
    /// Returns the columns of its rows; `None` where it returns none.
    pub(crate) fn columns(&self) -> Option<Vec<Column>> {
        let text = |names: &[&str]| {
            let columns = names.iter().map(|name| Column::new(name, PgType::Text));
            Some(columns.collect())
        };
        match self {
            Understood::Empty | Understood::Session(_) => None,
            Understood::Sql(plan) => plan.columns.clone(),
            Understood::Command(command) => match command {
                Command::Order(_) => None,
                Command::PromoteCheck => Some(promote::columns()),
                Command::ConfigDiff => text(&["key", "file", "running"]),
                Command::Help => text(&["kind", "name", "description"]),
                Command::Explain { .. } => text(&["step", "decision", "reason", "detail"]),
                Command::Trace { .. } => text(&["line"]),
                Command::Show(show) => Some(pgbouncer::columns(*show)),
                Command::ShowParameter(name) if name == "all" => {
                    text(&["name", "setting", "description"])
                }
                Command::ShowParameter(name) => text(&[name]),
            },
        }
    }

    /// Returns about how much memory it takes beside a text of so many bytes, in bytes.
    pub(crate) fn size(&self, text: usize) -> usize {
        match self {
            Understood::Empty => 0,
            // They keep words of their text, or all of it.
            Understood::Command(_) | Understood::Session(_) => text,
            Understood::Sql(plan) => plan.size(),
        }
    }

    /// Returns the object IDs of its parameters' types.
    pub(crate) fn parameters(&self) -> &[u32] {
        match self {
            Understood::Sql(plan) => &plan.parameters,
            Understood::Empty | Understood::Command(_) | Understood::Session(_) => &[],
        }
    }
}

/// Lines that come one by one.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) lines: mpsc::Receiver<TraceLine>,
    pub(crate) limit: Option<u64>,
    pub(crate) duration: Option<Duration>,
}

/// What comes of a statement.
#[derive(Debug)]
pub(crate) enum Reply {
    Answer(Answer),
    Stream(Stream),
}

/// One session's engine and what it knows of its client.
pub(crate) struct Runner {
    caller: Caller,
    may_change: bool,
    control: Arc<dyn Control>,
    desk: Arc<Desk>,
    /// None while it is at work.
    engine: Option<Engine>,
    sampler: pgbouncer::Sampler,
    cancel: watch::Receiver<u64>,
    pub(crate) parameters: Parameters,
}

impl Runner {
    /// Starts a session.
    ///
    /// # Errors
    /// SQLite has no memory.
    pub(crate) fn new(
        caller: Caller,
        may_change: bool,
        parameters: Parameters,
        control: Arc<dyn Control>,
        desk: Arc<Desk>,
        cancel: watch::Receiver<u64>,
    ) -> Result<Runner, Refusal> {
        Ok(Runner {
            engine: Some(Engine::new(&caller)?),
            caller,
            may_change,
            control,
            desk,
            sampler: pgbouncer::Sampler::default(),
            cancel,
            parameters,
        })
    }

    /// Forgets a request to cancel that came while nothing ran: it does not mean what comes now.
    pub(crate) fn begin(&mut self) {
        self.cancel.borrow_and_update();
    }

    /// Understands one statement, whose parameters have the types that the client declares; 0 leaves one open.
    ///
    /// # Errors
    /// It is none, or not allowed.
    ///
    /// # Cancel safety
    /// None: the session cannot go on.
    pub(crate) async fn understand(
        &mut self,
        sql: &str,
        declared: &[u32],
    ) -> Result<Understood, Refusal> {
        if sql.len() > STATEMENT_LIMIT {
            let message = format!("a statement has at most {} MiB", STATEMENT_LIMIT >> 20);
            return Err(refusal(b"54000", message));
        }
        let statements = super::words::statements(sql);
        let sql = match statements.as_slice() {
            [] => return Ok(Understood::Empty),
            [one] => *one,
            _ => {
                let message = "cannot insert multiple commands into a prepared statement";
                return Err(refusal(b"42601", message));
            }
        };
        if let Some(command) = command::parse(sql) {
            let command = command?;
            if command.changes() && !self.may_change {
                return Err(not_for_viewers(&format!(
                    "permission denied: {}",
                    command.tag()
                )));
            }
            if let Command::ShowParameter(name) = &command
                && name != "all"
            {
                self.parameters.show(name)?;
            }
            return Ok(Understood::Command(command));
        }
        if let Some(statement) = session_statement::parse(sql) {
            if let SessionStatement::Set {
                name,
                value: Some(value),
            } = &statement
                && pgbouncer::edit(name, value).is_some()
                && !self.may_change
            {
                return Err(not_for_viewers("permission denied: SET"));
            }
            return Ok(Understood::Session(statement));
        }
        let deadline = Instant::now() + self.desk.timeout();
        let (sql, declared, may_change) = (sql.to_owned(), declared.to_vec(), self.may_change);
        let plan = self.at_work(deadline, move |engine| {
            let rewritten = rewrite::rewrite(&sql)?;
            engine.prepare(rewritten, &declared, may_change, deadline)
        });
        Ok(Understood::Sql(Arc::new(plan.await?)))
    }

    /// Runs a statement.
    ///
    /// # Errors
    /// It failed, or was cancelled.
    ///
    /// # Cancel safety
    /// None: what is dropped may still be done, and the session cannot go on.
    pub(crate) async fn run(
        &mut self,
        sql: &str,
        understood: &Understood,
        values: &[Cell],
    ) -> Result<Reply, Refusal> {
        self.log(sql, understood);
        match understood {
            Understood::Empty => Ok(Reply::Answer(Answer::default())),
            Understood::Session(statement) => self.session(statement).await.map(Reply::Answer),
            Understood::Sql(plan) => self.sql(plan, values).await.map(Reply::Answer),
            Understood::Command(command) => self.command(command).await,
        }
    }

    /// A change is worth a line; the text itself may hold what is secret, and stays below.
    fn log(&self, sql: &str, understood: &Understood) {
        let user = &*self.caller.user;
        tracing::debug!(user, statement = sql, "console statement");
        // Orders, and what a change has changed, are logged by whoever carries them out; a change that comes to nothing, here alone.
        if let Understood::Sql(plan) = understood
            && let Some(table) = plan.writes()
        {
            tracing::info!(user, table = table.name, "console change");
        }
    }

    fn operator(&self) -> Operator {
        Operator {
            user: Arc::clone(&self.caller.user),
        }
    }

    async fn session(&mut self, statement: &SessionStatement) -> Result<Answer, Refusal> {
        match statement {
            SessionStatement::Set { name, value } => {
                let edit = value
                    .as_deref()
                    .and_then(|value| pgbouncer::edit(name, value));
                if let Some(edit) = edit {
                    let seen = Arc::clone(&self.facts(Wanted::default()).await?.config);
                    let notice = self.change(&[edit], &seen).await?;
                    return Ok(Answer {
                        notice,
                        ..Answer::done("SET")
                    });
                }
                self.parameters.set(name, value.as_deref())?;
                if value.is_none() {
                    return Ok(Answer::done("RESET"));
                }
            }
            SessionStatement::ResetAll | SessionStatement::DiscardAll => self.parameters.reset(),
            _ => {}
        }
        Ok(Answer::done(statement.tag()))
    }

    async fn facts(&mut self, wanted: Wanted) -> Result<Arc<Facts>, Refusal> {
        let (desk, control) = (Arc::clone(&self.desk), Arc::clone(&self.control));
        self.unless_cancelled(desk.facts(&*control, wanted)).await
    }

    async fn unless_cancelled<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Refusal> {
        tokio::select! {
            biased;
            () = cancelled(&mut self.cancel) => Err(canceled()),
            done = work => Ok(done),
        }
    }

    async fn sql(&mut self, plan: &Arc<Plan>, values: &[Cell]) -> Result<Answer, Refusal> {
        let facts = self.facts(plan.wanted()).await?;
        let outcome = self.compute(plan, values, &facts).await?;
        let mut notice = None;
        if let Some(table) = plan.writes() {
            let edits = change::edits(table, &outcome.changed, &facts)?;
            if !edits.is_empty() {
                notice = self.change(&edits, &facts.config).await?;
            }
        }
        Ok(Answer {
            tag: plan.tag(outcome.count),
            rows: outcome.rows,
            notice,
        })
    }

    async fn compute(
        &mut self,
        plan: &Arc<Plan>,
        values: &[Cell],
        facts: &Arc<Facts>,
    ) -> Result<Outcome, Refusal> {
        let deadline = Instant::now() + facts.config.admin.statement_timeout;
        let (plan, values) = (Arc::clone(plan), values.to_vec());
        let (facts, caller) = (Arc::clone(facts), self.caller.clone());
        self.at_work(deadline, move |engine| {
            let scene = Scene {
                facts: &facts,
                user: &caller.user,
                database: &caller.database,
                process_id: caller.process_id,
            };
            engine.run(&plan, &values, &scene, deadline)
        })
        .await
    }

    /// Waits for its turn, then does something with SQLite on a thread for such work, so that this one still hears its client.
    async fn at_work<T: Send + 'static>(
        &mut self,
        deadline: Instant,
        work: impl FnOnce(&mut Engine) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let slot = self.slot(deadline).await?;
        let mut engine = self.engine.take().ok_or_else(lost)?;
        let stopper = Stopper(engine.stopper());
        let mut task = tokio::task::spawn_blocking(move || {
            let done = rewrite::with_stack(|| work(&mut engine));
            // Nobody else's turn before: also where the client has gone meanwhile.
            drop(slot);
            (engine, done)
        });
        let (joined, is_cancelled) = tokio::select! {
            biased;
            () = cancelled(&mut self.cancel) => {
                drop(stopper);
                (task.await, true)
            }
            joined = &mut task => (joined, false),
        };
        let (engine, done) = joined.map_err(|_| lost())?;
        self.engine = Some(engine);
        match is_cancelled {
            true => Err(canceled()),
            false => done,
        }
    }

    async fn slot(&mut self, deadline: Instant) -> Result<Slot, Refusal> {
        let (desk, may_change) = (Arc::clone(&self.desk), self.may_change);
        let turn = tokio::time::timeout_at(deadline.into(), desk.slot(may_change));
        let slot = self.unless_cancelled(turn).await?;
        slot.map_err(|_| Refusal {
            detail: Some("It has waited for others, which compute.".to_owned()),
            ..timed_out()
        })?
        .ok_or_else(lost)
    }

    async fn change(
        &mut self,
        edits: &[Edit],
        seen: &Arc<Config>,
    ) -> Result<Option<String>, Refusal> {
        let control = Arc::clone(&self.control);
        let operator = self.operator();
        // Not given up half-way: all of it is done, or nothing.
        let changes = control.change(edits, seen, &operator).await?;
        let later: Vec<_> = changes.iter().filter(|change| !change.reloadable).collect();
        let later: Vec<_> = later.iter().map(|change| change.key.as_str()).collect();
        Ok((!later.is_empty()).then(|| format!("in force after a restart: {}", later.join(", "))))
    }

    async fn command(&mut self, command: &Command) -> Result<Reply, Refusal> {
        let rows = |rows| Ok(Reply::Answer(Answer::rows(rows, command.tag())));
        match command {
            Command::Order(order) => self.order(order, command.tag()).await,
            Command::PromoteCheck => {
                let facts = self.facts(Wanted::default()).await?;
                Ok(Reply::Answer(promote::answer(&facts)))
            }
            Command::ConfigDiff => {
                let changes = self.control.config_diff()?;
                let row =
                    |change: Change| vec![change.key.into(), change.old.into(), change.new.into()];
                rows(changes.into_iter().map(row).collect())
            }
            Command::Help => rows(self.help().await?),
            Command::Explain {
                sql,
                database,
                user,
            } => {
                let steps = self
                    .control
                    .explain(sql, database.as_deref(), user.as_deref())?;
                rows(
                    steps
                        .into_iter()
                        .map(|step| step.map(Cell::from).to_vec())
                        .collect(),
                )
            }
            Command::Trace {
                client,
                limit,
                duration,
            } => {
                let control = Arc::clone(&self.control);
                let lines = self.unless_cancelled(control.trace(*client)).await??;
                Ok(Reply::Stream(Stream {
                    lines,
                    limit: *limit,
                    duration: *duration,
                }))
            }
            Command::Show(show) => {
                let facts = self.facts(pgbouncer::wanted(*show)).await?;
                Ok(Reply::Answer(pgbouncer::answer(
                    *show,
                    &facts,
                    &mut self.sampler,
                    &self.caller,
                )))
            }
            Command::ShowParameter(name) if name == "all" => rows(self.parameters.all()),
            Command::ShowParameter(name) => rows(vec![vec![self.parameters.show(name)?.into()]]),
        }
    }

    async fn help(&mut self) -> Result<Vec<Row>, Refusal> {
        let facts = self.facts(Wanted::default()).await?;
        let scene = Scene {
            facts: &facts,
            user: &self.caller.user,
            database: &self.caller.database,
            process_id: self.caller.process_id,
        };
        let table = tables::own("help");
        Ok(table.map(|table| (table.rows)(&scene)).unwrap_or_default())
    }

    async fn order(&mut self, order: &Order, tag: &str) -> Result<Reply, Refusal> {
        let control = Arc::clone(&self.control);
        let operator = self.operator();
        let work = control.order(order.clone(), &operator);
        let said = self.unless_cancelled(work).await??;
        let is_news = !said.is_empty() && !said.eq_ignore_ascii_case(tag);
        Ok(Reply::Answer(Answer {
            notice: is_news.then_some(said),
            ..Answer::done(tag)
        }))
    }

    /// Waits until the client asks to cancel what runs.
    pub(crate) async fn cancelled(&mut self) {
        cancelled(&mut self.cancel).await;
    }
}

/// Never comes where nobody can ask any more.
async fn cancelled(cancel: &mut watch::Receiver<u64>) {
    if cancel.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Stops what nobody waits for any more.
struct Stopper(Arc<AtomicBool>);

impl Drop for Stopper {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn lost() -> Refusal {
    refusal(b"XX000", "the console's engine is lost")
}
