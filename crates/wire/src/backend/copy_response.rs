//! CopyInResponse, CopyOutResponse and CopyBothResponse: COPY begins.

use super::tag;
use crate::{
    error::DecodeError,
    list::{Format, List},
    reader::Reader,
    writer,
};

macro_rules! copy_response {
    ($(#[$meta:meta])* $name:ident, $tag:expr) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name<'a> {
            /// The overall format: 0 text, 1 binary.
            pub format: i8,
            /// Format codes, one for each column.
            pub column_formats: List<'a, Format>,
        }

        impl<'a> $name<'a> {
            /// Decodes the body.
            ///
            /// # Errors
            ///
            /// [`DecodeError::Truncated`] and [`DecodeError::Trailing`].
            pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
                let mut reader = Reader::new(stringify!($name), body);
                let response =
                    Self { format: reader.u8("format")?.cast_signed(), column_formats: reader.counted()? };
                reader.finish()?;
                Ok(response)
            }

            /// Appends the message to `out`.
            pub fn encode(&self, out: &mut Vec<u8>) {
                writer::message(out, $tag, |w| {
                    w.u8(self.format.cast_unsigned());
                    w.counted(self.column_formats);
                });
            }
        }
    };
}

copy_response! {
    /// The client must send COPY data until CopyDone or CopyFail.
    ///
    /// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-COPYINRESPONSE>
    CopyInResponse, tag::COPY_IN_RESPONSE
}

copy_response! {
    /// COPY data follows.
    ///
    /// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-COPYOUTRESPONSE>
    CopyOutResponse, tag::COPY_OUT_RESPONSE
}

copy_response! {
    /// Both sides send COPY data: streaming replication.
    ///
    /// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-COPYBOTHRESPONSE>
    CopyBothResponse, tag::COPY_BOTH_RESPONSE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anatomy, backend::Message, list::ListBuf};

    #[test]
    fn copy_responses_hold_their_anatomy() {
        let formats = ListBuf::<Format>::collect([0, 1]).unwrap();
        let column_formats = formats.as_list();
        anatomy::backend(
            Message::CopyInResponse(CopyInResponse {
                format: 0,
                column_formats,
            }),
            b"G\0\0\0\x0b\0\0\x02\0\0\0\x01",
        );
        anatomy::backend(
            Message::CopyOutResponse(CopyOutResponse {
                format: 1,
                column_formats,
            }),
            b"H\0\0\0\x0b\x01\0\x02\0\0\0\x01",
        );
        anatomy::backend(
            Message::CopyBothResponse(CopyBothResponse {
                format: 0,
                column_formats: List::EMPTY,
            }),
            b"W\0\0\0\x07\0\0\0",
        );
    }
}
