//! What a torture client says and what it must hear for it, word by word.
//!
//! Each statement carries a token that no other statement of any client has, and its result echoes it. So a reply that
//! belongs to somebody else, or to an earlier statement, is seen at once.

use pgweir_testkit::{Client, ClientError, Message};
use pgweir_wire::{
    backend::{self, tag},
    frontend, writer,
};

/// One reply that is due.
#[derive(Clone, Debug)]
pub(super) enum Want {
    /// A message whose content does not matter.
    Tag(u8),
    /// A DataRow with these values.
    Row(Vec<String>),
    /// DataRows `token:1` to `token:count`, each with padding behind a blank.
    Rows { token: String, count: usize },
    /// CopyData lines `token:1` to `token:count`.
    Lines { token: String, count: usize },
    /// CommandComplete with this tag.
    Complete(String),
    /// ErrorResponse with this SQLSTATE.
    Error(&'static str),
    /// ReadyForQuery with this status byte.
    Ready(u8),
    /// Anything but an error, up to a ReadyForQuery.
    AnyUntilReady,
}

/// Messages that go out together, and the replies to all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Talk {
    pub(super) bytes: Vec<u8>,
    pub(super) wants: Vec<Want>,
}

impl Talk {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds what is to be heard.
    pub(super) fn want(mut self, wants: impl IntoIterator<Item = Want>) -> Self {
        self.wants.extend(wants);
        self
    }

    pub(super) fn ready(self) -> Self {
        self.want([Want::Ready(b'I')])
    }

    /// A Query; its replies are added by the caller.
    pub(super) fn query(mut self, sql: &str) -> Self {
        frontend::Query {
            sql: sql.as_bytes(),
        }
        .encode(&mut self.bytes);
        self
    }

    /// What a row of text values brings in a simple query.
    pub(super) fn result(self, values: &[&str]) -> Self {
        self.want([
            Want::Tag(tag::ROW_DESCRIPTION),
            Want::Row(values.iter().map(|value| (*value).to_owned()).collect()),
            Want::Complete("SELECT 1".to_owned()),
        ])
    }

    pub(super) fn complete(self, command: &str) -> Self {
        self.want([Want::Complete(command.to_owned())])
    }

    /// A Parse without a reply of its own, for what is skipped.
    pub(super) fn parse_unheard(mut self, name: &str, sql: &str) -> Self {
        writer::message(&mut self.bytes, frontend::tag::PARSE, |w| {
            w.cstr(name.as_bytes());
            w.cstr(sql.as_bytes());
            w.i16(0);
        });
        self
    }

    pub(super) fn parse(self, name: &str, sql: &str) -> Self {
        self.parse_unheard(name, sql)
            .want([Want::Tag(tag::PARSE_COMPLETE)])
    }

    pub(super) fn bind_unheard(
        mut self,
        portal: &str,
        statement: &str,
        parameters: &[&str],
    ) -> Self {
        writer::message(&mut self.bytes, frontend::tag::BIND, |w| {
            w.cstr(portal.as_bytes());
            w.cstr(statement.as_bytes());
            w.i16(0);
            w.u16(u16::try_from(parameters.len()).unwrap_or(u16::MAX));
            for parameter in parameters {
                w.value(Some(parameter.as_bytes()));
            }
            w.i16(0);
        });
        self
    }

    pub(super) fn bind(self, portal: &str, statement: &str, parameters: &[&str]) -> Self {
        self.bind_unheard(portal, statement, parameters)
            .want([Want::Tag(tag::BIND_COMPLETE)])
    }

    pub(super) fn describe_statement(mut self, name: &str) -> Self {
        frontend::Describe {
            kind: frontend::Target::Statement,
            name: name.as_bytes(),
        }
        .encode(&mut self.bytes);
        self.want([
            Want::Tag(tag::PARAMETER_DESCRIPTION),
            Want::Tag(tag::ROW_DESCRIPTION),
        ])
    }

    /// An Execute; its replies are added by the caller.
    pub(super) fn execute(mut self, portal: &str, max_rows: i32) -> Self {
        frontend::Execute {
            portal: portal.as_bytes(),
            max_rows,
        }
        .encode(&mut self.bytes);
        self
    }

    /// An Execute that returns one row of one value.
    pub(super) fn execute_one(self, value: &str) -> Self {
        self.execute("", 0).want([
            Want::Row(vec![value.to_owned()]),
            Want::Complete("SELECT 1".to_owned()),
        ])
    }

    pub(super) fn close_statement(mut self, name: &str) -> Self {
        frontend::Close {
            kind: frontend::Target::Statement,
            name: name.as_bytes(),
        }
        .encode(&mut self.bytes);
        self.want([Want::Tag(tag::CLOSE_COMPLETE)])
    }

    pub(super) fn flush(mut self) -> Self {
        frontend::Flush.encode(&mut self.bytes);
        self
    }

    /// A Sync; its ReadyForQuery is added by the caller.
    pub(super) fn sync_unheard(mut self) -> Self {
        frontend::Sync.encode(&mut self.bytes);
        self
    }

    pub(super) fn sync(self) -> Self {
        self.sync_unheard().ready()
    }

    pub(super) fn copy_data(mut self, data: &[u8]) -> Self {
        frontend::CopyData { data }.encode(&mut self.bytes);
        self
    }

    pub(super) fn copy_done(mut self) -> Self {
        frontend::CopyDone.encode(&mut self.bytes);
        self
    }

    pub(super) fn copy_fail(mut self) -> Self {
        frontend::CopyFail { message: b"enough" }.encode(&mut self.bytes);
        self
    }

    /// Appends another talk: a pipeline.
    pub(super) fn then(mut self, other: Self) -> Self {
        self.bytes.extend_from_slice(&other.bytes);
        self.wants.extend(other.wants);
        self
    }
}

/// How a client's talk ended.
#[derive(Debug)]
pub(super) enum Heard {
    /// Everything came.
    All,
    /// As many messages came as the client wanted to read before it dies.
    Enough,
    /// A server or its connection died, and the client was told so, with this SQLSTATE first.
    Disrupted(String),
    /// The connection ended without a word, which is wrong as long as the client was heard: a server that is killed may take
    /// its last words with it, but the proxy has some of its own.
    Cut(String),
    /// Not what was due.
    Wrong(String),
}

/// SQLSTATEs of a death that is not the client's own: terminated, crashed, starting, lost, in conflict with recovery.
const DISRUPTIONS: [&str; 5] = ["57P01", "57P02", "57P03", "08006", "40001"];

/// Reads the replies that are due, at most `limit` messages.
pub(super) fn hear(client: &mut Client, wants: &[Want], limit: Option<usize>) -> Heard {
    let mut wants = wants.iter();
    let mut want = wants.next();
    let mut of_want = 0;
    let mut count = 0;
    while let Some(due) = want {
        if limit.is_some_and(|limit| count >= limit) {
            return Heard::Enough;
        }
        let message = match client.read() {
            Ok(message) => message,
            Err(error @ (ClientError::Closed(_) | ClientError::Io { .. })) => {
                return Heard::Cut(format!("instead of {due:?}: {error}"));
            }
            Err(error) => return Heard::Wrong(format!("instead of {due:?}: {error}")),
        };
        count += 1;
        if let Err(error) = message.decode() {
            return Heard::Wrong(format!(
                "instead of {due:?}, malformed {message:?}: {error}"
            ));
        }
        match judge(&message, due, of_want) {
            Verdict::Aside => {}
            Verdict::More => of_want += 1,
            Verdict::Done => {
                want = wants.next();
                of_want = 0;
            }
            Verdict::Disrupted => return until_the_end(client, due, &message),
            Verdict::Wrong => {
                let field = |code| message.error_field(code).unwrap_or_default();
                let text = (field(b'M'), field(b'D'));
                return Heard::Wrong(format!(
                    "instead of {due:?} ({of_want}): {message:?} {text:?}"
                ));
            }
        }
    }
    Heard::All
}

enum Verdict {
    /// Comes at any time.
    Aside,
    /// A part of what is due.
    More,
    Done,
    Disrupted,
    Wrong,
}

fn judge(message: &Message, due: &Want, of_want: usize) -> Verdict {
    match message.tag {
        tag::NOTICE_RESPONSE | tag::PARAMETER_STATUS => return Verdict::Aside,
        tag::ERROR_RESPONSE => return judge_error(message, due),
        _ => {}
    }
    let done = match (due, message.decode()) {
        (Want::Tag(tag), _) => message.tag == *tag,
        (Want::Row(values), Ok(backend::Message::DataRow(row))) => row
            .columns
            .iter()
            .map(Option::unwrap_or_default)
            .eq(values.iter().map(String::as_bytes)),
        (Want::Rows { token, count }, Ok(backend::Message::DataRow(row))) => {
            let value = row.columns.iter().next().flatten().unwrap_or_default();
            return nth(value, token, of_want + 1, *count);
        }
        (Want::Lines { token, count }, Ok(backend::Message::CopyData(line))) => {
            return nth(line.data, token, of_want + 1, *count);
        }
        (Want::Complete(command), Ok(backend::Message::CommandComplete(complete))) => {
            complete.tag == command.as_bytes()
        }
        (Want::Ready(_) | Want::AnyUntilReady, Ok(backend::Message::ReadyForQuery(_))) => {
            matches!(due, Want::AnyUntilReady) || message.body().first() == ready_of(due)
        }
        (Want::AnyUntilReady, Ok(_)) => return Verdict::More,
        _ => false,
    };
    if done { Verdict::Done } else { Verdict::Wrong }
}

fn ready_of(due: &Want) -> Option<&u8> {
    match due {
        Want::Ready(status) => Some(status),
        _ => None,
    }
}

fn nth(value: &[u8], token: &str, n: usize, count: usize) -> Verdict {
    let wanted = format!("{token}:{n}");
    let first = value.split(|byte| matches!(byte, b' ' | b'\n')).next();
    match first == Some(wanted.as_bytes()) {
        true if n == count => Verdict::Done,
        true => Verdict::More,
        false => Verdict::Wrong,
    }
}

fn judge_error(message: &Message, due: &Want) -> Verdict {
    let sqlstate = message.sqlstate().unwrap_or_default();
    match due {
        Want::Error(wanted) if *wanted == sqlstate => Verdict::Done,
        _ if DISRUPTIONS.contains(&sqlstate.as_str()) => Verdict::Disrupted,
        _ => Verdict::Wrong,
    }
}

fn disrupted(news: &Message) -> Heard {
    Heard::Disrupted(news.sqlstate().unwrap_or_default())
}

/// After the news of a death come more such news, and the end of the connection or ReadyForQuery, but no result.
fn until_the_end(client: &mut Client, due: &Want, news: &Message) -> Heard {
    loop {
        match client.read() {
            Ok(message) if message.tag == tag::READY_FOR_QUERY => return disrupted(news),
            Ok(message) if matches!(message.tag, tag::NOTICE_RESPONSE | tag::PARAMETER_STATUS) => {}
            Ok(message)
                if message
                    .sqlstate()
                    .is_some_and(|code| DISRUPTIONS.contains(&code.as_str())) => {}
            Ok(message) => {
                return Heard::Wrong(format!(
                    "after {news:?}, where {due:?} was due: {message:?}"
                ));
            }
            Err(ClientError::Closed(_) | ClientError::Io { .. }) => return disrupted(news),
            Err(error) => {
                return Heard::Wrong(format!("after {news:?}, where {due:?} was due: {error}"));
            }
        }
    }
}
