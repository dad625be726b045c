//! FunctionCall: the legacy call of a function by its object ID.

use super::tag;
use crate::{
    error::DecodeError,
    list::{Format, List, Value},
    reader::Reader,
    writer,
};

/// A function call.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-FUNCTIONCALL>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionCall<'a> {
    /// The function's object ID.
    pub function: u32,
    /// Format codes of the arguments: none (all text), one (for all) or one each.
    pub argument_formats: List<'a, Format>,
    /// The arguments.
    pub arguments: List<'a, Value>,
    /// Format code of the result: 0 text, 1 binary.
    pub result_format: i16,
}

impl<'a> FunctionCall<'a> {
    /// Decodes the body.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`], [`DecodeError::Trailing`], and [`DecodeError::BadValue`] for a negative argument length other than -1.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("FunctionCall", body);
        let call = Self {
            function: reader.u32("function")?,
            argument_formats: reader.counted()?,
            arguments: reader.counted()?,
            result_format: reader.i16("result format")?,
        };
        reader.finish()?;
        Ok(call)
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::message(out, tag::FUNCTION_CALL, |w| {
            w.u32(self.function);
            w.counted(self.argument_formats);
            w.counted(self.arguments);
            w.i16(self.result_format);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anatomy, frontend::Message, list::ListBuf};

    #[test]
    fn function_call_holds_its_anatomy() {
        let formats = ListBuf::<Format>::collect([1]).unwrap();
        let arguments = ListBuf::<Value>::collect([Some(&b"\0\0\0\x05"[..]), None]).unwrap();
        let call = FunctionCall {
            function: 952,
            argument_formats: formats.as_list(),
            arguments: arguments.as_list(),
            result_format: 1,
        };
        let bytes =
            b"F\0\0\0\x1c\0\0\x03\xb8\0\x01\0\x01\0\x02\0\0\0\x04\0\0\0\x05\xff\xff\xff\xff\0\x01";
        anatomy::frontend(Message::FunctionCall(call), bytes);
    }
}
