//! The console as a client meets it: bytes over a stream, with a picture that stands still behind it.

mod answers;
mod changes;
mod clients;
mod engine;
mod hostile;
mod protocol;
mod queries;

use std::sync::Arc;
use std::time::Duration;

use pgweir_wire::backend::{Message as Backend, RowDescription};
use pgweir_wire::{Deframer, TransactionStatus, frontend};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;

use super::{Desk, Session, serve};
use crate::testing::Recorder;

/// How long an answer may take: a machine with other work on it included.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client of the console.
struct Talk {
    stream: DuplexStream,
    input: Deframer,
    cancel: watch::Sender<u64>,
    served: tokio::task::JoinHandle<()>,
}

impl Talk {
    async fn as_user(user: &str, may_change: bool, control: Arc<Recorder>) -> Talk {
        Talk::at_desk(user, may_change, control, Arc::default()).await
    }

    async fn at_desk(
        user: &str,
        may_change: bool,
        control: Arc<Recorder>,
        desk: Arc<Desk>,
    ) -> Talk {
        let (stream, theirs) = tokio::io::duplex(1 << 16);
        let (cancel, cancelled) = watch::channel(0);
        let session = Session {
            user: user.into(),
            may_change,
            database: "pgweir".into(),
            parameters: vec![("application_name".to_owned(), "tests".to_owned())],
            process_id: 77,
            secret: vec![1, 2, 3, 4],
            cancel: cancelled,
            desk,
        };
        let mut talk = Talk {
            stream,
            input: Deframer::new(1 << 28),
            cancel,
            served: tokio::spawn(serve(theirs, session, control)),
        };
        let greeting = talk.until_ready().await;
        assert_eq!(greeting.first().map(String::as_str), Some("Authentication"));
        talk
    }

    async fn admin() -> Talk {
        Talk::as_user("admin", true, Arc::default()).await
    }

    async fn send(&mut self, build: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        build(&mut bytes);
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn next(&mut self) -> Option<String> {
        let answer = async {
            loop {
                if let Some(frame) = self.input.next().unwrap() {
                    return Some(shown(&Backend::decode(frame.as_frame()).unwrap()));
                }
                if self.stream.read_buf(self.input.buffer_mut()).await.unwrap() == 0 {
                    return None;
                }
            }
        };
        tokio::time::timeout(PATIENCE, answer)
            .await
            .expect("an answer in time")
    }

    /// Returns the messages up to ReadyForQuery, or the end.
    async fn until_ready(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(message) = self.next().await {
            let is_ready = message.starts_with("Ready");
            all.push(message);
            if is_ready {
                break;
            }
        }
        all
    }

    async fn query(&mut self, sql: &str) -> Vec<String> {
        self.send(|out| {
            frontend::Query {
                sql: sql.as_bytes(),
            }
            .encode(out)
        })
        .await;
        self.until_ready().await
    }

    /// Returns the rows of a query, whose fields are separated by `|`.
    async fn rows(&mut self, sql: &str) -> Vec<String> {
        let answer = self.query(sql).await;
        let failed = answer.iter().find(|message| message.starts_with("Error"));
        assert_eq!(failed, None, "{sql}");
        let rows = answer
            .iter()
            .filter_map(|message| message.strip_prefix("Row "));
        rows.map(str::to_owned).collect()
    }

    /// Returns the error of a query.
    async fn error(&mut self, sql: &str) -> String {
        let answer = self.query(sql).await;
        let failed = answer.iter().find(|message| message.starts_with("Error"));
        failed
            .unwrap_or_else(|| panic!("{sql}: {answer:?}"))
            .clone()
    }

    /// Returns the columns of a query with the names of their types.
    async fn columns(&mut self, sql: &str) -> String {
        let answer = self.query(sql).await;
        let columns = answer
            .iter()
            .find_map(|message| message.strip_prefix("Columns "));
        columns
            .unwrap_or_else(|| panic!("{sql}: {answer:?}"))
            .to_owned()
    }
}

fn columns_of(description: &RowDescription<'_>) -> String {
    let columns = description.columns.iter().map(|column| {
        let name = String::from_utf8_lossy(column.name);
        let ty =
            super::types::PgType::of_oid(column.type_id).map_or("?", super::types::PgType::name);
        let format = if column.format == 1 { "/binary" } else { "" };
        format!("{name}:{ty}{format}")
    });
    columns.collect::<Vec<_>>().join(" ")
}

fn value(bytes: Option<&[u8]>) -> String {
    match bytes {
        None => "NULL".to_owned(),
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => text.to_owned(),
            _ => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        },
    }
}

/// A message in short.
fn shown(message: &Backend<'_>) -> String {
    match message {
        Backend::Authentication(_) => "Authentication".to_owned(),
        Backend::RowDescription(description) => format!("Columns {}", columns_of(description)),
        Backend::DataRow(row) => {
            format!(
                "Row {}",
                row.columns.iter().map(value).collect::<Vec<_>>().join("|")
            )
        }
        Backend::CommandComplete(complete) => {
            format!("Done {}", String::from_utf8_lossy(complete.tag))
        }
        Backend::ReadyForQuery(ready) => match ready.status {
            TransactionStatus::Idle => "Ready idle".to_owned(),
            TransactionStatus::InTransaction => "Ready in transaction".to_owned(),
            TransactionStatus::Failed => "Ready failed".to_owned(),
        },
        Backend::ErrorResponse(error) => {
            let text = |bytes: Option<&[u8]>| value(Some(bytes.unwrap_or_default()));
            let state = error.sqlstate().unwrap_or(*b"?????");
            let severity = if error.is_fatal() {
                "Error FATAL"
            } else {
                "Error"
            };
            format!(
                "{severity} {} {} {}",
                String::from_utf8_lossy(&state),
                text(Some(error.message())),
                text(error.hint())
            )
        }
        Backend::NoticeResponse(notice) => format!("Notice {}", value(Some(notice.message()))),
        Backend::ParameterDescription(description) => {
            let types = description
                .parameter_types
                .iter()
                .map(|oid| oid.to_string());
            format!("Parameters {}", types.collect::<Vec<_>>().join(" "))
        }
        Backend::ParameterStatus(status) => {
            let both = [status.name, status.value].map(|bytes| value(Some(bytes)));
            format!("Status {}", both.join("="))
        }
        other => format!("{other:?}")
            .split([' ', '(', '{'])
            .next()
            .unwrap_or_default()
            .to_owned(),
    }
}
