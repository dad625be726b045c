//! Sync, Flush and Terminate: frontend messages without a body.

use super::tag;

empty_message! {
    /// The end of an extended-query batch: the server commits or rolls back an implicit transaction and reports ReadyForQuery.
    ///
    /// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-SYNC>
    Sync, tag::SYNC
}

empty_message! {
    /// A request to send what is ready, without ending the batch.
    ///
    /// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-FLUSH>
    Flush, tag::FLUSH
}

empty_message! {
    /// The client leaves.
    ///
    /// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-TERMINATE>
    Terminate, tag::TERMINATE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anatomy, frontend::Message};

    #[test]
    fn messages_without_a_body_hold_their_anatomy() {
        anatomy::frontend(Message::Sync(Sync), b"S\0\0\0\x04");
        anatomy::frontend(Message::Flush(Flush), b"H\0\0\0\x04");
        anatomy::frontend(Message::Terminate(Terminate), b"X\0\0\0\x04");
    }
}
