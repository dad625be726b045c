//! Bind: parameters for a prepared statement, which make a portal.
//!
//! A Bind may be a gigabyte, so its names can be read ([`BindHead`]) and replaced ([`bind_head`]) while the rest streams.

use super::tag;
use crate::{
    error::DecodeError,
    limits,
    list::{Format, List, Value},
    nul,
    reader::Reader,
    writer,
};

/// The binding of parameters to a statement.
///
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-BIND>
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bind<'a> {
    /// The portal to make; empty for the unnamed portal.
    pub portal: &'a [u8],
    /// The statement to use; empty for the unnamed statement.
    pub statement: &'a [u8],
    /// Format codes of the parameters: none (all text), one (for all) or one each.
    pub parameter_formats: List<'a, Format>,
    /// The parameters.
    pub parameters: List<'a, Value>,
    /// Format codes of the result columns: none (all text), one (for all) or one each.
    pub result_formats: List<'a, Format>,
}

text_debug!(Bind { parameter_formats, parameters, result_formats } text { portal, statement });

impl<'a> Bind<'a> {
    /// Decodes the body.
    ///
    /// # Errors
    ///
    /// [`DecodeError::MissingNul`], [`DecodeError::Truncated`], [`DecodeError::Trailing`], and
    /// [`DecodeError::BadValue`] for a negative parameter length other than -1.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("Bind", body);
        let bind = Self {
            portal: reader.cstr("portal name")?,
            statement: reader.cstr("statement name")?,
            parameter_formats: reader.counted()?,
            parameters: reader.counted()?,
            result_formats: reader.counted()?,
        };
        reader.finish()?;
        Ok(bind)
    }

    /// Returns the format code of parameter `index`: 0 text, 1 binary.
    #[must_use]
    pub fn parameter_format(&self, index: usize) -> i16 {
        match self.parameter_formats.len() {
            0 => 0,
            1 => self.parameter_formats.get(0).unwrap_or(0),
            _ => self.parameter_formats.get(index).unwrap_or(0),
        }
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::message(out, tag::BIND, |w| {
            w.cstr(self.portal);
            w.cstr(self.statement);
            w.counted(self.parameter_formats);
            w.counted(self.parameters);
            w.counted(self.result_formats);
        });
    }
}

/// The front of a Bind: the names, and where the part begins that a proxy passes on untouched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BindHead<'a> {
    /// The portal to make.
    pub portal: &'a [u8],
    /// The statement to use.
    pub statement: &'a [u8],
    /// Where the untouched tail (formats and parameters) begins in the body, in bytes.
    pub rest_offset: usize,
}

text_debug!(BindHead { rest_offset } text { portal, statement });

impl<'a> BindHead<'a> {
    /// Decodes the front of a body of which `prefix` has arrived; `None` while the names are not whole.
    ///
    /// With a whole body `None` means that it is malformed.
    ///
    /// # Errors
    ///
    /// [`DecodeError::TooLarge`] for a name over [`limits::MAX_NAME`].
    #[inline]
    pub fn decode(prefix: &'a [u8]) -> Result<Option<Self>, DecodeError> {
        let Some(portal) = head_name("portal name", prefix)? else {
            return Ok(None);
        };
        let after_portal = prefix.get(portal.len() + 1..).unwrap_or_default();
        let Some(statement) = head_name("statement name", after_portal)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            portal,
            statement,
            rest_offset: portal.len() + statement.len() + 2,
        }))
    }
}

/// Finds the name at the front of `prefix`; `None` while its zero byte has not arrived.
#[inline]
pub(super) fn head_name<'a>(
    what: &'static str,
    prefix: &'a [u8],
) -> Result<Option<&'a [u8]>, DecodeError> {
    let window = prefix.get(..=limits::MAX_NAME).unwrap_or(prefix);
    match nul::position(window) {
        Some(end) => Ok(window.get(..end)),
        None if window.len() > limits::MAX_NAME => Err(DecodeError::TooLarge {
            message: what,
            length: window.len(),
            limit: limits::MAX_NAME,
        }),
        None => Ok(None),
    }
}

/// Appends the head of a Bind with other names to `out`; the tail of `rest_len` bytes (formats and parameters) must follow.
#[inline]
pub fn bind_head(out: &mut Vec<u8>, portal: &[u8], statement: &[u8], rest_len: usize) {
    writer::head(out, tag::BIND, rest_len, |w| {
        w.cstr(portal);
        w.cstr(statement);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anatomy, frontend::Message, list::ListBuf};

    fn encoded(portal: &[u8], statement: &[u8]) -> Vec<u8> {
        let formats = ListBuf::<Format>::collect([0, 1]).unwrap();
        let parameters = ListBuf::<Value>::collect([Some(&b"42"[..]), None]).unwrap();
        let mut out = Vec::new();
        let bind = Bind {
            portal,
            statement,
            parameter_formats: formats.as_list(),
            parameters: parameters.as_list(),
            result_formats: List::EMPTY,
        };
        bind.encode(&mut out);
        anatomy::frontend(Message::Bind(bind), &out);
        out
    }

    #[test]
    fn bind_holds_its_anatomy() {
        let expected = b"B\0\0\0\x20p\0st\0\0\x02\0\0\0\x01\0\x02\0\0\0\x0242\xff\xff\xff\xff\0\0";
        let out = encoded(b"p", b"st");
        assert_eq!(out[5..], expected[5..]);
        let bind = Bind::decode(&out[5..]).unwrap();
        assert_eq!((bind.parameter_format(0), bind.parameter_format(1)), (0, 1));
        assert_eq!(
            bind.parameters.iter().collect::<Vec<_>>(),
            [Some(&b"42"[..]), None]
        );
    }

    #[test]
    fn rejects_bind_with_negative_parameter_count() {
        // PostgreSQL reads the count unsigned, so -1 promises 65,535 parameters that do not come.
        assert!(matches!(
            Bind::decode(b"\0\0\0\0\xff\xff\0\0"),
            Err(DecodeError::Truncated {
                message: "Bind",
                field: "value",
                ..
            })
        ));
    }

    #[test]
    fn rejects_bind_with_negative_parameter_length() {
        assert!(matches!(
            Bind::decode(b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0"),
            Err(DecodeError::BadValue {
                value: -2,
                offset: 6,
                ..
            })
        ));
    }

    #[test]
    fn a_head_needs_both_names_and_nothing_more() {
        let out = encoded(b"portal", b"statement");
        let body = &out[5..];
        let names = b"portal\0statement\0".len();
        for len in 0..names {
            assert_eq!(BindHead::decode(&body[..len]), Ok(None), "{len}");
        }
        for len in names..body.len() {
            let head = BindHead {
                portal: b"portal",
                statement: b"statement",
                rest_offset: names,
            };
            assert_eq!(BindHead::decode(&body[..len]), Ok(Some(head)));
        }
    }

    #[test]
    fn a_name_at_the_limit_is_taken_and_one_over_is_not() {
        let mut body = vec![b'x'; limits::MAX_NAME];
        body.extend_from_slice(b"\0\0");
        assert!(BindHead::decode(&body).unwrap().is_some());
        body.insert(0, b'x');
        assert!(matches!(
            BindHead::decode(&body),
            Err(DecodeError::TooLarge { .. })
        ));
    }

    #[test]
    fn a_rewritten_head_and_the_old_tail_make_a_whole_message() {
        let original = encoded(b"", b"a_long_client_name");
        let body = &original[5..];
        let rest = &body[BindHead::decode(body).unwrap().unwrap().rest_offset..];
        let mut rewritten = Vec::new();
        bind_head(&mut rewritten, b"", b"p1", rest.len());
        rewritten.extend_from_slice(rest);
        assert_eq!(rewritten, encoded(b"", b"p1"));
    }
}
