//! The protocol of one console: messages in, bytes out, without a socket.
//!
//! See <https://www.postgresql.org/docs/current/protocol-flow.html>. After an error in the extended protocol everything up to the
//! next Sync is skipped. A portal lives until its transaction ends, or its Sync where there is none.

use std::collections::HashMap;
use std::sync::Arc;

use pgweir_wire::backend::{
    self, BindComplete, CloseComplete, CommandComplete, DataRow, EmptyQueryResponse, ErrorBuilder,
    NoData, ParameterDescription, ParameterStatus, ParseComplete, PortalSuspended, ReadyForQuery,
    RowDescription, Severity,
};
use pgweir_wire::frontend::{Bind, Describe, Execute, Message, Parse, Target};
use pgweir_wire::{ListBuf, TransactionStatus};

use super::answer::{Answer, Column, refusal, row_size};
use super::engine::RESULT_LIMIT;
use super::parameters::REPORTED;
use super::run::{Reply, Runner, STATEMENT_LIMIT, Stream, Understood};
use super::session_statement::SessionStatement;
use super::types::{self, Cell};
use super::words;
use crate::control::Refusal;
use crate::tables::Row;

/// The most bytes of all prepared statements of a session, and the most of them. Chosen: drivers keep hundreds.
const PREPARED_LIMIT: usize = 16 << 20;
const PREPARED_COUNT_LIMIT: usize = 10_000;

/// The most portals of a session: one each is what drivers have.
const PORTAL_LIMIT: usize = 1000;

/// What follows from a message.
#[derive(Debug)]
pub(crate) enum Flow {
    /// Nothing: more may come.
    More,
    /// What was written is due.
    Flush,
    /// The conversation is over, once what was written is sent.
    End,
    /// Lines are to be sent as they come; then [`Machine::stream_ended`].
    Stream(Stream, Asker),
}

/// What asked for a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A Query, which ReadyForQuery ends.
    Query,
    /// An Execute.
    Portal,
}

#[derive(Debug, Clone)]
struct Prepared {
    sql: Arc<str>,
    understood: Understood,
    /// About how much memory it takes, in bytes.
    size: usize,
}

#[derive(Debug)]
struct Portal {
    statement: Prepared,
    values: Vec<Cell>,
    formats: Vec<i16>,
    /// What is left of its answer, once it has run.
    rest: Option<(std::vec::IntoIter<Row>, Answer)>,
    /// About how much memory the rows that are left, the values and the statement take, in bytes: that may be gone from its name.
    size: usize,
}

/// How far the messages are that are answered together: a simple query, or the extended ones up to Sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Batch {
    /// None has come since the client was told that it may send more.
    Awaited,
    UnderWay,
    /// One has failed, and those up to Sync are skipped.
    Skipped,
}

/// The state of one conversation.
pub(crate) struct Machine {
    pub(crate) runner: Runner,
    statements: HashMap<Vec<u8>, Prepared>,
    portals: HashMap<Vec<u8>, Portal>,
    status: TransactionStatus,
    batch: Batch,
    /// Something was changed in the transaction.
    has_changed: bool,
    /// What the client was told last of each parameter in [`REPORTED`].
    told: [String; REPORTED.len()],
}

impl Machine {
    /// Starts after the login.
    pub(crate) fn new(runner: Runner) -> Machine {
        Machine {
            told: REPORTED.map(|name| runner.parameters.show(name).unwrap_or_default()),
            runner,
            statements: HashMap::new(),
            portals: HashMap::new(),
            status: TransactionStatus::Idle,
            batch: Batch::Awaited,
            has_changed: false,
        }
    }

    /// Writes what a client is told at login about its parameters.
    pub(crate) fn greet(&self, out: &mut Vec<u8>) {
        for (name, value) in REPORTED.iter().zip(&self.told) {
            report(name, value, out);
        }
        for name in ["session_authorization", "TimeZone"] {
            let value = self.runner.parameters.show(name).unwrap_or_default();
            report(name, &value, out);
        }
    }

    /// Writes of the parameters those that are not as the client was told last.
    fn report_changes(&mut self, out: &mut Vec<u8>) {
        for (name, told) in REPORTED.iter().zip(&mut self.told) {
            let value = self.runner.parameters.show(name).unwrap_or_default();
            if *told != value {
                report(name, &value, out);
                *told = value;
            }
        }
    }

    /// Writes that a new statement is awaited.
    pub(crate) fn ready(&mut self, out: &mut Vec<u8>) {
        self.batch = Batch::Awaited;
        ReadyForQuery {
            status: self.status,
        }
        .encode(out);
    }

    /// Takes one message.
    ///
    /// # Cancel safety
    /// None: the conversation cannot go on after it was dropped.
    pub(crate) async fn take(&mut self, message: Message<'_>, out: &mut Vec<u8>) -> Flow {
        if self.batch == Batch::Awaited {
            self.runner.begin();
            self.batch = Batch::UnderWay;
        }
        match message {
            Message::Sync(_) => {
                if self.status == TransactionStatus::Idle {
                    self.portals.clear();
                }
                self.ready(out);
                Flow::Flush
            }
            Message::Terminate(_) => Flow::End,
            Message::Flush(_) => Flow::Flush,
            _ if self.batch == Batch::Skipped => Flow::More,
            Message::Query(query) => {
                self.batch = Batch::UnderWay;
                self.query(query.sql, out).await
            }
            Message::Execute(execute) => self.execute(execute, out).await,
            Message::Parse(parse) => {
                if let Err(refused) = self.parse(&parse, out).await {
                    self.fail(&refused, out);
                }
                Flow::More
            }
            other => {
                if let Err(refused) = self.extended(other, out) {
                    self.fail(&refused, out);
                }
                Flow::More
            }
        }
    }

    fn extended(&mut self, message: Message<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
        match message {
            Message::Bind(bind) => self.bind(&bind, out),
            Message::Describe(describe) => self.describe(describe, out),
            Message::Close(close) => {
                match close.kind {
                    Target::Statement => drop(self.statements.remove(close.name)),
                    Target::Portal => drop(self.portals.remove(close.name)),
                }
                CloseComplete.encode(out);
                Ok(())
            }
            Message::FunctionCall(_) => Err(refusal(
                b"0A000",
                "function calls are not supported on the console",
            )),
            // Leftovers of a COPY, which PostgreSQL ignores, too.
            Message::CopyData(_) | Message::CopyDone(_) | Message::CopyFail(_) => Ok(()),
            _ => Err(refusal(b"08P01", "this message is not expected here")),
        }
    }

    /// Writes an error; in the extended protocol what follows is skipped.
    fn fail(&mut self, refused: &Refusal, out: &mut Vec<u8>) {
        self.batch = Batch::Skipped;
        self.error(refused, out);
    }

    fn error(&mut self, refused: &Refusal, out: &mut Vec<u8>) {
        if self.status == TransactionStatus::InTransaction {
            self.status = TransactionStatus::Failed;
        }
        put_error(Severity::Error, refused, out);
    }

    async fn query(&mut self, sql: &[u8], out: &mut Vec<u8>) -> Flow {
        // As PostgreSQL: a simple query ends the unnamed statement and portal.
        self.statements.remove(&b""[..]);
        self.portals.remove(&b""[..]);
        match self.statements_of(sql, out).await {
            Ok(Some(stream)) => return Flow::Stream(stream, Asker::Query),
            Ok(None) => {}
            Err(refused) => self.error(&refused, out),
        }
        self.ready(out);
        Flow::Flush
    }

    async fn statements_of(
        &mut self,
        sql: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Stream>, Refusal> {
        let sql = text(sql)?;
        if sql.len() > STATEMENT_LIMIT {
            let message = format!("a statement has at most {} MiB", STATEMENT_LIMIT >> 20);
            return Err(refusal(b"54000", message));
        }
        let statements = words::statements(sql);
        if statements.is_empty() {
            EmptyQueryResponse.encode(out);
        }
        for one in &statements {
            let understood = self.runner.understand(one, &[]).await?;
            let reply = self.run(one, &understood, &[]).await?;
            if matches!(reply, Reply::Stream(_)) && statements.len() > 1 {
                return Err(refusal(b"0A000", "TRACE stands alone"));
            }
            let columns = understood.columns();
            if let Some(columns) = &columns {
                put_columns(columns, &[], out);
            }
            match reply {
                Reply::Answer(answer) => {
                    let columns = columns.unwrap_or_default();
                    self.finish(&understood, &columns, &answer, out)?;
                }
                Reply::Stream(stream) => return Ok(Some(stream)),
            }
            // Many that wait for nothing would keep this thread from hearing its client, and from others.
            tokio::task::yield_now().await;
        }
        Ok(None)
    }

    /// Writes rows and the end of an answer.
    fn finish(
        &mut self,
        understood: &Understood,
        columns: &[Column],
        answer: &Answer,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        for row in &answer.rows {
            // Those of the statements before are still there: a Query is answered as a whole.
            if out.len() > RESULT_LIMIT {
                let message = format!("the results are larger than {} MiB", RESULT_LIMIT >> 20);
                return Err(refusal(b"54000", message));
            }
            put_row(row, columns, &[], out)?;
        }
        self.complete(understood, answer, out);
        Ok(())
    }

    fn complete(&mut self, understood: &Understood, answer: &Answer, out: &mut Vec<u8>) {
        if let Some(notice) = &answer.notice {
            let message = format!("pgweir: {notice}");
            ErrorBuilder::new(Severity::Notice, *b"00000", &message).encode_notice(out);
        }
        if let Understood::Session(_) = understood {
            self.report_changes(out);
        }
        CommandComplete {
            tag: answer.tag.as_bytes(),
        }
        .encode(out);
    }

    /// Runs a statement, if its transaction lets it.
    async fn run(
        &mut self,
        sql: &str,
        understood: &Understood,
        values: &[Cell],
    ) -> Result<Reply, Refusal> {
        let ends = matches!(understood, Understood::Session(one) if one.ends_transaction());
        if self.status == TransactionStatus::Failed && !ends {
            return Err(refusal(
                b"25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        if self.status == TransactionStatus::Idle
            && let Understood::Session(statement) = understood
            && let Some(name) = statement.needs_transaction()
        {
            let message = format!("{name} can only be used in transaction blocks");
            return Err(refusal(b"25P01", message));
        }
        let mut reply = self.runner.run(sql, understood, values).await?;
        if let (Understood::Session(statement), Reply::Answer(answer)) = (understood, &mut reply) {
            self.follow(statement, answer);
        }
        if let Understood::Sql(plan) = understood {
            self.has_changed |= plan.writes().is_some();
        }
        Ok(reply)
    }

    /// Follows what a statement says about the session.
    fn follow(&mut self, statement: &SessionStatement, answer: &mut Answer) {
        match statement {
            SessionStatement::Begin => {
                if self.status == TransactionStatus::Idle {
                    self.has_changed = false;
                }
                self.status = TransactionStatus::InTransaction;
            }
            SessionStatement::Commit | SessionStatement::Rollback => {
                if self.status == TransactionStatus::Failed {
                    "ROLLBACK".clone_into(&mut answer.tag);
                }
                let takes_back = answer.tag == "ROLLBACK" && self.has_changed;
                if takes_back && self.status != TransactionStatus::Idle {
                    answer.notice =
                        Some("what was changed stays: the console takes nothing back".to_owned());
                }
                self.status = TransactionStatus::Idle;
                self.has_changed = false;
                self.portals.clear();
            }
            SessionStatement::RollbackTo => self.status = TransactionStatus::InTransaction,
            SessionStatement::DiscardAll => {
                self.statements.clear();
                self.portals.clear();
            }
            SessionStatement::Deallocate(None) => self.statements.clear(),
            SessionStatement::Deallocate(Some(name)) => {
                drop(self.statements.remove(name.as_bytes()));
            }
            _ => {}
        }
    }

    async fn parse(&mut self, parse: &Parse<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let sql = text(parse.sql)?;
        // As PostgreSQL: the unnamed one makes room for the next, whatever comes of that.
        if parse.name.is_empty() {
            self.statements.remove(parse.name);
        }
        if self.statements.contains_key(parse.name) {
            let name = String::from_utf8_lossy(parse.name);
            return Err(refusal(
                b"42P05",
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        let declared: Vec<u32> = parse.parameter_types.iter().collect();
        let understood = self.runner.understand(sql, &declared).await?;
        let size = parse.name.len() + sql.len() + understood.size(sql.len());
        let kept: usize = self.statements.values().map(|one| one.size).sum();
        if kept + size > PREPARED_LIMIT || self.statements.len() >= PREPARED_COUNT_LIMIT {
            return Err(refusal(b"53400", "too many prepared statements"));
        }
        let prepared = Prepared {
            sql: Arc::from(sql),
            understood,
            size,
        };
        self.statements.insert(parse.name.to_vec(), prepared);
        ParseComplete.encode(out);
        Ok(())
    }

    fn statement(&self, name: &[u8]) -> Result<&Prepared, Refusal> {
        self.statements.get(name).ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            refusal(
                b"26000",
                format!("prepared statement \"{name}\" does not exist"),
            )
        })
    }

    fn bind(&mut self, bind: &Bind<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let statement = self.statement(bind.statement)?.clone();
        let oids = statement.understood.parameters();
        if bind.parameters.len() != oids.len() {
            return Err(refusal(
                b"08P01",
                format!(
                    "the Bind has {} parameters, the statement {}",
                    bind.parameters.len(),
                    oids.len()
                ),
            ));
        }
        let mut values = Vec::with_capacity(oids.len());
        for (index, (bytes, oid)) in bind.parameters.iter().zip(oids).enumerate() {
            values.push(match bytes {
                None => Cell::Null,
                Some(bytes) => types::decode(bytes, *oid, bind.parameter_format(index))
                    .map_err(|why| refusal(b"22P02", format!("parameter ${}: {why}", index + 1)))?,
            });
        }
        let formats: Vec<i16> = bind.result_formats.iter().collect();
        if formats.iter().any(|format| !matches!(format, 0 | 1)) {
            return Err(refusal(b"22023", "there are the formats 0 and 1"));
        }
        let width = statement
            .understood
            .columns()
            .map_or(0, |columns| columns.len());
        if formats.len() > 1 && formats.len() != width {
            return Err(refusal(
                b"08P01",
                format!(
                    "the Bind has {} result formats, the result {width} columns",
                    formats.len()
                ),
            ));
        }
        if bind.portal.is_empty() {
            self.portals.remove(bind.portal);
        }
        if self.portals.contains_key(bind.portal) {
            let name = String::from_utf8_lossy(bind.portal);
            return Err(refusal(
                b"42P03",
                format!("portal \"{name}\" already exists"),
            ));
        }
        if self.portals.len() >= PORTAL_LIMIT {
            return Err(refusal(b"53400", "too many portals"));
        }
        let size = row_size(&values) + statement.size;
        self.keep(size)?;
        let portal = Portal {
            statement,
            values,
            formats,
            rest: None,
            size,
        };
        self.portals.insert(bind.portal.to_vec(), portal);
        BindComplete.encode(out);
        Ok(())
    }

    /// Refuses what all portals together have no room for.
    fn keep(&self, size: usize) -> Result<(), Refusal> {
        let kept: usize = self.portals.values().map(|one| one.size).sum();
        if kept + size > RESULT_LIMIT {
            let message = "the values and results of all portals are too large";
            return Err(refusal(b"54000", message));
        }
        Ok(())
    }

    fn describe(&self, describe: Describe<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let (understood, formats) = match describe.kind {
            Target::Statement => {
                let understood = &self.statement(describe.name)?.understood;
                let oids = understood.parameters().iter().copied();
                let list =
                    ListBuf::collect(oids).map_err(|_| refusal(b"54000", "too many parameters"))?;
                ParameterDescription {
                    parameter_types: list.as_list(),
                }
                .encode(out);
                (understood, &[][..])
            }
            Target::Portal => {
                let portal = self
                    .portals
                    .get(describe.name)
                    .ok_or_else(|| no_portal(describe.name))?;
                (&portal.statement.understood, portal.formats.as_slice())
            }
        };
        match understood.columns() {
            Some(columns) => put_columns(&columns, formats, out),
            None => NoData.encode(out),
        }
        Ok(())
    }

    async fn execute(&mut self, execute: Execute<'_>, out: &mut Vec<u8>) -> Flow {
        let limit = usize::try_from(execute.max_rows).unwrap_or(0);
        match self.portal(execute.portal, limit, out).await {
            Ok(None) => Flow::More,
            Ok(Some(stream)) => Flow::Stream(stream, Asker::Portal),
            Err(refused) => {
                self.fail(&refused, out);
                Flow::More
            }
        }
    }

    async fn portal(
        &mut self,
        name: &[u8],
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Stream>, Refusal> {
        // Taken out for its length: a statement may end all portals.
        let mut portal = self.portals.remove(name).ok_or_else(|| no_portal(name))?;
        let most = if limit == 0 { usize::MAX } else { limit };
        if portal.rest.is_none() {
            let statement = portal.statement.clone();
            if matches!(statement.understood, Understood::Empty) {
                EmptyQueryResponse.encode(out);
                self.portals.insert(name.to_vec(), portal);
                return Ok(None);
            }
            match self
                .run(&statement.sql, &statement.understood, &portal.values)
                .await?
            {
                Reply::Stream(stream) => return Ok(Some(stream)),
                Reply::Answer(mut answer) => {
                    // What goes out now is not kept.
                    let left = answer.rows.iter().skip(most);
                    self.keep(portal.size + left.map(|row| row_size(row)).sum::<usize>())?;
                    portal.size += answer.size();
                    let rows = std::mem::take(&mut answer.rows).into_iter();
                    portal.rest = Some((rows, answer));
                }
            }
        }
        let understood = portal.statement.understood.clone();
        if let Some((rows, answer)) = &mut portal.rest {
            let columns = understood.columns().unwrap_or_default();
            for row in rows.by_ref().take(most) {
                portal.size -= row_size(&row);
                put_row(&row, &columns, &portal.formats, out)?;
            }
            if rows.len() > 0 {
                PortalSuspended.encode(out);
            } else {
                let answer = answer.clone();
                self.complete(&understood, &answer, out);
            }
        }
        let ends = matches!(&understood, Understood::Session(one) if one.ends_transaction());
        if !ends {
            self.portals.insert(name.to_vec(), portal);
        }
        Ok(None)
    }

    /// Writes one line of a stream.
    pub(crate) fn line(line: &str, out: &mut Vec<u8>) {
        let values = ListBuf::collect([Some(line.as_bytes())]).unwrap_or_default();
        DataRow {
            columns: values.as_list(),
        }
        .encode(out);
    }

    /// Writes the end of a stream of so many lines.
    pub(crate) fn stream_ended(&mut self, lines: u64, asker: Asker, out: &mut Vec<u8>) {
        let tag = format!("TRACE {lines}");
        CommandComplete {
            tag: tag.as_bytes(),
        }
        .encode(out);
        if asker == Asker::Query {
            self.ready(out);
        }
    }
}

fn report(name: &str, value: &str, out: &mut Vec<u8>) {
    ParameterStatus {
        name: name.as_bytes(),
        value: value.as_bytes(),
    }
    .encode(out);
}

fn no_portal(name: &[u8]) -> Refusal {
    let name = String::from_utf8_lossy(name);
    refusal(b"34000", format!("portal \"{name}\" does not exist"))
}

fn text(sql: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(sql).map_err(|_| refusal(b"22021", "the statement is not UTF-8"))
}

/// Writes an error of the console's.
pub(crate) fn put_error(severity: Severity, refused: &Refusal, out: &mut Vec<u8>) {
    let message = format!("pgweir: {}", refused.message);
    let mut error = ErrorBuilder::new(severity, refused.sqlstate, &message);
    if let Some(detail) = &refused.detail {
        error = error.detail(detail);
    }
    if let Some(hint) = &refused.hint {
        error = error.hint(hint);
    }
    error.encode(out);
}

fn format(formats: &[i16], index: usize) -> i16 {
    match formats {
        [all] => *all,
        each => each.get(index).copied().unwrap_or(0),
    }
}

fn put_columns(columns: &[Column], formats: &[i16], out: &mut Vec<u8>) {
    let mut list = ListBuf::new();
    for (index, column) in columns.iter().enumerate() {
        // SQLite has a limit of columns far below that of a message.
        let _fits = list.push(backend::Column {
            name: column.name.as_bytes(),
            table: 0,
            attribute: 0,
            type_id: column.ty.oid(),
            type_size: column.ty.size(),
            type_modifier: -1,
            format: format(formats, index),
        });
    }
    RowDescription {
        columns: list.as_list(),
    }
    .encode(out);
}

fn put_row(
    row: &Row,
    columns: &[Column],
    formats: &[i16],
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let mut list = ListBuf::new();
    for (index, (cell, column)) in row.iter().zip(columns).enumerate() {
        let value = if format(formats, index) == 0 {
            types::encode_text(cell, column.ty)
        } else {
            types::encode_binary(cell, column.ty).map_err(|()| {
                let (name, ty) = (&column.name, column.ty.sql_name());
                Refusal {
                    hint: Some("Cast it to what it is.".to_owned()),
                    ..refusal(b"42804", format!("a value of \"{name}\" is no {ty}"))
                }
            })?
        };
        let _fits = list.push(value.as_deref());
    }
    DataRow {
        columns: list.as_list(),
    }
    .encode(out);
    Ok(())
}
