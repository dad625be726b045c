//! Frontend messages: what a client sends. One file per message, all with the same anatomy: a borrowing view, `decode`
//! from a body, `encode` onto a buffer.
//!
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>

mod bind;
mod copy_fail;
mod empty;
mod execute;
mod function_call;
mod parse;
mod password;
mod query;
mod target;

pub use self::{
    bind::{Bind, BindHead, bind_head},
    copy_fail::CopyFail,
    empty::{Flush, Sync, Terminate},
    execute::Execute,
    function_call::FunctionCall,
    parse::{Parse, ParseHead, parse_head},
    password::{Password, SaslInitialResponse, SaslResponse},
    query::Query,
    target::{Close, Describe, Target, target_head},
};
pub use crate::copy::{CopyData, CopyDone};

messages! {
    /// Any frontend message. Relays look at the tag and decode only the view that they need; this is for tools and tests.
    "frontend":
    /// Parameters of a prepared statement.
    BIND = b'B' => Bind(Bind<'a>),
    /// Forget a statement or portal.
    CLOSE = b'C' => Close(Close<'a>),
    /// A piece of COPY data.
    COPY_DATA = b'd' => CopyData(CopyData<'a>),
    /// The end of COPY data.
    COPY_DONE = b'c' => CopyDone(CopyDone),
    /// COPY is given up.
    COPY_FAIL = b'f' => CopyFail(CopyFail<'a>),
    /// What does a statement or portal look like?
    DESCRIBE = b'D' => Describe(Describe<'a>),
    /// Run a portal.
    EXECUTE = b'E' => Execute(Execute<'a>),
    /// Send what you have.
    FLUSH = b'H' => Flush(Flush),
    /// Call a function by its object ID.
    FUNCTION_CALL = b'F' => FunctionCall(FunctionCall<'a>),
    /// Prepare a statement.
    PARSE = b'P' => Parse(Parse<'a>),
    /// Any answer to an authentication request: password, SASL or GSS data, told apart by what was asked.
    PASSWORD = b'p' => Password(Password<'a>),
    /// A simple query.
    QUERY = b'Q' => Query(Query<'a>),
    /// The end of an extended-query batch.
    SYNC = b'S' => Sync(Sync),
    /// The client leaves.
    TERMINATE = b'X' => Terminate(Terminate),
}
