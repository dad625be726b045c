//! The commands of the console: one grammar, whatever the case, names with or without quotes.
//!
//! An error names the command that was probably meant.

use std::time::Duration;

use pgweir_config::reference::nearest;

use super::answer::refusal;
use super::words::{Kind, Token, tokens};
use crate::control::{Order, Refusal, Shutdown, Target};

/// How a command is written, and what it does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Syntax {
    pub(crate) text: &'static str,
    /// Whether viewers may not give it.
    pub(crate) changes: bool,
    pub(crate) about: &'static str,
}

const fn does(text: &'static str, about: &'static str) -> Syntax {
    Syntax {
        text,
        changes: true,
        about,
    }
}

const fn looks(text: &'static str, about: &'static str) -> Syntax {
    Syntax {
        text,
        changes: false,
        about,
    }
}

/// Every command, in the order of `help`.
pub(crate) const SYNTAX: &[Syntax] = &[
    does(
        "PAUSE [db]",
        "Lets transactions end, closes the server connections and holds batches back until RESUME.",
    ),
    does(
        "RESUME [db]",
        "Goes on after PAUSE, or after KILL of a database.",
    ),
    does("DISABLE db", "Refuses new clients of a database."),
    does("ENABLE db", "Takes new clients of a database again."),
    does(
        "DRAIN backend",
        "Gives a server no new work and closes its connections as they become free.",
    ),
    does("UNDRAIN backend", "Takes DRAIN back."),
    looks(
        "PROMOTE CHECK",
        "Says of each replica whether it could be promoted now, and what would be lost.",
    ),
    does(
        "KILL id|db",
        "Disconnects a client, or those of a database, which is held back until RESUME. Without either, all.",
    ),
    does("KILL_CLIENT id", "Disconnects a client."),
    does("CANCEL id", "Cancels what a client runs."),
    does(
        "RECONNECT [db]",
        "Closes every server connection as soon as its client gives it back.",
    ),
    looks(
        "WAIT_CLOSE [db]",
        "Waits until the connections that RECONNECT or a reload meant are closed.",
    ),
    does("FLUSH CACHE", "The cache is not built: refused."),
    does("RELOAD", "Reads the file again."),
    does(
        "RELOAD CATALOG",
        "Reads the catalogs of all databases again.",
    ),
    does("RELOAD TLS", "TLS is not built: refused."),
    does("RESET STATEMENTS", "Empties the statistics of statements."),
    does(
        "SAVE CONFIG",
        "Writes the running configuration back to its file.",
    ),
    looks(
        "SHOW CONFIG DIFF",
        "Says what differs between the file and the running configuration.",
    ),
    does(
        "SHUTDOWN [WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS]",
        "Ends the process: at once, when no server connection is in use, or when all clients have left.",
    ),
    looks(
        "EXPLAIN ROUTE sql [FOR DATABASE db USER user]",
        "Says where a statement would go, and why.",
    ),
    looks(
        "TRACE id [LIMIT n] [FOR '5s']",
        "Writes the messages of a client down, without their values.",
    ),
    looks("SHOW HELP", "Lists the tables and the commands."),
    looks(
        "SHOW POOLS|STATS|STATS_TOTALS|STATS_AVERAGES|CLIENTS|SERVERS|DATABASES|USERS|CONFIG|LISTS|VERSION|MEM|DNS_HOSTS|DNS_ZONES|STATE|TOTALS|SOCKETS",
        "As PgBouncer's console answers it.",
    ),
];

/// What PgBouncer's `SHOW` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    Pools,
    Stats,
    StatsTotals,
    StatsAverages,
    Totals,
    Clients,
    Servers,
    Sockets,
    Databases,
    Users,
    Config,
    Lists,
    Version,
    Mem,
    DnsHosts,
    DnsZones,
    State,
    Peers,
    PeerPools,
}

const SHOWS: [(&str, Show); 20] = [
    ("pools", Show::Pools),
    ("stats", Show::Stats),
    ("stats_totals", Show::StatsTotals),
    ("stats_averages", Show::StatsAverages),
    ("totals", Show::Totals),
    ("clients", Show::Clients),
    ("servers", Show::Servers),
    ("sockets", Show::Sockets),
    ("active_sockets", Show::Sockets),
    ("databases", Show::Databases),
    ("users", Show::Users),
    ("config", Show::Config),
    ("lists", Show::Lists),
    ("version", Show::Version),
    ("mem", Show::Mem),
    ("dns_hosts", Show::DnsHosts),
    ("dns_zones", Show::DnsZones),
    ("state", Show::State),
    ("peers", Show::Peers),
    ("peer_pools", Show::PeerPools),
];

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Something that the proxy does.
    Order(Order),
    /// `PROMOTE CHECK`
    PromoteCheck,
    /// `SHOW CONFIG DIFF`
    ConfigDiff,
    /// `SHOW HELP`
    Help,
    /// `EXPLAIN ROUTE`
    Explain {
        sql: String,
        database: Option<String>,
        user: Option<String>,
    },
    /// `TRACE`
    Trace {
        client: u32,
        limit: Option<u64>,
        duration: Option<Duration>,
    },
    /// PgBouncer's `SHOW`.
    Show(Show),
    /// `SHOW` of a parameter of the session.
    ShowParameter(String),
}

impl Command {
    /// Returns whether viewers may not give it.
    pub(crate) fn changes(&self) -> bool {
        match self {
            Command::Order(order) => !matches!(order, Order::WaitClose { .. }),
            Command::PromoteCheck
            | Command::ConfigDiff
            | Command::Help
            | Command::Explain { .. }
            | Command::Trace { .. }
            | Command::Show(_)
            | Command::ShowParameter(_) => false,
        }
    }

    /// Returns what stands in its CommandComplete.
    pub(crate) fn tag(&self) -> &'static str {
        match self {
            Command::Order(order) => tag(order),
            Command::PromoteCheck => "PROMOTE CHECK",
            Command::Explain { .. } => "EXPLAIN",
            Command::Trace { .. } => "TRACE",
            Command::ConfigDiff | Command::Help | Command::Show(_) | Command::ShowParameter(_) => {
                "SHOW"
            }
        }
    }
}

fn tag(order: &Order) -> &'static str {
    match order {
        Order::Pause { .. } => "PAUSE",
        Order::Resume { .. } => "RESUME",
        Order::Disable { .. } => "DISABLE",
        Order::Enable { .. } => "ENABLE",
        Order::Reconnect { .. } => "RECONNECT",
        Order::WaitClose { .. } => "WAIT_CLOSE",
        Order::Drain { .. } => "DRAIN",
        Order::Undrain { .. } => "UNDRAIN",
        Order::Kill(_) => "KILL",
        Order::Cancel { .. } => "CANCEL",
        Order::Reload => "RELOAD",
        Order::ReloadCatalog => "RELOAD CATALOG",
        Order::SaveConfig => "SAVE CONFIG",
        Order::ResetStatements => "RESET STATEMENTS",
        Order::Shutdown(_) => "SHUTDOWN",
    }
}

/// Words that begin a statement of SQL: what begins otherwise is a command, or a slip of one.
const SQL: [&str; 53] = [
    "select",
    "with",
    "values",
    "table",
    "insert",
    "update",
    "delete",
    "merge",
    "truncate",
    "copy",
    "create",
    "alter",
    "drop",
    "comment",
    "grant",
    "revoke",
    "begin",
    "start",
    "commit",
    "end",
    "rollback",
    "abort",
    "savepoint",
    "release",
    "prepare",
    "execute",
    "deallocate",
    "declare",
    "fetch",
    "move",
    "close",
    "listen",
    "notify",
    "unlisten",
    "set",
    "discard",
    "lock",
    "vacuum",
    "analyze",
    "analyse",
    "cluster",
    "reindex",
    "refresh",
    "checkpoint",
    "call",
    "do",
    "load",
    "explain",
    "reset",
    "reassign",
    "security",
    "import",
    "replace",
];

/// Returns the command that a statement is; `None` where it is SQL.
pub(crate) fn parse(sql: &str) -> Option<Result<Command, Refusal>> {
    let words: Vec<Token<'_>> = tokens(sql)
        .filter(|t| t.kind != Kind::Symbol(';'))
        .collect();
    let (verb, rest) = words.split_first()?;
    if verb.kind != Kind::Word {
        return None;
    }
    let found = match verb.text.to_ascii_lowercase().as_str() {
        "pause" => database(rest).map(|database| Order::Pause { database }.into()),
        "resume" => database(rest).map(|database| Order::Resume { database }.into()),
        "reconnect" => database(rest).map(|database| Order::Reconnect { database }.into()),
        "wait_close" => database(rest).map(|database| Order::WaitClose { database }.into()),
        "disable" => name(rest).map(|database| Order::Disable { database }.into()),
        "enable" => name(rest).map(|database| Order::Enable { database }.into()),
        "drain" => name(rest).map(|backend| Order::Drain { backend }.into()),
        "undrain" => name(rest).map(|backend| Order::Undrain { backend }.into()),
        "kill" => kill(rest),
        "kill_client" => id(rest).map(|id| Order::Kill(Target::Client(id)).into()),
        "cancel" => id(rest).map(|client| Order::Cancel { client }.into()),
        "promote" => alone(rest, &["check"], Command::PromoteCheck),
        "save" => alone(rest, &["config"], Order::SaveConfig.into()),
        "reload" => return Some(reload(rest).unwrap_or_else(|| Err(unknown(sql)))),
        "flush" => return Some(Err(unbuilt("the query-result cache"))),
        "suspend" => return Some(Err(unbuilt("SUSPEND"))),
        "shutdown" => shutdown(rest),
        "trace" => trace(rest),
        "show" => return Some(show(rest).unwrap_or_else(|| Err(unknown(sql)))),
        "explain" if rest.first().is_some_and(|word| word.is("route")) => explain(sql, rest),
        "reset" if rest.first().is_some_and(|word| word.is("statements")) => {
            alone(rest, &["statements"], Order::ResetStatements.into())
        }
        word if SQL.contains(&word) => return None,
        _ => None,
    };
    Some(found.ok_or_else(|| unknown(sql)))
}

impl From<Order> for Command {
    fn from(order: Order) -> Command {
        Command::Order(order)
    }
}

fn unbuilt(what: &str) -> Refusal {
    refusal(b"0A000", format!("{what} is not built in this version"))
}

/// Returns the error for what is no command, with the one that was probably meant.
fn unknown(sql: &str) -> Refusal {
    let words: Vec<_> = tokens(sql).take(2).collect();
    let verb = words.first().map(|word| word.text).unwrap_or_default();
    let two = words
        .iter()
        .map(|word| word.text)
        .collect::<Vec<_>>()
        .join(" ");
    let verbs = || SYNTAX.iter().map(|one| (first_word(one.text), one));
    let same = verbs().find(|(word, _)| word.eq_ignore_ascii_case(verb));
    let close = || {
        let slip = nearest(verb, verbs().map(|(word, _)| word).chain(SQL))?;
        let command = verbs().find(|(word, _)| *word == slip);
        Some(command.map_or(slip.to_ascii_uppercase(), |(_, one)| one.text.to_owned()))
    };
    let meant = same.map(|(_, one)| one.text.to_owned());
    // Where several begin alike, the nearest of those.
    let alike = verbs()
        .filter(|(word, _)| word.eq_ignore_ascii_case(verb))
        .count()
        > 1;
    let meant = if alike {
        let commands = verbs().filter(|(word, _)| word.eq_ignore_ascii_case(verb));
        let texts: Vec<_> = commands.map(|(_, one)| one.text).collect();
        let found = nearest(&two, texts.iter().copied()).map(str::to_owned);
        Some(found.unwrap_or_else(|| texts.join(" or ")))
    } else {
        meant.or_else(close)
    };
    let shown: String = two.chars().take(60).collect();
    Refusal {
        hint: Some(match meant {
            Some(meant) => format!("Perhaps you meant: {meant}. SHOW HELP lists all."),
            None => "SHOW HELP lists all commands; SELECT * FROM help, the tables, too.".to_owned(),
        }),
        ..refusal(
            b"42601",
            format!("there is no command \"{shown}\" of this form"),
        )
    }
}

fn first_word(text: &str) -> &str {
    text.split(' ').next().unwrap_or(text)
}

/// What a token names; a word is folded as PostgreSQL folds names, a quoted one kept. `app-1` and `127.0.0.1:5432` are names
/// here, too, since databases and servers are called so.
fn name(rest: &[Token<'_>]) -> Option<String> {
    let (first, others) = rest.split_first()?;
    if first.kind == Kind::Symbol('*') && others.is_empty() {
        return Some("*".to_owned());
    }
    let quoted = |token: &Token<'_>| matches!(token.kind, Kind::Name | Kind::Text);
    if quoted(first) {
        return others.is_empty().then(|| first.value());
    }
    let mut end = first.start;
    let mut whole = String::new();
    for token in rest {
        let joins =
            token.kind == Kind::Word || matches!(token.kind, Kind::Symbol('-' | '.' | ':' | '/'));
        if token.start != end || !joins {
            return None;
        }
        whole.push_str(token.text);
        end = token.end();
    }
    Some(whole)
}

/// Nothing, or a name; the outer `None` is neither.
fn database(rest: &[Token<'_>]) -> Option<Option<String>> {
    match rest {
        [] => Some(None),
        rest => name(rest).map(Some),
    }
}

fn id(rest: &[Token<'_>]) -> Option<u32> {
    match rest {
        [one] => one.value().parse().ok(),
        _ => None,
    }
}

fn alone(rest: &[Token<'_>], words: &[&str], command: Command) -> Option<Command> {
    let is =
        rest.len() == words.len() && rest.iter().zip(words).all(|(token, word)| token.is(word));
    is.then_some(command)
}

fn kill(rest: &[Token<'_>]) -> Option<Command> {
    let target = match rest {
        [] => Target::Everybody,
        [one] if one.kind == Kind::Word && one.text.bytes().all(|b| b.is_ascii_digit()) => {
            Target::Client(one.text.parse().ok()?)
        }
        rest => Target::Database(name(rest)?),
    };
    Some(Order::Kill(target).into())
}

fn reload(rest: &[Token<'_>]) -> Option<Result<Command, Refusal>> {
    match rest {
        [] => Some(Ok(Order::Reload.into())),
        [what] if what.is("catalog") => Some(Ok(Order::ReloadCatalog.into())),
        [what] if what.is("tls") => Some(Err(unbuilt("TLS"))),
        _ => None,
    }
}

fn shutdown(rest: &[Token<'_>]) -> Option<Command> {
    let how = match rest {
        [] => Shutdown::Now,
        [word] if word.is("wait_for_servers") => Shutdown::WaitForServers,
        [word] if word.is("wait_for_clients") => Shutdown::WaitForClients,
        _ => return None,
    };
    Some(Order::Shutdown(how).into())
}

fn trace(rest: &[Token<'_>]) -> Option<Command> {
    // `TRACE CLIENT 5` is what some write.
    let rest = match rest {
        [word, others @ ..] if word.is("client") => others,
        rest => rest,
    };
    let (client, mut options) = rest.split_first()?;
    let client = client.value().parse().ok()?;
    let (mut limit, mut duration) = (None, None);
    while let [word, value, others @ ..] = options {
        if word.is("limit") && limit.is_none() {
            limit = Some(value.value().parse().ok()?);
        } else if word.is("for") && duration.is_none() {
            duration = Some(pgweir_config::units::parse_duration(&value.value())?);
        } else {
            return None;
        }
        options = others;
    }
    options.is_empty().then_some(Command::Trace {
        client,
        limit,
        duration,
    })
}

/// `EXPLAIN ROUTE`: the statement is everything up to a trailing `FOR DATABASE db [USER user]`.
fn explain(sql: &str, rest: &[Token<'_>]) -> Option<Command> {
    let (route, inner) = rest.split_first()?;
    let clause = inner.windows(3).rposition(|three| match three {
        [one, two, _] => one.is("for") && two.is("database"),
        _ => false,
    });
    let mut whom = (None, None);
    let mut end = inner.last()?.end();
    if let Some(at) = clause
        && let Some(found) = inner.get(at + 2..).and_then(target)
    {
        whom = found;
        end = inner.get(at)?.start;
    }
    let text = sql.get(route.end()..end)?.trim();
    (!text.is_empty()).then(|| Command::Explain {
        sql: text.to_owned(),
        database: whom.0,
        user: whom.1,
    })
}

fn target(words: &[Token<'_>]) -> Option<(Option<String>, Option<String>)> {
    match words.iter().position(|word| word.is("user")) {
        Some(at) => {
            let (database, user) = words.split_at_checked(at)?;
            Some((Some(name(database)?), Some(name(user.get(1..)?)?)))
        }
        None => Some((Some(name(words)?), None)),
    }
}

/// `SHOW`; the outer `None` is of no form at all.
fn show(rest: &[Token<'_>]) -> Option<Result<Command, Refusal>> {
    Some(Ok(match rest {
        [first, second] if first.is("config") && second.is("diff") => Command::ConfigDiff,
        [one] if one.is("help") => Command::Help,
        [one] => {
            let what = one.value().to_ascii_lowercase();
            let found = SHOWS.iter().find(|(name, _)| *name == what);
            if what == "fds" {
                return Some(Err(unbuilt("SHOW FDS")));
            }
            found.map_or(Command::ShowParameter(what), |(_, show)| {
                Command::Show(*show)
            })
        }
        [first, .., last] if first.is("transaction") && last.is("level") => {
            Command::ShowParameter("transaction_isolation".to_owned())
        }
        [first, second] if first.is("time") && second.is("zone") => {
            Command::ShowParameter("timezone".to_owned())
        }
        [first, second] if first.is("session") && second.is("authorization") => {
            Command::ShowParameter("session_authorization".to_owned())
        }
        [first, .., last] if first.kind == Kind::Word && last.kind == Kind::Word => {
            let joined: String = rest.iter().map(Token::value).collect();
            let dotted = rest.iter().any(|token| token.kind == Kind::Symbol('.'));
            return dotted.then_some(Ok(Command::ShowParameter(joined.to_ascii_lowercase())));
        }
        _ => return None,
    }))
}

/// Returns the names that `SHOW` takes beside parameters.
pub(crate) fn show_names() -> impl Iterator<Item = &'static str> {
    SHOWS
        .iter()
        .map(|(name, _)| *name)
        .chain(["help", "config diff"])
}

#[cfg(test)]
mod tests;
