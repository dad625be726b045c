//! ErrorResponse and NoticeResponse: the same fields, with and without consequences; and the builder for our own.

use super::tag;
use crate::{
    error::DecodeError,
    list::{Element, List, ListBuf},
    reader::Reader,
    writer::{self, Writer},
};

/// The field codes that pgweir names
/// (<https://www.postgresql.org/docs/current/protocol-error-fields.html>).
pub mod field {
    /// Severity, in the language of the server's messages.
    pub const SEVERITY: u8 = b'S';
    /// Severity, never translated.
    pub const SEVERITY_NONLOCALIZED: u8 = b'V';
    /// SQLSTATE.
    pub const CODE: u8 = b'C';
    /// Message.
    pub const MESSAGE: u8 = b'M';
    /// Detail.
    pub const DETAIL: u8 = b'D';
    /// Hint.
    pub const HINT: u8 = b'H';
    /// Position in the statement, in characters from 1.
    pub const POSITION: u8 = b'P';
    /// Where: the call stack.
    pub const WHERE: u8 = b'W';
    /// Source file that raised it.
    pub const FILE: u8 = b'F';
    /// Line in that file.
    pub const LINE: u8 = b'L';
    /// Function in that file.
    pub const ROUTINE: u8 = b'R';
}

/// Element: a field code and its value.
#[derive(Debug)]
pub enum ErrorField {}

impl Element for ErrorField {
    type View<'a> = (u8, &'a [u8]);
    const NAME: &'static str = "error fields";
    const COUNT: &'static str = "field count";
    const TERMINATED: bool = true;

    fn read<'a>(reader: &mut Reader<'a>) -> Result<(u8, &'a [u8]), DecodeError> {
        Ok((reader.u8("field code")?, reader.cstr("field value")?))
    }

    fn write((code, value): (u8, &[u8]), writer: &mut Writer<'_>) {
        writer.u8(code);
        writer.cstr(value);
    }
}

macro_rules! report {
    ($(#[$meta:meta])* $name:ident, $tag:expr) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $name<'a> {
            /// The fields, in the order sent. Unknown codes are to be ignored.
            pub fields: List<'a, ErrorField>,
        }

        impl<'a> $name<'a> {
            /// Decodes the body.
            ///
            /// # Errors
            ///
            /// [`DecodeError::MissingNul`], [`DecodeError::Truncated`] and [`DecodeError::Trailing`].
            pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
                let mut reader = Reader::new(stringify!($name), body);
                let fields = reader.terminated()?;
                reader.finish()?;
                Ok(Self { fields })
            }

            /// Appends the message to `out`.
            pub fn encode(&self, out: &mut Vec<u8>) {
                writer::message(out, $tag, |w| w.terminated(self.fields));
            }

            /// Returns the first field with this code; see [`mod@field`].
            #[must_use]
            pub fn field(&self, code: u8) -> Option<&'a [u8]> {
                self.fields.iter().find(|(other, _)| *other == code).map(|(_, value)| value)
            }

            /// Returns the severity, untranslated where the server says it (all since 9.6); empty when it is missing.
            #[must_use]
            pub fn severity(&self) -> &'a [u8] {
                self.field(field::SEVERITY_NONLOCALIZED).or_else(|| self.field(field::SEVERITY)).unwrap_or_default()
            }

            /// Returns the SQLSTATE, if there is one of five bytes.
            #[must_use]
            pub fn sqlstate(&self) -> Option<[u8; 5]> {
                self.field(field::CODE)?.try_into().ok()
            }

            /// Returns the message; empty when it is missing.
            #[must_use]
            pub fn message(&self) -> &'a [u8] {
                self.field(field::MESSAGE).unwrap_or_default()
            }

            /// Returns the detail.
            #[must_use]
            pub fn detail(&self) -> Option<&'a [u8]> {
                self.field(field::DETAIL)
            }

            /// Returns the hint.
            #[must_use]
            pub fn hint(&self) -> Option<&'a [u8]> {
                self.field(field::HINT)
            }
        }

        /// Prints severity and SQLSTATE only: messages and details quote the user's data.
        impl std::fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let sqlstate = self.sqlstate().unwrap_or_default();
                f.debug_struct(stringify!($name))
                    .field("severity", &String::from_utf8_lossy(self.severity()))
                    .field("sqlstate", &String::from_utf8_lossy(&sqlstate))
                    .finish_non_exhaustive()
            }
        }
    };
}

report! {
    /// An error: the statement failed, and outside of simple queries all messages up to Sync are skipped.
    ///
    /// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-ERRORRESPONSE>
    ErrorResponse, tag::ERROR_RESPONSE
}

report! {
    /// A notice, which may come at any time.
    ///
    /// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-NOTICERESPONSE>
    NoticeResponse, tag::NOTICE_RESPONSE
}

impl ErrorResponse<'_> {
    /// Returns whether the server closes the connection after this: severity FATAL or PANIC.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity(), b"FATAL" | b"PANIC")
    }
}

/// How bad a report is (<https://www.postgresql.org/docs/current/protocol-error-fields.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The statement failed.
    Error,
    /// The connection ends.
    Fatal,
    /// All connections of the server end.
    Panic,
    /// Something looks wrong.
    Warning,
    /// Something is worth knowing.
    Notice,
    /// Something was asked for.
    Info,
    /// Something for the server's log.
    Log,
    /// Something for developers.
    Debug,
}

impl Severity {
    /// Returns the word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Panic => "PANIC",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
            Self::Info => "INFO",
            Self::Log => "LOG",
            Self::Debug => "DEBUG",
        }
    }
}

/// Builds an ErrorResponse or NoticeResponse of our own: S, V, C and M always, others when given.
///
/// # Examples
///
/// ```
/// use pgweir_wire::backend::{ErrorBuilder, ErrorResponse, Severity};
///
/// let bytes = ErrorBuilder::new(Severity::Fatal, *b"57P01", "pgweir is shutting down").hint("Connect again.").build();
/// let error = ErrorResponse::decode(&bytes[5..])?;
/// assert!(error.is_fatal());
/// assert_eq!(error.sqlstate(), Some(*b"57P01"));
/// # Ok::<(), pgweir_wire::DecodeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ErrorBuilder {
    fields: ListBuf<ErrorField>,
}

impl ErrorBuilder {
    /// Starts with what every report has.
    #[must_use]
    pub fn new(severity: Severity, sqlstate: [u8; 5], message: &str) -> Self {
        let severity = severity.as_str();
        Self {
            fields: ListBuf::new(),
        }
        .field(field::SEVERITY, severity)
        .field(field::SEVERITY_NONLOCALIZED, severity)
        .text(field::CODE, &sqlstate)
        .field(field::MESSAGE, message)
    }

    /// Adds a detail.
    #[must_use]
    pub fn detail(self, detail: &str) -> Self {
        self.field(field::DETAIL, detail)
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(self, hint: &str) -> Self {
        self.field(field::HINT, hint)
    }

    /// Adds any field; see [`mod@field`]. A code of zero, which would end the message, is left out.
    #[must_use]
    pub fn field(self, code: u8, value: &str) -> Self {
        self.text(code, value.as_bytes())
    }

    fn text(mut self, code: u8, value: &[u8]) -> Self {
        // The only refusals are a zero code and a 65,536th field; both are better left out than sent.
        let _left_out = self.fields.push((code, value));
        self
    }

    /// Appends the ErrorResponse to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        ErrorResponse {
            fields: self.fields.as_list(),
        }
        .encode(out);
    }

    /// Appends the same fields as a NoticeResponse to `out`.
    pub fn encode_notice(&self, out: &mut Vec<u8>) {
        NoticeResponse {
            fields: self.fields.as_list(),
        }
        .encode(out);
    }

    /// Returns the ErrorResponse.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anatomy, backend::Message};

    const BODY: &[u8] = b"SERROR\0VERROR\0C42601\0Msyntax error\0P1\0\0";

    #[test]
    fn reports_hold_their_anatomy() {
        let length = [0, 0, 0, u8::try_from(BODY.len() + 4).unwrap()];
        let error = ErrorResponse::decode(BODY).unwrap();
        anatomy::backend(
            Message::ErrorResponse(error),
            &[&b"E"[..], &length, BODY].concat(),
        );
        let notice = NoticeResponse::decode(BODY).unwrap();
        anatomy::backend(
            Message::NoticeResponse(notice),
            &[&b"N"[..], &length, BODY].concat(),
        );
    }

    #[test]
    fn accessors_find_their_fields() {
        let error = ErrorResponse::decode(BODY).unwrap();
        assert_eq!(error.severity(), b"ERROR");
        assert_eq!(error.sqlstate(), Some(*b"42601"));
        assert_eq!(error.message(), b"syntax error");
        assert_eq!((error.detail(), error.hint()), (None, None));
        assert_eq!(error.field(field::POSITION), Some(&b"1"[..]));
        assert!(!error.is_fatal());
    }

    #[test]
    fn a_report_without_fields_has_empty_answers() {
        let error = ErrorResponse::decode(b"\0").unwrap();
        assert_eq!(
            (error.severity(), error.sqlstate(), error.message()),
            (&b""[..], None, &b""[..])
        );
    }

    #[test]
    fn the_builder_writes_what_postgresql_writes() {
        let builder = ErrorBuilder::new(Severity::Error, *b"42601", "syntax error")
            .field(field::POSITION, "1");
        assert_eq!(builder.build()[5..], *BODY);
        let mut notice = Vec::new();
        builder.encode_notice(&mut notice);
        assert_eq!(notice[0], b'N');
    }

    #[test]
    fn the_builder_cuts_a_message_at_a_zero_byte() {
        let bytes = ErrorBuilder::new(Severity::Error, *b"XX000", "a\0b")
            .field(0, "x")
            .build();
        assert_eq!(ErrorResponse::decode(&bytes[5..]).unwrap().message(), b"a");
    }

    #[test]
    fn debug_output_hides_the_message() {
        let error = ErrorResponse::decode(BODY).unwrap();
        assert_eq!(
            format!("{error:?}"),
            r#"ErrorResponse { severity: "ERROR", sqlstate: "42601", .. }"#
        );
    }
}
