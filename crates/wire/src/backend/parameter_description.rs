//! ParameterDescription: the parameter types of a described statement.

use super::tag;
use crate::{
    error::DecodeError,
    list::{List, Oid},
    reader::Reader,
    writer,
};

/// The parameter types of a statement.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-PARAMETERDESCRIPTION>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterDescription<'a> {
    /// Object IDs of the types, one for each parameter.
    pub parameter_types: List<'a, Oid>,
}

impl<'a> ParameterDescription<'a> {
    /// Decodes the body.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`] and [`DecodeError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("ParameterDescription", body);
        let parameter_types = reader.counted()?;
        reader.finish()?;
        Ok(Self { parameter_types })
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::message(out, tag::PARAMETER_DESCRIPTION, |w| {
            w.counted(self.parameter_types)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anatomy, backend::Message, list::ListBuf};

    #[test]
    fn parameter_description_holds_its_anatomy() {
        let types = ListBuf::<Oid>::collect([23, 25]).unwrap();
        let description = ParameterDescription {
            parameter_types: types.as_list(),
        };
        anatomy::backend(
            Message::ParameterDescription(description),
            b"t\0\0\0\x0e\0\x02\0\0\0\x17\0\0\0\x19",
        );
    }
}
