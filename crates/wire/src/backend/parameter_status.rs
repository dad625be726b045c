//! ParameterStatus: the value of a reported parameter.

use super::tag;
use crate::{error::DecodeError, reader::Reader, writer};

/// The value of a parameter that the server reports (GUC_REPORT), at the start and whenever it changes.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-PARAMETERSTATUS>
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ParameterStatus<'a> {
    /// The parameter's name, in the server's spelling.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
}

text_debug!(ParameterStatus {} text { name, value });

impl<'a> ParameterStatus<'a> {
    /// Decodes the body.
    ///
    /// # Errors
    ///
    /// [`DecodeError::MissingNul`] and [`DecodeError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("ParameterStatus", body);
        let status = Self {
            name: reader.cstr("name")?,
            value: reader.cstr("value")?,
        };
        reader.finish()?;
        Ok(status)
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::message(out, tag::PARAMETER_STATUS, |w| {
            w.cstr(self.name);
            w.cstr(self.value);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anatomy, backend::Message};

    #[test]
    fn parameter_status_holds_its_anatomy() {
        let status = ParameterStatus {
            name: b"TimeZone",
            value: b"UTC",
        };
        anatomy::backend(
            Message::ParameterStatus(status),
            b"S\0\0\0\x11TimeZone\0UTC\0",
        );
    }
}
