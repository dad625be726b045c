//! Query: the whole simple query cycle in one message.

use super::tag;
use crate::{error::DecodeError, reader::Reader, writer};

/// A simple query: one or more statements.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-QUERY>
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Query<'a> {
    /// The text, in the client's encoding, without its zero byte.
    pub sql: &'a [u8],
}

redacted_debug!(Query {} hides { sql });

impl<'a> Query<'a> {
    /// Decodes the body.
    ///
    /// # Errors
    ///
    /// [`DecodeError::MissingNul`] and [`DecodeError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("Query", body);
        let sql = reader.cstr("query string")?;
        reader.finish()?;
        Ok(Self { sql })
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::message(out, tag::QUERY, |w| w.cstr(self.sql));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anatomy, frontend::Message};

    #[test]
    fn query_holds_its_anatomy() {
        anatomy::frontend(
            Message::Query(Query { sql: b"select 1" }),
            b"Q\0\0\0\x0dselect 1\0",
        );
        anatomy::frontend(Message::Query(Query { sql: b"" }), b"Q\0\0\0\x05\0");
    }

    #[test]
    fn debug_output_hides_the_text() {
        assert_eq!(
            format!("{:?}", Query { sql: b"select 1" }),
            "Query { sql: <8 bytes> }"
        );
    }
}
