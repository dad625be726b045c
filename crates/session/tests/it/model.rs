//! A small PostgreSQL: statements, portals, transactions, errors that skip to Sync, COPY, settings. It has no data, so
//! what it replies depends on nothing but the bytes that it was sent.
//!
//! ## Limits
//! In one place it does as a session with shared servers does, where PostgreSQL differs without harm:
//! - Describe is refused there for all but what ends the transaction, not only for statements that return rows: the
//!   session may have to prepare the statement anew before.

use std::collections::{BTreeMap, BTreeSet};

use pgweir_wire::frontend::{Bind, Close, CopyFail, Describe, Execute, Parse, Query, Target, tag};
use pgweir_wire::{Frame, Header, TransactionStatus};

use crate::notation::{error, row, row_description, server_bytes, show_client, show_server};

/// One server.
#[derive(Default)]
pub(crate) struct Model {
    input: Vec<u8>,
    out: Vec<u8>,
    pub(crate) statements: BTreeMap<Vec<u8>, String>,
    pub(crate) unnamed: Option<String>,
    portals: BTreeMap<Vec<u8>, Portal>,
    pub(crate) status: TransactionStatus,
    is_skipping: bool,
    copying: Option<Copying>,
    /// Settings of the connection, and what they were when it began.
    pub(crate) settings: BTreeMap<String, String>,
    defaults: BTreeMap<String, String>,
    /// Settings whose change is still to be reported.
    changed: BTreeSet<String>,
    pub(crate) is_replica: bool,
}

#[derive(Clone)]
struct Portal {
    sql: String,
    value: String,
    /// Rows given out so far; `None` once a statement without rows has run.
    given: Option<usize>,
}

/// A COPY that reads, and what is left of the Query that it is in.
struct Copying {
    query: Option<Vec<String>>,
    lines: usize,
}

/// Why a statement stopped.
enum Stop {
    Error(&'static str, String),
    /// It reads COPY data now.
    Copying,
    Suspended,
}

/// What a statement returns.
struct Answer {
    rows: Vec<Vec<u8>>,
    /// An error behind the rows.
    fails: bool,
    has_columns: bool,
    tag: String,
}

const ABORTED: &str =
    "current transaction is aborted, commands ignored until end of transaction block";

impl Model {
    /// Makes a server whose sessions begin with these settings.
    pub(crate) fn new(settings: &[(&str, &str)]) -> Model {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let settings: BTreeMap<_, _> = settings.iter().map(owned).collect();
        Model {
            defaults: settings.clone(),
            settings,
            ..Model::default()
        }
    }

    /// Takes bytes; returns the replies.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        let is_traced = std::env::var_os("TRACE").is_some();
        let mut at = 0;
        while let Some(header) = Header::peek(&input[at..]).expect("a message") {
            let Some(bytes) = input.get(at..at + header.frame_len()) else {
                break;
            };
            let said = self.out.len();
            self.on_message(Frame {
                tag: header.tag,
                bytes,
            });
            if is_traced {
                let replies = show_server(&self.out[said..]);
                eprintln!("{self:p} gets {} and says {replies}", show_client(bytes));
            }
            at += bytes.len();
        }
        self.input = input[at..].to_vec();
        std::mem::take(&mut self.out)
    }

    /// Runs SQL as a simple query; it must succeed.
    pub(crate) fn run(&mut self, sql: &str) {
        let mut bytes = Vec::new();
        Query {
            sql: sql.as_bytes(),
        }
        .encode(&mut bytes);
        let reply = self.feed(&bytes);
        assert_ne!(reply.first(), Some(&b'E'), "{sql}");
    }

    fn says(&mut self, text: &str) {
        self.out.extend(server_bytes(text));
    }

    fn on_message(&mut self, frame: Frame<'_>) {
        let body = frame.body();
        if self.copying.is_some() {
            return self.on_copy_message(frame.tag, body);
        }
        if self.is_skipping && frame.tag != tag::SYNC {
            return;
        }
        match frame.tag {
            tag::QUERY => {
                self.unnamed = None;
                self.portals.remove(b"".as_slice());
                let sql = text(Query::decode(body).unwrap().sql);
                if sql.trim().is_empty() {
                    self.says("Empty");
                    return self.ready();
                }
                let rest = sql
                    .split(';')
                    .rev()
                    .map(str::trim)
                    .filter(|s| !s.is_empty())
                    .map(str::to_owned);
                self.go_on_with_query(rest.collect());
            }
            tag::PARSE => self.extended(|model| model.parse(&Parse::decode(body).unwrap())),
            tag::BIND => self.extended(|model| model.bind(&Bind::decode(body).unwrap())),
            tag::DESCRIBE => {
                self.extended(|model| model.describe(&Describe::decode(body).unwrap()))
            }
            tag::EXECUTE => self.extended(|model| model.execute(&Execute::decode(body).unwrap())),
            tag::CLOSE => {
                let close = Close::decode(body).unwrap();
                match close.kind {
                    Target::Statement if close.name.is_empty() => self.unnamed = None,
                    Target::Statement => drop(self.statements.remove(close.name)),
                    Target::Portal => drop(self.portals.remove(close.name)),
                }
                self.says("CloseComplete");
            }
            tag::SYNC => {
                self.is_skipping = false;
                self.ready();
            }
            tag::FUNCTION_CALL => {
                match self.status {
                    TransactionStatus::Failed => self.fail("25P02", ABORTED),
                    TransactionStatus::Idle | TransactionStatus::InTransaction => {
                        self.says("Result(42)")
                    }
                }
                self.ready();
            }
            tag::FLUSH | tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL => {}
            other => panic!("a server got a message of type {other}"),
        }
    }

    fn extended(&mut self, act: impl FnOnce(&mut Model) -> Result<(), Stop>) {
        match act(self) {
            Ok(()) => {}
            Err(Stop::Error(code, message)) => {
                self.fail(code, &message);
                self.is_skipping = true;
            }
            Err(Stop::Copying) => {
                self.copying = Some(Copying {
                    query: None,
                    lines: 0,
                })
            }
            Err(Stop::Suspended) => self.says("Suspended"),
        }
    }

    fn fail(&mut self, code: &str, message: &str) {
        self.out.extend(error(code, message));
        match self.status {
            TransactionStatus::Idle => self.portals.clear(),
            TransactionStatus::InTransaction => self.status = TransactionStatus::Failed,
            TransactionStatus::Failed => {}
        }
    }

    fn ready(&mut self) {
        for name in std::mem::take(&mut self.changed) {
            let value = self.settings.get(&name).cloned().unwrap_or_default();
            self.says(&format!("Status({name}={value})"));
        }
        if self.status == TransactionStatus::Idle {
            self.portals.clear();
        }
        self.says(&format!("Ready({})", char::from(self.status.as_byte())));
    }

    fn refuse_if_failed(&self, sql: &str) -> Result<(), Stop> {
        match self.status {
            TransactionStatus::Failed
                if !matches!(sql, "" | "commit" | "rollback" | "ROLLBACK") =>
            {
                Err(Stop::Error("25P02", ABORTED.to_owned()))
            }
            TransactionStatus::Idle
            | TransactionStatus::InTransaction
            | TransactionStatus::Failed => Ok(()),
        }
    }

    fn parse(&mut self, parse: &Parse<'_>) -> Result<(), Stop> {
        let sql = text(parse.sql);
        if parse.name.is_empty() {
            self.unnamed = None;
        }
        check_syntax(&sql)?;
        self.refuse_if_failed(&sql)?;
        if self.statements.contains_key(parse.name) {
            let message = format!("prepared statement \"{}\" already exists", text(parse.name));
            return Err(Stop::Error("42P05", message));
        }
        if parse.name.is_empty() {
            self.unnamed = Some(sql);
        } else {
            self.statements.insert(parse.name.to_vec(), sql);
        }
        self.says("ParseComplete");
        Ok(())
    }

    fn statement(&self, name: &[u8]) -> Result<String, Stop> {
        let found = if name.is_empty() {
            self.unnamed.clone()
        } else {
            self.statements.get(name).cloned()
        };
        found.ok_or_else(|| {
            let message = match name {
                b"" => "unnamed prepared statement does not exist".to_owned(),
                name => format!("prepared statement \"{}\" does not exist", text(name)),
            };
            Stop::Error("26000", message)
        })
    }

    fn bind(&mut self, bind: &Bind<'_>) -> Result<(), Stop> {
        let sql = self.statement(bind.statement)?;
        self.refuse_if_failed(&sql)?;
        if !bind.portal.is_empty() && self.portals.contains_key(bind.portal) {
            return Err(Stop::Error(
                "42P03",
                format!("cursor \"{}\" already exists", text(bind.portal)),
            ));
        }
        let value = text(bind.parameters.iter().next().flatten().unwrap_or_default());
        self.portals.insert(
            bind.portal.to_vec(),
            Portal {
                sql,
                value,
                given: Some(0),
            },
        );
        self.says("BindComplete");
        Ok(())
    }

    fn describe(&mut self, describe: &Describe<'_>) -> Result<(), Stop> {
        let sql = match describe.kind {
            Target::Statement => self.statement(describe.name)?,
            Target::Portal => self.portal(describe.name)?.sql,
        };
        self.refuse_if_failed(&sql)?;
        if describe.kind == Target::Statement {
            self.says("ParameterDescription");
        }
        self.columns(&sql);
        Ok(())
    }

    fn columns(&mut self, sql: &str) {
        if sql == "select wide" {
            row_description(&["a column of a wide table"; 300], &mut self.out);
        } else if answer(sql, "", &self.settings).has_columns {
            self.says("RowDescription(c)");
        } else {
            self.says("NoData");
        }
    }

    fn portal(&self, name: &[u8]) -> Result<Portal, Stop> {
        let missing = || Stop::Error("34000", format!("portal \"{}\" does not exist", text(name)));
        self.portals.get(name).cloned().ok_or_else(missing)
    }

    fn execute(&mut self, execute: &Execute<'_>) -> Result<(), Stop> {
        let portal = self.portal(execute.portal)?;
        if portal.sql.trim().is_empty() {
            self.says("Empty");
            return Ok(());
        }
        self.refuse_if_failed(&portal.sql)?;
        let Some(given) = portal.given else {
            return Err(Stop::Error(
                "55000",
                format!("portal \"{}\" cannot be run", text(execute.portal)),
            ));
        };
        let limit = usize::try_from(execute.max_rows)
            .ok()
            .filter(|limit| *limit > 0);
        let end = self.run_one(&portal.sql, &portal.value, given, limit);
        let has_columns = answer(&portal.sql, "", &self.settings).has_columns;
        if let Some(portal) = self.portals.get_mut(execute.portal) {
            portal.given =
                has_columns.then_some(given.saturating_add(limit.unwrap_or(usize::MAX / 2)));
        }
        end
    }

    fn go_on_with_query(&mut self, mut rest: Vec<String>) {
        while let Some(sql) = rest.pop() {
            let checked = check_syntax(&sql).and_then(|()| self.refuse_if_failed(&sql));
            let is_described = checked.is_ok() && answer(&sql, "", &self.settings).has_columns;
            if is_described {
                self.columns(&sql);
            }
            match checked.and_then(|()| self.run_one(&sql, "", 0, None)) {
                Ok(()) => {}
                Err(Stop::Copying) => {
                    self.copying = Some(Copying {
                        query: Some(rest),
                        lines: 0,
                    });
                    return;
                }
                Err(Stop::Error(code, message)) => {
                    self.fail(code, &message);
                    break;
                }
                Err(Stop::Suspended) => panic!("a Query, which has no row limit, met one: {sql}"),
            }
        }
        self.ready();
    }

    /// Runs a statement from its row `from` on.
    fn run_one(
        &mut self,
        sql: &str,
        value: &str,
        from: usize,
        limit: Option<usize>,
    ) -> Result<(), Stop> {
        if self.is_replica && sql == "select volatile" {
            return Err(Stop::Error(
                "25006",
                "cannot execute it in a read-only transaction".to_owned(),
            ));
        }
        match sql {
            "discard all" if self.status != TransactionStatus::Idle => {
                let message = "DISCARD ALL cannot run inside a transaction block".to_owned();
                return Err(Stop::Error("25001", message));
            }
            "copy t from stdin" => {
                self.says("CopyIn");
                return Err(Stop::Copying);
            }
            "copy missing from stdin" => {
                return Err(Stop::Error(
                    "42P01",
                    "relation \"missing\" does not exist".to_owned(),
                ));
            }
            "copy t to stdout" => self.says("CopyOut | CopyData(1) | CopyData(2) | CopyDone"),
            "select raise" => self.says("Notice(raised)"),
            _ => self.change_state(sql),
        }
        let answer = answer(sql, value, &self.settings);
        let rows = answer
            .rows
            .get(from.min(answer.rows.len())..)
            .unwrap_or_default();
        let now = limit.map_or(rows.len(), |limit| limit.min(rows.len()));
        for value in &rows[..now] {
            row(value, &mut self.out);
        }
        // PostgreSQL says so as soon as it has given as many rows as allowed, even if there are no more.
        if limit == Some(now) {
            return Err(Stop::Suspended);
        }
        if answer.fails {
            return Err(Stop::Error("22012", "division by zero".to_owned()));
        }
        let tag = if answer.tag == "SELECT" {
            format!("SELECT {now}")
        } else {
            answer.tag
        };
        self.says(&format!("Complete({tag})"));
        Ok(())
    }

    fn change_state(&mut self, sql: &str) {
        use TransactionStatus::{Failed, Idle, InTransaction};
        match (sql, self.status) {
            ("begin", Idle) => self.status = InTransaction,
            ("begin", InTransaction | Failed) => {
                self.says("Notice(there is already a transaction in progress)")
            }
            ("commit" | "rollback" | "ROLLBACK", Idle) => {
                self.says("Notice(there is no transaction in progress)")
            }
            ("commit" | "rollback" | "ROLLBACK", InTransaction | Failed) => {
                self.status = Idle;
                self.portals.clear();
            }
            ("deallocate all" | "DEALLOCATE ALL", _) => {
                self.statements.clear();
                self.unnamed = None;
            }
            ("discard all" | "DISCARD ALL", _) => {
                self.statements.clear();
                self.unnamed = None;
                self.portals.clear();
                self.reset_all();
            }
            ("RESET ALL", _) => self.reset_all(),
            ("PREPARE pgweir_guard AS SELECT 1", _) => {
                self.statements
                    .insert(b"pgweir_guard".to_vec(), "select 1".to_owned());
            }
            _ => self.change_settings(sql),
        }
    }

    fn reset_all(&mut self) {
        let before = std::mem::replace(&mut self.settings, self.defaults.clone());
        let names = before.keys().chain(self.defaults.keys());
        let changed = names
            .filter(|name| before.get(*name) != self.defaults.get(*name))
            .cloned();
        self.changed.extend(changed.collect::<Vec<_>>());
    }

    /// `RESET name`, and `SELECT pg_catalog.set_config('name',E'value',false),…`.
    fn change_settings(&mut self, sql: &str) {
        if let Some(name) = sql.strip_prefix("RESET ") {
            let name = name.trim_end_matches(';').trim_matches('"');
            match self.defaults.get(name) {
                Some(value) => drop(self.settings.insert(name.to_owned(), value.clone())),
                None => drop(self.settings.remove(name)),
            }
            self.changed.insert(name.to_owned());
        }
        for call in sql.split("pg_catalog.set_config('").skip(1) {
            let (name, rest) = call.split_once("',E'").unwrap();
            let (value, _) = rest.split_once("',false)").unwrap();
            self.settings.insert(name.to_owned(), value.to_owned());
            self.changed.insert(name.to_owned());
        }
    }

    fn on_copy_message(&mut self, tag: u8, body: &[u8]) {
        let Some(copying) = &mut self.copying else {
            return;
        };
        match tag {
            tag::COPY_DATA if body.starts_with(b"bad") => {
                self.end_copy(Some(("22P04", "bad COPY line".to_owned())))
            }
            tag::COPY_DATA => copying.lines += 1,
            tag::COPY_DONE => self.end_copy(None),
            tag::COPY_FAIL => {
                let message = text(CopyFail::decode(body).unwrap().message);
                self.end_copy(Some((
                    "57014",
                    format!("COPY from stdin failed: {message}"),
                )));
            }
            tag::SYNC | tag::FLUSH => {}
            // PostgreSQL names the type; that of a message which the session replaced by another is not the client's.
            _ => self.end_copy(Some((
                "08P01",
                "unexpected message type during COPY from stdin".to_owned(),
            ))),
        }
    }

    fn end_copy(&mut self, error: Option<(&'static str, String)>) {
        let Some(copying) = self.copying.take() else {
            return;
        };
        match (error, copying.query) {
            (None, rest) => {
                self.says(&format!("Complete(COPY {})", copying.lines));
                if let Some(rest) = rest {
                    self.go_on_with_query(rest);
                }
            }
            (Some((code, message)), Some(_)) => {
                self.fail(code, &message);
                self.ready();
            }
            (Some((code, message)), None) => {
                self.fail(code, &message);
                self.is_skipping = true;
            }
        }
    }
}

fn check_syntax(sql: &str) -> Result<(), Stop> {
    if sql.starts_with("selec ") {
        return Err(Stop::Error(
            "42601",
            "syntax error at or near \"selec\"".to_owned(),
        ));
    }
    Ok(())
}

/// Returns what a text returns, `value` being its parameter.
fn answer(sql: &str, value: &str, settings: &BTreeMap<String, String>) -> Answer {
    let mut words = sql.split(' ');
    let (verb, what) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let mut fails = false;
    let rows = match (verb, what) {
        ("select", "rows") => (0..count_of(sql))
            .map(|number| format!("{sql}: {number}").into_bytes())
            .collect(),
        ("select", "fail") => {
            fails = true;
            vec![b"the last row".to_vec(); count_of(sql)]
        }
        ("select", "big") => vec![vec![b'x'; count_of(sql)]; 2],
        ("select", _) => vec![format!("{sql} {value}").into_bytes()],
        ("show", name) => vec![settings.get(name).cloned().unwrap_or_default().into_bytes()],
        _ => Vec::new(),
    };
    let tag = match verb {
        "insert" => "INSERT 0 1".to_owned(),
        "select" => "SELECT".to_owned(),
        "copy" => "COPY 2".to_owned(),
        "deallocate" | "discard" => sql.to_uppercase(),
        verb => verb.to_uppercase(),
    };
    Answer {
        rows,
        fails,
        has_columns: matches!(verb, "select" | "show"),
        tag,
    }
}

fn count_of(sql: &str) -> usize {
    sql.split(' ')
        .nth(2)
        .and_then(|word| word.parse().ok())
        .unwrap_or(0)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_server_skips_to_sync_after_an_error() {
    let mut model = Model::new(&[]);
    let sent = crate::notation::client_bytes(
        "Parse(,select rows 2) | Bind(,) | Execute(,1) | Bind(,nope) | Execute | Query(select x) | Sync | Query(select x)",
    );
    assert_eq!(
        show_server(&model.feed(&sent)),
        "ParseComplete | BindComplete | Row(select rows 2: 0) | Suspended | \
         Error(26000 prepared statement \"nope\" does not exist) | Ready(I) | \
         RowDescription(c) | Row(select x ) | Complete(SELECT 1) | Ready(I)"
    );
}
