//! A simple query of our own on a server connection, outside of any client's session.

use std::time::Duration;

use pgweir_wire::backend::{DataRow, ErrorResponse, ParameterStatus, ReadyForQuery, tag};
use pgweir_wire::frontend::Query;
use pgweir_wire::{Frames, HEADER_LEN, Header};

use crate::error::ConnectError;
use crate::server_connection::ServerConnection;

/// The columns of a row, as text.
pub type Row = Vec<Option<Box<str>>>;

/// Runs SQL and waits for ReadyForQuery. Returns the last row of its results; empty if there was none.
///
/// # Errors
/// [`ConnectError`]: the SQL failed, or the connection did. Close it.
///
/// # Cancel safety
/// Not cancel safe: close the connection when the call was dropped.
pub async fn run_simple(
    connection: &mut ServerConnection,
    sql: &[u8],
    limit: Duration,
) -> Result<Row, ConnectError> {
    let mut request = Vec::with_capacity(sql.len() + HEADER_LEN + 1);
    Query { sql }.encode(&mut request);
    let work = async {
        // Whatever comes of it: a simple query drops the unnamed statement.
        connection.state.session.unnamed = None;
        connection.stream.write_all(&request).await?;
        let mut buffer = Vec::new();
        let mut row = Row::new();
        loop {
            if read_replies(connection, &mut buffer, &mut row)? {
                return Ok(row);
            }
            if connection.stream.read_some(&mut buffer).await? == 0 {
                return Err(ConnectError::Unexpected { tag: 0 });
            }
        }
    };
    tokio::time::timeout(limit, work)
        .await
        .map_err(|_| ConnectError::Timeout)?
}

/// Takes whole messages off the front of `buffer`; returns whether ReadyForQuery was among them, as the last.
fn read_replies(
    connection: &mut ServerConnection,
    buffer: &mut Vec<u8>,
    row: &mut Row,
) -> Result<bool, ConnectError> {
    let mut frames = Frames::new(buffer);
    let mut ready = false;
    while let Some(frame) = frames.next()? {
        match frame.tag {
            tag::ERROR_RESPONSE => return Err(refused(frame.bytes)),
            tag::PARAMETER_STATUS => {
                let status = ParameterStatus::decode(frame.body())?;
                let text = |bytes| String::from_utf8_lossy(bytes);
                connection
                    .state
                    .session
                    .report(&text(status.name), &text(status.value));
            }
            tag::READY_FOR_QUERY => {
                connection.state.session.status = ReadyForQuery::decode(frame.body())?.status;
                ready = true;
            }
            tag::DATA_ROW => {
                let text = |value: &[u8]| String::from_utf8_lossy(value).into();
                let columns = DataRow::decode(frame.body())?.columns;
                *row = columns.iter().map(|value| value.map(text)).collect();
            }
            tag::COMMAND_COMPLETE
            | tag::ROW_DESCRIPTION
            | tag::EMPTY_QUERY_RESPONSE
            | tag::NOTICE_RESPONSE
            | tag::NOTIFICATION_RESPONSE => {}
            tag => return Err(ConnectError::Unexpected { tag }),
        }
    }
    let consumed = frames.consumed();
    buffer.drain(..consumed);
    match buffer.first() {
        // Nothing may stand behind ReadyForQuery: nobody asked for more.
        Some(tag) if ready => Err(ConnectError::Unexpected { tag: *tag }),
        _ => Ok(ready),
    }
}

/// Makes an error of an ErrorResponse message, header included.
pub(crate) fn refused(message: &[u8]) -> ConnectError {
    let body = match Header::peek(message) {
        Ok(Some(_)) => message.get(HEADER_LEN..).unwrap_or_default(),
        Ok(None) | Err(_) => &[],
    };
    let error = match ErrorResponse::decode(body) {
        Ok(error) => error,
        Err(error) => return error.into(),
    };
    ConnectError::Refused {
        sqlstate: error.sqlstate().unwrap_or(*b"XX000"),
        message: String::from_utf8_lossy(error.message()).into_owned(),
        response: message.to_vec(),
    }
}
