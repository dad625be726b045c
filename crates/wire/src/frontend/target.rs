//! Describe and Close: the two messages that name either a statement or a portal.

use super::tag;
use crate::{error::DecodeError, reader::Reader, writer};

/// What a Describe or Close is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// `S`: a prepared statement.
    Statement,
    /// `P`: a portal.
    Portal,
}

impl Target {
    /// Returns the byte on the wire.
    #[must_use]
    pub fn as_byte(self) -> u8 {
        match self {
            Self::Statement => b'S',
            Self::Portal => b'P',
        }
    }
}

fn decode<'a>(message: &'static str, body: &'a [u8]) -> Result<(Target, &'a [u8]), DecodeError> {
    let mut reader = Reader::new(message, body);
    let kind = match reader.u8("kind")? {
        b'S' => Target::Statement,
        b'P' => Target::Portal,
        other => return Err(reader.bad_value("kind", i64::from(other), 0)),
    };
    let name = reader.cstr("name")?;
    reader.finish()?;
    Ok((kind, name))
}

fn encode(out: &mut Vec<u8>, tag: u8, kind: Target, name: &[u8]) {
    writer::message(out, tag, |w| {
        w.u8(kind.as_byte());
        w.cstr(name);
    });
}

/// A question for the shape of a statement or portal.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-DESCRIBE>
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Describe<'a> {
    /// Statement or portal.
    pub kind: Target,
    /// Its name; empty for the unnamed one.
    pub name: &'a [u8],
}

text_debug!(Describe { kind } text { name });

impl<'a> Describe<'a> {
    /// Decodes the body.
    ///
    /// # Errors
    ///
    /// [`DecodeError::BadValue`] for another kind, [`DecodeError::MissingNul`], [`DecodeError::Truncated`], [`DecodeError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        decode("Describe", body).map(|(kind, name)| Self { kind, name })
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode(out, tag::DESCRIBE, self.kind, self.name);
    }
}

/// The end of a statement or portal.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-CLOSE>
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Close<'a> {
    /// Statement or portal.
    pub kind: Target,
    /// Its name; empty for the unnamed one.
    pub name: &'a [u8],
}

text_debug!(Close { kind } text { name });

impl<'a> Close<'a> {
    /// Decodes the body.
    ///
    /// # Errors
    ///
    /// As [`Describe::decode`].
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        decode("Close", body).map(|(kind, name)| Self { kind, name })
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode(out, tag::CLOSE, self.kind, self.name);
    }
}

/// Appends a whole Describe or Close (`tag`) with another name to `out`; their names are the last field, so no tail follows.
#[inline]
pub fn target_head(out: &mut Vec<u8>, tag: u8, kind: Target, name: &[u8]) {
    encode(out, tag, kind, name);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anatomy, frontend::Message};

    #[test]
    fn describe_and_close_hold_their_anatomy() {
        let describe = Describe {
            kind: Target::Statement,
            name: b"s1",
        };
        anatomy::frontend(Message::Describe(describe), b"D\0\0\0\x08Ss1\0");
        let close = Close {
            kind: Target::Portal,
            name: b"",
        };
        anatomy::frontend(Message::Close(close), b"C\0\0\0\x06P\0");
    }

    #[test]
    fn another_kind_is_refused() {
        assert_eq!(
            Close::decode(b"xs1\0"),
            Err(DecodeError::BadValue {
                message: "Close",
                field: "kind",
                value: 120,
                offset: 0
            })
        );
    }

    #[test]
    fn a_rewritten_name_makes_a_whole_message() {
        let mut out = Vec::new();
        target_head(&mut out, tag::DESCRIBE, Target::Statement, b"p1");
        assert_eq!(Describe::decode(&out[5..]).unwrap().name, b"p1");
    }
}
