//! Parse: makes a prepared statement.

use super::{bind::head_name, tag};
use crate::{
    error::DecodeError,
    list::{List, Oid},
    reader::Reader,
    writer,
};

/// The preparation of a statement.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-PARSE>
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Parse<'a> {
    /// The statement's name; empty for the unnamed statement.
    pub name: &'a [u8],
    /// The text, in the client's encoding.
    pub sql: &'a [u8],
    /// Types that the client fixes, by object ID; 0 and missing ones are left to the server.
    pub parameter_types: List<'a, Oid>,
}

impl std::fmt::Debug for Parse<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parse")
            .field("name", &String::from_utf8_lossy(self.name))
            .field("sql", &crate::redact::Redacted(self.sql))
            .field("parameter_types", &self.parameter_types)
            .finish()
    }
}

impl<'a> Parse<'a> {
    /// Decodes the body.
    ///
    /// # Errors
    ///
    /// [`DecodeError::MissingNul`], [`DecodeError::Truncated`] and [`DecodeError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("Parse", body);
        let name = reader.cstr("statement name")?;
        let sql = reader.cstr("query string")?;
        let parameter_types = reader.counted()?;
        reader.finish()?;
        Ok(Self {
            name,
            sql,
            parameter_types,
        })
    }

    /// Returns the parameter types as they stand in the message, four bytes each, without the count.
    #[must_use]
    pub fn parameter_types_raw(&self) -> &'a [u8] {
        self.parameter_types.raw()
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::message(out, tag::PARSE, |w| {
            w.cstr(self.name);
            w.cstr(self.sql);
            w.counted(self.parameter_types);
        });
    }
}

/// The front of a Parse, which may be larger than the read buffer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ParseHead<'a> {
    /// The statement's name.
    pub name: &'a [u8],
    /// Where the untouched tail (text and types) begins in the body, in bytes.
    pub rest_offset: usize,
}

text_debug!(ParseHead { rest_offset } text { name });

impl<'a> ParseHead<'a> {
    /// Decodes the front of a body of which `prefix` has arrived; `None` while the name is not whole.
    ///
    /// With a whole body `None` means that it is malformed.
    ///
    /// # Errors
    ///
    /// [`DecodeError::TooLarge`] for a name over [`limits::MAX_NAME`](crate::limits::MAX_NAME).
    pub fn decode(prefix: &'a [u8]) -> Result<Option<Self>, DecodeError> {
        Ok(head_name("statement name", prefix)?.map(|name| Self {
            name,
            rest_offset: name.len() + 1,
        }))
    }
}

/// Appends the head of a Parse with another `name` to `out`; the tail of `rest_len` bytes (text and types) must follow.
#[inline]
pub fn parse_head(out: &mut Vec<u8>, name: &[u8], rest_len: usize) {
    writer::head(out, tag::PARSE, rest_len, |w| w.cstr(name));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anatomy, frontend::Message, list::ListBuf};

    #[test]
    fn parse_holds_its_anatomy() {
        let types = ListBuf::<Oid>::collect([23, 0]).unwrap();
        let parse = Parse {
            name: b"s1",
            sql: b"select $1",
            parameter_types: types.as_list(),
        };
        let bytes = b"P\0\0\0\x1bs1\0select $1\0\0\x02\0\0\0\x17\0\0\0\0";
        anatomy::frontend(Message::Parse(parse), bytes);
        assert_eq!(parse.parameter_types_raw(), b"\0\0\0\x17\0\0\0\0");
        let unnamed = Parse {
            name: b"",
            sql: b"",
            parameter_types: List::EMPTY,
        };
        anatomy::frontend(Message::Parse(unnamed), b"P\0\0\0\x08\0\0\0\0");
    }

    #[test]
    fn a_count_beyond_the_body_is_refused_without_allocation() {
        assert!(matches!(
            Parse::decode(b"\0\0\xff\xff\0\0\0\x17"),
            Err(DecodeError::Truncated {
                message: "Parse",
                offset: 4,
                ..
            })
        ));
    }

    #[test]
    fn a_rewritten_head_and_the_old_tail_make_a_whole_message() {
        let mut original = Vec::new();
        Parse {
            name: b"client_name",
            sql: b"select 1",
            parameter_types: List::EMPTY,
        }
        .encode(&mut original);
        let body = &original[5..];
        let head = ParseHead::decode(body).unwrap().unwrap();
        assert_eq!(head.name, b"client_name");
        let mut rewritten = Vec::new();
        let rest = &body[head.rest_offset..];
        parse_head(&mut rewritten, b"p1", rest.len());
        rewritten.extend_from_slice(rest);
        let mut expected = Vec::new();
        Parse {
            name: b"p1",
            sql: b"select 1",
            parameter_types: List::EMPTY,
        }
        .encode(&mut expected);
        assert_eq!(rewritten, expected);
    }
}
