//! CopyFail: the client gives COPY up.

use super::tag;
use crate::{error::DecodeError, reader::Reader, writer};

/// The failure of a COPY on the client's side.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-COPYFAIL>
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CopyFail<'a> {
    /// Why, for the server's error message.
    pub message: &'a [u8],
}

text_debug!(CopyFail {} text { message });

impl<'a> CopyFail<'a> {
    /// Decodes the body.
    ///
    /// # Errors
    ///
    /// [`DecodeError::MissingNul`] and [`DecodeError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("CopyFail", body);
        let message = reader.cstr("message")?;
        reader.finish()?;
        Ok(Self { message })
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::message(out, tag::COPY_FAIL, |w| w.cstr(self.message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anatomy, frontend::Message};

    #[test]
    fn copy_fail_holds_its_anatomy() {
        anatomy::frontend(
            Message::CopyFail(CopyFail { message: b"no" }),
            b"f\0\0\0\x07no\0",
        );
    }
}
