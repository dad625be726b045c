//! What a session has left on its server connection: asked of the server itself, when its words do not tell.
//!
//! A function may set a parameter, take a lock or create a temporary table out of sight, and an UNLOCK, DROP or CLOSE may or
//! may not remove the last thing that keeps a session where it is. One row of the server's own views tells both. It is asked
//! after the client has its answer, in the same transaction status that the next session would find: idle.
//!
//! See <https://www.postgresql.org/docs/current/view-pg-settings.html>,
//! <https://www.postgresql.org/docs/current/view-pg-locks.html>.

use std::task::Poll;

use pgweir_config::PoolMode;
use pgweir_model::PinReason;
use pgweir_session::Probe;
use pgweir_session::parameters::Value;
use pgweir_session::server::Ledger;
use pgweir_sql::PinSet;
use pgweir_sql::hidden::ADOPTED;
use pgweir_wire::backend::DataRow;

use crate::client_task::{Client, RESET_LIMIT, Stage};

/// The question. Counts in the order of [`COUNTED`], then who the session is, then the parameters that it has set.
///
/// Names are qualified, operators too: the session's search_path may hold others of the same name.
const QUESTION: &[u8] = b"SELECT \
    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_listening_channels()),\
    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks \
        WHERE locktype OPERATOR(pg_catalog.=) 'advisory' AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()),\
    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_cursors WHERE is_holdable),\
    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class \
        WHERE relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()),\
    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_statements WHERE from_sql),\
    pg_catalog.current_setting('role'),\
    session_user,\
    (SELECT pg_catalog.string_agg(name OPERATOR(pg_catalog.||) E'\\x01' OPERATOR(pg_catalog.||) setting, E'\\x02') \
        FROM pg_catalog.pg_settings WHERE source OPERATOR(pg_catalog.=) 'session' \
            AND name OPERATOR(pg_catalog.!~~) 'transaction%')";

/// What the counts stand for.
const COUNTED: [PinReason; 5] = [
    PinReason::Listen,
    PinReason::AdvisoryLock,
    PinReason::HoldCursor,
    PinReason::TempTable,
    PinReason::SqlPrepare,
];

/// The server's answer.
struct Findings {
    /// Of what [`COUNTED`] lists, what is there.
    left: PinSet,
    role: String,
    session_user: String,
    /// Name and value.
    settings: Vec<(String, String)>,
}

impl Client {
    /// Asks the server what the session has left, if that is not known. Returns whether the connection must be kept until
    /// the answer is in.
    pub(crate) fn asks_before_release(&mut self) -> bool {
        if self.identity.pool_mode == PoolMode::Session || self.replay.due.is_some() {
            return false;
        }
        let Some(held) = &mut self.held else {
            return false;
        };
        let server = &mut held.lease.state;
        let is_asked = if held.pins.is_empty() {
            // Whatever the answer, the connection is reset before another session gets it: not everything shows.
            server.session.ledger == Ledger::Suspect
                && held.role == pgweir_model::Role::Primary
                && !held.traces.asked
        } else {
            held.traces.may_unpin
        };
        if !is_asked {
            return false;
        }
        held.traces.may_unpin = false;
        held.traces.asked = true;
        held.stage = Stage::Asking;
        let worker = std::rc::Rc::clone(&self.counted.worker);
        let mut gather = worker.gather.borrow_mut();
        gather.clear();
        self.session
            .probe(QUESTION, &mut server.session, &mut gather);
        gather
            .slices(&[])
            .for_each(|bytes| server.outgoing.push(bytes));
        true
    }

    /// Waits for the answer, for a client that is gone already: the connection is worth keeping.
    pub(crate) async fn await_answer(&mut self) {
        let is_asking = |client: &Client| {
            let held = client.held.as_ref();
            held.is_some_and(|held| held.stage == Stage::Asking)
        };
        if !is_asking(self) {
            return;
        }
        let answer = std::future::poll_fn(|cx| {
            while is_asking(self) {
                match self.step_server(cx) {
                    Ok(true) => {}
                    Ok(false) => return Poll::Pending,
                    Err(_) => break,
                }
            }
            Poll::Ready(())
        });
        // A connection whose answer does not come is closed.
        let _in_time = tokio::time::timeout(RESET_LIMIT, answer).await;
    }

    /// Takes the answer into account.
    pub(crate) fn take_answer(&mut self) {
        let answer = self.session.take_probe();
        let Some(held) = &mut self.held else { return };
        held.stage = Stage::Used;
        let findings = match &answer {
            Probe::Asked(row) => read(row),
            Probe::None | Probe::Failed => None,
        };
        let Some(findings) = findings else {
            // What is not known to be gone is taken to be there.
            if held.pins.is_empty() {
                held.pins.insert(PinReason::Setting);
            }
            held.lease.state.session.mark_pin(PinReason::Setting);
            return;
        };
        let state = &mut self.session.state;
        let has_discarded = state.take_discarded();
        let mut left = findings.left;
        for pin in held.pins.iter() {
            let stays = match pin {
                PinReason::Sequence => !has_discarded,
                // One that no view shows is among them perhaps.
                PinReason::Setting => !has_discarded,
                PinReason::Load | PinReason::SetSeed | PinReason::Unread => true,
                PinReason::TempTable
                | PinReason::Listen
                | PinReason::HoldCursor
                | PinReason::AdvisoryLock
                | PinReason::SqlPrepare => false,
            };
            if stays {
                left.insert(pin);
            }
        }
        let mut is_news = false;
        for (name, value) in &findings.settings {
            let is_made = state.adopt(name, value, ADOPTED.contains(&&**name));
            if !is_made {
                tracing::debug!(name, value, "a parameter was set out of sight");
            }
            is_news |= !is_made;
        }
        let expected = |name: &str, default: &str| match state.wanted().get(name) {
            None => Some(default.to_owned()),
            Some(Value::Text(text)) => Some(text.to_string()),
            Some(Value::Statement { words, .. }) => match words.as_deref() {
                Some([word]) => Some(word.clone()),
                _ => None,
            },
        };
        let is_role = expected("role", "none").is_none_or(|role| role == findings.role);
        let is_user = expected("session_authorization", &self.identity.server_user)
            .is_none_or(|user| user == findings.session_user);
        if is_news || !is_role || !is_user {
            left.insert(PinReason::Setting);
        }
        let session = &mut held.lease.state.session;
        session.parameters = std::sync::Arc::clone(state.carried());
        for pin in left.iter() {
            session.mark_pin(pin);
        }
        held.pins = left;
        self.session.set_owns_server(!left.is_empty());
    }
}

fn read(row: &[u8]) -> Option<Findings> {
    let row = DataRow::decode(row).ok()?;
    let mut values = row
        .columns
        .iter()
        .map(|value| String::from_utf8_lossy(value.unwrap_or_default()).into_owned());
    let mut left = PinSet::default();
    for reason in COUNTED {
        if values.next()? != "0" {
            left.insert(reason);
        }
    }
    let (role, session_user) = (values.next()?, values.next()?);
    let settings = values.next()?;
    let settings = settings
        .split('\x02')
        .filter_map(|entry| entry.split_once('\x01'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Some(Findings {
        left,
        role,
        session_user,
        settings,
    })
}
