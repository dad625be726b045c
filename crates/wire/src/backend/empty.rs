//! Backend messages without a body.

use super::tag;

empty_message! {
    /// The answer to Parse.
    ///
    /// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-PARSECOMPLETE>
    ParseComplete, tag::PARSE_COMPLETE
}

empty_message! {
    /// The answer to Bind.
    ///
    /// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-BINDCOMPLETE>
    BindComplete, tag::BIND_COMPLETE
}

empty_message! {
    /// The answer to Close.
    ///
    /// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-CLOSECOMPLETE>
    CloseComplete, tag::CLOSE_COMPLETE
}

empty_message! {
    /// The end of a statement without text; it stands in for CommandComplete.
    ///
    /// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-EMPTYQUERYRESPONSE>
    EmptyQueryResponse, tag::EMPTY_QUERY_RESPONSE
}

empty_message! {
    /// The described statement or portal returns no rows.
    ///
    /// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-NODATA>
    NoData, tag::NO_DATA
}

empty_message! {
    /// An Execute stopped at its row limit; another Execute goes on.
    ///
    /// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-PORTALSUSPENDED>
    PortalSuspended, tag::PORTAL_SUSPENDED
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anatomy, backend::Message};

    #[test]
    fn messages_without_a_body_hold_their_anatomy() {
        for (message, tag) in [
            (Message::ParseComplete(ParseComplete), b'1'),
            (Message::BindComplete(BindComplete), b'2'),
            (Message::CloseComplete(CloseComplete), b'3'),
            (Message::EmptyQueryResponse(EmptyQueryResponse), b'I'),
            (Message::NoData(NoData), b'n'),
            (Message::PortalSuspended(PortalSuspended), b's'),
        ] {
            anatomy::backend(message, &[tag, 0, 0, 0, 4]);
        }
    }
}
