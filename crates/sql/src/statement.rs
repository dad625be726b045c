//! One statement by its leading words: what kind it is, and what it does that its kind alone decides.

mod state;

use pgweir_model::{PinReason, Reason, Verdict};

use crate::classify::{LocalCommand, Names, StatementKind, Usage};
use crate::effects::{Discard, TransactionControl};
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
        self.findings.suspect();
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
        b"set" | b"reset" | b"begin" | b"start" | b"commit" | b"end" | b"rollback" | b"abort"
        | b"savepoint" | b"release" | b"prepare" | b"execute" | b"deallocate" | b"discard" => {
            state::read(text, t)
        }
        b"fetch" | b"move" => Read::new(Kind::Fetch, Reason::Read),
        b"close" if t.word(1, "all") => {
            Read::new(Kind::Close, Reason::Read).discards(Discard::CloseAll)
        }
        b"close" => Read::new(Kind::Close, Reason::Read),
        b"listen" => Read::pinned(Kind::Listen, Reason::PrimaryOnly, PinReason::Listen),
        b"unlisten" => unlisten(t),
        b"notify" => Read::new(Kind::Notify, Reason::Write),
        b"call" => call(t),
        b"do" => Read::new(Kind::Do, Reason::Write).suspect(),
        b"load" => Read::pinned(Kind::Utility, Reason::PrimaryOnly, PinReason::Load),
        b"create" => create(text, t),
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

/// A procedure may do anything, unless the catalog knows better.
fn call(t: Tokens<'_, '_>) -> Read {
    let mut read = expressions(StatementKind::Call, t);
    read.findings.effects.suspect = true;
    if read.findings.functions.is_empty() {
        return read.suspect();
    }
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
    // What follows from names alone may be taken back by the catalog, and then the tree must agree.
    if findings.rest.reason != Reason::Read {
        return read;
    }
    match tree::read(slice(text, t), t, &findings.functions) {
        Tree::Objects(reason) => findings.object(reason),
        Tree::Read => {}
        Tree::Unreadable if reading::is_complete(t) => findings.object(Reason::ReadByTokens),
        Tree::Unreadable => findings.give_up(),
    }
    read
}

/// Returns the kind of a statement behind `WITH` whose main verb writes.
fn main_verb(t: Tokens<'_, '_>) -> Option<StatementKind> {
    if !t.word(0, "with") {
        return None;
    }
    let verbs = [
        "select", "values", "table", "insert", "update", "delete", "merge",
    ];
    let mut verb = t.find_outside(1, &verbs)?;
    // A common table expression, or a column of its `SEARCH` and `CYCLE`, may bear such a name.
    while t.before(verb, 1).is_punct(",") || t.before(verb, 1).is_any(NAMES_FOLLOW) {
        verb = t.find_outside(verb + 1, &verbs)?;
    }
    match t.at(verb).text {
        b"insert" => Some(StatementKind::Insert),
        b"update" => Some(StatementKind::Update),
        b"delete" => Some(StatementKind::Delete),
        b"merge" => Some(StatementKind::Merge),
        _ => None,
    }
}

/// Words of a `WITH` clause behind which a name comes.
const NAMES_FOLLOW: &[&str] = &[
    "with",
    "recursive",
    "by",
    "set",
    "cycle",
    "to",
    "default",
    "using",
];

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
        let unparsed = read.findings.rest.reason == Reason::Unparsed;
        read.findings.reason = Reason::Read;
        read.findings.rest = Verdict::HARMLESS;
        read.findings.names = Names {
            usage: Usage::Planned,
            ..Names::default()
        };
        if temporary {
            read.findings.pin(PinReason::TempTable);
        }
        if unparsed {
            read.findings.give_up();
        }
    }
    read.findings.effects.state = state::is_touched(text, t);
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
            read.findings.suspect();
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

fn last_name(t: Tokens<'_, '_>, index: usize) -> Box<str> {
    String::from_utf8_lossy(&t.at(index).folded()).into()
}

fn unlisten(t: Tokens<'_, '_>) -> Read {
    let what = if t.at(1).text == b"*" {
        Discard::UnlistenAll
    } else {
        Discard::Unlisten(last_name(t, 1))
    };
    Read::new(StatementKind::Unlisten, Reason::PrimaryOnly).discards(what)
}

fn create(text: &[u8], t: Tokens<'_, '_>) -> Read {
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
        if t.word(body + 1, "execute") {
            read.findings.suspect();
        }
        read.findings.effects.state = state::is_touched(text, t);
    }
    read
}
