//! One statement by its leading words: what kind it is, and what it does that its kind alone decides.

use pgweir_model::{PinReason, Reason};

use crate::classify::{LocalCommand, StatementKind};
use crate::effects::{Discard, Isolation, SavepointCommand, TransactionControl, TransactionModes};
use crate::reading::{self, Findings, Mode};
use crate::tokens::Tokens;
use crate::tree::{self, Tree};

/// What became of a statement.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) kind: StatementKind,
    pub(crate) findings: Findings,
    /// What the proxy would answer, were this the whole text.
    pub(crate) local: Option<LocalCommand>,
}

impl Read {
    fn new(kind: StatementKind, reason: Reason) -> Self {
        Read {
            kind,
            findings: Findings::new(reason),
            local: None,
        }
    }

    fn pinned(kind: StatementKind, reason: Reason, pin: PinReason) -> Self {
        let mut read = Read::new(kind, reason);
        read.findings.pin(pin);
        read
    }

    fn suspect(mut self) -> Self {
        self.findings.effects.suspect = true;
        self
    }

    fn ddl(mut self) -> Self {
        self.findings.effects.ddl = true;
        self
    }

    fn control(mut self, control: TransactionControl) -> Self {
        self.findings.effects.transaction = control;
        self
    }

    fn discards(mut self, discard: Discard) -> Self {
        self.findings.effects.discard.push(discard);
        self
    }

    fn unparsed(kind: StatementKind) -> Self {
        let mut read = Read::new(kind, Reason::Read);
        read.findings.give_up();
        read
    }
}

/// Classifies one statement of the shape `text`.
pub(crate) fn read(text: &[u8], t: Tokens<'_, '_>) -> Read {
    use StatementKind as Kind;
    let first = t.at(0);
    if first.kind != crate::lexer::TokenKind::Word {
        return query(text, t);
    }
    match first.text {
        b"select" | b"values" | b"table" | b"with" => query(text, t),
        b"insert" => dml(Kind::Insert, t),
        b"update" => dml(Kind::Update, t),
        b"delete" => dml(Kind::Delete, t),
        b"merge" => dml(Kind::Merge, t),
        b"explain" => explain(text, t),
        b"copy" => copy(text, t),
        b"declare" => declare(text, t),
        b"show" => show(t),
        b"set" => set(t),
        b"reset" => reset(t),
        b"begin" | b"start" | b"commit" | b"end" | b"rollback" | b"abort" | b"savepoint"
        | b"release" => transaction(t),
        b"prepare" if t.word(1, "transaction") => {
            Read::new(Kind::TwoPhase, Reason::Write).control(TransactionControl::PrepareTransaction)
        }
        b"prepare" => Read::pinned(Kind::Prepare, Reason::Write, PinReason::SqlPrepare),
        b"execute" => Read::pinned(Kind::Execute, Reason::Write, PinReason::SqlPrepare).suspect(),
        b"deallocate" => deallocate(t),
        b"fetch" | b"move" => Read::new(Kind::Fetch, Reason::Read),
        b"close" if t.word(1, "all") => {
            Read::new(Kind::Close, Reason::Read).discards(Discard::CloseAll)
        }
        b"close" => Read::new(Kind::Close, Reason::Read),
        b"listen" => Read::pinned(Kind::Listen, Reason::PrimaryOnly, PinReason::Listen),
        b"unlisten" => unlisten(t),
        b"notify" => Read::new(Kind::Notify, Reason::Write),
        b"discard" => discard(t),
        b"call" => expressions(Kind::Call, t).suspect(),
        b"do" => Read::new(Kind::Do, Reason::Write).suspect(),
        b"load" => Read::pinned(Kind::Utility, Reason::PrimaryOnly, PinReason::Load),
        b"create" => create(t),
        b"alter" if t.word(1, "system") => Read::new(Kind::Utility, Reason::Write),
        // `USING`, a default or a check may run any function over the rows.
        b"alter" if t.word(1, "table") => Read::new(Kind::Ddl, Reason::Write).ddl().suspect(),
        b"alter" | b"drop" | b"grant" | b"revoke" | b"comment" | b"security" | b"reassign"
        | b"import" => Read::new(Kind::Ddl, Reason::Write).ddl(),
        b"truncate" | b"vacuum" | b"analyze" | b"analyse" | b"cluster" | b"reindex"
        | b"refresh" | b"checkpoint" | b"lock" => Read::new(Kind::Utility, Reason::Write),
        _ => unknown(t),
    }
}

/// Not a statement that is known here. Its tokens are still read for what they would leave behind.
fn unknown(t: Tokens<'_, '_>) -> Read {
    let mut read = Read::unparsed(StatementKind::Unknown);
    let mut scratch = Findings::new(Reason::Read);
    reading::read(t, Mode::Query, &mut scratch);
    read.findings.effects.pins = scratch.effects.pins;
    read.findings.effects.pin = scratch.effects.pin;
    read
}

/// A write whose expressions are read for calls and what they leave behind.
fn expressions(kind: StatementKind, t: Tokens<'_, '_>) -> Read {
    let mut read = Read::new(kind, Reason::Write);
    reading::read(t, Mode::Dml, &mut read.findings);
    read
}

fn dml(kind: StatementKind, t: Tokens<'_, '_>) -> Read {
    let mut read = expressions(kind, t);
    // An UPDATE of this view is a SET by another name.
    if (0..t.len()).any(|index| t.word(index, "pg_settings")) {
        read.findings.pin(PinReason::Setting);
    }
    read
}

/// The words that begin a query, behind any parentheses.
fn begins_query(t: Tokens<'_, '_>, from: usize) -> bool {
    let mut index = from;
    while t.punct(index, "(") {
        index += 1;
    }
    t.at(index).is_any(&["select", "values", "table", "with"])
}

/// A query, or DML behind `WITH`.
fn query(text: &[u8], t: Tokens<'_, '_>) -> Read {
    if !begins_query(t, 0) {
        return unknown(t);
    }
    if let Some(kind) = main_verb(t) {
        return dml(kind, t);
    }
    let mut read = Read::new(StatementKind::Query, Reason::Read);
    let findings = &mut read.findings;
    reading::read(t, Mode::Query, findings);
    if is_unlock_all(t) {
        findings.effects.discard.push(Discard::AdvisoryUnlockAll);
    }
    if findings.reason != Reason::Read {
        return read;
    }
    match tree::read(slice(text, t), t) {
        Tree::Objects(reason) => findings.object(reason),
        // `ONLY` is a table's name to the tree.
        Tree::Read(tables) if !t.0.iter().any(|token| token.is_word("only")) => {
            findings.tables = tables
        }
        Tree::Read(_) => {}
        Tree::Unreadable if reading::is_complete(t) => findings.reason = Reason::ReadByTokens,
        Tree::Unreadable => findings.give_up(),
    }
    read
}

/// Returns the kind of a statement behind `WITH` whose main verb writes.
fn main_verb(t: Tokens<'_, '_>) -> Option<StatementKind> {
    if !t.word(0, "with") {
        return None;
    }
    let verb = t.find_outside(
        1,
        &[
            "select", "values", "table", "insert", "update", "delete", "merge",
        ],
    )?;
    // A common table expression may bear such a name: `WITH update AS (...)`, `WITH insert (a) AS (...)`.
    if !t.before(verb, 1).is_punct(")") {
        return None;
    }
    match t.at(verb).text {
        b"insert" => Some(StatementKind::Insert),
        b"update" => Some(StatementKind::Update),
        b"delete" => Some(StatementKind::Delete),
        b"merge" => Some(StatementKind::Merge),
        _ => None,
    }
}

/// `SELECT pg_advisory_unlock_all()` and nothing else: in a larger expression it might not be evaluated.
fn is_unlock_all(t: Tokens<'_, '_>) -> bool {
    let qualified = usize::from(t.word(1, "pg_catalog") && t.punct(2, ".")) * 2;
    t.word(0, "select")
        && t.word(1 + qualified, "pg_advisory_unlock_all")
        && t.punct(2 + qualified, "(")
        && t.len() == 4 + qualified
}

fn slice<'a>(text: &'a [u8], t: Tokens<'_, 'a>) -> &'a [u8] {
    text.get(t.at(0).start..t.before(t.len(), 1).end())
        .unwrap_or(&[])
}

fn explain(text: &[u8], t: Tokens<'_, '_>) -> Read {
    if t.word(1, "route") {
        let mut read = Read::unparsed(StatementKind::Explain);
        read.local = (t.len() > 2).then_some(LocalCommand::ExplainRoute);
        return read;
    }
    let Some((analyze, inner)) = explain_options(t) else {
        return Read::unparsed(StatementKind::Explain);
    };
    let inner = t.from(inner);
    let verbs = [
        "insert", "update", "delete", "merge", "declare", "create", "refresh", "execute",
    ];
    if !begins_query(inner, 0) && !inner.at(0).is_any(&verbs) {
        return Read::unparsed(StatementKind::Explain);
    }
    let mut read = read(text, inner);
    read.kind = StatementKind::Explain;
    if !analyze && !inner.word(0, "execute") {
        // It is only planned. What it would do does not happen, but the relations of a session are needed even for that.
        let effects = &mut read.findings.effects;
        let temporary = effects.pins.contains(PinReason::TempTable) && !inner.word(0, "create");
        *effects = crate::effects::Effects::default();
        let unparsed = read.findings.reason == Reason::Unparsed;
        read.findings.reason = Reason::Read;
        if temporary {
            read.findings.pin(PinReason::TempTable);
        }
        if unparsed {
            read.findings.give_up();
        }
    }
    read
}

/// Returns whether the statement is executed, and where it begins.
fn explain_options(t: Tokens<'_, '_>) -> Option<(bool, usize)> {
    if t.punct(1, "(") && !begins_query(t, 1) {
        let close = t.closing(1)?;
        // Anything but a clear `false` or `off` behind the word counts as true.
        let executes = |index: usize| {
            t.at(index).is_any(&["analyze", "analyse"])
                && (t.before(index, 1).is_punct("(") || t.before(index, 1).is_punct(","))
                && !t.at(index + 1).is_any(&["false", "off"])
        };
        return Some(((2..close).any(executes), close + 1));
    }
    let mut index = 1;
    let mut analyze = false;
    while t.at(index).is_any(&["analyze", "analyse", "verbose"]) {
        analyze |= !t.word(index, "verbose");
        index += 1;
    }
    Some((analyze, index))
}

fn copy(text: &[u8], t: Tokens<'_, '_>) -> Read {
    let Some(way) = t.find_outside(1, &["from", "to"]) else {
        return Read::unparsed(StatementKind::CopyFrom);
    };
    let with_client = t.at(way + 1).is_any(&["stdin", "stdout"]);
    if t.word(way, "from") {
        let mut read = Read::new(StatementKind::CopyFrom, Reason::Write);
        copied_table(t, way, &mut read.findings);
        // `WHERE` may call functions.
        if t.find_outside(way, &["where"]).is_some() {
            read.findings.effects.suspect = true;
        }
        read.findings.effects.copy_from_stdin = with_client;
        return read;
    }
    let mut read = if t.punct(1, "(") {
        let close = t.closing(1).unwrap_or(t.len());
        let inner = t.to(close).from(2);
        let verbs = ["insert", "update", "delete", "merge"];
        // Nothing else may stand here, a COPY least of all: that would be read as deep as it is nested.
        if !begins_query(inner, 0) && !inner.at(0).is_any(&verbs) {
            return Read::unparsed(StatementKind::CopyTo);
        }
        read(text, inner)
    } else {
        let mut read = Read::new(StatementKind::CopyTo, Reason::Read);
        copied_table(t, way, &mut read.findings);
        read
    };
    if !matches!(read.kind, StatementKind::Query | StatementKind::CopyTo)
        && read.findings.reason != Reason::Write
    {
        read.findings.give_up();
    }
    read.kind = StatementKind::CopyTo;
    read.local = None;
    if !with_client {
        // A standby would run the program, or write the file, on its own host.
        read.findings.object(Reason::PrimaryOnly);
    }
    read
}

/// Reads `COPY [BINARY] name [(columns)]`, up to the word at `way`.
fn copied_table(t: Tokens<'_, '_>, way: usize, findings: &mut Findings) {
    let start = if t.word(1, "binary") && way > 2 { 2 } else { 1 };
    let end = t.chain_end(start);
    if !t.at(start).is_name() {
        return findings.give_up();
    }
    findings.table(t, start, end);
    // Only the names matter: a system view, or a temporary table.
    let mut scratch = Findings::new(Reason::Read);
    reading::read(t.to(end + 1).from(start), Mode::Query, &mut scratch);
    findings.object(scratch.reason);
    scratch
        .effects
        .pins
        .iter()
        .for_each(|pin| findings.pin(pin));
}

fn declare(text: &[u8], t: Tokens<'_, '_>) -> Read {
    let Some(body) = t.find_outside(1, &["for"]) else {
        return Read::unparsed(StatementKind::Declare);
    };
    if !begins_query(t, body + 1) {
        return Read::unparsed(StatementKind::Declare);
    }
    let mut read = query(text, t.from(body + 1));
    read.kind = StatementKind::Declare;
    let head = t.to(body);
    if (0..head.len()).any(|index| head.words(index, &["with", "hold"])) {
        read.findings.pin(PinReason::HoldCursor);
    }
    read
}

fn show(t: Tokens<'_, '_>) -> Read {
    let name = setting_name(t, 1);
    let mut read = Read::new(StatementKind::Show, Reason::Read);
    match name.as_str() {
        "" => read.findings.give_up(),
        // What these say differs between a primary and its standby.
        "transaction_read_only" | "in_hot_standby" | "all" => {
            read.findings.object(Reason::PrimaryOnly)
        }
        name if name.starts_with("pgweir.") => {
            read.local = Some(LocalCommand::ShowSetting(name.into()))
        }
        _ => {}
    }
    read
}

/// Returns a setting's name of one or more parts, in lower case.
fn setting_name(t: Tokens<'_, '_>, start: usize) -> String {
    if !t.at(start).is_name() {
        return String::new();
    }
    let mut name = t
        .qualifier(start, t.chain_end(start) + 2)
        .unwrap_or_default();
    name.make_ascii_lowercase();
    String::from_utf8_lossy(&name).into_owned()
}

fn set(t: Tokens<'_, '_>) -> Read {
    use StatementKind::Set;
    if t.word(1, "transaction") {
        if t.word(2, "snapshot") {
            return Read::new(Set, Reason::PrimaryOnly);
        }
        let modes = modes(t, 2);
        // A mode that a standby refuses sends the transaction to the primary before its first query.
        let reason = if modes.read_only == Some(false) || modes.serializable() {
            Reason::Transaction
        } else {
            Reason::Read
        };
        return Read::new(Set, reason).control(TransactionControl::Set(modes));
    }
    if t.word(1, "constraints") {
        return Read::new(Set, Reason::Read);
    }
    let scoped = t.at(1).is_any(&["session", "local"])
        && !t.at(2).is_any(&["authorization", "characteristics"]);
    let scoped = scoped && !is_assignment(t, 2);
    let local = scoped && t.word(1, "local");
    let start = 1 + usize::from(scoped);
    let name = setting_name(t, start);
    let of_transaction = [
        "transaction_isolation",
        "transaction_read_only",
        "transaction_deferrable",
    ];
    let mut read = if of_transaction.contains(&&*name) {
        // `transaction_read_only` and the like: of the transaction, with or without `LOCAL`, and a standby refuses some.
        Read::new(Set, Reason::PrimaryOnly)
    } else if local {
        Read::new(Set, Reason::Read)
    } else {
        Read::pinned(Set, Reason::PrimaryOnly, PinReason::Setting)
    };
    if name.is_empty() {
        read.findings.give_up();
    }
    if name.starts_with("pgweir.") {
        let at = t.chain_end(start) + 1;
        read.local = is_assignment(t, at).then(|| LocalCommand::SetSetting {
            name: name.into(),
            value: setting_value(t.from(at + 1)),
            local,
        });
    }
    read
}

fn is_assignment(t: Tokens<'_, '_>, index: usize) -> bool {
    t.word(index, "to") || t.at(index).text == b"="
}

/// Returns the value of a `SET` as the server would store it, a list joined by `, `; `None` for `DEFAULT`.
fn setting_value(t: Tokens<'_, '_>) -> Option<Box<str>> {
    if t.word(0, "default") && t.len() == 1 {
        return None;
    }
    let mut value = Vec::new();
    for token in t.0 {
        match token.text {
            b"," => value.extend_from_slice(b", "),
            text if token.is_string() => value.extend(unquoted(text)),
            _ => value.extend_from_slice(&token.folded()),
        }
    }
    Some(String::from_utf8_lossy(&value).into())
}

/// Returns the content of a string. Escapes of `E''` strings stay as they are written: no value of a setting needs them.
fn unquoted(text: &[u8]) -> Vec<u8> {
    if text.first() == Some(&b'$') {
        let tag = text
            .iter()
            .skip(1)
            .position(|byte| *byte == b'$')
            .map_or(0, |position| position + 2);
        return text
            .get(tag..text.len().saturating_sub(tag))
            .unwrap_or(&[])
            .to_vec();
    }
    let open = text
        .iter()
        .position(|byte| *byte == b'\'')
        .map_or(0, |position| position + 1);
    let inner = text.get(open..text.len().saturating_sub(1)).unwrap_or(&[]);
    let mut value = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        value.push(*byte);
        if *byte == b'\'' {
            bytes.next();
        }
    }
    value
}

fn reset(t: Tokens<'_, '_>) -> Read {
    if t.word(1, "all") {
        // The settings that came with the startup packet may be undone with it, where the proxy had to bring them by `SET`.
        return Read::new(StatementKind::Reset, Reason::PrimaryOnly)
            .discards(Discard::Settings)
            .suspect();
    }
    let name = setting_name(t, 1);
    let mut read = Read::pinned(
        StatementKind::Reset,
        Reason::PrimaryOnly,
        PinReason::Setting,
    );
    if name.is_empty() {
        read.findings.give_up();
    } else if name.starts_with("pgweir.") {
        read.local = Some(LocalCommand::ResetSetting(name.into()));
    }
    read
}

fn transaction(t: Tokens<'_, '_>) -> Read {
    use StatementKind as Kind;
    let chain = (1..t.len()).any(|index| t.words(index, &["and", "chain"]));
    let savepoint = |command| {
        Read::new(Kind::Savepoint, Reason::Read).control(TransactionControl::Savepoint(command))
    };
    match t.at(0).text {
        b"begin" | b"start" => {
            let modes = modes(t, 1);
            let reason = if modes.replica_may_run() {
                Reason::ReadOnlyTransaction
            } else {
                Reason::Transaction
            };
            Read::new(Kind::Begin, reason).control(TransactionControl::Begin(modes))
        }
        b"savepoint" => savepoint(SavepointCommand::Set),
        b"release" => savepoint(SavepointCommand::Release),
        b"commit" | b"rollback" if t.word(1, "prepared") => {
            Read::new(Kind::TwoPhase, Reason::Write)
        }
        b"commit" | b"end" => {
            Read::new(Kind::Commit, Reason::Read).control(TransactionControl::End {
                commit: true,
                chain,
            })
        }
        _ if (1..=2).any(|index| t.word(index, "to")) => savepoint(SavepointCommand::RollbackTo),
        _ => Read::new(Kind::Rollback, Reason::Read).control(TransactionControl::End {
            commit: false,
            chain,
        }),
    }
}

/// Reads transaction modes. The last of a kind counts, as in PostgreSQL; an unknown word changes nothing.
fn modes(t: Tokens<'_, '_>, from: usize) -> TransactionModes {
    let mut modes = TransactionModes::default();
    for index in from..t.len() {
        if t.words(index, &["read", "only"]) {
            modes.read_only = Some(true);
        } else if t.words(index, &["read", "write"]) {
            modes.read_only = Some(false);
        } else if t.word(index, "deferrable") {
            modes.deferrable = Some(!t.before(index, 1).is_word("not"));
        } else if t.word(index, "level") {
            modes.isolation = isolation(t, index + 1).or(modes.isolation);
        }
    }
    modes
}

fn isolation(t: Tokens<'_, '_>, index: usize) -> Option<Isolation> {
    if t.word(index, "serializable") {
        Some(Isolation::Serializable)
    } else if t.words(index, &["repeatable", "read"]) {
        Some(Isolation::RepeatableRead)
    } else if t.words(index, &["read", "committed"]) {
        Some(Isolation::ReadCommitted)
    } else if t.words(index, &["read", "uncommitted"]) {
        Some(Isolation::ReadUncommitted)
    } else {
        None
    }
}

fn last_name(t: Tokens<'_, '_>, index: usize) -> Box<str> {
    String::from_utf8_lossy(&t.at(index).folded()).into()
}

fn deallocate(t: Tokens<'_, '_>) -> Read {
    let index = 1 + usize::from(t.word(1, "prepare") && t.len() > 2);
    let what = if t.word(index, "all") {
        Discard::DeallocateAll
    } else {
        Discard::Deallocate(last_name(t, index))
    };
    Read::new(StatementKind::Deallocate, Reason::PrimaryOnly).discards(what)
}

fn unlisten(t: Tokens<'_, '_>) -> Read {
    let what = if t.at(1).text == b"*" {
        Discard::UnlistenAll
    } else {
        Discard::Unlisten(last_name(t, 1))
    };
    Read::new(StatementKind::Unlisten, Reason::PrimaryOnly).discards(what)
}

fn discard(t: Tokens<'_, '_>) -> Read {
    let read = Read::new(StatementKind::Discard, Reason::PrimaryOnly);
    match t.at(1).text {
        b"all" => read.discards(Discard::All),
        b"temp" | b"temporary" => read.discards(Discard::Temp),
        b"plans" => read.discards(Discard::Plans),
        b"sequences" => read.discards(Discard::Sequences),
        _ => Read::unparsed(StatementKind::Discard),
    }
}

fn create(t: Tokens<'_, '_>) -> Read {
    let mut read = Read::new(StatementKind::Ddl, Reason::Write).ddl();
    let mut index = 1 + 2 * usize::from(t.words(1, &["or", "replace"]));
    index += usize::from(t.at(index).is_any(&["local", "global"]));
    let temporary = t.at(index).is_any(&["temp", "temporary"]);
    let in_temp_schema = || {
        t.0.iter()
            .any(|token| token.is_name() && crate::names::is_temp_schema(&token.folded()))
    };
    if temporary || in_temp_schema() {
        read.findings.pin(PinReason::TempTable);
    }
    if t.word(index, "extension") {
        return read.suspect();
    }
    index += usize::from(temporary || t.word(index, "unlogged"));
    // `CREATE TABLE ... AS` runs its query with the session's own settings; a materialized view restores them afterwards.
    if t.word(index, "table")
        && let Some(body) = t.find_outside(index, &["as"])
    {
        reading::read(t.from(body + 1), Mode::Query, &mut read.findings);
        read.findings.effects.suspect |= t.word(body + 1, "execute");
    }
    read
}
