//! Backend messages: what a server sends. One file per message, all with the same anatomy: a borrowing view, `decode`
//! from a body, `encode` onto a buffer.
//!
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>

mod authentication;
mod backend_key_data;
mod command_complete;
mod copy_response;
mod data_row;
mod empty;
mod error_response;
mod function_call_response;
mod negotiate_protocol_version;
mod notification_response;
mod parameter_description;
mod parameter_status;
mod ready_for_query;
mod row_description;

pub use self::{
    authentication::{Authentication, Mechanism},
    backend_key_data::BackendKeyData,
    command_complete::{CommandComplete, rows_of},
    copy_response::{CopyBothResponse, CopyInResponse, CopyOutResponse},
    data_row::DataRow,
    empty::{
        BindComplete, CloseComplete, EmptyQueryResponse, NoData, ParseComplete, PortalSuspended,
    },
    error_response::{ErrorBuilder, ErrorField, ErrorResponse, NoticeResponse, Severity, field},
    function_call_response::FunctionCallResponse,
    negotiate_protocol_version::NegotiateProtocolVersion,
    notification_response::NotificationResponse,
    parameter_description::ParameterDescription,
    parameter_status::ParameterStatus,
    ready_for_query::ReadyForQuery,
    row_description::{Column, ColumnElement, RowDescription},
};
pub use crate::copy::{CopyData, CopyDone};

messages! {
    /// Any backend message. Relays look at the tag and decode only the view that they need; this is for tools and tests.
    "backend":
    /// A request for authentication, or its good end.
    AUTHENTICATION = b'R' => Authentication(Authentication<'a>),
    /// The key that cancels this session's statements.
    BACKEND_KEY_DATA = b'K' => BackendKeyData(BackendKeyData<'a>),
    /// The answer to Bind.
    BIND_COMPLETE = b'2' => BindComplete(BindComplete),
    /// The answer to Close.
    CLOSE_COMPLETE = b'3' => CloseComplete(CloseComplete),
    /// The good end of a statement.
    COMMAND_COMPLETE = b'C' => CommandComplete(CommandComplete<'a>),
    /// Both sides stream (replication).
    COPY_BOTH_RESPONSE = b'W' => CopyBothResponse(CopyBothResponse<'a>),
    /// A piece of COPY data.
    COPY_DATA = b'd' => CopyData(CopyData<'a>),
    /// The end of COPY data.
    COPY_DONE = b'c' => CopyDone(CopyDone),
    /// The client must send COPY data.
    COPY_IN_RESPONSE = b'G' => CopyInResponse(CopyInResponse<'a>),
    /// COPY data follows.
    COPY_OUT_RESPONSE = b'H' => CopyOutResponse(CopyOutResponse<'a>),
    /// One row.
    DATA_ROW = b'D' => DataRow(DataRow<'a>),
    /// The end of a statement without text.
    EMPTY_QUERY_RESPONSE = b'I' => EmptyQueryResponse(EmptyQueryResponse),
    /// An error.
    ERROR_RESPONSE = b'E' => ErrorResponse(ErrorResponse<'a>),
    /// The result of a FunctionCall.
    FUNCTION_CALL_RESPONSE = b'V' => FunctionCallResponse(FunctionCallResponse<'a>),
    /// The server speaks an older minor version, or does not know some options.
    NEGOTIATE_PROTOCOL_VERSION = b'v' => NegotiateProtocolVersion(NegotiateProtocolVersion<'a>),
    /// The described statement returns no rows.
    NO_DATA = b'n' => NoData(NoData),
    /// A notice: an error's shape, without its consequences.
    NOTICE_RESPONSE = b'N' => NoticeResponse(NoticeResponse<'a>),
    /// A NOTIFY of some session.
    NOTIFICATION_RESPONSE = b'A' => NotificationResponse(NotificationResponse<'a>),
    /// The parameter types of the described statement.
    PARAMETER_DESCRIPTION = b't' => ParameterDescription(ParameterDescription<'a>),
    /// The value of a reported parameter.
    PARAMETER_STATUS = b'S' => ParameterStatus(ParameterStatus<'a>),
    /// The answer to Parse.
    PARSE_COMPLETE = b'1' => ParseComplete(ParseComplete),
    /// An Execute stopped at its row limit.
    PORTAL_SUSPENDED = b's' => PortalSuspended(PortalSuspended),
    /// The server waits for the next batch.
    READY_FOR_QUERY = b'Z' => ReadyForQuery(ReadyForQuery),
    /// The columns of the rows that follow, or of the described statement.
    ROW_DESCRIPTION = b'T' => RowDescription(RowDescription<'a>),
}
