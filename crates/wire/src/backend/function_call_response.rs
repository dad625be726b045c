//! FunctionCallResponse: the result of a FunctionCall.

use super::tag;
use crate::{error::DecodeError, reader::Reader, writer};

/// The result of a function call.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-FUNCTIONCALLRESPONSE>
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FunctionCallResponse<'a> {
    /// The value in the format asked for; `None` is NULL.
    pub value: Option<&'a [u8]>,
}

impl std::fmt::Debug for FunctionCallResponse<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FunctionCallResponse")
            .field("value", &self.value.map(crate::redact::Redacted))
            .finish()
    }
}

impl<'a> FunctionCallResponse<'a> {
    /// Decodes the body.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`], [`DecodeError::Trailing`], and [`DecodeError::BadValue`] for a negative length other than -1.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("FunctionCallResponse", body);
        let value = reader.value("result")?;
        reader.finish()?;
        Ok(Self { value })
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::message(out, tag::FUNCTION_CALL_RESPONSE, |w| w.value(self.value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anatomy, backend::Message};

    #[test]
    fn function_call_response_holds_its_anatomy() {
        let response = |value| Message::FunctionCallResponse(FunctionCallResponse { value });
        anatomy::backend(response(Some(b"42")), b"V\0\0\0\x0a\0\0\0\x0242");
        anatomy::backend(response(None), b"V\0\0\0\x08\xff\xff\xff\xff");
    }
}
