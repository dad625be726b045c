//! The clients: sessions over tokio-postgres that write and read, alone and in transactions, and write down what they saw.
//!
//! A client that has lost its connection connects anew, and is another session then.

use std::{collections::BTreeMap, time::Duration};

use pgweir_testkit::{
    Rng,
    history::{Action, Object, Operation, Outcome, Value},
};
use tokio_postgres::{
    Client, Error, NoTls, SimpleQueryMessage, Statement, error::Severity, types::ToSql,
};

use super::{
    run::Run,
    stage::{REGISTERS, numbers},
    tally::{CLOSED, Doing},
};
use crate::support::{DATABASE, PASSWORD, USER};

/// By when an operation has ended one way or another: longer than any fault, and the proxy's own waits behind it.
const DEADLINE: Duration = Duration::from_secs(45);

/// Lists in use at one time, and appends to all of them until others take their place: a read returns the whole list.
const LISTS: u32 = 4;
const APPENDS: u32 = 200;

/// Between two operations of a client, in milliseconds at most: sessions that think let lag and faults show, and the machine live.
const THINKING_MS: usize = 12;

/// SQLSTATEs with which a write has certainly not happened: it was refused before it began.
const REFUSED: [&str; 4] = ["57P03", "25006", "53300", "53400"];

/// How a session sends its statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flavour {
    Simple,
    /// Parsed each time.
    Extended,
    /// Prepared once.
    Prepared,
}

/// What can be said about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verb {
    Append,
    List,
    Write,
    Register,
}

impl Verb {
    /// Returns the statement; its last column is the port of the server that answers ([`Stage::new`](super::stage::Stage::new)
    /// makes the function).
    fn sql(self) -> &'static str {
        match self {
            Verb::Append => {
                "INSERT INTO lists (key, elements) VALUES ($1, ARRAY[$2::int]) ON CONFLICT (key) \
                 DO UPDATE SET elements = lists.elements || excluded.elements RETURNING place('port') || ' ' || standby()"
            }
            Verb::List => {
                "SELECT (SELECT elements::text FROM lists WHERE key = $1), place('port') || ' ' || standby()"
            }
            Verb::Write => {
                "UPDATE registers SET version = version + 1, value = $2 WHERE key = $1 \
                 RETURNING version::text, place('port') || ' ' || standby()"
            }
            Verb::Register => {
                "SELECT version::text, value::text, place('port') || ' ' || standby() FROM registers WHERE key = $1"
            }
        }
    }
}

/// What stands in the way of a session.
struct Trouble {
    sqlstate: String,
    /// The connection is gone.
    is_lost: bool,
}

/// What came of a statement: its columns, empty where they are NULL.
type Answer = Result<Vec<String>, Trouble>;

/// A statement of a transaction.
#[derive(Debug, Clone, Copy)]
enum Step {
    Read(Object),
    Write(Object),
}

/// What a statement is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Nothing,
    Transaction,
}

/// How a transaction is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Commit,
    Rollback,
}

/// Lets one client live for each generator until the run is over.
pub(super) fn live(run: &Run, rngs: Vec<Rng>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let lives = (1..).zip(rngs).map(|(name, rng)| one_life(run, name, rng));
    runtime.block_on(futures_util::future::join_all(lives));
}

async fn one_life(run: &Run, name: u32, mut rng: Rng) {
    // The millions say who wrote a value.
    let mut next = name * 1_000_000;
    while !run.is_over() {
        let flavours = [Flavour::Simple, Flavour::Extended, Flavour::Prepared];
        let flavour = *rng.pick(&flavours).expect("three");
        if let Some(mut session) = Session::open(run, flavour).await {
            while !run.is_over() && !session.is_lost {
                session.act(&mut rng, &mut next).await;
                think(&mut rng).await;
            }
        }
        think(&mut rng).await;
    }
}

/// A client's own pause between two operations, as applications have them: nothing is waited for.
async fn think(rng: &mut Rng) {
    let ms = u64::try_from(rng.below(THINKING_MS)).unwrap_or(0);
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

struct Session<'a> {
    run: &'a Run,
    name: u32,
    client: Client,
    flavour: Flavour,
    prepared: BTreeMap<Verb, Statement>,
    is_lost: bool,
}

impl<'a> Session<'a> {
    async fn open(run: &'a Run, flavour: Flavour) -> Option<Self> {
        let url = format!(
            "postgresql://{USER}:{PASSWORD}@{}/{DATABASE}",
            run.stage.proxy.addr()
        );
        let asking = format!("SET pgweir.consistency = '{}'", run.level());
        let connecting = async {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
            drop(tokio::spawn(connection));
            client.batch_execute(&asking).await?;
            Ok(client)
        };
        let client = within(run, Doing::Connect, "a connection", connecting).await;
        Some(Self {
            run,
            name: run.next_session(),
            client: client.ok()?,
            flavour,
            prepared: BTreeMap::new(),
            is_lost: false,
        })
    }

    /// Does one thing or transaction.
    async fn act(&mut self, rng: &mut Rng, next: &mut Value) {
        let object = self.object(rng);
        match rng.below(20) {
            0..=6 => self.alone(Step::Read(object), next).await,
            7..=10 => self.alone(Step::Write(object), next).await,
            11..=13 => {
                self.alone(Step::Write(object), next).await;
                self.alone(Step::Read(object), next).await;
            }
            14 | 15 => {
                let steps = [Step::Read(object), Step::Write(object), Step::Read(object)];
                let steps = steps.get(..2 + rng.below(2)).unwrap_or_default();
                self.transaction("BEGIN", steps, End::Commit, next).await;
            }
            16 => {
                // In one order for all, or they would wait for each other.
                let (first, second) = (object, self.object(rng));
                let steps = [first.min(second), first.max(second)].map(Step::Write);
                let end = if rng.chance(1, 2) {
                    End::Commit
                } else {
                    End::Rollback
                };
                self.transaction("BEGIN", &steps, end, next).await;
            }
            _ => {
                let begins = [
                    "BEGIN READ ONLY",
                    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
                    "BEGIN",
                ];
                let steps = [Step::Read(object), Step::Read(self.object(rng))];
                let begin = rng.pick(&begins).expect("three");
                self.transaction(begin, &steps, End::Commit, next).await;
            }
        }
    }

    fn object(&self, rng: &mut Rng) -> Object {
        let below = |rng: &mut Rng, limit: u32| {
            u32::try_from(rng.below(usize::try_from(limit).unwrap_or(0))).unwrap_or(0)
        };
        if rng.chance(1, 4) {
            return Object::Register(below(rng, REGISTERS));
        }
        let appends = self.run.appends.load(std::sync::atomic::Ordering::Relaxed);
        Object::List(appends / APPENDS * LISTS + below(rng, LISTS))
    }

    /// A statement that is a transaction of its own.
    async fn alone(&mut self, step: Step, next: &mut Value) {
        if self.is_lost {
            return;
        }
        let (mut operation, trouble) = self.step(step, Within::Nothing, next).await;
        if let Some(trouble) = trouble {
            self.is_lost |= trouble.is_lost;
            if matches!(step, Step::Read(_)) {
                return;
            }
            operation.outcome = match REFUSED.contains(&trouble.sqlstate.as_str()) {
                true => Outcome::Failed,
                false => Outcome::Unknown,
            };
        }
        self.run.record(operation);
    }

    async fn transaction(&mut self, begin: &str, steps: &[Step], end: End, next: &mut Value) {
        let mut done: Vec<Operation> = Vec::new();
        let mut trouble = self.control(begin, Doing::Begin).await.err();
        for step in steps {
            if trouble.is_some() {
                break;
            }
            let (operation, failed) = self.step(*step, Within::Transaction, next).await;
            let is_told = failed.is_none() || operation.action.written().is_some();
            done.extend(Some(operation).filter(|_| is_told));
            trouble = failed;
        }
        // Without COMMIT there is no commit, whatever goes wrong.
        let outcome = match (trouble, end) {
            (None, End::Commit) => match self.end("COMMIT", Doing::Commit).await {
                true => Outcome::Ok,
                false => Outcome::Unknown,
            },
            (trouble, _) => {
                self.is_lost |= trouble.is_some_and(|trouble| trouble.is_lost);
                Outcome::Failed
            }
        };
        if outcome != Outcome::Ok && !self.is_lost && !self.end("ROLLBACK", Doing::Rollback).await {
            self.is_lost = true;
        }
        self.record_transaction(done, outcome);
    }

    /// Ends a transaction; returns whether that went well.
    async fn end(&mut self, how: &str, doing: Doing) -> bool {
        let trouble = self.control(how, doing).await.err();
        self.is_lost |= trouble.as_ref().is_some_and(|trouble| trouble.is_lost);
        trouble.is_none()
    }

    /// Writes count from their commit. A read behind a write that was not committed saw what never was.
    fn record_transaction(&self, done: Vec<Operation>, outcome: Outcome) {
        let ended_at = self.run.now();
        let mut began_at = None;
        let mut has_written = false;
        for mut operation in done {
            if operation.action.written().is_some() {
                has_written = true;
                operation.completed_at = ended_at;
                operation.outcome = outcome;
            } else if has_written && outcome != Outcome::Ok {
                continue;
            } else {
                // What a later read must show is what the first one had to: they may share a snapshot, and share a server.
                operation.invoked_at = *began_at.get_or_insert(operation.invoked_at);
            }
            self.run.record(operation);
        }
    }

    /// Reads or writes, and says what came of it, as if all had gone well.
    async fn step(
        &mut self,
        step: Step,
        within: Within,
        next: &mut Value,
    ) -> (Operation, Option<Trouble>) {
        let invoked_at = self.run.now();
        let (action, place, trouble) = match step {
            Step::Read(object) => self.read(object, within).await,
            Step::Write(object) => {
                *next += 1;
                self.write(object, *next, within).await
            }
        };
        let (place, is_on_primary) = self.run.stage.place(&place);
        let operation = Operation {
            session: self.name,
            invoked_at,
            completed_at: self.run.now(),
            outcome: Outcome::Ok,
            action,
            place,
            is_on_primary,
        };
        (operation, trouble)
    }

    async fn read(&mut self, object: Object, within: Within) -> (Action, String, Option<Trouble>) {
        let (key, verb) = match object {
            Object::List(key) => (key, Verb::List),
            Object::Register(key) => (key, Verb::Register),
        };
        let (columns, trouble) = parts(self.ask(verb, key, None, within).await);
        let mut columns = columns.into_iter();
        let mut column = || columns.next().unwrap_or_default();
        let action = match object {
            Object::List(key) => Action::List {
                key,
                values: numbers(&column()),
            },
            Object::Register(key) => Action::Register {
                key,
                version: column().parse().unwrap_or(0),
                value: column().parse().unwrap_or(0),
            },
        };
        (action, column(), trouble)
    }

    async fn write(
        &mut self,
        object: Object,
        value: Value,
        within: Within,
    ) -> (Action, String, Option<Trouble>) {
        let (key, verb) = match object {
            Object::List(key) => (key, Verb::Append),
            Object::Register(key) => (key, Verb::Write),
        };
        if verb == Verb::Append {
            let appends = &self.run.appends;
            appends.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        let (columns, trouble) = parts(self.ask(verb, key, Some(value), within).await);
        let mut columns = columns.into_iter();
        let action = match object {
            Object::List(key) => Action::Append { key, value },
            Object::Register(key) => Action::Write {
                key,
                value,
                version: columns.next().and_then(|version| version.parse().ok()),
            },
        };
        (action, columns.next().unwrap_or_default(), trouble)
    }

    async fn control(&mut self, sql: &str, doing: Doing) -> Result<(), Trouble> {
        let client = &self.client;
        let flavour = self.flavour;
        let running = async {
            match flavour {
                Flavour::Simple => client.batch_execute(sql).await,
                Flavour::Extended | Flavour::Prepared => client.execute(sql, &[]).await.map(drop),
            }
        };
        let what = format!("{sql}, {flavour:?}");
        within(self.run, doing, &what, running).await
    }

    async fn ask(&mut self, verb: Verb, key: u32, value: Option<Value>, scope: Within) -> Answer {
        let doing = match (value, scope) {
            (Some(_), Within::Nothing) => Doing::Write,
            (Some(_), Within::Transaction) => Doing::WriteInTransaction,
            (None, Within::Nothing) => Doing::Read,
            (None, Within::Transaction) => Doing::ReadInTransaction,
        };
        let numbers: Vec<i32> = std::iter::once(key)
            .chain(value)
            .map(|number| i32::try_from(number).expect("small numbers"))
            .collect();
        let what = format!("{verb:?} {numbers:?}, {:?}", self.flavour);
        let (run, client, flavour) = (self.run, &self.client, self.flavour);
        let prepared = &mut self.prepared;
        let asking = async {
            let statement = match flavour {
                Flavour::Simple => return simple(client, verb, &numbers).await,
                Flavour::Extended => client.prepare(verb.sql()).await?,
                Flavour::Prepared => match prepared.get(&verb) {
                    Some(statement) => statement.clone(),
                    None => {
                        let statement = client.prepare(verb.sql()).await?;
                        prepared.entry(verb).or_insert(statement).clone()
                    }
                },
            };
            extended(client, &statement, &numbers).await
        };
        within(run, doing, &what, asking).await
    }
}

fn parts(answer: Answer) -> (Vec<String>, Option<Trouble>) {
    match answer {
        Ok(columns) => (columns, None),
        Err(trouble) => (Vec::new(), Some(trouble)),
    }
}

async fn simple(client: &Client, verb: Verb, numbers: &[i32]) -> Result<Vec<String>, Error> {
    let mut sql = verb.sql().to_owned();
    for (parameter, number) in ["$1", "$2"].iter().zip(numbers) {
        sql = sql.replace(parameter, &number.to_string());
    }
    let messages = client.simple_query(&sql).await?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let columns = |row: &tokio_postgres::SimpleQueryRow| {
        (0..row.len())
            .map(|column| row.get(column).unwrap_or_default().to_owned())
            .collect()
    };
    Ok(row.map(columns).unwrap_or_default())
}

async fn extended(
    client: &Client,
    statement: &Statement,
    numbers: &[i32],
) -> Result<Vec<String>, Error> {
    let parameters: Vec<&(dyn ToSql + Sync)> = numbers
        .iter()
        .map(|number| number as &(dyn ToSql + Sync))
        .collect();
    let row = client.query_one(statement, &parameters).await?;
    (0..row.len())
        .map(|column| {
            Ok(row
                .try_get::<_, Option<String>>(column)?
                .unwrap_or_default())
        })
        .collect()
}

/// Waits for an end, counts an error, and notes what has no end.
async fn within<T>(
    run: &Run,
    doing: Doing,
    what: &str,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Trouble> {
    let Ok(answer) = tokio::time::timeout(DEADLINE, answer).await else {
        run.hangs(format!("no end of {what} within {DEADLINE:?}"));
        return Err(Trouble {
            sqlstate: CLOSED.to_owned(),
            is_lost: true,
        });
    };
    answer.map_err(|error| {
        let told = error.as_db_error();
        let is_fatal = told.is_none_or(|told| {
            matches!(
                told.parsed_severity(),
                None | Some(Severity::Fatal | Severity::Panic)
            )
        });
        let sqlstate = told.map_or(CLOSED, |told| told.code().code());
        let text = told.map_or_else(|| error.to_string(), |told| told.message().to_owned());
        let first = format!("{text}; at {:.3?}: {what}", run.now());
        run.count_error(doing, sqlstate, &first);
        Trouble {
            sqlstate: sqlstate.to_owned(),
            is_lost: is_fatal,
        }
    })
}
