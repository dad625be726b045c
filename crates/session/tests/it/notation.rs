//! Messages as text and back, so that a test reads as the exchange that it is about.
//!
//! A message is its name and, in parentheses, what matters of it: `Parse(name,text)`, `Bind(portal,statement,value)`,
//! `Row(value)`, `Error(42601 words)`. Messages are separated by ` | `. In a statement name `$7` stands for `pgweir_1_7`.

use pgweir_wire::backend::{self, ErrorBuilder, Severity};
use pgweir_wire::frontend::{self, Target};
use pgweir_wire::{Frames, List, ListBuf, TransactionStatus, backend::Column};

/// Returns the bytes of a client's messages.
pub(crate) fn client_bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for (word, rest) in messages(text) {
        put_frontend(word, rest, &mut out);
    }
    out
}

/// Returns the bytes of a server's messages.
pub(crate) fn server_bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for (word, rest) in messages(text) {
        put_backend(word, rest, &mut out);
    }
    out
}

fn messages(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(" | ")
        .filter(|message| !message.is_empty())
        .map(|message| match message.split_once('(') {
            Some((word, rest)) => (word, rest.strip_suffix(')').expect("a closing parenthesis")),
            None => (message, ""),
        })
}

fn put_frontend(word: &str, rest: &str, out: &mut Vec<u8>) {
    let (first, second) = rest.split_once(',').unwrap_or((rest, ""));
    match word {
        "Parse" => {
            let name = full_name(first);
            let sql = second.as_bytes();
            frontend::Parse {
                name: name.as_bytes(),
                sql,
                parameter_types: List::EMPTY,
            }
            .encode(out);
        }
        "Bind" => {
            let (statement, value) = match second.split_once(',') {
                Some((statement, value)) => (statement, Some(value)),
                None => (second, None),
            };
            bind(
                first.as_bytes(),
                full_name(statement).as_bytes(),
                value.map(str::as_bytes),
                out,
            );
        }
        "Describe" | "Close" => {
            let (kind, name) = rest.split_once(' ').expect("S or P, and a name");
            let kind = if kind == "S" {
                Target::Statement
            } else {
                Target::Portal
            };
            let name = full_name(name);
            let name = name.as_bytes();
            match word {
                "Describe" => frontend::Describe { kind, name }.encode(out),
                _ => frontend::Close { kind, name }.encode(out),
            }
        }
        "Execute" => {
            let max_rows = second.parse().unwrap_or(0);
            frontend::Execute {
                portal: first.as_bytes(),
                max_rows,
            }
            .encode(out);
        }
        "Query" => frontend::Query {
            sql: rest.as_bytes(),
        }
        .encode(out),
        "Sync" => frontend::Sync.encode(out),
        "Flush" => frontend::Flush.encode(out),
        "Terminate" => frontend::Terminate.encode(out),
        "CopyData" => frontend::CopyData {
            data: rest.as_bytes(),
        }
        .encode(out),
        "CopyDone" => frontend::CopyDone.encode(out),
        "CopyFail" => frontend::CopyFail {
            message: rest.as_bytes(),
        }
        .encode(out),
        "Call" => out.extend_from_slice(b"F\0\0\0\x0e\0\0\0\x2a\0\0\0\0\0\0"),
        _ => panic!("no such frontend message: {word}"),
    }
}

/// Appends a Bind with at most one parameter.
pub(crate) fn bind(portal: &[u8], statement: &[u8], value: Option<&[u8]>, out: &mut Vec<u8>) {
    let parameters = ListBuf::collect(value.map(Some)).unwrap();
    frontend::Bind {
        portal,
        statement,
        parameter_formats: List::EMPTY,
        parameters: parameters.as_list(),
        result_formats: List::EMPTY,
    }
    .encode(out);
}

fn put_backend(word: &str, rest: &str, out: &mut Vec<u8>) {
    match word {
        "ParseComplete" => backend::ParseComplete.encode(out),
        "BindComplete" => backend::BindComplete.encode(out),
        "CloseComplete" => backend::CloseComplete.encode(out),
        "ParameterDescription" => backend::ParameterDescription {
            parameter_types: List::EMPTY,
        }
        .encode(out),
        "RowDescription" => row_description(&[rest], out),
        "NoData" => backend::NoData.encode(out),
        "Row" => row(rest.as_bytes(), out),
        "Complete" => backend::CommandComplete {
            tag: rest.as_bytes(),
        }
        .encode(out),
        "Empty" => backend::EmptyQueryResponse.encode(out),
        "Suspended" => backend::PortalSuspended.encode(out),
        "CopyIn" => backend::CopyInResponse {
            format: 0,
            column_formats: List::EMPTY,
        }
        .encode(out),
        "CopyOut" => backend::CopyOutResponse {
            format: 0,
            column_formats: List::EMPTY,
        }
        .encode(out),
        "CopyData" => backend::CopyData {
            data: rest.as_bytes(),
        }
        .encode(out),
        "CopyDone" => backend::CopyDone.encode(out),
        "Result" => backend::FunctionCallResponse {
            value: Some(rest.as_bytes()),
        }
        .encode(out),
        "Error" => {
            let (code, message) = rest.split_once(' ').expect("an SQLSTATE and a message");
            out.extend(error(code, message));
        }
        "Notice" => {
            let mut bytes = ErrorBuilder::new(Severity::Notice, *b"00000", rest).build();
            bytes[0] = backend::tag::NOTICE_RESPONSE;
            out.extend(bytes);
        }
        "Notification" => {
            backend::NotificationResponse {
                process_id: 1,
                channel: rest.as_bytes(),
                payload: b"",
            }
            .encode(out);
        }
        "Status" => {
            let (name, value) = rest.split_once('=').expect("name=value");
            backend::ParameterStatus {
                name: name.as_bytes(),
                value: value.as_bytes(),
            }
            .encode(out);
        }
        "Ready" => {
            let status = TransactionStatus::from_byte(rest.as_bytes()[0]).unwrap();
            backend::ReadyForQuery { status }.encode(out);
        }
        _ => panic!("no such backend message: {word}"),
    }
}

/// Returns an ErrorResponse.
pub(crate) fn error(code: &str, message: &str) -> Vec<u8> {
    let sqlstate = code.as_bytes().try_into().expect("five bytes");
    ErrorBuilder::new(Severity::Error, sqlstate, message).build()
}

/// Appends a DataRow of one value.
pub(crate) fn row(value: &[u8], out: &mut Vec<u8>) {
    let columns = ListBuf::collect([Some(value)]).unwrap();
    backend::DataRow {
        columns: columns.as_list(),
    }
    .encode(out);
}

/// Appends a RowDescription of text columns.
pub(crate) fn row_description(names: &[&str], out: &mut Vec<u8>) {
    let mut columns = ListBuf::new();
    for name in names {
        let column = Column {
            name: name.as_bytes(),
            table: 0,
            attribute: 0,
            type_id: 25,
            type_size: -1,
            type_modifier: -1,
            format: 0,
        };
        columns.push(column).unwrap();
    }
    backend::RowDescription {
        columns: columns.as_list(),
    }
    .encode(out);
}

/// Returns what a server was sent, as text.
pub(crate) fn show_client(bytes: &[u8]) -> String {
    show(bytes, |tag, body| match frontend_text(tag, body) {
        Some(text) => text,
        None => format!("?{}({})", char::from(tag), body.len()),
    })
}

/// Returns what a client was sent, as text.
pub(crate) fn show_server(bytes: &[u8]) -> String {
    show(bytes, |tag, body| match backend_text(tag, body) {
        Some(text) => text,
        None => format!("?{}({})", char::from(tag), body.len()),
    })
}

fn show(bytes: &[u8], one: impl Fn(u8, &[u8]) -> String) -> String {
    let mut frames = Frames::new(bytes);
    let mut shown = Vec::new();
    while let Ok(Some(frame)) = frames.next() {
        shown.push(one(frame.tag, frame.body()));
    }
    if !frames.rest().is_empty() {
        shown.push(format!("({} bytes)", frames.rest().len()));
    }
    shown.join(" | ")
}

fn frontend_text(tag: u8, body: &[u8]) -> Option<String> {
    use frontend::tag;
    Some(match tag {
        tag::PARSE => {
            let parse = frontend::Parse::decode(body).ok()?;
            format!("Parse({},{})", short_name(parse.name), short(parse.sql))
        }
        tag::BIND => {
            let bind = frontend::Bind::decode(body).ok()?;
            let value = bind.parameters.iter().next().flatten();
            let value = value
                .map(|value| format!(",{}", short(value)))
                .unwrap_or_default();
            format!(
                "Bind({},{}{value})",
                text(bind.portal),
                short_name(bind.statement)
            )
        }
        tag::DESCRIBE => {
            let describe = frontend::Describe::decode(body).ok()?;
            format!("Describe({})", target(describe.kind, describe.name))
        }
        tag::CLOSE => {
            let close = frontend::Close::decode(body).ok()?;
            format!("Close({})", target(close.kind, close.name))
        }
        tag::EXECUTE => {
            let execute = frontend::Execute::decode(body).ok()?;
            match (execute.portal, execute.max_rows) {
                (b"", 0) => "Execute".to_owned(),
                (portal, 0) => format!("Execute({})", text(portal)),
                (portal, max_rows) => format!("Execute({},{max_rows})", text(portal)),
            }
        }
        tag::QUERY => format!("Query({})", short(frontend::Query::decode(body).ok()?.sql)),
        tag::SYNC => "Sync".to_owned(),
        tag::FLUSH => "Flush".to_owned(),
        tag::TERMINATE => "Terminate".to_owned(),
        tag::FUNCTION_CALL => "Call".to_owned(),
        tag::COPY_DATA => format!("CopyData({})", short(body)),
        tag::COPY_DONE => "CopyDone".to_owned(),
        tag::COPY_FAIL => format!(
            "CopyFail({})",
            text(frontend::CopyFail::decode(body).ok()?.message)
        ),
        _ => return None,
    })
}

fn backend_text(tag: u8, body: &[u8]) -> Option<String> {
    use backend::tag;
    Some(match tag {
        tag::PARSE_COMPLETE => "ParseComplete".to_owned(),
        tag::BIND_COMPLETE => "BindComplete".to_owned(),
        tag::CLOSE_COMPLETE => "CloseComplete".to_owned(),
        tag::PARAMETER_DESCRIPTION => "ParameterDescription".to_owned(),
        tag::ROW_DESCRIPTION => {
            let columns = backend::RowDescription::decode(body).ok()?.columns;
            let name = columns
                .iter()
                .next()
                .map(|column| text(column.name))
                .unwrap_or_default();
            format!("RowDescription({name})")
        }
        tag::NO_DATA => "NoData".to_owned(),
        tag::DATA_ROW => {
            let columns = backend::DataRow::decode(body).ok()?.columns;
            format!(
                "Row({})",
                columns
                    .iter()
                    .next()
                    .flatten()
                    .map(short)
                    .unwrap_or_default()
            )
        }
        tag::COMMAND_COMPLETE => format!(
            "Complete({})",
            text(backend::CommandComplete::decode(body).ok()?.tag)
        ),
        tag::EMPTY_QUERY_RESPONSE => "Empty".to_owned(),
        tag::PORTAL_SUSPENDED => "Suspended".to_owned(),
        tag::COPY_IN_RESPONSE => "CopyIn".to_owned(),
        tag::COPY_OUT_RESPONSE => "CopyOut".to_owned(),
        tag::COPY_DATA => format!("CopyData({})", short(body)),
        tag::COPY_DONE => "CopyDone".to_owned(),
        tag::FUNCTION_CALL_RESPONSE => {
            let value = backend::FunctionCallResponse::decode(body).ok()?.value;
            format!("Result({})", value.map(short).unwrap_or_default())
        }
        tag::ERROR_RESPONSE => {
            let error = backend::ErrorResponse::decode(body).ok()?;
            format!(
                "Error({} {})",
                text(&error.sqlstate()?),
                short(error.message())
            )
        }
        tag::NOTICE_RESPONSE => {
            format!(
                "Notice({})",
                text(backend::NoticeResponse::decode(body).ok()?.message())
            )
        }
        tag::NOTIFICATION_RESPONSE => {
            format!(
                "Notification({})",
                text(backend::NotificationResponse::decode(body).ok()?.channel)
            )
        }
        tag::PARAMETER_STATUS => {
            let status = backend::ParameterStatus::decode(body).ok()?;
            format!("Status({}={})", text(status.name), text(status.value))
        }
        tag::READY_FOR_QUERY => format!("Ready({})", text(body)),
        _ => return None,
    })
}

fn target(kind: Target, name: &[u8]) -> String {
    let kind = if kind == Target::Statement { "S" } else { "P" };
    format!("{kind} {}", short_name(name))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A long text is shown by its beginning and length.
fn short(bytes: &[u8]) -> String {
    match bytes.get(..20) {
        Some(front) if bytes.len() > 200 => format!("{}..{}", text(front), bytes.len()),
        _ => text(bytes),
    }
}

const SERVER_NAME: &str = "pgweir_1_";

fn full_name(name: &str) -> String {
    name.strip_prefix('$').map_or_else(
        || name.to_owned(),
        |number| format!("{SERVER_NAME}{number}"),
    )
}

fn short_name(name: &[u8]) -> String {
    let name = text(name);
    name.strip_prefix(SERVER_NAME)
        .map(|number| format!("${number}"))
        .unwrap_or(name)
}

#[test]
fn what_is_written_reads_the_same() {
    let client = "Parse($3,select $1) | Bind(p,$3,x) | Describe(S $3) | Close(P p) | Execute(p,2) | Execute | Sync | \
                  Query(select 1) | Flush | CopyData(x) | CopyDone | CopyFail(no) | Call | Terminate";
    assert_eq!(show_client(&client_bytes(client)), client);
    let server = "ParseComplete | BindComplete | CloseComplete | ParameterDescription | RowDescription(c) | NoData | \
                  Row(1) | Complete(SELECT 1) | Empty | Suspended | CopyIn | CopyOut | CopyData(x) | CopyDone | \
                  Result(7) | Error(42601 no) | Notice(hm) | Notification(ch) | Status(a=b) | Ready(T)";
    assert_eq!(show_server(&server_bytes(server)), server);
}
