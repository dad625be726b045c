//! Execute: runs a portal.

use super::tag;
use crate::{error::DecodeError, reader::Reader, writer};

/// The run of a portal.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-EXECUTE>
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Execute<'a> {
    /// The portal; empty for the unnamed one.
    pub portal: &'a [u8],
    /// How many rows to return before PortalSuspended; 0 (and, in PostgreSQL, below) for all.
    pub max_rows: i32,
}

text_debug!(Execute { max_rows } text { portal });

impl<'a> Execute<'a> {
    /// Decodes the body.
    ///
    /// # Errors
    ///
    /// [`DecodeError::MissingNul`], [`DecodeError::Truncated`] and [`DecodeError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("Execute", body);
        let execute = Self {
            portal: reader.cstr("portal name")?,
            max_rows: reader.i32("row limit")?,
        };
        reader.finish()?;
        Ok(execute)
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::message(out, tag::EXECUTE, |w| {
            w.cstr(self.portal);
            w.i32(self.max_rows);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anatomy, frontend::Message};

    #[test]
    fn execute_holds_its_anatomy() {
        anatomy::frontend(
            Message::Execute(Execute {
                portal: b"c",
                max_rows: 10,
            }),
            b"E\0\0\0\x0ac\0\0\0\0\x0a",
        );
        anatomy::frontend(
            Message::Execute(Execute {
                portal: b"",
                max_rows: -1,
            }),
            b"E\0\0\0\x09\0\xff\xff\xff\xff",
        );
    }
}
